//! The connections and their threads.

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use shipwatch_common::time::UnixMs;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::mpsc::{SyncSender, sync_channel},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;

/// Waiting requests per thread; more wait in their callers.
const QUEUE: usize = 256;
/// Numbered by position, from 1. Never edit one that was released: add the next.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001_begin.sql")];

/// Why the store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full; nothing of the transaction was kept.
    #[error("the disk of the data directory is full; free some space, nothing was changed")]
    Full,
    /// The file is damaged.
    #[error(
        "{path} is damaged ({reason}). The last backup is {backup}: stop the server, move the damaged file aside and copy the backup in its place"
    )]
    Corrupt {
        /// Which file.
        path: String,
        /// SQLite's words.
        reason: String,
        /// Where the backup lies, or `missing`.
        backup: String,
    },
    /// Another process has it.
    #[error("{0} is used by another process; is a shipwatch-server running on this data directory already?")]
    Busy(String),
    /// Written by a newer program.
    #[error("{path} has version {found}, this program knows {known}: install the newer version again")]
    Newer {
        /// Which file.
        path: String,
        /// Its version.
        found: usize,
        /// Ours.
        known: usize,
    },
    /// What was asked for is not there.
    #[error("{0} not found")]
    NotFound(String),
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: String,
        /// The system's words.
        source: std::io::Error,
    },
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// Anything else SQLite says.
    #[error("database: {0}")]
    Sql(rusqlite::Error),
    /// Stored JSON that this program cannot read.
    #[error("a stored value cannot be read: {0}")]
    Value(#[from] serde_json::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Sql(error),
        }
    }
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// Runs jobs on the connection that it owns; ends when the sender is dropped.
#[derive(Debug)]
struct Worker {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(name: &str, mut connection: Connection) -> std::io::Result<Self> {
        let (jobs, inbox) = sync_channel::<Job>(QUEUE);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            while let Ok(job) = inbox.recv() {
                job(&mut connection);
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, result) = oneshot::channel();
        let jobs = self.jobs.clone().ok_or(StoreError::Closed)?;
        let job: Job = Box::new(move |connection| {
            // Nobody waits any more when the caller was cancelled; the work is done all the same.
            let _caller_gone = answer.send(work(connection));
        });
        match jobs.try_send(job) {
            Ok(()) => {}
            Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return Err(StoreError::Closed),
            Err(std::sync::mpsc::TrySendError::Full(job)) => {
                tokio::task::spawn_blocking(move || jobs.send(job))
                    .await
                    .map_err(|_| StoreError::Closed)?
                    .map_err(|_| StoreError::Closed)?;
            }
        }
        result.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// `control.db`, opened. Share it in an `Arc`; dropping the last one finishes waiting writes.
#[derive(Debug)]
pub struct Store {
    writer: Worker,
    reader: Worker,
    path: PathBuf,
}

fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError + '_ {
    move |source| {
        if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
            StoreError::Full
        } else {
            StoreError::Io { path: path.display().to_string(), source }
        }
    }
}

impl Store {
    /// Opens or creates `control.db` in `dir`, checks it, migrates it, and renews the backup.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, true)
    }

    /// Opens it beside a server that may run on it, for the command line: without the long check and the backup.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open_beside(dir: &Path) -> Result<Self, StoreError> {
        Self::open_with(dir, false)
    }

    fn open_with(dir: &Path, is_server: bool) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(io_error(dir))?;
        let path = dir.join("control.db");
        let told = |error: rusqlite::Error| explain(&path, error);
        let mut writer = Connection::open(&path).map_err(told)?;
        configure(&writer).map_err(told)?;
        if is_server {
            check(&writer, &path)?;
        }
        migrate(&mut writer, &path)?;
        if is_server {
            back_up(&writer, &path)?;
        }
        let reader =
            Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(told)?;
        reader.busy_timeout(Duration::from_secs(5)).map_err(told)?;
        Ok(Self {
            writer: Worker::start("control-writer", writer).map_err(io_error(&path))?,
            reader: Worker::start("control-reader", reader).map_err(io_error(&path))?,
            path,
        })
    }

    /// One transaction; answers after the commit. An error rolls back.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer
            .run(move |connection| {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let value = work(&transaction)?;
                transaction.commit()?;
                Ok(value)
            })
            .await
    }

    /// Reads a consistent state.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.reader.run(move |connection| work(&connection.transaction()?)).await
    }

    /// Renews the backup; called once a day.
    ///
    /// # Errors
    /// The disk.
    pub async fn back_up(&self) -> Result<(), StoreError> {
        let path = self.path.clone();
        self.reader.run(move |connection| back_up(connection, &path)).await
    }

    /// Removes what is past its time: sessions, tokens, resolved alerts' history, old deployment output.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn sweep(&self, now_ms: UnixMs, keep_ms: i64) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute("DELETE FROM sessions WHERE expires_at_ms < ?1", [now_ms])?;
            tx.execute("DELETE FROM enrolment_tokens WHERE expires_at_ms < ?1 - 86400000 OR uses_left <= 0", [now_ms])?;
            tx.execute("DELETE FROM alert_history WHERE at_ms < ?1 - ?2", [now_ms, keep_ms])?;
            tx.execute("DELETE FROM deliveries WHERE finished_at_ms IS NOT NULL AND finished_at_ms < ?1 - ?2", [now_ms, keep_ms])?;
            tx.execute("DELETE FROM deployment_events WHERE at_ms < ?1 - ?2", [now_ms, keep_ms])?;
            Ok(())
        })
        .await
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // A server that runs twice on one directory would split the truth.
    connection.execute_batch("PRAGMA wal_autocheckpoint = 400;")
}

