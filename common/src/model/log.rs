//! Log lines on their way from a file to the store.

use super::Labels;
use crate::time::UnixNs;
use serde::{Deserialize, Serialize};

/// One life of one file: from its creation (or truncation) to its end. A rotation, a truncation or a new file under
/// an old name is another life, so `(agent, FileId, offset)` names a byte once and for all.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct FileId(pub u128);

/// Severity of a line, OpenTelemetry's six short names.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Not told by the line.
    #[default]
    Unknown,
    /// Finest detail.
    Trace,
    /// For developers.
    Debug,
    /// Ordinary events.
    Info,
    /// Something to look at.
    Warn,
    /// Something failed.
    Error,
    /// The program cannot go on.
    Fatal,
}

impl Severity {
    /// The word used in queries and on screens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

/// One line, masked already.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogLine {
    /// When it happened; the time of reading where the line does not say.
    pub ts_ns: UnixNs,
    /// Offset in the file just behind this line's end; grows within one [`FileId`].
    pub end_offset: u64,
    /// Severity, where it could be told.
    pub severity: Severity,
    /// Whether the line was longer than allowed and cut.
    pub truncated: bool,
    /// The text without its line end.
    pub text: String,
}

/// Lines of one file in file order; the unit that is spooled, sent and committed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LogBatch {
    /// Which life of which file.
    pub file: FileId,
    /// The stream's own labels (`filename`, `source`, `app` …). The server adds `host`, `env`, `region` from what it knows
    /// of the sender, and they win over what the agent says.
    pub labels: Labels,
    /// In order of `end_offset`.
    pub lines: Vec<LogLine>,
}
