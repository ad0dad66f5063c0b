//! The outbox: delivers what is stored, one channel at a time, in order, until the channel took it or it is given up.
//!
//! # Invariants
//! - Nothing overtakes: the oldest open message of a channel is tried until it ends, then the next.
//! - Waiting times double up to [`MAX_PAUSE`], with jitter; what a channel asks for counts more. A message is given up after a
//!   configured age, or when the channel rejects it; that is logged, counted, and shown with its reason.
//! - A channel's quota is kept here: a message over it waits as `throttled` and is not lost.

use super::{
    alert::{Notification, Reason},
    channel::{Channel, Outcome},
    group::Audience as _,
};
use crate::store::{Store, StoreError, alerts::DeliveryRow};
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    backoff::{Backoff, random_unit},
    time::{UnixMs, duration_ms, format_duration},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Longest pause between attempts.
const MAX_PAUSE: Duration = Duration::from_secs(300);
/// Looked at again even if nobody says that something is new.
const IDLE: Duration = Duration::from_secs(60);
const MINUTE_MS: i64 = 60_000;

/// A message and what became of it; the shape of `docs/api.md` beside `notification`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Delivery {
    /// The notification's.
    pub id: String,
    /// To whom.
    pub channel: String,
    /// `webhook`, `dingtalk`, `email`.
    pub kind: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// Why it is sent.
    pub reason: Reason,
    /// Its first line.
    pub title: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was made.
    pub created_at_ms: UnixMs,
    /// When it is tried (again).
    pub next_attempt_ms: Option<UnixMs>,
    /// When it ended.
    pub finished_at_ms: Option<UnixMs>,
    /// What the last attempt said, if it failed.
    pub last_error: Option<String>,
    /// Whom it speaks of.
    pub fingerprints: Vec<String>,
    /// What is sent.
    pub notification: Notification,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// To be tried.
    Queued,
    /// Taken by the channel.
    Accepted,
    /// Waits for the channel's quota.
    Throttled,
    /// Given up.
    Dead,
}

impl DeliveryState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Accepted => "accepted",
            Self::Throttled => "throttled",
            Self::Dead => "dead",
        }
    }
}

impl Delivery {
    /// A new one.
    #[must_use]
    pub fn new(notification: Notification, kind: &str, title: String) -> Self {
        Self {
            id: notification.id.clone(),
            channel: notification.channel.clone(),
            kind: kind.to_owned(),
            state: DeliveryState::Queued,
            reason: notification.reason,
            title,
            attempts: 0,
            created_at_ms: notification.created_at_ms,
            next_attempt_ms: Some(notification.created_at_ms),
            finished_at_ms: None,
            last_error: None,
            fingerprints: notification.alerts.iter().map(|alert| alert.fingerprint.clone()).collect(),
            notification,
        }
    }

    /// As it is stored.
    ///
    /// # Errors
    /// Never in practice: all of it has JSON words.
    pub fn row(&self) -> Result<DeliveryRow, StoreError> {
        Ok(DeliveryRow {
            id: self.id.clone(),
            channel: self.channel.clone(),
            state: self.state.as_str().to_owned(),
            next_at_ms: self.next_attempt_ms,
            created_at_ms: self.created_at_ms,
            finished_at_ms: self.finished_at_ms,
            body: serde_json::to_string(self)?,
        })
    }

    fn end(&mut self, state: DeliveryState, now_ms: UnixMs, reason: Option<String>) {
        (self.state, self.last_error) = (state, reason);
        (self.next_attempt_ms, self.finished_at_ms) = (None, Some(now_ms));
    }

