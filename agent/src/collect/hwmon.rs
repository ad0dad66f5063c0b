//! Sensors of the mainboard and its devices: `/sys/class/hwmon`, and thermal zones.
//!
//! Read aside: a driver may ask its chip over a slow bus.

use super::{
    Batch, Collector,
    aside::{Aside, Row, Work},
    attribute, entries, number,
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Sensors take milliseconds; one that takes this long is broken.
const DEADLINE: Duration = Duration::from_secs(2);
/// Files of one chip beyond this number are left out; chips have a few dozen.
const MAX_FILES: usize = 512;

const TYPES: [&str; 14] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
    "freq",
];

/// Temperatures, fans, voltages, power.
pub(crate) struct HwMon(Aside);

impl HwMon {
    pub(crate) fn new(sys: &Path) -> Self {
        Self(Aside::new("hwmon", DEADLINE, Chips(sys.join("class/hwmon"))))
    }
}

impl Collector for HwMon {
    fn name(&self) -> &'static str {
        "hwmon"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        self.0.rows()?.iter().for_each(|row| row.push(out));
        Ok(())
    }
}

struct Chips(PathBuf);

impl Work for Chips {
    fn rows(&mut self) -> io::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for chip in entries(&self.0)? {
            chip_rows(&self.0.join(chip), &mut rows)?;
        }
        Ok(rows)
    }
}

/// Lower case, with underscores for what has no place in a label of node_exporter's.
fn clean(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, ':' | '_') { c } else { '_' };
    text.to_lowercase().chars().map(allowed).collect::<String>().trim_matches('_').to_owned()
}

/// A name that stays over reboots: bus and device where there is one; else what the driver calls itself.
fn chip_label(dir: &Path) -> String {
    let name_of = |path: Option<&Path>| path.and_then(Path::file_name).map(|name| clean(&name.to_string_lossy())).unwrap_or_default();
    if let Ok(device) = fs::canonicalize(dir.join("device")) {
        let (name, bus) = (name_of(Some(&device)), name_of(device.parent()));
        if !name.is_empty() {
            return if bus.is_empty() { name } else { format!("{bus}_{name}") };
        }
    }
    let own = clean(&attribute(&dir.join("name")).unwrap_or_default());
    if own.is_empty() { name_of(fs::canonicalize(dir).ok().as_deref()) } else { own }
}

/// `temp1_crit_alarm` is `temp`, 1 and `crit_alarm`.
fn split(file: &str) -> Option<(&str, u32, &str)> {
    let digits = file.find(|c: char| c.is_ascii_digit());
    // Without a number, as in `update_interval`, the whole is a type or nothing of ours.
    let Some(start) = digits else { return TYPES.contains(&file).then_some((file, 0, "")) };
    let (kind, rest) = file.split_at(start);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, property) = rest.split_at(end);
    let property = if property.is_empty() { "" } else { property.strip_prefix('_')? };
    TYPES.contains(&kind).then_some((kind, number.parse().ok()?, property))
}

type Sensors = BTreeMap<(String, u32), BTreeMap<String, String>>;

fn read_sensors(dir: &Path, sensors: &mut Sensors) -> io::Result<()> {
    for file in entries(dir)?.into_iter().filter(|file| split(file).is_some()).take(MAX_FILES) {
        if let (Some((kind, number, property)), Some(value)) = (split(&file), attribute(&dir.join(&file))) {
            sensors.entry((kind.to_owned(), number)).or_default().insert(property.to_owned(), value);
        }
    }
    Ok(())
}

fn chip_rows(dir: &Path, rows: &mut Vec<Row>) -> io::Result<()> {
    let chip = chip_label(dir);
    if let Some(name) = attribute(&dir.join("name")).map(|name| clean(&name)).filter(|name| !name.is_empty()) {
        rows.push(Row::new("node_hwmon_chip_names", &[("chip", &chip), ("chip_name", &name)], 1.0));
    }
    let mut sensors = Sensors::new();
    read_sensors(dir, &mut sensors)?;
    // Drivers older than Linux 3.15 have them there.
    read_sensors(&dir.join("device"), &mut sensors)?;
    for ((kind, number), properties) in sensors {
        let sensor = format!("{kind}{number}");
        let label = clean(properties.get("label").map_or("", String::as_str));
        if !label.is_empty() {
            rows.push(Row::new("node_hwmon_sensor_label", &[("chip", &chip), ("sensor", &sensor), ("label", &label)], 1.0));
        }
        let has_bare = properties.contains_key("");
        for (property, text) in &properties {
            let Ok(value) = text.parse::<f64>() else { continue };
            let (name, value) = series(&kind, property, has_bare, value);
            rows.push(Row::new(name, &[("chip", &chip), ("sensor", &sensor)], value));
        }
    }
    Ok(())
}

/// Name and value in base units.
fn series(kind: &str, property: &str, has_bare: bool, value: f64) -> (String, f64) {
    match kind {
        "beep_enable" => return ("node_hwmon_beep_enabled".to_owned(), value),
        "vrm" => return ("node_hwmon_voltage_regulator_version".to_owned(), value),
        "update_interval" => return ("node_hwmon_update_interval_seconds".to_owned(), value / 1e3),
        _ => {}
    }
    let name = match property {
        "" => format!("node_hwmon_{kind}"),
        // The value itself, unless a file without a property is.
        "input" if !has_bare => format!("node_hwmon_{kind}"),
        _ => format!("node_hwmon_{kind}_{}", clean(property)),
    };
    let interval = property.starts_with("average_interval");
    let (suffix, divisor) = match (kind, property) {
        (_, "fault" | "alarm") => ("", 1.0),
        (_, "beep") => ("_enabled", 1.0),
        ("in" | "cpu", _) => ("_volts", 1e3),
        ("temp", property) if property != "type" => ("_celsius", 1e3),
        ("curr", _) => ("_amps", 1e3),
        ("energy", _) => ("_joule_total", 1e6),
        ("power", "accuracy") | ("humidity", _) => ("", 1e6),
        ("power", _) if interval => ("_seconds", 1e3),
        ("power", _) => ("_watt", 1e6),
        ("fan", "input" | "min" | "max" | "target") => ("_rpm", 1.0),
        ("freq", _) => ("_freq_mhz", 1e6),
        _ => ("", 1.0),
    };
    (name + suffix, value / divisor)
}

