//! `query`, `query_range`, `format_query`.

use super::{LokiError, expression, given, parameters, run, shapes};
use crate::api::Shared;
use axum::{
    Json,
    extract::{Request, State},
};
use serde_json::{Value, json};
use shipwatch_common::time::now_ns;
use shipwatch_logs::logql::{Instant as Found, RowsRequest, Times};
use shipwatch_series::http::Params;
use std::time::Instant;

/// Clients that send this get the labels of lines by where they come from.
const ENCODING_FLAGS: &str = "x-loki-response-encoding-flags";
const CATEGORIZE: &str = "categorize-labels";

fn wants_categories(request: &Request) -> bool {
    let flags = request.headers().get(ENCODING_FLAGS).and_then(|value| value.to_str().ok());
    flags.is_some_and(|flags| flags.split(',').any(|flag| flag.trim() == CATEGORIZE))
}

/// `/loki/api/v1/query`: numbers at one time.
///
/// # Errors
/// The query or a parameter is wrong, a bound is passed, it took too long.
pub async fn instant(State(state): State<Shared>, request: Request) -> Result<Json<Value>, LokiError> {
    run(state, request, |logs, parameters, patience| {
        let started = Instant::now();
        let query = expression(&parameters)?;
        let time_ns = parameters::instant(&parameters, now_ns())?;
        let (found, took) = logs.evaluate(&query, time_ns, patience)?;
        let (kind, result, count) = match found {
            Found::Scalar(value) => ("scalar", json!([shapes::seconds(time_ns), shapes::number(value)]), 1),
            Found::Vector(samples) => ("vector", shapes::vector(&samples, time_ns), samples.len()),
        };
        Ok(shapes::success(kind, result, shapes::stats(&took, started.elapsed(), count), &took, &[]))
    })
    .await
}

/// `/loki/api/v1/query_range`: lines, or numbers over time.
///
/// # Errors
/// As [`instant`].
pub async fn range(State(state): State<Shared>, request: Request) -> Result<Json<Value>, LokiError> {
    let categorized = wants_categories(&request);
    run(state, request, move |logs, parameters, patience| {
        let started = Instant::now();
        let query = expression(&parameters)?;
        let (start_ns, end_ns) = parameters::range(&parameters, now_ns(), parameters::HOUR_NS)?;
        if query.is_metric() {
            let step_ns = parameters::step(&parameters, start_ns, end_ns)?;
            let (series, took) = logs.metric(&query, &Times { start_ns, end_ns, step_ns }, patience)?;
            let stats = shapes::stats(&took, started.elapsed(), series.len());
            return Ok(shapes::success("matrix", shapes::matrix(&series), stats, &took, &[]));
        }
        let wanted = RowsRequest {
            start_ns,
            // An empty range is asked for as its first nanosecond.
            end_ns: end_ns.max(start_ns.saturating_add(1)),
            limit: parameters::limit(&parameters, None)?,
            direction: parameters::direction(&parameters)?,
            interval_ns: parameters::interval(&parameters)?,
        };
        let found = logs.rows(&query, &wanted, patience)?;
        let stats = shapes::stats(&found.stats, started.elapsed(), found.rows.len());
        let cut = if found.next.is_some() && found.rows.len() < wanted.limit {
            ["the lines are so long that there are fewer than asked for; ask again for a shorter range"].as_slice()
        } else {
            &[]
        };
        let mut body = shapes::success("streams", shapes::streams(found.rows, categorized), stats, &found.stats, cut);
        if categorized {
            body["data"]["encodingFlags"] = json!([CATEGORIZE]);
        }
        Ok(body)
    })
    .await
}

/// `/loki/api/v1/format_query`.
///
/// # Errors
/// The query is wrong.
pub async fn format(request: Request) -> Result<Json<Value>, LokiError> {
    let parameters = given(request).await?;
    let query = expression(&Params(&parameters))?;
    Ok(Json(json!({"status": "success", "data": query.to_string()})))
}
