//! The journal, in real journal files.

use super::*;
use crate::tail::journal::Config as Journal;
use shipwatch_common::model::Severity;

fn source(dir: &Path) -> Source {
    Source { journal: Some(Journal { directory: dir.join("journal").display().to_string(), ..Journal::default() }), ..Source::default() }
}

fn running() -> Running {
    let running = Running::new(source);
    fs::create_dir(running.dir.path().join("journal")).unwrap();
    running
}

/// An entry in the export format. Numbers are seconds, and must grow.
fn entry(at: u64, fields: &[(&str, &[u8])]) -> Vec<u8> {
    let us = 1_790_000_000_000_000 + at * 1_000_000;
    let mut bytes =
        format!("__REALTIME_TIMESTAMP={us}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={}\n", at * 1_000_000, "a1".repeat(16)).into_bytes();
    for (name, value) in fields {
        bytes.extend(name.bytes());
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes.push(b'\n');
    bytes
}

fn message(at: u64, text: &str) -> Vec<u8> {
    entry(at, &[("MESSAGE", text.as_bytes()), ("PRIORITY", b"6"), ("_SYSTEMD_UNIT", b"shop.service"), ("SYSLOG_IDENTIFIER", b"shop")])
}

impl Running {
    /// Appends entries to a journal file.
    async fn journal(&self, file: &str, entries: &[Vec<u8>]) {
        let output = format!("--output={}", self.dir.path().join("journal").join(file).display());
        ran("/lib/systemd/systemd-journal-remote", &[&output, "-"], &entries.concat()).await;
    }

    /// Processes of `journalctl` that read this journal.
    fn readers(&self) -> Vec<i32> {
        let wanted = self.dir.path().display().to_string();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        let reads = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.starts_with("journalctl") && line.contains(&wanted)
        };
        processes.filter(reads).collect()
    }
}

