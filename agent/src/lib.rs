//! The Shipwatch agent.

pub mod app;
pub mod collect;
pub mod config;
pub mod deploy;
pub mod policy;
pub mod spool;
pub mod tail;
pub mod uplink;
