//! Hands events to the durable sink.
//!
//! # Invariants
//! - Text from steps and reasons is masked before it gets here or in here; names and numbers need none.
//! - A sink that cannot take an event never stops a deployment: states and results wait and are tried again with the next
//!   event, output is counted and left out. The end of a deployment is in the journal as well and is told again later.

use shipwatch_common::{
    mask::Masker,
    model::deploy::{Event, EventKind, HostState},
    time::now_ms,
};
use std::{collections::VecDeque, sync::Arc};

/// Takes an event for good, or says why it cannot now.
pub(crate) type Sink = Arc<dyn Fn(Event) -> Result<(), String> + Send + Sync>;

/// States and results of one deployment that may wait for the sink; more only if the sink is out of order for long.
const WAITING_MAX: usize = 512;

/// The events of one deployment.
pub(crate) struct Reporter {
    sink: Sink,
    masker: Arc<Masker>,
    deployment_id: String,
    waiting: VecDeque<Event>,
    lost_output_bytes: usize,
}

impl Reporter {
    pub(crate) const fn new(sink: Sink, masker: Arc<Masker>, deployment_id: String) -> Self {
        Self { sink, masker, deployment_id, waiting: VecDeque::new(), lost_output_bytes: 0 }
    }

    /// Whether everything has been handed over.
    pub(crate) fn state(&mut self, state: HostState, reason: &str, release: Option<String>) -> bool {
        let reason = self.masker.mask(reason).text.into_owned();
        self.send(EventKind::State { state, reason, release })
    }

    pub(crate) fn started(&mut self, step: &str) {
        self.send(EventKind::StepStarted { step: step.to_owned() });
    }

    pub(crate) fn finished(&mut self, step: &str, ok: bool, detail: &str, took_ms: u64) {
        let detail = self.masker.mask(detail).text.into_owned();
        self.send(EventKind::StepFinished { step: step.to_owned(), ok, detail, took_ms });
    }

    /// Text that is masked already.
    pub(crate) fn output(&mut self, step: &str, text: String) {
        let text = match self.lost_output_bytes {
            0 => text,
            lost => format!("[{lost} bytes of output were lost on the host]\n{text}"),
        };
        let bytes = text.len();
        let event = self.event(EventKind::Output { step: step.to_owned(), text });
        if self.flush() && (self.sink)(event).is_ok() {
            self.lost_output_bytes = 0;
        } else {
            self.lost_output_bytes += bytes;
        }
    }

    fn event(&self, kind: EventKind) -> Event {
        Event { deployment_id: self.deployment_id.clone(), at_ms: now_ms(), kind }
    }

    fn send(&mut self, kind: EventKind) -> bool {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
            tracing::warn!(deployment = self.deployment_id, "the event sink is out of order; dropped the oldest event that waited for it");
        }
        self.waiting.push_back(self.event(kind));
        self.flush()
    }

    fn flush(&mut self) -> bool {
        while let Some(event) = self.waiting.front() {
            if let Err(error) = (self.sink)(event.clone()) {
                tracing::warn!(error, deployment = self.deployment_id, "could not hand over a deploy event, will try again");
                return false;
            }
            self.waiting.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn states_wait_for_the_sink_in_order_and_lost_output_is_told() {
        let taken = Arc::new(Mutex::new((true, Vec::new())));
        let sink: Sink = {
            let taken = Arc::clone(&taken);
            Arc::new(move |event: Event| {
                let mut taken = taken.lock().unwrap();
                if taken.0 {
                    return Err("full".to_owned());
                }
                taken.1.push(match event.kind {
                    EventKind::State { reason, .. } => reason,
                    EventKind::Output { text, .. } => text,
                    EventKind::StepStarted { step } | EventKind::StepFinished { step, .. } => step,
                });
                Ok(())
            })
        };
        let masker = Arc::new(Masker::new(&Default::default()).unwrap());
        let mut reporter = Reporter::new(sink, masker, "d".to_owned());
        assert!(!reporter.state(HostState::Preparing, "begin", None));
        reporter.started("start");
        reporter.output("start", "gone\n".to_owned());
        taken.lock().unwrap().0 = false;
        reporter.output("start", "here\n".to_owned());
        assert!(reporter.state(HostState::Succeeded, "end", None));
        assert_eq!(taken.lock().unwrap().1, ["begin", "start", "[5 bytes of output were lost on the host]\nhere\n", "end"]);
    }
}
