//! An append-only file of records: what an app's deployments have done on this host.
//!
//! A frame is `length (u32, little-endian) | CRC-32 of the rest | version (1 byte) | payload`, with the IEEE polynomial.
//! The length counts the version and the payload.
//!
//! # Invariants
//! - [`Journal::append`] returns after the record is on the disk.
//! - A torn last frame (the crash came while writing it) is cut off on open. A bad frame with a good one behind it is not
//!   a torn tail but damage: it is an error, since cutting there would forget what was done to the host.
//! - A record of a newer version is an error, not garbage to cut off.
//! - After [`Journal::reserve`] at least [`RESERVE_BYTES`] can be appended on a full disk, where the file system can
//!   allocate ahead.
//!
//! Leaves out: what the payloads mean (`state`), and locking (`store`).

use rustix::fs::FallocateFlags;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Space that is allocated ahead. A deployment of the largest permitted spec writes less.
pub(crate) const RESERVE_BYTES: u64 = 1 << 20;

/// The version that this program writes.
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 8;
/// Two specs of the largest permitted size and then some; a larger length is damage.
const MAX_FRAME_BYTES: usize = 16 << 20;

/// Called by tests around each write; an error stops the deployment on the spot, as a crash does.
pub type CrashPoint = Arc<dyn Fn() -> bool + Send + Sync>;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk or the file system.
    #[error("journal {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was reported.
        source: io::Error,
    },
    /// Damage in the middle, or a record of a newer agent.
    #[error("journal {path} at byte {at}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// A test asked to stop here.
    #[error("stopped at a crash point")]
    Crashed,
}

/// An open journal. One owner at a time; see `store` for the lock.
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    end: u64,
    crash: Option<CrashPoint>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens or creates the file, cuts off a torn tail and returns the payloads in order.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub(crate) fn open(path: &Path, crash: Option<CrashPoint>) -> Result<(Self, Vec<Vec<u8>>), JournalError> {
        let io = |source| JournalError::Io { path: path.to_path_buf(), source };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let (payloads, end) = decode(&bytes).map_err(|(at, what)| JournalError::Damaged { path: path.to_path_buf(), at, what })?;
        if end < bytes.len() as u64 {
            tracing::warn!(path = %path.display(), cut_bytes = bytes.len() as u64 - end, "cut off a torn record of the deploy journal");
            file.set_len(end).and_then(|()| file.sync_all()).map_err(io)?;
        }
        Ok((Self { file, path: path.to_path_buf(), end, crash }, payloads))
    }

    /// Allocates ahead, so that the coming records fit on a full disk.
    ///
    /// # Errors
    /// No space. File systems that cannot allocate ahead are accepted as they are.
    pub(crate) fn reserve(&mut self) -> Result<(), JournalError> {
        allocate(&self.file, self.end, RESERVE_BYTES).map_err(|source| self.io(source))
    }

    /// Appends one record; on return it is on the disk.
    ///
    /// # Errors
    /// The disk. What was written in part is cut off again, so the journal stays usable.
    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<(), JournalError> {
        self.crash_point()?;
        let frame = encode(payload);
        let written =
            self.file.seek(SeekFrom::Start(self.end)).and_then(|_| self.file.write_all(&frame)).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            if let Err(error) = self.file.set_len(self.end) {
                tracing::warn!(%error, path = %self.path.display(), "could not cut off a failed record; the next start will");
            }
            return Err(self.io(source));
        }
        self.end += frame.len() as u64;
        self.crash_point()
    }

    /// Replaces all records by one, at once or not at all.
    ///
    /// # Errors
    /// The disk; the records are then as before.
    pub(crate) fn replace(&mut self, payload: &[u8]) -> Result<(), JournalError> {
        self.crash_point()?;
        let temporary = self.path.with_extension("new");
        let frame = encode(payload);
        let written = (|| {
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(&frame)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            // From here on the name leads to the new file, whatever else fails.
            self.file = file;
            self.end = frame.len() as u64;
            sync_parent(&self.path)
        })();
        written.map_err(|source| self.io(source))?;
        self.crash_point()
    }

    /// Bytes of records.
    #[must_use]
    pub(crate) const fn len_bytes(&self) -> u64 {
        self.end
    }

    fn crash_point(&self) -> Result<(), JournalError> {
        match &self.crash {
            Some(crash) if crash() => Err(JournalError::Crashed),
            _ => Ok(()),
        }
    }

    fn io(&self, source: io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), source }
    }
}

