//! A destination that keeps what it took and lies in every way that real ones do.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use rust_decimal::prelude::ToPrimitive;
use vitalgate_domain::{Answer, Batch, BatchMode, Item, ItemAnswer, PatientReference, ReadingId, Value};

use crate::sent::Sent;

/// How the destination behaves for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Healthy,
    /// Now and then a fault of any kind.
    Flaky,
    /// No connection.
    Down,
    /// 429 with Retry-After.
    Limiting,
    /// Takes everything and never answers before the time-out.
    Hanging,
    /// 401 for everything.
    Refusing,
}

pub(crate) const MOODS: [Mood; 6] = [Mood::Healthy, Mood::Flaky, Mood::Down, Mood::Limiting, Mood::Hanging, Mood::Refusing];

/// Time-out of a request, in milliseconds.
const TIMEOUT_MS: u64 = 5_000;

/// The destination.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) mood: Mood,
    /// Updates by id (the last write stays), or conditional creation (the first stays).
    put: bool,
    /// Most entries that it takes in one request.
    entries_max: usize,
    /// Every so-manieth serial is refused for good; 0 for none.
    poison_every: u64,
    /// Every so-manieth serial makes the server fall over; healed at the end. 0 for none.
    pub(crate) crash_every: u64,
    /// This one is not known here.
    unknown_patient: Option<PatientReference>,
    /// Each Observation with the serials of its parts.
    pub(crate) observations: BTreeMap<ReadingId, BTreeSet<u64>>,
    /// Serials that it refused for good, with what stood in one Observation with them.
    pub(crate) refused: BTreeSet<u64>,
    pub(crate) requests: u64,
}

/// The serial of a reading: its value.
pub(crate) fn serial(value: &Value) -> u64 {
    match value {
        Value::Quantity(quantity) => quantity.value.to_u64().unwrap_or(0),
        Value::Absent(_) => 0,
    }
}

fn serials(item: &Item) -> BTreeSet<u64> {
    item.readings.iter().map(|(_, reading)| serial(&reading.value)).collect()
}

impl Destination {
    pub(crate) fn new(rng: &mut Rng, unknown_patient: PatientReference) -> Self {
        let every = |rng: &mut Rng, least: u64| if rng.bool() { rng.u64(least..least * 8) } else { 0 };
        Self {
            mood: Mood::Healthy,
            put: rng.bool(),
            entries_max: *rng.choice(&[1, 3, 10, 50, 1_000]).unwrap_or(&50),
            poison_every: every(rng, 7),
            crash_every: every(rng, 97),
            unknown_patient: rng.bool().then_some(unknown_patient),
            observations: BTreeMap::new(),
            refused: BTreeSet::new(),
            requests: 0,
        }
    }

    /// Whether it refuses readings with this serial for good.
    fn is_poison(&self, serial: u64) -> bool {
        self.poison_every > 0 && serial.is_multiple_of(self.poison_every)
    }

    /// Whether it has such a patient.
    pub(crate) fn knows(&self, patient: &PatientReference) -> bool {
        self.unknown_patient.as_ref() != Some(patient)
    }

    fn crashes_on(&self, item: &Item) -> bool {
        self.crash_every > 0 && serials(item).iter().any(|serial| serial.is_multiple_of(self.crash_every))
    }

    fn refuses(&self, item: &Item) -> bool {
        serials(item).iter().any(|&serial| self.is_poison(serial))
    }

    fn store(&mut self, item: &Item) {
        let content = serials(item);
        if self.put {
            self.observations.insert(item.id, content);
        } else {
            self.observations.entry(item.id).or_insert(content);
        }
    }

    /// Takes a request; says what it answers and how long that takes in milliseconds.
    ///
    /// # Errors
    /// When it names another patient than the devices have, or says what they did not.
    pub(crate) fn receive(&mut self, batch: &Batch, sent: &Sent, rng: &mut Rng) -> Result<(Answer, u64), String> {
        for (_, reading) in batch.items.iter().flat_map(|item| &item.readings) {
            let serial = serial(&reading.value);
            let told = sent.get(serial)?;
            if told.patient.as_ref() != Some(&batch.patient) {
                return Err(format!("reading {serial} of {:?} was sent under {:?}", told.patient, batch.patient));
            }
            if !told.is_told_by(reading) {
                return Err(format!("reading {serial} was sent as {reading:?}, its device said {told:?}"));
            }
        }
        Ok(self.answer(batch, rng))
    }

    fn answer(&mut self, batch: &Batch, rng: &mut Rng) -> (Answer, u64) {
        self.requests += 1;
        let transient = |detail: &str| Answer::Transient { retry_after_ms: None, detail: detail.into() };
        let quick = rng.u64(1..40);
        match self.mood {
            Mood::Down => return (transient("no connection"), quick),
            Mood::Limiting => {
                return (Answer::Transient { retry_after_ms: Some(rng.u64(100..4_000)), detail: "429".into() }, quick);
            }
            Mood::Refusing => return (Answer::Paused { detail: "401".into() }, quick),
            Mood::Hanging => {
                if rng.bool() {
                    self.process(batch, rng);
                }
                return (transient("time-out"), TIMEOUT_MS);
            }
            Mood::Flaky if rng.u32(..3) == 0 => return self.fault(batch, quick, rng),
            Mood::Flaky | Mood::Healthy => {}
        }
        (self.process(batch, rng), quick)
    }

    fn fault(&mut self, batch: &Batch, quick: u64, rng: &mut Rng) -> (Answer, u64) {
        let transient = |detail: &str| Answer::Transient { retry_after_ms: None, detail: detail.into() };
        match rng.u32(..5) {
            0 => (transient("503"), quick),
            1 => {
                self.process(batch, rng);
                (transient("reset after it was stored"), quick)
            }
            2 => {
                self.process(batch, rng);
                (transient("2xx with a truncated body"), quick)
            }
            3 => {
                self.process(batch, rng);
                (Answer::Items(Vec::new()), quick)
            }
            _ => {
                self.process(batch, rng);
                (transient("time-out"), TIMEOUT_MS)
            }
        }
    }

    fn process(&mut self, batch: &Batch, rng: &mut Rng) -> Answer {
        if !self.knows(&batch.patient) {
            return Answer::PatientUnknown { detail: "no such patient".into() };
        }
        if batch.items.len() > self.entries_max {
            return Answer::TooLarge { detail: "413".into() };
        }
        if batch.items.iter().any(|item| self.crashes_on(item)) {
            return Answer::Transient { retry_after_ms: None, detail: "500".into() };
        }
        if batch.mode == BatchMode::Together && batch.items.iter().any(|item| self.refuses(item)) {
            return Answer::RejectedWhole { detail: "400".into() };
        }
        let flaky = self.mood == Mood::Flaky && batch.mode == BatchMode::Separately;
        let mut answers = Vec::with_capacity(batch.items.len());
        for item in &batch.items {
            if self.refuses(item) {
                self.refused.extend(serials(item));
                answers.push(ItemAnswer::Rejected { detail: "422".into() });
            } else if flaky && rng.u32(..5) == 0 {
                answers.push(ItemAnswer::Transient { detail: "503".into() });
            } else if self.observations.contains_key(&item.id) && rng.u32(..10) == 0 {
                answers.push(ItemAnswer::AcceptedWithWarning { detail: "412 multiple matches".into() });
            } else {
                self.store(item);
                answers.push(ItemAnswer::Accepted { remote_id: rng.bool().then(|| "obs-1".into()) });
            }
        }
        Answer::Items(answers)
    }
}
