//! Label sets that came before, found by how they are written in a request: no text is built for a series that is known, and
//! the store is given the very labels that it holds.
//!
//! # Invariants
//! - What is found is compared with what was asked for, pair by pair: hashes only say where to look.
//! - Bounded: a shard holds at most two generations of its share. What was not asked for during a whole generation is let go.
//! - Hashes are keyed at random per process.

use hashbrown::HashTable;
use shipwatch_common::model::Labels;
use std::{
    hash::{BuildHasher as _, Hasher as _},
    sync::{Arc, Mutex, PoisonError},
};

/// Requests are decoded beside each other; each touches a shard for a moment.
const SHARDS: usize = 32;

/// A label's name and value as they came.
pub(crate) type Pair<'a> = (&'a [u8], &'a [u8]);

type Entry = (u64, Arc<Labels>);

#[derive(Debug, Default)]
struct Shard {
    young: HashTable<Entry>,
    old: HashTable<Entry>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Known {
    shards: Vec<Mutex<Shard>>,
    per_generation: usize,
    keys: foldhash::fast::RandomState,
}

impl Known {
    /// Holds about as many sets.
    pub(crate) fn new(sets: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, per_generation: (sets / SHARDS / 2).max(8), keys: foldhash::fast::RandomState::default() }
    }

    /// How a set is written, as a number.
    pub(crate) fn hash(&self, written: &[u8]) -> u64 {
        let mut hasher = self.keys.build_hasher();
        hasher.write(written);
        hasher.finish()
    }

    /// A set that came before, of the same pairs (sorted, without empty values).
    pub(crate) fn find(&self, hash: u64, pairs: &[Pair<'_>]) -> Option<Arc<Labels>> {
        let same = |(known, labels): &Entry| *known == hash && equals(labels, pairs);
        let mut shard = self.shard(hash);
        if let Some((_, labels)) = shard.young.find(hash, same) {
            return Some(labels.clone());
        }
        let (entry, _) = shard.old.find_entry(hash, same).ok()?.remove();
        let labels = entry.1.clone();
        self.insert(&mut shard, entry);
        Some(labels)
    }

    /// Remembers a set.
    pub(crate) fn add(&self, hash: u64, labels: Arc<Labels>) {
        self.insert(&mut self.shard(hash), (hash, labels));
    }

    fn insert(&self, shard: &mut Shard, entry: Entry) {
        if shard.young.len() >= self.per_generation {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert_unique(entry.0, entry, |(hash, _)| *hash);
    }

    fn shard(&self, hash: u64) -> std::sync::MutexGuard<'_, Shard> {
        // The table inside looks at the lowest and the highest bits.
        let at = (hash >> 32) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap()).map(|shard| shard.young.len() + shard.old.len()).sum()
    }
}

fn equals(labels: &Labels, pairs: &[Pair<'_>]) -> bool {
    let all = labels.iter();
    all.len() == pairs.len() && all.zip(pairs).all(|((name, value), pair)| name.as_bytes() == pair.0 && value.as_bytes() == pair.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_found_while_they_are_used_and_the_table_stays_small() {
        let known = Known::new(640);
        let labels = |at: usize| Arc::new(Labels::new([("a", at.to_string())]).unwrap());
        let find = |at: usize| {
            let text = at.to_string();
            known.find(known.hash(text.as_bytes()), &[(b"a", text.as_bytes())])
        };
        let kept = labels(0);
        known.add(known.hash(b"0"), kept.clone());
        for at in 1..5_000 {
            assert_eq!(find(at), None);
            known.add(known.hash(at.to_string().as_bytes()), labels(at));
            assert!(find(0).is_some_and(|found| Arc::ptr_eq(&found, &kept)), "{at}");
        }
        assert!(known.count() <= 640, "{}", known.count());
        // The same hash with other pairs is another set.
        assert_eq!(known.find(known.hash(b"0"), &[(b"a", b"1")]), None);
        assert_eq!(known.find(known.hash(b"0"), &[(b"a", b"0"), (b"b", b"0")]), None);
    }
}
