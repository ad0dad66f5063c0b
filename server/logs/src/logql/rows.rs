//! Log queries: the newest or oldest lines that a pipeline lets through.
//!
//! # Invariants
//! - Rows are a stretch of the total order of all lines, without a gap. `next` tells where it goes on when the size of the
//!   answer ended it before the limit did.

use super::{
    LabelSet,
    ast::Pipeline,
    extract, json,
    pipeline::Split,
    record::{FIELDS_MAX, Kind, Record},
};
use crate::{
    Cursor, Direction, EntryId, QueryStats, Search,
    error::{Error, Result},
    query::{
        plan::Plan,
        search::{Patience, Ranked, run_with},
    },
    store::Shared,
};
use shipwatch_common::{
    model::{Labels, Severity},
    time::UnixNs,
};

/// What is asked for beside the query.
#[derive(Clone, Copy, Debug)]
pub struct RowsRequest {
    /// From this time on.
    pub start_ns: UnixNs,
    /// Until before this time.
    pub end_ns: UnixNs,
    /// Most rows, 1 to 5000.
    pub limit: usize,
    /// Order.
    pub direction: Direction,
    /// Least time from one row to the next; `0` takes every row.
    pub interval_ns: i64,
}

/// A line with the labels that its pipeline left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// Its place in the order of all lines.
    pub id: EntryId,
    /// What is left of the stream's labels.
    pub stream: LabelSet,
    /// What is stored beside the line.
    pub metadata: LabelSet,
    /// What was found in the line, or set.
    pub parsed: LabelSet,
    /// The text.
    pub text: String,
}

impl Row {
    /// All labels.
    #[must_use]
    pub fn labels(&self) -> LabelSet {
        let all = self.stream.iter().chain(self.metadata.iter()).chain(self.parsed.iter());
        LabelSet::new(all.map(|(name, value)| (name.to_owned(), value.to_owned())))
    }
}

impl Row {
    /// Fields that a parser finds in the text, and which parser: `json`, or else `logfmt`.
    #[must_use]
    pub fn fields(&self) -> (&'static str, Vec<(String, String)>) {
        let mut pairs = Vec::new();
        let mut found = |name: std::borrow::Cow<'_, str>, value: std::borrow::Cow<'_, str>| {
            if !value.is_empty() {
                pairs.push((extract::label_name(name).into_owned(), value.into_owned()));
            }
            if pairs.len() < FIELDS_MAX { Ok(()) } else { Err("too many".to_owned()) }
        };
        if self.text.starts_with('{') {
            let _as_far_as_it_goes = json::flatten(&self.text, &mut |name, value| found(name, value));
            return ("json", pairs);
        }
        let _as_far_as_it_goes = extract::logfmt(&self.text, false, &mut |(name, value)| found(name, value));
        ("logfmt", pairs)
    }
}

impl Ranked for Row {
    fn id(&self) -> EntryId {
        self.id
    }

    fn weight(&self) -> usize {
        self.text.len() + self.stream.weight() + self.metadata.weight() + self.parsed.weight() + size_of::<Self>()
    }
}

/// Answer of a log query.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// In the order asked for.
    pub rows: Vec<Row>,
    /// Where it goes on, if the size of the rows ended the answer before the limit.
    pub next: Option<Cursor>,
    /// What it took.
    pub stats: QueryStats,
}

/// Runs what is left of a pipeline on one line.
pub(super) fn make(split: &Split<'_>, id: EntryId, labels: &Labels, severity: Severity, text: &str) -> Option<Row> {
    let mut record = Record::new(id.ts_ns, labels, severity, text);
    if !split.clone().run(&mut record) {
        return None;
    }
    let of = |kind: Kind| {
        let fields = record.fields.iter().filter(|field| field.kind == kind);
        LabelSet::new(fields.map(|field| (field.name.to_string(), field.value.to_string())))
    };
    Some(Row {
        id,
        stream: of(Kind::Stream),
        metadata: of(Kind::Metadata),
        parsed: of(Kind::Parsed),
        text: record.text.clone().into_owned(),
    })
}

pub(super) fn rows(shared: &Shared, pipeline: &Pipeline, request: &RowsRequest, patience: &Patience) -> Result<Rows> {
    let split = pipeline.split();
    let plan = Plan::new(&split.query, request.start_ns, request.end_ns);
    let mut out = Rows::default();
    let mut cursor = None;
    let mut last_ns: Option<UnixNs> = None;
    loop {
        let search = Search {
            start_ns: request.start_ns,
            end_ns: request.end_ns,
            limit: request.limit,
            direction: request.direction,
            cursor,
            deadline: patience.deadline,
        };
        let page = run_with(shared, &plan, &search, patience, |lines, at, candidate| {
            let id = *lines.columns.ids.get(at)?;
            make(&split, id, &candidate.labels, lines.columns.severity(at), lines.text(at))
        })?;
        if page.stats.incomplete {
            return Err(if patience.is_canceled() { Error::Canceled } else { Error::TimedOut });
        }
        add(&mut out.stats, page.stats);
        for row in page.items {
            let far = |last: UnixNs| row.id.ts_ns.abs_diff(last) >= request.interval_ns.unsigned_abs();
            if out.rows.len() < request.limit && last_ns.is_none_or(far) {
                last_ns = Some(row.id.ts_ns);
                out.rows.push(row);
            }
        }
        // Only with an interval are there rows left out that others may take the place of.
        if request.interval_ns == 0 || out.rows.len() >= request.limit || page.next.is_none() {
            out.next = page.next.filter(|_| out.rows.len() < request.limit);
            return Ok(out);
        }
        cursor = page.next;
    }
}

fn add(total: &mut QueryStats, page: QueryStats) {
    total.blocks += page.blocks;
    total.blocks_denied += page.blocks_denied;
    total.blocks_read += page.blocks_read;
    total.bytes_read += page.bytes_read;
    total.lines_read += page.lines_read;
    total.lost_blocks += page.lost_blocks;
    total.lost_lines += page.lost_lines;
    total.damaged_filters += page.damaged_filters;
    total.damage.extend(page.damage);
    total.damage.truncate(8);
}
