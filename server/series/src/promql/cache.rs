//! Results of range queries that are kept, since a dashboard asks the same again with its window moved on by a step.
//!
//! - [`reach`]: which queries; [`splice`]: kept steps and new ones put together
//!
//! # Invariants
//! - An answer is what a full evaluation gives, to the bit, with its labels, warnings and infos: steps that later samples may
//!   have changed are evaluated again ([`Source::changed_since`](crate::Source::changed_since)), and what does not depend on each step alone is not kept.
//! - A cache belongs to one source.
//! - Memory is bounded: by bytes in all, and for one query by a part of them; what was not asked for longest goes first.
//!
//! # Left out
//! The bounds of a query count what it reads and computes, and what it takes from here, not what the kept part took when it was
//! computed: with a cache a query can be answered that without it is over `query_max_samples`.

mod reach;
mod splice;

pub(crate) use reach::Reach;
pub(crate) use splice::range;

use super::{EvalOptions, annotations::Notes, values::Column, values::Grid};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Of the bytes of the cache for one query: one panel shall not drive out all others.
const MOST_OF_ALL: usize = 4;

/// What an entry takes beside its values and labels, about.
const ENTRY_BYTES: usize = 512;
const COLUMN_BYTES: usize = 96;

/// What makes two queries ask for the same steps.
#[derive(Debug, Eq, Hash, PartialEq)]
struct Key {
    query: Box<str>,
    step: i64,
    /// Of the steps, within `step`.
    phase: i64,
    lookback: Duration,
    subquery_step: Duration,
    experimental: bool,
    summaries: bool,
}

impl Key {
    fn new(query: &str, grid: Grid, options: &EvalOptions) -> Self {
        Self {
            query: query.into(),
            step: grid.step,
            phase: grid.start.rem_euclid(grid.step),
            lookback: options.lookback,
            subquery_step: options.subquery_step,
            experimental: options.experimental,
            summaries: options.summaries,
        }
    }
}

/// The result at steps that follow each other; columns sorted by labels.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) grid: Grid,
    pub(crate) columns: Vec<Column>,
    pub(crate) warnings: Notes,
    pub(crate) infos: Notes,
}

impl Stretch {
    fn bytes(&self) -> usize {
        let labels = |column: &Column| column.labels.iter().map(|(name, value)| name.len() + value.len() + 8).sum::<usize>();
        let columns: usize = self.columns.iter().map(|column| labels(column) + COLUMN_BYTES + 8 * column.values.len()).sum();
        ENTRY_BYTES + columns + self.warnings.bytes() + self.infos.bytes()
    }
}

#[derive(Clone, Debug)]
struct Known {
    stretch: Arc<Stretch>,
    /// The number of the last change before it was computed.
    number: u64,
}

#[derive(Debug)]
struct Slot {
    known: Known,
    bytes: usize,
    used: u64,
}

#[derive(Debug, Default)]
struct Slots {
    by_key: HashMap<Arc<Key>, Slot>,
    /// By when they were used last.
    order: BTreeMap<u64, Arc<Key>>,
    clock: u64,
    bytes: usize,
}

impl Slots {
    fn remove(&mut self, key: &Key) {
        if let Some(slot) = self.by_key.remove(key) {
            self.order.remove(&slot.used);
            self.bytes -= slot.bytes;
        }
    }
}

/// See the module. Share it in an `Arc` ([`EvalOptions::cache`]).
#[derive(Debug)]
pub struct RangeCache {
    max_bytes: usize,
    slots: Mutex<Slots>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

/// Numbers about a cache. Totals count from its making.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CacheStats {
    /// Queries of which at least one step was taken from the cache.
    pub hits_total: u64,
    /// Queries that could be kept and of which no step was there.
    pub misses_total: u64,
    /// Results that made room for others.
    pub evictions_total: u64,
    /// Results that are kept.
    pub entries: u64,
    /// Bytes that they take, about.
    pub bytes: u64,
}

impl RangeCache {
    /// A cache that keeps at most so many bytes; with 0 it keeps nothing.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            slots: Mutex::default(),
            hits: AtomicU64::default(),
            misses: AtomicU64::default(),
            evictions: AtomicU64::default(),
        }
    }

    /// Numbers for `/metrics`.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let slots = self.lock();
        CacheStats {
            hits_total: self.hits.load(Relaxed),
            misses_total: self.misses.load(Relaxed),
            evictions_total: self.evictions.load(Relaxed),
            entries: slots.by_key.len() as u64,
            bytes: slots.bytes as u64,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        // A holder that panicked left the slots sound or a little too many bytes counted.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Option<Known> {
        let mut slots = self.lock();
        slots.clock += 1;
        let now = slots.clock;
        let slot = slots.by_key.get_mut(key)?;
        let (before, known) = (std::mem::replace(&mut slot.used, now), slot.known.clone());
        if let Some(key) = slots.order.remove(&before) {
            slots.order.insert(now, key);
        }
        Some(known)
    }

    fn put(&self, key: Key, stretch: Stretch, number: u64) {
        let bytes = stretch.bytes() + key.query.len();
        let mut slots = self.lock();
        slots.remove(&key);
        if bytes > self.max_bytes / MOST_OF_ALL {
            return;
        }
        while slots.bytes + bytes > self.max_bytes {
            let Some((_, oldest)) = slots.order.pop_first() else { break };
            slots.remove(&oldest);
            self.evictions.fetch_add(1, Relaxed);
        }
        slots.clock += 1;
        let (used, key) = (slots.clock, Arc::new(key));
        slots.order.insert(used, Arc::clone(&key));
        slots.bytes += bytes;
        slots.by_key.insert(key, Slot { known: Known { stretch: Arc::new(stretch), number }, bytes, used });
    }
}

#[cfg(test)]
mod tests;
