//! Selectors: from series of the source to columns (instant) and windows (range).
//!
//! # Invariants
//! - Each selector asks the source once, for the whole range of its steps.
//! - Stale markers end a series for an instant selector and are left out of ranges.

use super::{
    Error, annotations,
    eval::Context,
    parse::matchers,
    summarized::{self, Buckets, Reduce, Windows},
    values::{ABSENT, Column, Grid, Val, is_absent},
};
use crate::{
    matcher::Matcher,
    source::{Ask, SeriesData, Summaries, Summarized},
    summary::Columns,
};
use promql_parser::parser::{AtModifier, Expr, MatrixSelector, Offset, SubqueryExpr, VectorSelector};
use shipwatch_common::model::{Labels, metric::is_stale_marker};
use std::{sync::Arc, time::SystemTime};

/// Samples of one series in `(start, end]`; at least one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    pub(crate) ts: &'a [i64],
    pub(crate) values: &'a [f64],
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// What is computed of a window; it gets the number of the step.
pub(crate) type Apply<'f> = dyn Fn(usize, &Window<'_>) -> Option<f64> + 'f;

/// A range vector at every step.
#[derive(Debug)]
pub(crate) struct Ranges {
    pub(crate) series: Vec<SeriesData>,
    /// Series that are read as buckets, and how.
    summarized: Vec<Buckets>,
    reduce: Option<Reduce>,
    /// Width of buckets that borders of windows lie in; 0 where they never do.
    slack: i64,
    /// End of the window at each step; never goes back.
    pub(crate) ends: Vec<i64>,
    pub(crate) range: i64,
}

pub(crate) fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}

/// The times that a selector looks at: the steps, moved by `@` and `offset`.
fn reference(ctx: &Context<'_>, grid: Grid, at: Option<&AtModifier>, offset: Option<&Offset>) -> Grid {
    let by = match offset {
        None => 0,
        Some(Offset::Pos(by)) => millis(*by),
        Some(Offset::Neg(by)) => -millis(*by),
    };
    let fixed = |start: i64| Grid { start: start - by, step: 0, len: grid.len };
    match at {
        None => Grid { start: grid.start - by, ..grid },
        Some(AtModifier::Start) => fixed(ctx.start),
        Some(AtModifier::End) => fixed(ctx.end),
        Some(AtModifier::At(time)) => fixed(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => -millis(before.duration()),
        }),
    }
}

/// What a column of an instant selector holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Of {
    Values,
    /// Times of the samples in seconds.
    Times,
}

/// An instant selector. With `of_time` the values are the samples' times in seconds (`timestamp()`).
pub(crate) fn instant(ctx: &Context<'_>, selector: &VectorSelector, grid: Grid, of_time: bool) -> Result<Vec<Column>, Error> {
    let times = reference(ctx, grid, selector.at.as_ref(), selector.offset.as_ref());
    look_back(ctx, &matchers(selector)?, grid, times, if of_time { Of::Times } else { Of::Values })
}

/// Times of the latest samples of series at each step.
pub(crate) fn times(ctx: &Context<'_>, matchers: &[Matcher], grid: Grid) -> Result<Vec<Column>, Error> {
    look_back(ctx, matchers, grid, grid, Of::Times)
}

/// `times` are those of the steps of `grid`, moved by the selector's modifiers.
fn look_back(ctx: &Context<'_>, matchers: &[Matcher], grid: Grid, times: Grid, of: Of) -> Result<Vec<Column>, Error> {
    let lookback = millis(ctx.options.lookback);
    if let Some(columns) = look_back_on_summaries(ctx, matchers, grid, times, of)? {
        return Ok(columns);
    }
    let found = ctx.select(matchers, times.start - lookback + 1, times.end())?;
    ctx.charge(found.len(), times.len)?;
    let of_series = |series: SeriesData| {
        let mut next = 0;
        column(series.labels, times, |time| {
            while series.ts.get(next).is_some_and(|ts| *ts <= time) {
                next += 1;
            }
            let Some(last) = next.checked_sub(1) else { return ABSENT };
            let (ts, value) = (series.ts[last], series.values[last]);
            if ts <= time - lookback || is_stale_marker(value) { ABSENT } else { of.show(ts, value) }
        })
    };
    Ok(found.into_iter().filter_map(of_series).collect())
}

/// A series that has a value somewhere.
fn column(labels: Arc<Labels>, times: Grid, at_step: impl FnMut(i64) -> f64) -> Option<Column> {
    let values: Vec<f64> = times.times().map(at_step).collect();
    values.iter().any(|value| !is_absent(*value)).then_some(Column { labels, values })
}

impl Of {
    fn show(self, ts: i64, value: f64) -> f64 {
        if self == Self::Times { ts as f64 / 1_000.0 } else { value }
    }
}

