//! Time as numbers. Nothing in here reads the clock: callers pass the time in.

/// Milliseconds since the Unix epoch, UTC. Sample times, state changes, certificates.
pub type UnixMs = i64;

/// Nanoseconds since the Unix epoch, UTC. Log lines, whose order within a millisecond matters.
pub type UnixNs = i64;

/// Reads the wall clock. Called at the edges only (`app`, `main`, task loops); pure code takes the time as an argument.
#[must_use]
pub fn now_ms() -> UnixMs {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// As [`now_ms`], in nanoseconds.
#[must_use]
pub fn now_ns() -> UnixNs {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Milliseconds of a duration, as much as a time can hold.
#[must_use]
pub fn duration_ms(duration: std::time::Duration) -> UnixMs {
    UnixMs::try_from(duration.as_millis()).unwrap_or(UnixMs::MAX)
}

/// Parses a duration as Prometheus and Go write it: `90s`, `5m`, `1h30m`, `250ms`, `7d`, `2w`; `0` is allowed without a unit.
///
/// # Errors
/// The text says what was expected, for showing to the person who wrote it.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write a number with a unit, such as 30s, 5m, 1h30m, 250ms or 7d");
    if text == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    let mut total_ms: u64 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_text = &rest[digits..];
        let unit_len = unit_text.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit_ms: u64 = match &unit_text[..unit_len] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return Err(wrong()),
        };
        total_ms = number.checked_mul(unit_ms).and_then(|ms| total_ms.checked_add(ms)).ok_or_else(wrong)?;
        rest = &unit_text[unit_len..];
    }
    Ok(std::time::Duration::from_millis(total_ms))
}

/// Writes a duration in the form that [`parse_duration`] reads, largest units first: `1h30m`, `250ms`, `0s`.
#[must_use]
pub fn format_duration(duration: std::time::Duration) -> String {
    let mut ms = duration.as_millis();
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if ms >= unit_ms {
            text.push_str(&format!("{}{unit}", ms / unit_ms));
            ms %= unit_ms;
        }
    }
    text
}

/// For `#[serde(with = "shipwatch_common::time::serde_duration")]`: a duration as the text that people write.
pub mod serde_duration {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use std::time::Duration;

    /// Writes the text form.
    ///
    /// # Errors
    /// Only what the serializer itself reports.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::format_duration(*duration))
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// Text that [`super::parse_duration`] refuses.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write() {
        for (text, ms) in [("0", 0), ("90s", 90_000), ("1h30m", 5_400_000), ("250ms", 250), ("7d", 604_800_000), ("1m5s", 65_000)] {
            assert_eq!(parse_duration(text).unwrap().as_millis(), ms, "{text}");
        }
        for bad in ["", "5", "s", "-1s", "1x", "1.5h", "99999999999999999999s", "１s"] {
            assert!(parse_duration(bad).is_err(), "{bad} was accepted");
        }
        assert_eq!(format_duration(std::time::Duration::from_millis(5_400_250)), "1h30m250ms");
    }
}
