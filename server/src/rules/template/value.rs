//! Values in templates, and how Go prints them.

use shipwatch_common::model::Labels;
use std::{collections::BTreeMap, sync::Arc};

/// Runs a query for `query "…"`.
pub type QueryFn<'a> = &'a dyn Fn(&str) -> Result<Vec<(Arc<Labels>, f64)>, String>;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// Label sets: a missing name is an empty text.
    Map(BTreeMap<String, String>),
    /// An element of a query's result.
    Sample(BTreeMap<String, String>, f64),
    List(Vec<Self>),
    /// `.` at the top: `.Labels`, `.Value`, `.ExternalURL`, `.ExternalLabels`.
    Root,
}

pub(super) fn map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl Value {
    /// Go's truth: zero and empty are false.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(flag) => *flag,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Sample(..) | Self::Root => true,
        }
    }

    /// As Go's `%v`.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Nil => "<no value>".to_owned(),
            Self::Bool(flag) => flag.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Float(number) => go_g(*number, None),
            Self::Text(text) => text.clone(),
            Self::Map(map) => {
                let pairs: Vec<String> = map.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                format!("map[{}]", pairs.join(" "))
            }
            Self::Sample(labels, value) => format!("{{{} {}}}", Self::Map(labels.clone()).show(), go_g(*value, None)),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(Self::show).collect();
                format!("[{}]", items.join(" "))
            }
            Self::Root => "{}".to_owned(),
        }
    }

    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Map(_) => "map[string]string",
            Self::Sample(..) => "sample",
            Self::List(_) => "list",
            Self::Root => "data",
        }
    }

    /// As Prometheus' `convertToFloat`.
    pub(super) fn number(&self) -> Result<f64, String> {
        match self {
            Self::Float(number) => Ok(*number),
            #[expect(clippy::cast_precision_loss, reason = "as Go converts")]
            Self::Int(number) => Ok(*number as f64),
            Self::Text(text) => parse_float(text).ok_or_else(|| format!("strconv.ParseFloat: parsing {text:?}: invalid syntax")),
            other => Err(format!("can't convert {} to float", other.kind())),
        }
    }

    pub(super) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(format!("wrong type for value; expected string; got {}", other.kind())),
        }
    }
}

fn parse_float(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" | "inf" | "+inf" => Some(f64::INFINITY),
        "-Inf" | "-inf" => Some(f64::NEG_INFINITY),
        "NaN" | "nan" => Some(f64::NAN),
        text if text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) => text.parse().ok(),
        _ => None,
    }
}

/// Not a number that digits can show.
fn special(value: f64) -> Option<&'static str> {
    if value.is_nan() {
        Some("NaN")
    } else if value == f64::INFINITY {
        Some("+Inf")
    } else if value == f64::NEG_INFINITY {
        Some("-Inf")
    } else {
        None
    }
}

/// Go's `%g` with a precision, or the shortest digits without.
pub(super) fn go_g(value: f64, precision: Option<usize>) -> String {
    if let Some(text) = special(value) {
        return text.to_owned();
    }
    let wanted = precision.map(|digits| digits.max(1));
    let scientific = wanted.map_or_else(|| format!("{value:e}"), |digits| format!("{value:.*e}", digits - 1));
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    // As Go decides: the shortest form turns to exponents at 6 digits before the point.
    let limit = match wanted {
        None => 6,
        Some(wanted) if wanted > digits && exponent >= 0 && digits > exponent.unsigned_abs() as usize => digits,
        Some(wanted) => wanted,
    };
    if exponent < -4 || exponent >= i32::try_from(limit).unwrap_or(i32::MAX) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let rounded: f64 = scientific.parse().unwrap_or(value);
    rounded.to_string()
}

/// Go's `%f`.
pub(super) fn go_f(value: f64, precision: usize) -> String {
    special(value).map_or_else(|| format!("{value:.precision$}"), str::to_owned)
}

/// Go's `%e`.
pub(super) fn go_e(value: f64, precision: usize) -> String {
    if let Some(text) = special(value) {
        return text.to_owned();
    }
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}

/// Go's `%e` with the fewest digits: how Prometheus' API writes an alert's value.
pub(crate) fn go_e_shortest(value: f64) -> String {
    if let Some(text) = special(value) {
        return text.to_owned();
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
}
