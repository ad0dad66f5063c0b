//! Answers in JSON are compressed when the client asks for it: gzip for Grafana and Prometheus' clients, zstd for who prefers it.
//!
//! # Invariants
//! - Only whole JSON answers of more than [`LEAST_BYTES`] are touched: streams, remote read and errors are sent as they are.
//! - Compressing happens off the async threads.

use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use flate2::bufread::MultiGzDecoder;
use std::io::{self, Read as _, Write as _};

/// Below this, a packet is a packet.
const LEAST_BYTES: u64 = 1_400;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Coding {
    Gzip,
    Zstd,
}

/// The coding with the highest weight; gzip of equal ones.
fn wanted(headers: &HeaderMap) -> Option<Coding> {
    let all = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).flat_map(|line| line.split(','));
    let weighed = all.filter_map(|item| {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = parameters.trim().strip_prefix("q=").map_or(Some(1.0), |text| text.parse::<f32>().ok())?;
        let coding = match name.trim() {
            "gzip" | "x-gzip" => Coding::Gzip,
            "zstd" => Coding::Zstd,
            _ => return None,
        };
        (weight > 0.0).then_some((coding, weight))
    });
    let better = |best: Option<(Coding, f32)>, next: (Coding, f32)| match best {
        Some((coding, weight)) if weight > next.1 || (weight == next.1 && coding == Coding::Gzip) => best,
        _ => Some(next),
    };
    weighed.fold(None, better).map(|(coding, _)| coding)
}

fn compress(coding: Coding, bytes: &[u8]) -> io::Result<Vec<u8>> {
    match coding {
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Coding::Zstd => zstd::bulk::compress(bytes, 1),
    }
}

/// Whether a request's body is in gzip.
pub(super) fn is_gzip(headers: &HeaderMap) -> Result<bool, String> {
    match headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity" | b"") => Ok(false),
        Some(b"gzip") => Ok(true),
        Some(other) => Err(format!("Content-Encoding {:?} is not known: send gzip or nothing", String::from_utf8_lossy(other))),
    }
}

/// A body in gzip as it was, if it is not larger than `most` bytes.
pub(super) fn unpacked(bytes: &[u8], most: usize) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    MultiGzDecoder::new(bytes).take(most as u64 + 1).read_to_end(&mut plain)?;
    if plain.len() > most {
        return Err(io::Error::other(format!("the body unpacks to more than {most} bytes")));
    }
    Ok(plain)
}

/// The layer.
pub async fn layer(request: Request, next: Next) -> Response {
    let coding = wanted(request.headers());
    let mut response = next.run(request).await;
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    let size = response.body().size_hint().exact().filter(|size| *size >= LEAST_BYTES);
    let (Some(coding), Some(size)) = (coding, size) else { return response };
    let (mut parts, body) = response.into_parts();
    let failed = |error: &dyn std::fmt::Display| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
    let bytes: Bytes = match axum::body::to_bytes(body, usize::try_from(size).unwrap_or(usize::MAX)).await {
        Ok(bytes) => bytes,
        Err(error) => return failed(&error),
    };
    match tokio::task::spawn_blocking(move || compress(coding, &bytes)).await {
        Ok(Ok(compressed)) => {
            let name = if coding == Coding::Gzip { "gzip" } else { "zstd" };
            parts.headers.remove(header::CONTENT_LENGTH);
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
            Response::from_parts(parts, Body::from(compressed))
        }
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wanted_coding_is_told_by_weight() {
        let of = |text: &'static str| wanted(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(text))]));
        assert_eq!((of("gzip"), of("gzip, deflate, br"), of("zstd, gzip")), (Some(Coding::Gzip), Some(Coding::Gzip), Some(Coding::Gzip)));
        assert_eq!((of("gzip;q=0.5, zstd"), of("zstd"), of("identity")), (Some(Coding::Zstd), Some(Coding::Zstd), None));
        assert_eq!((of("gzip;q=0"), of("gzip;q=x"), of("")), (None, None, None));
    }

    #[test]
    fn bodies_unpack_up_to_a_bound() {
        let packed = compress(Coding::Gzip, &[b'x'; 1_000]).unwrap();
        assert_eq!(unpacked(&packed, 1_000).unwrap(), [b'x'; 1_000]);
        assert_eq!(unpacked(&packed, 999).unwrap_err().to_string(), "the body unpacks to more than 999 bytes");
        assert!(unpacked(&packed[..20], 1_000).is_err() && unpacked(b"query=up", 1_000).is_err());
    }

    #[test]
    fn both_codings_give_the_text_back() {
        let text = "{\"a\":1}".repeat(1_000);
        let mut gunzipped = String::new();
        let gzip = compress(Coding::Gzip, text.as_bytes()).unwrap();
        flate2::read::GzDecoder::new(&*gzip).read_to_string(&mut gunzipped).unwrap();
        assert_eq!(gunzipped, text);
        let zstd = compress(Coding::Zstd, text.as_bytes()).unwrap();
        assert_eq!(zstd::bulk::decompress(&zstd, text.len()).unwrap(), text.as_bytes());
        assert!(gzip.len() < 200 && zstd.len() < 200);
    }
}
