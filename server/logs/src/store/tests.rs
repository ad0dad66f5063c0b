//! The store as a whole, on real files: against a model, through crashes, and with damage.

use super::*;
use crate::{Cursor, Direction, Entry, TailEvent};
use shipwatch_common::model::{FileId, LogLine, Severity};
use std::{collections::HashMap, fs, time::Duration};
use tempfile::TempDir;

mod crash;
mod damage;
mod full;
mod model;
mod retention;

const NS: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * NS;
const DAY: i64 = 86_400 * NS;
/// 2023-11-14 00:00 UTC.
const T: i64 = 19_675 * DAY;

/// Seals at each call, in small blocks, and takes lines of any age.
fn config() -> Config {
    Config { seal_after: Duration::ZERO, block_bytes: 4096, max_behind: Duration::ZERO, ..Config::default() }
}

fn open(dir: &TempDir) -> (Engine, OpenReport) {
    Engine::open(dir.path(), config()).unwrap()
}

fn line(ts_ns: i64, end_offset: u64, severity: Severity, text: &str) -> LogLine {
    LogLine { ts_ns, end_offset, severity, truncated: false, text: text.to_owned() }
}

fn labels(app: &str) -> Labels {
    Labels::new([("app", app), ("env", "prod")]).unwrap()
}

fn append(source: &str, seq: u64, agent: &str, file: u128, app: &str, lines: Vec<LogLine>) -> Append {
    let batch = LogBatch { file: FileId(file), labels: labels(app), lines };
    Append { source: source.to_owned(), seq, agent: agent.to_owned(), batches: vec![batch] }
}

/// Lines of one file, one second apart.
fn store(engine: &Engine, file: u128, app: &str, texts: &[&str]) {
    let lines = texts.iter().zip(1u64..).map(|(text, at)| line(T + at as i64 * NS, at * 10, Severity::Info, text)).collect();
    engine.append(vec![append("", 0, "a", file, app, lines)]).unwrap();
}

fn all(limit: usize) -> Search {
    Search { start_ns: i64::MIN, end_ns: i64::MAX, limit, direction: Direction::Forward, cursor: None, deadline: None }
}

fn find(engine: &Engine, query: &str) -> Page {
    engine.search(&Query::parse(query).unwrap(), &all(5000)).unwrap()
}

fn texts(page: &Page) -> Vec<&str> {
    page.entries.iter().map(|entry| entry.text.as_str()).collect()
}

/// Every page, until there is no more.
fn pages(engine: &Engine, query: &Query, mut search: Search) -> Vec<Entry> {
    let mut found = Vec::new();
    for _ in 0..10_000 {
        let page = engine.search(query, &search).unwrap();
        found.extend(page.entries);
        match page.next {
            Some(next) => search.cursor = Some(next.to_string().parse::<Cursor>().unwrap()),
            None => return found,
        }
    }
    panic!("the pages have no end");
}

fn seal(engine: &Engine) -> Sealed {
    engine.seal(1).unwrap()
}

/// What a crash leaves: the files as they are, without the close.
fn crash_image(dir: &TempDir) -> TempDir {
    let image = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with("-shm") {
            fs::copy(&path, image.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    image
}

#[test]
fn what_is_sent_again_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, report) = open(&dir);
    assert_eq!(report, OpenReport::default());
    let lines = |offsets: &[u64]| offsets.iter().map(|at| line(T, *at, Severity::Info, &format!("at {at}"))).collect::<Vec<_>>();
    let send = |seq, offsets: &[u64]| engine.append(vec![append("lane", seq, "a", 1, "shop", lines(offsets))]).unwrap()[0];
    assert_eq!(send(5, &[10, 20]), Outcome { lines: 2, ..Outcome::default() });
    assert_eq!(send(5, &[10, 20]), Outcome { duplicate: true, ..Outcome::default() });
    assert_eq!(send(4, &[30]), Outcome { duplicate: true, ..Outcome::default() });
    // A new lane of the same agent: the positions catch what the sequence cannot.
    let again = engine.append(vec![append("other", 1, "a", 1, "shop", lines(&[10, 20, 30]))]).unwrap()[0];
    assert_eq!(again, Outcome { lines: 1, duplicate_lines: 2, ..Outcome::default() });
    // Another agent's file of that number is another file; lines from no file have no position.
    assert_eq!(engine.append(vec![append("", 0, "b", 1, "shop", lines(&[10]))]).unwrap()[0].lines, 1);
    assert_eq!(engine.append(vec![append("", 0, "b", 0, "shop", lines(&[0, 0]))]).unwrap()[0].lines, 2);
    let stats = engine.stats().unwrap();
    assert_eq!((stats.lines, stats.duplicate_lines, stats.duplicate_appends), (6, 5, 2));
    assert_eq!(find(&engine, "").entries.len(), 6);
}

