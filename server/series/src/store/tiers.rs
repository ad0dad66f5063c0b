//! Making summaries: which days have them, which are due, and what makes them worthless.
//!
//! ```text
//! a day is over and at rest ─► 2026-11-23.5m.db ─► its hours into 2026-11.1h.db
//! late samples are sealed into a day ─► its summaries are stale ─► made again once the day is at rest
//! a day's samples expire ─► summaries are made if they are missing, and know that their samples are gone
//! ```
//!
//! # Invariants
//! - A day's summaries are marked stale before the samples that make them so are in the day file.
//! - They are marked gone before samples are deleted.
//! - One owner at a time makes them, under the lock of seals and retention; each day is one transaction.
//!
//! # On crash
//! Before a day's commit nothing is there, and the day is due again. A day that was marked and then not changed is made again,
//! or, marked gone, answers from its summaries although its samples are there until retention comes again.

use super::{
    DAY_MS, Engine,
    day_reader::DayReader,
    index::Lookup as _,
    lock,
    part::merge,
    read_lock, recover,
    sqlite::{self, Mode},
    tier::{self, DayState, DayWriter, MIGRATIONS, Tier, TierReader},
    write_lock,
};
use crate::{
    config::{Config, Cutoffs, Keep},
    error::Error,
    summary::{Columns, summarize, widen},
};
use shipwatch_common::time::{UnixMs, duration_ms};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tracing::{info, warn};

/// How long a day must be at rest after late samples before it is made again.
const QUIET_MS: i64 = 900_000;

/// How long after its end a day with an unbounded or long `out_of_order_window` is waited for; what comes later makes it again.
const SHORTEST_WAIT_MS: i64 = 3_600_000;
const LONGEST_WAIT_MS: i64 = 6 * 3_600_000;

/// Most summaries that one call makes, so that it ends soon.
const AT_ONCE: usize = 2;

/// Series that are summarized together.
const SERIES: usize = 512;

/// Files of summaries that stay open between queries.
pub(crate) const IDLE_READERS: usize = 40;

/// What one call made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SummarizeReport {
    /// Days, once for each tier.
    pub days: u64,
    /// Buckets.
    pub buckets: u64,
}

/// An open file that no query uses.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) of: (Tier, i64),
    /// That it was opened at.
    pub(crate) version: u64,
    pub(crate) reader: TierReader,
}

/// The summaries of a store.
#[derive(Debug, Default)]
pub(crate) struct Tiers {
    pub(crate) known: RwLock<BTreeMap<(Tier, i64), DayState>>,
    /// When samples last came into days that have summaries.
    touched: Mutex<BTreeMap<i64, UnixMs>>,
    pub(crate) readers: Mutex<Vec<Idle>>,
    /// Changes when a file is deleted, put aside, or loses series: readers of before are not used again.
    pub(crate) version: AtomicU64,
}

impl Tiers {
    pub(crate) fn forget(&self, tier: Tier, file: i64) {
        write_lock(&self.known).retain(|(of, day), _| *of != tier || tier.file_of(*day) != file);
        self.forget_readers();
    }

    pub(crate) fn forget_readers(&self) {
        self.version.fetch_add(1, Relaxed);
        lock(&self.readers).clear();
    }

    /// Every file, once.
    pub(crate) fn files(&self) -> BTreeSet<(Tier, i64)> {
        read_lock(&self.known).keys().map(|(tier, day)| (*tier, tier.file_of(*day))).collect()
    }

    fn state(&self, tier: Tier, day: i64) -> Option<DayState> {
        read_lock(&self.known).get(&(tier, day)).cloned()
    }
}

/// Finds the files of summaries, brings them to the newest format, and puts damaged ones aside. Of days without a day file all
/// samples are gone.
pub(crate) fn open(dir: &Path, has_samples: impl Fn(i64) -> bool, report: &mut recover::OpenReport) -> Result<Tiers, Error> {
    let tiers = Tiers::default();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, &e))? {
        let entry = entry.map_err(|e| Error::io("list", dir, &e))?;
        let Some((tier, file)) = entry.file_name().to_str().and_then(Tier::parse_name) else { continue };
        let path = entry.path();
        let opened = sqlite::open(&path, Mode::Write, MIGRATIONS).map(drop).and_then(|()| {
            let reader = TierReader::open(&path, tier, file)?;
            reader.check()?;
            reader.days()
        });
        match opened {
            Ok(days) => write_lock(&tiers.known).extend(days.into_iter().map(|(day, mut state)| {
                state.gone.all |= !has_samples(day);
                ((tier, day), state)
            })),
            Err(Error::Corrupt { reason, .. }) => report.moved.push(recover::put_aside(&path, reason)?),
            Err(error) => return Err(error),
        }
    }
    Ok(tiers)
}

