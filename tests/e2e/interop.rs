//! Prometheus' protocols with the programs that speak them: what one side writes, both sides answer equally.

use serde_json::Value;
use shipwatch_tests::{Api, Server, peers::Peer, server::PASSWORD, wait_for};
use std::{collections::BTreeMap, fs, path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);

/// Raw samples of a selector over the last hour, by the series' labels.
async fn samples(api: &Api, selector: &str) -> BTreeMap<String, Vec<(i64, String)>> {
    let (status, answer) = api.get("/api/v1/query", &[("query", &format!("{selector}[1h]"))]).await;
    assert_eq!(status, 200, "{answer}");
    let series = answer["data"]["result"].as_array().unwrap();
    let point = |pair: &Value| ((pair[0].as_f64().unwrap() * 1_000.0).round() as i64, pair[1].as_str().unwrap().to_owned());
    series.iter().map(|one| (one["metric"].to_string(), one["values"].as_array().unwrap().iter().map(point).collect())).collect()
}

fn remote(dir: &Path, server: &Server, more: &str) -> String {
    let file = dir.join("password");
    fs::write(&file, PASSWORD).unwrap();
    let url = server.api().url().to_owned();
    format!("url: {url}/api/v1/{more}\n  basic_auth:\n    username: admin\n    password_file: {}\n", file.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_prometheus_writes_to_us_is_what_it_has_itself() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "").await;
    let remote = remote(dir.path(), &server, "write");
    let config = format!(
        "scrape_configs:\n- job_name: itself\n  static_configs:\n  - targets: [\"127.0.0.1:{{port}}\"]\nremote_write:\n- {remote}  queue_config:\n    batch_send_deadline: 200ms\n  metadata_config:\n    send_interval: 1s\n"
    );
    let mut prometheus = Peer::prometheus(dir.path(), &config).await;
    let (ours, theirs) = (server.api(), prometheus.api());
    wait_for("ten scrapes", LIMIT, || async { ours.samples("up").await.filter(|all| all.len() >= 10) }).await;
    let expected = samples(&theirs, "{job=\"itself\"}").await;
    assert!(expected.len() > 300, "{}", expected.len());
    wait_for("metadata", LIMIT, || async {
        let told = ours.try_get("/api/v1/metadata", &[("metric", "go_goroutines")]).await?;
        (told["data"]["go_goroutines"][0]["type"] == "gauge").then_some(())
    })
    .await;
    // What it had when asked is here after it has sent the rest: it does so when it stops.
    prometheus.stop();
    let got = samples(&ours, "{job=\"itself\"}").await;
    for (series, points) in &expected {
        let ours = got.get(series).unwrap_or_else(|| panic!("{series} is missing"));
        assert_eq!(&ours[..points.len()], points, "{series}");
    }
    let text = metrics(&ours).await;
    assert!(number(&text, "shipwatch_receive_samples_total") >= expected.values().map(Vec::len).sum::<usize>() as f64, "{text}");
    assert_eq!(number(&text, "shipwatch_receive_refused_samples_total"), 0.0);
}

async fn metrics(api: &Api) -> String {
    let client = reqwest::Client::new();
    client.get(format!("{}/metrics", api.url())).basic_auth("admin", Some(PASSWORD)).send().await.unwrap().text().await.unwrap()
}

fn number(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vmagent_writes_to_us() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "").await;
    let ours = server.api();
    let prometheus = Peer::prometheus(dir.path(), "").await;
    let mut vmagent = Peer::vmagent(dir.path(), prometheus.port(), ours.url(), PASSWORD).await;
    let up = "up{job=\"through_vmagent\"}";
    wait_for("five scrapes", LIMIT, || async { ours.samples(up).await.filter(|all| all.len() >= 5) }).await;
    vmagent.stop();
    let all = samples(&ours, "{job=\"through_vmagent\"}").await;
    assert!(all.len() > 300, "{}", all.len());
    // Every series of a scrape has the scrape's time.
    let times = |name: &str| {
        all.iter()
            .find(|(series, _)| series.contains(&format!("\"{name}\"")))
            .map(|(_, points)| points.iter().map(|(at, _)| *at).collect::<Vec<_>>())
    };
    assert_eq!(times("up"), times("go_goroutines"));
}

