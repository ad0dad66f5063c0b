//! The series engine beside VictoriaMetrics and Prometheus: the same bytes by remote write, the same questions by HTTP.
//!
//! - [`write`]: the bodies; [`contender`]: the three programs; [`queries`]: the questions
//!
//! Each contender runs alone, from nothing, three times: a fleet as it is now (ingest, memory, short windows), one two-hour
//! block of fewer hosts with 480 samples a series (disk), and a month of a few metrics (long windows). Our own wire is measured
//! by the bench `ingest` within the same run.
//!
//! # Invariants
//! - Nobody gets anything that another does not get: bodies, order, connections and questions are the same.
//! - CPU is that of the contender's process alone; making the bodies costs it nothing.

pub mod contender;
pub mod queries;
pub mod write;

use crate::{
    fleet::{self, series::Layout},
    float,
    process::Programs,
    progress,
    random::Random,
    report::{Figure, Report, figure},
};
use anyhow::{Context as _, Result};
use contender::{Contender, Kind};
use queries::Answered;
use shipwatch_common::{model::Labels, time::now_ms};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::task::JoinSet;
use write::{Body, Encoded, Sender};

const MB: f64 = 1e6;
/// Between two samples of a series.
const STEP_MS: i64 = 15_000;
/// Connections that write; a host's samples go through one, so that they stay in order.
const WRITERS: u32 = 4;
/// Hosts of the block whose size is taken: 480 ticks of 534 series are about 5 million samples.
const BLOCK_HOSTS: u32 = 20;
const BLOCK_MS: i64 = 2 * 3_600_000;
const DAY_MS: i64 = 86_400_000;
/// The past has one sample a minute.
const PAST_STEP_MS: i64 = 60_000;
/// After writing, before asking: background work of the month's data.
const REST: Duration = Duration::from_secs(30);

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Hosts of the fleet.
    pub hosts: u32,
    /// Series of each.
    pub series: usize,
    /// Ticks of the live fleet, 15 s apart; at least 50 for the windows of ten minutes.
    pub ticks: u32,
    /// Days of the past; 30, or 0 to leave the past out.
    pub days: u32,
    /// Seconds that the bench `ingest` sends on our own wire; 0 leaves it out.
    pub own_wire_s: u64,
}

/// What one contender gave.
#[derive(Debug, Default)]
struct Measured {
    new_series_cpu: Duration,
    ticks_cpu: Duration,
    rss: u64,
    block_bytes: u64,
    answers: BTreeMap<&'static str, Answered>,
}

/// Runs it.
///
/// # Errors
/// A contender is not installed, does not run, or does not take or answer what the others do.
pub async fn run(options: &Options, programs: &Programs) -> Result<Report> {
    let Options { hosts, series, ticks, days, .. } = *options;
    let mut report = Report::begin("peers", format!("{hosts} hosts of {series} series, {ticks} ticks; {days} days of two metrics"));
    report.peers(Kind::Victoria.program(), Kind::Prometheus.program());
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let mut result = Measured::default();
        live(kind, options, programs, &mut result).await.with_context(|| format!("{}, live fleet", kind.program()))?;
        block(kind, options, programs, &mut result).await.with_context(|| format!("{}, block", kind.program()))?;
        if days > 0 {
            past(kind, options, programs, &mut result).await.with_context(|| format!("{}, past", kind.program()))?;
        }
        all.push(result);
    }
    let [own, victoria, prometheus] = all.as_slice() else { return Ok(report) };
    ingest_figures(&mut report, options, [own, victoria, prometheus]);
    if options.own_wire_s > 0 {
        own_wire(&mut report, options, programs, victoria).await?;
    }
    for question in queries::LIVE.iter().chain(&queries::PAST) {
        query_figures(&mut report, question, [own, victoria, prometheus]);
    }
    Ok(report)
}

