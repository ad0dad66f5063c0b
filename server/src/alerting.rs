//! Joins rules, messages, hosts and the store: evaluates on time, stores what changed, and has people told.
//!
//! # Layout
//! - [`book`]: what is known of every rule and alert; [`hosts`]: who is silent (pure)
//! - [`evaluation`]: the loops that ask and step; [`decision`]: one change of alerts with its messages, as one transaction
//! - [`views`]: the shapes of the API
//!
//! # Invariants
//! - Decisions are taken one at a time: read the book, decide, store, then publish in the book. What was not stored is not
//!   published, and the next evaluation decides again.
//! - An alert's state, its history, the state of grouping and the messages that follow are one transaction.
//! - An evaluation that failed changes nothing but the rule's health.
//!
//! # On crash
//! Everything goes on from the store: `for`, groups and their waiting times, open messages. Time in which no server watched
//! does not count for `for` if it was longer than a minute.

mod book;
mod clock;
mod decision;
mod evaluation;
mod hosts;
mod views;

pub use clock::Clock;

use crate::{
    api::{self, live::Changes},
    config::Config,
    forward::Forwarding,
    gateway::registry::Registry,
    notify::{
        alert::{Alert, Notification, Reason},
        channel::Channel,
        config::{Kind, zone},
        group::{Audience as _, Policy},
        http::Http,
        outbox::Worker,
        render::Renderer,
    },
    rules::{self, evaluate::fingerprint, find},
    store::Store,
};
use book::Book;
use shipwatch_common::{model::Labels, time::UnixMs};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

/// How long a resolved alert is shown.
const KEEP_RESOLVED_MS: i64 = 86_400_000;

/// What is counted, for `/metrics`.
#[derive(Debug, Default)]
struct Counters {
    evaluations_total: AtomicU64,
    failures_total: AtomicU64,
    missed_total: AtomicU64,
}

/// What the server's parts give.
#[derive(Debug)]
struct Parts {
    store: Arc<Store>,
    series: Arc<shipwatch_series::Engine>,
    registry: Arc<Registry>,
    changes: Changes,
    /// Samples of rules go there as well.
    forward: Arc<Forwarding>,
    clock: Clock,
}

/// Joins rules, messages and the store; see the module.
#[derive(Debug)]
pub struct Alerts {
    config: rules::Config,
    policy: Policy,
    parts: Parts,
    renderer: Arc<Renderer>,
    workers: Vec<Arc<Worker>>,
    started_at_ms: UnixMs,
    /// Held while something is decided and stored.
    turn: tokio::sync::Mutex<()>,
    /// Held for moments.
    book: Mutex<Book>,
    /// Rules were read again.
    reloaded: tokio::sync::Notify,
    /// Groups of messages may be due earlier than thought.
    regrouped: tokio::sync::Notify,
    counters: Counters,
}

impl Alerts {
    /// Reads rules and secrets, restores what was stored.
    ///
    /// # Errors
    /// Every mistake in rule files; a channel that cannot be used; the store.
    pub async fn open(
        config: &Config,
        external_url: &str,
        store: &Arc<Store>,
        series: &Arc<shipwatch_series::Engine>,
        registry: Arc<Registry>,
        changes: Changes,
        forward: Arc<Forwarding>,
    ) -> Result<Self, String> {
        let parts = Parts { store: Arc::clone(store), series: Arc::clone(series), registry, changes, forward, clock: Clock::System };
        Self::with(&config.rules, &config.notify, external_url, parts).await
    }

