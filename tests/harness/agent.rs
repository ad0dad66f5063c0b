//! An agent as its own process.

use crate::process::{Running, run, said};
use std::path::{Path, PathBuf};

/// An agent with its directory.
#[derive(Debug)]
pub struct Agent {
    dir: PathBuf,
    process: Option<Running>,
}

impl Agent {
    /// Writes its configuration: state, policy and log in `dir`, a tick every second, debug log, and `more` TOML.
    ///
    /// # Panics
    /// If that cannot be written.
    #[must_use]
    pub fn prepare(dir: &Path, more: &str) -> Self {
        std::fs::create_dir_all(dir).expect("the agent's directory");
        let shown = dir.display();
        let config = format!(
            "[agent]\nstate_dir = \"{shown}/state\"\npolicy_file = \"{shown}/policy.toml\"\n[collect]\ninterval = \"1s\"\n[log]\nlevel = \"debug\"\n{more}\n"
        );
        std::fs::write(dir.join("agent.toml"), config).expect("the configuration");
        Self { dir: dir.to_owned(), process: None }
    }

    /// Runs one of the program's commands with its configuration. Gives the exit code and what it said.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> (i32, String) {
        let config = self.dir.join("agent.toml").display().to_string();
        let mut all = arguments.to_vec();
        all.extend(["--config", &config]);
        let output = run("shipwatch-agent", &all, &[]);
        (output.status.code().unwrap_or(-1), said(&output))
    }

    /// Enrols it.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn enrol(&self, server: &str, token: &str, name: &str) {
        let (code, said) = self.command(&["enroll", "--server", server, "--token", token, "--name", name]);
        assert_eq!(code, 0, "{said}");
    }

    /// Starts it.
    pub fn start(&mut self) {
        let config = self.dir.join("agent.toml").display().to_string();
        self.process = Some(Running::start("shipwatch-agent", &["run", "--config", &config], &[], &self.log()));
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    /// Its state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process.
    ///
    /// # Panics
    /// If it was not started.
    pub fn process(&mut self) -> &mut Running {
        self.process.as_mut().expect("a started agent")
    }
}
