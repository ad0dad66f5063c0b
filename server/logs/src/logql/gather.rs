//! Lines of the store, gathered into the windows of a range function.
//!
//! Each block is read once, its lines go through the pipeline and into their windows, and it is dropped. Where labels and severity
//! alone decide, a block that lies in one set of windows is answered from its header, another one from its columns.
//!
//! # Invariants
//! - Memory: one block, and what the windows hold; both are bounded, and the error names the bound.
//! - Between two blocks the deadline and the client are looked at.

use super::{
    ast::{Conversion, Grouping, Range, RangeOp, Unwrap},
    eval::Budget,
    label_set::LabelSet,
    pipeline::{Split, holds},
    record::{ERROR, ERROR_DETAILS, Kind, Record},
    units,
    window::{Acc, Gathered, Windows},
};
use crate::{
    EntryId,
    error::{Error, Result},
    query::{
        plan::Plan,
        search::{QueryStats, matching, select},
    },
    store::{
        Shared,
        block::{Columns, SEVERITIES, severity_code},
        snapshot::{Candidate, DaySnapshot, Snapshot},
    },
};
use shipwatch_common::model::{Labels, Severity};
use std::{collections::HashMap, sync::Arc};

/// The series of one block's stream, by severity, as far as they were asked for.
#[derive(Debug)]
struct Keys<'c> {
    labels: &'c Arc<Labels>,
    known: [Option<Option<usize>>; SEVERITIES.len()],
}

/// A range function over the store.
#[derive(Debug)]
pub(super) struct Gatherer<'a> {
    range: &'a Range,
    split: Split<'a>,
    windows: Windows,
    /// Labels that are kept; nothing keeps all.
    grouping: Option<&'a Grouping>,
    series: Vec<(LabelSet, Gathered)>,
    known: HashMap<String, usize>,
    /// Series of a stream and severity, where the text does not matter.
    by_stream: HashMap<(Arc<Labels>, u8), Option<usize>>,
    key: String,
}

impl<'a> Gatherer<'a> {
    pub(super) fn new(range: &'a Range, windows: Windows, grouping: Option<&'a Grouping>) -> Self {
        let mut split = range.pipeline.split();
        let grouping = grouping.or(range.grouping.as_ref());
        if let Some(by) = grouping.filter(|grouping| !grouping.without) {
            split.only_for(&by.names, range.unwrap.as_ref());
        }
        Self { range, split, windows, grouping, series: Vec::new(), known: HashMap::new(), by_stream: HashMap::new(), key: String::new() }
    }

    /// Reads what is in the windows.
    pub(super) fn run(mut self, shared: &Shared, budget: &mut Budget<'_>, stats: &mut QueryStats) -> Result<Vec<(LabelSet, Gathered)>> {
        let (first_ns, last_ns) = (self.windows.first_ns(), self.windows.last_ns());
        if first_ns > last_ns {
            return Ok(Vec::new());
        }
        let plan = Plan::new(&self.split.query, first_ns, last_ns.saturating_add(1));
        let by_labels = self.split.stages_ignore_text() && self.range.unwrap.is_none();
        let mut snapshot = Snapshot::take(shared)?;
        for day in snapshot.days(plan.start_ns, plan.last_ns)? {
            let (open, candidates) = snapshot.day(day, &plan, stats)?;
            stats.blocks += candidates.len() as u64;
            for candidate in &candidates {
                budget.check()?;
                if by_labels {
                    self.count(&open, candidate, &plan, budget, stats)?;
                } else {
                    self.lines(&open, candidate, &plan, budget, stats)?;
                }
            }
        }
        Ok(self.series)
    }

