//! Deployments: what the server asks of a host, and what the host reports back.
//!
//! The same [`Spec`] is read from `deploy.yml` by `shipwatch-agent deploy --local` and by the API, and travels to hosts.

use crate::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

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

/// A tar archive (plain, gzip or zstd, told by its content) and its hash.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// `https://…`, `http://…`, `file:///…`.
    pub url: String,
    /// Lower-case hex SHA-256 of the archive; checked before anything is unpacked.
    pub sha256: String,
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
