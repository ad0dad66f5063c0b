//! Where a rotated file went: other names in its directory, copies, compressed copies, and rotations that nobody saw.
//!
//! # Invariants
//! - A name proves nothing, it only says where to look: a file is taken for the continuation of another when its content up to the
//!   position is the same (head, marker, checksum).
//! - A directory is listed at most once per look, however many files are searched in it.

use super::{Position, content, content::Content};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

/// Entries of one directory that are looked at.
const MAX_ENTRIES: usize = 50_000;
/// Directories below a file's own that are looked at (`olddir old`).
const MAX_BELOW: usize = 32;

/// A file in a directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
}

impl Entry {
    fn name(&self) -> &[u8] {
        self.path.file_name().map_or(b"", |name| name.as_bytes())
    }

    pub(super) fn is_packed(&self) -> bool {
        content::is_packed(self.name())
    }
}

#[derive(Debug)]
struct Listing {
    files: Vec<Entry>,
    directories: Vec<PathBuf>,
    dev: u64,
}

/// Listings of one look.
#[derive(Debug, Default)]
pub(super) struct Search {
    listings: HashMap<PathBuf, io::Result<Listing>>,
}

/// What a search by inode gave.
#[derive(Debug)]
pub(super) enum Whereabouts {
    Here(PathBuf),
    Gone,
    /// The directory cannot be read, or is not the one it was (not mounted).
    Unknown(io::Error),
}

fn list(directory: &Path) -> io::Result<Listing> {
    let mut listing = Listing { files: Vec::new(), directories: Vec::new(), dev: fs::metadata(directory)?.dev() };
    for entry in fs::read_dir(directory)?.take(MAX_ENTRIES) {
        let entry = entry?;
        match entry.metadata() {
            Ok(meta) if meta.is_file() => listing.files.push(Entry {
                path: entry.path(),
                dev: meta.dev(),
                ino: meta.ino(),
                size: meta.len(),
                mtime_ns: content::Stamp::of(&meta).mtime_ns,
            }),
            Ok(meta) if meta.is_dir() && listing.directories.len() < MAX_BELOW => listing.directories.push(entry.path()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listing)
}

impl Search {
    fn listing(&mut self, directory: &Path) -> &io::Result<Listing> {
        self.listings.entry(directory.to_owned()).or_insert_with_key(|directory| list(directory))
    }

    /// Forgets what was listed: something was moved.
    pub(super) fn clear(&mut self) {
        self.listings.clear();
    }

    /// Looks for a file by its inode, in its directory and those directly below.
    pub(super) fn by_inode(&mut self, path: &Path, dev: u64, ino: u64) -> Whereabouts {
        let Some(directory) = path.parent() else { return Whereabouts::Gone };
        let find =
            |listing: &Listing| listing.files.iter().find(|entry| (entry.dev, entry.ino) == (dev, ino)).map(|entry| entry.path.clone());
        let below = match self.listing(directory) {
            Ok(listing) => match find(listing) {
                Some(path) => return Whereabouts::Here(path),
                None if listing.dev != dev && listing.files.is_empty() => {
                    return Whereabouts::Unknown(io::Error::other("its file system is not mounted"));
                }
                None => listing.directories.clone(),
            },
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Whereabouts::Gone,
            Err(error) => return Whereabouts::Unknown(io::Error::new(error.kind(), error.to_string())),
        };
        below.iter().find_map(|directory| self.listing(directory).as_ref().ok().and_then(find)).map_or(Whereabouts::Gone, Whereabouts::Here)
    }

    /// Files whose names say that they were `path` once: `app.log.1`, `app.log-20261123.gz`, `app-2026-11-23.log`. Also in the
    /// directories directly below.
    pub(super) fn rotations(&mut self, path: &Path) -> Vec<Entry> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
        let Ok(listing) = self.listing(directory) else { return Vec::new() };
        let is_rotation = |entry: &&Entry| is_rotation(name, entry.path.file_name().unwrap_or_default());
        let mut found: Vec<Entry> = listing.files.iter().filter(is_rotation).cloned().collect();
        let below = listing.directories.clone();
        for directory in below {
            if let Ok(listing) = self.listing(&directory) {
                found.extend(listing.files.iter().filter(is_rotation).cloned());
            }
        }
        found
    }

    /// The copy that a life goes on in: its content up to the position is the same. `is_taken` knows those of other lives.
    pub(super) fn continuation(&mut self, position: &Position, is_taken: impl Fn(&Entry) -> bool, buffer: &mut [u8]) -> Option<Entry> {
        if position.offset == 0 {
            return None;
        }
        let mut candidates = self.rotations(&position.path);
        if position.name != position.path {
            candidates.extend(self.rotations(&position.name));
        }
        // The youngest first: it is the likeliest.
        candidates.sort_by_key(|entry| std::cmp::Reverse(entry.mtime_ns));
        candidates.into_iter().find(|entry| {
            (entry.is_packed() || entry.size >= position.offset)
                && !is_taken(entry)
                && Content::open(&entry.path, entry.is_packed())
                    .and_then(|(mut content, _)| content.continues(position, buffer))
                    .unwrap_or(false)
        })
    }
}

/// Whether `name` is one that a rotation gives to `base`: with digits, dates or `old` behind it or before its extension, and
/// compressed perhaps.
pub(super) fn is_rotation(base: &OsStr, name: &OsStr) -> bool {
    let (base, name) = (base.as_bytes(), name.as_bytes());
    let unpacked = [&b".gz"[..], b".zst"].iter().find_map(|end| name.strip_suffix(*end));
    let name = unpacked.unwrap_or(name);
    if let Some(more) = name.strip_prefix(base) {
        return is_rotation_mark(more) || more.is_empty() && unpacked.is_some();
    }
    let Some(dot) = base.iter().rposition(|byte| *byte == b'.') else { return false };
    let (stem, extension) = base.split_at(dot);
    name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension)).is_some_and(is_rotation_mark)
}

