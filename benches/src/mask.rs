//! Masking on one core: how fast, how much of what was planted is found, how much of what is found was planted.
//!
//! Speed counts the whole call as the agent makes it, the new text included; generating the lines is not in it.

mod files;

pub use files::run as run_files;

use crate::{
    corpus::{Corpus, Line},
    float, progress,
    report::{Report, figure},
};
use anyhow::{Context as _, Result};
use shipwatch_common::mask::{Config, LineState, Masker};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Lines are gone through again until this much time has passed.
const LEAST: Duration = Duration::from_secs(3);
/// As much as in the logs of a shop's order service.
const DENSE_PERCENT: u64 = 60;
/// As in access logs and logs of the system.
const QUIET_PERCENT: u64 = 2;
/// Of each further seed, half of the lines with something planted and half without.
const BYTES_PER_SEED: usize = 1_000_000;
/// Of events and of what only some policies take.
const OTHER_BYTES: usize = 2_000_000;
/// Of what was planted of each kind, in percent.
const LEAST_RECALL: f64 = 99.9;
/// On 1,000 lines without anything planted.
const MOST_FALSE: f64 = 0.1;
const MB: f64 = 1e6;
/// The first line's time: the same lines every time.
const START_MS: i64 = 1_763_942_400_000;

/// Runs it.
///
/// # Errors
/// The default rules do not compile.
pub fn run(megabytes: u32, seed: u64, seeds: u32) -> Result<Report> {
    let mut report = Report::begin("mask", format!("{megabytes} MB of generated lines, seed {seed}, {seeds} further seeds, default rules"));
    let begun = Instant::now();
    let masker = Masker::new(&Config::default()).map_err(anyhow::Error::msg).context("the default rules")?;
    let compile_ms = begun.elapsed().as_secs_f64() * 1e3;
    let bytes = megabytes as usize * 1_000_000;
    progress("generating lines");
    let dense = Corpus::new(seed, DENSE_PERCENT, START_MS).lines(bytes);
    let quiet = Corpus::new(seed + 1, QUIET_PERCENT, START_MS).lines(bytes);
    progress("masking");
    let (fast, slow) = (speed(&masker, &quiet), speed(&masker, &dense));
    report.figures([
        figure("compile_ms", "compiling the default rules", "ms", compile_ms),
        figure("dense_mb_per_cpu_s", "masking, 60 % of the lines have something planted", "MB per CPU s", slow.mb_per_cpu_s),
        figure("quiet_mb_per_cpu_s", "masking, 2 % of the lines have something planted", "MB per CPU s", fast.mb_per_cpu_s).budget(200.0),
        figure("dense_lines_touched_percent", "lines changed, of the 60 %", "% of all", slow.touched_percent),
        figure("quiet_lines_touched_percent", "lines changed, of the 2 %", "% of all", fast.touched_percent),
    ]);
    progress("comparing findings with what was planted");
    let others = (0..u64::from(seeds)).map(|further| Found::of_seed(&masker, seed + 1_000 + further, BYTES_PER_SEED));
    let found = others.fold(Found::of(&masker, &dense).and(Found::of(&masker, &quiet)), Found::and);
    found.report(&mut report);
    other_shapes(&mut report, &masker, &dense, seed)?;
    Ok(report)
}

/// The same lines in other shapes, and lines that ask for another policy: all that is planted must be found.
fn other_shapes(report: &mut Report, masker: &Masker, dense: &[Line], seed: u64) -> Result<()> {
    let gdpr = Masker::new(&Config { policy: "gdpr".to_owned(), ..Config::default() }).map_err(anyhow::Error::msg)?;
    let some = dense.get(..dense.len().min(20_000)).unwrap_or_default();
    let shapes = [
        ("lines read from GBK", Found::of(masker, &some.iter().map(from_gbk).collect::<Vec<_>>())),
        ("lines cut behind a planted value", Found::of(masker, &some.iter().filter_map(cut).collect::<Vec<_>>())),
        ("events of several lines", Found::of(masker, &Corpus::events(seed + 7, START_MS).lines(OTHER_BYTES))),
        (
            "addresses, devices, places and users under policy gdpr",
            Found::of(&gdpr, &Corpus::network(seed + 8, START_MS).lines(OTHER_BYTES)),
        ),
    ];
    for (what, found) in shapes {
        let (planted, covered) = found.sum();
        report.note(format!("{what}: {covered} of {planted} found in {} lines", found.lines));
        let sound = found.weak().is_empty() && found.readable == 0 && found.failed == 0;
        let weak = found.weak().join(", ");
        report.check(format!("{what}: of every kind at least {LEAST_RECALL} % found and none readable (less of: {weak})"), sound);
    }
    Ok(())
}

