use super::*;

const DEFAULTS: Defaults = Defaults { interval: Duration::from_secs(15), query_offset: Duration::ZERO };

#[test]
fn a_file_of_prometheus_is_read_whole() {
    let text = r#"
groups:
- name: host
  interval: 30s
  limit: 5
  query_offset: 10s
  labels: {team: ops, severity: info}
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
    labels: {tier: 1.50}
  - alert: CpuBusy
    expr: |
      100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[2m]))) > 80
    for: 5m
    keep_firing_for: 2m
    labels: {severity: warning}
    annotations:
      summary: "{{ $labels.instance }} {{ $value | humanize }}%"
- name: empty
  rules: []
"#;
    let groups = parse("a.yml", text, DEFAULTS).unwrap();
    assert_eq!(groups.len(), 2);
    let host = &groups[0];
    assert_eq!((host.interval.as_secs(), host.limit, host.query_offset.as_secs()), (30, 5, 10));
    assert_eq!(groups[1].interval.as_secs(), 15);
    let names: Vec<(&str, &str)> = host.rules[1].labels.iter().map(|(name, text)| (name.as_str(), text.source())).collect();
    assert_eq!(names, [("severity", "warning"), ("team", "ops")], "the rule's labels win over its group's");
    assert_eq!(host.rules[0].labels[2].1.source(), "1.50", "numbers keep their digits");
    let Kind::Alert(alert) = &host.rules[1].kind else { panic!() };
    assert_eq!((alert.hold.as_secs(), alert.keep_firing.as_secs(), alert.annotations.len()), (300, 120, 1));
    assert_ne!(host.rules[0].key("host"), host.rules[1].key("host"));
    assert_eq!(parse("a.yml", "", DEFAULTS).unwrap().len(), 0);
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let text = r#"
groups:
- name: a
  intervall: 30s
  rules:
  - alert: One
    expr: up ==
    fro: 5m
  - record: two
    alert: Two
    expr: up
  - record: bad-name
    expr: up
    for: 5m
  - expr: up
  - alert: Three
    for: soon
    labels: {"bad-label": x}
    annotations: {summary: "{{ nope }}"}
  - alert: Four
    expr: up[5m]
- name: a
  limit: many
"#;
    let told = parse("r.yml", text, DEFAULTS).unwrap_err();
    for expected in [
        "r.yml:4: `intervall` is not known here; did you mean `interval`?",
        r#"r.yml:7: group "a": rule "One": expr: parse error"#,
        "r.yml:8: group \"a\": rule 1: `fro` is not known here; did you mean `for`?",
        r#"r.yml:9: group "a": rule "two": only one of `record` and `alert`"#,
        r#"r.yml:12: group "a": rule "bad-name": "bad-name" is no name of a metric"#,
        r#"r.yml:14: group "a": rule "bad-name": `for` makes no sense with `record`"#,
        r#"r.yml:15: group "a": rule 4: one of `record` and `alert` must be there"#,
        r#"r.yml:17: group "a": rule "Three": `for`: `soon` is not a duration"#,
        r#"r.yml:18: group "a": rule "Three": "bad-label" is no name for one of the labels"#,
        r#"r.yml:19: group "a": rule "Three": annotations.summary: function "nope" not defined"#,
        r#"r.yml:16: group "a": rule "Three": `expr` is missing"#,
        r#"r.yml:21: group "a": rule "Four": expr: gives a range"#,
        r#"r.yml:22: group name "a" is repeated"#,
        r#"r.yml:23: group "a": `limit` must be a whole number, not "many""#,
    ] {
        assert!(told.iter().any(|one| one.starts_with(expected)), "missing {expected:?} in\n{}", told.join("\n"));
    }
    assert!(parse("r.yml", "groups:\n- name: [", DEFAULTS).unwrap_err()[0].starts_with("r.yml:"));
    assert!(parse("r.yml", "groups: 5", DEFAULTS).unwrap_err()[0].contains("must be a list"));
}
