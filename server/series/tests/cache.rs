//! Range queries through a cache, beside the same without one: the same answers to the bit, whatever came in between.
//!
//! Series and queries are the random ones of the differential test. Samples come in the order of time by and large, some late,
//! some twice with another value; now and then the store is sealed, and retention takes all that was. Windows slide on, grow and
//! shrink. `SHIPWATCH_CACHE_SEEDS=500` asks for more.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails with a panic")]

#[path = "differential/data.rs"]
#[expect(dead_code, reason = "the differential test needs all of it")]
mod data;
#[path = "differential/grammar.rs"]
mod grammar;
#[path = "differential/queries.rs"]
#[expect(dead_code, reason = "the differential test needs all of it")]
mod queries;
#[path = "differential/random.rs"]
mod random;

use data::{LENGTH_MS, START_MS};
use random::Random;
use shipwatch_common::model::{Labels, Sample, metric::STALE_NAN_BITS};
use shipwatch_series::{
    Append, Config, Engine,
    promql::{EvalOptions, Output, RangeCache, Value, eval_range},
};
use std::sync::Arc;

/// Within `max_ahead` of all samples, and never so late that they are too old.
const NOW_MS: i64 = START_MS + LENGTH_MS;
const DAY_MS: i64 = 86_400_000;
const GRAIN_MS: i64 = 5_000;

/// What the order of series decides, and what the grammar has not.
const MORE: [&str; 20] = [
    "sum(sum by (b) (s#))",
    "topk(2, sum by (b) (s#))",
    "avg by (a) (s# offset -10s)",
    "count_values by (b) (\"v\", s# @ 1700001200)",
    "sum(sum by (job) (g#))",
    "avg by (job) (sum by (instance) (g#))",
    "stddev(sum by (instance) (rate(c#_total[2m])))",
    "topk(1, sum by (job) (n#))",
    "topk(2, count by (instance) (n# > 0))",
    "bottomk by (job) (1, n#)",
    "limitk(2, sum by (instance) (n#))",
    "limit_ratio(0.5, g#)",
    "sum(g# * on (instance) group_left (version) i#_info)",
    "sum(count_values(\"v\", n#))",
    "rate(g#[2m]) > 0",
    "step() * g# + range()",
    "info(g#)",
    "rate({__name__=~\"c#_total|g#\"}[1m])",
    "histogram_quantile(0.9, rate(h#_bucket[2m]))",
    "max_over_time(rate(g#[1m])[5m:30s])",
];

/// A panel: a query and its window.
struct Panel {
    query: String,
    start: i64,
    step: i64,
    len: i64,
}

impl Panel {
    fn new(random: &mut Random, set: &str) -> Self {
        let query = match random.below(3) {
            0 => MORE[random.below(MORE.len() as u64) as usize].replace('#', set),
            _ => queries::question(random, set).ours,
        };
        let step = 1_000 * (5 + random.below(90) as i64);
        // Half of the windows have steps at which there are samples.
        let grain = if random.one_in(2) { GRAIN_MS } else { 1 };
        let start = (START_MS + random.below(LENGTH_MS as u64) as i64) / grain * grain;
        Self { query, start, step, len: 1 + random.below(30) as i64 }
    }

    /// As a dashboard does: mostly on by a step or two.
    fn move_on(&mut self, random: &mut Random) {
        match random.below(8) {
            0 => self.start -= self.step * random.below(4) as i64,
            1 => self.len = (self.len + random.below(9) as i64 - 4).max(1),
            2 => (self.start, self.len) = (self.start - self.step * 5, self.len + 10),
            3 => (self.start, self.len) = (self.start + self.step * 3, (self.len - 5).max(1)),
            4 => {}
            _ => self.start += self.step * (1 + random.below(3) as i64),
        }
    }

    fn ask(&self, engine: &Engine, options: &EvalOptions) -> Result<Output, String> {
        // The end need not be a step.
        let end = self.start + self.step * self.len - 1;
        eval_range(engine, &self.query, self.start, end, self.step, options).map_err(|error| error.to_string())
    }
}

/// All of an answer; every NaN is the same.
fn shown(answer: Result<Output, String>) -> Result<Vec<String>, String> {
    let output = answer?;
    let Value::Matrix(series) = output.value else { panic!("a range query has a matrix") };
    let mut lines: Vec<String> = output.warnings.iter().chain(&output.infos).cloned().collect();
    for one in series {
        let bits = |value: &f64| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
        lines.extend(one.ts.iter().zip(&one.values).map(|(ts, value)| format!("{} {ts} {value} {:x}", one.labels, bits(value))));
    }
    Ok(lines)
}

/// Samples in the order in which they come.
fn stream(random: &mut Random, set: &str) -> Vec<Sample> {
    let mut all = Vec::new();
    for series in data::series(random, set) {
        let labels = Arc::new(Labels::new(series.labels).unwrap());
        // Of fractions that have no end in binary, the order of a sum decides the last bit.
        let scale = if labels.metric_name().starts_with('g') { 0.1 } else { 1.0 };
        for (ts_ms, value) in series.samples {
            let sample = |value: f64| Sample { labels: labels.clone(), ts_ms, value };
            let late = if random.one_in(30) { random.below(600_000) as i64 } else { 0 };
            all.push((ts_ms + late, sample(value * scale)));
            if random.one_in(60) {
                all.push((ts_ms + random.below(900_000) as i64, sample(value + 1.0)));
            }
        }
    }
    short_lives(random, set, &mut all);
    all.sort_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, sample)| sample).collect()
}

