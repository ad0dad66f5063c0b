//! The time-series engine in this process: bytes per sample sealed, time of queries over sealed and over live samples, memory
//! and start of a fleet.
//!
//! Queries move their window between runs, as a dashboard that refreshes does. Samples carry their own times: nothing waits.

use crate::{
    fleet::series::{Host, Layout},
    float, progress,
    report::{Report, figure},
    stack::size_of,
    usage::Usage,
};
use anyhow::{Context as _, Result};
use shipwatch_common::model::{Labels, Sample};
use shipwatch_series::{
    Append, Config, Engine,
    promql::{EvalOptions, eval_instant, eval_range},
};
use std::{path::Path, sync::Arc, time::Instant};

const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;
/// The border of a day.
const START: i64 = 20_780 * DAY;
const MB: f64 = 1e6;
/// Runs of each query; the middle one counts.
const RUNS: i64 = 9;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Hosts of the queries.
    pub hosts: u32,
    /// Series of each, for disk and memory.
    pub series: usize,
    /// Days of the long ranges.
    pub days: u32,
}

/// Runs it.
///
/// # Errors
/// The store cannot be written or a query fails.
pub fn run(options: &Options) -> Result<Report> {
    let Options { hosts, series, days } = *options;
    let mut report = Report::begin("series", format!("{hosts} hosts, {series} series each, {days} days"));
    disk(series, &mut report).context("disk")?;
    summaries(series, &mut report).context("summaries")?;
    sealed(hosts, days, &mut report).context("sealed")?;
    live(hosts, series, &mut report).context("live")?;
    Ok(report)
}

/// Hosts that tick together; labels are shared between their ticks.
struct Fleet {
    hosts: Vec<(Host, Vec<Arc<Labels>>)>,
}

impl Fleet {
    fn new(hosts: u32, series: usize) -> Self {
        let layout = Arc::new(Layout::new(series));
        let host = |at: u32| {
            let name = format!("host-{at:05}.example");
            let mut host = Host::new(Arc::clone(&layout), u64::from(at) + 1);
            let with_host = |labels: &Labels| Labels::new(labels.iter().chain([("instance", &*name), ("env", "prod")])).ok().map(Arc::new);
            let labels = host.tick().iter().filter_map(|(labels, _)| with_host(labels)).collect();
            (host, labels)
        };
        Self { hosts: (0..hosts).map(host).collect() }
    }

    fn tick(&mut self, ts_ms: i64, out: &mut Vec<Sample>) {
        for (host, labels) in &mut self.hosts {
            let values = host.tick();
            out.extend(labels.iter().zip(values).map(|(labels, (_, value))| Sample { labels: Arc::clone(labels), ts_ms, value }));
        }
    }
}

fn append(engine: &Engine, now: i64, samples: Vec<Sample>) -> Result<u64> {
    let count = samples.len() as u64;
    engine.append_at(now, vec![Append { samples: Arc::new(samples), ..Append::default() }])?;
    Ok(count)
}

fn open(dir: &Path, days: u32) -> Result<Engine> {
    let config = Config { retention_days: days + 10, query_max_samples: 200_000_000, ..Config::default() };
    Ok(Engine::open(dir, config)?.0)
}

/// Four full windows of a few hosts at 15 s.
fn disk(series: usize, report: &mut Report) -> Result<()> {
    progress("disk: 20 hosts, 8 hours at 15 s");
    let dir = tempfile::tempdir()?;
    let engine = open(dir.path(), 1)?;
    let (mut fleet, mut samples, mut chunks, mut seal_s) = (Fleet::new(20, series), 0, 0, 0.0);
    for window in 0..4 {
        for part in 0..24 {
            let mut batch = Vec::new();
            (0..20).for_each(|tick| fleet.tick(START + window * 2 * HOUR + (part * 20 + tick) * 15 * SECOND, &mut batch));
            samples += append(&engine, START + 8 * HOUR, batch)?;
        }
        let begun = Instant::now();
        chunks += engine.seal(START + (window * 2 + 4) * HOUR)?.chunks;
        seal_s += begun.elapsed().as_secs_f64();
    }
    let bytes = float(engine.stats().day_bytes);
    report.figures([
        figure("disk_bytes_per_sample", "sealed, index and all", "bytes per sample", bytes / float(samples)).budget(0.5),
        figure("disk_samples_per_chunk", "samples per chunk", "", float(samples) / float(chunks.max(1))),
        figure("seal_samples_per_s", "sealing", "samples per s", float(samples) / seal_s),
    ]);
    Ok(())
}

