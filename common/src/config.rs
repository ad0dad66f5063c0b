//! From TOML text and environment to a module's `Config`: every mistake at once, with its line and the nearest key.
//!
//! Every module owns a `Config` struct (`Default`, `Serialize`, `Deserialize`, `#[serde(default, deny_unknown_fields)]`)
//! and a `check(&self, &mut Problems)` for bounds. The program's `config.rs` puts them together as sections and calls
//! [`load`]. The defaults are the schema: a key exists if the serialised default has it.
//!
//! # Invariants
//! - Unknown keys, wrong types and values out of bounds are all reported together, never one per attempt.
//! - Values of secrets are never part of a message: messages name keys.
//! - Environment `SHIPWATCH_<SECTION>_<KEY>` wins over the file.

use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, path::Path};
use toml::{
    Table, Value,
    de::{DeArray, DeTable, DeValue},
};

/// One mistake in a configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// File and line (`agent.toml:12`), or the environment variable.
    pub place: String,
    /// `section.key`.
    pub key: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "`{}` ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Problems {
    found: Vec<Problem>,
    section: String,
    lines: std::collections::BTreeMap<String, String>,
}

impl Problems {
    /// For tests of a module's `check`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the section that following [`Problems::add`] calls talk about. Called by the program's `config.rs`.
    pub fn section(&mut self, name: &str) -> &mut Self {
        name.clone_into(&mut self.section);
        self
    }

    /// Reports that `key` of the current section is wrong. The message reads on after the key's name: `must be …, not …`.
    pub fn add(&mut self, key: &str, message: impl Into<String>) {
        let key = if self.section.is_empty() { key.to_owned() } else { format!("{}.{key}", self.section) };
        self.add_at(&key, message);
    }

    fn add_at(&mut self, key: &str, message: impl Into<String>) {
        // The longest known prefix of the key tells the line: `tail.files.0.path` falls back to `tail.files`.
        let place = key
            .rmatch_indices('.')
            .map(|(at, _)| &key[..at])
            .fold(self.lines.get(key), |found, prefix| found.or_else(|| self.lines.get(prefix)))
            .cloned()
            .unwrap_or_else(|| "default".to_owned());
        self.found.push(Problem { place, key: key.to_owned(), message: message.into() });
    }

    fn push(&mut self, place: String, key: String, message: String) {
        self.found.push(Problem { place, key, message });
    }

