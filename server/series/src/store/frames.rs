//! The bytes of a frame (accepted samples as they came) and of a series' labels in `head.db`.
//!
//! ```text
//! frame : version: u8 = 1 | crc32 of the rest: u32 LE | raw length: varint | zstd(raw)
//! raw   : count: varint | ids: signed varint deltas | times: signed varint deltas | values: eight byte planes
//! labels: version: u8 = 1 | crc32 of the rest: u32 LE | count: varint | (name, value: bytes with length)*
//! ```
//!
//! # Invariants
//! - What is not whole is an error with its reason, never a panic; memory is bounded by [`MAX_RAW_BYTES`].

use super::varint::{Reader, put, put_bytes, put_signed};
use shipwatch_common::model::Labels;

/// Most samples in one frame; a larger transaction has several frames.
pub(crate) const MAX_SAMPLES: usize = 65_536;

const MAX_RAW_BYTES: u64 = 16 << 20;
const VERSION: u8 = 1;

/// Samples by the store's own series ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Frame {
    pub(crate) ids: Vec<i64>,
    pub(crate) ts: Vec<i64>,
    pub(crate) values: Vec<f64>,
}

impl Frame {
    pub(crate) fn push(&mut self, id: i64, ts: i64, value: f64) {
        self.ids.push(id);
        self.ts.push(ts);
        self.values.push(value);
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// First and last time.
    pub(crate) fn range(&self) -> (i64, i64) {
        (self.ts.iter().copied().min().unwrap_or(0), self.ts.iter().copied().max().unwrap_or(0))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, i64, f64)> {
        self.ids.iter().zip(&self.ts).zip(&self.values).map(|((id, ts), value)| (*id, *ts, *value))
    }

    pub(crate) fn encode(&self) -> std::io::Result<Vec<u8>> {
        let mut raw = Vec::with_capacity(self.len() * 12 + 8);
        put(&mut raw, self.len() as u64);
        for column in [&self.ids, &self.ts] {
            let mut last = 0i64;
            for number in column {
                put_signed(&mut raw, number.wrapping_sub(last));
                last = *number;
            }
        }
        // Bytes of the same weight lie together: neighbours are alike, which is what zstd finds.
        for plane in 0..8 {
            raw.extend(self.values.iter().map(|value| value.to_bits().to_le_bytes()[plane]));
        }
        pack(&raw)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        Self::decode_raw(&unpack(bytes)?).ok_or("it has a wrong structure")
    }

    fn decode_raw(raw: &[u8]) -> Option<Self> {
        let mut reader = Reader(raw);
        let count = usize::try_from(reader.number()?).ok().filter(|count| *count <= MAX_SAMPLES)?;
        let mut column = || {
            let mut last = 0i64;
            let mut next = || {
                last = last.wrapping_add(reader.signed()?);
                Some(last)
            };
            (0..count).map(|_| next()).collect::<Option<Vec<i64>>>()
        };
        let (ids, ts) = (column()?, column()?);
        let planes = reader.take(count * 8)?;
        let value = |at: usize| f64::from_bits(u64::from_le_bytes(std::array::from_fn(|plane| planes[plane * count + at])));
        reader.0.is_empty().then(|| Self { ids, ts, values: (0..count).map(value).collect() })
    }
}

/// Compresses bytes and puts version, checksum and length before them.
pub(crate) fn pack(raw: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = vec![VERSION, 0, 0, 0, 0];
    put(&mut out, raw.len() as u64);
    out.extend_from_slice(&zstd::bulk::compress(raw, 1)?);
    Ok(with_crc(out))
}

/// What [`pack`] was given.
pub(crate) fn unpack(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut reader = open(bytes)?;
    let raw_len = reader.number().filter(|len| *len <= MAX_RAW_BYTES).ok_or("it has a wrong length")?;
    zstd::bulk::decompress(reader.0, raw_len as usize).map_err(|_| "it cannot be decompressed")
}

/// A series' labels as bytes.
pub(crate) fn encode_labels(labels: &Labels) -> Vec<u8> {
    let mut out = vec![VERSION, 0, 0, 0, 0];
    put(&mut out, labels.len() as u64);
    for (name, value) in labels.iter() {
        put_bytes(&mut out, name.as_bytes());
        put_bytes(&mut out, value.as_bytes());
    }
    with_crc(out)
}

/// Labels from bytes.
pub(crate) fn decode_labels(bytes: &[u8]) -> Result<Labels, &'static str> {
    let mut reader = open(bytes)?;
    let pairs = || {
        let count = reader.number().filter(|count| *count <= Labels::MAX_LABELS as u64)?;
        let mut text = || std::str::from_utf8(reader.bytes()?).ok();
        (0..count).map(|_| Some((text()?, text()?))).collect::<Option<Vec<(&str, &str)>>>()
    };
    let mut pairs = pairs;
    Labels::new(pairs().ok_or("it has a wrong structure")?).map_err(|_| "its labels are not valid")
}

fn with_crc(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&out[5..]);
    out[1..5].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Checks version and checksum.
fn open(bytes: &[u8]) -> Result<Reader<'_>, &'static str> {
    let mut reader = Reader(bytes);
    if reader.byte() != Some(VERSION) {
        return Err("it has an unknown version");
    }
    let crc = reader.array().map(u32::from_le_bytes).ok_or("it is cut short")?;
    if crc32fast::hash(reader.0) == crc { Ok(reader) } else { Err("it has a wrong checksum") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn frames_round_trip(samples in proptest::collection::vec((any::<i64>(), any::<i64>(), any::<u64>()), 0..200)) {
            let mut frame = Frame::default();
            for (id, ts, bits) in samples {
                frame.push(id, ts, f64::from_bits(bits));
            }
            let back = Frame::decode(&frame.encode().unwrap()).unwrap();
            prop_assert_eq!(&back.ids, &frame.ids);
            prop_assert_eq!(&back.ts, &frame.ts);
            prop_assert!(back.values.iter().zip(&frame.values).all(|(a, b)| a.to_bits() == b.to_bits()));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Frame::decode(&bytes).is_err());
            prop_assert!(decode_labels(&bytes).is_err());
            let _ = Frame::decode_raw(&bytes);
            let mut sealed = vec![VERSION, 0, 0, 0, 0];
            sealed.extend_from_slice(&bytes);
            let sealed = with_crc(sealed);
            let _ = (Frame::decode(&sealed), decode_labels(&sealed));
        }
    }

    #[test]
    fn labels_round_trip() {
        for labels in [Labels::default(), Labels::new([("__name__", "up"), ("主机", "甲\n")]).unwrap()] {
            assert_eq!(decode_labels(&encode_labels(&labels)).unwrap(), labels);
        }
    }
}
