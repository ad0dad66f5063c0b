//! `shipwatch`: the operator's command line over the HTTP API.
//!
//! Exit codes: 0 done; 1 what was asked for failed (a deployment, a query); 2 wrong usage; 3 the server cannot be
//! reached or refuses the credentials.

mod client;
mod commands;
mod output;
mod progress;

use clap::{Args, Parser, Subcommand};
use client::Client;
use output::Out;
use std::process::ExitCode;

/// Talks to a Shipwatch server.
///
/// Server and credentials come from SHIPWATCH_URL (default http://127.0.0.1:9700) and SHIPWATCH_TOKEN, or
/// SHIPWATCH_USER and SHIPWATCH_PASSWORD, or the file that `shipwatch login` writes.
#[derive(Debug, Parser)]
#[command(name = "shipwatch", version, about, max_term_width = 100)]
struct Cli {
    /// Prints JSON as the server gives it, for scripts.
    #[arg(long, global = true)]
    json: bool,
    /// Server, such as https://shipwatch.example.com; wins over SHIPWATCH_URL.
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists hosts, or shows one.
    Hosts {
        /// Name or id.
        host: Option<String>,
        /// Only this environment.
        #[arg(long)]
        env: Option<String>,
    },
    /// Does something to one host.
    #[command(subcommand)]
    Host(HostCommand),
    /// Evaluates PromQL, now or over a range.
    Query(QueryArgs),
    /// Searches log lines, or follows them.
    Logs(LogsArgs),
    /// Lists alerts.
    Alerts {
        /// Which states, separated by commas.
        #[arg(long, default_value = "firing,pending")]
        state: String,
    },
    /// Deploys a release and follows it to its end.
    Deploy(DeployArgs),
    /// Takes the hosts of a deployment back to the release before.
    Rollback {
        /// The deployment's id.
        deployment: String,
        /// Returns at once instead of following.
        #[arg(long)]
        no_wait: bool,
    },
    /// Lists deployments, or shows one with its output.
    Deployments {
        /// The deployment's id.
        deployment: Option<String>,
        /// How many to list.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Starts no further host of a deployment and makes running ones go back.
    Abort {
        /// The deployment's id.
        deployment: String,
    },
    /// API tokens and enrolment tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Signs in once and keeps an API token in ~/.config/shipwatch/credentials.toml.
    Login {
        /// User name.
        #[arg(long, default_value = "admin")]
        user: String,
    },
}

#[derive(Args, Debug)]
struct QueryArgs {
    /// PromQL.
    query: String,
    /// Time for an instant query: Unix seconds or RFC 3339.
    #[arg(long)]
    time: Option<String>,
    /// Evaluates over this long until now, such as 1h.
    #[arg(long, value_name = "DURATION")]
    range: Option<String>,
    /// Step of a range.
    #[arg(long, default_value = "15s")]
    step: String,
}

#[derive(Args, Debug)]
struct LogsArgs {
    /// `{host="web-1"} |= "timeout"`, or words that must occur.
    #[arg(default_value = "")]
    query: String,
    /// How far back.
    #[arg(long, default_value = "1h")]
    since: String,
    /// How many lines.
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: u32,
    /// Follows new lines.
    #[arg(long, short)]
    follow: bool,
}

#[derive(Args, Debug)]
struct DeployArgs {
    /// The deploy.yml.
    spec: std::path::PathBuf,
    /// Hosts by name; may be repeated or separated by commas.
    #[arg(long, value_delimiter = ',')]
    host: Vec<String>,
    /// All hosts with these labels, such as env=staging,role=web.
    #[arg(long, value_delimiter = ',', value_name = "LABEL=VALUE")]
    selector: Vec<String>,
    /// One host after the other, or all together.
    #[arg(long, value_parser = ["one_by_one", "all_at_once"], default_value = "one_by_one")]
    strategy: String,
    /// Goes on with further hosts after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Returns at once instead of following.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Subcommand)]
enum HostCommand {
    /// Refuses the host's certificate from now on and closes its connection; to come back it must be enrolled again.
    Revoke {
        /// Name or id.
        host: String,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Lists API tokens.
    List,
    /// Makes an API token for scripts; printed once.
    Create {
        /// What it is for.
        name: String,
        /// How long it is good; without, until it is deleted.
        #[arg(long)]
        ttl: Option<String>,
    },
    /// Deletes an API token.
    Delete {
        /// Its id.
        id: String,
    },
    /// Makes a token that lets hosts in.
    Enrolment {
        /// Environment of the hosts.
        #[arg(long)]
        env: String,
        /// Region of the hosts.
        #[arg(long, default_value = "")]
        region: String,
        /// Further labels, such as role=web.
        #[arg(long, value_delimiter = ',', value_name = "LABEL=VALUE")]
        label: Vec<String>,
        /// How long it is good.
        #[arg(long, default_value = "1h")]
        ttl: String,
        /// How many hosts may use it.
        #[arg(long, default_value_t = 1)]
        uses: i64,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Out::new(cli.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return out.fail(&format!("cannot start: {error}"), 1),
    };
    let environment: std::collections::HashMap<String, String> = std::env::vars().collect();
    let done = runtime.block_on(async {
        let client = Client::new(cli.url.as_deref(), &environment)?;
        run(cli.command, &client, &mut out, &environment).await
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => out.fail(&error.to_string(), error.exit_code()),
    }
}

async fn run(
    command: Command,
    client: &Client,
    out: &mut Out,
    environment: &std::collections::HashMap<String, String>,
) -> Result<bool, client::CliError> {
    match command {
        Command::Hosts { host, env } => commands::hosts(client, out, host.as_deref(), env.as_deref()).await,
        Command::Host(HostCommand::Revoke { host }) => commands::revoke(client, out, &host).await,
        Command::Query(args) => commands::query(client, out, &args).await,
        Command::Logs(args) => commands::logs(client, out, &args).await,
        Command::Alerts { state } => commands::alerts(client, out, &state).await,
        Command::Deploy(args) => commands::deploy::deploy(client, out, &args).await,
        Command::Rollback { deployment, no_wait } => commands::deploy::roll_back(client, out, &deployment, !no_wait).await,
        Command::Deployments { deployment: Some(id), .. } => commands::deploy::show(client, out, &id).await,
        Command::Deployments { deployment: None, limit } => commands::deploy::list(client, out, limit).await,
        Command::Abort { deployment } => commands::deploy::abort(client, out, &deployment).await,
        Command::Token(command) => commands::token::run(client, out, command).await,
        Command::Login { user } => commands::token::login(client, out, &user, environment).await,
    }
}
