//! What is known of every rule and every alert. In memory, restored from the store at the start.

use super::{KEEP_RESOLVED_MS, hosts};
use crate::{
    notify::{alert::Alert, group::Dispatcher},
    rules::{
        self,
        evaluate::{Active, ActiveSet, alert_series, fingerprint},
        file::{Group, Kind, Rule},
        state::State,
        template::url_encode,
    },
    store::alerts::AlertRow,
};
use serde::{Deserialize, Serialize};
use shipwatch_common::{model::Labels, time::UnixMs};
use shipwatch_series::promql::format_value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tracing::warn;

/// A gap in watching that is no longer than this is no gap.
const UNWATCHED_MS: i64 = 60_000;

/// Whether a rule works.
#[derive(Clone, Debug, Default)]
pub(super) enum Health {
    /// Not evaluated yet.
    #[default]
    Unknown,
    /// The last evaluation worked.
    Good,
    /// It did not.
    Bad(String),
}

/// A rule's state.
#[derive(Clone, Debug, Default)]
pub(super) struct RuleState {
    /// What makes it the same rule after a reload or a restart.
    pub(super) key: String,
    pub(super) active: ActiveSet,
    /// Series of the last evaluation.
    pub(super) previous: BTreeSet<Arc<Labels>>,
    /// When they were written.
    pub(super) written_ms: Option<UnixMs>,
    pub(super) health: Health,
    pub(super) evaluated_ms: Option<UnixMs>,
    pub(super) took: Duration,
}

/// A group's state.
#[derive(Clone, Debug)]
pub(super) struct GroupState {
    pub(super) spec: Arc<Group>,
    pub(super) rules: Vec<RuleState>,
    pub(super) evaluated_ms: Option<UnixMs>,
    pub(super) took: Duration,
}

/// An alert as it is stored, with what is shown of its rule even when that is gone.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct StoredAlert {
    pub(super) version: u32,
    pub(super) rule: String,
    pub(super) group: String,
    pub(super) expr: String,
    #[serde(flatten)]
    pub(super) active: Active,
}

/// What is stored of grouping.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct StoredDispatcher {
    pub(super) version: u32,
    /// When rules were watched last.
    pub(super) watched_at_ms: UnixMs,
    pub(super) dispatcher: Dispatcher,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) groups: Vec<GroupState>,
    /// Alerts of rules that are gone.
    pub(super) gone: Vec<StoredAlert>,
    /// Series of rules that are gone: to be marked as ended.
    pub(super) ended: Vec<Arc<Labels>>,
    pub(super) dispatcher: Dispatcher,
}

/// The files' groups and the built-in one.
pub(super) fn all_groups(config: &rules::Config, mut groups: Vec<Group>) -> Vec<Group> {
    if config.host_down {
        groups.extend(hosts::group(config));
    }
    groups
}

/// A rule's keys in its group; equal rules are told apart by their order.
pub(super) fn keys(group: &Group) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let scope = format!("{};{}", group.file, group.name);
    let key = |rule: &Rule| {
        let key = rule.key(&scope);
        let count = seen.entry(key.clone()).or_default();
        *count += 1;
        if *count == 1 { key } else { format!("{key}-{count}") }
    };
    group.rules.iter().map(key).collect()
}

/// The id of an alert in the store and in grouping.
pub(super) fn alert_id(rule_key: &str, fingerprint: u64) -> String {
    format!("{rule_key}/{fingerprint:016x}")
}

impl StoredAlert {
    pub(super) fn new(rule: &str, group: &str, expr: &str, active: Active) -> Self {
        Self { version: 1, rule: rule.to_owned(), group: group.to_owned(), expr: expr.to_owned(), active }
    }

    pub(super) fn id(&self) -> String {
        alert_id(&self.rule, fingerprint(&self.active.labels))
    }

    pub(super) fn row(&self, now_ms: UnixMs) -> Result<AlertRow, serde_json::Error> {
        Ok(AlertRow {
            id: self.id(),
            fingerprint: format!("{:016x}", fingerprint(&self.active.labels)),
            state: self.active.state.word().to_owned(),
            body: serde_json::to_string(self)?,
            updated_at_ms: now_ms,
        })
    }

    /// As people are told of it.
    pub(super) fn told(&self, external_url: &str) -> Alert {
        let active = &self.active;
        Alert {
            labels: active.labels.clone(),
            annotations: active.annotations.clone(),
            value: format_value(active.value),
            starts_at_ms: active.state.fired_ms().unwrap_or(active.state.since_ms()),
            ends_at_ms: active.state.resolved_ms(),
            generator_url: format!("{external_url}/graph?g0.expr={}&g0.tab=1", url_encode(&self.expr)),
            fingerprint: format!("{:016x}", fingerprint(&active.labels)),
        }
    }
}

impl GroupState {
    fn new(spec: Group) -> Self {
        let rules = keys(&spec).into_iter().map(|key| RuleState { key, ..RuleState::default() }).collect();
        Self { spec: Arc::new(spec), rules, evaluated_ms: None, took: Duration::ZERO }
    }

    pub(super) fn stored(&self, at: usize, active: Active) -> Option<StoredAlert> {
        let (rule, state) = (self.spec.rules.get(at)?, self.rules.get(at)?);
        Some(StoredAlert::new(&state.key, &self.spec.name, &rule.expr, active))
    }
}

