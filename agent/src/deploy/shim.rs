//! Runs one step in a process of its own, so that the agent's end is not the step's end.
//!
//! The agent writes `DIR/step.json` and starts its own program as `step-shim DIR`; both talk through files in `DIR` only:
//!
//! ```text
//! step.json   what to run        lock      held by the shim while it lives
//! output      what it printed    started   the shim is about to run the step
//! cancelled   do not begin       process   the step itself
//!                                exit      how it ended
//! ```
//!
//! # Invariants
//! - The step runs at most once per `DIR`: `started` is on the disk before the process exists, and a shim that finds
//!   `started`, `exit` or `cancelled` does nothing. Whoever decides that a shim will never run writes `cancelled` while
//!   holding `lock`, so a shim that was only slow cannot begin afterwards.
//! - `exit` appears complete and on the disk, or not at all. Its blocks are allocated before the step begins, so a full
//!   disk cannot hide how a step ended.
//! - Standard output is a file: a daemon that keeps it open does not hold up the step, and nobody needs to read it for the
//!   step to go on. The file's size is bounded while the step runs.
//! - At the timeout the step's process group gets TERM, five seconds later KILL.
//!
//! Leaves out: processes that leave the group by `setsid`; under systemd they are in the step's scope.

use super::{
    journal::sync_parent,
    store::{self, StoreError},
};
use rustix::{
    fs::FlockOperation,
    process::{Pid, Signal, WaitId, WaitIdOptions},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::{
        fs::OpenOptionsExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// The hidden command of the agent's program that runs [`main`].
pub const COMMAND: &str = "step-shim";
/// Bytes of a step's output that are kept, from the beginning.
pub const OUTPUT_KEPT_BYTES: u64 = 10 << 20;
/// The output file is cut back to [`OUTPUT_KEPT_BYTES`] when it is longer than this.
pub const OUTPUT_MAX_BYTES: u64 = 18 << 20;

/// From TERM to KILL.
const GRACE: Duration = Duration::from_secs(5);
/// How often the output file's size is looked at.
const TICK: Duration = Duration::from_millis(200);
/// Size of `started` and `exit`.
const SLOT_BYTES: usize = 512;

/// What to run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Task {
    /// Version of this file's format: an agent may be replaced by a newer one between writing and reading.
    pub version: u32,
    /// For `/bin/sh -c`.
    pub run: String,
    /// Working directory.
    pub cwd: std::path::PathBuf,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Time until it is killed.
    pub timeout_ms: u64,
}

/// The shim's sign that it begins.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Started {
    /// Of the running kernel: another one means that the host was rebooted.
    pub boot_id: String,
    /// The shim itself.
    pub pid: u32,
}

/// The step's process, for ending it if its shim is killed: a number alone may have been given to another process.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Clock ticks after boot, as the kernel tells.
    pub(crate) started: u64,
}

impl Process {
    /// What runs under that number now.
    pub(crate) fn look(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; the 22nd field is the 20th behind it.
        let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, started })
    }

    /// Ends its process group, if it is still the same process.
    pub(crate) fn kill_group(&self) {
        if Self::look(self.pid).as_ref() == Some(self)
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            signal(pid, Signal::KILL);
        }
    }
}

/// How a step ended.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Exit {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal, if one ended it.
    pub signal: Option<i32>,
    /// Whether the timeout ended it.
    pub timed_out: bool,
    /// Why it could not be started.
    pub error: Option<String>,
    /// Output that was cut off because it was too much.
    pub dropped_bytes: u64,
}

impl Exit {
    /// Whether the step succeeded.
    #[must_use]
    pub const fn ok(&self) -> bool {
        matches!(self, Self { code: Some(0), timed_out: false, error: None, .. })
    }

    /// For people.
    #[must_use]
    pub fn describe(&self, timeout: Duration) -> String {
        match self {
            Self { error: Some(error), .. } => error.clone(),
            Self { timed_out: true, .. } => format!("timed out after {}", shipwatch_common::time::format_duration(timeout)),
            Self { signal: Some(signal), .. } => format!("ended by signal {signal}"),
            Self { code: Some(code), .. } => format!("exit code {code}"),
            _ => "ended without an exit code".to_owned(),
        }
    }
}

/// Makes `DIR` ready for a shim.
///
/// # Errors
/// The disk.
pub fn prepare(dir: &Path, task: &Task) -> Result<(), StoreError> {
    store::make_private_dir(dir)?;
    for name in ["started", "exit"] {
        let path = dir.join(format!("{name}.tmp"));
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(&[b' '; SLOT_BYTES])?;
            file.sync_all()
        })();
        written.map_err(|source| StoreError::Io { path, source })?;
    }
    store::write_json(&dir.join("step.json"), task)
}

