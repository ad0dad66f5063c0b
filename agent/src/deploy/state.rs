//! What the journal's records mean: the state of one app on this host.
//!
//! Pure: [`AppState::apply`] folds one [`Record`]. Replaying the journal gives the same state as running did.
//!
//! # Invariants
//! - An app has at most one run. A run ends only with [`Record::Outcome`], which also keeps its result for duplicates.
//! - `epoch` never goes down.
//! - `good` holds releases that once passed everything, oldest first; the last one is the newest good release.

use serde::{Deserialize, Serialize};
use shipwatch_common::{
    model::deploy::{HostState, Spec},
    time::UnixMs,
};

/// Results that are kept to answer duplicates. The server repeats a command within minutes, not after this many others.
const PAST_MAX: usize = 256;
/// Good releases that are remembered; more than can be kept on disk.
const GOOD_MAX: usize = 128;

/// One entry of the journal.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) enum Record {
    /// Everything so far.
    Snapshot(Box<AppState>),
    /// A command was refused; repeating it must give the same answer.
    Refused(Past),
    /// A command was accepted. Nothing was done for it before this record.
    Accepted(Box<Accepted>),
    /// The server asked to stop.
    Aborted {
        /// Of the command that asked.
        epoch: u64,
    },
    /// An operation begins; written before it has any effect.
    Began {
        /// Number of this attempt, unique in the run.
        seq: u32,
        /// Which operation of the current list.
        op: usize,
    },
    /// It ended.
    Ended {
        /// The attempt.
        seq: u32,
        /// Whether it succeeded.
        ok: bool,
        /// What people should know of it.
        detail: String,
    },
    /// The run goes back.
    Turned {
        /// Which way.
        turn: Turn,
        /// Why.
        reason: String,
    },
    /// The run ended.
    Outcome {
        /// How.
        state: HostState,
        /// Why.
        reason: String,
        /// What serves now.
        release: Option<String>,
        /// When.
        at_ms: UnixMs,
    },
    /// The end was handed to the durable event sink.
    Reported {
        /// Of which deployment.
        deployment_id: String,
    },
}

/// A release on disk.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Release {
    /// Directory below `releases/`.
    pub dir: String,
    /// Its name for people.
    pub name: String,
    /// The deployment that brought it; empty for one that was there before Shipwatch.
    pub deployment_id: String,
    /// How to start, stop and check it; none for one that was there before Shipwatch.
    pub spec: Option<Spec>,
}

/// What a run is for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Kind {
    /// Bring `new` up.
    Deploy,
    /// Go from `new`, which serves, to `old`; a deployment of its own.
    Rollback,
    /// The same, asked for under the id of the deployment that is taken back.
    TakeBack,
}

/// Everything a run needs, so that it can go on from the journal alone.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Accepted {
    /// The deployment.
    pub deployment_id: String,
    /// Of the command.
    pub epoch: u64,
    /// When.
    pub at_ms: UnixMs,
    /// What for.
    pub kind: Kind,
    /// The release to bring up, or to leave.
    pub new: Release,
    /// The release that served before, or to go back to.
    pub old: Option<Release>,
}

/// Which way back.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Turn {
    /// The switch has not begun: the old release is still current.
    Undo {
        /// Its stop steps have begun, so it must be started again.
        restart_old: bool,
    },
    /// The switch has begun.
    Back {
        /// The new release's start steps have begun, so it must be stopped.
        stop_new: bool,
    },
}

/// One attempt at an operation.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Attempt {
    /// Number, unique in the run.
    pub seq: u32,
    /// Which operation of its list.
    pub op: usize,
    /// Whether it belongs to the way back.
    pub turned: bool,
    /// Success and detail, once it ended.
    pub result: Option<(bool, String)>,
}

/// A deployment on its way.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Run {
    /// What was accepted.
    pub accepted: Accepted,
    /// Whether the server asked to stop.
    pub aborted: bool,
    /// The way back and its reason.
    pub turn: Option<(Turn, String)>,
    /// Attempts in order.
    pub attempts: Vec<Attempt>,
}

impl Run {
    /// The attempts at the current list of operations.
    pub(crate) fn current(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.turned == self.turn.is_some())
    }
}

/// How a deployment ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Past {
    /// Which.
    pub deployment_id: String,
    /// Whether the command was to go back.
    pub rollback: bool,
    /// How.
    pub state: HostState,
    /// Why.
    pub reason: String,
    /// What served then.
    pub release: Option<String>,
    /// When.
    pub at_ms: UnixMs,
    /// Whether the end was handed to the durable event sink.
    pub reported: bool,
}

