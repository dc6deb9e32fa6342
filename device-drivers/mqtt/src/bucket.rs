//! A token bucket: what a device may send now, and when it may send again.

use std::time::Duration;

use tokio::time::Instant;

const NANOS_PER_S: u64 = 1_000_000_000;

/// Holds at most `capacity` tokens and gains `per_second`.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    per_second: u64,
    /// Capacity and level in units of 1/[`NANOS_PER_S`] token.
    capacity: u64,
    level: u64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, capacity: u32, now: Instant) -> Self {
        let capacity = u64::from(capacity.max(1)) * NANOS_PER_S;
        Self { per_second: u64::from(per_second.max(1)), capacity, level: capacity, filled: now }
    }

    /// How long to wait until `tokens` are there; nothing if they are. More than the capacity counts as the capacity.
    pub(crate) fn wait_for(&mut self, tokens: u64, now: Instant) -> Option<Duration> {
        self.fill(now);
        let missing = self.cost(tokens).saturating_sub(self.level);
        (missing > 0).then(|| Duration::from_nanos(missing.div_ceil(self.per_second)))
    }

    /// Takes tokens that [`Self::wait_for`] said are there.
    pub(crate) fn take(&mut self, tokens: u64) {
        self.level = self.level.saturating_sub(self.cost(tokens));
    }

    fn cost(&self, tokens: u64) -> u64 {
        tokens.saturating_mul(NANOS_PER_S).min(self.capacity)
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled);
        if !elapsed.is_zero() {
            let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
            self.level = self.level.saturating_add(nanos.saturating_mul(self.per_second)).min(self.capacity);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device gets its burst, then exactly its rate: neither starved nor let through.
    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, 10, start);
        let mut taken = 0;
        for millisecond in 0..=1_000 {
            let now = start + Duration::from_millis(millisecond);
            while bucket.wait_for(1, now).is_none() {
                bucket.take(1);
                taken += 1;
            }
        }
        assert_eq!(taken, 110);
        let wait = bucket.wait_for(1, start + Duration::from_secs(1));
        assert_eq!(wait, Some(Duration::from_millis(10)));
    }
}
