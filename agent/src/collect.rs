//! Host metrics, with node_exporter's names, labels and units, so that dashboards and rules that people have just work.
//!
//! One file per source, each a pure `parse` and a read. [`Collectors`] runs them in turn, on a thread of its own.
//!
//! # Invariants
//! - A collector that fails costs its own series and nothing else; a missing file (old kernel, container) is no failure.
//! - Nothing can hang a tick: what can block for ever (statfs, sensors) is asked on a thread of its own with a deadline.
//! - Every tick uses the same `Arc<Labels>` for a series. A series that ends gets one stale marker and is forgotten.
//! - The number of series is bounded; what is beyond is counted.
//!
//! Leaves out: what systemd tells over D-Bus only, and node_exporter's collectors for rare hardware and file systems.

mod aside;
mod block;
mod cgroup;
mod containers;
mod cpu;
mod docker;
mod files;
mod filesystem;
mod hardware;
mod host;
mod hwmon;
mod memory;
mod netclass;
mod network;
mod own;
mod pressure;
mod processes;
mod series;
mod sockets;
mod statfs;
mod timex;
mod units;

pub use host::facts;
pub use series::Batch;
pub use statfs::{FsStat, Stat};

use regex::Regex;
use serde::{Deserialize, Serialize};
use series::Interner;
use shipwatch_common::{
    config::{Problems, nearest},
    mask::Masker,
    time::UnixMs,
};
use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc, time::Duration, time::Instant};
use tracing::warn;

/// What is collected and how often.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Time between two ticks. Shorter ones cost CPU and disk on the server in proportion.
    #[serde(with = "shipwatch_common::time::serde_duration")]
    pub interval: Duration,
    /// Collectors to leave out, by name.
    pub disable: Vec<String>,
    /// Labels added to every series of this host.
    pub labels: BTreeMap<String, String>,
    /// Mount points that are left out (regular expression).
    pub mount_points_exclude: String,
    /// File system types that are left out (regular expression).
    pub fs_types_exclude: String,
    /// Network devices that are left out (regular expression); empty leaves none out.
    pub net_devices_exclude: String,
    /// Block devices that are left out (regular expression).
    pub disk_devices_exclude: String,
    /// A file system that does not answer within this time (a hung NFS server) counts as broken until it does.
    #[serde(with = "shipwatch_common::time::serde_duration")]
    pub statfs_deadline: Duration,
    /// The processes that use most processor time, memory and storage have series, so many of each; 0 none.
    pub processes_top: usize,
    /// Docker's or Podman's socket, asked for names and images of containers. Empty asks nobody.
    pub docker_socket: String,
    /// Series beyond this number are dropped and counted.
    pub max_series: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15),
            disable: Vec::new(),
            labels: BTreeMap::new(),
            mount_points_exclude: r"^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)".to_owned(),
            fs_types_exclude: "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs)$".to_owned(),
            net_devices_exclude: String::new(),
            disk_devices_exclude: r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$".to_owned(),
            statfs_deadline: Duration::from_secs(2),
            processes_top: 10,
            docker_socket: String::new(),
            max_series: 5_000,
        }
    }
}

impl Config {
    /// Checks names, expressions and bounds.
    pub fn check(&self, problems: &mut Problems) {
        if self.interval < Duration::from_secs(1) || self.interval > Duration::from_secs(3600) {
            problems.add("interval", "must be between 1s and 1h");
        }
        for name in &self.disable {
            if !NAMES.contains(&name.as_str()) {
                let hint = nearest(name, NAMES.iter().copied())
                    .map_or_else(|| format!("known are: {}", NAMES.join(", ")), |near| format!("did you mean `{near}`?"));
                problems.add("disable", format!("names `{name}`, which is no collector; {hint}"));
            }
        }
        for (key, text) in self.expressions() {
            if let Err(error) = Regex::new(text) {
                problems.add(key, format!("is not a regular expression: {}", error.to_string().replace('\n', " ")));
            }
        }
        if self.statfs_deadline.is_zero() || self.statfs_deadline > Duration::from_secs(60) {
            problems.add("statfs_deadline", "must be between 1ms and 1m");
        }
        if self.processes_top > 100 {
            problems.add("processes_top", "must be at most 100");
        }
        if !self.docker_socket.is_empty() && !self.docker_socket.starts_with('/') {
            problems.add("docker_socket", "must be an absolute path, such as /run/docker.sock, or empty");
        }
        if self.max_series < 100 {
            problems.add("max_series", "must be at least 100");
        }
        if let Err(error) = shipwatch_common::model::Labels::new(self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
            problems.add("labels", error.to_string());
        }
    }

