//! Hosts.

use super::{Shared, error::ApiError};
use crate::{
    gateway::registry::Live,
    store::{hosts::Host, users::Grant},
};
use axum::{
    Extension, Json,
    extract::{Path, State},
};
use serde_json::{Map, Value, json};
use shipwatch_common::{
    protocol::Lane,
    time::{UnixMs, now_ms},
};

/// The word for a host's state.
#[must_use]
pub const fn state_word(host: &Host, connected: bool) -> &'static str {
    match (host.revoked_at_ms, connected, host.last_seen_ms, host.said_goodbye) {
        (Some(_), ..) => "revoked",
        (None, true, ..) => "up",
        (None, false, None, _) => "enrolled",
        (None, false, Some(_), true) => "stopped",
        (None, false, Some(_), false) => "silent",
    }
}

fn shown(host: &Host, live: Option<&Live>) -> Value {
    let mut lanes = Map::new();
    for lane in Lane::ALL {
        let state = live.and_then(|live| live.lanes.iter().find(|state| state.lane == lane));
        lanes.insert(lane.as_str().to_owned(), json!({"pending_bytes": state.map(|state| state.pending_bytes)}));
    }
    let last_seen: Option<UnixMs> = live.map(|live| live.last_seen_ms).max(host.last_seen_ms);
    json!({
        "id": host.id.to_string(),
        "name": host.name,
        "env": host.env,
        "region": host.region,
        "labels": host.labels,
        "state": state_word(host, live.is_some()),
        "last_seen_ms": last_seen,
        "enrolled_at_ms": host.enrolled_at_ms,
        "certificate_expires_ms": host.certificate_expires_ms,
        "facts": host.facts,
        "address": live.map_or(host.address.as_str(), |live| live.address.as_str()),
        "transport": live.map(|_| "quic"),
        "rtt_ms": live.map(|live| live.rtt_ms),
        "clock_offset_ms": live.map(|live| live.clock_offset_ms),
        "lanes": lanes,
        "deploys_allowed": host.deploys_allowed,
    })
}

/// `GET hosts`.
///
/// # Errors
/// The store.
pub async fn list(State(state): State<Shared>) -> Result<Json<Value>, ApiError> {
    let live = state.registry.all();
    let hosts: Vec<Value> = state.store.hosts().await?.iter().map(|host| shown(host, live.get(&host.id))).collect();
    Ok(Json(json!({"hosts": hosts})))
}

/// `GET hosts/{id}`.
///
/// # Errors
/// No such host.
pub async fn one(State(state): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let host = state.store.host(&id).await?;
    Ok(Json(shown(&host, state.registry.all().get(&host.id))))
}

/// `POST hosts/{id}/revoke`.
///
/// # Errors
/// No such host.
pub async fn revoke(
    State(state): State<Shared>,
    Extension(grant): Extension<Grant>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let agent = state.store.revoke_host(&id, &grant.user, now_ms()).await?;
    state.registry.close(agent, "this host was revoked");
    state.changes.send("hosts", &agent.to_string());
    let host = state.store.host(&agent.to_string()).await?;
    Ok(Json(shown(&host, None)))
}

/// `GET info`.
pub async fn info(State(state): State<Shared>) -> Json<Value> {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ca_fingerprint": state.ca_fingerprint,
        "agents_address": state.agents_address,
        "started_at_ms": state.started_at_ms,
        "now_ms": now_ms(),
    }))
}
