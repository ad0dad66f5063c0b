//! Lines as they are committed, for those who watch.
//!
//! # Invariants
//! - The writer never waits: it hands committed batches to a thread of their own through a bounded channel, and only while
//!   somebody watches. That thread matches them and never waits for a subscriber either.
//! - What a subscriber misses is counted, and told to it before the next line that it gets.
//! - The thread ends when the engine is dropped: then every subscription ends too.

use crate::{
    Entry, EntryId, Query,
    error::{Error, Result},
    store::block::Origin,
};
use shipwatch_common::model::{Labels, LogLine};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Lines that wait for one subscriber; more are missed.
const WAITING: usize = 1024;
/// Commits that wait for being matched; more are missed by all.
const COMMITS: usize = 16;

/// What a subscriber gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TailEvent {
    /// A line.
    Entry(Entry),
    /// Lines were missed here, since the subscriber or the matching was too slow. The number is at most this: lines that were
    /// skipped before they could be matched all count.
    Gap {
        /// How many.
        missed: u64,
    },
}

/// A running subscription; it ends when it is dropped, or with the engine.
#[derive(Debug)]
pub struct Subscription {
    events: Receiver<TailEvent>,
    _alive: Arc<()>,
}

impl Subscription {
    /// Waits for the next event; nothing when the engine is closed.
    #[must_use]
    pub fn recv(&self) -> Option<TailEvent> {
        self.events.recv().ok()
    }

    /// Waits up to `timeout`.
    ///
    /// # Errors
    /// The time is over, or the engine is closed.
    pub fn recv_timeout(&self, timeout: Duration) -> std::result::Result<TailEvent, RecvTimeoutError> {
        self.events.recv_timeout(timeout)
    }

    /// Does not wait.
    ///
    /// # Errors
    /// There is nothing now, or the engine is closed.
    pub fn try_recv(&self) -> std::result::Result<TailEvent, TryRecvError> {
        self.events.try_recv()
    }
}

/// A committed row of the head.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) labels: Arc<Labels>,
    pub(crate) batch: u64,
    pub(crate) origin: Origin,
    pub(crate) lines: Vec<LogLine>,
}

#[derive(Debug)]
struct Subscriber {
    query: Query,
    events: SyncSender<TailEvent>,
    missed: u64,
    alive: Weak<()>,
}

#[derive(Debug, Default)]
struct Board {
    subscribers: Mutex<Vec<Subscriber>>,
    /// As many as `subscribers`, to be read without the lock.
    wanted: AtomicUsize,
    /// Lines that were skipped before they could be matched.
    skipped: AtomicU64,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tidy(&self, subscribers: &mut Vec<Subscriber>) {
        subscribers.retain(|subscriber| subscriber.alive.strong_count() > 0);
        self.wanted.store(subscribers.len(), Ordering::Relaxed);
    }

    fn deliver(&self, commit: &[Committed]) {
        let mut subscribers = self.lock();
        let skipped = self.skipped.swap(0, Ordering::Relaxed);
        subscribers.iter_mut().for_each(|subscriber| subscriber.missed += skipped);
        for committed in commit {
            for subscriber in subscribers.iter_mut() {
                for (line, index) in committed.lines.iter().zip(0u32..) {
                    if subscriber.query.matches(&committed.labels, line.severity, &line.text) {
                        subscriber.send(committed, line, index);
                    }
                }
            }
        }
        self.tidy(&mut subscribers);
    }
}

impl Subscriber {
    fn send(&mut self, committed: &Committed, line: &LogLine, index: u32) {
        if self.missed > 0 {
            match self.events.try_send(TailEvent::Gap { missed: self.missed }) {
                Ok(()) => self.missed = 0,
                Err(_) => {
                    self.missed += 1;
                    return;
                }
            }
        }
        let entry = Entry {
            id: EntryId { ts_ns: line.ts_ns, batch: committed.batch, index },
            labels: Arc::clone(&committed.labels),
            severity: line.severity,
            text: line.text.clone(),
            truncated: line.truncated,
            agent: Arc::clone(&committed.origin.agent),
            file: committed.origin.file,
            end_offset: line.end_offset,
        };
        if let Err(TrySendError::Full(_)) = self.events.try_send(TailEvent::Entry(entry)) {
            self.missed += 1;
        }
    }
}

/// The subscribers of an engine.
#[derive(Debug)]
pub(crate) struct Tail {
    board: Arc<Board>,
    publisher: Option<Publisher>,
    thread: Option<JoinHandle<()>>,
    max: usize,
}

/// The writer's end.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    board: Weak<Board>,
    commits: SyncSender<Vec<Committed>>,
}

