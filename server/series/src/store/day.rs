//! A day file `YYYY-MM-DD.db`: the sealed chunks of one UTC day.
//!
//! It has an index (see `index_file`). The chunks of 128 series in a window are one row of `groups`, with
//! the key `series / 128 << 4 | window of the day`: series are numbered in the order of their labels by the first seal, so a
//! metric of all hosts lies together. `chunks` is of format 1, one row per series and window; such rows are read, and move into
//! their group when the group is written.
//!
//! # Invariants
//! - One chunk per series and window, in its group or in a row of format 1, never in both. Sealing into a window that has one
//!   merges both, the newer value winning, and replaces it: sealing the same samples again changes nothing.
//! - A series, its pairs and its chunks appear in the same transaction.

use super::{
    chunk::{self, WINDOW_MS},
    group::{self, Chunks},
    index_file::IndexWriter,
    part::{Block, Piece, merge},
    sqlite::{self, Mode},
};
use crate::error::Error;
use rusqlite::{Connection, OptionalExtension as _, Statement, params};
use shipwatch_common::model::Labels;
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Milliseconds of a day.
pub(crate) const DAY_MS: i64 = 86_400_000;

pub(crate) const WINDOW_BITS: u32 = 4;

/// Groups that wait for more of their series before they are written; bounds the memory of a seal.
const PENDING_GROUPS: usize = 64;

pub(crate) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta(version INTEGER NOT NULL);
    CREATE TABLE pairs(id INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL, series BLOB NOT NULL, UNIQUE(name, value));
    CREATE TABLE series(id INTEGER PRIMARY KEY, labels BLOB NOT NULL UNIQUE);
    CREATE TABLE chunks(key INTEGER PRIMARY KEY, t0 INTEGER NOT NULL, t1 INTEGER NOT NULL, n INTEGER NOT NULL, body BLOB NOT NULL);
",
    "
    CREATE TABLE groups(key INTEGER PRIMARY KEY, body BLOB NOT NULL);
",
];

/// Days since 1970-01-01.
pub(crate) const fn day_of(ts: i64) -> i64 {
    ts.div_euclid(DAY_MS)
}

/// `2026-11-23.db`.
pub(crate) fn file_name(day: i64) -> String {
    let date = crate::calendar::civil(day);
    format!("{:04}-{:02}-{:02}.db", date.year, date.month, date.day)
}

/// The day of a file name, if it is a day file's.
pub(crate) fn parse_name(name: &str) -> Option<i64> {
    let date = name.strip_suffix(".db")?;
    let mut parts = date.splitn(3, '-');
    let mut number = |len: usize| parts.next().filter(|part| part.len() == len && part.bytes().all(|b| b.is_ascii_digit()))?.parse().ok();
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    let days = crate::calendar::days_from_civil(year, month, day);
    (file_name(days) == name).then_some(days)
}

/// What one seal put into a day.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Written {
    pub(crate) chunks: u64,
    pub(crate) samples: u64,
    pub(crate) damaged: u64,
}

/// Writes the samples of one day in one transaction. `parts` are pieces by series, later ones winning.
pub(crate) fn write(path: &Path, day: i64, parts: &[(Arc<Labels>, Vec<Piece>)], max_pages: Option<u32>) -> Result<Written, Error> {
    let connection = sqlite::open(path, Mode::Write, MIGRATIONS)?;
    let wrong = |e: rusqlite::Error| sqlite::error("write", path, &e);
    if let Some(pages) = max_pages {
        connection.pragma_update(None, "max_page_count", pages).map_err(wrong)?;
    }
    let transaction = connection.unchecked_transaction().map_err(wrong)?;
    let written = write_parts(&transaction, path, day, parts)?;
    transaction.commit().map_err(wrong)?;
    // The log is emptied here so that the file alone is the day. Readers may delay it; the commit is safe either way.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(wrong)?;
    Ok(written)
}

fn write_parts(connection: &Connection, path: &Path, day: i64, parts: &[(Arc<Labels>, Vec<Piece>)]) -> Result<Written, Error> {
    let wrong = |e: rusqlite::Error| sqlite::error("write", path, &e);
    let mut writer = Writer::new(connection, day).map_err(wrong)?;
    let (first, last) = (day * DAY_MS, (day + 1) * DAY_MS - 1);
    let mut written = Written::default();
    for (labels, pieces) in parts {
        let (ts, values) = merge(pieces, first, last, &mut |_| written.damaged += 1);
        if ts.is_empty() {
            continue;
        }
        let series = writer.index.series_id(labels).map_err(wrong)?;
        let mut from = 0;
        while from < ts.len() {
            let window = chunk::window_of(ts[from]);
            let to = from + ts[from..].partition_point(|at| *at < window + WINDOW_MS);
            let window = (window - first) / WINDOW_MS;
            writer.put_chunk(series, window, &ts[from..to], &values[from..to], &mut written).map_err(wrong)?;
            from = to;
        }
    }
    writer.finish(&mut written).map_err(wrong)?;
    Ok(written)
}

