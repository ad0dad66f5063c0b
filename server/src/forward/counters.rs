//! What is counted for a target, and its text in `/metrics`.

use super::queue::{Appended, Pending};
use shipwatch_common::time::UnixMs;
use std::{
    fmt::Write as _,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};

/// Why samples were not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Dropped {
    /// The target said that it never takes them.
    Refused,
    /// A 2.0 target took the request without them.
    NotWritten,
    /// Older than `max_age`.
    TooOld,
    /// The queue was full and they were the oldest.
    QueueFull,
    /// They could not be written to the queue.
    NotQueued,
    /// The queue's file is damaged.
    Damaged,
}

impl Dropped {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Refused, "refused"),
        (Self::NotWritten, "not_written"),
        (Self::TooOld, "too_old"),
        (Self::QueueFull, "queue_full"),
        (Self::NotQueued, "not_queued"),
        (Self::Damaged, "damaged"),
    ];
}

/// Totals since the start of the process, and where the target stands.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) queued_samples: AtomicU64,
    pub(super) sent_samples: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) failed_requests: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) fallbacks: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
    pub(super) highest_sent_ms: AtomicI64,
    pub(super) highest_queued_ms: AtomicI64,
    /// Requests without a good answer since the last good one.
    pub(super) down: AtomicU64,
    /// When the first of the samples that are being sent was queued; 0 when nothing waits.
    pub(super) waiting_since_ms: AtomicI64,
}

impl Counters {
    pub(super) fn drop(&self, why: Dropped, samples: u64) {
        self.dropped[why as usize].fetch_add(samples, Relaxed);
    }

    pub(super) fn lost(&self, lost: &Appended) {
        self.drop(Dropped::QueueFull, lost.oldest);
        self.drop(Dropped::NotQueued, lost.newest);
    }

    #[cfg(test)]
    pub(super) fn dropped(&self, why: Dropped) -> u64 {
        self.dropped[why as usize].load(Relaxed)
    }

    /// Seconds for which the oldest sample waits.
    pub(super) fn delay_seconds(&self, now_ms: UnixMs) -> f64 {
        match self.waiting_since_ms.load(Relaxed) {
            0 => 0.0,
            since => seconds(now_ms.saturating_sub(since).max(0)),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds and counts stay far below 2^53")]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

/// A target's numbers, for [`text`].
#[derive(Debug)]
pub(super) struct Numbers<'a> {
    pub(super) target: &'a str,
    pub(super) counters: &'a Counters,
    pub(super) pending: Pending,
}

/// One metric's name, type, help, and its value for a target.
type Metric = (&'static str, &'static str, &'static str, fn(&Numbers<'_>, UnixMs) -> f64);

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const METRICS: [Metric; 13] = [
    ("queued_samples_total", "counter", "Samples put into the queue.", |n, _| n.counters.queued_samples.load(Relaxed) as f64),
    ("sent_samples_total", "counter", "Samples that the target took.", |n, _| n.counters.sent_samples.load(Relaxed) as f64),
    ("sent_bytes_total", "counter", "Bytes of the requests that the target took.", |n, _| n.counters.sent_bytes.load(Relaxed) as f64),
    ("requests_total", "counter", "Requests.", |n, _| n.counters.requests.load(Relaxed) as f64),
    ("failed_requests_total", "counter", "Requests that the target did not take.", |n, _| n.counters.failed_requests.load(Relaxed) as f64),
    ("retries_total", "counter", "Requests that are tried again.", |n, _| n.counters.retries.load(Relaxed) as f64),
    ("fallbacks_total", "counter", "Times that 1.0 was taken since the target does not understand 2.0.", |n, _| {
        n.counters.fallbacks.load(Relaxed) as f64
    }),
    ("pending_samples", "gauge", "Samples that wait.", |n, _| n.pending.samples as f64),
    ("pending_bytes", "gauge", "Bytes on disk that wait.", |n, _| n.pending.bytes as f64),
    ("highest_queued_timestamp_seconds", "gauge", "Time of the newest sample that was queued.", |n, _| {
        seconds(n.counters.highest_queued_ms.load(Relaxed))
    }),
    ("highest_sent_timestamp_seconds", "gauge", "Time of the newest sample that was sent.", |n, _| {
        seconds(n.counters.highest_sent_ms.load(Relaxed))
    }),
    ("delay_seconds", "gauge", "For how long the oldest sample waits.", |n, now| n.counters.delay_seconds(now)),
    ("up", "gauge", "Whether the last request was answered well.", |n, _| f64::from(u8::from(n.counters.is_up()))),
];

impl Counters {
    /// Whether the target answers.
    fn is_up(&self) -> bool {
        self.down.load(Relaxed) == 0
    }
}

/// All targets' numbers as Prometheus' text.
pub(super) fn text(all: &[Numbers<'_>], now_ms: UnixMs) -> String {
    let mut text = String::new();
    if all.is_empty() {
        return text;
    }
    // Writing to a String cannot fail.
    for (name, kind, help, value) in METRICS {
        let _infallible = writeln!(text, "# HELP shipwatch_forward_{name} {help}\n# TYPE shipwatch_forward_{name} {kind}");
        for one in all {
            let _infallible = writeln!(text, "shipwatch_forward_{name}{{target=\"{}\"}} {}", one.target, value(one, now_ms));
        }
    }
    let name = "shipwatch_forward_dropped_samples_total";
    let _infallible = writeln!(text, "# HELP {name} Samples that are not sent, by reason.\n# TYPE {name} counter");
    for one in all {
        for (why, reason) in Dropped::ALL {
            let count = one.counters.dropped[why as usize].load(Relaxed);
            let _infallible = writeln!(text, "{name}{{target=\"{}\",reason=\"{reason}\"}} {count}", one.target);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_its_line_under_one_head() {
        let (a, b) = (Counters::default(), Counters::default());
        a.sent_samples.store(5, Relaxed);
        b.drop(Dropped::TooOld, 3);
        b.waiting_since_ms.store(1_000, Relaxed);
        let pending = Pending { samples: 7, bytes: 9 };
        let all = [Numbers { target: "a", counters: &a, pending }, Numbers { target: "b", counters: &b, pending }];
        let text = text(&all, 3_500);
        for line in [
            "shipwatch_forward_sent_samples_total{target=\"a\"} 5",
            "shipwatch_forward_pending_samples{target=\"b\"} 7",
            "shipwatch_forward_delay_seconds{target=\"a\"} 0",
            "shipwatch_forward_delay_seconds{target=\"b\"} 2.5",
            "shipwatch_forward_dropped_samples_total{target=\"b\",reason=\"too_old\"} 3",
            "shipwatch_forward_up{target=\"a\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("# TYPE shipwatch_forward_sent_samples_total").count(), 1);
        assert!(Dropped::ALL.iter().enumerate().all(|(at, (why, _))| *why as usize == at));
    }
}
