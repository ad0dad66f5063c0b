//! PromQL's meaning as tables: `tests/promql/*.test`, in a small language.
//!
//! ```text
//! # a comment
//! load 30s                      one sample each 30s from time 0 on
//!   x{a="b"} 1 2 _ stale 0+5x3  values; _ is none, stale the stale marker, a+bxn is a, a+b, … (n more), axn is a (n more)
//! clear                         forget what was loaded
//! eval at 1m sum(x)             an instant query and its elements, in any order
//!   {a="b"} 3
//! eval ordered at 1m sort(x)    the same, in this order
//! eval from 0 to 2m step 1m x   a range query; _ is no point at a step
//!   x{a="b"} 1 _ 2
//! fail at 1m x + on(y) z        an error that contains this text; also `from`, `to`, `step`
//!   many-to-many
//! warn at 1m quantile(2, x)     the one warning, which contains this text; none where no line follows
//!   between 0 and 1
//! info at 1m rate(x[5m])        the same for infos
//!   might not be a counter
//! ```
//! A scalar or a text is written `scalar 3`, `string abc`; nothing is expected where no line follows.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

use shipwatch_common::{
    model::{Labels, Sample, metric::STALE_NAN_BITS},
    time::parse_duration,
};
use shipwatch_series::{
    MemSource,
    promql::{EvalOptions, Value, eval_instant, eval_range, parse_selector},
};
use std::{collections::BTreeMap, sync::Arc};

fn options() -> EvalOptions {
    EvalOptions { experimental: true, ..EvalOptions::default() }
}

fn ms(text: &str) -> i64 {
    match text.strip_prefix('-') {
        Some(rest) => -ms(rest),
        None => parse_duration(text).unwrap().as_millis() as i64,
    }
}

fn labels(text: &str) -> Labels {
    if text == "{}" {
        return Labels::default();
    }
    Labels::new(parse_selector(text).unwrap().iter().map(|m| (m.name().to_owned(), m.value().to_owned()))).unwrap()
}

/// Splits `name{..} rest`; the braces may have blanks.
fn head_and_rest(line: &str) -> (&str, &str) {
    let brace = line.find('{').filter(|at| !line[..*at].contains(' '));
    let end = match brace {
        Some(_) => line.find('}').unwrap() + 1,
        None => line.find(' ').unwrap_or(line.len()),
    };
    (&line[..end], line[end..].trim())
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

fn values(text: &str) -> Vec<Option<f64>> {
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        match (word, word.split_once('x')) {
            ("_", _) => out.push(None),
            ("stale", _) => out.push(Some(f64::from_bits(STALE_NAN_BITS))),
            (_, Some((start, count))) => {
                let sign = start[1..].find(['+', '-']).map(|at| at + 1).filter(|at| !start[..*at].ends_with('e'));
                let (first, step) = sign.map_or((start, 0.0), |at| (&start[..at], number(&start[at..])));
                let count: usize = count.parse().unwrap();
                if first == "_" {
                    out.extend(vec![None; count]);
                } else {
                    out.extend((0..=count).map(|n| Some(number(first) + step * n as f64)));
                }
            }
            _ => out.push(Some(number(word))),
        }
    }
    out
}

