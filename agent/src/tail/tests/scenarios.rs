//! Scenarios by name: rotations of all kinds, links, restarts, encodings, events, limits. See also the parent module.

use super::*;
use std::{
    os::unix::fs::{FileExt as _, symlink},
    time::{Duration, SystemTime},
};

impl Bench {
    /// A bench with one source that reads `*.log` in its own way.
    fn with_source(change: impl FnOnce(&mut Source)) -> Self {
        Self::new(|config| {
            let mut source = Source { files: std::mem::take(&mut config.files), ..Source::default() };
            change(&mut source);
            config.sources = vec![source];
        })
    }

    fn sorted(&self) -> Vec<&str> {
        let mut texts = self.sink.texts();
        texts.sort_unstable();
        texts
    }

    /// Sets a file's time of modification, in seconds after the beginning.
    fn set_time(&self, name: &str, seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds);
        fs::File::options().write(true).open(self.path(name)).unwrap().set_modified(time).unwrap();
    }

    fn gzip(&self, from: &str, to: &str) {
        let modified = fs::metadata(self.path(from)).unwrap().modified().unwrap();
        let mut encoder = flate2::write::GzEncoder::new(fs::File::create(self.path(to)).unwrap(), flate2::Compression::fast());
        encoder.write_all(&fs::read(self.path(from)).unwrap()).unwrap();
        encoder.finish().unwrap().set_modified(modified).unwrap();
        fs::remove_file(self.path(from)).unwrap();
    }

    fn count(&self, counter: impl Fn(&Counters) -> &std::sync::atomic::AtomicU64) -> u64 {
        counter(&self.tailer.counters).load(Ordering::Relaxed)
    }
}

#[test]
fn multiple_rename_rotations_drain_every_file() {
    let mut bench = Bench::new(|_| {});
    for round in 0..5 {
        bench.write("a.log", format!("{round}a\n"));
        bench.poll();
        bench.write("a.log", format!("{round}b\n"));
        for at in (1..=round).rev() {
            fs::rename(bench.path(&format!("a.log.{at}")), bench.path(&format!("a.log.{}", at + 1))).unwrap();
        }
        fs::rename(bench.path("a.log"), bench.path("a.log.1")).unwrap();
    }
    bench.poll();
    assert_eq!(bench.sorted(), ["0a", "0b", "1a", "1b", "2a", "2b", "3a", "3b", "4a", "4b"]);
}

#[test]
fn several_rotations_while_the_agent_is_down_lose_nothing() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "1\n");
    bench.set_time("a.log", 1);
    bench.poll();
    bench.write("a.log", "2\n");
    bench.set_time("a.log", 2);
    fs::rename(bench.path("a.log"), bench.path("a.log.2")).unwrap();
    bench.write("a.log.1", "3, never seen under its name\n");
    bench.set_time("a.log.1", 3);
    bench.write("a.log", "4\n");
    bench.set_time("a.log", 4);
    // Older than what was read, and no rotation of it.
    bench.write("a.log.7", "long ago\n");
    bench.set_time("a.log.7", 0);
    bench.write("a-worker.txt", "another\n");
    bench.restart();
    bench.poll();
    assert_eq!(bench.sorted(), ["1", "2", "3, never seen under its name", "4"]);
    let names: HashSet<_> = bench.sink.batches.iter().map(|batch| batch.labels.get("filename").unwrap().to_owned()).collect();
    assert_eq!(names.len(), 1, "all of them are a.log's: {names:?}");
}

#[test]
fn several_rotations_while_the_link_is_down_lose_nothing() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "0\n");
    bench.poll();
    bench.sink.full = true;
    for round in 1..5 {
        bench.write("a.log", format!("{round}\n"));
        bench.poll();
        if round % 2 == 0 {
            fs::remove_file(bench.path("a.log")).unwrap();
        } else {
            fs::rename(bench.path("a.log"), bench.path(&format!("gone-{round}"))).unwrap();
        }
        bench.poll();
    }
    bench.sink.full = false;
    bench.poll();
    assert_eq!((bench.sorted(), bench.lost()), (vec!["0", "1", "2", "3", "4"], 0));
}

#[test]
fn deleted_files_are_not_held_beyond_the_bound_and_counted() {
    let mut bench = Bench::new(|config| config.deleted_max_bytes = 100);
    bench.write("a.log", "0\n");
    bench.write("b.log", "0\n");
    bench.poll();
    bench.sink.full = true;
    for name in ["a.log", "b.log"] {
        bench.write(name, format!("{name} {}\n", "x".repeat(73)));
        bench.poll();
        fs::remove_file(bench.path(name)).unwrap();
        bench.poll();
    }
    bench.sink.full = false;
    bench.poll();
    assert_eq!((bench.sink.lines.len(), bench.lost()), (3, 80), "one of the two is let go");
}

