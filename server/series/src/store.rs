//! The store on disk: `head.db` with what came lately, and one file per UTC day with what was sealed.
//!
//! ```text
//! append ─► writer thread ─► head.db (series, frames, marks: one transaction) ─► head in memory ─► answer
//! seal   ─► head samples before the cutoff ─► day files ─► frames and memory forget them
//! select ◄─ head (live, then on its way to day files) + day files
//! summarize ─► a day's buckets of five minutes and of an hour (see `tiers`) ─► long ranges, and what samples have expired of
//! ```
//!
//! # Invariants
//! - An answer to [`Engine::append`] comes after the commit, with `synchronous = FULL`: an acknowledged sample survives a
//!   power loss.
//! - A batch with a source and a sequence not above the source's mark is not applied; the mark moves in the batch's own
//!   transaction.
//! - A series has one value at a time: of two samples with the same time the one written last wins, in memory, in chunks and
//!   between them.
//!
//! # On crash
//! Sealing has three steps: (1) the head's samples before a cutoff become a generation; (2) each day file takes its part in
//! one transaction, merged by time with the chunks it has; (3) one transaction in `head.db` deletes frames that are wholly
//! before the cutoff and marks the others `sealed_before = cutoff`, then memory forgets the generation.
//! - Crash before a day's commit: the day file is as before; frames are replayed; the next seal does it again.
//! - Crash between (2) and (3): frames are replayed into the head although the day file has their samples. Reads put both
//!   together by time, so nothing is doubled; the next seal merges the same samples into the same chunks, which changes nothing.
//! - Crash in or after (3): the transaction decides. A frame with samples on both sides of the cutoff stays, and what is before
//!   its `sealed_before` is not replayed, so an old value can never win over a newer one that was sealed from a later frame.
//! - What the checkpoint has of the head follows the same steps: see `checkpoint`.
//! - Frames that arrive during a seal have ids above the one that step (1) saw and are left for the next seal.
//!
//! # Disk full
//! Transactions fail as a whole with [`Error::Full`]; callers keep their data and try again. A failed seal leaves its
//! generation readable in memory and the next seal takes it along.
//!
//! # Damage
//! See [`OpenReport`]: damaged files are put aside with the name `*.corrupt-<n>`, counted and told; a day file found damaged
//! while running is put aside then. A row of chunks with a wrong checksum, up to 128 series of one window, is left out of answers
//! and counted; samples that come again replace it.

mod admit;
mod changes;
mod checkpoint;
mod chunk;
mod day;
mod day_reader;
mod decimals;
mod expire;
mod finder;
pub(crate) mod frames;
mod group;
mod head;
mod index;
mod index_file;
pub mod inspect;
mod part;
mod query;
mod recover;
mod replay;
mod sqlite;
mod summaries;
mod tail;
mod tier;
mod tier_chunk;
mod tier_expire;
mod tiers;
pub(crate) mod varint;
mod writer;

pub use admit::{Reason, Refusal, Report};
pub use expire::RetainReport;
pub use recover::{Moved, OpenReport};
pub use tiers::SummarizeReport;

use crate::{config::Config, error::Error};
use changes::Changes;
use day::DAY_MS;
use day_reader::DayReader;
use head::{Generation, Head};
use part::Piece;
use shipwatch_common::{
    model::{Labels, Sample},
    time::UnixMs,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
};
use tracing::{info, warn};
use writer::{Counters, Message, Reply, Writer};

/// Appends that may wait for the writer before callers block.
const QUEUE: usize = 256;

/// Day files that stay open between queries: a month and more, each with a cache of a quarter of a megabyte.
const IDLE_READERS: usize = 40;

/// Samples from one source, to be applied once.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// Who sends; empty for senders without a sequence, such as rules and remote write.
    pub source: String,
    /// Grows with every batch of the source; ignored without a source.
    pub seq: u64,
    /// The samples; shared with the sender, who keeps them until they are stored.
    pub samples: Arc<Vec<Sample>>,
}

/// What became of a batch. Both are final: the sender may forget it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// On disk and readable.
    Stored {
        /// Samples stored.
        samples: u64,
        /// Samples refused and counted in [`Stats`]: too old, too far ahead, without labels, or of too many series.
        refused: u64,
    },
    /// Applied before; nothing was done.
    Duplicate,
}

/// What one seal did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SealReport {
    /// Day files written to.
    pub day_files: u64,
    /// Chunks written.
    pub chunks: u64,
    /// Samples in these chunks, those of chunks that were rewritten included.
    pub samples: u64,
    /// Chunks that could not be read and were replaced by what is new: their samples are lost.
    pub damaged_chunks: u64,
}