#[test]
fn one_call_is_stored_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    let good = append("lane", 1, "a", 1, "shop", vec![line(T, 10, Severity::Info, "x")]);
    let bad = append("lane", u64::MAX, "a", 1, "shop", vec![]);
    assert!(matches!(engine.append(vec![good.clone(), bad]), Err(Error::Invalid(_))));
    assert!(find(&engine, "").entries.is_empty());
    assert_eq!(engine.append(vec![good]).unwrap()[0].lines, 1);
}

#[test]
fn what_was_acknowledged_survives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    store(&engine, 1, "shop", &["one", "two"]);
    let image = crash_image(&dir);
    let (after, report) = open(&image);
    assert_eq!((report.head_lines, report.damaged.len()), (2, 0));
    assert_eq!(texts(&find(&after, "")), ["one", "two"]);
    drop(engine);
}

#[test]
fn queries_find_lines_in_head_and_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    store(&engine, 1, "shop", &["GET /cart 200", "订单支付失败 order=42", "timeout after 30s"]);
    store(&engine, 2, "admin", &["login ok", "Timeout of 支付宝"]);
    for sealed in [false, true] {
        if sealed {
            assert_eq!(seal(&engine), Sealed { streams: 2, blocks: 2, lines: 5, lost_lines: 0 });
            assert_eq!(seal(&engine), Sealed::default());
        }
        for (query, expected) in [
            (r#"{app="shop"} |= "支付""#, vec!["订单支付失败 order=42"]),
            ("支付", vec!["Timeout of 支付宝", "订单支付失败 order=42"]),
            ("付失", vec!["订单支付失败 order=42"]),
            ("timeout", vec!["Timeout of 支付宝", "timeout after 30s"]),
            (r#"{env="prod"} |= "timeout""#, vec!["timeout after 30s"]),
            (r#"{app=~"sh.+"} |~ "\\d{3}""#, vec!["GET /cart 200"]),
            (r#"{app!="shop"} != "login""#, vec!["Timeout of 支付宝"]),
            (r#"{app="none"}"#, vec![]),
        ] {
            let mut found = find(&engine, query);
            found.entries.sort_by(|a, b| a.text.cmp(&b.text));
            assert_eq!(texts(&found), expected, "{query} sealed: {sealed}");
        }
    }
}

#[test]
fn filters_of_words_rule_blocks_out() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    let many: Vec<String> = (0..400).map(|at| format!("user-{at:06}-done 第{at}次请求处理完成")).collect();
    store(&engine, 1, "shop", &many.iter().map(String::as_str).collect::<Vec<_>>());
    store(&engine, 2, "shop", &["user-999999-done 退款审批通过"]);
    seal(&engine);
    let blocks = engine.stats().unwrap().blocks;
    assert!(blocks > 4, "{blocks}");
    for query in ["退款", r#"{app="shop"} |= "user-999999-done""#, r#"{app="shop"} |~ `\b999999\b`"#] {
        let page = find(&engine, query);
        assert_eq!(texts(&page), ["user-999999-done 退款审批通过"]);
        assert_eq!((page.stats.blocks, page.stats.blocks_read), (blocks, 1), "{query}");
        assert_eq!(page.stats.blocks_denied, blocks - 1, "{query}");
    }
    assert_eq!(find(&engine, "请求处理").entries.len(), 400);
}

#[test]
fn pages_stop_early_and_join_without_gap() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    let many: Vec<String> = (0..600).map(|at| format!("line {at:04} with some words to fill the block")).collect();
    store(&engine, 1, "shop", &many.iter().map(String::as_str).collect::<Vec<_>>());
    seal(&engine);
    let mut search = Search { limit: 7, direction: Direction::Backward, ..all(1) };
    let first = engine.search(&Query::default(), &search).unwrap();
    assert_eq!(first.stats.blocks_read, 1, "{:?}", first.stats);
    assert_eq!(first.entries[0].text, many[599]);
    let found: Vec<_> = pages(&engine, &Query::default(), search).into_iter().rev().map(|entry| entry.text).collect();
    assert_eq!(found, many);
    // With no time at all, each call still comes one block further.
    search.deadline = Some(std::time::Instant::now());
    search.limit = 5000;
    let page = engine.search(&Query::default(), &search).unwrap();
    assert!(page.stats.incomplete && page.next.is_some() && page.entries.len() < 600);
    let found: Vec<_> = pages(&engine, &Query::default(), search).into_iter().rev().map(|entry| entry.text).collect();
    assert_eq!(found, many);
}

#[test]
fn arguments_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    for search in [Search { limit: 0, ..all(1) }, Search { limit: 5001, ..all(1) }, Search { start_ns: 5, end_ns: 5, ..all(1) }] {
        assert!(matches!(engine.search(&Query::default(), &search), Err(Error::Invalid(_))));
    }
    for step_ns in [0, -1, 1] {
        let count = CountBy { start_ns: 0, end_ns: DAY, step_ns, by_severity: false, deadline: None };
        assert!(matches!(engine.count_by(&Query::default(), &count), Err(Error::Invalid(_))), "{step_ns}");
    }
}

#[test]
fn a_histogram_of_sealed_blocks_decompresses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    let lines = (0..300u64).map(|at| line(T + at as i64 * NS, at + 1, if at % 3 == 0 { Severity::Error } else { Severity::Info }, "x"));
    engine.append(vec![append("", 0, "a", 1, "shop", lines.collect())]).unwrap();
    seal(&engine);
    // Without the lines themselves, only the counts are left to answer from.
    let day = rusqlite::Connection::open(dir.path().join("2023-11-14.db")).unwrap();
    day.execute("DELETE FROM bodies", []).unwrap();
    let count = CountBy { start_ns: T - MINUTE, end_ns: T + 10 * MINUTE, step_ns: 2 * MINUTE, by_severity: true, deadline: None };
    let counts = engine.count_by(&Query::default(), &count).unwrap();
    let shown: Vec<_> =
        counts.counts.iter().map(|count| ((count.ts_ns - T) / MINUTE, count.severity.unwrap().as_str(), count.lines)).collect();
    assert_eq!(shown, [(0, "info", 80), (0, "error", 40), (2, "info", 80), (2, "error", 40), (4, "info", 40), (4, "error", 20)]);
    assert_eq!(counts.stats.lost_blocks, 0);
    assert_eq!(
        serde_json::to_value(counts.counts[0]).unwrap(),
        serde_json::json!({"ts_ns": T.to_string(), "severity": "info", "lines": 80})
    );
    let errors =
        engine.count_by(&Query::parse(r#"{app="shop"} | level="error""#).unwrap(), &CountBy { by_severity: false, ..count }).unwrap();
    assert_eq!(errors.counts.iter().map(|count| count.lines).sum::<u64>(), 100);
}

#[test]
fn context_is_in_the_order_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    // The third line has an older time than the second; the other file is not a part of it.
    let times = [1, 3, 2, 4, 5, 6];
    let lines = times.iter().zip(1u64..).map(|(ts, at)| line(T + ts * NS, at * 10, Severity::Info, &format!("line {at}"))).collect();
    engine.append(vec![append("", 0, "a", 1, "shop", lines)]).unwrap();
    store(&engine, 2, "shop", &["other", "other", "other"]);
    for sealed in [false, true] {
        if sealed {
            seal(&engine);
        }
        let at = |text: &str| find(&engine, &format!("\"{text}\"")).entries[0].id;
        let around =
            |id, before, after| -> Vec<String> { engine.context(id, before, after).unwrap().into_iter().map(|entry| entry.text).collect() };
        assert_eq!(around(at("line 4"), 2, 1), ["line 2", "line 3", "line 4", "line 5"]);
        assert_eq!(around(at("line 1"), 5, 0), ["line 1"]);
        assert_eq!(around(at("line 6"), 0, 9), ["line 6"]);
        assert!(around(crate::EntryId { index: 77, ..at("line 1") }, 3, 3).is_empty());
    }
}

#[test]
fn streams_and_labels_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    store(&engine, 1, "shop", &["x"]);
    seal(&engine);
    store(&engine, 2, "admin", &["y"]);
    let later = vec![line(T + 3 * DAY, 1, Severity::Info, "z")];
    engine.append(vec![append("", 0, "a", 3, "later", later)]).unwrap();
    assert_eq!(engine.labels(T, T + DAY).unwrap(), ["app", "env"]);
    assert_eq!(engine.label_values("app", T, T + DAY).unwrap(), ["admin", "shop"]);
    assert_eq!(engine.label_values("app", T, T + 4 * DAY).unwrap(), ["admin", "later", "shop"]);
    assert_eq!(engine.label_values("none", T, T + DAY).unwrap(), Vec::<String>::new());
    let query = Query::parse(r#"{app=~"s.*|l.*"}"#).unwrap();
    assert_eq!(engine.streams(&query, T, T + 4 * DAY).unwrap(), [Arc::new(labels("later")), Arc::new(labels("shop"))]);
    let stats = engine.stats().unwrap();
    assert_eq!((stats.lines, stats.head_lines, stats.blocks, stats.days, stats.streams_total), (3, 2, 1, 2, 3));
    assert!(stats.stored_bytes > 0 && stats.streams.iter().all(|stream| (stream.lines, stream.raw_bytes) == (1, 17)), "{stats:?}");
}

#[test]
fn retention_deletes_whole_days() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    let at = |day: i64, file| append("", 0, "a", file, "shop", vec![line(T + day * DAY, 10, Severity::Info, &format!("day {day}"))]);
    engine.append((0..4).map(|day| at(day, 1 + day as u128)).collect()).unwrap();
    seal(&engine);
    engine.append(vec![at(0, 9), at(3, 10)]).unwrap();
    let now_ms = (T + 3 * DAY) / 1_000_000 + 5;
    let done = engine.retain(now_ms, 1).unwrap();
    assert_eq!((done.days, done.head_lines), (vec!["2023-11-14".to_owned(), "2023-11-15".to_owned()], 1));
    assert!(done.bytes > 0);
    assert_eq!(texts(&find(&engine, "")), ["day 2", "day 3", "day 3"]);
    assert!(!dir.path().join("2023-11-14.db").try_exists().unwrap());
    drop(engine);
    // The bound of size deletes the oldest day, but never today.
    let (engine, report) = Engine::open(dir.path(), Config { max_bytes: 1, ..config() }).unwrap();
    assert_eq!((report.days, report.head_lines), (2, 1));
    assert_eq!(engine.retain(now_ms, 30).unwrap().days, ["2023-11-16"]);
    assert_eq!(texts(&find(&engine, "")), ["day 3", "day 3"]);
}

