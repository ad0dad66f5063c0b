//! Regular expressions over the head's index and over a day file's find what going through all series finds.

use super::*;
use crate::{matcher::all_match, prefix::tests as prefix};

fn hosts(engine: &Engine, matchers: &[Matcher]) -> Vec<String> {
    let found = engine.select(matchers, i64::MIN, i64::MAX, &SelectLimits::none()).unwrap();
    let mut hosts: Vec<String> = found.iter().map(|series| series.labels.get("host").unwrap_or("").to_owned()).collect();
    hosts.sort_unstable();
    hosts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn expressions_find_what_a_scan_finds(
        values in proptest::collection::btree_set(prefix::VALUE, 1..60),
        patterns in proptest::collection::vec(prefix::pattern(), 60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (engine, _) = open(dir.path());
        let near = ["ab", "a.", "a\u{d7ff}", "a\u{e000}", "\u{10ffff}\u{10ffff}b"].map(str::to_owned);
        let values: BTreeSet<String> = values.into_iter().chain(near).collect();
        // Each in two days, the first of which is sealed.
        for ts in [DAY0 - 3 * HOUR, DAY0] {
            let samples = values.iter().map(|host| sample(host, ts, 1.0)).collect();
            engine.append_at(DAY0, vec![batch("", 0, samples)]).unwrap();
            engine.seal(DAY0).unwrap();
        }
        prop_assert_eq!(engine.stats().day_files, 1);
        for pattern in patterns {
            for op in [MatchOp::Regex, MatchOp::NotRegex] {
                let Ok(matcher) = Matcher::new(op, "host", &*pattern) else { continue };
                let matchers = [Matcher::equal("__name__", "load"), matcher];
                let scanned: Vec<String> =
                    values.iter().filter(|host| all_match(&matchers, &labels("load", host))).cloned().collect();
                prop_assert_eq!(hosts(&engine, &matchers), &*scanned, "{}", matchers[1]);
                let day = engine.select(&matchers, DAY0 - DAY_MS, DAY0 - 1, &SelectLimits::none()).unwrap();
                prop_assert_eq!(day.len(), scanned.len(), "{}", matchers[1]);
            }
        }
    }
}
