//! Follows log files: every line once, in order, masked before it leaves this module.
//!
//! - [`discover`]: globs to files; [`source`]: how each kind is read; [`siblings`]: where rotated files went
//! - [`content`]: bytes and signatures; [`follow`]: one life of one file
//! - [`lines`]: bytes to lines with [`decode`], [`multiline`], [`parse`], [`filter`]
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
//! Leaves out: journald, containers, syslog; compressed files that were never followed uncompressed.

mod config;
mod content;
mod counters;
mod decode;
mod discover;
mod filter;
mod follow;
mod lines;
mod multiline;
mod parse;
mod position;
mod siblings;
mod source;
mod watch;

pub use config::{Config, Source};
pub use counters::Counters;
pub use filter::Sample;
pub use multiline::Config as Multiline;
pub use parse::Config as Parser;
pub use position::{Position, Restored, Sink, SinkError};

use counters::{add, set};
use discover::Found;
use filter::Budget;
use follow::{Context, Followed, Read, ReadOutcome};
use shipwatch_common::{
    mask::{LineState, Masker},
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
    masker: Arc<Masker>,
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
    pub fn new(config: Config, masker: Arc<Masker>, restored: Restored) -> Result<Self, String> {
        let sources: Vec<_> = source::Source::all(&config)?.into_iter().map(Arc::new).collect();
        let window = sources.iter().map(|source| source.window_bytes()).max().unwrap_or(0);
        let mut tailer = Self {
            budgets: vec![Budget::default(); sources.len()],
            sources,
            masker,
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

    /// A life, read as its name asks for.
    fn followed(&self, position: Position) -> Result<Option<Followed>, String> {
        let Some(number) = self.sources.iter().position(|source| source.globs.wants(&position.name)) else { return Ok(None) };
        let source = &self.sources[number];
        let labels = source.labels(&position.name, &self.masker)?;
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

    /// Looks at the globs: which files are new, renamed, gone.
    fn scan(&mut self, now: UnixNs, sink: &mut dyn Sink) {
        let scan = discover::scan(self.sources.iter().map(|source| &source.globs));
        self.directories = scan.directories;
        let present: HashSet<(u64, u64)> = scan.files.iter().map(Found::inode).collect();
        let (known, mut fresh): (Vec<Found>, Vec<Found>) = scan.files.into_iter().partition(|found| self.is_known(found));
        for found in known {
            let id = self.by_inode.get(&found.inode());
            if let Some(file) = id.and_then(|id| self.files.get_mut(id)) {
                file.seen_at(&found.path, found.is_link, found.stamp);
            }
        }
        for file in self.files.values_mut().filter(|file| !present.contains(&file.inode())) {
            // What could not be looked at is not gone.
            let is_there = |meta: fs::Metadata| (meta.dev(), meta.ino()) == file.inode();
            let is_unsure =
                scan.partial && fs::metadata(file.path()).map_or_else(|error| error.kind() != io::ErrorKind::NotFound, is_there);
            if !is_unsure {
                file.not_seen(now);
            }
        }
        // Older first: what was rotated away is read before what follows it.
        fresh.sort_by_key(|found| found.stamp.mtime_ns);
        let mut ignored = 0;
        for found in fresh {
            if self.files.len() >= self.config.max_files
                && self.files.values().filter(|file| !file.is_parked()).count() >= self.config.max_files
            {
                ignored += 1;
                continue;
            }
            self.meet(&found, &present, sink);
        }
        set(&self.counters.ignored_files, ignored);
        if ignored > 0 && self.complained.insert(PathBuf::new()) {
            warn!(
                ignored,
                max_files = self.config.max_files,
                "more files match than are followed; raise tail.max_files or narrow the globs"
            );
        }
        self.look_at_parked(now, sink);
        self.first_start = false;
        self.is_start_noted = self.is_start_noted || sink.started().is_ok();
    }

    /// Whether a file is one that is followed: its inode is, and its name does not speak against it.
    fn is_known(&self, found: &Found) -> bool {
        let file = self.by_inode.get(&found.inode()).and_then(|id| self.files.get(id));
        file.is_some_and(|file| file.is_open() || !file.is_other_by_name(&found.path))
    }

    /// A file whose inode was not known.
    fn meet(&mut self, found: &Found, present: &HashSet<(u64, u64)>, sink: &mut dyn Sink) {
        if let Some(id) = self.by_inode.get(&found.inode()).copied() {
            // An inode that was used again before anything of its old file was read.
            if sink.forget(id).is_err() {
                return;
            }
            self.remove(id);
        }
        let lives = self.by_name.get(&found.path).cloned().unwrap_or_default();
        if let Some(id) = lives.iter().copied().find(|id| self.goes_on_in(*id, found, present)) {
            self.move_to(id, found.path.clone(), found.inode(), false, sink);
            return;
        }
        // A compressed file is only read to end a life that began uncompressed.
        if content::is_packed(found.path.as_os_str().as_encoded_bytes()) || self.is_copy(&found.path) {
            return;
        }
        let before = lives.iter().filter_map(|id| self.files.get(id)).map(|file| file.position().mtime_ns).max();
        if let Some(since) = before.max(self.ended.get(&found.path).copied()) {
            self.begin_missed(found, since, sink);
        }
        let path = if found.is_link { fs::canonicalize(&found.path).unwrap_or_else(|_| found.path.clone()) } else { found.path.clone() };
        let at_end = self.first_start && self.config.start_at == "end";
        self.begin(&found.path, path, found.inode(), found.stamp.mtime_ns, at_end, sink);
    }

    /// Whether a life that is not to be found goes on in a file of its name: the same file after its device got another number, or
    /// a copy that was put in its place.
    fn goes_on_in(&mut self, id: FileId, found: &Found, present: &HashSet<(u64, u64)>) -> bool {
        let Some(file) = self.files.get(&id) else { return false };
        let (dev, ino) = file.inode();
        if present.contains(&(dev, ino)) || file.offset() == 0 || found.stamp.size < file.offset() + file.unread() {
            return false;
        }
        if !matches!(self.search.by_inode(file.path(), dev, ino), siblings::Whereabouts::Gone) {
            return false;
        }
        if ino == found.ino && dev != found.dev {
            return content::Content::open(&found.path, false)
                .and_then(|(mut content, _)| content.continues(file.position(), &mut self.buffer))
                .unwrap_or(false);
        }
        file.surely_continues_in(&found.path, &mut self.buffer)
    }

    /// Whether a file is a copy, perhaps in the making, of one that is followed under the name that it was rotated from. It is
    /// left alone until the other one is cut, and then is its continuation.
    fn is_copy(&mut self, path: &Path) -> bool {
        let lives = siblings::bases(path).into_iter().filter_map(|base| self.by_name.get(&base)).flatten();
        lives.filter_map(|id| self.files.get(id)).any(|file| file.is_copied_in(path, &mut self.buffer))
    }

    /// Rotations between a life's last write and the file that has its name now, which nobody saw while they had it.
    fn begin_missed(&mut self, found: &Found, since: i64, sink: &mut dyn Sink) {
        let mut missed = self.search.rotations(&found.path);
        missed.retain(|entry| entry.mtime_ns > since && entry.size > 0 && !self.by_inode.contains_key(&(entry.dev, entry.ino)));
        if missed.is_empty() {
            return;
        }
        // Rotations that are followed under a name of their own were not missed, nor was what came before them.
        let near = self.files.values().filter(|file| siblings::is_rotation_of(&found.path, &file.position().name));
        let since = near.map(|file| file.position().mtime_ns).fold(since, i64::max);
        missed.retain(|entry| entry.mtime_ns > since);
        missed.sort_by_key(|entry| entry.mtime_ns);
        for entry in missed {
            if !self.is_copied_near(&found.path, &entry.path, None) {
                info!(path = %entry.path.display(), "a rotated file that was not seen before is read");
                add(&self.counters.rotated_total, 1);
                self.begin(&found.path, entry.path, (entry.dev, entry.ino), entry.mtime_ns, false, sink);
            }
        }
    }

    /// Begins a life.
    fn begin(&mut self, name: &Path, path: PathBuf, (dev, ino): (u64, u64), mtime_ns: i64, at_end: bool, sink: &mut dyn Sink) {
        let packed = content::is_packed(path.as_os_str().as_encoded_bytes());
        let position = Position {
            file: follow::new_id(),
            name: name.to_owned(),
            path,
            dev,
            ino,
            offset: 0,
            head_len: 0,
            head_hash: 0,
            marker: 0,
            crc: Some(0),
            seen_size: 0,
            mtime_ns,
            packed,
            skipping: false,
            line_state: LineState::default(),
        };
        let Ok(Some(mut file)) = self.followed(position) else { return };
        if at_end && file.begin_at_end(&mut self.buffer).is_err() {
            return;
        }
        // Remembered at once, so that a restart does not begin at the end again. From the beginning that can wait for the sink.
        file.is_remembered = sink.append(None, file.position().clone()).is_ok();
        if file.is_remembered || file.offset() == 0 {
            self.insert(file);
        }
    }

    fn move_to(&mut self, id: FileId, path: PathBuf, inode: (u64, u64), packed: bool, sink: &mut dyn Sink) {
        let Some(file) = self.files.get_mut(&id) else { return };
        if self.by_inode.get(&file.inode()) == Some(&id) {
            self.by_inode.remove(&file.inode());
        }
        self.open -= usize::from(file.is_open());
        file.move_to(path, inode, packed);
        self.by_inode.insert(inode, id);
        // Until this is taken, a restart finds the same way again.
        file.is_remembered = sink.append(None, file.position().clone()).is_ok();
    }

    /// Rotated files that were read to their end are remembered as long as they are there.
    fn look_at_parked(&mut self, now: UnixNs, sink: &mut dyn Sink) {
        if now < self.next_parked_look && self.next_parked_look - now <= nanos(LOOK_PARKED) {
            return;
        }
        self.next_parked_look = now + nanos(LOOK_PARKED);
        let parked: Vec<FileId> = self.files.iter().filter(|(_, file)| file.is_parked()).map(|(id, _)| *id).collect();
        let surplus = parked.len().saturating_sub(self.config.max_files);
        for (at, id) in parked.into_iter().enumerate() {
            let Some(file) = self.files.get_mut(&id) else { continue };
            let (dev, ino) = file.inode();
            let is_over = match self.search.by_inode(file.path(), dev, ino) {
                siblings::Whereabouts::Here(path) => {
                    let has_grown =
                        fs::metadata(&path).is_ok_and(|meta| !file.position().packed && meta.len() != file.position().seen_size);
                    if has_grown {
                        file.wake();
                    }
                    false
                }
                siblings::Whereabouts::Gone => true,
                siblings::Whereabouts::Unknown(_) => false,
            };
            if is_over || at < surplus {
                // Tried again at the next look.
                let _closed = self.close(id, sink);
            }
        }
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
            let mut context =
                Context { buffer: &mut self.buffer, masker: &self.masker, search: &mut self.search, budget: self.budgets[number], now };
            let outcome = file.read(&mut context);
            self.open = self.open + usize::from(file.is_open()) - usize::from(was_open);
            match outcome {
                ReadOutcome::Lines(read) => {
                    let used = read.position.offset.saturating_sub(file.offset());
                    self.take(id, *read, sink)?;
                    any = true;
                    left = left.saturating_sub(used.max(1));
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
        let Read { lines, position, budget, stats } = read;
        let (count, used) = (lines.len() as u64, position.offset.saturating_sub(file.offset()));
        let batch = (!lines.is_empty()).then(|| LogBatch { file: id, labels: file.labels().clone(), lines });
        sink.append(batch, position.clone())?;
        file.advance(position);
        self.budgets[file.source_number()] = budget;
        for (counter, more) in [
            (&self.counters.lines_total, count),
            (&self.counters.bytes_total, used),
            (&self.counters.masked_total, stats.masked),
            (&self.counters.mask_failures_total, stats.mask_failures),
            (&self.counters.truncated_total, stats.truncated),
            (&self.counters.filtered_total, stats.filtered),
            (&self.counters.sampled_total, stats.sampled),
            (&self.counters.limited_total, stats.limited),
        ] {
            add(counter, more);
        }
        Ok(())
    }

    /// A life is over where it was: it goes on in a copy, or what was not read of it is lost.
    fn end(&mut self, id: FileId, was_replaced: bool, sink: &mut dyn Sink) -> Result<(), SinkError> {
        let Some(file) = self.files.get(&id) else { return Ok(()) };
        let file_inode = file.inode();
        let by_inode = &self.by_inode;
        let files = &self.files;
        let is_packed = file.position().packed;
        let is_taken = |dev, ino| {
            // A compressed file that cannot be read on is no way on.
            if is_packed && (dev, ino) == file_inode {
                return true;
            }
            let other = by_inode.get(&(dev, ino)).filter(|other| **other != id).and_then(|other| files.get(other));
            // A life that nothing was read of holds no inode: it may have been used again.
            other.is_some_and(|other| other.is_open() || other.offset() > 0)
        };
        // What is at its place now must be met as something new.
        self.next_scan = None;
        if let Some(entry) = self.search.continuation(file.position(), is_taken, &mut self.buffer) {
            let packed = entry.is_packed();
            self.move_to(id, entry.path, (entry.dev, entry.ino), packed, sink);
            add(&self.counters.rotated_total, 1);
            return Ok(());
        }
        if let Some(path) = self.renamed_unread(id) {
            let inode = file_inode;
            self.move_to(id, path, inode, false, sink);
            return Ok(());
        }
        self.close(id, sink)?;
        add(if was_replaced { &self.counters.replaced_total } else { &self.counters.vanished_total }, 1);
        Ok(())
    }

    /// The new name of a file that nothing was read of, so that only its inode tells; it must not be a copy of another.
    fn renamed_unread(&mut self, id: FileId) -> Option<PathBuf> {
        let file = self.files.get(&id).filter(|file| file.offset() == 0 && !file.is_open())?;
        let (dev, ino) = file.inode();
        let siblings::Whereabouts::Here(path) = self.search.by_inode(file.path(), dev, ino) else { return None };
        let name = file.position().name.clone();
        let is_free = self.by_inode.get(&(dev, ino)) == Some(&id);
        (is_free
            && path != file.path()
            && siblings::is_rotation_of(&name, &path)
            && !content::is_packed(path.as_os_str().as_encoded_bytes()))
        .then_some(path)
        .filter(|path| !self.is_copied_near(&name, path, Some(id)))
    }

    /// Whether a file is a copy of one that is followed under a name or a rotation of it.
    fn is_copied_near(&mut self, name: &Path, path: &Path, but: Option<FileId>) -> bool {
        let buffer = &mut self.buffer;
        let is_near = |file: &&Followed| file.position().name == name || siblings::is_rotation_of(name, &file.position().name);
        self.files.values().filter(is_near).filter(|file| Some(file.id()) != but).any(|file| file.is_copied_in(path, buffer))
    }

    /// Takes a life away and counts what was not read of it. First the other lives of its name remember when it was last written
    /// to, so that a rotation of it is not taken for one that was missed.
    fn close(&mut self, id: FileId, sink: &mut dyn Sink) -> Result<(), SinkError> {
        let Some(file) = self.files.get(&id) else { return Ok(()) };
        let Position { name, mtime_ns, .. } = file.position().clone();
        if self.ended.len() >= MAX_NOTED {
            self.ended.clear();
        }
        for name in siblings::bases(&name).into_iter().chain([name]) {
            for other in self.by_name.get(&name).into_iter().flatten().filter(|other| **other != id) {
                let Some(other) = self.files.get_mut(other) else { continue };
                other.name_was_written(mtime_ns);
                if !other.is_remembered {
                    sink.append(None, other.position().clone())?;
                    other.is_remembered = true;
                }
            }
            let last = self.ended.entry(name).or_default();
            *last = (*last).max(mtime_ns);
        }
        sink.forget(id)?;
        let Some(file) = self.remove(id) else { return Ok(()) };
        let lost_bytes = file.unread();
        add(&self.counters.lost_bytes_total, lost_bytes);
        if lost_bytes > 0 {
            warn!(path = %file.path().display(), lost_bytes, "the file was cut or deleted before everything was read");
        }
        Ok(())
    }

    /// Nothing is read now: files with unread bytes are held open, so that they outlive their names.
    fn hold(&mut self) {
        if self.open >= self.config.max_open_files {
            self.open -= self.files.values_mut().map(|file| usize::from(file.close_if_at_rest())).sum::<usize>();
        }
        for file in self.files.values_mut() {
            if self.open >= self.config.max_open_files && !file.is_open() {
                continue;
            }
            let was_open = file.is_open();
            file.hold(&mut self.search);
            self.open = self.open + usize::from(file.is_open()) - usize::from(was_open);
        }
    }

    /// Deleted files must not fill the disk: the oldest beyond the bound are given up.
    fn let_go(&mut self, sink: &mut dyn Sink) {
        let mut held: u64 = self.files.values().map(Followed::held).sum();
        while held > self.config.deleted_max_bytes {
            let Some((id, bytes)) = self.files.iter().map(|(id, file)| (*id, file.held())).find(|(_, bytes)| *bytes > 0) else { return };
            if self.close(id, sink).is_err() {
                return;
            }
            held -= bytes;
        }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests;
