//! The text formats: Prometheus' exposition format 0.0.4 (github.com/prometheus/docs, exposition_formats) and OpenMetrics 1.0, with
//! the quoted names of Prometheus 3. Comments, types and exemplars are read over.
//!
//! They differ in times (milliseconds, or seconds with a fraction) and in the end, which OpenMetrics marks with `# EOF`.

use super::{Lines, ReadError};
use crate::{promql::format_value, source::SeriesData};
use shipwatch_common::{
    model::{Labels, Sample, metric::is_stale_marker},
    time::UnixMs,
};
use std::{
    io::{self, BufRead, Write},
    sync::Arc,
};

/// Which of the two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Times are milliseconds.
    Prometheus,
    /// Times are seconds; the text ends with `# EOF`.
    OpenMetrics,
}

/// Reads all samples; those without a time get `now_ms`, or are a mistake without one.
///
/// # Errors
/// The first line that is wrong, or what `sink` says.
pub fn read<E>(
    input: impl BufRead,
    format: Format,
    now_ms: Option<UnixMs>,
    mut sink: impl FnMut(Sample) -> Result<(), E>,
) -> Result<(), ReadError<E>> {
    let (mut lines, mut ended) = (Lines::new(input), false);
    while let Some(text) = lines.next()? {
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            continue;
        }
        if ended {
            return Err(lines.wrong("there is more after `# EOF`"));
        }
        if text.starts_with('#') {
            ended = format == Format::OpenMetrics && text == "# EOF";
            continue;
        }
        let parsed = parse(text, format);
        let (labels, value, ts) = parsed.map_err(|message| lines.wrong(message))?;
        let Some(ts_ms) = ts.or(now_ms) else { return Err(lines.wrong("it has no time")) };
        sink(Sample { labels: Arc::new(labels), ts_ms, value }).map_err(ReadError::Sink)?;
    }
    // A text that was cut short looks whole without this.
    if format == Format::OpenMetrics && !ended {
        return Err(lines.wrong("the text ends without `# EOF`: it may be cut short"));
    }
    Ok(())
}

type Pairs = Vec<(Box<str>, Box<str>)>;

fn parse(text: &str, format: Format) -> Result<(Labels, f64, Option<UnixMs>), String> {
    let name_end = text.find(['{', ' ', '\t']).ok_or("expected a value after the name")?;
    let (name, mut rest) = text.split_at(name_end);
    let mut pairs = Pairs::new();
    if !name.is_empty() {
        pairs.push((Labels::NAME.into(), name.into()));
    }
    rest = rest.trim_start_matches([' ', '\t']);
    if let Some(inner) = rest.strip_prefix('{') {
        rest = parse_labels(inner, &mut pairs)?;
    }
    if !pairs.iter().any(|(name, _)| &**name == Labels::NAME) {
        return Err("it has no metric name".to_owned());
    }
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let value = words.next().and_then(parse_value).ok_or("expected a number as its value")?;
    let ts = match words.next() {
        None | Some("#") => None,
        Some(word) => {
            let ts = parse_time(word, format).ok_or_else(|| format!("`{word}` is not a time"))?;
            match words.next() {
                None | Some("#") => Some(ts),
                Some(more) => return Err(format!("expected the end of the line, not `{more}`")),
            }
        }
    };
    Ok((Labels::new(pairs).map_err(|error| error.to_string())?, value, ts))
}

/// Reads to the closing brace; what is behind it comes back.
fn parse_labels<'a>(mut rest: &'a str, pairs: &mut Pairs) -> Result<&'a str, String> {
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Ok(behind);
        }
        if pairs.len() > Labels::MAX_LABELS {
            return Err(format!("more than {} labels", Labels::MAX_LABELS));
        }
        let (name, quoted): (Box<str>, bool);
        if rest.starts_with('"') {
            let (text, behind) = parse_quoted(rest)?;
            (name, quoted, rest) = (text, true, behind);
        } else {
            let end = rest.find(['=', ',', '}', ' ', '\t']).ok_or("expected `}` after the labels")?;
            (name, quoted) = (rest[..end].into(), false);
            rest = &rest[end..];
        }
        rest = rest.trim_start_matches([' ', '\t']);
        match rest.strip_prefix('=') {
            Some(behind) => {
                let (value, behind) = parse_quoted(behind.trim_start_matches([' ', '\t']))?;
                pairs.push((name, value));
                rest = behind;
            }
            None if quoted => pairs.push((Labels::NAME.into(), name)),
            None => return Err(format!("expected `=` after the label `{name}`")),
        }
        rest = rest.trim_start_matches([' ', '\t']);
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind,
            None if rest.starts_with('}') => {}
            None => return Err("expected `,` or `}` after a label".to_owned()),
        }
    }
}

