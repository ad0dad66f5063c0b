//! The functions: Go's built-in ones and Prometheus' own.

use super::{
    Data,
    printf::{print, printf},
    value::{self, Value, go_g},
};
use shipwatch_common::time;
use std::cmp::Ordering;

const NAMES: [&str; 40] = [
    "and",
    "or",
    "not",
    "len",
    "index",
    "print",
    "println",
    "printf",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "html",
    "urlquery",
    "query",
    "first",
    "label",
    "value",
    "strvalue",
    "sortByLabel",
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "now",
    "title",
    "toUpper",
    "toLower",
    "stripPort",
    "stripDomain",
    "match",
    "reReplaceAll",
    "parseDuration",
    "graphLink",
    "tableLink",
    "externalURL",
    "pathPrefix",
];
/// Known to Prometheus, not here.
const UNSUPPORTED: [&str; 8] = ["call", "slice", "js", "toTime", "toDuration", "args", "tmpl", "safeHtml"];
/// Longest pattern of `match` and `reReplaceAll`, compiled.
const MAX_REGEX_BYTES: usize = 1 << 20;

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(super) fn unknown(name: &str) -> String {
    if UNSUPPORTED.contains(&name) {
        return format!("function {name:?} is not supported");
    }
    let hint =
        shipwatch_common::config::nearest(name, NAMES.into_iter()).map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    format!("function {name:?} not defined{hint}")
}

fn one(arguments: &[Value]) -> Result<&Value, String> {
    match arguments {
        [one] => Ok(one),
        all => Err(format!("wrong number of args: want 1 got {}", all.len())),
    }
}

fn two(arguments: &[Value]) -> Result<(&Value, &Value), String> {
    match arguments {
        [one, two] => Ok((one, two)),
        all => Err(format!("wrong number of args: want 2 got {}", all.len())),
    }
}

pub(super) fn call(name: &str, arguments: &[Value], data: &Data<'_>) -> Result<Value, String> {
    let text = |text: String| Ok(Value::Text(text));
    match name {
        "and" => Ok(arguments.iter().find(|one| !one.is_true()).or(arguments.last()).cloned().unwrap_or(Value::Nil)),
        "or" => Ok(arguments.iter().find(|one| one.is_true()).or(arguments.last()).cloned().unwrap_or(Value::Nil)),
        "not" => Ok(Value::Bool(!one(arguments)?.is_true())),
        "eq" => equal(arguments).map(Value::Bool),
        "ne" => equal(arguments).map(|same| Value::Bool(!same)),
        "lt" | "le" | "gt" | "ge" => ordered(name, arguments).map(Value::Bool),
        "len" => length(one(arguments)?),
        "index" => index(arguments),
        "print" => text(print(arguments)),
        "println" => text(format!("{}\n", arguments.iter().map(Value::show).collect::<Vec<_>>().join(" "))),
        "printf" => printf(arguments).map(Value::Text),
        "html" => text(html(&one(arguments)?.show())),
        "urlquery" => text(url_encode(&one(arguments)?.show())),
        "now" => Ok(Value::Float(seconds(data.now_ms))),
        "externalURL" => text(data.external_url.to_owned()),
        "pathPrefix" => text(path_of(data.external_url).to_owned()),
        "graphLink" => text(format!("/graph?g0.expr={}&g0.tab=0", url_encode(one(arguments)?.text()?))),
        "tableLink" => text(format!("/graph?g0.expr={}&g0.tab=1", url_encode(one(arguments)?.text()?))),
        "query" | "first" | "label" | "value" | "strvalue" | "sortByLabel" => samples(name, arguments, data),
        "title" | "toUpper" | "toLower" | "stripPort" | "stripDomain" => words(name, one(arguments)?.text()?).map(Value::Text),
        "match" => {
            let (pattern, subject) = two(arguments)?;
            Ok(Value::Bool(regex(pattern.text()?)?.is_match(subject.text()?)))
        }
        "reReplaceAll" => match arguments {
            [pattern, replacement, subject] => {
                let pattern = regex(pattern.text()?)?;
                text(pattern.replace_all(subject.text()?, replacement.text()?).into_owned())
            }
            all => Err(format!("wrong number of args: want 3 got {}", all.len())),
        },
        "parseDuration" => time::parse_duration(one(arguments)?.text()?).map(|length| Value::Float(length.as_secs_f64())),
        _ => numbers(name, one(arguments)?.number()?).map(Value::Text),
    }
}

