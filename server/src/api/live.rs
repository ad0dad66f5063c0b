//! The live stream: says what changed; readers read it again.

use super::Shared;
use axum::{
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
};
use futures_util::Stream;
use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    time::Duration,
};
use tokio::sync::broadcast;

/// A change of one thing.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Change {
    /// `hosts`, `alerts`, `deployments`, `notifications`.
    pub what: &'static str,
    /// Its id.
    pub id: String,
}

/// Where changes are sent. A reader that is too slow misses some and is told to read everything again.
#[derive(Clone, Debug)]
pub struct Changes(broadcast::Sender<Change>);

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::channel(1024).0)
    }
}

impl Changes {
    /// Tells everybody who listens.
    pub fn send(&self, what: &'static str, id: &str) {
        let _nobody_listens = self.0.send(Change { what, id: id.to_owned() });
    }

    /// Listens from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.0.subscribe()
    }
}

/// At most four messages a second and kind.
const PACE: Duration = Duration::from_millis(250);

/// `GET live`.
pub async fn stream(State(state): State<Shared>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = state.changes.subscribe();
    let stream = futures_util::stream::unfold((changes, Vec::<Change>::new()), |(mut changes, mut waiting)| async move {
        while waiting.is_empty() {
            waiting = collect(&mut changes).await?;
        }
        let change = waiting.remove(0);
        let event = Event::default().event("changed").data(serde_json::json!({"what": change.what, "id": change.id}).to_string());
        Some((Ok(event), (changes, waiting)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

/// Waits for a change, gathers for a moment, and gives each once; more than one of a kind become one without an id.
async fn collect(changes: &mut broadcast::Receiver<Change>) -> Option<Vec<Change>> {
    let mut seen: HashMap<&'static str, HashSet<String>> = HashMap::new();
    let mut note = |received: Result<Change, broadcast::error::RecvError>| match received {
        Ok(change) => {
            seen.entry(change.what).or_default().insert(change.id);
            true
        }
        Err(broadcast::error::RecvError::Lagged(_)) => {
            for what in ["hosts", "alerts", "deployments", "notifications"] {
                seen.entry(what).or_default().extend([String::new(), "*".to_owned()]);
            }
            true
        }
        Err(broadcast::error::RecvError::Closed) => false,
    };
    if !note(changes.recv().await) {
        return None;
    }
    let until = tokio::time::sleep(PACE);
    tokio::pin!(until);
    loop {
        tokio::select! {
            received = changes.recv() => if !note(received) { break },
            () = &mut until => break,
        }
    }
    let one = |(what, ids): (&'static str, HashSet<String>)| {
        let id = if ids.len() == 1 { ids.into_iter().next().unwrap_or_default() } else { String::new() };
        Change { what, id }
    };
    Some(seen.into_iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn changes_are_gathered_by_kind() {
        let changes = Changes::default();
        let mut receiver = changes.subscribe();
        changes.send("hosts", "a");
        changes.send("hosts", "b");
        changes.send("alerts", "x");
        let mut got: Vec<(&str, String)> =
            collect(&mut receiver).await.unwrap().into_iter().map(|change| (change.what, change.id)).collect();
        got.sort_unstable();
        assert_eq!(got, [("alerts", "x".to_owned()), ("hosts", String::new())]);
    }
}
