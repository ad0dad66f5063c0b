//! Loki's push: `{"streams": [{"stream": {…}, "values": [["ns", "line", {…}]]}]}`, and `logproto.PushRequest`.
//!
//! Format: Loki's HTTP API reference ("Ingest logs"), and `pkg/push/push.proto`. Structured metadata is written behind the line.
//! A stream that cannot be stored is left out and told; the others are taken.

use super::{
    Collector, PushError,
    collect::Line,
    fields::{self, Fields},
};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use shipwatch_common::{
    model::Severity,
    protobuf::{Field, Reader},
    severity,
    time::UnixNs,
};
use shipwatch_logs::{MatchOp, Query};
use std::fmt;

/// Most streams that are named in one answer.
const NAMED: usize = 5;

/// What was left out of a request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LeftOut {
    /// Lines.
    pub lines: u64,
    /// The first reasons.
    pub reasons: Vec<String>,
}

impl LeftOut {
    fn add(&mut self, lines: usize, reason: &str) {
        self.lines += lines as u64;
        if self.reasons.len() < NAMED {
            self.reasons.push(reason.to_owned());
        }
    }
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    streams: Vec<StreamBody>,
}

#[derive(Deserialize)]
struct StreamBody {
    #[serde(default)]
    stream: Map<String, Value>,
    #[serde(default)]
    values: Vec<Entry>,
}

/// `["ns", "line"]` or `["ns", "line", {"name": "value"}]`.
struct Entry {
    ts_ns: UnixNs,
    text: String,
    metadata: Map<String, Value>,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OfEntry;
        impl<'de> Visitor<'de> for OfEntry {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[time in nanoseconds as text, line]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Entry, A::Error> {
                let time: Value = from.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let ts_ns = match &time {
                    Value::String(text) => text.parse().ok(),
                    Value::Number(number) => number.as_i64(),
                    _ => None,
                };
                let ts_ns = ts_ns.ok_or_else(|| A::Error::custom("a time is not nanoseconds"))?;
                let text = from.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
                let metadata = from.next_element()?.unwrap_or_default();
                while from.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Entry { ts_ns, text, metadata })
            }
        }
        from.deserialize_seq(OfEntry)
    }
}

/// Reads a JSON body.
///
/// # Errors
/// Nothing of it can be taken.
pub fn json(body: &[u8], into: &mut Collector<'_>) -> Result<LeftOut, PushError> {
    let body: Body = serde_json::from_slice(body)?;
    let mut left_out = LeftOut::default();
    for StreamBody { stream, values } in body.streams {
        let labels = stream.iter().map(|(name, value)| (name.clone(), fields::text_of(value))).collect();
        take(into, labels, values, &mut left_out)?;
    }
    Ok(left_out)
}

/// Reads a decompressed message.
///
/// # Errors
/// Nothing of it can be taken.
pub fn protobuf(message: &[u8], into: &mut Collector<'_>) -> Result<LeftOut, PushError> {
    let mut left_out = LeftOut::default();
    let mut reader = Reader(message);
    while let Some((number, field)) = reader.field()? {
        if number != 1 {
            continue;
        }
        let (mut labels, mut entries) = ("", Vec::new());
        let mut stream = Reader(field.bytes()?);
        while let Some((number, field)) = stream.field()? {
            match number {
                1 => labels = field.text()?,
                2 => entries.push(entry(field.bytes()?)?),
                _ => {}
            }
        }
        match label_pairs(labels) {
            Ok(labels) => take(into, labels, entries, &mut left_out)?,
            Err(reason) => left_out.add(entries.len(), &reason),
        }
    }
    Ok(left_out)
}

fn entry(message: &[u8]) -> Result<Entry, PushError> {
    let (mut ts_ns, mut text, mut metadata) = (0, String::new(), Map::new());
    let mut reader = Reader(message);
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => ts_ns = timestamp(field.bytes()?)?,
            // Lines may have bytes that are no UTF-8.
            2 => text = String::from_utf8_lossy(field.bytes()?).into_owned(),
            3 => {
                let (name, value) = pair(field.bytes()?)?;
                metadata.insert(name, Value::from(value));
            }
            _ => {}
        }
    }
    Ok(Entry { ts_ns, text, metadata })
}

/// `google.protobuf.Timestamp`.
fn timestamp(message: &[u8]) -> Result<UnixNs, PushError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader(message);
    while let Some((number, field)) = reader.field()? {
        match (number, field) {
            (1, Field::Number(value)) => seconds = value.cast_signed(),
            (2, Field::Number(value)) => nanos = value.cast_signed(),
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// `LabelPairAdapter`.
fn pair(message: &[u8]) -> Result<(String, String), PushError> {
    let (mut name, mut value) = (String::new(), String::new());
    let mut reader = Reader(message);
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => field.text()?.clone_into(&mut name),
            2 => field.text()?.clone_into(&mut value),
            _ => {}
        }
    }
    Ok((name, value))
}

/// `{app="shop", env="prod"}`: a selector of equalities.
fn label_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let query = Query::parse(text).map_err(|error| format!("a stream's labels cannot be read: {error}"))?;
    if query.matchers().is_empty() || query.matchers().iter().any(|matcher| matcher.op() != MatchOp::Equal) {
        return Err("a stream's labels cannot be read: they must be {name=\"value\", …}".to_owned());
    }
    Ok(query.matchers().iter().map(|matcher| (matcher.name().to_owned(), matcher.value().to_owned())).collect())
}

fn take(into: &mut Collector<'_>, labels: Vec<(String, String)>, entries: Vec<Entry>, left_out: &mut LeftOut) -> Result<(), PushError> {
    if labels.is_empty() {
        left_out.add(entries.len(), "a stream has no label: at least one is needed, such as app");
        return Ok(());
    }
    let stream = match into.stream(labels)? {
        Ok(stream) => stream,
        Err(reason) => {
            left_out.add(entries.len(), &reason);
            return Ok(());
        }
    };
    for entry in entries {
        let metadata: Fields = entry.metadata.into_iter().collect();
        let told = metadata.iter().find(|(name, _)| matches!(name.as_str(), "level" | "detected_level" | "severity" | "severity_text"));
        let severity = told.map_or(Severity::Unknown, |(_, value)| severity::of_field(&fields::text_of(value)));
        into.add(stream, Line { ts_ns: Some(entry.ts_ns), severity, text: fields::with_fields(entry.text, &metadata) })?;
    }
    Ok(())
}
