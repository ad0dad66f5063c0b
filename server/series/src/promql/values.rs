//! Columns: the values of a series at every step of an evaluation.
//!
//! # Invariants
//! - A column has one value per step; [`ABSENT`] stands for "no value here". It is the stale marker's bit pattern, which no
//!   selector lets through and no arithmetic produces (results of arithmetic are quiet NaNs).

use super::{Error, labels::describe};
use shipwatch_common::model::{Labels, metric::STALE_NAN_BITS};
use std::{collections::HashMap, sync::Arc};

/// No value at this step.
pub(crate) const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether there is no value.
pub(crate) const fn is_absent(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// The steps of an evaluation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Grid {
    pub(crate) start: i64,
    pub(crate) step: i64,
    pub(crate) len: usize,
}

impl Grid {
    pub(crate) const fn at(&self, step: usize) -> i64 {
        self.start + self.step * step as i64
    }

    pub(crate) const fn end(&self) -> i64 {
        self.at(self.len.saturating_sub(1))
    }

    pub(crate) fn times(&self) -> impl Iterator<Item = i64> {
        let grid = *self;
        (0..grid.len).map(move |step| grid.at(step))
    }
}

/// A series at every step.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) labels: Arc<Labels>,
    pub(crate) values: Vec<f64>,
}

impl Column {
    /// The steps that have a value.
    pub(crate) fn present(&self) -> impl Iterator<Item = usize> {
        self.values.iter().enumerate().filter(|(_, value)| !is_absent(**value)).map(|(step, _)| step)
    }
}

/// What a node of a query evaluates to.
#[derive(Clone, Debug)]
pub(crate) enum Val {
    Scalar(Vec<f64>),
    Vector(Vec<Column>),
    Text(String),
}

/// Puts columns with the same labels together: they may not both have a value at a step.
pub(crate) fn merge_same(columns: Vec<Column>) -> Result<Vec<Column>, Error> {
    let mut merged: Vec<Column> = Vec::with_capacity(columns.len());
    let mut by_labels: HashMap<Arc<Labels>, usize> = HashMap::with_capacity(columns.len());
    for column in columns {
        match by_labels.get(&column.labels) {
            None => {
                by_labels.insert(column.labels.clone(), merged.len());
                merged.push(column);
            }
            Some(at) => {
                for (slot, value) in merged[*at].values.iter_mut().zip(column.values) {
                    if is_absent(value) {
                        continue;
                    }
                    if !is_absent(*slot) {
                        let labels = describe(&column.labels);
                        return Err(Error::Execution(format!("vector cannot contain metrics with the same labelset: {labels}")));
                    }
                    *slot = value;
                }
            }
        }
    }
    Ok(merged)
}
