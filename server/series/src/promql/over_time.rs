//! `*_over_time`: one number of all the samples in a range.

use super::{select::Window, statistics};

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
        "stddev_over_time" => |window| Some(statistics::variance(window.values).sqrt()),
        "stdvar_over_time" => |window| Some(statistics::variance(window.values)),
        "rate" => |window| super::rate::extrapolated(window, true, true),
        "increase" => |window| super::rate::extrapolated(window, true, false),
        "delta" => |window| super::rate::extrapolated(window, false, false),
        "irate" => |window| super::rate::last_two(window, true),
        "idelta" => |window| super::rate::last_two(window, false),
        "deriv" => super::rate::deriv,
        "resets" => super::rate::resets,
        "changes" => super::rate::changes,
        _ => return None,
    })
}

/// Whether the metric keeps its name: the value is still one of its own.
pub(crate) fn keeps_name(name: &str) -> bool {
    matches!(name, "last_over_time" | "first_over_time")
}
