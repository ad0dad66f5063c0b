//! The whole of alerting over real stores, with time that the test sets.

use super::*;
use crate::{
    api::alerts::Alerting as _,
    notify::{
        config::{self, Channel as ChannelConfig},
        outbox::{Delivery, DeliveryState},
    },
    store::hosts::EnrolmentGrant,
};
use serde_json::Value;
use shipwatch_common::model::{AgentId, HostFacts, Sample};
use shipwatch_series::{Append, Engine};
use std::{
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

const NOW: UnixMs = 1_795_501_800_000;
const S: i64 = 1_000;

struct World {
    dir: tempfile::TempDir,
    rules: rules::Config,
    notify: crate::notify::Config,
    now: Arc<AtomicI64>,
    alerts: Option<Alerts>,
}

fn webhook(name: &str) -> ChannelConfig {
    let text = format!("name = \"{name}\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:1/x\"\n");
    toml::from_str(&text).unwrap()
}

impl World {
    async fn new(rule_file: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("rules")).unwrap();
        let rules = rules::Config {
            files: vec![dir.path().join("rules").display().to_string()],
            startup_grace: Duration::ZERO,
            ..rules::Config::default()
        };
        let notify = crate::notify::Config { channels: vec![webhook("hook")], time_zone: "UTC".into(), ..config::Config::default() };
        let mut world = Self { dir, rules, notify, now: Arc::new(AtomicI64::new(NOW)), alerts: None };
        world.write(rule_file);
        world.start().await.unwrap();
        world
    }

    fn write(&self, rule_file: &str) {
        std::fs::write(self.dir.path().join("rules/r.yml"), rule_file).unwrap();
    }

    /// A start of the server, also after a crash: everything in memory is gone.
    async fn start(&mut self) -> Result<(), String> {
        drop(self.alerts.take());
        let (engine, _) = Engine::open(self.dir.path().join("series"), shipwatch_series::Config::default()).unwrap();
        let parts = Parts {
            store: Arc::new(Store::open(self.dir.path()).unwrap()),
            series: Arc::new(engine),
            registry: Arc::default(),
            changes: Changes::default(),
            forward: Arc::default(),
            clock: Clock::Manual(Arc::clone(&self.now)),
        };
        self.alerts = Some(Alerts::with(&self.rules, &self.notify, "http://sw.example.com", parts).await?);
        Ok(())
    }

    fn alerts(&self) -> &Alerts {
        self.alerts.as_ref().unwrap()
    }

    fn at(&self, ms: UnixMs) {
        self.now.store(ms, Ordering::SeqCst);
    }

    fn sample(&self, name: &str, ms: UnixMs, value: f64) {
        let labels = Arc::new(Labels::new([(Labels::NAME, name), ("instance", "web-1")]).unwrap());
        let samples = vec![Sample { labels, ts_ms: ms, value }];
        self.alerts().parts.series.append_at(ms, vec![Append { samples: samples.into(), ..Append::default() }]).unwrap();
    }

    /// One evaluation of every group of the files, then the messages that are due.
    async fn turn(&self, ms: UnixMs) {
        self.at(ms);
        let groups: Vec<_> = self.alerts().book().groups.iter().map(|group| Arc::clone(&group.spec)).collect();
        for group in groups.iter().filter(|group| group.file != "built-in") {
            self.alerts().evaluate_group(group, ms).await;
        }
        self.alerts().flush(false).await.unwrap();
    }

    async fn deliveries(&self) -> Vec<Value> {
        let mut all = self.alerts().parts.store.recent_deliveries(100).await.unwrap();
        all.reverse();
        all
    }

    /// `reason title` of every message so far.
    async fn told(&self) -> Vec<String> {
        self.deliveries()
            .await
            .iter()
            .map(|one| format!("{} {}", one["reason"].as_str().unwrap(), one["title"].as_str().unwrap()))
            .collect()
    }

    fn states(&self) -> Vec<String> {
        let all = self.alerts().alerts(&["firing", "pending", "resolved"]);
        all.iter().map(|one| format!("{} {}", one["name"].as_str().unwrap(), one["state"].as_str().unwrap())).collect()
    }

    fn query(&self, text: &str, ms: UnixMs) -> Vec<(String, f64)> {
        let options = shipwatch_series::promql::EvalOptions::default();
        let output = shipwatch_series::promql::eval_instant(&*self.alerts().parts.series, text, ms, &options).unwrap();
        match output.value {
            shipwatch_series::promql::Value::Vector(all) => all.into_iter().map(|one| (one.labels.to_string(), one.value)).collect(),
            other => panic!("{other:?}"),
        }
    }
}

