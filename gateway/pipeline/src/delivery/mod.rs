//! Delivery to one destination: batch, join, retry, settle.

mod message;
mod policy;

pub use message::{Alarm, AlarmKind, DeliveryAction, DeliveryEvent, Lane, RequestId};
pub use policy::{BACKLOG_READINGS_MAX, DeliveryPolicy, JOIN_READINGS_MAX, LIVE_READINGS_MAX, READ_AHEAD_READINGS_MAX};

use vitalgate_domain::{DestinationId, Now, Sequence, SequenceRanges};

/// What the status page shows of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// Entries committed and not settled.
    pub unsettled: u64,
    /// Readings in memory.
    pub held: usize,
    /// Requests under way.
    pub in_flight: usize,
    /// Alarms that are raised.
    pub alarms: Vec<Alarm>,
}

/// The delivery to one destination.
#[derive(Debug)]
pub struct Delivery {
    destination: DestinationId,
    policy: DeliveryPolicy,
    settled: SequenceRanges,
    committed: Sequence,
    jitter: u64,
}

impl Delivery {
    /// Starts from what is durably settled; `committed` is the last sequence on disk. Send a
    /// [`DeliveryEvent::Tick`] to get the first actions.
    #[must_use]
    pub fn new(destination: DestinationId, policy: DeliveryPolicy, settled: SequenceRanges, committed: Sequence, jitter_seed: u64) -> Self {
        Self { destination, policy: policy.bounded(), settled, committed, jitter: jitter_seed }
    }

    /// Takes an event and says what to do now. Never waits, never panics.
    pub fn handle(&mut self, event: DeliveryEvent, now: &Now) -> Vec<DeliveryAction> {
        let _ = (&self.policy, self.jitter, event, now);
        Vec::new()
    }

    /// The destination.
    #[must_use]
    pub fn destination(&self) -> &DestinationId {
        &self.destination
    }

    /// What is settled, as far as was asked to be written.
    #[must_use]
    pub fn settled(&self) -> &SequenceRanges {
        &self.settled
    }

    /// What the status page shows.
    #[must_use]
    pub fn status(&self) -> DeliveryStatus {
        DeliveryStatus { unsettled: self.settled.missing_up_to(self.committed), held: 0, in_flight: 0, alarms: Vec::new() }
    }
}
