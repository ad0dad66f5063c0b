//! Moves lines from the head into compressed blocks of a day's file.
//!
//! # Invariants
//! - The blocks of a stream and the mark `sealed_upto`, the number of the last row in them, are committed to the day's file in
//!   one transaction; only then are the rows deleted from the head. A crash between the two leaves rows at or below the mark,
//!   which every query skips and the next start deletes: nothing is lost or comes twice.
//! - A row that cannot be read is counted as lost in the same transaction.

use super::{
    block::{self, Line, Origin},
    bloom,
    counts::Counts,
    day::Day,
    head::{self, Head, raw_bytes, signed, unsigned},
};
use crate::{
    EntryId,
    error::{Error, Result},
};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::{collections::HashMap, ops::Range, path::Path};

/// What a seal did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sealed {
    /// Streams whose lines were moved.
    pub streams: usize,
    /// Blocks written.
    pub blocks: usize,
    /// Lines in them.
    pub lines: u64,
    /// Lines that could not be read from the head.
    pub lost_lines: u64,
}

/// Text held in memory for one stream before blocks are cut. Larger than a block, so that lines that came in
/// disorder are sorted over a longer stretch.
const STRETCH_BYTES: u64 = 16 << 20;
/// Lines in one block at most.
const BLOCK_LINES: usize = 1 << 16;

/// How blocks are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) block_bytes: u64,
    pub(crate) zstd_level: i32,
}

/// Moves all waiting rows of some streams of one day. One transaction in the day's file.
/// Returns what was done, and the mark of each stream, for deleting the rows from the head.
pub(crate) fn seal_day(
    head: &Head,
    conn: &mut Connection,
    path: &Path,
    day: Day,
    streams: &[String],
    shape: Shape,
) -> Result<(Sealed, Vec<(String, i64)>)> {
    let sql = |error: rusqlite::Error| Error::sql(path, &error);
    let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sql)?;
    let mut all = Sealed::default();
    let mut marks = Vec::new();
    for labels in streams {
        let known = transaction
            .query_row("SELECT id, sealed_upto FROM streams WHERE labels = ?1", [labels], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
            .map_err(sql)?;
        let (stream, upto): (i64, i64) = match known {
            Some(known) => known,
            None => {
                transaction.execute("INSERT INTO streams (labels, sealed_upto) VALUES (?1, 0)", [labels]).map_err(sql)?;
                (transaction.last_insert_rowid(), 0)
            }
        };
        let mut out = Out { conn: &transaction, path, stream, shape, done: Sealed { streams: 1, ..Sealed::default() }, stored: 0, raw: 0 };
        let upto = move_rows(head, day, labels, upto, &mut out)?;
        transaction
            .execute(
                "UPDATE streams SET sealed_upto = ?2, blocks = blocks + ?3, lines = lines + ?4, raw_bytes = raw_bytes + ?5,
                 stored_bytes = stored_bytes + ?6, lost_lines = lost_lines + ?7 WHERE id = ?1",
                params![
                    stream,
                    upto,
                    signed(out.done.blocks as u64),
                    signed(out.done.lines),
                    signed(out.raw),
                    signed(out.stored),
                    signed(out.done.lost_lines)
                ],
            )
            .map_err(sql)?;
        all.streams += 1;
        all.blocks += out.done.blocks;
        all.lines += out.done.lines;
        all.lost_lines += out.done.lost_lines;
        marks.push((labels.clone(), upto));
    }
    transaction.commit().map_err(sql)?;
    Ok((all, marks))
}

/// Reads the rows of a stream above its mark and writes blocks. Returns the new mark.
fn move_rows(head: &Head, day: Day, labels: &str, mut upto: i64, out: &mut Out<'_>) -> Result<i64> {
    let mut statement = head
        .conn
        .prepare("SELECT id, n, cols, body FROM batches WHERE day = ?1 AND labels = ?2 AND id > ?3 ORDER BY id")
        .map_err(head.error())?;
    let mut rows = statement.query(params![day.0, labels, upto]).map_err(head.error())?;
    let mut stretch = Stretch::default();
    while let Some(row) = rows.next().map_err(head.error())? {
        let read = || -> rusqlite::Result<_> { Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get_ref(2)?, row.get_ref(3)?)) };
        let (id, n, cols, body) = read().map_err(head.error())?;
        upto = id;
        let lines = match (cols.as_blob(), body.as_blob()) {
            (Ok(cols), Ok(body)) => head::decode(id, cols, body).ok(),
            _ => None,
        };
        match lines {
            Some(lines) => stretch.add(&lines),
            None => {
                tracing::warn!(row = id, lines = n, "a batch in the head is damaged; its lines are lost");
                out.done.lost_lines += unsigned(n);
            }
        }
        if raw_bytes(stretch.text.len(), stretch.lines.len()) >= STRETCH_BYTES {
            std::mem::take(&mut stretch).cut(out)?;
        }
    }
    stretch.cut(out)?;
    Ok(upto)
}