#[test]
fn rotated_and_compressed_while_down_goes_on_where_it_was() {
    for end in ["gz", "zst"] {
        let mut bench = Bench::new(|_| {});
        bench.write("a.log", "1\n2\n");
        bench.poll();
        bench.write(
            "a.log",
            format!(
                "{}\nno end",
                "x".repeat(700_000).as_bytes().chunks(70).map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>().join("\n")
            ),
        );
        if end == "gz" {
            bench.gzip("a.log", "a.log.1.gz");
        } else {
            let packed = zstd::bulk::compress(&fs::read(bench.path("a.log")).unwrap(), 1).unwrap();
            fs::write(bench.path("a.log.1.zst"), packed).unwrap();
            fs::remove_file(bench.path("a.log")).unwrap();
        }
        bench.write("a.log", "new\n");
        bench.restart();
        bench.poll();
        bench.restart();
        bench.poll();
        assert_eq!(bench.sink.lines.len(), 2 + 10_000 + 1 + 1, "{end}");
        assert_eq!((bench.sorted()[..2].to_vec(), bench.lost()), (vec!["1", "2"], 0), "{end}");
        let old = bench.sink.lines[0].0;
        let ends: Vec<u64> = bench.sink.lines.iter().filter(|line| line.0 == old).map(|line| line.2).collect();
        assert!(ends.is_sorted() && ends.len() == 10_003, "{end}: one life, one order");
    }
}

#[test]
fn a_compressed_file_that_is_damaged_is_given_up_and_counted() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "1\n".repeat(5000));
    bench.poll();
    bench.write("a.log", "2\n".repeat(5000));
    bench.gzip("a.log", "a.log.1.gz");
    let whole = fs::read(bench.path("a.log.1.gz")).unwrap();
    fs::write(bench.path("a.log.1.gz"), &whole[..whole.len() - 12]).unwrap();
    bench.restart();
    for _ in 0..12 {
        bench.poll();
    }
    assert!(bench.sink.lines.len() >= 5000);
    assert_eq!(bench.count(|counters| &counters.vanished_total), 1);
    assert!(bench.sink.positions.is_empty());
}

#[test]
fn copytruncate_gives_the_unread_rest_from_the_copy() {
    for glob in ["", ".*"] {
        for down in [false, true] {
            let mut bench = Bench::new(|config| config.files.push(format!("{}{glob}", config.files[0])));
            bench.write("a.log", "read\n");
            bench.poll();
            bench.write("a.log", "unread\n");
            fs::copy(bench.path("a.log"), bench.path("a.log.1")).unwrap();
            fs::File::options().write(true).open(bench.path("a.log")).unwrap().set_len(0).unwrap();
            bench.write("a.log", "after, and much longer than before\n");
            bench.write("a.log.1", "to the copy\n");
            if down {
                bench.restart();
            }
            bench.poll();
            assert_eq!(bench.sorted(), ["after, and much longer than before", "read", "to the copy", "unread"], "{glob:?} {down}");
            assert_eq!(bench.lost(), 0);
        }
    }
}

#[test]
fn a_copy_in_the_making_is_not_read_twice() {
    let mut bench = Bench::new(|config| config.files.push(format!("{}.*", config.files[0])));
    bench.write("a.log", "1\n2\n3\n");
    bench.poll();
    fs::write(bench.path("a.log.1"), "1\n2").unwrap();
    bench.poll();
    fs::write(bench.path("a.log.1"), "1\n2\n3\n").unwrap();
    bench.poll();
    fs::File::options().write(true).open(bench.path("a.log")).unwrap().set_len(0).unwrap();
    bench.write("a.log", "4\n");
    bench.poll();
    assert_eq!(bench.sorted(), ["1", "2", "3", "4"]);
}

#[test]
fn copytruncate_with_a_stale_writer_over_a_restart() {
    let mut bench = Bench::new(|_| {});
    let writer = fs::File::create(bench.path("a.log")).unwrap();
    writer.write_all_at(b"first\n", 0).unwrap();
    bench.poll();
    fs::File::options().write(true).open(bench.path("a.log")).unwrap().set_len(0).unwrap();
    writer.write_all_at(b"second\n", 300_000).unwrap();
    bench.restart();
    bench.poll();
    writer.write_all_at(b"third\n", 300_007).unwrap();
    bench.restart();
    bench.poll();
    assert_eq!(bench.sink.texts(), ["first", "second", "third"]);
}