/// Allocates blocks behind `from` without changing the file's length.
///
/// # Errors
/// No space. A file system that cannot do it is no error.
pub(crate) fn allocate(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, from, bytes) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a new or renamed name in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn encode(payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(payload.len() + 1);
    body.push(VERSION);
    body.extend_from_slice(payload);
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    frame.extend_from_slice(&body);
    frame
}

/// The body of the frame at `at` and where it ends, if it is whole and sound.
fn frame_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let header = bytes.get(at..at.checked_add(HEADER_BYTES)?)?;
    let length = u32::from_le_bytes(header.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(header.get(4..)?.try_into().ok()?);
    if length == 0 || length > MAX_FRAME_BYTES {
        return None;
    }
    let end = at + HEADER_BYTES + length;
    let body = bytes.get(at + HEADER_BYTES..end)?;
    (crc32fast::hash(body) == crc).then_some((body, end))
}

/// Payloads and where the good part ends.
type Decoded = (Vec<Vec<u8>>, u64);

/// On damage: where, and what it is.
fn decode(bytes: &[u8]) -> Result<Decoded, (u64, String)> {
    let mut payloads = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some((body, end)) = frame_at(bytes, at) else {
            if let Some(good) = (at + 1..bytes.len()).find(|later| frame_at(bytes, *later).is_some()) {
                let what = format!(
                    "the record is damaged although a sound one follows at byte {good}; move the file away after checking by hand what runs on this host"
                );
                return Err((at as u64, what));
            }
            break;
        };
        match body {
            [VERSION, payload @ ..] => payloads.push(payload.to_vec()),
            [version, ..] => {
                return Err((at as u64, format!("has version {version}, which a newer agent wrote; this one knows version {VERSION}")));
            }
            [] => break,
        }
        at = end;
    }
    Ok((payloads, at as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(path: &Path, payloads: &[&[u8]]) {
        let (mut journal, _) = Journal::open(path, None).unwrap();
        journal.reserve().unwrap();
        for payload in payloads {
            journal.append(payload).unwrap();
        }
    }

    #[test]
    fn golden_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        write(&path, &[b"{}", b"\"Reported\""]);
        let hex: String = fs::read(&path).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "03000000991efc1c017b7d0b000000a27566cd01225265706f7274656422");
    }

    #[test]
    fn records_survive_and_a_torn_tail_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        write(&path, &[b"one", b"two", b"three"]);
        let whole = fs::read(&path).unwrap();
        let two = encode(b"one").len() + encode(b"two").len();
        for cut in two..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, payloads) = Journal::open(&path, None).unwrap();
            assert_eq!(payloads, [b"one".to_vec(), b"two".to_vec()], "cut at {cut}");
            journal.append(b"four").unwrap();
            drop(journal);
            assert_eq!(Journal::open(&path, None).unwrap().1.last().unwrap(), b"four");
        }
        // Blocks that were allocated but never written read as zeros.
        fs::write(&path, [&whole[..], &[0; 4096]].concat()).unwrap();
        assert_eq!(Journal::open(&path, None).unwrap().1.len(), 3);
    }

    #[test]
    fn damage_in_the_middle_is_told_and_nothing_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        write(&path, &[b"one", b"two", b"three"]);
        let mut bytes = fs::read(&path).unwrap();
        bytes[encode(b"one").len() + 9] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(Journal::open(&path, None), Err(JournalError::Damaged { at: 12, .. })));
        assert_eq!(fs::read(&path).unwrap(), bytes);
        let mut newer = encode(b"x");
        newer[8] = 2;
        let crc = crc32fast::hash(&newer[8..]).to_le_bytes();
        newer[4..8].copy_from_slice(&crc);
        fs::write(&path, &newer).unwrap();
        assert!(Journal::open(&path, None).unwrap_err().to_string().contains("newer agent"));
    }

    #[test]
    fn replacing_keeps_only_the_new_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        write(&path, &[b"one", b"two"]);
        let (mut journal, _) = Journal::open(&path, None).unwrap();
        journal.replace(b"all").unwrap();
        journal.append(b"more").unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path, None).unwrap().1, [b"all".to_vec(), b"more".to_vec()]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn any_single_flip_is_noticed(at in 0usize..60, bit in 0u8..8) {
            let good: Vec<u8> = [b"first".as_slice(), b"second", b"third", b"fourth"].iter().flat_map(|p| encode(p)).collect();
            let mut bad = good.clone();
            let at = at % bad.len();
            bad[at] ^= 1 << bit;
            if let Ok((payloads, _)) = decode(&bad) {
                let (all, _) = decode(&good).unwrap();
                prop_assert!(payloads.len() < all.len() && payloads[..] == all[..payloads.len()]);
            }
        }
    }
}
