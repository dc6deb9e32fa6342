//! What the listeners and the command line may ask, put together from the store and the loops.

mod trace;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};
use vitalgate_config::NO_DESTINATION;
use vitalgate_console::{
    Answered, DEAD_LETTERS_PER_ANSWER_MAX, DeadLetterView, DestinationStatus, DeviceStatus, Health, ReadModel, ReadModelError,
    ResolveRequest, Status, StoreStatus, TraceQuery, Traced,
};
use vitalgate_domain::limits::DESTINATIONS_MAX;
use vitalgate_domain::{ClockTrust, DeadLetterKind, DeadLetterReason, DestinationId, Entry, GatewayId, Received, Sequence};
use vitalgate_modbus::ModbusStats;
use vitalgate_mqtt::Presence;
use vitalgate_store::keyed::KeyedStatus;
use vitalgate_store::{Keyed, KeyedCopy as _, Reader};

use crate::clock::{Clock, monotonic_ms};
use crate::commit::Command;
use crate::disk::{folder_bytes, free_bytes};
use crate::growth::{Growth, Held, days_left};
use crate::replay::count;
use crate::shared::{Settlement, Shared};

/// How long an administrator's request waits for the commit loop.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(30);
/// How long the buffer may take to come to where the journal is.
const BUFFER_PATIENCE: Duration = Duration::from_secs(5);

/// Most refusals of one entry that are looked at: every destination's, some of them more than once after a restart.
const REFUSALS_MAX: usize = 4 * DESTINATIONS_MAX;
const REASON_NOT_AT_HAND: &str = "the reason is not at hand while the buffer is rebuilt";

/// A configured device as the status shows it.
#[derive(Debug, Clone)]
pub(crate) struct DeviceFacts {
    /// The device.
    pub(crate) id: vitalgate_domain::DeviceId,
    /// Its profile's id.
    pub(crate) profile: String,
    /// Whether it is polled by Modbus; otherwise it publishes by MQTT.
    pub(crate) polled: bool,
}

/// The read model over the running daemon.
pub(crate) struct Model {
    /// This gateway.
    pub(crate) gateway: GatewayId,
    /// What the configuration allows against the advice.
    pub(crate) warnings: Vec<String>,
    /// The configured devices.
    pub(crate) devices: Vec<DeviceFacts>,
    /// The loops' facts.
    pub(crate) shared: Arc<Shared>,
    /// The pollers' states.
    pub(crate) modbus: ModbusStats,
    /// The journal.
    pub(crate) reader: Reader,
    /// The keyed copy.
    pub(crate) keyed: Arc<Keyed>,
    /// The folder of the store.
    pub(crate) store_folder: PathBuf,
    /// The commit loop.
    pub(crate) commands: mpsc::Sender<Command>,
    /// The registered metrics.
    pub(crate) registry: Registry,
    /// Clock.
    pub(crate) clock: Clock,
    /// Free bytes below which nothing is acknowledged.
    pub(crate) floor_bytes: u64,
    /// How much comes in.
    pub(crate) growth: Arc<Growth>,
    /// Who is connected; `None` where nobody connects.
    pub(crate) presence: Option<Presence>,
}

