//! Metrics as snapshots against a dictionary.
//!
//! Both ends of a lane's stream hold the same dictionary (series in order of first use) and the last value of each.
//! A snapshot says for each entry, in two bits: absent, same value as before, or changed; then come the changed values.
//! A changed value is a decimal number wherever that is exact (`1234.56` = 123456 × 10⁻²), written as the difference
//! to the last value at the same scale; else the eight bytes of the float.
//!
//! Between two ticks of a host about three quarters of its series do not change, and most others move by little.
//!
//! # Invariants
//! - Decoding gives the same bits that were encoded: NaN payloads, infinities and -0 included.
//! - The dictionary is bounded by [`MAX_DICTIONARY`]; a stream that needs more must begin again.

use super::FrameError;
use crate::model::{Labels, Sample};
use crate::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc};

/// Most series that one stream may announce.
pub const MAX_DICTIONARY: usize = 200_000;

/// The samples of one tick as they lie in the spool: complete, so that any record can be read alone.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct MetricsBatch {
    /// Time of all samples.
    pub ts_ms: UnixMs,
    /// Series and values.
    pub samples: Vec<(Arc<Labels>, f64)>,
}

const ABSENT: u8 = 0;
const SAME: u8 = 1;
const CHANGED: u8 = 2;

/// Scales that are tried, by how often they fit; the index is the value's tag.
const EXPONENTS: [i32; 6] = [0, 2, 3, 1, 6, 9];

/// A power of ten: exact for every one of [`EXPONENTS`].
fn ten_to(exponent: i32) -> f64 {
    match exponent {
        0 => 1.0,
        1 => 10.0,
        2 => 100.0,
        3 => 1_000.0,
        6 => 1_000_000.0,
        9 => 1_000_000_000.0,
        other => 10f64.powi(other),
    }
}
const TAG_FLOAT: u64 = 7;
/// Beyond 2^53 whole numbers are no longer exact in a float.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The value as a whole number of 10^-exponent, if that is exact to the bit.
fn scaled(value: f64, exponent: i32) -> Option<i64> {
    let whole = (value * ten_to(exponent)).round();
    if whole.is_nan() || whole.abs() >= MAX_EXACT {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be a whole number below 2^53")]
    let whole = whole as i64;
    // Compared as the receiver will compute it: -0 comes back as 0 and is not exact.
    (unscaled(whole, exponent).to_bits() == value.to_bits()).then_some(whole)
}

fn unscaled(whole: i64, exponent: i32) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "below 2^53 by construction; a peer's larger number only gives another value")]
    let value = whole as f64;
    value / ten_to(exponent)
}

const fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

fn put_varint(out: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number & 0x7f).unwrap_or(0));
}

fn take_varint(bytes: &mut &[u8]) -> Result<u128, FrameError> {
    // Nearly all are short: eight bytes at most, in arithmetic of that size.
    let mut short_number = 0u64;
    for (at, byte) in bytes.iter().take(8).enumerate() {
        short_number |= u64::from(byte & 0x7f) << (at * 7);
        if byte & 0x80 == 0 {
            *bytes = bytes.get(at + 1..).unwrap_or_default();
            return Ok(short_number.into());
        }
    }
    let mut number = 0u128;
    for shift in (0..77).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or_else(short)?;
        *bytes = rest;
        number |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(FrameError::Decode("a number in the snapshot is too long".to_owned()))
}

fn short() -> FrameError {
    FrameError::Decode("the snapshot ends too early".to_owned())
}

/// The sending end's dictionary.
#[derive(Debug, Default)]
pub struct SnapshotEncoder {
    ids: HashMap<Arc<Labels>, usize>,
    last: Vec<f64>,
}

impl SnapshotEncoder {
    /// Series announced so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.last.len()
    }

    /// Whether nothing was announced yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// Encodes one tick: the series to announce, and the body. A series that comes twice keeps its last value.
    pub fn encode(&mut self, batch: &MetricsBatch) -> (Vec<Labels>, Vec<u8>) {
        let mut announced = Vec::new();
        let mut now: Vec<Option<f64>> = vec![None; self.last.len()];
        for (labels, value) in &batch.samples {
            let id = if let Some(id) = self.ids.get(labels) {
                *id
            } else {
                let id = self.last.len();
                self.ids.insert(Arc::clone(labels), id);
                self.last.push(0.0);
                now.push(None);
                announced.push(labels.as_ref().clone());
                id
            };
            now[id] = Some(*value);
        }
        let mut body = vec![0u8; now.len().div_ceil(4)];
        let mut values = Vec::new();
        for (id, value) in now.into_iter().enumerate() {
            let Some(value) = value else { continue };
            let last = &mut self.last[id];
            let mark = if value.to_bits() == last.to_bits() {
                SAME
            } else {
                put_value(&mut values, *last, value);
                *last = value;
                CHANGED
            };
            body[id / 4] |= mark << (id % 4 * 2);
        }
        body.extend_from_slice(&values);
        (announced, body)
    }
}

