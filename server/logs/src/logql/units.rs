//! Durations, sizes and numbers as they are written in queries and in log lines.

/// Units of durations with their nanoseconds; longer names first, so that `ms` is not read as `m`.
const DURATIONS: [(&str, f64); 11] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3_600e9),
    ("d", 86_400e9),
    ("w", 604_800e9),
    ("y", 31_536_000e9),
];

const SIZES: [(&str, f64); 18] = [
    ("b", 1.0),
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
    ("gib", 1_073_741_824.0),
    ("tib", 1_099_511_627_776.0),
    ("pib", 1_125_899_906_842_624.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("tb", 1e12),
    ("pb", 1e15),
    ("ki", 1024.0),
    ("mi", 1_048_576.0),
    ("gi", 1_073_741_824.0),
    ("k", 1e3),
    ("m", 1e6),
    ("g", 1e9),
    ("t", 1e12),
];

/// Splits `12.5ms rest` into the number and the rest. Digits and one point only.
fn leading_number(text: &str) -> Option<(f64, &str)> {
    let length = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, rest) = text.split_at_checked(length)?;
    Some((number.parse().ok()?, rest))
}

/// A duration in nanoseconds, as Go writes them, with `d`, `w` and `y` as well: `1h15m30.918s`, `-5m`, `0`.
pub(crate) fn duration(text: &str) -> Option<f64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    let mut total = 0.0;
    loop {
        let (number, after) = leading_number(rest)?;
        let (unit, factor) = DURATIONS.iter().find(|(unit, _)| after.starts_with(unit))?;
        total += number * factor;
        rest = after.get(unit.len()..)?;
        if rest.is_empty() {
            return Some(if negative { -total } else { total });
        }
    }
}

/// A size in bytes: `20KB` is 20,000, `20KiB` is 20,480, `1.5 MB`, `512`.
pub(crate) fn size(text: &str) -> Option<f64> {
    let (number, unit) = leading_number(text.trim())?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Some(number);
    }
    SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| number * factor)
}

/// A number as Go reads it: decimal with an exponent, `Inf`, `NaN`.
pub(crate) fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// The shortest text of a duration in whole nanoseconds.
pub(crate) fn show_duration(ns: i64) -> String {
    if ns == 0 {
        return "0s".to_owned();
    }
    let mut text = if ns < 0 { "-".to_owned() } else { String::new() };
    let mut rest = ns.unsigned_abs();
    for (unit, length) in
        [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)]
    {
        if rest >= length {
            text.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read() {
        for (text, ns) in [
            ("1h15m30.918s", 4_530_918e6),
            ("250ms", 250e6),
            ("-1.5s", -1.5e9),
            ("10µs", 10e3),
            ("0", 0.0),
            ("2d", 172_800e9),
            ("1w1y", 604_800e9 + 31_536_000e9),
        ] {
            assert_eq!(duration(text), Some(ns), "{text}");
        }
        for bad in ["", "5", "s", "5x", "5s ", "1.2.3s", "5m 3s", "--5s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        for (text, bytes) in [("20KB", 20e3), ("20kib", 20_480.0), ("1.5 MB", 1.5e6), ("512", 512.0), ("7B", 7.0)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for bad in ["", "KB", "1XB", "-1KB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_shown_and_read_back() {
        for (ns, text) in [(300_000_000_000, "5m"), (5_400_000_000_000, "1h30m"), (0, "0s"), (-1_500_000_000, "-1s500ms")] {
            assert_eq!(show_duration(ns), text);
            assert_eq!(duration(text), Some(ns as f64));
        }
    }
}
