//! Samples in and out as text: `/federate`, `/api/v1/export`, `/api/v1/import`, `/api/v1/import/prometheus`.
//!
//! # Invariants
//! - Bodies stream in both directions: one line, one batch and a few chunks are in memory, whatever the size.
//! - 2xx to an import comes after everything is on disk. A mistake ends it and names its line; what came before is stored, and
//!   sending it again does no harm. Samples that the store refuses are told with the first of them, the others are stored.
//! - An error after the first bytes of an export cuts the answer off: a whole answer is complete.

use super::{
    Shared,
    compress::is_gzip,
    prometheus::{parameters, reply},
    receive,
};
use crate::ingest::{IngestError, Strict};
use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use flate2::bufread::MultiGzDecoder;
use futures_util::StreamExt as _;
use shipwatch_common::{
    model::Sample,
    time::{UnixMs, now_ms},
};
use shipwatch_series::{
    Engine, Report, SelectLimits,
    exchange::{ReadError, json, text},
    http::{self, ApiError, ExportError, Params, Reply},
};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, sync::mpsc};

/// Samples that are stored together.
const BATCH: usize = 20_000;
/// Chunks that wait between the connection and the thread that works.
const CHUNKS: usize = 4;
/// Bytes of an export that are sent together.
const CHUNK_BYTES: usize = 64 << 10;
/// How long the next bytes of an import may take to come, and those of an export to be taken.
const PATIENCE: Duration = Duration::from_secs(30);

/// How imported samples are written.
#[derive(Clone, Copy, Debug)]
enum Format {
    /// JSON lines.
    Lines,
    /// Prometheus' text; the time is that of lines without one.
    Text(UnixMs),
}

/// `GET /federate`.
pub async fn federate(State(state): State<Shared>, request: Request) -> Response {
    let parameters = match parameters(request).await {
        Ok(parameters) => parameters,
        Err(error) => return reply(Reply::from(error)),
    };
    let (engine, patience) = (Arc::clone(&state.series), state.config.query_timeout);
    let work = move || {
        let lookback = engine.config().lookback;
        http::federate(&*engine, Params(&parameters), now_ms(), lookback, &limits(&engine, patience))
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(text)) => with_type(Body::from(text), "text/plain; version=0.0.4; charset=utf-8"),
        Ok(Err(error)) => reply(Reply::from(error)),
        Err(error) => reply(Reply::from(internal(error.to_string()))),
    }
}

/// `GET` or `POST /api/v1/export`.
pub async fn export(State(state): State<Shared>, request: Request) -> Response {
    match parameters(request).await {
        Ok(parameters) => exported(Arc::clone(&state.series), parameters, state.config.query_timeout).await,
        Err(error) => reply(Reply::from(error)),
    }
}

/// `POST /api/v1/import`.
pub async fn import(State(state): State<Shared>, request: Request) -> Response {
    imported(&state.receive, request, Format::Lines).await
}

/// `POST /api/v1/import/prometheus`.
pub async fn import_text(State(state): State<Shared>, request: Request) -> Response {
    let given = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    let given = given.map(|all| Params(&all.0).get("timestamp").map(str::parse::<UnixMs>));
    match given {
        Ok(None) => imported(&state.receive, request, Format::Text(now_ms())).await,
        Ok(Some(Ok(ts_ms))) => imported(&state.receive, request, Format::Text(ts_ms)).await,
        Ok(Some(Err(_))) | Err(_) => refusal(StatusCode::BAD_REQUEST, "timestamp must be milliseconds since 1970"),
    }
}

fn limits(engine: &Engine, patience: Duration) -> SelectLimits {
    let config = engine.config();
    SelectLimits {
        max_series: config.query_max_series.into(),
        max_samples: config.query_max_samples,
        deadline: Instant::now().checked_add(patience),
    }
}

fn internal(message: String) -> ApiError {
    ApiError { status: 500, error_type: "internal", message }
}

fn with_type(body: Body, kind: &'static str) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn refusal(status: StatusCode, message: impl std::fmt::Display) -> Response {
    (status, format!("{message}\n")).into_response()
}

/// What a thread writes for a client. Full chunks go out; a client that takes none for [`PATIENCE`] has gone.
struct Outgoing {
    chunk: Vec<u8>,
    to: mpsc::Sender<Result<Bytes, ExportError>>,
    handle: Handle,
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk).into();
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.handle.block_on(self.to.send_timeout(Ok(chunk), PATIENCE)).map_err(gone)
    }
}

