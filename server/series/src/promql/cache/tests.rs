use super::*;
use crate::{
    Append, Config, Engine, MemSource,
    promql::{Output, Value, eval_range},
};
use shipwatch_common::model::{Labels, Sample};

const MINUTE: i64 = 60_000;

fn sample(host: u32, ts_ms: i64, value: f64) -> Sample {
    let labels = Labels::new([("__name__", "load"), ("host", &host.to_string())]).unwrap();
    Sample { labels: Arc::new(labels), ts_ms, value }
}

/// A store with samples of some hosts, one a minute.
struct Bench {
    _dir: tempfile::TempDir,
    engine: Engine,
    cache: Arc<RangeCache>,
}

impl Bench {
    fn new(max_bytes: usize, hosts: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (engine, _) = Engine::open(dir.path(), Config::default()).unwrap();
        let bench = Self { _dir: dir, engine, cache: Arc::new(RangeCache::new(max_bytes)) };
        bench.append((0..hosts).flat_map(|host| (1..=100).map(move |minute| sample(host, minute * MINUTE, f64::from(host)))).collect());
        bench
    }

    fn append(&self, samples: Vec<Sample>) {
        self.engine.append_at(100 * MINUTE, vec![Append { samples: Arc::new(samples), ..Append::default() }]).unwrap();
    }

    /// Asks for minutes; how many samples it took, and the number of series.
    fn ask(&self, query: &str, from: i64, to: i64) -> (u64, usize) {
        let options = EvalOptions { cache: Some(Arc::clone(&self.cache)), ..EvalOptions::default() };
        let Output { value: Value::Matrix(series), samples, .. } =
            eval_range(&self.engine, query, from * MINUTE, to * MINUTE, MINUTE, &options).unwrap()
        else {
            panic!("a range query has a matrix")
        };
        (samples, series.len())
    }

    /// Hits, misses, evictions, entries.
    fn told(&self) -> [u64; 4] {
        let stats = self.cache.stats();
        [stats.hits_total, stats.misses_total, stats.evictions_total, stats.entries]
    }
}

#[test]
fn a_window_that_moves_on_only_takes_its_new_steps() {
    let bench = Bench::new(1 << 20, 10);
    let (whole, _) = bench.ask("max_over_time(load[5m])", 10, 60);
    // 51 steps of ten series are there: one more is read and computed.
    assert_eq!(bench.ask("max_over_time(load[5m])", 11, 61), (10 * 50 + 10 * 5 + 10, 10));
    assert!(whole > 1_000, "{whole}");
    // Spaces around do not matter; nothing is computed twice.
    assert_eq!(bench.ask(" max_over_time(load[5m])\n", 11, 61), (510, 10));
    assert_eq!(bench.told(), [2, 1, 0, 1]);
    // Late samples take their steps and all after with them.
    bench.append(vec![sample(3, 41 * MINUTE, 9.5)]);
    assert_eq!(bench.ask("max_over_time(load[5m])", 11, 61), (10 * 30 + 10 * 25 + 10 * 21, 10));
    // Other steps, another phase, another lookback: others.
    bench.ask("max_over_time(load[6m])", 11, 61);
    let options = EvalOptions { cache: Some(Arc::clone(&bench.cache)), lookback: Duration::from_secs(60), ..EvalOptions::default() };
    eval_range(&bench.engine, "max_over_time(load[5m])", 11 * MINUTE, 61 * MINUTE, MINUTE, &options).unwrap();
    eval_range(&bench.engine, "max_over_time(load[5m])", 11 * MINUTE + 1, 61 * MINUTE, MINUTE, &options).unwrap();
    eval_range(&bench.engine, "max_over_time(load[5m])", 11 * MINUTE, 61 * MINUTE, 2 * MINUTE, &options).unwrap();
    assert_eq!(bench.told(), [3, 5, 0, 5]);
    // What depends on all steps is not counted.
    bench.ask("load @ end()", 11, 61);
    assert_eq!(bench.told(), [3, 5, 0, 5]);
}

#[test]
fn memory_is_bounded_and_what_was_not_asked_for_longest_goes() {
    let bench = Bench::new(16_000, 1);
    let query = |number: u32| format!("load + {number}");
    for number in 0..30 {
        bench.ask(&query(number), 10, 60);
        bench.ask(&query(0), 10, 60);
        let slots = bench.cache.lock();
        assert!(slots.bytes <= 16_000 && slots.by_key.len() == slots.order.len());
        assert_eq!(slots.bytes, slots.by_key.values().map(|slot| slot.bytes).sum::<usize>());
    }
    let [hits, misses, evictions, entries] = bench.told();
    assert_eq!((hits, misses), (30, 30));
    assert!(entries > 5 && entries + evictions == 30, "{entries} {evictions}");
    // The first was asked for all the time.
    assert_eq!(bench.ask(&query(0), 10, 60).0, 51);
    // More than a quarter is not kept.
    let bench = Bench::new(16_000, 9);
    bench.ask("load", 10, 60);
    assert_eq!(bench.told(), [0, 1, 0, 0]);
    let bench = Bench::new(0, 1);
    bench.ask("load", 10, 60);
    assert_eq!(bench.told(), [0, 1, 0, 0]);
}

#[test]
fn a_source_that_does_not_know_its_changes_is_asked_every_time() {
    let mut source = MemSource::new();
    source.push(sample(1, MINUTE, 1.0));
    let cache = Arc::new(RangeCache::new(1 << 20));
    let options = EvalOptions { cache: Some(Arc::clone(&cache)), ..EvalOptions::default() };
    for value in [1.0, 2.0] {
        source.push(sample(1, MINUTE, value));
        let output = eval_range(&source, "load", MINUTE, 3 * MINUTE, MINUTE, &options).unwrap();
        assert!(matches!(&output.value, Value::Matrix(series) if series[0].values == [value; 3]));
    }
    assert_eq!(cache.stats(), CacheStats::default());
}
