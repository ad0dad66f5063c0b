//! The loops: each group on its own schedule, hosts every other second, groups of messages when they are due.

use super::{
    Alerts,
    book::{Health, keys},
    hosts,
};
use crate::{
    forward::Batch,
    rules::{
        evaluate::{Elements, Found, Outside, alert_series, ask, query_time, samples},
        file::Group,
        schedule::Schedule,
    },
};
use shipwatch_common::{
    model::{Labels, Sample, metric::STALE_NAN_BITS},
    time::UnixMs,
};
use shipwatch_series::{
    Append, Engine,
    promql::{EvalOptions, Query, Value},
};
use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

/// Pause after the store failed.
const RETRY: Duration = Duration::from_secs(2);
/// Longest sleep of the dispatcher: a clock that jumped is noticed, and watching is noted.
const LOOK: Duration = Duration::from_secs(30);
/// How often alerts of rules that are gone are looked at.
const SETTLE: Duration = Duration::from_secs(3_600);

impl Alerts {
    /// Runs a loop per group, and starts them anew when rules were read again.
    pub(super) async fn supervise(self: Arc<Self>, tasks: &TaskTracker, cancel: &CancellationToken) {
        loop {
            let generation = cancel.child_token();
            let groups: Vec<Arc<Group>> = self.book().groups.iter().map(|group| Arc::clone(&group.spec)).collect();
            for group in groups.into_iter().filter(|group| group.file != "built-in") {
                let (alerts, token) = (Arc::clone(&self), generation.clone());
                tasks.spawn(async move { alerts.group_loop(&group, &token).await });
            }
            if !self.settle_until_reload(cancel).await {
                return;
            }
            generation.cancel();
        }
    }

    /// Ends alerts and series of rules that are gone. `true` when rules were read again, `false` at the end.
    async fn settle_until_reload(&self, cancel: &CancellationToken) -> bool {
        loop {
            self.end_series().await;
            let pause = match self.settle_gone().await {
                Ok(()) => SETTLE,
                Err(error) => {
                    warn!(%error, "alerts of removed rules could not be ended; trying again");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.reloaded.notified() => return true,
                () = cancel.cancelled() => return false,
            }
        }
    }

    async fn end_series(&self) {
        let ended = std::mem::take(&mut self.book().ended);
        let ts_ms = self.parts.clock.now_ms();
        let stale = |labels: Arc<Labels>| Sample { labels, ts_ms, value: f64::from_bits(STALE_NAN_BITS) };
        if let Err(error) = self.write(ended.into_iter().map(stale).collect()).await {
            warn!(%error, "the end of removed rules' series could not be written; they end by themselves after the look-back time");
        }
    }

    async fn group_loop(&self, group: &Arc<Group>, cancel: &CancellationToken) {
        let schedule = Schedule::of(group);
        let mut last = None;
        loop {
            let now_ms = self.parts.clock.now_ms();
            let wait = Duration::from_millis((schedule.after(now_ms) - now_ms).unsigned_abs());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = cancel.cancelled() => return,
            }
            let at_ms = schedule.at_or_before(self.parts.clock.now_ms());
            // Timers and the wall clock differ a little: woken too early, it sleeps the rest.
            if last == Some(at_ms) {
                continue;
            }
            let missed = last.map_or(0, |last| schedule.missed(last, at_ms));
            if missed > 0 {
                self.counters.missed_total.fetch_add(missed, Ordering::Relaxed);
                warn!(group = %group.name, missed, "evaluations were missed; they are skipped");
            }
            last = Some(at_ms);
            self.evaluate_group(group, at_ms).await;
        }
    }

