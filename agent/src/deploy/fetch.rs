//! Brings artifacts into `<state>/cache/<sha256>`.
//!
//! # Invariants
//! - A file in the cache has the hash that it is named after: it is hashed while it is written, and again before it is
//!   unpacked ([`verify`]).
//! - Every URL, redirects included, is permitted by the policy of the moment. Bytes are bounded by the policy.
//! - A file URL is copied as well, so that its content cannot be exchanged between hashing and unpacking.
//!
//! Leaves out: resuming a broken download; it starts anew.

use super::{
    journal::sync_parent,
    store::{self, StoreError},
};
use crate::policy::{self, Policy};
use reqwest::{Client, ClientBuilder, Url, redirect};
use sha2::{Digest as _, Sha256};
use shipwatch_common::model::deploy::Artifact;
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence of the other side, not the length of the download.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 3;
const MAX_REDIRECTS: usize = 5;
/// Artifacts that are kept for deploying them again, beside those in use.
const KEEP: usize = 2;

/// Why an artifact is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Not permitted.
    #[error(transparent)]
    Refused(#[from] policy::Refusal),
    /// The server or the network.
    #[error("could not fetch {url}: {reason}")]
    Network {
        /// Without its query.
        url: String,
        /// What happened.
        reason: String,
        /// Whether another attempt may help.
        again: bool,
    },
    /// Larger than the policy permits.
    #[error("the artifact is larger than {max_bytes} bytes, the host's `deploy.max_artifact_bytes`")]
    TooLarge {
        /// The bound.
        max_bytes: u64,
    },
    /// Not what the spec asks for.
    #[error("the artifact has SHA-256 {found}, but the spec says {expected}: it was changed or damaged on the way")]
    Hash {
        /// Of the spec.
        expected: String,
        /// Of the bytes.
        found: String,
    },
    /// The local disk.
    #[error("{path}: {source}")]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What was reported.
        source: io::Error,
    },
    /// Making the cache.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The directory of artifacts.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Below the executor's state directory.
    #[must_use]
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self { dir: state_dir.join("cache") }
    }

    /// Where the artifact with this hash is, once it was fetched.
    #[must_use]
    pub(crate) fn path(&self, sha256: &str) -> PathBuf {
        self.dir.join(sha256)
    }

    /// Makes sure that the artifact is in the cache. Returns what to tell people.
    ///
    /// # Errors
    /// See [`FetchError`].
    pub(crate) async fn fetch(&self, artifact: &Artifact, deployment_id: &str, policy: &Policy) -> Result<String, FetchError> {
        policy.allows_url(&artifact.url, &policy::resolve_existing)?;
        store::make_private_dir(&self.dir)?;
        let path = self.path(&artifact.sha256);
        if verify(&path, &artifact.sha256).is_ok() {
            return Ok("was in the cache".to_owned());
        }
        let temporary = self.dir.join(format!(".tmp-{deployment_id}"));
        let result = self.download(artifact, &temporary, policy).await;
        let finished = result.and_then(|bytes| {
            let disk = |source| FetchError::Disk { path: path.clone(), source };
            fs::rename(&temporary, &path).and_then(|()| sync_parent(&path)).map_err(disk)?;
            Ok(format!("{bytes} bytes"))
        });
        if finished.is_err() && fs::remove_file(&temporary).is_err() {
            tracing::debug!(path = %temporary.display(), "no partial download to remove");
        }
        finished
    }

    async fn download(&self, artifact: &Artifact, to: &Path, policy: &Policy) -> Result<u64, FetchError> {
        if let Some(path) = artifact.url.strip_prefix("file://") {
            let url = Url::parse(&artifact.url).ok().and_then(|url| url.to_file_path().ok());
            return copy_file(&url.unwrap_or_else(|| PathBuf::from(path)), to, artifact, policy);
        }
        let mut attempt = 1;
        loop {
            match download_once(artifact, to, policy).await {
                Err(FetchError::Network { again: true, reason, url }) if attempt < ATTEMPTS => {
                    tracing::info!(url, reason, attempt, "fetching the artifact failed, trying again");
                    tokio::time::sleep(Duration::from_secs(u64::from(attempt))).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// Removes what is neither in use nor among the newest few, and leftovers of downloads that are no longer under way.
    pub(crate) fn tidy(&self, in_use: &BTreeSet<String>) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let mut others: Vec<_> = entries
            .filter_map(Result::ok)
            .filter(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                !in_use.contains(name.trim_start_matches(".tmp-"))
            })
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        others.sort();
        let partial = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".tmp-"));
        let (partials, whole): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, path)| partial(path));
        let superfluous = whole.len().saturating_sub(KEEP);
        for (_, path) in partials.into_iter().chain(whole.into_iter().take(superfluous)) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "could not remove an old artifact");
            }
        }
    }
}

