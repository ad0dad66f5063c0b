//! The evaluator: walks a query and gives each kind of node to its module.

use super::{
    Element, Error, EvalOptions, Output, Query, Value, aggregate,
    annotations::Notes,
    binary,
    cache::{self, Reach, Stretch},
    functions,
    labels::drop_name,
    select,
    values::{Column, Grid, Val, is_absent, merge_same},
};
use crate::{
    error::Error as SourceError,
    matcher::Matcher,
    source::{Ask, BUCKET_SAMPLES, SelectLimits, SeriesData, Source, Summaries, Summarized},
};
use promql_parser::parser::{Expr, value::ValueType};
use shipwatch_common::{model::Labels, time::UnixMs};
use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

/// Times that are accepted, about 300,000 years around 1970: differences never overflow.
const MAX_TIME_MS: i64 = 10_000_000_000_000_000;

/// One evaluation: its source, its bounds, and what it has used of them.
pub(crate) struct Context<'a> {
    source: &'a dyn Source,
    pub(crate) options: &'a EvalOptions,
    /// What `@ start()` and `@ end()` mean.
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// The query's own step; 0 at one time.
    pub(crate) step: i64,
    used: Cell<u64>,
    /// The steps that annotations are told for; without it only that there are some.
    told_at: Option<(Grid, Reach)>,
    /// The result cannot be taken apart into its steps.
    is_whole: Cell<bool>,
    warnings: RefCell<Notes>,
    infos: RefCell<Notes>,
}

/// Most different warnings, and infos, of one query.
pub(crate) const MAX_ANNOTATIONS: usize = 1_000;

/// A range query that was checked, to be evaluated at its steps or at some of them.
pub(crate) struct RangeAsk<'a> {
    expr: &'a Expr,
    pub(crate) source: &'a dyn Source,
    pub(crate) options: &'a EvalOptions,
    /// Start, end and step of the whole query.
    span: [i64; 3],
}

/// The result at some steps.
pub(crate) struct Evaluated {
    pub(crate) stretch: Stretch,
    /// Samples that were read and computed.
    pub(crate) used: u64,
    /// The result cannot be taken apart into its steps.
    pub(crate) is_whole: bool,
}

impl RangeAsk<'_> {
    /// Evaluates at some steps; `used` is what the query has used already. With a reach the result tells its annotations' steps.
    pub(crate) fn evaluate(&self, grid: Grid, used: u64, reach: Option<Reach>) -> Result<Evaluated, Error> {
        let mut ctx = Context::new(self.source, self.options, self.span);
        ctx.used.set(used);
        ctx.told_at = reach.map(|reach| (grid, reach));
        let mut columns = match ctx.eval(self.expr, grid)? {
            Val::Scalar(values) => vec![Column { labels: Default::default(), values }],
            Val::Vector(columns) => columns,
            Val::Text(_) => Vec::new(),
        };
        columns.sort_by(|a, b| a.labels.cmp(&b.labels));
        let (used, is_whole) = (ctx.used.get(), ctx.is_whole.get());
        let stretch = Stretch { grid, columns, warnings: ctx.warnings.into_inner(), infos: ctx.infos.into_inner() };
        Ok(Evaluated { stretch, used, is_whole })
    }

    /// The answer without a cache.
    pub(crate) fn fresh(&self, grid: Grid) -> Result<Output, Error> {
        let Evaluated { stretch, used, .. } = self.evaluate(grid, 0, None)?;
        let series = stretch.columns.into_iter().filter_map(|column| points(column.labels, &column.values, grid));
        let value = Value::Matrix(series.collect());
        Ok(Output { value, warnings: stretch.warnings.into_texts(), infos: stretch.infos.into_texts(), samples: used })
    }
}

/// The points of a column, if there are any.
pub(crate) fn points(labels: Arc<Labels>, values: &[f64], grid: Grid) -> Option<SeriesData> {
    let count = values.iter().filter(|value| !is_absent(**value)).count();
    let (mut ts, mut present) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for (step, value) in values.iter().enumerate().filter(|(_, value)| !is_absent(**value)) {
        ts.push(grid.at(step));
        present.push(*value);
    }
    (count > 0).then_some(SeriesData { labels, ts, values: present })
}

