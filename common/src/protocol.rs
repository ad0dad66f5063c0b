//! How both ends put their talk into bytes. Pure: no I/O, no clock.
//!
//! A connection has one bidirectional **control** stream ([`AgentMessage`] up, [`ServerMessage`] down) and one
//! unidirectional stream per [`Lane`] ([`LaneMessage`]). Each message travels in one [`frame`].
//!
//! # Invariants
//! - Sizes are checked against [`frame::MAX_WIRE_BYTES`] and [`frame::MAX_RAW_BYTES`] before memory is allocated.
//! - A record is named by (agent, lane, generation, sequence). A generation begins with every start of the agent's spool; within
//!   it the sequence grows by one. The server stores data and high-water mark in one transaction and acknowledges afterwards,
//!   so a record that comes twice is stored once.
//! - Specs and deployment events travel as JSON inside their messages: they grow new keys more often than the wire does.
//! - [`VERSION`] grows when a message changes; golden files of every version stay in `fixtures/`.
//!
//! bincode stands still upstream (RUSTSEC-2025-0141), so it is used nowhere else, always with a byte limit.

pub mod frame;
pub mod message;
pub mod snapshot;

pub use frame::{FrameError, FrameReader, encode_frame};
pub use message::{
    AgentMessage, EnrolAnswer, EnrolRequest, Hello, Lane, LaneMark, LaneMessage, LaneOpen, LaneState, ServerMessage, Welcome,
};
pub use snapshot::{MetricsBatch, SnapshotDecoder, SnapshotEncoder};

/// The protocol version that this program speaks.
pub const VERSION: u8 = 1;
/// The oldest version that this program understands.
pub const OLDEST_VERSION: u8 = 1;

/// ALPN of an agent with a certificate.
pub const ALPN_AGENT: &[u8] = b"shipwatch/1";
/// ALPN of an agent that wants a certificate.
pub const ALPN_ENROL: &[u8] = b"shipwatch-enrol/1";

/// Puts a value into bytes for a frame or a spool record.
///
/// # Errors
/// A value that cannot be represented; a bug in the caller's types.
pub fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    bincode::serde::encode_to_vec(value, bincode::config::standard()).map_err(|error| FrameError::Encode(error.to_string()))
}

/// Reads a value that [`encode`] wrote; at most [`frame::MAX_RAW_BYTES`] are read and allocated, all bytes must be used.
///
/// # Errors
/// Bytes that are not such a value.
pub fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    let config = bincode::config::standard().with_limit::<{ frame::MAX_RAW_BYTES }>();
    match bincode::serde::decode_from_slice(bytes, config) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(FrameError::Decode(format!("{} bytes are left over", bytes.len() - used))),
        Err(error) => Err(FrameError::Decode(error.to_string())),
    }
}
