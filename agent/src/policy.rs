//! What the server may ask of this host: `/etc/shipwatch/policy.toml`.
//!
//! The file belongs to the host's own administrator. It is read from the local disk only, at every command, so a change
//! needs no restart; nothing that comes over the network can write it.
//!
//! # Invariants
//! - No file, an unreadable file, a file with a mistake, a file that others may write: all mean telemetry and no more.
//!   The reason is told, since a policy that is silently not in force is a trap.
//! - [`Policy::allows`] is pure: it is given what paths resolve to. Paths are compared by component after symlinks were
//!   resolved, URLs by scheme, host, port and path segments after normalisation; never as bare text.
//!
//! Leaves out: what a permitted deployment's commands do. They run as the agent's user, so permitting deployments to an
//! agent that runs as root is permitting everything; that is why it needs a key of its own.

use reqwest::Url;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    config::{self, Problems},
    model::deploy::{Action, Command},
};
use std::{
    fs, io,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

/// A policy file is a page of text; more than this is a mistake.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// The content of `policy.toml`. The default permits nothing.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Deployments that the server asks for.
    pub deploy: Deploy,
}

/// What deployments are permitted.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deploy {
    /// Whether the server may deploy to this host at all. Off, every command is refused.
    pub enabled: bool,
    /// Names of the apps that may be deployed; `*` at a name's end stands for any rest.
    pub apps: Vec<String>,
    /// Directories below which an app's root must lie. Symlinks are resolved before comparing.
    pub roots: Vec<String>,
    /// Where artifacts may come from, as prefixes: `https://` is every HTTPS host, `https://files.example.com/shop/` is
    /// one directory of one host. Redirects must stay within them as well.
    pub artifact_urls: Vec<String>,
    /// Whether deployments are permitted if the agent runs as root: their commands then run as root, too.
    pub allow_root: bool,
    /// Largest artifact that is fetched. Larger ones fail before the running release is touched.
    pub max_artifact_bytes: u64,
    /// Most that one artifact may unpack to, against archives that grow without end.
    pub max_unpacked_bytes: u64,
    /// Most files and directories in one artifact.
    pub max_entries: u64,
}

impl Default for Deploy {
    fn default() -> Self {
        Self {
            enabled: false,
            apps: vec!["*".to_owned()],
            roots: vec!["/srv".to_owned()],
            artifact_urls: vec!["https://".to_owned()],
            allow_root: false,
            max_artifact_bytes: 2 << 30,
            max_unpacked_bytes: 8 << 30,
            max_entries: 200_000,
        }
    }
}

/// Why a command is not permitted on this host. The text names the key to change, for whoever administers the host.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

/// Resolves a path for comparing: symlinks of its existing part followed, the rest appended.
pub type Resolve<'a> = &'a dyn Fn(&Path) -> io::Result<PathBuf>;

impl Policy {
    /// Whether the server may ask for `command`. `euid` is the agent's effective user; `resolve` is [`resolve_existing`]
    /// outside of tests.
    ///
    /// # Errors
    /// What is not permitted, and which key permits it.
    pub fn allows(&self, command: &Command, euid: u32, resolve: Resolve<'_>) -> Result<(), Refusal> {
        let deploy = &self.deploy;
        if !deploy.enabled {
            return Err(refuse("this host takes no deployments: `deploy.enabled` is not true in its policy.toml"));
        }
        if euid == 0 && !deploy.allow_root {
            return Err(refuse(
                "the agent runs as root, so deployments would run as root: its policy.toml must say `deploy.allow_root = true` to permit that",
            ));
        }
        let (app, root) = match &command.action {
            Action::Deploy(spec) => (&spec.app, &spec.root),
            Action::Rollback { app, root } => (app, root),
            Action::Abort => return Ok(()),
        };
        if !deploy.apps.iter().any(|pattern| matches_app(pattern, app)) {
            return Err(refuse(format!("app `{app}` is not in `deploy.apps` of the host's policy.toml")));
        }
        self.allows_root(root, resolve)?;
        match &command.action {
            Action::Deploy(spec) => self.allows_url(&spec.artifact.url, resolve),
            Action::Rollback { .. } | Action::Abort => Ok(()),
        }
    }

