//! Whether and how long summaries of samples are kept.

use super::retention::{Cutoffs, Keep};
use serde::{Deserialize, Serialize};
use shipwatch_common::{config::Problems, time::UnixMs};
use std::{collections::BTreeMap, time::Duration};

const DAY: Duration = Duration::from_secs(86_400);

/// `[series.tiers]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tiers {
    /// Whether summaries are made of days that are over. Those that are there are used and kept either way.
    pub enabled: bool,
    /// Age up to which summaries of five minutes are kept, or `forever`.
    pub five_minutes: Keep,
    /// Age up to which summaries of an hour are kept, or `forever`. A month goes as a whole.
    pub one_hour: Keep,
    /// The age for single environments (label `env`), which wins over both.
    pub env: BTreeMap<String, Keep>,
}

impl Default for Tiers {
    fn default() -> Self {
        Self { enabled: true, five_minutes: Keep::For(DAY * 400), one_hour: Keep::For(DAY * 1_825), env: BTreeMap::new() }
    }
}

impl Tiers {
    /// Reports what is out of bounds.
    pub(super) fn check(&self, problems: &mut Problems) {
        for (key, age) in [("tiers.five_minutes", self.five_minutes), ("tiers.one_hour", self.one_hour)] {
            age.check(key, problems);
            if age == Keep::Unset {
                problems.add(key, "must be a duration, such as 400d, or `forever`");
            }
        }
        for (env, age) in &self.env {
            age.check(&format!("tiers.env.{env}"), problems);
        }
    }

    /// When summaries that are kept up to `age` expire at `now_ms`.
    #[must_use]
    pub fn cutoffs(&self, age: Keep, now_ms: UnixMs) -> Cutoffs {
        Cutoffs::new(age, &self.env, now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_with_their_key() {
        let text = r#"{"five_minutes": "", "one_hour": "1h", "env": {"prod": "forever", "x": "99999d"}}"#;
        let mut problems = Problems::new();
        serde_json::from_str::<Tiers>(text).unwrap().check(&mut problems);
        let told: Vec<String> = problems.list().iter().map(|p| format!("{} {}", p.key, p.message)).collect();
        assert_eq!(
            told,
            [
                "tiers.five_minutes must be a duration, such as 400d, or `forever`",
                "tiers.one_hour must be from 1d to 36500d, or `forever`, not 1h",
                "tiers.env.x must be from 1d to 36500d, or `forever`, not 99999d"
            ]
        );
    }

    #[test]
    fn an_environment_has_one_age_for_both() {
        let tiers = Tiers { env: [("test".to_owned(), Keep::For(DAY * 60))].into(), ..Tiers::default() };
        let now = 20_780 * 86_400_000;
        let days = |age: Keep, env: &str| (now - tiers.cutoffs(age, now).of_env(env)) / 86_400_000;
        assert_eq!((days(tiers.five_minutes, "test"), days(tiers.one_hour, "test")), (60, 60));
        assert_eq!((days(tiers.five_minutes, ""), days(tiers.one_hour, "prod")), (400, 1_825));
    }
}
