//! Counts of processes, and which use most: `/proc/PID`.
//!
//! # Invariants
//! - All processes are looked at every [`EVERY`] at most, and so seldom that it costs [`SHARE`] of a processor at most; between
//!   that only the chosen ones are read.
//! - At most three times `collect.processes_top` processes have series. One that was chosen stays until it is no longer among
//!   twice as many, so that series do not come and go with every tick.
//! - A command line is masked as a whole before it is cut, and is read aside: the kernel may let that wait for ever.
//!
//! Leaves out: what lived between two looks only.

use super::{
    Batch, Collector,
    aside::{Aside, Row, Work},
    cpu::USER_HZ,
    number,
};
use shipwatch_common::mask::Masker;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_secs(30);
const SELDOM: Duration = Duration::from_secs(600);
/// One part of so many is what looking at all processes may cost.
const SHARE: u32 = 4_000;
const DEADLINE: Duration = Duration::from_secs(2);
const MAX_PROCESSES: usize = 65_536;
const MAX_COMMAND_BYTES: u64 = 4096;
const MAX_COMMAND_CHARS: usize = 256;

/// See the module.
pub(crate) struct Processes(Aside);

impl Processes {
    pub(crate) fn new(proc: &Path, top: usize, masker: Arc<Masker>) -> Self {
        Self(Aside::new("processes", DEADLINE, Look::new(proc, top, masker)))
    }
}

impl Collector for Processes {
    fn name(&self) -> &'static str {
        "processes"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        self.0.rows()?.iter().for_each(|row| row.push(out));
        Ok(())
    }
}

/// A process, told apart from a later one with the same number by its start.
type Key = (u32, u64);

/// What `/proc/PID/stat` says.
#[derive(Clone, Debug, Default, PartialEq)]
struct Stat {
    name: String,
    state: String,
    cpu_s: f64,
    threads: f64,
    start: u64,
    is_kernel: bool,
    pages: f64,
}

/// The name in brackets may hold anything, so columns are counted behind the last bracket.
fn parse_stat(text: &str) -> Option<Stat> {
    let (head, tail) = text.rsplit_once(')')?;
    let columns: Vec<&str> = tail.split_ascii_whitespace().collect();
    let float = |column: usize| columns.get(column)?.parse::<f64>().ok();
    Some(Stat {
        name: head.split_once('(')?.1.to_owned(),
        state: (*columns.first()?).to_owned(),
        cpu_s: (float(11)? + float(12)?) / USER_HZ,
        threads: float(17)?,
        start: columns.get(19)?.parse().ok()?,
        is_kernel: *columns.get(20)? == "0",
        pages: float(21)?,
    })
}

/// Bytes that really went to and came from storage, of `/proc/PID/io`.
fn parse_io(text: &str) -> Option<(f64, f64)> {
    let get = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<f64>().ok());
    Some((get("read_bytes:")?, get("write_bytes:")?))
}

/// What processes are compared by: processor, memory, storage.
type Usage = [f64; 3];

/// Those that used most since `before`, by each of the three; `chosen` ones stay a while. What is new since used it all.
fn pick(now: &HashMap<Key, Usage>, before: &HashMap<Key, Usage>, chosen: &HashSet<Key>, top: usize) -> HashSet<Key> {
    let mut picked = HashSet::new();
    for by in 0..3 {
        let mut ranked: Vec<(f64, Key)> = now
            .iter()
            .map(|(key, usage)| {
                let earlier = if by == 1 { 0.0 } else { before.get(key).map_or(0.0, |usage| usage[by]) };
                (usage[by] - earlier, *key)
            })
            .filter(|(used, _)| *used > 0.0)
            .collect();
        ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        // Who stays takes the place of the least, so that the number is bounded.
        let mut best: Vec<Key> = ranked.iter().take(top * 2).map(|(_, key)| *key).collect();
        let (first, rest) = best.split_at_mut(top.min(ranked.len()).min(top));
        let mut places = first.len();
        for key in rest.iter().filter(|key| chosen.contains(key)) {
            let Some(at) = (0..places).rev().find(|at| !chosen.contains(&first[*at])) else { break };
            // The very first is always told.
            if at == 0 {
                break;
            }
            first[at] = *key;
            places = at;
        }
        picked.extend(first.iter().copied());
    }
    picked
}

/// The pause before the next look at all.
fn pause(cost: Duration) -> Duration {
    cost.saturating_mul(SHARE).clamp(EVERY, SELDOM)
}

struct Look {
    proc: PathBuf,
    top: usize,
    masker: Arc<Masker>,
    page_bytes: f64,
    next: Option<Instant>,
    before: HashMap<Key, Usage>,
    /// The chosen ones with their command lines.
    chosen: HashMap<Key, String>,
    totals: Vec<Row>,
}

