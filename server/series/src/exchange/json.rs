//! One series in each line: `{"metric":{"__name__":"up"},"values":[1,0],"timestamps":[1700000000000,1700000060000]}`, the format of
//! VictoriaMetrics' `/api/v1/export` and `/api/v1/import` (docs.victoriametrics.com, "How to export data in JSON line format").
//!
//! Numbers that JSON lacks: `"Infinity"`, `"-Infinity"`, `"NaN"`, and `null` for a stale marker.

use super::{Lines, ReadError};
use crate::source::SeriesData;
use serde::Deserialize;
use shipwatch_common::model::{
    Labels, Sample,
    metric::{STALE_NAN_BITS, is_stale_marker},
};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
    sync::Arc,
};

#[derive(Deserialize)]
struct Line {
    metric: BTreeMap<String, String>,
    values: Vec<Option<Number>>,
    timestamps: Vec<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Float(f64),
    Text(Box<str>),
}

impl Number {
    fn value(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            Self::Text(text) => match &**text {
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                "NaN" => Some(f64::NAN),
                _ => None,
            },
        }
    }
}

/// Reads all samples.
///
/// # Errors
/// The first line that is wrong, or what `sink` says.
pub fn read<E>(input: impl BufRead, mut sink: impl FnMut(Sample) -> Result<(), E>) -> Result<(), ReadError<E>> {
    let mut lines = Lines::new(input);
    while let Some(text) = lines.next()? {
        if text.trim().is_empty() {
            continue;
        }
        let parsed = parse(text);
        let (labels, line, values) = parsed.map_err(|message| lines.wrong(message))?;
        for (ts_ms, value) in line.timestamps.into_iter().zip(values) {
            sink(Sample { labels: labels.clone(), ts_ms, value }).map_err(ReadError::Sink)?;
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<(Arc<Labels>, Line, Vec<f64>), String> {
    let mut line: Line = serde_json::from_str(text).map_err(|error| format!("{error}; expected metric, values and timestamps"))?;
    if line.values.len() != line.timestamps.len() {
        return Err(format!("{} values but {} timestamps", line.values.len(), line.timestamps.len()));
    }
    let number = |value: &Option<Number>| match value {
        None => Ok(f64::from_bits(STALE_NAN_BITS)),
        Some(number) => number.value().ok_or("a value is text, but not \"Infinity\", \"-Infinity\" or \"NaN\""),
    };
    let values = line.values.iter().map(number).collect::<Result<Vec<f64>, _>>()?;
    let labels = Labels::new(std::mem::take(&mut line.metric)).map_err(|error| error.to_string())?;
    Ok((Arc::new(labels), line, values))
}

/// Writes one line.
///
/// # Errors
/// Those of `out`.
pub fn write(out: &mut impl Write, series: &SeriesData) -> io::Result<()> {
    let metric: BTreeMap<&str, &str> = series.labels.iter().collect();
    out.write_all(b"{\"metric\":")?;
    serde_json::to_writer(&mut *out, &metric)?;
    out.write_all(b",\"values\":[")?;
    for (at, value) in series.values.iter().enumerate() {
        out.write_all(if at == 0 { b"" } else { b"," })?;
        match *value {
            value if is_stale_marker(value) => out.write_all(b"null")?,
            value if value.is_nan() => out.write_all(b"\"NaN\"")?,
            value if value.is_infinite() => out.write_all(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" })?,
            value => serde_json::to_writer(&mut *out, &value)?,
        }
    }
    out.write_all(b"],\"timestamps\":")?;
    serde_json::to_writer(&mut *out, &series.ts)?;
    out.write_all(b"}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn all(bytes: &[u8]) -> Result<Vec<Sample>, String> {
        let mut found = Vec::new();
        read(bytes, |sample| {
            found.push(sample);
            Ok::<_, Infallible>(())
        })
        .map(|()| found)
        .map_err(|error| error.to_string())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec((any::<i64>(), any::<f64>()), 1..50), name in "\\PC{1,20}") {
            let labels = Arc::new(Labels::new([("__name__", "x"), ("l", &name)]).unwrap());
            let (ts, mut values): (Vec<i64>, Vec<f64>) = values.into_iter().unzip();
            values.extend([f64::from_bits(STALE_NAN_BITS), f64::INFINITY, f64::NEG_INFINITY, -0.0]);
            let ts: Vec<i64> = ts.into_iter().chain(0..4).collect();
            let mut text = Vec::new();
            write(&mut text, &SeriesData { labels: labels.clone(), ts: ts.clone(), values: values.clone() }).unwrap();
            let back = all(&text).unwrap();
            prop_assert_eq!(back.iter().map(|s| s.ts_ms).collect::<Vec<_>>(), ts);
            let same = |(a, b): (&Sample, &f64)| a.value.to_bits() == b.to_bits() || (a.value.is_nan() && b.is_nan() && !is_stale_marker(*b));
            prop_assert!(back.iter().zip(&values).all(same) && back.iter().all(|s| s.labels == labels));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[\\[\\]{}\":,a-z0-9\\n. -]{0,200}") {
            let _ = (all(&bytes), all(text.as_bytes()));
        }
    }

    #[test]
    fn mistakes_name_their_line() {
        let good = r#"{"metric":{"__name__":"up"},"values":[1],"timestamps":[5]}"#;
        assert_eq!(all(format!("{good}\n\n{good}").as_bytes()).unwrap().len(), 2);
        for (bad, told) in [
            ("{\"metric\":{},\"values\":[1,2],\"timestamps\":[5]}", "line 2: 2 values but 1 timestamps"),
            ("{\"metric\":{},\"values\":[\"x\"],\"timestamps\":[5]}", "line 2: a value is text"),
            ("{", "line 2: EOF while parsing"),
        ] {
            let error = all(format!("{good}\n{bad}\n").as_bytes()).unwrap_err();
            assert!(error.starts_with(told), "{error}");
        }
    }
}
