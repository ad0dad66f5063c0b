//! Metric queries over a grid of times: ranges from the store, then aggregations and arithmetic over whole series.
//!
//! # Invariants
//! - A series holds one value or none for each step; series come out in the order of their labels.
//! - Values and series in memory are bounded: [`Budget`].

use super::{
    aggregate,
    ast::{Aggregate, AggregateOp, LabelReplace, Metric, Range, RangeOp},
    binary,
    gather::Gatherer,
    label_set::LabelSet,
    window::{Grid, Windows},
};
use crate::{
    error::{Error, Result},
    query::{
        matcher::MatchOp,
        search::{Patience, QueryStats},
    },
    store::Shared,
};
use std::collections::HashMap;

/// Values of one set of labels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: LabelSet,
    /// One for each step.
    pub(crate) values: Vec<Option<f64>>,
}

/// What an expression is worth.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Worth {
    Number(f64),
    Series(Vec<Series>),
}

/// What a query may still take.
#[derive(Debug)]
pub(crate) struct Budget<'a> {
    pub(crate) patience: &'a Patience,
    pub(crate) max_series: u64,
    pub(crate) max_values: u64,
    held: u64,
}

impl<'a> Budget<'a> {
    pub(crate) const fn new(shared: &Shared, patience: &'a Patience) -> Self {
        Self { patience, max_series: shared.config.query_max_series, max_values: shared.config.query_max_values, held: 0 }
    }

    /// Ends a query that came too late or is not wanted any more.
    pub(crate) fn check(&self) -> Result<()> {
        if self.patience.is_canceled() {
            Err(Error::Canceled)
        } else if self.patience.is_over() {
            Err(Error::TimedOut)
        } else {
            Ok(())
        }
    }

    /// Takes note of values that are held in memory.
    pub(crate) fn hold(&mut self, values: usize) -> Result<()> {
        self.held += values as u64;
        if self.held <= self.max_values {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "the query holds more than {} values; take a longer step, a shorter range or fewer series (`query_max_values` of [logs] bounds it)",
            self.max_values
        )))
    }

    pub(crate) fn check_series(&self, series: usize) -> Result<()> {
        if series as u64 <= self.max_series {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "maximum number of series ({}) reached for a single query; consider reducing query cardinality by adding more specific stream selectors, reducing the time range, or aggregating results with functions like sum(), count() or topk() (`query_max_series` of [logs] bounds it)",
            self.max_series
        )))
    }
}

/// Works out metric queries.
#[derive(Debug)]
pub(crate) struct Evaluator<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) grid: Grid,
    pub(crate) budget: Budget<'a>,
    pub(crate) stats: QueryStats,
}

