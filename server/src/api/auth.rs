//! Who may: sessions, API tokens, HTTP basic; passwords with argon2.

use super::{Shared, error::ApiError};
use crate::store::users::{Grant, User};
use argon2::{
    Argon2, PasswordHasher as _, PasswordVerifier as _,
    password_hash::{PasswordHash, SaltString},
};
use axum::{
    Extension, Json,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use shipwatch_common::time::{UnixMs, duration_ms, now_ms};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
};

const COOKIE: &str = "shipwatch_session";
/// Failures from one address within the window before further attempts are refused.
const MAX_FAILURES: u32 = 10;
const FAILURE_WINDOW_MS: i64 = 5 * 60_000;
/// Addresses remembered; a larger attack empties the table, which only costs it its memory.
const MAX_ADDRESSES: usize = 10_000;
/// A basic password that was right is not hashed again for this long: scrapers send it with every request.
const BASIC_CACHE_MS: i64 = 60_000;
const MAX_CACHED: usize = 1_000;
/// What API tokens begin with.
pub(super) const TOKEN_PREFIX: &str = "swt_";
/// Shortest password that a person may choose.
const MIN_PASSWORD: usize = 10;

/// Failed attempts and recently verified basic credentials. The rest is in the store.
#[derive(Debug, Default)]
pub struct Auth {
    failures: Mutex<HashMap<IpAddr, (UnixMs, u32)>>,
    verified: Mutex<HashMap<[u8; 32], (UnixMs, Grant)>>,
    /// Keys the cache, so that its entries are worthless elsewhere.
    process_key: [u8; 32],
}

impl Auth {
    /// With a random key.
    ///
    /// # Errors
    /// No randomness.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut auth = Self::default();
        getrandom::fill(&mut auth.process_key)?;
        Ok(auth)
    }

    /// Seconds to wait, if this address failed too often.
    fn blocked(&self, address: IpAddr, now: UnixMs) -> Option<u64> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = failures.get(&address)?;
        let left = since + FAILURE_WINDOW_MS - now;
        (*count >= MAX_FAILURES && left > 0).then(|| u64::try_from(left / 1000 + 1).unwrap_or(1))
    }

    fn failed(&self, address: IpAddr, now: UnixMs) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MAX_ADDRESSES {
            failures.retain(|_, (since, _)| now - *since < FAILURE_WINDOW_MS);
            if failures.len() >= MAX_ADDRESSES {
                failures.clear();
            }
        }
        let entry = failures.entry(address).or_insert((now, 0));
        if now - entry.0 >= FAILURE_WINDOW_MS {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }
}

/// Hash for a stored password.
///
/// # Errors
/// No randomness, or argon2 refuses.
pub fn hash_password(password: &str) -> Result<String, String> {
    let mut salt = [0u8; 16];
    getrandom::fill(&mut salt).map_err(|error| error.to_string())?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt).map_err(|error| error.to_string())?.to_string())
}

/// Whether a password is the one of a stored hash.
#[must_use]
pub fn verify_password(hash: &str, password: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// A random secret with a prefix that tells what it is when found somewhere.
///
/// # Errors
/// No randomness.
pub fn random_secret(prefix: &str) -> Result<String, getrandom::Error> {
    let mut bytes = [0u8; 24];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

/// What is stored of a random secret.
#[must_use]
pub fn secret_hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// How a request proved itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Proof {
    Cookie,
    Header,
}

/// Lets through what has credentials, and signing in; adds the [`Grant`] for handlers. Health and the dashboard's static files are
/// routed past it.
pub async fn guard(State(state): State<Shared>, mut request: Request, next: Next) -> Response {
    let is_sign_in = request.uri().path() == "/shipwatch/api/v1/session" && request.method() == Method::POST;
    if is_sign_in {
        return next.run(request).await;
    }
    match identify(&state, request.headers(), address(&request)).await {
        Ok(Some((_, Proof::Cookie))) if !request.method().is_safe() && !same_origin(request.headers()) => {
            ApiError::new(StatusCode::FORBIDDEN, "this request came from another site; send it from the dashboard, or with an API token")
                .into_response()
        }
        Ok(Some((grant, _))) => {
            request.extensions_mut().insert(grant);
            next.run(request).await
        }
        Ok(None) => {
            let mut response = ApiError::unauthenticated().into_response();
            // Browsers would show their own window for the dashboard's requests; programs ask for it with a header.
            if !request.headers().contains_key("sec-fetch-site") {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"shipwatch\""));
            }
            response
        }
        Err(error) => error.into_response(),
    }
}

