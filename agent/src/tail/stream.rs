//! Lines that come one by one, each with what its sender said of it: the common part of journal and syslog.
//!
//! # Invariants
//! - A line is masked, parsed, filtered and counted as one of a file; see [`super::lines`].
//! - Lines and the position behind them are one record. What the sink refuses is offered again, and nothing is read meanwhile.
//! - Labels from outside are masked and bounded, and so is their number: beyond [`MAX_LABEL_SETS`] lines go to a stream whose
//!   labels are `other`.

use super::{
    Counters, Sink, SinkError, StreamPosition,
    decode::Encoding,
    derived,
    filter::Budget,
    follow, lines,
    lines::{Batch, Event, Place, Raw, Told},
    multiline::Inside,
    source::{OVERLAP_BYTES, Source},
};
use shipwatch_common::{
    model::{Labels, LogBatch},
    time::{UnixNs, now_ns},
};
use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Streams of one source that are told apart.
const MAX_LABEL_SETS: usize = 500;
/// Streams that are in the middle of a secret of several lines.
const MAX_STATES: usize = 64;
/// Until a full sink is asked again.
const BLOCKED: Duration = Duration::from_millis(200);
/// Longest label value from outside, in bytes.
const LABEL_BYTES: usize = 256;

/// A sink for several tasks.
pub(super) type SharedSink = Arc<Mutex<dyn Sink>>;

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Labels that come from outside.
pub(super) type Outside = Vec<(&'static str, String)>;

/// One line and what its sender said of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Item {
    pub(super) text: String,
    pub(super) told: Told,
    pub(super) labels: Outside,
    /// It was longer than [`longest`] and cut there.
    pub(super) cut: bool,
    /// Where to go on behind it; empty where there is no such place.
    pub(super) cursor: String,
    /// Nothing but a place to go on from.
    pub(super) is_empty: bool,
}

/// Bytes of a line that are kept: what is beyond the source's bound is for the masker.
pub(super) fn longest(source: &Source) -> usize {
    source.encoding.spread() * (source.max_line_bytes + OVERLAP_BYTES)
}

/// One source and how far it was taken.
#[derive(Debug)]
pub(super) struct Stream {
    source: Arc<Source>,
    counters: Arc<Counters>,
    position: StreamPosition,
    budget: Budget,
    known: HashMap<Outside, Labels>,
}

impl Stream {
    /// Goes on where `restored` has its name, else begins.
    pub(super) fn new(source: Arc<Source>, counters: Arc<Counters>, name: String, restored: &[StreamPosition]) -> Self {
        let position = restored.iter().find(|position| position.name == name).cloned();
        let position = position.unwrap_or_else(|| begun(follow::new_id(), name));
        Self { source, counters, position, budget: Budget::default(), known: HashMap::new() }
    }

    /// What the source's limit allows now, for who makes lines himself.
    pub(super) const fn budget(&self) -> Budget {
        self.budget
    }

    pub(super) const fn set_budget(&mut self, budget: Budget) {
        self.budget = budget;
    }

    pub(super) fn cursor(&self) -> &str {
        &self.position.cursor
    }

    /// Gives items to the sink, as many as it takes. Consecutive ones of the same labels are a record.
    fn put(&mut self, items: &[Item], sink: &mut dyn Sink, now: UnixNs) -> (usize, Result<(), SinkError>) {
        let mut taken = 0;
        for run in items.chunk_by(|a, b| a.labels == b.labels) {
            if let Err(error) = self.put_run(run, sink, now) {
                return (taken, Err(error));
            }
            taken += run.len();
        }
        (taken, Ok(()))
    }

