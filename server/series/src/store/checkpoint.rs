//! What the head holds, written to `head.db` from time to time, so that a start reads it and replays the last minutes only.
//!
//! Series are saved in groups of [`GROUP`] neighbouring ids. A group has one row in `saved`, replaced each time, with its open
//! tails and late samples and the last frame that it has everything of; and rows in `saved_blocks`, each of one window, with
//! blocks, which are written once. Frames that all groups have are deleted: a sample is written twice in all, and a tail a few
//! times more.
//!
//! ```text
//! saved.body       : pack(count: varint | (id: varint delta, first time: signed varint, tail: bytes with length, late)*), see `frames`
//! late             : count: varint | (time: signed varint delta, value: f64 LE)*
//! saved_blocks.body: pack(count: varint | (id: varint delta, first time, last time - first time, count, chunk with length)*)
//! ```
//!
//! # Invariants
//! - A group's rows are one transaction: of its samples in frames up to `saved.frame`, what is not in a day file is in its rows,
//!   and of later ones nothing is. A start replays for each series only frames behind its group's.
//! - Nothing is saved while a seal is under way: the samples that it moves are in no series then, and frames must keep them.
//! - The end of a seal, in its own transaction, deletes blocks of windows that day files have, and marks rows whose tails may have
//!   such samples `sealed_before`, as it does with frames.
//! - Frames are deleted after every group has been saved behind them. Being killed at any point before leaves both: the frames
//!   that a group has are not replayed for it.
//!
//! A group with very many late samples is left as it was, and frames stay until a seal has taken those samples.

use super::{
    Engine, chunk, frames, lock,
    part::{Block, Part},
    read_lock, sqlite,
    tail::Tail,
    varint::{Reader, put, put_bytes, put_signed},
    write_lock,
    writer::{Message, Writer},
};
use crate::error::Error;
use rusqlite::{OptionalExtension as _, params};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tracing::{debug, info};

/// Series with ids from a multiple of this on are saved together.
pub(crate) const GROUP: i64 = 512;

/// Samples in frames that make a checkpoint worth its writing: they take about a second to replay.
const WORTH_IT: u64 = 8_000_000;

/// Series in one transaction, rounded up to a group: the writer does nothing else meanwhile.
const SERIES_AT_ONCE: usize = 16 * GROUP as usize;

/// Late samples of a group that are saved; more wait for a seal.
const MAX_LATE: usize = 65_536;

/// A row of blocks is not filled further from here on.
const ROW_BYTES: usize = 1 << 20;

/// So many free pages are no matter.
const FREE_PAGES: i64 = 1_024;

/// Pages given back at a time: the writer does nothing else meanwhile.
const VACUUM_PAGES: i64 = 8_192;

pub(crate) const MIGRATION: &str = "
    CREATE TABLE saved(number INTEGER PRIMARY KEY, frame INTEGER NOT NULL, t0 INTEGER NOT NULL,
        sealed_before INTEGER NOT NULL DEFAULT (-9223372036854775807), body BLOB NOT NULL);
    CREATE TABLE saved_blocks(id INTEGER PRIMARY KEY, number INTEGER NOT NULL, window INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE INDEX saved_blocks_window ON saved_blocks(window);
";

/// The group of a series.
pub(crate) const fn group_of(id: i64) -> i64 {
    id.div_euclid(GROUP)
}

/// What one transaction saved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Every group that it went through has what is in frames up to this one.
    frame: i64,
    /// The group to go on from.
    next: Option<i64>,
    bytes: u64,
}

/// The rows of one group.
#[derive(Debug, Default)]
struct Rows {
    number: i64,
    t0: i64,
    /// Nothing if it has too many late samples.
    body: Option<Vec<u8>>,
    /// By window.
    blocks: Vec<(i64, Vec<u8>)>,
}

impl Engine {
    /// Saves what the head holds if a start would have much to replay otherwise. Call it every minute or so.
    ///
    /// # Errors
    /// Nothing is lost; the next call begins again.
    pub fn checkpoint(&self) -> Result<(), Error> {
        if self.counters.unsaved.load(Relaxed) < WORTH_IT {
            return Ok(());
        }
        self.save_head()
    }

    pub(crate) fn save_head(&self) -> Result<(), Error> {
        let _one_at_a_time = lock(&self.sealing);
        // A seal failed and is tried again.
        if read_lock(&self.head).is_sealing() {
            return Ok(());
        }
        let unsaved = self.counters.unsaved.load(Relaxed);
        let at_once = self.hooks.saved_at_once.unwrap_or(SERIES_AT_ONCE);
        let (mut from, mut saved, mut bytes) = (Some(i64::MIN / GROUP), i64::MAX, 0);
        while let Some(group) = from {
            let step = self.ask(|reply| Message::Save { from: group, at_once, reply })?;
            (from, saved, bytes) = (step.next, saved.min(step.frame), bytes + step.bytes);
        }
        self.ask(|reply| Message::EndSave { saved, reply })?;
        self.counters.unsaved.fetch_sub(unsaved, Relaxed);
        info!(samples = unsaved, bytes, "saved the head");
        Ok(())
    }
}

