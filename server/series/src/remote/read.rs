//! Prometheus' remote read: matchers and a range come in, samples or XOR chunks go out.
//!
//! # Invariants
//! - The samples of all queries of a request are bounded by the limits that a PromQL query has; an answer that is held whole
//!   (`SAMPLES`) has a smaller bound.
//! - A streamed answer is made series by series, frames of about one MB; who stops listening stops the work.
//!
//! # Left out
//! Hints: the samples are given as they are, without a function applied. Native histograms: there are none.

use super::{
    RequestError, unsnap,
    wire::{Malformed, Reader, put_bytes, put_double, put_number, put_varint},
    xor,
};
use crate::{
    error::Error,
    matcher::{MatchOp, Matcher},
    source::{SelectLimits, SeriesData, Source},
};
use shipwatch_common::{model::Labels, time::UnixMs};

/// Largest request after decompression.
const MAX_REQUEST_BYTES: u64 = 1 << 20;
/// Most queries in one request; Prometheus sends one.
const MAX_QUERIES: usize = 100;
/// Most samples of an answer that is not streamed.
const MAX_HELD_SAMPLES: u64 = 5_000_000;
/// Size from which a frame is sent.
const FRAME_BYTES: usize = 1 << 20;

/// One selection.
#[derive(Clone, Debug)]
pub struct ReadQuery {
    start_ms: UnixMs,
    end_ms: UnixMs,
    matchers: Vec<Matcher>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    queries: Vec<ReadQuery>,
    /// Whether the client takes a stream of chunks.
    pub is_streamed: bool,
}

/// Why a request is not answered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReadError {
    /// The request is wrong.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A matcher, a limit, or the store.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<Malformed> for ReadError {
    fn from(error: Malformed) -> Self {
        Self::Request(error.into())
    }
}

impl ReadRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// It is no request, or one of its matchers cannot be used.
    pub fn parse(body: &[u8]) -> Result<Self, ReadError> {
        let message = unsnap(body, MAX_REQUEST_BYTES)?;
        let (mut reader, mut queries, mut types) = (Reader(&message), Vec::new(), Vec::new());
        while let Some((number, field)) = reader.field()? {
            match (number, field) {
                (1, field) => {
                    if queries.len() >= MAX_QUERIES {
                        return Err(RequestError::TooLarge { what: "queries", limit: MAX_QUERIES as u64 }.into());
                    }
                    queries.push(query(field.bytes()?)?);
                }
                (2, super::wire::Field::Bytes(packed)) => {
                    let mut packed = Reader(packed);
                    while !packed.0.is_empty() {
                        types.push(packed.varint()?);
                    }
                }
                (2, field) => types.push(field.number()?),
                _ => {}
            }
        }
        // The first one that is known; samples if none is.
        let is_streamed = types.into_iter().find(|kind| *kind <= 1) == Some(1);
        Ok(Self { queries, is_streamed })
    }

    /// The whole answer, compressed.
    ///
    /// # Errors
    /// A limit, or a failing read.
    pub fn answer(&self, source: &dyn Source, limits: &SelectLimits) -> Result<Vec<u8>, ReadError> {
        let (mut out, mut left) = (Vec::new(), limits.max_samples.min(MAX_HELD_SAMPLES));
        for query in &self.queries {
            let mut result = Vec::new();
            for series in query.select(source, limits, &mut left)? {
                let mut message = labels_message(&series.labels);
                for (ts, value) in series.ts.iter().zip(&series.values) {
                    let mut sample = Vec::with_capacity(20);
                    put_double(&mut sample, 1, *value);
                    put_number(&mut sample, 2, ts.cast_unsigned());
                    put_bytes(&mut message, 2, &sample);
                }
                put_bytes(&mut result, 1, &message);
            }
            put_bytes(&mut out, 1, &result);
        }
        let compressed = snap::raw::Encoder::new().compress_vec(&out);
        Ok(compressed.map_err(|error| RequestError::Snappy(error.to_string()))?)
    }

    /// Gives the answer away frame by frame; `send` says whether there is somebody who listens.
    ///
    /// # Errors
    /// A limit, or a failing read.
    pub fn stream(&self, source: &dyn Source, limits: &SelectLimits, send: &mut dyn FnMut(Vec<u8>) -> bool) -> Result<(), ReadError> {
        let mut left = limits.max_samples;
        for (index, query) in self.queries.iter().enumerate() {
            for series in query.select(source, limits, &mut left)? {
                limits.check_time()?;
                if !stream_series(index as u64, &series, send) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl ReadQuery {
    fn select(&self, source: &dyn Source, limits: &SelectLimits, left: &mut u64) -> Result<Vec<SeriesData>, Error> {
        let limits = SelectLimits { max_samples: *left, ..*limits };
        let found = source.select(&self.matchers, self.start_ms, self.end_ms, &limits)?;
        *left = left.saturating_sub(found.iter().map(|series| series.ts.len() as u64).sum());
        Ok(found)
    }
}

/// `Query`: start 1, end 2, matchers 3.
fn query(message: &[u8]) -> Result<ReadQuery, ReadError> {
    let (mut reader, mut query) = (Reader(message), ReadQuery { start_ms: 0, end_ms: 0, matchers: Vec::new() });
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => query.start_ms = field.number()?.cast_signed(),
            2 => query.end_ms = field.number()?.cast_signed(),
            3 if query.matchers.len() >= Labels::MAX_LABELS => {
                return Err(RequestError::TooLarge { what: "matchers", limit: Labels::MAX_LABELS as u64 }.into());
            }
            3 => query.matchers.push(matcher(field.bytes()?)?),
            _ => {}
        }
    }
    Ok(query)
}

/// `LabelMatcher`: type 1, name 2, value 3.
fn matcher(message: &[u8]) -> Result<Matcher, ReadError> {
    let (mut reader, mut op, mut name, mut value) = (Reader(message), MatchOp::Equal, "", "");
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => {
                op = match field.number()? {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    _ => return Err(Malformed.into()),
                };
            }
            2 => name = field.text()?,
            3 => value = field.text()?,
            _ => {}
        }
    }
    Ok(Matcher::new(op, name, value)?)
}

