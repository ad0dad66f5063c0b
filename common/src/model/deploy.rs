//! Deployments: what the server asks of a host, and what the host reports back.
//!
//! The same [`Spec`] is read from `deploy.yml` by `shipwatch-agent deploy --local` and by the API, and travels to hosts.

use crate::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What to deploy and how: the content of `deploy.yml`. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Version of this format: 1.
    pub version: u32,
    /// Application name: letters, digits, `-`, `_`, `.`; one app lives under one root on a host.
    pub app: String,
    /// Name of the release, shown to people and used as the release directory's name.
    pub release: String,
    /// What to fetch.
    pub artifact: Artifact,
    /// Directory that holds `releases/`, `shared/` and the link `current`. Absolute.
    pub root: String,
    /// Commands, in order within their phase.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// All must pass after `start`, or the host goes back to the release before.
    #[serde(default)]
    pub health: Vec<Health>,
    /// What old releases to keep.
    #[serde(default)]
    pub keep: Keep,
    /// Environment of every step, beside `SHIPWATCH_*` and the CodeDeploy names.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

impl Spec {
    /// Everything that is wrong with it, each with its key; empty if it can be run. Pure: says nothing of a certain host.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, message: &str| problems.push(format!("`{key}` {message}"));
        if self.version != 1 {
            wrong("version", &format!("must be 1, not {}", self.version));
        }
        if !is_name(&self.app, 64) {
            wrong("app", "must be 1 to 64 letters, digits, `-`, `_` or `.`, and start with a letter or digit");
        }
        if !is_name(&self.release, 100) {
            wrong("release", "must be 1 to 100 letters, digits, `-`, `_`, `.` or `+`, and start with a letter or digit");
        }
        if let Some(message) = root_problem(&self.root) {
            wrong("root", message);
        }
        self.artifact.problems(&mut wrong);
        self.step_problems(&mut wrong);
        if self.health.len() > 16 {
            wrong("health", "must have at most 16 checks");
        }
        for (at, health) in self.health.iter().enumerate() {
            health.problems(&format!("health.{at}"), &mut wrong);
        }
        if self.keep.releases > 100 {
            wrong("keep.releases", "must be at most 100");
        }
        self.env_problems(&mut wrong);
        problems
    }

    fn step_problems(&self, wrong: &mut impl FnMut(&str, &str)) {
        if self.steps.len() > 64 {
            wrong("steps", "must have at most 64 entries");
        }
        let mut seen = BTreeSet::new();
        for (at, step) in self.steps.iter().enumerate() {
            let key = format!("steps.{at}");
            if !is_name(&step.id, 64) {
                wrong(&format!("{key}.id"), "must be 1 to 64 letters, digits, `-`, `_` or `.`, and start with a letter or digit");
            }
            if BUILT_IN_STEPS.contains(&step.id.as_str()) {
                wrong(&format!("{key}.id"), &format!("must not be the name of a built-in step, `{}`", step.id));
            }
            if !seen.insert(&step.id) {
                wrong(&format!("{key}.id"), &format!("must be unique; `{}` is there twice", step.id));
            }
            if step.run.trim().is_empty() || step.run.len() > 32 * 1024 || step.run.contains('\0') {
                wrong(&format!("{key}.run"), "must be a command of at most 32 KiB");
            }
            if !within_a_day(step.timeout) {
                wrong(&format!("{key}.timeout"), "must be longer than 0 and at most 1d");
            }
        }
    }

    fn env_problems(&self, wrong: &mut impl FnMut(&str, &str)) {
        if self.env.len() > 128 {
            wrong("env", "must have at most 128 variables");
        }
        for (name, value) in &self.env {
            let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            if !starts || name.len() > 128 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                wrong(&format!("env.{name}"), "must be named with letters, digits and `_`, not starting with a digit");
            } else if name.starts_with("SHIPWATCH_") || RESERVED_ENV.contains(&name.as_str()) {
                wrong(&format!("env.{name}"), "is set by the agent itself; choose another name");
            }
            if value.len() > 4096 || value.contains('\0') {
                wrong(&format!("env.{name}"), "must have a value of at most 4 KiB without a NUL character");
            }
        }
    }
}

/// Names of what the agent does itself between a spec's steps, as they appear in events.
pub const BUILT_IN_STEPS: [&str; 5] = ["fetch", "unpack", "switch", "health", "remove"];

/// Variables that the agent sets for the sake of scripts written for CodeDeploy.
pub const RESERVED_ENV: [&str; 3] = ["LIFECYCLE_EVENT", "DEPLOYMENT_ID", "APPLICATION_NAME"];

