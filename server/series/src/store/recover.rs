//! Opening the store after whatever happened: replays frames, puts damaged files aside, and says exactly what was lost.
//!
//! # Invariants
//! - Damage never stops a start; a format of a newer version does, since nothing is wrong with such a file.
//! - Nothing is deleted: damaged files get the name `*.corrupt-<n>`, damaged frames and labels go to the table `bad_frames`
//!   (the last hundred of them).
//! - Samples of a frame that are before its `sealed_before` are in a day file and are not replayed.

use super::{
    day,
    day_reader::DayReader,
    frames::{self, Frame},
    head::Head,
    sqlite::{self, Mode},
};
use crate::error::Error;
use rusqlite::{Connection, params};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tracing::{info, warn};

pub(crate) const MIGRATIONS: &[&str] = &["
    CREATE TABLE meta(version INTEGER NOT NULL);
    CREATE TABLE series(id INTEGER PRIMARY KEY AUTOINCREMENT, labels BLOB NOT NULL);
    CREATE TABLE frames(id INTEGER PRIMARY KEY AUTOINCREMENT, t0 INTEGER NOT NULL, t1 INTEGER NOT NULL,
        sealed_before INTEGER NOT NULL DEFAULT (-9223372036854775807), payload BLOB NOT NULL);
    CREATE INDEX frames_t1 ON frames(t1);
    CREATE TABLE bad_frames(id INTEGER PRIMARY KEY, reason TEXT NOT NULL, payload BLOB NOT NULL);
    CREATE TABLE marks(source TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
"];

/// A damaged file that was put aside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Moved {
    /// Its name until now.
    pub from: PathBuf,
    /// Its name from now on.
    pub to: PathBuf,
    /// Its size, log included.
    pub bytes: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// What opening found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OpenReport {
    /// Frames replayed into memory.
    pub frames: u64,
    /// Samples replayed into memory.
    pub samples: u64,
    /// Series in memory.
    pub series: u64,
    /// Day files.
    pub day_files: u64,
    /// Frames that could not be read and were put aside.
    pub frames_lost: u64,
    /// Their bytes.
    pub frames_lost_bytes: u64,
    /// Series whose labels could not be read.
    pub series_lost: u64,
    /// Samples of such series, in frames that could be read.
    pub samples_lost: u64,
    /// Damaged files that were put aside.
    pub moved: Vec<Moved>,
}

impl OpenReport {
    /// Whether nothing was lost.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.frames_lost == 0 && self.series_lost == 0 && self.samples_lost == 0 && self.moved.is_empty()
    }
}

/// Everything that `head.db` held.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) connection: Connection,
    pub(crate) head: Head,
    pub(crate) marks: HashMap<String, u64>,
}

/// Opens `head.db` and replays it; a damaged one is put aside and a new one begun.
pub(crate) fn open_head(path: &Path, report: &mut OpenReport) -> Result<Recovered, Error> {
    let mut fresh = OpenReport::default();
    match replay(path, &mut fresh) {
        Err(Error::Corrupt { reason, .. }) => {
            report.moved.push(put_aside(path, reason)?);
            replay(path, report)
        }
        other => {
            let moved = std::mem::take(&mut report.moved);
            *report = OpenReport { moved, ..fresh };
            other
        }
    }
}

fn replay(path: &Path, report: &mut OpenReport) -> Result<Recovered, Error> {
    let connection = sqlite::open(path, Mode::Exclusive, MIGRATIONS)?;
    let wrong = |e: rusqlite::Error| sqlite::error("read", path, &e);
    let mut head = Head::default();
    let (slots, bad_series) = load_series(&connection, &mut head, report).map_err(wrong)?;
    let bad = load_frames(&connection, &mut head, &slots, report).map_err(wrong)?;
    quarantine(&connection, &bad, &bad_series).map_err(wrong)?;
    let marks = load_marks(&connection).map_err(wrong)?;
    report.series = head.series_count() as u64;
    for (id, reason) in &bad {
        warn!(path = %path.display(), frame = id, reason, "put a damaged frame aside");
    }
    for (id, reason) in &bad_series {
        warn!(path = %path.display(), series = id, reason, "put a series with damaged labels aside");
    }
    info!(path = %path.display(), frames = report.frames, samples = report.samples, series = report.series, "replayed the head");
    Ok(Recovered { connection, head, marks })
}

/// The id of a row and what is wrong with it.
type Bad = (i64, &'static str);

fn load_series(connection: &Connection, head: &mut Head, report: &mut OpenReport) -> rusqlite::Result<(HashMap<i64, u32>, Vec<Bad>)> {
    let (mut slots, mut bad) = (HashMap::new(), Vec::new());
    let mut read = connection.prepare("SELECT id, labels FROM series ORDER BY id")?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        match frames::decode_labels(row.get_ref(1)?.as_blob()?) {
            // Twice the same labels would be two series with one name; the first one takes both.
            Ok(labels) => {
                let labels = Arc::new(labels);
                let slot = head.find(&labels).map(|found| found.slot);
                slots.insert(id, slot.unwrap_or_else(|| head.add_series(id, labels)));
            }
            Err(reason) => {
                report.series_lost += 1;
                bad.push((id, reason));
            }
        }
    }
    Ok((slots, bad))
}