/// The command line that starts a shim: under systemd in a scope of its own, since stopping or upgrading the agent's unit
/// ends all that is in the unit's control group.
#[must_use]
pub fn argv(shim: &[OsString], dir: &Path, unit: &str, systemd: bool) -> Vec<OsString> {
    let mut argv: Vec<OsString> = Vec::new();
    if systemd {
        argv.extend(["systemd-run", "--scope", "--quiet", "--collect"].map(OsString::from));
        argv.push(format!("--unit=shipwatch-step-{unit}").into());
        argv.push(format!("--description=Shipwatch deployment step {unit}").into());
        argv.push("--".into());
    }
    argv.extend_from_slice(shim);
    argv.push(dir.as_os_str().to_owned());
    argv
}

/// Reads a record that a shim wrote; none if it has not.
pub(crate) fn read<T: for<'a> Deserialize<'a>>(dir: &Path, name: &str) -> Result<Option<T>, StoreError> {
    match store::read_json(&dir.join(name)) {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the lock file of `DIR`.
pub(crate) fn open_lock(dir: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join("lock"))
}

/// The running kernel's id.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// The shim's whole life. `main` of the agent calls it for `step-shim DIR`, before it does anything else.
#[must_use]
pub fn main(dir: &Path) -> ExitCode {
    // Fails only if this process leads a group already; then it is nobody's child to be hung up on.
    let session = rustix::process::setsid();
    match supervise(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let exit = Exit { error: Some(format!("the step could not be run: {error}")), ..Exit::default() };
            let told = record(dir, "exit", &exit);
            tracing::warn!(%error, dir = %dir.display(), has_session = session.is_ok(), told = told.is_ok(), "step shim failed");
            ExitCode::FAILURE
        }
    }
}

fn supervise(dir: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::Io { path: dir.to_path_buf(), source };
    let lock = open_lock(dir).map_err(io)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
    for name in ["cancelled", "started", "exit"] {
        if dir.join(name).try_exists().map_err(io)? {
            return Ok(());
        }
    }
    let task: Task = store::read_json(&dir.join("step.json"))?;
    let output = OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join("output")).map_err(io)?;
    record(dir, "started", &Started { boot_id: boot_id(), pid: std::process::id() })?;
    let exit = match spawn(&task, &output) {
        Ok(child) => {
            let process = i32::try_from(child.id()).ok().and_then(Process::look);
            if let Some(Err(error)) = process.map(|process| store::write_json(&dir.join("process"), &process)) {
                tracing::debug!(%error, "could not note the step's process");
            }
            wait(child, Duration::from_millis(task.timeout_ms), &output).map_err(io)?
        }
        Err(error) => Exit { error: Some(format!("could not start /bin/sh in {}: {error}", task.cwd.display())), ..Exit::default() },
    };
    record(dir, "exit", &exit)
}

fn spawn(task: &Task, output: &File) -> io::Result<Child> {
    Command::new("/bin/sh")
        .arg("-c")
        .arg(&task.run)
        .current_dir(&task.cwd)
        .env_clear()
        .envs(&task.env)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .process_group(0)
        .spawn()
}

/// Waits for the step, bounds its output, and ends it at the timeout.
fn wait(mut child: Child, timeout: Duration, output: &File) -> io::Result<Exit> {
    let pid = Pid::from_child(&child);
    let (ended, receiver) = mpsc::channel();
    // The process is left as it is (not reaped) until the group got its last signal, so its number cannot be reused.
    let waiter = thread::Builder::new().name("step-wait".to_owned()).spawn(move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(rustix::process::waitid(WaitId::Pid(pid), options), Err(rustix::io::Errno::INTR)) {}
        // Nobody listens only if the shim itself is ending.
        let _ = ended.send(());
    })?;
    let mut exit = Exit::default();
    let until = |deadline: Instant, exit: &mut Exit| loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left.min(TICK)) {
            Err(RecvTimeoutError::Timeout) => {
                exit.dropped_bytes += bound_output(output);
                if left.is_zero() {
                    return false;
                }
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return true,
        }
    };
    // A day and more are refused by the spec's check; this bound only keeps the addition from overflowing.
    let deadline = Instant::now() + timeout.min(Duration::from_secs(7 * 86_400));
    if !until(deadline, &mut exit) {
        exit.timed_out = true;
        signal(pid, Signal::TERM);
        until(Instant::now() + GRACE, &mut exit);
        signal(pid, Signal::KILL);
    }
    let status = child.wait()?;
    let joined = waiter.join().is_ok();
    tracing::debug!(joined, "step ended");
    exit.dropped_bytes += bound_output(output);
    (exit.code, exit.signal) = (status.code(), status.signal());
    Ok(exit)
}

