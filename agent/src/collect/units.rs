//! systemd's services, as far as their control groups tell: that they run, since when, and what they use.
//!
//! State and restart counter of systemd itself come over D-Bus only, which is not spoken here: a unit that runs no more has
//! no series, whether it failed or was stopped, and each start shows as a new `shipwatch_unit_start_time_seconds`.

use super::{
    Batch, Collector,
    cgroup::{self, Visit, file, keyed},
    number,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, UNIX_EPOCH},
};

const MAX_UNITS: usize = 500;
/// How often it is looked for new units; those that ended are missed at once.
const EVERY: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Units {
    root: Option<PathBuf>,
    invocations: PathBuf,
    known: Vec<String>,
    next: Option<Instant>,
}

impl Units {
    pub(crate) fn new(sys: &Path, run: &Path) -> Self {
        let root = cgroup::root(sys).map(|root| root.join("system.slice"));
        Self { root, invocations: run.join("systemd/units"), known: Vec::new(), next: None }
    }

    /// systemd writes a link for each start of a unit.
    fn started(&self, unit: &str) -> Option<f64> {
        let link = fs::symlink_metadata(self.invocations.join(format!("invocation:{unit}"))).ok()?;
        Some(link.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs_f64().floor())
    }

    fn unit(&self, dir: &Path, unit: &str, out: &mut Batch<'_>) {
        // A group stays for a moment when its last process has ended.
        if keyed(&file(dir, "cgroup.events"), "populated") != Some(1.0) {
            return;
        }
        let labels = [("name", unit)];
        out.push("node_systemd_unit_state", &[("name", unit), ("state", "active")], 1.0);
        let values = [
            ("shipwatch_unit_cpu_seconds_total", keyed(&file(dir, "cpu.stat"), "usage_usec").map(|us| us / 1e6)),
            ("shipwatch_unit_memory_bytes", number(&dir.join("memory.current"))),
            ("shipwatch_unit_oom_kills_total", keyed(&file(dir, "memory.events"), "oom_kill")),
            ("shipwatch_unit_tasks", number(&dir.join("pids.current"))),
            ("shipwatch_unit_start_time_seconds", self.started(unit)),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                out.push(name, &labels, value);
            }
        }
    }
}

impl Collector for Units {
    fn name(&self) -> &'static str {
        "systemd"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let now = Instant::now();
        if self.next.is_none_or(|next| now >= next) {
            self.next = Some(now + EVERY);
            let slices = |name: &str| if name.ends_with(".service") { Visit::Take } else { Visit::Descend };
            self.known = cgroup::walk(root, MAX_UNITS, slices);
        }
        for path in &self.known {
            let path = path.trim_start_matches('/');
            self.unit(&root.join(path), path.rsplit('/').next().unwrap_or(path), out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::series::Interner;
    use std::sync::Arc;

    #[test]
    fn services_that_run_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let slice = dir.path().join("fs/cgroup/system.slice");
        fs::create_dir_all(dir.path().join("run/systemd/units")).unwrap();
        std::os::unix::fs::symlink("0123", dir.path().join("run/systemd/units/invocation:a.service")).unwrap();
        for (unit, populated) in [("a.service", 1), ("system-getty.slice/b.service", 1), ("ended.service", 0)] {
            fs::create_dir_all(slice.join(unit)).unwrap();
            fs::write(slice.join(unit).join("cgroup.events"), format!("populated {populated}\nfrozen 0\n")).unwrap();
        }
        fs::write(dir.path().join("fs/cgroup/cgroup.controllers"), "").unwrap();
        fs::write(slice.join("a.service/cpu.stat"), "usage_usec 1500000\n").unwrap();
        fs::write(slice.join("a.service/memory.current"), "4096\n").unwrap();
        let mut units = Units::new(dir.path(), &dir.path().join("run"));
        let masker = shipwatch_common::mask::Masker::new(&shipwatch_common::mask::Config::default()).unwrap();
        let mut interner = Interner::new(std::collections::BTreeMap::new(), 100, Arc::new(masker));
        let mut batch = interner.begin();
        units.collect(&mut batch).unwrap();
        let samples = batch.finish();
        let value = |name: &str, unit: &str| {
            samples.iter().find(|(labels, _)| labels.metric_name() == name && labels.get("name") == Some(unit)).map(|(_, value)| *value)
        };
        assert_eq!(value("node_systemd_unit_state", "a.service"), Some(1.0));
        assert_eq!(value("node_systemd_unit_state", "b.service"), Some(1.0));
        assert_eq!(value("node_systemd_unit_state", "ended.service"), None);
        assert_eq!(value("shipwatch_unit_cpu_seconds_total", "a.service"), Some(1.5));
        assert_eq!(value("shipwatch_unit_memory_bytes", "a.service"), Some(4096.0));
        assert!(value("shipwatch_unit_start_time_seconds", "a.service").is_some_and(|seconds| seconds > 1.7e9));
        assert_eq!(value("shipwatch_unit_start_time_seconds", "b.service"), None);
    }
}
