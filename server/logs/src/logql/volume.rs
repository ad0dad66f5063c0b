//! How much there is of a selection, told by the headers of blocks where they lie in the range.

use super::{
    Expression,
    ast::{Aggregate, AggregateOp, Expr, Grouping, Metric, Pipeline, Range, RangeOp},
    record::LEVEL,
};
use crate::{
    Query,
    error::{Error, Result},
    query::{
        plan::Plan,
        search::{Patience, QueryStats, check_range, select},
    },
    store::{Shared, snapshot::Snapshot},
};
use shipwatch_common::time::UnixNs;
use std::collections::HashSet;

/// Totals of a selection.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Volume {
    /// Streams with lines.
    pub streams: u64,
    /// Blocks and batches.
    pub blocks: u64,
    /// Lines.
    pub lines: u64,
    /// Their text.
    pub bytes: u64,
}

pub(super) fn volume(shared: &Shared, query: &Query, start_ns: UnixNs, end_ns: UnixNs, patience: &Patience) -> Result<Volume> {
    check_range(start_ns, end_ns)?;
    let plan = Plan::new(query, start_ns, end_ns);
    let mut stats = QueryStats::default();
    let mut total = Volume::default();
    let mut streams = HashSet::new();
    let mut snapshot = Snapshot::take(shared)?;
    for day in snapshot.days(plan.start_ns, plan.last_ns)? {
        let (open, candidates) = snapshot.day(day, &plan, &mut stats)?;
        for candidate in &candidates {
            if patience.is_over() {
                return Err(if patience.is_canceled() { Error::Canceled } else { Error::TimedOut });
            }
            let (lines, bytes) = if candidate.t0 >= plan.start_ns && candidate.t1 <= plan.last_ns {
                (candidate.n, candidate.text_bytes())
            } else {
                let Some(columns) = open.columns(candidate, &mut stats) else { continue };
                let selected = select(&columns, &plan);
                (selected.len() as u64, selected.iter().map(|at| columns.span(*at).len() as u64).sum())
            };
            if lines > 0 {
                streams.insert(candidate.labels.clone());
                total.blocks += 1;
                total.lines += lines;
                total.bytes += bytes;
            }
        }
    }
    total.streams = streams.len() as u64;
    Ok(total)
}

impl Expression {
    /// The bytes of a selection over a range: by some labels, or by all labels of the streams.
    #[must_use]
    pub fn volume(query: &Query, by: Option<Vec<String>>, range_ns: i64) -> Self {
        let grouping = match by {
            Some(names) => Grouping { without: false, names },
            None => Grouping { without: true, names: vec![LEVEL.to_owned()] },
        };
        let pipeline = Pipeline { matchers: query.matchers().to_vec(), stages: Vec::new() };
        let range = Range { op: RangeOp::BytesOverTime, pipeline, unwrap: None, range_ns: range_ns.max(1), offset_ns: 0, grouping: None };
        let inner = Metric::Range(Box::new(range));
        Self(Expr::Metric(Metric::Aggregate(Box::new(Aggregate { op: AggregateOp::Sum, grouping: Some(grouping), inner }))))
    }
}
