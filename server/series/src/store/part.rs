//! The samples of one series in memory, and putting samples together for a reader.
//!
//! A series has compressed blocks, an open tail behind them, and late samples that came out of order.
//!
//! # Invariants
//! - Of two samples with the same time the one written last wins: late samples over blocks and tail.
//! - A block never crosses a window; blocks and tail grow in time; late samples are not behind the tail.
//! - There is a tail when there is anything, but for what was taken out or could not be read.

use super::{
    chunk::{self, Columns},
    tail::Tail,
};
use std::sync::Arc;

/// Late samples are put in order each time they have doubled past this.
const LATE_SAMPLES: usize = 1_024;

/// Compressed samples.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) t0: i64,
    pub(crate) t1: i64,
    pub(crate) count: u32,
    pub(crate) body: Arc<[u8]>,
}

/// Samples in some form, for a reader to put together. Later pieces win.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Block(Block),
    /// The newest samples.
    Tail(Tail),
    /// Samples in the order of writing.
    Plain(Vec<(i64, f64)>),
}

impl Piece {
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Block(block) => block.count.into(),
            Self::Tail(tail) => tail.count().into(),
            Self::Plain(samples) => samples.len() as u64,
        }
    }
}

/// Puts pieces together in `[t0, t1]`; of equal times the later piece wins. `damaged` is told of blocks that cannot be read.
pub(crate) fn merge<'a>(
    pieces: impl IntoIterator<Item = &'a Piece, IntoIter: Clone>,
    t0: i64,
    t1: i64,
    damaged: &mut dyn FnMut(&'static str),
) -> Columns {
    let pieces = pieces.into_iter();
    let count = pieces.clone().map(|piece| piece.count() as usize).sum();
    let (mut ts, mut values): Columns = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut in_order = true;
    let mut push = |at: i64, value: f64| {
        if (t0..=t1).contains(&at) {
            in_order &= ts.last().is_none_or(|last| *last < at);
            ts.push(at);
            values.push(value);
        }
    };
    for piece in pieces {
        match piece {
            Piece::Plain(samples) => samples.iter().for_each(|(at, value)| push(*at, *value)),
            Piece::Tail(tail) => tail.iter().for_each(|(at, value)| push(at, value)),
            Piece::Block(block) => match chunk::decode(block) {
                Ok((ts, values)) => ts.iter().zip(&values).for_each(|(at, value)| push(*at, *value)),
                Err(reason) => damaged(reason),
            },
        }
    }
    if in_order {
        // A few samples of a long piece: callers hold the columns of many series.
        if ts.len() < ts.capacity() / 2 {
            ts.shrink_to_fit();
            values.shrink_to_fit();
        }
        return (ts, values);
    }
    let mut order: Vec<u32> = (0..ts.len() as u32).collect();
    order.sort_by_key(|at| ts[*at as usize]);
    let (mut sorted, mut their_values): Columns = (Vec::with_capacity(ts.len()), Vec::with_capacity(ts.len()));
    for at in order {
        let (at, value) = (ts[at as usize], values[at as usize]);
        match (sorted.last(), their_values.last_mut()) {
            (Some(last), Some(slot)) if *last == at => *slot = value,
            _ => {
                sorted.push(at);
                their_values.push(value);
            }
        }
    }
    (sorted, their_values)
}

/// Samples that came out of order.
#[derive(Clone, Debug, Default)]
struct Late {
    samples: Vec<(i64, f64)>,
    sorted: usize,
}

/// The samples of one series.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    tail: Tail,
    /// Most series have a tail alone, so the rest lies elsewhere.
    rest: Option<Box<Rest>>,
}

/// What is not in the tail.
#[derive(Clone, Debug, Default)]
struct Rest {
    blocks: Vec<Block>,
    late: Option<Box<Late>>,
    /// So many of the blocks are in the checkpoint.
    saved: u32,
}

