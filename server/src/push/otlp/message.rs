//! OpenTelemetry's messages in Protocol Buffers' encoding.
//!
//! # Invariants
//! - Values within values are read to [`MAX_DEPTH`]; deeper ones are malformed.

use super::{super::PushError, Record, Resource};
use serde_json::{Map, Value};
use shipwatch_common::protobuf::{Field, Malformed, Reader};
use std::fmt::Write as _;

/// Depth of arrays and lists of pairs in a value.
const MAX_DEPTH: usize = 32;

/// `ExportLogsServiceRequest`.
pub(super) fn request(message: &[u8]) -> Result<Vec<Resource>, PushError> {
    let mut all = Vec::new();
    let mut reader = Reader(message);
    while let Some((number, field)) = reader.field()? {
        if number == 1 {
            all.push(resource_logs(field.bytes()?)?);
        }
    }
    Ok(all)
}

fn resource_logs(message: &[u8]) -> Result<Resource, Malformed> {
    let mut resource = Resource::default();
    let mut reader = Reader(message);
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => {
                let mut inner = Reader(field.bytes()?);
                while let Some((number, field)) = inner.field()? {
                    if number == 1 {
                        resource.attributes.push(pair(field.bytes()?, 0)?);
                    }
                }
            }
            2 => {
                let mut scope = Reader(field.bytes()?);
                while let Some((number, field)) = scope.field()? {
                    if number == 2 {
                        resource.records.push(record(field.bytes()?)?);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(resource)
}

fn record(message: &[u8]) -> Result<Record, Malformed> {
    let mut record = Record::default();
    let mut reader = Reader(message);
    while let Some((number, field)) = reader.field()? {
        match (number, field) {
            (1, Field::Fixed64(ns)) => record.time_ns = ns,
            (11, Field::Fixed64(ns)) => record.observed_ns = ns,
            (2, Field::Number(severity)) => record.severity_number = severity.cast_signed(),
            (3, _) => record.severity_text = lossy(field)?,
            (5, _) => record.body = any(field.bytes()?, 0)?,
            (6, _) => record.attributes.push(pair(field.bytes()?, 0)?),
            (9, _) => record.trace_id = hex(field.bytes()?),
            (10, _) => record.span_id = hex(field.bytes()?),
            (12, _) => record.event_name = lossy(field)?,
            _ => {}
        }
    }
    Ok(record)
}

/// Senders put bytes that are no UTF-8 into texts.
fn lossy(field: Field<'_>) -> Result<String, Malformed> {
    Ok(String::from_utf8_lossy(field.bytes()?).into_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// `KeyValue`.
fn pair(message: &[u8], depth: usize) -> Result<(String, Value), Malformed> {
    let (mut key, mut value) = (String::new(), Value::Null);
    let mut reader = Reader(message);
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => key = lossy(field)?,
            2 => value = any(field.bytes()?, depth)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// `AnyValue`.
fn any(message: &[u8], depth: usize) -> Result<Value, Malformed> {
    if depth > MAX_DEPTH {
        return Err(Malformed);
    }
    let mut value = Value::Null;
    let mut reader = Reader(message);
    while let Some((number, field)) = reader.field()? {
        value = match number {
            1 => Value::from(lossy(field)?),
            2 => Value::from(field.number()? != 0),
            3 => Value::from(field.number()?.cast_signed()),
            // JSON has no number for infinities.
            4 => serde_json::Number::from_f64(field.double()?)
                .map_or_else(|| Value::from(field.double().unwrap_or(0.0).to_string()), Value::from),
            5 => Value::Array(inner(field, |message| any(message, depth + 1))?),
            6 => Value::Object(inner(field, |message| pair(message, depth + 1))?.into_iter().collect::<Map<_, _>>()),
            7 => Value::from(hex(field.bytes()?)),
            _ => value,
        };
    }
    Ok(value)
}

/// `ArrayValue` and `KeyValueList`.
fn inner<T>(field: Field<'_>, read: impl Fn(&[u8]) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
    let mut all = Vec::new();
    let mut reader = Reader(field.bytes()?);
    while let Some((number, field)) = reader.field()? {
        if number == 1 {
            all.push(read(field.bytes()?)?);
        }
    }
    Ok(all)
}
