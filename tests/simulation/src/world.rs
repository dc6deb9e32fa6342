//! The run: a queue of events in virtual time around the real pipeline.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use fastrand::Rng;
use vitalgate_domain::{
    Answer, Association, Associations, Batch, BootId, ClockTrust, DestinationId, DeviceId, DeviceNamespace, Entry, GatewayId, Now,
    PatientReference, ReadingId, RejectedReading, Sequence, UnixMs,
};
use vitalgate_pipeline::{
    Admission, AdmissionPolicy, Delivery, DeliveryAction, DeliveryEvent, DeliveryPolicy, Lane, READ_AHEAD_READINGS_MAX, RequestId,
};

use crate::destination::{Destination, MOODS, Mood};
use crate::device::{Device, Kind, Message};
use crate::journal::Journal;
use crate::oracle::{Pairs, Verdict, judge};
use crate::sent::{Sent, SentReading};

/// What a run is like; the seed decides the rest.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Devices.
    pub devices: usize,
    /// How long they send, in virtual milliseconds.
    pub sending_ms: u64,
    /// Shortest interval of a device, in virtual milliseconds.
    pub interval_ms_min: u64,
    /// How often the gateway is killed.
    pub crashes: u32,
}

impl Default for Scenario {
    fn default() -> Self {
        Self { devices: 6, sending_ms: 60_000, interval_ms_min: 150, crashes: 3 }
    }
}

/// After the devices fall silent and everything is healed, everything must be settled within this
/// virtual time, in milliseconds.
const SETTLE_WITHIN_MS: u64 = 3 * 3_600_000;
/// Samples in one commit.
const COMMIT_SAMPLES_MAX: usize = 64;
/// Wall clock at the start of a run.
const WALL_START_MS: i64 = 1_795_341_600_000;
/// Ids remembered per device: in virtual time, devices send far more than real ones between two tries.
const RECENT_IDS: usize = 4_096;

#[derive(Debug)]
enum Event {
    Observe(usize),
    Resend(usize),
    Crash { reboot: bool },
    Restart,
    Mood,
    ClockSet,
    Committed { incarnation: u32, durable: bool },
    Read { incarnation: u32, lane: Lane, from: Sequence, until: Sequence, entries_max: usize },
    Arrive { incarnation: u32, request: RequestId, batch: Box<Batch> },
    Answer { incarnation: u32, request: RequestId, answer: Answer },
    SettleDurable { incarnation: u32, ranges: Vec<(Sequence, Sequence)>, rejected: Vec<RejectedReading> },
    Wake { incarnation: u32, at: u64 },
}

/// Where a message came from: device and number.
type Origin = (usize, u64);

struct Commit {
    entries: Vec<Entry>,
    origins: Vec<Origin>,
}

struct World {
    rng: Rng,
    now_ms: u64,
    boot: BootId,
    boot_at_ms: u64,
    trust: ClockTrust,
    events: BTreeMap<(u64, u64), Event>,
    event_number: u64,
    incarnation: u32,
    up: bool,
    stop_at_ms: u64,
    devices: Vec<Device>,
    serial: u64,
    associations: Associations,
    messages: BTreeMap<Origin, Vec<u64>>,
    /// Whom each device belongs to.
    patients: Vec<Option<PatientReference>>,
    sent: Sent,
    acknowledged: BTreeSet<u64>,
    pairs: Pairs,
    intake: VecDeque<(Origin, vitalgate_domain::DecodedSample)>,
    commit: Option<Commit>,
    admission: Admission,
    delivery: Delivery,
    policy: DeliveryPolicy,
    journal: Journal,
    destination: Destination,
    in_flight: BTreeMap<RequestId, (PatientReference, Vec<ReadingId>)>,
    reading: Vec<Lane>,
    crashes: u32,
    held_most: usize,
    /// The first that the live lane has not read.
    live_next: Sequence,
    jumps: u32,
    trace: DefaultHasher,
}

