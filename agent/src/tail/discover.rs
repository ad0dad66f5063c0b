//! From globs to files.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

/// Directories below a `**` are followed this deep.
const MAX_DEPTH: usize = 12;
/// Directory entries looked at in one scan: a glob on the root of a file server must not take the host down.
const MAX_ENTRIES: usize = 200_000;

/// One file that matches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) dev: u64,
    pub(super) ino: u64,
}

/// Everything that matches now.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) files: Vec<Found>,
    /// Directories that hold them or may, for notifications.
    pub(super) directories: HashSet<PathBuf>,
    pub(super) too_many: bool,
}

/// A glob with the directory that its walk begins in.
#[derive(Debug)]
struct Pattern {
    base: PathBuf,
    depth: usize,
    set: GlobSet,
}

/// Compiled globs.
#[derive(Debug)]
pub(super) struct Patterns {
    patterns: Vec<Pattern>,
    exclude: GlobSet,
}

fn compile(glob: &str) -> Result<Glob, String> {
    GlobBuilder::new(glob).literal_separator(true).build().map_err(|error| format!("{glob:?} is not a glob: {}", error.kind()))
}

fn set(globs: impl IntoIterator<Item = Glob>) -> Result<GlobSet, String> {
    let mut builder = GlobSetBuilder::new();
    for glob in globs {
        builder.add(glob);
    }
    builder.build().map_err(|error| error.to_string())
}

/// Whether a path matches a glob; a glob without a slash matches the file name.
pub(super) fn matches(glob: &str, path: &Path) -> bool {
    let subject = if glob.contains('/') { Some(path) } else { path.file_name().map(Path::new) };
    compile(glob).is_ok_and(|glob| subject.is_some_and(|subject| glob.compile_matcher().is_match(subject)))
}

impl Patterns {
    pub(super) fn new(files: &[String], exclude: &[String]) -> Result<Self, String> {
        let patterns = files
            .iter()
            .map(|glob| {
                let is_literal = |component: &Component<'_>| !component.as_os_str().to_string_lossy().contains(['*', '?', '[', '{']);
                let base: PathBuf = Path::new(glob).parent().into_iter().flat_map(Path::components).take_while(is_literal).collect();
                let rest = Path::new(glob).components().count().saturating_sub(base.components().count());
                let depth = if glob.contains("**") { MAX_DEPTH } else { rest };
                Ok(Pattern { base, depth, set: set([compile(glob)?])? })
            })
            .collect::<Result<_, String>>()?;
        // Without a slash a pattern is meant for the name, wherever the file is.
        let anywhere = |glob: &String| if glob.contains('/') { compile(glob) } else { compile(&format!("**/{glob}")) };
        Ok(Self { patterns, exclude: set(exclude.iter().map(anywhere).collect::<Result<Vec<_>, _>>()?)? })
    }

    /// Walks all globs. What cannot be listed is left out: it is looked at again next time.
    pub(super) fn find(&self, max_files: usize) -> Scan {
        let mut scan = Scan::default();
        let mut entries = 0;
        for pattern in &self.patterns {
            let mut waiting = vec![(pattern.base.clone(), pattern.depth)];
            while let Some((directory, depth)) = waiting.pop() {
                let Ok(list) = fs::read_dir(&directory) else { continue };
                scan.directories.insert(directory);
                for entry in list.flatten() {
                    entries += 1;
                    if entries > MAX_ENTRIES || scan.files.len() >= max_files {
                        scan.too_many = true;
                        return scan;
                    }
                    let path = entry.path();
                    let is_match = pattern.set.is_match(&path) && !self.exclude.is_match(&path);
                    let Ok(kind) = entry.file_type() else { continue };
                    if kind.is_dir() && depth > 1 {
                        waiting.push((path, depth - 1));
                    } else if is_match
                        && (kind.is_file() || kind.is_symlink())
                        // Through a link: the file that it points to now.
                        && let Ok(meta) = fs::metadata(&path)
                        && meta.is_file()
                    {
                        scan.files.push(Found { path, dev: meta.dev(), ino: meta.ino() });
                    }
                }
            }
        }
        // Links sort behind files of the same inode only by chance; the shortest path is the one people know.
        scan.files.sort_by(|a, b| (a.path.as_os_str().len(), &a.path).cmp(&(b.path.as_os_str().len(), &b.path)));
        scan
    }
}

/// Another name of a file in the same directory, after a rename.
pub(super) fn find_inode(directory: &Path, dev: u64, ino: u64) -> Option<PathBuf> {
    let list = fs::read_dir(directory).ok()?;
    list.flatten().take(MAX_ENTRIES).find_map(|entry| {
        let meta = entry.metadata().ok()?;
        (meta.is_file() && meta.dev() == dev && meta.ino() == ino).then(|| entry.path())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str], globs: &[&str], exclude: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let globs: Vec<String> = globs.iter().map(|glob| format!("{}/{glob}", dir.path().display())).collect();
        let exclude: Vec<String> = exclude.iter().map(|&glob| glob.to_owned()).collect();
        let mut found: Vec<String> = Patterns::new(&globs, &exclude)
            .unwrap()
            .find(100)
            .files
            .iter()
            .map(|found| found.path.strip_prefix(dir.path()).unwrap().display().to_string())
            .collect();
        found.sort();
        found
    }

    #[test]
    fn globs_find_what_they_say() {
        let files = ["a.log", "b.txt", "sub/c.log", "sub/deep/d.log", "a.log.gz", "{odd}.log"];
        assert_eq!(names(&files, &["*.log"], &[]), ["a.log", "{odd}.log"]);
        assert_eq!(names(&files, &["*/*.log"], &[]), ["sub/c.log"]);
        assert_eq!(names(&files, &["**/*.log"], &["*odd*"]), ["a.log", "sub/c.log", "sub/deep/d.log"]);
        assert_eq!(names(&files, &["a.log*"], &["*.gz"]), ["a.log"]);
        assert_eq!(names(&files, &["a.log", "a.log"], &[]), ["a.log", "a.log"]);
    }
}