    /// Evaluates every rule of a group, in order, at one time.
    pub(super) async fn evaluate_group(&self, group: &Arc<Group>, at_ms: UnixMs) {
        let started = Instant::now();
        for (at, key) in keys(group).iter().enumerate() {
            let began = Instant::now();
            let result = self.evaluate_rule(group, at, key, at_ms).await;
            self.counters.evaluations_total.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = &result {
                self.counters.failures_total.fetch_add(1, Ordering::Relaxed);
                let rule = group.rules.get(at).map_or("", |rule| rule.name());
                warn!(group = %group.name, rule, %error, "a rule could not be evaluated; its alerts stay as they are");
            }
            let mut book = self.book();
            if let Some(rule) = book.rule_mut(key) {
                rule.health = result.map_or_else(Health::Bad, |()| Health::Good);
                (rule.evaluated_ms, rule.took) = (Some(at_ms), began.elapsed());
            }
        }
        let mut book = self.book();
        if let Some(state) = book.groups.iter_mut().find(|state| Arc::ptr_eq(&state.spec, group)) {
            (state.evaluated_ms, state.took) = (Some(at_ms), started.elapsed());
        }
    }

    async fn evaluate_rule(&self, group: &Arc<Group>, at: usize, key: &str, at_ms: UnixMs) -> Result<(), String> {
        let (engine, spec, url) = (Arc::clone(&self.parts.series), Arc::clone(group), self.renderer.external_url().to_owned());
        let timeout = self.config.query_timeout;
        let asked = tokio::task::spawn_blocking(move || {
            let rule = spec.rules.get(at).ok_or_else(|| "the rule is gone".to_owned())?;
            let options = EvalOptions::new(engine.config());
            let options = match Instant::now().checked_add(timeout) {
                Some(deadline) => options.until(deadline),
                None => options,
            };
            let query = |query: &Query, at_ms| run(&engine, query, at_ms, &options);
            ask(&spec, rule, at_ms, &Outside { query: &query, external_url: &url })
        });
        let found = asked.await.map_err(|error| error.to_string())??;
        match found {
            Found::Series(series) => self.write_series(key, series, query_time(group, at_ms)).await,
            Found::Alerts(candidates) => {
                let hold_missing = self.in_grace();
                let Some(active) = self.settle(key, candidates, hold_missing, at_ms).await? else { return Ok(()) };
                if let Err(error) = self.write_series(key, alert_series(&active), query_time(group, at_ms)).await {
                    warn!(group = %group.name, %error, "ALERTS could not be written; the alert itself is stored");
                }
                Ok(())
            }
        }
    }

    /// Whether agents may not be back yet after the server's start.
    pub(super) fn in_grace(&self) -> bool {
        let grace_ms = shipwatch_common::time::duration_ms(self.config.startup_grace);
        (0..grace_ms).contains(&(self.parts.clock.now_ms() - self.started_at_ms))
    }

    /// Writes a rule's series, and the end of those that it had before.
    async fn write_series(&self, key: &str, series: Elements, ts_ms: UnixMs) -> Result<(), String> {
        let previous = self.book().rule(key).and_then(|(group, at)| Some(group.rules.get(at)?.previous.clone())).unwrap_or_default();
        let (samples, now) = samples(series, &previous, ts_ms);
        self.write(samples).await?;
        if let Some(rule) = self.book().rule_mut(key) {
            (rule.previous, rule.written_ms) = (now, Some(ts_ms));
        }
        Ok(())
    }

