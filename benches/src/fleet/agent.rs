//! One simulated agent: enrolment, session, the metrics lane.
//!
//! # Invariants
//! - Sequences grow by one from 1; an acknowledgement covers everything up to it, as for real agents.
//! - An agent whose connection breaks fails the run: nothing is sent twice, so what is missing at the end was lost.

use super::series::{Host, Layout};
use anyhow::{Context as _, Result, bail};
use shipwatch_common::{
    identity::{self, Credentials, EnrolmentToken},
    model::HostFacts,
    protocol::{
        AgentMessage, EnrolAnswer, EnrolRequest, Hello, Lane, LaneMessage, LaneOpen, LaneState, MetricsBatch, OLDEST_VERSION,
        ServerMessage, SnapshotEncoder, VERSION, encode_frame, message::LaneBody,
    },
    time::now_ms,
    transport::{self, Receiver, Trust},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Barrier, Notify, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// As real agents do.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
const GENERATION: u64 = 1;

/// When an agent sends.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// On the grid of the interval.
    Grid {
        /// The interval.
        step_ms: i64,
    },
    /// As fast as acknowledgements come.
    Ahead {
        /// Between the times of two ticks.
        step_ms: i64,
        /// Ticks that may wait for their acknowledgement.
        window: usize,
        /// Most ticks: times do not go beyond now.
        most: u64,
    },
}

impl Pace {
    /// Between the times of two ticks.
    #[must_use]
    pub const fn step_ms(self) -> i64 {
        match self {
            Self::Grid { step_ms } | Self::Ahead { step_ms, .. } => step_ms,
        }
    }
}

/// What all agents do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Time of the first tick.
    pub first_ms: i64,
    /// When they send.
    pub pace: Pace,
    /// What they send.
    pub layout: Arc<Layout>,
}

/// What all agents share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Passed when every agent's first tick is acknowledged.
    pub barrier: Arc<Barrier>,
    /// Ends the run.
    pub stop: CancellationToken,
    /// Handshakes at a time.
    pub turns: Arc<Semaphore>,
}

/// What an agent did.
#[derive(Debug)]
pub struct Outcome {
    /// Its name in the fleet.
    pub name: String,
    /// Ticks sent, all acknowledged, the first included.
    pub ticks: u64,
    /// Time of the last.
    pub last_ms: i64,
    /// From write to acknowledgement, without the first tick.
    pub ack_us: Vec<u32>,
    /// Bytes of frames, without the first tick.
    pub frame_bytes: u64,
    /// Bytes of datagrams sent since the first tick was acknowledged.
    pub udp_bytes: u64,
    /// These datagrams.
    pub datagrams: u64,
}

/// An agent's name.
#[must_use]
pub fn name(number: u32) -> String {
    format!("bench-{number:05}")
}

/// Enrols through the real path.
///
/// # Errors
/// The server refuses or is not there.
pub async fn enrol(server: &str, token: &str, name: &str) -> Result<Credentials> {
    let token = EnrolmentToken::parse(token)?;
    let (key, csr_der) = identity::new_request()?;
    let (endpoint, connection) = transport::connect(server, &Trust::Fingerprint(token.ca_fingerprint)).await?;
    let request = EnrolRequest { secret: token.secret, csr_der, name: name.to_owned(), facts: facts(name) };
    let (mut to, from) = connection.open_bi().await?;
    transport::send(&mut to, &request).await?;
    let answer = Receiver::new(from).next::<EnrolAnswer>().await?;
    connection.close(0u32.into(), b"enrolled");
    endpoint.wait_idle().await;
    match answer {
        Some(EnrolAnswer::Accepted { chain_der, name: given }) if given == name => {
            Ok(Credentials { chain: chain_der.into_iter().map(Into::into).collect(), key })
        }
        other => bail!("{name} was not enrolled: {other:?}"),
    }
}

fn facts(name: &str) -> HostFacts {
    HostFacts { hostname: name.to_owned(), agent_version: env!("CARGO_PKG_VERSION").to_owned(), ..HostFacts::default() }
}

