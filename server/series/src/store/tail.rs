//! The newest samples of a series, in a byte or so each.
//!
//! ```text
//! op 0nnnnnnn: n + 1 samples with the step and the value of the one before
//! op 1tssslll: one sample. t: the step changes, by a signed varint that follows.
//!              The value is the one before, xor l + 1 bytes that follow, behind s zero bytes; sssllll all ones: it is the same.
//! ```
//! A constant series on a regular grid takes a byte for 128 samples, a counter two or three bytes a sample, noise ten.
//! In memory it has no version and no checksum; on disk `checkpoint` has both around it, so another codec is a new version there.
//!
//! # Invariants
//! - Times strictly grow and lie in one window; the bits of values are kept.
//! - What it holds is bounded by [`MAX_SAMPLES`] and [`MAX_BYTES`], to the last sample that was let in.

use super::{chunk, varint::Reader};

/// A full window of samples every 15 s.
const MAX_SAMPLES: u16 = 480;

/// Few enough for a cheap read of the newest samples.
const MAX_BYTES: usize = 512;

/// More than a tail that was written to in between its times ever has.
const MAX_READ_BYTES: usize = 2 * MAX_BYTES;

/// Most bytes of one op: itself, a step, a value.
const OP_BYTES: usize = 1 + 5 + 8;

/// Bytes that a tail begins with: an allocator gives no less.
const FIRST_BYTES: usize = 24;

/// Skipped and following bytes of a value that is the same.
const SAME: (usize, usize) = (7, 8);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    /// Ops in the first `len` bytes, room behind them.
    bytes: Box<[u8]>,
    len: u16,
    t0: i64,
    /// Last time less the first one.
    span: u32,
    /// Of the last value.
    bits: u64,
    /// To the last sample.
    step: u32,
    count: u16,
    /// The last byte is an op that stands for several samples.
    in_run: bool,
}

impl Tail {
    pub(crate) const fn count(&self) -> u16 {
        self.count
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.count >= MAX_SAMPLES || self.len as usize >= MAX_BYTES
    }

    /// First and last time, if there are samples.
    pub(crate) fn range(&self) -> Option<(i64, i64)> {
        (!self.is_empty()).then(|| (self.t0, self.t1()))
    }

    fn t1(&self) -> i64 {
        self.t0 + i64::from(self.span)
    }

    /// Adds a sample behind the last one, in the same window.
    pub(crate) fn push(&mut self, ts: i64, value: f64) {
        let bits = value.to_bits();
        if self.is_empty() {
            (self.t0, self.span) = (ts, 0);
            self.put_one(0, bits);
            self.step = 0;
        } else {
            let span = u32::try_from(ts - self.t0).unwrap_or(u32::MAX);
            let step = span.saturating_sub(self.span);
            if bits == self.bits && step == self.step {
                self.put_same();
            } else {
                self.put_one(i64::from(step) - i64::from(self.step), bits ^ self.bits);
            }
            (self.span, self.step) = (span, step);
        }
        self.bits = bits;
        self.count += 1;
    }

    fn put_same(&mut self) {
        match (self.len as usize).checked_sub(1).and_then(|last| self.bytes.get_mut(last)) {
            Some(run) if self.in_run && *run < 0x7f => *run += 1,
            _ => {
                self.append(&[0]);
                self.in_run = true;
            }
        }
    }

    fn put_one(&mut self, step: i64, xor: u64) {
        let zeros = (xor.leading_zeros() / 8) as usize;
        let (skip, len) = if xor == 0 { SAME } else { (zeros, 8 - zeros - (xor.trailing_zeros() / 8) as usize) };
        let mut op = [0; OP_BYTES];
        op[0] = 0x80 | u8::from(step != 0) << 6 | (skip as u8) << 3 | (len as u8 - 1);
        let mut end = 1;
        if step != 0 {
            let mut number = ((step << 1) ^ (step >> 63)) as u64;
            while number >= 0x80 {
                op[end] = number as u8 | 0x80;
                (number, end) = (number >> 7, end + 1);
            }
            op[end] = number as u8;
            end += 1;
        }
        if (skip, len) != SAME {
            op[end..end + len].copy_from_slice(&xor.to_be_bytes()[skip..skip + len]);
            end += len;
        }
        self.append(&op[..end]);
        self.in_run = false;
    }

