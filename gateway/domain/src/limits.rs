//! Limits that more than one crate keeps. Each crate keeps its own beside its code.

/// Largest payload of one publish or one poll, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Longest time that a polled device is given to answer, in milliseconds.
pub const RESPONSE_TIMEOUT_MS_MAX: u64 = 60_000;
/// Most readings that one sample may decode to.
pub const READINGS_PER_SAMPLE_MAX: usize = 256;
/// Most readings in one group commit.
pub const COMMIT_READINGS_MAX: usize = 4_096;
/// Most items in one request to a destination, whatever is configured (facts 2.2).
pub const BATCH_ITEMS_MAX: usize = 100;
/// Most devices that one gateway serves.
pub const DEVICES_MAX: usize = 1_000;
/// Most destinations.
pub const DESTINATIONS_MAX: usize = 8;

const _: () = assert!(READINGS_PER_SAMPLE_MAX <= COMMIT_READINGS_MAX);
