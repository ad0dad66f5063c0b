//! The checkpoint of the head: whatever was saved, sealed, killed or damaged when, a start finds what was acknowledged, once.

use super::*;
use crate::store::{
    checkpoint::GROUP,
    inspect::{Verdict, verify},
};

/// As few series in a transaction as can be.
fn open_in_small_steps(dir: &Path) -> (Engine, OpenReport) {
    let hooks = Hooks { saved_at_once: Some(1), ..Hooks::default() };
    Engine::open_with(dir.to_owned(), Config::default(), hooks).unwrap()
}

/// The next series that are added lie on both sides of a group's border.
pub(super) fn begin_at_a_border(head: &Path) {
    let connection = rusqlite::Connection::open(head).unwrap();
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'series'", []).unwrap();
    connection.execute("INSERT INTO sqlite_sequence(name, seq) VALUES ('series', ?1)", [GROUP - 3]).unwrap();
}

fn frames(dir: &Path) -> i64 {
    count_rows(&copy(dir).path().join("head.db"), "frames")
}

fn verdict(dir: &Path) -> Verdict {
    verify(dir, |_| {}).unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<(u8, i64, i32)>),
    Seal,
    FailSeal,
    Save,
    Kill,
}

fn op() -> impl Strategy<Value = Op> {
    // Mostly forward in time, by minutes; some behind, over hours.
    let one = (0u8..6, prop_oneof![4 => 0i64..600, 1 => -14_400i64..0], -3i32..50);
    prop_oneof![
        8 => proptest::collection::vec(one, 1..80).prop_map(Op::Append),
        1 => Just(Op::Seal),
        1 => Just(Op::FailSeal),
        3 => Just(Op::Save),
        2 => Just(Op::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_start_finds_what_was_written_whenever_it_was_saved_and_sealed(ops in proptest::collection::vec(op(), 1..40)) {
        let mut dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        begin_at_a_border(&dir.path().join("head.db"));
        let (mut engine, _) = open_in_small_steps(dir.path());
        let (mut now, mut model) = (DAY0 + 5 * HOUR, Samples::new());
        for op in ops {
            match op {
                Op::Append(samples) => {
                    let samples: Vec<Sample> = samples.iter().map(|(host, at, value)| {
                        sample(&format!("h{host}"), now + at * 1_000, f64::from(*value))
                    }).collect();
                    now += 900_000;
                    model.extend(model_of(&samples));
                    engine.append_at(now, vec![batch("", 0, samples)]).unwrap();
                }
                Op::Seal => drop(engine.seal(now).unwrap()),
                Op::FailSeal => {
                    engine.hooks.stop_before_cleanup.store(true, Relaxed);
                    let _ = engine.seal(now);
                    engine.hooks.stop_before_cleanup.store(false, Relaxed);
                }
                Op::Save => engine.save_head().unwrap(),
                Op::Kill => {
                    let copied = copy(dir.path());
                    drop(engine);
                    dir = copied;
                    let (reopened, report) = open_in_small_steps(dir.path());
                    prop_assert!(report.is_clean(), "{:?}", report);
                    engine = reopened;
                }
            }
            prop_assert_eq!(&all(&engine), &model);
        }
        let copied = copy(dir.path());
        let (reopened, report) = open(copied.path());
        let verdict = verdict(copy(dir.path()).path());
        prop_assert!(report.is_clean() && verdict.damage.is_empty(), "{:?} {:?}", report, verdict);
        prop_assert_eq!(&all(&reopened), &model);
        reopened.seal(now + DAY_MS).unwrap();
        prop_assert_eq!(all(&reopened), model);
        prop_assert_eq!(reopened.stats().head_series, 0);
    }
}

#[test]
fn a_start_replays_only_what_came_after_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    begin_at_a_border(&dir.path().join("head.db"));
    let (engine, _) = open_in_small_steps(dir.path());
    let hosts = |at: i64| (0..6).map(|host| sample(&format!("h{host}"), DAY0 + at * 15_000, at as f64)).collect::<Vec<_>>();
    for at in 0..600 {
        engine.append_at(DAY0 + 6 * HOUR, vec![batch("x", at as u64 + 1, hosts(at))]).unwrap();
        if at % 250 == 249 {
            engine.save_head().unwrap();
            assert_eq!(frames(dir.path()), 0);
        }
    }
    engine.append_at(DAY0 + 6 * HOUR, vec![batch("y", 1, vec![sample("h0", DAY0 - 1, 1.0)])]).unwrap();
    let expected = all(&engine);
    let killed = copy(dir.path());
    let (reopened, report) = open(killed.path());
    assert_eq!((report.frames, report.samples, report.series, report.is_clean()), (101, 6 * 600 + 1, 6, true));
    assert_eq!((all(&reopened), reopened.mark("x"), expected.len()), (expected, Some(600), 3_601));
    // Two groups, and blocks of the first window and of the second: each is written once.
    let head = killed.path().join("head.db");
    drop(reopened);
    assert_eq!(count_rows(&head, "saved"), 2);
    let before = count_rows(&head, "saved_blocks");
    let (reopened, _) = open(killed.path());
    reopened.save_head().unwrap();
    let after = count_rows(&copy(killed.path()).path().join("head.db"), "saved_blocks");
    assert!(before >= 2 && after - before <= 2, "{before} {after}");
    // What is sealed leaves the checkpoint.
    reopened.seal(DAY0 + DAY_MS).unwrap();
    drop(reopened);
    assert_eq!((count_rows(&head, "saved_blocks"), count_rows(&head, "frames"), count_rows(&head, "series")), (0, 0, 0));
    let (reopened, report) = open(killed.path());
    assert_eq!((report.samples, report.samples_lost, report.series, all(&reopened).len()), (0, 0, 0, 3_601));
    // Rows of groups that are empty go with the next checkpoint.
    reopened.append_at(DAY0 + DAY_MS, vec![batch("x", 601, vec![sample("new", DAY0 + DAY_MS, 1.0)])]).unwrap();
    reopened.save_head().unwrap();
    drop(reopened);
    assert_eq!(count_rows(&head, "saved"), 1);
}

#[test]
fn a_checkpoint_waits_until_there_is_much_to_replay() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    engine.append_at(DAY0, vec![batch("x", 1, minutes("a", DAY0, 50))]).unwrap();
    engine.checkpoint().unwrap();
    assert_eq!(frames(dir.path()), 1);
    engine.counters.unsaved.store(8_000_000, Relaxed);
    engine.checkpoint().unwrap();
    assert_eq!((frames(dir.path()), engine.counters.unsaved.load(Relaxed)), (0, 0));
}