/// Letters, digits, `-`, `_`, `.`, `+`, starting with a letter or digit: safe as a file name and in a shell.
fn is_name(text: &str, longest: usize) -> bool {
    text.len() <= longest
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b))
}

fn root_problem(root: &str) -> Option<&'static str> {
    let Some(rest) = root.strip_prefix('/') else { return Some("must be an absolute path, such as /srv/shop") };
    if root.len() > 512 || root.chars().any(char::is_control) {
        return Some("must be at most 512 characters without control characters");
    }
    if rest.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Some("must be a plain path below `/`: no `.`, no `..`, no doubled or trailing `/`");
    }
    None
}

fn within_a_day(duration: Duration) -> bool {
    !duration.is_zero() && duration <= Duration::from_secs(86_400)
}

/// A tar archive (plain, gzip or zstd, told by its content) and its hash.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// `https://…`, `http://…`, `file:///…`.
    pub url: String,
    /// Lower-case hex SHA-256 of the archive; checked before anything is unpacked.
    pub sha256: String,
}

impl Artifact {
    fn problems(&self, wrong: &mut impl FnMut(&str, &str)) {
        let known = ["https://", "http://", "file:///"].iter().any(|scheme| self.url.starts_with(scheme));
        if !known || self.url.len() > 2048 || self.url.chars().any(|c| c.is_control() || c == ' ') {
            wrong("artifact.url", "must start with https://, http:// or file:/// and have no spaces");
        }
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            wrong("artifact.sha256", "must be the archive's SHA-256 as 64 lower-case hexadecimal digits");
        }
    }
}

/// When a step runs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// In the new release, before `current` points to it. The running release is untouched.
    Prepare,
    /// In the release that `current` points to, just before the switch.
    Stop,
    /// In the new release, just after the switch. Runs again in the old release when reverting.
    Start,
    /// After the health checks passed.
    Finish,
}

/// One command.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Unique in the spec; in logs, journal and environment.
    pub id: String,
    /// When it runs.
    pub phase: Phase,
    /// Run by `/bin/sh -c` in the release's directory, standard input closed.
    pub run: String,
    /// Killed (with its process group) after this time.
    #[serde(default = "Step::default_timeout", with = "crate::time::serde_duration")]
    pub timeout: Duration,
    /// What to do when the agent finds after a crash or reboot that it does not know how the step ended.
    #[serde(default)]
    pub on_interrupt: OnInterrupt,
}

impl Step {
    /// Ten minutes.
    #[must_use]
    pub const fn default_timeout() -> Duration {
        Duration::from_secs(600)
    }
}

/// For a step whose end is not known.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInterrupt {
    /// Run it again: it is idempotent.
    Rerun,
    /// Count it as failed, and revert.
    #[default]
    Fail,
}

/// A check of the new release's health. Exactly one of `http`, `tcp`, `exec`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// GET this URL: 2xx is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// With `http`: the body must contain this text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
    /// Connect to `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<String>,
    /// Run by `/bin/sh -c`: exit code 0 is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<String>,
    /// Time between attempts.
    #[serde(default = "Health::default_interval", with = "crate::time::serde_duration")]
    pub interval: Duration,
    /// Time for one attempt.
    #[serde(default = "Health::default_timeout", with = "crate::time::serde_duration")]
    pub timeout: Duration,
    /// Passes needed in a row.
    #[serde(default = "Health::default_pass")]
    pub pass: u32,
    /// Not passed by then: unhealthy.
    #[serde(default = "Health::default_deadline", with = "crate::time::serde_duration")]
    pub deadline: Duration,
}

impl Health {
    fn problems(&self, key: &str, wrong: &mut impl FnMut(&str, &str)) {
        let kinds = [&self.http, &self.tcp, &self.exec].iter().filter(|kind| kind.is_some()).count();
        if kinds != 1 {
            wrong(key, "must have exactly one of `http`, `tcp`, `exec`");
        }
        if self.contains.is_some() && self.http.is_none() {
            wrong(&format!("{key}.contains"), "is only for `http`");
        }
        if let Some(url) = &self.http
            && !url.starts_with("http://")
            && !url.starts_with("https://")
        {
            wrong(&format!("{key}.http"), "must start with http:// or https://");
        }
        if let Some(address) = &self.tcp {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none_or(|port| port == 0) {
                wrong(&format!("{key}.tcp"), "must be host:port, such as 127.0.0.1:8080");
            }
        }
        if self.exec.as_ref().is_some_and(|run| run.trim().is_empty() || run.len() > 32 * 1024 || run.contains('\0')) {
            wrong(&format!("{key}.exec"), "must be a command of at most 32 KiB");
        }
        for (name, duration) in [("interval", self.interval), ("timeout", self.timeout), ("deadline", self.deadline)] {
            if !within_a_day(duration) {
                wrong(&format!("{key}.{name}"), "must be longer than 0 and at most 1d");
            }
        }
        if self.pass == 0 || self.pass > 1000 {
            wrong(&format!("{key}.pass"), "must be from 1 to 1000");
        } else if self.interval.saturating_mul(self.pass - 1) >= self.deadline {
            wrong(&format!("{key}.deadline"), "must leave time for `pass` attempts at that `interval`");
        }
    }

