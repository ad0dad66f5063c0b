//! LogQL, Loki's query language, over the engine. `docs/logql.md` tells what of it is here.
//!
//! # Layout
//! - [`parse`] reads a text into the tree of [`ast`]; [`print`] writes it back
//! - [`pipeline`] with [`json`], [`extract`], [`template`], [`units`] on a [`record`]: what stages do to one line
//! - [`rows`]: log queries; [`eval`] with [`gather`], [`window`], [`aggregate`], [`binary`]: metric queries
//!
//! # Invariants
//! - Any text is read or refused with its place. What Loki has and this has not is refused by its name, never guessed.
//! - Blocks are streamed: memory is one block, the page or the windows. Deadline and client are looked at between blocks.
//! - Line filters that stand before anything changes the text are found by the store, with its filters of words.

mod aggregate;
mod ast;
mod binary;
mod eval;
mod extract;
mod gather;
mod json;
mod label_set;
mod parse;
mod pipeline;
mod print;
mod record;
mod rows;
mod template;
mod units;
mod volume;
mod window;

pub use label_set::LabelSet;
pub use rows::{Row, Rows, RowsRequest};
pub use volume::Volume;

use crate::{
    Engine, Matcher, ParseError, Query, QueryStats,
    error::{Error, Result},
    query::search::Patience,
};
use ast::{Expr, Metric, Pipeline};
use eval::{Budget, Evaluator};
use shipwatch_common::time::UnixNs;
use window::Grid;

/// Most steps of one metric query.
const STEPS_MAX: i64 = 11_000;

/// A query that was read.
#[derive(Clone, Debug)]
pub struct Expression(Expr);

impl Expression {
    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong, and at which character.
    pub fn parse(text: &str) -> std::result::Result<Self, ParseError> {
        parse::parse(text).map(Self)
    }

    /// Whether its answer is numbers; otherwise it is lines.
    #[must_use]
    pub const fn is_metric(&self) -> bool {
        matches!(self.0, Expr::Metric(_))
    }

    /// The matchers of its first selector.
    #[must_use]
    pub fn matchers(&self) -> &[Matcher] {
        match &self.0 {
            Expr::Log(pipeline) => &pipeline.matchers,
            Expr::Metric(metric) => first_pipeline(metric).map_or(&[], |pipeline| &pipeline.matchers),
        }
    }

    /// What the store can look for by itself: to be asked of [`Engine::subscribe`], with [`Expression::row`] for what comes.
    ///
    /// # Errors
    /// This is a metric query.
    pub fn stored(&self) -> Result<Query> {
        Ok(self.pipeline()?.split().query)
    }

    /// What becomes of a line that the store found.
    #[must_use]
    pub fn row(&self, entry: &crate::Entry) -> Option<Row> {
        let pipeline = self.pipeline().ok()?;
        rows::make(&pipeline.split(), entry.id, &entry.labels, entry.severity, &entry.text)
    }

    fn pipeline(&self) -> Result<&Pipeline> {
        match &self.0 {
            Expr::Log(pipeline) => Ok(pipeline),
            Expr::Metric(_) => Err(Error::Invalid("a query for lines is needed here, not a metric query".to_owned())),
        }
    }

    fn metric(&self) -> Result<&Metric> {
        match &self.0 {
            Expr::Metric(metric) => Ok(metric),
            Expr::Log(_) => Err(Error::Invalid(
                "log queries are not supported as an instant query type, please change your query to a range query type".to_owned(),
            )),
        }
    }
}

/// Reads a duration such as `1h30m`, in nanoseconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<i64> {
    units::duration(text).filter(|ns| ns.abs() < 9.2e18).map(|ns| ns as i64)
}

/// Reads a stream selector alone; `{}` selects all.
///
/// # Errors
/// What is wrong, and at which character.
pub fn parse_selector(text: &str) -> std::result::Result<Query, ParseError> {
    let matchers = parse::parse_selector(text)?;
    Ok(Query { matchers, ..Query::default() })
}

/// As it would be written, on one line.
impl std::fmt::Display for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

fn first_pipeline(metric: &Metric) -> Option<&Pipeline> {
    match metric {
        Metric::Number(_) | Metric::Vector(_) => None,
        Metric::Range(range) => Some(&range.pipeline),
        Metric::Aggregate(aggregate) => first_pipeline(&aggregate.inner),
        Metric::Binary(binary) => first_pipeline(&binary.left).or_else(|| first_pipeline(&binary.right)),
        Metric::Sort { inner, .. } => first_pipeline(inner),
        Metric::LabelReplace(replace) => first_pipeline(&replace.inner),
    }
}

