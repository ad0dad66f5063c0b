//! Makes the text of lines from templates and fields again.

use super::{
    Bad, DIFFERENCES, DIGITS_MAX, END, HEX, LINE, NUMBER, Range, Reader, SECTIONS, Sections, UUID, VERSION, WORD, frame, gate::Gate,
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
#[cfg(test)]
pub(crate) fn decode(packed: &[u8], ends: &[usize]) -> Result<String, Bad> {
    decode_where(packed, ends, &[], &mut (0..ends.len()).collect())
}

/// As [`decode`], of the selected lines, in ascending order. Takes lines out that cannot pass the gates; the text of lines that are
/// not selected is NUL.
pub(crate) fn decode_where(packed: &[u8], ends: &[usize], gates: &[Gate], selected: &mut Vec<usize>) -> Result<String, Bad> {
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
    let body = Body::read(&sections, ends, gates)?;
    selected.retain(|line| body.is_wanted(*line));
    String::from_utf8(body.restore(ends, selected)?).map_err(|_| Bad("the text is not UTF-8"))
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

/// All lines.
pub(super) fn restore(sections: &Sections, ends: &[usize]) -> Result<Vec<u8>, Bad> {
    let all: Vec<usize> = (0..ends.len()).collect();
    Body::read(sections, ends, &[])?.restore(ends, &all)
}

/// A template, cut, whether its lines are wanted, and how many of them there are.
struct Template {
    pieces: Vec<Piece>,
    wanted: bool,
    lines: usize,
}

/// Everything but the text itself.
struct Body<'a> {
    text: &'a [u8],
    ids: Ids<'a>,
    bytes: &'a [u8],
    words: &'a [u8],
    templates: Vec<Template>,
    fields: Fields,
}

impl<'a> Body<'a> {
    fn read(sections: &'a Sections, ends: &[usize], gates: &[Gate]) -> Result<Self, Bad> {
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
        let in_words: Vec<bool> = gates.iter().map(|gate| gate.may_be_in(words)).collect();
        let (mut numbers, mut words_from) = (Reader(numbers), Reader(words));
        let mut body = Self { text, ids, bytes, words, templates: Vec::with_capacity(count), fields: Fields::default() };
        let mut at = 0;
        for lines in members {
            let end = end_of(text, at)?;
            let own = text.get(at..end).unwrap_or_default();
            let wanted = gates.iter().zip(&in_words).all(|(gate, in_words)| gate.passes(own, *in_words));
            let mut template = Template { pieces: Vec::new(), wanted, lines };
            at = read_template(text, at, size, &mut template, &mut body.fields, (&mut numbers, &mut words_from, words.len()))?;
            body.templates.push(template);
        }
        if at != text.len() || !numbers.0.is_empty() || !words_from.0.is_empty() || body.fields.bytes != bytes.len() {
            return Err(Bad("there are more fields than marks"));
        }
        Ok(body)
    }

    fn is_wanted(&self, line: usize) -> bool {
        self.templates.get(self.ids.of(line)).is_some_and(|template| template.wanted)
    }

    /// Writes the selected lines, in ascending order.
    fn restore(&self, ends: &[usize], selected: &[usize]) -> Result<Vec<u8>, Bad> {
        let mut out = vec![0; ends.last().copied().unwrap_or(0)];
        let mut done = vec![0usize; self.templates.len()];
        let mut selected = selected.iter().copied().peekable();
        let mut start = 0;
        for (line, end) in ends.iter().copied().enumerate() {
            let id = self.ids.of(line);
            let (Some(template), Some(done)) = (self.templates.get(id), done.get_mut(id)) else {
                return Err(Bad("a template is not known"));
            };
            if selected.next_if_eq(&line).is_some() {
                let mut to = Out { buffer: out.get_mut(start..end).ok_or(Bad("a line ends before it begins"))?, at: 0 };
                template.pieces.iter().try_for_each(|piece| self.write(piece, *done, &mut to))?;
                if to.at != to.buffer.len() {
                    return Err(Bad("a line has another length than its columns say"));
                }
            }
            *done += 1;
            start = end;
        }
        Ok(out)
    }
}

/// Room for one line.
struct Out<'a> {
    buffer: &'a mut [u8],
    at: usize,
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Bad> {
        let end = self.at + bytes.len();
        self.buffer.get_mut(self.at..end).ok_or(Bad("a line has another length than its columns say"))?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }
}

