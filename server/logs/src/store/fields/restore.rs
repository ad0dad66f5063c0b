//! Makes the text of lines from templates and fields again.

use super::{
    Bad, DIFFERENCES, DIGITS_MAX, END, HEX, LINE, NUMBER, Range, Reader, SECTIONS, Sections, UUID, VERSION, WORD, frame, parse::UUID_TEXT,
    shorter,
};

/// `00` to `99`.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut at = 0;
    while at < 100 {
        pairs[at] = [b'0' + at as u8 / 10, b'0' + at as u8 % 10];
        at += 1;
    }
    pairs
};
/// `00` to `ff`.
const HEX_PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut at = 0;
    while at < 256 {
        pairs[at] = [digits[at >> 4], digits[at & 15]];
        at += 1;
    }
    pairs
};
/// Number of the first run of digits of each length.
const FIRST: [u64; DIGITS_MAX + 2] = {
    let mut first = [0; DIGITS_MAX + 2];
    let mut length = 1;
    while length < DIGITS_MAX + 2 {
        first[length] = shorter(length);
        length += 1;
    }
    first
};

/// The text of a packed body, whose lines end at these places.
pub(crate) fn decode(packed: &[u8], ends: &[usize]) -> Result<String, Bad> {
    let (version, rest) = packed.split_first().ok_or(Bad("the text is missing"))?;
    if *version != VERSION {
        return Err(Bad("the text has an unknown version"));
    }
    let mut from = Reader(rest);
    let mut sections: Sections = std::array::from_fn::<_, SECTIONS, _>(|_| Vec::new());
    for section in &mut sections {
        let length = usize::try_from(from.get()?).map_err(|_| Bad("a section is too long"))?;
        *section = frame::unpack(from.bytes(length)?)?;
    }
    if !from.0.is_empty() {
        return Err(Bad("there is more than the text"));
    }
    String::from_utf8(restore(&sections, ends)?).map_err(|_| Bad("the text is not UTF-8"))
}

/// A part of a template.
#[derive(Clone, Debug)]
enum Piece {
    Text(Range<usize>),
    /// First of the column's numbers.
    Number(usize),
    /// First byte of the column, digits of each value.
    Hex(usize, usize),
    Uuid(usize),
    /// First of the column's words.
    Word(usize),
}

/// The template of each line.
struct Ids<'a> {
    low: &'a [u8],
    high: &'a [u8],
}

impl<'a> Ids<'a> {
    fn new(ids: &'a [u8], templates: usize, lines: usize) -> Result<Self, Bad> {
        let planes = usize::from(templates > 1) + usize::from(templates > 256);
        if ids.len() != planes * lines {
            return Err(Bad("there are more templates than lines say"));
        }
        let (low, high) = ids.split_at(lines.min(ids.len()));
        Ok(Self { low, high })
    }

    fn of(&self, line: usize) -> usize {
        let byte = |plane: &[u8]| usize::from(plane.get(line).copied().unwrap_or(0));
        byte(self.low) | byte(self.high) << 8
    }
}

/// The columns of all templates.
#[derive(Default)]
struct Fields {
    numbers: Vec<u64>,
    words: Vec<Range<usize>>,
    /// Bytes that are given out.
    bytes: usize,
}

pub(super) fn restore(sections: &Sections, ends: &[usize]) -> Result<Vec<u8>, Bad> {
    let [templates, ids, numbers, bytes, words] = sections;
    let size = ends.last().copied().unwrap_or(0);
    let mut from = Reader(templates);
    let count = usize::try_from(from.get()?).ok().filter(|count| *count <= templates.len()).ok_or(Bad("more templates than bytes"))?;
    let text = from.0;
    let ids = Ids::new(ids, count, ends.len())?;
    let mut members = vec![0usize; count];
    for line in 0..ends.len() {
        *members.get_mut(ids.of(line)).ok_or(Bad("a template is not known"))? += 1;
    }
    let (mut numbers, mut words_from) = (Reader(numbers), Reader(words));
    let mut fields = Fields::default();
    let mut at = 0;
    let mut cut = Vec::with_capacity(count);
    for lines in members.iter().copied() {
        let mut pieces = Vec::new();
        at = template(text, at, lines, size, &mut pieces, &mut fields, (&mut numbers, &mut words_from, words.len()))?;
        cut.push(pieces);
    }
    if at != text.len() || !numbers.0.is_empty() || !words_from.0.is_empty() || fields.bytes != bytes.len() {
        return Err(Bad("there are more fields than marks"));
    }
    let mut out = Vec::with_capacity(size);
    let mut done = vec![0usize; count];
    for (line, end) in ends.iter().enumerate() {
        let id = ids.of(line);
        let (Some(pieces), Some(done)) = (cut.get(id), done.get_mut(id)) else { return Err(Bad("a template is not known")) };
        for piece in pieces {
            write(piece, *done, text, &fields, bytes, words, &mut out)?;
        }
        *done += 1;
        if out.len() != *end {
            return Err(Bad("a line has another length than its columns say"));
        }
    }
    Ok(out)
}

