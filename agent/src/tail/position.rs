//! What is remembered of a file between two starts, and where it is put.
//!
//! The bytes of a [`Position`] outlive the process: the spool writes them with a version, golden bytes lie in `spool/fixtures`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shipwatch_common::{
    mask::LineState,
    model::{FileId, LogBatch},
    protocol::{decode, encode},
};
use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

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
    /// What reading is in the middle of.
    #[serde(with = "opaque")]
    pub middle: Middle,
}

/// What must be known to go on in the middle of a file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Middle {
    /// A secret over several lines is being masked.
    pub line: LineState,
    /// A container's outputs, standard output and standard error, which lie in one file and are read independently.
    pub outputs: [Output; 2],
}

/// How far one output of a container was read.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Output {
    /// So many bytes behind the file's offset are done with: the other output is in the middle of an event there.
    pub ahead: u64,
    /// In the middle of a line that was too long.
    pub skipping: bool,
    /// As [`Middle::line`].
    pub line: LineState,
}

/// How far a source without files was taken; what the sink must remember.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StreamPosition {
    /// Its identity. `(agent, FileId, offset)` names a line of it as that of a file.
    pub stream: FileId,
    /// The source, such as `journal` or `pipe:backup`.
    pub name: String,
    /// Where to go on, in the source's own words; empty where it has none.
    pub cursor: String,
    /// Bytes of a pipe, entries of everything else.
    pub offset: u64,
    /// In the middle of a line that was too long.
    pub skipping: bool,
    /// Secrets over several lines that are being masked, by the stream that they stand in.
    #[serde(with = "opaque_lines")]
    pub lines: BTreeMap<String, LineState>,
}

/// How names of pipes begin in [`StreamPosition::name`].
pub const PIPE: &str = "pipe:";

/// What the sink remembers at a start.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// Lives that are not over.
    pub positions: Vec<Position>,
    /// Sources without files.
    pub streams: Vec<StreamPosition>,
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

    /// Takes lines of a source without files and the position behind them as one durable record.
    ///
    /// # Errors
    /// Nothing was taken.
    fn append_stream(&mut self, batch: Option<LogBatch>, position: StreamPosition) -> Result<(), SinkError>;

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
/// it still reads. Those of a container's outputs are told by a first byte that the state of one line never has.
mod opaque {
    use super::{Deserialize, Deserializer, Middle, Serialize as _, Serializer, decode, encode};

    const OUTPUTS: u8 = 0xfe;

    pub(super) fn serialize<S: Serializer>(middle: &Middle, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = if *middle == Middle::default() {
            Ok(Vec::new())
        } else if middle.outputs == <[super::Output; 2]>::default() {
            encode(&middle.line)
        } else {
            encode(&middle.outputs).map(|outputs| [vec![OUTPUTS], outputs].concat())
        };
        bytes.map_err(serde::ser::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Middle, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Ok(match bytes.strip_prefix(&[OUTPUTS]) {
            Some(outputs) => Middle { outputs: decode(outputs).unwrap_or_default(), ..Middle::default() },
            None => Middle { line: decode(&bytes).unwrap_or_default(), ..Middle::default() },
        })
    }
}

/// As [`opaque`], of several lines.
mod opaque_lines {
    use super::{BTreeMap, Deserialize, Deserializer, LineState, Serialize as _, Serializer, decode, encode};

    pub(super) fn serialize<S: Serializer>(lines: &BTreeMap<String, LineState>, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = if lines.is_empty() { Ok(Vec::new()) } else { encode(lines) };
        bytes.map_err(serde::ser::Error::custom)?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, LineState>, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Ok(decode(&bytes).unwrap_or_default())
    }
}
