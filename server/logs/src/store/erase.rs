//! Takes lines out of the files for good: by a query, or by a pseudonym that stands in them.
//!
//! The job is written into the head first. Then what waits in the head is sealed, so that all lines are in blocks; each block with a
//! matching line is written anew without it, in one transaction; free pages are zeroed and given back, the journals are emptied, the head is
//! written anew. At the end everything that is stored in the range is decompressed and searched, and the bytes of all files are.
//!
//! # Invariants
//! - Other work goes on between two blocks. Lines that come after the job began are not touched.
//! - After a crash, or when the disk is full, the job is still in the head: [`Engine::resume_erasures`] does it again from the start,
//!   which finds only what is left.
//! - The job's text is in the head while it runs and nowhere after. What is returned for the audit log has counts only.
//! - The places of erased lines stay taken: a sender that repeats them is told that they came before.
//!
//! # Left out
//! Files that were moved aside as damaged cannot be written anew: those that exist are named in the proof, for the operator to delete. Blocks of
//! the disk that the file system gave up are not overwritten.

use super::{
    Engine, Shared,
    block::{Columns, Lines},
    day::Day,
    head::{signed, unsigned},
    retention::shrink,
    seal::{Out, Sealed, Shape, Stretch},
    snapshot::{Place, Snapshot},
    writer::Writer,
};
use crate::{
    error::{Error, Result},
    query::{
        Query,
        plan::Plan,
        search::{QueryStats, matching, select},
    },
};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;
use shipwatch_common::time::UnixNs;
use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Shortest pseudonym: shorter texts are in too many lines.
const PSEUDONYM_MIN: usize = 4;
/// Longest query or pseudonym.
const TEXT_MAX: usize = 64 << 10;
/// Bytes of a file that are searched at once.
const CHUNK: usize = 1 << 20;

/// Which lines are erased.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EraseBy {
    /// Lines that a query finds. It must have a condition.
    Query(String),
    /// Lines that have this text.
    Pseudonym(String),
}

/// What is to be erased.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Erase {
    /// Which lines.
    pub by: EraseBy,
    /// From this time on.
    pub start_ns: UnixNs,
    /// Until before this time.
    pub end_ns: UnixNs,
}

/// What is there to be erased, or was.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct EraseCounts {
    /// Lines.
    pub lines: u64,
    /// Blocks with such lines.
    pub blocks: u64,
    /// Batches in the head with such lines.
    pub head_rows: u64,
    /// Streams with such lines.
    pub streams: usize,
    /// Days with such lines, as `YYYY-MM-DD`.
    pub days: Vec<String>,
    /// Lines in blocks that cannot be read: what they say is not known.
    pub unreadable_lines: u64,
}

/// That nothing is left, or what is.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Proof {
    /// Blocks and batches that were decompressed and searched.
    pub blocks_searched: u64,
    /// Lines that still match.
    pub lines_found: u64,
    /// Files whose bytes were searched.
    pub files: usize,
    /// Their size.
    pub bytes_searched: u64,
    /// Files that have a searched text in their bytes.
    pub files_with_text: Vec<String>,
    /// Free pages that the files still have.
    pub free_pages: u64,
    /// Bytes in journals.
    pub journal_bytes: u64,
    /// Damaged files that were moved aside, may hold such lines, and are for the operator to delete.
    pub set_aside: Vec<String>,
}

impl Proof {
    /// Whether nothing is left in the files in use.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.lines_found == 0 && self.files_with_text.is_empty() && self.free_pages == 0
    }
}

/// What a job did. Has no text of what was erased.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Erased {
    /// The job's number.
    pub job: i64,
    /// From this time on.
    pub start_ns: UnixNs,
    /// Until before this time.
    pub end_ns: UnixNs,
    /// What was erased. After a crash, what was left to erase.
    pub counts: EraseCounts,
    /// What a search found afterwards.
    pub proof: Proof,
}

