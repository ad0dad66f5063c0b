//! The shapes of the API: Prometheus' own, and those of `docs/api.md`.

use super::{
    Counters, KEEP_RESOLVED_MS,
    book::{Book, GroupState, Health, RuleState, StoredAlert},
};
use crate::{
    notify::{alert::Severity, group::Audience as _, outbox::Worker, webhook::rfc3339},
    rules::{
        evaluate::{Active, fingerprint},
        file::{Kind, Rule},
        state::State,
        template::{Template, go_e_shortest},
    },
};
use serde_json::{Map, Value, json};
use shipwatch_common::time::UnixMs;
use std::{
    fmt::Write as _,
    sync::{Arc, atomic::Ordering},
};

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `data` of `/api/v1/rules`.
pub(super) fn prometheus_rules(book: &Book) -> Value {
    let groups: Vec<Value> = book.groups.iter().map(group).collect();
    json!({"groups": groups})
}

fn group(group: &GroupState) -> Value {
    let rules: Vec<Value> = group.spec.rules.iter().zip(&group.rules).map(|(rule, state)| prometheus_rule(rule, state)).collect();
    json!({
        "name": group.spec.name,
        "file": group.spec.file,
        "rules": rules,
        "interval": group.spec.interval.as_secs_f64(),
        "limit": group.spec.limit,
        "evaluationTime": group.took.as_secs_f64(),
        "lastEvaluation": group.evaluated_ms.map_or_else(|| NEVER.to_owned(), rfc3339),
    })
}

fn texts(all: &[(String, Template)]) -> Map<String, Value> {
    all.iter().map(|(name, text)| (name.clone(), json!(text.source()))).collect()
}

fn prometheus_rule(rule: &Rule, state: &RuleState) -> Value {
    let mut shown = Map::new();
    if let Kind::Alert(alert) = &rule.kind {
        let open = || state.active.values().filter(|active| active.state.resolved_ms().is_none());
        let word = match (open().any(|one| matches!(one.state, State::Firing { .. })), open().next()) {
            (true, _) => "firing",
            (false, Some(_)) => "pending",
            (false, None) => "inactive",
        };
        shown.insert("state".into(), json!(word));
        shown.insert("name".into(), json!(alert.name));
        shown.insert("query".into(), json!(rule.expr));
        shown.insert("duration".into(), json!(alert.hold.as_secs_f64()));
        shown.insert("keepFiringFor".into(), json!(alert.keep_firing.as_secs_f64()));
        shown.insert("labels".into(), json!(texts(&rule.labels)));
        shown.insert("annotations".into(), json!(texts(&alert.annotations)));
        shown.insert("alerts".into(), json!(open().map(prometheus_alert).collect::<Vec<_>>()));
    } else {
        shown.insert("name".into(), json!(rule.name()));
        shown.insert("query".into(), json!(rule.expr));
        if !rule.labels.is_empty() {
            shown.insert("labels".into(), json!(texts(&rule.labels)));
        }
    }
    let (health, error) = match &state.health {
        Health::Unknown => ("unknown", None),
        Health::Good => ("ok", None),
        Health::Bad(error) => ("err", Some(error)),
    };
    shown.insert("health".into(), json!(health));
    if let Some(error) = error {
        shown.insert("lastError".into(), json!(error));
    }
    shown.insert("evaluationTime".into(), json!(state.took.as_secs_f64()));
    shown.insert("lastEvaluation".into(), json!(state.evaluated_ms.map_or_else(|| NEVER.to_owned(), rfc3339)));
    shown.insert("type".into(), json!(if matches!(rule.kind, Kind::Alert(_)) { "alerting" } else { "recording" }));
    Value::Object(shown)
}

fn prometheus_alert(active: &Active) -> Value {
    let mut shown = json!({
        "labels": active.labels,
        "annotations": active.annotations,
        "state": active.state.word(),
        "activeAt": rfc3339(active.state.since_ms()),
    });
    if let State::Firing { fine_since_ms: Some(since), .. } = active.state {
        shown["keepFiringSince"] = json!(rfc3339(since));
    }
    shown["value"] = json!(go_e_shortest(active.value));
    shown
}