fn same(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[derive(Default)]
struct Runner {
    source: MemSource,
    checks: usize,
}

impl Runner {
    fn load(&mut self, interval: i64, lines: &[&str]) {
        for line in lines {
            let (name, rest) = head_and_rest(line);
            let labels = Arc::new(labels(name));
            for (at, value) in values(rest).into_iter().enumerate() {
                if let Some(value) = value {
                    self.source.push(Sample { labels: labels.clone(), ts_ms: at as i64 * interval, value });
                }
            }
        }
    }

    fn instant(&self, place: &str, at: &str, query: &str, expected: &[&str], ordered: bool) {
        let output = eval_instant(&self.source, query, ms(at), &options()).unwrap_or_else(|e| panic!("{place}: {e}"));
        let mut found: Vec<(String, f64)> = match output.value {
            Value::Scalar(value) => vec![("scalar".to_owned(), value)],
            Value::String(text) => return assert_eq!(expected, [format!("string {text}")], "{place}"),
            Value::Vector(elements) => elements.iter().map(|e| (e.labels.to_string(), e.value)).collect(),
            Value::Matrix(series) => {
                series.iter().flat_map(|s| s.ts.iter().zip(&s.values).map(|(t, v)| (format!("{} @{t}", s.labels), *v))).collect()
            }
        };
        let mut wanted: Vec<(String, f64)> = Vec::new();
        for line in expected {
            let (name, rest) = head_and_rest(line);
            match rest.split_once(' ') {
                // A range vector's sample: `x{a="b"} @60000 3`.
                Some((time, value)) => wanted.push((format!("{} {time}", labels(name)), number(value))),
                None if name == "scalar" => wanted.push((name.to_owned(), number(rest))),
                None => wanted.push((labels(name).to_string(), number(rest))),
            }
        }
        if !ordered {
            found.sort_by(|a, b| a.0.cmp(&b.0));
            wanted.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let equal = found.len() == wanted.len() && found.iter().zip(&wanted).all(|(f, w)| f.0 == w.0 && same(f.1, w.1));
        assert!(equal, "{place}: {query}\n   found {found:?}\nexpected {wanted:?}");
    }

    fn range(&self, place: &str, [from, to, step]: [&str; 3], query: &str, expected: &[&str]) {
        let (from, to, step) = (ms(from), ms(to), ms(step));
        let output = eval_range(&self.source, query, from, to, step, &options()).unwrap_or_else(|e| panic!("{place}: {e}"));
        let Value::Matrix(series) = output.value else { panic!("{place}: not a matrix") };
        let found: BTreeMap<String, BTreeMap<i64, f64>> =
            series.iter().map(|s| (s.labels.to_string(), s.ts.iter().copied().zip(s.values.iter().copied()).collect())).collect();
        assert_eq!(found.len(), series.len(), "{place}: labels are not unique");
        let steps = ((to - from) / step + 1) as usize;
        let mut wanted: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
        for line in expected {
            let (name, rest) = head_and_rest(line);
            let row = values(rest);
            assert_eq!(row.len(), steps, "{place}: the expectation has a wrong number of steps");
            let points = row.iter().enumerate().filter_map(|(at, value)| value.map(|value| (from + at as i64 * step, value)));
            wanted.insert(labels(name).to_string(), points.collect());
        }
        let equal = found.len() == wanted.len()
            && found.iter().zip(&wanted).all(|((f, fp), (w, wp))| {
                f == w && fp.len() == wp.len() && fp.iter().zip(wp).all(|((ft, fv), (wt, wv))| ft == wt && same(*fv, *wv))
            });
        assert!(equal, "{place}: {query}\n   found {found:?}\nexpected {wanted:?}");
        self.steps_agree(place, query, from, to, step, &found);
    }

    /// A range query is the same as instant queries at its steps.
    fn steps_agree(&self, place: &str, query: &str, from: i64, to: i64, step: i64, found: &BTreeMap<String, BTreeMap<i64, f64>>) {
        if query.contains("start()") || query.contains("end()") {
            return;
        }
        for at in (from..=to).step_by(step as usize) {
            let output = eval_instant(&self.source, query, at, &options()).unwrap();
            let one: BTreeMap<String, f64> = match output.value {
                Value::Scalar(value) => BTreeMap::from([("{}".to_owned(), value)]),
                Value::Vector(elements) => elements.iter().map(|e| (e.labels.to_string(), e.value)).collect(),
                other => panic!("{place}: {other:?}"),
            };
            let of_range: BTreeMap<String, f64> =
                found.iter().filter_map(|(name, points)| points.get(&at).map(|value| (name.clone(), *value))).collect();
            let equal = one.len() == of_range.len() && one.iter().zip(&of_range).all(|(a, b)| a.0 == b.0 && same(*a.1, *b.1));
            assert!(equal, "{place}: {query} at {at}: instant {one:?}, range {of_range:?}");
        }
    }

    fn fails(&self, place: &str, at: &str, query: &str, expected: &[&str]) {
        let error = eval_instant(&self.source, query, ms(at), &options()).map(|o| o.value).unwrap_err().to_string();
        assert!(error.contains(expected[0]), "{place}: {query}\n{error}");
    }

    fn fails_somewhere(&self, place: &str, [from, to, step]: [&str; 3], query: &str, expected: &[&str]) {
        let output = eval_range(&self.source, query, ms(from), ms(to), ms(step), &options());
        let error = output.map(|o| o.value).unwrap_err().to_string();
        assert!(error.contains(expected[0]), "{place}: {query}\n{error}");
    }

    fn annotates(&self, place: &str, at: &str, query: &str, expected: &[&str], of_infos: bool) {
        let output = eval_instant(&self.source, query, ms(at), &options()).unwrap_or_else(|e| panic!("{place}: {e}"));
        let (found, others) = if of_infos { (output.infos, output.warnings) } else { (output.warnings, output.infos) };
        assert!(others.is_empty(), "{place}: {others:?}");
        assert_eq!(found.len(), expected.len(), "{place}: {found:?}");
        assert!(found.iter().zip(expected).all(|(found, expected)| found.contains(expected)), "{place}: {found:?}");
    }

    fn run(&mut self, file: &str, text: &str) {
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')).collect();
        let mut at = 0;
        while at < lines.len() {
            let command = lines[at];
            let following = lines[at + 1..].iter().take_while(|line| line.starts_with(' ')).count();
            let body: Vec<&str> = lines[at + 1..=at + following].iter().map(|line| line.trim()).collect();
            let place = format!("{file}: {command}");
            let words: Vec<&str> = command.split_whitespace().collect();
            let query = |skip: usize| words[skip..].join(" ");
            match words[0] {
                "clear" => self.source = MemSource::new(),
                "load" => self.load(ms(words[1]), &body),
                "eval" if words[1] == "at" => self.instant(&place, words[2], &query(3), &body, false),
                "eval" if words[1] == "ordered" => self.instant(&place, words[3], &query(4), &body, true),
                "eval" => self.range(&place, [words[2], words[4], words[6]], &query(7), &body),
                "warn" => self.annotates(&place, words[2], &query(3), &body, false),
                "info" => self.annotates(&place, words[2], &query(3), &body, true),
                "fail" if words[1] == "from" => {
                    self.fails_somewhere(&place, [words[2], words[4], words[6]], &query(7), &body);
                }
                "fail" => self.fails(&place, words[2], &query(3), &body),
                other => panic!("{file}: unknown command {other:?}"),
            }
            self.checks += usize::from(!matches!(words[0], "clear" | "load"));
            at += following + 1;
        }
    }
}

macro_rules! tables {
    ($($name:ident: $least:literal,)*) => {$(
        #[test]
        fn $name() {
            let mut runner = Runner::default();
            runner.run(stringify!($name), include_str!(concat!("promql/", stringify!($name), ".test")));
            assert!(runner.checks >= $least, "only {} checks ran", runner.checks);
        }
    )*};
}

tables! {
    selectors: 20,
    rates: 20,
    operators: 30,
    aggregations: 20,
    functions: 40,
    histograms: 10,
    subqueries: 8,
    experimental: 59,
}
