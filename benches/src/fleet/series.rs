//! What a simulated host measures: the shape of node_exporter's families, with values that move as a host's do.
//!
//! # Invariants
//! - The same layout and seed give the same values.
//! - About a quarter of the series change between two ticks, as on real hosts; the first series counts the ticks.

use crate::random::Random;
use shipwatch_common::model::Labels;
use std::sync::Arc;

/// Value of the n-th tick is n, from 0: tells a lost sample from a doubled one.
pub const TICKS: &str = "shipwatch_bench_ticks";

/// How a value moves from tick to tick.
#[derive(Clone, Copy, Debug)]
enum Motion {
    /// Never.
    Still,
    /// Counts events; moves in this percentage of ticks, by up to `by`.
    Events { percent: u64, by: u64 },
    /// A counter of bytes; moves in this percentage of ticks.
    Bytes { percent: u64, by: u64 },
    /// A counter of seconds in hundredths.
    Seconds { percent: u64 },
    /// A gauge of pages of 4096 bytes that goes up and down.
    Pages,
    /// A gauge with two decimals, such as a load average.
    Decimals,
}

use Motion::{Bytes, Decimals, Events, Pages, Seconds, Still};

/// Name, a label that tells instances of the family apart, and the motion.
const FAMILIES: [(&str, &str, Motion); 48] = [
    ("node_cpu_seconds_total", "cpu", Seconds { percent: 60 }),
    ("node_cpu_guest_seconds_total", "cpu", Still),
    ("node_cpu_scaling_frequency_hertz", "cpu", Still),
    ("node_softnet_processed_total", "cpu", Events { percent: 70, by: 400 }),
    ("node_softnet_dropped_total", "cpu", Still),
    ("node_softnet_times_squeezed_total", "cpu", Still),
    ("node_schedstat_running_seconds_total", "cpu", Seconds { percent: 80 }),
    ("node_disk_reads_completed_total", "device", Events { percent: 15, by: 40 }),
    ("node_disk_reads_merged_total", "device", Still),
    ("node_disk_read_bytes_total", "device", Bytes { percent: 15, by: 1 << 20 }),
    ("node_disk_read_time_seconds_total", "device", Seconds { percent: 15 }),
    ("node_disk_writes_completed_total", "device", Events { percent: 35, by: 90 }),
    ("node_disk_written_bytes_total", "device", Bytes { percent: 35, by: 4 << 20 }),
    ("node_disk_io_time_seconds_total", "device", Seconds { percent: 35 }),
    ("node_disk_io_now", "device", Still),
    ("node_disk_discards_completed_total", "device", Still),
    ("node_disk_info", "device", Still),
    ("node_network_receive_bytes_total", "device", Bytes { percent: 70, by: 3 << 20 }),
    ("node_network_receive_packets_total", "device", Events { percent: 70, by: 4_000 }),
    ("node_network_receive_errs_total", "device", Still),
    ("node_network_receive_drop_total", "device", Still),
    ("node_network_receive_multicast_total", "device", Still),
    ("node_network_transmit_bytes_total", "device", Bytes { percent: 70, by: 2 << 20 }),
    ("node_network_transmit_packets_total", "device", Events { percent: 70, by: 3_000 }),
    ("node_network_transmit_errs_total", "device", Still),
    ("node_network_transmit_drop_total", "device", Still),
    ("node_network_up", "device", Still),
    ("node_network_mtu_bytes", "device", Still),
    ("node_network_speed_bytes", "device", Still),
    ("node_network_carrier_changes_total", "device", Still),
    ("node_network_flags", "device", Still),
    ("node_network_iface_id", "device", Still),
    ("node_filesystem_size_bytes", "mountpoint", Still),
    ("node_filesystem_avail_bytes", "mountpoint", Pages),
    ("node_filesystem_files", "mountpoint", Still),
    ("node_filesystem_files_free", "mountpoint", Still),
    ("node_filesystem_readonly", "mountpoint", Still),
    ("node_filesystem_device_error", "mountpoint", Still),
    ("node_memory_bytes", "kind", Pages),
    ("node_memory_fixed_bytes", "kind", Still),
    ("node_memory_hugepages", "kind", Still),
    ("node_vmstat_events", "kind", Events { percent: 40, by: 2_000 }),
    ("node_netstat_total", "kind", Still),
    ("node_netstat_segments_total", "kind", Events { percent: 50, by: 500 }),
    ("node_sockstat_used", "kind", Still),
    ("node_load", "minutes", Decimals),
    ("node_scrape_collector_success", "collector", Still),
    ("node_pressure_waiting_seconds_total", "resource", Still),
];

/// The series of every host, shared by all of them.
#[derive(Debug)]
pub struct Layout {
    series: Vec<(Arc<Labels>, Motion)>,
}

