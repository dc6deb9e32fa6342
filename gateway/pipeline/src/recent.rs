//! The ids of a device's last readings: a ring in order of arrival and a table to find them.
//!
//! 20 bytes per id in the ring and 4 in the table, so 12 KiB for a device with 512 ids and 12 MiB
//! for a thousand of them.

use std::collections::VecDeque;

use vitalgate_domain::{ReadingId, SeenReading};

/// A free bucket. Counters run modulo this, so none is ever equal to it.
const FREE: u16 = u16::MAX;
/// Ids that fit the counters; more than any policy and commit allow together.
const IDS_MAX: usize = 60_000;
/// Fewest buckets.
const BUCKETS_MIN: usize = 16;

/// The last ids of one device.
#[derive(Debug, Default)]
pub(crate) struct RecentIds {
    ring: VecDeque<SeenReading>,
    /// Counter of the oldest, modulo [`FREE`].
    oldest: u16,
    /// Counter of an id at its hash or behind it; a power of two of buckets, at most half full.
    buckets: Vec<u16>,
    /// The newest so many are not durable.
    pending: usize,
}

impl RecentIds {
    /// Remembers what the journal remembered, oldest first.
    pub(crate) fn restore(readings: &[SeenReading], capacity: usize) -> Self {
        let mut recent = Self::default();
        for &reading in readings.get(readings.len().saturating_sub(capacity)..).unwrap_or_default() {
            if recent.digest_of(reading.id).is_none() {
                recent.push(reading);
            }
        }
        recent.confirm(capacity);
        recent
    }

    /// The digest of the value that the id was seen with; `None` if it was not seen lately.
    pub(crate) fn digest_of(&self, id: ReadingId) -> Option<u32> {
        let bucket = self.find(id)?;
        self.known_in(bucket).map(|known| known.value_digest)
    }

    /// Adds a reading that is not in it and not durable yet.
    pub(crate) fn push(&mut self, reading: SeenReading) {
        if self.ring.len() >= IDS_MAX {
            self.forget_oldest();
        }
        if (self.ring.len() + 1) * 2 > self.buckets.len() {
            self.grow();
        }
        self.ring.push_back(reading);
        self.pending += 1;
        self.place(self.ring.len() - 1);
    }

    /// Everything in it is durable: the oldest beyond the capacity go.
    pub(crate) fn confirm(&mut self, capacity: usize) {
        self.pending = 0;
        while self.ring.len() > capacity {
            self.forget_oldest();
        }
    }

    /// What is not durable never was.
    pub(crate) fn rollback(&mut self) {
        for _ in 0..std::mem::take(&mut self.pending) {
            let Some(last) = self.ring.back().copied() else { return };
            self.unplace(last.id);
            self.ring.pop_back();
        }
    }

    /// The durable readings, oldest first.
    pub(crate) fn durable(&self) -> Vec<SeenReading> {
        self.ring.iter().take(self.ring.len() - self.pending).copied().collect()
    }

    fn forget_oldest(&mut self) {
        let Some(first) = self.ring.front().copied() else { return };
        self.unplace(first.id);
        self.ring.pop_front();
        self.oldest = (self.oldest + 1) % FREE;
        self.pending = self.pending.min(self.ring.len());
    }

    fn grow(&mut self) {
        let buckets = ((self.ring.len() + 1) * 2).next_power_of_two().max(BUCKETS_MIN);
        self.buckets = vec![FREE; buckets];
        for position in 0..self.ring.len() {
            self.place(position);
        }
    }

    fn mask(&self) -> usize {
        self.buckets.len().saturating_sub(1)
    }

    fn home(&self, id: ReadingId) -> usize {
        // A UUIDv5 is a hash already.
        let [a, b, c, d, ..] = *id.as_bytes();
        (u32::from_be_bytes([a, b, c, d]) as usize) & self.mask()
    }

    fn position_in(&self, bucket: usize) -> Option<usize> {
        let counter = self.buckets.get(bucket).copied().filter(|&counter| counter != FREE)?;
        Some(((u32::from(counter) + u32::from(FREE) - u32::from(self.oldest)) % u32::from(FREE)) as usize)
    }

