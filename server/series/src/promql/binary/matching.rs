//! Computing and comparing operators between vectors: one-to-one, many-to-one and one-to-many.
//!
//! # Invariants
//! - At each step a group of matched labels has at most one series on the "one" side. This is only asked for where the other
//!   side has any series at all.
//! - A group has one result per step in a one-to-one match, and one per label set in the others, also when a comparison
//!   then filters it out.
//! - `fill` values stand for a side that a group lacks at a step: `fill_right` for the "one" side, `fill_left` for the "many"
//!   side, also with `group_right`, where Prometheus does so too.

use super::{Op, signature};
use crate::promql::{
    Error,
    eval::Context,
    labels::{METADATA, describe, keep},
    values::{ABSENT, Column, Grid, is_absent},
};
use promql_parser::parser::{BinModifier, LabelModifier, VectorMatchCardinality};
use shipwatch_common::model::{Labels, metric::STALE_NAN_BITS};
use std::{collections::HashMap, sync::Arc};

/// No series of the "one" side.
const NOBODY: u32 = u32::MAX;

/// A result that a comparison filtered out; like [`ABSENT`] no arithmetic produces it.
const FILTERED: f64 = f64::from_bits(STALE_NAN_BITS + 1);

const fn is_filtered(value: f64) -> bool {
    value.to_bits() == FILTERED.to_bits()
}

/// What the series of the "one" side have in common with their partners.
struct Group {
    labels: Arc<Labels>,
    /// The series of the "one" side at each step.
    partners: Vec<u32>,
    /// Whether the group has a result at each step.
    matched: Vec<bool>,
}

struct Matching<'a> {
    ctx: &'a Context<'a>,
    op: Op,
    modifier: &'a BinModifier,
    grid: Grid,
    one: &'a [Column],
    groups: Vec<Group>,
    by_labels: HashMap<Labels, usize>,
    results: Results,
}

pub(super) fn run(
    ctx: &Context<'_>,
    op: Op,
    modifier: &BinModifier,
    grid: Grid,
    left: &[Column],
    right: &[Column],
) -> Result<Vec<Column>, Error> {
    // The "many" side leads; it is the left one unless `group_right` says otherwise.
    let (many, one) = if is_swapped(modifier) { (right, left) } else { (left, right) };
    let results = Results { columns: Vec::new(), by_labels: HashMap::new(), writers: Vec::new() };
    let mut matching = Matching { ctx, op, modifier, grid, one, groups: Vec::new(), by_labels: HashMap::new(), results };
    matching.group_one_side(many)?;
    for column in many {
        ctx.check()?;
        matching.match_column(column)?;
    }
    if let Some(fill) = modifier.fill_values.lhs {
        matching.fill_many_side(fill)?;
    }
    Ok(matching.results.finish())
}

const fn is_swapped(modifier: &BinModifier) -> bool {
    matches!(modifier.card, VectorMatchCardinality::OneToMany(_))
}