fn labels_message(labels: &Labels) -> Vec<u8> {
    let (mut out, mut label) = (Vec::new(), Vec::new());
    for (name, value) in labels.iter() {
        label.clear();
        put_bytes(&mut label, 1, name.as_bytes());
        put_bytes(&mut label, 2, value.as_bytes());
        put_bytes(&mut out, 1, &label);
    }
    out
}

/// `ChunkedReadResponse`: series 1 (labels 1, chunks 2), index of the query 2. A long series has several.
fn stream_series(index: u64, series: &SeriesData, send: &mut dyn FnMut(Vec<u8>) -> bool) -> bool {
    let labels = labels_message(&series.labels);
    let mut message = labels.clone();
    let chunks = series.ts.chunks(xor::MAX_SAMPLES).zip(series.values.chunks(xor::MAX_SAMPLES)).peekable();
    let mut chunks = chunks;
    while let Some((ts, values)) = chunks.next() {
        put_bytes(&mut message, 2, &chunk_message(ts, values));
        if message.len() >= FRAME_BYTES || chunks.peek().is_none() {
            let mut response = Vec::with_capacity(message.len() + 16);
            put_bytes(&mut response, 1, &message);
            put_number(&mut response, 2, index);
            if !send(frame(&response)) {
                return false;
            }
            message.clone_from(&labels);
        }
    }
    true
}

/// `Chunk`: first time 1, last time 2, type 3 (XOR is 1), data 4.
fn chunk_message(ts: &[i64], values: &[f64]) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, 1, ts.first().copied().unwrap_or(0).cast_unsigned());
    put_number(&mut out, 2, ts.last().copied().unwrap_or(0).cast_unsigned());
    put_number(&mut out, 3, 1);
    put_bytes(&mut out, 4, &xor::encode(ts, values));
    out
}