    fn allows_root(&self, root: &str, resolve: Resolve<'_>) -> Result<(), Refusal> {
        let wanted = plain_path(root).ok_or_else(|| refuse(format!("root `{root}` is not a plain absolute path")))?;
        let wanted = resolve(&wanted).map_err(|error| refuse(format!("root `{root}` cannot be resolved: {error}")))?;
        let permitted = |prefix: &String| {
            let prefix = plain_path(prefix).and_then(|prefix| resolve(&prefix).ok());
            prefix.is_some_and(|prefix| wanted.starts_with(prefix))
        };
        if self.deploy.roots.iter().any(permitted) {
            return Ok(());
        }
        Err(refuse(format!("root `{}` is not below any of `deploy.roots` of the host's policy.toml", wanted.display())))
    }

    /// Whether an artifact may be fetched from `url`; asked again for every redirect.
    ///
    /// # Errors
    /// What is not permitted. The text holds no query, since that is where signed links keep their secret.
    pub fn allows_url(&self, url: &str, resolve: Resolve<'_>) -> Result<(), Refusal> {
        let parsed = safe_url(url)?;
        if self.deploy.artifact_urls.iter().any(|prefix| matches_url(prefix, &parsed, resolve)) {
            return Ok(());
        }
        Err(refuse(format!("artifact URL {} is not within any of `deploy.artifact_urls` of the host's policy.toml", shown(&parsed))))
    }

    fn check(&self, problems: &mut Problems) {
        problems.section("deploy");
        for (at, root) in self.deploy.roots.iter().enumerate() {
            if plain_path(root).is_none() {
                problems.add(&format!("roots.{at}"), "must be an absolute path without `..`");
            }
        }
        for (at, prefix) in self.deploy.artifact_urls.iter().enumerate() {
            if !["https://", "http://", "file://"].contains(&prefix.as_str()) && safe_url(prefix).is_err() {
                problems.add(&format!("artifact_urls.{at}"), "must start with https://, http:// or file:// and be a plain URL");
            }
        }
        for (key, value) in [
            ("max_artifact_bytes", self.deploy.max_artifact_bytes),
            ("max_unpacked_bytes", self.deploy.max_unpacked_bytes),
            ("max_entries", self.deploy.max_entries),
        ] {
            if value == 0 {
                problems.add(key, "must be more than 0");
            }
        }
    }
}

/// A URL without its query, for messages.
#[must_use]
pub fn shown(url: &Url) -> String {
    let mut plain = url.clone();
    plain.set_query(None);
    plain.set_fragment(None);
    plain.to_string()
}

fn refuse(text: impl Into<String>) -> Refusal {
    Refusal(text.into())
}

fn matches_app(pattern: &str, app: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => app.starts_with(start),
        None => pattern == app,
    }
}

