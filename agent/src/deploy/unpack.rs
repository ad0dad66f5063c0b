//! Unpacks an artifact that nobody has vetted.
//!
//! # Invariants
//! - Nothing is written outside of the given directory: names are relative and without `..`, no write goes through a link.
//! - The finished tree holds no link that leads out of it, no device, no set-user-id file, nothing that everybody may write.
//! - Bytes, entries and the memory for long names are bounded; the archive is read through once for that before anything
//!   is written.
//!
//! Leaves out: ownership (everything belongs to the agent's user), and making it durable (`layout`).

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink},
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime},
};
use tar::{Archive, Entry, EntryType};
use tokio_util::sync::CancellationToken;

/// A path in an archive; the kernel takes no longer ones.
const MAX_NAME_BYTES: u64 = 4096;
/// Extended headers hold times, owners and attributes beside names.
const MAX_EXTENSION_BYTES: u64 = 256 * 1024;

/// What an artifact may grow to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Sum of its files.
    pub max_unpacked_bytes: u64,
    /// Files, directories and links.
    pub max_entries: u64,
}

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The archive breaks a rule.
    #[error("entry `{name}` of the artifact {what}")]
    Entry {
        /// The entry.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The archive as a whole.
    #[error("the artifact {0}")]
    Archive(String),
    /// The disk.
    #[error("could not write `{path}`: {source}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What was reported.
        source: io::Error,
    },
    /// The agent is shutting down.
    #[error("stopped")]
    Stopped,
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Unpacked {
    /// Sum of the files.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
}

/// Unpacks into `into`, which must not exist yet. On an error it is left in part; the caller removes it.
///
/// # Errors
/// See [`UnpackError`].
pub(crate) fn unpack(archive: &Path, into: &Path, limits: Limits, stop: &CancellationToken) -> Result<Unpacked, UnpackError> {
    inspect(archive, limits, stop)?;
    fs::create_dir(into).map_err(|source| UnpackError::Write { path: into.to_path_buf(), source })?;
    let mut tree = Tree { base: into, made: HashSet::new(), links: Vec::new(), modes: Vec::new(), total: Unpacked::default(), limits };
    let mut archive = open(archive)?;
    for entry in archive.entries().map_err(|error| broken(&error))? {
        if stop.is_cancelled() {
            return Err(UnpackError::Stopped);
        }
        tree.add(entry.map_err(|error| broken(&error))?)?;
    }
    tree.finish()
}

/// Reads all headers and checks the sums, holding nothing of the content in memory.
fn inspect(path: &Path, limits: Limits, stop: &CancellationToken) -> Result<(), UnpackError> {
    let mut archive = open(path)?;
    let mut total = Unpacked::default();
    for entry in archive.entries().map_err(|error| broken(&error))?.raw(true) {
        let entry = entry.map_err(|error| broken(&error))?;
        if stop.is_cancelled() {
            return Err(UnpackError::Stopped);
        }
        let size = entry.size();
        let cap = match entry.header().entry_type() {
            EntryType::GNULongName | EntryType::GNULongLink => MAX_NAME_BYTES + 1,
            EntryType::XHeader | EntryType::XGlobalHeader => MAX_EXTENSION_BYTES,
            _ => u64::MAX,
        };
        if size > cap {
            return Err(UnpackError::Archive(format!("has an extended header of {size} bytes; at most {cap} are taken")));
        }
        total.entries += 1;
        total.bytes = total.bytes.saturating_add(size);
        // A long name takes two more entries.
        if total.entries > limits.max_entries.saturating_mul(3) {
            return Err(too_many(limits));
        }
        if total.bytes > limits.max_unpacked_bytes {
            return Err(too_large(limits));
        }
    }
    if total.entries == 0 {
        return Err(UnpackError::Archive("is empty, or no tar archive (plain, gzip or zstd)".to_owned()));
    }
    Ok(())
}

fn open(path: &Path) -> Result<Archive<Box<dyn Read>>, UnpackError> {
    let read = || -> io::Result<Box<dyn Read>> {
        let mut file = File::open(path)?;
        let mut magic = Vec::new();
        (&mut file).take(4).read_to_end(&mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        let file = BufReader::with_capacity(128 * 1024, file);
        Ok(match magic.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(file))),
            [0x28, 0xb5, 0x2f, 0xfd] => Box::new(BufReader::new(zstd::Decoder::with_buffer(file)?)),
            _ => Box::new(file),
        })
    };
    read().map(Archive::new).map_err(|error| broken(&error))
}

fn broken(error: &io::Error) -> UnpackError {
    UnpackError::Archive(format!("cannot be read as a tar archive (plain, gzip or zstd): {error}"))
}

