//! The rows of `head.db`, read into a head: series, the checkpoint, and the frames behind it.
//!
//! # Invariants
//! - Samples of a frame or of a row of the checkpoint that are before its `sealed_before` are in a day file and are not read; those
//!   of a frame that the checkpoint has are not replayed.
//! - Rows that cannot be read are told and left out; [`quarantine`] takes them out of use.

use super::{
    checkpoint,
    frames::{self, Frame},
    head::Head,
    part::Part,
    recover::OpenReport,
    tail::Tail,
};
use foldhash::fast::RandomState;
use rusqlite::{Connection, OptionalExtension as _, params};
use std::{collections::HashMap, sync::Arc};

/// What was read.
pub(crate) struct Replayed {
    pub(crate) head: Head,
    /// Samples that were replayed from frames.
    pub(crate) unsaved: u64,
    pub(crate) bad: Vec<Bad>,
    pub(crate) bad_series: Vec<BadSeries>,
}

/// Reads everything; changes nothing. A file of the first format, which has no checkpoint, can be read.
pub(crate) fn load(connection: &Connection, report: &mut OpenReport) -> rusqlite::Result<Replayed> {
    let mut head = Head::default();
    let mut bad = Vec::new();
    let (mut places, bad_series) = load_series(connection, &mut head, report)?;
    if has_checkpoint(connection)? {
        bad.extend(load_blocks(connection, &mut head, &places, report)?);
        bad.extend(load_open(connection, &mut head, &mut places, report)?);
    }
    let saved = report.samples;
    bad.extend(load_frames(connection, &mut head, &places, report)?);
    report.series = head.series_count() as u64;
    Ok(Replayed { head, unsaved: report.samples - saved, bad, bad_series })
}

/// Whether the file has the tables of a checkpoint: the first format has not.
pub(crate) fn has_checkpoint(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(connection.query_row("SELECT 1 FROM sqlite_schema WHERE name = 'saved'", [], |_| Ok(())).optional()?.is_some())
}

/// Labels that cannot be read: the series' id and what is wrong.
pub(crate) type BadSeries = (i64, &'static str);

/// Where samples are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Table {
    Frames,
    Saved,
    SavedBlocks,
}

/// A row that cannot be read.
pub(crate) struct Bad {
    pub(crate) table: Table,
    pub(crate) id: i64,
    pub(crate) reason: &'static str,
}

/// Where the head has a series.
#[derive(Clone, Copy)]
struct Place {
    slot: u32,
    /// Up to this frame the checkpoint has its samples.
    frame: i64,
}

/// By stored ids, which the store itself gives.
type Places = HashMap<i64, Place, RandomState>;

fn load_series(connection: &Connection, head: &mut Head, report: &mut OpenReport) -> rusqlite::Result<(Places, Vec<BadSeries>)> {
    let (mut places, mut bad) = (Places::default(), Vec::new());
    let mut read = connection.prepare("SELECT id, labels FROM series ORDER BY id")?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        match frames::decode_labels(row.get_ref(1)?.as_blob()?) {
            // Twice the same labels would be two series with one name; the first one takes both.
            Ok(labels) => {
                let labels = Arc::new(labels);
                let slot = head.find(&labels).map(|found| found.slot);
                let slot = slot.unwrap_or_else(|| head.add_series(id, labels));
                places.insert(id, Place { slot, frame: 0 });
            }
            Err(reason) => {
                report.series_lost += 1;
                bad.push((id, reason));
            }
        }
    }
    Ok((places, bad))
}

/// Counts samples as read, or as lost if their series is not there, and gives the series' part.
fn part_of<'h>(head: &'h mut Head, place: Option<&Place>, samples: u64, report: &mut OpenReport) -> Option<&'h mut Part> {
    let part = place.and_then(|place| head.part_mut(place.slot));
    let count = if part.is_some() { &mut report.samples } else { &mut report.samples_lost };
    *count += samples;
    part
}

fn load_blocks(connection: &Connection, head: &mut Head, places: &Places, report: &mut OpenReport) -> rusqlite::Result<Vec<Bad>> {
    let mut bad = Vec::new();
    let mut read = connection.prepare("SELECT id, number, body FROM saved_blocks ORDER BY id")?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let body = row.get_ref(2)?.as_blob()?;
        match checkpoint::decode_blocks(row.get(1)?, body) {
            Ok(blocks) => {
                for (id, block) in blocks {
                    if let Some(part) = part_of(head, places.get(&id), block.count.into(), report) {
                        part.restore_block(block);
                    }
                }
            }
            Err(reason) => {
                report.lose(body);
                bad.push(Bad { table: Table::SavedBlocks, id: row.get(0)?, reason });
            }
        }
    }
    Ok(bad)
}

