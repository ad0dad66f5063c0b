//! `packaging/agent.toml`: what it says are defaults are the defaults, no key is missing, and it is read as it is.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected has failed")]

#[path = "../../common/tests/support/shipped.rs"]
mod shipped;

use shipwatch_agent::config::Config;
use std::path::Path;

const SHIPPED: &str = include_str!("../../packaging/agent.toml");

#[test]
fn it_documents_every_key_with_its_default() {
    let documented = shipped::documented(SHIPPED);
    assert_eq!(shipped::differences(&documented, &Config::default()), Vec::<String>::new());
    let read = Config::parse(&documented.to_string(), Path::new("agent.toml"), &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(shipped::differences(&documented, &read), Vec::<String>::new());
}

#[test]
fn it_is_read_as_it_is_shipped() {
    Config::parse(SHIPPED, Path::new("agent.toml"), &[]).unwrap_or_else(|error| panic!("{error}"));
    // Keys that packages set on purpose; everything else is a comment.
    let set: Vec<&str> = SHIPPED.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    assert_eq!(set, Vec::<&str>::new());
}

/// Tables in lists are not part of the defaults, so their keys are held by examples with all of them.
#[test]
fn its_examples_of_sources_name_every_key() {
    let example: String = SHIPPED
        .lines()
        .skip_while(|line| *line != "#   [[tail.sources]]")
        .map_while(|line| line.strip_prefix("#   "))
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = Config::parse(&example, Path::new("agent.toml"), &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.tail.sources.len(), 4);
    let given = example.parse::<toml::Table>().expect("the example is TOML");
    let known = toml::Value::try_from(shipwatch_agent::tail::Config::template()).expect("a configuration is a table");
    let sources = given["tail"]["sources"].as_array().expect("a list");
    let mut named: Vec<String> = sources.iter().flat_map(|source| keys(source, "")).collect();
    named.sort();
    assert_eq!(named, keys(&known["sources"][0], ""));
}

/// All keys, sorted; what `labels` holds is free.
fn keys(value: &toml::Value, path: &str) -> Vec<String> {
    let mut found = match value {
        toml::Value::Table(table) if !path.ends_with("labels") => {
            table.iter().flat_map(|(key, value)| keys(value, &format!("{path}.{key}"))).collect()
        }
        toml::Value::Array(items) if items.first().is_some_and(toml::Value::is_table) => keys(&items[0], path),
        _ => vec![path.to_owned()],
    };
    found.sort();
    found
}

#[test]
fn a_missing_a_wrong_and_an_unknown_key_are_found() {
    let told = |from: &str, to: &str| {
        assert!(SHIPPED.contains(from), "{from}");
        shipped::differences(&shipped::documented(&SHIPPED.replace(from, to)), &Config::default())
    };
    assert_eq!(told("#level = \"info\"", ""), ["`log.level` is missing"]);
    assert_eq!(told("#level = \"info\"", "#level = \"warn\""), ["`log.level` is \"warn\" in the file, \"info\" by default"]);
    assert_eq!(told("#level =", "#levels ="), ["`log.levels` is no key", "`log.level` is missing"]);
}
