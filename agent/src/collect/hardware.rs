//! What the machine is made of and in which state: mainboard, NVMe drives, power supplies, software RAID, processor clocks.

use super::{Batch, Collector, attribute, entries, number, read_optional};
use std::{
    io,
    path::{Path, PathBuf},
};

/// `/sys/class/dmi/id`: maker and model.
pub(crate) struct Dmi(PathBuf);

impl Dmi {
    pub(crate) fn new(sys: &Path) -> Self {
        Self(sys.join("class/dmi/id"))
    }
}

/// Serial numbers and the machine's UUID are left out: they name one machine, and nobody asks for them here.
const DMI: [&str; 13] = [
    "bios_date",
    "bios_release",
    "bios_vendor",
    "bios_version",
    "board_name",
    "board_vendor",
    "board_version",
    "chassis_vendor",
    "chassis_version",
    "product_family",
    "product_name",
    "product_sku",
    "product_version",
];

impl Collector for Dmi {
    fn name(&self) -> &'static str {
        "dmi"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let found = DMI.iter().filter_map(|file| Some((*file, attribute(&self.0.join(file))?)));
        let mut values: Vec<(&str, String)> = found.collect();
        if values.is_empty() {
            return Ok(());
        }
        // The one file that has another name than its label.
        values.extend(attribute(&self.0.join("sys_vendor")).map(|vendor| ("system_vendor", vendor)));
        let labels: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        out.push("node_dmi_info", &labels, 1.0);
        Ok(())
    }
}

/// `/sys/class/nvme`.
pub(crate) struct Nvme(PathBuf);

impl Nvme {
    pub(crate) fn new(sys: &Path) -> Self {
        Self(sys.join("class/nvme"))
    }
}

impl Collector for Nvme {
    fn name(&self) -> &'static str {
        "nvme"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        for device in entries(&self.0)? {
            let read = |file: &str| attribute(&self.0.join(&device).join(file)).unwrap_or_default();
            let (firmware, model, serial, state) = (read("firmware_rev"), read("model"), read("serial"), read("state"));
            let labels =
                [("device", device.as_str()), ("firmware_revision", &firmware), ("model", &model), ("serial", &serial), ("state", &state)];
            out.push("node_nvme_info", &labels, 1.0);
        }
        Ok(())
    }
}

/// `/sys/class/power_supply`: mains and batteries.
pub(crate) struct PowerSupply(PathBuf);

impl PowerSupply {
    pub(crate) fn new(sys: &Path) -> Self {
        Self(sys.join("class/power_supply"))
    }
}

impl Collector for PowerSupply {
    fn name(&self) -> &'static str {
        "powersupplyclass"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        for supply in entries(&self.0)? {
            let dir = self.0.join(&supply);
            for (file, name, divisor) in [
                ("online", "node_power_supply_online", 1.0),
                ("present", "node_power_supply_present", 1.0),
                ("capacity", "node_power_supply_capacity", 1.0),
                ("cycle_count", "node_power_supply_cyclecount", 1.0),
                ("voltage_now", "node_power_supply_voltage_volt", 1e6),
                ("current_now", "node_power_supply_current_ampere", 1e6),
                ("power_now", "node_power_supply_power_watt", 1e6),
                ("energy_now", "node_power_supply_energy_watthour", 1e6),
                ("energy_full", "node_power_supply_energy_full", 1e6),
            ] {
                if let Some(value) = number(&dir.join(file)) {
                    out.push(name, &[("power_supply", &supply)], value / divisor);
                }
            }
        }
        Ok(())
    }
}

/// Processor clocks: `/sys/devices/system/cpu/cpuN/cpufreq`.
pub(crate) struct CpuFreq {
    dir: PathBuf,
    /// Bounds never change; `None` until they were read.
    bounds: Option<Vec<Bounds>>,
}

/// A processor and its clock's bounds.
type Bounds = (String, Vec<(&'static str, f64)>);

impl CpuFreq {
    pub(crate) fn new(sys: &Path) -> Self {
        Self { dir: sys.join("devices/system/cpu"), bounds: None }
    }

    fn read_bounds(dir: &Path) -> io::Result<Vec<Bounds>> {
        let mut all = Vec::new();
        for entry in entries(dir)? {
            let Some(cpu) = entry.strip_prefix("cpu").filter(|cpu| cpu.parse::<u32>().is_ok()) else { continue };
            let read = |file: &str| number(&dir.join(&entry).join("cpufreq").join(file)).map(|khz| khz * 1e3);
            let names = [
                ("cpuinfo_min_freq", "node_cpu_frequency_min_hertz"),
                ("cpuinfo_max_freq", "node_cpu_frequency_max_hertz"),
                ("scaling_min_freq", "node_cpu_scaling_frequency_min_hertz"),
                ("scaling_max_freq", "node_cpu_scaling_frequency_max_hertz"),
            ];
            let values: Vec<_> = names.iter().filter_map(|(file, name)| Some((*name, read(file)?))).collect();
            if !values.is_empty() {
                all.push((cpu.to_owned(), values));
            }
        }
        Ok(all)
    }
}

impl Collector for CpuFreq {
    fn name(&self) -> &'static str {
        "cpufreq"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let bounds = match self.bounds.take() {
            Some(bounds) => bounds,
            None => Self::read_bounds(&self.dir)?,
        };
        for (cpu, values) in &bounds {
            let labels = [("cpu", cpu.as_str())];
            if let Some(khz) = number(&self.dir.join(format!("cpu{cpu}/cpufreq/scaling_cur_freq"))) {
                out.push("node_cpu_scaling_frequency_hertz", &labels, khz * 1e3);
            }
            for (name, value) in values {
                out.push(name, &labels, *value);
            }
        }
        self.bounds = Some(bounds);
        Ok(())
    }
}

/// `/proc/mdstat`: software RAID.
pub(crate) struct MdStat(PathBuf);

impl MdStat {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("mdstat"))
    }
}