/// Where the blocks of one stream go.
pub(super) struct Out<'a> {
    pub(super) conn: &'a Connection,
    pub(super) path: &'a Path,
    pub(super) stream: i64,
    pub(super) shape: Shape,
    pub(super) done: Sealed,
    pub(super) raw: u64,
    pub(super) stored: u64,
}

/// Lines that wait to be cut into blocks.
#[derive(Default)]
pub(super) struct Stretch {
    origins: Vec<Origin>,
    known: HashMap<Origin, u32>,
    lines: Vec<(Line, Range<usize>)>,
    text: String,
}

impl Stretch {
    fn add(&mut self, from: &block::Lines) {
        (0..from.columns.len()).for_each(|at| self.add_line(from, at));
    }

    pub(super) fn add_line(&mut self, from: &block::Lines, at: usize) {
        let (Some(origin), Some(id)) = (from.columns.origin(at), from.columns.ids.get(at)) else { return };
        let origin = match self.known.get(origin) {
            Some(number) => *number,
            None => {
                let number = self.origins.len() as u32;
                self.origins.push(origin.clone());
                self.known.insert(origin.clone(), number);
                number
            }
        };
        let start = self.text.len();
        self.text.push_str(from.text(at));
        let line = Line {
            id: *id,
            origin,
            end_offset: from.columns.end_offsets.get(at).copied().unwrap_or(0),
            severity: from.columns.severity(at),
            truncated: from.columns.truncated(at),
        };
        self.lines.push((line, start..self.text.len()));
    }

    pub(super) fn cut(mut self, out: &mut Out<'_>) -> Result<()> {
        self.lines.sort_unstable_by_key(|(line, _)| line.id);
        let mut rest = self.lines.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest
                .iter()
                .take(BLOCK_LINES)
                .take_while(|(_, span)| {
                    let open = bytes < out.shape.block_bytes;
                    bytes += raw_bytes(span.len(), 1);
                    open
                })
                .count();
            let (block, after) = rest.split_at(fits.max(1));
            rest = after;
            self.write(block, out)?;
        }
        Ok(())
    }

    fn write(&self, block: &[(Line, Range<usize>)], out: &mut Out<'_>) -> Result<()> {
        let sql = |error: rusqlite::Error| Error::sql(out.path, &error);
        let bad = |error: super::frame::Bad| Error::Invalid(format!("a block of {} lines cannot be written: {error}", block.len()));
        let texts = block.iter().map(|(_, span)| self.text.get(span.clone()).unwrap_or_default());
        let mut filter = bloom::Builder::default();
        texts.clone().for_each(|text| filter.add(text));
        let filter = filter.finish().map_err(bad)?;
        let mut lines: Vec<Line> = block.iter().map(|(line, _)| line.clone()).collect();
        let origins = self.used(&mut lines);
        let encoded = block::encode_sealed(&origins, &lines, texts.clone(), out.shape.zstd_level).map_err(bad)?;
        let counts = Counts::of(lines.iter().map(|line| (line.id.ts_ns, line.severity)));
        let (t0, t1) = ends(&lines, |id| id.ts_ns);
        let (b0, b1) = ends(&lines, |id| signed(id.batch));
        let raw = raw_bytes(texts.map(str::len).sum(), lines.len());
        let packed = counts.encode().map_err(bad)?;
        out.conn
            .execute(
                "INSERT INTO blocks (stream, t0, t1, b0, b1, n, raw_bytes, severities, counts) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![out.stream, t0, t1, b0, b1, signed(lines.len() as u64), signed(raw), counts.severities(), packed],
            )
            .map_err(sql)?;
        let id = out.conn.last_insert_rowid();
        out.conn
            .execute("INSERT INTO bodies (block, cols, body) VALUES (?1, ?2, ?3)", params![id, encoded.cols, encoded.body])
            .map_err(sql)?;
        out.conn.execute("INSERT INTO blooms (block, bits) VALUES (?1, ?2)", params![id, filter]).map_err(sql)?;
        out.done.blocks += 1;
        out.done.lines += lines.len() as u64;
        out.raw += raw;
        out.stored += (encoded.cols.len() + encoded.body.len() + filter.len() + packed.len()) as u64;
        Ok(())
    }

    /// The sources that a block really has, renumbered.
    fn used(&self, lines: &mut [Line]) -> Vec<Origin> {
        let mut origins = Vec::new();
        let mut numbers = HashMap::new();
        for line in lines {
            line.origin = *numbers.entry(line.origin).or_insert_with(|| {
                origins.extend(self.origins.get(line.origin as usize).cloned());
                (origins.len() - 1) as u32
            });
        }
        origins
    }
}

fn ends(lines: &[Line], value: impl Fn(&EntryId) -> i64) -> (i64, i64) {
    lines.iter().map(|line| value(&line.id)).fold((i64::MAX, i64::MIN), |(low, high), value| (low.min(value), high.max(value)))
}
