//! Reading summaries: days from their buckets where that is as good as their samples or where these are gone, the rest as samples.
//!
//! # Invariants
//! - The head is read before it is known which summaries hold: samples that came since a day was summarized are seen in the head,
//!   or the day is stale by then. A day that has samples in the head is not taken from its summaries, but for series whose
//!   samples are gone.
//! - A series is taken from buckets or from samples for the whole of a day.
//! - Damage is never answered from: a day with a row that cannot be read is marked stale, and its samples are read.

use super::{
    Engine,
    day::day_of,
    lock,
    part::Piece,
    query::Found,
    read_lock,
    tier::{DayState, Gone, Tier, TierReader},
    tiers::{IDLE_READERS, Idle},
};
use crate::{
    error::Error,
    matcher::Matcher,
    source::{Ask, BUCKET_SAMPLES, SelectLimits, Summaries, Summarized},
    summary::Bucket,
};
use shipwatch_common::model::Labels;
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tracing::warn;

/// How a day is read.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Use {
    tier: Tier,
    /// All of it, or only series whose samples are gone.
    all: bool,
    gone: Gone,
}

/// What is asked, and what is to be known for the plan.
#[derive(Clone, Copy)]
struct Scope<'a> {
    days: (i64, i64),
    width: Option<i64>,
    /// Days that have samples in the head.
    in_head: &'a BTreeSet<i64>,
    /// Whether a series may be in one tier and no longer in the other.
    tiers_differ: bool,
    /// What is asked for.
    matchers: &'a [Matcher],
}

/// Decides for each day that has summaries, the best ones first; later ones are for series that the first ones have not. Days that
/// are not in the answer are read as samples.
fn plan(known: &BTreeMap<(Tier, i64), DayState>, scope: Scope<'_>) -> BTreeMap<i64, Vec<Use>> {
    if scope.days.0 > scope.days.1 {
        return BTreeMap::new();
    }
    let of = |tier: Tier| known.range((tier, scope.days.0)..=(tier, scope.days.1)).map(|((_, day), _)| *day);
    let all: BTreeSet<i64> = Tier::ALL.into_iter().flat_map(of).collect();
    let is_good = |tier: Tier| scope.width.is_some_and(|width| tier.width() <= width);
    let of_day = |day: i64| {
        let there = || Tier::ALL.into_iter().filter_map(|tier| known.get(&(tier, day)).map(|state| (tier, state)));
        let valid = there().rev().find(|(tier, state)| is_good(*tier) && !state.stale && !scope.in_head.contains(&day));
        let left = || there().filter(|(_, state)| state.gone.may_have(scope.matchers));
        // The widest that is good, then what is finest.
        let good = left().rev().filter(|(tier, _)| is_good(*tier));
        let best = good.chain(left().filter(|(tier, _)| !is_good(*tier)));
        let mut uses: Vec<Use> = valid.map(|(tier, state)| Use { tier, all: true, gone: state.gone.clone() }).into_iter().collect();
        for (tier, state) in best {
            let is_new = uses.iter().all(|known| known.tier != tier);
            if is_new && (uses.is_empty() || scope.tiers_differ) {
                uses.push(Use { tier, all: false, gone: state.gone.clone() });
            }
        }
        (!uses.is_empty()).then_some((day, uses))
    };
    all.into_iter().filter_map(of_day).collect()
}

/// Buckets of a series by day.
#[derive(Debug, Default)]
struct Taken {
    days: Vec<(i64, Vec<Bucket>)>,
}

/// What was read of files of summaries.
#[derive(Default)]
struct Answer {
    series: HashMap<Arc<Labels>, Taken>,
    buckets: u64,
    width: i64,
    approximate: bool,
    /// Days with damage that their samples can stand in for.
    damaged: BTreeSet<(Tier, i64)>,
}

impl Engine {
    pub(crate) fn find_summaries(&self, matchers: &[Matcher], ask: &Ask, limits: &SelectLimits) -> Result<Option<Summaries>, Error> {
        // Each round takes a damaged file or day out of use.
        loop {
            match self.try_summaries(matchers, ask, limits) {
                Err(Error::Corrupt { path, reason }) => match path.file_name().and_then(|name| name.to_str()).and_then(Tier::parse_name) {
                    Some((tier, file)) => self.put_tier_aside(tier, file, reason)?,
                    None => return Err(Error::Corrupt { path, reason }),
                },
                Ok(Round::Again) => {}
                Ok(Round::Done(found)) => return Ok(found),
                Err(error) => return Err(error),
            }
        }
    }