    /// Grows by a little when there is no room: there is one of these for every series.
    fn append(&mut self, op: &[u8]) {
        let (len, end) = (self.len as usize, self.len as usize + op.len());
        if end > self.bytes.len() {
            let mut bytes = std::mem::take(&mut self.bytes).into_vec();
            let room = (len + OP_BYTES + len / 4).max(FIRST_BYTES);
            bytes.reserve_exact(room - len);
            bytes.resize(room, 0);
            self.bytes = bytes.into_boxed_slice();
        }
        self.bytes[len..end].copy_from_slice(op);
        self.len = end as u16;
    }

    /// Sets the value at a time from the first to the last one. The caller asks first whether it is full.
    pub(crate) fn set(&mut self, ts: i64, value: f64) {
        if ts == self.t1() && value.to_bits() == self.bits {
            return;
        }
        let old = std::mem::take(self);
        let mut new = Some((ts, value));
        for sample in old.iter() {
            if let Some((ts, value)) = new.take_if(|new| new.0 <= sample.0) {
                self.push(ts, value);
            }
            if sample.0 != ts {
                self.push(sample.0, sample.1);
            }
        }
    }

    /// What [`Tail::read`] takes, beside the first time.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// A tail from its bytes; nothing if they are not what a tail writes.
    pub(crate) fn read(t0: i64, bytes: &[u8]) -> Option<Self> {
        let mut ops = Samples { ops: Reader(bytes), ts: t0, step: 0, bits: 0, run: 0 };
        let (mut count, mut in_run) = (0u64, false);
        while let Some(op) = ops.ops.0.first() {
            in_run = *op < 0x80;
            ops.op()?;
            let samples = u64::from(ops.run) + 1;
            let is_first = count == 0;
            let step = u32::try_from(ops.step).ok().filter(|step| (*step == 0) == is_first && !(is_first && in_run))?;
            ops.ts = ops.ts.checked_add(i64::from(step).checked_mul(samples.cast_signed())?)?;
            ops.run = 0;
            count += samples;
        }
        let step = u32::try_from(ops.step).ok()?;
        let count = u16::try_from(count).ok().filter(|count| *count <= MAX_SAMPLES)?;
        let sound = bytes.len() <= MAX_READ_BYTES && chunk::window_of(t0) == chunk::window_of(ops.ts);
        let span = u32::try_from(ops.ts.checked_sub(t0)?).ok()?;
        sound.then(|| Self { bytes: bytes.into(), len: bytes.len() as u16, t0, span, bits: ops.bits, step, count, in_run })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, f64)> {
        Samples { ops: Reader(self.bytes()), ts: self.t0, step: 0, bits: 0, run: 0 }
    }
}

/// Samples that are still to come.
struct Samples<'a> {
    ops: Reader<'a>,
    ts: i64,
    step: i64,
    bits: u64,
    run: u8,
}

impl Samples<'_> {
    fn op(&mut self) -> Option<()> {
        let op = self.ops.byte()?;
        if op < 0x80 {
            self.run = op;
            return Some(());
        }
        if op & 0x40 != 0 {
            self.step = self.step.checked_add(self.ops.signed()?)?;
        }
        let (skip, len) = (usize::from(op >> 3 & 7), usize::from(op & 7) + 1);
        if (skip, len) != SAME {
            let mut xor = [0; 8];
            xor.get_mut(skip..skip + len)?.copy_from_slice(self.ops.take(len)?);
            self.bits ^= u64::from_be_bytes(xor);
        }
        Some(())
    }
}

