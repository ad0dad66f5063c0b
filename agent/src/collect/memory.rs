//! `/proc/meminfo` and `/proc/vmstat`.

use super::{Batch, Collector, read_optional, unexpected};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Every key of meminfo.
pub(crate) struct MemInfo(PathBuf);

impl MemInfo {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("meminfo"))
    }
}

/// `(name, value)`: keys in kB become bytes and get the suffix, plain counts do not; brackets become underscores.
fn parse(text: &str) -> Vec<(String, f64)> {
    text.lines()
        .filter_map(|line| {
            let (key, rest) = line.split_once(':')?;
            let mut words = rest.split_ascii_whitespace();
            let value: f64 = words.next()?.parse().ok()?;
            let key = key.replace('(', "_").replace(')', "");
            Some(match words.next() {
                Some("kB") => (format!("node_memory_{key}_bytes"), value * 1024.0),
                _ => (format!("node_memory_{key}"), value),
            })
        })
        .collect()
}

impl Collector for MemInfo {
    fn name(&self) -> &'static str {
        "meminfo"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.0)? else { return Ok(()) };
        let values = parse(&text);
        if values.is_empty() {
            return Err(unexpected(&self.0));
        }
        for (name, value) in values {
            out.push(&name, &[], value);
        }
        Ok(())
    }
}

/// Paging, faults, out-of-memory kills.
pub(crate) struct VmStat(PathBuf);

impl VmStat {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("vmstat"))
    }
}

/// The default set of node_exporter: `^(oom_kill|pgpg|pswp|pg.*fault).*`.
fn is_wanted(key: &str) -> bool {
    ["oom_kill", "pgpg", "pswp"].iter().any(|prefix| key.starts_with(prefix)) || (key.starts_with("pg") && key.contains("fault"))
}

impl Collector for VmStat {
    fn name(&self) -> &'static str {
        "vmstat"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.0)? else { return Ok(()) };
        for line in text.lines() {
            let Some((key, value)) = line.split_once(' ') else { continue };
            if is_wanted(key)
                && let Ok(value) = value.trim().parse()
            {
                out.push(&format!("node_vmstat_{key}"), &[], value);
            }
        }
        Ok(())
    }
}
