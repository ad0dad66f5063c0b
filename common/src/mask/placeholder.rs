//! Recognises what replaced a value, so that masking masked text changes nothing.
//!
//! Only forms that the masker itself writes count: `[password]` does, `[hunter2]` does not.

use super::{kind::Kind, rules::UserRule};

/// Longest text between the colon and the bracket: an address of mail.
const MAX_PAYLOAD: usize = 300;
/// Letters of a pseudonym behind those of its key and a dash.
pub(super) const PSEUDONYM_LETTERS: usize = 16;

/// Length of the placeholder that starts at `at`, if one does.
pub(super) fn len_at(rules: &[UserRule], bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?.strip_prefix(b"[")?;
    let name_len = rest.iter().take(33).take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || **byte == b'_').count();
    let name = std::str::from_utf8(rest.get(..name_len)?).ok()?;
    let kind = Kind::named(name);
    if kind.is_none() && !rules.iter().any(|rule| rule.name == name) {
        return None;
    }
    match rest.get(name_len)? {
        b']' => Some(name_len + 2),
        b':' => {
            let payload = rest.get(name_len + 1..)?;
            let len = payload.iter().take(MAX_PAYLOAD + 1).position(|byte| *byte == b']')?;
            is_payload(kind, payload.get(..len)?).then_some(name_len + len + 3)
        }
        _ => None,
    }
}

fn is_payload(kind: Option<Kind>, payload: &[u8]) -> bool {
    let letters = |part: &[u8]| part.iter().all(|byte| (b'a'..=b'p').contains(byte));
    if let [a, b, b'-', rest @ ..] = payload
        && rest.len() == PSEUDONYM_LETTERS
        && letters(&[*a, *b])
        && letters(rest)
    {
        return true;
    }
    match kind {
        Some(Kind::Ip | Kind::Geo) => payload.iter().all(|byte| byte.is_ascii_hexdigit() || b".:/-*".contains(byte)),
        Some(kind) if !kind.is_secret() => payload.contains(&b'*') && payload.iter().all(|byte| is_shown(*byte)),
        _ => false,
    }
}

/// Bytes that a partly shown value may keep: none that ends a value or a quotation.
pub(super) const fn is_shown(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || matches!(byte, b'*' | b'@' | b'.' | b'-' | b'/')
}

/// Whether `start..end` lies within a placeholder.
pub(super) fn holds(rules: &[UserRule], bytes: &[u8], start: usize, end: usize) -> bool {
    let from = start.saturating_sub(MAX_PAYLOAD + 40);
    let Some(before) = bytes.get(from..=start) else { return false };
    let Some(open) = before.iter().rposition(|byte| *byte == b'[') else { return false };
    len_at(rules, bytes, from + open).is_some_and(|len| from + open + len >= end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_masker_writes_is_one() {
        for (text, len) in [
            ("[card]", Some(6)),
            ("[card] x", Some(6)),
            ("[card:****1111]", Some(15)),
            ("[email:***@example.com]", Some(23)),
            ("[password:ab-abcdefghijklmnop]", Some(30)),
            ("[password:abcdefghijklmnop]", None),
            ("[ip:192.0.2.0/24]", Some(17)),
            ("[hunter2]", None),
            ("[password:hunter2]", None),
            ("[password:hunt*]", None),
            ("[card", None),
            ("card]", None),
            ("", None),
        ] {
            assert_eq!(len_at(&[], text.as_bytes(), 0), len, "{text}");
        }
        assert!(holds(&[], b"a [card] b", 3, 7));
        assert!(!holds(&[], b"a [card] b", 3, 10));
    }
}
