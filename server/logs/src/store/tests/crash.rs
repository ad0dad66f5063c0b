//! A process that is killed at any moment, again and again.

use super::*;
use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

/// Lines in each append.
const LINES: u64 = 3;

fn sent(seq: u64) -> Append {
    let lines = (0..LINES).map(|at| line(T + seq as i64 * 700 * NS, seq * 100 + at, Severity::Info, &format!("{seq}/{at} 支付"))).collect();
    append("lane", seq, "a", 1, "shop", lines)
}

/// Works on the current directory until it is killed; tells each sequence that was acknowledged.
#[test]
#[ignore = "the process that is killed by another test"]
fn victim() {
    let (engine, _) = Engine::open(Path::new("."), config()).unwrap();
    let first = find(&engine, "").entries.len() as u64 / LINES;
    // A sender that lost the answers begins a little before.
    for seq in first.saturating_sub(3).max(1)..first + 5_000 {
        engine.append(vec![sent(seq)]).unwrap();
        println!("acknowledged {seq}");
        if seq % 4 == 0 {
            engine.seal(1).unwrap();
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 1..=5u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "store::tests::crash::victim", "--nocapture"])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap()).lines().map_while(std::io::Result::ok);
        let number = |line: String| line.split_once("acknowledged ").and_then(|(_, seq)| seq.parse::<u64>().ok());
        for seq in told.by_ref().filter_map(number).take(5 + round as usize * 7) {
            acknowledged = seq;
        }
        child.kill().unwrap();
        acknowledged = told.filter_map(number).last().unwrap_or(acknowledged).max(acknowledged);
        child.wait().unwrap();

        let (engine, report) = open(&dir);
        assert!(report.damaged.is_empty(), "{report:?}");
        let search = Search { start_ns: 0, ..all(5000) };
        let found: Vec<String> = pages(&engine, &Query::default(), search).into_iter().map(|entry| entry.text).collect();
        let stored = found.len() as u64 / LINES;
        assert!(stored >= acknowledged && stored > 0, "{stored} of {acknowledged}");
        let expected: Vec<String> =
            (1..=stored).flat_map(|seq| sent(seq).batches[0].lines.iter().map(|line| line.text.clone()).collect::<Vec<_>>()).collect();
        assert_eq!(found, expected);
    }
}

/// Number of the line in the middle of each fifth append that is erased right after.
fn pseudonym(seq: u64) -> String {
    format!("who:k1:{seq:06x}z")
}

fn marked(seq: u64) -> Append {
    let mut append = sent(seq);
    if seq.is_multiple_of(5) {
        append.batches[0].lines[1].text = format!("{seq}/1 {}", pseudonym(seq));
    }
    append
}

fn erase(seq: u64) -> crate::Erase {
    crate::Erase { by: crate::EraseBy::Pseudonym(pseudonym(seq)), start_ns: 0, end_ns: i64::MAX }
}

/// Newest sequence in the store.
fn newest(engine: &Engine) -> u64 {
    let search = Search { start_ns: 0, direction: Direction::Backward, ..all(1) };
    let page = engine.search(&Query::default(), &search).unwrap();
    page.entries.first().map_or(0, |entry| entry.text.split('/').next().unwrap().parse().unwrap())
}

/// As the other victim; also erases, and keeps the last day only, block by block.
fn keeping() -> Config {
    let rule = |selector: &str| crate::Retention {
        selector: selector.to_owned(),
        max_age: crate::Age(Some(Duration::from_secs(86_400))),
        max_bytes: 0,
    };
    Config { retention: vec![rule(r#"{app="shop"}"#)], ..config() }
}

#[test]
#[ignore = "the process that is killed by another test"]
fn victim_of_deletion() {
    let (engine, _) = Engine::open(Path::new("."), keeping()).unwrap();
    engine.resume_erasures().unwrap();
    let first = newest(&engine);
    for seq in first.saturating_sub(3).max(1)..first + 5_000 {
        engine.append(vec![marked(seq)]).unwrap();
        println!("acknowledged {seq}");
        if seq.is_multiple_of(3) {
            engine.seal(1).unwrap();
        }
        if seq.is_multiple_of(5) {
            println!("erasing {seq}");
            assert!(engine.erase(&erase(seq)).unwrap().proof.is_clean());
            println!("erased {seq}");
        }
        if seq.is_multiple_of(7) {
            println!("retaining {seq}");
            engine.retain((T + seq as i64 * 700 * NS) / 1_000_000, 90).unwrap();
        }
    }
}

#[test]
fn what_is_deleted_stays_deleted_and_nothing_else_goes_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut erased, mut retaining) = (0, Vec::new(), 0);
    for round in 1..=6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "store::tests::crash::victim_of_deletion", "--nocapture"])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(std::io::Result::ok);
        let mut told = |line: String| {
            let number = |word: &str| line.split_once(word).and_then(|(_, seq)| seq.parse::<u64>().ok());
            acknowledged = number("acknowledged ").unwrap_or(acknowledged).max(acknowledged);
            erased.extend(number("erased "));
            retaining = number("retaining ").unwrap_or(retaining).max(retaining);
        };
        lines.by_ref().take(60 + round as usize * 23).for_each(&mut told);
        child.kill().unwrap();
        lines.for_each(&mut told);
        child.wait().unwrap();

        let (engine, report) = Engine::open(dir.path(), keeping()).unwrap();
        assert!(report.damaged.is_empty(), "{report:?}");
        engine.resume_erasures().unwrap();
        let found: Vec<String> =
            pages(&engine, &Query::default(), Search { start_ns: 0, ..all(5000) }).into_iter().map(|entry| entry.text).collect();
        let unique: std::collections::BTreeSet<&String> = found.iter().collect();
        assert_eq!(unique.len(), found.len(), "a line is there twice");
        let stored = newest(&engine);
        assert!(stored >= acknowledged && stored > 0, "{stored} of {acknowledged}");
        // Older than a day at the last retention that was begun: may be gone. The others are there, but for what was erased.
        let young = retaining.saturating_sub(DAY as u64 / (700 * NS as u64));
        for seq in young.max(1)..=stored {
            for line in &marked(seq).batches[0].lines {
                let may_be_erased = line.text.contains("who:k1:");
                assert!(may_be_erased || unique.contains(&line.text), "{} of {stored} is lost", line.text);
            }
        }
        for seq in &erased {
            assert!(!found.iter().any(|text| text.contains(&pseudonym(*seq))), "{seq} is back");
        }
    }
    assert!(erased.len() > 5 && retaining > 0, "{} {retaining}", erased.len());
}
