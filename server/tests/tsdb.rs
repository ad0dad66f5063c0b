//! `shipwatch-server tsdb`, as a person uses it.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected has failed")]

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

fn tsdb(data: &Path, arguments: &[&str], input: &str) -> Output {
    let config = data.join("server.toml");
    fs::write(&config, format!("[server]\ndata_dir = {:?}\n[series.retention]\nage = \"forever\"\n", data.display().to_string())).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_shipwatch-server"))
        .arg("--config")
        .arg(&config)
        .arg("tsdb")
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses does not read.
    let _closed = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const LINES: &str = concat!(
    "{\"metric\":{\"__name__\":\"up\",\"env\":\"prod\"},\"values\":[1.0,null,0.30000000000000004],\"timestamps\":[1000,2000,3000]}\n",
    "{\"metric\":{\"__name__\":\"up\",\"env\":\"test\"},\"values\":[\"Infinity\"],\"timestamps\":[1700000000000]}\n",
);

#[test]
fn what_is_imported_is_exported_and_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("series")).unwrap();
    for _ in 0..2 {
        let done = tsdb(dir.path(), &["import"], LINES);
        assert!(done.status.success(), "{}", text(&done.stderr));
        assert_eq!(text(&done.stdout), "imported 4 samples\n");
        let done = tsdb(dir.path(), &["export"], "");
        assert_eq!(text(&done.stdout), LINES, "{}", text(&done.stderr));
    }
    let done = tsdb(dir.path(), &["export", "--format", "openmetrics", "--match", "{env=\"prod\"}", "--from", "1970-01-01T00:00:02Z"], "");
    assert_eq!(text(&done.stdout), "up{env=\"prod\"} 0.30000000000000004 3.000\n# EOF\n");
    let done = tsdb(dir.path(), &["stats", "--json"], "");
    let told: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let days = &told["days"];
    assert_eq!(told["summaries"], serde_json::json!([]));
    assert_eq!((&days[0]["day"], &days[0]["samples"], &days[0]["envs"]["prod"]), (&"1970-01-01".into(), &3.into(), &1.into()));
    let done = tsdb(dir.path(), &["verify"], "");
    assert!(done.status.success());
    assert!(text(&done.stdout).starts_with("no damage in 3 files, 2 chunks, 0 frames, 4 samples, 0 buckets"), "{}", text(&done.stdout));

    fs::write(dir.path().join("series/1970-01-01.db"), "nothing").unwrap();
    let done = tsdb(dir.path(), &["verify"], "");
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stdout).starts_with("1970-01-01.db: "), "{}", text(&done.stdout));
}

#[test]
fn mistakes_and_refused_samples_are_told_and_fail() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("series")).unwrap();
    let done = tsdb(dir.path(), &["import", "--format", "prometheus"], "up 1 1000\nup 1 -5\nup x\n");
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("line 3: expected a number as its value"), "{}", text(&done.stderr));
    let told = text(&done.stdout);
    assert!(told.starts_with("imported 1 samples\nrefused 1 samples: out of bounds") && told.contains("the first one: "), "{told}");
    // Text without a time cannot be filed.
    let done = tsdb(dir.path(), &["import", "--format", "prometheus"], "up 1\n");
    assert!(text(&done.stderr).contains("line 1: it has no time"), "{}", text(&done.stderr));
}

#[test]
fn a_directory_in_use_is_refused_by_the_name_of_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    assert!(text(&tsdb(dir.path(), &["verify"], "").stderr).contains("holds no series"));
    fs::create_dir(dir.path().join("series")).unwrap();
    let path = dir.path().join("lock");
    let lock = fs::File::create(&path).unwrap();
    lock.lock().unwrap();
    for command in ["verify", "stats", "export", "import"] {
        let done = tsdb(dir.path(), &[command], "");
        assert_eq!(done.status.code(), Some(1));
        assert!(
            text(&done.stderr).contains(&format!("{} is held by a running shipwatch-server", path.display())),
            "{}",
            text(&done.stderr)
        );
    }
}
