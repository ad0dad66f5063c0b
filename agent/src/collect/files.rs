//! Tables of the kernel that fill up: open files, tracked connections.

use super::{Batch, Collector, read_optional, unexpected};
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

/// `/proc/sys/net/netfilter`.
pub(crate) struct ConnTrack(PathBuf);

impl ConnTrack {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("sys/net/netfilter"))
    }
}

impl Collector for ConnTrack {
    fn name(&self) -> &'static str {
        "conntrack"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        for (file, name) in [("nf_conntrack_count", "node_nf_conntrack_entries"), ("nf_conntrack_max", "node_nf_conntrack_entries_limit")] {
            let path = self.0.join(file);
            if let Some(text) = read_optional(&path)? {
                out.push(name, &[], text.trim().parse().map_err(|_| unexpected(&path))?);
            }
        }
        Ok(())
    }
}