async fn live(kind: Kind, options: &Options, programs: &Programs, result: &mut Measured) -> Result<()> {
    progress(format!("{}: the live fleet", kind.program()));
    let mut contender = Contender::start(kind, programs).await?;
    let last_ms = now_ms() / STEP_MS * STEP_MS - 60_000;
    let first_ms = last_ms - i64::from(options.ticks) * STEP_MS;
    let layout = Arc::new(Layout::new(options.series));
    let mut hosts: Vec<Sender> = (0..options.hosts).map(|number| Sender::new(&layout, number)).collect();
    let begun = contender.usage()?.cpu;
    hosts = send(&contender, hosts, first_ms, 1).await?;
    let announced = contender.usage()?.cpu;
    send(&contender, hosts, first_ms + STEP_MS, options.ticks).await?;
    contender.flush().await?;
    let after = contender.usage()?;
    (result.new_series_cpu, result.ticks_cpu) = (announced - begun, after.cpu - announced);
    for question in &queries::LIVE {
        let answered = question.ask(&contender, last_ms / 1000, options.hosts).await?;
        result.answers.insert(question.key, answered);
    }
    result.rss = contender.usage()?.peak_rss_bytes;
    Ok(())
}

/// Sends ticks of all hosts over [`WRITERS`] connections; gives the hosts back.
async fn send(contender: &Contender, hosts: Vec<Sender>, first_ms: i64, ticks: u32) -> Result<Vec<Sender>> {
    let mut shares: Vec<Vec<Sender>> = (0..WRITERS).map(|_| Vec::new()).collect();
    for (at, host) in hosts.into_iter().enumerate() {
        shares[at % WRITERS as usize].push(host);
    }
    let mut tasks = JoinSet::new();
    for mut share in shares {
        let api = contender.api.clone();
        tasks.spawn(async move {
            for tick in 0..ticks {
                // A few hosts per body, as a sender of a fleet batches.
                for few in share.chunks_mut(4) {
                    let mut body = Body::default();
                    few.iter_mut().for_each(|host| host.tick(first_ms + i64::from(tick) * STEP_MS, &mut body));
                    api.remote_write(body.compressed()?).await?;
                }
            }
            anyhow::Ok(share)
        });
    }
    let mut back = Vec::new();
    while let Some(done) = tasks.join_next().await {
        back.extend(done??);
    }
    Ok(back)
}

async fn block(kind: Kind, options: &Options, programs: &Programs, result: &mut Measured) -> Result<()> {
    progress(format!("{}: a block of two hours", kind.program()));
    let contender = Contender::start(kind, programs).await?;
    let first_ms = (now_ms() / BLOCK_MS - 1) * BLOCK_MS;
    let layout = Arc::new(Layout::new(options.series));
    let hosts = (0..BLOCK_HOSTS).map(|number| Sender::new(&layout, number)).collect();
    send(&contender, hosts, first_ms, block_ticks()).await?;
    result.block_bytes = contender.settled_bytes().await?;
    Ok(())
}

fn block_ticks() -> u32 {
    u32::try_from(BLOCK_MS / STEP_MS).unwrap_or(480)
}

/// Two metrics of every host: a counter of seconds and a gauge of bytes.
struct Past {
    counter: Encoded,
    gauge: Encoded,
    random: Random,
    seconds: u64,
    pages: u64,
}

impl Past {
    fn new(number: u32) -> Result<Self> {
        let encoded = |name: &str| anyhow::Ok(Encoded::new(&Labels::new([(Labels::NAME, name), ("job", "node")])?, &write::name(number)));
        let mut random = Random::new(number.into());
        let (seconds, pages) = (random.below(1 << 28), random.below(1 << 22));
        Ok(Self { counter: encoded("past_cpu_seconds_total")?, gauge: encoded("past_memory_bytes")?, random, seconds, pages })
    }

    fn add(&mut self, first_ms: i64, last_ms: i64, body: &mut Body) {
        let (mut counter, mut gauge, mut at) = (Vec::new(), Vec::new(), first_ms);
        while at < last_ms {
            self.seconds += self.random.below(5_600);
            self.pages = (self.pages + self.random.below(2_001)).saturating_sub(1_000);
            counter.push((at, float(self.seconds) / 100.0));
            gauge.push((at, float(self.pages * 4096)));
            at += PAST_STEP_MS;
        }
        body.add(&self.counter, &counter);
        body.add(&self.gauge, &gauge);
    }
}

