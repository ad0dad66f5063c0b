//! The tailer against a model: random writes, rotations, truncations, deletions, restarts and crashes on real files.
//!
//! The model knows of every line whether a reader could have had it. A line is *owed*, and must come exactly once, when at a look
//! that the sink does not refuse it stands in a file that a glob finds, or in one that was followed before (its position is durable)
//! and was renamed, copied or compressed since. Every other line is *at risk*: its file was cut or deleted between two looks, or was
//! rotated away before it was ever seen. It may come at most once. Of lines at risk that stood in a followed file at a refused look
//! and did not come, every byte is in `lost_bytes_total`.
//!
//! `TAIL_MODEL_CASES` sets the number of sequences.

use super::*;
use proptest::prelude::*;
use std::{
    collections::BTreeSet,
    os::unix::fs::FileExt as _,
    time::{Duration, SystemTime},
};

#[derive(Clone, Debug)]
enum Act {
    /// Lines to the current file; the last may be left open.
    Write {
        lines: u8,
        open: bool,
    },
    /// `a.log` becomes `a.log.N` and is made anew by the next write. `late`: a line is written to the old one afterwards.
    Rename {
        late: bool,
    },
    /// `a.log` is copied to `a.log.N` and cut.
    CopyTruncate {
        matched: bool,
    },
    /// `a.log` is cut; nothing is kept.
    Truncate,
    /// As `Truncate`, by somebody else: the writer keeps its offset and leaves a hole.
    TruncateUnderWriter,
    Delete,
    /// Deleted and made anew at once, most likely with the same inode.
    Recreate,
    /// `a.log` is compressed to `a.log.N.gz` and made anew.
    Gzip,
    /// An older rotation is compressed in place.
    GzipOlder,
    Look,
    /// The sink refuses until the next ordinary look.
    BlockedLook,
    Restart,
    /// Power is lost: the last records of the sink are gone, lines and positions together.
    Crash {
        records: u8,
    },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (1..5u8, prop::bool::weighted(0.2)).prop_map(|(lines, open)| Act::Write { lines, open }),
        2 => any::<bool>().prop_map(|late| Act::Rename { late }),
        2 => any::<bool>().prop_map(|matched| Act::CopyTruncate { matched }),
        1 => Just(Act::Truncate),
        1 => Just(Act::TruncateUnderWriter),
        1 => Just(Act::Delete),
        1 => Just(Act::Recreate),
        1 => Just(Act::Gzip),
        1 => Just(Act::GzipOlder),
        6 => Just(Act::Look),
        1 => Just(Act::BlockedLook),
        2 => Just(Act::Restart),
        1 => (1..6u8).prop_map(|records| Act::Crash { records }),
    ]
}

/// What one record did to the sink.
#[derive(Clone)]
enum Record {
    Lines(Position, Vec<String>),
    Forgotten(FileId),
    Started,
}

/// A sink that can lose its last records.
#[derive(Default)]
struct Journal {
    records: Vec<Record>,
    full: bool,
}

impl Sink for Journal {
    fn append(&mut self, batch: Option<LogBatch>, position: Position) -> Result<(), SinkError> {
        if self.full {
            return Err(SinkError::Full);
        }
        let lines = batch.into_iter().flat_map(|batch| batch.lines).map(|line| line.text).collect();
        self.records.push(Record::Lines(position, lines));
        Ok(())
    }

    fn append_stream(&mut self, _: Option<LogBatch>, _: StreamPosition) -> Result<(), SinkError> {
        Err(SinkError::Full)
    }

    fn forget(&mut self, file: FileId) -> Result<(), SinkError> {
        if self.full {
            return Err(SinkError::Full);
        }
        self.records.push(Record::Forgotten(file));
        Ok(())
    }

    fn started(&mut self) -> Result<(), SinkError> {
        self.records.push(Record::Started);
        Ok(())
    }
}

impl Journal {
    fn restored(&self) -> Restored {
        let mut files = BTreeMap::new();
        let mut started = false;
        for record in &self.records {
            match record {
                Record::Lines(position, _) => drop(files.insert(position.file, position.clone())),
                Record::Forgotten(file) => drop(files.remove(file)),
                Record::Started => started = true,
            }
        }
        Restored { positions: files.into_values().collect(), streams: Vec::new(), started }
    }

