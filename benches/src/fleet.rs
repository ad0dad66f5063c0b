//! A fleet of simulated agents over real QUIC against a real server.
//!
//! - [`series`]: what a simulated host measures; [`agent`]: how it sends that; [`verify`]: whether the server has it all
//! - `ingest`: every agent sends as fast as acknowledgements come, with times of the last day, so that there is a lot to seal
//! - `swarm`: every agent ticks on the grid of the interval, all at the same moment, as real agents do
//!
//! Each agent is enrolled through the real path and has its own key, certificate, socket and connection. Snapshots are
//! made by the encoder that real agents use. Left out: the agent's spool, and reconnecting.
//!
//! Order: enrol, connect, announce all series in a first tick, run, wait for every acknowledgement, ask the server for every
//! series' count, stop the server, seal what it stored in this process, ask the same again.

pub mod agent;
pub mod disk;
pub mod series;
pub mod verify;

use crate::{
    float,
    process::Programs,
    progress,
    report::{Report, figure},
    stack::Server,
    usage::{self, Usage, quantile},
};
use agent::{Outcome, Pace, Plan};
use anyhow::{Context as _, Result, bail};
use shipwatch_common::{
    identity::Credentials,
    time::{format_duration, now_ms},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Barrier, Semaphore},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Handshakes at a time: a wave larger than the server's backlog would measure its time-outs.
const HANDSHAKES: usize = 32;
/// All agents are enrolled, connected and have announced their series within this time.
const START_TIMEOUT: Duration = Duration::from_secs(600);
/// What was sent at the end is acknowledged within this time.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);
/// Sealing waits until the run is over; a fleet of any size has room.
const CONFIG: &str = "[series]\nseal_delay = \"1d\"\nmax_head_series = 100000000\n";
/// How far before now the times of `ingest` begin; within `seal_delay`.
const PAST_MS: i64 = 22 * 3_600_000;
const MB: f64 = 1e6;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Simulated agents.
    pub agents: u32,
    /// Series of each.
    pub series: usize,
    /// How long they send.
    pub length: Duration,
    /// Between two samples of a series.
    pub interval: Duration,
    /// Send on the grid of the interval; else as fast as acknowledgements come.
    pub paced: bool,
    /// Ticks of one agent that may wait for their acknowledgement, if not paced.
    pub window: usize,
}

impl Options {
    fn settings(&self) -> String {
        let Self { agents, series, .. } = self;
        let (length, interval) = (format_duration(self.length), format_duration(self.interval));
        let pace = if self.paced { format!("at {interval}") } else { format!("as fast as it goes, {} ticks ahead", self.window) };
        format!("{agents} agents of {series} series for {length}, {pace}")
    }

    fn plan(&self) -> Plan {
        let step_ms = i64::try_from(self.interval.as_millis()).unwrap_or(15_000).max(1);
        let now = now_ms();
        let grid = |at: i64| at - at.rem_euclid(step_ms);
        let (first_ms, pace) = if self.paced {
            (grid(now), Pace::Grid { step_ms })
        } else {
            let most = u64::try_from(PAST_MS / step_ms).unwrap_or(0);
            (grid(now - PAST_MS), Pace::Ahead { step_ms, window: self.window, most })
        };
        Plan { first_ms, pace, layout: Arc::new(series::Layout::new(self.series)) }
    }
}

