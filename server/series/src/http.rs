//! Prometheus' HTTP API without a web framework: from decoded parameters to the value of the JSON body.
//!
//! The caller decodes the query string or the form into pairs, calls a function, and answers with [`Reply::status`] and the
//! reply as JSON; [`Reply`] serialises without building a tree of values, since answers have millions of points.
//!
//! # Invariants
//! - Bodies have Prometheus' shape: `status`, then `data` with `resultType` before `result`, or `errorType` and `error`.
//! - Values are texts (`"NaN"`, `"+Inf"`, `"1.5"`), times are numbers of seconds.
//! - POST and GET give the same: only pairs come in here.
//!
//! # Left out
//! Routing, authentication, compression, and the endpoints that do not read series (`rules`, `alerts`, the rest of `status`).

mod body;
mod exchange;
mod tools;

pub use exchange::{ExportError, export, federate};
pub use tools::{format_query, parse_query, query_exemplars, status_tsdb};

use crate::{
    matcher::Matcher,
    promql::{self, EvalOptions, Output, Query, Value, parse_selector},
    source::Source,
};
use shipwatch_common::{model::Labels, time::UnixMs};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub use crate::promql::{
    format_value,
    time::{parse_step, parse_time},
};

/// Decoded parameters, in order; names may repeat (`match[]`).
#[derive(Clone, Copy, Debug)]
pub struct Params<'a>(pub &'a [(String, String)]);

impl<'a> Params<'a> {
    /// The first value of a parameter; an empty one is as if it were not given.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    fn required(&self, name: &str) -> Result<&'a str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::bad_data(format!("invalid parameter \"{name}\": it is missing")))
    }

    fn time(&self, name: &str, otherwise: UnixMs) -> Result<UnixMs, ApiError> {
        self.get(name).map_or(Ok(otherwise), |text| parse_time(text).map_err(|error| invalid(name, &error)))
    }

    fn required_time(&self, name: &str) -> Result<UnixMs, ApiError> {
        parse_time(self.required(name)?).map_err(|error| invalid(name, &error))
    }

    fn limit(&self) -> Result<usize, ApiError> {
        let wrong = |_| invalid("limit", "limit must be a whole number from 0 up");
        self.get("limit").map_or(Ok(0), |text| text.parse().map_err(wrong))
    }

    fn selectors(&self) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let read = |text| parse_selector(text).map_err(|error| invalid("match[]", &error.to_string()));
        self.all("match[]").map(read).collect()
    }

    /// The options with the parameters `timeout`, counted from now, `lookback_delta` and `summaries`.
    fn options(&self, options: &EvalOptions) -> Result<EvalOptions, ApiError> {
        let mut options = options.clone();
        if let Some(text) = self.get("summaries") {
            options.summaries = text.parse().map_err(|_| invalid("summaries", "it must be true or false"))?;
        }
        if let Some(text) = self.get("lookback_delta") {
            let ms = parse_step(text).map_err(|error| invalid("lookback_delta", &error))?;
            let ms = u64::try_from(ms).ok().filter(|ms| *ms > 0).ok_or_else(|| invalid("lookback_delta", "it must be positive"))?;
            options.lookback = Duration::from_millis(ms);
        }
        let Some(text) = self.get("timeout") else { return Ok(options) };
        let ms = parse_step(text).map_err(|error| invalid("timeout", &error))?;
        let timeout = Duration::from_millis(u64::try_from(ms).map_err(|_| invalid("timeout", "it must not be negative"))?);
        Ok(match Instant::now().checked_add(timeout) {
            Some(deadline) => options.until(deadline),
            None => options,
        })
    }

    /// The parameter `query`, parsed.
    fn query(&self) -> Result<Query, ApiError> {
        Query::parse(self.get("query").unwrap_or("")).map_err(|error| invalid("query", &error.to_string()))
    }
}

fn invalid(name: &str, reason: &str) -> ApiError {
    ApiError::bad_data(format!("invalid parameter \"{name}\": {reason}"))
}

