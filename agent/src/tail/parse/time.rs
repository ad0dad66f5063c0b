//! When a line happened. Looks at its beginning only, or at the field that holds the time.
//!
//! Pure: now and the zone are arguments. A time without a zone is of the given one; one without a year is of the year that
//! brings it nearest to now; one that cannot be is none.

use jiff::{Timestamp, Zoned, civil, fmt::strtime::BrokenDownTime, tz::TimeZone};
use shipwatch_common::time::UnixNs;

/// How far into a line a time may begin.
const TIME_WITHIN: usize = 48;
const DAY_NS: i64 = 86_400_000_000_000;

/// A time that can be: at most a day ahead and ten years ago.
fn likely(at: UnixNs, now: UnixNs) -> bool {
    at < now.saturating_add(DAY_NS) && at > now.saturating_sub(3650 * DAY_NS)
}

/// The time that a line says.
pub(super) fn of_text(line: &str, now: UnixNs, zone: &TimeZone) -> Option<UnixNs> {
    scan(line, now, zone).filter(|at| likely(*at, now))
}

/// The time that a field says; a number is one since 1970 in seconds, milliseconds, microseconds or nanoseconds.
pub(super) fn of_field(value: &str, now: UnixNs, zone: &TimeZone) -> Option<UnixNs> {
    epoch(value).filter(|at| likely(*at, now)).or_else(|| of_text(value, now, zone))
}

/// The time in a format of `strptime` at the beginning of a text.
pub(super) fn formatted(format: &str, text: &str, now: UnixNs, zone: &TimeZone) -> Option<UnixNs> {
    let text = text.trim_start_matches(['[', ' ', '"']);
    let (mut parsed, _) = BrokenDownTime::parse_prefix(format, text).ok()?;
    if parsed.year().is_none() && parsed.month().is_some() {
        return years(now, zone, |year| {
            parsed.set_year(Some(year)).ok()?;
            absolute(&parsed, zone)
        });
    }
    absolute(&parsed, zone).filter(|at| likely(*at, now))
}

fn absolute(parsed: &BrokenDownTime, zone: &TimeZone) -> Option<UnixNs> {
    if let Ok(timestamp) = parsed.to_timestamp() {
        return nanos(timestamp);
    }
    nanos(parsed.to_datetime().ok()?.to_zoned(zone.clone()).ok()?.timestamp())
}

/// `1763884800`, `1763884800.123`, `1763884800123` and so on, told by their size.
fn epoch(value: &str) -> Option<UnixNs> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let unit: i64 = match whole.len() {
        9..=10 => 1_000_000_000,
        12..=13 => 1_000_000,
        15..=16 => 1_000,
        18..=19 => 1,
        _ => return None,
    };
    let digits = &fraction[..fraction.len().min(9)];
    let numerator: i64 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let part = numerator * unit / 10i64.pow(u32::try_from(digits.len()).ok()?);
    whole.parse::<i64>().ok()?.checked_mul(unit)?.checked_add(part)
}

fn scan(line: &str, now: UnixNs, zone: &TimeZone) -> Option<UnixNs> {
    let bytes = line.as_bytes();
    let limit = bytes.len().min(TIME_WITHIN);
    for at in 0..limit {
        let rest = &bytes[at..];
        let starts = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
        if !starts || !rest.first().is_some_and(u8::is_ascii_alphanumeric) {
            continue;
        }
        if let Some(found) = iso(rest, zone)
            .or_else(|| common_log(rest))
            .or_else(|| (at < 12).then(|| month_first(rest, now, zone)).flatten())
            .or_else(|| (at == 0).then(|| klog(rest, now, zone)).flatten())
        {
            return Some(found);
        }
    }
    None
}

fn digits(bytes: &[u8], at: usize, count: usize) -> Option<i32> {
    let slice = bytes.get(at..at + count)?;
    slice.iter().all(u8::is_ascii_digit).then(|| slice.iter().fold(0, |value, digit| value * 10 + i32::from(digit - b'0')))
}

fn small(value: i32) -> Option<i8> {
    i8::try_from(value).ok()
}

fn nanos(timestamp: Timestamp) -> Option<UnixNs> {
    i64::try_from(timestamp.as_nanosecond()).ok()
}