/// The same from buckets, where there are any to be used.
fn look_back_on_summaries(ctx: &Context<'_>, matchers: &[Matcher], grid: Grid, times: Grid, of: Of) -> Result<Option<Vec<Column>>, Error> {
    let lookback = millis(ctx.options.lookback);
    // Of any bucket that ends at a step the last sample is known, and its time: whether it is in the lookback can be told.
    let (width, columns) = (summarized::width_for(times, 0), Columns::LAST.and(Columns::TIMES));
    let ask = Ask { after: times.start - lookback, until: times.end(), width, columns };
    let Some(found) = summarized::find(ctx, matchers, &ask, Columns::FIRST)? else { return Ok(None) };
    summarized::tell(ctx, &found, grid);
    if let Some(width) = width.filter(|_| !found.approximate) {
        ctx.charge(found.series.len(), times.len)?;
        let columns = found.series.into_iter().filter_map(|series| newest(series, width, times, lookback, of));
        return Ok(Some(columns.collect()));
    }
    ctx.charge(found.series.len(), times.len)?;
    let of_series = |series: &Summarized| {
        let samples = summarized::held(series, lookback, found.width);
        let mut next = 0;
        column(series.labels.clone(), times, |time| {
            while samples.get(next).is_some_and(|sample| sample.ts <= time) {
                next += 1;
            }
            let last = next.checked_sub(1).map(|last| samples[last]);
            last.filter(|last| last.until > time && !is_stale_marker(last.value)).map_or(ABSENT, |last| of.show(last.ts, last.value))
        })
    };
    Ok(Some(found.series.iter().filter_map(of_series).collect()))
}

/// The last value of the newest bucket, if it is in the lookback. Steps are borders of buckets.
fn newest(series: Summarized, width: i64, times: Grid, lookback: i64, of: Of) -> Option<Column> {
    let Buckets { labels, buckets } = summarized::as_buckets(series, Some(width));
    let mut next = 0;
    column(labels, times, |time| {
        while buckets.get(next).is_some_and(|bucket| bucket.end <= time) {
            next += 1;
        }
        let last = next.checked_sub(1).map(|last| &buckets[last]);
        last.filter(|last| last.last_ts > time - lookback && !last.ended).map_or(ABSENT, |last| of.show(last.last_ts, last.last))
    })
}

/// A range selector or a subquery. `reduce` is what is computed of it, if buckets are enough for that.
pub(crate) fn ranges(ctx: &Context<'_>, expr: &Expr, grid: Grid, reduce: Option<Reduce>) -> Result<Ranges, Error> {
    match expr {
        Expr::Paren(inner) => ranges(ctx, &inner.expr, grid, reduce),
        Expr::MatrixSelector(selector) => matrix(ctx, selector, grid, reduce),
        Expr::Subquery(subquery) => self::subquery(ctx, subquery, grid),
        _ => Err(Error::BadData(format!("expected a range vector, such as up[5m], not `{expr}`"))),
    }
}

fn matrix(ctx: &Context<'_>, selector: &MatrixSelector, grid: Grid, reduce: Option<Reduce>) -> Result<Ranges, Error> {
    let times = reference(ctx, grid, selector.vs.at.as_ref(), selector.vs.offset.as_ref());
    let range = millis(selector.range);
    let (matchers, after, until) = (matchers(&selector.vs)?, times.start - range, times.end());
    let ranges = Ranges { series: Vec::new(), summarized: Vec::new(), reduce, slack: 0, ends: times.times().collect(), range };
    if let Some(reduce) = reduce {
        let ask = Ask { after, until, width: summarized::width_for(times, range), columns: reduce.columns };
        if let Some(found) = summarized::find(ctx, &matchers, &ask, Columns::NONE)? {
            summarized::tell(ctx, &found, grid);
            return Ok(ranges.with_summaries(found, ask.width));
        }
    } else if ctx.has_expired(&matchers, after + 1, until) {
        annotations::left_out(ctx, grid);
    }
    Ok(ranges.with_series(ctx.select(&matchers, after + 1, until)?))
}

/// Evaluates the inner query at multiples of its step in all windows at once.
fn subquery(ctx: &Context<'_>, node: &SubqueryExpr, grid: Grid) -> Result<Ranges, Error> {
    let times = reference(ctx, grid, node.at.as_ref(), node.offset.as_ref());
    let range = millis(node.range);
    let step = millis(node.step.unwrap_or(ctx.options.subquery_step)).max(1);
    // The first multiple of the step after the open start of the first window.
    let first = (times.start - range).div_euclid(step) * step + step;
    let ends = times.times().collect();
    if first > times.end() {
        return Ok(Ranges::of_series(Vec::new(), ends, range));
    }
    let len = usize::try_from((times.end() - first) / step + 1).unwrap_or(usize::MAX);
    ctx.charge(1, len)?;
    let inner = Grid { start: first, step, len };
    let columns = match ctx.eval(&node.expr, inner)? {
        Val::Vector(columns) => columns,
        Val::Scalar(_) | Val::Text(_) => return Err(Error::BadData(format!("a subquery needs an instant vector, not `{}`", node.expr))),
    };
    let series = columns.into_iter().map(|column| {
        let present = column.values.iter().enumerate().filter(|(_, value)| !is_absent(**value));
        let (ts, values) = present.map(|(step, value)| (inner.at(step), *value)).unzip();
        SeriesData { labels: column.labels, ts, values }
    });
    Ok(Ranges::of_series(series.filter(|one| !one.ts.is_empty()).collect(), ends, range))
}

