//! Network devices, sockets and protocol counters.

use super::{Batch, Collector, read_optional, unexpected};
use regex::Regex;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// `/proc/net/dev`.
pub(crate) struct NetDev {
    path: PathBuf,
    exclude: Option<Regex>,
}

impl NetDev {
    pub(crate) fn new(proc: &Path, exclude: Option<Regex>) -> Self {
        Self { path: proc.join("net/dev"), exclude }
    }
}

const NET_COLUMNS: [&str; 16] = [
    "node_network_receive_bytes_total",
    "node_network_receive_packets_total",
    "node_network_receive_errs_total",
    "node_network_receive_drop_total",
    "node_network_receive_fifo_total",
    "node_network_receive_frame_total",
    "node_network_receive_compressed_total",
    "node_network_receive_multicast_total",
    "node_network_transmit_bytes_total",
    "node_network_transmit_packets_total",
    "node_network_transmit_errs_total",
    "node_network_transmit_drop_total",
    "node_network_transmit_fifo_total",
    "node_network_transmit_colls_total",
    "node_network_transmit_carrier_total",
    "node_network_transmit_compressed_total",
];

impl Collector for NetDev {
    fn name(&self) -> &'static str {
        "netdev"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.path)? else { return Ok(()) };
        for line in text.lines().skip(2) {
            let Some((device, values)) = line.rsplit_once(':') else { continue };
            let device = device.trim();
            if self.exclude.as_ref().is_some_and(|regex| regex.is_match(device)) {
                continue;
            }
            for (name, word) in NET_COLUMNS.iter().zip(values.split_ascii_whitespace()) {
                if let Ok(value) = word.parse() {
                    out.push(name, &[("device", device)], value);
                }
            }
        }
        Ok(())
    }
}

/// `/proc/net/sockstat` and `sockstat6`.
pub(crate) struct SockStat {
    proc: PathBuf,
    page_bytes: f64,
}

impl SockStat {
    pub(crate) fn new(proc: &Path) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "4 to 64 KiB")]
        Self { proc: proc.to_owned(), page_bytes: rustix::param::page_size() as f64 }
    }
}

impl Collector for SockStat {
    fn name(&self) -> &'static str {
        "sockstat"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        for file in ["net/sockstat", "net/sockstat6"] {
            let Some(text) = read_optional(&self.proc.join(file))? else { continue };
            for line in text.lines() {
                let Some((protocol, rest)) = line.split_once(':') else { continue };
                let words: Vec<&str> = rest.split_ascii_whitespace().collect();
                for pair in words.chunks_exact(2) {
                    let Ok(value) = pair[1].parse::<f64>() else { continue };
                    out.push(&format!("node_sockstat_{protocol}_{}", pair[0]), &[], value);
                    if pair[0] == "mem" {
                        out.push(&format!("node_sockstat_{protocol}_mem_bytes"), &[], value * self.page_bytes);
                    }
                }
            }
        }
        Ok(())
    }
}

/// `/proc/net/netstat`, `snmp` and `snmp6`, the default set of node_exporter.
pub(crate) struct NetStat {
    proc: PathBuf,
    wanted: Regex,
}

impl NetStat {
    pub(crate) fn new(proc: &Path) -> Result<Self, regex::Error> {
        let wanted = Regex::new(
            "^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)\
             |TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)\
             |Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)\
             |Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$",
        )?;
        Ok(Self { proc: proc.to_owned(), wanted })
    }
}

/// Pairs of lines: `Tcp: Name Name …` and `Tcp: 1 2 …`.
fn parse_pairs(text: &str) -> Vec<(String, f64)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut values = Vec::new();
    for pair in lines.chunks_exact(2) {
        let (Some((protocol, names)), Some((other, numbers))) = (pair[0].split_once(':'), pair[1].split_once(':')) else { continue };
        if protocol != other {
            continue;
        }
        for (name, number) in names.split_ascii_whitespace().zip(numbers.split_ascii_whitespace()) {
            if let Ok(number) = number.parse() {
                values.push((format!("{protocol}_{name}"), number));
            }
        }
    }
    values
}

