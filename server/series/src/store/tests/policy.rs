//! What is kept, for how long, and what is refused.

use super::*;
use crate::config::{Keep, Retention, Tiers};
use std::time::Duration;

fn in_env(env: &str, ts_ms: i64, value: f64) -> Sample {
    let pairs = [("__name__", "load"), ("host", if env.is_empty() { "none" } else { env }), ("env", env)];
    Sample { labels: Arc::new(Labels::new(pairs).unwrap()), ts_ms, value }
}

fn days(count: u64) -> Keep {
    Keep::For(Duration::from_secs(count * 86_400))
}

fn keeping(age: Keep, env: &[(&str, Keep)]) -> Config {
    let env = env.iter().map(|(env, keep)| ((*env).to_owned(), *keep)).collect();
    Config { retention: Retention { age, env, ..Retention::default() }, ..Config::default() }
}

fn hosts(engine: &Engine) -> BTreeMap<String, usize> {
    all(engine).into_keys().fold(BTreeMap::new(), |mut hosts, (host, _)| {
        *hosts.entry(host).or_default() += 1;
        hosts
    })
}

#[test]
fn an_environment_leaves_a_day_and_the_others_stay_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let tiers = Tiers { enabled: false, ..Tiers::default() };
    let config = Config { tiers, ..keeping(days(20), &[("prod", days(400)), ("test", days(2))]) };
    let (engine, _) = Engine::open(dir.path(), config.clone()).unwrap();
    let mut samples: Vec<Sample> =
        ["prod", "other", ""].into_iter().flat_map(|env| (0..100).map(move |at| in_env(env, DAY0 + at * 60_000, 1.0))).collect();
    // Much, so that the file is larger by it.
    for pod in 0..300 {
        let labels = Labels::new([("__name__", "load"), ("host", "test"), ("env", "test"), ("pod", &format!("pod-{pod}"))]).unwrap();
        let labels = Arc::new(labels);
        samples.extend((0..100u64).map(|at| Sample {
            labels: labels.clone(),
            ts_ms: DAY0 + at.cast_signed() * 1_000,
            value: noise(at * pod),
        }));
    }
    engine.append_at(DAY0 + 2 * HOUR, vec![batch("x", 1, samples)]).unwrap();
    engine.seal(DAY0 + DAY_MS).unwrap();
    let path = dir.path().join("2026-11-23.db");
    let before = fs::metadata(&path).unwrap().len();

    // A reader that has the file open, with what it knows of its labels.
    assert_eq!(engine.label_values("pod", &[], DAY0, DAY0, 0).unwrap().len(), 300);
    assert_eq!(engine.retain(DAY0 + 3 * DAY_MS - 1).unwrap(), RetainReport::default());
    let report = engine.retain(DAY0 + 3 * DAY_MS).unwrap();
    assert_eq!((report.files.len(), report.series, report.samples), (0, 300, 30_000));
    let after = fs::metadata(&path).unwrap().len();
    assert_eq!(report.bytes, before - after);
    assert!(after * 5 < before, "{before} bytes became {after}");
    let kept = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 100)).collect::<BTreeMap<_, _>>();
    assert_eq!(hosts(&engine), kept(&["none", "other", "prod"]));
    assert_eq!(engine.label_values("pod", &[], DAY0, DAY0, 0).unwrap(), Vec::<String>::new());
    let stats = engine.stats();
    assert_eq!((stats.expired_samples_total, stats.expired_bytes_total, stats.expired_files_total), (30_000, before - after, 0));
    // Nothing more to do, and what goes can come no more.
    assert_eq!(engine.retain(DAY0 + 3 * DAY_MS).unwrap(), RetainReport::default());
    let late = vec![batch("", 0, vec![in_env("test", DAY0, 1.0), in_env("prod", DAY0, 2.0)])];
    assert_eq!(engine.append_at(DAY0 + 3 * DAY_MS, late).unwrap(), [Outcome::Stored { samples: 1, refused: 1 }]);
    // Seals still go into the file, with numbers of series that are free again.
    engine.append_at(DAY0 + 3 * DAY_MS, vec![batch("", 0, vec![in_env("new", DAY0, 7.0)])]).unwrap();
    engine.seal(DAY0 + 3 * DAY_MS).unwrap();
    assert_eq!((hosts(&engine).len(), hosts(&engine)["new"]), (4, 1));

    engine.retain(DAY0 + 21 * DAY_MS).unwrap();
    assert_eq!(hosts(&engine), kept(&["prod"]));
    drop(engine);
    let (engine, report) = Engine::open(dir.path(), config).unwrap();
    assert!(report.is_clean());
    assert_eq!(hosts(&engine), kept(&["prod"]));
    assert_eq!(engine.retain(DAY0 + 401 * DAY_MS).unwrap().files, ["2026-11-23.db"]);
}