/// `2026-11-23T08:00:00.123Z`, with a space, a comma, an offset, or the host's own zone.
fn iso(bytes: &[u8], zone: &TimeZone) -> Option<UnixNs> {
    let separator = *bytes.get(4)?;
    if !matches!(separator, b'-' | b'/') || *bytes.get(7)? != separator || !matches!(bytes.get(10)?, b'T' | b' ') {
        return None;
    }
    let (year, month, day) = (digits(bytes, 0, 4)?, digits(bytes, 5, 2)?, digits(bytes, 8, 2)?);
    let (hour, minute, second, rest) = clock(bytes, 11)?;
    let (fraction_ns, rest) = fraction(rest)?;
    let date = civil::DateTime::new(i16::try_from(year).ok()?, small(month)?, small(day)?, hour, minute, second, fraction_ns).ok()?;
    let offset = match rest.first() {
        Some(b'Z') => Some(0),
        Some(sign @ (b'+' | b'-')) => {
            let hours = digits(rest, 1, 2)?;
            let minutes = digits(rest, if rest.get(3) == Some(&b':') { 4 } else { 3 }, 2)?;
            Some(if *sign == b'-' { -1 } else { 1 } * (hours * 3600 + minutes * 60))
        }
        Some(b' ') if matches!(rest.get(1..4), Some(b"UTC" | b"GMT")) => Some(0),
        _ => None,
    };
    let zone = match offset {
        Some(seconds) => TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).ok()?),
        None => zone.clone(),
    };
    nanos(date.to_zoned(zone).ok()?.timestamp())
}

/// `.123` or `,123`, as nanoseconds, and what is behind it.
fn fraction(bytes: &[u8]) -> Option<(i32, &[u8])> {
    if !matches!(bytes.first(), Some(b'.' | b',')) {
        return Some((0, bytes));
    }
    let count = bytes[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = bytes[1..].iter().take(count.min(9)).fold(0, |value, digit| value * 10 + i32::from(digit - b'0'));
    Some((digits * 10i32.pow(u32::try_from(9 - count.min(9)).ok()?), &bytes[1 + count..]))
}

fn clock(bytes: &[u8], at: usize) -> Option<(i8, i8, i8, &[u8])> {
    if *bytes.get(at + 2)? != b':' || *bytes.get(at + 5)? != b':' {
        return None;
    }
    // A leap second is shown as the last ordinary one.
    let second = digits(bytes, at + 6, 2)?.min(59);
    Some((small(digits(bytes, at, 2)?)?, small(digits(bytes, at + 3, 2)?)?, small(second)?, &bytes[at + 8..]))
}

const MONTHS: [&[u8]; 12] = [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

fn month(name: &[u8]) -> Option<i8> {
    MONTHS.iter().position(|known| *known == name).and_then(|at| i8::try_from(at + 1).ok())
}

/// `23/Nov/2026:08:00:00 +0000` of nginx and Apache.
fn common_log(bytes: &[u8]) -> Option<UnixNs> {
    if *bytes.get(2)? != b'/' || *bytes.get(6)? != b'/' || *bytes.get(11)? != b':' {
        return None;
    }
    let (hour, minute, second, rest) = clock(bytes, 12)?;
    let date = civil::DateTime::new(
        i16::try_from(digits(bytes, 7, 4)?).ok()?,
        month(&bytes[3..6])?,
        small(digits(bytes, 0, 2)?)?,
        hour,
        minute,
        second,
        0,
    )
    .ok()?;
    let sign = match rest.get(1)? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let seconds = sign * (digits(rest, 2, 2)? * 3600 + digits(rest, 4, 2)? * 60);
    nanos(date.to_zoned(TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).ok()?)).ok()?.timestamp())
}

/// `Nov 23 08:00:00` of syslog, without a year, or `Nov 23 08:00:00.123 2026` of Apache, with one.
fn month_first(bytes: &[u8], now: UnixNs, zone: &TimeZone) -> Option<UnixNs> {
    let month = month(bytes.get(..3)?)?;
    if bytes.get(3) != Some(&b' ') {
        return None;
    }
    let day = match (bytes.get(4)?, bytes.get(5)?) {
        (b' ', digit @ b'0'..=b'9') => i8::try_from(digit - b'0').ok()?,
        _ => small(digits(bytes, 4, 2)?)?,
    };
    let (hour, minute, second, rest) = clock(bytes, 7)?;
    let (fraction_ns, rest) = fraction(rest)?;
    let at = |year: i16| in_zone(civil::DateTime::new(year, month, day, hour, minute, second, fraction_ns).ok()?, zone);
    let is_year = rest.first() == Some(&b' ') && !rest.get(5).is_some_and(u8::is_ascii_alphanumeric);
    match digits(rest, 1, 4).filter(|year| is_year && (1970..2200).contains(year)) {
        Some(year) => at(i16::try_from(year).ok()?),
        None => years(now, zone, at),
    }
}

