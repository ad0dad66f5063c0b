//! Where in a text something may start, end or announce a value: found for 48 bytes at once.
//!
//! Each class of bytes is a word with a bit per byte; shifting the words against each other tells what stands beside what.
//! Times of day, dates, short numbers and paths of modules, most of a log's digits and colons, are never looked at one by one.
//!
//! # Invariants
//! - Finds at least the places that [`super::scan`] has a look for. What it finds beyond them costs a look and nothing else.
//! - The same on all processors; on x86-64 sixteen bytes are compared at a time.

/// Bytes that are told of a block, and those around them that tell what they are.
const TOLD: usize = 48;
const BEFORE: usize = 4;
const BLOCK: usize = 64;
const TOLD_BITS: u64 = ((1 << TOLD) - 1) << BEFORE;

/// A bit for each byte of a block.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Classes {
    digit: u64,
    letter: u64,
    colon: u64,
    /// `= > ; @ +` and the first byte of full-width signs.
    sign: u64,
    /// A space or a dash.
    joint: u64,
    /// A dot or a closing bracket.
    stop: u64,
}

/// Places in a text, in order. A run of digits is told by its first digit or by the byte behind its last.
#[derive(Debug)]
pub(super) struct Triggers<'a> {
    bytes: &'a [u8],
    /// Every number with a dot behind it counts.
    dotted: bool,
    base: usize,
    bits: u64,
}

impl<'a> Triggers<'a> {
    pub(super) fn new(bytes: &'a [u8], dotted: bool) -> Self {
        let mut triggers = Self { bytes, dotted, base: 0, bits: 0 };
        triggers.load();
        triggers
    }

    /// The next place at or behind `from`, which never goes back.
    #[inline]
    pub(super) fn next(&mut self, from: usize) -> Option<usize> {
        if from >= self.base + TOLD {
            self.base = from - from % TOLD;
            self.load();
        }
        self.bits &= u64::MAX << (from.saturating_sub(self.base) + BEFORE).min(BLOCK - 1);
        while self.bits == 0 {
            self.base += TOLD;
            self.load();
            if self.base >= self.bytes.len() {
                return None;
            }
        }
        Some(self.base + self.bits.trailing_zeros() as usize - BEFORE).filter(|at| *at <= self.bytes.len())
    }

    fn load(&mut self) {
        let Some(start) = self.base.checked_sub(BEFORE).filter(|start| start + BLOCK <= self.bytes.len()) else {
            self.load_edge();
            return;
        };
        if let Some(block) = self.bytes.get(start..).and_then(<[u8]>::first_chunk) {
            self.bits = triggers(classes(block), self.dotted);
        }
    }

    /// A block of which not all bytes are there.
    fn load_edge(&mut self) {
        let mut block = [0; BLOCK];
        let skipped = BEFORE.saturating_sub(self.base);
        let part = self.bytes.get(self.base.saturating_sub(BEFORE)..).unwrap_or_default();
        for (slot, byte) in block.iter_mut().skip(skipped).zip(part) {
            *slot = *byte;
        }
        self.bits = triggers(classes(&block), self.dotted);
    }
}

