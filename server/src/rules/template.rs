//! Templates of labels and annotations: Prometheus' subset of Go's `text/template`.
//!
//! `{{ $value | humanize }}`, `{{ $labels.instance }}`, `{{ if gt $value 90.0 }}…{{ else }}…{{ end }}`, `range`, `with`,
//! variables, comments and trim markers, and Prometheus' functions.
//!
//! # Invariants
//! - A template is parsed when its rule is loaded; unknown functions, variables and words are mistakes of the file.
//! - Expanding never fails an evaluation: what cannot be computed becomes `<error expanding template: …>`, as Prometheus does.
//! - Nesting, steps and output are bounded.
//!
//! # Left out
//! `define`, `template`, `block`, `break`, `continue`, methods of Go's types (`toTime`, `toDuration`): mistakes that name them.

mod exec;
mod functions;
mod lex;
mod parse;
mod printf;
mod value;

pub(crate) use functions::url_encode;
pub use value::QueryFn;
pub(crate) use value::go_e_shortest;

use shipwatch_common::{model::Labels, time::UnixMs};

/// Longest template.
const MAX_BYTES: usize = 64 << 10;

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    source: String,
    nodes: Vec<parse::Node>,
}

/// What a template speaks about.
#[derive(Clone, Copy)]
pub struct Data<'a> {
    /// `$labels`.
    pub labels: &'a Labels,
    /// `$value`.
    pub value: f64,
    /// `$externalURL`.
    pub external_url: &'a str,
    /// The evaluation's time.
    pub now_ms: UnixMs,
    /// For `query "…"`.
    pub query: QueryFn<'a>,
}

impl std::fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Data").field("labels", self.labels).field("value", &self.value).finish_non_exhaustive()
    }
}

impl Template {
    /// Parses.
    ///
    /// # Errors
    /// What is wrong, for the person who wrote it.
    pub fn parse(source: &str) -> Result<Self, String> {
        if source.len() > MAX_BYTES {
            return Err(format!("a template of {} bytes is longer than the {MAX_BYTES} that are allowed", source.len()));
        }
        Ok(Self { source: source.to_owned(), nodes: parse::parse(source)? })
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Fills it in.
    #[must_use]
    pub fn expand(&self, data: &Data<'_>) -> String {
        exec::run(&self.nodes, data).unwrap_or_else(|error| format!("<error expanding template: {error}>"))
    }
}

#[cfg(test)]
mod tests;
