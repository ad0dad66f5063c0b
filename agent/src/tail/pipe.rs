//! What other programs write to `shipwatch-agent pipe --source NAME`: taken from it over a socket of this host.
//!
//! - [`client`]: the side of the command
//!
//! The command names the source, and a life that it makes up; the agent answers how many bytes of that life it has, and again
//! after every record. So a pipe is read like a file: its bytes have offsets, and after a restart of the agent the command sends
//! on from the last durable one.
//!
//! # Invariants
//! - An offset is answered after the sink took the lines before it. The command keeps what is not answered.
//! - While the sink is full nothing is read; the command stops reading, and whoever writes to it waits.
//! - The socket is the agent's user's only. Connections and what is remembered of lives are bounded.

pub(super) mod client;

use super::{
    StreamPosition, derived,
    lines::{self, Flush, Place},
    position::PIPE,
    stream::{self, Feed, Stopped, lock},
    streams::keep,
};
use shipwatch_common::{
    model::{FileId, Labels, LogBatch},
    time::now_ns,
};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

/// First word of a connection, with the version.
const HELLO: &str = "shipwatch-pipe 1";
/// Longest first line.
const HELLO_BYTES: usize = 256;
/// A command that says nothing at first is no such command.
const HELLO_WAIT: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 64;
/// Lives that are remembered.
const MAX_LIVES: usize = 100;
const READ_BYTES: usize = 64 << 10;

/// Whether a source may be called so.
pub(super) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// What all connections share.
struct Pipes {
    sources: Vec<(String, Feed)>,
    lives: Mutex<BTreeMap<FileId, StreamPosition>>,
}

/// Listens until the agent stops.
pub(super) fn run(socket: PathBuf, sources: Vec<(String, Feed)>, restored: &[StreamPosition]) -> impl Future<Output = ()> + use<> {
    let lives = restored.iter().filter(|position| position.name.starts_with(PIPE)).map(|position| (position.stream, position.clone()));
    let pipes = Arc::new(Pipes { sources, lives: Mutex::new(lives.collect()) });
    async move {
        let Some((_, feed)) = pipes.sources.first().cloned() else { return };
        keep(&format!("pipes at {}", socket.display()), &feed, || listen(&socket, &pipes, &feed)).await;
        let _gone_already = fs::remove_file(&socket);
    }
}

async fn listen(socket: &Path, pipes: &Arc<Pipes>, feed: &Feed) -> Result<Stopped, String> {
    let cannot = |error: io::Error| format!("cannot listen at {}: {error}", socket.display());
    // Left by an agent that was killed: there is one agent for a state directory.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot(error)),
        _ => {}
    }
    let listener = UnixListener::bind(socket).map_err(cannot)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).map_err(cannot)?;
    feed.set_failing(false);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
            () = feed.stop.cancelled() => return Ok(Stopped),
        };
        let (stream, _) = accepted.map_err(cannot)?;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let pipes = Arc::clone(pipes);
        connections.spawn(async move {
            // A connection that breaks is made again by the command, as far as it lives.
            let _broken = connection(stream, &pipes).await;
            drop(place);
        });
    }
}

async fn connection(mut stream: UnixStream, pipes: &Pipes) -> io::Result<()> {
    let hello = tokio::time::timeout(HELLO_WAIT, hello(&mut stream)).await??;
    let (feed, position) = match pipes.met(&hello) {
        Ok(met) => met,
        Err(refusal) => return stream.write_all(format!("error {refusal}\n").as_bytes()).await,
    };
    stream.write_all(format!("{}\n", position.offset).as_bytes()).await?;
    let Ok(labels) = feed.source.labels_with(&[]) else { return Ok(()) };
    let mut life = Life { feed, position, labels, bytes: Vec::new() };
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = tokio::select! {
            read = stream.read(&mut buffer) => Some(read?),
            // An event is over when nothing came behind it for a while.
            () = tokio::time::sleep(life.wait()), if !life.bytes.is_empty() => None,
            () = life.feed.stop.cancelled() => return Ok(()),
        };
        let flush = match read {
            None => Flush::Events,
            Some(0) => Flush::All,
            Some(read) => {
                life.bytes.extend_from_slice(&buffer[..read]);
                Flush::Nothing
            }
        };
        let before = life.position.offset;
        if life.take(flush, pipes).await.is_err() {
            return Ok(());
        }
        if life.position.offset > before {
            stream.write_all(format!("{}\n", life.position.offset).as_bytes()).await?;
        }
        if read == Some(0) {
            return Ok(());
        }
    }
}

