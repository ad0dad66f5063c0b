//! The three queues as the rest of the agent uses them.

use super::{
    Config,
    queue::{Kind, Options, Queue, Record, Recovered, SpoolError, Stored, WhenFull},
};
use crate::tail::{Middle, PIPE, Position, Restored, Sink, SinkError, StreamPosition};
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    model::{FileId, LogBatch, deploy::Event},
    protocol::{Lane, LaneState, MetricsBatch, decode, encode},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    fn new(queue: Queue) -> Self {
        Self { queue: Mutex::new(queue), appended: Notify::new() }
    }

    /// A panic while the lock was held leaves the queue's files whole, so its poison is of no meaning.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, kind: Kind, payload: &[u8], snapshot: impl FnOnce() -> Vec<u8>) -> Result<(), SpoolError> {
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
    logs: LaneQueue,
    events: LaneQueue,
    acknowledged: Notify,
}

/// Opens one lane that keeps no state of its own in the segments.
fn open_plain(dir: &Path, max_bytes: u64, when_full: WhenFull, generation: u64) -> Result<(Queue, Recovered), SpoolError> {
    let options = Options { max_bytes, segment_bytes: SEGMENT_BYTES.min(max_bytes / 8), when_full };
    Queue::open(dir, options, generation, &mut (), |(), _| {}, |()| Vec::new())
}