#[test]
fn atomic_replacement_goes_on_with_the_same_and_begins_anew_with_other_content() {
    let mut bench = Bench::new(|_| {});
    let old: String = (0..100).map(|at| format!("line {at:03} of the old content\n")).collect();
    bench.write("a.log", &old);
    bench.poll();
    fs::write(bench.path("tmp"), format!("{old}appended\n")).unwrap();
    fs::rename(bench.path("tmp"), bench.path("a.log")).unwrap();
    bench.poll();
    assert_eq!((bench.sink.lines.len(), bench.sink.texts().last().copied()), (101, Some("appended")));
    fs::write(bench.path("tmp"), "other\n").unwrap();
    fs::rename(bench.path("tmp"), bench.path("a.log")).unwrap();
    bench.poll();
    assert_eq!((bench.sink.lines.len(), bench.sink.texts().last().copied()), (102, Some("other")));
}

#[test]
fn delete_and_recreate_with_the_same_short_content_is_read_again() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "started\n");
    bench.poll();
    let held = fs::File::open(bench.path("a.log")).unwrap();
    fs::remove_file(bench.path("a.log")).unwrap();
    bench.write("a.log", "started\n");
    bench.poll();
    drop(held);
    assert_eq!(bench.sink.texts(), ["started", "started"]);
}

#[test]
fn a_link_that_switches_while_down_drains_its_old_target() {
    let mut bench = Bench::new(|_| {});
    fs::create_dir(bench.path("targets")).unwrap();
    bench.write("targets/one", "1\n");
    symlink(bench.path("targets/one"), bench.path("a.log")).unwrap();
    bench.poll();
    bench.write("targets/one", "late\n");
    bench.write("targets/two", "2\n");
    fs::remove_file(bench.path("a.log")).unwrap();
    symlink(bench.path("targets/two"), bench.path("a.log")).unwrap();
    bench.restart();
    bench.poll();
    // The target is rotated, the link follows.
    fs::rename(bench.path("targets/two"), bench.path("targets/two.1")).unwrap();
    bench.write("targets/two.1", "2b\n");
    bench.write("targets/two", "3\n");
    bench.poll();
    assert_eq!(bench.sorted(), ["1", "2", "2b", "3", "late"]);
    let name = bench.path("a.log").display().to_string();
    assert!(bench.sink.batches.iter().all(|batch| batch.labels.get("filename") == Some(&name)));
}

#[test]
fn a_renamed_file_is_read_to_its_end_and_remembered_as_long_as_it_is_there() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "1\n");
    bench.poll();
    fs::rename(bench.path("a.log"), bench.path("a.log.1")).unwrap();
    bench.write("a.log.1", "2\nno end");
    for _ in 0..130 {
        bench.poll();
    }
    assert_eq!(bench.sink.texts(), ["1", "2", "no end"]);
    assert_eq!((bench.count(|c| &c.files), bench.count(|c| &c.open_files), bench.sink.positions.len()), (0, 0, 1));
    // Moved back: nothing comes twice.
    fs::rename(bench.path("a.log.1"), bench.path("a.log")).unwrap();
    bench.write("a.log", "\n3\n");
    bench.poll();
    assert_eq!(bench.sink.texts(), ["1", "2", "no end", "", "3"]);
    fs::remove_file(bench.path("a.log")).unwrap();
    for _ in 0..20 {
        bench.poll();
    }
    assert!(bench.sink.positions.is_empty());
}

#[test]
fn a_directory_that_cannot_be_listed_for_a_while_forgets_nothing() {
    let mut bench = Bench::new(|config| config.files = vec![config.files[0].replace("*.log", "logs/*.log")]);
    fs::create_dir(bench.path("logs")).unwrap();
    bench.write("logs/a.log", "1\n");
    bench.poll();
    // As a file system that is not mounted: the name is there, and what it was is not.
    fs::rename(bench.path("logs"), bench.path("away")).unwrap();
    symlink(bench.path("loop"), bench.path("logs")).unwrap();
    symlink(bench.path("logs"), bench.path("loop")).unwrap();
    bench.restart();
    for _ in 0..100 {
        bench.poll();
    }
    fs::remove_file(bench.path("logs")).unwrap();
    fs::rename(bench.path("away"), bench.path("logs")).unwrap();
    bench.write("logs/a.log", "2\n");
    bench.poll();
    assert_eq!(bench.sink.texts(), ["1", "2"]);
}

