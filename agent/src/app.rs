//! The composition root: starts the agent's parts in order, joins them, and stops them in order.
//!
//! Threads: `collect` (ticks), `tail` (files), `streams` (journal, syslog, pipes), `deploy` (executor and its workers), and the runtime's own for the uplink.
//! Stop order: collect and tail first (nothing new), then deploy (its steps go on without it), then the uplink sends what
//! is left for a short time and says goodbye.

mod own_metrics;
mod status;

pub use status::{Status, StatusFile};

use crate::{
    collect::{self, Collectors},
    config::Config,
    deploy::{self, Executor},
    policy,
    spool::{
        lanes::{LogSink, Positions, Spool},
        queue::SpoolError,
    },
    tail::{self, Tailer},
    uplink::{
        Uplink,
        identity::{EnrolError, IdentityStore},
    },
};
use shipwatch_common::{
    mask::Masker,
    model::deploy::Command,
    time::{duration_ms, now_ms},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering, mpsc as std_mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle as TaskHandle};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// Commands of the server that may wait for the executor.
const COMMANDS: usize = 16;
/// How long the deploy executor may take to stop; its steps go on in any case.
const DEPLOY_GRACE: Duration = Duration::from_secs(3);

/// Why the agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not enrolled, or its identity cannot be used.
    #[error(transparent)]
    Identity(#[from] EnrolError),
    /// The spool's directory.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The deploy executor's directory.
    #[error(transparent)]
    Deploy(#[from] deploy::OpenError),
    /// Masking rules.
    #[error("masking rules: {0}")]
    Mask(String),
    /// Collectors or tailer.
    #[error("{0}")]
    Part(String),
    /// Threads, directories, randomness.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's words.
        source: io::Error,
    },
    /// Another agent runs on the same state directory.
    #[error("{0} is used by another agent; stop it first, or give this one another state_dir")]
    Busy(String),
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    cancel: CancellationToken,
    collect: Option<CollectThread>,
    tail: Vec<JoinHandle<()>>,
    tail_stop: CancellationToken,
    deploy: Option<TaskHandle<Executor>>,
    deploy_stop: CancellationToken,
    uplink: TaskHandle<()>,
    status: TaskHandle<()>,
    /// Held while the agent runs: one agent per state directory.
    _lock: std::fs::File,
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |source| StartError::Io { what, source }
}

impl Agent {
    /// Starts everything. Must be called within a runtime. Returns once all parts run; the connection to the server is made
    /// in the background. `path` is the `PATH` of deploy steps; `None` takes the usual directories.
    ///
    /// # Errors
    /// Each with its remedy; nothing is left running.
    pub fn start(config: &Config, path: Option<String>, masker: Arc<Masker>) -> Result<Self, StartError> {
        let state_dir = PathBuf::from(&config.agent.state_dir);
        let lock = prepare(&state_dir)?;
        let store = IdentityStore::new(&state_dir);
        let identity = store.load()?;
        let server = if config.uplink.server.is_empty() { identity.server.clone() } else { config.uplink.server.clone() };

        let generation = random_generation();
        let (spool, positions) = Spool::open(&state_dir.join("spool"), &config.spool, generation)?;
        let spool = Arc::new(spool);

        let tail_stop = CancellationToken::new();
        let (tail, tail_counters, log_metrics) = start_tail(config, &masker, positions, Arc::clone(&spool), tail_stop.clone())?;

        let uplink_counters = Arc::new(crate::uplink::Counters::default());
        let own = own_metrics::Sources {
            spool: Arc::clone(&spool),
            tail: tail_counters,
            log_metrics,
            uplink: Arc::clone(&uplink_counters),
            lost_samples: Arc::default(),
        };
        let collect = start_collect(config, &masker, own.clone())?;

        let policy = policy::Source::File(PathBuf::from(&config.agent.policy_file));
        let (in_force, warning) = policy.read();
        if let Some(warning) = warning {
            warn!(%warning, "policy is not in force");
        }
        let deploys_allowed = in_force.deploy.enabled;
        let deploy = start_deploy(&state_dir, path, policy, &masker, Arc::clone(&spool))?;

        let cancel = CancellationToken::new();
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let uplink = Uplink {
            store,
            identity,
            server: server.clone(),
            spool,
            facts: collect::facts(),
            deploys_allowed,
            commands,
            counters: Arc::clone(&uplink_counters),
        };
        let name = uplink.identity.name.clone();
        info!(%server, %name, deploys_allowed, version = env!("CARGO_PKG_VERSION"), "agent started");
        let deploy_stop = CancellationToken::new();
        Ok(Self {
            collect: Some(collect),
            tail,
            tail_stop,
            deploy: Some(forward(deploy, inbox, deploy_stop.clone())),
            deploy_stop,
            uplink: tokio::spawn(uplink.run(cancel.clone())),
            status: tokio::spawn(status::keep(StatusFile::new(&state_dir), server, name, own, cancel.clone())),
            cancel,
            _lock: lock,
        })
    }

