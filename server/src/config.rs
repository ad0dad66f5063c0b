//! The server's whole configuration: the sum of its modules' own.

use crate::{api, forward, gateway, notify, push, rules};
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    config::{Problems, load},
    logging, mask,
};
use std::path::{Path, PathBuf};

/// Where the server keeps its own files.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Directory of databases and keys; private to the server's user.
    pub data_dir: String,
}

impl Default for Server {
    fn default() -> Self {
        Self { data_dir: "/var/lib/shipwatch".to_owned() }
    }
}

/// How long things are kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Days of log lines. (Days of samples: `series.retention_days`.)
    pub log_days: u32,
    /// Days of deployments' output, alert history and delivered messages.
    pub history_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { log_days: 30, history_days: 90 }
    }
}

impl Retention {
    fn check(&self, problems: &mut Problems) {
        for (key, days) in [("log_days", self.log_days), ("history_days", self.history_days)] {
            if !(1..=3650).contains(&days) {
                problems.add(key, format!("must be between 1 and 3650, not {days}"));
            }
        }
    }
}

/// `server.toml`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The server's own files.
    pub server: Server,
    /// Dashboard and API.
    pub api: api::Config,
    /// Agents.
    pub gateway: gateway::Config,
    /// Samples.
    pub series: shipwatch_series::Config,
    /// What others may write, beside agents: Prometheus' remote write.
    pub receive: shipwatch_series::remote::ReceiveConfig,
    /// Log lines that others may push.
    pub push: push::Config,
    /// Where samples are sent to: other systems that understand Prometheus' remote write.
    pub forward: forward::Config,
    /// Log lines.
    pub logs: shipwatch_logs::Config,
    /// How long things are kept.
    pub retention: Retention,
    /// When an alert fires.
    pub rules: rules::Config,
    /// Who is told.
    pub notify: notify::Config,
    /// Masking of the server's own log, and of lines that others push.
    pub mask: mask::Config,
    /// The server's own log.
    pub log: logging::Config,
}

/// Short names for what is set most often; the systematic name wins.
const SHORT: [(&str, &str); 3] = [
    ("SHIPWATCH_DATA", "SHIPWATCH_SERVER_DATA_DIR"),
    ("SHIPWATCH_HTTP", "SHIPWATCH_API_LISTEN"),
    ("SHIPWATCH_AGENTS", "SHIPWATCH_GATEWAY_LISTEN"),
];

impl Config {
    /// Where the file is unless the command line says otherwise. This one may be missing: then everything is as by default.
    pub const FILE: &str = "/etc/shipwatch/server.toml";

    /// Reads a configuration file. `env` is the environment.
    ///
    /// # Errors
    /// All mistakes at once, or a file that cannot be read.
    pub fn read(path: &Path, env: &[(String, String)]) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            // A file that somebody named and that is not there is a mistake, not a wish for the defaults.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path == Path::new(Self::FILE) => String::new(),
            Err(source) => return Err(ConfigError::Io { path: path.to_owned(), source }),
        };
        Ok(Self::parse(&text, path, env)?)
    }

    /// As [`Config::read`], from text.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn parse(text: &str, path: &Path, env: &[(String, String)]) -> Result<Self, Problems> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (short, long) in SHORT {
            if let Some((_, value)) = env.iter().find(|(name, _)| name == short) {
                all.push((long.to_owned(), value.clone()));
            }
        }
        all.extend_from_slice(env);
        load(text, path, &all, |config: &Self, problems| {
            if config.server.data_dir.is_empty() {
                problems.section("server").add("data_dir", "must not be empty");
            }
            config.api.check(problems.section("api"));
            config.gateway.check(problems.section("gateway"));
            config.series.check(problems.section("series"));
            config.receive.check(problems.section("receive"));
            config.push.check(problems.section("push"));
            config.forward.check(problems.section("forward"));
            config.logs.check(problems.section("logs"));
            config.retention.check(problems.section("retention"));
            config.rules.check(problems.section("rules"));
            config.notify.check(problems.section("notify"));
            config.mask.check(problems.section("mask"));
            config.log.check(problems.section("log"));
        })
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Mistakes in it.
    #[error("{0}")]
    Problems(#[from] Problems),
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}
