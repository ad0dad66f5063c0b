//! Settings of the engine.

use crate::{
    error::{Error, Result},
    query::Query,
};
use serde::{Deserialize, Serialize};
use shipwatch_common::{config::Problems, time::serde_duration};
use std::time::Duration;

/// How long lines are kept: a duration, or `forever`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Age(
    /// `None` is for ever.
    pub Option<Duration>,
);

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "forever" {
            return Ok(Self(None));
        }
        let parsed = shipwatch_common::time::parse_duration(&text);
        parsed.map(|age| Self(Some(age))).map_err(|error| serde::de::Error::custom(format!("{error}; or \"forever\"")))
    }
}

impl Serialize for Age {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            None => to.serialize_str("forever"),
            Some(age) => serde_duration::serialize(&age, to),
        }
    }
}

/// How long the lines of some streams are kept. The first rule whose selector fits a stream decides; the other streams keep the days that
/// the server's retention says.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Which streams, such as `{app="nginx", env!="prod"}`.
    pub selector: String,
    /// Blocks whose lines are all older are deleted; `forever` keeps them.
    pub max_age: Age,
    /// Size on disk of these streams together above which their oldest blocks are deleted. `0` is no bound.
    #[serde(default)]
    pub max_bytes: u64,
}

impl Retention {
    /// The selector.
    pub(crate) fn query(&self) -> Result<Query> {
        let query = Query::parse(&self.selector)?;
        if query.matchers().is_empty() || query.has_conditions() {
            return Err(Error::Invalid(format!("must select streams by their labels, such as {{app=\"shop\"}}, not {:?}", self.selector)));
        }
        Ok(query)
    }
}

/// Settings of the log engine.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Text in one compressed block. Larger compresses better; a query that needs one line decompresses a whole block.
    pub block_bytes: u64,
    /// zstd level of sealed blocks, 1 to 19. Higher is smaller on disk and slower to store.
    pub zstd_level: i32,
    /// A stream's lines move from the head into blocks after this time, full block or not. Longer makes larger blocks of
    /// quiet streams, and a larger head to search.
    #[serde(with = "serde_duration")]
    pub seal_after: Duration,
    /// Text in the head above which the largest streams are sealed at once.
    pub head_bytes: u64,
    /// Size of the head's file that is never passed: appends are refused as full then, and the senders keep their lines.
    pub head_max_bytes: u64,
    /// Longer lines are cut here and marked as truncated.
    pub max_line_bytes: u64,
    /// A line that claims to be further ahead of the clock than this is filed under the time of its arrival.
    #[serde(with = "serde_duration")]
    pub max_ahead: Duration,
    /// A line that claims to be older than this is filed under the time of its arrival; `0` allows any age. Bounds the
    /// number of day files that a sender can cause.
    #[serde(with = "serde_duration")]
    pub max_behind: Duration,
    /// Size of all day files together above which retention drops the oldest days, but never today. `0` is no bound.
    pub max_bytes: u64,
    /// How long some streams are kept. `max_bytes` above is over all streams and stronger.
    pub retention: Vec<Retention>,
    /// Live subscriptions at one time; more are refused.
    pub max_subscribers: u64,
    /// Series that one LogQL query may have at a time; above it ends with an error.
    pub query_max_series: u64,
    /// Values that one LogQL metric query may hold in memory, about 32 bytes each; above it ends with an error.
    pub query_max_values: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            block_bytes: 1 << 20,
            zstd_level: 3,
            seal_after: Duration::from_secs(600),
            head_bytes: 64 << 20,
            head_max_bytes: 2 << 30,
            max_line_bytes: 1 << 20,
            max_ahead: Duration::from_secs(86_400),
            max_behind: Duration::from_secs(90 * 86_400),
            max_bytes: 0,
            retention: Vec::new(),
            max_subscribers: 64,
            query_max_series: 10_000,
            query_max_values: 5_000_000,
        }
    }
}

impl Config {
    /// Checks the bounds.
    pub fn check(&self, problems: &mut Problems) {
        let mut within = |key: &str, value: u64, low: u64, high: u64| {
            if !(low..=high).contains(&value) {
                problems.add(key, format!("must be between {low} and {high}, not {value}"));
            }
        };
        within("block_bytes", self.block_bytes, 4 << 10, 8 << 20);
        within("zstd_level", u64::try_from(self.zstd_level).unwrap_or(0), 1, 19);
        within("head_bytes", self.head_bytes, 1 << 20, 1 << 30);
        within("head_max_bytes", self.head_max_bytes, self.head_bytes.saturating_mul(2), 1 << 40);
        within("max_line_bytes", self.max_line_bytes, 256, 4 << 20);
        within("max_subscribers", self.max_subscribers, 0, 4096);
        within("query_max_series", self.query_max_series, 1, 1_000_000);
        within("query_max_values", self.query_max_values, 1_000, 1_000_000_000);
        for (rule, at) in self.retention.iter().zip(0..) {
            if let Err(error) = rule.query() {
                problems.add(&format!("retention[{at}].selector"), error.to_string());
            }
            if rule.max_age.0.is_some_and(|age| age < Duration::from_secs(60)) {
                problems.add(&format!("retention[{at}].max_age"), "must be at least 1m, or \"forever\"");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_checked_and_the_defaults_are_within() {
        let mut problems = Problems::new();
        Config::default().check(&mut problems);
        assert!(problems.is_empty(), "{problems}");
        Config { block_bytes: 1, zstd_level: -3, head_max_bytes: 5, ..Config::default() }.check(&mut problems);
        let told: Vec<_> = problems.list().iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(told, ["block_bytes", "zstd_level", "head_max_bytes"]);
    }
}
