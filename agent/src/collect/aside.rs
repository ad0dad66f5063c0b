//! Reads that may take long or for ever, away from the tick.
//!
//! # Invariants
//! - One thread for each [`Aside`], however long its work hangs; it is not asked again until it has answered.
//! - An answer that comes too late is thrown away: its values would get a time that is not theirs.

use super::Batch;
use std::{
    borrow::Cow,
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    time::Duration,
};

/// One series and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: Cow<'static, str>,
    pub(crate) labels: Vec<(&'static str, String)>,
    pub(crate) value: f64,
}

impl Row {
    pub(crate) fn new(name: impl Into<Cow<'static, str>>, labels: &[(&'static str, &str)], value: f64) -> Self {
        Self { name: name.into(), labels: labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(), value }
    }

    pub(crate) fn push(&self, out: &mut Batch<'_>) {
        let labels: Vec<(&str, &str)> = self.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        out.push(&self.name, &labels, self.value);
    }
}

/// What is read aside.
pub(crate) trait Work: Send + 'static {
    fn rows(&mut self) -> io::Result<Vec<Row>>;
}

type Answer = io::Result<Vec<Row>>;

struct Worker {
    ask: Sender<()>,
    answers: Receiver<Answer>,
    waiting: bool,
}

enum State {
    Idle(Box<dyn Work>),
    Running(Worker),
    Ended,
}

/// See the module.
pub(crate) struct Aside {
    name: &'static str,
    deadline: Duration,
    state: State,
}

impl Aside {
    pub(crate) fn new(name: &'static str, deadline: Duration, work: impl Work) -> Self {
        Self { name, deadline, state: State::Idle(Box::new(work)) }
    }

    /// What the work gave within the deadline.
    pub(crate) fn rows(&mut self) -> Answer {
        let ended = || io::Error::other("the thread that reads it has ended");
        let late = |deadline: Duration| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} ms", deadline.as_millis()));
        let worker = self.running()?;
        if worker.waiting {
            match worker.answers.try_recv() {
                Ok(_) => worker.waiting = false,
                Err(TryRecvError::Empty) => return Err(late(self.deadline)),
                Err(TryRecvError::Disconnected) => return Err(ended()),
            }
        }
        worker.ask.send(()).map_err(|_| ended())?;
        let deadline = self.deadline;
        let worker = self.running()?;
        match worker.answers.recv_timeout(deadline) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                worker.waiting = true;
                Err(late(deadline))
            }
            Err(RecvTimeoutError::Disconnected) => Err(ended()),
        }
    }

    fn running(&mut self) -> io::Result<&mut Worker> {
        if let State::Idle(_) = self.state
            && let State::Idle(work) = std::mem::replace(&mut self.state, State::Ended)
        {
            self.state = State::Running(start(self.name, work)?);
        }
        match &mut self.state {
            State::Running(worker) => Ok(worker),
            _ => Err(io::Error::other("the thread that reads it could not be started")),
        }
    }
}

fn start(name: &str, mut work: Box<dyn Work>) -> io::Result<Worker> {
    let (ask, asked) = channel();
    let (outbox, answers) = channel();
    std::thread::Builder::new().name(name.to_owned()).stack_size(256 << 10).spawn(move || {
        while asked.recv().is_ok() {
            if outbox.send(work.rows()).is_err() {
                return;
            }
        }
    })?;
    Ok(Worker { ask, answers, waiting: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::SyncSender;

    struct Gated {
        gate: Receiver<()>,
        started: SyncSender<()>,
        calls: f64,
    }

    impl Work for Gated {
        fn rows(&mut self) -> Answer {
            self.calls += 1.0;
            self.started.send(()).unwrap();
            self.gate.recv().unwrap();
            Ok(vec![Row::new("calls", &[], self.calls)])
        }
    }

    #[test]
    fn work_that_hangs_costs_a_deadline_once_and_comes_back() {
        let (open, gate) = channel();
        let (started, starts) = std::sync::mpsc::sync_channel(8);
        let mut aside = Aside::new("gated", Duration::from_millis(20), Gated { gate, started, calls: 0.0 });
        assert_eq!(aside.rows().unwrap_err().kind(), io::ErrorKind::TimedOut);
        for _ in 0..100 {
            assert_eq!(aside.rows().unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        starts.recv().unwrap();
        assert!(starts.try_recv().is_err(), "work that hangs was asked again");
        aside.deadline = Duration::from_secs(60);
        open.send(()).unwrap();
        open.send(()).unwrap();
        // The first, late answer may be on its way still.
        let fresh = std::iter::from_fn(|| Some(aside.rows())).find_map(Result::ok).unwrap();
        assert_eq!(fresh, [Row::new("calls", &[], 2.0)]);
    }
}