impl Part {
    pub(crate) fn push(&mut self, ts: i64, value: f64) {
        match self.tail.range() {
            Some((_, t1)) if ts > t1 => {
                if self.tail.is_full() || chunk::window_of(t1) != chunk::window_of(ts) {
                    self.close_tail();
                }
                self.tail.push(ts, value);
            }
            Some((t0, _)) if ts >= t0 && !self.tail.is_full() => self.tail.set(ts, value),
            None if self.blocks().last().is_none_or(|block| block.t1 < ts) => self.tail.push(ts, value),
            Some(_) | None => self.rest.get_or_insert_default().late.get_or_insert_default().push(ts, value),
        }
    }

    fn close_tail(&mut self) {
        let tail = std::mem::take(&mut self.tail);
        let Some((t0, t1)) = tail.range() else { return };
        let (ts, values): Columns = tail.iter().unzip();
        let block = Block { t0, t1, count: tail.count().into(), body: chunk::encode(&ts, &values).into() };
        let blocks = &mut self.rest.get_or_insert_default().blocks;
        if blocks.len() == blocks.capacity() {
            blocks.reserve_exact(1 + blocks.len() / 4);
        }
        blocks.push(block);
    }

    /// Adds a block that the checkpoint has, behind all others.
    pub(crate) fn restore_block(&mut self, block: Block) {
        let rest = self.rest.get_or_insert_default();
        rest.blocks.reserve_exact(1);
        rest.blocks.push(block);
        rest.saved = rest.blocks.len() as u32;
    }

    /// Puts in what the checkpoint has beside blocks.
    pub(crate) fn restore_open(&mut self, tail: Tail, late: Vec<(i64, f64)>) {
        if !self.tail.is_empty() {
            // Two rows of one series, which only damage makes.
            return tail.iter().chain(late).for_each(|(ts, value)| self.push(ts, value));
        }
        self.tail = tail;
        if !late.is_empty() {
            self.rest.get_or_insert_default().late = Some(Box::new(Late { samples: late, sorted: 0 }));
        }
    }

    /// Blocks that the checkpoint does not have.
    pub(crate) fn unsaved(&self) -> &[Block] {
        self.rest.as_ref().and_then(|rest| rest.blocks.get(rest.saved as usize..)).unwrap_or_default()
    }

    /// The checkpoint has all blocks.
    pub(crate) fn mark_saved(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.saved = rest.blocks.len() as u32;
        }
    }

    pub(crate) const fn tail(&self) -> &Tail {
        &self.tail
    }

    /// Takes out what is before `cutoff`, which is the border of a window.
    pub(crate) fn split_before(&mut self, cutoff: i64) -> Self {
        let mut old = Self::default();
        if self.tail.range().is_some_and(|(_, t1)| t1 < cutoff) {
            old.tail = std::mem::take(&mut self.tail);
        }
        let Some(rest) = &mut self.rest else { return old };
        let kept = rest.blocks.iter().position(|block| block.t0 >= cutoff).unwrap_or(rest.blocks.len());
        let blocks: Vec<Block> = rest.blocks.drain(..kept).collect();
        let late = rest.late.as_mut().and_then(|late| late.split_before(cutoff)).map(Box::new);
        rest.late.take_if(|late| late.samples.is_empty());
        if !blocks.is_empty() {
            rest.blocks.shrink_to_fit();
            rest.saved = rest.saved.saturating_sub(kept as u32);
        }
        if !blocks.is_empty() || late.is_some() {
            old.rest = Some(Box::new(Rest { blocks, late, saved: 0 }));
        }
        self.rest.take_if(|rest| rest.blocks.is_empty() && rest.late.is_none());
        old
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.rest.as_ref().is_none_or(|rest| rest.blocks.is_empty() && rest.late.is_none())
    }

    /// Time of the newest sample.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.tail.range().map(|(_, t1)| t1)
    }

    /// The value at a time, if it is among the newest ones, which are still open.
    pub(crate) fn open_value(&self, ts: i64) -> Option<f64> {
        let (t0, t1) = self.tail.range()?;
        if !(t0..=t1).contains(&ts) {
            return None;
        }
        self.tail.iter().find(|(at, _)| *at == ts).map(|(_, value)| value)
    }

    fn blocks(&self) -> &[Block] {
        self.rest.as_ref().map_or(&[], |rest| &rest.blocks)
    }

    /// Samples that came out of order, in the order in which they came as far as that matters.
    pub(crate) fn late(&self) -> &[(i64, f64)] {
        self.rest.as_ref().and_then(|rest| rest.late.as_ref()).map_or(&[], |late| &late.samples)
    }

    /// Whether there may be a sample in `[t0, t1]`: to the block.
    pub(crate) fn overlaps(&self, t0: i64, t1: i64) -> bool {
        self.tail.range().is_some_and(|(first, last)| first <= t1 && last >= t0)
            || self.blocks().iter().any(|block| block.t0 <= t1 && block.t1 >= t0)
            || self.late().iter().any(|(ts, _)| (t0..=t1).contains(ts))
    }

    /// What may lie in `[t0, t1]`: cheap, nothing is decoded.
    pub(crate) fn pieces(&self, t0: i64, t1: i64, out: &mut Vec<Piece>) {
        out.extend(self.blocks().iter().filter(|block| block.t0 <= t1 && block.t1 >= t0).cloned().map(Piece::Block));
        if self.tail.range().is_some_and(|(first, last)| first <= t1 && last >= t0) {
            out.push(Piece::Tail(self.tail.clone()));
        }
        let late: Vec<(i64, f64)> = self.late().iter().filter(|(ts, _)| (t0..=t1).contains(ts)).copied().collect();
        if !late.is_empty() {
            out.push(Piece::Plain(late));
        }
    }
}