/// `I1123 08:00:00.123456` of Kubernetes.
fn klog(bytes: &[u8], now: UnixNs, zone: &TimeZone) -> Option<UnixNs> {
    if !matches!(bytes.first()?, b'I' | b'W' | b'E' | b'F') || bytes.get(5) != Some(&b' ') {
        return None;
    }
    let (month, day) = (small(digits(bytes, 1, 2)?)?, small(digits(bytes, 3, 2)?)?);
    let (hour, minute, second, rest) = clock(bytes, 6)?;
    let (fraction_ns, _) = fraction(rest)?;
    years(now, zone, |year| in_zone(civil::DateTime::new(year, month, day, hour, minute, second, fraction_ns).ok()?, zone))
}

fn in_zone(time: civil::DateTime, zone: &TimeZone) -> Option<UnixNs> {
    nanos(time.to_zoned(zone.clone()).ok()?.timestamp())
}

/// The time of the year that is nearest to now, never over a day ahead.
fn years(now: UnixNs, zone: &TimeZone, mut at: impl FnMut(i16) -> Option<UnixNs>) -> Option<UnixNs> {
    let today: Zoned = Timestamp::from_nanosecond(i128::from(now)).ok()?.to_zoned(zone.clone());
    (-1..=1).filter_map(|more| at(today.year() + more)).filter(|at| likely(*at, now)).min_by_key(|at| at.abs_diff(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNs = 1_795_420_800_000_000_000; // 2026-11-23T08:00:00Z
    const SECOND: i64 = 1_000_000_000;

    fn zone() -> TimeZone {
        TimeZone::fixed(jiff::tz::Offset::from_hours(8).unwrap())
    }

    #[test]
    fn times_are_read() {
        let ms = |text: &str| of_text(text, NOW, &zone()).map(|at| (at - NOW) / 1_000_000);
        for (line, expected) in [
            ("2026-11-23T07:59:59.5Z x", Some(-500)),
            ("2026-11-23 16:00:00,250 INFO", Some(250)),
            ("[2026-11-23T08:00:01+00:00] x", Some(1_000)),
            ("2026-11-23 08:00:00.100 UTC [77] LOG:  x", Some(100)),
            ("10.0.0.1 - - [23/Nov/2026:08:00:00 +0000] \"GET\"", Some(0)),
            ("Nov 23 15:59:00 host sshd", Some(-60_000)),
            ("[Mon Nov 23 16:00:00.250000 2026] [core:error] x", Some(250)),
            ("2026/11/23 16:00:03 [error] x", Some(3_000)),
            ("I1123 16:00:01.500000 1 main.go:7] x", Some(1_500)),
            ("no time at all", None),
            ("2099-01-01T00:00:00Z", None),
            ("2026-13-40T00:00:00Z", None),
            ("id 12345-67-89T", None),
        ] {
            assert_eq!(ms(line), expected, "{line}");
        }
    }

    #[test]
    fn a_missing_year_is_the_nearest() {
        let day = |text: &str, now: UnixNs| of_text(text, now, &zone()).map(|at| (at - now) / DAY_NS);
        let january = NOW + 40 * DAY_NS;
        assert_eq!(day("Dec 31 23:59:00 x", january), Some(-1));
        // On the last evening of the year a clock that is ahead writes of the next.
        let eve = NOW + 38 * DAY_NS + 7 * 3600 * SECOND + 1800 * SECOND;
        assert_eq!(day("Jan  1 00:00:01 x", eve), Some(0));
        assert_eq!(formatted("%m-%d %H:%M:%S", "12-31 23:59:00 x", january, &zone()).map(|at| (at - january) / DAY_NS), Some(-1));
    }

    #[test]
    fn fields_and_formats() {
        let ms = |text: &str| of_field(text, NOW, &zone()).map(|at| (at - NOW) / 1_000_000);
        assert_eq!(ms("1795420800"), Some(0));
        assert_eq!(ms("1795420800.25"), Some(250));
        assert_eq!(ms("1795420800123"), Some(123));
        assert_eq!(ms("1795420800123000000"), Some(123));
        assert_eq!(ms("2026-11-23T08:00:00Z"), Some(0));
        assert_eq!(ms("42"), None);
        let form = |format: &str, text: &str| formatted(format, text, NOW, &zone()).map(|at| (at - NOW) / SECOND);
        assert_eq!(form("%d.%m.%Y %H:%M:%S", "23.11.2026 16:00:05 x"), Some(5));
        assert_eq!(form("%Y%m%d-%H%M%S%z", "20261123-080006+0000 x"), Some(6));
        assert_eq!(form("%d.%m.%Y", "no time"), None);
    }

    #[test]
    fn nothing_makes_it_panic() {
        for text in
            ["支付2026-11-23T", "2026-11-23T99:99:99", "Nov", "Nov 2", "I11", "2026-11-23 08:00:00.", "2026-11-23 08:00:00+", "9.9.9"]
        {
            let _any = (of_text(text, NOW, &zone()), of_field(text, NOW, &zone()), formatted("%Y", text, NOW, &zone()));
        }
    }
}
