//! Deleting what is kept no longer: whole days where nothing in them is kept, and single environments of a day.
//!
//! # Invariants
//! - The newest day is never deleted for its size.
//! - What is taken out of a day file leaves in one transaction, index and chunks together; the file is made smaller after.
//!
//! # On crash
//! Before the transaction's commit nothing has changed; after it the file may still be large, and the next call that takes
//! something out makes it small. A day that lost its log but not its file is whole, since the log was emptied before.

use super::{
    DAY_MS, Engine,
    day::{self, WINDOW_BITS},
    day_reader::DayReader,
    group,
    index::Lookup as _,
    index_file::{IndexReader, decode_list},
    lock, read_lock, recover,
    sqlite::{self, Mode},
    varint::put,
    write_lock,
};
use crate::{
    config::{Cutoffs, ENV},
    error::Error,
};
use rusqlite::params;
use shipwatch_common::time::UnixMs;
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
    sync::Arc,
    sync::atomic::Ordering::Relaxed,
};
use tracing::info;

/// What retention deleted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RetainReport {
    /// Names of the deleted files.
    pub files: Vec<String>,
    /// Bytes freed.
    pub bytes: u64,
    /// Series taken out of day files that stay for the sake of other environments, once for each day.
    pub series: u64,
    /// Their samples.
    pub samples: u64,
}

/// What becomes of a day.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Keep,
    Delete,
    /// These environments go; the empty one stands for series without the label.
    TakeOut(Vec<String>),
}

/// Decides for a day that ends at `end` and has series of these environments.
pub(super) fn verdict(cutoffs: &Cutoffs, end: UnixMs, envs: Vec<String>) -> Verdict {
    let (gone, kept): (Vec<String>, Vec<String>) = envs.into_iter().partition(|env| end <= cutoffs.of_env(env));
    match (gone.is_empty(), kept.is_empty()) {
        (true, _) => Verdict::Keep,
        (false, true) => Verdict::Delete,
        (false, false) => Verdict::TakeOut(gone),
    }
}

impl Engine {
    /// Deletes what is older than its configured age, damaged files that were put aside included, and then the oldest days
    /// while the store is larger than `retention.max_bytes`.
    ///
    /// # Errors
    /// The directory cannot be read or a file cannot be changed; the next call goes on.
    pub fn retain(&self, now_ms: UnixMs) -> Result<RetainReport, Error> {
        let _one_at_a_time = lock(&self.sealing);
        let cutoffs = self.config.cutoffs(now_ms);
        let mut report = RetainReport::default();
        self.delete_by_name(cutoffs.earliest, now_ms, &mut report)?;
        self.expire_environments(&cutoffs, now_ms, &mut report)?;
        self.expire_tiers(now_ms, &mut report)?;
        self.shrink_to(self.config.retention.max_bytes, now_ms, &mut report)?;
        self.counters.expired_files.fetch_add(report.files.len() as u64, Relaxed);
        self.counters.expired_bytes.fetch_add(report.bytes, Relaxed);
        self.counters.expired_samples.fetch_add(report.samples, Relaxed);
        if report != RetainReport::default() {
            report.files.sort();
            info!(files = report.files.len(), series = report.series, bytes = report.bytes, "deleted what is kept no longer");
        }
        Ok(report)
    }

