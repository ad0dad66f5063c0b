//! Sends a target's queue: window by window, its lanes side by side, each request until it ended.
//!
//! # Invariants
//! - A window is noted on disk before its first request leaves ([`Cursor`]); the next one begins when all of its requests ended.
//! - A request that may be taken later is tried again, unchanged, until it is taken, too old, or dropped from a full queue.
//! - Waiting times double up to [`MAX_PAUSE`], with jitter; what the target asks for counts more.
//! - Stopping interrupts a request; the next start sends it again.

use super::{
    client::Client,
    config::Target,
    counters::{Counters, Dropped},
    cursor::{Cursor, Progress},
    judge::{Seldom, Verdict, judge},
    plan::{Request, Splitting, requests},
    queue::{Queue, Span},
    reader::{Entry, Reader, Window},
};
use futures_util::future::join_all;
use shipwatch_common::{
    backoff::{Backoff, random_unit},
    time::{duration_ms, now_ms},
};
use shipwatch_series::remote::{
    Description, Metadata, Version,
    send::{self, Outgoing},
};
use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Pause after the first failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause that the target did not ask for.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Requests of each lane in one window.
const REQUESTS: usize = 4;
/// Metrics whose descriptions are sent in 1.0.
const MAX_NAMES: usize = 20_000;
/// Descriptions in one request.
const DESCRIPTIONS: usize = 500;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the worker shares with who fills the queue and who shows numbers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) queue: Queue,
    pub(super) counters: Counters,
    pub(super) wake: Notify,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    client: Client,
    metadata: Arc<Metadata>,
    external: Vec<(String, String)>,
    /// The target does not understand 2.0.
    older: AtomicBool,
    place: Mutex<(Cursor, Progress)>,
    splitting: Mutex<Splitting>,
    logged: Mutex<[Seldom; 3]>,
    names: Mutex<BTreeSet<String>>,
}

