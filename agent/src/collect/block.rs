//! `/proc/diskstats`, and what udev knows of the devices.

use super::{Batch, Collector, Roots, attribute, read_optional};
use regex::Regex;
use std::{collections::HashMap, io, path::PathBuf};

/// Reads, writes and time per block device.
pub(crate) struct DiskStats {
    path: PathBuf,
    block: PathBuf,
    udev: PathBuf,
    exclude: Option<Regex>,
    /// By device: labels of its info series. A device keeps them as long as it is there.
    known: HashMap<String, Info>,
}

/// Values of [`INFO`].
type Info = [String; 8];

const INFO: [&str; 8] = ["major", "minor", "path", "wwn", "model", "serial", "revision", "rotational"];

impl DiskStats {
    pub(crate) fn new(roots: &Roots, exclude: Option<Regex>) -> Self {
        let (path, block, udev) = (roots.proc.join("diskstats"), roots.sys.join("block"), roots.run.join("udev/data"));
        Self { path, block, udev, exclude, known: HashMap::new() }
    }

    fn info(&mut self, major: &str, minor: &str, device: &str, out: &mut Batch<'_>) {
        if self.known.get(device).is_none_or(|info| info[0] != major || info[1] != minor) {
            let text = attribute(&self.udev.join(format!("b{major}:{minor}"))).unwrap_or_default();
            let rotational = attribute(&self.block.join(device).join("queue/rotational")).unwrap_or_default();
            self.known.insert(device.to_owned(), info(major, minor, &text, rotational));
        }
        let Some(values) = self.known.get(device) else { return };
        let mut labels = vec![("device", device)];
        labels.extend(INFO.iter().copied().zip(values.iter().map(String::as_str)));
        out.push("node_disk_info", &labels, 1.0);
    }
}

/// From udev's lines `E:KEY=value`; the serial number is the first of three that is there, as node_exporter chooses it.
fn info(major: &str, minor: &str, udev: &str, rotational: String) -> Info {
    let get = |key: &str| udev.lines().find_map(|line| line.strip_prefix("E:")?.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
    let serial = ["SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"].iter().map(|key| get(key)).find(|serial| !serial.is_empty());
    let owned = [get("ID_PATH"), get("ID_WWN"), get("ID_MODEL"), serial.unwrap_or_default(), get("ID_REVISION")].map(str::to_owned);
    let [path, wwn, model, serial, revision] = owned;
    [major.to_owned(), minor.to_owned(), path, wwn, model, serial, revision, rotational]
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
        let mut there = Vec::new();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(major), Some(minor), Some(device)) = (words.next(), words.next(), words.next()) else { continue };
            if self.exclude.as_ref().is_some_and(|regex| regex.is_match(device)) {
                continue;
            }
            there.push(device);
            self.info(major, minor, device, out);
            for ((name, factor), word) in COLUMNS.iter().zip(words) {
                if let Ok(value) = word.parse::<f64>() {
                    // Milliseconds divided, not multiplied: 12345 ms are 12.345 s to the last bit.
                    let value = if (*factor - MS).abs() < f64::EPSILON { value / 1000.0 } else { value * factor };
                    out.push(name, &[("device", device)], value);
                }
            }
        }
        self.known.retain(|device, _| there.contains(&device.as_str()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn udev_names_the_drive() {
        let text =
            "S:disk/by-id/x\nE:ID_MODEL=QEMU_HARDDISK\nE:ID_MODEL_ENC=other\nE:ID_SERIAL=long\nE:ID_SERIAL_SHORT=S1\nE:ID_PATH=pci-0\n";
        let info = super::info("8", "0", text, "1".to_owned());
        assert_eq!(info, ["8", "0", "pci-0", "", "QEMU_HARDDISK", "S1", "", "1"]);
    }
}
