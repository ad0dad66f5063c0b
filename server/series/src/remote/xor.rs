//! Prometheus' XOR chunks (Gorilla): what a streamed remote-read answer carries.
//!
//! ```text
//! chunk: count: u16 BE | time: varint | value: 64 bits | delta: uvarint | xor | (delta of delta | xor)*
//! delta of delta: 0 | 10 + 14 bits | 110 + 17 bits | 1110 + 20 bits | 1111 + 64 bits
//! xor: 0 | 10 + bits in the window before | 11 + leading zeros: 5 bits + length: 6 bits + bits
//! ```

use super::wire::put_varint;

/// Samples in one chunk, as Prometheus makes them.
pub(crate) const MAX_SAMPLES: usize = 120;

/// Bits, the highest of a byte first.
#[derive(Default)]
struct Bits {
    out: Vec<u8>,
    /// Bits that are free in the last byte.
    free: u32,
}

impl Bits {
    fn push(&mut self, value: u64, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.free == 0 {
                self.out.push(0);
                self.free = 8;
            }
            let take = left.min(self.free);
            let part = (value >> (left - take)) & ((1 << take) - 1);
            self.free -= take;
            if let Some(last) = self.out.last_mut() {
                *last |= (part << self.free) as u8;
            }
            left -= take;
        }
    }
}

/// A chunk of at most [`MAX_SAMPLES`] samples; `ts` and `values` are of the same length, times grow.
pub(crate) fn encode(ts: &[i64], values: &[f64]) -> Vec<u8> {
    let mut bits = Bits { out: (ts.len() as u16).to_be_bytes().to_vec(), free: 0 };
    let (mut last_ts, mut last_delta, mut last_bits) = (0i64, 0i64, 0u64);
    let mut window = None;
    for (at, (ts, value)) in ts.iter().zip(values).enumerate() {
        let delta = ts.wrapping_sub(last_ts);
        match at {
            0 => {
                put_varint(&mut bits.out, ((ts << 1) ^ (ts >> 63)).cast_unsigned());
                bits.push(value.to_bits(), 64);
            }
            1 => {
                put_varint(&mut bits.out, delta.cast_unsigned());
                push_xor(&mut bits, last_bits ^ value.to_bits(), &mut window);
            }
            _ => {
                push_delta(&mut bits, delta.wrapping_sub(last_delta));
                push_xor(&mut bits, last_bits ^ value.to_bits(), &mut window);
            }
        }
        (last_ts, last_delta, last_bits) = (*ts, delta, value.to_bits());
    }
    bits.out
}

fn push_delta(bits: &mut Bits, change: i64) {
    let fits = |count: u32| (-((1 << (count - 1)) - 1)..=1 << (count - 1)).contains(&change);
    if change == 0 {
        return bits.push(0, 1);
    }
    for (prefix, prefix_bits, count) in [(0b10, 2, 14), (0b110, 3, 17), (0b1110, 4, 20)] {
        if fits(count) {
            bits.push(prefix, prefix_bits);
            return bits.push(change.cast_unsigned(), count);
        }
    }
    bits.push(0b1111, 4);
    bits.push(change.cast_unsigned(), 64);
}

/// `window`: leading and trailing zeros of the last one that was written out.
fn push_xor(bits: &mut Bits, xor: u64, window: &mut Option<(u32, u32)>) {
    if xor == 0 {
        return bits.push(0, 1);
    }
    // Five bits hold up to 31.
    let (leading, trailing) = (xor.leading_zeros().min(31), xor.trailing_zeros());
    if let Some((before, after)) = *window
        && leading >= before
        && trailing >= after
    {
        bits.push(0b10, 2);
        return bits.push(xor >> after, 64 - before - after);
    }
    *window = Some((leading, trailing));
    let length = 64 - leading - trailing;
    bits.push(0b11, 2);
    bits.push(leading.into(), 5);
    // 64 is written as 0: an xor of no bits is never written.
    bits.push((length & 63).into(), 6);
    bits.push(xor >> trailing, length);
}

#[cfg(test)]
mod tests {
    use super::{super::wire::Reader, *};
    use proptest::prelude::*;

    /// Reads bits as Prometheus' iterator does.
    struct Back<'a>(&'a [u8], usize);

    impl Back<'_> {
        fn take(&mut self, count: u32) -> u64 {
            (0..count).fold(0, |number, _| {
                let bit = self.0[self.1 / 8] >> (7 - self.1 % 8) & 1;
                self.1 += 1;
                number << 1 | u64::from(bit)
            })
        }

        fn varint(&mut self) -> u64 {
            let mut reader = Reader(&self.0[self.1 / 8..]);
            let number = reader.varint().unwrap();
            self.1 = (self.0.len() - reader.0.len()) * 8;
            number
        }
    }

    fn decode(chunk: &[u8]) -> Vec<(i64, u64)> {
        let mut back = Back(chunk, 0);
        let count = back.take(16);
        let (mut ts, mut delta, mut value, mut leading, mut trailing) = (0i64, 0i64, 0u64, 0, 0);
        let mut out = Vec::new();
        for at in 0..count {
            if at == 0 {
                let number = back.varint();
                ts = (number >> 1) as i64 ^ -((number & 1) as i64);
                value = back.take(64);
                out.push((ts, value));
                continue;
            }
            if at == 1 {
                delta = back.varint() as i64;
            } else {
                let size = [0, 14, 17, 20].into_iter().find(|_| back.take(1) == 0).unwrap_or(64);
                let mut change = back.take(size) as i64;
                if size < 64 && size > 0 && change > 1 << (size - 1) {
                    change -= 1 << size;
                }
                delta += change;
            }
            ts += delta;
            if back.take(1) == 1 {
                if back.take(1) == 1 {
                    leading = back.take(5) as u32;
                    let length = match back.take(6) as u32 {
                        0 => 64,
                        length => length,
                    };
                    trailing = 64 - leading - length;
                }
                value ^= back.take(64 - leading - trailing) << trailing;
            }
            out.push((ts, value));
        }
        out
    }

    proptest! {
        #[test]
        fn chunks_are_read_back(
            start in -4_000_000_000_000i64..4_000_000_000_000,
            samples in proptest::collection::vec((prop_oneof![3 => Just(15_000i64), 1 => 1i64..200_000, 1 => 1i64..20_000_000_000], prop_oneof![any::<u64>(), (0u32..9).prop_map(|n| f64::from(n).to_bits())]), 1..=MAX_SAMPLES),
        ) {
            let (mut at, mut expected) = (start, Vec::new());
            for (step, bits) in samples {
                at += step;
                expected.push((at, bits));
            }
            let (ts, values): (Vec<i64>, Vec<f64>) = expected.iter().map(|(ts, bits)| (*ts, f64::from_bits(*bits))).unzip();
            prop_assert_eq!(decode(&encode(&ts, &values)), expected);
        }
    }
}
