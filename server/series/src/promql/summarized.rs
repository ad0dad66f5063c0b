//! Range functions and instant selectors of buckets instead of samples.
//!
//! # Invariants
//! - Buckets that are as good as their samples are asked for where all borders of windows are borders of buckets, and only of
//!   long ranges: short ones keep the last digit.
//! - What is not exact says so in the answer's infos, and so does what is left out since only buckets are left.

use super::{
    Error, annotations,
    eval::Context,
    rate::{self, Change},
    values::Grid,
};
use crate::{
    matcher::Matcher,
    source::{Ask, Summaries, Summarized},
    summary::{Bucket, Columns, Fold, Sum, WIDTHS, summarize},
};
use shipwatch_common::model::{Labels, metric::STALE_NAN_BITS};
use std::sync::Arc;

/// Ranges that are worth it: a day.
const LONG_MS: i64 = 86_400_000;

/// The buckets of a window; at least one sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Folded<'a> {
    /// All of them together.
    pub(crate) all: Bucket,
    parts: &'a [Bucket],
    start: i64,
    end: i64,
    /// What of a window that is shorter than its buckets is its own.
    share: f64,
}

/// How a function is computed of buckets, and what it needs of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reduce {
    pub(crate) columns: Columns,
    of: fn(&Folded<'_>) -> Option<f64>,
}

/// The function of this name, if buckets are enough for it.
pub(crate) fn named(name: &str) -> Option<Reduce> {
    let ends = Columns::FIRST.and(Columns::LAST);
    let counter = ends.and(Columns::RESETS);
    let (columns, of): (Columns, fn(&Folded<'_>) -> Option<f64>) = match name {
        "avg_over_time" => (Columns::SUM, |window| Some(mean(window))),
        "min_over_time" => (Columns::MIN, |window| Some(window.all.min)),
        "max_over_time" => (Columns::MAX, |window| Some(window.all.max)),
        "sum_over_time" => (Columns::SUM, |window| Some(window.all.sum * window.share)),
        "count_over_time" => (Columns::NONE, |window| Some(f64::from(window.all.count) * window.share)),
        "last_over_time" => (Columns::LAST, |window| Some(window.all.last)),
        "first_over_time" => (Columns::FIRST, |window| Some(window.all.first)),
        "present_over_time" | "absent_over_time" => (Columns::NONE, |_| Some(1.0)),
        "ts_of_first_over_time" => (Columns::TIMES, |window| Some(window.all.first_ts as f64 / 1_000.0)),
        "ts_of_last_over_time" => (Columns::TIMES, |window| Some(window.all.last_ts as f64 / 1_000.0)),
        "rate" => (counter.and(Columns::TIMES), |window| change(window, true, true)),
        "increase" => (counter.and(Columns::TIMES), |window| Some(change(window, true, false)? * window.share)),
        "delta" => (ends.and(Columns::TIMES), |window| Some(change(window, false, false)? * window.share)),
        "resets" => (counter, |window| Some(f64::from(window.all.resets) * window.share)),
        "changes" => (ends.and(Columns::CHANGES), |window| Some(f64::from(window.all.changes) * window.share)),
        _ => return None,
    };
    Some(Reduce { columns, of })
}

/// The mean, also where the sum is beyond what a float can hold.
fn mean(window: &Folded<'_>) -> f64 {
    let count = f64::from(window.all.count);
    let mean = window.all.sum / count;
    if mean.is_finite() {
        return mean;
    }
    let mut sum = Sum::default();
    window.parts.iter().filter(|part| part.count > 0).for_each(|part| sum.add(part.sum / count));
    sum.total()
}

fn change(window: &Folded<'_>, is_counter: bool, is_rate: bool) -> Option<f64> {
    let all = &window.all;
    let mut change = all.last - all.first;
    if is_counter {
        change += all.correction;
    }
    let samples = Change { first_at: all.first_ts, last_at: all.last_ts, first: all.first, change, count: all.count };
    rate::stretched(&samples, (window.start, window.end), is_counter, is_rate)
}

/// The widest buckets whose borders all borders of windows are: of `range`, ending at each of `times`.
pub(crate) fn width_for(times: Grid, range: i64) -> Option<i64> {
    let is_border = |width: i64, step: i64| step % width == 0;
    let fits =
        |width: &&i64| is_border(**width, range) && is_border(**width, times.start) && (times.len == 1 || is_border(**width, times.step));
    let is_long = times.end() - (times.start - range) >= LONG_MS;
    WIDTHS.iter().rev().filter(|_| is_long).find(fits).copied()
}

/// Asks for buckets, unless the query wants none. Where nothing fits but some samples have expired, they are asked for as they are:
/// the finest of each day, with their times.
pub(crate) fn find(ctx: &Context<'_>, matchers: &[Matcher], ask: &Ask, expired: Columns) -> Result<Option<Summaries>, Error> {
    if !ctx.options.summaries {
        return Ok(None);
    }
    if ask.width.is_some() {
        match ctx.summaries(matchers, ask)? {
            Some(found) if found.approximate => {}
            found => return Ok(found),
        }
    }
    ctx.summaries(matchers, &Ask { width: None, columns: ask.columns.and(expired).and(Columns::TIMES), ..*ask })
}

/// Says so in the answer, for all steps of the evaluation.
pub(crate) fn tell(ctx: &Context<'_>, found: &Summaries, grid: Grid) {
    if found.approximate {
        // How good it is depends on all that was asked for.
        ctx.is_whole();
    }
    if found.width > 0 {
        annotations::summarized(ctx, found.width, found.approximate, grid);
    }
}

/// A series as buckets in the order of time.
#[derive(Clone, Debug)]
pub(crate) struct Buckets {
    pub(crate) labels: Arc<Labels>,
    pub(crate) buckets: Vec<Bucket>,
}

/// Everything as buckets: samples are put into some of `width`, or each into one of its own.
pub(crate) fn as_buckets(series: Summarized, width: Option<i64>) -> Buckets {
    let Summarized { labels, mut buckets, ts, values } = series;
    let fresh = match width {
        Some(width) => summarize(&ts, &values, width),
        None => ts.iter().zip(&values).map(|(ts, value)| Bucket::of_sample(*ts, *ts, *value)).collect(),
    };
    if buckets.is_empty() {
        return Buckets { labels, buckets: fresh };
    }
    // Of two days that meet at midnight one may be in buckets and the other in samples: that of midnight is the later one.
    let mut all: Vec<(i64, u8, Bucket)> = buckets.drain(..).map(|bucket| (bucket.end, 1, bucket)).collect();
    all.extend(fresh.into_iter().map(|bucket| (bucket.end, if bucket.last_ts < bucket.end { 0 } else { 2 }, bucket)));
    all.sort_by_key(|(end, rank, _)| (*end, *rank));
    Buckets { labels, buckets: all.into_iter().map(|(_, _, bucket)| bucket).collect() }
}

/// Goes over windows that never go back.
#[derive(Debug)]
pub(crate) struct Windows<'a> {
    buckets: &'a [Bucket],
    from: usize,
    to: usize,
    /// Width of buckets that borders of windows may lie in; 0 where they never do.
    slack: i64,
}