/// Says what opening found.
fn report(lane: Lane, found: Recovered) {
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
    /// Opens the lanes below `dir`. `generation` must be new with every start. Gives what the log lane remembers of files.
    ///
    /// # Errors
    /// A directory that cannot be read or written.
    pub fn open(dir: &Path, config: &Config, generation: u64) -> Result<(Self, Positions), SpoolError> {
        let (metrics, found) = open_plain(&dir.join("metrics"), config.metrics_max_bytes, WhenFull::DropOldest, generation)?;
        report(Lane::Metrics, found);
        let (events, found) = open_plain(&dir.join("events"), config.events_max_bytes, WhenFull::Refuse, generation)?;
        report(Lane::Events, found);
        let options = Options {
            max_bytes: config.logs_max_bytes,
            segment_bytes: SEGMENT_BYTES.min(config.logs_max_bytes / 8),
            when_full: WhenFull::Refuse,
        };
        let mut positions = Positions::default();
        let (logs, found) = Queue::open(&dir.join("logs"), options, generation, &mut positions, Positions::take, Positions::snapshot)?;
        report(Lane::Logs, found);
        let spool = Self {
            metrics: LaneQueue::new(metrics),
            logs: LaneQueue::new(logs),
            events: LaneQueue::new(events),
            acknowledged: Notify::new(),
        };
        Ok((spool, positions))
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

/// How far each file was read, as of the last record. Lies at the head of every segment and is moved by every record of the
/// log lane, so lines and position are one.
///
/// Golden bytes of every version are in `fixtures/`; versions 1 and 2 are still read.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Positions {
    /// Files were looked for at least once.
    started: bool,
    files: BTreeMap<FileId, Position>,
    streams: BTreeMap<FileId, StreamPosition>,
}

/// Begins a snapshot of version 2, which has no streams. Version 1 begins with a count, which never begins with this byte.
const SNAPSHOT_2: [u8; 2] = [0xff, 2];
/// Begins a snapshot of version 3.
const SNAPSHOT_3: [u8; 2] = [0xff, 3];
/// Streams that are remembered; of more (pipes that never ended) the oldest are forgotten.
const MAX_STREAMS: usize = 100;

/// What a record of the log lane does to the positions. In a record, its length stands before it and the lines behind it.
#[derive(Debug, Deserialize, Serialize)]
enum Step {
    ReachedV1(PositionV1),
    Forgotten(FileId),
    Started,
    Reached(Position),
    Streamed(StreamPosition),
}

/// A position as version 1 wrote it.
#[derive(Debug, Deserialize, Serialize)]
struct PositionV1 {
    file: FileId,
    path: String,
    dev: u64,
    ino: u64,
    offset: u64,
    head_len: u32,
    head_hash: u64,
    marker: u64,
    skipping: bool,
}

impl From<PositionV1> for Position {
    fn from(old: PositionV1) -> Self {
        let path = PathBuf::from(old.path);
        Self {
            file: old.file,
            name: path.clone(),
            path,
            dev: old.dev,
            ino: old.ino,
            offset: old.offset,
            head_len: old.head_len,
            head_hash: old.head_hash,
            marker: old.marker,
            crc: (old.offset == 0).then_some(0),
            seen_size: old.offset,
            mtime_ns: 0,
            packed: false,
            skipping: old.skipping,
            middle: Middle::default(),
        }
    }
}

impl Positions {
    /// For the tailer.
    #[must_use]
    pub fn restored(&self) -> Restored {
        Restored {
            positions: self.files.values().cloned().collect(),
            streams: self.streams.values().cloned().collect(),
            started: self.started,
        }
    }

    fn take(&mut self, stored: Stored<'_>) {
        match stored {
            // An unreadable snapshot would need a change of format without a change of version; what is known stays.
            Stored::Snapshot(bytes) => *self = Self::parse(bytes).unwrap_or_else(|| std::mem::take(self)),
            Stored::Payload(bytes) => {
                if let Some(step) = split(bytes).and_then(|(step, _)| decode(step).ok()) {
                    self.apply(step);
                }
            }
        }
    }

    fn parse(snapshot: &[u8]) -> Option<Self> {
        if let Some(rest) = snapshot.strip_prefix(&SNAPSHOT_3) {
            return decode(rest).ok();
        }
        if let Some(rest) = snapshot.strip_prefix(&SNAPSHOT_2) {
            let (started, files) = decode(rest).ok()?;
            return Some(Self { started, files, ..Self::default() });
        }
        let files: BTreeMap<FileId, PositionV1> = decode(snapshot).ok()?;
        let files: BTreeMap<FileId, Position> = files.into_iter().map(|(file, old)| (file, old.into())).collect();
        Some(Self { started: !files.is_empty(), files, ..Self::default() })
    }

    fn apply(&mut self, step: Step) {
        match step {
            // Files are as new as before.
            Step::Streamed(position) => return self.streamed(position),
            Step::Started => {}
            Step::ReachedV1(old) => drop(self.files.insert(old.file, old.into())),
            Step::Reached(position) => drop(self.files.insert(position.file, position)),
            Step::Forgotten(id) if self.streams.remove(&id).is_some() => return,
            Step::Forgotten(file) => drop(self.files.remove(&file)),
        }
        self.started = true;
    }

    fn streamed(&mut self, position: StreamPosition) {
        self.streams.insert(position.stream, position);
        if self.streams.len() > MAX_STREAMS {
            let oldest = self.streams.values().find(|stream| stream.name.starts_with(PIPE)).map(|stream| stream.stream);
            oldest.map(|oldest| self.streams.remove(&oldest));
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        let mut bytes = SNAPSHOT_3.to_vec();
        bytes.extend(encode(self).unwrap_or_default());
        bytes
    }
}

/// A record's step and its lines.
fn split(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = record.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// The encoded [`LogBatch`] of a record of the log lane.
#[must_use]
pub fn log_batch(record: &[u8]) -> Option<&[u8]> {
    split(record).map(|(_, batch)| batch)
}

/// The way into the log lane, of the tailer and of the sources beside it: clones share what is remembered.
#[derive(Clone, Debug)]
pub struct LogSink {
    spool: Arc<Spool>,
    positions: Arc<Mutex<Positions>>,
}

impl LogSink {
    /// `positions` is what [`Spool::open`] gave.
    #[must_use]
    pub fn new(spool: Arc<Spool>, positions: Positions) -> Self {
        Self { spool, positions: Arc::new(Mutex::new(positions)) }
    }

    fn put_batch(&mut self, batch: Option<LogBatch>, step: Step) -> Result<(), SinkError> {
        let (kind, lines) = match batch {
            Some(batch) => (Kind::Data, encode(&batch).map_err(|error| SinkError::Io(error.to_string()))?),
            None => (Kind::Note, Vec::new()),
        };
        self.put(kind, step, &lines)
    }

    fn put(&mut self, kind: Kind, step: Step, batch: &[u8]) -> Result<(), SinkError> {
        let encoded = encode(&step).map_err(|error| SinkError::Io(error.to_string()))?;
        let mut record = u32::try_from(encoded.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
        record.extend_from_slice(&encoded);
        record.extend_from_slice(batch);
        // The head of a new segment stands for everything before it, so it must not contain this record's step yet.
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        self.spool.logs.append(kind, &record, || positions.snapshot()).map_err(|error| match error {
            SpoolError::Full(_) => SinkError::Full,
            other => SinkError::Io(other.to_string()),
        })?;
        positions.apply(step);
        Ok(())
    }
}

impl Sink for LogSink {
    fn append(&mut self, batch: Option<LogBatch>, position: Position) -> Result<(), SinkError> {
        self.put_batch(batch, Step::Reached(position))
    }

    fn append_stream(&mut self, batch: Option<LogBatch>, position: StreamPosition) -> Result<(), SinkError> {
        self.put_batch(batch, Step::Streamed(position))
    }

    fn forget(&mut self, file: FileId) -> Result<(), SinkError> {
        self.put(Kind::Note, Step::Forgotten(file), &[])
    }

    fn started(&mut self) -> Result<(), SinkError> {
        self.put(Kind::Note, Step::Started, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::Output;
    use shipwatch_common::{
        mask::LineState,
        model::{Labels, LogLine, Severity},
    };

    fn position(file: u128, offset: u64) -> Position {
        Position {
            file: FileId(file),
            name: "/var/log/a.log".into(),
            path: "/var/log/a.log.1".into(),
            dev: 1,
            ino: 2,
            offset,
            head_len: 3,
            head_hash: 4,
            marker: 5,
            crc: Some(6),
            seen_size: 7,
            mtime_ns: 8,
            packed: false,
            skipping: false,
            middle: Middle::default(),
        }
    }

    fn batch(file: u128, text: &str) -> LogBatch {
        let line = LogLine { ts_ns: 1, end_offset: 9, severity: Severity::Info, truncated: false, text: text.into() };
        LogBatch { file: FileId(file), labels: Labels::default(), lines: vec![line] }
    }

    #[test]
    fn positions_are_those_of_the_last_record_also_over_segments() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { logs_max_bytes: 1 << 20, ..Config::default() };
        let (spool, none) = Spool::open(dir.path(), &config, 1).unwrap();
        assert_eq!((none.restored().started, none.files.len()), (false, 0));
        let mut sink = LogSink::new(Arc::new(spool), none);
        sink.append(None, position(2, 7)).unwrap();
        for at in 0..300 {
            sink.append(Some(batch(1, &"x".repeat(1000))), position(1, at)).unwrap();
        }
        sink.append(None, position(3, 1)).unwrap();
        sink.forget(FileId(3)).unwrap();
        let spool = Arc::clone(&sink.spool);
        let sent = spool.lane(Lane::Logs).read(1 << 20).unwrap();
        let first: LogBatch = decode(log_batch(&sent[0].payload).unwrap()).unwrap();
        assert_eq!((sent.len(), first), (300, batch(1, &"x".repeat(1000))));
        spool.lane(Lane::Logs).ack(1, 300).unwrap();
        drop((sink, spool));
        let (_, restored) = Spool::open(dir.path(), &config, 2).unwrap();
        let restored = restored.restored();
        assert_eq!((restored.started, restored.positions), (true, vec![position(1, 299), position(2, 7)]));
    }

    #[test]
    fn a_start_without_files_is_remembered_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, none) = Spool::open(dir.path(), &Config::default(), 1).unwrap();
        LogSink::new(Arc::new(spool), none).started().unwrap();
        let (_, restored) = Spool::open(dir.path(), &Config::default(), 2).unwrap();
        assert!(restored.restored().started);
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks_exact(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// What version 1 wrote: a snapshot, and a record that moves the position on.
    #[test]
    fn positions_of_version_1_are_still_read() {
        let mut lines = include_str!("fixtures/positions-v1.hex").lines().map(unhex);
        let (snapshot, record) = (lines.next().unwrap(), lines.next().unwrap());
        let mut positions = Positions::default();
        positions.take(Stored::Snapshot(&snapshot));
        positions.take(Stored::Payload(&record));
        let restored = positions.restored();
        assert!(restored.started);
        let [one, two] = &restored.positions[..] else { panic!("{restored:?}") };
        assert_eq!((one.file, one.offset, one.path.to_str(), one.name == one.path), (FileId(1), 300, Some("/var/log/a.log"), true));
        assert_eq!((two.file, two.dev, two.ino, two.head_len, two.head_hash, two.marker), (FileId(2), 1, 70_000, 3, 4, 5));
        assert_eq!((two.offset, two.seen_size, two.crc), (7, 7, None));
    }

    fn positions() -> Positions {
        let mut positions = Positions::default();
        positions.apply(Step::Reached(Position { ino: 70_000, ..position(2, 7) }));
        positions.apply(Step::Reached(Position { packed: true, crc: None, ..position(1, 300) }));
        positions
    }

    #[test]
    fn positions_of_version_2_are_still_read() {
        let step = encode(&Step::Reached(position(1, 301))).unwrap();
        let golden: Vec<&str> = include_str!("fixtures/positions-v2.hex").lines().collect();
        assert_eq!(hex(&step), golden[1]);
        assert_eq!(Positions::parse(&unhex(golden[0])).unwrap(), positions());
    }

    #[test]
    fn positions_of_version_3_have_these_bytes() {
        let open: LineState = decode(&[200, 1]).unwrap();
        let mut positions = positions();
        let stream = StreamPosition {
            stream: FileId(5),
            name: "journal".into(),
            cursor: "s=1;i=2".into(),
            offset: 9,
            skipping: false,
            lines: BTreeMap::from([("unit=a".to_owned(), open.clone())]),
        };
        let streamed = Step::Streamed(stream);
        let step = hex(&encode(&streamed).unwrap());
        positions.apply(streamed);
        let stderr = Output { ahead: 40, skipping: true, line: open.clone() };
        let outputs = Position { middle: Middle { outputs: [Output::default(), stderr], ..Middle::default() }, ..position(3, 4) };
        positions.apply(Step::Reached(outputs));
        positions.apply(Step::Reached(Position { middle: Middle { line: open, ..Middle::default() }, ..position(4, 4) }));
        let golden: Vec<&str> = include_str!("fixtures/positions-v3.hex").lines().collect();
        assert_eq!([hex(&positions.snapshot()), step], golden[..]);
        assert_eq!(Positions::parse(&unhex(golden[0])).unwrap(), positions);
        positions.apply(Step::Forgotten(FileId(5)));
        assert!(positions.restored().streams.is_empty());
    }
}
