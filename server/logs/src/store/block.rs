//! The bytes of many lines: a frame of columns (all but the text) and a frame of text.
//!
//! Used for the head's rows (one batch of one file, in file order, batch number given by the row) and for sealed blocks (one
//! stream, in the total order). A reader that needs no text decompresses the columns only.
//!
//! # Columns, version 1
//! Numbers are LEB128, differences are zigzag and wrap. Count of lines; count of sources, each: length of the agent's name,
//! name, 16 bytes of file id (LE). Then one column after the other, `count` numbers each: time minus the time before; batch
//! minus the batch before; index minus (the index before + 1); end offset minus the offset before; source; one byte of
//! severity (bits 0-2) and truncated (bit 3); length of the text.
//!
//! # Version 2, for sealed blocks
//! Columns: `02`, then the frame. In it, behind the sources: one byte, the digits that all times end in (`0` in decimal; 0 to 9 of them);
//! time minus the time before, without these digits; batch; index; length of the text; end offset minus (the offset before
//! + length); source; severity and truncated. Text: see [`fields`](super::fields), or as in version 1.
//!
//! # Invariants
//! - Any bytes are decoded or refused, never a panic; memory is bounded by the frames.

use super::fields::{self, Gate};
use super::frame::{self, Bad, Reader, put, put_signed};
use crate::entry::EntryId;
use shipwatch_common::model::{FileId, Severity};
use std::{ops::Range, sync::Arc};

/// All severities, by their number on disk.
pub(crate) const SEVERITIES: [Severity; 7] =
    [Severity::Unknown, Severity::Trace, Severity::Debug, Severity::Info, Severity::Warn, Severity::Error, Severity::Fatal];

/// First byte of the columns of a sealed block.
const SEALED: u8 = 2;

/// A severity's number on disk.
pub(crate) const fn severity_code(severity: Severity) -> u8 {
    match severity {
        Severity::Unknown => 0,
        Severity::Trace => 1,
        Severity::Debug => 2,
        Severity::Info => 3,
        Severity::Warn => 4,
        Severity::Error => 5,
        Severity::Fatal => 6,
    }
}

/// Where a line was read.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Origin {
    pub(crate) agent: Arc<str>,
    pub(crate) file: FileId,
}

/// One line, before it is put into bytes.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) id: EntryId,
    pub(crate) origin: u32,
    pub(crate) end_offset: u64,
    pub(crate) severity: Severity,
    pub(crate) truncated: bool,
}

/// The bytes of many lines.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Encoded {
    pub(crate) cols: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// Puts lines into bytes. The texts are those of the lines, in order.
pub(crate) fn encode<'a>(
    origins: &[Origin],
    lines: &[Line],
    texts: impl Iterator<Item = &'a str> + Clone,
    level: i32,
) -> Result<Encoded, Bad> {
    let mut cols = Vec::with_capacity(lines.len() * 12 + 64);
    put_origins(&mut cols, lines.len(), origins);
    differences(&mut cols, lines, |line| line.id.ts_ns, 0);
    differences(&mut cols, lines, |line| line.id.batch as i64, 0);
    differences(&mut cols, lines, |line| i64::from(line.id.index), 1);
    differences(&mut cols, lines, |line| line.end_offset as i64, 0);
    lines.iter().for_each(|line| put(&mut cols, u64::from(line.origin)));
    cols.extend(lines.iter().map(flags));
    texts.clone().for_each(|text| put(&mut cols, text.len() as u64));
    Ok(Encoded { cols: frame::pack(&cols, level)?, body: frame::pack(&joined(texts), level)? })
}

