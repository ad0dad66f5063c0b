//! The bytes of a day's buckets of one series in one tier.
//!
//! ```text
//! version: u8 = 1 | shape: u8 | numbers of the buckets as the times of a chunk
//! | columns, each a length and then the values of a chunk, or, where that is shorter,
//!   kind: u8 = 16 | digits: u8 | count signed varints, each what the number is more than the one before: counts | first times | last times | first | last | min | max | sum
//! | corrections, resets | changes | ended
//! ```
//! The number of a bucket is its end as a multiple of the width since the day began. First times count from the bucket's start and
//! last times back from its end, in milliseconds. A bit of the shape says that a column is that of another one or all zero, and is
//! not there: counters have their smallest value first and their largest last. Numbers, count and checksum are in the group.
//!
//! # Invariants
//! - Decoding gives back every bit.
//! - Any bytes can be given to [`decode`]: an error, never a panic; memory is bounded by [`MOST`].

use super::{
    chunk::{decode_times, decode_values, encode_times, encode_values},
    decimals,
    part::Block,
    varint::{Reader, put_bytes, put_signed},
};
use crate::summary::{Bucket, Columns};

/// Most buckets of a day: 288 of five minutes and that of midnight.
pub(crate) const MOST: usize = 289;

const VERSION: u8 = 1;

const LAST_IS_FIRST: u8 = 1;
const MIN_IS_FIRST: u8 = 2;
const MAX_IS_LAST: u8 = 4;
const NO_RESETS: u8 = 8;
const NO_CHANGES: u8 = 16;
const NONE_ENDED: u8 = 32;
const SHAPES: u8 = 63;

/// Differences of numbers with few decimals; no kind of values of a chunk. Of the few hours of a day shorter than what `pco` makes,
/// and far faster to read.
const DIFFERENCES: u8 = 16;

fn encode_column(values: &[f64]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_values(&mut out, values);
    let Some((digits, numbers)) = decimals::numbers(values) else { return out };
    let mut short = vec![DIFFERENCES, digits];
    numbers.iter().fold(0, |before, number| {
        put_signed(&mut short, number - before);
        *number
    });
    if short.len() < out.len() { short } else { out }
}

fn decode_column(bytes: &[u8], count: usize) -> Option<Vec<f64>> {
    let mut reader = Reader(bytes);
    let values = if let [DIFFERENCES, digits, rest @ ..] = bytes {
        reader = Reader(rest);
        let mut number = 0i64;
        let mut next = || {
            number = number.checked_add(reader.signed()?)?;
            decimals::value_of(number, *digits)
        };
        (0..count).map(|_| next()).collect::<Option<Vec<f64>>>()?
    } else {
        decode_values(&mut reader, count)?
    };
    reader.0.is_empty().then_some(values)
}

fn column(buckets: &[Bucket], of: impl Fn(&Bucket) -> f64) -> Vec<f64> {
    buckets.iter().map(of).collect()
}

fn same(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Encodes buckets with growing ends, at least one, of a day that begins at `day_start`.
pub(crate) fn encode(day_start: i64, width: i64, buckets: &[Bucket]) -> Block {
    let numbers: Vec<i64> = buckets.iter().map(|bucket| (bucket.end - day_start) / width).collect();
    let (t0, t1) = (numbers.first().copied().unwrap_or(0), numbers.last().copied().unwrap_or(0));
    let of = |f: fn(&Bucket) -> f64| column(buckets, f);
    let (first, last, min, max) = (of(|b| b.first), of(|b| b.last), of(|b| b.min), of(|b| b.max));
    let none = |is_some: fn(&Bucket) -> bool| !buckets.iter().any(is_some);
    let shape = [
        (LAST_IS_FIRST, same(&last, &first)),
        (MIN_IS_FIRST, same(&min, &first)),
        (MAX_IS_LAST, same(&max, &last)),
        (NO_RESETS, none(|b| b.resets > 0)),
        (NO_CHANGES, none(|b| b.changes > 0)),
        (NONE_ENDED, none(|b| b.ended)),
    ];
    let shape = shape.into_iter().filter(|(_, is_so)| *is_so).fold(0, |all, (bit, _)| all | bit);
    let mut out = vec![VERSION, shape];
    encode_times(&mut out, &numbers, t0);
    let mut put = |values: &[f64]| put_bytes(&mut out, &encode_column(values));
    put(&of(|b| b.count.into()));
    put(&column(buckets, |b| (b.first_ts - (b.end - width)) as f64));
    put(&of(|b| (b.end - b.last_ts) as f64));
    put(&first);
    for (bit, values) in [(LAST_IS_FIRST, &last), (MIN_IS_FIRST, &min), (MAX_IS_LAST, &max)] {
        if shape & bit == 0 {
            put(values);
        }
    }
    put(&of(|b| b.sum));
    if shape & NO_RESETS == 0 {
        put(&of(|b| b.correction));
        put(&of(|b| b.resets.into()));
    }
    if shape & NO_CHANGES == 0 {
        put(&of(|b| b.changes.into()));
    }
    if shape & NONE_ENDED == 0 {
        put(&of(|b| f64::from(u8::from(b.ended))));
    }
    Block { t0, t1, count: buckets.len() as u32, body: out.into() }
}

/// Decodes what is wanted of buckets. The error says what is wrong with them.
pub(crate) fn decode(day_start: i64, width: i64, block: &Block, wanted: Columns) -> Result<Vec<Bucket>, &'static str> {
    let mut reader = Reader(&block.body);
    match reader.byte() {
        Some(VERSION) => {}
        Some(_) => return Err("buckets of an unknown version"),
        None => return Err("buckets are empty"),
    }
    let count = block.count as usize;
    let columns = Encoded { reader, count, width };
    columns.decode(day_start, block, wanted).filter(|_| count <= MOST).ok_or("buckets have a wrong structure")
}

