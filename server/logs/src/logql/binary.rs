//! Arithmetic, comparisons and sets between numbers and series.

use super::{
    ast::{Binary, BinaryOp, Matching},
    eval::{Series, Worth},
    label_set::LabelSet,
};
use crate::error::{Error, Result};
use std::collections::HashMap;

/// Two numbers. A comparison gives 1 or 0.
pub(crate) fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Subtract => a - b,
        BinaryOp::Multiply => a * b,
        BinaryOp::Divide => a / b,
        BinaryOp::Modulo => a % b,
        BinaryOp::Power => a.powf(b),
        BinaryOp::Compare(comparison) => f64::from(u8::from(comparison.holds(a, b))),
        BinaryOp::Or | BinaryOp::And | BinaryOp::Unless => f64::NAN,
    }
}

/// Applies an operator to two expressions.
pub(crate) fn apply(binary: &Binary, left: Worth, right: Worth, steps: usize) -> Result<Worth> {
    Ok(match (left, right) {
        (Worth::Number(a), Worth::Number(b)) => Worth::Number(arithmetic(binary.op, a, b)),
        (Worth::Series(series), Worth::Number(number)) => Worth::Series(with_number(binary, series, number, false)),
        (Worth::Number(number), Worth::Series(series)) => Worth::Series(with_number(binary, series, number, true)),
        (Worth::Series(left), Worth::Series(right)) if binary.op.is_set() => Worth::Series(sets(binary, left, &right, steps)),
        (Worth::Series(left), Worth::Series(right)) => Worth::Series(pairs(binary, left, right)?),
    })
}

/// The value of a pair: a comparison lets `kept` through or gives 1 and 0.
fn pair(binary: &Binary, a: f64, b: f64, kept: f64) -> Option<f64> {
    match binary.op {
        BinaryOp::Compare(comparison) if !binary.returns_bool => comparison.holds(a, b).then_some(kept),
        op => Some(arithmetic(op, a, b)),
    }
}

fn with_number(binary: &Binary, mut series: Vec<Series>, number: f64, number_first: bool) -> Vec<Series> {
    for one in &mut series {
        for slot in &mut one.values {
            *slot = slot.and_then(|value| {
                let (a, b) = if number_first { (number, value) } else { (value, number) };
                pair(binary, a, b, value)
            });
        }
    }
    series.retain(|one| one.values.iter().any(Option::is_some));
    series
}

/// The labels by which series of both sides find each other.
fn signature(labels: &LabelSet, matching: Option<&Matching>) -> LabelSet {
    match matching {
        None => labels.clone(),
        Some(matching) => labels.filtered(|name| matching.names.iter().any(|known| known == name) == matching.on),
    }
}

fn pairs(binary: &Binary, left: Vec<Series>, right: Vec<Series>) -> Result<Vec<Series>> {
    let matching = binary.matching.as_ref();
    let twice = |side: &str, labels: &LabelSet| {
        Error::Invalid(format!(
            "found duplicate series for the match group {labels} on the {side} hand-side of the operation; many-to-one matching is not supported"
        ))
    };
    let mut others: HashMap<LabelSet, Series> = HashMap::new();
    for series in right {
        let key = signature(&series.labels, matching);
        if let Some(before) = others.insert(key.clone(), series) {
            drop(before);
            return Err(twice("right", &key));
        }
    }
    let mut seen: HashMap<LabelSet, ()> = HashMap::new();
    let mut out = Vec::new();
    for mut series in left {
        let key = signature(&series.labels, matching);
        let Some(other) = others.get(&key) else { continue };
        if seen.insert(key.clone(), ()).is_some() {
            return Err(twice("left", &key));
        }
        for (slot, other) in series.values.iter_mut().zip(&other.values) {
            *slot = match (*slot, *other) {
                (Some(a), Some(b)) => pair(binary, a, b, a),
                _ => None,
            };
        }
        let filters = matches!(binary.op, BinaryOp::Compare(_)) && !binary.returns_bool;
        if !filters && matching.is_some() {
            series.labels = key;
        }
        if series.values.iter().any(Option::is_some) {
            out.push(series);
        }
    }
    Ok(out)
}

fn sets(binary: &Binary, left: Vec<Series>, right: &[Series], steps: usize) -> Vec<Series> {
    let matching = binary.matching.as_ref();
    // At which steps a group has a value at all.
    let present = |series: &[Series]| {
        let mut groups: HashMap<LabelSet, Vec<bool>> = HashMap::new();
        for one in series {
            let group = groups.entry(signature(&one.labels, matching)).or_insert_with(|| vec![false; steps]);
            group.iter_mut().zip(&one.values).for_each(|(has, value)| *has |= value.is_some());
        }
        groups
    };
    let filter = |series: &Series, groups: &HashMap<LabelSet, Vec<bool>>, wanted: bool| {
        let group = groups.get(&signature(&series.labels, matching));
        let has = |step: usize| group.and_then(|group| group.get(step)).copied().unwrap_or(false);
        let values = series.values.iter().enumerate().map(|(step, value)| value.filter(|_| has(step) == wanted)).collect();
        Series { labels: series.labels.clone(), values }
    };
    let mut out: Vec<Series> = match binary.op {
        BinaryOp::Or => {
            let known = present(&left);
            let more: Vec<Series> = right.iter().map(|series| filter(series, &known, false)).collect();
            merged(left.into_iter().chain(more))
        }
        op => {
            let known = present(right);
            left.iter().map(|series| filter(series, &known, op == BinaryOp::And)).collect()
        }
    };
    out.retain(|series| series.values.iter().any(Option::is_some));
    out
}

/// One series for each set of labels: `or` may take some steps from each side.
fn merged(series: impl Iterator<Item = Series>) -> Vec<Series> {
    let mut out: Vec<Series> = Vec::new();
    let mut known: HashMap<LabelSet, usize> = HashMap::new();
    for one in series {
        match known.get(&one.labels).and_then(|at| out.get_mut(*at)) {
            Some(first) => first.values.iter_mut().zip(one.values).for_each(|(slot, value)| *slot = slot.or(value)),
            None => {
                known.insert(one.labels.clone(), out.len());
                out.push(one);
            }
        }
    }
    out
}
