//! How long lines are kept: by stream, by age and by size.
//!
//! The plan is pure: from what each day has of each stream, it says which days go as a whole and what is cut from the others. Deleting
//! a file comes first: it needs no room on the disk. Blocks of days that stay are deleted in one transaction per day, and the file
//! shrinks.
//!
//! # Invariants
//! - A line younger than its rule's `max_age` is only deleted for a size bound, the oldest blocks first.
//! - A day's file stays while a stream in it has lines to keep. The marks of streams in it stay with it: a row that a seal left in the
//!   head is never stored again.
//! - A block goes when its youngest line is past its time, so lines stay up to a block's length longer.
//! - A crash leaves deleted what was deleted; the next call goes on.

use super::{
    day::Day,
    head::unsigned,
    recover,
    writer::{Retained, Writer},
};
use crate::{
    Config,
    error::{Error, Result},
    query::Query,
};
use rusqlite::{Connection, params};
use shipwatch_common::{
    model::Labels,
    time::{UnixMs, UnixNs},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// A rule, ready for use.
#[derive(Debug)]
struct Rule {
    query: Query,
    /// `None` keeps for ever.
    age_ns: Option<i64>,
    max_bytes: u64,
}

/// The rules in their order.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let rule = |rule: &crate::config::Retention| -> Result<Rule> {
            let age_ns = rule.max_age.0.map(|age| i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
            Ok(Rule { query: rule.query()?, age_ns, max_bytes: rule.max_bytes })
        };
        config.retention.iter().map(rule).collect::<Result<_>>().map(Self)
    }

    /// The first rule that a stream meets.
    fn of(&self, labels: &str) -> Option<usize> {
        let labels: Labels = serde_json::from_str(labels).ok()?;
        self.0.iter().position(|rule| rule.query.matchers().iter().all(|matcher| matcher.matches(&labels)))
    }

    /// What goes of a stream's lines of one day for their age. `first` is the first day that streams without a rule keep.
    fn by_age(&self, rule: Option<usize>, day: Day, first: Day, now_ns: UnixNs) -> Cut {
        let Some(rule) = rule.and_then(|at| self.0.get(at)) else { return if day < first { Cut::All } else { Cut::Nothing } };
        let Some(age_ns) = rule.age_ns else { return Cut::Nothing };
        let before = now_ns.saturating_sub(age_ns);
        if day.last_ns() < before {
            Cut::All
        } else if day.start_ns() < before {
            Cut::Before(before)
        } else {
            Cut::Nothing
        }
    }
}

/// What goes of a stream's lines of one day.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cut {
    Nothing,
    /// Blocks whose lines are all older.
    Before(UnixNs),
    All,
}

impl Cut {
    /// Blocks end before this time.
    const fn before(self) -> UnixNs {
        match self {
            Self::Nothing => i64::MIN,
            Self::Before(before) => before,
            Self::All => i64::MAX,
        }
    }
}

/// What a day's file has of a stream.
#[derive(Clone, Debug)]
struct Part {
    stream: i64,
    rule: Option<usize>,
    stored: u64,
    cut: Cut,
}

/// Sizes of one rule by day, the oldest first, that are above the bound: the days that go, and how much of the day after them.
fn over(sizes: &[(Day, u64)], max_bytes: u64) -> (Vec<Day>, Option<(Day, u64)>) {
    let total: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
    let mut excess = if max_bytes == 0 { 0 } else { total.saturating_sub(max_bytes) };
    let mut whole = Vec::new();
    for (day, bytes) in sizes {
        if excess == 0 {
            break;
        }
        if *bytes > excess {
            return (whole, Some((*day, excess)));
        }
        excess -= bytes;
        whole.push(*day);
    }
    (whole, None)
}

/// From blocks as (last time, size), the time before which as many end as are needed to free `excess`.
fn edge(mut blocks: Vec<(UnixNs, u64)>, excess: u64) -> UnixNs {
    blocks.sort_unstable();
    let mut freed = 0;
    for (t1, bytes) in blocks {
        freed += bytes;
        if freed >= excess {
            return t1.saturating_add(1);
        }
    }
    i64::MAX
}

