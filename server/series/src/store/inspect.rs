//! Looking at a store that no server has open: is it whole, and what is in it.
//!
//! # Invariants
//! - Nothing is changed, put aside or deleted; damage is told and reading goes on behind it.
//! - A few hundred series are in memory at a time.

mod tiers;

pub use tiers::{TierStats, tier_stats};

use super::{
    checkpoint, chunk, day,
    day::DAY_MS,
    day_reader::DayReader,
    frames::{self, Frame},
    index::Lookup as _,
    part::{Piece, merge},
    recover::{self, OpenReport},
    replay,
    sqlite::{self, Mode},
};
use crate::{config::ENV, error::Error};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Series that are read together.
const GROUP: usize = 512;

/// Something that cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Damage {
    /// In which file.
    pub file: String,
    /// What is wrong.
    pub reason: String,
}

/// What was looked at.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Verdict {
    /// Files read.
    pub files: u64,
    /// Chunks, in day files and in the checkpoint of the head.
    pub chunks: u64,
    /// Frames, in `head.db`.
    pub frames: u64,
    /// Samples in both.
    pub samples: u64,
    /// Buckets, in files of summaries.
    pub buckets: u64,
    /// What cannot be read.
    pub damage: Vec<Damage>,
}

/// What one day file, or `head.db`, holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DayStats {
    /// `2026-11-23`; `head` is what no day file has yet, `damaged` what was put aside.
    pub day: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Series.
    pub series: u64,
    /// Samples.
    pub samples: u64,
    /// Bytes for each sample, index included.
    pub bytes_per_sample: f64,
    /// Series by environment; the empty one is that of series without the label `env`.
    pub envs: BTreeMap<String, u64>,
    /// Label names with most series, and with how many values.
    pub names: Vec<NameStats>,
    /// Labels with most series.
    pub pairs: Vec<PairStats>,
}

/// A label's name.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct NameStats {
    /// The name.
    pub name: String,
    /// Series that have it.
    pub series: u64,
    /// Its values.
    pub values: u64,
}

/// A label.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PairStats {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
    /// Series that have it.
    pub series: u64,
}

/// Day files of a directory, oldest first.
fn day_files(dir: &Path) -> Result<Vec<(i64, PathBuf)>, Error> {
    let mut days = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, &e))? {
        let entry = entry.map_err(|e| Error::io("list", dir, &e))?;
        if let Some(day) = entry.file_name().to_str().and_then(day::parse_name) {
            days.push((day, entry.path()));
        }
    }
    days.sort_unstable();
    Ok(days)
}

/// Reads everything in the store's directory. `progress` is told each file before it is read.
///
/// # Errors
/// The directory cannot be listed; what is wrong with files is in the verdict.
pub fn verify(dir: &Path, mut progress: impl FnMut(&Path)) -> Result<Verdict, Error> {
    let mut verdict = Verdict::default();
    let days = day_files(dir)?;
    let head = dir.join("head.db");
    if head.try_exists().map_err(|e| Error::io("look for", &head, &e))? {
        progress(&head);
        let done = verify_head(&head, &mut verdict);
        verdict.file_done(&head, done);
    }
    for (day, path) in days {
        progress(&path);
        let done = verify_day(&path, day, &mut verdict);
        verdict.file_done(&path, done);
    }
    tiers::verify(dir, &mut progress, &mut verdict)?;
    Ok(verdict)
}

impl Verdict {
    fn add(&mut self, path: &Path, reason: impl Into<String>) {
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        self.damage.push(Damage { file, reason: reason.into() });
    }

    fn file_done(&mut self, path: &Path, done: Result<(), Error>) {
        self.files += 1;
        if let Err(error) = done {
            let reason = match error {
                Error::Corrupt { reason, .. } => reason,
                other => other.to_string(),
            };
            self.add(path, reason);
        }
    }
}

/// SQLite's own look at its pages and indexes.
fn quick_check(connection: &rusqlite::Connection, path: &Path, verdict: &mut Verdict) -> Result<(), Error> {
    let wrong = |e: rusqlite::Error| sqlite::error("read", path, &e);
    let mut check = connection.prepare("PRAGMA quick_check(10)").map_err(wrong)?;
    let told = check.query_map([], |row| row.get::<_, String>(0)).map_err(wrong)?;
    for reason in told {
        let reason = reason.map_err(wrong)?;
        if reason != "ok" {
            verdict.add(path, reason);
        }
    }
    Ok(())
}

