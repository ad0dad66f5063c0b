use super::*;
use proptest::prelude::*;
use std::io::{Seek as _, SeekFrom, Write as _};

const SMALL: u64 = 8 << 20;

fn sample(series: u32, ts_ms: UnixMs, value: f64) -> Sample {
    let text = series.to_string();
    let env = if series.is_multiple_of(2) { "even" } else { "odd" };
    Sample { labels: Arc::new(Labels::new([("__name__", "m"), ("n", text.as_str()), ("env", env)]).unwrap()), ts_ms, value }
}

fn open(dir: &Path, max_bytes: u64, done: Span) -> Queue {
    Queue::open(dir, max_bytes, Vec::new(), done).unwrap()
}

fn append(queue: &Queue, source: &str, seq: u64, samples: &[Sample]) -> Appended {
    queue.append(&[Batch { source, seq, samples }], 1_000, i64::MAX)
}

/// Reads all that waits, as a worker does, and tells where it ended.
fn drain(queue: &Queue) -> (Vec<(String, UnixMs, u64)>, Span) {
    let mut reader = crate::forward::reader::Reader::default();
    let (mut all, mut last) = (Vec::new(), Span::default());
    while let Some(window) = reader.window(queue, 1_000, None).unwrap() {
        all.extend(window.points.iter().map(|(series, ts, value)| {
            (reader.series()[*series as usize].labels.get("n").unwrap_or_default().to_owned(), *ts, value.to_bits())
        }));
        queue.finish(window.span, window.samples).unwrap();
        last = Span { from: window.span.to, ..window.span };
        if window.damaged.is_some() {
            queue.give_up(window.span);
        }
    }
    (all, last)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    /// Appends, reads and reopenings in any order: what comes out is what went in, in order, once.
    #[test]
    fn it_is_a_queue_across_openings(steps in proptest::collection::vec((0u8..10, 1usize..200), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(dir.path(), SMALL, Span::default());
        let (mut expected, mut got, mut done, mut ts) = (Vec::new(), Vec::new(), Span::default(), 0);
        for (what, count) in steps {
            match what {
                0..6 => {
                    let samples: Vec<_> = (0..count).map(|at| {
                        ts += 1;
                        sample(at as u32 % 17, ts, ts as f64)
                    }).collect();
                    expected.extend(samples.iter().map(|s| (s.labels.get("n").unwrap().to_owned(), s.ts_ms, s.value.to_bits())));
                    prop_assert_eq!(append(&queue, "", 0, &samples), Appended { taken: count as u64, ..Appended::default() });
                }
                6..8 => {
                    let (more, last) = drain(&queue);
                    if !more.is_empty() {
                        done = last;
                    }
                    got.extend(more);
                    prop_assert_eq!(queue.pending(), Pending::default());
                }
                _ => {
                    drop(queue);
                    queue = open(dir.path(), SMALL, done);
                    prop_assert_eq!(queue.pending().samples, (expected.len() - got.len()) as u64);
                }
            }
        }
        got.extend(drain(&queue).0);
        prop_assert_eq!(got, expected);
    }
}

#[test]
fn a_batch_is_taken_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), SMALL, Span::default());
    for seq in [5, 5, 4, 6] {
        append(&queue, "a1", seq, &[sample(1, seq as i64, 1.0)]);
    }
    assert_eq!((queue.pending().samples, queue.mark("a1"), queue.mark("a2")), (2, Some(6), None));
    drop(queue);
    for _ in 0..2 {
        // The second time the mark is in a segment's head only.
        let queue = open(dir.path(), SMALL, Span::default());
        append(&queue, "a1", 6, &[sample(1, 6, 1.0)]);
        assert_eq!((queue.pending().samples, queue.mark("a1")), (2, Some(6)));
    }
}

#[test]
fn a_request_that_is_sent_again_is_queued_once_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let samples: Vec<_> = (0..6).map(|at| sample(at % 2, i64::from(at / 2), 1.0)).collect();
    let queue = open(dir.path(), SMALL, Span::default());
    assert_eq!([0, 0].map(|_| append(&queue, "", 0, &samples).taken), [6, 0]);
    drop(queue);
    let queue = open(dir.path(), SMALL, Span::default());
    assert_eq!(append(&queue, "", 0, &samples).taken, 0);
    assert_eq!(append(&queue, "", 0, &[sample(0, 0, 2.0)]).taken, 1, "another value is another sample");
    assert_eq!(queue.pending().samples, 7);
}

