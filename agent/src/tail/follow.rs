//! One life of one file.
//!
//! # Invariants
//! - Nothing is read before its head and the bytes before the position were found to be what they were; the bytes before the
//!   position are read together with those behind it.
//! - A file that is cut, replaced or gone ends the life; what becomes of its unread bytes is for the caller to find out.
//! - A file is held open while it has unread bytes, and is closed when it rests. Closed, it is known again by its inode.

mod compare;
mod parts;

pub(super) use parts::{Part, Read};

use super::{
    Position, container,
    content::{self, Content, HEAD_BYTES, MARKER_BYTES, Stamp, crc_on, hash, marker_len},
    filter::Budget,
    lines::{Flush, Place},
    siblings::{Search, Whereabouts},
    source::Source,
};
use shipwatch_common::{
    model::{FileId, Labels},
    time::UnixNs,
};
use std::{
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A stamp is believed only when it stood still for this time: clocks of file systems move in steps.
const SETTLE_NS: i64 = 2_000_000_000;
/// A deleted file may still be written to by who holds it open.
const WAIT_DELETED_NS: i64 = 5_000_000_000;
/// A renamed file may still be written to by who was not told to open a new one.
const WAIT_RENAMED_NS: i64 = 600_000_000_000;
/// An idle file is closed after this time and opened again when it changes.
const IDLE_CLOSE_NS: i64 = 300_000_000_000;
/// A file that no glob finds any more, and that was closed to make room, is opened for a look in this interval.
const LOOK_CLOSED_NS: i64 = 30_000_000_000;
/// A compressed file that cannot be unpacked is tried again for this time: it may be in the making.
const WAIT_DAMAGED_NS: i64 = 60_000_000_000;

/// A new life's name. Grows with time, so lives that began earlier are read first.
pub(super) fn new_id() -> FileId {
    FileId(uuid::Uuid::now_v7().as_u128())
}

/// The name under which an output's lines are sent: each has offsets of its own that grow, which is how the server knows what it has.
pub(super) const fn output_id(file: FileId, output: usize) -> FileId {
    FileId(file.0 ^ output as u128)
}

/// What one read gave.
#[derive(Debug)]
pub(super) enum ReadOutcome {
    /// Lines (perhaps none, when something was skipped) and what is behind them.
    Lines(Box<Read>),
    /// Nothing to read now.
    Nothing,
    /// Other content at the same place.
    Replaced,
    /// It is not where it was and nowhere near.
    Gone,
    /// It was deleted, and read to its end.
    Over,
    /// It cannot be opened or read.
    Unreadable(io::Error),
}

/// What reading needs from outside.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) buffer: &'a mut [u8],
    pub(super) search: &'a mut Search,
    pub(super) budget: Budget,
    pub(super) now: UnixNs,
}

