//! Requests of Prometheus' remote write that this side sends: 1.0 and 2.0, from samples to the bytes of a body.
//!
//! # Invariants
//! - Labels are sorted by name, with the external labels among them; a label that the series has itself wins over an external one.
//! - Values go out bit by bit: a stale marker stays one.
//! - What [`super::Receiver`] reads from a body is what was put in.

use super::{
    Description, Version,
    request::Kind,
    wire::{put_bytes, put_double, put_number, put_varint},
};
use shipwatch_common::{model::Labels, time::UnixMs};
use std::collections::HashMap;

/// One series with its samples, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Which series.
    pub labels: &'a Labels,
    /// Times and values.
    pub samples: &'a [(UnixMs, f64)],
    /// What its metric is, if known; sent along in 2.0.
    pub description: Option<&'a Description>,
}

/// The body of a request, compressed. `external` is sorted by name.
///
/// # Errors
/// More bytes than snappy's format can hold.
pub fn body(version: Version, series: &[Outgoing<'_>], external: &[(String, String)]) -> Result<Vec<u8>, SendError> {
    compress(&match version {
        Version::V1 => v1(series, external),
        Version::V2 => v2(series, external),
    })
}

/// The body of a 1.0 request that only says what metrics are, compressed.
///
/// # Errors
/// More bytes than snappy's format can hold.
pub fn metadata_body(metrics: &[(String, Description)]) -> Result<Vec<u8>, SendError> {
    let (mut out, mut message) = (Vec::new(), Vec::new());
    for (name, description) in metrics {
        message.clear();
        put_number(&mut message, 1, Kind::number(description.kind));
        put_bytes(&mut message, 2, name.as_bytes());
        put_bytes(&mut message, 4, description.help.as_bytes());
        put_bytes(&mut message, 5, description.unit.as_bytes());
        put_bytes(&mut out, 3, &message);
    }
    compress(&out)
}

/// Why a body could not be made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a request cannot be compressed: {0}")]
pub struct SendError(String);

fn compress(message: &[u8]) -> Result<Vec<u8>, SendError> {
    snap::raw::Encoder::new().compress_vec(message).map_err(|error| SendError(error.to_string()))
}

/// The series' labels and the external ones, sorted.
fn pairs<'a>(labels: &'a Labels, external: &'a [(String, String)], out: &mut Vec<(&'a str, &'a str)>) {
    out.clear();
    out.extend(labels.iter());
    if !external.is_empty() {
        let own = out.len();
        for (name, value) in external {
            if !value.is_empty() && out[..own].binary_search_by(|pair| pair.0.cmp(name)).is_err() {
                out.push((name, value));
            }
        }
        out.sort_unstable();
    }
}

fn put_sample(message: &mut Vec<u8>, (ts, value): (UnixMs, f64), scratch: &mut Vec<u8>) {
    scratch.clear();
    put_double(scratch, 1, value);
    put_number(scratch, 2, ts.cast_unsigned());
    put_bytes(message, 2, scratch);
}

fn v1(series: &[Outgoing<'_>], external: &[(String, String)]) -> Vec<u8> {
    let (mut out, mut message, mut scratch, mut labels) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for one in series {
        message.clear();
        pairs(one.labels, external, &mut labels);
        for (name, value) in &labels {
            scratch.clear();
            put_bytes(&mut scratch, 1, name.as_bytes());
            put_bytes(&mut scratch, 2, value.as_bytes());
            put_bytes(&mut message, 1, &scratch);
        }
        one.samples.iter().for_each(|sample| put_sample(&mut message, *sample, &mut scratch));
        put_bytes(&mut out, 1, &message);
    }
    out
}

/// Texts of a 2.0 message, each once; the first is the empty one.
#[derive(Debug)]
struct Symbols<'a> {
    texts: Vec<&'a str>,
    places: HashMap<&'a str, u64>,
}

impl<'a> Symbols<'a> {
    fn of(&mut self, text: &'a str) -> u64 {
        *self.places.entry(text).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() as u64 - 1
        })
    }
}

