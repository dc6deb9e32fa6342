//! Admission: identity, duplicates, plausibility, clock and subject of what a device said.

use vitalgate_domain::{Associations, DecodedSample, DeviceId, Entry, GatewayId, Now, ReadingId, Sequence};

/// What is decided about admission once for the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionPolicy {
    /// Ids remembered per device, 1 to [`RECENT_IDS_MAX`].
    pub recent_ids_per_device: usize,
    /// A device's clock further ahead of ours than this is doubtful, in milliseconds.
    pub device_ahead_max_ms: u64,
    /// A device's time further behind ours than this is doubtful, in milliseconds. Devices keep
    /// readings while they are offline, so this is long.
    pub device_behind_max_ms: u64,
}

/// Most ids remembered per device.
pub const RECENT_IDS_MAX: usize = 4_096;

impl Default for AdmissionPolicy {
    /// 512 ids per device; 5 minutes ahead; 30 days behind.
    fn default() -> Self {
        Self { recent_ids_per_device: 512, device_ahead_max_ms: 300_000, device_behind_max_ms: 30 * 86_400_000 }
    }
}

/// What a sample became.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admitted {
    /// To be committed, in this order, from the sequence that was given.
    pub entries: Vec<Entry>,
    /// Readings that were here before. They are acknowledged with the commit under way, since what
    /// they repeat may be part of it.
    pub duplicates: u32,
}

/// Decides what becomes of a decoded sample. One owner; lives beside the commit.
#[derive(Debug)]
pub struct Admission {
    gateway: GatewayId,
    policy: AdmissionPolicy,
}

impl Admission {
    /// Starts with the ids that the journal remembers, oldest first.
    #[must_use]
    pub fn new(gateway: GatewayId, policy: AdmissionPolicy, seen: Vec<(DeviceId, Vec<ReadingId>)>) -> Self {
        let _ = seen;
        Self { gateway, policy }
    }

    /// Admits a sample; `next` is the sequence that its first entry will get.
    pub fn admit(&mut self, sample: DecodedSample, associations: &Associations, now: &Now, next: Sequence) -> Admitted {
        let _ = (&self.gateway, self.policy, sample, associations, now, next);
        Admitted::default()
    }

    /// The commit of everything admitted since the last `confirm` or `rollback` is durable.
    pub fn confirm(&mut self) {}

    /// That commit failed: what it held was never seen.
    pub fn rollback(&mut self) {}

    /// The ids that a restart must remember, oldest first; only what is durable.
    #[must_use]
    pub fn seen(&self) -> Vec<(DeviceId, Vec<ReadingId>)> {
        Vec::new()
    }
}