/// How long summaries of a tier are kept.
const fn age(config: &Config, tier: Tier) -> Keep {
    match tier {
        Tier::FiveMinutes => config.tiers.five_minutes,
        Tier::OneHour => config.tiers.one_hour,
    }
}

/// When summaries of a tier expire.
pub(crate) fn cutoffs(config: &Config, tier: Tier, now_ms: UnixMs) -> Cutoffs {
    config.tiers.cutoffs(age(config, tier), now_ms)
}

/// Whether everything of a day that comes in time has come and is in its file.
fn is_over(config: &Config, day: i64, now_ms: UnixMs) -> bool {
    let wait = match config.out_of_order_window {
        Keep::For(window) => duration_ms(window).clamp(SHORTEST_WAIT_MS, LONGEST_WAIT_MS),
        Keep::Forever | Keep::Unset => SHORTEST_WAIT_MS,
    };
    now_ms.saturating_sub(duration_ms(config.seal_delay)).saturating_sub(wait) >= (day + 1) * DAY_MS
}

/// The first of what is to be made: of days with samples, oldest first, what is missing or stale and would be kept.
fn due(
    config: &Config,
    days: impl IntoIterator<Item = i64>,
    known: &BTreeMap<(Tier, i64), DayState>,
    touched: &BTreeMap<i64, UnixMs>,
    now_ms: UnixMs,
) -> Option<(Tier, i64)> {
    let kept = Tier::ALL.map(|tier| (tier, cutoffs(config, tier, now_ms).earliest));
    let is_at_rest = |day: i64| touched.get(&day).is_none_or(|at| now_ms.saturating_sub(*at) >= QUIET_MS);
    let ready = days.into_iter().filter(|day| is_over(config, *day, now_ms) && is_at_rest(*day));
    let of_day = |day: i64| {
        let needed =
            |(tier, earliest): &(Tier, UnixMs)| (day + 1) * DAY_MS > *earliest && known.get(&(*tier, day)).is_none_or(|state| state.stale);
        kept.iter().find(|tier| needed(tier)).map(|(tier, _)| (*tier, day))
    };
    ready.into_iter().find_map(of_day)
}

impl Engine {
    /// Makes summaries of days that are over, the oldest first, and again of those that late samples came into; a few at a
    /// time. Call it every minute or so; it does nothing most of the time.
    ///
    /// # Errors
    /// What was being made is not there; the next call tries again.
    pub fn summarize(&self, now_ms: UnixMs) -> Result<SummarizeReport, Error> {
        let mut report = SummarizeReport::default();
        if !self.config.tiers.enabled {
            return Ok(report);
        }
        for _ in 0..AT_ONCE {
            let _one_at_a_time = lock(&self.sealing);
            let days: Vec<i64> = read_lock(&self.days).keys().copied().collect();
            let next = due(&self.config, days, &read_lock(&self.tiers.known), &lock(&self.tiers.touched), now_ms);
            let Some((tier, day)) = next else { break };
            report.buckets += self.make(tier, day)?;
            report.days += 1;
        }
        if report.days > 0 {
            info!(days = report.days, buckets = report.buckets, "made summaries");
        }
        Ok(report)
    }

    pub(crate) fn tier_path(&self, tier: Tier, file: i64) -> PathBuf {
        self.dir.join(tier.file_name(file))
    }

    /// Makes the summaries of a day; the lock of seals is held. Files that are found damaged are put aside.
    fn make(&self, tier: Tier, day: i64) -> Result<u64, Error> {
        let file = tier.file_of(day);
        let path = self.tier_path(tier, file);
        let gone = self.tiers.state(tier, day).unwrap_or_default().gone;
        let is_new = !self.tiers.files().contains(&(tier, file));
        let written = match tier::write(&path, tier, day, &gone, |writer| self.fill(writer, tier, day)) {
            Err(Error::Corrupt { path: damaged, reason }) if damaged == path => {
                self.put_tier_aside(tier, file, reason)?;
                return Ok(0);
            }
            Err(Error::Corrupt { path: damaged, reason }) => {
                match damaged.file_name().and_then(|name| name.to_str()).and_then(Tier::parse_name) {
                    Some((tier, file)) => self.put_tier_aside(tier, file, reason)?,
                    None => self.put_aside(day, reason)?,
                }
                return Ok(0);
            }
            other => other?,
        };
        if is_new {
            recover::sync_dir(&path)?;
        }
        lock(&self.tiers.touched).remove(&day);
        write_lock(&self.tiers.known).insert((tier, day), DayState { stale: false, gone });
        self.summaries_changed();
        Ok(written)
    }

