//! An at-least-once queue of records in segment files.
//!
//! ```text
//! segment: "SHIPSPL1" | generation u64 | first seq u64 | snapshot length u32 | crc32 u32 | snapshot
//! record:  "SR" | kind u8 | length u32 | seq u64 | crc32 u32 | payload
//! ```
//! Numbers are big-endian; a CRC covers what is before it and behind it. The golden file of version 1 is in `fixtures/`.
//! Every opening begins a new generation and a new segment: old segments are only read and removed.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

const MAGIC: &[u8; 8] = b"SHIPSPL1";
const RECORD_MAGIC: [u8; 2] = *b"SR";
const HEAD_BYTES: usize = 32;
const RECORD_HEAD_BYTES: usize = 19;
/// Larger than any frame may be: a longer length is damage.
const MAX_RECORD_BYTES: usize = 20 << 20;

/// Why a queue could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The queue is at its bound, or the disk is full. Try later.
    #[error("spool {0} is full")]
    Full(String),
    /// Reading or writing failed.
    #[error("spool {path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// The system's words.
        source: io::Error,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> SpoolError + '_ {
    move |source| {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            SpoolError::Full(path.display().to_string())
        } else {
            SpoolError::Io { path: path.display().to_string(), source }
        }
    }
}

/// What to do at the bound.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WhenFull {
    /// Remove the oldest segment.
    DropOldest,
    /// Refuse the new record.
    Refuse,
}

/// How a queue behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bound of all segments together.
    pub max_bytes: u64,
    /// A segment that is larger is closed.
    pub segment_bytes: u64,
    /// What to do at the bound.
    pub when_full: WhenFull,
}

/// What opening found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Recovered {
    /// Records that wait to be sent.
    pub records: u64,
    /// Bytes that could not be read as records.
    pub damaged_bytes: u64,
    /// Segments whose head could not be read; kept aside as `*.damaged`.
    pub damaged_segments: u64,
}

/// A record on its way to the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Generation of its segment.
    pub generation: u64,
    /// Sequence within the generation.
    pub seq: u64,
    /// What was appended.
    pub payload: Vec<u8>,
}

/// What [`Queue::open`] shows of the stored content, in order.
#[derive(Debug)]
pub enum Stored<'a> {
    /// The state at the head of a segment; replaces what was known.
    Snapshot(&'a [u8]),
    /// A record or note.
    Payload(&'a [u8]),
}

/// Data is sent; a note is only remembered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// For the server.
    Data,
    /// For the agent's own next start.
    Note,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    generation: u64,
    /// Sequence of its first data record.
    first_seq: u64,
    /// Data records in it.
    records: u64,
    bytes: u64,
    /// Of these, the head with its snapshot: a large one must not fill a segment on its own.
    head_bytes: u64,
}

