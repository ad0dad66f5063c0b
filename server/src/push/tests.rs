use super::*;
use proptest::prelude::*;
use serde_json::json;
use shipwatch_common::{
    mask::{Config as MaskConfig, Masker},
    model::{Labels, Severity},
    protobuf::{put_bytes, put_number, put_varint},
};

const NOW: i64 = 1_795_420_800_000_000_000;

/// Labels as text, time, severity and text of each line, and what the decoder told.
type Seen = Vec<(String, i64, Severity, String)>;

fn read<T>(
    config: &Config,
    states: &States,
    decode: impl FnOnce(&mut Collector<'_>) -> Result<T, PushError>,
) -> (Result<T, PushError>, Seen) {
    let masker = Masker::new(&MaskConfig::default()).unwrap();
    let mut collector = Collector::new(config, &masker, states, "test", NOW);
    let told = decode(&mut collector);
    let shown = |labels: &Labels| labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",");
    let collected = collector.finish();
    let lines = collected.batches.iter().flat_map(|batch| batch.lines.iter().map(|line| (shown(&batch.labels), line)));
    (told, lines.map(|(labels, line)| (labels, line.ts_ns, line.severity, line.text.clone())).collect())
}

fn all<T>(decode: impl FnOnce(&mut Collector<'_>) -> Result<T, PushError>) -> (Result<T, PushError>, Seen) {
    read(&Config::default(), &States::default(), decode)
}

fn line(labels: &str, ts: i64, severity: Severity, text: &str) -> (String, i64, Severity, String) {
    (labels.to_owned(), ts, severity, text.to_owned())
}

#[test]
fn loki_in_json() {
    let body = json!({"streams": [
        {"stream": {"app": "shop", "mail": "buyer@example.com"}, "values": [["1795420800000000001", "paid by 13812345678"], ["1795420800000000002", "ERROR x", {"trace_id": "ab"}]]},
        {"stream": {}, "values": [["1", "lost"]]},
        {"stream": {"app": "shop", "mail": "buyer@example.com"}, "values": [[1_795_420_800_000_000_003_i64, "y", {"level": "warn"}]]},
    ]});
    let (told, lines) = all(|into| loki::json(body.to_string().as_bytes(), into));
    let labels = "app=shop,mail=[email],masked_by=server,source=test";
    assert_eq!(
        lines,
        [
            line(labels, NOW + 1, Severity::Unknown, "paid by [phone]"),
            line(labels, NOW + 2, Severity::Error, "ERROR x trace_id=ab"),
            line(labels, NOW + 3, Severity::Warn, "y level=warn"),
        ]
    );
    let told = told.unwrap();
    assert_eq!((told.lines, told.reasons.len()), (1, 1));
    let secret = "{\"streams\":[{\"stream\":{\"a\":\"b\"},\"values\":[[\"now 13812345678\",\"x\"]]}]}";
    let error = all(|into| loki::json(secret.as_bytes(), into)).0.unwrap_err().to_string();
    assert!(error.contains("line 1") && !error.contains("138"), "{error}");
}

fn message(fields: &[(u64, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    fields.iter().for_each(|(number, bytes)| put_bytes(&mut out, *number, bytes));
    out
}

fn loki_stream(labels: &str, text: &[u8]) -> Vec<u8> {
    let mut time = Vec::new();
    put_number(&mut time, 1, 1_795_420_800);
    put_number(&mut time, 2, 5);
    let metadata = message(&[(1, b"user"), (2, b"u 1")]);
    let entry = message(&[(1, &time), (2, text), (3, &metadata)]);
    message(&[(1, labels.as_bytes()), (2, &entry)])
}

#[test]
fn loki_in_protocol_buffers() {
    let good = loki_stream("{app=\"shop\", pod=\"p\\\"1\"}", b"plain \xff");
    let bad = loki_stream("{app=~\"shop\"}", b"lost");
    let (told, lines) = all(|into| loki::protobuf(&message(&[(1, &good), (1, &bad)]), into));
    let labels = "app=shop,masked_by=server,pod=p\"1,source=test";
    assert_eq!(lines, [line(labels, NOW + 5, Severity::Unknown, "plain \u{fffd} user=\"u 1\"")]);
    assert_eq!(told.unwrap().lines, 1);
    assert!(matches!(all(|into| loki::protobuf(&good[..good.len() - 1], into)).0, Err(PushError::Malformed(_))));
}

#[test]
fn bulk_takes_documents_and_tells_of_each() {
    let body = [
        r#"{"create":{"_index":"logs-shop"}}"#,
        r#"{"@timestamp":"2026-11-23T08:00:00.001Z","message":"order of 13812345678","log":{"level":"error","file":{"path":"/var/log/a.log"},"offset":7},"host":{"name":"web-1","os":{"name":"x"}},"agent":{"id":"1"},"order":{"no":5}}"#,
        "",
        r#"{"index":{}}"#,
        r#"{"n":1,"timestamp":1795420800002}"#,
        r#"{"delete":{"_id":"1"}}"#,
        r#"{"create":{}}"#,
        "not json",
        r#"{"update":{"_id":"1"}}"#,
        r#"{"doc":{}}"#,
    ]
    .join("\r\n");
    let (told, lines) = all(|into| bulk::read(body.as_bytes(), "fallback", into));
    assert_eq!(
        lines,
        [
            line(
                "filename=/var/log/a.log,host=web-1,index=logs-shop,masked_by=server,source=test",
                NOW + 1_000_000,
                Severity::Error,
                "order of [phone] log.level=error order.no=5"
            ),
            line("index=fallback,masked_by=server,source=test", NOW + 2_000_000, Severity::Unknown, r#"{"n":1,"timestamp":1795420800002}"#),
        ]
    );
    let told: Vec<_> = told.unwrap().into_iter().map(|item| (item.action, item.index, item.error.is_some())).collect();
    let item = |action: &str, index: &str, failed| (action.to_owned(), index.to_owned(), failed);
    assert_eq!(
        told,
        [
            item("create", "logs-shop", false),
            item("index", "fallback", false),
            item("delete", "fallback", true),
            item("create", "fallback", true),
            item("update", "fallback", true)
        ]
    );
    for wrong in ["x\n{}", "{\"create\":{}}", "{}\n{}", "{\"make\":{}}\n{}"] {
        assert!(matches!(all(|into| bulk::read(wrong.as_bytes(), "", into)).0, Err(PushError::Malformed(_))), "{wrong}");
    }
}

fn attribute(key: &str, value: &[u8]) -> Vec<u8> {
    message(&[(1, key.as_bytes()), (2, value)])
}

fn fixed(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3 | 1);
    out.extend(value.to_le_bytes());
}

/// One record in both encodings.
fn otlp_bodies() -> (Vec<u8>, Vec<u8>) {
    let mut number = Vec::new();
    put_number(&mut number, 3, 7);
    let mut record = Vec::new();
    fixed(&mut record, 1, 1_795_420_800_000_000_009);
    put_number(&mut record, 2, 17);
    record.extend(message(&[(5, &message(&[(1, b"paid by 13812345678")])), (6, &attribute("n", &number)), (9, &[0xab; 16])]));
    let resource = message(&[
        (1, &attribute("service.name", &message(&[(1, b"shop")]))),
        (1, &attribute("process.pid", &number)),
        (1, &attribute("telemetry.sdk.name", &number)),
    ]);
    let scope = message(&[(2, &record)]);
    let protobuf = message(&[(1, &message(&[(1, &resource), (2, &scope)]))]);
    let json = json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}, {"key": "process.pid", "value": {"intValue": "7"}}, {"key": "telemetry.sdk.name", "value": {"stringValue": "x"}}]},
        "scopeLogs": [{"logRecords": [{
            "timeUnixNano": "1795420800000000009", "severityNumber": 17, "body": {"stringValue": "paid by 13812345678"},
            "attributes": [{"key": "n", "value": {"intValue": 7}}], "traceId": "abababababababababababababababab",
        }]}],
    }]});
    (protobuf, json.to_string().into_bytes())
}

