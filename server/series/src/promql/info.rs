//! `info(v, {…})`: adds the labels of info metrics, such as `target_info`, to the series of the same job and instance.
//!
//! Of info series that contradict each other at a step the one with the latest sample counts.

use super::{
    Error,
    eval::Context,
    labels::{describe, keep, set},
    parse::matchers,
    select,
    values::{ABSENT, Column, Grid, is_absent, merge_same},
};
use crate::matcher::{MatchOp, Matcher};
use promql_parser::parser::{Expr, VectorSelector};
use shipwatch_common::model::Labels;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// What joins a series with its info series.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// The info metric that is meant when none is named.
const DEFAULT_METRIC: &str = "target_info";

/// What was asked for.
struct Wanted {
    /// Which info metrics.
    names: Vec<Matcher>,
    /// Series of these metrics stay as they are.
    untouched: Vec<Matcher>,
    /// Which labels; none means all.
    labels: Vec<Matcher>,
}

impl Wanted {
    fn of(selector: Option<&Expr>) -> Result<Self, Error> {
        let all = match selector {
            None => Vec::new(),
            Some(Expr::VectorSelector(selector)) => label_matchers(selector)?,
            Some(other) => return Err(Error::BadData(format!("info() needs label selectors such as {{a=\"b\"}}, not `{other}`"))),
        };
        let (mut names, labels): (Vec<Matcher>, Vec<Matcher>) = all.into_iter().partition(|matcher| matcher.name() == Labels::NAME);
        let is_named = !names.is_empty();
        if !is_named {
            names.push(Matcher::equal(Labels::NAME, DEFAULT_METRIC));
        }
        // Only what names info metrics can say that a series is one.
        let names_some = names.iter().any(|matcher| matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex));
        let untouched = if names_some && (is_named || selector.is_none()) { names.clone() } else { Vec::new() };
        Ok(Self { names, untouched, labels })
    }

    fn leaves(&self, labels: &Labels) -> bool {
        !self.untouched.is_empty() && self.untouched.iter().all(|matcher| matcher.matches(labels.metric_name()))
    }

    fn takes(&self, label: &str) -> bool {
        label != Labels::NAME && (self.labels.is_empty() || self.labels.iter().any(|matcher| matcher.name() == label))
    }

    /// Whether a series without an info series stays.
    fn is_optional(&self) -> bool {
        self.labels.iter().all(|matcher| matcher.matches(""))
    }
}

fn label_matchers(selector: &VectorSelector) -> Result<Vec<Matcher>, Error> {
    if selector.name.is_some() || selector.offset.is_some() || selector.at.is_some() {
        return Err(Error::BadData(format!("expected label selectors only, got vector selector instead: `{selector}`")));
    }
    matchers(selector)
}

/// Info series of one metric for one job and instance: positions of values and of times.
type Candidates = HashMap<Labels, Vec<usize>>;

pub(crate) fn info(ctx: &Context<'_>, arg: &Expr, selector: Option<&Expr>, grid: Grid) -> Result<Vec<Column>, Error> {
    let wanted = Wanted::of(selector)?;
    let base = ctx.vector(arg, grid)?;
    let (kept, base): (Vec<Column>, Vec<Column>) = base.into_iter().partition(|column| wanted.leaves(&column.labels));
    let times = info_series(ctx, &base, &wanted, grid)?;
    let mut by_metric: Vec<(String, Candidates)> = Vec::new();
    for (at, column) in times.iter().enumerate() {
        let name = column.labels.metric_name();
        let of_metric = match by_metric.iter().position(|(known, _)| known == name) {
            Some(of_metric) => of_metric,
            None => {
                by_metric.push((name.to_owned(), HashMap::new()));
                by_metric.len() - 1
            }
        };
        by_metric[of_metric].1.entry(identity(&column.labels)).or_default().push(at);
    }
    let mut out = kept;
    for column in base {
        ctx.check()?;
        enrich(ctx, column, &by_metric, &times, &wanted, grid, &mut out)?;
    }
    merge_same(out)
}

fn identity(labels: &Labels) -> Labels {
    keep(labels, &IDENTIFYING.map(str::to_owned))
}

/// Info series as columns of the times of their samples.
fn info_series(ctx: &Context<'_>, base: &[Column], wanted: &Wanted, grid: Grid) -> Result<Vec<Column>, Error> {
    let mut all = wanted.names.clone();
    all.extend(wanted.labels.iter().cloned());
    let mut is_identified = false;
    for name in IDENTIFYING {
        let values: BTreeSet<&str> = base.iter().filter_map(|column| column.labels.get(name)).collect();
        if !values.is_empty() {
            is_identified = true;
            let quoted: Vec<String> = values.into_iter().map(regex::escape).collect();
            all.push(Matcher::new(MatchOp::Regex, name, quoted.join("|"))?);
        }
    }
    if !is_identified {
        return Ok(Vec::new());
    }
    select::times(ctx, &all, grid)
}

/// One series with the labels that its info series have at each step.
fn enrich(
    ctx: &Context<'_>,
    column: Column,
    by_metric: &[(String, Candidates)],
    times: &[Column],
    wanted: &Wanted,
    grid: Grid,
    out: &mut Vec<Column>,
) -> Result<(), Error> {
    let identity = identity(&column.labels);
    let candidates: Vec<&Vec<usize>> = by_metric.iter().filter_map(|(_, candidates)| candidates.get(&identity)).collect();
    let mut made: Vec<(Vec<usize>, usize)> = Vec::new();
    for (step, value) in column.values.iter().enumerate() {
        if is_absent(*value) {
            continue;
        }
        let mut chosen = Vec::with_capacity(candidates.len());
        for candidates in &candidates {
            chosen.extend(latest(candidates, times, step)?);
        }
        if chosen.is_empty() && !wanted.is_optional() {
            continue;
        }
        let at = match made.iter().find(|(of, _)| *of == chosen) {
            Some((_, at)) => *at,
            None => {
                ctx.charge(1, grid.len)?;
                let labels = enriched(&column.labels, &chosen, times, wanted)?;
                out.push(Column { labels, values: vec![ABSENT; grid.len] });
                made.push((chosen, out.len() - 1));
                out.len() - 1
            }
        };
        out[at].values[step] = *value;
    }
    Ok(())
}

/// The info series with the latest sample at a step.
fn latest(candidates: &[usize], times: &[Column], step: usize) -> Result<Option<usize>, Error> {
    let mut best: Option<usize> = None;
    for at in candidates.iter().copied().filter(|at| !is_absent(times[*at].values[step])) {
        let Some(other) = best else {
            best = Some(at);
            continue;
        };
        let (time, known) = (times[at].values[step], times[other].values[step]);
        if time == known {
            let (known, new) = (describe(&times[other].labels), describe(&times[at].labels));
            return Err(Error::Execution(format!("found duplicate series for info metric: existing {known}, new {new}")));
        }
        if time > known {
            best = Some(at);
        }
    }
    Ok(best)
}

fn enriched(base: &Arc<Labels>, chosen: &[usize], times: &[Column], wanted: &Wanted) -> Result<Arc<Labels>, Error> {
    let mut added: Vec<(&str, &str)> = Vec::new();
    for (name, value) in chosen.iter().flat_map(|at| times[*at].labels.iter()).filter(|(name, _)| wanted.takes(name)) {
        match added.iter().find(|(known, _)| *known == name) {
            Some((_, known)) if *known != value => return Err(Error::Execution(format!("conflicting label: {name}"))),
            Some(_) => {}
            None if base.get(name).is_some() => {}
            None => added.push((name, value)),
        }
    }
    set(base, added)
}
