//! Prometheus' rule files, as they are, checked as strictly as Prometheus checks them.
//!
//! # Invariants
//! - All mistakes of a file are told at once, each with file, line, group and rule.
//! - What was read can be evaluated: expressions and templates are parsed here.

use super::{
    template::Template,
    yaml::{self, Node},
};
use serde_saphyr::Spanned;
use shipwatch_common::{config::nearest, time::parse_duration};
use shipwatch_series::{
    MemSource,
    promql::{EvalOptions, Query, Value},
};
use std::{collections::HashSet, time::Duration};

/// Largest file.
const MAX_FILE_BYTES: usize = 4 << 20;

/// A group of rules that are evaluated together, in order.
#[derive(Clone, Debug)]
pub struct Group {
    /// Unique within its file.
    pub name: String,
    /// Where it comes from.
    pub file: String,
    /// How often.
    pub interval: Duration,
    /// Most alerts or series of one rule; 0 is no limit.
    pub limit: usize,
    /// How far in the past the expressions are evaluated.
    pub query_offset: Duration,
    /// In order.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it makes.
    pub kind: Kind,
    /// As it was written.
    pub expr: String,
    /// Parsed; `None` for built-in rules, which need no query.
    pub query: Option<Query>,
    /// The group's labels and its own, sorted by name.
    pub labels: Vec<(String, Template)>,
}

/// Series or alerts.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A series of this name.
    Record(String),
    /// Alerts.
    Alert(AlertRule),
}

/// What only alerting rules have.
#[derive(Clone, Debug)]
pub struct AlertRule {
    /// `alertname`.
    pub name: String,
    /// `for`.
    pub hold: Duration,
    /// `keep_firing_for`.
    pub keep_firing: Duration,
    /// Sorted by name.
    pub annotations: Vec<(String, Template)>,
}

impl Rule {
    /// Name of the series or of the alert.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.kind {
            Kind::Record(name) => name,
            Kind::Alert(alert) => &alert.name,
        }
    }

    /// What makes it the same rule after a reload or a restart: group, kind, name, labels.
    #[must_use]
    pub fn key(&self, group: &str) -> String {
        use sha2::{Digest as _, Sha256};
        let mut hash = Sha256::new();
        let kind = if matches!(self.kind, Kind::Record(_)) { "record" } else { "alert" };
        let labels = self.labels.iter().flat_map(|(name, value)| [name.as_str(), value.source()]);
        for part in [group, kind, self.name()].into_iter().chain(labels) {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        shipwatch_common::identity::hex(&hash.finalize()[..8])
    }
}

/// What a file does not say.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// Interval of groups without one.
    pub interval: Duration,
    /// Offset of groups without one.
    pub query_offset: Duration,
}

/// Reads one file.
///
/// # Errors
/// Every mistake, as `file:line: group "…", rule "…": what is wrong`.
pub fn parse(file: &str, text: &str, defaults: Defaults) -> Result<Vec<Group>, Vec<String>> {
    let mut reader = Reader { file, source: text, defaults, mistakes: Vec::new(), context: String::new() };
    if text.len() > MAX_FILE_BYTES {
        return Err(vec![format!("{file}: has {} bytes, more than the {MAX_FILE_BYTES} that are allowed", text.len())]);
    }
    let groups = match yaml::read(text) {
        Ok(tree) => reader.document(&tree),
        Err((line, told)) => {
            reader.tell(line, told);
            Vec::new()
        }
    };
    if reader.mistakes.is_empty() { Ok(groups) } else { Err(reader.mistakes) }
}

type Pair = (Spanned<String>, Spanned<Node>);

struct Reader<'a> {
    file: &'a str,
    source: &'a str,
    defaults: Defaults,
    mistakes: Vec<String>,
    context: String,
}

const GROUP_KEYS: [&str; 6] = ["name", "interval", "query_offset", "limit", "labels", "rules"];
const RULE_KEYS: [&str; 7] = ["record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"];