#[test]
fn a_file_is_known_again_after_its_device_got_another_number() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "1\n");
    bench.poll();
    for position in bench.sink.positions.values_mut() {
        position.dev += 1;
    }
    bench.write("a.log", "2\n");
    bench.restart();
    bench.poll();
    assert_eq!(bench.sink.texts(), ["1", "2"]);
}

#[test]
fn a_first_file_that_appears_after_a_start_without_files_is_read_from_its_beginning() {
    let mut bench = Bench::new(|config| config.start_at = "end".into());
    bench.poll();
    bench.write("a.log", "1\n");
    bench.restart();
    bench.poll();
    assert_eq!(bench.sink.texts(), ["1"]);
}

#[test]
fn polling_without_notifications_sees_only_stamps() {
    // As on NFS: nothing but size and times tell, and they tell late.
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "1\n");
    for _ in 0..50 {
        bench.poll();
    }
    assert_eq!(bench.count(|c| &c.open_files), 0, "an idle file is closed");
    bench.write("a.log", "2\n");
    bench.poll();
    fs::write(bench.path("a.log"), "3\n4\n").unwrap();
    bench.set_time("a.log", 99);
    bench.poll();
    assert_eq!(bench.sink.texts(), ["1", "2", "3", "4"]);
}

#[test]
fn ten_thousand_files_in_one_glob_with_a_few_descriptors() {
    let mut bench = Bench::new(|config| config.max_open_files = 16);
    for at in 0..10_000 {
        bench.write(&format!("{at}.log"), format!("{at}\n"));
    }
    bench.poll();
    assert_eq!((bench.sink.lines.len(), bench.count(|c| &c.files)), (10_000, 10_000));
    assert!(bench.count(|c| &c.open_files) <= 16);
    for at in (0..10_000).step_by(1000) {
        bench.write(&format!("{at}.log"), "more\n");
    }
    bench.restart();
    bench.poll();
    assert_eq!(bench.sink.lines.len(), 10_010);
}

#[test]
fn files_beyond_the_bound_are_counted_and_the_known_ones_stay() {
    let mut bench = Bench::new(|config| config.max_files = 3);
    for at in 0..5 {
        bench.write(&format!("{at}.log"), "1\n");
        bench.set_time(&format!("{at}.log"), at);
    }
    bench.poll();
    assert_eq!((bench.sink.lines.len(), bench.count(|c| &c.ignored_files)), (3, 2));
    for at in 0..5 {
        bench.write(&format!("{at}.log"), "2\n");
    }
    bench.poll();
    assert_eq!((bench.sink.lines.len(), bench.count(|c| &c.ignored_files)), (6, 2));
}

#[test]
fn utf16_is_told_by_its_mark_also_after_a_restart_and_at_the_end() {
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", wide("\u{feff}支付\r\n"));
    bench.poll();
    bench.restart();
    bench.write("a.log", &wide("ok\n")[..3]);
    bench.poll();
    bench.write("a.log", &wide("ok\n")[3..]);
    bench.poll();
    assert_eq!(bench.sink.texts(), ["支付", "ok"]);
    let mut bench = Bench::new(|config| config.start_at = "end".into());
    // U+0A0A holds the byte of a line feed twice.
    bench.write("a.log", wide("\u{feff}old\n\u{0a0a}"));
    bench.poll();
    bench.write("a.log", wide("x\nnew\n"));
    bench.poll();
    assert_eq!(bench.sink.texts(), ["\u{0a0a}x", "new"]);
}

#[test]
fn long_lines_are_cut_on_a_character_in_every_encoding() {
    for (encoding, character) in
        [("gbk", &b"\xd6\xa7"[..]), ("gb18030", b"\x81\x30\x81\x30"), ("big5", b"\xa4\xe4"), ("utf-16le", b"\x2f\x65")]
    {
        let mut bench = Bench::with_source(|source| {
            source.encoding = encoding.into();
            source.max_line_bytes = 257;
        });
        let feed: &[u8] = if encoding == "utf-16le" { b"\n\0" } else { b"\n" };
        let short: &[u8] = if encoding == "utf-16le" { b"a\0" } else { b"a" };
        bench.write("a.log", [short, &character.repeat(40_000), feed, short, feed].concat());
        bench.poll();
        let texts = bench.sink.texts();
        assert_eq!(texts.len(), 2, "{encoding}");
        assert!(!texts[0].contains('\u{fffd}') && (250..=257).contains(&texts[0].len()), "{encoding}: {}", texts[0].len());
        assert_eq!((texts[1], bench.sink.truncated), ("a", 1), "{encoding}");
    }
}

