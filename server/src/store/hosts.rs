//! Hosts and the tokens that let them in.

use super::{Store, StoreError, audit::note};
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use shipwatch_common::{
    model::{AgentId, HostFacts},
    time::UnixMs,
};
use std::collections::BTreeMap;

/// A host as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Identity.
    pub id: AgentId,
    /// Unique name in the fleet.
    pub name: String,
    /// Environment.
    pub env: String,
    /// Region.
    pub region: String,
    /// Further labels, from its enrolment token.
    pub labels: BTreeMap<String, String>,
    /// As last told by the agent.
    pub facts: HostFacts,
    /// Where it last connected from.
    pub address: String,
    /// Whether its local policy allows deployments.
    pub deploys_allowed: bool,
    /// When it was enrolled.
    pub enrolled_at_ms: UnixMs,
    /// When its certificate ends.
    pub certificate_expires_ms: UnixMs,
    /// Last sign of life.
    pub last_seen_ms: Option<UnixMs>,
    /// Whether it stopped on purpose.
    pub said_goodbye: bool,
    /// When it was revoked.
    pub revoked_at_ms: Option<UnixMs>,
}

/// What an enrolment token gives to its hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct EnrolmentGrant {
    /// Public id.
    pub id: String,
    /// Environment of hosts that use it.
    pub env: String,
    /// Region of hosts that use it.
    pub region: String,
    /// Labels of hosts that use it.
    pub labels: BTreeMap<String, String>,
    /// How often it can still be used.
    pub uses_left: i64,
    /// Until when.
    pub expires_at_ms: UnixMs,
}

const HOST_COLUMNS: &str = "id, name, env, region, labels, facts, address, deploys_allowed, enrolled_at_ms, certificate_expires_ms, last_seen_ms, said_goodbye, revoked_at_ms";

type RawHost = (String, String, String, Host);

fn raw_host(row: &Row<'_>) -> rusqlite::Result<RawHost> {
    let host = Host {
        id: AgentId([0; 16]),
        name: row.get(1)?,
        env: row.get(2)?,
        region: row.get(3)?,
        labels: BTreeMap::new(),
        facts: HostFacts::default(),
        address: row.get(6)?,
        deploys_allowed: row.get(7)?,
        enrolled_at_ms: row.get(8)?,
        certificate_expires_ms: row.get(9)?,
        last_seen_ms: row.get(10)?,
        said_goodbye: row.get(11)?,
        revoked_at_ms: row.get(12)?,
    };
    Ok((row.get(0)?, row.get(4)?, row.get(5)?, host))
}

fn finish((id, labels, facts, host): RawHost) -> Result<Host, StoreError> {
    let id = id.parse().map_err(StoreError::Conflict)?;
    Ok(Host { id, labels: serde_json::from_str(&labels)?, facts: serde_json::from_str(&facts)?, ..host })
}

fn grant(tx: &Transaction<'_>, secret_hash: [u8; 32]) -> Result<Option<EnrolmentGrant>, StoreError> {
    let row = tx
        .query_row(
            "SELECT id, env, region, labels, uses_left, expires_at_ms FROM enrolment_tokens WHERE secret_hash = ?1",
            [secret_hash],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?, row.get(4)?, row.get(5)?)),
        )
        .optional()?;
    let Some((id, env, region, labels, uses_left, expires_at_ms)) = row else { return Ok(None) };
    Ok(Some(EnrolmentGrant { id, env, region, labels: serde_json::from_str(&labels)?, uses_left, expires_at_ms }))
}

/// A name that no other host has: the wish itself, or with a number behind it.
fn free_name(tx: &Transaction<'_>, wish: &str) -> Result<String, StoreError> {
    let mut name = wish.to_owned();
    for number in 2..10_000 {
        let taken: bool = tx.query_row("SELECT EXISTS (SELECT 1 FROM hosts WHERE name = ?1)", [&name], |row| row.get(0))?;
        if !taken {
            return Ok(name);
        }
        name = format!("{wish}-{number}");
    }
    Err(StoreError::Conflict(format!("too many hosts are named {wish}; give another --name")))
}

