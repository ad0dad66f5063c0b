//! Grouping, waiting and repeating, as Alertmanager's one default route does it. Pure: time is an argument, the whole state
//! is a value that is stored with the alerts and messages it belongs to.
//!
//! # Invariants
//! - A channel hears that an alert is over only if it was told that it fires.
//! - A message has its number from a counter in this state. State and message are committed together, so a crash makes
//!   neither a second message of the same content nor a second id for the same message.
//! - A clock that jumps back delays a message by at most one waiting time.
//!
//! # Where more will plug in
//! A tree of routes gives each leaf a [`Policy`] and a state of its own; inhibition and silences take alerts out before
//! [`Dispatcher::flush`] looks at them; escalation is a policy whose channels depend on how long a group is unanswered.

use super::{
    alert::{Alert, Notification, Reason},
    config::Route,
};
use serde::{Deserialize, Serialize};
use shipwatch_common::time::UnixMs;
use std::collections::{BTreeMap, BTreeSet};

/// A channel as grouping sees it.
pub trait Audience {
    /// Its name.
    fn name(&self) -> &str;
    /// Whether it wants to hear of this alert.
    fn accepts(&self, alert: &Alert) -> bool;
    /// Whether it wants to hear that alerts are over.
    fn wants_resolved(&self) -> bool;
}

/// How a route groups and waits, in milliseconds.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Labels that make a group; `...` is every label.
    pub group_by: Vec<String>,
    /// Before the first message of a group.
    pub wait_ms: i64,
    /// Between messages of a group that changed.
    pub interval_ms: i64,
    /// Before the same is told again.
    pub repeat_ms: i64,
}

impl From<&Route> for Policy {
    fn from(route: &Route) -> Self {
        let ms = shipwatch_common::time::duration_ms;
        Self {
            group_by: route.group_by.clone(),
            wait_ms: ms(route.group_wait),
            interval_ms: ms(route.group_interval),
            repeat_ms: ms(route.repeat_interval),
        }
    }
}

/// What a channel was told last of a group.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Told {
    at_ms: UnixMs,
    firing: BTreeSet<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Group {
    labels: BTreeMap<String, String>,
    /// By the alert's id, which tells rules apart.
    alerts: BTreeMap<String, Alert>,
    created_ms: UnixMs,
    flushed_ms: Option<UnixMs>,
    /// Whether something changed since.
    changed: bool,
    told: BTreeMap<String, Told>,
}

/// See the module.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Dispatcher {
    next_number: u64,
    groups: BTreeMap<String, Group>,
}

impl Dispatcher {
    /// An alert fires, or what is said of it changed, or it is over.
    pub fn note(&mut self, id: &str, alert: Alert, policy: &Policy, now_ms: UnixMs) {
        if let Some(group) = self.groups.values_mut().find(|group| group.alerts.contains_key(id)) {
            group.changed = true;
            group.alerts.insert(id.to_owned(), alert);
            return;
        }
        if alert.is_resolved() {
            return;
        }
        let labels = group_labels(&alert, &policy.group_by);
        let group = self.groups.entry(key(&labels)).or_insert_with(|| Group {
            labels,
            alerts: BTreeMap::new(),
            created_ms: now_ms,
            flushed_ms: None,
            changed: true,
            told: BTreeMap::new(),
        });
        group.changed = true;
        group.alerts.insert(id.to_owned(), alert);
    }

    /// The newest value and texts of an alert that fires on; not worth a message or a write of its own.
    pub fn refresh(&mut self, id: &str, value: &str, annotations: &BTreeMap<String, String>) {
        if let Some(alert) = self.groups.values_mut().find_map(|group| group.alerts.get_mut(id)) {
            value.clone_into(&mut alert.value);
            annotations.clone_into(&mut alert.annotations);
        }
    }

    /// Whether an alert is in a group.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.groups.values().any(|group| group.alerts.contains_key(id))
    }

    /// Alerts that fire in here, by id.
    #[must_use]
    pub fn firing(&self) -> Vec<String> {
        let alerts = self.groups.values().flat_map(|group| &group.alerts);
        alerts.filter(|(_, alert)| !alert.is_resolved()).map(|(id, _)| id.clone()).collect()
    }

    /// After a start: channels that are gone are forgotten, new ones are told what fires.
    pub fn adopt(&mut self, channels: &[impl Audience]) {
        for group in self.groups.values_mut() {
            group.told.retain(|name, _| channels.iter().any(|channel| channel.name() == name));
            group.changed |= channels.iter().any(|channel| !group.told.contains_key(channel.name()));
        }
    }

    /// When [`Dispatcher::flush`] has something to do.
    #[must_use]
    pub fn due_ms(&self, policy: &Policy) -> Option<UnixMs> {
        self.groups.values().map(|group| group.due_ms(policy)).min()
    }

    /// Makes the messages that are due.
    pub fn flush(&mut self, channels: &[impl Audience], policy: &Policy, now_ms: UnixMs) -> Vec<Notification> {
        let mut messages = Vec::new();
        let number = &mut self.next_number;
        self.groups.retain(|key, group| {
            group.not_in_the_future(now_ms);
            if group.due_ms(policy) > now_ms {
                return true;
            }
            if group.alerts.is_empty() {
                return false;
            }
            for channel in channels {
                if let Some((reason, mut alerts)) = group.tell(channel, policy, now_ms) {
                    *number += 1;
                    let truncated = alerts.len().saturating_sub(Notification::MAX_ALERTS) as u64;
                    alerts.truncate(Notification::MAX_ALERTS);
                    messages.push(Notification {
                        id: message_id(channel.name(), key, *number),
                        channel: channel.name().to_owned(),
                        reason,
                        group_key: key.clone(),
                        group_labels: group.labels.clone(),
                        alerts,
                        truncated,
                        created_at_ms: now_ms,
                    });
                }
            }
            group.alerts.retain(|_, alert| !alert.is_resolved());
            group.flushed_ms = Some(now_ms);
            group.changed = false;
            true
        });
        messages
    }
}

