//! From globs to files.

use super::content::Stamp;
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
    pub(super) stamp: Stamp,
    /// Number of the first source that it matches.
    pub(super) source: usize,
    pub(super) is_link: bool,
}

impl Found {
    pub(super) const fn inode(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}

/// Everything that matches now.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Each inode once, under its best name.
    pub(super) files: Vec<Found>,
    /// Directories that hold them or may, for notifications.
    pub(super) directories: HashSet<PathBuf>,
    /// Something could not be looked at: what was not found may be there all the same.
    pub(super) partial: bool,
}

/// A glob with the directory that its walk begins in.
#[derive(Debug)]
struct Pattern {
    base: PathBuf,
    depth: usize,
    set: GlobSet,
}

/// Compiled globs of one source.
#[derive(Debug)]
pub(super) struct Globs {
    patterns: Vec<Pattern>,
    exclude: GlobSet,
}

/// Compiles one glob, or says what is wrong with it.
pub(super) fn compile(glob: &str) -> Result<Glob, String> {
    GlobBuilder::new(glob).literal_separator(true).build().map_err(|error| format!("{glob:?} is not a glob: {}", error.kind()))
}

fn set(globs: impl IntoIterator<Item = Glob>) -> Result<GlobSet, String> {
    let mut builder = GlobSetBuilder::new();
    for glob in globs {
        builder.add(glob);
    }
    builder.build().map_err(|error| error.to_string())
}

impl Globs {
    pub(super) fn new(files: &[String], exclude: &[String]) -> Result<Self, String> {
        let patterns = files
            .iter()
            .map(|glob| {
                let is_literal = |component: &Component<'_>| !component.as_os_str().to_string_lossy().contains(['*', '?', '[', '{', '\\']);
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

    /// Whether a file of this name is wanted.
    pub(super) fn wants(&self, path: &Path) -> bool {
        self.patterns.iter().any(|pattern| pattern.set.is_match(path)) && !self.exclude.is_match(path)
    }

    fn walk(&self, source: usize, scan: &mut Scan, entries: &mut usize) {
        for pattern in &self.patterns {
            let mut waiting = vec![(pattern.base.clone(), pattern.depth)];
            while let Some((directory, depth)) = waiting.pop() {
                let list = match fs::read_dir(&directory) {
                    Ok(list) => list,
                    Err(error) => {
                        scan.partial |= error.kind() != std::io::ErrorKind::NotFound;
                        continue;
                    }
                };
                scan.directories.insert(directory);
                for entry in list {
                    *entries += 1;
                    let Ok(entry) = entry else {
                        scan.partial = true;
                        continue;
                    };
                    if *entries > MAX_ENTRIES {
                        scan.partial = true;
                        return;
                    }
                    let path = entry.path();
                    let Ok(kind) = entry.file_type() else {
                        scan.partial = true;
                        continue;
                    };
                    if kind.is_dir() {
                        if depth > 1 {
                            waiting.push((path, depth - 1));
                        }
                    } else if (kind.is_file() || kind.is_symlink()) && pattern.set.is_match(&path) && !self.exclude.is_match(&path) {
                        scan.add(path, kind.is_symlink(), source);
                    }
                }
            }
        }
    }
}

impl Scan {
    /// Takes a file in; through a link, the one that it points to now.
    fn add(&mut self, path: PathBuf, is_link: bool, source: usize) {
        match fs::metadata(&path) {
            Ok(meta) if meta.is_file() => {
                let stamp = Stamp::of(&meta);
                self.files.push(Found { path, dev: meta.dev(), ino: meta.ino(), stamp, source, is_link });
            }
            Ok(_) => {}
            Err(error) => self.partial |= error.kind() != std::io::ErrorKind::NotFound,
        }
    }
}

/// Looks at all globs of all sources.
pub(super) fn scan<'a>(sources: impl IntoIterator<Item = &'a Globs>) -> Scan {
    let mut scan = Scan::default();
    let mut entries = 0;
    for (source, globs) in sources.into_iter().enumerate() {
        globs.walk(source, &mut scan, &mut entries);
    }
    // The first source counts; then the file's own name before a link to it; then the shortest, which is the one people know.
    scan.files.sort_by(|a, b| {
        let rank = |found: &Found| (found.inode(), found.source, found.is_link, found.path.as_os_str().len());
        rank(a).cmp(&rank(b)).then_with(|| a.path.cmp(&b.path))
    });
    scan.files.dedup_by_key(|found| found.inode());
    scan
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
        let mut found: Vec<String> = scan([&Globs::new(&globs, &exclude).unwrap()])
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
        assert_eq!(names(&files, &["a.log", "*.log"], &[]), ["a.log", "{odd}.log"], "each inode once");
        assert_eq!(names(&files, &["nowhere/*.log"], &[]), [""; 0]);
    }

    #[test]
    fn a_file_belongs_to_the_first_source_and_a_link_is_the_worse_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("target-long-name.log"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path().join("target-long-name.log"), dir.path().join("a.log")).unwrap();
        let globs = |glob: &str| Globs::new(&[format!("{}/{glob}", dir.path().display())], &[]).unwrap();
        let found = scan([&globs("nothing*"), &globs("*.log"), &globs("a.log")]);
        let [one] = &found.files[..] else { panic!("{found:?}") };
        assert_eq!((one.source, one.is_link, one.path.ends_with("target-long-name.log")), (1, false, true));
        assert!(!found.partial);
    }
}
