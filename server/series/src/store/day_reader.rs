//! Reading a day file: see `day` for what it holds.
//!
//! # Invariants
//! - One query at a time uses a reader; what it keeps between queries is bounded, and is true of the day as long as no
//!   series is taken out of it.

use super::{
    day::{MIGRATIONS, WINDOW_BITS, block, decode_list, window_in, window_start},
    group,
    index::{Lookup, union},
    part::Piece,
    sqlite::{self, Mode},
    varint::Reader,
};
use crate::{error::Error, matcher::Matcher};
use rusqlite::{Connection, OptionalExtension as _, params};
use shipwatch_common::model::Labels;
use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Series whose labels, and pairs which, an open day file keeps.
const KEPT: usize = 4_096;

/// Name and value of a label.
type Pair = (Box<str>, Box<str>);

/// A day file opened for reading, by one query at a time.
#[derive(Debug)]
pub(crate) struct DayReader {
    connection: Connection,
    path: PathBuf,
    pairs: RefCell<HashMap<i64, Pair>>,
    /// Of series that were asked for. What a day has under a number changes only when retention takes series out, after which no
    /// reader of before is used.
    labels: RefCell<HashMap<u32, Arc<Labels>>>,
}

impl DayReader {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let connection = sqlite::open(path, Mode::Read, MIGRATIONS)?;
        Ok(Self { connection, path: path.to_owned(), pairs: RefCell::default(), labels: RefCell::default() })
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
        for table in ["pairs", "series", "chunks", "groups"] {
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

    /// Chunks of series that overlap `[t0, t1]`, in the order of the series, which grow. `damaged` is told of groups that cannot
    /// be read.
    pub(crate) fn chunks(
        &self,
        series: &[u32],
        day: i64,
        (t0, t1): (i64, i64),
        damaged: &mut dyn FnMut(&'static str),
    ) -> Result<Vec<Vec<Piece>>, Error> {
        let mut all = self.old_chunks(series, day, t0, t1)?;
        let mut read = self.connection.prepare("SELECT key, body FROM groups WHERE key BETWEEN ?1 AND ?2").map_err(self.wrong())?;
        let mut from = 0;
        while let Some(first) = series.get(from) {
            let group = first / group::SERIES;
            let to = from + series[from..].partition_point(|id| id / group::SERIES == group);
            let places: Vec<u8> = series[from..to].iter().map(|id| (id % group::SERIES) as u8).collect();
            let key = i64::from(group) << WINDOW_BITS;
            let mut rows = read.query([key | window_in(day, t0), key | window_in(day, t1)]).map_err(self.wrong())?;
            while let Some(row) = rows.next().map_err(self.wrong())? {
                let key = row.get(0).map_err(self.wrong())?;
                let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(self.wrong())?;
                match group::decode(window_start(day, key), body, |place| places.binary_search(&place).is_ok()) {
                    Ok(chunks) => {
                        for (place, block) in chunks.into_iter().filter(|(_, block)| block.t0 <= t1 && block.t1 >= t0) {
                            if let Ok(at) = places.binary_search(&place) {
                                all[from + at].push(Piece::Block(block));
                            }
                        }
                    }
                    Err(reason) => damaged(reason),
                }
            }
            from = to;
        }
        Ok(all)
    }

    /// Chunks of format 1.
    fn old_chunks(&self, series: &[u32], day: i64, t0: i64, t1: i64) -> Result<Vec<Vec<Piece>>, Error> {
        let any = self.connection.query_row("SELECT 1 FROM chunks LIMIT 1", [], |_| Ok(())).optional().map_err(self.wrong())?;
        if any.is_none() {
            return Ok(vec![Vec::new(); series.len()]);
        }
        let sql = "SELECT t0, t1, n, body FROM chunks WHERE key BETWEEN ?1 AND ?2 AND t0 <= ?4 AND t1 >= ?3 ORDER BY key";
        let mut read = self.connection.prepare(sql).map_err(self.wrong())?;
        let mut all = Vec::with_capacity(series.len());
        for id in series {
            let key = i64::from(*id) << WINDOW_BITS;
            let keys = params![key | window_in(day, t0), key | window_in(day, t1), t0, t1];
            let rows = read.query_map(keys, block).map_err(self.wrong())?;
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
