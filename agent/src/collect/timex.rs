//! How well the clock is kept: `adjtimex`, asked without changing anything.

use super::{Batch, Collector};
use std::io;

/// The kernel's view of the clock's discipline.
pub(crate) struct Timex;

/// What [`Timex`] reads of `struct timex`, in the kernel's units.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    synchronised: bool,
    status: f64,
    offset: f64,
    nanoseconds: bool,
    frequency: f64,
    maxerror: f64,
    esterror: f64,
    constant: f64,
    tick: f64,
    tai: f64,
    pps: [f64; 8],
}

/// Frequencies are parts per million with 16 bits behind the point.
const PPM16: f64 = 1_000_000.0 * 65_536.0;

/// Names and factors of the pulse-per-second values, as [`Reading::pps`] orders them.
const PPS: [(&str, f64); 8] = [
    ("node_timex_pps_frequency_hertz", PPM16),
    ("node_timex_pps_jitter_seconds", 0.0),
    ("node_timex_pps_shift_seconds", 1.0),
    ("node_timex_pps_stability_hertz", PPM16),
    ("node_timex_pps_jitter_total", 1.0),
    ("node_timex_pps_calibration_total", 1.0),
    ("node_timex_pps_error_total", 1.0),
    ("node_timex_pps_stability_exceeded_total", 1.0),
];

/// `None` where the kernel forbids it, as in some containers.
#[expect(unsafe_code, reason = "no safe wrapper of adjtimex among the dependencies")]
#[expect(clippy::cast_precision_loss, reason = "values of the kernel are far below 2^53")]
fn read() -> io::Result<Option<Reading>> {
    // SAFETY: `timex` is a C struct of integers, for which all zeroes are a value; `modes: 0` asks and sets nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a whole `timex` that lives through the call.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    if state < 0 {
        let error = io::Error::last_os_error();
        let forbidden = matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS));
        return if forbidden { Ok(None) } else { Err(error) };
    }
    let pps = [timex.ppsfreq as f64, timex.jitter as f64, timex.shift as f64, timex.stabil as f64];
    let counts = [timex.jitcnt as f64, timex.calcnt as f64, timex.errcnt as f64, timex.stbcnt as f64];
    Ok(Some(Reading {
        synchronised: state != libc::TIME_ERROR,
        status: f64::from(timex.status),
        offset: timex.offset as f64,
        nanoseconds: timex.status & libc::STA_NANO != 0,
        frequency: timex.freq as f64,
        maxerror: timex.maxerror as f64,
        esterror: timex.esterror as f64,
        constant: timex.constant as f64,
        tick: timex.tick as f64,
        tai: f64::from(timex.tai),
        pps: [pps[0], pps[1], pps[2], pps[3], counts[0], counts[1], counts[2], counts[3]],
    }))
}

fn series(reading: &Reading) -> Vec<(&'static str, f64)> {
    let divisor = if reading.nanoseconds { 1e9 } else { 1e6 };
    let mut all = vec![
        ("node_timex_sync_status", f64::from(u8::from(reading.synchronised))),
        ("node_timex_status", reading.status),
        ("node_timex_offset_seconds", reading.offset / divisor),
        ("node_timex_frequency_adjustment_ratio", 1.0 + reading.frequency / PPM16),
        ("node_timex_maxerror_seconds", reading.maxerror / 1e6),
        ("node_timex_estimated_error_seconds", reading.esterror / 1e6),
        ("node_timex_loop_time_constant", reading.constant),
        ("node_timex_tick_seconds", reading.tick / 1e6),
        ("node_timex_tai_offset_seconds", reading.tai),
    ];
    // The jitter alone is in the unit of the offset.
    let pps = PPS.iter().zip(reading.pps);
    all.extend(pps.map(|((name, by), value)| (*name, value / if *by > 0.0 { *by } else { divisor })));
    all
}

impl Collector for Timex {
    fn name(&self) -> &'static str {
        "timex"
    }

    fn collect(&mut self, out: &mut Batch<'_>) -> io::Result<()> {
        let Some(reading) = read()? else { return Ok(()) };
        for (name, value) in series(&reading) {
            out.push(name, &[], value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_seconds_and_ratios() {
        let reading = Reading {
            offset: 2_500.0,
            frequency: 65_536.0,
            maxerror: 16e6,
            tick: 10_000.0,
            pps: [65_536e6, 5e6, 4.0, 0.0, 7.0, 0.0, 0.0, 0.0],
            ..Reading::default()
        };
        let value = |reading: &Reading, name: &str| series(reading).iter().find(|(own, _)| *own == name).unwrap().1;
        assert_eq!(value(&reading, "node_timex_offset_seconds"), 0.0025);
        assert_eq!(value(&Reading { nanoseconds: true, ..reading }, "node_timex_offset_seconds"), 2.5e-6);
        assert_eq!(value(&reading, "node_timex_frequency_adjustment_ratio"), 1.000_001);
        assert_eq!(value(&reading, "node_timex_maxerror_seconds"), 16.0);
        assert_eq!(value(&reading, "node_timex_tick_seconds"), 0.01);
        assert_eq!(value(&reading, "node_timex_pps_frequency_hertz"), 1.0);
        assert_eq!(value(&reading, "node_timex_pps_jitter_seconds"), 5.0);
        assert_eq!(value(&reading, "node_timex_pps_jitter_total"), 7.0);
        assert_eq!(value(&reading, "node_timex_sync_status"), 0.0);
    }

    #[test]
    fn this_kernel_answers() {
        // Without the right to, there is nothing; an error is neither.
        assert!(read().unwrap().is_none_or(|reading| reading.tick > 0.0));
    }
}