fn v2(series: &[Outgoing<'_>], external: &[(String, String)]) -> Vec<u8> {
    let mut symbols = Symbols { texts: vec![""], places: HashMap::from([("", 0)]) };
    let (mut all, mut message, mut scratch, mut labels) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for one in series {
        message.clear();
        scratch.clear();
        pairs(one.labels, external, &mut labels);
        for (name, value) in &labels {
            put_varint(&mut scratch, symbols.of(name));
            put_varint(&mut scratch, symbols.of(value));
        }
        put_bytes(&mut message, 1, &scratch);
        one.samples.iter().for_each(|sample| put_sample(&mut message, *sample, &mut scratch));
        if let Some(description) = one.description {
            scratch.clear();
            put_number(&mut scratch, 1, Kind::number(description.kind));
            put_number(&mut scratch, 3, symbols.of(&description.help));
            put_number(&mut scratch, 4, symbols.of(&description.unit));
            put_bytes(&mut message, 5, &scratch);
        }
        put_bytes(&mut all, 5, &message);
    }
    let mut out = Vec::with_capacity(all.len() + symbols.texts.iter().map(|text| text.len() + 3).sum::<usize>());
    symbols.texts.iter().for_each(|text| put_bytes(&mut out, 4, text.as_bytes()));
    out.append(&mut all);
    out
}

#[cfg(test)]
mod tests {
    use super::{
        super::{ReceiveConfig, Receiver},
        *,
    };
    use proptest::prelude::*;

    const STALE: u64 = 0x7ff0_0000_0000_0002;

    fn external() -> Vec<(String, String)> {
        [("a_first", "1"), ("job", "other"), ("zone", "z")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    fn labels(metric: &str) -> Labels {
        Labels::new([("__name__", metric), ("job", "x"), ("主机", "甲\n")]).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_read(
            samples in proptest::collection::vec((any::<i64>(), any::<u64>()), 1..20),
            metrics in proptest::collection::vec("[a-z]{1,9}", 1..5),
            with_external in any::<bool>(),
        ) {
            let samples: Vec<_> = samples.into_iter().map(|(ts, bits)| (ts, f64::from_bits(bits))).collect();
            let external = if with_external { external() } else { Vec::new() };
            let description = Description { kind: "counter", help: "What it is.".to_owned(), unit: "s".to_owned() };
            let all: Vec<_> = metrics.iter().map(|metric| labels(metric)).collect();
            let series: Vec<_> =
                all.iter().map(|labels| Outgoing { labels, samples: &samples, description: Some(&description) }).collect();
            for version in [Version::V1, Version::V2] {
                let body = body(version, &series, &external).unwrap();
                let written = Receiver::new(ReceiveConfig::default()).read(version, &body, 0).unwrap();
                prop_assert_eq!(written.samples.len(), samples.len() * series.len());
                for (at, got) in written.samples.iter().enumerate() {
                    let (own, (ts, value)) = (series[at / samples.len()].labels, samples[at % samples.len()]);
                    prop_assert_eq!((got.ts_ms, got.value.to_bits()), (ts, value.to_bits()));
                    let expected = if with_external { own.with([("a_first", "1"), ("zone", "z")]).unwrap() } else { own.clone() };
                    prop_assert_eq!(&*got.labels, &expected);
                }
                prop_assert_eq!(written.metadata.is_empty(), version == Version::V1);
                for (name, told) in &written.metadata {
                    prop_assert!(metrics.contains(name));
                    prop_assert_eq!(told, &description);
                }
            }
        }
    }

    #[test]
    fn labels_are_sorted_on_the_wire_and_stale_markers_stay() {
        let own = labels("up");
        let (mut merged, external) = (Vec::new(), external());
        pairs(&own, &external, &mut merged);
        assert_eq!(merged.iter().map(|pair| pair.0).collect::<Vec<_>>(), ["__name__", "a_first", "job", "zone", "主机"]);
        assert_eq!(merged[2].1, "x");
        let message = v1(&[Outgoing { labels: &own, samples: &[(1, f64::from_bits(STALE))], description: None }], &[]);
        assert!(message.windows(8).any(|bytes| bytes == STALE.to_le_bytes()));
    }

    #[test]
    fn metadata_is_read_as_it_was_sent() {
        let kinds = ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];
        let told: Vec<_> = kinds
            .iter()
            .map(|kind| (format!("m_{kind}"), Description { kind, help: format!("help of {kind}"), unit: "bytes".to_owned() }))
            .collect();
        let read = Receiver::new(ReceiveConfig::default()).read(Version::V1, &metadata_body(&told).unwrap(), 0).unwrap();
        assert_eq!(read.metadata, told);
    }
}