    fn plan(&self, days: (i64, i64), width: Option<i64>, in_head: &BTreeSet<i64>, matchers: &[Matcher]) -> BTreeMap<i64, Vec<Use>> {
        let tiers_differ = !self.config.tiers.env.is_empty();
        plan(&read_lock(&self.tiers.known), Scope { days, width, in_head, tiers_differ, matchers })
    }

    fn try_summaries(&self, matchers: &[Matcher], ask: &Ask, limits: &SelectLimits) -> Result<Round, Error> {
        let (t0, t1) = (ask.after.saturating_add(1), ask.until);
        let days = (day_of(t0), day_of(t1));
        if t0 > t1 || self.plan(days, ask.width, &BTreeSet::new(), matchers).is_empty() {
            return Ok(Round::Done(None));
        }
        let mut found = Found::default();
        self.find_in_head(matchers, (t0, t1), limits, &mut found)?;
        let plan = self.plan(days, ask.width, &days_of(&found), matchers);
        let mut answer = Answer::default();
        self.read_tiers(matchers, ask, &plan, limits, &mut answer)?;
        if !answer.damaged.is_empty() {
            for (tier, day) in answer.damaged {
                self.mark_stale(tier, day)?;
            }
            return Ok(Round::Again);
        }
        let as_samples = |day: i64| plan.get(&day).is_none_or(|uses| !uses[0].all);
        self.find_in_days(matchers, (t0, t1), limits, &as_samples, &mut found)?;
        self.put_together(found, answer, (t0, t1), limits).map(|found| Round::Done(Some(found)))
    }

    fn read_tiers(
        &self,
        matchers: &[Matcher],
        ask: &Ask,
        plan: &BTreeMap<i64, Vec<Use>>,
        limits: &SelectLimits,
        answer: &mut Answer,
    ) -> Result<(), Error> {
        // Best ones first.
        let mut files: BTreeMap<(usize, Tier, i64), BTreeMap<i64, &Use>> = BTreeMap::new();
        for (day, uses) in plan {
            for (rank, part) in uses.iter().enumerate() {
                files.entry((rank, part.tier, part.tier.file_of(*day))).or_default().insert(*day, part);
            }
        }
        for ((rank, tier, file), days) in files {
            limits.check_time()?;
            self.with_tier(tier, file, |reader| {
                let series = reader.index.find(matchers)?;
                limits.check_series(series.len())?;
                let labels = reader.index.labels(&series)?;
                self.take_buckets(reader, (&series, &labels), ask, &(rank, days), limits, answer)
            })?;
            limits.check_time()?;
            limits.check_series(answer.series.len())?;
            limits.check_samples(answer.buckets.saturating_mul(BUCKET_SAMPLES))?;
        }
        Ok(())
    }