/// Statements and what they found, for one transaction.
struct Writer<'c> {
    index: IndexWriter<'c>,
    find_chunk: Statement<'c>,
    drop_chunk: Statement<'c>,
    find_group: Statement<'c>,
    put_group: Statement<'c>,
    /// Whether there are rows of format 1.
    has_chunks: bool,
    day: i64,
    /// Chunks that wait for others of their group.
    pending: BTreeMap<i64, Chunks>,
}

impl<'c> Writer<'c> {
    fn new(connection: &'c Connection, day: i64) -> rusqlite::Result<Self> {
        Ok(Self {
            index: IndexWriter::new(connection)?,
            find_chunk: connection.prepare("SELECT t0, t1, n, body FROM chunks WHERE key = ?1")?,
            drop_chunk: connection.prepare("DELETE FROM chunks WHERE key = ?1")?,
            find_group: connection.prepare("SELECT body FROM groups WHERE key = ?1")?,
            put_group: connection.prepare("INSERT OR REPLACE INTO groups(key, body) VALUES (?1, ?2)")?,
            has_chunks: connection.query_row("SELECT 1 FROM chunks LIMIT 1", [], |_| Ok(())).optional()?.is_some(),
            day,
            pending: BTreeMap::new(),
        })
    }

    fn put_chunk(&mut self, series: i64, window: i64, ts: &[i64], values: &[f64], written: &mut Written) -> rusqlite::Result<()> {
        let mut fresh = new_block(ts, values);
        if self.has_chunks {
            let key = (series << WINDOW_BITS) | window;
            if let Some(before) = self.find_chunk.query_row([key], block).optional()? {
                fresh = merge_blocks(before, fresh, written);
                self.drop_chunk.execute([key])?;
            }
        }
        let group = i64::from(group::SERIES);
        let key = (series / group) << WINDOW_BITS | window;
        self.pending.entry(key).or_default().insert((series % group) as u8, fresh);
        if self.pending.len() > PENDING_GROUPS {
            self.flush(written)?;
        }
        Ok(())
    }

    /// Writes the groups that wait, together with what they have already.
    fn flush(&mut self, written: &mut Written) -> rusqlite::Result<()> {
        for (key, fresh) in std::mem::take(&mut self.pending) {
            let window = window_start(self.day, key);
            let before: Option<Vec<u8>> = self.find_group.query_row([key], |row| row.get(0)).optional()?;
            let mut chunks = match before.map(|bytes| group::decode(window, &bytes, |_| true)) {
                Some(Ok(chunks)) => chunks,
                Some(Err(_)) => {
                    written.damaged += 1;
                    Chunks::new()
                }
                None => Chunks::new(),
            };
            for (place, block) in fresh {
                let block = match chunks.remove(&place) {
                    Some(before) => merge_blocks(before, block, written),
                    None => block,
                };
                written.chunks += 1;
                written.samples += u64::from(block.count);
                chunks.insert(place, block);
            }
            let body = group::encode(window, &chunks).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
            self.put_group.execute(params![key, body])?;
        }
        Ok(())
    }

    /// Writes what waits and brings the postings up to date.
    fn finish(mut self, written: &mut Written) -> rusqlite::Result<()> {
        self.flush(written)?;
        self.index.finish()
    }
}

/// Number of the window in the day that a time lies in, or is nearest to.
pub(crate) fn window_in(day: i64, ts: i64) -> i64 {
    (ts.clamp(day * DAY_MS, (day + 1) * DAY_MS - 1) - day * DAY_MS) / WINDOW_MS
}

/// Start of a group's window.
pub(crate) fn window_start(day: i64, key: i64) -> i64 {
    day * DAY_MS + (key & ((1 << WINDOW_BITS) - 1)) * WINDOW_MS
}

/// A chunk of a group; the samples are at least one.
fn new_block(ts: &[i64], values: &[f64]) -> Block {
    let (t0, t1) = (ts.first().copied().unwrap_or(0), ts.last().copied().unwrap_or(0));
    Block { t0, t1, count: ts.len() as u32, body: chunk::encode_bare(ts, values).into() }
}

/// Both together; the fresh one wins.
fn merge_blocks(before: Block, fresh: Block, written: &mut Written) -> Block {
    let both = [Piece::Block(before), Piece::Block(fresh)];
    let (ts, values) = merge(&both, i64::MIN, i64::MAX, &mut |_| written.damaged += 1);
    new_block(&ts, &values)
}

pub(crate) fn block(row: &rusqlite::Row<'_>) -> rusqlite::Result<Block> {
    let body: Vec<u8> = row.get(3)?;
    Ok(Block { t0: row.get(0)?, t1: row.get(1)?, count: row.get(2)?, body: body.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_day_files_read_and_write() {
        for (day, name) in [(0, "1970-01-01.db"), (20_780, "2026-11-23.db"), (19_782, "2024-02-29.db")] {
            assert_eq!(file_name(day), name);
            assert_eq!(parse_name(name), Some(day));
        }
        for bad in ["head.db", "2026-02-30.db", "2026-1-01.db", "2026-01-01.db.corrupt-1", "2026-01-01.db-wal", "+026-01-01.db"] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }
}