/// Everything that was there was read.
#[derive(Clone, Copy, Debug)]
struct Rest {
    stamp: Stamp,
    since: UnixNs,
    /// The last event was sent, too.
    flushed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Followed {
    position: Position,
    source: Arc<Source>,
    source_number: usize,
    labels: Vec<Labels>,
    encoding: super::decode::Encoding,
    open: Option<Content>,
    rest: Option<Rest>,
    /// Size now, as far as it was looked at.
    size: u64,
    is_deleted: bool,
    /// It became smaller while nothing could be read.
    was_cut: bool,
    /// Since when no glob finds it.
    unseen_since: Option<UnixNs>,
    /// Its path changed while it was followed.
    moved: bool,
    unreadable_since: Option<UnixNs>,
    looked_at: UnixNs,
    parked: bool,
    /// The sink has the position as it is.
    pub(super) is_remembered: bool,
}

impl Followed {
    pub(super) fn new(position: Position, source: Arc<Source>, source_number: usize, labels: Vec<Labels>) -> Self {
        Self {
            size: position.seen_size.max(position.offset),
            encoding: source.encoding,
            position,
            source,
            source_number,
            labels,
            open: None,
            rest: None,
            is_deleted: false,
            was_cut: false,
            unseen_since: None,
            moved: false,
            unreadable_since: None,
            looked_at: 0,
            parked: false,
            is_remembered: true,
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

    pub(super) fn path(&self) -> &Path {
        &self.position.path
    }

    /// Labels of an output's lines.
    pub(super) fn labels(&self, output: usize) -> Option<&Labels> {
        self.labels.get(output)
    }

    pub(super) const fn source_number(&self) -> usize {
        self.source_number
    }

    /// Whether a file of another name that has its inode need not be this one renamed: it is compressed, or nothing is known of
    /// its content.
    pub(super) fn is_other_by_name(&self, path: &Path) -> bool {
        if content::is_packed(path.as_os_str().as_encoded_bytes()) != self.position.packed {
            return true;
        }
        self.position.offset == 0 && path != self.position.path && path != self.position.name
    }

    pub(super) const fn position(&self) -> &Position {
        &self.position
    }

    pub(super) const fn is_unreadable(&self) -> bool {
        self.unreadable_since.is_some()
    }

    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) const fn is_parked(&self) -> bool {
        self.parked
    }

    /// Bytes that were seen and not read.
    pub(super) const fn unread(&self) -> u64 {
        if self.position.packed { 0 } else { self.size.saturating_sub(self.position.offset) }
    }

    /// Unread bytes that only this agent keeps on disk.
    pub(super) const fn held(&self) -> u64 {
        if self.is_deleted { self.unread() } else { 0 }
    }

    /// A glob found it. Its labels keep the name under which it was first seen: a rename by rotation is no other source.
    pub(super) fn seen_at(&mut self, path: &Path, is_link: bool, stamp: Stamp) {
        if !is_link && path != self.position.path {
            path.clone_into(&mut self.position.path);
            self.moved = true;
        }
        self.unseen_since = None;
        if self.open.is_none() && !self.position.packed {
            // Should it be cut before it can be read: so much was there.
            self.size = self.size.max(stamp.size);
            if self.rest.is_some_and(|rest| rest.stamp != stamp) {
                self.wake();
            }
        }
    }

    /// No glob found it.
    pub(super) fn not_seen(&mut self, now: UnixNs) {
        if self.unseen_since.is_none() {
            self.unseen_since = Some(now);
            // It may have been written to before it was moved: one more look.
            self.wake();
        }
    }

    /// Another life of its name was written to at that time.
    pub(super) fn name_was_written(&mut self, mtime_ns: i64) {
        if mtime_ns > self.position.mtime_ns {
            self.position.mtime_ns = mtime_ns;
            self.is_remembered = false;
        }
    }

    /// The next read looks again, whatever is known.
    pub(super) fn wake(&mut self) {
        self.rest = None;
        self.parked = false;
    }

    /// After the sink took a read's lines.
    pub(super) fn advance(&mut self, position: Position) {
        self.position = position;
        self.is_remembered = true;
    }

    /// The life goes on in another file with the same content.
    pub(super) fn move_to(&mut self, path: PathBuf, inode: (u64, u64), packed: bool) {
        self.position.path = path;
        (self.position.dev, self.position.ino) = inode;
        self.position.packed = packed;
        self.open = None;
        self.moved = true;
        self.is_deleted = false;
        self.wake();
    }

    /// Skips what is there at the very first start, up to the last whole line.
    pub(super) fn begin_at_end(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let (mut content, meta) = Content::open(&self.position.path, false)?;
        self.encoding = self.source.encoding.marked(&content.head()?);
        let window = buffer.len() - buffer.len() % 2;
        // Even, so that two-byte units are whole.
        let from = meta.len().saturating_sub(window as u64).next_multiple_of(2);
        let read = content.read_at(&mut buffer[..window], from)?;
        let end = self.encoding.last_line_end(&buffer[..read]);
        self.position.skipping = end.is_none() && from > 0;
        let end = end.unwrap_or(if from > 0 { self.encoding.cut(read) } else { 0 });
        self.position.offset = from + end as u64;
        self.position.crc = if self.position.offset == 0 { Some(0) } else { None };
        let length = marker_len(self.position.offset);
        let mut marker = [0; MARKER_BYTES];
        let read = content.read_at(&mut marker[..length], self.position.offset - length as u64)?;
        self.position.marker = hash(&marker[..read]);
        let head = content.head()?;
        let length = head.len().min(usize::try_from(self.position.offset).unwrap_or(HEAD_BYTES));
        (self.position.head_len, self.position.head_hash) = (u32::try_from(length).unwrap_or(0), hash(&head[..length]));
        Ok(())
    }

    /// Opens it, if it is not open, and notes its size. Reads nothing of what is new.
    pub(super) fn hold(&mut self, search: &mut Search) {
        if self.parked || self.rest.is_some() && self.open.is_none() {
            return;
        }
        if let Ok(Some(meta)) = self.ensure_open(search) {
            // What was seen before a cut is what is lost by it, however much is written after.
            self.was_cut |= meta.len() < self.size;
            if !self.was_cut && self.learn_head().unwrap_or(true) {
                self.note(&meta);
            } else {
                self.was_cut = true;
            }
        }
    }

    /// Lets the file go, where that loses nothing.
    pub(super) fn close_if_at_rest(&mut self) -> bool {
        let is_unchanged = |content: &Content, rest: Rest| content.metadata().is_ok_and(|meta| Stamp::of(&meta) == rest.stamp);
        let may = !self.is_deleted && matches!((&self.open, self.rest), (Some(content), Some(rest)) if is_unchanged(content, rest));
        if may {
            self.open = None;
        }
        may
    }

    /// Whether the head is what it was. Before anything was read the encoding and the head are learnt as they grow, so that even
    /// then a cut is noticed.
    fn learn_head(&mut self) -> io::Result<bool> {
        let Some(content) = &mut self.open else { return Ok(true) };
        if !content.has_head_of(&self.position)? {
            return Ok(false);
        }
        if self.position.offset == 0 && (self.position.head_len as usize) < HEAD_BYTES {
            let head = content.head()?;
            self.encoding = self.source.encoding.marked(&head);
            (self.position.head_len, self.position.head_hash) = (u32::try_from(head.len()).unwrap_or(0), hash(&head));
        }
        Ok(true)
    }

    fn note(&mut self, meta: &Metadata) {
        self.was_cut = false;
        self.is_deleted = meta.nlink() == 0;
        if !self.position.packed {
            self.size = meta.len();
            self.position.mtime_ns = self.position.mtime_ns.max(Stamp::of(meta).mtime_ns);
        }
    }

    /// Opens by path, or by inode nearby after a rename. `None`: it is not there any more.
    fn ensure_open(&mut self, search: &mut Search) -> io::Result<Option<Metadata>> {
        if let Some(content) = &self.open {
            return content.metadata().map(Some);
        }
        let packed = self.position.packed;
        let inode = self.inode();
        let is_ours = |meta: &Metadata| (meta.dev(), meta.ino()) == inode;
        let found = match Content::open(&self.position.path, packed) {
            Ok((content, meta)) if is_ours(&meta) => Some((content, meta)),
            Ok(_) => None,
            // A directory or pipe took its name.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput) => {
                None
            }
            Err(error) => return Err(error),
        };
        let (mut content, meta) = match found {
            Some(found) => found,
            None => match search.by_inode(&self.position.path, inode.0, inode.1) {
                Whereabouts::Gone => return Ok(None),
                Whereabouts::Unknown(error) => return Err(error),
                Whereabouts::Here(path) if self.is_other_by_name(&path) => return Ok(None),
                Whereabouts::Here(path) => {
                    let (content, meta) = Content::open(&path, packed)?;
                    if !is_ours(&meta) {
                        return Ok(None);
                    }
                    self.moved = true;
                    self.position.path = path;
                    (content, meta)
                }
            },
        };
        self.encoding = self.source.encoding.marked(&content.head()?);
        self.open = Some(content);
        Ok(Some(meta))
    }

