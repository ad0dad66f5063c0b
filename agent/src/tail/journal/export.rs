//! The journal's export format: fields of entries, as lines or, where they hold line ends or are binary, with their length.
//!
//! Pure. What is kept of an entry is bounded, however long its fields are; see
//! <https://systemd.io/JOURNAL_EXPORT_FORMATS/#journal-export-format>.

use shipwatch_common::time::UnixNs;

/// Fields that are asked for, beside those that every entry has.
pub(super) const FIELDS: [&str; 7] = ["MESSAGE", "PRIORITY", "_SYSTEMD_UNIT", "UNIT", "_SYSTEMD_USER_UNIT", "SYSLOG_IDENTIFIER", "_COMM"];
/// Longest value of a field that is not the message.
const VALUE_BYTES: usize = 1024;

/// One entry.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) cursor: String,
    pub(super) message: Vec<u8>,
    /// The message was longer than what is kept.
    pub(super) cut: bool,
    pub(super) priority: Vec<u8>,
    realtime_us: Vec<u8>,
    system_unit: Vec<u8>,
    about_unit: Vec<u8>,
    user_unit: Vec<u8>,
    identifier: Vec<u8>,
    command: Vec<u8>,
}

impl Entry {
    /// The unit that wrote it, or of which the manager speaks.
    pub(super) fn unit(&self) -> Option<String> {
        // Only the manager is believed about others.
        let is_manager = self.system_unit == b"init.scope" && !self.about_unit.is_empty();
        text(if is_manager { &self.about_unit } else { &self.system_unit }).or_else(|| text(&self.user_unit))
    }

    /// What the writer calls itself.
    pub(super) fn identifier(&self) -> Option<String> {
        text(&self.identifier).or_else(|| text(&self.command))
    }

    pub(super) fn ts_ns(&self) -> Option<UnixNs> {
        std::str::from_utf8(&self.realtime_us).ok()?.parse::<i64>().ok()?.checked_mul(1000)
    }

    /// Where a field goes, and how much of it is kept.
    fn field(&mut self, name: &[u8]) -> Option<&mut Vec<u8>> {
        Some(match name {
            b"MESSAGE" => &mut self.message,
            b"PRIORITY" => &mut self.priority,
            b"__REALTIME_TIMESTAMP" => &mut self.realtime_us,
            b"_SYSTEMD_UNIT" => &mut self.system_unit,
            b"UNIT" => &mut self.about_unit,
            b"_SYSTEMD_USER_UNIT" => &mut self.user_unit,
            b"SYSLOG_IDENTIFIER" => &mut self.identifier,
            b"_COMM" => &mut self.command,
            _ => return None,
        })
    }
}

