//! Decides what commands are carried out, and owns the workers.
//!
//! # Invariants
//! - One deployment at a time per app and per root; apps do not wait for each other.
//! - A command is carried out at most once: duplicates are answered from the journal, also those of refused commands.
//! - A command with a smaller epoch than one accepted before is refused.
//! - What was accepted is carried to its end even if the policy changes meanwhile, but for the fetch: a half-done deployment
//!   would be worse.

use super::{
    executor::{Context, Message, QUEUE},
    layout::Layout,
    plan, shim,
    state::{Accepted, Kind, Past, Record, Release},
    store::{self, AppStore, Identity},
    worker::{self, Halt, Worker, locked},
};
use crate::policy;
use shipwatch_common::{
    model::deploy::{Action, Command, HostState, Spec},
    time::now_ms,
};
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often ends that could not be told are tried again, and old output files are looked at.
const TICK: Duration = Duration::from_secs(10);

/// A deployment under way.
struct Running {
    store: Arc<Mutex<AppStore>>,
    abort: CancellationToken,
    deployment_id: String,
    identity: Identity,
}

/// The executor's thread: sole owner of what is running.
pub(crate) struct Manager {
    context: Arc<Context>,
    sender: SyncSender<Message>,
    running: HashMap<String, Running>,
    unreported: BTreeSet<String>,
    /// Commands for apps whose last deployment has ended but still cleans up.
    deferred: Vec<(Command, bool)>,
}

/// Why a command is answered with `Refused`. Remembered ones are answered the same way when repeated.
struct Refused {
    reason: String,
}

fn refused(reason: impl Into<String>) -> Refused {
    Refused { reason: reason.into() }
}

impl Manager {
    pub(crate) fn new(context: Arc<Context>, sender: SyncSender<Message>) -> Self {
        Self { context, sender, running: HashMap::new(), unreported: BTreeSet::new(), deferred: Vec::new() }
    }

