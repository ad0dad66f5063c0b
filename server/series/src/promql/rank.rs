//! Aggregations that keep some members of each group as they are: `topk`, `bottomk`, `limitk`, `limit_ratio`.
//!
//! # Left out
//! `limit_ratio` picks by a hash of the labels, as Prometheus does, but by another hash: other series, as steadily.

use super::{
    Error, annotations,
    eval::Context,
    statistics::nan_first,
    values::{ABSENT, Column, Grid, is_absent},
};
use shipwatch_common::model::Labels;

/// Which members of a group stay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rank {
    /// The largest, in falling order; NaN comes last.
    Top,
    /// The smallest, in growing order; NaN comes last.
    Bottom,
    /// The first ones.
    Limit,
    /// A part of them, by the hash of their labels; a negative ratio is the other part.
    Ratio,
}

/// `param` is the number or the ratio at each step; `groups` have the positions of their columns.
pub(crate) fn ranked(
    ctx: &Context<'_>,
    columns: Vec<Column>,
    groups: &[Vec<usize>],
    grid: Grid,
    param: &[f64],
    rank: Rank,
) -> Result<Vec<Column>, Error> {
    check(ctx, param, grid, rank)?;
    ctx.charge(columns.len(), grid.len)?;
    let mut kept: Vec<Column> =
        columns.iter().map(|column| Column { labels: column.labels.clone(), values: vec![ABSENT; grid.len] }).collect();
    let hashes: Vec<f64> = if rank == Rank::Ratio { columns.iter().map(|column| place(&column.labels)).collect() } else { Vec::new() };
    let mut order = Vec::new();
    for members in groups {
        ctx.check()?;
        for (step, param) in param.iter().enumerate() {
            let mut present: Vec<usize> = members.iter().copied().filter(|at| !is_absent(columns[*at].values[step])).collect();
            let value = |at: &usize| columns[*at].values[step];
            match rank {
                Rank::Top => present.sort_by(|a, b| nan_first(value(b), value(a))),
                Rank::Bottom => present.sort_by(|a, b| nan_last(value(a), value(b))),
                Rank::Limit => {}
                Rank::Ratio => present.retain(|at| is_in(hashes[*at], *param)),
            }
            if rank != Rank::Ratio {
                present.truncate(if *param < 1.0 { 0 } else { *param as usize });
            }
            for at in &present {
                kept[*at].values[step] = columns[*at].values[step];
            }
            if grid.len == 1 {
                order.extend(present);
            }
        }
    }
    if grid.len == 1 {
        return Ok(order.into_iter().map(|at| kept[at].clone()).collect());
    }
    kept.retain(|column| column.values.iter().any(|value| !is_absent(*value)));
    Ok(kept)
}

fn nan_last(a: f64, b: f64) -> std::cmp::Ordering {
    if a.is_nan() || b.is_nan() { nan_first(b, a) } else { nan_first(a, b) }
}

fn check(ctx: &Context<'_>, param: &[f64], grid: Grid, rank: Rank) -> Result<(), Error> {
    if param.iter().any(|value| value.is_nan()) {
        let what = if rank == Rank::Ratio { "Ratio" } else { "Parameter" };
        return Err(Error::Execution(format!("{what} value is NaN")));
    }
    if rank == Rank::Ratio {
        annotations::check_ratios(ctx, param, grid);
        return Ok(());
    }
    let (least, most) = (i64::MIN as f64, i64::MAX as f64);
    // Where nothing is asked for, nothing is too small.
    if param.iter().any(|count| *count >= 1.0) {
        if let Some(count) = param.iter().find(|count| **count <= least) {
            return Err(Error::Execution(format!("Scalar value {} underflows int64", super::format_value(*count))));
        }
        if let Some(count) = param.iter().find(|count| **count >= most) {
            return Err(Error::Execution(format!("Scalar value {} overflows int64", super::format_value(*count))));
        }
    }
    Ok(())
}

fn is_in(place: f64, ratio: f64) -> bool {
    if ratio >= 0.0 { place < ratio } else { place >= 1.0 + ratio }
}

/// A place from 0 up to 1 that depends on the labels only.
fn place(labels: &Labels) -> f64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let parts = labels.iter().flat_map(|(name, value)| [name, "\u{1}", value, "\u{2}"]);
    for byte in parts.flat_map(str::bytes) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // FNV-1a is weak in its high bits; the finalizer of splitmix64 spreads them.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((hash ^ (hash >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_even_and_ratios_split_them() {
        let places: Vec<f64> = (0..10_000).map(|n| place(&Labels::new([("n", n.to_string())]).unwrap())).collect();
        for ratio in [0.1, 0.5, 0.9] {
            let first = places.iter().filter(|place| is_in(**place, ratio)).count();
            let second = places.iter().filter(|place| is_in(**place, ratio - 1.0)).count();
            assert_eq!(first + second, places.len());
            assert!((first as f64 / 10_000.0 - ratio).abs() < 0.02, "{ratio}: {first}");
        }
    }
}
