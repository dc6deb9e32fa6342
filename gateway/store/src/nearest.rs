//! The entries of a device nearest to a moment, as many as one answer takes.

use std::collections::BTreeMap;

use vitalgate_domain::{DeviceId, Entry, Flags, Record, Sequence, SequenceRanges, UnixMs};

/// A device and the moment around which its entries are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    /// The device.
    pub device: DeviceId,
    /// The moment.
    pub at: UnixMs,
    /// Milliseconds before and after it.
    pub window_ms: u64,
}

/// What a search gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search<T> {
    /// What was found.
    pub found: T,
    /// The time for one answer ran out: ask again for what lies below this sequence. `None` when
    /// everything was searched.
    pub below: Option<Sequence>,
    /// Entries that no copy gives any more; what was searched for may be among them.
    pub lost: SequenceRanges,
}

/// The newer of two places of one reading, unless that is only where it was moved to after it was resolved: then how it stands is
/// told by the older one.
#[must_use]
pub fn latest(newer: Option<Record>, older: Option<Record>) -> Option<Record> {
    match (newer, older) {
        (Some(newer), Some(older)) if was_resolved(&newer) && !was_resolved(&older) => Some(older),
        (newer, older) => newer.or(older),
    }
}

pub(crate) fn was_resolved(record: &Record) -> bool {
    matches!(&record.entry, Entry::Reading(reading) if reading.flags.contains(Flags::RESOLVED))
}

/// Readings and dead letters of a device, those nearest to a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearest {
    around: Around,
    max: usize,
    kept: BTreeMap<(u64, Sequence), Record>,
    is_cut: bool,
}

impl Nearest {
    /// None yet, and never more than `max`.
    #[must_use]
    pub fn new(around: Around, max: usize) -> Self {
        Self { around, max, kept: BTreeMap::new(), is_cut: false }
    }

    /// What is asked for.
    #[must_use]
    pub fn around(&self) -> &Around {
        &self.around
    }

    /// Takes a record if it is one of those that are asked for; the farthest gives way.
    pub(crate) fn take(&mut self, record: Record) {
        let (device, moment) = place_of(&record.entry);
        let distance = moment.0.abs_diff(self.around.at.0);
        let is_wanted = !matches!(record.entry, Entry::DeviceEvent(_)) && *device == self.around.device;
        if !is_wanted || distance > self.around.window_ms {
            return;
        }
        self.kept.insert((distance, record.sequence), record);
        if self.kept.len() > self.max {
            self.kept.pop_last();
            self.is_cut = true;
        }
    }

    /// Whether something at this distance can still be one of the nearest.
    pub(crate) fn has_room_at(&self, distance: u64) -> bool {
        self.kept.len() < self.max || self.kept.last_key_value().is_some_and(|((farthest, _), _)| distance <= *farthest)
    }

    /// Something was passed over that may be in the window.
    pub(crate) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Joins what another search for the same found.
    pub fn join(&mut self, other: Self) {
        self.is_cut |= other.is_cut;
        other.kept.into_values().for_each(|record| self.take(record));
    }

    /// Whether the window may hold more than these.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Those found, in our order.
    #[must_use]
    pub fn into_records(self) -> Vec<Record> {
        let mut records: Vec<Record> = self.kept.into_values().collect();
        records.sort_unstable_by_key(|record| record.sequence);
        records
    }
}

/// The device of an entry and its moment: when it was, else when it came in.
pub(crate) fn place_of(entry: &Entry) -> (&DeviceId, UnixMs) {
    match entry {
        Entry::Reading(reading) => (&reading.device, reading.time.effective().unwrap_or(reading.time.received.wall)),
        Entry::DeadLetter(letter) => (&letter.device, letter.received.wall),
        Entry::DeviceEvent(event) => (&event.device, event.received.wall),
    }
}
