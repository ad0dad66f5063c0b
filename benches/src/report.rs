//! Figures of a run, as a table for people and as JSON for programs.
//!
//! # Invariants
//! - A figure beside a peer's comes from the same run on the same machine, so their ratio stands where the figures alone do not.
//! - The machine and its load before and after are part of every report.

use crate::float;
use serde_json::{Map, Value, json};
use std::{fmt::Write as _, fs};

/// One figure.
#[derive(Clone, Debug)]
pub struct Figure {
    key: &'static str,
    what: &'static str,
    unit: &'static str,
    value: f64,
    peer: Option<f64>,
    second: Option<f64>,
    better: Better,
    budget: Option<f64>,
}

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Better {
    Low,
    High,
}

/// A figure that stands alone. `key` names it in JSON.
#[must_use]
pub const fn figure(key: &'static str, what: &'static str, unit: &'static str, value: f64) -> Figure {
    Figure { key, what, unit, value, peer: None, second: None, better: Better::Low, budget: None }
}

impl Figure {
    /// Beside the peer's.
    #[must_use]
    pub const fn beside(self, peer: Option<f64>) -> Self {
        Self { peer, ..self }
    }

    /// With the value that it shall reach.
    #[must_use]
    pub const fn budget(self, budget: f64) -> Self {
        Self { budget: Some(budget), ..self }
    }

    /// Beside two peers': the ratio is that to the better one.
    #[must_use]
    pub const fn beside_both(self, peer: Option<f64>, second: Option<f64>) -> Self {
        Self { peer, second, ..self }
    }

    /// More is better; less is, unless this is said.
    #[must_use]
    pub const fn more_is_better(self) -> Self {
        Self { better: Better::High, ..self }
    }

    fn ratio(&self) -> Option<f64> {
        let choose = if self.better == Better::High { f64::max } else { f64::min };
        let best = [self.peer, self.second].into_iter().flatten().filter(|peer| *peer > 0.0).reduce(choose);
        best.map(|peer| self.value / peer)
    }
}

/// Everything about a run.
#[derive(Clone, Debug)]
pub struct Report {
    bench: &'static str,
    settings: String,
    machine: Machine,
    peer: Option<String>,
    second: Option<String>,
    figures: Vec<Figure>,
    checks: Vec<(String, bool)>,
    notes: Vec<String>,
}

impl Report {
    /// Begins one; notes the machine's load as it is now. `settings` are what was asked for.
    #[must_use]
    pub fn begin(bench: &'static str, settings: String) -> Self {
        Self {
            bench,
            settings,
            machine: Machine::look(),
            peer: None,
            second: None,
            figures: Vec::new(),
            checks: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Names who stands in the peer's column.
    pub fn peer(&mut self, name: impl Into<String>) {
        self.peer = Some(name.into());
    }

    /// Names who stands in the columns of two peers.
    pub fn peers(&mut self, first: impl Into<String>, second: impl Into<String>) {
        self.peer = Some(first.into());
        self.second = Some(second.into());
    }

    /// A figure's value.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.key == key).map(|figure| figure.value)
    }

    /// Adds figures.
    pub fn figures(&mut self, figures: impl IntoIterator<Item = Figure>) {
        self.figures.extend(figures);
    }

    /// Adds something that had to be true.
    pub fn check(&mut self, what: impl Into<String>, good: bool) {
        self.checks.push((what.into(), good));
    }

    /// Adds what a reader must know.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Whether everything that had to be true was.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.checks.iter().all(|(_, good)| *good)
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|figure| {
                let mut entry = json!({"value": figure.value, "unit": figure.unit});
                let rest = [("peer", figure.peer), ("second", figure.second), ("ratio", figure.ratio()), ("budget", figure.budget)];
                for (key, value) in rest {
                    if let Some(value) = value {
                        entry[key] = json!(value);
                    }
                }
                (figure.key.to_owned(), entry)
            })
            .collect();
        let checks: Vec<Value> = self.checks.iter().map(|(what, good)| json!({"what": what, "good": good})).collect();
        json!({
            "bench": self.bench,
            "settings": self.settings,
            "version": env!("CARGO_PKG_VERSION"),
            "machine": self.machine.to_json(),
            "peer": self.peer,
            "second": self.second,
            "figures": figures,
            "checks": checks,
            "notes": self.notes,
        })
    }

    /// As a table.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = format!("{}: {}\n{}\n\n", self.bench, self.settings, self.machine.to_text());
        let with_budget = self.figures.iter().any(|figure| figure.budget.is_some());
        let mut head = vec![String::new(), "shipwatch".to_owned()];
        if let Some(peer) = &self.peer {
            head.push(peer.clone());
            head.extend(self.second.clone());
            head.push("ratio".to_owned());
        }
        if with_budget {
            head.push("budget".to_owned());
        }
        let mut rows = vec![head];
        for figure in &self.figures {
            let mut row = vec![format!("{} ({})", figure.what, figure.unit), number(figure.value)];
            let shown = |value: Option<f64>| value.map(number).unwrap_or_default();
            if self.peer.is_some() {
                row.push(shown(figure.peer));
                row.extend(self.second.as_ref().map(|_| shown(figure.second)));
                row.push(shown(figure.ratio()));
            }
            if with_budget {
                row.push(figure.budget.map(number).unwrap_or_default());
            }
            rows.push(row);
        }
        align(&mut out, &rows);
        for (what, good) in &self.checks {
            // Writing to a String cannot fail.
            let _infallible = write!(out, "{} {what}", if *good { "\ngood " } else { "\nWRONG" });
        }
        for note in &self.notes {
            let _infallible = write!(out, "\nnote  {note}");
        }
        out.push('\n');
        out
    }
}

