//! Lives that go on elsewhere or are over, and files that are held while nothing can be read.
//!
//! # Invariants
//! - Before a life is forgotten its copies were looked for, and what was not read of it is counted.
//! - Before the sink forgets it, the other lives of its name remember when it was last written to.

use super::*;

impl Tailer {
    /// A life is over where it was: it goes on in a copy, or what was not read of it is lost.
    pub(super) fn end(&mut self, id: FileId, was_replaced: bool, sink: &mut dyn Sink) -> Result<(), SinkError> {
        let Some(file) = self.files.get(&id) else { return Ok(()) };
        let file_inode = file.inode();
        let by_inode = &self.by_inode;
        let files = &self.files;
        let is_packed = file.position().packed;
        let is_taken = |entry: &siblings::Entry| {
            let inode = (entry.dev, entry.ino);
            // A compressed file that cannot be read on is no way on.
            if is_packed && inode == file_inode {
                return true;
            }
            let other = by_inode.get(&inode).filter(|other| **other != id).and_then(|other| files.get(other));
            // An inode may have been used again: it belongs to whose content is there.
            other.is_some_and(|other| other.is_open() || other.offset() > 0 && other.is_in(&entry.path))
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

    pub(super) fn move_to(&mut self, id: FileId, path: PathBuf, inode: (u64, u64), packed: bool, sink: &mut dyn Sink) {
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

    /// Takes a life away and counts what was not read of it. First the other lives of its name remember when it was last written
    /// to, so that a rotation of it is not taken for one that was missed.
    pub(super) fn close(&mut self, id: FileId, sink: &mut dyn Sink) -> Result<(), SinkError> {
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
    pub(super) fn hold(&mut self) {
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
    pub(super) fn let_go(&mut self, sink: &mut dyn Sink) {
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
