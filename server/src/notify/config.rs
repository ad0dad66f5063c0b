//! `[notify]` and `[[notify.channels]]`.

use super::{alert::Severity, secret::Secret};
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    config::Problems,
    time::{format_duration, serde_duration},
};
use shipwatch_series::{MatchOp, Matcher};
use std::{collections::HashSet, net::IpAddr, time::Duration};

/// How messages are grouped and paced: Alertmanager's default route.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Alerts that have these labels in common make one message; `["..."]` makes a message of each.
    pub group_by: Vec<String>,
    /// How long a new group gathers before its first message.
    #[serde(with = "serde_duration")]
    pub group_wait: Duration,
    /// Between two messages of a group in which something changed.
    #[serde(with = "serde_duration")]
    pub group_interval: Duration,
    /// Before what still fires is told again.
    #[serde(with = "serde_duration")]
    pub repeat_interval: Duration,
    /// Time for one attempt to hand a message over.
    #[serde(with = "serde_duration")]
    pub timeout: Duration,
    /// A message that no attempt got through for this long is given up, visibly.
    #[serde(with = "serde_duration")]
    pub give_up_after: Duration,
    /// Time zone of times in messages, such as `Asia/Shanghai`; empty is the server's own.
    pub time_zone: String,
    /// `zh`, `en`, or `both`.
    pub language: Language,
    /// Who is told. Each is told of every alert that its `min_severity` and `matchers` let through.
    pub channels: Vec<Channel>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            group_by: vec!["alertname".to_owned()],
            group_wait: Duration::from_secs(5),
            group_interval: Duration::from_secs(60),
            repeat_interval: Duration::from_secs(4 * 3_600),
            timeout: Duration::from_secs(10),
            give_up_after: Duration::from_secs(24 * 3_600),
            time_zone: String::new(),
            language: Language::Both,
            channels: Vec::new(),
        }
    }
}

/// The part that grouping needs.
#[derive(Clone, Debug)]
pub struct Route {
    /// See [`Config`].
    pub group_by: Vec<String>,
    /// See [`Config`].
    pub group_wait: Duration,
    /// See [`Config`].
    pub group_interval: Duration,
    /// See [`Config`].
    pub repeat_interval: Duration,
}

/// In which language messages are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// 中文。
    Zh,
    /// English.
    En,
    /// Chinese words with English ones beside them.
    #[default]
    Both,
}

/// What kind of channel.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Alertmanager's webhook, version 4.
    #[default]
    Webhook,
    /// A group robot of DingTalk.
    Dingtalk,
    /// Mail by SMTP.
    Email,
}

impl Kind {
    /// As written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Dingtalk => "dingtalk",
            Self::Email => "email",
        }
    }
}

/// How the connection to a mail server is protected.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// TLS after `STARTTLS`, which the server must offer; port 587.
    #[default]
    Starttls,
    /// TLS from the first byte; port 465.
    Tls,
    /// Not at all; only for a server on this machine; port 25.
    None,
}

/// `[[notify.channels]]`. Which keys count depends on `kind`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Unique; letters, digits, `-` and `_`.
    pub name: String,
    /// `webhook`, `dingtalk`, `email`.
    pub kind: Kind,
    /// Alerts below this are not told: `info`, `warning`, `critical`.
    #[serde(default)]
    pub min_severity: Severity,
    /// All of these must be met: `env="prod"`, `team=~"a|b"`, `role!="test"`.
    #[serde(default)]
    pub matchers: Vec<String>,
    /// Whether the end of an alert is told.
    #[serde(default = "yes")]
    pub send_resolved: bool,
    /// webhook, dingtalk: where to, with everything secret that is in it.
    #[serde(default)]
    pub url: Secret,
    /// A file that holds `url`.
    #[serde(default)]
    pub url_file: String,
    /// dingtalk: the robot's signing secret (加签). webhook: signs the body, see `docs/alerting.md`.
    #[serde(default)]
    pub secret: Secret,
    /// A file that holds `secret`.
    #[serde(default)]
    pub secret_file: String,
    /// dingtalk: mobile numbers of members that are called by name in critical messages.
    #[serde(default)]
    pub at_mobiles: Vec<String>,
    /// dingtalk: a word that the robot's security settings ask for; put into each title.
    #[serde(default)]
    pub keyword: String,
    /// email: the server's name.
    #[serde(default)]
    pub host: String,
    /// email: 0 takes what `tls` usually has.
    #[serde(default)]
    pub port: u16,
    /// email: `starttls`, `tls`, `none`.
    #[serde(default)]
    pub tls: MailTls,
    /// email: empty sends without signing in.
    #[serde(default)]
    pub username: String,
    /// email.
    #[serde(default)]
    pub password: Secret,
    /// A file that holds `password`.
    #[serde(default)]
    pub password_file: String,
    /// email: `Shipwatch <alerts@example.com>`.
    #[serde(default)]
    pub from: String,
    /// email.
    #[serde(default)]
    pub to: Vec<String>,
}

