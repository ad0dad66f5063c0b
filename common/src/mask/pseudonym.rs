//! Pseudonyms: the same value becomes the same letters under the same key, and nobody without the key can try values.

use super::placeholder::PSEUDONYM_LETTERS;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::{fmt, io::Read as _, path::Path};

/// Fewest bytes of a key.
const MIN_BYTES: usize = 32;
/// Most bytes that are read of the file.
const MAX_BYTES: u64 = 4096;

/// The key. Its bytes are never shown.
#[derive(Clone)]
pub struct Key {
    mac: Hmac<Sha256>,
    /// Two letters that tell keys apart: pseudonyms before and behind a change of the key must not be compared.
    id: String,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    /// Fewer than 32 bytes.
    pub fn of(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < MIN_BYTES {
            return Err(format!("has {} bytes, at least {MIN_BYTES} are needed; make it with `head -c 32 /dev/urandom`", bytes.len()));
        }
        let mac: Hmac<Sha256> = Hmac::new_from_slice(bytes).map_err(|error| error.to_string())?;
        let id = letters(mac.clone().chain_update(b"key id"), 1);
        Ok(Self { mac, id })
    }

    /// Reads the key from its file, which nobody but the program's user may read.
    ///
    /// # Errors
    /// With the file's name and the remedy.
    pub fn read(path: &Path) -> Result<Self, String> {
        let wrong = |what: String| format!("pseudonym_key_file {}: {what}", path.display());
        let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = file.metadata().map_err(|error| wrong(error.to_string()))?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(wrong(format!("others may read it (mode {:o}); run `chmod 600` on it", mode & 0o777)));
            }
        }
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
        Self::of(&bytes).map_err(wrong)
    }

    /// The key's two letters, and sixteen from a to p: 64 bits, without digits that could be taken for a number.
    pub(super) fn letters(&self, kind: &str, canonical: &[u8]) -> String {
        let mac = self.mac.clone().chain_update(kind.as_bytes()).chain_update([0]).chain_update(canonical);
        format!("{}-{}", self.id, letters(mac, PSEUDONYM_LETTERS / 2))
    }
}

fn letters(mac: Hmac<Sha256>, bytes: usize) -> String {
    let code = mac.finalize().into_bytes();
    code.iter().take(bytes).flat_map(|byte| [byte >> 4, byte & 15]).map(|half| char::from(b'a' + half)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_value_has_the_same_letters_under_the_same_key() {
        let (one, other) = (Key::of(&[1; 32]).unwrap(), Key::of(&[2; 32]).unwrap());
        assert_eq!(one.letters("phone", b"13812345678"), one.letters("phone", b"13812345678"));
        assert_ne!(one.letters("phone", b"13812345678"), other.letters("phone", b"13812345678"));
        assert_ne!(one.letters("phone", b"13812345678"), one.letters("card", b"13812345678"));
        assert_eq!(one.letters("phone", b"x").len(), 3 + PSEUDONYM_LETTERS);
        let id = |key: &Key| key.letters("phone", b"x").split_once('-').unwrap().0.to_owned();
        assert!(id(&one) == id(&one.clone()) && id(&one) != id(&other));
        assert!(Key::of(&[1; 31]).is_err());
        assert_eq!(format!("{one:?}"), "Key(..)");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, [7; 32]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Key::read(&path).unwrap_err().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Key::read(&path).is_ok());
        assert!(Key::read(&dir.path().join("none")).unwrap_err().contains("none"));
    }
}