impl Segment {
    const fn last_seq(&self) -> u64 {
        (self.first_seq + self.records).saturating_sub(1)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Queue {
    dir: PathBuf,
    options: Options,
    generation: u64,
    next_seq: u64,
    /// Oldest first; the last is being written.
    segments: VecDeque<Segment>,
    active: File,
    dirty: bool,
    /// The segment and offset that [`Queue::read`] goes on from.
    reader: (u64, u64),
    reading: Option<(u64, File)>,
    /// Last acknowledged record.
    acked: (u64, u64),
    dropped_records: u64,
    damaged_bytes: u64,
}

impl Queue {
    /// Opens or creates the queue in `dir`, showing its content to `visit`, and begins a new segment whose head will carry
    /// `snapshot()` (taken after all content was shown).
    ///
    /// # Errors
    /// The directory cannot be read or written. Damage is no error: it is reported in [`Recovered`].
    pub fn open<S>(
        dir: &Path,
        options: Options,
        generation: u64,
        state: &mut S,
        mut visit: impl FnMut(&mut S, Stored<'_>),
        snapshot: impl FnOnce(&S) -> Vec<u8>,
    ) -> Result<(Self, Recovered), SpoolError> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let mut found = Recovered::default();
        let mut segments = VecDeque::new();
        let mut last_number = 0;
        for (number, path) in list(dir)? {
            last_number = number;
            let bytes = fs::read(&path).map_err(io_error(&path))?;
            let Some(head) = Head::parse(&bytes) else {
                found.damaged_segments += 1;
                found.damaged_bytes += bytes.len() as u64;
                let aside = path.with_extension("damaged");
                fs::rename(&path, &aside).map_err(io_error(&path))?;
                continue;
            };
            visit(state, Stored::Snapshot(head.snapshot));
            let mut segment = Segment {
                number,
                path,
                generation: head.generation,
                first_seq: head.first_seq,
                records: 0,
                bytes: bytes.len() as u64,
                head_bytes: head.end as u64,
            };
            let mut scan = Scan { bytes: &bytes, at: head.end, to_end: true, damaged: 0 };
            while let Some(record) = scan.next() {
                if record.kind == Kind::Data {
                    // A damaged record leaves a hole in the sequence; the server allows holes.
                    segment.records = record.seq + 1 - head.first_seq.min(record.seq);
                    found.records += 1;
                }
                visit(state, Stored::Payload(record.payload));
            }
            found.damaged_bytes += scan.damaged;
            segments.push_back(segment);
        }
        let (segment, active) = begin(dir, last_number + 1, generation, 1, &snapshot(state))?;
        segments.push_back(segment);
        let mut queue = Self {
            dir: dir.to_owned(),
            options,
            generation,
            next_seq: 1,
            segments,
            active,
            dirty: false,
            reader: (0, 0),
            reading: None,
            acked: (0, 0),
            dropped_records: 0,
            damaged_bytes: found.damaged_bytes,
        };
        queue.rewind();
        queue.remove_finished()?;
        Ok((queue, found))
    }

    /// Appends one record. `snapshot` is asked for when a new segment begins.
    ///
    /// # Errors
    /// [`SpoolError::Full`] at the bound (with [`WhenFull::Refuse`]) or on a full disk: nothing was written.
    pub fn append(&mut self, kind: Kind, payload: &[u8], snapshot: impl FnOnce() -> Vec<u8>) -> Result<(), SpoolError> {
        let size = (RECORD_HEAD_BYTES + payload.len()) as u64;
        self.make_room(size, kind)?;
        let is_full = |segment: &Segment| {
            let records = segment.bytes - segment.head_bytes;
            records > 0 && records + size > self.options.segment_bytes
        };
        if self.active_segment().is_some_and(is_full) {
            self.rotate(&snapshot())?;
        }
        let seq = if kind == Kind::Data { self.next_seq } else { 0 };
        let record = encode_record(kind, seq, payload);
        match self.write(&record) {
            Err(SpoolError::Full(_)) if self.options.when_full == WhenFull::DropOldest && self.segments.len() > 1 => {
                self.drop_oldest()?;
                self.write(&record)?;
            }
            done => done?,
        }
        if kind == Kind::Data
            && let Some(segment) = self.segments.back_mut()
        {
            segment.records += 1;
            self.next_seq += 1;
        }
        Ok(())
    }

    fn write(&mut self, record: &[u8]) -> Result<(), SpoolError> {
        let Some(segment) = self.segments.back_mut() else { return Err(SpoolError::Full(self.dir.display().to_string())) };
        if let Err(error) = self.active.write_all(record) {
            // A part of the record may be there: take it away, so that the next one begins cleanly.
            let cut = self.active.set_len(segment.bytes).and_then(|()| self.active.seek(SeekFrom::Start(segment.bytes)));
            cut.map_err(io_error(&segment.path))?;
            return Err(io_error(&segment.path)(error));
        }
        segment.bytes += record.len() as u64;
        self.dirty = true;
        Ok(())
    }

    /// Up to `max_bytes` (at least one record) of what was not read yet, fsynced before it is given out.
    ///
    /// # Errors
    /// Reading failed. Damaged records are skipped and counted.
    pub fn read(&mut self, max_bytes: usize) -> Result<Vec<Record>, SpoolError> {
        self.sync()?;
        let mut records = Vec::new();
        let mut taken = 0;
        while taken < max_bytes {
            let Some(at) = self.segments.iter().position(|segment| segment.number >= self.reader.0) else { break };
            let (number, generation, bytes) = (self.segments[at].number, self.segments[at].generation, self.segments[at].bytes);
            if number > self.reader.0 {
                self.reader = (number, 0);
            }
            if self.reader.1 >= bytes {
                if at + 1 == self.segments.len() {
                    break;
                }
                self.reader = (number + 1, 0);
                continue;
            }
            let chunk = self.chunk(at, self.reader.1, max_bytes)?;
            let start = if self.reader.1 == 0 { Head::parse(&chunk).map_or(HEAD_BYTES, |head| head.end) } else { 0 };
            let to_end = self.reader.1 + chunk.len() as u64 >= bytes;
            let mut scan = Scan { bytes: &chunk, at: start, to_end, damaged: 0 };
            while taken < max_bytes
                && let Some(record) = scan.next()
            {
                if record.kind == Kind::Data && self.is_unacked(generation, record.seq) {
                    taken += record.payload.len() + RECORD_HEAD_BYTES;
                    records.push(Record { generation, seq: record.seq, payload: record.payload.to_vec() });
                }
            }
            self.damaged_bytes += scan.damaged;
            self.reader.1 += scan.at as u64;
        }
        Ok(records)
    }

    /// Bytes of a segment from `offset`: enough for the budget, and always at least one whole record.
    fn chunk(&mut self, at: usize, offset: u64, budget: usize) -> Result<Vec<u8>, SpoolError> {
        let segment = &self.segments[at];
        if self.reading.as_ref().is_none_or(|(number, _)| *number != segment.number) {
            self.reading = Some((segment.number, File::open(&segment.path).map_err(io_error(&segment.path))?));
        }
        let Some((_, file)) = &mut self.reading else { return Ok(Vec::new()) };
        let mut want = (budget + HEAD_BYTES + RECORD_HEAD_BYTES) as u64;
        loop {
            file.seek(SeekFrom::Start(offset)).map_err(io_error(&segment.path))?;
            let mut chunk = Vec::new();
            file.take(want.min(segment.bytes - offset)).read_to_end(&mut chunk).map_err(io_error(&segment.path))?;
            let start = if offset == 0 { Head::parse(&chunk).map(|head| head.end) } else { Some(0) };
            let whole = start.is_some_and(|start| parse_record(chunk.get(start..).unwrap_or_default()).is_some());
            if whole || offset + want >= segment.bytes {
                return Ok(chunk);
            }
            want *= 2;
        }
    }

    /// Everything up to this record is durable on the server: finished segments are removed.
    ///
    /// # Errors
    /// A file could not be removed.
    pub fn ack(&mut self, generation: u64, seq: u64) -> Result<(), SpoolError> {
        let order = |wanted: u64| self.segments.iter().rposition(|segment| segment.generation == wanted);
        let Some(new) = order(generation) else { return Ok(()) };
        if order(self.acked.0).is_some_and(|old| old > new && self.acked.0 != generation) {
            return Ok(());
        }
        if self.acked.0 != generation || seq > self.acked.1 {
            self.acked = (generation, seq);
        }
        self.remove_finished()
    }

    /// After a new connection: [`Queue::read`] begins again at the oldest record that is not acknowledged.
    pub fn rewind(&mut self) {
        self.reader = (self.segments.front().map_or(0, |segment| segment.number), 0);
        self.reading = None;
    }

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// fsync failed.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        if self.dirty {
            let dir = self.dir.clone();
            self.active.sync_data().map_err(io_error(&dir))?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Generations that hold records or are being written, oldest first.
    #[must_use]
    pub fn generations(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.segments.iter().map(|segment| segment.generation).collect();
        all.dedup();
        all
    }

    /// Bytes of segments with records that are not acknowledged.
    #[must_use]
    pub fn pending_bytes(&self) -> u64 {
        self.segments
            .iter()
            .filter(|segment| segment.records > 0 && self.is_unacked(segment.generation, segment.last_seq()))
            .map(|s| s.bytes)
            .sum()
    }

    /// Records that were dropped unsent at the bound.
    #[must_use]
    pub const fn dropped_records(&self) -> u64 {
        self.dropped_records
    }

    /// Bytes that could not be read as records.
    #[must_use]
    pub const fn damaged_bytes(&self) -> u64 {
        self.damaged_bytes
    }

    fn active_segment(&self) -> Option<&Segment> {
        self.segments.back()
    }

    fn is_unacked(&self, generation: u64, seq: u64) -> bool {
        let order = |wanted: u64| self.segments.iter().rposition(|segment| segment.generation == wanted);
        match (order(self.acked.0), order(generation)) {
            (None, _) => true,
            (Some(acked), Some(this)) if generation != self.acked.0 => this > acked,
            _ => seq > self.acked.1,
        }
    }

    fn remove_finished(&mut self) -> Result<(), SpoolError> {
        while self.segments.len() > 1 {
            let oldest = &self.segments[0];
            if oldest.records > 0 && self.is_unacked(oldest.generation, oldest.last_seq()) {
                break;
            }
            self.remove_oldest()?;
        }
        Ok(())
    }

    fn remove_oldest(&mut self) -> Result<(), SpoolError> {
        let Some(oldest) = self.segments.front() else { return Ok(()) };
        fs::remove_file(&oldest.path).map_err(io_error(&oldest.path))?;
        self.segments.pop_front();
        Ok(())
    }

    fn make_room(&mut self, size: u64, kind: Kind) -> Result<(), SpoolError> {
        let total = |queue: &Self| queue.segments.iter().map(|segment| segment.bytes).sum::<u64>();
        // Notes are small and let files be forgotten, which makes room: they may go a little beyond.
        let bound = if kind == Kind::Note { self.options.max_bytes + self.options.segment_bytes } else { self.options.max_bytes };
        while total(self) + size > bound {
            if self.options.when_full == WhenFull::Refuse || self.segments.len() <= 1 {
                return Err(SpoolError::Full(self.dir.display().to_string()));
            }
            self.drop_oldest()?;
        }
        Ok(())
    }

    /// Removes the oldest segment whether it was sent or not, and counts what was not.
    fn drop_oldest(&mut self) -> Result<(), SpoolError> {
        if let Some(oldest) = self.segments.front().filter(|segment| segment.records > 0) {
            let lost = (oldest.first_seq..=oldest.last_seq()).filter(|seq| self.is_unacked(oldest.generation, *seq)).count();
            self.dropped_records += lost as u64;
        }
        self.remove_oldest()
    }

    fn rotate(&mut self, snapshot: &[u8]) -> Result<(), SpoolError> {
        self.sync()?;
        let number = self.active_segment().map_or(1, |segment| segment.number + 1);
        let (segment, file) = begin(&self.dir, number, self.generation, self.next_seq, snapshot)?;
        self.segments.push_back(segment);
        self.active = file;
        self.remove_finished()
    }
}

fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, SpoolError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error(dir))? {
        let path = entry.map_err(io_error(dir))?.path();
        let is_segment = path.extension().is_some_and(|extension| extension == "seg");
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let (true, Some(number)) = (is_segment, number) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes a segment file with its head, durable including its name.
fn begin(dir: &Path, number: u64, generation: u64, first_seq: u64, snapshot: &[u8]) -> Result<(Segment, File), SpoolError> {
    let path = dir.join(format!("{number:010}.seg"));
    let temporary = path.with_extension("tmp");
    let head = encode_head(generation, first_seq, snapshot);
    let write = || -> io::Result<File> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&temporary)?;
        file.write_all(&head)?;
        file.sync_data()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()?;
        Ok(file)
    };
    let file = write().map_err(io_error(&path))?;
    let bytes = head.len() as u64;
    Ok((Segment { number, path, generation, first_seq, records: 0, bytes, head_bytes: bytes }, file))
}

