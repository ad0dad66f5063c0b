//! What the globs find now, and what it means: files that are known, new ones, copies, rotations that were missed.
//!
//! # Invariants
//! - An inode that is followed is never met as something new while its content or its open file proves it.
//! - A copy of what is followed is not read as a file of its own.

use super::*;

impl Tailer {
    /// Looks at the globs: which files are new, renamed, gone.
    pub(super) fn scan(&mut self, now: UnixNs, sink: &mut dyn Sink) {
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
    pub(super) fn meet(&mut self, found: &Found, present: &HashSet<(u64, u64)>, sink: &mut dyn Sink) {
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

    /// Whether a file is a copy of one that is followed under a name or a rotation of it.
    pub(super) fn is_copied_near(&mut self, name: &Path, path: &Path, but: Option<FileId>) -> bool {
        let buffer = &mut self.buffer;
        let is_near = |file: &&Followed| file.position().name == name || siblings::is_rotation_of(name, &file.position().name);
        self.files.values().filter(is_near).filter(|file| Some(file.id()) != but).any(|file| file.is_copied_in(path, buffer))
    }

    /// Begins a life.
    pub(super) fn begin(&mut self, name: &Path, path: PathBuf, (dev, ino): (u64, u64), mtime_ns: i64, at_end: bool, sink: &mut dyn Sink) {
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
            middle: Middle::default(),
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
}
