//! DingTalk's custom group robot (钉钉自定义机器人).
//!
//! What it answers with HTTP 200 may still be a refusal: `errcode` decides. Times come from the caller.

use super::{
    alert::{Notification, Severity},
    channel::Outcome,
    config,
    http::{Http, judge},
    render::Renderer,
    secret::Secret,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac as _};
use reqwest::Url;
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;
use shipwatch_common::time::UnixMs;
use std::{sync::Arc, time::Duration};

/// A robot takes 20,000 bytes of body; some are for the JSON around the text.
const MAX_TEXT_BYTES: usize = 17_000;
/// A robot that was sent too much is deaf for ten minutes.
const PUNISHMENT: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct DingTalk {
    http: Http,
    url: Url,
    secret: Secret,
    keyword: String,
    at_mobiles: Vec<String>,
    renderer: Arc<Renderer>,
}

/// The vendor's answer.
#[derive(Debug, Deserialize)]
struct Answer {
    errcode: Option<i64>,
    #[serde(default)]
    errmsg: String,
}

/// `base64(HMAC-SHA256(secret, "MS\nsecret"))`, as DingTalk wants it.
fn sign(secret: &str, ms: UnixMs) -> String {
    // A key of any length is good for HMAC.
    Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_or_else(
        |_| String::new(),
        |mut mac| {
            mac.update(format!("{ms}\n{secret}").as_bytes());
            BASE64_STANDARD.encode(mac.finalize().into_bytes())
        },
    )
}

/// What an answer means.
fn judged(body: &str) -> Option<Outcome> {
    let answer: Answer = serde_json::from_str(body).ok()?;
    let code = answer.errcode?;
    let reason = format!("errcode {code}: {}", answer.errmsg);
    Some(match code {
        0 => Outcome::Accepted("errcode 0".to_owned()),
        130_101 | 410_100 => Outcome::Throttled { reason: format!("{reason} (the robot takes 20 messages a minute)"), after: PUNISHMENT },
        -1 => Outcome::Retry { reason, after: None },
        310_000 => Outcome::Rejected(format!(
            "{reason}. The robot's security settings refuse this server: compare the signing secret (`secret`), the keyword (`keyword`) and the IP list with the robot's page, and this machine's clock with the time (it may be at most an hour off)"
        )),
        300_001 | 300_005 | 40_014 => {
            Outcome::Rejected(format!("{reason}. The robot is gone or its access_token is wrong: make a new one and set `url`"))
        }
        90_018 | 90_020 | 90_030 => Outcome::Rejected(format!("{reason}. The organisation's quota of calls is used up")),
        _ => Outcome::Rejected(reason),
    })
}

impl DingTalk {
    pub(super) fn new(http: Http, url: Url, secret: Secret, config: &config::Channel, renderer: Arc<Renderer>) -> Self {
        Self { http, url, secret, keyword: config.keyword.clone(), at_mobiles: config.at_mobiles.clone(), renderer }
    }

    fn body(&self, message: &Notification) -> String {
        let mut title = self.renderer.title(message);
        if !self.keyword.is_empty() && !title.contains(&self.keyword) {
            title = format!("{title} {}", self.keyword);
        }
        let mut text = format!("### {title}\n\n{}", self.renderer.markdown(message, MAX_TEXT_BYTES));
        let call = message.is_firing() && message.severity() == Severity::Critical;
        let called: &[String] = if call { &self.at_mobiles } else { &[] };
        if !called.is_empty() {
            // A number must be in the text as well, or nobody is called.
            text.push_str(&called.iter().map(|mobile| format!("@{mobile}")).collect::<Vec<_>>().join(" "));
        }
        json!({
            "msgtype": "markdown",
            "markdown": {"title": title, "text": text},
            "at": {"atMobiles": called, "isAtAll": false},
        })
        .to_string()
    }

