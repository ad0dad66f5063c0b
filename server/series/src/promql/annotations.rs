//! What a person should know about a result, in Prometheus' words but without the place in the query's text.

use super::{
    eval::Context,
    format_value,
    values::{Column, Grid},
};
use std::collections::BTreeMap;

/// Annotations, each with the steps that it is told for; no steps where nobody asks for them.
#[derive(Debug, Default)]
pub(crate) struct Notes(pub(crate) BTreeMap<String, Vec<bool>>);

impl Notes {
    pub(crate) fn into_texts(self) -> Vec<String> {
        self.0.into_keys().collect()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|(text, steps)| text.len() + steps.len() + 64).sum()
    }
}

/// A φ that is no quantile, at each step.
pub(crate) fn check_quantiles(ctx: &Context<'_>, quantiles: &[f64], grid: Grid) {
    for (step, q) in quantiles.iter().enumerate().filter(|(_, q)| !(0.0..=1.0).contains(*q)) {
        let text = format!("PromQL warning: quantile value should be between 0 and 1, got {}", format_value(*q));
        ctx.warn(text, grid, [step]);
    }
}

/// A ratio of `limit_ratio` that is none, at each step.
pub(crate) fn check_ratios(ctx: &Context<'_>, ratios: &[f64], grid: Grid) {
    for (step, ratio) in ratios.iter().enumerate().filter(|(_, ratio)| !(-1.0..=1.0).contains(*ratio)) {
        let capped = ratio.clamp(-1.0, 1.0);
        let (ratio, capped) = (format_value(*ratio), format_value(capped));
        let text = format!("PromQL warning: ratio value should be between -1 and 1, got {ratio}, capping to {capped}");
        ctx.warn(text, grid, [step]);
    }
}

/// `rate` and `increase` of what is not named like a counter.
pub(crate) fn check_counter(ctx: &Context<'_>, column: &Column, grid: Grid) {
    let name = column.labels.metric_name();
    if !name.is_empty() && !["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix)) {
        let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket";
        ctx.info(format!("PromQL info: {text}: {name:?}"), grid, column.present());
    }
}

/// A bucket without a bound.
pub(crate) fn bad_bucket(ctx: &Context<'_>, column: &Column, bound: &str, grid: Grid) {
    let name = column.labels.metric_name();
    let whose = if name.is_empty() { String::new() } else { format!(" for metric name {name:?}") };
    let text = format!("PromQL warning: bucket label \"le\" is missing or has a malformed value of {bound:?}{whose}");
    ctx.warn(text, grid, column.present());
}

/// Buckets whose counts fall.
pub(crate) fn forced_monotonic(ctx: &Context<'_>, grid: Grid, step: usize) {
    let more = "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile";
    ctx.info(format!("PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see {more})"), grid, [step]);
}

/// Buckets instead of samples, of this width.
pub(crate) fn summarized(ctx: &Context<'_>, width: i64, approximate: bool, grid: Grid) {
    let name = if width < crate::summary::ONE_HOUR { "5-minute" } else { "1-hour" };
    let text = if approximate {
        format!("PromQL info: samples in this range have expired; answered approximately from {name} summaries")
    } else {
        format!("PromQL info: answered from {name} summaries")
    };
    ctx.info(text, grid, 0..grid.len);
}

/// Nothing but buckets is left of something that needs samples.
pub(crate) fn left_out(ctx: &Context<'_>, grid: Grid) {
    let text = "samples in this range have expired, and what is asked cannot be computed from their summaries";
    ctx.info(format!("PromQL info: {text}"), grid, 0..grid.len);
}
