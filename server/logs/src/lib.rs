//! The log engine: durable head, block store, search. It knows nothing of hosts, users or HTTP.
//!
//! # Layout
//! - [`Engine`]: opens a directory, appends, seals, drops old days, answers queries. Plain threads and blocking calls:
//!   an async caller wraps them in `spawn_blocking`
//! - [`Query`]: selectors with line filters, and the plain words of a search box; [`logql`]: Loki's language, with metric queries
//! - [`Search`], [`CountBy`]: what a query is asked for; [`Page`], [`Counts`]: what comes back
//! - [`Subscription`]: lines as they are committed
//!
//! # Invariants
//! - [`Engine::append`] returns after the lines, the lane's sequence and the files' positions are durable, all in one
//!   transaction. What is sent again is dropped and counted, so at-least-once delivery is stored exactly once.
//! - A query sees one consistent state: a line that moves from the head into a block meanwhile comes out once.
//! - Every line has one place in one total order, [`EntryId`]: time, then arrival. It never changes, so cursors stay good.
//! - Nothing that is stored or asked makes the engine panic or take memory without a bound. What cannot be read is
//!   skipped, counted and named in the answer.
//!
//! # Order of the lines of one file
//! Lines come out by timestamp, then by arrival. Lines of a file with equal timestamps therefore keep the file's order;
//! a line whose timestamp is smaller than that of the line before it in the file comes out earlier. Every entry
//! carries its file and its end offset: [`sort_in_file_order`] gives the order of the file back.
//!
//! # Left out
//! Masking (the sender's work) and tenants.

mod config;
mod entry;
mod error;
pub mod logql;
mod query;
mod store;
mod tail;

pub use config::{Age, Config, Retention};
pub use entry::{Cursor, CursorError, Entry, EntryId, sort_in_file_order};
pub use error::{Error, Result};
pub use query::{
    Query,
    count::{Count, CountBy, Counts},
    matcher::{MatchOp, Matcher},
    scan::ParseError,
    search::{Direction, Page, Patience, QueryStats, Search},
};
pub use store::{
    Append, Engine, Outcome,
    erase::{Erase, EraseBy, EraseCounts, Erased, Proof},
    recover::{Damage, OpenReport},
    seal::Sealed,
    stats::{Stats, StreamVolume},
    volume::{VOLUME_LABELS, Volume, Volumes},
    writer::Retained,
};
pub use tail::{Subscription, TailEvent};
