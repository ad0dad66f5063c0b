//! Real processes for black-box tests: servers, agents, a relay that can be cut, and doubles of both ends.
//!
//! Ports are chosen free, data lies in temporary directories, waiting is for a condition with a deadline. Every process
//! is ended, by its own id, when its handle is dropped.

#![allow(clippy::expect_used, clippy::panic, reason = "a harness fails its test by panicking")]

pub mod agent;
pub mod api;
pub mod double;
pub mod peers;
pub mod process;
pub mod relay;
pub mod server;
pub mod sink;
pub mod websocket;

pub use agent::Agent;
pub use api::Api;
pub use server::Server;
pub use sink::Sink;
pub use websocket::WebSocket;

use std::{future::Future, time::Duration};

/// Looks again after this time.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits until `look` gives something.
///
/// # Panics
/// If that takes longer than `limit`; the message tells what was waited for.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited {limit:?} for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// A free UDP and TCP port on the loopback address.
///
/// # Panics
/// If the system has none.
#[must_use]
pub fn free_port() -> u16 {
    for _ in 0..100 {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a free tcp port");
        let port = tcp.local_addr().expect("its address").port();
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free for both udp and tcp");
}

/// Every file below a directory that contains these bytes.
///
/// # Panics
/// If a directory cannot be listed.
#[must_use]
pub fn files_with(dir: &std::path::Path, needle: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory that can be listed").flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle)) {
                found.push(path);
            }
        }
    }
    found
}
