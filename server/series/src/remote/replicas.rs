//! Several Prometheus that scrape the same targets (a high-availability group) write everything several times. One replica of
//! each group is listened to; another takes its place when it has been silent for a while.
//!
//! The rule is that of Mimir's and Cortex' HA tracker: the group is named by one label, the replica by another, which is
//! removed from what is stored. Elections are not stored: after a restart the first replica that writes is elected.

use shipwatch_common::time::{UnixMs, duration_ms};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Groups that are remembered; what comes from further ones is taken as it is.
const MAX_GROUPS: usize = 10_000;

#[derive(Debug)]
struct Elected {
    replica: Vec<u8>,
    heard_ms: UnixMs,
}

/// Who is listened to.
#[derive(Debug, Default)]
pub(crate) struct Replicas(Mutex<HashMap<Vec<u8>, Elected>>);

impl Replicas {
    /// Whether this replica's samples are taken.
    pub(crate) fn admit(&self, group: &[u8], replica: &[u8], now_ms: UnixMs, failover: Duration) -> bool {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(elected) = groups.get_mut(group) {
            let is_silent = now_ms.saturating_sub(elected.heard_ms) > duration_ms(failover);
            if elected.replica != replica {
                if !is_silent {
                    return false;
                }
                tracing::info!(group = %String::from_utf8_lossy(group), replica = %String::from_utf8_lossy(replica), "another replica is listened to");
                elected.replica = replica.to_vec();
            }
            elected.heard_ms = now_ms;
            return true;
        }
        if groups.len() >= MAX_GROUPS {
            groups.retain(|_, elected| now_ms.saturating_sub(elected.heard_ms) <= duration_ms(failover));
        }
        if groups.len() < MAX_GROUPS {
            groups.insert(group.to_vec(), Elected { replica: replica.to_vec(), heard_ms: now_ms });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_replica_is_heard_until_it_has_been_silent() {
        let (replicas, failover) = (Replicas::default(), Duration::from_secs(30));
        let admit = |replica: &str, at: i64| replicas.admit(b"eu", replica.as_bytes(), at, failover);
        assert!(admit("a", 0) && !admit("b", 10) && admit("a", 20_000));
        assert!(!admit("b", 50_000), "30 s after the last word of a, not more");
        assert!(admit("b", 50_001) && !admit("a", 50_002));
        assert!(replicas.admit(b"us", b"a", 0, failover), "another group");
    }
}