impl Store {
    /// Stores a new enrolment token; only the hash of its secret is kept.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn add_enrolment_token(
        &self,
        token: EnrolmentGrant,
        secret_hash: [u8; 32],
        who: &str,
        now_ms: UnixMs,
    ) -> Result<(), StoreError> {
        let who = who.to_owned();
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO enrolment_tokens (id, secret_hash, env, region, labels, uses_left, expires_at_ms, created_by, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![token.id, secret_hash, token.env, token.region, serde_json::to_string(&token.labels)?, token.uses_left, token.expires_at_ms, who, now_ms],
            )?;
            note(tx, now_ms, &who, "enrolment token created", &format!("{} env={} region={} uses={}", token.id, token.env, token.region, token.uses_left))
        })
        .await
    }

    /// Tokens that can still be used.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn enrolment_tokens(&self, now_ms: UnixMs) -> Result<Vec<EnrolmentGrant>, StoreError> {
        self.read(move |tx| {
            let mut query = tx.prepare(
                "SELECT id, env, region, labels, uses_left, expires_at_ms FROM enrolment_tokens WHERE uses_left > 0 AND expires_at_ms > ?1 ORDER BY expires_at_ms",
            )?;
            let rows = query.query_map([now_ms], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?, row.get(4)?, row.get(5)?)))?;
            rows.map(|row| {
                let (id, env, region, labels, uses_left, expires_at_ms) = row?;
                Ok(EnrolmentGrant { id, env, region, labels: serde_json::from_str(&labels)?, uses_left, expires_at_ms })
            })
            .collect()
        })
        .await
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_enrolment_token(&self, id: &str, who: &str, now_ms: UnixMs) -> Result<(), StoreError> {
        let (id, who) = (id.to_owned(), who.to_owned());
        self.write(move |tx| {
            if tx.execute("DELETE FROM enrolment_tokens WHERE id = ?1", [&id])? == 0 {
                return Err(StoreError::NotFound(format!("enrolment token {id}")));
            }
            note(tx, now_ms, &who, "enrolment token deleted", &id)
        })
        .await
    }

    /// Uses a token up for a new host, in one transaction. The host's name is the wish, made unique.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] with the words for the agent: unknown, used up or expired.
    pub async fn enrol(
        &self,
        secret_hash: [u8; 32],
        id: AgentId,
        wish: &str,
        facts: HostFacts,
        certificate_expires_ms: UnixMs,
        now_ms: UnixMs,
    ) -> Result<Host, StoreError> {
        let wish = wish.to_owned();
        self.write(move |tx| {
            let refused = |text: &str| StoreError::Conflict(text.to_owned());
            let token = grant(tx, secret_hash)?.ok_or_else(|| refused("the token is not known to this server, or was used up; make a new one"))?;
            if token.expires_at_ms <= now_ms {
                return Err(refused("the token has expired; make a new one with `shipwatch-server token create`"));
            }
            if token.uses_left <= 0 {
                return Err(refused("the token is used up; make a new one with `shipwatch-server token create`"));
            }
            tx.execute("UPDATE enrolment_tokens SET uses_left = uses_left - 1 WHERE id = ?1", [&token.id])?;
            let name = free_name(tx, &wish)?;
            tx.execute(
                "INSERT INTO hosts (id, name, env, region, labels, facts, enrolled_at_ms, certificate_expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                params![
                    id.to_string(), name, token.env, token.region, serde_json::to_string(&token.labels)?, serde_json::to_string(&facts)?, now_ms,
                    certificate_expires_ms
                ],
            )?;
            note(tx, now_ms, &format!("token {}", token.id), "host enrolled", &format!("{name} {id}"))?;
            let raw = tx.query_row(&format!("SELECT {HOST_COLUMNS} FROM hosts WHERE id = ?1"), [id.to_string()], raw_host)?;
            finish(raw)
        })
        .await
    }

    /// All hosts by name, revoked ones too.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn hosts(&self) -> Result<Vec<Host>, StoreError> {
        self.read(|tx| {
            let mut query = tx.prepare(&format!("SELECT {HOST_COLUMNS} FROM hosts ORDER BY name"))?;
            let rows = query.query_map([], raw_host)?;
            rows.map(|row| finish(row?)).collect()
        })
        .await
    }

    /// One host by id or name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn host(&self, id_or_name: &str) -> Result<Host, StoreError> {
        let wanted = id_or_name.to_owned();
        self.read(move |tx| {
            let raw = tx
                .query_row(
                    &format!("SELECT {HOST_COLUMNS} FROM hosts WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1"),
                    [&wanted],
                    raw_host,
                )
                .optional()?
                .ok_or_else(|| StoreError::NotFound(format!("host {wanted}")))?;
            finish(raw)
        })
        .await
    }

    /// A host connected: what it told of itself.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn host_connected(
        &self,
        id: AgentId,
        facts: HostFacts,
        address: String,
        deploys_allowed: bool,
        now_ms: UnixMs,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "UPDATE hosts SET facts = ?2, address = ?3, deploys_allowed = ?4, last_seen_ms = ?5, said_goodbye = 0 WHERE id = ?1",
                params![id.to_string(), serde_json::to_string(&facts)?, address, deploys_allowed, now_ms],
            )?;
            Ok(())
        })
        .await
    }

    /// Last signs of life, together.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn hosts_seen(&self, seen: Vec<(AgentId, UnixMs)>) -> Result<(), StoreError> {
        self.write(move |tx| {
            let mut update = tx.prepare("UPDATE hosts SET last_seen_ms = max(coalesce(last_seen_ms, 0), ?2) WHERE id = ?1")?;
            for (id, at_ms) in seen {
                update.execute(params![id.to_string(), at_ms])?;
            }
            Ok(())
        })
        .await
    }

    /// A host stopped on purpose.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn host_said_goodbye(&self, id: AgentId, now_ms: UnixMs) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute("UPDATE hosts SET said_goodbye = 1, last_seen_ms = ?2 WHERE id = ?1", params![id.to_string(), now_ms])?;
            Ok(())
        })
        .await
    }

    /// A host got a new certificate.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn host_renewed(&self, id: AgentId, certificate_expires_ms: UnixMs) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute("UPDATE hosts SET certificate_expires_ms = ?2 WHERE id = ?1", params![id.to_string(), certificate_expires_ms])?;
            Ok(())
        })
        .await
    }

    /// Refuses a host's certificate from now on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn revoke_host(&self, id_or_name: &str, who: &str, now_ms: UnixMs) -> Result<AgentId, StoreError> {
        let (wanted, who) = (id_or_name.to_owned(), who.to_owned());
        self.write(move |tx| {
            let id: String = tx
                .query_row("SELECT id FROM hosts WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC LIMIT 1", [&wanted], |row| row.get(0))
                .optional()?
                .ok_or_else(|| StoreError::NotFound(format!("host {wanted}")))?;
            tx.execute("UPDATE hosts SET revoked_at_ms = coalesce(revoked_at_ms, ?2) WHERE id = ?1", params![id, now_ms])?;
            note(tx, now_ms, &who, "host revoked", &format!("{wanted} {id}"))?;
            id.parse().map_err(StoreError::Conflict)
        })
        .await
    }

    /// Marks of the events lane that a host's generations have.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn event_marks(&self, prefix: String) -> Result<Vec<(String, u64)>, StoreError> {
        self.read(move |tx| {
            let mut query = tx.prepare("SELECT source, seq FROM event_marks WHERE substr(source, 1, length(?1)) = ?1")?;
            let rows = query.query_map([prefix], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = 1_763_884_800_000;

    fn token(uses_left: i64) -> EnrolmentGrant {
        EnrolmentGrant {
            id: "t".into(),
            env: "prod".into(),
            region: "eu".into(),
            labels: BTreeMap::from([("role".into(), "web".into())]),
            uses_left,
            expires_at_ms: NOW + 1000,
        }
    }

    #[tokio::test]
    async fn a_token_is_used_up_and_names_are_unique() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.add_enrolment_token(token(2), [1; 32], "admin", NOW).await.unwrap();
        let enrol = |number: u8, hash: [u8; 32], at: UnixMs| store.enrol(hash, AgentId([number; 16]), "web", HostFacts::default(), NOW, at);
        let first = enrol(1, [1; 32], NOW).await.unwrap();
        assert_eq!((first.name.as_str(), first.env.as_str(), first.labels["role"].as_str()), ("web", "prod", "web"));
        assert!(enrol(2, [9; 32], NOW).await.unwrap_err().to_string().contains("not known"));
        assert!(enrol(2, [1; 32], NOW + 1000).await.unwrap_err().to_string().contains("expired"));
        assert_eq!(enrol(2, [1; 32], NOW).await.unwrap().name, "web-2");
        assert!(enrol(3, [1; 32], NOW).await.unwrap_err().to_string().contains("used up"));
        assert!(store.enrolment_tokens(NOW).await.unwrap().is_empty());
        let id = store.revoke_host("web-2", "admin", NOW).await.unwrap();
        assert_eq!(store.host(&id.to_string()).await.unwrap().revoked_at_ms, Some(NOW));
        assert!(matches!(store.revoke_host("nobody", "admin", NOW).await, Err(StoreError::NotFound(_))));
    }
}
