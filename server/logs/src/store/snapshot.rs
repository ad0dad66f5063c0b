//! One consistent view of head and day files, for a query.
//!
//! # Invariants
//! - The head's snapshot is taken first, the days' later. A row that a seal moved meanwhile is in the head's snapshot and at or
//!   below the day's mark, so it is skipped; a row deleted before is in the day for sure. Each line is seen exactly once.
//! - What cannot be read is noted in [`QueryStats`] and skipped.

use super::{
    Shared,
    block::{Columns, Lines},
    bloom::Bloom,
    counts::Counts,
    day::{self, Day},
    fields::Gate,
    head::unsigned,
};
use crate::{
    error::{Error, Result},
    query::{plan::Plan, search::QueryStats},
};
use rusqlite::{Connection, OptionalExtension as _, params};
use shipwatch_common::{model::Labels, time::UnixNs};
use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Above this share of a day's streams, one walk over all blocks by time is cheaper than one per stream.
const WALK_SHARE: usize = 8;

/// Where lines are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    Block(i64),
    Head(i64),
}

/// A block or a row of the head that may have matching lines.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) place: Place,
    pub(crate) labels: Arc<Labels>,
    pub(crate) t0: UnixNs,
    pub(crate) t1: UnixNs,
    /// Lines in it.
    pub(crate) n: u64,
    /// Their text with 16 bytes for each line.
    pub(crate) raw_bytes: u64,
    /// Numbers of the first and the last batch in it.
    pub(crate) batches: (u64, u64),
}

impl Candidate {
    /// Their text alone.
    pub(crate) const fn text_bytes(&self) -> u64 {
        self.raw_bytes.saturating_sub(super::head::raw_bytes(0, 1).saturating_mul(self.n))
    }
}

/// The head's part of the view.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    shared: &'a Shared,
    head: Connection,
    head_path: PathBuf,
    parsed: HashMap<String, Option<Arc<Labels>>>,
}

/// One day's part.
#[derive(Debug)]
pub(crate) struct DaySnapshot<'a> {
    head: &'a Connection,
    head_path: &'a Path,
    conn: Option<Connection>,
    path: PathBuf,
    /// Streams of the day's file that the plan selects.
    pub(crate) streams: Vec<Arc<Labels>>,
}

/// Totals of one stream in one day's file.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) labels: String,
    pub(crate) blocks: u64,
    pub(crate) lines: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) lost_lines: u64,
    pub(crate) stored_bytes: u64,
}

/// What a day's file says before any line of it is read.
#[derive(Debug, Default)]
struct Listing {
    found: Vec<Candidate>,
    marks: HashMap<String, i64>,
    streams: Vec<Arc<Labels>>,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn take(shared: &'a Shared) -> Result<Self> {
        let head_path = shared.dir.join("head.db");
        let head = day::reader(&head_path, "SELECT count(*) FROM (SELECT 1 FROM batches LIMIT 1)")?;
        Ok(Self { shared, head, head_path, parsed: HashMap::new() })
    }

    pub(crate) const fn head(&self) -> &Connection {
        &self.head
    }

    pub(crate) fn head_path(&self) -> &Path {
        &self.head_path
    }

    /// Days with lines in a range, both ends inclusive.
    pub(crate) fn days(&self, start_ns: UnixNs, last_ns: UnixNs) -> Result<BTreeSet<Day>> {
        let (first, last) = (Day::of(start_ns), Day::of(last_ns));
        let sql = |error: rusqlite::Error| Error::sql(&self.head_path, &error);
        let mut days: BTreeSet<Day> =
            if first <= last { self.shared.days().range(first..=last).copied().collect() } else { BTreeSet::new() };
        let mut statement = self.head.prepare("SELECT DISTINCT day FROM batches WHERE day BETWEEN ?1 AND ?2").map_err(sql)?;
        let rows = statement.query_map([first.0, last.0], |row| row.get(0).map(Day)).map_err(sql)?;
        for row in rows {
            days.insert(row.map_err(sql)?);
        }
        Ok(days)
    }

    /// Opens one day and finds what the plan may match there, without touching a line.
    pub(crate) fn day(&mut self, day: Day, plan: &Plan, stats: &mut QueryStats) -> Result<(DaySnapshot<'_>, Vec<Candidate>)> {
        let path = day.path(&self.shared.dir);
        let opened = self.open(day, &path, stats).and_then(|conn| match list(&conn, &path, plan, stats) {
            Ok(listing) => Some((conn, listing)),
            Err(error) => {
                stats.note_damage(&error);
                None
            }
        });
        let (conn, mut listing) = opened.map_or_else(|| (None, Listing::default()), |(conn, listing)| (Some(conn), listing));
        self.rows(day, plan, &listing.marks, &mut listing.found)?;
        Ok((DaySnapshot { head: &self.head, head_path: &self.head_path, conn, path, streams: listing.streams }, listing.found))
    }