/// `/sys/class/thermal`: zones and cooling devices.
pub(crate) struct ThermalZones(Aside);

impl ThermalZones {
    pub(crate) fn new(sys: &Path) -> Self {
        Self(Aside::new("thermal", DEADLINE, Zones(sys.join("class/thermal"))))
    }
}

impl Collector for ThermalZones {
    fn name(&self) -> &'static str {
        "thermal_zone"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        self.0.rows()?.iter().for_each(|row| row.push(out));
        Ok(())
    }
}

struct Zones(PathBuf);

impl Work for Zones {
    fn rows(&mut self) -> io::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for entry in entries(&self.0)? {
            let dir = self.0.join(&entry);
            let kind = attribute(&dir.join("type")).unwrap_or_default();
            if let Some(zone) = entry.strip_prefix("thermal_zone") {
                // A zone that is switched off answers with an error.
                let temperature = number(&dir.join("temp")).map(|milli| milli / 1e3);
                rows.extend(temperature.map(|value| Row::new("node_thermal_zone_temp", &[("zone", zone), ("type", &kind)], value)));
            } else if let Some(name) = entry.strip_prefix("cooling_device") {
                for (file, series) in [("cur_state", "node_cooling_device_cur_state"), ("max_state", "node_cooling_device_max_state")] {
                    let state = number(&dir.join(file));
                    rows.extend(state.map(|value| Row::new(series, &[("name", name), ("type", &kind)], value)));
                }
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_taken_apart() {
        assert_eq!(split("temp1_crit_alarm"), Some(("temp", 1, "crit_alarm")));
        assert_eq!(split("pwm2"), Some(("pwm", 2, "")));
        assert_eq!(split("update_interval"), Some(("update_interval", 0, "")));
        for other in ["name", "uevent", "temp1x", "subsystem", "hwmon0", "temp99999999999_input", ""] {
            assert_eq!(split(other), None, "{other}");
        }
    }

    #[test]
    fn a_board_becomes_these_series() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("devices/platform/coretemp.0");
        let chip = device.join("hwmon/hwmon3");
        fs::create_dir_all(&chip).unwrap();
        std::os::unix::fs::symlink(&device, chip.join("device")).unwrap();
        let class = dir.path().join("class/hwmon");
        fs::create_dir_all(&class).unwrap();
        std::os::unix::fs::symlink(&chip, class.join("hwmon3")).unwrap();
        for (file, text) in [
            ("name", "coretemp\n"),
            ("temp1_input", "45500\n"),
            ("temp1_crit", "100000\n"),
            ("temp1_crit_alarm", "0\n"),
            ("temp1_label", "Package id 0\n"),
            ("fan1_input", "1200\n"),
            ("fan1_min", "300\n"),
            ("fan1_alarm", "1\n"),
            ("in0_input", "1800\n"),
            ("power1_average", "25000000\n"),
            ("power1_average_interval", "1000\n"),
            ("pwm1", "128\n"),
            ("pwm1_enable", "2\n"),
            ("temp2_input", "garbage\n"),
        ] {
            fs::write(chip.join(file), text).unwrap();
        }
        let mut rows: Vec<String> = Chips(class)
            .rows()
            .unwrap()
            .iter()
            .map(|row| {
                assert_eq!(row.labels[0], ("chip", "platform_coretemp_0".to_owned()));
                format!(
                    "{} {} {}",
                    row.name,
                    row.labels[1..].iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(","),
                    row.value
                )
            })
            .collect();
        rows.sort();
        let expected = [
            "node_hwmon_chip_names coretemp 1",
            "node_hwmon_fan_alarm fan1 1",
            "node_hwmon_fan_min_rpm fan1 300",
            "node_hwmon_fan_rpm fan1 1200",
            "node_hwmon_in_volts in0 1.8",
            "node_hwmon_power_average_interval_seconds power1 1",
            "node_hwmon_power_average_watt power1 25",
            "node_hwmon_pwm pwm1 128",
            "node_hwmon_pwm_enable pwm1 2",
            "node_hwmon_sensor_label temp1,package_id_0 1",
            "node_hwmon_temp_celsius temp1 45.5",
            "node_hwmon_temp_crit_alarm_celsius temp1 0",
            "node_hwmon_temp_crit_celsius temp1 100",
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn zones_and_coolers_are_read() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("thermal_zone0/type", "x86_pkg_temp\n"),
            ("thermal_zone0/temp", "51250\n"),
            ("thermal_zone1/type", "off\n"),
            ("cooling_device7/type", "Processor\n"),
            ("cooling_device7/cur_state", "1\n"),
            ("cooling_device7/max_state", "10\n"),
        ] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let rows = Zones(dir.path().to_owned()).rows().unwrap();
        let expected = [
            Row::new("node_cooling_device_cur_state", &[("name", "7"), ("type", "Processor")], 1.0),
            Row::new("node_cooling_device_max_state", &[("name", "7"), ("type", "Processor")], 10.0),
            Row::new("node_thermal_zone_temp", &[("zone", "0"), ("type", "x86_pkg_temp")], 51.25),
        ];
        assert_eq!(rows, expected);
    }
}