    /// What an attempt changes. Pure.
    pub fn apply(&mut self, outcome: Outcome, give_up_after: Duration, random: f64, now_ms: UnixMs) {
        self.attempts = self.attempts.saturating_add(1);
        let (state, reason, pause) = match outcome {
            Outcome::Accepted(_) => return self.end(DeliveryState::Accepted, now_ms, None),
            Outcome::Rejected(reason) => return self.end(DeliveryState::Dead, now_ms, Some(reason)),
            Outcome::Throttled { reason, after } => (DeliveryState::Throttled, reason, after),
            Outcome::Retry { reason, after } => {
                let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
                let mut pause = Duration::ZERO;
                for _ in 0..self.attempts.min(16) {
                    pause = backoff.next(random);
                }
                (DeliveryState::Queued, reason, after.map_or(pause, |after| after.max(pause)))
            }
        };
        let age = Duration::from_millis(u64::try_from(now_ms - self.created_at_ms).unwrap_or(0));
        if age >= give_up_after {
            let text = format!("given up after {} and {} attempts; the last one: {reason}", format_duration(give_up_after), self.attempts);
            return self.end(DeliveryState::Dead, now_ms, Some(text));
        }
        self.state = state;
        self.last_error = Some(reason);
        self.next_attempt_ms = Some(now_ms.saturating_add(duration_ms(pause)));
    }
}

/// Attempts of the last minute, and until when the channel wants to hear nothing.
#[derive(Debug, Default)]
struct Quota {
    recent: VecDeque<UnixMs>,
    closed_until_ms: UnixMs,
}

impl Quota {
    /// How long to wait before the next attempt.
    fn wait_ms(&mut self, per_minute: Option<usize>, now_ms: UnixMs) -> i64 {
        // A clock that went back empties the window: what was sent then was sent in the past.
        self.recent.retain(|at| (0..MINUTE_MS).contains(&(now_ms - at)));
        // No vendor closes for longer than an hour; more comes from a clock that jumped.
        let closed = Some(self.closed_until_ms - now_ms).filter(|wait| *wait <= 60 * MINUTE_MS).unwrap_or(0);
        let full = per_minute.filter(|most| self.recent.len() >= *most).and_then(|most| self.recent.get(self.recent.len() - most));
        closed.max(full.map_or(0, |oldest| oldest + MINUTE_MS - now_ms)).max(0)
    }
}

/// What is counted per channel, for `/metrics`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages that the channel took.
    pub accepted_total: AtomicU64,
    /// Attempts that failed and are tried again.
    pub failed_total: AtomicU64,
    /// Messages that were given up.
    pub dead_total: AtomicU64,
}

/// What the worker does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing is open.
    Idle,
    /// Something is open, but not before this.
    Wait(Duration),
    /// An attempt was made; this is what is stored of it.
    Tried(Box<Delivery>),
}

/// Delivers for one channel.
#[derive(Debug)]
pub struct Worker {
    channel: Arc<Channel>,
    store: Arc<Store>,
    give_up_after: Duration,
    quota: Mutex<Quota>,
    /// Numbers.
    pub counters: Counters,
    wake: tokio::sync::Notify,
}

impl Worker {
    /// For a channel. `recent` are times of attempts before this start, for the quota.
    #[must_use]
    pub fn new(channel: Arc<Channel>, store: Arc<Store>, give_up_after: Duration, mut recent: Vec<UnixMs>) -> Self {
        recent.sort_unstable();
        let quota = Mutex::new(Quota { recent: recent.into(), closed_until_ms: 0 });
        Self { channel, store, give_up_after, quota, counters: Counters::default(), wake: tokio::sync::Notify::new() }
    }

