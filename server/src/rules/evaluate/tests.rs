use super::*;
use crate::rules::file::{Defaults, parse};
use shipwatch_common::model::metric::is_stale_marker;
use shipwatch_series::{
    MemSource,
    promql::{EvalOptions, Value},
};
use std::time::Duration;

const MINUTE: i64 = 60_000;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::new(pairs.iter().copied()).unwrap()
}

fn group(text: &str) -> Group {
    let defaults = Defaults { interval: Duration::from_secs(60), query_offset: Duration::ZERO };
    let text = format!("groups:\n- name: g\n  rules:\n{text}");
    parse("t.yml", &text, defaults).unwrap().remove(0)
}

/// Rules over series that are given as values per minute (`_` is missing), evaluated every minute: what each evaluation
/// reports and the samples it writes.
struct World {
    source: MemSource,
    active: ActiveSet,
    previous: BTreeSet<Arc<Labels>>,
}

impl World {
    fn new(series: &[(&[(&str, &str)], &str)]) -> Self {
        let mut source = MemSource::new();
        for (labels_of, values) in series {
            let labels = Arc::new(labels(labels_of));
            for (at, value) in values.split(' ').enumerate() {
                let value = match value {
                    "_" => continue,
                    "stale" => f64::from_bits(STALE_NAN_BITS),
                    value => value.parse().unwrap(),
                };
                source.push(Sample { labels: Arc::clone(&labels), ts_ms: at as i64 * MINUTE, value });
            }
        }
        Self { source, active: ActiveSet::new(), previous: BTreeSet::new() }
    }

    fn ask(&self, group: &Group, at_ms: i64) -> Result<Found, String> {
        let query = |query: &Query, at_ms| match query.instant(&self.source, at_ms, &EvalOptions::default()) {
            Ok(output) => match output.value {
                Value::Vector(elements) => Ok(elements.into_iter().map(|one| (one.labels, one.value)).collect()),
                Value::Scalar(value) => Ok(vec![(Arc::new(Labels::default()), value)]),
                _ => Err("no vector".to_owned()),
            },
            Err(error) => Err(error.to_string()),
        };
        ask(group, &group.rules[0], at_ms, &Outside { query: &query, external_url: "http://x" })
    }

    /// One evaluation: `name:value@labels` of what was written, changes before it.
    fn turn(&mut self, group: &Group, minute: i64) -> Result<String, String> {
        let at = minute * MINUTE;
        let (series, changes) = match (self.ask(group, at)?, &group.rules[0].kind) {
            (Found::Series(series), _) => (series, Vec::new()),
            (Found::Alerts(found), Kind::Alert(alert)) => {
                let holds = Holds { hold_ms: duration_ms(alert.hold), keep_firing_ms: duration_ms(alert.keep_firing) };
                let stepped = step(&self.active, found, holds, group.limit, 15 * MINUTE, at)?;
                self.active = stepped.active;
                (alert_series(&self.active), stepped.changes)
            }
            _ => unreachable!(),
        };
        let (samples, now) = samples(series, &self.previous, query_time(group, at));
        self.previous = now;
        let mut told: Vec<String> = changes.iter().map(|(_, transition)| format!("{transition:?}")).collect();
        told.extend(samples.iter().map(|sample| {
            let value = if is_stale_marker(sample.value) { "stale".to_owned() } else { sample.value.to_string() };
            format!("{}={value}@{}", sample.labels, sample.ts_ms / 1_000)
        }));
        Ok(told.join(" "))
    }
}

#[test]
fn an_alert_goes_through_its_states_and_leaves_series_as_prometheus_does() {
    let group = group("  - {alert: Down, expr: up == 0, for: 1m, labels: {severity: critical}}\n");
    let mut world = World::new(&[(&[("__name__", "up"), ("job", "n")], "1 0 0 0 1")]);
    let mut turn = |minute| world.turn(&group, minute).unwrap();
    let (pending, firing) = (
        r#"ALERTS{alertname="Down",alertstate="pending",job="n",severity="critical"}"#,
        r#"ALERTS{alertname="Down",alertstate="firing",job="n",severity="critical"}"#,
    );
    let since = r#"ALERTS_FOR_STATE{alertname="Down",job="n",severity="critical"}"#;
    assert_eq!(turn(0), "");
    assert_eq!(turn(1), format!("Started {pending}=1@60 {since}=60@60"));
    assert_eq!(turn(2), format!("Fired {firing}=1@120 {since}=60@120 {pending}=stale@120"));
    assert_eq!(turn(3), format!("{firing}=1@180 {since}=60@180"));
    assert_eq!(turn(4), format!("Resolved {firing}=stale@240 {since}=stale@240"));
    assert_eq!(turn(5), "");
    let (id, alert) = world.active.iter().next().unwrap();
    assert_eq!(alert.state, State::Resolved { since_ms: MINUTE, fired_ms: 2 * MINUTE, resolved_ms: 4 * MINUTE });
    assert_eq!(*id, fingerprint(&alert.labels));
    // It is shown for a time, then forgotten.
    let holds = Holds { hold_ms: 0, keep_firing_ms: 0 };
    let later = step(&world.active, vec![], holds, 0, 15 * MINUTE, 20 * MINUTE).unwrap();
    assert!(later.active.is_empty() && later.forgotten == [*id] && later.changes.is_empty());
}

