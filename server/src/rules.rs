//! When an alert fires: Prometheus' rule files and the steps of alert state. Pure but for reading files; evaluation loops,
//! the store and messages belong to [`crate::alerting`].
//!
//! # Layout
//! - [`file`], [`find`]: rule files into [`file::Group`]s, every mistake at once; [`template`]: labels and annotations
//! - [`evaluate`]: one evaluation: ask, then step; [`state`]: the step of one alert; [`schedule`]: when
//!
//! # Invariants
//! - The meaning is Prometheus' own; what differs is said where it does: a limit that is exceeded is an error that keeps the
//!   alerts, and a restart keeps every `for`.
//! - An evaluation that fails changes no alert.

pub mod evaluate;
pub mod file;
pub mod find;
pub mod schedule;
pub mod state;
pub mod template;
mod yaml;

use serde::{Deserialize, Serialize};
use shipwatch_common::{
    config::Problems,
    time::{format_duration, serde_duration},
};
use std::time::Duration;

/// When an alert fires.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Rule files as Prometheus writes them: files, directories (their `*.yml` and `*.yaml`), patterns such as
    /// `/etc/shipwatch/rules/*.yml`. Read again by `POST /-/reload` and SIGHUP.
    pub files: Vec<String>,
    /// How often groups without an `interval` are evaluated: Prometheus' `evaluation_interval`.
    #[serde(with = "serde_duration")]
    pub interval: Duration,
    /// How far in the past groups without a `query_offset` look.
    #[serde(with = "serde_duration")]
    pub query_offset: Duration,
    /// An expression that runs longer fails; its alerts stay as they are.
    #[serde(with = "serde_duration")]
    pub query_timeout: Duration,
    /// Whether a silent host raises `HostDown`, without a rule.
    pub host_down: bool,
    /// How long a host's connection must be gone before `HostDown` fires. That it is gone is known at most 15 s after its last
    /// packet, and hosts are looked at every 2 s.
    #[serde(with = "serde_duration")]
    pub host_down_for: Duration,
    /// After the server's start no alert that was there is resolved by missing data, and no `HostDown` begins, for this long:
    /// agents need time to come back.
    #[serde(with = "serde_duration")]
    pub startup_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            interval: Duration::from_secs(15),
            query_offset: Duration::ZERO,
            query_timeout: Duration::from_secs(20),
            host_down: true,
            host_down_for: Duration::from_secs(1),
            startup_grace: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Checks bounds; the rule files themselves are read when the server starts.
    pub fn check(&self, problems: &mut Problems) {
        let second = Duration::from_secs(1);
        for (key, value, least, most) in [
            ("interval", self.interval, second, 86_400 * second),
            ("query_offset", self.query_offset, Duration::ZERO, 86_400 * second),
            ("query_timeout", self.query_timeout, second, 600 * second),
            ("host_down_for", self.host_down_for, second, 3_600 * second),
            ("startup_grace", self.startup_grace, Duration::ZERO, 3_600 * second),
        ] {
            if value < least || value > most {
                let text = format_duration;
                problems.add(key, format!("must be from {} to {}, not {}", text(least), text(most), text(value)));
            }
        }
        if self.files.iter().any(String::is_empty) {
            problems.add("files", "must not hold an empty name");
        }
    }

    /// What rule files leave out.
    #[must_use]
    pub const fn defaults(&self) -> file::Defaults {
        file::Defaults { interval: self.interval, query_offset: self.query_offset }
    }
}
