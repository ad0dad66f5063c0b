//! Bodies of Prometheus' remote write 1.0, as every contender takes them.
//!
//! Source of the format: `prompb/remote.proto` and `prompb/types.proto` of Prometheus; the frame is snappy's block format.

use crate::fleet::series::{Host, Layout};
use anyhow::{Context as _, Result};
use shipwatch_common::model::Labels;
use std::sync::Arc;

const TIMESERIES: u8 = 0x0a;
const LABEL: u8 = 0x0a;
const SAMPLE: u8 = 0x12;
const NAME: u8 = 0x0a;
const VALUE: u8 = 0x12;
const SAMPLE_VALUE: u8 = 0x09;
const SAMPLE_TIME: u8 = 0x10;

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The labels of a series, encoded once.
#[derive(Clone, Debug)]
pub struct Encoded(Box<[u8]>);

impl Encoded {
    /// Labels of a host's series, with the host in `instance`.
    #[must_use]
    pub fn new(labels: &Labels, instance: &str) -> Self {
        let mut pairs: Vec<(&str, &str)> = labels.iter().collect();
        pairs.push(("instance", instance));
        pairs.sort_unstable();
        let (mut out, mut one) = (Vec::new(), Vec::new());
        for (name, value) in pairs {
            one.clear();
            field(&mut one, NAME, name.as_bytes());
            field(&mut one, VALUE, value.as_bytes());
            field(&mut out, LABEL, &one);
        }
        Self(out.into())
    }
}

/// A body in the making.
#[derive(Debug, Default)]
pub struct Body {
    plain: Vec<u8>,
    series: Vec<u8>,
    /// Samples so far.
    pub samples: u64,
}

impl Body {
    /// Adds samples of a series.
    pub fn add(&mut self, labels: &Encoded, samples: &[(i64, f64)]) {
        self.series.clear();
        self.series.extend_from_slice(&labels.0);
        let mut one = Vec::with_capacity(24);
        for (ts, value) in samples {
            one.clear();
            one.push(SAMPLE_VALUE);
            one.extend_from_slice(&value.to_bits().to_le_bytes());
            one.push(SAMPLE_TIME);
            varint(&mut one, ts.cast_unsigned());
            field(&mut self.series, SAMPLE, &one);
        }
        field(&mut self.plain, TIMESERIES, &self.series);
        self.samples += samples.len() as u64;
    }

    /// What is sent.
    ///
    /// # Errors
    /// The body is too long for a frame.
    pub fn compressed(&self) -> Result<Vec<u8>> {
        snap::raw::Encoder::new().compress_vec(&self.plain).context("compressing a body")
    }
}

/// A host with its encoded labels.
#[derive(Debug)]
pub struct Sender {
    host: Host,
    labels: Vec<Encoded>,
}

impl Sender {
    /// The host of this number.
    #[must_use]
    pub fn new(layout: &Arc<Layout>, number: u32) -> Self {
        let instance = name(number);
        let labels = layout.labels().map(|labels| Encoded::new(labels, &instance)).collect();
        Self { host: Host::new(Arc::clone(layout), number.into()), labels }
    }

    /// Adds the next tick.
    pub fn tick(&mut self, ts: i64, body: &mut Body) {
        for ((_, value), labels) in self.host.tick().iter().zip(&self.labels) {
            body.add(labels, &[(ts, *value)]);
        }
    }
}

/// A host's name.
#[must_use]
pub fn name(number: u32) -> String {
    format!("host-{number:05}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_what_the_protocol_says() {
        let labels = Labels::new([(Labels::NAME, "up"), ("job", "a")]).unwrap();
        let mut body = Body::default();
        body.add(&Encoded::new(&labels, "h"), &[(300, 1.0)]);
        let mut expected =
            b"\x0a\x36\x0a\x0e\x0a\x08__name__\x12\x02up\x0a\x0d\x0a\x08instance\x12\x01h\x0a\x08\x0a\x03job\x12\x01a".to_vec();
        expected.extend(b"\x12\x0c\x09\0\0\0\0\0\0\xf0\x3f\x10\xac\x02");
        expected[1] = (expected.len() - 2) as u8;
        assert_eq!(body.plain, expected);
        let back = snap::raw::Decoder::new().decompress_vec(&body.compressed().unwrap()).unwrap();
        assert_eq!((back, body.samples), (expected, 1));
    }
}
