//! The deploy executor with real processes, files and signals.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected has failed")]

#[path = "deploy/attacks.rs"]
mod attacks;
#[path = "deploy/commands.rs"]
mod commands;
#[path = "deploy/crashes.rs"]
mod crashes;
#[path = "deploy/host.rs"]
mod host;
#[path = "deploy/releases.rs"]
mod releases;
#[path = "deploy/sample_app.rs"]
mod sample_app;
#[path = "deploy/steps.rs"]
mod steps;
