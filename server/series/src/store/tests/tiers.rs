//! Summaries give what samples give, are made again when samples come late, and stay when samples expire.

use super::*;
use crate::{
    config::{Keep, Retention, Tiers},
    promql::{EvalOptions, Output, Value, eval_instant, eval_range},
    store::inspect::{Verdict, tier_stats, verify},
    summary::{FIVE_MINUTES, ONE_HOUR},
};
use shipwatch_common::model::metric::STALE_NAN_BITS;
use std::time::Duration;

/// When a day has long been over.
const LATER: i64 = DAY0 + 5 * DAY_MS;

const EXACT: [&str; 16] = [
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "sum_over_time",
    "count_over_time",
    "last_over_time",
    "first_over_time",
    "present_over_time",
    "absent_over_time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "rate",
    "increase",
    "delta",
    "resets",
    "changes",
];

fn filled(dir: &Path, config: Config, samples: Vec<Sample>) -> Engine {
    let (engine, _) = Engine::open(dir, config).unwrap();
    engine.append_at(LATER, vec![batch("", 0, samples)]).unwrap();
    engine.seal(LATER).unwrap();
    engine
}

/// Makes all that is due.
fn summarize(engine: &Engine, now: i64) -> u64 {
    let mut days = 0;
    loop {
        match engine.summarize(now).unwrap().days {
            0 => return days,
            some => days += some,
        }
    }
}

fn options(summaries: bool) -> EvalOptions {
    EvalOptions { summaries, experimental: true, ..EvalOptions::default() }
}

fn range(engine: &Engine, query: &str, (start, end, step): (i64, i64, i64), summaries: bool) -> Output {
    eval_range(engine, query, start, end, step, &options(summaries)).unwrap()
}

type Points = BTreeMap<(String, i64), f64>;

fn points(output: &Output) -> Points {
    let Value::Matrix(series) = &output.value else { panic!("{:?}", output.value) };
    let of = |series: &crate::SeriesData| {
        let labels = series.labels.to_string();
        series.ts.iter().zip(&series.values).map(move |(ts, value)| ((labels.clone(), *ts), *value)).collect::<Vec<_>>()
    };
    series.iter().flat_map(of).collect()
}

fn told(output: &Output) -> Vec<&str> {
    output.infos.iter().filter(|text| text.contains("summaries")).map(String::as_str).collect()
}

/// Whether values are the same, but for the last digits of what was summed.
fn close(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (a - b).abs() <= a.abs().max(b.abs()) * 1e-12
}

#[track_caller]
fn assert_same(engine: &Engine, query: &str, grid: (i64, i64, i64), info: &str) {
    let (with, without) = (range(engine, query, grid, true), range(engine, query, grid, false));
    assert_eq!((told(&with), told(&without)), (vec![info], Vec::new()), "{query}");
    let (found, expected) = (points(&with), points(&without));
    let differs = |key: &&(String, i64)| match (found.get(*key), expected.get(*key)) {
        (Some(a), Some(b)) => !close(*a, *b),
        _ => true,
    };
    let all: BTreeSet<_> = found.keys().chain(expected.keys()).collect();
    let wrong: Vec<_> = all.into_iter().filter(differs).map(|key| (key, found.get(key), expected.get(key))).take(5).collect();
    assert!(wrong.is_empty(), "{query}: {wrong:?}");
    assert!(!expected.is_empty() || query.starts_with("absent") || !query.contains('['), "{query} found nothing");
}

const FIVE: &str = "PromQL info: answered from 5-minute summaries";
const HOURLY: &str = "PromQL info: answered from 1-hour summaries";

