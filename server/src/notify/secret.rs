//! Secrets of channels: inline or in a file, never shown.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, fs, io::Read as _};

/// Largest secret file.
const MAX_BYTES: u64 = 16 << 10;

/// A text that is printed as `***`.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that sends it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The inline secret, or what the file holds, without white space around it.
    ///
    /// # Errors
    /// A file that cannot be read or is empty, with its name.
    pub fn or_file(&self, file: &str) -> Result<Self, String> {
        if file.is_empty() {
            return Ok(self.clone());
        }
        let mut text = String::new();
        let read = fs::File::open(file).and_then(|opened| opened.take(MAX_BYTES).read_to_string(&mut text));
        read.map_err(|error| format!("{file}: {error}"))?;
        match text.trim() {
            "" => Err(format!("{file}: is empty")),
            text => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "\"\"" } else { "***" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(if self.is_empty() { "" } else { "***" })
    }
}

/// Says nothing of a value of the wrong type but that it is wrong.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self).map_err(|_| serde::de::Error::custom("a secret must be a text in quotes"))
    }
}

/// Takes secrets out of texts that others wrote.
#[derive(Clone, Default)]
pub struct Scrubber(Vec<String>);

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scrubber({})", self.0.len())
    }
}

/// Longest text of a channel's answer that is kept.
const MAX_TOLD: usize = 600;

impl Scrubber {
    /// Of these; one of less than four letters is left out: it would take innocent words with it.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all: Vec<String> = secrets.into_iter().filter(|secret| secret.len() >= 4).map(str::to_owned).collect();
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(all)
    }

    /// One line, cut short, without any of the secrets.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for secret in &self.0 {
            clean = clean.replace(secret.as_str(), "***");
        }
        let clean: String = clean.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(MAX_TOLD).collect();
        clean.trim().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let secret = Secret::new("hunter22".into());
        assert_eq!(format!("{secret:?} {}", serde_json::to_string(&secret).unwrap()), "*** \"***\"");
        let error = serde_json::from_str::<Secret>("12345678").unwrap_err().to_string();
        assert!(!error.contains("12345678"), "{error}");
        let scrubber = Scrubber::new(["abc12345", "https://x/y?token=abc12345"]);
        assert_eq!(scrubber.clean("bad token abc12345\nat https://x/y?token=abc12345"), "bad token *** at ***");
        assert_eq!(scrubber.clean(&"长".repeat(5_000)).chars().count(), MAX_TOLD);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s");
        fs::write(&file, "inside\n").unwrap();
        assert_eq!(Secret::default().or_file(file.to_str().unwrap()).unwrap().reveal(), "inside");
        assert!(Secret::default().or_file("/nowhere").unwrap_err().starts_with("/nowhere: "));
    }
}
