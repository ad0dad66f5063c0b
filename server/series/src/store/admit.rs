//! Which samples are taken, and what their sender is told about the others.
//!
//! The words are Prometheus' (storage/interface.go: `ErrOutOfOrderSample`, `ErrOutOfBounds`, `ErrDuplicateSampleForTimestamp`),
//! since senders of remote write know them.
//!
//! # Invariants
//! - A refused sample is counted once, under the first reason that holds.
//! - The same value at the same time again is no mistake: it is taken, counted as `same`, and changes nothing.

use super::Outcome;
use crate::config::{Config, Cutoffs, Keep};
use shipwatch_common::{
    model::{Labels, Sample},
    time::{UnixMs, duration_ms},
};
use std::{collections::HashMap, fmt, sync::Arc};

/// Why a sample was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// Older than retention keeps it.
    TooOld,
    /// Further in the future than `series.max_ahead`.
    TooFarAhead,
    /// It has no labels.
    WithoutLabels,
    /// Further behind its series' newest sample than `series.out_of_order_window`.
    OutOfOrder,
    /// Its series has another value at that time.
    Duplicate,
    /// Its series is new, and its host has `series.max_host_series` series.
    TooManyHostSeries,
    /// Its series is new, and memory holds `series.max_head_series` series.
    TooManySeries,
}

impl Reason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::TooOld,
        Self::TooFarAhead,
        Self::WithoutLabels,
        Self::OutOfOrder,
        Self::Duplicate,
        Self::TooManyHostSeries,
        Self::TooManySeries,
    ];

    /// Whether sending the sample again is pointless: it is the sample that is wrong (HTTP 400), and not a bound of this store.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::TooManyHostSeries | Self::TooManySeries)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooOld => "out of bounds: older than `series.retention_days` or `series.retention` keep samples",
            Self::TooFarAhead => "out of bounds: further in the future than `series.max_ahead` allows",
            Self::WithoutLabels => "the sample has no labels",
            Self::OutOfOrder => "out of order sample: further behind its series than `series.out_of_order_window` allows",
            Self::Duplicate => "duplicate sample for timestamp",
            Self::TooManyHostSeries => {
                "too many series of one host: find the label that has a new value each time, or raise `series.max_host_series`"
            }
            Self::TooManySeries => "too many series: find the label that has a new value each time, or raise `series.max_head_series`",
        })
    }
}

/// A sample that was refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Which series.
    pub labels: Arc<Labels>,
    /// When.
    pub ts_ms: UnixMs,
    /// Its value.
    pub value: f64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (series {}, time {}, value {})", self.reason, self.labels, self.ts_ms, self.value)
    }
}

/// What became of the samples of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Samples stored, those that were there already included.
    pub stored: u64,
    /// Of these: samples that were there with the same value, as far as that is known.
    pub same: u64,
    /// The first sample that was refused.
    pub first: Option<Refusal>,
    refused: [u64; Reason::ALL.len()],
}

impl Report {
    /// How many samples were refused for a reason.
    #[must_use]
    pub const fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize]
    }

    /// How many samples were refused.
    #[must_use]
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().sum()
    }

    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::Stored { samples: self.stored, refused: self.refused_total() }
    }

    pub(crate) fn refuse(&mut self, reason: Reason, sample: &Sample) {
        self.refused[reason as usize] += 1;
        if self.first.is_none() {
            self.first = Some(Refusal { reason, labels: sample.labels.clone(), ts_ms: sample.ts_ms, value: sample.value });
        }
    }
}

/// What can be judged of a sample without its series.
#[derive(Debug)]
pub(crate) struct Gate {
    cutoffs: Cutoffs,
    newest: UnixMs,
    window_ms: Option<i64>,
}

impl Gate {
    pub(crate) fn new(config: &Config, now_ms: UnixMs) -> Self {
        let window_ms = match config.out_of_order_window {
            Keep::For(window) => Some(duration_ms(window)),
            Keep::Unset | Keep::Forever => None,
        };
        Self { cutoffs: config.cutoffs(now_ms), newest: now_ms.saturating_add(duration_ms(config.max_ahead)), window_ms }
    }

    pub(crate) fn check(&self, sample: &Sample) -> Result<(), Reason> {
        if self.cutoffs.is_expired(&sample.labels, sample.ts_ms) {
            Err(Reason::TooOld)
        } else if sample.ts_ms > self.newest {
            Err(Reason::TooFarAhead)
        } else {
            Ok(())
        }
    }

    /// Whether samples need to be compared with the newest ones of their series.
    pub(crate) const fn looks_back(&self) -> bool {
        self.window_ms.is_some()
    }

    pub(crate) fn check_order(&self, ts: UnixMs, newest: UnixMs) -> Result<(), Reason> {
        match self.window_ms {
            Some(window) if ts < newest.saturating_sub(window) => Err(Reason::OutOfOrder),
            _ => Ok(()),
        }
    }
}

/// Series by host that one group of appends adds.
#[derive(Debug, Default)]
pub(crate) struct NewByHost(HashMap<Box<str>, usize>);

impl NewByHost {
    /// Counts a new series, unless its host has as many as are allowed. `known` tells how many series have a label.
    pub(crate) fn admit(&mut self, labels: &Labels, max: u32, known: impl FnOnce(&str, &str) -> usize) -> bool {
        let host = || ["host", "instance"].into_iter().find_map(|name| Some((name, labels.get(name)?)));
        let Some((name, value)) = (max > 0).then(host).flatten() else { return true };
        let new = self.0.entry(value.into()).or_default();
        let fits = known(name, value) + *new < max as usize;
        *new += usize::from(fits);
        fits
    }
}
