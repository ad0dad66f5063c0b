//! The store: one head, one file per UTC day, one thread that writes.
//!
//! # Layout of the directory
//! - `head.db`: what was committed and is not sealed ([`head`])
//! - `YYYY-MM-DD.db`: compressed blocks of that day ([`day`], [`seal`]); retention deletes the file
//! - `lock`: held while the store is open; `*.corrupt-<n>`: files that were moved aside ([`recover`])
//!
//! # Invariants
//! - A line is in the head or in its day's file for every reader, never in both and never in none: a reader takes its
//!   snapshot of the head first, then of the day, and skips the rows that the day's marks cover ([`snapshot`]).
//! - Acknowledged means durable: SQLite's journal is synced before an append returns.

pub(crate) mod block;
pub(crate) mod bloom;
pub(crate) mod counts;
pub(crate) mod day;
pub(crate) mod erase;
pub(crate) mod fields;
pub(crate) mod frame;
pub(crate) mod head;
pub(crate) mod recover;
pub(crate) mod retention;
pub(crate) mod screen;
pub(crate) mod seal;
pub(crate) mod snapshot;
pub(crate) mod stats;
pub(crate) mod volume;
pub(crate) mod writer;

use crate::{
    Config,
    error::{Error, Result},
    query::{
        Query,
        count::{CountBy, Counts},
        search::{Page, Search},
    },
    tail::{Subscription, Tail},
};
use day::Day;
use recover::{Damage, OpenReport};
use seal::Sealed;
use shipwatch_common::{
    model::{Labels, LogBatch},
    time::{UnixMs, UnixNs},
};
use stats::Stats;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
};
use writer::{Command, Retained, Work, Writer};

/// Appends that may wait for the writer; then callers wait.
const QUEUE: usize = 64;
/// Longest name of a lane or an agent.
const NAME_BYTES: usize = 1024;

/// What one lane delivers at once.
#[derive(Clone, Debug)]
pub struct Append {
    /// Name of the lane whose sequence this is; empty for senders without one.
    pub source: String,
    /// Sequence in the lane; grows.
    pub seq: u64,
    /// Who read the files.
    pub agent: String,
    /// Lines with their final labels. `FileId(0)` is for lines that come from no file: they have no position, only the
    /// lane's sequence keeps them from coming twice.
    pub batches: Vec<LogBatch>,
}

/// What became of an append. All of it is durable, or was before.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// The sequence was applied before: nothing was stored now.
    pub duplicate: bool,
    /// Lines stored.
    pub lines: u64,
    /// Lines dropped because their file was stored further already.
    pub duplicate_lines: u64,
    /// Lines that were longer than allowed and are cut.
    pub cut_lines: u64,
    /// Lines with an impossible time, filed under the time of arrival.
    pub redated_lines: u64,
}

/// What writer and readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) config: Config,
    days: RwLock<BTreeSet<Day>>,
    damage: Mutex<Vec<Damage>>,
    _lock: std::fs::File,
}

impl Shared {
    pub(crate) fn new(dir: PathBuf, config: Config, days: BTreeSet<Day>, damage: Vec<Damage>, lock: std::fs::File) -> Self {
        Self { dir, config, days: RwLock::new(days), damage: Mutex::new(damage), _lock: lock }
    }

    pub(crate) fn days(&self) -> RwLockReadGuard<'_, BTreeSet<Day>> {
        self.days.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn days_mut(&self) -> RwLockWriteGuard<'_, BTreeSet<Day>> {
        self.days.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn damage_mut(&self) -> MutexGuard<'_, Vec<Damage>> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Size of a database with its journal; nothing where there is no file.
pub(crate) fn file_bytes(path: &Path) -> Result<u64> {
    let mut total = 0;
    for suffix in ["", "-wal"] {
        let path = PathBuf::from(format!("{}{suffix}", path.display()));
        match std::fs::metadata(&path) {
            Ok(found) => total += found.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(&path, &error)),
        }
    }
    Ok(total)
}

/// An open log store. Calls block; many threads may call at once. Dropping it finishes what was accepted and ends its threads.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    commands: Option<SyncSender<Command>>,
    writer: Option<JoinHandle<()>>,
    tail: Tail,
}

impl Engine {
    /// Opens a directory, or makes it. What is damaged is moved aside and told in the report; the start goes on.
    ///
    /// # Errors
    /// The directory cannot be used, is in use, or was written by a newer version.
    pub fn open(dir: &Path, config: Config) -> Result<(Self, OpenReport)> {
        let (head, shared, report) = recover::open(dir, &config)?;
        let shared = Arc::new(shared);
        let tail = Tail::start(usize::try_from(config.max_subscribers).unwrap_or(usize::MAX)).map_err(|error| Error::io(dir, &error))?;
        let writer = Writer::new(head, Arc::clone(&shared), tail.publisher().ok_or(Error::Closed)?)?;
        let (commands, queue) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("logs-writer".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|error| Error::io(dir, &error))?;
        Ok((Self { shared, commands: Some(commands), writer: Some(thread), tail }, report))
    }

    /// Stores what lanes deliver, and returns once it is durable: one outcome for each append. All of it is stored or none.
    ///
    /// # Errors
    /// Nothing was stored: [`Error::Full`] (try again later), [`Error::Invalid`] (a number or name out of bounds), or the
    /// database failed.
    pub fn append(&self, appends: Vec<Append>) -> Result<Vec<Outcome>> {
        appends.iter().try_for_each(check)?;
        self.ask(|reply| Command::Append { appends, reply })
    }

