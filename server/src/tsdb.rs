//! `shipwatch-server tsdb`: tools for the series store of a stopped server.
//!
//! # Invariants
//! - The data directory's lock is held, so no server can start meanwhile; a running one is refused by naming the lock.
//! - `verify` and `stats` change nothing. `export` first moves what is in `head.db` into day files, as the server does by itself.
//! - Export holds the samples of one two-hour window in memory, import those of [`BATCH`] samples and of what is not sealed.
//! - Results go to standard output, progress and mistakes to standard error.

use clap::{Args, Subcommand, ValueEnum};
use shipwatch_common::{
    model::Sample,
    time::{UnixMs, now_ms},
};
use shipwatch_series::{
    Config, Engine, Matcher, Reason, SelectLimits, Source as _,
    exchange::{json, text},
    promql::parse_selector,
    store::inspect,
};
use std::{
    fs,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Samples that are stored together.
const BATCH: usize = 50_000;
/// Batches after which the past is moved into day files, which bounds memory.
const SEAL_EVERY: u64 = 20;
const WINDOW_MS: i64 = 2 * 3_600_000;
const HOUR_MS: i64 = 3_600_000;

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reads every frame, index and chunk, and says what is damaged; nothing is changed. Exit code 1 if something is.
    Verify {
        /// The result as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Says what each day holds: series, samples, bytes, labels with most series, environments; and what summaries there are.
    Stats {
        /// The result as JSON.
        #[arg(long)]
        json: bool,
        /// How many names and labels are told.
        #[arg(long, default_value_t = 10)]
        top: usize,
    },
    /// Writes samples to standard output.
    Export(Selection),
    /// Stores samples from standard input or a file.
    Import(Import),
}

/// How samples look.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// JSON lines, one series and two hours in each, as VictoriaMetrics has them.
    Jsonl,
    /// OpenMetrics text; times in seconds.
    Openmetrics,
    /// Prometheus' text; times in milliseconds.
    Prometheus,
}