    /// All of them, in the order they were found.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.found
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.found.len();
        writeln!(f, "{count} mistake{} in the configuration:", if count == 1 { "" } else { "s" })?;
        for (at, problem) in self.found.iter().enumerate() {
            write!(f, "{}  {problem}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Reads a whole configuration. `text` is the file's content (empty for none), `file` its name for messages, `env` the
/// environment as given by `main`; `check` runs the modules' own checks on the result.
///
/// # Errors
/// All problems found, from syntax, keys, types, environment and checks together.
pub fn load<C: Default + Serialize + DeserializeOwned>(
    text: &str,
    file: &Path,
    env: &[(String, String)],
    check: impl FnOnce(&C, &mut Problems),
) -> Result<C, Problems> {
    load_like(&C::default(), text, file, env, check)
}

/// As [`load`], where some lists hold tables (`[[tail.sources]]`): in `template` each of them has one item, the default one, so that
/// the keys of items are known.
///
/// # Errors
/// As [`load`].
pub fn load_like<C: Default + Serialize + DeserializeOwned>(
    template: &C,
    text: &str,
    file: &Path,
    env: &[(String, String)],
    check: impl FnOnce(&C, &mut Problems),
) -> Result<C, Problems> {
    let file_name = file.display().to_string();
    let mut problems = Problems::default();
    let table = |config: &C| match Value::try_from(config) {
        Ok(Value::Table(table)) => table,
        Ok(_) | Err(_) => Table::new(),
    };
    let (schema, template) = (table(&C::default()), table(template));
    let mut given = Table::new();
    match DeTable::parse(text) {
        Ok(parsed) => {
            let place = |at: usize| format!("{file_name}:{}", text[..at.min(text.len())].matches('\n').count() + 1);
            let mut walk = Walk { place: &place, problems: &mut problems };
            given = walk.table(parsed.get_ref(), &template, "");
        }
        Err(error) => {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            problems.push(
                format!("{file_name}:{line}"),
                String::new(),
                format!("is not valid TOML: {}", error.message().replace('\n', ", ")),
            );
        }
    }
    apply_environment(&mut given, &schema, env, &mut problems);
    let config = merge_and_read::<C>(&schema, &given, &mut problems);
    match config {
        Some(config) => {
            check(&config, &mut problems);
            if problems.is_empty() { Ok(config) } else { Err(problems) }
        }
        None => Err(problems),
    }
}

/// Copies what the schema knows and reports the rest.
struct Walk<'a> {
    place: &'a dyn Fn(usize) -> String,
    problems: &'a mut Problems,
}

impl Walk<'_> {
    fn table(&mut self, given: &DeTable<'_>, schema: &Table, path: &str) -> Table {
        let mut kept = Table::new();
        for (key, value) in given {
            let name: &str = key.get_ref();
            let full = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            let place = (self.place)(key.span().start);
            self.problems.lines.insert(full.clone(), place.clone());
            // An empty table in the defaults is a free map (labels, environment): any key goes, types are serde's matter.
            let free = schema.is_empty() && !path.is_empty();
            match schema.get(name) {
                None if !free => {
                    let hint = nearest(name, schema.keys().map(String::as_str)).map_or_else(
                        || format!("is not known here; known are: {}", schema.keys().cloned().collect::<Vec<_>>().join(", ")),
                        |near| format!("is not known; did you mean `{near}`?"),
                    );
                    self.problems.push(place, full, hint);
                }
                known => {
                    if let Some(value) = self.value(value, known, &full) {
                        kept.insert(name.to_owned(), value);
                    }
                }
            }
        }
        kept
    }

    fn value(&mut self, given: &toml::Spanned<DeValue<'_>>, schema: Option<&Value>, path: &str) -> Option<Value> {
        if let (DeValue::Table(table), Some(Value::Table(inner))) = (given.get_ref(), schema) {
            return Some(Value::Table(self.table(table, inner, path)));
        }
        if let DeValue::Array(items) = given.get_ref() {
            for (at, item) in items.iter().enumerate() {
                self.problems.lines.insert(format!("{path}.{at}"), (self.place)(item.span().start));
            }
            if let Some(Value::Array(known)) = schema
                && let Some(Value::Table(inner)) = known.first()
            {
                return Some(self.items(items, inner, path));
            }
        }
        let value = plain(given.get_ref())?;
        match schema {
            Some(known) if !same_kind(known, &value) => {
                let place = (self.place)(given.span().start);
                self.problems.push(place, path.to_owned(), format!("must be {}, not {}", kind(known), kind(&value)));
                None
            }
            _ => Some(value),
        }
    }
}

impl Walk<'_> {
    /// A list of tables that all have the keys of `inner`.
    fn items(&mut self, items: &DeArray<'_>, inner: &Table, path: &str) -> Value {
        let mut kept = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let full = format!("{path}.{at}");
            match item.get_ref() {
                DeValue::Table(table) => kept.push(Value::Table(self.table(table, inner, &full))),
                other => {
                    let place = (self.place)(item.span().start);
                    let found = plain(other).map_or("something else", |value| kind(&value));
                    self.problems.push(place, full, format!("must be a table, written as [[{path}]], not {found}"));
                }
            }
        }
        Value::Array(kept)
    }
}

/// The value without its spans.
fn plain(value: &DeValue<'_>) -> Option<Value> {
    Some(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()?),
        DeValue::Float(number) => Value::Float(number.as_str().parse().ok()?),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(items) => Value::Array(items.iter().filter_map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(table) => {
            Value::Table(table.iter().filter_map(|(key, value)| Some((key.get_ref().to_string(), plain(value.get_ref())?))).collect())
        }
    })
}

fn same_kind(schema: &Value, given: &Value) -> bool {
    schema.same_type(given) || matches!((schema, given), (Value::Float(_), Value::Integer(_)))
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text in quotes",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list in [ ]",
        Value::Table(_) => "a table",
    }
}

