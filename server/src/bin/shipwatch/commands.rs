//! The commands that read.

pub(crate) mod deploy;
pub(crate) mod token;

use crate::{
    LogsArgs, QueryArgs,
    client::{CliError, Client},
    output::{Out, ago},
};
use serde_json::Value;
use shipwatch_common::time::{duration_ms, now_ms, now_ns, parse_duration};

const API: &str = "/shipwatch/api/v1";

pub(crate) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn path_part(text: &str) -> String {
    percent(text)
}

/// Percent-encodes what may not stand in a path.
fn percent(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}

pub(crate) async fn hosts(client: &Client, out: &mut Out, host: Option<&str>, env: Option<&str>) -> Result<bool, CliError> {
    if let Some(host) = host {
        let host = client.get(&format!("{API}/hosts/{}", path_part(host)), &[]).await?;
        out.value(&host)?;
        return Ok(true);
    }
    let answer = client.get(&format!("{API}/hosts"), &[]).await?;
    if out.json() {
        out.value(&answer)?;
        return Ok(true);
    }
    let rows: Vec<Vec<String>> = list(&answer, "/hosts")
        .filter(|host| env.is_none_or(|env| host["env"] == env))
        .map(|host| {
            vec![
                text(host, "/name"),
                out.state(&text(host, "/state")),
                text(host, "/env"),
                text(host, "/region"),
                ago(host["last_seen_ms"].as_i64(), now_ms()),
                text(host, "/facts/os"),
                text(host, "/facts/agent_version"),
                if host["deploys_allowed"] == true { "yes" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    if rows.is_empty() {
        out.note("no hosts yet; make a token with `shipwatch token enrolment --env prod` and run the command it prints on a host");
    }
    out.table(&["NAME", "STATE", "ENV", "REGION", "LAST SEEN", "OS", "AGENT", "DEPLOYS"], &rows)?;
    Ok(true)
}

pub(crate) async fn revoke(client: &Client, out: &mut Out, host: &str) -> Result<bool, CliError> {
    let host = client.post(&format!("{API}/hosts/{}/revoke", path_part(host)), &serde_json::json!({})).await?;
    if out.json() {
        out.value(&host)?;
    } else {
        out.line(&format!("revoked {} ({})", text(&host, "/name"), text(&host, "/id")))?;
    }
    Ok(true)
}

pub(crate) async fn query(client: &Client, out: &mut Out, args: &QueryArgs) -> Result<bool, CliError> {
    let answer = if let Some(range) = &args.range {
        let range = parse_duration(range).map_err(CliError::Usage)?;
        let end = now_ms();
        let start = end - duration_ms(range);
        let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
        client
            .get("/api/v1/query_range", &[("query", &args.query), ("start", &seconds(start)), ("end", &seconds(end)), ("step", &args.step)])
            .await?
    } else {
        let mut query = vec![("query", args.query.as_str())];
        query.extend(args.time.as_deref().map(|time| ("time", time)));
        client.get("/api/v1/query", &query).await?
    };
    if out.json() {
        out.value(&answer)?;
        return Ok(true);
    }
    for warning in list(&answer, "/warnings").chain(list(&answer, "/infos")) {
        out.note(&format!("note: {}", warning.as_str().unwrap_or_default()));
    }
    if answer.pointer("/data/resultType").is_some_and(|kind| kind == "scalar" || kind == "string") {
        out.line(&text(&answer, "/data/result/1"))?;
        return Ok(true);
    }
    for series in list(&answer, "/data/result") {
        let name = series_name(&series["metric"]);
        if let Some(value) = series.pointer("/value/1").and_then(Value::as_str) {
            out.line(&format!("{name}  {value}"))?;
        }
        for point in list(series, "/values") {
            out.line(&format!("{name}  {}  {}", text(point, "/0"), text(point, "/1")))?;
        }
    }
    Ok(true)
}

fn series_name(metric: &Value) -> String {
    let Some(labels) = metric.as_object() else { return String::new() };
    let name = labels.get("__name__").and_then(Value::as_str).unwrap_or_default();
    let others: Vec<String> =
        labels.iter().filter(|(name, _)| *name != "__name__").map(|(name, value)| format!("{name}={value}")).collect();
    if others.is_empty() && !name.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", others.join(",")) }
}

pub(crate) async fn logs(client: &Client, out: &mut Out, args: &LogsArgs) -> Result<bool, CliError> {
    let since = parse_duration(&args.since).map_err(CliError::Usage)?;
    let end = now_ns();
    let start = end - i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
    if !args.follow || !out.json() {
        let (start, end, limit) = (start.to_string(), end.to_string(), args.limit.to_string());
        let query = [("query", args.query.as_str()), ("start_ns", &start), ("end_ns", &end), ("limit", &limit), ("direction", "backward")];
        let answer = client.get(&format!("{API}/logs"), &query).await?;
        if out.json() {
            out.value(&answer)?;
            return Ok(true);
        }
        let mut entries: Vec<&Value> = list(&answer, "/entries").collect();
        entries.reverse();
        for entry in entries {
            print_entry(out, entry)?;
        }
    }
    if args.follow {
        let mut events = client.events(&format!("{API}/logs/tail"), &[("query", &args.query)]).await?;
        while let Some(event) = events.next().await? {
            let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
            match event.name.as_str() {
                "gap" => out.note(&format!("({} lines left out: more came than could be shown)", text(&data, "/dropped"))),
                _ if out.json() => {
                    for entry in list(&data, "") {
                        out.line(&entry.to_string())?;
                    }
                }
                _ => {
                    for entry in list(&data, "") {
                        print_entry(out, entry)?;
                    }
                }
            }
        }
    }
    Ok(true)
}

fn print_entry(out: &mut Out, entry: &Value) -> std::io::Result<()> {
    let ts_ns: i64 = text(entry, "/ts_ns").parse().unwrap_or(0);
    let time = jiff::Timestamp::from_nanosecond(i128::from(ts_ns))
        .map_or_else(|_| ts_ns.to_string(), |time| time.to_zoned(jiff::tz::TimeZone::system()).strftime("%m-%d %H:%M:%S%.3f").to_string());
    let line = format!("{} {}  {}", text(entry, "/labels/host"), text(entry, "/labels/filename"), text(entry, "/line"));
    let line = format!("{time} {}", out.foreign(&line));
    out.line(&line)
}

pub(crate) async fn alerts(client: &Client, out: &mut Out, state: &str) -> Result<bool, CliError> {
    let answer = client.get(&format!("{API}/alerts"), &[("state", state)]).await?;
    if out.json() {
        out.value(&answer)?;
        return Ok(true);
    }
    let rows: Vec<Vec<String>> = list(&answer, "/alerts")
        .map(|alert| {
            let place = ["instance", "host"].iter().map(|name| text(alert, &format!("/labels/{name}"))).find(|name| name != "-");
            vec![
                text(alert, "/name"),
                out.state(&text(alert, "/state")),
                text(alert, "/severity"),
                place.unwrap_or_else(|| "-".to_owned()),
                ago(alert["active_at_ms"].as_i64(), now_ms()),
                text(alert, "/value"),
                text(alert, "/annotations/summary"),
            ]
        })
        .collect();
    if rows.is_empty() {
        out.note("nothing is wrong");
        return Ok(true);
    }
    out.table(&["ALERT", "STATE", "SEVERITY", "HOST", "SINCE", "VALUE", "SUMMARY"], &rows)?;
    Ok(true)
}
