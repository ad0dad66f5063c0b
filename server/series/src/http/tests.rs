//! Answers as text, errors by kind, bounds by key.

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
        (QUERY, "query=sum(", 400, "bad_data", "invalid parameter \"query\": parse error"),
        (QUERY, "query=up&time=yesterday", 400, "bad_data", "yesterday"),
        (QUERY, "query=up&limit=-1", 400, "bad_data", "limit"),
        (QUERY, "query=up&timeout=0", 503, "timeout", "raise `query_timeout`"),
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

#[test]
fn parameters_of_a_query_are_taken() {
    check(
        QUERY,
        "query=up{job='a'}&time=400&lookback_delta=10m",
        200,
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","job":"a"},"value":[400,"NaN"]}]}}"#,
    );
    check(QUERY, "query=up&time=400", 200, r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
    let reply = query(&source(), Params(&pairs("query=up[1h]&stats=all")), 60_000, &EvalOptions::default()).to_value();
    assert_eq!(reply["data"]["stats"]["samples"]["totalQueryableSamples"], 3);
    assert!(reply["data"]["stats"]["timings"]["execTotalTime"].is_f64());
    for wrong in ["0", "-5m", "x"] {
        let reply = query(&source(), Params(&pairs(&format!("query=up&lookback_delta={wrong}"))), 0, &EvalOptions::default());
        assert_eq!(reply.status(), 400, "{wrong}");
    }
    let taken = |given: &str| Params(&pairs(given)).options(&EvalOptions::default()).map(|options| options.summaries);
    assert_eq!((taken("summaries=false"), taken("summaries=true"), taken("")), (Ok(false), Ok(true), Ok(true)));
    let wrong = "invalid parameter \"summaries\": it must be true or false";
    assert_eq!(taken("summaries=maybe"), Err(ApiError::bad_data(wrong)));
}

#[test]
fn annotations_are_shown_but_not_all() {
    let reply = query(&source(), Params(&pairs("query=quantile(2,rate(up[1h]))")), 3_000_000, &EvalOptions::default()).to_value();
    assert_eq!(reply["warnings"][0], "PromQL warning: quantile value should be between 0 and 1, got 2");
    assert!(reply["infos"][0].as_str().unwrap().ends_with(": \"up\""), "{reply}");
    let quantiles: Vec<String> = (2..20).map(|q| format!("quantile({q},up)")).collect();
    let text = format!("query={}", quantiles.join(" or "));
    let reply = query(&source(), Params(&pairs(&text)), 0, &EvalOptions::default()).to_value();
    assert_eq!(reply["warnings"].as_array().map(Vec::len), Some(11));
    assert_eq!(reply["warnings"][10], "8 more warning annotations omitted");
}

#[test]
fn experimental_parts_need_their_key() {
    let answer = |experimental| {
        let options = EvalOptions { experimental, ..EvalOptions::default() };
        query(&source(), Params(&pairs("query=limitk(1,up)")), 0, &options).to_value()
    };
    assert_eq!(answer(true)["status"], "success");
    let refused = answer(false);
    assert_eq!(refused["errorType"], "bad_data");
    assert_eq!(refused["error"], "`limitk` is experimental: it works with `promql_experimental = true`");
}

#[test]
fn a_query_that_nobody_waits_for_ends() {
    let options = EvalOptions::default().canceled_by(Arc::new(true.into()));
    let reply = query(&source(), Params(&pairs("query=up")), 0, &options);
    let error = reply.error().cloned().unwrap();
    assert_eq!((error.status, error.error_type), (503, "canceled"));
    assert!(error.message.starts_with("query was canceled"), "{}", error.message);
}

/// Whoever waits goes away while series are read.
struct LeftAlone(MemSource, Arc<std::sync::atomic::AtomicBool>);

impl Source for LeftAlone {
    fn select(
        &self,
        matchers: &[Matcher],
        t0: UnixMs,
        t1: UnixMs,
        limits: &crate::source::SelectLimits,
    ) -> Result<Vec<crate::source::SeriesData>, crate::error::Error> {
        self.1.store(true, std::sync::atomic::Ordering::Relaxed);
        self.0.select(matchers, t0, t1, limits)
    }

    fn series(&self, any_of: &[Vec<Matcher>], t0: UnixMs, t1: UnixMs, limit: usize) -> Result<Vec<Arc<Labels>>, crate::error::Error> {
        self.0.series(any_of, t0, t1, limit)
    }
}

#[test]
fn a_query_ends_on_the_way_when_its_client_goes() {
    let flag = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let source = LeftAlone(source(), Arc::clone(&flag));
    let reply = query_range(&source, Params(&pairs("query=rate(up[5m])&start=0&end=60&step=1")), &EvalOptions::default().canceled_by(flag));
    assert_eq!(reply.error().map(|error| error.error_type), Some("canceled"));
}

#[test]
fn queries_are_formatted_and_taken_apart() {
    let format: Call = |_, params| format_query(params);
    check(format, "query=sum  by(job)(rate(x[5m]))", 200, r#"{"status":"success","data":"sum by (job) (rate(x[5m]))"}"#);
    check(format, "query=sum(", 400, &format(&source(), Params(&pairs("query=sum("))).to_value().to_string());
    let parsed = parse_query(Params(&pairs("query=-x{a!='b'}[5m:1m] offset 1m"))).to_value();
    assert_eq!(parsed["errorType"], "bad_data");
    let text = "query=topk(2, a * on(x) group_left(y) sum without(z) (rate(b{c=~'d'}[5m] @ 10 offset 1m)) > bool 1)";
    let tree = parse_query(Params(&pairs(text))).to_value()["data"].clone();
    let expected = serde_json::from_str(
        r#"{
        "type": "aggregation", "op": "topk", "grouping": [], "without": false,
        "param": {"type": "numberLiteral", "val": "2"},
        "expr": {
            "type": "binaryExpr", "op": ">", "bool": true, "matching": null,
            "rhs": {"type": "numberLiteral", "val": "1"},
            "lhs": {
                "type": "binaryExpr", "op": "*", "bool": false,
                "matching": {"card": "many-to-one", "labels": ["x"], "on": true, "include": ["y"]},
                "lhs": {
                    "type": "vectorSelector", "name": "a", "offset": 0, "timestamp": null, "startOrEnd": null,
                    "matchers": [{"name": "__name__", "type": "=", "value": "a"}]
                },
                "rhs": {
                    "type": "aggregation", "op": "sum", "param": null, "grouping": ["z"], "without": true,
                    "expr": {
                        "type": "call",
                        "func": {"name": "rate", "argTypes": ["matrix"], "variadic": 0, "returnType": "vector"},
                        "args": [{
                            "type": "matrixSelector", "name": "b", "range": 300000, "offset": 60000, "timestamp": 10000,
                            "startOrEnd": null,
                            "matchers": [{"name": "c", "type": "=~", "value": "d"}, {"name": "__name__", "type": "=", "value": "b"}]
                        }]
                    }
                }
            }
        }
    }"#,
    )
    .unwrap();
    assert_eq!(sorted(&tree), sorted(&expected));
}

/// Objects compare whatever the order of their keys.
fn sorted(value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(map) => {
            let mut all: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all.into_iter().collect()
        }
        serde_json::Value::Array(all) => all.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[test]
fn exemplars_are_none_but_errors_are_told() {
    let exemplars: Call = |_, params| query_exemplars(params);
    check(exemplars, "query=test&start=1700000000000&end=1700000300000", 200, r#"{"status":"success","data":[]}"#);
    assert_eq!(query_exemplars(Params(&pairs("query=x&start=5&end=1"))).status(), 400);
    assert_eq!(query_exemplars(Params(&pairs("query=sum("))).status(), 400);
}

#[test]
fn the_store_tells_where_its_series_come_from() {
    let status = status_tsdb(&source(), Params(&[]), 60_000).to_value()["data"].clone();
    assert_eq!(status["headStats"]["numSeries"], 2);
    assert_eq!(status["headStats"]["numLabelPairs"], 3);
    assert_eq!(status["seriesCountByMetricName"], serde_json::json!([{"name": "up", "value": 2}]));
    let one = status_tsdb(&source(), Params(&pairs("limit=1")), 60_000).to_value();
    assert_eq!(one["data"]["labelValueCountByLabelName"], serde_json::json!([{"name": "job", "value": 2}]));
    assert_eq!(one["data"]["seriesCountByLabelValuePair"], serde_json::json!([{"name": "__name__=up", "value": 2}]));
    for wrong in ["0", "10001", "x"] {
        assert_eq!(status_tsdb(&source(), Params(&pairs(&format!("limit={wrong}"))), 0).status(), 400, "{wrong}");
    }
}
