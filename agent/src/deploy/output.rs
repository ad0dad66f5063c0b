//! Follows a step's output file and turns it into masked, bounded text for events. Time is an argument.
//!
//! # Invariants
//! - Every byte that is sent went through the masker as part of a whole line. Lines that are left out go through it as
//!   well, so that a key block that begins among them is still known as one where sending goes on.
//! - At most [`RATE_BYTES`] a second after a first burst, and [`shim::OUTPUT_KEPT_BYTES`] in all, are sent. What is left out
//!   is counted and said.
//! - Memory is bounded by a line's bound and the chunk size, whatever the step prints.

use super::shim;
use shipwatch_common::mask::{LineState, Masker};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

/// Sent per second at most.
const RATE_BYTES: u64 = 64 * 1024;
/// Sent at once at most.
const BURST_BYTES: u64 = 256 * 1024;
/// A longer line is left out: cutting it could cut through what must be masked.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// Of one event.
const CHUNK_BYTES: usize = 32 * 1024;
/// When a step ends with much unsent output, this much of its end is sent.
const TAIL_BYTES: usize = 64 * 1024;

/// Reads one output file.
#[derive(Debug)]
pub(crate) struct Follower<'a> {
    path: PathBuf,
    masker: &'a Masker,
    mask: LineState,
    offset: u64,
    tokens: u64,
    at: Duration,
    line: Vec<u8>,
    line_bytes: u64,
    left_out_bytes: u64,
    chunks: VecDeque<String>,
}

impl<'a> Follower<'a> {
    /// Starts behind the first `sent` bytes, which were sent before; they pass the masker again for its memory.
    #[must_use]
    pub(crate) fn new(path: &Path, masker: &'a Masker, sent: u64) -> Self {
        let mut follower = Self {
            path: path.to_path_buf(),
            masker,
            mask: LineState::default(),
            offset: 0,
            tokens: BURST_BYTES,
            at: Duration::ZERO,
            line: Vec::new(),
            line_bytes: 0,
            left_out_bytes: 0,
            chunks: VecDeque::new(),
        };
        if sent > 0
            && let Err(error) = follower.read(sent, 0)
        {
            tracing::debug!(%error, path = %path.display(), "could not read again what was sent of a step's output");
        }
        follower.chunks.clear();
        follower.left_out_bytes = 0;
        follower
    }

    /// How far the file was read.
    #[must_use]
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Whole lines that may be sent at `now` (time since the follower began).
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn poll(&mut self, now: Duration) -> io::Result<Vec<String>> {
        let passed_ms = u64::try_from(now.saturating_sub(self.at).as_millis()).unwrap_or(u64::MAX);
        self.at = now;
        self.tokens = self.tokens.saturating_add(RATE_BYTES.saturating_mul(passed_ms) / 1000).min(BURST_BYTES);
        let room = shim::OUTPUT_KEPT_BYTES.saturating_sub(self.offset);
        let read = self.read(self.tokens.min(room), usize::MAX)?;
        self.tokens -= read.min(self.tokens);
        Ok(self.chunks.drain(..).collect())
    }