impl Group {
    fn due_ms(&self, policy: &Policy) -> UnixMs {
        match self.flushed_ms {
            None => self.created_ms + policy.wait_ms,
            // An empty group lives on for an interval, so that flapping does not start from `group_wait` each time.
            Some(at) if self.changed || self.alerts.is_empty() => at + policy.interval_ms,
            Some(at) => {
                let repeat = self.told.values().filter(|told| !told.firing.is_empty()).map(|told| told.at_ms + policy.repeat_ms).min();
                repeat.unwrap_or(i64::MAX).max(at + policy.interval_ms)
            }
        }
    }

    /// A clock that went back must not hold messages until it is there again.
    fn not_in_the_future(&mut self, now_ms: UnixMs) {
        self.created_ms = self.created_ms.min(now_ms);
        self.flushed_ms = self.flushed_ms.map(|at| at.min(now_ms));
        for told in self.told.values_mut() {
            told.at_ms = told.at_ms.min(now_ms);
        }
    }

    /// What one channel is told, and notes that.
    fn tell(&mut self, channel: &impl Audience, policy: &Policy, now_ms: UnixMs) -> Option<(Reason, Vec<Alert>)> {
        let told = self.told.entry(channel.name().to_owned()).or_default();
        let wanted = |alert: &Alert| channel.accepts(alert);
        let firing: BTreeMap<&String, &Alert> = self.alerts.iter().filter(|(_, alert)| !alert.is_resolved() && wanted(alert)).collect();
        let over: Vec<&Alert> =
            self.alerts.iter().filter(|(id, alert)| alert.is_resolved() && told.firing.contains(*id)).map(|(_, alert)| alert).collect();
        let reason = if firing.keys().any(|id| !told.firing.contains(*id)) {
            Reason::Firing
        } else if !over.is_empty() && channel.wants_resolved() {
            Reason::Resolved
        } else if !firing.is_empty() && now_ms - told.at_ms >= policy.repeat_ms {
            Reason::Repeat
        } else {
            told.firing = firing.into_keys().cloned().collect();
            return None;
        };
        let mut alerts: Vec<Alert> = firing.values().map(|alert| (*alert).clone()).collect();
        if channel.wants_resolved() {
            alerts.extend(over.into_iter().cloned());
        }
        *told = Told { at_ms: now_ms, firing: firing.into_keys().cloned().collect() };
        Some((reason, alerts))
    }
}

fn group_labels(alert: &Alert, group_by: &[String]) -> BTreeMap<String, String> {
    let all = group_by.iter().any(|name| name == "...");
    let wanted = |name: &str| all || group_by.iter().any(|by| by == name);
    alert.labels.iter().filter(|(name, _)| wanted(name)).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// As Alertmanager writes it: the route, then the group's labels.
fn key(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{}}:{{{}}}", pairs.join(", "))
}

