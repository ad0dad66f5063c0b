//! Damage that a disk buffer must live with, each as a test of its own: the names are those of Vector's `disk_v2/tests/known_errors.rs`.

use super::{
    Config,
    lanes::{LogSink, Spool, log_batch},
};
use crate::tail::{Sink as _, StreamPosition};
use shipwatch_common::{
    model::{FileId, Labels, LogBatch, LogLine, Severity},
    protocol::{Lane, decode},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

fn stream(cursor: &str, offset: u64) -> StreamPosition {
    let (name, cursor) = ("journal".to_owned(), cursor.to_owned());
    StreamPosition { stream: FileId(1), name, cursor, offset, skipping: false, lines: BTreeMap::new() }
}

/// A spool with lines `0` to `9`, each a record with the cursor of the same name.
fn filled(dir: &Path) -> PathBuf {
    let (spool, positions) = Spool::open(dir, &Config::default(), 1).unwrap();
    let mut sink = LogSink::new(Arc::new(spool), positions);
    for at in 0..10 {
        put(&mut sink, at);
    }
    let segments = fs::read_dir(dir.join("logs")).unwrap().map(|entry| entry.unwrap().path());
    segments.max().unwrap()
}

fn put(sink: &mut LogSink, at: u64) {
    let line = LogLine { ts_ns: 1, end_offset: at, severity: Severity::Info, truncated: false, text: format!("line {at}") };
    let batch = LogBatch { file: FileId(1), labels: Labels::default(), lines: vec![line] };
    sink.append_stream(Some(batch), stream(&at.to_string(), at)).unwrap();
}

/// What is left: lines, and the cursor behind them.
fn left(dir: &Path, generation: u64) -> (Vec<u64>, String) {
    let (spool, positions) = Spool::open(dir, &Config::default(), generation).unwrap();
    let records = spool.lane(Lane::Logs).read(1 << 20).unwrap();
    let batches = records.iter().map(|record| decode::<LogBatch>(log_batch(&record.payload).unwrap()).unwrap());
    let lines = batches.flat_map(|batch| batch.lines).map(|line| line.end_offset).collect();
    (lines, positions.restored().streams.first().map(|stream| stream.cursor.clone()).unwrap_or_default())
}

/// Changes the segment's bytes; gives where the record of a line begins.
fn change(segment: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(segment).unwrap();
    change(&mut bytes);
    fs::write(segment, bytes).unwrap();
}

fn place(bytes: &[u8], at: u64) -> usize {
    let text = format!("line {at}");
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

#[test]
fn reader_detects_corrupt_checksum_and_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let segment = filled(dir.path());
    change(&segment, |bytes| {
        let at = place(bytes, 4);
        bytes[at] ^= 1;
    });
    assert_eq!(left(dir.path(), 2), (vec![0, 1, 2, 3, 5, 6, 7, 8, 9], "9".to_owned()));
}

#[test]
fn writer_detects_truncated_last_record_and_reads_its_lines_again() {
    let dir = tempfile::tempdir().unwrap();
    let segment = filled(dir.path());
    change(&segment, |bytes| bytes.truncate(bytes.len() - 1));
    // The position is the one before: the source reads line 9 again.
    assert_eq!(left(dir.path(), 2), ((0..9).collect(), "8".to_owned()));
}

#[test]
fn writer_detects_scrambled_last_record() {
    let dir = tempfile::tempdir().unwrap();
    let segment = filled(dir.path());
    change(&segment, |bytes| {
        let from = place(bytes, 9) - 20;
        bytes[from..].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7));
    });
    assert_eq!(left(dir.path(), 2), ((0..9).collect(), "8".to_owned()));
}

#[test]
fn a_torn_tail_of_zeros_is_no_record_and_writing_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let segment = filled(dir.path());
    // As a file system leaves it that made the file longer before it wrote the bytes.
    change(&segment, |bytes| bytes.extend([0; 4096]));
    let (spool, positions) = Spool::open(dir.path(), &Config::default(), 2).unwrap();
    let mut sink = LogSink::new(Arc::new(spool), positions);
    put(&mut sink, 10);
    drop(sink);
    assert_eq!(left(dir.path(), 3), ((0..11).collect(), "10".to_owned()));
}

#[test]
fn reader_goes_on_after_a_restart_when_an_acknowledged_record_is_corrupt() {
    let dir = tempfile::tempdir().unwrap();
    let segment = filled(dir.path());
    let (spool, _) = Spool::open(dir.path(), &Config::default(), 2).unwrap();
    spool.lane(Lane::Logs).ack(1, 3).unwrap();
    drop(spool);
    change(&segment, |bytes| {
        let at = place(bytes, 1);
        bytes[at] ^= 1;
    });
    let (lines, cursor) = left(dir.path(), 3);
    assert!(lines.ends_with(&[3, 4, 5, 6, 7, 8, 9]) && !lines.contains(&1), "{lines:?}");
    assert_eq!(cursor, "9");
}

#[test]
fn a_corrupt_head_of_a_segment_costs_that_segment_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let segment = filled(dir.path());
    change(&segment, |bytes| bytes[0] ^= 0xff);
    assert_eq!(left(dir.path(), 2), (vec![], String::new()));
    assert!(segment.with_extension("damaged").try_exists().unwrap());
}

#[test]
fn corrupted_positions_are_those_of_the_segment_before() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { logs_max_bytes: 1 << 20, ..Config::default() };
    let (spool, positions) = Spool::open(dir.path(), &config, 1).unwrap();
    let mut sink = LogSink::new(Arc::new(spool), positions);
    for at in 0..3000 {
        put(&mut sink, at);
    }
    drop(sink);
    let mut segments: Vec<PathBuf> = fs::read_dir(dir.path().join("logs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    assert!(segments.len() > 1);
    change(segments.last().unwrap(), |bytes| bytes[0] ^= 0xff);
    let (lines, cursor) = left(dir.path(), 2);
    // Everything behind the last good segment is read again by the source.
    assert_eq!(lines.last().unwrap().to_string(), cursor);
    assert!(lines.len() > 100 && lines.len() < 3000);
}
