//! Aggregations: many series to one per group, or to some members of a group.

use super::{
    Error, annotations,
    eval::Context,
    labels::{check_name, keep, set, without},
    rank::{Rank, ranked},
    statistics,
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
        token::T_QUANTILE => return quantile(ctx, node, param()?, grid),
        token::T_TOPK => return some_of(ctx, node, param()?, grid, Rank::Top),
        token::T_BOTTOMK => return some_of(ctx, node, param()?, grid, Rank::Bottom),
        token::T_LIMITK => return some_of(ctx, node, param()?, grid, Rank::Limit),
        token::T_LIMIT_RATIO => return some_of(ctx, node, param()?, grid, Rank::Ratio),
        token::T_COUNT_VALUES => return count_values(ctx, node, param()?, grid),
        _ => return Err(Error::BadData(format!("aggregation `{}` is not supported", node.op))),
    };
    let columns = ctx.vector(&node.expr, grid)?;
    let groups = group(ctx, &columns, node.modifier.as_ref());
    ctx.charge(groups.len(), grid.len)?;
    Ok(reduced(&columns, groups, grid, |_, values| reduce(values)))
}

fn quantile(ctx: &Context<'_>, node: &AggregateExpr, param: &Expr, grid: Grid) -> Result<Vec<Column>, Error> {
    let q = ctx.scalar(param, grid)?;
    annotations::check_quantiles(ctx, &q, grid);
    let columns = ctx.vector(&node.expr, grid)?;
    let groups = group(ctx, &columns, node.modifier.as_ref());
    ctx.charge(groups.len(), grid.len)?;
    Ok(reduced(&columns, groups, grid, |step, values| statistics::quantile(q[step], values)))
}

fn some_of(ctx: &Context<'_>, node: &AggregateExpr, param: &Expr, grid: Grid, rank: Rank) -> Result<Vec<Column>, Error> {
    let param = ctx.scalar(param, grid)?;
    let columns = ctx.vector(&node.expr, grid)?;
    let groups: Vec<Vec<usize>> = group(ctx, &columns, node.modifier.as_ref()).into_iter().map(|group| group.members).collect();
    ranked(ctx, columns, &groups, grid, &param, rank)
}

fn group(ctx: &Context<'_>, columns: &[Column], modifier: Option<&LabelModifier>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut by_labels: HashMap<Labels, usize> = HashMap::new();
    for (at, column) in columns.iter().enumerate() {
        let labels = grouped(&column.labels, modifier);
        match by_labels.get(&labels) {
            Some(group) => groups[*group].members.push(at),
            None => {
                by_labels.insert(labels.clone(), groups.len());
                groups.push(Group { labels: Arc::new(labels), members: vec![at] });
            }
        }
    }
    // In the order of labels, sums of fractions and ranks of equal values are the same whatever other steps a range has.
    if ctx.step > 0 && !columns.is_sorted_by(|a, b| a.labels <= b.labels) {
        for group in &mut groups {
            group.members.sort_by(|a, b| columns[*a].labels.cmp(&columns[*b].labels));
        }
    }
    groups
}

fn grouped(labels: &Labels, modifier: Option<&LabelModifier>) -> Labels {
    match modifier {
        None => Labels::default(),
        Some(LabelModifier::Include(names)) => keep(labels, &names.labels),
        Some(LabelModifier::Exclude(names)) => without(labels, &names.labels),
    }
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

/// `count_values("label", v)`: how often each value occurs, the value being a label.
///
/// The label joins the others before they are grouped: it takes the place of one of that name, and `without` can drop it.
fn count_values(ctx: &Context<'_>, node: &AggregateExpr, param: &Expr, grid: Grid) -> Result<Vec<Column>, Error> {
    let Val::Text(label) = ctx.eval(param, grid)? else {
        return Err(Error::BadData(format!("count_values needs a label's name, not `{param}`")));
    };
    check_name(&label, "count_values")?;
    let is_dropped = matches!(&node.modifier, Some(LabelModifier::Exclude(names)) if names.labels.contains(&label));
    let columns = ctx.vector(&node.expr, grid)?;
    let mut counted: Vec<Column> = Vec::new();
    for group in group(ctx, &columns, node.modifier.as_ref()) {
        let mut by_value: HashMap<u64, usize> = HashMap::new();
        for step in 0..grid.len {
            for value in group.members.iter().map(|at| columns[*at].values[step]).filter(|value| !is_absent(*value)) {
                let key = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
                let at = match by_value.get(&key) {
                    Some(at) => *at,
                    None => {
                        ctx.charge(1, grid.len)?;
                        let text = if is_dropped { String::new() } else { super::format_value(value) };
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