    /// Reads one batch. The position moves only when [`Followed::advance`] is called with what is returned.
    pub(super) fn read(&mut self, context: &mut Context<'_>) -> ReadOutcome {
        let is_due = self.unseen_since.is_some() && (context.now - self.looked_at).abs() >= LOOK_CLOSED_NS;
        if self.open.is_none() && (self.parked || self.rest.is_some() && !is_due) {
            return ReadOutcome::Nothing;
        }
        self.looked_at = context.now;
        match self.try_read(context) {
            Ok(outcome) => {
                self.unreadable_since = None;
                outcome
            }
            Err(error) => self.unreadable(error, context.now),
        }
    }

    fn unreadable(&mut self, error: io::Error, now: UnixNs) -> ReadOutcome {
        self.open = None;
        let since = *self.unreadable_since.get_or_insert(now);
        if self.position.packed && now - since >= WAIT_DAMAGED_NS {
            return ReadOutcome::Gone;
        }
        ReadOutcome::Unreadable(error)
    }

    fn try_read(&mut self, context: &mut Context<'_>) -> io::Result<ReadOutcome> {
        let size_before = self.size;
        let Some(meta) = self.ensure_open(context.search)? else { return Ok(ReadOutcome::Gone) };
        let stamp = Stamp::of(&meta);
        let now = context.now;
        if let Some(rest) = &mut self.rest {
            // A clock that jumped back begins the wait anew.
            rest.since = rest.since.min(now);
            if rest.stamp == stamp && now - rest.since >= SETTLE_NS {
                let rest = *rest;
                return self.resting(rest, &meta, context);
            }
        }
        if !self.position.packed && (meta.len() < self.position.offset || self.position.offset == 0 && meta.len() < size_before) {
            return Ok(ReadOutcome::Replaced);
        }
        if !self.learn_head()? {
            return Ok(ReadOutcome::Replaced);
        }
        self.note(&meta);
        let outcome = self.batch(context, Flush::Nothing)?;
        if !matches!(outcome, ReadOutcome::Nothing) {
            self.rest = None;
            return Ok(outcome);
        }
        let rest = match self.rest {
            Some(rest) if rest.stamp == stamp => rest,
            _ => Rest { stamp, since: now, flushed: false },
        };
        self.rest = Some(rest);
        self.resting(rest, &meta, context)
    }

