//! What PromQL reads from: series chosen by matchers, as columns of times and values.
//!
//! # Invariants
//! - Columns have the same length, times strictly grow, and lie within what was asked for, both ends included.
//! - Stale markers are part of the data; the evaluator gives them their meaning.
//! - Results are sorted by labels, without duplicates, and series without a sample in the range are left out.

use crate::{
    error::Error,
    matcher::{Matcher, all_match},
    summary::{Bucket, Columns},
};
use shipwatch_common::{
    model::{Labels, Sample},
    time::UnixMs,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

/// One series and its samples in a range.
#[derive(Clone, Debug)]
pub struct SeriesData {
    /// Which series.
    pub labels: Arc<Labels>,
    /// Times in milliseconds, strictly growing.
    pub ts: Vec<UnixMs>,
    /// The value at each time.
    pub values: Vec<f64>,
}

/// What is asked of summaries.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Everything of it lies after this moment,
    pub after: UnixMs,
    /// and not after this one.
    pub until: UnixMs,
    /// Widest bucket that is as good as its samples: all borders that matter are multiples of it. Without one, only samples are
    /// good.
    pub width: Option<i64>,
    /// What of the buckets is needed.
    pub columns: Columns,
}

/// One series, partly as buckets: those times that are in no bucket are in the samples, stale markers included.
#[derive(Clone, Debug)]
pub struct Summarized {
    /// Which series.
    pub labels: Arc<Labels>,
    /// Buckets in the order of time; those that lie partly in what was asked for are whole.
    pub buckets: Vec<Bucket>,
    /// Times of samples.
    pub ts: Vec<UnixMs>,
    /// The value at each time.
    pub values: Vec<f64>,
}

/// Series, partly as buckets; sorted by labels.
#[derive(Clone, Debug, Default)]
pub struct Summaries {
    /// The series.
    pub series: Vec<Summarized>,
    /// Width of the widest bucket among them; 0 without any.
    pub width: i64,
    /// Whether there are buckets wider than was asked for: their samples have expired, and what is computed of them is not exact.
    pub approximate: bool,
}

/// How much of the bound on samples a bucket takes: it is as large as so many.
pub const BUCKET_SAMPLES: u64 = 6;

/// Bounds of one selection.
#[derive(Clone, Copy, Debug)]
pub struct SelectLimits {
    /// Most series (`query_max_series`).
    pub max_series: u64,
    /// Most samples (`query_max_samples`).
    pub max_samples: u64,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
}

impl SelectLimits {
    /// For callers that have no bound of their own: tests, tools.
    #[must_use]
    pub const fn none() -> Self {
        Self { max_series: u64::MAX, max_samples: u64::MAX, deadline: None }
    }

    /// # Errors
    /// More series than are allowed.
    pub fn check_series(&self, series: usize) -> Result<(), Error> {
        if series as u64 > self.max_series {
            return Err(Error::Limit { what: "series", limit: self.max_series, key: "query_max_series" });
        }
        Ok(())
    }

    /// # Errors
    /// More samples than are allowed.
    pub fn check_samples(&self, samples: u64) -> Result<(), Error> {
        if samples > self.max_samples {
            return Err(Error::Limit { what: "samples", limit: self.max_samples, key: "query_max_samples" });
        }
        Ok(())
    }

    /// # Errors
    /// The deadline has passed.
    pub fn check_time(&self) -> Result<(), Error> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Error::Timeout),
            _ => Ok(()),
        }
    }
}

/// Where series come from. Times are inclusive at both ends. An empty matcher list means every series; several lists
/// (`match[]`) mean the union. `limit` 0 means no limit; a limited list is the first ones in order.
pub trait Source: Send + Sync {
    /// Samples of every series that meets all matchers.
    ///
    /// # Errors
    /// A bound of `limits`, or a failing read.
    fn select(&self, matchers: &[Matcher], t0: UnixMs, t1: UnixMs, limits: &SelectLimits) -> Result<Vec<SeriesData>, Error>;

    /// Samples of every series that meets all matchers, as buckets where that is as good or where nothing else is left; nothing if
    /// there are no buckets to be used, then [`Source::select`] has all.
    ///
    /// # Errors
    /// A bound of `limits`, or a failing read.
    fn summaries(&self, matchers: &[Matcher], ask: &Ask, limits: &SelectLimits) -> Result<Option<Summaries>, Error> {
        let _ = (matchers, ask, limits);
        Ok(None)
    }

