//! Follows log files: every line once, in order, masked before it leaves this module.
//!
//! - [`discover`]: globs to files; [`source`]: how each kind is read; [`siblings`]: where rotated files went
//! - [`content`]: bytes and signatures; [`follow`]: one life of one file
//! - [`meeting`]: what is at the globs' places, and what that means for the lives that are known; [`ending`]: lives that go on
//!   elsewhere or are over
//! - [`lines`]: bytes to lines with [`decode`], [`multiline`], [`parse`], [`filter`]; [`container`]: the same of containers' logs
//! - [`derived`]: metrics from lines
//! - [`position`]: what is remembered; [`watch`]: the thread's loop and notifications
//!
//! # Invariants
//! - A file is known by device and inode, by the hash of its head, by a marker of the bytes before the position, and by a checksum
//!   of all of them. Any mismatch is a new life, read from its beginning under a new [`FileId`].
//! - The position and the lines up to it are one record of the [`Sink`]; there is no other checkpoint. After kill -9 reading
//!   goes on exactly behind the last durable line.
//! - A life that ends unread is looked for among the rotations of its name, whole or compressed, and goes on there. What is not
//!   found is counted.
//! - When the sink is full nothing is read: the files are the buffer, and they are held open so that a rotation cannot take them.
//! - notify is a hint; looking again every [`Config::rescan`] is the truth.
//! - Memory is one buffer for all files, and some hundred bytes for each.
//!
//! Beside files, [`streams`] takes lines of the [`journal`], of [`syslog`] and of [`pipe`]s, on a thread of its own.
//!
//! Leaves out: compressed files that were never followed uncompressed.

mod config;
mod container;
mod content;
mod counters;
mod decode;
mod derived;
mod discover;
mod ending;
mod filter;
mod follow;
mod journal;
mod lines;
mod meeting;
mod multiline;
mod parse;
mod pipe;
mod position;
mod siblings;
mod source;
mod stream;
mod streams;
mod syslog;
mod watch;

pub use config::{Config, Source};
pub use counters::Counters;
pub use derived::{Config as Metric, Metrics};
pub use filter::Sample;
pub use multiline::Config as Multiline;
pub use parse::Config as Parser;
pub use pipe::client::{PipeError, run as pipe};
pub use position::{Middle, Output, PIPE, Position, Restored, Sink, SinkError, StreamPosition};
pub use streams::Streams;

use counters::{add, set};
use discover::Found;
use filter::Budget;
use follow::{Context, Followed, Read, ReadOutcome};
use shipwatch_common::{
    mask::Masker,
    model::{FileId, LogBatch},
    time::UnixNs,
};
use siblings::Search;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tracing::{info, warn};

/// What one poll did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Nothing new.
    Idle,
    /// Something was read; there may be more.
    Read,
    /// The sink is full.
    Blocked,
}

/// See the module.
#[derive(Debug)]
pub struct Tailer {
    config: Config,
    sources: Vec<Arc<source::Source>>,
    /// What each source's limit allows now.
    budgets: Vec<Budget>,
    counters: Arc<Counters>,
    /// By age.
    files: BTreeMap<FileId, Followed>,
    by_inode: HashMap<(u64, u64), FileId>,
    by_name: HashMap<PathBuf, Vec<FileId>>,
    /// Names whose last life ended, with the time of its last write.
    ended: HashMap<PathBuf, i64>,
    complained: HashSet<PathBuf>,
    buffer: Vec<u8>,
    search: Search,
    /// Nothing was known at the start: files that are there now begin where `start_at` says.
    first_start: bool,
    is_start_noted: bool,
    next_scan: Option<UnixNs>,
    next_parked_look: UnixNs,
    /// The file that had the last turn.
    last_turn: Option<FileId>,
    open: usize,
    directories: HashSet<PathBuf>,
}

