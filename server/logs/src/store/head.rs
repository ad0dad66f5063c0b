//! `head.db`: what was committed and is not sealed yet, and how far each sender has come.
//!
//! # Invariants
//! - A row has lines of one stream, one file and one UTC day, in file order. Its number grows with arrival and is never given
//!   twice, not even when the head itself was lost: it starts above every mark in the day files.
//! - The lines, the lane's mark and the files' positions are written in one transaction.

use super::{
    block::{self, Columns, Line, Lines, Origin},
    counts::Counts,
    day::{self, Day},
    frame::Bad,
};
use crate::error::{Error, Result};
use rusqlite::{Connection, OptionalExtension as _, params};
use shipwatch_common::{
    model::{FileId, LogLine},
    time::UnixMs,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Format of the head that this program writes.
pub(crate) const FORMAT: i64 = 1;
/// Senders and files that are not heard of for this long are forgotten.
const FORGET_AFTER_MS: i64 = 90 * 86_400_000;
/// Files and lanes remembered at most; the longest unheard of go first.
const REMEMBERED_MAX: i64 = 1_000_000;

pub(crate) const SCHEMA: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    day INTEGER NOT NULL,
    labels TEXT NOT NULL,
    t0 INTEGER NOT NULL,
    t1 INTEGER NOT NULL,
    n INTEGER NOT NULL,
    raw_bytes INTEGER NOT NULL,
    severities INTEGER NOT NULL,
    counts BLOB NOT NULL,
    cols BLOB NOT NULL,
    body BLOB NOT NULL);
CREATE INDEX batches_by_stream ON batches (day, labels);
CREATE TABLE marks (source TEXT PRIMARY KEY, seq INTEGER NOT NULL, checked_ms INTEGER) WITHOUT ROWID;
CREATE TABLE positions (
    source_agent TEXT NOT NULL,
    file BLOB NOT NULL,
    end_offset INTEGER NOT NULL,
    checked_ms INTEGER,
    PRIMARY KEY (source_agent, file)) WITHOUT ROWID;
";

/// Jobs of erasing that are not done. A program that does not know them leaves them alone.
const ERASURES: &str = "CREATE TABLE IF NOT EXISTS erasures (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    start_ns INTEGER NOT NULL,
    end_ns INTEGER NOT NULL)";

/// What is added to the running totals.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) duplicate_lines: u64,
    pub(crate) duplicate_appends: u64,
    pub(crate) cut_lines: u64,
    pub(crate) redated_lines: u64,
}

impl Tally {
    pub(crate) const fn named(&self) -> [(&'static str, u64); 4] {
        [
            ("duplicate_lines", self.duplicate_lines),
            ("duplicate_appends", self.duplicate_appends),
            ("cut_lines", self.cut_lines),
            ("redated_lines", self.redated_lines),
        ]
    }
}

/// Rows of one stream in one day.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pending {
    pub(crate) raw_bytes: u64,
    pub(crate) rows: u64,
    /// When a seal saw them first; the clock is told by the caller.
    pub(crate) seen_ms: Option<UnixMs>,
}

/// The open head. Owned by the writer's thread.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) conn: Connection,
    pub(crate) path: PathBuf,
}

/// A row that is to be written.
#[derive(Debug)]
pub(crate) struct NewRow<'a> {
    pub(crate) day: Day,
    pub(crate) labels: &'a str,
    pub(crate) origin: &'a Origin,
    pub(crate) lines: &'a [LogLine],
}

/// The weight of lines against the sizes in the configuration: text and a little for the rest.
pub(crate) const fn raw_bytes(text_bytes: usize, lines: usize) -> u64 {
    (text_bytes + lines * 16) as u64
}