impl Erase {
    fn query(&self) -> Result<Query> {
        let text = match &self.by {
            EraseBy::Query(text) | EraseBy::Pseudonym(text) => text,
        };
        if text.len() > TEXT_MAX {
            return Err(Error::Invalid(format!("what to erase is longer than {TEXT_MAX} bytes")));
        }
        if self.start_ns >= self.end_ns {
            return Err(Error::Invalid("the range to erase ends before it begins".to_owned()));
        }
        match &self.by {
            EraseBy::Query(text) => {
                let query = Query::parse(text)?;
                if query.matchers().is_empty() && !query.has_conditions() {
                    return Err(Error::Invalid("the query to erase by selects every line; name streams or words".to_owned()));
                }
                Ok(query)
            }
            EraseBy::Pseudonym(text) if text.trim().len() < PSEUDONYM_MIN => {
                Err(Error::Invalid(format!("a pseudonym has at least {PSEUDONYM_MIN} bytes")))
            }
            EraseBy::Pseudonym(text) => Query::of_text(text).map_err(Error::Invalid),
        }
    }

    const fn kind(&self) -> (&'static str, &String) {
        match &self.by {
            EraseBy::Query(text) => ("query", text),
            EraseBy::Pseudonym(text) => ("pseudonym", text),
        }
    }
}

impl Engine {
    /// Counts what [`Engine::erase`] would take out.
    ///
    /// # Errors
    /// As [`Engine::search`]; a query without a condition.
    pub fn plan_erase(&self, erase: &Erase) -> Result<EraseCounts> {
        let plan = Plan::new(&erase.query()?, erase.start_ns, erase.end_ns);
        find(&self.shared, &plan).map(|found| found.counts)
    }

    /// Takes lines out of the files and proves it. Long: other calls go on meanwhile.
    ///
    /// # Errors
    /// The job is kept and done by [`Engine::resume_erasures`], but where the arguments are wrong.
    pub fn erase(&self, erase: &Erase) -> Result<Erased> {
        let query = erase.query()?;
        let (by, journal) = (erase.kind().0, erase.clone());
        let job = self.with_writer(move |writer| writer.note_erasure(by, &journal))?;
        self.run_erasure(job, erase, &query)
    }

    /// Jobs that were cut off and are not done.
    ///
    /// # Errors
    /// As [`Engine::search`].
    pub fn unfinished_erasures(&self) -> Result<usize> {
        self.with_writer(|writer| writer.erasures()).map(|jobs| jobs.len())
    }

    /// Does the jobs that a crash or a full disk cut off. To be called after the start and every few minutes.
    ///
    /// # Errors
    /// What failed is still to be done.
    pub fn resume_erasures(&self) -> Result<Vec<Erased>> {
        let jobs = self.with_writer(|writer| writer.erasures())?;
        jobs.into_iter().map(|(job, erase)| self.run_erasure(job, &erase, &erase.query()?)).collect()
    }

    fn run_erasure(&self, job: i64, erase: &Erase, query: &Query) -> Result<Erased> {
        let plan = Plan::new(query, erase.start_ns, erase.end_ns);
        self.with_writer(Writer::seal_all)?;
        let found = find(&self.shared, &plan)?;
        for (day, block) in found.blocks {
            let plan = plan.clone();
            self.with_writer(move |writer| writer.rewrite(day, block, &plan))?;
        }
        let days: BTreeSet<Day> =
            self.shared.days().iter().copied().filter(|day| (Day::of(plan.start_ns)..=Day::of(plan.last_ns)).contains(day)).collect();
        let tidied = days.clone();
        self.with_writer(move |writer| writer.tidy(&tidied))?;
        self.with_writer(move |writer| writer.end_erasure(job))?;
        let proof = prove(&self.shared, erase, &plan, &days)?;
        Ok(Erased { job, start_ns: erase.start_ns, end_ns: erase.end_ns, counts: found.counts, proof })
    }
}

/// Where matching lines are.
#[derive(Debug, Default)]
struct Found {
    counts: EraseCounts,
    blocks: Vec<(Day, i64)>,
    searched: u64,
}

fn find(shared: &Shared, plan: &Plan) -> Result<Found> {
    let mut found = Found::default();
    let mut streams = std::collections::HashSet::new();
    let mut snapshot = Snapshot::take(shared)?;
    for day in snapshot.days(plan.start_ns, plan.last_ns)? {
        let mut stats = QueryStats::default();
        let (open, candidates) = snapshot.day(day, plan, &mut stats)?;
        let mut of_day = 0;
        for candidate in &candidates {
            found.searched += 1;
            let Some((_, selected)) = matching(&open, candidate, plan, &mut stats, |_, _| true) else { continue };
            if selected.is_empty() {
                continue;
            }
            of_day += selected.len() as u64;
            streams.insert(candidate.labels.clone());
            match candidate.place {
                Place::Block(id) => found.blocks.push((day, id)),
                Place::Head(_) => found.counts.head_rows += 1,
            }
        }
        if of_day > 0 {
            found.counts.days.push(day.to_string());
        }
        found.counts.lines += of_day;
        found.counts.unreadable_lines += stats.lost_lines;
    }
    found.counts.blocks = found.blocks.len() as u64;
    found.counts.streams = streams.len();
    Ok(found)
}

