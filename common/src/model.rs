//! What both ends talk about.

pub mod deploy;
pub mod host;
pub mod labels;
pub mod log;
pub mod metric;

pub use host::{AgentId, HostFacts};
pub use labels::{Labels, LabelsError};
pub use log::{FileId, LogBatch, LogLine, Severity};
pub use metric::Sample;