impl Writer {
    /// Saves groups from a number on, with so many series in all.
    pub(crate) fn save(&mut self, from: i64, at_once: usize) -> Result<Step, Error> {
        let wrong = |e: rusqlite::Error| sqlite::error("write", &self.path, &e);
        let compress = |e: std::io::Error| Error::io("compress for", &self.path, &e);
        let transaction = self.connection.unchecked_transaction().map_err(wrong)?;
        let last = transaction.query_row("SELECT coalesce(max(id), 0) FROM frames", [], |row| row.get(0)).map_err(wrong)?;
        let mut step = Step { frame: last, next: None, bytes: 0 };
        let mut saved = Vec::new();
        {
            let head = read_lock(&self.head);
            let mut series = head.series_from(from.saturating_mul(GROUP)).peekable();
            let mut done = 0;
            while let Some((id, _)) = series.peek() {
                let number = group_of(*id);
                if done >= at_once {
                    step.next = Some(number);
                    break;
                }
                let mut members = Vec::new();
                while let Some(member) = series.next_if(|(id, _)| group_of(*id) == number) {
                    members.push(member);
                }
                done += members.len();
                let rows = Rows::of(number, &members).map_err(compress)?;
                step.bytes += rows.bytes();
                step.frame = step.frame.min(rows.write(&transaction, last).map_err(wrong)?);
                saved.extend(rows.body.is_some().then_some(number));
            }
        }
        transaction.commit().map_err(wrong)?;
        let mut head = write_lock(&self.head);
        for number in saved {
            head.mark_saved(number.saturating_mul(GROUP), number.saturating_add(1).saturating_mul(GROUP));
        }
        Ok(step)
    }

    /// Deletes frames that all groups have, and rows of groups that no series is left of. `saved` is the last such frame.
    pub(crate) fn end_save(&mut self, saved: i64) -> Result<(), Error> {
        let wrong = |e: rusqlite::Error| sqlite::error("write", &self.path, &e);
        let transaction = self.connection.transaction().map_err(wrong)?;
        transaction.execute("DELETE FROM frames WHERE id <= ?1", [saved]).map_err(wrong)?;
        transaction.execute("DELETE FROM saved WHERE frame < ?1", [saved]).map_err(wrong)?;
        transaction.commit().map_err(wrong)?;
        self.shrink();
        Ok(())
    }

    /// Gives space back to the file system; if that fails, the next time does it.
    pub(crate) fn shrink(&self) {
        if let Err(error) = vacuum(&self.connection) {
            debug!(path = %self.path.display(), %error, "could not give free pages back");
        }
    }
}

/// Takes free pages out when more than half of the file is free: what comes soon uses the rest again. Files of earlier versions keep
/// their size.
fn vacuum(connection: &rusqlite::Connection) -> rusqlite::Result<()> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let (free, all) = (number("PRAGMA freelist_count")?, number("PRAGMA page_count")?);
    if free > FREE_PAGES && free > all / 2 {
        let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

/// What the end of a seal does to the checkpoint, within its transaction.
pub(crate) fn forget(connection: &rusqlite::Connection, cutoff: i64) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM saved_blocks WHERE window < ?1", [cutoff])?;
    connection.execute("UPDATE saved SET sealed_before = ?1 WHERE t0 < ?1 AND sealed_before < ?1", [cutoff])?;
    Ok(())
}

impl Rows {
    fn of(number: i64, members: &[(i64, &Part)]) -> std::io::Result<Self> {
        let mut blocks: BTreeMap<i64, Vec<(i64, &Block)>> = BTreeMap::new();
        for (id, part) in members {
            for block in part.unsaved() {
                blocks.entry(chunk::window_of(block.t0)).or_default().push((*id, block));
            }
        }
        let mut rows = Self { number, ..Self::default() };
        for (window, blocks) in blocks {
            for some in split(&blocks) {
                rows.blocks.push((window, frames::pack(&encode_blocks(number, some))?));
            }
        }
        let late: usize = members.iter().map(|(_, part)| part.late().len()).sum();
        if late > MAX_LATE {
            // Blocks are of no use without what is behind them.
            rows.blocks.clear();
            return Ok(rows);
        }
        let times =
            members.iter().flat_map(|(_, part)| part.tail().range().into_iter().chain(part.late().iter().map(|(ts, _)| (*ts, *ts))));
        rows.t0 = times.map(|(t0, _)| t0).min().unwrap_or(i64::MAX);
        rows.body = Some(frames::pack(&encode_open(number, members))?);
        Ok(rows)
    }

    fn bytes(&self) -> u64 {
        let all = self.blocks.iter().map(|(_, body)| body).chain(&self.body);
        all.map(|body| body.len() as u64).sum()
    }

