//! A record of samples that wait to be sent, as bytes: series are named once in a file and by number afterwards.
//!
//! ```text
//! record : marks | new series: raw length: varint, zstd(raw) | samples: a frame as in `head.db`
//! marks  : count: varint | (source: bytes with length, sequence: varint)*
//! raw    : count: varint | (count: varint | (name, value: bytes with length)*)*
//! ```
//!
//! # Invariants
//! - What is not whole is an error with its reason, never a panic; memory is bounded by [`MAX_RAW_BYTES`] and by the frame's bounds.
//! - The reader of a file counts its series in the order in which records bring them; a sample names its series by that number.

use crate::store::{
    frames::Frame,
    varint::{Reader, put, put_bytes},
};
use shipwatch_common::{model::Labels, time::UnixMs};
use std::sync::Arc;

/// Most bytes of label sets that a record brings, before compression; a writer stops far below.
const MAX_RAW_BYTES: u64 = 64 << 20;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queued {
    /// Of senders with a sequence: the last batch that is in this record or in one before.
    pub marks: Vec<(String, u64)>,
    /// Series that this file did not have before.
    pub series: Vec<Arc<Labels>>,
    /// Number of the series, time, value.
    pub samples: Vec<(u32, UnixMs, f64)>,
}

impl Queued {
    /// Most samples of one record.
    pub const MAX_SAMPLES: usize = 10_000;

    /// As bytes.
    ///
    /// # Errors
    /// No memory to compress with.
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut out = encode_marks(&self.marks);
        let mut raw = Vec::new();
        put(&mut raw, self.series.len() as u64);
        for labels in &self.series {
            put(&mut raw, labels.len() as u64);
            for (name, value) in labels.iter() {
                put_bytes(&mut raw, name.as_bytes());
                put_bytes(&mut raw, value.as_bytes());
            }
        }
        put(&mut out, raw.len() as u64);
        put_bytes(&mut out, &zstd::bulk::compress(&raw, 1)?);
        let mut frame = Frame::default();
        for (series, ts, value) in &self.samples {
            frame.push(i64::from(*series), *ts, *value);
        }
        out.extend_from_slice(&frame.encode()?);
        Ok(out)
    }

    /// From bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader(bytes);
        let marks = read_marks(&mut reader).ok_or("its marks have a wrong structure")?;
        let raw_len = reader.number().filter(|len| *len <= MAX_RAW_BYTES).ok_or("its series have a wrong length")?;
        let compressed = reader.bytes().ok_or("it is cut short")?;
        let raw = zstd::bulk::decompress(compressed, raw_len as usize).map_err(|_| "its series cannot be decompressed")?;
        let series = read_series(&raw).ok_or("its series have a wrong structure")?;
        let frame = Frame::decode(reader.0)?;
        let sample = |(id, ts, value): (i64, i64, f64)| Some((u32::try_from(id).ok()?, ts, value));
        let samples = frame.iter().map(sample).collect::<Option<_>>().ok_or("a sample has a wrong series")?;
        Ok(Self { marks, series, samples })
    }
}

/// Marks alone, for the head of a file.
#[must_use]
pub fn encode_marks(marks: &[(String, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, marks.len() as u64);
    for (source, seq) in marks {
        put_bytes(&mut out, source.as_bytes());
        put(&mut out, *seq);
    }
    out
}

/// What [`encode_marks`] wrote.
#[must_use]
pub fn decode_marks(bytes: &[u8]) -> Option<Vec<(String, u64)>> {
    let mut reader = Reader(bytes);
    read_marks(&mut reader).filter(|_| reader.0.is_empty())
}

fn read_marks(reader: &mut Reader<'_>) -> Option<Vec<(String, u64)>> {
    let count = reader.number()?;
    let mut mark = || Some((std::str::from_utf8(reader.bytes()?).ok()?.to_owned(), reader.number()?));
    (0..count).map(|_| mark()).collect()
}

fn read_series(raw: &[u8]) -> Option<Vec<Arc<Labels>>> {
    let mut reader = Reader(raw);
    let count = reader.number()?;
    let mut one = || {
        let pairs = reader.number().filter(|pairs| *pairs <= Labels::MAX_LABELS as u64)?;
        let mut text = || std::str::from_utf8(reader.bytes()?).ok();
        let pairs = (0..pairs).map(|_| Some((text()?, text()?))).collect::<Option<Vec<(&str, &str)>>>()?;
        Labels::new(pairs).ok().map(Arc::new)
    };
    let series = (0..count).map(|_| one()).collect::<Option<Vec<_>>>()?;
    reader.0.is_empty().then_some(series)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn records_round_trip_and_torn_ones_are_errors(
            marks in proptest::collection::vec((".{0,9}", any::<u64>()), 0..4),
            names in proptest::collection::vec("[a-z]{1,9}", 0..9),
            samples in proptest::collection::vec((any::<u32>(), any::<i64>(), any::<u64>()), 0..99),
            at in any::<proptest::sample::Index>(),
        ) {
            let series = names.iter().map(|name| Arc::new(Labels::new([("__name__", name.as_str()), ("x", "甲")]).unwrap())).collect();
            let samples: Vec<_> = samples.into_iter().map(|(id, ts, bits)| (id, ts, f64::from_bits(bits))).collect();
            let record = Queued { marks, series, samples };
            let bytes = record.encode().unwrap();
            let back = Queued::decode(&bytes).unwrap();
            prop_assert_eq!((&back.marks, &back.series), (&record.marks, &record.series));
            let bits = |record: &Queued| record.samples.iter().map(|(id, ts, value)| (*id, *ts, value.to_bits())).collect::<Vec<_>>();
            prop_assert_eq!(bits(&back), bits(&record));
            prop_assert!(Queued::decode(&bytes[..at.index(bytes.len())]).is_err());
            prop_assert_eq!(decode_marks(&encode_marks(&record.marks)), Some(record.marks));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Queued::decode(&bytes).is_err());
            let _ = (decode_marks(&bytes), read_series(&bytes));
        }
    }
}