    /// Moves what is old or large enough from the head into blocks. To be called every few seconds.
    ///
    /// # Errors
    /// What failed stays in the head.
    pub fn seal(&self, now_ms: UnixMs) -> Result<Sealed> {
        self.ask(|reply| Command::Seal { now_ms, reply })
    }

    /// Deletes what the rules of retention say; of streams without a rule, the days before the last `keep_days` full days. Then the oldest
    /// days while the configured size is passed; forgets senders and files not heard of for 90 days. To be called every few minutes.
    ///
    /// # Errors
    /// What failed is still there.
    pub fn retain(&self, now_ms: UnixMs, keep_days: u32) -> Result<Retained> {
        self.ask(|reply| Command::Retain { now_ms, keep_days, reply })
    }

    /// One page of matching lines.
    ///
    /// # Errors
    /// Arguments out of bounds, or the head cannot be read. Damage elsewhere is told in the page's stats.
    pub fn search(&self, query: &Query, search: &Search) -> Result<Page> {
        crate::query::search::search(&self.shared, query, search)
    }

    /// How many lines match in each step of time.
    ///
    /// # Errors
    /// As [`Engine::search`].
    pub fn count_by(&self, query: &Query, count: &CountBy) -> Result<Counts> {
        crate::query::count::count_by(&self.shared, query, count)
    }

    /// The lines around one line, in its file (or its stream, for a line from no file): up to `before` and `after` lines and
    /// the line itself, in the order of the file. Lines more than a week away do not count. Empty when the line is gone.
    ///
    /// # Errors
    /// As [`Engine::search`].
    pub fn context(&self, id: crate::EntryId, before: usize, after: usize) -> Result<Vec<crate::Entry>> {
        crate::query::context::context(&self.shared, id, before, after)
    }

    /// Names of the labels of streams with lines in a range of time, both ends inclusive by day.
    ///
    /// # Errors
    /// As [`Engine::search`].
    pub fn labels(&self, start_ns: UnixNs, end_ns: UnixNs) -> Result<Vec<String>> {
        crate::query::catalog::labels(&self.shared, start_ns, end_ns)
    }

    /// Values of one label, as [`Engine::labels`].
    ///
    /// # Errors
    /// As [`Engine::search`].
    pub fn label_values(&self, name: &str, start_ns: UnixNs, end_ns: UnixNs) -> Result<Vec<String>> {
        crate::query::catalog::label_values(&self.shared, name, start_ns, end_ns)
    }

    /// Streams that the query's matchers select, as [`Engine::labels`]; at most 10,000.
    ///
    /// # Errors
    /// As [`Engine::search`].
    pub fn streams(&self, query: &Query, start_ns: UnixNs, end_ns: UnixNs) -> Result<Vec<Arc<Labels>>> {
        crate::query::catalog::streams(&self.shared, query, start_ns, end_ns)
    }

    /// Lines that match, from now on, as they are committed.
    ///
    /// # Errors
    /// [`Error::TooManySubscribers`].
    pub fn subscribe(&self, query: Query) -> Result<Subscription> {
        self.tail.subscribe(query)
    }

    /// Totals, and the volume of each stream.
    ///
    /// # Errors
    /// As [`Engine::search`].
    pub fn stats(&self) -> Result<Stats> {
        stats::stats(&self.shared)
    }

    /// What queries read.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// How much is stored of the streams that a query selects, by some of their labels; days that the range touches count whole.
    ///
    /// # Errors
    /// As [`Engine::search`]; a query with more than labels.
    pub fn volumes(&self, by: &[String], query: &Query, start_ns: UnixNs, end_ns: UnixNs) -> Result<volume::Volumes> {
        volume::volumes(&self.shared, by, query, start_ns, end_ns)
    }

    /// Runs a piece of work on the writer's thread.
    pub(crate) fn with_writer<T: Send + 'static>(&self, work: impl FnOnce(&mut Writer) -> Result<T> + Send + 'static) -> Result<T> {
        self.ask(|reply| Command::Work(Work(Box::new(move |writer| drop(reply.send(work(writer)))))))
    }

    fn ask<T>(&self, command: impl FnOnce(writer::Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = sync_channel(1);
        self.commands.as_ref().ok_or(Error::Closed)?.send(command(reply)).map_err(|_| Error::Closed)?;
        answer.recv().map_err(|_| Error::Closed)?
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.commands = None;
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of the log store ended by a panic");
        }
    }
}

/// What SQLite cannot hold, or nobody sends in good faith.
fn check(append: &Append) -> Result<()> {
    let (source, seq) = (&append.source, append.seq);
    if source.len() > NAME_BYTES || append.agent.len() > NAME_BYTES {
        return Err(Error::Invalid(format!("the name of a lane or an agent is longer than {NAME_BYTES} bytes")));
    }
    if i64::try_from(seq).is_err() {
        return Err(Error::Invalid(format!("lane {source}: sequence {seq} is larger than {}", i64::MAX)));
    }
    for line in append.batches.iter().flat_map(|batch| &batch.lines) {
        if i64::try_from(line.end_offset).is_err() {
            return Err(Error::Invalid(format!("lane {source}: offset {} is larger than {}", line.end_offset, i64::MAX)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
