//! What waits to be written while the disk is full: joined, so that it takes little of the room that is left for it.

use std::collections::BTreeMap;

use vitalgate_domain::{Change, DestinationId, RejectedReading, Sequence, SequenceRanges};

/// Bytes that the settlement of one destination takes at most when it is written.
const SETTLED_BYTES_MAX: usize = 256 * 1024;
/// Bytes that one range takes at most when it is written.
const RANGE_BYTES_MAX: usize = 19;
/// Bytes that a refused reading takes at most when it is written, beside its detail.
const REJECTED_BYTES_MAX: usize = 128;

/// Changes that settle, one for each destination, and the destinations themselves.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    destinations: Option<Change>,
    settled: BTreeMap<DestinationId, Settled>,
}

/// What a destination settled. The ids that it gave are left out: they are for a person's question, and would take most of the room.
#[derive(Debug, Default)]
struct Settled {
    ranges: SequenceRanges,
    rejected: Vec<RejectedReading>,
    rejected_bytes: usize,
}

impl Kept {
    /// Beginning with the destinations, where they could not be written.
    pub(crate) fn new(destinations: Option<Change>) -> Self {
        Self { destinations, settled: BTreeMap::new() }
    }

    /// Takes what settles out of these changes.
    pub(super) fn take(&mut self, changes: &mut Vec<Change>) {
        let kept = changes.extract_if(.., |change| matches!(change, Change::Settled { .. } | Change::Destinations { .. }));
        for change in kept {
            match change {
                Change::Settled { destination, ranges, rejected, .. } => {
                    if !self.settled.entry(destination).or_default().join(&ranges, rejected) {
                        tracing::warn!("the disk is full, and more is settled than can be kept: the rest is delivered again after a start");
                    }
                }
                destinations => self.destinations = Some(destinations),
            }
        }
    }

    /// Puts everything in front of these changes.
    pub(super) fn give(&mut self, changes: &mut Vec<Change>) {
        let settled = std::mem::take(&mut self.settled).into_iter().map(|(destination, settled)| Change::Settled {
            destination,
            ranges: settled.ranges.ranges().to_vec(),
            rejected: settled.rejected,
            remote_ids: Vec::new(),
        });
        changes.splice(..0, self.destinations.take().into_iter().chain(settled));
    }
}

impl Settled {
    /// Says whether there was room for it. One without its refused readings would lose them.
    fn join(&mut self, ranges: &[(Sequence, Sequence)], rejected: Vec<RejectedReading>) -> bool {
        let mut joined = self.ranges.clone();
        ranges.iter().for_each(|(first, last)| joined.insert(*first, *last));
        let rejected_bytes = rejected.iter().map(|one| REJECTED_BYTES_MAX + one.reason.detail.len()).sum::<usize>() + self.rejected_bytes;
        if joined.ranges().len() * RANGE_BYTES_MAX + rejected_bytes > SETTLED_BYTES_MAX {
            return false;
        }
        self.ranges = joined;
        self.rejected.extend(rejected);
        self.rejected_bytes = rejected_bytes;
        true
    }
}

#[cfg(test)]
mod tests {
    use vitalgate_domain::{DeadLetterKind, DeadLetterReason, ReadingId};

    use super::*;

    fn settled(first: u64, last: u64, rejected: Vec<RejectedReading>) -> Change {
        let destination = DestinationId::new("ehr").unwrap();
        Change::Settled {
            destination,
            ranges: vec![(Sequence(first), Sequence(last))],
            rejected,
            remote_ids: vec![(Sequence(1), "1".into())],
        }
    }

    fn refused(sequence: u64) -> RejectedReading {
        let reason = DeadLetterReason::new(DeadLetterKind::Rejected, &"x".repeat(1_000));
        RejectedReading { sequence: Sequence(sequence), id: ReadingId::from_bytes([0; 16]), reason }
    }

    /// Promise 2: what is settled on a full disk takes little room, however long that lasts, and no refused reading is taken for delivered.
    #[test]
    fn what_is_kept_is_joined_and_bounded() {
        let mut kept = Kept::default();
        kept.take(&mut (1..=10_000).map(|sequence| settled(sequence, sequence, vec![])).collect());
        let mut written = vec![Change::DeadLettersResolved { sequences: vec![], note: "test".into() }];
        kept.take(&mut written);
        kept.give(&mut written);
        let Some(Change::Settled { ranges, remote_ids, .. }) = written.first() else { panic!("{written:?}") };
        assert_eq!((ranges.as_slice(), remote_ids.len(), written.len()), (&[(Sequence(1), Sequence(10_000))][..], 0, 2));

        kept.take(&mut (1..=1_000).map(|sequence| settled(2 * sequence, 2 * sequence, vec![refused(2 * sequence)])).collect());
        let mut written = Vec::new();
        kept.give(&mut written);
        let Some(Change::Settled { ranges, rejected, .. }) = written.first() else { panic!("{written:?}") };
        assert!(ranges.len() == rejected.len() && (200..240).contains(&rejected.len()), "{}", rejected.len());
        written.clear();
        kept.give(&mut written);
        assert_eq!(written, []);
    }
}
