//! What can be set. Every bound on what input can grow is here, and every error about a bound names its key.

mod retention;
mod tiers;

pub use retention::{Cutoffs, ENV, Keep, Retention};
pub use tiers::Tiers;

use serde::{Deserialize, Serialize};
use shipwatch_common::{
    config::Problems,
    time::{UnixMs, serde_duration},
};
use std::time::Duration;

/// Settings of the series store and of its queries.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Days that are kept. Whole day files are deleted once their last sample is older; disk use grows with it. Samples
    /// older than this are refused and counted. `retention.age` says the same with more choice and wins.
    pub retention_days: u32,
    /// How long after its end a two-hour window is written to its day file. Longer holds more in memory and makes a start
    /// after a crash slower; shorter makes late samples rewrite more sealed chunks.
    #[serde(with = "serde_duration")]
    pub seal_delay: Duration,
    /// Samples with a time further in the future than this are refused and counted: a host's clock is wrong. They could
    /// not be sealed before that time comes.
    #[serde(with = "serde_duration")]
    pub max_ahead: Duration,
    /// How far a sample may be behind the newest one of its series; later ones are refused and counted. `forever` takes any that
    /// retention keeps.
    pub out_of_order_window: Keep,
    /// Most series with samples in memory of one host (label `host`, or `instance` where there is none); 0 is no bound. Samples of
    /// further series are refused and counted.
    pub max_host_series: u32,
    /// Most series with samples in memory. Samples of further series are refused and counted. One series takes about 2 KB.
    pub max_head_series: u32,
    /// How far back an instant selector looks for the last sample of a series: Prometheus' `query.lookback-delta`.
    #[serde(with = "serde_duration")]
    pub lookback: Duration,
    /// Step of a subquery that gives none, such as `[1h:]`: Prometheus' `evaluation_interval`.
    #[serde(with = "serde_duration")]
    pub subquery_step: Duration,
    /// Most series that one selector may touch. A query over it fails.
    pub query_max_series: u32,
    /// Most samples that one query may read and compute, 16 bytes each. A query over it fails.
    pub query_max_samples: u64,
    /// Most points per series of a range query: (end - start) / step. A query over it fails; 11,000 is Prometheus' number.
    pub query_max_points: u32,
    /// Bytes of memory for results of range queries, so that a dashboard that refreshes only has its new steps computed. 0 keeps
    /// nothing.
    pub query_cache_bytes: u64,
    /// Whether PromQL has what Prometheus calls experimental: `limitk`, `limit_ratio`, `info`, `mad_over_time`,
    /// `sort_by_label`, `fill` and more. Their meaning may change with a later version.
    pub promql_experimental: bool,
    /// More about how long samples are kept.
    pub retention: Retention,
    /// Summaries, for long ranges and for what samples are kept no longer of.
    pub tiers: Tiers,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retention_days: 30,
            seal_delay: Duration::from_secs(3_600),
            max_ahead: Duration::from_secs(3_600),
            out_of_order_window: Keep::Forever,
            max_host_series: 0,
            max_head_series: 2_000_000,
            lookback: Duration::from_secs(300),
            subquery_step: Duration::from_secs(60),
            query_max_series: 500_000,
            query_max_samples: 50_000_000,
            query_max_points: 11_000,
            query_cache_bytes: 32 << 20,
            promql_experimental: false,
            retention: Retention::default(),
            tiers: Tiers::default(),
        }
    }
}

impl Config {
    /// When samples expire at `now_ms`.
    #[must_use]
    pub fn cutoffs(&self, now_ms: UnixMs) -> Cutoffs {
        self.retention.cutoffs(self.retention_days, now_ms)
    }

    /// Reports what is out of bounds.
    pub fn check(&self, problems: &mut Problems) {
        self.retention.check(problems);
        self.tiers.check(problems);
        if self.out_of_order_window == Keep::Unset {
            problems.add("out_of_order_window", "must be a duration, such as 1h, or `forever`");
        }
        let mut number = |key: &str, value: u64, least: u64, most: u64| {
            if value < least || value > most {
                problems.add(key, format!("must be from {least} to {most}, not {value}"));
            }
        };
        number("retention_days", self.retention_days.into(), 1, 3_660);
        number("max_host_series", self.max_host_series.into(), 0, 100_000_000);
        number("max_head_series", self.max_head_series.into(), 1_000, 100_000_000);
        number("query_max_series", self.query_max_series.into(), 1, 100_000_000);
        number("query_max_samples", self.query_max_samples, 1_000, 10_000_000_000);
        number("query_max_points", self.query_max_points.into(), 10, 1_000_000);
        number("query_cache_bytes", self.query_cache_bytes, 0, 1 << 40);
        let mut duration = |key: &str, value: Duration, least_s: u64, most_s: u64| {
            if value < Duration::from_secs(least_s) || value > Duration::from_secs(most_s) {
                let text = |d| shipwatch_common::time::format_duration(d);
                let (least, most) = (text(Duration::from_secs(least_s)), text(Duration::from_secs(most_s)));
                problems.add(key, format!("must be from {least} to {most}, not {}", text(value)));
            }
        };
        if let Keep::For(window) = self.out_of_order_window {
            duration("out_of_order_window", window, 0, 3_660 * 86_400);
        }
        duration("seal_delay", self.seal_delay, 60, 86_400);
        duration("max_ahead", self.max_ahead, 1, 86_400);
        duration("lookback", self.lookback, 1, 86_400);
        duration("subquery_step", self.subquery_step, 1, 86_400);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_bad_values_are_named() {
        let mut problems = Problems::new();
        Config::default().check(&mut problems);
        assert_eq!(problems.list(), []);
        let bad = Config { retention_days: 0, seal_delay: Duration::from_secs(1), query_max_points: 1, ..Config::default() };
        bad.check(&mut problems);
        let told: Vec<String> = problems.list().iter().map(|p| format!("{} {}", p.key, p.message)).collect();
        assert_eq!(
            told,
            [
                "retention_days must be from 1 to 3660, not 0",
                "query_max_points must be from 10 to 1000000, not 1",
                "seal_delay must be from 1m to 1d, not 1s"
            ]
        );
    }
}