/// First column to the left, the others to the right.
fn align(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _infallible = if at == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// Three digits that say something, thousands apart.
fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let digits = match value.abs() {
        size if size == 0.0 || size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 && digit.is_ascii_digit() && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

/// Where a run took place.
#[derive(Clone, Debug, Default)]
struct Machine {
    cpu: String,
    cpus: u64,
    memory_mib: u64,
    kernel: String,
    load_before: String,
}

impl Machine {
    fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
        let memory = read("/proc/meminfo");
        let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_ascii_whitespace().next()?.parse::<u64>().ok());
        Self {
            cpu: info.lines().find(|line| line.starts_with("model name")).and_then(value).unwrap_or_else(|| "unknown processor".to_owned()),
            cpus: info.lines().filter(|line| line.starts_with("processor")).count() as u64,
            memory_mib: memory.unwrap_or(0) / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_before: load(),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "cpu": self.cpu,
            "cpus": self.cpus,
            "memory_mib": self.memory_mib,
            "kernel": self.kernel,
            "load_before": self.load_before,
            "load_after": load(),
        })
    }

    fn to_text(&self) -> String {
        format!(
            "machine: {} x {}, {:.1} GiB, Linux {}; load before {}, after {}",
            self.cpus,
            self.cpu,
            float(self.memory_mib) / 1024.0,
            self.kernel,
            self.load_before,
            load()
        )
    }
}

/// Load averages over 1, 5 and 15 minutes.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [0.0, 0.01234, 0.5, 9.876, 12.34, 999.6, 1_234_567.8, -1_234.0, -123.0].map(number);
        assert_eq!(shown, ["0", "0.0123", "0.500", "9.88", "12.3", "1,000", "1,234,568", "-1,234", "-123"]);
        assert_eq!(number(f64::NAN), "-");
    }

    #[test]
    fn a_report_has_ratios_and_fails_with_its_checks() {
        let mut report = Report::begin("agent", "1 minute".to_owned());
        report.peer("peer 1.0");
        report.figures([figure("rss", "RSS", "MB", 10.0).beside(Some(20.0)).budget(15.0), figure("alone", "alone", "", 1.0)]);
        report.check("all there", true);
        assert!(report.is_good());
        report.check("none twice", false);
        assert!(!report.is_good());
        let (text, json) = (report.to_text(), report.to_json());
        assert!(text.contains("RSS (MB)       10.0      20.0  0.500    15.0\n"), "{text}");
        assert!(text.contains("WRONG none twice"), "{text}");
        assert_eq!((report.value("rss"), report.value("none")), (Some(10.0), None));
        assert_eq!(json["figures"]["rss"], json!({"value": 10.0, "unit": "MB", "peer": 20.0, "ratio": 0.5, "budget": 15.0}));
    }

    #[test]
    fn beside_two_peers_the_ratio_is_that_to_the_better_one() {
        let less = figure("ms", "time", "ms", 10.0).beside_both(Some(40.0), Some(20.0));
        let more = figure("rate", "rate", "per s", 30.0).beside_both(Some(15.0), Some(10.0)).more_is_better();
        assert_eq!((less.ratio(), more.ratio()), (Some(0.5), Some(2.0)));
        let mut report = Report::begin("peers", String::new());
        report.peers("one", "two");
        report.figures([less, more.clone().beside_both(None, Some(10.0))]);
        let text = report.to_text();
        assert!(text.contains("time (ms)          10.0  40.0  20.0  0.500\n"), "{text}");
        assert!(text.contains("rate (per s)       30.0        10.0   3.00\n"), "{text}");
    }
}
