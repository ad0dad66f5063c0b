//! Loki's API on a real server, with lines that an agent brought.

use serde_json::{Value, json};
use shipwatch_tests::{Agent, Api, Server, WebSocket, server::PASSWORD, wait_for};
use std::{fs, io::Write as _, path::Path, time::Duration};

const LIMIT: Duration = Duration::from_secs(30);

const LINES: &str = r#"{"level":"info","method":"GET","path":"/cart","status":200,"took":"12ms"}
{"level":"error","method":"POST","path":"/pay","status":502,"took":"1.5s"}
{"level":"info","method":"GET","path":"/cart","status":200,"took":"30ms"}
plain words, not JSON
"#;

fn tail(dir: &Path) -> String {
    fs::write(dir.join("shop.log"), LINES).unwrap();
    format!(
        "[tail]\nfiles = [\"{}/shop.log\"]\nstart_at = \"beginning\"\nrescan = \"200ms\"\n[tail.labels]\napp = \"shop\"\n",
        dir.display()
    )
}

async fn get(api: &Api, path: &str, parameters: &[(&str, &str)]) -> Value {
    let (status, body) = api.get(&format!("/loki/api/v1/{path}"), parameters).await;
    assert_eq!(status, 200, "{path} {parameters:?}: {body}");
    body
}

/// A request as Loki's clients make it: status, kind of the body, body.
async fn raw(api: &Api, path: &str, form: Option<&str>, flags: &str) -> (u16, String, String) {
    let client = reqwest::Client::new();
    let url = format!("{}/loki/api/v1/{path}", api.url());
    let request = match form {
        Some(form) => client.post(url).header("content-type", "application/x-www-form-urlencoded").body(form.to_owned()),
        None => client.get(url),
    };
    let request = request.header("x-loki-response-encoding-flags", flags).basic_auth("admin", Some(PASSWORD));
    let response = request.send().await.unwrap();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned()).unwrap_or_default();
    (response.status().as_u16(), kind, response.text().await.unwrap())
}

fn append(dir: &Path, line: &str) {
    writeln!(fs::OpenOptions::new().append(true).open(dir.join("shop.log")).unwrap(), "{line}").unwrap();
}

