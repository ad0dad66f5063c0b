//! The text that every match of a regular expression begins with, so that only values with it need to be tried.
//!
//! # Invariants
//! - A value that the anchored expression matches begins with [`literal`] of it. When in doubt the text is shorter, down to empty.
//!
//! It leaves out what people seldom write: flags, named groups and sets in sets behind the text make it empty.

use std::str::Chars;

/// What `\` may stand before to mean just that character.
const PUNCTUATION: &str = "\\.+*?()|[]{}^$-";

/// See the module; `pattern` compiles.
pub(crate) fn literal(pattern: &str) -> String {
    let mut rest = pattern.strip_prefix('^').unwrap_or(pattern);
    let mut text = String::new();
    while let Some((char, behind)) = one_char(rest) {
        text.push(char);
        rest = behind;
    }
    // What repeats may be there no time at all.
    if rest.starts_with(['*', '?', '+', '{']) {
        text.pop();
    }
    if is_behind(rest) { text } else { String::new() }
}

/// A character that stands for itself, and what follows it.
fn one_char(pattern: &str) -> Option<(char, &str)> {
    let mut chars = pattern.chars();
    let char = match chars.next()? {
        '\\' => chars.next().filter(|char| PUNCTUATION.contains(*char))?,
        char => Some(char).filter(|char| *char == '-' || !PUNCTUATION.contains(*char))?,
    };
    Some((char, chars.as_str()))
}

/// Whether the rest of an expression is always matched behind what comes before it: it has no alternative to it, and it does not
/// close the group that the whole expression is put in.
fn is_behind(rest: &str) -> bool {
    let (mut chars, mut depth) = (rest.chars(), 0usize);
    while let Some(char) = chars.next() {
        match char {
            '\\' => drop(chars.next()),
            '[' if !skip_set(&mut chars) => return false,
            '(' if chars.as_str().starts_with('?') && !chars.as_str().starts_with("?:") => return false,
            '(' => depth += 1,
            ')' if depth == 0 => return false,
            ')' => depth -= 1,
            '|' if depth == 0 => return false,
            _ => {}
        }
    }
    true
}

/// Goes behind the `]` of a set; false for one that has sets in it.
fn skip_set(chars: &mut Chars<'_>) -> bool {
    let inside = chars.as_str();
    let inside = inside.strip_prefix('^').unwrap_or(inside);
    // Here it stands for itself.
    *chars = inside.strip_prefix(']').unwrap_or(inside).chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => drop(chars.next()),
            '[' => return false,
            ']' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::matcher::anchored;
    use proptest::prelude::*;

    /// Expressions of a few characters and all that may surround them; some do not compile.
    pub(crate) fn pattern() -> impl Strategy<Value = String> {
        let atoms = [
            "a",
            "b",
            "ab",
            "ba",
            "\u{10ffff}",
            "é",
            "-",
            " ",
            "#",
            ".",
            r"\.",
            r"\-",
            r"\|",
            r"\d",
            r"\pL",
            r"\x61",
            r"\bx",
            "^",
            "$",
            "[ab]",
            "[^a]",
            "[]a]",
            "[|]",
            "[)(]",
            "[a[b]]",
            r"[\]a]",
            "(?i)",
            "(?i:a)",
            "(?x) ",
            "(?P<n>a)",
            "(?:a|b)",
            "(a|b)",
            "{",
            "}",
            "",
            "|",
            "|b",
            ")|(",
            ")?(",
            "*",
            "+",
            "?",
            "{0}",
            "{0,2}",
            "{2}",
            "+*",
            ".*",
            ".+",
            "(?:",
            "(",
            ")",
            "\n",
        ];
        proptest::collection::vec(proptest::sample::select(atoms.to_vec()), 0..6).prop_map(|atoms| atoms.concat())
    }

    pub(crate) const VALUE: &str = "[abAB.é|\u{10ffff} \n()x1-]{0,5}";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_matches_begins_with_the_text(pattern in pattern(), values in proptest::collection::vec(VALUE, 20)) {
            let Ok(regex) = anchored(&pattern) else { return Ok(()) };
            let prefix = literal(&pattern);
            // Values that are near: the text itself, cut and continued.
            let near = ["", "a", "b", "1", ".", "ab"].into_iter().map(|end| format!("{prefix}{end}"));
            for value in values.into_iter().chain(near).chain(["", "a", "b", "ba"].map(str::to_owned)) {
                prop_assert!(!regex.is_match(&value) || value.starts_with(&prefix), "{pattern:?} {prefix:?} {value:?}");
            }
        }
    }

    #[test]
    fn the_text_is_as_long_as_is_safe() {
        for (pattern, expected) in [
            ("", ""),
            ("abc", "abc"),
            ("^abc.*", "abc"),
            (r"a\.b-c\d+", "a.b-c"),
            ("abc*", "ab"),
            ("abc+", "ab"),
            ("ab{0}c", "a"),
            ("ab(c|d)", "ab"),
            ("ab[0-9](?:c|d)[|)]", "ab"),
            ("ab(c|d)|x", ""),
            ("ab)?(c", ""),
            ("ab[)]", "ab"),
            ("(?i)ab", ""),
            ("ab(?i)c", ""),
            ("主机.+", "主机"),
        ] {
            assert_eq!(literal(pattern), expected, "{pattern}");
        }
    }
}
