//! Pages of matching lines, newest or oldest first.
//!
//! Days are taken in order of time, and in a day the blocks in order of their nearer end. Each is decompressed, its matches
//! are offered to a bounded list of the best lines so far, and it is dropped. The work stops when no later block can have a
//! line that is better than the worst of a full list.
//!
//! # Invariants
//! - Memory: one decompressed block, the list (at most `limit` lines and [`PAGE_BYTES`]), and the block headers of one day.
//! - A page is a stretch of the total order without a gap. `next` goes on where it ends, also after a deadline.

use super::{Query, plan::Plan};
use crate::{
    Cursor, Entry, EntryId,
    error::{Error, Result},
    store::{
        Shared,
        block::{Columns, Lines},
        snapshot::{Candidate, DaySnapshot, Snapshot},
    },
};
use serde::Serialize;
use shipwatch_common::time::UnixNs;
use std::{collections::BTreeMap, time::Instant};

/// Most lines on a page.
pub(crate) const LIMIT_MAX: usize = 5_000;
/// Text on a page above which it ends early.
const PAGE_BYTES: usize = 16 << 20;
/// Damaged places named in one answer; the rest is only counted.
const DAMAGE_NAMED: usize = 8;

/// Which end of the range comes first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Direction {
    /// Newest first.
    #[default]
    Backward,
    /// Oldest first.
    Forward,
}

/// What is asked for beside the query.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// From this time on.
    pub start_ns: UnixNs,
    /// Until before this time.
    pub end_ns: UnixNs,
    /// Most lines on the page, 1 to 5000.
    pub limit: usize,
    /// Order.
    pub direction: Direction,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
    /// When to stop looking. The page then has what is certain, and `next` goes on.
    pub deadline: Option<Instant>,
}

/// Some of the matching lines.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Page {
    /// In the order asked for.
    pub entries: Vec<Entry>,
    /// Where the next page begins; nothing when there is no more.
    pub next: Option<Cursor>,
    /// What it took.
    pub stats: QueryStats,
}

/// What an answer took, and what it lacks.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct QueryStats {
    /// Blocks and batches in range of the query.
    pub blocks: u64,
    /// Of these, those that their filter of words ruled out.
    pub blocks_denied: u64,
    /// Of these, those that were decompressed.
    pub blocks_read: u64,
    /// Text that was decompressed.
    pub bytes_read: u64,
    /// Blocks and batches that could not be read.
    pub lost_blocks: u64,
    /// Lines in them.
    pub lost_lines: u64,
    /// Filters of words that could not be read; their blocks were read instead.
    pub damaged_filters: u64,
    /// The first damaged places.
    pub damage: Vec<String>,
    /// Whether the deadline came first.
    pub incomplete: bool,
}

impl QueryStats {
    pub(crate) fn note_damage(&mut self, error: &Error) {
        if self.damage.len() < DAMAGE_NAMED {
            self.damage.push(error.to_string());
        }
    }
}

pub(crate) fn search(shared: &Shared, query: &Query, search: &Search) -> Result<Page> {
    run(shared, &Plan::new(query, search.start_ns, search.end_ns), search)
}

/// Checks a range of time.
pub(crate) fn check_range(start_ns: UnixNs, end_ns: UnixNs) -> Result<()> {
    if start_ns < end_ns {
        Ok(())
    } else {
        Err(Error::Invalid(format!("the range of time is empty: start {start_ns} is not before end {end_ns}")))
    }
}

pub(crate) fn run(shared: &Shared, plan: &Plan, search: &Search) -> Result<Page> {
    check_range(search.start_ns, search.end_ns)?;
    if !(1..=LIMIT_MAX).contains(&search.limit) {
        return Err(Error::Invalid(format!("limit must be between 1 and {LIMIT_MAX}, not {}", search.limit)));
    }
    let mut stats = QueryStats::default();
    let mut best = Best::new(search);
    let mut plan = plan.clone();
    // What lies before the cursor need not be looked at.
    match (search.direction, search.cursor) {
        (Direction::Backward, Some(Cursor(id))) => plan.last_ns = plan.last_ns.min(id.ts_ns),
        (Direction::Forward, Some(Cursor(id))) => plan.start_ns = plan.start_ns.max(id.ts_ns),
        (_, None) => {}
    }
    if plan.start_ns > plan.last_ns {
        return Ok(Page::default());
    }
    let mut snapshot = Snapshot::take(shared)?;
    let mut days: Vec<_> = snapshot.days(plan.start_ns, plan.last_ns)?.into_iter().collect();
    if search.direction == Direction::Backward {
        days.reverse();
    }
    let mut looked = false;
    for day in days {
        let nearest = if search.direction == Direction::Backward { day.last_ns() } else { day.start_ns() };
        if best.is_done(nearest) {
            return Ok(best.page(true, stats));
        }
        let (open, mut candidates) = snapshot.day(day, &plan, &mut stats)?;
        stats.blocks += candidates.len() as u64;
        match search.direction {
            Direction::Backward => candidates.sort_unstable_by_key(|candidate| std::cmp::Reverse(candidate.t1)),
            Direction::Forward => candidates.sort_unstable_by_key(|candidate| candidate.t0),
        }
        for candidate in &candidates {
            let nearest = best.nearest(candidate);
            if best.is_done(nearest) {
                return Ok(best.page(true, stats));
            }
            // At least one block is looked at, so that page by page there is an end.
            if looked && search.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                stats.incomplete = true;
                return Ok(best.cut(nearest, stats));
            }
            looked = true;
            offer(&open, candidate, &plan, &mut best, &mut stats);
        }
    }
    Ok(best.page(false, stats))
}

