//! The lines around one line.

use super::{
    Query,
    plan::Plan,
    search::{Direction, LIMIT_MAX, Page, QueryStats, Search, run, select},
};
use crate::{
    Cursor, Entry, EntryId,
    entry::sort_in_file_order,
    error::{Error, Result},
    store::{
        Shared,
        block::Origin,
        day::{DAY_NS, Day},
        snapshot::Snapshot,
    },
};
use shipwatch_common::model::Labels;
use std::sync::Arc;

/// How far away in time lines still count as context.
const REACH_NS: i64 = 7 * DAY_NS;

pub(crate) fn context(shared: &Shared, id: EntryId, before: usize, after: usize) -> Result<Vec<Entry>> {
    if before.max(after) >= LIMIT_MAX {
        return Err(Error::Invalid(format!("lines of context must be fewer than {LIMIT_MAX} on each side")));
    }
    let Some((labels, origin)) = find(shared, id)? else { return Ok(Vec::new()) };
    let (start_ns, end_ns) = (id.ts_ns.saturating_sub(REACH_NS), id.ts_ns.saturating_add(REACH_NS));
    let mut plan = Plan::new(&Query::default(), start_ns, end_ns);
    plan.stream = Some((*labels).clone());
    plan.origin = (origin.file.0 != 0).then_some(origin);
    let side = |direction, cursor, limit| -> Result<Page> {
        let search = Search { start_ns, end_ns, limit, direction, cursor: Some(Cursor(cursor)), deadline: None };
        if limit == 0 { Ok(Page::default()) } else { run(shared, &plan, &search) }
    };
    let mut entries = side(Direction::Backward, id, before)?.entries;
    entries.reverse();
    // From just before the line on, so that the line itself comes with those after it.
    let just_before = match id.index.checked_sub(1) {
        Some(index) => EntryId { index, ..id },
        None => EntryId { batch: id.batch.saturating_sub(1), index: u32::MAX, ..id },
    };
    entries.append(&mut side(Direction::Forward, just_before, after + 1)?.entries);
    sort_in_file_order(&mut entries);
    Ok(entries)
}

/// The stream and the file of a line.
fn find(shared: &Shared, id: EntryId) -> Result<Option<(Arc<Labels>, Origin)>> {
    let plan = Plan::new(&Query::default(), id.ts_ns, id.ts_ns.saturating_add(1));
    let mut stats = QueryStats::default();
    let mut snapshot = Snapshot::take(shared)?;
    let (day, candidates) = snapshot.day(Day::of(id.ts_ns), &plan, &mut stats)?;
    let near = candidates.iter().filter(|candidate| (candidate.batches.0..=candidate.batches.1).contains(&id.batch));
    for candidate in near {
        let Some(columns) = day.columns(candidate, &mut stats) else { continue };
        let at = select(&columns, &plan).into_iter().find(|at| columns.ids.get(*at) == Some(&id));
        if let Some(origin) = at.and_then(|at| columns.origin(at)) {
            return Ok(Some((Arc::clone(&candidate.labels), origin.clone())));
        }
    }
    Ok(None)
}