/// Reads one template and its columns; returns where it ends.
fn template(
    text: &[u8],
    mut at: usize,
    lines: usize,
    size: usize,
    pieces: &mut Vec<Piece>,
    fields: &mut Fields,
    (numbers, words, words_len): (&mut Reader<'_>, &mut Reader<'_>, usize),
) -> Result<usize, Bad> {
    let mut plain = at;
    loop {
        let mark = *text.get(at).ok_or(Bad("a template has no end"))?;
        if mark > LINE {
            at += 1;
            continue;
        }
        if plain < at {
            pieces.push(Piece::Text(plain..at));
        }
        at += 1;
        match mark {
            END => return Ok(at),
            NUMBER => {
                pieces.push(Piece::Number(fields.numbers.len()));
                if fields.numbers.len() + lines > size {
                    return Err(Bad("there are more numbers than bytes"));
                }
                take_numbers(numbers, lines, &mut fields.numbers)?;
            }
            HEX => {
                let digits = usize::from(*text.get(at).ok_or(Bad("a template has no end"))?);
                if digits == 0 {
                    return Err(Bad("a field is empty"));
                }
                at += 1;
                pieces.push(Piece::Hex(fields.bytes, digits));
                fields.bytes = fields.bytes.saturating_add(digits.div_ceil(2).saturating_mul(lines));
            }
            UUID => {
                pieces.push(Piece::Uuid(fields.bytes));
                fields.bytes = fields.bytes.saturating_add(lines.saturating_mul(16));
            }
            WORD | LINE => {
                pieces.push(Piece::Word(fields.words.len()));
                for _ in 0..lines {
                    let length = usize::try_from(words.get()?).ok().filter(|length| *length > 0).ok_or(Bad("a field is empty"))?;
                    let start = words_len - words.0.len();
                    words.bytes(length)?;
                    fields.words.push(start..start + length);
                }
            }
            _ => return Err(Bad("a mark is not known")),
        }
        plain = at;
    }
}

fn take_numbers(from: &mut Reader<'_>, lines: usize, out: &mut Vec<u64>) -> Result<(), Bad> {
    if lines < 2 {
        for _ in 0..lines {
            out.push(from.get()?);
        }
        return Ok(());
    }
    let head = from.bytes(1)?.first().copied().unwrap_or(0);
    let (differences, width) = (head & DIFFERENCES != 0, usize::from(head & !DIFFERENCES));
    if width > 8 {
        return Err(Bad("a number is too wide"));
    }
    let base = from.get()?;
    let count = lines - usize::from(differences);
    let begin = out.len();
    if differences {
        out.push(base);
    }
    let first = out.len();
    out.resize(first + count, 0);
    let column = out.get_mut(first..).unwrap_or_default();
    for plane in 0..width {
        for (value, byte) in column.iter_mut().zip(from.bytes(count)?) {
            *value |= u64::from(*byte) << (plane * 8);
        }
    }
    if differences {
        let mut value = base;
        for difference in column {
            value = value.wrapping_add(((*difference >> 1) as i64 ^ -((*difference & 1) as i64)) as u64);
            *difference = value;
        }
    } else {
        column.iter_mut().for_each(|value| *value = value.wrapping_add(base));
    }
    debug_assert_eq!(out.len(), begin + lines);
    Ok(())
}

fn write(piece: &Piece, done: usize, text: &[u8], fields: &Fields, bytes: &[u8], words: &[u8], out: &mut Vec<u8>) -> Result<(), Bad> {
    let missing = Bad("a field is missing");
    match piece {
        Piece::Text(span) => out.extend_from_slice(text.get(span.clone()).ok_or(missing)?),
        Piece::Number(first) => put_digits(out, *fields.numbers.get(first + done).ok_or(missing)?)?,
        Piece::Hex(first, digits) => {
            let each = digits.div_ceil(2);
            let start = first + done * each;
            put_hex(out, bytes.get(start..start + each).ok_or(missing)?, *digits);
        }
        Piece::Uuid(first) => {
            let start = first + done * 16;
            let id = bytes.get(start..start + 16).ok_or(missing)?;
            let begin = out.len();
            let mut rest = id;
            for bytes in [4, 2, 2, 2, 6] {
                if out.len() > begin {
                    out.push(b'-');
                }
                let (group, after) = rest.split_at_checked(bytes).ok_or(Bad("a field is missing"))?;
                put_hex(out, group, bytes * 2);
                rest = after;
            }
            debug_assert_eq!(out.len(), begin + UUID_TEXT);
        }
        Piece::Word(first) => {
            let span = fields.words.get(first + done).ok_or(Bad("a field is missing"))?;
            out.extend_from_slice(words.get(span.clone()).ok_or(missing)?);
        }
    }
    Ok(())
}

fn put_hex(out: &mut Vec<u8>, bytes: &[u8], digits: usize) {
    let begin = out.len();
    for byte in bytes {
        out.extend_from_slice(HEX_PAIRS.get(usize::from(*byte)).map_or(&[], |pair| pair));
    }
    out.truncate(begin + digits);
}

fn put_digits(out: &mut Vec<u8>, number: u64) -> Result<(), Bad> {
    let mut length = 1;
    while FIRST.get(length + 1).is_some_and(|first| number >= *first) {
        length += 1;
    }
    if length > DIGITS_MAX {
        return Err(Bad("a number has too many digits"));
    }
    let mut value = number - FIRST.get(length).copied().unwrap_or(0);
    let mut digits = [b'0'; DIGITS_MAX + 2];
    let mut at = digits.len();
    while at > digits.len() - length {
        let pair = PAIRS.get((value % 100) as usize).copied().unwrap_or_default();
        value /= 100;
        at -= 2;
        if let Some(two) = digits.get_mut(at..at + 2) {
            two.copy_from_slice(&pair);
        }
    }
    out.extend_from_slice(digits.get(digits.len() - length..).unwrap_or_default());
    Ok(())
}
