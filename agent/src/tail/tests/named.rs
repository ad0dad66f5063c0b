//! Scenarios that other tailers test, by their names there, as far as [`super::scenarios`] and the parent module do not have them.

use super::*;
use std::{
    os::unix::fs::symlink,
    thread,
    time::{Duration, Instant},
};

/// Vector: `file_multiple_paths`, `file_exclude_paths`.
#[test]
fn several_globs_and_excluded_names() {
    let mut bench = Bench::new(|config| {
        config.files.push(config.files[0].replace("*.log", "sub/**/*.txt"));
        config.exclude.push("debug-*".into());
    });
    fs::create_dir_all(bench.path("sub/deeper")).unwrap();
    for name in ["a.log", "debug-a.log", "b.txt", "sub/c.txt", "sub/deeper/d.txt", "sub/deeper/debug-e.txt"] {
        bench.write(name, format!("{name}\n"));
    }
    bench.poll();
    let mut texts = bench.sink.texts();
    texts.sort_unstable();
    assert_eq!(texts, ["a.log", "sub/c.txt", "sub/deeper/d.txt"]);
}

/// Vector: `file_read_empty_lines`; Fluent Bit: `skip_empty_lines_crlf`. Here they are lines.
#[test]
fn empty_lines_are_lines_with_either_end() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "\n\r\n a\r\n\n\r\r\nb\n");
    bench.poll();
    assert_eq!(bench.sink.texts(), ["", "", " a", "", "", "b"]);
}

/// Vector: `file_duplicate_processing_after_restart`, `file_start_position_server_restart_acknowledged`.
#[test]
fn a_restart_without_anything_new_reads_nothing() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "1\n2\n");
    bench.write("b.log", "3\n");
    for _ in 0..3 {
        bench.poll();
        bench.restart();
    }
    assert_eq!((bench.sink.lines.len(), bench.sink.positions.len()), (3, 2));
}

/// Vector: `file_start_position_server_restart_no_acknowledge`, `…_unfinalized`, also `…_with_file_rotation`.
#[test]
fn lines_that_were_not_durable_come_again_also_from_a_rotated_file() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "1\n");
    bench.poll();
    let (lines, positions) = (bench.sink.lines.clone(), bench.sink.positions.clone());
    bench.write("a.log", "2\n3\n");
    bench.poll();
    assert_eq!(bench.sink.lines.len(), 3);
    // Power is lost: the last record was not on disk yet, lines and position alike.
    (bench.sink.lines, bench.sink.positions) = (lines, positions);
    fs::rename(bench.path("a.log"), bench.path("a.log.1")).unwrap();
    bench.write("a.log", "4\n");
    bench.restart();
    bench.poll();
    let mut texts = bench.sink.texts();
    texts.sort_unstable();
    assert_eq!(texts, ["1", "2", "3", "4"]);
}

/// Vector: `test_fair_reads`.
#[test]
fn a_large_file_does_not_keep_small_ones_waiting() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "of the large one\n".repeat(400_000));
    bench.set_mtime("a.log", 1);
    bench.write("b.log", "small\n");
    bench.poll_once();
    let first: Vec<&str> = bench.sink.texts();
    assert!(first.len() < 100_000 && first.contains(&"small"), "{} lines before the small file's", first.len());
}

/// Vector: `test_oldest_first`.
#[test]
fn what_was_written_first_is_read_first() {
    let mut bench = Bench::new(|_| {});
    for (name, at) in [("a.log", 3), ("b.log", 1), ("c.log", 2)] {
        bench.write(name, format!("{at}\n"));
        bench.set_mtime(name, at);
    }
    bench.poll();
    assert_eq!(bench.sink.texts(), ["1", "2", "3"]);
}

