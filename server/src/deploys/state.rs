//! A deployment's state and what follows from it. Pure: the time is an argument.

use serde::{Deserialize, Serialize};
use shipwatch_common::{
    model::{
        AgentId,
        deploy::{Action, Event, EventKind, HostState, Spec},
    },
    time::UnixMs,
};

/// In which order hosts are started.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// All hosts together.
    AllAtOnce,
    /// The next host when the one before has ended.
    #[default]
    OneByOne,
}

/// Overall state.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Some host has not ended.
    Running,
    /// Every host has the new release.
    Succeeded,
    /// Some host has not.
    Failed,
    /// Stopped by a person.
    Aborted,
}

impl DeploymentState {
    /// As in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// One host's way through a deployment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct HostProgress {
    /// Identity.
    pub id: AgentId,
    /// Name at the time.
    pub name: String,
    /// Where it is.
    pub state: HostState,
    /// Why, as the host told.
    pub reason: String,
    /// Release that serves there, where known.
    pub release: Option<String>,
    /// Fencing epoch of its command; 0 before it was started.
    pub epoch: u64,
    /// When it was started.
    pub started_at_ms: Option<UnixMs>,
    /// When it ended.
    pub finished_at_ms: Option<UnixMs>,
}

impl HostProgress {
    /// Not started.
    #[must_use]
    pub fn new(id: AgentId, name: &str) -> Self {
        Self {
            id,
            name: name.to_owned(),
            state: HostState::Pending,
            reason: String::new(),
            release: None,
            epoch: 0,
            started_at_ms: None,
            finished_at_ms: None,
        }
    }

    /// Whether the new release serves there, or may: only then is there something to roll back.
    #[must_use]
    pub const fn was_touched(&self) -> bool {
        matches!(self.state, HostState::Succeeded | HostState::RevertFailed | HostState::Unknown)
    }
}

/// A deployment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Deployment {
    /// Identity.
    pub id: String,
    /// Application.
    pub app: String,
    /// Release.
    pub release: String,
    /// What to do; for a rollback, the spec of the deployment that is rolled back.
    pub spec: Spec,
    /// Order of hosts.
    pub strategy: Strategy,
    /// Whether a failure keeps further hosts from being started.
    pub stop_on_failure: bool,
    /// Overall state.
    pub state: DeploymentState,
    /// Who asked for it.
    pub created_by: String,
    /// When.
    pub created_at_ms: UnixMs,
    /// When it ended.
    pub finished_at_ms: Option<UnixMs>,
    /// Which deployment this takes back.
    pub rollback_of: Option<String>,
    /// Whether a person stopped it.
    pub abort_requested: bool,
    /// Why it ended as it did.
    pub reason: String,
    /// Its hosts, in order.
    pub hosts: Vec<HostProgress>,
}

/// What [`Deployment::decide`] changed or wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Give this host (by position) an epoch and start it.
    Start(usize),
    /// This host will not be started.
    Skipped(usize),
    /// This host is past its deadline.
    Silent(usize),
    /// The deployment has ended.
    Ended,
}

/// A command that should be on its way or has been answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// To whom.
    pub host: AgentId,
    /// Fencing epoch.
    pub epoch: u64,
    /// What.
    pub action: Action,
}

/// Beyond the sum of all time-outs: fetching, unpacking, reconnecting.
const MARGIN_MS: i64 = 15 * 60_000;

impl Deployment {
    /// Takes a host's report in. Returns whether anything changed. Works on ended deployments too: a host that was `unknown`
    /// may settle late.
    pub fn apply(&mut self, host_id: &str, event: &Event) -> bool {
        let Some(host) = self.hosts.iter_mut().find(|host| host.id.to_string() == host_id) else { return false };
        let EventKind::State { state, reason, release } = &event.kind else { return false };
        // A late repeat of an earlier state does not reopen an end.
        if host.state.is_end() && !state.is_end() {
            return false;
        }
        host.state = *state;
        host.reason.clone_from(reason);
        host.release.clone_from(release);
        host.finished_at_ms = state.is_end().then_some(event.at_ms);
        true
    }

