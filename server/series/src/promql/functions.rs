//! Functions by name. Types and numbers of arguments were checked by the grammar.

use super::{
    Error, annotations,
    eval::{Context, map_values},
    histogram, labels, math, order, over_time, rate,
    select::{self, Apply, Ranges, Window},
    statistics::{self, larger, smaller},
    summarized,
    time::{self, Field},
    values::{ABSENT, Column, Grid, Val, is_absent},
};
use promql_parser::{
    label::MatchOp,
    parser::{Call, Expr},
};
use shipwatch_common::model::Labels;
use std::{cell::Cell, collections::HashSet, sync::Arc};

fn calendar(name: &str) -> Option<Field> {
    Some(match name {
        "minute" => Field::Minute,
        "hour" => Field::Hour,
        "day_of_week" => Field::DayOfWeek,
        "day_of_month" => Field::DayOfMonth,
        "day_of_year" => Field::DayOfYear,
        "days_in_month" => Field::DaysInMonth,
        "month" => Field::Month,
        "year" => Field::Year,
        _ => return None,
    })
}

/// Whether [`call`] knows the function.
pub(crate) fn is_supported(name: &str) -> bool {
    const OTHERS: [&str; 31] = [
        "absent",
        "absent_over_time",
        "clamp",
        "clamp_max",
        "clamp_min",
        "double_exponential_smoothing",
        "end",
        "histogram_fraction",
        "histogram_quantile",
        "histogram_quantiles",
        "info",
        "label_join",
        "label_replace",
        "max_of",
        "min_of",
        "pi",
        "predict_linear",
        "quantile_over_time",
        "range",
        "round",
        "scalar",
        "sort",
        "sort_by_label",
        "sort_by_label_desc",
        "sort_desc",
        "start",
        "step",
        "time",
        "timestamp",
        "vector",
        "year",
    ];
    OTHERS.contains(&name) || math::named(name).is_some() || calendar(name).is_some() || over_time::named(name).is_some()
}

/// Evaluates a call at every step.
pub(crate) fn call(ctx: &Context<'_>, call: &Call, grid: Grid) -> Result<Val, Error> {
    let name = call.func.name;
    let args = Args { ctx, call, grid };
    if let Some(f) = math::named(name) {
        return map_values(args.vector(0)?, |_, value| f(value)).map(Val::Vector);
    }
    if let Some(field) = calendar(name) {
        return args.calendar(field);
    }
    if let Some(f) = over_time::named(name) {
        return args.over_time(f);
    }
    if let Some(numbers) = args.numbers(name)? {
        return Ok(Val::Scalar(numbers));
    }
    args.columns(name).map(Val::Vector)
}

/// The arguments of a call, evaluated when asked for.
struct Args<'a> {
    ctx: &'a Context<'a>,
    call: &'a Call,
    grid: Grid,
}

