//! Tables of the kernel that fill up: open files, tracked connections.

use super::{Batch, Collector, number, read_optional, unexpected};
use std::{
    io,
    path::{Path, PathBuf},
};

/// `/proc/sys/fs/file-nr`.
pub(crate) struct FileDescriptors(PathBuf);

impl FileDescriptors {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("sys/fs/file-nr"))
    }
}

impl Collector for FileDescriptors {
    fn name(&self) -> &'static str {
        "filefd"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.0)? else { return Ok(()) };
        let values: Vec<f64> = text.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
        let [allocated, _, maximum] = values[..] else { return Err(unexpected(&self.0)) };
        out.push("node_filefd_allocated", &[], allocated);
        out.push("node_filefd_maximum", &[], maximum);
        Ok(())
    }
}

/// `/proc/sys/net/netfilter`, and what `/proc/net/stat/nf_conntrack` counts.
pub(crate) struct ConnTrack {
    limits: PathBuf,
    counters: PathBuf,
}

impl ConnTrack {
    pub(crate) fn new(proc: &Path) -> Self {
        Self { limits: proc.join("sys/net/netfilter"), counters: proc.join("net/stat/nf_conntrack") }
    }
}

impl Collector for ConnTrack {
    fn name(&self) -> &'static str {
        "conntrack"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        for (file, name) in [("nf_conntrack_count", "node_nf_conntrack_entries"), ("nf_conntrack_max", "node_nf_conntrack_entries_limit")] {
            let path = self.limits.join(file);
            if let Some(text) = read_optional(&path)? {
                out.push(name, &[], text.trim().parse().map_err(|_| unexpected(&path))?);
            }
        }
        // Readable by root only.
        let Ok(Some(text)) = read_optional(&self.counters) else { return Ok(()) };
        for (column, total) in sum_columns(&text) {
            if COUNTED.contains(&column) {
                out.push(&format!("node_nf_conntrack_stat_{column}"), &[], total);
            }
        }
        Ok(())
    }
}

/// What node_exporter shows of the counters.
const COUNTED: [&str; 8] = ["found", "invalid", "ignore", "insert", "insert_failed", "drop", "early_drop", "search_restart"];

/// A line of names, then a line of hexadecimal numbers for each processor; gives the sum of each column.
fn sum_columns(text: &str) -> Vec<(&str, f64)> {
    let mut lines = text.lines();
    let mut totals: Vec<(&str, f64)> = lines.next().unwrap_or_default().split_ascii_whitespace().map(|name| (name, 0.0)).collect();
    for line in lines {
        for (total, word) in totals.iter_mut().zip(line.split_ascii_whitespace()) {
            total.1 += u32::from_str_radix(word, 16).map_or(0.0, f64::from);
        }
    }
    totals
}

/// `/proc/sys/kernel/random`.
pub(crate) struct Entropy(PathBuf);

impl Entropy {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("sys/kernel/random"))
    }
}

impl Collector for Entropy {
    fn name(&self) -> &'static str {
        "entropy"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        for (file, name) in [("entropy_avail", "node_entropy_available_bits"), ("poolsize", "node_entropy_pool_size_bits")] {
            if let Some(value) = number(&self.0.join(file)) {
                out.push(name, &[], value);
            }
        }
        Ok(())
    }
}

/// `/sys/fs/selinux`.
pub(crate) struct SeLinux(PathBuf);

impl SeLinux {
    pub(crate) fn new(sys: &Path) -> Self {
        Self(sys.join("fs/selinux"))
    }
}

impl Collector for SeLinux {
    fn name(&self) -> &'static str {
        "selinux"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let enforcing = number(&self.0.join("enforce"));
        out.push("node_selinux_enabled", &[], f64::from(u8::from(enforcing.is_some())));
        if let Some(enforcing) = enforcing {
            out.push("node_selinux_current_mode", &[], enforcing);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_summed_over_processors() {
        let text = "entries  found drop\n0000000a  00000001 00000010\n0000000a  00000002 000000ff\n";
        assert_eq!(super::sum_columns(text), [("entries", 20.0), ("found", 3.0), ("drop", 271.0)]);
        assert_eq!(super::sum_columns(""), []);
    }
}
