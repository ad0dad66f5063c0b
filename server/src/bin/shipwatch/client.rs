//! HTTP to the server.

use reqwest::{Method, StatusCode, header};
use serde_json::Value;
use std::{collections::HashMap, path::PathBuf, time::Duration};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line or a file is wrong.
    #[error("{0}")]
    Usage(String),
    /// The server is not there.
    #[error("cannot reach {url}: {reason}; is the server running, and is SHIPWATCH_URL right?")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// The server went away in the middle of a stream.
    #[error("the stream broke: {0}")]
    Broken(String),
    /// The credentials are missing or wrong.
    #[error("{0}\nset SHIPWATCH_TOKEN to an API token, or run `shipwatch login`")]
    Unauthenticated(String),
    /// The server's own words.
    #[error("{0}")]
    Refused(String),
    /// Standard output is gone.
    #[error("{0}")]
    Output(#[from] std::io::Error),
}

impl CliError {
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }

    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unreachable { .. } | Self::Broken(_) | Self::Unauthenticated(_) => 3,
            Self::Refused(_) | Self::Output(_) => 1,
        }
    }
}

/// Where credentials are kept.
pub(crate) fn credentials_file(environment: &HashMap<String, String>) -> Option<PathBuf> {
    let config = environment
        .get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| environment.get("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(config.join("shipwatch").join("credentials.toml"))
}

#[derive(serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    pub(crate) url: String,
    pub(crate) token: String,
}

/// The server with credentials.
#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    authorization: Option<String>,
}

impl Client {
    pub(crate) fn new(url: Option<&str>, environment: &HashMap<String, String>) -> Result<Self, CliError> {
        let stored = stored(environment)?;
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let url =
            url.map(str::to_owned).or_else(|| get("SHIPWATCH_URL").cloned()).or_else(|| stored.as_ref().map(|stored| stored.url.clone()));
        let url = url.unwrap_or_else(|| "http://127.0.0.1:9700".to_owned()).trim_end_matches('/').to_owned();
        let basic = |user: &str, password: &str| {
            use base64::{Engine as _, prelude::BASE64_STANDARD};
            format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
        };
        let authorization = match (get("SHIPWATCH_TOKEN"), get("SHIPWATCH_PASSWORD"), stored) {
            (Some(token), ..) => Some(format!("Bearer {token}")),
            (None, Some(password), _) => Some(basic(get("SHIPWATCH_USER").map_or("admin", String::as_str), password)),
            // A token is only sent to the server that gave it.
            (None, None, Some(stored)) if stored.url == url => Some(format!("Bearer {}", stored.token)),
            _ => None,
        };
        // A second call in one process is the only way to fail; then the first one's choice stands.
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("shipwatch/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| CliError::Usage(error.to_string()))?;
        Ok(Self { http, url, authorization })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// With a name and password instead of what was found.
    pub(crate) fn as_user(&self, user: &str, password: &str) -> Self {
        use base64::{Engine as _, prelude::BASE64_STANDARD};
        let authorization = Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))));
        Self { http: self.http.clone(), url: self.url.clone(), authorization }
    }

    async fn send(&self, method: Method, path: &str, query: &[(&str, &str)], body: Option<&Value>) -> Result<reqwest::Response, CliError> {
        let unreachable = |reason: String| CliError::Unreachable { url: self.url.clone(), reason };
        let mut url =
            reqwest::Url::parse(&format!("{}{path}", self.url)).map_err(|error| CliError::Usage(format!("{}: {error}", self.url)))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| unreachable(source(&error)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let message = message(&text).unwrap_or_else(|| format!("the server answered {status}"));
        Err(if status == StatusCode::UNAUTHORIZED { CliError::Unauthenticated(message) } else { CliError::Refused(message) })
    }

    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, CliError> {
        let response = self.send(Method::GET, path, query, None).await?;
        response.json().await.map_err(|error| CliError::Refused(format!("the server's answer cannot be read: {error}")))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, CliError> {
        let response = self.send(Method::POST, path, &[], Some(body)).await?;
        response.json().await.map_err(|error| CliError::Refused(format!("the server's answer cannot be read: {error}")))
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), CliError> {
        self.send(Method::DELETE, path, &[], None).await.map(drop)
    }

    /// Server-sent events, until the server ends them.
    pub(crate) async fn events(&self, path: &str, query: &[(&str, &str)]) -> Result<Events, CliError> {
        let response = self.send(Method::GET, path, query, None).await?;
        Ok(Events { response, buffer: Vec::new() })
    }
}

fn stored(environment: &HashMap<String, String>) -> Result<Option<Credentials>, CliError> {
    let Some(path) = credentials_file(environment) else { return Ok(None) };
    match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).map(Some).map_err(|error| CliError::Usage(format!("{}: {}", path.display(), error.message()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::Usage(format!("{}: {error}", path.display()))),
    }
}

/// The innermost cause: reqwest's own text only repeats the URL.
fn source(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The text of an error in our own shape or in Prometheus'.
fn message(body: &str) -> Option<String> {
    let value: Value = serde_json::from_str(body).ok()?;
    let text = value.pointer("/error/message").or_else(|| value.get("error"))?.as_str()?;
    Some(text.to_owned())
}

/// Largest single event.
const MAX_EVENT_BYTES: usize = 8 << 20;

/// A stream of server-sent events.
#[derive(Debug)]
pub(crate) struct Events {
    response: reqwest::Response,
    buffer: Vec<u8>,
}

/// One server-sent event.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Events {
    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, CliError> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|window| window == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = parse_event(&String::from_utf8_lossy(&block)) {
                    return Ok(Some(event));
                }
            }
            if self.buffer.len() > MAX_EVENT_BYTES {
                return Err(CliError::Refused("the server sent an event without an end".to_owned()));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => return Ok(None),
                Err(error) => return Err(CliError::Broken(source(&error))),
            }
        }
    }
}

fn parse_event(block: &str) -> Option<Event> {
    let mut event = Event::default();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event.name),
            "data" => {
                if !event.data.is_empty() {
                    event.data.push('\n');
                }
                event.data.push_str(value);
            }
            _ => {}
        }
    }
    (!event.data.is_empty()).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read() {
        assert_eq!(parse_event("id: 3\nevent: x\ndata: a\ndata: b\n\n"), Some(Event { name: "x".into(), data: "a\nb".into() }));
        assert_eq!(parse_event(": keep-alive\n\n"), None);
    }

    #[test]
    fn a_stored_token_is_only_sent_to_its_own_server() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("shipwatch/credentials.toml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "url = \"https://a\"\ntoken = \"t\"\n").unwrap();
        let environment = HashMap::from([("XDG_CONFIG_HOME".to_owned(), dir.path().display().to_string())]);
        assert_eq!(Client::new(None, &environment).unwrap().authorization.as_deref(), Some("Bearer t"));
        assert_eq!(Client::new(Some("https://evil"), &environment).unwrap().authorization, None);
        assert_eq!(message(r#"{"status":"error","error":"bad"}"#).as_deref(), Some("bad"));
        assert_eq!(message(r#"{"error":{"message":"no"}}"#).as_deref(), Some("no"));
    }
}
