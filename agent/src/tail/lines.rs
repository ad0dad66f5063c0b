//! From bytes to the lines that are sent: split, decode, join, mask, cut, parse, filter - in this order.
//!
//! Pure: the same bytes at the same offset give the same lines. Nothing is kept between calls but what the position holds, so an
//! event that is not over yet is read again from its first line.
//!
//! # Invariants
//! - Masking sees an event whole, and a line that is cut with [`OVERLAP_BYTES`] behind its cut.
//! - `end_offset` grows from line to line; every byte before [`Batch::used`] was sent, left out and counted, or is a hole.

use super::{
    decode::Encoding,
    derived::Observation,
    filter::{Budget, Verdict},
    multiline::Inside,
    source::{OVERLAP_BYTES, Source},
};
use shipwatch_common::{
    mask::LineState,
    model::{FileId, LogLine, Severity},
    time::UnixNs,
};
use std::borrow::Cow;

/// Bounds of one batch.
pub(super) const BATCH_LINES: usize = 1000;
pub(super) const BATCH_BYTES: usize = 256 << 10;

/// What counts as finished at the end of the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flush {
    /// Only what is followed by something else.
    Nothing,
    /// An event too: nothing came behind its last whole line for a while.
    Events,
    /// A line without its end too: the file is over.
    All,
}

/// What was noted while lines were made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Stats {
    pub(super) masked: u64,
    pub(super) mask_failures: u64,
    pub(super) truncated: u64,
    pub(super) filtered: u64,
    pub(super) sampled: u64,
    pub(super) limited: u64,
}

/// Lines and what must be remembered behind them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) lines: Vec<LogLine>,
    /// Bytes that are done with.
    pub(super) used: usize,
    pub(super) skipping: bool,
    pub(super) line_state: LineState,
    pub(super) budget: Budget,
    pub(super) stats: Stats,
    /// For metrics, of lines that were left out by sampling and limits as well.
    pub(super) observations: Vec<Observation>,
    pub(super) finished: usize,
}

/// Where the bytes come from and how they are read.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) source: &'a Source,
    pub(super) encoding: Encoding,
    pub(super) file: FileId,
    /// Offset of the first byte.
    pub(super) offset: u64,
    pub(super) now: UnixNs,
}

/// A piece between two line ends.
#[derive(Clone, Copy)]
pub(super) struct Raw {
    pub(super) start: usize,
    /// Behind the bytes that are looked at.
    pub(super) end: usize,
    /// Longer than allowed: everything up to its end is skipped.
    pub(super) cut: bool,
}

/// Lines that belong together.
pub(super) struct Event {
    pub(super) start: usize,
    pub(super) end: usize,
    text: String,
    lines: usize,
    inside: Inside,
    /// A part of something larger.
    cut: bool,
    /// Its end is not a line's end: the last bytes were only for the masker.
    overlaps: bool,
    told: Told,
}

/// What is known of a line from beside its text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// When it happened.
    pub(super) ts_ns: Option<UnixNs>,
    /// How bad it is. `Info` is what loggers say when nobody told them, so a text that names another one wins over it.
    pub(super) severity: Severity,
}

impl Told {
    fn or(self, of_text: Severity) -> Severity {
        let is_weak = matches!(self.severity, Severity::Unknown | Severity::Info);
        if is_weak && of_text != Severity::Unknown { of_text } else { self.severity }
    }
}

/// Makes one batch of `bytes`.
pub(super) fn batch(place: &Place<'_>, bytes: &[u8], skipping: bool, state: LineState, budget: Budget, flush: Flush) -> Batch {
    let mut splitter = Splitter { place, bytes, at: 0, skipping, flush };
    let mut made = Batch::new(skipping, state, budget);
    let mut open: Option<Event> = None;
    while made.finished < BATCH_LINES && made.used < BATCH_BYTES {
        let Some(raw) = splitter.next() else {
            if let Some(event) = open.take_if(|_| flush != Flush::Nothing) {
                made.finish(place, event, splitter.skipping);
            }
            break;
        };
        let text = place.encoding.text(&bytes[raw.start..raw.end]);
        made.join(place, &mut open, raw, text, Told::default());
    }
    // Holes and the rest of a cut line, up to where nothing is waiting.
    match open {
        Some(event) => {
            made.used = event.start;
            made.skipping = false;
        }
        None => {
            made.used = splitter.at;
            made.skipping = splitter.skipping;
        }
    }
    made
}

impl Event {
    pub(super) fn new(raw: Raw, text: Cow<'_, str>, inside: Inside, told: Told) -> Self {
        Self { start: raw.start, end: raw.end, text: text.into_owned(), lines: 1, inside, cut: raw.cut, overlaps: raw.cut, told }
    }
}

impl Batch {
    pub(super) fn new(skipping: bool, line_state: LineState, budget: Budget) -> Self {
        let (lines, observations) = (Vec::new(), Vec::new());
        Self { lines, used: 0, skipping, line_state, budget, stats: Stats::default(), observations, finished: 0 }
    }

