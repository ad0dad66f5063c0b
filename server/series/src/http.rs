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
//! Routing, authentication, compression, and the endpoints that do not read series (`status/*`, `rules`, `alerts`).

use crate::{
    matcher::Matcher,
    promql::{self, EvalOptions, Output, Query, Value, parse_selector},
    source::{SeriesData, Source},
};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeSeq as _},
};
use shipwatch_common::{model::Labels, time::UnixMs};
use std::{sync::Arc, time::Duration};

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

    /// The options with the parameter `timeout`, counted from now.
    fn options(&self, options: &EvalOptions) -> Result<EvalOptions, ApiError> {
        let Some(text) = self.get("timeout") else { return Ok(*options) };
        let ms = parse_step(text).map_err(|error| invalid("timeout", &error))?;
        let timeout = Duration::from_millis(u64::try_from(ms).map_err(|_| invalid("timeout", "it must not be negative"))?);
        Ok(std::time::Instant::now().checked_add(timeout).map_or(*options, |deadline| options.until(deadline)))
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
}

#[derive(Clone, Debug)]
enum Data {
    Value { value: Value, time: UnixMs },
    Texts(Vec<String>),
    Series(Vec<Arc<Labels>>),
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

    fn of(answer: Result<(Data, Vec<String>), ApiError>) -> Self {
        Self(answer.map(|(data, warnings)| Success { data, warnings }))
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        Self(Err(error))
    }
}

/// `/api/v1/query`: `query`, `time`, `timeout`, `limit`. `now_ms` is the time when none is given.
#[must_use]
pub fn query(source: &dyn Source, params: Params<'_>, now_ms: UnixMs, options: &EvalOptions) -> Reply {
    let answer = || {
        let time = params.time("time", now_ms)?;
        let limit = params.limit()?;
        let options = params.options(options)?;
        let output = Query::parse(params.required("query")?)?.instant(source, time, &options)?;
        Ok(limited(output, time, limit))
    };
    Reply::of(answer())
}

/// `/api/v1/query_range`: `query`, `start`, `end`, `step`, `timeout`, `limit`.
#[must_use]
pub fn query_range(source: &dyn Source, params: Params<'_>, options: &EvalOptions) -> Reply {
    let answer = || {
        let (start, end) = (params.required_time("start")?, params.required_time("end")?);
        let step = parse_step(params.required("step")?).map_err(|error| invalid("step", &error))?;
        let limit = params.limit()?;
        let options = params.options(options)?;
        let output = Query::parse(params.required("query")?)?.range(source, start, end, step, &options)?;
        Ok(limited(output, end, limit))
    };
    Reply::of(answer())
}

fn limited(output: Output, time: UnixMs, limit: usize) -> (Data, Vec<String>) {
    let Output { mut value, mut warnings } = output;
    let length = match &value {
        Value::Vector(elements) => elements.len(),
        Value::Matrix(series) => series.len(),
        Value::Scalar(_) | Value::String(_) => 0,
    };
    if limit > 0 && length > limit {
        match &mut value {
            Value::Vector(elements) => elements.truncate(limit),
            Value::Matrix(series) => series.truncate(limit),
            Value::Scalar(_) | Value::String(_) => {}
        }
        warnings.push(TRUNCATED.to_owned());
    }
    (Data::Value { value, time }, warnings)
}

const TRUNCATED: &str = "results truncated due to limit";

/// One more than the limit is asked for, to know whether something was left out.
fn truncated<T>(mut all: Vec<T>, limit: usize) -> (Vec<T>, Vec<String>) {
    if limit > 0 && all.len() > limit {
        all.truncate(limit);
        return (all, vec![TRUNCATED.to_owned()]);
    }
    (all, Vec::new())
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
        let (found, warnings) = truncated(source.series(&any_of, start, end, one_more(limit))?, limit);
        Ok((Data::Series(found), warnings))
    };
    Reply::of(answer())
}