impl Iterator for Samples<'_> {
    type Item = (i64, f64);

    fn next(&mut self) -> Option<Self::Item> {
        match self.run.checked_sub(1) {
            Some(rest) => self.run = rest,
            None => self.op()?,
        }
        self.ts += self.step;
        Some((self.ts, f64::from_bits(self.bits)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn read(tail: &Tail) -> Vec<(i64, u64)> {
        tail.iter().map(|(ts, value)| (ts, value.to_bits())).collect()
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => Just(0.0),
            4 => Just(1.5),
            2 => (0u32..100_000).prop_map(|n| f64::from(n) / 100.0),
            1 => any::<u64>().prop_map(f64::from_bits),
            1 => any::<u8>().prop_map(|byte| f64::from_bits(u64::from(byte) << 56)),
            1 => Just(-0.0),
        ]
    }

    proptest! {
        #[test]
        fn a_tail_is_a_map_from_time_to_the_last_value(
            start in prop_oneof![Just(0i64), Just(-7_200_000), 1_700_000_000_000i64..1_700_100_000_000],
            writes in proptest::collection::vec((prop_oneof![5 => Just(15_000i64), 1 => 1i64..7_000_000, 3 => -60_000i64..60_000], value()), 1..300),
        ) {
            let (mut tail, mut model, mut last) = (Tail::default(), BTreeMap::new(), start);
            for (step, value) in writes {
                let ts = last + step;
                if tail.range().is_none_or(|(_, t1)| ts > t1) {
                    tail.push(ts, value);
                    last = ts;
                } else if tail.range().is_some_and(|(t0, _)| ts >= t0) {
                    tail.set(ts, value);
                } else {
                    continue;
                }
                model.insert(ts, value.to_bits());
                prop_assert_eq!(usize::from(tail.count()), model.len());
            }
            prop_assert_eq!(tail.range(), model.keys().next().copied().zip(model.keys().last().copied()));
            prop_assert_eq!(read(&tail), model.into_iter().collect::<Vec<_>>());
            if tail.range().is_none_or(|(t0, t1)| chunk::window_of(t0) == chunk::window_of(t1)) && tail.count() <= MAX_SAMPLES {
                let mut again = Tail::read(tail.range().map_or(0, |(t0, _)| t0), tail.bytes()).unwrap();
                prop_assert_eq!((read(&again), again.range(), again.count()), (read(&tail), tail.range(), tail.count()));
                // It goes on as the one that it was read from.
                for next in [(last + 15_000, 1.0), (last + 30_000, 1.0), (last + 45_000, 1.0), (last + 45_001, 2.0)] {
                    tail.push(next.0, next.1);
                    again.push(next.0, next.1);
                }
                prop_assert_eq!(again.bytes(), tail.bytes());
                prop_assert_eq!(read(&again), read(&tail));
            }
        }

        #[test]
        fn what_is_read_from_any_bytes_can_be_gone_through(start in any::<i64>(), bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(tail) = Tail::read(start, &bytes) {
                prop_assert_eq!(tail.iter().count(), usize::from(tail.count()));
                prop_assert_eq!(tail.iter().last().map(|(ts, _)| ts), tail.range().map(|(_, t1)| t1));
                prop_assert!(tail.iter().zip(tail.iter().skip(1)).all(|(a, b)| a.0 < b.0));
            }
        }
    }

    #[test]
    fn regular_samples_are_small_and_noise_is_bounded() {
        let fill = |value: fn(u32) -> f64| {
            let mut tail = Tail::default();
            (0..)
                .take_while(|at| {
                    let is_full = tail.is_full();
                    if !is_full {
                        tail.push(i64::from(*at) * 15_000, value(*at));
                    }
                    !is_full
                })
                .count();
            (tail.count(), tail.bytes().len())
        };
        assert_eq!(fill(|_| 1.0), (480, 11));
        let (count, bytes) = fill(f64::from);
        assert!(count >= 200 && bytes < MAX_BYTES + OP_BYTES, "{count} {bytes}");
        let (count, bytes) = fill(|at| f64::from(at).sin());
        assert!(count >= 56 && bytes < MAX_BYTES + OP_BYTES, "{count} {bytes}");
    }
}
