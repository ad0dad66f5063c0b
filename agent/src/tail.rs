//! Follows log files: every line once, in order, masked before it leaves this module.
//!
//! - [`discover`]: globs to files; [`follow`]: one life of one file; [`decode`], [`meta`]: bytes to text, time, severity
//!
//! # Invariants
//! - A file is known by device and inode, by the hash of its head, and by a marker of the bytes before the position. Any
//!   mismatch is a new life: it is read from its beginning, under a new [`FileId`].
//! - The position and the lines up to it are one record of the [`Sink`]; there is no other checkpoint. After kill -9 reading
//!   goes on exactly behind the last durable line.
//! - When the sink is full nothing is read: the file is the buffer. Bytes that are cut off or deleted unread are counted.
//! - notify is a hint; looking again every [`Config::rescan`] is the truth.
//!
//! Leaves out: multi-line events, parsers, compressed files, journald.

mod decode;
mod discover;
mod follow;
mod meta;

use decode::Encoding;
use discover::Patterns;
use follow::{Followed, ReadOutcome};
use notify::Watcher as _;
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    config::Problems,
    mask::{LineState, Masker},
    model::{FileId, Labels, LogBatch},
    time::{UnixNs, now_ns},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Overrides for files that match a glob; the first that matches counts.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Which files.
    pub glob: String,
    /// Encoding instead of `tail.encoding`; empty keeps that.
    pub encoding: String,
    /// Labels beside those of `tail.labels`, such as `app`.
    pub labels: BTreeMap<String, String>,
}

/// Which files are read, and how.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Globs of files: `/var/log/*.log`, `/srv/**/app.log`.
    pub files: Vec<String>,
    /// Globs of files that are left out.
    pub exclude: Vec<String>,
    /// Where to begin with files that are there at the very first start: `end` or `beginning`. Files that appear later
    /// are always read from their beginning.
    pub start_at: String,
    /// `utf-8`, `gbk`, `gb18030`, `big5`, `utf-16le`, `utf-16be`.
    pub encoding: String,
    /// Longer lines are cut there and marked.
    pub max_line_bytes: usize,
    /// How often globs are looked at again; finds what notifications missed.
    #[serde(with = "shipwatch_common::time::serde_duration")]
    pub rescan: Duration,
    /// Files beyond this number are not followed, which is logged.
    pub max_files: usize,
    /// Labels of every line.
    pub labels: BTreeMap<String, String>,
    /// Overrides by file.
    pub rules: Vec<Rule>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            exclude: vec!["*.gz".to_owned(), "*.xz".to_owned(), "*.zst".to_owned(), "*.bz2".to_owned()],
            start_at: "end".to_owned(),
            encoding: "utf-8".to_owned(),
            max_line_bytes: 64 << 10,
            rescan: Duration::from_secs(2),
            max_files: 10_000,
            labels: BTreeMap::new(),
            rules: Vec::new(),
        }
    }
}

impl Config {
    /// Checks globs, encodings and bounds.
    pub fn check(&self, problems: &mut Problems) {
        for (key, globs) in [("files", &self.files), ("exclude", &self.exclude)] {
            for glob in globs {
                if let Err(error) = globset::Glob::new(glob) {
                    problems.add(key, format!("{glob:?} is not a glob: {}", error.kind()));
                } else if key == "files" && !glob.starts_with('/') {
                    problems.add(key, format!("{glob:?} must be an absolute path"));
                }
            }
        }
        if !matches!(self.start_at.as_str(), "end" | "beginning") {
            problems.add("start_at", format!("must be end or beginning, not {:?}", self.start_at));
        }
        if let Err(error) = Encoding::named(&self.encoding) {
            problems.add("encoding", error);
        }
        for (at, rule) in self.rules.iter().enumerate() {
            if let Err(error) = globset::Glob::new(&rule.glob) {
                problems.add(&format!("rules.{at}.glob"), format!("{:?} is not a glob: {}", rule.glob, error.kind()));
            }
            if let (false, Err(error)) = (rule.encoding.is_empty(), Encoding::named(&rule.encoding)) {
                problems.add(&format!("rules.{at}.encoding"), error);
            }
        }
        if !(256..=1 << 20).contains(&self.max_line_bytes) {
            problems.add("max_line_bytes", "must be between 256 and 1048576");
        }
        if self.rescan < Duration::from_millis(100) {
            problems.add("rescan", "must be at least 100ms");
        }
        if self.max_files == 0 {
            problems.add("max_files", "must be at least 1");
        }
        for labels in std::iter::once(&self.labels).chain(self.rules.iter().map(|rule| &rule.labels)) {
            if let Err(error) = Labels::new(labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
                problems.add("labels", error.to_string());
            }
        }
    }
}

