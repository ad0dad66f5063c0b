//! What people and scripts see.

use serde_json::Value;
use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

/// Standard output and error.
#[derive(Debug)]
pub(crate) struct Out {
    json: bool,
    terminal: bool,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, terminal: io::stdout().is_terminal() }
    }

    pub(crate) const fn json(&self) -> bool {
        self.json
    }

    /// Whether a view may be drawn over itself.
    pub(crate) const fn is_live(&self) -> bool {
        self.terminal && !self.json
    }

    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.raw(&format!("{text}\n"))
    }

    /// As it is, escape sequences included.
    pub(crate) fn raw(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    /// Text that came from elsewhere: on a terminal its control characters are shown, not obeyed.
    pub(crate) fn foreign<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.terminal { visible(text) } else { Cow::Borrowed(text) }
    }

    /// Rows without a head, each cut to the terminal's width; gives their number.
    pub(crate) fn block(&mut self, rows: &[Vec<String>]) -> io::Result<usize> {
        let columns = terminal_size::terminal_size().map_or(80, |(columns, _)| usize::from(columns.0));
        let lines = layout(rows);
        for line in &lines {
            self.line(&cut(line, columns.saturating_sub(1)))?;
        }
        Ok(lines.len())
    }

    pub(crate) fn value(&mut self, value: &Value) -> io::Result<()> {
        let text = serde_json::to_string_pretty(value).unwrap_or_default();
        self.line(&text)
    }

    /// To standard error, so that it does not mix with data.
    pub(crate) fn note(&self, text: &str) {
        let mut err = io::stderr().lock();
        let _nobody_reads = err.write_all(text.as_bytes()).and_then(|()| err.write_all(b"\n"));
    }

    pub(crate) fn fail(&self, text: &str, code: u8) -> ExitCode {
        self.note(&format!("shipwatch: {text}"));
        ExitCode::from(code)
    }

    /// Columns as wide as their widest cell.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let head = head.iter().map(|&title| title.to_owned()).collect();
        let rows = rows.iter().map(|row| row.iter().map(|cell| self.cell(cell)).collect());
        for line in layout(&std::iter::once(head).chain(rows).collect::<Vec<_>>()) {
            self.line(&line)?;
        }
        Ok(())
    }

    /// A table's cell: our own colours stay, everything else that a terminal obeys is shown instead.
    fn cell(&self, text: &str) -> String {
        if text.starts_with("\u{1b}[") && text.ends_with("\u{1b}[0m") { text.to_owned() } else { self.foreign(text).into_owned() }
    }

    /// Text in a state's colour, on a terminal.
    pub(crate) fn state(&self, word: &str) -> String {
        let colour = match word {
            "succeeded" | "up" | "resolved" | "accepted" => "32",
            "failed" | "revert_failed" | "firing" | "silent" | "dead" | "refused" => "31",
            "reverted" | "pending" | "aborted" | "unknown" | "skipped" | "stopped" => "33",
            "running" | "sent" | "preparing" | "switching" | "reverting" => "34",
            _ => return word.to_owned(),
        };
        if self.terminal { format!("\u{1b}[{colour}m{word}\u{1b}[0m") } else { word.to_owned() }
    }
}

/// Width on a terminal: Han and full-width characters take two cells, escape sequences none.
fn width(text: &str) -> usize {
    let mut width = 0;
    let mut escape = false;
    for character in text.chars() {
        match character {
            '\u{1b}' => escape = true,
            'm' if escape => escape = false,
            _ if escape => {}
            '\u{1100}'..='\u{115f}'
            | '\u{2e80}'..='\u{a4cf}'
            | '\u{ac00}'..='\u{d7a3}'
            | '\u{f900}'..='\u{faff}'
            | '\u{fe30}'..='\u{fe6f}'
            | '\u{ff00}'..='\u{ff60}' => {
                width += 2;
            }
            _ => width += 1,
        }
    }
    width
}

/// Control characters as what they are, tabs excepted.
fn visible(text: &str) -> Cow<'_, str> {
    let obeyed = |character: char| character.is_control() && character != '\t';
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if obeyed(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect::<String>().into()
}

/// At most this many cells; what is coloured ends without its colour's end, so that is added.
fn cut(line: &str, cells: usize) -> String {
    if width(line) <= cells {
        return line.to_owned();
    }
    let mut kept = String::new();
    for character in line.chars() {
        kept.push(character);
        if width(&kept) > cells {
            kept.pop();
            break;
        }
    }
    kept + "\u{1b}[0m"
}

fn layout(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> =
        (0..columns).map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0)).collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (cell, wide) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', wide - width(cell) + 2));
            }
            line.trim_end().to_owned()
        })
        .collect()
}

/// A point in time for people: how long ago.
pub(crate) fn ago(at_ms: Option<i64>, now_ms: i64) -> String {
    let Some(at_ms) = at_ms else { return "-".to_owned() };
    let seconds = (now_ms - at_ms) / 1000;
    match seconds {
        ..0 => "in the future".to_owned(),
        0..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m {:02}s ago", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {:02}m ago", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {:02}h ago", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_also_with_han() {
        let rows = [["NAME", "N"], ["主机一", "1"], ["b", "22"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(layout(&rows), ["NAME    N", "主机一  1", "b       22"]);
        assert_eq!(cut("主机一 up", 5), "主机\u{1b}[0m");
        assert_eq!(cut("b", 5), "b");
    }

    #[test]
    fn a_line_from_elsewhere_cannot_drive_the_terminal() {
        assert_eq!(visible("a\tb"), "a\tb");
        assert_eq!(visible("\u{1b}[2Jx\u{9b}\r"), "\\u{1b}[2Jx\\u{9b}\\u{d}");
    }

    #[test]
    fn times_are_told() {
        assert_eq!(ago(Some(0), 7_500_000), "2h 05m ago");
        assert_eq!(ago(None, 0), "-");
    }
}