/// A Prometheus without data of its own reads ours: its answers are ours, sealed or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_reads_from_us() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "").await;
    let ours = server.api();
    let source_dir = dir.path().join("source");
    fs::create_dir(&source_dir).unwrap();
    let write = remote(dir.path(), &server, "write");
    let config =
        format!("scrape_configs:\n- job_name: itself\n  static_configs:\n  - targets: [\"127.0.0.1:{{port}}\"]\nremote_write:\n- {write}");
    let mut source = Peer::prometheus(&source_dir, &config).await;
    wait_for("ten scrapes", LIMIT, || async { ours.samples("up").await.filter(|all| all.len() >= 10) }).await;
    source.stop();
    let read = remote(dir.path(), &server, "read");
    let reader = Peer::prometheus(dir.path(), &format!("remote_read:\n- {read}  read_recent: true\n")).await;
    let theirs = reader.api();
    for selector in ["{job=\"itself\"}", "up", "{__name__=~\"go_.*\",job!=\"x\"}", "prometheus_http_requests_total{code!~\"4..\"}"] {
        let expected = samples(&ours, selector).await;
        assert!(!expected.is_empty(), "{selector}");
        assert_eq!(samples(&theirs, selector).await, expected, "{selector}");
    }
    let (status, names) = theirs.get("/api/v1/query", &[("query", "count({job=\"itself\"})")]).await;
    assert_eq!(status, 200, "{names}");
}

/// What promtool says of our server; its exit tells whether it understood.
fn promtool(arguments: &[&str]) -> String {
    let output = std::process::Command::new("promtool").args(arguments).output().unwrap();
    let said = shipwatch_tests::process::said(&output);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_understands_the_answers_and_status_pages_have_their_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "").await;
    let ours = server.api();
    let write = remote(dir.path(), &server, "write");
    let config =
        format!("scrape_configs:\n- job_name: itself\n  static_configs:\n  - targets: [\"127.0.0.1:{{port}}\"]\nremote_write:\n- {write}");
    let _prometheus = Peer::prometheus(dir.path(), &config).await;
    wait_for("scrapes", LIMIT, || async { ours.samples("up").await.filter(|all| all.len() >= 3) }).await;
    let url = ours.url().replace("http://", &format!("http://admin:{}@", PASSWORD.replace(' ', "%20")));
    assert!(promtool(&["query", "instant", &url, "up + 1"]).contains("=> 2 @"));
    assert!(promtool(&["query", "range", "--step=1s", &url, "up"]).contains("1 @"));
    assert!(promtool(&["query", "series", "--match=up", &url]).contains("job=\"itself\""));
    assert!(promtool(&["query", "labels", &url, "job"]).contains("itself"));
    for (path, pointer, expected) in [
        ("targets", "/data/activeTargets", serde_json::json!([])),
        ("alertmanagers", "/data/activeAlertmanagers", serde_json::json!([])),
        ("notifications", "/data", serde_json::json!([])),
        ("status/walreplay", "/data/state", serde_json::json!("done")),
        ("status/runtimeinfo", "/data/storageRetention", serde_json::json!("30d")),
        ("query_exemplars?query=test&start=1763884800000&end=1763888400000", "/data", serde_json::json!([])),
    ] {
        let (status, answer) = ours.get(&format!("/api/v1/{path}"), &[]).await;
        assert_eq!((status, answer.pointer(pointer)), (200, Some(&expected)), "{path}: {answer}");
    }
    for coding in ["gzip", "zstd"] {
        let request = reqwest::Client::new().get(format!("{}/api/v1/series?match[]=%7Bjob%3D%22itself%22%7D", ours.url()));
        let response = request.basic_auth("admin", Some(PASSWORD)).header("accept-encoding", coding).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.headers()["content-encoding"].as_bytes()), (200, coding.as_bytes()));
    }
    // With a 200 Grafana would take this for a Thanos.
    assert_eq!(ours.get("/api/v1/status/flags", &[]).await.0, 404);
}

/// A field of bytes, all shorter than 128.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