/// Vector: `test_split_reads`, `test_multi_char_delimiter_split_across_buffer_boundary`; Alloy: a line over 4096 bytes.
#[test]
fn lines_across_every_boundary_of_the_buffer_stay_whole() {
    for shift in 0..3 {
        let mut bench = Bench::new(|_| {});
        let lines: Vec<String> = (0..300).map(|at| format!("{at} {}", "y".repeat(4000 + at * 7 + shift))).collect();
        bench.write("a.log", lines.join("\r\n") + "\r\n");
        bench.poll();
        assert!(bench.sink.texts().into_iter().eq(lines.iter().map(String::as_str)), "shifted by {shift}");
    }
}

/// LoongCollector: `RemoveLastIncompleteLog`; Fluent Bit: UTF-16 and Big5 in pieces.
#[test]
fn a_character_that_is_written_in_halves_stays_whole() {
    for (encoding, bytes) in [("gbk", &b"\xd6\xa7\xb8\xb6\n"[..]), ("big5", b"\xa4\xe4\xa5\x49\n"), ("utf-16le", b"\x2f\x65\xd8\x4e\n\0")] {
        let mut bench = Bench::new(|config| config.encoding = encoding.into());
        for byte in bytes.repeat(2) {
            bench.write("a.log", [byte]);
            bench.poll();
            bench.restart();
        }
        let texts = bench.sink.texts();
        assert!(texts.len() == 2 && texts[0] == texts[1] && !texts[0].contains('\u{fffd}') && !texts[0].is_empty(), "{encoding} {texts:?}");
    }
}

/// Alloy: UTF-16LE with a mark.
#[test]
fn little_endian_is_told_by_its_mark_after_a_restart() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", b"\xff\xfe\x2f\x65\n\0");
    bench.poll();
    bench.restart();
    bench.write("a.log", b"\xd8\x4e\n\0");
    bench.poll();
    assert_eq!(bench.sink.texts(), ["支", "付"]);
}

/// Alloy: `DeleteFileInstant`.
#[test]
fn a_file_that_is_gone_at_once_leaves_nothing_behind() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "never seen\n");
    fs::remove_file(bench.path("a.log")).unwrap();
    bench.poll();
    bench.write("b.log", "");
    bench.poll();
    fs::remove_file(bench.path("b.log")).unwrap();
    for _ in 0..3 {
        bench.poll();
    }
    assert_eq!((bench.sink.lines.len(), bench.sink.positions.len(), bench.lost()), (0, 0, 0));
}

/// Alloy: `CancelWhileSendBlocked`.
#[test]
fn stopping_does_not_wait_for_a_full_sink() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "1\n");
    bench.sink.full = true;
    let stop = tokio_util::sync::CancellationToken::new();
    let (stopped, mut sink, mut tailer) = (stop.clone(), std::mem::take(&mut bench.sink), bench.tailer);
    let counters = tailer.counters();
    let thread = thread::spawn(move || tailer.run(&mut sink, &stopped));
    while counters.blocked.load(Ordering::Relaxed) == 0 {
        thread::yield_now();
    }
    let begun = Instant::now();
    stop.cancel();
    thread.thread().unpark();
    thread.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Alloy: `GigantiqueGunzip`, `compressed oneline`.
#[test]
fn a_large_compressed_rest_and_one_of_a_single_line_without_its_end() {
    for rest in ["z".repeat(70) + "\n", "last and only".to_owned()] {
        let repeat = if rest.ends_with('\n') { 200_000 } else { 1 };
        let mut bench = Bench::new(|_| {});
        bench.write("a.log", "1\n");
        bench.poll();
        bench.write("a.log", rest.repeat(repeat));
        let mut encoder = flate2::write::GzEncoder::new(fs::File::create(bench.path("a.log.1.gz")).unwrap(), flate2::Compression::fast());
        encoder.write_all(&fs::read(bench.path("a.log")).unwrap()).unwrap();
        encoder.finish().unwrap();
        fs::remove_file(bench.path("a.log")).unwrap();
        bench.poll();
        bench.poll();
        assert_eq!((bench.sink.lines.len(), bench.lost()), (1 + repeat, 0));
    }
}