impl Query {
    /// Evaluates at one time.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn instant(&self, source: &dyn Source, time_ms: UnixMs, options: &EvalOptions) -> Result<Output, Error> {
        check_times(&[time_ms])?;
        self.check_experimental(options)?;
        let ctx = Context::new(source, options, [time_ms, time_ms, 0]);
        let grid = Grid { start: time_ms, step: 0, len: 1 };
        let value = if self.expr.value_type() == ValueType::Matrix {
            Value::Matrix(select::ranges(&ctx, &self.expr, grid, None)?.into_series())
        } else {
            match ctx.eval(&self.expr, grid)? {
                Val::Text(text) => Value::String(text),
                Val::Scalar(values) => Value::Scalar(first(&values)),
                Val::Vector(columns) => {
                    let elements = columns.into_iter().map(|column| Element { value: first(&column.values), labels: column.labels });
                    Value::Vector(elements.filter(|element| !is_absent(element.value)).collect())
                }
            }
        };
        Ok(ctx.output(value))
    }

    /// Evaluates at `start`, `start + step`, … up to `end`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn range(&self, source: &dyn Source, start: UnixMs, end: UnixMs, step: i64, options: &EvalOptions) -> Result<Output, Error> {
        check_times(&[start, end])?;
        self.check_experimental(options)?;
        if step <= 0 {
            return Err(Error::BadData("zero or negative query resolution step widths are not accepted: try a positive `step`".to_owned()));
        }
        if end < start {
            return Err(Error::BadData("end timestamp must not be before start time".to_owned()));
        }
        let steps = (end - start) / step;
        if steps as u64 > options.max_points {
            return Err(Error::BadData(format!(
                "exceeded maximum resolution of {} points per timeseries: take a larger step, or raise `query_max_points`",
                options.max_points
            )));
        }
        if !matches!(self.expr.value_type(), ValueType::Scalar | ValueType::Vector) {
            let kind = self.expr.value_type();
            let shown = if kind == ValueType::Matrix { "range vector".to_owned() } else { kind.to_string() };
            return Err(Error::BadData(format!("invalid expression type \"{shown}\" for range query, must be Scalar or instant Vector")));
        }
        let grid = Grid { start, step, len: steps as usize + 1 };
        let ask = RangeAsk { expr: &self.expr, source, options, span: [start, end, step] };
        match &options.cache {
            Some(cache) => cache::range(cache, self, &ask, grid),
            None => ask.fresh(grid),
        }
    }
}

fn first(values: &[f64]) -> f64 {
    values.first().copied().unwrap_or(super::values::ABSENT)
}

fn check_times(times: &[i64]) -> Result<(), Error> {
    match times.iter().find(|time| time.unsigned_abs() > MAX_TIME_MS.unsigned_abs()) {
        Some(time) => Err(Error::BadData(format!("time {} is out of bounds", *time as f64 / 1_000.0))),
        None => Ok(()),
    }
}

impl<'a> Context<'a> {
    fn new(source: &'a dyn Source, options: &'a EvalOptions, [start, end, step]: [i64; 3]) -> Self {
        let (warnings, infos) = (RefCell::default(), RefCell::default());
        Self { source, options, start, end, step, used: Cell::new(0), told_at: None, is_whole: Cell::new(false), warnings, infos }
    }

    fn output(self, value: Value) -> Output {
        let (warnings, infos) = (self.warnings.into_inner().into_texts(), self.infos.into_inner().into_texts());
        Output { value, warnings, infos, samples: self.used.get() }
    }

    /// Tells what makes the result doubtful at some steps of `grid`.
    pub(crate) fn warn(&self, text: String, grid: Grid, steps: impl IntoIterator<Item = usize>) {
        self.annotate(&self.warnings, text, grid, steps);
    }

    /// Tells what may be a mistake at some steps of `grid`.
    pub(crate) fn info(&self, text: String, grid: Grid, steps: impl IntoIterator<Item = usize>) {
        self.annotate(&self.infos, text, grid, steps);
    }

    fn annotate(&self, known: &RefCell<Notes>, text: String, grid: Grid, steps: impl IntoIterator<Item = usize>) {
        let mut steps = steps.into_iter().peekable();
        let Some(first) = steps.peek().copied() else { return };
        let mut known = known.borrow_mut();
        if known.0.len() >= MAX_ANNOTATIONS && !known.0.contains_key(&text) {
            self.is_whole.set(true);
            return;
        }
        let marks = known.0.entry(text).or_default();
        match self.told_at {
            None => {}
            // The steps of a subquery are others than the query's.
            Some((told_at, reach)) if told_at != grid || reach.has_subquery => {
                self.is_whole.set(true);
                *marks = vec![true; told_at.len];
            }
            Some(_) => {
                marks.resize(grid.len, false);
                std::iter::once(first).chain(steps).for_each(|step| marks[step] = true);
            }
        }
    }

    /// Tells that the result depends on the steps together.
    pub(crate) fn is_whole(&self) {
        self.is_whole.set(true);
    }

    /// Reads series of the source within what is left of the bounds.
    pub(crate) fn select(&self, matchers: &[Matcher], t0: i64, t1: i64) -> Result<Vec<SeriesData>, Error> {
        let found = self.within_bounds(|limits| self.source.select(matchers, t0, t1, limits))?;
        self.charge(1, found.iter().map(|series| series.ts.len()).sum())?;
        Ok(found)
    }