/// Connects, sends until it is told to stop, and waits for every acknowledgement.
///
/// # Errors
/// The connection broke or the server said something unexpected.
pub async fn run(number: u32, credentials: Credentials, server: String, plan: Plan, shared: Shared) -> Result<Outcome> {
    let name = name(number);
    let turn = Arc::clone(&shared.turns).acquire_owned().await?;
    let ca = credentials.chain.last().cloned().context("an identity without a CA")?;
    let trust = Trust::Enrolled { ca: &ca, credentials: &credentials };
    let (_endpoint, connection) = transport::connect(&server, &trust).await.with_context(|| name.clone())?;
    let (mut control, from) = connection.open_bi().await?;
    let mut from = Receiver::new(from);
    transport::send(&mut control, &AgentMessage::Hello(Box::new(hello(&name)))).await?;
    match from.next().await? {
        Some(ServerMessage::Welcome(_)) => {}
        other => bail!("{name} was not welcomed: {other:?}"),
    }
    let mut stream = connection.open_uni().await?;
    transport::send(&mut stream, &LaneOpen { lane: Lane::Metrics }).await?;
    let sender =
        Sender { stream, dictionary: SnapshotEncoder::default(), host: Host::new(Arc::clone(&plan.layout), number.into()), seq: 0 };
    let acks = Acks::default();
    let outcome = tokio::select! {
        outcome = send(name, sender, &connection, &plan, &shared, &acks, turn) => outcome,
        ended = read(from, &acks) => Err(ended),
        ended = report(&mut control) => Err(ended),
    };
    let outcome = outcome.with_context(|| match connection.close_reason() {
        Some(reason) => format!("{}: {}", self::name(number), transport::explain(&reason)),
        None => self::name(number),
    })?;
    transport::send(&mut control, &AgentMessage::Goodbye { reason: "the run is over".to_owned() }).await?;
    connection.close(0u32.into(), b"bye");
    Ok(outcome)
}

fn lane_state() -> LaneState {
    LaneState { lane: Lane::Metrics, generations: vec![GENERATION], pending_bytes: 0 }
}

fn hello(name: &str) -> Hello {
    Hello {
        oldest_version: OLDEST_VERSION,
        version: VERSION,
        facts: facts(name),
        deploys_allowed: false,
        lanes: vec![lane_state()],
        now_ms: now_ms(),
    }
}

/// Says every few seconds that it lives. Ends with the connection only.
async fn report(control: &mut quinn::SendStream) -> anyhow::Error {
    loop {
        tokio::time::sleep(STATUS_INTERVAL).await;
        let status = AgentMessage::Status { now_ms: now_ms(), lanes: vec![lane_state()] };
        if let Err(error) = transport::send(control, &status).await {
            return error.into();
        }
    }
}

/// Takes acknowledgements. Ends with the connection only.
async fn read(mut from: Receiver, acks: &Acks) -> anyhow::Error {
    loop {
        match from.next().await {
            Ok(Some(ServerMessage::Ack(mark))) => acks.take(mark.seq),
            Ok(Some(other)) => return anyhow::anyhow!("the server said {other:?}"),
            Ok(None) => return anyhow::anyhow!("the server ended the session"),
            Err(error) => return error.into(),
        }
    }
}

async fn send(
    name: String,
    mut sender: Sender,
    connection: &quinn::Connection,
    plan: &Plan,
    shared: &Shared,
    acks: &Acks,
    turn: tokio::sync::OwnedSemaphorePermit,
) -> Result<Outcome> {
    sender.tick(plan.first_ms, acks).await?;
    acks.fewer_than(1).await;
    drop(turn);
    shared.barrier.wait().await;
    acks.lock().ack_us.clear();
    let before = connection.stats().udp_tx;
    let (mut last_ms, mut frame_bytes) = (plan.first_ms, 0);
    while let Some(ts_ms) = next(last_ms, sender.seq, plan.pace, &shared.stop, acks).await {
        frame_bytes += sender.tick(ts_ms, acks).await?;
        last_ms = ts_ms;
    }
    acks.fewer_than(1).await;
    let after = connection.stats().udp_tx;
    Ok(Outcome {
        name,
        ticks: sender.seq,
        last_ms,
        ack_us: std::mem::take(&mut acks.lock().ack_us),
        frame_bytes,
        udp_bytes: after.bytes - before.bytes,
        datagrams: after.datagrams - before.datagrams,
    })
}

