//! Samples in memory that no day file has yet, with an index of their labels.
//!
//! Sealing takes the samples before a time out as a [`Generation`], which is never changed and stays readable until its day
//! files hold it.
//!
//! # Invariants
//! - Of two samples of a series with the same time the one written last wins: newer generations over older, the live part
//!   over all generations.
//! - Only the writer changes the head, after its commit, so the head never has what a crash would lose.

use super::{
    finder::{Finder, LabelsOf},
    index::Postings,
    part::{Part, Piece},
};
use shipwatch_common::model::Labels;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// Samples on their way into day files.
#[derive(Debug)]
pub(crate) struct Generation {
    /// By the head's number of the series.
    pub(crate) series: HashMap<u32, (Arc<Labels>, Part)>,
}

/// A series in the head.
#[derive(Debug)]
struct Entry {
    id: i64,
    labels: Arc<Labels>,
    part: Part,
}

/// By their numbers; a number that is free has none.
#[derive(Debug, Default)]
struct Entries(Vec<Option<Entry>>);

impl Entries {
    fn get(&self, slot: u32) -> Option<&Entry> {
        self.0.get(slot as usize)?.as_ref()
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        self.0.get_mut(slot as usize)?.as_mut()
    }
}

impl LabelsOf for Entries {
    fn labels_of(&self, series: u32) -> Option<&Arc<Labels>> {
        Some(&self.get(series)?.labels)
    }
}

/// A series that was looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Found {
    pub(crate) slot: u32,
    /// Its stored id.
    pub(crate) id: i64,
    /// Whether the head holds the very labels that were asked for.
    pub(crate) shared: bool,
}