    pub(crate) fn run(mut self, receiver: &Receiver<Message>, ended: &Sender<()>) {
        let mut until = None;
        loop {
            if until.is_some_and(|until| self.running.is_empty() || Instant::now() >= until) {
                break;
            }
            match receiver.recv_timeout(TICK) {
                Ok(Message::Command { command, local }) if until.is_none() => self.command(&command, local),
                Ok(Message::Command { .. }) => {}
                Ok(Message::Resume) => self.resume(),
                Ok(Message::Done { key, reported }) => {
                    self.running.remove(&key);
                    if !reported {
                        self.unreported.insert(key);
                    }
                    if self.running.is_empty() {
                        self.context.cache.tidy(&BTreeSet::new());
                    }
                    for (command, local) in std::mem::take(&mut self.deferred) {
                        self.command(&command, local);
                    }
                }
                Ok(Message::Stop { until: at }) => until = Some(at),
                Err(RecvTimeoutError::Timeout) if self.context.stop.is_cancelled() => break,
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // Nobody listens if the handle was dropped.
        if ended.send(()).is_err() {
            tracing::debug!("deploy executor ended by itself");
        }
    }

    /// Carries a command out, answers it from the journal, or refuses it.
    fn command(&mut self, command: &Command, local: bool) {
        tracing::info!(deployment = command.deployment_id, epoch = command.epoch, "deploy command");
        if let Err(Refused { reason }) = self.consider(command, local) {
            tracing::warn!(deployment = command.deployment_id, reason, "deploy command refused");
            let id: String = command.deployment_id.chars().take(64).collect();
            self.context.reporter(&id).state(HostState::Refused, &reason, None);
        }
    }

    fn consider(&mut self, command: &Command, local: bool) -> Result<(), Refused> {
        let problems = command.problems();
        if !problems.is_empty() {
            return Err(refused(format!("the command has mistakes: {}", problems.join("; "))));
        }
        let (policy, warning) = self.context.setup.policy.read();
        if let Some(warning) = warning {
            tracing::warn!(warning, "policy is not in force");
        }
        let euid = rustix::process::geteuid().as_raw();
        policy.allows(command, euid, &policy::resolve_existing).map_err(|refusal| refused(refusal.to_string()))?;
        let (app, root) = match &command.action {
            Action::Abort => return self.abort(command, local),
            Action::Deploy(spec) => (&spec.app, &spec.root),
            Action::Rollback { app, root } => (app, root),
        };
        let root = policy::resolve_existing(Path::new(root)).map_err(|error| refused(format!("root {root}: {error}")))?;
        let identity = Identity { app: app.clone(), root };
        let key = identity.key();
        let in_the_way = |other: &&Running| other.identity.app == identity.app || overlap(&other.identity, &identity);
        if let Some(other) = self.running.get(&key).or_else(|| self.running.values().find(in_the_way)) {
            let ended = locked(&other.store).state().run.is_none();
            if ended && self.deferred.len() < QUEUE {
                // Its end was told, so the server may well send the next command, but its worker still cleans up.
                self.deferred.push((command.clone(), local));
                return Ok(());
            }
            if other.identity == identity {
                return self.while_running(other, command, local);
            }
            return Err(refused(format!("deployment {} of app {} is under way", other.deployment_id, other.identity.app)));
        }
        self.check_root(&identity)?;
        let store = AppStore::open(&self.context.setup.state_dir, identity, self.context.setup.crash.clone());
        let mut store = store.map_err(|error| refused(error.to_string()))?;
        if store.state().run.is_some() {
            // Left by a worker that could not write its journal.
            self.spawn(store, true)?;
            return self.running.get(&key).map_or(Ok(()), |running| self.while_running(running, command, local));
        }
        if self.answer(&mut store, command)? {
            return Ok(());
        }
        self.fence(&mut store, command, local)?;
        let accepted = match &command.action {
            Action::Deploy(spec) => deploy(&store, command, spec),
            _ => rollback(&store, command),
        };
        let accepted = match accepted {
            Ok(Some(accepted)) => accepted,
            Ok(None) => return self.report_past(&mut store, &command.deployment_id),
            Err(refusal) => return Err(self.remember(&mut store, command, refusal)),
        };
        if accepted.kind == Kind::Deploy {
            if let Err(error) = store.reserve() {
                return Err(self.remember(&mut store, command, refused(format!("no disk space is left for a deployment: {error}"))));
            }
        } else {
            // Going back may be how somebody makes space: it begins with what was put aside for it.
            store.release_reserve();
        }
        store.append(Record::Accepted(Box::new(accepted))).map_err(|error| refused(error.to_string()))?;
        self.spawn(store, false)
    }

    /// A command for an app that is being deployed.
    fn while_running(&self, running: &Running, command: &Command, local: bool) -> Result<(), Refused> {
        let mut store = locked(&running.store);
        let rollback = matches!(command.action, Action::Rollback { .. });
        if command.deployment_id == running.deployment_id && !rollback {
            let state = store.state().run.as_ref().map(plan::state);
            return match state {
                Some(state) => {
                    self.context.reporter(&command.deployment_id).state(state, "is under way", None);
                    Ok(())
                }
                None => self.report_past(&mut store, &command.deployment_id),
            };
        }
        if self.answer(&mut store, command)? {
            return Ok(());
        }
        self.fence(&mut store, command, local)?;
        if command.deployment_id == running.deployment_id && rollback {
            // Taking back what is under way is aborting it.
            return abort_running(&mut store, &running.abort, command.epoch);
        }
        let reason = format!("deployment {} of this app is under way", running.deployment_id);
        Err(self.remember(&mut store, command, refused(reason)))
    }

    fn abort(&self, command: &Command, local: bool) -> Result<(), Refused> {
        if let Some(running) = self.running.values().find(|running| running.deployment_id == command.deployment_id) {
            let mut store = locked(&running.store);
            if !local && command.epoch < store.state().epoch {
                return Err(refused(stale(command.epoch, store.state().epoch)));
            }
            return abort_running(&mut store, &running.abort, command.epoch);
        }
        for dir in self.app_dirs() {
            let Ok(mut store) = AppStore::open_dir(&dir, self.context.setup.crash.clone()) else { continue };
            if store.state().past(&command.deployment_id, false).is_some() {
                return self.report_past(&mut store, &command.deployment_id);
            }
        }
        Err(refused("this host does not know the deployment"))
    }

    /// Whether the command was answered, being a duplicate.
    fn answer(&self, store: &mut AppStore, command: &Command) -> Result<bool, Refused> {
        let rollback = matches!(command.action, Action::Rollback { .. });
        if store.state().past(&command.deployment_id, rollback).is_none() {
            return Ok(false);
        }
        self.report_past(store, &command.deployment_id).map(|()| true)
    }

    fn report_past(&self, store: &mut AppStore, deployment_id: &str) -> Result<(), Refused> {
        let Some(past) = store.state().past(deployment_id, false).cloned() else { return Ok(()) };
        let told = self.context.reporter(deployment_id).state(past.state, &past.reason, past.release);
        if told && !past.reported {
            let record = Record::Reported { deployment_id: deployment_id.to_owned() };
            store.append(record).map_err(|error| refused(error.to_string()))?;
        }
        Ok(())
    }

    fn fence(&self, store: &mut AppStore, command: &Command, local: bool) -> Result<(), Refused> {
        let seen = store.state().epoch;
        if local || command.epoch >= seen {
            return Ok(());
        }
        Err(self.remember(store, command, refused(stale(command.epoch, seen))))
    }

    /// Keeps a refusal, so that the same command is not carried out when it is repeated later.
    fn remember(&self, store: &mut AppStore, command: &Command, refusal: Refused) -> Refused {
        let past = Past {
            deployment_id: command.deployment_id.clone(),
            rollback: matches!(command.action, Action::Rollback { .. }),
            state: HostState::Refused,
            reason: refusal.reason.clone(),
            release: None,
            at_ms: now_ms(),
            reported: true,
        };
        let kept = store.append(Record::Refused(past)).and_then(|()| store.compact());
        if let Err(error) = kept {
            tracing::warn!(%error, deployment = command.deployment_id, "could not keep a refusal in the journal");
        }
        refusal
    }

    /// Two apps in one directory would remove each other's releases.
    fn check_root(&self, identity: &Identity) -> Result<(), Refused> {
        for dir in self.app_dirs() {
            let Ok(other) = store::read_json::<Identity>(&dir.join("identity.json")) else { continue };
            let in_use = Layout::new(other.root.clone()).current().is_ok_and(|current| current.is_some());
            if other != *identity && overlap(&other, identity) && in_use {
                return Err(refused(format!("root {} belongs to app {} at {}", identity.root.display(), other.app, other.root.display())));
            }
        }
        Ok(())
    }

    fn app_dirs(&self) -> Vec<PathBuf> {
        let entries = match fs::read_dir(self.context.setup.state_dir.join("apps")) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, "could not list the apps of this host");
                return Vec::new();
            }
        };
        let mut dirs: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        dirs.sort();
        dirs
    }

    fn resume(&mut self) {
        for dir in self.app_dirs() {
            match AppStore::open_dir(&dir, self.context.setup.crash.clone()) {
                Ok(store) if store.state().run.is_some() => {
                    if let Err(Refused { reason }) = self.spawn(store, true) {
                        tracing::error!(reason, dir = %dir.display(), "could not go on with a deployment");
                    }
                }
                Ok(mut store) => {
                    if !self.tell_ends(&mut store) {
                        self.unreported.insert(store.identity().key());
                    }
                }
                Err(error) => tracing::error!(%error, dir = %dir.display(), "could not read the deploy records of an app"),
            }
        }
    }

    fn tell_ends(&self, store: &mut AppStore) -> bool {
        let ends: Vec<String> = store.state().past.iter().filter(|past| !past.reported).map(|past| past.deployment_id.clone()).collect();
        ends.iter().all(|id| match self.report_past(store, id) {
            Ok(()) => store.state().past(id, false).is_some_and(|past| past.reported),
            Err(Refused { reason }) => {
                tracing::warn!(reason, deployment = id, "could not tell the end of a deployment");
                false
            }
        })
    }

    fn tick(&mut self) {
        let apps = self.context.setup.state_dir.join("apps");
        let waiting = std::mem::take(&mut self.unreported);
        for key in waiting.into_iter().filter(|key| !self.running.contains_key(key)) {
            let told = AppStore::open_dir(&apps.join(&key), None).is_ok_and(|mut store| {
                // A run is left if the journal could not be written: it goes on at the next command or start.
                store.state().run.is_some() || self.tell_ends(&mut store)
            });
            if !told {
                self.unreported.insert(key);
            }
        }
        for dir in self.app_dirs() {
            bound_outputs(&dir.join("runs"));
        }
    }

    fn spawn(&mut self, store: AppStore, resumed: bool) -> Result<(), Refused> {
        let Some(run) = &store.state().run else { return Ok(()) };
        let deployment_id = run.accepted.deployment_id.clone();
        let abort = CancellationToken::new();
        if run.aborted {
            abort.cancel();
        }
        let identity = store.identity().clone();
        let key = identity.key();
        let store = Arc::new(Mutex::new(store));
        let Some(worker) = Worker::new(Arc::clone(&self.context), Arc::clone(&store), abort.clone()) else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| refused(format!("could not start the deployment: {error}")))?;
        let mut guard = DoneGuard { sender: self.sender.clone(), key: key.clone(), reported: false };
        self.running.insert(key.clone(), Running { store, abort, deployment_id: deployment_id.clone(), identity });
        let spawned = thread::Builder::new().name("deploy-app".to_owned()).spawn(move || match runtime.block_on(worker.run(resumed)) {
            Ok(reported) => guard.tell(reported),
            Err(Halt::Stopped) => tracing::info!(deployment = deployment_id, "deployment goes on at the next start"),
            Err(Halt::Store(error)) => {
                tracing::error!(%error, deployment = deployment_id, "deployment stands still until the agent starts anew");
            }
        });
        if let Err(error) = spawned {
            self.running.remove(&key);
            return Err(refused(format!("could not start the deployment: {error}")));
        }
        Ok(())
    }
}

