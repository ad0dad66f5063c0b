//! Containers, as cAdvisor names their series: control groups of version 2 whose names are those that Docker, containerd,
//! CRI-O, Podman and LXC give.
//!
//! # Invariants
//! - At most [`MAX_CONTAINERS`]; found within [`EVERY`]; one that ended is missed at once.
//! - Without Docker's socket (`collect.docker_socket`) only the path of the group, `id`, tells them apart.

use super::{
    Batch, Collector,
    aside::{Aside, Row, Work},
    cgroup::{self, Visit, file, keyed},
    docker::{self, Named},
    number,
};
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tracing::warn;

const MAX_CONTAINERS: usize = 250;
const EVERY: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(3);

/// See the module.
pub(crate) struct Containers(Aside);

impl Containers {
    pub(crate) fn new(proc: &Path, sys: &Path, docker_socket: &str) -> Self {
        let socket = (!docker_socket.is_empty()).then(|| PathBuf::from(docker_socket));
        Self(Aside::new("containers", DEADLINE, Groups::new(proc, sys, socket)))
    }
}

impl Collector for Containers {
    fn name(&self) -> &'static str {
        "containers"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        self.0.rows()?.iter().for_each(|row| row.push(out));
        Ok(())
    }
}

/// The id in a group's name: `docker-<id>.scope`, `<id>`, `lxc.payload.<name>`.
fn container_id(group: &str) -> Option<&str> {
    if let Some(name) = group.strip_prefix("lxc.payload.") {
        return Some(name);
    }
    let name = group.strip_suffix(".scope").unwrap_or(group);
    let prefixes = ["docker-", "cri-containerd-", "crio-", "libpod-", "nerdctl-"];
    let id = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

struct Groups {
    proc: PathBuf,
    sys: PathBuf,
    root: Option<PathBuf>,
    socket: Option<PathBuf>,
    known: Vec<String>,
    names: HashMap<String, Named>,
    next: Option<Instant>,
    failing: bool,
}

impl Groups {
    fn new(proc: &Path, sys: &Path, socket: Option<PathBuf>) -> Self {
        let (known, names) = (Vec::new(), HashMap::new());
        Self { proc: proc.to_owned(), sys: sys.to_owned(), root: cgroup::root(sys), socket, known, names, next: None, failing: false }
    }

    fn find(&mut self, root: &Path) -> io::Result<()> {
        let containers = |name: &str| if container_id(name).is_some() { Visit::Take } else { Visit::Descend };
        self.known = cgroup::walk(root, MAX_CONTAINERS, containers);
        let id = |path: &str| container_id(path.rsplit('/').next().unwrap_or(path)).map(str::to_owned);
        let ids: Vec<String> = self.known.iter().filter_map(|path| id(path)).collect();
        self.names.retain(|name, _| ids.contains(name));
        let is_new = |id: &String| !self.names.contains_key(id);
        if let Some(socket) = &self.socket
            && ids.iter().any(is_new)
        {
            let mut names = docker::names(socket)?;
            names.retain(|name, _| ids.contains(name));
            self.names = names;
        }
        Ok(())
    }

    fn labels(&self, path: &str) -> Vec<(&'static str, String)> {
        let mut labels = vec![("id", path.to_owned())];
        let group = path.rsplit('/').next().unwrap_or(path);
        if let Some(named) = container_id(group).and_then(|id| self.names.get(id)) {
            labels.push(("name", named.name.clone()));
            labels.push(("image", named.image.clone()));
        } else if let Some(name) = group.strip_prefix("lxc.payload.") {
            labels.push(("name", name.to_owned()));
        }
        labels
    }

    fn device(&self, number: &str) -> String {
        let link = fs::read_link(self.sys.join("dev/block").join(number)).ok();
        let name = link.as_deref().and_then(Path::file_name).map(|name| format!("/dev/{}", name.to_string_lossy()));
        name.unwrap_or_else(|| number.to_owned())
    }

    fn network(&self, dir: &Path, add: &mut impl FnMut(&'static str, &[(&'static str, &str)], f64)) {
        let processes = file(dir, "cgroup.procs");
        let Some(pid) = processes.lines().next() else { return };
        let namespace = |pid: &str| fs::read_link(self.proc.join(pid).join("ns/net")).ok();
        // With the host's network it has no figures of its own.
        if namespace(pid).is_none() || namespace(pid) == namespace("self") {
            return;
        }
        let text = file(&self.proc.join(pid), "net/dev");
        for line in text.lines().skip(2) {
            let Some((interface, values)) = line.rsplit_once(':') else { continue };
            let values: Vec<f64> = values.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
            for (name, column) in NETWORK {
                if let Some(value) = values.get(column) {
                    add(name, &[("interface", interface.trim())], *value);
                }
            }
        }
    }

    fn container(&self, root: &Path, path: &str, rows: &mut Vec<Row>) {
        let dir = root.join(path.trim_start_matches('/'));
        let own = self.labels(path);
        let mut add = |name: &'static str, more: &[(&'static str, &str)], value: f64| {
            let mut labels = own.clone();
            labels.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
            rows.push(Row { name: name.into(), labels, value });
        };
        cpu(&dir, &mut add);
        memory(&dir, &mut add);
        for line in file(&dir, "io.stat").lines() {
            let Some((number, values)) = line.split_once(' ') else { continue };
            let device = self.device(number);
            for (key, name) in IO {
                if let Some(value) = values.split(' ').find_map(|word| word.strip_prefix(key)?.parse().ok()) {
                    add(name, &[("device", &device)], value);
                }
            }
        }
        if let Some(threads) = number(&dir.join("pids.current")) {
            add("container_threads", &[], threads);
        }
        self.network(&dir, &mut add);
    }
}

