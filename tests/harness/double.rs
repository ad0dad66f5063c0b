//! A double of the server: enrols an agent by the real wire, keeps every byte that it sent, decrypted, and says what it is told.

use shipwatch_common::{
    identity::{Authority, EnrolmentToken, fingerprint},
    model::AgentId,
    protocol::{
        ALPN_ENROL, AgentMessage, EnrolAnswer, EnrolRequest, LaneMark, LaneMessage, LaneOpen, MetricsBatch, ServerMessage, SnapshotDecoder,
        Welcome, encode, message::LaneBody,
    },
    time::now_ms,
    transport::{self, Receiver},
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinHandle};

/// What the double has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Every message as its decoded bytes, for looking for what must not be there.
    pub bytes: Vec<u8>,
    /// Samples.
    pub samples: usize,
    /// Control messages.
    pub control: Vec<AgentMessage>,
    /// Deploy events, JSON.
    pub events: Vec<String>,
    /// Sessions.
    pub sessions: usize,
}

/// A running double.
#[derive(Debug)]
pub struct Double {
    /// Where agents connect.
    pub address: SocketAddr,
    /// A token for it.
    pub token: String,
    /// What it has seen.
    pub seen: Arc<Mutex<Seen>>,
    say: mpsc::UnboundedSender<ServerMessage>,
    task: JoinHandle<()>,
}

impl Double {
    /// Starts it on a free port.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn start() -> Self {
        let (authority, _) = Authority::create(now_ms()).expect("a CA");
        let credentials = authority.issue_server(now_ms(), Duration::from_secs(3600)).expect("a certificate");
        let listen = "127.0.0.1:0".parse().expect("an address");
        let endpoint = transport::listen(listen, credentials, authority.certificate()).expect("a port");
        let address = endpoint.local_addr().expect("its address");
        let token = EnrolmentToken::create(fingerprint(authority.certificate())).expect("a token").to_text();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (say, words) = mpsc::unbounded_channel();
        let task = tokio::spawn(serve(endpoint, authority, Arc::clone(&seen), words));
        Self { address, token, seen, say, task }
    }

    /// Says this to the connected agent, or to the next one.
    ///
    /// # Panics
    /// If the double has ended.
    pub fn say(&self, message: ServerMessage) {
        self.say.send(message).expect("a running double");
    }

    /// Looks at what was seen.
    ///
    /// # Panics
    /// If the double panicked.
    pub fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().expect("what was seen"))
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(endpoint: quinn::Endpoint, authority: Authority, seen: Arc<Mutex<Seen>>, mut words: mpsc::UnboundedReceiver<ServerMessage>) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.await else { continue };
        if transport::peer(&connection).alpn == ALPN_ENROL {
            enrol(&connection, &authority).await;
        } else {
            let ended = session(&connection, &seen, &mut words).await;
            if ended.is_none() {
                connection.close(0u32.into(), b"");
            }
        }
    }
}

async fn enrol(connection: &quinn::Connection, authority: &Authority) {
    let Ok((mut to, from)) = connection.accept_bi().await else { return };
    let Ok(Some(request)) = Receiver::new(from).next::<EnrolRequest>().await else { return };
    let id = AgentId(*uuid::Uuid::new_v4().as_bytes());
    let chain = authority.issue_agent(id, &request.csr_der, now_ms(), Duration::from_secs(86_400)).expect("a certificate");
    let answer = EnrolAnswer::Accepted { chain_der: chain.iter().map(|certificate| certificate.to_vec()).collect(), name: request.name };
    transport::send(&mut to, &answer).await.expect("the answer is sent");
    to.finish().expect("an open stream");
    connection.closed().await;
}

/// Until the agent goes. `None` when it does.
async fn session(
    connection: &quinn::Connection,
    seen: &Arc<Mutex<Seen>>,
    words: &mut mpsc::UnboundedReceiver<ServerMessage>,
) -> Option<()> {
    let (mut to, from) = connection.accept_bi().await.ok()?;
    let mut from = Receiver::new(from);
    note(seen, from.next::<AgentMessage>().await.ok()??);
    let welcome = Welcome { version: 1, name: "double".into(), marks: vec![], now_ms: now_ms() };
    transport::send(&mut to, &ServerMessage::Welcome(welcome)).await.ok()?;
    seen.lock().expect("what was seen").sessions += 1;
    let (acks, mut acknowledge) = mpsc::unbounded_channel();
    let mut lanes = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            message = from.next::<AgentMessage>() => note(seen, message.ok()??),
            Some(word) = words.recv() => { transport::send(&mut to, &word).await.ok()?; }
            Some(mark) = acknowledge.recv() => { transport::send(&mut to, &ServerMessage::Ack(mark)).await.ok()?; }
            stream = connection.accept_uni() => { lanes.spawn(lane(Receiver::new(stream.ok()?), Arc::clone(seen), acks.clone())); }
        }
    }
}

fn note(seen: &Mutex<Seen>, message: AgentMessage) {
    let mut seen = seen.lock().expect("what was seen");
    seen.bytes.extend(encode(&message).expect("a message"));
    seen.control.push(message);
}

async fn lane(mut from: Receiver, seen: Arc<Mutex<Seen>>, acks: mpsc::UnboundedSender<LaneMark>) -> Option<()> {
    let LaneOpen { lane } = from.next().await.ok()??;
    let mut dictionary = SnapshotDecoder::default();
    while let Some(message) = from.next::<LaneMessage>().await.ok()? {
        {
            let mut seen = seen.lock().expect("what was seen");
            match &message.body {
                LaneBody::Metrics { ts_ms, new_series, body } => {
                    let named = new_series.iter().cloned().map(Arc::new).collect();
                    let samples = dictionary.decode(named, body).expect("a snapshot");
                    seen.samples += samples.len();
                    seen.bytes.extend(encode(&MetricsBatch { ts_ms: *ts_ms, samples }).expect("a batch"));
                }
                LaneBody::Logs(bytes) => seen.bytes.extend(bytes),
                LaneBody::Event(json) => {
                    seen.bytes.extend(json.as_bytes());
                    seen.events.push(json.clone());
                }
            }
        }
        acks.send(LaneMark { lane, generation: message.generation, seq: message.seq }).ok()?;
    }
    Some(())
}
