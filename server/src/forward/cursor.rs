//! How far a target's queue was sent, on disk.
//!
//! ```text
//! DATA/forward/NAME/cursor: two slots of 128 bytes, written in turn; the whole one with the higher number counts
//! slot: number: u64 | segment: u64 | from: u64 | to: u64 | plan: u32 | done in each lane: 16 * u32 | zeros | crc32: u32
//! ```
//! Numbers are big-endian.
//!
//! # Invariants
//! - Before the first request of a window leaves, the window is on disk. After a crash the very same requests are sent again, and
//!   none that has both samples that the target took and samples that it did not see: a target that refuses a request for one old
//!   sample loses nothing by that.
//! - Each request that ended is noted at once, without fsync: after the death of the process at most one request of each lane is
//!   sent twice, after a power loss at most those of one window.

use super::{config::MAX_LANES, queue::Span};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

const SLOT_BYTES: usize = 128;

/// A window of the queue and what of it ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Progress {
    pub(super) span: Span,
    /// Under which settings the window was cut into requests.
    pub(super) plan: u32,
    /// Requests of each lane that ended.
    pub(super) done: [u32; MAX_LANES],
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cursor {
    file: File,
    number: u64,
}

impl Cursor {
    /// Opens or makes it; the newest whole slot comes along.
    ///
    /// # Errors
    /// The file cannot be read or made.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Progress)> {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(dir.join("cursor"))?;
        File::open(dir)?.sync_all()?;
        let bytes = super::queue::read_at(&file, 0, 2 * SLOT_BYTES)?;
        let newest = bytes.chunks_exact(SLOT_BYTES).filter_map(decode).max_by_key(|(number, _)| *number);
        let (number, progress) = newest.unwrap_or_default();
        Ok((Self { file, number }, progress))
    }

    /// Notes where sending stands.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(&mut self, progress: &Progress, durable: bool) -> io::Result<()> {
        let number = self.number + 1;
        self.file.write_all_at(&encode(number, progress), (number % 2) * SLOT_BYTES as u64)?;
        if durable {
            self.file.sync_data()?;
        }
        self.number = number;
        Ok(())
    }
}

fn encode(number: u64, progress: &Progress) -> [u8; SLOT_BYTES] {
    let mut bytes = Vec::with_capacity(SLOT_BYTES);
    for long in [number, progress.span.segment, progress.span.from, progress.span.to] {
        bytes.extend_from_slice(&long.to_be_bytes());
    }
    for short in std::iter::once(progress.plan).chain(progress.done) {
        bytes.extend_from_slice(&short.to_be_bytes());
    }
    let mut slot = [0; SLOT_BYTES];
    slot[..bytes.len()].copy_from_slice(&bytes);
    let crc = crc32fast::hash(&slot[..SLOT_BYTES - 4]);
    slot[SLOT_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, Progress)> {
    let short = |at: usize| slot.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes));
    let long = |at: usize| slot.get(at..)?.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    if crc32fast::hash(slot.get(..SLOT_BYTES - 4)?) != short(SLOT_BYTES - 4)? {
        return None;
    }
    let mut done = [0; MAX_LANES];
    for (lane, done) in done.iter_mut().enumerate() {
        *done = short(36 + 4 * lane)?;
    }
    let span = Span { segment: long(8)?, from: long(16)?, to: long(24)? };
    Some((long(0)?, Progress { span, plan: short(32)?, done }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (mut cursor, found) = Cursor::open(dir.path()).unwrap();
        assert_eq!(found, Progress::default());
        let at =
            |from: u64| Progress { span: Span { segment: 3, from, to: from + 9 }, plan: 7, done: std::array::from_fn(|lane| lane as u32) };
        for from in 1..=5 {
            cursor.write(&at(from), from % 2 == 0).unwrap();
            assert_eq!(Cursor::open(dir.path()).unwrap().1, at(from));
        }
        // A write that was cut off leaves the one before.
        let file = OpenOptions::new().write(true).open(dir.path().join("cursor")).unwrap();
        file.write_all_at(&encode(6, &at(6))[..50], 0).unwrap();
        assert_eq!(Cursor::open(dir.path()).unwrap().1, at(5));
        std::fs::write(dir.path().join("cursor"), [0xff; 300]).unwrap();
        assert_eq!(Cursor::open(dir.path()).unwrap().1, Progress::default());
    }
}
