//! As much of Elasticsearch as its shippers ask for before they send: `_bulk`, who we are, and that templates and policies are well.
//!
//! Nothing of it is kept but the lines: there are no indices here. The name of an index becomes the label `index`.

use super::{Refusal, accept, refused};
use crate::{
    api::{Shared, body::Coding},
    push::bulk::{self, Item},
};
use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use std::{sync::atomic::Ordering::Relaxed, time::Instant};

/// The version that shippers are told; they send what it understands.
const VERSION: &str = "8.17.0";

fn product(mut response: Response) -> Response {
    response.headers_mut().insert(HeaderName::from_static("x-elastic-product"), HeaderValue::from_static("Elasticsearch"));
    response
}

fn answer(status: StatusCode, body: Value) -> Response {
    product((status, Json(body)).into_response())
}

/// `POST _bulk`.
pub async fn bulk(State(state): State<Shared>, request: Request) -> Response {
    stored(&state, String::new(), request).await
}

/// `POST {index}/_bulk`.
pub async fn bulk_to(State(state): State<Shared>, Path(index): Path<String>, request: Request) -> Response {
    stored(&state, index, request).await
}

async fn stored(state: &Shared, index: String, request: Request) -> Response {
    let (push, began) = (&state.push, Instant::now());
    let coding = match Coding::of(request.headers()) {
        Ok(coding) => coding,
        Err(refusal) => return error(refused(push, refusal)),
    };
    match accept(push, request, "elasticsearch", coding, move |body, into| bulk::read(body, &index, into)).await {
        Ok(items) => {
            let failed = items.iter().filter(|item| item.error.is_some()).count();
            push.counters.refused_lines_total.fetch_add(failed as u64, Relaxed);
            let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let shown: Vec<Value> = items.iter().enumerate().map(|(number, item)| told(number, item)).collect();
            answer(StatusCode::OK, json!({"took": took, "errors": failed > 0, "items": shown}))
        }
        Err(refusal) => error(refused(push, refusal)),
    }
}

fn told(number: usize, item: &Item) -> Value {
    let mut inner = json!({"_index": item.index, "_id": number.to_string(), "status": if item.error.is_some() { 400 } else { 201 }});
    match &item.error {
        Some((kind, reason)) => inner["error"] = json!({"type": kind, "reason": reason}),
        None => inner["result"] = json!("created"),
    }
    json!({item.action.as_str(): inner})
}

fn error(Refusal(status, reason): Refusal) -> Response {
    let kind = if status.is_server_error() { "es_rejected_execution_exception" } else { "illegal_argument_exception" };
    let cause = json!({"type": kind, "reason": reason});
    // Shippers try again after 429 and keep what they have; 503 makes some of them look for another node.
    let status = if status == StatusCode::SERVICE_UNAVAILABLE { StatusCode::TOO_MANY_REQUESTS } else { status };
    let body = json!({"error": {"root_cause": [cause.clone()], "type": kind, "reason": reason}, "status": status.as_u16()});
    answer(status, body)
}

/// `GET` and `HEAD` of the root.
pub async fn root() -> Response {
    answer(
        StatusCode::OK,
        json!({
            "name": "shipwatch", "cluster_name": "shipwatch", "cluster_uuid": "shipwatch",
            "version": {"number": VERSION, "build_flavor": "default", "build_type": "tar", "lucene_version": "9.12.0",
                "minimum_wire_compatibility_version": "7.17.0", "minimum_index_compatibility_version": "7.0.0"},
            "tagline": "You Know, for Search",
        }),
    )
}

/// Everything else that shippers ask for.
pub async fn other(method: Method, uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    let first = path.split('/').next().unwrap_or("");
    match (first, method) {
        ("_license", Method::GET) => {
            answer(StatusCode::OK, json!({"license": {"uid": "shipwatch", "type": "basic", "status": "active", "mode": "basic"}}))
        }
        ("_xpack", Method::GET) => answer(StatusCode::OK, json!({"features": {"ilm": {"available": true, "enabled": true}}})),
        ("_nodes", Method::GET) => answer(
            StatusCode::OK,
            json!({"_nodes": {"total": 1, "successful": 1, "failed": 0}, "cluster_name": "shipwatch",
                "nodes": {"shipwatch": {"name": "shipwatch", "version": VERSION, "roles": ["data", "ingest"]}}}),
        ),
        ("_cluster", Method::GET) => answer(StatusCode::OK, json!({"cluster_name": "shipwatch", "status": "green", "number_of_nodes": 1})),
        ("_index_template" | "_component_template" | "_template" | "_ilm" | "_ingest" | "_data_stream" | "_logstash", method) => {
            if matches!(method, Method::GET | Method::HEAD) {
                answer(StatusCode::OK, json!({}))
            } else {
                answer(StatusCode::OK, json!({"acknowledged": true}))
            }
        }
        // Whether an index or an alias is there: yes, whatever its name is.
        (_, Method::HEAD) => product(StatusCode::OK.into_response()),
        _ => {
            let reason = format!("/{path} is not supported: only lines can be sent here; search them in the dashboard or by /loki/api/v1");
            let cause = json!({"type": "illegal_argument_exception", "reason": reason});
            answer(
                StatusCode::NOT_FOUND,
                json!({"error": {"root_cause": [cause], "type": "illegal_argument_exception", "reason": reason}, "status": 404}),
            )
        }
    }
}
