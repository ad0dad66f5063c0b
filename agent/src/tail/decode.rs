//! Bytes to text, and where lines end.

use std::borrow::Cow;

/// Names that [`Encoding::named`] takes.
const NAMES: &str = "utf-8, gbk, gb18030, big5, utf-16, utf-16le or utf-16be";

/// An encoding that lines may be in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Encoding {
    table: &'static encoding_rs::Encoding,
    /// Bytes of a line feed.
    unit: usize,
    big_endian: bool,
}

impl Encoding {
    /// What texts are in once they were read.
    pub(super) const UTF_8: Self = Self { table: encoding_rs::UTF_8, unit: 1, big_endian: false };

    pub(super) fn named(name: &str) -> Result<Self, String> {
        let (table, unit, big_endian) = match name.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" => (encoding_rs::UTF_8, 1, false),
            "gbk" | "gb2312" => (encoding_rs::GBK, 1, false),
            "gb18030" => (encoding_rs::GB18030, 1, false),
            "big5" => (encoding_rs::BIG5, 1, false),
            "utf-16" | "utf-16le" => (encoding_rs::UTF_16LE, 2, false),
            "utf-16be" => (encoding_rs::UTF_16BE, 2, true),
            _ => return Err(format!("must be {NAMES}, not {name:?}")),
        };
        Ok(Self { table, unit, big_endian })
    }

    /// What a byte order mark at the beginning of a file says, else this encoding. The mark of UTF-8 changes nothing: its bytes
    /// may be in front of GBK as well as of nothing else.
    pub(super) fn marked(self, head: &[u8]) -> Self {
        match head {
            [0xff, 0xfe, ..] => Self { table: encoding_rs::UTF_16LE, unit: 2, big_endian: false },
            [0xfe, 0xff, ..] => Self { table: encoding_rs::UTF_16BE, unit: 2, big_endian: true },
            [0xef, 0xbb, 0xbf, ..] => Self { table: encoding_rs::UTF_8, unit: 1, big_endian: false },
            _ => self,
        }
    }

    /// Offset just behind the first line end at or after `from`. No byte of a multi-byte character in the encodings above is a
    /// line feed; in UTF-16 only whole units count.
    pub(super) fn line_end(self, bytes: &[u8], from: usize) -> Option<usize> {
        if self.unit == 1 {
            return bytes[from..].iter().position(|byte| *byte == b'\n').map(|at| from + at + 1);
        }
        let feed = self.feed();
        bytes[from..].chunks_exact(2).position(|unit| unit == feed).map(|at| from + (at + 1) * 2)
    }

    /// Offset just behind the last line end. `bytes` begins on a unit.
    pub(super) fn last_line_end(self, bytes: &[u8]) -> Option<usize> {
        if self.unit == 1 {
            return bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
        }
        let feed = self.feed();
        bytes.chunks_exact(2).rposition(|unit| unit == feed).map(|at| (at + 1) * 2)
    }

    const fn feed(self) -> [u8; 2] {
        if self.big_endian { [0, b'\n'] } else { [b'\n', 0] }
    }

    /// Bytes of zeros at `from`: a hole that a writer left who kept its offset over a truncation.
    pub(super) fn hole(self, bytes: &[u8], from: usize) -> usize {
        let zeros = bytes[from..].iter().take_while(|byte| **byte == 0).count();
        // In UTF-16 half a zero unit may belong to the character behind it.
        if self.unit == 1 || zeros > 1 { self.cut(zeros) } else { 0 }
    }

    /// The text of a line without its end, without a byte order mark and without zeros. What is no character becomes U+FFFD.
    pub(super) fn text(self, bytes: &[u8]) -> Cow<'_, str> {
        let (text, _) = self.table.decode_without_bom_handling(bytes);
        let text = match text {
            Cow::Borrowed(text) => Cow::Borrowed(bare(text)),
            Cow::Owned(text) if bare(&text).len() == text.len() => Cow::Owned(text),
            Cow::Owned(text) => Cow::Owned(bare(&text).to_owned()),
        };
        if text.contains('\0') { Cow::Owned(text.replace('\0', "")) } else { text }
    }

    /// So many bytes may become one byte of text: a letter in UTF-16, or four bytes of GB18030 that are one letter of two.
    pub(super) fn spread(self) -> usize {
        if self.unit == 2 || self.table == encoding_rs::GBK || self.table == encoding_rs::GB18030 { 2 } else { 1 }
    }

    /// Cuts at or before `max`, on a unit.
    pub(super) const fn cut(self, max: usize) -> usize {
        max - max % self.unit
    }
}

fn bare(text: &str) -> &str {
    text.trim_start_matches('\u{feff}').trim_end_matches(['\n', '\r'])
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
    fn a_byte_order_mark_wins() {
        let utf8 = Encoding::named("utf-8").unwrap();
        assert_eq!(utf8.marked(b"\xff\xfea\0"), Encoding::named("utf-16le").unwrap());
        assert_eq!(utf8.marked(b"\xfe\xff\0a"), Encoding::named("utf-16be").unwrap());
        assert_eq!(Encoding::named("gbk").unwrap().marked(b"\xef\xbb\xbfa"), utf8);
        assert_eq!(utf8.marked(b"\xff"), utf8);
    }

    #[test]
    fn holes_are_measured_on_units() {
        let (utf8, wide) = (Encoding::named("utf-8").unwrap(), Encoding::named("utf-16be").unwrap());
        assert_eq!((utf8.hole(b"\0\0\0a", 0), utf8.hole(b"a\0", 0)), (3, 0));
        assert_eq!((wide.hole(b"\0\0\0a", 0), wide.hole(b"\0a", 0)), (2, 0));
        assert_eq!(utf8.text(b"a\0\0b\n"), "ab");
    }

    #[test]
    fn a_line_feed_inside_a_utf16_unit_is_none() {
        let encoding = Encoding::named("utf-16le").unwrap();
        // U+0A0A and then a line feed.
        assert_eq!(encoding.line_end(b"\x0a\x0a\x0a\x00", 0), Some(4));
        assert_eq!(encoding.line_end(b"\x00\x0a\x41\x00", 0), None);
    }
}
