//! OpenTelemetry's logs: `ExportLogsServiceRequest`, as Protocol Buffers and as JSON.
//!
//! Format: opentelemetry-proto 1.x, `logs/v1/logs.proto` and `common/v1/common.proto`; JSON as the OTLP specification says
//! ("JSON Protobuf Encoding"): names in camel case, 64-bit numbers as text, ids as hexadecimal.
//! A record's text is its body; attributes of the record, and of the resource where they are no labels, are written behind it.

mod message;

use super::{
    Collector, PushError,
    collect::Line,
    fields::{self, Fields},
};
use serde_json::{Map, Value};
use shipwatch_common::{model::Severity, severity, time::UnixNs};

/// A record as it came, in either encoding.
#[derive(Debug, Default, PartialEq)]
struct Record {
    time_ns: u64,
    observed_ns: u64,
    severity_number: i64,
    severity_text: String,
    body: Value,
    attributes: Fields,
    trace_id: String,
    span_id: String,
    event_name: String,
}

/// Records of one resource.
#[derive(Debug, Default, PartialEq)]
struct Resource {
    attributes: Fields,
    records: Vec<Record>,
}

/// Lines that were left out, and the first reason.
pub type Rejected = Option<(u64, String)>;

/// Reads a message in Protocol Buffers' encoding.
///
/// # Errors
/// Nothing of it can be taken.
pub fn protobuf(body: &[u8], into: &mut Collector<'_>) -> Result<Rejected, PushError> {
    take(message::request(body)?, into)
}

/// Reads a message in JSON.
///
/// # Errors
/// Nothing of it can be taken.
pub fn json(body: &[u8], into: &mut Collector<'_>) -> Result<Rejected, PushError> {
    let body: Map<String, Value> = serde_json::from_slice(body)?;
    let resources = list(&body, "resourceLogs").map(|resource| Resource {
        attributes: attributes(resource.get("resource").unwrap_or(&Value::Null)),
        records: list_of(resource, "scopeLogs").flat_map(|scope| list_of(scope, "logRecords")).map(record).collect(),
    });
    take(resources.collect(), into)
}

fn list<'a>(object: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    object.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn list_of<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// A 64-bit number, as text or as a number.
fn number(value: &Value, name: &str) -> u64 {
    match value.get(name) {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(other) => other.as_u64().unwrap_or(0),
        None => 0,
    }
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or("").to_owned()
}

fn attributes(of: &Value) -> Fields {
    list_of(of, "attributes").map(|pair| (text(pair, "key"), any(pair.get("value").unwrap_or(&Value::Null)))).collect()
}

/// `AnyValue` as plain JSON.
fn any(value: &Value) -> Value {
    let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else { return Value::Null };
    match kind.as_str() {
        "intValue" => match inner {
            Value::String(text) => text.parse::<i64>().map_or(Value::Null, Value::from),
            other => other.clone(),
        },
        "arrayValue" => list_of(inner, "values").map(any).collect(),
        "kvlistValue" => list_of(inner, "values").map(|pair| (text(pair, "key"), any(pair.get("value").unwrap_or(&Value::Null)))).collect(),
        _ => inner.clone(),
    }
}

fn record(of: &Value) -> Record {
    let severity_number = of.get("severityNumber");
    Record {
        time_ns: number(of, "timeUnixNano"),
        observed_ns: number(of, "observedTimeUnixNano"),
        severity_number: severity_number.and_then(Value::as_i64).unwrap_or(0),
        severity_text: text(of, "severityText"),
        body: of.get("body").map_or(Value::Null, any),
        attributes: attributes(of),
        trace_id: text(of, "traceId"),
        span_id: text(of, "spanId"),
        event_name: text(of, "eventName"),
    }
}

/// The specification's ranges of four.
fn severity_of(record: &Record) -> Severity {
    match record.severity_number {
        1..=4 => Severity::Trace,
        5..=8 => Severity::Debug,
        9..=12 => Severity::Info,
        13..=16 => Severity::Warn,
        17..=20 => Severity::Error,
        21..=24 => Severity::Fatal,
        _ => severity::of_field(&record.severity_text),
    }
}

fn take(resources: Vec<Resource>, into: &mut Collector<'_>) -> Result<Rejected, PushError> {
    let mut rejected: Rejected = None;
    for Resource { attributes, records } in resources {
        let (mut labels, mut common): (Vec<(String, String)>, Fields) = (Vec::new(), Vec::new());
        for (name, value) in attributes {
            let label = fields::label_name(&name);
            if into.config().stream_fields.contains(&name) && !labels.iter().any(|(known, _)| *known == label) {
                labels.push((label, fields::text_of(&value)));
            } else if !into.config().drop_fields.iter().any(|dropped| fields::is_within(&name, dropped)) {
                common.push((name, value));
            }
        }
        match into.stream(labels)? {
            Ok(stream) => records.into_iter().try_for_each(|record| into.add(stream, line(record, &common)))?,
            Err(reason) => {
                let (count, _) = rejected.get_or_insert((0, reason));
                *count += records.len() as u64;
            }
        }
    }
    Ok(rejected)
}

fn line(record: Record, common: &[(String, Value)]) -> Line {
    let severity = severity_of(&record);
    let ts_ns = [record.time_ns, record.observed_ns].into_iter().find(|ns| *ns != 0).and_then(|ns| UnixNs::try_from(ns).ok());
    let text = match record.body {
        Value::Null => String::new(),
        body => fields::text_of(&body),
    };
    let mut all = record.attributes;
    for (name, value) in [("event_name", record.event_name), ("trace_id", record.trace_id), ("span_id", record.span_id)] {
        if !value.is_empty() {
            all.push((name.to_owned(), Value::from(value)));
        }
    }
    all.extend(common.iter().cloned());
    all.retain(|(name, value)| !name.is_empty() && !value.is_null());
    Line { ts_ns, severity, text: fields::with_fields(text, &all) }
}
