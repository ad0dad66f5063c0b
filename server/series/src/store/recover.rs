//! Opening the store after whatever happened: reads what `replay` finds, puts damaged files aside, and says exactly what was lost.
//!
//! # Invariants
//! - Damage never stops a start; a format of a newer version does, since nothing is wrong with such a file.
//! - Nothing is deleted: damaged files get the name `*.corrupt-<n>`, damaged frames and labels go to the table `bad_frames`
//!   (the last hundred of them).

use super::{
    checkpoint, day,
    day_reader::DayReader,
    head::Head,
    replay::{self, Bad, Replayed},
    sqlite::{self, Mode},
};
use crate::error::Error;
use rusqlite::Connection;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use tracing::{info, warn};

pub(crate) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta(version INTEGER NOT NULL);
    CREATE TABLE series(id INTEGER PRIMARY KEY AUTOINCREMENT, labels BLOB NOT NULL);
    CREATE TABLE frames(id INTEGER PRIMARY KEY AUTOINCREMENT, t0 INTEGER NOT NULL, t1 INTEGER NOT NULL,
        sealed_before INTEGER NOT NULL DEFAULT (-9223372036854775807), payload BLOB NOT NULL);
    CREATE INDEX frames_t1 ON frames(t1);
    CREATE TABLE bad_frames(id INTEGER PRIMARY KEY, reason TEXT NOT NULL, payload BLOB NOT NULL);
    CREATE TABLE marks(source TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
",
    checkpoint::MIGRATION,
];

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
    /// Samples in memory: of frames and of the checkpoint.
    pub samples: u64,
    /// Series in memory.
    pub series: u64,
    /// Day files.
    pub day_files: u64,
    /// Frames, or rows of the checkpoint, that could not be read and were put aside.
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
    pub(crate) fn lose(&mut self, body: &[u8]) {
        self.frames_lost += 1;
        self.frames_lost_bytes += body.len() as u64;
    }

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
    /// Samples that were replayed from frames.
    pub(crate) unsaved: u64,
}

/// Opens `head.db` and replays it; a damaged one is put aside and a new one begun.
pub(crate) fn open_head(path: &Path, report: &mut OpenReport) -> Result<Recovered, Error> {
    let mut fresh = OpenReport::default();
    match read_head(path, &mut fresh) {
        Err(Error::Corrupt { reason, .. }) => {
            report.moved.push(put_aside(path, reason)?);
            read_head(path, report)
        }
        other => {
            let moved = std::mem::take(&mut report.moved);
            *report = OpenReport { moved, ..fresh };
            other
        }
    }
}

fn read_head(path: &Path, report: &mut OpenReport) -> Result<Recovered, Error> {
    let connection = sqlite::open(path, Mode::Exclusive, MIGRATIONS)?;
    let wrong = |e: rusqlite::Error| sqlite::error("read", path, &e);
    let Replayed { head, unsaved, bad, bad_series } = replay::load(&connection, report).map_err(wrong)?;
    replay::quarantine(&connection, &bad, &bad_series).map_err(wrong)?;
    let marks = load_marks(&connection).map_err(wrong)?;
    for Bad { table, id, reason } in &bad {
        warn!(path = %path.display(), ?table, row = id, reason, "put damaged samples aside");
    }
    for (id, reason) in &bad_series {
        warn!(path = %path.display(), series = id, reason, "put a series with damaged labels aside");
    }
    info!(path = %path.display(), frames = report.frames, samples = report.samples, series = report.series, "replayed the head");
    Ok(Recovered { connection, head, marks, unsaved })
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