/// Numbers about the store. Totals count from the start of the process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
pub struct Stats {
    /// Series in memory.
    pub head_series: u64,
    /// Samples stored.
    pub samples_total: u64,
    /// Batches that had been applied before.
    pub duplicate_batches_total: u64,
    /// Samples refused since memory holds `max_head_series` series.
    pub refused_too_many_series_total: u64,
    /// Samples refused since their host has `max_host_series` series in memory.
    pub refused_host_series_total: u64,
    /// Samples refused since they are older than retention keeps them.
    pub refused_too_old_total: u64,
    /// Samples refused since they are further behind their series than `out_of_order_window`.
    pub refused_out_of_order_total: u64,
    /// Samples refused since their series has another value at that time; only senders that ask for it are refused.
    pub refused_duplicate_total: u64,
    /// Samples refused since they are further in the future than `max_ahead`.
    pub refused_too_far_ahead_total: u64,
    /// Samples refused since they have no label.
    pub refused_without_labels_total: u64,
    /// Chunks that could not be read.
    pub damaged_chunks_total: u64,
    /// Files found damaged and put aside, at the start or later.
    pub damaged_files_total: u64,
    /// Files that retention deleted.
    pub expired_files_total: u64,
    /// Bytes that retention freed.
    pub expired_bytes_total: u64,
    /// Samples that retention took out of files that stay for the sake of other environments.
    pub expired_samples_total: u64,
    /// Bytes of `head.db` with its log.
    pub head_bytes: u64,
    /// Bytes of the day files with their logs.
    pub day_bytes: u64,
    /// Number of day files.
    pub day_files: u64,
    /// Bytes of the files of summaries with their logs.
    pub tier_bytes: u64,
    /// Number of files of summaries.
    pub tier_files: u64,
}

/// Places where tests break in.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    /// Size limit of `head.db`.
    pub(crate) head_max_pages: Option<u32>,
    /// Size limit of a day file.
    pub(crate) day_max_pages: Option<u32>,
    /// A seal stops after the day files' commit, before the head forgets.
    pub(crate) stop_before_cleanup: AtomicBool,
    /// Series that a checkpoint saves in one transaction, in place of thousands.
    pub(crate) saved_at_once: Option<usize>,
}

/// The store. Share it in an `Arc`; every method blocks and is called off the async threads.
#[derive(Debug)]
pub struct Engine {
    dir: PathBuf,
    config: Config,
    head: Arc<RwLock<Head>>,
    marks: Arc<Mutex<HashMap<String, u64>>>,
    counters: Arc<Counters>,
    changes: Arc<Mutex<Changes>>,
    /// A file that takes a damaged one's place has another `Arc`: readers of the old one are told apart by it.
    days: RwLock<BTreeMap<i64, Arc<Path>>>,
    readers: Mutex<Vec<(i64, DayReader)>>,
    tiers: tiers::Tiers,
    /// One seal, retention or making of summaries at a time.
    sealing: Mutex<()>,
    hooks: Hooks,
    sender: Option<SyncSender<Message>>,
    writer: Option<JoinHandle<()>>,
}

impl Engine {
    /// Opens or creates the store in `dir` and replays what was not sealed.
    ///
    /// # Errors
    /// A directory that cannot be used, a store in use by another process, a file of a newer format. Damage is not an error:
    /// see [`OpenReport`].
    pub fn open(dir: impl Into<PathBuf>, config: Config) -> Result<(Self, OpenReport), Error> {
        Self::open_with(dir.into(), config, Hooks::default())
    }

