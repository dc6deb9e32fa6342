//! Waiting between two looks at something that cannot call back.

use std::thread;
use std::time::{Duration, Instant};

/// Waits this long.
pub(crate) fn pause(duration: Duration) {
    let end = Instant::now() + duration;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}
