//! Users, their sessions and API tokens.

use super::{Store, StoreError, audit::note};
use rusqlite::{OptionalExtension as _, params};
use shipwatch_common::time::UnixMs;

/// A user as stored. The password's hash is argon2's own text form.
#[derive(Clone, Debug)]
pub struct User {
    /// Sign-in name.
    pub name: String,
    /// `admin` for now; roles come later.
    pub role: String,
    /// PHC string.
    pub password_hash: String,
}

/// An API token without its secret.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiToken {
    /// Public id.
    pub id: String,
    /// What it is for.
    pub name: String,
    /// When it was made.
    pub created_at_ms: UnixMs,
    /// Until when.
    pub expires_at_ms: Option<UnixMs>,
    /// Last use, to the minute.
    pub last_used_at_ms: Option<UnixMs>,
}

/// Who a session or token stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// User name.
    pub user: String,
    /// Role.
    pub role: String,
    /// Until when.
    pub expires_at_ms: Option<UnixMs>,
}

impl Store {
    /// One user.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn user(&self, name: &str) -> Result<Option<User>, StoreError> {
        let name = name.to_owned();
        self.read(move |tx| {
            let read = |row: &rusqlite::Row<'_>| Ok(User { name: row.get(0)?, role: row.get(1)?, password_hash: row.get(2)? });
            Ok(tx.query_row("SELECT name, role, password_hash FROM users WHERE name = ?1", [name], read).optional()?)
        })
        .await
    }

    /// Makes a user or gives it another password; its sessions end.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn set_user(&self, user: User, who: &str, now_ms: UnixMs) -> Result<(), StoreError> {
        let who = who.to_owned();
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO users (name, role, password_hash, created_at_ms) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (name) DO UPDATE SET role = excluded.role, password_hash = excluded.password_hash",
                params![user.name, user.role, user.password_hash, now_ms],
            )?;
            tx.execute("DELETE FROM sessions WHERE user = ?1", [&user.name])?;
            note(tx, now_ms, &who, "password set", &user.name)
        })
        .await
    }

    /// Begins a session.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn add_session(&self, token_hash: [u8; 32], user: &str, now_ms: UnixMs, expires_at_ms: UnixMs) -> Result<(), StoreError> {
        let user = user.to_owned();
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO sessions (token_hash, user, created_at_ms, expires_at_ms) VALUES (?1, ?2, ?3, ?4)",
                params![token_hash, user, now_ms, expires_at_ms],
            )?;
            note(tx, now_ms, &user, "signed in", "")
        })
        .await
    }

    /// Whose session it is, if it still runs.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn session(&self, token_hash: [u8; 32], now_ms: UnixMs) -> Result<Option<Grant>, StoreError> {
        self.read(move |tx| {
            let read = |row: &rusqlite::Row<'_>| Ok(Grant { user: row.get(0)?, role: row.get(1)?, expires_at_ms: Some(row.get(2)?) });
            let sql =
                "SELECT name, role, expires_at_ms FROM sessions JOIN users ON user = name WHERE token_hash = ?1 AND expires_at_ms > ?2";
            Ok(tx.query_row(sql, params![token_hash, now_ms], read).optional()?)
        })
        .await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn end_session(&self, token_hash: [u8; 32]) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute("DELETE FROM sessions WHERE token_hash = ?1", [token_hash])?;
            Ok(())
        })
        .await
    }

    /// Stores an API token; only its hash is kept.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn add_api_token(&self, token: ApiToken, token_hash: [u8; 32], user: &str) -> Result<(), StoreError> {
        let user = user.to_owned();
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO api_tokens (id, token_hash, name, user, created_at_ms, expires_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![token.id, token_hash, token.name, user, token.created_at_ms, token.expires_at_ms],
            )?;
            note(tx, token.created_at_ms, &user, "api token created", &format!("{} {}", token.id, token.name))
        })
        .await
    }

    /// Whose token it is, if it is still good; notes the use at most once a minute.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn api_token(&self, token_hash: [u8; 32], now_ms: UnixMs) -> Result<Option<Grant>, StoreError> {
        let sql = "SELECT users.name, role, expires_at_ms, last_used_at_ms FROM api_tokens JOIN users ON user = users.name
                   WHERE token_hash = ?1 AND coalesce(expires_at_ms, ?2 + 1) > ?2";
        let found = self
            .read(move |tx| {
                let read = |row: &rusqlite::Row<'_>| {
                    Ok((Grant { user: row.get(0)?, role: row.get(1)?, expires_at_ms: row.get(2)? }, row.get::<_, Option<UnixMs>>(3)?))
                };
                Ok(tx.query_row(sql, params![token_hash, now_ms], read).optional()?)
            })
            .await?;
        let Some((grant, last_used)) = found else { return Ok(None) };
        if last_used.is_none_or(|at| now_ms - at > 60_000) {
            self.write(move |tx| {
                tx.execute("UPDATE api_tokens SET last_used_at_ms = ?2 WHERE token_hash = ?1", params![token_hash, now_ms])?;
                Ok(())
            })
            .await?;
        }
        Ok(Some(grant))
    }

    /// A user's tokens.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn api_tokens(&self, user: &str) -> Result<Vec<ApiToken>, StoreError> {
        let user = user.to_owned();
        self.read(move |tx| {
            let mut query = tx.prepare(
                "SELECT id, name, created_at_ms, expires_at_ms, last_used_at_ms FROM api_tokens WHERE user = ?1 ORDER BY created_at_ms",
            )?;
            let rows = query.query_map([user], |row| {
                Ok(ApiToken {
                    id: row.get(0)?,
                    name: row.get(1)?,
                    created_at_ms: row.get(2)?,
                    expires_at_ms: row.get(3)?,
                    last_used_at_ms: row.get(4)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Takes a token back.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn delete_api_token(&self, id: &str, user: &str, now_ms: UnixMs) -> Result<(), StoreError> {
        let (id, user) = (id.to_owned(), user.to_owned());
        self.write(move |tx| {
            if tx.execute("DELETE FROM api_tokens WHERE id = ?1 AND user = ?2", [&id, &user])? == 0 {
                return Err(StoreError::NotFound(format!("api token {id}")));
            }
            note(tx, now_ms, &user, "api token deleted", &id)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sessions_and_tokens_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let user = User { name: "admin".into(), role: "admin".into(), password_hash: "x".into() };
        store.set_user(user.clone(), "start", 0).await.unwrap();
        store.add_session([1; 32], "admin", 0, 100).await.unwrap();
        assert_eq!(store.session([1; 32], 99).await.unwrap().unwrap().user, "admin");
        assert_eq!(store.session([1; 32], 100).await.unwrap(), None);
        store.set_user(user, "admin", 5).await.unwrap();
        assert_eq!(store.session([1; 32], 50).await.unwrap(), None, "a new password ends sessions");
        let token = ApiToken { id: "t".into(), name: "ci".into(), created_at_ms: 0, expires_at_ms: Some(1000), last_used_at_ms: None };
        store.add_api_token(token, [2; 32], "admin").await.unwrap();
        assert!(store.api_token([2; 32], 10).await.unwrap().is_some());
        assert_eq!(store.api_tokens("admin").await.unwrap()[0].last_used_at_ms, Some(10));
        assert!(store.api_token([2; 32], 1000).await.unwrap().is_none());
        store.delete_api_token("t", "admin", 20).await.unwrap();
        assert!(store.delete_api_token("t", "admin", 20).await.is_err());
    }
}