const fn yes() -> bool {
    true
}

impl Config {
    /// The part that grouping needs.
    #[must_use]
    pub fn route(&self) -> Route {
        Route {
            group_by: self.group_by.clone(),
            group_wait: self.group_wait,
            group_interval: self.group_interval,
            repeat_interval: self.repeat_interval,
        }
    }

    /// Checks bounds and channels. Files of secrets are read when the server starts.
    pub fn check(&self, problems: &mut Problems) {
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        for (key, value, least, most) in [
            ("group_wait", self.group_wait, Duration::ZERO, day),
            ("group_interval", self.group_interval, second, day),
            ("repeat_interval", self.repeat_interval, 60 * second, 365 * day),
            ("timeout", self.timeout, second, 300 * second),
            ("give_up_after", self.give_up_after, 60 * second, 30 * day),
        ] {
            if value < least || value > most {
                let text = format_duration;
                problems.add(key, format!("must be from {} to {}, not {}", text(least), text(most), text(value)));
            }
        }
        if let Err(error) = zone(&self.time_zone) {
            problems.add("time_zone", error);
        }
        let mut names = HashSet::new();
        for (at, channel) in self.channels.iter().enumerate() {
            let mut tell = |key: &str, text: String| problems.add(&format!("channels.{at}.{key}"), text);
            if !names.insert(&channel.name) {
                tell("name", format!("is used by two channels: {:?}", channel.name));
            }
            channel.check(&mut tell);
        }
    }
}

/// The zone of a name; empty is this machine's.
///
/// # Errors
/// A name that is not known.
pub fn zone(name: &str) -> Result<jiff::tz::TimeZone, String> {
    if name.is_empty() {
        return Ok(jiff::tz::TimeZone::system());
    }
    jiff::tz::TimeZone::get(name).map_err(|_| format!("{name:?} is no time zone of this machine; write one such as Asia/Shanghai"))
}

impl Channel {
    fn check(&self, tell: &mut impl FnMut(&str, String)) {
        let good = !self.name.is_empty() && self.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !good || self.name.len() > 64 {
            tell("name", format!("must be 1 to 64 letters, digits, `-` and `_`, not {:?}", self.name));
        }
        for text in &self.matchers {
            if let Err(error) = matcher(text) {
                tell("matchers", error);
            }
        }
        for (key, both) in [
            ("url", !self.url.is_empty() && !self.url_file.is_empty()),
            ("secret", !self.secret.is_empty() && !self.secret_file.is_empty()),
            ("password", !self.password.is_empty() && !self.password_file.is_empty()),
        ] {
            if both {
                tell(key, format!("and `{key}_file` are both there; keep one"));
            }
        }
        match self.kind {
            Kind::Webhook | Kind::Dingtalk => self.check_http(tell),
            Kind::Email => self.check_mail(tell),
        }
        for (key, given, kinds) in self.given() {
            if given && !kinds.contains(&self.kind) {
                tell(key, format!("has no meaning for a channel of kind {}", self.kind.as_str()));
            }
        }
    }

