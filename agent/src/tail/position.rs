//! What is remembered of a file between two starts, and where it is put.
//!
//! The bytes of a [`Position`] outlive the process: the spool writes them with a version, golden bytes lie in `spool/fixtures`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shipwatch_common::{
    mask::LineState,
    model::{FileId, LogBatch},
    protocol::{decode, encode},
};
use std::{ffi::OsString, path::PathBuf};

/// How far one life of a file was read; what the sink must remember.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// This life.
    pub file: FileId,
    /// The name under which it was first found; its label, also after a rename.
    #[serde(with = "raw_path")]
    pub name: PathBuf,
    /// Where it was last seen, links resolved.
    #[serde(with = "raw_path")]
    pub path: PathBuf,
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Bytes read, always behind a line's end unless [`Position::skipping`].
    pub offset: u64,
    /// Length of the hashed head.
    pub head_len: u32,
    /// Hash of the first `head_len` bytes.
    pub head_hash: u64,
    /// Hash of up to 64 bytes before the offset.
    pub marker: u64,
    /// CRC-32 of everything before the offset; unknown when reading began at the end.
    pub crc: Option<u32>,
    /// Largest size that was seen; what is beyond the offset when the file is gone was lost.
    pub seen_size: u64,
    /// When something was last written under its name, as far as it was seen, in nanoseconds: a rotation with a later time that
    /// nobody followed was missed.
    pub mtime_ns: i64,
    /// The life goes on in a compressed copy; offsets count what is in it.
    pub packed: bool,
    /// In the middle of a line that was too long: everything up to its end is skipped.
    pub skipping: bool,
    /// A secret over several lines is being masked.
    #[serde(with = "opaque")]
    pub line_state: LineState,
}

/// What the sink remembers at a start.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Lives that are not over.
    pub positions: Vec<Position>,
    /// Files were followed before, so what appears now is new and read from its beginning.
    pub started: bool,
}

/// Why the sink did not take a record.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Try later.
    #[error("the spool is full")]
    Full,
    /// Try later, and say so.
    #[error("{0}")]
    Io(String),
}

/// Where lines and positions go.
pub trait Sink: Send {
    /// Takes lines and the position behind them as one durable record.
    ///
    /// # Errors
    /// Nothing was taken.
    fn append(&mut self, batch: Option<LogBatch>, position: Position) -> Result<(), SinkError>;

    /// A life is over and fully read.
    ///
    /// # Errors
    /// It is not forgotten yet.
    fn forget(&mut self, file: FileId) -> Result<(), SinkError>;

    /// The first look is over: see [`Restored::started`].
    ///
    /// # Errors
    /// It is not remembered yet.
    fn started(&mut self) -> Result<(), SinkError>;
}

/// Paths are bytes: a name in GBK must be found again.
mod raw_path {
    use super::{Deserialize, Deserializer, OsString, PathBuf, Serialize as _, Serializer};
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

    pub(super) fn serialize<S: Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(PathBuf::from(OsString::from_vec(Vec::deserialize(deserializer)?)))
    }
}

/// The masker's state has its own bytes within a length of their own (none for the default): when it changes, the position around
/// it still reads.
mod opaque {
    use super::{Deserialize, Deserializer, LineState, Serialize as _, Serializer, decode, encode};

    pub(super) fn serialize<S: Serializer>(state: &LineState, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = if *state == LineState::default() { Ok(Vec::new()) } else { encode(state) };
        bytes.map_err(serde::ser::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LineState, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Ok(decode(&bytes).unwrap_or_default())
    }
}
