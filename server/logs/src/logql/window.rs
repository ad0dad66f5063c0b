//! Values of lines, gathered into the windows of a range function: for each step of a query, the window `(t - range, t]`.
//!
//! # Invariants
//! - Lines may come in any order. Lines that are in the same windows share one [`Acc`], so memory grows with the windows, not with
//!   the lines; quantiles keep every value.
//! - Windows that overlap are not summed again and again: a queue of two stacks moves over the steps. It only merges, it
//!   never subtracts, so no digits are lost.

use super::ast::RangeOp;
use crate::EntryId;
use shipwatch_common::time::UnixNs;
use std::collections::{BTreeMap, VecDeque};

/// The times at which a query is evaluated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) start_ns: UnixNs,
    pub(crate) step_ns: i64,
    /// How many times; at least one.
    pub(crate) steps: usize,
}

impl Grid {
    pub(crate) fn time(&self, step: usize) -> UnixNs {
        let away = self.step_ns.saturating_mul(i64::try_from(step).unwrap_or(i64::MAX));
        self.start_ns.saturating_add(away)
    }

    pub(crate) fn last_ns(&self) -> UnixNs {
        self.time(self.steps.saturating_sub(1))
    }
}

/// A range function's windows on the grid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) grid: Grid,
    pub(crate) range_ns: i64,
    pub(crate) offset_ns: i64,
}

/// First and last window that a line is in.
pub(crate) type Span = (u32, u32);

impl Windows {
    /// All windows that have a time.
    pub(crate) fn of(&self, ts_ns: UnixNs) -> Option<Span> {
        let step = i128::from(self.grid.step_ns.max(1));
        let away = i128::from(ts_ns) + i128::from(self.offset_ns) - i128::from(self.grid.start_ns);
        let first = (away + step - 1).div_euclid(step).max(0);
        let last = (away + i128::from(self.range_ns) - 1).div_euclid(step).min(self.grid.steps as i128 - 1);
        if first > last { None } else { Some((u32::try_from(first).ok()?, u32::try_from(last).ok()?)) }
    }

    /// Whether every time between two is in the same windows, and in which.
    pub(crate) fn of_both(&self, first_ns: UnixNs, last_ns: UnixNs) -> Option<Option<Span>> {
        let (first, last) = (self.of(first_ns), self.of(last_ns));
        // Two times outside of all windows may have windows between them, and in gaps between short windows as well.
        (first == last && (first.is_some() || self.before_or_after(first_ns, last_ns))).then_some(first)
    }

    fn before_or_after(&self, first_ns: UnixNs, last_ns: UnixNs) -> bool {
        last_ns < self.first_ns() || first_ns > self.last_ns()
    }

    /// Time of the earliest line in a window.
    pub(crate) fn first_ns(&self) -> UnixNs {
        self.grid.start_ns.saturating_sub(self.offset_ns).saturating_sub(self.range_ns).saturating_add(1)
    }

    /// Time of the latest.
    pub(crate) fn last_ns(&self) -> UnixNs {
        self.grid.last_ns().saturating_sub(self.offset_ns)
    }
}

/// What is known of some lines' values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Acc {
    /// Also a number of bytes.
    Count(u64),
    Sum(f64),
    Min(f64),
    Max(f64),
    Mean {
        n: f64,
        mean: f64,
    },
    Moments {
        n: f64,
        mean: f64,
        squares: f64,
    },
    First(EntryId, f64),
    Last(EntryId, f64),
    Values(Vec<f64>),
}

impl Acc {
    /// Of one line.
    pub(crate) fn of(op: RangeOp, unwrapped: bool, id: EntryId, value: f64) -> Self {
        match op {
            RangeOp::Rate if unwrapped => Self::Sum(value),
            RangeOp::Count | RangeOp::Rate | RangeOp::BytesOverTime | RangeOp::BytesRate | RangeOp::Absent => Self::Count(value as u64),
            RangeOp::Sum => Self::Sum(value),
            RangeOp::Avg => Self::Mean { n: 1.0, mean: value },
            RangeOp::Min => Self::Min(value),
            RangeOp::Max => Self::Max(value),
            RangeOp::First => Self::First(id, value),
            RangeOp::Last => Self::Last(id, value),
            RangeOp::StdDev | RangeOp::StdVar => Self::Moments { n: 1.0, mean: value, squares: 0.0 },
            RangeOp::Quantile(_) => Self::Values(vec![value]),
        }
    }

