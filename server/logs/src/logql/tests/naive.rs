//! The streaming answers against looking at every line for every question.

use super::*;
use crate::{
    Query, Search,
    logql::{
        ast::{Range, RangeOp},
        gather::unwrapped,
        record::{ERROR, Record},
    },
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Every line of the store, oldest first.
fn everything(engine: &Engine) -> Vec<crate::Entry> {
    let search = Search { start_ns: i64::MIN, end_ns: i64::MAX, limit: 5000, direction: Direction::Forward, cursor: None, deadline: None };
    engine.search(&Query::default(), &search).unwrap().entries
}

/// A line through all stages, none of them the store's work.
fn record<'l>(pipeline: &'l Pipeline, entry: &'l crate::Entry) -> Option<Record<'l>> {
    if !pipeline.matchers.iter().all(|matcher| matcher.matches(&entry.labels)) {
        return None;
    }
    let mut record = Record::new(entry.ts_ns(), &entry.labels, entry.severity, &entry.text);
    pipeline.stages.iter().all(|stage| stage.apply(&mut record, None)).then_some(record)
}

fn labels(record: &Record<'_>, dropped: Option<&str>) -> LabelSet {
    let kept = record.fields.iter().filter(|field| Some(&*field.name) != dropped);
    LabelSet::new(kept.map(|field| (field.name.to_string(), field.value.to_string())))
}

/// Series with the value of each step; nothing where a marked line ends the query.
fn naive(range: &Range, entries: &[crate::Entry], times: &Times, steps: usize) -> Option<BTreeMap<LabelSet, Vec<Option<f64>>>> {
    let mut out: BTreeMap<LabelSet, Vec<Option<f64>>> = BTreeMap::new();
    for step in 0..steps {
        let end = times.start_ns + step as i64 * times.step_ns - range.offset_ns;
        let mut inside: BTreeMap<LabelSet, Vec<f64>> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.ts_ns() > end - range.range_ns && entry.ts_ns() <= end) {
            let Some(mut record) = record(&range.pipeline, entry) else { continue };
            let value = match &range.unwrap {
                Some(unwrap) => unwrapped(unwrap, &mut record),
                None if matches!(range.op, RangeOp::BytesOverTime | RangeOp::BytesRate) => Some(record.text.len() as f64),
                None => Some(1.0),
            };
            let Some(value) = value else { continue };
            if record.get(ERROR).is_some() {
                return None;
            }
            inside.entry(labels(&record, range.unwrap.as_ref().map(|unwrap| unwrap.label.as_str()))).or_default().push(value);
        }
        for (labels, values) in inside {
            let sum: f64 = values.iter().sum();
            let value = match range.op {
                RangeOp::Rate | RangeOp::BytesRate => sum / (range.range_ns as f64 / 1e9),
                RangeOp::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                RangeOp::Last => *values.last().unwrap(),
                _ => sum,
            };
            out.entry(labels).or_insert_with(|| vec![None; steps])[step] = Some(value);
        }
    }
    Some(out)
}

