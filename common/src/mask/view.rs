//! Views: the text as it reads once one layer of writing is taken off.
//!
//! JSON escapes, percent encoding, character references, full-width signs and characters without width all go in one pass;
//! nested encodings take a pass each. A view knows where each of its pieces came from.
//!
//! What an escape stands for may end a value, start one, or be a part of one, so a text is looked at as it stands and in its
//! views. Two things need no second look: a line break or tab within a text, which ends words as it stands, and letters and
//! slashes, which end nothing (`\u5f20\/`): a [`Reading::Light`] has them in place of their escapes and all else as it stands.

/// Layers that are taken off. A text with more is not understood and must not pass.
pub(super) const MAX_LAYERS: usize = 5;

/// Bytes that are looked at together while nothing may start an escape.
const BLOCK: usize = 16;

/// A decoded text.
#[derive(Debug)]
pub(super) struct View {
    pub(super) bytes: Vec<u8>,
    /// In the order of their places. What is empty has none.
    pieces: Vec<Piece>,
    source_len: usize,
}

/// Bytes in a row that were copied, or one unit.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Where it starts in the view.
    at: usize,
    /// Where it starts in the text that was decoded.
    source: usize,
    copied: bool,
}

/// One unit: how many bytes it takes and what it stands for.
struct Unit {
    len: usize,
    bytes: [u8; 4],
    count: usize,
}

impl Unit {
    fn of(len: usize, bytes: &[u8]) -> Self {
        let mut unit = Self { len, bytes: [0; 4], count: bytes.len().min(4) };
        unit.bytes.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        unit
    }

    fn of_char(len: usize, code: u32) -> Self {
        let mut buffer = [0; 4];
        let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        Self::of(len, letter.encode_utf8(&mut buffer).as_bytes())
    }
}

/// How a text must be read.
#[derive(Debug)]
pub(super) enum Reading {
    /// As it stands.
    Plain,
    /// With letters and slashes in place of their escapes.
    Light(View),
    /// As it stands, and with a layer taken off.
    Layers,
}

/// What stands at a place where an escape may start.
enum Escape {
    /// Nothing, for so many bytes.
    None(usize),
    /// A letter or a slash.
    Light(Unit),
    /// Something that may end or start a value.
    Other,
}

/// How to read a text. `exact`: every escape counts, for patterns that may look at any sign.
pub(super) fn reading(bytes: &[u8], exact: bool) -> Reading {
    let mut at = 0;
    let mut view: Option<View> = None;
    let mut plain = 0;
    loop {
        at = next_start(bytes, at);
        if at >= bytes.len() {
            break;
        }
        match escape_at(bytes, at) {
            Escape::None(len) if !exact || len == 1 => at += len,
            Escape::Light(unit) if !exact => {
                let view = view.get_or_insert_with(|| View::new(bytes.len()));
                view.add(plain, bytes.get(plain..at).unwrap_or_default(), true);
                view.add_unit(at, &unit);
                at += unit.len;
                plain = at;
            }
            Escape::None(len) if !starts_escape(bytes, at) => at += len,
            _ => return Reading::Layers,
        }
    }
    match view {
        Some(mut view) => {
            view.add(plain, bytes.get(plain..).unwrap_or_default(), true);
            Reading::Light(view)
        }
        None => Reading::Plain,
    }
}

/// The next byte that may start an escape, or the end.
#[inline]
fn next_start(bytes: &[u8], mut at: usize) -> usize {
    if bytes.get(at).copied().is_some_and(may_start) {
        return at;
    }
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk::<BLOCK>)
        && !any_may_start(block)
    {
        at += BLOCK;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| STARTS[usize::from(*byte)]).unwrap_or(rest.len())
}

#[inline]
fn any_may_start(block: &[u8; BLOCK]) -> bool {
    // One sign after the other: the compiler makes wide comparisons of it.
    let has = |sign: u8| block.iter().fold(0, |any, byte| any | u8::from(*byte == sign));
    has(b'\\') | has(b'%') | has(b'&') | has(0xC2) | has(0xE2) | has(0xEF) != 0
}