    fn take_buckets(
        &self,
        reader: &TierReader,
        (series, labels): (&[u32], &[Arc<Labels>]),
        ask: &Ask,
        (rank, days): &(usize, BTreeMap<i64, &Use>),
        limits: &SelectLimits,
        answer: &mut Answer,
    ) -> Result<(), Error> {
        let (Some((first, part)), Some((last, _))) = (days.first_key_value(), days.last_key_value()) else { return Ok(()) };
        let (tier, width) = (part.tier, part.tier.width());
        // What a better one has.
        let of_series = |labels: &Arc<Labels>| answer.series.get(labels).map(|taken| taken.days.iter().map(|(day, _)| *day).collect());
        let known: Vec<Option<BTreeSet<i64>>> = if *rank == 0 { Vec::new() } else { labels.iter().map(of_series).collect() };
        let is_known = |at: usize, day: i64| known.get(at).and_then(Option::as_ref).is_some_and(|days| days.contains(&day));
        let is_asked = |at: usize, day: i64| days.get(&day).is_some_and(|part| part.all || part.gone.has(&labels[at]));
        // Over a bound nothing more is read; the caller tells.
        let is_over = Cell::new(false);
        let takes = |at: usize, day: i64| !is_over.get() && is_asked(at, day) && !is_known(at, day);
        let is_inside = |bucket: &Bucket| bucket.end > ask.after && bucket.end - width < ask.until;
        reader.buckets(series, (*first, *last), ask.columns, &takes, &mut |at, day, buckets| match (at, buckets) {
            (Some(at), Ok(mut buckets)) => {
                buckets.retain(is_inside);
                answer.buckets += buckets.len() as u64;
                let samples = answer.buckets.saturating_mul(BUCKET_SAMPLES);
                is_over.set(limits.check_samples(samples).and_then(|()| limits.check_time()).is_err());
                if !buckets.is_empty() {
                    answer.width = answer.width.max(width);
                    answer.approximate |= ask.width.is_none_or(|wanted| wanted < width);
                }
                answer.series.entry(labels[at].clone()).or_default().days.push((day, buckets));
            }
            (_, Err(_)) if days.get(&day).is_some_and(|part| part.all && !part.gone.any()) => {
                answer.damaged.insert((tier, day));
            }
            (_, Err(reason)) => {
                self.counters.damaged_chunks.fetch_add(1, Relaxed);
                warn!(path = %reader.index.path.display(), reason, "left damaged summaries out");
            }
            (None, Ok(_)) => {}
        })
    }

