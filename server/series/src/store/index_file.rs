//! The index of a file: labels of series, and the series that have them. Day files and files of summaries have the same tables:
//! `pairs` is both the dictionary of label pairs and the index, each row with the series that carry the pair as growing varint
//! deltas; a series is the list of its pairs' ids.
//!
//! # Invariants
//! - One query at a time uses a reader; what it keeps between queries is bounded, and is true of the file as long as no
//!   series is taken out of it.
//! - A series and its pairs appear in the same transaction.

use super::{
    index::{Lookup, union},
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

/// Series whose labels, and pairs which, an open file keeps.
const KEPT: usize = 4_096;

/// Name and value of a label.
type Pair = (Box<str>, Box<str>);

/// A file opened for reading, by one query at a time.
#[derive(Debug)]
pub(crate) struct IndexReader {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    pairs: RefCell<HashMap<i64, Pair>>,
    /// Of series that were asked for. What a file has under a number changes only when retention takes series out, after which no
    /// reader of before is used.
    labels: RefCell<HashMap<u32, Arc<Labels>>>,
}

impl IndexReader {
    pub(crate) fn open(path: &Path, migrations: &[&str]) -> Result<Self, Error> {
        let connection = sqlite::open(path, Mode::Read, migrations)?;
        Ok(Self { connection, path: path.to_owned(), pairs: RefCell::default(), labels: RefCell::default() })
    }

    /// Runs `read` on one state of the file: what retention takes out meanwhile is there until its end.
    pub(crate) fn at_once<T>(&self, read: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let state = self.connection.unchecked_transaction().map_err(self.wrong())?;
        let read = read()?;
        state.commit().map_err(self.wrong())?;
        Ok(read)
    }

    pub(crate) fn wrong(&self) -> impl Fn(rusqlite::Error) -> Error {
        |e| sqlite::error("read", &self.path, &e)
    }

    /// Cheap signs of damage: the size that the header tells, and that every table can be entered.
    pub(crate) fn check(&self, tables: &[&str]) -> Result<(), Error> {
        let one = |sql: &str| self.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).optional().map_err(self.wrong());
        let told = one("PRAGMA page_count")?.unwrap_or(0) * one("PRAGMA page_size")?.unwrap_or(0);
        let size = std::fs::metadata(&self.path).map_err(|e| Error::io("read", &self.path, &e))?.len();
        let wal = super::recover::beside(&self.path, "-wal");
        let has_wal = std::fs::metadata(wal).is_ok_and(|wal| wal.len() > 0);
        if !has_wal && told as u64 != size {
            return Err(Error::corrupt(&self.path, format!("it has {size} bytes, its header tells {told}")));
        }
        for table in tables {
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
        let (mut known, mut kept) = (self.pairs.borrow_mut(), self.labels.borrow_mut());
        if known.len() > KEPT {
            known.clear();
        }
        let mut all = Vec::with_capacity(series.len());
        for id in series {
            if let Some(labels) = kept.get(id) {
                all.push(labels.clone());
                continue;
            }
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
            let labels = Arc::new(labels);
            if kept.len() < KEPT {
                kept.insert(*id, labels.clone());
            }
            all.push(labels);
        }
        Ok(all)
    }

    fn missing(&self, error: rusqlite::Error, what: &str) -> Error {
        match error {
            rusqlite::Error::QueryReturnedNoRows => Error::corrupt(&self.path, format!("{what} of the index is missing")),
            other => self.wrong()(other),
        }
    }

    /// Every label name of the file, or every value of one.
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

impl Lookup for IndexReader {
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

    fn with_any(&self, name: &str, prefix: &str, pass: &dyn Fn(&str) -> bool) -> Result<Vec<u32>, Error> {
        // The index has this order, which is that of the bytes.
        let sql = "SELECT value, series FROM pairs WHERE name = ?1 AND value >= ?2 ORDER BY value";
        let mut read = self.connection.prepare(sql).map_err(self.wrong())?;
        let mut rows = read.query([name, prefix]).map_err(self.wrong())?;
        let mut lists = Vec::new();
        while let Some(row) = rows.next().map_err(self.wrong())? {
            let value: String = row.get(0).map_err(self.wrong())?;
            if !value.starts_with(prefix) {
                break;
            }
            if pass(&value) {
                let blob: Vec<u8> = row.get(1).map_err(self.wrong())?;
                lists.push(decode_list(&blob));
            }
        }
        Ok(union(lists))
    }
}

/// Adds series to the index, in one transaction.
pub(crate) struct IndexWriter<'c> {
    pairs: HashMap<(Box<str>, Box<str>), i64>,
    added: HashMap<i64, Vec<i64>>,
    find_pair: Statement<'c>,
    add_pair: Statement<'c>,
    find_series: Statement<'c>,
    add_series: Statement<'c>,
    connection: &'c Connection,
}

impl<'c> IndexWriter<'c> {
    pub(crate) fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            pairs: HashMap::new(),
            added: HashMap::new(),
            find_pair: connection.prepare("SELECT id FROM pairs WHERE name = ?1 AND value = ?2")?,
            add_pair: connection.prepare("INSERT INTO pairs(name, value, series) VALUES (?1, ?2, x'')")?,
            find_series: connection.prepare("SELECT id FROM series WHERE labels = ?1")?,
            add_series: connection.prepare("INSERT INTO series(labels) VALUES (?1)")?,
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

    pub(crate) fn series_id(&mut self, labels: &Labels) -> rusqlite::Result<i64> {
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

    /// Brings the postings up to date.
    pub(crate) fn finish(self) -> rusqlite::Result<()> {
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

/// Series of a posting; a list that is cut short gives what is whole.
pub(crate) fn decode_list(blob: &[u8]) -> Vec<u32> {
    let (mut reader, mut last, mut out) = (Reader(blob), 0u64, Vec::new());
    while let Some(delta) = reader.number() {
        last = last.saturating_add(delta);
        let Ok(series) = u32::try_from(last) else { break };
        out.push(series);
    }
    out
}
