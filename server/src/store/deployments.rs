//! Deployments and what hosts report of them.

use super::{Store, StoreError, audit::note};
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use shipwatch_common::{
    model::{AgentId, deploy::Event},
    time::UnixMs,
};

/// A deployment as stored; `body` is the JSON of `deploys::Deployment`, the rest is for finding it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDeployment {
    /// Identity.
    pub id: String,
    /// Application.
    pub app: String,
    /// Release.
    pub release: String,
    /// Overall state.
    pub state: String,
    /// When it was asked for.
    pub created_at_ms: UnixMs,
    /// When it ended.
    pub finished_at_ms: Option<UnixMs>,
    /// Everything.
    pub body: String,
}

/// One report of a host, in order of arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    /// Number over all deployments.
    pub n: i64,
    /// Which deployment.
    pub deployment_id: String,
    /// Which host.
    pub host_id: String,
    /// What it said.
    pub event: Event,
}

/// Name of the counter that says up to which event the deployments' bodies are current.
const CURSOR: &str = "deploys.cursor";
/// Name of the counter of fencing epochs.
const EPOCH: &str = "deploys.epoch";

const COLUMNS: &str = "id, app, release, state, created_at_ms, finished_at_ms, body";

fn deployment(row: &Row<'_>) -> rusqlite::Result<StoredDeployment> {
    Ok(StoredDeployment {
        id: row.get(0)?,
        app: row.get(1)?,
        release: row.get(2)?,
        state: row.get(3)?,
        created_at_ms: row.get(4)?,
        finished_at_ms: row.get(5)?,
        body: row.get(6)?,
    })
}

fn events(tx: &Transaction<'_>, sql: &str, arguments: impl rusqlite::Params) -> Result<Vec<StoredEvent>, StoreError> {
    let mut query = tx.prepare(sql)?;
    let rows = query.query_map(arguments, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?)))?;
    rows.map(|row| {
        let (n, deployment_id, host_id, body) = row?;
        Ok(StoredEvent { n, deployment_id, host_id, event: serde_json::from_str(&body)? })
    })
    .collect()
}

fn counter(tx: &Transaction<'_>, name: &str) -> Result<i64, StoreError> {
    Ok(tx.query_row("SELECT value FROM counters WHERE name = ?1", [name], |row| row.get(0)).optional()?.unwrap_or(0))
}

fn set_counter(tx: &Transaction<'_>, name: &str, value: i64) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO counters (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![name, value],
    )?;
    Ok(())
}

