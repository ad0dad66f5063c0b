//! The one thread that writes.
//!
//! # Invariants
//! - All that waits when a transaction begins goes into it together (bounded), and each caller is answered after the commit.
//!   When the transaction fails, nothing of it is applied and every caller in it is told.
//! - What a sender repeats is dropped: a sequence at or below its lane's mark, a line at or below its file's position.
//! - The thread ends when the last sender is dropped. Memory: one group, and the counters of the streams in the head.

use super::{
    Append, Outcome, Shared,
    block::Origin,
    day::{self, Day},
    head::{Head, NewRow, Pending, Tally, signed, unsigned},
    recover,
    retention::Rules,
    screen::{by_day, rows, screen},
    seal::{self, Sealed, Shape},
};
use crate::{
    error::{Error, Result},
    tail::{Committed, Publisher},
};
use rusqlite::Connection;
use shipwatch_common::{
    model::LogBatch,
    time::{UnixMs, UnixNs},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
};

/// Lines that one transaction takes from waiting callers.
const GROUP_LINES: usize = 100_000;
/// Rows of one stream in the head above which it is sealed, however small they are.
const STREAM_ROWS: u64 = 4096;
/// Blocks' worth of text of one stream in the head above which it is sealed.
const STREAM_BLOCKS: u64 = 4;
/// Day files held open for writing.
const OPEN_DAYS: usize = 4;

/// Where an answer goes.
pub(crate) type Reply<T> = SyncSender<Result<T>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Append { appends: Vec<Append>, reply: Reply<Vec<Outcome>> },
    Seal { now_ms: UnixMs, reply: Reply<Sealed> },
    Retain { now_ms: UnixMs, keep_days: u32, reply: Reply<Retained> },
    Work(Work),
}

/// A piece of rarer work, done between two other commands.
pub(crate) struct Work(pub(crate) Box<dyn FnOnce(&mut Writer) + Send>);

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}

/// What retention did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Retained {
    /// Days whose file was deleted, as `YYYY-MM-DD`.
    pub days: Vec<String>,
    /// Bytes given back to the file system.
    pub bytes: u64,
    /// Blocks deleted from days that stay.
    pub blocks: u64,
    /// Lines of these days and blocks.
    pub lines: u64,
    /// Lines in the head whose time was past.
    pub head_lines: u64,
    /// Lanes and files that were forgotten because nothing came for long.
    pub forgotten: usize,
}

/// The state of the writer's thread.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) head: Head,
    pub(crate) shared: Arc<Shared>,
    pub(crate) publisher: Publisher,
    pub(super) rules: Rules,
    pub(super) days: BTreeMap<Day, Connection>,
    pub(super) pending: HashMap<(Day, String), Pending>,
    pending_bytes: u64,
    /// A seal failed: no more by itself until the owner's next call succeeds, or each append would try again.
    seal_failed: bool,
}

/// What a group of appends became, before it is committed.
#[derive(Debug, Default)]
struct Applied {
    rows: Vec<(Day, String, u64)>,
    committed: Vec<Committed>,
    tally: Tally,
}

impl Writer {
    pub(crate) fn new(head: Head, shared: Arc<Shared>, publisher: Publisher) -> Result<Self> {
        let pending = head.pending()?;
        let pending_bytes = pending.values().map(|stream| stream.raw_bytes).sum();
        let rules = Rules::new(&shared.config)?;
        Ok(Self { head, shared, publisher, rules, days: BTreeMap::new(), pending, pending_bytes, seal_failed: false })
    }

    /// Works until no sender is left.
    pub(crate) fn run(mut self, commands: &Receiver<Command>) {
        let mut next = commands.recv().ok();
        while let Some(command) = next.take() {
            // A caller that is gone does not want its answer.
            match command {
                Command::Append { appends, reply } => next = self.group(appends, reply, commands),
                Command::Seal { now_ms, reply } => drop(reply.send(self.seal(now_ms))),
                Command::Retain { now_ms, keep_days, reply } => drop(reply.send(self.retain(now_ms, keep_days))),
                Command::Work(Work(work)) => work(&mut self),
            }
            next = next.or_else(|| commands.recv().ok());
        }
    }

