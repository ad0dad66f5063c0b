//! Series that come and go: memory holds those that live, day files the others.

use super::*;
use crate::store::head::Sizes;

const LIVE: usize = 3_000;
/// Series that end, and as many that begin, from one tick to the next: with these 100,000 in all.
const CHURN: usize = 1_644;
const TICKS: usize = 2 * 30;

/// One hundredth of ten million series over thirty days, of which three hundred thousand live at a time.
#[test]
fn the_head_holds_what_lives_however_much_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let (engine, _) = open(dir.path());
    let pods: Vec<Arc<Labels>> = (0..LIVE + CHURN * (TICKS - 1)).map(|pod| labels("load", &format!("pod-{pod}"))).collect();
    assert_eq!(pods.len(), 99_996);
    for tick in 0..TICKS {
        let now = DAY0 + tick as i64 * 12 * HOUR;
        let live = &pods[tick * CHURN..][..LIVE];
        let samples = live.iter().map(|labels| Sample { labels: labels.clone(), ts_ms: now, value: 1.0 }).collect();
        engine.append_at(now, vec![batch("agent", tick as u64 + 1, samples)]).unwrap();
        engine.seal(now + HOUR).unwrap();
        // The head never had more at a time than those that live and those that had just ended.
        let slots = if tick == 0 { LIVE } else { LIVE + CHURN };
        let expected = Sizes { slots, free: slots - LIVE, found: [LIVE; 2], postings: LIVE, values: LIVE, generations: 0 };
        assert_eq!(read_lock(&engine.head).sizes("host"), expected, "tick {tick}");
        assert_eq!(engine.stats().head_series, LIVE as u64);
    }
    let copied = copy(dir.path());
    let head = copied.path().join("head.db");
    assert_eq!((count_rows(&head, "series"), count_rows(&head, "frames")), (LIVE as i64, 1));
    // What ended is forgotten by the head alone: nobody else holds its labels but this test.
    let ended = &pods[..CHURN * (TICKS - 1)];
    assert!(ended.iter().all(|labels| Arc::strong_count(labels) == 1));
    assert_eq!(engine.stats().day_files, 30);
    let of_last_day = engine.select(&[Matcher::equal("host", "pod-96996")], DAY0, i64::MAX, &SelectLimits::none()).unwrap();
    assert_eq!(of_last_day.iter().map(|series| series.ts.len()).collect::<Vec<_>>(), [2]);
}