    fn expressions(&self) -> [(&'static str, &str); 4] {
        [
            ("mount_points_exclude", &self.mount_points_exclude),
            ("fs_types_exclude", &self.fs_types_exclude),
            ("net_devices_exclude", &self.net_devices_exclude),
            ("disk_devices_exclude", &self.disk_devices_exclude),
        ]
    }
}

/// Names for `collect.disable`.
const NAMES: &[&str] = &[
    "arp",
    "bonding",
    "conntrack",
    "containers",
    "cpu",
    "cpufreq",
    "diskstats",
    "dmi",
    "entropy",
    "filefd",
    "filesystem",
    "hwmon",
    "loadavg",
    "mdadm",
    "meminfo",
    "netclass",
    "netdev",
    "netstat",
    "nvme",
    "os",
    "powersupplyclass",
    "pressure",
    "processes",
    "schedstat",
    "selinux",
    "sockstat",
    "softnet",
    "stat",
    "systemd",
    "tcpstat",
    "thermal_zone",
    "time",
    "timex",
    "udp_queues",
    "uname",
    "vmstat",
];

/// Where `/proc`, `/sys`, `/etc` and `/run` are; other places in tests.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Usually `/proc`.
    pub proc: PathBuf,
    /// Usually `/sys`.
    pub sys: PathBuf,
    /// Usually `/etc`.
    pub etc: PathBuf,
    /// Usually `/run`.
    pub run: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into(), etc: "/etc".into(), run: "/run".into() }
    }
}

/// One source of series.
pub(crate) trait Collector: Send {
    /// Its name in `collect.disable` and in the self metrics.
    fn name(&self) -> &'static str;
    /// Reads and adds what it finds.
    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()>;
}

/// Adds further series to every tick.
pub type Extra = Box<dyn FnMut(&mut Batch<'_>) + Send>;

/// All collectors of this host.
pub struct Collectors {
    collectors: Vec<Box<dyn Collector>>,
    failing: Vec<bool>,
    extra: Extra,
    own: own::Own,
    interner: Interner,
}

impl std::fmt::Debug for Collectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collectors").field("collectors", &self.collectors.len()).finish_non_exhaustive()
    }
}

impl Collectors {
    /// Prepares all collectors that are not disabled. `extra` adds the agent's own counters. Label values that people
    /// choose (mount points, device names) are masked.
    ///
    /// # Errors
    /// An expression in the configuration that does not compile.
    pub fn new(config: &Config, roots: &Roots, masker: Arc<Masker>, extra: Extra) -> Result<Self, regex::Error> {
        Self::with_statfs(config, roots, masker, extra, statfs::system())
    }