#[inline]
fn escape_at(bytes: &[u8], at: usize) -> Escape {
    // The commonest: `\u6536`, `\/`.
    match bytes.get(at..) {
        Some([b'\\', b'u', digits @ ..]) => {
            if let Some(unit) = digits.first_chunk().and_then(han) {
                return Escape::Light(unit);
            }
        }
        Some([b'\\', b'/', ..]) => return Escape::Light(Unit { len: 2, bytes: [b'/', 0, 0, 0], count: 1 }),
        _ => {}
    }
    if bytes.get(at) != Some(&b'\\') {
        return if unit_at(bytes, at).is_some() { Escape::Other } else { Escape::None(1) };
    }
    let slashes = bytes.get(at..).map_or(0, |rest| rest.iter().take_while(|byte| **byte == b'\\').count());
    let next = bytes.get(at + slashes).copied().unwrap_or(0);
    match next {
        b'"' | b'\'' | b'n' | b'r' => Escape::None(slashes + 1),
        b't' if !follows_separator(bytes, at) => Escape::None(slashes + 1),
        b'u' if slashes == 1 => match hex(bytes, at + 2, 4) {
            None => Escape::None(1),
            Some(code) if code >= 0xC0 && fold_code(code).is_none() => backslash(bytes, at).map_or(Escape::None(1), Escape::Light),
            Some(_) => Escape::Other,
        },
        _ if unit_at(bytes, at + slashes - 1).is_some() => Escape::Other,
        _ => Escape::None(slashes),
    }
}

/// The value of each hexadecimal digit; other bytes have more bits.
const HEX: [u8; 256] = {
    let mut values = [0xFF; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        values[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    values
};

/// A Han character by its four digits.
#[inline]
fn han(digits: &[u8; 4]) -> Option<Unit> {
    let [a, b, c, d] = digits.map(|digit| HEX[usize::from(digit)]);
    let second = b << 2 | c >> 2;
    let is_han = (a | b | c | d) < 16 && (0x4..=0x9).contains(&a) && (a > 4 || b >= 0xE);
    is_han.then_some(Unit { len: 6, bytes: [0xE0 | a, 0x80 | second & 0x3F, 0x80 | (c << 4 | d) & 0x3F, 0], count: 3 })
}

/// A tab behind a key's separator is white space before the value, however it is written.
fn follows_separator(bytes: &[u8], at: usize) -> bool {
    let before = bytes.get(..at).unwrap_or_default().trim_ascii_end();
    matches!(before.last(), Some(b':' | b'=' | b'>' | 0x9A))
}

impl View {
    fn new(source_len: usize) -> Self {
        Self { bytes: Vec::with_capacity(source_len), pieces: Vec::with_capacity(16), source_len }
    }

    /// Takes one layer off.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut view = Self::new(bytes.len());
        let mut at = 0;
        // Where the bytes that are yet to be copied start.
        let mut plain = 0;
        while let Some(offset) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| may_start(*byte))) {
            at += offset;
            let Some(unit) = unit_at(bytes, at) else {
                at += 1;
                continue;
            };
            view.add(plain, bytes.get(plain..at).unwrap_or_default(), true);
            view.add_unit(at, &unit);
            at += unit.len;
            plain = at;
        }
        view.add(plain, bytes.get(plain..).unwrap_or_default(), true);
        view
    }

    fn add(&mut self, source: usize, bytes: &[u8], copied: bool) {
        if !bytes.is_empty() {
            self.pieces.push(Piece { at: self.bytes.len(), source, copied });
            self.bytes.extend_from_slice(bytes);
        }
    }

    #[inline]
    fn add_unit(&mut self, source: usize, unit: &Unit) {
        match (unit.count, unit.bytes) {
            // Lengths that are known cost no call.
            (1, [byte, ..]) => {
                self.pieces.push(Piece { at: self.bytes.len(), source, copied: false });
                self.bytes.push(byte);
            }
            (3, [first, second, third, _]) => {
                self.pieces.push(Piece { at: self.bytes.len(), source, copied: false });
                self.bytes.extend_from_slice(&[first, second, third]);
            }
            (count, bytes) => self.add(source, bytes.get(..count).unwrap_or_default(), false),
        }
    }

    /// Where `start..end` of the view lies in the text that was decoded: whole units.
    pub(super) fn origin(&self, start: usize, end: usize) -> (usize, usize) {
        let piece = |at: usize| self.pieces.partition_point(|piece| piece.at <= at).checked_sub(1);
        let source = |at: usize| match piece(at).and_then(|number| self.pieces.get(number)) {
            Some(piece) if at < self.bytes.len() => piece.source + if piece.copied { at - piece.at } else { 0 },
            _ => self.source_len,
        };
        let Some(last) = end.checked_sub(1).filter(|last| *last < self.bytes.len()) else { return (source(start), self.source_len) };
        let number = piece(last).unwrap_or(0);
        let next = self.pieces.get(number + 1);
        let within = self.pieces.get(number).is_some_and(|piece| piece.copied) && next.is_none_or(|next| end < next.at);
        // Behind a unit, and behind the last of copied bytes, the next piece begins; what reads as nothing goes, too.
        let behind = if within && end < self.bytes.len() { source(end) } else { next.map_or(self.source_len, |next| next.source) };
        (source(start), behind)
    }
}