/// Which samples, and how they are written.
#[derive(Args, Debug)]
pub struct Selection {
    /// How the samples are written.
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Format,
    /// Only series that this selector takes, such as '{env="prod"}'; without one, all.
    #[arg(long = "match", value_name = "SELECTOR")]
    selector: Option<String>,
    /// Only samples from this moment on: RFC 3339 or milliseconds since 1970.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only samples up to this moment.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

/// What is imported.
#[derive(Args, Debug)]
pub struct Import {
    #[command(flatten)]
    selection: Selection,
    /// The file; without one, standard input.
    file: Option<PathBuf>,
}

/// Does it. `false` says that damage was found or samples were refused.
///
/// # Errors
/// Text for the person at the terminal.
pub fn run(command: &Command, data: &Path, config: &Config) -> Result<bool, String> {
    let _lock = lock(data)?;
    let dir = data.join("series");
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match command {
        Command::Verify { json } => verify(&dir, *json, &mut out),
        Command::Stats { json, top } => stats(&dir, *json, *top, &mut out),
        Command::Export(what) => export(&dir, config, what, &mut out),
        Command::Import(what) => import(&dir, config, what, &mut out),
    }?;
    out.flush().map_err(text_of)?;
    Ok(done)
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn tell(text: &str) {
    let _nobody_reads = writeln!(io::stderr().lock(), "{text}");
}

fn lock(data: &Path) -> Result<fs::File, String> {
    let (path, series) = (data.join("lock"), data.join("series"));
    if !matches!(series.try_exists(), Ok(true)) {
        return Err(format!("{} holds no series; set SHIPWATCH_DATA to the server's data directory", data.display()));
    }
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(format!("{} is held by a running shipwatch-server; stop it first", path.display())),
        Err(fs::TryLockError::Error(error)) => Err(format!("{}: {error}", path.display())),
    }
}

fn verify(dir: &Path, json: bool, out: &mut impl Write) -> Result<bool, String> {
    let verdict = inspect::verify(dir, |file| tell(&format!("reading {}", file.display()))).map_err(text_of)?;
    if json {
        serde_json::to_writer(&mut *out, &verdict).map_err(text_of)?;
        writeln!(out).map_err(text_of)?;
    } else {
        for damage in &verdict.damage {
            writeln!(out, "{}: {}", damage.file, damage.reason).map_err(text_of)?;
        }
        let found = if verdict.damage.is_empty() { "no damage".to_owned() } else { format!("{} damaged places", verdict.damage.len()) };
        let inspect::Verdict { files, chunks, frames, samples, buckets, .. } = verdict;
        writeln!(out, "{found} in {files} files, {chunks} chunks, {frames} frames, {samples} samples, {buckets} buckets")
            .map_err(text_of)?;
    }
    Ok(verdict.damage.is_empty())
}

fn stats(dir: &Path, json: bool, top: usize, out: &mut impl Write) -> Result<bool, String> {
    let days = inspect::stats(dir, top).map_err(text_of)?;
    let summaries = inspect::tier_stats(dir).map_err(text_of)?;
    if json {
        serde_json::to_writer(&mut *out, &serde_json::json!({ "days": days, "summaries": summaries })).map_err(text_of)?;
        writeln!(out).map_err(text_of)?;
        return Ok(true);
    }
    for day in days {
        show_day(&day, out).map_err(text_of)?;
    }
    for file in summaries {
        show_summaries(&file, out).map_err(text_of)?;
    }
    Ok(true)
}

fn show_summaries(of: &inspect::TierStats, out: &mut impl Write) -> io::Result<()> {
    let inspect::TierStats { file, bytes, days, stale_days, expired_days, series, buckets, samples, bytes_per_sample } = of;
    writeln!(out, "{file}  {series} series  {buckets} buckets of {samples} samples  {bytes} bytes  {bytes_per_sample:.2} bytes/sample")?;
    writeln!(out, "  {days} days, {stale_days} to be made again, {expired_days} of expired samples")
}

fn show_day(day: &inspect::DayStats, out: &mut impl Write) -> io::Result<()> {
    let inspect::DayStats { day, bytes, series, samples, bytes_per_sample, envs, names, pairs } = day;
    writeln!(out, "{day}  {series} series  {samples} samples  {bytes} bytes  {bytes_per_sample:.2} bytes/sample")?;
    for (env, series) in envs {
        writeln!(out, "  env {env:?}: {series} series")?;
    }
    for name in names {
        writeln!(out, "  label {}: {} values, {} series", name.name, name.values, name.series)?;
    }
    for pair in pairs {
        writeln!(out, "  {}={:?}: {} series", pair.name, pair.value, pair.series)?;
    }
    Ok(())
}

/// `--match`, `--from` and `--to`.
struct Chosen {
    matchers: Vec<Matcher>,
    from: UnixMs,
    to: UnixMs,
}

impl Chosen {
    fn new(selection: &Selection) -> Result<Self, String> {
        let matchers = selection
            .selector
            .as_deref()
            .map_or(Ok(Vec::new()), |text| parse_selector(text).map_err(|error| format!("--match: {error}")))?;
        let time = |option: &str, given: Option<&str>, default: UnixMs| {
            given.map_or(Ok(default), |text| {
                parse_time(text).ok_or_else(|| format!("{option}: `{text}` is no time; write 2026-11-23T00:00:00Z"))
            })
        };
        let (from, to) = (selection.from.as_deref(), selection.to.as_deref());
        Ok(Self { matchers, from: time("--from", from, UnixMs::MIN)?, to: time("--to", to, UnixMs::MAX)? })
    }

    fn takes(&self, sample: &Sample) -> bool {
        (self.from..=self.to).contains(&sample.ts_ms) && self.matchers.iter().all(|matcher| matcher.matches_labels(&sample.labels))
    }
}

fn parse_time(text: &str) -> Option<UnixMs> {
    text.parse().ok().or_else(|| text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond))
}

fn open(dir: &Path, config: &Config) -> Result<Engine, String> {
    let (engine, found) = Engine::open(dir, config.clone()).map_err(text_of)?;
    if !found.is_clean() {
        tell(&format!("the store was damaged; what could not be read was put aside: {found:?}"));
    }
    Ok(engine)
}