/// Writes, hashes and counts; shared by files and downloads.
struct Sink<'a> {
    file: File,
    path: &'a Path,
    hash: Sha256,
    bytes: u64,
    max_bytes: u64,
}

impl<'a> Sink<'a> {
    fn create(path: &'a Path, max_bytes: u64) -> Result<Self, FetchError> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let file = file.map_err(|source| FetchError::Disk { path: path.to_path_buf(), source })?;
        Ok(Self { file, path, hash: Sha256::new(), bytes: 0, max_bytes })
    }

    fn add(&mut self, chunk: &[u8]) -> Result<(), FetchError> {
        self.bytes += chunk.len() as u64;
        if self.bytes > self.max_bytes {
            return Err(FetchError::TooLarge { max_bytes: self.max_bytes });
        }
        self.hash.update(chunk);
        self.file.write_all(chunk).map_err(|source| FetchError::Disk { path: self.path.to_path_buf(), source })
    }

    fn finish(self, expected: &str) -> Result<u64, FetchError> {
        check(expected, self.hash)?;
        self.file.sync_all().map_err(|source| FetchError::Disk { path: self.path.to_path_buf(), source })?;
        Ok(self.bytes)
    }
}

fn check(expected: &str, hash: Sha256) -> Result<(), FetchError> {
    let found = store::hex(&hash.finalize());
    if found == expected { Ok(()) } else { Err(FetchError::Hash { expected: expected.to_owned(), found }) }
}

fn copy_file(from: &Path, to: &Path, artifact: &Artifact, policy: &Policy) -> Result<u64, FetchError> {
    let disk = |source| FetchError::Disk { path: from.to_path_buf(), source };
    // Not blocking, or a pipe under that name would hold the deployment up for ever.
    let opened = rustix::fs::open(
        from,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NONBLOCK,
        rustix::fs::Mode::empty(),
    );
    let mut file = File::from(opened.map_err(|error| disk(error.into()))?);
    if !file.metadata().map_err(disk)?.is_file() {
        return Err(disk(io::Error::other("is not a regular file")));
    }
    let mut sink = Sink::create(to, policy.deploy.max_artifact_bytes)?;
    read_chunks(&mut file, from, |chunk| sink.add(chunk))?;
    sink.finish(&artifact.sha256)
}

fn read_chunks(file: &mut File, path: &Path, mut each: impl FnMut(&[u8]) -> Result<(), FetchError>) -> Result<(), FetchError> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let read = file.read(&mut buffer).map_err(|source| FetchError::Disk { path: path.to_path_buf(), source })?;
        match buffer.get(..read) {
            Some([]) | None => return Ok(()),
            Some(chunk) => each(chunk)?,
        }
    }
}

/// Whether the file has this hash.
///
/// # Errors
/// It has not, or it cannot be read.
pub(crate) fn verify(path: &Path, sha256: &str) -> Result<(), FetchError> {
    let mut file = File::open(path).map_err(|source| FetchError::Disk { path: path.to_path_buf(), source })?;
    let mut hash = Sha256::new();
    read_chunks(&mut file, path, |chunk| {
        hash.update(chunk);
        Ok(())
    })?;
    check(sha256, hash)
}

