//! The log engine in this process: bytes per line, ingest per CPU second, queries, memory.
//!
//! CPU time is that of the whole process, so that other load on the machine does not count; wall time stands beside it for the
//! queries. Times of lines are given: nothing waits.

mod corpus;

use crate::{
    float, progress,
    report::{Report, figure},
    usage::Usage,
};
use anyhow::{Result, ensure};
use corpus::{Kind, Lines};
use rustix::time::{ClockId, clock_gettime};
use shipwatch_common::model::{FileId, Labels, LogBatch, LogLine};
use shipwatch_logs::{Append, Config, CountBy, Direction, Engine, Query, Search};
use std::{
    path::Path,
    time::{Duration, Instant},
};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
/// The border of a day.
const START: i64 = 20_780 * DAY;
const MB: f64 = 1e6;
/// Runs of each query; the middle one counts.
const RUNS: usize = 5;
/// Lines of one file in one append.
const BATCH: usize = 1_000;

/// What is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Text of each of the two stores.
    pub megabytes: u32,
    /// Streams in the mixed store.
    pub streams: u32,
}

/// Runs it.
///
/// # Errors
/// The store cannot be written or a query fails.
pub fn run(options: &Options) -> Result<Report> {
    let Options { megabytes, streams } = *options;
    let mut report = Report::begin("logs", format!("{megabytes} MB of text each, {streams} streams"));
    let bytes = u64::from(megabytes) * 1_000_000;
    let dir = tempfile::tempdir()?;
    let nginx = fill(dir.path(), bytes, &[Kind::Nginx], 1)?;
    report.figures([
        figure("nginx_bytes_per_line", "nginx, files and all", "bytes per line", nginx.stored / nginx.lines),
        figure("nginx_ratio", "nginx, text to files", "times", nginx.text / nginx.stored).budget(9.0).more_is_better(),
        figure("nginx_ingest", "nginx, commit and seal", "MB per CPU s", nginx.text / MB / nginx.cpu_s).budget(100.0).more_is_better(),
    ]);
    drop(dir);
    let dir = tempfile::tempdir()?;
    let kinds =
        [Kind::NginxIds, Kind::Java, Kind::NginxIds, Kind::Java, Kind::NginxIds, Kind::Php, Kind::Java, Kind::NginxIds, Kind::Logfmt];
    let mixed = fill(dir.path(), bytes, &kinds, streams)?;
    report.figures([
        figure("mixed_line", "mixed, text", "bytes per line", mixed.text / mixed.lines),
        figure("mixed_bytes_per_line", "mixed, files and all", "bytes per line", mixed.stored / mixed.lines).budget(60.0),
        figure("mixed_ingest", "mixed, commit and seal", "MB per CPU s", mixed.text / MB / mixed.cpu_s).budget(100.0).more_is_better(),
        figure("ingest_rss", "highest resident memory", "MB", float(Usage::of(std::process::id())?.peak_rss_bytes) / MB),
    ]);
    queries(dir.path(), &mixed, &mut report)?;
    drop(dir);
    month(streams, &mut report)?;
    Ok(report)
}

/// A filled store.
struct Filled {
    text: f64,
    lines: f64,
    stored: f64,
    cpu_s: f64,
    needle: String,
}

fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "seconds of one run")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    seconds
}

fn labels(kind: Kind, at: u32) -> Result<Labels> {
    let app = match kind {
        Kind::Nginx | Kind::NginxIds => "nginx",
        Kind::Java => "java",
        Kind::Php => "php",
        Kind::Logfmt => "catalogue",
    };
    Ok(Labels::new([("app", app), ("env", "prod"), ("host", &*format!("host-{at:04}"))])?)
}

fn open(dir: &Path) -> Result<Engine> {
    Ok(Engine::open(dir, Config { max_behind: Duration::ZERO, ..Config::default() })?.0)
}

fn batch(lines: &mut Lines, count: usize, offset: &mut u64) -> Vec<LogLine> {
    let mut line = |_| {
        let (ts_ns, severity, text) = lines.line();
        *offset += text.len() as u64 + 1;
        LogLine { ts_ns, end_offset: *offset, severity, truncated: false, text }
    };
    (0..count).map(&mut line).collect()
}

fn append(engine: &Engine, labels: &Labels, stream: u32, lines: Vec<LogLine>) -> Result<()> {
    let batch = LogBatch { file: FileId(u128::from(stream) + 1), labels: labels.clone(), lines };
    engine.append(vec![Append { source: String::new(), seq: 0, agent: format!("agent-{stream}"), batches: vec![batch] }])?;
    Ok(())
}