/// The first chunk decides: an error before it has a status of its own.
async fn exported(engine: Arc<Engine>, parameters: Vec<(String, String)>, patience: Duration) -> Response {
    let (to, mut waiting) = mpsc::channel::<Result<Bytes, ExportError>>(CHUNKS);
    let mut out = Outgoing { chunk: Vec::new(), to: to.clone(), handle: Handle::current() };
    tokio::task::spawn_blocking(move || {
        let oldest = engine.sealed_days().first().map(|(first, _)| *first);
        let limits = || limits(&engine, patience);
        if let Err(error) = http::export(&*engine, Params(&parameters), now_ms(), oldest, &limits, &mut out) {
            let _nobody_listens = to.blocking_send(Err(error));
        }
    });
    let first = match waiting.recv().await {
        Some(Err(ExportError::Api(error))) => return reply(Reply::from(error)),
        first => first,
    };
    let stream = futures_util::stream::unfold((first, waiting), |(first, mut waiting)| async move {
        let next = match first {
            Some(first) => Some(first),
            None => waiting.recv().await,
        };
        let next = next?.map_err(|error| match error {
            ExportError::Api(error) => io::Error::other(error.message),
            ExportError::Gone(error) => error,
        });
        Some((next, (None, waiting)))
    });
    with_type(Body::from_stream(stream), "application/stream+json")
}

/// What a client sends, for a thread that reads it.
struct Incoming {
    chunk: Bytes,
    from: mpsc::Receiver<io::Result<Bytes>>,
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Incoming {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.from.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, count: usize) {
        drop(self.chunk.split_to(count));
    }
}

/// Sends the body to the thread. A body that breaks off or pauses too long ends in an error there, not in a short import.
async fn pump(body: Body, to: mpsc::Sender<io::Result<Bytes>>) {
    let mut chunks = body.into_data_stream();
    loop {
        let next = match tokio::time::timeout(PATIENCE, chunks.next()).await {
            Ok(None) => return,
            Ok(Some(next)) => next.map_err(io::Error::other),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the body took too long to come")),
        };
        let is_last = next.is_err();
        if to.send(next).await.is_err() || is_last {
            return;
        }
    }
}

async fn imported(receive: &receive::Receive, request: Request, format: Format) -> Response {
    let is_gzip = match is_gzip(request.headers()) {
        Ok(is_gzip) => is_gzip,
        Err(unknown) => return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, unknown),
    };
    let Some(turn) = receive.import_turn().await else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "too many imports are running: send it again later");
    };
    let (to, from) = mpsc::channel(CHUNKS);
    let mut importer = Importer { strict: receive.strict(), waiting: Vec::new(), done: Done::default() };
    let work = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let incoming = Incoming { chunk: Bytes::new(), from };
        let read =
            if is_gzip { importer.read(BufReader::new(MultiGzDecoder::new(incoming)), format) } else { importer.read(incoming, format) };
        (importer.done, read)
    });
    let ((), done) = tokio::join!(pump(request.into_body(), to), work);
    match done {
        Ok((done, read)) => answer(&done, read),
        Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

/// What became of samples.
#[derive(Debug, Default)]
struct Done {
    stored: u64,
    refused: u64,
    /// The first refusal.
    first: Option<String>,
}

struct Importer {
    strict: Strict,
    waiting: Vec<Sample>,
    done: Done,
}

impl Importer {
    /// Reads to the end or the first mistake, and stores what came before it.
    fn read(&mut self, input: impl BufRead, format: Format) -> Result<(), ReadError<IngestError>> {
        let sink = |sample| self.take(sample);
        let read = match format {
            Format::Lines => json::read(input, sink),
            Format::Text(ts_ms) => text::read(input, text::Format::Prometheus, Some(ts_ms), sink),
        };
        match read {
            Err(ReadError::Sink(error)) => Err(ReadError::Sink(error)),
            other => self.store().map_err(ReadError::Sink).and(other),
        }
    }

    fn take(&mut self, sample: Sample) -> Result<(), IngestError> {
        if sample.labels.metric_name().is_empty() {
            self.done.refused += 1;
            self.done.first.get_or_insert_with(|| format!("a series has no metric name (series {})", sample.labels));
            return Ok(());
        }
        self.waiting.push(sample);
        if self.waiting.len() >= BATCH { self.store() } else { Ok(()) }
    }

    fn store(&mut self) -> Result<(), IngestError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let report: Report = self.strict.store(std::mem::take(&mut self.waiting))?;
        self.done.stored += report.stored;
        self.done.refused += report.refused_total();
        if let Some(first) = &report.first {
            self.done.first.get_or_insert_with(|| first.to_string());
        }
        Ok(())
    }
}

