//! Opening SQLite files, their format versions, and what SQLite's errors mean here.
//!
//! # Invariants
//! - Migrations are numbered by their place in the list and never edited; each runs in one transaction with its number.
//! - A commit is on disk before it returns (`synchronous = FULL` with a write-ahead log).
//! - A file of a newer format is refused and left as it is.

use crate::error::Error;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::{path::Path, time::Duration};

/// Turns an error of SQLite into ours.
pub(crate) fn error(action: &'static str, path: &Path, error: &rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Full { path: path.to_owned() },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::corrupt(path, error.to_string()),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::InUse { path: path.to_owned() },
        // Rows of another type or shape than the schema says: somebody else wrote them, or the page is damaged.
        None if matches!(error, rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::FromSqlConversionFailure(..)) => {
            Error::corrupt(path, error.to_string())
        }
        _ => Error::Io { action, path: path.to_owned(), reason: error.to_string() },
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Only this connection may use the file.
    Exclusive,
    /// Others read while this one writes.
    Write,
    /// Reads; the file must be there.
    Read,
}

/// Opens a file and brings it to the newest format.
pub(crate) fn open(path: &Path, mode: Mode, migrations: &[&str]) -> Result<Connection, Error> {
    let wrong = |e: &rusqlite::Error| error("open", path, e);
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if mode != Mode::Read {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let mut connection = Connection::open_with_flags(path, flags).map_err(|e| wrong(&e))?;
    connection.busy_timeout(Duration::from_secs(if mode == Mode::Exclusive { 1 } else { 10 })).map_err(|e| wrong(&e))?;
    let pragmas = match mode {
        Mode::Exclusive => {
            "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA temp_store=MEMORY;"
        }
        Mode::Write => "PRAGMA page_size=2048; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA temp_store=MEMORY;",
        Mode::Read => "PRAGMA query_only=ON; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-256;",
    };
    connection.execute_batch(pragmas).map_err(|e| wrong(&e))?;
    let found = version(&connection).map_err(|e| wrong(&e))?;
    let known = migrations.len() as i64;
    if found > known {
        return Err(Error::Newer { path: path.to_owned(), found, known });
    }
    if found < 0 || (found == 0 && mode == Mode::Read) {
        return Err(Error::corrupt(path, "it has no format version"));
    }
    if mode != Mode::Read {
        migrate(&mut connection, found, migrations).map_err(|e| wrong(&e))?;
    }
    Ok(connection)
}

/// 0 for a file without tables.
fn version(connection: &Connection) -> rusqlite::Result<i64> {
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(0);
    }
    match connection.query_row("SELECT version FROM meta", [], |row| row.get(0)) {
        // Tables, but none of ours: not a file of this store.
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(-1),
        Err(rusqlite::Error::SqliteFailure(code, _)) if code.code == ErrorCode::Unknown => Ok(-1),
        other => other,
    }
}

fn migrate(connection: &mut Connection, found: i64, migrations: &[&str]) -> rusqlite::Result<()> {
    for (at, sql) in migrations.iter().enumerate().skip(found as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.execute("DELETE FROM meta", [])?;
        transaction.execute("INSERT INTO meta(version) VALUES (?1)", [at as i64 + 1])?;
        transaction.commit()?;
    }
    Ok(())
}