/// The places that count.
#[inline]
const fn triggers(classes: Classes, dotted: bool) -> u64 {
    let Classes { digit, letter, colon, sign, joint, stop } = classes;
    let starts = digit & !(digit << 1);
    let ends = !digit & (digit << 1);
    let (digit_behind, two_behind) = (digit >> 1, digit >> 1 & digit >> 2);
    let three_before = digit << 1 & digit << 2 & digit << 3;
    let just_three = three_before & !(digit << 4);
    // `08:00`, but not `v1:2`; `a::b`.
    let time = digit_behind & digit << 1 & (digit << 2 & (digit << 3 | !(letter << 3)) | !(digit << 2) & !(letter << 2));
    let colons = colon & !(colon << 1) & !(colon >> 1) & !time;
    // A second group has three digits or more; two follow three only.
    let groups = ends & joint & two_behind & (digit >> 3 | just_three);
    let stops = ends & stop & (three_before | if dotted { digit_behind } else { 0 });
    let four = digit & digit >> 1 & digit >> 2 & digit >> 3;
    let eleven = four & four >> 4 & four >> 7;
    let account = letter << 1 & letter << 2 & digit_behind;
    (colons | sign | groups | stops | starts & (eleven | account)) & TOLD_BITS
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the compiler asks for it although every x86-64 has the instructions")]
#[inline]
fn classes(block: &[u8; BLOCK]) -> Classes {
    // SAFETY: SSE2 is part of x86-64; the function touches no memory but its argument.
    unsafe { classes_by_sixteen(block) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn classes_by_sixteen(block: &[u8; BLOCK]) -> Classes {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8, _mm_sub_epi8,
    };
    const fn byte(value: u8) -> i8 {
        value.cast_signed()
    }
    let is = |bytes: __m128i, value: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte(value)));
    // Whether `first` lies at most `span` before a byte.
    let within = |bytes: __m128i, first: u8, span: u8| {
        let offset = _mm_sub_epi8(bytes, _mm_set1_epi8(byte(first)));
        _mm_cmpeq_epi8(_mm_min_epu8(offset, _mm_set1_epi8(byte(span))), offset)
    };
    let bits = |matches: __m128i| u64::from(_mm_movemask_epi8(matches).cast_unsigned());
    let mut all = Classes::default();
    for (at, part) in block.chunks_exact(16).enumerate() {
        let word = |from: usize| part.get(from..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| i64::from_le_bytes(*bytes));
        let bytes = _mm_set_epi64x(word(8), word(0));
        let signs = [b'>', b';', b'@', b'+', 0xEF].into_iter().fold(is(bytes, b'='), |any, sign| _mm_or_si128(any, is(bytes, sign)));
        let shift = at * 16;
        all.digit |= bits(within(bytes, b'0', 9)) << shift;
        all.letter |= bits(within(_mm_or_si128(bytes, _mm_set1_epi8(0x20)), b'a', 25)) << shift;
        all.colon |= bits(is(bytes, b':')) << shift;
        all.sign |= bits(signs) << shift;
        all.joint |= bits(_mm_or_si128(is(bytes, b' '), is(bytes, b'-'))) << shift;
        all.stop |= bits(_mm_or_si128(is(bytes, b'.'), is(bytes, b')'))) << shift;
    }
    all
}

#[cfg(not(target_arch = "x86_64"))]
fn classes(block: &[u8; BLOCK]) -> Classes {
    classes_one_by_one(block)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn classes_one_by_one(block: &[u8; BLOCK]) -> Classes {
    let mut all = Classes::default();
    for (at, byte) in block.iter().enumerate() {
        let class = match byte {
            b'0'..=b'9' => &mut all.digit,
            b'a'..=b'z' | b'A'..=b'Z' => &mut all.letter,
            b':' => &mut all.colon,
            b'=' | b'>' | b';' | b'@' | b'+' | 0xEF => &mut all.sign,
            b' ' | b'-' => &mut all.joint,
            b'.' | b')' => &mut all.stop,
            _ => continue,
        };
        *class |= 1 << at;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, dotted: bool) -> Vec<usize> {
        let mut triggers = Triggers::new(text.as_bytes(), dotted);
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(place) = triggers.next(at) {
            found.push(place);
            at = place + 1;
        }
        found
    }

    #[test]
    fn classes_are_the_same_however_they_are_compared() {
        for first in 0..=u8::MAX {
            let mut block = [0; BLOCK];
            for (at, slot) in block.iter_mut().enumerate() {
                *slot = first.wrapping_add(u8::try_from(at * 37 % 256).unwrap());
            }
            assert_eq!(classes(&block), classes_one_by_one(&block), "{block:?}");
        }
    }

    #[test]
    fn what_may_be_something_is_told_wherever_it_stands() {
        for (text, expected) in [
            ("2026-11-24 08:00:01,123 INFO 1.2.3 a::b", vec![]),
            ("a=b", vec![1]),
            ("key: x", vec![3]),
            ("v1:2", vec![2]),
            ("13812345678", vec![0]),
            ("1381234567", vec![]),
            ("138 1234 5678", vec![3, 8]),
            ("123-45-6789", vec![3, 6]),
            ("(555) 1", vec![4]),
            ("DE89x", vec![2]),
            ("a@b +1 ;：", vec![1, 4, 7, 8]),
        ] {
            for before in [0, 1, 3, 4, 43, 44, 47, 48, 49, 60, 95, 96, 200] {
                let shifted: Vec<usize> = expected.iter().map(|at| at + before).collect();
                for behind in [0, 1, 20, 100] {
                    let line = format!("{}{text}{}", "_".repeat(before), "_".repeat(behind));
                    assert_eq!(all(&line, false), shifted, "{line}");
                }
            }
        }
        assert_eq!(all("1.2.3.4", true), [1, 3, 5]);
    }

    #[test]
    fn a_jump_goes_on_behind_it() {
        let line = format!("a=b{}c=d", "x".repeat(300));
        let mut triggers = Triggers::new(line.as_bytes(), false);
        assert_eq!((triggers.next(0), triggers.next(250), triggers.next(400)), (Some(1), Some(304), None));
    }
}
