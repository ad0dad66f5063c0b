//! Replies as JSON, without a tree of values in between: answers have millions of points.

use super::{Data, Reply, Stats, Success};
use crate::{
    promql::{Value, format_value},
    source::SeriesData,
};
use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeSeq as _},
};
use shipwatch_common::{model::Labels, time::UnixMs};

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
        (Seconds(self.0), format_value(self.1)).serialize(to)
    }
}

/// A whole number where there is no fraction.
struct Seconds(UnixMs);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 % 1_000 == 0 { to.serialize_i64(self.0 / 1_000) } else { to.serialize_f64(self.0 as f64 / 1_000.0) }
    }
}

impl Reply {
    /// The body of the answer. It is what serialising gives, several times faster for a range's points.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        match &self.0 {
            Ok(success) => matrix(success),
            Err(_) => None,
        }
        // Nothing in a reply can fail to be written to memory.
        .unwrap_or_else(|| serde_json::to_vec(self).unwrap_or_default())
    }
}

/// About what a point takes.
const POINT_BYTES: usize = 34;

fn matrix(success: &Success) -> Option<Vec<u8>> {
    let Data::Value { value: Value::Matrix(series), stats, .. } = &success.data else { return None };
    let points: usize = series.iter().map(|one| one.ts.len()).sum();
    let mut out = Vec::with_capacity(256 + series.len() * 256 + points * POINT_BYTES);
    out.extend_from_slice(b"{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[");
    for (at, one) in series.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{\"metric\":" } else { b",{\"metric\":" });
        serde_json::to_writer(&mut out, &*one.labels).ok()?;
        out.extend_from_slice(b",\"values\":[");
        for (at, (ts, value)) in one.ts.iter().zip(&one.values).enumerate() {
            out.extend_from_slice(if at == 0 { b"[" } else { b",[" });
            serde_json::to_writer(&mut out, &Seconds(*ts)).ok()?;
            out.extend_from_slice(b",\"");
            put_value(&mut out, *value);
            out.extend_from_slice(b"\"]");
        }
        out.extend_from_slice(b"]}");
    }
    out.push(b']');
    if let Some(stats) = stats {
        out.extend_from_slice(b",\"stats\":");
        serde_json::to_writer(&mut out, stats).ok()?;
    }
    out.push(b'}');
    for (key, annotations) in [("warnings", &success.warnings), ("infos", &success.infos)] {
        if !annotations.is_empty() {
            out.extend_from_slice(format!(",\"{key}\":").as_bytes());
            serde_json::to_writer(&mut out, annotations).ok()?;
        }
    }
    out.push(b'}');
    Some(out)
}

/// [`format_value`], faster where that is sure to be the same text.
///
/// JSON's numbers have the shortest digits as well. Of two shortest texts that are as near they may take the other one: that
/// needs 16 digits or more, and a value in the middle of two decimals. Below 10^14 such a value has an even mantissa.
fn put_value(out: &mut Vec<u8>, value: f64) {
    let start = out.len();
    if value.abs() < 1e14 && serde_json::to_writer(&mut *out, &value).is_ok() {
        if out.ends_with(b".0") {
            out.truncate(out.len() - 2);
        }
        let text = &out[start..];
        if !text.contains(&b'e') && (text.len() <= 15 || value.to_bits() & 1 == 1) {
            return;
        }
    }
    out.truncate(start);
    out.extend_from_slice(format_value(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{sync::Arc, time::Duration};

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            any::<i64>().prop_map(|whole| whole as f64),
            (any::<i32>(), 1i32..1_000).prop_map(|(a, b)| f64::from(a) / f64::from(b)),
            (any::<i64>(), 0u32..64, 0i32..60).prop_map(|(a, bits, b)| (a >> bits) as f64 / 2f64.powi(b)),
            (any::<i64>(), -30i32..30).prop_map(|(a, b)| a as f64 * 10f64.powi(b)),
            proptest::sample::select(vec![
                0.0,
                -0.0,
                f64::NAN,
                f64::INFINITY,
                f64::NEG_INFINITY,
                f64::MAX,
                f64::MIN_POSITIVE,
                1e15,
                1e16,
                1e17,
                1e-5,
                1e-6
            ]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn a_body_is_what_serialising_gives(
            all in proptest::collection::vec(proptest::collection::vec((-1i64..1 << 40, value()), 0..20), 0..4), more in 0usize..3, has_stats in any::<bool>(),
        ) {
            let labels = |at: usize| Arc::new(Labels::new([("__name__", "x"), ("l", ["\"", "\u{e9}\\", "c", "d"][at])]).unwrap());
            let series = all.into_iter().enumerate().map(|(at, points)| {
                let (ts, values) = points.into_iter().unzip();
                SeriesData { labels: labels(at), ts, values }
            });
            let told: Vec<String> = (0..more).map(|at| format!("told \"{at}\"")).collect();
            let stats = has_stats.then_some(Stats { took: Duration::from_millis(7), samples: 9 });
            let data = Data::Value { value: Value::Matrix(series.collect()), time: 5, stats };
            let reply = Reply(Ok(Success { data, warnings: told.clone(), infos: told }));
            prop_assert_eq!(String::from_utf8(reply.to_json()).unwrap(), serde_json::to_string(&reply).unwrap());
        }
    }

    #[test]
    fn other_replies_are_serialised() {
        let reply = Reply::from(super::super::ApiError::bad_data("wrong"));
        assert_eq!(reply.to_json(), serde_json::to_vec(&reply).unwrap());
    }
}