impl Late {
    fn push(&mut self, ts: i64, value: f64) {
        self.samples.push((ts, value));
        if self.samples.len() >= LATE_SAMPLES.max(self.sorted * 2) {
            self.sort();
        }
    }

    /// Orders the samples and drops those that were written again.
    fn sort(&mut self) {
        self.samples.sort_by_key(|(ts, _)| *ts);
        let mut kept: Vec<(i64, f64)> = Vec::with_capacity(self.samples.len());
        for sample in self.samples.drain(..) {
            match kept.last_mut() {
                Some(last) if last.0 == sample.0 => *last = sample,
                _ => kept.push(sample),
            }
        }
        self.sorted = kept.len();
        self.samples = kept;
    }

    fn split_before(&mut self, cutoff: i64) -> Option<Self> {
        self.sort();
        let old: Vec<_> = self.samples.drain(..self.samples.partition_point(|(ts, _)| *ts < cutoff)).collect();
        self.sorted = self.samples.len();
        (!old.is_empty()).then_some(Self { sorted: old.len(), samples: old })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_tail_takes_nothing_in_between_and_becomes_a_block() {
        let (mut part, mut pieces) = (Part::default(), Vec::new());
        (0..480).for_each(|at| part.push(at * 1_000, 1.0));
        // In the tail's time, twice: the later one wins.
        part.push(10_500, 2.0);
        part.push(479_000, 3.0);
        part.push(479_000, 1.0);
        part.push(480_000, 4.0);
        part.pieces(i64::MIN, i64::MAX, &mut pieces);
        let shown: Vec<_> = pieces.iter().map(|piece| (std::mem::discriminant(piece), piece.count())).collect();
        let kinds = [Piece::Block(part.blocks()[0].clone()), Piece::Tail(Tail::default()), Piece::Plain(Vec::new())];
        let expected: Vec<_> = kinds.iter().map(std::mem::discriminant).zip([480, 1, 3]).collect();
        assert_eq!(shown, expected);
        let (ts, values) = merge(&pieces, 10_000, i64::MAX, &mut |reason| panic!("{reason}"));
        assert_eq!((&ts[..3], &values[..3], ts.len()), (&[10_000, 10_500, 11_000][..], &[1.0, 2.0, 1.0][..], 472));
        assert_eq!((&ts[470..], &values[470..]), (&[479_000, 480_000][..], &[1.0, 4.0][..]));
        // A reader of a few samples holds memory for a few.
        assert!(merge(&pieces[..1], 0, 0, &mut |_| {}).0.capacity() < 10);
    }
}
