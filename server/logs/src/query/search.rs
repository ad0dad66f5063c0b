//! Pages of matching lines, newest or oldest first.
//!
//! Days are taken in order of time, and in a day the blocks in order of their nearer end. Each is decompressed, its matches
//! are offered to a bounded list of the best lines so far, and it is dropped. The work stops when no later block can have a
//! line that is better than the worst of a full list.
//!
//! # Invariants
//! - Memory: one decompressed block, the list (at most `limit` lines and 16 MiB), and the block headers of one day.
//! - A page is a stretch of the total order without a gap. `next` goes on where it ends, also after a deadline.

use super::{Query, best::Best, plan::Plan};
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
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Most lines on a page.
pub(crate) const LIMIT_MAX: usize = 5_000;
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
    /// Lines in it.
    pub lines_read: u64,
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
    let patience = Patience { deadline: search.deadline, canceled: None };
    let found = run_with(shared, plan, search, &patience, entry)?;
    Ok(Page { entries: found.items, next: found.next, stats: found.stats })
}

/// What becomes of a matching line; `None` leaves it out.
pub(crate) trait Ranked {
    /// Its place in the order of all lines.
    fn id(&self) -> EntryId;
    /// About what it takes in memory.
    fn weight(&self) -> usize;
}

impl Ranked for Entry {
    fn id(&self) -> EntryId {
        self.id
    }

    fn weight(&self) -> usize {
        Self::weight(self)
    }
}

/// Some of what was made of matching lines, as [`Page`].
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<Cursor>,
    pub(crate) stats: QueryStats,
}

/// How long an answer is waited for.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    /// Until then.
    pub deadline: Option<Instant>,
    /// And while this is not set.
    pub canceled: Option<Arc<AtomicBool>>,
}

impl Patience {
    pub(crate) fn is_canceled(&self) -> bool {
        self.canceled.as_ref().is_some_and(|canceled| canceled.load(Ordering::Relaxed))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_canceled() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// A page of what `make` makes of the matching lines.
pub(crate) fn run_with<T: Ranked>(
    shared: &Shared,
    plan: &Plan,
    search: &Search,
    patience: &Patience,
    mut make: impl FnMut(&Lines, usize, &Candidate) -> Option<T>,
) -> Result<Found<T>> {
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
        return Ok(best.page(false, stats));
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
            if looked && patience.is_over() {
                stats.incomplete = true;
                return Ok(best.cut(nearest, stats));
            }
            looked = true;
            offer(&open, candidate, &plan, &mut best, &mut stats, &mut make);
        }
    }
    Ok(best.page(false, stats))
}

/// Gives the matching lines of one block to the list.
fn offer<T: Ranked>(
    day: &DaySnapshot<'_>,
    candidate: &Candidate,
    plan: &Plan,
    best: &mut Best<T>,
    stats: &mut QueryStats,
    make: &mut impl FnMut(&Lines, usize, &Candidate) -> Option<T>,
) {
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
        if !id(&at).is_some_and(|id| best.admits(id)) {
            break;
        }
        if let Some(item) = make(&lines, at, candidate) {
            best.insert(item);
        }
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
    stats.lines_read += lines.columns.len() as u64;
    plan.keep_matching(&lines, &mut selected);
    Some((lines, selected))
}

/// The lines that match as far as the columns tell.
pub(crate) fn select(columns: &Columns, plan: &Plan) -> Vec<usize> {
    let of_file = |at| plan.origin.as_ref().is_none_or(|origin| columns.origin(at) == Some(origin));
    let wanted = |at: usize| columns.ids.get(at).is_some_and(|id| plan.wants(id.ts_ns, columns.severity(at)));
    (0..columns.len()).filter(|at| wanted(*at) && of_file(*at)).collect()
}