    /// Decides what follows from the hosts' states.
    pub fn decide(&mut self, now: UnixMs) -> Vec<Decision> {
        if self.finished_at_ms.is_some() {
            return Vec::new();
        }
        let mut decisions = Vec::new();
        let deadline_ms = self.host_deadline_ms();
        for (at, host) in self.hosts.iter_mut().enumerate() {
            let active = !host.state.is_end() && !matches!(host.state, HostState::Pending | HostState::Unknown);
            if active && host.started_at_ms.is_some_and(|started| now - started > deadline_ms) {
                host.state = HostState::Unknown;
                "no word from the host past the deadline; its journal settles this when it is back".clone_into(&mut host.reason);
                decisions.push(Decision::Silent(at));
            }
        }
        let failed = self.hosts.iter().any(|host| self.is_failure(host.state));
        if self.abort_requested || (failed && self.stop_on_failure) {
            for (at, host) in self.hosts.iter_mut().enumerate().filter(|(_, host)| host.state == HostState::Pending) {
                host.state = HostState::Skipped;
                let why = if self.abort_requested { "the deployment was aborted" } else { "another host failed" };
                why.clone_into(&mut host.reason);
                decisions.push(Decision::Skipped(at));
            }
        }
        let is_active = |host: &HostProgress| !host.state.is_end() && !matches!(host.state, HostState::Pending | HostState::Unknown);
        let pending: Vec<usize> = (0..self.hosts.len()).filter(|at| self.hosts[*at].state == HostState::Pending).collect();
        match self.strategy {
            Strategy::AllAtOnce => decisions.extend(pending.iter().map(|at| Decision::Start(*at))),
            Strategy::OneByOne if !self.hosts.iter().any(is_active) => decisions.extend(pending.first().map(|at| Decision::Start(*at))),
            Strategy::OneByOne => {}
        }
        if pending.is_empty() && !self.hosts.iter().any(is_active) {
            self.end(now);
            decisions.push(Decision::Ended);
        }
        decisions
    }

    fn end(&mut self, now: UnixMs) {
        let good = |host: &HostProgress| self.is_success(host.state);
        self.state = if self.hosts.iter().all(good) {
            DeploymentState::Succeeded
        } else if self.abort_requested {
            DeploymentState::Aborted
        } else {
            DeploymentState::Failed
        };
        self.finished_at_ms = Some(now);
        if self.state == DeploymentState::Failed {
            let bad: Vec<String> = self
                .hosts
                .iter()
                .filter(|host| self.is_failure(host.state))
                .map(|host| format!("{}: {}", host.name, host.reason))
                .collect();
            self.reason = bad.join("; ");
        }
    }

    /// Going back is what a rollback wants.
    fn is_success(&self, state: HostState) -> bool {
        state == HostState::Succeeded || (self.rollback_of.is_some() && state == HostState::Reverted)
    }

    fn is_failure(&self, state: HostState) -> bool {
        !self.is_success(state)
            && matches!(state, HostState::Failed | HostState::Reverted | HostState::RevertFailed | HostState::Refused | HostState::Unknown)
    }

    /// Notes that a host was started.
    pub fn started(&mut self, at: usize, epoch: u64, now: UnixMs) {
        if let Some(host) = self.hosts.get_mut(at) {
            host.state = HostState::Sent;
            host.epoch = epoch;
            host.started_at_ms = Some(now);
        }
    }

    /// Commands of hosts that have not ended. Sending one again is harmless.
    #[must_use]
    pub fn commands(&self) -> Vec<Wanted> {
        if self.finished_at_ms.is_some() && !self.hosts.iter().any(|host| host.state == HostState::Unknown) {
            return Vec::new();
        }
        let open = self.hosts.iter().filter(|host| host.epoch > 0 && !host.state.is_end());
        open.flat_map(|host| {
            let action = if self.rollback_of.is_some() {
                Action::Rollback { app: self.app.clone(), root: self.spec.root.clone() }
            } else {
                Action::Deploy(Box::new(self.spec.clone()))
            };
            let abort = (self.abort_requested && self.rollback_of.is_none()).then_some(Action::Abort);
            [Some(action), abort].into_iter().flatten().map(|action| Wanted { host: host.id, epoch: host.epoch, action })
        })
        .collect()
    }

