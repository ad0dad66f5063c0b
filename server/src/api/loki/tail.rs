//! `tail`: the newest lines, and then lines as they are committed, by WebSocket.
//!
//! # Invariants
//! - Each line comes once: what the first lines have is left out of what follows.
//! - A reader that is too slow misses lines and is told; it never makes the store wait.

use super::{LokiError, parameters, shapes};
use crate::api::{Shared, websocket};
use axum::{
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use shipwatch_common::time::{UnixNs, now_ns};
use shipwatch_logs::{
    Direction, EntryId, Patience, Subscription, TailEvent,
    logql::{Expression, Row, RowsRequest},
};
use shipwatch_series::http::Params;
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, mpsc::RecvTimeoutError},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Longest time that lines are held back to be put in order.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// Lines are gathered for this long, so that a busy log is not a message per line.
const PACE: Duration = Duration::from_millis(100);
/// How often a quiet log looks whether its reader is there.
const LOOK: Duration = Duration::from_millis(500);
/// Lines in one message.
const MESSAGE_LINES: usize = 500;
/// Lines that are held back at most.
const WAITING: usize = 5_000;
/// A line may be this far ahead of the clock.
const AHEAD_NS: i64 = 24 * parameters::HOUR_NS;
/// Places of lost lines in one message; the number of lost lines is told apart.
const DROPPED_NAMED: u64 = 100;

/// `/loki/api/v1/tail`.
///
/// # Errors
/// The query or a parameter is wrong, this is no WebSocket, too many readers.
pub async fn tail(State(state): State<Shared>, mut request: Request) -> Result<Response, LokiError> {
    let address = Request::builder().uri(request.uri().clone()).body(Body::empty());
    let address = address.map_err(|error| LokiError::bad_request(error.to_string()))?;
    let given = super::given(address).await?;
    let parameters = Params(&given);
    let query = super::expression(&parameters)?;
    let wanted = wanted(&parameters, now_ns())?;
    let stored = query.stored().map_err(LokiError::from)?;
    let (response, connection) =
        websocket::upgrade(&mut request).map_err(|(status, message)| LokiError { status, message: message.to_owned() })?;
    let patience = Patience { deadline: Instant::now().checked_add(state.config.query_timeout), canceled: None };
    let logs = Arc::clone(&state.logs);
    let first = query.clone();
    let begun = tokio::task::spawn_blocking(move || {
        // The subscription comes first: no line falls between.
        let subscription = logs.subscribe(stored)?;
        let mut rows = logs.rows(&first, &wanted.first, &patience)?.rows;
        rows.reverse();
        Ok::<_, shipwatch_logs::Error>((subscription, rows))
    });
    let failed = |error: tokio::task::JoinError| LokiError { status: StatusCode::INTERNAL_SERVER_ERROR, message: error.to_string() };
    let (subscription, rows) = begun.await.map_err(failed)??;
    let (messages, inbox) = mpsc::channel(4);
    // Both end when the reader goes, or with the engine.
    tokio::task::spawn_blocking(move || Follower::new(query, wanted.delay, rows, messages).run(&subscription));
    tokio::spawn(async move {
        if let Ok(connection) = connection.await {
            websocket::send_all(TokioIo::new(connection), inbox).await;
        }
    });
    Ok(response)
}

#[derive(Debug)]
struct Wanted {
    first: RowsRequest,
    delay: Duration,
}

fn wanted(parameters: &Params<'_>, now_ns: UnixNs) -> Result<Wanted, LokiError> {
    let start_ns = match parameters.get("start") {
        Some(text) => parameters::time(text).ok_or_else(|| LokiError::bad_request(format!("start: {text:?} is not a time")))?,
        None => now_ns - parameters::HOUR_NS,
    };
    let delay = match parameters.get("delay_for") {
        Some(text) => text.parse::<u64>().ok().map(Duration::from_secs).filter(|delay| *delay <= DELAY_MAX),
        None => Some(Duration::ZERO),
    };
    let delay = delay.ok_or_else(|| LokiError::bad_request("delay_for can't be greater than 5 seconds"))?;
    let end_ns = now_ns.saturating_add(AHEAD_NS);
    if start_ns >= end_ns {
        return Err(LokiError::bad_request("start: the time is too far ahead"));
    }
    let limit = parameters::limit(parameters, None)?;
    Ok(Wanted { first: RowsRequest { start_ns, end_ns, limit, direction: Direction::Backward, interval_ns: 0 }, delay })
}

/// Follows a subscription and makes messages.
#[derive(Debug)]
struct Follower {
    query: Expression,
    delay: Duration,
    /// Lines that came first; what follows leaves them out.
    seen: HashSet<EntryId>,
    /// Lines in order, with the time of their arrival.
    waiting: BTreeMap<EntryId, (Instant, Row)>,
    dropped: u64,
    messages: mpsc::Sender<String>,
}

impl Follower {
    fn new(query: Expression, delay: Duration, first: Vec<Row>, messages: mpsc::Sender<String>) -> Self {
        let now = Instant::now();
        let seen = first.iter().map(|row| row.id).collect();
        // They lie back already.
        let past = now.checked_sub(delay).unwrap_or(now);
        let waiting = first.into_iter().map(|row| (row.id, (past, row))).collect();
        Self { query, delay, seen, waiting, dropped: 0, messages }
    }

