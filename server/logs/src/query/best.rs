//! A bounded list of the best lines so far.
//!
//! # Invariants
//! - What is in the list is a stretch of the order of all lines that were offered, without a gap: once a line had to be left
//!   out, nothing as bad comes in.

use super::search::{Direction, Found, QueryStats, Ranked, Search};
use crate::{Cursor, EntryId, store::snapshot::Candidate};
use shipwatch_common::time::UnixNs;
use std::collections::BTreeMap;

/// Text on a page above which it ends early.
const PAGE_BYTES: usize = 16 << 20;
/// The best lines so far.
pub(super) struct Best<T> {
    pub(super) direction: Direction,
    limit: usize,
    after: Option<EntryId>,
    entries: BTreeMap<EntryId, T>,
    bytes: usize,
    /// The best line that had to be left out: nothing as bad may come in, or there would be a gap.
    left_out: Option<EntryId>,
}

impl<T: Ranked> Best<T> {
    pub(super) fn new(search: &Search) -> Self {
        let after = search.cursor.map(|cursor| cursor.0);
        Self { direction: search.direction, limit: search.limit, after, entries: BTreeMap::new(), bytes: 0, left_out: None }
    }

    /// Whether `a` comes before `b` on the page.
    fn is_better(&self, a: EntryId, b: EntryId) -> bool {
        match self.direction {
            Direction::Backward => a > b,
            Direction::Forward => a < b,
        }
    }

    fn worst(&self) -> Option<EntryId> {
        let (first, last) = (self.entries.keys().next(), self.entries.keys().next_back());
        if self.direction == Direction::Backward { first.copied() } else { last.copied() }
    }

    pub(super) fn admits(&self, id: EntryId) -> bool {
        self.after.is_none_or(|after| self.is_better(after, id)) && self.left_out.is_none_or(|bound| self.is_better(id, bound))
    }

    pub(super) fn insert(&mut self, entry: T) {
        self.bytes += entry.weight();
        self.entries.insert(entry.id(), entry);
        while self.entries.len() > self.limit || (self.bytes > PAGE_BYTES && self.entries.len() > 1) {
            let worst = if self.direction == Direction::Backward { self.entries.pop_first() } else { self.entries.pop_last() };
            let Some((id, entry)) = worst else { return };
            self.bytes -= entry.weight();
            self.left_out = Some(id);
        }
    }

    /// The time of a block's end at which the search meets it.
    pub(super) const fn nearest(&self, candidate: &Candidate) -> UnixNs {
        match self.direction {
            Direction::Backward => candidate.t1,
            Direction::Forward => candidate.t0,
        }
    }

    /// Whether lines from this time on cannot come on the page any more.
    pub(super) fn is_done(&self, nearest: UnixNs) -> bool {
        let full = if self.entries.len() >= self.limit { self.worst() } else { self.left_out };
        full.is_some_and(|bound| match self.direction {
            Direction::Backward => nearest < bound.ts_ns,
            Direction::Forward => nearest > bound.ts_ns,
        })
    }

    pub(super) fn page(self, stopped: bool, stats: QueryStats) -> Found<T> {
        let next = if stopped || self.left_out.is_some() { self.worst().map(Cursor) } else { None };
        Found { items: self.ordered(), next, stats }
    }

    /// Ends before `nearest`: from there on, blocks were not looked at.
    pub(super) fn cut(mut self, nearest: UnixNs, stats: QueryStats) -> Found<T> {
        let bound = match self.direction {
            Direction::Backward => EntryId { ts_ns: nearest, batch: u64::MAX, index: u32::MAX },
            Direction::Forward => EntryId { ts_ns: nearest, batch: 0, index: 0 },
        };
        // A block that reaches over the cursor must not bring the search back before it.
        let bound = self.after.filter(|after| self.is_better(bound, *after)).unwrap_or(bound);
        let (direction, before) = (self.direction, bound.ts_ns);
        self.entries.retain(|id, _| match direction {
            Direction::Backward => id.ts_ns > before,
            Direction::Forward => id.ts_ns < before,
        });
        Found { items: self.ordered(), next: Some(Cursor(bound)), stats }
    }

    fn ordered(self) -> Vec<T> {
        let mut entries: Vec<T> = self.entries.into_values().collect();
        if self.direction == Direction::Backward {
            entries.reverse();
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Entry;

    fn entry(ts_ns: i64, text: String) -> Entry {
        Entry {
            id: EntryId { ts_ns, batch: 1, index: 0 },
            labels: Default::default(),
            severity: Default::default(),
            text,
            truncated: false,
            agent: "".into(),
            file: shipwatch_common::model::FileId(0),
            end_offset: 0,
        }
    }

    fn best(limit: usize, direction: Direction) -> Best<Entry> {
        Best::new(&Search { start_ns: 0, end_ns: 100, limit, direction, cursor: None, deadline: None })
    }

    fn times(page: &Found<Entry>) -> Vec<i64> {
        page.items.iter().map(Entry::ts_ns).collect()
    }

    #[test]
    fn a_page_is_bounded_by_bytes_without_a_gap() {
        let big = "x".repeat(PAGE_BYTES / 3);
        let mut list = best(10, Direction::Backward);
        for ts in [5, 9, 7, 8] {
            list.insert(entry(ts, big.clone()));
        }
        // 7 was left out for its size, so the small 6 may not come in either.
        assert!(!list.admits(EntryId { ts_ns: 6, batch: 1, index: 0 }));
        assert!(list.is_done(6) && !list.is_done(8));
        let page = list.page(false, QueryStats::default());
        assert_eq!(times(&page), [9, 8]);
        assert_eq!(page.next, Some(Cursor(EntryId { ts_ns: 8, batch: 1, index: 0 })));
    }

    #[test]
    fn a_page_that_is_cut_has_only_what_is_certain() {
        let mut list = best(10, Direction::Forward);
        for ts in [1, 3, 5] {
            list.insert(entry(ts, String::new()));
        }
        let page = list.cut(3, QueryStats::default());
        assert_eq!(times(&page), [1]);
        assert_eq!(page.next, Some(Cursor(EntryId { ts_ns: 3, batch: 0, index: 0 })));

        let mut list = best(10, Direction::Backward);
        list.after = Some(EntryId { ts_ns: 4, batch: 2, index: 7 });
        let page = {
            list.insert(entry(2, String::new()));
            list.cut(9, QueryStats::default())
        };
        assert_eq!((times(&page), page.next), (vec![], Some(Cursor(EntryId { ts_ns: 4, batch: 2, index: 7 }))));
    }
}
