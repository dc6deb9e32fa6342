//! How fast the journal grows: the days that are left are counted at today's rate, not at last month's.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::disk::folder_bytes;

/// How far back the rate looks, in milliseconds (one day).
const WINDOW_MS: u64 = 86_400_000;
/// Time between two notes, in milliseconds (one hour).
const NOTE_INTERVAL_MS: u64 = 3_600_000;
/// Shortest time over which a rate means anything, in milliseconds.
const SPAN_MS_MIN: u64 = 10_000;
/// Rate below which days left are not computed, in bytes a second.
const RATE_BYTES_PER_S_MIN: f64 = 1.0;

/// The journal's sizes of the last day, an hour apart.
#[derive(Debug)]
pub(crate) struct Growth {
    folder: PathBuf,
    /// Monotonic milliseconds and bytes, oldest first.
    sizes: Mutex<VecDeque<(u64, u64)>>,
}

impl Growth {
    /// Begins with the folder as it is.
    pub(crate) fn new(folder: PathBuf, now_ms: u64) -> Self {
        let first = (now_ms, folder_bytes(&folder));
        Self { folder, sizes: Mutex::new(VecDeque::from([first])) }
    }

    /// Notes the size, when an hour has passed since the last note.
    pub(crate) fn note(&self, now_ms: u64) {
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if sizes.back().is_some_and(|(at, _)| now_ms.saturating_sub(*at) < NOTE_INTERVAL_MS) {
            return;
        }
        sizes.push_back((now_ms, folder_bytes(&self.folder)));
        // The oldest note is the last one that is at least a day old.
        while sizes.get(1).is_some_and(|(at, _)| now_ms.saturating_sub(*at) >= WINDOW_MS) {
            sizes.pop_front();
        }
    }

    /// The journal's size now.
    pub(crate) fn bytes(&self) -> u64 {
        folder_bytes(&self.folder)
    }

    /// Days until `spare_bytes` are used up at the rate of the last day, or since the start when that is
    /// shorter; `None` while the journal does not grow.
    #[allow(clippy::cast_precision_loss, reason = "an estimate in days")]
    pub(crate) fn days_left(&self, now_ms: u64, spare_bytes: u64) -> Option<f64> {
        let (from_ms, from_bytes) = *self.sizes.lock().unwrap_or_else(PoisonError::into_inner).front()?;
        let span_ms = now_ms.saturating_sub(from_ms);
        let rate = self.bytes().saturating_sub(from_bytes) as f64 / (span_ms as f64 / 1_000.0);
        let known = span_ms >= SPAN_MS_MIN && rate >= RATE_BYTES_PER_S_MIN;
        known.then(|| spare_bytes as f64 / rate / 86_400.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    /// A quiet month and then an outage: what counts is how fast it fills now.
    #[test]
    fn days_left_follow_the_rate_of_the_last_day() {
        let folder = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(folder.path().join("a.segment")).unwrap();
        file.set_len(1_000_000).unwrap();
        let growth = Growth::new(folder.path().to_owned(), 0);
        for hour in 0..30 * 24 {
            growth.note(hour * NOTE_INTERVAL_MS);
        }
        let month = 30 * DAY_MS;
        assert_eq!(growth.days_left(month, 1 << 30), None, "it does not grow");
        let mut bytes = 1_000_000;
        for hour in 0..=24 {
            growth.note(month + hour * NOTE_INTERVAL_MS);
            bytes += 10_000_000;
            file.set_len(bytes).unwrap();
        }
        let days = growth.days_left(month + DAY_MS, 2_500_000_000).unwrap();
        assert!((9.0..=11.0).contains(&days), "250 MB a day leave ten days of 2.5 GB, not {days}");
        assert!(growth.sizes.lock().unwrap().len() <= 26, "bounded");
    }

    #[test]
    fn a_rate_of_a_few_seconds_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let growth = Growth::new(folder.path().to_owned(), 0);
        std::fs::write(folder.path().join("a.segment"), [0; 100_000]).unwrap();
        assert_eq!(growth.days_left(SPAN_MS_MIN - 1, 1 << 30), None);
        assert!(growth.days_left(SPAN_MS_MIN, 1 << 30).is_some());
    }
}