fn verify_head(path: &Path, verdict: &mut Verdict) -> Result<(), Error> {
    let connection = sqlite::open(path, Mode::Read, recover::MIGRATIONS)?;
    let wrong = |e: rusqlite::Error| sqlite::error("read", path, &e);
    quick_check(&connection, path, verdict)?;
    let mut series = connection.prepare("SELECT id, labels FROM series").map_err(wrong)?;
    let mut rows = series.query([]).map_err(wrong)?;
    while let Some(row) = rows.next().map_err(wrong)? {
        let labels = row.get_ref(1).map_err(wrong)?.as_blob().unwrap_or_default();
        if let Err(reason) = frames::decode_labels(labels) {
            verdict.add(path, format!("labels of series {}: {reason}", row.get::<_, i64>(0).map_err(wrong)?));
        }
    }
    let mut all = connection.prepare("SELECT id, payload FROM frames").map_err(wrong)?;
    let mut rows = all.query([]).map_err(wrong)?;
    while let Some(row) = rows.next().map_err(wrong)? {
        verdict.frames += 1;
        match Frame::decode(row.get_ref(1).map_err(wrong)?.as_blob().unwrap_or_default()) {
            Ok(frame) => verdict.samples += frame.iter().count() as u64,
            Err(reason) => verdict.add(path, format!("frame {}: {reason}", row.get::<_, i64>(0).map_err(wrong)?)),
        }
    }
    verify_checkpoint(&connection, path, verdict).map_err(wrong)
}

/// What the head was saved as. A file of the first format has nothing of it.
fn verify_checkpoint(connection: &rusqlite::Connection, path: &Path, verdict: &mut Verdict) -> rusqlite::Result<()> {
    if !replay::has_checkpoint(connection)? {
        return Ok(());
    }
    let mut all = connection.prepare("SELECT number, body FROM saved")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let number = row.get(0)?;
        match checkpoint::decode_open(number, row.get_ref(1)?.as_blob()?) {
            Ok(series) => {
                verdict.samples += series.iter().map(|(_, (tail, late))| u64::from(tail.count()) + late.len() as u64).sum::<u64>()
            }
            Err(reason) => verdict.add(path, format!("checkpoint {number}: {reason}")),
        }
    }
    let mut all = connection.prepare("SELECT number, body FROM saved_blocks")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let number = row.get(0)?;
        match checkpoint::decode_blocks(number, row.get_ref(1)?.as_blob()?) {
            Ok(blocks) => {
                for (id, block) in blocks {
                    verdict.chunks += 1;
                    verdict.samples += u64::from(block.count);
                    if let Some(reason) = wrong_with(&Piece::Block(block)) {
                        verdict.add(path, format!("checkpoint of series {id}: {reason}"));
                    }
                }
            }
            Err(reason) => verdict.add(path, format!("blocks of checkpoint {number}: {reason}")),
        }
    }
    Ok(())
}

fn verify_day(path: &Path, day: i64, verdict: &mut Verdict) -> Result<(), Error> {
    {
        let connection = sqlite::open(path, Mode::Read, day::MIGRATIONS)?;
        quick_check(&connection, path, verdict)?;
    }
    let reader = DayReader::open(path)?;
    reader.check()?;
    let (first, last) = (day * DAY_MS, (day + 1) * DAY_MS - 1);
    for group in reader.index.all()?.chunks(GROUP) {
        let labels = reader.index.labels(group)?;
        let mut unreadable = Vec::new();
        let chunks = reader.chunks(group, day, (first, last), &mut |reason| unreadable.push(reason))?;
        unreadable.into_iter().for_each(|reason| verdict.add(path, reason));
        for (labels, pieces) in labels.iter().zip(chunks) {
            for piece in pieces {
                verdict.chunks += 1;
                verdict.samples += piece.count();
                if let Some(reason) = wrong_with(&piece) {
                    verdict.add(path, format!("{labels}: {reason}"));
                }
            }
        }
    }
    Ok(())
}

/// What is wrong with a chunk.
fn wrong_with(piece: &Piece) -> Option<String> {
    let mut damaged = None;
    let (ts, _) = merge(std::slice::from_ref(piece), i64::MIN, i64::MAX, &mut |reason| damaged = Some(reason.to_owned()));
    let told = match piece {
        Piece::Block(block) => Some((block.t0, block.t1, block.count as usize)),
        _ => None,
    };
    damaged.or_else(|| {
        let found = Some((*ts.first()?, *ts.last()?, ts.len()));
        let one_window = ts.first().map(|at| chunk::window_of(*at)) == ts.last().map(|at| chunk::window_of(*at));
        (found != told || !one_window).then(|| format!("a chunk holds {found:?} (first, last, count), its row tells {told:?}"))
    })
}