async fn download_once(artifact: &Artifact, to: &Path, policy: &Policy) -> Result<u64, FetchError> {
    let shown = Url::parse(&artifact.url).map_or_else(|_| "the artifact".to_owned(), |url| policy::shown(&url));
    let network = |reason: String, again: bool| FetchError::Network { url: shown.clone(), reason, again };
    let max_bytes = policy.deploy.max_artifact_bytes;
    let client = client(policy).map_err(|error| network(chain(&error), false))?;
    let sent = client.get(&artifact.url).send().await;
    let mut response = sent.map_err(|error| {
        let again = !error.is_redirect() && !error.is_builder();
        network(chain(&error.without_url()), again)
    })?;
    let status = response.status();
    if !status.is_success() {
        return Err(network(format!("the server answered {status}"), status.is_server_error()));
    }
    if response.content_length().is_some_and(|bytes| bytes > max_bytes) {
        return Err(FetchError::TooLarge { max_bytes });
    }
    let mut sink = Sink::create(to, max_bytes)?;
    while let Some(chunk) = response.chunk().await.map_err(|error| network(chain(&error.without_url()), true))? {
        sink.add(&chunk)?;
    }
    sink.finish(&artifact.sha256)
}

fn client(policy: &Policy) -> reqwest::Result<Client> {
    let policy = policy.clone();
    let redirects = redirect::Policy::custom(move |attempt| {
        if attempt.previous().len() > MAX_REDIRECTS {
            return attempt.error("too many redirects");
        }
        match policy.allows_url(attempt.url().as_str(), &policy::resolve_existing) {
            Ok(()) => attempt.follow(),
            Err(refusal) => attempt.error(refusal),
        }
    });
    base_client().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT).redirect(redirects).build()
}

/// A client for whatever the host trusts. The cryptography is chosen here unless the program has chosen it before.
pub(crate) fn base_client() -> ClientBuilder {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let installed = rustls::crypto::ring::default_provider().install_default();
        if installed.is_err() {
            tracing::debug!("another thread has installed a cryptography provider first");
        }
    }
    Client::builder().user_agent(concat!("shipwatch-agent/", env!("CARGO_PKG_VERSION")))
}

/// A client for plain HTTP to an app on this host: no certificates are loaded, no proxy is asked, no redirect is followed.
pub(crate) fn plain_client() -> Result<Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    local(base_client().tls_backend_preconfigured(tls)).map_err(|error| chain(&error))
}

/// As [`plain_client`], for HTTPS.
pub(crate) fn tls_client() -> Result<Client, String> {
    local(base_client()).map_err(|error| chain(&error))
}

fn local(builder: ClientBuilder) -> reqwest::Result<Client> {
    builder.no_proxy().redirect(redirect::Policy::none()).pool_max_idle_per_host(0).build()
}

