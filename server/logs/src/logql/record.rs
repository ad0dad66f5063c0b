//! One line on its way through a pipeline: its text and its labels.
//!
//! # Invariants
//! - A label has a value: setting it to nothing removes it. Names are unique.
//! - The number of labels is bounded by [`FIELDS_MAX`].

use shipwatch_common::{
    model::{Labels, Severity},
    time::UnixNs,
};
use std::borrow::Cow;

/// Label with the kind of the first thing that went wrong with a line.
pub(crate) const ERROR: &str = "__error__";
/// Label with its words.
pub(crate) const ERROR_DETAILS: &str = "__error_details__";
/// Label with the severity that the sender found.
pub(crate) const LEVEL: &str = "detected_level";
/// Most labels of one line.
pub(crate) const FIELDS_MAX: usize = 512;

/// Where a label comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// The stream.
    Stream,
    /// What is stored beside the line.
    Metadata,
    /// The line's text, or a formatter.
    Parsed,
}

#[derive(Clone, Debug)]
pub(crate) struct Field<'l> {
    pub(crate) name: Cow<'l, str>,
    pub(crate) value: Cow<'l, str>,
    pub(crate) kind: Kind,
}

/// A line with its labels.
#[derive(Clone, Debug)]
pub(crate) struct Record<'l> {
    pub(crate) ts_ns: UnixNs,
    pub(crate) text: Cow<'l, str>,
    pub(crate) fields: Vec<Field<'l>>,
}

impl<'l> Record<'l> {
    pub(crate) fn new(ts_ns: UnixNs, labels: &'l Labels, severity: Severity, text: &'l str) -> Self {
        let field = |(name, value): (&'l str, &'l str)| Field { name: name.into(), value: value.into(), kind: Kind::Stream };
        let mut fields: Vec<Field<'l>> = labels.iter().map(field).collect();
        if labels.get(LEVEL).is_none() {
            fields.push(Field { name: LEVEL.into(), value: severity.as_str().into(), kind: Kind::Metadata });
        }
        Self { ts_ns, text: text.into(), fields }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|field| field.name == name).map(|field| &*field.value)
    }

    pub(crate) fn has_kind(&self, name: &str, kind: Kind) -> bool {
        self.fields.iter().any(|field| field.kind == kind && field.name == name)
    }

    /// Sets a label, whatever it was; an empty value removes it.
    pub(crate) fn set(&mut self, name: Cow<'l, str>, value: Cow<'l, str>, kind: Kind) {
        if value.is_empty() {
            return self.remove(&name);
        }
        let count = self.fields.len();
        match self.fields.iter_mut().find(|field| field.name == name) {
            Some(field) => *field = Field { name, value, kind },
            None if count < FIELDS_MAX => self.fields.push(Field { name, value, kind }),
            None => {}
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.fields.retain(|field| field.name != name);
    }

    pub(crate) fn has_error(&self) -> bool {
        self.get(ERROR).is_some()
    }

    /// Marks the line; the first mark stays.
    pub(crate) fn fail(&mut self, kind: &'static str, details: impl Into<String>) {
        if !self.has_error() {
            self.set(ERROR.into(), kind.into(), Kind::Parsed);
            self.set(ERROR_DETAILS.into(), details.into().into(), Kind::Parsed);
        }
    }
}
