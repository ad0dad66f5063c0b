//! `/metrics`: the server's own numbers, in Prometheus' text format.

use super::{Shared, push, receive};
use crate::{forward::Forwarding, gateway, ingest};
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use shipwatch_logs::{Query as LogQuery, VOLUME_LABELS, Volume};
use shipwatch_series::promql::CacheStats;
use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Groups of log streams that have their own numbers; `GET logs/volume` has all.
const VOLUMES_SHOWN: usize = 500;

/// Where the counters are.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Ingest.
    pub ingest: Arc<ingest::Counters>,
    /// Gateway.
    pub gateway: Arc<gateway::Counters>,
    /// Targets that samples are sent to.
    pub forward: Arc<Forwarding>,
}

fn put(text: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    // Writing to a String cannot fail.
    let _infallible = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
}

#[expect(clippy::cast_precision_loss, reason = "counters stay far below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

/// `GET /metrics`.
pub async fn export(State(state): State<Shared>) -> Response {
    let series = Arc::clone(&state.series);
    let logs = Arc::clone(&state.logs);
    let stats = tokio::task::spawn_blocking(move || {
        let volumes = logs.volumes(&VOLUME_LABELS.map(str::to_owned), &LogQuery::default(), 0, i64::MAX);
        (series.stats(), logs.stats().ok(), volumes.ok())
    })
    .await
    .ok();
    let mut text = String::new();
    let connected = u32::try_from(state.registry.all().len()).unwrap_or(u32::MAX);
    put(&mut text, "shipwatch_connected_agents", "gauge", "Agents connected now.", f64::from(connected));
    from_agents(&mut text, &state.own);
    received(&mut text, state.receive.counters());
    pushed(&mut text, state.push.counters());
    query_cache(&mut text, &state.range_cache.stats());
    if let Some((series, logs, volumes)) = stats {
        series_store(&mut text, &series);
        log_volumes(&mut text, volumes.as_ref().map_or(&[], |volumes| &volumes.volumes));
        if let Some(logs) = logs {
            log_store(&mut text, &logs);
        }
    }
    text.push_str(&state.own.forward.own_metrics());
    text.push_str(&state.alerting.own_metrics());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn counted(text: &mut String, name: &str, help: &str, counter: &AtomicU64) {
    put(text, name, "counter", help, float(counter.load(Ordering::Relaxed)));
}

fn from_agents(text: &mut String, Sources { ingest, gateway, .. }: &Sources) {
    for (name, help, counter) in [
        ("shipwatch_ingest_samples_total", "Samples stored.", &ingest.samples_total),
        ("shipwatch_ingest_log_lines_total", "Log lines stored.", &ingest.lines_total),
        ("shipwatch_ingest_log_bytes_total", "Bytes of log text stored.", &ingest.line_bytes_total),
        ("shipwatch_ingest_events_total", "Deploy events stored.", &ingest.events_total),
        ("shipwatch_ingest_duplicates_total", "Records that had been stored before.", &ingest.duplicates_total),
        ("shipwatch_ingest_failed_commits_total", "Commits that failed and were tried again.", &ingest.failed_commits_total),
        ("shipwatch_gateway_sessions_total", "Sessions that began.", &gateway.sessions_total),
        ("shipwatch_gateway_refused_total", "Connections and enrolments refused.", &gateway.refused_total),
        ("shipwatch_gateway_bad_messages_total", "Messages that could not be read.", &gateway.bad_messages_total),
    ] {
        counted(text, name, help, counter);
    }
}

fn received(text: &mut String, counters: &receive::Counters) {
    for (name, help, counter) in [
        ("shipwatch_receive_requests_total", "Remote-write requests that were stored, at least in part.", &counters.requests_total),
        ("shipwatch_receive_refused_requests_total", "Remote-write requests of which nothing was taken.", &counters.refused_requests_total),
        ("shipwatch_receive_samples_total", "Samples stored from remote write.", &counters.samples_total),
        ("shipwatch_receive_refused_samples_total", "Samples refused: labels, time, or too many series.", &counters.refused_samples_total),
        ("shipwatch_receive_duplicate_samples_total", "Samples of replicas that are not listened to.", &counters.duplicate_samples_total),
        ("shipwatch_receive_histograms_total", "Native histograms that were left out.", &counters.histograms_total),
        ("shipwatch_receive_exemplars_total", "Exemplars that were left out.", &counters.exemplars_total),
    ] {
        counted(text, name, help, counter);
    }
}

fn pushed(text: &mut String, counters: &push::Counters) {
    for (name, help, counter) in [
        ("shipwatch_push_requests_total", "Requests with log lines that were stored, at least in part.", &counters.requests_total),
        ("shipwatch_push_refused_requests_total", "Requests with log lines of which nothing was taken.", &counters.refused_requests_total),
        ("shipwatch_push_duplicate_requests_total", "Requests with log lines that had come before.", &counters.duplicate_requests_total),
        ("shipwatch_push_lines_total", "Pushed log lines that were stored.", &counters.lines_total),
        ("shipwatch_push_bytes_total", "Bytes of their text.", &counters.bytes_total),
        ("shipwatch_push_refused_lines_total", "Pushed log lines that were left out.", &counters.refused_lines_total),
        ("shipwatch_push_masked_values_total", "Values that were masked in pushed log lines.", &counters.masked_total),
        (
            "shipwatch_push_replaced_lines_total",
            "Pushed log lines that could not be masked and were replaced.",
            &counters.replaced_lines_total,
        ),
    ] {
        counted(text, name, help, counter);
    }
}

fn series_store(text: &mut String, stats: &shipwatch_series::store::Stats) {
    let refused = stats.refused_too_many_series_total
        + stats.refused_too_old_total
        + stats.refused_too_far_ahead_total
        + stats.refused_out_of_order_total
        + stats.refused_duplicate_total
        + stats.refused_host_series_total
        + stats.refused_without_labels_total;
    for (name, kind, help, value) in [
        ("shipwatch_series_head", "gauge", "Series in memory.", stats.head_series),
        ("shipwatch_series_bytes", "gauge", "Bytes of the series store on disk.", stats.head_bytes + stats.day_bytes + stats.tier_bytes),
        ("shipwatch_series_summaries_bytes", "gauge", "Bytes of these that are summaries.", stats.tier_bytes),
        (
            "shipwatch_series_refused_samples_total",
            "counter",
            "Samples refused: too old, too far ahead, out of order, too many series.",
            refused,
        ),
        ("shipwatch_series_damaged_files_total", "counter", "Files found damaged and put aside.", stats.damaged_files_total),
        ("shipwatch_series_damaged_chunks_total", "counter", "Reads that left damaged chunks out.", stats.damaged_chunks_total),
        (
            "shipwatch_series_refused_host_series_total",
            "counter",
            "Samples refused: their host has too many series.",
            stats.refused_host_series_total,
        ),
        (
            "shipwatch_series_refused_out_of_order_total",
            "counter",
            "Samples refused: too far behind their series.",
            stats.refused_out_of_order_total,
        ),
        ("shipwatch_series_expired_files_total", "counter", "Files that retention deleted.", stats.expired_files_total),
        ("shipwatch_series_expired_bytes_total", "counter", "Bytes that retention freed.", stats.expired_bytes_total),
        (
            "shipwatch_series_expired_samples_total",
            "counter",
            "Samples that retention took out of days that stay.",
            stats.expired_samples_total,
        ),
    ] {
        put(text, name, kind, help, float(value));
    }
}

fn query_cache(text: &mut String, stats: &CacheStats) {
    for (name, kind, help, value) in [
        ("shipwatch_query_cache_hits_total", "counter", "Range queries of which steps were kept.", stats.hits_total),
        ("shipwatch_query_cache_misses_total", "counter", "Range queries that can be kept, of which no step was.", stats.misses_total),
        ("shipwatch_query_cache_evictions_total", "counter", "Results that made room for others.", stats.evictions_total),
        ("shipwatch_query_cache_entries", "gauge", "Results that are kept.", stats.entries),
        ("shipwatch_query_cache_bytes", "gauge", "Bytes that they take, about.", stats.bytes),
    ] {
        put(text, name, kind, help, float(value));
    }
}

/// The largest groups of log streams; `GET logs/volume` has all.
fn log_volumes(text: &mut String, volumes: &[Volume]) {
    type Value = fn(&Volume) -> u64;
    let metrics: [(&str, &str, Value); 3] = [
        ("lines", "Log lines stored now.", |volume| volume.lines),
        ("raw_bytes", "Text of the log lines stored now.", |volume| volume.raw_bytes),
        ("stored_bytes", "Size of the sealed log lines on disk.", |volume| volume.stored_bytes),
    ];
    for (name, help, value) in metrics {
        let _infallible = write!(text, "# HELP shipwatch_log_volume_{name} {help}\n# TYPE shipwatch_log_volume_{name} gauge\n");
        for volume in volumes.iter().take(VOLUMES_SHOWN) {
            let _infallible = writeln!(text, "shipwatch_log_volume_{name}{} {}", volume.labels, value(volume));
        }
    }
}

fn log_store(text: &mut String, stats: &impl serde::Serialize) {
    let stats = serde_json::to_value(stats).unwrap_or_default();
    for (key, value) in stats.as_object().into_iter().flatten() {
        if let Some(value) = value.as_f64() {
            put(text, &format!("shipwatch_logs_{key}"), "gauge", "See the log engine's statistics.", value);
        }
    }
}