/// An error in Prometheus' words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// Prometheus' `errorType`.
    pub error_type: &'static str,
    /// What is wrong.
    pub message: String,
}

impl ApiError {
    /// A wrong parameter or query: 400.
    #[must_use]
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self { status: 400, error_type: "bad_data", message: message.into() }
    }
}

impl From<promql::Error> for ApiError {
    fn from(error: promql::Error) -> Self {
        let (status, error_type) = match &error {
            promql::Error::BadData(_) => (400, "bad_data"),
            promql::Error::Execution(_) => (422, "execution"),
            promql::Error::Timeout => (503, "timeout"),
            promql::Error::Canceled => (503, "canceled"),
            promql::Error::Source(_) => (500, "internal"),
        };
        Self { status, error_type, message: error.to_string() }
    }
}

impl From<crate::error::Error> for ApiError {
    fn from(error: crate::error::Error) -> Self {
        promql::Error::from(error).into()
    }
}

/// An answer: serialise it as the body of the response.
#[derive(Clone, Debug)]
pub struct Reply(Result<Success, ApiError>);

#[derive(Clone, Debug)]
struct Success {
    data: Data,
    warnings: Vec<String>,
    infos: Vec<String>,
}

#[derive(Clone, Debug)]
enum Data {
    Value { value: Value, time: UnixMs, stats: Option<Stats> },
    Texts(Vec<String>),
    Series(Vec<Arc<Labels>>),
    Json(serde_json::Value),
}

/// What a query took.
#[derive(Clone, Copy, Debug)]
struct Stats {
    took: Duration,
    samples: u64,
}

impl From<Data> for Success {
    fn from(data: Data) -> Self {
        Self { data, warnings: Vec::new(), infos: Vec::new() }
    }
}

impl Reply {
    /// HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.as_ref().map_or_else(|error| error.status, |_| 200)
    }

    /// The error, if it is one.
    #[must_use]
    pub fn error(&self) -> Option<&ApiError> {
        self.0.as_ref().err()
    }

    /// As a tree of values; for answers that are known to be small.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        Self(Err(error))
    }
}

/// `/api/v1/query`: `query`, `time`, `timeout`, `limit`, `lookback_delta`, `stats`. `now_ms` is the time when none is given.
#[must_use]
pub fn query(source: &dyn Source, params: Params<'_>, now_ms: UnixMs, options: &EvalOptions) -> Reply {
    let answer = || {
        let started = Instant::now();
        let time = params.time("time", now_ms)?;
        let options = params.options(options)?;
        let output = params.query()?.instant(source, time, &options)?;
        evaluated(params, output, time, started)
    };
    Reply(answer())
}

/// `/api/v1/query_range`: `query`, `start`, `end`, `step`, `timeout`, `limit`, `lookback_delta`, `stats`, `nocache`.
#[must_use]
pub fn query_range(source: &dyn Source, params: Params<'_>, options: &EvalOptions) -> Reply {
    let answer = || {
        let started = Instant::now();
        let (start, end) = (params.required_time("start")?, params.required_time("end")?);
        let step = parse_step(params.required("step")?).map_err(|error| invalid("step", &error))?;
        let mut options = params.options(options)?;
        if params.get("nocache").is_some_and(|text| text != "0" && text != "false") {
            options.cache = None;
        }
        let output = params.query()?.range(source, start, end, step, &options)?;
        evaluated(params, output, end, started)
    };
    Reply(answer())
}

/// Most warnings, and infos, that an answer shows.
const MAX_ANNOTATIONS: usize = 10;

fn evaluated(params: Params<'_>, output: Output, time: UnixMs, started: Instant) -> Result<Success, ApiError> {
    let Output { mut value, warnings, infos, samples } = output;
    let limit = params.limit()?;
    let length = match &value {
        Value::Vector(elements) => elements.len(),
        Value::Matrix(series) => series.len(),
        Value::Scalar(_) | Value::String(_) => 0,
    };
    let mut warnings = first_ones(warnings, "warning");
    if limit > 0 && length > limit {
        match &mut value {
            Value::Vector(elements) => elements.truncate(limit),
            Value::Matrix(series) => series.truncate(limit),
            Value::Scalar(_) | Value::String(_) => {}
        }
        warnings.push(TRUNCATED.to_owned());
    }
    let stats = params.get("stats").map(|_| Stats { took: started.elapsed(), samples });
    Ok(Success { data: Data::Value { value, time, stats }, warnings, infos: first_ones(infos, "info") })
}

