//! Alertmanager's webhook, version 4: receivers made for Alertmanager work unchanged.
//!
//! Beside the body go `Idempotency-Key` (the same message always has the same) and, with a `secret`,
//! `X-Shipwatch-Signature: t=SECONDS,v1=HEX`, an HMAC-SHA256 of `SECONDS.BODY`.

use super::{
    alert::{Alert, Notification},
    channel::Outcome,
    http::{Http, judge},
    render::Renderer,
    secret::Secret,
};
use hmac::{Hmac, Mac as _};
use reqwest::Url;
use serde::Serialize;
use sha2::Sha256;
use shipwatch_common::{model::Labels, time::UnixMs};
use std::{collections::BTreeMap, sync::Arc};

/// Go's zero time: the alert still fires.
const NOT_YET: &str = "0001-01-01T00:00:00Z";

#[derive(Debug)]
pub(super) struct Webhook {
    http: Http,
    url: Url,
    secret: Secret,
    renderer: Arc<Renderer>,
}

/// The body; the order of the fields is Alertmanager's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    receiver: &'a str,
    status: &'static str,
    alerts: Vec<BodyAlert<'a>>,
    group_labels: &'a BTreeMap<String, String>,
    common_labels: BTreeMap<&'a str, &'a str>,
    common_annotations: BTreeMap<&'a str, &'a str>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    version: &'static str,
    group_key: &'a str,
    truncated_alerts: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BodyAlert<'a> {
    status: &'static str,
    labels: &'a Labels,
    annotations: &'a BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    fingerprint: &'a str,
}

const fn status(firing: bool) -> &'static str {
    if firing { "firing" } else { "resolved" }
}

/// As Go writes a time in JSON, in UTC.
pub(crate) fn rfc3339(at_ms: UnixMs) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| NOT_YET.to_owned(), |at| at.to_string())
}

/// Pairs that all have.
fn common<'a>(mut all: impl Iterator<Item = BTreeMap<&'a str, &'a str>>) -> BTreeMap<&'a str, &'a str> {
    let first = all.next().unwrap_or_default();
    all.fold(first, |mut kept, next| {
        kept.retain(|name, value| next.get(name) == Some(value));
        kept
    })
}

pub(super) fn body(message: &Notification, external_url: &str) -> String {
    let alert = |alert: &'_ Alert| -> (String, String) {
        (rfc3339(alert.starts_at_ms), alert.ends_at_ms.map_or_else(|| NOT_YET.to_owned(), rfc3339))
    };
    let body = Body {
        receiver: &message.channel,
        status: status(message.is_firing()),
        alerts: message
            .alerts
            .iter()
            .map(|one| {
                let (starts_at, ends_at) = alert(one);
                BodyAlert {
                    status: status(!one.is_resolved()),
                    labels: &one.labels,
                    annotations: &one.annotations,
                    starts_at,
                    ends_at,
                    generator_url: &one.generator_url,
                    fingerprint: &one.fingerprint,
                }
            })
            .collect(),
        group_labels: &message.group_labels,
        common_labels: common(message.alerts.iter().map(|one| one.labels.iter().collect())),
        common_annotations: common(
            message.alerts.iter().map(|one| one.annotations.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect()),
        ),
        external_url,
        version: "4",
        group_key: &message.group_key,
        truncated_alerts: message.truncated,
    };
    // Only text and maps with text keys: this cannot fail.
    serde_json::to_string(&body).unwrap_or_default()
}

fn signature(secret: &str, seconds: i64, body: &str) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(format!("{seconds}.{body}").as_bytes());
    Some(format!("t={seconds},v1={}", shipwatch_common::identity::hex(&mac.finalize().into_bytes())))
}

impl Webhook {
    pub(super) const fn new(http: Http, url: Url, secret: Secret, renderer: Arc<Renderer>) -> Self {
        Self { http, url, secret, renderer }
    }

    pub(super) async fn send(&self, message: &Notification, now_ms: UnixMs) -> Outcome {
        let body = body(message, self.renderer.external_url());
        let mut headers = vec![("Idempotency-Key", message.id.clone())];
        if !self.secret.is_empty() {
            headers.extend(signature(self.secret.reveal(), now_ms / 1_000, &body).map(|text| ("X-Shipwatch-Signature", text)));
        }
        match self.http.post(self.url.clone(), &headers, body).await {
            Ok(answer) => judge(&answer),
            Err(outcome) => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::render::samples::message;

    #[test]
    fn the_body_is_alertmanagers() {
        let expected = r#"{"receiver":"hook","status":"firing","alerts":[{"status":"firing","labels":{"alertname":"CpuBusy","env":"prod","instance":"web-1","severity":"critical"},"annotations":{"description":"95.2 % of all cores for 5 minutes","summary":"web-1 is busy"},"startsAt":"2026-11-24T06:30:00Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://shipwatch.example.com/graph?g0.expr=x&g0.tab=1","fingerprint":"00000000000000a1"},{"status":"resolved","labels":{"alertname":"CpuBusy","env":"prod","instance":"web-2","severity":"warning"},"annotations":{"summary":"web-2 is busy"},"startsAt":"2026-11-24T06:00:00Z","endsAt":"2026-11-24T06:31:00.5Z","generatorURL":"http://shipwatch.example.com/graph?g0.expr=x&g0.tab=1","fingerprint":"00000000000000a2"}],"groupLabels":{"alertname":"CpuBusy"},"commonLabels":{"alertname":"CpuBusy","env":"prod"},"commonAnnotations":{},"externalURL":"http://shipwatch.example.com","version":"4","groupKey":"{}:{alertname=\"CpuBusy\"}","truncatedAlerts":0}"#;
        assert_eq!(body(&message("hook"), "http://shipwatch.example.com"), expected);
        let mut over = message("hook");
        over.alerts.remove(0);
        assert!(body(&over, "").contains(r#""status":"resolved","alerts""#));
    }

    #[test]
    fn the_signature_can_be_checked() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac key
        let expected = "t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
        assert_eq!(signature("key", 1_700_000_000, "{}").unwrap(), expected);
    }
}
