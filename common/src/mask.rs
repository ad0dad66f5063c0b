//! Finds and removes personal data and secrets from text.
//!
//! Placeholder: the interface that callers write against.

use std::borrow::Cow;

/// Which detectors are on and how they replace what they find.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

impl Config {
    /// Checks the rules.
    pub fn check(&self, _problems: &mut crate::config::Problems) {}
}

/// Compiled rules. Cheap to share, pure, fail closed.
#[derive(Debug)]
pub struct Masker {}

/// What a multi-line secret (a private key block) needs to remember between the lines of one source.
#[derive(Clone, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct LineState {}

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

impl Masker {
    /// Compiles the rules.
    ///
    /// # Errors
    /// A rule that does not compile, with its place and remedy.
    pub fn new(_config: &Config) -> Result<Self, String> {
        Ok(Self {})
    }

    /// Masks one line of one source; `state` carries multi-line secrets over to the next line.
    #[must_use]
    pub fn mask_line<'a>(&self, _state: &mut LineState, line: &'a str) -> Masked<'a> {
        Masked { text: Cow::Borrowed(line), hits: 0, failed: false }
    }

    /// Masks a text that stands alone: a label, a command line, an error.
    #[must_use]
    pub fn mask<'a>(&self, text: &'a str) -> Masked<'a> {
        self.mask_line(&mut LineState::default(), text)
    }
}

/// One finding, without its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What it is, such as `email`.
    pub kind: &'static str,
    /// First byte.
    pub start: usize,
    /// Behind the last byte.
    pub end: usize,
}

impl Masker {
    /// What would be masked, for `shipwatch-agent mask --explain`.
    #[must_use]
    pub fn explain(&self, _text: &str) -> Vec<Finding> {
        Vec::new()
    }
}