/// Where a template ends, without its mark.
fn end_of(text: &[u8], at: usize) -> Result<usize, Bad> {
    let rest = text.get(at..).unwrap_or_default();
    // The length behind a mark of hex digits is never 0, so the first `00` is the end.
    rest.iter().position(|byte| *byte == END).map(|length| at + length).ok_or(Bad("a template has no end"))
}

/// Reads one template and its columns; returns where it ends.
fn read_template(
    text: &[u8],
    mut at: usize,
    size: usize,
    template: &mut Template,
    fields: &mut Fields,
    (numbers, words, words_len): (&mut Reader<'_>, &mut Reader<'_>, usize),
) -> Result<usize, Bad> {
    let Template { pieces, wanted, lines } = template;
    let lines = *lines;
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
            NUMBER if !*wanted => skip_numbers(numbers, lines)?,
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

fn skip_numbers(from: &mut Reader<'_>, lines: usize) -> Result<(), Bad> {
    if lines < 2 {
        return (0..lines).try_for_each(|_| from.get().map(drop));
    }
    let head = from.bytes(1)?.first().copied().unwrap_or(0);
    from.get()?;
    let count = lines - usize::from(head & DIFFERENCES != 0);
    from.bytes(count.saturating_mul(usize::from(head & !DIFFERENCES))).map(drop)
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

impl Body<'_> {
    fn write(&self, piece: &Piece, done: usize, out: &mut Out<'_>) -> Result<(), Bad> {
        let missing = Bad("a field is missing");
        match piece {
            Piece::Text(span) => out.put(self.text.get(span.clone()).ok_or(missing)?),
            Piece::Number(first) => put_digits(out, *self.fields.numbers.get(first + done).ok_or(missing)?),
            Piece::Hex(first, digits) => {
                let each = digits.div_ceil(2);
                let start = first + done * each;
                put_hex(out, self.bytes.get(start..start + each).ok_or(missing)?, *digits)
            }
            Piece::Uuid(first) => {
                let start = first + done * 16;
                let mut rest = self.bytes.get(start..start + 16).ok_or(missing)?;
                for bytes in [4, 2, 2, 2, 6] {
                    if rest.len() < 16 {
                        out.put(b"-")?;
                    }
                    let (group, after) = rest.split_at_checked(bytes).ok_or(Bad("a field is missing"))?;
                    put_hex(out, group, bytes * 2)?;
                    rest = after;
                }
                Ok(())
            }
            Piece::Word(first) => {
                let span = self.fields.words.get(first + done).ok_or(Bad("a field is missing"))?;
                out.put(self.words.get(span.clone()).ok_or(missing)?)
            }
        }
    }
}

fn put_hex(out: &mut Out<'_>, bytes: &[u8], digits: usize) -> Result<(), Bad> {
    let mut left = digits;
    for byte in bytes {
        let pair = HEX_PAIRS.get(usize::from(*byte)).copied().unwrap_or_default();
        let two = left.min(2);
        out.put(pair.get(..two).unwrap_or_default())?;
        left -= two;
    }
    Ok(())
}

fn put_digits(out: &mut Out<'_>, number: u64) -> Result<(), Bad> {
    let mut length = 1;
    while FIRST.get(length + 1).is_some_and(|first| number >= *first) {
        length += 1;
    }
    if length > DIGITS_MAX {
        return Err(Bad("a number has too many digits"));
    }
    let mut value = number - FIRST.get(length).copied().unwrap_or(0);
    let end = out.at + length;
    let digits = out.buffer.get_mut(out.at..end).ok_or(Bad("a line has another length than its columns say"))?;
    let mut pairs = digits.rchunks_exact_mut(2);
    for pair in pairs.by_ref() {
        pair.copy_from_slice(&PAIRS.get((value % 100) as usize).copied().unwrap_or_default());
        value /= 100;
    }
    if let [digit] = pairs.into_remainder() {
        *digit = b'0' + (value % 10) as u8;
    }
    out.at = end;
    Ok(())
}
