//! The wall clock as a value, so that tests can set it.

use shipwatch_common::time::{UnixMs, now_ms};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// Where the time comes from.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine.
    System,
    /// A test.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// Now.
    #[must_use]
    pub fn now_ms(&self) -> UnixMs {
        match self {
            Self::System => now_ms(),
            Self::Manual(at) => at.load(Ordering::SeqCst),
        }
    }
}
