//! `histogram_quantile` over classic histograms: cumulative counts in buckets with the label `le`.

use super::{
    Error,
    eval::Context,
    labels::{describe, without},
    values::{ABSENT, Column, Grid, is_absent, merge_same},
};
use shipwatch_common::model::Labels;
use std::{collections::HashMap, sync::Arc};

const BOUND: &str = "le";

/// Differences that rounding makes between counts that belong together.
const TOLERANCE: f64 = 1e-12;

/// A bucket at one step.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    bound: f64,
    count: f64,
}

pub(crate) fn histogram_quantile(ctx: &Context<'_>, quantiles: &[f64], columns: &[Column], grid: Grid) -> Result<Vec<Column>, Error> {
    if let Some(q) = quantiles.iter().find(|q| !(0.0..=1.0).contains(*q)) {
        ctx.warn(format!("PromQL warning: quantile value should be between 0 and 1, got {}", super::format_value(*q)));
    }
    let mut groups: Vec<(Labels, Vec<(f64, usize)>)> = Vec::new();
    let mut by_labels: HashMap<Labels, usize> = HashMap::new();
    for (at, column) in columns.iter().enumerate() {
        let bound = column.labels.get(BOUND).unwrap_or("");
        let Ok(bound) = bound.parse::<f64>() else {
            ctx.warn(format!(
                "PromQL warning: bucket label \"le\" is missing or has a malformed value of {bound:?} for {}",
                describe(&column.labels)
            ));
            continue;
        };
        let labels = without(&column.labels, &[BOUND.to_owned()]);
        let group = *by_labels.entry(labels.clone()).or_insert_with(|| {
            groups.push((labels, Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push((bound, at));
    }
    ctx.charge(groups.len(), grid.len)?;
    let mut out = Vec::with_capacity(groups.len());
    for (labels, mut members) in groups {
        members.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut buckets = Vec::with_capacity(members.len());
        let values = quantiles.iter().enumerate().map(|(step, q)| {
            buckets.clear();
            let present = members.iter().map(|(bound, at)| Bucket { bound: *bound, count: columns[*at].values[step] });
            buckets.extend(present.filter(|bucket| !is_absent(bucket.count)));
            if buckets.is_empty() { ABSENT } else { bucket_quantile(*q, &mut buckets) }
        });
        out.push(Column { values: values.collect(), labels: Arc::new(labels) });
    }
    merge_same(out)
}

/// `buckets` are sorted by bound.
fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    if buckets.last().is_none_or(|highest| highest.bound != f64::INFINITY) {
        return f64::NAN;
    }
    join_equal_bounds(buckets);
    make_monotonic(buckets);
    let [.., below_highest, highest] = &buckets[..] else { return f64::NAN };
    if highest.count == 0.0 || highest.count.is_nan() {
        return f64::NAN;
    }
    let rank = q * highest.count;
    let at = buckets[..buckets.len() - 1].partition_point(|bucket| bucket.count < rank);
    if at == buckets.len() - 1 {
        return below_highest.bound;
    }
    let bucket = buckets[at];
    if at == 0 && bucket.bound <= 0.0 {
        return bucket.bound;
    }
    let (start, before) = if at == 0 { (0.0, 0.0) } else { (buckets[at - 1].bound, buckets[at - 1].count) };
    start + (bucket.bound - start) * ((rank - before) / (bucket.count - before))
}

/// Different spellings of one bound (`1` and `1.0`) are one bucket.
fn join_equal_bounds(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|next, kept| {
        let same = next.bound == kept.bound;
        if same {
            kept.count += next.count;
        }
        same
    });
}

/// Counts are cumulative; scrapes and rates can make them fall a little.
fn make_monotonic(buckets: &mut [Bucket]) {
    let mut before = f64::NEG_INFINITY;
    for bucket in buckets {
        let close = (bucket.count - before).abs() <= TOLERANCE * (bucket.count.abs() + before.abs());
        if bucket.count < before || (close && before.is_finite()) {
            bucket.count = before;
        }
        before = bucket.count;
    }
}