/// Fluent Bit: `copytruncate_across_restart`.
#[test]
fn a_file_that_was_cut_while_the_agent_was_down_is_read_anew() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "1\n2\n");
    bench.poll();
    fs::copy(bench.path("a.log"), bench.path("a.log.1")).unwrap();
    fs::write(bench.path("a.log"), "3\n").unwrap();
    bench.restart();
    bench.poll();
    assert_eq!((bench.sink.texts(), bench.lost()), (vec!["1", "2", "3"], 0));
}

/// Fluent Bit: `db_compare_filename`: another file got the name and the inode is known under another one.
#[test]
fn names_that_were_exchanged_while_the_agent_was_down() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "a1\n");
    bench.write("b.log", "b1\n");
    bench.poll();
    fs::rename(bench.path("a.log"), bench.path("c")).unwrap();
    fs::rename(bench.path("b.log"), bench.path("a.log")).unwrap();
    fs::rename(bench.path("c"), bench.path("b.log")).unwrap();
    bench.write("a.log", "b2\n");
    bench.write("b.log", "a2\n");
    bench.restart();
    bench.poll();
    let mut texts = bench.sink.texts();
    texts.sort_unstable();
    assert_eq!(texts, ["a1", "a2", "b1", "b2"]);
}

/// Fluent Bit: `multi_file_rapid_rotation`, and `tests/runtime_shell/in_tail`: five loggers that rotate at 256 KiB while they are read.
#[test]
fn five_loggers_that_rotate_under_the_reader() {
    const LINES: usize = 6000;
    let mut bench = Bench::new(|_| {});
    let dir = bench.dir.path().to_owned();
    // What is rotated away before its name was ever seen is nobody's.
    (0..5).for_each(|logger| bench.write(&format!("{logger}.log"), ""));
    bench.poll();
    let loggers: Vec<_> = (0..5)
        .map(|logger| {
            let path = dir.join(format!("{logger}.log"));
            thread::spawn(move || {
                let open = || fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
                let (mut file, mut written, mut rotations) = (open(), 0, 0);
                for at in 0..LINES {
                    let line = format!("{logger} {at:06} {}\n", "x".repeat(120));
                    file.write_all(line.as_bytes()).unwrap();
                    written += line.len();
                    if at % 100 == 0 {
                        // Two rotations within one tick of the file system's clock cannot be told apart.
                        thread::park_timeout(Duration::from_millis(1));
                    }
                    if written > 256 << 10 {
                        rotations += 1;
                        fs::rename(&path, path.with_extension(format!("log.{rotations}"))).unwrap();
                        (file, written) = (open(), 0);
                    }
                }
            })
        })
        .collect();
    while !loggers.iter().all(thread::JoinHandle::is_finished) {
        bench.now += SECOND;
        bench.tailer.poll(bench.now, &mut bench.sink);
    }
    loggers.into_iter().for_each(|logger| logger.join().unwrap());
    bench.poll();
    bench.poll();
    let mut told: Vec<&str> = bench.sink.texts().into_iter().map(|text| &text[..8]).collect();
    told.sort_unstable();
    let expected: Vec<String> = (0..5).flat_map(|logger| (0..LINES).map(move |at| format!("{logger} {at:06}"))).collect();
    assert!(told.iter().eq(expected.iter()), "{} of {} lines", told.len(), expected.len());
    assert_eq!(bench.lost(), 0);
}

