//! `POST /api/v1/write`: Prometheus' remote write, 1.0 and 2.0.
//!
//! # Invariants
//! - 2xx comes after the samples are on disk. A sender that gets 400 must not send the same again; 429 and 5xx mean later.
//! - What cannot be stored is left out and told with 400, in Prometheus' words with the first offender; the rest of the request is
//!   stored. A sample that is there already with the same value is no mistake.
//! - Memory is bounded: bodies before and after decompression, and the number of requests that are held at a time.

use super::{
    Shared,
    body::{PATIENCE, Refusal, Turns},
};
use crate::ingest::{Ingest, IngestError, Strict};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use shipwatch_common::{model::Sample, time::now_ms};
use shipwatch_series::{
    Report,
    remote::{Metadata, ReceiveConfig, Receiver, RequestError, Version, Written},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Imports at a time; each occupies a thread.
const IMPORTS: usize = 4;

/// What is counted, for `/metrics`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests that were stored, at least in part.
    pub requests_total: AtomicU64,
    /// Requests of which nothing was taken.
    pub refused_requests_total: AtomicU64,
    /// Samples that were stored.
    pub samples_total: AtomicU64,
    /// Samples that were refused: labels, time, or too many series.
    pub refused_samples_total: AtomicU64,
    /// Samples of replicas that are not listened to.
    pub duplicate_samples_total: AtomicU64,
    /// Native histograms, which are not stored.
    pub histograms_total: AtomicU64,
    /// Exemplars, which are not stored.
    pub exemplars_total: AtomicU64,
}

/// What the handler needs.
#[derive(Debug)]
pub struct Receive {
    receiver: Arc<Receiver>,
    ingest: Arc<Ingest>,
    turns: Turns,
    imports: Arc<Semaphore>,
    counters: Counters,
    metadata: Arc<Metadata>,
}

impl Receive {
    /// With these settings.
    #[must_use]
    pub fn new(config: ReceiveConfig, ingest: Arc<Ingest>) -> Self {
        Self {
            receiver: Arc::new(Receiver::new(config)),
            ingest,
            turns: Turns::default(),
            imports: Arc::new(Semaphore::new(IMPORTS)),
            counters: Counters::default(),
            metadata: Arc::default(),
        }
    }

    /// What metrics are, as senders told.
    #[must_use]
    pub const fn metadata(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    /// Where samples go.
    #[must_use]
    pub fn strict(&self) -> Strict {
        self.ingest.strict()
    }

    async fn store(&self, samples: Vec<Sample>) -> Result<Report, IngestError> {
        let strict = self.strict();
        let done = tokio::task::spawn_blocking(move || strict.store(samples)).await;
        done.unwrap_or_else(|error| Err(IngestError::Failed(error.to_string())))
    }

    /// A turn to import, if there is one soon.
    pub(super) async fn import_turn(&self) -> Option<OwnedSemaphorePermit> {
        tokio::time::timeout(PATIENCE, Arc::clone(&self.imports).acquire_owned()).await.ok()?.ok()
    }

    /// What is counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        let status = if matches!(error, RequestError::TooLarge { .. }) { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        Self(status, error.to_string())
    }
}

/// Which message the headers announce. Senders from before there were two versions may leave the headers out.
fn version(headers: &HeaderMap) -> Result<Version, Refusal> {
    let text = |name: header::HeaderName| headers.get(name).map_or("", |value| value.to_str().unwrap_or("?")).trim().to_ascii_lowercase();
    let unsupported = |what: String| Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, what);
    let content_type = text(header::CONTENT_TYPE);
    let mut parts = content_type.split(';').map(str::trim);
    let kind = parts.next().unwrap_or("");
    let proto = parts.find_map(|part| part.strip_prefix("proto=")).unwrap_or("prometheus.writerequest");
    let version = match (kind, proto) {
        ("" | "application/x-protobuf", "prometheus.writerequest") => Version::V1,
        ("application/x-protobuf", "io.prometheus.write.v2.request") => Version::V2,
        _ => {
            return Err(unsupported(format!(
                "Content-Type {content_type:?} is not known: send application/x-protobuf, with proto=prometheus.WriteRequest or proto=io.prometheus.write.v2.Request"
            )));
        }
    };
    match text(header::CONTENT_ENCODING).as_str() {
        "snappy" => Ok(version),
        "" if version == Version::V1 => Ok(version),
        other => Err(unsupported(format!("Content-Encoding {other:?} is not known: send snappy"))),
    }
}

