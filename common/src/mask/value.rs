//! Where the value behind a key ends, and whether it can be what the key says.
//!
//! A value in quotes ends at the quote that closes it, at whatever depth of escaping: a quote behind `n` backslashes is closed
//! by the next one behind `n`. A bare value ends where its kind says. In doubt it is longer: too much is masked, never too
//! little.

use super::{kind::Kind, placeholder, text};

/// A value's place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Value {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Behind the closing quote.
    pub(super) after: usize,
    pub(super) quoted: bool,
}

/// What tells a bare value's end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Extent {
    /// Up to white space; signs belong to it unless something else starts behind them.
    Secret,
    /// Up to white space or a sign that ends an item.
    Word,
    /// Groups of digits.
    Number,
    /// Words up to an item's end.
    Name,
    /// Up to the end of the line or the next key.
    Line,
    /// A scheme and what belongs to it.
    Authorization,
    /// Pairs with `; ` between them.
    Pairs,
    /// Up to the next tag, quotes and all.
    Markup,
}

impl Extent {
    pub(super) const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Password | Kind::ApiKey | Kind::Token | Kind::Cookie | Kind::PrivateKey => Self::Secret,
            Kind::Card | Kind::Phone | Kind::BankAccount | Kind::Iban | Kind::NationalId => Self::Number,
            Kind::Name => Self::Name,
            Kind::Address => Self::Line,
            _ => Self::Word,
        }
    }
}

/// The value that starts at or behind `at`, which is behind the separator.
pub(super) fn at(bytes: &[u8], at: usize, extent: Extent) -> Value {
    let start = skip_wrapping(bytes, skip_space(bytes, at));
    let slashes = bytes.get(start..).map_or(0, |rest| rest.iter().take(64).take_while(|byte| **byte == b'\\').count());
    match bytes.get(start + slashes) {
        Some(quote @ (b'"' | b'\'' | b'`')) if extent != Extent::Markup => quoted(bytes, start + slashes + 1, *quote, slashes),
        _ => {
            let end = bare_end(bytes, start, extent);
            Value { start, end, after: end, quoted: false }
        }
    }
}

pub(super) fn skip_space(bytes: &[u8], at: usize) -> usize {
    at + bytes.get(at..).map_or(0, |rest| rest.iter().take(32).take_while(|byte| matches!(byte, b' ' | b'\t')).count())
}

/// `Some("x")`, `Optional[x]`, `b'x'`, `<![CDATA[x]]>`.
fn skip_wrapping(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..).unwrap_or_default() {
        [b'b' | b'u' | b'r' | b'N', b'\'' | b'"', ..] => at + 1,
        [b'S', b'o', b'm', b'e', b'(', ..] => at + 5,
        [b'O', b'p', b't', b'i', b'o', b'n', b'a', b'l', b'[', ..] | [b'<', b'!', b'[', b'C', b'D', b'A', b'T', b'A', b'[', ..] => at + 9,
        _ => at,
    }
}

fn quoted(bytes: &[u8], start: usize, quote: u8, slashes: usize) -> Value {
    let mut at = start;
    while let Some(found) = bytes.get(at..).and_then(|rest| text::find(rest, quote)).map(|offset| at + offset) {
        let before = bytes.get(start..found).map_or(0, |inner| inner.iter().rev().take_while(|byte| **byte == b'\\').count());
        // SQL writes a quote within a text twice.
        let doubled = quote == b'\'' && slashes == 0 && before == 0 && bytes.get(found + 1) == Some(&b'\'');
        if doubled && found > start {
            at = found + 2;
        } else if before <= slashes || before % (2 * slashes + 2) == slashes {
            let end = found - before.min(slashes);
            return Value { start, end, after: found + 1, quoted: true };
        } else {
            at = found + 1;
        }
    }
    Value { start, end: bytes.len(), after: bytes.len(), quoted: true }
}

