//! Compares a shipped configuration file with the defaults of the program that reads it.
//!
//! In the file, `#key = value` (no space) is a key with its default; any other line that begins with `#` is prose; a key
//! without `#` is one that packages set differently from the default, on purpose.

use toml::{Table, Value};

/// The defaults that the file documents: commented-out keys are read, keys in force are left out.
///
/// # Panics
/// If that is not TOML, or a key has no line of prose above it.
#[must_use]
pub(crate) fn documented(text: &str) -> Table {
    let mut defaults = String::new();
    let mut above = "";
    for line in text.lines() {
        match line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase())) {
            Some(setting) => {
                assert!(above.starts_with("# "), "no comment says what this key means: {setting}");
                defaults.push_str(setting);
            }
            None if line.starts_with(|c: char| c.is_ascii_lowercase()) => {}
            None => defaults.push_str(line),
        }
        defaults.push('\n');
        above = line;
    }
    defaults.parse().unwrap_or_else(|error| panic!("the commented-out lines are not TOML: {error}"))
}

/// Says every key that is missing, unknown or has another value than `default`.
pub(crate) fn differences(documented: &Table, default: &impl serde::Serialize) -> Vec<String> {
    let default = Table::try_from(default).expect("a configuration is a table");
    let mut found = Vec::new();
    compare(&Value::Table(documented.clone()), &Value::Table(default), String::new(), &mut found);
    found
}

fn compare(file: &Value, default: &Value, path: String, found: &mut Vec<String>) {
    let (Value::Table(inner), Value::Table(expected)) = (file, default) else {
        if file != default {
            found.push(format!("`{path}` is {file} in the file, {default} by default"));
        }
        return;
    };
    let join = |key: &String| if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
    found.extend(inner.keys().filter(|key| !expected.contains_key(*key)).map(|key| format!("`{}` is no key", join(key))));
    for (key, default) in expected {
        match inner.get(key) {
            Some(file) => compare(file, default, join(key), found),
            None => found.push(format!("`{}` is missing", join(key))),
        }
    }
}