/// What became of a request's content.
#[derive(Clone, Debug, Default, PartialEq)]
struct Outcome {
    /// Stored, or dropped as another replica's.
    accepted: u64,
    /// Why something was left out.
    wrong: Vec<String>,
}

/// Puts together what is told of a request and of what the engine made of its samples.
fn outcome(written: &Written, report: &Report) -> Outcome {
    let mut wrong = Vec::new();
    if let Some(reason) = &written.refusal {
        wrong.push(format!("{} samples have labels that cannot be stored: {reason}", written.refused));
    }
    wrong.extend(refused(report));
    if written.histograms > 0 {
        wrong.push(format!(
            "{} native histograms were left out: they are not supported, send classic histograms (send_native_histograms: false)",
            written.histograms
        ));
    }
    Outcome { accepted: report.stored + written.duplicates, wrong }
}

/// What is told of samples that the engine refused, if there are any.
pub(super) fn refused(report: &Report) -> Option<String> {
    report.first.as_ref().map(|first| format!("{first}; samples refused: {}", report.refused_total()))
}

/// The handler.
pub async fn write(State(state): State<Shared>, request: Request) -> Response {
    let receive = &state.receive;
    match store(receive, request).await {
        Ok((version, outcome)) => answer(version, &outcome),
        Err(refusal) => {
            receive.counters.refused_requests_total.fetch_add(1, Relaxed);
            tracing::debug!(status = refusal.0.as_u16(), message = %refusal.1, "remote write refused");
            refusal.response()
        }
    }
}

fn answer(version: Version, outcome: &Outcome) -> Response {
    let mut response = if outcome.wrong.is_empty() {
        StatusCode::NO_CONTENT.into_response()
    } else {
        let all = outcome.wrong.join("; ");
        (StatusCode::BAD_REQUEST, format!("{all}; the other {} samples are stored\n", outcome.accepted)).into_response()
    };
    if version == Version::V2 {
        let headers = response.headers_mut();
        for (name, count) in [
            ("x-prometheus-remote-write-samples-written", outcome.accepted),
            ("x-prometheus-remote-write-histograms-written", 0),
            ("x-prometheus-remote-write-exemplars-written", 0),
        ] {
            headers.insert(name, HeaderValue::from(count));
        }
    }
    response
}

