//! What a line says of itself: its time and its severity. Looks at the beginning only.

use jiff::{Timestamp, Zoned, civil, tz::TimeZone};
use shipwatch_common::{model::Severity, time::UnixNs};

/// How far into a line a time may begin.
const TIME_WITHIN: usize = 48;
/// How far into a line a severity may stand.
const SEVERITY_WITHIN: usize = 256;
const DAY_NS: i64 = 86_400_000_000_000;

/// The time of a line; `now` where it says none, or one that cannot be (over a day ahead, over ten years ago).
pub(super) fn time(line: &str, now: UnixNs, zone: &TimeZone) -> UnixNs {
    parse_time(line, now, zone).filter(|at| *at < now + DAY_NS && *at > now - 3650 * DAY_NS).unwrap_or(now)
}

fn parse_time(line: &str, now: UnixNs, zone: &TimeZone) -> Option<UnixNs> {
    let bytes = line.as_bytes();
    let limit = bytes.len().min(TIME_WITHIN);
    for at in 0..limit {
        let rest = &bytes[at..];
        let starts = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
        if !starts || !rest.first().is_some_and(u8::is_ascii_alphanumeric) {
            continue;
        }
        if let Some(found) = iso(rest, zone).or_else(|| common_log(rest)).or_else(|| (at < 6).then(|| syslog(rest, now, zone)).flatten()) {
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
    let (hour, minute, second, mut rest) = clock(bytes, 11)?;
    let mut fraction_ns = 0;
    if matches!(rest.first(), Some(b'.' | b',')) {
        let count = rest[1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        fraction_ns = rest[1..].iter().take(count.min(9)).fold(0, |value, digit| value * 10 + i32::from(digit - b'0'));
        fraction_ns *= 10i32.pow(u32::try_from(9 - count.min(9)).ok()?);
        rest = &rest[1 + count..];
    }
    let date = civil::DateTime::new(i16::try_from(year).ok()?, small(month)?, small(day)?, hour, minute, second, fraction_ns).ok()?;
    let offset = match rest.first() {
        Some(b'Z') => Some(0),
        Some(sign @ (b'+' | b'-')) => {
            let hours = digits(rest, 1, 2)?;
            let minutes = digits(rest, if rest.get(3) == Some(&b':') { 4 } else { 3 }, 2)?;
            Some(if *sign == b'-' { -1 } else { 1 } * (hours * 3600 + minutes * 60))
        }
        _ => None,
    };
    let zone = match offset {
        Some(seconds) => TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).ok()?),
        None => zone.clone(),
    };
    nanos(date.to_zoned(zone).ok()?.timestamp())
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

/// `Nov 23 08:00:00` of syslog: without a year; the one that is nearest to now, never over a day ahead.
fn syslog(bytes: &[u8], now: UnixNs, zone: &TimeZone) -> Option<UnixNs> {
    let month = month(bytes.get(..3)?)?;
    if bytes.get(3) != Some(&b' ') {
        return None;
    }
    let day = match (bytes.get(4)?, bytes.get(5)?) {
        (b' ', digit @ b'0'..=b'9') => i8::try_from(digit - b'0').ok()?,
        _ => small(digits(bytes, 4, 2)?)?,
    };
    let (hour, minute, second, _) = clock(bytes, 7)?;
    let today: Zoned = Timestamp::from_nanosecond(i128::from(now)).ok()?.to_zoned(zone.clone());
    let at =
        |year: i16| nanos(civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?.to_zoned(zone.clone()).ok()?.timestamp());
    at(today.year()).filter(|at| *at < now + DAY_NS).or_else(|| at(today.year() - 1))
}

/// The first word that names a severity.
pub(super) fn severity(line: &str) -> Severity {
    let bytes = line.as_bytes();
    let end = bytes.len().min(SEVERITY_WITHIN);
    let mut at = 0;
    while at < end {
        if !bytes[at].is_ascii_alphabetic() {
            at += 1;
            continue;
        }
        let start = at;
        while at < end && bytes[at].is_ascii_alphanumeric() {
            at += 1;
        }
        let word = &bytes[start..at];
        let before = start.checked_sub(1).map(|at| bytes[at]);
        // Lower case only where it is a value or stands in brackets: `error` in running text says nothing.
        let marked = matches!(before, Some(b'[' | b'=' | b'"' | b'<' | b'|'))
            || (before == Some(b':') && bytes.get(start.wrapping_sub(2)) == Some(&b'"'));
        if word.iter().all(u8::is_ascii_uppercase)
            || (marked && bytes.get(at).is_none_or(|next| !matches!(next, b'=' | b'_' | b'-' | b'.')) && !is_key(bytes, at))
        {
            let found = named(word);
            if found != Severity::Unknown {
                return found;
            }
        }
    }
    Severity::Unknown
}

/// `"error":` is a key, not a value.
fn is_key(bytes: &[u8], end: usize) -> bool {
    bytes.get(end) == Some(&b'"') && bytes[end + 1..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

fn named(word: &[u8]) -> Severity {
    match word.to_ascii_lowercase().as_slice() {
        b"trace" | b"finest" => Severity::Trace,
        b"debug" | b"dbg" | b"fine" => Severity::Debug,
        b"info" | b"information" | b"notice" => Severity::Info,
        b"warn" | b"warning" => Severity::Warn,
        b"error" | b"err" | b"severe" => Severity::Error,
        b"fatal" | b"critical" | b"crit" | b"panic" | b"emerg" | b"alert" => Severity::Fatal,
        _ => Severity::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNs = 1_795_420_800_000_000_000; // 2026-11-23T08:00:00Z

    #[test]
    fn times_are_read() {
        let zone = TimeZone::fixed(jiff::tz::Offset::from_hours(8).unwrap());
        let ms = |text: &str| (time(text, NOW, &zone) - NOW) / 1_000_000;
        for (line, expected) in [
            ("2026-11-23T07:59:59.5Z x", -500),
            ("2026-11-23 16:00:00,250 INFO", 250),
            ("[2026-11-23T08:00:01+00:00] x", 1_000),
            ("10.0.0.1 - - [23/Nov/2026:08:00:00 +0000] \"GET\"", 0),
            ("Nov 23 15:59:00 host sshd", -60_000),
            ("2026/11/23 16:00:03 [error] x", 3_000),
            ("no time at all", 0),
            ("2099-01-01T00:00:00Z", 0),
            ("id 12345-67-89T", 0),
        ] {
            assert_eq!(ms(line), expected, "{line}");
        }
        // In January a line of December is of the last year.
        let january = NOW + 45 * DAY_NS;
        assert!(time("Dec 31 23:59:00 x", january, &zone) < january);
    }

    #[test]
    fn severities_are_told() {
        for (line, expected) in [
            ("2026-11-23 16:00:00 ERROR x", Severity::Error),
            ("[error] 12#0: upstream", Severity::Error),
            (r#"{"level":"warn","msg":"error"}"#, Severity::Warn),
            ("time=x level=debug msg=y", Severity::Debug),
            ("no error here", Severity::Unknown),
            (r#"{"error":null,"level":"info"}"#, Severity::Info),
            ("GET /ERRORS HTTP", Severity::Unknown),
            ("", Severity::Unknown),
        ] {
            assert_eq!(severity(line), expected, "{line}");
        }
    }
}
