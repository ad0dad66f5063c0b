//! `/proc/diskstats`.

use super::{Batch, Collector, read_optional};
use regex::Regex;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Reads, writes and time per block device.
pub(crate) struct DiskStats {
    path: PathBuf,
    exclude: Option<Regex>,
}

impl DiskStats {
    pub(crate) fn new(proc: &Path, exclude: Option<Regex>) -> Self {
        Self { path: proc.join("diskstats"), exclude }
    }
}

/// Sectors of diskstats are always 512 bytes, whatever the device's own are.
const SECTOR: f64 = 512.0;
const MS: f64 = 1e-3;

/// Name and factor of each column behind the device's name, as the kernel's `Documentation/admin-guide/iostats.rst` orders them.
const COLUMNS: [(&str, f64); 17] = [
    ("node_disk_reads_completed_total", 1.0),
    ("node_disk_reads_merged_total", 1.0),
    ("node_disk_read_bytes_total", SECTOR),
    ("node_disk_read_time_seconds_total", MS),
    ("node_disk_writes_completed_total", 1.0),
    ("node_disk_writes_merged_total", 1.0),
    ("node_disk_written_bytes_total", SECTOR),
    ("node_disk_write_time_seconds_total", MS),
    ("node_disk_io_now", 1.0),
    ("node_disk_io_time_seconds_total", MS),
    ("node_disk_io_time_weighted_seconds_total", MS),
    ("node_disk_discards_completed_total", 1.0),
    ("node_disk_discards_merged_total", 1.0),
    ("node_disk_discarded_sectors_total", 1.0),
    ("node_disk_discard_time_seconds_total", MS),
    ("node_disk_flush_requests_total", 1.0),
    ("node_disk_flush_requests_time_seconds_total", MS),
];

impl Collector for DiskStats {
    fn name(&self) -> &'static str {
        "diskstats"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.path)? else { return Ok(()) };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace().skip(2);
            let Some(device) = words.next() else { continue };
            if self.exclude.as_ref().is_some_and(|regex| regex.is_match(device)) {
                continue;
            }
            for ((name, factor), word) in COLUMNS.iter().zip(words) {
                if let Ok(value) = word.parse::<f64>() {
                    // Milliseconds divided, not multiplied: 12345 ms are 12.345 s to the last bit.
                    let value = if (*factor - MS).abs() < f64::EPSILON { value / 1000.0 } else { value * factor };
                    out.push(name, &[("device", device)], value);
                }
            }
        }
        Ok(())
    }
}
