//! Sends samples on to other systems that understand Prometheus' remote write, from a queue on disk for each.
//!
//! ```text
//! ingest: commit ─► Forwarding::take: queues of all targets, fsync ─► answer to the sender
//! worker of a target: queue ─► window noted ─► requests by lanes ─► HTTP ─► progress noted
//! ```
//!
//! # Invariants
//! - What was acknowledged to an agent or a pusher, and is asked for, is sent at least once: across deaths of this process, and as
//!   long as the target is down, up to the bounds of its queue and `max_age`. Each sample that is given up is counted by reason.
//! - A target that is slow or down slows nobody: its queue is on disk, and memory is that of one window.
//! - Samples of a series are sent in the order in which they were stored.
//!
//! # Left out
//! - What the store refused is sent nevertheless if other samples of its batch were stored; what is too far in the future is not.
//! - Native histograms and exemplars: the store does not have them.

mod client;
pub mod config;
mod counters;
mod cursor;
mod judge;
mod plan;
mod queue;
mod reader;
mod worker;

pub use config::Config;
pub use queue::Batch;

use client::Client;
use counters::{Counters, Numbers};
use cursor::{Cursor, Progress};
use judge::Seldom;
use queue::Queue;
use shipwatch_common::time::{UnixMs, duration_ms, now_ms};
use shipwatch_series::remote::Metadata;
use std::{
    collections::HashSet,
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use worker::{Shared, Worker};

/// See the module.
#[derive(Debug, Default)]
pub struct Forwarding {
    targets: Vec<Arc<Shared>>,
    /// Taken when the workers start.
    starts: Mutex<Vec<(Client, Cursor, Progress)>>,
    max_ahead_ms: i64,
    logged: Mutex<Seldom>,
}

impl Forwarding {
    /// To nobody.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Opens the queues in `dir`. Blocks. Samples further than `max_ahead` in the future are not sent.
    ///
    /// # Errors
    /// A target that cannot be used, with its name.
    pub fn open(dir: &Path, config: &Config, max_ahead: std::time::Duration) -> Result<Self, String> {
        let mut all = Self { max_ahead_ms: duration_ms(max_ahead), ..Self::default() };
        for target in &config.targets {
            let told = |error: &dyn std::fmt::Display| format!("forward target {}: {error}", target.name);
            let client = Client::new(target).map_err(|error| told(&error))?;
            let wanted = target.matchers().map_err(|error| told(&error))?;
            let own = dir.join(&target.name);
            let in_dir = |error: std::io::Error| told(&format!("{}: {error}", own.display()));
            fs::create_dir_all(&own).map_err(in_dir)?;
            let (cursor, progress) = Cursor::open(&own).map_err(in_dir)?;
            let queue = Queue::open(&own, target.max_queue_bytes, wanted, progress.span).map_err(in_dir)?;
            let pending = queue.pending();
            info!(target_name = %target.name, samples = pending.samples, bytes = pending.bytes, "forward queue opened");
            let shared = Shared { target: target.clone(), queue, counters: Counters::default(), wake: tokio::sync::Notify::new() };
            all.targets.push(Arc::new(shared));
            all.starts.get_mut().unwrap_or_else(PoisonError::into_inner).push((client, cursor, progress));
        }
        tell_of_leftovers(dir, config);
        Ok(all)
    }

    /// Whether nothing is sent to anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Takes batches that were stored. Blocks until they are on disk.
    pub fn take(&self, batches: &[Batch<'_>], now_ms: UnixMs) {
        let newest = now_ms.saturating_add(self.max_ahead_ms);
        for shared in &self.targets {
            let lost = shared.queue.append(batches, now_ms, newest);
            shared.counters.lost(&lost);
            shared.counters.queued_samples.fetch_add(lost.taken, Relaxed);
            let highest = batches.iter().flat_map(|batch| batch.samples).map(|sample| sample.ts_ms).filter(|ts| *ts <= newest).max();
            shared.counters.highest_queued_ms.fetch_max(highest.unwrap_or(0), Relaxed);
            if (lost.oldest > 0 || lost.newest > 0 || lost.reason.is_some())
                && let Some(left_out) = self.logged.lock().unwrap_or_else(PoisonError::into_inner).ask(now_ms)
            {
                let reason = lost.reason.as_deref().unwrap_or("the queue is full");
                warn!(target_name = %shared.target.name, oldest = lost.oldest, newest = lost.newest, %reason, left_out, "samples that wait to be forwarded are dropped");
            }
            shared.wake.notify_one();
        }
    }

    /// The last batch of a source that every queue has; a sender that is told of no later one sends again what a queue may lack.
    #[must_use]
    pub fn mark(&self, source: &str, stored: Option<u64>) -> Option<u64> {
        self.targets.iter().map(|shared| shared.queue.mark(source)).fold(stored, Option::min)
    }

    /// Starts sending.
    pub fn spawn(&self, tasks: &TaskTracker, cancel: &CancellationToken, metadata: &Arc<Metadata>) {
        let starts = std::mem::take(&mut *self.starts.lock().unwrap_or_else(PoisonError::into_inner));
        for (shared, (client, cursor, progress)) in self.targets.iter().zip(starts) {
            let worker = Worker::new(Arc::clone(shared), client, Arc::clone(metadata), cursor, progress);
            tasks.spawn(worker.run(cancel.clone()));
        }
    }

    /// Numbers for `/metrics`.
    #[must_use]
    pub fn own_metrics(&self) -> String {
        let of = |shared| {
            let Shared { target, queue, counters, .. }: &Shared = shared;
            Numbers { target: &target.name, counters, pending: queue.pending() }
        };
        counters::text(&self.targets.iter().map(|shared| of(shared)).collect::<Vec<_>>(), now_ms())
    }
}

/// Queues of targets that are not in the configuration any more stay until a person removes them.
fn tell_of_leftovers(dir: &Path, config: &Config) {
    let names: HashSet<&str> = config.targets.iter().map(|target| target.name.as_str()).collect();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| !names.contains(name)) {
            warn!(path = %entry.path().display(), "a forward queue of a target that is not configured any more; delete it if it is not needed");
        }
    }
}

#[cfg(test)]
mod tests;
