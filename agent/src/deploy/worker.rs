//! Carries one deployment through, on a thread of its own: ask `plan` what is next, write it down, do it, write down how it
//! went.
//!
//! # Invariants
//! - `Began` is in the journal before an operation has any effect, `Ended` before the next one is decided.
//! - A journal that cannot be written stops the deployment where it is: going on would do things that nobody could take
//!   back after a crash. It goes on when the agent starts anew.
//! - Shutting down ends the worker, not the step that runs.

use super::{
    executor::Context,
    fetch,
    health::{self, Place},
    layout::{Layout, superfluous},
    plan::{self, Next, Op, Which},
    report::Reporter,
    shim::Task,
    state::{Accepted, Record, Release, Run},
    step::{self, FollowError, Found},
    store::{AppStore, StoreError},
    unpack::{self, Limits, UnpackError},
};
use shipwatch_common::{
    model::deploy::{HostState, OnInterrupt, Phase, Step},
    time::now_ms,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Runs of deployments whose release is gone that are kept for looking into.
const RUNS_KEPT: usize = 5;
/// Attempts at a step that is interrupted while the agent lives: whatever kills it may do so each time.
const RERUNS: u32 = 3;

/// Why a worker ended before its deployment.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Halt {
    #[error("the agent is shutting down")]
    Stopped,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an operation came to: a detail for people either way.
type Done = Result<String, String>;

/// What an attempt at a step came to.
enum Stepped {
    Done(Done),
    /// It was interrupted, and its spec permits to run it again.
    Again(String),
}

pub(crate) struct Worker {
    context: Arc<Context>,
    store: Arc<Mutex<AppStore>>,
    abort: CancellationToken,
    layout: Layout,
    report: Reporter,
    accepted: Accepted,
}

/// The lock is held for single reads and writes; what a panic elsewhere left behind is as good as the journal.
pub(crate) fn locked(store: &Mutex<AppStore>) -> MutexGuard<'_, AppStore> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    /// None if there is nothing to do.
    pub(crate) fn new(context: Arc<Context>, store: Arc<Mutex<AppStore>>, abort: CancellationToken) -> Option<Self> {
        let (accepted, root) = {
            let store = locked(&store);
            (store.state().run.as_ref()?.accepted.clone(), store.identity().root.clone())
        };
        let report = context.reporter(&accepted.deployment_id);
        Some(Self { context, store, abort, layout: Layout::new(root), report, accepted })
    }

    /// Until the deployment ends or the agent does. True once the end was handed to the event sink.
    pub(crate) async fn run(mut self, resumed: bool) -> Result<bool, Halt> {
        let run = self.run_state();
        let reason = match &run.turn {
            Some((_, reason)) => reason.clone(),
            None if resumed => "going on after a restart of the agent".to_owned(),
            None => format!("release {}", self.accepted.new.name),
        };
        self.report.state(plan::state(&run), &reason, self.serving());
        loop {
            let next = plan::next(&self.run_state());
            match next {
                Next::Begin { at, op } => self.begin(at, op).await?,
                Next::Resume { seq, op } => self.resume(seq, op).await?,
                Next::Turn(turn, reason) => {
                    self.append(Record::Turned { turn, reason: reason.clone() })?;
                    locked(&self.store).release_reserve();
                    self.report.state(HostState::Reverting, &reason, self.serving());
                }
                Next::End(state, reason) => return self.end(state, &reason),
            }
        }
    }

    fn run_state(&self) -> Run {
        let store = locked(&self.store);
        let empty = || Run { accepted: self.accepted.clone(), aborted: false, turn: None, attempts: Vec::new() };
        store.state().run.clone().unwrap_or_else(empty)
    }

    fn append(&self, record: Record) -> Result<(), StoreError> {
        locked(&self.store).append(record)
    }

    /// Name of the release that `current` points to.
    fn serving(&self) -> Option<String> {
        let dir = self.layout.current().ok().flatten()?;
        let known = [Some(&self.accepted.new), self.accepted.old.as_ref()];
        let name = known.into_iter().flatten().find(|release| release.dir == dir).map(|release| release.name.clone());
        Some(name.unwrap_or(dir))
    }

    async fn begin(&mut self, at: usize, op: Op) -> Result<(), Halt> {
        let run = self.run_state();
        let seq = run.attempts.last().map_or(1, |last| last.seq + 1);
        if matches!(op, Op::Switch(Which::New)) {
            self.report.state(HostState::Switching, &format!("to release {}", self.accepted.new.name), self.serving());
        }
        let mut seq = seq;
        for left in (0..RERUNS).rev() {
            self.append(Record::Began { seq, op: at })?;
            self.report.started(&plan::label(&self.accepted, op));
            let began = Instant::now();
            let done = match op {
                Op::Step(which, step) => match self.step(seq, which, step).await? {
                    Stepped::Done(done) => done,
                    Stepped::Again(why) if left > 0 => {
                        tracing::warn!(why, deployment = self.accepted.deployment_id, "a step was interrupted, running it again");
                        seq += 1;
                        continue;
                    }
                    Stepped::Again(why) => Err(why),
                },
                other => self.built_in(other).await?,
            };
            return self.ended(seq, op, done, began);
        }
        Ok(())
    }

    fn ended(&mut self, seq: u32, op: Op, done: Done, began: Instant) -> Result<(), Halt> {
        let (ok, detail) = match done {
            Ok(detail) => (true, detail),
            Err(detail) => (false, detail),
        };
        // Masked here, since it becomes part of reasons and stays in the journal.
        let detail = self.context.setup.masker.mask(&detail).text.into_owned();
        self.append(Record::Ended { seq, ok, detail: detail.clone() })?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.report.finished(&plan::label(&self.accepted, op), ok, &detail, took_ms);
        Ok(())
    }

    /// Goes on with an attempt that an earlier agent began.
    async fn resume(&mut self, seq: u32, op: Op) -> Result<(), Halt> {
        let began = Instant::now();
        let Op::Step(which, at) = op else {
            // Built-ins can be repeated.
            let done = self.built_in(op).await?;
            return self.ended(seq, op, done, began);
        };
        let Some(step) = self.spec_step(which, at) else {
            return self.ended(seq, op, Err("the step is no longer known".to_owned()), began);
        };
        let dir = self.run_dir(seq, &step);
        let found = match step::inspect(&dir)? {
            Found::Alive => self.follow(&dir, &step, None).await?,
            other => other,
        };
        let done = match found {
            Found::Interrupted(_) if step.on_interrupt == OnInterrupt::Rerun => return self.again(seq, op).await,
            Found::NeverBegan => return self.again(seq, op).await,
            Found::Interrupted(why) | Found::Stuck(why) => Err(why),
            Found::Ended(exit) => outcome(&exit, &step),
            Found::Alive => Err("it is not known how it ended".to_owned()),
        };
        self.ended(seq, op, done, began)
    }

    async fn again(&mut self, seq: u32, op: Op) -> Result<(), Halt> {
        let at = self.run_state().attempts.iter().find(|attempt| attempt.seq == seq).map_or(0, |attempt| attempt.op);
        self.begin(at, op).await
    }

    fn release(&self, which: Which) -> Option<&Release> {
        match which {
            Which::New => Some(&self.accepted.new),
            Which::Old => self.accepted.old.as_ref(),
        }
    }

    fn spec_step(&self, which: Which, at: usize) -> Option<Step> {
        self.release(which)?.spec.as_ref()?.steps.get(at).cloned()
    }

    fn run_dir(&self, seq: u32, step: &Step) -> PathBuf {
        locked(&self.store).runs_dir().join(&self.accepted.deployment_id).join(format!("{seq}-{}", step.id))
    }

    async fn step(&mut self, seq: u32, which: Which, at: usize) -> Result<Stepped, Halt> {
        let (Some(step), Some(release)) = (self.spec_step(which, at), self.release(which).cloned()) else {
            return Ok(Stepped::Done(Err("the step is no longer known".to_owned())));
        };
        let dir = self.run_dir(seq, &step);
        let mut launcher = self.context.launcher();
        let unit = format!("{}-{seq}", short_id(&self.accepted.deployment_id));
        loop {
            let task = Task {
                version: 1,
                run: step.run.clone(),
                cwd: self.layout.release(&release.dir),
                env: self.environment(&release, &step.id, step.phase),
                timeout_ms: u64::try_from(step.timeout.as_millis()).unwrap_or(u64::MAX),
            };
            let launched = step::prepare(&dir, &task)
                .map_err(|error| error.to_string())
                .and_then(|()| step::launch(&launcher, &dir, &unit).map_err(|error| format!("could not start the step: {error}")));
            let found = match launched {
                Ok(child) => self.follow(&dir, &step, Some(child)).await?,
                Err(error) if !launcher.systemd => return Ok(Stepped::Done(Err(error))),
                Err(_) => Found::NeverBegan,
            };
            match found {
                Found::Ended(exit) => return Ok(Stepped::Done(outcome(&exit, &step))),
                Found::Interrupted(why) if step.on_interrupt == OnInterrupt::Rerun => return Ok(Stepped::Again(why)),
                Found::Interrupted(why) | Found::Stuck(why) => return Ok(Stepped::Done(Err(why))),
                // No systemd to talk to after all. The directory is used up, since it says "do not begin".
                Found::NeverBegan if launcher.systemd => {
                    tracing::warn!(complaint = step::complaint(&dir), "systemd-run did not start the step, starting it without");
                    launcher.systemd = false;
                    if let Err(source) = fs::remove_dir_all(&dir) {
                        return Err(StoreError::Io { path: dir, source }.into());
                    }
                }
                Found::NeverBegan | Found::Alive => {
                    return Ok(Stepped::Done(Err(format!("the step was not started: {}", step::complaint(&dir)))));
                }
            }
        }
    }

    async fn follow(&mut self, dir: &Path, step: &Step, child: Option<std::process::Child>) -> Result<Found, Halt> {
        let masker = Arc::clone(&self.context.setup.masker);
        let stop = self.context.stop.clone();
        let report = &mut self.report;
        let followed = step::follow(dir, step.timeout, child, &masker, &stop, |text| report.output(&step.id, text)).await;
        followed.map_err(|error| match error {
            FollowError::Stopped => Halt::Stopped,
            FollowError::Store(error) => Halt::Store(error),
        })
    }

    fn environment(&self, release: &Release, step: &str, phase: Phase) -> BTreeMap<String, String> {
        let setup = &self.context.setup;
        let app = locked(&self.store).identity().app.clone();
        let mut env = BTreeMap::from([("PATH".to_owned(), setup.path.clone()), ("HOME".to_owned(), setup.home.clone())]);
        env.extend(release.spec.iter().flat_map(|spec| spec.env.clone()));
        let event = match phase {
            Phase::Prepare => "AfterInstall",
            Phase::Stop => "ApplicationStop",
            Phase::Start => "ApplicationStart",
            Phase::Finish => "AfterAllowTraffic",
        };
        for (name, value) in [
            ("SHIPWATCH_APP", app.as_str()),
            ("SHIPWATCH_RELEASE", &release.name),
            ("SHIPWATCH_DEPLOYMENT_ID", &self.accepted.deployment_id),
            ("SHIPWATCH_RELEASE_DIR", &self.layout.release(&release.dir).to_string_lossy()),
            ("SHIPWATCH_ROOT", &self.layout.root().to_string_lossy()),
            ("SHIPWATCH_STEP", step),
            ("LIFECYCLE_EVENT", if step == "health" { "ValidateService" } else { event }),
            ("DEPLOYMENT_ID", &self.accepted.deployment_id),
            ("APPLICATION_NAME", &app),
        ] {
            env.insert(name.to_owned(), value.to_owned());
        }
        env
    }

    async fn built_in(&mut self, op: Op) -> Result<Done, Halt> {
        match op {
            Op::Fetch => self.fetch().await,
            Op::Unpack => self.unpack(),
            Op::Switch(which) => {
                let dir = self.release(which).map(|release| release.dir.clone());
                let done = self.layout.switch(dir.as_deref()).map_err(|error| error.to_string());
                Ok(done.map(|()| dir.map_or_else(|| "current was removed".to_owned(), |dir| format!("current is {dir}"))))
            }
            Op::Health(which) => self.health(which).await,
            Op::Remove => {
                let removed = [self.layout.staging(&self.accepted.deployment_id), self.layout.release(&self.accepted.new.dir)]
                    .iter()
                    .try_for_each(|path| self.layout.remove(path))
                    .and_then(|()| locked(&self.store).forget_release(&self.accepted.new.dir));
                Ok(removed.map(|()| "the new release was removed".to_owned()).map_err(|error| error.to_string()))
            }
            Op::Step(..) => Ok(Err("is no built-in".to_owned())),
        }
    }

    /// Waits for `work`, unless the agent stops or the deployment is aborted on its way forward.
    async fn unless_stopped(&self, work: impl Future<Output = Done>) -> Result<Done, Halt> {
        let abort = self.abort.clone();
        let forward = self.run_state().turn.is_none();
        tokio::select! {
            done = work => Ok(done),
            () = self.context.stop.cancelled() => Err(Halt::Stopped),
            () = abort.cancelled(), if forward => Ok(Err("aborted on request".to_owned())),
        }
    }

    async fn fetch(&self) -> Result<Done, Halt> {
        let Some(spec) = &self.accepted.new.spec else { return Ok(Err("the release has no spec".to_owned())) };
        // Asked again: the policy may have changed since the command, and nothing has been touched yet.
        let (policy, _) = self.context.setup.policy.read();
        let work = self.context.cache.fetch(&spec.artifact, &self.accepted.deployment_id, &policy);
        self.unless_stopped(async { work.await.map_err(|error| error.to_string()) }).await
    }

    fn unpack(&self) -> Result<Done, Halt> {
        let Some(spec) = &self.accepted.new.spec else { return Ok(Err("the release has no spec".to_owned())) };
        let new = &self.accepted.new;
        if self.layout.release(&new.dir).try_exists().unwrap_or(false) {
            // Checked when the command was accepted, so it is this deployment's own, published just before a crash.
            return Ok(Ok("was unpacked before".to_owned()));
        }
        let staging = self.layout.staging(&self.accepted.deployment_id);
        let (policy, _) = self.context.setup.policy.read();
        let limits = Limits { max_unpacked_bytes: policy.deploy.max_unpacked_bytes, max_entries: policy.deploy.max_entries };
        let archive = self.context.cache.path(&spec.artifact.sha256);
        let unpacked = (|| {
            fetch::verify(&archive, &spec.artifact.sha256).map_err(|error| error.to_string())?;
            self.layout.prepare().and_then(|()| self.layout.remove(&staging)).map_err(|error| error.to_string())?;
            let unpacked = unpack::unpack(&archive, &staging, limits, &self.context.stop);
            let unpacked = match unpacked {
                Err(UnpackError::Stopped) => return Ok(None),
                other => other.map_err(|error| error.to_string())?,
            };
            locked(&self.store).save_release(new).map_err(|error| error.to_string())?;
            self.layout.publish(&staging, &new.dir).map_err(|error| error.to_string())?;
            Ok(Some(format!("{} entries, {} bytes", unpacked.entries, unpacked.bytes)))
        })();
        match unpacked {
            Ok(Some(detail)) => Ok(Ok(detail)),
            Ok(None) => Err(Halt::Stopped),
            Err(error) => {
                // At once: it may be what fills the disk.
                if let Err(error) = self.layout.remove(&staging) {
                    tracing::warn!(%error, path = %staging.display(), "could not remove a partly unpacked release");
                }
                Ok(Err(error))
            }
        }
    }

    async fn health(&mut self, which: Which) -> Result<Done, Halt> {
        let Some(release) = self.release(which).cloned() else { return Ok(Ok("nothing to check".to_owned())) };
        let checks = release.spec.as_ref().map_or(&[][..], |spec| &spec.health);
        let env = self.environment(&release, "health", Phase::Start);
        let cwd = self.layout.release(&release.dir);
        let output = locked(&self.store).runs_dir().with_file_name("health.out");
        let masker = Arc::clone(&self.context.setup.masker);
        let place = Place { cwd: &cwd, env: &env, output: &output, masker: &masker };
        self.unless_stopped(health::check(checks, place)).await
    }

    fn end(&mut self, state: HostState, reason: &str) -> Result<bool, Halt> {
        let reason = self.context.setup.masker.mask(reason).text.into_owned();
        let release = self.serving();
        self.append(Record::Outcome { state, reason: reason.clone(), release: release.clone(), at_ms: now_ms() })?;
        tracing::info!(deployment = self.accepted.deployment_id, ?state, reason, "deployment ended");
        let reported = self.report.state(state, &reason, release);
        if reported {
            self.append(Record::Reported { deployment_id: self.accepted.deployment_id.clone() })?;
        }
        if let Err(error) = self.clean_up() {
            tracing::warn!(%error, root = %self.layout.root().display(), "could not clean up old releases");
        }
        let compacted = locked(&self.store).compact();
        match compacted {
            Err(error @ StoreError::Journal(super::journal::JournalError::Crashed)) => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "could not shorten the deploy journal, it stays as it is"),
            Ok(()) => {}
        }
        Ok(reported)
    }

    /// Removes releases, leftovers and runs that nobody needs. Nothing else runs for this app now.
    fn clean_up(&self) -> Result<(), StoreError> {
        let io = |source| StoreError::Io { path: self.layout.root().to_path_buf(), source };
        let keep = self.accepted.new.spec.as_ref().map_or(5, |spec| spec.keep.releases as usize);
        let current = self.layout.current().map_err(io)?;
        let mut ours = Vec::new();
        for name in self.layout.names().map_err(io)? {
            if name.starts_with(".tmp-") {
                self.layout.remove(&self.layout.staging(name.trim_start_matches(".tmp-"))).map_err(io)?;
            } else if let Some(release) = locked(&self.store).load_release(&name)? {
                let unpacked =
                    fs::symlink_metadata(self.layout.release(&name)).and_then(|meta| meta.created().or_else(|_| meta.modified()));
                ours.push((unpacked.map_err(io)?, release));
            }
        }
        ours.sort_by(|left, right| (left.0, &left.1.dir).cmp(&(right.0, &right.1.dir)));
        let store = locked(&self.store);
        let newest_good = store.state().good.iter().rev().take(2).map(|good| good.dir.clone());
        let pinned: BTreeSet<String> = newest_good.chain(current).collect();
        let dirs: Vec<String> = ours.iter().map(|(_, release)| release.dir.clone()).collect();
        let remove = superfluous(&dirs, keep, &pinned);
        for dir in &remove {
            self.layout.remove(&self.layout.release(dir)).and_then(|()| store.forget_release(dir)).map_err(io)?;
        }
        let kept = ours.iter().filter(|(_, release)| !remove.contains(&release.dir)).map(|(_, release)| release.deployment_id.clone());
        let recent = store.state().past.iter().rev().take(RUNS_KEPT).map(|past| past.deployment_id.clone());
        let wanted: BTreeSet<String> = kept.chain(recent).collect();
        remove_other_runs(&store.runs_dir(), &wanted).map_err(io)
    }
}

fn remove_other_runs(runs: &Path, wanted: &BTreeSet<String>) -> std::io::Result<()> {
    let entries = match fs::read_dir(runs) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if !wanted.contains(entry.file_name().to_string_lossy().as_ref()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn outcome(exit: &super::shim::Exit, step: &Step) -> Done {
    let text = exit.describe(step.timeout);
    if exit.ok() { Ok(text) } else { Err(text) }
}

/// The last eight characters of an id: the random ones in a UUID of version 7, whose first ones are the time.
pub(crate) fn short_id(deployment_id: &str) -> String {
    let plain: Vec<char> = deployment_id.chars().filter(char::is_ascii_alphanumeric).collect();
    plain.iter().skip(plain.len().saturating_sub(8)).collect()
}