/// The known word that a person most likely meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `SHIPWATCH_TAIL_MAX_LINE_BYTES` sets `tail.max_line_bytes`. Lists are separated by commas.
fn apply_environment(given: &mut Table, schema: &Table, env: &[(String, String)], problems: &mut Problems) {
    let mut keys = Vec::new();
    leaves(schema, &mut Vec::new(), &mut keys);
    for (name, text) in env {
        let Some(path) = keys.iter().find(|path| format!("SHIPWATCH_{}", path.join("_").to_uppercase()) == *name) else { continue };
        let known = path.iter().try_fold(&Value::Table(schema.clone()) as &Value, |at, key| at.get(key)).cloned();
        let value = match known {
            Some(Value::Integer(_)) => text.parse().ok().map(Value::Integer),
            Some(Value::Float(_)) => text.parse().ok().map(Value::Float),
            Some(Value::Boolean(_)) => text.parse().ok().map(Value::Boolean),
            Some(Value::Array(_)) => {
                Some(Value::Array(text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(|t| Value::String(t.to_owned())).collect()))
            }
            _ => Some(Value::String(text.clone())),
        };
        let full = path.join(".");
        problems.lines.insert(full.clone(), format!("environment {name}"));
        let Some(value) = value else {
            let expected = known.as_ref().map_or("another kind of value", kind);
            problems.push(format!("environment {name}"), full, format!("must be {expected}"));
            continue;
        };
        let mut at = &mut *given;
        let Some((last, parents)) = path.split_last() else { continue };
        for key in parents {
            let next = at.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(table) = next else { return };
            at = table;
        }
        at.insert(last.clone(), value);
    }
}

fn leaves(table: &Table, path: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
    for (key, value) in table {
        path.push(key.clone());
        match value {
            Value::Table(inner) if !inner.is_empty() => leaves(inner, path, out),
            _ => out.push(path.clone()),
        }
        path.pop();
    }
}

/// Reads the result, dropping one bad top-level key after the other so that each serde error is reported.
fn merge_and_read<C: Default + Serialize + DeserializeOwned>(schema: &Table, given: &Table, problems: &mut Problems) -> Option<C> {
    let mut merged = Value::Table(schema.clone());
    let mut sound = true;
    let mut paths = Vec::new();
    leaves(given, &mut Vec::new(), &mut paths);
    for path in paths {
        let Some(value) = path.iter().try_fold(&Value::Table(given.clone()) as &Value, |at, key| at.get(key)).cloned() else { continue };
        let mut attempt = merged.clone();
        set(&mut attempt, &path, value);
        match C::deserialize(attempt.clone()) {
            Ok(_) => merged = attempt,
            Err(error) => {
                sound = false;
                if blame_items::<C>(schema, given, &path, problems) {
                    continue;
                }
                let full = path.join(".");
                let place = problems.lines.get(&full).cloned().unwrap_or_else(|| "default".to_owned());
                problems.push(place, full, error.message().trim().replace('\n', ", "));
            }
        }
    }
    match C::deserialize(merged) {
        Ok(config) => Some(config),
        Err(error) => {
            if sound {
                problems.push("default".to_owned(), String::new(), error.message().to_owned());
            }
            None
        }
    }
}

/// Finds the keys of a list of tables that cannot be read, each on its own. `false`: it is no such list, or no single key is at fault.
fn blame_items<C: DeserializeOwned>(schema: &Table, given: &Table, path: &[String], problems: &mut Problems) -> bool {
    let whole = path.iter().try_fold(&Value::Table(given.clone()) as &Value, |at, key| at.get(key)).cloned();
    let Some(Value::Array(items)) = whole else { return false };
    let before = problems.found.len();
    for (at, item) in items.iter().enumerate() {
        let mut alone = Vec::new();
        one_by_one(item, &mut Vec::new(), &mut alone);
        for (key, value) in alone {
            let mut attempt = Value::Table(schema.clone());
            set(&mut attempt, path, Value::Array(vec![value]));
            if let Err(error) = C::deserialize(attempt) {
                problems.add_at(&format!("{}.{at}.{key}", path.join(".")), error.message().trim().replace('\n', ", "));
            }
        }
    }
    problems.found.len() > before
}

/// Every leaf of a table with only itself around it, and its path.
fn one_by_one(value: &Value, path: &mut Vec<String>, out: &mut Vec<(String, Value)>) {
    let mut put = |path: &[String], leaf: &Value| {
        let around = path.iter().rev().fold(leaf.clone(), |inner, key| match key.parse::<usize>() {
            Ok(_) => Value::Array(vec![inner]),
            Err(_) => Value::Table(Table::from_iter([(key.clone(), inner)])),
        });
        out.push((path.join("."), around));
    };
    match value {
        Value::Table(table) => {
            for (key, inner) in table {
                path.push(key.clone());
                one_by_one(inner, path, out);
                path.pop();
            }
        }
        Value::Array(items) if items.iter().all(Value::is_table) => {
            for (at, inner) in items.iter().enumerate() {
                path.push(at.to_string());
                one_by_one(inner, path, out);
                path.pop();
            }
        }
        leaf => put(path, leaf),
    }
}

