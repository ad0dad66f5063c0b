//! Many series into few, at each step.

use super::{
    ast::{Aggregate, AggregateOp, Grouping},
    eval::Series,
    label_set::LabelSet,
};
use std::collections::HashMap;

/// The labels that a grouping leaves.
pub(crate) fn group(labels: &LabelSet, grouping: Option<&Grouping>) -> LabelSet {
    match grouping {
        None => LabelSet::default(),
        Some(grouping) => labels.filtered(|name| grouping.names.iter().any(|known| known == name) != grouping.without),
    }
}

/// Applies an aggregation to whole series.
pub(crate) fn apply(aggregate: &Aggregate, series: Vec<Series>, steps: usize) -> Vec<Series> {
    let mut groups: Vec<(LabelSet, Vec<Series>)> = Vec::new();
    let mut known: HashMap<LabelSet, usize> = HashMap::new();
    for one in series {
        let labels = group(&one.labels, aggregate.grouping.as_ref());
        let at = *known.entry(labels.clone()).or_insert_with(|| {
            groups.push((labels, Vec::new()));
            groups.len() - 1
        });
        if let Some((_, members)) = groups.get_mut(at) {
            members.push(one);
        }
    }
    let mut out = Vec::new();
    for (labels, members) in groups {
        match aggregate.op {
            AggregateOp::Top(count) => out.extend(best(members, count, steps, true)),
            AggregateOp::Bottom(count) => out.extend(best(members, count, steps, false)),
            op => out.push(Series { labels, values: (0..steps).map(|step| reduce(op, at_step(&members, step))).collect() }),
        }
    }
    if steps == 1
        && let AggregateOp::Top(_) | AggregateOp::Bottom(_) = aggregate.op
    {
        sort(&mut out, matches!(aggregate.op, AggregateOp::Top(_)));
    }
    out
}

fn at_step(members: &[Series], step: usize) -> impl Iterator<Item = f64> {
    members.iter().filter_map(move |series| series.values.get(step).copied().flatten())
}

fn reduce(op: AggregateOp, values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut n, mut sum, mut low, mut high) = (0.0, 0.0, f64::NAN, f64::NAN);
    let (mut mean, mut squares) = (0.0, 0.0);
    for value in values {
        n += 1.0;
        sum += value;
        low = if value < low || low.is_nan() { value } else { low };
        high = if value > high || high.is_nan() { value } else { high };
        let away = value - mean;
        mean += away / n;
        squares += away * (value - mean);
    }
    (n > 0.0).then_some(match op {
        AggregateOp::Sum => sum,
        AggregateOp::Avg => mean,
        AggregateOp::Min => low,
        AggregateOp::Max => high,
        AggregateOp::StdVar => squares / n,
        AggregateOp::StdDev => f64::sqrt(squares / n),
        AggregateOp::Count | AggregateOp::Top(_) | AggregateOp::Bottom(_) => n,
    })
}

/// Of each step, the `count` largest or smallest; what is not a number comes last.
fn best(mut members: Vec<Series>, count: usize, steps: usize, largest: bool) -> Vec<Series> {
    // Of equal values, the same ones are taken each time.
    members.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
    let mut kept: Vec<Vec<Option<f64>>> = vec![vec![None; steps]; members.len()];
    for step in 0..steps {
        let mut ranked: Vec<(usize, f64)> =
            members.iter().enumerate().filter_map(|(at, series)| Some((at, series.values.get(step).copied().flatten()?))).collect();
        ranked.sort_by(|a, b| compare(a.1, b.1, largest));
        for (at, value) in ranked.into_iter().take(count) {
            if let Some(slot) = kept.get_mut(at).and_then(|values| values.get_mut(step)) {
                *slot = Some(value);
            }
        }
    }
    let kept = members.into_iter().zip(kept).map(|(series, values)| Series { labels: series.labels, values });
    kept.filter(|series| series.values.iter().any(Option::is_some)).collect()
}

fn compare(a: f64, b: f64, descending: bool) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) if descending => b.total_cmp(&a),
        (false, false) => a.total_cmp(&b),
        (a, b) => a.cmp(&b),
    }
}

/// By the value at the first step.
pub(crate) fn sort(series: &mut [Series], descending: bool) {
    let value = |series: &Series| series.values.first().copied().flatten().unwrap_or(f64::NAN);
    series.sort_by(|a, b| compare(value(a), value(b), descending).then_with(|| a.labels.cmp(&b.labels)));
}
