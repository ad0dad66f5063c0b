//! Decides what a deployment does next. Pure: from what the journal holds to one [`Next`].
//!
//! ```text
//! forward:  fetch - unpack - prepare.. - stop (old).. - switch - start.. - health - finish..      -> succeeded
//! undo:     [start (old).. - health (old)] - remove                                               -> failed
//! back:     [stop (new)..] - switch back - start (old).. - health (old)                           -> reverted
//! ```
//!
//! # Invariants
//! - Nothing of the running release is touched before its `stop` steps, and those come after everything that can be prepared.
//! - A failure, an abort and a wish to go back all take the same way back; it is taken at most once.
//! - A failure on the way back ends the run as `RevertFailed`: it is for a person, not for a third attempt.
//! - Stopping the new release on the way back is best effort: a broken `stop` never keeps the old release from coming back.

use super::state::{Accepted, Attempt, Kind, Run, Turn};
use shipwatch_common::model::deploy::{HostState, Phase, Spec};

/// The release that an operation is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Which {
    /// The one to bring up, or to leave.
    New,
    /// The one before.
    Old,
}

/// One operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Op {
    /// Bring the artifact into the cache.
    Fetch,
    /// Make `releases/<dir>` of it.
    Unpack,
    /// Run a step: its release, and its place in that release's spec.
    Step(Which, usize),
    /// Let `current` point to it; without an old release, remove `current`.
    Switch(Which),
    /// Run the health checks of its spec.
    Health(Which),
    /// Remove the new release's directory.
    Remove,
}

/// An operation and what its failure means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Planned {
    /// What to do.
    pub op: Op,
    /// Its failure is told but changes nothing.
    pub best_effort: bool,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    /// Begin an operation.
    Begin {
        /// Its place in the current list.
        at: usize,
        /// The operation.
        op: Op,
    },
    /// An attempt began and its end is not known: find out, or do it again.
    Resume {
        /// The attempt.
        seq: u32,
        /// The operation.
        op: Op,
    },
    /// Go back.
    Turn(Turn, String),
    /// Done.
    End(HostState, String),
}

/// Decides the next move of `run`.
#[must_use]
pub(crate) fn next(run: &Run) -> Next {
    let list = operations(run);
    for (at, planned) in list.iter().enumerate() {
        let last = run.current().rfind(|attempt| attempt.op == at);
        match last {
            Some(Attempt { seq, result: None, .. }) => return Next::Resume { seq: *seq, op: planned.op },
            Some(Attempt { result: Some((true, _)), .. }) => {}
            Some(Attempt { result: Some((false, _)), .. }) if planned.best_effort => {}
            Some(Attempt { result: Some((false, detail)), .. }) => {
                return failed(run, &format!("{} failed: {detail}", label(&run.accepted, planned.op)));
            }
            None if run.aborted && run.turn.is_none() => return failed(run, "aborted on request"),
            None => return Next::Begin { at, op: planned.op },
        }
    }
    finished(run)
}

fn failed(run: &Run, reason: &str) -> Next {
    match &run.turn {
        None => Next::Turn(turn_for(run), reason.to_owned()),
        Some((_, first)) => Next::End(HostState::RevertFailed, format!("{first}; then going back failed as well: {reason}")),
    }
}

fn finished(run: &Run) -> Next {
    let Accepted { kind, new, old, .. } = &run.accepted;
    let old_name = old.as_ref().map(|old| old.name.as_str());
    match (&run.turn, kind, old_name) {
        (None, ..) => Next::End(HostState::Succeeded, format!("{} serves", new.name)),
        (Some((Turn::Undo { restart_old }, reason)), ..) => {
            let rest = if *restart_old { "; the release before was started again" } else { "; the release before was not touched" };
            Next::End(HostState::Failed, format!("{reason}{}", if old_name.is_some() { rest } else { "" }))
        }
        (Some(_), Kind::Rollback, name) => Next::End(HostState::Succeeded, format!("went back to {}", name.unwrap_or("no release"))),
        (Some((_, reason)), _, Some(name)) => Next::End(HostState::Reverted, format!("{reason}; {name} serves again")),
        (Some((_, reason)), _, None) => {
            Next::End(HostState::Reverted, format!("{reason}; there was no release before, so none serves now"))
        }
    }
}

