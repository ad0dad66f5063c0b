//! The scenarios that a tailer must get right, each as a test of its own, on real files with the time passed in.

use super::*;
use std::{cell::RefCell, io::Write as _, sync::atomic::Ordering};

mod containers;
mod model;
mod named;
mod scenarios;
pub(super) mod streams;

thread_local! {
    /// Paths that this thread may not open: tests run as root as well, which may open anything.
    static DENIED: RefCell<HashSet<PathBuf>> = RefCell::default();
}

/// Stands for missing permission, see [`DENIED`].
pub(super) fn denied(path: &Path) -> io::Result<()> {
    let is_denied = DENIED.with_borrow(|denied| denied.contains(path));
    if is_denied { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
}

/// Keeps what a spool would, in memory; can be full.
#[derive(Default)]
struct Memory {
    lines: Vec<(FileId, String, u64)>,
    positions: BTreeMap<FileId, Position>,
    started: bool,
    full: bool,
    /// Records until it is full.
    room: Option<usize>,
    truncated: usize,
    batches: Vec<LogBatch>,
    streams: BTreeMap<String, StreamPosition>,
}

impl Sink for Memory {
    fn append(&mut self, batch: Option<LogBatch>, position: Position) -> Result<(), SinkError> {
        if self.full || self.room == Some(0) {
            return Err(SinkError::Full);
        }
        self.room = self.room.map(|room| room - 1);
        self.batches.extend(batch.clone());
        for line in batch.into_iter().flat_map(|batch| batch.lines) {
            self.truncated += usize::from(line.truncated);
            self.lines.push((position.file, line.text, line.end_offset));
        }
        self.positions.insert(position.file, position);
        Ok(())
    }

    fn append_stream(&mut self, batch: Option<LogBatch>, position: StreamPosition) -> Result<(), SinkError> {
        if self.full {
            return Err(SinkError::Full);
        }
        self.batches.extend(batch);
        self.streams.insert(position.name.clone(), position);
        Ok(())
    }

    fn forget(&mut self, file: FileId) -> Result<(), SinkError> {
        self.positions.remove(&file);
        self.streams.retain(|_, stream| stream.stream != file);
        Ok(())
    }

    fn started(&mut self) -> Result<(), SinkError> {
        self.started = true;
        Ok(())
    }
}

impl Memory {
    fn texts(&self) -> Vec<&str> {
        self.lines.iter().map(|(_, text, _)| text.as_str()).collect()
    }
}

struct Bench {
    dir: tempfile::TempDir,
    sink: Memory,
    tailer: Tailer,
    now: UnixNs,
    config: Config,
}

const SECOND: i64 = 1_000_000_000;

impl Bench {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config =
            Config { files: vec![format!("{}/*.log", dir.path().display())], start_at: "beginning".into(), ..Config::default() };
        change(&mut config);
        let sink = Memory::default();
        let tailer = tailer(&config, &sink);
        Self { dir, sink, tailer, now: 1_800_000_000 * SECOND, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    /// Looks, some seconds later, until nothing is new.
    fn poll(&mut self) {
        self.now += 10 * SECOND;
        for _ in 0..100 {
            if self.tailer.poll(self.now, &mut self.sink) != Progress::Read {
                return;
            }
        }
        panic!("the tailer does not come to rest");
    }

    fn restart(&mut self) {
        self.tailer = tailer(&self.config, &self.sink);
    }

    fn lost(&self) -> u64 {
        self.tailer.counters.lost_bytes_total.load(Ordering::Relaxed)
    }
}

fn tailer(config: &Config, sink: &Memory) -> Tailer {
    let masker = Arc::new(Masker::new(&shipwatch_common::mask::Config::default()).unwrap());
    let restored = Restored { positions: sink.positions.values().cloned().collect(), streams: Vec::new(), started: sink.started };
    Tailer::new(config.clone(), &masker, restored).unwrap()
}

#[test]
fn lines_come_once_and_a_partial_one_waits() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "one\ntwo\r\nthr");
    bench.poll();
    assert_eq!(bench.sink.texts(), ["one", "two"]);
    bench.restart();
    bench.write("a.log", "ee\n\nfour\n");
    bench.poll();
    assert_eq!(bench.sink.texts(), ["one", "two", "three", "", "four"]);
    let offsets: Vec<u64> = bench.sink.lines.iter().map(|line| line.2).collect();
    assert_eq!(offsets, [4, 9, 15, 16, 21]);
}

