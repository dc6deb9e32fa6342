//! What the keyed store's threads and its handle share.

use std::ffi::OsString;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::checkpoint::DiskSync;
use super::event::KeyedEvent;
use super::layout::Trees;
use super::quarantine::Places;
use super::room::FREE_BYTES_MIN;
use super::watch::{Watch, lock};
use crate::copy::{SharedSource, Watermark};

/// The open store, held by whoever uses it; never dropped in a panic (see [`ManuallyDrop`]).
pub(super) type Open = Arc<ManuallyDrop<Trees>>;

/// Time limits, all overridable by tests.
#[derive(Debug, Clone, Copy)]
pub struct KeyedTimes {
    /// Longest that the first look and the opening may take, each, for a store of a few megabytes.
    pub open: Duration,
    /// Longest that one bounded piece of work with sled may take.
    pub call: Duration,
    /// Longest that a lookup may take, queueing included.
    pub lookup: Duration,
    /// Longest that salvaging from a damaged store may take.
    pub salvage: Duration,
    /// How long commits are gathered before they are fed.
    pub gather: Duration,
    /// Nothing new for so long: checkpoint.
    pub checkpoint_idle: Duration,
    /// Oldest record that waits for a checkpoint under steady load.
    pub checkpoint_age: Duration,
    /// Shortest time between two new beginnings for want of space.
    pub shrink_pause: Duration,
}

impl KeyedTimes {
    /// Longest that it can take in all until a store is open: the first look and the opening, and the same for a new one in the
    /// place of a damaged one.
    pub(super) fn open_patience(&self, stored_bytes: u64) -> Duration {
        (self.open_deadline(stored_bytes) + self.open_deadline(0)).saturating_mul(2)
    }

    /// Longest that one opening may take. sled reads all that it wrote since the opening before.
    pub(super) fn open_deadline(&self, stored_bytes: u64) -> Duration {
        self.open + Duration::from_secs(stored_bytes / OPEN_BYTES_PER_SECOND)
    }
}

/// Slowest disk that is reckoned with.
pub(crate) const OPEN_BYTES_PER_SECOND: u64 = 20 * 1024 * 1024;

impl Default for KeyedTimes {
    fn default() -> Self {
        Self {
            open: Duration::from_secs(30),
            call: Duration::from_secs(20),
            lookup: Duration::from_secs(5),
            salvage: Duration::from_secs(60),
            gather: Duration::from_millis(20),
            checkpoint_idle: Duration::from_secs(2),
            checkpoint_age: Duration::from_secs(30),
            shrink_pause: Duration::from_secs(600),
        }
    }
}

/// What the feeder is asked to do.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) committed: bool,
    pub(super) stop: Option<Stop>,
    pub(super) forget: Watermark,
    pub(super) source: Option<SourceCell>,
    /// Begin anew if it takes more than so many bytes.
    pub(super) shrink: Option<u64>,
}

/// A source that has just been attached.
pub(super) struct SourceCell(pub(super) SharedSource);

impl std::fmt::Debug for SourceCell {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SourceCell")
    }
}

/// How to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    /// Until then it may catch up and checkpoint.
    pub(super) until: Instant,
}

/// What has been reached.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Reached {
    pub(super) applied: Watermark,
    pub(super) checkpointed: Watermark,
}

pub(super) struct Shared {
    pub(super) places: Places,
    pub(super) probe: Option<Vec<OsString>>,
    pub(super) sync: Arc<dyn DiskSync>,
    pub(super) times: KeyedTimes,
    pub(super) watch: Watch,
    pub(super) reached: Mutex<Reached>,
    pub(super) progress: Condvar,
    wishes: Mutex<Wishes>,
    wake: Condvar,
    events: Mutex<Vec<KeyedEvent>>,
    open: Mutex<Option<Open>>,
    pub(super) source: Mutex<Option<SharedSource>>,
}

/// Most events kept; what comes after is only logged.
const EVENTS_MAX: usize = 256;

impl Shared {
    pub(super) fn new(places: Places, probe: Option<Vec<OsString>>, sync: Arc<dyn DiskSync>, times: KeyedTimes) -> Self {
        let (note_places, note_sync) = (places.clone(), Arc::clone(&sync));
        let watch = Watch::new(move |failure, met_full| {
            tracing::error!(%failure, "the keyed store failed");
            let little = note_sync.free_space(note_places.root()).is_ok_and(|free| free < FREE_BYTES_MIN);
            // On a full disk the store is most likely sound; the next start looks at it anyway.
            if !met_full && !little {
                note_places.leave_note(note_sync.as_ref(), &failure.to_string());
            }
        });
        Self {
            places,
            probe,
            sync,
            times,
            watch,
            reached: Mutex::default(),
            progress: Condvar::new(),
            wishes: Mutex::default(),
            wake: Condvar::new(),
            events: Mutex::default(),
            open: Mutex::default(),
            source: Mutex::default(),
        }
    }

    /// Notes and logs an event.
    pub(super) fn tell(&self, event: KeyedEvent) {
        match event {
            KeyedEvent::SnapshotSetAside { .. } | KeyedEvent::Salvaged { .. } => tracing::warn!("{event}"),
            _ => tracing::error!("{event}"),
        }
        let mut events = lock(&self.events);
        if events.len() < EVENTS_MAX {
            events.push(event);
        }
    }

    pub(super) fn events(&self) -> Vec<KeyedEvent> {
        lock(&self.events).clone()
    }

    /// The open store, for one bounded piece of work.
    pub(super) fn trees(&self) -> Option<Open> {
        lock(&self.open).clone()
    }

    pub(super) fn publish(&self, trees: Option<Open>) -> Option<Open> {
        std::mem::replace(&mut *lock(&self.open), trees)
    }

    pub(super) fn reached(&self) -> Reached {
        *lock(&self.reached)
    }

    pub(super) fn reach(&self, change: impl FnOnce(&mut Reached)) {
        change(&mut lock(&self.reached));
        self.progress.notify_all();
    }

    /// Changes what the feeder is asked to do, and wakes it.
    pub(super) fn wish(&self, change: impl FnOnce(&mut Wishes)) {
        change(&mut lock(&self.wishes));
        self.wake.notify_one();
    }

    /// Waits until `due` holds for the wishes or the time is over, then lets `take` take from them.
    pub(super) fn await_wish<T>(&self, within: Duration, due: impl Fn(&Wishes) -> bool, take: impl FnOnce(&mut Wishes) -> T) -> T {
        let wishes = lock(&self.wishes);
        let waited = self.wake.wait_timeout_while(wishes, within, |wishes| !due(wishes));
        take(&mut waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sound store that is only large must not be taken for one that does not answer: it is waited for as long as both looks at
    /// it may take, and a new one in its place.
    #[test]
    fn a_large_store_is_waited_for_as_long_as_its_opening_may_take() {
        let times = KeyedTimes::default();
        for stored_bytes in [0, 1 << 30, 100 << 30] {
            let longest = times.open_deadline(stored_bytes) * 2 + times.open_deadline(0);
            assert!(times.open_patience(stored_bytes) >= longest, "{stored_bytes} bytes");
        }
    }
}
