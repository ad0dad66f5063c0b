//! Patterns of the configuration.

use super::{config::Rule, kind::Mode, placeholder, scan::Span};
use regex::bytes::{Regex, RegexBuilder};

/// Largest compiled pattern; a repetition of a large class reaches it.
const COMPILED_BYTES: usize = 1 << 20;

/// A compiled rule.
#[derive(Debug)]
pub(super) struct UserRule {
    pub(super) name: String,
    pub(super) mode: Mode,
    pattern: Regex,
}

impl UserRule {
    /// Compiles a rule.
    ///
    /// # Errors
    /// What is wrong with the pattern, reading on after its key.
    pub(super) fn compile(rule: &Rule) -> Result<Self, String> {
        let pattern = RegexBuilder::new(&rule.pattern).size_limit(COMPILED_BYTES).build().map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("must be a smaller pattern: compiled it takes more than {COMPILED_BYTES} bytes; lower its repetitions")
            }
            error => format!(
                "must be a regular expression: {} (look-around and back references are not supported)",
                error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
            ),
        })?;
        if pattern.is_match(b"") {
            return Err("must not match the empty text: it would be found everywhere".to_owned());
        }
        Ok(Self { name: rule.name.clone(), mode: Mode::named(&rule.mode).unwrap_or(Mode::Redact), pattern })
    }

    /// Where it matches, but for what replaces masked values.
    fn find(&self, bytes: &[u8], mut found: impl FnMut(usize, usize)) {
        for groups in self.pattern.captures_iter(bytes) {
            let Some(part) = groups.get(1).or_else(|| groups.get(0)) else { continue };
            if !part.is_empty() {
                found(part.start(), part.end());
            }
        }
    }
}

/// Adds what the rules find.
pub(super) fn find_all(rules: &[UserRule], bytes: &[u8], spans: &mut Vec<Span>) {
    for (at, rule) in rules.iter().enumerate() {
        let Ok(at) = u8::try_from(at) else { return };
        rule.find(bytes, |start, end| {
            if !placeholder::holds(rules, bytes, start, end) {
                spans.push(Span::of_rule(at, start, end));
            }
        });
    }
}
