//! Pseudo-random choices from a seed.

use std::time::Duration;

/// SplitMix64: the same seed gives the same walk on every machine.
#[derive(Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// An index below `count`; 0 if `count` is 0.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % (count as u64).max(1)).unwrap_or_default()
    }

    /// True in `percent` of a hundred cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// A random duration shorter than `most`, in whole milliseconds.
    pub(crate) fn below(&mut self, most: Duration) -> Duration {
        Duration::from_millis(self.next() % u64::try_from(most.as_millis()).unwrap_or(u64::MAX).max(1))
    }

    pub(crate) fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_secs(least) + self.below(Duration::from_secs(most - least))
    }
}
