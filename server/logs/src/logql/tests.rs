use super::*;
use crate::{Append, Config, Direction};
use shipwatch_common::model::{FileId, Labels, LogBatch, LogLine, Severity};
use std::{sync::Arc, sync::atomic::AtomicBool, time::Duration};
use tempfile::TempDir;

mod naive;

const NS: i64 = 1_000_000_000;
/// 2023-11-14 00:00 UTC.
const T: i64 = 19_675 * 86_400 * NS;

fn engine(config: Config) -> (TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { seal_after: Duration::ZERO, block_bytes: 4096, max_behind: Duration::ZERO, ..config };
    let (engine, _) = Engine::open(dir.path(), config).unwrap();
    (dir, engine)
}

/// Lines of one stream: seconds after [`T`], severity, text.
fn store(engine: &Engine, labels: &[(&str, &str)], lines: &[(i64, Severity, &str)]) {
    let line = |(at, severity, text): &(i64, Severity, &str)| LogLine {
        ts_ns: T + at * NS,
        end_offset: 0,
        severity: *severity,
        truncated: false,
        text: (*text).to_owned(),
    };
    let labels = Labels::new(labels.iter().copied()).unwrap();
    let batch = LogBatch { file: FileId(0), labels, lines: lines.iter().map(line).collect() };
    engine.append(vec![Append { source: String::new(), seq: 0, agent: "a".to_owned(), batches: vec![batch] }]).unwrap();
}

fn request(limit: usize, direction: Direction) -> RowsRequest {
    RowsRequest { start_ns: T, end_ns: T + 1_000_000 * NS, limit, direction, interval_ns: 0 }
}

/// Labels and text of what a log query gives, oldest first, one line each.
#[track_caller]
fn rows(engine: &Engine, query: &str) -> Vec<String> {
    let parsed = Expression::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let found = engine.rows(&parsed, &request(5000, Direction::Forward), &Patience::default()).unwrap();
    found.rows.iter().map(|row| format!("{} {}", row.labels(), row.text)).collect()
}

/// A metric query at steps of a minute: labels, then seconds and value.
#[track_caller]
fn matrix(engine: &Engine, query: &str, steps: i64) -> Vec<String> {
    let times = Times { start_ns: T + 60 * NS, end_ns: T + steps * 60 * NS, step_ns: 60 * NS };
    let parsed = Expression::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let (series, _) = engine.metric(&parsed, &times, &Patience::default()).unwrap_or_else(|error| panic!("{query}: {error}"));
    series
        .iter()
        .map(|series| {
            let points: Vec<_> =
                series.points.iter().map(|(ts, value)| format!("{}={}", (ts - T) / NS, (value * 1e6).round() / 1e6)).collect();
            format!("{} {}", series.labels, points.join(" "))
        })
        .collect()
}