const BUSY: &str = "groups:
- name: host
  interval: 10s
  rules:
  - alert: Busy
    expr: busy > 80
    for: 20s
    labels: {severity: critical}
    annotations: {summary: '{{ $labels.instance }} {{ $value }}'}
";

#[tokio::test]
async fn a_breach_becomes_a_message_and_its_end_another() {
    let world = World::new(BUSY).await;
    for at in 0..=9 {
        world.sample("busy", NOW + at * 10 * S, if at < 5 { 95.0 } else { 10.0 });
    }
    world.turn(NOW).await;
    assert_eq!(world.states(), ["Busy pending"]);
    world.turn(NOW + 10 * S).await;
    world.turn(NOW + 20 * S).await;
    assert_eq!(world.states(), ["Busy firing"]);
    assert_eq!(world.told().await, Vec::<String>::new(), "the group gathers for 5 s");
    world.at(NOW + 25 * S);
    world.alerts().flush(false).await.unwrap();
    assert_eq!(world.told().await, ["firing 【严重 critical】Busy web-1"]);
    let rules = world.alerts().prometheus_rules();
    let rule = &rules["groups"][0]["rules"][0];
    assert_eq!(
        (rule["state"].as_str(), rule["health"].as_str(), rule["alerts"][0]["value"].as_str()),
        (Some("firing"), Some("ok"), Some("9.5e+01"))
    );
    assert_eq!(rule["alerts"][0]["annotations"]["summary"], "web-1 95");
    assert_eq!(rule["lastEvaluation"], "2026-11-24T06:30:20Z");
    let firing = r#"ALERTS{alertname="Busy",alertstate="firing",instance="web-1",severity="critical"}"#;
    assert_eq!(world.query("ALERTS", NOW + 20 * S), [(firing.to_owned(), 1.0)]);
    assert_eq!(world.query("ALERTS_FOR_STATE", NOW + 20 * S)[0].1, (NOW / S) as f64);
    world.turn(NOW + 50 * S).await;
    assert_eq!(world.states(), ["Busy resolved"]);
    assert!(world.query("ALERTS", NOW + 50 * S).is_empty(), "marked as ended");
    world.at(NOW + 85 * S);
    world.alerts().flush(false).await.unwrap();
    assert_eq!(world.told().await[1..], ["resolved 【已恢复 resolved】Busy web-1"]);
    let fingerprint = world.alerts().alerts(&["resolved"])[0]["fingerprint"].as_str().unwrap().to_owned();
    let history = world.alerts().parts.store.alert_history(&fingerprint, 10).await.unwrap();
    let history: Vec<(i64, &str)> = history.iter().map(|(at, state, _)| ((at - NOW) / S, state.as_str())).collect();
    assert_eq!(history, [(50, "resolved"), (20, "firing"), (0, "pending")]);
    // A day later it is forgotten.
    world.turn(NOW + 86_500 * S).await;
    assert!(world.states().is_empty());
    assert!(world.alerts().parts.store.alert_bodies().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_crash_at_any_point_changes_nothing() {
    // Crashes after the turn of every second in turn; what is told is always the same.
    let expected = ["firing 【严重 critical】Busy web-1", "resolved 【已恢复 resolved】Busy web-1"];
    for crash_at in (0..100).step_by(5) {
        let mut world = World::new(BUSY).await;
        for at in (0..=100).step_by(5) {
            world.sample("busy", NOW + at * S, if at < 50 { 95.0 } else { 10.0 });
            if at % 10 == 0 {
                world.turn(NOW + at * S).await;
            } else {
                world.at(NOW + at * S);
                world.alerts().flush(false).await.unwrap();
            }
            if at == crash_at {
                world.start().await.unwrap();
            }
        }
        assert_eq!(world.told().await, expected, "crash at {crash_at}");
        let ids: std::collections::BTreeSet<String> = world.deliveries().await.iter().map(|one| one["id"].to_string()).collect();
        assert_eq!(ids.len(), 2);
    }
}

#[tokio::test]
async fn time_without_a_server_does_not_count_for_the_hold() {
    let mut world = World::new(BUSY).await;
    world.sample("busy", NOW, 95.0);
    world.turn(NOW).await;
    assert_eq!(world.states(), ["Busy pending"]);
    let back = NOW + 3_600 * S;
    world.at(back);
    world.alerts().flush(false).await.unwrap();
    // The heartbeat is an hour old when it starts.
    world.at(NOW);
    world.alerts().flush(true).await.unwrap();
    world.at(back);
    world.start().await.unwrap();
    for at in 0..4 {
        world.sample("busy", back + at * 10 * S, 95.0);
    }
    world.turn(back).await;
    world.turn(back + 10 * S).await;
    assert_eq!(world.states(), ["Busy pending"]);
    world.turn(back + 20 * S).await;
    assert_eq!(world.states(), ["Busy firing"]);
}

#[tokio::test]
async fn a_failing_evaluation_resolves_nothing_and_says_why() {
    let world = World::new("groups:\n- name: g\n  rules:\n  - {alert: A, expr: busy > 80 or on(nothing) (a * on(i) b)}\n").await;
    world.sample("busy", NOW, 95.0);
    world.turn(NOW).await;
    assert_eq!(world.states(), ["A firing"]);
    // Now the expression cannot be computed: many-to-many.
    for (name, extra) in [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")] {
        let labels = Arc::new(Labels::new([(Labels::NAME, name), ("x", extra)]).unwrap());
        let samples = vec![Sample { labels, ts_ms: NOW + 10 * S, value: 1.0 }];
        world.alerts().parts.series.append_at(NOW + 10 * S, vec![Append { samples: samples.into(), ..Append::default() }]).unwrap();
    }
    world.turn(NOW + 10 * S).await;
    assert_eq!(world.states(), ["A firing"]);
    let rules = world.alerts().prometheus_rules();
    let rule = &rules["groups"][0]["rules"][0];
    assert_eq!((rule["health"].as_str(), rule["state"].as_str()), (Some("err"), Some("firing")));
    assert!(!rule["lastError"].as_str().unwrap().is_empty());
    assert!(world.alerts().own_metrics().contains("shipwatch_rule_evaluation_failures_total 1\n"));
}

#[tokio::test]
async fn recorded_series_are_there_for_the_next_rule_and_survive() {
    let mut world =
        World::new("groups:\n- name: g\n  rules:\n  - {record: double, expr: busy * 2}\n  - {alert: Twice, expr: double > 100}\n").await;
    world.sample("busy", NOW, 95.0);
    world.turn(NOW).await;
    assert_eq!(world.states(), ["Twice firing"], "in the same evaluation");
    world.start().await.unwrap();
    assert_eq!(world.query("double", NOW), [(r#"double{instance="web-1"}"#.to_owned(), 190.0)]);
}

#[tokio::test]
async fn reload_keeps_alerts_ends_those_of_removed_rules_and_refuses_mistakes() {
    let world = World::new(BUSY).await;
    world.sample("busy", NOW, 95.0);
    world.turn(NOW).await;
    world.sample("busy", NOW + 20 * S, 95.0);
    world.turn(NOW + 20 * S).await;
    world.at(NOW + 25 * S);
    world.alerts().flush(false).await.unwrap();
    world.write("groups: [{name: host, rules: [{alert: Busy, expr: 'busy >', for: x}]}]");
    let told = world.alerts().reload().unwrap_err();
    assert!(told.starts_with("2 mistakes in rule files:") && told.contains("r.yml:1"), "{told}");
    assert_eq!(world.states(), ["Busy firing"]);
    // Another threshold, a rule before it: the same alert goes on.
    world.write(&BUSY.replace("busy > 80", "busy > 70").replace("  rules:\n", "  rules:\n  - {record: x, expr: 1}\n"));
    world.alerts().reload().unwrap();
    world.sample("busy", NOW + 30 * S, 75.0);
    world.turn(NOW + 30 * S).await;
    assert_eq!(world.states(), ["Busy firing"]);
    world.write("groups: []");
    world.alerts().reload().unwrap();
    world.at(NOW + 90 * S);
    world.alerts().settle_gone().await.unwrap();
    world.alerts().flush(false).await.unwrap();
    assert_eq!(world.states(), ["Busy resolved"]);
    assert_eq!(world.told().await.len(), 2);
    assert!(world.told().await[1].starts_with("resolved"));
}

#[tokio::test]
async fn a_server_that_starts_without_a_rule_ends_its_alerts() {
    let mut world = World::new(&BUSY.replace("for: 20s", "for: 0s")).await;
    world.sample("busy", NOW, 95.0);
    world.turn(NOW).await;
    world.at(NOW + 5 * S);
    world.alerts().flush(false).await.unwrap();
    world.write("");
    world.start().await.unwrap();
    world.at(NOW + 70 * S);
    world.alerts().settle_gone().await.unwrap();
    assert_eq!(world.told().await.len(), 2);
    assert_eq!(world.states(), ["Busy resolved"]);
}

async fn enrol(world: &World, number: u8, name: &str) {
    let store = &world.alerts().parts.store;
    let labels = BTreeMap::from([("role".to_owned(), "web".to_owned())]);
    let hash = [number; 32];
    let grant = EnrolmentGrant { id: name.into(), env: "prod".into(), region: "eu".into(), labels, uses_left: 1, expires_at_ms: i64::MAX };
    store.add_enrolment_token(grant, hash, "test", NOW).await.unwrap();
    let id = AgentId([number; 16]);
    store.enrol(hash, id, name, HostFacts::default(), i64::MAX, NOW).await.unwrap();
    store.host_connected(id, HostFacts::default(), "127.0.0.1:1".into(), false, NOW).await.unwrap();
}

#[tokio::test]
async fn a_silent_host_is_an_alert_after_its_hold_but_not_while_the_server_has_just_started() {
    let mut world = World::new("").await;
    for (number, name) in [(1, "web-1"), (2, "web-2"), (3, "web-3")] {
        enrol(&world, number, name).await;
    }
    world.alerts().parts.store.host_said_goodbye(AgentId([2; 16]), NOW).await.unwrap();
    world.alerts().parts.store.revoke_host("web-3", "test", NOW).await.unwrap();
    world.rules.startup_grace = Duration::from_secs(30);
    world.rules.host_down_for = Duration::from_secs(5);
    world.start().await.unwrap();
    let key = world.alerts().host_rule().unwrap();
    let look = async |world: &World, second: i64| {
        world.at(NOW + second * S);
        world.alerts().look_at_hosts(&key).await;
        world.states()
    };
    assert!(look(&world, 10).await.is_empty(), "agents may be on their way back");
    assert_eq!(look(&world, 30).await, ["HostDown pending"]);
    assert_eq!(look(&world, 35).await, ["HostDown firing"]);
    let alert = &world.alerts().alerts(&["firing"])[0];
    let expected = serde_json::json!({"alertname": "HostDown", "env": "prod", "instance": "web-1", "region": "eu", "role": "web", "severity": "critical"});
    assert_eq!(alert["labels"], expected);
    assert_eq!(world.query("ALERTS{alertstate=\"firing\"}", NOW + 35 * S).len(), 1);
    look(&world, 37).await;
    assert_eq!(world.query("count_over_time(ALERTS{alertstate=\"firing\"}[1m])", NOW + 37 * S)[0].1, 1.0, "once an interval");
    // A restart neither resolves nor repeats it.
    world.start().await.unwrap();
    assert_eq!(look(&world, 37).await, ["HostDown firing"]);
    world.at(NOW + 41 * S);
    world.alerts().flush(false).await.unwrap();
    assert_eq!(world.told().await, ["firing 【严重 critical】HostDown web-1"]);
    // It says goodbye: it is no alert any more.
    world.alerts().parts.store.host_said_goodbye(AgentId([1; 16]), NOW).await.unwrap();
    assert_eq!(look(&world, 43).await, ["HostDown resolved"]);
    assert!(world.query("ALERTS", NOW + 43 * S).is_empty());
}

#[tokio::test]
async fn alerts_are_held_while_agents_come_back() {
    let mut world = World::new(&BUSY.replace("for: 20s", "for: 0s")).await;
    world.sample("busy", NOW, 95.0);
    world.turn(NOW).await;
    world.rules.startup_grace = Duration::from_secs(30);
    // Down for ten minutes: the last sample is too old for the expression.
    let back = NOW + 600 * S;
    world.at(back);
    world.start().await.unwrap();
    world.turn(back + 10 * S).await;
    assert_eq!(world.states(), ["Busy firing"]);
    world.sample("busy", back + 20 * S, 96.0);
    world.turn(back + 20 * S).await;
    world.turn(back + 40 * S).await;
    assert_eq!(world.states(), ["Busy firing"]);
    assert!(world.told().await.iter().all(|one| one.starts_with("firing")));
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_published() {
    let world = World::new(&BUSY.replace("for: 20s", "for: 0s")).await;
    world.sample("busy", NOW, 95.0);
    // Another program holds the database for longer than the store waits.
    let path: &Path = &world.dir.path().join("control.db");
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    world.turn_without_messages(NOW).await;
    assert!(world.states().is_empty());
    assert_eq!(world.alerts().prometheus_rules()["groups"][0]["rules"][0]["health"], "err");
    other.execute_batch("COMMIT").unwrap();
    world.turn(NOW + S).await;
    assert_eq!(world.states(), ["Busy firing"]);
}

impl World {
    async fn turn_without_messages(&self, ms: UnixMs) {
        self.at(ms);
        let group = Arc::clone(&self.alerts().book().groups[0].spec);
        self.alerts().evaluate_group(&group, ms).await;
    }
}

#[tokio::test]
async fn mistakes_in_rules_and_channels_stop_the_start() {
    let mut world = World::new("").await;
    world.write("groups: [{name: g, rules: [{alert: A}]}]");
    assert!(world.start().await.unwrap_err().contains("`expr` is missing"));
    world.write("");
    world.notify.channels[0].url_file = "/nowhere/url".into();
    let told = world.start().await.unwrap_err();
    assert!(told.contains("notify channel hook: /nowhere/url"), "{told}");
}

#[tokio::test]
async fn channels_are_shown_and_tested_without_secrets() {
    let mut world = World::new("").await;
    assert_eq!(world.alerts().channels_json(), serde_json::json!([{"name": "hook", "kind": "webhook", "target": "http://127.0.0.1:1/…"}]));
    assert!(world.alerts().test_channel("nope").await.is_none());
    assert!(world.alerts().test_channel("hook").await.unwrap().is_err());
    // A channel that is taken out of the configuration leaves nothing that waits for ever.
    let notification = Notification { channel: "hook".into(), ..world.alerts().test_message("hook") };
    let row = Delivery::new(notification, "webhook", "t".into()).row().unwrap();
    let changes = crate::store::alerts::AlertChanges { deliveries: vec![row], ..Default::default() };
    world.alerts().parts.store.save_alerts(changes).await.unwrap();
    world.notify.channels.clear();
    world.start().await.unwrap();
    let all = world.deliveries().await;
    assert_eq!((all[0]["state"].as_str(), all[0]["last_error"].as_str()), (Some("dead"), Some("the channel is not configured any more")));
    let body: Delivery = serde_json::from_value({
        let mut one = all[0].clone();
        one["notification"] = serde_json::to_value(world.alerts().test_message("hook")).unwrap();
        one
    })
    .unwrap();
    assert_eq!(body.state, DeliveryState::Dead);
}

impl Alerts {
    fn channels_json(&self) -> Value {
        Value::Array(api::alerts::Alerting::channels(self))
    }
}