#[test]
fn senders_not_heard_of_for_long_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    let send = || engine.append(vec![append("lane", 1, "a", 1, "shop", vec![line(T + 400 * DAY, 10, Severity::Info, "x")])]).unwrap()[0];
    assert_eq!(send().lines, 1);
    let now_ms = T / 1_000_000;
    let days = |days: i64| now_ms + days * 86_400_000;
    assert_eq!(engine.retain(now_ms, 7).unwrap().forgotten, 0);
    assert_eq!(engine.retain(days(89), 7).unwrap().forgotten, 0);
    assert!(send().duplicate);
    assert_eq!(engine.retain(days(91), 7).unwrap().forgotten, 2);
    assert_eq!(send().lines, 1);
}

#[test]
fn a_full_store_refuses_whole_calls_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Config { block_bytes: 1 << 20, head_max_bytes: 400 << 10, ..config() };
    let (engine, _) = Engine::open(dir.path(), limits).unwrap();
    let noise = |seed: u64| -> String {
        let mut x = seed;
        (0..4000)
            .map(|_| {
                x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                char::from(b'!' + (x >> 58) as u8)
            })
            .collect()
    };
    let batch = |seq: u64| append("lane", seq, "a", 1, "shop", vec![line(T, seq * 10, Severity::Info, &noise(seq))]);
    let call = |seq: u64| engine.append(vec![batch(seq * 2), batch(seq * 2 + 1)]);
    let (refused, error) = (1..500).find_map(|seq| call(seq).err().map(|error| (seq, error))).expect("the bound is reached");
    assert!(matches!(error, Error::Full { .. }), "{error}");
    let stored = (refused - 1) * 2;
    assert_eq!(find(&engine, "").entries.len() as u64, stored);
    assert!(matches!(call(refused), Err(Error::Full { .. })));
    assert_eq!(seal(&engine).lines, stored);
    assert_eq!(call(refused).unwrap().iter().map(|outcome| outcome.lines).sum::<u64>(), 2);
    assert!(call(refused).unwrap().iter().all(|outcome| outcome.duplicate));
    assert_eq!(find(&engine, "").entries.len() as u64, stored + 2);
}

