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
    std::panic::set_hook(Box::new(|panic| {
        // Nothing can be done about a log that cannot be written.
        let _lost = io::stderr().lock().write_all(panicked(panic, &std::backtrace::Backtrace::capture()).as_bytes());
    }));
}

/// Where the program panicked. A message that was put together at run time is left out: it may quote what was worked on, and the
/// masker may be what panicked.
fn panicked(panic: &std::panic::PanicHookInfo<'_>, trace: &std::backtrace::Backtrace) -> String {
    let current = std::thread::current();
    let place = panic.location().map_or_else(String::new, |place| format!(" at {place}"));
    let message = panic.payload().downcast_ref::<&'static str>().map_or("", |message| message);
    let trace = if trace.status() == std::backtrace::BacktraceStatus::Captured { format!("\n{trace}") } else { String::new() };
    format!("thread '{}' panicked{place}: {message}{trace}\n", current.name().unwrap_or("unnamed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_panic_tells_its_place_and_nothing_of_what_was_worked_on() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let (seen, before) = (Arc::clone(&told), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            seen.lock().unwrap().push(panicked(panic, &std::backtrace::Backtrace::disabled()));
        }));
        let secret = String::from("13812345678");
        let _ended = std::panic::catch_unwind(|| panic!("bad line {secret}"));
        let _ended = std::panic::catch_unwind(|| panic!("a queue without an owner"));
        std::panic::set_hook(before);
        let told = told.lock().unwrap();
        let own: Vec<_> = told.iter().filter(|text| text.contains("logging.rs")).collect();
        assert_eq!(own.len(), 2, "{told:?}");
        assert!(own.iter().all(|text| !text.contains("138")), "{told:?}");
        assert!(own[1].contains("a queue without an owner"), "{told:?}");
    }
}
