//! What the loops tell each other: small facts for status, metrics and trace. No loop waits on it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use vitalgate_domain::{DestinationId, DeviceId, SequenceRanges};

use crate::clock::monotonic_ms;

/// Says "never" where a monotonic time stands; the machine is older than 0 ms once we run.
const NEVER: u64 = 0;

/// A moment of the monotonic clock that loops write and the status reads.
#[derive(Debug, Default)]
pub(crate) struct LastMoment(AtomicU64);

impl LastMoment {
    /// Notes that it happened at `at_ms`.
    pub(crate) fn note(&self, at_ms: u64) {
        self.0.store(at_ms, Ordering::Relaxed);
    }

    /// Seconds since it happened; `None` if it never did.
    pub(crate) fn age_s(&self) -> Option<u64> {
        let at_ms = self.0.load(Ordering::Relaxed);
        (at_ms != NEVER).then(|| monotonic_ms().saturating_sub(at_ms) / 1_000)
    }
}

/// What is known of one destination.
#[derive(Debug, Default)]
pub(crate) struct DestinationFacts {
    /// When it last accepted something.
    pub(crate) accepted: LastMoment,
    /// What stands in its way, without patient data.
    pub(crate) alarm: RwLock<Option<String>>,
    /// Items accepted since the start.
    pub(crate) accepted_items: AtomicU64,
    /// Readings refused or held since the start.
    pub(crate) rejected_readings: AtomicU64,
    /// Requests that have to be repeated since the start.
    pub(crate) retries: AtomicU64,
}

/// What is settled and what is not, as the journal last said.
#[derive(Debug, Default, Clone)]
pub(crate) struct Settlement {
    /// By destination.
    pub(crate) settled: BTreeMap<DestinationId, SequenceRanges>,
    /// Dead letters, held and rejected readings that nobody resolved.
    pub(crate) dead_letters: SequenceRanges,
}

/// Everything that is shared.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Monotonic time of the start.
    pub(crate) started_ms: u64,
    /// The devices' last committed samples.
    pub(crate) devices: BTreeMap<DeviceId, LastMoment>,
    /// The destinations.
    pub(crate) destinations: BTreeMap<DestinationId, DestinationFacts>,
    /// Settlement, copied out of the journal after each change.
    settlement: RwLock<Settlement>,
    /// Free space is below the floor: nothing is acknowledged.
    pub(crate) below_floor: AtomicBool,
    /// Readings are taken.
    pub(crate) ready: AtomicBool,
    /// The gateway drains to disk.
    pub(crate) stopping: AtomicBool,
    /// Damage found at open or later, a line each.
    pub(crate) damage: RwLock<Vec<String>>,
    /// Entries committed since the start.
    pub(crate) committed_entries: AtomicU64,
    /// Group commits since the start.
    pub(crate) commits: AtomicU64,
    /// Resends that were recognised since the start.
    pub(crate) duplicates: AtomicU64,
    /// Samples that became dead letters since the start.
    pub(crate) unreadable: AtomicU64,
}

/// Most lines of damage that the status keeps.
const DAMAGE_LINES_MAX: usize = 100;

impl Shared {
    /// Facts for these devices and destinations.
    pub(crate) fn new(devices: impl IntoIterator<Item = DeviceId>, destinations: impl IntoIterator<Item = DestinationId>) -> Self {
        Self {
            started_ms: monotonic_ms(),
            devices: devices.into_iter().map(|device| (device, LastMoment::default())).collect(),
            destinations: destinations.into_iter().map(|destination| (destination, DestinationFacts::default())).collect(),
            settlement: RwLock::default(),
            below_floor: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            damage: RwLock::default(),
            committed_entries: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
        }
    }

    /// Takes over what the journal says.
    pub(crate) fn set_settlement(&self, settlement: Settlement) {
        *self.settlement.write().unwrap_or_else(PoisonError::into_inner) = settlement;
    }

    /// A copy of what the journal last said.
    pub(crate) fn settlement(&self) -> Settlement {
        self.settlement.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps lines of damage for the status.
    pub(crate) fn add_damage(&self, lines: impl IntoIterator<Item = String>) {
        let mut damage = self.damage.write().unwrap_or_else(PoisonError::into_inner);
        for line in lines {
            tracing::error!(damage = %line, "the store was damaged");
            if damage.len() < DAMAGE_LINES_MAX {
                damage.push(line);
            }
        }
    }

    /// The lines of damage.
    pub(crate) fn damage(&self) -> Vec<String> {
        self.damage.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl DestinationFacts {
    /// Sets or clears the alarm.
    pub(crate) fn set_alarm(&self, alarm: Option<String>) {
        *self.alarm.write().unwrap_or_else(PoisonError::into_inner) = alarm;
    }

    /// The alarm.
    pub(crate) fn alarm(&self) -> Option<String> {
        self.alarm.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