impl ReadModel for Model {
    fn health(&self) -> Health {
        health(&self.shared, &self.keyed.status())
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            gateway: self.gateway.to_string(),
            uptime_s: monotonic_ms().saturating_sub(self.shared.started_ms) / 1_000,
            health: self.health(),
            clock_trust: format!("{:?}", self.clock.now().trust),
            warnings: self.warnings.clone(),
            store: self.store_status(),
            devices: self.devices.iter().map(|device| self.device_status(device)).collect(),
            destinations: self.destination_statuses(),
        }
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_error) => String::new(),
        }
    }

    fn trace(&self, query: &TraceQuery) -> Result<Traced, ReadModelError> {
        self.traced(query)
    }

    fn dead_letters(&self, from: Option<u64>) -> Result<Vec<DeadLetterView>, ReadModelError> {
        // Whoever goes through all of them acts by what is said of them: then a part of it is nothing.
        let committed = self.reader.committed_record();
        let told_whole = from.is_none() || self.keyed.wait_reached(committed, false, BUFFER_PATIENCE);
        let settlement = self.shared.settlement();
        let ranges = settlement.dead_letters.ranges().iter();
        let places: Vec<u64> = match from {
            None => ranges.rev().flat_map(|(first, last)| (first.0..=last.0).rev()).take(DEAD_LETTERS_PER_ANSWER_MAX).collect(),
            Some(from) => ranges.flat_map(|(first, last)| first.0.max(from)..=last.0).take(DEAD_LETTERS_PER_ANSWER_MAX).collect(),
        };
        let views = self.views_of(&places, told_whole)?;
        // One that was opened anew meanwhile may have told only a part.
        let is_as_told = from.is_none() || self.keyed.applied().ordinal >= committed;
        if is_as_told { Ok(views) } else { self.views_of(&places, false) }
    }

    fn resolve(&self, request: &ResolveRequest) -> Result<Answered, ReadModelError> {
        let (asker, answer) = oneshot::channel();
        self.commands.blocking_send(Command::Resolve(request.clone(), asker)).map_err(|_gone| ReadModelError::Stopping)?;
        let waited = tokio::runtime::Handle::current().block_on(tokio::time::timeout(RESOLVE_DEADLINE, answer));
        match waited {
            Ok(Ok(result)) => {
                if let Ok(answered) = &result
                    && answered.resolved > 0
                {
                    tracing::info!(dead_letters = answered.resolved, remaining = answered.remaining, "dead letters {}", request.note());
                }
                result
            }
            Ok(Err(_gone)) => Err(ReadModelError::Stopping),
            Err(_elapsed) => Err(ReadModelError::Store("the commit loop did not answer in time".to_owned())),
        }
    }
}

/// How the gateway is.
pub(crate) fn health(shared: &Shared, keyed: &KeyedStatus) -> Health {
    let mut problems = Vec::new();
    let full = shared.below_floor.load(Ordering::Relaxed);
    if full {
        problems.push("free space is below the floor: nothing is acknowledged".to_owned());
    }
    for (destination, facts) in &shared.destinations {
        problems.extend(facts.alarm().map(|alarm| format!("{destination}: {alarm}")));
    }
    let held_up = !problems.is_empty() && !full;
    if shared.destinations.is_empty() {
        problems.push(NO_DESTINATION.to_owned());
    }
    if let KeyedStatus::Waiting(reason) = keyed {
        problems.push(format!("the buffer waits: {reason}"));
    }
    problems.extend(shared.device_list_fault());
    problems.extend(shared.damage());
    let ready = shared.ready.load(Ordering::Relaxed) && !shared.stopping.load(Ordering::Relaxed) && !full;
    Health { ready, state: state_word(shared, full, held_up).to_owned(), problems }
}

fn state_word(shared: &Shared, full: bool, held_up: bool) -> &'static str {
    if shared.stopping.load(Ordering::Relaxed) {
        "STOPPING"
    } else if !shared.ready.load(Ordering::Relaxed) {
        "STARTING"
    } else if full {
        "STORE-FULL"
    } else if held_up {
        "OFFLINE-BUFFERING"
    } else if shared.destinations.is_empty() || shared.device_list_fault().is_some() || !shared.damage().is_empty() {
        "DEGRADED"
    } else {
        "READY"
    }
}

/// Seconds since something came: by the monotonic clock, or by the wall clock when it came before the last power-on and the
/// clock was set then and is now.
fn age_s(received: &Received, now: &Received) -> Option<u64> {
    if received.boot == now.boot {
        return Some(now.monotonic_ms.checked_sub(received.monotonic_ms)? / 1_000);
    }
    let set = received.trust != ClockTrust::Unset && now.trust != ClockTrust::Unset;
    let age_ms = u64::try_from(now.wall.0.saturating_sub(received.wall.0)).ok()?;
    set.then_some(age_ms / 1_000)
}

fn keyed_word(status: &KeyedStatus) -> String {
    match status {
        KeyedStatus::Opening => "opening".to_owned(),
        KeyedStatus::Running => "running".to_owned(),
        KeyedStatus::Waiting(reason) => format!("waiting: {reason}"),
        KeyedStatus::Stopped => "stopped".to_owned(),
        KeyedStatus::Failed(error) => format!("failed: {error}"),
    }
}