impl Store {
    /// Stores a new deployment.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn add_deployment(&self, new: StoredDeployment, who: &str, detail: &str) -> Result<(), StoreError> {
        let (who, detail) = (who.to_owned(), detail.to_owned());
        self.write(move |tx| {
            tx.execute(
                &format!("INSERT INTO deployments ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"),
                params![new.id, new.app, new.release, new.state, new.created_at_ms, new.finished_at_ms, new.body],
            )?;
            note(tx, new.created_at_ms, &who, "deployment created", &format!("{} {detail}", new.id))
        })
        .await
    }

    /// Replaces deployments' bodies and, with them, moves the cursor over the events that they now contain.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn update_deployments(&self, changed: Vec<StoredDeployment>, cursor: Option<i64>) -> Result<(), StoreError> {
        self.write(move |tx| {
            for one in changed {
                tx.execute(
                    "UPDATE deployments SET state = ?2, finished_at_ms = ?3, body = ?4 WHERE id = ?1",
                    params![one.id, one.state, one.finished_at_ms, one.body],
                )?;
            }
            cursor.map_or(Ok(()), |cursor| set_counter(tx, CURSOR, cursor))
        })
        .await
    }

    /// One deployment.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn deployment(&self, id: &str) -> Result<StoredDeployment, StoreError> {
        let id = id.to_owned();
        self.read(move |tx| {
            tx.query_row(&format!("SELECT {COLUMNS} FROM deployments WHERE id = ?1"), [&id], deployment)
                .optional()?
                .ok_or_else(|| StoreError::NotFound(format!("deployment {id}")))
        })
        .await
    }

    /// The newest, or all that have not ended.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn deployments(&self, open_only: bool, limit: u32) -> Result<Vec<StoredDeployment>, StoreError> {
        self.read(move |tx| {
            let filter = if open_only { "WHERE finished_at_ms IS NULL" } else { "" };
            let mut query =
                tx.prepare(&format!("SELECT {COLUMNS} FROM deployments {filter} ORDER BY created_at_ms DESC, id DESC LIMIT ?1"))?;
            let rows = query.query_map([limit], deployment)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Stores what a host reported, with the lane's mark, in one transaction. Events at or below the mark came before and are
    /// left out. Returns how many were new.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn append_events(&self, source: &str, host: AgentId, new: Vec<(u64, Event)>) -> Result<usize, StoreError> {
        let source = source.to_owned();
        self.write(move |tx| {
            let mark: Option<i64> =
                tx.query_row("SELECT seq FROM event_marks WHERE source = ?1", [&source], |row| row.get(0)).optional()?;
            let mut last = mark.unwrap_or(0);
            let mut stored = 0;
            for (seq, event) in new {
                let seq = seq.cast_signed();
                if seq <= last {
                    continue;
                }
                tx.execute(
                    "INSERT INTO deployment_events (deployment_id, host_id, at_ms, body) VALUES (?1, ?2, ?3, ?4)",
                    params![event.deployment_id, host.to_string(), event.at_ms, serde_json::to_string(&event)?],
                )?;
                last = seq;
                stored += 1;
            }
            tx.execute(
                "INSERT INTO event_marks (source, seq) VALUES (?1, ?2) ON CONFLICT (source) DO UPDATE SET seq = excluded.seq",
                params![source, last],
            )?;
            Ok(stored)
        })
        .await
    }

    /// Events that no deployment's body contains yet, in order.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn new_events(&self, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        self.read(move |tx| {
            let cursor = counter(tx, CURSOR)?;
            events(
                tx,
                "SELECT n, deployment_id, host_id, body FROM deployment_events WHERE n > ?1 ORDER BY n LIMIT ?2",
                params![cursor, limit],
            )
        })
        .await
    }

    /// A deployment's events behind `after`, in order.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn deployment_events(&self, id: &str, after: i64, limit: u32) -> Result<Vec<StoredEvent>, StoreError> {
        let id = id.to_owned();
        self.read(move |tx| {
            let sql =
                "SELECT n, deployment_id, host_id, body FROM deployment_events WHERE deployment_id = ?1 AND n > ?2 ORDER BY n LIMIT ?3";
            events(tx, sql, params![id, after, limit])
        })
        .await
    }

    /// The next fencing epoch; durable before it is used.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn next_epoch(&self) -> Result<u64, StoreError> {
        self.write(|tx| {
            let next = counter(tx, EPOCH)? + 1;
            set_counter(tx, EPOCH, next)?;
            Ok(next.cast_unsigned())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipwatch_common::model::deploy::EventKind;

    fn event(step: &str) -> Event {
        Event { deployment_id: "d".into(), at_ms: 5, kind: EventKind::StepStarted { step: step.into() } }
    }

    #[tokio::test]
    async fn events_are_stored_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let host = AgentId([1; 16]);
        assert_eq!(store.append_events("s", host, vec![(1, event("a")), (2, event("b"))]).await.unwrap(), 2);
        assert_eq!(store.append_events("s", host, vec![(2, event("b")), (3, event("c"))]).await.unwrap(), 1);
        let steps: Vec<Event> = store.new_events(10).await.unwrap().into_iter().map(|stored| stored.event).collect();
        assert_eq!(steps, [event("a"), event("b"), event("c")]);
        let last = store.new_events(10).await.unwrap()[2].n;
        store.update_deployments(vec![], Some(last)).await.unwrap();
        assert!(store.new_events(10).await.unwrap().is_empty());
        assert_eq!(store.deployment_events("d", 1, 10).await.unwrap().len(), 2);
        assert_eq!((store.next_epoch().await.unwrap(), store.next_epoch().await.unwrap()), (1, 2));
        assert_eq!(store.event_marks("s".into()).await.unwrap(), [("s".to_owned(), 3)]);
    }
}