#[test]
fn large_streams_are_sealed_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = Engine::open(dir.path(), Config { seal_after: Duration::from_secs(3600), ..config() }).unwrap();
    let many: Vec<String> = (0..800).map(|at| format!("line {at:04} with some words to fill the block")).collect();
    store(&engine, 1, "shop", &many.iter().map(String::as_str).collect::<Vec<_>>());
    store(&engine, 2, "quiet", &["one"]);
    let stats = engine.stats().unwrap();
    assert!(stats.blocks > 1 && stats.head_lines == 1, "{stats:?}");
    // By age: not before the hour is over, and a clock that goes back starts the hour anew.
    for (now_ms, streams) in [(0, 0), (3_599_999, 0), (-5, 0), (3_599_994, 0), (3_599_995, 1)] {
        assert_eq!(engine.seal(now_ms).unwrap().streams, streams, "at {now_ms}");
    }
    assert_eq!(pages(&engine, &Query::default(), all(500)).len(), 801);
}

#[test]
fn a_row_that_is_sealed_under_a_query_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    store(&engine, 1, "shop", &["one", "two"]);
    store(&engine, 2, "admin", &["three"]);
    let plan = crate::query::plan::Plan::new(&Query::default(), T, T + DAY);
    let mut stats = crate::QueryStats::default();
    let mut snapshot = snapshot::Snapshot::take(&engine.shared).unwrap();
    seal(&engine);
    store(&engine, 3, "shop", &["after the snapshot"]);
    let (day, found) = snapshot.day(Day::of(T), &plan, &mut stats).unwrap();
    let places: Vec<_> = found.iter().map(|candidate| (matches!(candidate.place, snapshot::Place::Block(_)), candidate.n)).collect();
    assert_eq!(places.iter().filter(|(block, _)| *block).map(|(_, n)| n).sum::<u64>(), 3);
    assert!(places.iter().all(|(block, _)| *block), "the head's rows are covered by the marks: {places:?}");
    assert!(found.iter().all(|candidate| day.columns(candidate, &mut stats).is_some()));
}

