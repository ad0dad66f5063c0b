//! Vocabulary and wire of Shipwatch.
//!
//! # Layout
//! - [`model`]: labels, samples, log lines, deploy messages: what both ends talk about
//! - [`protocol`]: how it is put into bytes: frames, caps, versions, metric snapshots
//! - [`transport`]: QUIC endpoints with mutual TLS; [`identity`]: certificates and enrolment tokens
//! - [`mask`]: finds and removes personal data and secrets from text; pure
//! - [`config`]: TOML + environment into a module's `Config`, all mistakes at once
//! - [`protobuf`]: Protocol Buffers by hand; [`severity`]: how bad a line is
//! - [`backoff`], [`shutdown`], [`time`], [`logging`]: small pieces that both programs use the same way
//!
//! # Invariants
//! - Nothing here starts a task, holds global state or reads the clock, but for [`transport`] (opens a socket),
//!   [`shutdown`] (waits for signals) and [`logging`] (installs the process' subscriber), which their callers ask for by name.
//! - Everything decoded from a peer is bounded in size before memory is allocated for it.

pub mod backoff;
pub mod config;
pub mod identity;
pub mod logging;
pub mod mask;
pub mod model;
pub mod protobuf;
pub mod protocol;
pub mod severity;
pub mod shutdown;
pub mod time;
pub mod transport;
