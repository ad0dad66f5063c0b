//! Label sets of results.

use super::{Error, values::Column};
use shipwatch_common::model::Labels;
use std::sync::Arc;

/// As Prometheus shows a label set in its errors.
pub(crate) fn describe(labels: &Labels) -> String {
    if labels.is_empty() { "{}".to_owned() } else { labels.to_string() }
}

/// Only these labels.
pub(crate) fn keep(labels: &Labels, names: &[String]) -> Labels {
    let others: Vec<&str> = labels.iter().map(|(name, _)| name).filter(|name| !names.iter().any(|kept| kept == name)).collect();
    labels.without(&others)
}

/// All but these labels and the metric's name.
pub(crate) fn without(labels: &Labels, names: &[String]) -> Labels {
    let mut dropped: Vec<&str> = names.iter().map(String::as_str).collect();
    dropped.push(Labels::NAME);
    labels.without(&dropped)
}

/// What says what a metric is, not which one: it goes when a value is no longer the metric's own.
pub(crate) const METADATA: [&str; 3] = [Labels::NAME, "__type__", "__unit__"];

/// Without the metric's name, type and unit.
pub(crate) fn drop_name(labels: &Arc<Labels>) -> Arc<Labels> {
    if METADATA.iter().all(|name| labels.get(name).is_none()) { labels.clone() } else { Arc::new(labels.without(&METADATA)) }
}

/// With labels set; an empty value removes.
pub(crate) fn set<'a>(labels: &'a Labels, changes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Arc<Labels>, Error> {
    labels.with(changes).map(Arc::new).map_err(|error| Error::Execution(format!("{}: {error}", describe(labels))))
}

/// `label_replace(v, dst, replacement, src, regex)`.
pub(crate) fn label_replace(columns: Vec<Column>, args: [&str; 4]) -> Result<Vec<Column>, Error> {
    let [target, replacement, from, pattern] = args;
    check_name(target, "label_replace")?;
    let invalid = |error| Error::Execution(format!("invalid regular expression in label_replace(): {error}"));
    let regex = crate::matcher::anchored(pattern).map_err(invalid)?;
    let replaced = columns.into_iter().map(|mut column| {
        let value = column.labels.get(from).unwrap_or("");
        if let Some(found) = regex.captures(value) {
            let mut new = String::new();
            found.expand(replacement, &mut new);
            column.labels = set(&column.labels, [(target, new.as_str())])?;
        }
        Ok(column)
    });
    super::values::merge_same(replaced.collect::<Result<_, Error>>()?)
}

/// `label_join(v, dst, separator, src…)`.
pub(crate) fn label_join(columns: Vec<Column>, target: &str, separator: &str, from: &[&str]) -> Result<Vec<Column>, Error> {
    check_name(target, "label_join")?;
    let joined = columns.into_iter().map(|mut column| {
        let values: Vec<&str> = from.iter().map(|name| column.labels.get(name).unwrap_or("")).collect();
        let new = values.join(separator);
        column.labels = set(&column.labels, [(target, new.as_str())])?;
        Ok(column)
    });
    super::values::merge_same(joined.collect::<Result<_, Error>>()?)
}

/// Any text but the empty one may name a label.
pub(crate) fn check_name(name: &str, whose: &str) -> Result<(), Error> {
    if name.is_empty() { Err(Error::Execution(format!("invalid destination label name in {whose}(): it is empty"))) } else { Ok(()) }
}