#[expect(clippy::cast_precision_loss, reason = "times are far below 2^53 ms")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn path_of(url: &str) -> &str {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    host.find('/').map_or("", |at| &host[at..])
}

fn regex(pattern: &str) -> Result<regex::Regex, String> {
    regex::RegexBuilder::new(pattern).size_limit(MAX_REGEX_BYTES).build().map_err(|error| error.to_string())
}

/// As Go's `url.QueryEscape`.
pub(crate) fn url_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b' ' => "+".to_owned(),
            byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

const INCOMPATIBLE: &str = "incompatible types for comparison";

fn equal(arguments: &[Value]) -> Result<bool, String> {
    let [first, rest @ ..] = arguments else { return Err("missing argument for comparison".to_owned()) };
    if rest.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for other in rest {
        match (first, other) {
            (Value::Bool(_), Value::Bool(_)) | (Value::Int(_), Value::Int(_)) | (Value::Float(_), Value::Float(_)) => {}
            (Value::Text(_), Value::Text(_)) | (Value::Nil, _) | (_, Value::Nil) => {}
            _ => return Err(INCOMPATIBLE.to_owned()),
        }
        if first == other {
            return Ok(true);
        }
    }
    Ok(false)
}

fn ordered(name: &str, arguments: &[Value]) -> Result<bool, String> {
    let order = match two(arguments)? {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => return Err(INCOMPATIBLE.to_owned()),
    };
    Ok(match name {
        "lt" => order == Some(Ordering::Less),
        "le" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        "gt" => order == Some(Ordering::Greater),
        _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    })
}

fn length(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(map) => map.len(),
        other => return Err(format!("len of type {}", other.kind())),
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(arguments: &[Value]) -> Result<Value, String> {
    match two(arguments)? {
        (Value::Map(map), Value::Text(name)) => Ok(Value::Text(map.get(name).cloned().unwrap_or_default())),
        (Value::List(items), Value::Int(at)) => {
            usize::try_from(*at).ok().and_then(|at| items.get(at).cloned()).ok_or_else(|| format!("index out of range: {at}"))
        }
        (other, _) => Err(format!("can't index item of type {}", other.kind())),
    }
}

fn samples(name: &str, arguments: &[Value], data: &Data<'_>) -> Result<Value, String> {
    let sample = |value: &Value| match value {
        Value::Sample(labels, number) => Ok((labels.clone(), *number)),
        other => Err(format!("wrong type; expected a sample; got {}", other.kind())),
    };
    match name {
        "query" => {
            let found = (data.query)(one(arguments)?.text()?)?;
            Ok(Value::List(found.iter().map(|(labels, number)| Value::Sample(value::map(labels), *number)).collect()))
        }
        "first" => match one(arguments)? {
            Value::List(items) => items.first().cloned().ok_or_else(|| "first() called on vector with no elements".to_owned()),
            other => Err(format!("first() needs a vector, not {}", other.kind())),
        },
        "label" => {
            let (wanted, of) = two(arguments)?;
            Ok(Value::Text(sample(of)?.0.remove(wanted.text()?).unwrap_or_default()))
        }
        "value" => Ok(Value::Float(sample(one(arguments)?)?.1)),
        "strvalue" => Ok(Value::Text(sample(one(arguments)?)?.0.remove("__value__").unwrap_or_default())),
        _ => match two(arguments)? {
            (Value::Text(by), Value::List(items)) => {
                let mut items = items.clone();
                items.sort_by_key(|item| match item {
                    Value::Sample(labels, _) => labels.get(by).cloned().unwrap_or_default(),
                    _ => String::new(),
                });
                Ok(Value::List(items))
            }
            _ => Err("sortByLabel takes a label's name and a vector".to_owned()),
        },
    }
}

fn words(name: &str, text: &str) -> Result<String, String> {
    Ok(match name {
        "toUpper" => text.to_uppercase(),
        "toLower" => text.to_lowercase(),
        "title" => {
            let mut start = true;
            text.chars()
                .map(|letter| {
                    let first = std::mem::replace(&mut start, !(letter.is_alphanumeric() || letter == '_' || letter == '\''));
                    if first { letter.to_uppercase().collect() } else { letter.to_string() }
                })
                .collect()
        }
        "stripPort" => strip_port(text).to_owned(),
        _ => {
            let host = strip_port(text);
            let port = &text[text.find(host).unwrap_or(0) + host.len()..];
            if host.parse::<std::net::IpAddr>().is_ok() {
                return Ok(text.to_owned());
            }
            format!("{}{}", host.split('.').next().unwrap_or(host), port)
        }
    })
}

fn strip_port(text: &str) -> &str {
    if let Some((host, _)) = text.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return host;
    }
    match text.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') => host,
        _ => text,
    }
}

