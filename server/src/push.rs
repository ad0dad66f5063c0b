//! Log lines that others push: from the bytes of a request to masked batches. Without HTTP and without a store.
//!
//! - [`loki`]: Loki's push, JSON and Protocol Buffers; [`bulk`]: Elasticsearch's `_bulk`; [`otlp`]: OpenTelemetry's logs
//! - [`fields`]: what lines have beside their text; [`collect`]: masking, labels, batches; [`recent`]: what came twice
//!
//! # Invariants
//! - Nothing leaves this module that the masker has not seen: texts and the values of labels. Every stream has the label
//!   `masked_by="server"`, so that it can be told from what was masked on its host.
//! - A line is stored with all that its sender said of it: what is no label of its stream is written behind its text.
//! - Bodies are input: sizes, lines, streams and fields are bounded, and random bytes end in an error.

pub mod bulk;
mod collect;
mod fields;
pub mod loki;
pub mod otlp;
mod recent;

pub use collect::{Collected, Collector, States};
pub use recent::{Recent, Seen};

use serde::{Deserialize, Serialize};
use shipwatch_common::{config::Problems, protobuf::Malformed};

/// Who may push lines, and what becomes of their fields.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Largest body, as it comes.
    pub max_bytes: u64,
    /// Largest body after decompression.
    pub max_decoded_bytes: u64,
    /// Most lines in one request.
    pub max_lines: u32,
    /// Most different streams in one request.
    pub max_streams: u32,
    /// Fields of OpenTelemetry's resources and of Elasticsearch's documents that become labels of the stream. Each should have few
    /// different values. The others are written behind the text of each line.
    pub stream_fields: Vec<String>,
    /// Fields of resources and documents that are left out with all that is below them: what shippers say of themselves.
    pub drop_fields: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            max_bytes: 16 << 20,
            max_decoded_bytes: 64 << 20,
            max_lines: 100_000,
            max_streams: 5_000,
            stream_fields: list(&[
                "service.name",
                "service.namespace",
                "host.name",
                "deployment.environment",
                "deployment.environment.name",
                "cloud.region",
                "k8s.namespace.name",
                "k8s.container.name",
                "kubernetes.namespace",
                "kubernetes.container.name",
                "container.name",
                "log.file.path",
                "fields.app",
                "fields.env",
            ]),
            drop_fields: list(&["@metadata", "agent", "ecs", "host", "input", "log.offset", "telemetry.sdk"]),
        }
    }
}

impl Config {
    /// Reports what is out of bounds.
    pub fn check(&self, problems: &mut Problems) {
        let mut number = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.add(key, format!("must be from {least} to {most}, not {value}"));
            }
        };
        number("max_bytes", self.max_bytes, 1 << 10, 1 << 30);
        number("max_decoded_bytes", self.max_decoded_bytes, 1 << 10, 1 << 30);
        number("max_lines", self.max_lines.into(), 1, 1_000_000);
        number("max_streams", self.max_streams.into(), 1, 100_000);
        for (key, names) in [("stream_fields", &self.stream_fields), ("drop_fields", &self.drop_fields)] {
            if names.len() > 100 || names.iter().any(String::is_empty) {
                problems.add(key, "must be at most 100 names, none of them empty");
            }
        }
    }
}

/// Why nothing of a request is taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PushError {
    /// Not the message that it should be.
    #[error("the body cannot be read: {0}")]
    Malformed(String),
    /// Over a bound.
    #[error("the request has more than {limit} {what} (`push.{key}`): send less at a time")]
    TooMany {
        /// Such as `lines`.
        what: &'static str,
        /// The bound.
        limit: u64,
        /// Its key in the section `push`.
        key: &'static str,
    },
}

impl From<Malformed> for PushError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<serde_json::Error> for PushError {
    fn from(error: serde_json::Error) -> Self {
        // The words of the decoder may quote the body: what is wrong and where is enough.
        let what = match error.classify() {
            serde_json::error::Category::Eof => "it ends too early",
            serde_json::error::Category::Data => "it is JSON of another form",
            serde_json::error::Category::Io | serde_json::error::Category::Syntax => "it is not JSON",
        };
        Self::Malformed(format!("{what}, line {} column {}", error.line(), error.column()))
    }
}

#[cfg(test)]
mod tests;
