//! The store against a model, against crashes, damage and a full disk. A kill is a copy of the directory at that moment.

mod checkpoint;
mod churn;
mod crash;
mod inspect;
mod matchers;
mod policy;
mod tiers;

use super::*;
use crate::{
    matcher::{MatchOp, Matcher},
    source::{SelectLimits, Source as _},
};
use proptest::prelude::*;

const HOUR: i64 = 3_600_000;
/// 2026-11-23T00:00:00Z, the border of a day.
const DAY0: i64 = 20_780 * DAY_MS;

fn labels(name: &str, value: &str) -> Arc<Labels> {
    Arc::new(Labels::new([("__name__", name), ("host", value)]).unwrap())
}

fn sample(host: &str, ts_ms: i64, value: f64) -> Sample {
    Sample { labels: labels("load", host), ts_ms, value }
}

fn batch(source: &str, seq: u64, samples: Vec<Sample>) -> Append {
    Append { source: source.to_owned(), seq, samples: samples.into() }
}

fn open(dir: &Path) -> (Engine, OpenReport) {
    Engine::open(dir, Config::default()).unwrap()
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

type Samples = BTreeMap<(String, i64), u64>;

fn read(engine: &Engine, t0: i64, t1: i64) -> Samples {
    let mut found = BTreeMap::new();
    for series in engine.select(&[Matcher::equal("__name__", "load")], t0, t1, &SelectLimits::none()).unwrap() {
        let host = series.labels.get("host").unwrap();
        assert!(series.ts.windows(2).all(|pair| pair[0] < pair[1]), "times of {host} must grow");
        for (ts, value) in series.ts.iter().zip(&series.values) {
            found.insert((host.to_owned(), *ts), value.to_bits());
        }
    }
    found
}

fn all(engine: &Engine) -> Samples {
    read(engine, i64::MIN, i64::MAX)
}

fn count_rows(path: &Path, table: &str) -> i64 {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// One sample a minute of one host.
fn minutes(host: &str, from: i64, count: i64) -> Vec<Sample> {
    (0..count).map(|at| sample(host, from + at * 60_000, at as f64 * 0.5)).collect()
}

fn model_of(samples: &[Sample]) -> Samples {
    samples.iter().map(|s| ((s.labels.get("host").unwrap().to_owned(), s.ts_ms), s.value.to_bits())).collect()
}

#[test]
fn a_batch_is_applied_once_whatever_happens() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, report) = open(dir.path());
    assert!(report.is_clean());
    let first = batch("agent-1", 7, vec![sample("a", DAY0, 1.0), sample("b", DAY0, 2.0)]);
    let stored = |samples| Outcome::Stored { samples, refused: 0 };
    // Twice in one call, and again later.
    assert_eq!(engine.append_at(DAY0, vec![first.clone(), first.clone()]).unwrap(), [stored(2), Outcome::Duplicate]);
    assert_eq!(engine.append_at(DAY0, vec![first.clone()]).unwrap(), [Outcome::Duplicate]);
    let older = batch("agent-1", 6, vec![sample("a", DAY0 + 1, 9.0)]);
    assert_eq!(engine.append_at(DAY0, vec![older]).unwrap(), [Outcome::Duplicate]);
    // Another source has its own sequence; no source has none; an empty batch moves the mark.
    let rest = vec![batch("agent-2", 7, vec![]), batch("", 0, vec![sample("a", DAY0 + 5, 3.0)]), batch("", 0, vec![])];
    assert_eq!(engine.append_at(DAY0, rest).unwrap(), [stored(0), stored(1), stored(0)]);
    assert_eq!((engine.mark("agent-1"), engine.mark("agent-2"), engine.mark("agent-3")), (Some(7), Some(7), None));
    let before = all(&engine);
    assert_eq!(before.len(), 3);
    // A kill now: everything acknowledged is there, and nothing is applied again.
    let killed = copy(dir.path());
    let (engine, report) = open(killed.path());
    assert_eq!((report.samples, report.series, report.is_clean()), (3, 2, true));
    assert_eq!(all(&engine), before);
    assert_eq!(engine.append_at(DAY0, vec![first]).unwrap(), [Outcome::Duplicate]);
    assert_eq!(engine.mark("agent-2"), Some(7));
    assert_eq!(engine.stats().duplicate_batches_total, 1);
}