fn address(request: &Request) -> IpAddr {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(IpAddr::from([0, 0, 0, 0]), |info| info.0.ip())
}

fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) == text("host"),
        (None, None) => true,
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

async fn identify(state: &Shared, headers: &HeaderMap, from: IpAddr) -> Result<Option<(Grant, Proof)>, ApiError> {
    let now = now_ms();
    if let Some(authorization) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) {
        let (scheme, value) = authorization.split_once(' ').unwrap_or((authorization, ""));
        if let Some(seconds) = state.auth.blocked(from, now) {
            return Err(too_many(seconds));
        }
        let grant = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => state.store.api_token(secret_hash(value.trim()), now).await?,
            "basic" => basic(state, value.trim(), now).await?,
            _ => None,
        };
        if grant.is_none() {
            state.auth.failed(from, now);
        }
        return Ok(grant.map(|grant| (grant, Proof::Header)));
    }
    match cookie(headers) {
        Some(token) => Ok(state.store.session(secret_hash(token), now).await?.map(|grant| (grant, Proof::Cookie))),
        None => Ok(None),
    }
}

fn too_many(seconds: u64) -> ApiError {
    ApiError::limited(format!("too many wrong attempts from this address; try again in {seconds} s"), seconds)
}

async fn basic(state: &Shared, encoded: &str, now: UnixMs) -> Result<Option<Grant>, ApiError> {
    let decoded = BASE64_STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let Some((user, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else { return Ok(None) };
    // Programs that know only names and passwords give a token as the password; the name is theirs to choose.
    if password.starts_with(TOKEN_PREFIX)
        && let Some(grant) = state.store.api_token(secret_hash(password), now).await?
    {
        return Ok(Some(grant));
    }
    let mut key = Sha256::new();
    key.update(state.auth.process_key);
    key.update(encoded.as_bytes());
    let key: [u8; 32] = key.finalize().into();
    let known = state.auth.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    if let Some((at, grant)) = known
        && now - at < BASIC_CACHE_MS
    {
        return Ok(Some(grant));
    }
    let Some(grant) = check_password(state, user, password).await? else { return Ok(None) };
    let mut verified = state.auth.verified.lock().unwrap_or_else(PoisonError::into_inner);
    if verified.len() >= MAX_CACHED {
        verified.clear();
    }
    verified.insert(key, (now, grant.clone()));
    Ok(Some(grant))
}

async fn check_password(state: &Shared, user: &str, password: &str) -> Result<Option<Grant>, ApiError> {
    let found = state.store.user(user).await?;
    // An unknown user takes as long as a wrong password.
    let decoy = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$u0jL1b3q4b2c6y6w1b1p8w3o1kq2bq7m1yq7c1r8n3A";
    let hash = found.as_ref().map_or_else(|| decoy.to_owned(), |user| user.password_hash.clone());
    let password = password.to_owned();
    let right = tokio::task::spawn_blocking(move || verify_password(&hash, &password))
        .await
        .map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(found.filter(|_| right).map(|user| Grant { user: user.name, role: user.role, expires_at_ms: None }))
}

/// What the dashboard shows of the signed-in user.
fn shown(grant: &Grant) -> Json<serde_json::Value> {
    Json(serde_json::json!({"user": grant.user, "role": grant.role, "expires_at_ms": grant.expires_at_ms}))
}

/// Body of signing in.
#[derive(Deserialize)]
pub struct SignIn {
    user: String,
    password: String,
}

impl std::fmt::Debug for SignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignIn").field("user", &self.user).finish_non_exhaustive()
    }
}