impl Writer {
    pub(super) fn retain(&mut self, now_ms: UnixMs, keep_days: u32) -> Result<Retained> {
        let now_ns = now_ms.saturating_mul(1_000_000);
        let today = Day::of(now_ns);
        let first = Day(today.0.saturating_sub(i32::try_from(keep_days).unwrap_or(i32::MAX)));
        let mut done = Retained::default();
        let mut days = if self.rules.0.is_empty() { BTreeMap::new() } else { self.parts(first, now_ns)? };
        self.cut_by_size(&mut days)?;
        let emptied = |day: &Day| match days.get(day) {
            Some(parts) => !parts.is_empty() && parts.iter().all(|part| part.cut == Cut::All),
            None => self.rules.0.is_empty() && *day < first,
        };
        let gone: BTreeSet<Day> = self.shared.days().iter().copied().filter(emptied).collect();
        self.unlink(&gone, &mut done)?;
        self.unlink_oldest(today, &mut done)?;
        for (day, parts) in days {
            let stays = self.shared.days().contains(&day);
            if stays && parts.iter().any(|part| part.cut != Cut::Nothing) {
                self.drop_blocks(day, &parts, &mut done)?;
            }
        }
        self.retain_head(first, now_ms, &mut done)?;
        Ok(done)
    }

    /// What each day has, cut by age.
    fn parts(&mut self, first: Day, now_ns: UnixNs) -> Result<BTreeMap<Day, Vec<Part>>> {
        let days: Vec<Day> = self.shared.days().iter().copied().collect();
        let mut all = BTreeMap::new();
        for day in days {
            self.open_day(day)?;
            let Some(conn) = self.days.get(&day) else { continue };
            let path = day.path(&self.shared.dir);
            let sql = |error: rusqlite::Error| Error::sql(&path, &error);
            let mut statement = conn.prepare("SELECT id, labels, stored_bytes FROM streams WHERE blocks > 0").map_err(sql)?;
            let mut rows = statement.query([]).map_err(sql)?;
            let mut parts = Vec::new();
            while let Some(row) = rows.next().map_err(sql)? {
                let rule = self.rules.of(&row.get::<_, String>(1).map_err(sql)?);
                let stored = unsigned(row.get(2).map_err(sql)?);
                parts.push(Part { stream: row.get(0).map_err(sql)?, rule, stored, cut: self.rules.by_age(rule, day, first, now_ns) });
            }
            all.insert(day, parts);
        }
        Ok(all)
    }

    /// Cuts further where a rule's streams are larger than it allows.
    fn cut_by_size(&mut self, days: &mut BTreeMap<Day, Vec<Part>>) -> Result<()> {
        for at in 0..self.rules.0.len() {
            let max_bytes = self.rules.0.get(at).map_or(0, |rule| rule.max_bytes);
            if max_bytes == 0 {
                continue;
            }
            let of_rule = |part: &&Part| part.rule == Some(at) && part.cut != Cut::All;
            let size = |parts: &Vec<Part>| parts.iter().filter(of_rule).map(|part| part.stored).sum::<u64>();
            let sizes: Vec<(Day, u64)> = days.iter().map(|(day, parts)| (*day, size(parts))).filter(|(_, bytes)| *bytes > 0).collect();
            let (whole, rest) = over(&sizes, max_bytes);
            let of_whole = days.iter_mut().filter(|(day, _)| whole.contains(day)).flat_map(|(_, parts)| parts);
            of_whole.filter(|part| part.rule == Some(at)).for_each(|part| part.cut = Cut::All);
            if let Some((day, excess)) = rest {
                let streams: Vec<i64> = days.get(&day).into_iter().flatten().filter(of_rule).map(|part| part.stream).collect();
                let before = edge(self.block_sizes(day, &streams)?, excess);
                for part in days.get_mut(&day).into_iter().flatten().filter(|part| part.rule == Some(at) && part.cut != Cut::All) {
                    part.cut = Cut::Before(before.max(part.cut.before()));
                }
            }
        }
        Ok(())
    }

    fn block_sizes(&mut self, day: Day, streams: &[i64]) -> Result<Vec<(UnixNs, u64)>> {
        let path = day.path(&self.shared.dir);
        let sql = |error: rusqlite::Error| Error::sql(&path, &error);
        let conn = self.day(day)?;
        let mut statement =
            conn.prepare("SELECT t1, length(cols) + length(body) FROM blocks JOIN bodies ON block = id WHERE stream = ?1").map_err(sql)?;
        let mut all = Vec::new();
        for stream in streams {
            let rows = statement.query_map([stream], |row| Ok((row.get(0)?, unsigned(row.get(1)?)))).map_err(sql)?;
            for row in rows {
                all.push(row.map_err(sql)?);
            }
        }
        Ok(all)
    }

