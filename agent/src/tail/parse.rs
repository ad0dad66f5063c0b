//! What a line says in its fields: when it happened, how bad it is, and what filters ask for.
//!
//! - [`fields`]: JSON, logfmt, key=value, access logs, patterns with named groups
//! - [`time`], [`shipwatch_common::severity`]: what is understood of their values, or of a line without fields
//!
//! Looks at the text that was masked already, and changes nothing in it: the line goes on as it is, its fields are found again
//! by queries on the server. Lines that do not have the form of their source are read as plain text.

mod fields;
mod time;

pub(super) use fields::Fields;

use jiff::tz::TimeZone;
use regex::Regex;
use serde::{Deserialize, Serialize};
use shipwatch_common::{config::Problems, model::Severity, severity, time::UnixNs};

/// How fields are found.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `auto` (JSON where a line begins with a brace, else plain text), `json`, `logfmt`, `keyvalue` (pairs divided by spaces,
    /// commas or semicolons), `combined` (nginx and Apache), `regex`, or `none`. Empty is `auto`.
    pub kind: String,
    /// The pattern of `regex`; its named groups are the fields.
    pub pattern: String,
    /// The field that holds the time; empty tries the usual names.
    pub time_key: String,
    /// The form of the time as in `strptime`, such as `%d.%m.%Y %H:%M:%S`; empty knows the usual ones.
    pub time_format: String,
    /// The field that holds the severity; empty tries the usual names.
    pub severity_key: String,
}

impl Config {
    pub(super) fn check(&self, problems: &mut Problems, at: &str) {
        if let Err((key, error)) = Parser::new(self, TimeZone::UTC) {
            problems.add(&format!("{at}{key}"), error);
        }
    }
}

/// A zone by its name; empty is the host's.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    if name.is_empty() {
        return Ok(TimeZone::system());
    }
    TimeZone::get(name).map_err(|_| format!("{name:?} is no zone that this host knows; such as Asia/Shanghai or UTC"))
}

const TIME_KEYS: [&str; 9] = ["@timestamp", "timestamp", "time", "ts", "datetime", "asctime", "@t", "eventTime", "t"];
const SEVERITY_KEYS: [&str; 10] =
    ["level", "severity", "log.level", "lvl", "loglevel", "levelname", "level_name", "severity_text", "@l", "priority"];

#[derive(Debug)]
enum Kind {
    Auto,
    Json,
    Pairs(fields::Divider),
    Combined,
    Regex(Box<Regex>),
    None,
}

/// A compiled [`Config`].
#[derive(Debug)]
pub(super) struct Parser {
    kind: Kind,
    zone: TimeZone,
    time_key: String,
    time_format: String,
    severity_key: String,
}

impl Parser {
    /// On a mistake the key and what is wrong.
    pub(super) fn new(config: &Config, zone: TimeZone) -> Result<Self, (&'static str, String)> {
        let kind = match config.kind.as_str() {
            "" | "auto" => Kind::Auto,
            "json" => Kind::Json,
            "logfmt" => Kind::Pairs(fields::Divider::Space),
            "keyvalue" => Kind::Pairs(fields::Divider::Any),
            "combined" => Kind::Combined,
            "none" => Kind::None,
            "regex" => {
                let regex = Regex::new(&config.pattern).map_err(|error| ("pattern", format!("is not a pattern: {error}")))?;
                if regex.capture_names().flatten().next().is_none() {
                    return Err(("pattern", "must have named groups, such as (?<level>\\w+)".to_owned()));
                }
                Kind::Regex(Box::new(regex))
            }
            other => return Err(("kind", format!("must be auto, json, logfmt, keyvalue, combined, regex or none, not {other:?}"))),
        };
        if !config.pattern.is_empty() && !matches!(kind, Kind::Regex(_)) {
            return Err(("pattern", "is only used with kind = \"regex\"".to_owned()));
        }
        let keyless = matches!(kind, Kind::None);
        for (key, value) in [("time_key", &config.time_key), ("severity_key", &config.severity_key)] {
            if keyless && !value.is_empty() {
                return Err((key, "needs a kind that finds fields".to_owned()));
            }
        }
        if let Err(error) = jiff::fmt::strtime::BrokenDownTime::parse_prefix(&config.time_format, "")
            && config.time_format.contains('%')
            && error.to_string().contains("unrecognized")
        {
            return Err(("time_format", format!("is not a form of strptime: {error}")));
        }
        if !config.time_format.is_empty() && !config.time_format.contains('%') {
            return Err(("time_format", "must have directives of strptime, such as %Y-%m-%d %H:%M:%S".to_owned()));
        }
        Ok(Self {
            kind,
            zone,
            time_key: config.time_key.clone(),
            time_format: config.time_format.clone(),
            severity_key: config.severity_key.clone(),
        })
    }

