//! What a process uses, as the kernel tells in `/proc`.

use crate::float;
use anyhow::{Context as _, Result};
use std::{collections::BTreeMap, fs, time::Duration};

/// The kernel counts CPU time in `/proc` in hundredths of a second, whatever its own tick is.
const TICK: Duration = Duration::from_millis(10);

/// One look at a process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Most resident memory so far.
    pub peak_rss_bytes: u64,
    /// Resident memory with shared pages divided among those that share them.
    pub pss_bytes: u64,
    /// User and system time of all its threads so far.
    pub cpu: Duration,
}

impl Usage {
    /// Looks at a process.
    ///
    /// # Errors
    /// It is gone, or belongs to somebody else.
    pub fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).with_context(|| format!("/proc/{pid}/{file}"));
        let (status, rollup, stat) = (read("status")?, read("smaps_rollup")?, read("stat")?);
        let bytes = |text: &str, key: &str| kib(text, key).with_context(|| format!("{key} of process {pid}")).map(|kib| kib * 1024);
        Ok(Self {
            rss_bytes: bytes(&status, "VmRSS:")?,
            peak_rss_bytes: bytes(&status, "VmHWM:")?,
            pss_bytes: bytes(&rollup, "Pss:")?,
            cpu: cpu(&stat).with_context(|| format!("CPU time of process {pid}"))?,
        })
    }
}

/// CPU time by name of the thread; threads of one name together, ended threads left out.
#[must_use]
pub fn threads(pid: u32) -> BTreeMap<String, Duration> {
    let mut all = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |file: &str| fs::read_to_string(thread.path().join(file)).ok();
        let (Some(name), Some(stat)) = (read("comm"), read("stat")) else { continue };
        *all.entry(name.trim().to_owned()).or_default() += cpu(&stat).unwrap_or_default();
    }
    all
}

fn kib(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_ascii_whitespace().next()?.parse().ok()
}

/// The name in brackets may hold anything, so columns are counted behind the last bracket.
fn cpu(stat: &str) -> Option<Duration> {
    let mut columns = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || columns.next()?.parse::<u32>().ok();
    Some(TICK * (ticks()? + ticks()?))
}

/// The value at this part of the way through, `0.5` for the median. Sorts; nothing for no values.
pub fn quantile(values: &mut [u64], part: f64) -> u64 {
    values.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "part is within 0..=1")]
    let at = (float(values.len().saturating_sub(1) as u64) * part).round() as usize;
    values.get(at).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 9 0 100 1 2";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(kib("VmPeak:\t1 kB\nVmRSS:\t    2 kB\n", "VmRSS:"), Some(2));
        assert_eq!((cpu("42 (a"), kib("", "Pss:")), (None, None));
    }

    #[test]
    fn this_process_is_read() {
        let own = Usage::of(std::process::id()).unwrap();
        assert!(own.pss_bytes > 0 && own.pss_bytes <= own.rss_bytes && own.rss_bytes <= own.peak_rss_bytes, "{own:?}");
        assert!(!threads(std::process::id()).is_empty());
    }

    #[test]
    fn quantiles() {
        let mut values: Vec<u64> = (1..=101).rev().collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|part| quantile(&mut values, part)), [1, 51, 100, 101]);
        assert_eq!(quantile(&mut [], 0.5), 0);
    }
}
