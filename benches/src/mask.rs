//! Masking on one core: how fast, how much of what was planted is found, how much of what is found was planted.
//!
//! Speed counts the whole call as the agent makes it, the new text included; generating the lines is not in it.

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
const MB: f64 = 1e6;
/// The first line's time: the same lines every time.
const START_MS: i64 = 1_763_942_400_000;

/// Runs it.
///
/// # Errors
/// The default rules do not compile.
pub fn run(megabytes: u32, seed: u64) -> Result<Report> {
    let mut report = Report::begin("mask", format!("{megabytes} MB of generated lines, seed {seed}, default rules"));
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
    let found = Found::of(&masker, &dense).and(Found::of(&masker, &quiet));
    found.report(&mut report);
    Ok(report)
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

    fn add(&mut self, masker: &Masker, line: &Line) {
        let findings = masker.explain(&line.text);
        let masked = masker.mask(&line.text);
        self.lines += 1;
        self.failed += u64::from(masked.failed);
        for planted in &line.planted {
            let kind = self.kinds.entry(planted.kind).or_default();
            kind.0 += 1;
            kind.1 += u64::from(findings.iter().any(|finding| finding.start <= planted.start && planted.end <= finding.end));
            self.readable += u64::from(masked.text.contains(&line.text[planted.start..planted.end]));
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
        self.examples.extend(other.examples);
        self
    }

    fn report(&self, report: &mut Report) {
        let percent = |part: u64, whole: u64| float(part) / float(whole.max(1)) * 100.0;
        let (planted, covered) = self.kinds.values().fold((0, 0), |sum, kind| (sum.0 + kind.0, sum.1 + kind.1));
        report.figures([
            figure("recall_percent", "recall: planted values wholly within a finding", "%", percent(covered, planted)).budget(99.9),
            figure("precision_percent", "precision: findings that touch a planted value", "%", percent(self.right, self.findings)),
            figure(
                "false_findings_per_1000_lines",
                "findings where nothing was planted",
                "per 1,000 lines",
                float(self.findings - self.right) * 1e3 / float(self.lines.max(1)),
            ),
        ]);
        for (kind, (planted, covered)) in &self.kinds {
            if planted > covered {
                report.note(format!("{kind}: {covered} of {planted} found"));
            }
        }
        for example in self.examples.iter().take(5) {
            report.note(format!("found where nothing was planted: {example}"));
        }
        report.check(format!("{} of {planted} planted values can be read in the masked text", self.readable), self.readable == 0);
        report.check(format!("{} of {} lines could not be masked", self.failed, self.lines), self.failed == 0);
    }
}
