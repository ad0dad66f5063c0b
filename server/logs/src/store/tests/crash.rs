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
