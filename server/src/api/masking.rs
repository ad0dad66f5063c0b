//! `POST mask/preview`: what rules would do to a pasted sample. Nothing of it is stored or logged.

use super::error::ApiError;
use axum::Json;
use serde::Deserialize;
use serde_json::{Value, json};
use shipwatch_common::mask::{Config, LineState, Masker};

/// Largest sample.
const MAX_TEXT_BYTES: usize = 256 << 10;

/// A sample, and the rules to try: the section `mask` of a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    text: String,
    #[serde(default)]
    mask: Config,
}

impl std::fmt::Debug for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sample").field("bytes", &self.text.len()).finish_non_exhaustive()
    }
}

/// The handler.
///
/// # Errors
/// A sample that is too large, or rules that cannot be used.
pub async fn preview(Json(sample): Json<Sample>) -> Result<Json<Value>, ApiError> {
    if sample.text.len() > MAX_TEXT_BYTES {
        return Err(ApiError::bad_request(format!("`text` has more than {MAX_TEXT_BYTES} bytes: paste fewer lines")));
    }
    if !sample.mask.pseudonym_key_file.is_empty() {
        return Err(ApiError::bad_request("`mask.pseudonym_key_file` must be left out: the server never has the key of pseudonyms"));
    }
    let done = tokio::task::spawn_blocking(move || shown(&sample)).await.map_err(|error| ApiError::internal(error.to_string()))?;
    done.map(Json).map_err(|error| ApiError::bad_request(format!("mask: {error}")))
}

fn shown(sample: &Sample) -> Result<Value, String> {
    let masker = Masker::new(&sample.mask)?;
    let (mut state, mut again) = (LineState::default(), LineState::default());
    let lines = sample.text.lines().map(|line| {
        let findings = masker
            .explain_line(&mut again, line)
            .into_iter()
            .map(|found| json!({"kind": found.kind, "start": found.start, "end": found.end, "detector": found.detector, "key": found.key}));
        let findings: Vec<Value> = findings.collect();
        let masked = masker.mask_line(&mut state, line);
        json!({"masked": masked.text, "hits": masked.hits, "failed": masked.failed, "findings": findings})
    });
    let lines: Vec<Value> = lines.collect();
    Ok(json!({"lines": lines}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_tried_on_a_sample() {
        let sample: Sample = serde_json::from_value(json!({
            "text": "member M-12345 paid\nmail a.b@example.com",
            "mask": {"rules": [{"name": "member", "pattern": "M-[0-9]+"}]},
        }))
        .unwrap();
        let shown = shown(&sample).unwrap();
        assert_eq!(shown["lines"][0]["masked"], "member [member] paid");
        assert_eq!(shown["lines"][0]["findings"][0]["start"], 7);
        assert_eq!((&shown["lines"][1]["masked"], &shown["lines"][1]["hits"]), (&json!("mail [email]"), &json!(1)));
        let wrong: Sample = serde_json::from_value(json!({"text": "", "mask": {"rules": [{"name": "x", "pattern": "("}]}})).unwrap();
        assert!(super::shown(&wrong).is_err());
        assert!(!format!("{sample:?}").contains("M-12345"));
    }
}
