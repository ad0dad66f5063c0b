//! What answers without credentials, and how one gets in.

use serde_json::json;
use shipwatch_tests::{Api, Server, server::PASSWORD};

const PROTECTED: &[(&str, &str)] = &[
    ("GET", "/shipwatch/api/v1/session"),
    ("GET", "/shipwatch/api/v1/hosts"),
    ("GET", "/shipwatch/api/v1/hosts/x"),
    ("POST", "/shipwatch/api/v1/hosts/x/revoke"),
    ("GET", "/shipwatch/api/v1/logs"),
    ("GET", "/shipwatch/api/v1/logs/tail"),
    ("GET", "/shipwatch/api/v1/alerts"),
    ("GET", "/shipwatch/api/v1/deployments"),
    ("POST", "/shipwatch/api/v1/deployments"),
    ("POST", "/shipwatch/api/v1/tokens"),
    ("POST", "/shipwatch/api/v1/enrolment-tokens"),
    ("GET", "/shipwatch/api/v1/live"),
    ("GET", "/shipwatch/api/v1/no-such-thing"),
    ("GET", "/api/v1/query?query=1"),
    ("POST", "/api/v1/query"),
    ("GET", "/api/v1/labels"),
    ("POST", "/api/v1/write"),
    ("POST", "/api/v1/read"),
    ("POST", "/api/v1/import"),
    ("POST", "/api/v1/import/prometheus"),
    ("GET", "/api/v1/export"),
    ("GET", "/federate"),
    ("POST", "/loki/api/v1/push"),
    ("POST", "/v1/logs"),
    ("POST", "/otlp/v1/logs"),
    ("GET", "/elasticsearch/"),
    ("GET", "/elasticsearch"),
    ("POST", "/elasticsearch/_bulk"),
    ("POST", "/elasticsearch/shop/_bulk"),
    ("GET", "/elasticsearch/_license"),
    ("POST", "/shipwatch/api/v1/mask/preview"),
    ("GET", "/api/v1/targets"),
    ("GET", "/api/v1/no-such-thing"),
    ("GET", "/metrics"),
    ("GET", "/loki/api/v1/query_range"),
    ("POST", "/loki/api/v1/query"),
    ("GET", "/loki/api/v1/labels"),
    ("GET", "/loki/api/v1/tail"),
    ("GET", "/loki/api/v1/no-such-thing"),
    ("GET", "/ready"),
    ("POST", "/-/reload"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_health_and_the_sign_in_page_answer_without_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "").await;
    let api = server.api();
    for (method, path) in PROTECTED {
        let (status, body) = api.anonymous(method, path).await;
        assert_eq!(status, 401, "{method} {path}: {body}");
    }
    for path in ["/-/healthy", "/-/ready"] {
        assert_eq!(api.anonymous("GET", path).await.0, 200, "{path}");
    }
    let wrong = Api::new(api.url(), "admin", "not the password");
    assert_eq!(wrong.get("/shipwatch/api/v1/hosts", &[]).await.0, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_tokens_and_foreign_sites() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "").await;
    let api = server.api();
    let http = reqwest::Client::new();
    let url = |path: &str| format!("{}{path}", api.url());
    let signed = http.post(url("/shipwatch/api/v1/session")).json(&json!({"user": "admin", "password": PASSWORD})).send().await.unwrap();
    assert_eq!(signed.status(), 200);
    let cookie = signed.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let with_cookie = |origin: &'static str| {
        http.post(url("/shipwatch/api/v1/tokens"))
            .header("cookie", &cookie)
            .header("origin", origin)
            .json(&json!({"name": "ci", "ttl": "1h"}))
            .send()
    };
    assert_eq!(with_cookie("http://evil.example").await.unwrap().status(), 403);
    let (status, made) = api.post("/shipwatch/api/v1/tokens", &json!({"name": "ci", "ttl": "1h"})).await;
    assert_eq!(status, 201);
    let token = made["token"].as_str().unwrap();
    let bearer = http.get(url("/api/v1/query?query=1%2B1&time=4")).bearer_auth(token).send().await.unwrap();
    let answer: serde_json::Value = bearer.json().await.unwrap();
    assert_eq!(answer["data"]["result"], json!([4, "2"]));
    let out = http
        .delete(url("/shipwatch/api/v1/session"))
        .header("cookie", &cookie)
        .header("sec-fetch-site", "same-origin")
        .send()
        .await
        .unwrap();
    assert_eq!(out.status(), 204);
    let after = http.get(url("/shipwatch/api/v1/session")).header("cookie", &cookie).send().await.unwrap();
    assert_eq!(after.status(), 401);
    for _ in 0..10 {
        http.post(url("/shipwatch/api/v1/session")).json(&json!({"user": "admin", "password": "wrong"})).send().await.unwrap();
    }
    let limited = http.post(url("/shipwatch/api/v1/session")).json(&json!({"user": "admin", "password": "wrong"})).send().await.unwrap();
    assert_eq!(limited.status(), 429);
    assert!(limited.headers().contains_key("retry-after"));
}