/// A series as the spaces between its samples and its values.
fn series() -> impl Strategy<Value = Vec<(i64, f64)>> {
    let space = prop_oneof![8 => Just(60_000i64), 3 => Just(15_000), 2 => 1i64..200_000, 1 => 300_000i64..20_000_000];
    let value = prop_oneof![
        8 => (0u32..1_000).prop_map(f64::from),
        4 => (0i64..100_000).prop_map(|number| number as f64 / 7.0 - 300.0),
        1 => Just(0.0),
        1 => Just(-0.0),
        1 => Just(f64::NAN),
        1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY)],
        1 => Just(f64::from_bits(STALE_NAN_BITS)),
    ];
    // Counters grow most of the time; in the others anything goes.
    (proptest::collection::vec((space, value), 50..1_200), any::<bool>(), 0i64..5).prop_map(|(steps, grows, start)| {
        let (mut ts, mut total) = (DAY0 + start * 7_200_000, 0.0);
        let step = |(space, value): (i64, f64)| {
            // Some lie on borders of buckets and of days to the millisecond.
            ts += space;
            if space == 15_000 {
                ts -= ts.rem_euclid(15_000);
            }
            total = if value > 990.0 { 0.0 } else { total + value };
            (ts, if grows && value.is_finite() { total } else { value })
        };
        let mut samples: Vec<(i64, f64)> = steps.into_iter().map(step).collect();
        samples.dedup_by_key(|(ts, _)| *ts);
        samples
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn aligned_windows_give_what_samples_give(all in proptest::collection::vec(series(), 1..4), raw_from in 1i64..4) {
        let dir = tempfile::tempdir().unwrap();
        let samples: Vec<Sample> = all.iter().enumerate().flat_map(|(at, series)| {
            series.iter().filter(|(ts, _)| *ts < DAY0 + 4 * DAY_MS).map(move |(ts, value)| sample(&format!("h{at}"), *ts, *value))
        }).collect();
        let engine = filled(dir.path(), Config::default(), samples);
        // Some days have summaries, the others are read as samples.
        for day in engine.sealed_days().into_iter().take(raw_from as usize) {
            let day = day.0 / DAY_MS;
            engine.before_expiry(day, Some(&[]), LATER).unwrap();
        }
        let end = DAY0 + 4 * DAY_MS;
        for name in EXACT {
            for (window, step, info) in [("5m", FIVE_MINUTES, FIVE), ("1h", ONE_HOUR, HOURLY), ("40m", 3 * FIVE_MINUTES, FIVE), ("1d", DAY_MS, HOURLY)] {
                assert_same(&engine, &format!("{name}(load[{window}])"), (DAY0, end, step), info);
            }
            assert_same(&engine, &format!("{name}(load[3h] offset 1h)"), (DAY0 + 2 * FIVE_MINUTES, end, 2 * ONE_HOUR), FIVE);
        }
        for query in ["load", "timestamp(load)", "sum(load)", "load offset 1h"] {
            assert_same(&engine, query, (DAY0, end, FIVE_MINUTES), FIVE);
            assert_same(&engine, query, (DAY0, end, 2 * ONE_HOUR), HOURLY);
            let options = |summaries| EvalOptions { lookback: Duration::from_secs(7_000), ..options(summaries) };
            let ask = |summaries| points(&eval_range(&engine, query, DAY0, end, ONE_HOUR, &options(summaries)).unwrap());
            let (found, expected) = (ask(true), ask(false));
            prop_assert_eq!(found.len(), expected.len());
            prop_assert!(found.iter().all(|(key, value)| expected.get(key).is_some_and(|other| close(*value, *other))));
        }
    }
}

/// Four days of a counter that is reset at times, of some hosts, once a minute.
fn counters(hosts: &[&str]) -> Vec<Sample> {
    let of = |host: &str| (0..4 * 1_440).map(|at| sample(host, DAY0 + at * 60_000, (at % 1_000) as f64)).collect::<Vec<_>>();
    hosts.iter().flat_map(|host| of(host)).collect()
}

const HOURS: (i64, i64, i64) = (DAY0 + ONE_HOUR, DAY0 + 4 * DAY_MS, ONE_HOUR);

/// The samples that a query reads as such and as buckets.
fn work(engine: &Engine, query: &str, summaries: bool) -> u64 {
    range(engine, query, HOURS, summaries).samples
}

#[test]
fn days_are_summarized_once_when_they_are_over() {
    let dir = tempfile::tempdir().unwrap();
    let engine = filled(dir.path(), Config::default(), counters(&["a", "b"]));
    let over = DAY0 + DAY_MS + 2 * ONE_HOUR;
    assert_eq!(engine.summarize(over - 1).unwrap(), SummarizeReport::default());
    // Midnight's sample is in a bucket of its own.
    assert_eq!(engine.summarize(over).unwrap(), SummarizeReport { days: 2, buckets: 2 * 289 + 2 * 25 });
    assert_eq!(engine.summarize(over).unwrap(), SummarizeReport::default());
    assert_eq!(engine.summarize(LATER).unwrap().days, 2, "a few at a time");
    assert_eq!((summarize(&engine, LATER), engine.stats().tier_files), (4, 5));
    let stored: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(stored.contains(&"2026-11-23.5m.db".to_owned()) && stored.contains(&"2026-11.1h.db".to_owned()), "{stored:?}");
    let query = "sum(rate(load[1h]))";
    assert_same(&engine, query, HOURS, HOURLY);
    assert!(work(&engine, query, true) * 4 < work(&engine, query, false));
    // The same after a restart, and nothing is made again.
    drop(engine);
    let (engine, report) = open(dir.path());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(engine.summarize(LATER).unwrap(), SummarizeReport::default());
    assert_same(&engine, query, HOURS, HOURLY);
    // Off: nothing is made, what is there is used.
    drop(engine);
    fs::remove_file(dir.path().join("2026-11-24.5m.db")).unwrap();
    let config = Config { tiers: Tiers { enabled: false, ..Tiers::default() }, ..Config::default() };
    let (engine, _) = Engine::open(dir.path(), config).unwrap();
    assert_eq!(engine.summarize(LATER).unwrap(), SummarizeReport::default());
    assert_same(&engine, query, HOURS, HOURLY);
}

#[test]
fn what_needs_samples_and_what_is_short_reads_samples() {
    let dir = tempfile::tempdir().unwrap();
    let engine = filled(dir.path(), Config::default(), counters(&["a"]));
    summarize(&engine, LATER);
    for query in ["quantile_over_time(0.5, load[1h])", "deriv(load[1h])", "irate(load[1h])", "stddev_over_time(load[1h])"] {
        let (with, without) = (range(&engine, query, HOURS, true), range(&engine, query, HOURS, false));
        assert_eq!((told(&with), points(&with)), (Vec::new(), points(&without)), "{query}");
        assert_eq!(with.samples, without.samples);
    }
    let query = "sum_over_time(load[1h])";
    for (start, end, step) in [(DAY0 + ONE_HOUR, DAY0 + 20 * ONE_HOUR, ONE_HOUR), (DAY0 + 1, DAY0 + 3 * DAY_MS, ONE_HOUR)] {
        assert_eq!(told(&range(&engine, query, (start, end, step), true)), Vec::<&str>::new());
    }
    // At one time, over a long range.
    let at = |query: &str| eval_instant(&engine, query, DAY0 + 3 * DAY_MS, &options(true)).unwrap();
    assert_eq!((told(&at("sum_over_time(load[2d])")), told(&at("load"))), (vec![HOURLY], Vec::new()));
}

#[test]
fn late_samples_are_seen_at_once_and_their_day_is_summarized_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = filled(dir.path(), Config::default(), counters(&["a", "b"]));
    summarize(&engine, LATER);
    let query = "sum_over_time(load[1h])";
    let before = work(&engine, query, true);
    // In the head, then sealed, then summarized again.
    let late = vec![sample("a", DAY0 + DAY_MS + 30_000, 7_000.0), sample("c", DAY0 + DAY_MS + 90_000, 5.0)];
    engine.append_at(LATER, vec![batch("", 0, late)]).unwrap();
    assert_same(&engine, query, HOURS, HOURLY);
    assert!(work(&engine, query, true) > before, "the day is read as samples");
    engine.seal(LATER).unwrap();
    assert_same(&engine, query, HOURS, HOURLY);
    // A crash now: it is known to be stale.
    let killed = copy(dir.path());
    let (restarted, _) = open(killed.path());
    assert_same(&restarted, query, HOURS, HOURLY);
    assert!(work(&restarted, query, true) > before);
    assert_eq!(engine.summarize(LATER + 60_000).unwrap(), SummarizeReport::default(), "more may come");
    for engine in [&engine, &restarted] {
        assert_eq!(summarize(engine, LATER + ONE_HOUR), 2);
        assert_same(engine, query, HOURS, HOURLY);
        assert!(work(engine, query, true) < before + 1_000);
    }
    // A correction of what was there, to less.
    engine.append_at(LATER, vec![batch("", 0, vec![sample("c", DAY0 + DAY_MS + 90_000, f64::from_bits(STALE_NAN_BITS))])]).unwrap();
    engine.seal(LATER).unwrap();
    summarize(&engine, LATER + ONE_HOUR);
    assert_same(&engine, query, HOURS, HOURLY);
}