    /// Takes the next line: it goes on with the open event, or ends it and begins another.
    pub(super) fn join(&mut self, place: &Place<'_>, open: &mut Option<Event>, raw: Raw, text: Cow<'_, str>, told: Told) {
        let Some(joiner) = &place.source.joiner else {
            return self.finish(place, Event::new(raw, text, Inside::Line, told), raw.cut);
        };
        let next = open.as_ref().and_then(|event| joiner.go_on(event.inside, &text));
        match (open.take(), next) {
            (Some(mut event), Some(inside)) => {
                event.text.push('\n');
                event.text.push_str(&text);
                event.end = raw.end;
                event.lines += 1;
                event.inside = inside;
                *open = Some(event);
            }
            (before, _) => {
                if let Some(event) = before {
                    self.finish(place, event, false);
                }
                let inside = joiner.begin(&text);
                *open = Some(Event::new(raw, text, inside, told));
            }
        }
        let is_full = |event: &Event| event.lines >= joiner.max_lines || event.end - event.start >= joiner.max_bytes;
        if let Some(mut event) = open.take_if(|event| raw.cut || is_full(event)) {
            event.cut = true;
            event.overlaps = raw.cut;
            self.finish(place, event, raw.cut);
        }
    }

    pub(super) fn finish(&mut self, place: &Place<'_>, event: Event, skipping: bool) {
        self.finished += 1;
        self.used = event.end;
        self.skipping = skipping;
        let end_offset = place.offset + event.end as u64;
        let masked = place.source.masker.mask_line(&mut self.line_state, &event.text);
        let most = if event.lines > 1 {
            place.source.joiner.as_ref().map_or(0, |joiner| joiner.max_bytes).max(place.source.max_line_bytes)
        } else {
            place.source.max_line_bytes
        };
        let most = if event.overlaps { most.min(masked.text.len().saturating_sub(OVERLAP_BYTES)) } else { most };
        let (text, is_long) = shorten(&masked.text, most);
        let truncated = event.cut || is_long;
        self.stats.masked += u64::from(masked.hits);
        self.stats.mask_failures += u64::from(masked.failed);
        let fields = place.source.parser.fields(text);
        let severity = event.told.or(place.source.parser.severity(text, &fields));
        let verdict = place.source.filter.judge(text, &fields, (place.file, end_offset), &mut self.budget, place.now);
        if verdict != Verdict::Filtered {
            place.source.rules.observe(text, &fields, severity, &mut self.observations);
        }
        match verdict {
            Verdict::Keep => {
                self.stats.truncated += u64::from(truncated);
                self.lines.push(LogLine {
                    ts_ns: event.told.ts_ns.unwrap_or_else(|| place.source.parser.time(text, &fields, place.now)),
                    end_offset,
                    severity,
                    truncated,
                    text: text.to_owned(),
                });
            }
            Verdict::Filtered => self.stats.filtered += 1,
            Verdict::Sampled => self.stats.sampled += 1,
            Verdict::Limited => self.stats.limited += 1,
        }
    }
}

/// Cuts a text on a character. A character that the bytes' own cut went through is left out as well.
fn shorten(text: &str, most: usize) -> (&str, bool) {
    if text.len() <= most {
        return (text, false);
    }
    (head(text, most).trim_end_matches('\u{fffd}'), true)
}

/// The beginning of a text, cut on a character.
pub(super) fn head(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Finds line after line.
struct Splitter<'a> {
    place: &'a Place<'a>,
    bytes: &'a [u8],
    at: usize,
    skipping: bool,
    flush: Flush,
}

impl Splitter<'_> {
    fn next(&mut self) -> Option<Raw> {
        let encoding = self.place.encoding;
        if self.skipping {
            let Some(end) = encoding.line_end(self.bytes, self.at) else {
                self.at += encoding.cut(self.bytes.len() - self.at);
                return None;
            };
            self.at = end;
            self.skipping = false;
        }
        self.at += encoding.hole(self.bytes, self.at);
        let (start, left) = (self.at, self.bytes.len() - self.at);
        let longest = encoding.spread() * (self.place.source.max_line_bytes + OVERLAP_BYTES);
        let line_end = encoding.line_end(self.bytes, start);
        let raw = match line_end {
            // The end of the line goes as well, where it is known.
            Some(end) if end - start > longest => {
                self.at = end;
                return Some(Raw { start, end: start + longest, cut: true });
            }
            Some(end) => Raw { start, end, cut: false },
            None if left >= longest => Raw { start, end: start + longest, cut: true },
            None if left > 0 && self.flush == Flush::All => Raw { start, end: self.bytes.len(), cut: false },
            None => return None,
        };
        self.at = raw.end;
        self.skipping = raw.cut;
        Some(raw)
    }
}
