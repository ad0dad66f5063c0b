//! Lines that go: by rules of retention, and by being erased.

use super::*;
use crate::{Age, Erase, EraseBy, Retention};

/// A rule: selector, days (`None` for ever), bytes.
fn rule(selector: &str, days: Option<u64>, max_bytes: u64) -> Retention {
    Retention { selector: selector.to_owned(), max_age: Age(days.map(|days| Duration::from_secs(days * 86_400))), max_bytes }
}

fn with_rules(dir: &TempDir, retention: Vec<Retention>) -> Engine {
    Engine::open(dir.path(), Config { retention, block_bytes: 1 << 20, ..config() }).unwrap().0
}

/// Words that do not compress away.
fn words(seed: u64) -> String {
    (0..20u64).map(|at| format!("w{:x} ", (seed * 31 + at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

/// Lines of one app, an hour apart.
fn fill(engine: &Engine, app: &str, file: u128, day: i64, hours: std::ops::Range<i64>) {
    let lines = hours
        .map(|hour| {
            let at = day * 24 + hour;
            line(
                T + at * 60 * MINUTE,
                at as u64 + 1,
                Severity::Info,
                &format!("{app} day {day} hour {hour} {}", words(at as u64 + file as u64 * 1000)),
            )
        })
        .collect();
    engine.append(vec![append("", 0, "a", file, app, lines)]).unwrap();
}

fn ms(ns: i64) -> i64 {
    ns / 1_000_000
}

fn lines_of(engine: &Engine, app: &str) -> Vec<i64> {
    find(engine, &format!("{{app={app:?}}}")).entries.iter().map(|entry| (entry.ts_ns() - T) / (60 * MINUTE)).collect()
}

#[test]
fn each_stream_is_kept_as_its_rule_says() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_rules(&dir, vec![rule(r#"{app="audit"}"#, None, 0), rule(r#"{app="nginx"}"#, Some(2), 0)]);
    for day in 0..6 {
        for (app, file) in [("audit", 1), ("nginx", 2), ("shop", 3)] {
            // One block for each half of the day.
            fill(&engine, app, file, day, 0..12);
            seal(&engine);
            fill(&engine, app, file, day, 12..24);
            seal(&engine);
        }
    }
    fill(&engine, "nginx", 2, 0, 24..24);
    let before: u64 = engine.stats().unwrap().stored_bytes;
    // Noon of day 5; the others keep four days.
    let done = engine.retain(ms(T + 5 * DAY + DAY / 2), 4).unwrap();
    assert_eq!(done.days, Vec::<String>::new());
    assert_eq!((done.blocks, done.lines), (6 + 1 + 2, 72 + 12 + 24));
    assert!(done.bytes > 0 && engine.stats().unwrap().stored_bytes < before);
    let hours = |days: std::ops::Range<i64>| (days.start * 24..days.end * 24).collect::<Vec<_>>();
    assert_eq!(lines_of(&engine, "audit"), hours(0..6));
    assert_eq!(lines_of(&engine, "shop"), hours(1..6));
    assert_eq!(lines_of(&engine, "nginx"), (3 * 24 + 12..6 * 24).collect::<Vec<_>>());
    let stats = engine.stats().unwrap();
    assert_eq!((stats.lines, stats.expired_lines, stats.expired_blocks), (6 * 24 * 3 - 108, 108, 9));
    // Nothing more to do; and what is sent again is still known.
    assert_eq!(engine.retain(ms(T + 5 * DAY + DAY / 2), 4).unwrap().lines, 0);
    fill(&engine, "shop", 3, 0, 0..24);
    assert_eq!(lines_of(&engine, "shop"), hours(1..6));
    // A stream without lines is no stream of its day.
    assert_eq!(engine.streams(&Query::default(), T, T + 1).unwrap().len(), 1);
    drop(engine);
    let (engine, report) = open(&dir);
    assert!(report.damaged.is_empty());
    assert_eq!(lines_of(&engine, "shop"), hours(1..6));
}

#[test]
fn a_day_goes_as_a_file_when_nothing_in_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_rules(&dir, vec![rule(r#"{app="nginx"}"#, Some(1), 0)]);
    fill(&engine, "nginx", 1, 0, 0..24);
    fill(&engine, "nginx", 1, 3, 0..24);
    seal(&engine);
    fill(&engine, "nginx", 2, 0, 0..5);
    let done = engine.retain(ms(T + 3 * DAY), 90).unwrap();
    assert_eq!((done.days.len(), done.lines, done.head_lines), (1, 24, 5));
    assert!(!dir.path().join("2023-11-14.db").try_exists().unwrap());
    assert_eq!(lines_of(&engine, "nginx").len(), 24);
    assert_eq!(seal(&engine), Sealed::default());
}

#[test]
fn a_rules_size_is_over_all_its_streams_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_rules(&dir, vec![rule(r#"{app=~"nginx|shop"}"#, None, 12_000)]);
    for day in 0..3 {
        for (app, file) in [("nginx", 1), ("shop", 2), ("audit", 3)] {
            for part in 0..4 {
                fill(&engine, app, file, day, part * 6..part * 6 + 6);
                seal(&engine);
            }
        }
    }
    let done = engine.retain(ms(T + 3 * DAY), 90).unwrap();
    assert!(done.blocks > 0 && done.days.is_empty(), "{done:?}");
    let (nginx, shop) = (lines_of(&engine, "nginx"), lines_of(&engine, "shop"));
    assert_eq!(lines_of(&engine, "audit").len(), 72);
    assert!(nginx.len() + shop.len() < 144 && nginx.len() > 6, "{nginx:?} {shop:?}");
    assert!(nginx.contains(&71) && shop.contains(&71) && nginx[0].abs_diff(shop[0]) <= 6, "{nginx:?} {shop:?}");
    assert_eq!(engine.retain(ms(T + 3 * DAY), 90).unwrap().blocks, 0);
}

fn pseudonym(text: &str) -> Erase {
    Erase { by: EraseBy::Pseudonym(text.to_owned()), start_ns: T - DAY, end_ns: T + 30 * DAY }
}

/// Whether these bytes are in a file of the store.
fn on_disk(dir: &TempDir, bytes: &[u8]) -> bool {
    fs::read_dir(dir.path()).unwrap().any(|entry| {
        let content = fs::read(entry.unwrap().path()).unwrap();
        content.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[test]
fn what_is_erased_is_gone_from_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    // Short lines are stored as they are, so that the bytes of the text can be looked for.
    store(&engine, 1, "shop", &["one", "call phone:k1:9f3c77aa now", "three"]);
    store(&engine, 2, "admin", &["mail phone:k1:9f3c77aa"]);
    seal(&engine);
    store(&engine, 3, "shop", &["later phone:k1:9f3c77aa", "four", "phone:k1:9f3c77ab"]);
    assert!(on_disk(&dir, b"phone:k1:9f3c77a") || on_disk(&dir, b"9f3c77aa"));
    let job = pseudonym("phone:k1:9f3c77aa");
    let counts = engine.plan_erase(&job).unwrap();
    assert_eq!((counts.lines, counts.blocks, counts.head_rows, counts.streams), (3, 2, 1, 2));
    assert_eq!(find(&engine, "").entries.len(), 7, "a plan erases nothing");

    let erased = engine.erase(&job).unwrap();
    assert_eq!((erased.counts.lines, &erased.counts.days), (3, &vec!["2023-11-14".to_owned()]));
    assert!(erased.proof.is_clean() && erased.proof.blocks_searched >= 2 && erased.proof.bytes_searched > 0, "{erased:?}");
    assert_eq!(erased.proof.journal_bytes, 0, "{erased:?}");
    assert!(!on_disk(&dir, b"9f3c77aa"));
    assert!(!format!("{erased:?}").contains("9f3c"));
    let mut left = texts(&find(&engine, "")).into_iter().map(str::to_owned).collect::<Vec<_>>();
    left.sort();
    assert_eq!(left, ["four", "one", "phone:k1:9f3c77ab", "three"]);
    let stats = engine.stats().unwrap();
    assert_eq!((stats.lines, stats.erased_lines, engine.unfinished_erasures().unwrap()), (4, 3, 0));
    // What is sent again is known and stays away.
    store(&engine, 1, "shop", &["one", "call phone:k1:9f3c77aa now", "three"]);
    assert_eq!(find(&engine, "").entries.len(), 4);
    let count = CountBy { start_ns: T, end_ns: T + DAY, step_ns: MINUTE, by_severity: false, deadline: None };
    assert_eq!(engine.count_by(&Query::default(), &count).unwrap().counts[0].lines, 4);
}

#[test]
fn old_bytes_of_a_block_are_not_left_in_free_pages() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    fill(&engine, "shop", 1, 0, 0..24);
    fill(&engine, "audit", 2, 0, 0..24);
    seal(&engine);
    let day = rusqlite::Connection::open(dir.path().join("2023-11-14.db")).unwrap();
    let bodies: Vec<Vec<u8>> = {
        let sql = "SELECT body FROM bodies JOIN blocks ON blocks.id = block JOIN streams ON streams.id = stream WHERE labels LIKE '%shop%'";
        let mut statement = day.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(|row| row.unwrap()).collect()
    };
    drop(day);
    let samples: Vec<&[u8]> = bodies.iter().flat_map(|body| [&body[20..60], &body[body.len() - 40..]]).collect();
    let by = EraseBy::Query(r#"{app="shop"}"#.to_owned());
    let erased = engine.erase(&Erase { by, start_ns: T, end_ns: T + DAY }).unwrap();
    assert_eq!((erased.counts.lines, erased.proof.free_pages), (24, 0));
    assert!(!samples.is_empty() && samples.iter().all(|sample| !on_disk(&dir, sample)));
    assert!(lines_of(&engine, "shop").is_empty());
    assert_eq!(lines_of(&engine, "audit").len(), 24);
}

#[test]
fn too_much_is_not_erased_by_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    store(&engine, 1, "shop", &["one"]);
    for (by, words) in [
        (EraseBy::Query(String::new()), "selects every line"),
        (EraseBy::Query("{".to_owned()), "query"),
        (EraseBy::Pseudonym(" a ".to_owned()), "at least 4 bytes"),
        (EraseBy::Pseudonym("x".repeat(1 << 20)), "longer than"),
    ] {
        let job = Erase { by, start_ns: T, end_ns: T + DAY };
        assert!(engine.erase(&job).unwrap_err().to_string().contains(words), "{words}");
    }
    assert!(engine.erase(&Erase { start_ns: T, end_ns: T, ..pseudonym("abcdef") }).is_err());
    // Outside its range nothing is taken.
    let job = Erase { start_ns: T - DAY, end_ns: T, ..pseudonym("one one") };
    assert_eq!(engine.erase(&job).unwrap().counts.lines, 0);
    assert_eq!(find(&engine, "").entries.len(), 1);
}

#[test]
fn a_job_that_was_cut_off_is_done_after_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    store(&engine, 1, "shop", &["one", "two phone:k1:00ff", "three"]);
    drop(engine);
    rusqlite::Connection::open(dir.path().join("head.db"))
        .unwrap()
        .execute("INSERT INTO erasures (kind, text, start_ns, end_ns) VALUES ('pseudonym', 'phone:k1:00ff', 0, ?1)", [i64::MAX])
        .unwrap();
    let (engine, _) = open(&dir);
    assert_eq!(engine.unfinished_erasures().unwrap(), 1);
    let done = engine.resume_erasures().unwrap();
    assert_eq!((done.len(), done[0].proof.is_clean(), engine.unfinished_erasures().unwrap()), (1, true, 0));
    assert_eq!(texts(&find(&engine, "")), ["one", "three"]);
    assert!(!on_disk(&dir, b"phone:k1:00ff"));
}