#[test]
fn a_query_sees_each_line_once_while_it_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1..=40u64 {
                let lines = (0..20).map(|at| line(T + (round * 20 + at) as i64 % 97, round * 20 + at, Severity::Info, "x")).collect();
                engine.append(vec![append("", 0, "a", 1, "shop", lines)]).unwrap();
                engine.seal(1).unwrap();
            }
        });
        let mut before = 0;
        while before < 800 {
            let over = writer.is_finished();
            let ids: std::collections::HashSet<_> = find(&engine, "").entries.iter().map(|entry| entry.id).collect();
            let count = engine.search(&Query::default(), &all(5000)).unwrap().entries.len();
            assert!(ids.len() % 20 == 0 && ids.len() >= before && count >= ids.len(), "{before} {} {count}", ids.len());
            before = ids.len();
            assert!(!over || before == 800, "{before} at the end");
        }
    });
}

#[test]
fn committed_lines_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    store(&engine, 1, "shop", &["before"]);
    let followed = engine.subscribe(Query::parse(r#"{app="shop"} |= "b""#).unwrap()).unwrap();
    store(&engine, 2, "shop", &["a", "b 1", "b 2"]);
    store(&engine, 3, "admin", &["b of another"]);
    let next = || followed.recv_timeout(Duration::from_secs(10)).unwrap();
    let stored: Vec<_> = find(&engine, r#"{app="shop"} |= "b " "#).entries.into_iter().map(TailEvent::Entry).collect();
    assert_eq!([next(), next()].as_slice(), stored.as_slice());
    drop(engine);
    assert_eq!(followed.recv(), None);
}

#[test]
fn many_callers_are_committed_together() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    std::thread::scope(|scope| {
        for lane in 0..8u64 {
            let engine = &engine;
            scope.spawn(move || {
                for seq in 1..=10 {
                    let lines = vec![line(T, seq * 10, Severity::Info, &format!("{lane}/{seq}"))];
                    let sent = append(&format!("lane-{lane}"), seq, "a", 1 + u128::from(lane), "shop", lines);
                    assert_eq!(engine.append(vec![sent.clone()]).unwrap()[0].lines, 1);
                    assert!(engine.append(vec![sent]).unwrap()[0].duplicate);
                }
            });
        }
    });
    assert_eq!(find(&engine, "").entries.len(), 80);
}

#[test]
fn volumes_are_told_by_label() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    store(&engine, 1, "shop", &["one", "two"]);
    seal(&engine);
    store(&engine, 2, "admin", &["three"]);
    let told = |by: &[&str], query: &str| {
        let by: Vec<String> = by.iter().map(|name| (*name).to_owned()).collect();
        let found = engine.volumes(&by, &Query::parse(query).unwrap(), T, T + DAY).unwrap();
        assert_eq!(found.left_out, 0);
        found.volumes.iter().map(|volume| (volume.labels.to_string(), volume.streams, volume.lines, volume.raw_bytes)).collect::<Vec<_>>()
    };
    let (shop, admin) = (r#"{app="shop"}"#.to_owned(), r#"{app="admin"}"#.to_owned());
    assert_eq!(told(&["app"], ""), [(shop, 1, 2, 38), (admin.clone(), 1, 1, 21)]);
    assert_eq!(told(&["env", "host"], ""), [(r#"{env="prod"}"#.to_owned(), 2, 3, 59)]);
    assert_eq!(told(&["app"], r#"{app="admin"}"#), [(admin, 1, 1, 21)]);
    let stored = |query: &str| engine.volumes(&[], &Query::parse(query).unwrap(), T, T + DAY).unwrap().volumes[0].stored_bytes;
    assert!(stored(r#"{app="shop"}"#) > 0);
    assert_eq!(stored(r#"{app="admin"}"#), 0);
    assert!(engine.volumes(&[], &Query::parse("word").unwrap(), T, T + DAY).is_err());
}