/// Runs a scenario with a seed to its end.
///
/// # Errors
/// The first promise that was broken, in words.
pub fn run(scenario: Scenario, seed: u64) -> Result<Verdict, String> {
    let mut world = World::new(scenario, seed);
    world.tell(DeliveryEvent::Tick)?;
    while let Some(((at, _), event)) = world.events.pop_first() {
        world.now_ms = at;
        world.happen(event)?;
        if at > world.stop_at_ms && world.is_settled() {
            break;
        }
        if at > world.stop_at_ms + SETTLE_WITHIN_MS {
            let left = world.delivery.status();
            return Err(format!("not everything was settled {SETTLE_WITHIN_MS} ms after everything was healed: {left:?}"));
        }
    }
    if !world.is_settled() {
        return Err(format!("nothing more would happen, but not everything is settled: {:?}", world.delivery.status()));
    }
    let (delivered, listed) = judge(&world.journal, &world.destination, &world.sent, &world.acknowledged, &world.pairs)?;
    Ok(Verdict {
        acknowledged: world.acknowledged.len(),
        delivered,
        listed,
        crashes: world.crashes,
        requests: world.destination.requests,
        held_most: world.held_most,
        jumps: world.jumps,
        trace: world.trace.finish(),
    })
}

fn patient(number: usize) -> PatientReference {
    PatientReference::Literal(format!("Patient/{number}").into())
}

fn association(device: &DeviceId, patient: PatientReference) -> Association {
    Association { device: device.clone(), patient, from: None, until: None, confirmed_by: "simulation".into() }
}

impl World {
    fn new(scenario: Scenario, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let kinds = [Kind::Timed, Kind::Split, Kind::Counting, Kind::Polled, Kind::Timed, Kind::Split];
        let device = |number: usize, rng: &mut Rng| {
            let interval = rng.u64(scenario.interval_ms_min..scenario.interval_ms_min * 6);
            Device::new(number, kinds[number % kinds.len()], interval)
        };
        let devices: Vec<Device> = (0..scenario.devices).map(|number| device(number, &mut rng)).collect();
        // The last device belongs to nobody, and two devices share a patient.
        let assigned = scenario.devices.saturating_sub(1).max(1);
        let patients: Vec<_> = (0..scenario.devices).map(|number| (number < assigned).then(|| patient(number / 2))).collect();
        let pairs = devices.iter().zip(&patients);
        let associations = Associations::new(pairs.filter_map(|(device, patient)| Some(association(&device.id, patient.clone()?))));
        let policy = DeliveryPolicy {
            batch_items_max: *rng.choice(&[1, 5, 50, 100]).unwrap_or(&50),
            batch_bytes_max: *rng.choice(&[1, 10_000, 512 * 1024]).unwrap_or(&10_000),
            requests_in_flight_max: rng.usize(1..6),
            join_window_ms: 2_000,
        };
        let destination = Destination::new(&mut rng, patient(1));
        let journal = Journal::default();
        let mut world = Self {
            now_ms: 1_000,
            boot: BootId::from_bytes(rng.u128(..).to_be_bytes()),
            boot_at_ms: 0,
            trust: ClockTrust::Synchronised,
            events: BTreeMap::new(),
            event_number: 0,
            incarnation: 1,
            up: true,
            stop_at_ms: 1_000 + scenario.sending_ms,
            serial: 0,
            associations,
            messages: BTreeMap::new(),
            patients,
            sent: Sent::default(),
            acknowledged: BTreeSet::new(),
            pairs: Vec::new(),
            intake: VecDeque::new(),
            commit: None,
            admission: admission(&journal),
            delivery: delivery(&journal, policy, seed),
            policy,
            journal,
            destination,
            in_flight: BTreeMap::new(),
            reading: Vec::new(),
            crashes: 0,
            held_most: 0,
            live_next: Sequence::FIRST,
            jumps: 0,
            trace: DefaultHasher::new(),
            devices,
            rng,
        };
        world.schedule(scenario);
        world
    }