fn set(root: &mut Value, path: &[String], value: Value) {
    let mut at = root;
    for key in path {
        let Value::Table(table) = at else { return };
        at = table.entry(key.clone()).or_insert_with(|| Value::Table(Table::new()));
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    #[serde(default, deny_unknown_fields)]
    struct Tail {
        files: Vec<String>,
        max_line_bytes: u64,
        #[serde(with = "crate::time::serde_duration")]
        rescan: std::time::Duration,
        labels: std::collections::BTreeMap<String, String>,
    }

    impl Default for Tail {
        fn default() -> Self {
            Self { files: vec![], max_line_bytes: 65536, rescan: std::time::Duration::from_secs(2), labels: Default::default() }
        }
    }

    #[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
    #[serde(default, deny_unknown_fields)]
    struct Whole {
        tail: Tail,
        sources: Vec<Tail>,
    }

    fn read(text: &str, env: &[(&str, &str)]) -> Result<Whole, Vec<String>> {
        let env: Vec<_> = env.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let template = Whole { sources: vec![Tail::default()], ..Whole::default() };
        load_like::<Whole>(&template, text, Path::new("agent.toml"), &env, |config, problems| {
            if config.tail.max_line_bytes < 256 {
                problems.section("tail").add("max_line_bytes", "must be at least 256");
            }
        })
        .map_err(|problems| problems.list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn good_input_is_read_and_the_environment_wins() {
        let config = read(
            "[tail]\nmax_line_bytes = 1024\nrescan = \"5s\"\n[tail.labels]\nteam = \"a\"",
            &[("SHIPWATCH_TAIL_MAX_LINE_BYTES", "2048"), ("SHIPWATCH_TAIL_FILES", "/a, /b")],
        )
        .unwrap();
        assert_eq!(config.tail.max_line_bytes, 2048);
        assert_eq!(config.tail.files, ["/a", "/b"]);
        assert_eq!(config.tail.rescan.as_secs(), 5);
        assert_eq!(config.tail.labels["team"], "a");
    }

    #[test]
    fn every_mistake_is_told_with_its_line() {
        let told = read(
            "[tail]\nmax_line_byte = 1\nrescan = \"soon\"\nfiles = \"/x\"\nmax_line_bytes = 7\n[tial]\n",
            &[("SHIPWATCH_TAIL_MAX_LINE_BYTES", "x")],
        )
        .unwrap_err();
        let all = told.join("\n");
        for expected in [
            "agent.toml:2: `tail.max_line_byte` is not known; did you mean `max_line_bytes`?",
            "agent.toml:3: `tail.rescan` `soon` is not a duration",
            "agent.toml:4: `tail.files` must be a list in [ ], not a text in quotes",
            "agent.toml:6: `tial` is not known; did you mean `tail`?",
            "environment SHIPWATCH_TAIL_MAX_LINE_BYTES: `tail.max_line_bytes` must be a whole number",
        ] {
            assert!(all.contains(expected), "missing {expected:?} in:\n{all}");
        }
        assert!(
            read("[tail]\nmax_line_bytes = 7", &[]).unwrap_err()[0].contains("agent.toml:2: `tail.max_line_bytes` must be at least 256")
        );
        assert!(read("[tail\n", &[]).unwrap_err()[0].contains("agent.toml:1: is not valid TOML"));
    }
    #[test]
    fn mistakes_in_lists_of_tables_are_told_with_their_lines() {
        let good = read("[[sources]]\nfiles = [\"/a\"]\n[[sources]]\nrescan = \"5s\"\nlabels.app = \"x\"", &[]).unwrap();
        assert_eq!((good.sources.len(), good.sources[1].rescan.as_secs(), good.sources[1].files.len()), (2, 5, 0));
        assert!(read("", &[]).unwrap().sources.is_empty());
        let told = read(
            "[[sources]]\nfiels = []\n[[sources]]\nmax_line_bytes = \"x\"\n[sources.labels]\napp = 3\n[[sources]]\nrescan = \"soon\"\n",
            &[],
        )
        .unwrap_err()
        .join("\n");
        for expected in [
            "agent.toml:2: `sources.0.fiels` is not known; did you mean `files`?",
            "agent.toml:4: `sources.1.max_line_bytes` must be a whole number, not a text in quotes",
            "agent.toml:6: `sources.1.labels.app`",
            "agent.toml:8: `sources.2.rescan` `soon` is not a duration",
        ] {
            assert!(told.contains(expected), "missing {expected:?} in:\n{told}");
        }
        assert!(
            read("sources = [1]", &[]).unwrap_err()[0].contains("`sources.0` must be a table, written as [[sources]], not a whole number")
        );
    }
}