/// As [`is_rotation`], of paths in one directory.
pub(super) fn is_rotation_of(base: &Path, path: &Path) -> bool {
    base.parent() == path.parent() && matches!((base.file_name(), path.file_name()), (Some(base), Some(name)) if is_rotation(base, name))
}

fn is_rotation_mark(mark: &[u8]) -> bool {
    let Some((first, rest)) = mark.split_first() else { return false };
    matches!(first, b'.' | b'-' | b'_')
        && (matches!(rest, b"old" | b"bak" | b"prev")
            || rest.iter().any(u8::is_ascii_digit)
                && rest.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_' | b'T' | b'Z')))
}

/// The name of which a name may be a rotation, as far as it can be told from the name alone.
pub(super) fn bases(path: &Path) -> Vec<PathBuf> {
    let Some(name) = path.file_name() else { return Vec::new() };
    let bytes = name.as_bytes();
    let mut found = Vec::new();
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        if !matches!(byte, b'.' | b'-' | b'_') {
            continue;
        }
        let stem = &bytes[..at];
        let mut candidates = vec![stem.to_vec()];
        if let Some(dot) = bytes.iter().rposition(|byte| *byte == b'.')
            && dot > at
        {
            candidates.push([stem, &bytes[dot..]].concat());
        }
        for candidate in candidates {
            let candidate = OsStr::from_bytes(&candidate);
            if is_rotation(candidate, name) {
                found.push(path.with_file_name(candidate));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rotations() {
        for (name, expected) in [
            ("app.log.1", true),
            ("app.log.12.gz", true),
            ("app.log-20261123", true),
            ("app.log-20261123-080000.gz", true),
            ("app-2026-11-23.log", true),
            ("app.2026-11-23.log.zst", true),
            ("app.log.old", true),
            ("app.log.gz", true),
            ("app.log", false),
            ("app-worker.log", false),
            ("app.log.tmp", false),
            ("other.log.1", false),
            ("app.logs", false),
        ] {
            assert_eq!(is_rotation(OsStr::new("app.log"), OsStr::new(name)), expected, "{name}");
        }
        assert_eq!(bases(Path::new("/x/app.log.1")), [Path::new("/x/app.log")]);
        assert!(bases(Path::new("/x/app-2026-11-23.log")).contains(&PathBuf::from("/x/app.log")));
        assert!(bases(Path::new("/x/app-worker.log")).is_empty());
        assert!(bases(Path::new("/x/noext")).is_empty());
    }
}
