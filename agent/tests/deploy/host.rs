//! One host in a temporary directory: its executor, its apps, what it reported.

use shipwatch_agent::{
    deploy::{CrashPoint, Executor, Setup},
    policy::{Deploy, Policy, Source},
};
use shipwatch_common::{
    mask::Masker,
    model::deploy::{Action, Artifact, Command, Event, EventKind, Health, HostState, Keep, OnInterrupt, Phase, Spec, Step},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Far longer than anything takes; only a test that fails gets there.
const PATIENCE: Duration = Duration::from_secs(40);

/// Events in the order they came.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<(Mutex<Vec<Event>>, Condvar)>);

impl Log {
    pub(crate) fn push(&self, event: Event) {
        self.0.0.lock().unwrap().push(event);
        self.0.1.notify_all();
    }

    pub(crate) fn all(&self, id: &str) -> Vec<EventKind> {
        self.0.0.lock().unwrap().iter().filter(|event| event.deployment_id == id).map(|event| event.kind.clone()).collect()
    }

    /// Waits until an event of the deployment gives a value.
    #[track_caller]
    pub(crate) fn wait<T>(&self, id: &str, pick: impl Fn(&EventKind) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut events = self.0.0.lock().unwrap();
        loop {
            if let Some(found) = events.iter().filter(|event| event.deployment_id == id).find_map(|event| pick(&event.kind)) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain; events: {events:#?}");
            events = self.0.1.wait_timeout(events, left).unwrap().0;
        }
    }

    #[track_caller]
    pub(crate) fn end(&self, id: &str) -> (HostState, String) {
        self.wait(id, |kind| match kind {
            EventKind::State { state, reason, .. } if state.is_end() => Some((*state, reason.clone())),
            _ => None,
        })
    }

    #[track_caller]
    pub(crate) fn step_started(&self, id: &str, wanted: &str) {
        self.wait(id, |kind| matches!(kind, EventKind::StepStarted { step } if step == wanted).then_some(()));
    }

    pub(crate) fn output(&self, id: &str) -> String {
        let text = |kind| match kind {
            EventKind::Output { text, .. } => Some(text),
            _ => None,
        };
        self.all(id).into_iter().filter_map(text).collect()
    }

    pub(crate) fn states(&self, id: &str) -> Vec<HostState> {
        let state = |kind| match kind {
            EventKind::State { state, .. } => Some(state),
            _ => None,
        };
        self.all(id).into_iter().filter_map(state).collect()
    }
}

pub(crate) struct Host {
    pub(crate) base: PathBuf,
    epoch: AtomicU64,
    _dir: Option<tempfile::TempDir>,
}

impl Host {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        Self { _dir: Some(dir), ..Self::at(&base) }
    }

    /// In a directory that somebody else removes.
    pub(crate) fn at(base: &Path) -> Self {
        Self { base: base.to_path_buf(), epoch: AtomicU64::new(1), _dir: None }
    }

    pub(crate) fn policy(&self) -> Policy {
        let deploy = Deploy {
            enabled: true,
            allow_root: true,
            roots: vec![self.base.join("srv").to_str().unwrap().to_owned()],
            artifact_urls: vec![format!("file://{}/", self.base.join("artifacts").display())],
            max_artifact_bytes: 64 << 20,
            max_unpacked_bytes: 64 << 20,
            max_entries: 1000,
            ..Deploy::default()
        };
        Policy { deploy }
    }

    pub(crate) fn setup(&self) -> Setup {
        let masker = Arc::new(Masker::new(&Default::default()).unwrap());
        let mut setup = Setup::new(self.base.join("state"), Source::Fixed(Box::new(self.policy())), masker).unwrap();
        setup.shim = vec![env!("CARGO_BIN_EXE_shipwatch-agent").into(), "step-shim".into()];
        setup.systemd = false;
        setup
    }

    pub(crate) fn open(&self) -> (Executor, Log) {
        self.open_with(|_| {})
    }

    pub(crate) fn open_with(&self, change: impl FnOnce(&mut Setup)) -> (Executor, Log) {
        let log = Log::default();
        let mut setup = self.setup();
        change(&mut setup);
        let events = log.clone();
        let executor = Executor::open(setup, move |event| {
            events.push(event);
            Ok::<_, std::io::Error>(())
        });
        (executor.unwrap(), log)
    }

    /// Stops at the `n`-th crash point and does nothing to the journal from then on.
    pub(crate) fn crash_at(n: u64) -> CrashPoint {
        let count = AtomicU64::new(0);
        Arc::new(move || count.fetch_add(1, Ordering::SeqCst) >= n)
    }

    pub(crate) fn root(&self, app: &str) -> PathBuf {
        self.base.join("srv").join(app)
    }

    /// Name of the release directory that `current` points to.
    pub(crate) fn current(&self, app: &str) -> Option<String> {
        let target = fs::read_link(self.root(app).join("current")).ok()?;
        Some(target.file_name().unwrap().to_str().unwrap().to_owned())
    }

    /// Name of the release that `current` points to, read from its own content.
    pub(crate) fn serves(&self, app: &str) -> Option<String> {
        self.current(app).map(|_| fs::read_to_string(self.root(app).join("current/name")).unwrap())
    }

    /// What the steps wrote, in order.
    pub(crate) fn trace(&self, app: &str) -> String {
        fs::read_to_string(self.root(app).join("shared/trace")).unwrap_or_default().trim().replace('\n', " ")
    }

    pub(crate) fn clear_trace(&self, app: &str) {
        fs::write(self.root(app).join("shared/trace"), "").unwrap();
    }

    pub(crate) fn write_artifact(&self, name: &str, bytes: &[u8]) -> Artifact {
        use sha2::Digest as _;
        let path = self.base.join("artifacts").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let sha256 = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Artifact { url: format!("file://{}", path.display()), sha256 }
    }

    fn artifact(&self, app: &str, release: &str) -> Artifact {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(release.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, "name", release.as_bytes()).unwrap();
        self.write_artifact(&format!("{app}-{release}.tar"), &builder.into_inner().unwrap())
    }

    /// A spec whose steps write their name and release to `shared/trace`. It is healthy unless the name has `bad` in it.
    pub(crate) fn spec(&self, app: &str, release: &str) -> Spec {
        let phases = [("prepare", Phase::Prepare), ("stop", Phase::Stop), ("start", Phase::Start), ("finish", Phase::Finish)];
        Spec {
            version: 1,
            app: app.to_owned(),
            release: release.to_owned(),
            artifact: self.artifact(app, release),
            root: self.root(app).to_str().unwrap().to_owned(),
            steps: phases.map(|(id, phase)| step(id, phase, "")).into(),
            health: vec![Health {
                http: None,
                contains: None,
                tcp: None,
                exec: Some("case $(cat name) in *bad*) echo it is bad; exit 1;; esac".to_owned()),
                interval: Duration::from_millis(20),
                timeout: Duration::from_secs(5),
                pass: 1,
                deadline: Duration::from_millis(if release.contains("bad") { 100 } else { 10_000 }),
            }],
            keep: Keep::default(),
            env: [("COLOUR".to_owned(), "green".to_owned())].into(),
        }
    }

    pub(crate) fn deploy(&self, spec: Spec) -> Command {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst);
        let deployment_id = format!("deployment-{epoch:08}-{}", spec.release.replace(['.', '_'], "-"));
        Command { deployment_id, epoch, action: Action::Deploy(Box::new(spec)) }
    }

    pub(crate) fn rollback(&self, app: &str, deployment_id: &str) -> Command {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst);
        let action = Action::Rollback { app: app.to_owned(), root: self.root(app).to_str().unwrap().to_owned() };
        Command { deployment_id: deployment_id.to_owned(), epoch, action }
    }

    pub(crate) fn abort(&self, deployment_id: &str) -> Command {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst);
        Command { deployment_id: deployment_id.to_owned(), epoch, action: Action::Abort }
    }

    /// Deploys and waits for the end; the executor is gone afterwards.
    #[track_caller]
    pub(crate) fn deploy_now(&self, spec: Spec) -> (HostState, String) {
        let (executor, log) = self.open();
        let command = self.deploy(spec);
        executor.handle(command.clone()).unwrap();
        let end = log.end(&command.deployment_id);
        close(executor);
        end
    }
}

#[track_caller]
pub(crate) fn close(executor: Executor) {
    assert!(executor.shutdown(PATIENCE), "a worker did not stop");
}

/// A step that writes its trace and then runs `more`.
pub(crate) fn step(id: &str, phase: Phase, more: &str) -> Step {
    let run = format!("echo $SHIPWATCH_STEP:$SHIPWATCH_RELEASE >> $SHIPWATCH_ROOT/shared/trace\n{more}");
    Step { id: id.to_owned(), phase, run, timeout: Duration::from_secs(30), on_interrupt: OnInterrupt::Fail }
}

/// Waits for a file that a step makes.
#[track_caller]
pub(crate) fn wait_for_file(path: &Path) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => assert!(Instant::now() < until, "{} did not appear", path.display()),
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub(crate) fn kill(pid: &str) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