/// An error with its causes: reqwest's own text says only that sending failed.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Deploy;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    fn sha(bytes: &[u8]) -> String {
        store::hex(&Sha256::digest(bytes))
    }

    fn permit(prefixes: &[String], max_artifact_bytes: u64) -> Policy {
        let deploy = Deploy { enabled: true, artifact_urls: prefixes.to_vec(), max_artifact_bytes, ..Deploy::default() };
        Policy { deploy }
    }

    /// Answers each path by `answers`; counts nothing, keeps nothing.
    async fn serve(answers: Vec<(&'static str, String)>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = vec![0; 4096];
                let read = stream.read(&mut buffer).await.unwrap();
                let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
                let answer = answers.iter().find(|(path, _)| request.starts_with(&format!("GET {path} ")));
                let answer = answer.map_or("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", |(_, answer)| answer);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        base
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    fn redirect(to: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    }

    #[tokio::test]
    async fn http_is_fetched_within_the_policy() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let base = serve(vec![
            ("/pub/a", ok("content")),
            ("/pub/moved", redirect("/pub/a")),
            ("/pub/out", redirect("/secret/a")),
            ("/secret/a", ok("content")),
            ("/pub/loop", redirect("/pub/loop")),
            ("/pub/endless", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned() + &"x".repeat(5000)),
        ])
        .await;
        let policy = permit(&[format!("{base}/pub/")], 1000);
        for (path, sha256, expected) in [
            ("/pub/a", sha(b"content"), "Ok(\"7 bytes\")"),
            ("/pub/a?token=secret", sha(b"content"), "in the cache"),
            ("/pub/moved", sha(b"CONTENT"), "it was changed or damaged"),
            ("/pub/out", sha(b"1"), "is not within any of `deploy.artifact_urls`"),
            ("/secret/a", sha(b"2"), "is not within any of `deploy.artifact_urls`"),
            ("/pub/loop", sha(b"3"), "too many redirects"),
            ("/pub/endless", sha(b"4"), "larger than 1000 bytes"),
            ("/pub/missing?token=secret", sha(b"5"), "404"),
        ] {
            let artifact = Artifact { url: format!("{base}{path}"), sha256 };
            let told = match cache.fetch(&artifact, "d", &policy).await {
                Ok(told) => format!("Ok({told:?})"),
                Err(error) => error.to_string(),
            };
            assert!(told.contains(expected) && !told.contains("secret?") && !told.contains("token"), "{path}: {told}");
        }
        assert_eq!(fs::read(cache.path(&sha(b"content"))).unwrap(), b"content");
        assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), 1, "partial downloads are removed");
    }

    #[tokio::test]
    async fn files_are_copied_and_a_damaged_cache_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let source = dir.path().canonicalize().unwrap().join("a.tar");
        fs::write(&source, "content").unwrap();
        let artifact = Artifact { url: format!("file://{}", source.display()), sha256: sha(b"content") };
        let policy = permit(&[format!("file://{}/", source.parent().unwrap().display())], 100);
        cache.fetch(&artifact, "d", &policy).await.unwrap();
        fs::write(cache.path(&artifact.sha256), "conTent").unwrap();
        assert!(verify(&cache.path(&artifact.sha256), &artifact.sha256).is_err());
        cache.fetch(&artifact, "d", &policy).await.unwrap();
        verify(&cache.path(&artifact.sha256), &artifact.sha256).unwrap();
        fs::write(&source, "tampered").unwrap();
        fs::remove_file(cache.path(&artifact.sha256)).unwrap();
        assert!(matches!(cache.fetch(&artifact, "d", &policy).await, Err(FetchError::Hash { .. })));
        assert!(matches!(cache.fetch(&artifact, "d", &permit(&[], 100)).await, Err(FetchError::Refused(_))));
        let small = permit(&policy.deploy.artifact_urls, 3);
        assert!(matches!(cache.fetch(&artifact, "d", &small).await, Err(FetchError::TooLarge { .. })));
        let directory = Artifact { url: format!("file://{}", source.parent().unwrap().display()), ..artifact };
        assert!(cache.fetch(&directory, "d", &policy).await.unwrap_err().to_string().contains("not a regular file"));
    }

    #[test]
    fn old_artifacts_are_removed_but_not_those_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        fs::create_dir(&cache.dir).unwrap();
        for (at, name) in ["a", "b", "c", "d", ".tmp-x", ".tmp-y"].iter().enumerate() {
            let file = File::create(cache.dir.join(name)).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(at as u64)).unwrap();
        }
        cache.tidy(&BTreeSet::from(["a".to_owned(), "x".to_owned()]));
        let mut left: Vec<_> = fs::read_dir(&cache.dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, [".tmp-x", "a", "c", "d"]);
    }
}
