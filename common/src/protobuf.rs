//! Protocol Buffers' encoding, as far as the messages of Prometheus, Loki and OpenTelemetry need it: fields are borrowed,
//! nothing is copied.
//!
//! # Invariants
//! - Whatever the bytes are, reading ends: with the last field, or with [`Malformed`]. Groups (an encoding that no message here
//!   uses) are malformed.
//! - Fields of unknown numbers are read over, as the format asks.

/// Bytes that are not a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it is not a whole Protocol Buffers message")]
pub struct Malformed;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    /// A varint.
    Number(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// What comes after its length: a text, bytes or a message.
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    /// A text, bytes or a message within.
    ///
    /// # Errors
    /// A field of another kind.
    #[inline]
    pub const fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed),
        }
    }

    /// A varint.
    ///
    /// # Errors
    /// A field of another kind.
    #[inline]
    pub const fn number(self) -> Result<u64, Malformed> {
        match self {
            Self::Number(number) => Ok(number),
            _ => Err(Malformed),
        }
    }

    /// A floating-point number.
    ///
    /// # Errors
    /// A field of another kind.
    #[inline]
    pub const fn double(self) -> Result<f64, Malformed> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(Malformed),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// A field of another kind, or not UTF-8.
    #[inline]
    pub fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }
}

/// Reads a message from its front.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The number that comes next.
    ///
    /// # Errors
    /// It has no end.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let (mut number, mut shift) = (0u64, 0);
        for (at, byte) in self.0.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                self.0 = &self.0[at + 1..];
                return Ok(number);
            }
            shift += 7;
        }
        Err(Malformed)
    }

    #[inline]
    fn take(&mut self, len: u64) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(len).map_err(|_| Malformed)?;
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N as u64)?.try_into().map_err(|_| Malformed)
    }

    /// The next field's number and content; nothing at the end.
    ///
    /// # Errors
    /// What comes next is not a whole field.
    #[inline]
    pub fn field(&mut self) -> Result<Option<(u64, Field<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(Malformed),
        };
        Ok(Some((key >> 3, field)))
    }
}

/// Appends a number.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a field with a number.
pub fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3);
    put_varint(out, number);
}

/// Appends a field with a floating-point number.
pub fn put_double(out: &mut Vec<u8>, field: u64, value: f64) {
    put_varint(out, field << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Appends a field with bytes, a text or a message.
pub fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_and_torn_ones_are_malformed() {
        let mut out = Vec::new();
        put_number(&mut out, 1, u64::MAX);
        put_double(&mut out, 2, -0.5);
        put_bytes(&mut out, 300, b"abc");
        out.extend([4 << 3 | 5, 1, 0, 0, 0]);
        let mut reader = Reader(&out);
        let fields: Vec<_> = std::iter::from_fn(|| reader.field().unwrap()).collect();
        let double = Field::Fixed64((-0.5f64).to_bits());
        assert_eq!(fields, [(1, Field::Number(u64::MAX)), (2, double), (300, Field::Bytes(b"abc")), (4, Field::Fixed32(1))]);
        for torn in [&out[..5], &out[..14], &[0x0b, 0x0c], &[0x80; 11], &[2 << 3 | 2, 5, 1], &[2 << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 1]]
        {
            let mut reader = Reader(torn);
            let last = loop {
                match reader.field() {
                    Ok(Some(_)) => {}
                    other => break other,
                }
            };
            assert_eq!(last, Err(Malformed), "{torn:?}");
        }
    }
}