fn encode_head(generation: u64, first_seq: u64, snapshot: &[u8]) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&generation.to_be_bytes());
    head.extend_from_slice(&first_seq.to_be_bytes());
    head.extend_from_slice(&u32::try_from(snapshot.len()).unwrap_or(u32::MAX).to_be_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head);
    crc.update(snapshot);
    head.extend_from_slice(&crc.finalize().to_be_bytes());
    head.extend_from_slice(snapshot);
    head
}

fn encode_record(kind: Kind, seq: u64, payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD_HEAD_BYTES + payload.len());
    record.extend_from_slice(&RECORD_MAGIC);
    record.push(u8::from(kind == Kind::Data));
    record.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    record.extend_from_slice(&seq.to_be_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&record);
    crc.update(payload);
    record.extend_from_slice(&crc.finalize().to_be_bytes());
    record.extend_from_slice(payload);
    record
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

struct Head<'a> {
    generation: u64,
    first_seq: u64,
    snapshot: &'a [u8],
    /// Where records begin.
    end: usize,
}

impl<'a> Head<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.get(..8)? != MAGIC {
            return None;
        }
        let length = u32::from_be_bytes(number(bytes, 24)?) as usize;
        let snapshot = bytes.get(HEAD_BYTES..HEAD_BYTES.checked_add(length)?)?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..28]);
        crc.update(snapshot);
        (crc.finalize() == u32::from_be_bytes(number(bytes, 28)?)).then_some(())?;
        Some(Self {
            generation: u64::from_be_bytes(number(bytes, 8)?),
            first_seq: u64::from_be_bytes(number(bytes, 16)?),
            snapshot,
            end: HEAD_BYTES + length,
        })
    }
}

