//! Opening a directory after anything may have happened to it.
//!
//! # What is repaired
//! - A seal that was cut off between its two commits: the rows that the day's file has are deleted from the head.
//! - A retention that was cut off: journals without their database are deleted.
//! - A day's file that was begun on a full disk and is empty: deleted.
//! - A damaged day's file: moved aside as `*.corrupt-<n>`, the start goes on. Lines of the day that are still in the head stay.
//! - A damaged head: moved aside. Every batch in it whose checksum is right is taken over, and the positions of the files are
//!   rebuilt from these batches. The lanes' sequences are lost: a sender that repeats lines is caught by the positions.
//!
//! A damaged block does not stop anything: queries skip and count it.

use super::{
    Shared,
    day::{self, Day},
    head::{self, Head},
};
use crate::{
    Config,
    error::{Error, Result},
};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use serde::Serialize;
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

/// Something that could not be read, and what became of it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Damage {
    /// The file.
    pub path: String,
    /// Where it is now.
    pub moved_to: String,
    /// What was found.
    pub what: String,
    /// Lines taken over from it.
    pub saved_lines: u64,
    /// Lines known to be lost; `None` where that cannot be told.
    pub lost_lines: Option<u64>,
}

/// What the start found.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct OpenReport {
    /// Day files in use.
    pub days: usize,
    /// Lines in the head, waiting for being sealed.
    pub head_lines: u64,
    /// Rows that a seal left in the head when it was cut off.
    pub finished_rows: usize,
    /// Files that were damaged.
    pub damaged: Vec<Damage>,
}

/// Opens everything and repairs what can be.
pub(crate) fn open(dir: &Path, config: &Config) -> Result<(Head, Shared, OpenReport)> {
    fs::create_dir_all(dir).map_err(|error| Error::io(dir, &error))?;
    let lock = lock(dir)?;
    let mut report = OpenReport::default();
    let (days, floor) = open_days(dir, &mut report)?;
    let path = dir.join("head.db");
    let head = match Head::open(&path, config.head_max_bytes) {
        Err(error) if error.is_corrupt() => replace_head(&path, config.head_max_bytes, &error, &mut report)?,
        result => result?,
    };
    finish_seals(dir, &head, &days, &mut report)?;
    head.start_above(floor)?;
    report.days = days.len();
    let lines: i64 = head.conn.query_row("SELECT coalesce(sum(n), 0) FROM batches", [], |row| row.get(0)).map_err(head.error())?;
    report.head_lines = head::unsigned(lines);
    for damage in &report.damaged {
        tracing::error!(
            path = damage.path,
            moved_to = damage.moved_to,
            what = damage.what,
            saved = damage.saved_lines,
            "a log file was damaged"
        );
    }
    let shared = Shared::new(dir.to_owned(), config.clone(), days, report.damaged.clone(), lock);
    Ok((head, shared, report))
}

/// Two writers would number rows twice.
fn lock(dir: &Path) -> Result<fs::File> {
    let path = dir.join("lock");
    let file = fs::File::create(&path).map_err(|error| Error::io(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path: path.display().to_string() }),
        Err(fs::TryLockError::Error(error)) => Err(Error::io(&path, &error)),
    }
}