fn bare_end(bytes: &[u8], start: usize, extent: Extent) -> usize {
    match extent {
        Extent::Secret => secret_end(bytes, start),
        Extent::Word => word_end(bytes, start),
        Extent::Number => number_end(bytes, start),
        Extent::Name => name_end(bytes, start),
        Extent::Line => line_end(bytes, start),
        Extent::Authorization => authorization_end(bytes, start),
        Extent::Pairs => pairs_end(bytes, start),
        Extent::Markup => bytes.get(start..).and_then(|rest| text::find(rest, b'<')).map_or(bytes.len(), |len| start + len),
    }
}

/// A sign at `at` that ends every bare value: white space, or a sign of Chinese writing.
fn ends_all(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at) {
        None => true,
        Some(byte) if byte.is_ascii_whitespace() || *byte < 0x20 => true,
        Some(0xE3 | 0xEF) => text::is_wide_sign(bytes, at),
        _ => false,
    }
}

/// Nothing that belongs to a value follows at `at`.
fn item_ends(bytes: &[u8], at: usize) -> bool {
    ends_all(bytes, at) || matches!(bytes.get(at), Some(b',' | b';' | b')' | b']' | b'}' | b'"' | b'\'' | b'\\' | b'<'))
}

fn secret_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while !ends_all(bytes, at) {
        let ends = match bytes.get(at) {
            Some(b',' | b';' | b'&' | b'|') => item_ends(bytes, at + 1) || text::assignment_follows(bytes, at + 1),
            Some(b')' | b']' | b'}' | b'"' | b'\'' | b'`' | b'>') => {
                at > start && (item_ends(bytes, at + 1) || bytes.get(at + 1) == Some(&b'&'))
            }
            Some(b'<') => bytes.get(at + 1) == Some(&b'/'),
            Some(b'[') if at > start && placeholder::len_at(&[], bytes, at).is_some() => {
                at += placeholder::len_at(&[], bytes, at).unwrap_or(1);
                continue;
            }
            Some(b'\\') => {
                let slashes = bytes.get(at..).map_or(0, |rest| rest.iter().take(64).take_while(|byte| **byte == b'\\').count());
                matches!(bytes.get(at + slashes), Some(b'"' | b'\'')) && item_ends(bytes, at + slashes + 1)
            }
            _ => false,
        };
        if ends {
            break;
        }
        at += 1;
    }
    at
}

fn word_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while !ends_all(bytes, at)
        && !matches!(
            bytes.get(at),
            Some(b',' | b';' | b'&' | b'|' | b')' | b']' | b'}' | b'(' | b'{' | b'[' | b'<' | b'>' | b'"' | b'\'' | b'`' | b'\\')
        )
    {
        at += 1;
    }
    at
}

/// A word, and further groups of digits with one sign between them: `+86 138-1234-5678`, `6222 0212 3456`.
fn number_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    loop {
        while bytes
            .get(at)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'*' | b'(' | b')' | b'#' | b'/'))
        {
            at += 1;
        }
        let spaces = usize::from(bytes.get(at) == Some(&b' '));
        let next = bytes.get(at + spaces).copied().unwrap_or(0);
        // The next group: three digits or more, or a bracket with digits. A date or a status behind a number is no group.
        let digits = bytes.get(at + spaces..).map_or(0, |rest| rest.iter().take(5).take_while(|byte| byte.is_ascii_digit()).count());
        let opens = next == b'(' && bytes.get(at + spaces + 1).is_some_and(u8::is_ascii_digit);
        if spaces == 1 && at > start && (digits >= 2 && !text::key_follows(bytes, at + 1) || opens) {
            at += 1;
        } else {
            break;
        }
    }
    while at > start && bytes.get(at - 1).is_some_and(|byte| matches!(byte, b')' | b'.' | b'-')) && !balanced(bytes, start, at) {
        at -= 1;
    }
    // What is no number at all ends as a word does.
    at.max(word_end(bytes, start))
}

/// Whether the closing bracket before `end` was opened within, not too far before.
fn balanced(bytes: &[u8], start: usize, end: usize) -> bool {
    let part = bytes.get(start.max(end.saturating_sub(64))..end).unwrap_or_default();
    let count = |sign: u8| part.iter().filter(|byte| **byte == sign).count();
    part.last() == Some(&b')') && count(b'(') >= count(b')')
}

