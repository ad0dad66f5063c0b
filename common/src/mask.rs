//! Finds and removes personal data and secrets from text.
//!
//! A text is scanned as it stands and, if something in it is escaped or encoded, as it reads ([`view`]). Anchors (`ghp_`,
//! `://`) are found in one Aho-Corasick pass; a second look at every byte finds keys, runs of digits and addresses of mail,
//! each with a validator of its own. Patterns of the configuration run last. `docs/masking.md` says what is found.
//!
//! # Invariants
//! - Pure: no clock, no files (but [`Masker::new`] reads the pseudonyms' key), no state but the [`LineState`] that is passed in.
//! - Fails closed: a text over which the code panics, that is too long, that is encoded more often than views are taken, that is made to be looked at again
//!   and again, or for which findings and text do not fit together, is replaced as a whole.
//! - Masking masked text changes nothing.
//! - Neither findings nor errors hold a value.
//!
//! # Leaves out
//! Names and addresses in running text (but Chinese addresses with street and number), values whose only sign is that a
//! person knows what they are.

mod anchors;
mod checks;
mod command;
mod config;
mod email;
mod keys;
mod kind;
mod names;
mod net;
mod numbers;
mod pem;
mod phrases;
mod place;
mod placeholder;
mod pseudonym;
mod render;
mod rules;
mod scan;
mod sql;
mod text;
mod triggers;
mod value;
mod view;

pub use config::{Config, Rule};
pub use pem::LineState;
pub use pseudonym::Key;

use aho_corasick::AhoCorasick;
use config::Policy;
use keys::Keys;
use kind::{Kind, Mode};
use pem::Continued;
use rules::UserRule;
use scan::{Scan, Span};
use std::{borrow::Cow, path::Path};
use view::{Reading, View};

/// Compiled rules. Cheap to share, pure, fail closed.
#[derive(Debug)]
pub struct Masker {
    config: Config,
    rules: Rules,
    key: Option<Key>,
    max_bytes: usize,
}

/// What the detectors need.
#[derive(Debug)]
struct Rules {
    policy: Policy,
    keys: Keys,
    anchors: AhoCorasick,
    user: Vec<UserRule>,
}

/// Masked text and what was found.
#[derive(Debug)]
pub struct Masked<'a> {
    /// The text to use; borrowed when nothing was found.
    pub text: Cow<'a, str>,
    /// Number of findings.
    pub hits: u32,
    /// The text could not be masked and was replaced as a whole.
    pub failed: bool,
}

/// One finding, without its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What it is, such as `email`, or the name of a rule.
    pub kind: String,
    /// First byte.
    pub start: usize,
    /// Behind the last byte.
    pub end: usize,
    /// What found it.
    pub detector: &'static str,
    /// The key that it stands behind, in lower case without separators.
    pub key: Option<String>,
}

/// What looks at a text have found so far.
#[derive(Debug, Default)]
struct Found {
    spans: Vec<Span>,
    /// Something should be looked at again once its surroundings are masked.
    unfit: bool,
    /// A private key began and did not end.
    open_key: bool,
}

/// How often a text is masked again before it counts as not understood.
const MAX_ROUNDS: usize = 8;

/// The text is not understood and must not pass.
#[derive(Debug)]
struct NotUnderstood;

impl Masker {
    /// Compiles the rules and reads the pseudonyms' key, if a mode needs it.
    ///
    /// # Errors
    /// A rule that does not compile or a key that cannot be read, with its place and remedy.
    pub fn new(config: &Config) -> Result<Self, String> {
        let key = if config.needs_key() { Some(Key::read(Path::new(&config.pseudonym_key_file))?) } else { None };
        Self::with_key(config, key)
    }

