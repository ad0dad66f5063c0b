//! What the agent keeps of one app: `<state>/apps/<app>-<hash of the root>/`.
//!
//! ```text
//! identity.json   app and root                 journal   see `journal` and `state`
//! lock            held while open              reserve   blocks given back when a deployment goes back
//! releases/<dir>.json   how to start, stop and check that release
//! runs/<deployment>/<attempt>-<step>/          see `shim`
//! ```
//!
//! # Invariants
//! - The directory is readable by the agent's user only: specs hold environment variables.
//! - What a release is started with comes from here, never from the unpacked tree, which an artifact could forge.
//! - One program at a time has an app open (`flock`), so a local deployment and the agent never mix.

use super::{
    journal::{self, CrashPoint, Journal, JournalError},
    state::{AppState, Record, Release},
};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// Freed when a deployment goes back, so that its steps can write on a full disk.
const RESERVE_BYTES: u64 = 1 << 20;
/// A longer journal is replaced by a snapshot.
const COMPACT_BYTES: u64 = 512 * 1024;

/// Why an app's records cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another program (`deploy --local`, or the agent) has it open.
    #[error("another program is deploying this app on this host now")]
    Busy,
    /// See [`JournalError`].
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The disk or the file system.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was reported.
        source: io::Error,
    },
    /// A record that is sound but not understood.
    #[error("{path}: {source}")]
    Record {
        /// Which file.
        path: PathBuf,
        /// What is not understood.
        source: serde_json::Error,
    },
}

/// Which app this is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Identity {
    /// Its name.
    pub app: String,
    /// Its root, symlinks resolved.
    pub root: PathBuf,
}

impl Identity {
    /// Name of its directory: readable, and different for each root.
    #[must_use]
    pub(crate) fn key(&self) -> String {
        let digest = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        format!("{}-{}", self.app, hex(digest.get(..4).unwrap_or_default()))
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The open records of one app.
#[derive(Debug)]
pub(crate) struct AppStore {
    dir: PathBuf,
    _lock: File,
    journal: Journal,
    state: AppState,
    identity: Identity,
}

impl AppStore {
    /// Opens an app's records, making them if it is the first time.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub(crate) fn open(state_dir: &Path, identity: Identity, crash: Option<CrashPoint>) -> Result<Self, StoreError> {
        let dir = state_dir.join("apps").join(identity.key());
        make_private_dir(&dir)?;
        let lock = lock(&dir)?;
        let path = dir.join("identity.json");
        if !path.try_exists().map_err(|source| StoreError::Io { path: path.clone(), source })? {
            write_json(&path, &identity)?;
        }
        Self::load(dir, lock, identity, crash)
    }

    /// Opens the records in a directory that [`AppStore::open`] made.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub(crate) fn open_dir(dir: &Path, crash: Option<CrashPoint>) -> Result<Self, StoreError> {
        let identity = read_json(&dir.join("identity.json"))?;
        Self::load(dir.to_path_buf(), lock(dir)?, identity, crash)
    }

    fn load(dir: PathBuf, lock: File, identity: Identity, crash: Option<CrashPoint>) -> Result<Self, StoreError> {
        let path = dir.join("journal");
        let (journal, payloads) = Journal::open(&path, crash)?;
        let mut state = AppState::default();
        for payload in payloads {
            let record = serde_json::from_slice(&payload).map_err(|source| StoreError::Record { path: path.clone(), source })?;
            state.apply(record);
        }
        Ok(Self { dir, _lock: lock, journal, state, identity })
    }

    /// What is known of the app.
    #[must_use]
    pub(crate) const fn state(&self) -> &AppState {
        &self.state
    }

    /// Which app this is.
    #[must_use]
    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Makes a record durable, then takes it into the state.
    ///
    /// # Errors
    /// The disk; the state is then unchanged.
    pub(crate) fn append(&mut self, record: Record) -> Result<(), StoreError> {
        let payload = serde_json::to_vec(&record).map_err(|source| StoreError::Record { path: self.dir.join("journal"), source })?;
        self.journal.append(&payload)?;
        self.state.apply(record);
        Ok(())
    }

    /// Replaces a long journal by a snapshot. Only between runs, since it needs space on the disk.
    ///
    /// # Errors
    /// The disk; the journal is then as before and still good.
    pub(crate) fn compact(&mut self) -> Result<(), StoreError> {
        if self.journal.len_bytes() < COMPACT_BYTES || self.state.run.is_some() {
            return Ok(());
        }
        let snapshot = Record::Snapshot(Box::new(self.state.clone()));
        let payload = serde_json::to_vec(&snapshot).map_err(|source| StoreError::Record { path: self.dir.join("journal"), source })?;
        Ok(self.journal.replace(&payload)?)
    }

    /// Makes sure that a deployment can be recorded to its end, and taken back, even if the disk fills up on the way.
    ///
    /// # Errors
    /// No space.
    pub(crate) fn reserve(&mut self) -> Result<(), StoreError> {
        self.journal.reserve()?;
        let path = self.dir.join("reserve");
        let reserved = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        reserved.and_then(|file| journal::allocate(&file, 0, RESERVE_BYTES)).map_err(|source| StoreError::Io { path, source })
    }