#[test]
fn only_what_is_asked_for_and_not_from_the_future() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = vec![shipwatch_series::promql::parse_selector("{env=\"even\",n!=\"4\"}").unwrap(), vec![Matcher::equal("n", "5")]];
    let queue = Queue::open(dir.path(), SMALL, wanted, Span::default()).unwrap();
    for value in [0.0, 1.0] {
        let samples: Vec<_> = (0..8).map(|n| sample(n, 10 + i64::from(n), value)).collect();
        queue.append(&[Batch { source: "", seq: 0, samples: &samples }], 0, 15);
    }
    let (all, _) = drain(&queue);
    assert_eq!(all.iter().map(|(n, ..)| n.as_str()).collect::<Vec<_>>(), ["0", "2", "5", "0", "2", "5"]);
}

#[test]
fn the_oldest_are_dropped_and_counted_when_it_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), SMALL, Span::default());
    let (mut lost, mut written, mut noise) = (0, 0u64, 1u64);
    for round in 0..300 {
        let samples: Vec<_> = (0..5_000)
            .map(|at| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                sample(at % 50, round * 100 + i64::from(at / 50), f64::from_bits(noise))
            })
            .collect();
        let told = append(&queue, "", 0, &samples);
        assert_eq!((told.newest, &told.reason), (0, &None));
        lost += told.oldest;
        written += 5_000;
        let on_disk: u64 = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        assert!(on_disk <= SMALL, "{on_disk}");
    }
    let pending = queue.pending();
    assert!(lost > 0 && pending.bytes > SMALL / 2, "{lost} {pending:?}");
    assert_eq!(pending.samples + lost, written);
    let (all, _) = drain(&queue);
    assert_eq!(all.len() as u64, pending.samples);
    assert!(all.windows(2).all(|pair| pair[0].1 <= pair[1].1));
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    files::list(dir).unwrap().into_iter().map(|(_, path)| path).collect()
}

#[test]
fn a_torn_end_is_cut_off_and_damage_costs_the_rest_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), SMALL, Span::default());
    for at in 0..4 {
        append(&queue, "a", at, &[sample(1, at as i64, 1.0), sample(2, at as i64, 1.0)]);
    }
    let first = segments(dir.path()).pop().unwrap();
    let whole = std::fs::metadata(&first).unwrap().len();
    drop(queue);
    let file = std::fs::OpenOptions::new().write(true).open(&first).unwrap();
    file.set_len(whole - 3).unwrap();
    let queue = open(dir.path(), SMALL, Span::default());
    assert_eq!((queue.pending().samples, queue.mark("a")), (6, Some(2)), "the torn record was never acknowledged");
    append(&queue, "a", 3, &[sample(1, 3, 1.0)]);
    let mut file = std::fs::OpenOptions::new().write(true).open(&first).unwrap();
    file.seek(SeekFrom::Start(whole / 2)).unwrap();
    file.write_all(&[0xff; 5]).unwrap();
    let (all, done) = drain(&queue);
    assert!(all.len() < 7 && all.last().is_some_and(|last| last.1 == 3), "{all:?}");
    assert_eq!(queue.pending().samples, 0);

    std::fs::write(segments(dir.path()).pop().unwrap(), b"SHIPFWD1 and nonsense").unwrap();
    let queue = open(dir.path(), SMALL, done);
    assert_eq!(queue.pending().samples, 0);
    append(&queue, "a", 9, &[sample(1, 9, 1.0)]);
    assert_eq!(drain(&queue).0.len(), 1);
}

#[test]
fn files_of_what_was_sent_go() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), SMALL, Span::default());
    let mut ts = 0;
    for round in 1..=2 {
        while segments(dir.path()).len() <= 1 {
            ts += 1;
            let samples: Vec<_> = (0..10_000u32).map(|at| sample(at, ts, f64::from(at).sin())).collect();
            assert_eq!(append(&queue, "a", ts as u64, &samples).taken, 10_000);
        }
        drain(&queue);
        assert_eq!(segments(dir.path()).len(), 1, "round {round}");
    }
}

#[test]
fn labels_are_in_memory_once_while_their_segment_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path(), SMALL, Span::default());
    let one = sample(1, 1, 1.0);
    append(&queue, "", 0, std::slice::from_ref(&one));
    let mut reader = crate::forward::reader::Reader::default();
    reader.window(&queue, 10, None).unwrap().unwrap();
    assert!(Arc::ptr_eq(&reader.series()[0].labels, &one.labels));
}
