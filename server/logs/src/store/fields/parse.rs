//! Cuts texts into templates and fields, and writes the sections.

use super::{DIFFERENCES, DIGITS_MAX, END, HEX, HashMap, LINE, NUMBER, Range, SECTIONS, Sections, UUID, WORD, put, shorter};

/// A run of lower-case hex digits from this length on, with a letter in it, is an id.
const HEX_MIN: usize = 8;
/// A word that mixes letters and digits from this length on, and changes between them this often, is a field.
const WORD_MIN: usize = 10;
const WORD_CHANGES: usize = 3;
/// Groups of a UUID.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
const DIGIT: u8 = 1;
const HEX_LETTER: u8 = 2;
const LETTER: u8 = 4;
/// What ASCII letters and digits are; 0 for other bytes.
const CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut at = 0;
    while at < 256 {
        class[at] = match at as u8 {
            b'0'..=b'9' => DIGIT,
            b'a'..=b'f' => HEX_LETTER,
            b'g'..=b'z' | b'A'..=b'Z' => LETTER,
            _ => 0,
        };
        at += 1;
    }
    class
};
/// Runs of digits that are shorter than each length.
const SHORTER: [u64; DIGITS_MAX + 1] = {
    let mut all = [0; DIGITS_MAX + 1];
    let mut length = 1;
    while length <= DIGITS_MAX {
        all[length] = shorter(length);
        length += 1;
    }
    all
};
const UUID_TEXT: usize = 36;

/// Where a field's text is in its line.
#[derive(Clone, Copy, Debug)]
struct Field {
    start: u32,
    end: u32,
}

impl Field {
    /// A line is far below 4 GiB.
    const fn new(span: &Range<usize>) -> Self {
        Self { start: span.start as u32, end: span.end as u32 }
    }
}

/// All lines, cut.
pub(super) struct Parsed<'a> {
    texts: Vec<&'a str>,
    templates: Vec<Vec<u8>>,
    /// Lines of each template.
    members: Vec<Vec<u32>>,
    ids: Vec<u32>,
    /// Fields of all lines, and where those of each line begin.
    fields: Vec<Field>,
    starts: Vec<usize>,
}

impl<'a> Parsed<'a> {
    /// `None` where there are more templates than ids can name.
    pub(super) fn of(texts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut all =
            Self { texts: Vec::new(), templates: Vec::new(), members: Vec::new(), ids: Vec::new(), fields: Vec::new(), starts: Vec::new() };
        let mut known: HashMap<Vec<u8>, u32, foldhash::fast::FixedState> = HashMap::default();
        let mut template = Vec::new();
        for (text, line) in texts.zip(0u32..) {
            all.starts.push(all.fields.len());
            template.clear();
            cut(text.as_bytes(), &mut template, &mut all.fields);
            let id = match known.get(template.as_slice()) {
                Some(id) => *id,
                None => {
                    let id = u32::try_from(all.templates.len()).ok().filter(|id| *id < 1 << 16)?;
                    known.insert(template.clone(), id);
                    all.templates.push(template.clone());
                    all.members.push(Vec::new());
                    id
                }
            };
            if let Some(members) = all.members.get_mut(id as usize) {
                members.push(line);
            }
            all.ids.push(id);
            all.texts.push(text);
        }
        Some(all)
    }

    fn field(&self, line: u32, at: usize) -> &'a [u8] {
        let found = self.starts.get(line as usize).and_then(|start| self.fields.get(start + at));
        let text = self.texts.get(line as usize).map_or(&[][..], |text| text.as_bytes());
        found.and_then(|field| text.get(field.start as usize..field.end as usize)).unwrap_or_default()
    }

    /// Writes everything, template by template.
    pub(super) fn sections(self) -> Sections {
        let mut out: Sections = std::array::from_fn::<_, SECTIONS, _>(|_| Vec::new());
        let [templates, ids, numbers, bytes, words] = &mut out;
        put(templates, self.templates.len() as u64);
        for (template, members) in self.templates.iter().zip(&self.members) {
            let mut at = 0;
            let mut rest = template.as_slice();
            while let Some((&mark, after)) = rest.split_first() {
                let long = 1 + usize::from(mark == HEX);
                rest = if mark == HEX { after.get(1..).unwrap_or_default() } else { after };
                if !matches!(mark, NUMBER | HEX | UUID | WORD | LINE) {
                    templates.push(mark);
                    continue;
                }
                let first = members.first().map_or(&[][..], |line| self.field(*line, at));
                let constant = mark != LINE && members.len() > 1 && members.iter().all(|line| self.field(*line, at) == first);
                if constant {
                    templates.extend_from_slice(first);
                } else {
                    let written = template.len() - rest.len();
                    templates.extend_from_slice(template.get(written - long..written).unwrap_or_default());
                    let column = members.iter().map(|line| self.field(*line, at));
                    match mark {
                        NUMBER => put_numbers(numbers, &column.map(number).collect::<Vec<_>>()),
                        HEX | UUID => column.for_each(|text| put_hex(bytes, text)),
                        _ => column.for_each(|text| {
                            put(words, text.len() as u64);
                            words.extend_from_slice(text);
                        }),
                    }
                }
                at += 1;
            }
            templates.push(END);
        }
        if self.templates.len() > 1 {
            ids.extend(self.ids.iter().map(|id| *id as u8));
        }
        if self.templates.len() > 256 {
            ids.extend(self.ids.iter().map(|id| (*id >> 8) as u8));
        }
        out
    }
}