/// Texts of a message of the tail.
fn texts(message: &str) -> Vec<String> {
    let message: Value = serde_json::from_str(message).unwrap();
    let streams = message["streams"].as_array().unwrap();
    streams.iter().flat_map(|stream| stream["values"].as_array().unwrap()).map(|value| value[1].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_and_numbers_are_read_as_from_loki() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "").await;
    let mut agent = Agent::prepare(&dir.path().join("agent"), &tail(dir.path()));
    agent.enrol(&server.agents_address(), &server.token(), "web-1");
    agent.start();
    let api = server.api();
    wait_for("four lines", LIMIT, || async {
        let found = api.try_get("/loki/api/v1/query", &[("query", r#"sum(count_over_time({app="shop"}[10m]))"#)]).await?;
        (found["data"]["result"][0]["value"][1] == "4").then_some(())
    })
    .await;

    streams(&api).await;
    metrics(&api).await;
    catalog(&api).await;
    mistakes(&api).await;
    followed(&api, dir.path()).await;
}

async fn streams(api: &Api) {
    let body = get(api, "query_range", &[("query", r#"{app="shop"} |= "cart""#), ("limit", "1"), ("direction", "FORWARD")]).await;
    assert_eq!((&body["status"], &body["data"]["resultType"]), (&json!("success"), &json!("streams")));
    let stream = &body["data"]["result"][0];
    assert_eq!(
        (&stream["stream"]["app"], &stream["stream"]["host"], &stream["stream"]["detected_level"]),
        (&json!("shop"), &json!("web-1"), &json!("info"))
    );
    assert!(stream["values"][0][0].as_str().unwrap().len() == 19 && stream["values"][0][1].as_str().unwrap().contains("12ms"), "{stream}");
    assert!(body["data"]["stats"]["summary"]["execTime"].is_f64() && body["data"]["stats"]["summary"]["totalEntriesReturned"] == 1);

    let query = r#"{app="shop"} | json | __error__="" | status >= 500 | line_format "{{.method}} {{.path}}""#;
    let body = get(api, "query_range", &[("query", query), ("since", "10m")]).await;
    let stream = &body["data"]["result"][0];
    assert_eq!((&stream["values"][0][1], &stream["stream"]["took"]), (&json!("POST /pay"), &json!("1.5s")));

    // Grafana sends forms and wants the labels apart.
    let form = "query=%7Bapp%3D%22shop%22%7D+%7C+json+method+%7C+method%3D%22POST%22&limit=10";
    let (status, kind, body) = raw(api, "query_range", Some(form), "categorize-labels").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, kind.as_str(), &body["data"]["encodingFlags"]), (200, "application/json", &json!(["categorize-labels"])));
    let stream = &body["data"]["result"][0];
    assert_eq!(stream["stream"].get("method"), None);
    assert_eq!(stream["values"][0][2], json!({"structuredMetadata": {"detected_level": "error"}, "parsed": {"method": "POST"}}));
}

async fn metrics(api: &Api) {
    let health = get(api, "query", &[("query", "vector(1)+vector(1)"), ("time", "4000000000")]).await;
    assert_eq!(health["data"]["result"], json!([{"metric": {}, "value": [4_000_000_000u64, "2"]}]));
    assert_eq!(get(api, "query", &[("query", "1+1"), ("time", "5")]).await["data"]["result"], json!([5, "2"]));

    let volume = r#"sum by (level, detected_level) (count_over_time({app="shop"} | drop __error__ [10m]))"#;
    let body = get(api, "query", &[("query", volume)]).await;
    let counts: Vec<_> = body["data"]["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["metric"]["detected_level"].clone(), one["value"][1].clone()))
        .collect();
    assert!(counts.contains(&(json!("error"), json!("1"))) && counts.contains(&(json!("info"), json!("2"))), "{counts:?}");

    let slow = r#"max by (path) (max_over_time({app="shop"} | json | unwrap duration(took) | __error__="" [10m]))"#;
    let body = get(api, "query_range", &[("query", slow), ("since", "5m"), ("step", "60")]).await;
    assert_eq!(body["data"]["resultType"], "matrix");
    let pay = body["data"]["result"].as_array().unwrap().iter().find(|one| one["metric"]["path"] == "/pay").unwrap().clone();
    assert_eq!(pay["values"].as_array().unwrap().last().unwrap()[1], "1.5");
}

async fn catalog(api: &Api) {
    let labels = get(api, "labels", &[]).await;
    assert!(labels["data"].as_array().unwrap().contains(&json!("app")), "{labels}");
    assert_eq!(get(api, "label/app/values", &[("query", r#"{host="web-1"}"#)]).await["data"], json!(["shop"]));
    let series = get(api, "series", &[("match[]", r#"{app="shop"}"#)]).await;
    assert_eq!(series["data"][0]["host"], "web-1");
    let stats = get(api, "index/stats", &[("query", r#"{app="shop"}"#)]).await;
    assert_eq!((&stats["streams"], &stats["entries"], &stats["bytes"]), (&json!(1), &json!(4), &json!(LINES.len() - 4)));
    let volume = get(api, "index/volume", &[("query", r#"{app="shop"}"#)]).await;
    assert_eq!(volume["data"]["result"][0]["metric"], json!({"app": "shop"}));
    assert_eq!(volume["data"]["result"][0]["value"][1], (LINES.len() - 4).to_string());
    let volume = get(api, "index/volume", &[("query", r#"{app="shop"}"#), ("aggregateBy", "labels"), ("targetLabels", "host")]).await;
    assert_eq!(volume["data"]["result"][0]["metric"], json!({"host": ""}));
    let range = get(api, "index/volume_range", &[("query", r#"{app="shop"}"#), ("step", "600")]).await;
    let total: u64 =
        range["data"]["result"][0]["values"].as_array().unwrap().iter().map(|pair| pair[1].as_str().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(total, LINES.len() as u64 - 4, "{range}");
    let fields = get(api, "detected_fields", &[("query", r#"{app="shop"}"#)]).await;
    let status = fields["fields"].as_array().unwrap().iter().find(|field| field["label"] == "status").unwrap().clone();
    assert_eq!(status, json!({"label": "status", "type": "int", "cardinality": 2, "parsers": ["json"]}));
    assert_eq!(get(api, "detected_labels", &[]).await["detectedLabels"][0], json!({"label": "app", "cardinality": 1}));
    assert_eq!(get(api, "patterns", &[]).await, json!({"status": "success", "data": []}));
    assert!(get(api, "status/buildinfo", &[]).await["version"].is_string());
    let formatted = get(api, "format_query", &[("query", r#"sum(rate({a="b"}[5m]))by(c)"#)]).await;
    assert_eq!(formatted["data"], r#"sum by (c) (rate({a="b"} [5m]))"#);
}

async fn mistakes(api: &Api) {
    for (path, status, message) in [
        ("query_range?query=%7Ba%3D%7D", 400, "parse error at line 1, col 4: expected a text in quotes"),
        ("query_range?query=%7Ba%3D%22b%22%7D&limit=5001", 400, "max entries limit per query exceeded"),
        ("query_range?query=%7Ba%3D%22b%22%7D&start=tomorrow", 400, "start: \"tomorrow\" is not a time"),
        ("query?query=%7Ba%3D%22b%22%7D", 400, "log queries are not supported as an instant query type"),
        ("query?query=sum(count_over_time(%7Bapp%3D%22shop%22%7D%7Cjson%5B10m%5D))", 400, "pipeline error: 'JSONParserErr'"),
        ("tail?query=%7Ba%3D%22b%22%7D", 400, "connect by WebSocket here"),
        ("rules", 404, "not offered"),
    ] {
        let (found, kind, body) = raw(api, path, None, "").await;
        assert_eq!((found, kind.as_str()), (status, "text/plain; charset=utf-8"), "{path}: {body}");
        assert!(body.starts_with(message) || body.contains(message), "{path}: {body}");
    }
}

async fn followed(api: &Api, dir: &Path) {
    let path = "/loki/api/v1/tail?query=%7Bapp%3D%22shop%22%7D%20%7C%3D%20%22order%22%20%7C%20logfmt%20%7C%20n%20%3E%201&limit=10";
    append(dir, "order n=2");
    wait_for("the first order", LIMIT, || async {
        let found = api.try_get("/loki/api/v1/query_range", &[("query", r#"{app="shop"} |= "order n=2""#)]).await?;
        (found["data"]["result"].as_array()?.len() == 1).then_some(())
    })
    .await;
    let mut socket = WebSocket::open(api.url(), path).await.unwrap();
    assert_eq!(texts(&socket.text().await.unwrap()), ["order n=2"], "what is there comes first");
    append(dir, "order n=1");
    append(dir, "nothing of interest");
    append(dir, "order n=3");
    assert_eq!(texts(&socket.text().await.unwrap()), ["order n=3"]);
    socket.close().await;
    let refused = WebSocket::open(api.url(), "/loki/api/v1/tail?query=rate(%7Ba%3D%22b%22%7D%5B1m%5D)").await.unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("a query for lines is needed here"), "{refused}");
}
