//! One life of one file.

use super::{Position, decode::Encoding, discover, meta};
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};
use shipwatch_common::{
    mask::Masker,
    model::{FileId, Labels, LogLine},
    time::UnixNs,
};
use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

/// The head is hashed up to here.
const HEAD_BYTES: u64 = 1024;
/// Bytes before the position that are hashed.
const MARKER_BYTES: u64 = 64;
/// A deleted file may still be written to by who holds it open.
const WAIT_DELETED_NS: i64 = 5_000_000_000;
/// A renamed file may still be written to by who was not told to open a new one.
const WAIT_RENAMED_NS: i64 = 600_000_000_000;
/// An idle file is closed after this time and opened again when it changes.
const IDLE_CLOSE_NS: i64 = 300_000_000_000;
/// Bounds of one batch.
const BATCH_LINES: usize = 1000;
const BATCH_BYTES: usize = 256 << 10;

/// A new life's name.
pub(super) fn new_id() -> FileId {
    FileId(uuid::Uuid::new_v4().as_u128())
}

/// What was noted while lines were made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LineStats {
    pub(super) masked: u64,
    pub(super) mask_failures: u64,
    pub(super) truncated: u64,
}

/// What one read gave.
#[derive(Debug)]
pub(super) enum ReadOutcome {
    /// Lines (perhaps none, when something was skipped) and the position behind them.
    Lines { lines: Vec<LogLine>, position: Position, stats: LineStats },
    /// Nothing to read now.
    Nothing,
    /// Other content at the same place.
    NewLife { lost_bytes: u64 },
    /// It is gone and read to its end.
    Over { lost_bytes: u64 },
    /// It cannot be opened or read.
    Unreadable(io::Error),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Followed {
    position: Position,
    labels: Labels,
    encoding: Encoding,
    zone: TimeZone,
    open: Option<File>,
    /// Size and modification time when nothing was left to read.
    quiet: Option<(u64, i64, i64)>,
    quiet_since: Option<UnixNs>,
    /// Largest size that was seen.
    seen_size: u64,
    /// Since when no glob finds it.
    unseen_since: Option<UnixNs>,
    unreadable: bool,
    verified: bool,
}

fn hash(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn read_at(file: &File, from: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Where the last whole line ends, for beginning at the end of a file; 0 if the file cannot be read.
pub(super) fn last_line_end(path: &Path) -> u64 {
    let find = || -> io::Result<u64> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let from = size.saturating_sub(64 << 10);
        let tail = read_at(&file, from, size - from)?;
        Ok(tail.iter().rposition(|byte| *byte == b'\n').map_or(if from == 0 { 0 } else { size }, |at| from + at as u64 + 1))
    };
    find().unwrap_or(0)
}

impl Followed {
    pub(super) fn new(position: Position, labels: Labels, encoding: Encoding) -> Self {
        let seen_size = position.offset;
        Self {
            position,
            labels,
            encoding,
            zone: TimeZone::system(),
            open: None,
            quiet: None,
            quiet_since: None,
            seen_size,
            unseen_since: None,
            unreadable: false,
            verified: false,
        }
    }

    pub(super) const fn id(&self) -> FileId {
        self.position.file
    }

    pub(super) const fn inode(&self) -> (u64, u64) {
        (self.position.dev, self.position.ino)
    }

    pub(super) const fn offset(&self) -> u64 {
        self.position.offset
    }

    pub(super) fn path(&self) -> &str {
        &self.position.path
    }

    pub(super) const fn labels(&self) -> &Labels {
        &self.labels
    }

    pub(super) fn position(&self) -> Position {
        self.position.clone()
    }

    pub(super) const fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// A glob found it. Its labels keep the name under which it was first seen: a rename by rotation is no other source.
    pub(super) fn seen_at(&mut self, path: &Path) {
        self.position.path = path.display().to_string();
        self.unseen_since = None;
    }

    /// No glob found it.
    pub(super) fn not_seen(&mut self, now: UnixNs) {
        self.unseen_since.get_or_insert(now);
    }

    /// The same place with other content.
    pub(super) fn reborn(&self) -> Self {
        let position = Position {
            file: new_id(),
            offset: 0,
            head_len: 0,
            head_hash: 0,
            marker: 0,
            skipping: false,
            line_state: shipwatch_common::mask::LineState::default(),
            ..self.position.clone()
        };
        Self { unseen_since: self.unseen_since, ..Self::new(position, self.labels.clone(), self.encoding) }
    }

    /// After the sink took a read's lines.
    pub(super) fn advance(&mut self, position: Position) {
        self.position = position;
    }

    /// Fills head and marker for a position that was not reached by reading.
    pub(super) fn take_identity(&mut self) {
        if let Ok(file) = File::open(&self.position.path) {
            let mut position = self.position.clone();
            if identify(&file, &mut position).is_ok() {
                self.position = position;
            }
        }
    }

    /// Opens by path, or by inode in the same directory after a rename.
    fn ensure_open(&mut self) -> io::Result<Option<Metadata>> {
        if let Some(file) = &self.open {
            return file.metadata().map(Some);
        }
        let path = PathBuf::from(&self.position.path);
        let is_ours = |meta: &Metadata| (meta.dev(), meta.ino()) == (self.position.dev, self.position.ino);
        let opened = match File::open(&path) {
            Ok(file) => {
                let meta = file.metadata()?;
                is_ours(&meta).then_some((file, meta))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let found = match opened {
            Some(found) => Some(found),
            None => {
                let renamed = path.parent().and_then(|directory| discover::find_inode(directory, self.position.dev, self.position.ino));
                match renamed {
                    Some(path) => {
                        let file = File::open(path)?;
                        let meta = file.metadata()?;
                        Some((file, meta))
                    }
                    None => None,
                }
            }
        };
        let Some((file, meta)) = found else { return Ok(None) };
        self.open = Some(file);
        self.verified = false;
        Ok(Some(meta))
    }

    /// Reads one batch. The position moves only when [`Followed::advance`] is called with what is returned.
    pub(super) fn read(&mut self, buffer: &mut [u8], max_line_bytes: usize, masker: &Masker, now: UnixNs) -> ReadOutcome {
        let meta = match self.ensure_open() {
            Ok(Some(meta)) => meta,
            Ok(None) => return ReadOutcome::Over { lost_bytes: self.seen_size.saturating_sub(self.position.offset) },
            Err(error) => {
                self.unreadable = true;
                return ReadOutcome::Unreadable(error);
            }
        };
        self.unreadable = false;
        let stamp = (meta.len(), meta.mtime(), meta.mtime_nsec());
        if self.quiet == Some(stamp) {
            return self.rest(&meta, buffer, masker, now);
        }
        if meta.len() < self.position.offset {
            return ReadOutcome::NewLife { lost_bytes: self.seen_size.saturating_sub(self.position.offset) };
        }
        match self.is_same_content() {
            Ok(true) => {}
            Ok(false) => return ReadOutcome::NewLife { lost_bytes: self.seen_size.saturating_sub(self.position.offset) },
            Err(error) => return ReadOutcome::Unreadable(error),
        }
        self.seen_size = meta.len();
        let outcome = self.next_batch(buffer, max_line_bytes, masker, now, false);
        if matches!(outcome, ReadOutcome::Nothing) {
            self.quiet = Some(stamp);
            self.quiet_since = Some(now);
        } else {
            self.quiet = None;
            self.quiet_since = None;
        }
        outcome
    }

    /// Nothing changed since everything was read: close, give up, or wait.
    fn rest(&mut self, meta: &Metadata, buffer: &mut [u8], masker: &Masker, now: UnixNs) -> ReadOutcome {
        // A clock that jumped back begins the wait anew.
        let quiet_since = self.quiet_since.filter(|since| *since <= now).unwrap_or(now);
        self.quiet_since = Some(quiet_since);
        let Some(unseen_since) = self.unseen_since else {
            if now - quiet_since > IDLE_CLOSE_NS {
                self.open = None;
            }
            return ReadOutcome::Nothing;
        };
        let wait = if meta.nlink() == 0 { WAIT_DELETED_NS } else { WAIT_RENAMED_NS };
        if now - quiet_since < wait || now - unseen_since < wait {
            return ReadOutcome::Nothing;
        }
        // Over: an unfinished last line will not be finished any more.
        match self.next_batch(buffer, usize::MAX, masker, now, true) {
            ReadOutcome::Nothing => ReadOutcome::Over { lost_bytes: 0 },
            other => other,
        }
    }

    /// Whether head and marker are what they were. Cheap: at most 1088 bytes, and the head only once per opening.
    fn is_same_content(&mut self) -> io::Result<bool> {
        let Some(file) = &self.open else { return Ok(true) };
        let same = |from: u64, length: u64, expected: u64| match read_at(file, from, length) {
            Ok(bytes) => Ok(hash(&bytes) == expected),
            // Cut while we looked.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        };
        let position = &self.position;
        if !self.verified && position.head_len > 0 && !same(0, u64::from(position.head_len), position.head_hash)? {
            return Ok(false);
        }
        let marker_length = position.offset.min(MARKER_BYTES);
        if position.head_len > 0 && !same(position.offset - marker_length, marker_length, position.marker)? {
            return Ok(false);
        }
        self.verified = true;
        Ok(true)
    }

    /// Makes lines of the bytes behind the position. `last`: an unfinished line counts as finished.
    fn next_batch(&self, buffer: &mut [u8], max_line_bytes: usize, masker: &Masker, now: UnixNs, last: bool) -> ReadOutcome {
        let Some(file) = &self.open else { return ReadOutcome::Nothing };
        let mut position = self.position.clone();
        let read = match file.read_at(buffer, position.offset) {
            Ok(0) => return ReadOutcome::Nothing,
            Ok(read) => read,
            Err(error) => return ReadOutcome::Unreadable(error),
        };
        let bytes = &buffer[..read];
        let mut maker = LineMaker {
            file: self,
            masker,
            now,
            lines: Vec::new(),
            stats: LineStats::default(),
            state: position.line_state.clone(),
            taken: 0,
        };
        let mut at = 0;
        while maker.lines.len() < BATCH_LINES && maker.taken < BATCH_BYTES && at < read {
            if position.skipping {
                // The rest of a line that was cut.
                match self.encoding.line_end(bytes, at) {
                    Some(end) => {
                        at = end;
                        position.skipping = false;
                    }
                    None => at = read - (read - at) % self.encoding.unit(),
                }
                if position.skipping {
                    break;
                }
                continue;
            }
            // A hole that a writer left who kept its offset over a truncation.
            if self.encoding.unit() == 1 && bytes[at] == 0 {
                at += bytes[at..].iter().take_while(|byte| **byte == 0).count();
                continue;
            }
            match self.encoding.line_end(bytes, at) {
                Some(end) => {
                    let cut = (end - at > max_line_bytes).then(|| self.encoding.cut(max_line_bytes));
                    maker.add(&bytes[at..cut.map_or(end, |cut| at + cut)], position.offset + end as u64, cut.is_some());
                    at = end;
                }
                None if read - at > max_line_bytes => {
                    let cut = self.encoding.cut(max_line_bytes);
                    maker.add(&bytes[at..at + cut], position.offset + (at + cut) as u64, true);
                    at += cut;
                    position.skipping = true;
                }
                None if last => {
                    maker.add(&bytes[at..], position.offset + read as u64, false);
                    at = read;
                }
                None => break,
            }
        }
        if at == 0 {
            return ReadOutcome::Nothing;
        }
        position.offset += at as u64;
        position.line_state = maker.state;
        let (lines, stats) = (maker.lines, maker.stats);
        match identify(file, &mut position) {
            Ok(()) => ReadOutcome::Lines { lines, position, stats },
            Err(error) => ReadOutcome::Unreadable(error),
        }
    }
}

/// Sets head and marker for the position's offset.
fn identify(file: &File, position: &mut Position) -> io::Result<()> {
    let head = position.offset.min(HEAD_BYTES);
    if u64::from(position.head_len) < head {
        position.head_hash = hash(&read_at(file, 0, head)?);
        position.head_len = u32::try_from(head).unwrap_or(0);
    }
    let length = position.offset.min(MARKER_BYTES);
    position.marker = hash(&read_at(file, position.offset - length, length)?);
    Ok(())
}

/// Turns bytes into masked lines.
struct LineMaker<'a> {
    file: &'a Followed,
    masker: &'a Masker,
    now: UnixNs,
    lines: Vec<LogLine>,
    stats: LineStats,
    state: shipwatch_common::mask::LineState,
    taken: usize,
}

impl LineMaker<'_> {
    fn add(&mut self, bytes: &[u8], end_offset: u64, truncated: bool) {
        let text = self.file.encoding.text(bytes);
        // A cut within a character leaves a replacement character behind.
        let text = if truncated { text.trim_end_matches('\u{fffd}') } else { &text };
        let masked = self.masker.mask_line(&mut self.state, text);
        self.stats.masked += u64::from(masked.hits);
        self.stats.mask_failures += u64::from(masked.failed);
        self.stats.truncated += u64::from(truncated);
        self.taken += bytes.len();
        self.lines.push(LogLine {
            ts_ns: meta::time(&masked.text, self.now, &self.file.zone),
            end_offset,
            severity: meta::severity(&masked.text),
            truncated,
            text: masked.text.into_owned(),
        });
    }
}
