//! Which streams there are.

use super::{
    Query,
    plan::Plan,
    search::{QueryStats, check_range},
};
use crate::{
    error::Result,
    store::{Shared, snapshot::Snapshot},
};
use shipwatch_common::{model::Labels, time::UnixNs};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

/// Most streams, names or values in one answer.
const LISTED_MAX: usize = 10_000;

/// Calls `found` for the streams of each day in range, until it says that it is enough.
fn each(shared: &Shared, query: &Query, start_ns: UnixNs, end_ns: UnixNs, mut found: impl FnMut(&Arc<Labels>) -> bool) -> Result<()> {
    check_range(start_ns, end_ns)?;
    let plan = Plan::without_blocks(query, start_ns, end_ns);
    let mut snapshot = Snapshot::take(shared)?;
    for day in snapshot.days(plan.start_ns, plan.last_ns)? {
        let (day, rows) = snapshot.day(day, &plan, &mut QueryStats::default())?;
        if !day.streams.iter().chain(rows.iter().map(|row| &row.labels)).all(&mut found) {
            break;
        }
    }
    Ok(())
}

pub(crate) fn labels(shared: &Shared, start_ns: UnixNs, end_ns: UnixNs) -> Result<Vec<String>> {
    let mut names = BTreeSet::new();
    each(shared, &Query::default(), start_ns, end_ns, |labels| {
        names.extend(labels.iter().map(|(name, _)| name.to_owned()));
        names.len() < LISTED_MAX
    })?;
    Ok(names.into_iter().collect())
}

pub(crate) fn label_values(shared: &Shared, name: &str, start_ns: UnixNs, end_ns: UnixNs) -> Result<Vec<String>> {
    let mut values = BTreeSet::new();
    each(shared, &Query::default(), start_ns, end_ns, |labels| {
        values.extend(labels.get(name).map(str::to_owned));
        values.len() < LISTED_MAX
    })?;
    Ok(values.into_iter().collect())
}

pub(crate) fn streams(shared: &Shared, query: &Query, start_ns: UnixNs, end_ns: UnixNs) -> Result<Vec<Arc<Labels>>> {
    let mut streams = HashSet::new();
    each(shared, query, start_ns, end_ns, |labels| {
        streams.insert(Arc::clone(labels));
        streams.len() < LISTED_MAX
    })?;
    let mut streams: Vec<_> = streams.into_iter().collect();
    streams.sort_unstable();
    Ok(streams)
}