#[test]
fn nothing_is_saved_while_samples_are_on_their_way_to_a_day_file() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    engine.append_at(DAY0 + 6 * HOUR, vec![batch("x", 1, minutes("a", DAY0, 300))]).unwrap();
    engine.hooks.stop_before_cleanup.store(true, Relaxed);
    engine.seal(DAY0 + 4 * HOUR).unwrap_err();
    engine.save_head().unwrap();
    assert_eq!(frames(dir.path()), 1);
    fs::remove_file(dir.path().join("2026-11-23.db")).unwrap();
    assert_eq!(all(&open(copy(dir.path()).path()).0).len(), 300);
}

#[test]
fn a_group_with_very_many_late_samples_waits_for_a_seal() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    engine.append_at(DAY0 + 6 * HOUR, vec![batch("", 0, minutes("a", DAY0 + HOUR, 9))]).unwrap();
    engine.save_head().unwrap();
    let late = (0..70_000).map(|at| sample("a", DAY0 + at * 11, at as f64)).collect();
    engine.append_at(DAY0 + 6 * HOUR, vec![batch("", 0, late)]).unwrap();
    engine.append_at(DAY0 + 6 * HOUR, vec![batch("", 0, minutes("a", DAY0 + 2 * HOUR, 9))]).unwrap();
    engine.save_head().unwrap();
    let expected = all(&engine);
    assert_eq!((frames(dir.path()), expected.len()), (3, 70_018));
    assert_eq!(all(&open(copy(dir.path()).path()).0), expected);
    engine.seal(DAY0 + 3 * HOUR).unwrap();
    engine.save_head().unwrap();
    assert_eq!(frames(dir.path()), 0);
    let copied = copy(dir.path());
    let (reopened, report) = open(copied.path());
    assert_eq!((report.samples, all(&reopened)), (9, expected));
}

