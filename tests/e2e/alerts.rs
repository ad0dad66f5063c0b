//! From a real agent's series to a message in a receiver's hands, through crashes.

use serde_json::{Value, json};
use shipwatch_tests::{Agent, Api, Server, Sink, wait_for};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const RULES: &str = r#"groups:
- name: lines
  interval: 1s
  rules:
  - record: lines:rate
    expr: rate(shipwatch_agent_tail_lines_total[5s])
  - alert: LinesCome
    expr: lines:rate > 0
    labels: {severity: critical}
    annotations: {summary: '{{ $labels.instance }} writes {{ $value | humanize }} lines/s'}
"#;

/// Writes a line every 100 ms until it is stopped.
struct Lines {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Lines {
    fn start(path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
            while !stopped.load(Ordering::SeqCst) {
                file.write_all(b"a line of the order service\n").unwrap();
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
        Self { stop, thread: Some(thread) }
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn server_config(dir: &Path, hook: &Sink, ding: &Sink, mail: &Sink, alert: &str) -> String {
    let starter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/rules/starter.yml");
    let secret = dir.join("ding.url");
    fs::write(&secret, format!("http://127.0.0.1:{}/robot/send?access_token=token-of-the-robot\n", ding.port())).unwrap();
    format!(
        r#"
[rules]
files = ["{starter}", "{dir}/rules*.yml"]
interval = "1s"
startup_grace = "2s"
[notify]
group_wait = "1s"
group_interval = "2s"
[[notify.channels]]
name = "hook"
kind = "webhook"
url = "http://127.0.0.1:{hook}/hook"
matchers = ['alertname="{alert}"']
[[notify.channels]]
name = "ding"
kind = "dingtalk"
url_file = "{secret}"
secret = "SEC0123456789abcdef"
matchers = ['alertname="{alert}"']
[[notify.channels]]
name = "mail"
kind = "email"
host = "127.0.0.1"
port = {mail}
tls = "none"
from = "Shipwatch <alerts@example.com>"
to = ["ops@example.com"]
matchers = ['alertname="{alert}"']
"#,
        starter = starter.display(),
        dir = dir.display(),
        hook = hook.port(),
        secret = secret.display(),
        mail = mail.port(),
    )
}

async fn sinks() -> (Sink, Sink, Sink) {
    (Sink::http("").await, Sink::http(r#"{"errcode":0,"errmsg":"ok"}"#).await, Sink::mail().await)
}

/// The webhook's bodies.
fn hooked(sink: &Sink) -> Vec<Value> {
    sink.received().iter().map(|one| serde_json::from_str(&one.body).unwrap()).collect()
}

/// Waits until every message of the outbox is accepted and there are as many.
async fn wait_accepted(api: &Api, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} accepted messages"), Duration::from_secs(40), || async {
        let all = api.try_get("/shipwatch/api/v1/notifications", &[]).await?;
        let all = all["deliveries"].as_array()?.clone();
        (all.len() == count && all.iter().all(|one| one["state"] == "accepted")).then_some(all)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_fires_reaches_three_channels_and_is_resolved_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rules.yml"), RULES).unwrap();
    let (hook, ding, mail) = sinks().await;
    let mut server = Server::start(dir.path(), &server_config(dir.path(), &hook, &ding, &mail, "LinesCome")).await;
    let more = format!("[tail]\nfiles = [\"{}/orders.log\"]\nrescan = \"200ms\"", dir.path().display());
    let mut agent = Agent::prepare(&dir.path().join("agent"), &more);
    agent.enrol(&server.agents_address(), &server.token(), "web-1");
    agent.start();
    let mut lines = Lines::start(dir.path().join("orders.log"));

    wait_accepted(&server.api(), 3).await;
    let first = &hooked(&hook)[0];
    assert_eq!(
        (first["version"].as_str(), first["status"].as_str(), first["receiver"].as_str()),
        (Some("4"), Some("firing"), Some("hook"))
    );
    assert_eq!(first["groupKey"], r#"{}:{alertname="LinesCome"}"#);
    let alert = &first["alerts"][0];
    assert_eq!(alert["labels"]["instance"], "web-1");
    assert_eq!((alert["labels"]["env"].as_str(), alert["labels"]["severity"].as_str()), (Some("test"), Some("critical")));
    assert!(alert["annotations"]["summary"].as_str().unwrap().starts_with("web-1 writes "), "{alert}");
    assert!(alert["generatorURL"].as_str().unwrap().contains("lines%3Arate"), "{alert}");
    // One evaluation, one second of `group_wait`, and what a busy machine takes.
    let started_ms = server.api().get("/shipwatch/api/v1/alerts", &[("state", "firing")]).await.1["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "LinesCome")
        .and_then(|one| one["fired_at_ms"].as_i64())
        .unwrap();
    let took_ms = hook.received()[0].at_ms - started_ms;
    assert!((1_000..4_000).contains(&took_ms), "from evaluation to message: {took_ms} ms");
    assert!(ding.received()[0].head.contains("access_token=token-of-the-robot&timestamp="), "{}", ding.received()[0].head);
    assert!(ding.received()[0].body.contains("LinesCome"));
    let mailed = &mail.received()[0];
    assert!(mailed.head.contains("RCPT TO:<ops@example.com>") && mailed.body.contains("multipart/alternative"), "{mailed:?}");

    // Every starter rule can be computed on what a real agent sends, and all is in Prometheus' shape.
    wait_for("all rules to be evaluated", Duration::from_secs(20), || async {
        let rules = server.api().try_get("/api/v1/rules", &[]).await?;
        let all: Vec<Value> =
            rules["data"]["groups"].as_array()?.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect();
        let bad: Vec<&Value> = all.iter().filter(|rule| rule["health"] == "err").collect();
        assert!(bad.is_empty(), "{bad:?}");
        (all.len() > 15 && all.iter().all(|rule| rule["health"] == "ok")).then_some(())
    })
    .await;
    let (_, recorded) =
        server.api().get("/api/v1/query", &[("query", "ALERTS{alertname=\"LinesCome\"} and on(instance) lines:rate")]).await;
    assert_eq!(recorded["data"]["result"][0]["metric"]["alertstate"], "firing", "{recorded}");

    server.process().kill();
    lines.stop();
    server.run().await;
    wait_accepted(&server.api(), 6).await;
    let told: Vec<(String, usize)> =
        hooked(&hook).iter().map(|body| (body["status"].as_str().unwrap().to_owned(), body["alerts"].as_array().unwrap().len())).collect();
    assert_eq!(told, [("firing".to_owned(), 1), ("resolved".to_owned(), 1)]);
    assert_eq!((ding.received().len(), mail.received().len()), (2, 2));
    assert_eq!(hooked(&hook)[0]["alerts"][0]["fingerprint"], hooked(&hook)[1]["alerts"][0]["fingerprint"]);

    let fingerprint = alert["fingerprint"].as_str().unwrap();
    let (status, shown) = server.api().get(&format!("/shipwatch/api/v1/alerts/{fingerprint}"), &[]).await;
    assert_eq!((status, shown["state"].as_str()), (200, Some("resolved")), "{shown}");
    let states: Vec<&str> = shown["history"].as_array().unwrap().iter().filter_map(|one| one["state"].as_str()).collect();
    assert_eq!(states, ["resolved", "firing"]);
    assert_eq!(shown["deliveries"].as_array().unwrap().len(), 6);
    for file in [server.log(), dir.path().join("data/control.db"), dir.path().join("data/control.db-wal")] {
        let bytes = fs::read(&file).unwrap_or_default();
        for secret in ["token-of-the-robot", "SEC0123456789abcdef"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} is in {}", file.display());
        }
    }
    reload(dir.path(), &mut server).await;
    let (_, channels) = server.api().get("/shipwatch/api/v1/channels", &[]).await;
    assert_eq!(channels["channels"][1]["target"], format!("http://127.0.0.1:{}/…", ding.port()));
    let (_, tested) = server.api().post("/shipwatch/api/v1/channels/ding/test", &json!({})).await;
    assert_eq!((tested["ok"].as_bool(), tested["answer"].as_str()), (Some(true), Some("errcode 0")), "{tested}");
    assert_eq!(server.process().stop().code(), Some(0));
}

/// Mistakes are told and change nothing; a good file is taken, also on SIGHUP.
async fn reload(dir: &Path, server: &mut Server) {
    let api = server.api();
    let more = dir.join("rules-more.yml");
    fs::write(&more, "groups: [{name: more, rules: [{alert: Extra, expr: 'up ='}, {alert: X, exprr: up}]}]").unwrap();
    let (status, told) = api.post("/-/reload", &json!({})).await;
    let message = told["error"]["message"].as_str().unwrap_or_default();
    assert!(status == 400 && message.contains("rules-more.yml:1") && message.contains("did you mean `expr`"), "{status} {told}");
    fs::write(&more, "groups: [{name: more, rules: [{alert: Extra, expr: up == 0}]}]").unwrap();
    assert_eq!(api.post("/-/reload", &json!({})).await.0, 204);
    let (_, rules) = api.get("/api/v1/rules", &[]).await;
    assert!(rules["data"]["groups"].as_array().unwrap().iter().any(|group| group["name"] == "more"));
    fs::write(&more, "groups: [{name: other, rules: [{alert: Extra, expr: up == 0}]}]").unwrap();
    server.process().signal(rustix::process::Signal::HUP);
    wait_for("the rules after SIGHUP", Duration::from_secs(10), || async {
        let rules = api.try_get("/api/v1/rules", &[]).await?;
        rules["data"]["groups"].as_array()?.iter().any(|group| group["name"] == "other").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_is_told_within_30_seconds_and_a_restarted_server_tells_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (hook, ding, mail) = sinks().await;
    let config = server_config(dir.path(), &hook, &ding, &mail, "HostDown")
        .replace("startup_grace = \"2s\"", "")
        // The promise holds with what is set when nothing is said.
        .replace("group_wait = \"1s\"", "");
    let mut server = Server::start(dir.path(), &config).await;
    let mut agents = Vec::new();
    for name in ["web-1", "web-2"] {
        let mut agent = Agent::prepare(&dir.path().join(name), "");
        agent.enrol(&server.agents_address(), &server.token(), name);
        agent.start();
        server.api().wait_for_host(name, "up").await;
        agents.push(agent);
    }
    server.process().kill();
    server.run().await;
    for name in ["web-1", "web-2"] {
        server.api().wait_for_host(name, "up").await;
    }
    assert_eq!(hostdowns(&server.api()).await, Vec::<String>::new());

    assert_eq!(agents[1].process().stop().code(), Some(0));
    server.api().wait_for_host("web-2", "stopped").await;
    let killed = Instant::now();
    agents[0].process().kill();
    wait_for("a message about web-1", Duration::from_secs(60), || async { hooked(&hook).first().cloned() }).await;
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(30), "kill -9 to message: {took:?}");
    let told = &hooked(&hook)[0];
    assert_eq!(told["alerts"].as_array().unwrap().len(), 1, "a host that stopped on purpose is no alert: {told}");
    let labels = json!({"alertname": "HostDown", "instance": "web-1", "env": "test", "region": "lab", "severity": "critical"});
    assert_eq!(told["alerts"][0]["labels"], labels);
    assert_eq!(hostdowns(&server.api()).await, ["web-1 firing"]);

    server.process().kill();
    server.run().await;
    assert_eq!(hostdowns(&server.api()).await, ["web-1 firing"], "it survives the server");
    agents[0].start();
    server.api().wait_for_host("web-1", "up").await;
    wait_for("the end of the alert", Duration::from_secs(30), || async { (hooked(&hook).last()?["status"] == "resolved").then_some(()) })
        .await;
    assert_eq!(hooked(&hook).len(), 2, "{:?}", hooked(&hook));
}

async fn hostdowns(api: &Api) -> Vec<String> {
    let (status, all) = api.get("/shipwatch/api/v1/alerts", &[]).await;
    assert_eq!(status, 200);
    let all = all["alerts"].as_array().unwrap().iter().filter(|one| one["name"] == "HostDown");
    all.map(|one| format!("{} {}", one["labels"]["instance"].as_str().unwrap(), one["state"].as_str().unwrap())).collect()
}
