//! Loki's reading API over the log engine, as Grafana's data source and logcli use it. `docs/logql.md` tells what is there.
//!
//! - [`query`]: lines and numbers; [`catalog`]: labels, streams, volumes; [`tail`]: lines as they come, by WebSocket
//! - [`parameters`]: what clients send; [`shapes`]: what they get
//!
//! # Invariants
//! - Mistakes are told as Loki does: plain text, with line and column where they are in a query.
//! - A query ends with its time, or when its client has gone.

pub mod catalog;
pub mod query;
pub mod tail;

mod parameters;
mod shapes;

use super::{
    Shared,
    prometheus::{CancelOnDrop, parameters as read},
};
use axum::{
    Json, Router,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::Value;
use shipwatch_logs::{Engine, Error, ParseError, Patience, logql::Expression};
use shipwatch_series::http::Params;
use std::{sync::Arc, time::Instant};

/// What Loki's status has for a client that has gone.
const CLIENT_CLOSED: u16 = 499;

/// All routes below `/loki/api/v1`.
pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/query", get(query::instant).post(query::instant))
        .route("/query_range", get(query::range).post(query::range))
        .route("/labels", get(catalog::labels).post(catalog::labels))
        .route("/label", get(catalog::labels).post(catalog::labels))
        .route("/label/{name}/values", get(catalog::label_values).post(catalog::label_values))
        .route("/series", get(catalog::series).post(catalog::series))
        .route("/index/stats", get(catalog::stats).post(catalog::stats))
        .route("/index/volume", get(catalog::volume).post(catalog::volume))
        .route("/index/volume_range", get(catalog::volume_range).post(catalog::volume_range))
        .route("/detected_labels", get(catalog::detected_labels).post(catalog::detected_labels))
        .route("/detected_fields", get(catalog::detected_fields).post(catalog::detected_fields))
        .route("/patterns", get(catalog::patterns).post(catalog::patterns))
        .route("/format_query", get(query::format).post(query::format))
        .route("/tail", get(tail::tail))
        .route("/status/buildinfo", get(catalog::build_info))
        .fallback(not_found)
}

async fn not_found() -> LokiError {
    LokiError { status: StatusCode::NOT_FOUND, message: "this part of Loki's API is not offered; docs/logql.md lists what is".to_owned() }
}

/// An error on its way to the client.
#[derive(Debug)]
pub struct LokiError {
    status: StatusCode,
    message: String,
}

impl LokiError {
    fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }
}

impl IntoResponse for LokiError {
    fn into_response(self) -> Response {
        (self.status, self.message).into_response()
    }
}

impl From<Error> for LokiError {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::Query(_) | Error::Invalid(_) => StatusCode::BAD_REQUEST,
            Error::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Error::Canceled => StatusCode::from_u16(CLIENT_CLOSED).unwrap_or(StatusCode::BAD_REQUEST),
            Error::TooManySubscribers(_) => StatusCode::TOO_MANY_REQUESTS,
            Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, message: error.to_string() }
    }
}

/// Where in a text a mistake is.
fn parse_error(text: &str, error: &ParseError) -> LokiError {
    let before: String = text.chars().take(error.column.saturating_sub(1)).collect();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    LokiError::bad_request(format!("parse error at line {line}, col {column}: {}", error.message))
}

/// The parameter `query`.
fn expression(parameters: &Params<'_>) -> Result<Expression, LokiError> {
    let text = parameters.get("query").unwrap_or_default();
    Expression::parse(text).map_err(|error| parse_error(text, &error))
}

/// A selector; nothing selects all.
fn selector(text: Option<&str>) -> Result<shipwatch_logs::Query, LokiError> {
    let text = text.unwrap_or("{}");
    shipwatch_logs::logql::parse_selector(text).map_err(|error| parse_error(text, &error))
}

async fn given(request: Request) -> Result<Vec<(String, String)>, LokiError> {
    read(request).await.map_err(|error| LokiError::bad_request(error.message))
}

/// Runs a query off the async threads, with the configured time and the client's patience as its bounds.
async fn run(
    state: Shared,
    request: Request,
    work: impl FnOnce(&Engine, Params<'_>, &Patience) -> Result<Value, LokiError> + Send + 'static,
) -> Result<Json<Value>, LokiError> {
    let parameters = given(request).await?;
    let cancel = CancelOnDrop::default();
    let patience = Patience { deadline: Instant::now().checked_add(state.config.query_timeout), canceled: Some(Arc::clone(&cancel.0)) };
    let logs = Arc::clone(&state.logs);
    let done = tokio::task::spawn_blocking(move || work(&logs, Params(&parameters), &patience)).await;
    let failed = |error: tokio::task::JoinError| LokiError { status: StatusCode::INTERNAL_SERVER_ERROR, message: error.to_string() };
    done.map_err(failed)?.map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_their_place() {
        for (text, expected) in [
            ("{a=}", "parse error at line 1, col 4: expected a text in quotes or backticks, found `}`"),
            ("{a=\"支\"}\n | json\n | nope", "parse error at line 3, col 4: `nope` is no stage"),
            ("", "parse error at line 1, col 1: the query is empty"),
        ] {
            let pairs = [("query".to_owned(), text.to_owned())];
            let error = expression(&Params(&pairs)).expect_err(text);
            assert_eq!(error.status, StatusCode::BAD_REQUEST);
            assert!(error.message.starts_with(expected), "{}", error.message);
        }
    }
}