struct Parsed<'a> {
    kind: Kind,
    seq: u64,
    payload: &'a [u8],
}

fn parse_record(bytes: &[u8]) -> Option<Parsed<'_>> {
    if bytes.get(..2)? != RECORD_MAGIC {
        return None;
    }
    let kind = if *bytes.get(2)? == 1 { Kind::Data } else { Kind::Note };
    let length = u32::from_be_bytes(number(bytes, 3)?) as usize;
    if length > MAX_RECORD_BYTES {
        return None;
    }
    let payload = bytes.get(RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + length)?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..15]);
    crc.update(payload);
    (crc.finalize() == u32::from_be_bytes(number(bytes, 15)?)).then_some(())?;
    Some(Parsed { kind, seq: u64::from_be_bytes(number(bytes, 7)?), payload })
}

/// Walks records. Behind damage it goes on at the next place that reads as a whole record, but only when the slice
/// reaches to the end of the segment: otherwise an unreadable place may be a record that the slice cut.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    to_end: bool,
    damaged: u64,
}

impl<'a> Scan<'a> {
    fn next(&mut self) -> Option<Parsed<'a>> {
        let begin = self.at;
        let places = if self.to_end { begin..self.bytes.len() } else { begin..(begin + 1).min(self.bytes.len()) };
        for at in places {
            if let Some(record) = parse_record(&self.bytes[at..]) {
                self.damaged += (at - begin) as u64;
                self.at = at + RECORD_HEAD_BYTES + record.payload.len();
                return Some(record);
            }
        }
        if self.to_end {
            self.damaged += (self.bytes.len() - begin) as u64;
            self.at = self.bytes.len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPTIONS: Options = Options { max_bytes: 1 << 20, segment_bytes: 300, when_full: WhenFull::Refuse };

    fn open(dir: &Path, options: Options, generation: u64) -> (Queue, Recovered, Vec<String>) {
        let mut seen = Vec::new();
        let (queue, recovered) = Queue::open(
            dir,
            options,
            generation,
            &mut seen,
            |seen, stored| match stored {
                Stored::Snapshot(bytes) => seen.push(format!("snapshot {}", String::from_utf8_lossy(bytes))),
                Stored::Payload(bytes) => seen.push(String::from_utf8_lossy(bytes).into_owned()),
            },
            |seen| format!("after {}", seen.len()).into_bytes(),
        )
        .unwrap();
        (queue, recovered, seen)
    }

    fn put(queue: &mut Queue, text: &str) {
        queue.append(Kind::Data, text.as_bytes(), || b"s".to_vec()).unwrap();
    }

    fn texts(records: &[Record]) -> Vec<String> {
        records.iter().map(|record| format!("{}/{}:{}", record.generation, record.seq, String::from_utf8_lossy(&record.payload))).collect()
    }

    #[test]
    fn records_come_back_in_order_until_they_are_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _, _) = open(dir.path(), OPTIONS, 7);
        for at in 0..40 {
            put(&mut queue, &format!("r{at}"));
            queue.append(Kind::Note, b"note", || b"s".to_vec()).unwrap();
        }
        let first = queue.read(60).unwrap();
        assert!(first.len() < 40 && !first.is_empty());
        let mut all = texts(&first);
        loop {
            let more = queue.read(60).unwrap();
            if more.is_empty() {
                break;
            }
            all.extend(texts(&more));
        }
        assert_eq!(all, (0..40).map(|at| format!("7/{}:r{at}", at + 1)).collect::<Vec<_>>());
        queue.ack(7, 30).unwrap();
        queue.rewind();
        assert_eq!(texts(&queue.read(1 << 20).unwrap())[0], "7/31:r30");
        assert!(queue.pending_bytes() > 0);
        queue.ack(7, 40).unwrap();
        assert_eq!(queue.pending_bytes(), 0);
        assert_eq!(list(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_new_start_is_a_new_generation_and_sends_the_rest_first() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _, _) = open(dir.path(), OPTIONS, 1);
        put(&mut queue, "a");
        put(&mut queue, "b");
        drop(queue);
        let (mut queue, recovered, seen) = open(dir.path(), OPTIONS, 2);
        assert_eq!((recovered.records, seen.as_slice()), (2, &["snapshot after 0".to_owned(), "a".into(), "b".into()][..]));
        put(&mut queue, "c");
        assert_eq!(queue.generations(), [1, 2]);
        assert_eq!(texts(&queue.read(1 << 20).unwrap()), ["1/1:a", "1/2:b", "2/1:c"]);
        queue.ack(1, 2).unwrap();
        assert_eq!(queue.generations(), [2]);
        queue.rewind();
        assert_eq!(texts(&queue.read(1 << 20).unwrap()), ["2/1:c"]);
        queue.ack(2, 1).unwrap();
        queue.ack(1, 1).unwrap();
        queue.rewind();
        assert!(queue.read(1 << 20).unwrap().is_empty());
    }

