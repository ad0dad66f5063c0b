//! Deployments over hosts: what to do next, persisted before it is done.
//!
//! - [`state`]: a deployment's state and the pure decisions on it
//! - [`Controller`]: the loop around them: read events, decide, store, send
//!
//! # Invariants
//! - Level-triggered: each round looks at the stored state and at who is connected, never at a memory of what was sent.
//!   A command may be sent again; the host answers from its journal.
//! - A state is stored before the command that follows from it is sent.
//! - Silence is not failure: a host past its deadline is `unknown`, and its journal settles it when it is back.

pub mod state;

use crate::store::{Store, StoreError, deployments::StoredDeployment, hosts::Host};
use shipwatch_common::{
    model::{
        AgentId,
        deploy::{Action, Command, Spec},
    },
    time::{UnixMs, now_ms},
};
use state::{Decision, Deployment, DeploymentState, HostProgress, Strategy};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Looked at even when nothing was reported: deadlines pass without an event.
const TICK: Duration = Duration::from_secs(2);
/// Events read at once.
const EVENTS: u32 = 2_000;

/// How commands leave; given by `app`.
pub trait Commands: Send + Sync + std::fmt::Debug {
    /// The connected agents and the number of their session.
    fn connected(&self) -> HashMap<AgentId, u64>;
    /// Sends to one; `false` if that was not possible now.
    fn send(&self, agent: AgentId, command_json: String) -> bool;
    /// Something about this deployment changed.
    fn changed(&self, deployment_id: &str);
}