    /// As [`Context::select`], with buckets where they are good.
    pub(crate) fn summaries(&self, matchers: &[Matcher], ask: &Ask) -> Result<Option<Summaries>, Error> {
        let found = self.within_bounds(|limits| self.source.summaries(matchers, ask, limits))?;
        let size = |series: &Summarized| series.ts.len() + series.buckets.len() * BUCKET_SAMPLES as usize;
        self.charge(1, found.iter().flat_map(|found| &found.series).map(size).sum())?;
        Ok(found)
    }

    /// Whether there are only buckets left of some samples.
    pub(crate) fn has_expired(&self, matchers: &[Matcher], t0: i64, t1: i64) -> bool {
        self.options.summaries && self.source.has_expired(matchers, t0, t1)
    }

    fn within_bounds<T>(&self, read: impl FnOnce(&SelectLimits) -> Result<T, SourceError>) -> Result<T, Error> {
        self.check()?;
        let left = self.options.max_samples.saturating_sub(self.used.get());
        let limits = SelectLimits { max_series: self.options.max_series, max_samples: left, deadline: self.options.deadline };
        let found = read(&limits).map_err(|error| match error {
            // People know the whole bound, not what was left of it.
            SourceError::Limit { what, key: key @ "query_max_samples", .. } => {
                SourceError::Limit { what, limit: self.options.max_samples, key }
            }
            other => other,
        })?;
        Ok(found)
    }

    /// Counts values that are about to be computed.
    pub(crate) fn charge(&self, series: usize, each: usize) -> Result<(), Error> {
        self.check()?;
        let used = self.used.get().saturating_add((series as u64).saturating_mul(each as u64));
        self.used.set(used);
        if used > self.options.max_samples {
            let limit = SourceError::Limit { what: "samples", limit: self.options.max_samples, key: "query_max_samples" };
            return Err(Error::Execution(limit.to_string()));
        }
        Ok(())
    }

    /// Whether the deadline has passed or nobody waits any more.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.options.check()
    }

    /// Evaluates a node at every step.
    pub(crate) fn eval(&self, expr: &Expr, grid: Grid) -> Result<Val, Error> {
        match expr {
            Expr::NumberLiteral(number) => Ok(Val::Scalar(vec![number.val; grid.len])),
            Expr::StringLiteral(text) => Ok(Val::Text(text.val.clone())),
            Expr::Paren(inner) => self.eval(&inner.expr, grid),
            Expr::Unary(inner) => self.negate(&inner.expr, grid),
            Expr::VectorSelector(selector) => select::instant(self, selector, grid, false).map(Val::Vector),
            Expr::Aggregate(node) => aggregate::aggregate(self, node, grid).map(Val::Vector),
            Expr::Binary(node) => binary::binary(self, node, grid),
            Expr::Call(call) => functions::call(self, call, grid),
            Expr::MatrixSelector(_) | Expr::Subquery(_) => {
                Err(Error::BadData(format!("`{expr}` is a range vector; a function such as rate() makes an instant vector of it")))
            }
            Expr::Extension(_) => Err(Error::BadData("an extension of the grammar is not supported".to_owned())),
        }
    }

    /// The columns of an instant vector.
    pub(crate) fn vector(&self, expr: &Expr, grid: Grid) -> Result<Vec<Column>, Error> {
        match self.eval(expr, grid)? {
            Val::Vector(columns) => Ok(columns),
            Val::Scalar(_) | Val::Text(_) => Err(Error::BadData(format!("expected an instant vector, not `{expr}`"))),
        }
    }

    /// A number at each step.
    pub(crate) fn scalar(&self, expr: &Expr, grid: Grid) -> Result<Vec<f64>, Error> {
        match self.eval(expr, grid)? {
            Val::Scalar(values) => Ok(values),
            Val::Vector(_) | Val::Text(_) => Err(Error::BadData(format!("expected a scalar, not `{expr}`"))),
        }
    }

    fn negate(&self, inner: &Expr, grid: Grid) -> Result<Val, Error> {
        Ok(match self.eval(inner, grid)? {
            Val::Scalar(values) => Val::Scalar(values.into_iter().map(|value| -value).collect()),
            Val::Vector(columns) => Val::Vector(map_values(columns, |_, value| -value)?),
            Val::Text(_) => return Err(Error::BadData(format!("`{inner}` is a text and cannot be negated"))),
        })
    }
}

/// Computes each value anew; the result is no longer the metric, so its name goes.
pub(crate) fn map_values(columns: Vec<Column>, f: impl Fn(usize, f64) -> f64) -> Result<Vec<Column>, Error> {
    let mapped = columns.into_iter().map(|mut column| {
        for (step, value) in column.values.iter_mut().enumerate() {
            if !is_absent(*value) {
                *value = f(step, *value);
            }
        }
        Column { labels: drop_name(&column.labels), values: column.values }
    });
    merge_same(mapped.collect())
}
