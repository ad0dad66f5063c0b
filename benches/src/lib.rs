//! What Shipwatch costs and how fast it is, measured on the real programs as real processes.
//!
//! # Layout
//! - [`agent`]: the agent's memory, CPU and wire bytes, beside node_exporter in the same run
//! - [`fleet`]: simulated agents over real QUIC against a real server: `ingest` (as fast as it goes) and `swarm` (paced)
//! - [`peers`]: the series engine beside VictoriaMetrics and Prometheus
//! - [`mask`]: masking speed, recall and precision; [`tail`]: tail, mask and ship; [`corpus`]: the log lines for both
//! - [`logs`]: the log engine in this process: bytes per line, ingest, queries
//! - [`series`]: the time-series engine in this process: disk, queries, memory, start
//! - [`random`]: repeatable numbers; [`stack`]: servers and agents for one run; [`process`], [`usage`], [`api`]: processes, what they use, what they answer
//! - [`report`]: figures as a table and as JSON
//!
//! # Invariants
//! - Ports are free ones of the loopback address, data lies in one temporary directory per run. Both are given back at the
//!   end, on an error and on Ctrl-C: everything is owned by the run's future, and dropping it ends the children by their ids.
//! - Every wait has a deadline.
//! - A run that checked something and found it wrong fails, whatever its figures.
//! - Progress goes to standard error, the report to standard output.

pub mod agent;
pub mod api;
pub mod corpus;
pub mod fleet;
pub mod logs;
pub mod mask;
pub mod peers;
pub mod process;
pub mod random;
pub mod report;
pub mod series;
pub mod stack;
pub mod tail;
pub mod usage;

use std::{fmt::Display, io::Write as _};

/// Says on standard error what is being done.
pub fn progress(text: impl Display) {
    let _nobody_reads = writeln!(std::io::stderr().lock(), "{text}");
}

/// A count for arithmetic with figures.
#[expect(clippy::cast_precision_loss, reason = "counts of a run stay far below 2^53")]
#[must_use]
pub const fn float(count: u64) -> f64 {
    count as f64
}
