//! Agents' connections: who they are, what they send, what they are told.
//!
//! - [`registry`]: which agent is connected now, and how to reach it
//! - [`session`]: one connection; [`enrol`]: how a host gets its certificate
//!
//! # Invariants
//! - An agent is who its certificate says, never who a message says. Host, environment and region labels are set here, over
//!   whatever the agent sent.
//! - Records are acknowledged after their commit. When the disk is full they are kept and tried again; the agent waits.
//! - A revoked host is refused at connection, and its live connection is closed.

mod enrol;
pub mod registry;
mod session;

use crate::{ingest::Ingest, store::Store};
use registry::Registry;
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    config::Problems,
    identity::{self, Authority},
    protocol::{ALPN_AGENT, ALPN_ENROL},
    time::now_ms,
    transport::{self, CLOSE_GOING_AWAY, CLOSE_REFUSED, TransportError},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

/// Where agents connect.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port (UDP) that agents connect to.
    pub listen: String,
    /// How agents reach this server, for the enrolment command that is shown; empty takes `listen`.
    pub advertise: String,
    /// Life of an agent's certificate; it renews itself after two thirds. A stolen one is good for at most this long.
    #[serde(with = "shipwatch_common::time::serde_duration")]
    pub certificate_life: Duration,
    /// More connections than this are refused.
    pub max_connections: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:9701".to_owned(),
            advertise: String::new(),
            certificate_life: Duration::from_secs(30 * 86_400),
            max_connections: 20_000,
        }
    }
}

impl Config {
    /// Checks addresses and bounds.
    pub fn check(&self, problems: &mut Problems) {
        if self.listen.parse::<SocketAddr>().is_err() {
            problems.add("listen", format!("must be ADDRESS:PORT, such as 0.0.0.0:9701, not {:?}", self.listen));
        }
        if self.certificate_life < Duration::from_secs(30) {
            problems.add("certificate_life", "must be at least 30s");
        }
        if self.max_connections == 0 {
            problems.add("max_connections", "must be at least 1");
        }
    }
}

/// What is counted, for `/metrics`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were refused: foreign, expired or revoked certificates, bad tokens.
    pub refused_total: AtomicU64,
    /// Sessions that began.
    pub sessions_total: AtomicU64,
    /// Frame bytes received on lanes.
    pub received_bytes_total: AtomicU64,
    /// Messages that could not be decoded.
    pub bad_messages_total: AtomicU64,
}

/// What every session needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store>,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) marks: Marks,
    /// Told whenever something about hosts or deployments changed.
    pub(crate) changed: Arc<dyn Changed>,
}

/// The last sequence of a source that the series engine has stored; given by `app`.
#[derive(Clone)]
pub struct Marks(pub Arc<Lookup>);

/// From a source to its last stored sequence.
type Lookup = dyn Fn(&str) -> Option<u64> + Send + Sync;

impl std::fmt::Debug for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Marks")
    }
}

/// Who wants to hear that something changed; `app` joins it to the live stream and the deploy controller.
pub trait Changed: Send + Sync + std::fmt::Debug {
    /// A host came, went, or told something new.
    fn host(&self, id: &str);
    /// New events of deployments were stored.
    fn deployments(&self);
}

