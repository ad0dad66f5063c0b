//! The writer: one thread that owns the connection to `head.db`.
//!
//! Appends that wait together are committed together. The order is always: plan, commit, apply to the head, answer.
//!
//! # Invariants
//! - One transaction holds the new series, the frames and the marks of a group: after a crash all of it is there or none.
//! - Only this thread changes the head, and it answers after the commit.
//! - It ends when the last sender is dropped, after what was sent has been done.

use super::{
    Append, Outcome,
    day::DAY_MS,
    frames::{self, Frame},
    head::{Generation, Head},
    read_lock, sqlite, write_lock,
};
use crate::{config::Config, error::Error};
use rusqlite::{Connection, params};
use shipwatch_common::{model::Labels, time::UnixMs};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender},
    },
};
use tracing::{debug, error};

/// Most samples that are committed together; bounds memory and the time that one append can wait for others.
const GROUP_SAMPLES: usize = 500_000;

/// Where an answer goes. The receiver may have given up: then nobody needs it.
pub(crate) type Reply<T> = SyncSender<Result<T, Error>>;

pub(crate) enum Message {
    Append { now_ms: UnixMs, batches: Vec<Append>, reply: Reply<Vec<Outcome>> },
    BeginSeal { cutoff: i64, reply: Reply<SealPlan> },
    EndSeal { cutoff: i64, last_frame: i64, reply: Reply<()> },
}

/// What a seal has to write.
pub(crate) struct SealPlan {
    /// Everything before it is in the generations; not before the one that was asked for.
    pub(crate) cutoff: i64,
    /// Frames up to this one are in the generations.
    pub(crate) last_frame: i64,
    pub(crate) generations: Vec<Arc<Generation>>,
}

/// Totals since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appended: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) refused_full: AtomicU64,
    pub(crate) refused_old: AtomicU64,
    pub(crate) refused_ahead: AtomicU64,
    pub(crate) refused_unnamed: AtomicU64,
    pub(crate) damaged_chunks: AtomicU64,
    pub(crate) damaged_files: AtomicU64,
}

/// Refused samples of one group.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    full: u64,
    old: u64,
    ahead: u64,
    unnamed: u64,
}

impl Refused {
    const fn total(&self) -> u64 {
        self.full + self.old + self.ahead + self.unnamed
    }
}

enum Target {
    Known { slot: u32, id: i64 },
    New(usize),
}

/// What one transaction will do. Made without touching anything.
#[derive(Default)]
struct Plan {
    samples: Vec<(Target, i64, f64)>,
    new_series: Vec<Arc<Labels>>,
    new_by_labels: HashMap<Arc<Labels>, usize>,
    /// Labels that a sender keeps, of series that the head knows under other copies.
    shared: Vec<(u32, Arc<Labels>)>,
    marks: HashMap<String, u64>,
    duplicates: u64,
    refused: Refused,
}

struct Job {
    now_ms: UnixMs,
    batches: Vec<Append>,
    reply: Reply<Vec<Outcome>>,
}

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    pub(crate) config: Config,
    pub(crate) head: Arc<RwLock<Head>>,
    pub(crate) marks: Arc<Mutex<HashMap<String, u64>>>,
    pub(crate) counters: Arc<Counters>,
}

impl Writer {
    /// Works until every sender is gone.
    pub(crate) fn run(mut self, messages: &Receiver<Message>) {
        let mut next = None;
        while let Some(message) = next.take().or_else(|| messages.recv().ok()) {
            match message {
                Message::Append { now_ms, batches, reply } => {
                    let mut group = vec![Job { now_ms, batches, reply }];
                    next = Self::gather(messages, &mut group);
                    self.append(group);
                }
                Message::BeginSeal { cutoff, reply } => drop(reply.send(self.begin_seal(cutoff))),
                Message::EndSeal { cutoff, last_frame, reply } => drop(reply.send(self.end_seal(cutoff, last_frame))),
            }
        }
        debug!(path = %self.path.display(), "series writer ended");
    }

