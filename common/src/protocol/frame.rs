//! One message on a stream: a header of ten bytes, then zstd of the message.
//!
//! ```text
//! 0       4        5      6            10
//! | wire  | version| kind | raw length | zstd(bincode(message)), `wire` bytes
//! ```
//! Numbers are big-endian. `kind` tells the message's type, so that a stream opened for the wrong purpose is told apart.

use serde::{Serialize, de::DeserializeOwned};
use std::cell::RefCell;

/// Most bytes of a frame's body on the wire.
pub const MAX_WIRE_BYTES: usize = 4 << 20;
/// Most bytes of a frame's body after decompression, and of anything decoded from it.
pub const MAX_RAW_BYTES: usize = 16 << 20;
/// Length of the header.
pub const HEADER_BYTES: usize = 10;
/// Level 3: on batches of log lines it is near level 9's size at a fifth of its time.
const COMPRESSION_LEVEL: i32 = 3;

/// What is wrong with a frame. None of them can be answered by trying again.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// Larger than a cap.
    #[error("frame of {bytes} bytes is larger than the {max} that are allowed")]
    TooLarge {
        /// Size that was announced or made.
        bytes: usize,
        /// The cap.
        max: usize,
    },
    /// A version that this program does not speak.
    #[error("frame has protocol version {0}; this program speaks {oldest} to {newest}: upgrade the older side", oldest = super::OLDEST_VERSION, newest = super::VERSION)]
    Version(u8),
    /// Another kind of message than this stream carries.
    #[error("frame of kind {found} where kind {expected} belongs")]
    Kind {
        /// What came.
        found: u8,
        /// What was expected.
        expected: u8,
    },
    /// Decompression or decoding failed.
    #[error("frame cannot be decoded: {0}")]
    Decode(String),
    /// Encoding failed.
    #[error("message cannot be encoded: {0}")]
    Encode(String),
}

/// A type that may be the body of a frame.
pub trait Message: Serialize + DeserializeOwned {
    /// The header's `kind`.
    const KIND: u8;
}

/// Makes the bytes of one frame.
///
/// # Errors
/// [`FrameError::TooLarge`], [`FrameError::Encode`].
pub fn encode_frame<M: Message>(message: &M) -> Result<Vec<u8>, FrameError> {
    let raw = super::encode(message)?;
    if raw.len() > MAX_RAW_BYTES {
        return Err(FrameError::TooLarge { bytes: raw.len(), max: MAX_RAW_BYTES });
    }
    let body = zstd::bulk::compress(&raw, COMPRESSION_LEVEL).map_err(|error| FrameError::Encode(error.to_string()))?;
    if body.len() > MAX_WIRE_BYTES {
        return Err(FrameError::TooLarge { bytes: body.len(), max: MAX_WIRE_BYTES });
    }
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.extend_from_slice(&to_u32(body.len()).to_be_bytes());
    frame.push(super::VERSION);
    frame.push(M::KIND);
    frame.extend_from_slice(&to_u32(raw.len()).to_be_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

fn to_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

thread_local! {
    /// What zstd works in: making it anew costs more than most frames.
    static DECOMPRESSOR: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn decompress(body: &[u8], raw: usize) -> std::io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let mut decompressor = kept.take().map_or_else(zstd::bulk::Decompressor::new, Ok)?;
        let plain = decompressor.decompress(body, raw);
        *kept = Some(decompressor);
        plain
    })
}

/// Room that a stream keeps while nothing waits in it.
const KEPT_BYTES: usize = 4 << 10;

/// Takes frames out of a stream's bytes, however they are cut.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    taken: usize,
}

impl FrameReader {
    /// Adds bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken == self.buffer.len() && self.buffer.capacity() > KEPT_BYTES {
            // One large frame, such as a host's first one, is no reason to keep so much for every stream.
            (self.buffer, self.taken) = (Vec::new(), 0);
        }
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// The stream cannot be read further after an error.
    pub fn take<M: Message>(&mut self) -> Result<Option<M>, FrameError> {
        let rest = &self.buffer[self.taken..];
        let Some((header, body)) = rest.split_at_checked(HEADER_BYTES) else { return Ok(None) };
        let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
        let (wire, version, kind, raw) = (number(0), header[4], header[5], number(6));
        if wire > MAX_WIRE_BYTES {
            return Err(FrameError::TooLarge { bytes: wire, max: MAX_WIRE_BYTES });
        }
        if raw > MAX_RAW_BYTES {
            return Err(FrameError::TooLarge { bytes: raw, max: MAX_RAW_BYTES });
        }
        if !(super::OLDEST_VERSION..=super::VERSION).contains(&version) {
            return Err(FrameError::Version(version));
        }
        if kind != M::KIND {
            return Err(FrameError::Kind { found: kind, expected: M::KIND });
        }
        let Some(body) = body.get(..wire) else { return Ok(None) };
        let plain = decompress(body, raw).map_err(|error| FrameError::Decode(error.to_string()))?;
        if plain.len() != raw {
            return Err(FrameError::Decode(format!("{} bytes where {raw} were announced", plain.len())));
        }
        let message = super::decode(&plain)?;
        self.taken += HEADER_BYTES + wire;
        Ok(Some(message))
    }

    /// Whether bytes of an unfinished frame are waiting.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.buffer.len() > self.taken
    }
}
