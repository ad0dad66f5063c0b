//! `shipwatch-benches`: measures the programs of this workspace on this machine. See `README.md` beside this package.

use clap::{Parser, Subcommand};
use shipwatch_benches::{
    agent, fleet, logs, mask, peers,
    process::{self, Programs, Surroundings},
    report::Report,
    series, tail,
};
use shipwatch_common::{shutdown, time::parse_duration};
use std::{ffi::OsString, io::Write as _, process::ExitCode, time::Duration};

/// Measures Shipwatch on this machine: real programs, real connections, temporary data.
#[derive(Debug, Parser)]
#[command(name = "shipwatch-benches", version, about, max_term_width = 100)]
struct Cli {
    /// JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The agent's memory, CPU and wire bytes, beside node_exporter.
    Agent {
        /// How long is measured, after a short warm-up.
        #[arg(long, default_value_t = 10.0, value_parser = minutes)]
        minutes: f64,
        /// Interval of ticks and scrapes.
        #[arg(long, default_value = "15s", value_parser = parse_duration)]
        interval: Duration,
    },
    /// Samples into the server as fast as it takes them; checks that none is lost or doubled.
    Ingest {
        #[command(flatten)]
        fleet: Fleet,
        /// How long the agents send.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
        seconds: u64,
        /// Ticks of one agent that may wait for their acknowledgement.
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        window: u16,
    },
    /// A fleet at its real pace: all agents tick at the same moments.
    Swarm {
        #[command(flatten)]
        fleet: Fleet,
        /// How long the agents send.
        #[arg(long, default_value_t = 3.0, value_parser = minutes)]
        minutes: f64,
        /// Interval of their ticks.
        #[arg(long, default_value = "15s", value_parser = parse_duration)]
        interval: Duration,
    },
    /// The series engine beside VictoriaMetrics and Prometheus: ingest, memory, disk, queries.
    Peers {
        #[command(flatten)]
        fleet: Fleet,
        /// Ticks of the live fleet, 15 s apart.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(50..=5_000))]
        ticks: u32,
        /// Days of the past for long windows; 0 leaves them out.
        #[arg(long, default_value_t = 30, value_parser = days)]
        days: u32,
        /// Seconds of ingest on our own wire; 0 leaves it out.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=3_600))]
        own_wire: u64,
    },
    /// Masking on one core: MB/s, recall, precision.
    Mask {
        /// Size of the generated log.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4_096))]
        megabytes: u32,
        /// Seed of the generator.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Further seeds that recall and precision are taken of, 1 MB each
        #[arg(long, default_value_t = 20)]
        seeds: u32,
        /// Counts findings in the files of this directory instead.
        #[arg(long, value_name = "DIR")]
        files: Option<std::path::PathBuf>,
    },
    /// The time-series engine in this process: disk, queries, memory, start.
    Series {
        /// Hosts that are asked for.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=5_000))]
        hosts: u32,
        /// Series of each.
        #[arg(long, default_value_t = 534, value_parser = clap::value_parser!(u16).range(48..=5_000))]
        series: u16,
        /// Days of the long ranges.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..=60))]
        days: u32,
    },
    /// The log engine in this process: bytes per line, ingest, queries, memory.
    Logs {
        /// Text of each of the two stores.
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=65_536))]
        megabytes: u32,
        /// Streams in the mixed store.
        #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=5_000))]
        streams: u32,
    },
    /// A log file through the agent into the server: tail, mask, ship, store.
    Tail {
        /// Size of the generated log.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4_096))]
        megabytes: u32,
        /// Write it at this many MB/s; 0 lets it lie there from the start.
        #[arg(long, default_value_t = 0.0, value_parser = rate)]
        rate: f64,
        /// Seed of the generator.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Debug, clap::Args)]
struct Fleet {
    /// Simulated agents.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    agents: u32,
    /// Series of each.
    #[arg(long, default_value_t = 534, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    series: u32,
}

fn number(text: &str, least: f64, most: f64) -> Result<f64, String> {
    text.parse().ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| format!("must be a number from {least} to {most}"))
}

fn minutes(text: &str) -> Result<f64, String> {
    number(text, 0.1, 1_440.0)
}

fn days(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|days| [0, 30].contains(days)).ok_or_else(|| "must be 0 or 30".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.0, 1_000.0)
}

impl Fleet {
    fn options(&self, length: Duration) -> fleet::Options {
        let (agents, series) = (self.agents, self.series as usize);
        fleet::Options { agents, series, length, interval: Duration::from_secs(15), paced: false, window: 4 }
    }
}

async fn run(command: Command, surroundings: &Surroundings) -> anyhow::Result<Report> {
    let programs = || Programs::find(surroundings);
    match command {
        Command::Agent { minutes, interval } => {
            agent::run(&agent::Options { length: Duration::from_secs_f64(minutes * 60.0), interval }, &programs()?).await
        }
        Command::Ingest { fleet, seconds, window } => {
            let options = fleet::Options { window: window.into(), ..fleet.options(Duration::from_secs(seconds)) };
            fleet::run(&options, &programs()?).await
        }
        Command::Swarm { fleet, minutes, interval } => {
            let options = fleet::Options { paced: true, interval, ..fleet.options(Duration::from_secs_f64(minutes * 60.0)) };
            fleet::run(&options, &programs()?).await
        }
        Command::Peers { fleet, ticks, days, own_wire } => {
            let options = peers::Options { hosts: fleet.agents, series: fleet.series as usize, ticks, days, own_wire_s: own_wire };
            peers::run(&options, &programs()?).await
        }
        Command::Mask { files: Some(dir), .. } => tokio::task::spawn_blocking(move || mask::run_files(&dir)).await?,
        Command::Mask { megabytes, seed, seeds, files: None } => {
            tokio::task::spawn_blocking(move || mask::run(megabytes, seed, seeds)).await?
        }
        Command::Series { hosts, series, days } => {
            let options = series::Options { hosts, series: series.into(), days };
            tokio::task::spawn_blocking(move || series::run(&options)).await?
        }
        Command::Logs { megabytes, streams } => {
            tokio::task::spawn_blocking(move || logs::run(&logs::Options { megabytes, streams })).await?
        }
        Command::Tail { megabytes, rate, seed } => tail::run(&tail::Options { megabytes, rate, seed }, &programs()?).await,
    }
}

fn complain(text: &str) {
    let _nobody_reads = writeln!(std::io::stderr().lock(), "shipwatch-benches: {text}");
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let environment = |name: &str| std::env::vars_os().find(|(known, _)| known == name).map(|(_, value)| value);
    let surroundings = Surroundings {
        path: environment("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")),
        cargo: environment("CARGO").unwrap_or_else(|| OsString::from("cargo")),
    };
    if let Err(error) = process::raise_open_files() {
        complain(&format!("the limit of open files stays as it is: {error}"));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        // What a run has started and made is dropped with its future: children end, directories go.
        tokio::select! {
            ended = run(cli.command, &surroundings) => Some(ended),
            _ = shutdown::signalled() => None,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        None => {
            complain("stopped; everything that was started has ended");
            ExitCode::from(130)
        }
        Some(Err(error)) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
        Some(Ok(report)) => {
            let text = if cli.json { format!("{:#}\n", report.to_json()) } else { format!("\n{}", report.to_text()) };
            let _nobody_reads = std::io::stdout().lock().write_all(text.as_bytes());
            if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}
