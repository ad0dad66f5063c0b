//! The server's HTTP API as the benches use it.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

const USER: &str = "admin";
/// Looks again after this time.
const PAUSE: Duration = Duration::from_millis(100);

/// A server's API, as its admin.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    url: String,
    password: String,
}

/// A client for plain HTTP on the loopback address.
///
/// # Errors
/// No client can be made.
pub fn client() -> Result<reqwest::Client> {
    // reqwest asks for it even where no TLS is spoken; a second call changes nothing.
    let _already_installed = std::sync::Arc::unwrap_or_clone(shipwatch_common::transport::provider()).install_default();
    reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().build().context("an HTTP client")
}

impl Api {
    /// With the admin's password.
    ///
    /// # Errors
    /// No client can be made.
    pub fn new(url: String, password: &str) -> Result<Self> {
        Ok(Self { http: client()?, url, password: password.to_owned() })
    }

    /// Whether the server answers.
    pub async fn is_ready(&self) -> bool {
        self.http.get(format!("{}/-/ready", self.url)).send().await.is_ok_and(|response| response.status().is_success())
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<reqwest::Response> {
        let mut url = reqwest::Url::parse(&format!("{}{path}", self.url))?;
        url.query_pairs_mut().extend_pairs(parameters);
        let response = self.http.get(url).basic_auth(USER, Some(&self.password)).send().await.with_context(|| path.to_owned())?;
        if !response.status().is_success() {
            let status = response.status();
            bail!("{path}: {status}: {}", response.text().await.unwrap_or_default());
        }
        Ok(response)
    }

    /// The bytes of an answer, and how long it took from the question to its last byte.
    ///
    /// # Errors
    /// No answer, or not a good one.
    pub async fn timed(&self, path: &str, parameters: &[(&str, &str)]) -> Result<(bytes::Bytes, Duration)> {
        let begun = Instant::now();
        let body = self.get(path, parameters).await?.bytes().await?;
        Ok((body, begun.elapsed()))
    }

    /// Sends a body of Prometheus' remote write 1.0.
    ///
    /// # Errors
    /// No answer, or not a good one.
    pub async fn remote_write(&self, body: Vec<u8>) -> Result<()> {
        let path = "/api/v1/write";
        let request = self.http.post(format!("{}{path}", self.url)).basic_auth(USER, Some(&self.password)).body(body);
        let headers =
            [("content-type", "application/x-protobuf"), ("content-encoding", "snappy"), ("x-prometheus-remote-write-version", "0.1.0")];
        let request = headers.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let response = request.send().await.context(path)?;
        if !response.status().is_success() {
            let status = response.status();
            bail!("{path}: {status}: {}", response.text().await.unwrap_or_default());
        }
        Ok(())
    }

    /// Asks for something to be done, such as a snapshot; gives the answer's text.
    ///
    /// # Errors
    /// No answer, or not a good one.
    pub async fn act(&self, path: &str) -> Result<String> {
        let request = self.http.post(format!("{}{path}", self.url)).basic_auth(USER, Some(&self.password));
        let response = request.send().await.with_context(|| path.to_owned())?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("{path}: {status}: {text}");
        }
        Ok(text)
    }

    /// JSON of a path.
    ///
    /// # Errors
    /// No answer, or not a good one.
    pub async fn json(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let text = self.get(path, parameters).await?.text().await?;
        serde_json::from_str(&text).with_context(|| format!("{path} does not answer with JSON"))
    }

    /// `data` of an instant query.
    ///
    /// # Errors
    /// No answer, or not a good one.
    pub async fn query(&self, query: &str, at_ms: Option<i64>) -> Result<Value> {
        let at = at_ms.map(seconds);
        let mut parameters = vec![("query", query)];
        parameters.extend(at.as_deref().map(|at| ("time", at)));
        let mut answer = self.json("/api/v1/query", &parameters).await?;
        Ok(answer["data"].take())
    }

    /// The single value of an instant query; `None` when it finds nothing.
    ///
    /// # Errors
    /// No answer, or not a good one.
    pub async fn number(&self, query: &str) -> Result<Option<f64>> {
        let data = self.query(query, None).await?;
        Ok(data.pointer("/result/0/value/1").and_then(Value::as_str).and_then(|text| text.parse().ok()))
    }

    /// The text of a path.
    ///
    /// # Errors
    /// No answer, or not a good one.
    pub async fn text(&self, path: &str) -> Result<String> {
        Ok(self.get(path, &[]).await?.text().await?)
    }

    /// A value of the server's own `/metrics`.
    ///
    /// # Errors
    /// No answer, or no such metric.
    pub async fn own_metric(&self, name: &str) -> Result<f64> {
        let text = self.text("/metrics").await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.with_context(|| format!("the server's /metrics has no {name}"))
    }
}

/// A time as the API takes it.
#[must_use]
pub fn seconds(at_ms: i64) -> String {
    format!("{}.{:03}", at_ms.div_euclid(1000), at_ms.rem_euclid(1000))
}

/// Waits until `look` gives something.
///
/// # Errors
/// It takes longer than `limit`, or `look` fails.
pub async fn wait_for<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
