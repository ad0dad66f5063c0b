//! What there is: labels, streams, volumes, fields.

use super::{
    LokiError,
    parameters::{self, HOUR_NS},
    run, selector, shapes,
};
use crate::api::Shared;
use axum::{
    Json,
    extract::{Path, Request, State},
};
use serde_json::{Value, json};
use shipwatch_common::time::{UnixNs, now_ns};
use shipwatch_logs::{
    Engine, Patience, Query,
    logql::{Expression, Instant as Found, Sample, Times},
};
use shipwatch_series::http::Params;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// How far back labels and streams are looked for, when it is not said.
const LOOK_BACK_NS: i64 = 6 * HOUR_NS;
/// Series of a volume, when it is not said.
const VOLUMES: usize = 100;

fn success(data: impl serde::Serialize) -> Value {
    json!({"status": "success", "data": data})
}

/// The range as the engine takes it: with something in it.
fn range(parameters: &Params<'_>, otherwise_ns: i64) -> Result<(UnixNs, UnixNs), LokiError> {
    let (start, end) = parameters::range(parameters, now_ns(), otherwise_ns)?;
    Ok((start, end.max(start.saturating_add(1))))
}

/// `/loki/api/v1/labels`: whole days are looked at.
///
/// # Errors
/// A parameter is wrong, or the store fails.
pub async fn labels(State(state): State<Shared>, request: Request) -> Result<Json<Value>, LokiError> {
    run(state, request, |logs, parameters, _| {
        let (start, end) = range(&parameters, LOOK_BACK_NS)?;
        let Some(text) = parameters.get("query") else { return Ok(success(logs.labels(start, end)?)) };
        let streams = logs.streams(&selector(Some(text))?, start, end)?;
        Ok(success(streams.iter().flat_map(|labels| labels.iter().map(|(name, _)| name)).collect::<BTreeSet<_>>()))
    })
    .await
}

/// `/loki/api/v1/label/{name}/values`.
///
/// # Errors
/// As [`labels`].
pub async fn label_values(State(state): State<Shared>, Path(name): Path<String>, request: Request) -> Result<Json<Value>, LokiError> {
    run(state, request, move |logs, parameters, _| {
        let (start, end) = range(&parameters, LOOK_BACK_NS)?;
        let Some(text) = parameters.get("query") else { return Ok(success(logs.label_values(&name, start, end)?)) };
        let streams = logs.streams(&selector(Some(text))?, start, end)?;
        Ok(success(streams.iter().filter_map(|labels| labels.get(&name)).collect::<BTreeSet<_>>()))
    })
    .await
}

/// `/loki/api/v1/series`: streams of any of the selectors `match[]`.
///
/// # Errors
/// As [`labels`].
pub async fn series(State(state): State<Shared>, request: Request) -> Result<Json<Value>, LokiError> {
    run(state, request, |logs, parameters, _| {
        let (start, end) = range(&parameters, LOOK_BACK_NS)?;
        let given: Vec<&str> = parameters.all("match[]").chain(parameters.all("match")).filter(|text| !text.is_empty()).collect();
        let selectors = if given.is_empty() { vec!["{}"] } else { given };
        let mut found = BTreeSet::new();
        for text in selectors {
            found.extend(logs.streams(&selector(Some(text))?, start, end)?);
        }
        Ok(success(found.iter().map(|labels| json!(**labels)).collect::<Vec<_>>()))
    })
    .await
}

/// `/loki/api/v1/index/stats`.
///
/// # Errors
/// As [`labels`].
pub async fn stats(State(state): State<Shared>, request: Request) -> Result<Json<Value>, LokiError> {
    run(state, request, |logs, parameters, patience| {
        let (start, end) = range(&parameters, HOUR_NS)?;
        let found = logs.volume(&matchers(&parameters)?, start, end, patience)?;
        Ok(json!({"streams": found.streams, "chunks": found.blocks, "bytes": found.bytes, "entries": found.lines}))
    })
    .await
}

