//! The journal of systemd, through `journalctl`: no library of systemd is linked, and its file format is its own affair.
//!
//! - [`export`]: what `journalctl --output=export` writes
//!
//! # Invariants
//! - The cursor of an entry and its line are one record of the sink; `journalctl` is started behind the last one. It is asked for
//!   the entry at the cursor as well: if another one comes, entries were removed before they were read, which is said and counted.
//! - At a first start from the end, the place where the journal ended is remembered before anything is read.
//! - While the sink is full nothing is read, and `journalctl` waits. It ends with the agent, and is started again if it ends before.
//!
//! Leaves out: fields that are neither text, time, severity, unit nor identifier. What is removed from the journal before it was
//! read is told, but not how much it was.

mod export;

use super::{
    lines::Told,
    stream::{Feed, Item, Stopped, lock, longest},
    streams::keep,
};
use export::{Entry, Reader};
use serde::{Deserialize, Serialize};
use shipwatch_common::{config::Problems, model::Severity};
use std::{ffi::OsString, io, path::Path, process::Stdio, sync::atomic::Ordering};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
};
use tracing::warn;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes of complaints of `journalctl` that are kept.
const COMPLAINT_BYTES: u64 = 1024;
/// Words that `journalctl --priority` takes.
const PRIORITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Which entries of the journal are read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Only these units, such as `nginx.service` or `shop-*.service`; empty takes all.
    pub units: Vec<String>,
    /// Only these identifiers, such as `sudo`; empty takes all.
    pub identifiers: Vec<String>,
    /// Only entries at least as bad: emerg, alert, crit, err, warning, notice, info, debug. Empty takes all.
    pub priority: String,
    /// Directory of journal files; empty is the host's own journal.
    pub directory: String,
}

impl Config {
    pub(super) fn check(&self, problems: &mut Problems, at: &str) {
        for (key, names) in [("units", &self.units), ("identifiers", &self.identifiers)] {
            if names.iter().any(|name| name.is_empty() || name.starts_with('-')) {
                problems.add(&format!("{at}{key}"), "must be names, such as \"nginx.service\"");
            }
        }
        if !self.priority.is_empty() && !PRIORITIES.contains(&self.priority.as_str()) {
            problems.add(&format!("{at}priority"), format!("must be one of {}, not {:?}", PRIORITIES.join(", "), self.priority));
        }
        if !self.directory.is_empty() && !Path::new(&self.directory).is_absolute() {
            problems.add(&format!("{at}directory"), format!("must be an absolute path, not {:?}", self.directory));
        }
    }

    /// Arguments of `journalctl`.
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec!["--output=export".to_owned(), "--all".to_owned(), "--quiet".to_owned(), "--no-pager".to_owned()];
        arguments.push(format!("--output-fields={}", export::FIELDS.join(",")));
        arguments.extend(self.units.iter().map(|unit| format!("--unit={unit}")));
        arguments.extend(self.identifiers.iter().map(|identifier| format!("--identifier={identifier}")));
        if !self.priority.is_empty() {
            arguments.push(format!("--priority={}", self.priority));
        }
        if !self.directory.is_empty() {
            arguments.push(format!("--directory={}", self.directory));
        }
        arguments.into_iter().map(OsString::from).collect()
    }
}

/// Reads until the agent stops.
pub(super) async fn run(config: Config, feed: Feed, at_end: bool) {
    keep("journal", &feed, || session(&config, &feed, at_end)).await;
}

fn spawn(config: &Config, more: &[String]) -> Result<Child, String> {
    let mut command = Command::new("journalctl");
    command.args(config.arguments()).args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            "journalctl is not there: install systemd (apt-get install systemd), or take the journal out of tail.sources".to_owned()
        }
        _ => format!("journalctl: {error}"),
    })
}