fn too_many(limits: Limits) -> UnpackError {
    UnpackError::Archive(format!("has more than {} entries, the host's `deploy.max_entries`", limits.max_entries))
}

fn too_large(limits: Limits) -> UnpackError {
    UnpackError::Archive(format!("unpacks to more than {} bytes, the host's `deploy.max_unpacked_bytes`", limits.max_unpacked_bytes))
}

/// The tree that is being written.
struct Tree<'a> {
    base: &'a Path,
    /// Directories known to be real ones.
    made: HashSet<PathBuf>,
    links: Vec<PathBuf>,
    /// Set at the end, so that a read-only directory can still be filled.
    modes: Vec<(PathBuf, u32)>,
    total: Unpacked,
    limits: Limits,
}

impl Tree<'_> {
    fn add<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), UnpackError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let raw = entry.path_bytes().into_owned();
        let name = String::from_utf8_lossy(&raw).into_owned();
        let refuse = |what: &str| UnpackError::Entry { name: name.clone(), what: what.to_owned() };
        self.total.entries += 1;
        if self.total.entries > self.limits.max_entries {
            return Err(too_many(self.limits));
        }
        let path = std::str::from_utf8(&raw).map_err(|_| refuse("has a name that is not UTF-8"))?;
        let inside = inside(path).map_err(refuse)?;
        let target = self.base.join(&inside);
        match kind {
            EntryType::Directory => self.directory(&inside, &entry, &name),
            EntryType::Regular | EntryType::Continuous => {
                self.parent(&inside, &name)?;
                self.file(&mut entry, &target, &name)
            }
            EntryType::Symlink => {
                let to = link_text(&entry).ok_or_else(|| refuse("is a link without a target"))?;
                if Path::new(&to).is_absolute() {
                    return Err(refuse(&format!("is a link to the absolute path `{to}`")));
                }
                self.parent(&inside, &name)?;
                symlink(&to, &target).map_err(|error| write_error(&target, error))?;
                self.links.push(inside);
                Ok(())
            }
            EntryType::Link => {
                let to = link_text(&entry).ok_or_else(|| refuse("is a link without a target"))?;
                let to = inside_of(&to).map_err(|what| refuse(&format!("is a hard link to `{to}`, which {what}")))?;
                self.parent(&to, &name)?;
                self.parent(&inside, &name)?;
                let source = self.base.join(&to);
                let is_file = fs::symlink_metadata(&source).is_ok_and(|meta| meta.is_file());
                if !is_file {
                    return Err(refuse(&format!("is a hard link to `{}`, which is no file before it in the archive", to.display())));
                }
                fs::hard_link(&source, &target).map_err(|error| write_error(&target, error))
            }
            other => Err(refuse(&format!("is of kind {other:?}; only files, directories and links are taken"))),
        }
    }

    fn directory<R: Read>(&mut self, inside: &Path, entry: &Entry<'_, R>, name: &str) -> Result<(), UnpackError> {
        self.parent(&inside.join("x"), name)?;
        if !inside.as_os_str().is_empty() {
            let mode = entry.header().mode().unwrap_or(0o755) & 0o775 | 0o700;
            self.modes.push((self.base.join(inside), mode));
        }
        Ok(())
    }

    fn file<R: Read>(&mut self, entry: &mut Entry<'_, R>, target: &Path, name: &str) -> Result<(), UnpackError> {
        let mode = entry.header().mode().unwrap_or(0o644);
        if mode & 0o6000 != 0 {
            let what = format!("is set-user-id or set-group-id (mode {mode:o})");
            return Err(UnpackError::Entry { name: name.to_owned(), what });
        }
        // `create_new` neither follows a link nor writes into a file that is there.
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target);
        let mut file = created.map_err(|error| write_error(target, error))?;
        let left = self.limits.max_unpacked_bytes - self.total.bytes;
        // Sparse entries are longer than their header says, so what is written is what counts.
        let mut bounded = Read::take(&mut *entry, left.saturating_add(1));
        let written = io::copy(&mut bounded, &mut file).map_err(|error| write_error(target, error))?;
        if written > left {
            return Err(too_large(self.limits));
        }
        self.total.bytes += written;
        let times = entry.header().mtime().ok().and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at)));
        if let Some(time) = times {
            file.set_modified(time).map_err(|error| write_error(target, error))?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode & 0o775 | 0o400)).map_err(|error| write_error(target, error))
    }

    /// Makes the directories above `inside`; each must be a real directory.
    fn parent(&mut self, inside: &Path, name: &str) -> Result<(), UnpackError> {
        let mut at = PathBuf::new();
        for part in inside.parent().into_iter().flat_map(Path::components) {
            at.push(part);
            if self.made.contains(&at) {
                continue;
            }
            let path = self.base.join(&at);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let meta = fs::symlink_metadata(&path).map_err(|error| write_error(&path, error))?;
                    if !meta.is_dir() {
                        let what = format!("is below `{}`, which is no directory", at.display());
                        return Err(UnpackError::Entry { name: name.to_owned(), what });
                    }
                }
                Err(error) => return Err(write_error(&path, error)),
            }
            self.made.insert(at.clone());
        }
        Ok(())
    }

    fn finish(self) -> Result<Unpacked, UnpackError> {
        for link in &self.links {
            if !stays_inside(self.base, link).map_err(|error| write_error(&self.base.join(link), error))? {
                return Err(UnpackError::Entry { name: link.display().to_string(), what: "is a link out of the release".to_owned() });
            }
        }
        for (path, mode) in &self.modes {
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).map_err(|error| write_error(path, error))?;
        }
        fs::set_permissions(self.base, fs::Permissions::from_mode(0o755)).map_err(|error| write_error(self.base, error))?;
        Ok(self.total)
    }
}