/// One app under one root.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct AppState {
    /// Highest epoch that was accepted.
    pub epoch: u64,
    /// Good releases, oldest first, without their specs (those are beside the journal).
    pub good: Vec<Release>,
    /// Ended and refused deployments, oldest first.
    pub past: Vec<Past>,
    /// The one on its way.
    pub run: Option<Run>,
}

impl AppState {
    /// Folds one record. Records that do not fit (an end without a beginning) change nothing.
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Snapshot(state) => *self = *state,
            Record::Refused(past) => self.remember(past),
            Record::Accepted(accepted) => {
                self.epoch = self.epoch.max(accepted.epoch);
                // A way back begins turned: its list of operations is the same as a failed deployment's.
                let turn = (accepted.kind != Kind::Deploy).then(|| (Turn::Back { stop_new: true }, "asked to go back".to_owned()));
                self.run = Some(Run { accepted: *accepted, aborted: false, turn, attempts: Vec::new() });
            }
            Record::Aborted { epoch } => {
                self.epoch = self.epoch.max(epoch);
                if let Some(run) = &mut self.run {
                    run.aborted = true;
                }
            }
            Record::Began { seq, op } => {
                if let Some(run) = &mut self.run {
                    let turned = run.turn.is_some();
                    run.attempts.push(Attempt { seq, op, turned, result: None });
                }
            }
            Record::Ended { seq, ok, detail } => {
                let attempt = self.run.as_mut().and_then(|run| run.attempts.iter_mut().find(|attempt| attempt.seq == seq));
                if let Some(attempt) = attempt {
                    attempt.result = Some((ok, detail));
                }
            }
            Record::Turned { turn, reason } => {
                if let Some(run) = &mut self.run {
                    run.turn = Some((turn, reason));
                }
            }
            Record::Outcome { state, reason, release, at_ms } => self.end(state, reason, release, at_ms),
            Record::Reported { deployment_id } => {
                for past in self.past.iter_mut().filter(|past| past.deployment_id == deployment_id) {
                    past.reported = true;
                }
            }
        }
    }

    fn end(&mut self, state: HostState, reason: String, release: Option<String>, at_ms: UnixMs) {
        let Some(run) = self.run.take() else { return };
        let Accepted { deployment_id, kind, new, old, .. } = run.accepted;
        match (kind, state) {
            (Kind::Deploy, HostState::Succeeded) => {
                self.good.retain(|good| good.dir != new.dir);
                self.good.push(Release { spec: None, ..new });
                if self.good.len() > GOOD_MAX {
                    self.good.remove(0);
                }
            }
            // What was gone back from is no longer good; going back again goes further.
            (Kind::Rollback | Kind::TakeBack, HostState::Succeeded | HostState::Reverted) => {
                if let Some(at) = old.and_then(|old| self.good.iter().position(|good| good.dir == old.dir)) {
                    self.good.truncate(at + 1);
                }
            }
            _ => {}
        }
        self.remember(Past { deployment_id, rollback: kind != Kind::Deploy, state, reason, release, at_ms, reported: false });
    }

    fn remember(&mut self, past: Past) {
        self.past.push(past);
        if self.past.len() > PAST_MAX {
            self.past.remove(0);
        }
    }

    /// The last that is known of a deployment that ended; `rollback` asks for commands to go back only.
    #[must_use]
    pub(crate) fn past(&self, deployment_id: &str, rollback: bool) -> Option<&Past> {
        self.past.iter().rev().find(|past| past.deployment_id == deployment_id && (past.rollback || !rollback))
    }

    /// The good release before `current`: the one to go back to.
    pub(crate) fn before<'a>(&'a self, current: Option<&'a str>) -> impl Iterator<Item = &'a Release> {
        let at = self.good.iter().position(|good| Some(good.dir.as_str()) == current).unwrap_or(self.good.len());
        self.good.iter().take(at).rev().filter(move |good| Some(good.dir.as_str()) != current)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn release(dir: &str, spec: Option<Spec>) -> Release {
        Release { dir: dir.into(), name: dir.into(), deployment_id: format!("id-of-{dir}"), spec }
    }

    fn accepted(kind: Kind, new: &str, old: Option<&str>, epoch: u64) -> Record {
        Record::Accepted(Box::new(Accepted {
            deployment_id: format!("id-of-{new}"),
            epoch,
            at_ms: 1,
            kind,
            new: release(new, None),
            old: old.map(|old| release(old, None)),
        }))
    }

    fn outcome(state: HostState) -> Record {
        Record::Outcome { state, reason: "why".into(), release: None, at_ms: 2 }
    }

    #[test]
    fn good_releases_follow_outcomes() {
        let mut state = AppState::default();
        let dirs = |state: &AppState| state.good.iter().map(|good| good.dir.clone()).collect::<Vec<_>>().join(" ");
        for (record, end, good) in [
            (accepted(Kind::Deploy, "a", None, 1), HostState::Succeeded, "a"),
            (accepted(Kind::Deploy, "b", Some("a"), 2), HostState::Succeeded, "a b"),
            (accepted(Kind::Deploy, "c", Some("b"), 3), HostState::Reverted, "a b"),
            (accepted(Kind::Deploy, "d", Some("b"), 4), HostState::Succeeded, "a b d"),
            (accepted(Kind::TakeBack, "d", Some("b"), 5), HostState::Reverted, "a b"),
            (accepted(Kind::Rollback, "b", Some("a"), 6), HostState::RevertFailed, "a b"),
            (accepted(Kind::Rollback, "b", Some("a"), 7), HostState::Succeeded, "a"),
        ] {
            state.apply(record);
            assert!(state.run.is_some());
            state.apply(outcome(end));
            assert_eq!(dirs(&state), good);
        }
        assert_eq!(state.epoch, 7);
        assert_eq!(state.past("id-of-d", false).unwrap().state, HostState::Reverted);
        assert!(state.past("id-of-a", true).is_none());
    }

    #[test]
    fn the_release_before_is_the_next_older_good_one() {
        let mut state = AppState { good: ["a", "b", "c"].map(|dir| release(dir, None)).into(), ..AppState::default() };
        let first = |state: &AppState, current: Option<&str>| state.before(current).next().map(|good| good.dir.clone());
        assert_eq!(first(&state, Some("c")).as_deref(), Some("b"));
        assert_eq!(first(&state, Some("a")), None);
        assert_eq!(first(&state, Some("unknown")).as_deref(), Some("c"));
        state.good.clear();
        assert_eq!(first(&state, None), None);
    }

    #[test]
    fn memory_is_bounded_and_the_epoch_never_goes_down() {
        let mut state = AppState::default();
        for at in 0..600 {
            state.apply(accepted(Kind::Deploy, &format!("r{at}"), None, 1000 - at));
            state.apply(outcome(HostState::Succeeded));
        }
        assert_eq!((state.past.len(), state.good.len(), state.epoch), (PAST_MAX, GOOD_MAX, 1000));
        state.apply(outcome(HostState::Failed));
        state.apply(Record::Ended { seq: 1, ok: true, detail: String::new() });
        assert_eq!(state.past.len(), PAST_MAX);
    }

    /// Journals outlive the program: a change here needs a new journal version or must read the old text.
    #[test]
    fn golden_records() {
        for (record, text) in [
            (Record::Began { seq: 3, op: 1 }, r#"{"Began":{"seq":3,"op":1}}"#),
            (Record::Ended { seq: 3, ok: false, detail: "exit code 1".into() }, r#"{"Ended":{"seq":3,"ok":false,"detail":"exit code 1"}}"#),
            (
                Record::Turned { turn: Turn::Back { stop_new: true }, reason: "x".into() },
                r#"{"Turned":{"turn":{"Back":{"stop_new":true}},"reason":"x"}}"#,
            ),
            (
                Record::Outcome { state: HostState::Reverted, reason: "x".into(), release: Some("v1".into()), at_ms: 5 },
                r#"{"Outcome":{"state":"reverted","reason":"x","release":"v1","at_ms":5}}"#,
            ),
            (Record::Aborted { epoch: 9 }, r#"{"Aborted":{"epoch":9}}"#),
            (Record::Reported { deployment_id: "d".into() }, r#"{"Reported":{"deployment_id":"d"}}"#),
            (
                accepted(Kind::Deploy, "a", None, 1),
                r#"{"Accepted":{"deployment_id":"id-of-a","epoch":1,"at_ms":1,"kind":"Deploy","new":{"dir":"a","name":"a","deployment_id":"id-of-a","spec":null},"old":null}}"#,
            ),
            (Record::Snapshot(Box::default()), r#"{"Snapshot":{"epoch":0,"good":[],"past":[],"run":null}}"#),
        ] {
            assert_eq!(serde_json::to_string(&record).unwrap(), text);
            assert_eq!(serde_json::from_str::<Record>(text).unwrap(), record);
        }
    }
}
