//! The envelope of everything binary in the databases: version, method, size, checksum, content.
//!
//! # Invariants
//! - What does not match its checksum is refused; no more memory is taken than [`MAX_RAW`].
//! - Version 1: `01`, method (0 as it is, 1 zstd), size of the content (u32 LE), CRC-32 (u32 LE) of the six bytes before
//!   and of what follows, then the content.

/// Largest content. A block is cut far below: at most 8 MiB of text and one line of 4 MiB.
pub(crate) const MAX_RAW: usize = 64 << 20;
const VERSION: u8 = 1;
const STORED: u8 = 0;
const ZSTD: u8 = 1;
const HEADER: usize = 10;
/// Below this size compression gains nothing.
const SMALL: usize = 48;

/// Why a frame was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Bad(pub(crate) &'static str);

/// Compresses where that helps. `level` 0 never compresses.
pub(crate) fn pack(raw: &[u8], level: i32) -> Result<Vec<u8>, Bad> {
    if raw.len() > MAX_RAW {
        return Err(Bad("content is larger than a frame may be"));
    }
    let compressed = if level == 0 || raw.len() < SMALL { None } else { zstd::bulk::compress(raw, level).ok() };
    let (method, data) = match &compressed {
        Some(small) if small.len() < raw.len() => (ZSTD, small.as_slice()),
        _ => (STORED, raw),
    };
    let mut frame = Vec::with_capacity(HEADER + data.len());
    frame.extend([VERSION, method]);
    frame.extend((raw.len() as u32).to_le_bytes());
    frame.extend(checksum(&frame, data).to_le_bytes());
    frame.extend_from_slice(data);
    Ok(frame)
}

/// The content of a frame.
pub(crate) fn unpack(frame: &[u8]) -> Result<Vec<u8>, Bad> {
    let (head, rest) = frame.split_at_checked(6).ok_or(Bad("frame is too short"))?;
    let (crc, data) = rest.split_first_chunk::<4>().ok_or(Bad("frame is too short"))?;
    let &[version, method, a, b, c, d] = head else { return Err(Bad("frame is too short")) };
    if version != VERSION {
        return Err(Bad("frame has an unknown version"));
    }
    let size = u32::from_le_bytes([a, b, c, d]) as usize;
    if size > MAX_RAW {
        return Err(Bad("frame is larger than allowed"));
    }
    if checksum(head, data) != u32::from_le_bytes(*crc) {
        return Err(Bad("checksum does not match"));
    }
    let raw = match method {
        STORED => data.to_vec(),
        ZSTD => zstd::bulk::decompress(data, size).map_err(|_| Bad("content does not decompress"))?,
        _ => return Err(Bad("frame has an unknown method")),
    };
    if raw.len() == size { Ok(raw) } else { Err(Bad("content has another size than the frame says")) }
}

fn checksum(head: &[u8], data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(data);
    hasher.finalize()
}

/// Writes a number in 1 to 10 bytes, small ones in few (LEB128).
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a difference, small ones of either sign in few bytes.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Reads what [`put`] and [`put_signed`] wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn get(&mut self) -> Result<u64, Bad> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Bad("a number is cut off"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if shift == 63 && byte > 1 { Err(Bad("a number is too large")) } else { Ok(value) };
            }
        }
        Err(Bad("a number is too long"))
    }

    pub(crate) fn get_signed(&mut self) -> Result<i64, Bad> {
        let value = self.get()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Bad> {
        let (found, rest) = self.0.split_at_checked(count).ok_or(Bad("content is cut off"))?;
        self.0 = rest;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_back(raw in prop::collection::vec(any::<u8>(), 0..2000), level in 0i32..4) {
            prop_assert_eq!(unpack(&pack(&raw, level).unwrap()).unwrap(), raw);
        }

        #[test]
        fn a_changed_byte_is_noticed(raw in prop::collection::vec(0u8..4, 1..400), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut frame = pack(&raw, 3).unwrap();
            let at = at.index(frame.len());
            frame[at] ^= 1 << bit;
            prop_assert!(unpack(&frame).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = unpack(&bytes);
            let mut reader = Reader(&bytes);
            while reader.get().is_ok() {}
        }

        #[test]
        fn numbers_come_back(value in any::<u64>(), signed in any::<i64>()) {
            let mut out = Vec::new();
            put(&mut out, value);
            put_signed(&mut out, signed);
            let mut reader = Reader(&out);
            prop_assert_eq!((reader.get(), reader.get_signed()), (Ok(value), Ok(signed)));
        }
    }

    #[test]
    fn a_size_beyond_the_bound_is_refused_before_memory_is_taken() {
        let mut frame = vec![VERSION, ZSTD];
        frame.extend(u32::MAX.to_le_bytes());
        let crc = checksum(&frame, b"");
        frame.extend(crc.to_le_bytes());
        assert_eq!(unpack(&frame), Err(Bad("frame is larger than allowed")));
    }
}