/// `data` of `/api/v1/alerts`.
pub(super) fn prometheus_alerts(book: &Book) -> Value {
    let rules = book.groups.iter().flat_map(|group| &group.rules);
    let open = rules.flat_map(|rule| rule.active.values()).filter(|active| active.state.resolved_ms().is_none());
    json!({"alerts": open.map(prometheus_alert).collect::<Vec<_>>()})
}

/// Alerts as `docs/api.md` shapes them: firing ones first, then by severity and time.
pub(super) fn alerts(book: &Book, states: &[&str], now_ms: UnixMs) -> Vec<Value> {
    let fresh = |alert: &StoredAlert| alert.active.state.resolved_ms().is_none_or(|at| now_ms - at <= KEEP_RESOLVED_MS);
    let mut all: Vec<StoredAlert> = book.all().filter(|alert| states.contains(&alert.active.state.word()) && fresh(alert)).collect();
    all.sort_by_key(|alert| {
        let rank = match alert.active.state {
            State::Firing { .. } => 0,
            State::Pending { .. } => 1,
            State::Resolved { .. } => 2,
        };
        (rank, std::cmp::Reverse(Severity::of(&alert.active.labels)), std::cmp::Reverse(alert.active.state.since_ms()))
    });
    all.iter().map(shown).collect()
}

fn shown(alert: &StoredAlert) -> Value {
    let (labels, state) = (&alert.active.labels, alert.active.state);
    json!({
        "fingerprint": format!("{:016x}", fingerprint(labels)),
        "name": labels.get("alertname"),
        "state": state.word(),
        "severity": labels.get("severity").unwrap_or("none"),
        // JSON has no word for NaN and infinity.
        "value": Some(alert.active.value).filter(|value| value.is_finite()),
        "labels": labels,
        "annotations": alert.active.annotations,
        "expr": alert.expr,
        "group": alert.group,
        "active_at_ms": state.since_ms(),
        "fired_at_ms": state.fired_ms(),
        "resolved_at_ms": state.resolved_ms(),
    })
}

/// Channels as `docs/api.md` shapes them.
pub(super) fn channels(workers: &[Arc<Worker>]) -> Vec<Value> {
    let shown = |worker: &Arc<Worker>| {
        let channel = worker.channel();
        json!({"name": channel.name(), "kind": channel.kind().as_str(), "target": channel.target()})
    };
    workers.iter().map(shown).collect()
}

/// Text for `/metrics`.
pub(super) fn own_metrics(book: &Book, workers: &[Arc<Worker>], counters: &Counters) -> String {
    let mut text = String::new();
    let mut put = |name: &str, kind: &str, help: &str, values: &[(String, u64)]| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in values {
            let _infallible = writeln!(text, "{name}{labels} {value}");
        }
    };
    let one = |counter: &std::sync::atomic::AtomicU64| vec![(String::new(), counter.load(Ordering::Relaxed))];
    put("shipwatch_rule_evaluations_total", "counter", "Evaluations of rules.", &one(&counters.evaluations_total));
    put("shipwatch_rule_evaluation_failures_total", "counter", "Evaluations that failed.", &one(&counters.failures_total));
    put(
        "shipwatch_rule_evaluations_missed_total",
        "counter",
        "Evaluations of groups that were skipped: the one before took too long.",
        &one(&counters.missed_total),
    );
    let count = |word: &str| book.all().filter(|alert| alert.active.state.word() == word).count() as u64;
    let states = ["pending", "firing"].map(|word| (format!("{{state=\"{word}\"}}"), count(word)));
    put("shipwatch_alerts", "gauge", "Alerts now.", &states);
    let mut each = |name: &str, help: &str, get: &dyn Fn(&Worker) -> u64| {
        let label = |worker: &Worker| format!("{{channel=\"{}\",kind=\"{}\"}}", worker.channel().name(), worker.channel().kind().as_str());
        let values: Vec<(String, u64)> = workers.iter().map(|worker| (label(worker), get(worker))).collect();
        put(name, "counter", help, &values);
    };
    each("shipwatch_notifications_sent_total", "Messages that a channel took.", &|worker| {
        worker.counters.accepted_total.load(Ordering::Relaxed)
    });
    each("shipwatch_notifications_failed_total", "Attempts that failed and are made again.", &|worker| {
        worker.counters.failed_total.load(Ordering::Relaxed)
    });
    each("shipwatch_notifications_dead_total", "Messages that were given up.", &|worker| {
        worker.counters.dead_total.load(Ordering::Relaxed)
    });
    text
}
