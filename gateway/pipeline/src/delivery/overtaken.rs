//! Identities that were answered before an older part of the journal was read.
//!
//! A device may send its memory again after its patient was corrected, while what it sent before still waits behind an outage. What is
//! stated last counts, so the older statement must not come after it. Only what was late when it came is remembered, since only that can
//! stand there twice; the oldest beyond [`OVERTAKEN_MAX`] are forgotten, and a restart forgets all.

use std::collections::{HashMap, VecDeque};

use vitalgate_domain::{ClockTrust, DeadLetterKind, Reading, ReadingId, Sequence};

use super::policy::{OVERTAKEN_MAX, RESENT_AFTER_MS};

/// The last statement of an identity that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latest {
    pub(super) sequence: Sequence,
    /// As what, if it was not taken. Its words are with it alone: kept here, they could be many MiB.
    pub(super) refused: Option<DeadLetterKind>,
}

#[derive(Debug, Default)]
pub(super) struct Overtaken {
    newest: HashMap<ReadingId, Latest>,
    order: VecDeque<ReadingId>,
}

impl Overtaken {
    /// The reading was answered for, there.
    pub(super) fn answered(&mut self, reading: &Reading, latest: Latest) {
        if !may_be_resent(reading) {
            return;
        }
        if let Some(newest) = self.newest.get_mut(&reading.id) {
            if latest.sequence > newest.sequence {
                *newest = latest;
            }
            return;
        }
        self.newest.insert(reading.id, latest);
        self.order.push_back(reading.id);
        if self.order.len() > OVERTAKEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.newest.remove(&oldest);
        }
    }

    /// The later statement of the identity that was answered already.
    pub(super) fn later(&self, id: &ReadingId, sequence: Sequence) -> Option<Latest> {
        self.newest.get(id).copied().filter(|newest| newest.sequence > sequence)
    }

    /// Nothing older is left.
    pub(super) fn clear(&mut self) {
        self.newest.clear();
        self.order.clear();
    }
}

/// What has neither a time nor a counter of its device has an identity that never comes again.
fn may_be_resent(reading: &Reading) -> bool {
    let received = &reading.time.received;
    match reading.time.device {
        None => reading.device_sequence.is_some(),
        Some(_) if received.trust == ClockTrust::Unset => true,
        Some(_) => reading.time.effective().is_none_or(|made| made.0.abs_diff(received.wall.0) > RESENT_AFTER_MS),
    }
}
