//! The Shipwatch server: stores what agents send, answers queries, evaluates rules, tells people, rolls out.
//!
//! # Layout
//! ```text
//! main -> app -> {api, web} -> {alerting (rules, notify), deploys, gateway} -> ingest -> store -> engines -> common
//! ```
//! - [`gateway`]: agents' connections; [`ingest`]: from records to commits; [`push`]: log lines that others send, to records
//! - [`forward`]: samples on to other systems, from a queue on disk
//! - [`store`]: `control.db`; the engines for series and logs are packages of their own
//! - [`rules`], [`notify`]: when an alert fires, and who is told; [`alerting`] joins them with the store
//! - [`deploys`]: deployments over hosts
//! - [`api`], [`web`]: HTTP and the dashboard's files
//! - [`package_files`]: manual pages and completions, for packages
//! - [`app`]: starts, joins and stops all of them; [`config`]: the sum of their configurations
//!
//! # Where things become durable
//! Samples, lines and deploy events: in the transaction that also moves their lane's mark; acknowledged afterwards. A command:
//! before it is sent. An alert's state and its messages: in one transaction, before the first attempt.

pub mod alerting;
pub mod api;
pub mod app;
pub mod config;
pub mod deploys;
pub mod forward;
pub mod gateway;
pub mod ingest;
pub mod notify;
pub mod package_files;
pub mod push;
pub mod rules;
pub mod store;
pub mod tsdb;
pub mod web;