/// Bytes read of one file before the next has its turn.
const TURN_BYTES: u64 = 1 << 20;
/// A read that gave less counts so much: a turn has an end, whatever is in the file.
const READ_COST: u64 = 4 << 10;
/// Least size of the buffer.
const BUFFER_BYTES: usize = 256 << 10;
/// How often rotated files that were read to their end are looked for.
const LOOK_PARKED: Duration = Duration::from_secs(60);
/// Paths that a complaint was logged for, and names of ended lives, that are kept.
const MAX_NOTED: usize = 10_000;

impl Tailer {
    /// `restored` is what the sink remembers.
    ///
    /// # Errors
    /// A glob, pattern or encoding in the configuration that cannot be used.
    pub fn new(config: Config, masker: &Arc<Masker>, restored: Restored) -> Result<Self, String> {
        let sources: Vec<_> = source::Source::all(&config, masker)?.into_iter().map(Arc::new).collect();
        let window = sources.iter().map(|source| source.window_bytes()).max().unwrap_or(0);
        let mut tailer = Self {
            budgets: vec![Budget::default(); sources.len()],
            sources,
            counters: Arc::default(),
            files: BTreeMap::new(),
            by_inode: HashMap::new(),
            by_name: HashMap::new(),
            ended: HashMap::new(),
            complained: HashSet::new(),
            buffer: vec![0; BUFFER_BYTES.max(window + 2 * content::MARKER_BYTES)],
            search: Search::default(),
            first_start: !restored.started,
            is_start_noted: restored.started,
            next_scan: None,
            next_parked_look: 0,
            last_turn: None,
            open: 0,
            directories: HashSet::new(),
            config,
        };
        for position in restored.positions {
            // What no source wants any more stays remembered, should the configuration want it again.
            if let Some(file) = tailer.followed(position)? {
                tailer.insert(file);
            }
        }
        Ok(tailer)
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Metrics that are made of the lines.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics(self.sources.iter().flat_map(|source| source.rules.all()).collect())
    }

    /// What is read beside files. `pipe_socket` is where pipes are listened for; `restored` is what the sink remembers.
    #[must_use]
    pub fn streams(&self, pipe_socket: PathBuf, restored: &Restored) -> Streams {
        let at_end = self.config.start_at == "end";
        Streams::new(&self.sources, Arc::clone(&self.counters), at_end, pipe_socket, &restored.streams)
    }

    /// A life, read as its name asks for.
    fn followed(&self, position: Position) -> Result<Option<Followed>, String> {
        let Some(number) = self.sources.iter().position(|source| source.globs.wants(&position.name)) else { return Ok(None) };
        let source = &self.sources[number];
        let labels = source.labels(&position.name, &position.path)?;
        Ok(Some(Followed::new(position, Arc::clone(source), number, labels)))
    }

    fn insert(&mut self, file: Followed) {
        self.by_inode.insert(file.inode(), file.id());
        self.by_name.entry(file.position().name.clone()).or_default().push(file.id());
        self.files.insert(file.id(), file);
    }

