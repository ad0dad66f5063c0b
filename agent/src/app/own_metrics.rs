//! The agent's counters as series.

use crate::{collect::Batch, spool::lanes::Spool, tail, uplink};
use shipwatch_common::protocol::Lane;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Where the counters are.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    pub(super) spool: Arc<Spool>,
    pub(super) tail: Arc<tail::Counters>,
    pub(super) log_metrics: tail::Metrics,
    pub(super) uplink: Arc<uplink::Counters>,
    pub(super) lost_samples: Arc<AtomicU64>,
}

impl Sources {
    /// Adds them to a tick.
    pub(super) fn add(&self, batch: &mut Batch<'_>) {
        for lane in Lane::ALL {
            let queue = self.spool.lane(lane);
            let labels = [("lane", lane.as_str())];
            put(batch, "shipwatch_agent_spool_pending_bytes", &labels, queue.pending_bytes());
            put(batch, "shipwatch_agent_spool_dropped_records_total", &labels, queue.dropped_records());
            put(batch, "shipwatch_agent_spool_damaged_bytes_total", &labels, queue.damaged_bytes());
        }
        put(batch, "shipwatch_agent_lost_samples_total", &[], self.lost_samples.load(Ordering::Relaxed));
        for (name, counter) in [
            ("shipwatch_agent_tail_lines_total", &self.tail.lines_total),
            ("shipwatch_agent_tail_bytes_total", &self.tail.bytes_total),
            ("shipwatch_agent_tail_masked_total", &self.tail.masked_total),
            ("shipwatch_agent_tail_mask_failures_total", &self.tail.mask_failures_total),
            ("shipwatch_agent_tail_truncated_lines_total", &self.tail.truncated_total),
            ("shipwatch_agent_tail_lost_bytes_total", &self.tail.lost_bytes_total),
            ("shipwatch_agent_tail_filtered_lines_total", &self.tail.filtered_total),
            ("shipwatch_agent_tail_sampled_lines_total", &self.tail.sampled_total),
            ("shipwatch_agent_tail_limited_lines_total", &self.tail.limited_total),
            ("shipwatch_agent_tail_vanished_files_total", &self.tail.vanished_total),
            ("shipwatch_agent_tail_replaced_files_total", &self.tail.replaced_total),
            ("shipwatch_agent_tail_found_rotations_total", &self.tail.rotated_total),
            ("shipwatch_agent_tail_files", &self.tail.files),
            ("shipwatch_agent_tail_open_files", &self.tail.open_files),
            ("shipwatch_agent_tail_unread_bytes", &self.tail.unread_bytes),
            ("shipwatch_agent_tail_ignored_files", &self.tail.ignored_files),
            ("shipwatch_agent_tail_unreadable_files", &self.tail.unreadable_files),
            ("shipwatch_agent_tail_blocked", &self.tail.blocked),
            ("shipwatch_agent_tail_blocked_streams", &self.tail.blocked_streams),
            ("shipwatch_agent_tail_failing_streams", &self.tail.failing_streams),
            ("shipwatch_agent_tail_journal_gaps_total", &self.tail.journal_gaps_total),
            ("shipwatch_agent_syslog_dropped_total", &self.tail.syslog_dropped_total),
            ("shipwatch_agent_syslog_connections", &self.tail.syslog_connections),
            ("shipwatch_agent_syslog_refused_connections_total", &self.tail.syslog_refused_total),
            ("shipwatch_agent_uplink_sessions_total", &self.uplink.sessions_total),
            ("shipwatch_agent_uplink_sent_bytes_total", &self.uplink.sent_bytes_total),
            ("shipwatch_agent_uplink_sent_metrics_bytes_total", &self.uplink.sent_metrics_bytes_total),
            ("shipwatch_agent_uplink_sent_samples_total", &self.uplink.sent_samples_total),
            ("shipwatch_agent_uplink_sent_records_total", &self.uplink.sent_records_total),
            ("shipwatch_agent_uplink_sent_udp_bytes_total", &self.uplink.sent_udp_bytes_total),
            ("shipwatch_agent_uplink_sent_datagrams_total", &self.uplink.sent_datagrams_total),
            ("shipwatch_agent_uplink_refused_total", &self.uplink.refused_total),
        ] {
            put(batch, name, &[], counter.load(Ordering::Relaxed));
        }
        self.log_metrics.each(|name, labels, value| batch.push(name, labels, value));
    }
}

fn put(batch: &mut Batch<'_>, name: &str, labels: &[(&str, &str)], count: u64) {
    #[expect(clippy::cast_precision_loss, reason = "counters stay far below 2^53")]
    batch.push(name, labels, count as f64);
}
