//! Alert state, its history, and the outbox.

use super::{Store, StoreError};
use rusqlite::{OptionalExtension as _, params};
use serde_json::Value;
use shipwatch_common::time::UnixMs;

/// An alert instance as stored; `body` is the JSON of `rules::StoredAlert`.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertRow {
    /// Rule and label set.
    pub id: String,
    /// Of the label set.
    pub fingerprint: String,
    /// `pending`, `firing`, `resolved`.
    pub state: String,
    /// Everything.
    pub body: String,
    /// Last change.
    pub updated_at_ms: UnixMs,
}

/// A change for the history.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRow {
    /// Of the label set.
    pub fingerprint: String,
    /// When.
    pub at_ms: UnixMs,
    /// New state.
    pub state: String,
    /// Value at the time.
    pub value: f64,
}

/// A message as stored; `body` is the JSON of `notify::Delivery`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryRow {
    /// Deterministic: the same message is stored once.
    pub id: String,
    /// Which channel.
    pub channel: String,
    /// `queued`, `accepted`, `throttled`, `dead`.
    pub state: String,
    /// When it is tried (again).
    pub next_at_ms: Option<UnixMs>,
    /// When it was made.
    pub created_at_ms: UnixMs,
    /// When it ended.
    pub finished_at_ms: Option<UnixMs>,
    /// Everything.
    pub body: String,
}

/// Everything that one evaluation changed; one transaction, so that a state never lacks its message.
#[derive(Clone, Debug, Default)]
pub struct AlertChanges {
    /// New or changed alerts.
    pub alerts: Vec<AlertRow>,
    /// Alerts to forget.
    pub forget: Vec<String>,
    /// History.
    pub history: Vec<HistoryRow>,
    /// Messages to send.
    pub deliveries: Vec<DeliveryRow>,
    /// The dispatcher's state, if it changed.
    pub dispatcher: Option<String>,
}

const DELIVERY_COLUMNS: &str = "id, channel, state, next_at_ms, created_at_ms, finished_at_ms, body";

fn delivery(row: &rusqlite::Row<'_>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        id: row.get(0)?,
        channel: row.get(1)?,
        state: row.get(2)?,
        next_at_ms: row.get(3)?,
        created_at_ms: row.get(4)?,
        finished_at_ms: row.get(5)?,
        body: row.get(6)?,
    })
}

impl Store {
    /// Stores what an evaluation changed.
    ///
    /// # Errors
    /// Nothing was stored.
    pub async fn save_alerts(&self, changes: AlertChanges) -> Result<(), StoreError> {
        self.write(move |tx| {
            for alert in changes.alerts {
                tx.execute(
                    "INSERT INTO alerts (id, fingerprint, state, body, updated_at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body, updated_at_ms = excluded.updated_at_ms",
                    params![alert.id, alert.fingerprint, alert.state, alert.body, alert.updated_at_ms],
                )?;
            }
            for id in changes.forget {
                tx.execute("DELETE FROM alerts WHERE id = ?1", [id])?;
            }
            for row in changes.history {
                tx.execute(
                    "INSERT INTO alert_history (fingerprint, at_ms, state, value) VALUES (?1, ?2, ?3, ?4)",
                    params![row.fingerprint, row.at_ms, row.state, row.value],
                )?;
            }
            for row in changes.deliveries {
                tx.execute(
                    "INSERT INTO deliveries (id, channel, state, next_at_ms, created_at_ms, finished_at_ms, body, ordinal)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, (SELECT coalesce(max(ordinal), 0) + 1 FROM deliveries)) ON CONFLICT (id) DO NOTHING",
                    params![row.id, row.channel, row.state, row.next_at_ms, row.created_at_ms, row.finished_at_ms, row.body],
                )?;
            }
            if let Some(body) = changes.dispatcher {
                tx.execute(
                    "INSERT INTO notify_state (name, body) VALUES ('dispatcher', ?1) ON CONFLICT (name) DO UPDATE SET body = excluded.body",
                    [body],
                )?;
            }
            Ok(())
        })
        .await
    }

