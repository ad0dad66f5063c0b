//! The HTTP API: translates between JSON and what the other modules do. `docs/api.md` is its contract.
//!
//! - [`auth`]: who may; [`error`]: how it is said that something went wrong; [`compress`]: answers made smaller
//! - one file per resource: [`hosts`], [`tokens`], [`prometheus`], [`receive`], [`push`], [`remote_read`], [`exchange`], [`status`], [`logs`], [`log_admin`], [`loki`] (with [`websocket`]), [`masking`], [`alerts`], [`deployments`], [`live`]
//!
//! # Invariants
//! - Nothing but the health endpoints, the sign-in page with its assets and `POST session` answers without credentials.
//! - A writing request with a cookie must come from the same origin.
//! - Bodies are bounded; queries have a deadline and end when the client goes away.

pub mod alerts;
pub mod auth;
mod body;
pub mod compress;
pub mod deployments;
pub mod error;
pub mod exchange;
pub mod hosts;
pub mod live;
pub mod log_admin;
pub mod logs;
pub mod loki;
pub mod masking;
pub mod own_metrics;
pub mod prometheus;
pub mod push;
pub mod receive;
pub mod remote_read;
pub mod status;
pub mod tokens;
pub mod websocket;

use crate::{deploys::Controller, gateway::registry::Registry, store::Store};
use auth::Auth;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use serde::{Deserialize, Serialize};
use shipwatch_common::{config::Problems, time::UnixMs};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// Where people and programs connect.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port (TCP) of dashboard and API.
    pub listen: String,
    /// URL under which people reach the dashboard, for links in messages; empty makes one from `listen`.
    pub external_url: String,
    /// Certificate chain (PEM). With it and `tls_key` the API speaks HTTPS only.
    pub tls_certificate: String,
    /// Private key (PEM) of `tls_certificate`.
    pub tls_key: String,
    /// How long a session lasts after signing in.
    #[serde(with = "shipwatch_common::time::serde_duration")]
    pub session_life: Duration,
    /// A query that takes longer is ended with an error.
    #[serde(with = "shipwatch_common::time::serde_duration")]
    pub query_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9700".to_owned(),
            external_url: String::new(),
            tls_certificate: String::new(),
            tls_key: String::new(),
            session_life: Duration::from_secs(12 * 3600),
            query_timeout: Duration::from_secs(60),
        }
    }
}

impl Config {
    /// Checks addresses, files' pairing and bounds.
    pub fn check(&self, problems: &mut Problems) {
        if self.listen.parse::<SocketAddr>().is_err() {
            problems.add("listen", format!("must be ADDRESS:PORT, such as 127.0.0.1:9700, not {:?}", self.listen));
        }
        if self.tls_certificate.is_empty() != self.tls_key.is_empty() {
            problems.add("tls_certificate", "and `tls_key` belong together: give both or none");
        }
        let schemes = ["http://", "https://"];
        if !self.external_url.is_empty() && !schemes.iter().any(|scheme| self.external_url.starts_with(scheme)) {
            problems.add("external_url", "must begin with http:// or https://");
        }
        if self.session_life < Duration::from_secs(60) {
            problems.add("session_life", "must be at least 1m");
        }
        if self.query_timeout.is_zero() {
            problems.add("query_timeout", "must be more than 0s");
        }
    }

    /// The URL for links.
    #[must_use]
    pub fn url(&self, bound: SocketAddr) -> String {
        let scheme = if self.tls_certificate.is_empty() { "http" } else { "https" };
        if self.external_url.is_empty() { format!("{scheme}://{bound}") } else { self.external_url.trim_end_matches('/').to_owned() }
    }
}

/// What every handler may use.
#[derive(Debug)]
pub struct State {
    /// Own configuration.
    pub config: Config,
    /// Who may.
    pub auth: Auth,
    /// `control.db`.
    pub store: Arc<Store>,
    /// Series.
    pub series: Arc<shipwatch_series::Engine>,
    /// Results of range queries over `series`.
    pub range_cache: Arc<shipwatch_series::promql::RangeCache>,
    /// What others write.
    pub receive: receive::Receive,
    /// Log lines that others push.
    pub push: push::Push,
    /// Log lines.
    pub logs: Arc<shipwatch_logs::Engine>,
    /// Live connections.
    pub registry: Arc<Registry>,
    /// Deployments.
    pub deploys: Arc<Controller>,
    /// Rules and alerts.
    pub alerting: Arc<dyn alerts::Alerting>,
    /// Changes for the live stream.
    pub changes: live::Changes,
    /// The server's own metrics.
    pub own: own_metrics::Sources,
    /// SHA-256 of the CA, hex.
    pub ca_fingerprint: String,
    /// SHA-256 of the CA, for enrolment tokens.
    pub ca_fingerprint_raw: [u8; 32],
    /// How agents reach the gateway.
    pub agents_address: String,
    /// When the server started.
    pub started_at_ms: UnixMs,
    /// Data directory, for the disk's fill.
    pub data_dir: PathBuf,
}