/// A day of a few hosts at 15 s, and what its summaries take.
fn summaries(series: usize, report: &mut Report) -> Result<()> {
    progress("summaries: 4 hosts, a day at 15 s");
    let dir = tempfile::tempdir()?;
    let engine = open(dir.path(), 1)?;
    let (mut fleet, mut samples) = (Fleet::new(4, series), 0);
    for window in 0..12 {
        for part in 0..24 {
            let mut batch = Vec::new();
            (0..20).for_each(|tick| fleet.tick(START + window * 2 * HOUR + (part * 20 + tick) * 15 * SECOND, &mut batch));
            samples += append(&engine, START + DAY, batch)?;
        }
        engine.seal(START + (window * 2 + 4) * HOUR)?;
    }
    let begun = Instant::now();
    engine.summarize(START + 2 * DAY)?;
    let summarize_s = begun.elapsed().as_secs_f64();
    let bytes = |suffix: &str| -> Result<f64> {
        let mut sum = 0.0;
        for entry in std::fs::read_dir(dir.path())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(suffix) {
                sum += float(entry.metadata()?.len());
            }
        }
        Ok(sum / float(samples))
    };
    report.figures([
        figure("summaries_day_bytes", "the day's samples themselves", "bytes per sample", float(engine.stats().day_bytes) / float(samples)),
        figure("summaries_5m_bytes", "summaries of five minutes", "bytes per sample", bytes(".5m.db")?),
        figure("summaries_1h_bytes", "summaries of an hour", "bytes per sample", bytes(".1h.db")?),
        figure("summaries_samples_per_s", "making both", "samples per s", float(samples) / summarize_s),
    ]);
    Ok(())
}

/// Three series of each host at 60 s for long.
fn sealed(hosts: u32, days: u32, report: &mut Report) -> Result<()> {
    progress(format!("sealed: {hosts} hosts, 3 series, {days} days at 60 s"));
    let dir = tempfile::tempdir()?;
    let engine = open(dir.path(), days)?;
    let of_host = |host: u32| {
        [("node_load1", ""), ("node_memory_MemAvailable_bytes", ""), ("node_cpu_seconds_total", "idle")].map(|(name, mode)| {
            let name_of = format!("host-{host:05}.example");
            let pairs = [("__name__", name), ("instance", &*name_of), ("job", "node"), ("env", "prod"), ("mode", mode)];
            Labels::new(pairs).ok().map(Arc::new)
        })
    };
    let labels: Vec<Arc<Labels>> = (0..hosts).flat_map(of_host).flatten().collect();
    let mut random = crate::random::Random::new(9);
    let mut values = vec![0u32; labels.len()];
    let end = START + i64::from(days) * DAY;
    for window in 0..i64::from(days) * 12 {
        let mut batch = Vec::new();
        for tick in 0..120 {
            for (at, (labels, value)) in labels.iter().zip(&mut values).enumerate() {
                #[expect(clippy::cast_possible_truncation, reason = "below 6,000")]
                let moved = random.below(if at % 3 == 2 { 6_000 } else { 300 }) as u32;
                *value = if at % 3 == 2 { value.wrapping_add(moved) } else { (*value + moved).saturating_sub(149) };
                let ts_ms = START + window * 2 * HOUR + tick * 60 * SECOND;
                let scale = [0.01, 4_096.0, 0.01][at % 3];
                batch.push(Sample { labels: Arc::clone(labels), ts_ms, value: (f64::from(*value) * scale * 100.0).round() / 100.0 });
            }
        }
        append(&engine, end, batch)?;
        engine.seal(START + (window * 2 + 4) * HOUR)?;
    }
    let one = "host-00007.example";
    for (key, what, query, length, step) in [
        ("sealed_instant", "instant, a day back: avg by host", "avg by (instance) (rate(node_cpu_seconds_total[5m]))".to_owned(), 0, 0),
        ("sealed_1h", "1 h, fleet", "node_load1".to_owned(), HOUR, 60 * SECOND),
        ("sealed_24h_sum", "24 h, fleet: sum of rates", "sum(rate(node_cpu_seconds_total[5m]))".to_owned(), DAY, 300 * SECOND),
        ("sealed_24h_each", "24 h, fleet: one line per host", "node_load1".to_owned(), DAY, 300 * SECOND),
        (
            "sealed_30d_host",
            "30 d, one host: max over an hour",
            format!("max_over_time(node_load1{{instance=\"{one}\"}}[1h])"),
            29 * DAY,
            HOUR,
        ),
        ("sealed_30d_fleet", "30 d, fleet: average", "avg(node_memory_MemAvailable_bytes)".to_owned(), 29 * DAY, HOUR),
        ("sealed_30d_rate", "30 d, fleet: sum of rates over an hour", "sum(rate(node_cpu_seconds_total[1h]))".to_owned(), 29 * DAY, HOUR),
        ("sealed_regex", "1 h, 20 hosts by name", format!("node_load1{{instance=~\"{}\"}}", names(20)), HOUR, 60 * SECOND),
    ] {
        if length <= i64::from(days) * DAY {
            let at = if length == 0 { end - DAY } else { end - HOUR };
            time_query(&engine, (key, what), &query, at, length, step, report)?;
        }
    }
    summarized(&engine, days, end, report)
}