    /// Days that nobody keeps: what is in them need not be looked at.
    fn delete_by_name(&self, earliest: UnixMs, now_ms: UnixMs, report: &mut RetainReport) -> Result<(), Error> {
        for entry in fs::read_dir(&self.dir).map_err(|e| Error::io("list", &self.dir, &e))? {
            let entry = entry.map_err(|e| Error::io("list", &self.dir, &e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(day) = name.find(".db").and_then(|at| day::parse_name(&name[..at + 3])) else { continue };
            if (day + 1) * DAY_MS > earliest || name.ends_with("-wal") || name.ends_with("-shm") {
                continue;
            }
            if day::parse_name(&name).is_some() {
                self.before_expiry(day, None, now_ms)?;
                self.forget_day(day);
            }
            report.bytes += delete(&entry.path())?;
            report.files.push(name);
        }
        Ok(())
    }

    /// Readers first: nobody opens what is not in the list.
    fn forget_day(&self, day: i64) {
        self.unlist(day);
        lock(&self.readers).retain(|(of, _)| *of != day);
    }

    pub(super) fn delete_day(&self, day: i64, now_ms: UnixMs, report: &mut RetainReport) -> Result<(), Error> {
        self.before_expiry(day, None, now_ms)?;
        self.forget_day(day);
        let name = day::file_name(day);
        report.bytes += delete(&self.dir.join(&name))?;
        report.files.push(name);
        Ok(())
    }

    fn expire_environments(&self, cutoffs: &Cutoffs, now_ms: UnixMs, report: &mut RetainReport) -> Result<(), Error> {
        let last = day::day_of(cutoffs.latest) - 1;
        let days: Vec<_> = read_lock(&self.days).range(..=last).map(|(day, path)| (*day, path.clone())).collect();
        for (day, path) in days {
            let done = match DayReader::open(&path).and_then(|reader| environments(&reader.index)) {
                Ok(envs) => match verdict(cutoffs, (day + 1) * DAY_MS, envs) {
                    Verdict::Keep => Ok(()),
                    Verdict::Delete => self.delete_day(day, now_ms, report),
                    Verdict::TakeOut(envs) => {
                        self.before_expiry(day, Some(&envs), now_ms).and_then(|()| self.take_out(day, &path, &envs, report))
                    }
                },
                Err(error) => Err(error),
            };
            match done {
                Err(Error::Corrupt { reason, .. }) => self.put_aside(day, reason)?,
                other => other?,
            }
        }
        Ok(())
    }

    fn take_out(&self, day: i64, path: &Path, envs: &[String], report: &mut RetainReport) -> Result<(), Error> {
        let size = || fs::metadata(path).map_or(0, |meta| meta.len());
        let before = size();
        let taken = take_out(&DAYS, day, path, envs);
        // Also after an error: it may have come after the commit.
        lock(&self.changes).note_all();
        let (series, samples) = taken?;
        // Readers that know numbers of what is gone are not used again; those at work see the file as it was.
        write_lock(&self.days).insert(day, Arc::from(path));
        lock(&self.readers).retain(|(of, _)| *of != day);
        report.series += series;
        report.samples += samples;
        report.bytes += before.saturating_sub(size());
        Ok(())
    }
}

/// What differs between files whose series can be taken out.
pub(super) struct Layout {
    pub(super) migrations: &'static [&'static str],
    /// Low bits of a group's key that are not its number.
    pub(super) key_bits: u32,
    /// The start of a group's window, by its key.
    pub(super) window: fn(first: i64, key: i64) -> i64,
    /// Whether there may be rows of format 1.
    pub(super) has_chunks: bool,
}

const DAYS: Layout = Layout { migrations: day::MIGRATIONS, key_bits: WINDOW_BITS, window: day::window_start, has_chunks: true };

/// The environments in a file; the empty one if there are series without.
pub(super) fn environments(index: &IndexReader) -> Result<Vec<String>, Error> {
    let mut envs = index.names_or_values(Some(ENV))?;
    if index.with_any(ENV, "", &|_| true)?.len() < index.all()?.len() {
        envs.push(String::new());
    }
    Ok(envs)
}

/// Takes series of environments out of a file; how many series and samples they were. `first` is the file's first day.
pub(super) fn take_out(layout: &Layout, first: i64, path: &Path, envs: &[String]) -> Result<(u64, u64), Error> {
    let gone = {
        let index = IndexReader::open(path, layout.migrations)?;
        let mut gone: HashSet<u32> = index.with_any(ENV, "", &|value| envs.iter().any(|env| env == value))?.into_iter().collect();
        if envs.iter().any(String::is_empty) {
            let others: HashSet<u32> = index.with_any(ENV, "", &|_| true)?.into_iter().collect();
            gone.extend(index.all()?.into_iter().filter(|series| !others.contains(series)));
        }
        gone
    };
    let connection = sqlite::open(path, Mode::Write, layout.migrations)?;
    let wrong = |e: rusqlite::Error| sqlite::error("write", path, &e);
    let transaction = connection.unchecked_transaction().map_err(wrong)?;
    let old = if layout.has_chunks { delete_chunks(&transaction, &gone).map_err(wrong)? } else { 0 };
    delete_series(&transaction, &gone).map_err(wrong)?;
    let samples = old + delete_from_groups(&transaction, layout, first, &gone).map_err(wrong)?;
    transaction.commit().map_err(wrong)?;
    connection.execute_batch("VACUUM").map_err(wrong)?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(wrong)?;
    Ok((gone.len() as u64, samples))
}

/// Deletes chunks of format 1; how many samples they had.
fn delete_chunks(connection: &rusqlite::Connection, gone: &HashSet<u32>) -> rusqlite::Result<u64> {
    let mut count = connection.prepare("SELECT coalesce(sum(n), 0) FROM chunks WHERE key BETWEEN ?1 AND ?2")?;
    let mut chunks = connection.prepare("DELETE FROM chunks WHERE key BETWEEN ?1 AND ?2")?;
    let mut samples = 0;
    for id in gone {
        let first = i64::from(*id) << WINDOW_BITS;
        let last = first | ((1 << WINDOW_BITS) - 1);
        samples += count.query_row([first, last], |row| row.get::<_, i64>(0))?.unsigned_abs();
        chunks.execute([first, last])?;
    }
    Ok(samples)
}

fn delete_series(connection: &rusqlite::Connection, gone: &HashSet<u32>) -> rusqlite::Result<()> {
    let mut series = connection.prepare("DELETE FROM series WHERE id = ?1")?;
    for id in gone {
        series.execute([i64::from(*id)])?;
    }
    let mut read = connection.prepare("SELECT id, series FROM pairs")?;
    let mut rows = read.query([])?;
    let mut lists = Vec::new();
    while let Some(row) = rows.next()? {
        let all = decode_list(row.get_ref(1)?.as_blob()?);
        let kept: Vec<u32> = all.iter().filter(|series| !gone.contains(series)).copied().collect();
        if kept.len() < all.len() {
            lists.push((row.get::<_, i64>(0)?, kept));
        }
    }
    let mut update = connection.prepare("UPDATE pairs SET series = ?2 WHERE id = ?1")?;
    let mut forget = connection.prepare("DELETE FROM pairs WHERE id = ?1")?;
    for (pair, kept) in lists {
        if kept.is_empty() {
            forget.execute([pair])?;
        } else {
            update.execute(params![pair, encode_list(&kept)])?;
        }
    }
    Ok(())
}

/// Takes series out of the groups they share with others; how many samples they had. A group that cannot be read stays as it
/// is: nobody reads it, and `verify` tells of it.
fn delete_from_groups(connection: &rusqlite::Connection, layout: &Layout, first_day: i64, gone: &HashSet<u32>) -> rusqlite::Result<u64> {
    let mut places: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    for series in gone {
        places.entry(series / group::SERIES).or_default().push((series % group::SERIES) as u8);
    }
    let mut read = connection.prepare("SELECT key, body FROM groups WHERE key BETWEEN ?1 AND ?2")?;
    let mut update = connection.prepare("UPDATE groups SET body = ?2 WHERE key = ?1")?;
    let mut delete = connection.prepare("DELETE FROM groups WHERE key = ?1")?;
    let mut samples = 0;
    for (number, places) in places {
        let first = i64::from(number) << layout.key_bits;
        let rows = read.query_map([first, first | ((1 << layout.key_bits) - 1)], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let groups: Vec<(i64, Vec<u8>)> = rows.collect::<rusqlite::Result<_>>()?;
        for (key, body) in groups {
            let window = (layout.window)(first_day, key);
            let Ok(mut chunks) = group::decode(window, &body, |_| true) else { continue };
            let before = chunks.len();
            samples += places.iter().filter_map(|place| chunks.remove(place)).map(|chunk| u64::from(chunk.count)).sum::<u64>();
            if chunks.is_empty() {
                delete.execute([key])?;
            } else if chunks.len() < before {
                let body = group::encode(window, &chunks).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
                update.execute(params![key, body])?;
            }
        }
    }
    Ok(samples)
}

fn encode_list(series: &[u32]) -> Vec<u8> {
    let (mut blob, mut last) = (Vec::new(), 0);
    for series in series {
        put(&mut blob, u64::from(series - last));
        last = *series;
    }
    blob
}

/// Deletes a file, its log first, so that a crash in between never leaves a log that a new file of this name would take for
/// its own.
pub(super) fn delete(path: &Path) -> Result<u64, Error> {
    ["-shm", "-wal", ""].into_iter().try_fold(0, |bytes, suffix| Ok(bytes + remove(&recover::beside(path, suffix))?))
}

fn remove(path: &Path) -> Result<u64, Error> {
    let bytes = fs::metadata(path).map_or(0, |meta| meta.len());
    match fs::remove_file(path) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::io("delete", path, &error)),
    }
}
