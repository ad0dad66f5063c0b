//! Summaries give what samples give, are made again when samples come late, and stay when samples expire.

use super::*;
use crate::{
    promql::{EvalOptions, Output, Value, eval_range},
    summary::{FIVE_MINUTES, ONE_HOUR},
};
use shipwatch_common::model::metric::STALE_NAN_BITS;

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
    assert!(!expected.is_empty() || query.starts_with("absent"), "{query} found nothing");
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
        for query in ["load", "timestamp(load)", "sum(load)", "load offset 10m"] {
            assert_same(&engine, query, (DAY0, end, FIVE_MINUTES), FIVE);
        }
    }
}