/// `/api/v1/labels`: `match[]`, `start`, `end`, `limit`.
#[must_use]
pub fn labels(source: &dyn Source, params: Params<'_>) -> Reply {
    let answer = || {
        let (start, end, limit) = (params.time("start", i64::MIN)?, params.time("end", i64::MAX)?, params.limit()?);
        let (found, warnings) = truncated(source.label_names(&params.selectors()?, start, end, one_more(limit))?, limit);
        Ok((Data::Texts(found), warnings))
    };
    Reply::of(answer())
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
        let (found, warnings) = truncated(source.label_values(&name, &params.selectors()?, start, end, one_more(limit))?, limit);
        Ok((Data::Texts(found), warnings))
    };
    Reply::of(answer())
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

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        match &self.0 {
            Ok(success) => {
                map.serialize_entry("status", "success")?;
                map.serialize_entry("data", &success.data)?;
                if !success.warnings.is_empty() {
                    map.serialize_entry("warnings", &success.warnings)?;
                }
            }
            Err(error) => {
                map.serialize_entry("status", "error")?;
                map.serialize_entry("errorType", error.error_type)?;
                map.serialize_entry("error", &error.message)?;
            }
        }
        map.end()
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let (value, time) = match self {
            Self::Texts(texts) => return texts.serialize(to),
            Self::Series(series) => return to.collect_seq(series.iter().map(|labels| &**labels)),
            Self::Value { value, time } => (value, *time),
        };
        let mut map = to.serialize_map(Some(2))?;
        match value {
            Value::Scalar(number) => {
                map.serialize_entry("resultType", "scalar")?;
                map.serialize_entry("result", &Point(time, *number))?;
            }
            Value::String(text) => {
                map.serialize_entry("resultType", "string")?;
                map.serialize_entry("result", &(Seconds(time), text))?;
            }
            Value::Vector(elements) => {
                map.serialize_entry("resultType", "vector")?;
                let elements = elements.iter().map(|e| Labelled { labels: &e.labels, key: "value", content: Point(time, e.value) });
                map.serialize_entry("result", &Seq(elements))?;
            }
            Value::Matrix(series) => {
                map.serialize_entry("resultType", "matrix")?;
                let series = series.iter().map(|one| Labelled { labels: &one.labels, key: "values", content: Points(one) });
                map.serialize_entry("result", &Seq(series))?;
            }
        }
        map.end()
    }
}

/// An iterator as a list.
struct Seq<I>(I);

impl<I: Iterator<Item: Serialize> + Clone> Serialize for Seq<I> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.clone())
    }
}

struct Labelled<'a, T> {
    labels: &'a Labels,
    key: &'static str,
    content: T,
}

impl<T: Serialize> Serialize for Labelled<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(2))?;
        map.serialize_entry("metric", self.labels)?;
        map.serialize_entry(self.key, &self.content)?;
        map.end()
    }
}

struct Points<'a>(&'a SeriesData);

impl Serialize for Points<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut seq = to.serialize_seq(Some(self.0.ts.len()))?;
        for (ts, value) in self.0.ts.iter().zip(&self.0.values) {
            seq.serialize_element(&Point(*ts, *value))?;
        }
        seq.end()
    }
}

struct Point(UnixMs, f64);

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (Seconds(self.0), format_value(self.1)).serialize(to)
    }
}

