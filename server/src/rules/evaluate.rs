//! One evaluation of one rule, in two halves: ask (queries, templates), then step (state, series). Both are pure but for the
//! query function they are given.

use super::{
    file::{AlertRule, Group, Kind, Rule},
    state::{Holds, State, Transition},
    template::{Data, QueryFn, Template},
};
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    model::{Labels, Sample, metric::STALE_NAN_BITS},
    time::{UnixMs, duration_ms},
};
use shipwatch_series::promql::Query;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Most alerts that one rule may have, whatever its group's limit says.
pub const MAX_ALERTS_PER_RULE: usize = 10_000;

/// Elements of an instant vector; a number is one element without labels.
pub type Elements = Vec<(Arc<Labels>, f64)>;

/// What the outside gives: the store's answers, the time, the address in links.
pub struct Outside<'a> {
    /// Evaluates a query at a time.
    pub query: &'a dyn Fn(&Query, UnixMs) -> Result<Elements, String>,
    /// Base of links.
    pub external_url: &'a str,
}

impl std::fmt::Debug for Outside<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").field("external_url", &self.external_url).finish_non_exhaustive()
    }
}

/// A label set for which an alerting expression has a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// With the rule's labels and `alertname`.
    pub labels: Labels,
    /// Expanded.
    pub annotations: BTreeMap<String, String>,
    /// Of the expression.
    pub value: f64,
}

/// What a rule's expression gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// For an alerting rule.
    Alerts(Vec<Candidate>),
    /// For a recording rule.
    Series(Elements),
}

/// An alert: what is stored of it and shown.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Active {
    /// Its identity.
    pub labels: Labels,
    /// For people.
    pub annotations: BTreeMap<String, String>,
    /// At the last evaluation that had one.
    #[serde(with = "as_text")]
    pub value: f64,
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
}

/// Alerts by fingerprint.
pub type ActiveSet = BTreeMap<u64, Active>;

/// Asks the expression and fills the templates in.
///
/// # Errors
/// Why the rule has no result; its state stays.
pub fn ask(group: &Group, rule: &Rule, at_ms: UnixMs, outside: &Outside<'_>) -> Result<Found, String> {
    let Some(query) = &rule.query else { return Err("a built-in rule has no query".to_owned()) };
    let elements = (outside.query)(query, query_time(group, at_ms))?;
    match &rule.kind {
        Kind::Record(name) => record(group, rule, name, elements).map(Found::Series),
        Kind::Alert(alert) => candidates(rule, alert, elements, at_ms, outside).map(Found::Alerts),
    }
}

/// The time whose data a group's evaluation looks at.
#[must_use]
pub fn query_time(group: &Group, at_ms: UnixMs) -> UnixMs {
    at_ms - duration_ms(group.query_offset)
}

fn record(group: &Group, rule: &Rule, name: &str, elements: Elements) -> Result<Elements, String> {
    let mut seen = BTreeSet::new();
    let mut series = Vec::with_capacity(elements.len());
    for (labels, value) in elements {
        let own = rule.labels.iter().map(|(name, text)| (name.as_str(), text.source()));
        let labels = labels.with([(Labels::NAME, name)].into_iter().chain(own)).map_err(|error| error.to_string())?;
        let labels = Arc::new(labels);
        if !seen.insert(Arc::clone(&labels)) {
            return Err("vector contains metrics with the same labelset after applying rule labels".to_owned());
        }
        series.push((labels, value));
    }
    if group.limit > 0 && series.len() > group.limit {
        return Err(format!("exceeded limit of {} with {} series", group.limit, series.len()));
    }
    Ok(series)
}

fn candidates(rule: &Rule, alert: &AlertRule, elements: Elements, at_ms: UnixMs, outside: &Outside<'_>) -> Result<Vec<Candidate>, String> {
    if elements.len() > MAX_ALERTS_PER_RULE {
        return Err(format!("the expression gives {} alerts, more than the {MAX_ALERTS_PER_RULE} that are allowed", elements.len()));
    }
    let run = |text: &str| {
        let query = Query::parse(text).map_err(|error| error.to_string())?;
        (outside.query)(&query, at_ms)
    };
    let query: QueryFn<'_> = &run;
    let mut seen = BTreeSet::new();
    let mut all = Vec::with_capacity(elements.len());
    for (element, value) in elements {
        let data = Data { labels: &element, value, external_url: outside.external_url, now_ms: at_ms, query };
        let expand = |texts: &[(String, Template)]| -> BTreeMap<String, String> {
            texts.iter().map(|(name, text)| (name.clone(), text.expand(&data))).collect()
        };
        let mut changes = expand(&rule.labels);
        for value in changes.values_mut() {
            truncate(value, Labels::MAX_VALUE_BYTES);
        }
        changes.insert(Labels::NAME.to_owned(), String::new());
        changes.insert("alertname".to_owned(), alert.name.clone());
        let labels =
            element.with(changes.iter().map(|(name, value)| (name.as_str(), value.as_str()))).map_err(|error| error.to_string())?;
        if !seen.insert(labels.clone()) {
            return Err("vector contains metrics with the same labelset after applying alert labels".to_owned());
        }
        all.push(Candidate { labels, annotations: expand(&alert.annotations), value });
    }
    Ok(all)
}

