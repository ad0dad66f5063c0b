//! Random histories against a list of lines.

use super::*;
use crate::query::severity_bit;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Append(Sent),
    Seal,
    Reopen,
    /// The day's file is committed, the head is not cleaned.
    CrashInSeal,
    /// The files as they are, without the close.
    Crash,
}

#[derive(Clone, Debug)]
struct Sent {
    lane: usize,
    seq: u64,
    agent: usize,
    file: u128,
    app: usize,
    offset: u64,
    lines: Vec<(usize, Severity, usize)>,
}

const APPS: [&str; 3] = ["shop", "admin", "支付"];
const TEXTS: [&str; 7] =
    ["", "GET /cart id-17-x 200", "订单支付失败", "Timeout after id-18-x", "支付成功\n  at line 2", "timeout", "id-17-x 支付"];
/// Few different times, so that many are equal; two days and their border.
const TIMES: [i64; 8] = [T, T, T + 7, T + 61 * NS, T + 125 * NS, T + DAY - 1, T + DAY, T + DAY + 90 * NS];
const SEVERITIES: [Severity; 3] = [Severity::Unknown, Severity::Info, Severity::Error];

fn step() -> impl Strategy<Value = Step> {
    let lines = prop::collection::vec((0..TIMES.len(), prop::sample::select(&SEVERITIES[..]), 0..TEXTS.len()), 0..12);
    let sent = (0usize..3, 1u64..12, 0usize..2, 0u128..3, 0..APPS.len(), 0u64..8, lines).prop_map(
        |(lane, seq, agent, file, app, offset, lines)| Step::Append(Sent { lane, seq, agent, file, app, offset: offset * 30, lines }),
    );
    prop_oneof![8 => sent, 2 => Just(Step::Seal), 1 => Just(Step::Reopen), 1 => Just(Step::CrashInSeal), 1 => Just(Step::Crash)]
}

/// What must be stored, in order of arrival.
#[derive(Default)]
struct Model {
    lines: Vec<Entry>,
    marks: HashMap<String, u64>,
    positions: HashMap<(String, u128), u64>,
    duplicates: u64,
}

impl Sent {
    fn append(&self) -> Append {
        let lines = self.lines.iter().zip(1u64..);
        let lines = lines.map(|((ts, severity, text), at)| line(TIMES[*ts], self.offset + at * 10, *severity, TEXTS[*text])).collect();
        let lane = ["", "one", "two"][self.lane];
        append(lane, self.seq, ["a", "b"][self.agent], self.file, APPS[self.app], lines)
    }
}

impl Model {
    fn append(&mut self, append: &Append) -> Outcome {
        let mut outcome = Outcome::default();
        let lines = || append.batches.iter().flat_map(|batch| batch.lines.iter().map(move |line| (batch, line)));
        if !append.source.is_empty() {
            if self.marks.get(&append.source).is_some_and(|mark| append.seq <= *mark) {
                self.duplicates += lines().count() as u64;
                return Outcome { duplicate: true, ..outcome };
            }
            self.marks.insert(append.source.clone(), append.seq);
        }
        for (batch, line) in lines() {
            let reached = self.positions.entry((append.agent.clone(), batch.file.0)).or_insert(0);
            if batch.file.0 != 0 && line.end_offset <= *reached {
                outcome.duplicate_lines += 1;
                self.duplicates += 1;
                continue;
            }
            *reached = line.end_offset;
            outcome.lines += 1;
            self.lines.push(Entry {
                // Arrival stands in for the batch's number.
                id: crate::EntryId { ts_ns: line.ts_ns, batch: self.lines.len() as u64, index: 0 },
                labels: Arc::new(batch.labels.clone()),
                severity: line.severity,
                text: line.text.clone(),
                truncated: line.truncated,
                agent: append.agent.as_str().into(),
                file: batch.file,
                end_offset: line.end_offset,
            });
        }
        outcome
    }

    fn search(&self, wanted: impl Fn(&Entry) -> bool, search: &Search) -> Vec<Entry> {
        let in_range = |entry: &&Entry| (search.start_ns..search.end_ns).contains(&entry.ts_ns());
        let mut found: Vec<_> = self.lines.iter().filter(in_range).filter(|entry| wanted(entry)).cloned().collect();
        found.sort_by_key(|entry| entry.id);
        if search.direction == Direction::Backward {
            found.reverse();
        }
        found
    }
}