impl Head {
    /// Opens or makes the head, checking all of it: it is small.
    pub(crate) fn open(path: &Path, max_bytes: u64) -> Result<Self> {
        let sql = |error: rusqlite::Error| Error::sql(path, &error);
        let conn = Connection::open(path).map_err(sql)?;
        day::prepare(&conn, path, SCHEMA, FORMAT)?;
        conn.execute_batch(ERASURES).map_err(sql)?;
        let verdict: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sql)?;
        if verdict != "ok" {
            return Err(Error::Corrupt { path: path.display().to_string(), what: verdict });
        }
        let page: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(sql)?;
        let pages = i64::try_from(max_bytes).unwrap_or(i64::MAX) / page.max(512);
        conn.pragma_update(None, "max_page_count", pages.max(1)).map_err(sql)?;
        Ok(Self { conn, path: path.to_owned() })
    }

    pub(crate) fn error(&self) -> impl Fn(rusqlite::Error) -> Error + use<> {
        let path = self.path.clone();
        move |error| Error::sql(&path, &error)
    }

    /// Makes the next row's number larger than `floor`.
    pub(crate) fn start_above(&self, floor: i64) -> Result<()> {
        let last: Option<i64> = self
            .conn
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'batches'", [], |row| row.get(0))
            .optional()
            .map_err(self.error())?;
        if last.is_some_and(|last| last >= floor) || floor <= 0 {
            return Ok(());
        }
        let set = match last {
            Some(_) => "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'batches'",
            None => "INSERT INTO sqlite_sequence (name, seq) VALUES ('batches', ?1)",
        };
        self.conn.execute(set, [floor]).map(drop).map_err(self.error())
    }

    /// What waits for being sealed.
    pub(crate) fn pending(&self) -> Result<HashMap<(Day, String), Pending>> {
        let mut statement =
            self.conn.prepare("SELECT day, labels, sum(raw_bytes), count(*) FROM batches GROUP BY day, labels").map_err(self.error())?;
        let rows = statement.query_map([], |row| {
            let key = (Day(row.get(0)?), row.get(1)?);
            Ok((key, Pending { raw_bytes: unsigned(row.get(2)?), rows: unsigned(row.get(3)?), seen_ms: None }))
        });
        rows.and_then(Iterator::collect).map_err(self.error())
    }

    /// Text and rows of one stream of one day that wait for being sealed.
    pub(crate) fn waiting(&self, day: Day, labels: &str) -> Result<(u64, u64)> {
        self.conn
            .query_row(
                "SELECT coalesce(sum(raw_bytes), 0), count(*) FROM batches WHERE day = ?1 AND labels = ?2",
                params![day.0, labels],
                |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))),
            )
            .map_err(self.error())
    }

    /// Deletes the rows of a stream that its day's file has. Returns their number.
    pub(crate) fn delete_sealed(&self, day: Day, labels: &str, upto: i64) -> Result<usize> {
        self.conn
            .execute("DELETE FROM batches WHERE day = ?1 AND labels = ?2 AND id <= ?3", params![day.0, labels, upto])
            .map_err(self.error())
    }

    /// The sequence up to which a lane was applied.
    pub(crate) fn mark(&self, source: &str) -> Result<Option<i64>> {
        self.conn.query_row("SELECT seq FROM marks WHERE source = ?1", [source], |row| row.get(0)).optional().map_err(self.error())
    }

    pub(crate) fn set_mark(&self, source: &str, seq: i64) -> Result<()> {
        self.conn
            .execute(
                "INSERT INTO marks (source, seq) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET seq = excluded.seq, checked_ms = NULL",
                params![source, seq],
            )
            .map(drop)
            .map_err(self.error())
    }

    /// How far a file was stored.
    pub(crate) fn position(&self, origin: &Origin) -> Result<Option<i64>> {
        self.conn
            .query_row(
                "SELECT end_offset FROM positions WHERE source_agent = ?1 AND file = ?2",
                params![&*origin.agent, file_key(origin.file)],
                |row| row.get(0),
            )
            .optional()
            .map_err(self.error())
    }

    pub(crate) fn set_position(&self, origin: &Origin, end_offset: i64) -> Result<()> {
        self.conn
            .execute(
                "INSERT INTO positions (source_agent, file, end_offset) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET end_offset = excluded.end_offset, checked_ms = NULL",
                params![&*origin.agent, file_key(origin.file), end_offset],
            )
            .map(drop)
            .map_err(self.error())
    }

    /// Adds one row and returns its number and weight.
    pub(crate) fn insert(&self, row: &NewRow<'_>) -> Result<(u64, u64)> {
        let bad = |error: Bad| Error::Invalid(format!("a batch of {} lines cannot be stored: {error}", row.lines.len()));
        let lines: Vec<Line> = row
            .lines
            .iter()
            .zip(0u32..)
            .map(|(line, index)| Line {
                id: crate::EntryId { ts_ns: line.ts_ns, batch: 0, index },
                origin: 0,
                end_offset: line.end_offset,
                severity: line.severity,
                truncated: line.truncated,
            })
            .collect();
        let texts = row.lines.iter().map(|line| line.text.as_str());
        let encoded = block::encode(std::slice::from_ref(row.origin), &lines, texts.clone(), 1).map_err(bad)?;
        let counts = Counts::of(row.lines.iter().map(|line| (line.ts_ns, line.severity)));
        let (t0, t1) = row.lines.iter().fold((i64::MAX, i64::MIN), |(t0, t1), line| (t0.min(line.ts_ns), t1.max(line.ts_ns)));
        let raw = raw_bytes(texts.map(str::len).sum(), lines.len());
        self.conn
            .execute(
                "INSERT INTO batches (day, labels, t0, t1, n, raw_bytes, severities, counts, cols, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![
                    row.day.0,
                    row.labels,
                    t0,
                    t1,
                    signed(lines.len() as u64),
                    signed(raw),
                    counts.severities(),
                    counts.encode().map_err(bad)?,
                    encoded.cols,
                    encoded.body
                ],
            )
            .map_err(self.error())?;
        Ok((unsigned(self.conn.last_insert_rowid()), raw))
    }

    pub(crate) fn add(&self, tally: &Tally) -> Result<()> {
        self.add_named(&tally.named())
    }

    /// Adds to running totals.
    pub(crate) fn add_named(&self, named: &[(&str, u64)]) -> Result<()> {
        for (key, value) in named.iter().copied().filter(|(_, value)| *value > 0) {
            self.conn
                .execute(
                    "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = value + excluded.value",
                    params![key, signed(value)],
                )
                .map_err(self.error())?;
        }
        Ok(())
    }

    /// Forgets senders and files that were not heard of for long. A row that was touched since the last call gets the time
    /// of this call.
    pub(crate) fn forget(&self, now_ms: UnixMs) -> Result<usize> {
        let mut forgotten = 0;
        for (table, key) in [("marks", "source"), ("positions", "source_agent, file")] {
            let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| self.conn.execute(sql, values).map_err(self.error());
            run(&format!("UPDATE {table} SET checked_ms = ?1 WHERE checked_ms IS NULL OR checked_ms > ?1"), &[&now_ms])?;
            let before = now_ms.saturating_sub(FORGET_AFTER_MS);
            forgotten += run(&format!("DELETE FROM {table} WHERE checked_ms < ?1"), &[&before])?;
            let rows: i64 = self.conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).map_err(self.error())?;
            let excess = rows - REMEMBERED_MAX;
            if excess > 0 {
                let oldest = format!("SELECT {key} FROM {table} ORDER BY checked_ms LIMIT ?1");
                forgotten += run(&format!("DELETE FROM {table} WHERE ({key}) IN ({oldest})"), &[&excess])?;
            }
        }
        Ok(forgotten)
    }
}

/// Reads the lines of a row; its number takes the place of the batch.
pub(crate) fn decode(id: i64, cols: &[u8], body: &[u8]) -> std::result::Result<Lines, Bad> {
    Lines::decode(Columns::decode(cols, Some(unsigned(id)))?, body)
}

fn file_key(file: FileId) -> Vec<u8> {
    file.0.to_be_bytes().to_vec()
}

/// SQLite's integers are signed; ours are never near the bound.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The other way; a damaged negative number counts as nothing.
pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
