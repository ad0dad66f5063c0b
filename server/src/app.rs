//! The composition root: opens the stores, starts the parts, joins them, and stops them in order.
//!
//! Stop order: the API stops taking requests; the gateway stops accepting and closes its sessions (agents keep what was not
//! acknowledged); the loops end; ingest commits what is queued; the stores close.

mod http;
mod upkeep;

use crate::{
    alerting::Alerts,
    api::{self, auth, live::Changes, own_metrics},
    config::Config,
    deploys::{self, Controller},
    forward::Forwarding,
    gateway::{self, Gateway, Marks, registry::Registry},
    ingest::Ingest,
    store::{Store, StoreError, users::User},
};
use shipwatch_common::{
    identity::{self, Authority, IdentityError},
    mask::Masker,
    model::AgentId,
    protocol::ServerMessage,
    time::now_ms,
    transport::TransportError,
};
use shipwatch_series::promql::RangeCache;
use std::{
    collections::HashMap,
    fs, io,
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `control.db`.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The series engine.
    #[error("series: {0}")]
    Series(#[from] shipwatch_series::Error),
    /// The log engine.
    #[error("logs: {0}")]
    Logs(#[from] shipwatch_logs::Error),
    /// The CA.
    #[error("ca: {0}")]
    Identity(#[from] IdentityError),
    /// The agents' port.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The API's port.
    #[error("cannot listen on tcp {address}: {source}{remedy}")]
    Http {
        /// What was asked for.
        address: String,
        /// The system's words.
        source: io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// TLS files of the API.
    #[error("api.tls_certificate, api.tls_key: {0}")]
    Tls(String),
    /// Files and threads.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's words.
        source: io::Error,
    },
    /// Rules, channels, passwords.
    #[error("{0}")]
    Part(String),
    /// Another server runs on the same data.
    #[error("{0} is used by another shipwatch-server; stop it first, or give this one another data directory (SHIPWATCH_DATA)")]
    Busy(String),
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |source| StartError::Io { what, source }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    http: http::Http,
    gateway: Gateway,
    alerting: Arc<Alerts>,
    cancel: CancellationToken,
    tasks: TaskTracker,
    /// Dropped last: their threads finish what is queued.
    stores: Stores,
    _lock: fs::File,
}

/// The stores and what feeds them.
#[derive(Clone, Debug)]
struct Stores {
    control: Arc<Store>,
    series: Arc<shipwatch_series::Engine>,
    logs: Arc<shipwatch_logs::Engine>,
    ingest: Arc<Ingest>,
    forward: Arc<Forwarding>,
}

/// Joins the gateway and the deploy controller without either knowing the other.
#[derive(Debug)]
struct Joints {
    registry: Arc<Registry>,
    changes: Changes,
    wake_deploys: tokio::sync::Notify,
}

impl gateway::Changed for Joints {
    fn host(&self, id: &str) {
        self.changes.send("hosts", id);
    }

    fn deployments(&self) {
        self.wake_deploys.notify_one();
    }
}

impl deploys::Commands for Joints {
    fn connected(&self) -> HashMap<AgentId, u64> {
        self.registry.all().into_iter().map(|(agent, live)| (agent, live.session)).collect()
    }

    fn send(&self, agent: AgentId, command_json: String) -> bool {
        self.registry.send(agent, ServerMessage::Command { json: command_json })
    }

    fn changed(&self, deployment_id: &str) {
        self.changes.send("deployments", deployment_id);
    }
}

impl Server {
    /// Starts everything. Must be called within a multi-threaded runtime. `admin_password` sets the admin's password if given.
    ///
    /// # Errors
    /// Each with its remedy; nothing is left running.
    pub async fn start(config: &Config, admin_password: Option<&str>) -> Result<Self, StartError> {
        let data = PathBuf::from(&config.server.data_dir);
        let lock = prepare(&data)?;
        let authority = Arc::new(authority(&data)?);
        let stores = Stores::open(config, &data).await?;
        ensure_admin(&stores.control, admin_password, &data).await?;

        let changes = Changes::default();
        let registry = Arc::new(Registry::default());
        let joints =
            Arc::new(Joints { registry: Arc::clone(&registry), changes: changes.clone(), wake_deploys: tokio::sync::Notify::new() });
        let (series, forward) = (Arc::clone(&stores.series), Arc::clone(&stores.forward));
        let gateway = Gateway::bind(gateway::Parts {
            config: config.gateway.clone(),
            store: Arc::clone(&stores.control),
            ingest: Arc::clone(&stores.ingest),
            authority: Arc::clone(&authority),
            registry: Arc::clone(&registry),
            marks: Marks(Arc::new(move |source| forward.mark(source, series.mark(source)))),
            changed: Arc::clone(&joints) as Arc<dyn gateway::Changed>,
        })?;
        let masker = Masker::new(&config.mask).map(Arc::new).map_err(|error| StartError::Part(format!("masking rules: {error}")))?;
        let (listener, address) = http::bind(&config.api)?;
        let external_url = config.api.url(address);
        let (control, forward) = (&stores.control, Arc::clone(&stores.forward));
        let alerting = Alerts::open(config, &external_url, control, &stores.series, Arc::clone(&registry), changes.clone(), forward)
            .await
            .map_err(StartError::Part)?;
        let alerting = Arc::new(alerting);
        let deploys = Arc::new(Controller::new(Arc::clone(&stores.control), Arc::clone(&joints) as Arc<dyn deploys::Commands>));
        let advertise = if config.gateway.advertise.is_empty() { gateway.address().to_string() } else { config.gateway.advertise.clone() };
        let state = Arc::new(api::State {
            config: config.api.clone(),
            auth: auth::Auth::new().map_err(|error| StartError::Part(format!("no randomness: {error}")))?,
            store: Arc::clone(&stores.control),
            series: Arc::clone(&stores.series),
            range_cache: Arc::new(RangeCache::new(usize::try_from(config.series.query_cache_bytes).unwrap_or(usize::MAX))),
            receive: api::receive::Receive::new(config.receive.clone(), Arc::clone(&stores.ingest)),
            push: api::push::Push::new(config.push.clone(), masker, Arc::clone(&stores.ingest)),
            logs: Arc::clone(&stores.logs),
            registry: Arc::clone(&registry),
            deploys: Arc::clone(&deploys),
            alerting: Arc::clone(&alerting) as Arc<dyn api::alerts::Alerting>,
            changes,
            own: own_metrics::Sources {
                ingest: stores.ingest.counters(),
                gateway: gateway.counters(),
                forward: Arc::clone(&stores.forward),
            },
            ca_fingerprint: identity::hex(&identity::fingerprint(authority.certificate())),
            ca_fingerprint_raw: identity::fingerprint(authority.certificate()),
            agents_address: advertise,
            started_at_ms: now_ms(),
            data_dir: data.clone(),
        });

        let cancel = CancellationToken::new();
        let tasks = TaskTracker::new();
        stores.forward.spawn(&tasks, &cancel, state.receive.metadata());
        let http = http::serve(&config.api, listener, address, api::router(state), cancel.clone())?;
        tasks.spawn(wake(Arc::clone(&joints), Arc::clone(&deploys), cancel.clone()));
        let controller = cancel.clone();
        tasks.spawn(async move { deploys.run(controller).await });
        alerting.spawn(&tasks, &cancel);
        upkeep::spawn(&tasks, &cancel, config, &stores.control, &stores.series, &stores.logs, &registry);
        tasks.close();
        info!(http = %external_url, agents = %gateway.address(), data = %data.display(), version = env!("CARGO_PKG_VERSION"), "server started");
        if !crate::web::is_embedded() {
            warn!("this binary was built without the dashboard; build it with `make build`");
        }
        Ok(Self { http, gateway, alerting, cancel, tasks, stores, _lock: lock })
    }

    /// Where the API listens.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.http.address()
    }

    /// Where agents connect.
    #[must_use]
    pub const fn agents_address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// Reads the rule files again; mistakes are logged and the old rules stay.
    pub fn reload(&self) {
        if let Err(mistakes) = self.alerting.reload_rules() {
            warn!(%mistakes, "the rule files have mistakes; the old rules stay");
        }
    }

    /// Stops everything in order; see the module.
    pub async fn shutdown(self) {
        let Self { http, gateway, alerting, cancel, tasks, stores, _lock } = self;
        drop(alerting);
        cancel.cancel();
        http.stopped().await;
        gateway.shutdown().await;
        let _slow = tokio::time::timeout(Duration::from_secs(15), tasks.wait()).await;
        // The engines' threads are joined where they are dropped, which blocks.
        let _panicked = tokio::task::spawn_blocking(move || drop(stores)).await;
        info!("server stopped");
    }
}

async fn wake(joints: Arc<Joints>, deploys: Arc<Controller>, cancel: CancellationToken) {
    loop {
        tokio::select! {
            () = joints.wake_deploys.notified() => deploys.wake(),
            () = cancel.cancelled() => return,
        }
    }
}

impl Stores {
    async fn open(config: &Config, data: &Path) -> Result<Self, StartError> {
        let (config, data) = (config.clone(), data.to_owned());
        let opened = tokio::task::spawn_blocking(move || -> Result<Self, StartError> {
            let control = Arc::new(Store::open(&data)?);
            let (series, found) = shipwatch_series::Engine::open(data.join("series"), config.series)?;
            if found.is_clean() {
                info!(series = found.series, samples = found.samples, day_files = found.day_files, "series store opened");
            } else {
                warn!(report = ?found, "the series store was damaged; what could be read is kept, the rest is lost or put aside");
            }
            let (logs, found) = shipwatch_logs::Engine::open(&data.join("logs"), config.logs)?;
            if found.damaged.is_empty() {
                info!(days = found.days, unsealed_lines = found.head_lines, "log store opened");
            } else {
                warn!(report = ?found, "the log store was damaged; what could be read is kept, the rest is lost or put aside");
            }
            let (series, logs) = (Arc::new(series), Arc::new(logs));
            let forward = Forwarding::open(&data.join("forward"), &config.forward, series.config().max_ahead).map_err(StartError::Part)?;
            let forward = Arc::new(forward);
            let ingest = Ingest::start(Arc::clone(&series), Arc::clone(&logs), Arc::clone(&control), Arc::clone(&forward))
                .map_err(io_error("threads of ingest"))?;
            Ok(Self { control, series, logs, ingest: Arc::new(ingest), forward })
        });
        opened.await.map_err(|error| StartError::Part(error.to_string()))?
    }
}

/// Makes the data directory, private, and takes its lock.
fn prepare(data: &Path) -> Result<fs::File, StartError> {
    let shown = data.display().to_string();
    fs::create_dir_all(data).map_err(io_error(format!("{shown} (server.data_dir)")))?;
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).map_err(io_error(shown.clone()))?;
    let lock = fs::File::create(data.join("lock")).map_err(io_error(shown.clone()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(StartError::Busy(shown)),
        Err(fs::TryLockError::Error(source)) => Err(io_error(shown)(source)),
    }
}

/// The CA in `ca/`, made at the first start.
///
/// # Errors
/// Files that cannot be read, written or used.
pub fn authority(data: &Path) -> Result<Authority, StartError> {
    let dir = data.join("ca");
    let (certificate, key) = (dir.join("ca.der"), dir.join("ca.key.der"));
    let shown = dir.display().to_string();
    match (fs::read(&certificate), fs::read(&key)) {
        (Ok(certificate), Ok(key)) => Ok(Authority::restore(&certificate, &key)?),
        (Err(a), Err(b)) if a.kind() == io::ErrorKind::NotFound && b.kind() == io::ErrorKind::NotFound => {
            let (authority, key_der) = Authority::create(now_ms())?;
            fs::create_dir_all(&dir).map_err(io_error(shown.clone()))?;
            write_private(&key, &key_der).map_err(io_error(shown.clone()))?;
            // The certificate last: with it the pair counts as made.
            write_private(&certificate, authority.certificate()).map_err(io_error(shown))?;
            info!(fingerprint = %identity::hex(&identity::fingerprint(authority.certificate())), "made a certificate authority for this server");
            Ok(authority)
        }
        // A crash between the two files of the very first start: no agent can know this CA yet, and there is no database.
        (Err(missing), Ok(_)) if missing.kind() == io::ErrorKind::NotFound && matches!(data.join("control.db").try_exists(), Ok(false)) => {
            fs::remove_file(&key).map_err(io_error(shown))?;
            authority(data)
        }
        (Err(source), _) | (_, Err(source)) => {
            Err(StartError::Io { what: format!("{shown}: the CA's files; restore them from a backup"), source })
        }
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

const ADMIN: &str = "admin";

/// Makes the admin at the first start; sets the password if one is given and differs.
async fn ensure_admin(store: &Store, given: Option<&str>, data: &Path) -> Result<(), StartError> {
    let known = store.user(ADMIN).await?;
    let password = match (given, &known) {
        (Some(password), Some(user)) if auth::verify_password(&user.password_hash, password) => return Ok(()),
        (Some(password), _) => password.to_owned(),
        (None, Some(_)) => return Ok(()),
        (None, None) => {
            let password = auth::random_secret("").map_err(|error| StartError::Part(format!("no randomness: {error}")))?;
            let file = data.join("initial-admin-password");
            write_private(&file, format!("{password}\n").as_bytes()).map_err(io_error(file.display().to_string()))?;
            warn!(file = %file.display(), "made the user admin; its password is in this file: sign in, change it, remove the file");
            password
        }
    };
    let password_hash = auth::hash_password(&password).map_err(StartError::Part)?;
    store.set_user(User { name: ADMIN.to_owned(), role: "admin".to_owned(), password_hash }, "start", now_ms()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_is_made_once_and_its_key_is_never_thrown_away_once_agents_may_know_it() {
        let dir = tempfile::tempdir().unwrap();
        let made = authority(dir.path()).unwrap();
        assert_eq!(authority(dir.path()).unwrap().certificate(), made.certificate());
        let (certificate, key) = (dir.path().join("ca/ca.der"), dir.path().join("ca/ca.key.der"));
        let key_before = fs::read(&key).unwrap();

        fs::write(dir.path().join("control.db"), "").unwrap();
        fs::remove_file(&certificate).unwrap();
        let error = authority(dir.path()).unwrap_err().to_string();
        assert!(error.contains("restore them from a backup"), "{error}");
        assert_eq!(fs::read(&key).unwrap(), key_before);

        fs::remove_file(dir.path().join("control.db")).unwrap();
        assert_ne!(authority(dir.path()).unwrap().certificate(), made.certificate(), "the very first start was cut off: begun anew");
    }
}
