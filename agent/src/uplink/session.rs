//! One connection, from hello to its end.

use super::{Counters, FLUSH_TIMEOUT, SessionError, Uplink};
use crate::spool::{
    lanes::{Spool, log_batch},
    queue::Record,
};
use crate::uplink::identity::Identity;
use shipwatch_common::{
    identity::{self, Credentials},
    model::{HostFacts, deploy::Command},
    protocol::{
        AgentMessage, Hello, Lane, LaneMessage, LaneOpen, MetricsBatch, OLDEST_VERSION, ServerMessage, SnapshotEncoder, VERSION, Welcome,
        decode, encode_frame, message::LaneBody,
    },
    time::now_ms,
    transport::{self, CLOSE_REFUSED, Receiver, TransportError, Trust},
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Proof of life and fill of the spool; well within the time after which the connection counts as lost.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// The server answers the hello within this time.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Records read from the spool at once.
const READ_BYTES: usize = 512 << 10;
/// A dictionary near the wire's bound is begun anew by reconnecting.
const MAX_DICTIONARY: usize = 150_000;

/// A new key whose certificate was asked for.
type PendingKey = Option<rustls::pki_types::PrivateKeyDer<'static>>;

pub(super) async fn run(uplink: &mut Uplink, cancel: &CancellationToken) -> Result<(), SessionError> {
    let ca = uplink
        .identity
        .credentials
        .chain
        .last()
        .cloned()
        .ok_or_else(|| SessionError::Protocol("the identity has no CA; enrol again".to_owned()))?;
    let trust = Trust::Enrolled { ca: &ca, credentials: &uplink.identity.credentials };
    let (endpoint, connection) = tokio::select! {
        connected = transport::connect(&uplink.server, &trust) => connected?,
        () = cancel.cancelled() => return Ok(()),
    };
    let ended = talk(uplink, &connection, cancel).await;
    // What the other end said when it closed tells more than the stream's error.
    let ended = match (ended, connection.close_reason()) {
        (Err(SessionError::Transport(_)), Some(quinn::ConnectionError::ApplicationClosed(close)))
            if close.error_code == CLOSE_REFUSED.into() =>
        {
            Err(SessionError::Refused(String::from_utf8_lossy(&close.reason).into_owned()))
        }
        (Err(SessionError::Transport(TransportError::Lost(_))), Some(reason)) => {
            Err(TransportError::Lost(transport::explain(&reason)).into())
        }
        (ended, _) => ended,
    };
    connection.close(0u32.into(), b"bye");
    let _unfinished = tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
    ended
}

async fn talk(uplink: &mut Uplink, connection: &quinn::Connection, cancel: &CancellationToken) -> Result<(), SessionError> {
    let lost = |error: quinn::ConnectionError| SessionError::from(TransportError::Lost(transport::explain(&error)));
    let (mut to, from) = connection.open_bi().await.map_err(lost)?;
    let mut from = Receiver::new(from);
    transport::send(&mut to, &AgentMessage::Hello(Box::new(hello(&uplink.spool, &uplink.facts, uplink.deploys_allowed)))).await?;
    let welcome = tokio::time::timeout(WELCOME_TIMEOUT, from.next::<ServerMessage>())
        .await
        .map_err(|_| SessionError::Protocol("the server did not answer the hello".to_owned()))??;
    let welcome = match welcome {
        Some(ServerMessage::Welcome(welcome)) => welcome,
        Some(ServerMessage::Refused { reason }) => return Err(SessionError::Refused(reason)),
        Some(_) => return Err(SessionError::Protocol("the server did not begin with a welcome".to_owned())),
        None => return Err(TransportError::Lost("the server closed the connection".to_owned()).into()),
    };
    begin(uplink, &welcome)?;

    let (control, outgoing) = mpsc::channel(16);
    let Uplink { store, identity, spool, commands, counters, .. } = uplink;
    let mut reader = ControlReader { from, store, identity, spool, commands, counters, pending_key: None, control: control.clone() };
    tokio::select! {
        ended = reader.run() => ended,
        ended = write_control(&mut to, outgoing) => ended,
        ended = status(connection, spool, counters, &control) => ended,
        ended = send_lane(connection, spool, Lane::Metrics, counters) => ended,
        ended = send_lane(connection, spool, Lane::Logs, counters) => ended,
        ended = send_lane(connection, spool, Lane::Events, counters) => ended,
        () = cancel.cancelled() => goodbye(connection, spool, counters, reader, to).await,
    }
}

fn hello(spool: &Spool, facts: &HostFacts, deploys_allowed: bool) -> Hello {
    Hello {
        oldest_version: OLDEST_VERSION,
        version: VERSION,
        facts: facts.clone(),
        deploys_allowed,
        lanes: spool.states(),
        now_ms: now_ms(),
    }
}

fn begin(uplink: &Uplink, welcome: &Welcome) -> Result<(), SessionError> {
    let skew_ms = welcome.now_ms - now_ms();
    if skew_ms.abs() > 30_000 {
        warn!(skew_ms, "this host's clock differs from the server's; mend the time synchronisation");
    }
    for mark in &welcome.marks {
        uplink.spool.lane(mark.lane).ack(mark.generation, mark.seq)?;
    }
    for lane in Lane::ALL {
        uplink.spool.lane(lane).rewind();
    }
    uplink.counters.connected.store(true, Ordering::Relaxed);
    uplink.counters.sessions_total.fetch_add(1, Ordering::Relaxed);
    info!(server = %uplink.server, name = %welcome.name, "connected");
    Ok(())
}

/// Sends what is left for a short time, then says goodbye.
async fn goodbye(
    connection: &quinn::Connection,
    spool: &Spool,
    counters: &Counters,
    mut reader: ControlReader<'_>,
    mut to: quinn::SendStream,
) -> Result<(), SessionError> {
    // The senders were cancelled between or within frames: their streams are given up, new ones resend what is not acknowledged.
    for lane in Lane::ALL {
        spool.lane(lane).rewind();
    }
    let flushed = async {
        while Lane::ALL.iter().any(|lane| spool.lane(*lane).pending_bytes() > 0) {
            spool.acknowledged().await;
        }
    };
    tokio::select! {
        () = flushed => {}
        () = tokio::time::sleep(FLUSH_TIMEOUT) => debug!("not everything was acknowledged before the stop; it stays in the spool"),
        ended = reader.run() => ended?,
        ended = send_lane(connection, spool, Lane::Metrics, counters) => ended?,
        ended = send_lane(connection, spool, Lane::Logs, counters) => ended?,
        ended = send_lane(connection, spool, Lane::Events, counters) => ended?,
    }
    transport::send(&mut to, &AgentMessage::Goodbye { reason: "the agent was stopped".to_owned() }).await?;
    let _already_closed = to.finish();
    // The server closes once it has noted the goodbye. Closing first could make it miss what it has received but not yet read,
    // and take a stopped agent for a lost one.
    let _server_is_slow = tokio::time::timeout(FLUSH_TIMEOUT, connection.closed()).await;
    Ok(())
}

async fn status(
    connection: &quinn::Connection,
    spool: &Spool,
    counters: &Counters,
    control: &mpsc::Sender<AgentMessage>,
) -> Result<(), SessionError> {
    let mut tick = tokio::time::interval(STATUS_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut bytes, mut datagrams) = (0, 0);
    loop {
        tick.tick().await;
        let sent = connection.stats().udp_tx;
        counters.sent_udp_bytes_total.fetch_add(sent.bytes - bytes, Ordering::Relaxed);
        counters.sent_datagrams_total.fetch_add(sent.datagrams - datagrams, Ordering::Relaxed);
        (bytes, datagrams) = (sent.bytes, sent.datagrams);
        // A full channel means that the connection is stuck; QUIC's own time-out ends it.
        let _dropped = control.try_send(AgentMessage::Status { now_ms: now_ms(), lanes: spool.states() });
    }
}

async fn write_control(to: &mut quinn::SendStream, mut outgoing: mpsc::Receiver<AgentMessage>) -> Result<(), SessionError> {
    let _closed = to.set_priority(10);
    while let Some(message) = outgoing.recv().await {
        transport::send(to, &message).await?;
    }
    Ok(())
}

struct ControlReader<'a> {
    from: Receiver,
    store: &'a super::IdentityStore,
    identity: &'a mut Identity,
    spool: &'a Arc<Spool>,
    commands: &'a mpsc::Sender<Command>,
    counters: &'a Counters,
    pending_key: PendingKey,
    control: mpsc::Sender<AgentMessage>,
}

