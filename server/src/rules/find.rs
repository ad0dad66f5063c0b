//! From `rules.files` to rule files: files, directories (`*.yml`, `*.yaml` in them) and globs.

use super::file::{self, Defaults, Group};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Most files.
const MAX_FILES: usize = 10_000;

/// Reads every rule file.
///
/// # Errors
/// Every mistake of every file.
pub fn load(entries: &[String], defaults: Defaults) -> Result<Vec<Group>, Vec<String>> {
    let mut mistakes = Vec::new();
    let mut paths = BTreeSet::new();
    for entry in entries {
        match expand(entry) {
            Ok(found) => paths.extend(found),
            Err(error) => mistakes.push(error),
        }
    }
    if paths.len() > MAX_FILES {
        return Err(vec![format!("rules.files names {} files, more than the {MAX_FILES} that are allowed", paths.len())]);
    }
    let mut groups = Vec::new();
    for path in paths {
        let shown = path.display().to_string();
        match fs::read_to_string(&path) {
            Ok(text) => match file::parse(&shown, &text, defaults) {
                Ok(found) => groups.extend(found),
                Err(told) => mistakes.extend(told),
            },
            Err(error) => mistakes.push(format!("{shown}: {error}")),
        }
    }
    if mistakes.is_empty() { Ok(groups) } else { Err(mistakes) }
}

fn expand(entry: &str) -> Result<Vec<PathBuf>, String> {
    let path = Path::new(entry);
    if entry.contains(['*', '?', '[']) {
        return globbed(path).map_err(|error| format!("rules.files: {entry}: {error}"));
    }
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let names = |path: &Path| path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml");
            list(path, names).map_err(|error| format!("rules.files: {entry}: {error}"))
        }
        Ok(_) => Ok(vec![path.to_owned()]),
        Err(error) => {
            Err(format!("rules.files: {entry}: {error}; name a rule file, a directory of them, or a pattern such as rules/*.yml"))
        }
    }
}

fn list(dir: &Path, wanted: impl Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && wanted(&path) && !path.is_dir() {
            found.push(path);
        }
    }
    Ok(found)
}

/// A pattern in the last part of a path; no match is no mistake, as in Prometheus.
fn globbed(path: &Path) -> Result<Vec<PathBuf>, String> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    if dir.to_string_lossy().contains(['*', '?', '[']) {
        return Err("a pattern may only be in the last part of the path".to_owned());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let pattern = pattern(&name)?;
    let matches = |path: &Path| path.file_name().is_some_and(|name| pattern.is_match(&name.to_string_lossy()));
    match list(dir, matches) {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

fn pattern(name: &str) -> Result<regex::Regex, String> {
    let mut text = String::from("^");
    let mut in_class = false;
    for letter in name.chars() {
        match letter {
            '*' if !in_class => text.push_str(".*"),
            '?' if !in_class => text.push('.'),
            '[' | ']' => {
                in_class = letter == '[';
                text.push(letter);
            }
            letter if in_class => text.push(letter),
            letter => text.push_str(&regex::escape(&letter.to_string())),
        }
    }
    text.push('$');
    regex::Regex::new(&text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn files_directories_and_patterns() {
        let dir = tempfile::tempdir().unwrap();
        let rule = |name: &str| format!("groups: [{{name: {name}, rules: [{{alert: A, expr: up == 0}}]}}]");
        for name in ["a.yml", "b.yaml", "c.txt", ".d.yml"] {
            fs::write(dir.path().join(name), rule(&name.replace('.', "_"))).unwrap();
        }
        let defaults = Defaults { interval: Duration::from_secs(15), query_offset: Duration::ZERO };
        let names = |entry: &str| -> Vec<String> {
            let groups = load(&[dir.path().join(entry).display().to_string()], defaults).unwrap();
            groups.into_iter().map(|group| group.name).collect()
        };
        assert_eq!(names(""), ["a_yml", "b_yaml"]);
        assert_eq!(names("*.yml"), ["a_yml"]);
        assert_eq!(names("[ac].*"), ["a_yml", "c_txt"]);
        assert_eq!(names("c.txt"), ["c_txt"]);
        assert!(names("nothing*.yml").is_empty());
        fs::write(dir.path().join("bad.yml"), "groups: [{nam: x}]").unwrap();
        let told = load(&[dir.path().display().to_string(), "/nowhere/at/all.yml".to_owned()], defaults).unwrap_err();
        assert!(told.iter().any(|one| one.contains("/nowhere/at/all.yml")) && told.iter().any(|one| one.contains("`nam`")), "{told:?}");
    }
}
