//! A delivery with a journal, a virtual clock and a list of what it asked for.
#![allow(dead_code, clippy::unwrap_used)] // Shared by several test files, each using a part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rust_decimal::Decimal;
use vitalgate_domain::{
    Answer, Batch, BootId, ClockTrust, DestinationId, DeviceId, DeviceNamespace, DeviceTime, Entry, Flags, ItemAnswer, Metric, Now,
    PatientReference, Quantity, Reading, ReadingId, ReadingTime, Received, Record, RejectedReading, Sequence, SequenceRanges, Subject,
    UnixMs, Value,
};
use vitalgate_pipeline::{Alarm, Delivery, DeliveryAction, DeliveryEvent, DeliveryPolicy, Lane, READ_AHEAD_READINGS_MAX, RequestId};

/// The boot of every rig.
pub(crate) fn boot() -> BootId {
    BootId::from_bytes([1; 16])
}

/// The present at that moment of the monotonic clock.
pub(crate) fn at(monotonic_ms: u64) -> Now {
    Received { wall: UnixMs(1_795_341_600_000 + monotonic_ms as i64), monotonic_ms, boot: boot(), trust: ClockTrust::Synchronised }
}

/// A reading whose identity is its number; device and patient share another.
pub(crate) fn reading(metric: Metric, number: u64, patient: usize, arrived_ms: u64) -> Reading {
    Reading {
        id: ReadingId::from_device_sequence(
            &DeviceNamespace::new("g").unwrap(),
            &DeviceId::new("rig").unwrap(),
            Metric::HeartRate,
            "",
            number,
            0,
        ),
        device: DeviceId::new(&format!("monitor-{patient}")).unwrap(),
        metric,
        slot: 0,
        value: Value::Quantity(Quantity { value: Decimal::from(number), unit: metric.definition().unit.unwrap() }),
        reported: None,
        time: ReadingTime { device: None, received: at(arrived_ms), correction_ms: 0 },
        device_sequence: None,
        flags: Flags::default(),
        subject: Subject::Patient(PatientReference::Literal(format!("Patient/{patient}").into())),
    }
}

/// The same with the device's own time.
pub(crate) fn timed(metric: Metric, number: u64, patient: usize, arrived_ms: u64, device_ms: i64) -> Reading {
    let mut reading = reading(metric, number, patient, arrived_ms);
    reading.time.device = Some(DeviceTime { unix_ms: UnixMs(1_795_341_600_000 + device_ms), offset_minutes: None });
    reading
}

/// Everything accepted, under our own ids.
pub(crate) fn all_accepted(batch: &Batch) -> Answer {
    Answer::Items(batch.items.iter().map(|_| ItemAnswer::Accepted { remote_id: None }).collect())
}

/// A failure that may pass.
pub(crate) fn transient() -> Answer {
    Answer::Transient { retry_after_ms: None, detail: "503".into() }
}

/// A delivery under test.
pub(crate) struct Rig {
    pub(crate) delivery: Delivery,
    pub(crate) entries: Vec<Entry>,
    pub(crate) now_ms: u64,
    pub(crate) sent: BTreeMap<RequestId, Batch>,
    pub(crate) requests: usize,
    pub(crate) settled: SequenceRanges,
    pub(crate) rejected: Vec<RejectedReading>,
    pub(crate) remote_ids: Vec<(Sequence, Arc<str>)>,
    pub(crate) alarms: Vec<Alarm>,
    pub(crate) cleared: Vec<Alarm>,
    pub(crate) wake_ms: Option<u64>,
    pub(crate) reads: Vec<(Lane, Sequence, Sequence)>,
    /// Sequences that no copy holds any more.
    pub(crate) damaged: BTreeSet<Sequence>,
    /// What a read of the lane comes to in the place of records.
    pub(crate) unread: fn(Lane) -> Option<DeliveryEvent>,
}

impl Rig {
    pub(crate) fn new(policy: DeliveryPolicy, entries: Vec<Entry>) -> Self {
        Self::restarted(policy, entries, SequenceRanges::new(), 10_000)
    }

    pub(crate) fn restarted(policy: DeliveryPolicy, entries: Vec<Entry>, settled: SequenceRanges, now_ms: u64) -> Self {
        let committed = Sequence(entries.len() as u64);
        let delivery = Delivery::new(DestinationId::new("ehr").unwrap(), policy, settled.clone(), committed, 42);
        Self {
            delivery,
            entries,
            now_ms,
            sent: BTreeMap::new(),
            requests: 0,
            settled,
            rejected: Vec::new(),
            remote_ids: Vec::new(),
            alarms: Vec::new(),
            cleared: Vec::new(),
            wake_ms: None,
            reads: Vec::new(),
            damaged: BTreeSet::new(),
            unread: |_| None,
        }
    }

