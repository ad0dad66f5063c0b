//! From a signal to an orderly end.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for the first SIGINT or SIGTERM and tells its name.
///
/// # Errors
/// The signal handlers could not be installed.
pub async fn signalled() -> std::io::Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    })
}