    /// A block whose lines go through the pipeline.
    fn lines(
        &mut self,
        day: &DaySnapshot<'_>,
        candidate: &Candidate,
        plan: &Plan,
        budget: &mut Budget<'_>,
        stats: &mut QueryStats,
    ) -> Result<()> {
        let windows = self.windows;
        let wanted = |id: Option<&EntryId>| id.is_some_and(|id| windows.of(id.ts_ns).is_some());
        let Some((lines, selected)) = matching(day, candidate, plan, stats, |columns, at| wanted(columns.ids.get(at))) else {
            return Ok(());
        };
        let split = self.split.clone();
        for at in selected {
            let Some(id) = lines.columns.ids.get(at).copied() else { continue };
            let mut record = Record::new(id.ts_ns, &candidate.labels, lines.columns.severity(at), lines.text(at));
            if !split.run(&mut record) {
                continue;
            }
            let value = match &self.range.unwrap {
                Some(unwrap) => unwrapped(unwrap, &mut record),
                None if self.is_bytes() => Some(record.text.len() as f64),
                None => Some(1.0),
            };
            let Some(value) = value else { continue };
            let series = self.series_of(&record, budget)?;
            self.add(series, id, value, budget)?;
        }
        Ok(())
    }

    const fn is_bytes(&self) -> bool {
        matches!(self.range.op, RangeOp::BytesOverTime | RangeOp::BytesRate)
    }

    fn add(&mut self, series: usize, id: EntryId, value: f64, budget: &mut Budget<'_>) -> Result<()> {
        let Some(span) = self.windows.of(id.ts_ns) else { return Ok(()) };
        let acc = Acc::of(self.range.op, self.range.unwrap.is_some(), id, value);
        match self.series.get_mut(series) {
            Some((_, gathered)) => budget.hold(gathered.add(span, acc)),
            None => Ok(()),
        }
    }

    /// A block whose lines' series follow from labels and severity: text is read for line filters only.
    fn count(
        &mut self,
        day: &DaySnapshot<'_>,
        candidate: &Candidate,
        plan: &Plan,
        budget: &mut Budget<'_>,
        stats: &mut QueryStats,
    ) -> Result<()> {
        let mut keys = Keys { labels: &candidate.labels, known: [None; SEVERITIES.len()] };
        match self.windows.of_both(candidate.t0, candidate.t1) {
            Some(None) => return Ok(()),
            Some(Some(_)) if !plan.reads_text() && self.count_whole(day, candidate, &mut keys, budget)? => return Ok(()),
            _ => {}
        }
        let windows = self.windows;
        let inside = |columns: &Columns, at: usize| columns.ids.get(at).is_some_and(|id| windows.of(id.ts_ns).is_some());
        let (columns, selected) = if plan.reads_text() {
            let Some((lines, selected)) = matching(day, candidate, plan, stats, inside) else { return Ok(()) };
            (lines.columns, selected)
        } else {
            let Some(columns) = day.columns(candidate, stats) else { return Ok(()) };
            let selected = select(&columns, plan).into_iter().filter(|at| inside(&columns, *at)).collect();
            (columns, selected)
        };
        for at in selected {
            let Some(id) = columns.ids.get(at) else { continue };
            if let Some(series) = self.series_by_labels(&mut keys, columns.severity(at), budget)? {
                let value = if self.is_bytes() { columns.span(at).len() as f64 } else { 1.0 };
                self.add(series, *id, value, budget)?;
            }
        }
        Ok(())
    }

    /// A block whose lines are all in the same windows. `false` when its header does not tell enough.
    fn count_whole(&mut self, day: &DaySnapshot<'_>, candidate: &Candidate, keys: &mut Keys<'_>, budget: &mut Budget<'_>) -> Result<bool> {
        let Some(counts) = day.counts(candidate) else { return Ok(false) };
        let mut series = Vec::new();
        for (_, severity, lines) in counts.iter() {
            series.push((self.series_by_labels(keys, severity, budget)?, lines));
        }
        let any = EntryId { ts_ns: candidate.t0, batch: 0, index: 0 };
        if self.is_bytes() {
            // The header has one size for all severities.
            let Some((one, _)) = series.first().copied() else { return Ok(true) };
            if series.iter().any(|(other, _)| *other != one) {
                return Ok(false);
            }
            series = vec![(one, candidate.text_bytes())];
        }
        for (series, value) in series {
            if let Some(series) = series {
                self.add(series, any, value as f64, budget)?;
            }
        }
        Ok(true)
    }