fn put_value(out: &mut Vec<u8>, last: f64, value: f64) {
    for (tag, exponent) in EXPONENTS.iter().enumerate() {
        if let Some(whole) = scaled(value, *exponent) {
            let base = scaled(last, *exponent).unwrap_or(0);
            let difference = u128::from(zigzag(whole.wrapping_sub(base)));
            put_varint(out, difference << 3 | tag as u128);
            return;
        }
    }
    out.push(u8::try_from(TAG_FLOAT).unwrap_or(7));
    out.extend_from_slice(&value.to_bits().to_be_bytes());
}

/// The receiving end's dictionary. `T` is what the receiver keeps for a series (labels with the host's own added).
#[derive(Debug)]
pub struct SnapshotDecoder<T> {
    series: Vec<T>,
    last: Vec<f64>,
}

impl<T> Default for SnapshotDecoder<T> {
    fn default() -> Self {
        Self { series: Vec::new(), last: Vec::new() }
    }
}

impl<T: Clone> SnapshotDecoder<T> {
    /// Decodes one tick. `new_series` were announced with it.
    ///
    /// # Errors
    /// Bytes that are no snapshot, or more series than [`MAX_DICTIONARY`]. The stream cannot be read further.
    pub fn decode(&mut self, new_series: Vec<T>, body: &[u8]) -> Result<Vec<(T, f64)>, FrameError> {
        self.decode_as(new_series, body, |series, value| (series.clone(), value))
    }

    /// As [`SnapshotDecoder::decode`], giving what `sample` makes of a series and its value.
    ///
    /// # Errors
    /// See [`SnapshotDecoder::decode`].
    pub fn decode_as<S>(&mut self, new_series: Vec<T>, body: &[u8], mut sample: impl FnMut(&T, f64) -> S) -> Result<Vec<S>, FrameError> {
        if self.series.len() + new_series.len() > MAX_DICTIONARY {
            return Err(FrameError::TooLarge { bytes: self.series.len() + new_series.len(), max: MAX_DICTIONARY });
        }
        self.last.resize(self.series.len() + new_series.len(), 0.0);
        self.series.extend(new_series);
        let (marks, mut values) = body.split_at_checked(self.series.len().div_ceil(4)).ok_or_else(short)?;
        let mut samples = Vec::with_capacity(self.series.len());
        for ((id, series), last) in self.series.iter().enumerate().zip(&mut self.last) {
            match marks[id / 4] >> (id % 4 * 2) & 3 {
                ABSENT => continue,
                SAME => {}
                CHANGED => *last = take_value(&mut values, *last)?,
                other => return Err(FrameError::Decode(format!("mark {other} in the snapshot is not known"))),
            }
            samples.push(sample(series, *last));
        }
        if !values.is_empty() {
            return Err(FrameError::Decode(format!("{} bytes are left over in the snapshot", values.len())));
        }
        Ok(samples)
    }
}

fn take_value(bytes: &mut &[u8], last: f64) -> Result<f64, FrameError> {
    let number = take_varint(bytes)?;
    let tag = u64::try_from(number & 7).unwrap_or(0);
    if tag == TAG_FLOAT {
        let (float, rest) = bytes.split_first_chunk::<8>().ok_or_else(short)?;
        *bytes = rest;
        return Ok(f64::from_bits(u64::from_be_bytes(*float)));
    }
    let exponent = *EXPONENTS
        .get(usize::try_from(tag).unwrap_or(usize::MAX))
        .ok_or_else(|| FrameError::Decode(format!("tag {tag} in the snapshot is not known")))?;
    let difference = u64::try_from(number >> 3).map_err(|_| FrameError::Decode("a number in the snapshot is too large".to_owned()))?;
    let base = scaled(last, exponent).unwrap_or(0);
    Ok(unscaled(base.wrapping_add(unzigzag(difference)), exponent))
}

impl MetricsBatch {
    /// As samples.
    #[must_use]
    pub fn into_samples(self) -> Vec<Sample> {
        self.samples.into_iter().map(|(labels, value)| Sample { labels, ts_ms: self.ts_ms, value }).collect()
    }
}