#[test]
fn what_cannot_be_kept_is_refused_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { max_head_series: 2, ..Config::default() };
    let (engine, _) = Engine::open(dir.path(), config).unwrap();
    let samples = vec![
        sample("a", DAY0, 1.0),
        sample("old", DAY0 - 31 * DAY_MS, 1.0),
        sample("ahead", DAY0 + 2 * HOUR, 1.0),
        Sample { labels: Arc::default(), ts_ms: DAY0, value: 1.0 },
        sample("b", DAY0, 1.0),
        sample("c", DAY0, 1.0),
        sample("a", DAY0 + 1, 1.0),
    ];
    let outcome = engine.append_at(DAY0, vec![batch("x", 1, samples)]).unwrap();
    assert_eq!(outcome, [Outcome::Stored { samples: 3, refused: 4 }]);
    let stats = engine.stats();
    assert_eq!(
        (
            stats.samples_total,
            stats.refused_too_old_total,
            stats.refused_too_far_ahead_total,
            stats.refused_without_labels_total,
            stats.refused_too_many_series_total
        ),
        (3, 1, 1, 1, 1)
    );
}

#[test]
fn sealing_moves_whole_windows_and_frees_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    // 22:00 to 04:00 over midnight; one frame holds all of it.
    let samples = minutes("a", DAY0 - 2 * HOUR, 360);
    engine.append_at(DAY0 + 4 * HOUR, vec![batch("x", 1, samples.clone()), batch("x", 2, minutes("gone", DAY0 - HOUR, 5))]).unwrap();
    let model = all(&engine);
    assert_eq!(engine.seal(DAY0 + HOUR / 2).unwrap(), SealReport::default());
    // 03:30: windows that ended by 02:30 go: up to 02:00.
    let report = engine.seal(DAY0 + 3 * HOUR + HOUR / 2).unwrap();
    assert_eq!((report.day_files, report.chunks, report.samples, report.damaged_chunks), (2, 3, 245, 0));
    assert_eq!(all(&engine), model);
    assert_eq!(engine.stats().head_series, 1, "the series that ended has left the head");
    assert_eq!(engine.seal(DAY0 + 3 * HOUR + HOUR / 2).unwrap(), SealReport::default());
    // The frame is partly sealed: the sealed part is not replayed.
    let killed = copy(dir.path());
    let (reopened, report) = open(killed.path());
    assert_eq!((report.frames, report.samples, report.day_files), (1, 120, 2));
    assert_eq!(all(&reopened), model);
    for (t0, t1) in [(DAY0 - 1, DAY0 + 1), (DAY0 + 2 * HOUR, DAY0 + 2 * HOUR), (0, 1), (5, 4)] {
        let expected: Samples = model.iter().filter(|((_, ts), _)| (t0..=t1).contains(ts)).map(|(k, v)| (k.clone(), *v)).collect();
        assert_eq!(read(&reopened, t0, t1), expected);
    }
    // All of it sealed: no frame and no series is left.
    engine.seal(DAY0 + 6 * HOUR).unwrap();
    assert_eq!(all(&engine), model);
    assert_eq!(engine.stats().head_series, 0);
    drop(engine);
    let head = dir.path().join("head.db");
    assert_eq!((count_rows(&head, "frames"), count_rows(&head, "series"), count_rows(&head, "marks")), (0, 0, 1));
}

#[test]
fn a_crash_between_day_file_and_head_neither_loses_nor_doubles() {
    let dir = tempfile::tempdir().unwrap();
    let hooks = Hooks { stop_before_cleanup: AtomicBool::new(true), ..Hooks::default() };
    let (engine, _) = Engine::open_with(dir.path().to_owned(), Config::default(), hooks).unwrap();
    engine.append_at(DAY0 + 4 * HOUR, vec![batch("x", 1, minutes("a", DAY0, 240))]).unwrap();
    let model = all(&engine);
    assert!(engine.seal(DAY0 + 5 * HOUR).is_err());
    assert_eq!(all(&engine), model, "the generation stays readable");
    let killed = copy(dir.path());
    let (reopened, report) = open(killed.path());
    assert_eq!((report.samples, report.day_files), (240, 1), "frames are still there, and so is the day file");
    assert_eq!(all(&reopened), model);
    let again = reopened.seal(DAY0 + 5 * HOUR).unwrap();
    assert_eq!(again.samples, 240, "the same chunks with the same samples");
    assert_eq!(all(&reopened), model);
    // The engine that failed goes on as well: its next seal takes the old generation and what came since along.
    let rewritten = vec![sample("a", DAY0, 77.0), sample("a", DAY0 + 1, 78.0)];
    engine.append_at(DAY0 + 4 * HOUR, vec![batch("x", 2, rewritten)]).unwrap();
    engine.hooks.stop_before_cleanup.store(false, Relaxed);
    engine.seal(DAY0 + 5 * HOUR).unwrap();
    let after = all(&engine);
    assert_eq!((after.len(), after[&("a".to_owned(), DAY0)]), (241, 77f64.to_bits()));
    drop(engine);
    assert_eq!(all(&open(dir.path()).0), after);
}

