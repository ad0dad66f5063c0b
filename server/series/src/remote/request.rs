//! Requests of Prometheus' remote write, 1.0 (`prometheus.WriteRequest`) and 2.0 (`io.prometheus.write.v2.Request`), from bytes
//! to samples.
//!
//! # Invariants
//! - A message that is not whole, or that asks for more than the bounds, is refused as a whole. A series with labels that cannot
//!   be stored is left out and counted with its reason; the others are taken.
//! - Labels may come in any order; a name twice is an error of its series.
//! - Memory follows the size of the message: samples and the text of new label sets are bounded beside it.

use super::{
    Receiver,
    known::Pair,
    wire::{Malformed, Reader},
};
use shipwatch_common::{
    model::{Labels, Sample},
    time::UnixMs,
};
use std::sync::Arc;

/// Most samples in one request: a thousand times what senders put into one.
const MAX_SAMPLES: usize = 2_000_000;
/// Most text of label sets that one request may make. With a table of texts a small message could ask for far more.
const MAX_NEW_LABEL_BYTES: usize = 512 << 20;
/// Labels of one series that are looked at; a set with more than [`Labels::MAX_LABELS`] is refused anyway.
const MAX_PAIRS: usize = 4 * Labels::MAX_LABELS;
/// Most metrics that one request may describe; further ones are read over.
const MAX_METADATA: usize = 100_000;
/// Most texts in the table of a 2.0 message.
const MAX_SYMBOLS: usize = 4_000_000;

/// Which message a request holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// Why a whole request is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// Compression or encoding.
    #[error("the body is not snappy-compressed data in the block format: {0}")]
    Snappy(String),
    /// Not the message it should be.
    #[error("the body cannot be read: it is not a whole Protocol Buffers message")]
    Malformed,
    /// A 2.0 message whose table of texts is wrong.
    #[error("the body cannot be read: {0}")]
    Symbols(&'static str),
    /// Over a bound.
    #[error("the request is too large: more than {limit} {what}; send less at a time")]
    TooLarge {
        /// Such as `samples`.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
}

impl From<Malformed> for RequestError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Type, help and unit of a metric.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Description {
    /// `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset` or `unknown`.
    pub kind: &'static str,
    /// What it is.
    pub help: String,
    /// Unit, if any.
    pub unit: String,
}

/// What a request holds.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// To be stored.
    pub samples: Vec<Sample>,
    /// Metrics' names and what they are.
    pub metadata: Vec<(String, Description)>,
    /// Exemplars that came; they are not stored.
    pub exemplars: u64,
    /// Native histograms that came; they are not stored.
    pub histograms: u64,
    /// Samples of replicas that are not listened to.
    pub duplicates: u64,
    /// Samples of series whose labels cannot be stored.
    pub refused: u64,
    /// The first reason for it.
    pub refusal: Option<String>,
}

/// Reads a decompressed message.
///
/// # Errors
/// Nothing of it can be taken.
pub(super) fn read(receiver: &Receiver, version: Version, message: &[u8], now_ms: UnixMs) -> Result<Written, RequestError> {
    let mut decoder = Decoder { receiver, now_ms, written: Written::default(), pairs: Vec::new(), replica: None, new_bytes: 0 };
    match version {
        Version::V1 => decoder.v1(message)?,
        Version::V2 => decoder.v2(message)?,
    }
    Ok(decoder.written)
}

struct Decoder<'a> {
    receiver: &'a Receiver,
    now_ms: UnixMs,
    written: Written,
    /// Of the series that is read, sorted.
    pairs: Vec<Pair<'a>>,
    /// Group and replica of the series before, and whether they were admitted.
    replica: Option<(Pair<'a>, bool)>,
    new_bytes: usize,
}

/// What becomes of a series.
enum Series {
    Take(Arc<Labels>),
    Duplicate,
    Refuse(String),
}