    pub(super) async fn send(&self, message: &Notification, now_ms: UnixMs) -> Outcome {
        let mut url = self.url.clone();
        if !self.secret.is_empty() {
            let signature = sign(self.secret.reveal(), now_ms);
            url.query_pairs_mut().append_pair("timestamp", &now_ms.to_string()).append_pair("sign", &signature);
        }
        match self.http.post(url, &[], self.body(message)).await {
            Err(outcome) => outcome,
            Ok(answer) => judged(&answer.body).unwrap_or_else(|| match judge(&answer) {
                Outcome::Accepted(status) => {
                    Outcome::Retry { reason: format!("{status}, but no answer of DingTalk: {}", answer.body.trim()), after: None }
                }
                other => other,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::{
        config::Language,
        render::samples::{message, renderer},
    };

    #[test]
    fn the_signature_is_dingtalks() {
        assert_eq!(sign("this is secret", 1_700_000_000_000), "sSFWELbV2YwjdDQhWZwTcWlX5BWUx5J6TPpsZmuPii0=");
        let mut url = Url::parse("https://oapi.dingtalk.com/robot/send?access_token=T").unwrap();
        url.query_pairs_mut().append_pair("sign", &sign("this is secret", 1_700_000_000_000));
        assert!(url.as_str().ends_with("&sign=sSFWELbV2YwjdDQhWZwTcWlX5BWUx5J6TPpsZmuPii0%3D"));
    }

    #[test]
    fn errcode_decides_whatever_the_status_says() {
        for (body, expected) in [
            (r#"{"errcode":0,"errmsg":"ok"}"#, "accepted"),
            (r#"{"errcode":310000,"errmsg":"sign not match"}"#, "rejected"),
            (
                r#"{"status":1111,"wait":5,"punish":"deny","errcode":130101,"errmsg":"send too fast, exceed 20 times per minute"}"#,
                "throttled",
            ),
            (r#"{"errcode":-1,"errmsg":"system busy"}"#, "retry"),
            (r#"{"errcode":300001,"errmsg":"token is not exist"}"#, "rejected"),
            (r#"{"errcode":999999,"errmsg":"new"}"#, "rejected"),
            ("<html>", "none"),
            ("{}", "none"),
        ] {
            let word = match judged(body) {
                Some(Outcome::Accepted(_)) => "accepted",
                Some(Outcome::Rejected(reason)) => {
                    assert!(!body.contains("310000") || reason.contains("security settings"));
                    "rejected"
                }
                Some(Outcome::Throttled { after, .. }) => {
                    assert_eq!(after, PUNISHMENT);
                    "throttled"
                }
                Some(Outcome::Retry { .. }) => "retry",
                None => "none",
            };
            assert_eq!(word, expected, "{body}");
        }
    }

    #[test]
    fn the_body_calls_people_and_stays_small() {
        let config = config::Channel { keyword: "护航".into(), at_mobiles: vec!["13800138000".into()], ..config::tests_channel() };
        let http = Http::new(Duration::from_secs(1)).unwrap();
        let url = Url::parse("http://127.0.0.1:1/").unwrap();
        let robot = DingTalk::new(http, url, Secret::default(), &config, Arc::new(renderer(Language::Both)));
        let mut many = message("ding");
        let body: serde_json::Value = serde_json::from_str(&robot.body(&many)).unwrap();
        assert_eq!(body["markdown"]["title"], "【严重 critical】CpuBusy web-1 (+1) 护航");
        let text = body["markdown"]["text"].as_str().unwrap();
        assert!(
            text.ends_with("@13800138000") && text.contains("[查看详情 details](http://shipwatch.example.com/alerts/00000000000000a1)")
        );
        let one = many.alerts[0].clone();
        many.alerts = vec![one; 500];
        assert!(robot.body(&many).len() < 20_000);
        many.alerts.iter_mut().for_each(|alert| alert.ends_at_ms = Some(1));
        let body: serde_json::Value = serde_json::from_str(&robot.body(&many)).unwrap();
        assert_eq!(body["at"]["atMobiles"], serde_json::json!([]), "nobody is called for good news");
    }
}