    /// The channel.
    #[must_use]
    pub const fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Something new is stored.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    fn quota<T>(&self, use_it: impl FnOnce(&mut Quota) -> T) -> T {
        use_it(&mut self.quota.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One message outside of the outbox, for a person who waits for the answer.
    ///
    /// # Errors
    /// What the channel said.
    pub async fn send_now(&self, message: &Notification, now_ms: UnixMs) -> Result<String, String> {
        let wait = self.quota(|quota| quota.wait_ms(self.channel.per_minute(), now_ms));
        if wait > 0 {
            return Err(format!("the channel's quota is used up for {} s", wait / 1_000 + 1));
        }
        match self.attempt(message, now_ms).await {
            Outcome::Accepted(answer) => Ok(answer),
            Outcome::Retry { reason, .. } | Outcome::Throttled { reason, .. } | Outcome::Rejected(reason) => Err(reason),
        }
    }

    async fn attempt(&self, message: &Notification, now_ms: UnixMs) -> Outcome {
        self.quota(|quota| quota.recent.push_back(now_ms));
        let outcome = self.channel.send(message, now_ms).await;
        if let Outcome::Throttled { after, .. } = &outcome {
            let after_ms = duration_ms(*after);
            self.quota(|quota| quota.closed_until_ms = now_ms + after_ms);
        }
        outcome
    }

    /// Tries the oldest open message if it is time.
    ///
    /// # Errors
    /// The store. The attempt may have been made; it is made again with the same id.
    pub async fn turn(&self, clock: &(dyn Fn() -> UnixMs + Send + Sync)) -> Result<Next, StoreError> {
        let Some(row) = self.store.next_delivery(self.channel.name()).await? else { return Ok(Next::Idle) };
        let mut delivery: Delivery = serde_json::from_str(&row.body)?;
        let now_ms = clock();
        let own_wait = delivery.next_attempt_ms.map_or(0, |at| at - now_ms).min(60 * MINUTE_MS);
        let quota_wait = self.quota(|quota| quota.wait_ms(self.channel.per_minute(), now_ms));
        if quota_wait > own_wait.max(0) && delivery.state != DeliveryState::Throttled {
            delivery.state = DeliveryState::Throttled;
            delivery.next_attempt_ms = Some(now_ms + quota_wait);
            self.store.update_delivery(delivery.row()?).await?;
        }
        let wait = own_wait.max(quota_wait);
        if wait > 0 {
            return Ok(Next::Wait(Duration::from_millis(u64::try_from(wait).unwrap_or(0))));
        }
        let outcome = self.attempt(&delivery.notification, now_ms).await;
        delivery.apply(outcome, self.give_up_after, random_unit(), clock());
        self.store.update_delivery(delivery.row()?).await?;
        self.report(&delivery);
        Ok(Next::Tried(Box::new(delivery)))
    }

    fn report(&self, delivery: &Delivery) {
        let (id, channel, attempts) = (&delivery.id, &delivery.channel, delivery.attempts);
        let reason = delivery.last_error.as_deref().unwrap_or_default();
        match delivery.state {
            DeliveryState::Accepted => {
                self.counters.accepted_total.fetch_add(1, Ordering::Relaxed);
                info!(%channel, %id, attempts, title = %delivery.title, "message delivered");
            }
            DeliveryState::Dead => {
                self.counters.dead_total.fetch_add(1, Ordering::Relaxed);
                error!(%channel, %id, attempts, title = %delivery.title, %reason, "message given up: nobody was told");
            }
            DeliveryState::Queued | DeliveryState::Throttled => {
                self.counters.failed_total.fetch_add(1, Ordering::Relaxed);
                warn!(%channel, %id, attempts, %reason, state = delivery.state.as_str(), "message not delivered; it is tried again");
            }
        }
    }

    /// Delivers until `cancel`; an attempt that has begun is finished. `changed` is told of each attempt.
    pub async fn run(
        &self,
        cancel: &CancellationToken,
        clock: &(dyn Fn() -> UnixMs + Send + Sync),
        changed: &(dyn Fn(&Delivery) + Send + Sync),
    ) {
        while !cancel.is_cancelled() {
            let pause = match self.turn(clock).await {
                Ok(Next::Tried(delivery)) => {
                    changed(&delivery);
                    continue;
                }
                Ok(Next::Idle) => IDLE,
                Ok(Next::Wait(wait)) => wait.min(IDLE),
                Err(StoreError::Value(error)) => {
                    error!(channel = self.channel.name(), %error, "a stored message cannot be read; it blocks its channel until it is removed");
                    IDLE
                }
                Err(error) => {
                    warn!(channel = self.channel.name(), %error, "the outbox cannot be read or written; trying again");
                    FIRST_PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
                () = cancel.cancelled() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
