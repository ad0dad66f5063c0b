//! PromQL with Prometheus' meaning, over any [`Source`].
//!
//! The grammar is `promql-parser`'s. Each node of a query is evaluated once for all steps: a selector reads its series once
//! for the whole range, labels are matched once per series, and what is left for each step is arithmetic over columns.
//!
//! # Invariants
//! - Ranges are open on the left: `x[5m]` at `t` has samples in `(t - 5m, t]`, and an instant selector looks back over
//!   `(t - lookback, t]`, as Prometheus 3 does.
//! - A query takes no more samples, series, points and time than its [`EvalOptions`] allow.
//! - No query text panics or overflows the stack: length, number of operators and depth are bounded.
//!
//! - What a range query answers at a step does not depend on its other steps, but for a few functions (`cache::reach` has the
//!   list), and a [`RangeCache`] changes no answer.
//! - What Prometheus has behind feature flags (`limitk`, `info`, `fill`, `sort_by_label`, …) needs
//!   [`EvalOptions::experimental`]; without it these are errors that name the key.
//!
//! # Left out
//! Native histograms, durations that are computed (`[5m * 2]`), `anchored` and `smoothed`: errors that name what is not
//! supported. Annotations do not tell the place in the query's text.

mod aggregate;
mod annotations;
mod binary;
mod cache;
mod classic;
mod eval;
mod functions;
mod histogram;
mod info;
mod labels;
mod math;
mod order;
mod over_time;
mod parse;
mod rank;
mod rate;
mod select;
mod statistics;
mod summarized;
pub mod time;
pub mod tree;
mod values;

pub use cache::{CacheStats, RangeCache};
pub use parse::{Query, parse_selector};

use crate::{
    config::Config,
    source::{SeriesData, Source},
};
use shipwatch_common::{model::Labels, time::UnixMs};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Why a query has no result.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// The query or a parameter is wrong (400).
    #[error("{0}")]
    BadData(String),
    /// The query is well formed but cannot be computed on this data (422).
    #[error("{0}")]
    Execution(String),
    /// The deadline has passed (503).
    #[error(
        "query timed out in expression evaluation: it took longer than `query_timeout` or its own `timeout` allow; ask for fewer \
         series, a shorter range or a larger step, or raise `query_timeout`"
    )]
    Timeout,
    /// Nobody waits for the answer any more (503).
    #[error("query was canceled in expression evaluation")]
    Canceled,
    /// The source failed (500).
    #[error("{0}")]
    Source(crate::error::Error),
}

impl From<crate::error::Error> for Error {
    fn from(error: crate::error::Error) -> Self {
        match error {
            crate::error::Error::Timeout => Self::Timeout,
            crate::error::Error::Matcher(text) => Self::BadData(text),
            error @ crate::error::Error::Limit { .. } => Self::Execution(error.to_string()),
            error => Self::Source(error),
        }
    }
}

/// Bounds and defaults of an evaluation.
#[derive(Clone, Debug)]
pub struct EvalOptions {
    /// How far back an instant selector looks.
    pub lookback: Duration,
    /// Step of a subquery without one.
    pub subquery_step: Duration,
    /// Most series that one selector may touch (`query_max_series`).
    pub max_series: u64,
    /// Most samples read and computed (`query_max_samples`).
    pub max_samples: u64,
    /// Most steps of a range query (`query_max_points`).
    pub max_points: u64,
    /// When to give up.
    pub deadline: Option<Instant>,
    /// Set by whoever no longer waits for the answer; looked at wherever the deadline is.
    pub cancel: Option<Arc<AtomicBool>>,
    /// Whether functions and modifiers work that Prometheus calls experimental (`promql_experimental`).
    pub experimental: bool,
    /// Where results of range queries are kept, and taken from; it belongs to the source.
    pub cache: Option<Arc<RangeCache>>,
    /// Whether summaries of samples may be used; without them nothing but samples is read.
    pub summaries: bool,
}

impl EvalOptions {
    /// The bounds of a configuration, without a deadline.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            lookback: config.lookback,
            subquery_step: config.subquery_step,
            max_series: config.query_max_series.into(),
            max_samples: config.query_max_samples,
            max_points: config.query_max_points.into(),
            deadline: None,
            cancel: None,
            experimental: config.promql_experimental,
            cache: None,
            summaries: true,
        }
    }

    /// With a deadline; the earlier one stays.
    #[must_use]
    pub fn until(self, deadline: Instant) -> Self {
        Self { deadline: Some(self.deadline.map_or(deadline, |before| before.min(deadline))), ..self }
    }

    /// Given up once the flag is set.
    #[must_use]
    pub fn canceled_by(self, flag: Arc<AtomicBool>) -> Self {
        Self { cancel: Some(flag), ..self }
    }

    /// Whether to go on.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.cancel.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(Error::Canceled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::Timeout),
            _ => Ok(()),
        }
    }
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self::new(&Config::default())
    }
}

/// One element of an instant vector.
#[derive(Clone, Debug)]
pub struct Element {
    /// Which series.
    pub labels: Arc<Labels>,
    /// Its value at the query's time.
    pub value: f64,
}

/// The value of a query.
#[derive(Clone, Debug)]
pub enum Value {
    /// One number without labels.
    Scalar(f64),
    /// A text.
    String(String),
    /// Elements at the query's time, in the query's own order (`sort`, `topk`).
    Vector(Vec<Element>),
    /// Series, sorted by labels.
    Matrix(Vec<SeriesData>),
}

/// A value with what a person should know about it.
#[derive(Clone, Debug)]
pub struct Output {
    /// The value.
    pub value: Value,
    /// What makes the value doubtful, such as buckets without a bound; sorted, without duplicates.
    pub warnings: Vec<String>,
    /// What may be a mistake, such as the rate of what has no counter's name; sorted, without duplicates.
    pub infos: Vec<String>,
    /// Samples that were read and computed, the measure of `query_max_samples`.
    pub samples: u64,
}

/// Evaluates a query at one time.
///
/// # Errors
/// See [`Error`].
pub fn eval_instant(source: &dyn Source, query: &str, time_ms: UnixMs, options: &EvalOptions) -> Result<Output, Error> {
    Query::parse(query)?.instant(source, time_ms, options)
}

/// Evaluates a query at `start`, `start + step`, … up to `end`.
///
/// # Errors
/// See [`Error`].
pub fn eval_range(
    source: &dyn Source,
    query: &str,
    start_ms: UnixMs,
    end_ms: UnixMs,
    step_ms: i64,
    options: &EvalOptions,
) -> Result<Output, Error> {
    Query::parse(query)?.range(source, start_ms, end_ms, step_ms, options)
}

/// A sample's value as Prometheus writes it: shortest digits, never an exponent, `NaN`, `+Inf`, `-Inf`.
#[must_use]
pub fn format_value(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}