#[test]
fn a_crash_before_the_commit_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let engine = filled(dir.path(), Config::default(), counters(&["a"]));
    let (day, path) = (DAY0 / DAY_MS, dir.path().join("2026-11-23.5m.db"));
    let killed = std::cell::OnceCell::new();
    let failed = tier::write(&path, tier::Tier::FiveMinutes, day, &Default::default(), |writer| {
        writer.put(&labels("load", "a"), &crate::summary::summarize(&[DAY0], &[1.0], FIVE_MINUTES))?;
        killed.set(copy(dir.path())).unwrap();
        Err(Error::Stopped { reason: "a test asked for it".to_owned() })
    });
    assert!(failed.is_err());
    drop(engine);
    for dir in [dir.path(), killed.get().unwrap().path()] {
        let (engine, report) = open(dir);
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(range(&engine, "sum_over_time(load[1h])", HOURS, true).infos, Vec::<String>::new());
        assert_eq!(summarize(&engine, LATER), 8);
        assert_same(&engine, "sum_over_time(load[1h])", HOURS, HOURLY);
    }
}

#[test]
fn five_minutes_without_their_hours_are_made_whole() {
    let dir = tempfile::tempdir().unwrap();
    let engine = filled(dir.path(), Config::default(), counters(&["a"]));
    summarize(&engine, LATER);
    drop(engine);
    // As after a crash between the two.
    let connection = rusqlite::Connection::open(dir.path().join("2026-11.1h.db")).unwrap();
    connection.execute("DELETE FROM days WHERE day = ?1", [DAY0 / DAY_MS]).unwrap();
    drop(connection);
    let (engine, _) = open(dir.path());
    assert_same(&engine, "increase(load[1h])", HOURS, HOURLY);
    assert_eq!(engine.summarize(LATER).unwrap(), SummarizeReport { days: 1, buckets: 25 });
    assert_same(&engine, "increase(load[1h])", HOURS, HOURLY);
}

