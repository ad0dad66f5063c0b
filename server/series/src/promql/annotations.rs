//! What a person should know about a result, in Prometheus' words but without the place in the query's text.

use super::{eval::Context, format_value};
use shipwatch_common::model::Labels;

/// A φ that is no quantile.
pub(crate) fn check_quantile(ctx: &Context<'_>, q: f64) {
    if !(0.0..=1.0).contains(&q) {
        ctx.warn(format!("PromQL warning: quantile value should be between 0 and 1, got {}", format_value(q)));
    }
}

/// A ratio of `limit_ratio` that is none.
pub(crate) fn check_ratio(ctx: &Context<'_>, ratio: f64) {
    if !(-1.0..=1.0).contains(&ratio) {
        let capped = ratio.clamp(-1.0, 1.0);
        let (ratio, capped) = (format_value(ratio), format_value(capped));
        ctx.warn(format!("PromQL warning: ratio value should be between -1 and 1, got {ratio}, capping to {capped}"));
    }
}

/// `rate` and `increase` of what is not named like a counter.
pub(crate) fn check_counter(ctx: &Context<'_>, labels: &Labels) {
    let name = labels.metric_name();
    if !name.is_empty() && !["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| name.ends_with(suffix)) {
        let text = "metric might not be a counter, name does not end in _total/_sum/_count/_bucket";
        ctx.info(format!("PromQL info: {text}: {name:?}"));
    }
}

/// A bucket without a bound.
pub(crate) fn bad_bucket(ctx: &Context<'_>, labels: &Labels, bound: &str) {
    let name = labels.metric_name();
    let whose = if name.is_empty() { String::new() } else { format!(" for metric name {name:?}") };
    ctx.warn(format!("PromQL warning: bucket label \"le\" is missing or has a malformed value of {bound:?}{whose}"));
}

/// Buckets whose counts fall.
pub(crate) fn forced_monotonic(ctx: &Context<'_>) {
    let more = "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile";
    ctx.info(format!("PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see {more})"));
}

/// Buckets instead of samples, of this width.
pub(crate) fn summarized(ctx: &Context<'_>, width: i64, approximate: bool) {
    let name = if width < crate::summary::ONE_HOUR { "5-minute" } else { "1-hour" };
    ctx.info(if approximate {
        format!("PromQL info: samples in this range have expired; answered approximately from {name} summaries")
    } else {
        format!("PromQL info: answered from {name} summaries")
    });
}

/// Nothing but buckets is left of something that needs samples.
pub(crate) fn left_out(ctx: &Context<'_>) {
    let text = "samples in this range have expired, and what is asked cannot be computed from their summaries";
    ctx.info(format!("PromQL info: {text}"));
}
