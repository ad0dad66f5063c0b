//! The connection to the server: sends what the spool holds, takes acknowledgements and commands.
//!
//! - [`identity`]: the agent's key and certificates on disk, enrolment
//! - [`session`]: one connection, from hello to its end
//!
//! # Invariants
//! - Nothing leaves the spool before the server acknowledged it.
//! - The server can make the agent do nothing but: acknowledge, renew its certificate, and hand a command to the deploy
//!   executor, which asks the local policy. Everything else is refused, logged and reported.
//! - Reconnecting is jittered, so that a fleet does not come back in one wave.

pub mod identity;
mod session;

use crate::spool::lanes::Spool;
use identity::{Identity, IdentityStore};
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    backoff::{Backoff, random_unit},
    config::Problems,
    model::{HostFacts, deploy::Command},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Where the server is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `host:port` of the server; empty takes the one that the agent was enrolled with.
    pub server: String,
}

impl Config {
    /// Checks the form of the address.
    pub fn check(&self, problems: &mut Problems) {
        if !self.server.is_empty() && !is_address(&self.server) {
            problems.add("server", format!("must be HOST:PORT, such as shipwatch.example.com:9701, not {:?}", self.server));
        }
    }
}

/// Whether a text has the form `host:port`.
#[must_use]
pub fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// What the uplink counts and shows in `status` and as metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Whether a session is open.
    pub connected: AtomicBool,
    /// Sessions opened since the start.
    pub sessions_total: AtomicU64,
    /// Bytes of frames written, before QUIC's own overhead.
    pub sent_bytes_total: AtomicU64,
    /// Frame bytes of the metrics lane.
    pub sent_metrics_bytes_total: AtomicU64,
    /// Samples in them.
    pub sent_samples_total: AtomicU64,
    /// Records sent, again after a reconnect included.
    pub sent_records_total: AtomicU64,
    /// Bytes of UDP datagrams sent: frames with what QUIC adds, acknowledgements, keep-alives. Up to 5 s late.
    pub sent_udp_bytes_total: AtomicU64,
    /// Datagrams sent; IP and UDP headers come on top of each.
    pub sent_datagrams_total: AtomicU64,
    /// Messages of the server that were refused.
    pub refused_total: AtomicU64,
}

/// Longest pause between attempts: a server that is back is found soon, a fleet does not hammer it.
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// Pause after the server refused the agent: its answer will not change soon.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// Time to send what is left when the agent stops.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// How a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Transport(#[from] shipwatch_common::transport::TransportError),
    #[error(transparent)]
    Spool(#[from] crate::spool::queue::SpoolError),
    #[error("the server refuses this agent: {0}")]
    Refused(String),
    #[error("{0}")]
    Protocol(String),
}

/// Keeps a connection to the server until it is told to stop.
#[derive(Debug)]
pub struct Uplink {
    /// Who the agent is; renewed certificates go there.
    pub store: IdentityStore,
    /// As loaded at the start.
    pub identity: Identity,
    /// `host:port`.
    pub server: String,
    /// What waits to be sent.
    pub spool: Arc<Spool>,
    /// About the host.
    pub facts: HostFacts,
    /// Whether the local policy allows deployments; only shown.
    pub deploys_allowed: bool,
    /// To the deploy executor.
    pub commands: mpsc::Sender<Command>,
    /// What is counted.
    pub counters: Arc<Counters>,
}

impl Uplink {
    /// Runs until `cancel`; then sends what is left, for a short time, and says goodbye.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(500), MAX_PAUSE);
        while !cancel.is_cancelled() {
            let opened = self.counters.sessions_total.load(Ordering::Relaxed);
            let ended = session::run(&mut self, &cancel).await;
            self.counters.connected.store(false, Ordering::Relaxed);
            if self.counters.sessions_total.load(Ordering::Relaxed) > opened {
                backoff.reset();
            }
            let pause = match ended {
                Ok(()) => break,
                Err(SessionError::Refused(reason)) => {
                    warn!(server = %self.server, %reason, "the server refuses this agent");
                    REFUSED_PAUSE.mul_f64(0.5 + random_unit() / 2.0)
                }
                Err(error) => {
                    let pause = backoff.next(random_unit());
                    warn!(server = %self.server, %error, retry_in_ms = pause.as_millis(), "not connected to the server");
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => break,
            }
        }
        info!("uplink stopped");
    }
}