#[test]
fn an_old_value_never_wins_over_a_newer_one_that_was_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    // Frame 1 crosses the cutoff and stays; frame 2 corrects a sample of it and is sealed away.
    engine.append_at(DAY0 + 4 * HOUR, vec![batch("x", 1, vec![sample("a", DAY0, 1.0), sample("a", DAY0 + 3 * HOUR, 2.0)])]).unwrap();
    engine.append_at(DAY0 + 4 * HOUR, vec![batch("x", 2, vec![sample("a", DAY0, 9.0)])]).unwrap();
    engine.seal(DAY0 + 3 * HOUR).unwrap();
    drop(engine);
    let head = dir.path().join("head.db");
    assert_eq!(count_rows(&head, "frames"), 1);
    let (engine, report) = open(dir.path());
    assert_eq!(report.samples, 1);
    assert_eq!(all(&engine)[&("a".to_owned(), DAY0)], 9f64.to_bits());
}

#[test]
fn a_backfill_of_sealed_hours_is_readable_and_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    engine.append_at(DAY0 + 12 * HOUR, vec![batch("x", 1, minutes("a", DAY0, 600))]).unwrap();
    engine.seal(DAY0 + 12 * HOUR).unwrap();
    // Another host was cut off for ten hours; host a sends half-minutes that were missing, and corrects one value.
    let mut late = minutes("b", DAY0 - HOUR, 600);
    late.extend((0..100).map(|at| sample("a", DAY0 + at * 60_000 + 30_000, 5.0)));
    late.push(sample("a", DAY0 + 60_000, 99.0));
    late.push(sample("a", DAY0 + 120_000, 1.0));
    engine.append_at(DAY0 + 12 * HOUR, vec![batch("x", 2, late.clone())]).unwrap();
    let mut model = model_of(&minutes("a", DAY0, 600));
    model.extend(model_of(&late));
    assert_eq!(all(&engine), model, "head over day");
    engine.seal(DAY0 + 12 * HOUR).unwrap();
    assert_eq!((all(&engine), engine.stats().head_series, engine.stats().day_files), (model.clone(), 0, 2));
    drop(engine);
    assert_eq!(all(&open(dir.path()).0), model);
}

#[test]
fn retention_unlinks_whole_days() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = Engine::open(dir.path(), Config { retention_days: 3, ..Config::default() }).unwrap();
    for day in 0..3 {
        engine.append_at(DAY0 + 3 * DAY_MS, vec![batch("", 0, minutes("a", DAY0 + day * DAY_MS, 3))]).unwrap();
    }
    engine.seal(DAY0 + 4 * DAY_MS).unwrap();
    fs::write(dir.path().join("2026-11-22.db.corrupt-1"), [0; 100]).unwrap();
    assert_eq!(all(&engine).len(), 9);
    let now = DAY0 + 4 * DAY_MS;
    let size = fs::metadata(dir.path().join("2026-11-23.db")).unwrap().len();
    let report = engine.retain(now).unwrap();
    assert_eq!(report.files, ["2026-11-22.db.corrupt-1", "2026-11-23.db"]);
    assert!(report.bytes >= size + 100, "{report:?}");
    assert_eq!((all(&engine).len(), engine.stats().day_files), (6, 2));
    assert_eq!(engine.retain(now).unwrap(), RetainReport::default());
    // The day can come again.
    engine.append_at(now - DAY_MS, vec![batch("", 0, minutes("a", DAY0, 2))]).unwrap();
    engine.seal(now).unwrap();
    assert_eq!((all(&engine).len(), engine.stats().day_files), (8, 3));
}

/// A value that cannot be compressed.
fn noise(seed: u64) -> f64 {
    let mixed = (seed ^ (seed >> 30)).wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    f64::from_bits((mixed ^ (mixed >> 31)) >> 2)
}

