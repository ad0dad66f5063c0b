//! Mistakes, full disks, busy ports, damaged files: a clear error or a repaired start, never a panic, never silence.

use shipwatch_tests::{
    Agent, Server,
    process::{Running, run, said},
    wait_for,
};
use std::{fs, path::Path, process::Command, time::Duration};

#[test]
fn every_mistake_in_a_configuration_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.toml");
    let shown = file.display().to_string();
    let tell = |program: &str, text: &str| {
        fs::write(&file, text).unwrap();
        let output = run(program, &["check", "--config", &shown], &[]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        said(&output)
    };
    let agent = tell(
        "shipwatch-agent",
        "[collect]\ninterval = \"soon\"\ndisabled = []\n[tail]\nfiles = \"/var/log/x\"\nmax_line_bytes = 1\nstart_at = \"middle\"\n[spol]\n",
    );
    for expected in [
        "x.toml:2",
        "`soon` is not a duration",
        "x.toml:3",
        "did you mean `disable`?",
        "must be a list in [ ]",
        "max_line_bytes",
        "start_at",
        "did you mean `spool`?",
    ] {
        assert!(agent.contains(expected), "missing {expected:?} in:\n{agent}");
    }
    let server = tell(
        "shipwatch-server",
        "[api]\nlisten = \"nowhere\"\ntls_key = \"k\"\n[gateway]\nmax_connections = 0\n[retention]\nlog_days = 0\n",
    );
    for expected in ["x.toml:2", "ADDRESS:PORT", "belong together", "max_connections", "log_days"] {
        assert!(server.contains(expected), "missing {expected:?} in:\n{server}");
    }
    assert!(tell("shipwatch-server", "[api\n").contains("x.toml:1: is not valid TOML"));
    for program in ["shipwatch-agent", "shipwatch-server"] {
        let missing = run(program, &["check", "--config", "/nowhere/x.toml"], &[]);
        assert!(!missing.status.success() && said(&missing).contains("/nowhere/x.toml: No such file"), "{}", said(&missing));
    }
    let environment = run("shipwatch-server", &["check"], &[("SHIPWATCH_GATEWAY_MAX_CONNECTIONS", "many")]);
    assert!(said(&environment).contains("environment SHIPWATCH_GATEWAY_MAX_CONNECTIONS"), "{}", said(&environment));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_port_or_directory_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "").await;
    let other = tempfile::tempdir().unwrap();
    let log = other.path().join("log");
    let address = server.api().url().strip_prefix("http://").unwrap().to_owned();
    let start = |data: &Path, http: &str, agents: &str| {
        let data = data.display().to_string();
        let environment = [("SHIPWATCH_DATA", data.as_str()), ("SHIPWATCH_HTTP", http), ("SHIPWATCH_AGENTS", agents)];
        let mut running = Running::start("shipwatch-server", &["serve"], &environment, &log);
        assert_eq!(running.ended(Duration::from_secs(20)).code(), Some(1));
        running.said()
    };
    let busy = start(other.path(), &address, "127.0.0.1:0");
    assert!(busy.contains("another program uses this port"), "{busy}");
    let busy = start(other.path(), "127.0.0.1:0", &server.agents_address());
    assert!(busy.contains("cannot listen on udp") && busy.contains("another program uses this port"), "{busy}");
    let busy = start(server.data(), "127.0.0.1:0", "127.0.0.1:0");
    assert!(busy.contains("used by another shipwatch-server"), "{busy}");
    assert_eq!(server.process().stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_databases_are_put_aside_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "").await;
    let mut agent = Agent::prepare(&dir.path().join("agent"), "");
    agent.enrol(&server.agents_address(), &server.token(), "web-1");
    agent.start();
    let api = server.api();
    wait_for("samples", Duration::from_secs(30), || async { api.samples("node_load1").await.filter(|all| all.len() > 2) }).await;
    agent.process().stop();
    server.process().stop();

    let damage = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let end = bytes.len().min(9_000);
        bytes[20..end].fill(0x5a);
        fs::write(path, bytes).unwrap();
        for suffix in ["-wal", "-shm"] {
            let _not_there = fs::remove_file(format!("{}{suffix}", path.display()));
        }
    };
    damage(&server.data().join("series/head.db"));
    damage(&server.data().join("logs/head.db"));
    server.run().await;
    let log = server.process().said();
    assert!(log.contains("the series store was damaged") && log.contains("the log store was damaged"), "{log}");
    agent.start();
    wait_for("samples after the repair", Duration::from_secs(30), || async { api.samples("node_load1").await.filter(|all| all.len() > 2) })
        .await;
    agent.process().stop();
    server.process().stop();

    damage(&server.data().join("control.db"));
    server.spawn();
    assert_eq!(server.process().ended(Duration::from_secs(20)).code(), Some(1));
    let log = server.process().said();
    assert!(log.contains("control.db is damaged") && log.contains("control.db.bak"), "{log}");
    fs::copy(server.data().join("control.db.bak"), server.data().join("control.db")).unwrap();
    server.run().await;
    assert_eq!(api.get("/shipwatch/api/v1/hosts/web-1", &[]).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_spool_is_said_and_the_rest_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "").await;
    let mut agent = Agent::prepare(&dir.path().join("agent"), "");
    agent.enrol(&server.agents_address(), &server.token(), "web-1");
    server.process().kill();
    agent.start();
    wait_for("ticks in the spool", Duration::from_secs(30), || {
        let said = agent.process().said();
        async move { (said.matches("tick is in the spool").count() > 5).then_some(()) }
    })
    .await;
    agent.process().kill();
    let spool = agent.state().join("spool/metrics");
    let segment = fs::read_dir(&spool)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "seg"))
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40].fill(0xff);
    fs::write(&segment, bytes).unwrap();
    agent.start();
    wait_for("the agent to say so", Duration::from_secs(20), || {
        let said = agent.process().said();
        async move { said.contains("the spool was damaged").then_some(()) }
    })
    .await;
    server.run().await;
    let api = server.api();
    wait_for("the rest and new samples", Duration::from_secs(30), || async {
        api.samples("node_time_seconds").await.filter(|all| all.len() > 6)
    })
    .await;
    wait_for("the loss as a series", Duration::from_secs(30), || async {
        let lost = api.samples(r#"shipwatch_agent_spool_damaged_bytes_total{lane="metrics"}"#).await?;
        lost.last().is_some_and(|(_, bytes)| *bytes > 0.0).then_some(())
    })
    .await;
}

