//! The command line of `shipwatch-agent`.

mod doctor;
mod mask;
mod package_files;

use clap::{CommandFactory as _, Parser, Subcommand};
use shipwatch_agent::{
    app::{Agent, StatusFile, pipe_socket},
    collect,
    config::{Config, ConfigError},
    deploy::{self, local},
    policy, tail,
    uplink::{self, identity::IdentityStore},
};
use shipwatch_common::{
    logging,
    mask::Masker,
    model::deploy::{EventKind, HostState},
    shutdown,
    time::now_ms,
};
use std::{
    collections::HashMap,
    io::{self, BufRead as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

/// The Shipwatch agent: collects, masks, ships and deploys on this host.
#[derive(Debug, Parser)]
#[command(name = "shipwatch-agent", version, about, max_term_width = 100)]
struct Cli {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = Config::FILE)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the agent until SIGTERM or SIGINT.
    Run,
    /// Makes this host known to a server.
    Enroll {
        /// HOST:PORT of the server, such as shipwatch.example.com:9701.
        #[arg(long)]
        server: String,
        /// The token; `-` reads it from standard input, without it SHIPWATCH_TOKEN is used. On the command line other users of this
        /// host can see it while the command runs.
        #[arg(long, default_value = "")]
        token: String,
        /// Name in the fleet; the host's name if left out.
        #[arg(long, default_value = "")]
        name: String,
        /// Replaces an identity that is there.
        #[arg(long)]
        force: bool,
    },
    /// Shows what the running agent does.
    Status {
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Checks configuration and policy and says every mistake.
    Check,
    /// Reads lines on standard input and writes them masked.
    Mask(mask::Options),
    /// Sends lines of standard input to the running agent, until the input ends and everything is durable.
    Pipe {
        /// The `pipe` of one of tail.sources.
        #[arg(long, value_name = "NAME")]
        source: String,
    },
    /// Looks for what keeps the agent from working, and says how to mend it.
    Doctor {
        /// JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Runs a deployment from a directory, without a server.
    Deploy {
        /// Directory with deploy.yml and the artifact.
        #[arg(long, value_name = "DIR")]
        local: PathBuf,
        /// Policy instead of the configured one.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
}

/// An error with its exit code.
struct Failure {
    text: String,
    code: u8,
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure { text: error.to_string(), code: 1 }
}

pub(crate) fn run() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let [command, dir] = arguments.as_slice()
        && command == package_files::COMMAND
    {
        return match package_files::write(Cli::command(), Path::new(dir)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&format!("{}: {error}", dir.display()));
                ExitCode::FAILURE
            }
        };
    }
    let cli = Cli::parse();
    let environment: Vec<(String, String)> = std::env::vars().collect();
    match dispatch(cli, &environment) {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn complain(text: &str) {
    let _nobody_reads = writeln!(io::stderr().lock(), "shipwatch-agent: {text}");
}

fn say(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(error)),
        _ => Ok(()),
    }
}

fn load(path: &Path, environment: &[(String, String)]) -> Result<Config, Failure> {
    Config::read(path, environment).map_err(|error| match error {
        ConfigError::Problems(_) => Failure { text: error.to_string(), code: 2 },
        ConfigError::Io { .. } => failed(error),
    })
}

fn masker(config: &Config) -> Result<Arc<Masker>, Failure> {
    Masker::new(&config.mask).map(Arc::new).map_err(|error| Failure { text: format!("masking rules: {error}"), code: 2 })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)
}

fn dispatch(cli: Cli, environment: &[(String, String)]) -> Result<ExitCode, Failure> {
    let config = load(&cli.config, environment)?;
    match cli.command {
        Command::Run => run_agent(&config, environment),
        Command::Enroll { server, token, name, force } => enrol(&config, environment, &server, &token, &name, force),
        Command::Status { json } => status(&config, json),
        Command::Check => check(&config, &cli.config),
        Command::Mask(options) => mask::run(config.mask, &options).map(|()| ExitCode::SUCCESS),
        Command::Pipe { source } => pipe(&config, &source),
        Command::Doctor { json } => runtime()?.block_on(doctor::run(&config, json)).map_err(failed),
        Command::Deploy { local, policy } => deploy_local(&config, environment, &local, policy),
    }
}