    /// A day without a file, or whose file was just deleted, has only rows in the head.
    fn open(&self, day: Day, path: &Path, stats: &mut QueryStats) -> Option<Connection> {
        if !self.shared.days().contains(&day) {
            return None;
        }
        match day::open_reader(path) {
            Ok(conn) => Some(conn),
            Err(error) => {
                if path.try_exists().unwrap_or(true) {
                    stats.note_damage(&error);
                }
                None
            }
        }
    }

    fn rows(&mut self, day: Day, plan: &Plan, marks: &HashMap<String, i64>, found: &mut Vec<Candidate>) -> Result<()> {
        let sql = |error: rusqlite::Error| Error::sql(&self.head_path, &error);
        let mut statement = self
            .head
            .prepare("SELECT id, labels, t0, t1, n, severities, raw_bytes FROM batches WHERE day = ?1 AND t1 >= ?2 AND t0 <= ?3")
            .map_err(sql)?;
        let mut rows = statement.query(params![day.0, plan.start_ns, plan.last_ns]).map_err(sql)?;
        while let Some(row) = rows.next().map_err(sql)? {
            let number = |column: usize| row.get::<_, i64>(column).map_err(sql);
            let id = number(0)?;
            let Ok(text) = row.get_ref(1).map_err(sql)?.as_str() else { continue };
            if row.get::<_, u8>(5).map_err(sql)? & plan.severities == 0 || marks.get(text).is_some_and(|mark| id <= *mark) {
                continue;
            }
            let labels = match self.parsed.get(text) {
                Some(known) => known.clone(),
                None => {
                    let labels: Option<Arc<Labels>> = serde_json::from_str(text).ok().map(Arc::new);
                    let selected = labels.filter(|labels| plan.selects(labels));
                    self.parsed.insert(text.to_owned(), selected.clone());
                    selected
                }
            };
            if let Some(labels) = labels {
                found.push(Candidate {
                    place: Place::Head(id),
                    labels,
                    t0: number(2)?,
                    t1: number(3)?,
                    n: unsigned(number(4)?),
                    raw_bytes: unsigned(number(6)?),
                    batches: (unsigned(id), unsigned(id)),
                });
            }
        }
        Ok(())
    }
}

/// The streams of a day with their marks, and the blocks that the plan may match.
fn list(conn: &Connection, path: &Path, plan: &Plan, stats: &mut QueryStats) -> Result<Listing> {
    let sql = |error: rusqlite::Error| Error::sql(path, &error);
    let mut listing = Listing::default();
    let mut streams: HashMap<i64, Arc<Labels>> = HashMap::new();
    let mut statement = conn.prepare("SELECT id, labels, sealed_upto, blocks FROM streams").map_err(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?))).map_err(sql)?;
    for row in rows {
        let (id, text, mark, blocks): (i64, _, _, i64) = row.map_err(sql)?;
        match serde_json::from_str::<Labels>(&text) {
            // A stream whose blocks are all gone has only its mark.
            Ok(labels) if blocks > 0 && plan.selects(&labels) => drop(streams.insert(id, Arc::new(labels))),
            Ok(_) => {}
            Err(error) => {
                stats.note_damage(&Error::Corrupt { path: path.display().to_string(), what: format!("labels of stream {id}: {error}") });
            }
        }
        listing.marks.insert(text, mark);
    }
    listing.streams = streams.values().cloned().collect();
    if plan.streams_only {
        return Ok(listing);
    }
    if streams.len() * WALK_SHARE < listing.marks.len() {
        for stream in streams.keys() {
            blocks(conn, plan, ("stream = ?3", *stream), &streams, &mut listing.found).map_err(sql)?;
        }
    } else if !streams.is_empty() {
        blocks(conn, plan, ("?3 = 0", 0), &streams, &mut listing.found).map_err(sql)?;
    }
    Ok(listing)
}

fn blocks(
    conn: &Connection,
    plan: &Plan,
    (filter, value): (&str, i64),
    streams: &HashMap<i64, Arc<Labels>>,
    found: &mut Vec<Candidate>,
) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(&format!(
        "SELECT id, stream, t0, t1, n, severities, b0, b1, raw_bytes FROM blocks WHERE t1 >= ?1 AND t0 <= ?2 AND {filter}"
    ))?;
    let mut rows = statement.query(params![plan.start_ns, plan.last_ns, value])?;
    while let Some(row) = rows.next()? {
        if row.get::<_, u8>(5)? & plan.severities == 0 {
            continue;
        }
        let Some(labels) = streams.get(&row.get(1)?) else { continue };
        found.push(Candidate {
            place: Place::Block(row.get(0)?),
            labels: Arc::clone(labels),
            t0: row.get(2)?,
            t1: row.get(3)?,
            n: unsigned(row.get(4)?),
            raw_bytes: unsigned(row.get(8)?),
            batches: (unsigned(row.get(6)?), unsigned(row.get(7)?)),
        });
    }
    Ok(())
}

