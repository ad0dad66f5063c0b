//! The live view of a deployment on a terminal: what was said scrolls by, the hosts' states stay below it.
//!
//! [`Progress`] is pure: events in, lines out. [`View`] takes its lines off the screen before something is said and puts them
//! back afterwards; without a terminal it shows nothing but what is said.

use crate::output::Out;
use serde_json::Value;
use std::io;

/// Hosts shown at once; the ones that are not pending and not done come first.
const ROWS: usize = 12;

#[derive(Debug)]
struct Host {
    name: String,
    state: String,
    step: String,
    since_ms: i64,
}

/// Where each host is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    hosts: Vec<Host>,
}

fn is_end(state: &str) -> bool {
    ["succeeded", "failed", "reverted", "revert_failed", "refused", "skipped", "unknown"].contains(&state)
}

impl Progress {
    /// From a deployment as the API gives it.
    pub(crate) fn new(deployment: &Value) -> Self {
        let name = |host: &Value, key: &str| host[key].as_str().unwrap_or_default().to_owned();
        let hosts = deployment["hosts"].as_array().into_iter().flatten();
        let hosts = hosts.map(|host| Host { name: name(host, "name"), state: name(host, "state"), step: String::new(), since_ms: 0 });
        Self { hosts: hosts.collect() }
    }

    /// Takes an event in.
    pub(crate) fn apply(&mut self, event: &Value) {
        let at_ms = event["at_ms"].as_i64().unwrap_or(0);
        let Some(host) = self.hosts.iter_mut().find(|host| event["host"] == host.name.as_str()) else { return };
        match event["kind"].as_str().unwrap_or_default() {
            "state" => {
                host.state = event["state"].as_str().unwrap_or_default().to_owned();
                if is_end(&host.state) {
                    host.step.clear();
                }
                host.since_ms = at_ms;
            }
            "step_started" => {
                host.step = event["step"].as_str().unwrap_or_default().to_owned();
                host.since_ms = at_ms;
            }
            _ => {}
        }
    }

    /// Rows (host, state, step, time in it) and a line that sums up.
    pub(crate) fn rows(&self, now_ms: i64) -> (Vec<[String; 4]>, String) {
        let rank = |host: &Host| match host.state.as_str() {
            "pending" => 1,
            state if is_end(state) => 2,
            _ => 0,
        };
        let mut order: Vec<&Host> = self.hosts.iter().collect();
        order.sort_by_key(|host| rank(host));
        let shown = order.iter().take(ROWS).map(|host| {
            let running = rank(host) == 0 && host.since_ms > 0;
            let time = if running { format!("{} s", (now_ms - host.since_ms).max(0) / 1_000) } else { String::new() };
            [host.name.clone(), host.state.clone(), host.step.clone(), time]
        });
        let rows: Vec<_> = shown.collect();
        let done = self.hosts.iter().filter(|host| is_end(&host.state)).count();
        let good = self.hosts.iter().filter(|host| host.state == "succeeded").count();
        let more = self.hosts.len().saturating_sub(ROWS);
        let more = if more > 0 { format!(", {more} hosts not shown") } else { String::new() };
        (rows, format!("{done} of {} done, {good} succeeded{more}", self.hosts.len()))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct View {
    progress: Progress,
    drawn: usize,
}

impl View {
    pub(crate) const fn new(progress: Progress) -> Self {
        Self { progress, drawn: 0 }
    }

    /// Takes an event in; `say` prints what is to scroll by.
    pub(crate) fn event(
        &mut self,
        out: &mut Out,
        event: &Value,
        now_ms: i64,
        say: impl FnOnce(&mut Out) -> io::Result<()>,
    ) -> io::Result<()> {
        self.progress.apply(event);
        self.clear(out)?;
        say(out)?;
        self.draw(out, now_ms)
    }

    /// Draws it anew, for the running times.
    pub(crate) fn tick(&mut self, out: &mut Out, now_ms: i64) -> io::Result<()> {
        self.clear(out)?;
        self.draw(out, now_ms)
    }

    /// Takes it off the screen.
    pub(crate) fn clear(&mut self, out: &mut Out) -> io::Result<()> {
        let lines = std::mem::take(&mut self.drawn);
        if lines > 0 { out.raw(&format!("\u{1b}[{lines}A\u{1b}[J")) } else { Ok(()) }
    }

    fn draw(&mut self, out: &mut Out, now_ms: i64) -> io::Result<()> {
        if !out.is_live() {
            return Ok(());
        }
        let (rows, sum) = self.progress.rows(now_ms);
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|[host, state, step, time]| vec![format!("  {host}"), out.state(&state), step, time]).collect();
        self.drawn = out.block(&rows)?;
        out.line(&format!("  {sum}"))?;
        self.drawn += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn running_hosts_come_first_and_everything_is_counted() {
        let host = |name: &str| json!({"name": name, "state": "pending"});
        let mut progress = Progress::new(&json!({"hosts": [host("a"), host("b"), host("c")]}));
        for event in [
            json!({"host": "a", "kind": "state", "state": "succeeded", "at_ms": 1}),
            json!({"host": "c", "kind": "state", "state": "switching", "at_ms": 1_000}),
            json!({"host": "c", "kind": "step_started", "step": "start", "at_ms": 2_000}),
            json!({"host": "nobody", "kind": "state", "state": "failed", "at_ms": 2_000}),
        ] {
            progress.apply(&event);
        }
        let (rows, sum) = progress.rows(9_500);
        let rows: Vec<String> = rows.iter().map(|row| row.join("|")).collect();
        assert_eq!(rows, ["c|switching|start|7 s", "b|pending||", "a|succeeded||"]);
        assert_eq!(sum, "1 of 3 done, 1 succeeded");
    }

    #[test]
    fn a_large_fleet_is_cut_short_and_that_is_said() {
        let hosts: Vec<Value> = (0..40).map(|at| json!({"name": format!("h{at}"), "state": "pending"})).collect();
        let (rows, sum) = Progress::new(&json!({"hosts": hosts})).rows(0);
        assert_eq!((rows.len(), sum.as_str()), (12, "0 of 40 done, 0 succeeded, 28 hosts not shown"));
    }
}
