//! Signs of life: the watchdog is petted only when every loop moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::awake_ms;

/// A loop moves at least this often when it has nothing to do, in milliseconds.
pub(crate) const IDLE_BEAT_MS: u64 = 1_000;
/// A loop that has not moved for this long hangs, in milliseconds. Longer than a slow disk's
/// worst flush, shorter than the watchdog of the unit file.
pub(crate) const STALL_MS: u64 = 20_000;

const _: () = assert!(IDLE_BEAT_MS * 4 < STALL_MS);

/// One loop's sign of life.
#[derive(Debug, Clone)]
pub(crate) struct Beacon {
    name: &'static str,
    moved_at_ms: Arc<AtomicU64>,
}

impl Beacon {
    /// A beacon that moved just now.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, moved_at_ms: Arc::new(AtomicU64::new(awake_ms())) }
    }

    /// Says that the loop goes on.
    pub(crate) fn moved(&self) {
        self.moved_at_ms.store(awake_ms(), Ordering::Relaxed);
    }

    /// The loop's name, if it hangs at `now_ms` of [`awake_ms`]: a loop that slept with the machine does not hang.
    pub(crate) fn stalled(&self, now_ms: u64) -> Option<&'static str> {
        (now_ms.saturating_sub(self.moved_at_ms.load(Ordering::Relaxed)) > STALL_MS).then_some(self.name)
    }
}
