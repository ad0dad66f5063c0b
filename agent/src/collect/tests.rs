use super::*;
use proptest::prelude::*;
use std::{fs, path::Path};

fn collectors(proc: &Path, config: &Config, stat: Stat) -> Collectors {
    let roots = Roots { proc: proc.to_owned(), sys: proc.join("no-sys"), etc: proc.join("no-etc"), run: proc.join("no-run") };
    let masker = Arc::new(Masker::new(&shipwatch_common::mask::Config::default()).unwrap());
    Collectors::with_statfs(config, &roots, masker, Box::new(|_| {}), stat).unwrap()
}

fn fixed() -> Stat {
    Arc::new(|_| Ok(FsStat { block_bytes: 4096, blocks: 100, free_blocks: 50, available_blocks: 40, files: 10, free_files: 9 }))
}

fn write(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A small `/proc` of an older kernel: no pressure, no guest time on one processor.
fn fixture() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(
        root,
        "stat",
        "cpu  10 20 30 40 50 60 70 80 90 100\ncpu0 1 2 3 400 5 6 7 8 9 10\ncpu3 100 0 0 0\nintr 12345 0 9\nctxt 99\nbtime 1700000000\nprocesses 7\nprocs_running 2\nprocs_blocked 0\n",
    );
    write(root, "loadavg", "0.52 0.48 1.00 2/345 6789\n");
    write(root, "meminfo", "MemTotal:       16384 kB\nActive(anon):  8 kB\nHugePages_Total:       3\n");
    write(root, "vmstat", "nr_free_pages 5\npgpgin 6\npgmajfault 7\noom_kill 1\n");
    write(
        root,
        "1/mountinfo",
        "24 1 254:0 / / rw shared:1 - ext4 /dev/vda1 rw\n25 24 0:5 / /proc rw - proc proc rw\n26 24 0:9 / /data ro - xfs /dev/vdb rw\n",
    );
    write(root, "diskstats", " 254 0 vda 10 1 200 12345 20 2 400 50 0 60 70\n 254 1 vda1 1 1 1 1 1 1 1 1 1 1 1\n");
    write(root, "net/dev", "Inter-|   Receive\n face |bytes\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n");
    write(root, "net/sockstat", "sockets: used 9\nTCP: inuse 5 orphan 0 tw 1 alloc 6 mem 2\n");
    write(root, "net/netstat", "TcpExt: SyncookiesSent Foo ListenDrops\nTcpExt: 1 2 3\n");
    write(root, "net/softnet_stat", "0000000a 00000001 00000002 0 0 0 0 0 0 0 0 0 00000003\n");
    write(root, "1/stat", "1 (init) S 0 1 1 0 -1 4194560 0 0 0 0 150 50 0 0 20 0 1 0 5 1000 2 1");
    write(root, "1/cmdline", "/sbin/init\0--user\0alice@example.com\0");
    write(root, "net/arp", "IP address HW type\n10.0.0.1 0x1 0x2 02:fc:00:00:00:05 * eth0\n10.0.0.2 0x1 0x2 02:fc:00:00:00:06 * eth0\n");
    write(root, "net/tcp", "sl\n 0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 0\n 1: 0100007F:1F90 0:0 01 0000000A:00000010 0\n");
    write(root, "net/udp", "sl\n 0: 0100007F:1F90 00000000:0000 07 00000001:00000002 0\n");
    write(root, "net/stat/nf_conntrack", "entries found drop\n0a 01 10\n0a 02 ff\n");
    write(root, "schedstat", "version 15\ncpu0 1 2 3 4 5 6 2000000000 500000000 9\n");
    write(root, "sys/kernel/random/entropy_avail", "256\n");
    write(root, "sys/fs/file-nr", "1024\t0\t9223372036854775807\n");
    dir
}

fn shown(batch: &shipwatch_common::protocol::MetricsBatch) -> Vec<String> {
    let own = ["node_scrape", "node_time", "node_uname", "node_os", "process_", "shipwatch_agent"];
    let mut lines: Vec<String> = batch
        .samples
        .iter()
        .map(|(labels, value)| format!("{} {value}", labels.without(&["job"])))
        .filter(|line| !own.iter().any(|prefix| line.starts_with(prefix)))
        .collect();
    lines.sort();
    lines
}

#[test]
fn a_whole_proc_becomes_these_series() {
    let dir = fixture();
    let mut all = collectors(dir.path(), &Config::default(), fixed());
    let lines = shown(&all.tick(1_000)).join("\n") + "\n";
    let golden = include_str!("fixtures/expected.txt");
    assert!(lines == golden, "expected what fixtures/expected.txt says, got:\n{lines}");
}

