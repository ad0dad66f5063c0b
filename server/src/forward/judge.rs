//! What a target's answer means. Pure: answers and the time go in, a verdict comes out.
//!
//! # Invariants
//! - What may pass is tried again: no answer, 5xx, 429, 408, 425, redirects, and what the configuration adds. What the target
//!   says about the samples themselves (other 4xx) is final.
//! - An answer to 2.0 without the counts that 2.0 asks for comes from somebody who did not understand it: the same is sent as 1.0.

use shipwatch_common::time::UnixMs;
use shipwatch_series::remote::Version;
use std::time::Duration;

/// Longest time that an answer may ask to wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// What came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `Retry-After`, as it came.
    pub(super) retry_after: Option<String>,
    /// `X-Prometheus-Remote-Write-Samples-Written`, as it came.
    pub(super) written: Option<String>,
    /// The beginning of the body.
    pub(super) body: String,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// Taken; of the samples, this many were written as the target tells.
    Taken { written: usize },
    /// Later, not before this time has passed.
    Retry { reason: String, after: Option<Duration> },
    /// Never.
    Refused {
        reason: String,
        /// A part of it may be taken.
        split: bool,
    },
    /// The same in 1.0.
    Older { reason: String },
}

/// What the answer to a request with `sent` samples means.
pub(super) fn judge(version: Version, sent: usize, answer: &Answer, retry_statuses: &[u16], now_ms: UnixMs) -> Verdict {
    let after = || answer.retry_after.as_deref().and_then(|text| retry_after(text, now_ms));
    let reason = || match answer.body.trim() {
        "" => format!("HTTP {}", answer.status),
        body => format!("HTTP {}: {body}", answer.status),
    };
    match answer.status {
        200..=299 if version == Version::V1 => Verdict::Taken { written: sent },
        200..=299 => match answer.written.as_deref().map(|text| text.trim().parse::<usize>()) {
            Some(Ok(written)) => Verdict::Taken { written: written.min(sent) },
            _ => Verdict::Older { reason: "the answer does not say how many samples were written".to_owned() },
        },
        300..=399 => Verdict::Retry { reason: format!("HTTP {}: it redirects; set `url` to where it leads", answer.status), after: None },
        415 if version == Version::V2 => Verdict::Older { reason: reason() },
        429 | 500..=599 | 408 | 425 => Verdict::Retry { reason: reason(), after: after() },
        status if retry_statuses.contains(&status) => Verdict::Retry { reason: reason(), after: after() },
        status => Verdict::Refused { reason: reason(), split: matches!(status, 400 | 413 | 422) },
    }
}

/// Seconds, or a date.
fn retry_after(text: &str, now_ms: UnixMs) -> Option<Duration> {
    let text = text.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_millisecond();
            Duration::from_millis(u64::try_from(at.saturating_sub(now_ms)).unwrap_or(0))
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Whether a line may be logged: one a minute for each kind, and how many were left out before it.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last_ms: Option<UnixMs>,
    left_out: u64,
}

impl Seldom {
    const EVERY_MS: i64 = 60_000;

    /// Asks to log; the answer is how many were left out since the last line.
    pub(super) fn ask(&mut self, now_ms: UnixMs) -> Option<u64> {
        // A clock that went back does not silence the log.
        if self.last_ms.is_some_and(|last| (0..Self::EVERY_MS).contains(&(now_ms - last))) {
            self.left_out += 1;
            return None;
        }
        self.last_ms = Some(now_ms);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: Version, status: u16, written: Option<&str>) -> Verdict {
        let answer = Answer { status, written: written.map(str::to_owned), body: "told\n".to_owned(), retry_after: Some("7".to_owned()) };
        judge(version, 10, &answer, &[401], 0)
    }

    #[test]
    fn statuses() {
        use Version::{V1, V2};
        let later = |status: u16| Verdict::Retry { reason: format!("HTTP {status}: told"), after: Some(Duration::from_secs(7)) };
        for status in [429, 500, 503, 599, 408, 401] {
            assert_eq!((of(V1, status, None), of(V2, status, None)), (later(status), later(status)));
        }
        for (status, split) in [(400, true), (413, true), (422, true), (403, false), (404, false), (409, false)] {
            assert_eq!(of(V1, status, None), Verdict::Refused { reason: format!("HTTP {status}: told"), split });
        }
        assert!(matches!(of(V1, 302, None), Verdict::Retry { after: None, .. }));
        assert_eq!((of(V1, 200, None), of(V2, 204, Some("10"))), (Verdict::Taken { written: 10 }, Verdict::Taken { written: 10 }));
        assert_eq!((of(V2, 204, Some("7")), of(V2, 204, Some("99"))), (Verdict::Taken { written: 7 }, Verdict::Taken { written: 10 }));
        assert!(matches!(of(V2, 204, None), Verdict::Older { .. }));
        assert!(matches!(of(V2, 415, None), Verdict::Older { .. }));
        assert!(matches!(of(V1, 415, None), Verdict::Refused { split: false, .. }));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now_ms = 784_111_777_000;
        assert_eq!(retry_after(" 5 ", now_ms), Some(Duration::from_secs(5)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:40 GMT", now_ms), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:30 GMT", now_ms), Some(Duration::ZERO));
        assert_eq!(retry_after("999999999", now_ms), Some(MAX_RETRY_AFTER));
        assert_eq!((retry_after("soon", now_ms), retry_after("-1", now_ms)), (None, None));
    }

    #[test]
    fn lines_are_seldom_and_tell_of_those_before() {
        let mut seldom = Seldom::default();
        let told: Vec<_> = [0, 10, 59_999, 60_000, 130_000, 20_000].map(|now| seldom.ask(now)).into();
        assert_eq!(told, [Some(0), None, None, Some(2), Some(0), Some(0)]);
    }
}
