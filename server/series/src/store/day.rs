//! A day file `YYYY-MM-DD.db`: the sealed chunks of one UTC day.
//!
//! `pairs` is both the dictionary of label pairs and the index: each row has the series that carry the pair, as growing
//! varint deltas. A series is the list of its pairs' ids. The chunks of 128 series in a window are one row of `groups`, with
//! the key `series / 128 << 4 | window of the day`: series are numbered in the order of their labels by the first seal, so a
//! metric of all hosts lies together. `chunks` is of format 1, one row per series and window; such rows are read, and move into
//! their group when the group is written.
//!
//! # Invariants
//! - One chunk per series and window, but for a row of format 1 and what a group has beside it: never both for one series. Sealing into a window that has one merges both, the newer value winning, and replaces it:
//!   sealing the same samples again changes nothing.
//! - A series, its pairs and its chunks appear in the same transaction.

use super::{
    chunk::{self, WINDOW_MS},
    group::{self, Chunks},
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
    collections::{BTreeMap, HashMap, hash_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Milliseconds of a day.
pub(crate) const DAY_MS: i64 = 86_400_000;

const WINDOW_BITS: u32 = 4;

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
        let series = writer.series_id(labels).map_err(wrong)?;
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
    pairs: HashMap<(Box<str>, Box<str>), i64>,
    added: HashMap<i64, Vec<i64>>,
    find_pair: Statement<'c>,
    add_pair: Statement<'c>,
    find_series: Statement<'c>,
    add_series: Statement<'c>,
    find_chunk: Statement<'c>,
    drop_chunk: Statement<'c>,
    find_group: Statement<'c>,
    put_group: Statement<'c>,
    /// Whether there are rows of format 1.
    has_chunks: bool,
    day: i64,
    /// Chunks that wait for others of their group.
    pending: BTreeMap<i64, Chunks>,
    connection: &'c Connection,
}

impl<'c> Writer<'c> {
    fn new(connection: &'c Connection, day: i64) -> rusqlite::Result<Self> {
        Ok(Self {
            pairs: HashMap::new(),
            added: HashMap::new(),
            find_pair: connection.prepare("SELECT id FROM pairs WHERE name = ?1 AND value = ?2")?,
            add_pair: connection.prepare("INSERT INTO pairs(name, value, series) VALUES (?1, ?2, x'')")?,
            find_series: connection.prepare("SELECT id FROM series WHERE labels = ?1")?,
            add_series: connection.prepare("INSERT INTO series(labels) VALUES (?1)")?,
            find_chunk: connection.prepare("SELECT t0, t1, n, body FROM chunks WHERE key = ?1")?,
            drop_chunk: connection.prepare("DELETE FROM chunks WHERE key = ?1")?,
            find_group: connection.prepare("SELECT body FROM groups WHERE key = ?1")?,
            put_group: connection.prepare("INSERT OR REPLACE INTO groups(key, body) VALUES (?1, ?2)")?,
            has_chunks: connection.query_row("SELECT 1 FROM chunks LIMIT 1", [], |_| Ok(())).optional()?.is_some(),
            day,
            pending: BTreeMap::new(),
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

/// Number of the window in the day that a time lies in, or is nearest to.
fn window_in(day: i64, ts: i64) -> i64 {
    (ts.clamp(day * DAY_MS, (day + 1) * DAY_MS - 1) - day * DAY_MS) / WINDOW_MS
}

/// Start of a group's window.
fn window_start(day: i64, key: i64) -> i64 {
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

fn block(row: &rusqlite::Row<'_>) -> rusqlite::Result<Block> {
    let body: Vec<u8> = row.get(3)?;
    Ok(Block { t0: row.get(0)?, t1: row.get(1)?, count: row.get(2)?, body: body.into() })
}

/// Series of a posting; a list that is cut short gives what is whole.
fn decode_list(blob: &[u8]) -> Vec<u32> {
    let (mut reader, mut last, mut out) = (Reader(blob), 0u64, Vec::new());
    while let Some(delta) = reader.number() {
        last = last.saturating_add(delta);
        let Ok(series) = u32::try_from(last) else { break };
        out.push(series);
    }
    out
}

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
    /// Of series that were asked for: what a day has under a number never changes.
    labels: RefCell<HashMap<u32, Arc<Labels>>>,
}

impl DayReader {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let connection = sqlite::open(path, Mode::Read, MIGRATIONS)?;
        Ok(Self { connection, path: path.to_owned(), pairs: RefCell::default(), labels: RefCell::default() })
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