#[test]
fn otlp_means_the_same_in_both_encodings() {
    let (protobuf, json) = otlp_bodies();
    let text = "paid by [phone] n=7 trace_id=abababababababababababababababab process.pid=7";
    let expected = [line("app=shop,masked_by=server,source=test", NOW + 9, Severity::Error, text)];
    assert_eq!(all(|into| otlp::protobuf(&protobuf, into)), (Ok(None), expected.to_vec()));
    assert_eq!(all(|into| otlp::json(&json, into)), (Ok(None), expected.to_vec()));
    let structured = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [
        {"observedTimeUnixNano": "1795420800000000001", "severityText": "WARN", "attributes": [{"key": "k", "value": {"boolValue": true}}],
         "body": {"kvlistValue": {"values": [{"key": "a", "value": {"arrayValue": {"values": [{"doubleValue": 1.5}, {}]}}}]}}},
        {"body": {"stringValue": "no time"}},
    ]}]}]});
    let (_, lines) = all(|into| otlp::json(structured.to_string().as_bytes(), into));
    let labels = "masked_by=server,source=test";
    assert_eq!(
        lines,
        [line(labels, NOW + 1, Severity::Warn, r#"{"a":[1.5,null],"k":true}"#), line(labels, NOW, Severity::Unknown, "no time")]
    );
}

#[test]
fn a_key_that_is_split_over_requests_stays_masked() {
    let states = States::default();
    let push = |labels: &str, text: &str| {
        let body = json!({"streams": [{"stream": {"app": labels}, "values": [["1", text]]}]}).to_string();
        read(&Config::default(), &states, |into| loki::json(body.as_bytes(), into)).1.remove(0).3
    };
    push("a", "-----BEGIN RSA PRIVATE KEY-----");
    assert_eq!(push("b", "MIIEowIBAAKCAQEAmaterial"), "MIIEowIBAAKCAQEAmaterial");
    assert!(!push("a", "MIIEowIBAAKCAQEAmaterial").contains("material"));
    push("a", "-----END RSA PRIVATE KEY-----");
    assert_eq!(push("a", "order 7"), "order 7");
}

#[test]
fn bounds_are_told_by_their_keys() {
    let config = Config { max_lines: 1, max_streams: 1, ..Config::default() };
    let body = |streams: &[&str], lines: usize| {
        let of = |name: &&str| json!({"stream": {"app": name}, "values": vec![json!(["1", "x"]); lines]});
        json!({"streams": streams.iter().map(of).collect::<Vec<_>>()}).to_string()
    };
    for (body, key) in [(body(&["a"], 2), "max_lines"), (body(&["a", "b"], 0), "max_streams")] {
        let error = read(&config, &States::default(), |into| loki::json(body.as_bytes(), into)).0.unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
    let mut problems = Problems::new();
    Config::default().check(&mut problems);
    assert!(problems.is_empty(), "{problems}");
    Config { max_bytes: 0, max_lines: 0, ..Config::default() }.check(&mut problems);
    assert_eq!(problems.list().len(), 2);
}

proptest! {
    #[test]
    fn random_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..200, byte: u8) {
        let mut damaged = otlp_bodies().0;
        let end = damaged.len();
        damaged[at % end] = byte;
        for body in [&bytes, &damaged] {
            let _any = all(|into| loki::protobuf(body, into).map(drop));
            let _any = all(|into| otlp::protobuf(body, into).map(drop));
            let _any = all(|into| bulk::read(body, "i", into).map(drop));
            let _any = all(|into| loki::json(body, into).map(drop));
            let _any = all(|into| otlp::json(body, into).map(drop));
        }
    }

    #[test]
    fn a_planted_value_is_never_stored(before in "\\PC{0,20}", after in "\\PC{0,20}") {
        let text = format!("{before} buyer@shop-example.com {after}");
        let body = json!({"streams": [{"stream": {"app": text}, "values": [["1", text, {"meta": text}]]}]}).to_string();
        let (_, lines) = all(|into| loki::json(body.as_bytes(), into));
        for (labels, _, _, stored) in lines {
            prop_assert!(!stored.contains("buyer@") && !labels.contains("buyer@"), "{labels} {stored}");
        }
    }
}
