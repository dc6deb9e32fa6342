//! A model of the store: what survives a crash.

use std::collections::{BTreeMap, HashMap};

use vitalgate_domain::{DeadLetterReason, DeviceId, Entry, Record, RejectedReading, SeenReading, Sequence, SequenceRanges};

/// Everything that is durable.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: Vec<Entry>,
    pub(crate) settled: SequenceRanges,
    pub(crate) rejected: BTreeMap<Sequence, DeadLetterReason>,
}

impl Journal {
    pub(crate) fn committed(&self) -> Sequence {
        Sequence(self.entries.len() as u64)
    }

    pub(crate) fn append(&mut self, entries: Vec<Entry>) {
        self.entries.extend(entries);
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (Sequence, &Entry)> {
        self.entries.iter().enumerate().map(|(index, entry)| (Sequence(index as u64 + 1), entry))
    }

    /// At most `entries_max` records; what was looked at ends with the last of them, or at `until`.
    pub(crate) fn read(&self, from: Sequence, until: Sequence, entries_max: usize) -> (Vec<Record>, Sequence) {
        let first = from.0 as usize - 1;
        let last = (until.0 as usize).min(self.entries.len()).min(first + entries_max);
        let records = (first..last).map(|index| Record { sequence: Sequence(index as u64 + 1), entry: self.entries[index].clone() });
        (records.collect(), Sequence(last as u64))
    }

    pub(crate) fn settle(&mut self, ranges: &[(Sequence, Sequence)], rejected: Vec<RejectedReading>) {
        for &(first, last) in ranges {
            self.settled.insert(first, last);
        }
        for reading in rejected {
            self.rejected.insert(reading.sequence, reading.reason);
        }
    }

    /// The last readings of each device, oldest first.
    pub(crate) fn seen(&self, each: usize) -> Vec<(DeviceId, Vec<SeenReading>)> {
        let mut seen: HashMap<DeviceId, Vec<SeenReading>> = HashMap::new();
        for entry in &self.entries {
            if let Entry::Reading(reading) = entry {
                seen.entry(reading.device.clone()).or_default().push(SeenReading::from(reading));
            }
        }
        let mut seen: Vec<_> =
            seen.into_iter().map(|(device, readings)| (device, readings[readings.len().saturating_sub(each)..].to_vec())).collect();
        seen.sort();
        seen
    }
}