fn answer(done: &Done, read: Result<(), ReadError<IngestError>>) -> Response {
    let status = match &read {
        Ok(()) if done.first.is_none() => return StatusCode::NO_CONTENT.into_response(),
        Err(ReadError::Sink(IngestError::Failed(_))) => StatusCode::INTERNAL_SERVER_ERROR,
        Err(ReadError::Sink(_)) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    let refused = done.first.as_ref().map(|first| format!("{first}; samples refused: {}", done.refused));
    let wrong: Vec<String> = read.err().map(|error| error.to_string()).into_iter().chain(refused).collect();
    refusal(status, format!("{}; {} samples are stored", wrong.join("; "), done.stored))
}

#[cfg(test)]
mod tests {
    use super::*;
    use receive::tests::receive;

    async fn text_of(response: Response) -> (u16, String) {
        let status = response.status().as_u16();
        (status, String::from_utf8(axum::body::to_bytes(response.into_body(), 100 << 20).await.unwrap().to_vec()).unwrap())
    }

    async fn send(receive: &receive::Receive, body: impl Into<Body>, format: Format) -> (u16, String) {
        text_of(imported(receive, Request::new(body.into()), format).await).await
    }

    async fn all(engine: &Arc<Engine>, parameters: &[(&str, String)]) -> (u16, String) {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        text_of(exported(Arc::clone(engine), parameters, Duration::from_secs(60)).await).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_imported_is_exported_in_pieces_and_compressed() {
        let dir = tempfile::tempdir().unwrap();
        let (receive, engine) = receive(dir.path(), shipwatch_series::Config::default());
        let now = now_ms();
        // More than a batch of samples and more than a chunk of bytes, with lines broken between chunks.
        let count = BATCH as i64 + 5_000;
        let mut text = "# TYPE many untyped\n".to_owned();
        for at in 0..count {
            text += &format!("many{{at=\"{}\"}} {at} {}\n", at % 100, now - at);
        }
        text += "without_time 7\n";
        let pieces: Vec<_> = text.as_bytes().chunks(777).map(|piece| Ok::<_, io::Error>(Bytes::copy_from_slice(piece))).collect();
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        assert_eq!(send(&receive, body, Format::Text(now - 5)).await, (204, String::new()));
        let (status, lines) = all(&engine, &[("match[]", "{__name__=~\".+\"}".to_owned())]).await;
        assert!(status == 200 && lines.len() > CHUNK_BYTES, "{status} {}", lines.len());
        assert!(lines.contains(&format!("{{\"metric\":{{\"__name__\":\"without_time\"}},\"values\":[7.0],\"timestamps\":[{}]}}", now - 5)));
        let other = tempfile::tempdir().unwrap();
        let (second, copy) = super::receive::tests::receive(other.path(), shipwatch_series::Config::default());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(lines.as_bytes()).unwrap();
        let request = Request::builder().header(header::CONTENT_ENCODING, "gzip").body(gzip.finish().unwrap().into()).unwrap();
        assert_eq!(imported(&second, request, Format::Lines).await.status(), 204);
        assert_eq!(all(&copy, &[("match[]", "{__name__=~\".+\"}".to_owned())]).await.1, lines);
        assert_eq!(copy.stats().samples_total, count as u64 + 1);
        assert_eq!(all(&engine, &[]).await.0, 400);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn mistakes_name_their_line_and_what_came_before_is_stored() {
        let dir = tempfile::tempdir().unwrap();
        let (receive, engine) = receive(dir.path(), shipwatch_series::Config::default());
        let now = now_ms();
        let (status, told) = send(&receive, "a 1\nb 2\nc{ 3\nd 4\n", Format::Text(now)).await;
        assert!(status == 400 && told.starts_with("line 3: ") && told.ends_with("; 2 samples are stored\n"), "{told}");
        assert_eq!(engine.stats().samples_total, 2);
        let (status, told) = send(&receive, "a 9\ne 1\nold 1 5\n", Format::Text(now)).await;
        assert!(status == 400 && told.starts_with("duplicate sample for timestamp (series "), "{told}");
        assert!(told.ends_with("; samples refused: 2; 1 samples are stored\n"), "{told}");
        let nameless = format!("{{\"metric\":{{\"job\":\"x\"}},\"values\":[1],\"timestamps\":[{now}]}}\n");
        let (status, told) = send(&receive, nameless, Format::Lines).await;
        assert!(status == 400 && told.contains("no metric name") && told.ends_with("; 0 samples are stored\n"), "{told}");
        let broken: Vec<io::Result<Bytes>> = vec![Ok("f 1\ng".into()), Err(io::ErrorKind::ConnectionReset.into())];
        let (status, told) = send(&receive, Body::from_stream(futures_util::stream::iter(broken)), Format::Text(now)).await;
        assert!(status == 400 && told.starts_with("line 2: ") && told.ends_with("; 1 samples are stored\n"), "{told}");
        let request = Request::builder().header(header::CONTENT_ENCODING, "br").body(Body::empty()).unwrap();
        assert_eq!(imported(&receive, request, Format::Lines).await.status(), 415);
    }
}
