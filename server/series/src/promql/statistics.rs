//! Sums, means, deviations and quantiles with the care that Prometheus takes: compensated sums, NaN in its places.

use crate::summary::Sum;

pub(crate) fn sum(values: &[f64]) -> f64 {
    let mut sum = Sum::default();
    values.iter().for_each(|value| sum.add(*value));
    sum.total()
}

/// The mean: the sum by the count, or step by step from where the sum is beyond what a float can hold.
pub(crate) fn mean(values: &[f64]) -> f64 {
    let Some((first, others)) = values.split_first() else { return f64::NAN };
    let mut sum = Sum { sum: *first, lost: 0.0 };
    let (mut count, mut step_by_step) = (1.0, false);
    for value in others {
        count += 1.0;
        if !step_by_step {
            let before = sum;
            sum.add(*value);
            if !sum.sum.is_infinite() {
                continue;
            }
            step_by_step = true;
            sum = Sum { sum: before.sum / (count - 1.0), lost: before.lost / (count - 1.0) };
        }
        sum.scale((count - 1.0) / count);
        sum.add(value / count);
    }
    if step_by_step { sum.total() } else { sum.sum / count + sum.lost / count }
}

/// Population variance of samples over time (Welford, compensated).
pub(crate) fn variance_over_time(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, Sum::default(), Sum::default());
    for value in values {
        count += 1.0;
        let delta = value - mean.total();
        mean.add(delta / count);
        squares.add(delta * (value - mean.total()));
    }
    squares.total() / count
}

/// Population variance of series at one time (Welford). One value that is not finite makes all of it NaN.
pub(crate) fn variance(values: &[f64]) -> f64 {
    let Some((first, others)) = values.split_first() else { return f64::NAN };
    let (mut count, mut mean) = (1.0, *first);
    let mut squares = if first.is_finite() { 0.0 } else { f64::NAN };
    for value in others {
        count += 1.0;
        let delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
    }
    squares / count
}

/// The median of the distances to the median.
pub(crate) fn median_absolute_deviation(values: &[f64]) -> f64 {
    let median = quantile(0.5, &mut values.to_vec());
    quantile(0.5, &mut values.iter().map(|value| (value - median).abs()).collect::<Vec<f64>>())
}

/// Double exponential smoothing (Holt, linear): the level after the last value. Needs two values.
pub(crate) fn smoothed(values: &[f64], smoothing: f64, trend: f64) -> Option<f64> {
    let [first, second, ..] = values else { return None };
    let (mut before, mut level, mut slope) = (0.0, *first, second - first);
    for (at, value) in values.iter().enumerate().skip(1) {
        if at > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * value + (1.0 - smoothing) * (level + slope);
        (before, level) = (level, next);
    }
    Some(level)
}

pub(crate) fn min(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, |least, value| if value < least || least.is_nan() { value } else { least })
}

pub(crate) fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, |most, value| if value > most || most.is_nan() { value } else { most })
}

/// Orders numbers with NaN before all others.
pub(crate) fn nan_first(a: f64, b: f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.total_cmp(&b),
    }
}

/// The φ-quantile between the two nearest values.
pub(crate) fn quantile(q: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_unstable_by(|a, b| nan_first(*a, *b));
    let last = values.len() - 1;
    let rank = q * last as f64;
    let lower = (rank.floor() as usize).min(last);
    let upper = (lower + 1).min(last);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// The larger one; NaN if either is, but infinity wins.
pub(crate) fn larger(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// The smaller one; NaN if either is, but minus infinity wins.
pub(crate) fn smaller(a: f64, b: f64) -> f64 {
    -larger(-a, -b)
}

/// Least squares over samples, as value at `origin` and change per second. Needs two samples.
pub(crate) fn regression(ts: &[i64], values: &[f64], origin: i64) -> Option<(f64, f64)> {
    let first = *values.first()?;
    if values.len() < 2 {
        return None;
    }
    if values.iter().all(|value| *value == first) {
        return Some(if first.is_infinite() { (f64::NAN, f64::NAN) } else { (first, 0.0) });
    }
    let (mut sum_x, mut sum_y, mut sum_xy, mut sum_xx) = (Sum::default(), Sum::default(), Sum::default(), Sum::default());
    for (at, value) in ts.iter().zip(values) {
        let x = (at - origin) as f64 / 1_000.0;
        sum_x.add(x);
        sum_y.add(*value);
        sum_xy.add(x * value);
        sum_xx.add(x * x);
    }
    let count = values.len() as f64;
    let (x, y) = (sum_x.total(), sum_y.total());
    let covariance = sum_xy.total() - x * y / count;
    let variance = sum_xx.total() - x * x / count;
    let slope = covariance / variance;
    Some((y / count - slope * x / count, slope))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_keep_small_parts() {
        assert_eq!(sum(&[1e100, 1.0, -1e100]), 1.0);
        assert_eq!(sum(&[f64::INFINITY, 1.0]), f64::INFINITY);
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
        assert_eq!(mean(&[f64::MAX, f64::MAX]), f64::MAX);
        assert_eq!(mean(&[f64::INFINITY, 1.0]), f64::INFINITY);
    }

    #[test]
    fn nan_has_its_places() {
        assert_eq!((min(&[f64::NAN, 2.0, 1.0]), max(&[f64::NAN, 2.0, 1.0])), (1.0, 2.0));
        assert!(max(&[f64::NAN]).is_nan());
        assert!(larger(1.0, f64::NAN).is_nan());
        assert_eq!((larger(f64::INFINITY, f64::NAN), smaller(f64::NAN, f64::NEG_INFINITY)), (f64::INFINITY, f64::NEG_INFINITY));
        assert_eq!((larger(-1.0, 2.0), smaller(-1.0, 2.0)), (2.0, -1.0));
    }

    #[test]
    fn quantiles_lie_between_values() {
        for (q, expected) in [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0), (0.9, 3.7), (-1.0, f64::NEG_INFINITY), (2.0, f64::INFINITY)] {
            let found = quantile(q, &mut [4.0, 1.0, 3.0, 2.0]);
            assert!((found - expected).abs() < 1e-12 || found == expected, "{q}: {found}");
        }
        assert!(quantile(f64::NAN, &mut [1.0]).is_nan());
    }
}