impl<'a> Args<'a> {
    fn get(&self, at: usize) -> Result<&'a Expr, Error> {
        let missing = || Error::BadData(format!("function `{}` needs at least {} arguments", self.call.func.name, at + 1));
        self.call.args.args.get(at).map(|arg| &**arg).ok_or_else(missing)
    }

    fn vector(&self, at: usize) -> Result<Vec<Column>, Error> {
        self.ctx.vector(self.get(at)?, self.grid)
    }

    fn scalar(&self, at: usize) -> Result<Vec<f64>, Error> {
        self.ctx.scalar(self.get(at)?, self.grid)
    }

    fn ranges(&self, at: usize) -> Result<Ranges, Error> {
        select::ranges(self.ctx, self.get(at)?, self.grid, summarized::named(self.call.func.name))
    }

    fn text(&self, at: usize) -> Result<String, Error> {
        match self.ctx.eval(self.get(at)?, self.grid)? {
            Val::Text(text) => Ok(text),
            Val::Scalar(_) | Val::Vector(_) => Err(Error::BadData(format!("expected a text in quotes, not `{}`", self.get(at)?))),
        }
    }

    /// All texts from one argument on.
    fn texts(&self, from: usize) -> Result<Vec<String>, Error> {
        (from..self.call.args.len()).map(|at| self.text(at)).collect()
    }

    /// Functions that return a scalar.
    fn numbers(&self, name: &str) -> Result<Option<Vec<f64>>, Error> {
        let grid = self.grid;
        let constant = |value: f64| Ok(Some(vec![value; grid.len]));
        let seconds = |ms: i64| ms as f64 / 1_000.0;
        match name {
            "time" => Ok(Some(grid.times().map(seconds).collect())),
            "pi" => constant(std::f64::consts::PI),
            "start" => constant(seconds(self.ctx.start)),
            "end" => constant(seconds(self.ctx.end)),
            "range" => constant(seconds(self.ctx.end - self.ctx.start)),
            "step" => constant(seconds(self.ctx.step)),
            "max_of" => Ok(Some(self.both(larger)?)),
            "min_of" => Ok(Some(self.both(smaller)?)),
            "scalar" => Ok(Some(only_value(&self.vector(0)?, grid))),
            _ => Ok(None),
        }
    }

    fn both(&self, f: fn(f64, f64) -> f64) -> Result<Vec<f64>, Error> {
        Ok(self.scalar(0)?.into_iter().zip(self.scalar(1)?).map(|(a, b)| f(a, b)).collect())
    }

    /// Functions that return an instant vector.
    fn columns(&self, name: &str) -> Result<Vec<Column>, Error> {
        let (ctx, grid) = (self.ctx, self.grid);
        match name {
            "vector" => Ok(vec![Column { labels: Arc::default(), values: self.scalar(0)? }]),
            "timestamp" => self.timestamp(),
            "absent" => Ok(vec![absent(self.get(0)?, &self.vector(0)?, grid)?]),
            "absent_over_time" => {
                let present = self.ranges(0)?.map(ctx, &|_, _| Some(1.0))?;
                Ok(vec![absent(self.get(0)?, &present, grid)?])
            }
            "round" => self.round(),
            "clamp" => self.clamp(Some(1), Some(2)),
            "clamp_min" => self.clamp(Some(1), None),
            "clamp_max" => self.clamp(None, Some(1)),
            "sort" | "sort_desc" => Ok(order::by_value(self.vector(0)?, grid, name == "sort_desc")),
            "sort_by_label" | "sort_by_label_desc" => {
                Ok(order::by_label(self.vector(0)?, grid, &self.texts(1)?, name == "sort_by_label_desc"))
            }
            "label_replace" => {
                let texts = [self.text(1)?, self.text(2)?, self.text(3)?, self.text(4)?];
                labels::label_replace(self.vector(0)?, std::array::from_fn(|at| texts[at].as_str()))
            }
            "label_join" => {
                let from = self.texts(3)?;
                let from: Vec<&str> = from.iter().map(String::as_str).collect();
                labels::label_join(self.vector(0)?, &self.text(1)?, &self.text(2)?, &from)
            }
            "info" => super::info::info(ctx, self.get(0)?, self.call.args.args.get(1).map(|arg| &**arg), grid),
            "histogram_quantile" => histogram::histogram_quantile(ctx, &self.scalar(0)?, &self.vector(1)?, grid),
            "histogram_quantiles" => {
                let quantiles = (2..self.call.args.len()).map(|at| self.scalar(at)).collect::<Result<Vec<_>, Error>>()?;
                histogram::histogram_quantiles(ctx, &self.vector(0)?, &self.text(1)?, &quantiles, grid)
            }
            "histogram_fraction" => histogram::histogram_fraction(ctx, &self.scalar(0)?, &self.scalar(1)?, &self.vector(2)?, grid),
            _ => self.of_range(name),
        }
    }

    /// Functions of a range and numbers.
    fn of_range(&self, name: &str) -> Result<Vec<Column>, Error> {
        match name {
            "predict_linear" => {
                let ahead = self.scalar(1)?;
                self.windows(0, false, &|step, window| rate::predict(window, self.grid.at(step), ahead[step]))
            }
            "quantile_over_time" => {
                let q = self.scalar(0)?;
                annotations::check_quantiles(self.ctx, &q, self.grid);
                self.windows(1, false, &|step, window| Some(statistics::quantile(q[step], &mut window.values.to_vec())))
            }
            "double_exponential_smoothing" => {
                let (smoothing, trend) = (self.scalar(1)?, self.scalar(2)?);
                // A wrong factor is an error where there is something to smooth.
                let wrong = Cell::new(None);
                let columns = self.windows(0, false, &|step, window| {
                    let (sf, tf) = (smoothing[step], trend[step]);
                    let is_wrong = |factor: f64| factor <= 0.0 || factor >= 1.0;
                    if is_wrong(sf) || is_wrong(tf) {
                        wrong.set(Some(if is_wrong(sf) {
                            ("smoothing factor. Expected: 0 < sf", sf)
                        } else {
                            ("trend factor. Expected: 0 < tf", tf)
                        }));
                        return None;
                    }
                    statistics::smoothed(window.values, sf, tf)
                })?;
                match wrong.get() {
                    Some((what, factor)) => Err(Error::Execution(format!("invalid {what} < 1, got: {factor:.6}"))),
                    None => Ok(columns),
                }
            }
            _ => Err(Error::BadData(format!("function `{name}` is not supported"))),
        }
    }

    fn over_time(&self, f: fn(&Window<'_>) -> Option<f64>) -> Result<Val, Error> {
        let name = self.call.func.name;
        self.windows(0, over_time::keeps_name(name), &|_, window| f(window)).map(Val::Vector)
    }

    /// Computes a value of each window. Series that only their names told apart may not meet.
    fn windows(&self, at: usize, keeps_name: bool, f: &Apply<'_>) -> Result<Vec<Column>, Error> {
        let mut columns = self.ranges(at)?.map(self.ctx, f)?;
        if matches!(self.call.func.name, "rate" | "increase") {
            columns.iter().for_each(|column| annotations::check_counter(self.ctx, column, self.grid));
        }
        if !keeps_name {
            // Types and units may tell series apart that are there at different steps.
            if columns.iter().any(|column| column.labels.get("__type__").or_else(|| column.labels.get("__unit__")).is_some()) {
                self.ctx.is_whole();
            }
            let mut known = HashSet::with_capacity(columns.len());
            for column in &mut columns {
                column.labels = labels::drop_name(&column.labels);
                if !known.insert(column.labels.clone()) {
                    let labels = labels::describe(&column.labels);
                    return Err(Error::Execution(format!("vector cannot contain metrics with the same labelset: {labels}")));
                }
            }
        }
        Ok(columns)
    }

    fn round(&self) -> Result<Vec<Column>, Error> {
        let to = if self.call.args.len() > 1 { self.scalar(1)? } else { vec![1.0; self.grid.len] };
        map_values(self.vector(0)?, |step, value| {
            let inverse = 1.0 / to[step];
            (value * inverse + 0.5).floor() / inverse
        })
    }

    fn calendar(&self, field: Field) -> Result<Val, Error> {
        if self.call.args.is_empty() {
            let values = self.grid.times().map(|ms| time::field(field, ms.div_euclid(1_000) as f64)).collect();
            return Ok(Val::Vector(vec![Column { labels: Arc::default(), values }]));
        }
        map_values(self.vector(0)?, |_, value| time::field(field, value)).map(Val::Vector)
    }

    /// Of a selector the samples' own times, of anything else the evaluation's.
    fn timestamp(&self) -> Result<Vec<Column>, Error> {
        let mut arg = self.get(0)?;
        while let Expr::Paren(inner) = arg {
            arg = &inner.expr;
        }
        let grid = self.grid;
        match arg {
            Expr::VectorSelector(selector) => map_values(select::instant(self.ctx, selector, grid, true)?, |_, value| value),
            _ => map_values(self.vector(0)?, |step, _| grid.at(step) as f64 / 1_000.0),
        }
    }

    fn clamp(&self, least: Option<usize>, most: Option<usize>) -> Result<Vec<Column>, Error> {
        let bound = |at: Option<usize>| at.map(|at| self.scalar(at)).transpose();
        let (least, most) = (bound(least)?, bound(most)?);
        map_values(self.vector(0)?, |step, value| match (&least, &most) {
            // An empty interval holds nothing.
            (Some(least), Some(most)) if most[step] < least[step] => ABSENT,
            _ => {
                let value = most.as_ref().map_or(value, |most| smaller(most[step], value));
                least.as_ref().map_or(value, |least| larger(least[step], value))
            }
        })
    }
}

