//! API tokens and enrolment tokens.

use super::{
    Shared,
    auth::{TOKEN_PREFIX, random_secret, secret_hash},
    error::ApiError,
};
use crate::store::{
    hosts::EnrolmentGrant,
    users::{ApiToken, Grant},
};
use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};
use shipwatch_common::{
    identity::EnrolmentToken,
    model::Labels,
    time::{duration_ms, now_ms, parse_duration},
};
use std::collections::BTreeMap;

fn ttl_ms(text: &str) -> Result<i64, ApiError> {
    let ttl = parse_duration(text).map_err(|error| ApiError::bad_request(format!("`ttl`: {error}")))?;
    let ms = duration_ms(ttl);
    if !(1_000..=10 * 365 * 86_400_000).contains(&ms) {
        return Err(ApiError::bad_request("`ttl` must be between 1s and 10y"));
    }
    Ok(ms)
}

/// `GET tokens`.
///
/// # Errors
/// The store.
pub async fn list(State(state): State<Shared>, Extension(grant): Extension<Grant>) -> Result<Json<Value>, ApiError> {
    let tokens: Vec<Value> = state
        .store
        .api_tokens(&grant.user)
        .await?
        .into_iter()
        .map(|token| {
            json!({"id": token.id, "name": token.name, "created_at_ms": token.created_at_ms, "expires_at_ms": token.expires_at_ms,
                   "last_used_at_ms": token.last_used_at_ms})
        })
        .collect();
    Ok(Json(json!({"tokens": tokens})))
}

/// Body of a new API token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    name: String,
    #[serde(default)]
    ttl: Option<String>,
}

/// `POST tokens`.
///
/// # Errors
/// A bad name or ttl.
pub async fn create(
    State(state): State<Shared>,
    Extension(grant): Extension<Grant>,
    Json(request): Json<NewToken>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    if request.name.is_empty() || request.name.chars().count() > 100 {
        return Err(ApiError::bad_request("`name` must have 1 to 100 characters"));
    }
    let now = now_ms();
    let expires_at_ms = request.ttl.as_deref().map(ttl_ms).transpose()?.map(|ttl| now + ttl);
    let secret = random_secret(TOKEN_PREFIX).map_err(|error| ApiError::internal(error.to_string()))?;
    let token =
        ApiToken { id: uuid::Uuid::now_v7().to_string(), name: request.name, created_at_ms: now, expires_at_ms, last_used_at_ms: None };
    let id = token.id.clone();
    state.store.add_api_token(token, secret_hash(&secret), &grant.user).await?;
    Ok((StatusCode::CREATED, Json(json!({"id": id, "token": secret}))))
}

/// `DELETE tokens/{id}`.
///
/// # Errors
/// No such token.
pub async fn remove(
    State(state): State<Shared>,
    Extension(grant): Extension<Grant>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    state.store.delete_api_token(&id, &grant.user, now_ms()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET enrolment-tokens`.
///
/// # Errors
/// The store.
pub async fn list_enrolment(State(state): State<Shared>) -> Result<Json<Value>, ApiError> {
    let tokens: Vec<Value> = state
        .store
        .enrolment_tokens(now_ms())
        .await?
        .into_iter()
        .map(|token| {
            json!({"id": token.id, "env": token.env, "region": token.region, "labels": token.labels, "uses_left": token.uses_left,
                   "expires_at_ms": token.expires_at_ms})
        })
        .collect();
    Ok(Json(json!({"tokens": tokens})))
}

/// Body of a new enrolment token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEnrolmentToken {
    env: String,
    #[serde(default)]
    region: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default = "NewEnrolmentToken::default_ttl")]
    ttl: String,
    #[serde(default = "NewEnrolmentToken::default_uses")]
    uses: i64,
}

impl NewEnrolmentToken {
    fn default_ttl() -> String {
        "1h".to_owned()
    }
    const fn default_uses() -> i64 {
        1
    }
}

/// Checks what a token gives to its hosts; all mistakes at once.
///
/// # Errors
/// One line per mistake.
pub fn check_grant(env: &str, region: &str, labels: &BTreeMap<String, String>, uses: i64) -> Result<(), String> {
    let mut wrong = Vec::new();
    let word = |text: &str| {
        !text.is_empty() && text.len() <= 63 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    if !word(env) {
        wrong.push(format!("`env` must be 1 to 63 of a-z, A-Z, 0-9, - _ . (such as prod), not {env:?}"));
    }
    if !region.is_empty() && !word(region) {
        wrong.push(format!("`region` must be up to 63 of a-z, A-Z, 0-9, - _ . (such as eu), not {region:?}"));
    }
    for name in labels.keys() {
        let good = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !good || ["env", "region", "host", "instance", "job", "__name__"].contains(&name.as_str()) {
            wrong.push(format!("label `{name}` must be a-z, 0-9 and _ and not one of env, region, host, instance, job"));
        }
    }
    if let Err(error) = Labels::new(labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
        wrong.push(error.to_string());
    }
    if !(1..=100_000).contains(&uses) {
        wrong.push(format!("`uses` must be 1 to 100000, not {uses}"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// `POST enrolment-tokens`.
///
/// # Errors
/// A bad field; all are named.
pub async fn create_enrolment(
    State(state): State<Shared>,
    Extension(grant): Extension<Grant>,
    Json(request): Json<NewEnrolmentToken>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    check_grant(&request.env, &request.region, &request.labels, request.uses).map_err(ApiError::bad_request)?;
    let now = now_ms();
    let expires_at_ms = now + ttl_ms(&request.ttl)?;
    let token = EnrolmentToken::create(state.ca_fingerprint_raw).map_err(|error| ApiError::internal(error.to_string()))?;
    let id = uuid::Uuid::now_v7().to_string();
    let stored = EnrolmentGrant {
        id: id.clone(),
        env: request.env,
        region: request.region,
        labels: request.labels,
        uses_left: request.uses,
        expires_at_ms,
    };
    state.store.add_enrolment_token(stored, EnrolmentToken::secret_hash(&token.secret), &grant.user, now).await?;
    let text = token.to_text();
    let command = format!("shipwatch-agent enroll --server {} --token {text}", state.agents_address);
    Ok((StatusCode::CREATED, Json(json!({"id": id, "token": text, "command": command}))))
}

/// `DELETE enrolment-tokens/{id}`.
///
/// # Errors
/// No such token.
pub async fn remove_enrolment(
    State(state): State<Shared>,
    Extension(grant): Extension<Grant>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    state.store.delete_enrolment_token(&id, &grant.user, now_ms()).await?;
    Ok(StatusCode::NO_CONTENT)
}