/// Why a deployment was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The request is wrong; one line per mistake.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// It cannot be done now.
    #[error("{0}")]
    Conflict(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to deploy.
    pub spec: Spec,
    /// Names or ids; with `selector` empty.
    pub hosts: Vec<String>,
    /// All hosts with these labels (`env`, `region` and the hosts' own).
    pub selector: BTreeMap<String, String>,
    /// In which order.
    pub strategy: Strategy,
    /// Whether a failed host keeps the rest from being started.
    pub stop_on_failure: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Controller {
    store: Arc<Store>,
    commands: Arc<dyn Commands>,
    wake: Notify,
    /// Serialises read-decide-store: bodies are read and replaced whole.
    turn: Mutex<Sent>,
}

/// Commands (deployment and kind, host, epoch) that went out, with the session they went out on: not to be repeated every
/// round, but again on a new session.
type Sent = HashMap<(String, AgentId, u64), u64>;

impl Controller {
    /// Around a store.
    #[must_use]
    pub fn new(store: Arc<Store>, commands: Arc<dyn Commands>) -> Self {
        Self { store, commands, wake: Notify::new(), turn: Mutex::new(Sent::new()) }
    }

    /// Looks at the deployments soon.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Checks and stores a deployment, and begins with it.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn create(&self, request: Request, who: &str) -> Result<Deployment, DeployError> {
        let mistakes = request.spec.problems();
        if !mistakes.is_empty() {
            return Err(DeployError::Invalid(mistakes));
        }
        let hosts = self.choose(&request.hosts, &request.selector).await?;
        let _turn = self.turn.lock().await;
        self.refuse_busy(&request.spec.app, &hosts).await?;
        let new = Deployment {
            id: uuid::Uuid::now_v7().to_string(),
            app: request.spec.app.clone(),
            release: request.spec.release.clone(),
            spec: request.spec,
            strategy: request.strategy,
            stop_on_failure: request.stop_on_failure,
            state: DeploymentState::Running,
            created_by: who.to_owned(),
            created_at_ms: now_ms(),
            finished_at_ms: None,
            rollback_of: None,
            abort_requested: false,
            reason: String::new(),
            hosts: hosts.iter().map(|host| HostProgress::new(host.id, &host.name)).collect(),
        };
        self.add(new, who).await
    }

    /// Takes the hosts of a deployment back to the release before, as a new deployment.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn roll_back(&self, id: &str, who: &str) -> Result<Deployment, DeployError> {
        let old = self.get(id).await?;
        let wanted: Vec<String> = old.hosts.iter().filter(|host| host.was_touched()).map(|host| host.id.to_string()).collect();
        if wanted.is_empty() {
            return Err(DeployError::Conflict("no host of this deployment was changed; there is nothing to roll back".to_owned()));
        }
        let hosts = self.choose(&wanted, &BTreeMap::new()).await?;
        let _turn = self.turn.lock().await;
        self.refuse_busy(&old.app, &hosts).await?;
        let new = Deployment {
            id: uuid::Uuid::now_v7().to_string(),
            state: DeploymentState::Running,
            created_by: who.to_owned(),
            created_at_ms: now_ms(),
            finished_at_ms: None,
            rollback_of: Some(old.id.clone()),
            abort_requested: false,
            reason: String::new(),
            hosts: hosts.iter().map(|host| HostProgress::new(host.id, &host.name)).collect(),
            strategy: Strategy::AllAtOnce,
            stop_on_failure: false,
            ..old
        };
        self.add(new, who).await
    }

    async fn add(&self, new: Deployment, who: &str) -> Result<Deployment, DeployError> {
        let hosts: Vec<&str> = new.hosts.iter().map(|host| host.name.as_str()).collect();
        let detail = format!("{} {} on {}", new.app, new.release, hosts.join(","));
        self.store.add_deployment(stored(&new)?, who, &detail).await?;
        info!(deployment = %new.id, app = %new.app, release = %new.release, by = %who, hosts = new.hosts.len(), "deployment created");
        self.commands.changed(&new.id);
        self.wake();
        Ok(new)
    }

    /// Starts no further host and makes running ones go back.
    ///
    /// # Errors
    /// See [`DeployError`].
    pub async fn abort(&self, id: &str, who: &str) -> Result<Deployment, DeployError> {
        let _turn = self.turn.lock().await;
        let mut deployment = self.get(id).await?;
        if deployment.state != DeploymentState::Running {
            return Err(DeployError::Conflict("this deployment has ended; use rollback to go back".to_owned()));
        }
        deployment.abort_requested = true;
        deployment.reason = format!("aborted by {who}");
        self.store.update_deployments(vec![stored(&deployment)?], None).await?;
        self.store.audit(now_ms(), who, "deployment aborted", id).await?;
        self.commands.changed(id);
        self.wake();
        Ok(deployment)
    }

    /// One deployment.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn get(&self, id: &str) -> Result<Deployment, StoreError> {
        restored(&self.store.deployment(id).await?)
    }

    /// The newest deployments.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn list(&self, limit: u32) -> Result<Vec<Deployment>, StoreError> {
        self.store.deployments(false, limit).await?.iter().map(restored).collect()
    }

    async fn choose(&self, names: &[String], selector: &BTreeMap<String, String>) -> Result<Vec<Host>, DeployError> {
        let invalid = |text: &str| DeployError::Invalid(vec![text.to_owned()]);
        let all = self.store.hosts().await?;
        let live: Vec<Host> = all.into_iter().filter(|host| host.revoked_at_ms.is_none()).collect();
        let has = |host: &Host, name: &str, value: &str| match name {
            "env" => host.env == value,
            "region" => host.region == value,
            "host" | "instance" => host.name == value,
            _ => host.labels.get(name).is_some_and(|own| own == value),
        };
        let chosen: Vec<Host> = match (names.is_empty(), selector.is_empty()) {
            (true, true) => return Err(invalid("`hosts` or `selector` must say where to deploy")),
            (false, false) => return Err(invalid("give `hosts` or `selector`, not both")),
            (true, false) => live.into_iter().filter(|host| selector.iter().all(|(name, value)| has(host, name, value))).collect(),
            (false, true) => {
                let mut chosen: Vec<Host> = Vec::new();
                let mut unknown = Vec::new();
                for name in names {
                    match live.iter().find(|host| host.name == *name || host.id.to_string() == *name) {
                        Some(host) if chosen.iter().any(|other| other.id == host.id) => {}
                        Some(host) => chosen.push(host.clone()),
                        None => unknown.push(name.as_str()),
                    }
                }
                if !unknown.is_empty() {
                    return Err(DeployError::Conflict(format!("no such host: {}", unknown.join(", "))));
                }
                chosen
            }
        };
        if chosen.is_empty() {
            return Err(DeployError::Conflict("no host has these labels".to_owned()));
        }
        let connected = self.commands.connected();
        let silent: Vec<&str> = chosen.iter().filter(|host| !connected.contains_key(&host.id)).map(|host| host.name.as_str()).collect();
        if !silent.is_empty() {
            return Err(DeployError::Conflict(format!(
                "not connected now: {}; leave these hosts out, or start their agents",
                silent.join(", ")
            )));
        }
        Ok(chosen)
    }

    /// One deployment at a time per application and host.
    async fn refuse_busy(&self, app: &str, hosts: &[Host]) -> Result<(), DeployError> {
        for open in self.store.deployments(true, u32::MAX).await? {
            let open = restored(&open)?;
            let shared: Vec<&str> = open
                .hosts
                .iter()
                .filter(|host| !host.state.is_end() && hosts.iter().any(|other| other.id == host.id))
                .map(|h| h.name.as_str())
                .collect();
            if open.app == app && !shared.is_empty() {
                return Err(DeployError::Conflict(format!(
                    "deployment {} of {app} is still running on {}; wait for it or abort it",
                    open.id,
                    shared.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// Runs until `cancel`.
    pub async fn run(&self, cancel: CancellationToken) {
        loop {
            if let Err(error) = self.round(now_ms()).await {
                warn!(%error, "could not look after the deployments; trying again");
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(TICK) => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    /// One round: apply what hosts reported, decide, store, send.
    async fn round(&self, now: UnixMs) -> Result<(), DeployError> {
        let mut sent = self.turn.lock().await;
        let events = self.store.new_events(EVENTS).await?;
        let mut deployments: BTreeMap<String, Deployment> = BTreeMap::new();
        for open in self.store.deployments(true, u32::MAX).await? {
            deployments.insert(open.id.clone(), restored(&open)?);
        }
        let mut changed: Vec<String> = Vec::new();
        for stored in &events {
            let id = &stored.deployment_id;
            if !deployments.contains_key(id) {
                match self.store.deployment(id).await {
                    Ok(ended) => drop(deployments.insert(id.clone(), restored(&ended)?)),
                    // A deployment of `deploy --local`, or of a server before this one.
                    Err(StoreError::NotFound(_)) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            if let Some(deployment) = deployments.get_mut(id)
                && deployment.apply(&stored.host_id, &stored.event)
            {
                changed.push(id.clone());
            }
        }
        let connected = self.commands.connected();
        let mut to_send = Vec::new();
        for deployment in deployments.values_mut() {
            let decisions = deployment.decide(now);
            if !decisions.is_empty() {
                changed.push(deployment.id.clone());
            }
            for decision in decisions {
                if let Decision::Start(host) = decision {
                    let epoch = self.store.next_epoch().await?;
                    deployment.started(host, epoch, now);
                }
            }
            to_send.extend(deployment.commands().into_iter().filter_map(|command| {
                let session = *connected.get(&command.host)?;
                let key = (format!("{} {}", deployment.id, kind(&command.action)), command.host, command.epoch);
                (sent.get(&key) != Some(&session)).then(|| (key, session, envelope(deployment, &command.action, command.epoch)))
            }));
        }
        changed.sort();
        changed.dedup();
        let bodies = changed.iter().filter_map(|id| deployments.get(id)).map(stored).collect::<Result<Vec<_>, _>>()?;
        let cursor = events.last().map(|event| event.n);
        if !bodies.is_empty() || cursor.is_some() {
            self.store.update_deployments(bodies, cursor).await?;
        }
        for (key, session, command) in to_send {
            let json = serde_json::to_string(&command).map_err(StoreError::from)?;
            if self.commands.send(key.1, json) {
                sent.insert(key, session);
            }
        }
        sent.retain(|(key, _, _), _| {
            let id = key.split(' ').next().unwrap_or_default();
            deployments.get(id).is_some_and(|deployment| deployment.finished_at_ms.is_none())
        });
        for id in changed {
            self.commands.changed(&id);
        }
        if events.len() == EVENTS as usize {
            self.wake();
        }
        Ok(())
    }
}

const fn kind(action: &Action) -> &'static str {
    match action {
        Action::Deploy(_) => "deploy",
        Action::Rollback { .. } => "rollback",
        Action::Abort => "abort",
    }
}

fn envelope(deployment: &Deployment, action: &Action, epoch: u64) -> Command {
    Command { deployment_id: deployment.id.clone(), epoch, action: action.clone() }
}

fn stored(deployment: &Deployment) -> Result<StoredDeployment, StoreError> {
    Ok(StoredDeployment {
        id: deployment.id.clone(),
        app: deployment.app.clone(),
        release: deployment.release.clone(),
        state: deployment.state.as_str().to_owned(),
        created_at_ms: deployment.created_at_ms,
        finished_at_ms: deployment.finished_at_ms,
        body: serde_json::to_string(deployment)?,
    })
}

fn restored(stored: &StoredDeployment) -> Result<Deployment, StoreError> {
    Ok(serde_json::from_str(&stored.body)?)
}
