//! Deployments.

use super::{API, list as items, path_part, text};
use crate::{
    DeployArgs,
    client::{CliError, Client},
    output::{Out, ago},
};
use serde_json::{Value, json};
use shipwatch_common::time::now_ms;

/// `label=value` pairs from the command line.
pub(crate) fn pairs(given: &[String]) -> Result<Value, CliError> {
    given
        .iter()
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(|| CliError::Usage(format!("`{pair}` must be LABEL=VALUE")))?;
            Ok((name.to_owned(), Value::String(value.to_owned())))
        })
        .collect::<Result<serde_json::Map<_, _>, _>>()
        .map(Value::Object)
}

pub(crate) async fn deploy(client: &Client, out: &mut Out, args: &DeployArgs) -> Result<bool, CliError> {
    let yaml = std::fs::read_to_string(&args.spec).map_err(|error| CliError::Usage(format!("{}: {error}", args.spec.display())))?;
    let body = json!({
        "spec_yaml": yaml,
        "hosts": args.host,
        "selector": pairs(&args.selector)?,
        "strategy": args.strategy,
        "stop_on_failure": !args.keep_going,
    });
    let created = client.post(&format!("{API}/deployments"), &body).await?;
    begun(client, out, &created, !args.no_wait).await
}

pub(crate) async fn roll_back(client: &Client, out: &mut Out, id: &str, wait: bool) -> Result<bool, CliError> {
    let created = client.post(&format!("{API}/deployments/{}/rollback", path_part(id)), &json!({})).await?;
    begun(client, out, &created, wait).await
}

async fn begun(client: &Client, out: &mut Out, created: &Value, wait: bool) -> Result<bool, CliError> {
    if !wait {
        if out.json() {
            out.value(created)?;
        } else {
            out.line(&text(created, "/id"))?;
        }
        return Ok(true);
    }
    if !out.json() {
        let what = if created["rollback_of"].is_null() { "deploying" } else { "rolling back" };
        out.line(&format!("{what} {} {} ({})", text(created, "/app"), text(created, "/release"), text(created, "/id")))?;
    }
    follow(client, out, &text(created, "/id")).await
}

/// Shows events as they come, then the end. Picks up again after a broken stream.
async fn follow(client: &Client, out: &mut Out, id: &str) -> Result<bool, CliError> {
    let mut after = "0".to_owned();
    let mut failures = 0;
    loop {
        let mut events = match client.events(&format!("{API}/deployments/{id}/events"), &[("after", &after)]).await {
            Ok(events) => events,
            Err(CliError::Unreachable { .. }) if failures < 30 => {
                failures += 1;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let ended = loop {
            match events.next().await {
                Ok(Some(event)) if event.name == "end" => break true,
                Ok(Some(event)) => {
                    let event: Value = serde_json::from_str(&event.data).unwrap_or_default();
                    after = text(&event, "/n");
                    print_event(out, &event)?;
                }
                Ok(None) | Err(CliError::Refused(_)) => break false,
                Err(error) => return Err(error),
            }
        };
        if ended {
            break;
        }
    }
    let deployment = client.get(&format!("{API}/deployments/{id}"), &[]).await?;
    let state = text(&deployment, "/state");
    if out.json() {
        out.value(&deployment)?;
    } else {
        print_hosts(out, &deployment)?;
        out.line(&format!("{} {}", out.state(&state), text(&deployment, "/reason").replace('-', "")).trim_end().to_owned())?;
    }
    Ok(state == "succeeded")
}

fn print_event(out: &mut Out, event: &Value) -> std::io::Result<()> {
    if out.json() {
        return out.line(&event.to_string());
    }
    let host = text(event, "/host");
    match text(event, "/kind").as_str() {
        "state" => {
            let state = out.state(&text(event, "/state"));
            let reason =
                event["reason"].as_str().filter(|reason| !reason.is_empty()).map_or_else(String::new, |reason| format!(": {reason}"));
            out.line(&format!("[{host}] {state}{reason}"))
        }
        "step_started" => out.line(&format!("[{host}] {} …", text(event, "/step"))),
        "step_finished" => {
            let mark = if event["ok"] == true { "done" } else { "failed" };
            out.line(&format!("[{host}] {} {mark} ({}, {} ms)", text(event, "/step"), text(event, "/detail"), text(event, "/took_ms")))
        }
        _ => {
            for line in event["text"].as_str().unwrap_or_default().lines() {
                out.line(&format!("[{host}] {} | {line}", text(event, "/step")))?;
            }
            Ok(())
        }
    }
}

fn print_hosts(out: &mut Out, deployment: &Value) -> std::io::Result<()> {
    let rows: Vec<Vec<String>> = items(deployment, "/hosts")
        .map(|host| vec![text(host, "/name"), out.state(&text(host, "/state")), text(host, "/release"), text(host, "/reason")])
        .collect();
    out.table(&["HOST", "STATE", "RELEASE", "REASON"], &rows)
}

pub(crate) async fn show(client: &Client, out: &mut Out, id: &str) -> Result<bool, CliError> {
    let id = path_part(id);
    let deployment = client.get(&format!("{API}/deployments/{id}"), &[]).await?;
    if out.json() {
        out.value(&deployment)?;
        return Ok(true);
    }
    let mut after = "0".to_owned();
    loop {
        let page = client.get(&format!("{API}/deployments/{id}/log"), &[("after", &after), ("limit", "1000")]).await?;
        let mut any = false;
        for event in items(&page, "/events") {
            any = true;
            print_event(out, event)?;
        }
        if !any {
            break;
        }
        after = text(&page, "/next");
    }
    print_hosts(out, &deployment)?;
    out.line(&out.state(&text(&deployment, "/state")))?;
    Ok(true)
}

pub(crate) async fn list(client: &Client, out: &mut Out, limit: u32) -> Result<bool, CliError> {
    let answer = client.get(&format!("{API}/deployments"), &[("limit", &limit.to_string())]).await?;
    if out.json() {
        out.value(&answer)?;
        return Ok(true);
    }
    let rows: Vec<Vec<String>> = items(&answer, "/deployments")
        .map(|deployment| {
            let hosts: Vec<String> = items(deployment, "/hosts").map(|host| text(host, "/name")).collect();
            vec![
                text(deployment, "/id"),
                text(deployment, "/app"),
                text(deployment, "/release"),
                out.state(&text(deployment, "/state")),
                ago(deployment["created_at_ms"].as_i64(), now_ms()),
                text(deployment, "/created_by"),
                hosts.join(","),
            ]
        })
        .collect();
    out.table(&["ID", "APP", "RELEASE", "STATE", "WHEN", "BY", "HOSTS"], &rows)?;
    Ok(true)
}
