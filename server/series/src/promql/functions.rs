//! Functions by name. Types and numbers of arguments were checked by the grammar.

use super::{
    Error,
    eval::{Context, map_values},
    histogram, labels, over_time, rate,
    select::{self, Ranges, Window},
    statistics::{self, larger, nan_first, smaller},
    time::{self, Field},
    values::{ABSENT, Column, Grid, Val, is_absent, merge_same},
};
use promql_parser::{
    label::MatchOp,
    parser::{Call, Expr},
};
use shipwatch_common::model::Labels;
use std::sync::Arc;

/// A function of one number.
fn math(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sgn" => |value| {
            if value > 0.0 {
                1.0
            } else if value < 0.0 {
                -1.0
            } else {
                value
            }
        },
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "deg" => f64::to_degrees,
        "rad" => f64::to_radians,
        _ => return None,
    })
}

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
    const OTHERS: [&str; 20] = [
        "absent",
        "absent_over_time",
        "clamp",
        "clamp_max",
        "clamp_min",
        "histogram_quantile",
        "label_join",
        "label_replace",
        "pi",
        "predict_linear",
        "quantile_over_time",
        "round",
        "scalar",
        "sort",
        "sort_desc",
        "time",
        "timestamp",
        "vector",
        "year",
        "rate",
    ];
    OTHERS.contains(&name) || math(name).is_some() || calendar(name).is_some() || over_time::named(name).is_some()
}

/// Evaluates a call at every step.
pub(crate) fn call(ctx: &Context<'_>, call: &Call, grid: Grid) -> Result<Val, Error> {
    let name = call.func.name;
    let args = Args { ctx, call, grid };
    if let Some(f) = math(name) {
        return map_values(args.vector(0)?, |_, value| f(value)).map(Val::Vector);
    }
    if let Some(field) = calendar(name) {
        return args.calendar(field);
    }
    if let Some(f) = over_time::named(name) {
        return windows(ctx, &args.ranges(0)?, over_time::keeps_name(name), &|_, window| f(window));
    }
    Ok(match name {
        "time" => Val::Scalar(grid.times().map(|ms| ms as f64 / 1_000.0).collect()),
        "pi" => Val::Scalar(vec![std::f64::consts::PI; grid.len]),
        "vector" => Val::Vector(vec![Column { labels: Arc::default(), values: args.scalar(0)? }]),
        "scalar" => Val::Scalar(only_value(&args.vector(0)?, grid)),
        "timestamp" => Val::Vector(args.timestamp()?),
        "absent" => Val::Vector(vec![absent(args.get(0)?, &args.vector(0)?, grid)?]),
        "absent_over_time" => {
            let present = args.ranges(0)?.map(ctx, &|_, _| Some(1.0))?;
            Val::Vector(vec![absent(args.get(0)?, &present, grid)?])
        }
        "round" => {
            let to = if call.args.len() > 1 { args.scalar(1)? } else { vec![1.0; grid.len] };
            Val::Vector(map_values(args.vector(0)?, |step, value| {
                let inverse = 1.0 / to[step];
                (value * inverse + 0.5).floor() / inverse
            })?)
        }
        "clamp" => args.clamp(Some(1), Some(2))?,
        "clamp_min" => args.clamp(Some(1), None)?,
        "clamp_max" => args.clamp(None, Some(1))?,
        "sort" => Val::Vector(sorted(args.vector(0)?, grid, false)),
        "sort_desc" => Val::Vector(sorted(args.vector(0)?, grid, true)),
        "label_replace" => {
            let texts = [args.text(1)?, args.text(2)?, args.text(3)?, args.text(4)?];
            Val::Vector(labels::label_replace(args.vector(0)?, std::array::from_fn(|at| texts[at].as_str()))?)
        }
        "label_join" => {
            let from = (3..call.args.len()).map(|at| args.text(at)).collect::<Result<Vec<String>, Error>>()?;
            let from: Vec<&str> = from.iter().map(String::as_str).collect();
            Val::Vector(labels::label_join(args.vector(0)?, &args.text(1)?, &args.text(2)?, &from)?)
        }
        "histogram_quantile" => Val::Vector(histogram::histogram_quantile(ctx, &args.scalar(0)?, &args.vector(1)?, grid)?),
        "predict_linear" => {
            let ahead = args.scalar(1)?;
            windows(ctx, &args.ranges(0)?, false, &|step, window| rate::predict(window, grid.at(step), ahead[step]))?
        }
        "quantile_over_time" => {
            let q = args.scalar(0)?;
            windows(ctx, &args.ranges(1)?, false, &|step, window| Some(statistics::quantile(q[step], &mut window.values.to_vec())))?
        }
        _ => return Err(Error::BadData(format!("function `{name}` is not supported"))),
    })
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
        select::ranges(self.ctx, self.get(at)?, self.grid)
    }

    fn text(&self, at: usize) -> Result<String, Error> {
        match self.ctx.eval(self.get(at)?, self.grid)? {
            Val::Text(text) => Ok(text),
            Val::Scalar(_) | Val::Vector(_) => Err(Error::BadData(format!("expected a text in quotes, not `{}`", self.get(at)?))),
        }
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

    fn clamp(&self, least: Option<usize>, most: Option<usize>) -> Result<Val, Error> {
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
        .map(Val::Vector)
    }
}

fn windows(ctx: &Context<'_>, ranges: &Ranges, keeps_name: bool, f: &dyn Fn(usize, &Window<'_>) -> Option<f64>) -> Result<Val, Error> {
    let mut columns = ranges.map(ctx, f)?;
    if !keeps_name {
        columns.iter_mut().for_each(|column| column.labels = labels::drop_name(&column.labels));
    }
    merge_same(columns).map(Val::Vector)
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
    let is_fixed = |name: &str| {
        let mut of_name = matchers.iter().filter(|matcher| matcher.name == name);
        matches!((of_name.next(), of_name.next()), (Some(only), None) if only.op == MatchOp::Equal)
    };
    let fixed = matchers.iter().filter(|matcher| matcher.name != Labels::NAME && is_fixed(&matcher.name));
    let pairs = fixed.map(|matcher| (matcher.name.as_str(), matcher.value.as_str()));
    let labels = Labels::new(pairs).map_err(|error| Error::BadData(format!("absent: {error}")))?;
    Ok(Column { labels: Arc::new(labels), values })
}

/// Order only means something at one step; NaN is last both ways.
fn sorted(mut columns: Vec<Column>, grid: Grid, descending: bool) -> Vec<Column> {
    if grid.len == 1 {
        columns.sort_by(|a, b| {
            let (a, b) = (a.values[0], b.values[0]);
            if descending || a.is_nan() || b.is_nan() { nan_first(b, a) } else { nan_first(a, b) }
        });
    }
    columns
}
