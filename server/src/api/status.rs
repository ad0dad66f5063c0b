//! What Prometheus tells of itself and of its targets, in its shapes: agents are the targets.
//!
//! # Left out
//! `/api/v1/status/flags` and `/api/v1/status/config`: what answers them is taken for a Prometheus with its configuration file.

use super::{Shared, error::ApiError, hosts::state_word, prometheus::success};
use crate::store::hosts::Host;
use axum::{
    Json,
    extract::{Query, State},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shipwatch_common::time::{UnixMs, now_ms};

/// A time as Prometheus writes it.
fn rfc3339(ms: UnixMs) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

/// `/api/v1/status/runtimeinfo`.
pub async fn runtime_info(State(state): State<Shared>) -> Json<Value> {
    let series = state.series.config();
    success(json!({
        "startTime": rfc3339(state.started_at_ms), "CWD": "", "reloadConfigSuccess": true, "lastConfigTime": rfc3339(state.started_at_ms),
        "corruptionCount": 0, "goroutineCount": 0, "GOMAXPROCS": std::thread::available_parallelism().map_or(1, usize::from),
        "GOMEMLIMIT": 0, "GOGC": "", "GODEBUG": "", "storageRetention": format!("{}d", series.retention_days),
    }))
}

/// `/api/v1/status/walreplay`: who can ask finds it done.
pub async fn replay() -> Json<Value> {
    success(json!({"min": 0, "max": 0, "current": 0, "state": "done"}))
}

/// `/api/v1/alertmanagers`: messages go out from here, without one.
pub async fn alertmanagers() -> Json<Value> {
    success(json!({"activeAlertmanagers": [], "droppedAlertmanagers": []}))
}

/// `/api/v1/notifications`: Prometheus' own notices to its users; there are none.
pub async fn notifications() -> Json<Value> {
    success(json!([]))
}

/// Parameters of `/api/v1/targets`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TargetsQuery {
    state: String,
    scrape_pool: String,
}

/// `/api/v1/targets`: agents that are not revoked.
///
/// # Errors
/// The store.
pub async fn targets(State(state): State<Shared>, Query(query): Query<TargetsQuery>) -> Result<Json<Value>, ApiError> {
    let wants_active = !query.state.eq_ignore_ascii_case("dropped") && matches!(query.scrape_pool.as_str(), "" | POOL);
    let (live, now) = (state.registry.all(), now_ms());
    let hosts = if wants_active { state.store.hosts().await? } else { Vec::new() };
    let shown = |host: &Host| {
        let live = live.get(&host.id);
        let seen = live.map(|live| live.last_seen_ms).max(host.last_seen_ms);
        target(host, state_word(host, live.is_some()), live.map_or(host.address.as_str(), |live| live.address.as_str()), seen, now)
    };
    let active: Vec<Value> = hosts.iter().filter(|host| host.revoked_at_ms.is_none()).map(shown).collect();
    Ok(success(json!({"activeTargets": active, "droppedTargets": [], "droppedTargetCounts": {POOL: 0}})))
}

/// Every agent's series have this `job`.
const POOL: &str = "node";

fn target(host: &Host, state: &str, address: &str, seen_ms: Option<UnixMs>, now_ms: UnixMs) -> Value {
    let mut labels = Map::new();
    for (name, value) in host.labels.iter() {
        labels.insert(name.to_owned(), json!(value));
    }
    for (name, value) in [("instance", host.name.as_str()), ("job", POOL), ("env", &host.env), ("region", &host.region)] {
        if !value.is_empty() {
            labels.insert(name.to_owned(), json!(value));
        }
    }
    let (health, error) = match state {
        "up" => ("up", String::new()),
        "enrolled" => ("unknown", String::new()),
        "stopped" => ("down", "the agent was stopped".to_owned()),
        _ => ("down", format!("the agent is silent for {} s", seen_ms.map_or(0, |seen| now_ms.saturating_sub(seen) / 1000))),
    };
    json!({
        "discoveredLabels": {"__address__": address, "__meta_shipwatch_host_id": host.id.to_string(), "job": POOL},
        "labels": labels, "scrapePool": POOL, "scrapeUrl": format!("quic://{address}"), "globalUrl": format!("quic://{address}"),
        "lastError": error, "lastScrape": rfc3339(seen_ms.unwrap_or(0)), "lastScrapeDuration": 0.0, "health": health,
        "scrapeInterval": "", "scrapeTimeout": "",
    })
}
