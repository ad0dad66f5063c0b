//! What is stored of a delivered batch, and in which rows. Pure: the time and the file's position are arguments.

use super::{Outcome, day::Day, head::raw_bytes};
use crate::Config;
use shipwatch_common::{model::LogLine, time::UnixNs};
use std::collections::BTreeMap;

/// Largest text of one row of the head.
const ROW_BYTES: usize = 4 << 20;
/// Most lines of one row of the head.
const ROW_LINES: usize = 1 << 16;

/// Drops what was stored before, and brings the rest within bounds. Returns the lines to store and the file's new position.
pub(crate) fn screen(
    lines: Vec<LogLine>,
    tracked: bool,
    position: Option<u64>,
    now_ns: UnixNs,
    config: &Config,
    outcome: &mut Outcome,
) -> (Vec<LogLine>, Option<u64>) {
    let nanos = |duration: std::time::Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let latest = now_ns.saturating_add(nanos(config.max_ahead));
    let earliest = if config.max_behind.is_zero() { i64::MIN } else { now_ns.saturating_sub(nanos(config.max_behind)) };
    let longest = usize::try_from(config.max_line_bytes).unwrap_or(usize::MAX);
    let mut reached = position;
    let mut kept = Vec::with_capacity(lines.len());
    for mut line in lines {
        if tracked && reached.is_some_and(|reached| line.end_offset <= reached) {
            outcome.duplicate_lines += 1;
            continue;
        }
        reached = Some(line.end_offset);
        if line.text.len() > longest {
            let cut = line.text.floor_char_boundary(longest);
            line.text.truncate(cut);
            line.truncated = true;
            outcome.cut_lines += 1;
        }
        if line.ts_ns > latest || line.ts_ns < earliest {
            line.ts_ns = now_ns;
            outcome.redated_lines += 1;
        }
        outcome.lines += 1;
        kept.push(line);
    }
    (kept, reached.filter(|_| tracked))
}

/// Lines by their UTC day, each in the given order.
pub(crate) fn by_day(lines: Vec<LogLine>) -> BTreeMap<Day, Vec<LogLine>> {
    let mut days: BTreeMap<Day, Vec<LogLine>> = BTreeMap::new();
    for line in lines {
        days.entry(Day::of(line.ts_ns)).or_default().push(line);
    }
    days
}

/// Cuts lines into rows of bounded size.
pub(crate) fn rows(lines: Vec<LogLine>) -> Vec<Vec<LogLine>> {
    let mut rows: Vec<Vec<LogLine>> = Vec::new();
    let mut bytes = 0;
    for line in lines {
        bytes += raw_bytes(line.text.len(), 1);
        match rows.last_mut() {
            Some(row) if bytes <= ROW_BYTES as u64 && row.len() < ROW_LINES => row.push(line),
            _ => {
                bytes = raw_bytes(line.text.len(), 1);
                rows.push(vec![line]);
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::day::DAY_NS;
    use shipwatch_common::model::Severity;

    fn line(ts_ns: i64, end_offset: u64, text: &str) -> LogLine {
        LogLine { ts_ns, end_offset, severity: Severity::Info, truncated: false, text: text.to_owned() }
    }

    #[test]
    fn lines_are_screened() {
        let day = DAY_NS;
        let now = 20_000 * day;
        let config = Config { max_line_bytes: 4, ..Config::default() };
        let given = vec![line(now, 5, "old"), line(now + 2 * day, 9, "ahead"), line(now - 91 * day, 9, "again"), line(now, 12, "é支付")];
        let mut outcome = Outcome::default();
        let (kept, reached) = screen(given.clone(), true, Some(5), now, &config, &mut outcome);
        assert_eq!(outcome, Outcome { duplicate: false, lines: 2, duplicate_lines: 2, cut_lines: 2, redated_lines: 1 });
        assert_eq!(reached, Some(12));
        let kept: Vec<_> = kept.iter().map(|line| (line.ts_ns, line.text.as_str(), line.truncated)).collect();
        assert_eq!(kept, [(now, "ahea", true), (now, "é", true)]);

        let mut outcome = Outcome::default();
        let (kept, reached) = screen(given, false, None, now, &Config { max_behind: std::time::Duration::ZERO, ..config }, &mut outcome);
        assert_eq!((kept.len(), reached, outcome.redated_lines), (4, None, 1));
    }

    #[test]
    fn rows_are_bounded() {
        let big = "x".repeat(ROW_BYTES / 2);
        let sizes = |lines| rows(lines).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![line(0, 1, &big), line(0, 2, "a"), line(0, 3, &big), line(0, 4, &big)]), [2, 1, 1]);
        assert_eq!(sizes((0..ROW_LINES as u64 + 1).map(|at| line(0, at, "")).collect()), [ROW_LINES, 1]);
        assert!(sizes(vec![]).is_empty());
    }

    #[test]
    fn lines_are_parted_by_day_in_order() {
        let days = by_day(vec![line(DAY_NS, 1, "b"), line(-1, 2, "a"), line(DAY_NS + 5, 3, "c")]);
        let shown: Vec<_> = days.iter().map(|(day, lines)| (day.0, lines.iter().map(|line| line.end_offset).collect::<Vec<_>>())).collect();
        assert_eq!(shown, [(-1, vec![2]), (1, vec![1, 3])]);
    }
}
