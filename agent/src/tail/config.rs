//! What can be configured: which files, and how each kind is read.

use super::{
    container::Format,
    decode::Encoding,
    derived, discover,
    filter::{self, Sample},
    journal, multiline, parse, pipe, syslog,
};
use serde::{Deserialize, Serialize};
use shipwatch_common::{config::Problems, mask, model::Labels};
use std::{collections::BTreeMap, time::Duration};

/// One kind of files. What is empty or 0 is as in `[tail]`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// Globs of files: `/var/log/*.log`, `/srv/**/app.log`. A file belongs to the first source that matches.
    pub files: Vec<String>,
    /// Instead of files: the journal of systemd.
    pub journal: Option<journal::Config>,
    /// Instead of files: messages of syslog over the network.
    pub syslog: Option<syslog::Config>,
    /// Instead of files: what `shipwatch-agent pipe --source NAME` reads on its standard input.
    pub pipe: String,
    /// Globs of files that are left out, beside those of `tail.exclude`.
    pub exclude: Vec<String>,
    /// How files hold lines: `plain`, `docker` (json-file), or `cri` (containerd, CRI-O). Empty is `plain`.
    pub format: String,
    /// Encoding instead of `tail.encoding`.
    pub encoding: String,
    /// Zone of times without one instead of `tail.timezone`.
    pub timezone: String,
    /// Longer lines are cut there and marked.
    pub max_line_bytes: usize,
    /// Labels beside those of `tail.labels`, such as `app`.
    pub labels: BTreeMap<String, String>,
    /// Masking policy of these lines instead of the one that their environment or `mask.policy` asks for.
    pub mask_policy: String,
    /// How lines are joined to events.
    pub multiline: multiline::Config,
    /// How fields are found: the time, the severity, and what filters ask for.
    pub parser: parse::Config,
    /// Patterns of which one must match, else the line is left out (counted).
    pub include: Vec<String>,
    /// Patterns of which none may match, else the line is left out (counted).
    pub exclude_lines: Vec<String>,
    /// Of lines that match, only a share is kept.
    pub sample: Vec<Sample>,
    /// Lines per second that this source may send; more are left out (counted). 0 is no limit.
    pub max_lines_per_second: u32,
    /// Lines that may come at once before the limit bites; 0 is ten seconds' worth.
    pub burst_lines: u32,
    /// Series that are made of the lines.
    pub metrics: Vec<derived::Config>,
}

/// Which files are read, and how.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Globs of files: `/var/log/*.log`, `/srv/**/app.log`. A short way to say `[[tail.sources]]` with only `files`.
    pub files: Vec<String>,
    /// Globs of files that are left out of all sources.
    pub exclude: Vec<String>,
    /// Where to begin with files that are there at the very first start: `end` or `beginning`. Files that appear later
    /// are always read from their beginning.
    pub start_at: String,
    /// `utf-8`, `gbk`, `gb18030`, `big5`, `utf-16`, `utf-16le`, `utf-16be`; a byte order mark of UTF-16 or UTF-8 wins.
    pub encoding: String,
    /// Zone of times that do not name theirs, such as `Asia/Shanghai`; empty is the host's.
    pub timezone: String,
    /// Longer lines are cut there and marked.
    pub max_line_bytes: usize,
    /// How often globs are looked at again; finds what notifications missed.
    #[serde(with = "shipwatch_common::time::serde_duration")]
    pub rescan: Duration,
    /// Files beyond this number are not followed, which is logged and counted.
    pub max_files: usize,
    /// Files held open at the same time. Idle ones beyond it are closed and opened again when they change; a file that is
    /// rotated and compressed while it is closed is still found.
    pub max_open_files: usize,
    /// Unread bytes of deleted files that are kept on disk by holding them open while the server cannot be reached; beyond it
    /// the oldest are let go and counted as lost.
    pub deleted_max_bytes: u64,
    /// Labels of every line.
    pub labels: BTreeMap<String, String>,
    /// Masking policy by the value of the label `env` of a source's lines, instead of `mask.policy`.
    pub mask_policies: BTreeMap<String, String>,
    /// Kinds of files that are read in a way of their own.
    pub sources: Vec<Source>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            exclude: ["*.gz", "*.xz", "*.zst", "*.bz2", "*.zip"].map(ToOwned::to_owned).to_vec(),
            start_at: "end".to_owned(),
            encoding: "utf-8".to_owned(),
            timezone: String::new(),
            max_line_bytes: 64 << 10,
            rescan: Duration::from_secs(2),
            max_files: 10_000,
            max_open_files: 512,
            deleted_max_bytes: 1 << 30,
            labels: BTreeMap::new(),
            mask_policies: BTreeMap::new(),
            sources: Vec::new(),
        }
    }
}

impl Config {
    /// The default with one item in every list of tables, so that their keys are known where mistakes are looked for.
    #[must_use]
    pub fn template() -> Self {
        Self { sources: vec![Source::template()], ..Self::default() }
    }

