//! Configured kinds of files, compiled.

use super::{
    config::{Config, Source as SourceConfig},
    container::{self, Format, OUTPUTS},
    decode::Encoding,
    derived::Rules,
    discover::Globs,
    filter::Filter,
    journal,
    multiline::Joiner,
    parse::{self, Parser},
    syslog,
};
use shipwatch_common::{mask::Masker, model::Labels};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Bytes of a line behind its cut that are still looked at by the masker, so that the cut never leaves half a secret.
pub(super) const OVERLAP_BYTES: usize = 4096;
/// Longest file name in a label, in characters.
const NAME_CHARS: usize = 1024;

/// Where lines come from.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Files,
    Journal(journal::Config),
    Syslog(syslog::Config),
    Pipe(String),
}

impl Kind {
    fn of(source: &SourceConfig) -> Self {
        match (&source.journal, &source.syslog) {
            (Some(journal), _) => Self::Journal(journal.clone()),
            (None, Some(syslog)) => Self::Syslog(syslog.clone()),
            (None, None) if !source.pipe.is_empty() => Self::Pipe(source.pipe.clone()),
            (None, None) => Self::Files,
        }
    }
}

/// How lines of one kind are found and read.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) globs: Globs,
    pub(super) format: Format,
    pub(super) encoding: Encoding,
    pub(super) max_line_bytes: usize,
    pub(super) joiner: Option<Joiner>,
    pub(super) parser: Parser,
    pub(super) filter: Filter,
    pub(super) rules: Rules,
    pub(super) kind: Kind,
    pub(super) masker: Arc<Masker>,
    labels: BTreeMap<String, String>,
}

impl Source {
    /// All sources: the configured ones and, behind them, the plain `files`.
    pub(super) fn all(config: &Config, masker: &Arc<Masker>) -> Result<Vec<Self>, String> {
        let plain = SourceConfig { files: config.files.clone(), ..SourceConfig::default() };
        config.sources.iter().chain([&plain]).map(|source| Self::new(config, source, masker)).collect()
    }

    fn new(config: &Config, source: &SourceConfig, masker: &Arc<Masker>) -> Result<Self, String> {
        let either = |own: &str, common: &str| if own.is_empty() { common.to_owned() } else { own.to_owned() };
        let exclude: Vec<String> = config.exclude.iter().chain(&source.exclude).cloned().collect();
        let zone = parse::zone(&either(&source.timezone, &config.timezone))?;
        let mut labels = config.labels.clone();
        labels.extend(source.labels.clone());
        let of_environment = labels.get("env").and_then(|env| config.mask_policies.get(env)).map_or("", String::as_str);
        let policy = either(&source.mask_policy, of_environment);
        Ok(Self {
            globs: Globs::new(&source.files, &exclude)?,
            encoding: Encoding::named(&either(&source.encoding, &config.encoding))?,
            max_line_bytes: if source.max_line_bytes == 0 { config.max_line_bytes } else { source.max_line_bytes },
            joiner: Joiner::new(&source.multiline)?,
            parser: Parser::new(&source.parser, zone).map_err(|(key, error)| format!("parser.{key} {error}"))?,
            filter: Filter::new(source)?,
            format: Format::named(&source.format)?,
            rules: Rules::new(&source.metrics, &labels)?,
            kind: Kind::of(source),
            masker: if policy.is_empty() { Arc::clone(masker) } else { Arc::new(masker.with_policy(&policy)?) },
            labels,
        })
    }

    /// Most bytes that are looked at together: an event, and the line that ends it, in two bytes a letter.
    pub(super) fn window_bytes(&self) -> usize {
        let joined = self.joiner.as_ref().map_or(0, |joiner| joiner.max_bytes);
        joined + self.format.spread() * (self.max_line_bytes + OVERLAP_BYTES)
    }

    /// The labels of a file's lines, by their output if it is a container's. The name is masked: it may hold an order's number or a
    /// customer's name.
    pub(super) fn labels(&self, name: &Path, path: &Path) -> Result<Vec<Labels>, String> {
        let mut outside = container::describe(self.format, path).labels;
        outside.push(("filename", name.display().to_string()));
        if self.format == Format::Plain {
            return Ok(vec![self.labels_with(&outside)?]);
        }
        OUTPUTS.iter().map(|output| self.labels_with(&[&outside[..], &[("stream", (*output).to_owned())]].concat())).collect()
    }

    /// The configured labels, with others that come from outside: those are masked and bounded, and never stand over them.
    pub(super) fn labels_with(&self, outside: &[(&str, String)]) -> Result<Labels, String> {
        let mut labels = self.labels.clone();
        for (name, value) in outside {
            let masked = || self.masker.mask(value).text.chars().filter(|c| !c.is_control()).take(NAME_CHARS).collect();
            if *name == "filename" {
                labels.insert((*name).to_owned(), masked());
            } else {
                labels.entry((*name).to_owned()).or_insert_with(masked);
            }
        }
        Labels::new(labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))).map_err(|error| error.to_string())
    }
}