fn text(value: &[u8]) -> Option<String> {
    (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
}

/// In which part of a field the next byte is.
#[derive(Debug)]
enum State {
    /// A line: `NAME=value`, a name alone, or empty.
    Line,
    /// The eight bytes of a length.
    Length { name: Vec<u8> },
    /// The value, and the line end behind it.
    Data { name: Vec<u8>, left: u64 },
}

/// Takes bytes as they come, gives entries that are whole.
#[derive(Debug)]
pub(super) struct Reader {
    longest: usize,
    state: State,
    /// Of the field that is being read.
    kept: Vec<u8>,
    cut: bool,
    entry: Entry,
    any: bool,
}

impl Reader {
    /// Keeps `longest` bytes of a message.
    pub(super) fn new(longest: usize) -> Self {
        Self { longest, state: State::Line, kept: Vec::new(), cut: false, entry: Entry::default(), any: false }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            bytes = match &mut self.state {
                State::Line => self.line(bytes, &mut entries),
                State::Length { .. } => self.length(bytes),
                State::Data { .. } => self.data(bytes),
            };
        }
        entries
    }

    fn keep(&mut self, bytes: &[u8], most: usize) {
        let room = most.saturating_sub(self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..room]);
        self.cut |= room < bytes.len();
    }

    fn line<'a>(&mut self, bytes: &'a [u8], entries: &mut Vec<Entry>) -> &'a [u8] {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        self.keep(&bytes[..end.unwrap_or(bytes.len())], self.longest + VALUE_BYTES);
        let Some(end) = end else { return &[] };
        let line = std::mem::take(&mut self.kept);
        let cut = std::mem::take(&mut self.cut);
        if line.is_empty() {
            if std::mem::take(&mut self.any) {
                entries.push(std::mem::take(&mut self.entry));
            }
        } else if let Some(at) = line.iter().position(|byte| *byte == b'=') {
            self.set(&line[..at], &line[at + 1..], cut);
        } else {
            self.state = State::Length { name: line };
        }
        &bytes[end + 1..]
    }

    fn length<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (now, rest) = bytes.split_at(bytes.len().min(8 - self.kept.len()));
        self.kept.extend_from_slice(now);
        if let Ok(length) = <[u8; 8]>::try_from(&self.kept[..])
            && let State::Length { name } = &mut self.state
        {
            let name = std::mem::take(name);
            self.kept.clear();
            self.state = State::Data { name, left: u64::from_le_bytes(length).saturating_add(1) };
        }
        rest
    }

    fn data<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let State::Data { left, .. } = &mut self.state else { return bytes };
        let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        *left -= take as u64;
        let is_over = *left == 0;
        let (now, rest) = bytes.split_at(take);
        self.keep(now.strip_suffix(b"\n").filter(|_| is_over).unwrap_or(now), self.longest + VALUE_BYTES);
        if is_over && let State::Data { name, .. } = std::mem::replace(&mut self.state, State::Line) {
            let value = std::mem::take(&mut self.kept);
            let cut = std::mem::take(&mut self.cut);
            self.set(&name, &value, cut);
        }
        rest
    }

    fn set(&mut self, name: &[u8], value: &[u8], cut: bool) {
        self.any = true;
        let is_message = name == b"MESSAGE";
        let most = if is_message { self.longest } else { VALUE_BYTES };
        let kept = &value[..value.len().min(most)];
        if name == b"__CURSOR" {
            self.entry.cursor = String::from_utf8_lossy(kept).into_owned();
        } else if let Some(field) = self.entry.field(name) {
            *field = kept.to_vec();
            if is_message {
                self.entry.cut = cut || kept.len() < value.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export() -> Vec<u8> {
        let mut bytes =
            b"__CURSOR=s=a;i=1\n__REALTIME_TIMESTAMP=1800000000000001\n_SYSTEMD_UNIT=a.service\nMESSAGE=one = 1\nPRIORITY=3\n\n".to_vec();
        bytes.extend(b"__CURSOR=s=a;i=2\n_SYSTEMD_UNIT=init.scope\nUNIT=b.service\nSYSLOG_IDENTIFIER=systemd\nMESSAGE\n");
        bytes.extend(10u64.to_le_bytes());
        bytes.extend(b"two\n\x00\xff\nx=\n\n\n__CURSOR=s=a;i=3\n_SYSTEMD_UNIT=c.service\nUNIT=spoofed.service\n_COMM=c\n\n");
        bytes
    }

    #[test]
    fn entries_are_the_same_however_the_bytes_come() {
        let bytes = export();
        for step in [1, 2, 3, 7, 20, 1000] {
            let mut reader = Reader::new(100);
            let entries: Vec<Entry> = bytes.chunks(step).flat_map(|piece| reader.push(piece)).collect();
            let [one, two, three] = &entries[..] else { panic!("{entries:?}") };
            assert_eq!((one.cursor.as_str(), &one.message[..], &one.priority[..]), ("s=a;i=1", &b"one = 1"[..], &b"3"[..]));
            assert_eq!((one.ts_ns(), one.unit().as_deref()), (Some(1_800_000_000_000_001_000), Some("a.service")));
            assert_eq!((&two.message[..], two.unit().as_deref()), (&b"two\n\x00\xff\nx=\n"[..], Some("b.service")));
            assert_eq!((three.unit().as_deref(), three.identifier().as_deref()), (Some("c.service"), Some("c")));
            assert!(!one.cut && !two.cut);
        }
    }

    #[test]
    fn long_messages_and_fields_are_bounded() {
        let mut reader = Reader::new(10);
        let mut bytes = format!("MESSAGE={}\n_COMM={}\n\nMESSAGE\n", "m".repeat(100_000), "c".repeat(5000)).into_bytes();
        bytes.extend(50_000u64.to_le_bytes());
        bytes.extend([b'n'; 50_000]);
        bytes.extend(b"\nPRIORITY=4\n\n");
        let entries: Vec<Entry> = bytes.chunks(999).flat_map(|piece| reader.push(piece)).collect();
        assert_eq!((entries[0].message.len(), entries[0].cut, entries[0].command.len()), (10, true, VALUE_BYTES));
        assert_eq!((entries[1].message.len(), entries[1].cut, &entries[1].priority[..]), (10, true, &b"4"[..]));
        assert!(reader.kept.capacity() < 10 * VALUE_BYTES);
    }
}