    /// 1 s.
    #[must_use]
    pub const fn default_interval() -> Duration {
        Duration::from_secs(1)
    }
    /// 5 s.
    #[must_use]
    pub const fn default_timeout() -> Duration {
        Duration::from_secs(5)
    }
    /// 2.
    #[must_use]
    pub const fn default_pass() -> u32 {
        2
    }
    /// 60 s.
    #[must_use]
    pub const fn default_deadline() -> Duration {
        Duration::from_secs(60)
    }
}

/// Retention of releases on the host.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// Releases kept beside `current` and the last good one, which are never removed.
    pub releases: u32,
}

impl Default for Keep {
    fn default() -> Self {
        Self { releases: 5 }
    }
}

/// What the server asks of one host. Repeating a command is harmless: the host answers from its journal.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Command {
    /// The deployment's id (UUID text); the same on all its hosts.
    pub deployment_id: String,
    /// Grows with every command of the server for this app and host; the host refuses smaller ones than it has seen (fencing).
    pub epoch: u64,
    /// What to do.
    pub action: Action,
}

impl Command {
    /// Everything that is wrong with it, each with its key: of its own fields and of the [`Spec`] that it may hold.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let id = &self.deployment_id;
        if id.len() < 8 || id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            problems.push("`deployment_id` must be 8 to 64 letters, digits and `-`, such as a UUID".to_owned());
        }
        match &self.action {
            Action::Deploy(spec) => problems.extend(spec.problems()),
            Action::Rollback { app, root } => {
                if !is_name(app, 64) {
                    problems.push("`app` must be 1 to 64 letters, digits, `-`, `_` or `.`".to_owned());
                }
                if let Some(message) = root_problem(root) {
                    problems.push(format!("`root` {message}"));
                }
            }
            Action::Abort => {}
        }
        problems
    }
}

/// The kinds of [`Command`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum Action {
    /// Bring this release up, or go back by itself.
    Deploy(Box<Spec>),
    /// Go back to the release before the current one (`shipwatch rollback`).
    Rollback {
        /// Which app.
        app: String,
        /// Where it lives.
        root: String,
    },
    /// Stop at the next safe point and go back.
    Abort,
}

/// Where a host is in a deployment. The last four are ends.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Not sent yet.
    Pending,
    /// Sent; the host has not answered.
    Sent,
    /// Steps before the switch.
    Preparing,
    /// From the switch to the health checks' end.
    Switching,
    /// Going back.
    Reverting,
    /// The new release serves.
    Succeeded,
    /// Failed before the switch: the old release was never touched.
    Failed,
    /// Failed after the switch; the old release serves again.
    Reverted,
    /// Going back failed as well: a person is needed.
    RevertFailed,
    /// The host refused (policy, fencing, bad spec); nothing was done.
    Refused,
    /// Not started, since the deployment was stopped.
    Skipped,
    /// The host has been silent past the deadline: nobody knows. Resolved by its journal when it is back.
    Unknown,
}

impl HostState {
    /// Whether nothing more will happen on this host by itself.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Reverted | Self::RevertFailed | Self::Refused | Self::Skipped)
    }
}

/// What a host reports; travels on the `events` lane, so each arrives once and in order.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Event {
    /// Which deployment.
    pub deployment_id: String,
    /// Time on the host.
    pub at_ms: UnixMs,
    /// What happened.
    pub kind: EventKind,
}