fn name_end(bytes: &[u8], start: usize) -> usize {
    let first = word_end(bytes, start);
    let mut at = first;
    let mut capitals = first;
    let mut all_capitals = true;
    for _ in 0..4 {
        if bytes.get(at) != Some(&b' ') || text::key_follows(bytes, at + 1) {
            break;
        }
        let end = word_end(bytes, at + 1);
        let word = bytes.get(at + 1..end).unwrap_or_default();
        if word.is_empty() || !word.iter().all(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80 || matches!(byte, b'.' | b'-' | b'\'')) {
            return capitals;
        }
        at = end;
        all_capitals &= word.first().is_some_and(|byte| byte.is_ascii_uppercase() || *byte >= 0x80);
        if all_capitals {
            capitals = end;
        }
    }
    // Words in small letters belong to the name only if an item ends behind them.
    if bytes.get(at) == Some(&b' ') && !text::key_follows(bytes, at + 1) { capitals } else { at }
}

fn line_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'[' if placeholder::len_at(&[], bytes, at).is_some() => at += placeholder::len_at(&[], bytes, at).unwrap_or(1),
            b'"' | b'\'' | b'`' if item_ends(bytes, at + 1) => break,
            b';' | b'|' | b'}' | b']' | b'<' | b'\t' | b'\n' | b'\r' => break,
            b'\\' if matches!(bytes.get(at + 1), Some(b'"' | b'\'' | b'\\' | b'n' | b't')) => break,
            b'&' if text::key_follows(bytes, at + 1) => break,
            b')' if item_ends(bytes, at + 1) && !balanced(bytes, start, at + 1) => break,
            b' ' | b',' if text::key_follows(bytes, skip_space(bytes, at + 1)) => break,
            0xEF if text::is_wide_sign(bytes, at) && text::key_follows(bytes, skip_space(bytes, at + 3)) => break,
            _ => at += 1,
        }
    }
    while at > start && matches!(bytes.get(at - 1), Some(b' ' | b',')) {
        at -= 1;
    }
    at
}

fn authorization_end(bytes: &[u8], start: usize) -> usize {
    let first = secret_end(bytes, start);
    let scheme = bytes.get(start..first).unwrap_or_default();
    let is_scheme = scheme.len() <= 24 && scheme.first().is_some_and(u8::is_ascii_alphabetic) && bytes.get(first) == Some(&b' ');
    let plain = scheme.iter().all(|byte| byte.is_ascii_alphabetic() || *byte == b'-') || scheme.starts_with(b"AWS4-");
    if !is_scheme || !plain {
        return first;
    }
    let second = secret_end(bytes, first + 1);
    // `Digest username="x", realm="y"`, `AWS4-HMAC-SHA256 Credential=x, Signature=y`: everything to the end.
    let name = bytes.get(first + 1..second).and_then(|part| part.split(|byte| *byte == b'=').next()).unwrap_or_default();
    let parameters = name.len() < second - first - 1 && name.len() <= 16 && name.iter().all(u8::is_ascii_alphabetic);
    if parameters { header_end(bytes, start) } else { second }
}

/// The quote around the header, or the end of the line. Quotes behind `=` are the header's own.
fn header_end(bytes: &[u8], start: usize) -> usize {
    let mut own = None;
    let mut before = 0;
    for (offset, byte) in bytes.get(start..).unwrap_or_default().iter().enumerate() {
        match byte {
            b'\n' | b'\r' => return start + offset,
            b'"' | b'\'' if own == Some(*byte) => own = None,
            b'"' | b'\'' if own.is_none() && before == b'=' => own = Some(*byte),
            b'"' | b'\'' if own.is_none() => return start + offset,
            _ => {}
        }
        before = *byte;
    }
    bytes.len()
}

fn pairs_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    loop {
        while !ends_all(bytes, at)
            && !matches!(bytes.get(at), Some(b'"' | b'\'' | b'\\') if item_ends(bytes, at + 1) || bytes.get(at) == Some(&b'\\'))
            && bytes.get(at) != Some(&b';')
        {
            at += 1;
        }
        let next = skip_space(bytes, at + 1);
        if bytes.get(at) == Some(&b';') && !item_ends(bytes, next) {
            at = next;
        } else {
            return at;
        }
    }
}