/// Runs it.
///
/// # Errors
/// A program does not run, an agent loses its connection, or something takes too long.
pub async fn run(options: &Options, programs: &Programs) -> Result<Report> {
    let mut report = Report::begin(if options.paced { "swarm" } else { "ingest" }, options.settings());
    let dir = tempfile::tempdir().context("a temporary directory")?;
    let mut server = Server::start(programs, dir.path(), CONFIG).await?;

    let begun = Instant::now();
    progress(format!("enrolling {} agents", options.agents));
    let identities = tokio::time::timeout(START_TIMEOUT, enrol(&server, options.agents)).await.context("enrolling takes too long")??;
    report.figures([figure("enrolments_per_s", "enrolments", "per s", f64::from(options.agents) / begun.elapsed().as_secs_f64())]);

    let plan = options.plan();
    let run = drive(options, &plan, identities, &mut server).await?;
    rates(&mut report, options, &run);
    costs(&mut report, &run);

    progress("asking the server for every series");
    let asked = Instant::now();
    let last_ms = run.outcomes.iter().map(|outcome| outcome.last_ms).max().unwrap_or(plan.first_ms);
    let expected = verify::Expected::new(&plan, &run.outcomes, last_ms);
    let found = verify::check(&expected, async |query| server.api.query(query, Some(last_ms)).await).await?;
    report.figures([figure("verify_s", "asking for the count of every series", "s", asked.elapsed().as_secs_f64())]);
    found.report(&mut report, "in the running server");

    progress("stopping the server, sealing what it stored");
    let status = server.process.stop().await?;
    report.check(format!("the server stopped well ({status})"), status.success());
    disk::seal_and_check(&server.data().join("series"), &expected, &mut report).await?;
    Ok(report)
}

/// Enrols agents through the real path, each with a key of its own.
async fn enrol(server: &Server, count: u32) -> Result<Vec<Credentials>> {
    let token = server.token(count).await?;
    let (turns, mut tasks) = (Arc::new(Semaphore::new(HANDSHAKES)), JoinSet::new());
    for number in 0..count {
        let (token, address, turns) = (token.clone(), server.agents_address().to_owned(), Arc::clone(&turns));
        tasks.spawn(async move {
            let _turn = turns.acquire_owned().await?;
            agent::enrol(&address, &token, &agent::name(number)).await.map(|credentials| (number, credentials))
        });
    }
    let mut all = BTreeMap::new();
    while let Some(done) = tasks.join_next().await {
        let (number, credentials) = done??;
        all.insert(number, credentials);
    }
    Ok(all.into_values().collect())
}

/// What a run of the whole fleet gave.
struct Run {
    outcomes: Vec<Outcome>,
    /// From the first connection to the last acknowledgement of the first tick.
    announced_in: Duration,
    /// The run itself, last acknowledgements included.
    took: Duration,
    server: (Usage, Usage),
    threads: BTreeMap<String, Duration>,
    own_cpu: Duration,
    /// Most resident memory of the server at any look.
    rss_bytes: u64,
}

async fn drive(options: &Options, plan: &Plan, identities: Vec<Credentials>, server: &mut Server) -> Result<Run> {
    progress("connecting, announcing series");
    let barrier = Arc::new(Barrier::new(identities.len() + 1));
    let (stop, turns, begun) = (CancellationToken::new(), Arc::new(Semaphore::new(HANDSHAKES)), Instant::now());
    let mut tasks = JoinSet::new();
    for (number, credentials) in (0..).zip(identities) {
        let shared = agent::Shared { barrier: Arc::clone(&barrier), stop: stop.clone(), turns: Arc::clone(&turns) };
        tasks.spawn(agent::run(number, credentials, server.agents_address().to_owned(), plan.clone(), shared));
    }
    tokio::select! {
        _ = barrier.wait() => {}
        Some(ended) = tasks.join_next() => bail!("an agent ended before the run: {:#}", ended?.err().context("without an error")?),
        () = tokio::time::sleep(START_TIMEOUT) => bail!("connecting and announcing takes too long"),
    }
    let announced_in = begun.elapsed();

    progress(format!("sending for {}", format_duration(options.length)));
    let pid = server.process.id();
    let (before, threads_before, own_before, begun) =
        (Usage::of(pid)?, usage::threads(pid), Usage::of(std::process::id())?.cpu, Instant::now());
    let mut rss_bytes = before.rss_bytes;
    let mut look = tokio::time::interval(Duration::from_millis(500));
    let end = tokio::time::sleep(options.length);
    tokio::pin!(end);
    let mut outcomes = Vec::new();
    let mut deadline = None;
    while outcomes.len() < options.agents as usize {
        tokio::select! {
            () = &mut end, if deadline.is_none() => {
                stop.cancel();
                deadline = Some(Instant::now() + DRAIN_TIMEOUT);
            }
            _ = look.tick() => {
                rss_bytes = rss_bytes.max(Usage::of(pid)?.rss_bytes);
                server.process.check()?;
                if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                    bail!("{} agents have no acknowledgement for what they sent", options.agents as usize - outcomes.len());
                }
            }
            Some(ended) = tasks.join_next() => outcomes.push(ended??),
        }
    }
    let took = begun.elapsed();
    let mut threads = usage::threads(pid);
    for (name, cpu) in &mut threads {
        *cpu = cpu.saturating_sub(threads_before.get(name).copied().unwrap_or_default());
    }
    let own_cpu = Usage::of(std::process::id())?.cpu - own_before;
    Ok(Run { outcomes, announced_in, took, server: (before, Usage::of(pid)?), threads, own_cpu, rss_bytes })
}

