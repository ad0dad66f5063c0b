//! What can go wrong, by what the caller does about it.

use crate::query::scan::ParseError;
use std::path::Path;

/// Result of the engine's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed. Nothing of a failed call is applied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The disk, or the bound of the head's size, is reached. Try again later; the sender keeps the lines.
    #[error("{path}: no room left; free disk space or shorten the retention of logs")]
    Full {
        /// The file that could not grow.
        path: String,
    },
    /// A file's content is damaged. The next start moves it aside.
    #[error("{path}: damaged: {what}; the file is moved aside at the next start")]
    Corrupt {
        /// The file.
        path: String,
        /// What was found.
        what: String,
    },
    /// The file was written by a newer version of this program.
    #[error("{path}: has format {found}, this program knows up to {known}; install the newer version")]
    NewerFormat {
        /// The file.
        path: String,
        /// Format of the file.
        found: i64,
        /// Newest format known here.
        known: i64,
    },
    /// Another process has the directory open.
    #[error("{path}: is in use by another process; stop it first")]
    Locked {
        /// The lock file.
        path: String,
    },
    /// The database failed in another way.
    #[error("{path}: {message}")]
    Database {
        /// The file.
        path: String,
        /// SQLite's words.
        message: String,
    },
    /// The file system failed.
    #[error("{path}: {message}")]
    Io {
        /// The file or directory.
        path: String,
        /// The system's words.
        message: String,
    },
    /// The query's text is wrong.
    #[error("query: {0}")]
    Query(#[from] ParseError),
    /// An argument is out of bounds.
    #[error("{0}")]
    Invalid(String),
    /// The query could not be answered in time.
    #[error(
        "request timed out, decrease the duration of the request or add more label matchers (prefer exact match over regex match) to reduce the amount of data processed; `query_timeout` bounds the time"
    )]
    TimedOut,
    /// Nobody waits for the answer any more.
    #[error("the query was canceled")]
    Canceled,
    /// As many live subscriptions as are allowed.
    #[error("{0} live subscriptions are open already; close one first")]
    TooManySubscribers(usize),
    /// The writer has ended.
    #[error("the log store is closed")]
    Closed,
}

impl Error {
    pub(crate) fn io(path: &Path, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Self::Full { path: path.display().to_string() };
        }
        Self::Io { path: path.display().to_string(), message: error.to_string() }
    }

    pub(crate) fn sql(path: &Path, error: &rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
        let path = path.display().to_string();
        match error.sqlite_error_code() {
            Some(DiskFull) => Self::Full { path },
            Some(DatabaseCorrupt | NotADatabase) => Self::Corrupt { path, what: error.to_string() },
            // A schema or a value that is not ours: the file is not what it says.
            _ if matches!(
                error,
                rusqlite::Error::InvalidColumnType(..)
                    | rusqlite::Error::FromSqlConversionFailure(..)
                    | rusqlite::Error::IntegralValueOutOfRange(..)
            ) =>
            {
                Self::Corrupt { path, what: error.to_string() }
            }
            _ => Self::Database { path, message: error.to_string() },
        }
    }

    /// Whether the file itself is at fault, so that moving it aside helps.
    pub(crate) const fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }
}