impl Evaluator<'_> {
    /// The series of an expression; a number is one series without labels.
    pub(crate) fn series(&mut self, metric: &Metric) -> Result<Vec<Series>> {
        let mut series = match self.worth(metric)? {
            Worth::Series(series) => series,
            Worth::Number(value) => vec![self.constant(value)],
        };
        if !(self.grid.steps == 1 && ranks(metric)) {
            series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        }
        Ok(series)
    }

    fn constant(&self, value: f64) -> Series {
        Series { labels: LabelSet::default(), values: vec![Some(value); self.grid.steps] }
    }

    /// What an expression is worth.
    pub(crate) fn worth(&mut self, metric: &Metric) -> Result<Worth> {
        self.budget.check()?;
        match metric {
            Metric::Number(value) => Ok(Worth::Number(*value)),
            Metric::Vector(value) => Ok(Worth::Series(vec![self.constant(*value)])),
            Metric::Range(range) => self.range(range, None).map(Worth::Series),
            Metric::Aggregate(aggregate) => self.aggregate(aggregate).map(Worth::Series),
            Metric::Binary(binary) => {
                let (left, right) = (self.worth(&binary.left)?, self.worth(&binary.right)?);
                let made = binary::apply(binary, left, right, self.grid.steps)?;
                if let Worth::Series(series) = &made {
                    self.budget.hold(series.len() * self.grid.steps)?;
                }
                Ok(made)
            }
            Metric::Sort { descending, inner } => {
                let mut series = self.some(inner)?;
                aggregate::sort(&mut series, *descending);
                Ok(Worth::Series(series))
            }
            Metric::LabelReplace(replace) => self.label_replace(replace).map(Worth::Series),
        }
    }

    fn some(&mut self, metric: &Metric) -> Result<Vec<Series>> {
        match self.worth(metric)? {
            Worth::Series(series) => Ok(series),
            Worth::Number(value) => Ok(vec![self.constant(value)]),
        }
    }

    fn range(&mut self, range: &Range, aggregate: Option<&Aggregate>) -> Result<Vec<Series>> {
        let windows = Windows { grid: self.grid, range_ns: range.range_ns, offset_ns: range.offset_ns };
        let nothing = super::ast::Grouping { without: false, names: Vec::new() };
        let grouping = aggregate.map(|aggregate| aggregate.grouping.as_ref().unwrap_or(&nothing));
        let all_in_one = (range.op == RangeOp::Absent).then_some(&nothing);
        let gatherer = Gatherer::new(range, windows, grouping.or(all_in_one));
        let gathered = gatherer.run(self.shared, &mut self.budget, &mut self.stats)?;
        if range.op == RangeOp::Absent {
            let found = gathered.first().map(|(_, gathered)| gathered.values(range.op, &windows));
            return Ok(absent(range, found, self.grid.steps));
        }
        let mut series = Vec::new();
        for (labels, gathered) in gathered {
            self.budget.check()?;
            self.budget.hold(self.grid.steps)?;
            series.push(Series { labels, values: gathered.values(range.op, &windows) });
        }
        Ok(series)
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Result<Vec<Series>> {
        // What merges is grouped while it is gathered: series that differ only in labels that nobody asked for never exist.
        if let Metric::Range(range) = &aggregate.inner
            && merges(aggregate.op, range)
        {
            return self.range(range, Some(aggregate));
        }
        let inner = self.some(&aggregate.inner)?;
        let made = aggregate::apply(aggregate, inner, self.grid.steps);
        self.budget.hold(made.len() * self.grid.steps)?;
        Ok(made)
    }

    fn label_replace(&mut self, replace: &LabelReplace) -> Result<Vec<Series>> {
        let mut series = self.some(&replace.inner)?;
        let mut seen: HashMap<LabelSet, ()> = HashMap::new();
        for one in &mut series {
            let from = one.labels.get(&replace.from).unwrap_or_default().to_owned();
            if let Some(groups) = replace.regex.captures(&from) {
                let mut made = String::new();
                groups.expand(&replace.replacement, &mut made);
                one.labels = one.labels.with(&replace.to, &made);
            }
            if seen.insert(one.labels.clone(), ()).is_some() {
                return Err(Error::Invalid(format!("label_replace makes two series with the labels {}", one.labels)));
            }
        }
        Ok(series)
    }
}

/// Whether an instant answer has an order of its own.
fn ranks(metric: &Metric) -> bool {
    match metric {
        Metric::Sort { .. } => true,
        Metric::Aggregate(aggregate) => matches!(aggregate.op, AggregateOp::Top(_) | AggregateOp::Bottom(_)),
        _ => false,
    }
}

/// Whether aggregating the windows' parts is the same as aggregating the windows' values.
const fn merges(op: AggregateOp, range: &Range) -> bool {
    let counts = matches!(range.op, RangeOp::Count | RangeOp::Rate | RangeOp::BytesOverTime | RangeOp::BytesRate | RangeOp::Sum);
    let same = match op {
        AggregateOp::Sum => counts,
        AggregateOp::Min => matches!(range.op, RangeOp::Min),
        AggregateOp::Max => matches!(range.op, RangeOp::Max),
        _ => false,
    };
    same && range.grouping.is_none()
}

/// One where there is no line, with the labels that the selector says must be.
fn absent(range: &Range, found: Option<Vec<Option<f64>>>, steps: usize) -> Vec<Series> {
    let found = found.unwrap_or_else(|| vec![None; steps]);
    let values: Vec<_> = found.iter().map(|value| if value.is_none() { Some(1.0) } else { None }).collect();
    if values.iter().all(Option::is_none) {
        return Vec::new();
    }
    let equal = range.pipeline.matchers.iter().filter(|matcher| matcher.op() == MatchOp::Equal);
    let labels = LabelSet::new(equal.map(|matcher| (matcher.name().to_owned(), matcher.value().to_owned())));
    vec![Series { labels, values }]
}
