//! Readings that one destination held and that were resolved since, when the next destination comes to them.

use std::collections::BTreeSet;

use vitalgate_domain::{Change, DeadLetterKind, DestinationId, Entry, Record, RejectedReading, Sequence, SequenceRanges, Subject};

use super::CommitLoop;

/// Most entries of one read.
const READ_ENTRIES_MAX: usize = 1_024;
/// Stored bytes that one read may bring into memory.
const READ_BYTES_MAX: usize = 1024 * 1024;

impl CommitLoop {
    /// The same changes, where those of a destination that comes late do not make a dead letter anew of what was resolved: a replay
    /// stored the reading once more, for every destination. `resolved` are those that the same commit resolves.
    pub(super) fn without_resolved(&self, changes: Vec<Change>, resolved: &BTreeSet<Sequence>) -> Vec<Change> {
        let mut told = Vec::with_capacity(changes.len());
        for change in changes {
            if let Change::Settled { destination, rejected, .. } = &change {
                let ranges = self.resolved_before(destination, rejected, resolved).ranges().to_vec();
                if !ranges.is_empty() {
                    // What a destination has settled makes no dead letter any more; why it is held stays known.
                    let destination = destination.clone();
                    told.push(Change::Settled { destination, ranges, rejected: Vec::new(), remote_ids: Vec::new() });
                }
            }
            told.push(change);
        }
        told
    }

    fn resolved_before(&self, destination: &DestinationId, rejected: &[RejectedReading], resolved: &BTreeSet<Sequence>) -> SequenceRanges {
        let state = self.journal.state();
        let has_kind = |one: &RejectedReading| matches!(one.reason.kind, DeadLetterKind::Unassigned | DeadLetterKind::TimeUnknown);
        let is_open = |place: Sequence| state.unresolved.contains(place) && !resolved.contains(&place);
        let has_other = |place| state.settled.iter().any(|(other, settled)| other != destination && settled.contains(place));
        let places = rejected.iter().filter(|one| has_kind(one)).map(|one| one.sequence);
        self.held_among(places.filter(|place| !is_open(*place) && has_other(*place)).collect())
    }

    /// Those that no destination can take as they stand. Another destination had to hold them too; what lacks a patient only at
    /// this one, it may have taken.
    fn held_among(&self, mut places: BTreeSet<Sequence>) -> SequenceRanges {
        let mut held = SequenceRanges::new();
        while let Some((from, until)) = places.first().copied().zip(places.last().copied()) {
            let outcome = match self.replay.reader.read(from, until, READ_ENTRIES_MAX, READ_BYTES_MAX) {
                Ok(outcome) if outcome.reached >= from => outcome,
                // They are dead letters then, which loses nothing.
                _ => break,
            };
            let among = outcome.records.iter().filter(|record| places.contains(&record.sequence) && is_held(record));
            among.for_each(|record| held.insert(record.sequence, record.sequence));
            places = places.split_off(&outcome.reached.next());
        }
        held
    }
}

fn is_held(record: &Record) -> bool {
    matches!(&record.entry, Entry::Reading(reading) if reading.time.effective().is_none() || reading.subject == Subject::Unassigned)
}
