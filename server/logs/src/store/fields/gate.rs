//! Tells which templates can have a text, so that only their lines are made again.
//!
//! # Invariants
//! - Never says no to a template with a line that has the text. The text has no digit and no mark, so a field that it covers whole would be
//!   a word or a line; one that it begins or ends in is told by its first or last character.

use super::{HEX, LINE, UUID, WORD};
use regex::bytes::{Regex, RegexBuilder};

/// A text that wanted lines have.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    text: Regex,
    /// What a word has that the text begins or ends in.
    words: Vec<Regex>,
    /// Hex digits or a UUID can have the text's first or last character.
    touches_hex: bool,
}

impl Gate {
    /// `None` where templates cannot tell.
    pub(crate) fn new(text: &str, any_case: bool) -> Option<Self> {
        let cased = |c: char| !c.is_ascii() && (c.to_lowercase().ne([c]) || c.to_uppercase().ne([c]));
        if text.is_empty() || text.chars().any(|c| c.is_ascii_digit() || c.is_ascii_control() || (any_case && cased(c))) {
            return None;
        }
        let find = |text: &str| RegexBuilder::new(&regex::escape(text)).unicode(false).case_insensitive(any_case).build().ok();
        let letters = |c: char| !c.is_ascii_alphanumeric();
        let first = text.split(letters).next().unwrap_or_default();
        let last = text.rsplit(letters).next().unwrap_or_default();
        let probes = [first, last].map(|part| if part.is_empty() { text } else { part });
        let hex =
            |byte: Option<u8>| byte.is_some_and(|byte| matches!(byte, b'a'..=b'f' | b'-') || (any_case && matches!(byte, b'A'..=b'F')));
        Some(Self {
            text: find(text)?,
            words: probes.into_iter().map(find).collect::<Option<_>>()?,
            touches_hex: hex(text.bytes().next()) || hex(text.bytes().last()),
        })
    }

    /// Whether one of the words and whole lines can be part of it.
    pub(super) fn may_be_in(&self, words: &[u8]) -> bool {
        self.words.iter().any(|word| word.is_match(words))
    }

    /// Whether lines of a template can have it. `in_words` is what [`Gate::may_be_in`] said.
    pub(super) fn passes(&self, template: &[u8], in_words: bool) -> bool {
        self.text.is_match(template)
            || (self.touches_hex && template.iter().any(|mark| matches!(*mark, HEX | UUID)))
            || (in_words && template.iter().any(|mark| matches!(*mark, WORD | LINE)))
    }
}
