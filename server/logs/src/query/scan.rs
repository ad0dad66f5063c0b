//! Signs, names and texts of a query, with the column at which something is wrong.
//!
//! # Invariants
//! - Any text is read or refused with a column; the number of conditions and the size of the text are bounded.

use super::matcher::MatchOp;

/// Longest text of a query.
pub(crate) const TEXT_BYTES: usize = 16 << 10;
/// Most conditions in one query.
pub(crate) const CONDITIONS: usize = 64;

/// What is wrong with a query's text, and where.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("column {column}: {message}")]
pub struct ParseError {
    /// Character at which it was noticed, from 1.
    pub column: usize,
    /// What was expected, or what is wrong with what was found.
    pub message: String,
}

/// A place in the text of a query.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    pub(crate) at: usize,
    conditions: usize,
    /// Whether `#` begins a comment up to the end of the line.
    comments: bool,
}

impl<'a> Scanner<'a> {
    /// # Errors
    /// The text is too long.
    pub(crate) fn new(text: &'a str, comments: bool) -> Result<Self, ParseError> {
        if text.len() > TEXT_BYTES {
            let message = format!("the query has {} bytes, more than the {TEXT_BYTES} that are allowed", text.len());
            return Err(ParseError { column: 1, message });
        }
        Ok(Self { text, at: 0, conditions: 0, comments })
    }

    pub(crate) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(crate) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    pub(crate) fn space(&mut self) {
        loop {
            self.at += self.rest().len() - self.rest().trim_start().len();
            if !self.comments || !self.rest().starts_with('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    /// Skips spaces, then takes the sign if it is next.
    pub(crate) fn take(&mut self, sign: &str) -> bool {
        self.space();
        let is = self.rest().starts_with(sign);
        self.at += if is { sign.len() } else { 0 };
        is
    }

    pub(crate) fn error(&self, at: usize, message: impl Into<String>) -> ParseError {
        ParseError { column: self.text.get(..at).unwrap_or_default().chars().count() + 1, message: message.into() }
    }

    pub(crate) fn expected(&mut self, what: &str) -> ParseError {
        self.space();
        let found = self.peek().map_or_else(|| "the end".to_owned(), |c| format!("`{c}`"));
        self.error(self.at, format!("expected {what}, found {found}"))
    }

    pub(crate) fn count(&mut self) -> Result<(), ParseError> {
        self.conditions += 1;
        if self.conditions > CONDITIONS { Err(self.error(self.at, format!("more than {CONDITIONS} conditions"))) } else { Ok(()) }
    }

    pub(crate) fn operator(&mut self) -> Result<MatchOp, ParseError> {
        let known = [("=~", MatchOp::Matches), ("!~", MatchOp::NotMatches), ("!=", MatchOp::NotEqual), ("=", MatchOp::Equal)];
        let found = known.into_iter().find(|(sign, _)| self.take(sign));
        found.map(|(_, op)| op).ok_or_else(|| self.expected("`=`, `!=`, `=~` or `!~`"))
    }

    pub(crate) fn string(&mut self) -> Result<String, ParseError> {
        self.space();
        let start = self.at;
        match self.peek() {
            Some('`') => {
                self.next();
                let length = self.rest().find('`').ok_or_else(|| self.error(start, "the text is not closed; expected a second `"))?;
                let text = self.rest().get(..length).unwrap_or_default().to_owned();
                self.at += length + 1;
                Ok(text)
            }
            Some('"') => {
                self.next();
                self.quoted(start)
            }
            _ => Err(self.expected("a text in quotes or backticks")),
        }
    }

    fn quoted(&mut self, start: usize) -> Result<String, ParseError> {
        let mut bytes = Vec::new();
        loop {
            let at = self.at;
            match self.next() {
                None | Some('\n') => return Err(self.error(start, "the text is not closed; expected a second \"")),
                Some('"') => break,
                Some('\\') => self.escape(at, &mut bytes)?,
                Some(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        String::from_utf8(bytes).map_err(|_| self.error(start, "the escaped bytes are not UTF-8"))
    }

    fn escape(&mut self, at: usize, out: &mut Vec<u8>) -> Result<(), ParseError> {
        let c = self.next();
        let single = match c {
            Some('a') => Some(7),
            Some('b') => Some(8),
            Some('f') => Some(12),
            Some('n') => Some(b'\n'),
            Some('r') => Some(b'\r'),
            Some('t') => Some(b'\t'),
            Some('v') => Some(11),
            Some('\\') => Some(b'\\'),
            Some('"') => Some(b'"'),
            _ => None,
        };
        if let Some(byte) = single {
            out.push(byte);
            return Ok(());
        }
        let (digits, radix) = match c {
            Some('x') => (2, 16),
            Some('u') => (4, 16),
            Some('U') => (8, 16),
            Some('0'..='7') => {
                self.at -= 1;
                (3, 8)
            }
            other => {
                let shown = other.map_or_else(String::new, |c| c.to_string());
                return Err(self.error(at, format!("`\\{shown}` is not an escape; write `\\\\{shown}`, or put the text in backticks")));
            }
        };
        let code = self.rest().get(..digits).filter(|text| text.chars().all(|c| c.is_digit(radix)));
        let code = code.and_then(|text| u32::from_str_radix(text, radix).ok());
        self.at += if code.is_some() { digits } else { 0 };
        let wrong = || self.error(at, format!("expected {digits} digits of a character's number"));
        match (c, code) {
            (Some('u' | 'U'), Some(code)) => {
                out.extend_from_slice(char::from_u32(code).ok_or_else(wrong)?.encode_utf8(&mut [0; 4]).as_bytes());
            }
            (_, Some(code)) => out.push(u8::try_from(code).map_err(|_| wrong())?),
            (_, None) => return Err(wrong()),
        }
        Ok(())
    }
}
