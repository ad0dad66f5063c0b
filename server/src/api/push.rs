//! Log lines that others push: Loki's API, OpenTelemetry's, and Elasticsearch's `_bulk`.
//!
//! # Invariants
//! - 2xx comes after the lines are on disk, masked here whatever their sender did. 4xx must not be sent again as it is; 5xx means later.
//! - What is sent again within a short time (a sender that did not hear the answer) is stored once.
//! - What cannot be stored is told in the words of the protocol; the rest of the request is stored.

pub mod elastic;

use super::{
    Shared,
    body::{Coding, Refusal, Turns, with_retry},
};
use crate::{
    ingest::Ingest,
    push::{Collected, Collector, Config, PushError, Recent, Seen, States, loki, otlp},
};
use axum::{
    Json,
    body::Bytes,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::json;
use shipwatch_common::{mask::Masker, protobuf, time::now_ns};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Name under which pushed lines are stored, where agents have their own.
const AGENT: &str = "push";

/// What is counted, for `/metrics`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests that were stored, at least in part.
    pub requests_total: AtomicU64,
    /// Requests of which nothing was taken.
    pub refused_requests_total: AtomicU64,
    /// Requests that had come before.
    pub duplicate_requests_total: AtomicU64,
    /// Lines that were stored.
    pub lines_total: AtomicU64,
    /// Bytes of their text.
    pub bytes_total: AtomicU64,
    /// Lines that were left out: labels or documents that cannot be stored.
    pub refused_lines_total: AtomicU64,
    /// Values that were masked.
    pub masked_total: AtomicU64,
    /// Lines that could not be masked and were replaced as a whole.
    pub replaced_lines_total: AtomicU64,
}

/// What the handlers need.
#[derive(Debug)]
pub struct Push {
    config: Config,
    masker: Arc<Masker>,
    ingest: Arc<Ingest>,
    states: States,
    recent: Recent,
    turns: Turns,
    counters: Counters,
}

impl Push {
    /// With these settings.
    #[must_use]
    pub fn new(config: Config, masker: Arc<Masker>, ingest: Arc<Ingest>) -> Self {
        let (states, recent, turns, counters) = Default::default();
        Self { config, masker, ingest, states, recent, turns, counters }
    }

    /// What is counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    async fn store(&self, collected: Collected) -> Result<(), Refusal> {
        let Collected { batches, lines, bytes, masked, replaced, .. } = collected;
        if !batches.is_empty() {
            let append = shipwatch_logs::Append { source: String::new(), seq: 0, agent: AGENT.to_owned(), batches };
            self.ingest.logs(vec![append]).await?;
        }
        let counters = &self.counters;
        for (counter, by) in [
            (&counters.requests_total, 1),
            (&counters.lines_total, lines),
            (&counters.bytes_total, bytes),
            (&counters.masked_total, masked),
            (&counters.replaced_lines_total, replaced),
        ] {
            counter.fetch_add(by, Relaxed);
        }
        Ok(())
    }
}

impl From<PushError> for Refusal {
    fn from(error: PushError) -> Self {
        let status = if matches!(error, PushError::TooMany { .. }) { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        Self(status, error.to_string())
    }
}

/// What a decoder makes of a body, beside the lines.
type Decode<T> = fn(&[u8], &mut Collector<'_>) -> Result<T, PushError>;

/// Reads a body, decodes it off the async threads, and stores it, unless that was done before.
async fn accept<T: Send + 'static>(
    push: &Push,
    request: Request,
    source: &'static str,
    coding: Coding,
    decode: impl FnOnce(&[u8], &mut Collector<'_>) -> Result<T, PushError> + Send + 'static,
) -> Result<T, Refusal> {
    let path = request.uri().path().to_owned();
    let (_turn, body) = push.turns.body(request, push.config.max_bytes, "push.max_bytes").await?;
    let turn = match push.recent.begin(&path, &body) {
        Seen::New(turn) => Some(turn),
        Seen::Stored => None,
        Seen::Underway => {
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, "the same request is being stored just now".to_owned()));
        }
    };
    let (config, masker, states) = (push.config.clone(), Arc::clone(&push.masker), push.states.clone());
    let work = move || -> Result<(T, Collected), Refusal> {
        let body: Bytes = coding.unpack(&body, config.max_decoded_bytes, "push.max_decoded_bytes")?;
        let mut collector = Collector::new(&config, &masker, &states, source, now_ns());
        let told = decode(&body, &mut collector)?;
        Ok((told, collector.finish()))
    };
    let done = tokio::task::spawn_blocking(work).await;
    let (told, collected) = done.map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??;
    // What had come before is only read again, for the answer.
    let Some(turn) = turn else {
        push.counters.duplicate_requests_total.fetch_add(1, Relaxed);
        return Ok(told);
    };
    let has_times = collected.untimed == 0;
    push.store(collected).await?;
    turn.stored(has_times);
    Ok(told)
}

fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    text.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

fn refused(push: &Push, refusal: Refusal) -> Refusal {
    push.counters.refused_requests_total.fetch_add(1, Relaxed);
    tracing::debug!(status = refusal.0.as_u16(), message = %refusal.1, "pushed lines refused");
    refusal
}

/// `POST /loki/api/v1/push`.
pub async fn loki(State(state): State<Shared>, request: Request) -> Response {
    let push = &state.push;
    match loki_stored(push, request).await {
        Ok(left_out) if left_out.reasons.is_empty() => StatusCode::NO_CONTENT.into_response(),
        Ok(left_out) => {
            push.counters.refused_lines_total.fetch_add(left_out.lines, Relaxed);
            let text = format!("{}; {} lines were left out, the others are stored\n", left_out.reasons.join("; "), left_out.lines);
            (StatusCode::BAD_REQUEST, text).into_response()
        }
        Err(refusal) => refused(push, refusal).response(),
    }
}

async fn loki_stored(push: &Push, request: Request) -> Result<loki::LeftOut, Refusal> {
    let kind = content_type(request.headers());
    let (coding, decode): (Coding, Decode<loki::LeftOut>) = match kind.as_str() {
        "application/json" => (Coding::of(request.headers())?, loki::json),
        // Loki's clients do not say that the message is packed.
        "application/x-protobuf" | "" => match Coding::of(request.headers())? {
            Coding::Plain => (Coding::Snappy, loki::protobuf),
            other => (other, loki::protobuf),
        },
        other => {
            let text = format!("Content-Type {other:?} is not known: send application/json or application/x-protobuf");
            return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
    };
    accept(push, request, "loki", coding, decode).await
}

/// `POST /v1/logs` and `POST /otlp/v1/logs`.
pub async fn otlp(State(state): State<Shared>, request: Request) -> Response {
    let push = &state.push;
    let is_json = content_type(request.headers()) == "application/json";
    match otlp_stored(push, request, is_json).await {
        Ok(rejected) => {
            push.counters.refused_lines_total.fetch_add(rejected.as_ref().map_or(0, |(lines, _)| *lines), Relaxed);
            partial_success(is_json, rejected)
        }
        Err(refusal) => rpc_status(is_json, refused(push, refusal)),
    }
}

async fn otlp_stored(push: &Push, request: Request, is_json: bool) -> Result<otlp::Rejected, Refusal> {
    let kind = content_type(request.headers());
    if !is_json && kind != "application/x-protobuf" {
        let text = format!("Content-Type {kind:?} is not known: send application/x-protobuf or application/json");
        return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let coding = Coding::of(request.headers())?;
    let decode: Decode<otlp::Rejected> = if is_json { otlp::json } else { otlp::protobuf };
    accept(push, request, "otlp", coding, decode).await
}

fn typed(status: StatusCode, bytes: Vec<u8>) -> Response {
    let mut response = (status, bytes).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    response
}

/// `ExportLogsServiceResponse`.
fn partial_success(is_json: bool, rejected: otlp::Rejected) -> Response {
    match (is_json, rejected) {
        (true, None) => Json(json!({})).into_response(),
        (true, Some((lines, reason))) => {
            Json(json!({"partialSuccess": {"rejectedLogRecords": lines.to_string(), "errorMessage": reason}})).into_response()
        }
        (false, None) => typed(StatusCode::OK, Vec::new()),
        (false, Some((lines, reason))) => {
            let (mut inner, mut out) = (Vec::new(), Vec::new());
            protobuf::put_number(&mut inner, 1, lines);
            protobuf::put_bytes(&mut inner, 2, reason.as_bytes());
            protobuf::put_bytes(&mut out, 1, &inner);
            typed(StatusCode::OK, out)
        }
    }
}

/// `google.rpc.Status`.
fn rpc_status(is_json: bool, Refusal(status, message): Refusal) -> Response {
    // INVALID_ARGUMENT, UNAVAILABLE
    let code: u64 = if status.is_client_error() { 3 } else { 14 };
    let response = if is_json {
        (status, Json(json!({"code": code, "message": message}))).into_response()
    } else {
        let mut out = Vec::new();
        protobuf::put_number(&mut out, 1, code);
        protobuf::put_bytes(&mut out, 2, message.as_bytes());
        typed(status, out)
    };
    with_retry(status, response)
}
