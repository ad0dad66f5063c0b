//! A log file through a real agent into a real server: tail, mask, ship, store.
//!
//! Without a rate the whole file appears at once, and the time until its last line can be found on the server is what
//! counts. With a rate it is written as an application would, and what counts is the agent's CPU and memory meanwhile.

use crate::{
    api::wait_for,
    corpus::Corpus,
    float,
    process::Programs,
    progress,
    report::{Report, figure},
    stack::{Agent, Server, size_of},
    usage::Usage,
};
use anyhow::{Context as _, Result, bail};
use shipwatch_common::time::{now_ms, now_ns};
use std::{fs, io::Write as _, path::Path, time::Duration};
use tokio::time::Instant;

/// Lines with something planted, in a hundred.
const DENSE_PERCENT: u64 = 20;
/// The last line; nothing else has this word.
const MARKER: &str = "shipwatch-bench-last-line";
/// Bytes are written this often if there is a rate.
const SLICE: Duration = Duration::from_millis(50);
/// The agent's idle cost is looked at for this long.
const IDLE: Duration = Duration::from_secs(10);
/// Slower than this the run fails.
const LEAST_MB_PER_S: f64 = 0.5;
const MB: f64 = 1e6;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the log.
    pub megabytes: u32,
    /// MB/s; 0 for all at once.
    pub rate: f64,
    /// Seed of the generator.
    pub seed: u64,
}

/// Runs it.
///
/// # Errors
/// A program does not run, or the last line does not arrive.
pub async fn run(options: &Options, programs: &Programs) -> Result<Report> {
    let pace = if options.rate > 0.0 { format!("at {} MB/s", options.rate) } else { "all at once".to_owned() };
    let mut report =
        Report::begin("tail", format!("{} MB, seed {}, {pace}, {DENSE_PERCENT} % with something planted", options.megabytes, options.seed));
    let dir = tempfile::tempdir().context("a temporary directory")?;
    let logs = dir.path().join("logs");
    fs::create_dir(&logs)?;
    progress("generating lines");
    let (text, lines) = generate(options);
    let server = Server::start(programs, dir.path(), "").await?;
    let config = format!("[tail]\nfiles = [\"{}/*.log\"]\n[tail.labels]\napp = \"bench\"", logs.display());
    let agent = Agent::start(programs, &dir.path().join("agent"), &server, &config).await?;
    let mut watched = Watched { server, agent, rss_bytes: 0 };

    progress("looking at the idle agent");
    let (pid, server_pid) = (watched.agent.process.id(), watched.server.process.id());
    let idle_before = Usage::of(pid)?;
    tokio::time::sleep(IDLE).await;
    let (before, server_before) = (Usage::of(pid)?, Usage::of(server_pid)?);
    let idle = (before.cpu - idle_before.cpu).as_secs_f64() / IDLE.as_secs_f64();

    progress("writing, waiting for the last line");
    let (begun, from_ns) = (Instant::now(), now_ns());
    let path = logs.join("app.log");
    if options.rate > 0.0 {
        write_slowly(&path, &text, options.rate, &mut watched).await?;
    } else {
        let hidden = dir.path().join("whole");
        fs::write(&hidden, &text)?;
        fs::rename(&hidden, &path)?;
    }
    watched.last_line(from_ns, text.len()).await?;
    let took = begun.elapsed().as_secs_f64();
    let (after, server_after) = (Usage::of(pid)?, Usage::of(server_pid)?);
    let (cpu, server_cpu) = ((after.cpu - before.cpu).as_secs_f64(), (server_after.cpu - server_before.cpu).as_secs_f64());
    let mb = float(text.len() as u64) / MB;
    if options.rate > 0.0 {
        report.figures([figure("cpu_percent_above_idle", "CPU of the agent above idle", "% of a core", (cpu / took - idle) * 100.0)
            .budget(options.rate)]);
    }
    report.figures([
        figure("mb_per_s", "tail, mask, ship and store on the same cores", "MB/s", mb / took),
        figure("mb_per_agent_cpu_s", "tail, mask, ship", "MB per CPU s of the agent", mb / cpu).budget(100.0),
        figure("mb_per_server_cpu_s", "ingest", "MB per CPU s of the server", mb / server_cpu).budget(100.0),
        figure("agent_rss_mb", "RSS of the agent, highest", "MB", float(watched.rss_bytes) / MB).budget(30.0),
        figure("server_rss_mb", "RSS of the server, end", "MB", float(server_after.rss_bytes) / MB),
    ]);
    finish(watched, lines, text.len(), &mut report).await
}

