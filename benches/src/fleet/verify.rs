//! Whether every sample is stored, once: the count of every series, and the sum over the series that count ticks.
//!
//! The same questions go to the running server over HTTP and, after sealing, to the engine on the same files. A family of
//! metrics is asked for at a time, all hosts together: what is counted loses its name, so families would collide.

use super::{
    agent::{Outcome, Plan},
    series::TICKS,
};
use crate::{float, report::Report};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// Examples of what is wrong that a report shows.
const EXAMPLES: usize = 3;

/// What must be there.
#[derive(Debug)]
pub struct Expected {
    ticks: BTreeMap<String, u64>,
    families: Vec<(String, usize)>,
    /// From the first sample to the last.
    range: String,
    /// The time of the last.
    pub at_ms: i64,
}

impl Expected {
    /// From what the agents did.
    #[must_use]
    pub fn new(plan: &Plan, outcomes: &[Outcome], last_ms: i64) -> Self {
        Self {
            ticks: outcomes.iter().map(|outcome| (outcome.name.clone(), outcome.ticks)).collect(),
            families: plan.layout.families().map(|(name, series)| (name.to_owned(), series)).collect(),
            // A range may or may not contain its left end; nothing lies in the step before the first sample.
            range: format!("{}ms", last_ms - plan.first_ms + plan.pace.step_ms() / 2),
            at_ms: last_ms,
        }
    }

    /// Samples of all hosts.
    #[must_use]
    pub fn samples(&self) -> u64 {
        let series: usize = self.families.iter().map(|(_, series)| series).sum();
        self.ticks.values().sum::<u64>() * series as u64
    }

    fn series(&self) -> u64 {
        self.ticks.len() as u64 * self.families.iter().map(|(_, series)| *series as u64).sum::<u64>()
    }
}

/// What is there.
#[derive(Debug, Default)]
pub struct Found {
    samples: u64,
    series: u64,
    expected: (u64, u64),
    wrong: u64,
    examples: Vec<String>,
}

impl Found {
    fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.wrong += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(what());
        }
    }

    /// Adds the finding to the report.
    pub fn report(&self, report: &mut Report, place: &str) {
        let (series, samples) = self.expected;
        let mut text = format!("{place}: {} of {series} series with {} of {samples} samples", self.series, self.samples);
        if self.wrong > 0 {
            text += &format!("; {} are wrong: {}", self.wrong, self.examples.join("; "));
        }
        report.check(text, self.is_good());
    }

    /// Whether nothing is lost and nothing is doubled.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.wrong == 0 && (self.series, self.samples) == self.expected
    }
}

/// Asks for all of it. `ask` gives `data` of an instant query at [`Expected::at_ms`].
///
/// # Errors
/// A question was not answered.
pub async fn check(expected: &Expected, ask: impl AsyncFn(&str) -> Result<Value>) -> Result<Found> {
    let mut found = Found { expected: (expected.series(), expected.samples()), ..Found::default() };
    for (family, series) in &expected.families {
        let data = ask(&format!("count_over_time({family}[{}])", expected.range)).await?;
        let counts = vector(&data).with_context(|| format!("the counts of {family}"))?;
        let mut per_host: BTreeMap<&str, usize> = BTreeMap::new();
        for (host, count) in &counts {
            *per_host.entry(host).or_default() += 1;
            let wanted = expected.ticks.get(*host).copied().unwrap_or(0);
            if (*count - float(wanted)).abs() > 0.1 {
                found.wrong(|| format!("a series of {family} of {host} has {count} samples, not {wanted}"));
            }
            found.series += 1;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let count = *count as u64;
            found.samples += count;
        }
        for host in expected.ticks.keys() {
            let have = per_host.get(host.as_str()).copied().unwrap_or(0);
            if have != *series {
                found.wrong(|| format!("{host} has {have} series of {family}, not {series}"));
            }
        }
    }
    let data = ask(&format!("sum_over_time({TICKS}[{}])", expected.range)).await?;
    for (host, sum) in vector(&data).context("the sums of ticks")? {
        let ticks = expected.ticks.get(host).copied().unwrap_or(0);
        let wanted = float(ticks * ticks.saturating_sub(1) / 2);
        if (sum - wanted).abs() > 0.1 {
            found.wrong(|| format!("the ticks of {host} sum up to {sum}, not {wanted}"));
        }
    }
    Ok(found)
}

/// Hosts and values of an instant vector.
fn vector(data: &Value) -> Option<Vec<(&str, f64)>> {
    let entries = data.get("result")?.as_array()?;
    entries
        .iter()
        .map(|entry| Some((entry.pointer("/metric/instance")?.as_str()?, entry.pointer("/value/1")?.as_str()?.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(counts: &[(&str, u64)]) -> Value {
        let entry = |(host, count): &(&str, u64)| json!({"metric": {"instance": host}, "value": [0, count.to_string()]});
        json!({"resultType": "vector", "result": counts.iter().map(entry).collect::<Vec<_>>()})
    }

    async fn found(counts: &[(&str, u64)], sums: &[(&str, u64)]) -> Found {
        let expected = Expected {
            ticks: [("a".to_owned(), 4), ("b".to_owned(), 5)].into(),
            families: vec![("node_x".to_owned(), 2)],
            range: "60s".to_owned(),
            at_ms: 0,
        };
        let ask = async |query: &str| Ok(if query.starts_with("sum") { answer(sums) } else { answer(counts) });
        check(&expected, ask).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_lost_or_doubled_or_of_nobody_is_found() {
        let (counts, sums) = ([("a", 4), ("a", 4), ("b", 5), ("b", 5)], [("a", 6), ("b", 10)]);
        assert!(found(&counts, &sums).await.is_good());
        assert!(!found(&counts[..3], &sums).await.is_good(), "a lost series");
        assert!(!found(&[("a", 4), ("a", 3), ("b", 5), ("b", 5)], &sums).await.is_good(), "a lost sample");
        assert!(!found(&[("a", 4), ("a", 5), ("b", 5), ("b", 4)], &sums).await.is_good(), "one lost, one doubled");
        assert!(!found(&[&counts[..], &[("c", 0)]].concat(), &sums).await.is_good(), "a series of nobody");
        assert!(!found(&counts, &[("a", 7), ("b", 10)]).await.is_good(), "a wrong value");
    }
}