/// Queries, and what they mean without our parser.
type Meaning = fn(&Entry) -> bool;
const QUERIES: [(&str, Meaning); 8] = [
    ("", |_| true),
    (r#"{app="shop"}"#, |entry| entry.labels.get("app") == Some("shop")),
    (r#"{app=~"shop|admin"} | level="error""#, |entry| entry.labels.get("app") != Some("支付") && entry.severity == Severity::Error),
    ("支付", |entry| entry.text.contains("支付")),
    ("TIMEOUT", |entry| entry.text.to_lowercase().contains("timeout")),
    (r#"{env="prod"} |= "id-17-x""#, |entry| entry.text.contains("id-17-x")),
    (r#"{env="prod"} |~ "id-\\d+" != "支""#, |entry| entry.text.contains("id-1") && !entry.text.contains('支')),
    (r#"{env="prod"} |= "支付" |= "17" | level!="info""#, |entry| {
        entry.text.contains("支付") && entry.text.contains("17") && entry.severity != Severity::Info
    }),
];

/// All but the id, which the model cannot know.
fn shown(entries: &[Entry]) -> Vec<(i64, &Labels, &str, u64, u128, &str, Severity)> {
    let one = |entry| -> (i64, &Labels, &str, u64, u128, &str, Severity) {
        let entry: &Entry = entry;
        (entry.ts_ns(), &entry.labels, &entry.text, entry.end_offset, entry.file.0, &entry.agent, entry.severity)
    };
    entries.iter().map(one).collect()
}

fn check(engine: &Engine, model: &Model, limit: usize) {
    for (text, meaning) in QUERIES {
        let query = Query::parse(text).unwrap();
        for direction in [Direction::Forward, Direction::Backward] {
            for (start_ns, end_ns) in [(T - DAY, T + 3 * DAY), (T + 7, T + DAY)] {
                let search = Search { start_ns, end_ns, direction, ..all(limit) };
                let (found, expected) = (pages(engine, &query, search), model.search(meaning, &search));
                assert_eq!(shown(&found), shown(&expected), "{text} {direction:?} by {limit}");
                let unique: std::collections::HashSet<_> = found.iter().map(|entry| entry.id).collect();
                assert_eq!(unique.len(), found.len());
                counts(engine, &query, &search, &expected);
            }
        }
    }
    let stats = engine.stats().unwrap();
    assert_eq!((stats.lines, stats.duplicate_lines), (model.lines.len() as u64, model.duplicates));
}

fn counts(engine: &Engine, query: &Query, search: &Search, expected: &[Entry]) {
    for step_ns in [MINUTE, 45 * NS, DAY] {
        let count = CountBy { start_ns: search.start_ns, end_ns: search.end_ns, step_ns, by_severity: true, deadline: None };
        let found = engine.count_by(query, &count).unwrap();
        assert_eq!(found.stats.lost_blocks, 0);
        let mut totals: std::collections::BTreeMap<(i64, u8), u64> = std::collections::BTreeMap::new();
        for entry in expected {
            *totals.entry((entry.ts_ns() - entry.ts_ns().rem_euclid(step_ns), severity_bit(entry.severity))).or_default() += 1;
        }
        let found: Vec<_> = found.counts.iter().map(|count| ((count.ts_ns, severity_bit(count.severity.unwrap())), count.lines)).collect();
        assert_eq!(found, totals.into_iter().collect::<Vec<_>>(), "step {step_ns}");
    }
}

fn run(steps: Vec<Step>, limit: usize) {
    let mut dir = tempfile::tempdir().unwrap();
    let mut engine = open(&dir).0;
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Append(sent) => {
                let sent = sent.append();
                let expected = model.append(&sent);
                assert_eq!(engine.append(vec![sent]).unwrap(), [expected]);
                continue;
            }
            Step::Seal => drop(seal(&engine)),
            Step::Reopen => {
                drop(engine);
                engine = open(&dir).0;
            }
            Step::CrashInSeal => {
                drop(engine);
                let (head, saved) = (dir.path().join("head.db"), dir.path().join("saved"));
                fs::copy(&head, &saved).unwrap();
                let (sealing, report) = open(&dir);
                let lines = seal(&sealing).lines;
                assert_eq!(lines, report.head_lines);
                drop(sealing);
                fs::rename(&saved, &head).unwrap();
                let (opened, report) = open(&dir);
                assert!(report.damaged.is_empty() && report.head_lines == 0 && (report.finished_rows > 0) == (lines > 0), "{report:?}");
                engine = opened;
            }
            Step::Crash => {
                let image = crash_image(&dir);
                drop(engine);
                dir = image;
                engine = open(&dir).0;
            }
        }
        let search = Search { start_ns: T - DAY, end_ns: T + 3 * DAY, ..all(5000) };
        let found = engine.search(&Query::default(), &search).unwrap().entries;
        assert_eq!(shown(&found), shown(&model.search(|_| true, &search)));
    }
    check(&engine, &model, limit);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_list_of_lines(steps in prop::collection::vec(step(), 1..16), limit in 1usize..9) {
        run(steps, limit);
    }
}
