//! Metrics from lines: counters and histograms that are made on the host by configuration, as ordinary series.
//!
//! Rules look at masked text only, so no label holds what a line would not. They see every line that `include` and `exclude_lines`
//! let pass, also those that sampling or a limit leaves out: a rate must not depend on what is stored.
//!
//! # Invariants
//! - An observation counts when the sink took its lines, once.
//! - A rule has at most [`Config::max_series`] series; what is beyond counts in one whose labels are all `other`.
//! - Counters begin at 0 with each start of the agent, as those of any Prometheus client.

use super::parse::Fields;
use regex::Regex;
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    config::Problems,
    model::{Labels, Severity},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

/// Longest label value, in characters.
const VALUE_CHARS: usize = 128;
/// Most buckets of a histogram.
const MAX_BUCKETS: usize = 50;
/// Most rules of a source.
const MAX_RULES: usize = 50;
/// What the label values of a rule become when it has too many series.
const OTHER: &str = "other";
/// Bounds of Prometheus' clients, in seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Methods of HTTP; what scanners send instead must not use up a rule's series.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"];

/// One metric of a source's lines, or a preset of several.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `nginx`: requests by method and status, bytes, and durations where the log format has `$request_time`. It needs lines in the
    /// form of `combined`; nothing else is set then.
    pub preset: String,
    /// Name of the series.
    pub name: String,
    /// `counter` or `histogram`. Empty is `counter`.
    pub kind: String,
    /// Fields that become labels. Beside those of the line: `severity`, `status_class` (`5xx`), and the stream's labels, such as
    /// `container`.
    pub labels: Vec<String>,
    /// The field whose number a histogram counts or a counter adds; empty counts lines.
    pub value: String,
    /// Only lines in which this field matches `pattern`; empty is the whole line.
    pub field: String,
    /// See `field`; empty matches every line.
    pub pattern: String,
    /// Upper bounds of a histogram's buckets; empty are those of Prometheus' clients, 5 ms to 10 s.
    pub buckets: Vec<f64>,
    /// Series of this metric; what is beyond counts under labels `other`.
    pub max_series: usize,
}

impl Default for Config {
    fn default() -> Self {
        let (preset, name, kind, value) = Default::default();
        Self { preset, name, kind, value, labels: vec![], field: String::new(), pattern: String::new(), buckets: vec![], max_series: 100 }
    }
}

pub(super) fn check(configs: &[Config], problems: &mut Problems, at: &str) {
    if configs.len() > MAX_RULES {
        problems.add(&format!("{at}metrics"), format!("are {}, more than {MAX_RULES}", configs.len()));
    }
    for (number, config) in configs.iter().enumerate() {
        for (key, error) in config.mistakes() {
            problems.add(&format!("{at}metrics.{number}.{key}"), error);
        }
    }
}

impl Config {
    fn mistakes(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if !self.preset.is_empty() {
            if self.preset != "nginx" {
                found.push(("preset", format!("must be nginx, or empty for a metric of your own, not {:?}", self.preset)));
            }
            let rest = Self { preset: self.preset.clone(), max_series: self.max_series, ..Self::default() };
            if format!("{rest:?}") != format!("{self:?}") {
                found.push(("preset", "stands alone: remove the other keys, or the preset".to_owned()));
            }
        } else if let Err(error) = check_name(&self.name) {
            found.push(("name", error));
        }
        if !matches!(self.kind.as_str(), "" | "counter" | "histogram") {
            found.push(("kind", format!("must be counter or histogram, not {:?}", self.kind)));
        }
        if self.kind == "histogram" && self.value.is_empty() {
            found.push(("value", "must name the field whose numbers the histogram counts".to_owned()));
        }
        if self.kind != "histogram" && !self.buckets.is_empty() {
            found.push(("buckets", "are only used with kind = \"histogram\"".to_owned()));
        }
        let ascend = self.buckets.windows(2).all(|pair| pair[0] < pair[1]) && self.buckets.iter().all(|bound| bound.is_finite());
        if !ascend || self.buckets.len() > MAX_BUCKETS {
            found.push(("buckets", format!("must be at most {MAX_BUCKETS} numbers, each larger than the one before")));
        }
        if let Some(label) = self.labels.iter().find(|label| label.is_empty() || label_name(label) == "le") {
            found.push(("labels", format!("cannot hold {label:?}")));
        }
        if self.labels.len() > 10 {
            found.push(("labels", "are more than 10: each multiplies the number of series".to_owned()));
        }
        if let Err(error) = Regex::new(&self.pattern) {
            found.push(("pattern", format!("is not a pattern: {error}")));
        }
        if !(1..=1000).contains(&self.max_series) {
            found.push(("max_series", format!("must be between 1 and 1000, not {}", self.max_series)));
        }
        found
    }

