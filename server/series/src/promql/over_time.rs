//! `*_over_time`: one number of all the samples in a range.

use super::{rate, select::Window, statistics};

/// The function of this name, if it takes a range only.
pub(crate) fn named(name: &str) -> Option<fn(&Window<'_>) -> Option<f64>> {
    Some(match name {
        "avg_over_time" => |window| Some(statistics::mean(window.values)),
        "min_over_time" => |window| Some(statistics::min(window.values)),
        "max_over_time" => |window| Some(statistics::max(window.values)),
        "sum_over_time" => |window| Some(statistics::sum(window.values)),
        "count_over_time" => |window| Some(window.values.len() as f64),
        "last_over_time" => |window| window.values.last().copied(),
        "first_over_time" => |window| window.values.first().copied(),
        "present_over_time" => |_| Some(1.0),
        "stddev_over_time" => |window| Some(statistics::variance_over_time(window.values).sqrt()),
        "stdvar_over_time" => |window| Some(statistics::variance_over_time(window.values)),
        "mad_over_time" => |window| Some(statistics::median_absolute_deviation(window.values)),
        "ts_of_first_over_time" => |window| window.ts.first().map(|ts| seconds(*ts)),
        "ts_of_last_over_time" => |window| window.ts.last().map(|ts| seconds(*ts)),
        "ts_of_max_over_time" => |window| last_extreme(window, |value, most| value >= most),
        "ts_of_min_over_time" => |window| last_extreme(window, |value, least| value <= least),
        "rate" => |window| rate::extrapolated(window, true, true),
        "increase" => |window| rate::extrapolated(window, true, false),
        "delta" => |window| rate::extrapolated(window, false, false),
        "irate" => |window| rate::last_two(window, true),
        "idelta" => |window| rate::last_two(window, false),
        "deriv" => rate::deriv,
        "resets" => rate::resets,
        "changes" => rate::changes,
        _ => return None,
    })
}

/// Whether the metric keeps its name: the value is still one of its own.
pub(crate) fn keeps_name(name: &str) -> bool {
    matches!(name, "last_over_time" | "first_over_time")
}

const fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

/// The time of the last sample that is as far out as any; NaN counts only where there is nothing else.
fn last_extreme(window: &Window<'_>, beats: fn(f64, f64) -> bool) -> Option<f64> {
    let (mut at, mut extreme) = (*window.ts.first()?, *window.values.first()?);
    for (ts, value) in window.ts.iter().zip(window.values) {
        if beats(*value, extreme) || extreme.is_nan() {
            (at, extreme) = (*ts, *value);
        }
    }
    Some(seconds(at))
}
