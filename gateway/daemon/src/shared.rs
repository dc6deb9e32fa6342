//! What the loops tell each other: small facts for status, metrics and trace. No loop waits on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use vitalgate_domain::{DestinationId, DeviceId, Sequence, SequenceRanges};
use vitalgate_pipeline::{Alarm, AlarmKind};
use vitalgate_store::{Journal, State};

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
    /// What stands in its way, without patient data; each kind is raised and cleared by itself.
    alarms: RwLock<BTreeMap<AlarmKind, Arc<str>>>,
    /// Items accepted since the start.
    pub(crate) accepted_items: AtomicU64,
    /// Readings that it refused since the start; those that are held count elsewhere.
    pub(crate) refused_readings: AtomicU64,
    /// So much of what it settled waits for room on the disk that it reads no further.
    pub(crate) settling_waits: AtomicBool,
}

/// What is settled and what is not, as the journal last said.
#[derive(Debug, Default, Clone)]
pub(crate) struct Settlement {
    /// By destination.
    pub(crate) settled: BTreeMap<DestinationId, SequenceRanges>,
    /// Dead letters, held and rejected readings that nobody resolved.
    pub(crate) dead_letters: SequenceRanges,
    /// Destinations that may hold entries under ids of their own.
    pub(crate) conditional: BTreeSet<DestinationId>,
    /// The place after the last entry that it tells of: a reader sees the next entries before their standing is told here.
    pub(crate) next: Sequence,
}

impl From<&Journal> for Settlement {
    fn from(journal: &Journal) -> Self {
        let State { settled, unresolved, conditional, .. } = journal.state();
        let (settled, dead_letters, conditional) = (settled.clone(), unresolved.clone(), conditional.clone());
        Self { settled, dead_letters, conditional, next: journal.next_sequence() }
    }
}

/// Everything that is shared.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Monotonic time of the start.
    pub(crate) started_ms: u64,
    /// When the devices' last committed readings came.
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
    /// Why the list of devices cannot be read; the earlier one stays in force.
    device_list_fault: RwLock<Option<String>>,
    /// Entries committed since the start.
    pub(crate) committed_entries: AtomicU64,
    /// Group commits since the start.
    pub(crate) commits: AtomicU64,
    /// Resends that were recognised since the start.
    pub(crate) duplicates: AtomicU64,
    /// Samples that became dead letters since the start.
    pub(crate) unreadable: AtomicU64,
}

/// Said where the list of devices cannot be read.
const DEVICE_LIST_FAULT: &str = "the list of devices cannot be read; the earlier one stays in force";

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
            device_list_fault: RwLock::default(),
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

    /// Whether the destination has settled the entry.
    pub(crate) fn is_settled(&self, destination: &DestinationId, sequence: Sequence) -> bool {
        let settlement = self.settlement.read().unwrap_or_else(PoisonError::into_inner);
        settlement.settled.get(destination).is_some_and(|settled| settled.contains(sequence))
    }

    /// Keeps lines of damage for the status; one that each destination finds is one line.
    pub(crate) fn add_damage(&self, lines: impl IntoIterator<Item = String>) {
        let mut damage = self.damage.write().unwrap_or_else(PoisonError::into_inner);
        for line in lines {
            if damage.contains(&line) {
                continue;
            }
            tracing::error!(damage = %line, "the store was damaged");
            if damage.len() < DAMAGE_LINES_MAX {
                damage.push(line);
            }
        }
    }

    /// Notes whether the list of devices can be read; what is found again and again is one line of the log.
    pub(crate) fn set_device_list_fault(&self, fault: Option<String>) {
        let mut known = self.device_list_fault.write().unwrap_or_else(PoisonError::into_inner);
        match &fault {
            Some(error) if fault != *known => tracing::error!(%error, "{DEVICE_LIST_FAULT}"),
            None if known.is_some() => tracing::info!("the list of devices can be read again"),
            _ => {}
        }
        *known = fault;
    }

    /// What is wrong with the list of devices, for the status.
    pub(crate) fn device_list_fault(&self) -> Option<String> {
        let fault = self.device_list_fault.read().unwrap_or_else(PoisonError::into_inner);
        fault.as_ref().map(|fault| format!("{DEVICE_LIST_FAULT}: {fault}"))
    }

    /// The lines of damage.
    pub(crate) fn damage(&self) -> Vec<String> {
        self.damage.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl DestinationFacts {
    /// Something stands in its way.
    pub(crate) fn raise(&self, alarm: &Alarm) {
        self.alarms.write().unwrap_or_else(PoisonError::into_inner).insert(alarm.kind, Arc::clone(&alarm.detail));
    }

    /// It does not any more; what else does still stands.
    pub(crate) fn clear(&self, kind: AlarmKind) {
        self.alarms.write().unwrap_or_else(PoisonError::into_inner).remove(&kind);
    }

    /// Everything that stands in its way.
    pub(crate) fn alarm(&self) -> Option<String> {
        let alarms = self.alarms.read().unwrap_or_else(PoisonError::into_inner);
        let texts: Vec<&str> = alarms.values().map(AsRef::as_ref).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise 5: damage that every destination comes upon leaves room for other damage.
    #[test]
    fn one_damage_is_one_line() {
        let shared = Shared::new([], []);
        (0..8).for_each(|_| shared.add_damage(["first", "second"].map(str::to_owned)));
        assert_eq!(shared.damage(), ["first", "second"]);
    }

    /// Promise: what ends one alarm of a destination hides no other.
    #[test]
    fn an_alarm_stands_until_it_is_cleared_itself() {
        let facts = DestinationFacts::default();
        assert_eq!(facts.alarm(), None);
        facts.raise(&Alarm { kind: AlarmKind::OnlyRejections, detail: "422".into() });
        facts.raise(&Alarm { kind: AlarmKind::Unreachable, detail: "503".into() });
        assert_eq!(facts.alarm().as_deref(), Some("503; 422"));
        facts.clear(AlarmKind::Unreachable);
        assert_eq!(facts.alarm().as_deref(), Some("422"));
        facts.clear(AlarmKind::OnlyRejections);
        assert_eq!(facts.alarm(), None);
    }
}