    fn series_by_labels(&mut self, keys: &mut Keys<'_>, severity: Severity, budget: &mut Budget<'_>) -> Result<Option<usize>> {
        let code = severity_code(severity);
        let slot = keys.known.get_mut(usize::from(code));
        if let Some(Some(known)) = slot {
            return Ok(*known);
        }
        let key = (Arc::clone(keys.labels), code);
        let series = match self.by_stream.get(&key) {
            Some(known) => *known,
            None => {
                let split = self.split.clone();
                let mut record = Record::new(0, keys.labels, severity, "");
                let series = if split.run(&mut record) { Some(self.series_of(&record, budget)?) } else { None };
                self.by_stream.insert(key, series);
                series
            }
        };
        if let Some(slot) = slot {
            *slot = Some(series);
        }
        Ok(series)
    }

    /// The series that a line belongs to. A line that is marked with an error ends the query.
    fn series_of(&mut self, record: &Record<'_>, budget: &mut Budget<'_>) -> Result<usize> {
        if record.has_error() {
            return Err(marked(record));
        }
        let dropped = self.range.unwrap.as_ref().map(|unwrap| unwrap.label.as_str());
        // Only the function's own `by` can name the label that it unwraps: for an aggregation around it, it is gone.
        let own_by = self.range.grouping.as_ref().is_some_and(|grouping| !grouping.without);
        let groups = |name: &str| self.grouping.is_none_or(|grouping| grouping.names.iter().any(|known| known == name) != grouping.without);
        let keeps = |name: &str| groups(name) && (own_by || dropped != Some(name));
        let mut kept: Vec<(&str, &str)> = record
            .fields
            .iter()
            .filter(|field| keeps(&field.name) && field.name != ERROR && field.name != ERROR_DETAILS)
            .map(|field| (&*field.name, &*field.value))
            .collect();
        kept.sort_unstable();
        self.key.clear();
        for (name, value) in &kept {
            self.key.push_str(name);
            self.key.push('\0');
            self.key.push_str(value);
            self.key.push('\u{1}');
        }
        if let Some(series) = self.known.get(&self.key) {
            return Ok(*series);
        }
        budget.check_series(self.series.len() + 1)?;
        let labels = LabelSet::new(kept.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        self.series.push((labels, Gathered::default()));
        self.known.insert(self.key.clone(), self.series.len() - 1);
        Ok(self.series.len() - 1)
    }
}

/// The value of a line; nothing where it has not the label, or a condition behind `unwrap` does not hold.
pub(super) fn unwrapped(unwrap: &Unwrap, record: &mut Record<'_>) -> Option<f64> {
    let text = record.get(&unwrap.label)?;
    let value = match unwrap.conversion {
        Conversion::Number => units::number(text),
        Conversion::Seconds => units::duration(text).map(|ns| ns / 1e9),
        Conversion::Bytes => units::size(text),
    };
    if value.is_none() {
        let details = format!("label {}: {:?} has no value", unwrap.label, text.chars().take(80).collect::<String>());
        record.fail("SampleExtractionErr", details);
    }
    let keeps = unwrap.conditions.iter().all(|condition| holds(condition, record));
    keeps.then(|| value.unwrap_or(0.0))
}

/// Why a metric query ends at a line that is marked.
fn marked(record: &Record<'_>) -> Error {
    let kind = record.get(ERROR).unwrap_or_default();
    let stream = record.fields.iter().filter(|field| field.kind == Kind::Stream);
    let labels = LabelSet::new(stream.map(|field| (field.name.to_string(), field.value.to_string())));
    let details = record.get(ERROR_DETAILS).unwrap_or_default();
    Error::Invalid(format!(
        "pipeline error: '{kind}' for series: '{labels}' ({details}).\nUse a label filter to intentionally skip this error. (e.g | __error__!=\"{kind}\").\nTo skip all potential errors you can match empty errors.(e.g __error__=\"\")\nThe label filter can also be specified after unwrap. (e.g | unwrap latency | __error__=\"\" )\n"
    ))
}
