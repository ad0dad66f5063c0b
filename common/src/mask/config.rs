//! The masker's part of a configuration, and what its names mean.

use super::{
    keys::{Class, Keys, Phrase},
    kind::{Kind, Mode},
    rules::UserRule,
};
use crate::config::{Problems, nearest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// More rules than this cost more than they find.
const MAX_RULES: usize = 64;
/// More keys than this do not fit into the trie.
const MAX_KEYS: usize = 500;
/// Longest pattern of a rule.
const MAX_PATTERN_BYTES: usize = 4096;

/// What is looked for and what replaces it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the modes start from: `default`, `pci`, `gdpr` or `strict`.
    pub policy: String,
    /// Mode by what is found: `phone = "partial"`. Wins over the policy.
    pub modes: BTreeMap<String, String>,
    /// Further keys: `kehu_mingcheng = "name"` masks what stands behind that key.
    pub keys: BTreeMap<String, String>,
    /// Keys whose values are not personal data, such as `warehouse_phone`. Secrets are masked nevertheless, and so is everything
    /// under policy `strict`.
    pub allow: Vec<String>,
    /// Own patterns.
    pub rules: Vec<Rule>,
    /// File with the key of mode `pseudonym`, at least 32 bytes, readable by the program's user only. The same on all hosts whose
    /// pseudonyms must match; never on the server.
    pub pseudonym_key_file: String,
    /// A longer line is not looked at: it is replaced as a whole.
    pub max_line_bytes: u64,
}

/// A pattern of one's own.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What replaces the value in brackets: lower-case letters, digits and `_`.
    pub name: String,
    /// A regular expression. If it has a group, only the first group is masked.
    pub pattern: String,
    /// redact, pseudonym or drop.
    #[serde(default = "redact")]
    pub mode: String,
}

fn redact() -> String {
    Mode::Redact.name().to_owned()
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: "default".to_owned(),
            modes: BTreeMap::new(),
            keys: BTreeMap::new(),
            allow: Vec::new(),
            rules: Vec::new(),
            pseudonym_key_file: String::new(),
            max_line_bytes: 1 << 20,
        }
    }
}

/// The names of the policies.
const POLICIES: [&str; 4] = ["default", "gdpr", "pci", "strict"];

/// What a configuration comes to.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    modes: [Mode; Kind::ALL.len()],
    /// A card need not have an issuer's range, and no key lowers suspicion of one.
    pub(super) any_luhn: bool,
    /// Nothing lowers a suspicion, and what is ambiguous is masked.
    pub(super) strict: bool,
}

impl Policy {
    fn named(name: &str) -> Option<Self> {
        let mut policy = Self { modes: [Mode::Redact; Kind::ALL.len()], any_luhn: false, strict: false };
        for kind in [Kind::Ip, Kind::Mac, Kind::Geo, Kind::DeviceId, Kind::Username] {
            policy.set(kind, Mode::Keep);
        }
        match name {
            "default" => {}
            "pci" => policy.any_luhn = true,
            "gdpr" | "strict" => {
                for kind in [Kind::Ip, Kind::Geo] {
                    policy.set(kind, if name == "gdpr" { Mode::Truncate } else { Mode::Redact });
                }
                for kind in [Kind::Mac, Kind::DeviceId, Kind::Username] {
                    policy.set(kind, Mode::Redact);
                }
                policy.strict = name == "strict";
                policy.any_luhn = policy.strict;
            }
            _ => return None,
        }
        Some(policy)
    }

    fn set(&mut self, kind: Kind, mode: Mode) {
        if let Some(slot) = kind.index().and_then(|at| self.modes.get_mut(at)) {
            *slot = mode;
        }
    }

    /// The mode of a built-in kind.
    pub(super) fn mode(&self, kind: Kind) -> Mode {
        kind.index().and_then(|at| self.modes.get(at)).copied().unwrap_or(Mode::Redact)
    }

    pub(super) fn on(&self, kind: Kind) -> bool {
        self.mode(kind) != Mode::Keep
    }
}

impl Config {
    /// Whether there is a policy of this name.
    ///
    /// # Errors
    /// What is wrong, reading on after the key that names it.
    pub fn check_policy(name: &str) -> Result<(), String> {
        if Policy::named(name).is_some() { Ok(()) } else { Err(unknown(name, &POLICIES)) }
    }