    /// Stops everything in order; see the module.
    pub async fn shutdown(mut self) {
        if let Some((stop, thread)) = self.collect.take() {
            drop(stop);
            join("collect", thread).await;
        }
        self.tail_stop.cancel();
        for thread in self.tail.drain(..) {
            thread.thread().unpark();
            join("tail", thread).await;
        }
        self.deploy_stop.cancel();
        if let Some(task) = self.deploy.take()
            && let Ok(executor) = task.await
            && !matches!(tokio::task::spawn_blocking(move || executor.shutdown(DEPLOY_GRACE)).await, Ok(true))
        {
            warn!("a deployment did not stop in time; it goes on from its journal at the next start");
        }
        self.cancel.cancel();
        for (name, task) in [("uplink", self.uplink), ("status", self.status)] {
            if let Err(error) = task.await {
                error!(%error, task = name, "a task did not end well");
            }
        }
        info!("agent stopped");
    }
}

async fn join(name: &str, thread: JoinHandle<()>) {
    if !matches!(tokio::task::spawn_blocking(move || thread.join()).await, Ok(Ok(()))) {
        error!(thread = name, "a thread did not end well");
    }
}

/// New with every start, so that sequences that begin again are never taken for ones that came before.
fn random_generation() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}

/// Threads that read lines, what they count, and the metrics that they make.
type TailThreads = (Vec<JoinHandle<()>>, Arc<tail::Counters>, tail::Metrics);

type CollectThread = (std_mpsc::Sender<()>, JoinHandle<()>);

/// Ticks on multiples of the interval, so that a fleet's samples fall on the same grid; stops when the sender is dropped.
fn start_collect(config: &Config, masker: &Arc<Masker>, own: own_metrics::Sources) -> Result<CollectThread, StartError> {
    let interval_ms = duration_ms(config.collect.interval);
    let (spool, lost) = (Arc::clone(&own.spool), Arc::clone(&own.lost_samples));
    let extra: collect::Extra = Box::new(move |batch| own.add(batch));
    let mut collectors = Collectors::new(&config.collect, &collect::Roots::default(), Arc::clone(masker), extra)
        .map_err(|error| StartError::Part(format!("collect: {error}")))?;
    let (stop, stopped) = std_mpsc::channel::<()>();
    let thread = thread::Builder::new().name("collect".to_owned()).spawn(move || {
        let mut last = i64::MIN;
        loop {
            last = tick_time(now_ms(), interval_ms, last);
            let batch = collectors.tick(last);
            if let Err(error) = spool.append_metrics(&batch) {
                // Telemetry of a full disk is best told while it lasts: the count comes with the next tick that fits.
                if lost.fetch_add(batch.samples.len() as u64, Ordering::Relaxed) == 0 {
                    warn!(%error, "samples are lost: the spool does not take them");
                }
            } else {
                debug!(ts_ms = batch.ts_ms, samples = batch.samples.len(), "tick is in the spool");
            }
            let now = now_ms();
            let wait = u64::try_from(interval_ms - now.rem_euclid(interval_ms)).unwrap_or(1_000);
            if !matches!(stopped.recv_timeout(Duration::from_millis(wait)), Err(std_mpsc::RecvTimeoutError::Timeout)) {
                return;
            }
        }
    });
    Ok((stop, thread.map_err(io_error("thread collect"))?))
}

