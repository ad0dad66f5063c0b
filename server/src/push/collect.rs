//! Puts pushed lines into batches by stream, masked.
//!
//! # Invariants
//! - Lines of a stream are masked in the order they came in, with what the stream's last request left open: a private key that
//!   is split over requests stays masked. Open ends of at most [`MAX_OPEN`] streams are remembered.
//! - A stream whose labels cannot be stored takes no lines; the reason is told to the caller.

use super::{Config, PushError};
use shipwatch_common::{
    mask::{LineState, Masker},
    model::{FileId, Labels, LogBatch, LogLine, Severity},
    severity,
    time::UnixNs,
};
use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Streams whose last line was within a private key.
const MAX_OPEN: usize = 10_000;
/// Lines of one batch: a row of the store's head.
const BATCH_LINES: usize = 5_000;

/// What streams' last lines left open.
#[derive(Clone, Debug, Default)]
pub struct States(Arc<Mutex<HashMap<Labels, LineState>>>);

impl States {
    fn lock(&self) -> MutexGuard<'_, HashMap<Labels, LineState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, labels: &Labels, state: LineState) {
        let mut open = self.lock();
        if state == LineState::default() {
            open.remove(labels);
        } else if open.len() < MAX_OPEN || open.contains_key(labels) {
            open.insert(labels.clone(), state);
        }
    }
}

#[derive(Debug)]
struct Stream {
    labels: Labels,
    severity: Severity,
    state: LineState,
    lines: Vec<LogLine>,
}

/// What a request came to.
#[derive(Debug, Default)]
pub struct Collected {
    /// To be stored.
    pub batches: Vec<LogBatch>,
    /// Lines in them.
    pub lines: u64,
    /// Bytes of their text.
    pub bytes: u64,
    /// Values that were masked.
    pub masked: u64,
    /// Lines that could not be masked and were replaced as a whole.
    pub replaced: u64,
    /// Lines that came without a time and have that of their arrival.
    pub untimed: u64,
}

/// Takes the lines of one request.
#[derive(Debug)]
pub struct Collector<'a> {
    masker: &'a Masker,
    states: &'a States,
    config: &'a Config,
    /// The label `source` of streams that have none.
    source: &'static str,
    now_ns: UnixNs,
    streams: Vec<Stream>,
    by_given: HashMap<Vec<(String, String)>, Result<usize, String>>,
    by_labels: HashMap<Labels, usize>,
    totals: Collected,
}

/// A line on its way in.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) ts_ns: Option<UnixNs>,
    pub(super) severity: Severity,
    pub(super) text: String,
}

impl<'a> Collector<'a> {
    /// For one request.
    #[must_use]
    pub fn new(config: &'a Config, masker: &'a Masker, states: &'a States, source: &'static str, now_ns: UnixNs) -> Self {
        let (streams, by_given, by_labels) = (Vec::new(), HashMap::new(), HashMap::new());
        Self { masker, states, config, source, now_ns, streams, by_given, by_labels, totals: Collected::default() }
    }

    pub(super) const fn config(&self) -> &'a Config {
        self.config
    }

    /// The number of a stream, or why its labels cannot be stored.
    pub(super) fn stream(&mut self, given: Vec<(String, String)>) -> Result<Result<usize, String>, PushError> {
        if let Some(known) = self.by_given.get(&given) {
            return Ok(known.clone());
        }
        let limit = self.config.max_streams;
        if self.by_given.len() >= limit as usize {
            return Err(PushError::TooMany { what: "streams", limit: limit.into(), key: "max_streams" });
        }
        let found = self.labels(&given).map(|labels| match self.by_labels.get(&labels) {
            Some(known) => *known,
            None => self.add_stream(labels),
        });
        self.by_given.insert(given, found.clone());
        Ok(found)
    }

    fn add_stream(&mut self, labels: Labels) -> usize {
        let number = self.streams.len();
        let state = self.states.lock().get(&labels).cloned().unwrap_or_default();
        let told = ["level", "detected_level", "severity"].iter().find_map(|name| labels.get(name));
        let severity = told.map_or(Severity::Unknown, severity::of_field);
        self.by_labels.insert(labels.clone(), number);
        self.streams.push(Stream { labels, severity, state, lines: Vec::new() });
        number
    }

    /// Masks values and adds where the lines come from.
    fn labels(&self, given: &[(String, String)]) -> Result<Labels, String> {
        let mut all: Vec<(&str, String)> = Vec::with_capacity(given.len() + 2);
        for (name, value) in given {
            all.push((name, self.masker.mask(value).text.into_owned()));
        }
        if !given.iter().any(|(name, _)| name == "source") {
            all.push(("source", self.source.to_owned()));
        }
        all.retain(|(name, _)| *name != "masked_by");
        all.push(("masked_by", "server".to_owned()));
        Labels::new(all.into_iter().map(|(name, value)| (name, value.into_boxed_str()))).map_err(|error| error.to_string())
    }

    /// Masks a line and keeps it.
    pub(super) fn add(&mut self, stream: usize, line: Line) -> Result<(), PushError> {
        let limit = self.config.max_lines;
        if self.totals.lines >= u64::from(limit) {
            return Err(PushError::TooMany { what: "lines", limit: limit.into(), key: "max_lines" });
        }
        let Some(stream) = self.streams.get_mut(stream) else { return Ok(()) };
        let masked = self.masker.mask_line(&mut stream.state, &line.text);
        self.totals.lines += 1;
        self.totals.masked += u64::from(masked.hits);
        self.totals.replaced += u64::from(masked.failed);
        self.totals.untimed += u64::from(line.ts_ns.is_none());
        let text = masked.text.into_owned();
        self.totals.bytes += text.len() as u64;
        let severity = [line.severity, stream.severity].into_iter().find(|told| *told != Severity::Unknown);
        stream.lines.push(LogLine {
            ts_ns: line.ts_ns.unwrap_or(self.now_ns),
            end_offset: 0,
            severity: severity.unwrap_or_else(|| severity::of_text(&text)),
            truncated: false,
            text,
        });
        Ok(())
    }

    /// What the request came to.
    #[must_use]
    pub fn finish(mut self) -> Collected {
        for mut stream in mem::take(&mut self.streams) {
            self.states.keep(&stream.labels, mem::take(&mut stream.state));
            let mut lines = stream.lines.into_iter();
            loop {
                let some: Vec<LogLine> = lines.by_ref().take(BATCH_LINES).collect();
                if some.is_empty() {
                    break;
                }
                self.totals.batches.push(LogBatch { file: FileId(0), labels: stream.labels.clone(), lines: some });
            }
        }
        self.totals
    }
}
