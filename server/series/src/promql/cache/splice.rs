//! A range query through the cache: which steps are kept still, the others evaluated, and both put together.

use super::{
    super::{
        Error, Output, Query, Value,
        annotations::Notes,
        eval::{Evaluated, MAX_ANNOTATIONS, RangeAsk, points},
        values::{ABSENT, Column, Grid, is_absent},
    },
    Key, RangeCache, Stretch,
    reach::Reach,
};
use shipwatch_common::time::UnixMs;
use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

/// Evaluates at the steps of a grid, or takes them from the cache.
pub(crate) fn range(cache: &RangeCache, query: &Query, ask: &RangeAsk<'_>, grid: Grid) -> Result<Output, Error> {
    let Some(reach) = Reach::of(&query.expr) else { return ask.fresh(grid) };
    let key = Key::new(&query.text, grid, ask.options);
    let known = cache.get(&key);
    // The number is read before the data: what comes meanwhile counts as a later change.
    let Some((number, changed)) = ask.source.changed_since(known.as_ref().map_or(0, |known| known.number)) else {
        return ask.fresh(grid);
    };
    if let Some(known) = known
        && let Some(plan) = Plan::new(grid, known.stretch.grid, reach.holds_before(changed))
    {
        if plan.missing.is_empty() {
            cache.hits.fetch_add(1, Relaxed);
            return Ok(output(&known.stretch, grid, plan.taken_values(&known.stretch)));
        }
        match plan.run(ask, reach, &known.stretch) {
            Ok(Some((stretch, samples))) => {
                cache.hits.fetch_add(1, Relaxed);
                let output = output(&stretch, grid, samples);
                cache.put(key, stretch, number);
                return Ok(output);
            }
            Ok(None) => {}
            Err(error @ (Error::Timeout | Error::Canceled)) => return Err(error),
            // The whole query tells its own error.
            Err(_) => return ask.fresh(grid),
        }
    }
    cache.misses.fetch_add(1, Relaxed);
    let Evaluated { stretch, used, is_whole } = ask.evaluate(grid, 0, Some(reach))?;
    let output = output(&stretch, grid, used);
    if !is_whole {
        cache.put(key, stretch, number);
    }
    Ok(output)
}

/// What is evaluated and what is kept.
#[derive(Debug, Eq, PartialEq)]
struct Plan {
    /// Before and after what is there; parts without a step are left out.
    missing: Vec<Grid>,
    /// The kept steps that are taken.
    taken: Grid,
    /// The steps of the new stretch: those asked for, and kept ones beside them as long as it does not become longer than the longer of both.
    all: Grid,
}

/// The steps from one time to before another, of a grid's step.
const fn between(from: i64, to: i64, step: i64) -> Option<Grid> {
    if from < to { Some(Grid { start: from, step, len: ((to - from + step - 1) / step) as usize }) } else { None }
}

impl Plan {
    /// Both grids have the same step and phase. Nothing if no kept step can be used.
    fn new(asked: Grid, kept: Grid, holds_before: UnixMs) -> Option<Self> {
        let step = asked.step;
        let (from, to) = (asked.start, asked.end() + step);
        let valid = between(kept.start, holds_before.min(kept.end() + step), step)?;
        let (kept_from, kept_to) = (valid.start, valid.end() + step);
        if kept_from >= to || kept_to <= from {
            return None;
        }
        let missing = [between(from, kept_from, step), between(kept_to, to, step)].into_iter().flatten().collect();
        let room = (kept.len.saturating_sub(asked.len)) as i64;
        let after = ((kept_to - to) / step).clamp(0, room);
        let before = ((from - kept_from) / step).clamp(0, room - after);
        let (all_from, all_to) = (from - before * step, to + after * step);
        Some(Self { missing, taken: between(kept_from.max(all_from), kept_to.min(all_to), step)?, all: between(all_from, all_to, step)? })
    }

    const fn taken_values(&self, kept: &Stretch) -> u64 {
        (kept.columns.len() as u64).saturating_mul(self.taken.len as u64)
    }

