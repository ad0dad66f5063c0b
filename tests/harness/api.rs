//! The HTTP API as a client sees it.

use crate::wait_for;
use serde_json::Value;
use std::time::Duration;

/// A server's API with credentials.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    url: String,
    user: String,
    password: String,
}

impl Api {
    /// With a user's name and password.
    ///
    /// # Panics
    /// If no client can be made.
    #[must_use]
    pub fn new(url: &str, user: &str, password: &str) -> Self {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(20))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        Self { http, url: url.to_owned(), user: user.to_owned(), password: password.to_owned() }
    }

    /// The server's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the server answers.
    pub async fn is_ready(&self) -> bool {
        self.http.get(format!("{}/-/ready", self.url)).send().await.is_ok_and(|response| response.status().is_success())
    }

    /// A request without credentials: status and body.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn anonymous(&self, method: &str, path: &str) -> (u16, String) {
        let method = method.parse().expect("a method");
        let response = self.http.request(method, format!("{}{path}", self.url)).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.unwrap_or_default())
    }

    /// GET with parameters: status and JSON.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> (u16, Value) {
        let mut url = reqwest::Url::parse(&format!("{}{path}", self.url)).expect("a url");
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let response = self.http.get(url).basic_auth(&self.user, Some(&self.password)).send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    /// As [`Api::get`], while the server may be down.
    pub async fn try_get(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let mut url = reqwest::Url::parse(&format!("{}{path}", self.url)).ok()?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let response = self.http.get(url).basic_auth(&self.user, Some(&self.password)).send().await.ok()?;
        response.json().await.ok()
    }

    /// POST of JSON: status and JSON.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.http.post(format!("{}{path}", self.url)).basic_auth(&self.user, Some(&self.password)).json(body);
        let response = request.send().await.expect("an answer");
        (response.status().as_u16(), response.json().await.unwrap_or_default())
    }

    /// Raw samples of a selector, over the last hour: `(seconds, value)`.
    pub async fn samples(&self, selector: &str) -> Option<Vec<(f64, f64)>> {
        let answer = self.try_get("/api/v1/query", &[("query", &format!("{selector}[1h]"))]).await?;
        let series = answer.pointer("/data/result/0/values")?.as_array()?;
        series.iter().map(|pair| Some((pair.get(0)?.as_f64()?, pair.get(1)?.as_str()?.parse().ok()?))).collect()
    }

    /// All lines of a query over the last hour, in file order per file: `(filename, line, id)`.
    ///
    /// # Panics
    /// If the answer has not the documented shape.
    pub async fn lines(&self, query: &str) -> Vec<(String, String)> {
        let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
        let (start, end) = (format!("{}000000000", now_s - 3600), format!("{}000000000", now_s + 3600));
        let mut cursor = String::new();
        let mut all = Vec::new();
        loop {
            let parameters = [
                ("query", query),
                ("start_ns", &start),
                ("end_ns", &end),
                ("limit", "5000"),
                ("direction", "forward"),
                ("cursor", &cursor),
            ];
            let (status, page) = self.get("/shipwatch/api/v1/logs", &parameters).await;
            assert_eq!(status, 200, "{page}");
            for entry in page["entries"].as_array().expect("entries") {
                let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
                all.push((text("/labels/filename"), text("/line")));
            }
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => return all,
            }
        }
    }

    /// Waits until a host has this state.
    ///
    /// # Panics
    /// If it takes too long.
    pub async fn wait_for_host(&self, name: &str, state: &str) -> Value {
        wait_for(&format!("host {name} to be {state}"), Duration::from_secs(40), || async {
            let host = self.try_get(&format!("/shipwatch/api/v1/hosts/{name}"), &[]).await?;
            (host["state"] == state).then_some(host)
        })
        .await
    }
}
