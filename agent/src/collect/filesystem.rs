//! Mounted file systems: `/proc/1/mountinfo` (or our own) and statfs.

use super::{Batch, Collector, read_optional, statfs::Statfs};
use regex::Regex;
use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

/// What is left out.
pub(crate) struct Exclude {
    pub(crate) mount_points: Option<Regex>,
    pub(crate) types: Option<Regex>,
}

/// Size, fill, inodes, read-only.
pub(crate) struct FileSystems {
    proc: PathBuf,
    exclude: Exclude,
    statfs: Statfs,
}

impl FileSystems {
    pub(crate) fn new(proc: &Path, exclude: Exclude, statfs: Statfs) -> Self {
        Self { proc: proc.to_owned(), exclude, statfs }
    }
}

#[derive(Debug, Eq, PartialEq)]
struct Mount {
    device: String,
    mount_point: String,
    fs_type: String,
    read_only: bool,
}

/// Lines of mountinfo, as `man 5 proc_pid_mountinfo` gives them. The last mount on a mount point is the visible one.
fn parse(text: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(mount_point), Some(options), Some(fs_type), Some(device)) = (left.get(4), left.get(5), right.first(), right.get(1))
        else {
            continue;
        };
        let super_options = right.get(2).unwrap_or(&"");
        let read_only = options.split(',').chain(super_options.split(',')).any(|option| option == "ro");
        let mount = Mount { device: unescape(device), mount_point: unescape(mount_point), fs_type: (*fs_type).to_owned(), read_only };
        mounts.retain(|other| other.mount_point != mount.mount_point);
        mounts.push(mount);
    }
    mounts
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| behind.get(..3)).flatten().and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 8).ok()
        });
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Collector for FileSystems {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let text = match read_optional(&self.proc.join("1/mountinfo")) {
            Ok(Some(text)) => text,
            // Without root, or in a container: what this process sees.
            _ => read_optional(&self.proc.join("self/mountinfo"))?.unwrap_or_default(),
        };
        let excluded = |regex: &Option<Regex>, text: &str| regex.as_ref().is_some_and(|regex| regex.is_match(text));
        let mut seen = HashSet::new();
        for mount in parse(&text) {
            if excluded(&self.exclude.mount_points, &mount.mount_point) || excluded(&self.exclude.types, &mount.fs_type) {
                continue;
            }
            if !seen.insert((mount.device.clone(), mount.mount_point.clone())) {
                continue;
            }
            let labels = [
                ("device", mount.device.as_str()),
                ("mountpoint", mount.mount_point.as_str()),
                ("fstype", mount.fs_type.as_str()),
                ("device_error", ""),
            ];
            let stat = self.statfs.ask(Path::new(&mount.mount_point));
            out.push("node_filesystem_device_error", &labels, f64::from(u8::from(stat.is_err())));
            out.push("node_filesystem_readonly", &labels, f64::from(u8::from(mount.read_only)));
            if let Ok(stat) = stat {
                #[expect(clippy::cast_precision_loss, reason = "sizes as node_exporter gives them")]
                let bytes = |blocks: u64| blocks as f64 * stat.block_bytes as f64;
                out.push("node_filesystem_size_bytes", &labels, bytes(stat.blocks));
                out.push("node_filesystem_free_bytes", &labels, bytes(stat.free_blocks));
                out.push("node_filesystem_avail_bytes", &labels, bytes(stat.available_blocks));
                #[expect(clippy::cast_precision_loss, reason = "counts as node_exporter gives them")]
                for (name, count) in [("node_filesystem_files", stat.files as f64), ("node_filesystem_files_free", stat.free_files as f64)]
                {
                    out.push(name, &labels, count);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read() {
        let text = "24 1 254:0 / / rw,noatime shared:1 - ext4 /dev/root rw\n\
                    36 24 0:30 / /mnt/my\\040disk ro,nosuid - nfs4 srv:/a\\134b rw,vers=4.2\n\
                    37 24 0:31 / /mnt/my\\040disk rw - tmpfs tmpfs rw\nbroken line\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].mount_point.as_str(), mounts[0].read_only), ("/", false));
        assert_eq!((mounts[1].mount_point.as_str(), mounts[1].fs_type.as_str()), ("/mnt/my disk", "tmpfs"));
        assert_eq!(unescape("srv:/a\\134b\\04"), "srv:/a\\b\\04");
    }
}
