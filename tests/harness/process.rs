//! The programs under test.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

/// A program that cargo built beside this test.
///
/// # Panics
/// If it was not built.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let dir = test.parent().and_then(Path::parent).expect("target/<profile>/deps");
    let path = dir.join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace --bins` first (make test does)", path.display());
    path
}

/// Runs a program to its end, with only these variables and `PATH` in its environment.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn run(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(name, arguments, environment).stdin(Stdio::null()).output().expect("the program runs")
}

/// A command with a clean environment.
#[must_use]
pub fn command(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program(name));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// What a program said on both streams.
#[must_use]
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A running program whose output goes to a file.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts it; the log is appended to.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(name: &str, arguments: &[&str], environment: &[(&str, &str)], log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the log file");
        let both = file.try_clone().expect("the log file twice");
        let child =
            command(name, arguments, environment).stdin(Stdio::null()).stdout(file).stderr(both).spawn().expect("the program starts");
        Self { child, log: log.to_owned() }
    }

    /// As [`Running::start`], for a program that is installed on this machine.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn of_others(name: &str, arguments: &[&str], log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("the log file");
        let both = file.try_clone().expect("the log file twice");
        let started = Command::new(name).args(arguments).stdin(Stdio::null()).stdout(file).stderr(both).spawn();
        let child = started.unwrap_or_else(|error| panic!("this test needs the program `{name}` (`make tools` installs it): {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    ///
    /// # Panics
    /// If the log cannot be read.
    #[must_use]
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("the log file")).into_owned()
    }

    /// kill -9.
    ///
    /// # Panics
    /// If it is not there.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ended(Duration::from_secs(30))
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If it is not there.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("the signal is sent");
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(Instant::now() < deadline, "process {} did not end within {limit:?}; it said:\n{}", self.child.id(), self.said());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// If that cannot be asked.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
