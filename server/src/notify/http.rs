//! HTTP to channels: bounded in time and size, follows no redirect, tells no URL.

use super::channel::Outcome;
use crate::causes::without_url;
use reqwest::{StatusCode, Url, header};
use std::time::Duration;

/// Longest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 << 10;
/// Longest time that an answer may ask us to wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// A client for all HTTP channels.
#[derive(Clone, Debug)]
pub struct Http(reqwest::Client);

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: String,
}

impl Http {
    /// Makes the client.
    ///
    /// # Errors
    /// No TLS with this machine's certificates.
    pub fn new(timeout: Duration) -> Result<Self, String> {
        // A second call in one process is the only way to fail; then the first one's choice stands.
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(10)))
            .user_agent(concat!("Shipwatch/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("no HTTPS client: {error}; are the ca-certificates of this machine installed?"))?;
        Ok(Self(client))
    }

    /// Posts JSON.
    ///
    /// # Errors
    /// No answer came; to be tried again.
    pub(super) async fn post(&self, url: Url, headers: &[(&'static str, String)], body: String) -> Result<Answer, Outcome> {
        let mut request = self.0.post(url).header(header::CONTENT_TYPE, "application/json; charset=utf-8").body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let failed = |error: reqwest::Error| Outcome::Retry { reason: without_url(error), after: None };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let mut bytes = Vec::new();
        while bytes.len() < MAX_ANSWER_BYTES
            && let Some(chunk) = response.chunk().await.map_err(failed)?
        {
            bytes.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER_BYTES - bytes.len())]);
        }
        let body = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer { status, retry_after: retry_after.map(Duration::from_secs).map(|after| after.min(MAX_RETRY_AFTER)), body })
    }
}

/// What a status means for channels that have no words of their own.
pub(super) fn judge(answer: &Answer) -> Outcome {
    let reason = format!("HTTP {}: {}", answer.status.as_u16(), answer.body.trim());
    match answer.status {
        status if status.is_success() => Outcome::Accepted(format!("HTTP {}", status.as_u16())),
        status if status.is_redirection() => {
            Outcome::Rejected(format!("HTTP {}: it redirects; set `url` to where it leads", status.as_u16()))
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Outcome::Retry { reason, after: answer.retry_after },
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::CONFLICT => Outcome::Retry { reason, after: None },
        status if status.is_server_error() => Outcome::Retry { reason, after: answer.retry_after },
        _ => Outcome::Rejected(reason),
    }
}

/// Scheme and host.
pub(super) fn shown_target(url: &Url) -> String {
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    format!("{}://{}{port}/…", url.scheme(), url.host_str().unwrap_or_default())
}
