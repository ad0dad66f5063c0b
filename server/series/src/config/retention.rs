//! How long samples are kept: by age, by environment, by size.
//!
//! # Invariants
//! - A time is expired for one environment, never "a little": it is before that environment's cutoff or it is not.
//! - Without a bound (`forever`) the cutoff is 1970-01-01, so a sample of any age since then is taken.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use shipwatch_common::{
    config::Problems,
    model::Labels,
    time::{UnixMs, duration_ms, format_duration, parse_duration},
};
use std::{collections::BTreeMap, time::Duration};

/// Name of the label that says which environment a series belongs to.
pub const ENV: &str = "env";

const FOREVER: &str = "forever";
const DAY: Duration = Duration::from_secs(86_400);
/// A hundred years.
const LONGEST_DAYS: u32 = 36_500;

/// A span of time that may have no end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// Not given: what is more general holds.
    Unset,
    /// For this long.
    For(Duration),
    /// Without end.
    Forever,
}

impl Keep {
    /// This, or the other one where it is not given.
    const fn or(self, general: Self) -> Self {
        match self {
            Self::Unset => general,
            given => given,
        }
    }

    /// Reports an age that is out of bounds.
    pub(super) fn check(self, key: &str, problems: &mut Problems) {
        if let Self::For(age) = self
            && !(DAY..=DAY * LONGEST_DAYS).contains(&age)
        {
            let text = format_duration(age);
            problems.add(key, format!("must be from 1d to {LONGEST_DAYS}d, or `{FOREVER}`, not {text}"));
        }
    }
}

impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unset => to.serialize_str(""),
            Self::For(duration) => to.serialize_str(&format_duration(*duration)),
            Self::Forever => to.serialize_str(FOREVER),
        }
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match String::deserialize(from)?.as_str() {
            "" => Ok(Self::Unset),
            FOREVER => Ok(Self::Forever),
            text => parse_duration(text).map(Self::For).map_err(|why| D::Error::custom(format!("{why}, or `{FOREVER}`"))),
        }
    }
}

/// `[series.retention]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Age up to which samples are kept, or `forever`. Empty takes `series.retention_days`.
    pub age: Keep,
    /// Bytes of the whole store, summaries included, above which that goes first which has the largest part of its time behind it,
    /// never the newest day of samples; 0 is no bound.
    pub max_bytes: u64,
    /// The age for single environments (label `env`), which wins over `age`.
    pub env: BTreeMap<String, Keep>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Keep::Unset, max_bytes: 0, env: BTreeMap::new() }
    }
}

impl Retention {
    /// Reports what is out of bounds.
    pub(super) fn check(&self, problems: &mut Problems) {
        self.age.check("retention.age", problems);
        for (env, age) in &self.env {
            age.check(&format!("retention.env.{env}"), problems);
        }
        if self.max_bytes != 0 && self.max_bytes < 64 << 20 {
            problems.add("retention.max_bytes", format!("must be 0 (no bound) or at least {}, not {}", 64 << 20, self.max_bytes));
        }
    }

    /// When samples expire at `now_ms`. `days` is `series.retention_days`.
    #[must_use]
    pub fn cutoffs(&self, days: u32, now_ms: UnixMs) -> Cutoffs {
        Cutoffs::new(self.age.or(Keep::For(DAY * days)), &self.env, now_ms)
    }
}

/// What is before its cutoff has expired.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cutoffs {
    general: UnixMs,
    envs: BTreeMap<String, UnixMs>,
    /// What is before this one has expired whatever its environment is.
    pub earliest: UnixMs,
    /// What is not before this one is kept whatever its environment is.
    pub latest: UnixMs,
}

impl Cutoffs {
    /// Of an age and those of environments, at `now_ms`; ages that are not given are the general one.
    pub(super) fn new(age: Keep, env: &BTreeMap<String, Keep>, now_ms: UnixMs) -> Self {
        let of = |keep: Keep, general: UnixMs| match keep {
            Keep::Unset => general,
            Keep::For(age) => now_ms.saturating_sub(duration_ms(age)).max(0),
            Keep::Forever => 0,
        };
        let general = of(age, 0);
        let envs: BTreeMap<String, UnixMs> = env.iter().map(|(env, keep)| (env.clone(), of(*keep, general))).collect();
        let latest = envs.values().copied().fold(general, UnixMs::max);
        let earliest = envs.values().copied().fold(general, UnixMs::min);
        Self { general, envs, earliest, latest }
    }

    /// The cutoff of an environment; the empty one is that of series without the label.
    #[must_use]
    pub fn of_env(&self, env: &str) -> UnixMs {
        self.envs.get(env).copied().unwrap_or(self.general)
    }

    /// Whether a sample has expired.
    #[must_use]
    pub fn is_expired(&self, labels: &Labels, ts: UnixMs) -> bool {
        ts < self.earliest || (ts < self.latest && ts < self.of_env(labels.get(ENV).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;
    const NOW: i64 = 20_780 * DAY_MS;

    fn labels(env: &str) -> Labels {
        Labels::new([("__name__", "up"), (ENV, env)]).unwrap()
    }

    fn days(count: u32) -> Keep {
        Keep::For(DAY * count)
    }

    #[test]
    fn an_environment_has_its_own_age() {
        let env = [("prod".to_owned(), days(400)), ("staging".to_owned(), days(14)), ("as-all".to_owned(), Keep::Unset)];
        let cutoffs = Retention { env: env.into(), ..Retention::default() }.cutoffs(30, NOW);
        assert_eq!((cutoffs.earliest, cutoffs.latest), (NOW - 400 * DAY_MS, NOW - 14 * DAY_MS));
        for (env, kept) in [("prod", 400), ("staging", 14), ("as-all", 30), ("other", 30), ("", 30)] {
            let edge = NOW - kept * DAY_MS;
            assert_eq!((cutoffs.is_expired(&labels(env), edge), cutoffs.is_expired(&labels(env), edge - 1)), (false, true), "{env}");
        }
    }

    #[test]
    fn forever_takes_everything_since_1970() {
        let cutoffs = Retention { age: Keep::Forever, ..Retention::default() }.cutoffs(30, NOW);
        assert_eq!((cutoffs.is_expired(&labels("x"), 0), cutoffs.is_expired(&labels("x"), -1)), (false, true));
    }

    #[test]
    fn mistakes_are_told_with_their_key() {
        let text = r#"{"age": "1h", "max_bytes": 5, "env": {"prod": "forever", "x": "99999d"}}"#;
        let mut problems = Problems::new();
        serde_json::from_str::<Retention>(text).unwrap().check(&mut problems);
        let told: Vec<String> = problems.list().iter().map(|p| format!("{} {}", p.key, p.message)).collect();
        assert_eq!(
            told,
            [
                "retention.age must be from 1d to 36500d, or `forever`, not 1h",
                "retention.env.x must be from 1d to 36500d, or `forever`, not 99999d",
                "retention.max_bytes must be 0 (no bound) or at least 67108864, not 5"
            ]
        );
        let error = serde_json::from_str::<Retention>(r#"{"age": "ever"}"#).unwrap_err().to_string();
        assert!(error.contains("`ever` is not a duration") && error.contains("or `forever`"), "{error}");
    }
}
