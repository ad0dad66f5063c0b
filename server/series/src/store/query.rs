//! Reading: the head first, then day files, put together by time.
//!
//! # Invariants
//! - The head is read before the days: what a seal moves meanwhile is then found in one of the two or in both, never in none.
//! - Nothing is decompressed while the head is locked: a reader holds the writer up for the copy of tails only.

use super::{
    Engine, day,
    day_reader::DayReader,
    index_file::IndexReader,
    lock,
    part::{Piece, merge},
    read_lock,
};
use crate::{
    error::Error,
    matcher::Matcher,
    source::{Ask, SelectLimits, SeriesData, Source, Summaries, first, names_of, values_of},
};
use shipwatch_common::{model::Labels, time::UnixMs};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tracing::warn;

/// Series that are decoded between two looks at the bounds.
const DECODED_AT_ONCE: usize = 2_048;

/// Pieces that take longer to decode than a thread to start.
const WORTH_A_THREAD: usize = 256;

/// Pieces of a series, older sources first.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub(crate) days: Vec<Piece>,
    pub(crate) head: Vec<Piece>,
}

/// Pieces by series.
pub(crate) type Found = HashMap<Arc<Labels>, Pieces>;

impl Engine {
    /// Gives every day in `[t0, t1]` that is wanted to `read`. A damaged day is put aside and left out.
    fn for_days(
        &self,
        (t0, t1): (UnixMs, UnixMs),
        wanted: &dyn Fn(i64) -> bool,
        mut read: impl FnMut(i64, &DayReader) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let days: Vec<_> = read_lock(&self.days).range(day::day_of(t0)..=day::day_of(t1)).map(|(day, path)| (*day, path.clone())).collect();
        for (day, path) in days.into_iter().filter(|(day, _)| wanted(*day)) {
            let idle = {
                let mut readers = lock(&self.readers);
                readers.iter().position(|(of, _)| *of == day).map(|at| readers.swap_remove(at).1)
            };
            let reader = idle.map_or_else(|| DayReader::open(&path), Ok);
            let done = reader.and_then(|reader| reader.at_once(|reader| read(day, reader)).map(|()| reader));
            let is_listed = || read_lock(&self.days).get(&day).is_some_and(|listed| Arc::ptr_eq(listed, &path));
            match done {
                Ok(reader) => {
                    let mut readers = lock(&self.readers);
                    if readers.len() >= super::IDLE_READERS {
                        readers.remove(0);
                    }
                    if is_listed() {
                        readers.push((day, reader));
                    }
                }
                Err(Error::Corrupt { reason, .. }) => self.put_aside(day, reason)?,
                // Retention deleted it meanwhile.
                Err(Error::Io { .. }) if !is_listed() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn decode(&self, pieces: &Pieces, t0: UnixMs, t1: UnixMs, labels: &Labels) -> (Vec<i64>, Vec<f64>) {
        merge(pieces.days.iter().chain(&pieces.head), t0, t1, &mut |reason| {
            self.counters.damaged_chunks.fetch_add(1, Relaxed);
            warn!(series = %labels, reason, "left a damaged chunk out");
        })
    }

    /// Takes what the head has.
    pub(crate) fn find_in_head(
        &self,
        matchers: &[Matcher],
        (t0, t1): (UnixMs, UnixMs),
        limits: &SelectLimits,
        found: &mut Found,
    ) -> Result<(), Error> {
        let head = read_lock(&self.head);
        for slot in super::index::resolve(&head.postings, matchers)? {
            let Some((labels, pieces)) = head.pieces(slot, t0, t1) else { continue };
            if !pieces.is_empty() {
                found.entry(labels).or_default().head = pieces;
                limits.check_series(found.len())?;
            }
        }
        Ok(())
    }

    /// Takes what wanted days have. Whole blocks are counted before anything is decompressed; parts of blocks are counted after.
    pub(crate) fn find_in_days(
        &self,
        matchers: &[Matcher],
        (t0, t1): (UnixMs, UnixMs),
        limits: &SelectLimits,
        wanted: &dyn Fn(i64) -> bool,
        found: &mut Found,
    ) -> Result<(), Error> {
        let mut whole = 0;
        let mut damaged = |reason| {
            self.counters.damaged_chunks.fetch_add(1, Relaxed);
            warn!(reason, "left a damaged group out");
        };
        self.for_days((t0, t1), wanted, |day, reader| {
            limits.check_time()?;
            let series = reader.index.find(matchers)?;
            limits.check_series(series.len())?;
            let labels = reader.index.labels(&series)?;
            for (labels, pieces) in labels.into_iter().zip(reader.chunks(&series, day, (t0, t1), &mut damaged)?) {
                let inside = |piece: &&Piece| matches!(piece, Piece::Block(block) if block.t0 >= t0 && block.t1 <= t1);
                whole += pieces.iter().filter(inside).map(Piece::count).sum::<u64>();
                limits.check_samples(whole)?;
                if !pieces.is_empty() {
                    found.entry(labels).or_default().days.extend(pieces);
                    limits.check_series(found.len())?;
                }
            }
            Ok(())
        })
    }

    /// Decodes some series at a time and gives them to `take`, those without samples as well.
    pub(crate) fn decode_in_parts(
        &self,
        found: Found,
        (t0, t1): (UnixMs, UnixMs),
        limits: &SelectLimits,
        take: &mut dyn FnMut(Vec<SeriesData>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let found: Vec<_> = found.into_iter().collect();
        found.chunks(DECODED_AT_ONCE).try_for_each(|some| {
            limits.check_time()?;
            take(self.decode_all(some, t0, t1))
        })
    }

    /// Decodes series, the halves beside each other where that is worth a thread.
    fn decode_all(&self, found: &[(Arc<Labels>, Pieces)], t0: UnixMs, t1: UnixMs) -> Vec<SeriesData> {
        let decode = |some: &[(Arc<Labels>, Pieces)]| -> Vec<SeriesData> {
            let all = some.iter().map(|(labels, pieces)| {
                let (ts, values) = self.decode(pieces, t0, t1, labels);
                SeriesData { labels: labels.clone(), ts, values }
            });
            all.collect()
        };
        let pieces: usize = found.iter().map(|(_, pieces)| pieces.days.len() + pieces.head.len()).sum();
        if pieces < WORTH_A_THREAD || found.len() < 2 {
            return decode(found);
        }
        let (here, there) = found.split_at(found.len() / 2);
        std::thread::scope(|scope| {
            let helper = std::thread::Builder::new().name("series-decode".to_owned()).spawn_scoped(scope, || decode(there));
            let mut all = decode(here);
            // Without a helper, or if it ended badly, the work is done here.
            all.extend(helper.ok().and_then(|helper| helper.join().ok()).unwrap_or_else(|| decode(there)));
            all
        })
    }

    /// What is only asked of the index: `head` for series in memory, `index` for each day, or for its
    /// summaries where samples of it have expired.
    fn union_of<T: Ord>(
        &self,
        t0: UnixMs,
        t1: UnixMs,
        head: impl FnOnce(&super::Head, &mut BTreeSet<T>) -> Result<(), Error>,
        mut index: impl FnMut(&IndexReader) -> Result<Vec<T>, Error>,
    ) -> Result<BTreeSet<T>, Error> {
        let mut found = BTreeSet::new();
        head(&read_lock(&self.head), &mut found)?;
        self.for_days((t0, t1), &|_| true, |_, reader| {
            found.extend(index(&reader.index)?);
            Ok(())
        })?;
        self.for_expired((t0, t1), |reader| {
            found.extend(index(&reader.index)?);
            Ok(())
        })?;
        Ok(found)
    }
}

impl Source for Engine {
    fn changed_since(&self, number: u64) -> Option<(u64, UnixMs)> {
        Some(lock(&self.changes).since(number))
    }

    fn select(&self, matchers: &[Matcher], t0: UnixMs, t1: UnixMs, limits: &SelectLimits) -> Result<Vec<SeriesData>, Error> {
        if t0 > t1 {
            return Ok(Vec::new());
        }
        let mut found = Found::default();
        self.find_in_head(matchers, (t0, t1), limits, &mut found)?;
        self.find_in_days(matchers, (t0, t1), limits, &|_| true, &mut found)?;
        let (mut out, mut samples) = (Vec::with_capacity(found.len()), 0);
        self.decode_in_parts(found, (t0, t1), limits, &mut |decoded| {
            samples += decoded.iter().map(|series| series.ts.len() as u64).sum::<u64>();
            out.extend(decoded.into_iter().filter(|series| !series.ts.is_empty()));
            limits.check_samples(samples)
        })?;
        out.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        Ok(out)
    }

    fn summaries(&self, matchers: &[Matcher], ask: &Ask, limits: &SelectLimits) -> Result<Option<Summaries>, Error> {
        self.find_summaries(matchers, ask, limits)
    }

    fn has_expired(&self, matchers: &[Matcher], t0: UnixMs, t1: UnixMs) -> bool {
        self.has_only_summaries(matchers, t0, t1)
    }

    fn series(&self, any_of: &[Vec<Matcher>], t0: UnixMs, t1: UnixMs, limit: usize) -> Result<Vec<Arc<Labels>>, Error> {
        if t0 > t1 {
            return Ok(Vec::new());
        }
        let everything = [Vec::new()];
        let any_of = if any_of.is_empty() { &everything } else { any_of };
        let head = |head: &super::Head, found: &mut BTreeSet<Arc<Labels>>| {
            for matchers in any_of {
                let slots = super::index::resolve(&head.postings, matchers)?;
                found.extend(slots.into_iter().filter_map(|slot| head.labels_in(slot, t0, t1).cloned()));
            }
            Ok(())
        };
        let found = self.union_of(t0, t1, head, |index| {
            let mut all = Vec::new();
            for matchers in any_of {
                all.extend(index.labels(&index.find(matchers)?)?);
            }
            Ok(all)
        })?;
        Ok(first(found, limit))
    }

    fn label_names(&self, any_of: &[Vec<Matcher>], t0: UnixMs, t1: UnixMs, limit: usize) -> Result<Vec<String>, Error> {
        if !any_of.is_empty() || t0 > t1 {
            return Ok(first(names_of(&self.series(any_of, t0, t1, 0)?), limit));
        }
        let head = |head: &super::Head, found: &mut BTreeSet<String>| {
            found.extend(head.postings.names().map(str::to_owned));
            Ok(())
        };
        Ok(first(self.union_of(t0, t1, head, |index| index.names_or_values(None))?, limit))
    }

    fn label_values(&self, name: &str, any_of: &[Vec<Matcher>], t0: UnixMs, t1: UnixMs, limit: usize) -> Result<Vec<String>, Error> {
        if !any_of.is_empty() || t0 > t1 {
            return Ok(first(values_of(&self.series(any_of, t0, t1, 0)?, name), limit));
        }
        let head = |head: &super::Head, found: &mut BTreeSet<String>| {
            found.extend(head.postings.values(name).map(str::to_owned));
            Ok(())
        };
        Ok(first(self.union_of(t0, t1, head, |index| index.names_or_values(Some(name)))?, limit))
    }
}