fn export(dir: &Path, config: &Config, selection: &Selection, out: &mut impl Write) -> Result<bool, String> {
    let chosen = Chosen::new(selection)?;
    let engine = open(dir, config)?;
    // Everything that may have been accepted lies before this.
    engine.seal(now_ms() + 72 * HOUR_MS).map_err(text_of)?;
    let mut samples = 0;
    for (first, last) in engine.sealed_days().into_iter().filter(|(first, last)| *last >= chosen.from && *first <= chosen.to) {
        for start in (first..=last).step_by(WINDOW_MS as usize) {
            let (t0, t1) = (start.max(chosen.from), (start + WINDOW_MS - 1).min(chosen.to));
            let found = engine.select(&chosen.matchers, t0, t1, &SelectLimits::none()).map_err(text_of)?;
            for series in &found {
                samples += series.ts.len() as u64;
                match selection.format {
                    Format::Jsonl => json::write(out, series),
                    Format::Openmetrics => text::write(out, series, text::Format::OpenMetrics),
                    Format::Prometheus => text::write(out, series, text::Format::Prometheus),
                }
                .map_err(text_of)?;
            }
        }
        tell(&format!("exported {samples} samples"));
    }
    if selection.format == Format::Openmetrics {
        text::write_end(out).map_err(text_of)?;
    }
    Ok(true)
}

/// An import at work.
struct Importer<'a> {
    engine: &'a Engine,
    waiting: Vec<Sample>,
    stored: u64,
    refused: [u64; Reason::ALL.len()],
    batches: u64,
    first: Option<String>,
}

impl Importer<'_> {
    fn take(&mut self, sample: Sample) -> Result<(), String> {
        self.waiting.push(sample);
        if self.waiting.len() >= BATCH { self.store() } else { Ok(()) }
    }

    fn store(&mut self) -> Result<(), String> {
        let samples = Arc::new(std::mem::take(&mut self.waiting));
        let report = self.engine.append_strict(now_ms(), samples).map_err(text_of)?;
        self.stored += report.stored;
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            self.refused[at] += report.refused(reason);
        }
        self.first = self.first.take().or_else(|| report.first.map(|refusal| refusal.to_string()));
        self.batches += 1;
        if self.batches.is_multiple_of(SEAL_EVERY) {
            self.engine.seal(now_ms()).map_err(text_of)?;
            tell(&format!("imported {} samples", self.stored));
        }
        Ok(())
    }
}

fn import(dir: &Path, config: &Config, what: &Import, out: &mut impl Write) -> Result<bool, String> {
    let chosen = Chosen::new(&what.selection)?;
    let input: Box<dyn BufRead> = match &what.file {
        Some(path) => Box::new(BufReader::new(fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?)),
        None => Box::new(io::stdin().lock()),
    };
    let engine = open(dir, config)?;
    let mut importer =
        Importer { engine: &engine, waiting: Vec::new(), stored: 0, refused: [0; Reason::ALL.len()], batches: 0, first: None };
    let sink = |sample: Sample| if chosen.takes(&sample) { importer.take(sample) } else { Ok(()) };
    let read = match what.selection.format {
        Format::Jsonl => json::read(input, sink),
        Format::Openmetrics => text::read(input, text::Format::OpenMetrics, None, sink),
        Format::Prometheus => text::read(input, text::Format::Prometheus, None, sink),
    };
    // What came before a mistake is kept; sending it again does no harm.
    importer.store()?;
    engine.seal(now_ms()).map_err(text_of)?;
    writeln!(out, "imported {} samples", importer.stored).map_err(text_of)?;
    for (reason, count) in Reason::ALL.into_iter().zip(importer.refused).filter(|(_, count)| *count > 0) {
        writeln!(out, "refused {count} samples: {reason}").map_err(text_of)?;
    }
    if let Some(first) = &importer.first {
        writeln!(out, "the first one: {first}").map_err(text_of)?;
    }
    read.map_err(text_of)?;
    Ok(importer.first.is_none())
}