/// The line as it comes out of a file in GBK. What GBK does not have is left as it is.
fn from_gbk(line: &Line) -> Line {
    let (bytes, _, lossy) = encoding_rs::GBK.encode(&line.text);
    let (text, ..) = encoding_rs::GBK.decode(&bytes);
    if lossy { line.clone() } else { Line { text: text.into_owned(), planted: line.planted.clone() } }
}

/// The line up to its last planted value, as a writer with a limit leaves it.
fn cut(line: &Line) -> Option<Line> {
    let end = line.planted.last()?.end;
    Some(Line { text: line.text.get(..end)?.to_owned(), planted: line.planted.clone() })
}

struct Speed {
    mb_per_cpu_s: f64,
    touched_percent: f64,
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_ascii_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0))
}

fn speed(masker: &Masker, lines: &[Line]) -> Speed {
    let (begun, cpu_before) = (Instant::now(), cpu());
    let (mut bytes, mut touched, mut all) = (0u64, 0u64, 0u64);
    while begun.elapsed() < LEAST {
        let mut state = LineState::default();
        for line in lines {
            let masked = masker.mask_line(&mut state, &line.text);
            bytes += line.text.len() as u64 + 1;
            touched += u64::from(std::hint::black_box(masked).hits > 0);
        }
        all += lines.len() as u64;
    }
    let spent = (cpu() - cpu_before).as_secs_f64();
    Speed { mb_per_cpu_s: float(bytes) / MB / spent, touched_percent: float(touched) / float(all.max(1)) * 100.0 }
}

fn percent(part: u64, whole: u64) -> f64 {
    float(part) / float(whole.max(1)) * 100.0
}

/// What was found of what was planted.
#[derive(Debug, Default)]
struct Found {
    /// Per kind: planted, and of these wholly within findings.
    kinds: BTreeMap<&'static str, (u64, u64)>,
    findings: u64,
    right: u64,
    /// Planted values that can be read in the masked text.
    readable: u64,
    failed: u64,
    lines: u64,
    /// Lines without anything planted, and findings in them.
    clean: (u64, u64),
    /// Findings where nothing was planted, with what is around them.
    examples: Vec<String>,
}

impl Found {
    fn of(masker: &Masker, lines: &[Line]) -> Self {
        let mut found = Self::default();
        for line in lines {
            found.add(masker, line);
        }
        found
    }

    fn of_seed(masker: &Masker, seed: u64, bytes: usize) -> Self {
        Self::of(masker, &Corpus::new(seed, 50, START_MS).lines(bytes))
    }

    fn add(&mut self, masker: &Masker, line: &Line) {
        let findings = masker.explain(&line.text);
        let masked = masker.mask(&line.text);
        self.lines += 1;
        self.failed += u64::from(masked.failed);
        for planted in &line.planted {
            let kind = self.kinds.entry(planted.kind).or_default();
            kind.0 += 1;
            kind.1 += u64::from(findings.iter().any(|finding| finding.start <= planted.start && planted.end <= finding.end));
            let value = &line.text[planted.start..planted.end];
            // Three digits may stand elsewhere in the line, too.
            let elsewhere =
                line.text.matches(value).count() - line.planted.iter().filter(|other| line.text[other.start..other.end] == *value).count();
            self.readable += u64::from(masked.text.matches(value).count() > elsewhere);
        }
        if line.planted.is_empty() {
            self.clean = (self.clean.0 + 1, self.clean.1 + findings.len() as u64);
        }
        for finding in &findings {
            self.findings += 1;
            if line.planted.iter().any(|planted| planted.start < finding.end && finding.start < planted.end) {
                self.right += 1;
            } else if self.examples.len() < 5 {
                // Everything in the corpus is made up, so a finding may be shown.
                let text = line.text.get(finding.start..finding.end).unwrap_or_default();
                self.examples.push(format!("{}: {text:?} in {:?}", finding.kind, line.text));
            }
        }
    }

