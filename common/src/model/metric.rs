//! Samples.

use super::Labels;
use crate::time::UnixMs;
use std::sync::Arc;

/// One value of one series at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Which series, shared between the samples of a series.
    pub labels: Arc<Labels>,
    /// When it was measured.
    pub ts_ms: UnixMs,
    /// The value; counters are cumulative, durations are seconds, sizes are bytes.
    pub value: f64,
}

/// The NaN that Prometheus uses to say "this series has ended" (`value.StaleNaN`).
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Whether a value is the stale marker. Compare bits: every NaN is unequal to every NaN.
#[must_use]
pub fn is_stale_marker(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}
