//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction` over classic histograms: cumulative counts in
//! buckets with the label `le`.

use super::{
    Error, annotations,
    classic::{self, Bucket},
    eval::Context,
    labels::{drop_name, set},
    values::{ABSENT, Column, Grid, merge_same},
};
use shipwatch_common::model::Labels;
use std::{collections::HashMap, sync::Arc};

const BOUND: &str = "le";

/// The buckets of one histogram: bounds, sorted, and where their counts are.
struct Histogram {
    labels: Arc<Labels>,
    bounds: Vec<f64>,
    counts: Vec<usize>,
}

pub(crate) fn histogram_quantile(ctx: &Context<'_>, quantiles: &[f64], columns: &[Column], grid: Grid) -> Result<Vec<Column>, Error> {
    annotations::check_quantiles(ctx, quantiles, grid);
    compute(ctx, columns, grid, |step, buckets| {
        let found = classic::quantile(quantiles[step], buckets);
        if found.forced_monotonic {
            annotations::forced_monotonic(ctx, grid, step);
        }
        found.value
    })
}

/// Several quantiles, told apart by a label.
pub(crate) fn histogram_quantiles(
    ctx: &Context<'_>,
    columns: &[Column],
    label: &str,
    quantiles: &[Vec<f64>],
    grid: Grid,
) -> Result<Vec<Column>, Error> {
    super::labels::check_name(label, "histogram_quantiles")?;
    let mut all = Vec::new();
    for of_step in quantiles {
        for column in histogram_quantile(ctx, of_step, columns, grid)? {
            // A quantile may differ from step to step, and with it the label.
            let mut by_text: Vec<(f64, Column)> = Vec::new();
            for (step, value) in column.values.iter().enumerate() {
                let q = of_step[step];
                let at = match by_text.iter().position(|(of, _)| of.to_bits() == q.to_bits()) {
                    Some(at) => at,
                    None => {
                        ctx.charge(1, grid.len)?;
                        let labels = set(&column.labels, [(label, quantile_text(q).as_str())])?;
                        by_text.push((q, Column { labels, values: vec![ABSENT; grid.len] }));
                        by_text.len() - 1
                    }
                };
                by_text[at].1.values[step] = *value;
            }
            all.extend(by_text.into_iter().map(|(_, column)| column));
        }
    }
    merge_same(all)
}

/// As OpenMetrics writes a quantile: whole numbers with `.0`.
fn quantile_text(q: f64) -> String {
    let text = super::format_value(q);
    if q.is_finite() && !text.contains('.') { format!("{text}.0") } else { text }
}

pub(crate) fn histogram_fraction(
    ctx: &Context<'_>,
    lower: &[f64],
    upper: &[f64],
    columns: &[Column],
    grid: Grid,
) -> Result<Vec<Column>, Error> {
    compute(ctx, columns, grid, |step, buckets| classic::fraction(lower[step], upper[step], buckets))
}

/// One value per histogram and step that has buckets.
fn compute(ctx: &Context<'_>, columns: &[Column], grid: Grid, f: impl Fn(usize, &mut Vec<Bucket>) -> f64) -> Result<Vec<Column>, Error> {
    let histograms = group(ctx, columns, grid);
    ctx.charge(histograms.len(), grid.len)?;
    let mut buckets = Vec::new();
    let mut out = Vec::with_capacity(histograms.len());
    for histogram in histograms {
        ctx.check()?;
        let values = (0..grid.len).map(|step| {
            classic::present(&histogram.bounds, histogram.counts.iter().map(|at| columns[*at].values[step]), &mut buckets);
            if buckets.is_empty() { ABSENT } else { f(step, &mut buckets) }
        });
        out.push(Column { values: values.collect(), labels: drop_name(&histogram.labels) });
    }
    merge_same(out)
}

fn group(ctx: &Context<'_>, columns: &[Column], grid: Grid) -> Vec<Histogram> {
    let mut groups: Vec<(Labels, Vec<(f64, usize)>)> = Vec::new();
    let mut by_labels: HashMap<Labels, usize> = HashMap::new();
    for (at, column) in columns.iter().enumerate() {
        let text = column.labels.get(BOUND).unwrap_or("");
        let Ok(bound) = text.parse::<f64>() else {
            annotations::bad_bucket(ctx, column, text, grid);
            continue;
        };
        let labels = column.labels.without(&[BOUND]);
        let group = *by_labels.entry(labels.clone()).or_insert_with(|| {
            groups.push((labels, Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push((bound, at));
    }
    let histogram = |(labels, mut members): (Labels, Vec<(f64, usize)>)| {
        // Different spellings of one bound are added up, in the same order whatever other steps there are.
        members.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| columns[a.1].labels.cmp(&columns[b.1].labels)));
        let (bounds, counts) = members.into_iter().unzip();
        Histogram { labels: Arc::new(labels), bounds, counts }
    };
    groups.into_iter().map(histogram).collect()
}