impl Look {
    fn new(proc: &Path, top: usize, masker: Arc<Masker>) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "4 to 64 KiB")]
        let page_bytes = rustix::param::page_size() as f64;
        let (before, chosen) = (HashMap::new(), HashMap::new());
        Self { proc: proc.to_owned(), top, masker, page_bytes, next: None, before, chosen, totals: Vec::new() }
    }

    fn read(&self, pid: u32) -> Option<Stat> {
        let bytes = fs::read(self.proc.join(format!("{pid}/stat"))).ok()?;
        parse_stat(&String::from_utf8_lossy(&bytes))
    }

    fn io(&self, pid: u32) -> Option<(f64, f64)> {
        parse_io(&fs::read_to_string(self.proc.join(format!("{pid}/io"))).ok()?)
    }

    fn look_at_all(&mut self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.proc) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).take(MAX_PROCESSES);
        let (mut now, mut states, mut threads, mut count) = (HashMap::new(), BTreeMap::<String, f64>::new(), 0.0, 0.0);
        for pid in pids {
            let Some(stat) = self.read(pid) else { continue };
            count += 1.0;
            threads += stat.threads;
            let (read, written) = if stat.is_kernel || self.top == 0 { None } else { self.io(pid) }.unwrap_or_default();
            now.insert((pid, stat.start), [stat.cpu_s, stat.pages, read + written]);
            *states.entry(stat.state).or_default() += 1.0;
        }
        self.totals = vec![Row::new("node_processes_pids", &[], count), Row::new("node_processes_threads", &[], threads)];
        self.totals.extend(states.iter().map(|(state, count)| Row::new("node_processes_state", &[("state", state)], *count)));
        for (file, name) in
            [("sys/kernel/pid_max", "node_processes_max_processes"), ("sys/kernel/threads-max", "node_processes_max_threads")]
        {
            self.totals.extend(number(&self.proc.join(file)).map(|value| Row::new(name, &[], value)));
        }
        let chosen: HashSet<Key> = self.chosen.keys().copied().collect();
        let picked = pick(&now, &self.before, &chosen, self.top);
        self.chosen = picked
            .into_iter()
            .map(|key| {
                let known = self.chosen.remove(&key);
                (key, known.unwrap_or_else(|| self.command(key.0)))
            })
            .collect();
        self.before = now;
        Ok(())
    }

    fn command(&self, pid: u32) -> String {
        let mut bytes = Vec::new();
        let read =
            File::open(self.proc.join(format!("{pid}/cmdline"))).and_then(|file| file.take(MAX_COMMAND_BYTES).read_to_end(&mut bytes));
        if read.is_err() {
            return String::new();
        }
        shown(&bytes, &self.masker)
    }

    fn rows_of(&self, key: Key, command: &str, rows: &mut Vec<Row>) {
        let Some(stat) = self.read(key.0).filter(|stat| stat.start == key.1) else { return };
        let pid = key.0.to_string();
        let labels = [("pid", pid.as_str()), ("name", stat.name.as_str())];
        rows.push(Row::new("shipwatch_process_info", &[labels[0], labels[1], ("command", command)], 1.0));
        rows.push(Row::new("shipwatch_process_cpu_seconds_total", &labels, stat.cpu_s));
        rows.push(Row::new("shipwatch_process_resident_memory_bytes", &labels, stat.pages * self.page_bytes));
        rows.push(Row::new("shipwatch_process_threads", &labels, stat.threads));
        if let Some((read, written)) = if stat.is_kernel { None } else { self.io(key.0) } {
            rows.push(Row::new("shipwatch_process_read_bytes_total", &labels, read));
            rows.push(Row::new("shipwatch_process_written_bytes_total", &labels, written));
        }
    }
}

/// Arguments joined by spaces, masked, then cut. Where reading ended within an argument, that is left out: its half might
/// not look like the secret that it is a part of.
fn shown(bytes: &[u8], masker: &Masker) -> String {
    let whole = if bytes.len() as u64 >= MAX_COMMAND_BYTES {
        bytes.iter().rposition(|byte| *byte == 0).map_or(&[][..], |end| &bytes[..end])
    } else {
        bytes
    };
    let text = String::from_utf8_lossy(whole).trim_end_matches('\0').replace(['\0', '\n', '\r'], " ");
    let masked = masker.mask(&text).text.into_owned();
    match masked.char_indices().nth(MAX_COMMAND_CHARS) {
        Some((end, _)) => format!("{}…", &masked[..end]),
        None => masked,
    }
}

