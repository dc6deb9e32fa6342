//! Back-off with full jitter, from a seeded sequence so that a simulation can repeat it.

/// Shortest wait before anything is tried again, in milliseconds.
pub const BACKOFF_MIN_MS: u64 = 50;
/// Upper bound of the wait after the first failure, in milliseconds; it doubles with each further one.
pub const BACKOFF_BASE_MS: u64 = 250;
/// Longest wait before a request is tried again, in milliseconds.
pub const BACKOFF_MAX_MS: u64 = 60_000;

/// A SplitMix64 sequence (Steele, Lea, Flood 2014): good enough to spread retries, no secret.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Anything from `min_ms` up to `max_ms`.
    pub(super) fn between_ms(&mut self, min_ms: u64, max_ms: u64) -> u64 {
        min_ms + self.next() % (max_ms.saturating_sub(min_ms) + 1)
    }

    /// A wait after the `failures`-th failure in a row (from 1): anything from [`BACKOFF_MIN_MS`]
    /// up to `base_ms` doubled `failures - 1` times, and never more than `max_ms`.
    pub(super) fn backoff_ms(&mut self, failures: u32, base_ms: u64, max_ms: u64) -> u64 {
        let doublings = failures.saturating_sub(1).min(32);
        let ceiling = base_ms.saturating_mul(1 << doublings).min(max_ms).max(BACKOFF_MIN_MS);
        BACKOFF_MIN_MS + self.next() % (ceiling - BACKOFF_MIN_MS + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Retries are unlimited in number but bounded in rate, and a wait is never longer than promised.
        #[test]
        fn a_wait_stays_between_its_bounds(seed: u64, failures in 0u32..200) {
            let wait = Jitter::new(seed).backoff_ms(failures, BACKOFF_BASE_MS, BACKOFF_MAX_MS);
            let ceiling = (0..failures.saturating_sub(1)).fold(BACKOFF_BASE_MS, |ceiling, _| (ceiling * 2).min(BACKOFF_MAX_MS));
            prop_assert!((BACKOFF_MIN_MS..=ceiling).contains(&wait), "{wait} after {failures}");
        }
    }

    /// Without jitter a thousand gateways would return to a restarted server in step.
    #[test]
    fn waits_are_spread_over_the_whole_interval() {
        let mut jitter = Jitter::new(1);
        let waits: Vec<u64> = (0..1_000).map(|_| jitter.backoff_ms(9, BACKOFF_BASE_MS, BACKOFF_MAX_MS)).collect();
        let quarter = |low: u64, high: u64| waits.iter().filter(|&&wait| wait >= low && wait < high).count();
        for (low, high) in [(0, 15_000), (15_000, 30_000), (30_000, 45_000), (45_000, 60_001)] {
            assert!(quarter(low, high) > 150, "few waits between {low} and {high} ms");
        }
    }
}
