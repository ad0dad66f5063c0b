//! Time-series engine of Shipwatch: a durable store of samples, PromQL over it, and Prometheus' HTTP answers.
//!
//! The crate knows nothing of hosts, agents or rules: samples come in with labels, questions come in as PromQL.
//!
//! # Layout
//! - [`store`]: [`Engine`], the store on disk: a head in memory behind SQLite frames, sealed into one file per UTC day
//! - [`remote`]: Prometheus' remote protocols, from bytes to samples
//! - [`source`]: [`Source`], what PromQL reads from; implemented by [`Engine`] and by [`MemSource`]
//! - [`summary`]: samples of minutes and hours as one row, for long ranges
//! - [`exchange`]: samples as text and JSON lines, in and out
//! - [`matcher`]: label matchers; [`promql`]: the evaluator; [`http`]: `/api/v1` answers, without a web framework
//!
//! # Invariants
//! - A batch is acknowledged after its transaction is on disk, and is applied once, however often it is sent.
//! - A query is bounded in series, samples, points and time; what is over a bound is an error that names its key.
//! - Arrows between modules: `http -> promql -> source -> matcher` and `store -> source`; nothing but `store` knows SQL.

mod calendar;
pub mod config;
pub mod error;
pub mod exchange;
pub mod http;
pub mod matcher;
mod prefix;
pub mod promql;
pub mod remote;
pub mod source;
pub mod store;
pub mod summary;

pub use config::Config;
pub use error::Error;
pub use matcher::{MatchOp, Matcher};
pub use source::{MemSource, SelectLimits, SeriesData, Source};
pub use store::{Append, Engine, OpenReport, Outcome, Reason, Refusal, Report};
