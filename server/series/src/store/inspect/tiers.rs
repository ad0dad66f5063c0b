//! Files of summaries: are they whole, and what is in them.

use super::{Damage, GROUP, Verdict, quick_check};
use crate::{
    error::Error,
    store::{
        index::Lookup as _,
        sqlite::{self, Mode},
        tier::{MIGRATIONS, Tier, TierReader},
    },
    summary::{Bucket, Columns},
};
use serde::Serialize;
use std::{fs, path::Path};

/// What one file of summaries holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TierStats {
    /// `2026-11-23.5m.db`.
    pub file: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Days that are summarized in it.
    pub days: u64,
    /// Days of these that late samples came into since; they are made again.
    pub stale_days: u64,
    /// Days of these of which samples have expired, all or those of some environments.
    pub expired_days: u64,
    /// Series.
    pub series: u64,
    /// Buckets.
    pub buckets: u64,
    /// Samples that were put into them.
    pub samples: u64,
    /// Bytes for each of these samples, index included.
    pub bytes_per_sample: f64,
}

/// Files of summaries of a directory, oldest first.
fn files(dir: &Path) -> Result<Vec<(i64, Tier)>, Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, &e))? {
        let entry = entry.map_err(|e| Error::io("list", dir, &e))?;
        files.extend(entry.file_name().to_str().and_then(Tier::parse_name).map(|(tier, file)| (file, tier)));
    }
    files.sort_unstable();
    Ok(files)
}

/// Gives the buckets of each series and day to `take`, or what is wrong with them.
fn for_buckets(reader: &TierReader, tier: Tier, file: i64, take: &mut dyn FnMut(Result<Vec<Bucket>, String>)) -> Result<u64, Error> {
    let all = reader.index.all()?;
    for some in all.chunks(GROUP) {
        let labels = reader.index.labels(some)?;
        let days = (file, tier.end_of(file) - 1);
        reader.buckets(some, days, Columns::ALL, &|_, _| true, &mut |at, day, buckets| {
            let series = at.map_or_else(|| "a group".to_owned(), |at| labels[at].to_string());
            let date = Tier::FiveMinutes.file_name(day);
            take(buckets.map_err(|reason| format!("{}, {series}: {reason}", date.trim_end_matches(".5m.db"))));
        })?;
    }
    Ok(all.len() as u64)
}

/// Reads every file of summaries.
pub(super) fn verify(dir: &Path, progress: &mut impl FnMut(&Path), verdict: &mut Verdict) -> Result<(), Error> {
    for (file, tier) in files(dir)? {
        let path = dir.join(tier.file_name(file));
        progress(&path);
        let done = verify_file(&path, tier, file, verdict);
        verdict.file_done(&path, done);
    }
    Ok(())
}

fn verify_file(path: &Path, tier: Tier, file: i64, verdict: &mut Verdict) -> Result<(), Error> {
    {
        let connection = sqlite::open(path, Mode::Read, MIGRATIONS)?;
        quick_check(&connection, path, verdict)?;
    }
    let reader = TierReader::open(path, tier, file)?;
    reader.check()?;
    reader.days()?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    for_buckets(&reader, tier, file, &mut |buckets| match buckets {
        Ok(buckets) => verdict.buckets += buckets.len() as u64,
        Err(reason) => verdict.damage.push(Damage { file: name.clone(), reason }),
    })?;
    Ok(())
}

/// What each file of summaries holds.
///
/// # Errors
/// A file that cannot be read: `verify` tells more.
pub fn tier_stats(dir: &Path) -> Result<Vec<TierStats>, Error> {
    files(dir)?.into_iter().map(|(file, tier)| file_stats(dir, tier, file)).collect()
}

fn file_stats(dir: &Path, tier: Tier, file: i64) -> Result<TierStats, Error> {
    let path = dir.join(tier.file_name(file));
    let reader = TierReader::open(&path, tier, file)?;
    let days = reader.days()?;
    let (mut count, mut samples) = (0, 0);
    let series = for_buckets(&reader, tier, file, &mut |found| {
        let found = found.unwrap_or_default();
        count += found.len() as u64;
        samples += found.iter().map(|bucket| u64::from(bucket.count)).sum::<u64>();
    })?;
    let bytes = fs::metadata(&path).map_err(|e| Error::io("read", &path, &e))?.len();
    Ok(TierStats {
        file: tier.file_name(file),
        bytes,
        days: days.len() as u64,
        stale_days: days.values().filter(|state| state.stale).count() as u64,
        expired_days: days.values().filter(|state| state.gone.any()).count() as u64,
        series,
        buckets: count,
        samples,
        bytes_per_sample: if samples == 0 { 0.0 } else { bytes as f64 / samples as f64 },
    })
}
