//! Files that are damaged, left over, foreign, or of another version.

use super::*;
use rusqlite::Connection;

fn db(dir: &TempDir, name: &str) -> Connection {
    Connection::open(dir.path().join(name)).unwrap()
}

fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    let mut content = fs::read(path).unwrap();
    content[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(path, content).unwrap();
}

fn two_days(dir: &TempDir) -> Engine {
    let (engine, _) = open(dir);
    store(&engine, 1, "shop", &["one", "two"]);
    engine.append(vec![append("lane", 7, "a", 2, "shop", vec![line(T + DAY, 10, Severity::Info, "next day")])]).unwrap();
    engine
}

#[test]
fn a_damaged_day_is_moved_aside_and_the_start_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let engine = two_days(&dir);
    seal(&engine);
    drop(engine);
    overwrite(&dir.path().join("2023-11-14.db"), 0, &[0xee; 4096]);
    fs::write(dir.path().join("2023-11-14.db.corrupt-1"), "from before").unwrap();
    let (engine, report) = open(&dir);
    assert_eq!((report.days, report.damaged.len()), (1, 1), "{report:?}");
    assert!(report.damaged[0].moved_to.ends_with("2023-11-14.db.corrupt-2"), "{report:?}");
    assert_eq!(texts(&find(&engine, "")), ["next day"]);
    assert_eq!(engine.stats().unwrap().damaged, report.damaged);
    // The day goes on in a new file.
    store(&engine, 5, "shop", &["three"]);
    assert_eq!(seal(&engine).lines, 1);
    assert_eq!(texts(&find(&engine, "")), ["three", "next day"]);
}

#[test]
fn a_day_that_is_damaged_while_running_is_moved_aside_by_the_next_seal() {
    let dir = tempfile::tempdir().unwrap();
    let engine = two_days(&dir);
    seal(&engine);
    drop(engine);
    let (engine, _) = open(&dir);
    overwrite(&dir.path().join("2023-11-14.db"), 0, &[0xee; 4096]);
    store(&engine, 5, "shop", &["three"]);
    let page = find(&engine, "");
    assert_eq!(texts(&page), ["three", "next day"]);
    assert!(page.stats.damage[0].contains("2023-11-14.db"), "{:?}", page.stats);
    assert_eq!(seal(&engine).lines, 1);
    assert!(find(&engine, "").stats.damage.is_empty());
    assert_eq!(engine.stats().unwrap().damaged.len(), 1);
}

#[test]
fn a_damaged_block_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let engine = two_days(&dir);
    seal(&engine);
    drop(engine);
    for column in ["cols", "body"] {
        db(&dir, "2023-11-14.db").execute(&format!("UPDATE bodies SET {column} = CAST(substr({column}, 1, 11) AS BLOB)"), []).unwrap();
        let (engine, report) = open(&dir);
        assert!(report.damaged.is_empty());
        let page = find(&engine, "");
        assert_eq!(texts(&page), ["next day"]);
        assert_eq!((page.stats.lost_blocks, page.stats.lost_lines), (1, 2));
        assert!(page.stats.damage[0].contains("2023-11-14.db: damaged: block 1: checksum"), "{:?}", page.stats);
    }
}

#[test]
fn a_damaged_filter_of_words_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = two_days(&dir);
    seal(&engine);
    drop(engine);
    db(&dir, "2023-11-14.db").execute("UPDATE blooms SET bits = zeroblob(40)", []).unwrap();
    db(&dir, "2023-11-15.db").execute("DELETE FROM blooms", []).unwrap();
    let (engine, _) = open(&dir);
    let page = find(&engine, r#"{app="shop"} |~ `\btwo\b`"#);
    assert_eq!((texts(&page), page.stats.damaged_filters), (vec!["two"], 2));
}

#[test]
fn a_damaged_batch_in_the_head_is_skipped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    drop(two_days(&dir));
    db(&dir, "head.db").execute("UPDATE batches SET body = zeroblob(20) WHERE id = 1", []).unwrap();
    let (engine, _) = open(&dir);
    let page = find(&engine, "");
    assert_eq!((texts(&page), page.stats.lost_lines), (vec!["next day"], 2));
    assert_eq!(seal(&engine), Sealed { streams: 2, blocks: 1, lines: 1, lost_lines: 2 });
    assert_eq!(engine.stats().unwrap().lost_lines, 2);
    assert_eq!(texts(&find(&engine, "")), ["next day"]);
}

#[test]
fn a_damaged_head_gives_what_is_sound_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let engine = two_days(&dir);
    store(&engine, 3, "other", &["three", "four"]);
    drop(engine);
    let head = db(&dir, "head.db");
    head.execute("UPDATE batches SET cols = zeroblob(20) WHERE id = 1", []).unwrap();
    let (page, size): (i64, i64) = head
        .query_row("SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema WHERE name = 'marks'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    drop(head);
    overwrite(&dir.path().join("head.db"), ((page - 1) * size) as usize, &[0xee; 512]);
    let (engine, report) = open(&dir);
    let damage = &report.damaged[0];
    assert!(damage.moved_to.ends_with("head.db.corrupt-1"), "{damage:?}");
    assert_eq!((damage.saved_lines, damage.lost_lines, report.head_lines), (3, Some(2), 3));
    assert_eq!(texts(&find(&engine, "")), ["three", "four", "next day"]);
    // The lanes are forgotten, the positions of what was saved are not.
    let again = append("lane", 7, "a", 2, "shop", vec![line(T + DAY, 10, Severity::Info, "next day")]);
    assert_eq!(engine.append(vec![again]).unwrap(), [Outcome { duplicate_lines: 1, ..Outcome::default() }]);
}

