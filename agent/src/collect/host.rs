//! What the host is: kernel, distribution, clock; and the facts for the server, by way of sysinfo.

use super::{Batch, Collector, attribute, entries, read_optional};
use shipwatch_common::model::HostFacts;
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

/// `uname`.
pub(crate) struct Uname;

impl Collector for Uname {
    fn name(&self) -> &'static str {
        "uname"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let uname = rustix::system::uname();
        let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
        let values = [
            ("sysname", text(uname.sysname())),
            ("release", text(uname.release())),
            ("version", text(uname.version())),
            ("machine", text(uname.machine())),
            ("nodename", text(uname.nodename())),
            ("domainname", text(uname.domainname())),
        ];
        let labels: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
        out.push("node_uname_info", &labels, 1.0);
        Ok(())
    }
}

/// `/etc/os-release`.
pub(crate) struct Os(PathBuf);

impl Os {
    pub(crate) fn new(etc: &Path) -> Self {
        Self(etc.join("os-release"))
    }
}

fn parse(text: &str) -> HashMap<&str, String> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once('='));
    pairs.map(|(key, value)| (key, value.trim_matches(['"', '\'']).replace("\\", ""))).collect()
}

/// `22.04.3` is 22.04.
fn major_and_minor(text: &str) -> Option<f64> {
    let end = text.match_indices('.').nth(1).map_or(text.len(), |(at, _)| at);
    text[..end].parse().ok()
}

impl Collector for Os {
    fn name(&self) -> &'static str {
        "os"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.0)? else { return Ok(()) };
        let values = parse(&text);
        let keys = [
            "ID",
            "ID_LIKE",
            "NAME",
            "PRETTY_NAME",
            "VARIANT",
            "VARIANT_ID",
            "VERSION",
            "VERSION_CODENAME",
            "VERSION_ID",
            "BUILD_ID",
            "IMAGE_ID",
            "IMAGE_VERSION",
        ];
        let found: Vec<(String, &str)> = keys
            .iter()
            .filter_map(|key| Some((key.to_lowercase(), values.get(key)?.as_str())))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let labels: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        out.push("node_os_info", &labels, 1.0);
        if let Some(version) = values.get("VERSION_ID").and_then(|text| major_and_minor(text)) {
            let get = |key: &str| values.get(key).map_or("", String::as_str);
            out.push("node_os_version", &[("id", get("ID")), ("id_like", get("ID_LIKE")), ("name", get("NAME"))], version);
        }
        Ok(())
    }
}

/// The clock, its zone and the kernel's source of it.
pub(crate) struct Time(PathBuf);

impl Time {
    pub(crate) fn new(sys: &Path) -> Self {
        Self(sys.join("devices/system/clocksource"))
    }

    fn clock_sources(&self, out: &mut Batch<'_>) -> io::Result<()> {
        for entry in entries(&self.0)? {
            let Some(device) = entry.strip_prefix("clocksource") else { continue };
            for (file, name) in [
                ("available_clocksource", "node_time_clocksource_available_info"),
                ("current_clocksource", "node_time_clocksource_current_info"),
            ] {
                let text = attribute(&self.0.join(&entry).join(file)).unwrap_or_default();
                for source in text.split_ascii_whitespace() {
                    out.push(name, &[("device", device), ("clocksource", source)], 1.0);
                }
            }
        }
        Ok(())
    }
}

impl Collector for Time {
    fn name(&self) -> &'static str {
        "time"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in a float for 285,000 years")]
        out.push("node_time_seconds", &[], shipwatch_common::time::now_ms() as f64 / 1000.0);
        let now = jiff::Timestamp::now();
        let zone = jiff::tz::TimeZone::system();
        let offset = zone.to_offset_info(now);
        out.push("node_time_zone_offset_seconds", &[("time_zone", offset.abbreviation())], f64::from(offset.offset().seconds()));
        self.clock_sources(out)
    }
}

/// What the server is told of this host.
#[must_use]
pub fn facts() -> HostFacts {
    use sysinfo::System;
    let mut system = System::new();
    system.refresh_memory();
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    HostFacts {
        hostname: System::host_name().unwrap_or_default(),
        os: System::long_os_version().unwrap_or_default(),
        kernel: System::kernel_version().unwrap_or_default(),
        arch: System::cpu_arch(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        cpus: u32::try_from(system.cpus().len()).unwrap_or(u32::MAX),
        memory_bytes: system.total_memory(),
        boot_time_s: i64::try_from(System::boot_time()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn quotes_are_taken_off() {
        let values = super::parse("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n# x\n");
        assert_eq!(values["PRETTY_NAME"], "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(values["ID"], "debian");
        assert_eq!(super::major_and_minor("22.04.3"), Some(22.04));
        assert_eq!((super::major_and_minor("12"), super::major_and_minor("rolling")), (Some(12.0), None));
    }
}