impl Matching<'_> {
    fn group_of(&mut self, labels: &Labels) -> usize {
        let labels = signature(labels, self.modifier);
        if let Some(at) = self.by_labels.get(&labels) {
            return *at;
        }
        let group = Group { labels: Arc::new(labels.clone()), partners: vec![NOBODY; self.grid.len], matched: vec![false; self.grid.len] };
        self.groups.push(group);
        self.by_labels.insert(labels, self.groups.len() - 1);
        self.groups.len() - 1
    }

    fn group_one_side(&mut self, many: &[Column]) -> Result<(), Error> {
        let fills = self.modifier.fill_values.lhs.is_some() || self.modifier.fill_values.rhs.is_some();
        let active = |step: usize| fills || many.iter().any(|column| !is_absent(column.values[step]));
        let active: Vec<bool> = (0..self.grid.len).map(active).collect();
        for (at, column) in self.one.iter().enumerate() {
            let group = self.group_of(&column.labels);
            for (step, value) in column.values.iter().enumerate() {
                if is_absent(*value) || !active[step] {
                    continue;
                }
                let slot = &mut self.groups[group].partners[step];
                if *slot != NOBODY {
                    let other = *slot as usize;
                    return Err(self.duplicate(group, &column.labels, &self.one[other].labels));
                }
                *slot = at as u32;
            }
        }
        Ok(())
    }

    fn duplicate(&self, group: usize, series: &Labels, other: &Labels) -> Error {
        let side = if is_swapped(self.modifier) { "left" } else { "right" };
        Error::Execution(format!(
            "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];many-to-many \
             matching not allowed: matching labels must be unique on one side",
            describe(&self.groups[group].labels),
            describe(series),
            describe(other),
        ))
    }

    /// The results of one series of the "many" side.
    fn match_column(&mut self, column: &Column) -> Result<(), Error> {
        let fill = self.modifier.fill_values.rhs;
        let group = match self.by_labels.get(&signature(&column.labels, self.modifier)) {
            Some(group) => *group,
            None if fill.is_some() => self.group_of(&column.labels),
            None => return Ok(()),
        };
        // Result labels depend on the partner, which seldom changes from step to step.
        let mut last: Option<(u32, usize)> = None;
        for (step, value) in column.values.iter().enumerate() {
            let partner = self.groups[group].partners[step];
            if is_absent(*value) || (partner == NOBODY && fill.is_none()) {
                continue;
            }
            let other = if partner == NOBODY { fill.unwrap_or(ABSENT) } else { self.one[partner as usize].values[step] };
            let at = match last {
                Some((of, at)) if of == partner => at,
                _ => self.result_column(&column.labels, partner, group)?,
            };
            last = Some((partner, at));
            self.put(group, at, step, *value, other)?;
        }
        Ok(())
    }

    /// Groups that only the "one" side has at a step.
    fn fill_many_side(&mut self, fill: f64) -> Result<(), Error> {
        for group in 0..self.groups.len() {
            let labels = self.groups[group].labels.clone();
            for step in 0..self.grid.len {
                let partner = self.groups[group].partners[step];
                if partner == NOBODY || self.groups[group].matched[step] {
                    continue;
                }
                let at = self.result_column(&labels, partner, group)?;
                self.put(group, at, step, fill, self.one[partner as usize].values[step])?;
            }
        }
        Ok(())
    }

    fn put(&mut self, group: usize, at: usize, step: usize, many: f64, one: f64) -> Result<(), Error> {
        let matched = &mut self.groups[group].matched[step];
        if *matched && matches!(self.modifier.card, VectorMatchCardinality::OneToOne) {
            let text = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
            return Err(Error::Execution(format!("{text}: {}", describe(&self.groups[group].labels))));
        }
        *matched = true;
        let (left, right) = if is_swapped(self.modifier) { (one, many) } else { (many, one) };
        let computed = self.op.apply(left, right, left, self.modifier.return_bool);
        self.results.put(group, at, step, if is_absent(computed) { FILTERED } else { computed })
    }

    fn result_column(&mut self, many: &Labels, partner: u32, group: usize) -> Result<usize, Error> {
        let filled;
        let one: &Labels = if partner == NOBODY {
            filled = self.groups[group].labels.clone();
            &filled
        } else {
            &self.one[partner as usize].labels
        };
        let labels = self.result_labels(many, one)?;
        self.results.column(labels, group, self.grid, self.ctx)
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Result<Labels, Error> {
        let labels = match (&self.modifier.card, &self.modifier.matching) {
            (VectorMatchCardinality::OneToOne, Some(LabelModifier::Include(names))) => keep(many, &names.labels),
            (VectorMatchCardinality::OneToOne, Some(LabelModifier::Exclude(names))) => {
                let dropped: Vec<&str> = names.labels.iter().map(String::as_str).collect();
                many.without(&dropped)
            }
            _ => many.clone(),
        };
        let labels = if self.op.drops_name(self.modifier.return_bool) { labels.without(&METADATA) } else { labels };
        let copied = match &self.modifier.card {
            VectorMatchCardinality::ManyToOne(names) | VectorMatchCardinality::OneToMany(names) => &names.labels[..],
            VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => return Ok(labels),
        };
        let changes = copied.iter().map(|name| (name.as_str(), one.get(name).unwrap_or("")));
        labels.with(changes).map_err(|error| Error::Execution(format!("{}: {error}", describe(&labels))))
    }
}

/// Result columns by labels.
struct Results {
    columns: Vec<Column>,
    /// The group that each column was made for.
    writers: Vec<usize>,
    by_labels: HashMap<Arc<Labels>, usize>,
}

impl Results {
    fn column(&mut self, labels: Labels, group: usize, grid: Grid, ctx: &Context<'_>) -> Result<usize, Error> {
        if let Some(at) = self.by_labels.get(&labels) {
            return Ok(*at);
        }
        ctx.charge(1, grid.len)?;
        let labels = Arc::new(labels);
        self.by_labels.insert(labels.clone(), self.columns.len());
        self.columns.push(Column { labels, values: vec![ABSENT; grid.len] });
        self.writers.push(group);
        Ok(self.columns.len() - 1)
    }

    fn put(&mut self, group: usize, at: usize, step: usize, value: f64) -> Result<(), Error> {
        let column = &mut self.columns[at];
        let slot = &mut column.values[step];
        if is_absent(*slot) {
            *slot = value;
            return Ok(());
        }
        if self.writers[at] == group {
            let text = "multiple matches for labels: grouping labels must ensure unique matches";
            return Err(Error::Execution(format!("{text}: {}", describe(&column.labels))));
        }
        if !is_filtered(*slot) && !is_filtered(value) {
            let labels = describe(&column.labels);
            return Err(Error::Execution(format!("vector cannot contain metrics with the same labelset: {labels}")));
        }
        if is_filtered(*slot) {
            *slot = value;
        }
        Ok(())
    }

    fn finish(self) -> Vec<Column> {
        let mut columns = self.columns;
        for column in &mut columns {
            column.values.iter_mut().filter(|value| is_filtered(**value)).for_each(|value| *value = ABSENT);
        }
        columns.retain(|column| column.values.iter().any(|value| !is_absent(*value)));
        columns
    }
}
