//! What is done from time to time: sealing, retention, backups, last signs of life, closing revoked hosts' connections.

use crate::{api::log_admin, config::Config, gateway::registry::Registry, store::Store};
use shipwatch_common::time::now_ms;
use std::{future::Future, sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// Calls `work` every `interval` until `cancel`, never twice at once.
fn every<F: Future<Output = ()> + Send>(
    tasks: &TaskTracker,
    cancel: &CancellationToken,
    interval: Duration,
    mut work: impl FnMut() -> F + Send + 'static,
) {
    let cancel = cancel.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = cancel.cancelled() => return,
            }
            work().await;
        }
    });
}

/// Runs blocking work and logs its error.
async fn blocking<E: std::fmt::Display + Send + 'static>(what: &'static str, work: impl FnOnce() -> Result<(), E> + Send + 'static) {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "{what} failed; it is tried again"),
        Err(error) => warn!(%error, "{what} did not end well"),
    }
}

pub(super) fn spawn(
    tasks: &TaskTracker,
    cancel: &CancellationToken,
    config: &Config,
    store: &Arc<Store>,
    series: &Arc<shipwatch_series::Engine>,
    logs: &Arc<shipwatch_logs::Engine>,
    registry: &Arc<Registry>,
) {
    seal(tasks, cancel, config, series, logs);
    erasures(tasks, cancel, store, logs);
    hosts(tasks, cancel, store, registry);
    let history_ms = i64::from(config.retention.history_days) * 86_400_000;
    let control = Arc::clone(store);
    every(tasks, cancel, Duration::from_secs(600), move || {
        let store = Arc::clone(&control);
        async move {
            if let Err(error) = store.sweep(now_ms(), history_ms).await {
                warn!(%error, "removing what is past its time failed; it is tried again");
            }
        }
    });
    let control = Arc::clone(store);
    every(tasks, cancel, Duration::from_secs(86_400), move || {
        let store = Arc::clone(&control);
        async move {
            match store.back_up().await {
                Ok(()) => info!("control.db was backed up"),
                Err(error) => warn!(%error, "control.db could not be backed up"),
            }
        }
    });
}

fn seal(
    tasks: &TaskTracker,
    cancel: &CancellationToken,
    config: &Config,
    series: &Arc<shipwatch_series::Engine>,
    logs: &Arc<shipwatch_logs::Engine>,
) {
    let engine = Arc::clone(series);
    every(tasks, cancel, Duration::from_secs(60), move || {
        let engine = Arc::clone(&engine);
        blocking("sealing series", move || {
            engine.seal(now_ms())?;
            engine.checkpoint()
        })
    });
    let engine = Arc::clone(series);
    every(tasks, cancel, Duration::from_secs(60), move || {
        let engine = Arc::clone(&engine);
        blocking("summaries of series", move || engine.summarize(now_ms()).map(drop))
    });
    let engine = Arc::clone(series);
    every(tasks, cancel, Duration::from_secs(600), move || {
        let engine = Arc::clone(&engine);
        blocking("retention of series", move || engine.retain(now_ms()).map(drop))
    });
    let engine = Arc::clone(logs);
    every(tasks, cancel, Duration::from_secs(5), move || {
        let engine = Arc::clone(&engine);
        blocking("sealing logs", move || engine.seal(now_ms()).map(drop))
    });
    let (engine, keep_days) = (Arc::clone(logs), config.retention.log_days);
    every(tasks, cancel, Duration::from_secs(300), move || {
        let engine = Arc::clone(&engine);
        blocking("retention of logs", move || engine.retain(now_ms(), keep_days).map(drop))
    });
}

/// Does what was to be erased from the logs and was cut off by a crash or a full disk.
fn erasures(tasks: &TaskTracker, cancel: &CancellationToken, store: &Arc<Store>, logs: &Arc<shipwatch_logs::Engine>) {
    let (control, engine) = (Arc::clone(store), Arc::clone(logs));
    every(tasks, cancel, Duration::from_secs(60), move || {
        let (store, engine) = (Arc::clone(&control), Arc::clone(&engine));
        async move {
            let done = match tokio::task::spawn_blocking(move || engine.resume_erasures()).await {
                Ok(Ok(done)) => done,
                Ok(Err(error)) => return warn!(%error, "erasing log lines failed; it is tried again"),
                Err(error) => return warn!(%error, "erasing log lines did not end well"),
            };
            for erased in done {
                if let Err(error) = store.audit(now_ms(), "server", "logs.erase_resumed", &log_admin::detail(&erased)).await {
                    warn!(%error, "what was erased from the logs could not be noted");
                }
            }
        }
    });
}

/// Stores last signs of life, and closes connections of hosts that another process (the command line) revoked.
fn hosts(tasks: &TaskTracker, cancel: &CancellationToken, store: &Arc<Store>, registry: &Arc<Registry>) {
    let (control, live) = (Arc::clone(store), Arc::clone(registry));
    every(tasks, cancel, Duration::from_secs(15), move || {
        let (store, registry) = (Arc::clone(&control), Arc::clone(&live));
        async move {
            let seen: Vec<_> = registry.all().into_iter().map(|(agent, live)| (agent, live.last_seen_ms)).collect();
            if !seen.is_empty()
                && let Err(error) = store.hosts_seen(seen).await
            {
                warn!(%error, "hosts' last signs of life could not be stored");
            }
        }
    });
    let (control, live) = (Arc::clone(store), Arc::clone(registry));
    every(tasks, cancel, Duration::from_secs(2), move || {
        let (store, registry) = (Arc::clone(&control), Arc::clone(&live));
        async move {
            let Ok(hosts) = store.hosts().await else { return };
            for host in hosts.iter().filter(|host| host.revoked_at_ms.is_some()) {
                registry.close(host.id, "this host was revoked");
            }
        }
    });
}
