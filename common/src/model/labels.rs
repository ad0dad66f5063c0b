//! A set of label names and values: the identity of a series or of a log stream.
//!
//! # Invariants
//! - Names are sorted, unique and not empty; a label with an empty value does not exist (Prometheus' rule).
//! - Sizes are bounded: see [`Labels::MAX_LABELS`], [`Labels::MAX_NAME_BYTES`], [`Labels::MAX_VALUE_BYTES`].
//! - Equal sets have equal text: comparing and hashing go through one piece of memory.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{cmp::Ordering, fmt};

/// Why a label set was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LabelsError {
    /// A name was empty.
    #[error("a label has an empty name")]
    EmptyName,
    /// The same name came twice.
    #[error("label `{0}` is given twice")]
    Duplicate(String),
    /// More labels than [`Labels::MAX_LABELS`].
    #[error("{0} labels are more than the {max} that are allowed", max = Labels::MAX_LABELS)]
    TooMany(usize),
    /// A name or value was longer than allowed.
    #[error("label `{name}` has {bytes} bytes, more than the {max} that are allowed")]
    TooLong {
        /// The label's name, cut short.
        name: String,
        /// Size that was given.
        bytes: usize,
        /// Size that is allowed.
        max: usize,
    },
}

/// Sorted, unique label pairs. The metric's name is the label `__name__`.
///
/// A server holds one set for each of its series, so a set is one text: the number of pairs, then name and value of each after
/// their lengths, numbers being the character with that code. A name among [`WORDS`] is its number there, and lengths of other names
/// count on from there. No pairs are the empty text. The text is in memory only.
#[derive(Clone, Default, Eq, Hash, PartialEq)]
pub struct Labels(Box<str>);

/// Names that most series of a fleet have.
const WORDS: [&str; 16] = [
    Labels::NAME,
    "instance",
    "job",
    "env",
    "region",
    "host",
    "cpu",
    "device",
    "mode",
    "le",
    "quantile",
    "mountpoint",
    "fstype",
    "pod",
    "namespace",
    "container",
];

/// From here on, numbers are not characters.
const NUMBERS_END: usize = 0xd800;

/// Appends a number that the limits keep below [`NUMBERS_END`].
fn put_number(text: &mut String, number: usize) {
    text.push(u32::try_from(number).ok().and_then(char::from_u32).unwrap_or_default());
}

/// Takes a number off the front.
fn take_number(text: &mut &str) -> usize {
    let mut rest = text.chars();
    let number = rest.next().map_or(0, |number| number as usize);
    *text = rest.as_str();
    number
}

/// Takes a text off the front that comes after its length.
fn take_text<'a>(text: &mut &'a str) -> &'a str {
    let len = take_number(text);
    take(text, len)
}

fn take<'a>(text: &mut &'a str, len: usize) -> &'a str {
    let (taken, rest) = text.split_at_checked(len).unwrap_or_default();
    *text = rest;
    taken
}

/// Appends a name.
fn put_name(text: &mut String, name: &str) {
    match WORDS.iter().position(|word| *word == name) {
        Some(word) => put_number(text, word),
        None => {
            put_number(text, WORDS.len() + name.len());
            text.push_str(name);
        }
    }
}

/// Takes a name off the front.
fn take_name<'a>(text: &mut &'a str) -> &'a str {
    let number = take_number(text);
    match WORDS.get(number) {
        Some(word) => word,
        None => take(text, number - WORDS.len()),
    }
}

/// Pairs of a set that are still to come.
#[derive(Clone)]
struct Pairs<'a> {
    count: usize,
    text: &'a str,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        Some((take_name(&mut self.text), take_text(&mut self.text)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Pairs<'_> {}

impl Labels {
    /// Name of the label that holds the metric's name.
    pub const NAME: &'static str = "__name__";
    /// Most labels in one set.
    pub const MAX_LABELS: usize = 64;
    /// Longest label name.
    pub const MAX_NAME_BYTES: usize = 512;
    /// Longest label value.
    pub const MAX_VALUE_BYTES: usize = 4096;

    const NUMBERS_FIT: () =
        assert!(Self::MAX_LABELS < NUMBERS_END && Self::MAX_NAME_BYTES + WORDS.len() < NUMBERS_END && Self::MAX_VALUE_BYTES < NUMBERS_END);