fn rates(report: &mut Report, options: &Options, run: &Run) {
    let series = options.series as u64;
    let sum = |of: fn(&Outcome) -> u64| run.outcomes.iter().map(of).sum::<u64>();
    // The first tick of each agent came before the run.
    let samples = float(sum(|outcome| outcome.ticks - 1) * series);
    let cpu = (run.server.1.cpu - run.server.0.cpu).as_secs_f64();
    let mut acks: Vec<u64> = run.outcomes.iter().flat_map(|outcome| outcome.ack_us.iter().map(|us| u64::from(*us))).collect();
    let udp = float(sum(|outcome| outcome.udp_bytes) + 28 * sum(|outcome| outcome.datagrams));
    report.figures([
        figure(
            "new_series_per_s",
            "connections and new series",
            "series per s",
            float(u64::from(options.agents) * series) / run.announced_in.as_secs_f64(),
        ),
        figure("samples", "samples in the run", "", samples),
        figure("samples_per_s", "samples stored, simulators on the same cores", "per s", samples / run.took.as_secs_f64()),
    ]);
    if options.paced {
        report.figures([figure("server_cpu_percent", "CPU of the server", "% of a core", cpu / run.took.as_secs_f64() * 100.0)]);
    }
    report.figures([
        figure("samples_per_cpu_s", "samples per CPU second of the server", "", samples / cpu).budget(3e6),
        figure("ack_p50_ms", "from send to acknowledgement, p50", "ms", float(quantile(&mut acks, 0.5)) / 1e3),
        figure("ack_p99_ms", "from send to acknowledgement, p99", "ms", float(quantile(&mut acks, 0.99)) / 1e3),
        figure("wire_frame_bytes_per_sample", "frames", "bytes per sample", float(sum(|outcome| outcome.frame_bytes)) / samples)
            .budget(1.5),
        figure("wire_udp_bytes_per_sample", "all that agents send, IP headers and all", "bytes per sample", udp / samples),
        figure("simulators_cpu_s", "CPU of the simulators", "s", run.own_cpu.as_secs_f64()),
    ]);
}

fn costs(report: &mut Report, run: &Run) {
    let (before, after) = run.server;
    report.figures([
        figure("server_cpu_s", "CPU of the server", "s", (after.cpu - before.cpu).as_secs_f64()),
        figure("server_rss_mb", "RSS of the server, highest", "MB", float(run.rss_bytes) / MB),
        figure("server_rss_end_mb", "RSS of the server, end of the run", "MB", float(after.rss_bytes) / MB),
    ]);
    let mut threads: Vec<_> = run.threads.iter().filter(|(_, cpu)| **cpu >= Duration::from_millis(50)).collect();
    threads.sort_by_key(|(_, cpu)| std::cmp::Reverse(**cpu));
    let shown: Vec<String> = threads.iter().take(8).map(|(name, cpu)| format!("{name} {:.2} s", cpu.as_secs_f64())).collect();
    report.note(format!("CPU of the server by thread: {}", shown.join(", ")));
}
