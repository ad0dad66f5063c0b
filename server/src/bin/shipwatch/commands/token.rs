//! Tokens and signing in.

use super::{API, deploy::pairs, list, path_part, text};
use crate::{
    TokenCommand,
    client::{CliError, Client, Credentials, credentials_file},
    output::{Out, ago},
};
use serde_json::json;
use shipwatch_common::time::now_ms;
use std::{
    collections::HashMap,
    io::{BufRead as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
};

pub(crate) async fn run(client: &Client, out: &mut Out, command: TokenCommand) -> Result<bool, CliError> {
    match command {
        TokenCommand::List => {
            let answer = client.get(&format!("{API}/tokens"), &[]).await?;
            if out.json() {
                out.value(&answer)?;
                return Ok(true);
            }
            let rows: Vec<Vec<String>> = list(&answer, "/tokens")
                .map(|token| {
                    vec![
                        text(token, "/id"),
                        text(token, "/name"),
                        ago(token["created_at_ms"].as_i64(), now_ms()),
                        ago(token["last_used_at_ms"].as_i64(), now_ms()),
                    ]
                })
                .collect();
            out.table(&["ID", "NAME", "CREATED", "LAST USED"], &rows)?;
        }
        TokenCommand::Create { name, ttl } => {
            let answer = client.post(&format!("{API}/tokens"), &json!({"name": name, "ttl": ttl})).await?;
            if out.json() { out.value(&answer)? } else { out.line(&text(&answer, "/token"))? }
        }
        TokenCommand::Delete { id } => client.delete(&format!("{API}/tokens/{}", path_part(&id))).await?,
        TokenCommand::Enrolment { env, region, label, ttl, uses } => {
            let body = json!({"env": env, "region": region, "labels": pairs(&label)?, "ttl": ttl, "uses": uses});
            let answer = client.post(&format!("{API}/enrolment-tokens"), &body).await?;
            if out.json() {
                out.value(&answer)?;
            } else {
                out.note("run this on the host, as root:");
                out.line(&text(&answer, "/command"))?;
            }
        }
    }
    Ok(true)
}

/// Asks for the password on standard input, makes an API token and keeps it.
pub(crate) async fn login(client: &Client, out: &mut Out, user: &str, environment: &HashMap<String, String>) -> Result<bool, CliError> {
    let path = credentials_file(environment)
        .ok_or_else(|| CliError::Usage("HOME is not set, so there is no place for the credentials".to_owned()))?;
    let password = match environment.get("SHIPWATCH_PASSWORD") {
        Some(password) => password.clone(),
        None => {
            out.note(&format!("password of {user} at {} (one line on standard input):", client.url()));
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            line.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    let host = environment.get("HOSTNAME").map_or("command line", String::as_str);
    let answer = client
        .as_user(user, &password)
        .post(&format!("{API}/tokens"), &json!({"name": format!("shipwatch login on {host}"), "ttl": "90d"}))
        .await?;
    let credentials = Credentials { url: client.url().to_owned(), token: text(&answer, "/token") };
    let content = toml::to_string(&credentials).map_err(|error| CliError::Usage(error.to_string()))?;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(content.as_bytes())?;
    out.note(&format!("signed in; the token is in {} and good for 90 days", path.display()));
    Ok(true)
}
