//! HTTP to a target: bounded in time and size, follows no redirect, tells neither URL nor credentials.

use super::{config::Target, judge::Answer};
use crate::notify::secret::{Scrubber, Secret};
use reqwest::{Certificate, Url, header};
use shipwatch_series::remote::Version;
use std::{error::Error as _, fs, time::Duration};

/// Longest part of a refusal that is read.
const MAX_ANSWER_BYTES: usize = 4 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    bearer_token_file: String,
    username: String,
    password_file: String,
}

/// What a request needs beside its body. Read anew for each.
#[derive(Debug, Default)]
struct Credentials {
    bearer: Secret,
    password: Secret,
}

impl Client {
    /// For a target.
    ///
    /// # Errors
    /// A URL or a file of certificates that cannot be used.
    pub(super) fn new(target: &Target) -> Result<Self, String> {
        // A second call in one process is the only way to fail; then the first one's choice stands.
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(target.timeout)
            .connect_timeout(target.timeout.min(Duration::from_secs(10)))
            .pool_max_idle_per_host(target.lanes)
            .user_agent(concat!("Shipwatch/", env!("CARGO_PKG_VERSION")));
        if !target.tls_ca_file.is_empty() {
            let file = &target.tls_ca_file;
            let pem = fs::read(file).map_err(|error| format!("tls_ca_file {file}: {error}"))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| format!("tls_ca_file {file}: {error}"))?;
            if certificates.is_empty() {
                return Err(format!("tls_ca_file {file}: it holds no certificate"));
            }
            builder = builder.tls_certs_only(certificates);
        }
        let http = builder.build().map_err(|error| format!("no HTTPS client: {}", told(error)))?;
        Ok(Self {
            http,
            url: target.parsed_url().map_err(|error| format!("url {error}"))?,
            bearer_token_file: target.bearer_token_file.clone(),
            username: target.username.clone(),
            password_file: target.password_file.clone(),
        })
    }

    /// Posts a body.
    ///
    /// # Errors
    /// Why there is no answer; to be tried again.
    pub(super) async fn post(&self, version: Version, body: Vec<u8>) -> Result<Answer, String> {
        let credentials = self.credentials().await?;
        let (kind, number) = match version {
            Version::V1 => ("application/x-protobuf", "0.1.0"),
            Version::V2 => ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "2.0.0"),
        };
        let mut request = self.http.post(self.url.clone());
        for (name, value) in [("content-type", kind), ("content-encoding", "snappy"), ("x-prometheus-remote-write-version", number)] {
            request = request.header(name, value);
        }
        if !credentials.bearer.is_empty() {
            request = request.bearer_auth(credentials.bearer.reveal());
        } else if !self.username.is_empty() {
            request = request.basic_auth(&self.username, Some(credentials.password.reveal()));
        }
        let of_url: Vec<_> = self.url.query_pairs().map(|(_, value)| value).collect();
        let own = [credentials.bearer.reveal(), credentials.password.reveal(), self.url.as_str()];
        let scrubber = Scrubber::new(own.into_iter().chain(of_url.iter().map(|value| &**value)));
        let response = request.body(body).send().await.map_err(|error| scrubber.clean(&told(error)))?;
        Ok(answer(response, &scrubber).await)
    }

    async fn credentials(&self) -> Result<Credentials, String> {
        if self.bearer_token_file.is_empty() && self.password_file.is_empty() {
            return Ok(Credentials::default());
        }
        let (bearer, password) = (self.bearer_token_file.clone(), self.password_file.clone());
        let read = move || {
            let of = |file: &str| Secret::default().or_file(file);
            Ok(Credentials { bearer: of(&bearer)?, password: of(&password)? })
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?
    }
}

/// The status decides; a body that is cut short only says less.
async fn answer(mut response: reqwest::Response, scrubber: &Scrubber) -> Answer {
    let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (retry_after, written) = (text(header::RETRY_AFTER.as_str()), text("x-prometheus-remote-write-samples-written"));
    let status = response.status();
    let mut bytes = Vec::new();
    // A success is read to its end as well, so that the connection can be used again, but not kept.
    let mut read = 0;
    while read < MAX_ANSWER_BYTES
        && let Ok(Some(chunk)) = response.chunk().await
    {
        read += chunk.len();
        if !status.is_success() {
            bytes.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER_BYTES - bytes.len())]);
        }
    }
    Answer { status: status.as_u16(), retry_after, written, body: scrubber.clean(&String::from_utf8_lossy(&bytes)) }
}

/// The error with its causes, without the URL.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