/// Parses and refuses what could mean one thing here and another thing to the server that answers.
fn safe_url(text: &str) -> Result<Url, Refusal> {
    let url = Url::parse(text).map_err(|error| refuse(format!("artifact URL is not valid: {error}")))?;
    if !["https", "http", "file"].contains(&url.scheme()) {
        return Err(refuse(format!("artifact URL must be https, http or file, not {}", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("artifact URL must not hold a user name or password"));
    }
    let path = url.path().to_ascii_lowercase();
    if ["%2e", "%2f", "%5c", "%25", "%00"].iter().any(|code| path.contains(code)) {
        return Err(refuse("artifact URL must not hold an encoded dot, slash, backslash or percent sign in its path"));
    }
    if url.scheme() == "file" && url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err(refuse("artifact URL of a file must start with file:///"));
    }
    Ok(url)
}

fn matches_url(prefix: &str, url: &Url, resolve: Resolve<'_>) -> bool {
    if let Some(scheme) = prefix.strip_suffix("://") {
        return url.scheme() == scheme;
    }
    let Ok(prefix) = safe_url(prefix) else { return false };
    if prefix.scheme() != url.scheme() {
        return false;
    }
    if url.scheme() == "file" {
        let resolved = |url: &Url| url.to_file_path().ok().and_then(|path| resolve(&path).ok());
        return matches!((resolved(&prefix), resolved(url)), (Some(prefix), Some(path)) if path.starts_with(&prefix));
    }
    let directory = prefix.path().trim_end_matches('/');
    prefix.host_str() == url.host_str()
        && prefix.port_or_known_default() == url.port_or_known_default()
        && url.path().strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path if it is absolute and has neither `.` nor `..`.
fn plain_path(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    (path.is_absolute() && plain && !text.contains('\0')).then(|| path.components().collect())
}

/// Follows the symlinks of the longest part of `path` that exists and appends the rest.
///
/// # Errors
/// A path that is not absolute or has `..`, a symlink to nowhere, or what the file system reports.
pub fn resolve_existing(path: &Path) -> io::Result<PathBuf> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain absolute path"));
    }
    let mut existing = path;
    loop {
        match fs::symlink_metadata(existing) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        existing = existing.parent().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no part of the path exists"))?;
    }
    let rest = path.strip_prefix(existing).map_err(io::Error::other)?;
    let resolved = existing.canonicalize()?;
    Ok(if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) })
}

/// Where the policy comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, read anew for every command.
    File(PathBuf),
    /// Given by the person who runs a local deployment, or by a test.
    Fixed(Box<Policy>),
}

impl Source {
    /// The policy that is in force now, and a warning if a file is there but not in force.
    #[must_use]
    pub fn read(&self) -> (Policy, Option<String>) {
        let path = match self {
            Self::Fixed(policy) => return ((**policy).clone(), None),
            Self::File(path) => path,
        };
        match read_file(path) {
            Ok(policy) => (policy, None),
            Err(None) => (Policy::default(), None),
            Err(Some(reason)) => {
                let warning = format!("{}: {reason}; it is ignored, so the server gets telemetry and no more", path.display());
                (Policy::default(), Some(warning))
            }
        }
    }
}