    /// What is left once the step has ended; `dropped_bytes` were cut off the file meanwhile.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn finish(mut self, dropped_bytes: u64) -> io::Result<Vec<String>> {
        let length = match std::fs::metadata(&self.path) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let left = length.saturating_sub(self.offset);
        if dropped_bytes > 0 || length > shim::OUTPUT_KEPT_BYTES {
            self.left_out_bytes += left + dropped_bytes + self.line_bytes;
            self.line.clear();
            self.note();
        } else if left <= BURST_BYTES {
            self.read(left, usize::MAX)?;
            self.end_line();
            self.note();
        } else {
            self.read(left, TAIL_BYTES)?;
            self.end_line();
            self.note();
        }
        Ok(self.chunks.into())
    }

    fn note(&mut self) {
        if self.left_out_bytes > 0 {
            let text = format!("[{} bytes of this step's output were left out]\n", self.left_out_bytes);
            self.chunks.push_front(text);
        }
    }

    /// Reads up to `bytes`, keeping at most `keep` bytes of text, the last ones.
    fn read(&mut self, bytes: u64, keep: usize) -> io::Result<u64> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut file = file.take(bytes);
        let mut buffer = vec![0; 64 * 1024];
        let mut total = 0;
        loop {
            let read = file.read(&mut buffer)?;
            let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else { return Ok(total) };
            total += piece.len() as u64;
            self.offset += piece.len() as u64;
            for part in piece.split_inclusive(|byte| *byte == b'\n') {
                self.line_bytes += part.len() as u64;
                let room = MAX_LINE_BYTES.saturating_sub(self.line.len());
                self.line.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
                if part.ends_with(b"\n") {
                    self.end_line();
                }
            }
            self.drop_front(keep);
        }
    }

    fn drop_front(&mut self, keep: usize) {
        let mut kept: usize = self.chunks.iter().map(String::len).sum();
        while kept > keep
            && let Some(front) = self.chunks.pop_front()
        {
            kept -= front.len();
            self.left_out_bytes += front.len() as u64;
        }
    }

    fn end_line(&mut self) {
        if self.line_bytes == 0 {
            return;
        }
        let whole = self.line_bytes <= MAX_LINE_BYTES as u64;
        let line = String::from_utf8_lossy(&self.line);
        let masked = self.masker.mask_line(&mut self.mask, line.trim_end_matches(['\n', '\r'])).text.into_owned();
        let text = if whole { format!("{masked}\n") } else { format!("[a line of {} bytes was left out]\n", self.line_bytes) };
        self.line.clear();
        self.line_bytes = 0;
        match self.chunks.back_mut() {
            Some(last) if last.len() + text.len() <= CHUNK_BYTES => last.push_str(&text),
            _ => self.chunks.push_back(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::OpenOptions, io::Write as _};

    struct Step {
        _dir: tempfile::TempDir,
        path: PathBuf,
        masker: Masker,
    }

    impl Step {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("output");
            Self { _dir: dir, path, masker: Masker::new(&Default::default()).unwrap() }
        }

        fn print(&self, text: &str) {
            let mut file = OpenOptions::new().append(true).create(true).open(&self.path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn follow(&self) -> Follower<'_> {
            Follower::new(&self.path, &self.masker, 0)
        }
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn whole_lines_are_told_as_they_come_and_the_last_one_at_the_end() {
        let step = Step::new();
        let mut follower = step.follow();
        assert_eq!(follower.poll(s(0)).unwrap(), Vec::<String>::new());
        step.print("one\r\ntw");
        assert_eq!(follower.poll(s(1)).unwrap(), ["one\n"]);
        step.print("o\n\nthree");
        assert_eq!(follower.poll(s(2)).unwrap(), ["two\n\n"]);
        assert_eq!(follower.finish(0).unwrap(), ["three\n"]);
    }

    #[test]
    fn a_new_follower_goes_on_where_the_last_one_was() {
        let step = Step::new();
        step.print("one\ntwo\nthr");
        let sent = {
            let mut follower = step.follow();
            follower.poll(s(0)).unwrap();
            follower.offset()
        };
        step.print("ee\nfour\n");
        let follower = Follower::new(&step.path, &step.masker, sent);
        assert_eq!(follower.finish(0).unwrap(), ["three\nfour\n"]);
    }

    #[test]
    fn the_rate_is_bounded_and_the_end_is_told() {
        let step = Step::new();
        let line = format!("{}\n", "x".repeat(99));
        step.print(&line.repeat(20_000));
        step.print("the last words\n");
        let mut follower = step.follow();
        let size = |chunks: &[String]| chunks.iter().map(String::len).sum::<usize>() as u64;
        assert!(size(&follower.poll(s(0)).unwrap()) <= BURST_BYTES);
        let second = size(&follower.poll(s(1)).unwrap());
        assert!(second <= RATE_BYTES && second > RATE_BYTES / 2, "{second}");
        let rest = follower.finish(0).unwrap();
        assert!(size(&rest) <= TAIL_BYTES as u64 + CHUNK_BYTES as u64);
        assert!(rest[0].contains("were left out"), "{}", rest[0]);
        assert!(rest.last().unwrap().ends_with("the last words\n"));
        assert!(rest.iter().all(|chunk| chunk.len() <= CHUNK_BYTES));
    }

    #[test]
    fn too_long_lines_and_too_much_output_are_counted() {
        let step = Step::new();
        step.print(&format!("a\n{}\nb\n", "x".repeat(100_000)));
        let mut follower = step.follow();
        assert_eq!(follower.poll(s(0)).unwrap().concat(), "a\n[a line of 100001 bytes was left out]\nb\n");
        assert_eq!(follower.finish(7_000_000).unwrap(), ["[7000000 bytes of this step's output were left out]\n"]);
    }

    #[test]
    fn no_output_is_no_text() {
        let step = Step::new();
        assert_eq!(step.follow().finish(0).unwrap(), Vec::<String>::new());
    }
}
