//! What can go wrong in the store and in what reads it. The kind carries the decision, the text carries the place.

use std::path::{Path, PathBuf};

/// An error of the store.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// No space for the write. Nothing of it was applied; try again later.
    #[error("no space left to write {}: free space, or keep fewer days (`retention_days`)", path.display())]
    Full {
        /// What was written to.
        path: PathBuf,
    },
    /// The file's format is from a newer version.
    #[error("{} has format {found}, this program knows formats up to {known}: install the version that wrote it, or move it away", path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that this program knows.
        known: i64,
    },
    /// Somebody else has the store open.
    #[error("{} is in use by another process: stop the other server, or give this one another data directory", path.display())]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// The file's content is not what was written.
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Anything else of the file system or of SQLite.
    #[error("could not {action} {}: {reason}", path.display())]
    Io {
        /// Such as `read`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The writer has ended; the engine must be opened again.
    #[error("the series store is stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// A query over a bound.
    #[error("the query needs more than {limit} {what}: narrow its labels or its time, or raise `{key}`")]
    Limit {
        /// Such as `series`.
        what: &'static str,
        /// The bound.
        limit: u64,
        /// The key that sets it.
        key: &'static str,
    },
    /// The query's deadline has passed.
    #[error("the query ran longer than its time limit")]
    Timeout,
    /// A matcher that cannot be used.
    #[error("{0}")]
    Matcher(String),
}

impl Error {
    /// An I/O error with its place; no space is told apart.
    pub(crate) fn io(action: &'static str, path: &Path, error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::Full { path: path.to_owned() },
            _ => Self::Io { action, path: path.to_owned(), reason: error.to_string() },
        }
    }

    /// Damage found in a file.
    pub(crate) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), reason: reason.into() }
    }
}
