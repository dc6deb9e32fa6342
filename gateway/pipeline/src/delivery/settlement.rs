//! What one event settles, gathered into one change.

use std::sync::Arc;

use vitalgate_domain::{DeadLetterKind, DeadLetterReason, ReadingId, RejectedReading, Sequence, SequenceRanges};

use super::message::DeliveryAction;

/// Most sequences of one damaged stretch that are listed one by one; the stretch is settled whole.
pub const DAMAGED_LISTED_MAX: u64 = 1_024;

/// Gathers what is settled while one event is handled.
#[derive(Debug, Default)]
pub(super) struct Settlement {
    ranges: Vec<(Sequence, Sequence)>,
    rejected: Vec<RejectedReading>,
    remote_ids: Vec<(Sequence, Arc<str>)>,
}

impl Settlement {
    /// Needs no delivery, or the destination has it.
    pub(super) fn settle(&mut self, sequence: Sequence) {
        match self.ranges.last_mut() {
            Some(last) if last.1.next() == sequence => last.1 = sequence,
            _ => self.ranges.push((sequence, sequence)),
        }
    }

    /// The destination knows it under this id.
    pub(super) fn known_as(&mut self, sequence: Sequence, remote_id: Arc<str>) {
        self.remote_ids.push((sequence, remote_id));
    }

    /// Refused for good, or held back.
    pub(super) fn reject(&mut self, sequence: Sequence, id: ReadingId, reason: DeadLetterReason) {
        self.settle(sequence);
        self.rejected.push(RejectedReading { sequence, id, reason });
    }

    /// Looked at and not there in any copy.
    pub(super) fn damaged(&mut self, first: Sequence, last: Sequence) {
        let reason =
            DeadLetterReason::new(DeadLetterKind::Damaged, "the stored block is damaged in both copies; see `vitalgate store check`");
        let listed = last.0.min(first.0.saturating_add(DAMAGED_LISTED_MAX - 1));
        for sequence in first.0..=listed {
            self.rejected.push(RejectedReading {
                sequence: Sequence(sequence),
                id: ReadingId::from_bytes([0; 16]),
                reason: reason.clone(),
            });
        }
        self.ranges.push((first, last));
    }

    /// The action, if anything was settled; the set learns of it.
    pub(super) fn finish(self, settled: &mut SequenceRanges) -> Option<DeliveryAction> {
        if self.ranges.is_empty() {
            return None;
        }
        let mut ranges = self.ranges;
        ranges.sort_unstable();
        let mut joined: Vec<(Sequence, Sequence)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(previous) if first <= previous.1.next() => previous.1 = previous.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        for &(first, last) in &joined {
            settled.insert(first, last);
        }
        Some(DeliveryAction::Settle { ranges: joined, rejected: self.rejected, remote_ids: self.remote_ids })
    }
}
