//! The three queues as the rest of the agent uses them.

use super::{
    Config,
    queue::{Kind, Options, Queue, Record, Recovered, SpoolError, Stored, WhenFull},
};
use shipwatch_common::{
    model::deploy::Event,
    protocol::{Lane, LaneState, MetricsBatch, encode},
};
use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use tracing::warn;

/// Small enough that acknowledged data leaves the disk soon, large enough that files are not made all the time.
const SEGMENT_BYTES: u64 = 2 << 20;

/// One queue, shared between its writer and the uplink.
#[derive(Debug)]
pub struct LaneQueue {
    queue: Mutex<Queue>,
    appended: Notify,
}

impl LaneQueue {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue: Mutex::new(queue), appended: Notify::new() }
    }

    /// A panic while the lock was held leaves the queue's files whole, so its poison is of no meaning.
    pub(super) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn append(&self, kind: Kind, payload: &[u8], snapshot: impl FnOnce() -> Vec<u8>) -> Result<(), SpoolError> {
        self.lock().append(kind, payload, snapshot)?;
        if kind == Kind::Data {
            self.appended.notify_one();
        }
        Ok(())
    }

    /// See [`Queue::read`].
    ///
    /// # Errors
    /// Reading failed.
    pub fn read(&self, max_bytes: usize) -> Result<Vec<Record>, SpoolError> {
        self.lock().read(max_bytes)
    }

    /// See [`Queue::ack`].
    ///
    /// # Errors
    /// A finished segment could not be removed.
    pub fn ack(&self, generation: u64, seq: u64) -> Result<(), SpoolError> {
        self.lock().ack(generation, seq)
    }

    /// See [`Queue::rewind`].
    pub fn rewind(&self) {
        self.lock().rewind();
    }

    /// See [`Queue::pending_bytes`].
    pub fn pending_bytes(&self) -> u64 {
        self.lock().pending_bytes()
    }

    /// See [`Queue::dropped_records`].
    pub fn dropped_records(&self) -> u64 {
        self.lock().dropped_records()
    }

    /// See [`Queue::damaged_bytes`].
    pub fn damaged_bytes(&self) -> u64 {
        self.lock().damaged_bytes()
    }

    /// Waits until something was appended after the last call.
    pub async fn changed(&self) {
        self.appended.notified().await;
    }

    fn state(&self, lane: Lane) -> LaneState {
        let queue = self.lock();
        LaneState { lane, generations: queue.generations(), pending_bytes: queue.pending_bytes() }
    }
}

/// All lanes.
#[derive(Debug)]
pub struct Spool {
    metrics: LaneQueue,
    pub(super) logs: LaneQueue,
    events: LaneQueue,
    acknowledged: Notify,
}

/// Opens one lane that keeps no state of its own in the segments.
fn open_plain(dir: &Path, max_bytes: u64, when_full: WhenFull, generation: u64) -> Result<(Queue, Recovered), SpoolError> {
    let options = Options { max_bytes, segment_bytes: SEGMENT_BYTES.min(max_bytes / 8), when_full };
    Queue::open(dir, options, generation, &mut (), |(), _| {}, |()| Vec::new())
}

/// Says what opening found.
pub(super) fn report(lane: Lane, found: Recovered) {
    if found.damaged_bytes > 0 || found.damaged_segments > 0 {
        warn!(
            lane = lane.as_str(),
            damaged_bytes = found.damaged_bytes,
            damaged_segments = found.damaged_segments,
            kept_records = found.records,
            "the spool was damaged; what could be read is kept, the rest is lost"
        );
    }
}

impl Spool {
    /// Opens the lanes below `dir`. `generation` must be new with every start. `show` sees the log lane's stored content, and
    /// `positions` then gives the state for the head of its new segment.
    ///
    /// # Errors
    /// A directory that cannot be read or written.
    pub fn open<S>(
        dir: &Path,
        config: &Config,
        generation: u64,
        state: &mut S,
        show: impl FnMut(&mut S, Stored<'_>),
        positions: impl FnOnce(&S) -> Vec<u8>,
    ) -> Result<Self, SpoolError> {
        let (metrics, found) = open_plain(&dir.join("metrics"), config.metrics_max_bytes, WhenFull::DropOldest, generation)?;
        report(Lane::Metrics, found);
        let (events, found) = open_plain(&dir.join("events"), config.events_max_bytes, WhenFull::Refuse, generation)?;
        report(Lane::Events, found);
        let options =
            Options { max_bytes: config.logs_max_bytes, segment_bytes: SEGMENT_BYTES.min(config.logs_max_bytes / 8), when_full: WhenFull::Refuse };
        let (logs, found) = Queue::open(&dir.join("logs"), options, generation, state, show, positions)?;
        report(Lane::Logs, found);
        Ok(Self { metrics: LaneQueue::new(metrics), logs: LaneQueue::new(logs), events: LaneQueue::new(events), acknowledged: Notify::new() })
    }

    /// One lane.
    #[must_use]
    pub const fn lane(&self, lane: Lane) -> &LaneQueue {
        match lane {
            Lane::Metrics => &self.metrics,
            Lane::Logs => &self.logs,
            Lane::Events => &self.events,
        }
    }

    /// All lanes for the server.
    #[must_use]
    pub fn states(&self) -> Vec<LaneState> {
        Lane::ALL.iter().map(|lane| self.lane(*lane).state(*lane)).collect()
    }

    /// Appends the samples of one tick.
    ///
    /// # Errors
    /// The disk is full; the samples are lost and the caller counts them.
    pub fn append_metrics(&self, batch: &MetricsBatch) -> Result<(), SpoolError> {
        let bytes = encode(batch).ok().and_then(|raw| zstd::bulk::compress(&raw, 1).ok()).unwrap_or_default();
        self.metrics.append(Kind::Data, &bytes, Vec::new)
    }

    /// Appends a deploy event; durable when this returns.
    ///
    /// # Errors
    /// The lane is at its bound or the disk is full: the caller waits and tries again.
    pub fn append_event(&self, event: &Event) -> Result<(), SpoolError> {
        let json = serde_json::to_vec(event).unwrap_or_default();
        self.events.append(Kind::Data, &json, Vec::new)?;
        self.events.lock().sync()
    }

    /// Waits for the next acknowledgement.
    pub async fn acknowledged(&self) {
        self.acknowledged.notified().await;
    }

    /// Called by the uplink after each acknowledgement.
    pub fn notify_acknowledged(&self) {
        self.acknowledged.notify_one();
    }
}
