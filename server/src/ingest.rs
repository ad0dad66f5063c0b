//! From what agents send to what is stored: once each, acknowledged after the commit.
//!
//! # Invariants
//! - A submission is one agent's consecutive records of one lane. It is committed whole or not at all, with the lane's mark in
//!   the same transaction, and answered afterwards. Its sender submits the next only after the answer, so a failed
//!   commit can never be jumped over by a later one.
//! - Submissions of many agents share a commit: the cost of an fsync is paid per group.
//! - Queues are bounded; a full one makes the gateway stop reading, and QUIC's flow control stops the agents.

use crate::{
    forward::{Batch, Forwarding},
    store::{Store, StoreError},
};
use shipwatch_common::{
    model::{AgentId, Sample, deploy::Event},
    time::now_ms,
};
use shipwatch_logs::Engine as LogEngine;
use shipwatch_series::{Engine as SeriesEngine, Report};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};
use tokio::sync::{mpsc, oneshot};

/// Submissions that may wait per lane.
const QUEUE: usize = 1024;
/// Submissions in one commit: some 70,000 samples of agents that tick. More would take memory and hold others up, and save little.
const GROUP: usize = 128;

/// Why a submission was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IngestError {
    /// The disk is full: try again later with the same records.
    #[error("the disk of the data directory is full")]
    Full,
    /// Anything else; try again later as well.
    #[error("{0}")]
    Failed(String),
    /// The server stops.
    #[error("the server stops")]
    Closed,
}

/// What is counted, for `/metrics`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Samples stored.
    pub samples_total: AtomicU64,
    /// Log lines stored.
    pub lines_total: AtomicU64,
    /// Bytes of their text.
    pub line_bytes_total: AtomicU64,
    /// Deploy events stored.
    pub events_total: AtomicU64,
    /// Records that had been stored before and came again.
    pub duplicates_total: AtomicU64,
    /// Commits that failed and were tried again.
    pub failed_commits_total: AtomicU64,
}

/// What became of each record, in order.
type Answer<O> = Result<Vec<O>, IngestError>;

/// A submission and where its answer goes.
#[derive(Debug)]
struct Submission<T, O> {
    records: Vec<T>,
    answer: oneshot::Sender<Answer<O>>,
}

/// Stores samples of senders that are told of each one that is refused. The engine puts those of several senders into one commit.
#[derive(Clone, Debug)]
pub struct Strict {
    series: Arc<SeriesEngine>,
    forward: Arc<Forwarding>,
    counters: Arc<Counters>,
}

impl Strict {
    /// Stores samples and tells what became of them. Blocks until they are on disk.
    ///
    /// # Errors
    /// Nothing was stored; submit the same samples again later.
    pub fn store(&self, samples: Vec<Sample>) -> Result<Report, IngestError> {
        let (samples, now_ms) = (Arc::new(samples), now_ms());
        let done = self.series.append_strict(now_ms, Arc::clone(&samples)).map_err(|error| match error {
            shipwatch_series::Error::Full { .. } => IngestError::Full,
            other => IngestError::Failed(other.to_string()),
        });
        match &done {
            Ok(report) => {
                if report.stored > 0 && !self.forward.is_empty() {
                    self.forward.take(&[Batch { source: "", seq: 0, samples: &samples }], now_ms);
                }
                self.counters.samples_total.fetch_add(report.stored, Ordering::Relaxed)
            }
            Err(_) => self.counters.failed_commits_total.fetch_add(1, Ordering::Relaxed),
        };
        done
    }
}

/// See the module. Dropping it ends the threads after what is queued was committed.
#[derive(Debug)]
pub struct Ingest {
    series: Option<mpsc::Sender<Submission<shipwatch_series::Append, shipwatch_series::Outcome>>>,
    logs: Option<mpsc::Sender<Submission<shipwatch_logs::Append, ()>>>,
    strict: Strict,
    store: Arc<Store>,
    counters: Arc<Counters>,
    threads: Vec<JoinHandle<()>>,
}

