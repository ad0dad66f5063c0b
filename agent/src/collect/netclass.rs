//! Attributes of network devices: `/sys/class/net`, and bonds.
//!
//! Some twenty files a device, of which few ever change: those are read when the device appears, when its carrier changed,
//! and every [`STEADY_TICKS`] ticks.

use super::{Batch, Collector, attribute, entries, number};
use regex::Regex;
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

/// After so many ticks even attributes that hardly change are read again.
const STEADY_TICKS: u32 = 8;

/// File, series and factor of what hardly changes.
const STEADY: [(&str, &str, f64); 13] = [
    ("addr_assign_type", "node_network_address_assign_type", 1.0),
    ("dev_id", "node_network_device_id", 1.0),
    ("dormant", "node_network_dormant", 1.0),
    ("flags", "node_network_flags", 1.0),
    ("ifindex", "node_network_iface_id", 1.0),
    ("iflink", "node_network_iface_link", 1.0),
    ("link_mode", "node_network_iface_link_mode", 1.0),
    ("mtu", "node_network_mtu_bytes", 1.0),
    ("name_assign_type", "node_network_name_assign_type", 1.0),
    ("netdev_group", "node_network_net_dev_group", 1.0),
    ("speed", "node_network_speed_bytes", 125_000.0),
    ("tx_queue_len", "node_network_transmit_queue_length", 1.0),
    ("type", "node_network_protocol_type", 1.0),
];

/// File and series of what is read in every tick.
const LIVELY: [(&str, &str); 3] = [
    ("carrier", "node_network_carrier"),
    ("carrier_changes", "node_network_carrier_changes_total"),
    ("statistics/rx_nohandler", "node_network_receive_nohandler_total"),
];

/// See the module.
pub(crate) struct NetClass {
    dir: PathBuf,
    exclude: Option<Regex>,
    known: HashMap<String, Steady>,
}

/// What is known of a device.
#[derive(Default)]
struct Steady {
    values: Vec<(&'static str, f64)>,
    /// Values of `adminstate`, `address`, `broadcast`, `duplex`, `ifalias`.
    info: [String; 5],
    carrier_changes: Option<f64>,
    age: u32,
    seen: bool,
}

impl Steady {
    fn read(dir: &Path, carrier_changes: Option<f64>) -> Self {
        let mut values = Vec::with_capacity(STEADY.len() + 2);
        for (file, name, factor) in STEADY {
            // A speed of -1 is an unknown one.
            if let Some(value) = integer(dir, file).filter(|value| file != "speed" || *value >= 0.0) {
                values.push((name, value * factor));
            }
        }
        for (file, name) in [
            ("carrier_up_count", "node_network_carrier_up_changes_total"),
            ("carrier_down_count", "node_network_carrier_down_changes_total"),
        ] {
            values.extend(number(&dir.join(file)).map(|value| (name, value)));
        }
        let read = |file: &str| attribute(&dir.join(file)).unwrap_or_default();
        let admin = match integer(dir, "flags") {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "flags are 32 bits")]
            Some(flags) => {
                if flags as u32 & 1 == 1 {
                    "up"
                } else {
                    "down"
                }
            }
            None => "unknown",
        };
        let info = [admin.to_owned(), read("address"), read("broadcast"), read("duplex"), read("ifalias")];
        Self { values, info, carrier_changes, age: 0, seen: true }
    }
}

/// A decimal number, or a hexadecimal one behind `0x`.
fn integer(dir: &Path, file: &str) -> Option<f64> {
    let text = attribute(&dir.join(file))?;
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok().map(f64::from),
        None => text.parse().ok(),
    }
}

impl NetClass {
    pub(crate) fn new(sys: &Path, exclude: Option<Regex>) -> Self {
        Self { dir: sys.join("class/net"), exclude, known: HashMap::new() }
    }

    fn device(&mut self, device: &str, out: &mut Batch<'_>) {
        let dir = self.dir.join(device);
        let labels = [("device", device)];
        // Attributes of a device that is down answer EINVAL; they are simply not there.
        let mut changes = None;
        for (file, name) in LIVELY {
            let Some(value) = number(&dir.join(file)) else { continue };
            if file == "carrier_changes" {
                changes = Some(value);
            }
            out.push(name, &labels, value);
        }
        let state = attribute(&dir.join("operstate")).unwrap_or_default();
        out.push("node_network_up", &labels, f64::from(u8::from(state == "up")));
        let steady = self.known.entry(device.to_owned()).or_default();
        steady.age += 1;
        if !steady.seen && steady.values.is_empty() || steady.age >= STEADY_TICKS || steady.carrier_changes != changes {
            *steady = Steady::read(&dir, changes);
        }
        steady.seen = true;
        for (name, value) in &steady.values {
            out.push(name, &labels, *value);
        }
        let [admin, address, broadcast, duplex, alias] = &steady.info;
        let info = [
            ("device", device),
            ("operstate", &state),
            ("adminstate", admin),
            ("address", address),
            ("broadcast", broadcast),
            ("duplex", duplex),
            ("ifalias", alias),
        ];
        out.push("node_network_info", &info, 1.0);
    }
}

impl Collector for NetClass {
    fn name(&self) -> &'static str {
        "netclass"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        for steady in self.known.values_mut() {
            steady.seen = false;
        }
        for device in entries(&self.dir)? {
            // `bonding_masters` is a file.
            if device != "bonding_masters" && !self.exclude.as_ref().is_some_and(|regex| regex.is_match(&device)) {
                self.device(&device, out);
            }
        }
        self.known.retain(|_, steady| steady.seen);
        Ok(())
    }
}

/// Bonded devices: how many they should have and how many work.
pub(crate) struct Bonding(PathBuf);

impl Bonding {
    pub(crate) fn new(sys: &Path) -> Self {
        Self(sys.join("class/net"))
    }
}

impl Collector for Bonding {
    fn name(&self) -> &'static str {
        "bonding"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let masters = attribute(&self.0.join("bonding_masters")).unwrap_or_default();
        for master in masters.split_ascii_whitespace() {
            let Some(slaves) = attribute(&self.0.join(master).join("bonding/slaves")) else { continue };
            let (mut all, mut active) = (0, 0);
            for slave in slaves.split_ascii_whitespace() {
                let state = attribute(&self.0.join(master).join(format!("lower_{slave}/bonding_slave/mii_status")));
                all += 1;
                active += u32::from(state.as_deref() == Some("up"));
            }
            out.push("node_bonding_slaves", &[("master", master)], f64::from(all));
            out.push("node_bonding_active", &[("master", master)], f64::from(active));
        }
        Ok(())
    }
}