impl Book {
    pub(super) fn new(groups: Vec<Group>) -> Self {
        Self { groups: groups.into_iter().map(GroupState::new).collect(), ..Self::default() }
    }

    /// The rule of a key, as it is now.
    pub(super) fn rule(&self, key: &str) -> Option<(&GroupState, usize)> {
        self.groups.iter().find_map(|group| Some((group, group.rules.iter().position(|rule| rule.key == key)?)))
    }

    pub(super) fn rule_mut(&mut self, key: &str) -> Option<&mut RuleState> {
        self.groups.iter_mut().flat_map(|group| &mut group.rules).find(|rule| rule.key == key)
    }

    pub(super) fn rule_count(&self) -> usize {
        self.groups.iter().map(|group| group.rules.len()).sum()
    }

    pub(super) fn alert_count(&self) -> usize {
        self.groups.iter().flat_map(|group| &group.rules).map(|rule| rule.active.len()).sum::<usize>() + self.gone.len()
    }

    /// Whether something waits for its `for`.
    pub(super) fn has_pending(&self) -> bool {
        let rules = self.groups.iter().flat_map(|group| &group.rules);
        rules.flat_map(|rule| rule.active.values()).any(|alert| matches!(alert.state, State::Pending { .. }))
    }

    /// Every alert with its group and rule.
    pub(super) fn all(&self) -> impl Iterator<Item = StoredAlert> + '_ {
        let of_rules = self.groups.iter().flat_map(|group| {
            let rules = group.rules.iter().enumerate();
            rules.flat_map(move |(at, rule)| rule.active.values().filter_map(move |active| group.stored(at, active.clone())))
        });
        of_rules.chain(self.gone.iter().cloned())
    }

    /// Takes over what was stored.
    pub(super) fn restore(&mut self, dispatcher: Option<&str>, alerts: Vec<String>, now_ms: UnixMs) -> Result<(), String> {
        let mut unwatched_ms = 0;
        if let Some(text) = dispatcher {
            let stored: StoredDispatcher =
                serde_json::from_str(text).map_err(|error| format!("the stored state of grouping cannot be read: {error}"))?;
            self.dispatcher = stored.dispatcher;
            unwatched_ms = now_ms - stored.watched_at_ms;
        }
        for body in alerts {
            let mut stored: StoredAlert = match serde_json::from_str(&body) {
                Ok(stored) => stored,
                Err(error) => {
                    warn!(%error, "a stored alert cannot be read and is left out; if its rule still holds, it fires anew");
                    continue;
                }
            };
            if unwatched_ms > UNWATCHED_MS {
                stored.active.state = stored.active.state.without(unwatched_ms);
            }
            match self.rule_mut(&stored.rule) {
                Some(rule) => {
                    rule.active.insert(fingerprint(&stored.active.labels), stored.active);
                }
                None => self.gone.push(stored),
            }
        }
        // So that their series are marked as ended if the first evaluation does not have them any more.
        for rule in self.groups.iter_mut().flat_map(|group| &mut group.rules) {
            rule.previous = alert_series(&rule.active).into_iter().map(|(labels, _)| labels).collect();
        }
        Ok(())
    }

    /// Takes new groups; rules with the same key keep their state.
    pub(super) fn replace(&mut self, groups: Vec<Group>) {
        let old = std::mem::take(&mut self.groups);
        self.groups = groups.into_iter().map(GroupState::new).collect();
        for group in old {
            let same = self.groups.iter_mut().find(|new| new.spec.name == group.spec.name && new.spec.file == group.spec.file);
            if let Some(new) = same {
                (new.evaluated_ms, new.took) = (group.evaluated_ms, group.took);
            }
            for (at, rule) in group.rules.iter().enumerate() {
                if let Some(new) = self.rule_mut(&rule.key) {
                    *new = rule.clone();
                    continue;
                }
                self.ended.extend(rule.previous.iter().cloned());
                self.gone.extend(rule.active.values().filter_map(|active| group.stored(at, active.clone())));
            }
        }
    }

    /// Alerts of rules that are gone and are not settled yet, and ids of those whose time to be shown is over.
    pub(super) fn unsettled(&self, now_ms: UnixMs) -> (Vec<StoredAlert>, Vec<String>) {
        let mut open = Vec::new();
        let mut forget = Vec::new();
        for alert in &self.gone {
            match alert.active.state {
                State::Firing { .. } => open.push(alert.clone()),
                State::Pending { .. } => forget.push(alert.id()),
                State::Resolved { resolved_ms, .. } if now_ms - resolved_ms > KEEP_RESOLVED_MS => forget.push(alert.id()),
                State::Resolved { .. } => {}
            }
        }
        (open, forget)
    }
}

/// `for` and `keep_firing_for` of a rule; `None` for a recording rule.
pub(super) fn holds(rule: &Rule) -> Option<rules::state::Holds> {
    let ms = shipwatch_common::time::duration_ms;
    match &rule.kind {
        Kind::Alert(alert) => Some(rules::state::Holds { hold_ms: ms(alert.hold), keep_firing_ms: ms(alert.keep_firing) }),
        Kind::Record(_) => None,
    }
}