fn write_error(path: &Path, source: io::Error) -> UnpackError {
    UnpackError::Write { path: path.to_path_buf(), source }
}

fn link_text<R: Read>(entry: &Entry<'_, R>) -> Option<String> {
    let bytes = entry.link_name_bytes()?.into_owned();
    let text = String::from_utf8(bytes).ok()?;
    (!text.is_empty() && !text.contains('\0')).then_some(text)
}

/// The path of an entry without `.`; empty for the archive's top itself.
fn inside(name: &str) -> Result<PathBuf, &'static str> {
    if name.len() as u64 > MAX_NAME_BYTES {
        return Err("has a name of more than 4096 bytes");
    }
    if name.is_empty() || name.contains('\0') {
        return Err("has an empty name or a NUL character in it");
    }
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err("has `..` in its name"),
            Component::RootDir | Component::Prefix(_) => return Err("has an absolute name"),
        }
    }
    Ok(path)
}

fn inside_of(name: &str) -> Result<PathBuf, &'static str> {
    inside(name).and_then(|path| if path.as_os_str().is_empty() { Err("is the archive's top") } else { Ok(path) })
}

/// Follows a link within the tree, part by part and through other links. What does not exist (yet) counts as a directory.
fn stays_inside(base: &Path, link: &Path) -> io::Result<bool> {
    let mut todo: Vec<std::ffi::OsString> = link.iter().rev().map(Into::into).collect();
    let mut at = PathBuf::new();
    let mut followed = 0;
    while let Some(part) = todo.pop() {
        if part == "." {
            continue;
        }
        if part == ".." {
            if !at.pop() {
                return Ok(false);
            }
            continue;
        }
        at.push(&part);
        let target = match fs::read_link(base.join(&at)) {
            Ok(target) => target,
            // No link, or nothing there.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        followed += 1;
        if target.is_absolute() || followed > 40 {
            return Ok(false);
        }
        at.pop();
        todo.extend(target.iter().rev().map(std::ffi::OsString::from));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const LIMITS: Limits = Limits { max_unpacked_bytes: 1 << 20, max_entries: 50 };

    enum Item<'a> {
        File(&'a str, &'a [u8], u32),
        Link(&'a str, &'a str),
        Hard(&'a str, &'a str),
        Other(&'a str, EntryType),
    }
    use Item::{File as F, Hard, Link, Other};

    /// Writes names as they are: the crate's builder would refuse the bad ones.
    fn tar(items: &[Item<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for item in items {
            let (name, kind, link, body, mode) = match *item {
                F(name, body, mode) => (name, EntryType::Regular, "", body, mode),
                Link(name, to) => (name, EntryType::Symlink, to, &b""[..], 0o777),
                Hard(name, to) => (name, EntryType::Link, to, &b""[..], 0o644),
                Other(name, kind) => (name, kind, "", &b""[..], 0o755),
            };
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(body.len() as u64);
            header.set_mtime(1_700_000_000);
            header.set_cksum();
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(body);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    fn run(bytes: &[u8], limits: Limits) -> (tempfile::TempDir, Result<Unpacked, String>) {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("a.tar");
        fs::write(&archive, bytes).unwrap();
        let result = unpack(&archive, &dir.path().join("out"), limits, &CancellationToken::new());
        (dir, result.map_err(|error| error.to_string()))
    }

    fn good() -> Vec<u8> {
        tar(&[
            Other("./", EntryType::Directory),
            Other("bin", EntryType::Directory),
            F("bin/run.sh", b"#!/bin/sh\n", 0o777),
            F("deep/er/file", b"content", 0o644),
            Link("bin/again", "run.sh"),
            Link("up", "bin/../deep"),
            Link("later", "made-by-a-step"),
            Hard("same", "deep/er/file"),
        ])
    }

    #[test]
    fn plain_gzip_and_zstd_are_unpacked() {
        let plain = good();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        for bytes in [plain.clone(), gzip.finish().unwrap(), zstd::encode_all(&plain[..], 1).unwrap()] {
            let (dir, result) = run(&bytes, LIMITS);
            assert_eq!(result.unwrap(), Unpacked { bytes: 17, entries: 8 });
            let out = dir.path().join("out");
            assert_eq!(fs::read(out.join("same")).unwrap(), b"content");
            assert_eq!(fs::read(out.join("up/er/file")).unwrap(), b"content");
            let meta = fs::metadata(out.join("bin/again")).unwrap();
            assert_eq!(meta.permissions().mode() & 0o7777, 0o775, "not writable by everybody");
            assert_eq!(meta.modified().unwrap(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        }
    }

    #[test]
    fn attacks_are_refused_and_nothing_appears_outside() {
        let cases: &[(&str, &[Item<'_>])] = &[
            ("has `..`", &[F("../evil", b"x", 0o644)]),
            ("has `..`", &[F("a/../../evil", b"x", 0o644)]),
            ("absolute name", &[F("/tmp/shipwatch-evil", b"x", 0o644)]),
            ("link to the absolute path", &[Link("a", "/etc")]),
            ("link out of the release", &[Link("a", "../../etc")]),
            ("link out of the release", &[Link("a", ".."), F("b", b"", 0o644)]),
            ("is below `a`, which is no directory", &[Link("a", "."), F("a/evil", b"x", 0o644)]),
            ("is below `a`, which is no directory", &[Link("a", ".."), F("a/evil", b"x", 0o644)]),
            ("is below `f`, which is no directory", &[F("f", b"x", 0o644), F("f/evil", b"x", 0o644)]),
            ("could not write", &[Link("a", "../evil"), F("a", b"x", 0o644)]),
            ("could not write", &[F("a", b"x", 0o644), F("a", b"y", 0o644)]),
            // As text `p/q/s/../..` stays inside; through the link `s` it does not.
            (
                "link out of the release",
                &[F("d/f", b"", 0o644), Other("p/q", EntryType::Directory), Link("p/q/s", "../../d"), Link("t", "p/q/s/../..")],
            ),
            ("link out of the release", &[Link("a", "b"), Link("b", "a")]),
            ("which has `..`", &[Hard("a", "../../etc/passwd")]),
            ("which has an absolute name", &[Hard("a", "/etc/passwd")]),
            ("which is no file", &[Link("l", "x"), Hard("a", "l")]),
            ("which is no file", &[Hard("a", "missing")]),
            ("is below `l`, which is no directory", &[Link("l", "."), Hard("a", "l/f")]),
            ("set-user-id", &[F("a", b"x", 0o4755)]),
            ("set-user-id", &[F("a", b"x", 0o2755)]),
            ("of kind Char", &[Other("a", EntryType::Char)]),
            ("of kind Block", &[Other("a", EntryType::Block)]),
            ("of kind Fifo", &[Other("a", EntryType::Fifo)]),
        ];
        for (told, items) in cases {
            let (dir, result) = run(&tar(items), LIMITS);
            let error = result.unwrap_err();
            assert!(error.contains(told), "expected {told:?}, got {error:?}");
            assert!(!dir.path().join("evil").try_exists().unwrap());
            assert!(!Path::new("/tmp/shipwatch-evil").try_exists().unwrap());
        }
    }

    #[test]
    fn sizes_are_bounded_before_anything_is_written() {
        let big = vec![0; 2000];
        let cases = [
            (tar(&[F("a", &big, 0o644)]), Limits { max_unpacked_bytes: 1999, ..LIMITS }, "max_unpacked_bytes"),
            (tar(&[F("a", b"", 0o644), F("b", b"", 0o644), F("c", b"", 0o644)]), Limits { max_entries: 2, ..LIMITS }, "max_entries"),
            (zstd::encode_all(&tar(&[F("a", &vec![0; 2 << 20], 0o644)])[..], 1).unwrap(), LIMITS, "max_unpacked_bytes"),
            (tar(&[]), LIMITS, "is empty"),
            (b"this is no archive at all, but it is longer than nothing".repeat(20), LIMITS, "cannot be read"),
            (good()[..700].to_vec(), LIMITS, "cannot be read"),
        ];
        for (bytes, limits, told) in cases {
            let error = run(&bytes, limits).1.unwrap_err();
            assert!(error.contains(told), "expected {told:?}, got {error:?}");
        }
        let mut long = tar(&[]);
        long.clear();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(500_000);
        header.set_cksum();
        long.extend_from_slice(header.as_bytes());
        long.resize(long.len() + 501_248, b'a');
        assert!(run(&long, LIMITS).1.unwrap_err().contains("extended header"));
    }
}
