//! Log lines.

use super::{Shared, error::ApiError};
use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::Stream;
use serde_json::{Value, json};
use shipwatch_common::time::now_ns;
use shipwatch_logs::{CountBy, Direction, Engine, Query as LogQuery, Search, TailEvent};
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{Arc, mpsc::RecvTimeoutError},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

type Parameters = Query<HashMap<String, String>>;

const HOUR_NS: i64 = 3_600_000_000_000;

fn number<T: std::str::FromStr>(parameters: &HashMap<String, String>, name: &str, otherwise: T) -> Result<T, ApiError> {
    match parameters.get(name).filter(|text| !text.is_empty()) {
        Some(text) => text.parse().map_err(|_| ApiError::bad_request(format!("`{name}` must be a whole number, not {text:?}"))),
        None => Ok(otherwise),
    }
}

/// The range; the last hour if not given.
pub(super) fn range(parameters: &HashMap<String, String>) -> Result<(i64, i64), ApiError> {
    let end = number(parameters, "end_ns", now_ns())?;
    Ok((number(parameters, "start_ns", end - HOUR_NS)?, end))
}

pub(super) fn query(parameters: &HashMap<String, String>) -> Result<LogQuery, ApiError> {
    let text = parameters.get("query").map_or("", String::as_str);
    LogQuery::parse(text).map_err(|error| ApiError::bad_request(format!("query: {error}")))
}

