//! What the tools for a stopped server's directory tell.

use super::*;
use crate::store::inspect::{stats, verify};

fn filled(dir: &Path) -> u64 {
    let (engine, _) = open(dir);
    let samples = [minutes("a", DAY0, 300), minutes("b", DAY0, 60)].concat();
    engine.append_at(DAY0 + 6 * HOUR, vec![batch("x", 1, samples)]).unwrap();
    engine.seal(DAY0 + 4 * HOUR).unwrap();
    360
}

#[test]
fn a_sound_store_is_told_sound_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let mut files = Vec::new();
    let verdict = verify(dir.path(), |file| files.push(file.file_name().unwrap().to_owned())).unwrap();
    assert_eq!((verdict.damage.len(), verdict.files, verdict.chunks, verdict.frames), (0, 2, 2, 1), "{verdict:?}");
    assert_eq!(files, ["head.db", "2026-11-23.db"]);
    let days = stats(dir.path(), 2).unwrap();
    let day = &days[0];
    assert_eq!((days.len(), day.day.as_str(), day.series, day.samples), (2, "2026-11-23", 2, 180));
    let head = &days[1];
    assert_eq!((head.day.as_str(), head.series, head.samples, head.envs[""]), ("head", 1, 180, 1));
    assert_eq!((head.names[0].name.as_str(), head.names[0].values, head.pairs.len()), ("__name__", 1, 2));
    assert_eq!((day.names[0].name.as_str(), day.names[0].values, day.names[0].series), ("host", 2, 2));
    assert_eq!((day.pairs[0].value.as_str(), day.pairs[0].series, day.envs[""]), ("load", 2, 2));
    assert_eq!(all(&open(dir.path()).0).len(), 360);
}

#[test]
fn damage_is_told_and_left_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let (head, day) = (dir.path().join("head.db"), dir.path().join("2026-11-23.db"));
    let change = |path: &Path, sql: &str| rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
    change(&head, "UPDATE frames SET payload = x'0102'");
    change(&day, "UPDATE groups SET body = x'00' WHERE key = (SELECT max(key) FROM groups)");
    // A row of format 1 that tells one sample more than there are.
    let (ts, values) = ([DAY0 + 5 * HOUR, DAY0 + 5 * HOUR + 1], [1.0, 2.0]);
    let row = rusqlite::params![2, ts[0], ts[1], 3, chunk::encode(&ts, &values)];
    let connection = rusqlite::Connection::open(&day).unwrap();
    connection.execute("INSERT INTO chunks(key, t0, t1, n, body) VALUES (1 << 4 | ?1, ?2, ?3, ?4, ?5)", row).unwrap();
    drop(connection);
    for _ in 0..2 {
        let verdict = verify(dir.path(), |_| {}).unwrap();
        let told: Vec<String> = verdict.damage.iter().map(|damage| format!("{}: {}", damage.file, damage.reason)).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("head.db: frame 1: "), "{told:?}");
        assert!(told[1].ends_with("group of an unknown version") && told[2].contains("its row tells"), "{told:?}");
    }
    fs::write(&day, [7; 5_000]).unwrap();
    assert!(verify(dir.path(), |_| {}).unwrap().damage.iter().any(|damage| damage.reason.contains("not a database")));
    assert!(day.try_exists().unwrap());
}