    /// As [`Masker::new`], with the key given.
    ///
    /// # Errors
    /// A mistake in the configuration; a mode that needs a key while there is none.
    pub fn with_key(config: &Config, key: Option<Key>) -> Result<Self, String> {
        let mut problems = crate::config::Problems::new();
        config.check(&mut problems);
        let wrong = |problem: &&crate::config::Problem| key.is_none() || problem.key != "pseudonym_key_file";
        if let Some(problem) = problems.list().iter().find(wrong) {
            return Err(format!("`{}` {}", problem.key, problem.message));
        }
        let user = config
            .rules
            .iter()
            .map(|rule| UserRule::compile(rule).map_err(|error| format!("rule {:?}: {error}", rule.name)))
            .collect::<Result<_, _>>()?;
        let rules = Rules { policy: config.policy(), keys: config.keys(), anchors: anchors::compile()?, user };
        Ok(Self { config: config.clone(), rules, key, max_bytes: usize::try_from(config.max_line_bytes).unwrap_or(usize::MAX) })
    }

    /// The same rules under another policy, for a source of its own.
    ///
    /// # Errors
    /// There is no such policy.
    pub fn with_policy(&self, policy: &str) -> Result<Self, String> {
        Self::with_key(&Config { policy: policy.to_owned(), ..self.config.clone() }, self.key.clone())
    }

