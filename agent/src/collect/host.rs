//! What the host is: kernel, distribution, clock; and the facts for the server, by way of sysinfo.

use super::{Batch, Collector, read_optional};
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

impl Collector for Os {
    fn name(&self) -> &'static str {
        "os"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(text) = read_optional(&self.0)? else { return Ok(()) };
        let values = parse(&text);
        let keys =
            ["ID", "ID_LIKE", "NAME", "PRETTY_NAME", "VARIANT", "VARIANT_ID", "VERSION", "VERSION_CODENAME", "VERSION_ID", "BUILD_ID"];
        let found: Vec<(String, &str)> = keys
            .iter()
            .filter_map(|key| Some((key.to_lowercase(), values.get(key)?.as_str())))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let labels: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        out.push("node_os_info", &labels, 1.0);
        Ok(())
    }
}

/// The clock.
pub(crate) struct Time;

impl Collector for Time {
    fn name(&self) -> &'static str {
        "time"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in a float for 285,000 years")]
        out.push("node_time_seconds", &[], shipwatch_common::time::now_ms() as f64 / 1000.0);
        Ok(())
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
    }
}
