//! Records of one read: one of a plain file, one for each output of a container.
//!
//! Pure: what of the position depends on bytes (checksum, marker, head) is filled in by the caller.

use super::super::{
    Position, container,
    derived::Observation,
    filter::Budget,
    lines::{self, Flush, Place, Stats},
    position::Middle,
};
use shipwatch_common::model::LogLine;

/// See [`ReadOutcome::Lines`]: records for the sink, at least one.
#[derive(Debug)]
pub(in crate::tail) struct Read {
    pub(in crate::tail) parts: Vec<Part>,
    pub(in crate::tail) budget: Budget,
}

/// Lines of one output, and the position behind them.
#[derive(Debug)]
pub(in crate::tail) struct Part {
    pub(in crate::tail) output: usize,
    pub(in crate::tail) lines: Vec<LogLine>,
    pub(in crate::tail) position: Position,
    pub(in crate::tail) stats: Stats,
    pub(in crate::tail) observations: Vec<Observation>,
}

/// Lines of a file that holds nothing but lines.
pub(super) fn plain(place: &Place<'_>, bytes: &[u8], from: &Position, budget: Budget, flush: Flush) -> Read {
    let made = lines::batch(place, bytes, from.skipping, from.middle.line.clone(), budget, flush);
    if made.used == 0 {
        return Read { parts: Vec::new(), budget };
    }
    let position = Position {
        offset: from.offset + made.used as u64,
        skipping: made.skipping,
        middle: Middle { line: made.line_state, ..Middle::default() },
        ..from.clone()
    };
    let (lines, stats, observations) = (made.lines, made.stats, made.observations);
    Read { parts: vec![Part { output: 0, lines, position, stats, observations }], budget: made.budget }
}

/// Lines of a container's outputs: a record for each that has some. What has none moves with the last.
pub(super) fn outputs(place: &Place<'_>, bytes: &[u8], from: &Position, budget: Budget, flush: Flush, is_full: bool) -> Read {
    let before = &from.middle.outputs;
    let made = container::batch(place, bytes, &container::From { outputs: before, skipping: from.skipping, budget, flush, is_full });
    let mut done = [0, 1].map(|at: usize| usize::try_from(before[at].ahead).unwrap_or(0));
    let position = |done, skipping| {
        let (used, outputs) = made.outputs(done, before);
        Position { offset: from.offset + used as u64, skipping, middle: Middle { outputs, ..Middle::default() }, ..from.clone() }
    };
    let end = position(made.done, made.skipping);
    if end == *from && made.batches.iter().all(|batch| batch.finished == 0) {
        return Read { parts: Vec::new(), budget };
    }
    let mut told: Vec<usize> = (0..2).filter(|output| made.batches[*output].finished > 0).collect();
    if told.is_empty() {
        told.push(0);
    }
    let mut positions = Vec::new();
    for (at, output) in told.iter().enumerate() {
        done[*output] = made.done[*output];
        positions.push(if at + 1 == told.len() { end.clone() } else { position(done, from.skipping) });
    }
    let budget = made.budget;
    let mut batches = made.batches.map(Some);
    let parts = told.into_iter().zip(positions).filter_map(|(output, position)| {
        let batch = batches[output].take()?;
        Some(Part { output, lines: batch.lines, position, stats: batch.stats, observations: batch.observations })
    });
    Read { parts: parts.collect(), budget }
}