impl Ingest {
    /// Starts one thread per engine. Samples that are stored go to `forward` as well, before they are answered.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(series: Arc<SeriesEngine>, logs: Arc<LogEngine>, store: Arc<Store>, forward: Arc<Forwarding>) -> std::io::Result<Self> {
        let counters = Arc::new(Counters::default());
        let strict = Strict { series: Arc::clone(&series), forward: Arc::clone(&forward), counters: Arc::clone(&counters) };
        let (series_in, inbox) = mpsc::channel(QUEUE);
        let counted = Arc::clone(&counters);
        let series_thread = std::thread::Builder::new().name("ingest-metrics".to_owned()).spawn(move || {
            run(inbox, |records: Vec<shipwatch_series::Append>| {
                let samples: usize = records.iter().map(|record| record.samples.len()).sum();
                let kept = if forward.is_empty() { Vec::new() } else { records.clone() };
                let outcomes = series.append(records).map_err(|error| match error {
                    shipwatch_series::Error::Full { .. } => IngestError::Full,
                    other => IngestError::Failed(other.to_string()),
                });
                if let Ok(outcomes) = &outcomes {
                    pass_on(&forward, &kept, outcomes);
                }
                counted
                    .count(&outcomes.as_ref().map(|all| all.iter().filter(|o| matches!(o, shipwatch_series::Outcome::Duplicate)).count()));
                counted.samples_total.fetch_add(if outcomes.is_ok() { samples as u64 } else { 0 }, Ordering::Relaxed);
                outcomes
            });
        })?;
        let (logs_in, inbox) = mpsc::channel(QUEUE);
        let counted = Arc::clone(&counters);
        let logs_thread = std::thread::Builder::new().name("ingest-logs".to_owned()).spawn(move || {
            run(inbox, |records: Vec<shipwatch_logs::Append>| {
                let lines = records.iter().flat_map(|record| &record.batches).flat_map(|batch| &batch.lines);
                let (count, bytes) = lines.fold((0u64, 0u64), |(count, bytes), line| (count + 1, bytes + line.text.len() as u64));
                let outcomes = logs.append(records).map_err(|error| match error {
                    shipwatch_logs::Error::Full { .. } => IngestError::Full,
                    other => IngestError::Failed(other.to_string()),
                });
                counted.count(&outcomes.as_ref().map(|all| all.iter().filter(|o| o.duplicate).count()));
                if outcomes.is_ok() {
                    counted.lines_total.fetch_add(count, Ordering::Relaxed);
                    counted.line_bytes_total.fetch_add(bytes, Ordering::Relaxed);
                }
                outcomes.map(|all| vec![(); all.len()])
            });
        })?;
        Ok(Self { series: Some(series_in), logs: Some(logs_in), strict, store, counters, threads: vec![series_thread, logs_thread] })
    }

    /// What is counted.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Stores records of a metrics lane.
    ///
    /// # Errors
    /// Nothing was stored; submit the same records again later.
    pub async fn metrics(&self, records: Vec<shipwatch_series::Append>) -> Result<(), IngestError> {
        submit(self.series.as_ref(), records).await.map(drop)
    }

    /// For senders without a sequence, such as remote write and imports.
    #[must_use]
    pub fn strict(&self) -> Strict {
        self.strict.clone()
    }

    /// Stores records of a logs lane.
    ///
    /// # Errors
    /// Nothing was stored; submit the same records again later.
    pub async fn logs(&self, records: Vec<shipwatch_logs::Append>) -> Result<(), IngestError> {
        submit(self.logs.as_ref(), records).await.map(drop)
    }

    /// Stores records of an events lane.
    ///
    /// # Errors
    /// Nothing was stored; submit the same records again later.
    pub async fn events(&self, source: &str, host: AgentId, events: Vec<(u64, Event)>) -> Result<(), IngestError> {
        let offered = events.len();
        let stored = self.store.append_events(source, host, events).await.map_err(|error| match error {
            StoreError::Full => IngestError::Full,
            StoreError::Closed => IngestError::Closed,
            other => IngestError::Failed(other.to_string()),
        })?;
        self.counters.events_total.fetch_add(stored as u64, Ordering::Relaxed);
        self.counters.duplicates_total.fetch_add((offered - stored.min(offered)) as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        self.series = None;
        self.logs = None;
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

impl Counters {
    fn count(&self, duplicates: &Result<usize, &IngestError>) {
        match duplicates {
            Ok(duplicates) => self.duplicates_total.fetch_add(*duplicates as u64, Ordering::Relaxed),
            Err(_) => self.failed_commits_total.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// Gives what is stored to who sends it on. Batches that were stored before as well: the server may have died in between; those
/// that are there already are not taken twice.
fn pass_on(forward: &Forwarding, records: &[shipwatch_series::Append], outcomes: &[shipwatch_series::Outcome]) {
    let nothing = |outcome: &_| matches!(outcome, shipwatch_series::Outcome::Stored { samples: 0, .. });
    let batches: Vec<Batch<'_>> = records
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| !nothing(outcome))
        .map(|(record, _)| Batch { source: &record.source, seq: record.seq, samples: &record.samples })
        .collect();
    if !batches.is_empty() {
        forward.take(&batches, now_ms());
    }
}

async fn submit<T, O>(to: Option<&mpsc::Sender<Submission<T, O>>>, records: Vec<T>) -> Answer<O> {
    let (answer, result) = oneshot::channel();
    let to = to.ok_or(IngestError::Closed)?;
    to.send(Submission { records, answer }).await.map_err(|_| IngestError::Closed)?;
    result.await.map_err(|_| IngestError::Closed)?
}

/// Takes what waits, commits it together, answers each with the outcomes of its own records.
fn run<T, O>(mut inbox: mpsc::Receiver<Submission<T, O>>, mut commit: impl FnMut(Vec<T>) -> Answer<O>) {
    let mut waiting = Vec::new();
    while let Some(first) = inbox.blocking_recv() {
        waiting.push(first);
        while waiting.len() < GROUP
            && let Ok(next) = inbox.try_recv()
        {
            waiting.push(next);
        }
        let (records, answers): (Vec<_>, Vec<_>) = waiting.drain(..).map(|submission| (submission.records, submission.answer)).unzip();
        let counts: Vec<usize> = records.iter().map(Vec::len).collect();
        let mut outcomes = commit(records.into_iter().flatten().collect()).map(Vec::into_iter);
        for (answer, count) in answers.into_iter().zip(counts) {
            let own = outcomes.as_mut().map(|all| all.take(count).collect()).map_err(|error| error.clone());
            let _sender_gone = answer.send(own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_shares_a_commit_and_a_failure_is_everyones() {
        let (to, inbox) = mpsc::channel(8);
        let mut answers = Vec::new();
        for at in 0..3 {
            let (answer, result) = oneshot::channel();
            to.try_send(Submission { records: vec![at], answer }).unwrap();
            answers.push(result);
        }
        drop(to);
        let mut commits = Vec::new();
        run(inbox, |records| {
            commits.push(records);
            Answer::<()>::Err(IngestError::Full)
        });
        assert_eq!(commits, [[0, 1, 2]]);
        assert!(answers.into_iter().all(|mut answer| matches!(answer.try_recv(), Ok(Err(IngestError::Full)))));
    }

    #[test]
    fn each_is_told_of_its_own_records() {
        let (to, inbox) = mpsc::channel(8);
        let mut answers = Vec::new();
        for records in [vec![1, 2], vec![], vec![3]] {
            let (answer, result) = oneshot::channel();
            to.try_send(Submission { records, answer }).unwrap();
            answers.push(result);
        }
        drop(to);
        run(inbox, |records| Ok(records.into_iter().map(|record| record * 10).collect()));
        let told: Vec<Vec<i32>> = answers.into_iter().map(|mut answer| answer.try_recv().unwrap().unwrap()).collect();
        assert_eq!(told, [vec![10, 20], vec![], vec![30]]);
    }
}
