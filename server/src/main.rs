//! `shipwatch-server`: the server's program.
//!
//! Exit codes: 0 done; 1 it failed; 2 wrong usage or configuration.

use clap::{CommandFactory as _, Parser, Subcommand};
use shipwatch_common::{
    identity::{self, EnrolmentToken},
    logging,
    mask::Masker,
    shutdown,
    time::{duration_ms, now_ms, parse_duration},
};
use shipwatch_server::{
    api::{auth, tokens::check_grant},
    app::{self, Server},
    config::{Config, ConfigError},
    package_files,
    store::{Store, hosts::EnrolmentGrant, users::User},
    tsdb,
};
use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

/// The Shipwatch server: stores, queries, alerts, rolls out.
#[derive(Debug, Parser)]
#[command(name = "shipwatch-server", version, about, max_term_width = 100)]
struct Cli {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = Config::FILE)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server until SIGTERM or SIGINT. SIGHUP reads the rule files again.
    Serve,
    /// Checks the configuration and says every mistake.
    Check,
    /// Tokens that let hosts in.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Hosts.
    #[command(subcommand)]
    Host(HostCommand),
    /// Users.
    #[command(subcommand)]
    User(UserCommand),
    /// Tools for the series of a stopped server.
    #[command(subcommand)]
    Tsdb(tsdb::Command),
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Makes an enrolment token and prints it.
    Create {
        /// Environment of the hosts, such as prod.
        #[arg(long)]
        env: String,
        /// Region of the hosts, such as eu.
        #[arg(long, default_value = "")]
        region: String,
        /// Further labels of the hosts.
        #[arg(long = "label", value_name = "LABEL=VALUE")]
        labels: Vec<String>,
        /// How long it is good.
        #[arg(long, default_value = "1h")]
        ttl: String,
        /// How many hosts may use it.
        #[arg(long, default_value_t = 1)]
        uses: i64,
    },
}

#[derive(Debug, Subcommand)]
enum HostCommand {
    /// Refuses a host's certificate from now on; a running server closes its connection within seconds.
    Revoke {
        /// Name or id.
        host: String,
    },
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Sets a user's password, read from standard input; its sessions end. Makes the user if it is not there.
    Password {
        /// User name.
        name: String,
    },
}

struct Failure {
    text: String,
    code: u8,
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure { text: error.to_string(), code: 1 }
}

fn wrong(text: impl Into<String>) -> Failure {
    Failure { text: text.into(), code: 2 }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let [command, dir] = arguments.as_slice()
        && command == package_files::COMMAND
    {
        return match package_files::write(Cli::command(), Path::new(dir)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _nobody_reads = writeln!(io::stderr().lock(), "shipwatch-server: {}: {error}", dir.display());
                ExitCode::FAILURE
            }
        };
    }
    let cli = Cli::parse();
    let environment: Vec<(String, String)> = std::env::vars().collect();
    match dispatch(cli, &environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _nobody_reads = writeln!(io::stderr().lock(), "shipwatch-server: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(cli: Cli, environment: &[(String, String)]) -> Result<(), Failure> {
    let config = Config::read(&cli.config, environment).map_err(|error| match error {
        ConfigError::Problems(_) => wrong(error.to_string()),
        ConfigError::Io { .. } => failed(error),
    })?;
    let masker = Masker::new(&config.mask).map(Arc::new).map_err(|error| wrong(format!("masking rules: {error}")))?;
    if matches!(cli.command, Command::Check) {
        return say(&format!("{}: good", cli.config.display()));
    }
    logging::install(&config.log, masker);
    if let Command::Tsdb(command) = &cli.command {
        return match tsdb::run(command, Path::new(&config.server.data_dir), &config.series).map_err(failed)? {
            true => Ok(()),
            false => Err(failed("not everything was well; see above")),
        };
    }
    // Used by every client of HTTPS in this process; a second call would be a mistake of ours without consequence.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        match cli.command {
            Command::Serve => serve(&config, environment).await,
            Command::Check | Command::Tsdb(_) => Ok(()),
            Command::Token(TokenCommand::Create { env, region, labels, ttl, uses }) => {
                create_token(&config, env, region, &labels, &ttl, uses).await
            }
            Command::Host(HostCommand::Revoke { host }) => revoke(&config, &host).await,
            Command::User(UserCommand::Password { name }) => set_password(&config, name).await,
        }
    })
}

fn say(text: &str) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{text}").map_err(failed)
}

async fn serve(config: &Config, environment: &[(String, String)]) -> Result<(), Failure> {
    let password =
        environment.iter().find(|(name, value)| name == "SHIPWATCH_ADMIN_PASSWORD" && !value.is_empty()).map(|(_, value)| value.as_str());
    let server = Server::start(config, password).await.map_err(failed)?;
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).map_err(failed)?;
    let end = shutdown::signalled();
    tokio::pin!(end);
    let signal = loop {
        tokio::select! {
            signal = &mut end => break signal.map_err(failed)?,
            _ = hangup.recv() => server.reload(),
        }
    };
    tracing::info!(signal, "stopping");
    server.shutdown().await;
    Ok(())
}

/// The store of the configured data directory, also while a server runs on it.
fn open(config: &Config) -> Result<(Store, PathBuf), Failure> {
    let data = PathBuf::from(&config.server.data_dir);
    if !matches!(data.join("control.db").try_exists(), Ok(true)) {
        let shown = data.display();
        return Err(failed(format!(
            "{shown} holds no data of a server; start `shipwatch-server serve` first, or set SHIPWATCH_DATA to its directory"
        )));
    }
    Ok((Store::open_beside(&data).map_err(failed)?, data))
}

fn pairs(labels: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let split = |pair: &String| match pair.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(wrong(format!("--label must be LABEL=VALUE, not {pair:?}"))),
    };
    labels.iter().map(split).collect()
}

async fn create_token(config: &Config, env: String, region: String, labels: &[String], ttl: &str, uses: i64) -> Result<(), Failure> {
    let labels = pairs(labels)?;
    check_grant(&env, &region, &labels, uses).map_err(wrong)?;
    let ttl = parse_duration(ttl).map_err(|error| wrong(format!("--ttl: {error}")))?;
    let (store, data) = open(config)?;
    let authority = app::authority(Path::new(&data)).map_err(failed)?;
    let token = EnrolmentToken::create(identity::fingerprint(authority.certificate())).map_err(failed)?;
    let now = now_ms();
    let expires_at_ms = now.saturating_add(duration_ms(ttl));
    let grant = EnrolmentGrant { id: uuid::Uuid::now_v7().to_string(), env, region, labels, uses_left: uses, expires_at_ms };
    store.add_enrolment_token(grant, EnrolmentToken::secret_hash(&token.secret), "command line", now).await.map_err(failed)?;
    say(&token.to_text())
}

async fn revoke(config: &Config, host: &str) -> Result<(), Failure> {
    let (store, _) = open(config)?;
    let id = store.revoke_host(host, "command line", now_ms()).await.map_err(failed)?;
    say(&format!("revoked {host} ({id})"))
}

async fn set_password(config: &Config, name: String) -> Result<(), Failure> {
    let line = io::stdin().lock().lines().next().transpose().map_err(failed)?.unwrap_or_default();
    if line.chars().count() < 10 {
        return Err(wrong("the password needs at least 10 characters, on one line of standard input"));
    }
    let (store, _) = open(config)?;
    let password_hash = auth::hash_password(&line).map_err(failed)?;
    store.set_user(User { name: name.clone(), role: "admin".to_owned(), password_hash }, "command line", now_ms()).await.map_err(failed)?;
    say(&format!("the password of {name} is set"))
}
