//! What metrics are, as senders of remote write tell it: in memory only, since senders repeat it.
//!
//! # Invariants
//! - Bounded in metrics and in the length of texts; what is told last about a metric stays. A full table takes no further metrics.

use super::Description;
use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

/// Metrics that are remembered.
const MAX_METRICS: usize = 20_000;
/// Longest name, help or unit; longer ones are cut.
const MAX_TEXT_CHARS: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Metadata(RwLock<BTreeMap<String, Description>>);

impl Metadata {
    /// Takes what a request tells.
    pub fn learn(&self, told: Vec<(String, Description)>) {
        if told.is_empty() {
            return;
        }
        let cut = |text: String| if text.len() > MAX_TEXT_CHARS { text.chars().take(MAX_TEXT_CHARS).collect() } else { text };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (name, description) in told {
            if name.len() > MAX_TEXT_CHARS || (known.len() >= MAX_METRICS && !known.contains_key(&name)) {
                continue;
            }
            let description = Description { help: cut(description.help), unit: cut(description.unit), ..description };
            known.insert(name, description);
        }
    }

    /// What a series' metric is, under its own name or that of its family (`x` of `x_bucket`, `x_count` and `x_sum`).
    #[must_use]
    pub fn of_family(&self, name: &str) -> Option<(String, Description)> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let family = || ["_bucket", "_count", "_sum"].iter().find_map(|end| known.get_key_value(name.strip_suffix(end)?));
        known.get_key_value(name).or_else(family).map(|(name, description)| (name.clone(), description.clone()))
    }

    /// Metrics by name: one, or the first ones; `limit` 0 means all.
    #[must_use]
    pub fn list(&self, name: Option<&str>, limit: usize) -> Vec<(String, Description)> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let limit = if limit == 0 { usize::MAX } else { limit };
        let wanted = known.iter().filter(|(known, _)| name.is_none_or(|name| name == known.as_str())).take(limit);
        wanted.map(|(name, description)| (name.clone(), description.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_stays_and_the_table_is_bounded() {
        let metadata = Metadata::default();
        let told = |name: String, help: String| vec![(name, Description { kind: "gauge", help, unit: String::new() })];
        metadata.learn(told("up".to_owned(), "old".to_owned()));
        metadata.learn((0..MAX_METRICS + 5).flat_map(|at| told(format!("m{at}"), "x".repeat(2_000))).collect());
        metadata.learn(told("up".to_owned(), "new".to_owned()));
        assert_eq!(metadata.list(None, 0).len(), MAX_METRICS);
        assert_eq!(metadata.list(Some("up"), 0)[0].1.help, "new");
        assert_eq!(metadata.list(Some("m1"), 0)[0].1.help.len(), MAX_TEXT_CHARS);
        assert_eq!(metadata.list(None, 2).len(), 2);
        let family = |name| metadata.of_family(name).map(|(name, _)| name);
        assert_eq!((family("m1_bucket"), family("m1"), family("m_sum")), (Some("m1".to_owned()), Some("m1".to_owned()), None));
    }
}