    fn lines(&self) -> Vec<&str> {
        let lines = self.records.iter().filter_map(|record| match record {
            Record::Lines(_, lines) => Some(lines),
            Record::Forgotten(_) | Record::Started => None,
        });
        lines.flatten().map(String::as_str).collect()
    }
}

/// One file of the model's world, whatever its name is now.
#[derive(Clone, Debug, Default)]
struct File {
    /// The tailer's name for it, once it is durable.
    id: Option<FileId>,
    /// Whole lines in it, in order.
    lines: Vec<String>,
    /// A line without its end yet.
    partial: String,
}

struct World {
    dir: tempfile::TempDir,
    config: Config,
    matched: bool,
    masker: Arc<Masker>,
    journal: Journal,
    tailer: Tailer,
    now: UnixNs,
    /// The file that has the name now.
    current: Option<File>,
    writer: Option<fs::File>,
    /// Where the stale writer writes; none for appending.
    writer_at: Option<u64>,
    /// Every name that holds rotated lines.
    rotated: Vec<(PathBuf, File)>,
    /// Must come exactly once.
    owed: BTreeSet<String>,
    /// May come once.
    at_risk: BTreeSet<String>,
    /// At risk, but their size was seen.
    counted: BTreeSet<String>,
    next_line: u32,
    next_rotation: u32,
    lost_bytes: u64,
}

const STEP: i64 = 10 * SECOND;