struct Encoded<'a> {
    reader: Reader<'a>,
    count: usize,
    width: i64,
}

impl Encoded<'_> {
    /// The next column, if it is wanted.
    fn next(&mut self, is_wanted: bool) -> Option<Option<Vec<f64>>> {
        let bytes = self.reader.bytes()?;
        if !is_wanted {
            return Some(None);
        }
        decode_column(bytes, self.count).map(Some)
    }

    /// The next column of whole numbers from 0 to `most`.
    fn whole(&mut self, is_wanted: bool, most: i64) -> Option<Option<Vec<i64>>> {
        let Some(values) = self.next(is_wanted)? else { return Some(None) };
        let number = |value: f64| (value >= 0.0 && value <= most as f64 && value.fract() == 0.0).then_some(value as i64);
        values.into_iter().map(number).collect::<Option<Vec<i64>>>().map(Some)
    }

    fn decode(mut self, day_start: i64, block: &Block, wanted: Columns) -> Option<Vec<Bucket>> {
        if self.count == 0 || self.count > MOST {
            return None;
        }
        let shape = self.reader.byte().filter(|shape| shape & !SHAPES == 0)?;
        let is = |bit: u8| shape & bit != 0;
        let numbers = decode_times(&mut self.reader, self.count, block.t0)?;
        if numbers.last() != Some(&block.t1) || block.t0 < 0 || block.t1 >= MOST as i64 {
            return None;
        }
        let ends = numbers.into_iter().map(|number| day_start + number * self.width);
        let mut out: Vec<Bucket> = ends.map(|end| Bucket { end, ..Bucket::default() }).collect();
        let most = i64::from(u32::MAX);
        for (bucket, count) in out.iter_mut().zip(self.whole(true, most)??) {
            bucket.count = count as u32;
        }
        self.times(&mut out, wanted.has(Columns::TIMES))?;
        self.values(&mut out, is, wanted)?;
        if !is(NO_RESETS) {
            let is_wanted = wanted.has(Columns::RESETS);
            set(&mut out, self.next(is_wanted)?.as_deref(), |bucket, value| bucket.correction = value);
            set(&mut out, self.whole(is_wanted, most)?.as_deref(), |bucket, resets| bucket.resets = resets as u32);
        }
        if !is(NO_CHANGES) {
            let changes = self.whole(wanted.has(Columns::CHANGES), most)?;
            set(&mut out, changes.as_deref(), |bucket, changes| bucket.changes = changes as u32);
        }
        if !is(NONE_ENDED) {
            set(&mut out, self.whole(true, 1)?.as_deref(), |bucket, ended| bucket.ended = ended == 1);
        }
        self.reader.0.is_empty().then_some(out)
    }

    fn times(&mut self, out: &mut [Bucket], is_wanted: bool) -> Option<()> {
        let width = self.width;
        let firsts = self.whole(is_wanted, width)?;
        let lasts = self.whole(is_wanted, width)?;
        let (Some(firsts), Some(lasts)) = (firsts, lasts) else { return Some(()) };
        for ((bucket, first), last) in out.iter_mut().zip(firsts).zip(lasts) {
            (bucket.first_ts, bucket.last_ts) = (bucket.end - width + first, bucket.end - last);
            if bucket.first_ts > bucket.last_ts {
                return None;
            }
        }
        Some(())
    }

    fn values(&mut self, out: &mut [Bucket], is: impl Fn(u8) -> bool, wanted: Columns) -> Option<()> {
        let min_is_first = is(MIN_IS_FIRST) && wanted.has(Columns::MIN);
        let max_is_last = is(MAX_IS_LAST) && wanted.has(Columns::MAX);
        let last_is_first = is(LAST_IS_FIRST) && (wanted.has(Columns::LAST) || max_is_last);
        let first = self.next(wanted.has(Columns::FIRST) || min_is_first || last_is_first)?;
        let last = if is(LAST_IS_FIRST) { first.clone() } else { self.next(wanted.has(Columns::LAST) || max_is_last)? };
        let min = if is(MIN_IS_FIRST) { first.clone() } else { self.next(wanted.has(Columns::MIN))? };
        let max = if is(MAX_IS_LAST) { last.clone() } else { self.next(wanted.has(Columns::MAX))? };
        let sum = self.next(wanted.has(Columns::SUM))?;
        set(out, first.as_deref(), |bucket, value| bucket.first = value);
        set(out, last.as_deref(), |bucket, value| bucket.last = value);
        set(out, min.as_deref(), |bucket, value| bucket.min = value);
        set(out, max.as_deref(), |bucket, value| bucket.max = value);
        set(out, sum.as_deref(), |bucket, value| bucket.sum = value);
        Some(())
    }
}