#[test]
fn a_full_disk_stops_appends_as_a_whole_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let hooks = Hooks { head_max_pages: Some(40), ..Hooks::default() };
    let (engine, _) = Engine::open_with(dir.path().to_owned(), Config::default(), hooks).unwrap();
    let random =
        |seq: u64| batch("x", seq, (0..1_000).map(|at| sample("a", DAY0 + (seq * 1_000 + at) as i64, noise(seq * 7_919 + at))).collect());
    let mut seq = 0;
    let error = loop {
        seq += 1;
        if let Err(error) = engine.append_at(DAY0, vec![random(seq)]) {
            break error;
        }
        assert!(seq < 1_000, "the limit was never met");
    };
    assert!(matches!(error, Error::Full { .. }), "{error}");
    // A batch that came with the failed one in a call is not applied either.
    assert!(engine.append_at(DAY0, vec![batch("y", 1, vec![]), random(seq)]).is_err());
    assert_eq!((engine.mark("x"), engine.mark("y")), (Some(seq - 1), None));
    assert_eq!(all(&engine).len() as u64, (seq - 1) * 1_000);
    // Sealing gives room again, and the same batch goes in.
    engine.seal(DAY0 + DAY_MS).unwrap();
    assert_eq!(engine.append_at(DAY0, vec![random(seq)]).unwrap(), [Outcome::Stored { samples: 1_000, refused: 0 }]);
    assert_eq!(all(&engine).len() as u64, seq * 1_000);
}

#[test]
fn a_full_disk_stops_a_seal_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let hooks = Hooks { day_max_pages: Some(8), ..Hooks::default() };
    let (engine, _) = Engine::open_with(dir.path().to_owned(), Config::default(), hooks).unwrap();
    let samples: Vec<Sample> = (0..20_000).map(|at| sample("a", DAY0 + at * 100, noise(at as u64))).collect();
    engine.append_at(DAY0, vec![batch("x", 1, samples)]).unwrap();
    let model = all(&engine);
    assert!(matches!(engine.seal(DAY0 + DAY_MS), Err(Error::Full { .. })));
    assert_eq!(all(&engine), model);
    let killed = copy(dir.path());
    let (reopened, report) = open(killed.path());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(all(&reopened), model);
    reopened.seal(DAY0 + DAY_MS).unwrap();
    assert_eq!((all(&reopened), reopened.stats().head_series), (model, 0));
}

#[test]
fn damaged_frames_and_labels_are_put_aside_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    for seq in 1..=3 {
        engine
            .append_at(DAY0, vec![batch("x", seq, vec![sample("a", DAY0 + seq as i64, 1.0), sample("b", DAY0 + seq as i64, 2.0)])])
            .unwrap();
    }
    drop(engine);
    let head = dir.path().join("head.db");
    let connection = rusqlite::Connection::open(&head).unwrap();
    let mut payload: Vec<u8> = connection.query_row("SELECT payload FROM frames WHERE id = 2", [], |row| row.get(0)).unwrap();
    let length = payload.len() as i64;
    payload[length as usize / 2] ^= 1;
    connection.execute("UPDATE frames SET payload = ?1 WHERE id = 2", [payload]).unwrap();
    connection.execute("UPDATE series SET labels = x'0102' WHERE id = 2", []).unwrap();
    drop(connection);
    let (engine, report) = open(dir.path());
    assert_eq!((report.frames, report.samples), (2, 2));
    assert_eq!((report.frames_lost, report.frames_lost_bytes as i64, report.series_lost, report.samples_lost), (1, length, 1, 2));
    assert!(!report.is_clean() && report.moved.is_empty());
    assert_eq!(all(&engine).len(), 2);
    // The series with lost labels can be written again, and the damage is told once.
    engine.append_at(DAY0, vec![batch("x", 4, vec![sample("b", DAY0 + 4, 2.0)])]).unwrap();
    drop(engine);
    assert_eq!(count_rows(&head, "bad_frames"), 2);
    let (engine, report) = open(dir.path());
    assert_eq!((report.frames, report.frames_lost, report.series_lost, all(&engine).len()), (3, 0, 0, 3));
}

#[test]
fn a_damaged_head_is_put_aside_and_a_new_one_begun() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    engine.append_at(DAY0 + 6 * HOUR, vec![batch("x", 1, minutes("a", DAY0, 180))]).unwrap();
    engine.seal(DAY0 + 3 * HOUR).unwrap();
    drop(engine);
    let head = dir.path().join("head.db");
    for (number, damage) in [(1, &b"this is no database at all, but some text that somebody put here"[..]), (2, &[0xff; 5_000][..])] {
        fs::write(&head, damage).unwrap();
        let (engine, report) = open(dir.path());
        let to = dir.path().join(format!("head.db.corrupt-{number}"));
        assert_eq!(report.moved.len(), 1);
        assert_eq!((&report.moved[0].from, &report.moved[0].to, report.moved[0].bytes), (&head, &to, damage.len() as u64));
        assert_eq!(fs::read(&to).unwrap(), damage);
        assert_eq!((all(&engine).len(), engine.mark("x"), engine.stats().damaged_files_total), (120, None, 1), "day files are untouched");
        engine.append_at(DAY0, vec![batch("x", 1, vec![sample("a", DAY0 - 1, 1.0)])]).unwrap();
    }
}