    /// Masks one line of one source; `state` carries multi-line secrets over to the next line.
    #[must_use]
    pub fn mask_line<'a>(&self, state: &mut LineState, line: &'a str) -> Masked<'a> {
        guarded(|| self.mask_trusting(state, line)).unwrap_or_else(|| Self::refused(line))
    }

    fn mask_trusting<'a>(&self, state: &mut LineState, line: &'a str) -> Masked<'a> {
        let Ok((mut spans, unfit)) = self.spans(state, line) else { return Self::refused(line) };
        if spans.is_empty() {
            return Masked { text: Cow::Borrowed(line), hits: 0, failed: false };
        }
        let merged = render::merge(&mut spans);
        let hits = u32::try_from(merged.len()).unwrap_or(u32::MAX);
        match render::write(self, line, &merged) {
            Some(text) if unfit || render::touches(line.as_bytes(), &merged) => {
                self.mask_again(text, hits).unwrap_or_else(|| Self::refused(line))
            }
            Some(text) => Masked { text: Cow::Owned(text), hits, failed: false },
            None => Self::refused(line),
        }
    }

    /// Masks what was part of a longer word before the word's other part was masked. `None` if that never ends.
    fn mask_again(&self, mut text: String, mut hits: u32) -> Option<Masked<'static>> {
        for _ in 0..MAX_ROUNDS {
            let (mut spans, _) = self.spans(&mut LineState::default(), &text).ok()?;
            let merged = render::merge(&mut spans);
            let next = render::write(self, &text, &merged)?;
            if next == text {
                return Some(Masked { text: Cow::Owned(text), hits, failed: false });
            }
            hits = hits.saturating_add(u32::try_from(merged.len()).unwrap_or(u32::MAX));
            text = next;
        }
        None
    }

    /// Masks a text that stands alone: a label, a command line, an error.
    #[must_use]
    pub fn mask<'a>(&self, text: &'a str) -> Masked<'a> {
        self.mask_line(&mut LineState::default(), text)
    }

    /// What would be masked in a text that stands alone, for people who wonder why.
    #[must_use]
    pub fn explain(&self, text: &str) -> Vec<Finding> {
        self.explain_line(&mut LineState::default(), text)
    }

    /// As [`Masker::explain`], for one line of a source.
    #[must_use]
    pub fn explain_line(&self, state: &mut LineState, line: &str) -> Vec<Finding> {
        let whole = Span { start: 0, end: line.len(), kind: Kind::PrivateKey, detector: "not understood: replaced as a whole", key: None };
        let mut spans = self.spans(state, line).map_or_else(|NotUnderstood| vec![whole], |(spans, _)| spans);
        let finding = |(span, _): (Span, bool)| Finding {
            kind: self.name(span.kind).to_owned(),
            start: span.start,
            end: span.end,
            detector: span.detector,
            key: span.key.map(|id| self.rules.keys.text(id).to_owned()),
        };
        render::merge(&mut spans).into_iter().map(finding).collect()
    }

    fn refused(line: &str) -> Masked<'static> {
        Masked { text: Cow::Owned(format!("[masking failed: {} bytes]", line.len())), hits: 0, failed: true }
    }

    fn mode(&self, kind: Kind) -> Mode {
        match kind {
            Kind::Rule(at) => self.rules.user.get(usize::from(at)).map_or(Mode::Redact, |rule| rule.mode),
            kind => self.rules.policy.mode(kind),
        }
    }

    fn name(&self, kind: Kind) -> &str {
        match kind {
            Kind::Rule(at) => self.rules.user.get(usize::from(at)).map_or("rule", |rule| &rule.name),
            kind => kind.name(),
        }
    }

    /// Everything that is found in the text and in its views, by its place in the text, and whether it should be looked at again.
    fn spans(&self, state: &mut LineState, line: &str) -> Result<(Vec<Span>, bool), NotUnderstood> {
        let bytes = line.as_bytes();
        let key_end = match state.advance(bytes) {
            Continued::Outside => 0,
            Continued::Whole => bytes.len(),
            Continued::Until(end) => end,
        };
        if bytes.len() > self.max_bytes {
            if pem::leaves_open(bytes) {
                state.open();
            }
            return Err(NotUnderstood);
        }
        let mut found = Found::default();
        if key_end < bytes.len() {
            self.look(bytes, &mut found)?;
        }
        if key_end > 0 {
            found.spans.push(Span { start: 0, end: key_end, kind: Kind::PrivateKey, detector: "private key block", key: None });
        }
        if found.open_key {
            state.open();
        }
        for span in &mut found.spans {
            span.start = line.floor_char_boundary(span.start);
            span.end = line.ceil_char_boundary(span.end);
        }
        Ok((found.spans, found.unfit))
    }

    /// Looks at a text however it must be read.
    fn look(&self, bytes: &[u8], found: &mut Found) -> Result<(), NotUnderstood> {
        match view::reading(bytes, self.rules.exact()) {
            Reading::Plain => self.scan(bytes, &[], found),
            Reading::Light(view) => self.scan(&view.bytes, std::slice::from_ref(&view), found),
            Reading::Layers => {
                self.scan(bytes, &[], found)?;
                self.views(bytes, found)
            }
        }
    }

    /// Looks at the text that `layers` lead to.
    fn scan(&self, bytes: &[u8], layers: &[View], found: &mut Found) -> Result<(), NotUnderstood> {
        let mut scan = Scan::new(bytes, &self.rules);
        scan.run();
        if scan.is_exhausted() {
            return Err(NotUnderstood);
        }
        found.unfit |= scan.unfit;
        found.open_key |= scan.open_key;
        let first = found.spans.len();
        if first == 0 {
            found.spans = scan.spans;
        } else {
            found.spans.extend(scan.spans);
        }
        for span in found.spans.iter_mut().skip(first).filter(|_| !layers.is_empty()) {
            (span.start, span.end) = layers.iter().rev().fold((span.start, span.end), |(start, end), layer| layer.origin(start, end));
        }
        Ok(())
    }

    fn views(&self, bytes: &[u8], found: &mut Found) -> Result<(), NotUnderstood> {
        let mut layers = vec![View::of(bytes)];
        // What a view leaves open was judged as the text stands.
        let open_key = found.open_key;
        for _ in 0..view::MAX_LAYERS {
            let Some(view) = layers.last() else { break };
            self.scan(&view.bytes, &layers, found)?;
            found.open_key = open_key;
            if matches!(view::reading(&view.bytes, self.rules.exact()), Reading::Plain) {
                return Ok(());
            }
            let next = View::of(&view.bytes);
            layers.push(next);
        }
        Err(NotUnderstood)
    }
}

/// `None` for a panic: a mistake here costs a line, never the program or a secret.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok()
}

impl Rules {
    /// Patterns of the configuration look at every sign.
    const fn exact(&self) -> bool {
        !self.user.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_costs_the_line_only() {
        assert_eq!(guarded(|| 1), Some(1));
        assert_eq!(guarded(|| -> u8 { panic!("told by the test") }), None);
        let refused = Masker::refused("password=a1b2");
        assert!(refused.failed && refused.text == "[masking failed: 13 bytes]");
    }
}
