//! Which lines of a source go on: include, exclude, sampling, and a limit per second. What is left out is counted.
//!
//! Pure: the time is an argument, chance is a hash of the line's place, so a line that is read again after a crash is judged in the
//! same way. Works on masked text.

use super::{config::Source, parse::Fields};
use regex::{Regex, RegexSet};
use serde::{Deserialize, Serialize};
use shipwatch_common::{config::Problems, model::FileId, time::UnixNs};

/// Of the lines that match, a share is kept. The first rule that matches counts.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sample {
    /// What must match; empty matches every line.
    pub pattern: String,
    /// The field of which the pattern speaks; empty is the whole line.
    pub field: String,
    /// The share that is kept: 0 none, 0.1 a tenth, 1 all.
    pub keep: f64,
}

impl Default for Sample {
    fn default() -> Self {
        Self { pattern: String::new(), field: String::new(), keep: 1.0 }
    }
}

/// Why a line does not go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Keep,
    Filtered,
    Sampled,
    Limited,
}

/// How many lines may go on now. A value: it is put back only when what it allowed was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Budget {
    lines: f64,
    at: Option<UnixNs>,
}

#[derive(Debug)]
struct Share {
    regex: Option<Regex>,
    field: String,
    keep: f64,
}

/// Compiled rules of a source.
#[derive(Debug)]
pub(super) struct Filter {
    include: Option<RegexSet>,
    exclude: Option<RegexSet>,
    shares: Vec<Share>,
    per_second: f64,
    burst: f64,
}

pub(super) fn check(source: &Source, problems: &mut Problems, at: &str) {
    for (key, patterns) in [("include", &source.include), ("exclude_lines", &source.exclude_lines)] {
        for (number, pattern) in patterns.iter().enumerate() {
            if let Err(error) = Regex::new(pattern) {
                problems.add(&format!("{at}{key}.{number}"), format!("is not a pattern: {error}"));
            }
        }
    }
    for (number, sample) in source.sample.iter().enumerate() {
        if let Err(error) = Regex::new(&sample.pattern) {
            problems.add(&format!("{at}sample.{number}.pattern"), format!("is not a pattern: {error}"));
        }
        if !(0.0..=1.0).contains(&sample.keep) {
            problems.add(&format!("{at}sample.{number}.keep"), format!("must be between 0 and 1, not {}", sample.keep));
        }
    }
}

impl Filter {
    pub(super) fn new(source: &Source) -> Result<Self, String> {
        let set = |patterns: &[String]| match patterns {
            [] => Ok(None),
            patterns => RegexSet::new(patterns).map(Some).map_err(|error| error.to_string()),
        };
        let share = |sample: &Sample| {
            let regex =
                if sample.pattern.is_empty() { None } else { Some(Regex::new(&sample.pattern).map_err(|error| error.to_string())?) };
            Ok(Share { regex, field: sample.field.clone(), keep: sample.keep })
        };
        let per_second = f64::from(source.max_lines_per_second);
        Ok(Self {
            include: set(&source.include)?,
            exclude: set(&source.exclude_lines)?,
            shares: source.sample.iter().map(share).collect::<Result<_, String>>()?,
            per_second,
            burst: if source.burst_lines == 0 { per_second * 10.0 } else { f64::from(source.burst_lines) },
        })
    }

    /// What becomes of a line.
    pub(super) fn judge(&self, text: &str, fields: &Fields<'_>, place: (FileId, u64), budget: &mut Budget, now: UnixNs) -> Verdict {
        if self.include.as_ref().is_some_and(|set| !set.is_match(text)) || self.exclude.as_ref().is_some_and(|set| set.is_match(text)) {
            return Verdict::Filtered;
        }
        let matching = self.shares.iter().find(|share| {
            let subject = if share.field.is_empty() { Some(text) } else { fields.get(&share.field) };
            subject.is_some_and(|subject| share.regex.as_ref().is_none_or(|regex| regex.is_match(subject)))
        });
        if matching.is_some_and(|share| chance(place) >= share.keep) {
            return Verdict::Sampled;
        }
        if self.per_second > 0.0 && !budget.take(self.per_second, self.burst, now) {
            return Verdict::Limited;
        }
        Verdict::Keep
    }
}

impl Budget {
    fn take(&mut self, per_second: f64, burst: f64, now: UnixNs) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "a wait of centuries may be off by microseconds")]
        let grown = match self.at {
            // A clock that jumped back gives nothing and takes nothing.
            Some(at) => self.lines + (now - at).max(0) as f64 / 1e9 * per_second,
            None => burst,
        };
        self.at = Some(now);
        self.lines = grown.min(burst.max(1.0));
        if self.lines < 1.0 {
            return false;
        }
        self.lines -= 1.0;
        true
    }
}

/// A number from 0 to 1 that a place always has.
fn chance((file, offset): (FileId, u64)) -> f64 {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&file.0.to_be_bytes());
    bytes[16..].copy_from_slice(&offset.to_be_bytes());
    // The finaliser of splitmix64 on a checksum: cheap, and even enough for a share.
    let mut mixed = u64::from(crc32fast::hash(&bytes)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    f64::from(u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::parse::{Config, Parser};

    const SECOND: i64 = 1_000_000_000;

    fn judge_all(source: &Source, lines: impl IntoIterator<Item = String>) -> Vec<Verdict> {
        let filter = Filter::new(source).unwrap();
        let parser = Parser::new(&Config::default(), jiff::tz::TimeZone::UTC).unwrap();
        let mut budget = Budget::default();
        let mut judged = Vec::new();
        for (at, line) in lines.into_iter().enumerate() {
            judged.push(filter.judge(&line, &parser.fields(&line), (FileId(7), at as u64), &mut budget, 0));
        }
        judged
    }

    #[test]
    fn include_and_exclude() {
        let source = Source { include: vec!["a".into(), "b".into()], exclude_lines: vec!["secret".into()], ..Source::default() };
        let judged = judge_all(&source, ["a", "b", "c", "a secret"].map(String::from));
        assert_eq!(judged, [Verdict::Keep, Verdict::Keep, Verdict::Filtered, Verdict::Filtered]);
    }

    #[test]
    fn a_share_is_kept_and_always_the_same() {
        let sample = |pattern: &str, field: &str, keep| Sample { pattern: pattern.into(), field: field.into(), keep };
        let source = Source { sample: vec![sample("^/health", "path", 0.0), sample("", "", 0.25)], ..Source::default() };
        let lines = || (0..4000).map(|at| format!("{{\"path\":\"{}\"}}", if at % 2 == 0 { "/health" } else { "/pay" }));
        let judged = judge_all(&source, lines());
        let kept = judged.iter().enumerate().filter(|(_, verdict)| **verdict == Verdict::Keep).map(|(at, _)| at).collect::<Vec<_>>();
        assert!((400..600).contains(&kept.len()), "{}", kept.len());
        assert!(kept.iter().all(|at| at % 2 == 1));
        assert_eq!(judged, judge_all(&source, lines()));
    }

    #[test]
    fn the_limit_bites_and_recovers() {
        let source = Source { max_lines_per_second: 2, burst_lines: 3, ..Source::default() };
        let filter = Filter::new(&source).unwrap();
        let mut budget = Budget::default();
        let mut passes = |now: i64| {
            (0..10).filter(|_| filter.judge("x", &Fields::default(), (FileId(1), 1), &mut budget, now * SECOND) == Verdict::Keep).count()
        };
        assert_eq!((passes(100), passes(100), passes(101), passes(50), passes(51), passes(1000)), (3, 0, 2, 0, 2, 3));
    }
}
