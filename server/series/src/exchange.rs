//! Samples as text, for other programs: the exposition formats of Prometheus and OpenMetrics, and JSON lines.
//!
//! # Invariants
//! - Readers stream: one line is in memory, and a line is bounded. Any bytes can be given to them.
//! - A mistake ends the reading and names its line; what came before it was delivered.
//! - A reader delivers exactly what a writer wrote, except that text has no stale markers and leaves them out.

pub mod json;
pub mod text;

use std::io::{BufRead, Read as _};

/// Most bytes in one line.
pub const MAX_LINE_BYTES: usize = 4 << 20;

/// Why reading ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// The input is not what the format says.
    #[error("line {line}: {message}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong and what was expected.
        message: String,
    },
    /// The input could not be read.
    #[error("line {line}: {source}")]
    Io {
        /// The line before which it stopped.
        line: u64,
        /// The system's words.
        source: std::io::Error,
    },
    /// Who gets the samples does not want more.
    #[error("{0}")]
    Sink(E),
}

/// Lines of an input, without their end, one at a time.
struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    const fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), number: 0 }
    }

    fn next<E>(&mut self) -> Result<Option<&str>, ReadError<E>> {
        self.buffer.clear();
        self.number += 1;
        let line = self.number;
        let wrong = |message: &str| ReadError::Line { line, message: message.to_owned() };
        let mut limited = self.input.by_ref().take(MAX_LINE_BYTES as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.buffer).map_err(|source| ReadError::Io { line, source })?;
        if read == 0 {
            return Ok(None);
        }
        if read > MAX_LINE_BYTES {
            return Err(wrong(&format!("it is longer than {MAX_LINE_BYTES} bytes")));
        }
        let text = std::str::from_utf8(&self.buffer).map_err(|_| wrong("it is not UTF-8"))?;
        Ok(Some(text.trim_end_matches(['\n', '\r'])))
    }

    fn wrong<E>(&self, message: impl Into<String>) -> ReadError<E> {
        ReadError::Line { line: self.number, message: message.into() }
    }
}
