//! Not merged yet.

/// Own configuration.
#[derive(Clone, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}

impl Config {
    /// Checks it.
    pub fn check(&self, _problems: &mut shipwatch_common::config::Problems) {}
}