fn signal(group: Pid, signal: Signal) {
    if let Err(error) = rustix::process::kill_process_group(group, signal)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(%error, "could not signal the step's process group");
    }
}

/// Cuts an output file that is too long back to what is kept; returns how much was cut. Writers append, so they go on
/// behind the kept part.
pub(crate) fn bound_output(output: &File) -> u64 {
    let Ok(meta) = output.metadata() else { return 0 };
    if meta.len() <= OUTPUT_MAX_BYTES || output.set_len(OUTPUT_KEPT_BYTES).is_err() {
        return 0;
    }
    meta.len() - OUTPUT_KEPT_BYTES
}

/// Fills the blocks that [`prepare`] allocated and gives them their name.
fn record<T: Serialize>(dir: &Path, name: &str, value: &T) -> Result<(), StoreError> {
    let path = dir.join(name);
    let mut text = serde_json::to_vec(value).map_err(|source| StoreError::Record { path: path.clone(), source })?;
    text.resize(text.len().max(SLOT_BYTES), b' ');
    let temporary = dir.join(format!("{name}.tmp"));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_parent(&path)
    })();
    written.map_err(|source| StoreError::Io { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines() {
        let shim = ["/usr/bin/shipwatch-agent", COMMAND].map(OsString::from);
        let text = |systemd| {
            let argv = argv(&shim, Path::new("/var/lib/x/3-start"), "0a1b2c3d-3", systemd);
            argv.iter().map(|part| part.to_string_lossy().into_owned()).collect::<Vec<_>>().join("|")
        };
        assert_eq!(text(false), "/usr/bin/shipwatch-agent|step-shim|/var/lib/x/3-start");
        assert_eq!(
            text(true),
            "systemd-run|--scope|--quiet|--collect|--unit=shipwatch-step-0a1b2c3d-3|\
             --description=Shipwatch deployment step 0a1b2c3d-3|--|/usr/bin/shipwatch-agent|step-shim|/var/lib/x/3-start"
        );
    }

    #[test]
    fn ends_are_described() {
        let timeout = Duration::from_secs(90);
        for (exit, ok, text) in [
            (Exit { code: Some(0), ..Exit::default() }, true, "exit code 0"),
            (Exit { code: Some(3), ..Exit::default() }, false, "exit code 3"),
            (Exit { signal: Some(9), ..Exit::default() }, false, "ended by signal 9"),
            (Exit { code: Some(0), timed_out: true, ..Exit::default() }, false, "timed out after 1m30s"),
            (Exit { error: Some("no shell".into()), ..Exit::default() }, false, "no shell"),
            (Exit::default(), false, "ended without an exit code"),
        ] {
            assert_eq!((exit.ok(), exit.describe(timeout).as_str()), (ok, text));
        }
    }

    fn task(run: &str, timeout_ms: u64) -> Task {
        Task { version: 1, run: run.into(), cwd: "/".into(), env: BTreeMap::from([("A".into(), "b".into())]), timeout_ms }
    }

    #[test]
    fn a_step_runs_once_and_its_end_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("run");
        prepare(&dir, &task("echo $A; echo err >&2; exit 3", 10_000)).unwrap();
        supervise(&dir).unwrap();
        supervise(&dir).unwrap();
        let exit: Exit = read(&dir, "exit").unwrap().unwrap();
        assert_eq!(exit, Exit { code: Some(3), ..Exit::default() });
        assert_eq!(fs::read_to_string(dir.join("output")).unwrap(), "b\nerr\n");
        assert_eq!(read::<Started>(&dir, "started").unwrap().unwrap().boot_id, boot_id());
    }

    #[test]
    fn a_cancelled_step_never_begins() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("run");
        prepare(&dir, &task("touch ran", 10_000)).unwrap();
        File::create(dir.join("cancelled")).unwrap();
        supervise(&dir).unwrap();
        assert!(read::<Started>(&dir, "started").unwrap().is_none());
        assert!(!dir.join("output").try_exists().unwrap());
    }

    #[test]
    fn a_missing_directory_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("run");
        prepare(&dir, &Task { cwd: "/does/not/exist".into(), ..task("true", 1000) }).unwrap();
        supervise(&dir).unwrap();
        assert!(read::<Exit>(&dir, "exit").unwrap().unwrap().error.unwrap().contains("/does/not/exist"));
    }
}
