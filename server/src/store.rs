//! `control.db`: hosts, users, alert state, the outbox, deployments. (Series and log lines have engines of their own.)
//!
//! - [`database`]: the two threads that own the connections; migrations; damage and backup
//! - [`hosts`], [`users`], [`alerts`], [`deployments`], [`audit`]: typed access, one file per matter
//!
//! # Invariants
//! - Only this module knows SQL. Each method that writes is one transaction and returns after its commit.
//! - Migrations are numbered and never edited; a database of a newer version is refused.
//! - Secrets are stored as hashes: passwords by argon2, random tokens by SHA-256.
//!
//! On a crash: SQLite's WAL with `synchronous=FULL`; what was answered is there. A damaged file is not guessed at: the start
//! is refused and the message names the last backup, which every start and every day renews.

pub mod alerts;
pub mod audit;
pub mod database;
pub mod deployments;
pub mod hosts;
pub mod users;

pub use database::{Store, StoreError};