/// How much the head's tables hold.
#[cfg(test)]
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Sizes {
    pub(crate) slots: usize,
    pub(crate) free: usize,
    pub(crate) found: [usize; 2],
    /// Series in the index.
    pub(crate) postings: usize,
    /// Values of one name in the index.
    pub(crate) values: usize,
    pub(crate) generations: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Head {
    entries: Entries,
    free: Vec<u32>,
    /// Numbers in the order of stored ids.
    by_id: Vec<u32>,
    finder: Finder,
    pub(crate) postings: Postings,
    generations: Vec<Arc<Generation>>,
    /// Of the newest generation.
    cutoff: i64,
}

impl Head {
    pub(crate) fn series_count(&self) -> usize {
        self.finder.count()
    }

    #[cfg(test)]
    pub(crate) fn sizes(&self, name: &str) -> Sizes {
        Sizes {
            slots: self.entries.0.len(),
            free: self.free.len(),
            found: self.finder.sizes(),
            postings: self.postings.len(),
            values: self.postings.values(name).count(),
            generations: self.generations.len(),
        }
    }

    /// The series with these labels: by their address, or by what they say.
    pub(crate) fn find(&self, labels: &Arc<Labels>) -> Option<Found> {
        let known = self.finder.shared(labels, &self.entries);
        let slot = known.or_else(|| self.finder.equal(labels, &self.entries))?;
        Some(Found { slot, id: self.entries.get(slot)?.id, shared: known.is_some() })
    }

    /// As [`Head::find`], after a look at a likely number: series that began together, such as those of a host, come together, and
    /// what lies together in memory is found fast.
    pub(crate) fn find_at(&self, labels: &Arc<Labels>, likely: u32) -> Option<Found> {
        match self.entries.get(likely) {
            Some(entry) if Arc::ptr_eq(&entry.labels, labels) => Some(Found { slot: likely, id: entry.id, shared: true }),
            _ => self.find(labels),
        }
    }

    /// Holds the sender's labels in place of its own equal ones, so that they are found by their address from now on and are in
    /// memory once.
    pub(crate) fn share(&mut self, slot: u32, labels: Arc<Labels>) {
        let Some(entry) = self.entries.get_mut(slot) else { return };
        if Arc::ptr_eq(&entry.labels, &labels) || entry.labels != labels {
            return;
        }
        let old = std::mem::replace(&mut entry.labels, labels);
        self.finder.remove_address(slot, &old);
        self.finder.add_address(slot, &self.entries);
    }

    /// Adds a series that is not there yet.
    pub(crate) fn add_series(&mut self, id: i64, labels: Arc<Labels>) -> u32 {
        let entry = Some(Entry { id, labels: labels.clone(), part: Part::default() });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries.0[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.0.push(entry);
                (self.entries.0.len() - 1) as u32
            }
        };
        // Stored ids grow, so it is the last one.
        let at = if self.id_at(self.by_id.len().wrapping_sub(1)) < Some(id) { self.by_id.len() } else { self.place_of(id) };
        self.by_id.insert(at, slot);
        self.postings.add(slot, &labels);
        self.finder.add(slot, &self.entries);
        slot
    }

    fn id_at(&self, place: usize) -> Option<i64> {
        self.entries.get(*self.by_id.get(place)?).map(|entry| entry.id)
    }

    /// Place in the order of ids of the first series whose id is not smaller.
    fn place_of(&self, id: i64) -> usize {
        self.by_id.partition_point(|slot| self.entries.get(*slot).is_some_and(|entry| entry.id < id))
    }

    /// Stored id and samples of the series from an id on, by id.
    pub(crate) fn series_from(&self, id: i64) -> impl Iterator<Item = (i64, &Part)> {
        let slots = self.by_id[self.place_of(id)..].iter();
        slots.filter_map(|slot| self.entries.get(*slot).map(|entry| (entry.id, &entry.part)))
    }

    /// The checkpoint has all blocks of series with ids from `first` on and before `end`.
    pub(crate) fn mark_saved(&mut self, first: i64, end: i64) {
        for slot in &self.by_id[self.place_of(first)..self.place_of(end)] {
            if let Some(entry) = self.entries.get_mut(*slot) {
                entry.part.mark_saved();
            }
        }
    }

    /// The samples of a series, to be filled from the checkpoint.
    pub(crate) fn part_mut(&mut self, slot: u32) -> Option<&mut Part> {
        Some(&mut self.entries.get_mut(slot)?.part)
    }

    pub(crate) const fn is_sealing(&self) -> bool {
        !self.generations.is_empty()
    }

    pub(crate) fn push(&mut self, slot: u32, ts: i64, value: f64) {
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.part.push(ts, value);
        }
    }

    /// Moves everything before the cutoff into a new generation. The cutoff never falls behind that of a seal that failed and
    /// whose generation is still here (the clock may have jumped back): both are finished together, so one cutoff must cover
    /// both. Gives the cutoff that was used.
    pub(crate) fn begin_seal(&mut self, cutoff: i64) -> i64 {
        let cutoff = if self.generations.is_empty() { cutoff } else { cutoff.max(self.cutoff) };
        self.cutoff = cutoff;
        let mut series = HashMap::new();
        for (slot, entry) in self.entries.0.iter_mut().enumerate() {
            let Some(entry) = entry else { continue };
            let old = entry.part.split_before(cutoff);
            if !old.is_empty() {
                series.insert(slot as u32, (entry.labels.clone(), old));
            }
        }
        if !series.is_empty() {
            self.generations.push(Arc::new(Generation { series }));
        }
        cutoff
    }

    /// Oldest first.
    pub(crate) fn generations(&self) -> Vec<Arc<Generation>> {
        self.generations.clone()
    }

    /// Series without a live sample: number and stored id.
    pub(crate) fn idle(&self) -> Vec<(u32, i64)> {
        let slots = self.entries.0.iter().enumerate();
        slots.filter_map(|(slot, entry)| entry.as_ref().filter(|e| e.part.is_empty()).map(|e| (slot as u32, e.id))).collect()
    }

    /// Forgets what day files now hold, and these series.
    pub(crate) fn end_seal(&mut self, idle: &[(u32, i64)]) {
        self.generations.clear();
        let dead: HashSet<u32> = idle.iter().map(|(slot, _)| *slot).collect();
        self.by_id.retain(|slot| !dead.contains(slot));
        let mut gone = Vec::with_capacity(dead.len());
        for slot in &dead {
            if let Some(entry) = self.entries.0.get_mut(*slot as usize).and_then(Option::take) {
                self.finder.remove(*slot, &entry.labels);
                self.free.push(*slot);
                gone.push(entry.labels);
            }
        }
        self.postings.remove(&dead, gone.iter().map(|labels| &**labels));
    }

    /// Time of a series' newest live sample.
    pub(crate) fn newest(&self, slot: u32) -> Option<i64> {
        self.entries.get(slot)?.part.newest()
    }

    /// See [`Part::open_value`].
    pub(crate) fn open_value(&self, slot: u32, ts: i64) -> Option<f64> {
        self.entries.get(slot)?.part.open_value(ts)
    }

    /// What a series may have in `[t0, t1]`, oldest generation first.
    pub(crate) fn pieces(&self, slot: u32, t0: i64, t1: i64) -> Option<(Arc<Labels>, Vec<Piece>)> {
        let entry = self.entries.get(slot)?;
        let mut out = Vec::new();
        for generation in &self.generations {
            if let Some((_, part)) = generation.series.get(&slot) {
                part.pieces(t0, t1, &mut out);
            }
        }
        entry.part.pieces(t0, t1, &mut out);
        Some((entry.labels.clone(), out))
    }

    /// Labels of a series that has something in `[t0, t1]`.
    pub(crate) fn labels_in(&self, slot: u32, t0: i64, t1: i64) -> Option<&Arc<Labels>> {
        let entry = self.entries.get(slot)?;
        let sealing = || self.generations.iter().filter_map(|generation| generation.series.get(&slot));
        (entry.part.overlaps(t0, t1) || sealing().any(|(_, part)| part.overlaps(t0, t1))).then_some(&entry.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{chunk, part::merge},
        *,
    };
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the order of writes and seals, a read gives the value written last at each time.
        #[test]
        fn a_series_is_a_map_from_time_to_the_last_value(
            writes in proptest::collection::vec((0i64..2_000, any::<f64>(), proptest::bool::weighted(0.01)), 1..1_500),
            ascending in any::<bool>(),
        ) {
            let (mut head, mut model) = (Head::default(), BTreeMap::new());
            let slot = head.add_series(1, Arc::new(Labels::new([("a", "b")]).unwrap()));
            for (at, (ts, value, seal)) in writes.iter().enumerate() {
                let ts = (if ascending { *ts / 20 + at as i64 } else { *ts }) * 20_000;
                head.push(slot, ts, *value);
                model.insert(ts, value.to_bits());
                if *seal {
                    head.begin_seal(chunk::window_of(ts));
                }
            }
            for (t0, t1) in [(i64::MIN, i64::MAX), (5_000_000, 30_000_000), (20_000, 20_000)] {
                let (_, pieces) = head.pieces(slot, t0, t1).unwrap();
                let (ts, values) = merge(&pieces, t0, t1, &mut |reason| panic!("{reason}"));
                let read: Vec<(i64, u64)> = ts.into_iter().zip(values.iter().map(|v| v.to_bits())).collect();
                let expected: Vec<(i64, u64)> = model.range(t0..=t1).map(|(ts, bits)| (*ts, *bits)).collect();
                prop_assert!(expected.is_empty() || head.labels_in(slot, t0, t1).is_some());
                prop_assert_eq!(read, expected);
            }
        }
    }

    #[test]
    fn idle_series_leave_and_their_numbers_are_used_again() {
        let mut head = Head::default();
        let labels = |value: &str| Arc::new(Labels::new([("a", value)]).unwrap());
        let (x, y) = (head.add_series(1, labels("x")), head.add_series(2, labels("y")));
        head.push(x, 0, 1.0);
        head.push(y, chunk::WINDOW_MS, 1.0);
        head.begin_seal(chunk::WINDOW_MS);
        let idle = head.idle();
        assert_eq!(idle, [(x, 1)]);
        assert!(head.pieces(x, 0, 0).is_some_and(|(_, pieces)| pieces.len() == 1));
        head.end_seal(&idle);
        assert_eq!((head.series_count(), head.find(&labels("x"))), (1, None));
        assert_eq!(head.add_series(3, labels("z")), x);
        assert_eq!(head.find(&labels("z")), Some(Found { slot: x, id: 3, shared: false }));
    }

    #[test]
    fn labels_that_a_sender_keeps_are_found_by_their_address_as_long_as_their_series_is_there() {
        let mut head = Head::default();
        let labels = |value: usize| Arc::new(Labels::new([("a", value.to_string())]).unwrap());
        let held: Vec<_> = (0..100).map(labels).collect();
        for (at, labels) in held.iter().enumerate() {
            head.add_series(at as i64, labels.clone());
        }
        let again: Vec<_> = (0..100).map(labels).collect();
        for (slot, (first, second)) in (0u32..).zip(held.iter().zip(&again)) {
            let found = |shared| Some(Found { slot, id: slot.into(), shared });
            assert_eq!((head.find(first), head.find(second)), (found(true), found(false)));
            // What the head is asked to share must be equal.
            head.share(slot, labels(1_000));
            head.share(slot, second.clone());
            assert_eq!((head.find(first), head.find(second)), (found(false), found(true)));
        }
        // The head has let go of the first copies: only this test has them.
        assert!(held.iter().all(|labels| Arc::strong_count(labels) == 1));
        let idle = head.idle();
        head.end_seal(&idle[..50]);
        let is_found = |labels: &Arc<Labels>| head.find(labels).is_some_and(|found| found.shared);
        assert!(again[..50].iter().all(|labels| head.find(labels).is_none() && Arc::strong_count(labels) == 1));
        assert!(again[50..].iter().all(is_found));
        assert_eq!((head.series_count(), head.finder.sizes()), (50, [50, 50]));
    }
}