#[test]
fn templates_see_the_value_and_the_labels_of_the_series() {
    let group = group(
        "  - alert: Load\n    expr: load > 1\n    labels: {severity: '{{ if gt $value 4.0 }}critical{{ else }}warning{{ end }}'}\n    annotations: {summary: '{{ $labels.instance }} {{ $value }}'}\n",
    );
    let world = World::new(&[(&[("__name__", "load"), ("instance", "a")], "5"), (&[("__name__", "load"), ("instance", "b")], "2")]);
    let Found::Alerts(found) = world.ask(&group, 0).unwrap() else { panic!() };
    let shown: Vec<(&str, &str, &str)> = found
        .iter()
        .map(|one| (one.labels.get("severity").unwrap(), one.labels.get("alertname").unwrap(), one.annotations["summary"].as_str()))
        .collect();
    assert_eq!(shown, [("critical", "Load", "a 5"), ("warning", "Load", "b 2")]);
    assert!(found.iter().all(|one| one.labels.get("__name__").is_none()));
}

#[test]
fn recording_rules_write_their_series_and_mark_the_end_of_those_that_vanish() {
    let group = group("  - {record: job:up, expr: sum by (job) (up), labels: {tier: gold}}\n");
    let mut world = World::new(&[
        (&[("__name__", "up"), ("job", "a"), ("i", "1")], "1 1 1"),
        (&[("__name__", "up"), ("job", "a"), ("i", "2")], "1 1 1"),
        (&[("__name__", "up"), ("job", "b")], "1 stale _"),
    ]);
    let mut turn = |minute| world.turn(&group, minute).unwrap();
    assert_eq!(turn(0), r#"job:up{job="a",tier="gold"}=2@0 job:up{job="b",tier="gold"}=1@0"#);
    assert_eq!(turn(1), r#"job:up{job="a",tier="gold"}=2@60 job:up{job="b",tier="gold"}=stale@60"#);
    assert_eq!(turn(2), r#"job:up{job="a",tier="gold"}=2@120"#);
}

#[test]
fn a_number_is_a_series_without_labels_and_an_offset_moves_the_time() {
    let mut group = group("  - {record: one, expr: 1}\n");
    group.query_offset = Duration::from_secs(30);
    assert_eq!(World::new(&[]).turn(&group, 1).unwrap(), "one=1@30");
}

#[test]
fn label_sets_that_become_equal_and_limits_are_errors_that_change_nothing() {
    let two: &[(&[(&str, &str)], &str)] = &[(&[("__name__", "a"), ("i", "1")], "1 1"), (&[("__name__", "a"), ("i", "2")], "1 1")];
    let same = group("  - {alert: A, expr: a > 0, labels: {i: same}}\n");
    assert!(World::new(two).turn(&same, 0).unwrap_err().contains("same labelset after applying alert labels"));
    let same = group("  - {record: b, expr: a, labels: {i: same}}\n");
    assert!(World::new(two).turn(&same, 0).unwrap_err().contains("same labelset after applying rule labels"));
    let mut limited = group("  - {alert: A, expr: a > 0}\n");
    let mut world = World::new(two);
    world.turn(&limited, 0).unwrap();
    let before = world.active.clone();
    limited.limit = 1;
    assert_eq!(world.turn(&limited, 1).unwrap_err(), "exceeded limit of 1 with 2 alerts");
    assert_eq!(world.active, before);
}

#[test]
fn the_fingerprint_is_alertmanagers() {
    assert_eq!(format!("{:016x}", fingerprint(&labels(&[("foo", "bar")]))), "3fff2c2d7595e046");
}

#[test]
fn numbers_without_digits_survive_storage() {
    let state = State::Pending { since_ms: 1 };
    for value in [1.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        let alert = Active { labels: Labels::default(), annotations: BTreeMap::new(), value, state };
        let back: Active = serde_json::from_str(&serde_json::to_string(&alert).unwrap()).unwrap();
        assert!(back.value == value || (back.value.is_nan() && value.is_nan()));
    }
}

/// A host on which everything that the starter rules look at is wrong, minute by minute over two hours.
fn sick_host() -> MemSource {
    let mut source = MemSource::new();
    let mut put = |name: &str, more: &[(&str, &str)], value: &dyn Fn(f64) -> f64| {
        let own = [(Labels::NAME, name), ("instance", "web-1"), ("env", "prod"), ("region", "eu"), ("job", "node")];
        let labels = Arc::new(Labels::new(own.into_iter().chain(more.iter().copied())).unwrap());
        for minute in 0..=120 {
            let value = value(f64::from(minute));
            source.push(Sample { labels: Arc::clone(&labels), ts_ms: i64::from(minute) * MINUTE, value });
        }
    };
    for cpu in ["0", "1"] {
        put("node_cpu_seconds_total", &[("cpu", cpu), ("mode", "idle")], &|minute| minute * 6.0);
        put("node_cpu_seconds_total", &[("cpu", cpu), ("mode", "user")], &|minute| minute * 54.0);
    }
    put("node_load5", &[], &|_| 9.0);
    put("node_memory_MemAvailable_bytes", &[], &|_| 2e7);
    put("node_memory_MemTotal_bytes", &[], &|_| 1e9);
    put("node_vmstat_oom_kill", &[], &|minute| minute);
    let disk: &[(&str, &str)] = &[("device", "/dev/sda1"), ("fstype", "ext4"), ("mountpoint", "/")];
    put("node_filesystem_avail_bytes", disk, &|minute| 2.6e9 - minute * 2e7);
    put("node_filesystem_size_bytes", disk, &|_| 1e11);
    put("node_filesystem_files", disk, &|_| 1e6);
    put("node_filesystem_files_free", disk, &|_| 1e4);
    put("node_filesystem_readonly", disk, &|_| 0.0);
    let broken: &[(&str, &str)] = &[("device", "/dev/sdb1"), ("fstype", "xfs"), ("mountpoint", "/")];
    put("node_filesystem_readonly", broken, &|_| 1.0);
    for name in ["cpu_waiting", "memory_stalled", "io_stalled"] {
        put(&format!("node_pressure_{name}_seconds_total"), &[], &|minute| minute * 50.0);
    }
    put("shipwatch_unit_start_time_seconds", &[("name", "nginx.service")], &|minute| (minute / 4.0).floor() * 240.0);
    put("shipwatch_unit_start_time_seconds", &[("name", "ssh.service")], &|_| 60.0);
    put("shipwatch_agent_spool_dropped_records_total", &[("lane", "logs")], &|minute| minute);
    put("shipwatch_agent_spool_damaged_bytes_total", &[("lane", "logs")], &|_| 0.0);
    put("shipwatch_agent_tail_lost_bytes_total", &[], &|minute| minute);
    put("shipwatch_agent_tail_unreadable_files", &[], &|_| 2.0);
    source
}

#[test]
fn every_starter_rule_can_be_computed_and_fires_on_a_sick_host_only() {
    let text = include_str!("../../../../packaging/rules/starter.yml");
    let defaults = Defaults { interval: Duration::from_secs(15), query_offset: Duration::ZERO };
    let groups = parse("starter.yml", text, defaults).unwrap_or_else(|told| panic!("{}", told.join("\n")));
    let rules = || groups.iter().flat_map(|group| group.rules.iter().map(move |rule| (group, rule)));
    assert!(rules().count() >= 15);
    let mut world = World { source: sick_host(), active: ActiveSet::new(), previous: BTreeSet::new() };
    for (group, rule) in rules() {
        let one = Group { rules: vec![rule.clone()], ..group.clone() };
        let Found::Alerts(found) = world.ask(&one, 120 * MINUTE).unwrap_or_else(|error| panic!("{}: {error}", rule.name())) else {
            panic!("{}", rule.name())
        };
        assert_eq!(found.len(), 1, "{}: {found:?}", rule.name());
        assert_eq!(found[0].labels.get("instance"), Some("web-1"), "{}", rule.name());
        assert!(found[0].labels.get("severity").is_some() && found[0].annotations["summary"].starts_with("web-1 "), "{found:?}");
        assert!(!found[0].annotations.values().any(|text| text.contains("error expanding")), "{found:?}");
    }
    world.source = MemSource::new();
    for (group, rule) in rules() {
        let one = Group { rules: vec![rule.clone()], ..group.clone() };
        assert_eq!(world.ask(&one, 120 * MINUTE).unwrap(), Found::Alerts(vec![]), "{}", rule.name());
    }
}