    /// Takes the appends that wait; gives back the first message that is something else.
    fn gather(messages: &Receiver<Message>, group: &mut Vec<Job>) -> Option<Message> {
        let size = |batches: &[Append]| batches.iter().map(|batch| batch.samples.len()).sum::<usize>();
        let mut samples = size(&group[0].batches);
        while samples < GROUP_SAMPLES {
            match messages.try_recv() {
                Ok(Message::Append { now_ms, batches, reply }) => {
                    samples += size(&batches);
                    group.push(Job { now_ms, batches, reply });
                }
                Ok(other) => return Some(other),
                Err(_) => return None,
            }
        }
        None
    }

    fn append(&mut self, group: Vec<Job>) {
        let mut plan = Plan::default();
        let mut answers = Vec::with_capacity(group.len());
        for job in group {
            let outcomes = self.plan(&mut plan, job.now_ms, job.batches);
            answers.push((job.reply, outcomes));
        }
        let done = self.commit(&plan).map(|ids| self.apply(plan, &ids));
        if let Err(error) = &done {
            error!(%error, "could not store samples");
        }
        for (reply, outcomes) in answers {
            // A caller that does not wait any more will send again, and the mark will tell.
            drop(reply.send(done.clone().map(|()| outcomes)));
        }
    }

    fn plan(&self, plan: &mut Plan, now_ms: UnixMs, batches: Vec<Append>) -> Vec<Outcome> {
        let oldest = now_ms.saturating_sub(i64::from(self.config.retention_days) * DAY_MS);
        let newest = now_ms.saturating_add(self.config.max_ahead.as_millis() as i64);
        let head = read_lock(&self.head);
        let marks = self.marks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut outcomes = Vec::with_capacity(batches.len());
        for batch in batches {
            if !batch.source.is_empty() {
                let mark = plan.marks.get(&batch.source).or_else(|| marks.get(&batch.source));
                if mark.is_some_and(|mark| batch.seq <= *mark) {
                    plan.duplicates += 1;
                    outcomes.push(Outcome::Duplicate);
                    continue;
                }
                plan.marks.insert(batch.source, batch.seq);
            }
            let (before, refused_before) = (plan.samples.len(), plan.refused.total());
            for sample in &*batch.samples {
                let refused = &mut plan.refused;
                if sample.ts_ms < oldest {
                    refused.old += 1;
                } else if sample.ts_ms > newest {
                    refused.ahead += 1;
                } else if sample.labels.is_empty() {
                    refused.unnamed += 1;
                } else {
                    match Self::target(plan, &head, &sample.labels, self.config.max_head_series) {
                        Some(target) => plan.samples.push((target, sample.ts_ms, sample.value)),
                        None => plan.refused.full += 1,
                    }
                }
            }
            let samples = (plan.samples.len() - before) as u64;
            outcomes.push(Outcome::Stored { samples, refused: plan.refused.total() - refused_before });
        }
        outcomes
    }

    fn target(plan: &mut Plan, head: &Head, labels: &Arc<Labels>, max_series: u32) -> Option<Target> {
        if let Some(found) = head.find(labels) {
            // Somebody else holds them as well: they will come again.
            if !found.shared && Arc::strong_count(labels) > 1 {
                plan.shared.push((found.slot, labels.clone()));
            }
            return Some(Target::Known { slot: found.slot, id: found.id });
        }
        if let Some(at) = plan.new_by_labels.get(labels) {
            return Some(Target::New(*at));
        }
        if head.series_count() + plan.new_series.len() >= max_series as usize {
            return None;
        }
        let at = plan.new_series.len();
        plan.new_series.push(labels.clone());
        plan.new_by_labels.insert(labels.clone(), at);
        Some(Target::New(at))
    }

