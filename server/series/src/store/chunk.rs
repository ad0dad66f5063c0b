//! The bytes of a chunk: the samples of one series in one window.
//!
//! ```text
//! version: u8 = 2 | crc32 of the rest: u32 LE | count: varint | first time: signed varint
//! | kind of times: u8 | times | kind of values: u8 | values
//! times : 0 = step: varint       | 1 = length: varint, pco of u64 offsets from the first time | 2 = count offsets u64 LE
//! values: 0 = bits: u64 LE       | 1 = length: varint, pco of f64            | 2 = count times f64 LE
//!         | 3 = one whole number: signed varint | 4 = decimals, see `decimals`
//! ```
//! Version 1 is the same without the last two kinds of values. In a group (see `group`) a chunk is bare: `version: u8 = 3`, times
//! and values only; the group has the rest, checksum included.
//!
//! # Invariants
//! - Decoding gives back every bit, NaN payloads and stale markers included.
//! - Any bytes can be given to [`decode`]: what was not written by [`encode`] is an error, never a panic, and the memory taken
//!   is bounded by [`MAX_SAMPLES`].

use super::{
    decimals,
    part::Block,
    varint::{Reader, put, put_bytes, put_signed},
};
use pco::{ChunkConfig, DeltaSpec, standalone};

/// Length of a window: chunks never cross its borders, and a day holds twelve.
pub(crate) const WINDOW_MS: i64 = 2 * 3_600_000;

/// One sample each millisecond of a window.
pub(crate) const MAX_SAMPLES: usize = WINDOW_MS as usize;

const VERSION: u8 = 2;
const OLDEST: u8 = 1;
const BARE: u8 = 3;
const TIMES_STEP: u8 = 0;
const TIMES_PCO: u8 = 1;
const TIMES_PLAIN: u8 = 2;
const VALUES_SAME: u8 = 0;
const VALUES_PCO: u8 = 1;
const VALUES_PLAIN: u8 = 2;
const VALUES_WHOLE: u8 = 3;
const VALUES_DECIMALS: u8 = 4;

/// Start of the window that a time lies in.
pub(crate) const fn window_of(ts: i64) -> i64 {
    ts.div_euclid(WINDOW_MS) * WINDOW_MS
}

/// Columns of one series.
pub(crate) type Columns = (Vec<i64>, Vec<f64>);

/// Encodes samples with strictly growing times, at least one and at most [`MAX_SAMPLES`].
pub(crate) fn encode(ts: &[i64], values: &[f64]) -> Vec<u8> {
    debug_assert!(ts.len() == values.len() && !ts.is_empty() && ts.len() <= MAX_SAMPLES);
    let mut out = vec![VERSION, 0, 0, 0, 0];
    let first = ts.first().copied().unwrap_or(0);
    put(&mut out, ts.len() as u64);
    put_signed(&mut out, first);
    encode_times(&mut out, ts, first);
    encode_values(&mut out, values);
    let crc = crc32fast::hash(&out[5..]);
    out[1..5].copy_from_slice(&crc.to_le_bytes());
    out
}

/// As [`encode`], without what a group has.
pub(crate) fn encode_bare(ts: &[i64], values: &[f64]) -> Vec<u8> {
    let mut out = vec![BARE];
    encode_times(&mut out, ts, ts.first().copied().unwrap_or(0));
    encode_values(&mut out, values);
    out
}

pub(crate) fn encode_times(out: &mut Vec<u8>, ts: &[i64], first: i64) {
    let step = if ts.len() < 2 { 0 } else { ts[1] - ts[0] };
    if ts.windows(2).all(|pair| pair[1] - pair[0] == step) {
        out.push(TIMES_STEP);
        put(out, step as u64);
        return;
    }
    let offsets: Vec<u64> = ts.iter().map(|at| (at - first) as u64).collect();
    let config = ChunkConfig::default().with_delta_spec(DeltaSpec::TryConsecutive(1));
    match standalone::simple_compress(&offsets, &config) {
        Ok(body) if body.len() < ts.len() * 8 => {
            out.push(TIMES_PCO);
            put_bytes(out, &body);
        }
        _ => {
            out.push(TIMES_PLAIN);
            offsets.iter().for_each(|offset| out.extend_from_slice(&offset.to_le_bytes()));
        }
    }
}

