//! Conditions on labels and on the text of a line.

use regex::{Regex, RegexBuilder};
use shipwatch_common::model::Labels;

/// Memory that one compiled pattern may take. Patterns are input.
const PATTERN_BYTES: usize = 1 << 20;

/// How a label is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`, the whole value
    Matches,
    /// `!~`
    NotMatches,
}

impl MatchOp {
    pub(crate) const fn is_pattern(self) -> bool {
        matches!(self, Self::Matches | Self::NotMatches)
    }

    pub(crate) const fn is_negated(self) -> bool {
        matches!(self, Self::NotEqual | Self::NotMatches)
    }
}

/// A condition on one label. A label that a stream does not have counts as empty.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    pattern: Option<Regex>,
}

impl Matcher {
    /// # Errors
    /// The pattern's own words about what is wrong.
    pub fn new(name: &str, op: MatchOp, value: &str) -> Result<Self, String> {
        let pattern = if op.is_pattern() { Some(compile(&format!("^(?s:{value})$"))?) } else { None };
        Ok(Self { name: name.to_owned(), op, value: value.to_owned(), pattern })
    }

    /// The label's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value or pattern.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// How they are compared.
    #[must_use]
    pub const fn op(&self) -> MatchOp {
        self.op
    }

    /// Whether a stream's labels meet the condition.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&self.name).unwrap_or(""))
    }

    pub(crate) fn matches_value(&self, value: &str) -> bool {
        let is = self.pattern.as_ref().map_or_else(|| value == self.value, |pattern| pattern.is_match(value));
        is != self.op.is_negated()
    }
}

/// A condition on a line's text.
#[derive(Clone, Debug)]
pub(crate) struct LineFilter {
    pub(crate) regex: Regex,
    pub(crate) negated: bool,
    /// Set where the pattern is a fixed text.
    pub(crate) literal: Option<Literal>,
}

/// A fixed text to find.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Literal {
    pub(crate) text: String,
    pub(crate) any_case: bool,
    /// The pattern was `\b…\b`: both ends are ends of words.
    pub(crate) whole_words: bool,
}

impl LineFilter {
    /// `|=` and `!=`.
    pub(crate) fn contains(text: &str, negated: bool) -> Result<Self, String> {
        let literal = Literal { text: text.to_owned(), any_case: false, whole_words: false };
        Ok(Self { regex: compile(&regex::escape(text))?, negated, literal: Some(literal) })
    }

    /// A word of a search box: any case of ASCII letters, and of other letters as Unicode folds them.
    pub(crate) fn word(text: &str) -> Result<Self, String> {
        let mut pattern = String::new();
        for c in text.chars() {
            let escaped = regex::escape(c.encode_utf8(&mut [0; 4]));
            let flags = if c.is_ascii() { "i-u" } else { "i" };
            pattern.push_str(&if c.is_alphabetic() { format!("(?{flags}:{escaped})") } else { escaped });
        }
        let literal = Literal { text: text.to_owned(), any_case: true, whole_words: false };
        Ok(Self { regex: compile(&pattern)?, negated: false, literal: Some(literal) })
    }

    /// `|~` and `!~`.
    pub(crate) fn pattern(pattern: &str, negated: bool) -> Result<Self, String> {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | ' ' | '-' | '/' | ':' | '=' | '"');
        let literal = pattern
            .strip_prefix("\\b")
            .and_then(|rest| rest.strip_suffix("\\b"))
            .filter(|inner| !inner.is_empty() && inner.chars().all(plain))
            .filter(|inner| [inner.chars().next(), inner.chars().last()].iter().flatten().all(|c| c.is_alphanumeric() || *c == '_'));
        let literal = literal.map(|text| Literal { text: text.to_owned(), any_case: false, whole_words: true });
        Ok(Self { regex: compile(pattern)?, negated, literal })
    }

    pub(crate) fn keeps(&self, text: &str) -> bool {
        self.regex.is_match(text) != self.negated
    }

    /// Whether a walk over many lines at once can find where the text occurs.
    pub(crate) fn can_lead(&self) -> bool {
        !self.negated && self.literal.as_ref().is_some_and(|literal| !literal.whole_words && !literal.text.is_empty())
    }
}

pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).nest_limit(100).build().map_err(
        |error| match error {
            regex::Error::CompiledTooBig(bytes) => format!("needs more than {bytes} bytes of memory; make it simpler"),
            other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_compared() {
        let labels = Labels::new([("app", "shop")]).unwrap();
        for (name, op, value, expected) in [
            ("app", MatchOp::Equal, "shop", true),
            ("app", MatchOp::Matches, "sh", false),
            ("app", MatchOp::Matches, "sh.*|x", true),
            ("app", MatchOp::NotMatches, "s.op", false),
            ("env", MatchOp::Equal, "", true),
            ("env", MatchOp::NotEqual, "prod", true),
            ("env", MatchOp::Matches, ".+", false),
        ] {
            assert_eq!(Matcher::new(name, op, value).unwrap().matches(&labels), expected, "{name} {op:?} {value}");
        }
        assert!(Matcher::new("a", MatchOp::Matches, "(").unwrap_err().contains("unclosed group"));
        assert!(LineFilter::pattern("(?:a{1000}){1000}", false).unwrap_err().contains("make it simpler"));
    }

    #[test]
    fn words_are_found_in_any_case() {
        for (word, text, expected) in [
            ("Time.out", "a TIME.OUT b", true),
            ("time.out", "timeXout", false),
            ("größe", "GRÖSSE GRÖßE", true),
            ("支付", "订单支付失败", true),
            ("k", "\u{212a}", false),
        ] {
            assert_eq!(LineFilter::word(word).unwrap().keeps(text), expected, "{word} in {text}");
        }
    }

    #[test]
    fn whole_words_of_a_pattern_are_known() {
        let whole = |pattern: &str| LineFilter::pattern(pattern, false).unwrap().literal.map(|literal| literal.text);
        assert_eq!(whole(r"\border 42\b").as_deref(), Some("order 42"));
        for other in [r"\border.42\b", r"order", r"\b-x-\b", r"\b\b", r"\bx|y\b"] {
            assert_eq!(whole(other), None, "{other}");
        }
    }
}
