//! What Loki's clients send: times, steps, limits.

use super::LokiError;
use shipwatch_common::time::UnixNs;
use shipwatch_logs::Direction;
use shipwatch_series::http::Params;

const SECOND_NS: i64 = 1_000_000_000;
pub(super) const HOUR_NS: i64 = 3_600 * SECOND_NS;
/// Lines that a log query gives when it does not say.
const LIMIT: usize = 100;
/// Most lines of a log query.
pub(super) const LIMIT_MAX: usize = 5_000;

/// A time: nanoseconds, seconds with or without a fraction, or RFC 3339. Whole numbers of up to ten digits are seconds.
pub(super) fn time(text: &str) -> Option<UnixNs> {
    if let Ok(number) = text.parse::<i64>() {
        let digits = text.trim_start_matches('-').len();
        return if digits <= 10 { number.checked_mul(SECOND_NS) } else { Some(number) };
    }
    if let Ok(seconds) = text.parse::<f64>() {
        // In two parts: a double of nanoseconds has not enough digits.
        let whole = seconds.trunc();
        let nanos = ((seconds - whole) * 1e3).round() * 1e6;
        return (whole.abs() < 9.2e9).then(|| (whole as i64) * SECOND_NS + nanos as i64);
    }
    let at: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(at.as_nanosecond()).ok()
}

/// A length of time: seconds, or a duration such as `5m`.
pub(super) fn length(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds.abs() < 9.2e9).then_some((seconds * 1e9) as i64);
    }
    shipwatch_logs::logql::parse_duration(text)
}

fn wrong(name: &str, text: &str, what: &str) -> LokiError {
    LokiError::bad_request(format!("{name}: {:?} is not {what}", text.chars().take(80).collect::<String>()))
}

fn time_of(parameters: &Params<'_>, name: &str) -> Result<Option<UnixNs>, LokiError> {
    let read = |text: &str| time(text).ok_or_else(|| wrong(name, text, "a time: nanoseconds, seconds or RFC 3339"));
    parameters.get(name).map(read).transpose()
}

fn length_of(parameters: &Params<'_>, name: &str) -> Result<Option<i64>, LokiError> {
    let read = |text: &str| length(text).ok_or_else(|| wrong(name, text, "a duration such as 5m, or seconds"));
    parameters.get(name).map(read).transpose()
}

/// Begin and end; without them the last `since` up to now.
pub(super) fn range(parameters: &Params<'_>, now_ns: UnixNs, otherwise_ns: i64) -> Result<(UnixNs, UnixNs), LokiError> {
    let end = time_of(parameters, "end")?.unwrap_or(now_ns);
    let since = length_of(parameters, "since")?.unwrap_or(otherwise_ns);
    let start = time_of(parameters, "start")?.unwrap_or_else(|| end.min(now_ns).saturating_sub(since));
    if start > end {
        return Err(LokiError::bad_request("end timestamp must not be before or equal to start time"));
    }
    Ok((start, end))
}

/// The time of an instant query.
pub(super) fn instant(parameters: &Params<'_>, now_ns: UnixNs) -> Result<UnixNs, LokiError> {
    Ok(time_of(parameters, "time")?.unwrap_or(now_ns))
}

/// The step of a range query; without it 250 steps, of a second at least.
pub(super) fn step(parameters: &Params<'_>, start_ns: UnixNs, end_ns: UnixNs) -> Result<i64, LokiError> {
    let otherwise = (end_ns.saturating_sub(start_ns) / 250 / SECOND_NS).max(1).saturating_mul(SECOND_NS);
    let step = length_of(parameters, "step")?.unwrap_or(otherwise);
    if step > 0 {
        Ok(step)
    } else {
        Err(LokiError::bad_request("zero or negative query resolution step widths are not accepted. Try a positive integer"))
    }
}

/// Least time between two lines.
pub(super) fn interval(parameters: &Params<'_>) -> Result<i64, LokiError> {
    match length_of(parameters, "interval")?.unwrap_or(0) {
        interval if interval >= 0 => Ok(interval),
        _ => Err(LokiError::bad_request("interval must be >= 0")),
    }
}

/// Most lines.
pub(super) fn limit(parameters: &Params<'_>, otherwise: Option<usize>) -> Result<usize, LokiError> {
    let Some(text) = parameters.get("limit") else { return Ok(otherwise.unwrap_or(LIMIT)) };
    match text.parse::<i64>() {
        Ok(limit) if limit > LIMIT_MAX as i64 => Err(LokiError::bad_request(format!(
            "max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {LIMIT_MAX})"
        ))),
        Ok(limit) if limit > 0 => Ok(usize::try_from(limit).unwrap_or(LIMIT_MAX)),
        Ok(_) => Err(LokiError::bad_request("limit must be a positive value")),
        Err(_) => Err(wrong("limit", text, "a whole number")),
    }
}

/// Newest or oldest first.
pub(super) fn direction(parameters: &Params<'_>) -> Result<Direction, LokiError> {
    match parameters.get("direction").map(str::to_ascii_lowercase).as_deref() {
        None | Some("backward") => Ok(Direction::Backward),
        Some("forward") => Ok(Direction::Forward),
        Some(other) => Err(LokiError::bad_request(format!("invalid direction {other:?}; it is forward or backward"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_each_form() {
        for (text, ns) in [
            ("1700000000", Some(1_700_000_000_000_000_000)),
            ("1700000000123456789", Some(1_700_000_000_123_456_789)),
            ("1700000000.5", Some(1_700_000_000_500_000_000)),
            ("1700000000.123", Some(1_700_000_000_123_000_000)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000_000_000)),
            ("2023-11-15T06:13:20.000000001+08:00", Some(1_700_000_000_000_000_001)),
            ("0", Some(0)),
            ("yesterday", None),
            ("1e300", None),
        ] {
            assert_eq!(time(text), ns, "{text}");
        }
        for (text, ns) in [("15", Some(15_000_000_000)), ("0.5", Some(500_000_000)), ("1h30m", Some(5_400_000_000_000)), ("x", None)] {
            assert_eq!(length(text), ns, "{text}");
        }
    }

    #[test]
    fn ranges_have_defaults_and_bounds() {
        let given =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>();
        let now = 10_000 * SECOND_NS;
        for (pairs, expected) in [
            (given(&[]), Some((now - HOUR_NS, now))),
            (given(&[("since", "10m")]), Some((now - 600 * SECOND_NS, now))),
            (given(&[("end", "9000"), ("since", "60")]), Some((8_940 * SECOND_NS, 9_000 * SECOND_NS))),
            (given(&[("start", "1"), ("end", "2")]), Some((SECOND_NS, 2 * SECOND_NS))),
            (given(&[("start", "2"), ("end", "1")]), None),
        ] {
            assert_eq!(range(&Params(&pairs), now, HOUR_NS).ok(), expected, "{pairs:?}");
        }
        let limits = [("5000", Some(5_000)), ("5001", None), ("0", None), ("-1", None), ("x", None), ("", Some(100))];
        for (text, expected) in limits {
            assert_eq!(limit(&Params(&given(&[("limit", text)])), None).ok(), expected, "{text}");
        }
        assert_eq!(step(&Params(&[]), 0, 500 * SECOND_NS).ok(), Some(2 * SECOND_NS));
        assert!(step(&Params(&given(&[("step", "0")])), 0, 1).is_err());
        assert_eq!(direction(&Params(&given(&[("direction", "FORWARD")]))).ok(), Some(Direction::Forward));
    }
}
