//! What waits to be written while the disk is full: joined, so that it takes little of the room that is left for it.

use std::collections::{BTreeMap, VecDeque};

use vitalgate_domain::{Change, DestinationId, RejectedReading, Sequence, SequenceRanges};

/// Bytes that the ranges, and bytes that the refused readings of one part take at most when it is written; unless they came at once.
const PART_BYTES_MAX: usize = 256 * 1024;
/// Bytes that one range takes at most when it is written.
const RANGE_BYTES_MAX: usize = 19;
/// Bytes that a refused reading takes at most when it is written, beside its detail.
const REJECTED_BYTES_MAX: usize = 128;

/// Changes that settle, in parts of each destination, and the destinations themselves. A destination of which there is more than
/// one part is to read no further: what it has in memory bounds what comes here.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    destinations: Option<Change>,
    settled: BTreeMap<DestinationId, VecDeque<Part>>,
}

/// What is written of a destination at once. The ids that it gave are left out: they are for a person's question, and would take most
/// of the room.
#[derive(Debug)]
struct Part {
    ranges: SequenceRanges,
    rejected: Vec<RejectedReading>,
    rejected_bytes: usize,
}

impl Kept {
    /// Beginning with the destinations, where they could not be written.
    pub(crate) fn new(destinations: Option<Change>) -> Self {
        Self { destinations, settled: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.destinations.is_none() && self.settled.is_empty()
    }

    /// Whether there is more of the destination than is written at once.
    pub(super) fn is_over(&self, destination: &DestinationId) -> bool {
        self.settled.get(destination).is_some_and(|parts| parts.len() > 1)
    }

    /// Takes what settles out of these changes.
    pub(super) fn take(&mut self, changes: &mut Vec<Change>) {
        let kept = changes.extract_if(.., |change| matches!(change, Change::Settled { .. } | Change::Destinations { .. }));
        for change in kept {
            match change {
                Change::Settled { destination, ranges, rejected, .. } => {
                    let parts = self.settled.entry(destination).or_default();
                    // What refuses nothing goes with the first: it may be what gives room back.
                    let part = if rejected.is_empty() { parts.front_mut() } else { parts.back_mut() };
                    let without_room = match part {
                        Some(part) => part.join(&ranges, rejected).err(),
                        None => Some(rejected),
                    };
                    parts.extend(without_room.map(|rejected| Part::of(&ranges, rejected)));
                }
                destinations => self.destinations = Some(destinations),
            }
        }
    }

    /// Gives what is to be written next, at once; nothing where nothing waits.
    pub(super) fn next_part(&mut self) -> Vec<Change> {
        let settled = std::mem::take(&mut self.settled).into_iter().filter_map(|(destination, mut parts)| {
            let part = parts.pop_front()?;
            if !parts.is_empty() {
                self.settled.insert(destination.clone(), parts);
            }
            Some(Change::Settled { destination, ranges: part.ranges.ranges().to_vec(), rejected: part.rejected, remote_ids: Vec::new() })
        });
        self.destinations.take().into_iter().chain(settled).collect()
    }

    /// A part could not be written: it stays the next one.
    pub(super) fn put_back(&mut self, part: Vec<Change>) {
        for change in part {
            match change {
                Change::Settled { destination, ranges, rejected, .. } => {
                    self.settled.entry(destination).or_default().push_front(Part::of(&ranges, rejected));
                }
                destinations => self.destinations = Some(destinations),
            }
        }
    }
}

impl Part {
    fn of(ranges: &[(Sequence, Sequence)], rejected: Vec<RejectedReading>) -> Self {
        let rejected_bytes = bytes_of(&rejected);
        Self { ranges: joined(SequenceRanges::new(), ranges), rejected, rejected_bytes }
    }