impl<'a> Windows<'a> {
    pub(crate) const fn new(buckets: &'a [Bucket], slack: i64) -> Self {
        Self { buckets, from: 0, to: 0, slack }
    }

    /// The function of the buckets that end in `(start, end]`; of the one that `end` lies in, if it is the only one.
    pub(crate) fn reduce(&mut self, reduce: &Reduce, start: i64, end: i64) -> Option<f64> {
        while self.buckets.get(self.to).is_some_and(|bucket| bucket.end <= end) {
            self.to += 1;
        }
        while self.from < self.to && self.buckets[self.from].end <= start {
            self.from += 1;
        }
        let mut parts = &self.buckets[self.from..self.to];
        if parts.is_empty() && self.slack > 0 {
            let next = self.buckets.get(self.to).filter(|next| next.first_ts <= end);
            parts = next.map_or(&[], std::slice::from_ref);
        }
        let mut fold = Fold::default();
        parts.iter().for_each(|part| fold.push(part));
        let all = fold.finish();
        if all.count == 0 {
            return None;
        }
        let (mut window, mut share) = ((start, end), 1.0);
        if self.slack > 0 {
            window = (start.min(all.first_ts - 1), end.max(all.last_ts));
            share = (end - start) as f64 / (window.1 - window.0) as f64;
        }
        (reduce.of)(&Folded { all, parts, start: window.0, end: window.1, share })
    }
}

/// A value and how long an instant selector sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) ts: i64,
    pub(crate) value: f64,
    pub(crate) until: i64,
}

/// What an instant selector sees of expired samples: the first and the last one of each bucket, held until the next bucket's.
pub(crate) fn held(series: &Summarized, lookback: i64, width: i64) -> Vec<Held> {
    let stale = f64::from_bits(STALE_NAN_BITS);
    let mut all = Vec::with_capacity(series.buckets.len() * 2 + series.ts.len());
    let mut hold = |ts: i64, value: f64, lookback: i64| all.push(Held { ts, value, until: ts.saturating_add(lookback) });
    for bucket in &series.buckets {
        if bucket.count > 0 {
            hold(bucket.first_ts, bucket.first, lookback + width);
            if bucket.last_ts > bucket.first_ts {
                hold(bucket.last_ts, bucket.last, lookback + width);
            }
        }
        if bucket.ended {
            hold(bucket.last_ts + 1, stale, lookback);
        }
    }
    series.ts.iter().zip(&series.values).for_each(|(ts, value)| hold(*ts, *value, lookback));
    all.sort_by_key(|held| held.ts);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_buckets_that_fit_are_taken_for_long_ranges() {
        const MINUTE: i64 = 60_000;
        let day = 20_780 * 86_400_000;
        let width = |start: i64, step: i64, len: usize, range: i64| width_for(Grid { start, step, len }, range).map(|ms| ms / MINUTE);
        assert_eq!(width(day, 60 * MINUTE, 25, 60 * MINUTE), Some(60));
        assert_eq!(width(day, 60 * MINUTE, 25, 5 * MINUTE), Some(5));
        assert_eq!(width(day + 5 * MINUTE, 60 * MINUTE, 25, 60 * MINUTE), Some(5));
        assert_eq!(width(day, 5 * MINUTE, 300, 60 * MINUTE), Some(5));
        assert_eq!(width(day, 1, 1, 30 * 24 * 60 * MINUTE), Some(60));
        for (start, step, len, range) in [
            (day + 1, 60 * MINUTE, 25, 60 * MINUTE),
            (day, MINUTE, 3_000, 60 * MINUTE),
            (day, 60 * MINUTE, 25, MINUTE),
            (day, 60 * MINUTE, 20, 60 * MINUTE),
        ] {
            assert_eq!(width(start, step, len, range), None);
        }
    }
}