    async fn with(config: &rules::Config, notify: &crate::notify::Config, external_url: &str, parts: Parts) -> Result<Self, String> {
        let now_ms = parts.clock.now_ms();
        let renderer = Arc::new(Renderer::new(external_url, zone(&notify.time_zone)?, notify.language));
        let workers = open_workers(notify, &renderer, &parts.store, now_ms).await?;
        let groups = find::load(&config.files, config.defaults()).map_err(|mistakes| told(&mistakes))?;
        let mut book = Book::new(book::all_groups(config, groups));
        let stored = |error: crate::store::StoreError| format!("alerts cannot be read: {error}");
        let saved = parts.store.dispatcher().await.map_err(stored)?;
        book.restore(saved.as_deref(), parts.store.alert_bodies().await.map_err(stored)?, now_ms)?;
        let channels: Vec<Arc<Channel>> = workers.iter().map(|worker| Arc::clone(worker.channel())).collect();
        book.dispatcher.adopt(&channels);
        info!(rules = book.rule_count(), alerts = book.alert_count(), channels = workers.len(), "alerting opened");
        Ok(Self {
            config: config.clone(),
            policy: Policy::from(&notify.route()),
            parts,
            renderer,
            workers,
            started_at_ms: now_ms,
            turn: tokio::sync::Mutex::default(),
            book: Mutex::new(book),
            reloaded: tokio::sync::Notify::new(),
            regrouped: tokio::sync::Notify::new(),
            counters: Counters::default(),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channels(&self) -> Vec<Arc<Channel>> {
        self.workers.iter().map(|worker| Arc::clone(worker.channel())).collect()
    }

    /// Starts its loops.
    pub fn spawn(self: &Arc<Self>, tasks: &TaskTracker, cancel: &CancellationToken) {
        for worker in &self.workers {
            let (worker, cancel, clock, changes) =
                (Arc::clone(worker), cancel.clone(), self.parts.clock.clone(), self.parts.changes.clone());
            tasks.spawn(async move {
                let changed = |delivery: &crate::notify::outbox::Delivery| changes.send("notifications", &delivery.id);
                worker.run(&cancel, &move || clock.now_ms(), &changed).await;
            });
        }
        let (alerts, token) = (Arc::clone(self), cancel.clone());
        tasks.spawn(async move { alerts.dispatch_loop(&token).await });
        let (alerts, token, tracker) = (Arc::clone(self), cancel.clone(), tasks.clone());
        tasks.spawn(async move { alerts.supervise(&tracker, &token).await });
        if self.config.host_down {
            let (alerts, token) = (Arc::clone(self), cancel.clone());
            tasks.spawn(async move { alerts.host_loop(&token).await });
        }
    }

    /// Reads the rule files again; alerts of rules that are still there go on. All mistakes in the error, the old rules stay.
    ///
    /// # Errors
    /// Mistakes in the files.
    pub fn reload_rules(&self) -> Result<(), String> {
        let groups = find::load(&self.config.files, self.config.defaults()).map_err(|mistakes| told(&mistakes))?;
        let rules = {
            let mut book = self.book();
            book.replace(book::all_groups(&self.config, groups));
            book.rule_count()
        };
        self.reloaded.notify_one();
        info!(rules, "rule files read again");
        Ok(())
    }

    /// A message for a person who wants to see a channel work.
    fn test_message(&self, channel: &str) -> Notification {
        let now_ms = self.parts.clock.now_ms();
        let pairs = [("alertname", "ShipwatchTest"), ("severity", "info"), ("channel", channel)];
        let labels = Labels::new(pairs).unwrap_or_default();
        let annotations = BTreeMap::from([
            ("summary".to_owned(), "测试消息：这个通知渠道可用。This channel works.".to_owned()),
            ("description".to_owned(), "没有任何故障。Nothing is wrong.".to_owned()),
        ]);
        let alert = Alert {
            fingerprint: format!("{:016x}", fingerprint(&labels)),
            labels,
            annotations,
            value: "1".to_owned(),
            starts_at_ms: now_ms,
            ends_at_ms: None,
            generator_url: self.renderer.external_url().to_owned(),
        };
        Notification {
            id: uuid::Uuid::now_v7().simple().to_string(),
            channel: channel.to_owned(),
            reason: Reason::Test,
            group_key: r#"{}:{alertname="ShipwatchTest"}"#.to_owned(),
            group_labels: BTreeMap::from([("alertname".to_owned(), "ShipwatchTest".to_owned())]),
            alerts: vec![alert],
            truncated: 0,
            created_at_ms: now_ms,
        }
    }
}

fn told(mistakes: &[String]) -> String {
    format!("{} mistake{} in rule files:\n  {}", mistakes.len(), if mistakes.len() == 1 { "" } else { "s" }, mistakes.join("\n  "))
}

/// Workers of the configured channels; what is open for channels that are gone is given up.
async fn open_workers(
    notify: &crate::notify::Config,
    renderer: &Arc<Renderer>,
    store: &Arc<Store>,
    now_ms: UnixMs,
) -> Result<Vec<Arc<Worker>>, String> {
    let needs_http = notify.channels.iter().any(|channel| channel.kind != Kind::Email);
    let http = if needs_http { Some(Http::new(notify.timeout)?) } else { None };
    let recent = store.recent_deliveries(200).await.map_err(|error| format!("the outbox cannot be read: {error}"))?;
    let mut workers = Vec::new();
    for config in &notify.channels {
        let channel = Channel::open(config, renderer, http.as_ref(), notify.timeout)?;
        let sent = recent
            .iter()
            .filter(|delivery| delivery["channel"] == channel.name() && delivery["state"] == "accepted")
            .filter_map(|delivery| delivery["finished_at_ms"].as_i64())
            .filter(|at| now_ms - at < 60_000)
            .collect();
        workers.push(Arc::new(Worker::new(Arc::new(channel), Arc::clone(store), notify.give_up_after, sent)));
    }
    let names: Vec<String> = notify.channels.iter().map(|channel| channel.name.clone()).collect();
    let given_up =
        store.close_deliveries_of_others(names, now_ms).await.map_err(|error| format!("the outbox cannot be written: {error}"))?;
    if given_up > 0 {
        warn!(messages = given_up, "messages for channels that are not configured any more were given up");
    }
    Ok(workers)
}

impl api::alerts::Alerting for Alerts {
    fn prometheus_rules(&self) -> serde_json::Value {
        views::prometheus_rules(&self.book())
    }

    fn prometheus_alerts(&self) -> serde_json::Value {
        views::prometheus_alerts(&self.book())
    }

    fn alerts(&self, states: &[&str]) -> Vec<serde_json::Value> {
        views::alerts(&self.book(), states, self.parts.clock.now_ms())
    }

    fn channels(&self) -> Vec<serde_json::Value> {
        views::channels(&self.workers)
    }

    fn test_channel<'a>(&'a self, name: &'a str) -> api::alerts::Later<'a, Option<Result<String, String>>> {
        Box::pin(async move {
            let worker = self.workers.iter().find(|worker| worker.channel().name() == name)?;
            Some(worker.send_now(&self.test_message(name), self.parts.clock.now_ms()).await)
        })
    }

    fn reload(&self) -> Result<(), String> {
        self.reload_rules()
    }

    fn own_metrics(&self) -> String {
        views::own_metrics(&self.book(), &self.workers, &self.counters)
    }
}

#[cfg(test)]
mod tests;
