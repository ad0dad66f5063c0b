//! A day file `YYYY-MM-DD.db`: the sealed chunks of one UTC day.
//!
//! `pairs` is both the dictionary of label pairs and the index: each row has the series that carry the pair, as growing
//! varint deltas. A series is the list of its pairs' ids. A chunk's key is `series << 4 | window of the day`, so that the
//! chunks of a series lie together.
//!
//! # Invariants
//! - One chunk per series and window. Sealing into a window that has one merges both, the newer value winning, and replaces it:
//!   sealing the same samples again changes nothing.
//! - A series, its pairs and its chunks appear in the same transaction.

use super::{
    chunk::{self, Columns, WINDOW_MS},
    index::{Lookup, union},
    part::{Block, Piece, merge},
    sqlite::{self, Mode},
    varint::{Reader, put},
};
use crate::{error::Error, matcher::Matcher};
use rusqlite::{Connection, OptionalExtension as _, Statement, params};
use shipwatch_common::model::Labels;
use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Milliseconds of a day.
pub(crate) const DAY_MS: i64 = 86_400_000;

pub(super) const WINDOW_BITS: u32 = 4;

pub(crate) const MIGRATIONS: &[&str] = &["
    CREATE TABLE meta(version INTEGER NOT NULL);
    CREATE TABLE pairs(id INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL, series BLOB NOT NULL, UNIQUE(name, value));
    CREATE TABLE series(id INTEGER PRIMARY KEY, labels BLOB NOT NULL UNIQUE);
    CREATE TABLE chunks(key INTEGER PRIMARY KEY, t0 INTEGER NOT NULL, t1 INTEGER NOT NULL, n INTEGER NOT NULL, body BLOB NOT NULL);
"];

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
    let mut writer = Writer::new(connection).map_err(wrong)?;
    let (first, last) = (day * DAY_MS, (day + 1) * DAY_MS - 1);
    let mut written = Written::default();
    for (labels, pieces) in parts {
        let (ts, values) = merge(pieces, first, last, &mut |_| written.damaged += 1);
        if ts.is_empty() {
            continue;
        }
        let series = writer.series_id(labels).map_err(wrong)?;
        let mut from = 0;
        while from < ts.len() {
            let window = chunk::window_of(ts[from]);
            let to = from + ts[from..].partition_point(|at| *at < window + WINDOW_MS);
            let key = (series << WINDOW_BITS) | ((window - first) / WINDOW_MS);
            writer.put_chunk(key, &ts[from..to], &values[from..to], &mut written).map_err(wrong)?;
            from = to;
        }
    }
    writer.finish().map_err(wrong)?;
    Ok(written)
}

/// Statements and what they found, for one transaction.
struct Writer<'c> {
    pairs: HashMap<(Box<str>, Box<str>), i64>,
    added: HashMap<i64, Vec<i64>>,
    find_pair: Statement<'c>,
    add_pair: Statement<'c>,
    find_series: Statement<'c>,
    add_series: Statement<'c>,
    find_chunk: Statement<'c>,
    put_chunk: Statement<'c>,
    connection: &'c Connection,
}