impl ControlReader<'_> {
    async fn run(&mut self) -> Result<(), SessionError> {
        loop {
            let renew_in = u64::try_from(self.identity.certificate.renew_at_ms() - now_ms()).unwrap_or(0);
            // The cap makes the clock looked at again after a suspend or a jump.
            let wait = Duration::from_millis(renew_in.clamp(1_000, 3_600_000));
            tokio::select! {
                message = self.from.next::<ServerMessage>() => match message? {
                    Some(message) => self.take(message)?,
                    None => return Err(TransportError::Lost("the server closed the connection".to_owned()).into()),
                },
                () = tokio::time::sleep(wait) => if now_ms() >= self.identity.certificate.renew_at_ms() { self.renew()?; },
            }
        }
    }

    fn take(&mut self, message: ServerMessage) -> Result<(), SessionError> {
        match message {
            ServerMessage::Ack(mark) => {
                self.spool.lane(mark.lane).ack(mark.generation, mark.seq)?;
                self.spool.notify_acknowledged();
            }
            ServerMessage::Command { json } => self.command(&json),
            ServerMessage::Certificate { chain_der } => self.certificate(chain_der),
            ServerMessage::Refused { reason } => return Err(SessionError::Refused(reason)),
            ServerMessage::Welcome(_) => return Err(SessionError::Protocol("the server said welcome twice".to_owned())),
        }
        Ok(())
    }

    /// Hands a command to the executor, which asks the local policy. Anything else that a server may think of ends here.
    fn command(&self, json: &str) {
        let refused = match serde_json::from_str::<Command>(json) {
            Ok(command) => match self.commands.try_send(command) {
                Ok(()) => return,
                Err(_) => "the deploy executor is not taking commands now".to_owned(),
            },
            Err(error) => format!("this is not a command that the agent knows: {error}"),
        };
        self.counters.refused_total.fetch_add(1, Ordering::Relaxed);
        let shown: String = json.chars().take(200).collect();
        warn!(reason = %refused, command = %shown, "refused a command of the server");
        let _dropped = self.control.try_send(AgentMessage::Refused { what: refused });
    }

    fn renew(&mut self) -> Result<(), SessionError> {
        let made = identity::new_request().map_err(|error| SessionError::Protocol(error.to_string()))?;
        self.pending_key = Some(made.0);
        let _dropped = self.control.try_send(AgentMessage::Renew { csr_der: made.1 });
        // Asked again after a while if no answer comes.
        self.identity.certificate.not_before_ms = self.identity.certificate.not_before_ms.max(now_ms() - 3_600_000 - 60_000);
        Ok(())
    }

    fn certificate(&mut self, chain_der: Vec<Vec<u8>>) {
        let Some(key) = self.pending_key.take() else {
            self.counters.refused_total.fetch_add(1, Ordering::Relaxed);
            warn!("refused a certificate that was not asked for");
            return;
        };
        let chain: Vec<rustls::pki_types::CertificateDer<'static>> = chain_der.into_iter().map(Into::into).collect();
        let same_ca = chain.last() == self.identity.credentials.chain.last();
        match chain.first().map(|leaf| identity::read_agent_certificate(leaf)) {
            Some(Ok(certificate)) if certificate.agent == self.identity.certificate.agent && same_ca && chain.len() > 1 => {
                self.identity.credentials = Credentials { chain, key };
                self.identity.certificate = certificate;
                match self.store.save(self.identity) {
                    Ok(()) => info!(not_after_ms = certificate.not_after_ms, "certificate renewed"),
                    Err(error) => warn!(%error, "the renewed certificate could not be stored; the old one stays on disk"),
                }
            }
            _ => {
                self.counters.refused_total.fetch_add(1, Ordering::Relaxed);
                warn!("refused a certificate for another identity or from another CA");
            }
        }
    }
}