/// The listening end, with the task that accepts.
#[derive(Debug)]
pub struct Gateway {
    endpoint: quinn::Endpoint,
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// What [`Gateway::bind`] needs.
#[derive(Debug)]
pub struct Parts {
    /// Own configuration.
    pub config: Config,
    /// Hosts and tokens.
    pub store: Arc<Store>,
    /// Where records go.
    pub ingest: Arc<Ingest>,
    /// The CA.
    pub authority: Arc<Authority>,
    /// Live connections.
    pub registry: Arc<Registry>,
    /// The series engine's marks.
    pub marks: Marks,
    /// Listener.
    pub changed: Arc<dyn Changed>,
}

impl Gateway {
    /// Binds the port and begins to accept. Must be called within the runtime.
    ///
    /// # Errors
    /// A busy port, or certificates that cannot be made.
    pub fn bind(parts: Parts) -> Result<Self, TransportError> {
        let tls = |error: identity::IdentityError| TransportError::Tls(error.to_string());
        let listen: SocketAddr =
            parts.config.listen.parse().map_err(|_| TransportError::Tls("gateway.listen is not an address".to_owned()))?;
        let credentials = parts.authority.issue_server(now_ms(), Duration::from_secs(10 * 365 * 86_400)).map_err(tls)?;
        let endpoint = transport::listen(listen, credentials, parts.authority.certificate())?;
        let address = endpoint.local_addr().map_err(|error| TransportError::Tls(error.to_string()))?;
        let Parts { config, store, ingest, authority, registry, marks, changed } = parts;
        let counters = Arc::new(Counters::default());
        let shared = Arc::new(Shared { config, store, ingest, authority, registry, counters, marks, changed });
        let gateway = Self { endpoint, address, shared, tasks: TaskTracker::new(), cancel: CancellationToken::new() };
        gateway.tasks.spawn(accept(gateway.endpoint.clone(), Arc::clone(&gateway.shared), gateway.tasks.clone(), gateway.cancel.clone()));
        Ok(gateway)
    }

    /// The bound address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.shared.counters)
    }

    /// Stops accepting, lets sessions finish their commits, and closes all connections.
    pub async fn shutdown(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.endpoint.close(CLOSE_GOING_AWAY.into(), b"the server stops");
        let _slow = tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await;
        let _slow = tokio::time::timeout(Duration::from_secs(2), self.endpoint.wait_idle()).await;
        info!("gateway stopped");
    }
}

async fn accept(endpoint: quinn::Endpoint, shared: Arc<Shared>, tasks: TaskTracker, cancel: CancellationToken) {
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = cancel.cancelled() => return,
        };
        let Some(incoming) = incoming else { return };
        if endpoint.open_connections() > shared.config.max_connections {
            shared.counters.refused_total.fetch_add(1, Ordering::Relaxed);
            incoming.refuse();
            continue;
        }
        let (shared, cancel) = (Arc::clone(&shared), cancel.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = serve(incoming, &shared) => {}
                () = cancel.cancelled() => {}
            }
        });
    }
}

/// One connection from handshake to end.
async fn serve(incoming: quinn::Incoming, shared: &Arc<Shared>) {
    let remote = incoming.remote_address();
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => {
            shared.counters.refused_total.fetch_add(1, Ordering::Relaxed);
            warn!(%remote, error = %transport::explain(&error), "refused a connection: the handshake failed");
            return;
        }
    };
    let refuse = |reason: &str| {
        shared.counters.refused_total.fetch_add(1, Ordering::Relaxed);
        warn!(%remote, %reason, "refused a connection");
        connection.close(CLOSE_REFUSED.into(), reason.as_bytes());
    };
    let peer = transport::peer(&connection);
    match (peer.alpn.as_slice(), peer.certificate) {
        (ALPN_ENROL, _) => enrol::serve(&connection, shared).await,
        (ALPN_AGENT, Some(certificate)) => match identity::read_agent_certificate(&certificate) {
            Ok(certificate) => match shared.store.host(&certificate.agent.to_string()).await {
                Ok(host) if host.revoked_at_ms.is_some() => {
                    refuse("this host was revoked; to let it in again, enrol it with a new token and --force");
                }
                Ok(host) => session::serve(connection, host, shared).await,
                Err(error) => {
                    debug!(%error, agent = %certificate.agent, "unknown agent");
                    refuse("this host is not known to the server; enrol it again with --force");
                }
            },
            Err(error) => refuse(&error.to_string()),
        },
        (ALPN_AGENT, None) => refuse("an agent needs its certificate; enrol first"),
        _ => refuse("unknown protocol"),
    }
}
