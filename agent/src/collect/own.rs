//! What the agent itself uses.

use super::{Batch, cpu::USER_HZ};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The agent's own process.
pub(crate) struct Own {
    dir: PathBuf,
}

impl Own {
    pub(crate) fn new(proc: &Path) -> Self {
        Self { dir: proc.join("self") }
    }

    /// Adds what can be read; the rest is left out.
    pub(crate) fn collect(&self, out: &mut Batch<'_>) {
        out.push("shipwatch_agent_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        let read = |file: &str| fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        if let Some(seconds) = cpu_seconds(&read("stat")) {
            out.push("process_cpu_seconds_total", &[], seconds);
        }
        if let Some(bytes) = resident_bytes(&read("status")) {
            out.push("process_resident_memory_bytes", &[], bytes);
        }
        if let Ok(open) = fs::read_dir(self.dir.join("fd")) {
            let open = u32::try_from(open.count()).unwrap_or(u32::MAX);
            out.push("process_open_fds", &[], f64::from(open));
        }
        let limits = read("limits");
        if let Some(maximum) =
            limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_ascii_whitespace().next()?.parse().ok())
        {
            out.push("process_max_fds", &[], maximum);
        }
    }
}

/// User and system time; the name in brackets may hold anything, so columns are counted behind the last bracket.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let columns: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks: f64 = columns.get(11)?.parse::<f64>().ok()? + columns.get(12)?.parse::<f64>().ok()?;
    Some(ticks / USER_HZ)
}

fn resident_bytes(status: &str) -> Option<f64> {
    let kib: f64 = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_read() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 9 0 100 1 2";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(resident_bytes("VmPeak:\t1 kB\nVmRSS:\t    2 kB\n"), Some(2048.0));
    }
}
