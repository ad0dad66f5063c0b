//! Pressure stall information: `/proc/pressure`, since Linux 4.20.

use super::{Batch, Collector, read_optional};
use std::{
    io,
    path::{Path, PathBuf},
};

/// Time that tasks waited (some) or all stood still (full).
pub(crate) struct Pressure(PathBuf);

impl Pressure {
    pub(crate) fn new(proc: &Path) -> Self {
        Self(proc.join("pressure"))
    }
}

/// Seconds of the line that begins with `kind`.
fn total_s(text: &str, kind: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.split(' ').next() == Some(kind))?;
    let total = line.split(' ').find_map(|word| word.strip_prefix("total="))?;
    Some(total.parse::<f64>().ok()? / 1e6)
}

const SERIES: [(&str, &str, &str); 6] = [
    ("cpu", "some", "node_pressure_cpu_waiting_seconds_total"),
    ("io", "some", "node_pressure_io_waiting_seconds_total"),
    ("io", "full", "node_pressure_io_stalled_seconds_total"),
    ("memory", "some", "node_pressure_memory_waiting_seconds_total"),
    ("memory", "full", "node_pressure_memory_stalled_seconds_total"),
    ("irq", "full", "node_pressure_irq_stalled_seconds_total"),
];

impl Collector for Pressure {
    fn name(&self) -> &'static str {
        "pressure"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        for (file, kind, name) in SERIES {
            let text = match read_optional(&self.0.join(file)) {
                Ok(text) => text,
                // A kernel that was booted with psi=0 has the files and answers EOPNOTSUPP.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
                Err(error) => return Err(error),
            };
            if let Some(seconds) = text.as_deref().and_then(|text| total_s(text, kind)) {
                out.push(name, &[], seconds);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn totals_are_read() {
        let text = "some avg10=0.00 avg60=0.01 avg300=0.00 total=1234567\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=89\n";
        assert_eq!(super::total_s(text, "some"), Some(1.234_567));
        assert_eq!(super::total_s(text, "full"), Some(0.000_089));
        assert_eq!(super::total_s("", "full"), None);
    }
}
