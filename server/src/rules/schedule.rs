//! When a group is evaluated: on multiples of its interval, moved by a part of it that its name decides, so that many groups
//! do not ask at once. Pure.

use super::file::Group;
use shipwatch_common::time::UnixMs;

/// The evaluation times of one group.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    interval_ms: i64,
    offset_ms: i64,
}

impl Schedule {
    /// Of a group.
    #[must_use]
    pub fn of(group: &Group) -> Self {
        let interval_ms = shipwatch_common::time::duration_ms(group.interval).max(1);
        let bytes = group.file.bytes().chain([0]).chain(group.name.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self { interval_ms, offset_ms: i64::try_from(hash % interval_ms.unsigned_abs()).unwrap_or(0) }
    }

    /// The last time at or before `now`.
    #[must_use]
    pub const fn at_or_before(self, now_ms: UnixMs) -> UnixMs {
        now_ms - (now_ms - self.offset_ms).rem_euclid(self.interval_ms)
    }

    /// The first time after `now`: what was missed is skipped. Never further away than one interval, whatever the clock did.
    #[must_use]
    pub const fn after(self, now_ms: UnixMs) -> UnixMs {
        self.at_or_before(now_ms) + self.interval_ms
    }

    /// Evaluations between two times that did not take place.
    #[must_use]
    pub fn missed(self, last_ms: UnixMs, now_ms: UnixMs) -> u64 {
        u64::try_from((now_ms - last_ms) / self.interval_ms - 1).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_aligned_spread_and_never_bunched() {
        let schedule = Schedule { interval_ms: 15_000, offset_ms: 4_000 };
        assert_eq!(schedule.after(1_000_000_000), 1_000_009_000);
        assert_eq!(schedule.after(1_000_009_000), 1_000_024_000, "strictly after");
        assert_eq!(schedule.at_or_before(1_000_009_000), 1_000_009_000);
        // Asleep for an hour: one evaluation, then the next aligned one.
        let woke = 1_000_009_000 + 3_600_001;
        assert_eq!(schedule.at_or_before(woke), 1_000_009_000 + 3_600_000);
        assert!(schedule.after(woke) - woke <= 15_000);
        assert_eq!((schedule.missed(0, 15_000), schedule.missed(0, 60_000), schedule.missed(60_000, 0)), (0, 3, 0));
        // The clock went back an hour.
        assert!(schedule.after(woke - 3_600_000) - (woke - 3_600_000) <= 15_000);
        let offsets: std::collections::BTreeSet<i64> = (0..50)
            .map(|at| {
                let text = format!("groups: [{{name: g{at}, rules: []}}]");
                let defaults =
                    super::super::file::Defaults { interval: std::time::Duration::from_secs(60), query_offset: Default::default() };
                Schedule::of(&super::super::file::parse("f", &text, defaults).unwrap()[0]).offset_ms
            })
            .collect();
        assert!(offsets.len() > 40 && offsets.iter().all(|offset| (0..60_000).contains(offset)));
    }
}