fn message_id(channel: &str, key: &str, number: u64) -> String {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(format!("{channel}\0{key}\0{number}"));
    shipwatch_common::identity::hex(&hash[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipwatch_common::model::Labels;

    struct Everything {
        name: &'static str,
        resolved: bool,
        only: Option<&'static str>,
    }

    impl Audience for Everything {
        fn name(&self) -> &str {
            self.name
        }
        fn accepts(&self, alert: &Alert) -> bool {
            self.only.is_none_or(|env| alert.labels.get("env") == Some(env))
        }
        fn wants_resolved(&self) -> bool {
            self.resolved
        }
    }

    const ALL: Everything = Everything { name: "hook", resolved: true, only: None };
    const S: i64 = 1_000;

    fn policy() -> Policy {
        Policy { group_by: vec!["alertname".into()], wait_ms: 10 * S, interval_ms: 60 * S, repeat_ms: 300 * S }
    }

    fn alert(name: &str, env: &str, resolved: bool) -> Alert {
        Alert {
            labels: Labels::new([("alertname", name), ("env", env)]).unwrap(),
            annotations: BTreeMap::new(),
            value: "1".into(),
            starts_at_ms: 0,
            ends_at_ms: resolved.then_some(1),
            generator_url: String::new(),
            fingerprint: format!("{name}-{env}"),
        }
    }

    /// `events`: `(second, what)`; what is `+a` fires, `-a` is over (id = env), `!` the state is stored and read again. Gives
    /// what each channel is told, looked at every second: `second channel reason firing/resolved`.
    fn play(channels: &[Everything], until: i64, events: &[(i64, &str)]) -> Vec<String> {
        let mut dispatcher = Dispatcher::default();
        let (mut told, mut ids) = (Vec::new(), BTreeSet::new());
        for second in 0..=until {
            for (_, what) in events.iter().filter(|(at, _)| *at == second) {
                match what.split_at(1) {
                    ("!", _) => dispatcher = serde_json::from_str(&serde_json::to_string(&dispatcher).unwrap()).unwrap(),
                    (sign, env) => dispatcher.note(env, alert("A", env, sign == "-"), &policy(), second * S),
                }
            }
            for message in dispatcher.flush(channels, &policy(), second * S) {
                assert!(ids.insert(message.id.clone()), "an id came twice");
                let names = |resolved: bool| -> String {
                    let of = message.alerts.iter().filter(|alert| alert.is_resolved() == resolved);
                    of.map(|alert| alert.labels.get("env").unwrap()).collect::<Vec<_>>().join("")
                };
                told.push(format!("{second} {} {:?} {}/{}", message.channel, message.reason, names(false), names(true)));
            }
        }
        told
    }

    #[test]
    fn a_group_waits_gathers_and_tells_the_end() {
        assert_eq!(
            play(&[ALL], 200, &[(0, "+a"), (5, "+b"), (30, "-a"), (100, "-b")]),
            ["10 hook Firing ab/", "70 hook Resolved b/a", "130 hook Resolved /b",]
        );
    }

    #[test]
    fn what_was_over_before_anybody_was_told_is_not_told() {
        assert_eq!(play(&[ALL], 100, &[(0, "+a"), (5, "-a")]), Vec::<String>::new());
    }

    #[test]
    fn it_is_repeated_and_a_restart_changes_nothing() {
        let expected = ["10 hook Firing a/", "310 hook Repeat a/", "610 hook Repeat a/", "701 hook Resolved /a"];
        assert_eq!(play(&[ALL], 800, &[(0, "+a"), (701, "-a")]), expected);
        assert_eq!(play(&[ALL], 800, &[(0, "+a"), (5, "!x"), (200, "!x"), (305, "!x"), (701, "-a"), (701, "!x")]), expected);
    }

    #[test]
    fn flapping_is_told_once_an_interval() {
        let flaps: Vec<(i64, &str)> = (0..120).map(|second| (second, if second % 2 == 0 { "+a" } else { "-a" })).collect();
        assert_eq!(play(&[ALL], 120, &flaps), ["10 hook Firing a/"]);
    }

    #[test]
    fn channels_hear_what_they_asked_for() {
        let prod = Everything { name: "prod", resolved: false, only: Some("p") };
        assert_eq!(
            play(&[ALL, prod], 100, &[(0, "+p"), (0, "+t"), (20, "-p"), (20, "-t")]),
            ["10 hook Firing pt/", "10 prod Firing p/", "70 hook Resolved /pt",]
        );
    }

    #[test]
    fn a_storm_is_one_message_of_bounded_size() {
        let mut dispatcher = Dispatcher::default();
        for number in 0..2_000 {
            dispatcher.note(&number.to_string(), alert("A", &number.to_string(), false), &policy(), 0);
        }
        let told = dispatcher.flush(&[ALL], &policy(), 10 * S);
        assert_eq!((told.len(), told[0].alerts.len(), told[0].truncated), (1, 500, 1_500));
        assert!(dispatcher.flush(&[ALL], &policy(), 70 * S).is_empty());
    }

    #[test]
    fn a_new_channel_is_told_what_fires_and_a_clock_that_jumps_back_holds_nothing() {
        let mut dispatcher = Dispatcher::default();
        let now = 10_000 * S;
        dispatcher.note("a", alert("A", "a", false), &policy(), now);
        assert_eq!(dispatcher.flush(&[ALL], &policy(), now + 10 * S).len(), 1);
        let two = [ALL, Everything { name: "new", ..ALL }];
        dispatcher.adopt(&two);
        let told = dispatcher.flush(&two, &policy(), now + 70 * S);
        assert_eq!(told.iter().map(|message| message.channel.as_str()).collect::<Vec<_>>(), ["new"]);
        dispatcher.note("a", alert("A", "a", true), &policy(), now);
        let past = now - 5_000 * S;
        assert!(dispatcher.flush(&two, &policy(), past).is_empty());
        assert_eq!(dispatcher.flush(&two, &policy(), past + 60 * S).len(), 2);
        assert_eq!(key(&group_labels(&alert("A", "x", false), &["alertname".into()])), r#"{}:{alertname="A"}"#);
        assert_eq!(key(&group_labels(&alert("A", "x", false), &["...".into()])), r#"{}:{alertname="A", env="x"}"#);
    }
}