fn first_ones(mut annotations: Vec<String>, kind: &str) -> Vec<String> {
    let omitted = annotations.len().saturating_sub(MAX_ANNOTATIONS);
    if omitted > 0 {
        annotations.truncate(MAX_ANNOTATIONS);
        annotations.push(format!("{omitted} more {kind} annotations omitted"));
    }
    annotations
}

const TRUNCATED: &str = "results truncated due to limit";

/// One more than the limit is asked for, to know whether something was left out.
fn truncated<T>(mut all: Vec<T>, limit: usize, data: impl FnOnce(Vec<T>) -> Data) -> Success {
    let is_over = limit > 0 && all.len() > limit;
    if is_over {
        all.truncate(limit);
    }
    let warnings = if is_over { vec![TRUNCATED.to_owned()] } else { Vec::new() };
    Success { data: data(all), warnings, infos: Vec::new() }
}

const fn one_more(limit: usize) -> usize {
    if limit == 0 { 0 } else { limit.saturating_add(1) }
}

/// `/api/v1/series`: `match[]` (at least one), `start`, `end`, `limit`.
#[must_use]
pub fn series(source: &dyn Source, params: Params<'_>) -> Reply {
    let answer = || {
        let any_of = params.selectors()?;
        if any_of.is_empty() {
            return Err(ApiError::bad_data("no match[] parameter provided"));
        }
        let (start, end, limit) = (params.time("start", i64::MIN)?, params.time("end", i64::MAX)?, params.limit()?);
        Ok(truncated(source.series(&any_of, start, end, one_more(limit))?, limit, Data::Series))
    };
    Reply(answer())
}

/// `/api/v1/labels`: `match[]`, `start`, `end`, `limit`.
#[must_use]
pub fn labels(source: &dyn Source, params: Params<'_>) -> Reply {
    let answer = || {
        let (start, end, limit) = (params.time("start", i64::MIN)?, params.time("end", i64::MAX)?, params.limit()?);
        Ok(truncated(source.label_names(&params.selectors()?, start, end, one_more(limit))?, limit, Data::Texts))
    };
    Reply(answer())
}

/// `/api/v1/label/<name>/values`: `match[]`, `start`, `end`, `limit`. `name` as in the path, `U__` escapes included.
#[must_use]
pub fn label_values(source: &dyn Source, name: &str, params: Params<'_>) -> Reply {
    let answer = || {
        let name = unescape_name(name);
        if name.is_empty() {
            return Err(ApiError::bad_data("invalid label name: it is empty"));
        }
        let (start, end, limit) = (params.time("start", i64::MIN)?, params.time("end", i64::MAX)?, params.limit()?);
        let found = source.label_values(&name, &params.selectors()?, start, end, one_more(limit))?;
        Ok(truncated(found, limit, Data::Texts))
    };
    Reply(answer())
}

/// `U__my_2e_name` is `my.name` (a code point in hexadecimal between underscores, `__` for one); other names are as they are.
fn unescape_name(name: &str) -> String {
    let unescape = |escaped: &str| {
        let mut out = String::with_capacity(escaped.len());
        let mut rest = escaped;
        while let Some((plain, tail)) = rest.split_once('_') {
            out.push_str(plain);
            if let Some(after) = tail.strip_prefix('_') {
                out.push('_');
                rest = after;
            } else {
                let (code, after) = tail.split_once('_')?;
                out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
                rest = after;
            }
        }
        out.push_str(rest);
        Some(out)
    };
    name.strip_prefix("U__").and_then(unescape).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests;