const IO: [(&str, &str); 4] = [
    ("rbytes=", "container_fs_reads_bytes_total"),
    ("wbytes=", "container_fs_writes_bytes_total"),
    ("rios=", "container_fs_reads_total"),
    ("wios=", "container_fs_writes_total"),
];

/// Series and column of `/proc/PID/net/dev`.
const NETWORK: [(&str, usize); 8] = [
    ("container_network_receive_bytes_total", 0),
    ("container_network_receive_packets_total", 1),
    ("container_network_receive_errors_total", 2),
    ("container_network_receive_packets_dropped_total", 3),
    ("container_network_transmit_bytes_total", 8),
    ("container_network_transmit_packets_total", 9),
    ("container_network_transmit_errors_total", 10),
    ("container_network_transmit_packets_dropped_total", 11),
];

fn cpu(dir: &Path, add: &mut impl FnMut(&'static str, &[(&'static str, &str)], f64)) {
    let text = file(dir, "cpu.stat");
    if let Some(us) = keyed(&text, "usage_usec") {
        add("container_cpu_usage_seconds_total", &[("cpu", "total")], us / 1e6);
    }
    for (key, name, divisor) in [
        ("user_usec", "container_cpu_user_seconds_total", 1e6),
        ("system_usec", "container_cpu_system_seconds_total", 1e6),
        ("nr_periods", "container_cpu_cfs_periods_total", 1.0),
        ("nr_throttled", "container_cpu_cfs_throttled_periods_total", 1.0),
        ("throttled_usec", "container_cpu_cfs_throttled_seconds_total", 1e6),
    ] {
        if let Some(value) = keyed(&text, key) {
            add(name, &[], value / divisor);
        }
    }
    // `max 100000` is no limit.
    let limit = file(dir, "cpu.max");
    if let Some((quota, period)) = limit.split_once(' ').and_then(|(quota, period)| Some((quota.parse().ok()?, period.parse().ok()?))) {
        add("container_spec_cpu_quota", &[], quota);
        add("container_spec_cpu_period", &[], period);
    }
}

fn memory(dir: &Path, add: &mut impl FnMut(&'static str, &[(&'static str, &str)], f64)) {
    let stat = file(dir, "memory.stat");
    if let Some(usage) = number(&dir.join("memory.current")) {
        add("container_memory_usage_bytes", &[], usage);
        let inactive = keyed(&stat, "inactive_file").unwrap_or(0.0);
        add("container_memory_working_set_bytes", &[], (usage - inactive).max(0.0));
        // As cAdvisor, 0 for no limit.
        add("container_spec_memory_limit_bytes", &[], number(&dir.join("memory.max")).unwrap_or(0.0));
    }
    for (key, name) in
        [("anon", "container_memory_rss"), ("file", "container_memory_cache"), ("file_mapped", "container_memory_mapped_file")]
    {
        if let Some(value) = keyed(&stat, key) {
            add(name, &[], value);
        }
    }
    if let Some(swap) = number(&dir.join("memory.swap.current")) {
        add("container_memory_swap", &[], swap);
    }
    if let Some(kills) = keyed(&file(dir, "memory.events"), "oom_kill") {
        add("container_oom_events_total", &[], kills);
    }
}