impl World {
    fn new(matched: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut files = vec![format!("{}/*.log", dir.path().display())];
        if matched {
            files.push(format!("{}/*.log.*", dir.path().display()));
        }
        let config = Config { files, start_at: "beginning".into(), max_open_files: 2, ..Config::default() };
        let masker = Arc::new(Masker::new(&shipwatch_common::mask::Config::default()).unwrap());
        let tailer = Tailer::new(config.clone(), &masker, Restored::default()).unwrap();
        Self {
            dir,
            config,
            matched,
            masker,
            journal: Journal::default(),
            tailer,
            now: 1_700_000_000 * SECOND,
            current: None,
            writer: None,
            writer_at: None,
            rotated: Vec::new(),
            owed: BTreeSet::new(),
            at_risk: BTreeSet::new(),
            counted: BTreeSet::new(),
            next_line: 0,
            next_rotation: 0,
            lost_bytes: 0,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("a.log")
    }

    fn rotation(&mut self) -> PathBuf {
        self.next_rotation += 1;
        self.dir.path().join(format!("a.log.{}", self.next_rotation))
    }

    /// Time goes by, and the file shows it.
    fn touch(&mut self, path: &Path) {
        self.now += SECOND;
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(self.now).unwrap());
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    fn write_bytes(&mut self, text: &str) {
        let path = self.path();
        if self.current.is_none() {
            self.writer = Some(fs::File::options().create_new(true).append(true).open(&path).unwrap());
            self.writer_at = None;
            self.current = Some(File::default());
        }
        match &mut self.writer_at {
            Some(at) => {
                let file = fs::File::options().write(true).open(&path).unwrap();
                file.write_all_at(text.as_bytes(), *at).unwrap();
                *at += text.len() as u64;
            }
            None => self.writer.as_mut().unwrap().write_all(text.as_bytes()).unwrap(),
        }
        self.touch(&path);
    }

    fn write(&mut self, count: u8, open: bool) {
        for at in 0..count {
            let line = format!("line {:06} {}", self.next_line, "x".repeat((self.next_line as usize * 37) % 90));
            self.next_line += 1;
            let is_open = open && at + 1 == count;
            self.write_bytes(&if is_open { line.clone() } else { format!("{line}\n") });
            let file = self.current.as_mut().unwrap();
            let whole = std::mem::take(&mut file.partial) + &line;
            if is_open { file.partial = whole } else { file.lines.push(whole) }
        }
    }

    /// Lines of a file that is not there any more, and that no look could read: they may have been delivered.
    fn risk(&mut self, file: File) {
        for line in file.lines.into_iter().chain([file.partial]) {
            if !line.is_empty() && !self.owed.contains(&line) {
                self.at_risk.insert(line);
            }
        }
    }

    /// Which lives are durable, with how far they were read.
    fn durable(&self) -> BTreeMap<FileId, Position> {
        self.journal.restored().positions.into_iter().map(|position| (position.file, position)).collect()
    }

    /// After a look that was not refused. `before`: what was durable when it began.
    fn owe(&mut self, before: &BTreeMap<FileId, Position>) {
        let positions = self.journal.restored().positions;
        let id_at = |path: &Path| {
            let meta = fs::metadata(path).unwrap();
            positions.iter().find(|position| (position.dev, position.ino) == (meta.dev(), meta.ino())).map(|position| position.file)
        };
        let path = self.path();
        if let Some(file) = &mut self.current {
            file.id = id_at(&path);
            assert!(file.id.is_some(), "the current file is not remembered");
            self.owed.extend(file.lines.iter().cloned());
        }
        for (path, file) in &mut self.rotated {
            let is_found = self.matched && path.extension().is_some_and(|end| end != "gz" && !end.to_string_lossy().contains('-'));
            if is_found || file.id.is_some_and(|id| before.contains_key(&id)) {
                self.owed.extend(file.lines.iter().cloned());
                file.id = id_at(path).or(file.id);
            }
            self.at_risk.extend(file.lines.iter().cloned());
            self.at_risk.insert(file.partial.clone());
        }
    }

    /// A rotated file is only known by its inode, or by what was read of its original.
    fn forget_unknown(&mut self) {
        let durable = self.durable();
        for (path, file) in &mut self.rotated {
            let (ino, packed) = (fs::metadata(&*path).unwrap().ino(), path.extension().is_some_and(|end| end == "gz"));
            let knows = |position: &Position| position.offset > 0 || (position.ino, position.packed) == (ino, packed);
            file.id = file.id.filter(|id| durable.get(id).is_some_and(knows));
        }
    }

    fn apply(&mut self, act: &Act) {
        let exists = self.current.is_some();
        let path = self.path();
        match act {
            Act::Write { lines, open } => self.write(*lines, *open),
            Act::Rename { late } if exists => {
                let to = self.rotation();
                fs::rename(&path, &to).unwrap();
                let mut file = self.current.take().unwrap();
                if *late && file.partial.is_empty() && self.writer_at.is_none() {
                    let line = format!("late {:06}", self.next_line);
                    self.next_line += 1;
                    self.writer.as_mut().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
                    self.touch(&to);
                    file.lines.push(line);
                }
                self.rotated.push((to, file));
            }
            Act::CopyTruncate { matched } if exists => {
                let to = if *matched { self.rotation() } else { self.dir.path().join(format!("a.log-2026{:04}", self.next_rotation)) };
                self.next_rotation += 1;
                fs::copy(&path, &to).unwrap();
                self.touch(&to);
                let file = self.current.replace(File::default()).unwrap();
                self.cut(None);
                self.rotated.push((to, file));
                self.forget_unknown();
            }
            Act::Truncate | Act::TruncateUnderWriter if exists => {
                let keeps = matches!(act, Act::TruncateUnderWriter);
                let at = keeps.then(|| fs::metadata(&path).unwrap().len());
                let file = self.current.replace(File::default()).unwrap();
                self.cut(at);
                self.risk(file);
            }
            Act::Delete | Act::Recreate if exists => {
                fs::remove_file(&path).unwrap();
                self.writer = None;
                let file = self.current.take().unwrap();
                self.risk(file);
                if matches!(act, Act::Recreate) {
                    self.write(1, false);
                }
            }
            Act::Gzip if exists => {
                let to = self.rotation();
                let file = self.current.take().unwrap();
                self.writer = None;
                self.compress(&path, &to.with_extension(format!("{}.gz", self.next_rotation)), file);
            }
            Act::GzipOlder => {
                let plain = self.rotated.iter().position(|(path, _)| path.extension().is_some_and(|end| end != "gz"));
                if let Some(at) = plain {
                    let (from, file) = self.rotated.remove(at);
                    let to = PathBuf::from(format!("{}.gz", from.display()));
                    self.compress(&from, &to, file);
                }
            }
            Act::Look => self.look(),
            Act::BlockedLook => self.refused_look(),
            Act::Restart => self.restart(),
            Act::Crash { records } => {
                let kept = self.journal.records.len().saturating_sub(usize::from(*records));
                let gone = self.journal.records.split_off(kept);
                self.crash(gone);
            }
            _ => {}
        }
    }

    /// Cuts the current file. `writer_at`: the writer goes on there.
    fn cut(&mut self, writer_at: Option<u64>) {
        let path = self.path();
        fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        // A writer that was stale already stays so.
        self.writer_at = writer_at.or(self.writer_at.map(|_| 0));
        self.touch(&path);
    }

    fn compress(&mut self, from: &Path, to: &Path, file: File) {
        let modified = fs::metadata(from).unwrap().modified().unwrap();
        let mut encoder = flate2::write::GzEncoder::new(fs::File::create_new(to).unwrap(), flate2::Compression::fast());
        encoder.write_all(&fs::read(from).unwrap()).unwrap();
        encoder.finish().unwrap().set_modified(modified).unwrap();
        fs::remove_file(from).unwrap();
        self.rotated.push((to.to_owned(), file));
        self.forget_unknown();
    }

    fn look(&mut self) {
        let before = self.durable();
        self.now += STEP;
        for round in 0.. {
            assert!(round < 100, "the tailer does not come to rest");
            if self.tailer.poll(self.now, &mut self.journal) != Progress::Read {
                break;
            }
        }
        self.owe(&before);
    }

    fn refused_look(&mut self) {
        self.journal.full = true;
        self.now += STEP;
        self.tailer.poll(self.now, &mut self.journal);
        self.journal.full = false;
        let durable = self.durable();
        if let Some(file) = self.current.as_ref().filter(|file| file.id.is_some_and(|id| durable.contains_key(&id))) {
            self.counted.extend(file.lines.iter().filter(|line| !self.owed.contains(*line)).cloned());
        }
    }

    fn restart(&mut self) {
        self.lost_bytes += self.tailer.counters.lost_bytes_total.load(Ordering::Relaxed);
        self.tailer = Tailer::new(self.config.clone(), &self.masker, self.journal.restored()).unwrap();
        // What was seen is not durable without anything read.
        self.counted.clear();
        self.forget_unknown();
    }

    /// Lines of records that are gone are owed only if a later look finds them again.
    fn crash(&mut self, gone: Vec<Record>) {
        for record in gone {
            let Record::Lines(_, lines) = record else { continue };
            for line in lines {
                self.owed.remove(&line);
                self.at_risk.insert(line);
            }
        }
        self.restart();
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        self.look();
        self.look();
        let got = self.journal.lines();
        let unique: BTreeSet<&str> = got.iter().copied().collect();
        let doubled: Vec<&str> = unique.iter().copied().filter(|line| got.iter().filter(|other| *other == line).count() > 1).collect();
        prop_assert!(doubled.is_empty(), "doubled {doubled:?}");
        let missing: Vec<&String> = self.owed.iter().filter(|line| !unique.contains(line.as_str())).collect();
        prop_assert!(missing.is_empty(), "lost {missing:?} of {} owed lines", self.owed.len());
        let known = |line: &str| self.owed.contains(line) || self.at_risk.contains(line);
        let invented: Vec<&&str> = unique.iter().filter(|line| !known(line)).collect();
        prop_assert!(invented.is_empty(), "invented {invented:?}");
        let uncounted: usize = self.counted.iter().filter(|line| !unique.contains(line.as_str())).map(|line| line.len() + 1).sum();
        let lost = self.lost_bytes + self.tailer.counters.lost_bytes_total.load(Ordering::Relaxed);
        prop_assert!(uncounted as u64 <= lost, "{uncounted} bytes were seen and lost, {lost} are counted");
        let mut ends: BTreeMap<FileId, u64> = BTreeMap::new();
        for record in &self.journal.records {
            if let Record::Lines(position, _) = record {
                let before = ends.insert(position.file, position.offset).unwrap_or(0);
                prop_assert!(before <= position.offset, "a position went back");
            }
        }
        Ok(())
    }
}

fn cases() -> u32 {
    std::env::vars().find(|(name, _)| name == "TAIL_MODEL_CASES").and_then(|(_, value)| value.parse().ok()).unwrap_or(1500)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn every_line_once_or_counted(matched in any::<bool>(), acts in prop::collection::vec(act(), 1..30)) {
        let mut world = World::new(matched);
        for act in &acts {
            world.apply(act);
        }
        world.check()?;
    }
}
