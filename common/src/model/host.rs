//! A host and its agent.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// An agent's identity: a UUID, given at enrolment and held in its certificate, never taken from a message.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize)]
pub struct AgentId(pub [u8; 16]);

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AgentId {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is not an agent id (a UUID)", text.chars().take(64).collect::<String>());
        let hex: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
        if hex.len() != 32 || text.len() != 36 || !hex.iter().all(u8::is_ascii_hexdigit) {
            return Err(wrong());
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(hex.chunks_exact(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(id))
    }
}

/// What an agent tells of its host when it connects. Shown to people; never used to decide who it is.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct HostFacts {
    /// `uname -n`.
    pub hostname: String,
    /// Such as `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// The agent's version.
    pub agent_version: String,
    /// Logical processors.
    pub cpus: u32,
    /// Total memory in bytes.
    pub memory_bytes: u64,
    /// Boot time in Unix seconds.
    pub boot_time_s: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_and_write() {
        let text = "0189f7ea-ae2c-7dd8-b1a5-6f0000000001";
        assert_eq!(text.parse::<AgentId>().unwrap().to_string(), text);
        for bad in ["", "0189f7ea", "0189f7ea-ae2c-7dd8-b1a5-6f000000000g", "0189f7eaae2c7dd8b1a56f0000000001"] {
            assert!(bad.parse::<AgentId>().is_err(), "{bad}");
        }
    }
}