impl Model {
    fn device_status(&self, device: &DeviceFacts) -> DeviceStatus {
        let age_s = self.shared.devices.get(&device.id).and_then(crate::shared::LastMoment::age_s);
        DeviceStatus {
            id: device.id.to_string(),
            profile: device.profile.clone(),
            driver: if device.polled { "modbus" } else { "mqtt" }.to_owned(),
            last_reading_age_s: age_s,
            connected: self.presence.as_ref().filter(|_| !device.polled).map(|presence| presence.is_connected(&device.id)),
            state: match self.modbus.device(&device.id) {
                Some(status) => status.state.word().to_owned(),
                None => if age_s.is_some() { "seen" } else { "no reading since the start" }.to_owned(),
            },
        }
    }

    fn store_status(&self) -> StoreStatus {
        let free_bytes = free_bytes(&self.store_folder);
        let settlement = self.shared.settlement();
        let rate = self.growth.rate(monotonic_ms(), self.reader.committed().0);
        let spare_bytes = free_bytes.saturating_sub(self.floor_bytes);
        StoreStatus {
            committed: self.reader.committed().0,
            keyed_applied: self.keyed.applied().sequence.0,
            keyed_checkpointed: self.keyed.checkpointed().sequence.0,
            keyed_state: keyed_word(&self.keyed.status()),
            free_bytes,
            floor_bytes: self.floor_bytes,
            journal_bytes: folder_bytes(&self.store_folder.join("journal")),
            days_left: rate.and_then(|rate| days_left(rate, self.held(&settlement), spare_bytes)),
            rate_known: rate.is_some(),
            damage: self.shared.damage(),
            dead_letters: count(&settlement.dead_letters),
        }
    }

    fn held(&self, settlement: &Settlement) -> Held {
        let (oldest, committed) = (self.reader.oldest(), self.reader.committed());
        let missing = |destination| settlement.settled.get(destination).map_or(oldest, |settled| settled.first_missing(oldest));
        // One that is not configured any more keeps its place.
        let destinations = self.shared.destinations.keys().chain(settlement.settled.keys());
        let first_missing = destinations.map(missing).min().unwrap_or(oldest);
        Held {
            bytes: self.reader.used_bytes(),
            entries: committed.next().0.saturating_sub(oldest.0),
            delivered: first_missing.min(committed.next()).0.saturating_sub(oldest.0),
        }
    }

    fn destination_statuses(&self) -> Vec<DestinationStatus> {
        let settlement = self.shared.settlement();
        let committed = self.reader.committed();
        let mut statuses = Vec::new();
        for (destination, facts) in &self.shared.destinations {
            let settled = settlement.settled.get(destination);
            let queued = settled.map_or(committed.0, |settled| settled.missing_up_to(committed));
            let oldest = settled.map_or(Sequence::FIRST, |settled| settled.first_missing(Sequence::FIRST));
            statuses.push(DestinationStatus {
                id: destination.to_string(),
                queued,
                oldest_age_s: (queued > 0).then(|| self.age_s(oldest)).flatten(),
                last_acknowledgement_age_s: facts.accepted.age_s(),
                refused_readings: facts.refused_readings.load(Ordering::Relaxed),
                alarm: facts.alarm(),
            });
        }
        statuses
    }

    fn age_s(&self, sequence: Sequence) -> Option<u64> {
        let received = match self.reader.get(sequence).ok().flatten()?.entry {
            Entry::Reading(reading) => reading.time.received,
            Entry::DeadLetter(letter) => letter.received,
            Entry::DeviceEvent(event) => event.received,
        };
        age_s(&received, &self.clock.now())
    }

    /// Who refused it; `None` while the buffer cannot tell, or has not come so far.
    fn refusals(&self, sequence: Sequence) -> Option<Vec<(DestinationId, DeadLetterReason)>> {
        let refused = self.keyed.rejected(sequence, sequence, REFUSALS_MAX).ok()?;
        let refused: Vec<_> = refused.into_iter().map(|(destination, rejected)| (destination, rejected.reason)).collect();
        (!refused.is_empty() || !self.shared.settlement().dead_letters.contains(sequence)).then_some(refused)
    }