    /// Checks globs, encodings, patterns and bounds.
    pub fn check(&self, problems: &mut Problems) {
        check_globs(problems, "", &self.files, &self.exclude);
        if !matches!(self.start_at.as_str(), "end" | "beginning") {
            problems.add("start_at", format!("must be end or beginning, not {:?}", self.start_at));
        }
        if let Err(error) = Encoding::named(&self.encoding) {
            problems.add("encoding", error);
        }
        if let Err(error) = parse::zone(&self.timezone) {
            problems.add("timezone", error);
        }
        check_line_bytes(problems, "max_line_bytes", self.max_line_bytes);
        if self.rescan < Duration::from_millis(100) {
            problems.add("rescan", "must be at least 100ms");
        }
        for (key, count) in [("max_files", self.max_files), ("max_open_files", self.max_open_files)] {
            if count == 0 {
                problems.add(key, "must be at least 1");
            }
        }
        check_labels(problems, "labels", &self.labels);
        for (environment, policy) in &self.mask_policies {
            if let Err(error) = mask::Config::check_policy(policy) {
                problems.add(&format!("mask_policies.{environment}"), error);
            }
        }
        for (at, source) in self.sources.iter().enumerate() {
            source.check(problems, &format!("sources.{at}."));
        }
    }
}

impl Source {
    /// See [`Config::template`].
    fn template() -> Self {
        Self {
            journal: Some(journal::Config::default()),
            syslog: Some(syslog::Config::default()),
            sample: vec![Sample::default()],
            metrics: vec![derived::Config::default()],
            ..Self::default()
        }
    }

    /// Where the lines come from: one place.
    fn check_kind(&self, problems: &mut Problems, at: &str) {
        let others = usize::from(self.journal.is_some()) + usize::from(self.syslog.is_some()) + usize::from(!self.pipe.is_empty());
        if others == 0 && self.files.is_empty() {
            problems.add(
                &format!("{at}files"),
                "must name at least one glob, such as \"/var/log/app/*.log\" (or give journal, syslog or pipe instead)",
            );
        } else if others > 0 && !self.files.is_empty() || others > 1 {
            problems.add(&format!("{at}files"), "a source has one of files, journal, syslog and pipe; make it several sources");
        }
        let is_joined = !self.multiline.preset.is_empty() || !self.multiline.start.is_empty();
        if is_joined && (self.journal.is_some() || self.syslog.is_some()) {
            problems.add(&format!("{at}multiline"), "is for files and pipes: journal and syslog send events whole");
        }
        if let Some(journal) = &self.journal {
            journal.check(problems, &format!("{at}journal."));
        }
        if let Some(syslog) = &self.syslog {
            syslog.check(problems, &format!("{at}syslog."));
        }
        if !self.pipe.is_empty() && !pipe::is_name(&self.pipe) {
            problems
                .add(&format!("{at}pipe"), format!("must be a name of up to 64 letters, digits, `-`, `_` and `.`, not {:?}", self.pipe));
        }
    }

    fn check(&self, problems: &mut Problems, at: &str) {
        check_globs(problems, at, &self.files, &self.exclude);
        self.check_kind(problems, at);
        if let (false, Err(error)) = (self.encoding.is_empty(), Encoding::named(&self.encoding)) {
            problems.add(&format!("{at}encoding"), error);
        }
        if let Err(error) = parse::zone(&self.timezone) {
            problems.add(&format!("{at}timezone"), error);
        }
        if self.max_line_bytes != 0 {
            check_line_bytes(problems, &format!("{at}max_line_bytes"), self.max_line_bytes);
        }
        check_labels(problems, &format!("{at}labels"), &self.labels);
        if let (false, Err(error)) = (self.mask_policy.is_empty(), mask::Config::check_policy(&self.mask_policy)) {
            problems.add(&format!("{at}mask_policy"), error);
        }
        self.multiline.check(problems, &format!("{at}multiline."));
        self.parser.check(problems, &format!("{at}parser."));
        filter::check(self, problems, at);
        derived::check(&self.metrics, problems, at);
        if let Err(error) = Format::named(&self.format) {
            problems.add(&format!("{at}format"), error);
        }
    }
}

fn check_globs(problems: &mut Problems, at: &str, files: &[String], exclude: &[String]) {
    for (key, globs) in [("files", files), ("exclude", exclude)] {
        for glob in globs {
            if let Err(error) = discover::compile(glob) {
                problems.add(&format!("{at}{key}"), error);
            } else if key == "files" && !glob.starts_with('/') {
                problems.add(&format!("{at}{key}"), format!("{glob:?} must be an absolute path"));
            }
        }
    }
}

fn check_line_bytes(problems: &mut Problems, key: &str, bytes: usize) {
    if !(256..=1 << 20).contains(&bytes) {
        problems.add(key, format!("must be between 256 and 1048576, not {bytes}"));
    }
}

fn check_labels(problems: &mut Problems, key: &str, labels: &BTreeMap<String, String>) {
    if let Err(error) = Labels::new(labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
        problems.add(key, error.to_string());
    }
}