/// A small file system of its own, taken away at the end. Needs root, which tests of full disks cannot do without.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(path: &Path, size: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path).output().unwrap();
        assert!(done.status.success(), "a full disk can only be tested as root (mount tmpfs): {}", String::from_utf8_lossy(&done.stderr));
        Self(path.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _left_for_the_system = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn fill(dir: &Path) {
    let file = fs::File::create(dir.join("ballast")).unwrap();
    let mut at = 0;
    let block = vec![1u8; 64 << 10];
    while std::os::unix::fs::FileExt::write_all_at(&file, &block, at).is_ok() {
        at += block.len() as u64;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_server_makes_agents_wait_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("data");
    let _tmpfs = Tmpfs::mount(&disk, "48m");
    let mut server = Server::start(dir.path(), "").await;
    let mut agent = Agent::prepare(&dir.path().join("agent"), "");
    agent.enrol(&server.agents_address(), &server.token(), "web-1");
    agent.start();
    let api = server.api();
    wait_for("samples", Duration::from_secs(30), || async { api.samples("node_time_seconds").await.filter(|all| all.len() > 2) }).await;
    fill(&disk);
    wait_for("the server to say so", Duration::from_secs(60), || {
        let said = server.process().said();
        async move { said.contains("disk of the data directory is full").then_some(()) }
    })
    .await;
    assert!(server.process().is_running());
    fs::remove_file(disk.join("ballast")).unwrap();
    let ticks = agent.process().said().matches("tick is in the spool").count();
    wait_for("all samples", Duration::from_secs(60), || async { api.samples("node_time_seconds").await.filter(|all| all.len() >= ticks) })
        .await;
    let log = server.process().said();
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_agent_is_counted_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "").await;
    let mut agent = Agent::prepare(&dir.path().join("agent"), "");
    let _tmpfs = Tmpfs::mount(&agent.state(), "4m");
    agent.enrol(&server.agents_address(), &server.token(), "web-1");
    agent.start();
    let api = server.api();
    api.wait_for_host("web-1", "up").await;
    fill(&agent.state());
    wait_for("the agent to say so", Duration::from_secs(60), || {
        let said = agent.process().said();
        async move { said.contains("samples are lost").then_some(()) }
    })
    .await;
    assert!(agent.process().is_running());
    fs::remove_file(agent.state().join("ballast")).unwrap();
    wait_for("the loss as a series", Duration::from_secs(60), || async {
        let lost = api.samples("shipwatch_agent_lost_samples_total").await?;
        lost.last().is_some_and(|(_, samples)| *samples > 0.0).then_some(())
    })
    .await;
}