/// Whether a unit that stands for something else starts at `at`.
#[inline]
pub(super) fn starts_escape(bytes: &[u8], at: usize) -> bool {
    if !bytes.get(at).is_some_and(|byte| may_start(*byte)) {
        return false;
    }
    match bytes.get(at) {
        // A quote behind backslashes is read as it stands.
        Some(b'\\') => {
            bytes.get(at + 1) != Some(&b'\\') && unit_at(bytes, at).is_some_and(|unit| !matches!(unit.bytes, [b'"' | b'\'', ..]))
        }
        _ => unit_at(bytes, at).is_some(),
    }
}

const fn may_start(byte: u8) -> bool {
    matches!(byte, b'\\' | b'%' | b'&' | 0xC2 | 0xE2 | 0xEF)
}

const STARTS: [bool; 256] = {
    let mut starts = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        starts[byte] = may_start(byte as u8);
        byte += 1;
    }
    starts
};

fn unit_at(bytes: &[u8], at: usize) -> Option<Unit> {
    match bytes.get(at)? {
        b'\\' => backslash(bytes, at),
        b'%' => Some(Unit::of(3, &[u8::try_from(hex(bytes, at + 1, 2)?).ok()?])),
        b'&' => reference(bytes.get(at..)?),
        0xC2 | 0xE2 | 0xEF => folded(bytes.get(at..)?),
        _ => None,
    }
}

fn hex(bytes: &[u8], at: usize, len: usize) -> Option<u32> {
    let digits = bytes.get(at..at + len)?;
    digits.iter().try_fold(0_u32, |sum, digit| {
        let value = HEX[usize::from(*digit)];
        (value < 16).then(|| sum << 4 | u32::from(value))
    })
}

fn backslash(bytes: &[u8], at: usize) -> Option<Unit> {
    let plain = |byte: u8| Some(Unit::of(2, &[byte]));
    match bytes.get(at + 1)? {
        b'n' => plain(b'\n'),
        b'r' => plain(b'\r'),
        b't' => plain(b'\t'),
        b'b' | b'f' => plain(b' '),
        sign @ (b'"' | b'\'' | b'/' | b'\\') => plain(*sign),
        b'x' => Some(Unit::of(4, &[u8::try_from(hex(bytes, at + 2, 2)?).ok()?])),
        b'u' => {
            let first = hex(bytes, at + 2, 4)?;
            let second = if bytes.get(at + 6..at + 8) == Some(b"\\u") { hex(bytes, at + 8, 4) } else { None };
            match (first, second) {
                (0xD800..=0xDBFF, Some(second @ 0xDC00..=0xDFFF)) => {
                    Some(Unit::of_char(12, 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00)))
                }
                _ => fold_code(first).map_or_else(|| Some(Unit::of_char(6, first)), |folded| Some(Unit::of(6, folded.as_slice()))),
            }
        }
        _ => None,
    }
}

