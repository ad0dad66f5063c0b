//! How many lines match over time, for the volume histogram above a search.
//!
//! # Invariants
//! - Counts are exact. Without a condition on the text, and with steps of whole minutes, no line is decompressed but where a
//!   block reaches over the edge of the range; then its columns are, not its text.

use super::{
    Query,
    plan::Plan,
    search::{QueryStats, check_range, matching, select},
};
use crate::{
    error::{Error, Result},
    store::{
        Shared,
        counts::MINUTE_NS,
        snapshot::{Candidate, DaySnapshot, Snapshot},
    },
};
use serde::{Serialize, Serializer};
use shipwatch_common::{model::Severity, time::UnixNs};
use std::{collections::BTreeMap, time::Instant};

/// Most steps in one answer.
const STEPS_MAX: i64 = 11_000;

/// What is asked for beside the query.
#[derive(Clone, Copy, Debug)]
pub struct CountBy {
    /// From this time on.
    pub start_ns: UnixNs,
    /// Until before this time.
    pub end_ns: UnixNs,
    /// Length of a step; steps begin at its multiples since the Unix epoch. At most 11,000 steps.
    pub step_ns: i64,
    /// Whether each severity is counted by itself.
    pub by_severity: bool,
    /// When to stop looking; `stats.incomplete` tells that it came.
    pub deadline: Option<Instant>,
}

/// Lines in one step.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Count {
    /// Begin of the step.
    #[serde(serialize_with = "as_text")]
    pub ts_ns: UnixNs,
    /// Which severity, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// How many.
    pub lines: u64,
}

fn as_text<S: Serializer>(ts_ns: &UnixNs, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(ts_ns)
}

/// Lines over time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Counts {
    /// By time, then severity; steps without lines are left out.
    pub counts: Vec<Count>,
    /// What it took.
    pub stats: QueryStats,
}

pub(crate) fn count_by(shared: &Shared, query: &Query, count: &CountBy) -> Result<Counts> {
    check_range(count.start_ns, count.end_ns)?;
    let steps = (count.end_ns.saturating_sub(count.start_ns)).checked_div(count.step_ns).unwrap_or(i64::MAX);
    if count.step_ns <= 0 || steps > STEPS_MAX {
        return Err(Error::Invalid(format!("step must be so long that there are at most {STEPS_MAX} of them, not {} ns", count.step_ns)));
    }
    let plan = Plan::new(query, count.start_ns, count.end_ns);
    let mut stats = QueryStats::default();
    let mut totals = Totals { step_ns: count.step_ns, by_severity: count.by_severity, lines: BTreeMap::new() };
    let mut snapshot = Snapshot::take(shared)?;
    'days: for day in snapshot.days(plan.start_ns, plan.last_ns)? {
        let (open, candidates) = snapshot.day(day, &plan, &mut stats)?;
        stats.blocks += candidates.len() as u64;
        for candidate in &candidates {
            if count.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                stats.incomplete = true;
                break 'days;
            }
            add(&open, candidate, &plan, &mut totals, &mut stats);
        }
    }
    let counts = totals.lines.into_iter().map(|((ts_ns, severity), lines)| Count { ts_ns, severity, lines }).collect();
    Ok(Counts { counts, stats })
}

struct Totals {
    step_ns: i64,
    by_severity: bool,
    lines: BTreeMap<(UnixNs, Option<Severity>), u64>,
}

impl Totals {
    fn add(&mut self, ts_ns: UnixNs, severity: Severity, lines: u64) {
        let step = ts_ns.saturating_sub(ts_ns.rem_euclid(self.step_ns));
        *self.lines.entry((step, self.by_severity.then_some(severity))).or_default() += lines;
    }
}

fn add(day: &DaySnapshot<'_>, candidate: &Candidate, plan: &Plan, totals: &mut Totals, stats: &mut QueryStats) {
    if plan.reads_text() {
        if let Some((lines, selected)) = matching(day, candidate, plan, stats, |_, _| true) {
            for at in selected {
                if let Some(id) = lines.columns.ids.get(at) {
                    totals.add(id.ts_ns, lines.columns.severity(at), 1);
                }
            }
        }
        return;
    }
    let inside = candidate.t0 >= plan.start_ns && candidate.t1 <= plan.last_ns;
    if inside
        && totals.step_ns % MINUTE_NS == 0
        && let Some(counts) = day.counts(candidate)
    {
        for (minute_ns, severity, lines) in counts.iter().filter(|(_, severity, _)| plan.severities & super::severity_bit(*severity) != 0) {
            totals.add(minute_ns, severity, lines);
        }
        return;
    }
    let Some(columns) = day.columns(candidate, stats) else { return };
    for at in select(&columns, plan) {
        if let Some(id) = columns.ids.get(at) {
            totals.add(id.ts_ns, columns.severity(at), 1);
        }
    }
}