impl From<shipwatch_logs::Error> for ApiError {
    fn from(error: shipwatch_logs::Error) -> Self {
        let status = match error {
            shipwatch_logs::Error::Query(_) | shipwatch_logs::Error::Invalid(_) => StatusCode::BAD_REQUEST,
            shipwatch_logs::Error::TimedOut | shipwatch_logs::Error::Canceled => StatusCode::SERVICE_UNAVAILABLE,
            shipwatch_logs::Error::TooManySubscribers(_) => StatusCode::TOO_MANY_REQUESTS,
            shipwatch_logs::Error::Full { .. } | shipwatch_logs::Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// Runs off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    state: &Shared,
    work: impl FnOnce(&Engine) -> shipwatch_logs::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    let logs = Arc::clone(&state.logs);
    let done = tokio::task::spawn_blocking(move || work(&logs)).await.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(done?)
}

fn deadline(state: &Shared) -> Option<Instant> {
    Instant::now().checked_add(state.config.query_timeout)
}

/// `GET logs`.
///
/// # Errors
/// A query or parameter that cannot be read.
pub async fn search(State(state): State<Shared>, Query(parameters): Parameters) -> Result<Json<Value>, ApiError> {
    let query = query(&parameters)?;
    let (start_ns, end_ns) = range(&parameters)?;
    let direction = match parameters.get("direction").map(String::as_str) {
        None | Some("" | "backward") => Direction::Backward,
        Some("forward") => Direction::Forward,
        Some(other) => return Err(ApiError::bad_request(format!("`direction` must be backward or forward, not {other:?}"))),
    };
    let cursor = match parameters.get("cursor").filter(|text| !text.is_empty()) {
        Some(text) => Some(text.parse().map_err(|error: shipwatch_logs::CursorError| ApiError::bad_request(format!("`cursor`: {error}")))?),
        None => None,
    };
    let search = Search { start_ns, end_ns, limit: number(&parameters, "limit", 200)?, direction, cursor, deadline: deadline(&state) };
    let started = Instant::now();
    let page = blocking(&state, move |logs| logs.search(&query, &search)).await?;
    let mut stats = serde_json::to_value(&page.stats).map_err(|error| ApiError::internal(error.to_string()))?;
    stats["took_ms"] = json!(started.elapsed().as_secs_f64() * 1000.0);
    Ok(Json(json!({"entries": page.entries, "next": page.next, "stats": stats})))
}

/// `GET logs/histogram`.
///
/// # Errors
/// A query or parameter that cannot be read.
pub async fn histogram(State(state): State<Shared>, Query(parameters): Parameters) -> Result<Json<Value>, ApiError> {
    let query = query(&parameters)?;
    let (start_ns, end_ns) = range(&parameters)?;
    let step_ms: i64 = number(&parameters, "step_ms", 60_000)?;
    let step_ns = step_ms
        .checked_mul(1_000_000)
        .filter(|step| *step > 0)
        .ok_or_else(|| ApiError::bad_request("`step_ms` must be a positive number"))?;
    let count = CountBy { start_ns, end_ns, step_ns, by_severity: true, deadline: deadline(&state) };
    let counts = blocking(&state, move |logs| logs.count_by(&query, &count)).await?;
    let mut buckets: BTreeMap<i64, serde_json::Map<String, Value>> = BTreeMap::new();
    for count in counts.counts {
        let severity = count.severity.unwrap_or_default().as_str().to_owned();
        buckets.entry(count.ts_ns / 1_000_000).or_default().insert(severity, json!(count.lines));
    }
    let buckets: Vec<Value> = buckets.into_iter().map(|(ts_ms, counts)| json!({"ts_ms": ts_ms, "counts": counts})).collect();
    Ok(Json(json!({"buckets": buckets})))
}

/// `GET logs/labels`.
///
/// # Errors
/// The store.
pub async fn labels(State(state): State<Shared>, Query(parameters): Parameters) -> Result<Json<Value>, ApiError> {
    let (start, end) = range(&parameters)?;
    let labels = blocking(&state, move |logs| logs.labels(start, end)).await?;
    Ok(Json(json!({"labels": labels})))
}

/// `GET logs/labels/{name}/values`.
///
/// # Errors
/// The store.
pub async fn label_values(
    State(state): State<Shared>,
    Path(name): Path<String>,
    Query(parameters): Parameters,
) -> Result<Json<Value>, ApiError> {
    let (start, end) = range(&parameters)?;
    let values = blocking(&state, move |logs| logs.label_values(&name, start, end)).await?;
    Ok(Json(json!({"values": values})))
}

/// `GET logs/context`.
///
/// # Errors
/// No such line.
pub async fn context(State(state): State<Shared>, Query(parameters): Parameters) -> Result<Json<Value>, ApiError> {
    let id = parameters.get("id").map_or("", String::as_str);
    let id: shipwatch_logs::EntryId =
        id.parse().map_err(|_| ApiError::bad_request("`id` must be the id of a line, as the search gave it"))?;
    let (before, after) = (number(&parameters, "before", 10usize)?, number(&parameters, "after", 10usize)?);
    let entries = blocking(&state, move |logs| logs.context(id, before.min(500), after.min(500))).await?;
    if entries.is_empty() {
        return Err(ApiError::not_found("this line"));
    }
    Ok(Json(json!({"entries": entries})))
}

/// Lines in one event.
const TAIL_LINES: usize = 200;
/// Lines are gathered for this long, so that a busy log is not an event per line.
const TAIL_PACE: Duration = Duration::from_millis(100);

/// `GET logs/tail`.
///
/// # Errors
/// A query that cannot be read, or too many readers.
pub async fn tail(
    State(state): State<Shared>,
    Query(parameters): Parameters,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let query = query(&parameters)?;
    let subscription = blocking(&state, move |logs| logs.subscribe(query)).await?;
    let (events, inbox) = mpsc::channel::<Event>(16);
    // Ends with the engine, or at the next line or pause after the reader has gone.
    tokio::task::spawn_blocking(move || {
        loop {
            let first = match subscription.recv_timeout(Duration::from_millis(500)) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) if !events.is_closed() => continue,
                Err(_) => return,
            };
            let mut entries = Vec::new();
            let mut missed = 0;
            let mut take = |event: TailEvent| match event {
                TailEvent::Entry(entry) => entries.push(entry),
                TailEvent::Gap { missed: more } => missed += more,
            };
            take(first);
            let until = Instant::now() + TAIL_PACE;
            for _ in 1..TAIL_LINES {
                match subscription.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(event) => take(event),
                    Err(_) => break,
                }
            }
            let gap = (missed > 0).then(|| Event::default().event("gap").data(json!({"dropped": missed}).to_string()));
            let lines = (!entries.is_empty()).then(|| Event::default().event("entries").data(json!(entries).to_string()));
            for event in gap.into_iter().chain(lines) {
                if events.blocking_send(event).is_err() {
                    return;
                }
            }
        }
    });
    let stream = futures_util::stream::unfold(inbox, |mut inbox| async move { inbox.recv().await.map(|event| (Ok(event), inbox)) });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}
