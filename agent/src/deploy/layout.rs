//! An app's directory on the host: `releases/`, `shared/` and the link `current`.
//!
//! # Invariants
//! - `current` is changed by `rename(2)` only: whoever looks sees the old or the new release, never none or half of one.
//! - A release appears under its final name complete and on the disk, or not at all.
//! - Cleaning up removes only releases that the agent made itself, and never the current one.

use super::journal::sync_parent;
use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

/// Paths of one app.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// For an app whose root has its symlinks resolved.
    #[must_use]
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The app's directory.
    #[must_use]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A release's directory.
    #[must_use]
    pub(crate) fn release(&self, dir: &str) -> PathBuf {
        self.root.join("releases").join(dir)
    }

    /// Where a release is unpacked before it gets its name.
    #[must_use]
    pub(crate) fn staging(&self, deployment_id: &str) -> PathBuf {
        self.root.join("releases").join(format!(".tmp-{deployment_id}"))
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// The file system, or a link where a directory must be: it would lead elsewhere than the policy permits.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(&self.root)?;
        for name in ["releases", "shared"] {
            let path = self.root.join(name);
            match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
            if !fs::symlink_metadata(&path)?.is_dir() {
                return Err(io::Error::other(format!("{} must be a directory, not a link or file; move it away", path.display())));
            }
        }
        sync_parent(&self.root.join("releases"))
    }

    /// The directory name of the release that `current` points to.
    ///
    /// # Errors
    /// `current` is no link, or points out of `releases/`: somebody else manages it.
    pub(crate) fn current(&self) -> io::Result<Option<String>> {
        let path = self.root.join("current");
        let target = match fs::read_link(&path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(io::Error::other(format!("{} is not a link; move it away", path.display())));
            }
            Err(error) => return Err(error),
        };
        let relative = target.strip_prefix(&self.root).unwrap_or(&target);
        let mut parts = relative.components();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Component::Normal(releases)), Some(Component::Normal(dir)), None) if releases == "releases" => {
                let dir = dir.to_str().ok_or_else(|| io::Error::other(format!("{} points to a name that is not UTF-8", path.display())))?;
                // A link to nothing serves nothing.
                Ok(self.release(dir).try_exists()?.then(|| dir.to_owned()))
            }
            _ => Err(io::Error::other(format!(
                "{} points to {}, not to a directory in releases/; move it away",
                path.display(),
                target.display()
            ))),
        }
    }

    /// Lets `current` point to a release, or removes it. Doing it twice is harmless.
    ///
    /// # Errors
    /// The file system; `current` is then as before.
    pub(crate) fn switch(&self, dir: Option<&str>) -> io::Result<()> {
        let current = self.root.join("current");
        match dir {
            Some(dir) => {
                let meta = fs::symlink_metadata(self.release(dir));
                if !meta.is_ok_and(|meta| meta.is_dir()) {
                    return Err(io::Error::other(format!("{} is not there", self.release(dir).display())));
                }
                let temporary = self.root.join(".current.tmp");
                remove_file(&temporary)?;
                symlink(Path::new("releases").join(dir), &temporary)?;
                fs::rename(&temporary, &current)?;
            }
            None => remove_file(&current)?,
        }
        sync_parent(&current)
    }

    /// Gives an unpacked tree its name.
    ///
    /// # Errors
    /// The file system.
    pub(crate) fn publish(&self, staging: &Path, dir: &str) -> io::Result<()> {
        let release = self.release(dir);
        // One call for the whole file system: a tree of many small files would take one seek each.
        rustix::fs::syncfs(fs::File::open(staging)?)?;
        fs::rename(staging, &release)?;
        sync_parent(&release)
    }

    /// Removes a release or staging directory. One that is not there is no error.
    ///
    /// # Errors
    /// The file system, or it is the current release.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        if self.current()?.is_some_and(|current| self.release(&current) == path) {
            return Err(io::Error::other(format!("{} is the current release", path.display())));
        }
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Names in `releases/`, hidden ones included.
    ///
    /// # Errors
    /// The file system.
    pub(crate) fn names(&self) -> io::Result<BTreeSet<String>> {
        match fs::read_dir(self.root.join("releases")) {
            Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    }
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Which of the agent's own releases to remove. `ours` is oldest first; `pinned` are never removed.
#[must_use]
pub(crate) fn superfluous(ours: &[String], keep: usize, pinned: &BTreeSet<String>) -> Vec<String> {
    let mut left = keep;
    let mut remove = Vec::new();
    for dir in ours.iter().rev() {
        if pinned.contains(dir) {
            continue;
        }
        match left.checked_sub(1) {
            Some(rest) => left = rest,
            None => remove.push(dir.clone()),
        }
    }
    remove
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switching_is_a_rename_and_can_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().join("a/b"));
        assert_eq!(layout.current().unwrap(), None);
        layout.prepare().unwrap();
        layout.prepare().unwrap();
        for release in ["v1", "v2"] {
            fs::create_dir(layout.release(release)).unwrap();
            layout.switch(Some(release)).unwrap();
            layout.switch(Some(release)).unwrap();
            assert_eq!(layout.current().unwrap().as_deref(), Some(release));
        }
        assert!(layout.switch(Some("v3")).is_err());
        assert_eq!(layout.current().unwrap().as_deref(), Some("v2"));
        assert!(layout.remove(&layout.release("v2")).is_err());
        layout.remove(&layout.release("v1")).unwrap();
        assert_eq!(layout.names().unwrap(), BTreeSet::from(["v2".to_owned()]));
        layout.switch(None).unwrap();
        layout.switch(None).unwrap();
        assert_eq!(layout.current().unwrap(), None);
    }

    #[test]
    fn what_somebody_else_manages_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_path_buf());
        fs::create_dir(dir.path().join("current")).unwrap();
        assert!(layout.current().unwrap_err().to_string().contains("is not a link"));
        fs::remove_dir(dir.path().join("current")).unwrap();
        symlink("/opt/elsewhere", dir.path().join("current")).unwrap();
        assert!(layout.current().unwrap_err().to_string().contains("/opt/elsewhere"));
        symlink("/tmp", dir.path().join("releases")).unwrap();
        assert!(layout.prepare().unwrap_err().to_string().contains("must be a directory"));
    }

    #[test]
    fn an_absolute_link_into_releases_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().to_path_buf());
        fs::create_dir_all(layout.release("20240101")).unwrap();
        symlink(layout.release("20240101"), dir.path().join("current")).unwrap();
        assert_eq!(layout.current().unwrap().as_deref(), Some("20240101"));
    }

    #[test]
    fn cleaning_up_keeps_the_newest_and_what_is_pinned() {
        let ours: Vec<String> = (1..=6).map(|at| format!("v{at}")).collect();
        let pinned = BTreeSet::from(["v1".to_owned(), "v6".to_owned()]);
        assert_eq!(superfluous(&ours, 2, &pinned), ["v3", "v2"]);
        assert_eq!(superfluous(&ours, 0, &pinned).len(), 4);
        assert_eq!(superfluous(&ours, 9, &pinned), Vec::<String>::new());
    }
}