/// Lines of `snmp6`: `Udp6InDatagrams 5` is `Udp6_InDatagrams`.
fn parse_snmp6(text: &str) -> Vec<(String, f64)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (name, number) = (words.next()?, words.next()?.parse().ok()?);
            let (protocol, rest) = name.split_once('6')?;
            Some((format!("{protocol}6_{rest}"), number))
        })
        .collect()
}

impl Collector for NetStat {
    fn name(&self) -> &'static str {
        "netstat"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let read = |file: &str| read_optional(&self.proc.join(file)).map(Option::unwrap_or_default);
        let mut values = parse_pairs(&read("net/netstat")?);
        values.extend(parse_pairs(&read("net/snmp")?));
        values.extend(parse_snmp6(&read("net/snmp6")?));
        for (name, value) in values {
            if self.wanted.is_match(&name) {
                out.push(&format!("node_netstat_{name}"), &[], value);
            }
        }
        Ok(())
    }
}

/// `/proc/net/softnet_stat`.
pub(crate) struct SoftNet(PathBuf);

impl SoftNet {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("net/softnet_stat"))
    }
}

impl Collector for SoftNet {
    fn name(&self) -> &'static str {
        "softnet"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.0)? else { return Ok(()) };
        for (line_number, line) in text.lines().enumerate() {
            let columns: Vec<u32> = line.split_ascii_whitespace().map_while(|word| u32::from_str_radix(word, 16).ok()).collect();
            let [processed, dropped, squeezed, ..] = columns[..] else { return Err(unexpected(&self.0)) };
            // Since Linux 5.14 column 12 names the processor; before, lines of offline ones were left out unnoticed.
            let cpu = columns.get(12).map_or_else(|| line_number.to_string(), ToString::to_string);
            let labels = [("cpu", cpu.as_str())];
            out.push("node_softnet_processed_total", &labels, f64::from(processed));
            out.push("node_softnet_dropped_total", &labels, f64::from(dropped));
            out.push("node_softnet_times_squeezed_total", &labels, f64::from(squeezed));
            // Each kernel has a few more columns than the one before.
            for (column, name) in [
                (8, "node_softnet_cpu_collision_total"),
                (9, "node_softnet_received_rps_total"),
                (10, "node_softnet_flow_limit_count_total"),
                (11, "node_softnet_backlog_len"),
            ] {
                if let Some(value) = columns.get(column) {
                    out.push(name, &labels, f64::from(*value));
                }
            }
        }
        Ok(())
    }
}

/// `/proc/net/arp`: neighbours of IPv4.
pub(crate) struct Arp(PathBuf);

impl Arp {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("net/arp"))
    }
}

/// Entries by device, the last column.
fn count_arp(text: &str) -> BTreeMap<&str, u32> {
    let mut devices = BTreeMap::new();
    for line in text.lines().skip(1) {
        if let Some(device) = line.split_ascii_whitespace().nth(5) {
            *devices.entry(device).or_default() += 1;
        }
    }
    devices
}

impl Collector for Arp {
    fn name(&self) -> &'static str {
        "arp"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.0)? else { return Ok(()) };
        for (device, count) in count_arp(&text) {
            out.push("node_arp_entries", &[("device", device)], f64::from(count));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_protocols_are_read() {
        let pairs = parse_pairs("TcpExt: SyncookiesSent ListenDrops\nTcpExt: 1 22\nIpExt: InOctets\nIpExt: 7\nodd: x");
        assert_eq!(pairs, [("TcpExt_SyncookiesSent".into(), 1.0), ("TcpExt_ListenDrops".into(), 22.0), ("IpExt_InOctets".into(), 7.0)]);
        assert_eq!(parse_snmp6("Udp6InDatagrams\t5\nIp6InReceives 6"), [("Udp6_InDatagrams".into(), 5.0), ("Ip6_InReceives".into(), 6.0)]);
    }
}
