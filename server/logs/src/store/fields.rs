//! The text of many lines as templates and typed fields: what lines have in common is written once, what differs as numbers.
//!
//! A line is cut into its template, in which each field is a mark of one byte, and its fields: runs of digits, hex ids, UUIDs,
//! words that mix letters and digits. Lines of one template give columns, one per field; a column with one value only goes back into the
//! template.
//!
//! # Version 2 of a block's text
//! `02`, then five frames, each with its length before it (LEB128): templates; ids; numbers; bytes; words.
//! - Templates: their count, then each one ended by `00`. Marks: `01` number, `02` and a length: hex digits, `03` UUID, `04`
//!   word, `05` whole line.
//! - Ids: for each line its template, one plane of bytes, or two above 256 templates; nothing for one template.
//! - Numbers: per template, per mark, the numbers of its lines. One line: LEB128. More: width in bytes (bit 7: differences,
//!   zigzag), base, then planes of bytes, the low one first. All runs of digits are numbered, the shorter ones first, so
//!   that zeros in front are kept: `0`..`9`, `00`..`99`, `000`..
//! - Bytes: hex digits and UUIDs as binary. Words: length, bytes.
//!
//! # Invariants
//! - Before a block is written, what its sections say is compared with the text: a difference means that the text is written
//!   as it is (version 1).
//! - Any bytes are decoded or refused, never a panic; a field has at least one byte of text, so memory is bounded by the text's.

use super::frame::{self, Bad, Reader, put};
use std::{collections::HashMap, ops::Range};

mod gate;
mod parse;
mod restore;

pub(crate) use gate::Gate;
#[cfg(test)]
pub(crate) use restore::decode;
pub(crate) use restore::decode_where;

/// First byte of a text in this form.
pub(crate) const VERSION: u8 = 2;
pub(super) const SECTIONS: usize = 5;

const END: u8 = 0;
const NUMBER: u8 = 1;
const HEX: u8 = 2;
const UUID: u8 = 3;
const WORD: u8 = 4;
const LINE: u8 = 5;
/// Longest run of digits that is a number.
const DIGITS_MAX: usize = 18;
const DIFFERENCES: u8 = 0x80;

/// The parts, before compression.
pub(super) type Sections = [Vec<u8>; SECTIONS];

/// How many runs of digits are shorter than `length`: the number of `00..0`.
const fn shorter(length: usize) -> u64 {
    let (mut all, mut of, mut at) = (0u64, 10u64, 1);
    while at < length {
        all += of;
        of *= 10;
        at += 1;
    }
    all
}

/// Puts texts into bytes; `None` where they are better kept as they are.
pub(crate) fn encode<'a>(texts: impl Iterator<Item = &'a str> + Clone, level: i32) -> Result<Option<Vec<u8>>, Bad> {
    let Some(sections) = parse::Parsed::of(texts.clone()).map(parse::Parsed::sections) else { return Ok(None) };
    let lengths: Vec<usize> = texts.clone().map(str::len).collect();
    let Ok(restored) = restore::restore(&sections, &ends(&lengths)) else { return Ok(None) };
    let mut rest = restored.as_slice();
    for text in texts {
        match rest.strip_prefix(text.as_bytes()) {
            Some(after) => rest = after,
            None => return Ok(None),
        }
    }
    let mut out = vec![VERSION];
    for section in &sections {
        let packed = frame::pack(section, level)?;
        put(&mut out, packed.len() as u64);
        out.extend(packed);
    }
    Ok(Some(out))
}

