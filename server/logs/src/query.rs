//! Questions about log lines: what they mean ([`parse`]), what they need of the store ([`plan`]), and the answers ([`search`],
//! [`count`], [`context`], [`catalog`]).

mod best;
pub(crate) mod catalog;
pub(crate) mod context;
pub(crate) mod count;
pub(crate) mod matcher;
pub(crate) mod parse;
pub(crate) mod plan;
pub(crate) mod scan;
pub(crate) mod search;

use matcher::{LineFilter, Matcher};
use scan::ParseError;
use shipwatch_common::model::{Labels, Severity};

/// Every severity.
pub(crate) const ANY_SEVERITY: u8 = 0x7f;

/// Which lines are wanted. The default is every line.
///
/// Two forms of text are understood: LogQL, `{app="shop", env=~"prod|stage"} |= "timeout" != "retry" |~ "id=\\d+" | level="error"`, and
/// the words of a search box, `timeout "order 42"`: lines that have all of them, in any case of letters.
#[derive(Clone, Debug)]
pub struct Query {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) filters: Vec<LineFilter>,
    /// One bit for each severity that is wanted.
    pub(crate) severities: u8,
}

impl Default for Query {
    fn default() -> Self {
        Self { matchers: Vec::new(), filters: Vec::new(), severities: ANY_SEVERITY }
    }
}

impl Query {
    /// Reads either form.
    ///
    /// # Errors
    /// Tells the column and what was expected there.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse::parse(text)
    }

    /// Every line of the streams that these select.
    #[must_use]
    pub fn of(matchers: &[Matcher]) -> Self {
        Self { matchers: matchers.to_vec(), ..Self::default() }
    }

    /// What the streams' labels must be.
    #[must_use]
    pub fn matchers(&self) -> &[Matcher] {
        &self.matchers
    }

    /// Lines that have a text, whatever their stream.
    pub(crate) fn of_text(text: &str) -> Result<Self, String> {
        Ok(Self { filters: vec![LineFilter::contains(text, false)?], ..Self::default() })
    }

    /// The fixed texts that wanted lines have.
    pub(crate) fn texts(&self) -> Vec<String> {
        let wanted = self.filters.iter().filter(|filter| !filter.negated);
        wanted.filter_map(|filter| filter.literal.as_ref()).map(|literal| literal.text.clone()).filter(|text| !text.is_empty()).collect()
    }

    /// Whether more is asked than labels.
    pub(crate) const fn has_conditions(&self) -> bool {
        !self.filters.is_empty() || self.severities != ANY_SEVERITY
    }

    /// Whether a line is wanted.
    #[must_use]
    pub fn matches(&self, labels: &Labels, severity: Severity, text: &str) -> bool {
        self.severities & severity_bit(severity) != 0
            && self.matchers.iter().all(|matcher| matcher.matches(labels))
            && self.filters.iter().all(|filter| filter.keeps(text))
    }
}

pub(crate) const fn severity_bit(severity: Severity) -> u8 {
    1 << crate::store::block::severity_code(severity)
}