#[test]
fn damaged_summaries_are_never_answered_from() {
    let dir = tempfile::tempdir().unwrap();
    let engine = filled(dir.path(), Config::default(), counters(&["a"]));
    summarize(&engine, LATER);
    let path = dir.path().join("2026-11.1h.db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    let mut body: Vec<u8> = connection.query_row("SELECT body FROM groups WHERE key = ?1", [22], |row| row.get(0)).unwrap();
    let middle = body.len() / 2;
    body[middle] ^= 1;
    connection.execute("UPDATE groups SET body = ?1 WHERE key = ?2", rusqlite::params![body, 22]).unwrap();
    drop(connection);
    assert_same(&engine, "sum_over_time(load[1h])", HOURS, HOURLY);
    let verdict = verify(dir.path(), |_| {}).unwrap();
    let of_hours = |verdict: &Verdict| verdict.damage.iter().filter(|damage| damage.file == "2026-11.1h.db").count();
    assert_eq!(of_hours(&verdict), 1, "{verdict:?}");
    assert_eq!(summarize(&engine, LATER), 1, "the day is made again");
    assert_eq!(of_hours(&verify(dir.path(), |_| {}).unwrap()), 0);
    // The whole file.
    drop(engine);
    fs::write(&path, [7; 5_000]).unwrap();
    let (engine, report) = open(dir.path());
    assert_eq!(report.moved.len(), 1);
    assert_same(&engine, "sum_over_time(load[1h])", HOURS, FIVE);
    assert_eq!(summarize(&engine, LATER), 4);
    assert_same(&engine, "sum_over_time(load[1h])", HOURS, HOURLY);
}

const EXPIRED: &str = "PromQL info: samples in this range have expired; answered approximately from 5-minute summaries";
const LEFT_OUT: &str = "PromQL info: samples in this range have expired, and what is asked cannot be computed from their summaries";

fn days(count: u64) -> Keep {
    Keep::For(Duration::from_secs(count * 86_400))
}

/// The first two days of samples expire.
fn expire(engine: &Engine) {
    let report = engine.retain(DAY0 + 4 * DAY_MS).unwrap();
    assert_eq!(report.files, ["2026-11-23.db", "2026-11-24.db"]);
}

fn two_days() -> Config {
    Config { retention_days: 2, ..Config::default() }
}

#[test]
fn expired_samples_are_still_there_as_summaries() {
    let dir = tempfile::tempdir().unwrap();
    // A store that grows older: nothing is refused when it comes.
    let (mut engine, _) = open(dir.path());
    engine.append_at(LATER, vec![batch("", 0, counters(&["a", "b"]))]).unwrap();
    engine.seal(LATER).unwrap();
    let ask: Vec<(String, (i64, i64, i64))> = EXACT
        .iter()
        .flat_map(|name| [(format!("{name}(load[1h])"), HOURS), (format!("{name}(load[10m])"), (HOURS.0, HOURS.1, 2 * FIVE_MINUTES))])
        .chain([("load".to_owned(), (HOURS.0, HOURS.1, FIVE_MINUTES))])
        .collect();
    let before: Vec<Points> = ask.iter().map(|(query, grid)| points(&range(&engine, query, *grid, false))).collect();
    engine.config.retention_days = 2;
    // Retention makes the summaries that are missing.
    expire(&engine);
    drop(engine);
    let (engine, report) = Engine::open(dir.path(), two_days()).unwrap();
    assert!(report.is_clean());
    for ((query, grid), before) in ask.iter().zip(&before) {
        let output = range(&engine, query, *grid, true);
        let found = points(&output);
        assert_eq!(told(&output).len(), 1, "{query}");
        assert!(!output.infos[0].contains("approximately"), "{query}: {:?}", output.infos);
        let wrong = before.iter().find(|(key, value)| !found.get(key).is_some_and(|found| close(*found, **value)));
        assert_eq!((wrong, found.len()), (None, before.len()), "{query}");
    }
    // What is not aligned is near.
    let odd = (DAY0 + ONE_HOUR + 17_000, DAY0 + DAY_MS, 7 * 60_000);
    let output = range(&engine, "rate(load[1h])", odd, true);
    assert_eq!(told(&output), [EXPIRED]);
    let rates: Vec<f64> = points(&output).into_values().collect();
    assert!(rates.len() > 300 && rates.iter().all(|rate| (rate - 1.0 / 60.0).abs() < 0.01), "{rates:?}");
    // A window shorter than a bucket has its share of it.
    let short: Vec<f64> = points(&range(&engine, "increase(load[1m])", odd, true)).into_values().collect();
    assert!(short.len() > 300 && short.iter().all(|change| (0.0..2.0).contains(change)), "{short:?}");
    let load = points(&range(&engine, "load", odd, true));
    assert_eq!(load.len(), 2 * ((odd.1 - odd.0) / odd.2 + 1) as usize);
    for ((_, at), value) in load {
        let truth = ((at - DAY0) / 60_000 % 1_000) as f64;
        assert!((truth - value).abs() < 6.0 || truth < 6.0, "{at}: {value}, not {truth}");
    }
    // What needs samples says so, and gives those that are left.
    let output = range(&engine, "quantile_over_time(0.5, load[1h])", HOURS, true);
    assert_eq!((told(&output), output.infos.as_slice()), (vec![LEFT_OUT], [LEFT_OUT.to_owned()].as_slice()));
    assert!(points(&output).keys().all(|(_, at)| *at >= DAY0 + 2 * DAY_MS));
    assert_eq!(told(&range(&engine, "quantile_over_time(0.5, load[1h])", (LATER - DAY_MS, LATER, ONE_HOUR), true)), Vec::<&str>::new());
    // And without summaries nothing is there.
    assert_eq!(points(&range(&engine, "load", odd, false)), Points::new());
    assert_eq!(engine.label_values("host", &[], DAY0, DAY0 + ONE_HOUR, 0).unwrap(), ["a", "b"]);
    assert_eq!(engine.series(&[vec![Matcher::equal("host", "b")]], DAY0, DAY0 + ONE_HOUR, 0).unwrap(), [labels("load", "b")]);
}

#[test]
fn a_backfill_into_expired_days_takes_nothing_away() {
    let dir = tempfile::tempdir().unwrap();
    let engine = filled(dir.path(), Config::default(), counters(&["a"]));
    summarize(&engine, LATER);
    let query = "count_over_time(load[1h])";
    let before = points(&range(&engine, query, HOURS, true));
    // Deleted for its size, and then some of it comes again, with a new host.
    engine.before_expiry(DAY0 / DAY_MS, None, LATER).unwrap();
    engine.delete_day(DAY0 / DAY_MS, LATER, &mut RetainReport::default()).unwrap();
    let late = [minutes("a", DAY0 + 2 * ONE_HOUR, 60), minutes("new", DAY0 + 2 * ONE_HOUR, 60)].concat();
    engine.append_at(LATER, vec![batch("", 0, late)]).unwrap();
    let host = |output: &Points, host: &str| -> Vec<f64> {
        output.iter().filter(|((labels, _), _)| labels.contains(host)).map(|(_, value)| *value).collect()
    };
    let check = |engine: &Engine| {
        let found = points(&range(engine, query, HOURS, true));
        assert_eq!(host(&found, "\"a\""), host(&before, "\"a\""));
        assert_eq!(host(&found, "new"), [1.0, 59.0]);
    };
    check(&engine);
    engine.seal(LATER).unwrap();
    check(&engine);
    let killed = copy(dir.path());
    check(&open(killed.path()).0);
    assert_eq!(summarize(&engine, LATER + ONE_HOUR), 2);
    check(&engine);
    drop(engine);
    check(&open(dir.path()).0);
}

#[test]
fn one_environment_expires_and_the_others_are_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let in_env = |env: &str, ts_ms: i64| Sample {
        labels: Arc::new(Labels::new([("__name__", "load"), ("host", env), ("env", env)]).unwrap()),
        ts_ms,
        value: ((ts_ms - DAY0) / 60_000) as f64,
    };
    let samples = ["prod", "test"].into_iter().flat_map(|env| (0..4 * 1_440).map(move |at| in_env(env, DAY0 + at * 60_000)));
    let retention = Retention { env: [("test".to_owned(), days(2))].into(), ..Retention::default() };
    let config = Config {
        retention: retention.clone(),
        tiers: Tiers { env: [("test".to_owned(), days(3))].into(), ..Tiers::default() },
        ..Config::default()
    };
    let (mut engine, _) = open(dir.path());
    engine.append_at(LATER, vec![batch("", 0, samples.collect())]).unwrap();
    engine.seal(LATER).unwrap();
    summarize(&engine, LATER);
    let query = "max_over_time(load[1h])";
    let before = points(&range(&engine, query, HOURS, true));
    engine.config = config;
    engine.retain(DAY0 + 3 * DAY_MS).unwrap();
    assert_eq!(read(&engine, DAY0, DAY0 + DAY_MS - 1).len(), 1_440);
    assert_eq!(points(&range(&engine, query, HOURS, true)), before);
    // A backfill of one does not cost the other anything.
    engine.append_at(LATER, vec![batch("", 0, vec![in_env("prod", DAY0 + 30_000)])]).unwrap();
    engine.seal(LATER).unwrap();
    assert_eq!(points(&range(&engine, query, HOURS, true)), before);
    assert_eq!(summarize(&engine, LATER + ONE_HOUR), 2);
    assert_eq!(points(&range(&engine, query, HOURS, true)), before);
    // Not aligned: samples of one, summaries of the other.
    let odd = range(&engine, query, (DAY0 + ONE_HOUR + 1, DAY0 + 12 * ONE_HOUR, 60_000), true);
    assert_eq!((told(&odd), odd.value.series()), (vec![EXPIRED], 2));
    // The summaries of one expire: five minutes by day, hours by month.
    engine.retain(DAY0 + 4 * DAY_MS).unwrap();
    let odd = range(&engine, query, (DAY0 + ONE_HOUR + 1, DAY0 + 12 * ONE_HOUR, 60_000), true);
    assert_eq!(told(&odd), [EXPIRED.replace("5-minute", "1-hour")]);
    engine.retain(DAY0 + 11 * DAY_MS).unwrap();
    let left = range(&engine, query, (DAY0 + ONE_HOUR + 1, DAY0 + 12 * ONE_HOUR, 60_000), true);
    assert_eq!((told(&left), left.value.series()), (Vec::new(), 1));
    assert!(points(&range(&engine, query, HOURS, true)).keys().all(|(labels, at)| labels.contains("prod") || *at > DAY0 + 8 * DAY_MS));
}