/// Puts lines into the bytes of version 2.
pub(crate) fn encode_sealed<'a>(
    origins: &[Origin],
    lines: &[Line],
    texts: impl Iterator<Item = &'a str> + Clone,
    level: i32,
) -> Result<Encoded, Bad> {
    let mut cols = Vec::with_capacity(lines.len() * 8 + 64);
    put_origins(&mut cols, lines.len(), origins);
    let zeros = (0u8..9).find(|zeros| lines.iter().any(|line| line.id.ts_ns % 10i64.pow(u32::from(*zeros) + 1) != 0)).unwrap_or(9);
    let unit = 10i64.pow(u32::from(zeros));
    cols.push(zeros);
    differences(&mut cols, lines, |line| line.id.ts_ns / unit, 0);
    differences(&mut cols, lines, |line| line.id.batch as i64, 0);
    differences(&mut cols, lines, |line| i64::from(line.id.index), 1);
    texts.clone().for_each(|text| put(&mut cols, text.len() as u64));
    let mut before = 0i64;
    for (line, text) in lines.iter().zip(texts.clone()) {
        let offset = line.end_offset as i64;
        put_signed(&mut cols, offset.wrapping_sub(before).wrapping_sub(text.len() as i64));
        before = offset;
    }
    lines.iter().for_each(|line| put(&mut cols, u64::from(line.origin)));
    cols.extend(lines.iter().map(flags));
    let mut packed = vec![SEALED];
    packed.extend(frame::pack(&cols, level)?);
    let body = match fields::encode(texts.clone(), level)? {
        Some(body) => body,
        None => frame::pack(joined(texts).as_slice(), level)?,
    };
    Ok(Encoded { cols: packed, body })
}

fn put_origins(cols: &mut Vec<u8>, lines: usize, origins: &[Origin]) {
    put(cols, lines as u64);
    put(cols, origins.len() as u64);
    for origin in origins {
        put(cols, origin.agent.len() as u64);
        cols.extend_from_slice(origin.agent.as_bytes());
        cols.extend(origin.file.0.to_le_bytes());
    }
}

fn flags(line: &Line) -> u8 {
    severity_code(line.severity) | u8::from(line.truncated) << 3
}

fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<u8> {
    texts.fold(Vec::new(), |mut body, text| {
        body.extend_from_slice(text.as_bytes());
        body
    })
}

fn differences(out: &mut Vec<u8>, lines: &[Line], value: impl Fn(&Line) -> i64, step: i64) {
    let mut expected = 0i64;
    for line in lines {
        put_signed(out, value(line).wrapping_sub(expected));
        expected = value(line).wrapping_add(step);
    }
}

/// All of the lines but their text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    pub(crate) origins: Vec<Origin>,
    pub(crate) ids: Vec<EntryId>,
    pub(crate) end_offsets: Vec<u64>,
    origin: Vec<u32>,
    flags: Vec<u8>,
    ends: Vec<usize>,
}

impl Columns {
    /// Reads the columns. For a row of the head, `batch` is its number.
    pub(crate) fn decode(packed: &[u8], batch: Option<u64>) -> Result<Self, Bad> {
        let (sealed, packed) = match packed.split_first() {
            Some((&SEALED, rest)) => (true, rest),
            _ => (false, packed),
        };
        let raw = frame::unpack(packed)?;
        let mut from = Reader(&raw);
        let count = usize::try_from(from.get()?).ok().filter(|count| *count <= raw.len()).ok_or(Bad("more lines than bytes"))?;
        let known = usize::try_from(from.get()?).ok().filter(|count| *count <= raw.len()).ok_or(Bad("more sources than bytes"))?;
        let origins = (0..known).map(|_| origin(&mut from)).collect::<Result<Vec<_>, _>>()?;
        let zeros = if sealed { u32::from(from.bytes(1)?.first().copied().unwrap_or(0)) } else { 0 };
        let unit = 10i64.checked_pow(zeros).ok_or(Bad("a unit of time is not known"))?;
        let times = sums(&mut from, count, 0)?;
        let batches = sums(&mut from, count, 0)?;
        let indexes = sums(&mut from, count, 1)?;
        let mut ends = if sealed { ends(&mut from, count)? } else { Vec::new() };
        let mut end_offsets: Vec<u64> = sums(&mut from, count, 0)?.into_iter().map(|offset| offset as u64).collect();
        if sealed {
            // The sums lack the lengths of the texts, which add up to their ends.
            end_offsets.iter_mut().zip(&ends).for_each(|(offset, end)| *offset = offset.wrapping_add(*end as u64));
        }
        let origin = (0..count)
            .map(|_| u32::try_from(from.get()?).ok().filter(|at| (*at as usize) < known).ok_or(Bad("a source is not known")))
            .collect::<Result<_, _>>()?;
        let flags = from.bytes(count)?.to_vec();
        if flags.iter().any(|flag| flag & 7 == 7 || *flag > 15) {
            return Err(Bad("a severity is not known"));
        }
        if !sealed {
            ends = self::ends(&mut from, count)?;
        }
        if !from.0.is_empty() {
            return Err(Bad("there is more than the lines"));
        }
        let ids = times
            .into_iter()
            .zip(batches)
            .zip(indexes)
            .map(|((time, stored), index)| {
                let index = u32::try_from(index).map_err(|_| Bad("a place in a batch is out of range"))?;
                let ts_ns = time.checked_mul(unit).ok_or(Bad("a time is out of range"))?;
                Ok(EntryId { ts_ns, batch: batch.unwrap_or(stored as u64), index })
            })
            .collect::<Result<_, Bad>>()?;
        Ok(Self { origins, ids, end_offsets, origin, flags, ends })
    }

