//! The writer: one thread that owns the connection to `head.db`.
//!
//! Appends that wait together are committed together. The order is always: plan, commit, apply to the head, answer.
//!
//! # Invariants
//! - One transaction holds the new series, the frames and the marks of a group: after a crash all of it is there or none.
//! - Only this thread changes the head, and it answers after the commit.
//! - It ends when the last sender is dropped, after what was sent has been done.

use super::{
    Append,
    admit::{Gate, NewByHost, Reason, Report},
    changes::Changes,
    checkpoint,
    frames::{self, Frame},
    head::{Generation, Head},
    lock, read_lock, sqlite, write_lock,
};
use crate::{config::Config, error::Error};
use foldhash::fast::RandomState;
use rusqlite::{Connection, params};
use shipwatch_common::{
    model::{Labels, Sample},
    time::UnixMs,
};
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
const GROUP_SAMPLES: usize = 131_072;

/// What became of each batch; nothing for one that had been applied before.
pub(crate) type Reports = Vec<Option<Report>>;

/// Where an answer goes. The receiver may have given up: then nobody needs it.
pub(crate) type Reply<T> = SyncSender<Result<T, Error>>;

pub(crate) enum Message {
    Append { now_ms: UnixMs, batches: Vec<Append>, strict: bool, reply: Reply<Reports> },
    BeginSeal { cutoff: i64, reply: Reply<SealPlan> },
    EndSeal { cutoff: i64, last_frame: i64, reply: Reply<()> },
    Save { from: i64, at_once: usize, reply: Reply<checkpoint::Step> },
    EndSave { saved: i64, reply: Reply<()> },
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
    refused: [AtomicU64; Reason::ALL.len()],
    pub(crate) expired_files: AtomicU64,
    pub(crate) expired_bytes: AtomicU64,
    pub(crate) expired_samples: AtomicU64,
    /// Samples in frames that no checkpoint has, about.
    pub(crate) unsaved: AtomicU64,
    pub(crate) damaged_chunks: AtomicU64,
    pub(crate) damaged_files: AtomicU64,
}

impl Counters {
    pub(crate) fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize].load(Relaxed)
    }
}

#[derive(Clone, Copy, Eq, Hash, PartialEq)]
enum Target {
    Known { slot: u32, id: i64 },
    New(usize),
}

enum Admitted {
    Take(Target),
    /// The very sample is there.
    Same,
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
    refused: [u64; Reason::ALL.len()],
    new_by_host: NewByHost,
    /// The newest time of series that have samples in this plan; kept only when it is asked for.
    newest: HashMap<Target, i64, RandomState>,
    /// Values of the first `indexed` samples, for the few that are not newer than their series.
    values: HashMap<(Target, i64), f64, RandomState>,
    indexed: usize,
    /// The number behind that of the last series that was found.
    likely: u32,
}

impl Plan {
    /// The value that this plan has at a time already.
    fn value(&mut self, target: Target, ts: i64) -> Option<f64> {
        self.values.extend(self.samples[self.indexed..].iter().map(|(target, ts, value)| ((*target, *ts), *value)));
        self.indexed = self.samples.len();
        self.values.get(&(target, ts)).copied()
    }
}

struct Job {
    now_ms: UnixMs,
    batches: Vec<Append>,
    strict: bool,
    reply: Reply<Reports>,
}

pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) path: PathBuf,
    pub(crate) config: Config,
    pub(crate) head: Arc<RwLock<Head>>,
    pub(crate) marks: Arc<Mutex<HashMap<String, u64>>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) changes: Arc<Mutex<Changes>>,
}