fn ends(lengths: &[usize]) -> Vec<usize> {
    let sum = |end: &mut usize, length: &usize| {
        *end += length;
        Some(*end)
    };
    lengths.iter().scan(0, sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there_and_back(texts: &[&str]) -> usize {
        let packed = encode(texts.iter().copied(), 3).unwrap().unwrap();
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        assert_eq!(decode(&packed, &ends(&lengths)).unwrap(), texts.concat());
        packed.len()
    }

    #[test]
    fn texts_come_back_exactly() {
        there_and_back(&[
            "10.0.0.255 - - [14/Nov/2023:22:13:05 +0000] \"GET /a HTTP/1.1\" 200 0007",
            "10.0.0.25 - - [14/Nov/2023:22:13:15 +0000] \"GET /a HTTP/1.1\" 200 7",
            "trace=0123456789abcdef0123456789abcdef id=550e8400-e29b-41d4-a716-446655440000",
            "trace=0123456789ABCDEF0123456789abcde id=550e8400-e29b-41d4-a716-44665544000",
            "SF1234567890123 00 000 0 18446744073709551616 999999999999999999 1000000000000000000",
            "订单支付成功12件",
            "",
            "\u{1}\u{0}control 5\u{5}",
            "tok=a1B2c3D4e5F6g7H8 x86_64 v1",
        ]);
        there_and_back(&["one"]);
        there_and_back(&["", "", ""]);
    }

    #[test]
    fn what_lines_have_in_common_costs_once() {
        let lines: Vec<String> = (0..2000u32)
            .map(|at| {
                let id = u64::from(at).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                format!(
                    "2023-11-14T10:{:02}:{:02}Z level=info trace={id:016x}{:016x} moved to PACKED",
                    at / 60 % 60,
                    at % 60,
                    id.rotate_left(17)
                )
            })
            .collect();
        let bytes = there_and_back(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(bytes < 2000 * 18, "{bytes}");
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-f0-9]{0,40}( [0-9]{0,22}){0,3}",
            "(GET|POST) /[a-z]{1,3}/[0-9]{1,4} [0-9]{1,3}\\.[0-9]{1,3}",
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            "[\\x00-\\x08a0支]{0,8}",
            "\\PC{0,20}",
            "[A-Za-z0-9]{8,30}",
        ]
    }

    proptest! {
        #[test]
        fn any_texts_come_back(texts in prop::collection::vec(text(), 1..60)) {
            there_and_back(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        }

        #[test]
        fn a_gate_lets_every_line_with_its_text_through(
            texts in prop::collection::vec(text(), 1..30), which in any::<prop::sample::Index>(), from in any::<prop::sample::Index>(),
            length in 1usize..7, any_case in any::<bool>()
        ) {
            let chars: Vec<char> = which.get(&texts).chars().collect();
            let from = from.index(chars.len().max(1)).min(chars.len());
            let part: String = chars[from..(from + length).min(chars.len())].iter().collect();
            let part = if any_case { part.to_ascii_uppercase() } else { part };
            if let Some(gate) = Gate::new(&part, any_case) {
                let packed = encode(texts.iter().map(String::as_str), 0).unwrap().unwrap();
                let lengths: Vec<usize> = texts.iter().map(String::len).collect();
                let mut selected: Vec<usize> = (0..texts.len()).collect();
                let found = decode_where(&packed, &ends(&lengths), &[gate], &mut selected).unwrap();
                let ends = ends(&lengths);
                for (at, text) in texts.iter().enumerate() {
                    let has = if any_case { text.to_ascii_lowercase().contains(&part.to_ascii_lowercase()) } else { text.contains(&part) };
                    prop_assert!(!has || selected.contains(&at), "{part:?} in {text:?}");
                    let own = &found[ends[at] - text.len()..ends[at]];
                    prop_assert!(own == text || (!selected.contains(&at) && own.bytes().all(|byte| byte == 0)));
                }
            }
        }

        #[test]
        fn changed_sections_are_read_or_refused(
            texts in prop::collection::vec(text(), 1..12), which in 0usize..SECTIONS, at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let lengths: Vec<usize> = texts.iter().map(String::len).collect();
            let mut sections = parse::Parsed::of(texts.iter().map(String::as_str)).unwrap().sections();
            if !sections[which].is_empty() {
                let at = at.index(sections[which].len());
                sections[which][at] = byte;
            }
            if let Ok(found) = restore::restore(&sections, &ends(&lengths)) {
                prop_assert_eq!(found.len(), texts.concat().len());
            }
        }

        #[test]
        fn any_sections_are_read_or_refused(
            sections in prop::collection::vec(prop::collection::vec(prop_oneof![0u8..6, any::<u8>()], 0..60), SECTIONS..=SECTIONS), lines in 0usize..8
        ) {
            let sections: Sections = sections.try_into().unwrap();
            let _ = restore::restore(&sections, &ends(&vec![3; lines]));
            let mut packed = vec![VERSION];
            for section in &sections {
                let frame = frame::pack(section, 0).unwrap();
                put(&mut packed, frame.len() as u64);
                packed.extend(frame);
            }
            let _ = decode(&packed, &ends(&vec![3; lines]));
        }
    }
}
