//! Files of summaries: `2026-11-23.5m.db` has one day's buckets of five minutes, `2026-11.1h.db` those of an hour of a month's days.
//!
//! A file has an index (see `index_file`), `groups` with the buckets of 128 series of one day in each row, keyed
//! `series / 128 << 5 | day of the file` (see `group` for the row's bytes, `tier_chunk` for those of a series), and `days`: what is
//! true of each day. A month's file is read with one index and a few rows.
//!
//! # Invariants
//! - A day's buckets and its row in `days` are written in one transaction. What is not in `days` is not used.
//! - A day that is `stale` is no longer what its samples say: it is only used for series whose samples are gone.
//! - For series whose samples are gone (`gone`, `gone_envs`) a rewrite keeps what it has and takes nothing away.

use super::{
    DAY_MS,
    group::{self, Chunks},
    index_file::{IndexReader, IndexWriter},
    part::Block,
    sqlite::{self, Mode},
    tier_chunk,
};
use crate::{
    calendar::{civil, days_from_civil, days_in_month},
    config::ENV,
    error::Error,
    matcher::Matcher,
    summary::{Bucket, Columns, FIVE_MINUTES, ONE_HOUR},
};
use rusqlite::{Connection, OptionalExtension as _, Statement, params};
use shipwatch_common::model::Labels;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

pub(crate) const MIGRATIONS: &[&str] = &["
    CREATE TABLE meta(version INTEGER NOT NULL);
    CREATE TABLE pairs(id INTEGER PRIMARY KEY, name TEXT NOT NULL, value TEXT NOT NULL, series BLOB NOT NULL, UNIQUE(name, value));
    CREATE TABLE series(id INTEGER PRIMARY KEY, labels BLOB NOT NULL UNIQUE);
    CREATE TABLE groups(key INTEGER PRIMARY KEY, body BLOB NOT NULL);
    CREATE TABLE days(day INTEGER PRIMARY KEY, stale INTEGER NOT NULL, gone INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE gone_envs(day INTEGER NOT NULL, env TEXT NOT NULL, PRIMARY KEY(day, env)) WITHOUT ROWID;
"];

pub(crate) const SLOT_BITS: u32 = 5;
pub(crate) const SLOT_MASK: i64 = (1 << SLOT_BITS) - 1;

/// Groups that wait for more of their series before they are written.
const PENDING_GROUPS: usize = 64;

/// How wide buckets are.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Tier {
    FiveMinutes,
    OneHour,
}

impl Tier {
    pub(crate) const ALL: [Self; 2] = [Self::FiveMinutes, Self::OneHour];

    pub(crate) const fn width(self) -> i64 {
        match self {
            Self::FiveMinutes => FIVE_MINUTES,
            Self::OneHour => ONE_HOUR,
        }
    }

    /// The first day of the file that has a day.
    pub(crate) const fn file_of(self, day: i64) -> i64 {
        match self {
            Self::FiveMinutes => day,
            Self::OneHour => day - civil(day).day + 1,
        }
    }

    /// The day after a file's last one.
    pub(crate) const fn end_of(self, file: i64) -> i64 {
        match self {
            Self::FiveMinutes => file + 1,
            Self::OneHour => {
                let date = civil(file);
                file + days_in_month(date.year, date.month)
            }
        }
    }

    pub(crate) fn file_name(self, file: i64) -> String {
        let date = civil(file);
        match self {
            Self::FiveMinutes => format!("{:04}-{:02}-{:02}.5m.db", date.year, date.month, date.day),
            Self::OneHour => format!("{:04}-{:02}.1h.db", date.year, date.month),
        }
    }

    /// Tier and first day of a file's name.
    pub(crate) fn parse_name(name: &str) -> Option<(Self, i64)> {
        let (tier, date) = match (name.strip_suffix(".5m.db"), name.strip_suffix(".1h.db")) {
            (Some(date), _) => (Self::FiveMinutes, date.to_owned()),
            (_, Some(month)) => (Self::OneHour, format!("{month}-01")),
            _ => return None,
        };
        let number = |from: usize, len: usize| {
            let digits = date.get(from..from + len).filter(|part| part.bytes().all(|b| b.is_ascii_digit()))?;
            digits.parse().ok()
        };
        let file = days_from_civil(number(0, 4)?, number(5, 2)?, number(8, 2)?);
        (tier.file_name(file) == name).then_some((tier, file))
    }
}

/// Whose samples of a day are gone, so that only its buckets are left.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Gone {
    pub(crate) all: bool,
    /// The empty one stands for series without the label.
    pub(crate) envs: BTreeSet<String>,
}