/// Opens each day once. Returns the sound ones, and the highest number of a row in them.
fn open_days(dir: &Path, report: &mut OpenReport) -> Result<(BTreeSet<Day>, i64)> {
    let mut days = BTreeSet::new();
    let mut journals = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| Error::io(dir, &error))? {
        let entry = entry.map_err(|error| Error::io(dir, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(day) = Day::from_file_name(&name) {
            // What a seal on a full disk began: no schema yet, so no lines.
            if entry.metadata().map_err(|error| Error::io(&entry.path(), &error))?.len() == 0 && !has_journal(&entry.path())? {
                fs::remove_file(entry.path()).map_err(|error| Error::io(&entry.path(), &error))?;
                continue;
            }
            days.insert(day);
        } else if let Some(of) = name.strip_suffix("-wal").or_else(|| name.strip_suffix("-shm")) {
            journals.extend(Day::from_file_name(of).map(|day| (day, entry.path())));
        }
    }
    for (_, path) in journals.into_iter().filter(|(day, _)| !days.contains(day)) {
        fs::remove_file(&path).map_err(|error| Error::io(&path, &error))?;
    }
    let mut sound = BTreeSet::new();
    let mut floor = 0;
    for day in days {
        let path = day.path(dir);
        let highest = day::open(&path).and_then(|conn| {
            conn.query_row("SELECT coalesce(max(sealed_upto), 0) FROM streams", [], |row| row.get(0))
                .map_err(|error| Error::sql(&path, &error))
        });
        match highest {
            Ok(highest) => {
                floor = floor.max(highest);
                sound.insert(day);
            }
            Err(error) if error.is_corrupt() => {
                let mut damage = set_aside(&path, error.to_string())?;
                damage.lost_lines = stored_lines(Path::new(&damage.moved_to));
                report.damaged.push(damage);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((sound, floor))
}

/// Whether a database has a journal with content.
fn has_journal(path: &Path) -> Result<bool> {
    super::file_bytes(path).map(|bytes| bytes > 0)
}

/// How many lines a damaged day had, where that can still be read.
fn stored_lines(path: &Path) -> Option<u64> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX).ok()?;
    conn.query_row("SELECT coalesce(sum(lines), 0) FROM streams", [], |row| row.get(0)).map(head::unsigned).ok()
}

/// Deletes from the head what the day files have.
fn finish_seals(dir: &Path, head: &Head, days: &BTreeSet<Day>, report: &mut OpenReport) -> Result<()> {
    let mut waiting: Vec<_> = head.pending()?.into_keys().filter(|(day, _)| days.contains(day)).collect();
    waiting.sort_unstable();
    for streams in waiting.chunk_by(|a, b| a.0 == b.0) {
        let Some((day, _)) = streams.first() else { continue };
        let path = day.path(dir);
        let conn = day::open(&path)?;
        let mut statement = conn.prepare("SELECT sealed_upto FROM streams WHERE labels = ?1").map_err(|error| Error::sql(&path, &error))?;
        for (_, labels) in streams {
            let upto: Option<i64> =
                statement.query_row([labels], |row| row.get(0)).optional().map_err(|error| Error::sql(&path, &error))?;
            if let Some(upto) = upto {
                report.finished_rows += head.delete_sealed(*day, labels, upto)?;
            }
        }
    }
    Ok(())
}

/// Moves a damaged head away and takes over what is sound in it.
fn replace_head(path: &Path, max_bytes: u64, error: &Error, report: &mut OpenReport) -> Result<Head> {
    let mut damage = set_aside(path, error.to_string())?;
    let head = Head::open(path, max_bytes)?;
    let from = PathBuf::from(&damage.moved_to);
    head.conn.execute_batch("BEGIN IMMEDIATE").map_err(head.error())?;
    let (saved, lost) = salvage(&from, &head)?;
    head.conn.execute_batch("COMMIT").map_err(head.error())?;
    damage.saved_lines = saved;
    damage.lost_lines = lost;
    report.damaged.push(damage);
    Ok(head)
}

/// Copies the batches that can be read. Returns the lines saved and, when the end was reached, the lines lost.
fn salvage(from: &Path, head: &Head) -> Result<(u64, Option<u64>)> {
    let (mut saved, mut lost, mut last) = (0, 0, 0);
    let mut positions = HashMap::new();
    let Ok(old) = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX) else {
        return Ok((0, None));
    };
    // By number, without an index: only the table's own pages matter.
    let Ok(mut statement) =
        old.prepare("SELECT id, day, labels, t0, t1, n, raw_bytes, severities, counts, cols, body FROM batches NOT INDEXED")
    else {
        return Ok((0, None));
    };
    let Ok(mut rows) = statement.query([]) else { return Ok((0, None)) };
    let complete = loop {
        match rows.next() {
            Ok(None) => break true,
            Err(_) => break false,
            Ok(Some(row)) => match Salvaged::read(row) {
                Some(row) => {
                    row.insert(head)?;
                    saved += row.lines;
                    last = last.max(row.id);
                    for (origin, end_offset) in row.positions {
                        let reached = positions.entry(origin).or_insert(0);
                        *reached = end_offset.max(*reached);
                    }
                }
                None => lost += row.get::<_, i64>(5).map_or(0, head::unsigned),
            },
        }
    };
    for (origin, end_offset) in &positions {
        head.set_position(origin, head::signed(*end_offset))?;
    }
    head.start_above(last)?;
    Ok((saved, complete.then_some(lost)))
}

/// A row of a damaged head, checked.
struct Salvaged {
    id: i64,
    day: i32,
    labels: String,
    times: (i64, i64),
    raw_bytes: i64,
    severities: u8,
    lines: u64,
    blobs: [Vec<u8>; 3],
    positions: Vec<(super::block::Origin, u64)>,
}

impl Salvaged {
    fn read(row: &rusqlite::Row<'_>) -> Option<Self> {
        let (id, labels): (i64, String) = (row.get(0).ok()?, row.get(2).ok()?);
        serde_json::from_str::<shipwatch_common::model::Labels>(&labels).ok()?;
        let [counts, cols, body]: [Vec<u8>; 3] = [row.get(8).ok()?, row.get(9).ok()?, row.get(10).ok()?];
        let lines = head::decode(id, &cols, &body).ok()?.columns;
        let times = (lines.ids.iter().map(|id| id.ts_ns).min()?, lines.ids.iter().map(|id| id.ts_ns).max()?);
        let day: i32 = row.get(1).ok()?;
        if Day::of(times.0).0 != day || Day::of(times.1).0 != day {
            return None;
        }
        let positions = (0..lines.len())
            .filter_map(|at| Some((lines.origin(at)?.clone(), *lines.end_offsets.get(at)?)))
            .filter(|(origin, _)| origin.file.0 != 0)
            .collect();
        Some(Self {
            id,
            day,
            labels,
            times,
            raw_bytes: row.get(6).ok()?,
            severities: row.get(7).ok()?,
            lines: lines.len() as u64,
            blobs: [counts, cols, body],
            positions,
        })
    }

    fn insert(&self, head: &Head) -> Result<()> {
        let [counts, cols, body] = &self.blobs;
        head.conn
            .execute(
                "INSERT OR IGNORE INTO batches (id, day, labels, t0, t1, n, raw_bytes, severities, counts, cols, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                params![
                    self.id,
                    self.day,
                    self.labels,
                    self.times.0,
                    self.times.1,
                    head::signed(self.lines),
                    self.raw_bytes,
                    self.severities,
                    counts,
                    cols,
                    body
                ],
            )
            .map(drop)
            .map_err(head.error())
    }
}

/// Renames a database and its journal to the first free `*.corrupt-<n>`.
pub(crate) fn set_aside(path: &Path, what: String) -> Result<Damage> {
    let io = |error: std::io::Error| Error::io(path, &error);
    let with = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let mut number = 1;
    let target = loop {
        let target = format!(".corrupt-{number}");
        if !with(&target).try_exists().map_err(io)? {
            break target;
        }
        number += 1;
    };
    if with("-wal").try_exists().map_err(io)? {
        fs::rename(with("-wal"), with(&format!("{target}-wal"))).map_err(io)?;
    }
    remove_if_there(&with("-shm"))?;
    fs::rename(path, with(&target)).map_err(io)?;
    sync_dir(path)?;
    Ok(Damage { path: path.display().to_string(), moved_to: with(&target).display().to_string(), what, saved_lines: 0, lost_lines: None })
}

/// Deletes a database and its journals. The database goes first: journals without one are deleted by the next start.
pub(crate) fn remove(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        remove_if_there(&PathBuf::from(format!("{}{suffix}", path.display())))?;
    }
    sync_dir(path)
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, &error)),
        _ => Ok(()),
    }
}

fn sync_dir(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| Error::io(dir, &error))
}