    pub(crate) const fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn severity(&self, at: usize) -> Severity {
        self.flags.get(at).and_then(|flag| SEVERITIES.get(usize::from(flag & 7))).copied().unwrap_or_default()
    }

    pub(crate) fn truncated(&self, at: usize) -> bool {
        self.flags.get(at).is_some_and(|flag| flag & 8 != 0)
    }

    pub(crate) fn origin(&self, at: usize) -> Option<&Origin> {
        self.origins.get(*self.origin.get(at)? as usize)
    }

    /// Where the line's text is in the body.
    pub(crate) fn span(&self, at: usize) -> Range<usize> {
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        start..self.ends.get(at).copied().unwrap_or(start)
    }

    /// Which line has this byte of the body.
    pub(crate) fn line_at(&self, byte: usize) -> usize {
        self.ends.partition_point(|end| *end <= byte)
    }
}

fn origin(from: &mut Reader<'_>) -> Result<Origin, Bad> {
    let length = usize::try_from(from.get()?).map_err(|_| Bad("a name is too long"))?;
    let agent = std::str::from_utf8(from.bytes(length)?).map_err(|_| Bad("a name is not UTF-8"))?.into();
    let file = from.bytes(16)?.try_into().map_err(|_| Bad("a file id is cut off"))?;
    Ok(Origin { agent, file: FileId(u128::from_le_bytes(file)) })
}

/// Lengths of the texts, as the places where they end.
fn ends(from: &mut Reader<'_>, count: usize) -> Result<Vec<usize>, Bad> {
    let mut end = 0usize;
    (0..count)
        .map(|_| {
            end = usize::try_from(from.get()?)
                .ok()
                .and_then(|length| end.checked_add(length))
                .filter(|end| *end <= frame::MAX_RAW)
                .ok_or(Bad("the text is too long"))?;
            Ok(end)
        })
        .collect()
}

fn sums(from: &mut Reader<'_>, count: usize, step: i64) -> Result<Vec<i64>, Bad> {
    let mut expected = 0i64;
    (0..count)
        .map(|_| {
            let value = expected.wrapping_add(from.get_signed()?);
            expected = value.wrapping_add(step);
            Ok(value)
        })
        .collect()
}

/// Lines with their text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    pub(crate) columns: Columns,
    pub(crate) body: String,
}

impl Lines {
    /// Adds the text to its columns.
    pub(crate) fn decode(columns: Columns, packed: &[u8]) -> Result<Self, Bad> {
        let mut all = (0..columns.len()).collect();
        Self::decode_where(columns, packed, &[], &mut all)
    }