    fn views_of(&self, places: &[u64], told_whole: bool) -> Result<Vec<DeadLetterView>, ReadModelError> {
        let view = |sequence| {
            let record = self.reader.get(sequence).map_err(|error| ReadModelError::Store(error.to_string()))?;
            Ok(self.dead_letter(sequence, record.map(|record| record.entry), told_whole))
        };
        places.iter().copied().map(Sequence).map(view).collect()
    }

    fn dead_letter(&self, sequence: Sequence, entry: Option<Entry>, told_whole: bool) -> DeadLetterView {
        let metric = if let Some(Entry::Reading(reading)) = &entry { Some(reading.metric.key().to_owned()) } else { None };
        let (device, received, own_reason) = match entry {
            Some(Entry::DeadLetter(letter)) => (letter.device.to_string(), Some(letter.received), Some(letter.reason)),
            Some(Entry::Reading(reading)) => (reading.device.to_string(), Some(reading.time.received), None),
            Some(Entry::DeviceEvent(event)) => (event.device.to_string(), Some(event.received), None),
            None => (String::new(), None, None),
        };
        let refused = match own_reason {
            Some(reason) => vec![(None, reason)],
            None if !told_whole => Vec::new(),
            None => self.refusals(sequence).unwrap_or_default().into_iter().map(|(by, reason)| (Some(by.to_string()), reason)).collect(),
        };
        let kinds: BTreeSet<DeadLetterKind> = refused.iter().map(|(_, reason)| reason.kind).collect();
        let (destination, reason) = refused.into_iter().next().map_or((None, None), |(by, reason)| (by, Some(reason)));
        let kind = reason.as_ref().map(|reason| reason.kind);
        DeadLetterView {
            sequence: sequence.0,
            device,
            metric,
            received: received.as_ref().map_or_else(String::new, |received| received.wall.rfc3339(0)),
            dated: received.is_some_and(|received| received.trust != ClockTrust::Unset),
            kind: kind.map_or("Unknown", DeadLetterKind::word).to_owned(),
            other_kinds: kinds.into_iter().filter(|other| Some(*other) != kind).map(|other| other.word().to_owned()).collect(),
            detail: reason.map_or_else(|| REASON_NOT_AT_HAND.to_owned(), |reason| reason.detail.to_string()),
            destination,
        }
    }
}

#[cfg(test)]
mod tests {
    use vitalgate_domain::{BootId, UnixMs};

    use super::*;

    /// Promise 5: a gateway that delivers to nobody is not said to deliver, and says why; it still takes readings.
    #[test]
    fn without_a_destination_nothing_is_ready_for_delivery() {
        let with = |destinations: &[&str]| {
            let shared = Shared::new([], destinations.iter().map(|id| DestinationId::new(id).unwrap()));
            shared.ready.store(true, Ordering::Relaxed);
            health(&shared, &KeyedStatus::Running)
        };
        let none = with(&[]);
        assert_eq!((none.ready, none.state.as_str(), none.problems), (true, "DEGRADED", vec![NO_DESTINATION.to_owned()]));
        let one = with(&["ehr"]);
        assert_eq!((one.ready, one.state.as_str(), one.problems), (true, "READY", vec![]));
    }

    /// Promise 5: how long something waits does not depend on how often the clock was put right.
    #[test]
    fn an_age_outlasts_a_clock_that_is_put_right() {
        let at =
            |boot, wall, monotonic_ms, trust| Received { boot: BootId::from_bytes([boot; 16]), wall: UnixMs(wall), monotonic_ms, trust };
        let now = at(1, 1_800_000_000_000, 90_000, ClockTrust::Synchronised);
        for wall in [0, 1_800_000_000_000, 1_900_000_000_000] {
            for trust in [ClockTrust::Unset, ClockTrust::Free] {
                assert_eq!(age_s(&at(1, wall, 30_000, trust), &now), Some(60));
            }
        }
        let before = |wall, trust| age_s(&at(2, wall, 80_000, trust), &now);
        assert_eq!(before(1_799_999_000_000, ClockTrust::Free), Some(1_000));
        assert_eq!(before(1_799_999_000_000, ClockTrust::Unset), None, "nobody knows when that was");
        assert_eq!(before(1_800_000_001_000, ClockTrust::Free), None, "it cannot come from the future");
        let unset = at(1, 0, 90_000, ClockTrust::Unset);
        assert_eq!(age_s(&at(2, -5_000, 0, ClockTrust::Free), &unset), None);
    }
}