impl Value {
    fn series(&self) -> usize {
        match self {
            Self::Matrix(series) => series.len(),
            _ => 0,
        }
    }
}

#[test]
fn summaries_expire_by_age_and_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let (mut engine, _) = open(dir.path());
    engine.append_at(LATER, vec![batch("", 0, counters(&["a"]))]).unwrap();
    engine.seal(LATER).unwrap();
    summarize(&engine, LATER);
    let stats = tier_stats(dir.path()).unwrap();
    let shown: Vec<_> = stats.iter().map(|file| (file.file.as_str(), file.days, file.series, file.buckets, file.samples)).collect();
    let total: u64 = stats.iter().map(|file| file.bytes).sum();
    assert_eq!((shown[0], shown[4]), (("2026-11.1h.db", 4, 1, 100, 5_760), ("2026-11-26.5m.db", 1, 1, 289, 1_440)));
    assert_eq!(engine.stats().tier_bytes, total);

    engine.config.retention.max_bytes = engine.stats().day_bytes + engine.stats().head_bytes + total;
    assert_eq!(engine.retain(LATER).unwrap().files, Vec::<String>::new());
    engine.config.retention.max_bytes -= 1;
    assert_eq!(engine.retain(LATER).unwrap().files, ["2026-11-23.db"], "of 30 days it has used the largest part");
    engine.config.retention.max_bytes = 1;
    assert_eq!(engine.retain(LATER).unwrap().files.len(), 2 + 4 + 1, "everything but the newest samples");
    assert_eq!((engine.stats().day_files, engine.stats().tier_files), (1, 0));

    engine.config.retention.max_bytes = 0;
    summarize(&engine, LATER);
    engine.config.tiers = Tiers { five_minutes: days(3), one_hour: days(5), ..Tiers::default() };
    assert_eq!(engine.retain(DAY0 + 7 * DAY_MS).unwrap().files, ["2026-11-26.5m.db"]);
    fs::write(dir.path().join("2026-11.1h.db.corrupt-1"), [0; 10]).unwrap();
    assert_eq!(engine.retain(DAY0 + 13 * DAY_MS - 1).unwrap().files, Vec::<String>::new());
    assert_eq!(engine.retain(DAY0 + 13 * DAY_MS).unwrap().files, ["2026-11.1h.db", "2026-11.1h.db.corrupt-1"]);
}