/// How far it is, for the server.
#[must_use]
pub(crate) fn state(run: &Run) -> HostState {
    let list = operations(run);
    let switched = run.current().any(|attempt| list.get(attempt.op).is_some_and(|planned| matches!(planned.op, Op::Switch(_))));
    match run.turn {
        Some(_) => HostState::Reverting,
        None if switched => HostState::Switching,
        None => HostState::Preparing,
    }
}

/// The way back that fits what has begun.
fn turn_for(run: &Run) -> Turn {
    let list = forward(&run.accepted);
    let begun = |wanted: &dyn Fn(Op) -> bool| run.current().any(|attempt| list.get(attempt.op).is_some_and(|planned| wanted(planned.op)));
    if begun(&|op| matches!(op, Op::Switch(_))) {
        let spec = run.accepted.new.spec.as_ref();
        let starts = |op| matches!(op, Op::Step(Which::New, at) if phase(spec, at) == Some(Phase::Start));
        Turn::Back { stop_new: begun(&starts) }
    } else {
        Turn::Undo { restart_old: begun(&|op| matches!(op, Op::Step(Which::Old, _))) }
    }
}

/// The list that is being worked off.
#[must_use]
pub(crate) fn operations(run: &Run) -> Vec<Planned> {
    match run.turn {
        None => forward(&run.accepted),
        Some((turn, _)) => backward(&run.accepted, turn),
    }
}

fn forward(accepted: &Accepted) -> Vec<Planned> {
    let new = accepted.new.spec.as_ref();
    let old = accepted.old.as_ref().and_then(|old| old.spec.as_ref());
    let mut list = vec![must(Op::Fetch), must(Op::Unpack)];
    list.extend(steps(Which::New, new, Phase::Prepare).map(must));
    list.extend(steps(Which::Old, old, Phase::Stop).map(must));
    list.push(must(Op::Switch(Which::New)));
    list.extend(start(Which::New, new));
    list.extend(steps(Which::New, new, Phase::Finish).map(must));
    list
}

fn backward(accepted: &Accepted, turn: Turn) -> Vec<Planned> {
    let new = accepted.new.spec.as_ref();
    let old = accepted.old.as_ref().and_then(|old| old.spec.as_ref());
    let mut list = Vec::new();
    match turn {
        Turn::Undo { restart_old } => {
            if restart_old {
                list.extend(start(Which::Old, old));
            }
            list.push(Planned { op: Op::Remove, best_effort: true });
        }
        Turn::Back { stop_new } => {
            if stop_new {
                list.extend(steps(Which::New, new, Phase::Stop).map(|op| Planned { op, best_effort: true }));
            }
            list.push(must(Op::Switch(Which::Old)));
            list.extend(start(Which::Old, old));
        }
    }
    list
}

/// Start steps and then health checks.
fn start(which: Which, spec: Option<&Spec>) -> Vec<Planned> {
    let mut list: Vec<_> = steps(which, spec, Phase::Start).map(must).collect();
    if spec.is_some_and(|spec| !spec.health.is_empty()) {
        list.push(must(Op::Health(which)));
    }
    list
}

const fn must(op: Op) -> Planned {
    Planned { op, best_effort: false }
}

fn steps(which: Which, spec: Option<&Spec>, wanted: Phase) -> impl Iterator<Item = Op> {
    let all = spec.map_or(&[][..], |spec| &spec.steps);
    all.iter().enumerate().filter(move |(_, step)| step.phase == wanted).map(move |(at, _)| Op::Step(which, at))
}

fn phase(spec: Option<&Spec>, at: usize) -> Option<Phase> {
    spec.and_then(|spec| spec.steps.get(at)).map(|step| step.phase)
}