/// `Err(None)` if there is no file.
fn read_file(path: &Path) -> Result<Policy, Option<String>> {
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    let file = match opened {
        Ok(fd) => fs::File::from(fd),
        Err(rustix::io::Errno::NOENT) => return Err(None),
        Err(error) => return Err(Some(format!("cannot be opened: {}", io::Error::from(error)))),
    };
    // Asked of the opened file, so that it cannot be exchanged between the check and the read.
    let meta = file.metadata().map_err(|error| Some(format!("cannot be examined: {error}")))?;
    if let Some(reason) = untrusted(meta.is_file(), meta.uid(), meta.mode(), rustix::process::geteuid().as_raw()) {
        return Err(Some(reason));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| Some(format!("cannot be read: {error}")))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(Some(format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    config::load::<Policy>(&text, path, &[], Policy::check).map_err(|problems| Some(format!("has mistakes: {problems}")))
}

/// Why a file with these properties may have been written by somebody without the right to.
fn untrusted(is_file: bool, owner: u32, mode: u32, euid: u32) -> Option<String> {
    if !is_file {
        return Some("is not a regular file".to_owned());
    }
    if owner != 0 && owner != euid {
        return Some(format!("belongs to user {owner}; it must belong to root: chown root"));
    }
    if mode & 0o022 != 0 {
        return Some(format!("may be written by others (mode {:o}); it must not: chmod go-w", mode & 0o777));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipwatch_common::model::deploy::{Artifact, Keep, Spec};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn deploy(app: &str, root: &str, url: &str) -> Command {
        let spec = Spec {
            version: 1,
            app: app.into(),
            release: "v1".into(),
            artifact: Artifact { url: url.into(), sha256: "0".repeat(64) },
            root: root.into(),
            steps: vec![],
            health: vec![],
            keep: Keep::default(),
            env: Default::default(),
        };
        Command { deployment_id: "deployment-1".into(), epoch: 1, action: Action::Deploy(Box::new(spec)) }
    }

    fn policy(change: impl FnOnce(&mut Deploy)) -> Policy {
        let mut policy = Policy { deploy: Deploy { enabled: true, ..Deploy::default() } };
        change(&mut policy.deploy);
        policy
    }

    fn as_is(path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }

    #[test]
    fn the_default_refuses_everything() {
        let none = Policy::default();
        let rollback = Action::Rollback { app: "shop".into(), root: "/srv/shop".into() };
        for action in [deploy("shop", "/srv/shop", "https://a/b").action, rollback, Action::Abort] {
            let command = Command { deployment_id: "deployment-1".into(), epoch: 1, action };
            let refusal = none.allows(&command, 1000, &as_is).unwrap_err();
            assert!(refusal.to_string().contains("deploy.enabled"), "{refusal}");
            policy(|_| {}).allows(&command, 1000, &as_is).unwrap();
            assert!(policy(|_| {}).allows(&command, 0, &as_is).unwrap_err().to_string().contains("allow_root"));
            policy(|d| d.allow_root = true).allows(&command, 0, &as_is).unwrap();
        }
    }

    #[test]
    fn apps_are_names_or_beginnings() {
        for (pattern, app, fits) in
            [("*", "shop", true), ("shop", "shop", true), ("shop", "shop2", false), ("shop-*", "shop-api", true), ("shop-*", "shop", false)]
        {
            let result = policy(|d| d.apps = vec![pattern.into()]).allows(&deploy(app, "/srv/a", "https://a/b"), 1, &as_is);
            assert_eq!(result.is_ok(), fits, "{pattern} {app}: {result:?}");
        }
    }

    #[test]
    fn roots_are_compared_by_component() {
        for (root, fits) in [
            ("/srv/shop", true),
            ("/srv", true),
            ("/srv2/shop", false),
            ("/srv/../etc", false),
            ("/srv/./shop/..", false),
            ("srv/shop", false),
            ("/", false),
            ("/etc", false),
        ] {
            let result = policy(|_| {}).allows(&deploy("shop", root, "https://a/b"), 1, &as_is);
            assert_eq!(result.is_ok(), fits, "{root}: {result:?}");
        }
    }

    #[test]
    fn roots_are_compared_after_symlinks_were_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("real/inner")).unwrap();
        fs::create_dir(base.join("other")).unwrap();
        symlink(base.join("real"), base.join("link")).unwrap();
        symlink(base.join("other"), base.join("real/out")).unwrap();
        symlink(base.join("nowhere"), base.join("real/dangling")).unwrap();
        let in_base = |name: &str| base.join(name).to_str().unwrap().to_owned();
        for (permitted, root, fits) in [
            ("real", "real/app", true),
            ("link", "real/app", true),
            ("real", "link/inner/deep/app", true),
            ("real", "real/out/app", false),
            ("real", "real/dangling/app", false),
            ("real", "other", false),
        ] {
            let policy = policy(|d| d.roots = vec![in_base(permitted)]);
            let result = policy.allows(&deploy("shop", &in_base(root), "https://a/b"), 1, &resolve_existing);
            assert_eq!(result.is_ok(), fits, "{permitted} {root}: {result:?}");
        }
    }

    #[test]
    fn urls_are_compared_by_parts() {
        for (prefix, url, fits) in [
            ("https://", "https://any.example.com/a.tgz", true),
            ("https://", "http://any.example.com/a.tgz", false),
            ("https://good.com/", "https://good.com/a.tgz", true),
            ("https://good.com", "https://good.com.evil.com/a.tgz", false),
            ("https://good.com", "https://good.com@evil.com/a.tgz", false),
            ("https://good.com/", "https://user:pass@good.com/a", false),
            ("https://good.com/", "https://GOOD.com:443/a.tgz", true),
            ("https://good.com/", "https://good.com:8443/a.tgz", false),
            ("https://good.com/pub", "https://good.com/public/a", false),
            ("https://good.com/pub", "https://good.com/pub/a?sig=1", true),
            ("https://good.com/pub/", "https://good.com/pub/../secret/a", false),
            ("https://good.com/pub/", "https://good.com/pub/%2e%2e/secret/a", false),
            ("https://good.com/pub/", "https://good.com/pub/..%2fsecret/a", false),
            ("https://good.com/pub/", "https://good.com/pub/%252e%252e/secret", false),
            ("https://good.com/pub/", "https://good.com/pub\\..\\secret", false),
            ("https://", "ftp://good.com/a", false),
            ("https://", "not a url", false),
            ("file:///var/files/", "file:///var/files/a.tgz", true),
            ("file:///var/files", "file:///var/files2/a.tgz", false),
            ("file:///var/files", "file:///var/files/../../etc/shadow", false),
            ("file:///var/files", "file://host/var/files/a", false),
            ("https://", "file:///etc/shadow", false),
        ] {
            let result = policy(|d| d.artifact_urls = vec![prefix.into()]).allows_url(url, &as_is);
            assert_eq!(result.is_ok(), fits, "{prefix} {url}: {result:?}");
        }
        let refusal = policy(|_| {}).allows_url("http://a.com/x?token=secret", &as_is).unwrap_err().to_string();
        assert!(refusal.contains("http://a.com/x") && !refusal.contains("secret"), "{refusal}");
    }

    #[test]
    fn a_file_that_others_may_write_is_not_in_force() {
        for (is_file, owner, mode, euid, trusted) in [
            (true, 0, 0o100_644, 1000, true),
            (true, 1000, 0o100_600, 1000, true),
            (true, 1001, 0o100_644, 1000, false),
            (true, 1000, 0o100_644, 0, false),
            (true, 0, 0o100_664, 0, false),
            (true, 0, 0o100_646, 0, false),
            (false, 0, 0o100_644, 0, false),
        ] {
            assert_eq!(untrusted(is_file, owner, mode, euid).is_none(), trusted, "{is_file} {owner} {mode:o} {euid}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.toml");
        let source = Source::File(path.clone());
        assert_eq!(source.read(), (Policy::default(), None));
        fs::write(&path, "[deploy]\nenabled = true\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(source.read().0.deploy.enabled);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let (read, warning) = source.read();
        assert_eq!(read, Policy::default());
        assert!(warning.unwrap().contains("chmod go-w"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for (text, told) in [
            ("[deploy]\nenabled = true\nenable_root = true\n", "deploy.enable_root"),
            ("[deploy]\nenabled = true\nroots = [\"srv\"]\n", "roots"),
            ("[deploy]\nenabled = true\nartifact_urls = [\"ftp://x\"]\n", "artifact_urls"),
            ("[deploy]\nenabled = true\nmax_entries = 0\n", "max_entries"),
        ] {
            fs::write(&path, text).unwrap();
            let (read, warning) = source.read();
            assert!(!read.deploy.enabled, "{text}");
            assert!(warning.unwrap().contains(told), "{text}");
        }
    }

    #[test]
    fn the_shipped_file_is_the_default_and_names_every_key() {
        let text = include_str!("../../packaging/policy.toml");
        let read = config::load::<Policy>(text, Path::new("policy.toml"), &[], Policy::check).unwrap();
        assert_eq!(read, Policy::default());
        let default = toml::to_string(&Policy::default()).unwrap();
        for key in default.lines().filter_map(|line| line.split_once(" = ").map(|(key, _)| key)) {
            assert!(text.contains(&format!("\n{key} = ")), "{key} is missing");
        }
    }
}