/// The time that a tick's samples get: the multiple of the interval if the tick came within a hundredth of it, so that times
/// stay regular and cost next to nothing to store; never one that was given before.
fn tick_time(now: i64, interval_ms: i64, last: i64) -> i64 {
    let late = now.rem_euclid(interval_ms);
    let nearest = if late * 2 < interval_ms { now - late } else { now - late + interval_ms };
    let near = (now - nearest).abs() <= interval_ms / 100;
    if near && nearest > last { nearest } else { now }
}

/// Where `shipwatch-agent pipe` finds the running agent.
#[must_use]
pub fn pipe_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("pipe.sock")
}

fn start_tail(
    config: &Config,
    masker: &Arc<Masker>,
    positions: Positions,
    spool: Arc<Spool>,
    stop: CancellationToken,
) -> Result<TailThreads, StartError> {
    let restored = positions.restored();
    let mut tailer =
        Tailer::new(config.tail.clone(), masker, restored.clone()).map_err(|error| StartError::Part(format!("tail: {error}")))?;
    let streams = tailer.streams(pipe_socket(Path::new(&config.agent.state_dir)), &restored);
    let (counters, metrics) = (tailer.counters(), tailer.metrics());
    let mut sink = LogSink::new(spool, positions);
    let mut threads = Vec::new();
    if !streams.is_empty() {
        let (sink, stop) = (sink.clone(), stop.clone());
        let run = move || {
            if let Err(error) = streams.run(sink, &stop) {
                error!(%error, "sources beside files are not read");
            }
        };
        threads.push(thread::Builder::new().name("streams".to_owned()).spawn(run).map_err(io_error("thread streams"))?);
    }
    let run = move || tailer.run(&mut sink, &stop);
    threads.push(thread::Builder::new().name("tail".to_owned()).spawn(run).map_err(io_error("thread tail"))?);
    Ok((threads, counters, metrics))
}

/// Makes the state directory, private, and takes its lock.
fn prepare(state_dir: &Path) -> Result<std::fs::File, StartError> {
    use std::os::unix::fs::PermissionsExt as _;
    let shown = state_dir.display().to_string();
    std::fs::create_dir_all(state_dir).map_err(io_error(format!("{shown} (agent.state_dir)")))?;
    std::fs::set_permissions(state_dir, std::fs::Permissions::from_mode(0o700)).map_err(io_error(shown.clone()))?;
    let lock = std::fs::File::create(state_dir.join("lock")).map_err(io_error(shown.clone()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::Busy(shown)),
        Err(std::fs::TryLockError::Error(source)) => Err(io_error(shown)(source)),
    }
}

fn start_deploy(
    state_dir: &Path,
    path: Option<String>,
    policy: policy::Source,
    masker: &Arc<Masker>,
    spool: Arc<Spool>,
) -> Result<Executor, StartError> {
    let mut setup = deploy::Setup::new(state_dir.join("deploy"), policy, Arc::clone(masker)).map_err(io_error("the agent's own path"))?;
    if let Some(path) = path {
        setup.path = path;
    }
    let executor = Executor::open(setup, move |event| spool.append_event(&event))?;
    executor.resume().map_err(|error| StartError::Part(error.to_string()))?;
    Ok(executor)
}

/// Hands commands from the uplink to the executor; ends when told to stop, and gives the executor back.
fn forward(executor: Executor, mut inbox: mpsc::Receiver<Command>, stop: CancellationToken) -> TaskHandle<Executor> {
    tokio::spawn(async move {
        loop {
            let command = tokio::select! {
                command = inbox.recv() => command,
                () = stop.cancelled() => None,
            };
            let Some(command) = command else { return executor };
            let deployment = command.deployment_id.clone();
            if let Err(error) = executor.handle(command) {
                warn!(%error, %deployment, "a command could not be taken; the server sends it again");
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_near_the_grid_are_on_it_and_no_time_comes_twice() {
        for (now, last, expected) in
            [(15_003, 0, 15_000), (14_990, 0, 15_000), (15_151, 0, 15_151), (15_003, 15_000, 15_003), (-15_003, i64::MIN, -15_000)]
        {
            assert_eq!(tick_time(now, 15_000, last), expected, "{now} after {last}");
        }
    }
}