    async fn write(&self, samples: Vec<Sample>) -> Result<(), String> {
        if samples.is_empty() {
            return Ok(());
        }
        let (engine, now_ms) = (Arc::clone(&self.parts.series), self.parts.clock.now_ms());
        let (samples, forward) = (Arc::new(samples), Arc::clone(&self.parts.forward));
        let written = tokio::task::spawn_blocking(move || {
            engine.append_at(now_ms, vec![Append { samples: Arc::clone(&samples), ..Append::default() }])?;
            forward.take(&[Batch { source: "", seq: 0, samples: &samples }], now_ms);
            Ok::<_, shipwatch_series::Error>(())
        });
        written.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    pub(super) async fn host_loop(&self, cancel: &CancellationToken) {
        let Some(key) = self.host_rule() else { return };
        loop {
            tokio::select! {
                () = tokio::time::sleep(hosts::EVERY) => {}
                () = cancel.cancelled() => return,
            }
            self.look_at_hosts(&key).await;
        }
    }

    pub(super) fn host_rule(&self) -> Option<String> {
        let book = self.book();
        let group = book.groups.iter().find(|group| group.spec.file == "built-in")?;
        group.rules.first().map(|rule| rule.key.clone())
    }

    pub(super) async fn look_at_hosts(&self, key: &str) {
        let (at_ms, began) = (self.parts.clock.now_ms(), Instant::now());
        let result = self.evaluate_hosts(key, at_ms).await;
        self.counters.evaluations_total.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = &result {
            self.counters.failures_total.fetch_add(1, Ordering::Relaxed);
            warn!(%error, "hosts could not be looked at; their alerts stay as they are");
        }
        let mut book = self.book();
        if let Some(rule) = book.rule_mut(key) {
            rule.health = result.map_or_else(Health::Bad, |()| Health::Good);
            (rule.evaluated_ms, rule.took) = (Some(at_ms), began.elapsed());
        }
    }

    async fn evaluate_hosts(&self, key: &str, at_ms: UnixMs) -> Result<(), String> {
        let all = self.parts.store.hosts().await.map_err(|error| error.to_string())?;
        let connected: HashSet<_> = self.parts.registry.all().into_keys().collect();
        let mut silent = hosts::silent(&all, &connected, |at| self.renderer.time(at), at_ms);
        if self.in_grace() {
            // Nothing begins; what was there goes on, and who is back is back.
            let known: HashSet<Labels> = self.open_labels(key);
            silent.retain(|candidate| known.contains(&candidate.labels));
        }
        let Some(active) = self.settle(key, silent, false, at_ms).await? else { return Ok(()) };
        let series = alert_series(&active);
        if self.is_written(key, &series, at_ms) { Ok(()) } else { self.write_series(key, series, at_ms).await }
    }

    /// Whether the same series were written less than an evaluation interval ago: hosts are looked at more often than that.
    fn is_written(&self, key: &str, series: &Elements, at_ms: UnixMs) -> bool {
        let interval_ms = shipwatch_common::time::duration_ms(self.config.interval);
        let book = self.book();
        book.rule(key).and_then(|(group, at)| group.rules.get(at)).is_some_and(|rule| {
            let same = rule.previous.len() == series.len() && series.iter().all(|(labels, _)| rule.previous.contains(labels));
            same && (series.is_empty() || rule.written_ms.is_some_and(|written| (0..interval_ms).contains(&(at_ms - written))))
        })
    }

    fn open_labels(&self, key: &str) -> HashSet<Labels> {
        let book = self.book();
        let Some(rule) = book.rule(key).and_then(|(group, at)| group.rules.get(at)) else { return HashSet::new() };
        rule.active.values().filter(|alert| alert.state.resolved_ms().is_none()).map(|alert| alert.labels.clone()).collect()
    }

    /// Makes messages when they are due.
    pub(super) async fn dispatch_loop(&self, cancel: &CancellationToken) {
        loop {
            let (due_ms, pending) = {
                let book = self.book();
                (book.dispatcher.due_ms(&self.policy), book.has_pending())
            };
            let wait_ms = due_ms.map_or(i64::MAX, |due| due.saturating_sub(self.parts.clock.now_ms())).max(0);
            let wait = Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0)).min(LOOK);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.regrouped.notified() => continue,
                () = cancel.cancelled() => return,
            }
            if let Err(error) = self.flush(pending).await {
                warn!(%error, "messages could not be made; trying again");
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = cancel.cancelled() => return,
                }
            }
            debug!("groups of messages were looked at");
        }
    }
}

fn run(engine: &Engine, query: &Query, at_ms: UnixMs, options: &EvalOptions) -> Result<Elements, String> {
    let output = query.instant(engine, at_ms, options).map_err(|error| error.to_string())?;
    match output.value {
        Value::Vector(elements) => Ok(elements.into_iter().map(|element| (element.labels, element.value)).collect()),
        Value::Scalar(value) => Ok(vec![(Arc::new(Labels::default()), value)]),
        Value::Matrix(_) | Value::String(_) => Err("rule result is not a vector or scalar".to_owned()),
    }
}
