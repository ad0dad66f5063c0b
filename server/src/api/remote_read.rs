//! `POST /api/v1/read`: Prometheus' remote read. A streamed answer is made while it is sent; a client that goes away ends it.

use super::{Shared, prometheus::reply};
use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use shipwatch_series::{
    Engine,
    http::{ApiError, Reply},
    remote::{ReadError, ReadRequest, RequestError},
    source::SelectLimits,
};
use std::{sync::Arc, time::Instant};
use tokio::sync::mpsc;

/// Largest body as it comes.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Frames that wait for a slow client.
const FRAMES: usize = 4;

/// The handler.
pub async fn read(State(state): State<Shared>, request: Request) -> Response {
    let refused = |error: ReadError| reply(Reply::from(api_error(error)));
    let Ok(body) = axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES).await else {
        return refused(RequestError::TooLarge { what: "bytes", limit: MAX_BODY_BYTES as u64 }.into());
    };
    let request = match ReadRequest::parse(&body) {
        Ok(request) => request,
        Err(error) => return refused(error),
    };
    let config = state.series.config();
    let limits = SelectLimits {
        max_series: config.query_max_series.into(),
        max_samples: config.query_max_samples,
        deadline: Instant::now().checked_add(state.config.query_timeout),
    };
    let series = Arc::clone(&state.series);
    if request.is_streamed {
        return streamed(series, request, limits).await;
    }
    let answer = tokio::task::spawn_blocking(move || request.answer(&*series, &limits)).await;
    match answer {
        Ok(Ok(bytes)) => with_type(Body::from(bytes), "application/x-protobuf", Some("snappy")),
        Ok(Err(error)) => refused(error),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The first frame decides: an error before it has a status of its own, one after it cuts the answer off.
async fn streamed(series: Arc<Engine>, request: ReadRequest, limits: SelectLimits) -> Response {
    let (frames, mut waiting) = mpsc::channel::<Result<Bytes, ReadError>>(FRAMES);
    tokio::task::spawn_blocking(move || {
        let done = request.stream(&*series, &limits, &mut |frame| frames.blocking_send(Ok(frame.into())).is_ok());
        if let Err(error) = done {
            let _nobody_listens = frames.blocking_send(Err(error));
        }
    });
    let first = match waiting.recv().await {
        Some(Err(error)) => return reply(Reply::from(api_error(error))),
        first => first,
    };
    let stream = futures_util::stream::unfold((first, waiting), |(first, mut waiting)| async move {
        let next = match first {
            Some(first) => Some(first),
            None => waiting.recv().await,
        };
        next.map(|next| (next, (None, waiting)))
    });
    with_type(Body::from_stream(stream), "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse", None)
}

fn with_type(body: Body, kind: &'static str, encoding: Option<&'static str>) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(encoding) = encoding {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

fn api_error(error: ReadError) -> ApiError {
    match error {
        ReadError::Request(RequestError::TooLarge { .. }) => ApiError { status: 413, error_type: "bad_data", message: error.to_string() },
        ReadError::Request(_) | ReadError::Store(shipwatch_series::Error::Matcher(_)) => ApiError::bad_data(error.to_string()),
        ReadError::Store(error) => error.into(),
    }
}