fn explain(path: &Path, error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, NotADatabase};
    let name = path.display().to_string();
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => corrupt(path, error.to_string()),
        Some(DatabaseBusy | DatabaseLocked) => StoreError::Busy(name),
        Some(CannotOpen) => StoreError::Io { path: name, source: std::io::Error::other(error.to_string()) },
        _ => error.into(),
    }
}

fn backup_path(path: &Path) -> PathBuf {
    path.with_extension("db.bak")
}

fn corrupt(path: &Path, reason: String) -> StoreError {
    let backup = backup_path(path);
    let backup =
        if matches!(backup.try_exists(), Ok(true)) { backup.display().to_string() } else { format!("missing ({})", backup.display()) };
    StoreError::Corrupt { path: path.display().to_string(), reason, backup }
}

fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|error| explain(path, error))?;
    if verdict == "ok" { Ok(()) } else { Err(corrupt(path, verdict)) }
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|error| explain(path, error))?;
    let found = usize::try_from(found).unwrap_or(usize::MAX);
    if found > MIGRATIONS.len() {
        return Err(StoreError::Newer { path: path.display().to_string(), found, known: MIGRATIONS.len() });
    }
    for (at, script) in MIGRATIONS.iter().enumerate().skip(found) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| explain(path, error))?;
        transaction.execute_batch(script)?;
        transaction.pragma_update(None, "user_version", i64::try_from(at + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
    Ok(())
}

/// A whole copy beside the database, replaced by rename.
fn back_up(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let backup = backup_path(path);
    let temporary = path.with_extension("db.bak.tmp");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io_error(&temporary)(error)),
        _ => {}
    }
    connection.execute("VACUUM INTO ?1", [temporary.display().to_string()])?;
    fs::File::open(&temporary).and_then(|file| file.sync_all()).map_err(io_error(&temporary))?;
    fs::rename(&temporary, &backup).map_err(io_error(&backup))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_damaged_file_is_refused_and_its_backup_named() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        let path = dir.path().join("control.db");
        let mut bytes = fs::read(&path).unwrap();
        let len = bytes.len();
        bytes[100..len.min(6000)].fill(0xa5);
        fs::write(&path, &bytes).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("control.db.bak"), "{error}");
        fs::copy(dir.path().join("control.db.bak"), &path).unwrap();
        drop(Store::open(dir.path()).unwrap());
        fs::write(&path, b"not a database at all, but long enough to be read as a header of one").unwrap();
        assert!(matches!(Store::open(dir.path()).unwrap_err(), StoreError::Corrupt { .. }));
    }

    #[tokio::test]
    async fn a_newer_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        Connection::open(dir.path().join("control.db")).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Store::open(dir.path()).unwrap_err(), StoreError::Newer { found: 99, .. }));
    }

    #[tokio::test]
    async fn an_error_rolls_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let failed: Result<(), _> = store
            .write(|tx| {
                tx.execute("INSERT INTO counters (name, value) VALUES ('x', 1)", [])?;
                Err(StoreError::NotFound("it".into()))
            })
            .await;
        assert!(failed.is_err());
        let count: i64 =
            store.read(|tx| Ok(tx.query_row("SELECT count(*) FROM counters WHERE name = 'x'", [], |row| row.get(0))?)).await.unwrap();
        assert_eq!(count, 0);
    }
}