/// Series that come and go, of which groups by `b` are met in an order that depends on who is there.
fn short_lives(random: &mut Random, set: &str, all: &mut Vec<(i64, Sample)>) {
    for number in 0..40 {
        let (a, b) = (format!("{number:02}"), (random.below(6)).to_string());
        let labels = Arc::new(Labels::new([("__name__", format!("s{set}")), ("a", a), ("b", b)]).unwrap());
        let mut at = (START_MS + random.below(LENGTH_MS as u64) as i64) / GRAIN_MS * GRAIN_MS;
        for left in (0..1 + random.below(20)).rev() {
            let value = if left == 0 { f64::from_bits(STALE_NAN_BITS) } else { (1 + random.below(3)) as f64 * 0.1 };
            all.push((at, Sample { labels: labels.clone(), ts_ms: at, value }));
            at += GRAIN_MS * (1 + random.below(6) as i64);
        }
    }
}

struct Run {
    random: Random,
    engine: Engine,
    cached: EvalOptions,
    stream: std::vec::IntoIter<Sample>,
    panels: Vec<Panel>,
    history: Vec<String>,
}

impl Run {
    fn new(seed: u64, dir: &std::path::Path) -> Self {
        let mut random = Random::new(seed);
        let set = data::name(seed);
        let mut config = Config { retention_days: 1, promql_experimental: true, ..Config::default() };
        // Approximate answers, of samples that have expired, are not kept.
        config.tiers.enabled = has_summaries(seed);
        let (engine, _) = Engine::open(dir, config).unwrap();
        let cache = Arc::new(RangeCache::new(1 << 20));
        let cached = EvalOptions { cache: Some(cache), ..EvalOptions::new(engine.config()) };
        let stream = stream(&mut random, &set).into_iter();
        let panels = (0..12).map(|_| Panel::new(&mut random, &set)).collect();
        let mut run = Self { random, engine, cached, stream, panels, history: Vec::new() };
        run.append();
        run
    }

    fn append(&mut self) {
        let most = if self.random.one_in(2) { self.stream.len() as u64 / 6 + 40 } else { 5 };
        let count = 1 + self.random.below(most) as usize;
        let samples: Vec<Sample> = self.stream.by_ref().take(count).collect();
        self.history.push(format!("{} samples to {:?}", samples.len(), samples.last().map(|sample| sample.ts_ms)));
        self.engine.append_at(NOW_MS, vec![Append { samples: Arc::new(samples), ..Append::default() }]).unwrap();
    }

    fn ask(&mut self) {
        let at = self.random.below(self.panels.len() as u64) as usize;
        let panel = &mut self.panels[at];
        panel.move_on(&mut self.random);
        self.history.push(format!("{} from {} step {} steps {}", panel.query, panel.start, panel.step, panel.len));
        let fresh = EvalOptions { cache: None, ..self.cached.clone() };
        let (kept, fresh) = (shown(panel.ask(&self.engine, &self.cached)), shown(panel.ask(&self.engine, &fresh)));
        if kept == fresh {
            return;
        }
        let (kept, fresh) = (kept.unwrap_or_else(|error| vec![error]), fresh.unwrap_or_else(|error| vec![error]));
        let lost: Vec<_> = fresh.iter().filter(|line| !kept.contains(line)).take(5).collect();
        let odd: Vec<_> = kept.iter().filter(|line| !fresh.contains(line)).take(5).collect();
        let history = &self.history[self.history.len().saturating_sub(12)..];
        panic!("{}\nlost: {lost:#?}\nodd: {odd:#?}", history.join("\n"));
    }

    fn step(&mut self) {
        match self.random.below(60) {
            0..=6 => self.append(),
            7 => {
                self.history.push("seal".to_owned());
                self.engine.seal(NOW_MS + 4 * 3_600_000).unwrap();
            }
            8 if self.random.one_in(2) => {
                self.history.push("retention".to_owned());
                self.engine.seal(NOW_MS + 4 * 3_600_000).unwrap();
                self.engine.retain(NOW_MS + 3 * DAY_MS).unwrap();
            }
            _ => self.ask(),
        }
    }
}

const fn has_summaries(seed: u64) -> bool {
    seed % 5 == 4
}

#[expect(clippy::disallowed_methods, reason = "the size of a test run is chosen by whoever runs it")]
fn seeds() -> u64 {
    std::env::var("SHIPWATCH_CACHE_SEEDS").ok().map_or(10, |text| text.parse().unwrap())
}

#[test]
fn a_kept_answer_is_a_fresh_one() {
    let (mut hits, mut misses) = (0, 0);
    for seed in 0..seeds() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = Run::new(seed, dir.path());
        for _ in 0..400 {
            run.step();
        }
        let stats = run.cached.cache.as_ref().unwrap().stats();
        if !has_summaries(seed) {
            (hits, misses) = (hits + stats.hits_total, misses + stats.misses_total);
        }
    }
    println!("{hits} queries with kept steps, {misses} without");
    assert!(hits > misses, "{hits} queries with kept steps, {misses} without: the test has lost its way");
}