/// Words that stand where a value would and are none.
const NOTHING: [&[u8]; 15] = [
    b"yes",
    b"no",
    b"null",
    b"nil",
    b"none",
    b"undefined",
    b"true",
    b"false",
    b"n/a",
    b"na",
    b"empty",
    b"missing",
    b"invalid",
    b"required",
    b"expired",
];

/// Words of programs that mask by themselves: `[FILTERED]`.
const MASKED: [&[u8]; 5] = [b"filtered", b"redacted", b"hidden", b"masked", b"removed"];

fn is_masked(value: &[u8]) -> bool {
    let sign = |byte: &u8| matches!(byte, b'[' | b']' | b'(' | b')' | b'<' | b'>' | b'_' | b'*');
    let (head, tail) = (value.iter().take_while(|byte| sign(byte)).count(), value.iter().rev().take_while(|byte| sign(byte)).count());
    let word = value.get(head..value.len() - tail).unwrap_or_default();
    head > 0 && tail > 0 && MASKED.iter().any(|known| word.eq_ignore_ascii_case(known))
}

fn is_nothing(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'*' | b'-' | b'?' | b'.' | b' ' | b'{' | b'}' | b'[' | b']' | b'(' | b')' | b'x' | b'X'))
        || value == b"%s"
        || is_masked(value)
        || value.len() <= 9 && NOTHING.iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Whether a value can be what its key says. Secrets are whatever stands there.
pub(super) fn fits(kind: Kind, value: &[u8]) -> bool {
    if is_nothing(value) {
        return false;
    }
    match kind {
        Kind::Email => value.contains(&b'@') || value.windows(3).any(|part| part == b"%40") || text::has_wide_at(value),
        Kind::Name => value.iter().any(|byte| !byte.is_ascii_digit()) && !has_scheme(value),
        Kind::Address => is_address(value),
        Kind::Username | Kind::UserId | Kind::DeviceId => !value.is_empty(),
        _ => counts_fit(kind, value),
    }
}

/// Whether there are as many digits and letters as the kind has.
fn counts_fit(kind: Kind, value: &[u8]) -> bool {
    let (mut digits, mut letters) = (0, 0);
    for byte in value {
        digits += usize::from(byte.is_ascii_digit());
        letters += usize::from(byte.is_ascii_alphabetic());
    }
    match kind {
        Kind::Password => value.len() >= 2 || digits + letters > 0,
        Kind::ApiKey | Kind::Token | Kind::Cookie => digits + letters + value.iter().filter(|byte| **byte >= 0x80).count() >= 2,
        Kind::Code => (3..=64).contains(&(digits + letters)),
        Kind::Cvv => (1..=6).contains(&digits) && letters == 0,
        Kind::Card => digits >= 8 && letters <= 4 || is_indian_pan(value),
        Kind::BankAccount => digits >= 6,
        Kind::Iban => digits >= 6 && letters >= 2,
        Kind::NationalId => (digits >= 5 || is_indian_pan(value)) && value.len() <= 40,
        Kind::Passport => digits >= 5 && value.len() <= 24,
        Kind::Phone => digits >= 5 && letters <= 6 && value.len() <= 64,
        Kind::BirthDate => digits >= 4,
        Kind::Geo => digits >= 3 && value.contains(&b'.') && letters == 0,
        _ => !value.is_empty(),
    }
}

/// `ABCDE1234F`, which Indian shops keep behind `pan`.
fn is_indian_pan(value: &[u8]) -> bool {
    let shape = |at: usize, byte: &u8| if (5..9).contains(&at) { byte.is_ascii_digit() } else { byte.is_ascii_alphabetic() };
    value.len() == 10 && value.iter().enumerate().all(|(at, byte)| shape(at, byte))
}

/// `0x7f8ecc0421f8`: an address in memory, which is no token.
pub(super) fn is_pointer(value: &[u8]) -> bool {
    value.len() <= 18 && value.strip_prefix(b"0x").is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

/// `Credential(name=x)`: an object, whose fields have keys of their own.
pub(super) fn is_object(value: &[u8]) -> bool {
    let name = value.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    name >= 4 && value.get(name) == Some(&b'(') && value.get(name..).is_some_and(|rest| rest.contains(&b'='))
}

/// Words as a sentence has them: no house has a number in it and no comma goes before a town.
pub(super) fn is_prose(value: &[u8]) -> bool {
    value.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b' ' | b'-' | b'\'' | b'.'))
}