struct Watched {
    server: Server,
    agent: Agent,
    rss_bytes: u64,
}

impl Watched {
    fn look(&mut self) -> Result<()> {
        self.agent.process.check()?;
        self.server.process.check()?;
        self.rss_bytes = self.rss_bytes.max(Usage::of(self.agent.process.id())?.rss_bytes);
        Ok(())
    }

    /// Waits until the last line can be found.
    async fn last_line(&mut self, from_ns: i64, bytes: usize) -> Result<()> {
        let limit = Duration::from_secs_f64(60.0 + float(bytes as u64) / MB / LEAST_MB_PER_S);
        let (query, from) = (format!("{{app=\"bench\"}} |= \"{MARKER}\""), from_ns.to_string());
        let api = self.server.api.clone();
        wait_for("the last line to arrive", limit, async || {
            self.look()?;
            let to = now_ns().saturating_add(60_000_000_000).to_string();
            let parameters = [("query", query.as_str()), ("start_ns", &from), ("end_ns", &to), ("limit", "2")];
            let page = api.json("/shipwatch/api/v1/logs", &parameters).await?;
            Ok(page["entries"].as_array().is_some_and(|entries| entries.len() == 1).then_some(()))
        })
        .await
    }
}

/// The file's text and its number of lines.
fn generate(options: &Options) -> (String, u64) {
    let bytes = options.megabytes as usize * 1_000_000;
    let mut corpus = Corpus::new(options.seed, DENSE_PERCENT, now_ms());
    let (mut text, mut lines) = (String::with_capacity(bytes + 1_000), 1);
    while text.len() < bytes {
        text.push_str(&corpus.line().text);
        text.push('\n');
        lines += 1;
    }
    text.push_str(MARKER);
    text.push('\n');
    (text, lines)
}

async fn write_slowly(path: &Path, text: &str, rate: f64, watched: &mut Watched) -> Result<()> {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
    let begun = Instant::now();
    let mut written = 0;
    let mut slice = tokio::time::interval(SLICE);
    while written < text.len() {
        slice.tick().await;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and far below 2^53")]
        let due = ((begun.elapsed().as_secs_f64() * rate * MB) as usize).min(text.len());
        file.write_all(&text.as_bytes()[written..due.max(written)])?;
        written = due.max(written);
        watched.look()?;
    }
    Ok(())
}

/// Stops both, so that everything is on disk, and counts.
async fn finish(mut watched: Watched, lines: u64, bytes: usize, report: &mut Report) -> Result<Report> {
    let stored = watched.server.api.own_metric("shipwatch_ingest_log_lines_total").await?;
    report.check(format!("{stored} lines were stored of {lines} that were written"), (stored - float(lines)).abs() < 0.5);
    for process in [&mut watched.agent.process, &mut watched.server.process] {
        let status = process.stop().await?;
        if !status.success() {
            bail!("a program ended with {status}: {}", process.last_words());
        }
    }
    let disk = float(size_of(&watched.server.data().join("logs"))?);
    report.figures([
        figure("disk_bytes_per_line", "on disk, index and all", "bytes per line", disk / float(lines)),
        figure("line_bytes", "length of a line", "bytes", float(bytes as u64) / float(lines)),
    ]);
    Ok(report.clone())
}
