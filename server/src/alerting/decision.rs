//! One decision: what an evaluation, a timer or a reload changes of alerts, with the messages that follow, stored as one
//! transaction and then published.

use super::{
    Alerts, KEEP_RESOLVED_MS,
    book::{StoredAlert, StoredDispatcher, alert_id, holds},
};
use crate::{
    notify::{
        group::{Audience as _, Dispatcher},
        outbox::Delivery,
    },
    rules::{
        evaluate::{ActiveSet, Candidate, Stepped, fingerprint, step},
        state::{State, Transition},
    },
    store::alerts::{AlertChanges, HistoryRow},
};
use shipwatch_common::time::UnixMs;
use shipwatch_series::promql::format_value;
use std::collections::BTreeSet;
use tracing::info;

/// More changes than this at once are one live event.
const MAX_EVENTS: usize = 50;

/// What is stored together, gathered.
struct Draft {
    changes: AlertChanges,
    dispatcher: Dispatcher,
    channels: BTreeSet<String>,
    fingerprints: Vec<String>,
}

impl Alerts {
    /// Moves the alerts of a rule by what its expression gave. Gives the alerts as they are now; `None` if the rule is gone.
    ///
    /// # Errors
    /// The rule's limit or the store: nothing changed.
    pub(super) async fn settle(
        &self,
        key: &str,
        candidates: Vec<Candidate>,
        hold_missing: bool,
        at_ms: UnixMs,
    ) -> Result<Option<ActiveSet>, String> {
        let _turn = self.turn.lock().await;
        let now_ms = self.parts.clock.now_ms();
        let (mut draft, stepped) = {
            let book = self.book();
            let Some((group, at)) = book.rule(key) else { return Ok(None) };
            let (Some(rule), Some(state)) = (group.spec.rules.get(at), group.rules.get(at)) else { return Ok(None) };
            let Some(holds) = holds(rule) else { return Ok(None) };
            let (before, held) = split_held(&state.active, &candidates, hold_missing);
            let mut stepped = step(&before, candidates, holds, group.spec.limit, KEEP_RESOLVED_MS, at_ms)?;
            stepped.active.extend(held);
            let mut draft = Draft::new(book.dispatcher.clone());
            let describe = |active| group.stored(at, active);
            draft.rule(key, &state.active, &stepped, describe, self, at_ms).map_err(|error| error.to_string())?;
            (draft, stepped)
        };
        self.flush_into(&mut draft, now_ms)?;
        self.store(draft, now_ms).await?;
        let active = stepped.active;
        let mut book = self.book();
        for (fingerprint, alert) in active.iter().filter(|(_, alert)| matches!(alert.state, State::Firing { .. })) {
            book.dispatcher.refresh(&alert_id(key, *fingerprint), &format_value(alert.value), &alert.annotations);
        }
        if let Some(rule) = book.rule_mut(key) {
            rule.active.clone_from(&active);
        }
        Ok(Some(active))
    }