fn line() -> impl Strategy<Value = (i64, usize, usize, String)> {
    let text = prop_oneof![
        (0u8..4, 0u8..6).prop_map(|(a, n)| format!("a=x{a} n={n}")),
        (0u8..4, 0u8..6).prop_map(|(a, n)| format!(r#"{{"a":"x{a}","n":{n}}}"#)),
        "[ab=x\" ]{0,12}",
        Just("支付失败 a=1".to_owned()),
    ];
    (0i64..600, 0usize..3, 0usize..7, text)
}

const FILTERS: [&str; 12] = [
    r#" | logfmt a | line_format "<{{.a}}>" |= "<x" != "n=""#,
    r#" |= "x1" | detected_level!="warn""#,
    r#" |~ "a=x[02]""#,
    "",
    r#" |= "a""#,
    r#" != "x1" |~ "n=[0-3]""#,
    r#" | logfmt | n < 4"#,
    r#" | json | __error__="""#,
    r#" | detected_level=~"info|error""#,
    r#" | drop detected_level"#,
    r#" | logfmt | a="x1" or n=2 | line_format "{{.a}}" |= "x""#,
    r#" |= "支付" or "x2" | regexp "x(?P<d>\\d)""#,
];

const FUNCTIONS: [(&str, &str); 7] = [
    ("count_over_time", ""),
    ("rate", ""),
    ("bytes_over_time", ""),
    ("bytes_rate", ""),
    ("sum_over_time", r#" | logfmt n | unwrap n | __error__="""#),
    ("max_over_time", r#" | logfmt n | unwrap n | __error__="""#),
    ("last_over_time", r#" | logfmt n | unwrap n"#),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn streaming_is_looking_at_every_line(
        lines in prop::collection::vec(line(), 0..120),
        seals in prop::collection::vec(any::<bool>(), 4),
        filter in 0usize..FILTERS.len(), function in 0usize..FUNCTIONS.len(),
        range_s in 1i64..400, step_s in 1i64..200, start_s in 0i64..300, steps in 1usize..6, offset_s in -60i64..60, limit in 1usize..50,
    ) {
        let (_dir, engine) = engine(Config { query_max_series: 1_000, ..Config::default() });
        for (chunk, seal) in lines.chunks(lines.len() / 4 + 1).zip(seals) {
            for (at, app, severity, text) in chunk {
                store(&engine, &[("app", ["a", "b", "c"][*app]), ("one", "1")], &[(*at, crate::store::block::SEVERITIES[*severity], text.as_str())]);
            }
            if seal {
                engine.seal(0).unwrap();
            }
        }
        let entries = everything(&engine);
        prop_assert_eq!(entries.len(), lines.len());

        let query = Expression::parse(&format!(r#"{{one="1"}}{}"#, FILTERS[filter])).unwrap();
        let Expr::Log(pipeline) = &query.0 else { panic!("a log query") };
        let expected: Vec<_> =
            entries.iter().filter_map(|entry| record(pipeline, entry).map(|record| (entry.id, labels(&record, None), record.text.into_owned()))).collect();
        for direction in [Direction::Forward, Direction::Backward] {
            let found = engine.rows(&query, &request(limit, direction), &Patience::default()).unwrap();
            let found: Vec<_> = found.rows.iter().map(|row| (row.id, row.labels(), row.text.clone())).collect();
            let mut expected = expected.clone();
            if direction == Direction::Backward {
                expected.reverse();
            }
            expected.truncate(limit);
            prop_assert_eq!(found, expected);
        }

        let (name, unwrap) = FUNCTIONS[function];
        let text = format!(r#"{name}({{one="1"}}{}{unwrap} [{range_s}s] offset {offset_s}s)"#, FILTERS[filter]);
        let query = Expression::parse(&text).unwrap();
        let Expr::Metric(Metric::Range(range)) = &query.0 else { panic!("a range") };
        let times = Times { start_ns: T + start_s * NS, end_ns: T + (start_s + step_s * (steps as i64 - 1)) * NS, step_ns: step_s * NS };
        let found = engine.metric(&query, &times, &Patience::default());
        match naive(range, &entries, &times, steps) {
            None => prop_assert!(found.unwrap_err().to_string().contains("pipeline error"), "{text}"),
            Some(expected) => {
                let (found, _) = found.unwrap();
                prop_assert_eq!(found.len(), expected.len(), "{}", text);
                for (series, (labels, values)) in found.iter().zip(&expected) {
                    prop_assert_eq!(&series.labels, labels);
                    let expected: Vec<_> = values.iter().enumerate()
                        .filter_map(|(step, value)| Some((times.start_ns + step as i64 * times.step_ns, (*value)?))).collect();
                    prop_assert_eq!(series.points.len(), expected.len(), "{}", text);
                    for ((at, value), (expected_at, expected)) in series.points.iter().zip(expected) {
                        prop_assert!(*at == expected_at && (value - expected).abs() < 1e-9, "{}: {} at {} and {}", text, value, at, expected);
                    }
                }
            }
        }
        // Grouped while it is gathered, or afterwards.
        if let ("count_over_time" | "rate" | "sum_over_time", Ok(_)) = (name, engine.metric(&query, &times, &Patience::default())) {
            let labels = ["app", "a, n", "detected_level, d", "n_extracted, one"][limit % 4];
            let grouped = |text: &str| engine.metric(&Expression::parse(text).unwrap(), &times, &Patience::default()).unwrap().0;
            let (a, b) = (grouped(&format!("sum by ({labels}) ({text})")), grouped(&format!("sum by ({labels}) ({text} + 0)")));
            prop_assert_eq!(a.len(), b.len());
            for (a, b) in a.iter().zip(&b) {
                prop_assert_eq!(&a.labels, &b.labels);
                prop_assert!(a.points.iter().zip(&b.points).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-9));
            }
        }
    }
}
