//! Which lines belong to the event before them: stack traces and everything else that is written in several lines.
//!
//! Pure: a line and what came before it decide. A rule knows only the event it is in, so reading an event again from its first
//! line always joins it in the same way.

use regex::Regex;
use serde::{Deserialize, Serialize};
use shipwatch_common::{config::Problems, model::Severity, severity};
use std::time::Duration;

/// How lines are joined to events. Without a preset and a start every line is an event.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `java`, `python`, `go`, `php`, `node`, `dotnet`, or `indent` (lines that begin with white space).
    pub preset: String,
    /// A pattern of the first line of an event; all other lines belong to the event before.
    pub start: String,
    /// An event with more lines is cut in two.
    pub max_lines: usize,
    /// An event with more bytes is cut in two.
    pub max_bytes: usize,
    /// An event is over when the file did not grow for this time.
    #[serde(with = "shipwatch_common::time::serde_duration")]
    pub wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { preset: String::new(), start: String::new(), max_lines: 500, max_bytes: 128 << 10, wait: Duration::from_secs(1) }
    }
}

impl Config {
    pub(super) fn check(&self, problems: &mut Problems, at: &str) {
        if let Err(error) = Joiner::new(self) {
            problems.add(&format!("{at}{}", if self.start.is_empty() { "preset" } else { "start" }), error);
        }
        if !(2..=10_000).contains(&self.max_lines) {
            problems.add(&format!("{at}max_lines"), format!("must be between 2 and 10000, not {}", self.max_lines));
        }
        if !(1024..=1 << 20).contains(&self.max_bytes) {
            problems.add(&format!("{at}max_bytes"), format!("must be between 1024 and 1048576, not {}", self.max_bytes));
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(600)).contains(&self.wait) {
            problems.add(&format!("{at}wait"), "must be between 100ms and 10m");
        }
    }
}

/// How traces of one language look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Preset {
    Java,
    Python,
    Go,
    Php,
    Node,
    Dotnet,
    Indent,
}

#[derive(Debug)]
enum Rule {
    Preset(Preset),
    Start(Regex),
}

/// A compiled [`Config`].
#[derive(Debug)]
pub(super) struct Joiner {
    rule: Rule,
    pub(super) max_lines: usize,
    pub(super) max_bytes: usize,
    pub(super) wait_ns: i64,
}

/// What is known of the event that is being read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Inside {
    /// An ordinary line.
    Line,
    /// A warning or worse: a trace may follow.
    Trouble,
    /// In a trace, before its last line.
    Trace,
    /// Behind the line that ends a trace.
    AfterTrace,
}

impl Joiner {
    /// `None` if every line is an event.
    pub(super) fn new(config: &Config) -> Result<Option<Self>, String> {
        let rule = match (config.preset.as_str(), config.start.as_str()) {
            ("", "") => return Ok(None),
            ("", start) => Rule::Start(Regex::new(start).map_err(|error| format!("is not a pattern: {error}"))?),
            (_, start) if !start.is_empty() => return Err("cannot be given together with a preset; remove one of them".to_owned()),
            (preset, _) => Rule::Preset(match preset {
                "java" => Preset::Java,
                "python" => Preset::Python,
                "go" => Preset::Go,
                "php" => Preset::Php,
                "node" => Preset::Node,
                "dotnet" => Preset::Dotnet,
                "indent" => Preset::Indent,
                other => return Err(format!("must be java, python, go, php, node, dotnet or indent, not {other:?}")),
            }),
        };
        let wait_ns = i64::try_from(config.wait.as_nanos()).unwrap_or(i64::MAX);
        Ok(Some(Self { rule, max_lines: config.max_lines, max_bytes: config.max_bytes, wait_ns }))
    }

    /// What a line is that begins an event.
    pub(super) fn begin(&self, line: &str) -> Inside {
        let Rule::Preset(preset) = &self.rule else { return Inside::Line };
        if preset.begins_trace(line) {
            return Inside::Trace;
        }
        match severity::of_text(line) {
            Severity::Warn | Severity::Error | Severity::Fatal => Inside::Trouble,
            _ => Inside::Line,
        }
    }