    /// Gives the series of a day: hours are made of five minutes where there are such.
    fn fill(&self, writer: &mut DayWriter<'_>, tier: Tier, day: i64) -> Result<(), Error> {
        let finer = Tier::FiveMinutes;
        if tier != finer && self.tiers.state(finer, day).is_some_and(|state| !state.stale) {
            return widen_day(&TierReader::open(&self.tier_path(finer, day), finer, day)?, writer, day, tier.width());
        }
        let Some(path) = read_lock(&self.days).get(&day).cloned() else { return Ok(()) };
        let mut damaged = |reason: &'static str| {
            self.counters.damaged_chunks.fetch_add(1, Relaxed);
            warn!(path = %path.display(), reason, "left damage out of summaries");
        };
        summarize_day(&DayReader::open(&path)?, writer, day, tier.width(), &mut damaged)
    }

    /// Says that what is about to be sealed makes a day's summaries worthless. `is_new`: the day has no samples any more.
    pub(crate) fn spoil(&self, day: i64, is_new: bool, now_ms: UnixMs) -> Result<(), Error> {
        for tier in Tier::ALL {
            let Some(state) = self.tiers.state(tier, day) else { continue };
            lock(&self.tiers.touched).insert(day, now_ms);
            if is_new {
                self.mark_gone_in(tier, day, None)?;
            }
            if !state.stale {
                self.mark_stale(tier, day)?;
            }
        }
        Ok(())
    }

    pub(crate) fn mark_stale(&self, tier: Tier, day: i64) -> Result<(), Error> {
        let file = tier.file_of(day);
        match tier::mark_stale(&self.tier_path(tier, file), day) {
            Err(Error::Corrupt { reason, .. }) => return self.put_tier_aside(tier, file, reason),
            other => other?,
        }
        if let Some(state) = write_lock(&self.tiers.known).get_mut(&(tier, day)) {
            state.stale = true;
        }
        self.summaries_changed();
        Ok(())
    }

    /// What is read of days may be another thing from now on: results that are kept are computed anew.
    pub(crate) fn summaries_changed(&self) {
        lock(&self.changes).note_all();
    }

    /// Before samples of a day are deleted, all or those of environments: makes what summaries are missing, and marks them.
    pub(crate) fn before_expiry(&self, day: i64, envs: Option<&[String]>, now_ms: UnixMs) -> Result<(), Error> {
        for tier in Tier::ALL {
            let is_kept = (day + 1) * DAY_MS > cutoffs(&self.config, tier, now_ms).earliest;
            let is_needed = self.tiers.state(tier, day).is_none_or(|state| state.stale);
            if !self.config.tiers.enabled || !is_kept || !is_needed {
                continue;
            }
            match self.make(tier, day) {
                // Deleting makes room, and must not wait for it.
                Err(error @ Error::Full { .. }) => warn!(%error, day, "a day expires without summaries"),
                other => other.map(drop)?,
            }
        }
        self.mark_gone(day, envs)
    }

    /// Says that samples of a day are gone, or are about to be.
    pub(crate) fn mark_gone(&self, day: i64, envs: Option<&[String]>) -> Result<(), Error> {
        Tier::ALL.into_iter().filter(|tier| self.tiers.state(*tier, day).is_some()).try_for_each(|tier| self.mark_gone_in(tier, day, envs))
    }

    fn mark_gone_in(&self, tier: Tier, day: i64, envs: Option<&[String]>) -> Result<(), Error> {
        let file = tier.file_of(day);
        match tier::mark_gone(&self.tier_path(tier, file), day, envs) {
            Err(Error::Corrupt { reason, .. }) => return self.put_tier_aside(tier, file, reason),
            // Without a day file it is known at the next start as well.
            Err(error @ Error::Full { .. }) => warn!(%error, "could not note that samples expire"),
            other => other?,
        }
        if let Some(DayState { gone, .. }) = write_lock(&self.tiers.known).get_mut(&(tier, day)) {
            gone.all |= envs.is_none();
            gone.envs.extend(envs.unwrap_or_default().iter().cloned());
        }
        self.summaries_changed();
        Ok(())
    }

    /// Takes a damaged file of summaries out of use.
    pub(crate) fn put_tier_aside(&self, tier: Tier, file: i64, reason: String) -> Result<(), Error> {
        self.tiers.forget(tier, file);
        self.summaries_changed();
        let path = self.tier_path(tier, file);
        if path.try_exists().map_err(|e| Error::io("look for", &path, &e))? {
            recover::put_aside(&path, reason)?;
            self.counters.damaged_files.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

fn summarize_day(
    reader: &DayReader,
    writer: &mut DayWriter<'_>,
    day: i64,
    width: i64,
    damaged: &mut dyn FnMut(&'static str),
) -> Result<(), Error> {
    let (first, last) = (day * DAY_MS, (day + 1) * DAY_MS - 1);
    for some in reader.index.all()?.chunks(SERIES) {
        let labels = reader.index.labels(some)?;
        let pieces = reader.chunks(some, day, (first, last), damaged)?;
        for (labels, pieces) in labels.iter().zip(pieces) {
            let (ts, values) = merge(&pieces, first, last, damaged);
            writer.put(labels, &summarize(&ts, &values, width))?;
        }
    }
    Ok(())
}

fn widen_day(reader: &TierReader, writer: &mut DayWriter<'_>, day: i64, width: i64) -> Result<(), Error> {
    for some in reader.index.all()?.chunks(SERIES) {
        let labels = reader.index.labels(some)?;
        let (mut all, mut damage) = (vec![Vec::new(); some.len()], None);
        reader.buckets(some, (day, day), Columns::ALL, &|_, _| true, &mut |at, _, buckets| match (at, buckets) {
            (Some(at), Ok(buckets)) => all[at] = buckets,
            (_, Err(reason)) => damage = Some(reason),
            (None, Ok(_)) => {}
        })?;
        if let Some(reason) = damage {
            return Err(Error::corrupt(&reader.index.path, reason));
        }
        for (labels, buckets) in labels.iter().zip(all) {
            writer.put(labels, &widen(buckets, width))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::tier::Gone, *};
    use std::time::Duration;

    const DAY: i64 = 20_780;
    const HOUR: i64 = 3_600_000;

    fn state(stale: bool) -> DayState {
        DayState { stale, gone: Gone::default() }
    }

    #[test]
    fn a_day_is_over_when_what_comes_in_time_is_sealed() {
        let end = (DAY + 1) * DAY_MS;
        for (window, hours) in [("forever", 1), ("0s", 1), ("4h", 4), ("30d", 6)] {
            let out_of_order_window: Keep = serde_json::from_str(&format!("{window:?}")).unwrap();
            let config = Config { out_of_order_window, seal_delay: Duration::from_secs(1_800), ..Config::default() };
            let at = end + HOUR / 2 + hours * HOUR;
            assert_eq!((is_over(&config, DAY, at - 1), is_over(&config, DAY, at)), (false, true), "{window}");
        }
    }

    #[test]
    fn the_oldest_day_that_needs_it_is_due_first() {
        let config = Config::default();
        let now = (DAY + 2) * DAY_MS;
        let (five, hour) = (Tier::FiveMinutes, Tier::OneHour);
        let mut known: BTreeMap<(Tier, i64), DayState> = BTreeMap::new();
        let due =
            |known: &_, touched: &[(i64, i64)]| due(&config, [DAY - 500, DAY, DAY + 1], known, &touched.iter().copied().collect(), now);
        // Five minutes are kept no longer there.
        assert_eq!(due(&known, &[]), Some((hour, DAY - 500)));
        known.insert((hour, DAY - 500), state(false));
        assert_eq!(due(&known, &[]), Some((five, DAY)));
        known.insert((five, DAY), state(false));
        assert_eq!(due(&known, &[]), Some((hour, DAY)));
        known.insert((hour, DAY), state(false));
        assert_eq!(due(&known, &[]), None, "yesterday is not over yet");
        known.insert((five, DAY), state(true));
        assert_eq!(due(&known, &[(DAY, now - QUIET_MS + 1)]), None, "samples still come");
        assert_eq!(due(&known, &[(DAY, now - QUIET_MS)]), Some((five, DAY)));
    }
}
