//! The messages.

use super::frame::Message;
use crate::model::{HostFacts, Labels};
use crate::time::UnixMs;
use serde::{Deserialize, Serialize};

/// An independent flow with its own spool, sequence and stream: a stuck lane never delays another.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Lane {
    /// Samples.
    Metrics,
    /// Log lines.
    Logs,
    /// Deploy output and states.
    Events,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Logs, Self::Events];

    /// Name in paths, metrics and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Events => "events",
        }
    }
}

/// A lane's un-acknowledged generations, oldest first; the last is the one being written.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LaneState {
    /// Which lane.
    pub lane: Lane,
    /// Generations with records that the agent still holds. The server forgets the marks of others.
    pub generations: Vec<u64>,
    /// Bytes that wait to be sent or acknowledged.
    pub pending_bytes: u64,
}

/// How far the server has stored a generation of a lane.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LaneMark {
    /// Which lane.
    pub lane: Lane,
    /// Which generation.
    pub generation: u64,
    /// Last sequence that is durable on the server.
    pub seq: u64,
}

/// The agent's first message.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Hello {
    /// Oldest protocol version that the agent understands.
    pub oldest_version: u8,
    /// Newest protocol version that the agent speaks.
    pub version: u8,
    /// About the host.
    pub facts: HostFacts,
    /// Whether the local policy allows deployments at all; for showing, the agent decides for itself.
    pub deploys_allowed: bool,
    /// The spool.
    pub lanes: Vec<LaneState>,
    /// The host's clock.
    pub now_ms: UnixMs,
}

/// Agent to server, on the control stream.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum AgentMessage {
    /// First message.
    Hello(Box<Hello>),
    /// Every few seconds: proof of life, the host's clock, and how much waits.
    Status {
        /// The host's clock.
        now_ms: UnixMs,
        /// The spool.
        lanes: Vec<LaneState>,
    },
    /// Asks for a new certificate for the same identity.
    Renew {
        /// Certificate signing request, DER.
        csr_der: Vec<u8>,
    },
    /// The agent stops on purpose.
    Goodbye {
        /// Why, for people.
        reason: String,
    },
    /// A message of the server that the agent refused by its own rules; for the audit.
    Refused {
        /// What was refused and why, for people.
        what: String,
    },
}

/// The server's answer to [`Hello`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Welcome {
    /// Version that both ends speak from here.
    pub version: u8,
    /// The host's name in the fleet.
    pub name: String,
    /// Marks of the generations that the agent holds.
    pub marks: Vec<LaneMark>,
    /// The server's clock.
    pub now_ms: UnixMs,
}

/// Server to agent, on the control stream.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum ServerMessage {
    /// First message.
    Welcome(Welcome),
    /// The connection is refused and will be closed; trying again soon is useless.
    Refused {
        /// Why, for people.
        reason: String,
    },
    /// Everything up to this mark is durable.
    Ack(LaneMark),
    /// A [`crate::model::deploy::Command`] as JSON.
    Command {
        /// The JSON text.
        json: String,
    },
    /// The answer to [`AgentMessage::Renew`].
    Certificate {
        /// Leaf first, DER.
        chain_der: Vec<Vec<u8>>,
    },
}

/// First message on a lane's stream.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LaneOpen {
    /// Which lane follows.
    pub lane: Lane,
}

/// One record of a lane.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LaneMessage {
    /// Which generation.
    pub generation: u64,
    /// Which sequence within it.
    pub seq: u64,
    /// What it carries.
    pub body: LaneBody,
}

/// The lanes' bodies.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum LaneBody {
    /// A snapshot against this stream's dictionary, see [`super::snapshot`].
    Metrics {
        /// Time of all its samples.
        ts_ms: UnixMs,
        /// Series that this snapshot adds to the dictionary.
        new_series: Vec<Labels>,
        /// Presence and values.
        body: Vec<u8>,
    },
    /// bincode of a [`crate::model::LogBatch`]; made once for the spool, sent as it is.
    Logs(Vec<u8>),
    /// A [`crate::model::deploy::Event`] as JSON.
    Event(String),
}

/// Asks for a first certificate, on a connection with [`super::ALPN_ENROL`].
#[derive(Clone, Deserialize, PartialEq, Serialize)]
pub struct EnrolRequest {
    /// The token's secret part.
    pub secret: Vec<u8>,
    /// Certificate signing request, DER: carries the agent's public key and proves that it holds the private one.
    pub csr_der: Vec<u8>,
    /// Name that the host would like.
    pub name: String,
    /// About the host.
    pub facts: HostFacts,
}

impl std::fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolRequest").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The answer to [`EnrolRequest`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum EnrolAnswer {
    /// Enrolled.
    Accepted {
        /// Leaf first, DER; its URI SAN carries the agent's id.
        chain_der: Vec<Vec<u8>>,
        /// Name in the fleet; differs from the wish if that was taken.
        name: String,
    },
    /// Not enrolled.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

impl Message for AgentMessage {
    const KIND: u8 = 1;
}
impl Message for ServerMessage {
    const KIND: u8 = 2;
}
impl Message for LaneOpen {
    const KIND: u8 = 3;
}
impl Message for LaneMessage {
    const KIND: u8 = 4;
}
impl Message for EnrolRequest {
    const KIND: u8 = 5;
}
impl Message for EnrolAnswer {
    const KIND: u8 = 6;
}