/// What each day file holds, then what `head.db` does, then the bytes of what was put aside; `top` is how many names and labels
/// are told.
///
/// # Errors
/// A file that cannot be read: `verify` tells more.
pub fn stats(dir: &Path, top: usize) -> Result<Vec<DayStats>, Error> {
    let mut all: Vec<DayStats> = day_files(dir)?.into_iter().map(|(day, path)| day_stats(day, &path, top)).collect::<Result<_, _>>()?;
    let head = dir.join("head.db");
    if head.try_exists().map_err(|e| Error::io("look for", &head, &e))? {
        all.push(head_stats(&head, top)?);
    }
    let bytes = damaged_bytes(dir)?;
    if bytes > 0 {
        all.push(DayStats::new("damaged", bytes, 0, 0));
    }
    Ok(all)
}

/// Bytes of damaged files that were put aside.
fn damaged_bytes(dir: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, &e))? {
        let entry = entry.map_err(|e| Error::io("list", dir, &e))?;
        if entry.file_name().to_string_lossy().contains(".corrupt-") {
            bytes += entry.metadata().map_err(|e| Error::io("read", &entry.path(), &e))?.len();
        }
    }
    Ok(bytes)
}

/// The whole head is in memory for it, as in a running server.
fn head_stats(path: &Path, top: usize) -> Result<DayStats, Error> {
    let connection = sqlite::open(path, Mode::Read, recover::MIGRATIONS)?;
    let mut report = OpenReport::default();
    let head = replay::load(&connection, &mut report).map_err(|e| sqlite::error("read", path, &e))?.head;
    let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    let bytes = size(path) + size(&recover::beside(path, "-wal"));
    let mut stats = DayStats::new("head", bytes, report.series, report.samples);
    for name in head.postings.names() {
        let (mut series, mut values) = (0, 0);
        for value in head.postings.values(name) {
            let with = head.postings.count(name, value) as u64;
            (series, values) = (series + with, values + 1);
            stats.add_pair(name, value, with, top);
        }
        stats.names.push(NameStats { name: name.to_owned(), series, values });
    }
    stats.finish(top);
    Ok(stats)
}

impl DayStats {
    fn new(name: &str, bytes: u64, series: u64, samples: u64) -> Self {
        let bytes_per_sample = if samples == 0 { 0.0 } else { bytes as f64 / samples as f64 };
        let (envs, names, pairs) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { day: name.to_owned(), bytes, series, samples, bytes_per_sample, envs, names, pairs }
    }

    fn add_pair(&mut self, name: &str, value: &str, series: u64, top: usize) {
        if name == ENV {
            self.envs.insert(value.to_owned(), series);
        }
        self.pairs.push(PairStats { name: name.to_owned(), value: value.to_owned(), series });
        shorten(&mut self.pairs, top, GROUP);
    }

    /// Brings what was added to its order and length.
    fn finish(&mut self, top: usize) {
        let without = self.series - self.envs.values().sum::<u64>().min(self.series);
        if without > 0 {
            self.envs.insert(String::new(), without);
        }
        shorten(&mut self.pairs, top, 0);
        self.names.sort_by(|a, b| (b.values, &a.name).cmp(&(a.values, &b.name)));
        self.names.truncate(top);
    }
}

fn day_stats(day: i64, path: &Path, top: usize) -> Result<DayStats, Error> {
    let reader = DayReader::open(path)?;
    let all = reader.index.all()?;
    let (first, last) = (day * DAY_MS, (day + 1) * DAY_MS - 1);
    let mut samples = 0;
    for group in all.chunks(GROUP) {
        samples += reader.chunks(group, day, (first, last), &mut |_| {})?.iter().flatten().map(Piece::count).sum::<u64>();
    }
    let bytes = fs::metadata(path).map_err(|e| Error::io("read", path, &e))?.len();
    let mut stats = DayStats::new(day::file_name(day).trim_end_matches(".db"), bytes, all.len() as u64, samples);
    for name in reader.index.names_or_values(None)? {
        let values = reader.index.names_or_values(Some(&name))?;
        let (mut series, count) = (0, values.len() as u64);
        for value in values {
            let with = reader.index.with_value(&name, &value)?.len() as u64;
            series += with;
            stats.add_pair(&name, &value, with, top);
        }
        stats.names.push(NameStats { name, series, values: count });
    }
    stats.finish(top);
    Ok(stats)
}

/// Keeps the labels with most series once there are `slack` more than wanted.
fn shorten(pairs: &mut Vec<PairStats>, top: usize, slack: usize) {
    if pairs.len() >= top + slack {
        pairs.sort_by(|a, b| (b.series, &a.name, &a.value).cmp(&(a.series, &b.name, &b.value)));
        pairs.truncate(top);
    }
}