    fn schedule(&mut self, scenario: Scenario) {
        for number in 0..self.devices.len() {
            let first = self.rng.u64(1..1_000);
            self.after(first, Event::Observe(number));
            self.after(first + 3_000, Event::Resend(number));
        }
        for _ in 0..scenario.crashes {
            let at = self.rng.u64(1..scenario.sending_ms);
            let reboot = self.rng.u32(..3) == 0;
            self.after(at, Event::Crash { reboot });
        }
        self.after(1, Event::Mood);
    }

    fn after(&mut self, wait_ms: u64, event: Event) {
        self.event_number += 1;
        self.events.insert((self.now_ms + wait_ms, self.event_number), event);
    }

    fn now(&self) -> Now {
        Now {
            wall: UnixMs(WALL_START_MS).plus_ms(self.now_ms as i64),
            monotonic_ms: self.now_ms - self.boot_at_ms,
            boot: self.boot,
            trust: self.trust,
        }
    }

    fn is_sending(&self) -> bool {
        self.now_ms < self.stop_at_ms
    }

    fn is_settled(&self) -> bool {
        let unsent = self.devices.iter().any(|device| !device.outbox.is_empty());
        let all = self.journal.settled.missing_up_to(self.journal.committed()) == 0;
        self.up && !unsent && self.intake.is_empty() && self.commit.is_none() && all && self.in_flight.is_empty()
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Observe(number) => self.observe(number),
            Event::Resend(number) => self.resend(number),
            Event::Crash { reboot } => self.crash(reboot),
            Event::Restart => return self.restart(),
            Event::Mood => self.change_mood(),
            Event::ClockSet => self.trust = ClockTrust::Synchronised,
            Event::Arrive { incarnation, request, batch } => return self.arrive(incarnation, request, &batch),
            Event::Committed { incarnation, durable } if incarnation == self.incarnation => return self.committed(durable),
            Event::Read { incarnation, lane, from, until, entries_max } if incarnation == self.incarnation => {
                return self.read(lane, from, until, entries_max);
            }
            Event::Answer { incarnation, request, answer } if incarnation == self.incarnation => {
                self.in_flight.remove(&request);
                return self.tell(DeliveryEvent::Answered { request, answer });
            }
            Event::SettleDurable { incarnation, ranges, rejected } if incarnation == self.incarnation => {
                self.journal.settle(&ranges, rejected);
            }
            Event::Wake { incarnation, at } if incarnation == self.incarnation && at <= self.now().monotonic_ms => {
                return self.tell(DeliveryEvent::Tick);
            }
            _ => {}
        }
        Ok(())
    }

    fn observe(&mut self, number: usize) {
        if !self.is_sending() {
            return;
        }
        let wall = self.now().wall;
        let Some(device) = self.devices.get_mut(number) else { return };
        let interval = device.interval_ms;
        if device.kind != Kind::Polled || self.up {
            let message = device.observe(wall, &mut self.serial, &mut self.rng);
            self.pairs.extend(message.pair());
            let patient = self.patients.get(number).cloned().flatten();
            for (&serial, decoded) in message.serials.iter().zip(&message.readings) {
                self.sent.add(serial, SentReading::new(device.id.clone(), patient.clone(), decoded.clone()));
            }
            self.messages.insert((number, message.number), message.serials.clone());
            self.submit(number, &message);
        }
        let wait = interval / 2 + self.rng.u64(..interval);
        self.after(wait, Event::Observe(number));
    }

    /// A device sends again what was not acknowledged, and now and then it does so for no reason.
    fn resend(&mut self, number: usize) {
        let Some(device) = self.devices.get(number) else { return };
        let again: Vec<Message> = device.outbox.iter().take(20).cloned().collect();
        for message in &again {
            self.submit(number, message);
        }
        if self.is_sending() || !again.is_empty() {
            let wait = self.rng.u64(500..4_000);
            self.after(wait, Event::Resend(number));
        }
    }

    fn submit(&mut self, number: usize, message: &Message) {
        if !self.up {
            return;
        }
        let received = self.now();
        let Some(device) = self.devices.get(number) else { return };
        self.intake.push_back(((number, message.number), message.sample(&device.id, received)));
        self.begin_commit();
    }

    fn begin_commit(&mut self) {
        if self.commit.is_some() || self.intake.is_empty() {
            return;
        }
        let mut commit = Commit { entries: Vec::new(), origins: Vec::new() };
        let count = self.intake.len().min(COMMIT_SAMPLES_MAX);
        for (origin, sample) in self.intake.drain(..count) {
            if sample.received.trust == ClockTrust::Unset {
                self.sent.without_clock(self.messages.get(&origin).map_or(&[], Vec::as_slice));
            }
            let next = self.journal.committed().next().plus(commit.entries.len() as u64);
            let admitted = self.admission.admit(sample, &self.associations, next);
            commit.entries.extend(admitted.entries);
            commit.origins.push(origin);
        }
        self.commit = Some(commit);
        let durable = self.rng.u32(..40) > 0;
        let took = self.rng.u64(1..15);
        self.after(took, Event::Committed { incarnation: self.incarnation, durable });
    }

    fn committed(&mut self, durable: bool) -> Result<(), String> {
        let Some(commit) = self.commit.take() else { return Ok(()) };
        if durable {
            self.journal.append(commit.entries);
            self.admission.confirm();
            for (number, message) in commit.origins {
                self.acknowledged.extend(self.messages.get(&(number, message)).into_iter().flatten());
                // Now and then the acknowledgement is lost on its way.
                if self.rng.u32(..20) > 0
                    && let Some(device) = self.devices.get_mut(number)
                {
                    device.acknowledge(message);
                }
            }
            self.tell(DeliveryEvent::Committed(self.journal.committed()))?;
        } else {
            self.admission.rollback();
        }
        self.begin_commit();
        Ok(())
    }

    fn crash(&mut self, reboot: bool) {
        if !self.up {
            return;
        }
        if let Some(commit) = self.commit.take()
            && self.rng.bool()
        {
            // It was on disk, only nobody was told.
            self.journal.append(commit.entries);
        }
        self.crashes += 1;
        self.up = false;
        self.incarnation += 1;
        self.intake.clear();
        self.in_flight.clear();
        self.reading.clear();
        if reboot {
            self.boot = BootId::from_bytes(self.rng.u128(..).to_be_bytes());
            self.boot_at_ms = self.now_ms;
            if self.rng.bool() {
                self.trust = ClockTrust::Unset;
                self.after(8_000, Event::ClockSet);
            }
        }
        let down = self.rng.u64(10..4_000);
        self.after(down, Event::Restart);
    }

    fn restart(&mut self) -> Result<(), String> {
        self.up = true;
        self.admission = admission(&self.journal);
        self.delivery = delivery(&self.journal, self.policy, self.rng.u64(..));
        self.live_next = self.journal.committed().next();
        for number in 0..self.devices.len() {
            let wait = self.rng.u64(1..500);
            self.after(wait, Event::Resend(number));
        }
        self.tell(DeliveryEvent::Tick)
    }

    fn change_mood(&mut self) {
        if !self.is_sending() {
            self.destination.mood = Mood::Healthy;
            self.destination.crash_every = 0;
            return;
        }
        self.destination.mood = *self.rng.choice(&MOODS).unwrap_or(&Mood::Healthy);
        let lasts = self.rng.u64(500..12_000).min(self.stop_at_ms - self.now_ms);
        self.after(lasts.max(1), Event::Mood);
    }

    fn arrive(&mut self, incarnation: u32, request: RequestId, batch: &Batch) -> Result<(), String> {
        let (answer, took) = self.destination.receive(batch, &self.sent, &mut self.rng)?;
        self.after(took, Event::Answer { incarnation, request, answer });
        Ok(())
    }

    fn read(&mut self, lane: Lane, from: Sequence, until: Sequence, entries_max: usize) -> Result<(), String> {
        self.reading.retain(|other| *other != lane);
        if self.rng.u32(..30) == 0 {
            return self.tell(DeliveryEvent::ReadFailed { lane, detail: "EIO".into() });
        }
        // A reader may stop early, at its own limit of bytes.
        let entries_max = if self.rng.u32(..3) == 0 { self.rng.usize(1..=entries_max.min(40)) } else { entries_max };
        let (records, reached) = self.journal.read(from, until, entries_max);
        if lane == Lane::Live {
            self.jumps += u32::from(from > self.live_next);
            self.live_next = reached.next();
        }
        self.tell(DeliveryEvent::Read { lane, records, reached })
    }

    fn tell(&mut self, event: DeliveryEvent) -> Result<(), String> {
        let now = self.now();
        let actions = self.delivery.handle(event, &now);
        let status = self.delivery.status();
        self.held_most = self.held_most.max(status.held);
        if status.held > READ_AHEAD_READINGS_MAX {
            return Err(format!("{} readings in memory, more than {READ_AHEAD_READINGS_MAX}", status.held));
        }
        for action in actions {
            self.act(action)?;
        }
        Ok(())
    }

    fn act(&mut self, action: DeliveryAction) -> Result<(), String> {
        let incarnation = self.incarnation;
        match action {
            DeliveryAction::Read { lane, from, until, entries_max } => {
                if self.reading.contains(&lane) || until > self.journal.committed() || from > until {
                    return Err(format!("a read of {from:?} to {until:?} in {lane:?} must not be asked now"));
                }
                self.reading.push(lane);
                let took = self.rng.u64(..5);
                self.after(took, Event::Read { incarnation, lane, from, until, entries_max });
            }
            DeliveryAction::Send { request, batch } => {
                self.check_request(request, &batch)?;
                (self.now_ms, batch.items.iter().map(|item| item.id).collect::<Vec<_>>()).hash(&mut self.trace);
                let took = self.rng.u64(1..10);
                self.after(took, Event::Arrive { incarnation, request, batch: Box::new(batch) });
            }
            DeliveryAction::Settle { ranges, rejected, remote_ids: _ } => {
                let took = self.rng.u64(1..10);
                self.after(took, Event::SettleDurable { incarnation, ranges, rejected });
            }
            DeliveryAction::WakeAt { monotonic_ms } => {
                let Some(wait) = monotonic_ms.checked_sub(self.now().monotonic_ms).filter(|&wait| wait > 0) else {
                    return Err("a wake-up was asked for the past".to_owned());
                };
                self.after(wait, Event::Wake { incarnation, at: monotonic_ms });
            }
            DeliveryAction::Alarm(_) | DeliveryAction::Cleared(_) => {}
        }
        Ok(())
    }

    /// No patient and no identity is in two requests at once, and a request is what it may be.
    fn check_request(&mut self, request: RequestId, batch: &Batch) -> Result<(), String> {
        let ids: Vec<ReadingId> = batch.items.iter().map(|item| item.id).collect();
        let distinct: BTreeSet<_> = ids.iter().collect();
        if ids.is_empty() || distinct.len() != ids.len() || ids.len() > self.policy.batch_items_max {
            return Err(format!("a request with {} items and {} identities", ids.len(), distinct.len()));
        }
        for (other, other_ids) in self.in_flight.values() {
            if *other == batch.patient {
                return Err("two requests of one patient at once".to_owned());
            }
            if other_ids.iter().any(|id| distinct.contains(id)) {
                return Err("one identity in two requests at once".to_owned());
            }
        }
        self.in_flight.insert(request, (batch.patient.clone(), ids));
        if self.in_flight.len() > self.policy.requests_in_flight_max {
            return Err(format!("{} requests at once", self.in_flight.len()));
        }
        Ok(())
    }
}

fn admission(journal: &Journal) -> Admission {
    let gateway = GatewayId::new("simulated").expect("a valid name");
    let policy = AdmissionPolicy { recent_ids_per_device: RECENT_IDS };
    let namespace = DeviceNamespace::of_gateway(&gateway);
    Admission::new(gateway, namespace, policy, journal.seen(RECENT_IDS))
}

fn delivery(journal: &Journal, policy: DeliveryPolicy, jitter_seed: u64) -> Delivery {
    let destination = DestinationId::new("ehr").expect("a valid name");
    Delivery::new(destination, policy, journal.settled.clone(), journal.committed(), jitter_seed)
}