/// Cuts at a character's border.
fn truncate(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

/// Alertmanager's fingerprint: FNV-1a over the sorted labels.
#[must_use]
pub fn fingerprint(labels: &Labels) -> u64 {
    let bytes = labels.iter().flat_map(|(name, value)| name.bytes().chain([0xff]).chain(value.bytes()).chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// What a step changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stepped {
    /// All alerts of the rule, resolved ones included.
    pub active: ActiveSet,
    /// What is to be stored and told.
    pub changes: Vec<(u64, Transition)>,
    /// Resolved alerts whose time to be shown is over.
    pub forgotten: Vec<u64>,
}

/// Moves every alert of a rule one step.
///
/// # Errors
/// More alerts than the limit: nothing changes. (Prometheus forgets all of them, which looks like a recovery.)
pub fn step(
    before: &ActiveSet,
    candidates: Vec<Candidate>,
    holds: Holds,
    limit: usize,
    keep_resolved_ms: i64,
    now_ms: UnixMs,
) -> Result<Stepped, String> {
    let mut breached: BTreeMap<u64, Candidate> =
        candidates.into_iter().map(|candidate| (fingerprint(&candidate.labels), candidate)).collect();
    let mut stepped = Stepped::default();
    let mut take = |id: u64, old: Option<&Active>, new: Option<Candidate>| {
        let (state, transition) = State::step(old.map(|old| old.state), new.is_some(), holds, now_ms);
        stepped.changes.extend(transition.map(|transition| (id, transition)));
        let Some(state) = state else { return };
        let over = state.resolved_ms().is_some_and(|at| now_ms - at > keep_resolved_ms);
        let active = match (new, old) {
            (Some(new), _) => Active { labels: new.labels, annotations: new.annotations, value: new.value, state },
            (None, Some(old)) if !over => Active { state, ..old.clone() },
            (None, Some(_)) => {
                stepped.forgotten.push(id);
                return;
            }
            (None, None) => return,
        };
        stepped.active.insert(id, active);
    };
    for (id, old) in before {
        take(*id, Some(old), breached.remove(id));
    }
    for (id, new) in breached {
        take(id, None, Some(new));
    }
    let open = stepped.active.values().filter(|one| one.state.resolved_ms().is_none()).count();
    if limit > 0 && open > limit {
        return Err(format!("exceeded limit of {limit} with {open} alerts"));
    }
    Ok(stepped)
}

/// `ALERTS` and `ALERTS_FOR_STATE` of the alerts that are pending or firing.
#[must_use]
pub fn alert_series(active: &ActiveSet) -> Elements {
    let mut series = Vec::new();
    for alert in active.values().filter(|alert| alert.state.resolved_ms().is_none()) {
        let alerts = alert.labels.with([(Labels::NAME, "ALERTS"), ("alertstate", alert.state.word())]);
        let for_state = alert.labels.with([(Labels::NAME, "ALERTS_FOR_STATE")]);
        #[expect(clippy::cast_precision_loss, reason = "seconds stay far below 2^53")]
        let since = alert.state.since_ms().div_euclid(1_000) as f64;
        // One label too many is the only way to fail; the alert itself is told all the same.
        series.extend(alerts.ok().map(|labels| (Arc::new(labels), 1.0)));
        series.extend(for_state.ok().map(|labels| (Arc::new(labels), since)));
    }
    series
}

/// Samples to write: the series of this evaluation, and a stale marker for those that were there before and are gone.
#[must_use]
pub fn samples(series: Elements, previous: &BTreeSet<Arc<Labels>>, ts_ms: UnixMs) -> (Vec<Sample>, BTreeSet<Arc<Labels>>) {
    let now: BTreeSet<Arc<Labels>> = series.iter().map(|(labels, _)| Arc::clone(labels)).collect();
    let gone = previous.difference(&now).map(|labels| (Arc::clone(labels), f64::from_bits(STALE_NAN_BITS)));
    let samples = series.into_iter().chain(gone).map(|(labels, value)| Sample { labels, ts_ms, value }).collect();
    (samples, now)
}

/// Numbers that JSON has no word for survive as text.
mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&shipwatch_series::promql::format_value(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