    /// Gives the reserve back, for the way back.
    pub(crate) fn release_reserve(&self) {
        if let Err(error) = fs::remove_file(self.dir.join("reserve"))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, dir = %self.dir.display(), "could not give back the reserved disk space");
        }
    }

    /// Keeps how a release is started, stopped and checked.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn save_release(&self, release: &Release) -> Result<(), StoreError> {
        make_private_dir(&self.dir.join("releases"))?;
        write_json(&self.release_path(&release.dir), release)
    }

    /// What was kept of the release in that directory; none if it is not ours.
    ///
    /// # Errors
    /// It is there but cannot be read: starting a release without its steps would be worse than not starting it.
    pub(crate) fn load_release(&self, dir: &str) -> Result<Option<Release>, StoreError> {
        match read_json(&self.release_path(dir)) {
            Ok(release) => Ok(Some(release)),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets a release that was removed.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn forget_release(&self, dir: &str) -> io::Result<()> {
        match fs::remove_file(self.release_path(dir)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Where the attempts of a deployment's steps are.
    #[must_use]
    pub(crate) fn runs_dir(&self) -> PathBuf {
        self.dir.join("runs")
    }

    fn release_path(&self, dir: &str) -> PathBuf {
        self.dir.join("releases").join(format!("{dir}.json"))
    }
}

/// Takes the lock. A child that is just being started by another thread may hold a copy for a moment, hence the attempts.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let io = |source| StoreError::Io { path: path.clone(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
    for attempt in 0..20 {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if attempt < 19 => std::thread::park_timeout(Duration::from_millis(10)),
            Err(rustix::io::Errno::WOULDBLOCK) => break,
            Err(error) => return Err(io(error.into())),
        }
    }
    Err(StoreError::Busy)
}

/// Makes a directory, and those above it, for the agent's user only.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), StoreError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StoreError::Io { path: path.to_path_buf(), source })
}

/// Writes a small file at once or not at all; on return it is on the disk.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let text = serde_json::to_vec(value).map_err(|source| StoreError::Record { path: path.to_path_buf(), source })?;
    let temporary = path.with_extension("tmp");
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        journal::sync_parent(path)
    })();
    written.map_err(|source| StoreError::Io { path: path.to_path_buf(), source })
}

/// Reads what [`write_json`] wrote.
pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, StoreError> {
    let text = fs::read(path).map_err(|source| StoreError::Io { path: path.to_path_buf(), source })?;
    serde_json::from_slice(&text).map_err(|source| StoreError::Record { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipwatch_common::model::deploy::HostState;

    fn identity() -> Identity {
        Identity { app: "shop".into(), root: "/srv/shop".into() }
    }

    fn refused(at: usize) -> Record {
        Record::Refused(super::super::state::Past {
            deployment_id: format!("d{at}"),
            rollback: false,
            state: HostState::Refused,
            reason: "x".repeat(4000),
            release: None,
            at_ms: 0,
            reported: false,
        })
    }

    #[test]
    fn records_are_found_again_and_two_owners_are_not_possible() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = AppStore::open(dir.path(), identity(), None).unwrap();
        store.append(refused(1)).unwrap();
        assert!(matches!(AppStore::open(dir.path(), identity(), None), Err(StoreError::Busy)));
        let state = store.state().clone();
        drop(store);
        let store = AppStore::open_dir(&dir.path().join("apps").join(identity().key()), None).unwrap();
        assert_eq!((store.state(), store.identity()), (&state, &identity()));
    }

    #[test]
    fn a_long_journal_is_replaced_by_a_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = AppStore::open(dir.path(), identity(), None).unwrap();
        for at in 0..400 {
            store.append(refused(at)).unwrap();
        }
        let before = store.journal.len_bytes();
        store.compact().unwrap();
        assert!(store.journal.len_bytes() < before);
        let state = store.state().clone();
        drop(store);
        assert_eq!(AppStore::open(dir.path(), identity(), None).unwrap().state(), &state);
    }

    #[test]
    fn an_unreadable_release_is_an_error_and_a_missing_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = AppStore::open(dir.path(), identity(), None).unwrap();
        let release = super::super::state::tests::release("v1-1", None);
        store.save_release(&release).unwrap();
        assert_eq!(store.load_release("v1-1").unwrap(), Some(release));
        assert_eq!(store.load_release("v2-1").unwrap(), None);
        fs::write(store.release_path("v1-1"), "{").unwrap();
        assert!(matches!(store.load_release("v1-1"), Err(StoreError::Record { .. })));
        store.forget_release("v1-1").unwrap();
        store.forget_release("v1-1").unwrap();
        assert_eq!(store.load_release("v1-1").unwrap(), None);
    }

    #[test]
    fn the_key_tells_roots_apart() {
        let other = Identity { root: "/srv/other".into(), ..identity() };
        assert!(identity().key().starts_with("shop-"));
        assert_ne!(identity().key(), other.key());
    }
}
