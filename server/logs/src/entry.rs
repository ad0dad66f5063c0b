//! A line as it comes out of the store, and its place in the total order.

use serde::{Serialize, Serializer, ser::SerializeStruct as _};
use shipwatch_common::{
    model::{FileId, Labels, Severity},
    time::UnixNs,
};
use std::{fmt, str::FromStr, sync::Arc};

/// Where a line stands in the order of all lines: by time, then by arrival, then within its batch. Unique and unchanging.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EntryId {
    /// The line's time.
    pub ts_ns: UnixNs,
    /// The committed batch that brought it; grows with arrival.
    pub batch: u64,
    /// Place in the batch.
    pub index: u32,
}

/// `time.batch.index` in decimal.
impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.ts_ns, self.batch, self.index)
    }
}

/// A text that is not an entry's id or a cursor.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a position in the logs; use the text that a search returned, such as 1700000000000000000.42.7")]
pub struct CursorError(pub String);

impl FromStr for EntryId {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let wrong = || CursorError(text.chars().take(80).collect());
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or_else(wrong);
        let (ts, batch, index) = (next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self {
            ts_ns: ts.parse().map_err(|_| wrong())?,
            batch: batch.parse().map_err(|_| wrong())?,
            index: index.parse().map_err(|_| wrong())?,
        })
    }
}

/// Where the next page goes on: just behind this place, in the search's direction. Good for ever, across seals and restarts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Cursor(pub(crate) EntryId);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        text.parse().map(Self)
    }
}

impl From<EntryId> for Cursor {
    fn from(id: EntryId) -> Self {
        Self(id)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// One line with all that is known of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its place in the order of all lines.
    pub id: EntryId,
    /// The stream's labels.
    pub labels: Arc<Labels>,
    /// Severity, where it could be told.
    pub severity: Severity,
    /// The text.
    pub text: String,
    /// Whether the text was cut.
    pub truncated: bool,
    /// Who read the file.
    pub agent: Arc<str>,
    /// Which life of which file; `FileId(0)` for a line that came from no file.
    pub file: FileId,
    /// Offset in the file just behind the line.
    pub end_offset: u64,
}

impl Entry {
    /// When it happened.
    #[must_use]
    pub const fn ts_ns(&self) -> UnixNs {
        self.id.ts_ns
    }

    /// About what it takes in memory.
    pub(crate) fn weight(&self) -> usize {
        self.text.len() + size_of::<Self>()
    }
}

/// The shape in our API. Nanoseconds are text: JavaScript's numbers are too small for them.
impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut out = to.serialize_struct("Entry", 6)?;
        out.serialize_field("ts_ns", &self.id.ts_ns.to_string())?;
        out.serialize_field("labels", &*self.labels)?;
        out.serialize_field("severity", self.severity.as_str())?;
        out.serialize_field("line", &self.text)?;
        out.serialize_field("truncated", &self.truncated)?;
        out.serialize_field("id", &self.id.to_string())?;
        out.end()
    }
}

/// Brings the lines of each file into the order of the file. Lines of different files, and lines from no file, stay in the
/// order they have. Files come in the order of their first line.
pub fn sort_in_file_order(entries: &mut Vec<Entry>) {
    type File = (Arc<str>, FileId);
    let mut files: Vec<(File, Vec<Entry>)> = Vec::new();
    let mut known: std::collections::HashMap<File, usize> = std::collections::HashMap::new();
    for entry in entries.drain(..) {
        let key = (Arc::clone(&entry.agent), entry.file);
        let at = *known.entry(key.clone()).or_insert_with(|| {
            files.push((key, Vec::new()));
            files.len() - 1
        });
        if let Some((_, lines)) = files.get_mut(at) {
            lines.push(entry);
        }
    }
    for ((_, file), mut lines) in files {
        if file.0 != 0 {
            lines.sort_by_key(|entry| entry.end_offset);
        }
        entries.append(&mut lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ts_ns: i64, file: u128, end_offset: u64) -> Entry {
        Entry {
            id: EntryId { ts_ns, batch: 7, index: 3 },
            labels: Arc::new(Labels::new([("app", "shop")]).unwrap()),
            severity: Severity::Error,
            text: "支付 \"failed\"".into(),
            truncated: false,
            agent: "a".into(),
            file: FileId(file),
            end_offset,
        }
    }

    #[test]
    fn an_entry_has_the_api_shape() {
        assert_eq!(
            serde_json::to_string(&entry(1_700_000_000_123_456_789, 1, 10)).unwrap(),
            r#"{"ts_ns":"1700000000123456789","labels":{"app":"shop"},"severity":"error","line":"支付 \"failed\"","truncated":false,"id":"1700000000123456789.7.3"}"#
        );
    }

    #[test]
    fn ids_are_read_back_and_nonsense_is_refused() {
        for id in [EntryId { ts_ns: -5, batch: u64::MAX, index: u32::MAX }, EntryId { ts_ns: i64::MAX, batch: 0, index: 0 }] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for bad in ["", "1", "1.2", "1.2.3.4", "a.b.c", "1.-2.3", "1.2.4294967296", "１.2.3"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn file_order_is_by_offset_within_each_file() {
        let mut all = vec![entry(1, 1, 30), entry(2, 2, 5), entry(3, 1, 10), entry(4, 0, 9), entry(5, 0, 1)];
        sort_in_file_order(&mut all);
        let order: Vec<_> = all.iter().map(|entry| (entry.file.0, entry.end_offset)).collect();
        assert_eq!(order, [(1, 10), (1, 30), (2, 5), (0, 9), (0, 1)]);
    }
}
