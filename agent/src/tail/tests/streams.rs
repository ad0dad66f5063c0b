//! Sources beside files, with the real programs at their other end: journalctl and systemd-journal-remote, rsyslogd and logger.
//! `packaging/tools.sh` installs them.

use super::*;
use std::{
    cell::RefCell,
    net::SocketAddr,
    sync::{Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod journal;
mod pipe;
mod syslog;

thread_local! {
    /// Where the sources of this test listen.
    pub(in crate::tail) static BOUND: RefCell<Vec<(&'static str, SocketAddr)>> = RefCell::default();
}

/// Longest wait for something that must come.
const DEADLINE: Duration = Duration::from_secs(30);

/// One source that runs, in a temporary directory.
struct Running {
    dir: tempfile::TempDir,
    sink: Arc<Mutex<Memory>>,
    counters: Arc<Counters>,
    config: Config,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Running {
    fn new(source: impl FnOnce(&Path) -> Source) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { sources: vec![source(dir.path())], start_at: "beginning".into(), ..Config::default() };
        let (stop, counters) = (CancellationToken::new(), Arc::default());
        Self { dir, sink: Arc::default(), counters, config, stop, task: None }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("pipe.sock")
    }

    /// Starts it where the sink remembers it.
    fn start(&mut self) {
        let sink = self.sink.lock().unwrap();
        let restored = Restored { streams: sink.streams.values().cloned().collect(), ..Restored::default() };
        drop(sink);
        let masker = Arc::new(Masker::new(&shipwatch_common::mask::Config::default()).unwrap());
        let tailer = Tailer::new(self.config.clone(), masker, restored.clone()).unwrap();
        self.counters = tailer.counters();
        self.stop = CancellationToken::new();
        let (streams, sink, stop) = (tailer.streams(self.socket(), &restored), Arc::clone(&self.sink), self.stop.clone());
        self.task = Some(tokio::spawn(async move { streams.run_all(sink, &stop).await }));
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, self.task.take().unwrap()).await.expect("it stops").unwrap();
    }

    fn set_full(&self, full: bool) {
        self.sink.lock().unwrap().full = full;
    }

    fn lines(&self) -> Vec<shipwatch_common::model::LogLine> {
        self.sink.lock().unwrap().batches.iter().flat_map(|batch| batch.lines.clone()).collect()
    }

    fn texts(&self) -> Vec<String> {
        self.lines().into_iter().map(|line| line.text).collect()
    }

    /// Value of a label of the line with a text.
    fn label(&self, text: &str, name: &str) -> Option<String> {
        let sink = self.sink.lock().unwrap();
        let batch = sink.batches.iter().find(|batch| batch.lines.iter().any(|line| line.text == text))?;
        batch.labels.get(name).map(ToOwned::to_owned)
    }

    fn count(&self, counter: impl Fn(&Counters) -> &AtomicU64) -> u64 {
        counter(&self.counters).load(Ordering::Relaxed)
    }

    /// Waits until the sink has so many lines.
    async fn has(&self, lines: usize) {
        until(|| self.lines().len() >= lines, || format!("{lines} lines, there are {:?}", self.texts())).await;
        assert_eq!(self.lines().len(), lines, "{:?}", self.texts());
    }

    /// The address that is listened at.
    async fn address(&self, protocol: &str) -> SocketAddr {
        let find = || BOUND.with_borrow(|bound| bound.iter().rev().find(|(known, _)| *known == protocol).map(|(_, address)| *address));
        until(|| find().is_some(), || format!("a listener for {protocol}")).await;
        find().unwrap()
    }
}

/// Waits until something is so.
async fn until(mut is_so: impl FnMut() -> bool, what: impl Fn() -> String) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {}", what());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a program to its end.
async fn ran(program: &str, arguments: &[&str], input: &[u8]) {
    use tokio::io::AsyncWriteExt as _;
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; packaging/tools.sh installs it"));
    child.stdin.take().unwrap().write_all(input).await.unwrap();
    let status = tokio::time::timeout(DEADLINE, child.wait()).await.expect("it ends").unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}