impl Gone {
    pub(crate) fn has(&self, labels: &Labels) -> bool {
        self.all || (!self.envs.is_empty() && self.envs.contains(labels.get(ENV).unwrap_or_default()))
    }

    pub(crate) fn any(&self) -> bool {
        self.all || !self.envs.is_empty()
    }

    /// Whether series that meet the matchers may be among them.
    pub(crate) fn may_have(&self, matchers: &[Matcher]) -> bool {
        let meets = |env: &String| matchers.iter().filter(|matcher| matcher.name() == ENV).all(|matcher| matcher.matches(env));
        self.all || self.envs.iter().any(meets)
    }
}

/// What is true of a day.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct DayState {
    pub(crate) stale: bool,
    pub(crate) gone: Gone,
}

/// The days that a file has.
pub(crate) fn read_days(connection: &Connection) -> rusqlite::Result<BTreeMap<i64, DayState>> {
    let mut days = BTreeMap::new();
    let mut read = connection.prepare("SELECT day, stale, gone FROM days")?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let gone = Gone { all: row.get::<_, i64>(2)? != 0, envs: BTreeSet::new() };
        days.insert(row.get(0)?, DayState { stale: row.get::<_, i64>(1)? != 0, gone });
    }
    let mut read = connection.prepare("SELECT day, env FROM gone_envs")?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(state) = days.get_mut(&row.get(0)?) {
            state.gone.envs.insert(row.get(1)?);
        }
    }
    Ok(days)
}

/// Says that a day is no longer what its samples say.
pub(crate) fn mark_stale(path: &Path, day: i64) -> Result<(), Error> {
    let wrong = |e: rusqlite::Error| sqlite::error("write", path, &e);
    let connection = sqlite::open(path, Mode::Write, MIGRATIONS)?;
    connection.execute("UPDATE days SET stale = 1 WHERE day = ?1", [day]).map_err(wrong)?;
    Ok(())
}

/// Says that samples of a day are about to go: all of them, or those of some environments.
pub(crate) fn mark_gone(path: &Path, day: i64, envs: Option<&[String]>) -> Result<(), Error> {
    let wrong = |e: rusqlite::Error| sqlite::error("write", path, &e);
    let connection = sqlite::open(path, Mode::Write, MIGRATIONS)?;
    let transaction = connection.unchecked_transaction().map_err(wrong)?;
    match envs {
        None => {
            transaction.execute("UPDATE days SET gone = 1 WHERE day = ?1", [day]).map_err(wrong)?;
        }
        Some(envs) => {
            for env in envs {
                transaction.execute("INSERT OR IGNORE INTO gone_envs(day, env) VALUES (?1, ?2)", params![day, env]).map_err(wrong)?;
            }
        }
    }
    transaction.commit().map_err(wrong)
}

/// Writes a day's buckets in one transaction; `fill` gives them by series. How many there are comes back.
pub(crate) fn write(
    path: &Path,
    tier: Tier,
    day: i64,
    gone: &Gone,
    fill: impl FnOnce(&mut DayWriter<'_>) -> Result<(), Error>,
) -> Result<u64, Error> {
    let connection = sqlite::open(path, Mode::Write, MIGRATIONS)?;
    let wrong = |e: rusqlite::Error| sqlite::error("write", path, &e);
    let transaction = connection.unchecked_transaction().map_err(wrong)?;
    let slot = day - tier.file_of(day);
    let known = "SELECT 1 FROM days WHERE day = ?1";
    let is_known = transaction.query_row(known, [day], |_| Ok(())).optional().map_err(wrong)?.is_some();
    if is_known && !gone.any() {
        transaction.execute("DELETE FROM groups WHERE key & ?1 = ?2", [SLOT_MASK, slot]).map_err(wrong)?;
    }
    let mut writer = DayWriter::new(&transaction, path, tier, day, gone.any()).map_err(wrong)?;
    fill(&mut writer)?;
    let written = writer.finish().map_err(wrong)?;
    let done = "INSERT INTO days(day, stale) VALUES (?1, 0) ON CONFLICT(day) DO UPDATE SET stale = 0";
    transaction.execute(done, [day]).map_err(wrong)?;
    transaction.commit().map_err(wrong)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(wrong)?;
    Ok(written)
}

/// Takes a day's series for one transaction.
pub(crate) struct DayWriter<'c> {
    index: IndexWriter<'c>,
    find_group: Statement<'c>,
    put_group: Statement<'c>,
    path: &'c Path,
    width: i64,
    start: i64,
    slot: i64,
    /// Whether what is there is put together with what comes.
    keeps: bool,
    pending: BTreeMap<i64, Chunks>,
    written: u64,
}