/// Tells the manager that a worker's thread is over, however it ended.
struct DoneGuard {
    sender: SyncSender<Message>,
    key: String,
    reported: bool,
}

impl DoneGuard {
    /// A method, so that the thread's closure takes the whole guard along.
    const fn tell(&mut self, reported: bool) {
        self.reported = reported;
    }
}

impl Drop for DoneGuard {
    fn drop(&mut self) {
        let message = Message::Done { key: std::mem::take(&mut self.key), reported: self.reported };
        if self.sender.send(message).is_err() {
            tracing::debug!("the executor ended before its worker");
        }
    }
}

fn stale(epoch: u64, seen: u64) -> String {
    format!("the command's epoch {epoch} is older than {seen}, which this host has seen: another server or an old message")
}

fn overlap(left: &Identity, right: &Identity) -> bool {
    left.root.starts_with(&right.root) || right.root.starts_with(&left.root)
}

fn abort_running(store: &mut AppStore, abort: &CancellationToken, epoch: u64) -> Result<(), Refused> {
    store.append(Record::Aborted { epoch }).map_err(|error| refused(error.to_string()))?;
    abort.cancel();
    Ok(())
}

/// The release that serves, with what is known of it.
fn current_release(store: &AppStore) -> Result<Option<Release>, Refused> {
    let layout = Layout::new(store.identity().root.clone());
    let Some(dir) = layout.current().map_err(|error| refused(error.to_string()))? else { return Ok(None) };
    let known = store.load_release(&dir).map_err(|error| refused(error.to_string()))?;
    Ok(Some(known.unwrap_or_else(|| Release { name: dir.clone(), dir, deployment_id: String::new(), spec: None })))
}

