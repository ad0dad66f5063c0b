//! How bad a line is. Looks at its beginning only, or at the field that says it.

use crate::model::Severity;

/// How far into a line a severity may stand.
const SEVERITY_WITHIN: usize = 256;

/// The severity that a text names: its own form, or the first word that names one.
#[must_use]
pub fn of_text(line: &str) -> Severity {
    let own = of_start(line);
    if own == Severity::Unknown { of_words(line) } else { own }
}

/// Forms that are told by how they begin.
fn of_start(line: &str) -> Severity {
    const STARTS: [(&str, Severity); 11] = [
        ("panic: ", Severity::Fatal),
        ("fatal error: ", Severity::Fatal),
        ("Traceback (most recent call last):", Severity::Error),
        ("Exception in thread ", Severity::Error),
        ("Unhandled exception", Severity::Fatal),
        // The console of .NET.
        ("trce: ", Severity::Trace),
        ("dbug: ", Severity::Debug),
        ("info: ", Severity::Info),
        ("warn: ", Severity::Warn),
        ("fail: ", Severity::Error),
        ("crit: ", Severity::Fatal),
    ];
    if let Some((_, severity)) = STARTS.iter().find(|(start, _)| line.starts_with(start)) {
        return *severity;
    }
    klog(line.as_bytes()).unwrap_or_default()
}

/// `E1123 08:00:00.123456` of Kubernetes.
fn klog(bytes: &[u8]) -> Option<Severity> {
    if !bytes.get(1..5)?.iter().all(u8::is_ascii_digit) || bytes.get(5) != Some(&b' ') || bytes.get(8) != Some(&b':') {
        return None;
    }
    match bytes[0] {
        b'I' => Some(Severity::Info),
        b'W' => Some(Severity::Warn),
        b'E' => Some(Severity::Error),
        b'F' => Some(Severity::Fatal),
        _ => None,
    }
}

/// The severity that a field's value names: a word, or a number of bunyan and pino (10-60) or of syslog (0-7).
#[must_use]
pub fn of_field(value: &str) -> Severity {
    let value = value.trim();
    match value.parse::<u32>() {
        Ok(number) => match number {
            0..=2 | 60.. => Severity::Fatal,
            3 | 50..60 => Severity::Error,
            4 | 40..50 => Severity::Warn,
            5 | 6 | 30..40 => Severity::Info,
            7 | 20..30 => Severity::Debug,
            _ => Severity::Trace,
        },
        Err(_) => named(value.as_bytes()),
    }
}

/// The severity of an answer by HTTP.
#[must_use]
pub fn of_status(status: &str) -> Severity {
    match status.as_bytes() {
        [b'5', _, _] => Severity::Error,
        [b'4', _, _] => Severity::Warn,
        [b'1'..=b'3', _, _] => Severity::Info,
        _ => Severity::Unknown,
    }
}

/// The first word that names a severity.
fn of_words(line: &str) -> Severity {
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
        b"trace" | b"finest" | b"verbose" => Severity::Trace,
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
            ("E1123 16:00:01.500000 1 main.go:7] x", Severity::Error),
            ("panic: x", Severity::Fatal),
            ("fail: Shop.Pay[0]", Severity::Error),
            ("", Severity::Unknown),
        ] {
            assert_eq!(of_text(line), expected, "{line}");
        }
    }

    #[test]
    fn fields_are_words_or_numbers() {
        for (value, expected) in [
            ("WARNING", Severity::Warn),
            ("50", Severity::Error),
            ("30", Severity::Info),
            ("3", Severity::Error),
            ("7", Severity::Debug),
            ("10", Severity::Trace),
            ("what", Severity::Unknown),
        ] {
            assert_eq!(of_field(value), expected, "{value}");
        }
        assert_eq!((of_status("502"), of_status("404"), of_status("200"), of_status("-")), {
            (Severity::Error, Severity::Warn, Severity::Info, Severity::Unknown)
        });
    }
}
