//! Deployments.

use super::{API, list as items, path_part, text};
use crate::{
    DeployArgs,
    client::{CliError, Client},
    output::{Out, ago},
    progress::{Progress, View},
};
use serde_json::{Value, json};
use shipwatch_common::time::now_ms;
use std::time::Duration;

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
    follow(client, out, created).await
}

/// Attempts to reach a server that went away while a deployment is followed, a second apart.
const RECONNECTS: u32 = 30;

/// Shows events as they come, then the end. Picks up again after a broken stream.
async fn follow(client: &Client, out: &mut Out, created: &Value) -> Result<bool, CliError> {
    let id = text(created, "/id");
    let mut view = View::new(Progress::new(created));
    let mut after = "0".to_owned();
    let mut failures = 0;
    loop {
        let before = after.clone();
        let ended = follow_once(client, out, &mut view, &id, &mut after).await;
        view.clear(out)?;
        match ended {
            Ok(true) => break,
            Ok(false) => {}
            Err(CliError::Unreachable { .. } | CliError::Broken(_)) if failures < RECONNECTS => {}
            Err(error) => return Err(error),
        }
        failures = if after == before { failures + 1 } else { 0 };
        if failures > RECONNECTS {
            return Err(CliError::Refused(format!(
                "the server ends the stream of deployment {id} again and again; see `shipwatch deployments {id}`"
            )));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let deployment = client.get(&format!("{API}/deployments/{id}"), &[]).await?;
    let state = text(&deployment, "/state");
    if out.json() {
        out.value(&deployment)?;
    } else {
        print_hosts(out, &deployment)?;
        let reason = deployment["reason"].as_str().unwrap_or_default();
        out.line(format!("{} {reason}", out.state(&state)).trim_end())?;
    }
    Ok(state == "succeeded")
}

/// Follows one stream; `true` if it said that the deployment has ended.
async fn follow_once(client: &Client, out: &mut Out, view: &mut View, id: &str, after: &mut String) -> Result<bool, CliError> {
    let mut events = client.events(&format!("{API}/deployments/{id}/events"), &[("after", after)]).await?;
    loop {
        let Ok(event) = tokio::time::timeout(Duration::from_secs(1), events.next()).await else {
            view.tick(out, now_ms())?;
            continue;
        };
        let Some(event) = event? else { return Ok(false) };
        if event.name == "end" {
            return Ok(true);
        }
        let event: Value = serde_json::from_str(&event.data).unwrap_or_default();
        *after = text(&event, "/n");
        view.event(out, &event, now_ms(), |out| print_event(out, &event))?;
    }
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
            let reason = out.foreign(&reason).into_owned();
            out.line(&format!("[{host}] {state}{reason}"))
        }
        "step_started" => out.line(&format!("[{host}] {} …", text(event, "/step"))),
        "step_finished" => {
            let mark = if event["ok"] == true { "done" } else { "failed" };
            let said = format!("[{host}] {} {mark} ({}, {} ms)", text(event, "/step"), text(event, "/detail"), text(event, "/took_ms"));
            let said = out.foreign(&said).into_owned();
            out.line(&said)
        }
        _ => {
            for line in event["text"].as_str().unwrap_or_default().lines() {
                let line = out.foreign(line).into_owned();
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

pub(crate) async fn abort(client: &Client, out: &mut Out, id: &str) -> Result<bool, CliError> {
    let deployment = client.post(&format!("{API}/deployments/{}/abort", path_part(id)), &json!({})).await?;
    if out.json() {
        out.value(&deployment)?;
    } else {
        out.line("aborting: no further host is started, running ones go back")?;
    }
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
