//! The handle to the deployments of this host, and what they share.
//!
//! # Invariants
//! - [`Executor::handle`] never waits: commands go through a bounded channel to a thread of their own (`manager`). Nothing here
//!   shares a lock or a queue with telemetry.

use super::{
    fetch::Cache,
    journal::CrashPoint,
    manager::Manager,
    report::{Reporter, Sink},
    shim,
    step::Launcher,
    store::{self, StoreError},
};
use crate::policy::Source;
use shipwatch_common::{
    mask::Masker,
    model::deploy::{Command, Event},
};
use std::{
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Commands that may wait; the server sends one per app and waits for the answer.
pub(crate) const QUEUE: usize = 64;
/// What an executor needs from the program.
pub struct Setup {
    /// For journals, caches and runs; readable by the agent's user only.
    pub state_dir: PathBuf,
    /// What is permitted.
    pub policy: Source,
    /// For everything that steps print.
    pub masker: Arc<Masker>,
    /// Program and arguments that run [`shim::main`] with a directory as last argument.
    pub shim: Vec<OsString>,
    /// `PATH` of steps.
    pub path: String,
    /// `HOME` of steps.
    pub home: String,
    /// Start steps in scopes of systemd, so that stopping the agent's unit leaves them alone.
    pub systemd: bool,
    /// For tests: true stops the deployment at that write of the journal, as a crash would.
    pub crash: Option<CrashPoint>,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("state_dir", &self.state_dir).field("shim", &self.shim).finish_non_exhaustive()
    }
}

impl Setup {
    /// With this program as the shim, the usual `PATH`, and systemd if it runs this host.
    ///
    /// # Errors
    /// The program's own path is not known.
    pub fn new(state_dir: PathBuf, policy: Source, masker: Arc<Masker>) -> io::Result<Self> {
        let root = rustix::process::geteuid().is_root();
        Ok(Self {
            state_dir,
            policy,
            masker,
            shim: vec![std::env::current_exe()?.into_os_string(), shim::COMMAND.into()],
            path: super::DEFAULT_PATH.to_owned(),
            home: if root { "/root" } else { "/" }.to_owned(),
            // Others than root would have to ask polkit.
            systemd: root && Path::new("/run/systemd/system").try_exists().unwrap_or(false),
            crash: None,
        })
    }
}

/// Shared by the executor and its workers; never changes.
pub(crate) struct Context {
    pub(crate) setup: Setup,
    pub(crate) stop: CancellationToken,
    pub(crate) cache: Cache,
    sink: Sink,
}

impl Context {
    pub(crate) fn reporter(&self, deployment_id: &str) -> Reporter {
        Reporter::new(Arc::clone(&self.sink), Arc::clone(&self.setup.masker), deployment_id.to_owned())
    }

    pub(crate) fn launcher(&self) -> Launcher {
        Launcher { shim: self.setup.shim.clone(), systemd: self.setup.systemd }
    }
}

/// Why the executor could not be started.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state directory.
    #[error("deploy state: {0}")]
    State(#[from] StoreError),
    /// The thread.
    #[error("could not start the deploy thread: {0}")]
    Thread(io::Error),
}

/// Why a command was not even looked at. The server must send it again.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HandleError {
    /// Too many commands wait.
    #[error("too many deploy commands wait on this host")]
    Full,
    /// The executor is shutting down.
    #[error("the deploy executor is shutting down")]
    Closed,
}

/// To the executor's thread.
pub(crate) enum Message {
    Command { command: Command, local: bool },
    Resume,
    Done { key: String, reported: bool },
    Stop { until: Instant },
}

/// The handle that the program holds. Dropping it stops the workers without waiting for them; steps go on in any case.
pub struct Executor {
    sender: SyncSender<Message>,
    stop: CancellationToken,
    ended: Receiver<()>,
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

impl Executor {
    /// Starts the executor's thread. `sink` takes events for good before it returns; it is called from several threads and
    /// may wait for the disk.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open<E: fmt::Display>(setup: Setup, sink: impl Fn(Event) -> Result<(), E> + Send + Sync + 'static) -> Result<Self, OpenError> {
        store::make_private_dir(&setup.state_dir.join("apps"))?;
        let stop = CancellationToken::new();
        let cache = Cache::new(&setup.state_dir);
        let sink: Sink = Arc::new(move |event| sink(event).map_err(|error| error.to_string()));
        let context = Arc::new(Context { setup, stop: stop.clone(), cache, sink });
        let (sender, receiver) = mpsc::sync_channel(QUEUE);
        let (ended_sender, ended) = mpsc::channel();
        let manager = Manager::new(context, sender.clone());
        thread::Builder::new().name("deploy".to_owned()).spawn(move || manager.run(&receiver, &ended_sender)).map_err(OpenError::Thread)?;
        Ok(Self { sender, stop, ended })
    }

    /// Takes a command of the server. What becomes of it is told by events.
    ///
    /// # Errors
    /// See [`HandleError`]; the command was not taken.
    pub fn handle(&self, command: Command) -> Result<(), HandleError> {
        self.send(Message::Command { command, local: false })
    }

    /// Takes a command of a person on this host: it needs no epoch. The policy still holds.
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn handle_local(&self, command: Command) -> Result<(), HandleError> {
        self.send(Message::Command { command, local: true })
    }

    /// Goes on with what an earlier run of the program left, and tells ends that were not told. Called once at start.
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn resume(&self) -> Result<(), HandleError> {
        self.send(Message::Resume)
    }

    fn send(&self, message: Message) -> Result<(), HandleError> {
        self.sender.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) => HandleError::Full,
            TrySendError::Disconnected(_) => HandleError::Closed,
        })
    }

    /// Stops the workers where they are and waits for them, at most `grace`. Steps go on; the next start follows them.
    /// False if a worker did not stop in time. Blocks: call it from a thread that may.
    #[must_use]
    pub fn shutdown(self, grace: Duration) -> bool {
        self.stop.cancel();
        self.drain(grace)
    }

    /// Waits, at most `grace`, until no deployment is under way, then ends. For a local deployment. Blocks.
    #[must_use]
    pub fn finish(self, grace: Duration) -> bool {
        self.drain(grace)
    }

    fn drain(&self, grace: Duration) -> bool {
        let sent = self.sender.send(Message::Stop { until: Instant::now() + grace });
        sent.is_err() || self.ended.recv_timeout(grace).is_ok()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.stop.cancel();
        if self.sender.try_send(Message::Stop { until: Instant::now() }).is_err() {
            tracing::debug!("the executor has ended, or looks at the stop flag soon");
        }
    }
}