/// How a request ended.
enum Ended {
    Taken,
    Refused {
        reason: String,
        split: bool,
    },
    /// Nothing of it is left.
    Old,
    /// Not at all: the server stops, or the queue dropped it.
    Left,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, client: Client, metadata: Arc<Metadata>, cursor: Cursor, progress: Progress) -> Self {
        let external = shared.target.external_labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Self {
            shared,
            client,
            metadata,
            external,
            older: AtomicBool::new(false),
            place: Mutex::new((cursor, progress)),
            splitting: Mutex::new(Splitting::new()),
            logged: Mutex::default(),
            names: Mutex::default(),
        }
    }

    /// Sends until `cancel`.
    pub(super) async fn run(self, cancel: CancellationToken) {
        let mut reader = Reader::default();
        let mut described = Instant::now();
        while !cancel.is_cancelled() {
            let began = Instant::now();
            let (back, window) = self.read(reader).await;
            reader = back;
            match window {
                Ok(Some(window)) => self.send_window(&window, reader.series(), &cancel).await,
                Ok(None) => self.shared.counters.waiting_since_ms.store(0, Relaxed),
                Err(error) => self.log(0, |left_out| {
                    warn!(target_name = %self.shared.target.name, %error, left_out, "a forward queue cannot be read; trying again");
                }),
            }
            self.describe(&mut described, &cancel).await;
            self.rest(began, &cancel).await;
        }
    }

    /// Waits for more, at least until samples have gathered for a while.
    async fn rest(&self, began: Instant, cancel: &CancellationToken) {
        let (interval, full) = (self.shared.target.send_interval, self.window_samples() as u64);
        while !cancel.is_cancelled() {
            let pending = self.shared.queue.pending().samples;
            let gathered = began.elapsed() >= interval;
            if pending >= full || (pending > 0 && gathered) {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep_until(began + interval), if !gathered => {}
                () = self.shared.wake.notified() => {}
                () = cancel.cancelled() => {}
            }
        }
    }

    fn window_samples(&self) -> usize {
        self.shared.target.lanes * self.shared.target.max_samples_per_send * REQUESTS
    }

    /// Under which settings windows are cut into requests.
    fn plan_hash(&self) -> u32 {
        crc32fast::hash(format!("{} {}", self.shared.target.lanes, self.shared.target.max_samples_per_send).as_bytes())
    }

    async fn read(&self, mut reader: Reader) -> (Reader, io::Result<Option<Window>>) {
        let (shared, max) = (Arc::clone(&self.shared), self.window_samples());
        let again = Some(lock(&self.place).1.span).filter(|span| span.to > span.from);
        let read = tokio::task::spawn_blocking(move || {
            let window = reader.window(&shared.queue, max, again);
            (reader, window)
        });
        read.await.unwrap_or_else(|error| (Reader::default(), Err(io::Error::other(error))))
    }

    async fn send_window(&self, window: &Window, series: &[Entry], cancel: &CancellationToken) {
        let (target, queue) = (&self.shared.target, &self.shared.queue);
        self.shared.counters.waiting_since_ms.store(window.queued_at_ms, Relaxed);
        let hash = |number: u32| series.get(number as usize).map_or(0, |entry| entry.hash as usize);
        let planned = requests(&window.points, hash, target.lanes, target.max_samples_per_send);
        let done = match self.begin(window.span) {
            Ok(done) => done,
            Err(error) => {
                // Without a note of the window a crash could mix old and new samples; the disk may have room soon.
                self.log(0, |left_out| warn!(target_name = %target.name, %error, left_out, "the place in a forward queue cannot be noted; trying again"));
                tokio::select! {
                    () = tokio::time::sleep(FIRST_PAUSE) => {}
                    () = cancel.cancelled() => {}
                }
                return;
            }
        };
        let lanes = planned.into_iter().zip(done).enumerate();
        let all = join_all(lanes.map(|(lane, (requests, done))| self.send_lane(lane, requests, done, window.span, series, cancel))).await;
        if all.contains(&false) && queue.holds(window.span.segment) {
            return;
        }
        if let Err(error) = queue.finish(window.span, window.samples) {
            warn!(target_name = %target.name, %error, "a file of a forward queue cannot be removed");
        }
        if window.damaged.is_some() {
            self.shared.counters.drop(Dropped::Damaged, queue.give_up(window.span));
        }
        self.shared.counters.waiting_since_ms.store(0, Relaxed);
        let mut place = lock(&self.place);
        let place = &mut *place;
        place.1 = Progress { span: Span { from: window.span.to, ..window.span }, plan: place.1.plan, ..Progress::default() };
        // Not durable: after a power loss the window is sent again, as it was.
        if let Err(error) = place.0.write(&place.1, false) {
            warn!(target_name = %target.name, %error, "the place in a forward queue could not be noted");
        }
    }

    /// Notes that a window is sent; tells what of it ended before.
    fn begin(&self, span: Span) -> io::Result<[u32; super::config::MAX_LANES]> {
        let mut place = lock(&self.place);
        let place = &mut *place;
        let plan = self.plan_hash();
        if place.1.span != span || place.1.plan != plan {
            place.1 = Progress { span, plan, ..Progress::default() };
        }
        if span.to > span.from {
            place.0.write(&place.1, true)?;
        }
        Ok(place.1.done)
    }

    /// Sends a lane's requests; false if it was interrupted.
    async fn send_lane(
        &self,
        lane: usize,
        requests: Vec<Request>,
        done: u32,
        span: Span,
        series: &[Entry],
        cancel: &CancellationToken,
    ) -> bool {
        for request in requests.into_iter().skip(done as usize) {
            if !self.send_request(request, span, series, cancel).await {
                return false;
            }
            let mut place = lock(&self.place);
            let place = &mut *place;
            place.1.done[lane] += 1;
            if let Err(error) = place.0.write(&place.1, false) {
                warn!(target_name = %self.shared.target.name, %error, "the place in a forward queue could not be noted");
            }
        }
        true
    }

    /// Sends a request, and when it is refused its parts, as far as that is worth it.
    async fn send_request(&self, request: Request, span: Span, series: &[Entry], cancel: &CancellationToken) -> bool {
        let mut allowed = lock(&self.splitting).allowed();
        let (mut waiting, mut saved, mut was_refused) = (vec![request], 0, false);
        while let Some(mut part) = waiting.pop() {
            match self.send_part(&mut part, span, series, cancel).await {
                Ended::Left => return false,
                Ended::Old => {}
                Ended::Taken => saved += part.samples(),
                Ended::Refused { reason, split } => {
                    was_refused = true;
                    let halves = if split && allowed >= 2 { part.halves() } else { Err(part) };
                    match halves {
                        Ok((first, second)) => {
                            allowed -= 2;
                            waiting.extend([second, first]);
                        }
                        Err(part) => self.refused(&part, series, &reason),
                    }
                }
            }
        }
        if was_refused {
            lock(&self.splitting).learn(saved);
        }
        true
    }

    fn refused(&self, part: &Request, series: &[Entry], reason: &str) {
        let (samples, name) = (part.samples(), &self.shared.target.name);
        self.shared.counters.drop(Dropped::Refused, samples as u64);
        let first = part.series.first().and_then(|(number, _)| series.get(*number as usize));
        let first = first.map_or_else(String::new, |entry| entry.labels.to_string().chars().take(300).collect());
        self.log(
            1,
            |left_out| warn!(target_name = %name, samples, %first, %reason, left_out, "the target refuses samples; they are dropped"),
        );
    }

    /// One request until it ended.
    async fn send_part(&self, part: &mut Request, span: Span, series: &[Entry], cancel: &CancellationToken) -> Ended {
        let (target, counters) = (&self.shared.target, &self.shared.counters);
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        loop {
            let old = part.forget_before(now_ms().saturating_sub(duration_ms(target.max_age)));
            counters.drop(Dropped::TooOld, old as u64);
            if part.series.is_empty() {
                return Ended::Old;
            }
            if cancel.is_cancelled() || !self.shared.queue.holds(span.segment) {
                return Ended::Left;
            }
            let verdict = tokio::select! {
                verdict = self.attempt(part, series) => verdict,
                () = cancel.cancelled() => return Ended::Left,
            };
            let (reason, after) = match verdict {
                Verdict::Taken { written } => {
                    self.taken(part, written);
                    return Ended::Taken;
                }
                Verdict::Refused { reason, split } => {
                    counters.failed_requests.fetch_add(1, Relaxed);
                    return Ended::Refused { reason, split };
                }
                Verdict::Older { reason } => {
                    self.fall_back(&reason);
                    continue;
                }
                Verdict::Retry { reason, after } => (reason, after),
            };
            counters.failed_requests.fetch_add(1, Relaxed);
            counters.retries.fetch_add(1, Relaxed);
            counters.down.fetch_add(1, Relaxed);
            let pause = backoff.next(random_unit()).max(after.unwrap_or_default());
            let pending = self.shared.queue.pending().samples;
            self.log(
                2,
                |left_out| warn!(target_name = %target.name, %reason, ?pause, pending, left_out, "samples not sent; they are tried again"),
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return Ended::Left,
            }
        }
    }

    fn taken(&self, part: &Request, written: usize) {
        let (counters, sent) = (&self.shared.counters, part.samples());
        counters.sent_samples.fetch_add(written as u64, Relaxed);
        counters.highest_sent_ms.fetch_max(part.newest().unwrap_or(0), Relaxed);
        if written < sent {
            counters.drop(Dropped::NotWritten, (sent - written) as u64);
            let name = &self.shared.target.name;
            self.log(1, |left_out| warn!(target_name = %name, sent, written, left_out, "the target wrote fewer samples than it was sent"));
        }
        if counters.down.swap(0, Relaxed) > 0 {
            info!(target_name = %self.shared.target.name, "the target takes samples again");
        }
    }

    fn fall_back(&self, reason: &str) {
        if !self.older.swap(true, Relaxed) {
            self.shared.counters.fallbacks.fetch_add(1, Relaxed);
            warn!(target_name = %self.shared.target.name, %reason, "the target does not understand remote write 2.0; 1.0 is taken until the next start");
        }
    }

    fn version(&self) -> Version {
        if self.older.load(Relaxed) { Version::V1 } else { self.shared.target.protocol.version() }
    }

    /// Sends once.
    async fn attempt(&self, part: &Request, series: &[Entry]) -> Verdict {
        let version = self.version();
        let known = self.described(version, part, series);
        let outgoing: Vec<Outgoing<'_>> = part
            .series
            .iter()
            .filter_map(|(number, samples)| {
                let labels = &*series.get(*number as usize)?.labels;
                Some(Outgoing { labels, samples, description: known.get(labels.metric_name()).and_then(Option::as_ref) })
            })
            .collect();
        let body = match send::body(version, &outgoing, &self.external) {
            Ok(body) => body,
            Err(error) => return Verdict::Refused { reason: error.to_string(), split: true },
        };
        let (bytes, counters) = (body.len() as u64, &self.shared.counters);
        counters.requests.fetch_add(1, Relaxed);
        match self.client.post(version, body).await {
            Ok(answer) => {
                let verdict = judge(version, part.samples(), &answer, &self.shared.target.retry_statuses, now_ms());
                if matches!(verdict, Verdict::Taken { .. }) {
                    counters.sent_bytes.fetch_add(bytes, Relaxed);
                }
                verdict
            }
            Err(reason) => Verdict::Retry { reason, after: None },
        }
    }

    /// What the metrics of a request are, for 2.0; for 1.0 their names are remembered.
    fn described<'a>(&self, version: Version, part: &Request, series: &'a [Entry]) -> HashMap<&'a str, Option<Description>> {
        let mut known = HashMap::new();
        let names = part.series.iter().filter_map(|(number, _)| Some(series.get(*number as usize)?.labels.metric_name()));
        if version == Version::V2 {
            names.for_each(|name| {
                known.entry(name).or_insert_with(|| self.metadata.of_family(name).map(|(_, description)| description));
            });
        } else if !self.shared.target.metadata_interval.is_zero() {
            let mut all = lock(&self.names);
            for name in names {
                if all.len() < MAX_NAMES && !all.contains(name) {
                    all.insert(name.to_owned());
                }
            }
        }
        known
    }

    /// Says in 1.0 what the metrics are that were sent, from time to time. What is lost of it comes again.
    async fn describe(&self, last: &mut Instant, cancel: &CancellationToken) {
        let interval = self.shared.target.metadata_interval;
        if interval.is_zero() || last.elapsed() < interval || self.version() != Version::V1 {
            return;
        }
        *last = Instant::now();
        let names: Vec<String> = lock(&self.names).iter().cloned().collect();
        let known: std::collections::BTreeMap<_, _> = names.iter().filter_map(|name| self.metadata.of_family(name)).collect();
        let known: Vec<_> = known.into_iter().collect();
        for some in known.chunks(DESCRIPTIONS) {
            let Ok(body) = send::metadata_body(some) else { return };
            let answer = tokio::select! {
                answer = self.client.post(Version::V1, body) => answer,
                () = cancel.cancelled() => return,
            };
            if !answer.is_ok_and(|answer| (200..300).contains(&answer.status)) {
                return;
            }
        }
    }

    fn log(&self, kind: usize, line: impl FnOnce(u64)) {
        let left_out = lock(&self.logged)[kind].ask(now_ms());
        if let Some(left_out) = left_out {
            line(left_out);
        }
    }
}
