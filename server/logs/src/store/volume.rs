//! How much is stored of what: lines and bytes by some of the streams' labels.
//!
//! Read from the totals that each day keeps of its streams and from the rows of the head; no line is read. Groups beyond the bound are
//! left out, the smallest first, and that is told.

use super::{Shared, snapshot::Snapshot};
use crate::{
    error::{Error, Result},
    query::{Query, plan::Plan, search::QueryStats},
};
use serde::Serialize;
use shipwatch_common::{model::Labels, time::UnixNs};
use std::collections::HashMap;

/// Labels that streams are told apart by unless others are asked for.
pub const VOLUME_LABELS: [&str; 5] = ["host", "app", "env", "source", "filename"];
/// Most groups in an answer.
const GROUPS_MAX: usize = 10_000;

/// What is stored of the streams that share some labels.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Volume {
    /// The labels that they share, of those asked for.
    pub labels: Labels,
    /// Streams.
    pub streams: u64,
    /// Lines stored now.
    pub lines: u64,
    /// Their text with 16 bytes for each line.
    pub raw_bytes: u64,
    /// Size of their blocks on disk; what is not sealed is not in it.
    pub stored_bytes: u64,
    /// Lines that were damaged before they were sealed.
    pub lost_lines: u64,
}

/// Volumes of a range of days.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Volumes {
    /// The largest text first.
    pub volumes: Vec<Volume>,
    /// Groups that were left out.
    pub left_out: usize,
}

pub(crate) fn volumes(shared: &Shared, by: &[String], query: &Query, start_ns: UnixNs, end_ns: UnixNs) -> Result<Volumes> {
    crate::query::search::check_range(start_ns, end_ns)?;
    if query.has_conditions() {
        return Err(Error::Invalid("volumes are told of whole streams; ask with labels only".to_owned()));
    }
    let plan = Plan::without_blocks(query, start_ns, end_ns);
    let mut streams: HashMap<Labels, Volume> = HashMap::new();
    let mut snapshot = Snapshot::take(shared)?;
    for day in snapshot.days(plan.start_ns, plan.last_ns)? {
        let (open, rows) = snapshot.day(day, &plan, &mut QueryStats::default())?;
        for row in rows {
            let stream = streams.entry((*row.labels).clone()).or_default();
            stream.lines += row.n;
            stream.raw_bytes += row.raw_bytes;
        }
        for part in open.volumes()? {
            let labels: Labels = serde_json::from_str(&part.labels).unwrap_or_default();
            if plan.selects(&labels) && part.blocks + part.lost_lines > 0 {
                let stream = streams.entry(labels).or_default();
                stream.lines += part.lines;
                stream.raw_bytes += part.raw_bytes;
                stream.stored_bytes += part.stored_bytes;
                stream.lost_lines += part.lost_lines;
            }
        }
    }
    Ok(grouped(streams, by))
}

fn grouped(streams: HashMap<Labels, Volume>, by: &[String]) -> Volumes {
    let mut groups: HashMap<Labels, Volume> = HashMap::new();
    for (labels, stream) in streams {
        let shared = labels.iter().filter(|(name, _)| by.iter().any(|wanted| wanted == name));
        let key = Labels::new(shared).unwrap_or_default();
        let group = groups.entry(key).or_default();
        group.streams += 1;
        group.lines += stream.lines;
        group.raw_bytes += stream.raw_bytes;
        group.stored_bytes += stream.stored_bytes;
        group.lost_lines += stream.lost_lines;
    }
    let mut volumes: Vec<Volume> = groups.into_iter().map(|(labels, volume)| Volume { labels, ..volume }).collect();
    volumes.sort_unstable_by(|a, b| (b.raw_bytes, &a.labels).cmp(&(a.raw_bytes, &b.labels)));
    let left_out = volumes.len().saturating_sub(GROUPS_MAX);
    volumes.truncate(GROUPS_MAX);
    Volumes { volumes, left_out }
}