    /// Whether a line goes on with the event; `None` if it begins another.
    pub(super) fn go_on(&self, inside: Inside, line: &str) -> Option<Inside> {
        match &self.rule {
            Rule::Start(start) => (!start.is_match(line)).then_some(Inside::Line),
            Rule::Preset(preset) => preset.go_on(inside, line),
        }
    }
}

fn is_indented(line: &str) -> bool {
    line.starts_with([' ', '\t'])
}

/// `java.lang.IllegalStateException: why`, `TypeError: why`, `System.IO.IOException`: a type's name that ends as those of errors do.
fn names_error(line: &str, separator: char) -> bool {
    let line = line.strip_prefix("Uncaught ").unwrap_or(line);
    let end = line.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$') || c == separator)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let last = name.rsplit(separator).next().unwrap_or("");
    last.starts_with(char::is_uppercase)
        && ["Exception", "Error", "Throwable", "Failure", "Interrupt", "Exit", "Warning"].iter().any(|kind| last.ends_with(kind))
        && (rest.is_empty() || rest.starts_with(": ") || rest == ":" || rest.starts_with(" [") || rest.starts_with(" ("))
}

impl Preset {
    fn begins_trace(self, line: &str) -> bool {
        match self {
            Self::Java => line.starts_with("Exception in thread ") || names_error(line, '.'),
            Self::Python => line.starts_with("Traceback (most recent call last):"),
            Self::Go => ["panic: ", "fatal error: ", "runtime: ", "goroutine "].iter().any(|start| line.starts_with(start)),
            Self::Php => line.starts_with("PHP Fatal error:") || line.starts_with("Fatal error:") || line.contains("Stack trace:"),
            Self::Node => names_error(line, '.'),
            Self::Dotnet => line.starts_with("Unhandled exception") || names_error(line, '.'),
            Self::Indent => false,
        }
    }

    fn go_on(self, inside: Inside, line: &str) -> Option<Inside> {
        if self == Self::Python {
            return python(inside, line);
        }
        // A trace belongs to the line that tells the trouble, where there is one.
        if inside == Inside::Trouble && self.begins_trace(line) {
            return Some(Inside::Trace);
        }
        let more = match self {
            Self::Java => line.starts_with("Caused by: ") || line.starts_with("Suppressed: ") || line.starts_with("... "),
            Self::Go => inside == Inside::Trace && is_go_trace(line),
            Self::Php => {
                let is_frame = line.strip_prefix('#').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
                is_frame || ["Stack trace:", "[stacktrace]", "Next ", "\"}"].iter().any(|start| line.starts_with(start))
            }
            Self::Node => line.starts_with('}') || inside == Inside::Trace && (line.is_empty() || line.starts_with("Node.js v")),
            Self::Dotnet => line.starts_with("--- End of ") || line.starts_with("---> "),
            Self::Indent | Self::Python => false,
        };
        if more { Some(Inside::Trace) } else { is_indented(line).then_some(inside) }
    }
}

/// A traceback is headed, indented, and ends with a line that is not; then another may follow that was its consequence.
fn python(inside: Inside, line: &str) -> Option<Inside> {
    let heads = line.starts_with("Traceback (most recent call last):");
    let links = line.starts_with("During handling of the above exception") || line.starts_with("The above exception was the direct cause");
    match inside {
        Inside::Trouble | Inside::AfterTrace if heads => Some(Inside::Trace),
        Inside::AfterTrace if links || line.is_empty() => Some(Inside::AfterTrace),
        // The line that names the exception.
        Inside::Trace if !is_indented(line) => Some(Inside::AfterTrace),
        _ => is_indented(line).then_some(inside),
    }
}

