//! Reads `deploy.yml`: unknown keys and wrong types with their line, then everything else that is wrong at once.

use shipwatch_common::model::deploy::Spec;

/// A spec is a page of text; more is a mistake or an attack on the parser.
const MAX_BYTES: usize = 256 * 1024;

/// What is wrong with a `deploy.yml`; one line each.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct SpecError(pub Vec<String>);

/// Reads and checks a spec.
///
/// # Errors
/// All mistakes, with their line where the text as such is wrong.
pub fn read(text: &str) -> Result<Spec, SpecError> {
    let spec = parse(text)?;
    let problems = spec.problems();
    if problems.is_empty() { Ok(spec) } else { Err(SpecError(problems)) }
}

/// Reads a spec without checking its values: a local deployment fills in the artifact first.
///
/// # Errors
/// The first mistake of syntax, key or type, with its line.
pub fn parse(text: &str) -> Result<Spec, SpecError> {
    if text.len() > MAX_BYTES {
        return Err(SpecError(vec![format!("deploy.yml is larger than {MAX_BYTES} bytes")]));
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or_else(String::new, |location| format!("line {}: ", location.line()));
        // The library's text goes on with a picture of the place; the first line says what is wrong.
        let told = error.without_snippet().to_string();
        SpecError(vec![format!("{line}{}", told.lines().next().unwrap_or("is not valid YAML"))])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shipwatch_common::model::deploy::{OnInterrupt, Phase};
    use std::time::Duration;

    const GOOD: &str = "\
version: 1
app: shop
release: v1.2
artifact:
  url: https://files.example.com/shop-v1.2.tar.gz
  sha256: 0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a
root: /srv/shop
steps:
  - {id: deps, phase: prepare, run: ./deps.sh, timeout: 5m, on_interrupt: rerun}
  - {id: start, phase: start, run: ./start.sh}
health:
  - {http: 'http://127.0.0.1:8080/up', interval: 500ms, deadline: 20s}
keep: {releases: 3}
env: {PORT: '8080'}
";

    #[test]
    fn a_good_file_is_read() {
        let spec = read(GOOD).unwrap();
        assert_eq!((spec.app.as_str(), spec.keep.releases, spec.env["PORT"].as_str()), ("shop", 3, "8080"));
        assert_eq!((spec.steps[0].phase, spec.steps[0].on_interrupt), (Phase::Prepare, OnInterrupt::Rerun));
        assert_eq!((spec.steps[0].timeout, spec.steps[1].timeout), (Duration::from_secs(300), Duration::from_secs(600)));
        assert_eq!(spec.health[0].interval, Duration::from_millis(500));
    }

    #[test]
    fn a_release_may_look_like_a_number() {
        for release in ["20240131", "1.10", "'2'"] {
            let spec = read(&GOOD.replace("release: v1.2", &format!("release: {release}"))).unwrap();
            assert_eq!(spec.release, release.trim_matches('\''));
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line_or_key() {
        for (from, to, told) in [
            ("root: /srv/shop", "rooot: /srv/shop", "line 7: "),
            ("phase: start", "phase: strat", "line 10: "),
            ("timeout: 5m", "timeout: soon", "line 9: "),
            ("keep: {releases: 3}", "keep: {releases: many}", "line 13: "),
            ("version: 1", "version: [", "line "),
            ("root: /srv/shop", "root: srv", "`root` must be an absolute path"),
            ("id: start", "id: deps", "`steps.1.id` must be unique"),
        ] {
            let error = read(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(told), "{to}: expected {told:?} in {error:?}");
        }
        let two = GOOD.replace("root: /srv/shop", "root: srv").replace("app: shop", "app: ''");
        assert_eq!(read(&two).unwrap_err().0.len(), 2);
        assert!(read(&format!("{GOOD}#{}", "x".repeat(MAX_BYTES))).is_err());
    }
}