/// How far one life of a file was read; what the sink must remember.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Position {
    /// This life.
    pub file: FileId,
    /// Where it was last seen.
    pub path: String,
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Bytes read, always behind a line's end unless [`Position::skipping`].
    pub offset: u64,
    /// Length of the hashed head.
    pub head_len: u32,
    /// Hash of the first `head_len` bytes.
    pub head_hash: u64,
    /// Hash of up to 64 bytes before the offset.
    pub marker: u64,
    /// In the middle of a line that was too long: everything up to its end is skipped.
    pub skipping: bool,
    /// A secret over several lines is being masked.
    pub line_state: LineState,
}

/// Why the sink did not take a record.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Try later.
    #[error("the spool is full")]
    Full,
    /// Try later, and say so.
    #[error("{0}")]
    Io(String),
}

/// Where lines and positions go.
pub trait Sink: Send {
    /// Takes lines and the position behind them as one durable record.
    ///
    /// # Errors
    /// Nothing was taken.
    fn append(&mut self, batch: Option<LogBatch>, position: Position) -> Result<(), SinkError>;

    /// A life is over and fully read.
    ///
    /// # Errors
    /// It is not forgotten yet.
    fn forget(&mut self, file: FileId) -> Result<(), SinkError>;
}

/// What is counted; the app makes metrics of it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Lines taken by the sink.
    pub lines_total: AtomicU64,
    /// Bytes read for them.
    pub bytes_total: AtomicU64,
    /// Findings that were masked.
    pub masked_total: AtomicU64,
    /// Lines that could not be masked and were replaced as a whole.
    pub mask_failures_total: AtomicU64,
    /// Lines that were too long and cut.
    pub truncated_total: AtomicU64,
    /// Bytes that were cut off or deleted before they were read.
    pub lost_bytes_total: AtomicU64,
    /// Files followed now.
    pub files: AtomicU64,
    /// Files that cannot be read now.
    pub unreadable_files: AtomicU64,
    /// 1 while the sink is full and nothing is read.
    pub blocked: AtomicU64,
}

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
    patterns: Patterns,
    masker: Arc<Masker>,
    counters: Arc<Counters>,
    files: HashMap<FileId, Followed>,
    by_inode: HashMap<(u64, u64), FileId>,
    complained: HashSet<PathBuf>,
    buffer: Vec<u8>,
    /// Nothing was known at the start: files that are there now begin where `start_at` says.
    first_start: bool,
    next_scan: Option<UnixNs>,
    directories: HashSet<PathBuf>,
}

/// Bytes read of one file before the next has its turn.
const TURN_BYTES: usize = 1 << 20;
/// Looked at without a hint.
const LOOK: Duration = Duration::from_secs(1);
/// How often the stop is looked at.
const WAKE: Duration = Duration::from_millis(200);

