//! A file's bytes by offset, plain or compressed, and the signature that tells one content from another.
//!
//! # Invariants
//! - A compressed file is only read forwards; memory is bounded by the reader's buffer, whatever is in it.
//! - A signature is compared on the bytes that it was made of: a file that only grew always matches.

use super::Position;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{File, Metadata},
    io::{self, BufReader, Read},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

/// The head is hashed up to here.
pub(super) const HEAD_BYTES: usize = 1024;
/// Bytes before the position that are hashed.
pub(super) const MARKER_BYTES: usize = 64;

/// What changes when a file is written, cut, renamed or unlinked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    ctime_ns: i64,
}

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self { size: meta.len(), mtime_ns: nanos(meta.mtime(), meta.mtime_nsec()), ctime_ns: nanos(meta.ctime(), meta.ctime_nsec()) }
    }
}

pub(super) fn hash(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The CRC of `before` and then `bytes`.
pub(super) fn crc_on(before: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.update(bytes);
    hasher.finalize()
}

/// How many bytes before `offset` the marker covers.
pub(super) fn marker_len(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(MARKER_BYTES).min(MARKER_BYTES)
}

/// Whether a name says that its file is compressed in a way that is understood.
pub(super) fn is_packed(name: &[u8]) -> bool {
    name.ends_with(b".gz") || name.ends_with(b".zst")
}

/// An open file.
#[derive(Debug)]
pub(super) enum Content {
    Plain(File),
    Packed(Box<Unpacker>),
}

impl Content {
    /// Opens a regular file. Never blocks on a pipe that took the file's name.
    pub(super) fn open(path: &Path, packed: bool) -> io::Result<(Self, Metadata)> {
        use std::os::unix::fs::OpenOptionsExt as _;
        #[cfg(test)]
        super::tests::denied(path)?;
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let content = if packed { Self::Packed(Box::new(Unpacker::new(file)?)) } else { Self::Plain(file) };
        Ok((content, meta))
    }

    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        match self {
            Self::Plain(file) => file.metadata(),
            Self::Packed(unpacker) => unpacker.file.metadata(),
        }
    }

    /// Fills `buffer` from `offset` as far as there are bytes. Compressed: offsets must not go back by more than a buffer.
    pub(super) fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Plain(file) => {
                let mut read = 0;
                while read < buffer.len() {
                    match file.read_at(&mut buffer[read..], offset + read as u64) {
                        Ok(0) => break,
                        Ok(count) => read += count,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(read)
            }
            Self::Packed(unpacker) => unpacker.read_at(buffer, offset),
        }
    }

    /// The first bytes, at most [`HEAD_BYTES`].
    pub(super) fn head(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(_) => {
                let mut head = vec![0; HEAD_BYTES];
                let read = self.read_at(&mut head, 0)?;
                head.truncate(read);
                Ok(head)
            }
            Self::Packed(unpacker) => unpacker.head().map(<[u8]>::to_vec),
        }
    }

    /// Whether the head is the one that the position knows. Without a head everything is.
    pub(super) fn has_head_of(&mut self, position: &Position) -> io::Result<bool> {
        let length = position.head_len as usize;
        if length == 0 {
            return Ok(true);
        }
        let head = self.head()?;
        Ok(head.len() >= length && hash(&head[..length]) == position.head_hash)
    }

    /// Whether everything before the position's offset is what the position knows of it: head, marker and, where it is
    /// known, the checksum of all of it. Reads all of it; for rotated copies, not for every look.
    pub(super) fn continues(&mut self, position: &Position, buffer: &mut [u8]) -> io::Result<bool> {
        if !self.has_head_of(position)? {
            return Ok(false);
        }
        let (mut at, mut crc, mut tail) = (0, 0, Vec::new());
        while at < position.offset {
            let want = usize::try_from(position.offset - at).unwrap_or(buffer.len()).min(buffer.len());
            let read = self.read_at(&mut buffer[..want], at)?;
            if read == 0 {
                return Ok(false);
            }
            crc = crc_on(crc, &buffer[..read]);
            tail.extend_from_slice(&buffer[read.saturating_sub(MARKER_BYTES)..read]);
            tail.drain(..tail.len().saturating_sub(MARKER_BYTES));
            at += read as u64;
        }
        Ok(hash(&tail) == position.marker && position.crc.is_none_or(|known| known == crc))
    }
}

/// Reads a compressed file forwards.
pub(super) struct Unpacker {
    file: File,
    decoder: Box<dyn Read + Send>,
    head: Vec<u8>,
    /// Bytes that were unpacked and may be asked for again; the first is at `start`.
    window: Vec<u8>,
    start: u64,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").field("file", &self.file).field("start", &self.start).finish_non_exhaustive()
    }
}

impl Unpacker {
    fn new(file: File) -> io::Result<Self> {
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, 0)?;
        let source = BufReader::new(file.try_clone()?);
        let decoder: Box<dyn Read + Send> = match magic {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(source)),
            [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "it is neither gzip nor zstd")),
        };
        Ok(Self { file, decoder, head: Vec::new(), window: Vec::new(), start: 0 })
    }

    fn head(&mut self) -> io::Result<&[u8]> {
        if self.start == 0 && self.window.len() < HEAD_BYTES {
            self.fill(HEAD_BYTES)?;
        }
        if self.head.is_empty() {
            self.head = self.window[..self.window.len().min(HEAD_BYTES)].to_vec();
        }
        Ok(&self.head)
    }

    /// Unpacks until the window has `length` bytes or there are no more.
    fn fill(&mut self, length: usize) -> io::Result<()> {
        while self.window.len() < length {
            let from = self.window.len();
            self.window.resize(length, 0);
            let read = self.decoder.read(&mut self.window[from..]);
            self.window.truncate(from + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.head()?;
        // The marker before the offset is asked for together with what follows it.
        let keep_from = offset.saturating_sub(MARKER_BYTES as u64);
        let before = keep_from.checked_sub(self.start).ok_or_else(|| io::Error::other("a compressed file cannot be read backwards"))?;
        let mut before = before;
        while before > 0 {
            // A jump ahead after a restart: unpacked and thrown away piece by piece.
            if self.window.is_empty() {
                self.fill(buffer.len().max(1))?;
                if self.window.is_empty() {
                    return Ok(0);
                }
            }
            let drop = usize::try_from(before).unwrap_or(usize::MAX).min(self.window.len());
            self.window.drain(..drop);
            self.start += drop as u64;
            before -= drop as u64;
        }
        let skip = usize::try_from(offset - self.start).unwrap_or(0);
        self.fill(skip + buffer.len())?;
        let Some(found) = self.window.get(skip..) else { return Ok(0) };
        let read = found.len().min(buffer.len());
        buffer[..read].copy_from_slice(&found[..read]);
        Ok(read)
    }
}
