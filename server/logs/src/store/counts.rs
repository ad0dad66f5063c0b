//! How many lines of each severity a block has in each minute, so that a volume histogram decompresses no line.
//!
//! Version 1, in a frame: count of items, then for each (ordered by minute, severity): minute minus the minute before, severity,
//! lines. Minutes are since the Unix epoch, rounded down.

use super::{
    block::{SEVERITIES, severity_code},
    frame::{self, Bad, Reader, put, put_signed},
};
use shipwatch_common::{model::Severity, time::UnixNs};
use std::collections::BTreeMap;

/// Nanoseconds in a minute.
pub(crate) const MINUTE_NS: i64 = 60_000_000_000;

/// Lines by minute and severity.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts(BTreeMap<(i64, u8), u64>);

impl Counts {
    pub(crate) fn of(lines: impl Iterator<Item = (UnixNs, Severity)>) -> Self {
        let mut counts = Self::default();
        for (ts_ns, severity) in lines {
            *counts.0.entry((ts_ns.div_euclid(MINUTE_NS), severity_code(severity))).or_default() += 1;
        }
        counts
    }

    /// One bit for each severity that occurs.
    pub(crate) fn severities(&self) -> u8 {
        self.0.keys().fold(0, |mask, (_, severity)| mask | 1 << severity)
    }

    /// Minute (as its start in nanoseconds), severity, lines.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (UnixNs, Severity, u64)> {
        self.0.iter().map(|((minute, severity), lines)| {
            (minute.saturating_mul(MINUTE_NS), SEVERITIES.get(usize::from(*severity)).copied().unwrap_or_default(), *lines)
        })
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, Bad> {
        let mut out = Vec::with_capacity(self.0.len() * 4 + 8);
        put(&mut out, self.0.len() as u64);
        let mut before = 0;
        for ((minute, severity), lines) in &self.0 {
            put_signed(&mut out, minute - before);
            out.push(*severity);
            put(&mut out, *lines);
            before = *minute;
        }
        frame::pack(&out, 1)
    }

    pub(crate) fn decode(packed: &[u8]) -> Result<Self, Bad> {
        let raw = frame::unpack(packed)?;
        let mut from = Reader(&raw);
        let mut minute = 0i64;
        let mut counts = BTreeMap::new();
        for _ in 0..from.get()? {
            minute = minute.checked_add(from.get_signed()?).ok_or(Bad("a minute is out of range"))?;
            let severity = from.bytes(1)?.first().copied().filter(|code| usize::from(*code) < SEVERITIES.len());
            counts.insert((minute, severity.ok_or(Bad("a severity is not known"))?), from.get()?);
        }
        if from.0.is_empty() { Ok(Self(counts)) } else { Err(Bad("there is more than the counts")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_counted_by_minute_and_severity() {
        let minute = MINUTE_NS;
        let counts = Counts::of([(5 * minute, Severity::Info), (6 * minute - 1, Severity::Info), (-1, Severity::Fatal)].into_iter());
        assert_eq!(counts.iter().collect::<Vec<_>>(), [(-minute, Severity::Fatal, 1), (5 * minute, Severity::Info, 2)]);
        assert_eq!(counts.severities(), 0b100_1000);
    }

    proptest! {
        #[test]
        fn counts_come_back(lines in prop::collection::vec((any::<i64>(), 0usize..7), 0..50)) {
            let counts = Counts::of(lines.into_iter().map(|(ts, severity)| (ts, SEVERITIES[severity])));
            prop_assert_eq!(Counts::decode(&counts.encode().unwrap()).unwrap(), counts);
        }

        #[test]
        fn any_bytes_are_read_or_refused(raw in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Counts::decode(&frame::pack(&raw, 0).unwrap());
        }
    }
}
