//! Elasticsearch's `_bulk`: a line with an action, then a line with a document, and so on.
//!
//! Format: Elasticsearch's reference, "Bulk API". A document's text is its `message`; its time is `@timestamp` (RFC 3339, or
//! milliseconds); fields become labels or are written behind the text. A document without a message is stored as it is.
//!
//! # Left out
//! `update` and `delete`: logs are not changed. They are answered with an error of their own.

use super::{
    Collector, PushError,
    collect::Line,
    fields::{self, Fields},
};
use jiff::Timestamp;
use serde_json::{Map, Value};
use shipwatch_common::{model::Severity, severity, time::UnixNs};

/// What became of one action.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Item {
    /// `create` or `index`, or what else was asked for.
    pub action: String,
    /// Where it should go.
    pub index: String,
    /// Why it was not taken.
    pub error: Option<(&'static str, String)>,
}

/// Reads a body. `index` is the one of the URL.
///
/// # Errors
/// Nothing of it can be taken: an action that cannot be read, or a bound.
pub fn read(body: &[u8], index: &str, into: &mut Collector<'_>) -> Result<Vec<Item>, PushError> {
    let mut items = Vec::new();
    let mut lines = body.split(|byte| *byte == b'\n').enumerate().map(|(at, line)| (at + 1, line.trim_ascii()));
    while let Some((number, line)) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let malformed = |what: &str| PushError::Malformed(format!("line {number} {what}"));
        let action: Map<String, Value> =
            serde_json::from_slice(line).map_err(|_| malformed("is not an action, such as {\"create\":{}}"))?;
        let (name, about) = action.into_iter().next().ok_or_else(|| malformed("is an empty action"))?;
        let to = about.get("_index").and_then(Value::as_str).unwrap_or(index).to_owned();
        let error = match name.as_str() {
            "create" | "index" => {
                let (_, document) = lines.next().ok_or_else(|| malformed("has no document behind it"))?;
                document_line(document, &to, into)?.err()
            }
            "delete" => Some("logs are not changed: `delete` is not supported"),
            "update" => {
                lines.next().ok_or_else(|| malformed("has no document behind it"))?;
                Some("logs are not changed: `update` is not supported")
            }
            _ => return Err(malformed("has an unknown action")),
        };
        let error = error.map(|text| {
            (if name == "create" || name == "index" { "document_parsing_exception" } else { "illegal_argument_exception" }, text.to_owned())
        });
        items.push(Item { action: name, index: to, error });
    }
    Ok(items)
}

fn document_line(document: &[u8], index: &str, into: &mut Collector<'_>) -> Result<Result<(), &'static str>, PushError> {
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(document) else { return Ok(Err("the document is not a JSON object")) };
    let ts_ns = object.get("@timestamp").or_else(|| object.get("timestamp")).and_then(time);
    let mut all = Fields::new();
    fields::flatten("", object, &mut all);
    let told = all.iter().find(|(name, _)| matches!(name.as_str(), "log.level" | "level" | "severity" | "log.syslog.severity.name"));
    let severity = told.map_or(Severity::Unknown, |(_, value)| severity::of_field(&fields::text_of(value)));
    let message = all.iter().position(|(name, value)| name == "message" && value.is_string());
    let config = into.config();
    let mut labels = if index.is_empty() { Vec::new() } else { vec![("index".to_owned(), index.to_owned())] };
    for field in &config.stream_fields {
        if let Some((_, value)) = all.iter().find(|(name, _)| name == field)
            && !labels.iter().any(|(name, _)| *name == fields::label_name(field))
        {
            labels.push((fields::label_name(field), fields::text_of(value)));
        }
    }
    let text = match message {
        Some(at) => {
            let text = fields::text_of(&all.remove(at).1);
            all.retain(|(name, _)| {
                !matches!(name.as_str(), "@timestamp" | "timestamp")
                    && !config.stream_fields.contains(name)
                    && !config.drop_fields.iter().any(|dropped| fields::is_within(name, dropped))
            });
            fields::with_fields(text, &all)
        }
        None => String::from_utf8_lossy(document).into_owned(),
    };
    match into.stream(labels)? {
        Ok(stream) => into.add(stream, Line { ts_ns, severity, text }).map(Ok),
        Err(_) => Ok(Err("the document's fields make labels that cannot be stored: too many, or too long")),
    }
}

/// RFC 3339, or milliseconds since 1970.
fn time(value: &Value) -> Option<UnixNs> {
    match value {
        Value::String(text) => match text.parse::<Timestamp>() {
            Ok(at) => i64::try_from(at.as_nanosecond()).ok(),
            Err(_) => text.parse::<i64>().ok()?.checked_mul(1_000_000),
        },
        Value::Number(number) => number.as_i64()?.checked_mul(1_000_000),
        _ => None,
    }
}