/// The times at which a metric query is evaluated: from `start_ns` to `end_ns`, both inclusive.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// First time.
    pub start_ns: UnixNs,
    /// No later than this.
    pub end_ns: UnixNs,
    /// From one to the next.
    pub step_ns: i64,
}

impl Times {
    fn grid(&self) -> Result<Grid> {
        if self.step_ns <= 0 {
            return Err(Error::Invalid(
                "zero or negative query resolution step widths are not accepted. Try a positive integer".to_owned(),
            ));
        }
        if self.end_ns < self.start_ns {
            return Err(Error::Invalid("end timestamp must not be before or equal to start time".to_owned()));
        }
        let steps = self.end_ns.saturating_sub(self.start_ns) / self.step_ns;
        if steps >= STEPS_MAX {
            return Err(Error::Invalid(
                "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step parameter".to_owned(),
            ));
        }
        Ok(Grid { start_ns: self.start_ns, step_ns: self.step_ns, steps: usize::try_from(steps).unwrap_or(0) + 1 })
    }
}

/// Values of one set of labels over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    /// Which.
    pub labels: LabelSet,
    /// Time and value, in order of time.
    pub points: Vec<(UnixNs, f64)>,
}

/// The value of one set of labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Which.
    pub labels: LabelSet,
    /// How much.
    pub value: f64,
}

/// Answer of a metric query at one time.
#[derive(Clone, Debug, PartialEq)]
pub enum Instant {
    /// A number without labels.
    Scalar(f64),
    /// In the order of labels, or of the values for `topk`, `bottomk` and `sort`.
    Vector(Vec<Sample>),
}

impl Engine {
    /// A metric query at each of some times.
    ///
    /// # Errors
    /// It is no metric query, a bound is passed (the error names it), [`Error::TimedOut`], [`Error::Canceled`].
    pub fn metric(&self, query: &Expression, times: &Times, patience: &Patience) -> Result<(Vec<Points>, QueryStats)> {
        let mut evaluator = self.evaluator(times.grid()?, patience);
        let series = evaluator.series(query.metric()?)?;
        let grid = evaluator.grid;
        let points = series.into_iter().map(|series| {
            let points = series.values.iter().enumerate().filter_map(|(step, value)| Some((grid.time(step), (*value)?))).collect();
            Points { labels: series.labels, points }
        });
        let points = points.filter(|points: &Points| !points.points.is_empty()).collect();
        Ok((points, evaluator.stats))
    }

    /// A metric query at one time, as rules ask it.
    ///
    /// # Errors
    /// As [`Engine::metric`].
    pub fn evaluate(&self, query: &Expression, time_ns: UnixNs, patience: &Patience) -> Result<(Instant, QueryStats)> {
        let metric = query.metric()?;
        if let Metric::Number(value) = metric {
            return Ok((Instant::Scalar(*value), QueryStats::default()));
        }
        let grid = Grid { start_ns: time_ns, step_ns: 1, steps: 1 };
        let mut evaluator = self.evaluator(grid, patience);
        let series = evaluator.series(metric)?;
        let samples = series
            .into_iter()
            .filter_map(|series| Some(Sample { value: series.values.first().copied().flatten()?, labels: series.labels }));
        Ok((Instant::Vector(samples.collect()), evaluator.stats))
    }

    /// A page of a log query.
    ///
    /// # Errors
    /// As [`Engine::metric`].
    pub fn rows(&self, query: &Expression, request: &RowsRequest, patience: &Patience) -> Result<Rows> {
        rows::rows(self.shared(), query.pipeline()?, request, patience)
    }

    /// Totals of a selection, exact.
    ///
    /// # Errors
    /// As [`Engine::metric`].
    pub fn volume(&self, query: &Query, start_ns: UnixNs, end_ns: UnixNs, patience: &Patience) -> Result<Volume> {
        volume::volume(self.shared(), query, start_ns, end_ns, patience)
    }

    fn evaluator<'a>(&'a self, grid: Grid, patience: &'a Patience) -> Evaluator<'a> {
        let shared = self.shared();
        Evaluator { shared, grid, budget: Budget::new(shared, patience), stats: QueryStats::default() }
    }
}

#[cfg(test)]
mod tests;
