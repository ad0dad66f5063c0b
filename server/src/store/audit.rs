//! Who changed what.

use super::{Store, StoreError};
use rusqlite::{Transaction, params};
use shipwatch_common::time::UnixMs;

/// Adds a line within a caller's transaction.
pub(super) fn note(tx: &Transaction<'_>, at_ms: UnixMs, who: &str, what: &str, detail: &str) -> Result<(), StoreError> {
    tx.execute("INSERT INTO audit (at_ms, who, what, detail) VALUES (?1, ?2, ?3, ?4)", params![at_ms, who, what, detail])?;
    Ok(())
}

impl Store {
    /// Adds a line: `who` did `what`; `detail` names the objects, never a secret.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn audit(&self, at_ms: UnixMs, who: &str, what: &str, detail: &str) -> Result<(), StoreError> {
        let (who, what, detail) = (who.to_owned(), what.to_owned(), detail.to_owned());
        self.write(move |tx| note(tx, at_ms, &who, &what, &detail)).await
    }
}