    pub(crate) fn open_with(dir: PathBuf, config: Config, hooks: Hooks) -> Result<(Self, OpenReport), Error> {
        fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, &e))?;
        let mut report = OpenReport::default();
        let path = dir.join("head.db");
        let recovered = recover::open_head(&path, &mut report)?;
        if let Some(pages) = hooks.head_max_pages {
            let set = recovered.connection.pragma_update(None, "max_page_count", pages);
            set.map_err(|e| sqlite::error("open", &path, &e))?;
        }
        let days = recover::open_days(&dir, &mut report)?;
        let tiers = tiers::open(&dir, |day| days.contains_key(&day), &mut report)?;
        let head = Arc::new(RwLock::new(recovered.head));
        let marks = Arc::new(Mutex::new(recovered.marks));
        let counters = Arc::new(Counters::default());
        counters.damaged_files.store(report.moved.len() as u64, Relaxed);
        let changes = Arc::new(Mutex::default());
        counters.unsaved.store(recovered.unsaved, Relaxed);
        let (sender, messages) = sync_channel(QUEUE);
        let writer = Writer {
            connection: recovered.connection,
            path: path.clone(),
            config: config.clone(),
            head: head.clone(),
            marks: marks.clone(),
            counters: counters.clone(),
            changes: Arc::clone(&changes),
        };
        let spawned = std::thread::Builder::new().name("series-writer".to_owned()).spawn(move || writer.run(&messages));
        let writer = spawned.map_err(|e| Error::io("start the writer of", &path, &e))?;
        let engine = Self {
            dir,
            config,
            head,
            marks,
            counters,
            changes,
            days: RwLock::new(days),
            tiers,
            readers: Mutex::default(),
            sealing: Mutex::default(),
            hooks,
            sender: Some(sender),
            writer: Some(writer),
        };
        Ok((engine, report))
    }

    /// The settings it was opened with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Stores batches in one transaction; one outcome per batch, in order. Blocks until they are on disk.
    ///
    /// # Errors
    /// Nothing was applied: [`Error::Full`] and [`Error::Io`] may pass, others need a person.
    pub fn append(&self, batches: Vec<Append>) -> Result<Vec<Outcome>, Error> {
        self.append_at(shipwatch_common::time::now_ms(), batches)
    }

    /// As [`Engine::append`], at a given time: what is too old or too far ahead is judged by it.
    ///
    /// # Errors
    /// See [`Engine::append`].
    pub fn append_at(&self, now_ms: UnixMs, batches: Vec<Append>) -> Result<Vec<Outcome>, Error> {
        let reports = self.ask(|reply| Message::Append { now_ms, batches, strict: false, reply })?;
        Ok(reports.into_iter().map(|report| report.map_or(Outcome::Duplicate, |report| report.outcome())).collect())
    }

    /// Stores samples of a sender that must be told of each one that was refused, as Prometheus tells it. What is good is stored
    /// although other samples are refused. A sample whose series has another value at that time is refused, as far as the value
    /// is among the newest ones of the series; of [`Engine::append`] it is taken.
    ///
    /// # Errors
    /// See [`Engine::append`].
    pub fn append_strict(&self, now_ms: UnixMs, samples: Arc<Vec<Sample>>) -> Result<Report, Error> {
        let batches = vec![Append { samples, ..Append::default() }];
        let reports = self.ask(|reply| Message::Append { now_ms, batches, strict: true, reply })?;
        Ok(reports.into_iter().flatten().next().unwrap_or_default())
    }

    /// The last sequence applied for a source.
    #[must_use]
    pub fn mark(&self, source: &str) -> Option<u64> {
        lock(&self.marks).get(source).copied()
    }

    fn ask<T>(&self, message: impl FnOnce(Reply<T>) -> Message) -> Result<T, Error> {
        let stopped = || Error::Stopped { reason: "its writer has ended; see the log for the reason".to_owned() };
        let (reply, answer) = sync_channel(1);
        self.sender.as_ref().ok_or_else(stopped)?.send(message(reply)).map_err(|_| stopped())?;
        answer.recv().map_err(|_| stopped())?
    }

    /// Writes every two-hour window that ended more than `seal_delay` ago to its day file, late samples of older windows
    /// included, and frees the head. Call it every minute or so; it does nothing most of the time.
    ///
    /// # Errors
    /// Nothing is lost and the next call goes on where this one stopped.
    pub fn seal(&self, now_ms: UnixMs) -> Result<SealReport, Error> {
        let _one_at_a_time = lock(&self.sealing);
        let cutoff = chunk::window_of(now_ms.saturating_sub(self.config.seal_delay.as_millis() as i64));
        let plan = self.ask(|reply| Message::BeginSeal { cutoff, reply })?;
        let mut report = SealReport::default();
        if plan.generations.is_empty() {
            return Ok(report);
        }
        for day in days_of(&plan.generations) {
            self.spoil(day, !read_lock(&self.days).contains_key(&day), now_ms)?;
            self.seal_day(day, &plan.generations, &mut report)?;
        }
        self.counters.damaged_chunks.fetch_add(report.damaged_chunks, Relaxed);
        if self.hooks.stop_before_cleanup.load(Relaxed) {
            return Err(Error::Stopped { reason: "a test asked for it".to_owned() });
        }
        self.ask(|reply| Message::EndSeal { cutoff: plan.cutoff, last_frame: plan.last_frame, reply })?;
        info!(days = report.day_files, chunks = report.chunks, samples = report.samples, "sealed samples");
        Ok(report)
    }

    fn seal_day(&self, day: i64, generations: &[Arc<Generation>], report: &mut SealReport) -> Result<(), Error> {
        let path = self.dir.join(day::file_name(day));
        let parts = parts_of(day, generations);
        let pages = self.hooks.day_max_pages;
        let written = match day::write(&path, day, &parts, pages) {
            Err(Error::Corrupt { reason, .. }) => {
                self.put_aside(day, reason)?;
                day::write(&path, day, &parts, pages)
            }
            other => other,
        }?;
        if !read_lock(&self.days).contains_key(&day) {
            recover::sync_dir(&path)?;
            write_lock(&self.days).insert(day, path.into());
        }
        report.day_files += 1;
        report.chunks += written.chunks;
        report.samples += written.samples;
        report.damaged_chunks += written.damaged;
        if written.damaged > 0 {
            lock(&self.changes).note_all();
        }
        Ok(())
    }

    /// Times that day files are about, oldest first: first and last moment of each.
    #[must_use]
    pub fn sealed_days(&self) -> Vec<(UnixMs, UnixMs)> {
        read_lock(&self.days).keys().map(|day| (day * DAY_MS, (day + 1) * DAY_MS - 1)).collect()
    }

    /// Numbers for people and for `/metrics`.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
        let with_log = |path: &Path| size(path) + size(&recover::beside(path, "-wal"));
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        let (days, tiers) = (read_lock(&self.days), self.tiers.files());
        Stats {
            head_series: read_lock(&self.head).series_count() as u64,
            samples_total: count(&self.counters.appended),
            duplicate_batches_total: count(&self.counters.duplicates),
            refused_too_many_series_total: self.counters.refused(Reason::TooManySeries),
            refused_host_series_total: self.counters.refused(Reason::TooManyHostSeries),
            refused_too_old_total: self.counters.refused(Reason::TooOld),
            refused_out_of_order_total: self.counters.refused(Reason::OutOfOrder),
            refused_duplicate_total: self.counters.refused(Reason::Duplicate),
            refused_too_far_ahead_total: self.counters.refused(Reason::TooFarAhead),
            refused_without_labels_total: self.counters.refused(Reason::WithoutLabels),
            expired_files_total: count(&self.counters.expired_files),
            expired_bytes_total: count(&self.counters.expired_bytes),
            expired_samples_total: count(&self.counters.expired_samples),
            damaged_chunks_total: count(&self.counters.damaged_chunks),
            damaged_files_total: count(&self.counters.damaged_files),
            head_bytes: with_log(&self.dir.join("head.db")),
            day_bytes: days.values().map(|path| with_log(path)).sum(),
            day_files: days.len() as u64,
            tier_bytes: tiers.iter().map(|(tier, file)| with_log(&self.tier_path(*tier, *file))).sum(),
            tier_files: tiers.len() as u64,
        }
    }

    /// Takes a day out of what is read. The change is noted before anybody can read without it.
    fn unlist(&self, day: i64) -> Option<Arc<Path>> {
        let mut days = write_lock(&self.days);
        lock(&self.changes).note_all();
        days.remove(&day)
    }

    /// Takes a damaged day file out of use.
    fn put_aside(&self, day: i64, reason: String) -> Result<(), Error> {
        let path = self.unlist(day).unwrap_or_else(|| self.dir.join(day::file_name(day)).into());
        lock(&self.readers).retain(|(of, _)| *of != day);
        // Another reader may have been faster.
        if path.try_exists().map_err(|e| Error::io("look for", &path, &e))? {
            recover::put_aside(&path, reason)?;
            self.counters.damaged_files.fetch_add(1, Relaxed);
        }
        self.mark_gone(day, None)
    }
}

