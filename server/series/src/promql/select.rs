//! Selectors: from series of the source to columns (instant) and windows (range).
//!
//! # Invariants
//! - Each selector asks the source once, for the whole range of its steps.
//! - Stale markers end a series for an instant selector and are left out of ranges.

use super::{
    Error,
    eval::Context,
    parse::matchers,
    values::{ABSENT, Column, Grid, Val, is_absent},
};
use crate::{matcher::Matcher, source::SeriesData};
use promql_parser::parser::{AtModifier, Expr, MatrixSelector, Offset, SubqueryExpr, VectorSelector};
use shipwatch_common::model::metric::is_stale_marker;
use std::time::SystemTime;

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
    look_back(ctx, &matchers(selector)?, times, if of_time { Of::Times } else { Of::Values })
}

/// Times of the latest samples of series at each step.
pub(crate) fn times(ctx: &Context<'_>, matchers: &[Matcher], grid: Grid) -> Result<Vec<Column>, Error> {
    look_back(ctx, matchers, grid, Of::Times)
}

fn look_back(ctx: &Context<'_>, matchers: &[Matcher], times: Grid, of: Of) -> Result<Vec<Column>, Error> {
    let lookback = millis(ctx.options.lookback);
    let found = ctx.select(matchers, times.start - lookback + 1, times.end())?;
    ctx.charge(found.len(), times.len)?;
    let mut columns = Vec::with_capacity(found.len());
    for series in found {
        let mut next = 0;
        let at_step = |time: i64| {
            while series.ts.get(next).is_some_and(|ts| *ts <= time) {
                next += 1;
            }
            let Some(last) = next.checked_sub(1) else { return ABSENT };
            let (ts, value) = (series.ts[last], series.values[last]);
            if ts <= time - lookback || is_stale_marker(value) {
                ABSENT
            } else if of == Of::Times {
                ts as f64 / 1_000.0
            } else {
                value
            }
        };
        let values: Vec<f64> = times.times().map(at_step).collect();
        if values.iter().any(|value| !is_absent(*value)) {
            columns.push(Column { labels: series.labels, values });
        }
    }
    Ok(columns)
}

/// A range selector or a subquery.
pub(crate) fn ranges(ctx: &Context<'_>, expr: &Expr, grid: Grid) -> Result<Ranges, Error> {
    match expr {
        Expr::Paren(inner) => ranges(ctx, &inner.expr, grid),
        Expr::MatrixSelector(selector) => matrix(ctx, selector, grid),
        Expr::Subquery(subquery) => self::subquery(ctx, subquery, grid),
        _ => Err(Error::BadData(format!("expected a range vector, such as up[5m], not `{expr}`"))),
    }
}

fn matrix(ctx: &Context<'_>, selector: &MatrixSelector, grid: Grid) -> Result<Ranges, Error> {
    let times = reference(ctx, grid, selector.vs.at.as_ref(), selector.vs.offset.as_ref());
    let range = millis(selector.range);
    let mut series = ctx.select(&matchers(&selector.vs)?, times.start - range + 1, times.end())?;
    for one in &mut series {
        if one.values.iter().any(|value| is_stale_marker(*value)) {
            let kept = one.ts.iter().zip(&one.values).filter(|(_, value)| !is_stale_marker(**value));
            let (ts, values) = kept.map(|(ts, value)| (*ts, *value)).unzip();
            (one.ts, one.values) = (ts, values);
        }
    }
    series.retain(|one| !one.ts.is_empty());
    Ok(Ranges { series, ends: times.times().collect(), range })
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
        return Ok(Ranges { series: Vec::new(), ends, range });
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
    Ok(Ranges { series: series.filter(|one| !one.ts.is_empty()).collect(), ends, range })
}

impl Ranges {
    /// Computes a value for each window that has samples. `f` gets the number of the step.
    pub(crate) fn map(&self, ctx: &Context<'_>, f: &Apply<'_>) -> Result<Vec<Column>, Error> {
        ctx.charge(self.series.len(), self.ends.len())?;
        let mut columns = Vec::with_capacity(self.series.len());
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
        Ok(columns)
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
