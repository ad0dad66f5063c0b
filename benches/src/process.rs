//! Programs as child processes.
//!
//! # Invariants
//! - A child is ended by its own id when its handle is dropped: SIGKILL, since nobody waits any more. [`Running::stop`] is the
//!   orderly way.
//! - Children get `PATH` and the variables that they are given, nothing else.

use crate::progress;
use anyhow::{Context as _, Result, bail};
use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};
use tokio::time::Instant;

/// A child that was asked to end gets this long.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// The command lines of the programs end within this time.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Every simulated agent has a socket; the system's soft limit is for ordinary programs.
///
/// # Errors
/// The limit cannot be set.
pub fn raise_open_files() -> std::io::Result<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
    Ok(())
}

/// What `main` knows of its own surroundings.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// For children.
    pub path: OsString,
    /// `cargo`, for building what is missing.
    pub cargo: OsString,
}

/// The programs of the workspace, of the same profile as this one.
#[derive(Clone, Debug)]
pub struct Programs {
    dir: PathBuf,
    path: OsString,
}

impl Programs {
    /// Finds the programs beside this one, builds them if they are not there.
    ///
    /// # Errors
    /// They are not there and cannot be built.
    pub fn find(surroundings: &Surroundings) -> Result<Self> {
        let own = std::env::current_exe().context("the path of this program")?;
        let dir = own.parent().context("this program lies in no directory")?;
        // Tests lie one directory deeper.
        let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
        let programs = Self { dir: dir.to_owned(), path: surroundings.path.clone() };
        let missing: Vec<PathBuf> = ["shipwatch-server", "shipwatch-agent"]
            .iter()
            .map(|name| programs.of_workspace(name))
            .filter(|path| !matches!(path.try_exists(), Ok(true)))
            .collect();
        if let Some(first) = missing.first() {
            progress(format!("{} is not built yet; building it takes some minutes", first.display()));
            build(surroundings, dir)?;
        }
        Ok(programs)
    }

    /// A program of the workspace.
    #[must_use]
    pub fn of_workspace(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A program of the system, looked for in `PATH`.
    #[must_use]
    pub fn of_system(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(&self.path).map(|dir| dir.join(name)).find(|path| path.is_file())
    }

    /// A command with a clean environment and without input.
    #[must_use]
    pub fn command(&self, program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", &self.path).envs(environment.iter().copied()).stdin(Stdio::null());
        command
    }

    /// Runs a program to its end and gives what it wrote to its standard output.
    ///
    /// # Errors
    /// It failed; the text has what it said.
    pub async fn run(&self, program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<String> {
        let mut command = tokio::process::Command::from(self.command(program, arguments, environment));
        let shown = format!("{} {}", program.display(), arguments.first().unwrap_or(&""));
        let output = command.kill_on_drop(true).output();
        let output = tokio::time::timeout(COMMAND_TIMEOUT, output).await.with_context(|| format!("{shown} does not end"))?;
        let output = output.with_context(|| shown.clone())?;
        if !output.status.success() {
            bail!("{shown} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// `cargo build` of server and agent in the profile whose directory this is.
fn build(surroundings: &Surroundings, dir: &Path) -> Result<()> {
    let mut command = Command::new(&surroundings.cargo);
    command.args(["build", "--locked", "-p", "shipwatch-server", "-p", "shipwatch-agent", "--bins"]);
    if dir.file_name().is_some_and(|profile| profile == "release") {
        command.arg("--release");
    }
    let status = command.status().with_context(|| format!("{}: cannot be run", surroundings.cargo.display()))?;
    if !status.success() {
        bail!("the programs could not be built; run `make build` and see what it says");
    }
    Ok(())
}

/// A running child whose output goes to a file.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be run, or the log cannot be written.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
        let both = file.try_clone().with_context(|| log.display().to_string())?;
        let child = command.stdout(file).stderr(both).spawn().with_context(|| name.clone())?;
        Ok(Self { child, name, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The last lines that it said.
    #[must_use]
    pub fn last_words(&self) -> String {
        let said = fs::read(&self.log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// An error if it has ended by itself.
    ///
    /// # Errors
    /// With its last words.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself ({status}); it said:\n{}", self.name, self.last_words()),
        }
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// It does not end in time.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        // Fails when it has ended, which is what is wanted.
        let _ended = rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} (process {}) does not end; it said:\n{}", self.name, self.id(), self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