    /// Adds another of the same kind.
    pub(crate) fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => *a = a.saturating_add(*b),
            (Self::Sum(a), Self::Sum(b)) => *a += b,
            (Self::Min(a), Self::Min(b)) => *a = if *b < *a || a.is_nan() { *b } else { *a },
            (Self::Max(a), Self::Max(b)) => *a = if *b > *a || a.is_nan() { *b } else { *a },
            (Self::Mean { n, mean }, Self::Mean { n: m, mean: other }) => {
                *mean += (other - *mean) * m / (*n + m);
                *n += m;
            }
            (Self::Moments { n, mean, squares }, Self::Moments { n: m, mean: other, squares: more }) => {
                let (away, total) = (other - *mean, *n + m);
                *squares += more + away * away * *n * m / total;
                *mean += away * m / total;
                *n = total;
            }
            (Self::First(id, value), Self::First(other, found)) if other < id => (*id, *value) = (*other, *found),
            (Self::Last(id, value), Self::Last(other, found)) if other > id => (*id, *value) = (*other, *found),
            (Self::Values(values), Self::Values(more)) => values.extend(more),
            _ => {}
        }
    }

    /// The window's value.
    pub(crate) fn value(&self, op: RangeOp, range_ns: i64) -> f64 {
        let seconds = range_ns as f64 / 1e9;
        match self {
            Self::Count(n) if matches!(op, RangeOp::Rate | RangeOp::BytesRate) => *n as f64 / seconds,
            Self::Count(n) => *n as f64,
            Self::Sum(sum) if op == RangeOp::Rate => sum / seconds,
            Self::Sum(value) | Self::Min(value) | Self::Max(value) | Self::First(_, value) | Self::Last(_, value) => *value,
            Self::Mean { mean, .. } => *mean,
            Self::Moments { n, squares, .. } if op == RangeOp::StdVar => squares / n,
            Self::Moments { n, squares, .. } => (squares / n).sqrt(),
            Self::Values(values) => match op {
                RangeOp::Quantile(q) => quantile(q, values),
                _ => f64::NAN,
            },
        }
    }
}

