//! Log lines that others push: rsyslog's module for Elasticsearch, Loki's and OpenTelemetry's protocols; masked, stored once.

use serde_json::{Value, json};
use shipwatch_tests::{Server, process::Running, server::PASSWORD, wait_for};
use std::{fs, io::Write as _, path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);

fn now_ns() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_nanos().to_string()
}

/// rsyslog that follows a file and sends its lines to `_bulk`.
fn rsyslog(dir: &Path, url: &str, token: &str) -> Running {
    let config = format!(
        r#"global(workDirectory="{work}")
module(load="imfile")
module(load="omelasticsearch")
template(name="document" type="list" option.json="on") {{
  constant(value="{{\"@timestamp\":\"")  property(name="timereported" dateFormat="rfc3339")
  constant(value="\",\"host\":{{\"name\":\"web-1\"}},\"log\":{{\"level\":\"warning\"}},\"message\":\"") property(name="msg")
  constant(value="\"}}")
}}
template(name="index" type="string" string="shop")
input(type="imfile" File="{work}/app.log" Tag="app")
if $syslogtag == "app" then action(type="omelasticsearch" server="{url}/elasticsearch" serverport="0" template="document"
  searchIndex="index" dynSearchIndex="on" searchType="" bulkmode="on" uid="rsyslog" pwd="{token}" errorFile="{work}/errors"
  queue.type="linkedList" action.resumeRetryCount="-1" action.resumeInterval="1")
"#,
        work = dir.display(),
    );
    let file = dir.join("rsyslog.conf");
    fs::write(&file, config).unwrap();
    let (file, pid) = (file.display().to_string(), dir.join("rsyslog.pid").display().to_string());
    Running::of_others("/usr/sbin/rsyslogd", &["-n", "-f", &file, "-i", &pid], &dir.join("rsyslog.log"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rsyslog_sends_to_bulk_also_over_a_restart_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "").await;
    let api = server.api();
    let lines = |from: usize, to: usize| (from..to).map(|n| format!("order {n} of buyer{n}@shop-example.com\n")).collect::<String>();
    let log = dir.path().join("app.log");
    fs::write(&log, lines(0, 500)).unwrap();
    let made = api.post("/shipwatch/api/v1/tokens", &json!({"name": "rsyslog"})).await.1;
    let mut rsyslog = rsyslog(dir.path(), api.url(), made["token"].as_str().unwrap());
    let count = |api: shipwatch_tests::Api| async move { api.lines("{index=\"shop\"}").await };
    wait_for("the first lines", LIMIT, || async { (count(api.clone()).await.len() >= 500).then_some(()) }).await;
    server.process().stop();
    fs::File::options().append(true).open(&log).unwrap().write_all(lines(500, 1000).as_bytes()).unwrap();
    server.run().await;
    let api = server.api();
    let all = wait_for("all lines", LIMIT, || async { Some(count(api.clone()).await).filter(|all| all.len() >= 1000) }).await;
    rsyslog.stop();
    let expected: Vec<String> = (0..1000).map(|n| format!("order {n} of [email] log.level=warning")).collect();
    let mut got: Vec<String> = all.into_iter().map(|(_, line)| line).collect();
    got.sort_by_key(|line| line.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok()));
    assert_eq!(got, expected);
    let marked = api.lines("{masked_by=\"server\", host=\"web-1\", source=\"elasticsearch\"} | severity=\"warn\"").await;
    assert_eq!(marked.len(), 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loki_and_opentelemetry_are_answered_in_their_own_words() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "[push]\nmax_lines = 3\n").await;
    let api = server.api();
    let http = reqwest::Client::new();
    let post = |path: &str, kind: &str, body: Vec<u8>| {
        let request = http.post(format!("{}{path}", api.url())).basic_auth("admin", Some(PASSWORD)).header("content-type", kind);
        async move {
            let response = request.body(body).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        }
    };
    let push = |values: Value| json!({"streams": [{"stream": {"app": "till"}, "values": values}]}).to_string().into_bytes();
    let body = push(json!([[now_ns(), "paid by 13812345678"]]));
    // The second time is a sender that did not hear the answer.
    for _ in 0..2 {
        assert_eq!(post("/loki/api/v1/push", "application/json", body.clone()).await, (204, String::new()));
    }
    let (status, told) = post("/loki/api/v1/push", "application/json", push(json!(vec![json!([now_ns(), "x"]); 4]))).await;
    assert_eq!(status, 413);
    assert!(told.contains("push.max_lines"), "{told}");
    assert_eq!(post("/loki/api/v1/push", "text/plain", body.clone()).await.0, 415);
    assert_eq!(post("/loki/api/v1/push", "application/x-protobuf", body.clone()).await.0, 400);
    assert_eq!(api.lines("{app=\"till\"}").await.into_iter().map(|(_, line)| line).collect::<Vec<_>>(), ["paid by [phone]"]);

    let record = json!({"timeUnixNano": now_ns(), "severityText": "ERROR", "body": {"stringValue": "mail a.b@example.com"}});
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "otel"}}]});
    let body = json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]}).to_string().into_bytes();
    assert_eq!(post("/v1/logs", "application/json", body).await, (200, "{}".to_owned()));
    let (status, told) = post("/otlp/v1/logs", "application/json", b"[]".to_vec()).await;
    assert_eq!((status, serde_json::from_str::<Value>(&told).unwrap()["code"].clone()), (400, json!(3)));
    assert_eq!(api.lines("{app=\"otel\"} | severity=\"error\"").await.len(), 1);

    let (status, root) = api.get("/elasticsearch/", &[]).await;
    assert_eq!((status, &root["tagline"]), (200, &json!("You Know, for Search")));
    assert_eq!(api.get("/elasticsearch/_license", &[]).await.1["license"]["status"], "active");
    assert_eq!(api.get("/elasticsearch/shop/_search", &[]).await.0, 404);

    let (status, shown) = api.post("/shipwatch/api/v1/mask/preview", &json!({"text": "mail a.b@example.com"})).await;
    assert_eq!((status, &shown["lines"][0]["masked"]), (200, &json!("mail [email]")));
    let files = fs::read_dir(dir.path().join("data/logs")).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    for bytes in files.chain([fs::read(dir.path().join("server.log")).unwrap()]) {
        let leaked = |value: &[u8]| bytes.windows(value.len()).any(|window| window == value);
        assert!(!leaked(b"13812345678") && !leaked(b"a.b@example.com"));
    }
}