    fn known_in(&self, bucket: usize) -> Option<&SeenReading> {
        self.ring.get(self.position_in(bucket)?)
    }

    fn find(&self, id: ReadingId) -> Option<usize> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut bucket = self.home(id);
        while let Some(known) = self.known_in(bucket) {
            if known.id == id {
                return Some(bucket);
            }
            bucket = (bucket + 1) & self.mask();
        }
        None
    }

    fn place(&mut self, position: usize) {
        let Some(known) = self.ring.get(position).copied() else { return };
        let counter = ((position + usize::from(self.oldest)) % usize::from(FREE)) as u16;
        let mut bucket = self.home(known.id);
        while self.buckets.get(bucket).is_some_and(|&taken| taken != FREE) {
            bucket = (bucket + 1) & self.mask();
        }
        if let Some(free) = self.buckets.get_mut(bucket) {
            *free = counter;
        }
    }

    /// Frees the id's bucket and moves back those that stood behind it only because of it.
    fn unplace(&mut self, id: ReadingId) {
        let Some(mut free) = self.find(id) else { return };
        let mask = self.mask();
        let mut probe = free;
        loop {
            probe = (probe + 1) & mask;
            let Some(known) = self.known_in(probe).copied() else { break };
            let home = self.home(known.id);
            // It may move when its home is not between the free bucket and where it stands.
            if (probe.wrapping_sub(home) & mask) >= (probe.wrapping_sub(free) & mask) {
                if let Some(counter) = self.buckets.get(probe).copied()
                    && let Some(target) = self.buckets.get_mut(free)
                {
                    *target = counter;
                }
                free = probe;
            }
        }
        if let Some(bucket) = self.buckets.get_mut(free) {
            *bucket = FREE;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vitalgate_domain::{DeviceId, DeviceNamespace, Metric};

    use super::*;

    fn id(number: u64) -> ReadingId {
        ReadingId::from_device_sequence(&DeviceNamespace::new("g").unwrap(), &DeviceId::new("m").unwrap(), Metric::HeartRate, "", number, 0)
    }

    fn seen(number: u64) -> SeenReading {
        SeenReading { id: id(number), value_digest: number as u32 }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u64),
        Confirm,
        Rollback,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![8 => (0u64..60).prop_map(Step::Push), 1 => Just(Step::Confirm), 1 => Just(Step::Rollback)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// An id that is forgotten too early stores a resend twice; one that is remembered though its
        /// commit failed loses the resend.
        #[test]
        fn it_holds_exactly_the_last_ids_that_are_durable_or_pending(steps in prop::collection::vec(step(), 0..200), capacity in 1usize..20) {
            let mut recent = RecentIds::default();
            let (mut durable, mut pending): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Push(number) => {
                        let known = durable.contains(&number) || pending.contains(&number);
                        prop_assert_eq!(recent.digest_of(id(number)).is_some(), known);
                        if !known {
                            recent.push(seen(number));
                            pending.push(number);
                        }
                    }
                    Step::Confirm => {
                        recent.confirm(capacity);
                        durable.append(&mut pending);
                        durable.drain(..durable.len().saturating_sub(capacity));
                    }
                    Step::Rollback => {
                        recent.rollback();
                        pending.clear();
                    }
                }
                for number in 0..60 {
                    let known = durable.contains(&number) || pending.contains(&number);
                    prop_assert_eq!(recent.digest_of(id(number)), known.then_some(number as u32));
                }
                prop_assert_eq!(recent.durable(), durable.iter().map(|&number| seen(number)).collect::<Vec<_>>());
            }
        }
    }

    /// The counters wrap at 65,535; a table that mixed two rounds would forget or invent ids.
    #[test]
    fn it_keeps_its_order_over_many_rounds_of_its_counter() {
        let mut recent = RecentIds::default();
        for number in 0..200_000 {
            recent.push(seen(number));
            recent.confirm(8);
        }
        assert_eq!(recent.durable(), (199_992..200_000).map(seen).collect::<Vec<_>>());
        assert!(recent.digest_of(id(199_991)).is_none());
        assert_eq!(recent.digest_of(id(199_995)), Some(199_995));
    }
}
