//! Starts a step's shim, follows it, and finds out after a restart what became of it.
//!
//! # Invariants
//! - A step whose end is not known is never reported as ended: it is `Alive`, or it is `Interrupted`.
//! - After [`inspect`] said `NeverBegan`, the step will not begin any more; after `Interrupted`, it does not go on.

use super::{
    output::Follower,
    shim::{self, Exit, Started, Task},
    store::StoreError,
};
use rustix::fs::FlockOperation;
use shipwatch_common::mask::Masker;
use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often the step's files are looked at.
const TICK: Duration = Duration::from_millis(25);
/// For the shim to begin, and to write the end after it has killed the step.
const PATIENCE: Duration = Duration::from_secs(30);

/// How shims are started on this host.
#[derive(Clone, Debug)]
pub(crate) struct Launcher {
    /// Program and arguments before `DIR`.
    pub shim: Vec<OsString>,
    /// Whether to start each in a scope of systemd.
    pub systemd: bool,
}

/// What became of a step.
#[derive(Debug)]
pub(crate) enum Found {
    /// It was not started and will not be.
    NeverBegan,
    /// It ended.
    Ended(Exit),
    /// Its shim lives.
    Alive,
    /// It was started, and nobody knows how it ended.
    Interrupted(String),
    /// It was killed and does not end (a dead disk or network mount); another attempt would run beside it.
    Stuck(String),
}

/// Why following stopped without an end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    /// The agent is shutting down; the step goes on.
    #[error("stopped")]
    Stopped,
    /// The step's files cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Starts the shim for a `DIR` that [`shim::prepare`] made ready.
///
/// # Errors
/// The program cannot be started.
pub(crate) fn launch(launcher: &Launcher, dir: &Path, unit: &str) -> io::Result<Child> {
    let argv = shim::argv(&launcher.shim, dir, unit, launcher.systemd);
    let (program, arguments) = argv.split_first().ok_or_else(|| io::Error::other("no shim program is set"))?;
    // What systemd-run or the shim itself complain about; never read by the step.
    let log = File::create(dir.join("launch.log"))?;
    Command::new(program)
        .args(arguments)
        .current_dir("/")
        .env_clear()
        .env("PATH", super::DEFAULT_PATH)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// Finds out what became of the step in `dir`.
///
/// # Errors
/// The files cannot be read.
pub(crate) fn inspect(dir: &Path) -> Result<Found, StoreError> {
    let io = |source| StoreError::Io { path: dir.to_path_buf(), source };
    if !dir.try_exists().map_err(io)? {
        return Ok(Found::NeverBegan);
    }
    if let Some(exit) = shim::read::<Exit>(dir, "exit")? {
        return Ok(Found::Ended(exit));
    }
    let lock = shim::open_lock(dir).map_err(io)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Found::Alive),
        Err(error) => return Err(io(error.into())),
    }
    // With the lock in hand no shim is running; it may have ended just before.
    if let Some(exit) = shim::read::<Exit>(dir, "exit")? {
        return Ok(Found::Ended(exit));
    }
    let Some(started) = shim::read::<Started>(dir, "started")? else {
        let cancelled = File::create(dir.join("cancelled")).and_then(|file| file.sync_all());
        cancelled.and_then(|()| super::journal::sync_parent(&dir.join("cancelled"))).map_err(io)?;
        return Ok(Found::NeverBegan);
    };
    let same_boot = started.boot_id == shim::boot_id();
    if same_boot && let Some(process) = shim::read::<shim::Process>(dir, "process")? {
        // Whatever is decided now, it must not be done beside what is left of this attempt.
        process.kill_group();
    }
    let why = if same_boot { "what ran it was killed" } else { "the host was rebooted" };
    Ok(Found::Interrupted(format!("it is not known how it ended, since {why} while it ran")))
}

/// Follows a step to its end. `tell` gets its output; the position is kept in `DIR/followed` for the next agent.
///
/// # Errors
/// See [`FollowError`].
pub(crate) async fn follow(
    dir: &Path,
    timeout: Duration,
    child: Option<Child>,
    masker: &Masker,
    stop: &CancellationToken,
    mut tell: impl FnMut(String),
) -> Result<Found, FollowError> {
    let mut child = child;
    let began = Instant::now();
    let mut output = Follower::new(&dir.join("output"), masker, read_position(dir));
    let patience = timeout.saturating_add(PATIENCE);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Err(FollowError::Stopped),
            () = tokio::time::sleep(TICK) => {}
        }
        match output.poll(began.elapsed()) {
            Ok(chunks) if chunks.is_empty() => {}
            Ok(chunks) => {
                chunks.into_iter().for_each(&mut tell);
                write_position(dir, output.offset());
            }
            Err(error) => tracing::debug!(%error, dir = %dir.display(), "could not read a step's output"),
        }
        let found = look(dir, &mut child, began.elapsed() > PATIENCE)?;
        match found {
            None if began.elapsed() > patience => {
                let why = format!("it does not end although it was killed after {}", shipwatch_common::time::format_duration(timeout));
                return Ok(Found::Stuck(why));
            }
            None => {}
            Some(found) => {
                let dropped = if let Found::Ended(exit) = &found { exit.dropped_bytes } else { 0 };
                match output.finish(dropped) {
                    Ok(chunks) => chunks.into_iter().for_each(&mut tell),
                    Err(error) => tell(format!("[the rest of the output could not be read: {error}]\n")),
                }
                return Ok(found);
            }
        }
    }
}

