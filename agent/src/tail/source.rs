//! Configured kinds of files, compiled.

use super::{
    config::{Config, Source as SourceConfig},
    decode::Encoding,
    discover::Globs,
    filter::Filter,
    multiline::Joiner,
    parse::{self, Parser},
};
use shipwatch_common::{mask::Masker, model::Labels};
use std::{collections::BTreeMap, path::Path, sync::Arc};

/// Bytes of a line behind its cut that are still looked at by the masker, so that the cut never leaves half a secret.
pub(super) const OVERLAP_BYTES: usize = 4096;
/// Longest file name in a label, in characters.
const NAME_CHARS: usize = 1024;

/// How one kind of files is found and read.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) globs: Globs,
    pub(super) encoding: Encoding,
    pub(super) max_line_bytes: usize,
    pub(super) joiner: Option<Joiner>,
    pub(super) parser: Parser,
    pub(super) filter: Filter,
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
            masker: if policy.is_empty() { Arc::clone(masker) } else { Arc::new(masker.with_policy(&policy)?) },
            labels,
        })
    }

    /// Most bytes that are looked at together: an event, and the line that ends it, in two bytes a letter.
    pub(super) fn window_bytes(&self) -> usize {
        let joined = self.joiner.as_ref().map_or(0, |joiner| joiner.max_bytes);
        joined + 2 * (self.max_line_bytes + OVERLAP_BYTES)
    }

    /// The labels of a file's lines. The name is masked: it may hold an order's number or a customer's name.
    pub(super) fn labels(&self, name: &Path) -> Result<Labels, String> {
        let shown = name.display().to_string();
        let mut labels = self.labels.clone();
        labels.insert("filename".to_owned(), self.masker.mask(&shown).text.chars().take(NAME_CHARS).collect());
        Labels::new(labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))).map_err(|error| error.to_string())
    }
}
