//! What is stored of the logs, and taking lines out of it for good.

use super::{
    Shared,
    error::ApiError,
    logs::{blocking, query, range},
};
use crate::store::users::Grant;
use axum::{
    Extension, Json,
    extract::{Query, State},
};
use serde::Deserialize;
use serde_json::{Value, json};
use shipwatch_common::time::{now_ms, now_ns};
use shipwatch_logs::{Erase, EraseBy, Erased, VOLUME_LABELS};
use std::{collections::HashMap, sync::Arc};

/// `GET logs/volume`.
///
/// # Errors
/// A query or parameter that cannot be read.
pub async fn volume(State(state): State<Shared>, Query(parameters): Query<HashMap<String, String>>) -> Result<Json<Value>, ApiError> {
    let query = query(&parameters)?;
    let (start_ns, end_ns) = range(&parameters)?;
    let by: Vec<String> = match parameters.get("by").filter(|text| !text.is_empty()) {
        Some(text) => text.split(',').map(|name| name.trim().to_owned()).collect(),
        None => VOLUME_LABELS.map(str::to_owned).to_vec(),
    };
    let (volumes, stats) = blocking(&state, move |logs| Ok((logs.volumes(&by, &query, start_ns, end_ns)?, logs.stats()?))).await?;
    let totals = json!({
        "lines": stats.lines, "head_lines": stats.head_lines, "raw_bytes": stats.raw_bytes, "stored_bytes": stats.stored_bytes,
        "duplicate_lines": stats.duplicate_lines, "cut_lines": stats.cut_lines, "redated_lines": stats.redated_lines,
        "expired_lines": stats.expired_lines, "erased_lines": stats.erased_lines, "lost_lines": stats.lost_lines,
    });
    Ok(Json(json!({"volumes": volumes.volumes, "left_out": volumes.left_out, "totals": totals})))
}

/// Body of `POST logs/erase`: one of `query` and `pseudonym`. Nanoseconds are text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EraseRequest {
    #[serde(default)]
    query: Option<String>,
    #[serde(default)]
    pseudonym: Option<String>,
    #[serde(default)]
    start_ns: Option<String>,
    #[serde(default)]
    end_ns: Option<String>,
    /// Only counts, unless it is `false`.
    #[serde(default = "yes")]
    dry_run: bool,
}

const fn yes() -> bool {
    true
}

impl EraseRequest {
    fn erase(&self) -> Result<Erase, ApiError> {
        let by = match (&self.query, &self.pseudonym) {
            (Some(query), None) => EraseBy::Query(query.clone()),
            (None, Some(pseudonym)) => EraseBy::Pseudonym(pseudonym.clone()),
            _ => return Err(ApiError::bad_request("give `query` or `pseudonym`, one of them")),
        };
        let number = |name: &str, text: &Option<String>, otherwise: i64| match text {
            Some(text) => text.parse().map_err(|_| ApiError::bad_request(format!("`{name}` must be nanoseconds as text, such as \"0\""))),
            None => Ok(otherwise),
        };
        Ok(Erase { by, start_ns: number("start_ns", &self.start_ns, 0)?, end_ns: number("end_ns", &self.end_ns, now_ns())? })
    }
}

/// `POST logs/erase`. Each job is in the audit log, without what was erased.
///
/// # Errors
/// A body that cannot be read; a full disk: the job is kept then and done when there is room.
pub async fn erase(
    State(state): State<Shared>,
    Extension(grant): Extension<Grant>,
    Json(request): Json<EraseRequest>,
) -> Result<Json<Value>, ApiError> {
    let erase = request.erase()?;
    if request.dry_run {
        let counts = blocking(&state, move |logs| logs.plan_erase(&erase)).await?;
        return Ok(Json(json!({"dry_run": true, "counts": counts})));
    }
    // On its own task: a client that goes away does not leave a job without its line in the audit log.
    let done = tokio::spawn(run(Arc::clone(&state), grant.user, erase)).await;
    let erased = done.map_err(|error| ApiError::internal(error.to_string()))??;
    Ok(Json(json!({"dry_run": false, "job": erased.job, "counts": erased.counts, "proof": erased.proof, "clean": erased.proof.is_clean()})))
}

async fn run(state: Shared, user: String, erase: Erase) -> Result<Erased, ApiError> {
    let kind = if matches!(erase.by, EraseBy::Query(_)) { "a query" } else { "a pseudonym" };
    let begun = format!("by {kind}, from {} to {} ns", erase.start_ns, erase.end_ns);
    state.store.audit(now_ms(), &user, "logs.erase_begun", &begun).await?;
    let erased = match blocking(&state, move |logs| logs.erase(&erase)).await {
        Ok(erased) => erased,
        Err(error) => {
            state.store.audit(now_ms(), &user, "logs.erase_failed", &begun).await?;
            return Err(error);
        }
    };
    state.store.audit(now_ms(), &user, "logs.erase", &detail(&erased)).await?;
    Ok(erased)
}

/// What the audit log says of a job.
#[must_use]
pub fn detail(erased: &Erased) -> String {
    let (counts, proof) = (&erased.counts, &erased.proof);
    format!(
        "job {}, from {} to {} ns: {} lines of {} streams in {} days; afterwards {} lines, {} files with the text, {} free pages, {} files set aside",
        erased.job,
        erased.start_ns,
        erased.end_ns,
        counts.lines,
        counts.streams,
        counts.days.len(),
        proof.lines_found,
        proof.files_with_text.len(),
        proof.free_pages,
        proof.set_aside.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_one_thing_and_is_a_dry_run_by_itself() {
        let request = |text: &str| serde_json::from_str::<EraseRequest>(text).unwrap();
        let plan = request(r#"{"pseudonym":"phone:k1:9f3c","end_ns":"7"}"#);
        assert!(plan.dry_run);
        let erase = plan.erase().unwrap();
        assert_eq!((erase.by, erase.start_ns, erase.end_ns), (EraseBy::Pseudonym("phone:k1:9f3c".to_owned()), 0, 7));
        for wrong in [r"{}", r#"{"query":"a","pseudonym":"b"}"#, r#"{"query":"a","start_ns":"x"}"#] {
            assert!(request(wrong).erase().is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<EraseRequest>(r#"{"pseudonym":"a","dryrun":false}"#).is_err());
    }

    #[test]
    fn the_audit_log_has_counts() {
        let mut erased = Erased { job: 3, ..Erased::default() };
        erased.counts.lines = 12;
        assert!(detail(&erased).starts_with("job 3, from 0 to 0 ns: 12 lines"));
    }
}