impl Layout {
    /// Exactly this many series; at least one.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let mut series = Vec::with_capacity(count.max(1));
        series.extend(labels(TICKS, None).map(|labels| (labels, Still)));
        for at in 0.. {
            let (name, label, motion) = FAMILIES[at % FAMILIES.len()];
            if series.len() >= count {
                break;
            }
            let value = format!("{label}{}", at / FAMILIES.len());
            series.extend(labels(name, Some((label, &value))).map(|labels| (labels, motion)));
        }
        Self { series }
    }

    /// Families with the number of series that a host has of each.
    pub fn families(&self) -> impl Iterator<Item = (&str, usize)> {
        let mut counts = std::collections::BTreeMap::new();
        for (labels, _) in &self.series {
            *counts.entry(labels.metric_name()).or_insert(0) += 1;
        }
        counts.into_iter()
    }

    /// Labels of a host's series, without the host itself.
    pub fn labels(&self) -> impl Iterator<Item = &Arc<Labels>> {
        self.series.iter().map(|(labels, _)| labels)
    }

    /// Series of a host.
    #[must_use]
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Never: there is at least the count of ticks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

fn labels(name: &str, instance: Option<(&str, &str)>) -> Option<Arc<Labels>> {
    // All are short and distinct.
    Labels::new([(Labels::NAME, name), ("job", "node")].into_iter().chain(instance)).ok().map(Arc::new)
}

/// One host's values.
#[derive(Debug)]
pub struct Host {
    layout: Arc<Layout>,
    whole: Vec<i64>,
    random: Random,
    ticks: i64,
}

impl Host {
    /// Values as if the host had run for some time.
    #[must_use]
    pub fn new(layout: Arc<Layout>, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let whole = layout
            .series
            .iter()
            .map(|(_, motion)| match motion {
                Still => i64::from(random.below(3) == 0) * whole(random.below(1 << 20)),
                Events { .. } | Seconds { .. } => whole(random.below(1 << 28)),
                Bytes { .. } => whole(random.below(1 << 40)),
                Pages => whole(random.below(1 << 22)),
                Decimals => whole(random.below(400)),
            })
            .collect();
        Self { layout, whole, random, ticks: 0 }
    }

    /// The next tick's samples.
    pub fn tick(&mut self) -> Vec<(Arc<Labels>, f64)> {
        let mut samples = Vec::with_capacity(self.layout.len());
        for ((labels, motion), number) in self.layout.series.iter().zip(&mut self.whole) {
            step(&mut self.random, *motion, number);
            samples.push((Arc::clone(labels), value(*motion, *number)));
        }
        if let Some(first) = samples.first_mut() {
            first.1 = float(self.ticks);
        }
        self.ticks += 1;
        samples
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "below 2^53")]
const fn float(number: i64) -> f64 {
    number as f64
}

fn step(random: &mut Random, motion: Motion, number: &mut i64) {
    let moves = |random: &mut Random, percent: u64| random.below(100) < percent;
    match motion {
        Still => {}
        Events { percent, by } | Bytes { percent, by } => {
            if moves(random, percent) {
                *number += 1 + whole(random.below(by));
            }
        }
        Seconds { percent } => {
            if moves(random, percent) {
                *number += 1 + whole(random.below(1_400));
            }
        }
        Pages => *number = (*number + whole(random.below(2_001)) - 1_000).max(0),
        Decimals => *number = (*number + whole(random.below(21)) - 10).max(0),
    }
}

fn value(motion: Motion, number: i64) -> f64 {
    match motion {
        Still | Events { .. } | Bytes { .. } => float(number),
        Pages => float(number * 4096),
        Seconds { .. } | Decimals => float(number) / 100.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn about_a_quarter_of_the_series_moves_and_ticks_are_counted() {
        let layout = Arc::new(Layout::new(534));
        let mut host = Host::new(Arc::clone(&layout), 7);
        let mut last = host.tick();
        assert_eq!(last.len(), 534);
        let names: BTreeSet<String> = last.iter().map(|(labels, _)| labels.to_string()).collect();
        assert_eq!(names.len(), 534, "two series have the same labels");
        let (mut changed, ticks) = (0, 200);
        for tick in 1..=ticks {
            let next = host.tick();
            assert_eq!((next[0].0.metric_name(), next[0].1), (TICKS, f64::from(tick)));
            changed += next.iter().zip(&last).filter(|(a, b)| a.1.to_bits() != b.1.to_bits()).count();
            last = next;
        }
        let part = changed as f64 / (534 * ticks) as f64;
        assert!((0.2..0.3).contains(&part), "{part} of the series changed per tick");
        assert_eq!(layout.families().map(|(_, count)| count).sum::<usize>(), 534);
    }

    #[test]
    fn seeds_repeat_and_differ() {
        let layout = Arc::new(Layout::new(50));
        let ticks = |seed| {
            let mut host = Host::new(Arc::clone(&layout), seed);
            (0..3).flat_map(|_| host.tick()).map(|(_, value)| value.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(ticks(1), ticks(1));
        assert_ne!(ticks(1), ticks(2));
    }
}
