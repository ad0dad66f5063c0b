//! Replies as JSON, without a tree of values in between: answers have millions of points.

use super::{Data, Reply, Stats};
use crate::{
    promql::{Value, format_value},
    source::SeriesData,
};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeSeq as _},
};
use shipwatch_common::{model::Labels, time::UnixMs};
use std::fmt::{self, Write as _};

impl Serialize for Reply {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        match &self.0 {
            Ok(success) => {
                map.serialize_entry("status", "success")?;
                map.serialize_entry("data", &success.data)?;
                for (key, annotations) in [("warnings", &success.warnings), ("infos", &success.infos)] {
                    if !annotations.is_empty() {
                        map.serialize_entry(key, annotations)?;
                    }
                }
            }
            Err(error) => {
                map.serialize_entry("status", "error")?;
                map.serialize_entry("errorType", error.error_type)?;
                map.serialize_entry("error", &error.message)?;
            }
        }
        map.end()
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let (value, time, stats) = match self {
            Self::Texts(texts) => return texts.serialize(to),
            Self::Series(series) => return to.collect_seq(series.iter().map(|labels| &**labels)),
            Self::Json(value) => return value.serialize(to),
            Self::Value { value, time, stats } => (value, *time, stats),
        };
        let mut map = to.serialize_map(None)?;
        match value {
            Value::Scalar(number) => {
                map.serialize_entry("resultType", "scalar")?;
                map.serialize_entry("result", &Point(time, *number))?;
            }
            Value::String(text) => {
                map.serialize_entry("resultType", "string")?;
                map.serialize_entry("result", &(Seconds(time), text))?;
            }
            Value::Vector(elements) => {
                map.serialize_entry("resultType", "vector")?;
                let elements = elements.iter().map(|e| Labelled { labels: &e.labels, key: "value", content: Point(time, e.value) });
                map.serialize_entry("result", &Seq(elements))?;
            }
            Value::Matrix(series) => {
                map.serialize_entry("resultType", "matrix")?;
                let series = series.iter().map(|one| Labelled { labels: &one.labels, key: "values", content: Points(one) });
                map.serialize_entry("result", &Seq(series))?;
            }
        }
        if let Some(stats) = stats {
            map.serialize_entry("stats", stats)?;
        }
        map.end()
    }
}

impl Serialize for Stats {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let seconds = self.took.as_secs_f64();
        let stats = serde_json::json!({
            "timings": {"evalTotalTime": seconds, "execTotalTime": seconds},
            "samples": {"totalQueryableSamples": self.samples},
        });
        stats.serialize(to)
    }
}

/// An iterator as a list.
struct Seq<I>(I);

impl<I: Iterator<Item: Serialize> + Clone> Serialize for Seq<I> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.clone())
    }
}

struct Labelled<'a, T> {
    labels: &'a Labels,
    key: &'static str,
    content: T,
}

impl<T: Serialize> Serialize for Labelled<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(2))?;
        map.serialize_entry("metric", self.labels)?;
        map.serialize_entry(self.key, &self.content)?;
        map.end()
    }
}

struct Points<'a>(&'a SeriesData);

impl Serialize for Points<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut seq = to.serialize_seq(Some(self.0.ts.len()))?;
        for (ts, value) in self.0.ts.iter().zip(&self.0.values) {
            seq.serialize_element(&Point(*ts, *value))?;
        }
        seq.end()
    }
}

struct Point(UnixMs, f64);

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut digits = Digits::default();
        (Seconds(self.0), digits.of(self.1)).serialize(to)
    }
}

/// A value as text, written in place where it fits: nearly every one does.
struct Digits {
    bytes: [u8; 32],
    len: usize,
    long: String,
}

impl Default for Digits {
    fn default() -> Self {
        Self { bytes: [0; 32], len: 0, long: String::new() }
    }
}

impl Digits {
    fn of(&mut self, value: f64) -> &str {
        // Whole numbers are written many times faster than fractions; the sign of -0 would be lost.
        let whole = value as i64;
        let is_whole = whole.unsigned_abs() < 1 << 53 && (whole as f64).to_bits() == value.to_bits();
        let written = if is_whole {
            write!(self, "{whole}")
        } else if value.is_finite() {
            write!(self, "{value}")
        } else {
            Err(fmt::Error)
        };
        match (written, std::str::from_utf8(&self.bytes[..self.len])) {
            (Ok(()), Ok(text)) => text,
            _ => {
                self.long = format_value(value);
                &self.long
            }
        }
    }
}

impl fmt::Write for Digits {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

/// A whole number where there is no fraction.
struct Seconds(UnixMs);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 % 1_000 == 0 { to.serialize_i64(self.0 / 1_000) } else { to.serialize_f64(self.0 as f64 / 1_000.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn values_are_written_as_everywhere_else(value in prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            any::<i64>().prop_map(|whole| whole as f64),
            (any::<i32>(), 1i32..1_000).prop_map(|(a, b)| f64::from(a) / f64::from(b)),
            proptest::sample::select(vec![0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 9_007_199_254_740_991.0, 9_007_199_254_740_992.0, -9_007_199_254_740_993.0]),
        ]) {
            let mut digits = Digits::default();
            prop_assert_eq!(digits.of(value), format_value(value));
        }
    }
}
