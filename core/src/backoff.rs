//! Delays between tries that double up to a maximum: pure.

use std::time::Duration;

/// How long to wait between tries of the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The delay after the first try.
    pub first: Duration,
    /// The longest delay.
    pub max: Duration,
}

impl Backoff {
    /// Starts at `first` and doubles up to `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max }
    }

    /// The delay after the `tries`-th try, counted from 1: `first` × 2^(`tries` − 1), at most `max`.
    pub fn delay(&self, tries: u32) -> Duration {
        let factor = 1u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_doubles_from_the_first_to_the_maximum_and_never_overflows() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let delays: Vec<_> = (0..8).map(|tries| backoff.delay(tries).as_millis()).collect();
        assert_eq!(delays, [100, 100, 200, 400, 800, 1_600, 2_000, 2_000]);
        for tries in [31, 32, 33, 64, u32::MAX] {
            assert_eq!(backoff.delay(tries), Duration::from_secs(2), "{tries}");
        }
    }
}