    /// As [`Collectors::new`], with another way to ask for a file system's size.
    ///
    /// # Errors
    /// An expression in the configuration that does not compile.
    pub fn with_statfs(config: &Config, roots: &Roots, masker: Arc<Masker>, extra: Extra, stat: Stat) -> Result<Self, regex::Error> {
        let exclude = |text: &str| if text.is_empty() { Ok(None) } else { Regex::new(text).map(Some) };
        let (proc, sys) = (&roots.proc, &roots.sys);
        let net = exclude(&config.net_devices_exclude)?;
        let mounts =
            filesystem::Exclude { mount_points: exclude(&config.mount_points_exclude)?, types: exclude(&config.fs_types_exclude)? };
        let all: Vec<Box<dyn Collector>> = vec![
            Box::new(cpu::Cpu::new(proc)),
            Box::new(cpu::Stat::new(proc)),
            Box::new(cpu::LoadAverage::new(proc)),
            Box::new(memory::MemInfo::new(proc)),
            Box::new(memory::VmStat::new(proc)),
            Box::new(filesystem::FileSystems::new(proc, mounts, statfs::Statfs::new(stat, config.statfs_deadline))),
            Box::new(block::DiskStats::new(roots, exclude(&config.disk_devices_exclude)?)),
            Box::new(network::NetDev::new(proc, net.clone())),
            Box::new(netclass::NetClass::new(sys, net)),
            Box::new(network::SockStat::new(proc)),
            Box::new(network::NetStat::new(proc)?),
            Box::new(network::SoftNet::new(proc)),
            Box::new(files::ConnTrack::new(proc)),
            Box::new(files::FileDescriptors::new(proc)),
            Box::new(pressure::Pressure::new(proc)),
            Box::new(host::Uname),
            Box::new(host::Os::new(&roots.etc)),
            Box::new(host::Time::new(sys)),
            Box::new(cpu::SchedStat::new(proc)),
            Box::new(netclass::Bonding::new(sys)),
            Box::new(network::Arp::new(proc)),
            Box::new(sockets::TcpStat::new(proc)),
            Box::new(sockets::UdpQueues::new(proc)),
            Box::new(timex::Timex),
            Box::new(files::Entropy::new(proc)),
            Box::new(files::SeLinux::new(sys)),
            Box::new(hwmon::HwMon::new(sys)),
            Box::new(hwmon::ThermalZones::new(sys)),
            Box::new(hardware::CpuFreq::new(sys)),
            Box::new(hardware::Dmi::new(sys)),
            Box::new(hardware::MdStat::new(proc)),
            Box::new(hardware::Nvme::new(sys)),
            Box::new(hardware::PowerSupply::new(sys)),
            Box::new(processes::Processes::new(proc, config.processes_top, Arc::clone(&masker))),
            Box::new(units::Units::new(sys, &roots.run)),
            Box::new(containers::Containers::new(proc, sys, &config.docker_socket)),
        ];
        let collectors: Vec<_> = all.into_iter().filter(|collector| !config.disable.iter().any(|name| name == collector.name())).collect();
        Ok(Self {
            failing: vec![false; collectors.len()],
            collectors,
            extra,
            own: own::Own::new(proc),
            interner: Interner::new(config.labels.clone(), config.max_series, masker),
        })
    }

    /// One tick: all series as of now, and a stale marker for each that ended since the last one.
    pub fn tick(&mut self, now_ms: UnixMs) -> shipwatch_common::protocol::MetricsBatch {
        let mut batch = self.interner.begin();
        for (collector, failing) in self.collectors.iter_mut().zip(&mut self.failing) {
            let started = Instant::now();
            let outcome = collector.collect(&mut batch);
            let labels = [("collector", collector.name())];
            batch.push("node_scrape_collector_duration_seconds", &labels, (started.elapsed().as_secs_f64() * 1e6).round() / 1e6);
            batch.push("node_scrape_collector_success", &labels, f64::from(u8::from(outcome.is_ok())));
            if let Err(error) = &outcome
                && !*failing
            {
                warn!(%error, collector = collector.name(), "collector failed; said once until it works again");
            }
            *failing = outcome.is_err();
        }
        self.own.collect(&mut batch);
        (self.extra)(&mut batch);
        let samples = batch.finish();
        shipwatch_common::protocol::MetricsBatch { ts_ms: now_ms, samples }
    }
}

/// Reads a small file of `/proc` or `/sys`; `None` where the kernel does not offer it.
pub(crate) fn read_optional(path: &std::path::Path) -> io::Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

/// An attribute of `/sys`, trimmed. Devices answer with all kinds of errors for what they do not know, so any is "not there".
pub(crate) fn attribute(path: &std::path::Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// As [`attribute`], of those that are a number.
pub(crate) fn number(path: &std::path::Path) -> Option<f64> {
    attribute(path)?.parse().ok()
}

/// Names in a directory, sorted, at most [`MAX_ENTRIES`]; none if there is no such directory.
pub(crate) fn entries(dir: &std::path::Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", dir.display()))),
    };
    let names = entries.take(MAX_ENTRIES).filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    Ok(names)
}

/// More devices than any host has.
const MAX_ENTRIES: usize = 4096;

/// An error for text that has not the expected form.
pub(crate) fn unexpected(path: &std::path::Path) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} has an unexpected form", path.display()))
}

#[cfg(test)]
mod tests;