/// The operation's name in events.
#[must_use]
pub(crate) fn label(accepted: &Accepted, op: Op) -> String {
    match op {
        Op::Fetch => "fetch".to_owned(),
        Op::Unpack => "unpack".to_owned(),
        Op::Switch(_) => "switch".to_owned(),
        Op::Health(_) => "health".to_owned(),
        Op::Remove => "remove".to_owned(),
        Op::Step(which, at) => {
            let release = match which {
                Which::New => Some(&accepted.new),
                Which::Old => accepted.old.as_ref(),
            };
            let step = release.and_then(|release| release.spec.as_ref()).and_then(|spec| spec.steps.get(at));
            step.map_or_else(|| format!("step {at}"), |step| step.id.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::state::{AppState, Record, tests::release};
    use proptest::prelude::*;
    use shipwatch_common::model::deploy::{Artifact, Health, Keep, OnInterrupt, Step};

    fn spec(name: &str) -> Spec {
        let phases = [("prep", Phase::Prepare), ("stop", Phase::Stop), ("start", Phase::Start), ("finish", Phase::Finish)];
        let step = |(id, phase): (&str, Phase)| Step {
            id: format!("{id}-{name}"),
            phase,
            run: "true".into(),
            timeout: Step::default_timeout(),
            on_interrupt: OnInterrupt::Fail,
        };
        let health = Health {
            http: None,
            contains: None,
            tcp: None,
            exec: Some("true".into()),
            interval: Health::default_interval(),
            timeout: Health::default_timeout(),
            pass: 1,
            deadline: Health::default_deadline(),
        };
        Spec {
            version: 1,
            app: "shop".into(),
            release: name.into(),
            artifact: Artifact { url: "file:///a".into(), sha256: "0".repeat(64) },
            root: "/srv/shop".into(),
            steps: phases.map(step).into(),
            health: vec![health],
            keep: Keep::default(),
            env: Default::default(),
        }
    }

    fn begin(kind: Kind, with_old: bool) -> AppState {
        let mut state = AppState::default();
        state.apply(Record::Accepted(Box::new(Accepted {
            deployment_id: "d".into(),
            epoch: 1,
            at_ms: 0,
            kind,
            new: release("new", Some(spec("new"))),
            old: with_old.then(|| release("old", Some(spec("old")))),
        })));
        state
    }

    /// Runs with the named operations failing; returns what was done and the end.
    fn play(mut state: AppState, failing: &[&str], abort_after: Option<usize>) -> String {
        let mut told = Vec::new();
        let mut seq = 0;
        for _ in 0..100 {
            let Some(run) = &state.run else { break };
            if abort_after == Some(told.len()) && !run.aborted {
                state.apply(Record::Aborted { epoch: 1 });
                continue;
            }
            match next(run) {
                Next::Begin { at, op } => {
                    let name = match op {
                        Op::Switch(which) | Op::Health(which) => format!("{}-{which:?}", label(&run.accepted, op)).to_lowercase(),
                        _ => label(&run.accepted, op),
                    };
                    seq += 1;
                    let ok = !failing.contains(&name.as_str());
                    told.push(format!("{name}{}", if ok { "" } else { "!" }));
                    state.apply(Record::Began { seq, op: at });
                    state.apply(Record::Ended { seq, ok, detail: "exit code 1".into() });
                }
                Next::Turn(turn, reason) => {
                    told.push("<".to_owned());
                    state.apply(Record::Turned { turn, reason });
                }
                Next::End(end, _) => {
                    told.push(format!("{end:?}"));
                    break;
                }
                Next::Resume { .. } => panic!("nothing is open"),
            }
        }
        told.join(" ")
    }

    #[test]
    fn every_failure_has_its_way_back() {
        let deploy = |failing: &[&str]| play(begin(Kind::Deploy, true), failing, None);
        for (failing, expected) in [
            (&[][..], "fetch unpack prep-new stop-old switch-new start-new health-new finish-new Succeeded"),
            (&["fetch"], "fetch! < remove Failed"),
            (&["prep-new"], "fetch unpack prep-new! < remove Failed"),
            (&["prep-new", "remove"], "fetch unpack prep-new! < remove! Failed"),
            (&["stop-old"], "fetch unpack prep-new stop-old! < start-old health-old remove Failed"),
            (&["stop-old", "start-old"], "fetch unpack prep-new stop-old! < start-old! RevertFailed"),
            (&["switch-new"], "fetch unpack prep-new stop-old switch-new! < switch-old start-old health-old Reverted"),
            (&["start-new"], "fetch unpack prep-new stop-old switch-new start-new! < stop-new switch-old start-old health-old Reverted"),
            (
                &["health-new", "stop-new"],
                "fetch unpack prep-new stop-old switch-new start-new health-new! < stop-new! switch-old start-old health-old Reverted",
            ),
            (
                &["finish-new", "health-old"],
                "fetch unpack prep-new stop-old switch-new start-new health-new finish-new! < stop-new switch-old start-old health-old! RevertFailed",
            ),
        ] {
            assert_eq!(deploy(failing), expected, "{failing:?}");
        }
    }

    #[test]
    fn a_first_deployment_goes_back_to_nothing() {
        assert_eq!(
            play(begin(Kind::Deploy, false), &["health-new"], None),
            "fetch unpack prep-new switch-new start-new health-new! < stop-new switch-old Reverted"
        );
        let mut state = begin(Kind::Deploy, false);
        state.apply(Record::Turned { turn: Turn::Back { stop_new: false }, reason: "x".into() });
        state.apply(Record::Began { seq: 1, op: 0 });
        state.apply(Record::Ended { seq: 1, ok: true, detail: String::new() });
        let Next::End(_, reason) = next(state.run.as_ref().unwrap()) else { panic!() };
        assert!(reason.contains("no release before"), "{reason}");
    }

    #[test]
    fn going_back_on_request_is_the_same_way() {
        let way = "stop-new switch-old start-old health-old";
        assert_eq!(play(begin(Kind::Rollback, true), &[], None), format!("{way} Succeeded"));
        assert_eq!(play(begin(Kind::TakeBack, true), &[], None), format!("{way} Reverted"));
        assert_eq!(play(begin(Kind::TakeBack, true), &["start-old"], None), "stop-new switch-old start-old! RevertFailed");
    }

    #[test]
    fn an_abort_takes_effect_between_operations() {
        let abort = |after| play(begin(Kind::Deploy, true), &[], Some(after));
        assert_eq!(abort(0), "< remove Failed");
        assert_eq!(abort(4), "fetch unpack prep-new stop-old < start-old health-old remove Failed");
        assert_eq!(abort(5), "fetch unpack prep-new stop-old switch-new < switch-old start-old health-old Reverted");
        assert!(abort(8).ends_with("finish-new Succeeded"), "too late to go back");
        assert_eq!(play(begin(Kind::Rollback, true), &[], Some(1)), "stop-new switch-old start-old health-old Succeeded");
    }

    #[test]
    fn an_open_attempt_is_resumed_before_anything_else() {
        let mut state = begin(Kind::Deploy, true);
        state.apply(Record::Began { seq: 7, op: 0 });
        state.apply(Record::Aborted { epoch: 2 });
        assert_eq!(next(state.run.as_ref().unwrap()), Next::Resume { seq: 7, op: Op::Fetch });
    }

    proptest! {
        /// Whatever fails, a run ends; `current` points to the old release unless the end is `Succeeded`.
        #[test]
        fn it_always_ends_and_never_half_way(failures in proptest::collection::vec(any::<bool>(), 40), with_old: bool, abort in 0usize..12) {
            let names = ["fetch", "unpack", "prep-new", "stop-old", "switch-new", "start-new", "health-new", "finish-new", "stop-new",
                "start-old", "health-old", "remove"];
            let failing: Vec<&str> = names.iter().zip(&failures).filter(|(_, fails)| **fails).map(|(name, _)| *name).collect();
            let told = play(begin(Kind::Deploy, with_old), &failing, Some(abort));
            let last = told.rsplit(' ').next().unwrap();
            let switched = told.contains("switch-new");
            prop_assert!(["Succeeded", "Failed", "Reverted", "RevertFailed"].contains(&last), "{told}");
            prop_assert!(!(last == "Failed" && switched), "{told}");
            prop_assert!(last == "Succeeded" || !switched || told.contains("switch-old"), "{told}");
            prop_assert!(told.matches('<').count() <= 1, "{told}");
        }
    }
}