/// Cuts one line.
fn cut(text: &[u8], template: &mut Vec<u8>, fields: &mut Vec<Field>) {
    let (first, begin) = (fields.len(), template.len());
    let (mut at, mut copied) = (0, 0);
    while let Some(&byte) = text.get(at) {
        if byte <= LINE {
            template.truncate(begin);
            fields.truncate(first);
            template.push(LINE);
            fields.push(Field::new(&(0..text.len())));
            return;
        }
        if CLASS[usize::from(byte)] == 0 {
            at += 1;
            continue;
        }
        let run = Run::at(text, at);
        if run.digits {
            template.extend_from_slice(text.get(copied..at).unwrap_or_default());
            let end = run.put(text, at, template, fields);
            copied = end;
            at = end;
        } else {
            at = run.end;
        }
    }
    template.extend_from_slice(text.get(copied..).unwrap_or_default());
}

/// A run of ASCII letters and digits.
struct Run {
    end: usize,
    digits: bool,
    /// Only lower-case hex digits.
    hex: bool,
    letters: bool,
    changes: usize,
}

impl Run {
    fn at(text: &[u8], start: usize) -> Self {
        let (mut end, mut seen, mut changes) = (start, 0, 0);
        let mut before = text.get(start).map_or(0, |byte| CLASS[usize::from(*byte)]);
        while let Some(class) = text.get(end).map(|byte| CLASS[usize::from(*byte)]).filter(|class| *class != 0) {
            seen |= class;
            changes += usize::from((class ^ before) & DIGIT);
            before = class;
            end += 1;
        }
        Self { end, digits: seen & DIGIT != 0, hex: seen & LETTER == 0, letters: seen & !DIGIT != 0, changes }
    }

    /// Writes the marks and fields of the run; returns where they end.
    fn put(&self, text: &[u8], start: usize, template: &mut Vec<u8>, fields: &mut Vec<Field>) -> usize {
        let length = self.end - start;
        if self.hex && length == GROUPS[0] && is_uuid(text.get(start..start + UUID_TEXT).unwrap_or_default()) {
            let followed = text.get(start + UUID_TEXT).is_some_and(u8::is_ascii_alphanumeric);
            if !followed {
                template.push(UUID);
                fields.push(Field::new(&(start..start + UUID_TEXT)));
                return start + UUID_TEXT;
            }
        }
        let one = |mark, template: &mut Vec<u8>, fields: &mut Vec<Field>| {
            template.push(mark);
            fields.push(Field::new(&(start..self.end)));
            self.end
        };
        let long_number = !self.letters && length > DIGITS_MAX;
        if self.hex && length <= 255 && ((self.letters && length >= HEX_MIN) || long_number) {
            one(HEX, template, fields);
            template.push(length as u8);
            return self.end;
        }
        if long_number || (self.letters && length >= WORD_MIN && self.changes >= WORD_CHANGES) {
            return one(WORD, template, fields);
        }
        let mut at = start;
        while at < self.end {
            let part = text.get(at..self.end).unwrap_or_default();
            let digits = part.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                let letters = part.iter().take_while(|byte| !byte.is_ascii_digit()).count().max(1);
                template.extend_from_slice(part.get(..letters).unwrap_or_default());
                at += letters;
            } else {
                let digits = digits.min(DIGITS_MAX);
                template.push(NUMBER);
                fields.push(Field::new(&(at..at + digits)));
                at += digits;
            }
        }
        self.end
    }
}

fn is_uuid(text: &[u8]) -> bool {
    let mut groups = text.split(|byte| *byte == b'-');
    let fits = |length: usize| {
        groups.next().is_some_and(|group| group.len() == length && group.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
    };
    text.len() == UUID_TEXT && GROUPS.into_iter().all(fits)
}

fn number(text: &[u8]) -> u64 {
    let value = text.iter().fold(0u64, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0'))));
    value.wrapping_add(SHORTER.get(text.len()).copied().unwrap_or(0))
}

fn put_hex(out: &mut Vec<u8>, text: &[u8]) {
    let nibble = |byte: u8| if byte.is_ascii_digit() { byte - b'0' } else { byte.wrapping_sub(b'a').wrapping_add(10) & 15 };
    let mut half = None;
    for byte in text.iter().copied().filter(|byte| *byte != b'-') {
        match half.take() {
            None => half = Some(nibble(byte) << 4),
            Some(high) => out.push(high | nibble(byte)),
        }
    }
    out.extend(half);
}

/// A column: as it is or as differences, whichever has fewer bits.
fn put_numbers(out: &mut Vec<u8>, values: &[u64]) {
    let [first, rest @ ..] = values else { return };
    if rest.is_empty() {
        return put(out, *first);
    }
    let least = values.iter().copied().min().unwrap_or(0);
    let plain: Vec<u64> = values.iter().map(|value| value - least).collect();
    let mut before = *first;
    let differences: Vec<u64> = rest
        .iter()
        .map(|value| {
            let difference = value.wrapping_sub(before) as i64;
            before = *value;
            ((difference << 1) ^ (difference >> 63)) as u64
        })
        .collect();
    let bits = |values: &[u64]| values.iter().map(|value| u64::from(64 - value.leading_zeros())).sum::<u64>();
    if bits(&differences) < bits(&plain) { put_planes(out, DIFFERENCES, *first, &differences) } else { put_planes(out, 0, least, &plain) }
}

fn put_planes(out: &mut Vec<u8>, flag: u8, base: u64, values: &[u64]) {
    let most = values.iter().copied().max().unwrap_or(0);
    let width = (64 - most.leading_zeros()).div_ceil(8) as u8;
    out.push(flag | width);
    put(out, base);
    for plane in 0..u32::from(width) {
        out.extend(values.iter().map(|value| (value >> (plane * 8)) as u8));
    }
}
