//! Lines from elsewhere than plain files, through a real agent that is killed again and again, to a real server.

use shipwatch_tests::{
    Agent, Api, Server, free_port,
    process::{Running, command},
    wait_for,
};
use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const ROUNDS: usize = 8;
const LINES: usize = 25;

fn config(dir: &Path, port: u16) -> String {
    format!(
        r#"[tail]
start_at = "beginning"
rescan = "200ms"
[[tail.sources]]
files = ["{dir}/containers/*/*-json.log"]
format = "docker"
labels = {{ app = "containers" }}
parser = {{ kind = "combined" }}
[[tail.sources.metrics]]
preset = "nginx"
[[tail.sources]]
journal = {{ directory = "{dir}/journal" }}
labels = {{ app = "journal" }}
[[tail.sources]]
syslog = {{ udp = "", tcp = "127.0.0.1:{port}" }}
[[tail.sources]]
pipe = "backup"
labels = {{ app = "pipe" }}
"#,
        dir = dir.display()
    )
}

/// One part of a long line in Docker's form.
fn docker(output: &str, log: &str) -> String {
    format!("{}\n", serde_json::json!({ "log": log, "stream": output, "time": "" }))
}

fn append(path: &Path, text: &str) {
    fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Appends entries to a real journal file.
fn journal(dir: &Path, texts: impl Iterator<Item = String>) {
    let mut remote = std::process::Command::new("/lib/systemd/systemd-journal-remote")
        .arg(format!("--output={}/journal/a.journal", dir.display()))
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("systemd-journal-remote; packaging/tools.sh installs it");
    let mut input = remote.stdin.take().unwrap();
    for text in texts {
        let us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
        let boot = "a1".repeat(16);
        write!(
            input,
            "__REALTIME_TIMESTAMP={us}\n__MONOTONIC_TIMESTAMP={us}\n_BOOT_ID={boot}\nMESSAGE={text}\n_SYSTEMD_UNIT=shop.service\n\n"
        )
        .unwrap();
    }
    drop(input);
    assert!(remote.wait().unwrap().success());
}

fn pipe(agent: &Agent) -> Child {
    let config = agent.dir().join("agent.toml").display().to_string();
    let mut command = command("shipwatch-agent", &["pipe", "--source", "backup", "--config", &config], &[]);
    command.stdin(Stdio::piped()).spawn().unwrap()
}

async fn check(api: &Api, query: &str, expected: Vec<String>) {
    let sorted = || async {
        let mut lines: Vec<String> = api.lines(query).await.into_iter().map(|(_, line)| line).collect();
        lines.sort_unstable();
        lines
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while sorted().await.len() < expected.len() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(sorted().await, expected, "{query}");
}

/// Numbered lines of all rounds, sorted.
fn numbered(prefix: &str) -> Vec<String> {
    (0..ROUNDS * LINES).map(|at| format!("{prefix} {at:06}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_journal_and_pipes_come_once_over_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "").await;
    let log = dir.path().join("containers/0123/0123-json.log");
    fs::create_dir_all(log.parent().unwrap()).unwrap();
    fs::create_dir(dir.path().join("journal")).unwrap();
    fs::write(log.with_file_name("config.v2.json"), r#"{"Name":"/web","Config":{"Image":"shop:1"}}"#).unwrap();
    let port = free_port();
    let mut agent = Agent::prepare(&dir.path().join("agent"), &config(dir.path(), port));
    agent.enrol(&server.agents_address(), &server.token(), "web-1");
    agent.start();
    let mut pipe = pipe(&agent);
    let mut input = pipe.stdin.take().unwrap();
    for round in 0..ROUNDS {
        let numbers = round * LINES..(round + 1) * LINES;
        for at in numbers.clone() {
            let (half, rest) = (format!("out {:03}", at / 1000), format!("{:03}\n", at % 1000));
            append(&log, &(docker("stdout", &half) + &docker("stderr", &format!("err {at:06}\n"))));
            write!(input, "pipe {:03}", at / 1000).unwrap();
            if at % LINES == 7 {
                agent.process().kill();
                agent.start();
            }
            append(&log, &docker("stdout", &rest));
            input.write_all(rest.as_bytes()).unwrap();
        }
        journal(dir.path(), numbers.map(|at| format!("journal {at:06}")));
    }
    drop(input);
    let ended = tokio::task::spawn_blocking(move || pipe.wait().unwrap()).await.unwrap();
    assert!(ended.success(), "everything is in the spool when the command ends");
    let api = server.api();
    check(&api, r#"{app="containers",stream="stdout",container="web",image="shop:1"}"#, numbered("out")).await;
    check(&api, r#"{app="containers",stream="stderr"}"#, numbered("err")).await;
    check(&api, r#"{app="journal",unit="shop.service"}"#, numbered("journal")).await;
    check(&api, r#"{app="pipe"}"#, numbered("pipe")).await;

    // Syslog has no acknowledgement: what came after the last start is there.
    let mut sender = wait_for("syslog", Duration::from_secs(30), || async { TcpStream::connect(("127.0.0.1", port)).ok() }).await;
    sender.write_all(b"<14>1 - sw1 shop - - - for buyer.wang@example.com\n").unwrap();
    append(&log, &docker("stdout", "1.2.3.4 - - [t] \"GET / HTTP/1.1\" 502 5 \"-\" \"x\" 0.01\n"));
    let line = wait_for("its line", Duration::from_secs(30), || async {
        Some(api.lines(r#"{app="shop",hostname="sw1",facility="user"}"#).await.first()?.1.clone())
    });
    let line = line.await;
    assert!(line.contains("for ") && !line.contains("wang"), "{line}");
    let requests = r#"nginx_http_requests_total{method="GET",status="502",app="containers"}"#;
    wait_for("the metric", Duration::from_secs(30), || async { (api.samples(requests).await?.last()?.1 == 1.0).then_some(()) }).await;
    assert_eq!(agent.process().stop().code(), Some(0));
    assert_eq!(server.process().stop().code(), Some(0));
    let readers = format!("directory={}", dir.path().display());
    let mut left = Running::of_others("pgrep", &["-f", &readers], &dir.path().join("left"));
    assert_eq!(left.ended(Duration::from_secs(10)).code(), Some(1), "journalctl outlived the agent: {}", left.said());
}
