//! Label matchers with Prometheus' meaning.
//!
//! # Invariants
//! - A label that a series does not have has the empty value: `{x=""}` and `{x!~".+"}` match series without `x`.
//! - Regular expressions match the whole value, and `.` matches every character.

use crate::{error::Error, prefix};
use regex::Regex;
use shipwatch_common::model::Labels;
use std::fmt;

/// The four operators.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl fmt::Display for MatchOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        })
    }
}

/// One condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    regex: Option<Regex>,
}

impl Matcher {
    /// Builds a matcher; for the regular expression operators `value` is compiled.
    ///
    /// # Errors
    /// A regular expression that cannot be compiled, with its reason.
    pub fn new(op: MatchOp, name: impl Into<String>, value: impl Into<String>) -> Result<Self, Error> {
        let (name, value) = (name.into(), value.into());
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(anchored(&value)?),
        };
        Ok(Self { name, op, value, regex })
    }

    /// `name="value"`.
    #[must_use]
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), regex: None }
    }

    /// The label's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operator.
    #[must_use]
    pub const fn op(&self) -> MatchOp {
        self.op
    }

    /// The value, or the text of the regular expression.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The only values that a regular expression such as `a|b\.c` matches, if it is a list of texts.
    pub(crate) fn alternatives(&self) -> Option<Vec<String>> {
        let (mut all, mut text) = (Vec::new(), String::new());
        let mut chars = self.value.chars();
        while let Some(char) = chars.next() {
            match char {
                '|' => all.push(std::mem::take(&mut text)),
                '\\' => text.push(chars.next().filter(|char| "\\.+*?()|[]{}^$-".contains(*char))?),
                '.' | '+' | '*' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
                char => text.push(char),
            }
        }
        all.push(text);
        (self.op == MatchOp::Regex && !all.contains(&String::new())).then_some(all)
    }

    /// What every value begins with that meets the condition, or that does not: the values to look at.
    pub(crate) fn prefix(&self, meets: bool) -> String {
        match (self.op, meets) {
            (MatchOp::Regex, true) | (MatchOp::NotRegex, false) => prefix::literal(&self.value),
            _ => String::new(),
        }
    }

    /// Whether a label's value meets the condition; empty stands for "no such label".
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => self.value == value,
            (MatchOp::NotEqual, _) => self.value != value,
            (MatchOp::Regex, Some(regex)) => regex.is_match(value),
            (MatchOp::NotRegex, Some(regex)) => !regex.is_match(value),
            (MatchOp::Regex | MatchOp::NotRegex, None) => false,
        }
    }

    /// Whether a label set meets the condition.
    #[must_use]
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.name).unwrap_or(""))
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:?}", self.name, self.op, self.value)
    }
}

/// Whether a label set meets every condition.
#[must_use]
pub fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches_labels(labels))
}

/// Compiles a regular expression that must match a whole value.
pub(crate) fn anchored(text: &str) -> Result<Regex, Error> {
    let compile = |text: &str| regex::RegexBuilder::new(&format!("^(?s:{text})$")).size_limit(4 << 20).build();
    compile(text).or_else(|first| {
        // Go takes a `{` that starts no repetition literally, as in `a{b}`; people's dashboards rely on it.
        compile(&escape_lone_braces(text)).map_err(|_| Error::Matcher(format!("`{text}` is not a regular expression: {first}")))
    })
}

/// Escapes every `{` that does not start `{n}`, `{n,}` or `{n,m}`, and leaves escapes and `\p{..}` alone.
fn escape_lone_braces(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4);
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '{']) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        if let Some(escaped) = tail.strip_prefix('\\') {
            let mut taken = 1 + escaped.chars().next().map_or(0, char::len_utf8);
            if matches!(tail.as_bytes().get(1), Some(b'p' | b'P' | b'x')) && tail.as_bytes().get(2) == Some(&b'{') {
                taken = tail.find('}').map_or(tail.len(), |end| end + 1);
            }
            out.push_str(&tail[..taken]);
            rest = &tail[taken..];
        } else {
            let inside = tail[1..].split_once('}').map_or("", |(inside, _)| inside);
            let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
            let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
            if low.is_empty() || !digits(low) || !digits(high) {
                out.push('\\');
            }
            out.push('{');
            rest = &tail[1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_follow_prometheus() {
        for (op, pattern, value, expected) in [
            (MatchOp::Equal, "a", "a", true),
            (MatchOp::Equal, "", "", true),
            (MatchOp::NotEqual, "a", "", true),
            (MatchOp::Regex, "a|b", "b", true),
            (MatchOp::Regex, "a|b", "ab", false),
            (MatchOp::Regex, "a", "ba", false),
            (MatchOp::Regex, ".*", "", true),
            (MatchOp::Regex, "a.b", "a\nb", true),
            (MatchOp::NotRegex, ".+", "", true),
            (MatchOp::NotRegex, "a.*", "abc", false),
            (MatchOp::Regex, "x{y}", "x{y}", true),
            (MatchOp::Regex, r"\p{L}{2}z{q", "abz{q", true),
        ] {
            let matcher = Matcher::new(op, "l", pattern).unwrap();
            assert_eq!(matcher.matches(value), expected, "{matcher} on {value:?}");
        }
    }

    #[test]
    fn lists_of_texts_are_told_from_other_expressions() {
        let of = |pattern: &str| Matcher::new(MatchOp::Regex, "l", pattern).unwrap().alternatives();
        assert_eq!(of(r"a|b\.c-d"), Some(vec!["a".to_owned(), "b.c-d".to_owned()]));
        for other in ["a.c", "a|", "(a|b)", r"\d", "a+", "[ab]", "a{2}", "^a"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_bad_or_huge_expression_is_refused() {
        for bad in ["(", "[", "a{1000}{1000}{1000}"] {
            let error = Matcher::new(MatchOp::Regex, "l", bad).unwrap_err().to_string();
            assert!(error.contains("is not a regular expression"), "{error}");
        }
    }
}