/// Shared state of the router.
pub type Shared = Arc<State>;

/// Largest body of a request.
const MAX_BODY_BYTES: usize = 2 << 20;

/// All routes.
pub fn router(state: Shared) -> Router {
    let own = Router::new()
        .route("/session", post(auth::sign_in).get(auth::session).delete(auth::sign_out))
        .route("/password", post(auth::change_password))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}", delete(tokens::remove))
        .route("/enrolment-tokens", get(tokens::list_enrolment).post(tokens::create_enrolment))
        .route("/enrolment-tokens/{id}", delete(tokens::remove_enrolment))
        .route("/info", get(hosts::info))
        .route("/hosts", get(hosts::list))
        .route("/hosts/{id}", get(hosts::one))
        .route("/hosts/{id}/revoke", post(hosts::revoke))
        .route("/logs", get(logs::search))
        .route("/logs/histogram", get(logs::histogram))
        .route("/logs/labels", get(logs::labels))
        .route("/logs/labels/{name}/values", get(logs::label_values))
        .route("/logs/context", get(logs::context))
        .route("/logs/tail", get(logs::tail))
        .route("/mask/preview", post(masking::preview))
        .route("/logs/volume", get(log_admin::volume))
        .route("/logs/erase", post(log_admin::erase))
        .route("/alerts", get(alerts::list))
        .route("/alerts/{fingerprint}", get(alerts::one))
        .route("/notifications", get(alerts::notifications))
        .route("/channels", get(alerts::channels))
        .route("/channels/{name}/test", post(alerts::test_channel))
        .route("/deployments", get(deployments::list).post(deployments::create))
        .route("/deployments/{id}", get(deployments::one))
        .route("/deployments/{id}/events", get(deployments::events))
        .route("/deployments/{id}/log", get(deployments::log))
        .route("/deployments/{id}/rollback", post(deployments::roll_back))
        .route("/deployments/{id}/abort", post(deployments::abort))
        .route("/live", get(live::stream));
    let prometheus = Router::new()
        .route("/query", get(prometheus::query).post(prometheus::query))
        .route("/query_range", get(prometheus::query_range).post(prometheus::query_range))
        .route("/series", get(prometheus::series).post(prometheus::series))
        .route("/labels", get(prometheus::labels).post(prometheus::labels))
        .route("/label/{name}/values", get(prometheus::label_values))
        .route("/metadata", get(prometheus::metadata))
        .route("/query_exemplars", get(prometheus::exemplars).post(prometheus::exemplars))
        .route("/format_query", get(prometheus::format_query).post(prometheus::format_query))
        .route("/parse_query", get(prometheus::parse_query).post(prometheus::parse_query))
        .route("/status/tsdb", get(prometheus::tsdb))
        .route("/write", post(receive::write))
        .route("/read", post(remote_read::read))
        .route("/export", get(exchange::export).post(exchange::export))
        .route("/import", post(exchange::import))
        .route("/import/prometheus", post(exchange::import_text))
        .route("/targets", get(status::targets))
        .route("/alertmanagers", get(status::alertmanagers))
        .route("/notifications", get(status::notifications))
        .route("/status/runtimeinfo", get(status::runtime_info))
        .route("/status/walreplay", get(status::replay))
        .route("/rules", get(prometheus::rules))
        .route("/alerts", get(prometheus::alerts))
        .route("/status/buildinfo", get(prometheus::build_info))
        .fallback(prometheus::not_found)
        .layer(middleware::from_fn(compress::layer));
    let elastic = Router::new()
        .route("/", get(push::elastic::root))
        .route("/_bulk", post(push::elastic::bulk).put(push::elastic::bulk))
        .route("/{index}/_bulk", post(push::elastic::bulk_to).put(push::elastic::bulk_to))
        .fallback(push::elastic::other);
    // Whatever is added here asks for credentials.
    let guarded = Router::new()
        .nest("/shipwatch/api/v1", own.fallback(error::not_found))
        .nest("/api/v1", prometheus)
        .nest("/loki/api/v1", loki::routes().layer(middleware::from_fn(compress::layer)))
        .route("/ready", get(|| async { "ready\n" }))
        .route("/-/reload", post(alerts::reload))
        .route("/metrics", get(own_metrics::export))
        .route("/federate", get(exchange::federate))
        .route("/loki/api/v1/push", post(push::loki))
        .route("/v1/logs", post(push::otlp))
        .route("/otlp/v1/logs", post(push::otlp))
        .nest("/elasticsearch", elastic)
        .route("/elasticsearch/", get(push::elastic::root))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), auth::guard));
    Router::new()
        .merge(guarded)
        .route("/-/healthy", get(|| async { "healthy\n" }))
        .route("/-/ready", get(|| async { "ready\n" }))
        .route("/graph", get(crate::web::graph))
        .fallback(crate::web::serve)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(harden))
        .with_state(state)
}

/// Headers that keep a browser from doing what the dashboard never needs.
async fn harden(request: Request, next: Next) -> Response {
    if request.method() == Method::TRACE {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