/// The kinds of [`Event`].
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub enum EventKind {
    /// The host moved to another state.
    State {
        /// The new state.
        state: HostState,
        /// Why, for people; masked.
        reason: String,
        /// Release that serves on the host now, where known.
        release: Option<String>,
    },
    /// A step (or built-in: `fetch`, `unpack`, `switch`, `health`) began.
    StepStarted {
        /// Its id.
        step: String,
    },
    /// Lines that a step wrote, masked.
    Output {
        /// The step's id.
        step: String,
        /// One or more whole lines.
        text: String,
    },
    /// A step ended.
    StepFinished {
        /// Its id.
        step: String,
        /// Whether it succeeded.
        ok: bool,
        /// Such as `exit code 3` or `timed out after 10m`.
        detail: String,
        /// How long it took.
        took_ms: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            version: 1,
            app: "shop".into(),
            release: "v1.2+abc".into(),
            artifact: Artifact { url: "https://example.com/shop.tar.gz".into(), sha256: "0a".repeat(32) },
            root: "/srv/shop".into(),
            steps: vec![Step {
                id: "start".into(),
                phase: Phase::Start,
                run: "./start.sh".into(),
                timeout: Step::default_timeout(),
                on_interrupt: OnInterrupt::Fail,
            }],
            health: vec![Health {
                http: Some("http://127.0.0.1:1/".into()),
                contains: Some("ok".into()),
                tcp: None,
                exec: None,
                interval: Health::default_interval(),
                timeout: Health::default_timeout(),
                pass: Health::default_pass(),
                deadline: Health::default_deadline(),
            }],
            keep: Keep::default(),
            env: BTreeMap::from([("PORT".into(), "1".into())]),
        }
    }

    #[test]
    fn a_good_spec_has_no_problems() {
        assert_eq!(spec().problems(), Vec::<String>::new());
    }

    #[test]
    fn each_mistake_is_told_with_its_key() {
        type Change = fn(&mut Spec);
        let cases: &[(&str, Change)] = &[
            ("`version`", |s| s.version = 2),
            ("`app`", |s| s.app = "../etc".into()),
            ("`app`", |s| s.app = String::new()),
            ("`app`", |s| s.app = ".hidden".into()),
            ("`release`", |s| s.release = "a/b".into()),
            ("`root`", |s| s.root = "srv".into()),
            ("`root`", |s| s.root = "/".into()),
            ("`root`", |s| s.root = "/srv/../etc".into()),
            ("`root`", |s| s.root = "/srv/a\nb".into()),
            ("`artifact.url`", |s| s.artifact.url = "ftp://a/b".into()),
            ("`artifact.url`", |s| s.artifact.url = "file://host/b".into()),
            ("`artifact.sha256`", |s| s.artifact.sha256 = "0A".repeat(32)),
            ("`steps.0.id`", |s| s.steps[0].id = "a b".into()),
            ("`steps.0.id`", |s| s.steps[0].id = "fetch".into()),
            ("`steps.1.id`", |s| s.steps.push(s.steps[0].clone())),
            ("`steps.0.run`", |s| s.steps[0].run = " ".into()),
            ("`steps.0.timeout`", |s| s.steps[0].timeout = Duration::ZERO),
            ("`health.0`", |s| s.health[0].tcp = Some("a:1".into())),
            ("`health.0`", |s| (s.health[0].http, s.health[0].contains) = (None, None)),
            ("`health.0.contains`", |s| (s.health[0].http, s.health[0].exec) = (None, Some("true".into()))),
            ("`health.0.http`", |s| s.health[0].http = Some("file:///etc/passwd".into())),
            ("`health.0.pass`", |s| s.health[0].pass = 0),
            ("`health.0.deadline`", |s| s.health[0].deadline = Duration::from_secs(1)),
            ("`keep.releases`", |s| s.keep.releases = 101),
            ("`env.1A`", |s| drop(s.env.insert("1A".into(), String::new()))),
            ("`env.SHIPWATCH_APP`", |s| drop(s.env.insert("SHIPWATCH_APP".into(), String::new()))),
            ("`env.DEPLOYMENT_ID`", |s| drop(s.env.insert("DEPLOYMENT_ID".into(), String::new()))),
        ];
        for (key, change) in cases {
            let mut changed = spec();
            change(&mut changed);
            let problems = changed.problems();
            assert_eq!(problems.len(), 1, "{key}: {problems:?}");
            assert!(problems[0].starts_with(key), "{key}: {problems:?}");
        }
        let mut many = spec();
        (many.version, many.app, many.steps[0].run) = (0, "-".into(), String::new());
        assert_eq!(many.problems().len(), 3);
    }

    #[test]
    fn a_command_needs_an_id_that_is_safe_as_a_file_name() {
        let command = |id: &str| Command { deployment_id: id.into(), epoch: 1, action: Action::Abort };
        assert!(command("0198b2a0-aaaa-7000-8000-000000000001").problems().is_empty());
        for bad in ["", "short", "../../../etc", "a/b/c/d/e/f", "with space-x"] {
            assert_eq!(command(bad).problems().len(), 1, "{bad}");
        }
        let action = Action::Rollback { app: "/".into(), root: "x".into() };
        assert_eq!(Command { action, ..command("12345678") }.problems().len(), 2);
    }
}