fn load_frames(connection: &Connection, head: &mut Head, slots: &HashMap<i64, u32>, report: &mut OpenReport) -> rusqlite::Result<Vec<Bad>> {
    let mut bad = Vec::new();
    let mut read = connection.prepare("SELECT id, sealed_before, payload FROM frames ORDER BY id")?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let sealed_before: i64 = row.get(1)?;
        let payload = row.get_ref(2)?.as_blob()?;
        match Frame::decode(payload) {
            Ok(frame) => {
                report.frames += 1;
                for (id, ts, value) in frame.iter().filter(|(_, ts, _)| *ts >= sealed_before) {
                    match slots.get(&id) {
                        Some(slot) => {
                            head.push(*slot, ts, value);
                            report.samples += 1;
                        }
                        None => report.samples_lost += 1,
                    }
                }
            }
            Err(reason) => {
                report.frames_lost += 1;
                report.frames_lost_bytes += payload.len() as u64;
                bad.push((row.get(0)?, reason));
            }
        }
    }
    Ok(bad)
}

/// Takes damaged rows out of use, so that they are told once. Series have negative ids in `bad_frames`.
fn quarantine(connection: &Connection, frames: &[Bad], series: &[Bad]) -> rusqlite::Result<()> {
    if frames.is_empty() && series.is_empty() {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    for (id, reason) in frames {
        let copy = "INSERT OR REPLACE INTO bad_frames SELECT id, ?2, payload FROM frames WHERE id = ?1";
        transaction.execute(copy, params![id, reason])?;
        transaction.execute("DELETE FROM frames WHERE id = ?1", [id])?;
    }
    for (id, reason) in series {
        let copy = "INSERT OR REPLACE INTO bad_frames SELECT -id, 'labels of a series: ' || ?2, labels FROM series WHERE id = ?1";
        transaction.execute(copy, params![id, reason])?;
        transaction.execute("DELETE FROM series WHERE id = ?1", [id])?;
    }
    transaction.execute("DELETE FROM bad_frames WHERE id NOT IN (SELECT id FROM bad_frames ORDER BY abs(id) DESC LIMIT 100)", [])?;
    transaction.commit()
}

fn load_marks(connection: &Connection) -> rusqlite::Result<HashMap<String, u64>> {
    let mut read = connection.prepare("SELECT source, seq FROM marks")?;
    let rows = read.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
    rows.collect()
}

/// Finds the day files, brings them to the newest format, and puts damaged ones aside.
pub(crate) fn open_days(dir: &Path, report: &mut OpenReport) -> Result<BTreeMap<i64, Arc<Path>>, Error> {
    let mut days = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, &e))? {
        let entry = entry.map_err(|e| Error::io("list", dir, &e))?;
        let Some(number) = entry.file_name().to_str().and_then(day::parse_name) else { continue };
        let path = entry.path();
        let opened = sqlite::open(&path, Mode::Write, day::MIGRATIONS).map(drop);
        match opened.and_then(|()| DayReader::open(&path)?.check()) {
            Ok(()) => {
                days.insert(number, path.into());
            }
            Err(Error::Corrupt { reason, .. }) => report.moved.push(put_aside(&path, reason)?),
            Err(error) => return Err(error),
        }
    }
    report.day_files = days.len() as u64;
    Ok(days)
}

/// `x.db` and `-wal` make `x.db-wal`.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Gives a damaged file, and SQLite's files beside it, another name.
pub(crate) fn put_aside(path: &Path, reason: String) -> Result<Moved, Error> {
    let mut number = 1u32;
    let to = loop {
        let candidate = beside(path, &format!(".corrupt-{number}"));
        if !candidate.try_exists().map_err(|e| Error::io("look for", &candidate, &e))? {
            break candidate;
        }
        number += 1;
    };
    let mut bytes = 0;
    for suffix in ["-shm", "-wal", ""] {
        let from = beside(path, suffix);
        match fs::metadata(&from) {
            Ok(meta) => bytes += meta.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("read", &from, &error)),
        }
        fs::rename(&from, beside(&to, suffix)).map_err(|e| Error::io("rename", &from, &e))?;
    }
    sync_dir(path)?;
    warn!(from = %path.display(), to = %to.display(), bytes, reason, "put a damaged file aside");
    Ok(Moved { from: path.to_owned(), to, bytes, reason })
}

/// Makes names in the directory of `path` durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    let dir = path.parent().unwrap_or(path);
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("sync", dir, &e))
}
