//! Samples that came lately from senders without a sequence, so that a request which is sent again is not queued again.
//!
//! # Invariants
//! - Only a sample that is in the queue already, with the same time and value, is known: leaving it out loses nothing.
//! - Bounded: what came before the last [`MOST`] samples is forgotten, and would be taken twice.

use shipwatch_common::model::Sample;
use std::{
    collections::{HashSet, hash_map::RandomState},
    hash::BuildHasher as _,
};

/// Samples that are surely remembered.
const MOST: usize = 100_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Recent {
    new: HashSet<u64>,
    old: HashSet<u64>,
    hasher: RandomState,
}

impl Recent {
    /// Remembers a sample; false if it was there.
    pub(super) fn is_new(&mut self, sample: &Sample) -> bool {
        let hash = self.hasher.hash_one((&*sample.labels, sample.ts_ms, sample.value.to_bits()));
        if self.old.contains(&hash) || !self.new.insert(hash) {
            return false;
        }
        if self.new.len() >= MOST {
            self.old = std::mem::take(&mut self.new);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipwatch_common::model::Labels;
    use std::sync::Arc;

    #[test]
    fn the_last_ones_are_known_by_series_time_and_value() {
        let mut recent = Recent::default();
        let labels = ["a", "b"].map(|name| Arc::new(Labels::new([("__name__", name)]).unwrap()));
        let mut is_new =
            |series: usize, ts_ms: i64, value: f64| recent.is_new(&Sample { labels: Arc::clone(&labels[series]), ts_ms, value });
        assert!(is_new(0, 1, 0.0) && is_new(1, 1, 0.0) && is_new(0, 2, 0.0) && is_new(0, 1, -0.0));
        assert!(!is_new(0, 1, 0.0) && !is_new(0, 1, -0.0));
        (0..MOST as i64).for_each(|ts| assert!(is_new(1, 10 + ts, 1.0)));
        assert!(!is_new(1, 10, 1.0), "of the generation before");
        (0..MOST as i64).for_each(|ts| assert!(is_new(1, 10 + ts, 2.0)));
        assert!(is_new(0, 2, 0.0), "forgotten");
    }
}