/// Searches everything again: what is stored without the help of filters, and the bytes of the files.
fn prove(shared: &Shared, erase: &Erase, plan: &Plan, days: &BTreeSet<Day>) -> Result<Proof> {
    let mut plan = plan.clone();
    plan.tokens.clear();
    let found = find(shared, &plan)?;
    let mut proof = Proof { blocks_searched: found.searched, lines_found: found.counts.lines, ..Proof::default() };
    let texts = match &erase.by {
        EraseBy::Pseudonym(text) => vec![text.clone()],
        EraseBy::Query(_) => erase.query()?.texts(),
    };
    let mut files: BTreeSet<PathBuf> = days.iter().map(|day| day.path(&shared.dir)).collect();
    files.insert(shared.dir.join("head.db"));
    for path in files {
        proof.free_pages += free_pages(&path)?;
        for (suffix, journal) in [("", false), ("-wal", true)] {
            let path = PathBuf::from(format!("{}{suffix}", path.display()));
            let Some((bytes, has_text)) = search_bytes(&path, &texts)? else { continue };
            proof.files += 1;
            proof.bytes_searched += bytes;
            proof.journal_bytes += if journal { bytes } else { 0 };
            if has_text {
                proof.files_with_text.push(path.display().to_string());
            }
        }
    }
    for entry in fs::read_dir(&shared.dir).map_err(|error| Error::io(&shared.dir, &error))? {
        let path = entry.map_err(|error| Error::io(&shared.dir, &error))?.path();
        if path.to_string_lossy().contains(".corrupt-") {
            proof.set_aside.push(path.display().to_string());
        }
    }
    Ok(proof)
}

fn free_pages(path: &Path) -> Result<u64> {
    let conn = super::day::reader(path, "SELECT count(*) FROM sqlite_schema")?;
    conn.pragma_query_value(None, "freelist_count", |row| row.get(0)).map(unsigned).map_err(|error| Error::sql(path, &error))
}

/// Size of a file, and whether one of the texts is in its bytes. `None` where there is no such file.
fn search_bytes(path: &Path, texts: &[String]) -> Result<Option<(u64, bool)>> {
    let io = |error: std::io::Error| Error::io(path, &error);
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let patterns: Vec<regex::bytes::Regex> = texts.iter().filter_map(|text| regex::bytes::Regex::new(&regex::escape(text)).ok()).collect();
    let longest = texts.iter().map(String::len).max().unwrap_or(0);
    let (mut window, mut size, mut has_text) = (Vec::new(), 0, false);
    loop {
        let kept = window.len().min(longest);
        window.drain(..window.len() - kept);
        let read = file.by_ref().take(CHUNK as u64).read_to_end(&mut window).map_err(io)?;
        if read == 0 {
            return Ok(Some((size, has_text)));
        }
        size += read as u64;
        has_text |= patterns.iter().any(|pattern| pattern.is_match(&window));
    }
}

impl Writer {
    /// Writes the job into the head.
    fn note_erasure(&self, kind: &str, erase: &Erase) -> Result<i64> {
        self.head
            .conn
            .execute(
                "INSERT INTO erasures (kind, text, start_ns, end_ns) VALUES (?1, ?2, ?3, ?4)",
                params![kind, erase.kind().1, erase.start_ns, erase.end_ns],
            )
            .map_err(self.head.error())?;
        Ok(self.head.conn.last_insert_rowid())
    }

    fn erasures(&self) -> Result<Vec<(i64, Erase)>> {
        let sql = self.head.error();
        let mut statement = self.head.conn.prepare("SELECT id, kind, text, start_ns, end_ns FROM erasures ORDER BY id").map_err(&sql)?;
        let rows = statement.query_map([], |row| {
            let (kind, text): (String, String) = (row.get(1)?, row.get(2)?);
            let by = if kind == "query" { EraseBy::Query(text) } else { EraseBy::Pseudonym(text) };
            Ok((row.get(0)?, Erase { by, start_ns: row.get(3)?, end_ns: row.get(4)? }))
        });
        rows.and_then(Iterator::collect).map_err(sql)
    }