#[test]
fn a_query_at_work_sees_a_day_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = Engine::open(dir.path(), keeping(days(20), &[("test", days(2))])).unwrap();
    let samples = vec![in_env("prod", DAY0, 1.0), in_env("test", DAY0, 1.0)];
    engine.append_at(DAY0, vec![batch("x", 1, samples)]).unwrap();
    engine.seal(DAY0 + DAY_MS).unwrap();
    let reader = DayReader::open(&dir.path().join("2026-11-23.db")).unwrap();
    let found = reader.at_once(|reader| {
        let series = reader.index.find(&[])?;
        engine.retain(DAY0 + 3 * DAY_MS)?;
        Ok((
            reader.index.labels(&series)?.len(),
            reader.chunks(&series, day::day_of(DAY0), (DAY0, DAY0), &mut |reason| panic!("{reason}"))?.len(),
        ))
    });
    assert_eq!(found.unwrap(), (2, 2));
    assert_eq!((hosts(&engine).len(), engine.stats().damaged_files_total), (1, 0));
}

#[test]
fn the_oldest_days_go_when_there_is_too_much_and_never_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { tiers: Tiers { enabled: false, ..Tiers::default() }, ..Config::default() };
    let (mut engine, _) = Engine::open(dir.path(), config).unwrap();
    for day in 0..4 {
        let samples = (0..2_000u64).map(|at| sample("a", DAY0 + day * DAY_MS + at.cast_signed() * 20_000, noise(at)));
        engine.append_at(DAY0 + 4 * DAY_MS, vec![batch("", 0, samples.collect())]).unwrap();
    }
    engine.seal(DAY0 + 5 * DAY_MS).unwrap();
    let stats = engine.stats();
    engine.config.retention.max_bytes = stats.head_bytes + stats.day_bytes;
    assert_eq!(engine.retain(DAY0 + 5 * DAY_MS).unwrap(), RetainReport::default());
    engine.config.retention.max_bytes -= stats.day_bytes / 4 + 1;
    assert_eq!(engine.retain(DAY0 + 5 * DAY_MS).unwrap().files, ["2026-11-23.db", "2026-11-24.db"]);
    engine.config.retention.max_bytes = 1;
    assert_eq!(engine.retain(DAY0 + 5 * DAY_MS).unwrap().files, ["2026-11-25.db"]);
    assert_eq!((all(&engine).len(), engine.stats().day_files, engine.stats().expired_files_total), (2_000, 1, 3));
}

#[test]
fn what_is_kept_forever_can_be_filled_in_from_1970_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = keeping(Keep::Forever, &[]);
    let (engine, _) = Engine::open(dir.path(), config).unwrap();
    let samples = vec![sample("a", DAY0, 1.0), sample("a", 0, 2.0), sample("a", 400 * DAY_MS, 3.0), sample("a", -1, 4.0)];
    let outcome = engine.append_at(DAY0, vec![batch("", 0, samples)]).unwrap();
    assert_eq!(outcome, [Outcome::Stored { samples: 3, refused: 1 }]);
    engine.seal(DAY0 + DAY_MS).unwrap();
    assert_eq!(engine.retain(DAY0 + DAY_MS).unwrap(), RetainReport::default());
    assert_eq!((all(&engine).len(), engine.stats().day_files), (3, 3));
}

