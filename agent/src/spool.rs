//! What waits on disk until the server has it: one bounded queue per lane.
//!
//! - [`queue`]: records in segments with checksums; at-least-once, in order
//! - [`lanes`]: the three queues as the rest of the agent uses them
//!
//! # Invariants
//! - A record is complete or it is not there: length and CRC-32 are checked, a torn tail ends a segment.
//! - The uplink only sends records that were fsynced, so what the server acknowledged was never lost here.
//! - When full: metrics drop their oldest segment (counted), logs refuse (the file stays the buffer), events refuse at their
//!   own, separate bound.
//! - Positions of tailed files lie in the same records as their lines, with all positions again at the head of each
//!   segment: after kill -9 the lines and the position agree by construction.
//!
//! On a crash: records that were not fsynced may be lost with the power, never with the process; the tailer then reads
//! them again from the file. A damaged record is skipped, a damaged segment head costs the segment; both are counted and logged.

#[cfg(test)]
mod damage;
pub mod lanes;
pub mod queue;

use serde::{Deserialize, Serialize};
use shipwatch_common::config::Problems;

/// Bounds of the queues on disk.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Metrics kept while the server cannot be reached; beyond it the oldest are dropped. 128 MiB hold days of one host.
    pub metrics_max_bytes: u64,
    /// Log lines kept; beyond it reading stops until there is room, and files that rotate away unread are counted as lost.
    pub logs_max_bytes: u64,
    /// Deploy events kept; beyond it a deployment waits.
    pub events_max_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { metrics_max_bytes: 128 << 20, logs_max_bytes: 256 << 20, events_max_bytes: 32 << 20 }
    }
}

impl Config {
    /// Checks the bounds.
    pub fn check(&self, problems: &mut Problems) {
        for (key, bytes) in [
            ("metrics_max_bytes", self.metrics_max_bytes),
            ("logs_max_bytes", self.logs_max_bytes),
            ("events_max_bytes", self.events_max_bytes),
        ] {
            if bytes < 1 << 20 {
                problems.add(key, format!("must be at least 1048576 (1 MiB), not {bytes}"));
            }
        }
    }
}