    /// Commits this append with those that wait. Returns the first waiting command of another kind.
    fn group(&mut self, first: Vec<Append>, reply: Reply<Vec<Outcome>>, commands: &Receiver<Command>) -> Option<Command> {
        let lines = |appends: &[Append]| appends.iter().flat_map(|append| &append.batches).map(|batch| batch.lines.len()).sum::<usize>();
        let mut count = lines(&first);
        let (mut group, mut replies, mut other) = (vec![first], vec![reply], None);
        while count < GROUP_LINES {
            match commands.try_recv() {
                Ok(Command::Append { appends, reply }) => {
                    count += lines(&appends);
                    group.push(appends);
                    replies.push(reply);
                }
                Ok(command) => {
                    other = Some(command);
                    break;
                }
                Err(_) => break,
            }
        }
        let sizes: Vec<usize> = group.iter().map(Vec::len).collect();
        match self.commit(group.into_iter().flatten()) {
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                for (reply, size) in replies.into_iter().zip(sizes) {
                    drop(reply.send(Ok(outcomes.by_ref().take(size).collect())));
                }
            }
            Err(error) => replies.into_iter().for_each(|reply| drop(reply.send(Err(error.clone())))),
        }
        other
    }

    fn commit(&mut self, appends: impl Iterator<Item = Append>) -> Result<Vec<Outcome>> {
        let now_ns = shipwatch_common::time::now_ns();
        let mut applied = Applied::default();
        self.run_sql("BEGIN IMMEDIATE")?;
        let result = appends
            .map(|append| self.apply(append, now_ns, &mut applied))
            .collect::<Result<Vec<_>>>()
            .and_then(|outcomes| self.head.add(&applied.tally).map(|()| outcomes))
            .and_then(|outcomes| self.run_sql("COMMIT").map(|()| outcomes));
        let outcomes = match result {
            Ok(outcomes) => outcomes,
            Err(error) => {
                self.rollback();
                return Err(error);
            }
        };
        let mut large = Vec::new();
        for (day, labels, bytes) in applied.rows {
            self.pending_bytes += bytes;
            let stream = self.pending.entry((day, labels.clone())).or_default();
            stream.raw_bytes += bytes;
            stream.rows += 1;
            if stream.rows >= STREAM_ROWS || stream.raw_bytes >= self.shared.config.block_bytes.saturating_mul(STREAM_BLOCKS) {
                large.push((day, labels));
            }
        }
        self.publisher.publish(applied.committed);
        self.relieve(large);
        Ok(outcomes)
    }

    pub(super) fn run_sql(&self, sql: &str) -> Result<()> {
        self.head.conn.execute_batch(sql).map_err(self.head.error())
    }

    /// SQLite may have rolled back by itself already.
    pub(super) fn rollback(&self) {
        if !self.head.conn.is_autocommit()
            && let Err(error) = self.run_sql("ROLLBACK")
        {
            tracing::error!(%error, "could not roll back");
        }
    }

    fn apply(&self, append: Append, now_ns: UnixNs, applied: &mut Applied) -> Result<Outcome> {
        let seq = signed(append.seq);
        if !append.source.is_empty() && self.head.mark(&append.source)?.is_some_and(|mark| seq <= mark) {
            applied.tally.duplicate_appends += 1;
            applied.tally.duplicate_lines += append.batches.iter().map(|batch| batch.lines.len() as u64).sum::<u64>();
            return Ok(Outcome { duplicate: true, ..Outcome::default() });
        }
        let agent: Arc<str> = append.agent.into();
        let mut outcome = Outcome::default();
        for batch in append.batches {
            self.apply_batch(&agent, batch, now_ns, &mut outcome, applied)?;
        }
        if !append.source.is_empty() {
            self.head.set_mark(&append.source, seq)?;
        }
        applied.tally.duplicate_lines += outcome.duplicate_lines;
        applied.tally.cut_lines += outcome.cut_lines;
        applied.tally.redated_lines += outcome.redated_lines;
        Ok(outcome)
    }

    fn apply_batch(&self, agent: &Arc<str>, batch: LogBatch, now_ns: UnixNs, outcome: &mut Outcome, applied: &mut Applied) -> Result<()> {
        let origin = Origin { agent: Arc::clone(agent), file: batch.file };
        let tracked = batch.file.0 != 0;
        let position = if tracked { self.head.position(&origin)?.map(unsigned) } else { None };
        let (lines, reached) = screen(batch.lines, tracked, position, now_ns, &self.shared.config, outcome);
        if let Some(reached) = reached.filter(|reached| position != Some(*reached)) {
            self.head.set_position(&origin, signed(reached))?;
        }
        let labels = Arc::new(batch.labels);
        let text = serde_json::to_string(&*labels).map_err(|error| Error::Invalid(format!("labels {labels}: {error}")))?;
        for (day, lines) in by_day(lines) {
            for lines in rows(lines) {
                let (id, bytes) = self.head.insert(&NewRow { day, labels: &text, origin: &origin, lines: &lines })?;
                applied.rows.push((day, text.clone(), bytes));
                if self.publisher.is_wanted() {
                    applied.committed.push(Committed { labels: Arc::clone(&labels), batch: id, origin: origin.clone(), lines });
                }
            }
        }
        Ok(())
    }

    /// Seals what is too large for the head, after a commit.
    fn relieve(&mut self, mut due: Vec<(Day, String)>) {
        if self.seal_failed {
            return;
        }
        if self.pending_bytes > self.shared.config.head_bytes {
            let mut all: Vec<_> = self.pending.iter().map(|(key, stream)| (stream.raw_bytes, key)).collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            let mut left = self.pending_bytes;
            for (bytes, key) in all {
                if left <= self.shared.config.head_bytes / 2 {
                    break;
                }
                left = left.saturating_sub(bytes);
                due.push(key.clone());
            }
        }
        if let Err(error) = self.seal_streams(due) {
            tracing::warn!(%error, "could not seal log blocks; they stay in the head");
            self.seal_failed = true;
        }
    }

    /// Seals what is old or large enough.
    fn seal(&mut self, now_ms: UnixMs) -> Result<Sealed> {
        let after_ms = i64::try_from(self.shared.config.seal_after.as_millis()).unwrap_or(i64::MAX);
        let mut due = Vec::new();
        for (key, stream) in &mut self.pending {
            // A clock that went back starts the time anew.
            let seen = stream.seen_ms.filter(|seen| *seen <= now_ms).unwrap_or(now_ms);
            stream.seen_ms = Some(seen);
            if now_ms - seen >= after_ms || stream.raw_bytes >= self.shared.config.block_bytes {
                due.push(key.clone());
            }
        }
        let sealed = self.seal_streams(due)?;
        self.seal_failed = false;
        Ok(sealed)
    }

    /// Seals all that waits.
    pub(super) fn seal_all(&mut self) -> Result<Sealed> {
        self.seal_streams(self.pending.keys().cloned().collect())
    }

    fn seal_streams(&mut self, mut due: Vec<(Day, String)>) -> Result<Sealed> {
        due.sort_unstable();
        due.dedup();
        let mut all = Sealed::default();
        for streams in due.chunk_by(|a, b| a.0 == b.0) {
            let Some((day, _)) = streams.first() else { continue };
            let labels: Vec<String> = streams.iter().map(|(_, labels)| labels.clone()).collect();
            let sealed = match self.seal_day(*day, &labels) {
                Err(error) if error.is_corrupt() => {
                    self.set_aside(*day, &error)?;
                    self.seal_day(*day, &labels)?
                }
                result => result?,
            };
            all.streams += sealed.streams;
            all.blocks += sealed.blocks;
            all.lines += sealed.lines;
            all.lost_lines += sealed.lost_lines;
        }
        Ok(all)
    }

    fn seal_day(&mut self, day: Day, streams: &[String]) -> Result<Sealed> {
        let path = day.path(&self.shared.dir);
        let shape = Shape { block_bytes: self.shared.config.block_bytes, zstd_level: self.shared.config.zstd_level };
        self.open_day(day)?;
        let Some(conn) = self.days.get_mut(&day) else { return Err(Error::Closed) };
        let (sealed, marks) = seal::seal_day(&self.head, conn, &path, day, streams, shape)?;
        self.run_sql("BEGIN IMMEDIATE")?;
        let cleaned = marks
            .iter()
            .try_for_each(|(labels, upto)| self.head.delete_sealed(day, labels, *upto).map(drop))
            .and_then(|()| self.run_sql("COMMIT"));
        if let Err(error) = cleaned {
            self.rollback();
            return Err(error);
        }
        for labels in streams {
            if let Some(stream) = self.pending.remove(&(day, labels.clone())) {
                self.pending_bytes = self.pending_bytes.saturating_sub(stream.raw_bytes);
            }
        }
        Ok(sealed)
    }

    /// The file's day is announced before its first commit, so that no query misses what leaves the head.
    pub(super) fn open_day(&mut self, day: Day) -> Result<()> {
        if self.days.contains_key(&day) {
            return Ok(());
        }
        while self.days.len() >= OPEN_DAYS {
            self.days.pop_first();
        }
        let conn = day::open(&day.path(&self.shared.dir))?;
        self.shared.days_mut().insert(day);
        self.days.insert(day, conn);
        Ok(())
    }

    /// Moves a damaged day's file away so that the day can go on.
    fn set_aside(&mut self, day: Day, error: &Error) -> Result<()> {
        self.days.remove(&day);
        let damage = recover::set_aside(&day.path(&self.shared.dir), error.to_string())?;
        self.shared.days_mut().remove(&day);
        tracing::error!(
            path = damage.path,
            moved_to = damage.moved_to,
            what = damage.what,
            "a day's log file was damaged and is moved aside"
        );
        self.shared.damage_mut().push(damage);
        Ok(())
    }

    /// A day's file, open.
    pub(super) fn day(&mut self, day: Day) -> Result<&Connection> {
        self.open_day(day)?;
        self.days.get(&day).ok_or(Error::Closed)
    }

    /// Counts again what waits of some streams.
    pub(super) fn count_pending(&mut self, keys: &[(Day, String)]) -> Result<()> {
        for key in keys {
            let (raw_bytes, rows) = self.head.waiting(key.0, &key.1)?;
            match self.pending.get_mut(key) {
                Some(stream) if rows > 0 => (stream.raw_bytes, stream.rows) = (raw_bytes, rows),
                _ => drop(self.pending.remove(key)),
            }
        }
        self.pending_bytes = self.pending.values().map(|stream| stream.raw_bytes).sum();
        Ok(())
    }
}