impl Work for Look {
    fn rows(&mut self) -> io::Result<Vec<Row>> {
        let now = Instant::now();
        if self.next.is_none_or(|next| now >= next) {
            self.look_at_all()?;
            self.next = Some(now + pause(now.elapsed()));
        }
        let mut rows = self.totals.clone();
        for (key, command) in &self.chosen {
            self.rows_of(*key, command, &mut rows);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masker() -> Arc<Masker> {
        Arc::new(Masker::new(&shipwatch_common::mask::Config::default()).unwrap())
    }

    fn write(root: &Path, pid: u32, name: &str, cpu_ticks: u32, pages: u32, start: u32) {
        let dir = root.join(pid.to_string());
        fs::create_dir_all(&dir).unwrap();
        let stat = format!("{pid} ({name}) S 1 1 1 0 -1 4194560 0 0 0 0 {cpu_ticks} 0 0 0 20 0 3 0 {start} 1000 {pages} 1");
        fs::write(dir.join("stat"), stat).unwrap();
        fs::write(dir.join("io"), "rchar: 1\nread_bytes: 4096\nwrite_bytes: 0\n").unwrap();
        fs::write(dir.join("cmdline"), format!("/usr/bin/{pid}\0--password=hunter2secret\0")).unwrap();
    }

    #[test]
    fn the_greediest_are_told_with_masked_command_lines() {
        let dir = tempfile::tempdir().unwrap();
        for pid in 1..=9 {
            write(dir.path(), pid, "a) b", pid * 100, 10, 7);
        }
        let mut look = Look::new(dir.path(), 1, masker());
        let rows = look.rows().unwrap();
        let value = |rows: &[Row], name: &str, pid: &str| {
            rows.iter().find(|row| row.name == name && row.labels.contains(&("pid", pid.to_owned()))).map(|row| row.value)
        };
        assert_eq!(value(&rows, "shipwatch_process_cpu_seconds_total", "9"), Some(9.0));
        assert_eq!(value(&rows, "shipwatch_process_cpu_seconds_total", "8"), None);
        let info = rows.iter().find(|row| row.name == "shipwatch_process_info").unwrap();
        assert!(info.labels.contains(&("name", "a) b".to_owned())));
        let command = &info.labels[2].1;
        assert!(command.starts_with("/usr/bin/") && !command.contains("hunter2secret"), "{command}");
        let total = |name: &str| rows.iter().find(|row| row.name == name).unwrap().value;
        assert_eq!((total("node_processes_pids"), total("node_processes_threads"), total("node_processes_state")), (9.0, 27.0, 9.0));
        // Between two looks the chosen are read anew, and another process with the same number is not taken for it.
        write(dir.path(), 9, "a) b", 1000, 10, 7);
        assert_eq!(value(&look.rows().unwrap(), "shipwatch_process_cpu_seconds_total", "9"), Some(10.0));
        write(dir.path(), 9, "other", 1, 10, 99);
        assert_eq!(value(&look.rows().unwrap(), "shipwatch_process_cpu_seconds_total", "9"), None);
    }

    #[test]
    fn a_chosen_one_stays_while_it_is_near_the_top() {
        let usage = |all: &[(u32, f64)]| all.iter().map(|(pid, cpu)| ((*pid, 0), [*cpu, 0.0, 0.0])).collect::<HashMap<_, _>>();
        let set = |pids: &[u32]| pids.iter().map(|pid| (*pid, 0)).collect::<HashSet<_>>();
        let none = HashMap::new();
        let now = usage(&[(1, 9.0), (2, 8.0), (3, 7.0), (4, 6.0), (5, 5.0)]);
        assert_eq!(pick(&now, &none, &set(&[]), 2), set(&[1, 2]));
        assert_eq!(pick(&now, &none, &set(&[4]), 2), set(&[1, 4]));
        assert_eq!(pick(&now, &none, &set(&[5]), 2), set(&[1, 2]));
        assert_eq!(pick(&now, &none, &set(&[3, 4]), 2).len(), 2);
        // Not who ever used most, but who did since the last look.
        assert_eq!(pick(&now, &usage(&[(1, 9.0), (2, 7.5), (3, 1.0), (4, 6.0), (5, 5.0)]), &set(&[]), 1), set(&[3]));
        assert_eq!(pick(&now, &now, &set(&[]), 3), set(&[]));
        assert_eq!(pick(&now, &none, &set(&[]), 0), set(&[]));
    }

    #[test]
    fn looking_costs_a_small_share() {
        assert_eq!(pause(Duration::from_millis(2)), EVERY);
        assert_eq!(pause(Duration::from_millis(20)), Duration::from_secs(80));
        assert_eq!(pause(Duration::from_secs(9)), SELDOM);
    }

    #[test]
    fn half_an_argument_is_not_shown() {
        let mut bytes = b"run\0".to_vec();
        bytes.resize(4096, b'x');
        assert_eq!(shown(&bytes, &masker()), "run");
        assert_eq!(shown(b"", &masker()), "");
        assert_eq!(shown(&[b'y'; 300], &masker()).chars().count(), 257);
    }
}
