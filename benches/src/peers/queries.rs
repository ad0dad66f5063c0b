//! The questions of a fleet's dashboard, each asked again and again with its window sliding on as a page refreshes.

use super::contender::Contender;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::time::Duration;

/// Refreshes of one panel.
const RUNS: i64 = 9;
/// Windows begin and end this long after a sample: Prometheus 2 counts a sample on the first edge of a window, Prometheus 3 does
/// not, and all three shall be asked the same.
const OFF_GRID_S: i64 = 7;

/// A question.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Names it in JSON.
    pub key: &'static str,
    /// Names it for people.
    pub what: &'static str,
    query: &'static str,
    /// Length of the window; 0 is an instant.
    range_s: i64,
    step_s: i64,
    /// Series in the answer; 0 for "as many as hosts".
    series: usize,
}

const fn question(key: &'static str, what: &'static str, query: &'static str, range_s: i64, step_s: i64, series: usize) -> Question {
    Question { key, what, query, range_s, step_s, series }
}

/// Asked of the fleet as it is now.
pub const LIVE: [Question; 5] = [
    question("instant_gauge_ms", "instant: one gauge of every host", "node_load{minutes=\"minutes0\"}", 0, 15, 0),
    question("instant_rate_ms", "instant: CPU by host", "avg by (instance) (rate(node_cpu_seconds_total[1m]))", 0, 15, 0),
    question(
        "instant_topk_ms",
        "instant: the ten fullest disks",
        "topk(10, 1 - node_filesystem_avail_bytes / node_filesystem_size_bytes)",
        0,
        15,
        10,
    ),
    question("range_10m_rate_ms", "10 min: CPU by host", "avg by (instance) (rate(node_cpu_seconds_total[1m]))", 600, 15, 0),
    question(
        "range_10m_ratio_ms",
        "10 min: a ratio by host",
        "node_memory_bytes{kind=\"kind0\"} / on (instance) node_memory_fixed_bytes{kind=\"kind0\"}",
        600,
        15,
        0,
    ),
];

/// Asked of the past.
pub const PAST: [Question; 4] = [
    question("range_24h_rate_ms", "24 h: rate by host", "rate(past_cpu_seconds_total[5m])", 86_400, 120, 0),
    question("range_24h_sum_ms", "24 h: rate of the fleet", "sum(rate(past_cpu_seconds_total[5m]))", 86_400, 120, 1),
    question("range_30d_avg_ms", "30 d: hourly mean by host", "avg_over_time(past_memory_bytes[1h])", 29 * 86_400, 3_600, 0),
    question("range_30d_max_ms", "30 d: hourly peak of the fleet", "max(max_over_time(past_memory_bytes[1h]))", 29 * 86_400, 3_600, 1),
];

/// What the runs of a question gave.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Of the first run, with nothing prepared.
    pub first: Duration,
    /// Of the runs after it.
    pub median: Duration,
    /// Sum of all finite values of the last answer: tells whether two contenders mean the same.
    pub sum: f64,
}

impl Question {
    /// Asks it with windows that end just after `last_s` in the last run.
    ///
    /// # Errors
    /// No good answer, or not as many series as there should be.
    pub async fn ask(&self, contender: &Contender, last_s: i64, hosts: u32) -> Result<Answered> {
        let (mut times, mut body) = (Vec::new(), bytes::Bytes::new());
        for run in 0..=RUNS {
            let end = last_s + OFF_GRID_S - (RUNS - run) * self.step_s;
            let (start, end, step) = ((end - self.range_s).to_string(), end.to_string(), self.step_s.to_string());
            let (path, parameters) = if self.range_s == 0 {
                ("/api/v1/query", vec![("query", self.query), ("time", end.as_str())])
            } else {
                let window = [("query", self.query), ("start", start.as_str()), ("end", end.as_str()), ("step", step.as_str())];
                ("/api/v1/query_range", window.to_vec())
            };
            let (answer, took) = contender.api.timed(path, &parameters).await.with_context(|| self.query)?;
            times.push(took);
            body = answer;
        }
        let answer: Value = serde_json::from_slice(&body).with_context(|| self.query)?;
        let result = answer.pointer("/data/result").and_then(Value::as_array).with_context(|| format!("{}: no result", self.query))?;
        let wanted = if self.series == 0 { hosts as usize } else { self.series.min(hosts as usize) };
        ensure!(result.len() == wanted, "{}: {} series in the answer, not {wanted}", self.query, result.len());
        let first = times.remove(0);
        times.sort_unstable();
        Ok(Answered { first, median: times[times.len() / 2], sum: result.iter().map(sum).sum() })
    }
}

/// Of `value` or `values`.
fn sum(series: &Value) -> f64 {
    let number =
        |point: &Value| point.get(1).and_then(Value::as_str).and_then(|text| text.parse::<f64>().ok()).filter(|value| value.is_finite());
    let points = series.get("values").and_then(Value::as_array).into_iter().flatten();
    points.chain(series.get("value")).filter_map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_summed_up() {
        assert!((sum(&json!({"value": [1, "2.5"]})) - 2.5).abs() < 1e-9);
        assert!((sum(&json!({"values": [[1, "1"], [2, "NaN"], [3, "2"]]})) - 3.0).abs() < 1e-9);
    }
}