fn fill(dir: &Path, bytes: u64, kinds: &[Kind], streams: u32) -> Result<Filled> {
    progress(format!("{} MB, {streams} streams", bytes / 1_000_000));
    let engine = open(dir)?;
    let mut sources = Vec::new();
    // A day's length, whatever the size.
    let per_stream = bytes / 200 / u64::from(streams);
    let pace = 80_000 * 1_000_000_000 / per_stream.max(1);
    for (at, kind) in (0..streams).zip(kinds.iter().cycle()) {
        sources.push((labels(*kind, at)?, Lines::new(u64::from(at) + 1, *kind, START, pace), 0u64));
    }
    let mut all = Filled { text: 0.0, lines: 0.0, stored: 0.0, cpu_s: 0.0, needle: String::new() };
    while all.text < float(bytes) {
        for (at, (labels, lines, offset)) in (0..).zip(&mut sources) {
            let lines = batch(lines, BATCH, offset);
            all.text += float(lines.iter().map(|line| line.text.len() as u64).sum());
            all.lines += float(lines.len() as u64);
            if all.text > float(bytes) / 2.0 && all.needle.is_empty() {
                all.needle = lines[BATCH / 2].text.clone();
            }
            let begun = cpu();
            append(&engine, labels, at, lines)?;
            all.cpu_s += cpu() - begun;
        }
    }
    let begun = cpu();
    engine.seal(0)?;
    engine.seal(i64::MAX / 2)?;
    drop(engine);
    all.cpu_s += cpu() - begun;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.ends_with("head.db") {
            all.stored += float(path.metadata()?.len());
        }
    }
    Ok(all)
}

/// Time of one query: the middle of some runs, wall and CPU.
fn time(mut work: impl FnMut() -> Result<u64>) -> Result<(f64, f64, u64)> {
    let (mut times, mut found) = (Vec::new(), 0);
    for _ in 0..RUNS {
        let (begun, wall) = (cpu(), Instant::now());
        found = work()?;
        times.push((wall.elapsed().as_secs_f64() * 1e3, (cpu() - begun) * 1e3));
    }
    times.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (wall, cpu) = times[RUNS / 2];
    Ok((wall, cpu, found))
}

fn count(engine: &Engine, query: &str, start_ns: i64, end_ns: i64, step_ns: i64) -> Result<u64> {
    let query = Query::parse(query)?;
    let count = CountBy { start_ns, end_ns, step_ns, by_severity: true, deadline: None };
    let found = engine.count_by(&query, &count)?;
    ensure!(found.stats.lost_blocks == 0, "a block cannot be read");
    Ok(found.counts.iter().map(|count| count.lines).sum())
}

fn queries(dir: &Path, mixed: &Filled, report: &mut Report) -> Result<()> {
    progress("queries");
    let engine = open(dir)?;
    let marker = mixed.needle.rsplit(['"', '=', ' ']).find(|part| part.len() >= 16).unwrap_or("").to_owned();
    let needle = Query::parse(&format!("{{env=\"prod\"}} |~ `\\b{marker}\\b`"))?;
    let search = Search { start_ns: START, end_ns: START + DAY, limit: 10, direction: Direction::Backward, cursor: None, deadline: None };
    let (wall, cpu, found) = time(|| Ok(engine.search(&needle, &search)?.entries.len() as u64))?;
    report.check(format!("the needle {marker} is found once"), found == 1);
    report.figures([figure("needle_ms", "one line by its id", "ms", wall), figure("needle_cpu_ms", "the same", "CPU ms", cpu)]);
    let all = |query: &str| count(&engine, query, START, START + DAY, DAY);
    for (key, what, query) in [
        ("substring", "a part of a word that no line has", r#"{env="prod"} |= "qjzvk""#),
        ("phrase", "a phrase", r#"{env="prod"} |= "moved to PACKED""#),
        ("regex", "an expression over nginx", r#"{app="nginx"} |~ "GET /api/v[0-9]+/orders/[0-9]+ HTTP""#),
        ("count_all", "all lines", r#"{env="prod"}"#),
    ] {
        let (wall, cpu, found) = time(|| all(query))?;
        progress(format!("{what}: {found} lines, {wall:.1} ms, {cpu:.1} CPU ms"));
        report.figures([figure(key, what, "ms", wall)]);
        if key == "substring" {
            let rate = mixed.text / MB / (cpu / 1e3);
            report.figures([figure("substring_rate", "scan", "MB per CPU s", rate).budget(1_000.0).more_is_better()]);
        }
    }
    Ok(())
}

/// Thirty days of streams that are not busy.
fn month(streams: u32, report: &mut Report) -> Result<()> {
    progress("histogram over 30 days");
    let dir = tempfile::tempdir()?;
    let engine = open(dir.path())?;
    let mut lines_total = 0;
    for at in 0..streams {
        let labels = labels(Kind::Nginx, at)?;
        let mut offset = 0;
        for day in 0..30 {
            let mut lines =
                Lines::new(u64::from(at) * 31 + day, Kind::Nginx, START + i64::try_from(day)? * DAY, 85_000 * 1_000_000_000 / 2_000);
            let lines = batch(&mut lines, 2_000, &mut offset);
            lines_total += lines.len() as u64;
            append(&engine, &labels, at, lines)?;
        }
    }
    engine.seal(0)?;
    engine.seal(i64::MAX / 2)?;
    let (wall, cpu, found) = time(|| count(&engine, r#"{env="prod"}"#, START, START + 31 * DAY, 3_600 * SECOND))?;
    report.check("the histogram counts every line".to_owned(), found == lines_total);
    report.figures([
        figure("histogram_ms", "volume by severity over 30 days, hourly", "ms", wall).budget(200.0),
        figure("histogram_cpu_ms", "the same", "CPU ms", cpu),
    ]);
    Ok(())
}