/// `scalar()`: the value where there is exactly one, else NaN.
fn only_value(columns: &[Column], grid: Grid) -> Vec<f64> {
    let at_step = |step: usize| {
        let mut present = columns.iter().map(|column| column.values[step]).filter(|value| !is_absent(*value));
        match (present.next(), present.next()) {
            (Some(value), None) => value,
            _ => f64::NAN,
        }
    };
    (0..grid.len).map(at_step).collect()
}

/// 1 where no column has a value, with the labels that the selector fixes.
fn absent(arg: &Expr, columns: &[Column], grid: Grid) -> Result<Column, Error> {
    let missing = |step: usize| columns.iter().all(|column| is_absent(column.values[step]));
    let values = (0..grid.len).map(|step| if missing(step) { 1.0 } else { ABSENT }).collect();
    let mut arg = arg;
    while let Expr::Paren(inner) = arg {
        arg = &inner.expr;
    }
    let matchers = match arg {
        Expr::VectorSelector(selector) => &selector.matchers.matchers[..],
        Expr::MatrixSelector(selector) => &selector.vs.matchers.matchers[..],
        _ => &[],
    };
    // A later condition on the same label takes back what an earlier one fixed, but the first `=` after others counts.
    let mut fixed: Vec<(&str, &str)> = Vec::new();
    let mut had: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name != Labels::NAME) {
        let name = matcher.name.as_str();
        fixed.retain(|(known, _)| *known != name);
        if matcher.op == MatchOp::Equal && !had.contains(&name) {
            fixed.push((name, matcher.value.as_str()));
            had.push(name);
        }
    }
    let labels = Labels::new(fixed).map_err(|error| Error::BadData(format!("absent: {error}")))?;
    Ok(Column { labels: Arc::new(labels), values })
}