impl Writer {
    /// Works until every sender is gone.
    pub(crate) fn run(mut self, messages: &Receiver<Message>) {
        let mut next = None;
        while let Some(message) = next.take().or_else(|| messages.recv().ok()) {
            match message {
                Message::Append { now_ms, batches, strict, reply } => {
                    let mut group = vec![Job { now_ms, batches, strict, reply }];
                    next = Self::gather(messages, &mut group);
                    self.append(group);
                }
                Message::BeginSeal { cutoff, reply } => drop(reply.send(self.begin_seal(cutoff))),
                Message::EndSeal { cutoff, last_frame, reply } => drop(reply.send(self.end_seal(cutoff, last_frame))),
                Message::Save { from, at_once, reply } => drop(reply.send(self.save(from, at_once))),
                Message::EndSave { saved, reply } => drop(reply.send(self.end_save(saved))),
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
                Ok(Message::Append { now_ms, batches, strict, reply }) => {
                    samples += size(&batches);
                    group.push(Job { now_ms, batches, strict, reply });
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
            let reports = self.plan(&mut plan, job.now_ms, job.strict, job.batches);
            answers.push((job.reply, reports));
        }
        let done = self.commit(&plan).map(|ids| self.apply(plan, &ids));
        if let Err(error) = &done {
            error!(%error, "could not store samples");
        }
        for (reply, reports) in answers {
            // A caller that does not wait any more will send again, and the mark will tell.
            drop(reply.send(done.clone().map(|()| reports)));
        }
    }

    fn plan(&self, plan: &mut Plan, now_ms: UnixMs, strict: bool, batches: Vec<Append>) -> Reports {
        let gate = Gate::new(&self.config, now_ms);
        let head = read_lock(&self.head);
        let marks = self.marks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut reports = Vec::with_capacity(batches.len());
        for batch in batches {
            if !batch.source.is_empty() {
                let mark = plan.marks.get(&batch.source).or_else(|| marks.get(&batch.source));
                if mark.is_some_and(|mark| batch.seq <= *mark) {
                    plan.duplicates += 1;
                    reports.push(None);
                    continue;
                }
                plan.marks.insert(batch.source, batch.seq);
            }
            let mut report = Report::default();
            for sample in &*batch.samples {
                match self.admit(plan, &head, &gate, strict, sample) {
                    Ok(Admitted::Take(target)) => {
                        plan.samples.push((target, sample.ts_ms, sample.value));
                        report.stored += 1;
                    }
                    Ok(Admitted::Same) => {
                        report.stored += 1;
                        report.same += 1;
                    }
                    Err(reason) => report.refuse(reason, sample),
                }
            }
            Reason::ALL.into_iter().for_each(|reason| plan.refused[reason as usize] += report.refused(reason));
            reports.push(Some(report));
        }
        reports
    }

    fn admit(&self, plan: &mut Plan, head: &Head, gate: &Gate, strict: bool, sample: &Sample) -> Result<Admitted, Reason> {
        gate.check(sample)?;
        let target = Self::target(plan, head, &sample.labels, &self.config)?;
        if strict || gate.looks_back() {
            let slot = match target {
                Target::Known { slot, .. } => Some(slot),
                Target::New(_) => None,
            };
            let newest = plan.newest.get(&target).copied().max(slot.and_then(|slot| head.newest(slot)));
            // Nearly every sample is newer than all of its series: nothing can be in its way.
            let Some(newest) = newest.filter(|newest| sample.ts_ms <= *newest) else {
                plan.newest.insert(target, sample.ts_ms);
                return Ok(Admitted::Take(target));
            };
            let before = if strict { plan.value(target, sample.ts_ms).or_else(|| head.open_value(slot?, sample.ts_ms)) } else { None };
            match before {
                Some(value) if value.to_bits() == sample.value.to_bits() => return Ok(Admitted::Same),
                Some(_) => return Err(Reason::Duplicate),
                None => gate.check_order(sample.ts_ms, newest)?,
            }
        }
        Ok(Admitted::Take(target))
    }

    fn target(plan: &mut Plan, head: &Head, labels: &Arc<Labels>, config: &Config) -> Result<Target, Reason> {
        if let Some(found) = head.find_at(labels, plan.likely) {
            plan.likely = found.slot + 1;
            // Somebody else holds them as well: they will come again.
            if !found.shared && Arc::strong_count(labels) > 1 {
                plan.shared.push((found.slot, labels.clone()));
            }
            return Ok(Target::Known { slot: found.slot, id: found.id });
        }
        if let Some(at) = plan.new_by_labels.get(labels) {
            return Ok(Target::New(*at));
        }
        if labels.is_empty() {
            return Err(Reason::WithoutLabels);
        }
        if head.series_count() + plan.new_series.len() >= config.max_head_series as usize {
            return Err(Reason::TooManySeries);
        }
        if !plan.new_by_host.admit(labels, config.max_host_series, |name, value| head.postings.count(name, value)) {
            return Err(Reason::TooManyHostSeries);
        }
        let at = plan.new_series.len();
        plan.new_series.push(labels.clone());
        plan.new_by_labels.insert(labels.clone(), at);
        Ok(Target::New(at))
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
        count(&self.counters.unsaved, plan.samples.len() as u64);
        count(&self.counters.duplicates, plan.duplicates);
        self.counters.refused.iter().zip(plan.refused).for_each(|(counter, by)| count(counter, by));
        self.marks.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(plan.marks);
        let mut head = write_lock(&self.head);
        // Readers wait for the head: none of them sees these samples and an older number.
        if let Some(least) = plan.samples.iter().map(|(_, ts, _)| *ts).min() {
            lock(&self.changes).note(least);
        }
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
        checkpoint::forget(&transaction, cutoff).map_err(wrong)?;
        {
            let mut forget = transaction.prepare("DELETE FROM series WHERE id = ?1").map_err(wrong)?;
            for (_, id) in &idle {
                forget.execute([id]).map_err(wrong)?;
            }
        }
        transaction.commit().map_err(wrong)?;
        write_lock(&self.head).end_seal(&idle);
        self.shrink();
        Ok(())
    }
}