/// The first line.
async fn hello(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    while line.len() < HELLO_BYTES {
        match stream.read_u8().await? {
            b'\n' => break,
            byte => line.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

impl Pipes {
    /// The source that is named, and how far the life was taken.
    fn met(&self, hello: &str) -> Result<(Feed, StreamPosition), String> {
        let words = hello.strip_prefix(HELLO).map(|rest| rest.split_ascii_whitespace().collect::<Vec<_>>());
        let Some([name, life]) = words.as_deref() else { return Err("the command is of another version than the agent".to_owned()) };
        let Ok(life) = life.parse::<uuid::Uuid>() else { return Err("the life is no UUID".to_owned()) };
        let Some((_, feed)) = self.sources.iter().find(|(known, _)| known == name) else {
            return Err(format!("no source `{name}`: add [[tail.sources]] with pipe = \"{name}\" to agent.toml and restart the agent"));
        };
        let id = FileId(life.as_u128());
        let name = format!("{PIPE}{name}");
        let position = lock(&self.lives).get(&id).cloned().unwrap_or_else(|| stream::begun(id, name));
        Ok((feed.clone(), position))
    }

    fn remember(&self, position: &StreamPosition) {
        let mut lives = lock(&self.lives);
        lives.insert(position.stream, position.clone());
        if lives.len() > MAX_LIVES {
            lives.pop_first();
        }
    }
}

/// One command that runs.
struct Life {
    feed: Feed,
    position: StreamPosition,
    labels: Labels,
    /// Behind the position.
    bytes: Vec<u8>,
}

impl Life {
    fn wait(&self) -> Duration {
        let joiner = self.feed.source.joiner.as_ref();
        joiner.map_or(Duration::from_secs(3600), |joiner| Duration::from_nanos(u64::try_from(joiner.wait_ns).unwrap_or(0)))
    }

    /// Gives lines to the sink, as far as there are.
    async fn take(&mut self, flush: Flush, pipes: &Pipes) -> Result<(), Stopped> {
        loop {
            let offset = self.position.offset;
            if let Err(error) = self.take_once(flush) {
                self.feed.wait(error).await?;
            } else if self.position.offset == offset {
                return Ok(());
            } else {
                pipes.remember(&self.position);
            }
        }
    }

    fn take_once(&mut self, flush: Flush) -> Result<(), super::SinkError> {
        let source = &self.feed.source;
        let place = Place { source, encoding: source.encoding, file: self.position.stream, offset: self.position.offset, now: now_ns() };
        let mut position = self.position.clone();
        let state = position.lines.remove("").unwrap_or_default();
        let mut stream = lock(&self.feed.stream);
        let made = lines::batch(&place, &self.bytes, position.skipping, state, stream.budget(), flush);
        if made.used == 0 {
            return Ok(());
        }
        position.offset += made.used as u64;
        position.skipping = made.skipping;
        if made.line_state != Default::default() {
            position.lines.insert(String::new(), made.line_state);
        }
        let count = made.lines.len() as u64;
        let batch = (count > 0).then(|| LogBatch { file: position.stream, labels: self.labels.clone(), lines: made.lines });
        lock(&self.feed.sink).append_stream(batch, position.clone())?;
        stream.set_budget(made.budget);
        derived::count(made.observations, &self.labels);
        self.feed.counters.count(count, made.used as u64, &made.stats);
        self.bytes.drain(..made.used);
        self.position = position;
        Ok(())
    }
}
