//! Segment files and the heads of their records.

use super::{Marks, Recent};
use shipwatch_common::{model::Sample, time::UnixMs};
use shipwatch_series::remote::queued::{Queued, decode_marks, encode_marks};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

const MAGIC: &[u8; 8] = b"SHIPFWD1";
const HEAD_BYTES: usize = 16;
const RECORD_MAGIC: &[u8; 2] = b"FR";
/// A longer length is damage.
const MAX_RECORD_BYTES: usize = 64 << 20;

/// What is told of a segment without reading its records.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Of these, the head; 0 if it cannot be read.
    pub(super) head_bytes: u64,
    /// Samples that wait, and from where on they lie.
    pub(super) left: u64,
    pub(super) left_from: u64,
}

impl Segment {
    /// Makes a segment file, durable with its name.
    pub(super) fn begin(dir: &Path, number: u64, marks: &[(String, u64)]) -> io::Result<(Self, File)> {
        let path = dir.join(format!("{number:010}.seg"));
        let temporary = path.with_extension("tmp");
        let marks = encode_marks(marks);
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&u32::try_from(marks.len()).unwrap_or(u32::MAX).to_be_bytes());
        head.extend_from_slice(&crc32(&[&marks]).to_be_bytes());
        head.extend_from_slice(&marks);
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all_at(&head, 0)?;
        file.sync_data()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()?;
        let bytes = head.len() as u64;
        Ok((Self { number, path, bytes, head_bytes: bytes, left: 0, left_from: bytes }, file))
    }

    /// Looks over a segment that is there: how many samples lie behind `from`. Of the last one records are checked, and what is
    /// torn at its end is not counted.
    pub(super) fn survey(number: u64, path: PathBuf, from: u64, check: bool) -> io::Result<Self> {
        let file = File::open(&path)?;
        let len = file.metadata()?.len();
        let mut segment = Self { number, path, bytes: 0, head_bytes: 0, left: 0, left_from: 0 };
        let Some(head) = head_end(&file)? else { return Ok(segment) };
        (segment.bytes, segment.head_bytes, segment.left_from) = (head, head, head);
        while let Some(record) = RecordHead::read(&file, segment.bytes)? {
            let end = segment.bytes + record.total();
            if end > len || (check && record.payload(&file, segment.bytes)?.is_none()) {
                break;
            }
            if segment.bytes >= from {
                segment.left += u64::from(record.samples);
            }
            segment.bytes = end;
        }
        Ok(segment)
    }

    /// Marks of a segment's head and of its records; their samples are what came lately.
    pub(super) fn read_marks(&self, recent: &mut Recent) -> io::Result<Marks> {
        let file = File::open(&self.path)?;
        let Some(end) = head_end(&file)? else { return Ok(Marks::default()) };
        let head = read_at(&file, HEAD_BYTES as u64, end as usize - HEAD_BYTES)?;
        let mut marks = Marks::of(decode_marks(&head).unwrap_or_default());
        let (mut at, mut series) = (end, Vec::new());
        while at < self.bytes
            && let Some(record) = RecordHead::read(&file, at)?
        {
            let Some(Ok(mut queued)) = record.payload(&file, at)?.map(|payload| Queued::decode(&payload)) else { break };
            series.append(&mut queued.series);
            for (number, ts_ms, value) in queued.samples {
                if let Some(labels) = series.get(number as usize) {
                    recent.is_new(&Sample { labels: Arc::clone(labels), ts_ms, value });
                }
            }
            queued.marks.iter().for_each(|(source, seq)| marks.set(source, *seq));
            at += record.total();
        }
        Ok(marks)
    }

    /// Bytes that wait.
    pub(super) const fn left_bytes(&self) -> u64 {
        if self.left == 0 { 0 } else { self.bytes.saturating_sub(self.left_from) }
    }

    /// Deletes the file; one that is not there any more is as good.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// What is in front of a record's payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::forward) struct RecordHead {
    pub(in crate::forward) samples: u32,
    pub(in crate::forward) queued_at_ms: UnixMs,
    len: u32,
    crc: u32,
}

impl RecordHead {
    const BYTES: usize = 22;

    fn encode(samples: u32, queued_at_ms: UnixMs, payload: &[u8]) -> Vec<u8> {
        let mut head = RECORD_MAGIC.to_vec();
        head.extend_from_slice(&samples.to_be_bytes());
        head.extend_from_slice(&queued_at_ms.to_be_bytes());
        head.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
        let crc = crc32(&[&head, payload]);
        head.extend_from_slice(&crc.to_be_bytes());
        head
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| bytes.get(at..)?.first_chunk::<4>().map(|four| u32::from_be_bytes(*four));
        let queued_at_ms = i64::from_be_bytes(*bytes.get(6..)?.first_chunk::<8>()?);
        let head = Self { samples: number(2)?, queued_at_ms, len: number(14)?, crc: number(18)? };
        (bytes.starts_with(RECORD_MAGIC) && head.len as usize <= MAX_RECORD_BYTES).then_some(head)
    }

    /// The head at a place of a file; nothing where no record begins.
    pub(in crate::forward) fn read(file: &File, at: u64) -> io::Result<Option<Self>> {
        Ok(Self::parse(&read_at(file, at, Self::BYTES)?))
    }

    /// The payload behind this head, if it is whole.
    pub(in crate::forward) fn payload(&self, file: &File, at: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = read_at(file, at, Self::BYTES + self.len as usize)?;
        if bytes.len() < Self::BYTES + self.len as usize {
            return Ok(None);
        }
        let payload = bytes.split_off(Self::BYTES);
        Ok((crc32(&[&bytes[..Self::BYTES - 4], &payload]) == self.crc).then_some(payload))
    }

    /// Bytes with the payload.
    pub(in crate::forward) const fn total(&self) -> u64 {
        Self::BYTES as u64 + self.len as u64
    }
}

/// A whole record.
pub(super) fn encode_record(samples: u32, queued_at_ms: UnixMs, payload: &[u8]) -> Vec<u8> {
    let mut record = RecordHead::encode(samples, queued_at_ms, payload);
    record.extend_from_slice(payload);
    record
}

/// Where the records of a segment begin; nothing if its head is damaged.
pub(in crate::forward) fn head_end(file: &File) -> io::Result<Option<u64>> {
    let head = read_at(file, 0, HEAD_BYTES)?;
    let number = |at: usize| head.get(at..)?.first_chunk::<4>().map(|four| u32::from_be_bytes(*four));
    let (true, Some(len), Some(crc)) = (head.starts_with(MAGIC), number(8), number(12)) else { return Ok(None) };
    if len as usize > MAX_RECORD_BYTES {
        return Ok(None);
    }
    let marks = read_at(file, HEAD_BYTES as u64, len as usize)?;
    Ok((marks.len() == len as usize && crc32(&[&marks]) == crc).then_some(HEAD_BYTES as u64 + u64::from(len)))
}

/// Up to `len` bytes; fewer at the end of the file.
pub(in crate::forward) fn read_at(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut read = 0;
    while read < len {
        match file.read_at(&mut bytes[read..], at + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

fn crc32(parts: &[&[u8]]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.finalize()
}

/// Segments of a directory, by number.
pub(super) fn list(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let is_segment = path.extension().is_some_and(|extension| extension == "seg");
        if let (true, Some(number)) = (is_segment, path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok())) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}
