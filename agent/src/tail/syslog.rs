//! Messages of syslog over the network: RFC 3164 and RFC 5424, over UDP and TCP.
//!
//! - [`message`]: one message; [`framing`]: messages of a connection; [`listen`]: sockets
//!
//! # Invariants
//! - Nothing more is read before the sink took what was read: TCP senders wait, and what the kernel drops of UDP meanwhile is
//!   counted from its own figures.
//! - Messages, connections and waits are bounded: a sender that is too slow within a message, or idle, is disconnected.
//! - What a sender says of itself (host, app) is masked and bounded like everything else; it is not proven by anything.
//!
//! Leaves out: TLS (put rsyslog or a tunnel in front, or listen on a trusted interface only), RELP.

mod framing;
mod listen;
mod message;

pub(super) use listen::run;

use serde::{Deserialize, Serialize};
use shipwatch_common::config::Problems;
use std::{net::SocketAddr, time::Duration};

/// Where is listened.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port for UDP; empty does not listen. Whoever reaches it can write lines.
    pub udp: String,
    /// The same for TCP.
    pub tcp: String,
    /// Connections at the same time; more are refused, which is counted.
    pub max_connections: usize,
    /// A connection that is silent for this time is closed.
    #[serde(with = "shipwatch_common::time::serde_duration")]
    pub idle: Duration,
    /// A message that has begun must end within this time, else what there is of it is taken and the connection closed.
    #[serde(with = "shipwatch_common::time::serde_duration")]
    pub message_wait: Duration,
    /// What the kernel keeps of UDP while nothing is read; it may allow less (sysctl net.core.rmem_max).
    pub receive_buffer_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            udp: "127.0.0.1:5514".to_owned(),
            tcp: "127.0.0.1:5514".to_owned(),
            max_connections: 100,
            idle: Duration::from_secs(600),
            message_wait: Duration::from_secs(30),
            receive_buffer_bytes: 4 << 20,
        }
    }
}

impl Config {
    pub(super) fn check(&self, problems: &mut Problems, at: &str) {
        for (key, address) in [("udp", &self.udp), ("tcp", &self.tcp)] {
            if !address.is_empty() && address.parse::<SocketAddr>().is_err() {
                problems.add(&format!("{at}{key}"), format!("must be ADDRESS:PORT, such as 127.0.0.1:5514, or empty, not {address:?}"));
            }
        }
        if self.udp.is_empty() && self.tcp.is_empty() {
            problems.add(&format!("{at}udp"), "or tcp must say where to listen");
        }
        if !(1..=10_000).contains(&self.max_connections) {
            problems.add(&format!("{at}max_connections"), format!("must be between 1 and 10000, not {}", self.max_connections));
        }
        for (key, time) in [("idle", self.idle), ("message_wait", self.message_wait)] {
            if !(Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&time) {
                problems.add(&format!("{at}{key}"), "must be between 100ms and 1d");
            }
        }
        if !(4096..=256 << 20).contains(&self.receive_buffer_bytes) {
            problems.add(
                &format!("{at}receive_buffer_bytes"),
                format!("must be between 4096 and 268435456, not {}", self.receive_buffer_bytes),
            );
        }
    }
}