/// A whole number where there is no fraction.
struct Seconds(UnixMs);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 % 1_000 == 0 { to.serialize_i64(self.0 / 1_000) } else { to.serialize_f64(self.0 as f64 / 1_000.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemSource;
    use shipwatch_common::model::Sample;

    fn source() -> MemSource {
        let mut source = MemSource::new();
        for (job, at, value) in [("a", 0, 1.5), ("a", 60_000, f64::NAN), ("b", 0, f64::INFINITY), ("b", 60_500, -2.0)] {
            let labels = Arc::new(Labels::new([("__name__", "up"), ("job", job)]).unwrap());
            source.push(Sample { labels, ts_ms: at, value });
        }
        source
    }

    fn pairs(text: &str) -> Vec<(String, String)> {
        text.split('&').filter_map(|pair| pair.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    type Call = fn(&dyn Source, Params<'_>) -> Reply;

    const QUERY: Call = |source, params| query(source, params, 60_000, &EvalOptions::default());
    const RANGE: Call = |source, params| query_range(source, params, &EvalOptions::default());

    #[track_caller]
    fn check(call: Call, params: &str, status: u16, body: &str) {
        let reply = call(&source(), Params(&pairs(params)));
        assert_eq!((reply.status(), serde_json::to_string(&reply).unwrap().as_str()), (status, body), "{params}");
    }

    #[test]
    fn answers_have_the_shape_that_grafana_reads() {
        check(QUERY, "query=1+1&time=4", 200, r#"{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}"#);
        check(QUERY, "query='x'&time=4.5", 200, r#"{"status":"success","data":{"resultType":"string","result":[4.5,"x"]}}"#);
        check(
            QUERY,
            "query=up",
            200,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a"},"value":[60,"NaN"]},{"metric":{"__name__":"up","job":"b"},"value":[60,"+Inf"]}]}}"#,
        );
        check(QUERY, "query=none", 200, r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
        check(
            QUERY,
            "query=up{job='b'}[2m]&time=1970-01-01T00:01:01Z",
            200,
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up","job":"b"},"values":[[0,"+Inf"],[60.5,"-2"]]}]}}"#,
        );
        check(
            RANGE,
            "query=sum(up{job='a'})&start=0&end=60&step=30",
            200,
            r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[0,"1.5"],[30,"1.5"],[60,"NaN"]]}]}}"#,
        );
        check(
            QUERY,
            "query=up&limit=1",
            200,
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a"},"value":[60,"NaN"]}]},"warnings":["results truncated due to limit"]}"#,
        );
    }

    #[test]
    fn metadata_answers() {
        let labels: Call = |source, params| labels(source, params);
        let jobs: Call = |source, params| label_values(source, "job", params);
        let escaped: Call = |source, params| label_values(source, "U__j_6f_b", params);
        check(labels, "", 200, r#"{"status":"success","data":["__name__","job"]}"#);
        check(labels, "match[]=none", 200, r#"{"status":"success","data":[]}"#);
        check(jobs, "match[]=up&start=0&end=1&limit=40000", 200, r#"{"status":"success","data":["a","b"]}"#);
        check(escaped, "limit=1", 200, r#"{"status":"success","data":["a"],"warnings":["results truncated due to limit"]}"#);
        check(
            series,
            "match[]={__name__!=\"\"}&match[]=up{job='a'}&limit=2",
            200,
            r#"{"status":"success","data":[{"__name__":"up","job":"a"},{"__name__":"up","job":"b"}]}"#,
        );
        check(series, "", 400, r#"{"status":"error","errorType":"bad_data","error":"no match[] parameter provided"}"#);
    }

    #[test]
    fn errors_have_prometheus_kinds() {
        for (call, params, status, kind, text) in [
            (QUERY, "", 400, "bad_data", "\"query\""),
            (QUERY, "query=sum(", 400, "bad_data", "invalid query"),
            (QUERY, "query=up&time=yesterday", 400, "bad_data", "yesterday"),
            (QUERY, "query=up&limit=-1", 400, "bad_data", "limit"),
            (QUERY, "query=up&timeout=0", 503, "timeout", "time limit"),
            (QUERY, "query=up&timeout=-1", 400, "bad_data", "timeout"),
            (QUERY, "query={__name__=~'up',job=~'.%2B'} %2B on() up", 400, "bad_data", "invalid"),
            (QUERY, "query=up / on() up", 422, "execution", "many-to-many"),
            (RANGE, "query=up&start=0&end=10", 400, "bad_data", "\"step\""),
            (RANGE, "query=up&start=0&end=10&step=0", 400, "bad_data", "zero or negative"),
            (RANGE, "query=up&start=10&end=0&step=1", 400, "bad_data", "end timestamp"),
            (RANGE, "query=up&start=0&end=11001&step=1", 400, "bad_data", "11000 points"),
            (RANGE, "query=up[5m]&start=0&end=1&step=1", 400, "bad_data", "range vector"),
            (RANGE, "query='x'&start=0&end=1&step=1", 400, "bad_data", "\"string\""),
        ] {
            let reply = call(&source(), Params(&pairs(params)));
            let error = reply.error().cloned().unwrap_or_else(|| panic!("{params}: no error"));
            assert_eq!((error.status, error.error_type), (status, kind), "{params}: {}", error.message);
            assert!(error.message.contains(text), "{params}: {}", error.message);
            assert_eq!(reply.to_value()["errorType"], kind);
        }
    }

    #[test]
    fn bounds_name_their_key() {
        for (options, key) in [
            (EvalOptions { max_samples: 2, ..EvalOptions::default() }, "query_max_samples"),
            (EvalOptions { max_series: 1, ..EvalOptions::default() }, "query_max_series"),
        ] {
            let error = query(&source(), Params(&pairs("query=up[5m]")), 60_000, &options);
            let error = error.error().cloned().unwrap();
            assert_eq!(error.status, 422);
            assert!(error.message.contains(key), "{}", error.message);
        }
        let options = EvalOptions { max_samples: 1_000, ..EvalOptions::default() };
        let error = query(&source(), Params(&pairs("query=max_over_time(vector(1)[1000d:1s])")), 0, &options);
        assert_eq!(error.error().map(|error| error.status), Some(422));
    }

    #[test]
    fn values_are_written_without_exponents() {
        for (value, text) in [
            (1e21, "1000000000000000000000"),
            (1e-7, "0.0000001"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (f64::NEG_INFINITY, "-Inf"),
            (123_456_789.125, "123456789.125"),
        ] {
            assert_eq!(format_value(value), text);
        }
    }

    #[test]
    fn escaped_names_are_read() {
        for (escaped, name) in [("job", "job"), ("U__my_2e_na__me", "my.na_me"), ("U__bad_zz_", "U__bad_zz_"), ("U__x_1", "U__x_1")] {
            assert_eq!(unescape_name(escaped), name);
        }
    }
}