/// The quantile of values, between the two that are nearest.
pub(crate) fn quantile(q: f64, values: &[f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if !(0.0..=1.0).contains(&q) {
        return if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = q * (sorted.len() as f64 - 1.0);
    let at = |rank: f64| sorted.get(rank as usize).copied().unwrap_or(f64::NAN);
    let weight = rank - rank.floor();
    let (below, above) = (at(rank.floor()), at((rank.floor() + 1.0).min(sorted.len() as f64 - 1.0)));
    if weight == 0.0 { below } else { below * (1.0 - weight) + above * weight }
}

/// One series: what its lines are worth, by the windows that they are in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathered(BTreeMap<Span, Acc>);

impl Gathered {
    /// Returns how many values are held more than before.
    pub(crate) fn add(&mut self, span: Span, acc: Acc) -> usize {
        match self.0.get_mut(&span) {
            None => {
                self.0.insert(span, acc);
                1
            }
            Some(known) => {
                known.merge(&acc);
                usize::from(matches!(acc, Acc::Values(_)))
            }
        }
    }

    /// The value of each window; nothing where it has no line.
    pub(crate) fn values(&self, op: RangeOp, windows: &Windows) -> Vec<Option<f64>> {
        if let RangeOp::Quantile(q) = op {
            return self.quantiles(q, windows.grid.steps);
        }
        let mut queue = Queue::default();
        let mut coming = self.0.iter().peekable();
        (0..windows.grid.steps)
            .map(|step| {
                while let Some((span, acc)) = coming.next_if(|(span, _)| span.0 as usize <= step) {
                    queue.push(span.1, acc);
                }
                queue.drop_before(step);
                queue.merged().map(|acc| acc.value(op, windows.range_ns))
            })
            .collect()
    }
}

impl Gathered {
    /// Quantiles do not merge: each window looks at all of its values.
    fn quantiles(&self, q: f64, steps: usize) -> Vec<Option<f64>> {
        let mut inside: VecDeque<(u32, &[f64])> = VecDeque::new();
        let mut coming = self.0.iter().peekable();
        (0..steps)
            .map(|step| {
                while let Some((span, acc)) = coming.next_if(|(span, _)| span.0 as usize <= step) {
                    if let Acc::Values(values) = acc {
                        inside.push_back((span.1, values));
                    }
                }
                while inside.front().is_some_and(|(last, _)| (*last as usize) < step) {
                    inside.pop_front();
                }
                let values: Vec<f64> = inside.iter().flat_map(|(_, values)| values.iter().copied()).collect();
                (!values.is_empty()).then(|| quantile(q, &values))
            })
            .collect()
    }
}

/// A queue that knows the merge of all that is in it.
#[derive(Debug, Default)]
struct Queue {
    /// Oldest last; each with the merge of itself and all that are newer in `front`.
    front: Vec<(u32, Acc)>,
    back: VecDeque<(u32, Acc)>,
    back_merged: Option<Acc>,
}

impl Queue {
    fn push(&mut self, last: u32, acc: &Acc) {
        match &mut self.back_merged {
            None => self.back_merged = Some(acc.clone()),
            Some(merged) => merged.merge(acc),
        }
        self.back.push_back((last, acc.clone()));
    }

    /// Takes out what ends before this step. What came first ends first.
    fn drop_before(&mut self, step: usize) {
        loop {
            if self.front.is_empty() {
                while let Some((last, acc)) = self.back.pop_back() {
                    let mut merged = acc;
                    if let Some((_, newer)) = self.front.last() {
                        merged.merge(newer);
                    }
                    self.front.push((last, merged));
                }
                self.back_merged = None;
            }
            if self.front.pop_if(|(last, _)| (*last as usize) < step).is_none() {
                return;
            }
        }
    }

    fn merged(&self) -> Option<Acc> {
        let front = self.front.last().map(|(_, acc)| acc);
        match (front, &self.back_merged) {
            (None, back) => back.clone(),
            (Some(front), None) => Some(front.clone()),
            (Some(front), Some(back)) => {
                let mut merged = front.clone();
                merged.merge(back);
                Some(merged)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(ts_ns: i64) -> EntryId {
        EntryId { ts_ns, batch: 1, index: 0 }
    }

    #[test]
    fn a_window_has_its_end_and_not_its_begin() {
        let windows = Windows { grid: Grid { start_ns: 100, step_ns: 10, steps: 3 }, range_ns: 20, offset_ns: 0 };
        let expected = [(80, None), (81, Some((0, 0))), (90, Some((0, 0))), (91, Some((0, 1))), (100, Some((0, 1))), (101, Some((1, 2)))];
        for (ts, span) in expected.into_iter().chain([(120, Some((2, 2))), (121, None), (i64::MIN, None), (i64::MAX, None)]) {
            assert_eq!(windows.of(ts), span, "{ts}");
        }
        assert_eq!((windows.first_ns(), windows.last_ns()), (81, 120));
        assert_eq!(windows.of_both(82, 90), Some(Some((0, 0))));
        assert_eq!(windows.of_both(80, 90), None);
        assert_eq!(windows.of_both(1, 80), Some(None));
        assert_eq!(windows.of_both(1, 200), None);
        let gaps = Windows { range_ns: 2, ..windows };
        assert_eq!(gaps.of_both(101, 108), None, "what lies between short windows is looked at");
    }

    #[test]
    fn quantiles_lie_between_values() {
        for (q, expected) in [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0), (0.25, 1.75)] {
            assert_eq!(quantile(q, &[4.0, 1.0, 3.0, 2.0]), expected);
        }
        assert!(quantile(0.5, &[]).is_nan() && quantile(2.0, &[1.0]).is_infinite());
    }

    proptest! {
        /// Against looking at every line for every window.
        #[test]
        fn windows_have_their_lines(
            lines in prop::collection::vec((0i64..400, -50i64..50), 0..60),
            step_ns in 1i64..40, steps in 1usize..20, range_ns in 1i64..120, offset_ns in -30i64..30,
        ) {
            let windows = Windows { grid: Grid { start_ns: 100, step_ns, steps }, range_ns, offset_ns };
            let ops = [RangeOp::Sum, RangeOp::Min, RangeOp::Max, RangeOp::Avg, RangeOp::First, RangeOp::Last, RangeOp::StdVar, RangeOp::Quantile(0.4)];
            for op in ops {
                let mut gathered = Gathered::default();
                for (at, (ts, value)) in lines.iter().enumerate() {
                    if let Some(span) = windows.of(*ts) {
                        gathered.add(span, Acc::of(op, true, EntryId { batch: at as u64, ..id(*ts) }, *value as f64));
                    }
                }
                for (step, found) in gathered.values(op, &windows).into_iter().enumerate() {
                    let end = windows.grid.time(step) - offset_ns;
                    let mut inside: Vec<(EntryId, f64)> = lines.iter().enumerate()
                        .filter(|(_, (ts, _))| *ts > end - range_ns && *ts <= end)
                        .map(|(at, (ts, value))| (EntryId { batch: at as u64, ..id(*ts) }, *value as f64))
                        .collect();
                    inside.sort_by_key(|(id, _)| *id);
                    let values: Vec<f64> = inside.iter().map(|(_, value)| *value).collect();
                    let n = values.len() as f64;
                    let mean = values.iter().sum::<f64>() / n;
                    let expected = (!values.is_empty()).then(|| match op {
                        RangeOp::Sum => values.iter().sum(),
                        RangeOp::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
                        RangeOp::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                        RangeOp::Avg => mean,
                        RangeOp::First => values[0],
                        RangeOp::Last => *values.last().unwrap(),
                        RangeOp::StdVar => values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / n,
                        _ => quantile(0.4, &values),
                    });
                    match (found, expected) {
                        (None, None) => {}
                        (Some(found), Some(expected)) => prop_assert!((found - expected).abs() < 1e-6, "{op:?} step {step}: {found} and {expected}"),
                        other => prop_assert!(false, "{op:?} step {step}: {other:?}"),
                    }
                }
            }
        }
    }
}