#[test]
fn a_source_and_an_environment_have_a_masking_policy_of_their_own() {
    let mut bench = Bench::new(|config| {
        let dir = config.files[0].trim_end_matches("*.log").to_owned();
        let source = |name: &str, env: &str, policy: &str| super::Source {
            files: vec![format!("{dir}{name}")],
            labels: BTreeMap::from([("env".to_owned(), env.to_owned())]),
            mask_policy: policy.to_owned(),
            ..super::Source::default()
        };
        config.sources = vec![source("own.log", "prod", "gdpr"), source("prod.log", "prod", ""), source("test.log", "test", "")];
        config.mask_policies = BTreeMap::from([("prod".to_owned(), "strict".to_owned())]);
    });
    for name in ["own.log", "prod.log", "test.log", "z.log"] {
        bench.write(name, "from 192.0.2.7\n");
    }
    bench.poll();
    let mut texts = bench.sink.texts();
    texts.sort_unstable();
    assert_eq!(texts, ["from 192.0.2.7", "from 192.0.2.7", "from [ip:192.0.2.0/24]", "from [ip]"]);
}

#[test]
fn a_first_start_begins_at_the_end_and_later_files_at_their_beginning() {
    let mut bench = Bench::new(|config| config.start_at = "end".into());
    bench.write("a.log", "old\nolder\nunfin");
    bench.poll();
    bench.write("a.log", "ished\nnew\n");
    bench.write("b.log", "first\n");
    bench.poll();
    let mut texts = bench.sink.texts();
    texts.sort_unstable();
    assert_eq!(texts, ["first", "new", "unfinished"]);
    bench.restart();
    bench.poll();
    assert_eq!(bench.sink.lines.len(), 3);
}

#[test]
fn rename_rotation_loses_and_doubles_nothing() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "1\n");
    bench.poll();
    bench.write("a.log", "2\n");
    fs::rename(bench.path("a.log"), bench.path("a.log.1")).unwrap();
    bench.write("a.log.1", "3\n");
    bench.write("a.log", "4\n");
    bench.poll();
    let mut texts = bench.sink.texts();
    texts.sort_unstable();
    assert_eq!(texts, ["1", "2", "3", "4"]);
    assert_eq!(bench.lost(), 0);
}

#[test]
fn several_rotations_while_stopped_are_found_again() {
    let mut bench = Bench::new(|config| config.files.push(format!("{}.1", config.files[0])));
    bench.write("a.log", "1\n");
    bench.poll();
    bench.write("a.log", "2\n");
    fs::rename(bench.path("a.log"), bench.path("a.log.2")).unwrap();
    bench.write("a.log.1", "3\n");
    bench.write("a.log", "4\n");
    bench.restart();
    bench.poll();
    let mut texts = bench.sink.texts();
    texts.sort_unstable();
    assert_eq!(texts, ["1", "2", "3", "4"], "a.log.2 matches no glob and must be found by its inode");
}

#[test]
fn copytruncate_begins_anew_and_counts_what_was_cut_unread() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "first line\nsecond line\n");
    bench.poll();
    fs::write(bench.path("a.log"), "third\n").unwrap();
    bench.poll();
    assert_eq!(bench.sink.texts(), ["first line", "second line", "third"]);
    assert_eq!(bench.lost(), 0);
    bench.sink.full = true;
    bench.write("a.log", "unread line\n");
    bench.poll();
    fs::write(bench.path("a.log"), "x\n").unwrap();
    bench.sink.full = false;
    bench.poll();
    assert_eq!(bench.sink.texts().last(), Some(&"x"));
    assert_eq!(bench.lost(), 12);
}

#[test]
fn a_file_that_grew_back_past_the_position_is_told_by_its_content() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "aaaa\nbbbb\n");
    bench.poll();
    fs::write(bench.path("a.log"), "cccc\ndddd\neeee\nffff\n").unwrap();
    bench.poll();
    assert_eq!(bench.sink.texts(), ["aaaa", "bbbb", "cccc", "dddd", "eeee", "ffff"]);
}

#[test]
fn a_stale_writer_leaves_a_hole_that_is_skipped() {
    let mut bench = Bench::new(|_| {});
    let mut writer = fs::File::create(bench.path("a.log")).unwrap();
    writer.write_all(&b"x".repeat(99)).unwrap();
    writer.write_all(b"\n").unwrap();
    bench.poll();
    fs::OpenOptions::new().write(true).open(bench.path("a.log")).unwrap().set_len(0).unwrap();
    bench.poll();
    writer.write_all(b"after the hole\n").unwrap();
    bench.poll();
    assert_eq!(bench.sink.texts()[1..], ["after the hole"]);
}

#[test]
fn delete_and_recreate_is_another_file_also_with_the_same_inode() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "one\n");
    bench.poll();
    for round in 0..5 {
        fs::remove_file(bench.path("a.log")).unwrap();
        bench.write("a.log", format!("round {round}\n"));
        bench.restart();
        bench.poll();
    }
    assert_eq!(bench.sink.texts(), ["one", "round 0", "round 1", "round 2", "round 3", "round 4"]);
}

#[test]
fn a_deleted_file_is_read_to_its_end_with_its_last_partial_line() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "one\n");
    bench.poll();
    bench.write("a.log", "two\nno end");
    fs::remove_file(bench.path("a.log")).unwrap();
    bench.poll();
    bench.poll();
    bench.poll();
    assert_eq!(bench.sink.texts(), ["one", "two", "no end"]);
    assert!(bench.sink.positions.is_empty());
}