fn parse_quoted(text: &str) -> Result<(Box<str>, &str), String> {
    let inner = text.strip_prefix('"').ok_or("expected a text in quotes")?;
    let (mut out, mut chars) = (String::new(), inner.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Ok((out.into(), &inner[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => out.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => out.push(escaped),
                // Prometheus takes others as they are.
                Some((_, other)) => out.extend(['\\', other]),
                None => break,
            },
            other => out.push(other),
        }
    }
    Err("a text in quotes does not end".to_owned())
}

fn parse_value(word: &str) -> Option<f64> {
    match word {
        "NaN" | "+NaN" => Some(f64::NAN),
        "Inf" | "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => word.parse().ok(),
    }
}

fn parse_time(word: &str, format: Format) -> Option<UnixMs> {
    if format == Format::Prometheus {
        return word.parse().ok();
    }
    let seconds: f64 = word.parse().ok()?;
    let ms = (seconds * 1_000.0).round();
    (ms.abs() < 9.0e15).then_some(ms as i64)
}

/// Writes a series; stale markers, which the formats lack, are left out. OpenMetrics wants [`write_end`] after the last one.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, series: &SeriesData, format: Format) -> io::Result<()> {
    let head = head(&series.labels);
    for (ts, value) in series.ts.iter().zip(&series.values).filter(|(_, value)| !is_stale_marker(**value)) {
        write!(out, "{head} {} ", format_value(*value))?;
        match format {
            Format::Prometheus => writeln!(out, "{ts}")?,
            Format::OpenMetrics => {
                let (sign, ms) = (if *ts < 0 { "-" } else { "" }, ts.unsigned_abs());
                writeln!(out, "{sign}{}.{:03}", ms / 1_000, ms % 1_000)?;
            }
        }
    }
    Ok(())
}

/// Writes the line that begins a family without a known type.
///
/// # Errors
/// Those of `out`.
pub fn write_untyped(out: &mut impl Write, name: &str) -> io::Result<()> {
    if is_plain(name, true) { writeln!(out, "# TYPE {name} untyped") } else { writeln!(out, "# TYPE {} untyped", quoted(name)) }
}

/// Writes one sample for federation: a series without `instance` gets an empty one.
///
/// # Errors
/// Those of `out`.
pub fn write_latest(out: &mut impl Write, labels: &Labels, ts_ms: UnixMs, value: f64) -> io::Result<()> {
    let mut head = head(labels);
    if labels.get("instance").is_none() {
        head = match head.strip_suffix('}') {
            Some(open) => format!("{open},instance=\"\"}}"),
            None => format!("{head}{{instance=\"\"}}"),
        };
    }
    writeln!(out, "{head} {} {ts_ms}", format_value(value))
}

/// Marks the end of an OpenMetrics text.
///
/// # Errors
/// Those of `out`.
pub fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"# EOF\n")
}