    /// Keys that only some kinds have.
    fn given(&self) -> [(&'static str, bool, &'static [Kind]); 11] {
        const HTTP: &[Kind] = &[Kind::Webhook, Kind::Dingtalk];
        const DING: &[Kind] = &[Kind::Dingtalk];
        const MAIL: &[Kind] = &[Kind::Email];
        [
            ("url", !self.url.is_empty() || !self.url_file.is_empty(), HTTP),
            ("secret", !self.secret.is_empty() || !self.secret_file.is_empty(), HTTP),
            ("at_mobiles", !self.at_mobiles.is_empty(), DING),
            ("keyword", !self.keyword.is_empty(), DING),
            ("host", !self.host.is_empty(), MAIL),
            ("port", self.port != 0, MAIL),
            ("tls", self.tls != MailTls::default(), MAIL),
            ("username", !self.username.is_empty(), MAIL),
            ("password", !self.password.is_empty() || !self.password_file.is_empty(), MAIL),
            ("from", !self.from.is_empty(), MAIL),
            ("to", !self.to.is_empty(), MAIL),
        ]
    }

    fn check_http(&self, tell: &mut impl FnMut(&str, String)) {
        match (self.url.is_empty(), self.url_file.is_empty()) {
            (true, true) => tell("url", "is missing; or name a file that holds it with `url_file`".to_owned()),
            (false, _) => {
                if let Err(error) = url(self.url.reveal()) {
                    tell("url", error);
                }
            }
            (true, false) => {}
        }
    }

    fn check_mail(&self, tell: &mut impl FnMut(&str, String)) {
        if self.host.is_empty() {
            tell("host", "is missing: the mail server's name".to_owned());
        }
        if self.tls == MailTls::None && !is_loopback(&self.host) {
            tell(
                "tls",
                "may be \"none\" only for a mail server on this machine; passwords and alerts would be readable on the way".to_owned(),
            );
        }
        if self.username.is_empty() != (self.password.is_empty() && self.password_file.is_empty()) {
            tell("username", "and `password` (or `password_file`) belong together".to_owned());
        }
        if self.to.is_empty() {
            tell("to", "is missing: at least one address".to_owned());
        }
        for (key, address) in [("from", &self.from)].into_iter().chain(self.to.iter().map(|to| ("to", to))) {
            if address.parse::<lettre::message::Mailbox>().is_err() {
                tell(key, format!("must be a mail address such as `Shipwatch <alerts@example.com>`, not {address:?}"));
            }
        }
    }
}

/// Whether a host is this machine.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A URL that messages can be posted to. The error does not repeat it: it may hold a token.
///
/// # Errors
/// Why it cannot be used.
pub fn url(text: &str) -> Result<reqwest::Url, String> {
    match reqwest::Url::parse(text) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => Ok(url),
        _ => Err("must be a URL that begins with https:// or http://".to_owned()),
    }
}

/// `name="value"` with one of `=`, `!=`, `=~`, `!~`.
///
/// # Errors
/// What is wrong.
pub fn matcher(text: &str) -> Result<Matcher, String> {
    let wrong = || format!("must look like env=\"prod\" or team=~\"a|b\", not {text:?}");
    let at = text.find(['=', '!']).ok_or_else(wrong)?;
    let (name, rest) = (text[..at].trim(), &text[at..]);
    let operators = [("=~", MatchOp::Regex), ("!~", MatchOp::NotRegex), ("!=", MatchOp::NotEqual), ("=", MatchOp::Equal)];
    let (op, value) =
        operators.into_iter().find_map(|(sign, op)| rest.strip_prefix(sign).map(|value| (op, value.trim()))).ok_or_else(wrong)?;
    if name.is_empty() {
        return Err(wrong());
    }
    let value = value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(value);
    Matcher::new(op, name, value).map_err(|error| format!("{text:?}: {error}"))
}

/// A channel with nothing set.
#[cfg(test)]
pub(super) fn tests_channel() -> Channel {
    toml::from_str("name = \"x\"\nkind = \"webhook\"\n").unwrap_or_else(|error| unreachable!("{error}"))
}

#[cfg(test)]
mod tests;
