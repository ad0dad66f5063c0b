//! Time functions, and times and durations as Prometheus' API writes them. UTC.

use crate::calendar::{civil, days_from_civil, days_in_month};
use shipwatch_common::time::UnixMs;

/// What a time function asks of a time in Unix seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Field {
    Minute,
    Hour,
    DayOfWeek,
    DayOfMonth,
    DayOfYear,
    DaysInMonth,
    Month,
    Year,
}

/// A part of the calendar; NaN for what is no time.
pub(crate) fn field(field: Field, unix_s: f64) -> f64 {
    // Beyond this no year is four digits and the arithmetic below loses its meaning.
    if !(-1e14..=1e14).contains(&unix_s) {
        return f64::NAN;
    }
    let seconds = unix_s as i64;
    let days = seconds.div_euclid(86_400);
    let second_of_day = seconds.rem_euclid(86_400);
    let date = civil(days);
    (match field {
        Field::Minute => second_of_day / 60 % 60,
        Field::Hour => second_of_day / 3_600,
        Field::DayOfWeek => (days + 4).rem_euclid(7),
        Field::DayOfMonth => date.day,
        Field::DayOfYear => days - days_from_civil(date.year, 1, 1) + 1,
        Field::DaysInMonth => days_in_month(date.year, date.month),
        Field::Month => date.month,
        Field::Year => date.year,
    }) as f64
}

/// Reads a time parameter: Unix seconds, possibly with a fraction, or RFC 3339.
///
/// # Errors
/// The text says what was expected.
pub fn parse_time(text: &str) -> Result<UnixMs, String> {
    let wrong = || format!("cannot parse `{text}` to a valid timestamp: write Unix seconds or RFC 3339, such as 2026-11-23T08:00:00Z");
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds * 1_000.0).round();
        return if ms.abs() <= 9.2e18 / 1_000.0 { Ok(ms as i64) } else { Err(wrong()) };
    }
    rfc3339(text).ok_or_else(wrong)
}

fn rfc3339(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let mark = |at: usize, any: &[u8]| text.as_bytes().get(at).is_some_and(|byte| any.contains(byte));
    if !(mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt ") && mark(13, b":") && mark(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut ms = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let len = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if len == 0 {
            return None;
        }
        ms = format!("{:0<3}", &fraction[..len]).get(..3)?.parse().ok()?;
        rest = &fraction[len..];
    }
    let offset_minutes = match rest.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) => {
            let two = |a: &u8, b: &u8| i64::from(a - b'0') * 10 + i64::from(b - b'0');
            let (hours, minutes) = (two(h1, h2), two(m1, m2));
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset_minutes * 60;
    Some(seconds * 1_000 + ms)
}

/// Reads a step or timeout parameter: seconds, possibly with a fraction, or a duration such as `1m30s`. Milliseconds.
///
/// # Errors
/// The text says what was expected.
pub fn parse_step(text: &str) -> Result<i64, String> {
    let wrong = || format!("cannot parse `{text}` to a valid duration: write seconds, or a number with a unit such as 30s or 5m");
    let ms = match text.parse::<f64>() {
        Ok(seconds) => (seconds * 1_000.0).round(),
        Err(_) => shipwatch_common::time::parse_duration(text).map_err(|_| wrong())?.as_millis() as f64,
    };
    // A thousand years: no step is longer, and sums with times cannot overflow.
    if ms.abs() <= 3.2e13 { Ok(ms as i64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_known_times() {
        // 2024-02-29T23:59:59Z, a Thursday, day 60 of a leap year.
        let expected = [59.0, 23.0, 4.0, 29.0, 60.0, 29.0, 2.0, 2024.0];
        let fields = [
            Field::Minute,
            Field::Hour,
            Field::DayOfWeek,
            Field::DayOfMonth,
            Field::DayOfYear,
            Field::DaysInMonth,
            Field::Month,
            Field::Year,
        ];
        for (which, value) in fields.into_iter().zip(expected) {
            assert_eq!(field(which, 1_709_251_199.0), value, "{which:?}");
            assert!(field(which, f64::NAN).is_nan() && field(which, f64::INFINITY).is_nan());
        }
    }

    #[test]
    fn times_read() {
        for (text, ms) in [
            ("4", 4_000),
            ("1435781430.781", 1_435_781_430_781),
            ("-1.5", -1_500),
            ("2015-07-01T20:10:30.781Z", 1_435_781_430_781),
            ("2015-07-02T04:10:30.7819+08:00", 1_435_781_430_781),
            ("2015-07-01T20:10:30Z", 1_435_781_430_000),
            ("1e3", 1_000_000),
        ] {
            assert_eq!(parse_time(text), Ok(ms), "{text}");
        }
        for bad in [
            "",
            "now",
            "NaN",
            "Inf",
            "1e300",
            "2015-07-01",
            "2015-02-29T00:00:00Z",
            "2015-07-01T20:10:30",
            "2015-07-01T24:00:00Z",
            "2015-07-01T20:10:30.Z",
            "２０15-07-01T20:10:30Z",
        ] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_read() {
        for (text, ms) in [("15", 15_000), ("0.5", 500), ("1m30s", 90_000), ("5m", 300_000), ("-1", -1_000)] {
            assert_eq!(parse_step(text), Ok(ms), "{text}");
        }
        for bad in ["", "x", "NaN", "1e300", "5 m"] {
            assert!(parse_step(bad).is_err(), "{bad}");
        }
    }
}
