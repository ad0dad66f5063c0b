//! Small questions about bytes of text.

/// Position of a byte.
pub(super) fn find(bytes: &[u8], byte: u8) -> Option<usize> {
    memchr::memchr(byte, bytes)
}

/// Position of a text.
pub(super) fn find_text(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, needle)
}

/// Whether an escaped line break or tab ends before `at`: `\n`, whose letter is none of the word behind it.
#[inline]
pub(super) fn follows_break(bytes: &[u8], at: usize) -> bool {
    at.checked_sub(2).is_some_and(|slash| matches!(bytes.get(slash..at), Some([b'\\', b'n' | b'r' | b't'])))
}

/// `，` `；` `。` `、` `】` `）` `」` `”` or such at `at`: ends a value. A full-width letter, digit or colon does not.
#[inline]
pub(super) fn is_wide_sign(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at..at + 3) {
        Some([0xE3, 0x80, sign]) => (0x80..=0x91).contains(sign),
        Some([0xEF, 0xBC, sign]) => matches!(sign, 0x81 | 0x88 | 0x89 | 0x8C | 0x9B | 0x9F),
        _ => false,
    }
}

/// `：` at `at`.
#[inline]
pub(super) fn is_wide_colon(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..at + 3) == Some(&[0xEF, 0xBC, 0x9A])
}

/// `＠` somewhere.
pub(super) fn has_wide_at(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|part| part == [0xEF, 0xBC, 0xA0])
}

/// A Han character at `at`, all of which take three bytes here.
#[inline]
pub(super) fn is_han(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at..at + 3) {
        Some([0xE4, second, _]) => *second >= 0xB8,
        Some([0xE3, second, _]) => *second >= 0x90,
        Some([0xE5..=0xE9, ..]) => true,
        _ => false,
    }
}

/// Length of quotes and their backslashes at `at`.
fn quotes(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..).map_or(0, |rest| rest.iter().take(32).take_while(|byte| matches!(byte, b'"' | b'\'' | b'\\')).count())
}

/// Whether a key that ends a secret starts at `at`: `name=`, `"name":`. A bare colon may be part of the secret.
pub(super) fn assignment_follows(bytes: &[u8], at: usize) -> bool {
    follows(bytes, at, false)
}

/// Whether a key and its separator start at `at`: `name=`, `"name":`, `电话：`.
pub(super) fn key_follows(bytes: &[u8], at: usize) -> bool {
    follows(bytes, at, true)
}

fn follows(bytes: &[u8], at: usize, bare_colon: bool) -> bool {
    let start = at + quotes(bytes, at);
    let mut end = start;
    while end - start < 48
        && bytes
            .get(end)
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte >= 0x80 || matches!(byte, b'_' | b'-' | b'.' | b'[' | b']'))
    {
        if is_wide_colon(bytes, end) {
            return end > start;
        }
        if is_wide_sign(bytes, end) {
            return false;
        }
        end += 1;
    }
    if end == start || bytes.get(start).is_some_and(u8::is_ascii_digit) {
        return false;
    }
    end += quotes(bytes, end);
    match bytes.get(end) {
        Some(b'=') => true,
        Some(b':') => (bare_colon || bytes.get(end - 1) == Some(&b'"')) && !matches!(bytes.get(end + 1), Some(b'/' | b':')),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_words() {
        for (text, expected) in [
            ("phone=1", true),
            ("\"phone\":1", true),
            ("电话：1", true),
            ("a, b=1", false),
            ("https://x", false),
            ("12:30", false),
            ("word", false),
            ("", false),
        ] {
            assert_eq!(key_follows(text.as_bytes(), 0), expected, "{text}");
        }
    }

    #[test]
    fn signs_of_chinese_writing_end_values() {
        for sign in ["，", "；", "。", "）", "】", "、", "」"] {
            assert!(is_wide_sign(sign.as_bytes(), 0), "{sign}");
        }
        for other in ["：", "１", "Ａ", "张", "a"] {
            assert!(!is_wide_sign(other.as_bytes(), 0), "{other}");
        }
        assert!(is_han("张".as_bytes(), 0) && !is_han("é".as_bytes(), 0) && !is_han("あ".as_bytes(), 0));
    }
}