/// LoongCollector: `LogInputReaderUnittest`, the whole matrix: made or changed, empty or not, closed before or after the change, the
/// same head or another one, by a link or plainly.
#[test]
fn every_way_in_which_a_name_gets_another_file() {
    for case in 0..32 {
        let [is_made, is_empty, is_read_before, is_same, is_link] = [0, 1, 2, 3, 4].map(|bit| case >> bit & 1 == 1);
        let mut bench = Bench::new(|_| {});
        let place = |bench: &Bench, round: u8| bench.path(&if is_link { format!("real-{round}") } else { "a.log".to_owned() });
        let put = |path: &Path, text: &str| {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let link = |bench: &Bench, round: u8| {
            if is_link {
                let _none_yet = fs::remove_file(bench.path("a.log"));
                symlink(place(bench, round), bench.path("a.log")).unwrap();
            }
        };
        let first = place(&bench, 1);
        put(&first, "head\none\n");
        link(&bench, 1);
        if !is_made {
            bench.poll();
        }
        put(&first, "two\n");
        if is_read_before {
            bench.poll();
        }
        if !is_link {
            fs::rename(&first, bench.path("a.log.1")).unwrap();
        }
        let mut expected = vec!["head", "one", "two"];
        // What was never seen under its name is not followed to another one.
        if is_made && !is_read_before {
            expected.clear();
        }
        let second = place(&bench, 2);
        put(&second, "");
        link(&bench, 2);
        bench.poll();
        if !is_empty {
            let text = if is_same { "head\none\ntwo\n" } else { "other\n" };
            put(&second, text);
            expected.extend(text.lines());
        }
        bench.poll();
        bench.poll();
        let mut texts = bench.sink.texts();
        texts.sort_unstable();
        expected.sort_unstable();
        assert_eq!(texts, expected, "made {is_made} empty {is_empty} read {is_read_before} same {is_same} link {is_link}");
    }
}

/// LoongCollector: `FileDeletedWithTwoReaders`.
#[test]
fn two_lives_of_a_name_are_deleted_and_both_read_to_their_end() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "1\n");
    bench.poll();
    bench.write("a.log", "2\n");
    fs::rename(bench.path("a.log"), bench.path("a.log.1")).unwrap();
    bench.write("a.log", "3\n");
    bench.sink.full = true;
    bench.poll();
    bench.write("a.log", "4\n");
    for name in ["a.log", "a.log.1"] {
        fs::remove_file(bench.path(name)).unwrap();
    }
    bench.poll();
    bench.sink.full = false;
    for _ in 0..3 {
        bench.poll();
    }
    let mut texts = bench.sink.texts();
    texts.sort_unstable();
    assert_eq!((texts, bench.sink.positions.len(), bench.lost()), (vec!["1", "2", "3", "4"], 0, 0));
}

/// LoongCollector: the cases of a container that is started again: its log goes on, is cut, is rotated, or another container's is there.
#[test]
fn a_container_that_is_started_again() {
    let record = |text: &str| format!("{{\"log\":\"{text}\\n\",\"stream\":\"stdout\",\"time\":\"2027-01-15T07:00:00Z\"}}\n");
    for (case, down) in [0, 1, 2, 3].into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let mut bench = Bench::new(|config| {
            let files = vec![config.files[0].replace("*.log", "*/*-json.log")];
            config.files.clear();
            config.sources = vec![Source { files, format: "docker".into(), ..Source::default() }];
        });
        fs::create_dir(bench.path("one")).unwrap();
        bench.write("one/one-json.log", record("1"));
        bench.poll();
        bench.write("one/one-json.log", record("2"));
        match case {
            0 => {}
            1 => {
                bench.poll();
                fs::write(bench.path("one/one-json.log"), "").unwrap();
            }
            2 => fs::rename(bench.path("one/one-json.log"), bench.path("one/one-json.log.1")).unwrap(),
            _ => {
                bench.poll();
                fs::remove_dir_all(bench.path("one")).unwrap();
                fs::create_dir(bench.path("two")).unwrap();
            }
        }
        if down {
            bench.restart();
        }
        let name = if case == 3 { "two/two-json.log" } else { "one/one-json.log" };
        bench.write(name, record("3"));
        bench.poll();
        bench.poll();
        let mut texts = bench.sink.texts();
        texts.sort_unstable();
        assert_eq!((texts, bench.lost()), (vec!["1", "2", "3"], 0), "case {case}, down {down}");
    }
}

impl Bench {
    /// One look and no more.
    fn poll_once(&mut self) {
        self.now += 10 * SECOND;
        self.tailer.poll(self.now, &mut self.sink);
    }

    fn set_mtime(&self, name: &str, seconds: u64) {
        let time = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds);
        fs::File::options().write(true).open(self.path(name)).unwrap().set_modified(time).unwrap();
    }
}