#[test]
fn a_damaged_day_is_answered_from_its_summaries() {
    let dir = tempfile::tempdir().unwrap();
    let engine = filled(dir.path(), Config::default(), counters(&["a"]));
    summarize(&engine, LATER);
    let before = points(&range(&engine, "increase(load[1h])", HOURS, true));
    drop(engine);
    fs::write(dir.path().join("2026-11-24.db"), [7; 5_000]).unwrap();
    let (engine, report) = open(dir.path());
    assert_eq!(report.moved.len(), 1);
    assert_eq!(points(&range(&engine, "increase(load[1h])", HOURS, true)), before);
    let odd = (DAY0 + DAY_MS + 1_001, DAY0 + DAY_MS + ONE_HOUR, FIVE_MINUTES);
    assert_eq!(told(&range(&engine, "max_over_time(load[1h])", odd, true)), [EXPIRED]);
}

/// What the fixtures of summaries hold: a counter, and values that are no numbers.
fn golden_day() -> Vec<Sample> {
    let odd = [7.25, f64::NAN, -0.0, f64::INFINITY, f64::from_bits(STALE_NAN_BITS)];
    let odd = odd.into_iter().enumerate().map(|(at, value)| sample("主机", DAY0 + at as i64 * 250_001, value));
    (0..1_440).map(|at| sample("golden", DAY0 + at * 60_000, (at % 500) as f64 * 0.25)).chain(odd).collect()
}

