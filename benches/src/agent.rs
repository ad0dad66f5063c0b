//! What the agent costs at rest, beside node_exporter scraped at the same interval in the same run.
//!
//! Both run with their default collectors on this host. The agent ships to a real server over the loopback address; the
//! exporter is scraped here, as Prometheus does it (gzip), half an interval later, so that the two do not meet.
//!
//! Left out: Prometheus itself, which a scraped host does not run; TCP and IP headers of the scrape.

use crate::{
    api, float,
    process::{Programs, Running},
    progress,
    report::{Report, figure},
    stack::{self, Server, free_port},
    usage::{Usage, quantile},
};
use anyhow::{Context as _, Result};
use shipwatch_common::time::{format_duration, now_ms};
use std::{path::Path, time::Duration};
use tokio::time::Instant;

const EXPORTER: &str = "prometheus-node-exporter";
/// What the kernel adds to each datagram: IPv4 and UDP headers.
const DATAGRAM_HEADER: f64 = 28.0;
const MB: f64 = 1e6;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long is measured.
    pub length: Duration,
    /// Interval of the agent's ticks and of the scrapes.
    pub interval: Duration,
}

/// Runs it.
///
/// # Errors
/// A program does not run, or does not answer.
pub async fn run(options: &Options, programs: &Programs) -> Result<Report> {
    let settings = format!("{} at an interval of {}", format_duration(options.length), format_duration(options.interval));
    let mut report = Report::begin("agent", settings);
    let dir = tempfile::tempdir().context("a temporary directory")?;
    let server = Server::start(programs, dir.path(), "").await?;
    let config = format!("[collect]\ninterval = \"{}\"", format_duration(options.interval));
    let agent = stack::Agent::start(programs, &dir.path().join("agent"), &server, &config).await?;
    let exporter = Exporter::start(programs, dir.path()).await?;
    if exporter.is_none() {
        report.note(format!("{EXPORTER} is not installed, so there is no peer: apt-get install {EXPORTER} (stop its service for this)"));
    }
    let watched = Watched { agent, server, exporter };
    measure(options, watched, &mut report).await?;
    Ok(report)
}

/// Everything that runs.
struct Watched {
    agent: stack::Agent,
    server: Server,
    exporter: Option<Exporter>,
}

/// Looks at one process over the run.
struct Watch {
    pid: u32,
    first: Usage,
    rss: Vec<u64>,
    pss: Vec<u64>,
    last: Usage,
}

impl Watch {
    fn begin(pid: u32) -> Result<Self> {
        let first = Usage::of(pid)?;
        Ok(Self { pid, first, rss: Vec::new(), pss: Vec::new(), last: first })
    }

    fn look(&mut self) -> Result<()> {
        self.last = Usage::of(self.pid)?;
        self.rss.push(self.last.rss_bytes);
        self.pss.push(self.last.pss_bytes);
        Ok(())
    }

    fn cpu_percent(&self, over: Duration) -> f64 {
        (self.last.cpu - self.first.cpu).as_secs_f64() / over.as_secs_f64() * 100.0
    }
}

async fn measure(options: &Options, mut watched: Watched, report: &mut Report) -> Result<()> {
    // The first ticks announce series and fault memory in; what they cost is not what a day costs.
    let warm_up = (options.interval * 2).max(Duration::from_secs(20));
    progress(format!("warm-up of {}", format_duration(warm_up)));
    let mut scrapes = Scrapes::default();
    let mut beat = Beat::start(options.interval);
    let begin = Instant::now() + warm_up;
    while Instant::now() < begin {
        beat.next().await;
        scrapes.add(watched.exporter.as_ref()).await?;
    }
    progress(format!("measuring for {}", format_duration(options.length)));
    let (mut agent, mut exporter) = (Watch::begin(watched.agent.process.id())?, None);
    if let Some(running) = &watched.exporter {
        exporter = Some(Watch::begin(running.process.id())?);
    }
    let (started, from_ms) = (Instant::now(), now_ms());
    scrapes = Scrapes::default();
    while started.elapsed() + options.interval / 2 < options.length {
        beat.next().await;
        scrapes.add(watched.exporter.as_ref()).await?;
        agent.look()?;
        if let Some(exporter) = &mut exporter {
            exporter.look()?;
        }
        watched.agent.process.check()?;
        watched.server.process.check()?;
    }
    let over = started.elapsed();
    let samples = scrapes.samples(watched.exporter.as_ref()).await?;
    let wire = Wire::read(&watched.server, watched.agent.name, from_ms, now_ms()).await?;
    costs(report, &mut agent, exporter.as_mut(), over, wire.samples_per_tick(), samples);
    wire.report(report, (samples > 0.0).then(|| scrapes.bytes_per_scrape() / samples));
    if let Some(exporter) = &watched.exporter {
        report.peer(exporter.version.clone());
        report.check(format!("{} scrapes, all answered", scrapes.count), true);
    }
    report.check(format!("{} ticks reached the server within the run", wire.ticks), wire.ticks + 2.0 >= float(beat.expected(over)));
    Ok(())
}

