//! From matchers to series: postings (which series have this label with this value) and the algebra over them.
//!
//! # Invariants
//! - Lists of series are sorted and without duplicates.
//! - A matcher that accepts the empty value keeps series without the label.

use crate::{
    error::Error,
    matcher::{MatchOp, Matcher},
};
use shipwatch_common::model::Labels;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
};

/// An index that [`resolve`] asks; `u32` is the index's own number of a series.
pub(crate) trait Lookup {
    fn all(&self) -> Result<Vec<u32>, Error>;
    fn with_value(&self, name: &str, value: &str) -> Result<Vec<u32>, Error>;
    /// Series that have the label with a value that begins with `prefix` and passes.
    fn with_any(&self, name: &str, prefix: &str, pass: &dyn Fn(&str) -> bool) -> Result<Vec<u32>, Error>;
}

/// Series that meet all matchers.
pub(crate) fn resolve(lookup: &impl Lookup, matchers: &[Matcher]) -> Result<Vec<u32>, Error> {
    let mut found: Option<Vec<u32>> = None;
    // Cheap and narrow ones first.
    let rank = |matcher: &&Matcher| (matcher.matches(""), matcher.op() != MatchOp::Equal);
    let mut ordered: Vec<&Matcher> = matchers.iter().collect();
    ordered.sort_by_key(rank);
    for matcher in ordered {
        if matcher.matches("") {
            let excluded = lookup.with_any(matcher.name(), &matcher.prefix(false), &|value| !matcher.matches(value))?;
            let base = match found {
                Some(list) => list,
                None => lookup.all()?,
            };
            found = Some(subtract(base, &excluded));
        } else {
            let list = match (matcher.op(), matcher.alternatives()) {
                (MatchOp::Equal, _) => lookup.with_value(matcher.name(), matcher.value())?,
                (_, Some(values)) => {
                    let lists = values.iter().map(|value| lookup.with_value(matcher.name(), value));
                    union(lists.collect::<Result<Vec<_>, _>>()?)
                }
                _ => lookup.with_any(matcher.name(), &matcher.prefix(true), &|value| matcher.matches(value))?,
            };
            found = Some(match found {
                Some(base) => intersect(base, &list),
                None => list,
            });
        }
        if found.as_ref().is_some_and(Vec::is_empty) {
            break;
        }
    }
    found.map_or_else(|| lookup.all(), Ok)
}

fn intersect(mut base: Vec<u32>, other: &[u32]) -> Vec<u32> {
    base.retain(|series| other.binary_search(series).is_ok());
    base
}

fn subtract(mut base: Vec<u32>, other: &[u32]) -> Vec<u32> {
    base.retain(|series| other.binary_search(series).is_err());
    base
}

/// Puts lists together.
pub(crate) fn union(lists: impl IntoIterator<Item = Vec<u32>>) -> Vec<u32> {
    let mut all: Vec<u32> = lists.into_iter().flatten().collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The index of the head, in memory.
#[derive(Debug, Default)]
pub(crate) struct Postings {
    by_name: HashMap<Box<str>, BTreeMap<Box<str>, Vec<u32>>>,
    all: Vec<u32>,
}

impl Postings {
    pub(crate) fn add(&mut self, series: u32, labels: &Labels) {
        insert(&mut self.all, series);
        for (name, value) in labels.iter() {
            let values = match self.by_name.get_mut(name) {
                Some(values) => values,
                None => self.by_name.entry(name.into()).or_default(),
            };
            match values.get_mut(value) {
                Some(list) => insert(list, series),
                None => drop(values.insert(value.into(), vec![series])),
            }
        }
    }

    /// Removes many series at once: each touched list is gone through once.
    pub(crate) fn remove<'a>(&mut self, dead: &HashSet<u32>, their_labels: impl IntoIterator<Item = &'a Labels>) {
        self.all.retain(|series| !dead.contains(series));
        let pairs: HashSet<(&str, &str)> = their_labels.into_iter().flat_map(Labels::iter).collect();
        for (name, value) in pairs {
            let Some(values) = self.by_name.get_mut(name) else { continue };
            if let Some(list) = values.get_mut(value) {
                list.retain(|series| !dead.contains(series));
                if list.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.by_name.remove(name);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many series have a label with this value.
    pub(crate) fn count(&self, name: &str, value: &str) -> usize {
        self.by_name.get(name).and_then(|values| values.get(value)).map_or(0, Vec::len)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.by_name.get(name).into_iter().flat_map(|values| values.keys().map(|value| &**value))
    }
}

fn insert(list: &mut Vec<u32>, series: u32) {
    match list.last() {
        Some(last) if *last >= series => {
            if let Err(at) = list.binary_search(&series) {
                list.insert(at, series);
            }
        }
        _ => {
            // By a little: the lists of a head have eight entries and more for each of its series.
            if list.len() == list.capacity() {
                list.reserve_exact(1 + list.len() / 8);
            }
            list.push(series);
        }
    }
}

impl Lookup for Postings {
    fn all(&self) -> Result<Vec<u32>, Error> {
        Ok(self.all.clone())
    }

    fn with_value(&self, name: &str, value: &str) -> Result<Vec<u32>, Error> {
        Ok(self.by_name.get(name).and_then(|values| values.get(value)).cloned().unwrap_or_default())
    }

    fn with_any(&self, name: &str, prefix: &str, pass: &dyn Fn(&str) -> bool) -> Result<Vec<u32>, Error> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let values = self.by_name.get(name).into_iter().flat_map(|values| values.range::<str, _>(from));
        let lists = values.take_while(|(value, _)| value.starts_with(prefix)).filter(|(value, _)| pass(value));
        Ok(union(lists.map(|(_, list)| list.clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::all_match;
    use proptest::prelude::*;

    fn matcher() -> impl Strategy<Value = Matcher> {
        let op = prop_oneof![Just(MatchOp::Equal), Just(MatchOp::NotEqual), Just(MatchOp::Regex), Just(MatchOp::NotRegex)];
        let value = prop_oneof![Just(""), Just("1"), Just("2"), Just("1|2"), Just(".*"), Just(".+"), Just("|3"), Just("2.*"), Just("1?")];
        (op, "[abc]", value).prop_map(|(op, name, value)| Matcher::new(op, name, value).unwrap())
    }

    proptest! {
        /// The index finds exactly what going through all series finds.
        #[test]
        fn resolving_equals_scanning(
            sets in proptest::collection::vec(proptest::collection::btree_map("[abc]", "[123]", 1..4), 1..20),
            matchers in proptest::collection::vec(matcher(), 0..4),
            dead in proptest::collection::hash_set(0u32..20, 0..5),
        ) {
            let all: Vec<Labels> = sets.into_iter().map(|pairs| Labels::new(pairs).unwrap()).collect();
            let mut postings = Postings::default();
            for (at, labels) in all.iter().enumerate().rev() {
                postings.add(at as u32, labels);
            }
            let gone: Vec<&Labels> = dead.iter().filter_map(|at| all.get(*at as usize)).collect();
            postings.remove(&dead, gone);
            let scanned: Vec<u32> = (0..all.len() as u32)
                .filter(|at| !dead.contains(at) && all_match(&matchers, &all[*at as usize])).collect();
            prop_assert_eq!(resolve(&postings, &matchers).unwrap(), scanned);
        }
    }
}