    fn unlink(&mut self, days: &BTreeSet<Day>, done: &mut Retained) -> Result<()> {
        for day in days {
            let path = day.path(&self.shared.dir);
            let lines: i64 = self
                .day(*day)?
                .query_row("SELECT coalesce(sum(lines), 0) FROM streams", [], |row| row.get(0))
                .map_err(|error| Error::sql(&path, &error))?;
            done.bytes += super::file_bytes(&path)?;
            self.days.remove(day);
            recover::remove(&path)?;
            self.shared.days_mut().remove(day);
            done.lines += unsigned(lines);
            done.days.push(day.to_string());
        }
        Ok(())
    }

    /// The bound of all files together: the oldest days, but never today.
    fn unlink_oldest(&mut self, today: Day, done: &mut Retained) -> Result<()> {
        if self.shared.config.max_bytes == 0 {
            return Ok(());
        }
        let mut sizes = Vec::new();
        for day in self.shared.days().iter().copied() {
            sizes.push((day, super::file_bytes(&day.path(&self.shared.dir))?));
        }
        let (whole, edge) = over(&sizes, self.shared.config.max_bytes);
        let gone = whole.into_iter().chain(edge.map(|(day, _)| day)).filter(|day| *day < today).collect();
        self.unlink(&gone, done)
    }

    /// Deletes blocks of a day that stays, in one transaction, and gives the room back.
    fn drop_blocks(&mut self, day: Day, parts: &[Part], done: &mut Retained) -> Result<()> {
        let path = day.path(&self.shared.dir);
        let sql = |error: rusqlite::Error| Error::sql(&path, &error);
        self.open_day(day)?;
        let Some(conn) = self.days.get_mut(&day) else { return Err(Error::Closed) };
        let before = super::file_bytes(&path)?;
        let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sql)?;
        let mut dropped = Dropped::default();
        for part in parts.iter().filter(|part| part.cut != Cut::Nothing) {
            dropped.add(drop_of(&transaction, part.stream, part.cut.before()).map_err(sql)?);
        }
        transaction.commit().map_err(sql)?;
        if dropped.blocks == 0 {
            return Ok(());
        }
        shrink(conn, &path)?;
        done.blocks += dropped.blocks;
        done.lines += dropped.lines;
        done.bytes += before.saturating_sub(super::file_bytes(&path)?);
        Ok(())
    }

    /// Deletes rows of the head whose time is past, and forgets senders.
    fn retain_head(&mut self, first: Day, now_ms: UnixMs, done: &mut Retained) -> Result<()> {
        let now_ns = now_ms.saturating_mul(1_000_000);
        let due: Vec<((Day, String), UnixNs)> = self
            .pending
            .keys()
            .map(|key| (key.clone(), self.rules.by_age(self.rules.of(&key.1), key.0, first, now_ns).before()))
            .filter(|(_, before)| *before > i64::MIN)
            .collect();
        self.run_sql("BEGIN IMMEDIATE")?;
        let result = self.drop_rows(&due, now_ms, done).and_then(|()| self.run_sql("COMMIT"));
        if let Err(error) = result {
            self.rollback();
            return Err(error);
        }
        let keys: Vec<_> = due.into_iter().map(|(key, _)| key).collect();
        self.count_pending(&keys)
    }

    fn drop_rows(&self, due: &[((Day, String), UnixNs)], now_ms: UnixMs, done: &mut Retained) -> Result<()> {
        let sql = self.head.error();
        for ((day, labels), before) in due {
            let values = params![day.0, labels, before];
            let lines: i64 = self
                .head
                .conn
                .query_row("SELECT coalesce(sum(n), 0) FROM batches WHERE day = ?1 AND labels = ?2 AND t1 < ?3", values, |row| row.get(0))
                .map_err(&sql)?;
            self.head.conn.execute("DELETE FROM batches WHERE day = ?1 AND labels = ?2 AND t1 < ?3", values).map_err(&sql)?;
            done.head_lines += unsigned(lines);
        }
        done.forgotten = self.head.forget(now_ms)?;
        let lines = done.lines + done.head_lines;
        self.head.add_named(&[("expired_lines", lines), ("expired_bytes", done.bytes), ("expired_blocks", done.blocks)])
    }
}

/// What was deleted of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Dropped {
    blocks: u64,
    lines: u64,
}

impl Dropped {
    const fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.lines += other.lines;
    }
}