    /// All stored alerts' bodies.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn alert_bodies(&self) -> Result<Vec<String>, StoreError> {
        self.read(|tx| {
            let mut query = tx.prepare("SELECT body FROM alerts ORDER BY id")?;
            let rows = query.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The dispatcher's stored state.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn dispatcher(&self) -> Result<Option<String>, StoreError> {
        self.read(|tx| Ok(tx.query_row("SELECT body FROM notify_state WHERE name = 'dispatcher'", [], |row| row.get(0)).optional()?)).await
    }

    /// Changes of one alert, newest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn alert_history(&self, fingerprint: &str, limit: u32) -> Result<Vec<(UnixMs, String, Option<f64>)>, StoreError> {
        let fingerprint = fingerprint.to_owned();
        self.read(move |tx| {
            let mut query = tx.prepare("SELECT at_ms, state, value FROM alert_history WHERE fingerprint = ?1 ORDER BY id DESC LIMIT ?2")?;
            let rows = query.query_map(params![fingerprint, limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The oldest open message of a channel: nothing overtakes it.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn next_delivery(&self, channel: &str) -> Result<Option<DeliveryRow>, StoreError> {
        let channel = channel.to_owned();
        self.read(move |tx| {
            let sql =
                format!("SELECT {DELIVERY_COLUMNS} FROM deliveries WHERE channel = ?1 AND finished_at_ms IS NULL ORDER BY ordinal LIMIT 1");
            Ok(tx.query_row(&sql, [channel], delivery).optional()?)
        })
        .await
    }

    /// Replaces a message after an attempt.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn update_delivery(&self, row: DeliveryRow) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE deliveries SET state = ?2, next_at_ms = ?3, finished_at_ms = ?4, body = ?5 WHERE id = ?1",
                params![row.id, row.state, row.next_at_ms, row.finished_at_ms, row.body],
            )?;
            Ok(())
        })
        .await
    }

    /// Gives up open messages of channels other than these: nobody would ever send them. Gives their number.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn close_deliveries_of_others(&self, channels: Vec<String>, now_ms: UnixMs) -> Result<usize, StoreError> {
        self.write(move |tx| {
            let mut query = tx.prepare("SELECT id, channel, body FROM deliveries WHERE finished_at_ms IS NULL")?;
            let open: Vec<(String, String, String)> =
                query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect::<Result<_, _>>()?;
            let mut closed = 0;
            for (id, _, body) in open.iter().filter(|(_, channel, _)| !channels.contains(channel)) {
                let mut value: Value = serde_json::from_str(body)?;
                value["state"] = "dead".into();
                value["next_attempt_ms"] = Value::Null;
                value["finished_at_ms"] = now_ms.into();
                value["last_error"] = "the channel is not configured any more".into();
                tx.execute(
                    "UPDATE deliveries SET state = 'dead', next_at_ms = NULL, finished_at_ms = ?2, body = ?3 WHERE id = ?1",
                    params![id, now_ms, value.to_string()],
                )?;
                closed += 1;
            }
            Ok(closed)
        })
        .await
    }

    /// Messages, newest first, in the shape of `docs/api.md`: without what was sent.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn recent_deliveries(&self, limit: u32) -> Result<Vec<Value>, StoreError> {
        let bodies: Vec<String> = self
            .read(move |tx| {
                let mut query = tx.prepare("SELECT body FROM deliveries ORDER BY created_at_ms DESC, ordinal DESC LIMIT ?1")?;
                let rows = query.query_map([limit], |row| row.get(0))?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await?;
        bodies
            .iter()
            .map(|body| {
                let mut value: Value = serde_json::from_str(body)?;
                if let Some(map) = value.as_object_mut() {
                    map.shift_remove("notification");
                }
                Ok(value)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, state: &str) -> DeliveryRow {
        DeliveryRow {
            id: id.into(),
            channel: "ding".into(),
            state: state.into(),
            next_at_ms: Some(1),
            created_at_ms: 1,
            finished_at_ms: None,
            body: format!(r#"{{"id":"{id}","notification":{{"secret":1}}}}"#),
        }
    }

    #[tokio::test]
    async fn the_outbox_is_first_in_first_out_and_holds_a_message_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let deliveries = vec![row("b", "queued"), row("a", "queued"), row("b", "queued")];
        store.save_alerts(AlertChanges { deliveries, dispatcher: Some("{}".into()), ..AlertChanges::default() }).await.unwrap();
        let first = store.next_delivery("ding").await.unwrap().unwrap();
        assert_eq!(first.id, "b");
        store.update_delivery(DeliveryRow { finished_at_ms: Some(5), state: "accepted".into(), ..first }).await.unwrap();
        assert_eq!(store.next_delivery("ding").await.unwrap().unwrap().id, "a");
        let shown = store.recent_deliveries(10).await.unwrap();
        assert_eq!(shown.len(), 2);
        assert!(shown[0].get("notification").is_none());
        assert_eq!(store.dispatcher().await.unwrap().as_deref(), Some("{}"));
        assert_eq!(store.close_deliveries_of_others(vec!["ding".into()], 9).await.unwrap(), 0);
        assert_eq!(store.close_deliveries_of_others(vec!["mail".into()], 9).await.unwrap(), 1);
        assert!(store.next_delivery("ding").await.unwrap().is_none());
        assert_eq!(store.recent_deliveries(10).await.unwrap().iter().filter(|one| one["state"] == "dead").count(), 1);
    }
}