fn costs(report: &mut Report, agent: &mut Watch, mut exporter: Option<&mut Watch>, over: Duration, samples: f64, peer_samples: f64) {
    let ticks = agent.rss.len().max(1) as u64;
    let microseconds = |watch: &Watch, samples: f64| (watch.last.cpu - watch.first.cpu).as_secs_f64() * 1e6 / float(ticks) / samples;
    let (cpu, peer_cpu) = (agent.cpu_percent(over), exporter.as_deref().map(|watch| watch.cpu_percent(over)));
    let (each, peer_each) = (microseconds(agent, samples), exporter.as_deref().map(|watch| microseconds(watch, peer_samples)));
    let mut mb = |part: f64, values: fn(&mut Watch) -> &mut Vec<u64>| {
        let of = |watch: &mut Watch| float(quantile(values(watch), part)) / MB;
        (of(agent), exporter.as_deref_mut().map(of))
    };
    let (rss, peer_rss) = mb(0.5, |watch| &mut watch.rss);
    let (most, peer_most) = mb(1.0, |watch| &mut watch.rss);
    let (pss, peer_pss) = mb(0.5, |watch| &mut watch.pss);
    report.figures([
        figure("rss_mb", "RSS, median", "MB", rss).beside(peer_rss).budget(15.0),
        figure("rss_max_mb", "RSS, highest", "MB", most).beside(peer_most),
        figure("pss_mb", "PSS, median", "MB", pss).beside(peer_pss),
        figure("cpu_percent", "CPU", "% of a core", cpu).beside(peer_cpu).budget(0.05),
        figure("cpu_us_per_sample", "CPU per sample", "us", each).beside(peer_each),
        figure("samples", "samples per tick", "", samples).beside((peer_samples > 0.0).then_some(peer_samples)),
    ]);
    report.note("CPU time comes in steps of 10 ms: short runs show it coarsely");
}

/// Times half an interval behind the grid that agents tick on.
struct Beat {
    interval_ms: i64,
}

impl Beat {
    fn start(interval: Duration) -> Self {
        Self { interval_ms: i64::try_from(interval.as_millis()).unwrap_or(15_000) }
    }

    async fn next(&mut self) {
        let into = (now_ms() - self.interval_ms / 2).rem_euclid(self.interval_ms);
        tokio::time::sleep(Duration::from_millis(u64::try_from(self.interval_ms - into).unwrap_or(0))).await;
    }

    /// Ticks in that time.
    fn expected(&self, over: Duration) -> u64 {
        over.as_millis() as u64 / self.interval_ms.unsigned_abs()
    }
}

/// What the agent sent within the measured time, as its own counters tell.
struct Wire {
    ticks: f64,
    samples: f64,
    frame_bytes: f64,
    udp_bytes: f64,
    datagrams: f64,
}

