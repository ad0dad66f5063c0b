//! Bodies that others push: in turn, in time, within bounds.
//!
//! # Invariants
//! - Memory is bounded: so many requests are held at a time, each of a bounded size before and after decompression.
//! - Who has to wait too long, or sends too slowly, is told to come again: 503 with `Retry-After`.

use crate::ingest::IngestError;
use axum::{
    body::Bytes,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use std::{
    io::{self, Read},
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Requests that are read and decoded at a time; further ones wait for their turn.
const AT_A_TIME: usize = 8;
/// How long one waits before its sender is asked to come again.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How long a body may take to come.
const SLOW_BODY: Duration = Duration::from_secs(30);
/// When a sender may come again, in seconds.
const RETRY_AFTER: &str = "5";

/// A refusal: status and what is wrong, in plain text.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl From<IngestError> for Refusal {
    fn from(error: IngestError) -> Self {
        let status =
            if matches!(error, IngestError::Failed(_)) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::SERVICE_UNAVAILABLE };
        Self(status, error.to_string())
    }
}

impl Refusal {
    pub(super) fn response(self) -> Response {
        let status = self.0;
        with_retry(status, (status, format!("{}\n", self.1)).into_response())
    }
}

/// Tells when to come again, if that helps.
pub(super) fn with_retry(status: StatusCode, mut response: Response) -> Response {
    if status.is_server_error() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
    }
    response
}

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(AT_A_TIME))
    }
}

impl Turns {
    /// The body, when it is this request's turn. `key` names the bound in the configuration.
    pub(super) async fn body(&self, request: Request, limit: u64, key: &str) -> Result<(SemaphorePermit<'_>, Bytes), Refusal> {
        let too_large =
            || Refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {limit} bytes (`{key}`): send less at a time"));
        let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > limit) {
            return Err(too_large());
        }
        let busy = || Refusal(StatusCode::SERVICE_UNAVAILABLE, "too many requests are being written".to_owned());
        let turn = tokio::time::timeout(PATIENCE, self.0.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())?;
        let bytes = axum::body::to_bytes(request.into_body(), usize::try_from(limit).unwrap_or(usize::MAX));
        // Not 408: senders drop what is refused with a status below 500.
        let late = |_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "the body took too long to come".to_owned());
        let bytes = tokio::time::timeout(SLOW_BODY, bytes).await.map_err(late)?.map_err(|_| too_large())?;
        Ok((turn, bytes))
    }
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Coding {
    Plain,
    Gzip,
    Zstd,
    Snappy,
}

impl Coding {
    /// What the headers announce.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let text = headers.get(header::CONTENT_ENCODING).map_or("", |value| value.to_str().unwrap_or("?")).trim().to_ascii_lowercase();
        match text.as_str() {
            "" | "identity" => Ok(Self::Plain),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            "snappy" => Ok(Self::Snappy),
            other => Err(Refusal(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!("Content-Encoding {other:?} is not known: send gzip, zstd or no compression"),
            )),
        }
    }

    /// Decompresses a body of at most `limit` bytes.
    pub(super) fn unpack(self, body: &Bytes, limit: u64, key: &str) -> Result<Bytes, Refusal> {
        let too_large = || {
            let text = format!("the body has more than {limit} bytes when decompressed (`{key}`): send less at a time");
            Refusal(StatusCode::PAYLOAD_TOO_LARGE, text)
        };
        let wrong = |error: &dyn std::fmt::Display| Refusal(StatusCode::BAD_REQUEST, format!("the body cannot be decompressed: {error}"));
        let read = |from: &mut dyn Read| -> Result<Bytes, Refusal> {
            let mut out = Vec::new();
            from.take(limit.saturating_add(1)).read_to_end(&mut out).map_err(|error: io::Error| wrong(&error))?;
            if out.len() as u64 > limit { Err(too_large()) } else { Ok(out.into()) }
        };
        match self {
            Self::Plain if body.len() as u64 > limit => Err(too_large()),
            Self::Plain => Ok(body.clone()),
            Self::Gzip => read(&mut flate2::bufread::MultiGzDecoder::new(&body[..])),
            Self::Zstd => read(&mut zstd::stream::read::Decoder::with_buffer(&body[..]).map_err(|error| wrong(&error))?),
            Self::Snappy => {
                if snap::raw::decompress_len(body).map_err(|error| wrong(&error))? as u64 > limit {
                    return Err(too_large());
                }
                Ok(snap::raw::Decoder::new().decompress_vec(body).map_err(|error| wrong(&error))?.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn bodies_are_unpacked_within_the_bound() {
        let text = vec![b'x'; 10_000];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        for (coding, packed) in [
            (Coding::Plain, text.clone()),
            (Coding::Gzip, gzip.finish().unwrap()),
            (Coding::Zstd, zstd::bulk::compress(&text, 1).unwrap()),
            (Coding::Snappy, snap::raw::Encoder::new().compress_vec(&text).unwrap()),
        ] {
            let packed = Bytes::from(packed);
            assert_eq!(coding.unpack(&packed, 10_000, "k").unwrap(), text, "{coding:?}");
            let refused = coding.unpack(&packed, 9_999, "push.k").unwrap_err();
            assert_eq!(refused.0, StatusCode::PAYLOAD_TOO_LARGE, "{coding:?}");
            assert!(refused.1.contains("push.k"), "{}", refused.1);
            if coding != Coding::Plain {
                let torn = packed.slice(..packed.len() / 2);
                assert_eq!(coding.unpack(&torn, 10_000, "k").unwrap_err().0, StatusCode::BAD_REQUEST, "{coding:?}");
            }
        }
    }
}