const GOLDEN: [(&str, &str); 2] = [("tier-5m-v1.db", "2026-11-23.5m.db"), ("tier-1h-v1.db", "2026-11.1h.db")];

#[test]
fn summaries_of_every_format_are_read() {
    let (dir, samples) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (fixture_name, name) in GOLDEN {
        fs::copy(fixture(fixture_name), dir.path().join(name)).unwrap();
    }
    let (engine, report) = open(dir.path());
    assert!(report.is_clean(), "{report:?}");
    let model = filled(samples.path(), Config::default(), golden_day());
    for name in EXACT {
        for (window, step, info) in [("5m", FIVE_MINUTES, FIVE), ("1h", ONE_HOUR, HOURLY)] {
            let (query, grid) = (format!("{name}(load[{window}])"), (DAY0, DAY0 + DAY_MS, step));
            let (found, expected) = (range(&engine, &query, grid, true), range(&model, &query, grid, false));
            assert_eq!(told(&found), [info], "{query}");
            let (found, expected) = (points(&found), points(&expected));
            assert_eq!(found.len(), expected.len(), "{query}");
            assert!(found.iter().all(|(key, value)| expected.get(key).is_some_and(|other| close(*value, *other))), "{query}");
        }
    }
    assert_eq!(verify(dir.path(), |_| {}).unwrap().buckets, 289 + 5 + 25 + 2);
}

#[test]
#[ignore = "writes the fixtures of a new format; those of older formats are never written again"]
fn write_fixtures() {
    let dir = tempfile::tempdir().unwrap();
    let engine = filled(dir.path(), Config::default(), golden_day());
    summarize(&engine, LATER);
    drop(engine);
    for (fixture_name, name) in GOLDEN {
        fs::copy(dir.path().join(name), fixture(fixture_name)).unwrap();
    }
}