async fn send_lane(connection: &quinn::Connection, spool: &Spool, lane: Lane, counters: &Counters) -> Result<(), SessionError> {
    let mut stream = connection.open_uni().await.map_err(|error| TransportError::Lost(transport::explain(&error)))?;
    let _closed = stream.set_priority(match lane {
        Lane::Events => 2,
        Lane::Metrics => 1,
        Lane::Logs => 0,
    });
    transport::send(&mut stream, &LaneOpen { lane }).await?;
    let mut dictionary = SnapshotEncoder::default();
    loop {
        let waiting = spool.lane(lane).changed();
        let records = spool.lane(lane).read(READ_BYTES)?;
        if records.is_empty() {
            waiting.await;
            continue;
        }
        for record in records {
            let Some(frame) = frame(lane, record, &mut dictionary, counters)? else { continue };
            stream.write_all(&frame).await.map_err(|error| TransportError::Lost(error.to_string()))?;
            counters.sent_bytes_total.fetch_add(frame.len() as u64, Ordering::Relaxed);
            counters.sent_records_total.fetch_add(1, Ordering::Relaxed);
            if dictionary.len() > MAX_DICTIONARY {
                return Err(SessionError::Protocol("the dictionary of series is full; it is begun anew".to_owned()));
            }
        }
    }
}

/// One record as a frame; `None` for a record that this version cannot read (counted as refused, never sent half).
fn frame(lane: Lane, record: Record, dictionary: &mut SnapshotEncoder, counters: &Counters) -> Result<Option<Vec<u8>>, SessionError> {
    let (generation, seq) = (record.generation, record.seq);
    let body = match lane {
        Lane::Logs => match log_batch(&record.payload) {
            Some(batch) => LaneBody::Logs(batch.to_vec()),
            None => {
                warn!(generation, seq, "a record in the spool cannot be read and is left out");
                return Ok(None);
            }
        },
        Lane::Events => LaneBody::Event(String::from_utf8_lossy(&record.payload).into_owned()),
        Lane::Metrics => match decode::<MetricsBatch>(&zstd::bulk::decompress(&record.payload, 16 << 20).unwrap_or_default()) {
            Ok(batch) => {
                let (new_series, body) = dictionary.encode(&batch);
                counters.sent_samples_total.fetch_add(batch.samples.len() as u64, Ordering::Relaxed);
                LaneBody::Metrics { ts_ms: batch.ts_ms, new_series, body }
            }
            Err(error) => {
                warn!(%error, generation, seq, "a record in the spool cannot be read and is left out");
                return Ok(None);
            }
        },
    };
    let frame = encode_frame(&LaneMessage { generation, seq, body }).map_err(TransportError::from)?;
    if lane == Lane::Metrics {
        counters.sent_metrics_bytes_total.fetch_add(frame.len() as u64, Ordering::Relaxed);
    }
    Ok(Some(frame))
}