#[test]
fn events_of_several_lines_are_joined_and_end_with_time() {
    let mut bench = Bench::with_source(|source| source.multiline.preset = "java".into());
    bench.write("a.log", "INFO a\nERROR b\njava.lang.Error: x\n\tat y\n");
    bench.poll();
    assert_eq!(bench.sink.texts(), ["INFO a"], "the last event may go on");
    bench.restart();
    bench.write("a.log", "\tat z\n");
    bench.poll();
    assert_eq!(bench.sink.texts(), ["INFO a"]);
    bench.poll();
    assert_eq!(bench.sink.texts(), ["INFO a", "ERROR b\njava.lang.Error: x\n\tat y\n\tat z"]);
    let last = bench.sink.batches.last().unwrap().lines.last().unwrap();
    assert_eq!((last.severity, last.end_offset), (shipwatch_common::model::Severity::Error, 46));
    bench.write("a.log", "INFO c\nINFO d");
    bench.poll();
    bench.poll();
    bench.write("a.log", "one\n");
    bench.poll();
    bench.poll();
    assert_eq!(bench.sink.texts()[2..], ["INFO c", "INFO done"]);
}

#[test]
fn an_event_without_an_end_is_cut_and_marked() {
    let mut bench = Bench::with_source(|source| {
        source.multiline.start = "^START".into();
        source.multiline.max_lines = 1500;
        source.multiline.max_bytes = 8192;
    });
    bench.write("a.log", format!("START\n{}START\n", "0123456789abcdef\n".repeat(2000)));
    bench.poll();
    bench.poll();
    let joined = bench.sink.texts().join("\n");
    assert_eq!(joined.lines().count(), 2002, "nothing is lost by the cut");
    assert_eq!(bench.sink.truncated, 4);
    assert!(bench.sink.texts().iter().all(|text| text.len() <= 8192 + 17));
}

#[test]
fn what_filters_and_limits_leave_out_is_counted() {
    let mut bench = Bench::with_source(|source| {
        source.exclude_lines = vec!["^DEBUG".into()];
        source.sample = vec![Sample { pattern: "^/health".into(), field: "path".into(), keep: 0.0 }];
        source.max_lines_per_second = 1;
        source.burst_lines = 3;
    });
    bench.write("a.log", "DEBUG x\n{\"path\":\"/health\"}\n1\n2\n3\n4\n5\n");
    bench.poll();
    assert_eq!(bench.sink.texts(), ["1", "2", "3"]);
    let counts = (bench.count(|c| &c.filtered_total), bench.count(|c| &c.sampled_total), bench.count(|c| &c.limited_total));
    assert_eq!(counts, (1, 1, 2));
    // A sink that refuses uses up nothing.
    bench.sink.full = true;
    bench.write("a.log", "6\n7\n8\n9\n");
    for _ in 0..5 {
        bench.poll();
    }
    bench.sink.full = false;
    bench.poll();
    assert_eq!((bench.sink.texts()[3..].to_vec(), bench.count(|c| &c.limited_total)), (vec!["6", "7", "8"], 3));
}

#[test]
fn times_are_of_the_sources_zone() {
    let mut bench = Bench::with_source(|source| source.timezone = "Etc/GMT-8".into());
    bench.write("a.log", "2027-01-15 15:00:00 INFO x\n");
    bench.poll();
    let line = &bench.sink.batches[0].lines[0];
    // 1_800_000_000 s is 2027-01-15T08:00:00Z.
    assert_eq!(line.ts_ns, (1_800_000_000 - 3600) * SECOND);
}

#[test]
fn a_file_with_the_same_head_that_grew_back_is_told_by_its_marker() {
    let mut bench = Bench::new(|_| {});
    let banner = "the same banner at every start\n".repeat(40);
    bench.write("a.log", format!("{banner}old 1\nold 2\n"));
    bench.poll();
    fs::write(bench.path("a.log"), format!("{banner}new 1\nnew 2\nnew 3\n")).unwrap();
    bench.poll();
    assert_eq!(bench.sink.lines.len(), 42 + 43);
    assert_eq!(bench.sink.texts()[82..], ["new 1", "new 2", "new 3"]);
}
