//! What messages speak about.

use serde::{Deserialize, Serialize};
use shipwatch_common::{model::Labels, time::UnixMs};
use std::collections::BTreeMap;

/// An alert as it is told to people.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Alert {
    /// Its identity, `alertname` among them.
    pub labels: Labels,
    /// For people.
    pub annotations: BTreeMap<String, String>,
    /// The value at its last evaluation, as text.
    pub value: String,
    /// When it fired.
    pub starts_at_ms: UnixMs,
    /// When it was resolved; nothing while it fires.
    pub ends_at_ms: Option<UnixMs>,
    /// Where its expression can be looked at.
    pub generator_url: String,
    /// Alertmanager's fingerprint, 16 hexadecimal digits.
    pub fingerprint: String,
}

/// How bad it is, from the label `severity`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Look at it some day; also any word that is not known.
    #[default]
    Info,
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

impl Severity {
    /// Of an alert. Words of other tools count as well.
    #[must_use]
    pub fn of(labels: &Labels) -> Self {
        match labels.get("severity").unwrap_or_default().to_ascii_lowercase().as_str() {
            "critical" | "crit" | "page" | "fatal" | "emergency" | "disaster" | "p1" | "error" => Self::Critical,
            "warning" | "warn" | "major" | "high" | "p2" | "ticket" => Self::Warning,
            _ => Self::Info,
        }
    }
}

impl Alert {
    /// `alertname`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.labels.get("alertname").unwrap_or("")
    }

    /// Whether it is over.
    #[must_use]
    pub const fn is_resolved(&self) -> bool {
        self.ends_at_ms.is_some()
    }
}

/// Why a message is sent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// Something new fires.
    Firing,
    /// Something that was told of is over.
    Resolved,
    /// It still fires.
    Repeat,
    /// A person wants to see whether it works.
    Test,
}

/// One message to one channel. Everything that is sent follows from it; it is stored before the first attempt.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Notification {
    /// The same message always has the same id, also after a crash.
    pub id: String,
    /// To whom.
    pub channel: String,
    /// Why.
    pub reason: Reason,
    /// As Alertmanager writes it.
    pub group_key: String,
    /// What the alerts have in common by `group_by`.
    pub group_labels: BTreeMap<String, String>,
    /// Firing ones first; at most [`Notification::MAX_ALERTS`].
    pub alerts: Vec<Alert>,
    /// How many more there are.
    #[serde(default)]
    pub truncated: u64,
    /// When it was made.
    pub created_at_ms: UnixMs,
}

impl Notification {
    /// More alerts than this are counted instead of told one by one: a storm must not make messages of megabytes.
    pub const MAX_ALERTS: usize = 500;

    /// Whether anything in it fires.
    #[must_use]
    pub fn is_firing(&self) -> bool {
        self.alerts.iter().any(|alert| !alert.is_resolved())
    }

    /// The worst of its alerts.
    #[must_use]
    pub fn severity(&self) -> Severity {
        let firing = self.alerts.iter().filter(|alert| !alert.is_resolved() || !self.is_firing());
        firing.map(|alert| Severity::of(&alert.labels)).max().unwrap_or_default()
    }
}