impl<'a> Decoder<'a> {
    fn v1(&mut self, message: &'a [u8]) -> Result<(), RequestError> {
        let mut reader = Reader(message);
        while let Some((number, field)) = reader.field()? {
            match number {
                1 => self.v1_series(field.bytes()?)?,
                3 => self.v1_metadata(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// `TimeSeries`: labels 1, samples 2, exemplars 3, histograms 4. Labels come first in what encoders write; the samples are
    /// read in a second pass, so any order is understood.
    fn v1_series(&mut self, message: &'a [u8]) -> Result<(), RequestError> {
        self.pairs.clear();
        let (mut reader, mut samples_from, mut labels_end) = (Reader(message), None, 0);
        while let Some((number, field)) = {
            let before = reader.0;
            let next = reader.field()?;
            if next.is_some_and(|(number, _)| number == 2) && samples_from.is_none() {
                samples_from = Some(before);
            }
            next
        } {
            match number {
                1 => {
                    let pair = label(field.bytes()?)?;
                    self.push_pair(pair);
                    labels_end = message.len() - reader.0.len();
                }
                3 => self.written.exemplars += 1,
                4 => self.written.histograms += 1,
                _ => {}
            }
        }
        let Some(samples) = samples_from else { return Ok(()) };
        let hash = self.receiver.known.hash(&message[..labels_end]);
        let series = self.series(hash)?;
        self.samples(series, samples)
    }

    fn v1_metadata(&mut self, message: &'a [u8]) -> Result<(), RequestError> {
        let (mut reader, mut name, mut description) = (Reader(message), "", Description { kind: "unknown", ..Description::default() });
        while let Some((number, field)) = reader.field()? {
            match number {
                1 => description.kind = Kind::name(field.number()?),
                2 => name = field.text()?,
                4 => field.text()?.clone_into(&mut description.help),
                5 => field.text()?.clone_into(&mut description.unit),
                _ => {}
            }
        }
        self.describe(name, description);
        Ok(())
    }

    fn describe(&mut self, name: &str, description: Description) {
        if !name.is_empty() && self.written.metadata.len() < MAX_METADATA {
            self.written.metadata.push((name.to_owned(), description));
        }
    }

    /// `Request`: symbols 4, series 5.
    fn v2(&mut self, message: &'a [u8]) -> Result<(), RequestError> {
        let (mut reader, mut symbols) = (Reader(message), Vec::new());
        while let Some((number, field)) = reader.field()? {
            if number == 4 {
                if symbols.len() >= MAX_SYMBOLS {
                    return Err(RequestError::TooLarge { what: "symbols", limit: MAX_SYMBOLS as u64 });
                }
                let text = field.bytes()?;
                symbols.push((text, self.receiver.known.hash(text)));
            }
        }
        if symbols.first().is_none_or(|(first, _)| !first.is_empty()) {
            return Err(RequestError::Symbols("the first of the symbols must be the empty text"));
        }
        let mut reader = Reader(message);
        while let Some((number, field)) = reader.field()? {
            if number == 5 {
                self.v2_series(field.bytes()?, &symbols)?;
            }
        }
        Ok(())
    }

    /// `TimeSeries` of 2.0: label references 1, samples 2, histograms 3, exemplars 4, metadata 5.
    fn v2_series(&mut self, message: &'a [u8], symbols: &[(&'a [u8], u64)]) -> Result<(), RequestError> {
        self.pairs.clear();
        let (mut reader, mut hash, mut samples_from, mut metadata) = (Reader(message), 0u64, None, None);
        while let Some((number, field)) = {
            let before = reader.0;
            let next = reader.field()?;
            if next.is_some_and(|(number, _)| number == 2) && samples_from.is_none() {
                samples_from = Some(before);
            }
            next
        } {
            match number {
                1 => {
                    let mut references = Reader(field.bytes()?);
                    while !references.0.is_empty() {
                        let name = symbol(symbols, references.varint()?)?;
                        if references.0.is_empty() {
                            return Err(RequestError::Symbols("the label references of a series are not pairs"));
                        }
                        let value = symbol(symbols, references.varint()?)?;
                        self.push_pair((name.0, value.0));
                        hash = mix(mix(hash, name.1), value.1);
                    }
                }
                3 => self.written.histograms += 1,
                4 => self.written.exemplars += 1,
                5 => metadata = Some(field.bytes()?),
                _ => {}
            }
        }
        if let Some(message) = metadata {
            self.v2_metadata(message, symbols)?;
        }
        let Some(samples) = samples_from else { return Ok(()) };
        let series = self.series(hash)?;
        self.samples(series, samples)
    }

    /// `Metadata`: type 1, help reference 3, unit reference 4; it is of the series' metric.
    fn v2_metadata(&mut self, message: &[u8], symbols: &[(&'a [u8], u64)]) -> Result<(), RequestError> {
        let (mut reader, mut description) = (Reader(message), Description { kind: "unknown", ..Description::default() });
        let text = |at: u64| Ok::<_, RequestError>(std::str::from_utf8(symbol(symbols, at)?.0).map_err(|_| Malformed)?.to_owned());
        while let Some((number, field)) = reader.field()? {
            match number {
                1 => description.kind = Kind::name(field.number()?),
                3 => description.help = text(field.number()?)?,
                4 => description.unit = text(field.number()?)?,
                _ => {}
            }
        }
        let is_known = description.kind != "unknown" || !description.help.is_empty() || !description.unit.is_empty();
        let name =
            self.pairs.iter().find(|(name, _)| *name == Labels::NAME.as_bytes()).and_then(|(_, value)| std::str::from_utf8(value).ok());
        // A family's series follow each other.
        let is_new = |name: &str| self.written.metadata.last().is_none_or(|(last, _)| last != name);
        if let Some(name) = name.filter(|name| is_known && is_new(name)) {
            self.describe(name, description);
        }
        Ok(())
    }

    /// A label with an empty value does not exist.
    fn push_pair(&mut self, pair: Pair<'a>) {
        if !pair.1.is_empty() && self.pairs.len() < MAX_PAIRS {
            self.pairs.push(pair);
        }
    }

    /// From the pairs that were read to labels.
    fn series(&mut self, hash: u64) -> Result<Series, RequestError> {
        if !self.pairs.is_sorted() {
            self.pairs.sort_unstable();
        }
        if !self.is_admitted() {
            return Ok(Series::Duplicate);
        }
        let known = &self.receiver.known;
        if let Some(labels) = known.find(hash, &self.pairs) {
            return Ok(Series::Take(labels));
        }
        self.new_bytes += self.pairs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.new_bytes > MAX_NEW_LABEL_BYTES {
            return Err(RequestError::TooLarge { what: "bytes of new label sets", limit: MAX_NEW_LABEL_BYTES as u64 });
        }
        Ok(match labels_of(&self.pairs) {
            Ok(labels) => {
                let labels = Arc::new(labels);
                known.add(hash, labels.clone());
                Series::Take(labels)
            }
            Err(reason) => Series::Refuse(reason),
        })
    }

    /// Takes the replica's label off and asks whether it is listened to.
    fn is_admitted(&mut self) -> bool {
        let config = &self.receiver.config;
        if !config.ha {
            return true;
        }
        let find = |pairs: &[Pair<'a>], name: &str| pairs.iter().position(|pair| pair.0 == name.as_bytes());
        let (Some(group), Some(replica)) = (find(&self.pairs, &config.ha_cluster_label), find(&self.pairs, &config.ha_replica_label))
        else {
            return true;
        };
        let asked = (self.pairs[group].1, self.pairs[replica].1);
        self.pairs.remove(replica);
        if let Some((before, admitted)) = self.replica
            && before == asked
        {
            return admitted;
        }
        let admitted = self.receiver.replicas.admit(asked.0, asked.1, self.now_ms, config.ha_failover);
        self.replica = Some((asked, admitted));
        admitted
    }

    /// Samples (2) of value 1 and time 2 in a message's rest.
    fn samples(&mut self, series: Series, message: &[u8]) -> Result<(), RequestError> {
        let (mut reader, mut others) = (Reader(message), 0);
        while let Some((number, field)) = reader.field()? {
            if number != 2 {
                continue;
            }
            let (value, ts_ms) = sample(field.bytes()?)?;
            match &series {
                Series::Take(labels) => {
                    if self.written.samples.len() >= MAX_SAMPLES {
                        return Err(RequestError::TooLarge { what: "samples", limit: MAX_SAMPLES as u64 });
                    }
                    self.written.samples.push(Sample { labels: labels.clone(), ts_ms, value });
                }
                Series::Duplicate | Series::Refuse(_) => others += 1,
            }
        }
        match series {
            Series::Take(_) => {}
            Series::Duplicate => self.written.duplicates += others,
            Series::Refuse(reason) => {
                self.written.refused += others;
                self.written.refusal.get_or_insert(reason);
            }
        }
        Ok(())
    }
}

fn label(message: &[u8]) -> Result<Pair<'_>, Malformed> {
    let (mut reader, mut pair) = (Reader(message), (&[][..], &[][..]));
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => pair.0 = field.bytes()?,
            2 => pair.1 = field.bytes()?,
            _ => {}
        }
    }
    Ok(pair)
}

fn sample(message: &[u8]) -> Result<(f64, i64), Malformed> {
    let (mut reader, mut value, mut ts) = (Reader(message), 0.0, 0);
    while let Some((number, field)) = reader.field()? {
        match number {
            1 => value = field.double()?,
            2 => ts = field.number()?.cast_signed(),
            _ => {}
        }
    }
    Ok((value, ts))
}

fn symbol<'a>(symbols: &[(&'a [u8], u64)], at: u64) -> Result<(&'a [u8], u64), RequestError> {
    let found = usize::try_from(at).ok().and_then(|at| symbols.get(at));
    found.copied().ok_or(RequestError::Symbols("a reference points outside the symbols"))
}

