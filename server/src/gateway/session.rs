//! One agent's connection.

use super::Shared;
use crate::{ingest::IngestError, store::hosts::Host};
use shipwatch_common::{
    model::{Labels, LogBatch, Sample, deploy::Event},
    protocol::{
        AgentMessage, Hello, Lane, LaneMark, LaneMessage, LaneOpen, OLDEST_VERSION, ServerMessage, SnapshotDecoder, VERSION, Welcome,
        decode, message::LaneBody,
    },
    time::{duration_ms, now_ms},
    transport::{self, CLOSE_REFUSED, Receiver, TransportError},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

/// The agent says hello within this time.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages to the agent that may wait.
const OUTGOING: usize = 64;
/// Records committed together per lane.
const BATCH_RECORDS: usize = 256;
/// Pause before records that could not be stored are tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Serves a connection whose certificate was checked, until it ends.
pub(super) async fn serve(connection: quinn::Connection, host: Host, shared: &Arc<Shared>) {
    let (name, id) = (host.name.clone(), host.id);
    let ended = run(&connection, host, shared).await;
    match (&ended, connection.close_reason()) {
        (_, Some(quinn::ConnectionError::ApplicationClosed(_)) | None) => info!(host = %name, "session ended"),
        (_, Some(reason)) => warn!(host = %name, reason = %transport::explain(&reason), "session lost"),
    }
    if let Err(error) = ended {
        match error {
            TransportError::Frame(error) => {
                shared.counters.bad_messages_total.fetch_add(1, Ordering::Relaxed);
                warn!(host = %name, %error, "the agent sent what cannot be read; the connection is closed");
                connection.close(CLOSE_REFUSED.into(), error.to_string().as_bytes());
            }
            other => debug!(host = %name, error = %other, "session"),
        }
    }
    // Also the answer to a goodbye: the agent waits for it.
    connection.close(0u32.into(), b"bye");
    shared.changed.host(&id.to_string());
}

async fn run(connection: &quinn::Connection, host: Host, shared: &Arc<Shared>) -> Result<(), TransportError> {
    let lost = |error: quinn::ConnectionError| TransportError::Lost(transport::explain(&error));
    let hello = async {
        let (to, from) = connection.accept_bi().await.map_err(lost)?;
        let mut from = Receiver::new(from);
        match from.next::<AgentMessage>().await? {
            Some(AgentMessage::Hello(hello)) => Ok((to, from, hello)),
            _ => Err(TransportError::Lost("the agent did not begin with a hello".to_owned())),
        }
    };
    let (mut to, from, hello) =
        tokio::time::timeout(HELLO_TIMEOUT, hello).await.map_err(|_| TransportError::Lost("the agent did not say hello".to_owned()))??;
    if hello.version < OLDEST_VERSION || hello.oldest_version > VERSION {
        let reason = format!(
            "the agent speaks protocol versions {} to {}, this server {OLDEST_VERSION} to {VERSION}: upgrade the older side",
            hello.oldest_version, hello.version
        );
        warn!(host = %host.name, %reason, "refused an agent");
        transport::send(&mut to, &ServerMessage::Refused { reason }).await?;
        let _already_closed = to.finish();
        let _agent_slow = tokio::time::timeout(Duration::from_secs(5), to.stopped()).await;
        return Ok(());
    }
    let stored = |error: crate::store::StoreError| TransportError::Lost(error.to_string());
    let marks = marks(&host, &hello, shared).await.map_err(stored)?;
    let address = connection.remote_address().to_string();
    shared.store.host_connected(host.id, hello.facts.clone(), address, hello.deploys_allowed, now_ms()).await.map_err(stored)?;
    let version = hello.version.min(VERSION);
    transport::send(&mut to, &ServerMessage::Welcome(Welcome { version, name: host.name.clone(), marks, now_ms: now_ms() })).await?;

    let (messages, outgoing) = mpsc::channel(OUTGOING);
    let session = shared.registry.enter(host.id, host.name.clone(), connection.clone(), messages.clone(), now_ms());
    shared.registry.seen(host.id, session, now_ms(), Some((hello.now_ms, hello.lanes)));
    shared.counters.sessions_total.fetch_add(1, Ordering::Relaxed);
    info!(host = %host.name, address = %connection.remote_address(), agent = %hello.facts.agent_version, "agent connected");
    shared.changed.host(&host.id.to_string());
    shared.changed.deployments();

    let session = Session { host: Arc::new(host), number: session, shared: Arc::clone(shared), messages };
    let ended = tokio::select! {
        ended = session.control(from) => ended,
        ended = write(&mut to, outgoing) => ended,
        ended = session.lanes(connection) => ended,
    };
    shared.registry.leave(session.host.id, session.number);
    ended
}

/// What is already stored of the generations that the agent still holds, in their order: the agent goes on behind the last one.
/// The log lane begins at its oldest record again; the log engine knows each file's position and drops what it has.
async fn marks(host: &Host, hello: &Hello, shared: &Arc<Shared>) -> Result<Vec<LaneMark>, crate::store::StoreError> {
    let mut marks = Vec::new();
    for state in &hello.lanes {
        let prefix = format!("{}/{}/", host.id, state.lane.as_str());
        let events = if state.lane == Lane::Events { shared.store.event_marks(prefix.clone()).await? } else { Vec::new() };
        for generation in &state.generations {
            let source = format!("{prefix}{generation}");
            let seq = match state.lane {
                Lane::Metrics => (shared.marks.0)(&source),
                Lane::Events => events.iter().find(|(known, _)| *known == source).map(|(_, seq)| *seq),
                Lane::Logs => None,
            };
            marks.extend(seq.map(|seq| LaneMark { lane: state.lane, generation: *generation, seq }));
        }
    }
    Ok(marks)
}

async fn write(to: &mut quinn::SendStream, mut outgoing: mpsc::Receiver<ServerMessage>) -> Result<(), TransportError> {
    while let Some(message) = outgoing.recv().await {
        transport::send(to, &message).await?;
    }
    Ok(())
}

/// What a session's parts share.
#[derive(Clone)]
struct Session {
    host: Arc<Host>,
    number: u64,
    shared: Arc<Shared>,
    messages: mpsc::Sender<ServerMessage>,
}

impl Session {
    async fn control(&self, mut from: Receiver) -> Result<(), TransportError> {
        while let Some(message) = from.next::<AgentMessage>().await? {
            let now = now_ms();
            self.shared.registry.seen(self.host.id, self.number, now, None);
            match message {
                AgentMessage::Status { now_ms, lanes } => self.shared.registry.seen(self.host.id, self.number, now, Some((now_ms, lanes))),
                AgentMessage::Renew { csr_der } => self.renew(&csr_der, now).await,
                AgentMessage::Goodbye { reason } => {
                    info!(host = %self.host.name, %reason, "agent said goodbye");
                    if let Err(error) = self.shared.store.host_said_goodbye(self.host.id, now).await {
                        warn!(host = %self.host.name, %error, "could not note the goodbye");
                    }
                    self.shared.changed.host(&self.host.id.to_string());
                    return Ok(());
                }
                AgentMessage::Refused { what } => {
                    warn!(host = %self.host.name, %what, "the agent refused a message of this server");
                    if let Err(error) = self.shared.store.audit(now, &format!("agent {}", self.host.name), "refused", &what).await {
                        warn!(%error, "could not write the audit log");
                    }
                }
                AgentMessage::Hello(_) => return Err(TransportError::Lost("the agent said hello twice".to_owned())),
            }
        }
        Ok(())
    }

    async fn renew(&self, csr_der: &[u8], now: i64) {
        let life = self.shared.config.certificate_life;
        let expires = now.saturating_add(duration_ms(life));
        match self.shared.authority.issue_agent(self.host.id, csr_der, now, life) {
            Ok(chain) => {
                if let Err(error) = self.shared.store.host_renewed(self.host.id, expires).await {
                    warn!(host = %self.host.name, %error, "could not note the renewal");
                }
                let chain_der = chain.iter().map(|certificate| certificate.to_vec()).collect();
                // A full queue means a stuck connection; the agent asks again.
                let _dropped = self.messages.try_send(ServerMessage::Certificate { chain_der });
                info!(host = %self.host.name, "certificate renewed");
            }
            Err(error) => warn!(host = %self.host.name, %error, "could not renew the certificate"),
        }
    }

    /// Serves the lanes' streams until one of them fails. They end with the session: no task outlives it.
    async fn lanes(&self, connection: &quinn::Connection) -> Result<(), TransportError> {
        let mut running = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                stream = connection.accept_uni() => {
                    let stream = stream.map_err(|error| TransportError::Lost(transport::explain(&error)))?;
                    let session = self.clone();
                    running.spawn(async move { session.lane(Receiver::new(stream)).await });
                }
                Some(ended) = running.join_next() => {
                    match ended {
                        // The agent gives a lane's stream up and opens a new one when it stops.
                        Ok(Ok(()) | Err(TransportError::Lost(_))) => {}
                        Ok(Err(error)) => return Err(error),
                        Err(panic) => return Err(TransportError::Lost(panic.to_string())),
                    }
                }
            }
        }
    }

    async fn lane(&self, mut from: Receiver) -> Result<(), TransportError> {
        let Some(LaneOpen { lane }) = from.next().await? else { return Ok(()) };
        let mut decoder = LaneDecoder { session: self, lane, dictionary: SnapshotDecoder::default() };
        while let Some(first) = from.next::<LaneMessage>().await? {
            let mut batch = Batch::default();
            decoder.add(&mut batch, first)?;
            while batch.records < BATCH_RECORDS
                && let Some(next) = from.buffered::<LaneMessage>()?
            {
                if batch.generation != Some(next.generation) {
                    self.commit(lane, std::mem::take(&mut batch)).await?;
                }
                decoder.add(&mut batch, next)?;
            }
            self.commit(lane, batch).await?;
        }
        Ok(())
    }

    /// Stores the batch, however long that takes, and acknowledges it.
    async fn commit(&self, lane: Lane, batch: Batch) -> Result<(), TransportError> {
        let Some(generation) = batch.generation else { return Ok(()) };
        let ingest = &self.shared.ingest;
        let source = self.source(lane, generation);
        loop {
            let outcome = match lane {
                // Samples are shared, not copied.
                Lane::Metrics => ingest.metrics(batch.metrics.clone()).await,
                Lane::Logs => ingest.logs(batch.logs.clone()).await,
                Lane::Events => ingest.events(&source, self.host.id, batch.events.clone()).await,
            };
            match outcome {
                Ok(()) => break,
                Err(IngestError::Closed) => return Err(TransportError::Lost("the server stops".to_owned())),
                Err(error) => {
                    warn!(host = %self.host.name, lane = lane.as_str(), %error, "could not store what the agent sent; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        self.shared.registry.seen(self.host.id, self.number, now_ms(), None);
        if lane == Lane::Events {
            self.shared.changed.deployments();
        }
        let ack = ServerMessage::Ack(LaneMark { lane, generation, seq: batch.last_seq });
        self.messages.send(ack).await.map_err(|_| TransportError::Lost("the session ended".to_owned()))
    }

    /// The key of a lane's sequence in the engines.
    fn source(&self, lane: Lane, generation: u64) -> String {
        format!("{}/{}/{generation}", self.host.id, lane.as_str())
    }

    /// Labels with the host's own set over whatever the agent said; the token's further labels only where the agent has none.
    fn host_labels(&self, labels: &Labels, host_label: &str) -> Result<Labels, TransportError> {
        let host = &self.host;
        let further =
            host.labels.iter().filter(|(name, _)| labels.get(name).is_none()).map(|(name, value)| (name.as_str(), value.as_str()));
        let own = [(host_label, host.name.as_str()), ("env", host.env.as_str()), ("region", host.region.as_str())];
        labels
            .with(further.chain(own))
            .map_err(|error| TransportError::Frame(shipwatch_common::protocol::FrameError::Decode(error.to_string())))
    }
}

/// Consecutive records of one generation.
#[derive(Default)]
struct Batch {
    generation: Option<u64>,
    last_seq: u64,
    records: usize,
    metrics: Vec<shipwatch_series::Append>,
    logs: Vec<shipwatch_logs::Append>,
    events: Vec<(u64, Event)>,
}

struct LaneDecoder<'a> {
    session: &'a Session,
    lane: Lane,
    dictionary: SnapshotDecoder<Arc<Labels>>,
}

impl LaneDecoder<'_> {
    fn add(&mut self, batch: &mut Batch, message: LaneMessage) -> Result<(), TransportError> {
        let wrong = |text: &str| TransportError::Frame(shipwatch_common::protocol::FrameError::Decode(text.to_owned()));
        let (generation, seq) = (message.generation, message.seq);
        let source = self.session.source(self.lane, generation);
        match (self.lane, message.body) {
            (Lane::Metrics, LaneBody::Metrics { ts_ms, new_series, body }) => {
                let announced = new_series
                    .iter()
                    .map(|labels| {
                        if labels.metric_name().is_empty() {
                            return Err(wrong("a series has no name"));
                        }
                        self.session.host_labels(labels, "instance").map(Arc::new)
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                let sample = |labels: &Arc<Labels>, value| Sample { labels: Arc::clone(labels), ts_ms, value };
                let samples = self.dictionary.decode_as(announced, &body, sample)?;
                batch.metrics.push(shipwatch_series::Append { source, seq, samples: samples.into() });
            }
            (Lane::Logs, LaneBody::Logs(bytes)) => {
                let mut lines: LogBatch = decode(&bytes)?;
                lines.labels = self.session.host_labels(&lines.labels, "host")?;
                batch.logs.push(shipwatch_logs::Append { source, seq, agent: self.session.host.id.to_string(), batches: vec![lines] });
            }
            (Lane::Events, LaneBody::Event(json)) => {
                let event = serde_json::from_str(&json).map_err(|error| wrong(&format!("event: {error}")))?;
                batch.events.push((seq, event));
            }
            _ => return Err(wrong("a record of another lane")),
        }
        batch.generation = Some(generation);
        batch.last_seq = seq;
        batch.records += 1;
        Ok(())
    }
}