/// A message after its length and its checksum.
fn frame(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 12);
    put_varint(&mut out, message.len() as u64);
    out.extend_from_slice(&crc32c(message).to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// CRC-32C (Castagnoli), a byte at a time.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let (mut table, mut at) = ([0; 256], 0);
        while at < 256 {
            let (mut crc, mut bit) = (at as u32, 0);
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[at] = crc;
            at += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc: u32, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemSource;
    use proptest::prelude::*;
    use shipwatch_common::model::Sample;
    use std::sync::Arc;

    fn source() -> MemSource {
        let mut source = MemSource::new();
        for (name, count) in [("a", 3), ("b", 300)] {
            let labels = Arc::new(Labels::new([("__name__", "up"), ("job", name)]).unwrap());
            source.extend((0..count).map(|at| Sample { labels: labels.clone(), ts_ms: at * 1_000, value: at as f64 }));
        }
        source
    }

    fn body(op: u64, value: &str, types: &[u64]) -> Vec<u8> {
        let (mut matcher, mut query, mut request) = (Vec::new(), Vec::new(), Vec::new());
        put_number(&mut matcher, 1, op);
        put_bytes(&mut matcher, 2, b"job");
        put_bytes(&mut matcher, 3, value.as_bytes());
        put_number(&mut query, 1, 1_000);
        put_number(&mut query, 2, i64::MAX as u64);
        put_bytes(&mut query, 3, &matcher);
        put_bytes(&mut request, 1, &query);
        let packed = types.iter().fold(Vec::new(), |mut out, kind| {
            put_varint(&mut out, *kind);
            out
        });
        put_bytes(&mut request, 2, &packed);
        snap::raw::Encoder::new().compress_vec(&request).unwrap()
    }

    #[test]
    fn checksums_are_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn the_first_known_type_is_taken_and_limits_hold() {
        let is_streamed = |types: &[u64]| ReadRequest::parse(&body(0, "a", types)).unwrap().is_streamed;
        assert_eq!(
            [is_streamed(&[]), is_streamed(&[0]), is_streamed(&[1, 0]), is_streamed(&[7, 1]), is_streamed(&[0, 1])],
            [false, false, true, true, false]
        );
        assert!(matches!(ReadRequest::parse(&body(2, "(", &[])), Err(ReadError::Store(Error::Matcher(_)))));
        let request = ReadRequest::parse(&body(1, "c", &[])).unwrap();
        let limits = SelectLimits { max_samples: 300, ..SelectLimits::none() };
        assert!(matches!(request.answer(&source(), &limits), Err(ReadError::Store(Error::Limit { .. }))));
        let answer = request.answer(&source(), &SelectLimits::none()).unwrap();
        let message = unsnap(&answer, 1 << 20).unwrap();
        let results = Reader(&message).field().unwrap().unwrap().1.bytes().unwrap();
        let mut reader = Reader(results);
        let count = std::iter::from_fn(|| reader.field().unwrap()).count();
        assert_eq!(count, 2);
    }

    #[test]
    fn a_stream_has_whole_frames_and_stops_when_nobody_listens() {
        let request = ReadRequest::parse(&body(2, "a|b", &[1])).unwrap();
        let mut frames = Vec::new();
        request
            .stream(&source(), &SelectLimits::none(), &mut |frame| {
                frames.push(frame);
                true
            })
            .unwrap();
        assert_eq!(frames.len(), 2);
        for frame in &frames {
            let mut reader = Reader(frame);
            assert_eq!(reader.varint().unwrap() as usize + 4, reader.0.len());
            assert_eq!(crc32c(&reader.0[4..]).to_be_bytes(), reader.0[..4]);
        }
        let mut sent = 0;
        let nobody = &mut |_| {
            sent += 1;
            false
        };
        request.stream(&source(), &SelectLimits::none(), nobody).unwrap();
        assert_eq!(sent, 1);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ReadRequest::parse(&bytes);
            let _ = ReadRequest::parse(&snap::raw::Encoder::new().compress_vec(&bytes).unwrap());
        }
    }
}