    /// Gives a file to `read`, open from before if it can be. One that retention deleted meanwhile is left out.
    fn with_tier(&self, tier: Tier, file: i64, read: impl FnOnce(&TierReader) -> Result<(), Error>) -> Result<(), Error> {
        let version = self.tiers.version.load(Relaxed);
        let idle = {
            let mut readers = lock(&self.tiers.readers);
            let at = readers.iter().position(|idle| idle.of == (tier, file) && idle.version == version);
            at.map(|at| readers.swap_remove(at).reader)
        };
        let reader = idle.map_or_else(|| TierReader::open(&self.tier_path(tier, file), tier, file), Ok);
        let done = reader.and_then(|reader| reader.index.at_once(|| read(&reader)).map(|()| reader));
        match done {
            Ok(reader) => {
                let mut readers = lock(&self.tiers.readers);
                if self.tiers.version.load(Relaxed) == version {
                    if readers.len() >= IDLE_READERS {
                        readers.remove(0);
                    }
                    readers.push(Idle { of: (tier, file), version, reader });
                }
                Ok(())
            }
            Err(Error::Io { .. }) if !self.tiers.files().contains(&(tier, file)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn put_together(&self, mut found: Found, mut answer: Answer, range: (i64, i64), limits: &SelectLimits) -> Result<Summaries, Error> {
        for labels in answer.series.keys() {
            found.entry(labels.clone()).or_default();
        }
        limits.check_series(found.len())?;
        let mut used = answer.buckets.saturating_mul(BUCKET_SAMPLES);
        let mut all = Vec::with_capacity(found.len());
        self.decode_in_parts(found, range, limits, &mut |decoded| {
            used += decoded.iter().map(|series| series.ts.len() as u64).sum::<u64>();
            for series in decoded {
                let mut taken = answer.series.remove(&series.labels).unwrap_or_default();
                taken.days.sort_unstable_by_key(|(day, _)| *day);
                let (mut ts, mut values) = (series.ts, series.values);
                if !taken.days.is_empty() && !ts.is_empty() {
                    let is_left = |ts: &i64| taken.days.binary_search_by_key(&day_of(*ts), |(day, _)| *day).is_err();
                    let kept = ts.iter().zip(&values).filter(|(ts, _)| is_left(ts)).map(|(ts, value)| (*ts, *value));
                    (ts, values) = kept.unzip();
                }
                let buckets: Vec<Bucket> = taken.days.into_iter().flat_map(|(_, buckets)| buckets).collect();
                if !ts.is_empty() || !buckets.is_empty() {
                    all.push(Summarized { labels: series.labels, buckets, ts, values });
                }
            }
            limits.check_samples(used)
        })?;
        all.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Summaries { series: all, width: answer.width, approximate: answer.approximate })
    }

    /// Gives the file of summaries to `read` of each day of which samples have expired. A damaged file is put aside and left out.
    pub(crate) fn for_expired(&self, (t0, t1): (i64, i64), mut read: impl FnMut(&TierReader) -> Result<(), Error>) -> Result<(), Error> {
        let plan = self.plan((day_of(t0), day_of(t1)), None, &BTreeSet::new(), &[]);
        let uses = plan.iter().flat_map(|(day, uses)| uses.iter().map(move |part| (part.tier, part.tier.file_of(*day))));
        let files: BTreeSet<(Tier, i64)> = uses.collect();
        for (tier, file) in files {
            match self.with_tier(tier, file, &mut read) {
                Err(Error::Corrupt { reason, .. }) => self.put_tier_aside(tier, file, reason)?,
                other => other?,
            }
        }
        Ok(())
    }

    pub(crate) fn has_only_summaries(&self, matchers: &[Matcher], t0: i64, t1: i64) -> bool {
        !self.plan((day_of(t0), day_of(t1)), None, &BTreeSet::new(), matchers).is_empty()
    }
}

/// What one try gave.
enum Round {
    Done(Option<Summaries>),
    /// Something was taken out of use.
    Again,
}

/// Days that pieces may have samples in.
fn days_of(found: &Found) -> BTreeSet<i64> {
    let mut days = BTreeSet::new();
    for piece in found.values().flat_map(|pieces| &pieces.head) {
        match piece {
            Piece::Block(block) => days.extend([day_of(block.t0)]),
            Piece::Tail(tail) => days.extend(tail.range().into_iter().flat_map(|(t0, t1)| [day_of(t0), day_of(t1)])),
            Piece::Plain(samples) => days.extend(samples.iter().map(|(ts, _)| day_of(*ts))),
        }
    }
    days
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::{FIVE_MINUTES, ONE_HOUR};

    /// `5` and `1` are tiers that are there; `s` after one says stale, `g` gone. The answer has `*` where all of a day is taken.
    #[track_caller]
    fn check(there: &str, width: Option<i64>, in_head: bool, tiers_differ: bool, expected: &str) {
        let mut known: BTreeMap<(Tier, i64), DayState> = BTreeMap::new();
        let mut tier = Tier::FiveMinutes;
        for letter in there.chars() {
            tier = match letter {
                '5' => Tier::FiveMinutes,
                '1' => Tier::OneHour,
                _ => tier,
            };
            let state = known.entry((tier, 7)).or_default();
            state.stale |= letter == 's';
            state.gone.all |= letter == 'g';
        }
        let in_head: BTreeSet<i64> = in_head.then_some(7).into_iter().collect();
        let uses =
            plan(&known, Scope { days: (0, 10), width, in_head: &in_head, tiers_differ, matchers: &[] }).remove(&7).unwrap_or_default();
        let show = |part: &Use| format!("{}{}", if part.tier == Tier::OneHour { 1 } else { 5 }, if part.all { "*" } else { "" });
        assert_eq!(uses.iter().map(show).collect::<String>(), expected, "{there} {width:?} head {in_head:?}");
    }

    #[test]
    fn the_widest_good_summary_is_taken_and_what_is_left_of_expired_samples() {
        check("51", Some(ONE_HOUR), false, false, "1*");
        check("51", Some(FIVE_MINUTES), false, false, "5*");
        check("51s", Some(ONE_HOUR), false, false, "5*");
        check("1", Some(FIVE_MINUTES), false, false, "");
        check("5s1s", Some(ONE_HOUR), false, false, "");
        check("51", None, false, false, "");
        check("51", Some(ONE_HOUR), true, false, "");
        check("5g1g", Some(ONE_HOUR), false, false, "1*");
        check("5g1g", Some(ONE_HOUR), true, false, "1");
        check("5sg1sg", Some(ONE_HOUR), false, false, "1");
        check("5sg1sg", Some(FIVE_MINUTES), false, false, "5");
        check("5g1g", None, false, false, "5");
        check("1g", None, false, false, "1");
        check("1g", Some(FIVE_MINUTES), false, false, "1");
        check("5g1g", None, false, true, "51");
        check("5g1g", Some(ONE_HOUR), false, true, "1*5");
        check("", Some(ONE_HOUR), false, true, "");
    }
}
