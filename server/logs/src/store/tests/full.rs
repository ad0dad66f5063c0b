//! A disk that is full: nothing acknowledged is lost or doubled, and work goes on when there is room.

use super::*;
use crate::{Age, Erase, EraseBy, Retention};
use std::collections::BTreeSet;

/// Text that does not compress.
fn noise(seed: u64, words: u64) -> String {
    (0..words).map(|at| format!("{:016x} ", (seed << 20 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

fn sent(seq: u64, words: u64) -> Append {
    let at = T + (seq as i64 % 3) * DAY + seq as i64 * NS;
    let lines = (0..4)
        .map(|n| line(at, seq * 10 + n, Severity::Info, &format!("line {seq}/{n} who:k1:{:04x}z {}", seq % 4, noise(seq * 8 + n, words))));
    append("lane", seq, "a", 1, if seq.is_multiple_of(2) { "shop" } else { "nginx" }, lines.collect())
}

/// Appends until the store is full. Returns what was acknowledged.
fn fill(engine: &Engine, first: u64, words: u64) -> u64 {
    for seq in first..first + 1_000_000 {
        match engine.append(vec![sent(seq, words)]) {
            Ok(outcomes) => assert_eq!(outcomes[0].lines, 4),
            Err(Error::Full { path }) => {
                assert!(path.contains("head.db"), "{path}");
                return seq - 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it is never full");
}

/// `seq/n` of every line, each once.
fn stored(engine: &Engine) -> BTreeSet<String> {
    let found = pages(engine, &Query::default(), Search { start_ns: 0, ..all(1000) });
    let names: Vec<String> = found.iter().map(|entry| entry.text.split(' ').nth(1).unwrap().to_owned()).collect();
    let unique: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(unique.len(), names.len(), "a line is there twice");
    unique
}

fn expected(seqs: impl Iterator<Item = u64>) -> BTreeSet<String> {
    seqs.flat_map(|seq| (0..4).map(move |n| format!("{seq}/{n}"))).collect()
}

fn limit(conn: &rusqlite::Connection, more: i64) -> crate::Result<()> {
    let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    conn.pragma_update(None, "max_page_count", pages + more).unwrap();
    Ok(())
}

/// Lines wait in the head until a seal is asked for.
fn patient() -> Config {
    Config { block_bytes: 8 << 20, ..config() }
}

#[test]
fn a_full_head_refuses_and_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = Engine::open(dir.path(), patient()).unwrap();
    engine.with_writer(|writer| limit(&writer.head.conn, 60)).unwrap();
    let last = fill(&engine, 1, 40);
    assert!(last > 3, "{last}");
    assert_eq!(stored(&engine), expected(1..=last));
    // Again and again: still refused whole, still nothing of it there.
    assert!(matches!(engine.append(vec![sent(last + 1, 40)]), Err(Error::Full { .. })));
    assert_eq!(stored(&engine), expected(1..=last));
    let image = crash_image(&dir);
    let after = open(&image).0;
    assert_eq!(stored(&after), expected(1..=last));
    // Sealing makes room, and what was refused is taken.
    assert_eq!(seal(&engine).lines, last * 4);
    assert_eq!(engine.append(vec![sent(last + 1, 40)]).unwrap()[0].lines, 4);
    assert_eq!(stored(&engine), expected(1..=last + 1));
}

#[test]
fn a_seal_without_room_leaves_the_lines_in_the_head() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = Engine::open(dir.path(), patient()).unwrap();
    for seq in 1..=30 {
        engine.append(vec![sent(seq, 200)]).unwrap();
    }
    engine.with_writer(|writer| limit(writer.day(Day::of(T + DAY))?, 8)).unwrap();
    let error = engine.seal(1).unwrap_err();
    assert!(matches!(&error, Error::Full { path } if path.contains("2023-11-15.db")), "{error}");
    assert!(error.to_string().contains("free disk space"), "{error}");
    assert_eq!(stored(&engine), expected(1..=30));
    // Lines still come in; the seal is not tried with each of them.
    engine.append(vec![sent(31, 200)]).unwrap();
    assert_eq!(stored(&open(&crash_image(&dir)).0), expected(1..=31));
    engine.with_writer(|writer| limit(writer.day(Day::of(T + DAY))?, 1 << 20)).unwrap();
    engine.seal(1).unwrap();
    assert_eq!(engine.stats().unwrap().head_lines, 0);
    assert_eq!(stored(&engine), expected(1..=31));
}

fn rules() -> Config {
    let retention =
        vec![Retention { selector: r#"{app="nginx"}"#.to_owned(), max_age: Age(Some(Duration::from_secs(86_400))), max_bytes: 0 }];
    Config { retention, ..patient() }
}

/// Takes all room that is left.
fn ballast() {
    use std::io::Write as _;
    let mut file = fs::File::create("ballast").unwrap();
    for size in [1 << 16, 1 << 10, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
    file.sync_all().unwrap();
}

/// Everything on a file system that is really full: the current directory, some 16 MiB. As root:
/// `mount -t tmpfs -o size=16m none DIR; cd DIR; TESTS --ignored --exact store::tests::full::on_a_small_disk`.
#[test]
#[ignore = "needs a small file system as the current directory"]
fn on_a_small_disk() {
    fs::write("reserve", vec![7; 1 << 19]).unwrap();
    let (engine, _) = Engine::open(Path::new("."), rules()).unwrap();
    let mut last = fill(&engine, 1, 40);
    println!("{last} appends were acknowledged");
    assert_eq!(stored(&engine), expected(1..=last));
    // No room for blocks beside the rows: the seal fails and changes nothing, also for the next start.
    let sealed = engine.seal(1);
    println!("sealing: {sealed:?}");
    assert!(matches!(sealed, Err(Error::Full { .. })));
    drop(engine);
    // A start may need room for SQLite's shared memory; then it says so.
    let opened = Engine::open(Path::new("."), rules()).map(|(engine, report)| (stored(&engine), report.damaged));
    println!("starting: {:?}", opened.as_ref().map(|(stored, damaged)| (stored.len(), damaged.len())));
    assert!(matches!(&opened, Ok((_, damaged)) if damaged.is_empty()) || matches!(opened, Err(Error::Full { .. })));
    fs::remove_file("reserve").unwrap();
    let (engine, report) = Engine::open(Path::new("."), rules()).unwrap();
    assert!(report.damaged.is_empty(), "{report:?}");
    assert_eq!(stored(&engine), expected(1..=last));
    // The rows of the head that are past their time are deleted in the journal, for which there is no room either.
    let retained = engine.retain((T + 4 * DAY) / 1_000_000, 90);
    println!("retention: {retained:?}");
    let young = |seq: &u64| seq.is_multiple_of(2);
    match retained {
        Ok(_) => assert_eq!(stored(&engine), expected((1..=last).filter(young))),
        Err(_) => assert_eq!(stored(&engine), expected(1..=last)),
    }
    drop(engine);

    // A new store, half full, with ballast for the rest.
    for entry in fs::read_dir(".").unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let (engine, _) = Engine::open(Path::new("."), rules()).unwrap();
    last = 300;
    for seq in 1..=last {
        engine.append(vec![sent(seq, 40)]).unwrap();
    }
    engine.seal(1).unwrap();
    ballast();
    let erase = Erase { by: EraseBy::Pseudonym("who:k1:0003z".to_owned()), start_ns: 0, end_ns: i64::MAX };
    let erased = engine.erase(&erase);
    println!("erasing: {erased:?}");
    let kept = |seq: &u64| seq % 4 != 3;
    let found = stored(&engine);
    assert!(found.is_superset(&expected((1..=last).filter(kept))));
    let retained = engine.retain((T + 3 * DAY) / 1_000_000, 90);
    println!("retention: {retained:?}");
    drop(engine);
    fs::remove_file("ballast").unwrap();

    let (engine, report) = Engine::open(Path::new("."), rules()).unwrap();
    assert!(report.damaged.is_empty(), "{report:?}");
    let done = engine.resume_erasures().unwrap();
    println!("resumed: {done:?}");
    assert_eq!(engine.unfinished_erasures().unwrap(), 0);
    engine.retain((T + 3 * DAY) / 1_000_000, 90).unwrap();
    // Of nginx (odd numbers) only the last day is young enough.
    let young = |seq: &u64| seq.is_multiple_of(2) || seq % 3 == 2;
    if erased.is_ok() || !done.is_empty() {
        assert_eq!(stored(&engine), expected((1..=last).filter(kept).filter(young)));
    } else {
        // The job could not even be noted: its caller was told, and nothing of it was done.
        assert_eq!(stored(&engine), expected((1..=last).filter(young)));
    }
}
