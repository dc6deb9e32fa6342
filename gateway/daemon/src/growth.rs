//! How fast the disk fills: the days that are left are counted at today's rate, not at last month's.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How far back the rate looks, in milliseconds (one day).
const WINDOW_MS: u64 = 86_400_000;
/// Time between two notes, in milliseconds (one hour).
const NOTE_INTERVAL_MS: u64 = 3_600_000;
/// Shortest time over which a rate means anything, in milliseconds (15 minutes).
const SPAN_MS_MIN: u64 = 900_000;
/// Rate below which nothing grows, in bytes a second.
const RATE_BYTES_PER_S_MIN: f64 = 1.0;
/// Bytes on the disk for a byte of the journal: the buffer beside it holds the same, and what finds it, in up to one and a half
/// times the room.
const DISK_PER_JOURNAL: f64 = 2.5;

/// How much the journal held in the last day, an hour apart.
#[derive(Debug)]
pub(crate) struct Growth {
    /// Monotonic milliseconds and bytes, oldest first.
    sizes: Mutex<VecDeque<(u64, u64)>>,
}

impl Growth {
    /// Begins with what the journal holds.
    pub(crate) fn new(now_ms: u64, journal_bytes: u64) -> Self {
        Self { sizes: Mutex::new(VecDeque::from([(now_ms, journal_bytes)])) }
    }

    /// Notes what it holds, when an hour has passed since the last note.
    pub(crate) fn note(&self, now_ms: u64, journal_bytes: u64) {
        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if sizes.back().is_some_and(|(at, _)| now_ms.saturating_sub(*at) < NOTE_INTERVAL_MS) {
            return;
        }
        sizes.push_back((now_ms, journal_bytes));
        // The oldest note is the last one that is at least a day old.
        while sizes.get(1).is_some_and(|(at, _)| now_ms.saturating_sub(*at) >= WINDOW_MS) {
            sizes.pop_front();
        }
    }

    /// Bytes a second by which the disk fills, over the last day or since the start when that is shorter; `None` while that is too
    /// short to tell.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn rate(&self, now_ms: u64, journal_bytes: u64) -> Option<f64> {
        let (from_ms, from_bytes) = *self.sizes.lock().unwrap_or_else(PoisonError::into_inner).front()?;
        let span_ms = now_ms.saturating_sub(from_ms);
        let grown = journal_bytes.saturating_sub(from_bytes) as f64 * DISK_PER_JOURNAL;
        (span_ms >= SPAN_MS_MIN).then(|| grown / (span_ms as f64 / 1_000.0))
    }
}

/// Days until `spare_bytes` are used up; `None` where nothing grows.
#[allow(clippy::cast_precision_loss, reason = "an estimate in days")]
pub(crate) fn days_left(rate: f64, spare_bytes: u64) -> Option<f64> {
    (rate >= RATE_BYTES_PER_S_MIN).then(|| spare_bytes as f64 / rate / 86_400.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    /// A quiet month and then an outage: what counts is how fast it fills now, the buffer with it.
    #[test]
    fn days_left_follow_the_rate_of_the_last_day() {
        let growth = Growth::new(0, 1_000_000);
        for hour in 0..30 * 24 {
            growth.note(hour * NOTE_INTERVAL_MS, 1_000_000);
        }
        let month = 30 * DAY_MS;
        let quiet = growth.rate(month, 1_000_000).unwrap();
        assert_eq!(days_left(quiet, 1 << 30), None, "it does not grow");
        let mut bytes = 1_000_000;
        for hour in 0..=24 {
            growth.note(month + hour * NOTE_INTERVAL_MS, bytes);
            bytes += 10_000_000;
        }
        let days = days_left(growth.rate(month + DAY_MS, bytes).unwrap(), 6_250_000_000).unwrap();
        assert!((9.0..=11.0).contains(&days), "250 MB a day, and 375 MB in the buffer, leave ten days of 6.25 GB, not {days}");
        assert!(growth.sizes.lock().unwrap().len() <= 26, "bounded");
    }

    /// Nobody is alarmed by what the first minutes look like.
    #[test]
    fn a_rate_of_a_few_minutes_is_none() {
        let growth = Growth::new(0, 0);
        let minutes = |minutes: u64| minutes * 60_000;
        assert_eq!(growth.rate(minutes(14), 100_000), None);
        assert!(growth.rate(minutes(15), 100_000).is_some());
        assert_eq!(growth.rate(minutes(15), 0), Some(0.0), "known, and nothing grows");
    }
}