#[tokio::test]
async fn entries_come_once_with_what_is_known_of_them_also_over_restarts() {
    let mut running = running();
    let manager: &[(&str, &[u8])] =
        &[("MESSAGE", b"Started it."), ("PRIORITY", b"6"), ("_SYSTEMD_UNIT", b"init.scope"), ("UNIT", b"shop.service")];
    let binary: &[(&str, &[u8])] = &[("MESSAGE", b"two\nlines \x01 of buyer.wang@example.com"), ("PRIORITY", b"3"), ("_COMM", b"cron")];
    running.journal("a.journal", &[message(1, "ERROR by its text"), entry(2, manager), entry(3, binary)]).await;
    running.start();
    running.has(3).await;
    let lines = running.lines();
    assert_eq!((lines[0].severity, lines[0].ts_ns), (Severity::Error, 1_790_000_001 * SECOND));
    assert_eq!((lines[1].severity, lines[2].severity), (Severity::Info, Severity::Error));
    assert!(lines[2].text.starts_with("two\nlines \u{1} of ") && !lines[2].text.contains("wang"), "{}", lines[2].text);
    assert_eq!(running.label("Started it.", "unit").as_deref(), Some("shop.service"));
    assert_eq!(running.label("ERROR by its text", "identifier").as_deref(), Some("shop"));
    assert_eq!(running.label(&lines[2].text, "identifier").as_deref(), Some("cron"));
    // Followed, stopped, gone on: nothing twice.
    running.journal("a.journal", &[message(4, "followed")]).await;
    running.has(4).await;
    running.stop().await;
    assert_eq!(running.readers(), Vec::<i32>::new(), "it ends with its source");
    running.journal("a.journal", &[message(5, "meanwhile")]).await;
    running.start();
    running.has(5).await;
    running.stop().await;
    running.start();
    running.journal("a.journal", &[message(6, "last")]).await;
    running.has(6).await;
    assert_eq!(running.texts()[3..], ["followed", "meanwhile", "last"]);
    let offsets: Vec<u64> = running.lines().iter().map(|line| line.end_offset).collect();
    assert_eq!(offsets, [1, 2, 3, 4, 5, 6]);
    assert_eq!(running.count(|c| &c.journal_gaps_total), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_first_start_begins_at_the_end_and_remembers_where_that_was() {
    let mut running = running();
    running.config.start_at = "end".into();
    running.journal("a.journal", &[message(1, "old")]).await;
    running.start();
    let is_noted = || running.sink.lock().unwrap().streams.values().any(|stream| !stream.cursor.is_empty());
    until(is_noted, || "the place".to_owned()).await;
    running.stop().await;
    running.journal("a.journal", &[message(2, "new")]).await;
    running.start();
    running.has(1).await;
    assert_eq!(running.texts(), ["new"]);
    running.stop().await;
}

#[tokio::test]
async fn entries_that_were_removed_unread_are_told_and_reading_goes_on() {
    let mut running = running();
    running.journal("a.journal", &[message(1, "read")]).await;
    running.start();
    running.has(1).await;
    running.stop().await;
    running.journal("a.journal", &[message(2, "never read")]).await;
    fs::remove_file(running.dir.path().join("journal/a.journal")).unwrap();
    running.journal("b.journal", &[message(3, "after"), message(4, "wards")]).await;
    running.start();
    running.has(3).await;
    assert_eq!(running.texts(), ["read", "after", "wards"], "the first that is there is not skipped");
    assert_eq!(running.count(|c| &c.journal_gaps_total), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_reader_that_dies_is_started_again_behind_the_last_entry() {
    let mut running = running();
    running.journal("a.journal", &[message(1, "one")]).await;
    running.start();
    running.has(1).await;
    for (at, text) in [(2, "two"), (3, "three")] {
        until(|| running.readers().len() == 1, || "its reader".to_owned()).await;
        let reader = rustix::process::Pid::from_raw(running.readers()[0]).unwrap();
        rustix::process::kill_process(reader, rustix::process::Signal::KILL).unwrap();
        running.journal("a.journal", &[message(at, text)]).await;
        running.has(usize::try_from(at).unwrap()).await;
    }
    assert_eq!(running.texts(), ["one", "two", "three"]);
    until(|| running.count(|c| &c.failing_streams) == 0, || "it to work again".to_owned()).await;
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_lost_while_the_sink_is_full_and_messages_are_bounded() {
    let mut running = running();
    running.config.max_line_bytes = 1000;
    let mut entries: Vec<Vec<u8>> = (1..=1500).map(|at| message(at, &format!("{at} {}", "x".repeat(200)))).collect();
    entries.push(message(1501, &"支".repeat(500_000)));
    running.journal("a.journal", &entries).await;
    running.set_full(true);
    running.start();
    until(|| running.count(|c| &c.blocked_streams) == 1, || "it to wait".to_owned()).await;
    assert_eq!(running.lines().len(), 0);
    running.set_full(false);
    running.has(1501).await;
    let lines = running.lines();
    assert!(lines[..1500].iter().enumerate().all(|(at, line)| line.text.starts_with(&format!("{} x", at + 1)) && !line.truncated));
    assert!(lines[1500].truncated && lines[1500].text == "支".repeat(333), "{}", lines[1500].text.len());
    running.stop().await;
}

#[tokio::test]
async fn only_what_is_asked_for_is_read_and_limits_are_counted() {
    let mut running = Running::new(|dir| {
        let journal = Journal {
            units: vec!["shop*.service".into()],
            priority: "warning".into(),
            directory: dir.join("journal").display().to_string(),
            ..Journal::default()
        };
        Source { journal: Some(journal), max_lines_per_second: 1, burst_lines: 2, ..Source::default() }
    });
    fs::create_dir(running.dir.path().join("journal")).unwrap();
    let of = |at, unit: &'static [u8], priority: &'static [u8]| {
        entry(at, &[("MESSAGE", format!("{at}").as_bytes()), ("PRIORITY", priority), ("_SYSTEMD_UNIT", unit)])
    };
    let mut entries = vec![of(1, b"shop-a.service", b"4"), of(2, b"shop-a.service", b"6"), of(3, b"other.service", b"3")];
    entries.extend((4..8).map(|at| of(at, b"shop-b.service", b"3")));
    running.journal("a.journal", &entries).await;
    running.start();
    until(|| running.count(|c| &c.limited_total) == 3, || "the limit".to_owned()).await;
    assert_eq!(running.texts(), ["1", "4"]);
    running.stop().await;
}
