//! Black-box tests over real processes. `cargo build --workspace --bins` first; `make test` does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test fails by panicking")]

mod access;
mod alerts;
mod bad_input;
mod deploys;
mod exactly_once;
mod forward;
mod hostile;
mod identity;
mod interop;
mod loki;
mod push;
mod secrets;
mod sources;