    /// Writes a block anew without the lines that match.
    fn rewrite(&mut self, day: Day, block: i64, plan: &Plan) -> Result<u64> {
        let path = day.path(&self.shared.dir);
        let sql = |error: rusqlite::Error| Error::sql(&path, &error);
        let shape = Shape { block_bytes: u64::MAX, zstd_level: self.shared.config.zstd_level };
        if !self.shared.days().contains(&day) {
            return Ok(0);
        }
        self.open_day(day)?;
        let Some(conn) = self.days.get_mut(&day) else { return Err(Error::Closed) };
        let transaction = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(sql)?;
        let removed = rewrite(&transaction, &path, block, plan, shape)?;
        transaction.commit().map_err(sql)?;
        self.head.add_named(&[("erased_lines", removed)])?;
        Ok(removed)
    }

    /// Gives free pages back and empties the journals; writes the head anew.
    fn tidy(&mut self, days: &BTreeSet<Day>) -> Result<()> {
        for day in days {
            if self.shared.days().contains(day) {
                let path = day.path(&self.shared.dir);
                let conn = self.day(*day)?;
                shrink(conn, &path)?;
                empty_journal(conn, &path)?;
            }
        }
        self.run_sql("VACUUM")?;
        empty_journal(&self.head.conn, &self.head.path)
    }

    /// Takes the job and its text out of the head.
    fn end_erasure(&self, job: i64) -> Result<()> {
        self.run_sql("PRAGMA secure_delete = ON")?;
        self.head.conn.execute("DELETE FROM erasures WHERE id = ?1", [job]).map_err(self.head.error())?;
        self.run_sql("PRAGMA secure_delete = OFF")?;
        empty_journal(&self.head.conn, &self.head.path)
    }
}

/// Fails while a reader keeps old pages alive: the job is not done then.
fn empty_journal(conn: &Connection, path: &Path) -> Result<()> {
    let busy: i64 = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(|error| Error::sql(path, &error))?;
    if busy == 0 {
        return Ok(());
    }
    Err(Error::Database { path: path.display().to_string(), message: "a query still reads what was erased; it is tried again".to_owned() })
}

fn rewrite(conn: &Connection, path: &Path, block: i64, plan: &Plan, shape: Shape) -> Result<u64> {
    let sql = |error: rusqlite::Error| Error::sql(path, &error);
    let found = conn
        .query_row(
            "SELECT stream, raw_bytes, length(counts) + length(cols) + length(body)
             + coalesce((SELECT length(bits) FROM blooms WHERE blooms.block = id), 0), cols, body
             FROM blocks JOIN bodies ON bodies.block = id WHERE id = ?1",
            [block],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, Vec<u8>>(3)?, row.get::<_, Vec<u8>>(4)?)),
        )
        .optional()
        .map_err(sql)?;
    let Some((stream, raw, stored, cols, body)): Option<(i64, i64, i64, _, _)> = found else { return Ok(0) };
    let bad = |error: super::frame::Bad| Error::Corrupt { path: path.display().to_string(), what: format!("block {block}: {error}") };
    let lines = Lines::decode(Columns::decode(&cols, None).map_err(bad)?, &body).map_err(bad)?;
    let mut erased = select(&lines.columns, plan);
    plan.keep_matching(&lines, &mut erased);
    if erased.is_empty() {
        return Ok(0);
    }
    let mut kept = Stretch::default();
    let mut next = erased.iter().copied().peekable();
    for at in 0..lines.columns.len() {
        if next.next_if_eq(&at).is_none() {
            kept.add_line(&lines, at);
        }
    }
    for table in ["bodies WHERE block", "blooms WHERE block", "blocks WHERE id"] {
        conn.execute(&format!("DELETE FROM {table} = ?1"), [block]).map_err(sql)?;
    }
    let mut out = Out { conn, path, stream, shape, done: Sealed::default(), raw: 0, stored: 0 };
    kept.cut(&mut out)?;
    conn.execute(
        "UPDATE streams SET blocks = blocks + ?2, lines = lines - ?3, raw_bytes = raw_bytes + ?4, stored_bytes = max(stored_bytes + ?5, 0)
         WHERE id = ?1",
        params![
            stream,
            signed(out.done.blocks as u64) - 1,
            signed(erased.len() as u64),
            signed(out.raw) - raw,
            signed(out.stored) - stored
        ],
    )
    .map_err(sql)?;
    Ok(erased.len() as u64)
}