/// Overwrites pages in the middle of a real file.
#[test]
fn damage_in_the_middle_of_the_head_is_found_by_the_replay() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    for seq in 0..20 {
        engine.append_at(DAY0, vec![batch("x", seq + 1, minutes("a", DAY0 + seq as i64, 1_000))]).unwrap();
    }
    drop(engine);
    let head = dir.path().join("head.db");
    let mut bytes = fs::read(&head).unwrap();
    let (from, to) = (bytes.len() / 4 / 4096 * 4096, bytes.len() * 3 / 4 / 4096 * 4096);
    bytes[from..to].fill(0xaa);
    fs::write(&head, bytes).unwrap();
    let (engine, report) = open(dir.path());
    assert!(!report.is_clean(), "{report:?}");
    assert!(report.moved.len() + report.frames_lost as usize > 0);
    engine.append_at(DAY0, vec![batch("", 0, vec![sample("z", DAY0, 1.0)])]).unwrap();
    assert!(all(&engine).contains_key(&("z".to_owned(), DAY0)));
}

#[test]
fn a_damaged_day_is_put_aside_at_the_start_or_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    for day in 0..3 {
        let samples = (0..200).flat_map(|host| minutes(&host.to_string(), DAY0 + day * DAY_MS, 30));
        engine.append_at(DAY0 + 3 * DAY_MS, vec![batch("", 0, samples.collect())]).unwrap();
    }
    engine.seal(DAY0 + 4 * DAY_MS).unwrap();
    drop(engine);
    // Day 0 is cut short; day 1 is damaged once the store is open.
    let (cut, torn) = (dir.path().join("2026-11-23.db"), dir.path().join("2026-11-24.db"));
    let size = fs::metadata(&cut).unwrap().len();
    fs::File::options().write(true).open(&cut).unwrap().set_len(size / 2).unwrap();
    let (engine, report) = open(dir.path());
    assert_eq!((report.day_files, report.moved.len(), report.moved[0].bytes), (2, 1, size / 2));
    assert_eq!(report.moved[0].to, dir.path().join("2026-11-23.db.corrupt-1"));
    assert_eq!(all(&engine).len(), 2 * 200 * 30);
    drop(engine);
    let (engine, report) = open(dir.path());
    assert!(report.is_clean(), "{report:?}");
    // Everything but the first pages, after the start has looked at it.
    let mut bytes = fs::read(&torn).unwrap();
    bytes[3 * 2_048..].fill(0x5a);
    fs::write(&torn, bytes).unwrap();
    assert_eq!(all(&engine).len(), 200 * 30, "the sound day is answered");
    assert!(dir.path().join("2026-11-24.db.corrupt-1").try_exists().unwrap());
    assert_eq!(engine.stats().day_files, 1);
    // A seal into that day begins a new file.
    engine.append_at(DAY0 + 2 * DAY_MS, vec![batch("", 0, minutes("new", DAY0 + DAY_MS, 3))]).unwrap();
    engine.seal(DAY0 + 4 * DAY_MS).unwrap();
    assert_eq!((all(&engine).len(), engine.stats().day_files), (200 * 30 + 3, 2));
}

#[test]
fn a_damaged_group_is_left_out_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    engine.append_at(DAY0, vec![batch("", 0, minutes("a", DAY0, 10)), batch("", 0, minutes("b", DAY0, 10))]).unwrap();
    engine.seal(DAY0 + DAY_MS).unwrap();
    drop(engine);
    let connection = rusqlite::Connection::open(dir.path().join("2026-11-23.db")).unwrap();
    assert_eq!(connection.execute("UPDATE groups SET body = x'01020304050607'", []).unwrap(), 1);
    drop(connection);
    let (engine, _) = open(dir.path());
    assert_eq!((all(&engine).len(), engine.stats().damaged_chunks_total), (0, 1));
    // Samples that come again replace it.
    engine.append_at(DAY0, vec![batch("", 0, minutes("a", DAY0, 10)), batch("", 0, minutes("b", DAY0, 10))]).unwrap();
    assert_eq!(engine.seal(DAY0 + DAY_MS).unwrap().damaged_chunks, 1);
    assert_eq!(all(&engine).len(), 20);
}

