//! Orders of an instant vector: by value, by labels as people count (`a2` before `a10`).
//!
//! Order only means something at one step: a range query's result is always in the order of its labels.

use super::{
    statistics::nan_first,
    values::{Column, Grid},
};
use std::cmp::Ordering;

/// `sort` and `sort_desc`; NaN is last both ways.
pub(crate) fn by_value(mut columns: Vec<Column>, grid: Grid, descending: bool) -> Vec<Column> {
    if grid.len == 1 {
        columns.sort_by(|a, b| {
            let (a, b) = (a.values[0], b.values[0]);
            if descending || a.is_nan() || b.is_nan() { nan_first(b, a) } else { nan_first(a, b) }
        });
    }
    columns
}

/// `sort_by_label` and `sort_by_label_desc`; the whole label sets decide where the labels are the same.
pub(crate) fn by_label(mut columns: Vec<Column>, grid: Grid, names: &[String], descending: bool) -> Vec<Column> {
    if grid.len == 1 {
        columns.sort_by(|a, b| {
            let value = |column: &'_ Column, name: &str| column.labels.get(name).unwrap_or("").to_owned();
            let by_names = names.iter().map(|name| natural(&value(a, name), &value(b, name))).find(|order| order.is_ne());
            let order = by_names.unwrap_or_else(|| a.labels.cmp(&b.labels));
            if descending { order.reverse() } else { order }
        });
    }
    columns
}

/// Runs of digits compare as numbers, all else as text.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    while !left.is_empty() && !right.is_empty() {
        let (first, second) = (chunk(left), chunk(right));
        let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let order = if is_number(first) && is_number(second) { by_number(first, second) } else { first.cmp(second) };
        if order.is_ne() {
            return order;
        }
        (left, right) = (&left[first.len()..], &right[second.len()..]);
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// The longest start that is all digits or has none.
fn chunk(text: &str) -> &str {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    &text[..end]
}

fn by_number(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_texts_count() {
        let mut texts = ["a10", "a2", "", "a", "b", "a2b", "10", "9", "007", "7", "a99999999999999999999999", "a2a10", "a2a9"];
        texts.sort_by(|a, b| natural(a, b));
        assert_eq!(texts, ["", "007", "7", "9", "10", "a", "a2", "a2a9", "a2a10", "a2b", "a10", "a99999999999999999999999", "b"]);
    }
}
