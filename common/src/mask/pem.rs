//! Private keys in several lines.
//!
//! # Invariants
//! - From a BEGIN line to its END line nothing of the lines is left.
//! - A BEGIN whose END never comes masks at most [`MAX_LINES`] lines, and at most [`MAX_OTHER`] in a row that do not look like a
//!   key: a mention in prose does not swallow the log.

use super::{kind::Kind, scan::Scan, text};
use serde::{Deserialize, Serialize};

/// A key of 16384 bits takes about 200 lines.
const MAX_LINES: u16 = 400;
/// Headers within the block, an empty line, lines of other threads.
const MAX_OTHER: u8 = 4;

/// What a multi-line secret (a private key block) needs to remember between the lines of one source.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct LineState {
    /// Lines that may still belong to the block; 0 outside of one.
    left: u16,
    /// Lines in a row that do not look like a key.
    other: u8,
}

/// What a line of a block becomes.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Continued {
    /// No block is open.
    Outside,
    /// The line belongs to it.
    Whole,
    /// The block ends here, before this byte.
    Until(usize),
}

impl LineState {
    pub(super) const fn open(&mut self) {
        *self = Self { left: MAX_LINES, other: 0 };
    }

    /// Takes one more line into the block.
    pub(super) fn advance(&mut self, line: &[u8]) -> Continued {
        if self.left == 0 {
            return Continued::Outside;
        }
        if let Some(end) = end_of_block(line, 0) {
            *self = Self::default();
            return Continued::Until(end);
        }
        self.other = if is_material(line) { 0 } else { self.other + 1 };
        if self.other > MAX_OTHER {
            *self = Self::default();
            return Continued::Outside;
        }
        self.left -= 1;
        Continued::Whole
    }
}

/// The last word of the line could be a line of a key; its prefix may be a logger's.
fn is_material(line: &[u8]) -> bool {
    let last = line.trim_ascii().rsplit(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
    last.len() >= 40
        && last.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\\' | b'"' | b',' | b'\''))
}

/// Behind the dashes of the next `-----END … PRIVATE KEY-----`.
fn end_of_block(bytes: &[u8], from: usize) -> Option<usize> {
    let start = from + text::find_text(bytes.get(from..)?, b"-----END")?;
    let rest = bytes.get(start + 8..)?;
    Some(text::find_text(rest, b"-----").map_or(bytes.len(), |dashes| start + 8 + dashes + 5))
}

/// Whether a block begins in a text that is not scanned and does not end in it.
pub(super) fn leaves_open(bytes: &[u8]) -> bool {
    let last = |needle: &[u8]| bytes.windows(needle.len()).rposition(|window| window == needle);
    last(b"PRIVATE KEY-----").is_some_and(|_| last(b"-----BEGIN") > last(b"-----END"))
}

/// A block that begins here. If it does not end in this line, the state stays open.
pub(super) fn block(scan: &mut Scan<'_>, start: usize, behind: usize) -> Option<usize> {
    let head = scan.part(behind, behind + 64);
    let name = head.iter().take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b' ' | b'-')).count();
    text::find_text(head.get(..name)?, b"PRIVATE KEY")?;
    let end = end_of_block(scan.bytes, behind);
    scan.open_key |= end.is_none();
    let end = end.unwrap_or(scan.bytes.len());
    scan.push(Kind::PrivateKey, start, end, "private key block");
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_ends_at_its_end() {
        let mut state = LineState::default();
        assert_eq!(state.advance(b"x"), Continued::Outside);
        state.open();
        let body = "A".repeat(64);
        assert_eq!(state.advance(body.as_bytes()), Continued::Whole);
        assert_eq!(state.advance(b"-----END RSA PRIVATE KEY----- x"), Continued::Until(29));
        assert_eq!(state, LineState::default());
    }

    #[test]
    fn a_mention_does_not_swallow_the_log() {
        let mut state = LineState::default();
        state.open();
        for _ in 0..MAX_OTHER {
            assert_eq!(state.advance(b"order paid"), Continued::Whole);
        }
        assert_eq!(state.advance(b"order paid"), Continued::Outside);
        state.open();
        let body = "A".repeat(64);
        let whole = (0..2000).take_while(|_| state.advance(body.as_bytes()) == Continued::Whole).count();
        assert_eq!(whole, usize::from(MAX_LINES));
    }
}