#[test]
fn a_lost_head_never_gives_a_number_twice() {
    let dir = tempfile::tempdir().unwrap();
    let engine = two_days(&dir);
    seal(&engine);
    drop(engine);
    overwrite(&dir.path().join("head.db"), 0, &[0xee; 4096]);
    let (engine, report) = open(&dir);
    assert_eq!((report.damaged.len(), report.damaged[0].lost_lines), (1, None));
    // A number at or below the mark would make this line invisible.
    store(&engine, 9, "shop", &["after"]);
    assert_eq!(texts(&find(&engine, "")), ["one", "after", "two", "next day"]);
    drop(engine);
    assert_eq!(texts(&find(&open(&dir).0, "")), ["one", "after", "two", "next day"]);
}

#[test]
fn leftovers_of_a_cut_off_retention_are_deleted() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["2020-01-01.db-wal", "2020-01-01.db-shm", "2020-01-02.db"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let (engine, report) = open(&dir);
    // The empty file of a day that a full disk left goes too.
    assert_eq!((report.days, report.damaged.len()), (0, 0));
    for name in ["2020-01-01.db-wal", "2020-01-02.db"] {
        assert!(!dir.path().join(name).try_exists().unwrap(), "{name}");
    }
    assert!(find(&engine, "").entries.is_empty());
}

#[test]
fn a_directory_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(&dir).0;
    assert!(matches!(Engine::open(dir.path(), config()), Err(Error::Locked { .. })));
    drop(engine);
    open(&dir);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    for name in ["head.db", "2023-11-14.db"] {
        let dir = tempfile::tempdir().unwrap();
        let engine = two_days(&dir);
        seal(&engine);
        drop(engine);
        db(&dir, name).pragma_update(None, "user_version", 99).unwrap();
        let error = Engine::open(dir.path(), config()).err().unwrap();
        assert!(matches!(&error, Error::NewerFormat { found: 99, .. }), "{error}");
        assert!(dir.path().join(name).try_exists().unwrap());
    }
}

/// Files written by version 1 stay readable for ever. A new version gets a new directory; this one stays.
#[test]
fn the_first_version_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v1");
    for name in ["head.db", "2023-11-14.db"] {
        fs::copy(fixture.join(name), dir.path().join(name)).unwrap();
    }
    let (engine, report) = open(&dir);
    assert_eq!(report, OpenReport { days: 1, head_lines: 1, ..OpenReport::default() });
    let page = find(&engine, r#"{app="shop"}"#);
    assert_eq!(texts(&page), ["GET /cart id-17-x 200", "in the head", "订单支付失败"]);
    assert_eq!(page.entries[2].id.to_string(), format!("{}.1.1", T + 2 * NS));
    assert_eq!(find(&engine, "支付").stats.blocks_denied, 0);
    assert_eq!(find(&engine, "退款").stats.blocks_denied, 1);
    let again = append("lane", 3, "a", 1, "shop", vec![line(T, 10, Severity::Info, "x")]);
    assert!(engine.append(vec![again]).unwrap()[0].duplicate);
    let again = append("new", 1, "a", 1, "shop", vec![line(T, 20, Severity::Info, "x"), line(T + 9 * NS, 30, Severity::Info, "after")]);
    assert_eq!(engine.append(vec![again]).unwrap()[0].duplicate_lines, 1);
    assert_eq!(seal(&engine).lines, 2);
    assert_eq!(find(&engine, "").entries.len(), 4);
}

#[test]
#[ignore = "writes the files of the current version, for a new directory of fixtures"]
fn write_fixture() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(&dir);
    let lines = vec![line(T + NS, 10, Severity::Info, "GET /cart id-17-x 200"), line(T + 2 * NS, 20, Severity::Error, "订单支付失败")];
    engine.append(vec![append("lane", 3, "a", 1, "shop", lines)]).unwrap();
    seal(&engine);
    engine.append(vec![append("", 0, "a", 2, "shop", vec![line(T + NS, 10, Severity::Warn, "in the head")])]).unwrap();
    drop(engine);
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/new");
    fs::create_dir_all(&target).unwrap();
    for name in ["head.db", "2023-11-14.db"] {
        fs::copy(dir.path().join(name), target.join(name)).unwrap();
    }
    assert!(target.join("head.db").try_exists().unwrap());
}

#[test]
fn an_empty_day_that_a_full_disk_left_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("2023-11-14.db"), "").unwrap();
    let (engine, report) = open(&dir);
    assert_eq!((report.days, report.damaged.len()), (0, 0));
    store(&engine, 1, "shop", &["one"]);
    assert_eq!(seal(&engine).lines, 1);
}