    /// Puts the plan on disk; the ids of the new series come back.
    fn commit(&mut self, plan: &Plan) -> Result<Vec<i64>, Error> {
        if plan.samples.is_empty() && plan.marks.is_empty() {
            return Ok(Vec::new());
        }
        let path = &self.path;
        let wrong = |e: rusqlite::Error| sqlite::error("write", path, &e);
        let transaction = self.connection.transaction().map_err(wrong)?;
        let mut ids = Vec::with_capacity(plan.new_series.len());
        {
            let mut add_series = transaction.prepare("INSERT INTO series(labels) VALUES (?1)").map_err(wrong)?;
            for labels in &plan.new_series {
                ids.push(add_series.insert([frames::encode_labels(labels)]).map_err(wrong)?);
            }
            let mut add_frame = transaction.prepare("INSERT INTO frames(t0, t1, payload) VALUES (?1, ?2, ?3)").map_err(wrong)?;
            for samples in plan.samples.chunks(frames::MAX_SAMPLES) {
                let mut frame = Frame::default();
                for (target, ts, value) in samples {
                    let id = match target {
                        Target::Known { id, .. } => *id,
                        Target::New(at) => ids[*at],
                    };
                    frame.push(id, *ts, *value);
                }
                let (t0, t1) = frame.range();
                let payload = frame.encode().map_err(|e| Error::io("compress for", path, &e))?;
                add_frame.execute(params![t0, t1, payload]).map_err(wrong)?;
            }
            let mut set_mark = transaction.prepare("INSERT OR REPLACE INTO marks(source, seq) VALUES (?1, ?2)").map_err(wrong)?;
            for (source, seq) in &plan.marks {
                set_mark.execute(params![source, seq.cast_signed()]).map_err(wrong)?;
            }
        }
        transaction.commit().map_err(wrong)?;
        Ok(ids)
    }

    /// Brings the head, the marks and the totals to what is on disk.
    fn apply(&self, plan: Plan, ids: &[i64]) {
        let count = |counter: &AtomicU64, by: u64| {
            counter.fetch_add(by, Relaxed);
        };
        count(&self.counters.appended, plan.samples.len() as u64);
        count(&self.counters.duplicates, plan.duplicates);
        count(&self.counters.refused_full, plan.refused.full);
        count(&self.counters.refused_old, plan.refused.old);
        count(&self.counters.refused_ahead, plan.refused.ahead);
        count(&self.counters.refused_unnamed, plan.refused.unnamed);
        self.marks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(plan.marks);
        let mut head = write_lock(&self.head);
        let slots: Vec<u32> = plan.new_series.into_iter().zip(ids).map(|(labels, id)| head.add_series(*id, labels)).collect();
        for (slot, labels) in plan.shared {
            head.share(slot, labels);
        }
        for (target, ts, value) in plan.samples {
            let slot = match target {
                Target::Known { slot, .. } => slot,
                Target::New(at) => slots[at],
            };
            head.push(slot, ts, value);
        }
    }

    fn begin_seal(&self, cutoff: i64) -> Result<SealPlan, Error> {
        let sql = "SELECT coalesce(max(id), 0) FROM frames";
        let last_frame = self.connection.query_row(sql, [], |row| row.get(0)).map_err(|e| sqlite::error("read", &self.path, &e))?;
        let mut head = write_lock(&self.head);
        let cutoff = head.begin_seal(cutoff);
        Ok(SealPlan { cutoff, last_frame, generations: head.generations() })
    }

    /// Forgets what is in day files: first on disk, then in memory.
    fn end_seal(&mut self, cutoff: i64, last_frame: i64) -> Result<(), Error> {
        let wrong = |e: rusqlite::Error| sqlite::error("write", &self.path, &e);
        let idle = read_lock(&self.head).idle();
        let transaction = self.connection.transaction().map_err(wrong)?;
        transaction.execute("DELETE FROM frames WHERE t1 < ?1 AND id <= ?2", params![cutoff, last_frame]).map_err(wrong)?;
        let mark = "UPDATE frames SET sealed_before = ?1 WHERE t1 >= ?1 AND t0 < ?1 AND id <= ?2 AND sealed_before < ?1";
        transaction.execute(mark, params![cutoff, last_frame]).map_err(wrong)?;
        {
            let mut forget = transaction.prepare("DELETE FROM series WHERE id = ?1").map_err(wrong)?;
            for (_, id) in &idle {
                forget.execute([id]).map_err(wrong)?;
            }
        }
        transaction.commit().map_err(wrong)?;
        write_lock(&self.head).end_seal(&idle);
        Ok(())
    }
}
