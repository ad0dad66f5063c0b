//! Not merged yet.

use crate::{api, config::Config, gateway::registry::Registry, store::Store};
use std::sync::Arc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Joins rules, messages and the store.
#[derive(Debug)]
pub struct Alerts {}

impl Alerts {
    /// Opens it.
    ///
    /// # Errors
    /// None yet.
    #[expect(clippy::unused_async, reason = "not merged yet")]
    pub async fn open(
        _config: &Config,
        _external_url: &str,
        _store: &Arc<Store>,
        _series: &Arc<shipwatch_series::Engine>,
        _registry: Arc<Registry>,
        _changes: api::live::Changes,
    ) -> Result<Self, String> {
        Ok(Self {})
    }

    /// Starts its loops.
    pub fn spawn(self: &Arc<Self>, _tasks: &TaskTracker, _cancel: &CancellationToken) {}
}

impl api::alerts::Alerting for Alerts {
    fn prometheus_rules(&self) -> serde_json::Value {
        serde_json::json!({"groups": []})
    }
    fn prometheus_alerts(&self) -> serde_json::Value {
        serde_json::json!({"alerts": []})
    }
    fn alerts(&self, _states: &[&str]) -> Vec<serde_json::Value> {
        Vec::new()
    }
    fn channels(&self) -> Vec<serde_json::Value> {
        Vec::new()
    }
    fn test_channel<'a>(&'a self, _name: &'a str) -> api::alerts::Later<'a, Option<Result<String, String>>> {
        Box::pin(std::future::ready(None))
    }
    fn reload(&self) -> Result<(), String> {
        Ok(())
    }
}