    /// Whether samples in a range may have expired, of series that meet all matchers, and are left as buckets only.
    fn has_expired(&self, matchers: &[Matcher], t0: UnixMs, t1: UnixMs) -> bool {
        let _ = (matchers, t0, t1);
        false
    }

    /// Label sets of series; the time range may be taken wider, to whole days.
    ///
    /// # Errors
    /// A failing read.
    fn series(&self, any_of: &[Vec<Matcher>], t0: UnixMs, t1: UnixMs, limit: usize) -> Result<Vec<Arc<Labels>>, Error>;

    /// The number of the last change, and the least time of samples that may have changed after the change with this number;
    /// `i64::MAX` if none did. Nothing from a source that does not know: what is computed of it is not kept.
    fn changed_since(&self, _number: u64) -> Option<(u64, UnixMs)> {
        None
    }

    /// Names of labels, sorted; the time range may be taken wider, to whole days.
    ///
    /// # Errors
    /// A failing read.
    fn label_names(&self, any_of: &[Vec<Matcher>], t0: UnixMs, t1: UnixMs, limit: usize) -> Result<Vec<String>, Error> {
        Ok(first(names_of(&self.series(any_of, t0, t1, 0)?), limit))
    }

    /// Values of one label, sorted; the time range may be taken wider, to whole days.
    ///
    /// # Errors
    /// A failing read.
    fn label_values(&self, name: &str, any_of: &[Vec<Matcher>], t0: UnixMs, t1: UnixMs, limit: usize) -> Result<Vec<String>, Error> {
        Ok(first(values_of(&self.series(any_of, t0, t1, 0)?, name), limit))
    }
}

/// Names of the labels of series.
pub(crate) fn names_of(series: &[Arc<Labels>]) -> BTreeSet<String> {
    series.iter().flat_map(|labels| labels.iter().map(|(name, _)| name.to_owned())).collect()
}

/// Values of one label of series.
pub(crate) fn values_of(series: &[Arc<Labels>], name: &str) -> BTreeSet<String> {
    series.iter().filter_map(|labels| labels.get(name).map(str::to_owned)).collect()
}

/// The first ones of a sorted set.
pub(crate) fn first<T>(set: impl IntoIterator<Item = T>, limit: usize) -> Vec<T> {
    set.into_iter().take(if limit == 0 { usize::MAX } else { limit }).collect()
}

/// Whether one of the lists matches; no list at all matches everything.
pub(crate) fn any_match(any_of: &[Vec<Matcher>], labels: &Labels) -> bool {
    any_of.is_empty() || any_of.iter().any(|matchers| all_match(matchers, labels))
}

/// Series in memory: for tests of rules, and for data that was just computed.
#[derive(Clone, Debug, Default)]
pub struct MemSource {
    series: BTreeMap<Arc<Labels>, BTreeMap<UnixMs, f64>>,
}

impl MemSource {
    /// Without series.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample; of two samples with the same time the last one stays.
    pub fn push(&mut self, sample: Sample) {
        self.series.entry(sample.labels).or_default().insert(sample.ts_ms, sample.value);
    }
}

impl Extend<Sample> for MemSource {
    fn extend<I: IntoIterator<Item = Sample>>(&mut self, samples: I) {
        for sample in samples {
            self.push(sample);
        }
    }
}

impl Source for MemSource {
    fn select(&self, matchers: &[Matcher], t0: UnixMs, t1: UnixMs, limits: &SelectLimits) -> Result<Vec<SeriesData>, Error> {
        let (mut found, mut samples) = (Vec::new(), 0);
        if t0 > t1 {
            return Ok(found);
        }
        for (labels, points) in self.series.iter().filter(|(labels, _)| all_match(matchers, labels)) {
            let (ts, values): (Vec<_>, Vec<_>) = points.range(t0..=t1).map(|(ts, value)| (*ts, *value)).unzip();
            if !ts.is_empty() {
                samples += ts.len() as u64;
                found.push(SeriesData { labels: labels.clone(), ts, values });
                limits.check_series(found.len())?;
                limits.check_samples(samples)?;
            }
        }
        Ok(found)
    }

    fn series(&self, any_of: &[Vec<Matcher>], t0: UnixMs, t1: UnixMs, limit: usize) -> Result<Vec<Arc<Labels>>, Error> {
        if t0 > t1 {
            return Ok(Vec::new());
        }
        let in_range = |points: &BTreeMap<UnixMs, f64>| points.range(t0..=t1).next().is_some();
        let found = self.series.iter().filter(|(labels, points)| any_match(any_of, labels) && in_range(points));
        Ok(first(found.map(|(labels, _)| labels.clone()), limit))
    }
}