fn scaled(mut value: f64, step: f64, prefixes: &[&'static str]) -> (f64, &'static str) {
    let mut prefix = "";
    for next in prefixes {
        if if step > 1.0 { value.abs() < step } else { value.abs() >= 1.0 } {
            break;
        }
        prefix = next;
        value /= step;
    }
    (value, prefix)
}

const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const LARGE_1024: [&str; 8] = ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

fn numbers(name: &str, value: f64) -> Result<String, String> {
    let g4 = |value: f64| go_g(value, Some(4));
    Ok(match name {
        "humanize" => {
            if value == 0.0 || !value.is_finite() {
                return Ok(g4(value));
            }
            let (shown, prefix) = if value.abs() >= 1.0 { scaled(value, 1000.0, &LARGE) } else { scaled(value, 0.001, &SMALL) };
            format!("{}{prefix}", g4(shown))
        }
        "humanize1024" => {
            if value.abs() <= 1.0 || !value.is_finite() {
                return Ok(g4(value));
            }
            let (shown, prefix) = scaled(value, 1024.0, &LARGE_1024);
            format!("{}{prefix}", g4(shown))
        }
        "humanizePercentage" => format!("{}%", g4(value * 100.0)),
        "humanizeTimestamp" => timestamp(value),
        "humanizeDuration" => duration(value),
        other => return Err(format!("function {other:?} not defined")),
    })
}

/// `1d 2h 3m 4s`, `12.5s`, `3ms`.
pub(crate) fn duration(value: f64) -> String {
    if !value.is_finite() {
        return go_g(value, Some(4));
    }
    if value == 0.0 || (value.abs() >= 1.0 && value.abs() < 60.0) {
        return format!("{}s", go_g(value, Some(4)));
    }
    if value.abs() < 1.0 {
        let (shown, prefix) = scaled(value, 0.001, &SMALL);
        return format!("{}{prefix}s", go_g(shown, Some(4)));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a saturating cast is what is wanted")]
    let whole = value.abs() as u64;
    let (seconds, minutes, hours, days) = (whole % 60, whole / 60 % 60, whole / 3_600 % 24, whole / 86_400);
    let sign = if value < 0.0 { "-" } else { "" };
    match (days, hours) {
        (0, 0) => format!("{sign}{minutes}m {seconds}s"),
        (0, _) => format!("{sign}{hours}h {minutes}m {seconds}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {seconds}s"),
    }
}

fn timestamp(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "a saturating cast; jiff refuses what is out of range")]
    let ms = (value * 1000.0) as i64;
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(at) if value.is_finite() => {
            let text = at.strftime("%Y-%m-%d %H:%M:%S%.f").to_string();
            format!("{text} +0000 UTC")
        }
        _ => go_g(value, Some(4)),
    }
}

/// As Go's `template.HTMLEscapeString`.
fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}
