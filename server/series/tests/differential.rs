//! The same random series and the same random queries for Prometheus itself and for this crate.
//!
//! The other side is Debian's `prometheus`, 2.42, over remote write and its HTTP API on the loopback interface; this side is the
//! `http` module over series in memory. Every difference is one of [`compare::Reason`], the list of what 3.x does otherwise, or
//! the test fails with the seed, the query and both answers.
//!
//! # What keeps the two comparable
//! - 2.42 includes a sample that lies exactly on a range's start, 3.x does not: no sample lies on a whole second, queries are
//!   asked at seconds that end in 7 with ranges, offsets and steps of tens of seconds, and the inner one of nested subqueries is
//!   moved by 3 seconds.
//! - What 2.42 does not know (`mad_over_time`, `limitk`, …) is left to the tables in `promql/`; of renamed functions each side
//!   gets its own name.
//!
//! `SHIPWATCH_DIFFERENTIAL=200x110` asks for 200 data sets with 110 queries each; `SHIPWATCH_DIFFERENTIAL_SEED=7` for data set
//! 7 only.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails with a panic")]

#[path = "differential/compare.rs"]
mod compare;
#[path = "differential/data.rs"]
mod data;
#[path = "differential/grammar.rs"]
mod grammar;
#[path = "differential/queries.rs"]
mod queries;
#[path = "differential/random.rs"]
mod random;
#[path = "differential/server.rs"]
mod server;

use compare::Reason;
use queries::Question;
use server::Prometheus;
use shipwatch_series::{
    MemSource,
    http::{Params, query, query_range},
    promql::EvalOptions,
};
use std::collections::BTreeMap;

/// Data sets and queries of each: what runs in well under a minute.
const DEFAULT_SIZE: (u64, usize) = (20, 300);

#[expect(clippy::disallowed_methods, reason = "the size of a test run is chosen by whoever runs it")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn size() -> (Vec<u64>, usize) {
    let (sets, queries) = variable("SHIPWATCH_DIFFERENTIAL").map_or(DEFAULT_SIZE, |text| {
        let (sets, queries) = text.split_once('x').unwrap();
        (sets.parse().unwrap(), queries.parse().unwrap())
    });
    match variable("SHIPWATCH_DIFFERENTIAL_SEED") {
        Some(seed) => (vec![seed.parse().unwrap()], queries),
        None => ((0..sets).collect(), queries),
    }
}

fn ours(source: &MemSource, question: &Question) -> serde_json::Value {
    let options = EvalOptions { experimental: true, ..EvalOptions::default() };
    let reply = match question.pairs(&question.ours) {
        pairs if question.is_range() => query_range(source, Params(&pairs), &options),
        pairs => query(source, Params(&pairs), 0, &options),
    };
    reply.to_value()
}

#[test]
fn answers_are_those_of_prometheus() {
    let prometheus = Prometheus::start();
    let (seeds, queries) = size();
    let mut asked = 0;
    let mut errors = 0;
    let mut explained: BTreeMap<Reason, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for seed in seeds {
        let mut random = random::Random::new(seed);
        let series = data::series(&mut random, &data::name(seed));
        prometheus.write(&series);
        let source = data::source(&series);
        for _ in 0..queries {
            let question = queries::question(&mut random, &data::name(seed));
            let theirs = prometheus.ask(&question);
            let ours = ours(&source, &question);
            asked += 1;
            errors += usize::from(theirs["status"] == "error");
            let Some(difference) = compare::difference(&question, &ours, &theirs) else { continue };
            let is_zero_point = || {
                let other = question.without_zero_point();
                let (mine, yours) = (self::ours(&source, &other), prometheus.ask(&other));
                question.has(&["rate", "increase"]) && compare::difference(&other, &mine, &yours).is_none()
            };
            let reason = compare::reason(&question, &difference, &ours, &theirs);
            match reason.or_else(|| is_zero_point().then_some(Reason::ZeroPoint)) {
                Some(reason) => *explained.entry(reason).or_default() += 1,
                None => unexplained.push(format!("data set {seed}: {question}\n  {difference}")),
            }
        }
    }
    println!("{asked} queries, {errors} of them errors of prometheus; explained differences: {explained:?}");
    assert!(unexplained.is_empty(), "{} differences:\n{}", unexplained.len(), unexplained[..unexplained.len().min(40)].join("\n"));
    assert!(errors * 4 < asked, "{errors} of {asked} queries are errors: the generator has lost its way");
}
