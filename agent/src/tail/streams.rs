//! Sources beside files: one thread for all of them, each in tasks of its own.
//!
//! # Invariants
//! - A source that does not work (a port that is taken, a program that is missing) costs its own lines and nothing else: it is said
//!   once with its remedy, counted, and tried again.
//! - Stopping ends every task; a child process is killed with it.

use super::{
    Counters, Sink, StreamPosition, journal, pipe,
    source::{Kind, Source},
    stream::{Feed, SharedSink, Stopped, Stream},
    syslog,
};
use shipwatch_common::backoff::{Backoff, random_unit};
use std::{
    collections::HashMap,
    future::Future,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// All sources beside files.
#[derive(Debug)]
pub struct Streams {
    streams: Vec<(Arc<Source>, Stream)>,
    counters: Arc<Counters>,
    at_end: bool,
    pipe_socket: PathBuf,
    restored: Vec<StreamPosition>,
}

impl Streams {
    pub(super) fn new(
        sources: &[Arc<Source>],
        counters: Arc<Counters>,
        at_end: bool,
        pipe_socket: PathBuf,
        restored: &[StreamPosition],
    ) -> Self {
        let mut names: HashMap<String, usize> = HashMap::new();
        let mut streams = Vec::new();
        for source in sources {
            let name = match &source.kind {
                Kind::Files => continue,
                Kind::Journal(config) => format!("journal:{}", config.directory),
                Kind::Syslog(config) => format!("syslog:{}/{}", config.udp, config.tcp),
                Kind::Pipe(name) => format!("source:{name}"),
            };
            let count = names.entry(name.clone()).or_default();
            *count += 1;
            let name = if *count > 1 { format!("{name}#{count}") } else { name };
            streams.push((Arc::clone(source), Stream::new(Arc::clone(source), Arc::clone(&counters), name, restored)));
        }
        Self { streams, counters, at_end, pipe_socket, restored: restored.to_vec() }
    }

    /// Nothing is configured.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Reads until `stop`. Blocks; has a thread of its own.
    ///
    /// # Errors
    /// No runtime could be made.
    pub fn run(self, sink: impl Sink + 'static, stop: &CancellationToken) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.run_all(Arc::new(Mutex::new(sink)), stop));
        Ok(())
    }

    pub(super) async fn run_all(self, sink: SharedSink, stop: &CancellationToken) {
        let mut tasks = tokio::task::JoinSet::new();
        let mut pipes = Vec::new();
        for (source, stream) in self.streams {
            let feed = Feed::new(&source, &self.counters, stream, &sink, stop);
            match source.kind.clone() {
                Kind::Files => {}
                Kind::Journal(config) => drop(tasks.spawn(journal::run(config, feed, self.at_end))),
                Kind::Syslog(config) => drop(tasks.spawn(syslog::run(config, feed))),
                Kind::Pipe(name) => pipes.push((name, feed)),
            }
        }
        if !pipes.is_empty() {
            tasks.spawn(pipe::run(self.pipe_socket, pipes, &self.restored));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                warn!(%error, "a source of lines ended unexpectedly");
            }
        }
    }
}

/// Does something that should never end, again and again; says once that it does not work.
pub(super) async fn keep<F: Future<Output = Result<Stopped, String>>>(what: &str, feed: &Feed, mut act: impl FnMut() -> F) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        let Err(error) = act().await else { break };
        if feed.set_failing(true) {
            backoff.reset();
            warn!(source = what, %error, "a source of lines does not work; it is tried again");
        }
        if feed.rest(backoff.next(random_unit())).await.is_err() {
            break;
        }
    }
    info!(source = what, "stopped");
}
