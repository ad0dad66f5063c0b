//! What the stored samples take on disk once everything is sealed, and whether they are all still there.
//!
//! The server has stopped; its series store is opened in this process, so that sealing needs no waiting.

use super::verify::{self, Expected};
use crate::{
    api, float,
    report::{Report, figure},
    stack::size_of,
};
use anyhow::{Context as _, Result};
use serde_json::Value;
use shipwatch_series::{Config, Engine, http, promql::EvalOptions};
use std::{path::Path, sync::Arc};
use tokio::time::Instant;

/// Windows end this long after their last sample at the latest, sealing waits a day at most.
const LATER_MS: i64 = 2 * 86_400_000;

/// Seals, measures and asks again.
///
/// # Errors
/// The store cannot be opened or sealed.
pub async fn seal_and_check(dir: &Path, expected: &Expected, report: &mut Report) -> Result<()> {
    let samples = float(expected.samples());
    let head_bytes = float(size_of(dir)?);
    let (dir, at_ms, begun) = (dir.to_owned(), expected.at_ms, Instant::now());
    let open = tokio::task::spawn_blocking(move || Engine::open(dir, Config::default()));
    let (engine, opened) = open.await?.context("opening the series store")?;
    let open_s = begun.elapsed().as_secs_f64();
    report.check(format!("the store opened clean with {} samples", opened.samples), opened.is_clean());
    let (engine, begun) = (Arc::new(engine), Instant::now());
    let sealing = Arc::clone(&engine);
    let sealed = tokio::task::spawn_blocking(move || sealing.seal(at_ms + LATER_MS)).await?.context("sealing")?;
    let seal_s = begun.elapsed().as_secs_f64();
    let stats = engine.stats();
    report.figures([
        figure("head_bytes_per_sample", "on disk before sealing", "bytes per sample", head_bytes / samples),
        figure("disk_bytes_per_sample", "on disk after sealing, index and all", "bytes per sample", float(stats.day_bytes) / samples)
            .budget(0.5),
        figure("samples_per_chunk", "samples per sealed chunk", "", float(sealed.samples) / float(sealed.chunks.max(1))),
        figure("open_samples_per_s", "opening the store: samples replayed", "per s", samples / open_s),
        figure("seal_samples_per_s", "sealing", "samples per s", samples / seal_s),
    ]);
    let found = verify::check(expected, async |query| ask(&engine, query, at_ms).await).await?;
    found.report(report, "sealed in day files");
    Ok(())
}

/// `data` of an instant query, as the server would answer it.
async fn ask(engine: &Arc<Engine>, query: &str, at_ms: i64) -> Result<Value> {
    let (engine, query) = (Arc::clone(engine), query.to_owned());
    let reply = tokio::task::spawn_blocking(move || {
        let parameters = [("query".to_owned(), query), ("time".to_owned(), api::seconds(at_ms))];
        http::query(&*engine, http::Params(&parameters), at_ms, &EvalOptions::new(engine.config()))
    });
    let mut answer = serde_json::to_value(reply.await?)?;
    anyhow::ensure!(answer["status"] == "success", "{}", answer["error"]);
    Ok(answer["data"].take())
}
