//! Answers in Loki's shapes.

use serde_json::{Map, Number, Value, json};
use shipwatch_common::time::UnixNs;
use shipwatch_logs::{
    QueryStats,
    logql::{LabelSet, Points, Row, Sample},
};
use std::{collections::HashMap, time::Duration};

/// A value as Loki writes it.
pub(super) fn number(value: f64) -> String {
    if value.is_infinite() { if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned() } else { value.to_string() }
}

/// Seconds with milliseconds.
pub(super) fn seconds(ts_ns: UnixNs) -> Value {
    let ms = ts_ns.div_euclid(1_000_000);
    if ms % 1_000 == 0 { json!(ms / 1_000) } else { Number::from_f64(ms as f64 / 1_000.0).map_or(Value::Null, Value::Number) }
}

pub(super) fn matrix(series: &[Points]) -> Value {
    let one = |series: &Points| {
        let values: Vec<_> = series.points.iter().map(|(at, value)| json!([seconds(*at), number(*value)])).collect();
        json!({"metric": series.labels, "values": values})
    };
    Value::Array(series.iter().map(one).collect())
}

pub(super) fn vector(samples: &[Sample], ts_ns: UnixNs) -> Value {
    let one = |sample: &Sample| json!({"metric": sample.labels, "value": [seconds(ts_ns), number(sample.value)]});
    Value::Array(samples.iter().map(one).collect())
}

/// Rows by their labels. `categorized`: by the labels of the stream alone, with the others beside each line.
pub(super) fn streams(rows: Vec<Row>, categorized: bool) -> Value {
    let mut streams: Vec<(LabelSet, Vec<Value>)> = Vec::new();
    let mut known: HashMap<LabelSet, usize> = HashMap::new();
    for row in rows {
        let labels = if categorized { row.stream.clone() } else { row.labels() };
        let value = if categorized {
            json!([row.id.ts_ns.to_string(), row.text, categories(&row)])
        } else {
            json!([row.id.ts_ns.to_string(), row.text])
        };
        let at = *known.entry(labels.clone()).or_insert_with(|| {
            streams.push((labels, Vec::new()));
            streams.len() - 1
        });
        if let Some((_, values)) = streams.get_mut(at) {
            values.push(value);
        }
    }
    streams.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Array(streams.into_iter().map(|(stream, values)| json!({"stream": stream, "values": values})).collect())
}

fn categories(row: &Row) -> Value {
    let mut all = Map::new();
    for (name, labels) in [("structuredMetadata", &row.metadata), ("parsed", &row.parsed)] {
        if !labels.is_empty() {
            all.insert(name.to_owned(), json!(labels));
        }
    }
    Value::Object(all)
}

/// What a query took. What has no counterpart here is 0.
pub(super) fn stats(stats: &QueryStats, took: Duration, returned: usize) -> Value {
    let seconds = took.as_secs_f64();
    let per_second = |count: u64| if seconds > 0.0 { (count as f64 / seconds) as u64 } else { 0 };
    let chunk = |bytes: u64, lines: u64| json!({"headChunkBytes": 0, "headChunkLines": 0, "decompressedBytes": bytes, "decompressedLines": lines, "compressedBytes": 0, "totalDuplicates": 0});
    json!({
        "summary": {
            "bytesProcessedPerSecond": per_second(stats.bytes_read),
            "linesProcessedPerSecond": per_second(stats.lines_read),
            "totalBytesProcessed": stats.bytes_read,
            "totalLinesProcessed": stats.lines_read,
            "execTime": seconds,
            "queueTime": 0,
            "subqueries": 0,
            "totalEntriesReturned": returned,
            "splits": 0,
            "shards": 0,
        },
        "querier": {"store": {
            "totalChunksRef": stats.blocks,
            "totalChunksDownloaded": stats.blocks_read,
            "chunksDownloadTime": 0,
            "chunk": chunk(stats.bytes_read, stats.lines_read),
        }},
        "ingester": {
            "totalReached": 0,
            "totalChunksMatched": 0,
            "totalBatches": 0,
            "totalLinesSent": 0,
            "store": {"totalChunksRef": 0, "totalChunksDownloaded": 0, "chunksDownloadTime": 0, "chunk": chunk(0, 0)},
        },
    })
}

