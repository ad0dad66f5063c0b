//! The program's own log, masked like every other text that may leave the host.

use crate::mask::Masker;
use std::{
    io::{self, Write},
    sync::Arc,
};
use tracing::level_filters::LevelFilter;

/// How much is logged.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `error`, `warn`, `info`, `debug` or `trace`. Libraries below `info` are left out.
    pub level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { level: "info".to_owned() }
    }
}

impl Config {
    /// Reports an unknown level.
    pub fn check(&self, problems: &mut crate::config::Problems) {
        if self.level.parse::<LevelFilter>().is_err() {
            problems.add("level", format!("must be error, warn, info, debug or trace, not {:?}", self.level));
        }
    }
}

/// Masks each event before it is written; events are handed over whole by the formatter.
struct MaskedStderr {
    masker: Arc<Masker>,
}

impl Write for MaskedStderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let masked = self.masker.mask(text.trim_end_matches('\n'));
        let mut line = masked.text.into_owned();
        line.push('\n');
        io::stderr().lock().write_all(line.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Installs the process' subscriber: one line per event on standard error, masked, without colours.
pub fn install(config: &Config, masker: Arc<Masker>) {
    use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};
    let level = config.level.parse::<LevelFilter>().unwrap_or(LevelFilter::INFO);
    let quiet = level.min(LevelFilter::WARN);
    let filter = Targets::new().with_default(quiet).with_targets(
        ["shipwatch_common", "shipwatch_agent", "shipwatch_server", "shipwatch_series", "shipwatch_logs", "shipwatch"]
            .map(|name| (name, level)),
    );
    let format = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || MaskedStderr { masker: Arc::clone(&masker) });
    // Only a second call in one process fails here: the first one's subscriber stays.
    let _already_installed = tracing_subscriber::registry().with(filter).with(format).try_init();
}