fn load_open(connection: &Connection, head: &mut Head, places: &mut Places, report: &mut OpenReport) -> rusqlite::Result<Vec<Bad>> {
    let mut bad = Vec::new();
    let mut read = connection.prepare("SELECT number, frame, sealed_before, body FROM saved")?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let (number, frame, sealed_before): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let body = row.get_ref(3)?.as_blob()?;
        match checkpoint::decode_open(number, body) {
            Ok(all) => {
                for (id, (mut tail, mut late)) in all {
                    if let Some(place) = places.get_mut(&id) {
                        place.frame = frame;
                    }
                    // A tail lies in one window, and seals end at the border of one.
                    if tail.range().is_some_and(|(_, t1)| t1 < sealed_before) {
                        tail = Tail::default();
                    }
                    late.retain(|(ts, _)| *ts >= sealed_before);
                    let samples = u64::from(tail.count()) + late.len() as u64;
                    if samples > 0
                        && let Some(part) = part_of(head, places.get(&id), samples, report)
                    {
                        part.restore_open(tail, late);
                    }
                }
            }
            Err(reason) => {
                report.lose(body);
                bad.push(Bad { table: Table::Saved, id: number, reason });
            }
        }
    }
    Ok(bad)
}

fn load_frames(connection: &Connection, head: &mut Head, places: &Places, report: &mut OpenReport) -> rusqlite::Result<Vec<Bad>> {
    let mut bad = Vec::new();
    let mut read = connection.prepare("SELECT id, sealed_before, payload FROM frames ORDER BY id")?;
    let mut rows = read.query([])?;
    while let Some(row) = rows.next()? {
        let (number, sealed_before): (i64, i64) = (row.get(0)?, row.get(1)?);
        let payload = row.get_ref(2)?.as_blob()?;
        match Frame::decode(payload) {
            Ok(frame) => {
                report.frames += 1;
                for (id, ts, value) in frame.iter().filter(|(_, ts, _)| *ts >= sealed_before) {
                    match places.get(&id) {
                        Some(place) if place.frame >= number => {}
                        Some(place) => {
                            head.push(place.slot, ts, value);
                            report.samples += 1;
                        }
                        None => report.samples_lost += 1,
                    }
                }
            }
            Err(reason) => {
                report.lose(payload);
                bad.push(Bad { table: Table::Frames, id: number, reason });
            }
        }
    }
    Ok(bad)
}

/// Takes damaged rows out of use, so that they are told once. Series have negative ids in `bad_frames`.
pub(crate) fn quarantine(connection: &Connection, samples: &[Bad], series: &[BadSeries]) -> rusqlite::Result<()> {
    if samples.is_empty() && series.is_empty() {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    for Bad { table, id, reason } in samples {
        let (copy, delete) = match table {
            Table::Frames => {
                ("INSERT OR REPLACE INTO bad_frames SELECT id, ?2, payload FROM frames WHERE id = ?1", "DELETE FROM frames WHERE id = ?1")
            }
            Table::Saved => (
                "INSERT INTO bad_frames(reason, payload) SELECT 'checkpoint: ' || ?2, body FROM saved WHERE number = ?1",
                "DELETE FROM saved WHERE number = ?1",
            ),
            Table::SavedBlocks => (
                "INSERT INTO bad_frames(reason, payload) SELECT 'blocks of the checkpoint: ' || ?2, body FROM saved_blocks WHERE id = ?1",
                "DELETE FROM saved_blocks WHERE id = ?1",
            ),
        };
        transaction.execute(copy, params![id, reason])?;
        transaction.execute(delete, [id])?;
    }
    for (id, reason) in series {
        let copy = "INSERT OR REPLACE INTO bad_frames SELECT -id, 'labels of a series: ' || ?2, labels FROM series WHERE id = ?1";
        transaction.execute(copy, params![id, reason])?;
        transaction.execute("DELETE FROM series WHERE id = ?1", [id])?;
    }
    transaction.execute("DELETE FROM bad_frames WHERE id NOT IN (SELECT id FROM bad_frames ORDER BY abs(id) DESC LIMIT 100)", [])?;
    transaction.commit()
}
