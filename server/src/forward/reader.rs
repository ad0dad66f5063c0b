//! Reads windows of a queue: the part that is sent next.
//!
//! # Invariants
//! - A window lies within one segment and is whole records; one that was begun before is read again exactly as it was.
//! - Memory: the series of one segment and the samples of one window.

use super::{
    plan::Point,
    queue::{Queue, RecordHead, Span, head_end},
};
use shipwatch_common::{model::Labels, time::UnixMs};
use shipwatch_series::remote::queued::Queued;
use std::{fs::File, io, path::PathBuf, sync::Arc};

/// A series of the segment.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) labels: Arc<Labels>,
    /// The same for the same labels, in every process.
    pub(super) hash: u32,
}

/// Samples to be sent.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) span: Span,
    pub(super) points: Vec<Point>,
    /// Samples as the queue counts them.
    pub(super) samples: u64,
    /// When the first of them was queued.
    pub(super) queued_at_ms: UnixMs,
    /// What is behind cannot be read.
    pub(super) damaged: Option<&'static str>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reader {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    path: PathBuf,
    file: File,
    /// Up to where the series were read.
    at: u64,
    series: Vec<Entry>,
}

impl Reader {
    /// Series of the segment of the last window.
    pub(super) fn series(&self) -> &[Entry] {
        self.open.as_ref().map_or(&[], |open| &open.series)
    }

    /// Reads what waits, up to `max_samples` and a record more; with `again` just this span.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn window(&mut self, queue: &Queue, max_samples: usize, again: Option<Span>) -> io::Result<Option<Window>> {
        let Some((path, waits)) = queue.oldest() else { return Ok(None) };
        let again = again.filter(|again| again.segment == waits.segment && again.from == waits.from && again.to <= waits.to);
        let end = again.map_or(waits.to, |again| again.to);
        let limit = if again.is_some() { usize::MAX } else { max_samples };
        if self.open.as_ref().is_none_or(|open| open.number != waits.segment || open.at > waits.from) {
            let file = File::open(&path)?;
            let at = head_end(&file)?.unwrap_or(u64::MAX);
            self.open = Some(Open { number: waits.segment, path, file, at, series: Vec::new() });
        }
        let Some(open) = &mut self.open else { return Ok(None) };
        let mut window = Window { span: Span { to: waits.from, ..waits }, ..Window::default() };
        while open.at < waits.from && window.damaged.is_none() {
            open.next(queue, false, &mut window)?;
        }
        while open.at < end && window.points.len() < limit && window.damaged.is_none() {
            open.next(queue, true, &mut window)?;
        }
        if window.damaged.is_some() {
            tracing::warn!(path = %open.path.display(), reason = window.damaged, "a queue's file is damaged; the rest of it is not sent");
        }
        Ok(Some(window))
    }
}

impl Open {
    /// Reads a record: its series, and its samples if they are asked for.
    fn next(&mut self, queue: &Queue, wanted: bool, window: &mut Window) -> io::Result<()> {
        let read = RecordHead::read(&self.file, self.at)?;
        let payload = match read {
            Some(head) => head.payload(&self.file, self.at)?,
            None => None,
        };
        let (Some(head), Some(payload)) = (read, payload) else {
            window.damaged = Some("a record has a wrong checksum");
            return Ok(());
        };
        let mut queued = match Queued::decode(&payload) {
            Ok(queued) => queued,
            Err(reason) => {
                window.damaged = Some(reason);
                return Ok(());
            }
        };
        queue.share(self.number, self.series.len(), &mut queued.series);
        self.series.extend(queued.series.into_iter().map(|labels| Entry { hash: hash(&labels), labels }));
        self.at += head.total();
        if !wanted {
            return Ok(());
        }
        if queued.samples.iter().any(|(series, ..)| *series as usize >= self.series.len()) {
            window.damaged = Some("a sample has a series that is not there");
            return Ok(());
        }
        if window.points.is_empty() {
            window.queued_at_ms = head.queued_at_ms;
        }
        window.points.append(&mut queued.samples);
        window.samples += u64::from(head.samples);
        window.span.to = self.at;
        Ok(())
    }
}

/// A hash that is the same in every process.
fn hash(labels: &Labels) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for (name, value) in labels.iter() {
        for part in [name, "\u{1}", value, "\u{2}"] {
            crc.update(part.as_bytes());
        }
    }
    crc.finalize()
}
