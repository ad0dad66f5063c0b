//! Control groups, version 2: where they are, which there are, their files.
//!
//! # Invariants
//! - A walk looks at [`MAX_DIRS`] directories at most, [`MAX_DEPTH`] deep.

use super::attribute;
use std::{
    fs,
    path::{Path, PathBuf},
};

const MAX_DIRS: usize = 4_000;
const MAX_DEPTH: usize = 12;

/// The root of version 2; `None` where the kernel or the distribution has version 1 only.
pub(crate) fn root(sys: &Path) -> Option<PathBuf> {
    let dir = sys.join("fs/cgroup");
    // Hybrid: version 2 beside version 1, mostly without its controllers.
    [dir.clone(), dir.join("unified")].into_iter().find(|dir| fs::metadata(dir.join("cgroup.controllers")).is_ok())
}

/// What to do with a directory.
pub(crate) enum Visit {
    /// It is one; what is beneath it is its own affair.
    Take,
    /// Look beneath.
    Descend,
}

/// Groups that `visit` takes by name, as paths beneath `root`, at most `most`, sorted.
pub(crate) fn walk(root: &Path, most: usize, visit: impl Fn(&str) -> Visit) -> Vec<String> {
    let mut taken = Vec::new();
    let mut open = vec![(String::new(), 0)];
    let mut looked = 0;
    while let Some((path, depth)) = open.pop() {
        looked += 1;
        if looked > MAX_DIRS || taken.len() >= most {
            break;
        }
        let Ok(entries) = fs::read_dir(root.join(path.trim_start_matches('/'))) else { continue };
        for entry in entries.filter_map(Result::ok) {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            let child = format!("{path}/{name}");
            match visit(&name) {
                Visit::Take => taken.push(child),
                Visit::Descend if depth < MAX_DEPTH && open.len() < MAX_DIRS => open.push((child, depth + 1)),
                Visit::Descend => {}
            }
        }
    }
    taken.truncate(most);
    taken.sort_unstable();
    taken
}

/// The number behind `key` in a file of lines `key number`.
pub(crate) fn keyed(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A file of a group; empty if it is not there.
pub(crate) fn file(dir: &Path, name: &str) -> String {
    attribute(&dir.join(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/x.service/inner.service", "a/y.service", "b/c/z.service", "plain"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let services = |name: &str| if name.ends_with(".service") { Visit::Take } else { Visit::Descend };
        assert_eq!(walk(dir.path(), 9, services), ["/a/x.service", "/a/y.service", "/b/c/z.service"]);
        assert_eq!(walk(dir.path(), 2, services).len(), 2);
        assert_eq!(walk(&dir.path().join("none"), 2, services), [""; 0]);
        assert_eq!(root(dir.path()), None);
    }

    #[test]
    fn keys_are_whole_words() {
        let text = "anon 1\nfile 2\nfile_mapped 3\n";
        assert_eq!((keyed(text, "file"), keyed(text, "fil"), keyed(text, "file_mapped")), (Some(2.0), None, Some(3.0)));
    }
}