impl Publisher {
    pub(crate) fn is_wanted(&self) -> bool {
        self.board.upgrade().is_some_and(|board| board.wanted.load(Ordering::Relaxed) > 0)
    }

    pub(crate) fn publish(&self, commit: Vec<Committed>) {
        if commit.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(commit)) = self.commits.try_send(commit)
            && let Some(board) = self.board.upgrade()
        {
            let lines = commit.iter().map(|committed| committed.lines.len() as u64).sum();
            board.skipped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

impl Tail {
    /// Starts the thread. Publishers are to be dropped before the tail, which waits for the thread's end.
    pub(crate) fn start(max: usize) -> std::io::Result<Self> {
        let board = Arc::new(Board::default());
        let (commits, queue) = sync_channel::<Vec<Committed>>(COMMITS);
        let publisher = Publisher { board: Arc::downgrade(&board), commits };
        let weak = Arc::downgrade(&board);
        let thread = std::thread::Builder::new().name("logs-tail".to_owned()).spawn(move || {
            while let Ok(commit) = queue.recv() {
                let Some(board) = weak.upgrade() else { return };
                board.deliver(&commit);
            }
        })?;
        Ok(Self { board, publisher: Some(publisher), thread: Some(thread), max })
    }

    pub(crate) fn publisher(&self) -> Option<Publisher> {
        self.publisher.clone()
    }

    pub(crate) fn subscribe(&self, query: Query) -> Result<Subscription> {
        let (sender, events) = sync_channel(WAITING);
        let alive = Arc::new(());
        let mut subscribers = self.board.lock();
        self.board.tidy(&mut subscribers);
        if subscribers.len() >= self.max {
            return Err(Error::TooManySubscribers(subscribers.len()));
        }
        subscribers.push(Subscriber { query, events: sender, missed: 0, alive: Arc::downgrade(&alive) });
        self.board.wanted.store(subscribers.len(), Ordering::Relaxed);
        Ok(Subscription { events, _alive: alive })
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.publisher = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that follows the logs ended by a panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipwatch_common::model::{FileId, Severity};

    fn commit(count: u64) -> Vec<Committed> {
        let line = |at: u64| LogLine { ts_ns: 1, end_offset: at, severity: Severity::Info, truncated: false, text: format!("line {at}") };
        let labels = Arc::new(Labels::new([("app", "shop")]).unwrap());
        vec![Committed { labels, batch: 1, origin: Origin { agent: "a".into(), file: FileId(1) }, lines: (0..count).map(line).collect() }]
    }

    fn events(subscription: &Subscription) -> Vec<TailEvent> {
        std::iter::from_fn(|| subscription.try_recv().ok()).collect()
    }

    #[test]
    fn a_slow_subscriber_is_told_what_it_missed_and_holds_up_nobody() {
        let tail = Tail::start(8).unwrap();
        let slow = tail.subscribe(Query::default()).unwrap();
        let picky = tail.subscribe(Query::parse(r#"{app="shop"} |= "line 7" !~ "7.""#).unwrap()).unwrap();
        tail.board.deliver(&commit(WAITING as u64 + 10));
        assert_eq!(events(&picky).len(), 1);
        assert_eq!(events(&slow).len(), WAITING);
        tail.board.skipped.store(5, Ordering::Relaxed);
        tail.board.deliver(&commit(1));
        let later = events(&slow);
        assert_eq!(later[0], TailEvent::Gap { missed: 15 });
        assert!(matches!(&later[1], TailEvent::Entry(entry) if entry.text == "line 0"), "{later:?}");
    }

    #[test]
    fn a_full_queue_does_not_stop_the_writer() {
        let tail = Tail::start(8).unwrap();
        let subscription = tail.subscribe(Query::default()).unwrap();
        let publisher = tail.publisher().unwrap();
        {
            // The lock keeps the thread from delivering.
            let _held = tail.board.lock();
            (0..COMMITS + 3).for_each(|_| publisher.publish(commit(2)));
            assert!(tail.board.skipped.load(Ordering::Relaxed) >= 4);
        }
        drop(publisher);
        assert!(subscription.recv().is_some());
    }

    #[test]
    fn subscriptions_are_bounded_and_free_their_place() {
        let tail = Tail::start(1).unwrap();
        assert!(!tail.publisher().unwrap().is_wanted());
        let first = tail.subscribe(Query::default()).unwrap();
        assert!(tail.publisher().unwrap().is_wanted());
        assert!(matches!(tail.subscribe(Query::default()), Err(Error::TooManySubscribers(1))));
        drop(first);
        assert!(tail.subscribe(Query::default()).is_ok());
    }
}
