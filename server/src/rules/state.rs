//! Alert state for one label set of one rule, as Prometheus steps it.
//!
//! Inactive -> Pending -> Firing -> Resolved. The step is pure: it is given the time and whether the expression had this
//! label set, it returns the next state and the transition to report. An evaluation that failed takes no step at all, so it
//! never resolves anything.
//!
//! # Invariants
//! - `Firing` needs `hold` since the first breach with no fine evaluation between; state is stored, so a restart goes on.
//! - A clock that jumps back never shortens `hold` or `keep_firing`.

use serde::{Deserialize, Serialize};
use shipwatch_common::time::UnixMs;

/// What changed, for the caller to store and to report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transition {
    /// It waits for its `for`.
    Started,
    /// It fires.
    Fired,
    /// It fired and is fine.
    Resolved,
    /// It waited and is fine.
    Cleared,
}

/// See the module; inactive is no state at all.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Breached, for less than `for`.
    Pending {
        /// First breach.
        since_ms: UnixMs,
    },
    /// People are told.
    Firing {
        /// First breach.
        since_ms: UnixMs,
        /// When `for` was over.
        fired_ms: UnixMs,
        /// Since when it is fine but held by `keep_firing_for`.
        fine_since_ms: Option<UnixMs>,
    },
    /// Over; kept for a time for people to see.
    Resolved {
        /// First breach.
        since_ms: UnixMs,
        /// When `for` was over.
        fired_ms: UnixMs,
        /// When it was fine.
        resolved_ms: UnixMs,
    },
}

/// How long things must last.
#[derive(Clone, Copy, Debug)]
pub struct Holds {
    /// `for`.
    pub hold_ms: i64,
    /// `keep_firing_for`.
    pub keep_firing_ms: i64,
}

impl State {
    /// Moves one step at `now_ms`.
    #[must_use]
    pub fn step(before: Option<Self>, breached: bool, holds: Holds, now_ms: UnixMs) -> (Option<Self>, Option<Transition>) {
        match (before, breached) {
            (None | Some(Self::Resolved { .. }), true) => Self::begin(now_ms, holds, now_ms, Transition::Started),
            (Some(Self::Pending { since_ms }), true) => {
                let (next, transition) = Self::begin(since_ms, holds, now_ms, Transition::Started);
                (next, transition.filter(|transition| *transition == Transition::Fired))
            }
            (Some(Self::Firing { since_ms, fired_ms, .. }), true) => (Some(Self::Firing { since_ms, fired_ms, fine_since_ms: None }), None),
            (Some(Self::Firing { since_ms, fired_ms, fine_since_ms }), false) => {
                let fine_since = fine_since_ms.unwrap_or(now_ms);
                if now_ms - fine_since < holds.keep_firing_ms {
                    return (Some(Self::Firing { since_ms, fired_ms, fine_since_ms: Some(fine_since) }), None);
                }
                (Some(Self::Resolved { since_ms, fired_ms, resolved_ms: now_ms }), Some(Transition::Resolved))
            }
            (Some(Self::Pending { .. }), false) => (None, Some(Transition::Cleared)),
            (before @ (None | Some(Self::Resolved { .. })), false) => (before, None),
        }
    }

    fn begin(since_ms: UnixMs, holds: Holds, now_ms: UnixMs, started: Transition) -> (Option<Self>, Option<Transition>) {
        if now_ms - since_ms >= holds.hold_ms {
            return (Some(Self::Firing { since_ms, fired_ms: now_ms, fine_since_ms: None }), Some(Transition::Fired));
        }
        (Some(Self::Pending { since_ms }), Some(started))
    }