    /// As [`Lines::decode`], for the selected lines only, in ascending order; those that cannot pass the gates are taken out of the
    /// selection. What the text of the others is, is not said.
    pub(crate) fn decode_where(columns: Columns, packed: &[u8], gates: &[Gate], selected: &mut Vec<usize>) -> Result<Self, Bad> {
        let body = match packed.first() {
            Some(&fields::VERSION) => fields::decode_where(packed, &columns.ends, gates, selected)?,
            _ => String::from_utf8(frame::unpack(packed)?).map_err(|_| Bad("the text is not UTF-8"))?,
        };
        if columns.ends.last().copied().unwrap_or(0) != body.len() {
            return Err(Bad("the text has another length than its lines"));
        }
        if columns.ends.iter().any(|end| !body.is_char_boundary(*end)) {
            return Err(Bad("a line ends within a character"));
        }
        Ok(Self { columns, body })
    }

    pub(crate) fn text(&self, at: usize) -> &str {
        self.body.get(self.columns.span(at)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn origins() -> Vec<Origin> {
        vec![Origin { agent: "agent-1".into(), file: FileId(7) }, Origin { agent: "".into(), file: FileId(u128::MAX) }]
    }

    fn line() -> impl Strategy<Value = (Line, String)> {
        let id = (any::<i64>(), any::<u64>(), any::<u32>()).prop_map(|(ts_ns, batch, index)| EntryId { ts_ns, batch, index });
        (id, 0u32..2, any::<u64>(), 0usize..7, any::<bool>(), "\\PC{0,20}").prop_map(
            |(id, origin, end_offset, severity, truncated, text)| {
                (Line { id, origin, end_offset, severity: SEVERITIES[severity], truncated }, text)
            },
        )
    }

    fn decode(encoded: &Encoded) -> Result<Lines, Bad> {
        Lines::decode(Columns::decode(&encoded.cols, None)?, &encoded.body)
    }

    proptest! {
        #[test]
        fn lines_come_back(given in prop::collection::vec(line(), 0..40), sealed in any::<bool>()) {
            let (lines, texts): (Vec<_>, Vec<_>) = given.into_iter().unzip();
            let given = texts.iter().map(String::as_str);
            let encoded = if sealed { encode_sealed(&origins(), &lines, given, 3) } else { encode(&origins(), &lines, given, 3) };
            let found = decode(&encoded.unwrap()).unwrap();
            prop_assert_eq!(found.columns.len(), lines.len());
            for (at, (line, text)) in lines.iter().zip(&texts).enumerate() {
                prop_assert_eq!(found.columns.ids[at], line.id);
                prop_assert_eq!(found.columns.end_offsets[at], line.end_offset);
                prop_assert_eq!(found.columns.severity(at), line.severity);
                prop_assert_eq!(found.columns.truncated(at), line.truncated);
                prop_assert_eq!(found.columns.origin(at).cloned(), origins().get(line.origin as usize).cloned());
                prop_assert_eq!(found.text(at), text);
                if let Some(byte) = found.columns.span(at).next() {
                    prop_assert_eq!(found.columns.line_at(byte), at);
                }
            }
        }

        // The checksum is right here, so that the decoder itself is what is tried.
        #[test]
        fn any_columns_are_read_or_refused(raw in prop::collection::vec(any::<u8>(), 0..300), body in prop::collection::vec(any::<u8>(), 0..50)) {
            if let Ok(columns) = Columns::decode(&frame::pack(&raw, 0).unwrap(), None) {
                let _ = Lines::decode(columns, &frame::pack(&body, 0).unwrap());
            }
        }

        #[test]
        fn changed_columns_are_read_or_refused(
            given in prop::collection::vec(line(), 1..10), at in any::<prop::sample::Index>(), byte in any::<u8>(), sealed in any::<bool>()
        ) {
            let (lines, texts): (Vec<_>, Vec<_>) = given.into_iter().unzip();
            let texts = texts.iter().map(String::as_str);
            let (encoded, version) = if sealed {
                (encode_sealed(&origins(), &lines, texts, 0).unwrap(), 1)
            } else {
                (encode(&origins(), &lines, texts, 0).unwrap(), 0)
            };
            let mut raw = frame::unpack(&encoded.cols[version..]).unwrap();
            let at = at.index(raw.len());
            raw[at] = byte;
            let changed = [&encoded.cols[..version], &frame::pack(&raw, 0).unwrap()].concat();
            if let Ok(found) = Columns::decode(&changed, None).and_then(|columns| Lines::decode(columns, &encoded.body)) {
                for at in 0..found.columns.len() {
                    let _ = found.text(at);
                }
            }
        }
    }

    const TEXTS: [&str; 3] = ["payment failed for order 1", "支付失败", "支付失败"];

    fn golden_lines() -> [Line; 3] {
        let line = |ts_ns, batch, index, origin, end_offset, severity, truncated| Line {
            id: EntryId { ts_ns, batch, index },
            origin,
            end_offset,
            severity,
            truncated,
        };
        [
            line(1_700_000_000_000_000_000, 3, 0, 0, 20, Severity::Error, false),
            line(1_700_000_000_000_000_000, 3, 1, 0, 40, Severity::Unknown, true),
            line(1_700_000_000_500_000_000, 2, 9, 1, 7, Severity::Fatal, false),
        ]
    }

    /// The bytes of version 1 stay readable for ever. A new version gets a new file; this one stays.
    #[test]
    fn the_first_version_is_read() {
        let golden: Vec<Vec<u8>> = include_str!("../../fixtures/block_v1.hex").lines().map(unhex).collect();
        let encoded = encode(&origins(), &golden_lines(), TEXTS.into_iter(), 0).unwrap();
        assert_eq!((&encoded.cols, &encoded.body), (&golden[0], &golden[1]));
        // The compressed form is only read: another zstd may choose other bytes.
        for (cols, body) in [(&golden[0], &golden[1]), (&golden[2], &golden[3])] {
            let found = decode(&Encoded { cols: cols.clone(), body: body.clone() }).unwrap();
            assert_eq!(found.columns.ids, golden_lines().iter().map(|line| line.id).collect::<Vec<_>>());
            assert_eq!((0..3).map(|at| found.text(at)).collect::<Vec<_>>(), TEXTS);
        }
    }

    #[test]
    fn the_second_version_is_read() {
        let golden: Vec<Vec<u8>> = include_str!("../../fixtures/block_v2.hex").lines().map(unhex).collect();
        let encoded = encode_sealed(&origins(), &golden_lines(), SEALED_TEXTS.into_iter(), 0).unwrap();
        assert_eq!((&encoded.cols, &encoded.body), (&golden[0], &golden[1]));
        for (cols, body) in [(&golden[0], &golden[1]), (&golden[2], &golden[3])] {
            let found = decode(&Encoded { cols: cols.clone(), body: body.clone() }).unwrap();
            assert_eq!(found.columns.ids, golden_lines().iter().map(|line| line.id).collect::<Vec<_>>());
            assert_eq!(found.columns.end_offsets, [20, 40, 7]);
            assert_eq!((0..3).map(|at| found.text(at)).collect::<Vec<_>>(), SEALED_TEXTS);
        }
    }

    /// A number, hex digits, a UUID and a mixed word; two lines of one template.
    const SEALED_TEXTS: [&str; 3] = [
        "order 0042 trace=0123456789abcdef id=550e8400-e29b-41d4-a716-446655440000 支付",
        "order 7 trace=fedcba9876543210 id=550e8400-e29b-41d4-a716-446655440000 支付",
        "token a1b2c3d4e5g6 took 12.5 ms",
    ];

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    #[ignore = "shows what a golden file of a new version holds"]
    fn show_golden() {
        for level in [0, 3] {
            let encoded = encode(&origins(), &golden_lines(), TEXTS.into_iter(), level).unwrap();
            println!("{}\n{}", hex(&encoded.cols), hex(&encoded.body));
            assert!(decode(&encoded).is_ok());
        }
        for level in [0, 3] {
            let encoded = encode_sealed(&origins(), &golden_lines(), SEALED_TEXTS.into_iter(), level).unwrap();
            println!("2: {}\n2: {}", hex(&encoded.cols), hex(&encoded.body));
            assert!(decode(&encoded).is_ok());
        }
    }
}
