//! What is counted while files are followed.

use super::lines::Stats;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted; the app makes metrics of it.
#[derive(Debug, Default)]
pub struct Counters {
    /// Lines (or events of several lines) taken by the sink.
    pub lines_total: AtomicU64,
    /// Bytes read for them.
    pub bytes_total: AtomicU64,
    /// Findings that were masked.
    pub masked_total: AtomicU64,
    /// Lines that could not be masked and were replaced as a whole.
    pub mask_failures_total: AtomicU64,
    /// Lines that were too long and cut.
    pub truncated_total: AtomicU64,
    /// Lines that `include` or `exclude_lines` left out.
    pub filtered_total: AtomicU64,
    /// Lines that sampling left out.
    pub sampled_total: AtomicU64,
    /// Lines that a source's rate limit left out.
    pub limited_total: AtomicU64,
    /// Bytes that were cut off or deleted before they were read.
    pub lost_bytes_total: AtomicU64,
    /// Files that went away while nobody looked: bytes written after the last look, if any, are lost uncounted.
    pub vanished_total: AtomicU64,
    /// Files that were cut or replaced in place.
    pub replaced_total: AtomicU64,
    /// Rotated files that were found again under another name, whole or compressed.
    pub rotated_total: AtomicU64,
    /// Files followed now.
    pub files: AtomicU64,
    /// Files held open now.
    pub open_files: AtomicU64,
    /// Bytes in the files that are not read yet.
    pub unread_bytes: AtomicU64,
    /// Files that cannot be read now.
    pub unreadable_files: AtomicU64,
    /// Files that match but are not followed, because there are more than `max_files`.
    pub ignored_files: AtomicU64,
    /// 1 while the sink is full and nothing is read.
    pub blocked: AtomicU64,
    /// Sources beside files that wait now, because the sink is full.
    pub blocked_streams: AtomicU64,
    /// Sources beside files that do not work now, such as a listener whose port is taken.
    pub failing_streams: AtomicU64,
    /// Times that the journal's entries behind the last one that was read were gone.
    pub journal_gaps_total: AtomicU64,
    /// Messages of syslog over UDP that the kernel dropped, because they were not read in time.
    pub syslog_dropped_total: AtomicU64,
    /// Connections of syslog now.
    pub syslog_connections: AtomicU64,
    /// Connections of syslog that were refused or ended: too many, too slow, idle.
    pub syslog_refused_total: AtomicU64,
}

impl Counters {
    /// Lines were taken, and what was noted while they were made.
    pub(super) fn count(&self, lines: u64, bytes: u64, stats: &Stats) {
        for (counter, more) in [
            (&self.lines_total, lines),
            (&self.bytes_total, bytes),
            (&self.masked_total, stats.masked),
            (&self.mask_failures_total, stats.mask_failures),
            (&self.truncated_total, stats.truncated),
            (&self.filtered_total, stats.filtered),
            (&self.sampled_total, stats.sampled),
            (&self.limited_total, stats.limited),
        ] {
            add(counter, more);
        }
    }
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

pub(super) fn set(gauge: &AtomicU64, value: usize) {
    gauge.store(value as u64, Ordering::Relaxed);
}
