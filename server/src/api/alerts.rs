//! Alerts, messages about them, channels.

use super::{Shared, error::ApiError};
use crate::store::users::Grant;
use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde_json::{Value, json};
use shipwatch_common::time::now_ms;
use std::{collections::HashMap, future::Future, pin::Pin, time::Instant};

/// An answer that comes later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the API needs of rules and messages; `app` joins it.
pub trait Alerting: Send + Sync + std::fmt::Debug {
    /// `data` of `/api/v1/rules`.
    fn prometheus_rules(&self) -> Value;
    /// `data` of `/api/v1/alerts`.
    fn prometheus_alerts(&self) -> Value;
    /// Alerts in these states, as `docs/api.md` shapes them.
    fn alerts(&self, states: &[&str]) -> Vec<Value>;
    /// Channels as `docs/api.md` shapes them.
    fn channels(&self) -> Vec<Value>;
    /// Sends a test message; `None` for an unknown channel, else what the channel answered.
    fn test_channel<'a>(&'a self, name: &'a str) -> Later<'a, Option<Result<String, String>>>;
    /// Reads the rule files again; all mistakes in the error, the old rules stay.
    ///
    /// # Errors
    /// Mistakes in the files.
    fn reload(&self) -> Result<(), String>;
    /// Its part of `/metrics`.
    fn own_metrics(&self) -> String;
}

/// `GET alerts`.
///
/// # Errors
/// An unknown state.
pub async fn list(State(state): State<Shared>, Query(parameters): Query<HashMap<String, String>>) -> Result<Json<Value>, ApiError> {
    let wanted = parameters.get("state").map_or("firing,pending,resolved", String::as_str);
    let states: Vec<&str> = wanted.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    if let Some(unknown) = states.iter().find(|word| !["firing", "pending", "resolved"].contains(*word)) {
        return Err(ApiError::bad_request(format!("`state` must be of firing, pending, resolved, not {unknown:?}")));
    }
    Ok(Json(json!({"alerts": state.alerting.alerts(&states)})))
}

/// `GET alerts/{fingerprint}`.
///
/// # Errors
/// No such alert.
pub async fn one(State(state): State<Shared>, Path(fingerprint): Path<String>) -> Result<Json<Value>, ApiError> {
    let all = state.alerting.alerts(&["firing", "pending", "resolved"]);
    let mut alert = all
        .into_iter()
        .find(|alert| alert["fingerprint"] == fingerprint.as_str())
        .ok_or_else(|| ApiError::not_found(format!("alert {fingerprint}")))?;
    let history = state.store.alert_history(&fingerprint, 200).await?;
    let history: Vec<Value> =
        history.into_iter().map(|(at_ms, state, value)| json!({"at_ms": at_ms, "state": state, "value": value})).collect();
    let mentions =
        |delivery: &Value| delivery["fingerprints"].as_array().is_some_and(|all| all.iter().any(|one| one == fingerprint.as_str()));
    let deliveries: Vec<Value> = state.store.recent_deliveries(500).await?.into_iter().filter(mentions).collect();
    alert["history"] = json!(history);
    alert["deliveries"] = json!(deliveries);
    Ok(Json(alert))
}

/// `GET notifications`.
///
/// # Errors
/// The store.
pub async fn notifications(
    State(state): State<Shared>,
    Query(parameters): Query<HashMap<String, String>>,
) -> Result<Json<Value>, ApiError> {
    let limit: u32 =
        parameters.get("limit").map_or(Ok(100), |text| text.parse()).map_err(|_| ApiError::bad_request("`limit` must be a number"))?;
    Ok(Json(json!({"deliveries": state.store.recent_deliveries(limit.min(1_000)).await?})))
}

/// `GET channels`.
pub async fn channels(State(state): State<Shared>) -> Json<Value> {
    Json(json!({"channels": state.alerting.channels()}))
}

/// `POST channels/{name}/test`.
///
/// # Errors
/// No such channel.
pub async fn test_channel(
    State(state): State<Shared>,
    Extension(grant): Extension<Grant>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let started = Instant::now();
    state.store.audit(now_ms(), &grant.user, "channel tested", &name).await?;
    let answer = state.alerting.test_channel(&name).await.ok_or_else(|| ApiError::not_found(format!("channel {name}")))?;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Json(match answer {
        Ok(answer) => json!({"ok": true, "answer": answer, "took_ms": took_ms}),
        Err(reason) => json!({"ok": false, "answer": reason, "took_ms": took_ms}),
    }))
}

/// `POST /-/reload`.
///
/// # Errors
/// Mistakes in the rule files; all of them.
pub async fn reload(State(state): State<Shared>, Extension(grant): Extension<Grant>) -> Result<StatusCode, ApiError> {
    state.alerting.reload().map_err(ApiError::bad_request)?;
    state.store.audit(now_ms(), &grant.user, "rules reloaded", "").await?;
    Ok(StatusCode::NO_CONTENT)
}