/// Gives the matching lines of one block to the list.
fn offer(day: &DaySnapshot<'_>, candidate: &Candidate, plan: &Plan, best: &mut Best, stats: &mut QueryStats) {
    let Some((lines, mut selected)) =
        matching(day, candidate, plan, stats, |columns, at| columns.ids.get(at).is_some_and(|id| best.admits(*id)))
    else {
        return;
    };
    let id = |at: &usize| lines.columns.ids.get(*at).copied();
    match best.direction {
        Direction::Backward => selected.sort_unstable_by_key(|at| std::cmp::Reverse(id(at))),
        Direction::Forward => selected.sort_unstable_by_key(id),
    }
    for at in selected {
        // The others are worse still.
        let Some(entry) = entry(&lines, at, candidate).filter(|entry| best.admits(entry.id)) else { break };
        best.insert(entry);
    }
}

fn entry(lines: &Lines, at: usize, candidate: &Candidate) -> Option<Entry> {
    let origin = lines.columns.origin(at)?;
    Some(Entry {
        id: *lines.columns.ids.get(at)?,
        labels: candidate.labels.clone(),
        severity: lines.columns.severity(at),
        text: lines.text(at).to_owned(),
        truncated: lines.columns.truncated(at),
        agent: origin.agent.clone(),
        file: origin.file,
        end_offset: *lines.columns.end_offsets.get(at)?,
    })
}

/// The lines of one block that match the plan and `admitted`. The text is decompressed only when a line is left without it.
pub(crate) fn matching(
    day: &DaySnapshot<'_>,
    candidate: &Candidate,
    plan: &Plan,
    stats: &mut QueryStats,
    admitted: impl Fn(&Columns, usize) -> bool,
) -> Option<(Lines, Vec<usize>)> {
    if day.is_denied(candidate, plan, stats) {
        stats.blocks_denied += 1;
        return None;
    }
    let columns = day.columns(candidate, stats)?;
    let mut selected = select(&columns, plan);
    selected.retain(|at| admitted(&columns, *at));
    if selected.is_empty() {
        return None;
    }
    let lines = day.lines_where(candidate, columns, &plan.gates, &mut selected, stats)?;
    stats.blocks_read += 1;
    stats.bytes_read += lines.body.len() as u64;
    plan.keep_matching(&lines, &mut selected);
    Some((lines, selected))
}

/// The lines that match as far as the columns tell.
pub(crate) fn select(columns: &Columns, plan: &Plan) -> Vec<usize> {
    let of_file = |at| plan.origin.as_ref().is_none_or(|origin| columns.origin(at) == Some(origin));
    let wanted = |at: usize| columns.ids.get(at).is_some_and(|id| plan.wants(id.ts_ns, columns.severity(at)));
    (0..columns.len()).filter(|at| wanted(*at) && of_file(*at)).collect()
}

/// The best lines so far.
struct Best {
    direction: Direction,
    limit: usize,
    after: Option<EntryId>,
    entries: BTreeMap<EntryId, Entry>,
    bytes: usize,
    /// The best line that had to be left out: nothing as bad may come in, or there would be a gap.
    left_out: Option<EntryId>,
}

impl Best {
    fn new(search: &Search) -> Self {
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

    fn admits(&self, id: EntryId) -> bool {
        self.after.is_none_or(|after| self.is_better(after, id)) && self.left_out.is_none_or(|bound| self.is_better(id, bound))
    }

    fn insert(&mut self, entry: Entry) {
        self.bytes += entry.weight();
        self.entries.insert(entry.id, entry);
        while self.entries.len() > self.limit || (self.bytes > PAGE_BYTES && self.entries.len() > 1) {
            let worst = if self.direction == Direction::Backward { self.entries.pop_first() } else { self.entries.pop_last() };
            let Some((id, entry)) = worst else { return };
            self.bytes -= entry.weight();
            self.left_out = Some(id);
        }
    }

    /// The time of a block's end at which the search meets it.
    const fn nearest(&self, candidate: &Candidate) -> UnixNs {
        match self.direction {
            Direction::Backward => candidate.t1,
            Direction::Forward => candidate.t0,
        }
    }

    /// Whether lines from this time on cannot come on the page any more.
    fn is_done(&self, nearest: UnixNs) -> bool {
        let full = if self.entries.len() >= self.limit { self.worst() } else { self.left_out };
        full.is_some_and(|bound| match self.direction {
            Direction::Backward => nearest < bound.ts_ns,
            Direction::Forward => nearest > bound.ts_ns,
        })
    }

    fn page(self, stopped: bool, stats: QueryStats) -> Page {
        let next = if stopped || self.left_out.is_some() { self.worst().map(Cursor) } else { None };
        Page { entries: self.ordered(), next, stats }
    }

    /// Ends before `nearest`: from there on, blocks were not looked at.
    fn cut(mut self, nearest: UnixNs, stats: QueryStats) -> Page {
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
        Page { entries: self.ordered(), next: Some(Cursor(bound)), stats }
    }

    fn ordered(self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.entries.into_values().collect();
        if self.direction == Direction::Backward {
            entries.reverse();
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn best(limit: usize, direction: Direction) -> Best {
        Best::new(&Search { start_ns: 0, end_ns: 100, limit, direction, cursor: None, deadline: None })
    }

    fn times(page: &Page) -> Vec<i64> {
        page.entries.iter().map(Entry::ts_ns).collect()
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
