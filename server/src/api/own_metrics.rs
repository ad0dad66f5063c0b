//! `/metrics`: the server's own numbers, in Prometheus' text format.

use super::Shared;
use crate::{gateway, ingest};
use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Where the counters are.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Ingest.
    pub ingest: Arc<ingest::Counters>,
    /// Gateway.
    pub gateway: Arc<gateway::Counters>,
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
    let stats = tokio::task::spawn_blocking(move || (series.stats(), logs.stats().ok())).await.ok();
    let mut text = String::new();
    let connected = u32::try_from(state.registry.all().len()).unwrap_or(u32::MAX);
    put(&mut text, "shipwatch_connected_agents", "gauge", "Agents connected now.", f64::from(connected));
    let count = |counter: &AtomicU64| float(counter.load(Ordering::Relaxed));
    let (ingest, gateway) = (&state.own.ingest, &state.own.gateway);
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
        put(&mut text, name, "counter", help, count(counter));
    }
    let received = state.receive.counters();
    for (name, help, counter) in [
        ("requests_total", "Remote-write requests that were stored, at least in part.", &received.requests_total),
        ("refused_requests_total", "Remote-write requests of which nothing was taken.", &received.refused_requests_total),
        ("samples_total", "Samples stored from remote write.", &received.samples_total),
        ("refused_samples_total", "Samples refused: labels, time, or too many series.", &received.refused_samples_total),
        ("duplicate_samples_total", "Samples of replicas that are not listened to.", &received.duplicate_samples_total),
        ("histograms_total", "Native histograms that were left out.", &received.histograms_total),
        ("exemplars_total", "Exemplars that were left out.", &received.exemplars_total),
    ] {
        put(&mut text, &format!("shipwatch_receive_{name}"), "counter", help, count(counter));
    }
    if let Some((series, logs)) = stats {
        put(&mut text, "shipwatch_series_head", "gauge", "Series in memory.", float(series.head_series));
        put(
            &mut text,
            "shipwatch_series_bytes",
            "gauge",
            "Bytes of the series store on disk.",
            float(series.head_bytes + series.day_bytes),
        );
        let refused = series.refused_too_many_series_total
            + series.refused_too_old_total
            + series.refused_too_far_ahead_total
            + series.refused_out_of_order_total
            + series.refused_duplicate_total
            + series.refused_host_series_total
            + series.refused_without_labels_total;
        put(
            &mut text,
            "shipwatch_series_refused_samples_total",
            "counter",
            "Samples refused: too old, too far ahead, out of order, too many series.",
            float(refused),
        );
        put(
            &mut text,
            "shipwatch_series_damaged_files_total",
            "counter",
            "Files found damaged and put aside.",
            float(series.damaged_files_total),
        );
        for (name, help, value) in [
            (
                "shipwatch_series_refused_host_series_total",
                "Samples refused: their host has too many series.",
                series.refused_host_series_total,
            ),
            (
                "shipwatch_series_refused_out_of_order_total",
                "Samples refused: too far behind their series.",
                series.refused_out_of_order_total,
            ),
            ("shipwatch_series_expired_files_total", "Files that retention deleted.", series.expired_files_total),
            ("shipwatch_series_expired_bytes_total", "Bytes that retention freed.", series.expired_bytes_total),
            ("shipwatch_series_expired_samples_total", "Samples that retention took out of days that stay.", series.expired_samples_total),
        ] {
            put(&mut text, name, "counter", help, float(value));
        }
        if let Some(logs) = logs.and_then(|stats| serde_json::to_value(stats).ok()) {
            for (key, value) in logs.as_object().into_iter().flatten() {
                if let Some(value) = value.as_f64() {
                    put(&mut text, &format!("shipwatch_logs_{key}"), "gauge", "See the log engine's statistics.", value);
                }
            }
        }
    }
    text.push_str(&state.alerting.own_metrics());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
