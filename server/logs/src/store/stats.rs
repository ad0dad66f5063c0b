//! Totals of the store.

use super::{Shared, file_bytes, head::unsigned, recover::Damage, snapshot::Snapshot};
use crate::{
    error::{Error, Result},
    query::{Query, plan::Plan, search::QueryStats},
};
use serde::Serialize;
use shipwatch_common::model::Labels;
use std::collections::HashMap;

/// Streams listed at most, the largest first.
const STREAMS_LISTED: usize = 1_000;

/// Totals of the store, since its first day where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Lines stored now.
    pub lines: u64,
    /// Of these, lines that are not sealed.
    pub head_lines: u64,
    /// Their text with 16 bytes for each line.
    pub raw_bytes: u64,
    /// Size of all files.
    pub stored_bytes: u64,
    /// Sealed blocks.
    pub blocks: u64,
    /// Days with lines.
    pub days: usize,
    /// Lines that came again and were dropped.
    pub duplicate_lines: u64,
    /// Appends whose sequence was applied before.
    pub duplicate_appends: u64,
    /// Lines that were longer than allowed and are cut.
    pub cut_lines: u64,
    /// Lines with an impossible time, filed under the time of arrival.
    pub redated_lines: u64,
    /// Lines that retention deleted.
    pub expired_lines: u64,
    /// Bytes that retention gave back to the file system.
    pub expired_bytes: u64,
    /// Blocks that retention deleted from days that stay.
    pub expired_blocks: u64,
    /// Lines that were erased.
    pub erased_lines: u64,
    /// Lines that were damaged in the head and could not be sealed.
    pub lost_lines: u64,
    /// Damaged files found since the start.
    pub damaged: Vec<Damage>,
    /// Number of streams.
    pub streams_total: usize,
    /// The largest streams.
    pub streams: Vec<StreamVolume>,
}

/// Volume of one stream.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct StreamVolume {
    /// The stream.
    pub labels: Labels,
    /// Lines stored now.
    pub lines: u64,
    /// Their text with 16 bytes for each line.
    pub raw_bytes: u64,
}

pub(crate) fn stats(shared: &Shared) -> Result<Stats> {
    let mut all = Stats { damaged: shared.damage_mut().clone(), ..Stats::default() };
    let mut streams: HashMap<Labels, (u64, u64)> = HashMap::new();
    let mut add = |labels: Labels, lines: u64, raw_bytes: u64| {
        let stream = streams.entry(labels).or_default();
        *stream = (stream.0 + lines, stream.1 + raw_bytes);
    };
    let mut snapshot = Snapshot::take(shared)?;
    totals(&snapshot, &mut all)?;
    all.stored_bytes = file_bytes(snapshot.head_path())?;
    let plan = Plan::without_blocks(&Query::default(), i64::MIN, i64::MAX);
    for day in snapshot.days(i64::MIN, i64::MAX)? {
        all.stored_bytes += file_bytes(&day.path(&shared.dir))?;
        all.days += 1;
        let (day, rows) = snapshot.day(day, &plan, &mut QueryStats::default())?;
        for row in rows {
            all.head_lines += row.n;
            add((*row.labels).clone(), row.n, row.raw_bytes);
        }
        for stream in day.volumes()? {
            all.blocks += stream.blocks;
            all.lost_lines += stream.lost_lines;
            add(serde_json::from_str(&stream.labels).unwrap_or_default(), stream.lines, stream.raw_bytes);
        }
    }
    all.lines = streams.values().map(|(lines, _)| lines).sum();
    all.raw_bytes = streams.values().map(|(_, raw_bytes)| raw_bytes).sum();
    all.streams_total = streams.len();
    all.streams = streams.into_iter().map(|(labels, (lines, raw_bytes))| StreamVolume { labels, lines, raw_bytes }).collect();
    all.streams.sort_unstable_by(|a, b| (b.raw_bytes, &a.labels).cmp(&(a.raw_bytes, &b.labels)));
    all.streams.truncate(STREAMS_LISTED);
    Ok(all)
}

/// The running totals that the head keeps.
fn totals(snapshot: &Snapshot<'_>, all: &mut Stats) -> Result<()> {
    let sql = |error: rusqlite::Error| Error::sql(snapshot.head_path(), &error);
    let mut statement = snapshot.head().prepare("SELECT key, value FROM meta").map_err(sql)?;
    let mut rows = statement.query([]).map_err(sql)?;
    while let Some(row) = rows.next().map_err(sql)? {
        let (key, value): (String, i64) = (row.get(0).map_err(sql)?, row.get(1).map_err(sql)?);
        match key.as_str() {
            "duplicate_lines" => all.duplicate_lines = unsigned(value),
            "duplicate_appends" => all.duplicate_appends = unsigned(value),
            "cut_lines" => all.cut_lines = unsigned(value),
            "redated_lines" => all.redated_lines = unsigned(value),
            "erased_lines" => all.erased_lines = unsigned(value),
            "expired_lines" => all.expired_lines = unsigned(value),
            "expired_bytes" => all.expired_bytes = unsigned(value),
            "expired_blocks" => all.expired_blocks = unsigned(value),
            _ => {}
        }
    }
    Ok(())
}