async fn past(kind: Kind, options: &Options, programs: &Programs, result: &mut Measured) -> Result<()> {
    progress(format!("{}: {} days of the past", kind.program(), options.days));
    let contender = Contender::start(kind, programs).await?;
    let last_ms = now_ms() / 3_600_000 * 3_600_000;
    let mut at = last_ms - i64::from(options.days) * DAY_MS;
    let mut hosts = (0..options.hosts).map(Past::new).collect::<Result<Vec<_>>>()?;
    while at < last_ms {
        // In the order of time, as it came when it was the present.
        for few in hosts.chunks_mut(50) {
            let mut body = Body::default();
            few.iter_mut().for_each(|host| host.add(at, (at + 3_600_000).min(last_ms), &mut body));
            contender.api.remote_write(body.compressed()?).await?;
        }
        at += 3_600_000;
    }
    contender.flush().await?;
    tokio::time::sleep(REST).await;
    for question in &queries::PAST {
        let answered = question.ask(&contender, last_ms / 1000 - 60, options.hosts).await?;
        result.answers.insert(question.key, answered);
    }
    Ok(())
}

fn beside(key: &'static str, what: &'static str, unit: &'static str, values: [f64; 3]) -> Figure {
    figure(key, what, unit, values[0]).beside_both(Some(values[1]), Some(values[2]))
}

fn ingest_figures(report: &mut Report, options: &Options, all: [&Measured; 3]) {
    let series = float(u64::from(options.hosts) * options.series as u64);
    let samples = series * f64::from(options.ticks);
    let block = float(u64::from(BLOCK_HOSTS * block_ticks()) * options.series as u64);
    report.figures([
        beside(
            "new_series_per_cpu_s",
            "remote write: new series per CPU second",
            "",
            all.map(|one| series / one.new_series_cpu.as_secs_f64()),
        )
        .more_is_better(),
        beside("samples_per_cpu_s", "remote write: samples per CPU second", "", all.map(|one| samples / one.ticks_cpu.as_secs_f64()))
            .more_is_better(),
        beside("rss_mb", "RSS, highest, with the live fleet", "MB", all.map(|one| float(one.rss) / MB)).budget(171.0),
        beside("disk_bytes_per_sample", "on disk, index and all", "bytes per sample", all.map(|one| float(one.block_bytes) / block))
            .budget(0.5),
    ]);
}

/// Our own wire beside VictoriaMetrics' remote write.
async fn own_wire(report: &mut Report, options: &Options, programs: &Programs, victoria: &Measured) -> Result<()> {
    let ingest = fleet::Options {
        agents: options.hosts,
        series: options.series,
        length: Duration::from_secs(options.own_wire_s),
        interval: Duration::from_millis(15_000),
        paced: false,
        window: 4,
    };
    let own = fleet::run(&ingest, programs).await?;
    let samples = float(u64::from(options.hosts) * options.series as u64 * u64::from(options.ticks));
    let value = own.value("samples_per_cpu_s").unwrap_or(0.0);
    report.check("our own wire lost and doubled nothing", own.is_good());
    report.figures([figure("own_wire_samples_per_cpu_s", "our own wire (peer: remote write): samples per CPU second", "", value)
        .beside(Some(samples / victoria.ticks_cpu.as_secs_f64()))
        .more_is_better()]);
    Ok(())
}

fn query_figures(report: &mut Report, question: &queries::Question, all: [&Measured; 3]) {
    let answers = all.map(|one| one.answers.get(question.key));
    let [Some(own), Some(victoria), Some(prometheus)] = answers else { return };
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    report.figures([beside(question.key, question.what, "ms", [own, victoria, prometheus].map(|answer| ms(answer.median)))]);
    let first = [own, victoria, prometheus].map(|answer| format!("{:.1}", ms(answer.first)));
    report.note(format!("{}, asked for the first time: {} ms", question.what, first.join(", ")));
    let same = (own.sum - prometheus.sum).abs() <= prometheus.sum.abs() * 1e-9;
    report.check(format!("{}: the values sum up to what Prometheus' do", question.what), same);
}