    /// Reports every mistake with its key and the remedy.
    pub fn check(&self, problems: &mut Problems) {
        if let Err(error) = Self::check_policy(&self.policy) {
            problems.add("policy", error);
        }
        if !(256..=64 << 20).contains(&self.max_line_bytes) {
            problems.add("max_line_bytes", format!("must be between 256 and 67108864, not {}", self.max_line_bytes));
        }
        for (name, mode) in &self.modes {
            self.check_mode(name, mode, problems);
        }
        for (key, name) in &self.keys {
            if Kind::named(name).is_none() {
                problems.add(&format!("keys.{key}"), unknown(name, &kind_names()));
            }
            check_key(&format!("keys.{key}"), key, problems);
        }
        for (at, key) in self.allow.iter().enumerate() {
            check_key(&format!("allow.{at}"), key, problems);
        }
        for (place, count) in [("keys", self.keys.len()), ("allow", self.allow.len())] {
            if count > MAX_KEYS {
                problems.add(place, format!("must be at most {MAX_KEYS} keys, not {count}"));
            }
        }
        if self.rules.len() > MAX_RULES {
            problems.add("rules", format!("must be at most {MAX_RULES} rules, not {}", self.rules.len()));
        }
        for (at, rule) in self.rules.iter().enumerate() {
            rule.check(at, problems);
        }
        if self.needs_key() && self.pseudonym_key_file.is_empty() {
            problems.add(
                "pseudonym_key_file",
                "must name a file for mode pseudonym; make one with `head -c 32 /dev/urandom > FILE; chmod 600 FILE`",
            );
        }
    }

    fn check_mode(&self, name: &str, mode: &str, problems: &mut Problems) {
        let key = format!("modes.{name}");
        let Some(kind) = Kind::named(name) else {
            problems.add(&key, unknown(name, &kind_names()));
            return;
        };
        let Some(mode) = Mode::named(mode) else {
            problems.add(&key, unknown(mode, &Mode::ALL.map(Mode::name)));
            return;
        };
        if let Some(refusal) = mode.refusal(kind) {
            problems.add(&key, format!("must not be {}: it {refusal}", mode.name()));
        }
    }

    /// Whether a mode needs the key file.
    pub(super) fn needs_key(&self) -> bool {
        let pseudonym = Mode::Pseudonym.name();
        self.modes.values().any(|mode| mode == pseudonym) || self.rules.iter().any(|rule| rule.mode == pseudonym)
    }

    pub(super) fn policy(&self) -> Policy {
        // A policy that `check` refused was reported; until then the strictest holds.
        let mut policy = Policy::named(&self.policy).or_else(|| Policy::named("strict")).unwrap_or(Policy {
            modes: [Mode::Redact; Kind::ALL.len()],
            any_luhn: true,
            strict: true,
        });
        for (name, mode) in &self.modes {
            if let (Some(kind), Some(mode)) = (Kind::named(name), Mode::named(mode)) {
                policy.set(kind, mode);
            }
        }
        policy
    }

    pub(super) fn keys(&self) -> Keys {
        let own = self.keys.iter().take(MAX_KEYS).filter_map(|(key, name)| Some(Phrase::of_user(key, Class::Value(Kind::named(name)?))));
        let allowed = self.allow.iter().take(MAX_KEYS).map(|key| Phrase::of_user(key, Class::Allowed));
        Keys::new(own.chain(allowed))
    }
}

impl Rule {
    fn check(&self, at: usize, problems: &mut Problems) {
        let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if self.name.is_empty() || self.name.len() > 32 || !self.name.bytes().all(sound) {
            problems.add(
                &format!("rules.{at}.name"),
                format!("must be 1 to 32 lower-case letters, digits or _, such as contract_no, not {:?}", self.name),
            );
        } else if Kind::named(&self.name).is_some() {
            problems.add(&format!("rules.{at}.name"), format!("must not be {:?}, the name of a built-in detector", self.name));
        }
        match Mode::named(&self.mode) {
            Some(Mode::Redact | Mode::Pseudonym | Mode::Drop) => {}
            _ => problems.add(&format!("rules.{at}.mode"), unknown(&self.mode, &["redact", "pseudonym", "drop"])),
        }
        if self.pattern.len() > MAX_PATTERN_BYTES {
            problems.add(&format!("rules.{at}.pattern"), format!("must be at most {MAX_PATTERN_BYTES} bytes, not {}", self.pattern.len()));
        } else if let Err(error) = UserRule::compile(self) {
            problems.add(&format!("rules.{at}.pattern"), error);
        }
    }
}

fn check_key(place: &str, key: &str, problems: &mut Problems) {
    if !(2..=64).contains(&key.len()) || Phrase::of_user(key, Class::Neutral).text.is_empty() {
        problems.add(place, format!("must be a key of 2 to 64 bytes with letters in it, not {key:?}"));
    }
}

fn kind_names() -> [&'static str; Kind::ALL.len()] {
    Kind::ALL.map(Kind::name)
}

fn unknown(given: &str, known: &[&str]) -> String {
    nearest(given, known.iter().copied()).map_or_else(
        || format!("must be one of {}, not {given:?}", known.join(", ")),
        |near| format!("is not known: {given:?}; did you mean {near:?}?"),
    )
}
