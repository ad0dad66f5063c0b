//! Whether another file is a copy of a followed one. Reads as much as was read of it: for rotations, not for every look.

use super::{Content, Followed, HEAD_BYTES, MARKER_BYTES, content, marker_len};
use std::{io, os::unix::fs::MetadataExt as _, path::Path};

/// Bytes compared at a time where no buffer is at hand.
const PIECE_BYTES: usize = 64 << 10;

impl Followed {
    /// Whether a file holds what was read of this one.
    pub(in crate::tail) fn is_in(&self, path: &Path) -> bool {
        let opened = Content::open(path, self.position.packed);
        opened.and_then(|(mut content, _)| content.continues(&self.position, &mut vec![0; PIECE_BYTES])).unwrap_or(false)
    }

    /// Whether another file holds this life's content up to its position, surely enough to go on in it without a rotation's
    /// name: a whole head and all of the bytes are the same.
    pub(in crate::tail) fn surely_continues_in(&self, path: &Path, buffer: &mut [u8]) -> bool {
        self.position.offset >= HEAD_BYTES as u64
            && self.position.crc.is_some()
            && Content::open(path, false).and_then(|(mut content, _)| content.continues(&self.position, buffer)).unwrap_or(false)
    }

    /// Whether another file is a copy of this one, or of its beginning: whole, or in the making.
    pub(in crate::tail) fn is_copied_in(&self, path: &Path, buffer: &mut [u8]) -> bool {
        self.compare(path, buffer).unwrap_or(false)
    }

    fn compare(&self, path: &Path, buffer: &mut [u8]) -> io::Result<bool> {
        let is_packed = content::is_packed(path.as_os_str().as_encoded_bytes());
        if self.position.offset == 0 {
            // Nothing was read of it, so it is known by what it still holds: unlinked, it was put into the other before.
            let own = self.own()?;
            let is_unlinked = own.metadata()?.nlink() == 0;
            return Ok(is_unlinked && is_same_beginning(own, Content::open(path, is_packed)?.0)?);
        }
        if Content::open(path, is_packed)?.0.continues(&self.position, buffer)? {
            // A file that has been renamed was not copied as well, unless it has been cut since.
            let is_whole = self.moved && self.own().and_then(|mut own| own.continues(&self.position, buffer)).unwrap_or(false);
            return Ok(!is_whole);
        }
        // A copy in the making.
        Ok(!self.moved && is_same_beginning(self.own()?, Content::open(path, is_packed)?.0)?)
    }

    /// Its content, beside the one that is being read.
    fn own(&self) -> io::Result<Content> {
        if let Some(Content::Plain(file)) = &self.open {
            return file.try_clone().map(Content::Plain);
        }
        let (content, meta) = Content::open(&self.position.path, self.position.packed)?;
        if (meta.dev(), meta.ino()) == self.inode() { Ok(content) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// Whether the shorter of two contents is the beginning of the longer, as far as its head and its end tell.
fn is_same_beginning(mut own: Content, mut other: Content) -> io::Result<bool> {
    let (mine, theirs) = (own.head()?, other.head()?);
    let length = mine.len().min(theirs.len());
    if length == 0 || mine[..length] != theirs[..length] {
        return Ok(false);
    }
    if !matches!((&own, &other), (Content::Plain(_), Content::Plain(_))) {
        return Ok(true);
    }
    let end = other.metadata()?.len().min(own.metadata()?.len());
    let length = marker_len(end);
    let (mut a, mut b) = ([0; MARKER_BYTES], [0; MARKER_BYTES]);
    let read = own.read_at(&mut a[..length], end - length as u64)?.min(other.read_at(&mut b[..length], end - length as u64)?);
    Ok(a[..read] == b[..read])
}
