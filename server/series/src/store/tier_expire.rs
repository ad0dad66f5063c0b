//! Deleting summaries that are kept no longer, and keeping the store within its size.
//!
//! # Invariants
//! - Of what is in the way of `retention.max_bytes` that goes first which has the largest part of its time behind it, so that
//!   samples and summaries shrink alike. The newest day of samples never goes.

use super::{
    DAY_MS, Engine,
    expire::{Layout, RetainReport, Verdict, delete, environments, take_out, verdict},
    index_file::IndexReader,
    read_lock,
    tier::{MIGRATIONS, SLOT_BITS, Tier},
    tiers,
};
use crate::error::Error;
use shipwatch_common::time::UnixMs;
use std::fs;

const SUMMARIES: Layout = Layout { migrations: MIGRATIONS, key_bits: SLOT_BITS, window: |_, _| 0, has_chunks: false };

/// A file that may go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum File {
    Day(i64),
    Tier(Tier, i64),
}

/// Which of files, each with its end and the moment before which its kind expires, goes first.
fn first_to_go(files: impl IntoIterator<Item = (File, UnixMs, UnixMs)>, now_ms: UnixMs) -> Option<File> {
    let part = |(_, end, earliest): &(File, UnixMs, UnixMs)| (now_ms - end) as f64 / (now_ms - earliest).max(1) as f64;
    // Of equal ones the first.
    files.into_iter().reduce(|a, b| if part(&b) > part(&a) { b } else { a }).map(|(file, ..)| file)
}

impl Engine {
    pub(super) fn expire_tiers(&self, now_ms: UnixMs, report: &mut RetainReport) -> Result<(), Error> {
        for entry in fs::read_dir(&self.dir).map_err(|e| Error::io("list", &self.dir, &e))? {
            let entry = entry.map_err(|e| Error::io("list", &self.dir, &e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((tier, file)) = name.find(".db").and_then(|at| Tier::parse_name(&name[..at + 3])) else { continue };
            let end = tier.end_of(file) * DAY_MS;
            let cutoffs = tiers::cutoffs(&self.config, tier, now_ms);
            if name.ends_with("-wal") || name.ends_with("-shm") {
                continue;
            }
            if end <= cutoffs.earliest {
                self.delete_tier(tier, file, &name, report)?;
            } else if end <= cutoffs.latest && Tier::parse_name(&name).is_some() {
                let found = IndexReader::open(&entry.path(), MIGRATIONS).and_then(|index| environments(&index));
                let done = found.and_then(|envs| match verdict(&cutoffs, end, envs) {
                    Verdict::Keep => Ok(()),
                    Verdict::Delete => self.delete_tier(tier, file, &name, report),
                    Verdict::TakeOut(envs) => self.take_out_of_tier(tier, file, &envs, report),
                });
                match done {
                    Err(Error::Corrupt { reason, .. }) => self.put_tier_aside(tier, file, reason)?,
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Deletes a file; the name may be that of a damaged one.
    fn delete_tier(&self, tier: Tier, file: i64, name: &str, report: &mut RetainReport) -> Result<(), Error> {
        if Tier::parse_name(name).is_some() {
            self.tiers.forget(tier, file);
            self.summaries_changed();
        }
        report.bytes += delete(&self.dir.join(name))?;
        report.files.push(name.to_owned());
        Ok(())
    }

    fn take_out_of_tier(&self, tier: Tier, file: i64, envs: &[String], report: &mut RetainReport) -> Result<(), Error> {
        let path = self.tier_path(tier, file);
        let size = || fs::metadata(&path).map_or(0, |meta| meta.len());
        let before = size();
        take_out(&SUMMARIES, file, &path, envs)?;
        self.tiers.forget_readers();
        self.summaries_changed();
        report.bytes += before.saturating_sub(size());
        Ok(())
    }

    pub(super) fn shrink_to(&self, max_bytes: u64, now_ms: UnixMs, report: &mut RetainReport) -> Result<(), Error> {
        if max_bytes == 0 {
            return Ok(());
        }
        loop {
            let stats = self.stats();
            if stats.head_bytes + stats.day_bytes + stats.tier_bytes <= max_bytes {
                return Ok(());
            }
            let raw = self.config.cutoffs(now_ms).earliest;
            let mut days: Vec<i64> = read_lock(&self.days).keys().copied().collect();
            days.pop();
            let days = days.into_iter().map(|day| (File::Day(day), (day + 1) * DAY_MS, raw));
            let summaries = self.tiers.files().into_iter().map(|(tier, file)| {
                let earliest = tiers::cutoffs(&self.config, tier, now_ms).earliest;
                (File::Tier(tier, file), tier.end_of(file) * DAY_MS, earliest)
            });
            match first_to_go(days.chain(summaries), now_ms) {
                Some(File::Day(day)) => self.delete_day(day, now_ms, report)?,
                Some(File::Tier(tier, file)) => self.delete_tier(tier, file, &tier.file_name(file), report)?,
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_used_up_most_of_its_time_goes_first() {
        let days = |count: i64| count * DAY_MS;
        let now = days(20_000);
        let day = (File::Day(1), now - days(20), now - days(30));
        let five = |age| (File::Tier(Tier::FiveMinutes, 2), now - days(age), now - days(400));
        let hour = |age| (File::Tier(Tier::OneHour, 3), now - days(age), 0);
        let first = |files: &[_]| first_to_go(files.iter().copied(), now);
        assert_eq!(first(&[day, five(200), hour(3_000)]), Some(day.0));
        assert_eq!(first(&[day, five(300), hour(3_000)]), Some(five(0).0));
        assert_eq!(first(&[five(10), hour(3_000)]), Some(hour(0).0));
        assert_eq!(first(&[]), None);
    }
}