/// `&quot;`, `&#64;`, `&#x40;`.
fn reference(bytes: &[u8]) -> Option<Unit> {
    for (name, sign) in [(&b"&quot;"[..], b'"'), (b"&amp;", b'&'), (b"&lt;", b'<'), (b"&gt;", b'>'), (b"&apos;", b'\''), (b"&nbsp;", b' ')]
    {
        if bytes.starts_with(name) {
            return Some(Unit::of(name.len(), &[sign]));
        }
    }
    let number = bytes.strip_prefix(b"&#")?;
    let (digits, radix, skipped) = match number {
        [b'x' | b'X', digits @ ..] => (digits, 16, 3),
        digits => (digits, 10, 2),
    };
    let len = digits.iter().take(8).position(|byte| *byte == b';').filter(|len| *len > 0)?;
    let code =
        digits.get(..len)?.iter().try_fold(0_u32, |sum, digit| sum.checked_mul(radix)?.checked_add(char::from(*digit).to_digit(radix)?))?;
    Some(Unit::of_char(skipped + len + 1, code))
}

/// A character that is written with other bytes than what it reads as.
fn folded(bytes: &[u8]) -> Option<Unit> {
    let code = match *bytes {
        [0xC2, second @ 0x80..=0xBF, ..] => 0x80 | u32::from(second & 0x3F),
        [first @ (0xE2 | 0xEF), second @ 0x80..=0xBF, third @ 0x80..=0xBF, ..] => {
            u32::from(first & 0x0F) << 12 | u32::from(second & 0x3F) << 6 | u32::from(third & 0x3F)
        }
        _ => return None,
    };
    let len = if code < 0x800 { 2 } else { 3 };
    fold_code(code).map(|folded| Unit::of(len, folded.as_slice()))
}

/// What a character reads as: nothing, a space, a dash, or its ASCII form. Signs of Chinese writing stay as they are.
fn fold_code(code: u32) -> Option<Option<u8>> {
    match code {
        0xAD | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x2064 | 0xFEFF => Some(None),
        0xA0 | 0x2000..=0x200A | 0x202F => Some(Some(b' ')),
        0x2010..=0x2015 => Some(Some(b'-')),
        0xFF01 | 0xFF08 | 0xFF09 | 0xFF0C | 0xFF1A | 0xFF1B | 0xFF1F => None,
        0xFF01..=0xFF5E => u8::try_from(code - 0xFF01 + 0x21).ok().map(Some),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, decoded: &str) {
        let view = View::of(text.as_bytes());
        assert_eq!(String::from_utf8_lossy(&view.bytes), decoded, "{text}");
    }

    #[test]
    fn one_layer_is_taken_off() {
        check(r"\u5f20\u4e09 a\/b \\u0041 \n", "张三 a/b \\u0041 \n");
        check(r"\ud83d\ude00 \ud83d", "😀 \u{fffd}");
        check("a%40b%2Bc 100% %zz", "a@b+c 100% %zz");
        check("&quot;a&quot; &#64; &#x40; &x;", "\"a\" @ @ &x;");
        check("１３８\u{200b}＠ａ\u{a0}b，：", "138@a b，：");
    }

    #[test]
    fn places_are_those_of_the_original() {
        let text = "x%2541%\u{200b}41";
        let first = View::of(text.as_bytes());
        assert_eq!(first.bytes, b"x%41%41");
        assert_eq!(first.origin(4, 7), (6, text.len()));
        let second = View::of(&first.bytes);
        assert_eq!(second.bytes, b"xAA");
        let origin = |start, end| {
            let (start, end) = second.origin(start, end);
            first.origin(start, end)
        };
        assert_eq!(origin(1, 2), (1, 6));
        assert_eq!(origin(1, 3), (1, text.len()));
        assert_eq!(origin(0, 1), (0, 1));
    }

    #[test]
    fn only_escapes_ask_for_a_view() {
        for (text, expected) in [
            ("\\u", false),
            ("\\u0041", true),
            ("\\\"", false),
            ("\\/", true),
            ("%4", false),
            ("%40", true),
            ("&a=", false),
            ("：", false),
            ("１", true),
        ] {
            assert_eq!(starts_escape(text.as_bytes(), 0), expected, "{text}");
        }
    }
}