fn is_go_trace(line: &str) -> bool {
    line.is_empty()
        || ["goroutine ", "created by ", "[signal ", "panic: ", "\tpanic: ", "exit status ", "main."].iter().any(|start| line.starts_with(start))
        // `net/http.(*conn).serve(0xc0000b2000)`
        || (line.ends_with(')') && line.contains('.') && !line.split('(').next().unwrap_or("").contains(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Joins a text; events are divided by `|`, lines by `¶`.
    fn join(preset: &str, start: &str, text: &str) -> String {
        let joiner = Joiner::new(&Config { preset: preset.into(), start: start.into(), ..Config::default() }).unwrap().unwrap();
        let mut out = String::new();
        let mut inside = None;
        for line in text.lines() {
            let next = inside.and_then(|inside| joiner.go_on(inside, line));
            if inside.is_some() {
                out.push(if next.is_some() { '¶' } else { '|' });
            }
            inside = Some(next.unwrap_or_else(|| joiner.begin(line)));
            out.push_str(line.trim());
        }
        out
    }

    #[track_caller]
    fn check(preset: &str, text: &str, expected_events: &[usize]) {
        let joined = join(preset, "", text);
        let counts: Vec<usize> = joined.split('|').map(|event| event.split('¶').count()).collect();
        assert_eq!(counts, expected_events, "{joined}");
    }

    #[test]
    fn java() {
        check(
            "java",
            "2026-11-23 ERROR order failed\njava.lang.IllegalStateException: no stock\n\tat shop.Order.pay(Order.java:7)\n\t... 12 more\n\
             Caused by: java.io.IOException: gone\n\tat shop.Db.get(Db.java:1)\n2026-11-23 INFO next\n2026-11-23 INFO next\n\
             Exception in thread \"main\" java.lang.Error\n\tat a.B.c(B.java:1)\n2026-11-23 INFO last",
            &[6, 1, 1, 2, 1],
        );
    }

    #[test]
    fn python_with_a_chain() {
        check(
            "python",
            "INFO start\nERROR job failed\nTraceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\nValueError: bad\n\n\
             During handling of the above exception, another exception occurred:\n\nTraceback (most recent call last):\n  File \"a.py\", line 9\n\
             KeyError: 'x'\nINFO next\nTraceback (most recent call last):\n  File \"b.py\"\nKeyboardInterrupt\nINFO end",
            &[1, 11, 1, 3, 1],
        );
    }

    #[test]
    fn go() {
        check(
            "go",
            "2026/11/23 08:00:00 listening\npanic: runtime error: index out of range [5]\n\ngoroutine 1 [running]:\nmain.pay(...)\n\
             \t/src/main.go:7\nnet/http.(*conn).serve(0xc0000b2000)\n\t/go/server.go:1\ncreated by net/http.(*Server).Serve\n\t/go/server.go:2\n\
             exit status 2\n2026/11/23 08:00:01 listening",
            &[1, 10, 1],
        );
    }

    #[test]
    fn php() {
        check(
            "php",
            "[23-Nov-2026 08:00:00 UTC] PHP Notice: x\nPHP Fatal error:  Uncaught Exception: no in /a.php:3\nStack trace:\n#0 /a.php(9): f()\n\
             #1 {main}\n  thrown in /a.php on line 3\n[23-Nov-2026 08:00:01 UTC] PHP Notice: y",
            &[1, 5, 1],
        );
        check("php", "[2026-11-23] local.ERROR: no {\"exception\":\"x\n[stacktrace]\n#0 /a.php\n\"}\n[2026-11-23] local.INFO: y", &[4, 1]);
    }

    #[test]
    fn node() {
        check(
            "node",
            "listening\nTypeError: x is not a function\n    at pay (/app/a.js:3:5)\n    at main (/app/a.js:9:1) {\n  code: 'E'\n}\n\nNode.js v22.1.0\nlistening",
            &[1, 7, 1],
        );
    }

    #[test]
    fn dotnet() {
        check(
            "dotnet",
            "info: start\nfail: Shop.Pay[0]\n      it failed\nSystem.InvalidOperationException: no\n ---> System.IO.IOException: gone\n\
             \x20  at A.B() in /a.cs:line 3\n   --- End of inner exception stack trace ---\n   at C.D()\ninfo: next",
            &[1, 7, 1],
        );
    }

    #[test]
    fn a_start_pattern_and_indentation() {
        assert_eq!(join("", r"^\d{4}-", "2026-1 a\nb\n\nc\n2026-2 d"), "2026-1 a¶b¶¶c|2026-2 d");
        assert_eq!(join("indent", "", "a\n b\n\tc\nd"), "a¶b¶c|d");
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let new = |preset: &str, start: &str| Joiner::new(&Config { preset: preset.into(), start: start.into(), ..Config::default() });
        assert!(new("cobol", "").unwrap_err().contains("java, python"));
        assert!(new("java", "x").is_err());
        assert!(new("", "(").is_err());
        assert!(new("", "").unwrap().is_none());
    }
}