/// One life of `journalctl`.
async fn session(config: &Config, feed: &Feed, at_end: bool) -> Result<Stopped, String> {
    let mut cursor = lock(&feed.stream).cursor().to_owned();
    if cursor.is_empty() && at_end {
        cursor = match last_cursor(config, feed).await? {
            Some(cursor) => cursor,
            None => return Ok(Stopped),
        };
        if !cursor.is_empty() && feed.deliver(&[Item { cursor: cursor.clone(), is_empty: true, ..Item::default() }]).await.is_err() {
            return Ok(Stopped);
        }
    }
    let mut more = vec!["--follow".to_owned(), "--no-tail".to_owned()];
    if !cursor.is_empty() {
        more.push(format!("--cursor={cursor}"));
    }
    let mut child = spawn(config, &more)?;
    let outcome = follow(&mut child, feed, &cursor).await;
    // Ended or not, it is waited for: no child outlives its source.
    let _ended_already = child.start_kill();
    let status = child.wait().await.map_err(|error| format!("journalctl: {error}"))?;
    match outcome {
        Ok(stopped) => Ok(stopped),
        Err(error) => Err(format!("journalctl ended ({status}): {error}{}", complaints(&mut child).await)),
    }
}

/// What it wrote to standard error.
async fn complaints(child: &mut Child) -> String {
    let mut told = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _what_there_is = stderr.take(COMPLAINT_BYTES).read_to_end(&mut told).await;
    }
    String::from_utf8_lossy(&told).trim().replace('\n', "; ")
}

/// The cursor of the last entry; empty if there is none, `None` if the agent stops.
async fn last_cursor(config: &Config, feed: &Feed) -> Result<Option<String>, String> {
    let mut child = spawn(config, &["--lines=1".to_owned()])?;
    let mut reader = Reader::new(longest(&feed.source));
    let mut last = String::new();
    let mut stdout = child.stdout.take().ok_or("journalctl has no output")?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = tokio::select! {
            read = stdout.read(&mut buffer) => read.map_err(|error| format!("journalctl: {error}"))?,
            () = feed.stop.cancelled() => return Ok(None),
        };
        if read == 0 {
            break;
        }
        if let Some(entry) = reader.push(&buffer[..read]).pop() {
            last = entry.cursor;
        }
    }
    let status = child.wait().await.map_err(|error| format!("journalctl: {error}"))?;
    // Without any entry it ends with 1 and says nothing.
    let told = complaints(&mut child).await;
    if status.success() || told.is_empty() { Ok(Some(last)) } else { Err(format!("journalctl ended ({status}): {told}")) }
}

/// Reads entries until the output ends (which is an error) or the agent stops. The entry at `cursor` was read before.
async fn follow(child: &mut Child, feed: &Feed, cursor: &str) -> Result<Stopped, String> {
    let mut stdout = child.stdout.take().ok_or("it has no output")?;
    let mut reader = Reader::new(longest(&feed.source));
    let mut buffer = vec![0; READ_BYTES];
    let mut expected = Some(cursor).filter(|cursor| !cursor.is_empty());
    loop {
        let read = tokio::select! {
            read = stdout.read(&mut buffer) => read.map_err(|error| error.to_string())?,
            () = feed.stop.cancelled() => return Ok(Stopped),
        };
        if read == 0 {
            return Err(String::new());
        }
        feed.set_failing(false);
        let mut entries = reader.push(&buffer[..read]);
        if let (Some(cursor), Some(first)) = (expected, entries.first()) {
            expected = None;
            if first.cursor == cursor {
                entries.remove(0);
            } else {
                feed.counters.journal_gaps_total.fetch_add(1, Ordering::Relaxed);
                warn!(
                    "the journal's entry that was read last is gone: entries behind it may have been removed before they were read \
                     (or other units are configured now); reading goes on with the next one that is there"
                );
            }
        }
        let items: Vec<Item> = entries.into_iter().map(|entry| item(entry, feed)).collect();
        if feed.deliver(&items).await.is_err() {
            return Ok(Stopped);
        }
    }
}

fn item(entry: Entry, feed: &Feed) -> Item {
    let text = feed.source.encoding.text(&entry.message).into_owned();
    let labels = [("unit", entry.unit()), ("identifier", entry.identifier())];
    Item {
        is_empty: entry.message.is_empty(),
        told: Told { ts_ns: entry.ts_ns(), severity: severity(&entry.priority) },
        labels: labels.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        cut: entry.cut,
        cursor: entry.cursor,
        text,
    }
}

/// Syslog's numbers.
fn severity(priority: &[u8]) -> Severity {
    match priority {
        b"0" | b"1" | b"2" => Severity::Fatal,
        b"3" => Severity::Error,
        b"4" => Severity::Warn,
        b"5" | b"6" => Severity::Info,
        b"7" => Severity::Debug,
        _ => Severity::Unknown,
    }
}