impl<'c> Writer<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            pairs: HashMap::new(),
            added: HashMap::new(),
            find_pair: connection.prepare("SELECT id FROM pairs WHERE name = ?1 AND value = ?2")?,
            add_pair: connection.prepare("INSERT INTO pairs(name, value, series) VALUES (?1, ?2, x'')")?,
            find_series: connection.prepare("SELECT id FROM series WHERE labels = ?1")?,
            add_series: connection.prepare("INSERT INTO series(labels) VALUES (?1)")?,
            find_chunk: connection.prepare("SELECT t0, t1, n, body FROM chunks WHERE key = ?1")?,
            put_chunk: connection.prepare("INSERT OR REPLACE INTO chunks(key, t0, t1, n, body) VALUES (?1, ?2, ?3, ?4, ?5)")?,
            connection,
        })
    }

    fn pair_id(&mut self, name: &str, value: &str) -> rusqlite::Result<i64> {
        let key = (Box::from(name), Box::from(value));
        if let Some(id) = self.pairs.get(&key) {
            return Ok(*id);
        }
        let id = match self.find_pair.query_row([name, value], |row| row.get(0)).optional()? {
            Some(id) => id,
            None => self.add_pair.insert([name, value])?,
        };
        self.pairs.insert(key, id);
        Ok(id)
    }

    fn series_id(&mut self, labels: &Labels) -> rusqlite::Result<i64> {
        let mut ids = labels.iter().map(|(name, value)| self.pair_id(name, value)).collect::<rusqlite::Result<Vec<i64>>>()?;
        ids.sort_unstable();
        let mut blob = Vec::with_capacity(ids.len() * 2);
        ids.iter().for_each(|id| put(&mut blob, *id as u64));
        if let Some(id) = self.find_series.query_row([&blob], |row| row.get(0)).optional()? {
            return Ok(id);
        }
        let series = self.add_series.insert([&blob])?;
        ids.iter().for_each(|id| self.added.entry(*id).or_default().push(series));
        Ok(series)
    }

    fn put_chunk(&mut self, key: i64, ts: &[i64], values: &[f64], written: &mut Written) -> rusqlite::Result<()> {
        let before = self.find_chunk.query_row([key], block).optional()?;
        let merged: Option<Columns> = before.map(|before| {
            let fresh = ts.iter().copied().zip(values.iter().copied()).collect();
            merge(&[Piece::Block(before), Piece::Plain(fresh)], i64::MIN, i64::MAX, &mut |_| written.damaged += 1)
        });
        let (ts, values) = merged.as_ref().map_or((ts, values), |(ts, values)| (ts.as_slice(), values.as_slice()));
        let (Some(t0), Some(t1)) = (ts.first(), ts.last()) else { return Ok(()) };
        let body = chunk::encode(ts, values);
        self.put_chunk.execute(params![key, t0, t1, ts.len() as i64, body])?;
        written.chunks += 1;
        written.samples += ts.len() as u64;
        Ok(())
    }

    /// Brings the postings up to date.
    fn finish(self) -> rusqlite::Result<()> {
        let mut read = self.connection.prepare("SELECT series FROM pairs WHERE id = ?1")?;
        let mut write = self.connection.prepare("UPDATE pairs SET series = ?2 WHERE id = ?1")?;
        for (pair, mut added) in self.added {
            let mut blob: Vec<u8> = read.query_row([pair], |row| row.get(0))?;
            let mut last = decode_list(&blob).last().map_or(0, |series| i64::from(*series));
            added.sort_unstable();
            for series in added {
                put(&mut blob, (series - last) as u64);
                last = series;
            }
            write.execute(params![pair, blob])?;
        }
        Ok(())
    }
}

fn block(row: &rusqlite::Row<'_>) -> rusqlite::Result<Block> {
    let body: Vec<u8> = row.get(3)?;
    Ok(Block { t0: row.get(0)?, t1: row.get(1)?, count: row.get(2)?, body: body.into() })
}

/// Series of a posting; a list that is cut short gives what is whole.
pub(super) fn decode_list(blob: &[u8]) -> Vec<u32> {
    let (mut reader, mut last, mut out) = (Reader(blob), 0u64, Vec::new());
    while let Some(delta) = reader.number() {
        last = last.saturating_add(delta);
        let Ok(series) = u32::try_from(last) else { break };
        out.push(series);
    }
    out
}

/// Name and value of a label.
type Pair = (Box<str>, Box<str>);

/// A day file opened for reading, by one query at a time.
#[derive(Debug)]
pub(crate) struct DayReader {
    connection: Connection,
    path: PathBuf,
    pairs: RefCell<HashMap<i64, Pair>>,
}