    /// What a preset stands for.
    fn expanded(&self) -> Vec<Self> {
        if self.preset != "nginx" {
            return vec![self.clone()];
        }
        let rule = |name: &str, kind: &str, value: &str, labels: &[&str]| Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            value: value.to_owned(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            field: "status".to_owned(),
            max_series: self.max_series,
            ..Self::default()
        };
        vec![
            rule("nginx_http_requests_total", "counter", "", &["method", "status"]),
            rule("nginx_http_response_bytes_total", "counter", "bytes", &["method", "status_class"]),
            rule("nginx_http_request_duration_seconds", "histogram", "request_time", &["method", "status_class"]),
        ]
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'))
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= 200;
    if !is_name {
        return Err(format!("must be a name of letters, digits and `_`, such as shop_orders_total, not {name:?}"));
    }
    match ["node_", "process_", "shipwatch_"].iter().find(|taken| name.starts_with(**taken)) {
        Some(taken) => Err(format!("{name:?} may not begin with `{taken}`: such series are the agent's own")),
        None => Ok(()),
    }
}

fn label_name(field: &str) -> String {
    let mut name: String = field.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

#[derive(Debug)]
struct Rule {
    name: String,
    /// Field and label.
    labels: Vec<(String, String)>,
    value: String,
    field: String,
    regex: Option<Regex>,
    /// None for a counter.
    buckets: Option<Vec<f64>>,
    max_series: usize,
    /// Labels of the source, beside the rule's own.
    common: Vec<(String, String)>,
}

/// What one line means to one rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Observation {
    rule: Arc<Counted>,
    /// Values of the labels; none where the stream's labels may have it.
    labels: Vec<Option<String>>,
    value: f64,
}

/// Rules of one source.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules(Vec<Arc<Counted>>);

impl Rules {
    pub(super) fn new(configs: &[Config], common: &BTreeMap<String, String>) -> Result<Self, String> {
        let rules = configs.iter().flat_map(Config::expanded).map(|config| {
            if let Some((key, error)) = config.mistakes().first() {
                return Err(format!("metrics.{key} {error}"));
            }
            let regex = if config.pattern.is_empty() { None } else { Regex::new(&config.pattern).ok() };
            let buckets = if config.buckets.is_empty() { BUCKETS.to_vec() } else { config.buckets };
            let own = |name: &String| config.labels.iter().any(|label| label_name(label) == *name);
            let rule = Rule {
                common: common.iter().filter(|(name, _)| !own(name)).map(|(name, value)| (name.clone(), value.clone())).collect(),
                labels: config.labels.iter().map(|field| (field.clone(), label_name(field))).collect(),
                buckets: (config.kind == "histogram").then_some(buckets),
                name: config.name,
                value: config.value,
                field: config.field,
                regex,
                max_series: config.max_series,
            };
            Ok(Arc::new(Counted { rule, series: Mutex::default() }))
        });
        rules.collect::<Result<_, _>>().map(Self)
    }