/// A whole answer of a query; what could not be read is a warning.
pub(super) fn success(kind: &str, result: Value, stats: Value, found: &QueryStats, more: &[&str]) -> Value {
    let mut body = json!({"status": "success", "data": {"resultType": kind, "result": result, "stats": stats}});
    let lost = (found.lost_blocks > 0).then(|| format!("{} lines could not be read: {}", found.lost_lines, found.damage.join("; ")));
    let warnings: Vec<_> = lost.into_iter().chain(more.iter().map(|text| (*text).to_owned())).collect();
    if !warnings.is_empty() {
        body["warnings"] = json!(warnings);
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipwatch_logs::EntryId;

    fn labels(pairs: &[(&str, &str)]) -> LabelSet {
        LabelSet::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn row(ts_ns: i64, parsed: &[(&str, &str)], text: &str) -> Row {
        let id = EntryId { ts_ns, batch: 1, index: 0 };
        Row {
            id,
            stream: labels(&[("app", "shop")]),
            metadata: labels(&[("detected_level", "info")]),
            parsed: labels(parsed),
            text: text.to_owned(),
        }
    }

    #[test]
    fn rows_are_streams() {
        let rows = vec![row(3, &[("x", "1")], "c"), row(2, &[], "b"), row(1, &[("x", "1")], "a\"")];
        assert_eq!(
            streams(rows.clone(), false).to_string(),
            r#"[{"stream":{"app":"shop","detected_level":"info"},"values":[["2","b"]]},{"stream":{"app":"shop","detected_level":"info","x":"1"},"values":[["3","c"],["1","a\""]]}]"#
        );
        assert_eq!(
            streams(rows, true).to_string(),
            r#"[{"stream":{"app":"shop"},"values":[["3","c",{"structuredMetadata":{"detected_level":"info"},"parsed":{"x":"1"}}],["2","b",{"structuredMetadata":{"detected_level":"info"}}],["1","a\"",{"structuredMetadata":{"detected_level":"info"},"parsed":{"x":"1"}}]]}]"#
        );
    }

    #[test]
    fn numbers_are_texts_and_times_are_seconds() {
        let series =
            Points { labels: labels(&[("a", "b")]), points: vec![(1_700_000_000_000_000_000, 1.0), (1_700_000_000_500_000_000, f64::NAN)] };
        assert_eq!(matrix(&[series]).to_string(), r#"[{"metric":{"a":"b"},"values":[[1700000000,"1"],[1700000000.5,"NaN"]]}]"#);
        let samples = [Sample { labels: LabelSet::default(), value: f64::INFINITY }, Sample { labels: LabelSet::default(), value: 1e21 }];
        assert_eq!(
            vector(&samples, 1_700_000_000_000_000_000).to_string(),
            r#"[{"metric":{},"value":[1700000000,"+Inf"]},{"metric":{},"value":[1700000000,"1000000000000000000000"]}]"#
        );
    }

    #[test]
    fn what_a_query_took_has_its_places() {
        let found = QueryStats {
            blocks: 4,
            blocks_read: 2,
            bytes_read: 1_000,
            lines_read: 10,
            lost_blocks: 1,
            lost_lines: 3,
            ..QueryStats::default()
        };
        let body = success("streams", json!([]), stats(&found, Duration::from_millis(500), 7), &found, &["cut"]);
        for (pointer, expected) in [
            ("/status", json!("success")),
            ("/data/resultType", json!("streams")),
            ("/data/stats/summary/bytesProcessedPerSecond", json!(2_000)),
            ("/data/stats/summary/execTime", json!(0.5)),
            ("/data/stats/summary/totalEntriesReturned", json!(7)),
            ("/data/stats/querier/store/totalChunksRef", json!(4)),
            ("/data/stats/querier/store/chunk/decompressedLines", json!(10)),
            ("/warnings/0", json!("3 lines could not be read: ")),
            ("/warnings/1", json!("cut")),
        ] {
            assert_eq!(body.pointer(pointer), Some(&expected), "{pointer}");
        }
    }
}
