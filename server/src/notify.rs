//! Who is told, and how: grouping, words, channels, and the outbox that delivers.
//!
//! # Layout
//! - [`alert`]: what messages speak about; [`group`]: waiting, grouping, repeating (pure); [`render`]: words (pure)
//! - [`channel`]: one attempt over [`config`]ured webhook, DingTalk robot or mail; [`outbox`]: what is tried, and when again
//! - [`secret`]: credentials that never show
//!
//! # Invariants
//! - A message is stored before its first attempt, in the transaction that also stores the state that made it.
//! - Delivery is at least once: a crash between a channel's answer and its note in the store sends the same message again,
//!   with the same id. Per channel messages go out in order; the end of an alert never overtakes its beginning.
//! - A channel that says "no" in a successful HTTP answer has said no.
//! - No log line, error, API answer or stored row holds a channel's credentials.

pub mod alert;
pub mod channel;
pub mod config;
mod dingtalk;
mod email;
pub mod group;
pub mod http;
pub mod outbox;
pub mod render;
pub mod secret;
pub(crate) mod webhook;

pub use config::Config;