/// One look: none while there is nothing to say. `overdue` tells that a shim should have begun long ago.
fn look(dir: &Path, child: &mut Option<Child>, overdue: bool) -> Result<Option<Found>, StoreError> {
    if let Some(exit) = shim::read::<Exit>(dir, "exit")? {
        if let Some(child) = child
            && let Err(error) = child.wait()
        {
            tracing::debug!(%error, "could not wait for a step's shim");
        }
        return Ok(Some(Found::Ended(exit)));
    }
    let io = |source| StoreError::Io { path: dir.to_path_buf(), source };
    let gone = match child {
        Some(running) => running.try_wait().map_err(io)?.is_some(),
        None => true,
    };
    // A shim that has just been started does not hold its lock yet; then only its process tells that it is there.
    if !gone && !overdue {
        return Ok(None);
    }
    Ok(match inspect(dir)? {
        Found::Alive => None,
        other => Some(other),
    })
}

fn position_path(dir: &Path) -> PathBuf {
    dir.join("followed")
}

fn read_position(dir: &Path) -> u64 {
    fs::read_to_string(position_path(dir)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Not synced: after a power failure some output is told twice, which is better than waiting for the disk each time.
fn write_position(dir: &Path, offset: u64) {
    if let Err(error) = fs::write(position_path(dir), offset.to_string()) {
        tracing::debug!(%error, dir = %dir.display(), "could not keep the position in a step's output");
    }
}

/// What the launcher complained about, for a step that never began.
#[must_use]
pub(crate) fn complaint(dir: &Path) -> String {
    let text = fs::read_to_string(dir.join("launch.log")).unwrap_or_default();
    text.lines().last().map(|line| line.chars().take(300).collect()).unwrap_or_default()
}

/// Makes what runs in `dir` ready: see [`shim::prepare`].
///
/// # Errors
/// The disk.
pub(crate) fn prepare(dir: &Path, task: &Task) -> Result<(), StoreError> {
    shim::prepare(dir, task)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn ready() -> (tempfile::TempDir, PathBuf) {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("run");
        let task = Task { version: 1, run: "true".into(), cwd: "/".into(), env: BTreeMap::new(), timeout_ms: 1000 };
        prepare(&dir, &task).unwrap();
        (base, dir)
    }

    #[test]
    fn what_became_of_a_step() {
        let (_base, dir) = ready();
        assert!(matches!(inspect(&dir.join("missing")).unwrap(), Found::NeverBegan));
        let lock = shim::open_lock(&dir).unwrap();
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert!(matches!(inspect(&dir).unwrap(), Found::Alive));
        fs::write(dir.join("started"), "{\"boot_id\":\"another\",\"pid\":1}").unwrap();
        drop(lock);
        let Found::Interrupted(why) = inspect(&dir).unwrap() else { panic!() };
        assert!(why.contains("rebooted"), "{why}");
        fs::write(dir.join("started"), format!("{{\"boot_id\":\"{}\",\"pid\":1}}", shim::boot_id())).unwrap();
        let Found::Interrupted(why) = inspect(&dir).unwrap() else { panic!() };
        assert!(why.contains("killed"), "{why}");
        fs::write(dir.join("exit"), "{\"code\":4,\"signal\":null,\"timed_out\":false,\"error\":null,\"dropped_bytes\":0}  ").unwrap();
        let Found::Ended(exit) = inspect(&dir).unwrap() else { panic!() };
        assert_eq!(exit.code, Some(4));
    }

    #[test]
    fn a_step_that_was_given_up_cannot_begin_afterwards() {
        let (_base, dir) = ready();
        assert!(matches!(inspect(&dir).unwrap(), Found::NeverBegan));
        let _ = shim::main(&dir);
        assert!(!dir.join("started").try_exists().unwrap());
        assert!(matches!(inspect(&dir).unwrap(), Found::NeverBegan));
    }
}
