//! Values with few decimals as whole numbers, which compress far better than floating-point ones.
//!
//! ```text
//! digits: u8 | pco's header, meta and only page of i64, without pco's own file format
//! ```
//!
//! # Invariants
//! - Encoding proves for each value that decoding gives back its very bits; what does not (`-0`, NaN, many digits) is refused.
//! - Decoding takes memory for `count` values and pco's bounded tables only.

use pco::{
    ChunkConfig, DeltaSpec,
    wrapped::{FileCompressor, FileDecompressor},
};

/// Powers of ten that are tried, in their order.
const SCALES: [f64; 7] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0];

/// Whole numbers up to here are exact.
const MOST: f64 = 9_007_199_254_740_992.0;

/// The number that stands for a value, if the value comes back from it.
fn scaled(value: f64, scale: f64) -> Option<i64> {
    let number = (value * scale).round();
    let number = (number.abs() <= MOST).then_some(number as i64)?;
    (number as f64 / scale).to_bits().eq(&value.to_bits()).then_some(number)
}

/// A value that is a whole number.
pub(crate) fn whole(value: f64) -> Option<i64> {
    scaled(value, 1.0)
}

/// The value of a whole number.
pub(crate) fn of_whole(number: i64) -> Option<f64> {
    let value = number as f64;
    (value.abs() <= MOST).then_some(value)
}

/// How many decimals values have and the numbers that stand for them, if all of them have few.
pub(crate) fn numbers(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let mut digits = 0;
    for value in values {
        // More digits are right for those before as well, or it is found out below.
        digits += SCALES[digits..].iter().position(|scale| scaled(*value, *scale).is_some())?;
    }
    let numbers = values.iter().map(|value| scaled(*value, SCALES[digits])).collect::<Option<Vec<i64>>>()?;
    Some((digits as u8, numbers))
}

/// The value of a number with so many decimals.
pub(crate) fn value_of(number: i64, digits: u8) -> Option<f64> {
    SCALES.get(usize::from(digits)).map(|scale| number as f64 / scale)
}

/// Encodes values, if all of them have few decimals.
pub(crate) fn encode(values: &[f64]) -> Option<Vec<u8>> {
    let (digits, numbers) = numbers(values)?;
    let digits = usize::from(digits);
    let with = |delta| compress(&numbers, digits, delta);
    let auto = with(DeltaSpec::Auto)?;
    let first_order = with(DeltaSpec::TryConsecutive(1))?;
    let best = if first_order.len() < auto.len() { first_order } else { auto };
    (best.len() < values.len() * 8).then_some(best)
}

fn compress(numbers: &[i64], digits: usize, delta: DeltaSpec) -> Option<Vec<u8>> {
    let file = FileCompressor::default();
    let out = file.write_header(vec![digits as u8]).ok()?;
    let mut chunk = file.chunk_compressor(numbers, &ChunkConfig::default().with_delta_spec(delta)).ok()?;
    if chunk.n_per_page() != [numbers.len()] {
        return None;
    }
    let out = chunk.write_meta(out).ok()?;
    chunk.write_page(0, out).ok()
}

/// Exactly `count` values that take all of the bytes, or nothing.
pub(crate) fn decode(bytes: &[u8], count: usize) -> Option<Vec<f64>> {
    let (digits, rest) = bytes.split_first()?;
    let scale = SCALES.get(usize::from(*digits))?;
    let (file, rest) = FileDecompressor::new(rest).ok()?;
    let (mut chunk, rest) = file.chunk_decompressor::<i64, _>(rest).ok()?;
    let mut page = chunk.page_decompressor(rest, count).ok()?;
    let mut numbers = vec![0i64; count];
    let progress = page.read(&mut numbers).ok()?;
    let whole = progress.n_processed == count && progress.finished && page.into_src().is_empty();
    whole.then(|| numbers.into_iter().map(|number| number as f64 / scale).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn what_is_taken_comes_back_to_the_bit(
            numbers in proptest::collection::vec(-(1i64 << 53)..=1 << 53, 2..300), digits in 0usize..7, odd in any::<u64>(), put_odd in any::<bool>(),
        ) {
            let mut values: Vec<f64> = numbers.iter().map(|number| *number as f64 / SCALES[digits]).collect();
            if put_odd {
                values.push(f64::from_bits(odd));
            }
            if let Some(bytes) = encode(&values) {
                let back = decode(&bytes, values.len()).unwrap();
                prop_assert!(back.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 1usize..1_000) {
            let _ = decode(&bytes, count);
            // Behind a sound beginning.
            let good = encode(&[1.0, 2.5, 3.25, 1.0, 9.0]).unwrap();
            let _ = decode(&[&good[..3], &bytes].concat(), count);
        }
    }

    #[test]
    fn few_decimals_are_taken_and_others_refused() {
        assert!(encode(&[0.1, 12.25, 3.0, 1e6]).is_some_and(|bytes| bytes[0] == 2));
        for refused in [f64::NAN, -0.0, 1.0 / 3.0, f64::INFINITY, 1e300] {
            assert_eq!(encode(&[1.0, refused]), None, "{refused}");
        }
        assert_eq!((whole(-0.0), whole(7.0), whole(7.5)), (None, Some(7), None));
    }
}
