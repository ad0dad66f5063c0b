//! Random series: counters with resets, gauges with gaps, stale marks, NaN and infinities, classic histograms, info metrics.
//!
//! Values are multiples of 1/64, so that sums are the same in any order. Each data set has metrics of its own, by four letters
//! in their names, which no lost, doubled or strange part of a query makes into another's.

use crate::random::Random;
use shipwatch_common::model::{Labels, Sample, metric::STALE_NAN_BITS};
use shipwatch_series::MemSource;
use std::sync::Arc;

/// Where samples start, in milliseconds: a multiple of ten seconds.
pub(crate) const START_MS: i64 = 1_700_000_400_000;

/// How long samples go on.
pub(crate) const LENGTH_MS: i64 = 40 * 60_000;

const INTERVAL_MS: i64 = 15_000;

/// One series.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) samples: Vec<(i64, f64)>,
}

pub(crate) fn source(all: &[Series]) -> MemSource {
    let mut source = MemSource::new();
    for series in all {
        let pairs = series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let labels = Arc::new(Labels::new(pairs).unwrap());
        source.extend(series.samples.iter().map(|(ts_ms, value)| Sample { labels: labels.clone(), ts_ms: *ts_ms, value: *value }));
    }
    source
}

/// What the metrics of a data set have in their names.
pub(crate) fn name(set: u64) -> String {
    format!("{set:04}").bytes().map(|digit| b"acdghijkpq"[usize::from(digit - b'0')] as char).collect()
}

/// The series of a data set, sorted by labels as remote write wants their names.
pub(crate) fn series(random: &mut Random, set: &str) -> Vec<Series> {
    let mut all = Vec::new();
    // 2.42 stretches a rate to the zero point even beyond a gap, 3.x does not: counters have gaps or small values, not both.
    let has_gaps = random.one_in(2);
    for job in ["api", "db"] {
        for instance in ["x:1", "x:2", "y:1"] {
            if random.one_in(7) {
                continue;
            }
            all.push(named(&format!("c{set}_total"), &[("instance", instance), ("job", job)], counter(random, has_gaps)));
            all.push(named(&format!("g{set}"), &[("instance", instance), ("job", job)], gauge(random)));
            if random.one_in(2) {
                all.push(named(&format!("n{set}"), &[("instance", instance), ("job", job), ("zone", "eu")], small_numbers(random)));
            }
        }
        buckets(random, set, job, &mut all);
    }
    for (instance, version) in [("x:1", "1.2.3"), ("x:2", "1.10.0"), ("y:1", "")] {
        all.push(named(&format!("i{set}_info"), &[("instance", instance), ("version", version)], constant(random)));
    }
    all.push(named(&format!("t{set}"), &[("job", "api")], times(random)));
    all
}

fn named(name: &str, labels: &[(&str, &str)], samples: Vec<(i64, f64)>) -> Series {
    let mut all: Vec<(String, String)> = vec![("__name__".to_owned(), name.to_owned())];
    all.extend(labels.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    all.sort();
    Series { labels: all, samples }
}

/// Times of samples, never on a whole second.
fn ticks(random: &mut Random) -> Vec<i64> {
    let phase = random.below(INTERVAL_MS as u64 / 1_000) as i64 * 1_000;
    let start = START_MS + phase + if random.one_in(4) { random.below(1_200) as i64 * 1_000 } else { 0 };
    let mut all = Vec::new();
    let mut at = start;
    while at < START_MS + LENGTH_MS {
        all.push(at + 1 + random.below(999) as i64);
        at += INTERVAL_MS;
    }
    all
}

fn sixty_fourths(random: &mut Random, most: u64) -> f64 {
    random.below(most * 64) as f64 / 64.0
}

fn counter(random: &mut Random, has_gaps: bool) -> Vec<(i64, f64)> {
    let step = [1, 20, 3_000][random.below(3) as usize];
    // Large against the steps: the zero point is out of reach.
    let base = step as f64 * 200.0;
    let mut value = base + sixty_fourths(random, 1_000);
    let mut out = Vec::new();
    let mut gap = 0;
    for at in ticks(random) {
        value += if random.one_in(5) { 0.0 } else { sixty_fourths(random, step) };
        // A series that starts near zero would meet the other rule as well.
        if random.one_in(25) && !out.is_empty() {
            value = if has_gaps { base } else { sixty_fourths(random, step) };
        }
        if has_gaps && random.one_in(12) {
            gap = random.below(25);
        }
        if gap > 0 {
            gap -= 1;
            continue;
        }
        out.push((at, value));
    }
    out
}

fn gauge(random: &mut Random) -> Vec<(i64, f64)> {
    let strange = random.below(3);
    let mut value = sixty_fourths(random, 100) - 50.0;
    let mut out = Vec::new();
    let mut gap = 0;
    for at in ticks(random) {
        value += sixty_fourths(random, 20) - 10.0;
        if gap > 0 {
            gap -= 1;
            continue;
        }
        if random.one_in(30) {
            gap = random.below(30);
            if random.one_in(2) {
                out.push((at, f64::from_bits(STALE_NAN_BITS)));
                continue;
            }
        }
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0][random.below(4) as usize];
        let is_odd = strange == 0 && random.one_in(15);
        out.push((at, if is_odd { odd } else { value }));
    }
    out
}

fn small_numbers(random: &mut Random) -> Vec<(i64, f64)> {
    ticks(random).into_iter().map(|at| (at, random.below(4) as f64 - 1.0)).collect()
}

fn constant(random: &mut Random) -> Vec<(i64, f64)> {
    ticks(random).into_iter().map(|at| (at, 1.0)).collect()
}

/// Times of the last hundred years, in seconds.
fn times(random: &mut Random) -> Vec<(i64, f64)> {
    ticks(random).into_iter().map(|at| (at, random.below(3_200_000_000) as f64)).collect()
}

/// Cumulative buckets of one job; scraped at the same times.
fn buckets(random: &mut Random, set: &str, job: &str, all: &mut Vec<Series>) {
    let bounds = ["0.1", "0.5", "1", "5", "+Inf"];
    let mut columns = vec![Vec::new(); bounds.len()];
    let mut counts = [400.0; 5];
    for at in ticks(random) {
        let mut added = 0.0;
        for (count, column) in counts.iter_mut().zip(&mut columns) {
            added += random.below(5) as f64;
            *count += added;
            column.push((at, *count));
        }
    }
    for (bound, samples) in bounds.iter().zip(columns) {
        all.push(named(&format!("h{set}_bucket"), &[("job", job), ("le", bound)], samples));
    }
}
