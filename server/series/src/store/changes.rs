//! What changed since when: whoever keeps results asks which of them still hold.
//!
//! Every change that a reader can see has a number, and a least time: what is before it is as it was. Numbers start anew with
//! the process.
//!
//! # Invariants
//! - A change is noted while readers wait for it: who saw its number before reading reads it, who did not is told of it.
//! - [`Changes::since`] never names a later time than the least one that changed; it may name an earlier one, by less than a
//!   second for what is recent.
//! - Memory is bounded by [`MOST`].

use shipwatch_common::time::UnixMs;
use std::collections::VecDeque;

/// Changes that are told apart.
const MOST: usize = 4_096;

/// How finely the times of recent changes are told apart, and of those before.
const FINE_MS: i64 = 1_000;
const COARSE_MS: i64 = 60_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    number: u64,
    /// Numbers with least times, both growing: a later change that reaches further back takes the earlier ones' place.
    recent: VecDeque<(u64, UnixMs)>,
}

impl Changes {
    /// Notes that samples from `least` on may have changed.
    pub(crate) fn note(&mut self, least: UnixMs) {
        self.number += 1;
        while self.recent.pop_back_if(|(_, before)| *before >= least).is_some() {}
        match self.recent.back_mut() {
            Some((number, before)) if before.div_euclid(FINE_MS) == least.div_euclid(FINE_MS) => *number = self.number,
            _ => self.recent.push_back((self.number, least)),
        }
        if self.recent.len() > MOST {
            self.thin_out();
        }
    }

    /// Notes that anything may have changed.
    pub(crate) fn note_all(&mut self) {
        self.note(i64::MIN);
    }

    /// The number of the last change, and the least time that changed after the one with the number `since`.
    pub(crate) fn since(&self, since: u64) -> (u64, UnixMs) {
        if since > self.number {
            return (self.number, i64::MIN);
        }
        let after = self.recent.partition_point(|(number, _)| *number <= since);
        (self.number, self.recent.get(after).map_or(i64::MAX, |(_, least)| *least))
    }

    /// Puts the older half into minutes, and the oldest of them into one if that is not enough.
    fn thin_out(&mut self) {
        let newer = self.recent.split_off(MOST / 2);
        let mut thin: VecDeque<(u64, UnixMs)> = VecDeque::with_capacity(MOST);
        for (number, least) in self.recent.drain(..) {
            match thin.back_mut() {
                Some((last, before)) if before.div_euclid(COARSE_MS) == least.div_euclid(COARSE_MS) => *last = number,
                _ => thin.push_back((number, least)),
            }
        }
        while thin.len() > MOST / 4 {
            let Some((_, least)) = thin.pop_front() else { break };
            if let Some(next) = thin.front_mut() {
                next.1 = least;
            }
        }
        thin.extend(newer);
        self.recent = thin;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_all_and_numbers_of_another_life() {
        let mut changes = Changes::default();
        assert_eq!(changes.since(0), (0, i64::MAX));
        changes.note(5_000);
        changes.note(9_000);
        assert_eq!((changes.since(0), changes.since(1), changes.since(2)), ((2, 5_000), (2, 9_000), (2, i64::MAX)));
        changes.note_all();
        changes.note(20_000);
        assert_eq!((changes.since(2), changes.since(3)), ((4, i64::MIN), (4, 20_000)));
        assert_eq!(changes.since(5), (4, i64::MIN));
    }

    #[test]
    fn months_of_changes_stay_small_and_recent_ones_stay_fine() {
        let mut changes = Changes::default();
        for second in 0..2_000_000 {
            changes.note(second * 1_500);
        }
        assert!(changes.recent.len() <= MOST);
        let (last, _) = changes.since(0);
        for ago in [0, 1, 10, 1_000, 2_000] {
            assert_eq!(changes.since(last - ago - 1).1, (1_999_999 - ago as i64) * 1_500);
        }
        // Half a day ago it is still known to minutes.
        let ago = 28_800;
        let (found, least) = (changes.since(last - ago - 1).1, (1_999_999 - ago as i64) * 1_500);
        assert!(found <= least && found > least - 2 * COARSE_MS, "{found} {least}");
    }

    proptest! {
        #[test]
        fn never_later_than_what_changed_and_seldom_earlier(
            steps in proptest::collection::vec((0i64..3_000, 0i64..20_000, 0u8..20), 1..6_000), asked in any::<proptest::sample::Index>(),
        ) {
            let (mut changes, mut all, mut now) = (Changes::default(), Vec::new(), 0);
            for (forward, back, late) in steps {
                now += forward;
                let least = if late == 0 { now - back } else { now };
                changes.note(least);
                all.push(least);
            }
            let since = asked.index(all.len());
            let (number, found) = changes.since(since as u64);
            let least = all[since..].iter().copied().min().unwrap();
            prop_assert_eq!(number, all.len() as u64);
            let fine = if all.len() <= MOST { FINE_MS } else { COARSE_MS + FINE_MS };
            prop_assert!(found <= least && found > least - fine, "{} {}", found, least);
        }
    }
}