    /// The last frame that the group has everything of, which was `last` now.
    fn write(&self, connection: &rusqlite::Connection, last: i64) -> rusqlite::Result<i64> {
        let Some(body) = &self.body else {
            let before = connection.query_row("SELECT frame FROM saved WHERE number = ?1", [self.number], |row| row.get(0));
            return Ok(before.optional()?.unwrap_or(0));
        };
        let mut put = connection.prepare("INSERT OR REPLACE INTO saved(number, frame, t0, body) VALUES (?1, ?2, ?3, ?4)")?;
        put.execute(params![self.number, last, self.t0, body])?;
        let mut put = connection.prepare("INSERT INTO saved_blocks(number, window, body) VALUES (?1, ?2, ?3)")?;
        for (window, body) in &self.blocks {
            put.execute(params![self.number, window, body])?;
        }
        Ok(last)
    }
}

/// Blocks in rows of a bounded size.
fn split<'a, 'b>(mut blocks: &'a [(i64, &'b Block)]) -> Vec<&'a [(i64, &'b Block)]> {
    let mut rows = Vec::new();
    while !blocks.is_empty() {
        let mut bytes = 0;
        let fits = blocks.iter().position(|(_, block)| {
            bytes += block.body.len() + 32;
            bytes > ROW_BYTES
        });
        let (row, rest) = blocks.split_at(fits.unwrap_or(blocks.len()).max(1));
        rows.push(row);
        blocks = rest;
    }
    rows
}

/// Ids of a group as small differences.
struct Ids(i64);

impl Ids {
    const fn of(number: i64) -> Self {
        Self(number.wrapping_mul(GROUP))
    }

    fn put(&mut self, out: &mut Vec<u8>, id: i64) {
        put(out, id.wrapping_sub(self.0).cast_unsigned());
        self.0 = id;
    }

    fn take(&mut self, reader: &mut Reader<'_>) -> Option<i64> {
        self.0 = self.0.wrapping_add(reader.number()?.cast_signed());
        Some(self.0)
    }
}

fn encode_blocks(number: i64, blocks: &[(i64, &Block)]) -> Vec<u8> {
    let (mut raw, mut ids) = (Vec::new(), Ids::of(number));
    put(&mut raw, blocks.len() as u64);
    for (id, block) in blocks {
        ids.put(&mut raw, *id);
        put_signed(&mut raw, block.t0);
        put(&mut raw, (block.t1 - block.t0).cast_unsigned());
        put(&mut raw, block.count.into());
        put_bytes(&mut raw, &block.body);
    }
    raw
}

fn encode_open(number: i64, members: &[(i64, &Part)]) -> Vec<u8> {
    let (mut raw, mut ids) = (Vec::new(), Ids::of(number));
    put(&mut raw, members.len() as u64);
    for (id, part) in members {
        ids.put(&mut raw, *id);
        put_signed(&mut raw, part.tail().range().map_or(0, |(t0, _)| t0));
        put_bytes(&mut raw, part.tail().bytes());
        put(&mut raw, part.late().len() as u64);
        let mut last = 0i64;
        for (ts, value) in part.late() {
            put_signed(&mut raw, ts.wrapping_sub(last));
            raw.extend_from_slice(&value.to_le_bytes());
            last = *ts;
        }
    }
    raw
}

/// The blocks in a row of `saved_blocks`, by series, older ones first.
pub(crate) fn decode_blocks(number: i64, body: &[u8]) -> Result<Vec<(i64, Block)>, &'static str> {
    let raw = frames::unpack(body)?;
    let (mut reader, mut ids) = (Reader(&raw), Ids::of(number));
    let mut next = |reader: &mut Reader<'_>| {
        let id = ids.take(reader)?;
        let t0 = reader.signed()?;
        let t1 = t0.checked_add(i64::try_from(reader.number()?).ok()?)?;
        let count = u32::try_from(reader.number()?).ok()?;
        Some((id, Block { t0, t1, count, body: Arc::from(reader.bytes()?) }))
    };
    let mut all = || (0..reader.number()?).map(|_| next(&mut reader)).collect::<Option<Vec<_>>>();
    all().filter(|_| reader.0.is_empty()).ok_or("it has a wrong structure")
}

/// What a series has beside blocks.
pub(crate) type Open = (Tail, Vec<(i64, f64)>);

/// What is in a row of `saved`, by series.
pub(crate) fn decode_open(number: i64, body: &[u8]) -> Result<Vec<(i64, Open)>, &'static str> {
    let raw = frames::unpack(body)?;
    let (mut reader, mut ids) = (Reader(&raw), Ids::of(number));
    let mut next = |reader: &mut Reader<'_>| {
        let id = ids.take(reader)?;
        let t0 = reader.signed()?;
        let tail = Tail::read(t0, reader.bytes()?)?;
        let mut ts = 0i64;
        let count = reader.number()?;
        let mut sample = || {
            ts = ts.wrapping_add(reader.signed()?);
            Some((ts, f64::from_le_bytes(reader.array()?)))
        };
        let late = (0..count).map(|_| sample()).collect::<Option<Vec<_>>>()?;
        Some((id, (tail, late)))
    };
    let mut all = || (0..reader.number()?).map(|_| next(&mut reader)).collect::<Option<Vec<_>>>();
    all().filter(|_| reader.0.is_empty()).ok_or("it has a wrong structure")
}
