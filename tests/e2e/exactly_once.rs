//! Whatever dies and whenever: every line and every sample once, in order.

use shipwatch_tests::{Agent, Api, Server, relay::Relay, wait_for};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Writes numbered lines to a file that is rotated by rename now and then, until it is told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(path: PathBuf) -> Self {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = std::thread::spawn(move || {
            let open = || fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
            let mut file = open();
            let mut rotations = 0;
            while !stopped.load(Ordering::SeqCst) {
                let number = count.load(Ordering::SeqCst);
                file.write_all(format!("line {number:09} of the order service\n").as_bytes()).unwrap();
                count.store(number + 1, Ordering::SeqCst);
                if number % 20_000 == 19_999 {
                    rotations += 1;
                    fs::rename(&path, path.with_extension(format!("log.{rotations}"))).unwrap();
                    file = open();
                }
                std::thread::park_timeout(Duration::from_micros(300));
            }
        });
        Self { stop, written, thread: Some(thread) }
    }

    /// Stops it and tells how many lines it wrote.
    fn finish(&mut self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        self.written.load(Ordering::SeqCst)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// Ticks that the agent had in its spool, as its log tells: it says so after the record is there.
fn ticks(log: &str) -> BTreeSet<i64> {
    log.lines()
        .filter(|line| line.contains("tick is in the spool"))
        .filter_map(|line| line.split("ts_ms=").nth(1)?.split(' ').next()?.parse().ok())
        .collect()
}

/// Checks lines and samples against what was written and spooled.
async fn check(api: &Api, agent: &mut Agent, written: u64) {
    let expected_ticks = ticks(&agent.process().said());
    assert!(expected_ticks.len() > 5, "the agent's log tells of too few ticks: {expected_ticks:?}");
    wait_for("all lines and samples", Duration::from_secs(90), || async {
        let page = api
            .try_get("/shipwatch/api/v1/logs", &[("query", &format!(r#"{{app="orders"}} |= "line {:09} ""#, written - 1)), ("limit", "5")])
            .await?;
        (page["entries"].as_array()?.len() == 1).then_some(())?;
        let samples = api.samples("node_time_seconds").await?;
        let newest = *expected_ticks.last()?;
        samples.iter().any(|(at, _)| ((at * 1000.0).round() as i64) >= newest).then_some(())
    })
    .await;

    let lines = api.lines(r#"{app="orders"}"#).await;
    let mut by_file: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (file, line) in &lines {
        by_file.entry(file).or_default().push(line["line ".len()..][..9].parse().unwrap());
    }
    let mut all: Vec<u64> = by_file.values().flatten().copied().collect();
    all.sort_unstable();
    assert_eq!(all.len() as u64, written, "lines stored and lines written");
    assert!(all.iter().enumerate().all(|(at, number)| at as u64 == *number), "a line is missing or doubled");
    for (file, numbers) in by_file {
        assert!(numbers.is_sorted(), "lines of {file} are out of order");
    }

    let samples = api.samples("node_time_seconds").await.unwrap();
    let mut times: Vec<i64> = samples.iter().map(|(at, _)| (at * 1000.0).round() as i64).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "a sample came twice or out of order");
    // Those that came while this function waited are not in the log that it read.
    times.retain(|at| !expected_ticks.contains(at) && Some(at) <= expected_ticks.last());
    // A kill between the record and the log line leaves a tick that the log does not tell of.
    assert!(times.len() <= 25, "samples from nowhere: {times:?}");
    let stored: BTreeSet<i64> = samples.iter().map(|(at, _)| (at * 1000.0).round() as i64).collect();
    let missing: Vec<_> = expected_ticks.difference(&stored).collect();
    assert!(missing.is_empty(), "samples are missing: {missing:?}");
}

fn tail_config(dir: &std::path::Path) -> String {
    format!(
        "[tail]\nfiles = [\"{}/orders.log*\"]\nstart_at = \"beginning\"\nrescan = \"200ms\"\n[tail.labels]\napp = \"orders\"\n",
        dir.display()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_both_at_twenty_points_each() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "").await;
    let mut agent = Agent::prepare(&dir.path().join("agent"), &tail_config(dir.path()));
    agent.enrol(&server.agents_address(), &server.token(), "web-1");
    agent.start();
    let mut writer = Writer::start(dir.path().join("orders.log"));
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut pause = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        Duration::from_millis(100 + random % 1_400)
    };
    for round in 0..40 {
        tokio::time::sleep(pause()).await;
        if round % 2 == 0 {
            agent.process().kill();
            agent.start();
        } else {
            server.process().kill();
            server.run().await;
        }
    }
    let written = writer.finish();
    check(&server.api(), &mut agent, written).await;
    assert_eq!(server.process().stop().code(), Some(0));
    assert_eq!(agent.process().stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_cut_off_for_a_minute_brings_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "").await;
    let relay = Relay::start(&server.agents_address()).await;
    let mut agent = Agent::prepare(&dir.path().join("agent"), &tail_config(dir.path()));
    agent.enrol(&relay.address(), &server.token(), "web-1");
    agent.start();
    let mut writer = Writer::start(dir.path().join("orders.log"));
    server.api().wait_for_host("web-1", "up").await;
    relay.cut(true);
    let cut_at = tokio::time::Instant::now();
    server.api().wait_for_host("web-1", "silent").await;
    tokio::time::sleep_until(cut_at + Duration::from_secs(60)).await;
    relay.cut(false);
    server.api().wait_for_host("web-1", "up").await;
    let written = writer.finish();
    check(&server.api(), &mut agent, written).await;
    assert_eq!(agent.process().stop().code(), Some(0));
    server.api().wait_for_host("web-1", "stopped").await;
    assert_eq!(server.process().stop().code(), Some(0));
}