    fn and(mut self, other: Self) -> Self {
        for (kind, (planted, covered)) in other.kinds {
            let sum = self.kinds.entry(kind).or_default();
            *sum = (sum.0 + planted, sum.1 + covered);
        }
        self.findings += other.findings;
        self.right += other.right;
        self.readable += other.readable;
        self.failed += other.failed;
        self.lines += other.lines;
        self.clean = (self.clean.0 + other.clean.0, self.clean.1 + other.clean.1);
        self.examples.extend(other.examples);
        self
    }

    /// Kinds of which too little was found.
    fn weak(&self) -> Vec<&'static str> {
        self.kinds.iter().filter(|(_, (planted, covered))| percent(*covered, *planted) < LEAST_RECALL).map(|(kind, _)| *kind).collect()
    }

    fn false_per_1000(&self) -> f64 {
        float(self.clean.1) * 1e3 / float(self.clean.0.max(1))
    }

    /// Planted, and of these wholly within findings.
    fn sum(&self) -> (u64, u64) {
        self.kinds.values().fold((0, 0), |sum, kind| (sum.0 + kind.0, sum.1 + kind.1))
    }

    fn report(&self, report: &mut Report) {
        let (planted, covered) = self.sum();
        report.figures([
            figure("recall_percent", "recall: planted values wholly within a finding", "%", percent(covered, planted)).budget(LEAST_RECALL),
            figure("precision_percent", "precision: findings that touch a planted value", "%", percent(self.right, self.findings)),
            figure(
                "false_findings_per_1000_lines",
                "findings where nothing was planted",
                "per 1,000 lines",
                float(self.findings - self.right) * 1e3 / float(self.lines.max(1)),
            ),
            figure(
                "false_findings_per_1000_clean_lines",
                "findings in lines without anything planted",
                "per 1,000 lines",
                self.false_per_1000(),
            )
            .budget(MOST_FALSE),
        ]);
        for (kind, (planted, covered)) in &self.kinds {
            report.note(format!("{kind}: {covered} of {planted} found, {:.3} %", percent(*covered, *planted)));
        }
        let weak = self.weak();
        report.check(format!("of every kind at least {LEAST_RECALL} % found (less of: {})", weak.join(", ")), weak.is_empty());
        report.check(
            format!("{} findings in {} lines without anything planted", self.clean.1, self.clean.0),
            self.false_per_1000() <= MOST_FALSE,
        );
        for example in self.examples.iter().take(5) {
            report.note(format!("found where nothing was planted: {example}"));
        }
        report.check(format!("{} of {planted} planted values can be read in the masked text", self.readable), self.readable == 0);
        report.check(format!("{} of {} lines could not be masked", self.failed, self.lines), self.failed == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planted_is_found_and_nothing_else() {
        let masker = Masker::new(&Config::default()).unwrap();
        let gdpr = Masker::new(&Config { policy: "gdpr".to_owned(), ..Config::default() }).unwrap();
        let found = (70..76).map(|seed| Found::of_seed(&masker, seed, 150_000)).fold(Found::default(), Found::and);
        assert_eq!(found.weak(), [""; 0], "{:?}", found.kinds);
        assert_eq!((found.readable, found.failed), (0, 0));
        for (masker, lines) in [
            (&masker, Corpus::events(3, START_MS).lines(100_000)),
            (&masker, Corpus::new(4, 100, START_MS).lines(200_000).iter().filter_map(cut).collect()),
            (&masker, Corpus::new(5, 100, START_MS).lines(100_000).iter().map(from_gbk).collect()),
            (&gdpr, Corpus::network(6, START_MS).lines(100_000)),
        ] {
            let found = Found::of(masker, &lines);
            assert_eq!(found.weak(), [""; 0], "{:?}", found.kinds);
            assert_eq!((found.readable, found.failed), (0, 0));
        }
        assert!(found.findings - found.right <= found.lines / 2_000, "{:?}", found.examples);
        assert!(found.clean.0 > 1_000 && found.false_per_1000() <= MOST_FALSE, "{:?} {:?}", found.clean, found.examples);
    }
}
