//! Whatever text comes in as a query: an answer or an error, within the bounds, without a panic.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use proptest::prelude::*;
use shipwatch_common::model::{Labels, Sample};
use shipwatch_series::{
    MemSource,
    promql::{EvalOptions, Query, eval_instant, eval_range, parse_selector},
};
use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// The bound on what a query may compute; 16 bytes each.
const MAX_SAMPLES: u64 = 200_000;

fn source() -> &'static MemSource {
    static SOURCE: OnceLock<MemSource> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let mut source = MemSource::new();
        for (name, job) in [("up", "a"), ("up", "b"), ("x_total", "a"), ("h_bucket", "a"), ("target_info", "a")] {
            let labels = Arc::new(Labels::new([("__name__", name), ("job", job), ("le", "+Inf"), ("instance", "i")]).unwrap());
            source.extend((0..40).map(|n| Sample { labels: labels.clone(), ts_ms: n * 15_000, value: (n * n % 17) as f64 }));
        }
        source
    })
}

/// Parses and evaluates; only whether it comes back matters.
fn try_all(text: &str) {
    let options = EvalOptions { experimental: true, max_samples: MAX_SAMPLES, ..EvalOptions::default() };
    let options = options.until(Instant::now() + Duration::from_secs(20));
    if let Ok(query) = Query::parse(text) {
        let _ = query.pretty();
        let _ = shipwatch_series::promql::tree::tree(&query);
        let _ = query.experimental();
    }
    let _ = parse_selector(text);
    let _ = eval_instant(source(), text, 300_000, &options);
    let _ = eval_range(source(), text, 0, 600_000, 30_000, &options);
}

/// Texts of the grammar, mostly of the right types.
fn query() -> impl Strategy<Value = String> {
    let selector = prop::sample::select(vec![
        "up",
        "x_total",
        "h_bucket",
        "{job=\"a\"}",
        "up{job=~\"a|b\"} offset -1m",
        "up @ end()",
        "{\"up\"}",
        "target_info",
        "none",
    ]);
    let number =
        prop::sample::select(vec!["0", "-1", "1e308", "NaN", "Inf", "-Inf", "0x7fffffffffffffff", "9e18", "-9.3e18", "time()", "1e-308"]);
    let leaf = prop_oneof![3 => selector.prop_map(str::to_owned), 1 => number.prop_map(str::to_owned)];
    leaf.prop_recursive(6, 64, 3, |inner| {
        let of_vector = prop::sample::select(vec![
            "sum",
            "avg",
            "stddev",
            "count",
            "abs",
            "ceil",
            "exp",
            "ln",
            "sgn",
            "absent",
            "scalar",
            "sort",
            "timestamp",
            "vector",
            "year",
            "days_in_month",
            "round",
            "histogram_avg",
            "info",
            "sum by (job)",
            "max without (instance)",
            "group by (__name__)",
            "-",
            "+",
        ]);
        let of_number = prop::sample::select(vec![
            "topk",
            "bottomk",
            "quantile",
            "limitk",
            "limit_ratio",
            "histogram_quantile",
            "count_values",
            "clamp_min",
            "round",
            "max_of",
        ]);
        let of_range = prop::sample::select(vec![
            "rate",
            "irate",
            "increase",
            "delta",
            "deriv",
            "resets",
            "changes",
            "avg_over_time",
            "stddev_over_time",
            "mad_over_time",
            "last_over_time",
            "absent_over_time",
            "ts_of_max_over_time",
        ]);
        let range = prop::sample::select(vec![
            "5m",
            "1ms",
            "1000y",
            "10m:1m",
            "1000y:1ms",
            "1h:",
            "9e9",
            "0s",
            "5m:5m] offset -999y @ start(",
            "2m]@ 1e15 offset 1",
        ]);
        let op = prop::sample::select(vec![
            "+",
            "-",
            "*",
            "/",
            "%",
            "^",
            "atan2",
            "==",
            "> bool",
            "<",
            "and",
            "or",
            "unless",
            "* on(job)",
            "/ ignoring(le)",
            "+ on() group_left",
            "- on(job) group_right(le)",
            "+ fill(1)",
            "+ on(job) group_left fill_left(NaN) fill_right(0)",
            "and on()",
        ]);
        prop_oneof![
            (of_vector, inner.clone()).prop_map(|(f, v)| format!("{f}({v})")),
            (of_number, inner.clone(), inner.clone()).prop_map(|(f, a, b)| format!("{f}({a}, {b})")),
            (of_range, inner.clone(), range).prop_map(|(f, v, r)| format!("{f}({v}[{r}])")),
            (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("({a}) {op} ({b})")),
            inner.clone().prop_map(|v| format!("label_replace({v}, \"job\", \"$1$1$1$1\", \"job\", \"(.*)\")")),
            inner.clone().prop_map(|v| format!("label_join({v}, \"job\", \"job\", \"job\", \"instance\", \"job\")")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("double_exponential_smoothing({a}[5m:1m], {b}, 0.5)")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("histogram_quantiles({a}, \"q\", {b}, 0.5)")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("predict_linear({a}[5m:1m], {b})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        try_all(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_characters_never_panic(text in "[a-z0-9(){}\\[\\]\"'`,:@.+*/^%=!~<>#\\\\ \n-]{0,80}") {
        try_all(&text);
    }

    #[test]
    fn random_queries_end_within_their_bounds(text in query()) {
        try_all(&text);
    }

    #[test]
    fn lost_characters_never_panic(text in query(), at in any::<prop::sample::Index>(), other in any::<char>()) {
        let mut chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        chars[at] = other;
        try_all(&chars.iter().collect::<String>());
        chars.remove(at);
        try_all(&chars.iter().collect::<String>());
    }
}

#[test]
fn labels_do_not_grow_without_end() {
    let mut text = "up".to_owned();
    for _ in 0..60 {
        text = format!("label_replace({text}, \"job\", \"$1$1\", \"job\", \"(.*)\")");
    }
    let error = eval_instant(source(), &text, 300_000, &EvalOptions::default()).map(|output| output.samples).unwrap_err();
    assert!(error.to_string().contains("bytes"), "{error}");
}

#[test]
fn a_query_is_bounded_in_what_it_computes() {
    let options = EvalOptions { max_samples: 10_000, ..EvalOptions::default() };
    for text in ["max_over_time(vector(1)[1000y:1ms])", "count_values(\"v\", vector(time())[1d:1s])", "sum_over_time((up * up)[1000d:1s])"]
    {
        assert!(eval_range(source(), text, 0, 600_000, 1_000, &options).is_err(), "{text}");
    }
    let wide = vec!["up"; 100].join(" or ");
    let error = eval_range(source(), &wide, 0, 600_000, 1_000, &options).map(|output| output.samples).unwrap_err().to_string();
    assert!(error.contains("query_max_samples"), "{error}");
}