    fn remove(&mut self, id: FileId) -> Option<Followed> {
        let file = self.files.remove(&id)?;
        if self.by_inode.get(&file.inode()) == Some(&id) {
            self.by_inode.remove(&file.inode());
        }
        let name = &file.position().name;
        if let Some(ids) = self.by_name.get_mut(name) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.by_name.remove(name);
            }
        }
        self.open -= usize::from(file.is_open());
        Some(file)
    }

    /// A notification about a path.
    fn hint(&mut self, path: &Path) {
        for id in self.by_name.get(path).into_iter().flatten() {
            if let Some(file) = self.files.get_mut(id) {
                file.wake();
            }
        }
    }

    /// One look at everything. `now` decides about looking at globs again, about limits and waits.
    pub fn poll(&mut self, now: UnixNs, sink: &mut dyn Sink) -> Progress {
        self.search.clear();
        if self.next_scan.is_none_or(|at| now >= at || at - now > 2 * nanos(self.config.rescan)) {
            self.next_scan = Some(now + nanos(self.config.rescan));
            self.scan(now, sink);
            self.search.clear();
        }
        let progress = self.turns(now, sink);
        if progress == Progress::Blocked {
            self.hold();
            self.let_go(sink);
        }
        set(&self.counters.files, self.files.values().filter(|file| !file.is_parked()).count());
        set(&self.counters.open_files, self.open);
        set(&self.counters.unreadable_files, self.files.values().filter(|file| file.is_unreadable()).count());
        let unread: u64 = self.files.values().map(Followed::unread).sum();
        self.counters.unread_bytes.store(unread, std::sync::atomic::Ordering::Relaxed);
        progress
    }

    /// Gives every file its turn, beginning behind the one that had the last.
    fn turns(&mut self, now: UnixNs, sink: &mut dyn Sink) -> Progress {
        let mut ids: Vec<FileId> = self.files.keys().copied().collect();
        let start = self.last_turn.map_or(0, |last| ids.partition_point(|id| *id <= last));
        ids.rotate_left(start);
        let mut progress = Progress::Idle;
        for id in ids {
            match self.turn(id, now, sink) {
                Ok(true) => progress = Progress::Read,
                Ok(false) => {}
                Err(error) => {
                    if let SinkError::Io(error) = error {
                        warn!(%error, "the spool does not take lines");
                    }
                    return Progress::Blocked;
                }
            }
            self.last_turn = Some(id);
        }
        self.last_turn = None;
        progress
    }

    /// Lets one file read its share. `Ok(true)` if it read something.
    fn turn(&mut self, id: FileId, now: UnixNs, sink: &mut dyn Sink) -> Result<bool, SinkError> {
        let mut any = false;
        let mut left = TURN_BYTES;
        while left > 0 {
            let Some(file) = self.files.get_mut(&id) else { return Ok(any) };
            if !file.is_remembered {
                sink.append(None, file.position().clone())?;
                file.is_remembered = true;
            }
            let was_open = file.is_open();
            let number = file.source_number();
            let mut context = Context { buffer: &mut self.buffer, search: &mut self.search, budget: self.budgets[number], now };
            let outcome = file.read(&mut context);
            self.open = self.open + usize::from(file.is_open()) - usize::from(was_open);
            match outcome {
                ReadOutcome::Lines(read) => {
                    let used = read.parts.last().map_or(0, |part| part.position.offset).saturating_sub(file.offset());
                    self.take(id, *read, sink)?;
                    any = true;
                    left = left.saturating_sub(used.max(READ_COST));
                }
                ReadOutcome::Nothing => break,
                ReadOutcome::Replaced => return self.end(id, true, sink).map(|()| true),
                ReadOutcome::Gone => return self.end(id, false, sink).map(|()| true),
                ReadOutcome::Over => {
                    self.close(id, sink)?;
                    return Ok(any);
                }
                ReadOutcome::Unreadable(error) => {
                    let path = file.path().to_owned();
                    if self.complained.len() < MAX_NOTED && self.complained.insert(path.clone()) {
                        warn!(path = %path.display(), %error, "the file cannot be read; it is tried again");
                    }
                    return Ok(any);
                }
            }
        }
        if let Some(file) = self.files.get_mut(&id) {
            if !self.complained.is_empty() {
                self.complained.remove(file.path());
            }
            if self.open > self.config.max_open_files && file.close_if_at_rest() {
                self.open -= 1;
            }
        }
        Ok(any)
    }

    /// Gives lines to the sink; the position moves when they were taken.
    fn take(&mut self, id: FileId, read: Read, sink: &mut dyn Sink) -> Result<(), SinkError> {
        let Some(file) = self.files.get_mut(&id) else { return Ok(()) };
        for follow::Part { output, lines, position, stats, observations } in read.parts {
            let Some(labels) = file.labels(output).cloned() else { continue };
            let (count, used) = (lines.len() as u64, position.offset.saturating_sub(file.offset()));
            let batch = (!lines.is_empty()).then(|| LogBatch { file: follow::output_id(id, output), labels: labels.clone(), lines });
            sink.append(batch, position.clone())?;
            derived::count(observations, &labels);
            file.advance(position);
            self.budgets[file.source_number()] = read.budget;
            self.counters.count(count, used, &stats);
        }
        Ok(())
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests;
