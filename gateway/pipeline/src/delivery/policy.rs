//! What the configuration decides, and the limits that it does not.

use vitalgate_domain::limits::BATCH_ITEMS_MAX;

/// What the configuration decides about one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// Most items in one request; 1 to [`BATCH_ITEMS_MAX`].
    pub batch_items_max: usize,
    /// About the most bytes in one request, by an estimate of what an item encodes to.
    pub batch_bytes_max: usize,
    /// Most requests under way at once; at least 1.
    pub requests_in_flight_max: usize,
    /// How long after its arrival a part of a panel waits for the others, in milliseconds.
    pub join_window_ms: u64,
}

impl Default for DeliveryPolicy {
    /// The defaults of facts 2.2: 50 items or 512 KiB, four requests, a join window of 2 s.
    fn default() -> Self {
        Self { batch_items_max: 50, batch_bytes_max: 512 * 1024, requests_in_flight_max: 4, join_window_ms: 2_000 }
    }
}

impl DeliveryPolicy {
    /// The same policy with every value in its range.
    #[must_use]
    pub(super) fn bounded(self) -> Self {
        Self {
            batch_items_max: self.batch_items_max.clamp(1, BATCH_ITEMS_MAX),
            requests_in_flight_max: self.requests_in_flight_max.max(1),
            ..self
        }
    }
}

/// Most readings of the live lane in memory.
pub const LIVE_READINGS_MAX: usize = 2_048;
/// Most readings of the backlog lane in memory, apart from those that fell behind from the live lane.
pub const BACKLOG_READINGS_MAX: usize = 2_048;
/// Most parts of panels that wait for the others.
pub const JOIN_READINGS_MAX: usize = 2_048;
/// Most readings that one delivery holds in memory at once, about 0.5 KiB each: both lanes, a live
/// lane that fell behind, and the parts of panels.
pub const READ_AHEAD_READINGS_MAX: usize = 2 * LIVE_READINGS_MAX + BACKLOG_READINGS_MAX + JOIN_READINGS_MAX;
/// Entries that the live lane may lag behind before it jumps ahead and leaves them to the backlog.
pub const LIVE_LAG_MAX: u64 = 4_096;
/// While something was committed within this time, the backlog leaves one request to the live lane, in milliseconds.
pub const LIVE_RECENT_MS: u64 = 10_000;
/// A request that failed again so often, although others were taken meanwhile, is sent in halves, to
/// find the item that is to blame.
pub const ISOLATE_FAILURES: u32 = 2;
/// A request that failed so often is sent in halves even if nobody else has anything to send.
pub const ISOLATE_EVERY: u32 = 8;
/// After so many requests of one patient in a row failed, although others were taken meanwhile, its
/// failures do not count as the destination's any more, and it rests between its requests.
pub const PATIENT_SUSPECT_FAILURES: u32 = 2;
/// Longest rest of such a patient between two requests, in milliseconds.
pub const PATIENT_REST_MAX_MS: u64 = 2_000;
/// A patient of whom no request failed for so long is not failing any more, in milliseconds. Longer than any rest or back-off.
pub const PATIENT_FORGOTTEN_MS: u64 = 3_600_000;
/// So many requests of one patient in a row must have failed, while others were taken and memory is
/// full, before its readings are kept as dead letters to let the others pass.
pub const PATIENT_FAILURES_MAX: u32 = 30;
/// So often must one item alone have failed, although others were taken each time and memory is full,
/// before it is kept as a dead letter.
pub const ITEM_FAILURES_MAX: u32 = 20;
/// An item alone that failed for so long although others were taken is kept as a dead letter, so that it does not hold the journal for
/// ever, in milliseconds. It counts from the start of the gateway at the earliest.
pub const ITEM_FAILING_MAX_MS: u64 = 86_400_000;
/// Most of the time between two such failures that counts, in milliseconds: what is longer may have been an outage.
pub const ITEM_FAILING_STEP_MAX_MS: u64 = 600_000;
/// So many patients not known in a row, and nothing taken: it is not the patients, and their readings wait.
pub const PATIENTS_UNKNOWN_IN_A_ROW: usize = 2;
/// No patient was known for so long, and nothing was taken: an alarm, in milliseconds.
pub const PATIENTS_UNKNOWN_MS: u64 = 60_000;
/// Most identities that are remembered because they were answered before an older part of the journal was read, about 64 bytes each.
pub const OVERTAKEN_MAX: usize = 32_768;
/// A reading that came so soon after its own moment is no device's memory, sent once more, in milliseconds.
pub const RESENT_AFTER_MS: u64 = 60_000;
/// So many items refused in a row, and none taken, raise an alarm.
pub const REJECTIONS_IN_A_ROW: u32 = 100;