    /// Gives the refused readings back where there is no room for them and these ranges. Ranges without them would lose them.
    fn join(&mut self, ranges: &[(Sequence, Sequence)], rejected: Vec<RejectedReading>) -> Result<(), Vec<RejectedReading>> {
        let ranges = joined(self.ranges.clone(), ranges);
        let rejected_bytes = self.rejected_bytes + bytes_of(&rejected);
        let has_room = rejected.is_empty() || rejected_bytes <= PART_BYTES_MAX;
        if !has_room || ranges.ranges().len() * RANGE_BYTES_MAX > PART_BYTES_MAX {
            return Err(rejected);
        }
        self.ranges = ranges;
        self.rejected.extend(rejected);
        self.rejected_bytes = rejected_bytes;
        Ok(())
    }
}

fn joined(mut to: SequenceRanges, ranges: &[(Sequence, Sequence)]) -> SequenceRanges {
    ranges.iter().for_each(|(first, last)| to.insert(*first, *last));
    to
}

fn bytes_of(rejected: &[RejectedReading]) -> usize {
    rejected.iter().map(|one| REJECTED_BYTES_MAX + one.reason.detail.len()).sum()
}

#[cfg(test)]
mod tests {
    use vitalgate_domain::{DeadLetterKind, DeadLetterReason, ReadingId};

    use super::*;

    fn ehr() -> DestinationId {
        DestinationId::new("ehr").unwrap()
    }

    fn settled(first: u64, last: u64, rejected: Vec<RejectedReading>) -> Change {
        let ranges = vec![(Sequence(first), Sequence(last))];
        Change::Settled { destination: ehr(), ranges, rejected, remote_ids: vec![(Sequence(1), "1".into())] }
    }

    fn refused(sequence: u64) -> RejectedReading {
        let reason = DeadLetterReason::new(DeadLetterKind::Rejected, &"x".repeat(1_000));
        RejectedReading { sequence: Sequence(sequence), id: ReadingId::from_bytes([0; 16]), reason }
    }

    /// Promise 2: what is settled on a full disk takes little room, however long that lasts.
    #[test]
    fn what_is_kept_is_joined() {
        let mut kept = Kept::default();
        kept.take(&mut (1..=10_000).map(|sequence| settled(sequence, sequence, vec![])).collect());
        let mut changes = vec![Change::DeadLettersResolved { sequences: vec![], note: "test".into() }];
        kept.take(&mut changes);
        assert_eq!(changes.len(), 1, "it settles nothing");
        let written = kept.next_part();
        let [Change::Settled { ranges, remote_ids, .. }] = written.as_slice() else { panic!("{written:?}") };
        assert_eq!((ranges.as_slice(), remote_ids.len()), (&[(Sequence(1), Sequence(10_000))][..], 0));
        assert!(kept.is_empty() && kept.next_part().is_empty());
    }

    /// Promise 4: no refused reading is lost or taken for delivered, however many there are; and what settles without one goes first.
    #[test]
    fn what_is_too_much_at_once_is_kept_in_parts() {
        let mut kept = Kept::default();
        kept.take(&mut (1..=1_000).map(|sequence| settled(2 * sequence, 2 * sequence, vec![refused(2 * sequence)])).collect());
        assert!(kept.is_over(&ehr()));
        kept.take(&mut vec![settled(5_001, 6_000, vec![])]);
        let mut told = Vec::new();
        for number in 0.. {
            let part = kept.next_part();
            let Some(Change::Settled { ranges, rejected, .. }) = part.first() else { break };
            let alone = ranges.iter().filter(|(first, _)| first.0 <= 2_000).count();
            assert!(alone == rejected.len() && rejected.len() < 240, "{} of {alone}", rejected.len());
            assert_eq!(ranges.len() > alone, number == 0, "with the first part");
            if number == 1 {
                kept.put_back(part.clone());
                assert_eq!(kept.next_part(), part, "the same again");
            }
            told.extend(rejected.iter().map(|one| one.sequence.0));
        }
        assert!(kept.is_empty());
        assert_eq!(told, (1..=1_000).map(|sequence| 2 * sequence).collect::<Vec<_>>());
    }
}
