//! A server and an agent for one run: real programs, started and enrolled the way people do it.

use crate::{
    api::{Api, wait_for},
    process::{Programs, Running},
};
use anyhow::{Context as _, Result};
use shipwatch_common::identity::hex;
use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A port that is free for TCP and UDP on the loopback address.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").context("a free port")?;
        let port = tcp.local_addr()?.port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port is free for both TCP and UDP")
}

/// A server with its own data.
#[derive(Debug)]
pub struct Server {
    programs: Programs,
    dir: PathBuf,
    environment: Vec<(String, String)>,
    agents: String,
    /// Its API.
    pub api: Api,
    /// The process.
    pub process: Running,
}

impl Server {
    /// Starts one in `dir` with this configuration and waits until it is ready.
    ///
    /// # Errors
    /// It does not start; the text has its last words.
    pub async fn start(programs: &Programs, dir: &Path, config: &str) -> Result<Self> {
        let (http, agents) = (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
        let password = hex(&random());
        let environment = vec![
            ("SHIPWATCH_DATA".to_owned(), dir.join("data").display().to_string()),
            ("SHIPWATCH_HTTP".to_owned(), http.clone()),
            ("SHIPWATCH_AGENTS".to_owned(), agents.clone()),
            ("SHIPWATCH_ADMIN_PASSWORD".to_owned(), password.clone()),
        ];
        let file = dir.join("server.toml");
        fs::write(&file, config).with_context(|| file.display().to_string())?;
        let process = spawn(programs, dir, &environment)?;
        let api = Api::new(format!("http://{http}"), &password)?;
        let mut server = Self { programs: programs.clone(), dir: dir.to_owned(), environment, agents, api, process };
        server.ready().await?;
        Ok(server)
    }

    async fn ready(&mut self) -> Result<()> {
        let (api, process) = (&self.api, &mut self.process);
        wait_for("the server to be ready", START_TIMEOUT, async || {
            process.check()?;
            Ok(api.is_ready().await.then_some(()))
        })
        .await
    }

    /// `host:port` for agents.
    #[must_use]
    pub fn agents_address(&self) -> &str {
        &self.agents
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// An enrolment token that is good for this many hosts.
    ///
    /// # Errors
    /// The server's command line fails.
    pub async fn token(&self, uses: u32) -> Result<String> {
        let environment: Vec<(&str, &str)> = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (config, uses) = (self.dir.join("server.toml").display().to_string(), uses.to_string());
        let arguments = ["token", "create", "--config", &config, "--env", "bench", "--region", "lab", "--ttl", "2h", "--uses", &uses];
        self.programs.run(&self.programs.of_workspace("shipwatch-server"), &arguments, &environment).await
    }
}

fn spawn(programs: &Programs, dir: &Path, environment: &[(String, String)]) -> Result<Running> {
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let config = dir.join("server.toml").display().to_string();
    let command = programs.command(&programs.of_workspace("shipwatch-server"), &["serve", "--config", &config], &environment);
    Running::start(command, &dir.join("server.log"))
}

/// Random bytes for a password that lives as long as the run.
fn random() -> [u8; 16] {
    std::array::from_fn(|_| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0..256")]
        let byte = (shipwatch_common::backoff::random_unit() * 256.0) as u8;
        byte
    })
}

/// An agent, enrolled and running.
#[derive(Debug)]
pub struct Agent {
    /// Its name in the fleet.
    pub name: &'static str,
    /// The process.
    pub process: Running,
}

impl Agent {
    /// Enrols an agent in `dir` with this configuration, starts it, and waits until the server sees it.
    ///
    /// # Errors
    /// It does not come up; the text has its last words.
    pub async fn start(programs: &Programs, dir: &Path, server: &Server, config: &str) -> Result<Self> {
        let (name, program) = ("bench-host", programs.of_workspace("shipwatch-agent"));
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let file = dir.join("agent.toml");
        let places = format!("[agent]\nstate_dir = \"{0}/state\"\npolicy_file = \"{0}/policy.toml\"\n{config}\n", dir.display());
        fs::write(&file, places).with_context(|| file.display().to_string())?;
        let file = file.display().to_string();
        let token = server.token(1).await?;
        let enrol = ["enroll", "--config", &file, "--server", server.agents_address(), "--name", name];
        programs.run(&program, &enrol, &[("SHIPWATCH_TOKEN", &token)]).await?;
        let mut process = Running::start(programs.command(&program, &["run", "--config", &file], &[]), &dir.join("agent.log"))?;
        wait_for("the agent to connect", START_TIMEOUT, async || {
            process.check()?;
            let host = server.api.json(&format!("/shipwatch/api/v1/hosts/{name}"), &[]).await?;
            Ok((host["state"] == "up").then_some(()))
        })
        .await?;
        Ok(Self { name, process })
    }
}

/// Bytes of all files below a directory.
///
/// # Errors
/// It cannot be listed.
pub fn size_of(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { size_of(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}