async fn store(receive: &Receive, request: Request) -> Result<(Version, Outcome), Refusal> {
    let version = version(request.headers())?;
    let limit = receive.receiver.config().max_bytes;
    let (_turn, body) = receive.turns.body(request, limit, "receive.max_bytes").await?;
    let receiver = Arc::clone(&receive.receiver);
    let read = tokio::task::spawn_blocking(move || receiver.read(version, &body, now_ms())).await;
    let mut written = read.map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??;
    receive.metadata.learn(std::mem::take(&mut written.metadata));
    let samples = std::mem::take(&mut written.samples);
    let report = if samples.is_empty() { Report::default() } else { receive.store(samples).await? };
    let counters = &receive.counters;
    for (counter, by) in [
        (&counters.requests_total, 1),
        (&counters.samples_total, report.stored),
        (&counters.refused_samples_total, report.refused_total() + written.refused),
        (&counters.duplicate_samples_total, written.duplicates),
        (&counters.histograms_total, written.histograms),
        (&counters.exemplars_total, written.exemplars),
    ] {
        counter.fetch_add(by, Relaxed);
    }
    Ok((version, outcome(&written, &report)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn versions_are_told_by_the_headers() {
        let of = |kind: &'static str, encoding: &'static str| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::CONTENT_TYPE, kind), (header::CONTENT_ENCODING, encoding)] {
                if !value.is_empty() {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            version(&headers).map_err(|refusal| refusal.0.as_u16())
        };
        let v2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request";
        assert_eq!(of("", ""), Ok(Version::V1));
        assert_eq!(of("application/x-protobuf", "snappy"), Ok(Version::V1));
        assert_eq!(of("application/x-protobuf; proto=prometheus.WriteRequest", "snappy"), Ok(Version::V1));
        assert_eq!(of(v2, "snappy"), Ok(Version::V2));
        assert_eq!((of(v2, ""), of(v2, "zstd"), of("application/json", "snappy")), (Err(415), Err(415), Err(415)));
        assert_eq!(of("application/x-protobuf;proto=other.Request", "snappy"), Err(415));
    }

    fn stored(samples: u64) -> Report {
        let mut report = Report::default();
        report.stored = samples;
        report
    }

    #[test]
    fn what_is_left_out_is_told_and_the_rest_counts() {
        let written = Written { refused: 2, refusal: Some("no name".to_owned()), histograms: 1, duplicates: 4, ..Written::default() };
        let told = outcome(&written, &stored(7));
        assert_eq!((told.accepted, told.wrong.len()), (11, 2));
        let response = answer(Version::V2, &told);
        assert_eq!(
            (response.status(), &response.headers()["x-prometheus-remote-write-samples-written"]),
            (StatusCode::BAD_REQUEST, &HeaderValue::from(11))
        );
        let response = answer(Version::V1, &outcome(&Written::default(), &stored(10)));
        assert_eq!((response.status(), response.headers().len()), (StatusCode::NO_CONTENT, 0));
    }

    /// One series `up{job="x"}` as a 1.0 message, in one snappy literal.
    fn message(points: &[(i64, f64)]) -> Vec<u8> {
        let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
        let label = |name: &str, value: &str| field(1, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat());
        let mut series = [label("__name__", "up"), label("job", "x")].concat();
        for (ts, value) in points {
            let mut sample = vec![1 << 3 | 1];
            sample.extend(value.to_le_bytes());
            sample.push(2 << 3);
            let mut rest = ts.cast_unsigned();
            while rest >= 0x80 {
                sample.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            sample.push(rest as u8);
            series.extend(field(2, &sample));
        }
        let message = field(1, &series);
        assert!(message.len() < 128);
        [&[message.len() as u8, 60 << 2, message.len() as u8 - 1][..], &message].concat()
    }

    /// Stores of their own, without a server around them.
    pub(in crate::api) fn receive(dir: &std::path::Path, series: shipwatch_series::Config) -> (Receive, Arc<shipwatch_series::Engine>) {
        let engine = Arc::new(shipwatch_series::Engine::open(dir.join("series"), series).unwrap().0);
        let logs = shipwatch_logs::Engine::open(&dir.join("logs"), shipwatch_logs::Config::default()).unwrap().0;
        let store = Arc::new(crate::store::Store::open(dir).unwrap());
        let ingest = Arc::new(Ingest::start(Arc::clone(&engine), Arc::new(logs), store, Arc::default()).unwrap());
        (Receive::new(ReceiveConfig::default(), ingest), engine)
    }

    #[tokio::test]
    async fn conflicts_are_told_in_the_words_of_prometheus_and_the_rest_is_stored() {
        let dir = tempfile::tempdir().unwrap();
        let window = shipwatch_series::config::Keep::For(Duration::from_secs(60));
        let config = shipwatch_series::Config { out_of_order_window: window, ..Default::default() };
        let (receive, engine) = receive(dir.path(), config);
        let write = async |points: &[(i64, f64)]| {
            let request = Request::builder().header(header::CONTENT_ENCODING, "snappy").body(message(points).into()).unwrap();
            let (version, outcome) = store(&receive, request).await.unwrap();
            let response = answer(version, &outcome);
            let status = response.status().as_u16();
            (status, String::from_utf8(axum::body::to_bytes(response.into_body(), 10_000).await.unwrap().to_vec()).unwrap())
        };
        let now = now_ms();
        assert_eq!(write(&[(now, 1.0)]).await.0, 204);
        assert_eq!(write(&[(now, 1.0)]).await.0, 204, "the same again is no mistake");
        for (offender, words) in [
            (now, "duplicate sample for timestamp"),
            (now - 120_000, "out of order sample"),
            (1_000, "out of bounds"),
            (now + 7_200_000, "out of bounds"),
        ] {
            let (status, told) = write(&[(offender, 2.0), (now + 1, 1.0)]).await;
            assert_eq!(status, 400, "{told}");
            assert!(told.starts_with(words) && told.contains("up") && told.contains(&format!("time {offender}")), "{told}");
            assert!(told.ends_with("samples refused: 1; the other 1 samples are stored\n"), "{told}");
        }
        let matchers = shipwatch_series::promql::parse_selector("up").unwrap();
        let found = shipwatch_series::Source::select(&*engine, &matchers, 0, i64::MAX, &shipwatch_series::SelectLimits::none()).unwrap();
        assert_eq!((&*found[0].ts, &*found[0].values), (&[now, now + 1][..], &[1.0, 1.0][..]));
        assert_eq!(receive.counters().refused_samples_total.load(Relaxed), 4);
    }
}
