//! How long the disk lasts if nothing is delivered from now on: by what came in the last day, not by what stayed. What stays is little
//! as long as delivered readings give way, which says nothing of an outage.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// How far back the rate looks, in milliseconds (one day).
const WINDOW_MS: u64 = 86_400_000;
/// Time between two notes, in milliseconds (one hour).
const NOTE_INTERVAL_MS: u64 = 3_600_000;
/// Shortest time over which a rate means anything, in milliseconds (15 minutes).
const SPAN_MS_MIN: u64 = 900_000;
/// Rate below which nothing comes in, in bytes a second.
const RATE_BYTES_PER_S_MIN: f64 = 1.0;
/// Bytes on the disk for a byte of the journal: the buffer beside it holds the same, and what finds it, in up to one and a half
/// times the room.
const DISK_PER_JOURNAL: f64 = 2.5;

/// How many entries were committed until when, in the last day, an hour apart.
#[derive(Debug)]
pub(crate) struct Growth {
    /// Monotonic milliseconds and the last sequence, oldest first.
    counts: Mutex<VecDeque<(u64, u64)>>,
}

impl Growth {
    /// Begins with the last sequence that is committed.
    pub(crate) fn new(now_ms: u64, committed: u64) -> Self {
        Self { counts: Mutex::new(VecDeque::from([(now_ms, committed)])) }
    }

    /// Notes the last sequence, when an hour has passed since the last note.
    pub(crate) fn note(&self, now_ms: u64, committed: u64) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.back().is_some_and(|(at, _)| now_ms.saturating_sub(*at) < NOTE_INTERVAL_MS) {
            return;
        }
        counts.push_back((now_ms, committed));
        // The oldest note is the last one that is at least a day old.
        while counts.get(1).is_some_and(|(at, _)| now_ms.saturating_sub(*at) >= WINDOW_MS) {
            counts.pop_front();
        }
    }

    /// Entries a second that came, over the last day or since the start when that is shorter; `None` while that is too short to tell.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn rate(&self, now_ms: u64, committed: u64) -> Option<f64> {
        let (from_ms, from) = *self.counts.lock().unwrap_or_else(PoisonError::into_inner).front()?;
        let span_ms = now_ms.saturating_sub(from_ms);
        let came = committed.saturating_sub(from) as f64;
        (span_ms >= SPAN_MS_MIN).then(|| came / (span_ms as f64 / 1_000.0))
    }
}

/// What the journal holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    /// Bytes of the journal.
    pub bytes: u64,
    /// Entries in them.
    pub entries: u64,
    /// Of these, from the oldest on, those that every destination has: they give way when free space is short.
    pub delivered: u64,
}

/// Days until the room is used up when so many entries a second come and none is delivered; `None` where nothing comes in.
/// `spare_bytes`: free space above the floor.
#[allow(clippy::cast_precision_loss, reason = "an estimate in days")]
pub(crate) fn days_left(entries_per_s: f64, held: Held, spare_bytes: u64) -> Option<f64> {
    let entry_bytes = held.bytes as f64 / held.entries.max(1) as f64 * DISK_PER_JOURNAL;
    let rate = entries_per_s * entry_bytes;
    let room = spare_bytes as f64 + held.delivered as f64 * entry_bytes;
    (rate >= RATE_BYTES_PER_S_MIN).then(|| room / rate / 86_400.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;
    /// Entries that come in an hour.
    const HOURLY: u64 = 50_000;

    /// Hour by hour from the hour `from` on, with so many entries an hour; gives the last sequence.
    fn run(growth: &Growth, from: u64, hours: u64, mut committed: u64, hourly: u64) -> u64 {
        for hour in from..from + hours {
            growth.note(hour * NOTE_INTERVAL_MS, committed);
            committed += hourly;
        }
        committed
    }

    /// So many entries of 100 bytes each.
    fn held(entries: u64, delivered: u64) -> Held {
        Held { bytes: entries * 100, entries, delivered }
    }

    /// Days are those of an outage that begins now, also while what was delivered gives way as fast as new readings come: 1.2 million
    /// readings of 250 bytes a day on the disk.
    #[test]
    fn days_left_do_not_wait_for_the_outage_to_be_seen() {
        let growth = Growth::new(0, 0);
        let committed = run(&growth, 0, 10 * 24, 0, HOURLY);
        let rate = growth.rate(10 * DAY_MS, committed).unwrap();
        let week = 7 * 24 * HOURLY;
        let days = days_left(rate, held(week, 0), 3_000_000_000).unwrap();
        assert!((9.5..=10.5).contains(&days), "300 MB a day leave ten days of 3 GB, not {days}");
        let with_delivered = days_left(rate, held(week, week), 3_000_000_000).unwrap();
        assert!((16.5..=17.5).contains(&with_delivered), "a week of delivered readings gives way: {with_delivered}");
        assert!(growth.counts.lock().unwrap().len() <= 26, "bounded");
    }

    /// The first hour of a busy day counts as much as the quiet hours before it, and a day later nothing is left of those.
    #[test]
    fn a_quiet_month_is_forgotten_within_a_day() {
        let growth = Growth::new(0, 0);
        run(&growth, 0, 30 * 24, 0, 0);
        let month = 30 * DAY_MS;
        assert_eq!(days_left(growth.rate(month, 0).unwrap(), held(0, 0), 1 << 30), None, "nothing comes in");
        let committed = run(&growth, 30 * 24, 24, 0, HOURLY);
        let rate = growth.rate(month + DAY_MS, committed).unwrap();
        let days = days_left(rate, held(committed, 0), 3_000_000_000).unwrap();
        assert!((9.0..=11.0).contains(&days), "{days}");
    }

    /// A journal that shrank since the last outage does not hide the next one.
    #[test]
    fn a_second_outage_is_seen_like_the_first() {
        let growth = Growth::new(0, 0);
        let committed = run(&growth, 0, 48, 0, HOURLY);
        let rate = growth.rate(2 * DAY_MS, committed).unwrap();
        let large = days_left(rate, held(committed, 0), 3_000_000_000).unwrap();
        let drained = days_left(rate, held(1_000, 1_000), 3_000_000_000).unwrap();
        assert!((large - drained).abs() < 0.1, "{large} and {drained}");
    }

    /// Nobody is alarmed by what the first minutes look like.
    #[test]
    fn a_rate_of_a_few_minutes_is_none() {
        let growth = Growth::new(0, 0);
        let minutes = |minutes: u64| minutes * 60_000;
        assert_eq!(growth.rate(minutes(14), 100_000), None);
        assert!(growth.rate(minutes(15), 100_000).is_some());
        assert_eq!(growth.rate(minutes(15), 0), Some(0.0), "known, and nothing comes in");
    }
}