#[test]
fn newer_formats_and_a_second_owner_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    engine.append_at(DAY0, vec![batch("", 0, minutes("a", DAY0, 1))]).unwrap();
    engine.seal(DAY0 + DAY_MS).unwrap();
    assert!(matches!(Engine::open(dir.path(), Config::default()), Err(Error::InUse { .. })));
    drop(engine);
    for (name, known) in [("head.db", 2), ("2026-11-23.db", 2)] {
        let path = dir.path().join(name);
        let set = |version: i64| rusqlite::Connection::open(&path).unwrap().execute("UPDATE meta SET version = ?1", [version]).unwrap();
        set(99);
        let error = Engine::open(dir.path(), Config::default()).unwrap_err();
        assert_eq!(error, Error::Newer { path: path.clone(), found: 99, known });
        set(known);
    }
    assert!(open(dir.path()).1.is_clean());
}

#[test]
fn metadata_comes_from_head_and_days() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    let other = |ts_ms| Sample { labels: Arc::new(Labels::new([("__name__", "up"), ("zone", "z")]).unwrap()), ts_ms, value: 1.0 };
    engine.append_at(DAY0 + DAY_MS, vec![batch("", 0, vec![sample("a", DAY0, 1.0), sample("b", DAY0, 1.0)])]).unwrap();
    engine.seal(DAY0 + DAY_MS).unwrap();
    engine
        .append_at(
            DAY0 + DAY_MS,
            vec![batch("", 0, vec![sample("b", DAY0 + DAY_MS, 1.0), sample("c", DAY0 + DAY_MS, 1.0), other(DAY0 + DAY_MS)])],
        )
        .unwrap();
    let (first, last) = (i64::MIN, i64::MAX);
    assert_eq!(engine.label_names(&[], first, last, 0).unwrap(), ["__name__", "host", "zone"]);
    assert_eq!(engine.label_names(&[], first, last, 2).unwrap(), ["__name__", "host"]);
    assert_eq!(engine.label_values("host", &[], first, last, 0).unwrap(), ["a", "b", "c"]);
    let up = vec![Matcher::equal("__name__", "up")];
    let not_a = vec![Matcher::new(MatchOp::NotRegex, "host", "a|").unwrap()];
    assert_eq!(engine.label_names(std::slice::from_ref(&up), first, last, 0).unwrap(), ["__name__", "zone"]);
    assert_eq!(engine.label_values("host", std::slice::from_ref(&not_a), first, last, 0).unwrap(), ["b", "c"]);
    let shown = |found: Vec<Arc<Labels>>| found.iter().map(|labels| labels.to_string()).collect::<Vec<_>>();
    assert_eq!(shown(engine.series(&[up, not_a], first, last, 0).unwrap()), [r#"load{host="b"}"#, r#"load{host="c"}"#, r#"up{zone="z"}"#]);
    assert_eq!(shown(engine.series(&[], DAY0, DAY0 + 1, 0).unwrap()), [r#"load{host="a"}"#, r#"load{host="b"}"#]);
    assert_eq!(shown(engine.series(&[], first, last, 1).unwrap()), [r#"load{host="a"}"#]);
}

#[test]
fn selections_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    for host in 0..5 {
        engine.append_at(DAY0 + DAY_MS, vec![batch("", 0, minutes(&host.to_string(), DAY0, 300))]).unwrap();
    }
    let select = |limits: SelectLimits| engine.select(&[], DAY0, DAY0 + DAY_MS, &limits).map(|found| found.len());
    for sealed in [false, true] {
        if sealed {
            engine.seal(DAY0 + DAY_MS).unwrap();
        }
        assert_eq!(select(SelectLimits { max_series: 5, max_samples: 1_500, deadline: None }), Ok(5));
        let error = select(SelectLimits { max_series: 4, ..SelectLimits::none() }).unwrap_err();
        assert!(error.to_string().contains("more than 4 series") && error.to_string().contains("query_max_series"), "{error}");
        let error = select(SelectLimits { max_samples: 1_499, ..SelectLimits::none() }).unwrap_err();
        assert!(error.to_string().contains("more than 1499 samples") && error.to_string().contains("query_max_samples"), "{error}");
        assert_eq!(select(SelectLimits { deadline: Some(std::time::Instant::now()), ..SelectLimits::none() }), Err(Error::Timeout));
    }
}

/// PromQL gives the same over the store, half of it sealed, as over memory.
#[test]
fn queries_over_head_and_days_are_queries_over_the_samples() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    let samples: Vec<Sample> = ["a", "b"].into_iter().flat_map(|host| minutes(host, DAY0 - 3 * HOUR, 600)).collect();
    let mut memory = crate::MemSource::new();
    memory.extend(samples.clone());
    engine.append_at(DAY0 + 8 * HOUR, vec![batch("", 0, samples)]).unwrap();
    engine.seal(DAY0 + 3 * HOUR).unwrap();
    for query in ["load", "sum(rate(load[30m]))", "max_over_time(load[5h])", "count_over_time(load{host=\"a\"}[6h:7m]) + load"] {
        let run = |source: &dyn crate::Source| {
            let output = crate::promql::eval_range(source, query, DAY0 - 4 * HOUR, DAY0 + 8 * HOUR, 420_000, &Default::default());
            format!("{:?}", output.unwrap().value)
        };
        let found = run(&engine);
        assert!(found.contains("values: ["), "{query}: {found}");
        assert_eq!(found, run(&memory), "{query}");
    }
}

/// A seal that failed, then a clock that jumped back: the next seal finishes both, and a restart finds nothing amiss.
#[test]
fn a_clock_that_jumps_back_after_a_failed_seal_leaves_no_frame_without_its_series() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    engine.append_at(DAY0 + HOUR, vec![batch("", 0, vec![sample("a", DAY0, 1.0)])]).unwrap();
    engine.hooks.stop_before_cleanup.store(true, Relaxed);
    engine.seal(DAY0 + 3 * HOUR).unwrap_err();
    engine.hooks.stop_before_cleanup.store(false, Relaxed);
    engine.seal(DAY0).unwrap();
    let found = all(&engine);
    drop(engine);
    let (engine, report) = open(dir.path());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(all(&engine), found);
}

/// Many threads append and read while seals run: nothing acknowledged is ever missing.
#[test]
fn readers_and_seals_run_beside_appends() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    std::thread::scope(|scope| {
        for host in 0..3 {
            let engine = &engine;
            scope.spawn(move || {
                for at in 0..60i64 {
                    let (host, ts) = (host.to_string(), DAY0 + at * HOUR / 4);
                    let samples = (0..20).map(|n| sample(&host, ts + n * 1_000, at as f64)).collect();
                    engine.append_at(DAY0 + DAY_MS, vec![batch(&host, at as u64 + 1, samples)]).unwrap();
                    let found = engine.select(&[Matcher::equal("host", &*host)], i64::MIN, i64::MAX, &SelectLimits::none()).unwrap();
                    assert_eq!(found[0].ts.len() as i64, (at + 1) * 20, "host {host} at {at}");
                }
            });
        }
        scope.spawn(|| {
            for at in 0..12 {
                engine.seal(DAY0 + at * 2 * HOUR).unwrap();
            }
        });
    });
    let found = all(&engine);
    assert_eq!(found.len(), 3 * 60 * 20);
    drop(engine);
    assert_eq!(all(&open(dir.path()).0), found);
}

#[derive(Clone, Debug)]
enum Step {
    Append { host: u8, minutes: Vec<(u16, u8)>, resend: bool },
    Seal { hour: u8, crash: bool },
    Kill,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let minutes = proptest::collection::vec((0u16..2_000, any::<u8>()), 1..40);
    prop_oneof![
        6 => (0u8..3, minutes, any::<bool>()).prop_map(|(host, minutes, resend)| Step::Append { host, minutes, resend }),
        2 => (0u8..40, any::<bool>()).prop_map(|(hour, crash)| Step::Seal { hour, crash }),
        1 => Just(Step::Kill),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is appended, sent again, sealed, killed and opened again: reads give what a map would.
    #[test]
    fn the_store_is_a_map(steps in proptest::collection::vec(step(), 1..25)) {
        let mut dir = tempfile::tempdir().unwrap();
        let mut engine = Some(open(dir.path()).0);
        let (mut model, mut seq) = (Samples::new(), 0);
        for step in steps {
            let Some(store) = &engine else { break };
            match step {
                Step::Append { host, minutes, resend } => {
                    seq += 1;
                    let host = host.to_string();
                    let samples: Vec<Sample> =
                        minutes.iter().map(|(at, value)| sample(&host, DAY0 + i64::from(*at) * 60_000, f64::from(*value))).collect();
                    let sent = batch("agent", seq, samples.clone());
                    store.append_at(DAY0 + 2 * DAY_MS, vec![sent.clone()]).unwrap();
                    model.extend(model_of(&samples));
                    if resend {
                        prop_assert_eq!(store.append_at(DAY0, vec![sent]).unwrap(), [Outcome::Duplicate]);
                    }
                }
                Step::Seal { hour, crash } => {
                    store.hooks.stop_before_cleanup.store(crash, Relaxed);
                    let done = store.seal(DAY0 + i64::from(hour) * HOUR);
                    prop_assert!(crash || done.is_ok());
                }
                Step::Kill => {
                    let copied = copy(dir.path());
                    drop(engine.take());
                    dir = copied;
                    engine = Some(open(dir.path()).0);
                }
                Step::Restart => {
                    drop(engine.take());
                    let (store, report) = open(dir.path());
                    prop_assert!(report.is_clean());
                    engine = Some(store);
                }
            }
            if let Some(store) = &engine {
                prop_assert_eq!(&all(store), &model);
            }
        }
    }
}

/// What the files in `tests/fixtures` hold: format 1 as it was first written. They stay when a format 2 comes.
fn golden() -> (Vec<Sample>, Vec<Sample>) {
    let mut sealed = minutes("golden", DAY0, 120);
    sealed.extend(
        [7.25, f64::NAN, f64::from_bits(shipwatch_common::model::metric::STALE_NAN_BITS), -0.0]
            .into_iter()
            .enumerate()
            .map(|(at, value)| sample("主机", DAY0 + at as i64 * 15_001 + 1, value)),
    );
    (sealed, minutes("golden", DAY0 + 2 * HOUR, 30))
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[test]
fn files_of_every_format_are_read() {
    for (head, frames) in [("head-v1.db", 1), ("head-v2.db", 0)] {
        for day in ["day-v1.db", "day-v2.db"] {
            reads_golden_files(head, frames, day);
        }
    }
}

fn reads_golden_files(head: &str, frames: u64, day: &str) {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(fixture(head), dir.path().join("head.db")).unwrap();
    fs::copy(fixture(day), dir.path().join("2026-11-23.db")).unwrap();
    let (engine, report) = open(dir.path());
    let (sealed, live) = golden();
    assert_eq!((report.is_clean(), report.frames, report.samples, report.day_files), (true, frames, 30, 1));
    assert_eq!(engine.mark("golden"), Some(u64::MAX - 1));
    let mut expected = model_of(&sealed);
    expected.extend(model_of(&live));
    assert_eq!(all(&engine), expected);
    engine.seal(DAY0 + DAY_MS).unwrap();
    assert_eq!(all(&engine), expected);
    // A correction goes into the window that the file had, and what it had stays.
    engine.append_at(DAY0 + DAY_MS, vec![batch("", 0, vec![sample("golden", DAY0, 77.0)])]).unwrap();
    engine.seal(DAY0 + DAY_MS).unwrap();
    expected.insert(("golden".to_owned(), DAY0), 77f64.to_bits());
    assert_eq!(all(&engine), expected);
    drop(engine);
    assert_eq!(all(&open(dir.path()).0), expected);
}

#[test]
fn chunks_of_every_format_are_read() {
    for name in ["chunk-v1.hex", "chunk-v2.hex"] {
        reads_golden_chunk(&fs::read_to_string(fixture(name)).unwrap());
    }
}

fn reads_golden_chunk(text: &str) {
    let bytes: Vec<u8> = text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let (ts, values) = chunk::decode_whole(&bytes).unwrap();
    let (expected_ts, expected_values) = golden_chunk();
    assert_eq!(ts, expected_ts);
    assert_eq!(values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), expected_values.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
}

/// Times with jitter, values with two decimals.
fn golden_chunk() -> chunk::Columns {
    (0..60i64).map(|at| (DAY0 + at * 15_000 + at * at % 7, (at * at % 101) as f64 / 100.0)).unzip()
}

#[test]
#[ignore = "writes the fixtures of a new format; those of older formats are never written again"]
fn write_fixtures() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    engine.append_at(DAY0 + 3 * HOUR, vec![batch("golden", 1, golden().0)]).unwrap();
    engine.seal(DAY0 + 3 * HOUR).unwrap();
    drop(engine);
    fs::copy(dir.path().join("2026-11-23.db"), fixture("day-v2.db")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    engine.append_at(DAY0 + 3 * HOUR, vec![batch("golden", u64::MAX - 1, golden().1)]).unwrap();
    engine.save_head().unwrap();
    drop(engine);
    fs::copy(dir.path().join("head.db"), fixture("head-v2.db")).unwrap();
    let (ts, values) = golden_chunk();
    let hex: Vec<String> = chunk::encode(&ts, &values).iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<String> = hex.chunks(32).map(|line| line.join(" ")).collect();
    fs::write(fixture("chunk-v2.hex"), lines.join("\n") + "\n").unwrap();
}
