//! Bytes to text, and where lines end.

use std::borrow::Cow;

/// An encoding that lines may be in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoding {
    table: &'static encoding_rs::Encoding,
    /// Bytes of a line feed.
    unit: usize,
    big_endian: bool,
}

impl Encoding {
    pub(super) fn named(name: &str) -> Result<Self, String> {
        let (table, unit, big_endian) = match name.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" => (encoding_rs::UTF_8, 1, false),
            "gbk" => (encoding_rs::GBK, 1, false),
            "gb18030" => (encoding_rs::GB18030, 1, false),
            "big5" => (encoding_rs::BIG5, 1, false),
            "utf-16le" => (encoding_rs::UTF_16LE, 2, false),
            "utf-16be" => (encoding_rs::UTF_16BE, 2, true),
            _ => return Err(format!("must be utf-8, gbk, gb18030, big5, utf-16le or utf-16be, not {name:?}")),
        };
        Ok(Self { table, unit, big_endian })
    }

    /// Offset just behind the first line end at or after `from`. No byte of a multi-byte character in the encodings above is a
    /// line feed; in UTF-16 only whole units count.
    pub(super) fn line_end(self, bytes: &[u8], from: usize) -> Option<usize> {
        if self.unit == 1 {
            return bytes[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at + 1);
        }
        let feed = if self.big_endian { [0, b'\n'] } else { [b'\n', 0] };
        bytes[from..].chunks_exact(2).position(|unit| unit == feed).map(|at| from + (at + 1) * 2)
    }

    /// The text of a line without its end and without a byte order mark. What is no character becomes U+FFFD.
    pub(super) fn text(self, bytes: &[u8]) -> Cow<'_, str> {
        let (text, _) = self.table.decode_without_bom_handling(bytes);
        let trimmed = text.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r']);
        if trimmed.len() == text.len() { text } else { Cow::Owned(trimmed.to_owned()) }
    }

    /// Cuts at or before `max`, on a unit.
    pub(super) const fn cut(self, max: usize) -> usize {
        max - max % self.unit
    }

    /// Bytes of one unit.
    pub(super) const fn unit(self) -> usize {
        self.unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_out_of_every_encoding() {
        for (name, bytes, text) in [
            ("utf-8", b"\xef\xbb\xbfa\xe6\x94\xaf\r\n".to_vec(), "a支"),
            ("gbk", b"\xd6\xa7\xb8\xb6\n".to_vec(), "支付"),
            ("big5", b"\xa4\xe4\xa5\x49\n".to_vec(), "支付"),
            ("utf-16le", b"\xff\xfe\x2f\x65\n\0".to_vec(), "支"),
            ("utf-16be", b"\x65\x2f\0\n".to_vec(), "支"),
            ("utf-8", b"bad \xff end".to_vec(), "bad \u{fffd} end"),
        ] {
            let encoding = Encoding::named(name).unwrap();
            assert_eq!(encoding.text(&bytes), text, "{name}");
        }
        assert!(Encoding::named("latin1").is_err());
    }

    #[test]
    fn a_line_feed_inside_a_utf16_unit_is_none() {
        let encoding = Encoding::named("utf-16le").unwrap();
        // U+0A0A and then a line feed.
        assert_eq!(encoding.line_end(b"\x0a\x0a\x0a\x00", 0), Some(4));
        assert_eq!(encoding.line_end(b"\x00\x0a\x41\x00", 0), None);
    }
}