    /// Notes what a line means to the rules.
    pub(super) fn observe(&self, text: &str, fields: &Fields<'_>, severity: Severity, into: &mut Vec<Observation>) {
        for rule in &self.0 {
            if let Some((labels, value)) = rule.rule.observe(text, fields, severity) {
                into.push(Observation { rule: Arc::clone(rule), labels, value });
            }
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Counted>> {
        self.0.iter().cloned()
    }
}

impl Rule {
    fn observe(&self, text: &str, fields: &Fields<'_>, severity: Severity) -> Option<(Vec<Option<String>>, f64)> {
        let subject = if self.field.is_empty() { Some(text) } else { fields.get(&self.field) };
        if !subject.is_some_and(|subject| self.regex.as_ref().is_none_or(|regex| regex.is_match(subject))) {
            return None;
        }
        let value = if self.value.is_empty() { 1.0 } else { fields.get(&self.value)?.parse::<f64>().ok()? };
        let fits = value.is_finite() && (self.buckets.is_some() || value >= 0.0);
        fits.then(|| (self.labels.iter().map(|(field, _)| label_value(field, fields, severity)).collect(), value))
    }
}

fn label_value(field: &str, fields: &Fields<'_>, severity: Severity) -> Option<String> {
    if let Some(value) = fields.get(field) {
        if field == "method" && !METHODS.contains(&value) {
            return Some(OTHER.to_owned());
        }
        return Some(value.chars().take(VALUE_CHARS).collect());
    }
    match field {
        "severity" => Some(severity.as_str().to_owned()),
        "status_class" => fields.get("status").and_then(|status| status.chars().next()).map(|digit| format!("{digit}xx")),
        _ => None,
    }
}

/// One series.
#[derive(Debug, Default)]
struct Series {
    count: u64,
    sum: f64,
    /// Observations per bucket, not summed up.
    buckets: Vec<u64>,
}

/// A rule and what it counted.
#[derive(Debug)]
pub(super) struct Counted {
    rule: Rule,
    series: Mutex<HashMap<Vec<String>, Series>>,
}

impl PartialEq for Counted {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// Counts what was observed, now that its lines were taken. `stream` are their labels.
pub(super) fn count(observations: Vec<Observation>, stream: &Labels) {
    for Observation { rule: counted, labels, value } in observations {
        let named = labels.into_iter().zip(&counted.rule.labels);
        let mut key: Vec<String> = named
            .map(|(value, (field, _))| value.unwrap_or_else(|| stream.get(field).unwrap_or("").chars().take(VALUE_CHARS).collect()))
            .collect();
        let mut all = counted.series.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= counted.rule.max_series && !all.contains_key(&key) {
            key.fill(OTHER.to_owned());
        }
        let series = all.entry(key).or_default();
        series.count += 1;
        series.sum += value;
        if let Some(bounds) = &counted.rule.buckets {
            series.buckets.resize(bounds.len(), 0);
            if let Some(at) = bounds.iter().position(|bound| value <= *bound) {
                series.buckets[at] += 1;
            }
        }
    }
}

/// All metrics of all sources.
#[derive(Clone, Debug, Default)]
pub struct Metrics(pub(super) Vec<Arc<Counted>>);

impl Metrics {
    /// Gives every series to `put`: name, labels, value.
    pub fn each(&self, mut put: impl FnMut(&str, &[(&str, &str)], f64)) {
        for counted in &self.0 {
            counted.each(&mut put);
        }
    }
}

impl Counted {
    #[expect(clippy::cast_precision_loss, reason = "counters stay far below 2^53")]
    fn each(&self, put: &mut impl FnMut(&str, &[(&str, &str)], f64)) {
        let rule = &self.rule;
        for (values, series) in &*self.series.lock().unwrap_or_else(PoisonError::into_inner) {
            let own = rule.labels.iter().zip(values).map(|((_, name), value)| (name.as_str(), value.as_str()));
            let common = rule.common.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let labels: Vec<(&str, &str)> = own.chain(common).filter(|(_, value)| !value.is_empty()).collect();
            let Some(bounds) = &rule.buckets else {
                put(&rule.name, &labels, series.sum);
                continue;
            };
            let name = format!("{}_bucket", rule.name);
            let mut below = 0;
            for (bound, count) in bounds.iter().zip(&series.buckets) {
                below += count;
                put(&name, &[&labels[..], &[("le", &bound.to_string())]].concat(), below as f64);
            }
            put(&name, &[&labels[..], &[("le", "+Inf")]].concat(), series.count as f64);
            put(&format!("{}_sum", rule.name), &labels, series.sum);
            put(&format!("{}_count", rule.name), &labels, series.count as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::parse;

    fn counted(configs: &[Config], kind: &str, lines: &[&str]) -> Vec<String> {
        let common = BTreeMap::from([("app".to_owned(), "shop".to_owned())]);
        let rules = Rules::new(configs, &common).unwrap();
        let parser = parse::Parser::new(&parse::Config { kind: kind.into(), ..parse::Config::default() }, jiff::tz::TimeZone::UTC).unwrap();
        let mut observations = Vec::new();
        for line in lines {
            let fields = parser.fields(line);
            rules.observe(line, &fields, parser.severity(line, &fields), &mut observations);
        }
        count(observations, &Labels::new([("container", "web")]).unwrap());
        let mut told = Vec::new();
        Metrics(rules.all().collect()).each(|name, labels, value| {
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            told.push(format!("{name}{{{}}} {value}", labels.join(",")));
        });
        told.sort();
        told
    }

    fn line(request: &str, status: u16, bytes: &str, time: &str) -> String {
        format!("10.0.0.1 - - [23/Nov/2026:08:00:04 +0000] \"{request}\" {status} {bytes} \"-\" \"curl/8 \\\"x\\\"\"{time}")
    }

    #[test]
    fn the_preset_of_nginx_counts_requests_bytes_and_durations() {
        let lines = [
            line("GET /a HTTP/1.1", 200, "100", " 0.004"),
            line("GET /b HTTP/1.1", 200, "50", " rt=0.3"),
            line("POST /pay HTTP/1.1", 502, "7", " 12"),
            line("\\x16\\x03", 400, "-", ""),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).chain(["no access log"]).collect();
        let told = counted(&[Config { preset: "nginx".into(), ..Config::default() }], "combined", &lines);
        for expected in [
            "nginx_http_requests_total{method=GET,status=200,app=shop} 2",
            "nginx_http_requests_total{method=POST,status=502,app=shop} 1",
            "nginx_http_requests_total{method=other,status=400,app=shop} 1",
            "nginx_http_response_bytes_total{method=GET,status_class=2xx,app=shop} 150",
            "nginx_http_request_duration_seconds_bucket{method=GET,status_class=2xx,app=shop,le=0.005} 1",
            "nginx_http_request_duration_seconds_bucket{method=GET,status_class=2xx,app=shop,le=0.5} 2",
            "nginx_http_request_duration_seconds_bucket{method=POST,status_class=5xx,app=shop,le=10} 0",
            "nginx_http_request_duration_seconds_bucket{method=POST,status_class=5xx,app=shop,le=+Inf} 1",
            "nginx_http_request_duration_seconds_sum{method=GET,status_class=2xx,app=shop} 0.304",
            "nginx_http_request_duration_seconds_count{method=POST,status_class=5xx,app=shop} 1",
        ] {
            assert!(told.iter().any(|line| line == expected), "{expected} is missing in {told:#?}");
        }
        assert_eq!(told.iter().filter(|line| line.starts_with("nginx_http_requests_total")).count(), 3);
    }

    #[test]
    fn own_rules_filter_add_and_are_bounded() {
        let rule = Config {
            name: "orders_total".into(),
            labels: vec!["shop.id".into(), "severity".into(), "container".into()],
            value: "items".into(),
            field: "event".into(),
            pattern: "^order$".into(),
            max_series: 2,
            ..Config::default()
        };
        let line = |shop: u8, event: &str, items: &str| {
            format!("{{\"event\":\"{event}\",\"shop\":{{\"id\":{shop}}},\"items\":{items},\"level\":\"info\"}}")
        };
        let lines = [line(1, "order", "2"), line(1, "order", "3"), line(2, "order", "1"), line(3, "order", "5"), line(4, "order", "1")];
        let out = [line(1, "visit", "9"), line(1, "order", "-1"), line(1, "order", "\"x\"")];
        let lines: Vec<&str> = lines.iter().chain(&out).map(String::as_str).collect();
        assert_eq!(
            counted(&[rule], "json", &lines),
            [
                "orders_total{shop_id=1,severity=info,container=web,app=shop} 5",
                "orders_total{shop_id=2,severity=info,container=web,app=shop} 1",
                "orders_total{shop_id=other,severity=other,container=other,app=shop} 6",
            ]
        );
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let told = |config: Config| config.mistakes().into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        let named = || Config { name: "a_total".into(), ..Config::default() };
        assert_eq!(told(named()), Vec::<&str>::new());
        assert_eq!(told(Config::default()), ["name"]);
        assert_eq!(told(Config { name: "node_x".into(), ..named() }), ["name"]);
        assert_eq!(told(Config { preset: "nginx".into(), ..named() }), ["preset"]);
        assert_eq!(told(Config { kind: "gauge".into(), ..named() }), ["kind"]);
        assert_eq!(told(Config { kind: "histogram".into(), buckets: vec![2.0, 1.0], ..named() }), ["value", "buckets"]);
        assert_eq!(
            told(Config { labels: vec!["le".into()], pattern: "(".into(), max_series: 0, ..named() }),
            ["labels", "pattern", "max_series"]
        );
    }
}