    /// `pending`, `firing`, `resolved`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending { .. } => "pending",
            Self::Firing { .. } => "firing",
            Self::Resolved { .. } => "resolved",
        }
    }

    /// First breach.
    #[must_use]
    pub const fn since_ms(self) -> UnixMs {
        match self {
            Self::Pending { since_ms } | Self::Firing { since_ms, .. } | Self::Resolved { since_ms, .. } => since_ms,
        }
    }

    /// When `for` was over.
    #[must_use]
    pub const fn fired_ms(self) -> Option<UnixMs> {
        match self {
            Self::Pending { .. } => None,
            Self::Firing { fired_ms, .. } | Self::Resolved { fired_ms, .. } => Some(fired_ms),
        }
    }

    /// When it was fine.
    #[must_use]
    pub const fn resolved_ms(self) -> Option<UnixMs> {
        match self {
            Self::Resolved { resolved_ms, .. } => Some(resolved_ms),
            Self::Pending { .. } | Self::Firing { .. } => None,
        }
    }

    /// Leaves a time out in which nothing was watched: a pending alert waits that much longer.
    #[must_use]
    pub const fn without(self, unwatched_ms: i64) -> Self {
        match self {
            Self::Pending { since_ms } => Self::Pending { since_ms: since_ms + unwatched_ms },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `script` has one letter per 10 s tick: `x` breached, `.` fine, `?` the evaluation failed, `<` the clock jumps back an
    /// hour (and nothing is evaluated); `expected` is what was reported.
    #[track_caller]
    fn check(hold_s: i64, keep_s: i64, script: &str, expected: &str) {
        let holds = Holds { hold_ms: hold_s * 1_000, keep_firing_ms: keep_s * 1_000 };
        let (mut state, mut now, mut reported) = (None, 1_000_000_000, String::new());
        for letter in script.chars() {
            now += 10_000;
            let breached = match letter {
                'x' => true,
                '.' => false,
                '<' => {
                    now -= 3_600_000;
                    reported.push('-');
                    continue;
                }
                _ => {
                    reported.push('-');
                    continue;
                }
            };
            let (next, transition) = State::step(state, breached, holds, now);
            reported.push(match transition {
                None => '-',
                Some(Transition::Started) => 'S',
                Some(Transition::Fired) => 'F',
                Some(Transition::Resolved) => 'R',
                Some(Transition::Cleared) => 'C',
            });
            // What is stored is what goes on after a restart.
            state = serde_json::from_str(&serde_json::to_string(&next).unwrap()).unwrap();
        }
        assert_eq!(reported, expected, "script {script:?} for {hold_s}s keep {keep_s}s");
    }

    #[test]
    fn a_short_breach_is_not_reported() {
        check(30, 0, "x.xx..", "SCS-C-");
    }
    #[test]
    fn it_fires_after_the_hold() {
        check(20, 0, "xxxx.", "S-F-R");
    }
    #[test]
    fn the_hold_counts_from_the_first_breach_inclusive() {
        check(10, 0, "xx.", "SFR");
        check(11, 0, "xxx.", "S-FR");
    }
    #[test]
    fn no_hold_fires_at_once() {
        check(0, 0, ".x.", "-FR");
    }
    #[test]
    fn a_failed_evaluation_keeps_the_alert_and_its_hold() {
        check(20, 0, "x??xx?.", "S--F--R");
    }
    #[test]
    fn it_fires_again_after_it_was_resolved() {
        check(10, 0, "xx.xx.", "SFRSFR");
    }
    #[test]
    fn keep_firing_for_bridges_gaps() {
        check(0, 20, "x.x..x...", "F-------R");
        check(10, 20, "xx...", "SF--R");
    }
    #[test]
    fn a_clock_that_jumps_back_never_shortens_the_hold() {
        check(20, 0, "x<xxxxx", "S------");
        check(0, 20, "x.<...", "F-----");
    }

    #[test]
    fn time_that_was_not_watched_does_not_count() {
        assert_eq!(State::Pending { since_ms: 5 }.without(10), State::Pending { since_ms: 15 });
        let firing = State::Firing { since_ms: 1, fired_ms: 2, fine_since_ms: None };
        assert_eq!(firing.without(10), firing);
    }
}
