//! The command's side of a pipe: standard input to the running agent.
//!
//! # Invariants
//! - A byte is kept until the agent said that it is durable; at most [`KEPT_BYTES`], beyond it nothing is read.
//! - An agent that does not answer (a restart, an upgrade) is waited for. The command ends when its input has ended and everything
//!   is durable.

use super::{HELLO, is_name};
use shipwatch_common::backoff::{Backoff, random_unit};
use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixStream, unix::OwnedReadHalf},
    sync::mpsc,
};

/// Bytes that the agent has not confirmed.
const KEPT_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 32 << 10;

/// Why a pipe cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    /// A name that no source can have.
    #[error("--source must be a name of up to 64 letters, digits, `-`, `_` and `.`, not {0:?}")]
    Name(String),
    /// The agent does not want it.
    #[error("the agent refuses: {0}")]
    Refused(String),
    /// The agent forgot what it had confirmed.
    #[error("the agent has {has} bytes of this input and {confirmed} were confirmed: its state was lost, and the lines between with it")]
    Lost {
        /// What it has.
        has: u64,
        /// What it had.
        confirmed: u64,
    },
    /// Standard input.
    #[error("standard input: {0}")]
    Input(io::Error),
    /// The socket, other than by an agent that does not run.
    #[error("{path}: {source}; run this as the agent's user")]
    Socket {
        /// Where it is.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// Sends `input` to the agent at `socket`, as lines of `source`. `told` hears when the agent is waited for, and when it is there.
///
/// # Errors
/// See [`PipeError`].
pub async fn run(socket: &Path, source: &str, input: impl Read + Send + 'static, mut told: impl FnMut(&str)) -> Result<(), PipeError> {
    if !is_name(source) {
        return Err(PipeError::Name(source.to_owned()));
    }
    let mut sender = Sender {
        socket,
        hello: format!("{HELLO} {source} {}\n", uuid::Uuid::now_v7()),
        input: read(input)?,
        kept: Vec::new(),
        confirmed: 0,
        is_over: false,
    };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    let mut waits = false;
    loop {
        match sender.session().await? {
            Ended::Done => return Ok(()),
            Ended::Broken(progress) => {
                if progress {
                    backoff.reset();
                    waits = false;
                }
                if !std::mem::replace(&mut waits, true) {
                    told(&format!("the agent does not answer at {}; waiting for it", socket.display()));
                }
                tokio::time::sleep(backoff.next(random_unit())).await;
            }
        }
    }
}

/// Reads on a thread of its own: standard input cannot be waited for otherwise.
fn read(mut input: impl Read + Send + 'static) -> Result<mpsc::Receiver<io::Result<Vec<u8>>>, PipeError> {
    let (pieces, receiver) = mpsc::channel(1);
    let thread = thread::Builder::new().name("input".to_owned()).spawn(move || {
        loop {
            let mut buffer = vec![0; READ_BYTES];
            let piece = match input.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => return,
                Ok(length) => {
                    buffer.truncate(length);
                    Ok(buffer)
                }
                Err(error) => Err(error),
            };
            if pieces.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    thread.map(|_detached| receiver).map_err(PipeError::Input)
}

enum Ended {
    Done,
    /// The agent went away; whether it had answered.
    Broken(bool),
}

struct Sender<'a> {
    socket: &'a Path,
    hello: String,
    input: mpsc::Receiver<io::Result<Vec<u8>>>,
    /// Behind what was confirmed.
    kept: Vec<u8>,
    confirmed: u64,
    is_over: bool,
}

impl Sender<'_> {
    /// One connection.
    async fn session(&mut self) -> Result<Ended, PipeError> {
        let stream = match UnixStream::connect(self.socket).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(Ended::Broken(false));
            }
            Err(source) => return Err(PipeError::Socket { path: self.socket.to_owned(), source }),
        };
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        if writer.write_all(self.hello.as_bytes()).await.is_err() {
            return Ok(Ended::Broken(false));
        }
        let Some(offset) = answer(&mut reader, &mut Vec::new()).await? else { return Ok(Ended::Broken(false)) };
        self.confirm(offset)?;
        let mut sent = 0;
        let mut partial = Vec::new();
        loop {
            if sent < self.kept.len() {
                if writer.write_all(&self.kept[sent..]).await.is_err() {
                    return Ok(Ended::Broken(true));
                }
                sent = self.kept.len();
            }
            if self.is_over {
                if self.kept.is_empty() {
                    return Ok(Ended::Done);
                }
                // The agent takes a last line without its end, too.
                let _broken = writer.shutdown().await;
            }
            tokio::select! {
                answered = answer(&mut reader, &mut partial) => match answered? {
                    Some(offset) => sent -= self.confirm(offset)?.min(sent),
                    None => return Ok(Ended::Broken(true)),
                },
                piece = self.input.recv(), if !self.is_over && self.kept.len() < KEPT_BYTES => match piece {
                    Some(piece) => self.kept.extend(piece.map_err(PipeError::Input)?),
                    None => self.is_over = true,
                },
            }
        }
    }

    /// Lets go of what is durable; gives how much that is.
    fn confirm(&mut self, offset: u64) -> Result<usize, PipeError> {
        let more = offset.checked_sub(self.confirmed).and_then(|more| usize::try_from(more).ok()).filter(|more| *more <= self.kept.len());
        let Some(more) = more else { return Err(PipeError::Lost { has: offset, confirmed: self.confirmed }) };
        self.kept.drain(..more);
        self.confirmed = offset;
        Ok(more)
    }
}

/// The next offset; none at the end. What was read of a line stays in `partial` when this is not waited for.
async fn answer(reader: &mut BufReader<OwnedReadHalf>, partial: &mut Vec<u8>) -> Result<Option<u64>, PipeError> {
    match reader.read_until(b'\n', partial).await {
        Ok(read) if read > 0 && partial.ends_with(b"\n") => {}
        _ => return Ok(None),
    }
    let line = String::from_utf8_lossy(&std::mem::take(partial)).trim_end().to_owned();
    match line.strip_prefix("error ") {
        Some(refusal) => Err(PipeError::Refused(refusal.to_owned())),
        None => Ok(line.parse().ok()),
    }
}
