//! What `shipwatch-agent status` shows: a small file that the running agent renews.

use super::own_metrics::Sources;
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    protocol::Lane,
    time::{UnixMs, now_ms},
};
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How often it is renewed.
const INTERVAL: Duration = Duration::from_secs(5);
/// Older than this, the agent does not run any more.
const FRESH_MS: i64 = 15_000;

/// The running agent in numbers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Status {
    /// Its process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Its name in the fleet.
    pub name: String,
    /// Its server.
    pub server: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// When it started.
    pub started_at_ms: UnixMs,
    /// When this was written.
    pub updated_at_ms: UnixMs,
    /// Bytes that wait per lane.
    pub pending_bytes: BTreeMap<String, u64>,
    /// Records dropped unsent per lane.
    pub dropped_records: BTreeMap<String, u64>,
    /// Files followed.
    pub files: u64,
    /// Lines read since the start.
    pub lines: u64,
    /// Findings masked since the start.
    pub masked: u64,
    /// Bytes of logs that were lost to truncation or deletion.
    pub lost_bytes: u64,
    /// Messages of the server that were refused.
    pub refused: u64,
}

impl Status {
    /// Whether the agent that wrote it still runs.
    #[must_use]
    pub const fn is_fresh(&self, now_ms: UnixMs) -> bool {
        now_ms - self.updated_at_ms < FRESH_MS
    }
}

/// The file in the state directory.
#[derive(Clone, Debug)]
pub struct StatusFile(PathBuf);

impl StatusFile {
    /// In this state directory.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("status.json"))
    }

    /// Reads it.
    ///
    /// # Errors
    /// No agent has run there, or it cannot be read.
    pub fn read(&self) -> io::Result<Status> {
        serde_json::from_slice(&std::fs::read(&self.0)?).map_err(io::Error::other)
    }

    fn write(&self, status: &Status) -> io::Result<()> {
        let temporary = self.0.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec(status)?)?;
        std::fs::rename(&temporary, &self.0)
    }
}

/// Renews the file until `cancel`, then removes it.
pub(super) async fn keep(file: StatusFile, server: String, name: String, own: Sources, cancel: CancellationToken) {
    let started_at_ms = now_ms();
    let mut said = false;
    loop {
        let lanes = |read: fn(&crate::spool::lanes::LaneQueue) -> u64| -> BTreeMap<String, u64> {
            Lane::ALL.iter().map(|lane| (lane.as_str().to_owned(), read(own.spool.lane(*lane)))).collect()
        };
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let status = Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: name.clone(),
            server: server.clone(),
            connected: own.uplink.connected.load(Ordering::Relaxed),
            started_at_ms,
            updated_at_ms: now_ms(),
            pending_bytes: lanes(crate::spool::lanes::LaneQueue::pending_bytes),
            dropped_records: lanes(crate::spool::lanes::LaneQueue::dropped_records),
            files: count(&own.tail.files),
            lines: count(&own.tail.lines_total),
            masked: count(&own.tail.masked_total),
            lost_bytes: count(&own.tail.lost_bytes_total),
            refused: count(&own.uplink.refused_total),
        };
        if let Err(error) = file.write(&status)
            && !said
        {
            said = true;
            warn!(%error, "the status file cannot be written; `shipwatch-agent status` will not work");
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = cancel.cancelled() => break,
        }
    }
    let _gone_already = std::fs::remove_file(&file.0);
}
