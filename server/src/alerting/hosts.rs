//! `HostDown`: which hosts are silent, from what the gateway knows of connections. Pure.
//!
//! A host is silent if its connection is gone and the agent did not say goodbye. Hosts that stopped on purpose, were revoked
//! or never connected are not.

use crate::{
    rules::{
        self,
        evaluate::Candidate,
        file::{AlertRule, Group, Kind, Rule},
        template::Template,
    },
    store::hosts::Host,
};
use shipwatch_common::{
    model::{AgentId, Labels},
    time::UnixMs,
};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

/// Name of the alert.
pub(super) const NAME: &str = "HostDown";
/// How often hosts are looked at.
pub(super) const EVERY: Duration = Duration::from_secs(2);

/// The built-in group, shown beside those of the files.
pub(super) fn group(config: &rules::Config) -> Option<Group> {
    let alert = AlertRule { name: NAME.to_owned(), hold: config.host_down_for, keep_firing: Duration::ZERO, annotations: Vec::new() };
    let labels = vec![("severity".to_owned(), Template::parse("critical").ok()?)];
    let rule = Rule { kind: Kind::Alert(alert), expr: "shipwatch_host_silent_seconds > 0".to_owned(), query: None, labels };
    Some(Group {
        name: "shipwatch".to_owned(),
        file: "built-in".to_owned(),
        interval: EVERY,
        limit: 0,
        query_offset: Duration::ZERO,
        rules: vec![rule],
    })
}

/// The silent ones. `time` writes a time for people.
pub(super) fn silent(hosts: &[Host], connected: &HashSet<AgentId>, time: impl Fn(UnixMs) -> String, now_ms: UnixMs) -> Vec<Candidate> {
    let is_silent = |host: &&Host| host.revoked_at_ms.is_none() && !host.said_goodbye && !connected.contains(&host.id);
    let candidate = |host: &Host| {
        let seen_ms = host.last_seen_ms?;
        let own = host.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let fixed = [
            ("alertname", NAME),
            ("instance", host.name.as_str()),
            ("env", host.env.as_str()),
            ("region", host.region.as_str()),
            ("severity", "critical"),
        ];
        // Over the host's own labels; what is too much for a label set is left out rather than the alert.
        let labels = Labels::default().with(own.chain(fixed)).or_else(|_| Labels::default().with(fixed)).ok()?;
        #[expect(clippy::cast_precision_loss, reason = "seconds stay far below 2^53")]
        let value = (now_ms - seen_ms).max(0) as f64 / 1_000.0;
        let at = time(seen_ms);
        let annotations = BTreeMap::from([
            ("summary".to_owned(), format!("主机 {name} 失联。Host {name} is silent.", name = host.name)),
            (
                "description".to_owned(),
                format!(
                    "最后一次收到消息：{at}。主机停机、网络中断或 agent 退出都会如此。Last heard of at {at}: the host is down, its network is cut, or its agent died."
                ),
            ),
        ]);
        Some(Candidate { labels, annotations, value })
    };
    hosts.iter().filter(is_silent).filter_map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipwatch_common::model::HostFacts;

    fn host(number: u8, name: &str) -> Host {
        Host {
            id: AgentId([number; 16]),
            name: name.into(),
            env: "prod".into(),
            region: "eu".into(),
            labels: BTreeMap::from([("role".to_owned(), "web".to_owned()), ("severity".to_owned(), "none".to_owned())]),
            facts: HostFacts::default(),
            address: String::new(),
            deploys_allowed: false,
            enrolled_at_ms: 0,
            certificate_expires_ms: 0,
            last_seen_ms: Some(1_000),
            said_goodbye: false,
            revoked_at_ms: None,
        }
    }

    #[test]
    fn only_silence_counts() {
        let hosts = [
            host(1, "up"),
            host(2, "silent"),
            Host { said_goodbye: true, ..host(3, "stopped") },
            Host { revoked_at_ms: Some(1), ..host(4, "revoked") },
            Host { last_seen_ms: None, ..host(5, "enrolled") },
        ];
        let found = silent(&hosts, &HashSet::from([AgentId([1; 16])]), |at| at.to_string(), 6_000);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].labels.to_string(),
            r#"{alertname="HostDown",env="prod",instance="silent",region="eu",role="web",severity="critical"}"#
        );
        assert_eq!(found[0].value, 5.0);
        assert!(found[0].annotations["summary"].contains("silent"));
    }
}
