//! The bytes of a group: the chunks of up to 128 series in one window, in one row of a day file.
//!
//! ```text
//! version: u8 = 1 | crc32 of the rest: u32 LE | raw length: varint | length: varint, zstd(raw) | large bodies
//! raw: count: varint | places, counts, first times, spans, lengths of bodies: a column of varints each | small bodies
//! ```
//! First times count from the window's start. Bodies are chunks of kind `BARE`; small ones, mostly those of values that never
//! change, lie where zstd finds that they are alike.
//!
//! # Invariants
//! - Places grow and lie below [`SERIES`].
//! - Any bytes can be given to [`decode`]: an error, never a panic; memory is bounded by [`MAX_RAW`] and the bytes themselves.

use super::{
    chunk::{MAX_SAMPLES, WINDOW_MS},
    part::Block,
    varint::{Reader, put, put_bytes},
};
use std::collections::BTreeMap;

/// Series of a group.
pub(crate) const SERIES: u32 = 128;

const VERSION: u8 = 1;
const SMALL: usize = 24;
const MAX_RAW: u64 = 64 << 10;

/// Chunks by the place of their series in the group.
pub(crate) type Chunks = BTreeMap<u8, Block>;

/// Encodes the chunks of a window.
pub(crate) fn encode(window: i64, chunks: &Chunks) -> std::io::Result<Vec<u8>> {
    let mut raw = Vec::with_capacity(chunks.len() * 12);
    put(&mut raw, chunks.len() as u64);
    chunks.keys().for_each(|place| put(&mut raw, u64::from(*place)));
    chunks.values().for_each(|chunk| put(&mut raw, chunk.count.into()));
    chunks.values().for_each(|chunk| put(&mut raw, (chunk.t0 - window) as u64));
    chunks.values().for_each(|chunk| put(&mut raw, (chunk.t1 - chunk.t0) as u64));
    chunks.values().for_each(|chunk| put(&mut raw, chunk.body.len() as u64));
    let (small, large): (Vec<_>, Vec<_>) = chunks.values().partition(|chunk| chunk.body.len() <= SMALL);
    small.iter().for_each(|chunk| raw.extend_from_slice(&chunk.body));
    let mut out = vec![VERSION, 0, 0, 0, 0];
    put(&mut out, raw.len() as u64);
    put_bytes(&mut out, &zstd::bulk::compress(&raw, 3)?);
    large.iter().for_each(|chunk| out.extend_from_slice(&chunk.body));
    let crc = crc32fast::hash(&out[5..]);
    out[1..5].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// Gives the chunks of the places that are wanted. The error says what is wrong.
pub(crate) fn decode(window: i64, bytes: &[u8], wanted: impl Fn(u8) -> bool) -> Result<Chunks, &'static str> {
    let mut reader = Reader(bytes);
    if reader.byte() != Some(VERSION) {
        return Err("group of an unknown version");
    }
    let crc = reader.array().map(u32::from_le_bytes).ok_or("group is cut short")?;
    if crc32fast::hash(reader.0) != crc {
        return Err("group has a wrong checksum");
    }
    decode_body(window, reader, wanted).ok_or("group has a wrong structure")
}

fn decode_body(window: i64, mut reader: Reader<'_>, wanted: impl Fn(u8) -> bool) -> Option<Chunks> {
    let raw_len = reader.number().filter(|len| *len <= MAX_RAW)?;
    let raw = zstd::bulk::decompress(reader.bytes()?, raw_len as usize).ok()?;
    let mut raw = Reader(&raw);
    let count = raw.number().filter(|count| *count <= SERIES.into())?;
    let mut column = || (0..count).map(|_| raw.number()).collect::<Option<Vec<u64>>>();
    let [places, counts, firsts, spans, lens] = [column()?, column()?, column()?, column()?, column()?];
    let mut chunks = Chunks::new();
    for at in 0..places.len() {
        let place = u8::try_from(places[at]).ok().filter(|place| u32::from(*place) < SERIES)?;
        let len = usize::try_from(lens[at]).ok()?;
        let body = if len <= SMALL { raw.take(len)? } else { reader.take(len)? };
        let count = u32::try_from(counts[at]).ok().filter(|count| (1..=MAX_SAMPLES as u32).contains(count))?;
        let inside = |ms: u64| i64::try_from(ms).ok().filter(|ms| *ms < WINDOW_MS);
        let t0 = window.checked_add(inside(firsts[at])?)?;
        let t1 = t0.checked_add(inside(spans[at])?)?;
        if wanted(place) {
            chunks.insert(place, Block { t0, t1, count, body: body.into() });
        }
    }
    (reader.0.is_empty() && raw.0.is_empty()).then_some(chunks)
}

#[cfg(test)]
mod tests {
    use super::{super::chunk, *};
    use proptest::prelude::*;

    fn block(t0: i64, values: &[f64]) -> Block {
        let ts: Vec<i64> = (0..values.len() as i64).map(|at| t0 + at * 15_000).collect();
        Block { t0, t1: ts[ts.len() - 1], count: values.len() as u32, body: chunk::encode_bare(&ts, values).into() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn groups_round_trip_and_damage_never_panics(
            series in proptest::collection::btree_map(0u8..128, proptest::collection::vec(any::<u64>(), 1..20), 1..20),
            still in any::<bool>(), at in any::<usize>(), flip in 1u8..=255,
        ) {
            let value = |bits: &u64| if still { 1.0 } else { f64::from_bits(*bits) };
            let chunks: Chunks =
                series.iter().map(|(place, bits)| (*place, block(WINDOW_MS + 5, &bits.iter().map(value).collect::<Vec<_>>()))).collect();
            let bytes = encode(WINDOW_MS, &chunks).unwrap();
            let back = decode(WINDOW_MS, &bytes, |_| true).unwrap();
            prop_assert_eq!(back.len(), chunks.len());
            for (place, bits) in &series {
                let (ts, values) = chunk::decode(&back[place]).unwrap();
                prop_assert_eq!(ts[0], WINDOW_MS + 5);
                prop_assert!(values.iter().zip(bits).all(|(found, bits)| found.to_bits() == value(bits).to_bits()));
            }
            let mut bad = bytes.clone();
            bad[at % bytes.len()] ^= flip;
            prop_assert!(decode(WINDOW_MS, &bad, |_| true).is_err());
            // Damage behind a right checksum.
            let crc = crc32fast::hash(&bad[5..]);
            bad[1..5].copy_from_slice(&crc.to_le_bytes());
            for block in decode(WINDOW_MS, &bad, |_| true).into_iter().flat_map(Chunks::into_values) {
                let _ = chunk::decode(&block);
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(0, &bytes, |_| true).is_err());
            let _ = decode_body(0, Reader(&bytes), |_| true);
        }
    }
}
