//! A server as its own process.

use crate::{Api, free_port, process::Running, process::run, process::said, wait_for};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The admin's password in tests.
pub const PASSWORD: &str = "correct horse battery staple";

/// A running server.
#[derive(Debug)]
pub struct Server {
    data: PathBuf,
    config: PathBuf,
    http: u16,
    agents: u16,
    process: Option<Running>,
}

impl Server {
    /// Starts one in this directory (data in `data/`, log `server.log`) and waits until it is ready. `config` is TOML.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn start(dir: &Path, config: &str) -> Self {
        let mut server = Self::prepare(dir, config);
        server.run().await;
        server
    }

    /// As [`Server::start`], without starting it.
    ///
    /// # Panics
    /// If the configuration cannot be written.
    #[must_use]
    pub fn prepare(dir: &Path, config: &str) -> Self {
        let file = dir.join("server.toml");
        std::fs::write(&file, config).expect("the configuration");
        Self { data: dir.join("data"), config: file, http: free_port(), agents: free_port(), process: None }
    }

    fn environment(&self) -> Vec<(String, String)> {
        [
            ("SHIPWATCH_DATA", self.data.display().to_string()),
            ("SHIPWATCH_HTTP", format!("127.0.0.1:{}", self.http)),
            ("SHIPWATCH_AGENTS", self.agents_address()),
            ("SHIPWATCH_ADMIN_PASSWORD", PASSWORD.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn run(&mut self) {
        self.spawn();
        let api = self.api();
        wait_for("the server to be ready", Duration::from_secs(30), || async { api.is_ready().await.then_some(()) }).await;
    }

    /// Starts the process.
    pub fn spawn(&mut self) {
        let environment = self.environment();
        let environment: Vec<(&str, &str)> = environment.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let config = self.config.display().to_string();
        self.process = Some(Running::start("shipwatch-server", &["serve", "--config", &config], &environment, &self.log()));
    }

    /// Runs another of the program's commands on the same data.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> String {
        let environment = self.environment();
        let environment: Vec<(&str, &str)> = environment.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let output = run("shipwatch-server", arguments, &environment);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// An enrolment token for `env=test region=lab`.
    #[must_use]
    pub fn token(&self) -> String {
        self.command(&["token", "create", "--env", "test", "--region", "lab", "--ttl", "1h", "--uses", "10"])
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.config.with_file_name("server.log")
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where agents connect.
    #[must_use]
    pub fn agents_address(&self) -> String {
        format!("127.0.0.1:{}", self.agents)
    }

    /// Its API as the admin.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&format!("http://127.0.0.1:{}", self.http), "admin", PASSWORD)
    }

    /// The process.
    ///
    /// # Panics
    /// If it was not started.
    pub fn process(&mut self) -> &mut Running {
        self.process.as_mut().expect("a started server")
    }
}