impl DaySnapshot<'_> {
    /// Totals of the streams in the day's file.
    pub(crate) fn volumes(&self) -> Result<Vec<Volume>> {
        let sql = |error: rusqlite::Error| Error::sql(&self.path, &error);
        let Some(conn) = &self.conn else { return Ok(Vec::new()) };
        let mut statement = conn.prepare("SELECT labels, blocks, lines, raw_bytes, lost_lines, stored_bytes FROM streams").map_err(sql)?;
        let rows = statement.query_map([], |row| {
            Ok(Volume {
                labels: row.get(0)?,
                blocks: unsigned(row.get(1)?),
                lines: unsigned(row.get(2)?),
                raw_bytes: unsigned(row.get(3)?),
                lost_lines: unsigned(row.get(4)?),
                stored_bytes: unsigned(row.get(5)?),
            })
        });
        rows.and_then(Iterator::collect).map_err(sql)
    }

    /// Whether the filter of a block says that none of its lines can match.
    pub(crate) fn is_denied(&self, candidate: &Candidate, plan: &Plan, stats: &mut QueryStats) -> bool {
        let (Place::Block(id), Some(conn)) = (candidate.place, &self.conn) else { return false };
        if plan.tokens.is_empty() {
            return false;
        }
        let read = conn.query_row("SELECT bits FROM blooms WHERE block = ?1", [id], |row| row.get::<_, Vec<u8>>(0));
        match read.map(|bits| Bloom::decode(&bits)) {
            Ok(Ok(bloom)) => !bloom.may_have(&plan.tokens),
            // Without its filter the block is read.
            _ => {
                stats.damaged_filters += 1;
                false
            }
        }
    }

    /// All of the lines but their text. `None` where they cannot be read; that is noted.
    pub(crate) fn columns(&self, candidate: &Candidate, stats: &mut QueryStats) -> Option<Columns> {
        let (packed, batch) = match candidate.place {
            Place::Block(id) => (self.blob("SELECT cols FROM bodies WHERE block = ?1", id, self.conn.as_ref(), &self.path), None),
            Place::Head(id) => {
                (self.blob("SELECT cols FROM batches WHERE id = ?1", id, Some(self.head), self.head_path), Some(unsigned(id)))
            }
        };
        let read = packed.and_then(|packed| Columns::decode(&packed, batch).map_err(|error| self.bad(candidate, error.0)));
        self.noted(candidate, read, stats)
    }

    /// Adds the text of the selected lines; see [`Lines::decode_where`].
    pub(crate) fn lines_where(
        &self,
        candidate: &Candidate,
        columns: Columns,
        gates: &[Gate],
        selected: &mut Vec<usize>,
        stats: &mut QueryStats,
    ) -> Option<Lines> {
        let packed = match candidate.place {
            Place::Block(id) => self.blob("SELECT body FROM bodies WHERE block = ?1", id, self.conn.as_ref(), &self.path),
            Place::Head(id) => self.blob("SELECT body FROM batches WHERE id = ?1", id, Some(self.head), self.head_path),
        };
        let read =
            packed.and_then(|packed| Lines::decode_where(columns, &packed, gates, selected).map_err(|error| self.bad(candidate, error.0)));
        self.noted(candidate, read, stats)
    }

    /// Lines by minute and severity. `None` where that cannot be read; the columns tell it then.
    pub(crate) fn counts(&self, candidate: &Candidate) -> Option<Counts> {
        let packed = match candidate.place {
            Place::Block(id) => self.blob("SELECT counts FROM blocks WHERE id = ?1", id, self.conn.as_ref(), &self.path),
            Place::Head(id) => self.blob("SELECT counts FROM batches WHERE id = ?1", id, Some(self.head), self.head_path),
        };
        Counts::decode(&packed.ok()?).ok()
    }

    fn blob(&self, query: &str, id: i64, conn: Option<&Connection>, path: &Path) -> Result<Vec<u8>> {
        conn.ok_or(Error::Closed)?
            .query_row(query, [id], |row| row.get(0))
            .optional()
            .map_err(|error| Error::sql(path, &error))?
            .ok_or_else(|| Error::Corrupt { path: path.display().to_string(), what: format!("the lines of block {id} are missing") })
    }

    fn bad(&self, candidate: &Candidate, what: &str) -> Error {
        let (path, id) = match candidate.place {
            Place::Block(id) => (self.path.as_path(), id),
            Place::Head(id) => (self.head_path, id),
        };
        Error::Corrupt { path: path.display().to_string(), what: format!("block {id}: {what}") }
    }

    fn noted<T>(&self, candidate: &Candidate, read: Result<T>, stats: &mut QueryStats) -> Option<T> {
        read.inspect_err(|error| {
            stats.lost_blocks += 1;
            stats.lost_lines += candidate.n;
            stats.note_damage(error);
        })
        .ok()
    }
}