impl<'c> DayWriter<'c> {
    fn new(connection: &'c Connection, path: &'c Path, tier: Tier, day: i64, keeps: bool) -> rusqlite::Result<Self> {
        Ok(Self {
            index: IndexWriter::new(connection)?,
            find_group: connection.prepare("SELECT body FROM groups WHERE key = ?1")?,
            put_group: connection.prepare("INSERT OR REPLACE INTO groups(key, body) VALUES (?1, ?2)")?,
            path,
            width: tier.width(),
            start: day * DAY_MS,
            slot: day - tier.file_of(day),
            keeps,
            pending: BTreeMap::new(),
            written: 0,
        })
    }

    /// Takes the buckets of a series.
    pub(crate) fn put(&mut self, labels: &Labels, buckets: &[Bucket]) -> Result<(), Error> {
        if buckets.is_empty() {
            return Ok(());
        }
        let path = self.path;
        let wrong = |e: rusqlite::Error| sqlite::error("write", path, &e);
        let series = self.index.series_id(labels).map_err(wrong)?;
        let group = i64::from(group::SERIES);
        let key = (series / group) << SLOT_BITS | self.slot;
        let block = tier_chunk::encode(self.start, self.width, buckets);
        self.pending.entry(key).or_default().insert((series % group) as u8, block);
        if self.pending.len() > PENDING_GROUPS {
            self.flush().map_err(wrong)?;
        }
        Ok(())
    }

    /// Writes the groups that wait, together with what they have already.
    fn flush(&mut self) -> rusqlite::Result<()> {
        for (key, fresh) in std::mem::take(&mut self.pending) {
            let before: Option<Vec<u8>> = self.find_group.query_row([key], |row| row.get(0)).optional()?;
            // What cannot be read is lost; it is there only of series whose samples are gone, or was written a moment ago.
            let mut chunks = before.and_then(|bytes| group::decode(0, &bytes, |_| true).ok()).unwrap_or_default();
            for (place, block) in fresh {
                self.written += u64::from(block.count);
                let block = match chunks.remove(&place).filter(|_| self.keeps) {
                    Some(before) => self.merge(&before, block),
                    None => block,
                };
                chunks.insert(place, block);
            }
            let body = group::encode(0, &chunks).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
            self.put_group.execute(params![key, body])?;
        }
        Ok(())
    }

    fn merge(&self, before: &Block, fresh: Block) -> Block {
        let decode = |block: &Block| tier_chunk::decode(self.start, self.width, block, Columns::ALL);
        match (decode(before), decode(&fresh)) {
            (Ok(before), Ok(new)) => tier_chunk::encode(self.start, self.width, &richer(before, new)),
            _ => fresh,
        }
    }

    fn finish(mut self) -> rusqlite::Result<u64> {
        self.flush()?;
        self.index.finish()?;
        Ok(self.written)
    }
}

/// Of two buckets with the same end the one that knows more samples: the other one was made after some of them had gone.
fn richer(before: Vec<Bucket>, fresh: Vec<Bucket>) -> Vec<Bucket> {
    let mut by_end: BTreeMap<i64, Bucket> = before.into_iter().map(|bucket| (bucket.end, bucket)).collect();
    for bucket in fresh {
        let known = by_end.entry(bucket.end).or_insert(bucket);
        if bucket.count >= known.count {
            *known = bucket;
        }
    }
    by_end.into_values().collect()
}

/// A file of summaries opened for reading, by one query at a time.
#[derive(Debug)]
pub(crate) struct TierReader {
    pub(crate) index: IndexReader,
    tier: Tier,
    file: i64,
}

impl TierReader {
    pub(crate) fn open(path: &Path, tier: Tier, file: i64) -> Result<Self, Error> {
        Ok(Self { index: IndexReader::open(path, MIGRATIONS)?, tier, file })
    }