impl Tailer {
    /// `restored` is what the sink remembers.
    ///
    /// # Errors
    /// A glob or encoding in the configuration that cannot be used.
    pub fn new(config: Config, masker: Arc<Masker>, restored: Vec<Position>) -> Result<Self, String> {
        let patterns = Patterns::new(&config.files, &config.exclude)?;
        let buffer = vec![0; (256 << 10).max(config.max_line_bytes * 2 + 16)];
        let mut tailer = Self {
            patterns,
            masker,
            counters: Arc::default(),
            files: HashMap::new(),
            by_inode: HashMap::new(),
            complained: HashSet::new(),
            buffer,
            first_start: restored.is_empty(),
            next_scan: None,
            directories: HashSet::new(),
            config,
        };
        for position in restored {
            let file = tailer.followed(position)?;
            tailer.by_inode.insert(file.inode(), file.id());
            tailer.files.insert(file.id(), file);
        }
        Ok(tailer)
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// A file with the encoding and labels that its path asks for.
    fn followed(&self, position: Position) -> Result<Followed, String> {
        let rule = self.config.rules.iter().find(|rule| discover::matches(&rule.glob, Path::new(&position.path)));
        let encoding = rule.map(|rule| rule.encoding.as_str()).filter(|name| !name.is_empty()).unwrap_or(&self.config.encoding);
        let masked = self.masker.mask(&position.path).text.into_owned();
        let mut labels = self.config.labels.clone();
        labels.extend(rule.map(|rule| rule.labels.clone()).unwrap_or_default());
        labels.insert("filename".to_owned(), masked.chars().take(1024).collect());
        let labels = Labels::new(labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))).map_err(|error| error.to_string())?;
        Ok(Followed::new(position, labels, Encoding::named(encoding)?))
    }

    /// Reads until `stop`. Blocks; has a thread of its own.
    pub fn run(&mut self, sink: &mut dyn Sink, stop: &CancellationToken) {
        let (hint, hints) = sync_channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // A full channel means that a look is due already. An error (overflow) is a reason to look as well.
            if event.map_or(true, |event| !event.kind.is_access()) {
                let _already_hinted = hint.try_send(());
            }
        })
        .inspect_err(|error| warn!(%error, "no file notifications; files are looked at every second instead"))
        .ok();
        let mut watched = HashSet::new();
        while !stop.is_cancelled() {
            let progress = self.poll(now_ns(), sink);
            self.counters.blocked.store(u64::from(progress == Progress::Blocked), Ordering::Relaxed);
            if let Some(watcher) = &mut watcher {
                for directory in self.directories.difference(&watched.clone()) {
                    if let Err(error) = watcher.watch(directory, notify::RecursiveMode::NonRecursive) {
                        warn!(%error, directory = %directory.display(), "no notifications for this directory; it is looked at every second instead");
                    }
                    watched.insert(directory.clone());
                }
            }
            if progress != Progress::Read {
                wait(&hints, if progress == Progress::Blocked { WAKE } else { LOOK }, stop);
            }
        }
    }

    /// One look at everything. `now` decides about looking at globs again and about files that rotated away.
    pub fn poll(&mut self, now: UnixNs, sink: &mut dyn Sink) -> Progress {
        if self.next_scan.is_none_or(|at| now >= at || at - now > 2 * nanos(self.config.rescan)) {
            self.scan(now, sink);
            self.next_scan = Some(now + nanos(self.config.rescan));
        }
        let mut progress = Progress::Idle;
        let ids: Vec<FileId> = self.files.keys().copied().collect();
        for id in ids {
            match self.turn(id, now, sink) {
                Ok(true) => progress = Progress::Read,
                Ok(false) => {}
                Err(SinkError::Full) => {
                    progress = Progress::Blocked;
                    break;
                }
                Err(SinkError::Io(error)) => {
                    warn!(%error, "the spool does not take lines");
                    progress = Progress::Blocked;
                    break;
                }
            }
        }
        self.counters.files.store(self.files.len() as u64, Ordering::Relaxed);
        progress
    }

    /// Looks at the globs: which files are new, renamed, gone.
    fn scan(&mut self, now: UnixNs, sink: &mut dyn Sink) {
        let found = self.patterns.find(self.config.max_files);
        if found.too_many && self.complained.insert(PathBuf::new()) {
            warn!(max_files = self.config.max_files, "more files match than are followed; raise tail.max_files or narrow tail.files");
        }
        self.directories = found.directories;
        let mut present = HashSet::new();
        for file in found.files {
            let inode = (file.dev, file.ino);
            if !present.insert(inode) {
                continue;
            }
            match self.by_inode.get(&inode).copied() {
                Some(id) => {
                    if let Some(known) = self.files.get_mut(&id) {
                        known.seen_at(&file.path);
                    }
                }
                None => self.begin(&file, sink),
            }
        }
        self.first_start = false;
        let mut unreadable = 0;
        for (inode, id) in &self.by_inode {
            if let Some(file) = self.files.get_mut(id) {
                if !present.contains(inode) {
                    file.not_seen(now);
                }
                unreadable += u64::from(file.is_unreadable());
            }
        }
        self.counters.unreadable_files.store(unreadable, Ordering::Relaxed);
    }

    /// A file that was not known.
    fn begin(&mut self, found: &discover::Found, sink: &mut dyn Sink) {
        let offset = if self.first_start && self.config.start_at == "end" { follow::last_line_end(&found.path) } else { 0 };
        let position = Position {
            file: follow::new_id(),
            path: found.path.display().to_string(),
            dev: found.dev,
            ino: found.ino,
            offset,
            head_len: 0,
            head_hash: 0,
            marker: 0,
            skipping: false,
            line_state: LineState::default(),
        };
        let Ok(mut file) = self.followed(position) else { return };
        file.seen_at(&found.path);
        if offset > 0 {
            file.take_identity();
        }
        // Remembered at once, so that a restart does not begin at the end again.
        if sink.append(None, file.position()).is_ok() {
            self.by_inode.insert(file.inode(), file.id());
            self.files.insert(file.id(), file);
        }
    }

    /// Lets one file read its share. `Ok(true)` if it read something.
    fn turn(&mut self, id: FileId, now: UnixNs, sink: &mut dyn Sink) -> Result<bool, SinkError> {
        let Some(file) = self.files.get_mut(&id) else { return Ok(false) };
        let mut any = false;
        let mut budget = TURN_BYTES;
        loop {
            let outcome = file.read(&mut self.buffer, self.config.max_line_bytes, &self.masker, now);
            match outcome {
                ReadOutcome::Lines { lines, position, stats } => {
                    let used = usize::try_from(position.offset.saturating_sub(file.offset())).unwrap_or(usize::MAX);
                    let count = lines.len() as u64;
                    let batch = (!lines.is_empty()).then(|| LogBatch { file: id, labels: file.labels().clone(), lines });
                    sink.append(batch, position.clone())?;
                    file.advance(position);
                    self.counters.lines_total.fetch_add(count, Ordering::Relaxed);
                    self.counters.bytes_total.fetch_add(used as u64, Ordering::Relaxed);
                    self.counters.masked_total.fetch_add(stats.masked, Ordering::Relaxed);
                    self.counters.mask_failures_total.fetch_add(stats.mask_failures, Ordering::Relaxed);
                    self.counters.truncated_total.fetch_add(stats.truncated, Ordering::Relaxed);
                    any = true;
                    budget = budget.saturating_sub(used.max(1));
                    if budget == 0 {
                        return Ok(true);
                    }
                }
                ReadOutcome::Nothing => return Ok(any),
                ReadOutcome::NewLife { lost_bytes } => {
                    self.counters.lost_bytes_total.fetch_add(lost_bytes, Ordering::Relaxed);
                    if lost_bytes > 0 {
                        warn!(path = %file.path(), lost_bytes, "the file was cut or replaced before everything was read");
                    }
                    return self.reborn(id, sink).map(|()| true);
                }
                ReadOutcome::Over { lost_bytes } => {
                    sink.forget(id)?;
                    self.counters.lost_bytes_total.fetch_add(lost_bytes, Ordering::Relaxed);
                    if lost_bytes > 0 {
                        warn!(path = %file.path(), lost_bytes, "the file was deleted before everything was read");
                    }
                    let inode = file.inode();
                    if self.by_inode.get(&inode) == Some(&id) {
                        self.by_inode.remove(&inode);
                    }
                    self.files.remove(&id);
                    return Ok(any);
                }
                ReadOutcome::Unreadable(error) => {
                    if self.complained.len() < 10_000 && self.complained.insert(PathBuf::from(file.path())) {
                        warn!(path = %file.path(), %error, "the file cannot be read; it is tried again");
                    }
                    return Ok(any);
                }
            }
        }
    }

    /// The same path and inode with other content: a new life from the beginning.
    fn reborn(&mut self, id: FileId, sink: &mut dyn Sink) -> Result<(), SinkError> {
        let Some(old) = self.files.get(&id) else { return Ok(()) };
        let fresh = old.reborn();
        sink.append(None, fresh.position())?;
        sink.forget(id)?;
        self.files.remove(&id);
        self.by_inode.insert(fresh.inode(), fresh.id());
        self.files.insert(fresh.id(), fresh);
        Ok(())
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX / 4)
}

/// Waits for a hint, at most `time`; ends early when stopped.
fn wait(hints: &Receiver<()>, time: Duration, stop: &CancellationToken) {
    let until = Instant::now() + time;
    while !stop.is_cancelled() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        match hints.recv_timeout(left.min(WAKE)) {
            Ok(()) => return,
            Err(RecvTimeoutError::Timeout) => {}
            // No watcher: only time goes by.
            Err(RecvTimeoutError::Disconnected) => std::thread::park_timeout(left.min(WAKE)),
        }
    }
}

#[cfg(test)]
mod tests;