/// Deletes the blocks of a stream that end before a time.
fn drop_of(conn: &Connection, stream: i64, before: UnixNs) -> rusqlite::Result<Dropped> {
    let these = "SELECT id FROM blocks WHERE stream = ?1 AND t1 < ?2";
    let values = params![stream, before];
    let (blocks, lines, raw, stored): (i64, i64, i64, i64) = conn.query_row(
        "SELECT count(*), coalesce(sum(n), 0), coalesce(sum(raw_bytes), 0),
         coalesce(sum((SELECT length(cols) + length(body) FROM bodies WHERE block = id) + length(counts)
         + coalesce((SELECT length(bits) FROM blooms WHERE block = id), 0)), 0)
         FROM blocks WHERE stream = ?1 AND t1 < ?2",
        values,
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    conn.execute(&format!("DELETE FROM bodies WHERE block IN ({these})"), values)?;
    conn.execute(&format!("DELETE FROM blooms WHERE block IN ({these})"), values)?;
    conn.execute("DELETE FROM blocks WHERE stream = ?1 AND t1 < ?2", values)?;
    conn.execute(
        "UPDATE streams SET blocks = blocks - ?2, lines = lines - ?3, raw_bytes = raw_bytes - ?4, stored_bytes = max(stored_bytes - ?5, 0)
         WHERE id = ?1",
        params![stream, blocks, lines, raw, stored],
    )?;
    Ok(Dropped { blocks: unsigned(blocks), lines: unsigned(lines) })
}

/// Gives free pages back to the file system. A file of format 1 cannot shrink in steps; it is written anew once.
pub(super) fn shrink(conn: &Connection, path: &Path) -> Result<()> {
    let sql = |error: rusqlite::Error| Error::sql(path, &error);
    let steps: i64 = conn.pragma_query_value(None, "auto_vacuum", |row| row.get(0)).map_err(sql)?;
    if steps == 2 {
        // Each step of the statement frees one page.
        let mut statement = conn.prepare("PRAGMA incremental_vacuum").map_err(sql)?;
        let mut rows = statement.query([]).map_err(sql)?;
        while rows.next().map_err(sql)?.is_some() {}
    } else {
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM").map_err(sql)?;
    }
    // A reader keeps its old pages in the journal; the next commit's checkpoint comes to them.
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(sql)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Age, Retention};
    use crate::store::day::DAY_NS;
    use std::time::Duration;

    fn rules() -> Rules {
        let rule = |selector: &str, days: Option<u64>| Retention {
            selector: selector.to_owned(),
            max_age: Age(days.map(|days| Duration::from_secs(days * 86_400))),
            max_bytes: 0,
        };
        let retention = vec![rule(r#"{app="audit"}"#, None), rule(r#"{app=~"ng.*"}"#, Some(2)), rule(r#"{env="dev"}"#, Some(1))];
        Rules::new(&Config { retention, ..Config::default() }).unwrap()
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = rules();
        for (labels, expected) in [
            (r#"{"app":"audit","env":"dev"}"#, Some(0)),
            (r#"{"app":"nginx","env":"dev"}"#, Some(1)),
            (r#"{"app":"shop","env":"dev"}"#, Some(2)),
            (r#"{"app":"shop"}"#, None),
            ("damaged", None),
        ] {
            assert_eq!(rules.of(labels), expected, "{labels}");
        }
        let now = 100 * DAY_NS + DAY_NS / 2;
        for (rule, day, expected) in [
            (None, 69, Cut::All),
            (None, 70, Cut::Nothing),
            (Some(0), 1, Cut::Nothing),
            (Some(1), 97, Cut::All),
            (Some(1), 98, Cut::Before(98 * DAY_NS + DAY_NS / 2)),
            (Some(1), 99, Cut::Nothing),
        ] {
            assert_eq!(rules.by_age(rule, Day(day), Day(70), now), expected, "{rule:?} {day}");
        }
    }

    #[test]
    fn the_oldest_go_first_for_their_size() {
        let sizes = [(Day(1), 10), (Day(2), 20), (Day(3), 30)];
        for (bound, whole, rest) in [
            (0, vec![], None),
            (60, vec![], None),
            (59, vec![], Some((Day(1), 1))),
            (50, vec![Day(1)], None),
            (45, vec![Day(1)], Some((Day(2), 5))),
            (1, vec![Day(1), Day(2)], Some((Day(3), 29))),
        ] {
            assert_eq!(over(&sizes, bound), (whole, rest), "{bound}");
        }
        assert_eq!(edge(vec![(30, 5), (10, 5), (20, 5)], 6), 21);
        assert_eq!(edge(vec![(10, 5)], 6), i64::MAX);
    }
}
