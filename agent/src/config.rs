//! The agent's whole configuration: the sum of its modules' own.

use crate::{collect, spool, tail, uplink};
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    config::{Problems, load},
    logging, mask,
};
use std::path::{Path, PathBuf};

/// Where the agent keeps its own files.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Agent {
    /// Directory of identity, spool and deploy journals. Must outlive the process; root's, not readable by others.
    pub state_dir: String,
    /// The local policy: what the server may ask of this host.
    pub policy_file: String,
}

impl Default for Agent {
    fn default() -> Self {
        Self { state_dir: "/var/lib/shipwatch-agent".to_owned(), policy_file: "/etc/shipwatch/policy.toml".to_owned() }
    }
}

/// `agent.toml`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The agent's own files.
    pub agent: Agent,
    /// The server.
    pub uplink: uplink::Config,
    /// Host metrics.
    pub collect: collect::Config,
    /// Log files.
    pub tail: tail::Config,
    /// Masking of everything that leaves.
    pub mask: mask::Config,
    /// What waits on disk.
    pub spool: spool::Config,
    /// The agent's own log.
    pub log: logging::Config,
}

impl Config {
    /// Where the file is unless the command line says otherwise. This one may be missing: then everything is as by default.
    pub const FILE: &str = "/etc/shipwatch/agent.toml";

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
        load(text, path, env, |config: &Self, problems| {
            for (key, value) in [("state_dir", &config.agent.state_dir), ("policy_file", &config.agent.policy_file)] {
                if !Path::new(value).is_absolute() {
                    problems.section("agent").add(key, format!("must be an absolute path, not {value:?}"));
                }
            }
            config.uplink.check(problems.section("uplink"));
            config.collect.check(problems.section("collect"));
            config.tail.check(problems.section("tail"));
            config.mask.check(problems.section("mask"));
            config.spool.check(problems.section("spool"));
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
