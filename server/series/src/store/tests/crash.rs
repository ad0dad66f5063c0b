//! A process that is killed at any moment, again and again: while it appends, seals, saves the head, and deletes what is kept
//! no longer.

use super::*;
use crate::config::{Keep, Retention};
use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

/// Samples in each append, half of them of an environment that is kept for a day only.
const SAMPLES: u64 = 6;

fn config() -> Config {
    let env = [("short".to_owned(), Keep::For(Duration::from_secs(86_400)))].into();
    Config { retention: Retention { age: Keep::Forever, env, ..Retention::default() }, ..Config::default() }
}

/// An hour passes with each sequence, so seals and retention always have work.
fn time_of(seq: u64) -> i64 {
    DAY0 + seq.cast_signed() * HOUR
}

fn sent(seq: u64) -> Append {
    let one = |at: u64| {
        let env = if at.is_multiple_of(2) { "long" } else { "short" };
        let labels = Labels::new([("__name__", "load".to_owned()), ("host", format!("{env}-{at}")), ("env", env.to_owned())]).unwrap();
        Sample { labels: Arc::new(labels), ts_ms: time_of(seq), value: (seq * 10 + at) as f64 }
    };
    batch("agent", seq, (0..SAMPLES).map(one).collect())
}

/// Works on the current directory until it is killed; tells each sequence that was acknowledged.
#[test]
#[ignore = "the process that is killed by another test"]
fn victim() {
    // Series lie in two groups, and each group is a transaction of the checkpoint.
    let hooks = Hooks { saved_at_once: Some(1), ..Hooks::default() };
    let (engine, _) = Engine::open_with(".".into(), config(), hooks).unwrap();
    // A sender that lost the answers begins a little before.
    let first = engine.mark("agent").unwrap_or(0).saturating_sub(3).max(1);
    for seq in first..first + 5_000 {
        engine.append_at(time_of(seq), vec![sent(seq)]).unwrap();
        println!("acknowledged {seq}");
        if seq.is_multiple_of(3) {
            engine.seal(time_of(seq)).unwrap();
        }
        if seq.is_multiple_of(2) {
            engine.save_head().unwrap();
        }
        if seq.is_multiple_of(5) {
            engine.retain(time_of(seq)).unwrap();
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    drop(Engine::open(dir.path(), config()).unwrap());
    super::checkpoint::begin_at_a_border(&dir.path().join("head.db"));
    let mut acknowledged = 0;
    for round in 1..=6u64 {
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

        let (engine, report) = Engine::open(dir.path(), config()).unwrap();
        assert!(report.is_clean(), "{report:?}");
        let stored = engine.mark("agent").unwrap();
        assert!(stored >= acknowledged && acknowledged > 0, "{stored} of {acknowledged}");
        engine.retain(time_of(stored)).unwrap();
        // What is kept for long is there once each, all of it and nothing else; of the rest, what is not a day old is there.
        let found = all(&engine);
        let sent: Vec<Sample> = (1..=stored).flat_map(|seq| sent(seq).samples.to_vec()).collect();
        let of = |samples: &Samples, env: &str| -> Samples {
            samples.iter().filter(|((host, _), _)| host.starts_with(env)).map(|(key, value)| (key.clone(), *value)).collect()
        };
        let model = model_of(&sent);
        assert_eq!(of(&found, "long"), of(&model, "long"));
        let (short, all_short) = (of(&found, "short"), of(&model, "short"));
        let young = |samples: &Samples| samples.iter().filter(|((_, ts), _)| *ts >= time_of(stored) - DAY_MS).count();
        assert!(short.iter().all(|(key, value)| all_short.get(key) == Some(value)));
        assert_eq!(young(&short), young(&all_short));
        assert!(short.keys().all(|(_, ts)| *ts >= time_of(stored) - 2 * DAY_MS), "what has expired is gone");
    }
    assert!(acknowledged > 100, "{acknowledged}");
}
