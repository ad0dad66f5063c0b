//! Samples of a few minutes as one row: what range functions need of them, so that long ranges are read without their samples.
//!
//! A bucket holds what lies in `(end - width, end]`, open on the left as ranges are. Buckets add up: the bucket of a range is
//! that of its parts, so a window whose borders lie on borders of buckets has the very result that its samples give.
//!
//! # Invariants
//! - Stale markers are no samples. A bucket with nothing but a marker has the count 0, its time, and `ended`.
//! - Two buckets may have the same end: a day's last bucket has no sample of the next midnight, which is in a bucket of its own.
//!
//! # What is not exact
//! A sum is rounded once for each bucket and not only at its end: the last digits of `sum_over_time` and `avg_over_time` may differ
//! from those of samples, as may those of the increase of a counter that was reset more than once within a bucket. A sum of a
//! bucket that is beyond what a float can hold is infinite, and so is its average.

use shipwatch_common::{model::metric::is_stale_marker, time::UnixMs};

/// A sum that keeps what rounding loses (Neumaier).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) sum: f64,
    pub(crate) lost: f64,
}

impl Sum {
    pub(crate) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.lost = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.lost += (self.sum - total) + value;
        } else {
            self.lost += (value - total) + self.sum;
        }
        self.sum = total;
    }

    pub(crate) fn total(&self) -> f64 {
        self.sum + self.lost
    }

    pub(crate) fn scale(&mut self, by: f64) {
        self.sum *= by;
        self.lost *= by;
    }
}

/// Widths of the buckets that are kept.
pub const WIDTHS: [i64; 2] = [FIVE_MINUTES, ONE_HOUR];

pub(crate) const FIVE_MINUTES: i64 = 300_000;
pub(crate) const ONE_HOUR: i64 = 3_600_000;

/// What is known of the samples of one series in `(end - width, end]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bucket {
    /// The last moment that belongs to it.
    pub end: UnixMs,
    /// Samples.
    pub count: u32,
    /// Time of the first one.
    pub first_ts: UnixMs,
    /// Time of the last one.
    pub last_ts: UnixMs,
    /// Value of the first one.
    pub first: f64,
    /// Value of the last one.
    pub last: f64,
    /// Smallest value; NaN where there is nothing else.
    pub min: f64,
    /// Largest value; NaN where there is nothing else.
    pub max: f64,
    /// Sum of the values.
    pub sum: f64,
    /// What a counter lost in resets: the sum of the values before them.
    pub correction: f64,
    /// Values that are smaller than the one before.
    pub resets: u32,
    /// Values that are not the one before.
    pub changes: u32,
    /// Whether a stale marker comes after the last sample.
    pub ended: bool,
}

/// Whether a value is another one: NaN is like NaN.
pub(crate) fn differs(before: f64, value: f64) -> bool {
    value != before && !(before.is_nan() && value.is_nan())
}

impl Bucket {
    /// The bucket of one sample.
    #[must_use]
    pub fn of_sample(end: UnixMs, ts: UnixMs, value: f64) -> Self {
        if is_stale_marker(value) {
            return Self { end, first_ts: ts, last_ts: ts, ended: true, ..Self::default() };
        }
        let sum = 0.0 + value;
        Self { end, count: 1, first_ts: ts, last_ts: ts, first: value, last: value, min: value, max: value, sum, ..Self::default() }
    }
}

/// Adds buckets up, in the order of time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fold {
    bucket: Bucket,
    sum: Sum,
}

impl Fold {
    pub(crate) fn push(&mut self, next: &Bucket) {
        let all = &mut self.bucket;
        all.end = next.end;
        if next.count == 0 {
            if all.count == 0 {
                (all.first_ts, all.last_ts) = (next.first_ts, next.last_ts);
            }
            all.ended |= next.ended;
            return;
        }
        if all.count == 0 {
            *all = *next;
            self.sum.add(next.sum);
            return;
        }
        if next.first < all.last {
            all.correction += all.last;
            all.resets += 1;
        }
        all.correction += next.correction;
        all.resets += next.resets;
        all.changes += u32::from(differs(all.last, next.first)) + next.changes;
        all.count = all.count.saturating_add(next.count);
        (all.last_ts, all.last, all.ended) = (next.last_ts, next.last, next.ended);
        // NaN stays only where there is nothing else.
        if next.min < all.min || all.min.is_nan() {
            all.min = next.min;
        }
        if next.max > all.max || all.max.is_nan() {
            all.max = next.max;
        }
        self.sum.add(next.sum);
    }

    pub(crate) fn finish(self) -> Bucket {
        Bucket { sum: if self.bucket.count == 0 { 0.0 } else { self.sum.total() }, ..self.bucket }
    }
}

/// End of the bucket that a time lies in.
pub(crate) const fn end_of(ts: UnixMs, width: i64) -> UnixMs {
    -((-ts).div_euclid(width)) * width
}

/// The buckets of a series, whose times grow.
pub(crate) fn summarize(ts: &[UnixMs], values: &[f64], width: i64) -> Vec<Bucket> {
    widen(ts.iter().zip(values).map(|(ts, value)| Bucket::of_sample(end_of(*ts, width), *ts, *value)), width)
}

/// Puts buckets together into wider ones.
pub(crate) fn widen(buckets: impl IntoIterator<Item = Bucket>, width: i64) -> Vec<Bucket> {
    let mut out: Vec<Bucket> = Vec::new();
    let mut open: Option<(UnixMs, Fold)> = None;
    for bucket in buckets {
        let end = end_of(bucket.end, width);
        match &mut open {
            Some((at, fold)) if *at == end => fold.push(&bucket),
            _ => {
                out.extend(open.take().map(|(end, fold)| Bucket { end, ..fold.finish() }));
                let mut fold = Fold::default();
                fold.push(&bucket);
                open = Some((end, fold));
            }
        }
    }
    out.extend(open.map(|(end, fold)| Bucket { end, ..fold.finish() }));
    out
}

/// What is needed of buckets; the rest is not decoded and 0. Ends and counts are always there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Columns(u8);

impl Columns {
    /// Ends and counts only.
    pub const NONE: Self = Self(0);
    /// `first_ts` and `last_ts`.
    pub const TIMES: Self = Self(1);
    /// `first`.
    pub const FIRST: Self = Self(2);
    /// `last`.
    pub const LAST: Self = Self(4);
    /// `min`.
    pub const MIN: Self = Self(8);
    /// `max`.
    pub const MAX: Self = Self(16);
    /// `sum`.
    pub const SUM: Self = Self(32);
    /// `correction` and `resets`.
    pub const RESETS: Self = Self(64);
    /// `changes`.
    pub const CHANGES: Self = Self(128);
    /// Everything.
    pub const ALL: Self = Self(255);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
