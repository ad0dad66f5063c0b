//! The three that are compared: each a process of its own with its own data, one after the other.

use crate::{
    api::{Api, wait_for},
    process::{Programs, Running},
    stack::{Server, free_port, size_of},
    usage::Usage,
};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Merging files of some millions of samples.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(180);
/// Nothing has changed on disk for this long: it is done.
const QUIET: Duration = Duration::from_secs(10);
/// History is 30 days; a margin keeps retention out of the comparison.
const SHIPWATCH: &str = "[series]\nretention_days = 60\nmax_head_series = 4000000\n";

/// Who is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// This workspace's server.
    Shipwatch,
    /// VictoriaMetrics, single node.
    Victoria,
    /// Prometheus with its remote-write receiver.
    Prometheus,
}

impl Kind {
    /// All, in the order of the report's columns.
    pub const ALL: [Self; 3] = [Self::Shipwatch, Self::Victoria, Self::Prometheus];

    /// The program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Shipwatch => "shipwatch-server",
            Self::Victoria => "victoria-metrics",
            Self::Prometheus => "prometheus",
        }
    }
}

/// One that runs.
#[derive(Debug)]
pub struct Contender {
    kind: Kind,
    server: Option<Server>,
    peer: Option<Running>,
    /// Its API.
    pub api: Api,
    dir: tempfile::TempDir,
}

impl Contender {
    /// Starts one without data and waits until it answers.
    ///
    /// # Errors
    /// It is not installed or does not start.
    pub async fn start(kind: Kind, programs: &Programs) -> Result<Self> {
        let dir = tempfile::tempdir().context("a temporary directory")?;
        if kind == Kind::Shipwatch {
            let server = Server::start(programs, dir.path(), SHIPWATCH).await?;
            return Ok(Self { kind, api: server.api.clone(), server: Some(server), peer: None, dir });
        }
        let program = kind.program();
        let path = programs.of_system(program).with_context(|| format!("{program} is not installed: apt-get install {program}"))?;
        let (address, data) = (format!("127.0.0.1:{}", free_port()?), dir.path().join("data").display().to_string());
        let arguments = match kind {
            Kind::Victoria => vec![
                format!("-httpListenAddr={address}"),
                format!("-storageDataPath={data}"),
                "-retentionPeriod=60d".to_owned(),
                "-search.maxUniqueTimeseries=1000000".to_owned(),
            ],
            _ => {
                let config = dir.path().join("prometheus.yml");
                fs::write(&config, "global: {scrape_interval: 15s}\n").with_context(|| config.display().to_string())?;
                vec![
                    format!("--web.listen-address={address}"),
                    format!("--storage.tsdb.path={data}"),
                    format!("--config.file={}", config.display()),
                    "--storage.tsdb.retention.time=60d".to_owned(),
                    "--web.enable-remote-write-receiver".to_owned(),
                    "--web.enable-admin-api".to_owned(),
                ]
            }
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut peer = Running::start(programs.command(&path, &arguments, &[]), &dir.path().join("log"))?;
        let api = Api::new(format!("http://{address}"), "")?;
        wait_for(program, START_TIMEOUT, async || {
            peer.check()?;
            Ok(api.json("/api/v1/query", &[("query", "1")]).await.ok())
        })
        .await?;
        Ok(Self { kind, server: None, peer: Some(peer), api, dir })
    }

    fn process(&mut self) -> Result<&mut Running> {
        let server = self.server.as_mut().map(|server| &mut server.process);
        server.or(self.peer.as_mut()).context("it was stopped")
    }

    /// What it uses.
    ///
    /// # Errors
    /// It has ended.
    pub fn usage(&mut self) -> Result<Usage> {
        let process = self.process()?;
        process.check()?;
        Usage::of(process.id())
    }

    /// Makes what was written visible to queries.
    ///
    /// # Errors
    /// No good answer.
    pub async fn flush(&self) -> Result<()> {
        if self.kind == Kind::Victoria {
            self.api.act("/internal/force_flush").await?;
        }
        Ok(())
    }

    /// Waits until VictoriaMetrics merges no more. Its merge begins some time after it was asked for, so the size has to have been
    /// the same for a while as well.
    async fn merged(&self, data: &Path) -> Result<()> {
        let (mut size, mut since) = (0, Instant::now());
        wait_for("VictoriaMetrics to merge", SETTLE_TIMEOUT, async || {
            let metrics = self.api.text("/metrics").await?;
            let active = metrics.lines().find_map(|line| line.strip_prefix("vm_active_force_merges ")?.parse::<f64>().ok());
            let now = size_of(data).unwrap_or(0);
            if active != Some(0.0) || now != size {
                (size, since) = (now, Instant::now());
            }
            Ok((since.elapsed() >= QUIET).then_some(()))
        })
        .await
    }

    /// Bytes on disk, index and all, once everything is in its final form. Ends it.
    ///
    /// # Errors
    /// It does not come to its final form in time.
    pub async fn settled_bytes(mut self) -> Result<u64> {
        let data = self.dir.path().join("data");
        match self.kind {
            Kind::Shipwatch => {
                self.process()?.stop().await?;
                sealed_bytes(data.join("series")).await
            }
            Kind::Victoria => {
                self.flush().await?;
                self.api.act("/internal/force_merge").await?;
                self.merged(&data).await?;
                self.process()?.stop().await?;
                Ok(size_of(&data.join("data"))? + size_of(&data.join("indexdb"))?)
            }
            Kind::Prometheus => {
                let answer: Value = serde_json::from_str(&self.api.act("/api/v1/admin/tsdb/snapshot").await?)?;
                let name = answer["data"]["name"].as_str().context("the snapshot has no name")?.to_owned();
                self.process()?.stop().await?;
                size_of(&data.join("snapshots").join(name))
            }
        }
    }
}

/// The server has stopped; its store is opened in this process, so that sealing needs no waiting.
async fn sealed_bytes(dir: PathBuf) -> Result<u64> {
    let work = move || {
        let (engine, _) = shipwatch_series::Engine::open(dir, shipwatch_series::Config::default())?;
        engine.seal(i64::MAX / 4)?;
        anyhow::Ok(engine.stats().day_bytes)
    };
    tokio::task::spawn_blocking(work).await?.context("sealing")
}