/// The selector of a query; what follows it does not matter here.
fn matchers(parameters: &Params<'_>) -> Result<Query, LokiError> {
    let text = parameters.get("query").unwrap_or("{}");
    match Expression::parse(text) {
        Ok(query) if !query.is_metric() => Ok(Query::of(query.matchers())),
        _ => selector(Some(text)),
    }
}

/// What volumes are told by.
#[derive(Debug)]
enum By {
    /// One for each combination of these.
    Series(Vec<String>),
    /// One for each name; nothing is every name.
    Names(Vec<String>),
}

fn by(parameters: &Params<'_>, query: &Query) -> Result<By, LokiError> {
    let targets = parameters.get("targetLabels").map(|text| text.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>());
    match parameters.get("aggregateBy") {
        None | Some("series") => {
            let matched =
                || query.matchers().iter().map(|matcher| matcher.name().to_owned()).collect::<BTreeSet<_>>().into_iter().collect();
            Ok(By::Series(targets.unwrap_or_else(matched)))
        }
        Some("labels") => Ok(By::Names(targets.unwrap_or_default())),
        Some(other) => Err(LokiError::bad_request(format!("invalid aggregateBy {other:?}; it is series or labels"))),
    }
}

/// `/loki/api/v1/index/volume`: bytes, the largest first.
///
/// # Errors
/// As [`labels`].
pub async fn volume(State(state): State<Shared>, request: Request) -> Result<Json<Value>, LokiError> {
    run(state, request, |logs, parameters, patience| {
        let started = Instant::now();
        let (start, end) = range(&parameters, HOUR_NS)?;
        let query = matchers(&parameters)?;
        let limit = parameters::limit(&parameters, Some(VOLUMES))?;
        let (expression, names) = match by(&parameters, &query)? {
            By::Series(names) => (Expression::volume(&query, Some(names), end - start), None),
            By::Names(names) => (Expression::volume(&query, None, end - start), Some(names)),
        };
        let (found, took) = logs.evaluate(&expression, end - 1, patience)?;
        let Found::Vector(samples) = found else { return Ok(success(Value::Null)) };
        let mut volumes: Vec<(Value, f64)> = match names {
            Some(wanted) => by_name(&samples, &wanted),
            None => {
                samples.into_iter().filter(|sample| !sample.labels.is_empty()).map(|sample| (json!(sample.labels), sample.value)).collect()
            }
        };
        // Of equal volumes, the order of labels stays.
        volumes.sort_by(|a, b| b.1.total_cmp(&a.1));
        volumes.truncate(limit);
        let stats = shapes::stats(&took, started.elapsed(), volumes.len());
        let one = |(metric, bytes): (Value, f64)| json!({"metric": metric, "value": [shapes::seconds(end), shapes::number(bytes)]});
        let result = volumes.into_iter().map(one).collect();
        Ok(shapes::success("vector", result, stats, &took, &[]))
    })
    .await
}

/// The volume of each label, of all streams that have it. As in Loki, the name stands with no value.
fn by_name(samples: &[Sample], wanted: &[String]) -> Vec<(Value, f64)> {
    let mut totals: BTreeMap<&str, f64> = BTreeMap::new();
    for sample in samples {
        for (name, _) in sample.labels.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|known| known == name)) {
            *totals.entry(name).or_default() += sample.value;
        }
    }
    totals.into_iter().map(|(name, bytes)| (json!({name: ""}), bytes)).collect()
}

/// `/loki/api/v1/index/volume_range`: bytes in each step.
///
/// # Errors
/// As [`labels`].
pub async fn volume_range(State(state): State<Shared>, request: Request) -> Result<Json<Value>, LokiError> {
    run(state, request, |logs, parameters, patience| {
        let started = Instant::now();
        let (start, end) = range(&parameters, HOUR_NS)?;
        let step_ns = parameters::step(&parameters, start, end)?;
        let limit = parameters::limit(&parameters, Some(VOLUMES))?;
        let query = matchers(&parameters)?;
        let By::Series(names) = by(&parameters, &query)? else {
            return Err(LokiError::bad_request("aggregateBy=labels is offered by index/volume only"));
        };
        let times = Times { start_ns: start.saturating_add(step_ns).min(end), end_ns: end, step_ns };
        let (mut series, took) = logs.metric(&Expression::volume(&query, Some(names), step_ns), &times, patience)?;
        let total = |points: &[(UnixNs, f64)]| points.iter().map(|(_, value)| value).sum::<f64>();
        series.sort_by(|a, b| total(&b.points).total_cmp(&total(&a.points)));
        series.truncate(limit);
        let stats = shapes::stats(&took, started.elapsed(), series.len());
        Ok(shapes::success("matrix", shapes::matrix(&series), stats, &took, &[]))
    })
    .await
}