impl Reader<'_> {
    fn tell(&mut self, line: u64, what: impl std::fmt::Display) {
        self.mistakes.push(format!("{}:{line}: {}{what}", self.file, self.context));
    }

    fn document(&mut self, tree: &Spanned<Node>) -> Vec<Group> {
        if matches!(tree.value, Node::Null) {
            return Vec::new();
        }
        let Some(map) = self.map(tree, &["groups"], "a rule file") else { return Vec::new() };
        let mut groups = Vec::new();
        let mut names = HashSet::new();
        for (_, value) in map {
            for item in self.list(value, "groups") {
                self.context = String::new();
                if let Some(group) = self.group(item) {
                    if !names.insert(group.name.clone()) {
                        self.context = String::new();
                        self.tell(yaml::line(item), format!("group name {:?} is repeated in this file", group.name));
                    }
                    groups.push(group);
                }
            }
        }
        groups
    }

    fn group(&mut self, item: &Spanned<Node>) -> Option<Group> {
        let map = self.map(item, &GROUP_KEYS, "a group")?;
        let name = map.iter().find(|(key, _)| key.value == "name").and_then(|(_, value)| self.text(value, "name")).unwrap_or_default();
        if name.is_empty() {
            self.tell(yaml::line(item), "a group needs a `name`");
        }
        self.context = format!("group {name:?}: ");
        let mut group = Group {
            name,
            file: self.file.to_owned(),
            interval: self.defaults.interval,
            limit: 0,
            query_offset: self.defaults.query_offset,
            rules: Vec::new(),
        };
        let mut labels = Vec::new();
        for (key, value) in map {
            match key.value.as_str() {
                // Prometheus takes a zero for "not set".
                "interval" => group.interval = self.duration(value, "interval").filter(|d| !d.is_zero()).unwrap_or(group.interval),
                "query_offset" => group.query_offset = self.duration(value, "query_offset").unwrap_or(group.query_offset),
                "limit" => group.limit = self.limit(value),
                "labels" => labels = self.templates(value, "labels"),
                _ => {}
            }
        }
        let context = self.context.clone();
        for (_, value) in map.iter().filter(|(key, _)| key.value == "rules") {
            for (at, item) in self.list(value, "rules").iter().enumerate() {
                self.context = format!("{}rule {}: ", context, at + 1);
                let rule = self.rule(item, &labels, &context);
                group.rules.extend(rule);
            }
        }
        self.context = context;
        Some(group)
    }

    fn rule(&mut self, item: &Spanned<Node>, group_labels: &[(String, Template)], context: &str) -> Option<Rule> {
        let map = self.map(item, &RULE_KEYS, "a rule")?;
        let at = yaml::line(item);
        let get = |name: &str| map.iter().find(|(key, _)| key.value == name).map(|(_, value)| value);
        let word = |reader: &mut Self, name: &str| get(name).and_then(|value| reader.text(value, name)).filter(|text| !text.is_empty());
        let (record, alert) = (word(self, "record"), word(self, "alert"));
        if let Some(name) = record.as_ref().or(alert.as_ref()) {
            self.context = format!("{context}rule {name:?}: ");
        }
        let mut labels = group_labels.to_vec();
        let own = get("labels").map(|value| self.templates(value, "labels")).unwrap_or_default();
        labels.retain(|(name, _)| own.iter().all(|(own, _)| own != name));
        labels.extend(own);
        labels.sort_by(|(a, _), (b, _)| a.cmp(b));
        let annotations = get("annotations").map(|value| self.templates(value, "annotations"));
        let hold = get("for").and_then(|value| self.duration(value, "for"));
        let keep_firing = get("keep_firing_for").and_then(|value| self.duration(value, "keep_firing_for"));
        let kind = match (record, alert) {
            (Some(name), None) => {
                for (key, _) in map.iter().filter(|(key, _)| ["for", "keep_firing_for", "annotations"].contains(&key.value.as_str())) {
                    self.tell(yaml::line(key), format!("`{}` makes no sense with `record`", key.value));
                }
                if !is_metric_name(&name) {
                    self.tell(at, format!("{name:?} is no name of a metric: letters, digits, `_` and `:`, not beginning with a digit"));
                }
                Kind::Record(name)
            }
            (None, Some(name)) => Kind::Alert(AlertRule {
                name,
                hold: hold.unwrap_or_default(),
                keep_firing: keep_firing.unwrap_or_default(),
                annotations: annotations.unwrap_or_default(),
            }),
            (Some(_), Some(_)) => {
                self.tell(at, "only one of `record` and `alert` may be there");
                return None;
            }
            (None, None) => {
                self.tell(at, "one of `record` and `alert` must be there");
                return None;
            }
        };
        let Some(expr) = word(self, "expr") else {
            self.tell(at, "`expr` is missing");
            return None;
        };
        let place = get("expr").map_or(at, yaml::line);
        let query = self.query(&expr, place)?;
        Some(Rule { kind, expr: expr.trim().to_owned(), query: Some(query), labels })
    }

    fn query(&mut self, expr: &str, line: u64) -> Option<Query> {
        let query = match Query::parse(expr) {
            Ok(query) => query,
            Err(error) => {
                self.tell(line, format!("expr: {error}"));
                return None;
            }
        };
        // On no data: what kind of value it gives does not depend on data.
        match query.instant(&MemSource::new(), 0, &EvalOptions::default()) {
            Ok(output) if matches!(output.value, Value::Matrix(_) | Value::String(_)) => {
                self.tell(line, "expr: gives a range of samples or a text; a rule needs an instant vector or a number");
                None
            }
            _ => Some(query),
        }
    }

    fn map<'t>(&mut self, of: &'t Spanned<Node>, known: &[&str], what: &str) -> Option<&'t [Pair]> {
        let Node::Map(pairs) = &of.value else {
            self.tell(yaml::line(of), format!("{what} must be a map of keys to values"));
            return None;
        };
        for (key, _) in pairs.iter().filter(|(key, _)| !known.contains(&key.value.as_str())) {
            let hint = nearest(&key.value, known.iter().copied())
                .map_or_else(|| format!("known are: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
            self.tell(yaml::line(key), format!("`{}` is not known here; {hint}", key.value));
        }
        Some(pairs)
    }

    fn list<'t>(&mut self, of: &'t Spanned<Node>, what: &str) -> &'t [Spanned<Node>] {
        match &of.value {
            Node::List(items) => items,
            Node::Null => &[],
            _ => {
                self.tell(yaml::line(of), format!("`{what}` must be a list"));
                &[]
            }
        }
    }

    fn text(&mut self, of: &Spanned<Node>, what: &str) -> Option<String> {
        match &of.value {
            Node::Scalar(text) => Some(self.as_written(of).unwrap_or(text).to_owned()),
            Node::Null => None,
            _ => {
                self.tell(yaml::line(of), format!("`{what}` must be a text"));
                None
            }
        }
    }

    /// A number with the digits that were written: `1.50` stays `1.50`.
    fn as_written(&self, of: &Spanned<Node>) -> Option<&str> {
        let span = of.referenced.span();
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let text = self.source.get(start..start.checked_add(usize::try_from(span.byte_len()?).ok()?)?)?.trim();
        text.parse::<f64>().ok().map(|_| text)
    }

    fn duration(&mut self, of: &Spanned<Node>, what: &str) -> Option<Duration> {
        let text = self.text(of, what)?;
        parse_duration(&text).map_err(|error| self.tell(yaml::line(of), format!("`{what}`: {error}"))).ok()
    }

    fn limit(&mut self, of: &Spanned<Node>) -> usize {
        let Some(text) = self.text(of, "limit") else { return 0 };
        text.parse().unwrap_or_else(|_| {
            self.tell(yaml::line(of), format!("`limit` must be a whole number, not {text:?}"));
            0
        })
    }

    fn templates(&mut self, of: &Spanned<Node>, what: &str) -> Vec<(String, Template)> {
        if matches!(of.value, Node::Null) {
            return Vec::new();
        }
        let Node::Map(pairs) = &of.value else {
            self.tell(yaml::line(of), format!("`{what}` must be a map of names to texts"));
            return Vec::new();
        };
        let mut all = Vec::new();
        for (name, value) in pairs {
            if !is_label_name(&name.value) || name.value == "__name__" {
                self.tell(yaml::line(name), format!("{:?} is no name for one of the {what}", name.value));
            }
            let text = self.text(value, &name.value).unwrap_or_default();
            match Template::parse(&text) {
                Ok(template) => all.push((name.value.clone(), template)),
                Err(error) => self.tell(yaml::line(value), format!("{what}.{}: {error}", name.value)),
            }
        }
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}

fn is_label_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_metric_name(name: &str) -> bool {
    is_label_name(&name.replace(':', "_"))
}

#[cfg(test)]
mod tests;
