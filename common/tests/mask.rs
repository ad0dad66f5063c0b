//! The masker against tables of lines, against planted values in random surroundings, and against itself.

use proptest::prelude::*;
use shipwatch_common::mask::{Config, Key, LineState, Masker, Rule};
use std::path::Path;

fn masker(config: &Config) -> Masker {
    Masker::with_key(config, Some(Key::of(&[7; 32]).unwrap())).unwrap()
}

fn default() -> Masker {
    masker(&Config::default())
}

/// What a table's directive changes.
fn apply(config: &mut Config, directive: &str) {
    match directive.split_whitespace().collect::<Vec<_>>()[..] {
        ["@policy", policy] => policy.clone_into(&mut config.policy),
        ["@mode", kind, mode] => {
            config.modes.insert(kind.to_owned(), mode.to_owned());
        }
        ["@key", key, "=", kind] => {
            config.keys.insert(key.to_owned(), kind.to_owned());
        }
        _ => panic!("no directive: {directive}"),
    }
}

#[test]
fn tables() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mask");
    let mut wrong = String::new();
    let mut rows = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mut config = Config::default();
        let mut masker = masker(&config);
        for (at, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            if line.starts_with('@') && !line.contains("  |  ") {
                apply(&mut config, line);
                masker = self::masker(&config);
                continue;
            }
            let Some((input, expected)) = line.split_once("  |  ") else {
                assert!(line.is_empty() || line.starts_with('#'), "{}:{}: no row", path.display(), at + 1);
                continue;
            };
            rows += 1;
            let expected = if expected == "=" { input } else { expected };
            let masked = masker.mask(input);
            let again = masker.mask(&masked.text);
            if masked.text != expected {
                wrong += &format!("{}:{}\n  input    {input}\n  expected {expected}\n  masked   {}\n", path.display(), at + 1, masked.text);
                for finding in masker.explain(input) {
                    wrong += &format!("    {finding:?}\n");
                }
            } else if again.text != masked.text {
                wrong += &format!("{}:{} changes again\n  masked   {}\n  again    {}\n", path.display(), at + 1, masked.text, again.text);
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(rows > 250, "{rows} rows were read");
}