    /// The fields of a line; none if it does not have the form.
    pub(super) fn fields<'a>(&self, text: &'a str) -> Fields<'a> {
        match &self.kind {
            Kind::Auto if text.starts_with('{') => fields::json(text),
            Kind::Json => fields::json(text),
            Kind::Pairs(divider) => fields::pairs(text, *divider),
            Kind::Combined => fields::combined(text),
            Kind::Regex(regex) => fields::groups(regex, text),
            Kind::Auto | Kind::None => Fields::default(),
        }
    }

    /// When it happened; `now` where the line does not say.
    pub(super) fn time(&self, text: &str, fields: &Fields<'_>, now: UnixNs) -> UnixNs {
        let value = fields.first(&self.time_key, &TIME_KEYS);
        let told = match value {
            Some(value) if !self.time_format.is_empty() => time::formatted(&self.time_format, value, now, &self.zone),
            Some(value) => time::of_field(value, now, &self.zone),
            None if !self.time_format.is_empty() => time::formatted(&self.time_format, text, now, &self.zone),
            None => None,
        };
        told.or_else(|| time::of_text(text, now, &self.zone)).unwrap_or(now)
    }

    /// When a text says that it happened, if it does.
    pub(super) fn told_time(&self, text: &str, now: UnixNs) -> Option<UnixNs> {
        time::of_text(text, now, &self.zone)
    }

    /// How bad it is.
    pub(super) fn severity(&self, text: &str, fields: &Fields<'_>) -> Severity {
        if matches!(self.kind, Kind::Combined)
            && let Some(status) = fields.get("status")
        {
            return severity::of_status(status);
        }
        match fields.first(&self.severity_key, &SEVERITY_KEYS).map(severity::of_field) {
            Some(Severity::Unknown) | None => severity::of_text(text),
            Some(told) => told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNs = 1_795_420_800_000_000_000; // 2026-11-23T08:00:00Z

    fn told(config: &Config, line: &str) -> (i64, Severity) {
        let parser = Parser::new(config, TimeZone::UTC).unwrap();
        let fields = parser.fields(line);
        ((parser.time(line, &fields, NOW) - NOW) / 1_000_000, parser.severity(line, &fields))
    }

    fn kind(kind: &str) -> Config {
        Config { kind: kind.into(), ..Config::default() }
    }

    #[test]
    fn every_kind_tells_time_and_severity() {
        let json = r#"{"msg":"ERROR in text 2026-11-23T07:00:00Z","level":"info","time":"2026-11-23T08:00:01Z"}"#;
        assert_eq!(told(&kind(""), json), (1_000, Severity::Info));
        assert_eq!(told(&kind("json"), r#"{"level":50,"time":1795420802000,"msg":"x"}"#), (2_000, Severity::Error));
        assert_eq!(told(&kind("json"), "not json but ERROR"), (0, Severity::Error));
        assert_eq!(told(&kind("logfmt"), "ts=2026-11-23T08:00:03Z lvl=warn msg=\"a b\""), (3_000, Severity::Warn));
        let access = "10.0.0.1 - - [23/Nov/2026:08:00:04 +0000] \"GET /ERROR HTTP/1.1\" 502 12 \"-\" \"curl\"";
        assert_eq!(told(&kind("combined"), access), (4_000, Severity::Error));
        let regex = Config {
            kind: "regex".into(),
            pattern: r"^(?<when>\S+ \S+) <(?<how>\w+)>".into(),
            time_key: "when".into(),
            time_format: "%d.%m.%Y %H:%M:%S".into(),
            severity_key: "how".into(),
        };
        assert_eq!(told(&regex, "23.11.2026 08:00:05 <crit> x"), (5_000, Severity::Fatal));
        let format = Config { time_format: "%d.%m.%Y %H:%M:%S".into(), ..Config::default() };
        assert_eq!(told(&format, "23.11.2026 08:00:06 INFO x"), (6_000, Severity::Info));
        assert_eq!(told(&kind("none"), r#"{"level":"warn"}"#), (0, Severity::Warn));
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let error = |config: Config| Parser::new(&config, TimeZone::UTC).unwrap_err().0;
        assert_eq!(error(kind("jsn")), "kind");
        assert_eq!(error(Config { kind: "regex".into(), pattern: "(".into(), ..Config::default() }), "pattern");
        assert_eq!(error(Config { kind: "regex".into(), pattern: "x".into(), ..Config::default() }), "pattern");
        assert_eq!(error(Config { pattern: "x".into(), ..kind("json") }), "pattern");
        assert_eq!(error(Config { time_format: "HH:mm".into(), ..kind("json") }), "time_format");
        assert_eq!(error(Config { time_key: "t".into(), ..kind("none") }), "time_key");
        assert!(zone("Mars/Base").is_err());
        assert!(zone("UTC").is_ok());
    }
}