impl Wire {
    async fn read(server: &Server, host: &str, from_ms: i64, to_ms: i64) -> Result<Self> {
        let between = async |name: &str| -> Result<f64> {
            let query = format!("{name}{{instance=\"{host}\"}}[{}ms]", to_ms - from_ms);
            let data = server.api.query(&query, Some(to_ms)).await?;
            let values = data.pointer("/result/0/values").and_then(|values| values.as_array()).with_context(|| format!("no {name}"))?;
            let at = |pair: Option<&serde_json::Value>| pair?.get(1)?.as_str()?.parse::<f64>().ok();
            let (first, last) = (at(values.first()), at(values.last()));
            Ok(last.unwrap_or(0.0) - first.unwrap_or(0.0))
        };
        let ticks = server.api.query(&format!("node_time_seconds{{instance=\"{host}\"}}[{}ms]", to_ms - from_ms), Some(to_ms)).await?;
        let ticks = ticks.pointer("/result/0/values").and_then(|values| values.as_array()).map_or(0, Vec::len);
        Ok(Self {
            ticks: float(ticks as u64),
            samples: between("shipwatch_agent_uplink_sent_samples_total").await?,
            frame_bytes: between("shipwatch_agent_uplink_sent_metrics_bytes_total").await?,
            udp_bytes: between("shipwatch_agent_uplink_sent_udp_bytes_total").await?,
            datagrams: between("shipwatch_agent_uplink_sent_datagrams_total").await?,
        })
    }

    /// Counters are read at ticks, so they grew over one tick less than there were.
    fn samples_per_tick(&self) -> f64 {
        self.samples / (self.ticks - 1.0).max(1.0)
    }

    fn report(&self, report: &mut Report, scraped: Option<f64>) {
        let udp = (self.udp_bytes + self.datagrams * DATAGRAM_HEADER) / self.samples;
        report.figures([
            figure("wire_frame_bytes_per_sample", "frames of the metrics lane", "bytes per sample", self.frame_bytes / self.samples)
                .beside(scraped)
                .budget(1.5),
            figure("wire_udp_bytes_per_sample", "all that is sent, IP headers and all", "bytes per sample", udp).beside(scraped),
        ]);
        report.note("the peer's bytes are the gzip body of a scrape, without HTTP, TCP and IP headers");
    }
}

/// node_exporter with its default collectors.
struct Exporter {
    process: Running,
    http: reqwest::Client,
    url: String,
    version: String,
}

impl Exporter {
    /// `None` where it is not installed.
    async fn start(programs: &Programs, dir: &Path) -> Result<Option<Self>> {
        let Some(program) = programs.of_system(EXPORTER).or_else(|| programs.of_system("node_exporter")) else { return Ok(None) };
        let address = format!("127.0.0.1:{}", free_port()?);
        let command = programs.command(&program, &[&format!("--web.listen-address={address}")], &[]);
        let process = Running::start(command, &dir.join("exporter.log"))?;
        let mut exporter = Self { process, http: api::client()?, url: format!("http://{address}/metrics"), version: String::new() };
        api::wait_for("node_exporter to answer", Duration::from_secs(20), async || Ok(exporter.plain().await.ok().map(drop))).await?;
        let text = exporter.plain().await?;
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix("node_exporter_build_info{")?.split_once(",version=\"")?.1.split('"').next())
            .unwrap_or("of unknown version");
        exporter.version = format!("node_exporter {version}");
        Ok(Some(exporter))
    }

    async fn plain(&self) -> Result<String> {
        Ok(self.http.get(&self.url).send().await?.error_for_status()?.text().await?)
    }

    /// As Prometheus asks; the body as it came.
    async fn compressed(&self) -> Result<u64> {
        let accept = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let request = self.http.get(&self.url).header("accept", accept).header("accept-encoding", "gzip");
        Ok(request.send().await?.error_for_status()?.bytes().await?.len() as u64)
    }
}

/// Scrapes so far.
#[derive(Default)]
struct Scrapes {
    count: u64,
    bytes: u64,
}

impl Scrapes {
    async fn add(&mut self, exporter: Option<&Exporter>) -> Result<()> {
        if let Some(exporter) = exporter {
            self.bytes += exporter.compressed().await.context("node_exporter does not answer")?;
            self.count += 1;
        }
        Ok(())
    }

    fn bytes_per_scrape(&self) -> f64 {
        float(self.bytes) / float(self.count.max(1))
    }

    /// Samples in a scrape; asked for outside of the measured time.
    async fn samples(&self, exporter: Option<&Exporter>) -> Result<f64> {
        let Some(exporter) = exporter else { return Ok(0.0) };
        let text = exporter.plain().await?;
        Ok(float(text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count() as u64))
    }
}