pub(crate) fn encode_values(out: &mut Vec<u8>, values: &[f64]) {
    let bits = values.first().map_or(0, |value| value.to_bits());
    if values.iter().all(|value| value.to_bits() == bits) {
        match decimals::whole(f64::from_bits(bits)) {
            Some(whole) => {
                out.push(VALUES_WHOLE);
                put_signed(out, whole);
            }
            None => {
                out.push(VALUES_SAME);
                out.extend_from_slice(&bits.to_le_bytes());
            }
        }
        return;
    }
    if let Some(body) = decimals::encode(values) {
        out.push(VALUES_DECIMALS);
        out.extend_from_slice(&body);
        return;
    }
    match standalone::simple_compress(values, &ChunkConfig::default()) {
        Ok(body) if body.len() < values.len() * 8 => {
            out.push(VALUES_PCO);
            put_bytes(out, &body);
        }
        _ => {
            out.push(VALUES_PLAIN);
            values.iter().for_each(|value| out.extend_from_slice(&value.to_bits().to_le_bytes()));
        }
    }
}

/// Decodes a chunk. The error says what is wrong with it.
pub(crate) fn decode(block: &Block) -> Result<Columns, &'static str> {
    match block.body.split_first() {
        Some((&BARE, body)) => {
            let count = (block.count as usize).min(MAX_SAMPLES);
            let columns = decode_columns(&mut Reader(body), count, block.t0);
            columns.filter(|(ts, _)| ts.last() == Some(&block.t1)).ok_or("chunk has a wrong structure")
        }
        _ => decode_whole(&block.body),
    }
}

/// Decodes a chunk with a checksum of its own.
pub(crate) fn decode_whole(bytes: &[u8]) -> Result<Columns, &'static str> {
    let mut reader = Reader(bytes);
    match reader.byte() {
        Some(OLDEST..=VERSION) => {}
        Some(_) => return Err("chunk of an unknown version"),
        None => return Err("chunk is empty"),
    }
    let crc = reader.array().map(u32::from_le_bytes).ok_or("chunk is cut short")?;
    if crc32fast::hash(reader.0) != crc {
        return Err("chunk has a wrong checksum");
    }
    decode_body(&mut reader).ok_or("chunk has a wrong structure")
}

fn decode_body(reader: &mut Reader<'_>) -> Option<Columns> {
    let count = usize::try_from(reader.number()?).ok().filter(|count| (1..=MAX_SAMPLES).contains(count))?;
    let first = reader.signed()?;
    decode_columns(reader, count, first)
}

fn decode_columns(reader: &mut Reader<'_>, count: usize, first: i64) -> Option<Columns> {
    let ts = decode_times(reader, count, first)?;
    let values = decode_values(reader, count)?;
    reader.0.is_empty().then_some((ts, values))
}

pub(crate) fn decode_times(reader: &mut Reader<'_>, count: usize, first: i64) -> Option<Vec<i64>> {
    match reader.byte()? {
        TIMES_STEP => {
            let step = i64::try_from(reader.number()?).ok().filter(|step| *step > 0 || count == 1)?;
            let last = step.checked_mul(i64::try_from(count).ok()? - 1)?;
            first.checked_add(last)?;
            Some((0..count as i64).map(|at| first + at * step).collect())
        }
        TIMES_PCO => from_offsets(first, &decompress::<u64>(reader.bytes()?, count)?),
        TIMES_PLAIN => {
            let offsets: Option<Vec<u64>> = (0..count).map(|_| reader.array().map(u64::from_le_bytes)).collect();
            from_offsets(first, &offsets?)
        }
        _ => None,
    }
}