    fn put_run(&mut self, run: &[Item], sink: &mut dyn Sink, now: UnixNs) -> Result<(), SinkError> {
        let outside = run.first().map(|item| item.labels.clone()).unwrap_or_default();
        let labels = self.labels(outside)?;
        let key = labels.to_string();
        let mut position = self.position.clone();
        let state = position.lines.remove(&key).unwrap_or_default();
        let place = Place { source: &self.source, encoding: Encoding::UTF_8, file: position.stream, offset: position.offset, now };
        let mut made = Batch::new(false, state, self.budget);
        let mut bytes = 0;
        for (at, item) in run.iter().enumerate().filter(|(_, item)| !item.is_empty) {
            let raw = Raw { start: at, end: at + 1, cut: item.cut };
            made.finish(&place, Event::new(raw, Cow::Borrowed(&item.text), Inside::Line, item.told), false);
            bytes += item.text.len();
        }
        position.offset += run.len() as u64;
        if let Some(item) = run.last().filter(|item| !item.cursor.is_empty()) {
            position.cursor.clone_from(&item.cursor);
        }
        if made.line_state != Default::default() && position.lines.len() < MAX_STATES {
            position.lines.insert(key, made.line_state);
        }
        let count = made.lines.len();
        let batch = (count > 0).then(|| LogBatch { file: position.stream, labels: labels.clone(), lines: made.lines });
        // Where nothing can be gone on from, an empty record says nothing.
        if batch.is_some() || !position.cursor.is_empty() {
            sink.append_stream(batch, position.clone())?;
        }
        derived::count(made.observations, &labels);
        self.counters.count(count as u64, bytes as u64, &made.stats);
        (self.position, self.budget) = (position, made.budget);
        Ok(())
    }

    fn labels(&mut self, mut outside: Outside) -> Result<Labels, SinkError> {
        if let Some(labels) = self.known.get(&outside) {
            return Ok(labels.clone());
        }
        if self.known.len() >= MAX_LABEL_SETS {
            outside.iter_mut().for_each(|(_, value)| "other".clone_into(value));
        }
        let bounded: Vec<(&str, String)> =
            outside.iter().map(|(name, value)| (*name, lines::head(value, LABEL_BYTES).to_owned())).collect();
        let labels = self.source.labels_with(&bounded).map_err(SinkError::Io)?;
        self.known.insert(outside, labels.clone());
        Ok(labels)
    }
}

/// A stream that nothing was read of.
pub(super) const fn begun(stream: shipwatch_common::model::FileId, name: String) -> StreamPosition {
    StreamPosition { stream, name, cursor: String::new(), offset: 0, skipping: false, lines: std::collections::BTreeMap::new() }
}

/// The agent stops.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stopped;

/// A source's way to the sink, for its tasks.
#[derive(Clone)]
pub(super) struct Feed {
    pub(super) source: Arc<Source>,
    pub(super) counters: Arc<Counters>,
    pub(super) stream: Arc<Mutex<Stream>>,
    pub(super) sink: SharedSink,
    pub(super) stop: CancellationToken,
    pub(super) is_failing: Arc<AtomicBool>,
}

impl Feed {
    pub(super) fn new(source: &Arc<Source>, counters: &Arc<Counters>, stream: Stream, sink: &SharedSink, stop: &CancellationToken) -> Self {
        Self {
            source: Arc::clone(source),
            counters: Arc::clone(counters),
            stream: Arc::new(Mutex::new(stream)),
            sink: Arc::clone(sink),
            stop: stop.clone(),
            is_failing: Arc::default(),
        }
    }

    /// Notes whether the source works; gives whether it did.
    pub(super) fn set_failing(&self, failing: bool) -> bool {
        let was = self.is_failing.swap(failing, Ordering::Relaxed);
        let gauge = &self.counters.failing_streams;
        match (was, failing) {
            (false, true) => drop(gauge.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(gauge.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        !was
    }

    /// Gives items to the sink; waits while it is full.
    ///
    /// # Errors
    /// The agent stops; what the sink did not take is not remembered either.
    pub(super) async fn deliver(&self, items: &[Item]) -> Result<(), Stopped> {
        let mut left = items;
        while !left.is_empty() {
            let (taken, outcome) = lock(&self.stream).put(left, &mut *lock(&self.sink), now_ns());
            left = &left[taken..];
            if let Err(error) = outcome {
                self.wait(error).await?;
            }
        }
        Ok(())
    }

    /// Waits for a sink that refused.
    pub(super) async fn wait(&self, error: SinkError) -> Result<(), Stopped> {
        if let SinkError::Io(error) = error {
            warn!(%error, "the spool does not take lines");
        }
        self.counters.blocked_streams.fetch_add(1, Ordering::Relaxed);
        let outcome = self.rest(BLOCKED).await;
        self.counters.blocked_streams.fetch_sub(1, Ordering::Relaxed);
        outcome
    }

    /// Lets time go by.
    pub(super) async fn rest(&self, time: Duration) -> Result<(), Stopped> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = self.stop.cancelled() => Err(Stopped),
        }
    }
}