/// Puts hashes together, one after the other.
const fn mix(hash: u64, next: u64) -> u64 {
    let wide = ((hash ^ next) as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    (wide as u64).rotate_left(29) ^ (wide >> 64) as u64
}

fn labels_of(pairs: &[Pair<'_>]) -> Result<Labels, String> {
    let shown =
        || pairs.iter().find(|(name, _)| *name == Labels::NAME.as_bytes()).map(|(_, value)| String::from_utf8_lossy(value).into_owned());
    let Some(metric) = shown() else { return Err("a series has no metric name (label `__name__`)".to_owned()) };
    let place = |reason: &dyn std::fmt::Display| format!("series {:?}: {reason}", metric.chars().take(100).collect::<String>());
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| place(&"a label is not UTF-8"));
    // Bounded before anything is copied.
    if pairs.len() > Labels::MAX_LABELS {
        return Err(place(&format!("{} labels are more than the {} that are allowed", pairs.len(), Labels::MAX_LABELS)));
    }
    let texts = pairs.iter().map(|(name, value)| Ok((text(name)?, text(value)?))).collect::<Result<Vec<(&str, &str)>, String>>()?;
    Labels::new(texts).map_err(|error| place(&error))
}

/// `MetricMetadata.MetricType`, the same in both versions.
pub(super) struct Kind;

impl Kind {
    /// By number.
    const ALL: [&'static str; 8] = ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];

    fn name(number: u64) -> &'static str {
        usize::try_from(number).ok().and_then(|number| Self::ALL.get(number)).copied().unwrap_or("unknown")
    }

    pub(super) fn number(name: &str) -> u64 {
        Self::ALL.iter().position(|known| *known == name).unwrap_or(0) as u64
    }
}