    fn host_deadline_ms(&self) -> i64 {
        let steps: u128 = self.spec.steps.iter().map(|step| step.timeout.as_millis()).sum();
        let health: u128 = self.spec.health.iter().map(|check| check.deadline.as_millis()).sum();
        // Twice: forward and back.
        i64::try_from(2 * (steps + health)).unwrap_or(i64::MAX / 2) + MARGIN_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(hosts: u8, strategy: Strategy, stop_on_failure: bool) -> Deployment {
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "version": 1, "app": "shop", "release": "v2", "root": "/srv/shop",
            "artifact": {"url": "https://x/y", "sha256": "0".repeat(64)}
        }))
        .unwrap();
        Deployment {
            id: "d".into(),
            app: "shop".into(),
            release: "v2".into(),
            spec,
            strategy,
            stop_on_failure,
            state: DeploymentState::Running,
            created_by: "admin".into(),
            created_at_ms: 0,
            finished_at_ms: None,
            rollback_of: None,
            abort_requested: false,
            reason: String::new(),
            hosts: (0..hosts).map(|at| HostProgress::new(AgentId([at; 16]), &format!("h{at}"))).collect(),
        }
    }

    /// One letter per host: `-` pending, `>` sent or working, `+` succeeded, `x` reverted, `s` skipped, `?` unknown; then `=` and the end.
    fn shown(deployment: &Deployment) -> String {
        let letters: String = deployment
            .hosts
            .iter()
            .map(|host| match host.state {
                HostState::Pending => '-',
                HostState::Succeeded => '+',
                HostState::Reverted => 'x',
                HostState::Skipped => 's',
                HostState::Unknown => '?',
                _ => '>',
            })
            .collect();
        if deployment.finished_at_ms.is_some() { format!("{letters}={}", deployment.state.as_str()) } else { letters }
    }

    /// Each word is what happens (`h1+` host 1 succeeds, `h0x` reverts, `abort`, `late` time passes), then a round is decided.
    #[track_caller]
    fn check(mut deployment: Deployment, script: &str, expected: &str) {
        let mut now = 1_000;
        let mut seen = Vec::new();
        for word in script.split(' ') {
            match word {
                "begin" => {}
                "abort" => deployment.abort_requested = true,
                "late" => now += MARGIN_MS + 1,
                word => {
                    let id = AgentId([word.as_bytes()[1] - b'0'; 16]).to_string();
                    let state = if word.ends_with('+') { HostState::Succeeded } else { HostState::Reverted };
                    let kind = EventKind::State { state, reason: String::new(), release: None };
                    assert!(deployment.apply(&id, &Event { deployment_id: "d".into(), at_ms: now, kind }));
                }
            }
            let mut epoch = 0;
            for decision in deployment.decide(now) {
                if let Decision::Start(at) = decision {
                    epoch += 1;
                    deployment.started(at, epoch, now);
                }
            }
            seen.push(shown(&deployment));
        }
        assert_eq!(seen.join(" "), expected, "script {script:?}");
    }

    #[test]
    fn all_at_once() {
        check(deployment(3, Strategy::AllAtOnce, true), "begin h0+ h2+ h1+", ">>> +>> +>+ +++=succeeded");
    }

    #[test]
    fn one_by_one_stops_on_failure() {
        check(deployment(3, Strategy::OneByOne, true), "begin h0+ h1x", ">-- +>- +xs=failed");
    }

    #[test]
    fn one_by_one_goes_on_if_told_so() {
        check(deployment(3, Strategy::OneByOne, false), "begin h0x h1+ h2+", ">-- x>- x+> x++=failed");
    }

    #[test]
    fn the_last_host_counts_like_any_other() {
        check(deployment(2, Strategy::OneByOne, true), "begin h0+ h1x", ">- +> +x=failed");
    }

    #[test]
    fn abort_starts_nobody_and_waits_for_the_running() {
        check(deployment(3, Strategy::OneByOne, true), "begin abort h0x", ">-- >ss xss=aborted");
    }

    #[test]
    fn silence_is_unknown_and_settles_late() {
        check(deployment(2, Strategy::OneByOne, true), "begin late h0+", ">- ?s=failed +s=failed");
    }

    #[test]
    fn a_rollback_wants_reverted() {
        let rollback = Deployment { rollback_of: Some("x".into()), ..deployment(1, Strategy::AllAtOnce, false) };
        check(rollback, "begin h0x", "> x=succeeded");
    }

    #[test]
    fn commands_repeat_until_the_end_and_abort_follows() {
        let mut running = deployment(1, Strategy::AllAtOnce, true);
        running.started(0, 7, 0);
        assert_eq!(running.commands().iter().map(|wanted| wanted.epoch).collect::<Vec<_>>(), [7]);
        running.abort_requested = true;
        assert_eq!(running.commands().len(), 2);
        running.hosts[0].state = HostState::Reverted;
        assert!(running.commands().is_empty());
    }
}