    /// Nothing changed since everything was read: end an event, close, give up, or wait.
    fn resting(&mut self, rest: Rest, meta: &Metadata, context: &mut Context<'_>) -> io::Result<ReadOutcome> {
        self.is_deleted = meta.nlink() == 0;
        let quiet_ns = context.now - rest.since;
        if let Some(joiner) = &self.source.joiner
            && !rest.flushed
            && quiet_ns >= joiner.wait_ns
        {
            let outcome = self.batch(context, Flush::Events)?;
            if !matches!(outcome, ReadOutcome::Nothing) {
                return Ok(outcome);
            }
            self.rest = Some(Rest { flushed: true, ..rest });
        }
        let is_last = if self.position.packed {
            true
        } else {
            match self.unseen_since {
                None => {
                    if quiet_ns > IDLE_CLOSE_NS && !self.is_deleted {
                        self.open = None;
                    }
                    false
                }
                Some(unseen) => {
                    let wait = if self.is_deleted { WAIT_DELETED_NS } else { WAIT_RENAMED_NS };
                    quiet_ns >= wait && context.now - unseen >= wait
                }
            }
        };
        if !is_last {
            return Ok(ReadOutcome::Nothing);
        }
        // An unfinished last line will not be finished any more.
        let outcome = self.batch(context, Flush::All)?;
        if !matches!(outcome, ReadOutcome::Nothing) {
            return Ok(outcome);
        }
        if self.is_deleted {
            return Ok(ReadOutcome::Over);
        }
        self.open = None;
        self.parked = true;
        Ok(ReadOutcome::Nothing)
    }

    /// Makes lines of the bytes behind the position.
    fn batch(&mut self, context: &mut Context<'_>, flush: Flush) -> io::Result<ReadOutcome> {
        let Some(content) = &mut self.open else { return Ok(ReadOutcome::Nothing) };
        let before = marker_len(self.position.offset);
        let read = content.read_at(context.buffer, self.position.offset - before as u64)?;
        let bytes = &context.buffer[..read];
        // What is before the position comes in the same read as what is behind it: they are of one content.
        if read < before || before > 0 && hash(&bytes[..before]) != self.position.marker {
            return Ok(ReadOutcome::Replaced);
        }
        let fresh = &bytes[before..];
        if fresh.is_empty() {
            return Ok(ReadOutcome::Nothing);
        }
        let place = Place {
            source: &self.source,
            encoding: self.encoding,
            file: self.position.file,
            offset: self.position.offset,
            now: context.now,
        };
        let is_full = read == context.buffer.len();
        let position = &self.position;
        let mut made = if self.source.format == container::Format::Plain {
            parts::plain(&place, fresh, position, context.budget, flush)
        } else {
            parts::outputs(&place, fresh, position, context.budget, flush, is_full)
        };
        for part in &mut made.parts {
            let used = usize::try_from(part.position.offset - position.offset).unwrap_or(0);
            let moved = &mut part.position;
            moved.crc = moved.crc.map(|crc| crc_on(crc, &fresh[..used]));
            let length = marker_len(moved.offset);
            let end = before + used;
            moved.marker = hash(&bytes[end - length..end]);
            moved.seen_size = self.size.max(moved.offset);
            grow_head(content, moved)?;
        }
        Ok(if made.parts.is_empty() { ReadOutcome::Nothing } else { ReadOutcome::Lines(Box::new(made)) })
    }
}

/// Makes the hashed head longer, up to its full length, as the position moves on.
fn grow_head(content: &mut Content, position: &mut Position) -> io::Result<()> {
    let length = usize::try_from(position.offset).unwrap_or(HEAD_BYTES).min(HEAD_BYTES);
    if (position.head_len as usize) < length {
        let head = content.head()?;
        let length = head.len().min(length);
        (position.head_len, position.head_hash) = (u32::try_from(length).unwrap_or(0), hash(&head[..length]));
    }
    Ok(())
}
