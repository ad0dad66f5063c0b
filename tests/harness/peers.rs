//! Programs of others that speak Prometheus' protocols: Prometheus itself, vmagent, VictoriaMetrics. `make test` installs them.

use crate::{Api, free_port, process::Running, wait_for};
use std::{fs, path::Path, time::Duration};

/// How long one may take to start.
const START: Duration = Duration::from_secs(120);

/// A peer that answers Prometheus' query API without credentials.
#[derive(Debug)]
pub struct Peer {
    program: &'static str,
    arguments: Vec<String>,
    port: u16,
    ready: &'static str,
    log: std::path::PathBuf,
    process: Option<Running>,
}

impl Peer {
    /// Prometheus in a directory; `config` is what follows `global`, `{port}` in it is its own port. It scrapes every second.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn prometheus(dir: &Path, config: &str) -> Self {
        let port = free_port();
        let file = dir.join("prometheus.yml");
        let global = "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n";
        fs::write(&file, format!("{global}{}", config.replace("{port}", &port.to_string()))).expect("the configuration");
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", dir.join("prometheus").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--web.enable-remote-write-receiver".to_owned(),
            "--log.level=debug".to_owned(),
        ];
        Self::new("prometheus", arguments.to_vec(), port, "/-/ready", dir).await
    }

    /// VictoriaMetrics in a directory.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn victoria(dir: &Path) -> Self {
        let port = free_port();
        let arguments = [
            format!("-storageDataPath={}", dir.join("victoria").display()),
            format!("-httpListenAddr=127.0.0.1:{port}"),
            "-search.latencyOffset=0s".to_owned(),
            "-search.disableCache".to_owned(),
            "-memory.allowedBytes=64MiB".to_owned(),
        ];
        Self::new("victoria-metrics", arguments.to_vec(), port, "/health", dir).await
    }

    /// vmagent that scrapes a port on this machine every second and writes to a URL with these credentials.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn vmagent(dir: &Path, scraped: u16, url: &str, password: &str) -> Self {
        let port = free_port();
        let file = dir.join("vmagent.yml");
        let config = format!(
            "scrape_configs:\n- job_name: through_vmagent\n  scrape_interval: 1s\n  static_configs:\n  - targets: [\"127.0.0.1:{scraped}\"]\n"
        );
        fs::write(&file, config).expect("the configuration");
        let password_file = dir.join("vmagent.password");
        fs::write(&password_file, password).expect("the password");
        let arguments = [
            format!("-promscrape.config={}", file.display()),
            format!("-httpListenAddr=127.0.0.1:{port}"),
            format!("-remoteWrite.url={url}/api/v1/write"),
            "-remoteWrite.basicAuth.username=admin".to_owned(),
            format!("-remoteWrite.basicAuth.passwordFile={}", password_file.display()),
            format!("-remoteWrite.tmpDataPath={}", dir.join("vmagent").display()),
        ];
        Self::new("vmagent", arguments.to_vec(), port, "/health", dir).await
    }

    async fn new(program: &'static str, arguments: Vec<String>, port: u16, ready: &'static str, dir: &Path) -> Self {
        let mut peer = Self { program, arguments, port, ready, log: dir.join(format!("{program}.log")), process: None };
        peer.run().await;
        peer
    }

    /// Starts it, again with the same data after [`Peer::stop`].
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn run(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let mut process = Running::of_others(self.program, &arguments, &self.log);
        let (url, ready) = (self.url(), self.ready);
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        wait_for(self.program, START, || {
            assert!(process.is_running(), "{} ended: {}", self.program, process.said());
            let request = client.get(format!("{url}{ready}")).send();
            async { request.await.ok().filter(|answer| answer.status().is_success()) }
        })
        .await;
        self.process = Some(process);
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop();
        }
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its query API.
    ///
    /// # Panics
    /// If no client can be made.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.url(), "", "")
    }

    /// What it said.
    #[must_use]
    pub fn said(&self) -> String {
        self.process.as_ref().map(Running::said).unwrap_or_default()
    }
}