impl Drop for Engine {
    /// Ends the writer after what it was asked to do.
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            warn!("the series writer ended with a panic");
        }
    }
}

/// Days that have samples in generations.
fn days_of(generations: &[Arc<Generation>]) -> BTreeSet<i64> {
    let mut days = BTreeSet::new();
    let mut pieces = Vec::new();
    for (_, part) in generations.iter().flat_map(|generation| generation.series.values()) {
        part.pieces(i64::MIN, i64::MAX, &mut pieces);
        for piece in pieces.drain(..) {
            match piece {
                Piece::Block(block) => days.extend([day::day_of(block.t0)]),
                Piece::Tail(tail) => days.extend(tail.range().map(|(t0, _)| day::day_of(t0))),
                Piece::Plain(samples) => days.extend(samples.iter().map(|(ts, _)| day::day_of(*ts))),
            }
        }
    }
    days
}

/// One day's part of generations, by series.
fn parts_of(day: i64, generations: &[Arc<Generation>]) -> Vec<(Arc<Labels>, Vec<Piece>)> {
    let mut by_labels: BTreeMap<Arc<Labels>, Vec<Piece>> = BTreeMap::new();
    let (t0, t1) = (day * DAY_MS, (day + 1) * DAY_MS - 1);
    for (labels, part) in generations.iter().flat_map(|generation| generation.series.values()) {
        let mut pieces = Vec::new();
        part.pieces(t0, t1, &mut pieces);
        if !pieces.is_empty() {
            by_labels.entry(labels.clone()).or_default().append(&mut pieces);
        }
    }
    by_labels.into_iter().collect()
}

/// A lock whose holder panicked still guards sound data: every change under these locks is complete at each step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_lock<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write_lock<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
