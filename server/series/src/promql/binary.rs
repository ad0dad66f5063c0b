//! Operators between two operands: arithmetic, comparison and sets, and the matching of vectors by labels.
//!
//! # Invariants
//! - Labels are matched once per series; at each step only the series that have a value there take part.
//! - A comparison without `bool` filters and keeps the value of the left side, or of the vector when the other is a scalar.

mod matching;

use super::{
    Error,
    eval::Context,
    labels::{drop_name, keep, without},
    values::{ABSENT, Column, Grid, Val, is_absent, merge_same},
};
use promql_parser::parser::{
    BinModifier, BinaryExpr, LabelModifier,
    token::{self, TokenId},
};
use shipwatch_common::model::Labels;
use std::collections::HashMap;

/// An operator that computes from two numbers.
#[derive(Clone, Copy, Debug)]
enum Op {
    Compute(fn(f64, f64) -> f64),
    Compare(fn(f64, f64) -> bool),
}

impl Op {
    fn of(id: TokenId) -> Option<Self> {
        Some(match id {
            token::T_ADD => Self::Compute(|a, b| a + b),
            token::T_SUB => Self::Compute(|a, b| a - b),
            token::T_MUL => Self::Compute(|a, b| a * b),
            token::T_DIV => Self::Compute(|a, b| a / b),
            token::T_MOD => Self::Compute(|a, b| a % b),
            token::T_POW => Self::Compute(f64::powf),
            token::T_ATAN2 => Self::Compute(f64::atan2),
            token::T_EQLC => Self::Compare(|a, b| a == b),
            token::T_NEQ => Self::Compare(|a, b| a != b),
            token::T_GTR => Self::Compare(|a, b| a > b),
            token::T_LSS => Self::Compare(|a, b| a < b),
            token::T_GTE => Self::Compare(|a, b| a >= b),
            token::T_LTE => Self::Compare(|a, b| a <= b),
            _ => return None,
        })
    }

    /// The result, [`ABSENT`] when filtered out; `kept` is the value that a filter keeps.
    fn apply(self, left: f64, right: f64, kept: f64, as_bool: bool) -> f64 {
        match self {
            Self::Compute(f) => f(left, right),
            Self::Compare(f) if as_bool => f64::from(u8::from(f(left, right))),
            Self::Compare(f) => {
                if f(left, right) {
                    kept
                } else {
                    ABSENT
                }
            }
        }
    }

    const fn drops_name(self, as_bool: bool) -> bool {
        as_bool || matches!(self, Self::Compute(_))
    }
}

pub(crate) fn binary(ctx: &Context<'_>, node: &BinaryExpr, grid: Grid) -> Result<Val, Error> {
    let (left, right) = (ctx.eval(&node.lhs, grid)?, ctx.eval(&node.rhs, grid)?);
    let standard = BinModifier::default();
    let modifier = node.modifier.as_ref().unwrap_or(&standard);
    let as_bool = modifier.return_bool;
    let unknown = || Error::BadData(format!("operator `{}` is not supported between `{}` and `{}`", node.op, node.lhs, node.rhs));
    match (left, right) {
        (Val::Vector(left), Val::Vector(right)) => {
            ctx.charge(left.len().max(right.len()), grid.len)?;
            let matched = match node.op.id() {
                token::T_LAND => and(left, &right, modifier, true),
                token::T_LUNLESS => and(left, &right, modifier, false),
                token::T_LOR => or(left, right, modifier)?,
                id => matching::run(ctx, Op::of(id).ok_or_else(unknown)?, modifier, grid, &left, &right)?,
            };
            Ok(Val::Vector(matched))
        }
        (Val::Scalar(left), Val::Scalar(right)) => {
            let op = Op::of(node.op.id()).ok_or_else(unknown)?;
            Ok(Val::Scalar(left.into_iter().zip(right).map(|(left, right)| op.apply(left, right, left, true)).collect()))
        }
        (Val::Vector(columns), Val::Scalar(number)) => {
            let op = Op::of(node.op.id()).ok_or_else(unknown)?;
            with_scalar(columns, op, as_bool, |step, value| op.apply(value, number[step], value, as_bool))
        }
        (Val::Scalar(number), Val::Vector(columns)) => {
            let op = Op::of(node.op.id()).ok_or_else(unknown)?;
            with_scalar(columns, op, as_bool, |step, value| op.apply(number[step], value, value, as_bool))
        }
        (Val::Text(_), _) | (_, Val::Text(_)) => Err(unknown()),
    }
}

fn with_scalar(columns: Vec<Column>, op: Op, as_bool: bool, f: impl Fn(usize, f64) -> f64) -> Result<Val, Error> {
    let mut computed = Vec::with_capacity(columns.len());
    for mut column in columns {
        for (step, value) in column.values.iter_mut().enumerate() {
            if !is_absent(*value) {
                *value = f(step, *value);
            }
        }
        if op.drops_name(as_bool) {
            column.labels = drop_name(&column.labels);
        }
        if column.values.iter().any(|value| !is_absent(*value)) {
            computed.push(column);
        }
    }
    merge_same(computed).map(Val::Vector)
}

/// The labels that decide which series belong together.
fn signature(labels: &Labels, modifier: &BinModifier) -> Labels {
    match &modifier.matching {
        Some(LabelModifier::Include(names)) => keep(labels, &names.labels),
        Some(LabelModifier::Exclude(names)) => without(labels, &names.labels),
        None => without(labels, &[]),
    }
}

/// Where a group of series has any value.
fn presence(columns: &[Column], modifier: &BinModifier) -> HashMap<Labels, Vec<bool>> {
    let mut present: HashMap<Labels, Vec<bool>> = HashMap::new();
    for column in columns {
        let steps = present.entry(signature(&column.labels, modifier)).or_insert_with(|| vec![false; column.values.len()]);
        for (step, value) in steps.iter_mut().zip(&column.values) {
            *step |= !is_absent(*value);
        }
    }
    present
}

/// `and` keeps the left side where the right side has a match; `unless` keeps it where it has none.
fn and(left: Vec<Column>, right: &[Column], modifier: &BinModifier, wanted: bool) -> Vec<Column> {
    let present = presence(right, modifier);
    let kept = left.into_iter().map(|mut column| {
        let steps = present.get(&signature(&column.labels, modifier));
        for (step, value) in column.values.iter_mut().enumerate() {
            if steps.is_some_and(|steps| steps[step]) != wanted {
                *value = ABSENT;
            }
        }
        column
    });
    kept.filter(|column| column.values.iter().any(|value| !is_absent(*value))).collect()
}

/// The left side, and the right side where the left has no match.
fn or(mut left: Vec<Column>, right: Vec<Column>, modifier: &BinModifier) -> Result<Vec<Column>, Error> {
    let present = presence(&left, modifier);
    left.extend(right.into_iter().map(|mut column| {
        if let Some(steps) = present.get(&signature(&column.labels, modifier)) {
            for (value, taken) in column.values.iter_mut().zip(steps) {
                if *taken {
                    *value = ABSENT;
                }
            }
        }
        column
    }));
    left.retain(|column| column.values.iter().any(|value| !is_absent(*value)));
    merge_same(left)
}