/// `/loki/api/v1/detected_labels`: labels of streams with the number of their values.
///
/// # Errors
/// As [`labels`].
pub async fn detected_labels(State(state): State<Shared>, request: Request) -> Result<Json<Value>, LokiError> {
    run(state, request, |logs, parameters, _| {
        let (start, end) = range(&parameters, HOUR_NS)?;
        let streams = logs.streams(&matchers(&parameters)?, start, end)?;
        let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, value) in streams.iter().flat_map(|labels| labels.iter()) {
            values.entry(name).or_default().insert(value);
        }
        let labels: Vec<_> = values.iter().map(|(name, values)| json!({"label": name, "cardinality": values.len()})).collect();
        Ok(json!({"detectedLabels": labels}))
    })
    .await
}

/// `/loki/api/v1/detected_fields`: fields of the newest lines, by the parsers that find them.
///
/// # Errors
/// As [`labels`].
pub async fn detected_fields(State(state): State<Shared>, request: Request) -> Result<Json<Value>, LokiError> {
    run(state, request, |logs, parameters, patience| {
        let (start, end) = range(&parameters, HOUR_NS)?;
        let limit = parameters::limit(&parameters, Some(1_000))?;
        let query = super::expression(&parameters)?;
        let fields = fields(logs, &query, (start, end), patience)?;
        let shown = fields
            .iter()
            .take(limit)
            .map(|(name, field)| json!({"label": name, "type": field.kind(), "cardinality": field.values.len(), "parsers": field.parsers}));
        Ok(json!({"fields": shown.collect::<Vec<_>>(), "limit": limit}))
    })
    .await
}

/// Lines that are looked at for their fields.
const SAMPLED: usize = 1_000;

#[derive(Debug, Default)]
struct Field {
    parsers: BTreeSet<&'static str>,
    values: BTreeSet<String>,
}

impl Field {
    /// Of the values that were seen.
    fn kind(&self) -> &'static str {
        let all = |is: &dyn Fn(&str) -> bool| self.values.iter().all(|value| is(value));
        match () {
            () if all(&|value| value.parse::<i64>().is_ok()) => "int",
            () if all(&|value| value.parse::<f64>().is_ok()) => "float",
            () if all(&|value| matches!(value, "true" | "false")) => "boolean",
            () if all(&|value| shipwatch_logs::logql::parse_duration(value).is_some()) => "duration",
            () => "string",
        }
    }
}

fn fields(
    logs: &Engine,
    query: &Expression,
    (start_ns, end_ns): (UnixNs, UnixNs),
    patience: &Patience,
) -> Result<BTreeMap<String, Field>, LokiError> {
    let wanted = shipwatch_logs::logql::RowsRequest {
        start_ns,
        end_ns,
        limit: SAMPLED,
        direction: shipwatch_logs::Direction::Backward,
        interval_ns: 0,
    };
    let mut fields: BTreeMap<String, Field> = BTreeMap::new();
    for row in logs.rows(query, &wanted, patience)?.rows {
        let (parser, found) = row.fields();
        for (name, value) in found {
            let field = fields.entry(name).or_default();
            field.parsers.insert(parser);
            field.values.insert(value);
        }
    }
    Ok(fields)
}

/// `/loki/api/v1/patterns`: patterns are not looked for.
pub async fn patterns() -> Json<Value> {
    Json(success([(); 0]))
}

/// `/loki/api/v1/status/buildinfo`: the version is that of the API which Grafana should expect.
pub async fn build_info() -> Json<Value> {
    Json(json!({"version": "3.0.0", "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": ""}))
}