    /// See [`IndexReader::check`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.index.check(&["pairs", "series", "groups"])
    }

    pub(crate) fn days(&self) -> Result<BTreeMap<i64, DayState>, Error> {
        read_days(&self.index.connection).map_err(self.index.wrong())
    }

    /// Buckets of series, which grow, in the days of `from..=to`: `take` is given the place in `series`, the day, and what is
    /// wanted of its buckets or what is wrong with them; damage that is not of one series has no place.
    pub(crate) fn buckets(
        &self,
        series: &[u32],
        (from, to): (i64, i64),
        wanted: Columns,
        takes: &dyn Fn(usize, i64) -> bool,
        take: &mut dyn FnMut(Option<usize>, i64, Result<Vec<Bucket>, &'static str>),
    ) -> Result<(), Error> {
        let wrong = self.index.wrong();
        let mut read = self.index.connection.prepare("SELECT key, body FROM groups WHERE key BETWEEN ?1 AND ?2").map_err(&wrong)?;
        let mut at = 0;
        while let Some(first) = series.get(at) {
            let group = first / group::SERIES;
            let next = at + series[at..].partition_point(|id| id / group::SERIES == group);
            let places: Vec<u8> = series[at..next].iter().map(|id| (id % group::SERIES) as u8).collect();
            let key = i64::from(group) << SLOT_BITS;
            let mut rows = read.query([key | (from - self.file), key | (to - self.file)]).map_err(&wrong)?;
            while let Some(row) = rows.next().map_err(&wrong)? {
                let day = self.file + (row.get::<_, i64>(0).map_err(&wrong)? & SLOT_MASK);
                let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(&wrong)?;
                let is_wanted = |place: u8| places.binary_search(&place).is_ok_and(|place| takes(at + place, day));
                if !(at..next).any(|series| takes(series, day)) {
                    continue;
                }
                match group::decode(0, body, is_wanted) {
                    Ok(chunks) => {
                        for (place, block) in chunks {
                            let Ok(place) = places.binary_search(&place) else { continue };
                            let buckets = tier_chunk::decode(day * DAY_MS, self.tier.width(), &block, wanted);
                            take(Some(at + place), day, buckets);
                        }
                    }
                    Err(reason) => take(None, day, Err(reason)),
                }
            }
            at = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_read_and_write() {
        let day = 20_780;
        for (tier, file, end, name) in
            [(Tier::FiveMinutes, day, day + 1, "2026-11-23.5m.db"), (Tier::OneHour, day - 22, day + 8, "2026-11.1h.db")]
        {
            assert_eq!((tier.file_of(day), tier.end_of(file), tier.file_name(file).as_str()), (file, end, name));
            assert_eq!(Tier::parse_name(name), Some((tier, file)));
        }
        for bad in
            ["2026-11-23.db", "2026-11.5m.db", "2026-11-23.1h.db", "2026-13.1h.db", "2026-02-30.5m.db", "x.5m.db", "2026-11.1h.db-wal"]
        {
            assert_eq!(Tier::parse_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn matchers_tell_which_environments_can_be_meant() {
        let envs = ["test", ""].map(str::to_owned).into();
        let some = Gone { all: false, envs };
        for (env, expected) in [("test", true), ("prod", false), ("", true)] {
            let matchers = [Matcher::equal("host", "a"), Matcher::equal(ENV, env)];
            assert_eq!(some.may_have(&matchers), expected, "{env:?}");
            assert!(Gone { all: true, ..Gone::default() }.may_have(&matchers) && !Gone::default().may_have(&matchers));
        }
        assert!(some.may_have(&[]) && !Gone::default().may_have(&[]));
    }

    #[test]
    fn of_two_buckets_the_richer_one_stays() {
        let bucket = |end, count, sum| Bucket { end, count, sum, ..Bucket::default() };
        let before = vec![bucket(1, 5, 1.0), bucket(2, 5, 1.0), bucket(3, 5, 1.0)];
        let fresh = vec![bucket(1, 4, 2.0), bucket(2, 5, 2.0), bucket(4, 1, 2.0)];
        let sums: Vec<f64> = richer(before, fresh).iter().map(|bucket| bucket.sum).collect();
        assert_eq!(sums, [1.0, 2.0, 1.0, 2.0]);
    }
}