impl Work for Groups {
    fn rows(&mut self) -> io::Result<Vec<Row>> {
        let Some(root) = self.root.clone() else { return Ok(Vec::new()) };
        let now = Instant::now();
        if self.next.is_none_or(|next| now >= next) {
            self.next = Some(now + EVERY);
            let found = self.find(&root);
            if let Err(error) = &found
                && !self.failing
            {
                warn!(%error, "containers have no names; said once until it works again");
            }
            self.failing = found.is_err();
        }
        let mut rows = Vec::new();
        for path in &self.known {
            self.container(&root, path, &mut rows);
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_groups_tell_containers() {
        let id = "0123456789abcdef".repeat(4);
        for group in ["docker-ID.scope", "cri-containerd-ID.scope", "crio-ID.scope", "libpod-ID.scope", "ID"] {
            assert_eq!(container_id(&group.replace("ID", &id)), Some(id.as_str()), "{group}");
        }
        for other in ["docker.service", "libpod-conmon-ID.scope", "session-1.scope", "docker-abc.scope", "", "user.slice"] {
            assert_eq!(container_id(&other.replace("ID", &id)), None, "{other}");
        }
        assert_eq!(container_id("lxc.payload.web"), Some("web"));
    }

    #[test]
    fn a_group_becomes_these_series() {
        let dir = tempfile::tempdir().unwrap();
        let id = "ab".repeat(32);
        let group = dir.path().join(format!("fs/cgroup/system.slice/docker-{id}.scope"));
        fs::create_dir_all(&group).unwrap();
        fs::create_dir_all(dir.path().join("dev/block")).unwrap();
        std::os::unix::fs::symlink("../../devices/x/vda", dir.path().join("dev/block/254:0")).unwrap();
        fs::write(dir.path().join("fs/cgroup/cgroup.controllers"), "cpu io memory pids\n").unwrap();
        for (file, text) in [
            (
                "cpu.stat",
                "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 10\nnr_throttled 3\nthrottled_usec 1500000\n",
            ),
            ("cpu.max", "50000 100000\n"),
            ("memory.current", "1000\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 600\nfile 300\nfile_mapped 20\ninactive_file 250\n"),
            ("memory.swap.current", "5\n"),
            ("memory.events", "low 0\noom 2\noom_kill 1\n"),
            ("io.stat", "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n"),
            ("pids.current", "7\n"),
            ("cgroup.procs", ""),
        ] {
            fs::write(group.join(file), text).unwrap();
        }
        let mut groups = Groups::new(&dir.path().join("proc"), dir.path(), None);
        let path = format!("/system.slice/docker-{id}.scope");
        let show = |row: &Row| {
            assert_eq!(row.labels[0], ("id", path.clone()));
            format!("{} {} {}", row.name, row.labels[1..].iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(","), row.value)
        };
        let lines: Vec<String> = groups.rows().unwrap().iter().map(show).collect();
        let expected = [
            "container_cpu_usage_seconds_total total 2.5",
            "container_cpu_user_seconds_total  2",
            "container_cpu_system_seconds_total  0.5",
            "container_cpu_cfs_periods_total  10",
            "container_cpu_cfs_throttled_periods_total  3",
            "container_cpu_cfs_throttled_seconds_total  1.5",
            "container_spec_cpu_quota  50000",
            "container_spec_cpu_period  100000",
            "container_memory_usage_bytes  1000",
            "container_memory_working_set_bytes  750",
            "container_spec_memory_limit_bytes  0",
            "container_memory_rss  600",
            "container_memory_cache  300",
            "container_memory_mapped_file  20",
            "container_memory_swap  5",
            "container_oom_events_total  1",
            "container_fs_reads_bytes_total /dev/vda 4096",
            "container_fs_writes_bytes_total /dev/vda 8192",
            "container_fs_reads_total /dev/vda 1",
            "container_fs_writes_total /dev/vda 2",
            "container_threads  7",
        ];
        assert_eq!(lines, expected);
        // Gone is gone, before the next walk.
        fs::remove_dir_all(&group).unwrap();
        assert_eq!(groups.rows().unwrap(), []);
    }
}
