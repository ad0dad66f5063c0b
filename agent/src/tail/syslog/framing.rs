//! Messages of one connection: counted (`LENGTH SP MESSAGE`, RFC 6587 3.4.1) or up to a line feed (3.4.2), told for each anew.
//!
//! Pure. What is kept of a message is bounded; the rest of a longer one is skipped up to its end.

/// Digits of a length that are believed.
const MAX_DIGITS: usize = 9;

/// One message as it came.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    /// It was longer than what is kept.
    pub(super) cut: bool,
}

#[derive(Debug)]
enum State {
    /// Between messages, or in the digits of a length.
    Start,
    /// So many bytes of a counted message are missing.
    Counted(usize),
    /// In a message that a line feed ends.
    Line,
}

/// Takes bytes as they come, gives messages that are whole.
#[derive(Debug)]
pub(super) struct Framer {
    longest: usize,
    state: State,
    kept: Vec<u8>,
    cut: bool,
}

impl Framer {
    /// Keeps `longest` bytes of a message.
    pub(super) const fn new(longest: usize) -> Self {
        Self { longest, state: State::Start, kept: Vec::new(), cut: false }
    }

    /// A message has begun and is not over.
    pub(super) const fn is_inside(&self) -> bool {
        !self.kept.is_empty() || !matches!(self.state, State::Start)
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Start => self.start(bytes, &mut frames),
                State::Counted(left) => self.counted(bytes, left, &mut frames),
                State::Line => self.line(bytes, &mut frames),
            };
        }
        frames
    }

    /// What there is of a message that will not be finished.
    pub(super) fn end(&mut self) -> Option<Frame> {
        (!self.kept.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Frame {
        self.state = State::Start;
        Frame { bytes: std::mem::take(&mut self.kept), cut: std::mem::take(&mut self.cut) }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.longest.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..room]);
        self.cut |= room < bytes.len();
    }

    /// Byte by byte, until it is clear what it is: digits, a space and `<` are a length, anything else is a line.
    fn start<'a>(&mut self, bytes: &'a [u8], frames: &mut Vec<Frame>) -> &'a [u8] {
        let byte = bytes[0];
        match (self.kept.last().copied(), byte) {
            (None, b'\n' | b'\r' | 0) => {}
            (None, b'1'..=b'9') => self.kept.push(byte),
            (Some(b'0'..=b'9'), b'0'..=b'9') if self.kept.len() < MAX_DIGITS => self.kept.push(byte),
            (Some(b'0'..=b'9'), b' ') => self.kept.push(byte),
            (Some(b' '), b'<') => {
                let digits = std::mem::take(&mut self.kept);
                let length = std::str::from_utf8(&digits).ok().and_then(|digits| digits.trim_end().parse().ok()).unwrap_or(0);
                return self.counted(bytes, length, frames);
            }
            _ => {
                self.state = State::Line;
                return bytes;
            }
        }
        &bytes[1..]
    }

    fn counted<'a>(&mut self, bytes: &'a [u8], left: usize, frames: &mut Vec<Frame>) -> &'a [u8] {
        let (now, rest) = bytes.split_at(left.min(bytes.len()));
        self.keep(now);
        self.state = State::Counted(left - now.len());
        if left == now.len() {
            frames.push(self.take());
        }
        rest
    }

    fn line<'a>(&mut self, bytes: &'a [u8], frames: &mut Vec<Frame>) -> &'a [u8] {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        self.keep(&bytes[..end.unwrap_or(bytes.len())]);
        let Some(end) = end else { return &[] };
        frames.push(self.take());
        &bytes[end + 1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: &[&str]) {
        for step in [1, 2, 3, 5, 1000] {
            let mut framer = Framer::new(40);
            let mut frames: Vec<Frame> = bytes.chunks(step).flat_map(|piece| framer.push(piece)).collect();
            frames.extend(framer.end());
            let told: Vec<String> = frames.iter().map(|frame| String::from_utf8_lossy(&frame.bytes).into_owned()).collect();
            assert_eq!(told, expected, "in pieces of {step}");
        }
    }

    #[test]
    fn both_framings_are_told_for_each_message() {
        check(b"<13>a\n5 <13>b\n<13>c\r\n11 <14>two\nb c<14>d\n", &["<13>a", "<13>b", "<13>c\r", "<14>two\nb c", "<14>d"]);
        check(
            b"200 OK it is a line\n12345678901 <1>too many digits\n007\n",
            &["200 OK it is a line", "12345678901 <1>too many digits", "007"],
        );
        check(b"\0\n<13>no end", &["<13>no end"]);
        check(b"9 <13>short", &["<13>short"]);
        check(b"20 <13>cut off", &["<13>cut off"]);
        check(b"12", &["12"]);
    }

    #[test]
    fn long_messages_are_cut_and_what_follows_is_whole() {
        let mut bytes = format!("100 <1>{}<2>after\n", "x".repeat(97)).into_bytes();
        bytes.extend(format!("<3>{}\n<4>end\n", "y".repeat(10_000)).bytes());
        let mut framer = Framer::new(40);
        let frames: Vec<Frame> = bytes.chunks(7).flat_map(|piece| framer.push(piece)).collect();
        assert_eq!(
            frames.iter().map(|frame| (frame.bytes.len(), frame.cut)).collect::<Vec<_>>(),
            [(40, true), (8, false), (40, true), (6, false)]
        );
        assert!(!framer.is_inside());
    }
}