/// One array.
#[derive(Debug, Default, PartialEq)]
struct Array<'a> {
    device: &'a str,
    is_active: bool,
    /// Disks by node_exporter's states: active, failed, spare.
    disks: [f64; 3],
    required: f64,
    blocks: f64,
    /// `resync`, `recovery` (recovering), `check`, or empty.
    operation: &'a str,
    synced_blocks: Option<f64>,
}

/// `md0 : active raid1 sdb1[2](F) sda1[0]`, then `1000 blocks … [2/1] [U_]`, then perhaps `[>…] recovery = 1% (10/1000) …`.
fn parse_mdstat(text: &str) -> Vec<Array<'_>> {
    let mut arrays: Vec<Array<'_>> = Vec::new();
    for line in text.lines() {
        if let Some((device, rest)) = line.split_once(" : ").filter(|(device, _)| device.starts_with("md")) {
            let count = |mark: &str| f64::from(u32::try_from(rest.matches(mark).count()).unwrap_or(u32::MAX));
            let is_active = rest.starts_with("active");
            arrays.push(Array { device, is_active, disks: [0.0, count("(F)"), count("(S)")], ..Array::default() });
            continue;
        }
        let Some(array) = arrays.last_mut() else { continue };
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [blocks, "blocks", rest @ ..] = &words[..] {
            array.blocks = blocks.parse().unwrap_or(0.0);
            let counts = rest.iter().find_map(|word| word.strip_prefix('[')?.strip_suffix(']')?.split_once('/'));
            if let Some((required, active)) = counts {
                array.required = required.parse().unwrap_or(0.0);
                array.disks[0] = active.parse().unwrap_or(0.0);
            }
        } else if let Some(at) = words.iter().position(|word| matches!(*word, "resync" | "recovery" | "check" | "reshape")) {
            array.operation = words[at];
            let done = words.iter().find_map(|word| word.strip_prefix('(')?.split_once('/'));
            array.synced_blocks = done.and_then(|(done, _)| done.parse().ok());
        }
    }
    arrays
}

impl Collector for MdStat {
    fn name(&self) -> &'static str {
        "mdadm"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.0)? else { return Ok(()) };
        for array in parse_mdstat(&text) {
            let device = ("device", array.device);
            for (state, count) in ["active", "failed", "spare"].iter().zip(array.disks) {
                out.push("node_md_disks", &[device, ("state", state)], count);
            }
            out.push("node_md_disks_required", &[device], array.required);
            out.push("node_md_blocks", &[device], array.blocks);
            out.push("node_md_blocks_synced", &[device], array.synced_blocks.unwrap_or(array.blocks));
            let now = match array.operation {
                "" | "reshape" => {
                    if array.is_active {
                        "active"
                    } else {
                        "inactive"
                    }
                }
                "recovery" => "recovering",
                operation => operation,
            };
            for state in ["active", "inactive", "recovering", "resync", "check"] {
                out.push("node_md_state", &[device, ("state", state)], f64::from(u8::from(state == now)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_read() {
        let text = "Personalities : [raid1] [raid6]\n\
            md0 : active raid1 sdb1[2](F) sdc1[3](S) sda1[0]\n      1000 blocks super 1.2 [2/1] [U_]\n\
            \x20     [=>...]  recovery = 12.6% (126/1000) finish=1.0min speed=100K/sec\n\n\
            md1 : inactive sdd1[0](S)\n      500 blocks super 1.2\n\nunused devices: <none>\n";
        let arrays = parse_mdstat(text);
        let md0 = Array {
            device: "md0",
            is_active: true,
            disks: [1.0, 1.0, 1.0],
            required: 2.0,
            blocks: 1000.0,
            operation: "recovery",
            synced_blocks: Some(126.0),
        };
        let md1 = Array { device: "md1", disks: [0.0, 0.0, 1.0], blocks: 500.0, ..Array::default() };
        assert_eq!(arrays, [md0, md1]);
    }

    #[test]
    fn clocks_of_processors_are_found() {
        let dir = tempfile::tempdir().unwrap();
        for (cpu, khz) in [("cpu0", "800000\n"), ("cpu10", "900000\n"), ("cpuidle", "1\n")] {
            let freq = dir.path().join(cpu).join("cpufreq");
            std::fs::create_dir_all(&freq).unwrap();
            std::fs::write(freq.join("scaling_min_freq"), khz).unwrap();
        }
        let bounds = CpuFreq::read_bounds(dir.path()).unwrap();
        let name = "node_cpu_scaling_frequency_min_hertz";
        assert_eq!(bounds, [("0".to_owned(), vec![(name, 8e8)]), ("10".to_owned(), vec![(name, 9e8)])]);
    }
}
