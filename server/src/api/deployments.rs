//! Deployments.

use super::{Shared, error::ApiError};
use crate::{
    deploys::{
        Request,
        state::{Deployment, Strategy},
    },
    store::{deployments::StoredEvent, users::Grant},
};
use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::sse::{Event as SseEvent, KeepAlive, Sse},
};
use futures_util::Stream;
use serde::Deserialize;
use serde_json::{Value, json};
use shipwatch_common::model::deploy::{EventKind, Spec};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    convert::Infallible,
    time::Duration,
};
use tokio::sync::broadcast;

fn shown(deployment: &Deployment, with_spec: bool) -> Result<Value, ApiError> {
    let mut value = serde_json::to_value(deployment).map_err(|error| ApiError::internal(error.to_string()))?;
    if let Some(map) = value.as_object_mut() {
        if !with_spec {
            map.shift_remove("spec");
        }
        let hosts: Vec<Value> = deployment
            .hosts
            .iter()
            .map(|host| {
                json!({"id": host.id.to_string(), "name": host.name, "state": host.state, "reason": host.reason, "release": host.release,
                       "started_at_ms": host.started_at_ms, "finished_at_ms": host.finished_at_ms})
            })
            .collect();
        map.insert("hosts".to_owned(), Value::Array(hosts));
    }
    Ok(value)
}

/// Body of a new deployment.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDeployment {
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    spec_yaml: Option<String>,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    selector: BTreeMap<String, String>,
    #[serde(default)]
    strategy: Strategy,
    #[serde(default = "NewDeployment::default_stop")]
    stop_on_failure: bool,
}

impl NewDeployment {
    const fn default_stop() -> bool {
        true
    }
}

/// `POST deployments`.
///
/// # Errors
/// Mistakes in the request (all of them), or hosts that cannot be reached.
pub async fn create(
    State(state): State<Shared>,
    Extension(grant): Extension<Grant>,
    body: Result<Json<NewDeployment>, axum::extract::rejection::JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Json(body) = body.map_err(|error| ApiError::new(error.status(), error.body_text()))?;
    let spec = match (body.spec, body.spec_yaml) {
        (Some(spec), None) => spec,
        (None, Some(text)) => serde_saphyr::from_str(&text).map_err(|error| ApiError::bad_request(format!("spec: {error}")))?,
        _ => return Err(ApiError::bad_request("give `spec` (an object) or `spec_yaml` (the text of a deploy.yml), one of them")),
    };
    let request =
        Request { spec, hosts: body.hosts, selector: body.selector, strategy: body.strategy, stop_on_failure: body.stop_on_failure };
    let created = state.deploys.create(request, &grant.user).await?;
    Ok((StatusCode::CREATED, Json(shown(&created, true)?)))
}

/// `GET deployments`.
///
/// # Errors
/// The store.
pub async fn list(State(state): State<Shared>, Query(query): Query<HashMap<String, String>>) -> Result<Json<Value>, ApiError> {
    let limit = query.get("limit").map_or(Ok(50), |text| text.parse()).map_err(|_| ApiError::bad_request("`limit` must be a number"))?;
    let all = state.deploys.list(u32::min(limit, 1_000)).await?;
    let all = all.iter().map(|deployment| shown(deployment, false)).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(json!({"deployments": all})))
}

/// `GET deployments/{id}`.
///
/// # Errors
/// No such deployment.
pub async fn one(State(state): State<Shared>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(shown(&state.deploys.get(&id).await?, true)?))
}

/// `POST deployments/{id}/rollback`.
///
/// # Errors
/// Nothing to roll back, or hosts that cannot be reached.
pub async fn roll_back(
    State(state): State<Shared>,
    Extension(grant): Extension<Grant>,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let created = state.deploys.roll_back(&id, &grant.user).await?;
    Ok((StatusCode::CREATED, Json(shown(&created, true)?)))
}

/// `POST deployments/{id}/abort`.
///
/// # Errors
/// It has ended.
pub async fn abort(
    State(state): State<Shared>,
    Extension(grant): Extension<Grant>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(shown(&state.deploys.abort(&id, &grant.user).await?, true)?))
}

