//! Endpoints about queries and about the store: `format_query`, `parse_query`, `query_exemplars`, `status/tsdb`.

use super::{ApiError, Data, Params, Reply, Success, invalid, one_more};
use crate::{promql::tree, source::Source};
use serde_json::{Value, json};
use shipwatch_common::{model::Labels, time::UnixMs};
use std::collections::{BTreeMap, HashMap, HashSet};

/// `/api/v1/format_query`: `query`, written evenly.
#[must_use]
pub fn format_query(params: Params<'_>) -> Reply {
    let answer = || Ok(Success::from(Data::Json(Value::String(params.query()?.pretty()))));
    Reply(answer())
}

/// `/api/v1/parse_query`: the tree of `query`.
#[must_use]
pub fn parse_query(params: Params<'_>) -> Reply {
    let answer = || Ok(Success::from(Data::Json(tree::tree(&params.query()?))));
    Reply(answer())
}

/// `/api/v1/query_exemplars`: `query`, `start`, `end`. There are none, but what is wrong is told.
#[must_use]
pub fn query_exemplars(params: Params<'_>) -> Reply {
    let answer = || {
        params.query()?;
        let (start, end) = (params.time("start", i64::MIN)?, params.time("end", i64::MAX)?);
        if end < start {
            return Err(ApiError::bad_data("invalid parameter \"end\": end timestamp must not be before start timestamp"));
        }
        Ok(Success::from(Data::Json(json!([]))))
    };
    Reply(answer())
}

/// How far back a series may have its last sample to be counted by [`status_tsdb`].
const RECENT_MS: i64 = 2 * 3_600_000;

/// Most lines of each list of [`status_tsdb`].
const MAX_LINES: usize = 10_000;

/// Most series that [`status_tsdb`] looks at; it tells when there are more.
const MAX_SERIES: usize = 1_000_000;

/// `/api/v1/status/tsdb`: `limit` (10). Where the series of the last two hours, at least, come from.
///
/// Left out: `chunkCount` and `memoryInBytesByLabelName` by chunk; bytes are those of the labels' values.
#[must_use]
pub fn status_tsdb(source: &dyn Source, params: Params<'_>, now_ms: UnixMs) -> Reply {
    let answer = || {
        let limit = match params.get("limit") {
            None => 10,
            Some(_) => params.limit()?,
        };
        if limit == 0 || limit > MAX_LINES {
            return Err(invalid("limit", &format!("limit must be from 1 to {MAX_LINES}")));
        }
        let (from, to) = (now_ms.saturating_sub(RECENT_MS), now_ms.saturating_add(RECENT_MS));
        let mut series = source.series(&[], from, to, one_more(MAX_SERIES))?;
        let warnings = if series.len() > MAX_SERIES { vec![format!("only the first {MAX_SERIES} series are counted")] } else { Vec::new() };
        series.truncate(MAX_SERIES);
        let mut counted = Counted::default();
        series.iter().for_each(|labels| counted.add(labels));
        Ok(Success { data: Data::Json(counted.status(series.len(), [from, now_ms], limit)), warnings, infos: Vec::new() })
    };
    Reply(answer())
}

#[derive(Default)]
struct Counted<'a> {
    series_by_metric: HashMap<&'a str, u64>,
    values_by_name: BTreeMap<&'a str, HashSet<&'a str>>,
    series_by_pair: HashMap<(&'a str, &'a str), u64>,
}

impl<'a> Counted<'a> {
    fn add(&mut self, labels: &'a Labels) {
        *self.series_by_metric.entry(labels.metric_name()).or_default() += 1;
        for (name, value) in labels.iter() {
            self.values_by_name.entry(name).or_default().insert(value);
            *self.series_by_pair.entry((name, value)).or_default() += 1;
        }
    }

    fn status(&self, series: usize, [from, to]: [UnixMs; 2], limit: usize) -> Value {
        let pairs: usize = self.values_by_name.values().map(HashSet::len).sum();
        let counts = self.values_by_name.iter().map(|(name, values)| ((*name).to_owned(), values.len() as u64));
        let bytes = |values: &HashSet<&str>| values.iter().map(|value| value.len() as u64).sum();
        let bytes = self.values_by_name.iter().map(|(name, values)| ((*name).to_owned(), bytes(values)));
        let by_metric = self.series_by_metric.iter().map(|(name, count)| ((*name).to_owned(), *count));
        let by_pair = self.series_by_pair.iter().map(|((name, value), count)| (format!("{name}={value}"), *count));
        json!({
            "headStats": {"numSeries": series, "numLabelPairs": pairs, "minTime": from, "maxTime": to},
            "seriesCountByMetricName": largest(by_metric, limit),
            "labelValueCountByLabelName": largest(counts, limit),
            "memoryInBytesByLabelName": largest(bytes, limit),
            "seriesCountByLabelValuePair": largest(by_pair, limit),
        })
    }
}

fn largest(all: impl Iterator<Item = (String, u64)>, limit: usize) -> Vec<Value> {
    let mut all: Vec<(String, u64)> = all.collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.truncate(limit);
    all.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}