    #[test]
    fn at_the_bound_the_oldest_go_or_the_new_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let small = Options { max_bytes: 900, segment_bytes: 200, when_full: WhenFull::DropOldest };
        let (mut queue, _, _) = open(dir.path(), small, 1);
        for at in 0..100 {
            put(&mut queue, &format!("record {at}"));
        }
        let kept = queue.read(1 << 20).unwrap();
        assert_eq!(kept.last().unwrap().payload, b"record 99");
        assert_eq!(kept.len() as u64 + queue.dropped_records(), 100);
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _, _) = open(dir.path(), Options { when_full: WhenFull::Refuse, ..small }, 1);
        let taken = (0..100).take_while(|at| queue.append(Kind::Data, format!("record {at}").as_bytes(), Vec::new).is_ok()).count();
        assert!((10..100).contains(&taken));
        assert_eq!(queue.read(1 << 20).unwrap().len(), taken);
        queue.ack(1, taken as u64 / 2).unwrap();
        queue.append(Kind::Data, b"again", Vec::new).unwrap();
    }

    #[test]
    fn a_damaged_segment_costs_only_what_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, _, _) = open(dir.path(), Options { segment_bytes: 1 << 16, ..OPTIONS }, 1);
        for at in 0..10 {
            put(&mut queue, &format!("record {at}"));
        }
        drop(queue);
        let (_, path) = list(dir.path()).unwrap().remove(0);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(8).position(|window| window == b"record 4").unwrap();
        bytes[at] ^= 0x40;
        bytes.truncate(bytes.len() - 3);
        fs::write(&path, &bytes).unwrap();
        let (mut queue, recovered, seen) = open(dir.path(), OPTIONS, 2);
        assert_eq!(recovered.records, 8);
        assert_eq!(recovered.damaged_bytes, (RECORD_HEAD_BYTES + 8 + RECORD_HEAD_BYTES + 5) as u64);
        assert!(!seen.iter().any(|text| text.contains("record 9") || text.contains("record 4")));
        let sent: Vec<u64> = queue.read(1 << 20).unwrap().iter().map(|record| record.seq).collect();
        assert_eq!(sent, [1, 2, 3, 4, 6, 7, 8, 9]);
        drop(queue);
        bytes[3] = 0;
        fs::write(&path, &bytes).unwrap();
        let (_, recovered, _) = open(dir.path(), OPTIONS, 3);
        assert_eq!((recovered.damaged_segments, recovered.records), (1, 0));
        assert!(path.with_extension("damaged").try_exists().unwrap());
    }

    /// The bytes of version 1: a change breaks the spools that agents in the field carry over an upgrade.
    #[test]
    fn a_snapshot_larger_than_a_segment_does_not_make_a_segment_of_every_record() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 1 << 20, segment_bytes: 1 << 10, ..OPTIONS };
        let (mut queue, _) = Queue::open(dir.path(), options, 1, &mut (), |(), _| {}, |()| vec![7; 1 << 14]).unwrap();
        for _ in 0..30 {
            queue.append(Kind::Data, &[1; 100], || vec![7; 1 << 14]).unwrap();
        }
        assert_eq!(list(dir.path()).unwrap().len(), 4);
    }

    #[test]
    fn version_1_is_read_and_written() {
        let mut bytes = encode_head(7, 1, b"snap");
        bytes.extend(encode_record(Kind::Data, 1, b"data"));
        bytes.extend(encode_record(Kind::Note, 0, b"note"));
        assert_eq!(shipwatch_common::identity::hex(&bytes), include_str!("fixtures/segment-v1.hex").trim());
    }

    proptest! {
        /// Whatever is done to the files, opening and reading end without a panic and give only whole records.
        #[test]
        fn damage_never_panics(cut in 0..600usize, flips in prop::collection::vec((0..600usize, any::<u8>()), 0..8)) {
            let dir = tempfile::tempdir().unwrap();
            let (mut queue, _, _) = open(dir.path(), Options { segment_bytes: 1 << 16, ..OPTIONS }, 1);
            for at in 0..15 {
                put(&mut queue, &format!("record {at}"));
            }
            drop(queue);
            let (_, path) = list(dir.path()).unwrap().remove(0);
            let mut bytes = fs::read(&path).unwrap();
            for (at, flip) in flips {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= flip;
                }
            }
            bytes.truncate(cut);
            fs::write(&path, &bytes).unwrap();
            let (mut queue, recovered, _) = open(dir.path(), OPTIONS, 2);
            let read = queue.read(1 << 20).unwrap();
            prop_assert_eq!(read.len() as u64, recovered.records);
            for record in read {
                prop_assert_eq!(record.payload, format!("record {}", record.seq - 1).into_bytes());
            }
        }
    }
}
