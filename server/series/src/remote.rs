//! Prometheus' remote protocols, without a web framework: from the bytes of a request to samples.
//!
//! - [`Receiver`]: remote write 1.0 and 2.0; [`ReadRequest`]: remote read
//! - [`send`]: remote write to others; [`queued`]: samples that wait for it, as bytes
//!
//! # Invariants
//! - Bodies are input: sizes are bounded before and after decompression, and random bytes end in an error.
//! - The sender is answered after its samples are on disk; this module only reads them.
//!
//! # Left out
//! I/O: who connects, waits and tries again is the server's `forward`. Native histograms and exemplars: they are counted, not stored.

mod known;
mod metadata;
pub mod queued;
mod read;
mod replicas;
mod request;
pub mod send;
mod xor;

pub use metadata::Metadata;
pub use read::{ReadError, ReadQuery, ReadRequest};
pub use request::{Description, RequestError, Version, Written};

use known::Known;
use replicas::Replicas;
use serde::{Deserialize, Serialize};
use shipwatch_common::{
    config::Problems,
    protobuf as wire,
    time::{UnixMs, serde_duration},
};
use std::time::Duration;

/// What may write to this server, beside agents.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReceiveConfig {
    /// Largest body of a remote-write request, as it comes.
    pub max_bytes: u64,
    /// Largest body after decompression.
    pub max_decoded_bytes: u64,
    /// Label sets that are remembered so that series which come again need no work: at least as many as there are series
    /// that are written. One takes about 300 bytes if the store does not hold it anyway.
    pub known_series: u32,
    /// Whether of several Prometheus that scrape the same only one is listened to, by `ha_cluster_label` and
    /// `ha_replica_label`.
    pub ha: bool,
    /// Label that names the group.
    pub ha_cluster_label: String,
    /// Label that names the replica. It is removed.
    pub ha_replica_label: String,
    /// How long the replica that is listened to may be silent before another one takes its place.
    #[serde(with = "serde_duration")]
    pub ha_failover: Duration,
}

impl Default for ReceiveConfig {
    fn default() -> Self {
        Self {
            max_bytes: 32 << 20,
            max_decoded_bytes: 128 << 20,
            known_series: 2_000_000,
            ha: false,
            ha_cluster_label: "cluster".to_owned(),
            ha_replica_label: "__replica__".to_owned(),
            ha_failover: Duration::from_secs(30),
        }
    }
}

impl ReceiveConfig {
    /// Reports what is out of bounds.
    pub fn check(&self, problems: &mut Problems) {
        let mut number = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                problems.add(key, format!("must be from {least} to {most}, not {value}"));
            }
        };
        number("max_bytes", self.max_bytes, 1 << 10, 1 << 30);
        number("max_decoded_bytes", self.max_decoded_bytes, 1 << 10, 1 << 30);
        number("known_series", self.known_series.into(), 1_000, 100_000_000);
        for (key, label) in [("ha_cluster_label", &self.ha_cluster_label), ("ha_replica_label", &self.ha_replica_label)] {
            if label.is_empty() {
                problems.add(key, "must not be empty");
            }
        }
        if self.ha_cluster_label == self.ha_replica_label {
            problems.add("ha_replica_label", "must be another label than `ha_cluster_label`");
        }
        if self.ha_failover < Duration::from_secs(1) || self.ha_failover > Duration::from_secs(86_400) {
            problems.add("ha_failover", "must be from 1s to 1d");
        }
    }
}

/// Reads what others write; remembers label sets and elected replicas between requests.
#[derive(Debug)]
pub struct Receiver {
    config: ReceiveConfig,
    known: Known,
    replicas: Replicas,
}

impl Receiver {
    /// With these settings.
    #[must_use]
    pub fn new(config: ReceiveConfig) -> Self {
        let known = Known::new(config.known_series as usize);
        Self { config, known, replicas: Replicas::default() }
    }

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> &ReceiveConfig {
        &self.config
    }

    /// Decompresses and reads a request.
    ///
    /// # Errors
    /// Nothing of it can be taken, now or later.
    pub fn read(&self, version: Version, body: &[u8], now_ms: UnixMs) -> Result<Written, RequestError> {
        let limit = self.config.max_decoded_bytes;
        let message = unsnap(body, limit)?;
        request::read(self, version, &message, now_ms)
    }
}

/// Decompresses snappy's block format. The length that it claims is looked at before any memory is taken for it.
pub(crate) fn unsnap(body: &[u8], limit: u64) -> Result<Vec<u8>, RequestError> {
    let wrong = |error: snap::Error| RequestError::Snappy(error.to_string());
    if snap::raw::decompress_len(body).map_err(wrong)? as u64 > limit {
        return Err(RequestError::TooLarge { what: "decompressed bytes", limit });
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(wrong)
}

#[cfg(test)]
mod tests;