fn is_plain(name: &str, colon: bool) -> bool {
    let good = |(at, byte): (usize, u8)| {
        byte.is_ascii_alphabetic() || byte == b'_' || (colon && byte == b':') || (at > 0 && byte.is_ascii_digit())
    };
    !name.is_empty() && name.bytes().enumerate().all(good)
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// Name and labels.
fn head(labels: &Labels) -> String {
    let name = labels.metric_name();
    let plain = is_plain(name, true);
    let first = (!plain && !name.is_empty()).then(|| quoted(name));
    let others = labels.iter().filter(|(name, _)| *name != Labels::NAME).map(|(name, value)| {
        let name = if is_plain(name, false) { name.to_owned() } else { quoted(name) };
        format!("{name}={}", quoted(value))
    });
    let all: Vec<String> = first.into_iter().chain(others).collect();
    let name = if plain { name } else { "" };
    if all.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", all.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn all(bytes: &[u8], format: Format) -> Result<Vec<Sample>, String> {
        let mut found = Vec::new();
        read(bytes, format, Some(7), |sample| {
            found.push(sample);
            Ok::<_, Infallible>(())
        })
        .map(|()| found)
        .map_err(|error| error.to_string())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            ts in proptest::collection::vec(-4_000_000_000_000i64..4_000_000_000_000, 1..20),
            value in any::<f64>(), name in "[^\r\\x00]{1,12}", label in "[^\r\\x00]{1,12}", text in "[^\r\\x00]{1,30}",
        ) {
            prop_assume!(label != Labels::NAME && !value.is_nan());
            let labels = Arc::new(Labels::new([(Labels::NAME, name), (&*label, text)]).unwrap());
            for format in [Format::Prometheus, Format::OpenMetrics] {
                let series = SeriesData { labels: labels.clone(), ts: ts.clone(), values: vec![value; ts.len()] };
                let mut out = Vec::new();
                write(&mut out, &series, format).unwrap();
                write_end(&mut out).unwrap();
                let back = all(&out, format).unwrap();
                prop_assert_eq!(back.iter().map(|s| s.ts_ms).collect::<Vec<_>>(), ts.clone());
                prop_assert!(back.iter().all(|s| s.value.to_bits() == value.to_bits() && s.labels == labels));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[{}\"=,a-c0-9\\\\\\n#. -]{0,200}") {
            for format in [Format::Prometheus, Format::OpenMetrics] {
                let _ = (all(&bytes, format), all(text.as_bytes(), format));
            }
        }
    }

    #[test]
    fn what_exporters_write_is_read() {
        let text = "# HELP a b\n# TYPE http_total counter\n\nhttp_total{code=\"200\",path=\"C:\\\\x \\\"q\\\"\\n\",} 1027 1395066363000\nup 1\n\
            {\"a.b\", le=\"+Inf\"} +Inf\nx_bucket{le=\"1\"} 2e3 1.5 # {trace=\"y\"} 0.5\n# EOF\n";
        let shown = |format| {
            all(text.as_bytes(), format).map(|all| all.iter().map(|s| format!("{} {} {}", s.labels, s.value, s.ts_ms)).collect::<Vec<_>>())
        };
        let read = shown(Format::OpenMetrics).unwrap();
        assert_eq!(read.len(), 4);
        assert!(read[1].contains("up") && read[1].ends_with("1 7"), "{}", read[1]);
        assert!(read[2].contains("a.b") && read[2].ends_with("inf 7"), "{}", read[2]);
        assert!(read[3].ends_with("2000 1500"), "{}", read[3]);
        assert_eq!(shown(Format::Prometheus).unwrap_err(), "line 7: `1.5` is not a time");
    }

    #[test]
    fn mistakes_name_their_line() {
        for (bad, told) in [
            ("up", "expected a value after the name"),
            ("up x", "expected a number as its value"),
            ("up{a=\"b} 1", "a text in quotes does not end"),
            ("up{a} 1", "expected `=` after the label `a`"),
            ("up{a=\"b\" 1", "expected `,` or `}` after a label"),
            ("up 1 2 3", "expected the end of the line, not `3`"),
            ("{a=\"b\"} 1", "it has no metric name"),
            ("up{a=\"1\",a=\"2\"} 1", "label `a` is given twice"),
        ] {
            assert_eq!(all(format!("up 1\n{bad}\n").as_bytes(), Format::Prometheus).unwrap_err(), format!("line 2: {told}"));
        }
        assert!(all(b"up 1\n", Format::OpenMetrics).unwrap_err().contains("without `# EOF`"));
        assert!(all(b"# EOF\nup 1\n", Format::OpenMetrics).unwrap_err().contains("line 2: there is more"));
        let long = vec![b'a'; super::super::MAX_LINE_BYTES + 10];
        assert!(all(&long, Format::Prometheus).unwrap_err().contains("longer than"));
    }
}