/// Long ranges whose steps lie on hours, from samples and then from summaries.
fn summarized(engine: &Engine, days: u32, end: i64, report: &mut Report) -> Result<()> {
    let before = engine.stats().day_bytes;
    while engine.summarize(end + DAY)?.days > 0 {}
    progress(format!("summaries: {} bytes beside {before}", engine.stats().tier_bytes));
    let length = i64::from(days - 1) * DAY;
    let (avg, rate) = ("avg_over_time(node_memory_MemAvailable_bytes[1h])", "sum(rate(node_cpu_seconds_total[1h]))");
    let last = "avg(node_memory_MemAvailable_bytes)";
    for (key, what, query, summaries) in [
        ("aligned_avg_samples", "by the hour, fleet: average over it, from samples", avg, false),
        ("aligned_avg", "by the hour, fleet: average over it, from summaries", avg, true),
        ("aligned_rate_samples", "by the hour, fleet: sum of rates over it, from samples", rate, false),
        ("aligned_rate", "by the hour, fleet: sum of rates over it, from summaries", rate, true),
        ("aligned_last_samples", "by the hour, fleet: average of values at it, from samples", last, false),
        ("aligned_last", "by the hour, fleet: average of values at it, from summaries", last, true),
    ] {
        let options = EvalOptions { summaries, ..EvalOptions::new(engine.config()) };
        let mut times = Vec::new();
        for run in 0..RUNS {
            let end = end - (RUNS - 1 - run) * HOUR;
            let begun = Instant::now();
            let output = eval_range(engine, query, end - length, end, HOUR, &options).map_err(|e| anyhow::anyhow!("{query}: {e}"))?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            let told = output.infos.iter().any(|info| info.contains("answered from"));
            anyhow::ensure!(told == summaries, "{query}: {:?}", output.infos);
        }
        times.sort_by(f64::total_cmp);
        report.figures([figure(key, what, "ms", times[times.len() / 2])]);
    }
    Ok(())
}

fn names(count: u32) -> String {
    (0..count).map(|at| format!("host-{:05}\\\\.example", at * 3)).collect::<Vec<_>>().join("|")
}

fn time_query(
    engine: &Engine,
    (key, what): (&'static str, &'static str),
    query: &str,
    end: i64,
    length: i64,
    step: i64,
    report: &mut Report,
) -> Result<()> {
    let options = EvalOptions::new(engine.config());
    let mut times = Vec::new();
    for run in 0..RUNS {
        let end = end - (RUNS - 1 - run) * 15 * SECOND;
        let begun = Instant::now();
        let output = if length == 0 {
            eval_instant(engine, query, end, &options)
        } else {
            eval_range(engine, query, end - length, end, step, &options)
        }
        .map_err(|error| anyhow::anyhow!("{query}: {error}"))?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        anyhow::ensure!(output.samples > 0, "{query} found nothing");
    }
    progress(format!("{what}: first {:.1} ms", times[0]));
    times.sort_by(f64::total_cmp);
    report.figures([figure(key, what, "ms", times[times.len() / 2])]);
    Ok(())
}

/// Ten minutes of the whole fleet in the head.
fn live(hosts: u32, series: usize, report: &mut Report) -> Result<()> {
    progress(format!("live: {hosts} hosts, {series} series, 10 min at 15 s"));
    let dir = tempfile::tempdir()?;
    let mut fleet = Fleet::new(hosts, series);
    let count = f64::from(hosts) * float(series as u64);
    let rss = || Usage::of(std::process::id()).map(|usage| float(usage.rss_bytes));
    let before = rss()?;
    let engine = open(dir.path(), 1)?;
    let end = START + 39 * 15 * SECOND;
    for tick in 0..40 {
        let mut batch = Vec::new();
        fleet.tick(START + tick * 15 * SECOND, &mut batch);
        append(&engine, end, batch)?;
    }
    let bytes = rss()? - before;
    report.figures([
        figure("live_bytes_per_series", "growth of resident memory, labels left out", "bytes per series", bytes / count),
        figure("live_mb", "growth of resident memory, labels left out", "MB", bytes / MB),
    ]);
    let cpu = "avg by (instance) (rate(node_cpu_seconds_total[1m]))";
    time_query(&engine, ("live_instant", "instant: cpu by host"), cpu, end, 0, 0, report)?;
    time_query(&engine, ("live_10m", "10 min: cpu by host"), cpu, end, 600 * SECOND, 15 * SECOND, report)?;
    time_query(&engine, ("live_load", "instant: load of every host"), "node_load", end, 0, 0, report)?;
    let regex = "count({__name__=~\"node_(cpu|load).*\"})";
    time_query(&engine, ("live_regex", "instant: names by expression"), regex, end, 0, 0, report)?;
    drop(engine);
    drop(fleet);
    let (before, begun) = (rss()?, Instant::now());
    let head = float(size_of(dir.path())?);
    let engine = open(dir.path(), 1)?;
    let open_s = begun.elapsed().as_secs_f64();
    report.figures([
        figure("start_s", "opening with the whole fleet in the head", "s", open_s).budget(5.0),
        figure("start_head_mb", "head.db", "MB", head / MB),
        figure("start_growth_mb", "growth of resident memory", "MB", (rss()? - before) / MB),
    ]);
    drop(engine);
    Ok(())
}
