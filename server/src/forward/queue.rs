//! A target's queue on disk: what was acknowledged and waits to be sent.
//!
//! ```text
//! DATA/forward/NAME/0000000001.seg
//! segment: "SHIPFWD1" | length of the marks: u32 | crc32 of them: u32 | marks
//! record : "FR" | samples: u32 | queued at, ms: i64 | length: u32 | crc32 of all this and the payload: u32 | payload
//! ```
//! Numbers are big-endian; payloads are [`Queued`] records. Series have numbers within a segment.
//!
//! # Invariants
//! - [`Queue::append`] returns after fsync; appends that wait together share one.
//! - A batch of a sender with a sequence is taken once: its mark is in the record that holds its samples. Of others, samples that
//!   come again soon are taken once.
//! - Its size is bounded: above the bound, or on a full disk, the oldest segment is dropped and its samples are counted.
//! - Memory: the label sets of the newest segment, which are shared with who sent them, and a few numbers for each segment.
//!
//! # On crash
//! Each opening begins a new segment; a torn record at the end of the last one was never acknowledged and is cut off. A damaged
//! record makes the rest of its segment unreadable, which is counted.
//!
//! # Disk full
//! Older segments make room. If that does not help, the new samples are not queued, and counted: what waits for others does not
//! keep this server from storing its own.

mod files;
mod marks;
mod recent;

use files::{Segment, encode_record};
use marks::Marks;
use recent::Recent;
use shipwatch_common::{
    model::{Labels, Sample},
    time::UnixMs,
};
use shipwatch_series::{
    matcher::{Matcher, all_match},
    remote::queued::Queued,
};
use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub(super) use files::{RecordHead, head_end, read_at};

/// Most series of one segment: bounds the memory for their names.
const MAX_SERIES: usize = 1_000_000;
/// Label sets that nobody asked for and that are known without asking the selectors again; then all of them are forgotten.
const MAX_KNOWN: usize = 500_000;
/// Most bytes of new label sets in one record, by their text.
const MAX_NEW_BYTES: usize = 4 << 20;
/// Largest segment.
const MAX_SEGMENT_BYTES: u64 = 16 << 20;

/// One batch that was stored. Senders with a sequence have a source.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Who sent it; empty without a sequence.
    pub source: &'a str,
    /// Its sequence.
    pub seq: u64,
    /// Its samples.
    pub samples: &'a [Sample],
}

/// What an append did, and what it could not keep.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Appended {
    /// Samples in the queue.
    pub(super) taken: u64,
    /// Samples of segments that were dropped to make room.
    pub(super) oldest: u64,
    /// Samples that could not be written.
    pub(super) newest: u64,
    /// Why.
    pub(super) reason: Option<String>,
}

/// Where a window of the queue lies, and how much of it is done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Span {
    pub(super) segment: u64,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pending {
    pub(super) samples: u64,
    pub(super) bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    dir: PathBuf,
    max_bytes: u64,
    wanted: Vec<Vec<Matcher>>,
    inner: Mutex<Inner>,
    /// Up to where segment and bytes are on disk; held while it is made so.
    synced: Mutex<(u64, u64)>,
}