fn deploy(store: &AppStore, command: &Command, spec: &Spec) -> Result<Option<Accepted>, Refused> {
    let old = current_release(store)?;
    let dir = format!("{}-{}", spec.release, worker::short_id(&command.deployment_id));
    let layout = Layout::new(store.identity().root.clone());
    if layout.names().map_err(|error| refused(error.to_string()))?.contains(&dir) {
        return Err(refused(format!("{} is there already", layout.release(&dir).display())));
    }
    let new = Release { dir, name: spec.release.clone(), deployment_id: command.deployment_id.clone(), spec: Some(spec.clone()) };
    Ok(Some(accepted(store, command, Kind::Deploy, new, old)))
}

/// None if the deployment to take back does not serve, so there is nothing to do but to tell its state.
fn rollback(store: &AppStore, command: &Command) -> Result<Option<Accepted>, Refused> {
    let state = store.state();
    let Some(current) = current_release(store)? else { return Err(refused("no release serves on this host")) };
    let of_deployment = state.past(&command.deployment_id, false).is_some();
    if of_deployment && current.deployment_id != command.deployment_id {
        return Ok(None);
    }
    let layout = Layout::new(store.identity().root.clone());
    let mut target = None;
    for good in state.before(Some(&current.dir)) {
        if layout.release(&good.dir).try_exists().unwrap_or(false) {
            target = store.load_release(&good.dir).map_err(|error| refused(error.to_string()))?;
            if target.is_some() {
                break;
            }
        }
    }
    if target.is_none() && !of_deployment {
        return Err(refused("no good release from before the current one is kept on this host"));
    }
    let kind = if of_deployment { Kind::TakeBack } else { Kind::Rollback };
    Ok(Some(accepted(store, command, kind, current, target)))
}

fn accepted(store: &AppStore, command: &Command, kind: Kind, new: Release, old: Option<Release>) -> Accepted {
    let epoch = command.epoch.max(store.state().epoch);
    Accepted { deployment_id: command.deployment_id.clone(), epoch, at_ms: now_ms(), kind, new, old }
}

/// A daemon may hold a step's output file open for long after the step; this keeps the file from filling the disk.
fn bound_outputs(runs: &Path) {
    let list = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(dir).map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect()).unwrap_or_default()
    };
    for attempt in list(runs).iter().flat_map(|run| list(run)) {
        if let Ok(file) = fs::OpenOptions::new().append(true).open(attempt.join("output")) {
            shim::bound_output(&file);
        }
    }
}
