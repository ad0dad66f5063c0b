//! `packaging/server.toml`: what it says are defaults are the defaults, no key is missing, and it is read as it is.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that meets the unexpected has failed")]

#[path = "../../common/tests/support/shipped.rs"]
mod shipped;

use shipwatch_server::config::Config;
use std::path::Path;

const SHIPPED: &str = include_str!("../../packaging/server.toml");

#[test]
fn it_documents_every_key_with_its_default() {
    let documented = shipped::documented(SHIPPED);
    assert_eq!(shipped::differences(&documented, &Config::default()), Vec::<String>::new());
    let read = Config::parse(&documented.to_string(), Path::new("server.toml"), &[]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(shipped::differences(&documented, &read), Vec::<String>::new());
}

#[test]
fn it_is_read_as_it_is_shipped() {
    Config::parse(SHIPPED, Path::new("server.toml"), &[]).unwrap_or_else(|error| panic!("{error}"));
    // Keys that packages set on purpose; everything else is a comment.
    let set: Vec<&str> = SHIPPED.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase())).collect();
    assert_eq!(set, ["files = [\"/etc/shipwatch/rules\"]"]);
}

/// The example that begins with this line.
fn example(first: &str) -> String {
    let lines = SHIPPED.lines().skip_while(|line| line.strip_prefix("#   ") != Some(first));
    lines.map_while(|line| line.strip_prefix("#   ")).flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn its_example_of_a_target_has_every_key_with_its_default() {
    let example = example("[[forward.targets]]");
    let config = Config::parse(&example, Path::new("server.toml"), &[]).unwrap_or_else(|error| panic!("{error}"));
    let read = config.forward.targets.first().expect("a target");
    let table = example.parse::<toml::Table>().expect("the example is TOML");
    let shown = table["forward"]["targets"][0].as_table().expect("a target");
    let default = shipwatch_server::forward::config::Target {
        name: read.name.clone(),
        url: read.url.clone(),
        selectors: read.selectors.clone(),
        external_labels: read.external_labels.clone(),
        username: read.username.clone(),
        password_file: read.password_file.clone(),
        ..Default::default()
    };
    assert_eq!(*read, default);
    let all = toml::Table::try_from(default).expect("a target is a table");
    assert_eq!(all.keys().filter(|key| !shown.contains_key(*key)).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn its_examples_of_channels_can_be_read() {
    let example = example("[[notify.channels]]");
    let table = example.parse::<toml::Table>().expect("the example is TOML");
    let channels = table["notify"]["channels"].as_array().expect("channels").len();
    let config = toml::from_str::<Config>(&example).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.notify.channels.len(), channels), (3, 3));
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
