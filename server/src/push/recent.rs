//! Requests that came a short while ago: a sender that did not hear the answer sends the same again.
//!
//! # Invariants
//! - The same bytes are stored once as long as they are remembered: the newest [`KEPT`] requests, until the server ends.
//! - While a request is being stored, the same one is told to come again.

use sha2::{Digest as _, Sha256};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Requests that are remembered; about 100 bytes each.
const KEPT: usize = 20_000;

type Digest = [u8; 32];

#[derive(Debug, Default)]
struct Known {
    /// Whether it is stored.
    stored: HashMap<Digest, bool>,
    order: VecDeque<Digest>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<Known>>);

/// What is known of a request.
#[derive(Debug)]
pub enum Seen {
    /// Nothing; remembered when [`Turn::stored`] is called, forgotten if it is dropped before.
    New(Turn),
    /// It is being stored just now.
    Underway,
    /// It is stored.
    Stored,
}

/// A request on its way.
#[derive(Debug)]
pub struct Turn {
    recent: Recent,
    digest: Digest,
}

impl Recent {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a request, and takes it on if it is new. `what` tells requests with equal bodies apart.
    #[must_use]
    pub fn begin(&self, what: &str, body: &[u8]) -> Seen {
        let mut hash = Sha256::new();
        hash.update((what.len() as u64).to_le_bytes());
        hash.update(what.as_bytes());
        hash.update(body);
        let digest: Digest = hash.finalize().into();
        let mut known = self.lock();
        match known.stored.get(&digest) {
            Some(true) => return Seen::Stored,
            Some(false) => return Seen::Underway,
            None => {}
        }
        known.stored.insert(digest, false);
        drop(known);
        Seen::New(Turn { recent: self.clone(), digest })
    }
}

impl Turn {
    /// The request is stored. One whose lines have no time of their own may rightly come again: it is not remembered.
    pub fn stored(self, remember: bool) {
        if !remember {
            return;
        }
        let mut known = self.recent.lock();
        known.stored.insert(self.digest, true);
        known.order.push_back(self.digest);
        if known.order.len() > KEPT
            && let Some(oldest) = known.order.pop_front()
        {
            known.stored.remove(&oldest);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut known = self.recent.lock();
        if known.stored.get(&self.digest) == Some(&false) {
            known.stored.remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_is_taken_once_and_forgotten_in_time() {
        let recent = Recent::default();
        let Seen::New(turn) = recent.begin("loki", b"1") else { panic!("it is new") };
        assert!(matches!(recent.begin("loki", b"1"), Seen::Underway));
        assert!(matches!(recent.begin("otlp", b"1"), Seen::New(_)));
        drop(turn);
        let Seen::New(turn) = recent.begin("loki", b"1") else { panic!("it failed: it is new again") };
        turn.stored(true);
        assert!(matches!(recent.begin("loki", b"1"), Seen::Stored));
        let Seen::New(turn) = recent.begin("loki", b"no time") else { panic!("it is new") };
        turn.stored(false);
        assert!(matches!(recent.begin("loki", b"no time"), Seen::New(_)));
        for number in 0..KEPT {
            let Seen::New(turn) = recent.begin("loki", &number.to_le_bytes()) else { panic!("it is new") };
            turn.stored(true);
        }
        assert!(matches!(recent.begin("loki", b"1"), Seen::New(_)));
        let known = recent.lock();
        assert_eq!((known.stored.len(), known.order.len()), (KEPT, KEPT));
    }
}
