//! `[[forward.targets]]`.

use crate::notify::secret::Secret;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    config::Problems,
    model::Labels,
    time::{format_duration, serde_duration},
};
use shipwatch_series::{Matcher, promql::parse_selector, remote::Version};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

/// Most lanes of one target.
pub const MAX_LANES: usize = 16;

/// Where samples are sent to.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Each gets all samples that it asks for, independently of the others.
    pub targets: Vec<Target>,
}

/// Which message a target understands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Protocol {
    /// Remote write 1.0: everybody.
    #[default]
    #[serde(rename = "1.0")]
    V1,
    /// Remote write 2.0: smaller, and says what was written; 1.0 is taken if the target does not understand it.
    #[serde(rename = "2.0")]
    V2,
}

impl Protocol {
    /// The encoder's.
    #[must_use]
    pub const fn version(self) -> Version {
        match self {
            Self::V1 => Version::V1,
            Self::V2 => Version::V2,
        }
    }
}

/// One system that understands Prometheus' remote write.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    /// Unique; letters, digits, `-` and `_`. Its queue is in `DATA/forward/NAME`.
    pub name: String,
    /// Where to, such as `https://metrics.example.com/api/v1/write`. Not shown: it may hold a token.
    pub url: Secret,
    /// `1.0` or `2.0`.
    pub protocol: Protocol,
    /// Series that are sent: those that one of these selectors matches. None sends all.
    #[serde(rename = "match")]
    pub selectors: Vec<String>,
    /// Labels that each series gets unless it has them.
    pub external_labels: BTreeMap<String, String>,
    /// A file that holds a bearer token. It is read before each request, so that it can be renewed.
    pub bearer_token_file: String,
    /// For basic authentication.
    pub username: String,
    /// A file that holds the password. It is read before each request.
    pub password_file: String,
    /// A file with certificates (PEM) that are trusted instead of this machine's.
    pub tls_ca_file: String,
    /// Most samples in one request.
    pub max_samples_per_send: usize,
    /// Requests at a time. All samples of a series go through the same lane, in order.
    pub lanes: usize,
    /// How long samples gather before they are sent.
    #[serde(with = "serde_duration")]
    pub send_interval: Duration,
    /// Time for one request.
    #[serde(with = "serde_duration")]
    pub timeout: Duration,
    /// Bytes on disk of what waits; above it the oldest is dropped.
    pub max_queue_bytes: u64,
    /// Samples that have become older than this are dropped.
    #[serde(with = "serde_duration")]
    pub max_age: Duration,
    /// How often 1.0 says what metrics are; 0s never.
    #[serde(with = "serde_duration")]
    pub metadata_interval: Duration,
    /// Further statuses (400 to 499) after which the same samples are tried again, such as 401 while a token is renewed.
    pub retry_statuses: Vec<u16>,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: Secret::default(),
            protocol: Protocol::V1,
            selectors: Vec::new(),
            external_labels: BTreeMap::new(),
            bearer_token_file: String::new(),
            username: String::new(),
            password_file: String::new(),
            tls_ca_file: String::new(),
            max_samples_per_send: 2_000,
            lanes: 4,
            send_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
            max_queue_bytes: 4 << 30,
            max_age: Duration::from_secs(7 * 86_400),
            metadata_interval: Duration::from_secs(60),
            retry_statuses: Vec::new(),
        }
    }
}

impl Config {
    /// Checks bounds, selectors and names. Files are read when they are needed.
    pub fn check(&self, problems: &mut Problems) {
        let mut names = HashSet::new();
        for (at, target) in self.targets.iter().enumerate() {
            let mut tell = |key: &str, text: String| problems.add(&format!("targets.{at}.{key}"), text);
            if !names.insert(&target.name) {
                tell("name", format!("is used by two targets: {:?}", target.name));
            }
            target.check(&mut tell);
        }
    }
}

impl Target {
    fn check(&self, tell: &mut impl FnMut(&str, String)) {
        let good = !self.name.is_empty() && self.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !good || self.name.len() > 64 {
            tell("name", format!("must be 1 to 64 letters, digits, `-` and `_`, not {:?}", self.name));
        }
        if let Err(error) = self.parsed_url() {
            tell("url", error);
        }
        if let Err(error) = self.matchers() {
            tell("match", error);
        }
        self.check_labels(tell);
        self.check_bounds(tell);
        if !self.bearer_token_file.is_empty() && !self.username.is_empty() {
            tell("bearer_token_file", "and `username` are both there; keep one".to_owned());
        }
        if self.username.is_empty() != self.password_file.is_empty() {
            tell("username", "and `password_file` belong together".to_owned());
        }
        for status in &self.retry_statuses {
            if !(400..500).contains(status) || *status == 415 {
                tell("retry_statuses", format!("must be from 400 to 499 without 415, not {status}; 429 and 5xx are always tried again"));
            }
        }
    }