/// Waits until the next tick is due and gives its time; nothing when the run is over.
async fn next(last_ms: i64, sent: u64, pace: Pace, stop: &CancellationToken, acks: &Acks) -> Option<i64> {
    let due = async {
        match pace {
            Pace::Grid { step_ms } => {
                // Behind by more than a tick: the missed ones are left out, as real agents do.
                let next = (last_ms + step_ms).max(now_ms() / step_ms * step_ms);
                tokio::time::sleep(Duration::from_millis(u64::try_from(next - now_ms()).unwrap_or(0))).await;
                Some(next)
            }
            Pace::Ahead { step_ms, window, most } => {
                acks.fewer_than(window.max(1)).await;
                // Lets other agents' tasks run even while this one never has to wait.
                tokio::task::yield_now().await;
                (sent < most).then_some(last_ms + step_ms)
            }
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        due = due => due,
    }
}

/// The metrics lane.
struct Sender {
    stream: quinn::SendStream,
    dictionary: SnapshotEncoder,
    host: Host,
    seq: u64,
}

impl Sender {
    /// Sends one tick; gives the frame's size.
    async fn tick(&mut self, ts_ms: i64, acks: &Acks) -> Result<u64> {
        self.seq += 1;
        let (new_series, body) = self.dictionary.encode(&MetricsBatch { ts_ms, samples: self.host.tick() });
        let message = LaneMessage { generation: GENERATION, seq: self.seq, body: LaneBody::Metrics { ts_ms, new_series, body } };
        let frame = encode_frame(&message)?;
        acks.sent(self.seq);
        self.stream.write_all(&frame).await?;
        Ok(frame.len() as u64)
    }
}

/// What waits for its acknowledgement.
#[derive(Default)]
struct Acks {
    waiting: Mutex<Waiting>,
    came: Notify,
}

#[derive(Default)]
struct Waiting {
    sent: VecDeque<(u64, Instant)>,
    ack_us: Vec<u32>,
}

impl Acks {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self, seq: u64) {
        self.lock().sent.push_back((seq, Instant::now()));
    }

    fn take(&self, up_to: u64) {
        let (now, mut waiting) = (Instant::now(), self.lock());
        while let Some((_, at)) = waiting.sent.pop_front_if(|(seq, _)| *seq <= up_to) {
            let us = u32::try_from((now - at).as_micros()).unwrap_or(u32::MAX);
            waiting.ack_us.push(us);
        }
        self.came.notify_one();
    }

    /// Waits until fewer than this many wait. Called by one task.
    async fn fewer_than(&self, count: usize) {
        while self.lock().sent.len() >= count {
            self.came.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_acknowledgement_covers_what_came_before_it() {
        let acks = Acks::default();
        for seq in 1..=4 {
            acks.sent(seq);
        }
        tokio::time::advance(Duration::from_millis(3)).await;
        acks.take(3);
        assert_eq!(acks.lock().ack_us, [3_000; 3]);
        assert_eq!(acks.lock().sent.len(), 1);
        acks.fewer_than(2).await;
        let waits = tokio::time::timeout(Duration::from_secs(1), acks.fewer_than(1)).await;
        assert!(waits.is_err(), "did not wait for the last acknowledgement");
        acks.take(4);
        acks.fewer_than(1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_goes_ahead_ends_with_its_times_or_with_the_run() {
        let (acks, stop) = (Acks::default(), CancellationToken::new());
        let pace = Pace::Ahead { step_ms: 15, window: 2, most: 3 };
        assert_eq!(next(100, 2, pace, &stop, &acks).await, Some(115));
        assert_eq!(next(100, 3, pace, &stop, &acks).await, None);
        stop.cancel();
        assert_eq!(next(100, 2, pace, &stop, &acks).await, None);
    }
}
