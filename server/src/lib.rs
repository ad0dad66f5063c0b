//! The Shipwatch server.

pub mod api;
pub mod app;
pub mod config;
pub mod deploys;
pub mod gateway;
pub mod ingest;
pub mod notify;
pub mod rules;
pub mod store;
pub mod web;
