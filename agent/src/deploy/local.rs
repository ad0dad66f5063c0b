//! `shipwatch-agent deploy --local DIR`: the same deployment without a server.
//!
//! `DIR` holds `deploy.yml` and the artifact: `artifact.url` names an archive or a directory in `DIR` (`app-v1.tar.gz`,
//! `app/`), or a URL. A directory is packed first; for it `sha256` is left empty, for an archive it may be.
//!
//! # Invariants
//! - The host's policy holds here as well; only fetching from `DIR` itself needs no permission, since the person who runs
//!   the command could copy the file anyway.

use super::{
    executor::{Executor, HandleError, OpenError, Setup},
    fetch, spec, store,
};
use crate::policy::Source;
use sha2::{Digest as _, Sha256};
use shipwatch_common::model::deploy::{Action, Command, Event, EventKind, HostState, Spec};
use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

/// Longer than any deployment: each of its parts has a bound of its own.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Why a local deployment could not be run. How one ended is its [`HostState`].
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A file of the directory.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What was reported.
        source: io::Error,
    },
    /// `deploy.yml`.
    #[error("{path}: {source}")]
    Spec {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: spec::SpecError,
    },
    /// The executor.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The executor.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// It ended without telling how.
    #[error("the deployment stood still; see the log, then run it again to go on")]
    Lost,
}

/// Deploys from `dir` and tells every event to `progress`. Blocks until the end, which it returns with its reason.
///
/// # Errors
/// See [`LocalError`].
pub fn run(dir: &Path, mut setup: Setup, mut progress: impl FnMut(&Event)) -> Result<(HostState, String), LocalError> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |source| LocalError::Io { path, source }
    };
    let dir = dir.canonicalize().map_err(at(dir))?;
    let file = dir.join("deploy.yml");
    let text = fs::read_to_string(&file).map_err(at(&file))?;
    let wrong = |source| LocalError::Spec { path: file.clone(), source };
    let mut spec = spec::parse(&text).map_err(wrong)?;
    let deployment_id = uuid::Uuid::now_v7().to_string();
    let packed = take_artifact(&mut spec, &dir, &setup.state_dir, &deployment_id)?;
    let problems = spec.problems();
    if !problems.is_empty() {
        return Err(wrong(spec::SpecError(problems)));
    }
    if spec.artifact.url.starts_with("file://") {
        let (mut policy, warning) = setup.policy.read();
        if let Some(warning) = warning {
            tracing::warn!(warning, "policy is not in force");
        }
        policy.deploy.artifact_urls.push(spec.artifact.url.clone());
        setup.policy = Source::Fixed(Box::new(policy));
    }
    let command = Command { deployment_id: deployment_id.clone(), epoch: 0, action: Action::Deploy(Box::new(spec)) };
    let (sender, receiver) = mpsc::channel();
    let executor = Executor::open(setup, move |event: Event| sender.send(event))?;
    executor.handle_local(command)?;
    // The channel closes when the executor and its worker are gone, so a deployment that stands still ends the loop as well.
    let waiter =
        thread::Builder::new().name("deploy-wait".to_owned()).spawn(move || executor.finish(LONGEST)).map_err(OpenError::Thread)?;
    let mut end = None;
    while let Ok(event) = receiver.recv() {
        progress(&event);
        if let EventKind::State { state, reason, .. } = event.kind
            && event.deployment_id == deployment_id
            && state.is_end()
        {
            end = Some((state, reason));
        }
    }
    if !waiter.join().unwrap_or(false) {
        tracing::warn!("the deployment did not end within {} days", LONGEST.as_secs() / 86_400);
    }
    if let Some(path) = packed {
        fs::remove_file(&path).map_err(at(&path))?;
    }
    end.ok_or(LocalError::Lost)
}

/// Turns a relative artifact into a file URL with its hash. Returns the file that was packed for it.
fn take_artifact(spec: &mut Spec, dir: &Path, state_dir: &Path, deployment_id: &str) -> Result<Option<PathBuf>, LocalError> {
    if spec.artifact.url.contains("://") {
        return Ok(None);
    }
    let relative = Path::new(&spec.artifact.url);
    let inside = relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let path = dir.join(relative);
    let at = |source| LocalError::Io { path: path.clone(), source };
    if !inside {
        return Err(at(io::Error::other("artifact.url must be a URL, or a path below the directory of deploy.yml")));
    }
    let is_dir = fs::metadata(&path).map_err(at)?.is_dir();
    let archive = if is_dir {
        store::make_private_dir(state_dir).map_err(|error| at(io::Error::other(error.to_string())))?;
        let archive = state_dir.canonicalize().map_err(at)?.join(format!("local-{deployment_id}.tar"));
        pack(&path, &archive).map_err(at)?;
        archive
    } else {
        path.canonicalize().map_err(at)?
    };
    if is_dir || spec.artifact.sha256.is_empty() {
        spec.artifact.sha256 = hash(&archive).map_err(at)?;
    }
    let url = reqwest::Url::from_file_path(&archive).map_err(|()| at(io::Error::other("has no file URL")))?;
    spec.artifact.url = url.to_string();
    Ok(is_dir.then_some(archive))
}

fn pack(from: &Path, to: &Path) -> io::Result<()> {
    let mut builder = tar::Builder::new(io::BufWriter::new(File::create(to)?));
    builder.follow_symlinks(false);
    builder.append_dir_all(".", from)?;
    builder.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        match buffer.get(..read) {
            Some([]) | None => break,
            Some(chunk) => hash.update(chunk),
        }
    }
    let digest = store::hex(&hash.finalize());
    // The executor reads it again; a file that changes meanwhile is found out there.
    fetch::verify(path, &digest).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(digest)
}