    /// Builds a set from pairs in any order. Pairs with an empty value are left out.
    ///
    /// # Errors
    /// See [`LabelsError`].
    pub fn new<N: Into<Box<str>>, V: Into<Box<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Result<Self, LabelsError> {
        let mut all: Vec<(Box<str>, Box<str>)> =
            pairs.into_iter().map(|(n, v)| (n.into(), v.into())).filter(|(_, v)| !v.is_empty()).collect();
        all.sort_unstable();
        if all.len() > Self::MAX_LABELS {
            return Err(LabelsError::TooMany(all.len()));
        }
        for (name, value) in &all {
            if name.is_empty() {
                return Err(LabelsError::EmptyName);
            }
            let too_long = |bytes, max| LabelsError::TooLong { name: name.chars().take(64).collect(), bytes, max };
            if name.len() > Self::MAX_NAME_BYTES {
                return Err(too_long(name.len(), Self::MAX_NAME_BYTES));
            }
            if value.len() > Self::MAX_VALUE_BYTES {
                return Err(too_long(value.len(), Self::MAX_VALUE_BYTES));
            }
        }
        if let Some(pair) = all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(LabelsError::Duplicate(pair[0].0.to_string()));
        }
        Ok(Self::pack(all.iter().map(|(name, value)| (&**name, &**value))))
    }

    /// From pairs that meet all that is asked of a set.
    fn pack<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        let () = Self::NUMBERS_FIT;
        let (mut count, mut bytes) = (0, 1);
        for (name, value) in pairs.clone() {
            count += 1;
            bytes += name.len() + value.len() + 4;
        }
        let mut text = String::with_capacity(if count == 0 { 0 } else { bytes });
        if count > 0 {
            put_number(&mut text, count);
        }
        for (name, value) in pairs {
            put_name(&mut text, name);
            put_number(&mut text, value.len());
            text.push_str(value);
        }
        Self(text.into_boxed_str())
    }

    /// The value of a label, if the set has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The metric's name, or nothing for a log stream.
    #[must_use]
    pub fn metric_name(&self) -> &str {
        self.get(Self::NAME).unwrap_or("")
    }

    /// Pairs by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        let mut text = &*self.0;
        Pairs { count: take_number(&mut text), text }
    }

    /// Number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().len()
    }

    /// Whether there is no label at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy with these labels set (an empty value removes); the last of equal names wins.
    ///
    /// # Errors
    /// See [`LabelsError`].
    pub fn with<'a>(&'a self, changes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, LabelsError> {
        let mut map: std::collections::BTreeMap<&str, &str> = self.iter().collect();
        map.extend(changes);
        Self::new(map)
    }

    /// A copy without these labels.
    #[must_use]
    pub fn without(&self, names: &[&str]) -> Self {
        Self::pack(self.iter().filter(|(n, _)| !names.contains(n)))
    }
}

/// By the pairs, not by the text.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As Prometheus writes a series: `name{a="b",c="d"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.metric_name())?;
        let mut others = self.iter().filter(|(n, _)| *n != Self::NAME).peekable();
        if others.peek().is_none() && !self.metric_name().is_empty() {
            return Ok(());
        }
        f.write_str("{")?;
        for (at, (name, value)) in others.enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As a map, so that JSON has the shape of Prometheus' and Loki's APIs.
impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter())
    }
}

/// Checks every invariant: a peer's labels are input.
impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Labels;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of label names to values")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs: Vec<(Box<str>, Box<str>)> = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    if pairs.len() > Labels::MAX_LABELS {
                        return Err(serde::de::Error::custom(LabelsError::TooMany(pairs.len())));
                    }
                    pairs.push(pair);
                }
                Labels::new(pairs).map_err(serde::de::Error::custom)
            }
        }
        from.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_sorted_and_checked() {
        let labels = Labels::new([("job", "node"), ("__name__", "up"), ("gone", "")]).unwrap();
        assert_eq!(labels.to_string(), r#"up{job="node"}"#);
        assert_eq!(labels.get("gone"), None);
        assert_eq!(Labels::new([("a", "1"), ("a", "2")]), Err(LabelsError::Duplicate("a".into())));
        assert_eq!(Labels::new([("", "1")]), Err(LabelsError::EmptyName));
        assert!(matches!(Labels::new([("a", "x".repeat(5000))]), Err(LabelsError::TooLong { .. })));
        assert_eq!(labels.with([("job", ""), ("b", "2")]).unwrap().to_string(), r#"up{b="2"}"#);
    }

    #[test]
    fn the_packed_text_gives_back_every_pair_and_keeps_their_order() {
        let texts = ["a", "instance", "le", "a\u{0}b", "\u{1}", "主机", &"x".repeat(127), &"y".repeat(128), &"z".repeat(512)];
        let mut sets = vec![Vec::new()];
        for (at, name) in texts.iter().enumerate() {
            for value in [texts[(at + 3) % texts.len()], &"é".repeat(2_048), &"v".repeat(4_096)] {
                sets.push(vec![((*name).to_owned(), value.to_owned())]);
                sets.push(vec![((*name).to_owned(), value.to_owned()), ("q".to_owned(), (*name).to_owned())]);
            }
        }
        sets.push((0..Labels::MAX_LABELS).map(|at| (format!("n{at:02}"), at.to_string())).collect());
        for set in &mut sets {
            set.sort();
            let labels = Labels::new(set.clone()).unwrap();
            let pairs: Vec<(String, String)> = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            assert_eq!((&pairs, labels.len(), labels.is_empty()), (&*set, set.len(), set.is_empty()));
            for (name, value) in set.iter() {
                assert_eq!(labels.get(name), Some(&**value));
                assert_eq!(labels.without(&[name]).len(), set.len() - 1);
            }
            assert_eq!(labels.get("none"), None);
        }
        for (a, b) in sets.iter().flat_map(|a| sets.iter().map(move |b| (a, b))) {
            let (left, right) = (Labels::new(a.clone()).unwrap(), Labels::new(b.clone()).unwrap());
            assert_eq!((left.cmp(&right), left == right), (a.cmp(b), a == b));
        }
        assert_eq!(Labels::new([("a", "")]).unwrap(), Labels::default());
        assert_eq!(Labels::new([("a", "1")]).unwrap().without(&["a"]), Labels::default());
    }

    #[test]
    fn json_is_a_map() {
        let labels = Labels::new([("b", "2"), ("a", "1")]).unwrap();
        let json = serde_json::to_string(&labels).unwrap();
        assert_eq!(json, r#"{"a":"1","b":"2"}"#);
        assert_eq!(serde_json::from_str::<Labels>(&json).unwrap(), labels);
        assert!(serde_json::from_str::<Labels>(r#"{"":"1"}"#).is_err());
    }
}