#[test]
fn a_file_deleted_unread_while_stopped_is_counted() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "one\n");
    bench.poll();
    bench.write("a.log", "two\n");
    bench.sink.full = true;
    bench.poll();
    bench.sink.full = false;
    fs::remove_file(bench.path("a.log")).unwrap();
    bench.poll();
    assert_eq!(bench.sink.texts(), ["one", "two"], "the open file can still be read");
}

#[test]
fn a_symbolic_link_that_switches_is_two_files_read_once_each() {
    let mut bench = Bench::new(|_| {});
    bench.write("real-1", "1\n");
    bench.write("real-2", "2\n");
    std::os::unix::fs::symlink(bench.path("real-1"), bench.path("a.log")).unwrap();
    bench.poll();
    fs::remove_file(bench.path("a.log")).unwrap();
    std::os::unix::fs::symlink(bench.path("real-2"), bench.path("a.log")).unwrap();
    bench.write("real-1", "late\n");
    bench.poll();
    let mut texts = bench.sink.texts();
    texts.sort_unstable();
    assert_eq!(texts, ["1", "2", "late"]);
}

#[test]
fn two_files_with_the_same_content_are_two_files() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "same\nsame\n");
    bench.write("b.log", "same\nsame\n");
    fs::hard_link(bench.path("a.log"), bench.path("link.log")).unwrap();
    bench.poll();
    assert_eq!(bench.sink.texts(), ["same"; 4]);
}

#[test]
fn a_full_sink_stops_reading_and_loses_nothing() {
    let mut bench = Bench::new(|_| {});
    bench.write("a.log", "1\n");
    bench.poll();
    bench.sink.full = true;
    bench.write("a.log", "2\n");
    assert_eq!(bench.tailer.poll(bench.now, &mut bench.sink), Progress::Blocked);
    bench.sink.full = false;
    bench.poll();
    assert_eq!(bench.sink.texts(), ["1", "2"]);
}

#[test]
fn long_lines_are_cut_on_a_character_and_reading_goes_on() {
    let mut bench = Bench::new(|config| config.max_line_bytes = 256);
    bench.write("a.log", format!("{}\nshort\n", "支".repeat(200_000)));
    bench.poll();
    let texts = bench.sink.texts();
    assert_eq!(texts.len(), 2);
    assert_eq!((texts[0], texts[1]), ("支".repeat(85).as_str(), "short"));
    assert_eq!(bench.sink.truncated, 1);
}

#[test]
fn a_long_line_that_is_still_being_written_is_cut_once_also_over_a_restart() {
    let mut bench = Bench::new(|config| config.max_line_bytes = 256);
    bench.write("a.log", "y".repeat(1000));
    bench.poll();
    bench.restart();
    bench.write("a.log", "z\nnext\n");
    bench.poll();
    assert_eq!(bench.sink.texts(), ["y".repeat(256).as_str(), "next"]);
}

#[test]
fn other_encodings_and_labels_by_source() {
    let mut bench = Bench::new(|config| {
        let source = |name: &str, encoding: &str| Source {
            files: vec![config.files[0].replace("*.log", name)],
            encoding: encoding.into(),
            labels: BTreeMap::from([("app".into(), "shop".into())]),
            ..Source::default()
        };
        config.sources = vec![source("gbk.log", "gbk"), source("wide.log", "utf-16le")];
    });
    bench.write("gbk.log", b"\xd6\xa7\xb8\xb6\n");
    bench.write("wide.log", b"\xff\xfe\x2f\x65\n\0a\0\n\0");
    bench.poll();
    let mut texts = bench.sink.texts();
    texts.sort_unstable();
    assert_eq!(texts, ["a", "支", "支付"]);
    assert!(bench.tailer.files.values().all(|file| file.labels(0).unwrap().get("app") == Some("shop")));
}

#[test]
fn a_file_without_permission_is_read_when_it_is_restored() {
    let mut bench = Bench::new(|_| {});
    let path = bench.path("a.log");
    bench.write("a.log", "1\n");
    DENIED.with_borrow_mut(|denied| denied.insert(path.clone()));
    bench.poll();
    assert_eq!((bench.sink.lines.len(), bench.tailer.counters.unreadable_files.load(Ordering::Relaxed)), (0, 1));
    DENIED.with_borrow_mut(|denied| denied.remove(&path));
    bench.poll();
    assert_eq!((bench.sink.texts(), bench.tailer.counters.unreadable_files.load(Ordering::Relaxed)), (vec!["1"], 0));
    // Lost again in the middle, over a restart and ten quiet minutes: nothing is forgotten, nothing comes twice.
    bench.write("a.log", "2\n");
    DENIED.with_borrow_mut(|denied| denied.insert(path.clone()));
    bench.restart();
    for _ in 0..70 {
        bench.poll();
    }
    DENIED.with_borrow_mut(|denied| denied.remove(&path));
    bench.poll();
    assert_eq!(bench.sink.texts(), ["1", "2"]);
}