/// Times must strictly grow.
fn from_offsets(first: i64, offsets: &[u64]) -> Option<Vec<i64>> {
    let mut ts: Vec<i64> = Vec::with_capacity(offsets.len());
    for offset in offsets {
        let at = first.checked_add(i64::try_from(*offset).ok()?)?;
        if ts.last().is_some_and(|last| *last >= at) {
            return None;
        }
        ts.push(at);
    }
    Some(ts)
}

pub(crate) fn decode_values(reader: &mut Reader<'_>, count: usize) -> Option<Vec<f64>> {
    let float = |bytes: [u8; 8]| f64::from_bits(u64::from_le_bytes(bytes));
    match reader.byte()? {
        VALUES_SAME => Some(vec![float(reader.array()?); count]),
        VALUES_PCO => decompress(reader.bytes()?, count),
        VALUES_PLAIN => (0..count).map(|_| reader.array().map(float)).collect(),
        VALUES_WHOLE => decimals::of_whole(reader.signed()?).map(|value| vec![value; count]),
        VALUES_DECIMALS => decimals::decode(std::mem::take(&mut reader.0), count),
        _ => None,
    }
}

/// Exactly `count` numbers, or nothing; memory is taken for `count` only.
fn decompress<T: pco::data_types::Number + Default>(bytes: &[u8], count: usize) -> Option<Vec<T>> {
    let mut numbers = vec![T::default(); count];
    let progress = standalone::simple_decompress_into(bytes, &mut numbers).ok()?;
    (progress.n_processed == count && progress.finished).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (0u32..100_000).prop_map(|n| f64::from(n) / 100.0),
            Just(f64::from_bits(shipwatch_common::model::metric::STALE_NAN_BITS)),
            Just(-0.0)
        ]
    }

    /// Gives a body a right checksum, so that what is behind the checksum is reached.
    fn sealed(body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn chunks_round_trip(samples in proptest::collection::btree_map(-5_000_000i64..5_000_000, value(), 1..300)) {
            let (ts, values): Columns = samples.into_iter().unzip();
            let (ts_back, values_back) = decode_whole(&encode(&ts, &values)).unwrap();
            prop_assert_eq!(&ts, &ts_back);
            prop_assert_eq!(bits(&values), bits(&values_back));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode_whole(&bytes).is_err());
            let _ = decode_whole(&sealed(&bytes));
        }

        #[test]
        fn a_damaged_body_behind_a_right_checksum_never_panics(at in 0usize..400, flip in 1u8..=255, len in 2usize..200) {
            let ts: Vec<i64> = (0..len as i64).map(|at| at * 15_000 + at % 3).collect();
            let values: Vec<f64> = (0..len).map(|at| (at * at) as f64 * 0.1).collect();
            let mut body = encode(&ts, &values)[5..].to_vec();
            let at = at % body.len();
            body[at] ^= flip;
            if let Ok((ts, values)) = decode_whole(&sealed(&body)) {
                prop_assert_eq!(ts.len(), values.len());
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = encode(&[1, 3, 4, 9], &[1.0, 2.5, 2.5, f64::NAN]);
        for at in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(decode_whole(&bad).is_err(), "bit {at}");
        }
    }

    #[test]
    fn regular_constant_chunks_are_small() {
        let ts: Vec<i64> = (0..480).map(|at| 1_700_000_000_000 + at * 15_000).collect();
        assert!(encode(&ts, &vec![1.0; 480]).len() < 20);
        let counter: Vec<f64> = (0..480).map(|at| f64::from(at) * 0.25).collect();
        assert!(encode(&ts, &counter).len() < 480 / 2);
    }

    #[test]
    fn windows_start_at_even_hours_before_the_epoch_too() {
        assert_eq!([window_of(-1), window_of(0), window_of(WINDOW_MS - 1), window_of(WINDOW_MS)], [-WINDOW_MS, 0, 0, WINDOW_MS]);
    }
}