fn run_agent(config: &Config, environment: &[(String, String)]) -> Result<ExitCode, Failure> {
    let masker = masker(config)?;
    logging::install(&config.log, Arc::clone(&masker));
    let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
    runtime()?.block_on(async {
        let agent = Agent::start(config, path, masker).map_err(failed)?;
        let signal = shutdown::signalled().await.map_err(failed)?;
        tracing::info!(signal, "stopping");
        agent.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}

fn enrol(
    config: &Config,
    environment: &[(String, String)],
    server: &str,
    token: &str,
    name: &str,
    force: bool,
) -> Result<ExitCode, Failure> {
    if !uplink::is_address(server) {
        return Err(Failure { text: format!("--server must be HOST:PORT, such as shipwatch.example.com:9701, not {server:?}"), code: 2 });
    }
    let token = match token {
        "-" => io::stdin().lock().lines().next().transpose().map_err(failed)?.unwrap_or_default(),
        "" => environment.iter().find(|(name, _)| name == "SHIPWATCH_TOKEN").map(|(_, token)| token.clone()).unwrap_or_default(),
        token => token.to_owned(),
    };
    if token.is_empty() {
        return Err(Failure {
            text: "no token: give --token, --token - with the token on standard input, or SHIPWATCH_TOKEN".to_owned(),
            code: 2,
        });
    }
    let facts = collect::facts();
    let name = if name.is_empty() { facts.hostname.clone() } else { name.to_owned() };
    let store = IdentityStore::new(Path::new(&config.agent.state_dir));
    let identity = runtime()?.block_on(store.enrol(server, &token, &name, facts, force)).map_err(failed)?;
    say(&format!(
        "enrolled as {} with {}; start the agent with `shipwatch-agent run` or `systemctl start shipwatch-agent`",
        identity.name, identity.server
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn status(config: &Config, json: bool) -> Result<ExitCode, Failure> {
    let file = StatusFile::new(Path::new(&config.agent.state_dir));
    let status = match file.read() {
        Ok(status) if status.is_fresh(now_ms()) => status,
        Ok(_) => return Err(failed("the agent is not running (its last status is old)")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(failed("the agent is not running")),
        Err(error) => return Err(failed(format!("{}: {error}", config.agent.state_dir))),
    };
    if json {
        say(&serde_json::to_string_pretty(&status).map_err(failed)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let lanes = |lanes: &std::collections::BTreeMap<String, u64>| {
        lanes.iter().map(|(lane, count)| format!("{lane} {count}")).collect::<Vec<_>>().join(", ")
    };
    say(&format!("agent      {} {} (process {})", status.name, status.version, status.pid))?;
    say(&format!("server     {} ({})", status.server, if status.connected { "connected" } else { "not connected" }))?;
    say(&format!("running    since {} s", (now_ms() - status.started_at_ms) / 1000))?;
    say(&format!("waiting    {} bytes", lanes(&status.pending_bytes)))?;
    say(&format!("dropped    {} records", lanes(&status.dropped_records)))?;
    say(&format!("logs       {} files, {} lines, {} masked, {} bytes lost", status.files, status.lines, status.masked, status.lost_bytes))?;
    say(&format!("refused    {} messages of the server", status.refused))?;
    Ok(if status.connected { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn pipe(config: &Config, source: &str) -> Result<ExitCode, Failure> {
    let socket = pipe_socket(Path::new(&config.agent.state_dir));
    runtime()?.block_on(tail::pipe(&socket, source, io::stdin(), complain)).map_err(failed)?;
    Ok(ExitCode::SUCCESS)
}

fn check(config: &Config, path: &Path) -> Result<ExitCode, Failure> {
    masker(config)?;
    let (policy, warning) = policy::Source::File(PathBuf::from(&config.agent.policy_file)).read();
    if let Some(warning) = warning {
        return Err(Failure { text: warning, code: 2 });
    }
    say(&format!("{}: good", path.display()))?;
    let allowed = if policy.deploy.enabled { "allowed" } else { "off: the server gets telemetry and no more" };
    say(&format!("{}: deployments {allowed}", config.agent.policy_file))?;
    Ok(ExitCode::SUCCESS)
}

fn deploy_local(config: &Config, environment: &[(String, String)], dir: &Path, policy: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let masker = masker(config)?;
    logging::install(&config.log, Arc::clone(&masker));
    let source = policy::Source::File(policy.unwrap_or_else(|| PathBuf::from(&config.agent.policy_file)));
    let state_dir = Path::new(&config.agent.state_dir).join("deploy");
    std::fs::create_dir_all(&state_dir).map_err(|error| failed(format!("{}: {error}", state_dir.display())))?;
    let mut setup = deploy::Setup::new(state_dir, source, masker).map_err(failed)?;
    let environment: HashMap<&str, &str> = environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if let Some(path) = environment.get("PATH") {
        (*path).clone_into(&mut setup.path);
    }
    let (state, reason) = local::run(dir, setup, |event| {
        let text = match &event.kind {
            EventKind::State { state, reason, .. } if reason.is_empty() => format!("{state:?}"),
            EventKind::State { state, reason, .. } => format!("{state:?}: {reason}"),
            EventKind::StepStarted { step } => format!("{step} …"),
            EventKind::StepFinished { step, ok, detail, took_ms } => {
                format!("{step} {} ({detail}, {took_ms} ms)", if *ok { "done" } else { "failed" })
            }
            EventKind::Output { step, text } => text.lines().map(|line| format!("{step} | {line}")).collect::<Vec<_>>().join("\n"),
        };
        let _nobody_reads = say(&text);
    })
    .map_err(failed)?;
    if state == HostState::Succeeded {
        return Ok(ExitCode::SUCCESS);
    }
    Err(failed(format!("the deployment ended {state:?}: {reason}")))
}
