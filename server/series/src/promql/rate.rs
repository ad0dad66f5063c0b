//! What happens between the samples of a range: rates, differences, trends.

use super::{select::Window, statistics::regression};
use crate::summary::differs;

/// What is known of the samples of a window with at least two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) first_at: i64,
    pub(crate) last_at: i64,
    pub(crate) first: f64,
    /// From the first to the last value, without the resets of a counter.
    pub(crate) change: f64,
    pub(crate) count: u32,
}

/// `rate`, `increase` and `delta` of samples.
pub(crate) fn extrapolated(window: &Window<'_>, is_counter: bool, is_rate: bool) -> Option<f64> {
    let (ts, values) = (window.ts, window.values);
    let (first_at, last_at) = (*ts.first()?, *ts.last()?);
    let (first, last) = (*values.first()?, *values.last()?);
    let mut change = last - first;
    if is_counter {
        change += values.windows(2).filter(|pair| pair[1] < pair[0]).map(|pair| pair[0]).sum::<f64>();
    }
    let count = u32::try_from(ts.len()).unwrap_or(u32::MAX);
    stretched(&Change { first_at, last_at, first, change, count }, (window.start, window.end), is_counter, is_rate)
}

/// `rate`, `increase` and `delta`: the change over the samples, extrapolated to the borders of the range.
///
/// The change is stretched to each border unless the nearest sample is more than 1.1 average distances away: then the series
/// is taken to begin or end half a distance beyond that sample. A counter is never stretched to below zero.
pub(crate) fn stretched(samples: &Change, (start, end): (i64, i64), is_counter: bool, is_rate: bool) -> Option<f64> {
    let Change { first_at, last_at, first, change, count } = *samples;
    if count < 2 {
        return None;
    }
    let seconds = |ms: i64| ms as f64 / 1_000.0;
    let covered = seconds(last_at - first_at);
    let distance = covered / f64::from(count - 1);
    let threshold = distance * 1.1;
    let mut to_start = seconds(first_at - start);
    let mut to_end = seconds(end - last_at);
    if to_start >= threshold {
        to_start = distance / 2.0;
    }
    if is_counter && change > 0.0 && first >= 0.0 {
        to_start = to_start.min(covered * (first / change));
    }
    if to_end >= threshold {
        to_end = distance / 2.0;
    }
    let mut factor = (covered + to_start + to_end) / covered;
    if is_rate {
        factor /= seconds(end - start);
    }
    Some(change * factor)
}

/// `irate` and `idelta`: the last two samples.
pub(crate) fn last_two(window: &Window<'_>, is_rate: bool) -> Option<f64> {
    let [.., before_at, at] = window.ts else { return None };
    let [.., before, value] = window.values else { return None };
    if !is_rate {
        return Some(value - before);
    }
    let change = if value < before { *value } else { value - before };
    Some(change / ((at - before_at) as f64 / 1_000.0))
}

/// `deriv`.
pub(crate) fn deriv(window: &Window<'_>) -> Option<f64> {
    regression(window.ts, window.values, *window.ts.first()?).map(|(_, slope)| slope)
}

/// `predict_linear`: the value `ahead_s` seconds after the evaluation's time.
pub(crate) fn predict(window: &Window<'_>, eval_at: i64, ahead_s: f64) -> Option<f64> {
    regression(window.ts, window.values, eval_at).map(|(value, slope)| slope * ahead_s + value)
}

/// `resets`.
pub(crate) fn resets(window: &Window<'_>) -> Option<f64> {
    Some(window.values.windows(2).filter(|pair| pair[1] < pair[0]).count() as f64)
}

/// `changes`.
pub(crate) fn changes(window: &Window<'_>) -> Option<f64> {
    Some(window.values.windows(2).filter(|pair| differs(pair[0], pair[1])).count() as f64)
}