fn set<T: Copy>(out: &mut [Bucket], values: Option<&[T]>, f: impl Fn(&mut Bucket, T)) {
    for (bucket, value) in out.iter_mut().zip(values.unwrap_or_default()) {
        f(bucket, *value);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::group, *};
    use crate::summary::{FIVE_MINUTES, summarize};
    use proptest::prelude::*;
    use shipwatch_common::model::metric::STALE_NAN_BITS;

    const DAY0: i64 = 20_780 * 86_400_000;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            (0u16..50).prop_map(f64::from),
            any::<f64>(),
            Just(0.0),
            Just(-0.0),
            Just(f64::NAN),
            Just(f64::from_bits(STALE_NAN_BITS))
        ]
    }

    /// All bits of a bucket.
    fn bits(b: &Bucket) -> impl PartialEq + std::fmt::Debug {
        let floats = [b.first, b.last, b.min, b.max, b.sum, b.correction].map(f64::to_bits);
        (b.end, b.count, b.first_ts, b.last_ts, floats, b.resets, b.changes, b.ended)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn buckets_round_trip_and_damage_never_panics(
            samples in proptest::collection::btree_map(0i64..86_400_000, value(), 1..400), at in any::<usize>(), flip in 1u8..=255,
        ) {
            let (ts, values): (Vec<i64>, Vec<f64>) = samples.into_iter().map(|(ts, value)| (DAY0 + ts, value)).unzip();
            let buckets = summarize(&ts, &values, FIVE_MINUTES);
            let block = encode(DAY0, FIVE_MINUTES, &buckets);
            let back = decode(DAY0, FIVE_MINUTES, &block, Columns::ALL).unwrap();
            prop_assert_eq!(back.len(), buckets.len());
            for (back, bucket) in back.iter().zip(&buckets) {
                prop_assert_eq!(bits(back), bits(bucket));
            }
            // Each column alone.
            for column in (0..8).map(|bit| Columns::NONE.and(bit_of(bit))) {
                let some = decode(DAY0, FIVE_MINUTES, &block, column).unwrap();
                for (some, bucket) in some.iter().zip(&buckets) {
                    prop_assert_eq!(some.count, bucket.count);
                    prop_assert!(!column.has(Columns::MAX) || some.max.to_bits() == bucket.max.to_bits());
                    prop_assert!(!column.has(Columns::MIN) || some.min.to_bits() == bucket.min.to_bits());
                    prop_assert!(!column.has(Columns::LAST) || some.last.to_bits() == bucket.last.to_bits());
                    prop_assert!(!column.has(Columns::SUM) || some.sum.to_bits() == bucket.sum.to_bits());
                }
            }
            // It is whole in a group, and damage behind the group's checksum does not panic.
            let chunks: group::Chunks = [(7, block.clone())].into();
            let grouped = group::decode(0, &group::encode(0, &chunks).unwrap(), |_| true).unwrap();
            prop_assert_eq!((grouped[&7].t0, grouped[&7].t1, grouped[&7].count), (block.t0, block.t1, block.count));
            let mut body = block.body.to_vec();
            let at = at % body.len();
            body[at] ^= flip;
            let _ = decode(DAY0, FIVE_MINUTES, &Block { body: body.into(), ..block }, Columns::ALL);
        }

        #[test]
        fn random_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), shape in 0u8..64, t0 in 0i64..400, span in 0i64..400, count in 0u32..400,
        ) {
            let body: Vec<u8> = [VERSION, shape].into_iter().chain(bytes.iter().copied()).collect();
            for body in [body, bytes] {
                let block = Block { t0, t1: t0 + span, count, body: body.into() };
                let _ = decode(DAY0, FIVE_MINUTES, &block, Columns::ALL);
            }
        }
    }

    fn bit_of(bit: u8) -> Columns {
        [Columns::TIMES, Columns::FIRST, Columns::LAST, Columns::MIN, Columns::MAX, Columns::SUM, Columns::RESETS, Columns::CHANGES]
            [usize::from(bit)]
    }

    #[test]
    fn a_day_that_does_not_change_and_a_counter_are_small() {
        let ts: Vec<i64> = (0..5_760).map(|at| DAY0 + 1_234 + at * 15_000).collect();
        let of = |value: &dyn Fn(i64) -> f64| {
            let values: Vec<f64> = (0..5_760).map(value).collect();
            encode(DAY0, FIVE_MINUTES, &summarize(&ts, &values, FIVE_MINUTES)).body.len()
        };
        assert!(of(&|_| 4_096.0) <= 32, "{}", of(&|_| 4_096.0));
        let counter = |at: i64| (at * 1_500 + at * at % 1_000) as f64 / 100.0;
        assert!(of(&counter) < 288 * 8, "{}", of(&counter));
    }
}