#[derive(Debug)]
struct Inner {
    /// Oldest first; the last one is written.
    segments: VecDeque<Segment>,
    active: Arc<File>,
    /// Numbers of series in the newest segment; nothing for those that nobody asked for.
    known: HashMap<Arc<Labels>, Option<u32>>,
    /// How many of these nobody asked for.
    unwanted: usize,
    series: Vec<Arc<Labels>>,
    marks: Marks,
    recent: Recent,
    /// The newest segment has a hole in its numbers: begin another one.
    broken: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// Opens or makes the queue in `dir`. `done` is where sending goes on.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub(super) fn open(dir: &Path, max_bytes: u64, wanted: Vec<Vec<Matcher>>, done: Span) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut segments = VecDeque::new();
        let (mut marks, mut recent, mut number) = (Marks::default(), Recent::default(), done.segment);
        let found = files::list(dir)?;
        let last = found.last().map(|(number, _)| *number);
        for (at, path) in found {
            number = number.max(at);
            let from = if at == done.segment { done.from } else { 0 };
            let mut segment = Segment::survey(at, path, from, Some(at) == last)?;
            if segment.head_bytes == 0 {
                let aside = segment.path.with_extension("damaged");
                tracing::warn!(from = %segment.path.display(), to = %aside.display(), "put a damaged file of a queue aside; what waited in it is not sent");
                std::fs::rename(&segment.path, &aside)?;
                continue;
            }
            if Some(at) != last && segment.bytes < std::fs::metadata(&segment.path)?.len() {
                tracing::warn!(path = %segment.path.display(), from = segment.bytes, "a queue's file is damaged; the rest of it is not sent");
            }
            if Some(at) == last {
                marks = segment.read_marks(&mut recent)?;
            }
            if at < done.segment || segment.left == 0 {
                segment.remove()?;
            } else {
                segment.left_from = segment.left_from.max(from);
                segments.push_back(segment);
            }
        }
        let (segment, active) = Segment::begin(dir, number + 1, &marks.snapshot())?;
        let synced = (segment.number, segment.bytes);
        segments.push_back(segment);
        let active = Arc::new(active);
        let inner = Inner { segments, active, known: HashMap::new(), unwanted: 0, series: Vec::new(), marks, recent, broken: false };
        Ok(Self { dir: dir.to_owned(), max_bytes, wanted, inner: Mutex::new(inner), synced: Mutex::new(synced) })
    }

    const fn segment_bytes(&self) -> u64 {
        let eighth = self.max_bytes / 8;
        if eighth < MAX_SEGMENT_BYTES { eighth } else { MAX_SEGMENT_BYTES }
    }

    /// The last batch of a source that is here.
    pub(super) fn mark(&self, source: &str) -> Option<u64> {
        lock(&self.inner).marks.get(source)
    }

    /// Takes samples, as far as they are asked for and not later than `newest`. Blocks until they are on disk.
    pub(super) fn append(&self, batches: &[Batch<'_>], now_ms: UnixMs, newest: UnixMs) -> Appended {
        let mut lost = Appended::default();
        let written = {
            let mut inner = lock(&self.inner);
            if inner.broken {
                self.rotate(&mut inner, &mut lost);
            }
            let mut record = Draft::default();
            for batch in batches {
                if !batch.source.is_empty() && inner.marks.get(batch.source).is_some_and(|mark| batch.seq <= mark) {
                    continue;
                }
                for sample in batch.samples.iter().filter(|sample| sample.ts_ms <= newest) {
                    if batch.source.is_empty() && !inner.recent.is_new(sample) {
                        continue;
                    }
                    if record.is_full() {
                        self.write(&mut inner, &mut record, now_ms, &mut lost);
                    }
                    self.add(&mut inner, &mut record, sample);
                }
                if !batch.source.is_empty() {
                    record.queued.marks.push((batch.source.to_owned(), batch.seq));
                    inner.marks.set(batch.source, batch.seq);
                }
            }
            self.write(&mut inner, &mut record, now_ms, &mut lost)
        };
        if written && let Err(error) = self.sync() {
            lost.reason = Some(format!("{}: fsync: {error}", self.dir.display()));
        }
        lost
    }

    /// Puts a sample into the record, with its series if the segment does not know it.
    fn add(&self, inner: &mut Inner, record: &mut Draft, sample: &Sample) {
        let number = match inner.known.get(&sample.labels) {
            Some(None) => return,
            Some(Some(number)) => *number,
            None => {
                let wanted = self.wanted.is_empty() || self.wanted.iter().any(|all| all_match(all, &sample.labels));
                if !wanted {
                    inner.unwanted += 1;
                    if inner.unwanted > MAX_KNOWN {
                        inner.known.retain(|_, number| number.is_some());
                        inner.unwanted = 1;
                    }
                    inner.known.insert(Arc::clone(&sample.labels), None);
                    return;
                }
                let number = u32::try_from(inner.series.len()).unwrap_or(u32::MAX);
                inner.series.push(Arc::clone(&sample.labels));
                inner.known.insert(Arc::clone(&sample.labels), Some(number));
                record.new_bytes += sample.labels.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
                record.queued.series.push(Arc::clone(&sample.labels));
                number
            }
        };
        record.queued.samples.push((number, sample.ts_ms, sample.value));
    }

    /// Writes a record, if there is something in it, and empties it. Whether something was written.
    fn write(&self, inner: &mut Inner, record: &mut Draft, now_ms: UnixMs, lost: &mut Appended) -> bool {
        let queued = std::mem::take(&mut record.queued);
        record.new_bytes = 0;
        if queued.samples.is_empty() {
            // Marks alone are not worth a write: a batch without samples that are asked for does no harm when it comes again.
            return false;
        }
        let count = queued.samples.len() as u64;
        let done = queued.encode().and_then(|payload| self.put(inner, now_ms, count, &payload, &mut lost.oldest));
        match done {
            Ok(()) => {
                lost.taken += count;
                let full = inner.segments.back().is_some_and(|active| active.bytes - active.head_bytes > self.segment_bytes());
                if full || inner.series.len() > MAX_SERIES {
                    self.rotate(inner, lost);
                }
                true
            }
            Err(error) => {
                lost.newest += count;
                lost.reason = Some(format!("{}: {error}", self.dir.display()));
                inner.broken = true;
                false
            }
        }
    }

    fn put(&self, inner: &mut Inner, now_ms: UnixMs, samples: u64, payload: &[u8], dropped: &mut u64) -> io::Result<()> {
        if inner.broken {
            // The numbers in this payload count from a record that is not there.
            return Err(io::Error::other("what was written before it could not be written"));
        }
        let record = encode_record(u32::try_from(samples).unwrap_or(u32::MAX), now_ms, payload);
        let total = |inner: &Inner| inner.segments.iter().map(|segment| segment.bytes).sum::<u64>();
        while total(inner) + record.len() as u64 > self.max_bytes && inner.segments.len() > 1 {
            *dropped += drop_oldest(inner)?;
        }
        loop {
            let Some(active) = inner.segments.back_mut() else { return Err(io::Error::other("no segment")) };
            match inner.active.write_all_at(&record, active.bytes) {
                Ok(()) => {
                    active.bytes += record.len() as u64;
                    active.left += samples;
                    return Ok(());
                }
                Err(error) => {
                    inner.active.set_len(active.bytes)?;
                    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
                    if !full || inner.segments.len() <= 1 {
                        return Err(error);
                    }
                    *dropped += drop_oldest(inner)?;
                }
            }
        }
    }

    /// Begins a new segment. If that fails the old one goes on, unless it is broken; then it is tried again with the next record.
    fn rotate(&self, inner: &mut Inner, lost: &mut Appended) {
        let number = inner.segments.back().map_or(1, |active| active.number + 1);
        let begun = inner.active.sync_data().and_then(|()| Segment::begin(&self.dir, number, &inner.marks.snapshot()));
        match begun {
            Ok((segment, file)) => {
                // What was sent while its segment was still written goes now.
                inner.segments.retain(|old| old.left > 0 || old.remove().is_err());
                inner.segments.push_back(segment);
                inner.active = Arc::new(file);
                inner.known.clear();
                inner.unwanted = 0;
                inner.series.clear();
                inner.broken = false;
            }
            Err(error) => lost.reason = Some(format!("{}: a new segment: {error}", self.dir.display())),
        }
    }

    /// Makes everything that was written durable; who comes while another one does it finds it done.
    fn sync(&self) -> io::Result<()> {
        let mine = lock(&self.inner).written();
        let mut synced = lock(&self.synced);
        if *synced >= mine {
            return Ok(());
        }
        let (file, position) = {
            let inner = lock(&self.inner);
            (Arc::clone(&inner.active), inner.written())
        };
        file.sync_data()?;
        *synced = position;
        Ok(())
    }

    /// What waits.
    pub(super) fn pending(&self) -> Pending {
        let inner = lock(&self.inner);
        let each = inner.segments.iter();
        each.fold(Pending::default(), |sum, one| Pending { samples: sum.samples + one.left, bytes: sum.bytes + one.left_bytes() })
    }

    /// The oldest segment with something that waits: its number, path, and from where to where it is on disk.
    pub(super) fn oldest(&self) -> Option<(PathBuf, Span)> {
        let synced = *lock(&self.synced);
        let inner = lock(&self.inner);
        let segment = inner.segments.iter().find(|segment| segment.left > 0)?;
        let to = match segment.number.cmp(&synced.0) {
            std::cmp::Ordering::Less => segment.bytes,
            std::cmp::Ordering::Equal => synced.1,
            std::cmp::Ordering::Greater => 0,
        };
        (segment.left_from < to).then(|| (segment.path.clone(), Span { segment: segment.number, from: segment.left_from, to }))
    }

    /// Whether a segment was not dropped.
    pub(super) fn holds(&self, segment: u64) -> bool {
        lock(&self.inner).segments.iter().any(|one| one.number == segment)
    }

    /// The labels themselves of series that a record of the newest segment brings, so that they are in memory once.
    pub(super) fn share(&self, segment: u64, first: usize, series: &mut [Arc<Labels>]) {
        let inner = lock(&self.inner);
        if inner.segments.back().is_some_and(|active| active.number == segment) {
            for (mine, shared) in series.iter_mut().zip(inner.series.iter().skip(first)) {
                if *mine == *shared {
                    *mine = Arc::clone(shared);
                }
            }
        }
    }

    /// A part of a segment was sent or given up; segments without anything left are removed.
    ///
    /// # Errors
    /// A file could not be removed.
    pub(super) fn finish(&self, span: Span, samples: u64) -> io::Result<()> {
        let mut inner = lock(&self.inner);
        let newest = inner.segments.back().map(|active| active.number);
        let Some(at) = inner.segments.iter().position(|segment| segment.number == span.segment) else { return Ok(()) };
        let segment = &mut inner.segments[at];
        segment.left = segment.left.saturating_sub(samples);
        segment.left_from = span.to;
        if (segment.left == 0 || segment.left_from >= segment.bytes) && Some(segment.number) != newest {
            segment.remove()?;
            inner.segments.remove(at);
        }
        Ok(())
    }

    /// What is behind a place in a segment cannot be read. The number of samples that are lost.
    pub(super) fn give_up(&self, span: Span) -> u64 {
        let mut inner = lock(&self.inner);
        let newest = inner.segments.back().map(|active| active.number);
        let Some(segment) = inner.segments.iter_mut().find(|segment| segment.number == span.segment) else { return 0 };
        segment.left_from = segment.bytes;
        let lost = std::mem::take(&mut segment.left);
        if Some(span.segment) == newest {
            inner.broken = true;
        }
        lost
    }
}

impl Inner {
    fn written(&self) -> (u64, u64) {
        self.segments.back().map_or((0, 0), |active| (active.number, active.bytes))
    }
}

fn drop_oldest(inner: &mut Inner) -> io::Result<u64> {
    let Some(oldest) = inner.segments.front() else { return Ok(0) };
    oldest.remove()?;
    let lost = oldest.left;
    inner.segments.pop_front();
    Ok(lost)
}

/// A record that is being put together.
#[derive(Debug, Default)]
struct Draft {
    queued: Queued,
    new_bytes: usize,
}

impl Draft {
    const fn is_full(&self) -> bool {
        self.queued.samples.len() >= Queued::MAX_SAMPLES || self.new_bytes >= MAX_NEW_BYTES
    }
}

#[cfg(test)]
mod tests;
