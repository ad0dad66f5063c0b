//! Prometheus' own API over the series engine. The shapes are the engine's; here is only HTTP.

use super::{
    Shared,
    compress::{is_gzip, unpacked},
};
use axum::{
    Form, Json,
    body::Body,
    extract::{FromRequest as _, Path, Query, Request, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use shipwatch_common::time::now_ms;
use shipwatch_series::{
    Engine,
    http::{self, ApiError, Params, Reply},
    promql::EvalOptions,
    remote::Description,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Largest form body, also after unpacking.
const MAX_FORM_BYTES: usize = 1 << 20;

/// Parameters of the URL and, for POST, of the form, in this order.
pub(super) async fn parameters(request: Request) -> Result<Vec<(String, String)>, ApiError> {
    let wrong = |error: &dyn std::fmt::Display| ApiError::bad_data(format!("parameters cannot be read: {error}"));
    let Query(mut all) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()).map_err(|error| wrong(&error))?;
    let is_form = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    if is_form {
        let is_gzip = is_gzip(request.headers()).map_err(|error| wrong(&error))?;
        let mut body = axum::body::to_bytes(request.into_body(), MAX_FORM_BYTES).await.map_err(|error| wrong(&error))?;
        if is_gzip {
            let unpacked = tokio::task::spawn_blocking(move || unpacked(&body, MAX_FORM_BYTES)).await.map_err(|error| wrong(&error))?;
            body = unpacked.map_err(|error| wrong(&error))?.into();
        }
        let form = Request::post("/").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(Body::from(body));
        let form = form.map_err(|error| wrong(&error))?;
        let Form(form) = Form::<Vec<(String, String)>>::from_request(form, &()).await.map_err(|error| wrong(&error))?;
        all.extend(form);
    }
    Ok(all)
}

/// Tells a query that nobody waits for it any more: a client that disconnects drops the request, and this with it.
#[derive(Debug, Default)]
pub(super) struct CancelOnDrop(pub(super) Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a query off the async threads, with the configured time and the client's patience as its bounds.
async fn run(state: Shared, request: Request, work: impl FnOnce(&Engine, Params<'_>, &EvalOptions) -> Reply + Send + 'static) -> Response {
    let answer = match parameters(request).await {
        Err(error) => Reply::from(error),
        Ok(parameters) => {
            let options = EvalOptions { cache: Some(Arc::clone(&state.range_cache)), ..EvalOptions::new(state.series.config()) };
            let options = match Instant::now().checked_add(state.config.query_timeout) {
                Some(deadline) => options.until(deadline),
                None => options,
            };
            let cancel = CancelOnDrop::default();
            let options = options.canceled_by(Arc::clone(&cancel.0));
            let series = Arc::clone(&state.series);
            // The text of a large answer is written there as well: it takes longer than an async thread may be held.
            let written = move || {
                let answer = work(&series, Params(&parameters), &options);
                (answer.status(), answer.to_json())
            };
            match tokio::task::spawn_blocking(written).await {
                Ok((status, body)) => return json_body(status, body),
                Err(error) => Reply::from(ApiError { status: 500, error_type: "internal", message: error.to_string() }),
            }
        }
    };
    reply(answer)
}

fn json_body(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

pub(super) fn reply(answer: Reply) -> Response {
    json_body(answer.status(), answer.to_json())
}

/// `/api/v1/query`.
pub async fn query(State(state): State<Shared>, request: Request) -> Response {
    run(state, request, |series, parameters, options| http::query(series, parameters, now_ms(), options)).await
}

/// `/api/v1/query_range`.
pub async fn query_range(State(state): State<Shared>, request: Request) -> Response {
    run(state, request, |series, parameters, options| http::query_range(series, parameters, options)).await
}

/// `/api/v1/series`.
pub async fn series(State(state): State<Shared>, request: Request) -> Response {
    run(state, request, |series, parameters, _| http::series(series, parameters)).await
}

/// `/api/v1/labels`.
pub async fn labels(State(state): State<Shared>, request: Request) -> Response {
    run(state, request, |series, parameters, _| http::labels(series, parameters)).await
}

/// `/api/v1/label/{name}/values`.
pub async fn label_values(State(state): State<Shared>, Path(name): Path<String>, request: Request) -> Response {
    run(state, request, move |series, parameters, _| http::label_values(series, &name, parameters)).await
}

pub(super) fn success(data: Value) -> Json<Value> {
    Json(json!({"status": "success", "data": data}))
}

/// `/api/v1/metadata`: what senders of remote write told; agents send no help texts.
pub async fn metadata(State(state): State<Shared>, request: Request) -> Response {
    let parameters = match parameters(request).await {
        Ok(parameters) => parameters,
        Err(error) => return reply(Reply::from(error)),
    };
    let limit = match Params(&parameters).get("limit").map(str::parse::<usize>) {
        None => 0,
        Some(Ok(limit)) => limit,
        // Prometheus' own: a negative limit is none.
        Some(Err(_)) if Params(&parameters).get("limit").is_some_and(|text| text.parse::<i64>().is_ok()) => 0,
        Some(Err(_)) => return reply(Reply::from(ApiError::bad_data("limit must be a number"))),
    };
    let known = state.receive.metadata().list(Params(&parameters).get("metric"), limit);
    let entry = |(name, told): (String, Description)| (name, json!([{"type": told.kind, "help": told.help, "unit": told.unit}]));
    success(Value::Object(known.into_iter().map(entry).collect())).into_response()
}

/// `/api/v1/query_exemplars`: there are none.
pub async fn exemplars(request: Request) -> Response {
    about(request, http::query_exemplars).await
}

/// `/api/v1/format_query`.
pub async fn format_query(request: Request) -> Response {
    about(request, http::format_query).await
}

/// `/api/v1/parse_query`.
pub async fn parse_query(request: Request) -> Response {
    about(request, http::parse_query).await
}

/// `/api/v1/status/tsdb`.
pub async fn tsdb(State(state): State<Shared>, request: Request) -> Response {
    run(state, request, |series, parameters, _| http::status_tsdb(series, parameters, now_ms())).await
}

/// What only looks at the query.
async fn about(request: Request, work: impl FnOnce(Params<'_>) -> Reply) -> Response {
    reply(match parameters(request).await {
        Err(error) => Reply::from(error),
        Ok(parameters) => work(Params(&parameters)),
    })
}

/// `/api/v1/rules`.
pub async fn rules(State(state): State<Shared>) -> Json<Value> {
    success(state.alerting.prometheus_rules())
}

/// `/api/v1/alerts`.
pub async fn alerts(State(state): State<Shared>) -> Json<Value> {
    success(state.alerting.prometheus_alerts())
}

/// `/api/v1/status/buildinfo`: the version is that of the API which Grafana should expect.
pub async fn build_info() -> Json<Value> {
    success(json!({"version": "2.24.0", "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": ""}))
}

/// Anything else.
pub async fn not_found() -> Response {
    let body = json!({"status": "error", "errorType": "not_found", "error": "this part of Prometheus' API is not offered; docs/api.md lists what is"});
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    async fn read(encoding: &'static str, body: Vec<u8>) -> Result<Vec<(String, String)>, ApiError> {
        let request = Request::post("/api/v1/query?stats=1")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::CONTENT_ENCODING, encoding)
            .body(Body::from(body));
        parameters(request.unwrap()).await
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn forms_are_read_plain_and_in_gzip_up_to_a_bound() {
        // Longer than an address may be.
        let query = "a+%2B+".repeat(15_000) + "b";
        let expected = [("stats", "1"), ("query", &("a + ".repeat(15_000) + "b"))].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read("identity", format!("query={query}").into_bytes()).await.unwrap(), expected);
        assert_eq!(read("gzip", gzip(&format!("query={query}"))).await.unwrap(), expected);
        for (encoding, body, told) in [
            ("gzip", gzip(&"x".repeat(MAX_FORM_BYTES + 1)), "more than 1048576 bytes"),
            ("identity", vec![b'x'; MAX_FORM_BYTES + 1], "length limit exceeded"),
            ("gzip", b"query=up&time=1763884800".to_vec(), "invalid gzip header"),
            ("br", gzip("query=up"), "\"br\" is not known: send gzip or nothing"),
        ] {
            let error = read(encoding, body).await.unwrap_err();
            assert!(error.status == 400 && error.message.contains(told), "{error:?}");
        }
    }
}