fn event_json(stored: &StoredEvent, names: &HashMap<String, String>) -> Value {
    let host = names.get(&stored.host_id).unwrap_or(&stored.host_id);
    let mut value = json!({"n": stored.n, "at_ms": stored.event.at_ms, "host": host});
    let kind = match &stored.event.kind {
        EventKind::State { state, reason, release } => json!({"kind": "state", "state": state, "reason": reason, "release": release}),
        EventKind::StepStarted { step } => json!({"kind": "step_started", "step": step}),
        EventKind::Output { step, text } => json!({"kind": "output", "step": step, "text": text}),
        EventKind::StepFinished { step, ok, detail, took_ms } => {
            json!({"kind": "step_finished", "step": step, "ok": ok, "detail": detail, "took_ms": took_ms})
        }
    };
    if let (Some(map), Value::Object(kind)) = (value.as_object_mut(), kind) {
        map.extend(kind);
    }
    value
}

fn names(deployment: &Deployment) -> HashMap<String, String> {
    deployment.hosts.iter().map(|host| (host.id.to_string(), host.name.clone())).collect()
}

fn after(query: &HashMap<String, String>, headers: &HeaderMap) -> Result<i64, ApiError> {
    let text = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok())
        .or_else(|| query.get("after").map(String::as_str))
        .unwrap_or("0");
    text.parse().map_err(|_| ApiError::bad_request("`after` must be the number of an event"))
}

/// `GET deployments/{id}/log`.
///
/// # Errors
/// No such deployment.
pub async fn log(
    State(state): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Json<Value>, ApiError> {
    let limit: u32 =
        query.get("limit").map_or(Ok(1_000), |text| text.parse()).map_err(|_| ApiError::bad_request("`limit` must be a number"))?;
    let after = after(&query, &HeaderMap::new())?;
    let names = names(&state.deploys.get(&id).await?);
    let events = state.store.deployment_events(&id, after, limit.min(10_000)).await?;
    let next = events.last().map_or(after, |event| event.n);
    let events: Vec<Value> = events.iter().map(|event| event_json(event, &names)).collect();
    Ok(Json(json!({"events": events, "next": next})))
}

/// Where a reader of the event stream is.
struct Follow {
    state: Shared,
    id: String,
    names: HashMap<String, String>,
    after: i64,
    waiting: VecDeque<StoredEvent>,
    changes: broadcast::Receiver<super::live::Change>,
    ended: bool,
}

/// Events read from the store at once.
const PAGE: u32 = 500;
/// Looked at again without a change, should one have been missed.
const RECHECK: Duration = Duration::from_secs(5);

impl Follow {
    async fn next(&mut self) -> Option<SseEvent> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.after = event.n;
                let data = event_json(&event, &self.names).to_string();
                return Some(SseEvent::default().id(event.n.to_string()).event("deployment").data(data));
            }
            if self.ended {
                return None;
            }
            // Asked before reading, so that events of the last moment are still read.
            let finished = self.state.deploys.get(&self.id).await.ok()?.finished_at_ms.is_some();
            self.waiting = self.state.store.deployment_events(&self.id, self.after, PAGE).await.ok()?.into();
            if self.waiting.is_empty() && finished {
                self.ended = true;
                return Some(SseEvent::default().event("end").data("{}"));
            }
            if self.waiting.is_empty() {
                let _changed_or_time = tokio::time::timeout(RECHECK, self.changes.recv()).await;
            }
        }
    }
}

/// `GET deployments/{id}/events`.
///
/// # Errors
/// No such deployment.
pub async fn events(
    State(state): State<Shared>,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, ApiError> {
    let after = after(&query, &headers)?;
    let names = names(&state.deploys.get(&id).await?);
    let changes = state.changes.subscribe();
    let follow = Follow { state, id, names, after, waiting: VecDeque::new(), changes, ended: false };
    let stream = futures_util::stream::unfold(follow, |mut follow| async move { follow.next().await.map(|event| (Ok(event), follow)) });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}