/// A name where the key has other uses: `recipient`.
pub(super) fn is_plain_name(value: &[u8]) -> bool {
    value.len() >= 2
        && value.len() <= 80
        && value.iter().all(|byte| byte.is_ascii_alphabetic() || *byte >= 0x80 || matches!(byte, b' ' | b'.' | b'-' | b'\''))
        && (value.first().is_some_and(|byte| *byte >= 0x80 || byte.is_ascii_uppercase()) || value.contains(&b' '))
}

/// `https://` or such.
fn has_scheme(value: &[u8]) -> bool {
    value.contains(&b':') && value.windows(3).any(|part| part == *b"://")
}

fn is_address(value: &[u8]) -> bool {
    let machine = || {
        has_scheme(value)
            || value.starts_with(b"0x")
            || value.starts_with(b"/")
            || value.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'[' | b']' | b'/' | b','))
    };
    let worded = value.iter().any(|byte| *byte >= 0x80 || matches!(byte, b' ' | b','));
    // `12-Main-Street`, `12+Main+Street`: as one word.
    let joined = || {
        value.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+'))
            && value.iter().any(u8::is_ascii_digit)
            && value.iter().any(|byte| !byte.is_ascii_alphanumeric())
    };
    let letters = value.iter().filter(|byte| byte.is_ascii_alphabetic() || **byte >= 0x80).take(2).count();
    letters == 2 && (worded || joined()) && !machine()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, extent: Extent) -> &str {
        let value = at(text.as_bytes(), 0, extent);
        &text[value.start..value.end]
    }

    #[test]
    fn quoted_values_end_at_their_own_quote() {
        for (text, value) in [
            (r#""a b",x"#, "a b"),
            (r#""a\"b",x"#, r#"a\"b"#),
            (r#""a\\",x"#, r"a\\"),
            (r#"\"a b\",x"#, "a b"),
            (r#"\"a\\\"b\",x"#, r#"a\\\"b"#),
            (r#"\\\"a\\\" x"#, "a"),
            (r#"\"a" x"#, "a"),
            ("'it''s' x", "it''s"),
            ("'', x", ""),
            (r#""never closed"#, "never closed"),
            (r#"Some("a")"#, "a"),
            ("b'a'", "a"),
        ] {
            assert_eq!(cut(text, Extent::Secret), value, "{text}");
        }
    }

    #[test]
    fn bare_values_end_as_their_kind_does() {
        for (extent, text, value) in [
            (Extent::Secret, "a,b;c&d=1", "a,b;c"),
            (Extent::Secret, "P@ss,w0rd) x", "P@ss,w0rd"),
            (Extent::Secret, r#"ab"cd" x"#, r#"ab"cd"#),
            (Extent::Secret, r#"abc\"}"#, "abc"),
            (Extent::Secret, "abc</password>", "abc"),
            (Extent::Word, "张三，电话", "张三"),
            (Extent::Number, "+86 138-1234-5678 ok", "+86 138-1234-5678"),
            (Extent::Number, "(555) 123-4567) x", "(555) 123-4567"),
            (Extent::Number, "13812345678}", "13812345678"),
            (Extent::Name, "Zhang Wei phone=1", "Zhang Wei"),
            (Extent::Name, "zhang wei, x", "zhang wei"),
            (Extent::Name, "John paid order 5", "John"),
            (Extent::Line, "1 Main St, Springfield phone=1", "1 Main St, Springfield"),
            (Extent::Line, "深圳市科技路1号 3栋，电话：1", "深圳市科技路1号 3栋"),
            (Extent::Authorization, "Bearer abc def", "Bearer abc"),
            (Extent::Authorization, "Digest username=\"a\", realm=\"b\"", "Digest username=\"a\", realm=\"b\""),
            (Extent::Pairs, "a=b; c=d\" x", "a=b; c=d"),
        ] {
            assert_eq!(cut(text, extent), value, "{extent:?} {text}");
        }
    }
}
