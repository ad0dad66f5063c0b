//! What people and scripts see.

use serde_json::Value;
use std::{
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

    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
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
        for line in layout(head, rows) {
            self.line(&line)?;
        }
        Ok(())
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

fn layout(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let head: Vec<String> = head.iter().map(|&title| title.to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let widths: Vec<usize> =
        (0..head.len()).map(|column| all.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0)).collect();
    all.iter()
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
        let rows = vec![vec!["主机一".to_owned(), "1".to_owned()], vec!["b".to_owned(), "22".to_owned()]];
        assert_eq!(layout(&["NAME", "N"], &rows), ["NAME    N", "主机一  1", "b       22"]);
    }

    #[test]
    fn times_are_told() {
        assert_eq!(ago(Some(0), 7_500_000), "2h 05m ago");
        assert_eq!(ago(None, 0), "-");
    }
}