#[test]
fn a_series_that_ends_is_marked_stale_once() {
    let dir = fixture();
    let mut all = collectors(dir.path(), &Config::default(), fixed());
    let before = all.tick(1_000);
    write(dir.path(), "net/dev", "a\nb\n");
    let stale = |batch: &shipwatch_common::protocol::MetricsBatch| {
        batch.samples.iter().filter(|(_, value)| shipwatch_common::model::metric::is_stale_marker(*value)).count()
    };
    assert_eq!((stale(&before), stale(&all.tick(2_000)), stale(&all.tick(3_000))), (0, 16, 0));
}

#[test]
fn a_hung_file_system_costs_only_itself() {
    let dir = fixture();
    let (_hold, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let stat: Stat = Arc::new(move |path| {
        if path == Path::new("/data") {
            let _released = gate.lock().unwrap().recv();
        }
        Ok(FsStat::default())
    });
    let config = Config { statfs_deadline: Duration::from_millis(30), ..Config::default() };
    let mut all = collectors(dir.path(), &config, stat);
    for _ in 0..3 {
        let lines = shown(&all.tick(1_000)).join("\n");
        assert!(lines.contains(r#"node_filesystem_device_error{device="/dev/vdb",fstype="xfs",mountpoint="/data"} 1"#), "{lines}");
        assert!(lines.contains(r#"node_filesystem_device_error{device="/dev/vda1",fstype="ext4",mountpoint="/"} 0"#));
        assert!(lines.contains("node_load1 0.52"));
    }
}

#[test]
fn a_broken_file_fails_its_collector_and_the_bound_drops() {
    let dir = fixture();
    write(dir.path(), "loadavg", "nonsense");
    let config = Config { disable: vec!["netdev".into()], max_series: 100, ..Config::default() };
    let mut all = collectors(dir.path(), &config, fixed());
    let batch = all.tick(1_000);
    let value = |name: &str, pair: (&str, &str)| {
        batch.samples.iter().find(|(labels, _)| labels.metric_name() == name && labels.get(pair.0) == Some(pair.1)).map(|(_, value)| *value)
    };
    assert_eq!(value("node_scrape_collector_success", ("collector", "loadavg")), Some(0.0));
    assert_eq!(value("node_scrape_collector_success", ("collector", "cpu")), Some(1.0));
    assert_eq!(value("node_scrape_collector_success", ("collector", "netdev")), None);
    assert!(batch.samples.len() <= 100);
}

#[test]
fn this_machine_is_collected() {
    let masker = Arc::new(Masker::new(&shipwatch_common::mask::Config::default()).unwrap());
    let mut all = Collectors::new(&Config::default(), &Roots::default(), masker, Box::new(|_| {})).unwrap();
    let batch = all.tick(1_000);
    for name in [
        "node_cpu_seconds_total",
        "node_memory_MemTotal_bytes",
        "node_filesystem_size_bytes",
        "node_network_receive_bytes_total",
        "node_uname_info",
    ] {
        assert!(batch.samples.iter().any(|(labels, _)| labels.metric_name() == name), "{name} is missing");
    }
    let facts = facts();
    assert!(facts.cpus > 0 && facts.memory_bytes > 0 && !facts.kernel.is_empty());
}

#[test]
fn mistakes_in_the_configuration_are_told() {
    let mut problems = Problems::new();
    Config { disable: vec!["netdevs".into()], net_devices_exclude: "(".into(), interval: Duration::ZERO, ..Config::default() }
        .check(&mut problems);
    let told = problems.to_string();
    assert!(told.contains("did you mean `netdev`?") && told.contains("net_devices_exclude") && told.contains("interval"), "{told}");
}

proptest! {
    /// Whatever the kernel writes, a tick ends without a panic.
    #[test]
    fn random_files_never_panic(text in "(cpu[0-9]{0,2}|Tcp:|eth0:|some|[a-z(): =0-9./-]{0,12}|[ \n\t]){0,60}") {
        let dir = tempfile::tempdir().unwrap();
        for file in ["stat", "loadavg", "meminfo", "vmstat", "1/mountinfo", "1/stat", "1/io", "1/cmdline", "diskstats", "net/dev", "net/sockstat", "net/netstat", "net/snmp6", "net/softnet_stat", "sys/fs/file-nr", "pressure/cpu", "net/arp", "net/tcp", "net/udp6", "net/stat/nf_conntrack", "schedstat", "sys/kernel/random/poolsize"] {
            write(dir.path(), file, &text);
        }
        let mut all = collectors(dir.path(), &Config::default(), fixed());
        prop_assert!(!all.tick(1_000).samples.is_empty());
    }
}
