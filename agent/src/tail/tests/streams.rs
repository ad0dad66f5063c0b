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

#[test]
fn a_source_has_one_place_and_what_cannot_be_used_is_told() {
    let told = |text: &str| {
        let config = toml::from_str::<Config>(text).unwrap_or_else(|error| panic!("{error}"));
        let mut problems = shipwatch_common::config::Problems::new();
        config.check(&mut problems);
        problems.list().iter().map(|problem| problem.key.clone()).collect::<Vec<_>>()
    };
    for (source, keys) in [
        ("journal = {}", &[][..]),
        ("syslog = {}", &[]),
        ("pipe = \"backup\"\nmultiline = { preset = \"java\" }", &[]),
        ("files = [\"/a\"]\nformat = \"docker\"\n[[sources.metrics]]\npreset = \"nginx\"", &[]),
        ("", &["sources.0.files"]),
        ("files = [\"/a\"]\npipe = \"b\"", &["sources.0.files"]),
        ("journal = {}\nsyslog = {}", &["sources.0.files"]),
        ("journal = {}\nmultiline = { preset = \"java\" }", &["sources.0.multiline"]),
        ("pipe = \"a/b\"", &["sources.0.pipe"]),
        ("files = [\"/a\"]\nformat = \"podman\"", &["sources.0.format"]),
        ("files = [\"/a\"]\n[[sources.metrics]]\nname = \"node_x\"", &["sources.0.metrics.0.name"]),
        (
            "journal = { units = [\"--user\"], priority = \"bad\", directory = \"var\" }",
            &["sources.0.journal.units", "sources.0.journal.priority", "sources.0.journal.directory"],
        ),
        (
            "syslog = { udp = \"localhost\", tcp = \"\", max_connections = 0, idle = \"1ms\", receive_buffer_bytes = 1 }",
            &["sources.0.syslog.udp", "sources.0.syslog.max_connections", "sources.0.syslog.idle", "sources.0.syslog.receive_buffer_bytes"],
        ),
    ] {
        assert_eq!(told(&format!("[[sources]]\n{source}\n")), keys, "{source}");
    }
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
        let tailer = Tailer::new(self.config.clone(), &masker, restored.clone()).unwrap();
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