    fn check_labels(&self, tell: &mut impl FnMut(&str, String)) {
        for (name, value) in &self.external_labels {
            let good =
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !name.starts_with(|c: char| c.is_ascii_digit());
            if !good || name.is_empty() || name == Labels::NAME {
                tell("external_labels", format!("{name:?} is no label name: letters, digits and `_`, not a digit first, not `__name__`"));
            }
            if value.is_empty() || value.len() > Labels::MAX_VALUE_BYTES {
                tell("external_labels", format!("the value of `{name}` must have 1 to {} bytes", Labels::MAX_VALUE_BYTES));
            }
        }
    }

    fn check_bounds(&self, tell: &mut impl FnMut(&str, String)) {
        let mut number = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                tell(key, format!("must be from {least} to {most}, not {value}"));
            }
        };
        number("max_samples_per_send", self.max_samples_per_send as u64, 1, 50_000);
        number("lanes", self.lanes as u64, 1, MAX_LANES as u64);
        number("max_queue_bytes", self.max_queue_bytes, 8 << 20, 1 << 42);
        let second = Duration::from_secs(1);
        for (key, value, least, most) in [
            ("send_interval", self.send_interval, second / 20, 60 * second),
            ("timeout", self.timeout, second, 300 * second),
            ("max_age", self.max_age, 60 * second, 3_650 * 86_400 * second),
            ("metadata_interval", self.metadata_interval, Duration::ZERO, 86_400 * second),
        ] {
            if value < least || value > most {
                let text = format_duration;
                tell(key, format!("must be from {} to {}, not {}", text(least), text(most), text(value)));
            }
        }
    }

    /// Where to.
    ///
    /// # Errors
    /// Why it cannot be used, without the URL itself.
    pub fn parsed_url(&self) -> Result<Url, String> {
        if self.url.is_empty() {
            return Err("is missing, such as https://metrics.example.com/api/v1/write".to_owned());
        }
        let url = crate::notify::config::url(self.url.reveal())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user or a password: set `username` and `password_file`".to_owned());
        }
        Ok(url)
    }

    /// What it wants: one of the lists must be met.
    ///
    /// # Errors
    /// A selector that cannot be read.
    pub fn matchers(&self) -> Result<Vec<Vec<Matcher>>, String> {
        let read = |text: &String| parse_selector(text).map_err(|error| format!("{text:?}: {error}; write one such as {{env=\"prod\"}}"));
        self.selectors.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(toml: &str) -> Vec<String> {
        let config: Config = toml::from_str(toml).unwrap_or_else(|error| panic!("{error}"));
        let mut problems = Problems::new();
        config.check(problems.section("forward"));
        problems.list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_section_has_no_problems() {
        let toml = r#"
            [[targets]]
            name = "central"
            url = "https://metrics.example.com/api/v1/write"
            protocol = "2.0"
            match = ['{env="prod"}', 'up{job=~"a|b"}']
            external_labels = { cluster = "eu-1" }
            username = "u"
            password_file = "/etc/shipwatch/central.password"
            retry_statuses = [401, 403]
        "#;
        assert_eq!(problems(toml), Vec::<String>::new());
    }

    #[test]
    fn each_mistake_is_told_with_its_place_and_no_url() {
        let toml = r#"
            [[targets]]
            name = "a b"
            url = "https://user:hunter22@x/write"
            match = ["{env="]
            external_labels = { "1x" = "y" }
            username = "u"
            lanes = 0
            max_queue_bytes = 5
            timeout = "1ms"
            retry_statuses = [500]
            [[targets]]
            name = "a b"
        "#;
        let told = problems(toml);
        for key in [
            "0.name",
            "0.url",
            "0.match",
            "0.external_labels",
            "0.username",
            "0.lanes",
            "0.max_queue_bytes",
            "0.timeout",
            "0.retry_statuses",
            "1.name",
            "1.url",
        ] {
            assert!(told.iter().any(|line| line.contains(&format!("targets.{key}"))), "{key}: {told:#?}");
        }
        assert!(!told.iter().any(|line| line.contains("hunter22")), "{told:#?}");
        assert!(!format!("{:?}", toml::from_str::<Config>(toml).unwrap()).contains("hunter22"));
    }
}