/// A shop: JSON, logfmt and plain lines, in blocks and in the head.
fn shop() -> (TempDir, Engine) {
    let (dir, engine) = engine(Config::default());
    let json = [
        (10, Severity::Info, r#"{"method":"GET","path":"/a","status":200,"took":"12ms","bytes":"1KB","user":{"id":7}}"#),
        (20, Severity::Error, r#"{"method":"POST","path":"/b","status":500,"took":"1.5s","bytes":"2KB","app":"inner"}"#),
        (70, Severity::Info, r#"{"method":"GET","path":"/a","status":200,"took":"20ms","bytes":"3KB"}"#),
        (80, Severity::Warn, "not json at all"),
    ];
    store(&engine, &[("app", "shop"), ("env", "prod")], &json);
    engine.seal(0).unwrap();
    let logfmt = [
        (15, Severity::Info, "level=info msg=\"order placed\" took=250ms n=3"),
        (60, Severity::Error, "level=error msg=\"payment failed\" took=2s n=x"),
        (61, Severity::Info, "level=info msg=\"order placed\" took=100ms n=5"),
    ];
    store(&engine, &[("app", "orders"), ("env", "prod")], &logfmt);
    (dir, engine)
}

#[test]
fn stages_change_and_drop_lines() {
    let (_dir, engine) = shop();
    for (query, expected) in [
        (
            r#"{app="orders"} |= "payment""#,
            vec![r#"{app="orders", detected_level="error", env="prod"} level=error msg="payment failed" took=2s n=x"#],
        ),
        (
            r#"{app="orders"} |= "nothing" or "placed" != "250ms" | keep app"#,
            vec![r#"{app="orders"} level=info msg="order placed" took=100ms n=5"#],
        ),
        (
            r#"{app="orders"} |> "level=<_> msg=\"payment<_>" | keep env"#,
            vec![r#"{env="prod"} level=error msg="payment failed" took=2s n=x"#],
        ),
        (
            r#"{app="orders"} | detected_level="error" | logfmt msg | line_format "{{.msg}}" | keep msg"#,
            vec![r#"{msg="payment failed"} payment failed"#],
        ),
        (r#"{app="orders"} | logfmt | took > 200ms and level="info" | keep n | line_format """#, vec![r#"{n="3"} "#]),
        // A condition on what is no number marks the line and lets it pass.
        (
            r#"{app="orders"} | logfmt n | n > 4 | keep n | line_format "x""#,
            vec![r#"{__error__="LabelFilterErr", __error_details__="label n: \"x\" is not a number", n="x"} x"#, r#"{n="5"} x"#],
        ),
        (r#"{app="orders"} | logfmt n | n > 4 | __error__="" | keep n | line_format "x""#, vec![r#"{n="5"} x"#]),
        (
            r#"{app="shop"} | json | status >= 500 | __error__="" | keep app_extracted, method, took | line_format "{{.took | upper}}""#,
            vec![r#"{app_extracted="inner", method="POST", took="1.5s"} 1.5S"#],
        ),
        (r#"{app="shop"} | json | user_id=7 | __error__="" | line_format "u" | keep user_id"#, vec![r#"{user_id="7"} u"#]),
        (
            r#"{app="shop"} | json id="user.id", m="method" | __error__="" | line_format "-" | keep id, m"#,
            vec![r#"{id="7", m="GET"} -"#, r#"{m="POST"} -"#, r#"{m="GET"} -"#],
        ),
        (
            r#"{app="shop"} | json | __error__!="" | line_format "e" | drop env, detected_level"#,
            vec![r#"{__error__="JSONParserErr", __error_details__="expected an object at byte 0, found `n`", app="shop"} e"#],
        ),
        (r#"{app="shop"} | json | drop __error__ | keep app | line_format "{{.method}}" |= "POST""#, vec![r#"{app="shop"} "#; 0]),
        (
            r#"{app="shop"} | json method | label_format verb=method, app="{{.app}}-{{.env}}" | verb="POST" | keep verb, app | line_format """#,
            vec![r#"{app="shop-prod", verb="POST"} "#],
        ),
        (
            r#"{app="orders"} | logfmt msg | line_format "[{{.msg}}]" |= "[pay" != "level" | keep msg"#,
            vec![r#"{msg="payment failed"} [payment failed]"#],
        ),
        (r#"{app="orders"} | pattern "level=<l> msg=\"<m>\" <_>" | l="error" | keep m | line_format """#, vec![r#"{m="payment failed"} "#]),
        (r#"{app="orders"} | regexp "n=(?P<n>\\d+)" | n=5 | keep n | line_format """#, vec![r#"{n="5"} "#]),
        (
            r#"{app=~"sh.+|none", env!="dev"} | took="" |= "not""#,
            vec![r#"{app="shop", detected_level="warn", env="prod"} not json at all"#],
        ),
    ] {
        assert_eq!(rows(&engine, query), expected, "{query}");
    }
}

#[test]
fn unpacked_lines_are_restored() {
    let (_dir, engine) = engine(Config::default());
    let packed = [(1, Severity::Unknown, r#"{"pod":"p-1","_entry":"\u001b[31mred\u001b[0m text","n":5}"#), (2, Severity::Unknown, "x")];
    store(&engine, &[("a", "b")], &packed);
    let found = rows(&engine, r#"{a="b"} | unpack | decolorize | drop detected_level"#);
    assert_eq!(found[0], r#"{a="b", pod="p-1"} red text"#);
    assert!(found[1].contains("JSONParserErr"), "{found:?}");
    // A filter sees the text as it is where it stands.
    for (query, count) in [
        (r#"{a="b"} | unpack |= "\x1b[31mred" != "pod""#, 1),
        (r#"{a="b"} |= "pod" | unpack != "pod""#, 1),
        (r#"{a="b"} | unpack | decolorize |= "red text""#, 1),
        (r#"{a="b"} | unpack |= "red text""#, 0),
    ] {
        assert_eq!(rows(&engine, query).iter().filter(|row| !row.ends_with(" x")).count(), count, "{query}");
    }
}

#[test]
fn pages_have_a_limit_and_an_order() {
    let (_dir, engine) = shop();
    let texts = |query: &str, request: RowsRequest| {
        let found = engine.rows(&Expression::parse(query).unwrap(), &request, &Patience::default()).unwrap();
        found.rows.iter().map(|row| (row.id.ts_ns - T) / NS).collect::<Vec<_>>()
    };
    let all = r#"{env="prod"}"#;
    assert_eq!(texts(all, request(3, Direction::Backward)), [80, 70, 61]);
    assert_eq!(texts(all, request(3, Direction::Forward)), [10, 15, 20]);
    assert_eq!(texts(r#"{env="prod"} | json | __error__="" "#, request(2, Direction::Backward)), [70, 20], "filtered before the limit");
    let spread = RowsRequest { interval_ns: 40 * NS, ..request(5, Direction::Forward) };
    assert_eq!(texts(all, spread), [10, 60]);
    assert_eq!(texts(all, RowsRequest { limit: 1, ..spread }), [10]);
}

#[test]
fn ranges_count_and_measure() {
    let (_dir, engine) = shop();
    for (query, expected) in [
        // The window at 60 s has the line at 60 s.
        (r#"sum(count_over_time({app="orders"}[1m]))"#, vec!["{} 60=2 120=1"]),
        (
            r#"count_over_time({app="orders"}[1m])"#,
            vec![
                r#"{app="orders", detected_level="error", env="prod"} 60=1"#,
                r#"{app="orders", detected_level="info", env="prod"} 60=1 120=1"#,
            ],
        ),
        (
            r#"sum by (app) (rate({env="prod"}[1m]))"#,
            vec![r#"{app="orders"} 60=0.033333 120=0.016667"#, r#"{app="shop"} 60=0.033333 120=0.033333"#],
        ),
        (
            r#"sum by (level, detected_level) (count_over_time({app="shop"} | drop __error__ [1m]))"#,
            vec![r#"{detected_level="error"} 60=1"#, r#"{detected_level="info"} 60=1 120=1"#, r#"{detected_level="warn"} 120=1"#],
        ),
        (r#"sum(count_over_time({app="shop"} | json | __error__="" | status=200 [2m]))"#, vec!["{} 60=1 120=2"]),
        (r#"sum(bytes_over_time({app="shop"} |= "not" [1m]))"#, vec!["{} 120=15"]),
        (r#"sum(bytes_over_time({app="shop"} | detected_level="warn" [1m]))"#, vec!["{} 120=15"]),
        (r#"sum(bytes_rate({app="shop"} |= "not" | line_format "123456" [1m]))"#, vec!["{} 120=0.1"]),
        (
            r#"sum by (method) (sum_over_time({app="shop"} | json | unwrap duration(took) | __error__="" [1m]))"#,
            vec![r#"{method="GET"} 60=0.012 120=0.02"#, r#"{method="POST"} 60=1.5"#],
        ),
        (
            r#"max_over_time({app="shop"} | json | unwrap bytes(bytes) | __error__="" [1m]) by (app)"#,
            vec![r#"{app="shop"} 60=2000 120=3000"#],
        ),
        (r#"avg_over_time({app="shop"} | json | __error__="" | unwrap status [1m]) by (env)"#, vec![r#"{env="prod"} 60=350 120=200"#]),
        (r#"quantile_over_time(0.5, {app="shop"} | json | __error__="" | unwrap status [2m]) by ()"#, vec!["{} 60=350 120=200"]),
        (r#"first_over_time({app="shop"} | json | __error__="" | unwrap status [2m]) by ()"#, vec!["{} 60=200 120=200"]),
        (r#"last_over_time({app="shop"} | json | __error__="" | unwrap status [1m]) by ()"#, vec!["{} 60=500 120=200"]),
        (r#"stddev_over_time({app="shop"} | json | __error__="" | unwrap status [1m]) by ()"#, vec!["{} 60=150 120=0"]),
        (r#"sum(rate({app="orders"} | logfmt | unwrap n | __error__="" [1m]))"#, vec!["{} 60=0.05 120=0.083333"]),
        // The unwrapped label is no label of the series.
        (r#"sum_over_time({app="orders"} | logfmt n | keep n | unwrap n | __error__="" [1m])"#, vec!["{} 60=3 120=5"]),
        (r#"absent_over_time({app="none", x=~"y.+"}[1m])"#, vec![r#"{app="none"} 60=1 120=1"#]),
        (r#"absent_over_time({app="orders"} |= "failed" [30s])"#, vec![r#"{app="orders"} 120=1"#]),
        (r#"sum(count_over_time({app="orders"}[1m] offset 1m))"#, vec!["{} 120=2"]),
        (r#"sum(count_over_time({app="none"}[1m]))"#, vec![]),
    ] {
        assert_eq!(matrix(&engine, query, 2), expected, "{query}");
    }
}

/// The shapes that Grafana's log views ask for.
#[test]
fn log_views_are_answered() {
    let (_dir, engine) = shop();
    for (query, expected) in [
        (
            r#"sum by (detected_level) (count_over_time({app="shop"} | detected_level != "" [1m]))"#,
            vec![r#"{detected_level="error"} 60=1"#, r#"{detected_level="info"} 60=1 120=1"#, r#"{detected_level="warn"} 120=1"#],
        ),
        (
            r#"sum by (method) (count_over_time({app="shop"} | json | logfmt | drop __error__, __error_details__ | method!="" [1m]))"#,
            vec![r#"{method="GET"} 60=1 120=1"#, r#"{method="POST"} 60=1"#],
        ),
        (
            r#"avg_over_time({env="prod"} | json | logfmt | drop __error__, __error_details__ | took!="" | unwrap duration(took) | __error__="" [1m]) by (app)"#,
            vec![r#"{app="orders"} 60=1.125 120=0.1"#, r#"{app="shop"} 60=0.756 120=0.02"#],
        ),
        (r#"sum(count_over_time({env="prod"} |~ `(?i)PAYMENT|json` [1m]))"#, vec!["{} 60=1 120=1"]),
        (r#"sum(bytes_over_time({env="prod"} |= "not json" [1m]))"#, vec!["{} 120=15"]),
        // A stage that marks lines ends the query only where there is such a line.
        (r#"sum(count_over_time({app="none"} | app > 5 [1m]))"#, vec![]),
    ] {
        assert_eq!(matrix(&engine, query, 2), expected, "{query}");
    }
}

#[test]
fn vectors_are_aggregated_and_joined() {
    let (_dir, engine) = shop();
    for (query, expected) in [
        ("vector(1)+vector(1)", vec!["{} 60=2 120=2"]),
        ("1 + 1", vec!["{} 60=2 120=2"]),
        (r#"sum(count_over_time({app="none"}[1m])) or vector(0)"#, vec!["{} 60=0 120=0"]),
        (r#"topk(1, sum by (app) (count_over_time({env="prod"}[1m])))"#, vec![r#"{app="orders"} 60=2"#, r#"{app="shop"} 120=2"#]),
        (r#"bottomk(1, sum by (app) (count_over_time({env="prod"}[1m])))"#, vec![r#"{app="orders"} 60=2 120=1"#]),
        (r#"count(count_over_time({env="prod"}[1m]))"#, vec!["{} 60=4 120=3"]),
        (r#"avg by (app) (count_over_time({env="prod"}[1m]))"#, vec![r#"{app="orders"} 60=1 120=1"#, r#"{app="shop"} 60=1 120=1"#]),
        (
            r#"max without (detected_level, env) (count_over_time({env="prod"}[2m]))"#,
            vec![r#"{app="orders"} 60=1 120=2"#, r#"{app="shop"} 60=1 120=2"#],
        ),
        (r#"sum by (app) (count_over_time({env="prod"}[1m])) > 1"#, vec![r#"{app="orders"} 60=2"#, r#"{app="shop"} 60=2 120=2"#]),
        (
            r#"sum by (app) (count_over_time({env="prod"}[1m])) > bool 1"#,
            vec![r#"{app="orders"} 60=1 120=0"#, r#"{app="shop"} 60=1 120=1"#],
        ),
        (r#"10 - sum by (app) (count_over_time({app="shop"}[1m])) * 2"#, vec![r#"{app="shop"} 60=6 120=6"#]),
        (
            r#"sum by (env) (count_over_time({app="shop"} | detected_level="error" [1m])) / sum by (env) (count_over_time({app="shop"}[1m]))"#,
            vec![r#"{env="prod"} 60=0.5"#],
        ),
        (
            r#"sum by (app) (count_over_time({app="shop"}[1m])) / ignoring (app) sum by (app) (count_over_time({app="orders"}[1m]))"#,
            vec!["{} 60=1 120=2"],
        ),
        (
            r#"sum by (app) (rate({env="prod"}[1m])) unless sum by (app) (rate({app="shop"}[1m]))"#,
            vec![r#"{app="orders"} 60=0.033333 120=0.016667"#],
        ),
        (
            r#"sum by (app) (count_over_time({env="prod"}[1m])) and sum by (app) (count_over_time({app="shop"}[1m]))"#,
            vec![r#"{app="shop"} 60=2 120=2"#],
        ),
        (
            r#"label_replace(sum by (app) (count_over_time({app="shop"}[1m])), "x", "<$1>", "app", "(sh).*")"#,
            vec![r#"{app="shop", x="<sh>"} 60=2 120=2"#],
        ),
        (r#"stddev(sum by (app) (count_over_time({env="prod"}[1m])))"#, vec!["{} 60=0 120=0.5"]),
    ] {
        assert_eq!(matrix(&engine, query, 2), expected, "{query}");
    }
}

#[test]
fn one_time_is_evaluated_as_rules_ask_it() {
    let (_dir, engine) = shop();
    let at = |query: &str| engine.evaluate(&Expression::parse(query).unwrap(), T + 120 * NS, &Patience::default()).map(|(found, _)| found);
    let Instant::Vector(samples) = at(r#"topk(2, sum by (app) (count_over_time({env="prod"}[1m])))"#).unwrap() else { panic!() };
    let shown: Vec<_> = samples.iter().map(|sample| format!("{} {}", sample.labels, sample.value)).collect();
    assert_eq!(shown, [r#"{app="shop"} 2"#, r#"{app="orders"} 1"#], "largest first");
    assert_eq!(at("1 + 1").unwrap(), Instant::Scalar(2.0));
    assert!(at(r#"{app="shop"}"#).unwrap_err().to_string().contains("not supported as an instant query type"));
}

#[test]
fn marked_lines_end_a_metric_query() {
    let (_dir, engine) = shop();
    let fails = |query: &str| {
        let query = Expression::parse(query).unwrap();
        engine.evaluate(&query, T + 120 * NS, &Patience::default()).unwrap_err().to_string()
    };
    let error = fails(r#"sum(count_over_time({app="shop"} | json [2m]))"#);
    assert!(error.starts_with(r#"pipeline error: 'JSONParserErr' for series: '{app="shop", env="prod"}'"#), "{error}");
    assert!(fails(r#"sum_over_time({app="orders"} | logfmt | unwrap n [2m])"#).contains("SampleExtractionErr"));
    let many = r#"count_over_time({app="shop"}[1m]) + on () count_over_time({app="shop"}[1m])"#;
    assert!(fails(many).contains("found duplicate series"), "{}", fails(many));
}

#[test]
fn bounds_are_named() {
    let (_dir, small) = engine(Config { query_max_series: 1, query_max_values: 3, ..Config::default() });
    store(
        &small,
        &[("a", "b")],
        &[(1, Severity::Info, "x=1"), (2, Severity::Info, "x=2"), (3, Severity::Info, "x=3"), (4, Severity::Info, "x=4")],
    );
    let fails = |query: &str, steps: i64| {
        let times = Times { start_ns: T, end_ns: T + steps * NS, step_ns: NS };
        small.metric(&Expression::parse(query).unwrap(), &times, &Patience::default()).unwrap_err().to_string()
    };
    assert!(fails(r#"count_over_time({a="b"} | logfmt [1m])"#, 5).contains("`query_max_series` of [logs]"));
    assert!(
        fails(r#"quantile_over_time(0.5, {a="b"} | logfmt | keep x | unwrap x [1m]) by ()"#, 5).contains("`query_max_values` of [logs]")
    );
    assert!(fails(r#"sum(count_over_time({a="b"}[1m]))"#, 11_000).contains("11,000 points"));
    let canceled = Patience { canceled: Some(Arc::new(AtomicBool::new(true))), ..Patience::default() };
    let late = Patience { deadline: Some(std::time::Instant::now()), ..Patience::default() };
    let query = Expression::parse(r#"sum(rate({a="b"}[1m]))"#).unwrap();
    assert!(matches!(small.evaluate(&query, T, &canceled), Err(Error::Canceled)));
    assert!(matches!(small.evaluate(&query, T, &late), Err(Error::TimedOut)));
    // A log query looks at one block before it asks for the time.
    store(&small, &[("a", "c")], &[(1, Severity::Info, "x")]);
    let query = Expression::parse(r#"{a=~".+"}"#).unwrap();
    assert!(matches!(small.rows(&query, &request(10, Direction::Forward), &late), Err(Error::TimedOut)));
}

#[test]
fn counts_of_whole_blocks_need_no_text() {
    let (_dir, engine) = engine(Config::default());
    let lines: Vec<_> = (0..500).map(|at| (at, Severity::Info, "some text that takes a few bytes")).collect();
    store(&engine, &[("a", "b")], &lines);
    engine.seal(0).unwrap();
    let query = Expression::parse(r#"sum by (detected_level) (count_over_time({a="b"}[11m]))"#).unwrap();
    let (found, stats) = engine.evaluate(&query, T + 600 * NS, &Patience::default()).unwrap();
    assert!(matches!(found, Instant::Vector(samples) if samples[0].value == 500.0));
    assert!(stats.blocks > 1 && stats.blocks_read == 0 && stats.bytes_read == 0, "{stats:?}");

    let text = lines[0].2.len() as u64;
    let all = parse_selector("{}").unwrap();
    let volume = |start_s: i64, end_s: i64| engine.volume(&all, T + start_s * NS, T + end_s * NS, &Patience::default()).unwrap();
    assert_eq!(volume(0, 500), Volume { streams: 1, blocks: stats.blocks, lines: 500, bytes: 500 * text });
    assert_eq!((volume(3, 7).lines, volume(3, 7).bytes), (4, 4 * text));
    for (by, labels) in [(None, r#"{a="b"}"#), (Some(vec!["x".to_owned()]), "{}")] {
        let (found, _) = engine.evaluate(&Expression::volume(&all, by, 400 * NS), T + 399 * NS, &Patience::default()).unwrap();
        let Instant::Vector(found) = found else { panic!() };
        assert_eq!((found[0].labels.to_string().as_str(), found[0].value), (labels, 400.0 * text as f64));
    }
}

#[test]
fn words_of_line_filters_rule_blocks_out() {
    let (_dir, engine) = engine(Config::default());
    let texts: Vec<String> = (0..500).map(|at| format!("line number{at} of many")).collect();
    let lines: Vec<_> = texts.iter().zip(0..).map(|(text, at)| (at, Severity::Info, text.as_str())).collect();
    store(&engine, &[("a", "b")], &lines);
    engine.seal(0).unwrap();
    let query = Expression::parse(r#"sum(count_over_time({a="b"} | logfmt |= "line number77 of" | drop __error__ [10m]))"#).unwrap();
    let (found, stats) = engine.evaluate(&query, T + 600 * NS, &Patience::default()).unwrap();
    assert!(matches!(found, Instant::Vector(samples) if samples[0].value == 1.0));
    assert!(stats.blocks_denied > 0 && stats.blocks_read < stats.blocks, "a filter behind a parser is the store's work too: {stats:?}");
}

#[test]
fn a_followed_line_goes_through_the_pipeline() {
    let (_dir, engine) = shop();
    let query = Expression::parse(r#"{app="orders"} |= "order" | logfmt | n > 3 | line_format "{{.n}}""#).unwrap();
    let subscription = engine.subscribe(query.stored().unwrap()).unwrap();
    store(
        &engine,
        &[("app", "orders")],
        &[(200, Severity::Info, "order n=2"), (201, Severity::Info, "x n=9"), (202, Severity::Info, "order n=8")],
    );
    let next = || match subscription.recv_timeout(Duration::from_secs(10)).unwrap() {
        crate::TailEvent::Entry(entry) => query.row(&entry).map(|row| row.text),
        crate::TailEvent::Gap { .. } => panic!("a gap"),
    };
    assert_eq!([next(), next()], [None, Some("8".to_owned())]);
}
