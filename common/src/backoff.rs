//! Jittered exponential backoff.

use std::time::Duration;

/// Delays that double from `first` to `max`, each shortened by a random part of up to half of it, so that a fleet that
/// lost its server does not come back in one wave.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    /// Starts at `first`.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, attempt: 0 }
    }

    /// The next delay. `random` is uniform in 0..1, given by the caller; 0 gives the full delay.
    pub fn next(&mut self, random: f64) -> Duration {
        let full = self.first.saturating_mul(1u32.checked_shl(self.attempt).unwrap_or(u32::MAX)).min(self.max);
        self.attempt = (self.attempt + 1).min(31);
        full.mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
    }

    /// After success.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// A random number in 0..1 from the operating system, for [`Backoff::next`]; 0.5 should that ever fail.
#[must_use]
pub fn random_unit() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / (f64::from(u32::MAX) + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_cap_and_jitter_only_shortens() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        let delays: Vec<u64> = (0..8).map(|_| backoff.next(0.0).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(backoff.next(1.0), Duration::from_secs(15));
        backoff.reset();
        assert_eq!(backoff.next(0.5), Duration::from_millis(750));
        assert!((0.0..1.0).contains(&random_unit()));
    }
}