impl Ranges {
    const fn of_series(series: Vec<SeriesData>, ends: Vec<i64>, range: i64) -> Self {
        Self { series, summarized: Vec::new(), reduce: None, slack: 0, ends, range }
    }

    /// Takes samples, without stale markers.
    fn with_series(mut self, mut series: Vec<SeriesData>) -> Self {
        for one in &mut series {
            if one.values.iter().any(|value| is_stale_marker(*value)) {
                let kept = one.ts.iter().zip(&one.values).filter(|(_, value)| !is_stale_marker(**value));
                let (ts, values) = kept.map(|(ts, value)| (*ts, *value)).unzip();
                (one.ts, one.values) = (ts, values);
            }
        }
        series.retain(|one| !one.ts.is_empty());
        self.series = series;
        self
    }

    /// Takes buckets. Where not all borders fit them, series that have none stay samples.
    fn with_summaries(mut self, found: Summaries, width: Option<i64>) -> Self {
        let is_exact = width.is_some() && !found.approximate;
        self.slack = if is_exact { 0 } else { found.width };
        let (buckets, samples): (Vec<_>, Vec<_>) = found.series.into_iter().partition(|one| is_exact || !one.buckets.is_empty());
        self.summarized = buckets.into_iter().map(|one| summarized::as_buckets(one, width.filter(|_| is_exact))).collect();
        let samples = samples.into_iter().map(|Summarized { labels, ts, values, .. }| SeriesData { labels, ts, values });
        self.with_series(samples.collect())
    }

    /// Computes a value for each window that has samples. `f` gets the number of the step.
    pub(crate) fn map(&self, ctx: &Context<'_>, f: &Apply<'_>) -> Result<Vec<Column>, Error> {
        ctx.charge(self.series.len() + self.summarized.len(), self.ends.len())?;
        let mut columns = Vec::with_capacity(self.series.len() + self.summarized.len());
        if let Some(reduce) = self.reduce.filter(|_| !self.summarized.is_empty()) {
            self.reduce(ctx, &reduce, &mut columns)?;
        }
        let are_mixed = !columns.is_empty() && !self.series.is_empty();
        for series in &self.series {
            ctx.check()?;
            let (mut from, mut to) = (0, 0);
            let mut work = 0;
            let mut values = Vec::with_capacity(self.ends.len());
            for (step, end) in self.ends.iter().enumerate() {
                let start = end - self.range;
                while series.ts.get(to).is_some_and(|ts| ts <= end) {
                    to += 1;
                }
                while from < to && series.ts[from] <= start {
                    from += 1;
                }
                let value = if from == to {
                    None
                } else {
                    f(step, &Window { ts: &series.ts[from..to], values: &series.values[from..to], start, end: *end })
                };
                values.push(value.unwrap_or(ABSENT));
                work += to - from;
                if work > 1 << 20 {
                    ctx.check()?;
                    work = 0;
                }
            }
            if values.iter().any(|value| !is_absent(*value)) {
                columns.push(Column { labels: series.labels.clone(), values });
            }
        }
        if are_mixed {
            columns.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        Ok(columns)
    }

    fn reduce(&self, ctx: &Context<'_>, reduce: &Reduce, columns: &mut Vec<Column>) -> Result<(), Error> {
        for series in &self.summarized {
            ctx.check()?;
            let mut windows = Windows::new(&series.buckets, self.slack);
            let value = |end: &i64| windows.reduce(reduce, end - self.range, *end).unwrap_or(ABSENT);
            let values: Vec<f64> = self.ends.iter().map(value).collect();
            if values.iter().any(|value| !is_absent(*value)) {
                columns.push(Column { labels: series.labels.clone(), values });
            }
        }
        Ok(())
    }

    /// The samples of the only step: what an instant query of a range vector answers.
    pub(crate) fn into_series(mut self) -> Vec<SeriesData> {
        let end = self.ends.first().copied().unwrap_or(0);
        for series in &mut self.series {
            let from = series.ts.partition_point(|ts| *ts <= end - self.range);
            let to = series.ts.partition_point(|ts| *ts <= end);
            series.ts = series.ts[from..to].to_vec();
            series.values = series.values[from..to].to_vec();
        }
        self.series.retain(|series| !series.ts.is_empty());
        self.series
    }
}
