//! Aggregations: many series to one per group, or to the most or least of a group.

use super::{
    Error,
    eval::Context,
    labels::{check_name, keep, set, without},
    statistics::{self, nan_first},
    values::{ABSENT, Column, Grid, Val, is_absent},
};
use promql_parser::parser::{AggregateExpr, Expr, LabelModifier, token};
use shipwatch_common::model::Labels;
use std::{collections::HashMap, sync::Arc};

/// A group: its labels and the columns in it, in the order they came.
struct Group {
    labels: Arc<Labels>,
    members: Vec<usize>,
}

pub(crate) fn aggregate(ctx: &Context<'_>, node: &AggregateExpr, grid: Grid) -> Result<Vec<Column>, Error> {
    let columns = ctx.vector(&node.expr, grid)?;
    let groups = group(&columns, node.modifier.as_ref());
    ctx.charge(groups.len(), grid.len)?;
    let param = || node.param.as_deref().ok_or_else(|| Error::BadData(format!("`{}` needs a parameter", node.op)));
    let reduce: fn(&mut [f64]) -> f64 = match node.op.id() {
        token::T_SUM => |values| statistics::sum(values),
        token::T_AVG => |values| statistics::mean(values),
        token::T_MIN => |values| statistics::min(values),
        token::T_MAX => |values| statistics::max(values),
        token::T_COUNT => |values| values.len() as f64,
        token::T_GROUP => |_| 1.0,
        token::T_STDDEV => |values| statistics::variance(values).sqrt(),
        token::T_STDVAR => |values| statistics::variance(values),
        token::T_QUANTILE => {
            let q = ctx.scalar(param()?, grid)?;
            return Ok(reduced(&columns, groups, grid, |step, values| statistics::quantile(q[step], values)));
        }
        token::T_TOPK | token::T_BOTTOMK => {
            let count = ctx.scalar(param()?, grid)?;
            return ranked(columns, &groups, grid, &count, node.op.id() == token::T_TOPK);
        }
        token::T_COUNT_VALUES => return count_values(ctx, &columns, &groups, grid, param()?),
        _ => return Err(Error::BadData(format!("aggregation `{}` is not supported", node.op))),
    };
    Ok(reduced(&columns, groups, grid, |_, values| reduce(values)))
}

fn group(columns: &[Column], modifier: Option<&LabelModifier>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut by_labels: HashMap<Labels, usize> = HashMap::new();
    for (at, column) in columns.iter().enumerate() {
        let labels = match modifier {
            None => Labels::default(),
            Some(LabelModifier::Include(names)) => keep(&column.labels, &names.labels),
            Some(LabelModifier::Exclude(names)) => without(&column.labels, &names.labels),
        };
        match by_labels.get(&labels) {
            Some(group) => groups[*group].members.push(at),
            None => {
                by_labels.insert(labels.clone(), groups.len());
                groups.push(Group { labels: Arc::new(labels), members: vec![at] });
            }
        }
    }
    groups
}

/// One value per group and step, of the members that have one.
fn reduced(columns: &[Column], groups: Vec<Group>, grid: Grid, f: impl Fn(usize, &mut [f64]) -> f64) -> Vec<Column> {
    let mut present = Vec::new();
    let reduce = |group: Group| {
        let values = (0..grid.len).map(|step| {
            present.clear();
            present.extend(group.members.iter().map(|at| columns[*at].values[step]).filter(|value| !is_absent(*value)));
            if present.is_empty() { ABSENT } else { f(step, &mut present) }
        });
        Column { values: values.collect(), labels: group.labels }
    };
    groups.into_iter().map(reduce).collect()
}

/// `topk` and `bottomk`: members keep their labels; NaN comes last in both.
fn ranked(columns: Vec<Column>, groups: &[Group], grid: Grid, count: &[f64], top: bool) -> Result<Vec<Column>, Error> {
    let mut kept: Vec<Column> =
        columns.iter().map(|column| Column { labels: column.labels.clone(), values: vec![ABSENT; grid.len] }).collect();
    let mut order = Vec::new();
    for group in groups {
        for (step, count) in count.iter().enumerate() {
            if count.is_nan() {
                return Err(Error::Execution("the number of elements that topk and bottomk keep must not be NaN".to_owned()));
            }
            let mut ranked: Vec<usize> = group.members.iter().copied().filter(|at| !is_absent(columns[*at].values[step])).collect();
            ranked.sort_by(|a, b| {
                let (a, b) = (columns[*a].values[step], columns[*b].values[step]);
                match (a.is_nan() || b.is_nan(), top) {
                    (false, false) => nan_first(a, b),
                    _ => nan_first(b, a),
                }
            });
            ranked.truncate(if *count < 1.0 { 0 } else { *count as usize });
            for at in &ranked {
                kept[*at].values[step] = columns[*at].values[step];
            }
            if grid.len == 1 {
                order.extend(ranked);
            }
        }
    }
    if grid.len == 1 {
        return Ok(order.into_iter().map(|at| kept[at].clone()).collect());
    }
    kept.retain(|column| column.values.iter().any(|value| !is_absent(*value)));
    Ok(kept)
}

/// `count_values("label", v)`: how often each value occurs, the value being a label.
fn count_values(ctx: &Context<'_>, columns: &[Column], groups: &[Group], grid: Grid, param: &Expr) -> Result<Vec<Column>, Error> {
    let Val::Text(label) = ctx.eval(param, grid)? else {
        return Err(Error::BadData(format!("count_values needs a label's name, not `{param}`")));
    };
    check_name(&label, "count_values")?;
    let mut counted: Vec<Column> = Vec::new();
    for group in groups {
        let mut by_value: HashMap<u64, usize> = HashMap::new();
        for step in 0..grid.len {
            for value in group.members.iter().map(|at| columns[*at].values[step]).filter(|value| !is_absent(*value)) {
                let key = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
                let at = match by_value.get(&key) {
                    Some(at) => *at,
                    None => {
                        ctx.charge(1, grid.len)?;
                        let text = super::format_value(value);
                        let labels = set(&group.labels, [(label.as_str(), text.as_str())])?;
                        counted.push(Column { labels, values: vec![ABSENT; grid.len] });
                        by_value.insert(key, counted.len() - 1);
                        counted.len() - 1
                    }
                };
                let slot = &mut counted[at].values[step];
                *slot = if is_absent(*slot) { 1.0 } else { *slot + 1.0 };
            }
        }
    }
    // A group's own label of that name gives way to the value, so groups can meet: their counts add up.
    add_same(counted)
}

fn add_same(columns: Vec<Column>) -> Result<Vec<Column>, Error> {
    let mut merged: Vec<Column> = Vec::new();
    let mut by_labels: HashMap<Arc<Labels>, usize> = HashMap::new();
    for column in columns {
        match by_labels.get(&column.labels) {
            None => {
                by_labels.insert(column.labels.clone(), merged.len());
                merged.push(column);
            }
            Some(at) => {
                for (slot, value) in merged[*at].values.iter_mut().zip(column.values) {
                    match (is_absent(*slot), is_absent(value)) {
                        (_, true) => {}
                        (true, false) => *slot = value,
                        (false, false) => *slot += value,
                    }
                }
            }
        }
    }
    Ok(merged)
}
