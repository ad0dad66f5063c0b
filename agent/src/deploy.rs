//! Deployments on this host: brings a release up, or goes back by itself.
//!
//! ```text
//! command -> manager (policy, fencing, duplicates) -> worker: plan -> journal -> act -> journal -> events
//!                                                        acts: fetch, unpack, layout (switch), step + shim, health
//! ```
//!
//! - [`executor`]: the handle; `manager`: the thread that takes commands and owns the workers; [`local`]: without a server
//! - `plan` (what is next, pure), `state` (what the journal means, pure), `journal`, `store` (files of one app)
//! - `fetch`, `unpack`, `layout`, `health`: the built-in operations; `step`, [`shim`], `output`: commands of the spec
//!
//! # Invariants
//! - Nothing of the running release is touched before its own `stop` steps, and `current` changes by one rename.
//! - Every failure after that, every abort and every wish to go back take one and the same way back.
//! - Whatever kills the agent, at whatever moment: the next start goes on from the journal, and a step is never run twice
//!   unless its spec says that it may be.
//! - Nothing here shares a thread, lock or queue with telemetry; events leave through one closure.
//!
//! # On a crash
//! Steps run on, each in a process of its own (see [`shim`]). The next start follows those that run, takes the results of those that
//! ended, and asks `on_interrupt` about those of which nobody knows.
//!
//! Leaves out: waves over several hosts, approvals, canaries (the server's), load balancers (a step's).

pub mod executor;
mod fetch;
mod health;
mod journal;
mod layout;
pub mod local;
mod manager;
mod output;
mod plan;
mod report;
pub mod shim;
pub mod spec;
mod state;
mod step;
mod store;
mod unpack;
mod worker;

pub use executor::{Executor, HandleError, OpenError, Setup};
pub use journal::{CrashPoint, JournalError};
pub use store::StoreError;

/// `PATH` of steps unless the program sets another.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
