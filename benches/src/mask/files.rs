//! What the masker finds in logs that are there: how often, and why, for people to judge.
//!
//! # Invariants
//! - The report names files, lines and reasons, never a value.
//! - A file is read line by line, as the agent reads it; bytes that are not UTF-8 become U+FFFD.

use crate::{
    float, progress,
    report::{Report, figure},
};
use anyhow::{Context as _, Result};
use shipwatch_common::mask::{Config, Finding, LineState, Masker};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Places that are named of each reason.
const PLACES: usize = 3;
/// Larger files are left out, and so is what lies deeper than this.
const MOST_BYTES: u64 = 256 << 20;
const MOST_DEPTH: usize = 16;

/// Counts what the default rules find in the files of a directory.
///
/// # Errors
/// The directory cannot be read.
pub fn run(dir: &Path) -> Result<Report> {
    let mut report = Report::begin("mask", format!("files of {}, default rules", dir.display()));
    let masker = Masker::new(&Config::default()).map_err(anyhow::Error::msg).context("the default rules")?;
    let mut paths = Vec::new();
    walk(dir, &mut paths, 0).with_context(|| dir.display().to_string())?;
    paths.sort();
    progress(format!("masking {} files", paths.len()));
    let mut seen = Seen::default();
    for path in &paths {
        let shown = path.strip_prefix(dir).unwrap_or(path).display().to_string();
        seen.file(&masker, &shown, &fs::read(path).with_context(|| path.display().to_string())?);
    }
    seen.report(&mut report, paths.len());
    Ok(report)
}

fn walk(dir: &Path, paths: &mut Vec<PathBuf>, depth: usize) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && depth < MOST_DEPTH {
            walk(&entry.path(), paths, depth + 1)?;
        } else if kind.is_file() && entry.metadata()?.len() <= MOST_BYTES {
            paths.push(entry.path());
        }
    }
    Ok(())
}

/// Findings of one reason.
#[derive(Debug, Default)]
struct Reason {
    count: u64,
    places: Vec<String>,
}

#[derive(Debug, Default)]
struct Seen {
    lines: u64,
    bytes: u64,
    failed: u64,
    findings: u64,
    reasons: BTreeMap<String, Reason>,
}

impl Seen {
    fn file(&mut self, masker: &Masker, name: &str, bytes: &[u8]) {
        let mut state = LineState::default();
        self.bytes += bytes.len() as u64;
        for (number, line) in (1..).zip(String::from_utf8_lossy(bytes).lines()) {
            self.lines += 1;
            self.failed += u64::from(masker.mask_line(&mut state.clone(), line).failed);
            for finding in masker.explain_line(&mut state, line) {
                self.add(&finding, || format!("{name}:{number}"));
            }
        }
    }

    fn add(&mut self, finding: &Finding, place: impl FnOnce() -> String) {
        self.findings += 1;
        let key = finding.key.as_deref().unwrap_or_default();
        let reason = self.reasons.entry(format!("{}, {} {key}", finding.kind, finding.detector)).or_default();
        reason.count += 1;
        if reason.places.len() < PLACES {
            reason.places.push(place());
        }
    }

    fn report(&self, report: &mut Report, files: usize) {
        report.figures([
            figure("files", "files", "", float(files as u64)),
            figure("lines", "lines", "", float(self.lines)),
            figure("mb", "size", "MB", float(self.bytes) / 1e6),
            figure(
                "findings_per_1000_lines",
                "findings, right and false",
                "per 1,000 lines",
                float(self.findings) * 1e3 / float(self.lines.max(1)),
            ),
        ]);
        for (what, reason) in &self.reasons {
            report.note(format!("{} times {}: {}", reason.count, what.trim_end(), reason.places.join(", ")));
        }
        report.check(format!("{} of {} lines could not be masked", self.failed, self.lines), self.failed == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_by_reason_and_no_value_is_told() {
        let masker = Masker::new(&Config::default()).unwrap();
        let mut seen = Seen::default();
        seen.file(&masker, "a.log", b"ok\npassword=hunter22 \xff\n");
        seen.file(&masker, "b.log", b"password=hunter23 a@example.com");
        assert_eq!((seen.lines, seen.findings, seen.failed), (3, 3, 0));
        let told = format!("{:?}", seen.reasons);
        assert!(told.contains("password, key password") && told.contains("a.log:2") && told.contains("b.log:1"), "{told}");
        assert!(!told.contains("hunter") && !told.contains("example"), "{told}");
    }
}
