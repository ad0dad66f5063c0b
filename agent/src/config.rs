//! The agent's whole configuration: the sum of its modules' own.

use crate::{collect, spool, tail, uplink};
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    config::{Problems, load_like},
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
        let template = Self { tail: tail::Config::template(), ..Self::default() };
        load_like(&template, text, path, env, |config: &Self, problems| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_all_their_mistakes_are_told() {
        let read = |text: &str| Config::parse(text, Path::new("agent.toml"), &[]);
        let good = read(
            "[tail]\nfiles = [\"/var/log/*.log\"]\n[[tail.sources]]\nfiles = [\"/srv/shop/*.log\"]\nencoding = \"gbk\"\n\
             timezone = \"UTC\"\nmax_lines_per_second = 100\nmultiline = { preset = \"java\" }\nparser = { kind = \"logfmt\" }\n\
             labels = { app = \"shop\" }\nexclude_lines = [\"^DEBUG\"]\n[[tail.sources.sample]]\npattern = \"/health\"\nkeep = 0\n",
        )
        .unwrap();
        let [source] = &good.tail.sources[..] else { panic!("{good:?}") };
        assert_eq!((source.multiline.preset.as_str(), source.multiline.max_lines, source.sample[0].keep), ("java", 500, 0.0));
        let told = read(
            "[[tail.sources]]\nfiles = [\"relative\"]\nencodng = \"gbk\"\n[[tail.sources]]\nencoding = \"latin\"\n\
             timezone = \"Mars/Base\"\nparser.kind = \"jsn\"\nmultiline.preset = \"cobol\"\ninclude = [\"(\"]\n\
             multiline.wait = \"long\"\n[[tail.sources.sample]]\nkeep = 2.0\npatern = \"x\"\n",
        )
        .unwrap_err()
        .to_string();
        for expected in [
            "agent.toml:3: `tail.sources.0.encodng` is not known; did you mean `encoding`?",
            "agent.toml:10: `tail.sources.1.multiline.wait` `long` is not a duration",
            "agent.toml:13: `tail.sources.1.sample.0.patern` is not known; did you mean `pattern`?",
        ] {
            assert!(told.contains(expected), "missing {expected:?} in:\n{told}");
        }
        let told = read(
            "[[tail.sources]]\nfiles = [\"relative\"]\n[[tail.sources]]\nencoding = \"latin\"\n\
             timezone = \"Mars/Base\"\nparser.kind = \"jsn\"\nmultiline.preset = \"cobol\"\ninclude = [\"(\"]\n\
             [[tail.sources.sample]]\nkeep = 2.0\n",
        )
        .unwrap_err()
        .to_string();
        for expected in [
            "agent.toml:2: `tail.sources.0.files` \"relative\" must be an absolute path",
            "agent.toml:3: `tail.sources.1.files` must name at least one glob",
            "agent.toml:4: `tail.sources.1.encoding` must be utf-8",
            "agent.toml:5: `tail.sources.1.timezone` \"Mars/Base\" is no zone",
            "agent.toml:6: `tail.sources.1.parser.kind` must be auto",
            "agent.toml:7: `tail.sources.1.multiline.preset` must be java",
            "agent.toml:8: `tail.sources.1.include.0` is not a pattern",
            "agent.toml:10: `tail.sources.1.sample.0.keep` must be between 0 and 1",
        ] {
            assert!(told.contains(expected), "missing {expected:?} in:\n{told}");
        }
    }
}