    /// Until the reader has gone or the engine is closed.
    fn run(mut self, subscription: &Subscription) {
        loop {
            if !self.flush(Instant::now()) {
                return;
            }
            let pause = if self.waiting.is_empty() { LOOK } else { PACE };
            let until = Instant::now() + pause;
            loop {
                match subscription.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(event) => {
                        let first = self.waiting.is_empty();
                        self.note(event, Instant::now());
                        // A quiet log's line does not wait for the long pause.
                        if (first && pause == LOOK) || self.waiting.len() >= WAITING {
                            break;
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            if self.messages.is_closed() {
                return;
            }
        }
    }

    fn note(&mut self, event: TailEvent, now: Instant) {
        match event {
            TailEvent::Gap { missed } => self.dropped += missed,
            TailEvent::Entry(entry) if self.seen.remove(&entry.id) => {}
            TailEvent::Entry(_) if self.waiting.len() >= WAITING => self.dropped += 1,
            TailEvent::Entry(entry) => {
                if let Some(row) = self.query.row(&entry) {
                    self.waiting.insert(row.id, (now, row));
                }
            }
        }
    }

    /// Sends what has waited long enough. `false` when nobody is there.
    fn flush(&mut self, now: Instant) -> bool {
        while let Some(message) = self.message(now) {
            if self.messages.blocking_send(message.to_string()).is_err() {
                return false;
            }
        }
        !self.messages.is_closed()
    }

    /// The next message, if there is something to tell.
    fn message(&mut self, now: Instant) -> Option<Value> {
        let mut rows = Vec::new();
        while rows.len() < MESSAGE_LINES
            && let Some(first) = self.waiting.first_entry().filter(|first| now.saturating_duration_since(first.get().0) >= self.delay)
        {
            rows.push(first.remove().1);
        }
        if rows.is_empty() && self.dropped == 0 {
            return None;
        }
        let lost = std::mem::take(&mut self.dropped);
        let mut message = json!({"streams": shapes::streams(rows, false), "dropped_entries": null});
        if lost > 0 {
            // Which lines they were is not known, only how many.
            let one = json!({"labels": {}, "timestamp": now_ns().to_string()});
            message["dropped_entries"] = (0..lost.min(DROPPED_NAMED)).map(|_| one.clone()).collect();
            message["dropped_total"] = json!(lost);
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipwatch_common::model::{FileId, Labels, Severity};
    use shipwatch_logs::Entry;

    fn entry(ts_ns: i64, text: &str) -> TailEvent {
        TailEvent::Entry(Entry {
            id: EntryId { ts_ns, batch: 1, index: 0 },
            labels: Arc::new(Labels::new([("app", "shop")]).unwrap()),
            severity: Severity::Info,
            text: text.to_owned(),
            truncated: false,
            agent: "a".into(),
            file: FileId(0),
            end_offset: 0,
        })
    }

    fn follower(delay_s: u64) -> Follower {
        let query = Expression::parse(r#"{app="shop"} | logfmt | n > 1"#).unwrap();
        let TailEvent::Entry(first) = entry(1, "n=5") else { panic!() };
        let row = query.row(&first).unwrap();
        Follower::new(query, Duration::from_secs(delay_s), vec![row], mpsc::channel(1).0)
    }

    fn texts(message: &Value) -> Vec<&str> {
        let streams = message["streams"].as_array().unwrap();
        streams.iter().flat_map(|stream| stream["values"].as_array().unwrap()).map(|value| value[1].as_str().unwrap()).collect()
    }

    #[test]
    fn lines_come_once_in_order_after_their_delay() {
        let mut follower = follower(2);
        let now = Instant::now();
        assert_eq!(texts(&follower.message(now).unwrap()), ["n=5"], "the first lines do not wait");
        for event in [entry(1, "n=5"), entry(9, "n=9 b"), entry(3, "n=1"), entry(8, "n=9 a")] {
            follower.note(event, now);
        }
        assert_eq!(follower.message(now + Duration::from_secs(1)), None);
        let message = follower.message(now + Duration::from_secs(2)).unwrap();
        assert_eq!(message["streams"][0]["stream"]["n"], "9");
        assert_eq!((texts(&message), &message["dropped_entries"]), (vec!["n=9 a", "n=9 b"], &Value::Null));
    }

    #[test]
    fn lost_lines_are_told() {
        let mut follower = follower(0);
        let now = Instant::now();
        follower.message(now);
        follower.note(TailEvent::Gap { missed: 3 }, now);
        let message = follower.message(now).unwrap();
        assert_eq!((message["dropped_entries"].as_array().unwrap().len(), &message["dropped_total"]), (3, &json!(3)));
        (0..WAITING as i64 + 7).for_each(|at| follower.note(entry(at + 10, "n=2"), now));
        assert_eq!(follower.dropped, 7);
    }

    #[test]
    fn a_reader_says_what_it_wants() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            wanted(&Params(&pairs), 7_200_000_000_000)
        };
        let usual = of(&[]).unwrap();
        assert_eq!((usual.first.start_ns, usual.first.limit, usual.delay), (3_600_000_000_000, 100, Duration::ZERO));
        assert_eq!(of(&[("delay_for", "5")]).unwrap().delay, DELAY_MAX);
        for bad in [("delay_for", "6"), ("delay_for", "-1"), ("limit", "5001"), ("start", "x"), ("start", "9000000000000000000")] {
            assert!(of(&[bad]).is_err(), "{bad:?}");
        }
    }
}
