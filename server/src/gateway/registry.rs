//! Which agents are connected now.

use shipwatch_common::{
    model::AgentId,
    protocol::{LaneState, ServerMessage},
    time::UnixMs,
    transport::CLOSE_GOING_AWAY,
};
use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::mpsc;

/// One live connection.
#[derive(Clone, Debug)]
pub struct Live {
    /// Tells connections of one agent apart.
    pub session: u64,
    /// Name in the fleet.
    pub name: String,
    /// Where it connects from.
    pub address: String,
    /// Last message.
    pub last_seen_ms: UnixMs,
    /// The host's clock minus ours, at the last status.
    pub clock_offset_ms: i64,
    /// Round trip.
    pub rtt_ms: f64,
    /// What waits in its spool, as it last said.
    pub lanes: Vec<LaneState>,
    messages: mpsc::Sender<ServerMessage>,
    connection: quinn::Connection,
}

/// See the module. Locks are held for moments only, never across an await.
#[derive(Debug, Default)]
pub struct Registry {
    live: Mutex<HashMap<AgentId, Live>>,
    next: AtomicU64,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a connection; an older one of the same agent is closed: the newest is right after a network change.
    /// Returns the session's number.
    pub(crate) fn enter(
        &self,
        agent: AgentId,
        name: String,
        connection: quinn::Connection,
        messages: mpsc::Sender<ServerMessage>,
        now_ms: UnixMs,
    ) -> u64 {
        let session = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let live = Live {
            session,
            name,
            address: connection.remote_address().to_string(),
            last_seen_ms: now_ms,
            clock_offset_ms: 0,
            rtt_ms: 0.0,
            lanes: Vec::new(),
            messages,
            connection,
        };
        if let Some(old) = self.lock().insert(agent, live) {
            old.connection.close(CLOSE_GOING_AWAY.into(), b"replaced by a newer connection of the same agent");
        }
        session
    }

    /// Takes a connection out, unless a newer one of the same agent is there.
    pub(crate) fn leave(&self, agent: AgentId, session: u64) -> bool {
        let mut live = self.lock();
        let ours = live.get(&agent).is_some_and(|entry| entry.session == session);
        if ours {
            live.remove(&agent);
        }
        ours
    }

    /// Notes a sign of life.
    pub(crate) fn seen(&self, agent: AgentId, session: u64, now_ms: UnixMs, status: Option<(i64, Vec<LaneState>)>) {
        if let Some(entry) = self.lock().get_mut(&agent).filter(|entry| entry.session == session) {
            entry.last_seen_ms = now_ms;
            if let Some((host_now_ms, lanes)) = status {
                entry.clock_offset_ms = host_now_ms - now_ms;
                entry.lanes = lanes;
                entry.rtt_ms = entry.connection.rtt().as_secs_f64() * 1000.0;
            }
        }
    }

    /// All live connections.
    #[must_use]
    pub fn all(&self) -> HashMap<AgentId, Live> {
        self.lock().clone()
    }

    /// Sends to an agent. `false` if it is not connected or its queue is full: the caller tries again later.
    #[must_use]
    pub fn send(&self, agent: AgentId, message: ServerMessage) -> bool {
        self.lock().get(&agent).is_some_and(|entry| entry.messages.try_send(message).is_ok())
    }

    /// Closes an agent's connection with this refusal.
    pub fn close(&self, agent: AgentId, reason: &str) {
        if let Some(entry) = self.lock().get(&agent) {
            entry.connection.close(shipwatch_common::transport::CLOSE_REFUSED.into(), reason.as_bytes());
        }
    }
}
