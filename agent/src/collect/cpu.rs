//! `/proc/stat` and `/proc/loadavg`.

use super::{Batch, Collector, read_optional, unexpected};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Ticks per second of `/proc/stat`: `USER_HZ`, which is 100 on every Linux that runs on servers.
pub(crate) const USER_HZ: f64 = 100.0;

const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// Time by processor and mode.
pub(crate) struct Cpu(PathBuf);

impl Cpu {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("stat"))
    }
}

/// `(cpu, mode values, guest values)` of each processor's line.
fn parse(text: &str) -> impl Iterator<Item = (&str, Vec<f64>)> {
    text.lines().filter_map(|line| {
        let mut words = line.strip_prefix("cpu")?.split_ascii_whitespace();
        let cpu = words.next().filter(|_| !line.starts_with("cpu "))?;
        Some((cpu, words.map_while(|word| word.parse::<f64>().ok()).map(|ticks| ticks / USER_HZ).collect()))
    })
}

impl Collector for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.0)? else { return Ok(()) };
        let mut any = false;
        for (cpu, values) in parse(&text) {
            any = true;
            for (mode, seconds) in MODES.iter().zip(&values) {
                out.push("node_cpu_seconds_total", &[("cpu", cpu), ("mode", mode)], *seconds);
            }
            for (mode, seconds) in ["user", "nice"].iter().zip(values.iter().skip(MODES.len())) {
                out.push("node_cpu_guest_seconds_total", &[("cpu", cpu), ("mode", mode)], *seconds);
            }
        }
        if any { Ok(()) } else { Err(unexpected(&self.0)) }
    }
}

/// Switches, interrupts, forks, boot time.
pub(crate) struct Stat(PathBuf);

impl Stat {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("stat"))
    }
}

impl Collector for Stat {
    fn name(&self) -> &'static str {
        "stat"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.0)? else { return Ok(()) };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let name = match words.next() {
                Some("intr") => "node_intr_total",
                Some("ctxt") => "node_context_switches_total",
                Some("btime") => "node_boot_time_seconds",
                Some("processes") => "node_forks_total",
                Some("procs_running") => "node_procs_running",
                Some("procs_blocked") => "node_procs_blocked",
                _ => continue,
            };
            let value = words.next().and_then(|word| word.parse().ok()).ok_or_else(|| unexpected(&self.0))?;
            out.push(name, &[], value);
        }
        Ok(())
    }
}

/// Load of 1, 5 and 15 minutes.
pub(crate) struct LoadAverage(PathBuf);

impl LoadAverage {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("loadavg"))
    }
}

impl Collector for LoadAverage {
    fn name(&self) -> &'static str {
        "loadavg"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.0)? else { return Ok(()) };
        let mut words = text.split_ascii_whitespace();
        for name in ["node_load1", "node_load5", "node_load15"] {
            let value = words.next().and_then(|word| word.parse().ok()).ok_or_else(|| unexpected(&self.0))?;
            out.push(name, &[], value);
        }
        Ok(())
    }
}

/// `/proc/schedstat`: time on and before a processor.
pub(crate) struct SchedStat(PathBuf);

impl SchedStat {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("schedstat"))
    }
}

/// `(cpu, running s, waiting s, timeslices)`, the last three columns of each processor's line.
fn parse_schedstat(text: &str) -> impl Iterator<Item = (&str, [f64; 3])> {
    text.lines().filter_map(|line| {
        let mut words = line.strip_prefix("cpu")?.split_ascii_whitespace();
        let cpu = words.next()?;
        let mut next = || words.by_ref().next()?.parse::<f64>().ok();
        for _ in 0..6 {
            next()?;
        }
        Some((cpu, [next()? / 1e9, next()? / 1e9, next()?]))
    })
}

impl Collector for SchedStat {
    fn name(&self) -> &'static str {
        "schedstat"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.0)? else { return Ok(()) };
        for (cpu, values) in parse_schedstat(&text) {
            let names = ["node_schedstat_running_seconds_total", "node_schedstat_waiting_seconds_total", "node_schedstat_timeslices_total"];
            for (name, value) in names.iter().zip(values) {
                out.push(name, &[("cpu", cpu)], value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedstat_is_read() {
        let text = "version 15\ntimestamp 15819019232\ncpu0 498494191 0 3533438552 2553969831 3853684107 2465731542 2045936778163039 343796328169361 4767485306\ndomain0 03 1 2\ncpu1 1 2 3\n";
        let all: Vec<_> = parse_schedstat(text).collect();
        assert_eq!(all, [("0", [2_045_936.778_163_039, 343_796.328_169_361, 4_767_485_306.0])]);
    }
}