#[test]
fn a_full_disk_during_a_checkpoint_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let hooks = Hooks { head_max_pages: Some(120), ..Hooks::default() };
    let (engine, _) = Engine::open_with(dir.path().to_owned(), Config::default(), hooks).unwrap();
    let noise = |host: u32| (0..100).map(move |at| sample(&format!("h{host}"), DAY0 + at * 15_000, f64::from(host * 7).sin() + at as f64));
    let mut sent = Vec::new();
    for host in 0..1_000 {
        let samples: Vec<Sample> = noise(host).collect();
        if engine.append_at(DAY0 + 6 * HOUR, vec![batch("", 0, samples.clone())]).is_err() {
            break;
        }
        sent.extend(samples);
    }
    assert!(matches!(engine.save_head(), Err(Error::Full { .. })));
    assert_eq!(all(&engine), model_of(&sent));
    assert_eq!(all(&open(copy(dir.path()).path()).0), model_of(&sent));
    drop(engine);
    let (reopened, _) = open(dir.path());
    reopened.save_head().unwrap();
    assert_eq!((frames(dir.path()), all(&reopened)), (0, model_of(&sent)));
}

#[test]
fn damaged_rows_are_put_aside_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let head = dir.path().join("head.db");
    begin_at_a_border(&head);
    let (engine, _) = open(dir.path());
    // The first series and the last one are in two groups.
    for host in 0..6 {
        engine.append_at(DAY0 + 6 * HOUR, vec![batch("", 0, minutes(&format!("h{host}"), DAY0, 300))]).unwrap();
    }
    engine.save_head().unwrap();
    engine.append_at(DAY0 + 6 * HOUR, vec![batch("", 0, vec![sample("h5", DAY0 + 6 * HOUR, 1.0)])]).unwrap();
    drop(engine);
    let connection = rusqlite::Connection::open(&head).unwrap();
    connection.execute("UPDATE saved SET body = x'0102' WHERE number = 1", []).unwrap();
    connection.execute("UPDATE saved_blocks SET body = substr(body, 1, 20) WHERE id = 1", []).unwrap();
    drop(connection);
    assert_eq!(verdict(dir.path()).damage.len(), 2);
    let (engine, report) = open(dir.path());
    assert_eq!((report.frames, report.frames_lost, report.frames_lost_bytes), (1, 2, 22));
    let found = all(&engine);
    assert!(found.contains_key(&("h5".to_owned(), DAY0 + 6 * HOUR)) && found.contains_key(&("h0".to_owned(), DAY0 + 299 * 60_000)));
    drop(engine);
    assert_eq!(count_rows(&head, "bad_frames"), 2);
    let (engine, report) = open(dir.path());
    assert_eq!((report.frames_lost, all(&engine)), (0, found.clone()));
    engine.seal(DAY0 + DAY_MS).unwrap();
    assert_eq!(all(&engine), found);
}

#[test]
fn space_that_is_free_goes_back_to_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    let mut random = 1u64;
    for seq in 1..=60 {
        let samples = (0..10_000).map(|at| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            sample("a", DAY0 + (seq as i64 * 10_000 + at) * 10, f64::from_bits(random >> 2))
        });
        engine.append_at(DAY0 + 3 * HOUR, vec![batch("x", seq, samples.collect())]).unwrap();
    }
    let before = engine.stats().head_bytes;
    engine.seal(DAY0 + DAY_MS).unwrap();
    drop(engine);
    let after = fs::metadata(dir.path().join("head.db")).unwrap().len();
    assert!(before > 4 << 20 && after < before / 4, "{before} {after}");
}