/// A 2.0 request of one series with one sample, as one literal of snappy's block format.
fn second_version(symbols: &[&str], references: &[u8], ts_ms: i64, value: f64) -> Vec<u8> {
    let mut sample = vec![1 << 3 | 1];
    sample.extend(value.to_bits().to_le_bytes());
    sample.push(2 << 3);
    let mut rest = ts_ms as u64;
    while rest >= 0x80 {
        sample.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    sample.push(rest as u8);
    let mut message: Vec<u8> = symbols.iter().flat_map(|symbol| field(4, symbol.as_bytes())).collect();
    message.extend(field(5, &[field(1, references), field(2, &sample)].concat()));
    [&[message.len() as u8, 60 << 2, message.len() as u8 - 1][..], &message].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_is_there_after_a_kill_and_what_was_refused_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "").await;
    let api = server.api();
    let client = reqwest::Client::new();
    let send = |body: Vec<u8>, kind: &'static str| {
        let request = client.post(format!("{}/api/v1/write", api.url())).basic_auth("admin", Some(PASSWORD)).body(body);
        let request = request.header("content-encoding", "snappy").header("content-type", kind).send();
        async {
            let response = request.await.unwrap();
            let written =
                response.headers().get("x-prometheus-remote-write-samples-written").map(|count| count.to_str().unwrap().to_owned());
            (response.status().as_u16(), written, response.text().await.unwrap())
        }
    };
    let kind = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let good = second_version(&["", "__name__", "kept", "job", "x"], &[1, 2, 3, 4], now, 42.0);
    assert_eq!(send(good.clone(), kind).await, (204, Some("1".to_owned()), String::new()));
    server.process().kill();
    server.run().await;
    assert_eq!(api.samples("kept{job=\"x\"}").await, Some(vec![(now as f64 / 1_000.0, 42.0)]));
    let (status, written, told) = send(second_version(&["", "__name__", "old"], &[1, 2], 1_000, 1.0), kind).await;
    assert_eq!((status, written.as_deref()), (400, Some("0")), "{told}");
    assert!(told.contains("series.retention_days"), "{told}");
    let (status, _, told) = send(second_version(&["", "job", "x"], &[1, 2], now, 1.0), kind).await;
    assert!(status == 400 && told.contains("no metric name"), "{told}");
    assert_eq!(send(good, "text/plain").await.0, 415);
    assert_eq!(send(vec![0xff; 50], kind).await.0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dashboard_that_refreshes_gets_what_was_kept_and_what_came_since() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "").await;
    let api = server.api();
    let client = reqwest::Client::new();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 60 * 60;
    let write = |lines: String| {
        let request = client.post(format!("{}/api/v1/import/prometheus", api.url())).basic_auth("admin", Some(PASSWORD));
        async { assert_eq!(request.body(lines).send().await.unwrap().status(), 204) }
    };
    let ask = async |end: u64, more: &[(&str, &str)]| {
        let (start, end) = ((end - 1_800).to_string(), end.to_string());
        let window = [("query", "sum(asked)"), ("start", &start), ("end", &end), ("step", "60")];
        let (status, answer) = api.get("/api/v1/query_range", &[&window, more].concat()).await;
        assert_eq!(status, 200, "{answer}");
        answer["data"]["result"][0]["values"].clone()
    };
    let hits = async || {
        let text = metrics(&api).await;
        ["hits", "misses"].map(|what| number(&text, &format!("shipwatch_query_cache_{what}_total")) as u32)
    };
    write((0..60).map(|ago| format!("asked{{x=\"a\"}} {ago} {}000\n", now - 60 * ago)).collect()).await;
    let first = ask(now - 60, &[]).await;
    assert_eq!((first.as_array().unwrap().len(), hits().await), (31, [0, 1]));
    let second = ask(now, &[]).await;
    assert_eq!(second.as_array().unwrap()[..30], first.as_array().unwrap()[1..]);
    assert_eq!(hits().await, [1, 1]);
    // A late sample is there at once, with a cache and without.
    write(format!("asked{{x=\"b\"}} 1000 {}000\n", now - 600)).await;
    let third = ask(now, &[]).await;
    assert_eq!((&third[20][1], &third[19]), (&Value::from("1010"), &second[19]));
    assert_eq!(hits().await, [2, 1]);
    assert_eq!(ask(now, &[("nocache", "1")]).await, third);
    assert_eq!(hits().await, [2, 1]);
}