/// `POST session`.
///
/// # Errors
/// Wrong name or password; too many attempts.
pub async fn sign_in(
    State(state): State<Shared>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Json(request): Json<SignIn>,
) -> Result<Response, ApiError> {
    let now = now_ms();
    if let Some(seconds) = state.auth.blocked(from.ip(), now) {
        return Err(too_many(seconds));
    }
    let Some(mut grant) = check_password(&state, &request.user, &request.password).await? else {
        state.auth.failed(from.ip(), now);
        tracing::warn!(user = %request.user, address = %from.ip(), "sign-in failed");
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "the name or the password is wrong"));
    };
    let token = random_secret("sws_").map_err(|error| ApiError::internal(error.to_string()))?;
    let life = state.config.session_life;
    let expires = now.saturating_add(duration_ms(life));
    state.store.add_session(secret_hash(&token), &grant.user, now, expires).await?;
    grant.expires_at_ms = Some(expires);
    let mut response = shown(&grant).into_response();
    set_cookie(&state, &mut response, &token, life.as_secs());
    Ok(response)
}

fn set_cookie(state: &Shared, response: &mut Response, value: &str, max_age_s: u64) {
    let secure = if state.config.tls_certificate.is_empty() { "" } else { "; Secure" };
    let text = format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age_s}{secure}");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}

/// `GET session`.
pub async fn session(Extension(grant): Extension<Grant>) -> Json<serde_json::Value> {
    shown(&grant)
}

/// `DELETE session`.
///
/// # Errors
/// The store.
pub async fn sign_out(State(state): State<Shared>, headers: HeaderMap) -> Result<Response, ApiError> {
    if let Some(token) = cookie(&headers) {
        state.store.end_session(secret_hash(token)).await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_cookie(&state, &mut response, "", 0);
    Ok(response)
}

/// Body of changing the password.
#[derive(Deserialize)]
pub struct ChangePassword {
    old: String,
    new: String,
}

impl std::fmt::Debug for ChangePassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChangePassword(..)")
    }
}

/// `POST password`.
///
/// # Errors
/// The old password is wrong, or the new one too short.
pub async fn change_password(
    State(state): State<Shared>,
    Extension(grant): Extension<Grant>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Json(request): Json<ChangePassword>,
) -> Result<StatusCode, ApiError> {
    let now = now_ms();
    if let Some(seconds) = state.auth.blocked(from.ip(), now) {
        return Err(too_many(seconds));
    }
    if check_password(&state, &grant.user, &request.old).await?.is_none() {
        state.auth.failed(from.ip(), now);
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "the old password is wrong"));
    }
    if request.new.chars().count() < MIN_PASSWORD {
        return Err(ApiError::bad_request(format!("the new password needs at least {MIN_PASSWORD} characters")));
    }
    let new = request.new;
    let hashed = tokio::task::spawn_blocking(move || hash_password(&new)).await.map_err(|error| ApiError::internal(error.to_string()))?;
    let password_hash = hashed.map_err(ApiError::internal)?;
    state.store.set_user(User { name: grant.user.clone(), role: grant.role, password_hash }, &grant.user, now).await?;
    state.auth.verified.lock().unwrap_or_else(PoisonError::into_inner).clear();
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hashed_and_checked() {
        let hash = hash_password("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$"));
        assert!(verify_password(&hash, "correct horse"));
        assert!(!verify_password(&hash, "wrong horse"));
        assert!(!verify_password("nonsense", "correct horse"));
    }

    #[test]
    fn an_address_is_blocked_after_many_failures_and_let_go_again() {
        let auth = Auth::new().unwrap();
        let address = IpAddr::from([10, 0, 0, 1]);
        for at in 0..i64::from(MAX_FAILURES) {
            assert_eq!(auth.blocked(address, at), None);
            auth.failed(address, at);
        }
        assert!(auth.blocked(address, 100).is_some_and(|seconds| seconds <= 300));
        assert_eq!(auth.blocked(IpAddr::from([10, 0, 0, 2]), 100), None);
        assert_eq!(auth.blocked(address, FAILURE_WINDOW_MS), None);
    }

    #[test]
    fn another_site_is_told_apart() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(name, value)| (axum::http::HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect::<HeaderMap>()
        };
        assert!(same_origin(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(!same_origin(&headers(&[("sec-fetch-site", "cross-site"), ("origin", "http://a"), ("host", "a")])));
        assert!(same_origin(&headers(&[("origin", "http://a:9700"), ("host", "a:9700")])));
        assert!(!same_origin(&headers(&[("origin", "http://evil"), ("host", "a:9700")])));
        assert!(!same_origin(&headers(&[("origin", "null"), ("host", "a:9700")])));
        let cookies = headers(&[("cookie", "a=b; shipwatch_session=x")]);
        assert_eq!(cookie(&cookies), Some("x"));
    }
}