    /// The new stretch and what it took; nothing if the parts cannot be put together.
    fn run(&self, ask: &RangeAsk<'_>, reach: Reach, kept: &Stretch) -> Result<Option<(Stretch, u64)>, Error> {
        let mut used = self.taken_values(kept);
        let mut parts = Vec::with_capacity(self.missing.len());
        for grid in &self.missing {
            let Evaluated { stretch, used: now, is_whole } = ask.evaluate(*grid, used, Some(reach))?;
            if is_whole {
                return Ok(None);
            }
            used = now;
            parts.push(stretch);
        }
        let pieces: Vec<Piece<'_>> = std::iter::once(Piece { stretch: kept, steps: self.taken })
            .chain(parts.iter().map(|part| Piece { stretch: part, steps: part.grid }))
            .collect();
        let stretch = Stretch {
            grid: self.all,
            columns: columns(&pieces, self.all),
            warnings: notes(&pieces, self.all, |stretch| &stretch.warnings),
            infos: notes(&pieces, self.all, |stretch| &stretch.infos),
        };
        let is_full = stretch.warnings.0.len().max(stretch.infos.0.len()) > MAX_ANNOTATIONS;
        Ok((!is_full).then_some((stretch, used)))
    }
}

/// Some steps of a stretch.
struct Piece<'a> {
    stretch: &'a Stretch,
    steps: Grid,
}

/// Where a grid's first step is in another that has it.
const fn place(steps: Grid, within: Grid) -> usize {
    ((steps.start - within.start) / within.step) as usize
}

impl Piece<'_> {
    fn copy<T: Copy>(&self, from: &[T], to: &mut [T], all: Grid) {
        let (at, source) = (place(self.steps, all), place(self.steps, self.stretch.grid));
        to[at..at + self.steps.len].copy_from_slice(&from[source..source + self.steps.len]);
    }
}

/// One column for each label set that has a value at any step.
fn columns(pieces: &[Piece<'_>], all: Grid) -> Vec<Column> {
    let mut found: Vec<(&Piece<'_>, &Column)> =
        pieces.iter().flat_map(|piece| piece.stretch.columns.iter().map(move |column| (piece, column))).collect();
    // Stable, and fast for what is sorted in parts.
    found.sort_by(|(_, a), (_, b)| a.labels.cmp(&b.labels));
    let mut out = Vec::with_capacity(found.len());
    for same in found.chunk_by(|(_, a), (_, b)| a.labels == b.labels) {
        let mut values = vec![ABSENT; all.len];
        same.iter().for_each(|(piece, column)| piece.copy(&column.values, &mut values, all));
        if values.iter().any(|value| !is_absent(*value)) {
            out.push(Column { labels: same[0].1.labels.clone(), values });
        }
    }
    out
}

fn notes(pieces: &[Piece<'_>], all: Grid, of: impl Fn(&Stretch) -> &Notes) -> Notes {
    let mut merged: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for piece in pieces {
        for (text, steps) in &of(piece.stretch).0 {
            let to = merged.entry(text.clone()).or_insert_with(|| vec![false; all.len]);
            piece.copy(steps, to, all);
        }
    }
    merged.retain(|_, steps| steps.contains(&true));
    Notes(merged)
}

/// The steps that were asked for.
fn output(stretch: &Stretch, asked: Grid, samples: u64) -> Output {
    let at = place(asked, stretch.grid);
    let steps = at..at + asked.len;
    let series = stretch.columns.iter().filter_map(|column| points(column.labels.clone(), &column.values[steps.clone()], asked));
    let told =
        |notes: &Notes| notes.0.iter().filter(|(_, marks)| marks[steps.clone()].contains(&true)).map(|(text, _)| text.clone()).collect();
    Output { value: Value::Matrix(series.collect()), warnings: told(&stretch.warnings), infos: told(&stretch.infos), samples }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grid() -> impl Strategy<Value = Grid> {
        (-20i64..20, 1usize..25).prop_map(|(first, len)| Grid { start: first * 10 + 3, step: 10, len })
    }

    proptest! {
        #[test]
        fn every_step_is_kept_or_evaluated(asked in grid(), kept in grid(), holds_before in -250i64..500) {
            let usable = |time: i64| kept.times().any(|known| known == time) && time < holds_before;
            let Some(plan) = Plan::new(asked, kept, holds_before) else {
                prop_assert!(!asked.times().any(usable));
                return Ok(());
            };
            let missing: Vec<i64> = plan.missing.iter().flat_map(Grid::times).collect();
            let wanted: Vec<i64> = asked.times().filter(|time| !usable(*time)).collect();
            prop_assert_eq!(&missing, &wanted);
            prop_assert!(plan.taken.times().all(usable));
            let mut all: Vec<i64> = missing.into_iter().chain(plan.taken.times()).collect();
            all.sort_unstable();
            prop_assert_eq!(all, plan.all.times().collect::<Vec<_>>());
            prop_assert!(plan.all.len <= asked.len.max(kept.len));
            prop_assert!(asked.times().all(|time| plan.all.times().any(|known| known == time)));
        }
    }
}