#[test]
fn a_strict_sender_is_told_what_prometheus_tells() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    let strict = |samples: Vec<Sample>| engine.append_strict(DAY0, Arc::new(samples)).unwrap();
    let stale = f64::from_bits(shipwatch_common::model::metric::STALE_NAN_BITS);
    // Within one batch, and against what is stored; a stale marker is a value like others.
    let report = strict(vec![sample("a", DAY0, 1.0), sample("a", DAY0, 1.0), sample("a", DAY0, 2.0), sample("b", DAY0, stale)]);
    assert_eq!((report.stored, report.same, report.refused(Reason::Duplicate), report.refused_total()), (3, 1, 1, 1));
    let first = report.first.unwrap();
    assert!(first.to_string().starts_with("duplicate sample for timestamp (series "), "{first}");
    assert_eq!((first.labels.get("host"), first.ts_ms, first.value, first.reason.is_final()), (Some("a"), DAY0, 2.0, true));
    let report = strict(vec![sample("b", DAY0, stale), sample("a", DAY0, 1.0), sample("b", DAY0, 0.0)]);
    assert_eq!((report.stored, report.same, report.refused_total()), (2, 2, 1));
    let report = strict(vec![sample("a", DAY0 - 31 * DAY_MS, 1.0), sample("a", DAY0 + 2 * HOUR, 1.0)]);
    assert_eq!((report.refused(Reason::TooOld), report.refused(Reason::TooFarAhead)), (1, 1));
    assert!(report.first.unwrap().to_string().starts_with("out of bounds"));
    assert_eq!(all(&engine)[&("a".to_owned(), DAY0)], 1.0f64.to_bits());
    assert_eq!(engine.stats().refused_duplicate_total, 2);
    // Agents and rules say the last word instead.
    engine.append_at(DAY0, vec![batch("x", 1, vec![sample("a", DAY0, 2.0)])]).unwrap();
    assert_eq!(all(&engine)[&("a".to_owned(), DAY0)], 2.0f64.to_bits());
}

#[test]
fn late_samples_are_taken_within_the_window_only() {
    for (window_s, kept) in [(0, 2), (60, 3), (120, 4)] {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { out_of_order_window: Keep::For(Duration::from_secs(window_s)), ..Config::default() };
        let (engine, _) = Engine::open(dir.path(), config).unwrap();
        // The newest is stored for one half, in the same group for the other.
        engine.append_at(DAY0, vec![batch("x", 1, vec![sample("a", DAY0, 1.0)])]).unwrap();
        let late = |host| [0, 60_000, 120_000].map(|behind| sample(host, DAY0 - behind, 1.0));
        let outcome = engine.append_at(DAY0, vec![batch("x", 2, [late("a"), late("b")].concat()), batch("", 0, late("c").to_vec())]);
        let (two, one) = ((kept - 1) * 2, kept - 1);
        let expected = [(two, 6 - two), (one, 3 - one)].map(|(samples, refused)| Outcome::Stored { samples, refused });
        assert_eq!(outcome.unwrap(), expected, "window {window_s} s");
        assert_eq!(engine.stats().refused_out_of_order_total, 9 - two - one);
    }
}

#[test]
fn a_host_with_too_many_series_costs_no_other_host_anything() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = Engine::open(dir.path(), Config { max_host_series: 3, ..Config::default() }).unwrap();
    let many = |label: &str, host: &str, count: usize| -> Vec<Sample> {
        let labels = |at: usize| Labels::new([("__name__", "load".to_owned()), (label, host.to_owned()), ("id", at.to_string())]);
        (0..count).map(|at| Sample { labels: Arc::new(labels(at).unwrap()), ts_ms: DAY0, value: 1.0 }).collect()
    };
    let first = [many("host", "a", 2), many("instance", "b:9100", 5), many("job", "c", 5)].concat();
    let report = engine.append_strict(DAY0, Arc::new(first)).unwrap();
    assert_eq!((report.stored, report.refused(Reason::TooManyHostSeries)), (10, 2));
    let refusal = report.first.unwrap();
    assert!(refusal.to_string().contains("raise `series.max_host_series`") && !refusal.reason.is_final(), "{refusal}");
    // Over several batches of one group, and for series that are known.
    let again = vec![batch("x", 1, many("host", "a", 3)), batch("y", 1, many("host", "a", 9))];
    let outcome = engine.append_at(DAY0, again).unwrap();
    assert_eq!(outcome, [Outcome::Stored { samples: 3, refused: 0 }, Outcome::Stored { samples: 3, refused: 6 }]);
    assert_eq!((engine.stats().refused_host_series_total, engine.stats().head_series), (8, 11));
}