    pub(crate) fn commit(&mut self, readings: impl IntoIterator<Item = Reading>) {
        self.entries.extend(readings.into_iter().map(Entry::Reading));
        let committed = Sequence(self.entries.len() as u64);
        self.tell(DeliveryEvent::Committed(committed));
    }

    pub(crate) fn tick(&mut self) {
        self.tell(DeliveryEvent::Tick);
    }

    /// Lets time pass to the next moment that was asked for; false when none was.
    pub(crate) fn sleep(&mut self) -> bool {
        let Some(wake) = self.wake_ms.take() else { return false };
        self.now_ms = self.now_ms.max(wake);
        self.tick();
        true
    }

    /// Lets so much time pass, and wakes the delivery if it asked for a moment in it.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        if self.wake_ms.is_some_and(|wake| wake <= self.now_ms) {
            self.tick();
        }
    }

    pub(crate) fn answer(&mut self, request: RequestId, answer: Answer) {
        self.sent.remove(&request).unwrap();
        self.tell(DeliveryEvent::Answered { request, answer });
    }

    /// Answers everything that is under way.
    pub(crate) fn answer_all(&mut self, answer: impl Fn(&Batch) -> Answer) {
        for request in self.sent.keys().copied().collect::<Vec<_>>() {
            let answer = answer(self.sent.get(&request).unwrap());
            self.answer(request, answer);
        }
    }

    /// Answers and lets time pass until everything is settled.
    pub(crate) fn drain(&mut self, answer: impl Fn(&Batch) -> Answer) {
        for _ in 0..100_000 {
            if self.settled.missing_up_to(Sequence(self.entries.len() as u64)) == 0 {
                return;
            }
            if self.sent.is_empty() {
                assert!(self.sleep(), "nothing is under way, nothing is due, and not everything is settled");
            }
            self.answer_all(&answer);
        }
        unreachable!("it does not come to an end: {:?}", self.delivery.status());
    }

    /// Handles an event and every read that follows from it.
    pub(crate) fn tell(&mut self, event: DeliveryEvent) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.delivery.handle(event, &at(self.now_ms)) {
                self.take(action, &mut events);
            }
            assert!(self.delivery.status().held <= READ_AHEAD_READINGS_MAX);
        }
    }

    fn take(&mut self, action: DeliveryAction, events: &mut Vec<DeliveryEvent>) {
        match action {
            DeliveryAction::Read { lane, from, until, entries_max } => {
                self.reads.push((lane, from, until));
                if let Some(event) = (self.unread)(lane) {
                    events.push(event);
                    return;
                }
                let present = (from.0..=until.0).map(Sequence).filter(|sequence| !self.damaged.contains(sequence));
                let record = |sequence: Sequence| Record { sequence, entry: self.entries[sequence.0 as usize - 1].clone() };
                let records: Vec<Record> = present.take(entries_max).map(record).collect();
                let reached = if records.len() < entries_max { until } else { records.last().unwrap().sequence };
                events.push(DeliveryEvent::Read { lane, records, reached });
            }
            DeliveryAction::Send { request, batch } => {
                assert!(self.sent.values().all(|other| other.patient != batch.patient), "two requests of one patient");
                self.requests += 1;
                self.sent.insert(request, batch);
            }
            DeliveryAction::Settle { ranges, rejected, remote_ids } => {
                for (first, last) in ranges {
                    self.settled.insert(first, last);
                }
                self.rejected.extend(rejected);
                self.remote_ids.extend(remote_ids);
            }
            DeliveryAction::WakeAt { monotonic_ms } => {
                assert!(monotonic_ms > self.now_ms);
                self.wake_ms = Some(monotonic_ms);
            }
            DeliveryAction::Alarm(alarm) => self.alarms.push(alarm),
            DeliveryAction::Cleared(alarm) => self.cleared.push(alarm),
        }
    }

    /// The batches under way, in the order in which they were sent.
    pub(crate) fn batches(&self) -> Vec<Batch> {
        self.sent.values().cloned().collect()
    }
}

/// One heart rate a number, of so many patients in turn.
pub(crate) fn heart_rates(numbers: std::ops::Range<u64>, patients: usize) -> Vec<Entry> {
    numbers.map(|number| Entry::Reading(reading(Metric::HeartRate, number, number as usize % patients, 1_000))).collect()
}

pub(crate) trait SubjectPatient {
    fn subject_patient(&self) -> vitalgate_domain::PatientReference;
}

impl SubjectPatient for vitalgate_domain::Reading {
    fn subject_patient(&self) -> vitalgate_domain::PatientReference {
        match &self.subject {
            Subject::Patient(patient) => patient.clone(),
            Subject::Unassigned => unreachable!("the rig's readings have a patient"),
        }
    }
}