impl DayReader {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let connection = sqlite::open(path, Mode::Read, MIGRATIONS)?;
        Ok(Self { connection, path: path.to_owned(), pairs: RefCell::default() })
    }

    /// Runs `read` on one state of the file: what retention takes out meanwhile is there until its end.
    pub(crate) fn at_once<T>(&self, read: impl FnOnce(&Self) -> Result<T, Error>) -> Result<T, Error> {
        let state = self.connection.unchecked_transaction().map_err(self.wrong())?;
        let read = read(self)?;
        state.commit().map_err(self.wrong())?;
        Ok(read)
    }

    fn wrong(&self) -> impl Fn(rusqlite::Error) -> Error {
        |e| sqlite::error("read", &self.path, &e)
    }

    /// Cheap signs of damage: the size that the header tells, and that every table can be entered.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let one = |sql: &str| self.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).optional().map_err(self.wrong());
        let told = one("PRAGMA page_count")?.unwrap_or(0) * one("PRAGMA page_size")?.unwrap_or(0);
        let size = std::fs::metadata(&self.path).map_err(|e| Error::io("read", &self.path, &e))?.len();
        let wal = super::recover::beside(&self.path, "-wal");
        let has_wal = std::fs::metadata(wal).is_ok_and(|wal| wal.len() > 0);
        if !has_wal && told as u64 != size {
            return Err(Error::corrupt(&self.path, format!("it has {size} bytes, its header tells {told}")));
        }
        for table in ["pairs", "series", "chunks"] {
            one(&format!("SELECT rowid FROM {table} ORDER BY rowid LIMIT 1"))?;
            one(&format!("SELECT rowid FROM {table} ORDER BY rowid DESC LIMIT 1"))?;
        }
        Ok(())
    }

    pub(crate) fn find(&self, matchers: &[Matcher]) -> Result<Vec<u32>, Error> {
        super::index::resolve(self, matchers)
    }

    /// Labels of series, in the order given.
    pub(crate) fn labels(&self, series: &[u32]) -> Result<Vec<Arc<Labels>>, Error> {
        let mut read = self.connection.prepare("SELECT labels FROM series WHERE id = ?1").map_err(self.wrong())?;
        let mut pair = self.connection.prepare("SELECT name, value FROM pairs WHERE id = ?1").map_err(self.wrong())?;
        let mut known = self.pairs.borrow_mut();
        let mut all = Vec::with_capacity(series.len());
        for id in series {
            let blob: Vec<u8> = read.query_row([id], |row| row.get(0)).map_err(|e| self.missing(e, "a series"))?;
            let (mut reader, mut ids) = (Reader(&blob), Vec::new());
            while let Some(id) = reader.number() {
                let id = id as i64;
                if let Entry::Vacant(unknown) = known.entry(id) {
                    let found: (String, String) =
                        pair.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).map_err(|e| self.missing(e, "a label"))?;
                    unknown.insert((found.0.into(), found.1.into()));
                }
                ids.push(id);
            }
            let pairs = ids.iter().filter_map(|id| known.get(id).cloned());
            let labels = Labels::new(pairs).map_err(|e| Error::corrupt(&self.path, format!("series {id}: {e}")))?;
            all.push(Arc::new(labels));
        }
        Ok(all)
    }

    fn missing(&self, error: rusqlite::Error, what: &str) -> Error {
        match error {
            rusqlite::Error::QueryReturnedNoRows => Error::corrupt(&self.path, format!("{what} of the index is missing")),
            other => self.wrong()(other),
        }
    }

    /// Chunks of series that overlap `[t0, t1]`, in the order of the series.
    pub(crate) fn chunks(&self, series: &[u32], day: i64, t0: i64, t1: i64) -> Result<Vec<Vec<Piece>>, Error> {
        let sql = "SELECT t0, t1, n, body FROM chunks WHERE key BETWEEN ?1 AND ?2 AND t0 <= ?4 AND t1 >= ?3 ORDER BY key";
        let mut read = self.connection.prepare(sql).map_err(self.wrong())?;
        let window = |ts: i64| (ts.clamp(day * DAY_MS, (day + 1) * DAY_MS - 1) - day * DAY_MS) / WINDOW_MS;
        let mut all = Vec::with_capacity(series.len());
        for id in series {
            let key = i64::from(*id) << WINDOW_BITS;
            let rows = read.query_map(params![key | window(t0), key | window(t1), t0, t1], block).map_err(self.wrong())?;
            let blocks: rusqlite::Result<Vec<Piece>> = rows.map(|row| row.map(Piece::Block)).collect();
            all.push(blocks.map_err(self.wrong())?);
        }
        Ok(all)
    }

    /// Every label name of the day, or every value of one.
    pub(crate) fn names_or_values(&self, name: Option<&str>) -> Result<Vec<String>, Error> {
        let sql = match name {
            None => "SELECT DISTINCT name FROM pairs WHERE ?1 IS NULL",
            Some(_) => "SELECT value FROM pairs WHERE name = ?1",
        };
        let mut read = self.connection.prepare(sql).map_err(self.wrong())?;
        let rows = read.query_map([name], |row| row.get(0)).map_err(self.wrong())?;
        rows.collect::<rusqlite::Result<_>>().map_err(self.wrong())
    }
}

impl Lookup for DayReader {
    fn all(&self) -> Result<Vec<u32>, Error> {
        let mut read = self.connection.prepare("SELECT id FROM series ORDER BY id").map_err(self.wrong())?;
        let rows = read.query_map([], |row| row.get(0)).map_err(self.wrong())?;
        rows.collect::<rusqlite::Result<_>>().map_err(self.wrong())
    }

    fn with_value(&self, name: &str, value: &str) -> Result<Vec<u32>, Error> {
        let sql = "SELECT series FROM pairs WHERE name = ?1 AND value = ?2";
        let blob: Option<Vec<u8>> = self.connection.query_row(sql, [name, value], |row| row.get(0)).optional().map_err(self.wrong())?;
        Ok(blob.map(|blob| decode_list(&blob)).unwrap_or_default())
    }

    fn with_any(&self, name: &str, pass: &dyn Fn(&str) -> bool) -> Result<Vec<u32>, Error> {
        let mut read = self.connection.prepare("SELECT value, series FROM pairs WHERE name = ?1").map_err(self.wrong())?;
        let mut rows = read.query([name]).map_err(self.wrong())?;
        let mut lists = Vec::new();
        while let Some(row) = rows.next().map_err(self.wrong())? {
            let value: String = row.get(0).map_err(self.wrong())?;
            if pass(&value) {
                let blob: Vec<u8> = row.get(1).map_err(self.wrong())?;
                lists.push(decode_list(&blob));
            }
        }
        Ok(union(lists))
    }
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