    /// Ends the alerts of rules that are gone.
    ///
    /// # Errors
    /// The store: it is tried again.
    pub(super) async fn settle_gone(&self) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let now_ms = self.parts.clock.now_ms();
        let (mut draft, resolved) = {
            let book = self.book();
            let (open, forget) = book.unsettled(now_ms);
            let mut draft = Draft::new(book.dispatcher.clone());
            let mut resolved = Vec::new();
            for mut alert in open {
                alert.active.state = State::Resolved {
                    since_ms: alert.active.state.since_ms(),
                    fired_ms: alert.active.state.fired_ms().unwrap_or(now_ms),
                    resolved_ms: now_ms,
                };
                draft.alert(&alert, Some(Transition::Resolved), self, now_ms).map_err(|error| error.to_string())?;
                resolved.push(alert);
            }
            draft.changes.forget = forget;
            (draft, resolved)
        };
        let forget: BTreeSet<String> = draft.changes.forget.iter().cloned().collect();
        self.flush_into(&mut draft, now_ms)?;
        self.store(draft, now_ms).await?;
        let mut book = self.book();
        book.gone.retain(|alert| !forget.contains(&alert.id()));
        for alert in resolved {
            let id = alert.id();
            if let Some(known) = book.gone.iter_mut().find(|known| known.id() == id) {
                *known = alert;
            }
        }
        Ok(())
    }

    /// Makes the messages that are due, and notes that rules are watched.
    ///
    /// # Errors
    /// The store: it is tried again.
    pub(super) async fn flush(&self, note_watching: bool) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        let now_ms = self.parts.clock.now_ms();
        let mut draft = Draft::new(self.book().dispatcher.clone());
        self.flush_into(&mut draft, now_ms)?;
        if note_watching && draft.changes.dispatcher.is_none() {
            draft.changes.dispatcher = Some(stored(&draft.dispatcher, now_ms)?);
        }
        self.store(draft, now_ms).await
    }

    fn flush_into(&self, draft: &mut Draft, now_ms: UnixMs) -> Result<(), String> {
        let messages = draft.dispatcher.flush(&self.channels(), &self.policy, now_ms);
        for message in messages {
            let Some(worker) = self.workers.iter().find(|worker| worker.channel().name() == message.channel) else { continue };
            draft.channels.insert(message.channel.clone());
            let title = self.renderer.title(&message);
            let delivery = Delivery::new(message, worker.channel().kind().as_str(), title);
            draft.changes.deliveries.push(delivery.row().map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    /// Stores and publishes what concerns grouping, wakes who has to do.
    async fn store(&self, mut draft: Draft, now_ms: UnixMs) -> Result<(), String> {
        let regrouped = draft.dispatcher != self.book().dispatcher;
        if regrouped {
            draft.changes.dispatcher = Some(stored(&draft.dispatcher, now_ms)?);
        }
        let changes = draft.changes;
        let nothing = changes.alerts.is_empty() && changes.forget.is_empty() && changes.history.is_empty();
        if nothing && changes.deliveries.is_empty() && changes.dispatcher.is_none() {
            return Ok(());
        }
        let messages: Vec<String> = changes.deliveries.iter().map(|row| row.id.clone()).collect();
        self.parts.store.save_alerts(changes).await.map_err(|error| format!("alerts cannot be stored: {error}"))?;
        self.book().dispatcher = draft.dispatcher;
        if regrouped {
            self.regrouped.notify_one();
        }
        for worker in self.workers.iter().filter(|worker| draft.channels.contains(worker.channel().name())) {
            worker.wake();
        }
        for (what, ids) in [("alerts", draft.fingerprints), ("notifications", messages)] {
            for id in ids.iter().take(MAX_EVENTS) {
                self.parts.changes.send(what, id);
            }
        }
        Ok(())
    }
}

/// Alerts that stay as they are although the expression does not have them: agents are not back yet.
fn split_held(active: &ActiveSet, candidates: &[Candidate], hold_missing: bool) -> (ActiveSet, ActiveSet) {
    let found: BTreeSet<u64> = candidates.iter().map(|candidate| fingerprint(&candidate.labels)).collect();
    active
        .iter()
        .map(|(id, alert)| (*id, alert.clone()))
        .partition(|(id, alert)| !hold_missing || found.contains(id) || alert.state.resolved_ms().is_some())
}

fn stored(dispatcher: &Dispatcher, now_ms: UnixMs) -> Result<String, String> {
    let stored = StoredDispatcher { version: 1, watched_at_ms: now_ms, dispatcher: dispatcher.clone() };
    serde_json::to_string(&stored).map_err(|error| error.to_string())
}

impl Draft {
    fn new(dispatcher: Dispatcher) -> Self {
        Self { changes: AlertChanges::default(), dispatcher, channels: BTreeSet::new(), fingerprints: Vec::new() }
    }

    /// What a step of a rule changed.
    fn rule(
        &mut self,
        key: &str,
        before: &ActiveSet,
        stepped: &Stepped,
        describe: impl Fn(crate::rules::evaluate::Active) -> Option<StoredAlert>,
        alerts: &Alerts,
        at_ms: UnixMs,
    ) -> Result<(), serde_json::Error> {
        for (id, active) in &stepped.active {
            let transition = stepped.changes.iter().find(|(of, _)| of == id).map(|(_, transition)| *transition);
            let moved = before.get(id).is_none_or(|old| old.state != active.state);
            if let Some(alert) = describe(active.clone()).filter(|_| moved) {
                self.alert(&alert, transition, alerts, at_ms)?;
            }
        }
        for (id, _) in stepped.changes.iter().filter(|(_, transition)| *transition == Transition::Cleared) {
            self.changes.forget.push(alert_id(key, *id));
            let fingerprint = format!("{id:016x}");
            self.changes.history.push(HistoryRow {
                fingerprint: fingerprint.clone(),
                at_ms,
                state: "inactive".to_owned(),
                value: f64::NAN,
            });
            self.fingerprints.push(fingerprint);
        }
        self.changes.forget.extend(stepped.forgotten.iter().map(|id| alert_id(key, *id)));
        Ok(())
    }

    /// One alert's new state.
    fn alert(
        &mut self,
        alert: &StoredAlert,
        transition: Option<Transition>,
        alerts: &Alerts,
        at_ms: UnixMs,
    ) -> Result<(), serde_json::Error> {
        self.changes.alerts.push(alert.row(at_ms)?);
        let Some(transition) = transition else { return Ok(()) };
        let told = alert.told(alerts.renderer.external_url());
        let state = alert.active.state.word();
        info!(alert = %alert.active.labels, state, value = alert.active.value, group = %alert.group, "alert changed");
        self.fingerprints.push(told.fingerprint.clone());
        let row = HistoryRow { fingerprint: told.fingerprint.clone(), at_ms, state: state.to_owned(), value: alert.active.value };
        self.changes.history.push(row);
        if matches!(transition, Transition::Fired | Transition::Resolved) {
            self.dispatcher.note(&alert.id(), told, &alerts.policy, alerts.parts.clock.now_ms());
        }
        Ok(())
    }
}
