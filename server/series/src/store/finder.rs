//! From labels to the head's number of a series, without a second copy of any label.
//!
//! Senders that stay connected send the same shared labels with every tick, so most lookups compare one address.
//!
//! # Invariants
//! - Both tables have every series once: by what its labels say, and by where the labels that the head holds lie.
//! - The head holds labels as long as their address is in the table, so no other labels can have that address.
//! - What labels say is hashed with keys that are random per process: a sender cannot make series collide.

use hashbrown::HashTable;
use shipwatch_common::model::Labels;
use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

/// What the tables ask the head: the labels of a series.
pub(crate) trait LabelsOf {
    fn labels_of(&self, series: u32) -> Option<&Arc<Labels>>;
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    by_labels: HashTable<u32>,
    by_address: HashTable<u32>,
    keys: RandomState,
}

/// Addresses differ in their middle bits; the table looks at the lowest and highest.
fn hash_address(labels: &Arc<Labels>) -> u64 {
    let product = (Arc::as_ptr(labels).addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}

impl Finder {
    pub(crate) fn count(&self) -> usize {
        self.by_labels.len()
    }

    /// Series in each of the tables.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> [usize; 2] {
        [self.by_labels.len(), self.by_address.len()]
    }

    /// The series whose labels the head shares with the sender.
    pub(crate) fn shared(&self, labels: &Arc<Labels>, of: &impl LabelsOf) -> Option<u32> {
        let same = |series: &u32| of.labels_of(*series).is_some_and(|held| Arc::ptr_eq(held, labels));
        self.by_address.find(hash_address(labels), same).copied()
    }

    /// The series with equal labels.
    pub(crate) fn equal(&self, labels: &Labels, of: &impl LabelsOf) -> Option<u32> {
        let same = |series: &u32| of.labels_of(*series).is_some_and(|held| **held == *labels);
        self.by_labels.find(self.keys.hash_one(labels), same).copied()
    }

    /// Adds a series that the head has already.
    pub(crate) fn add(&mut self, series: u32, of: &impl LabelsOf) {
        let Some(labels) = of.labels_of(series) else { return };
        let Self { by_labels, keys, .. } = self;
        let hash = |labels: &Arc<Labels>| keys.hash_one(&**labels);
        by_labels.insert_unique(hash(labels), series, |series| of.labels_of(*series).map_or(0, hash));
        self.add_address(series, of);
    }

    pub(crate) fn add_address(&mut self, series: u32, of: &impl LabelsOf) {
        let Some(labels) = of.labels_of(series) else { return };
        self.by_address.insert_unique(hash_address(labels), series, |series| of.labels_of(*series).map_or(0, hash_address));
    }

    /// Forgets a series whose labels the head had until now.
    pub(crate) fn remove(&mut self, series: u32, labels: &Arc<Labels>) {
        if let Ok(found) = self.by_labels.find_entry(self.keys.hash_one(&**labels), |at| *at == series) {
            found.remove();
        }
        self.remove_address(series, labels);
    }

    pub(crate) fn remove_address(&mut self, series: u32, labels: &Arc<Labels>) {
        if let Ok(found) = self.by_address.find_entry(hash_address(labels), |at| *at == series) {
            found.remove();
        }
    }
}
