//! What is in memory and not under way: a fair queue of patients, each with its own items.
//!
//! A patient stands in line once per lane and goes to the end after each request, so that a patient
//! with much to say, or one whose requests fail, cannot hold back the others.

use std::collections::{BTreeMap, HashMap, VecDeque};

use vitalgate_domain::PatientReference;

use super::message::Lane;
use super::work::{Parcel, Work};

/// The lanes in the order in which they are served.
pub(super) const LANES: [Lane; 2] = [Lane::Live, Lane::Backlog];

/// One value for each lane.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct PerLane<T> {
    live: T,
    backlog: T,
}

impl<T> PerLane<T> {
    pub(super) fn of(&self, lane: Lane) -> &T {
        match lane {
            Lane::Live => &self.live,
            Lane::Backlog => &self.backlog,
        }
    }

    pub(super) fn of_mut(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Live => &mut self.live,
            Lane::Backlog => &mut self.backlog,
        }
    }
}

#[derive(Debug, Default)]
struct PatientQueue {
    /// Whole requests to send again, before anything new.
    retries: PerLane<VecDeque<Work>>,
    fresh: PerLane<VecDeque<Parcel>>,
    /// A request of this patient is under way.
    in_flight: bool,
    /// It rests after failures of its own.
    resting: bool,
    /// It stands in the lane's line.
    listed: PerLane<bool>,
}

impl PatientQueue {
    fn has(&self, lane: Lane) -> bool {
        !self.retries.of(lane).is_empty() || !self.fresh.of(lane).is_empty()
    }

    fn is_idle(&self) -> bool {
        !self.in_flight && !self.resting && LANES.iter().all(|&lane| !self.has(lane))
    }
}

/// The limits of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestLimits {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

/// The queue of one destination.
#[derive(Debug, Default)]
pub(super) struct Queue {
    patients: HashMap<PatientReference, PatientQueue>,
    lines: PerLane<VecDeque<PatientReference>>,
    /// Patients that rest, in order of their moment.
    resting: BTreeMap<(u64, u64), PatientReference>,
    /// Requests that wait for their moment, in order of it.
    waiting: BTreeMap<(u64, u64), Work>,
    waited: u64,
    /// Readings of each lane in memory, those under way included.
    held: PerLane<usize>,
}

impl Queue {
    /// Readings of the lane in memory, those under way and waiting included.
    pub(super) fn held(&self, lane: Lane) -> usize {
        *self.held.of(lane)
    }

    /// Counts readings that are held along with others.
    pub(super) fn hold(&mut self, lane: Lane, readings: usize) {
        *self.held.of_mut(lane) += readings;
    }

    /// Readings have left memory.
    pub(super) fn release(&mut self, lane: Lane, readings: usize) {
        let held = self.held.of_mut(lane);
        *held = held.saturating_sub(readings);
    }

    /// Adds an item that was read.
    pub(super) fn push(&mut self, patient: &PatientReference, parcel: Parcel) {
        let lane = parcel.lane;
        self.hold(lane, parcel.readings());
        if let Some(queue) = self.patients.get_mut(patient) {
            queue.fresh.of_mut(lane).push_back(parcel);
        } else {
            let mut queue = PatientQueue::default();
            queue.fresh.of_mut(lane).push_back(parcel);
            self.patients.insert(patient.clone(), queue);
        }
        self.list(patient, lane);
    }

    /// Sends it again as soon as the patient's turn comes, before anything new of the patient.
    pub(super) fn retry_now(&mut self, work: Work) {
        if work.parcels.is_empty() {
            return;
        }
        let (patient, lane) = (work.patient.clone(), work.lane);
        self.patients.entry(patient.clone()).or_default().retries.of_mut(lane).push_back(work);
        self.list(&patient, lane);
    }

    /// Sends it again at that moment of the monotonic clock.
    pub(super) fn retry_at(&mut self, due_ms: u64, work: Work) {
        self.waited += 1;
        self.waiting.insert((due_ms, self.waited), work);
    }

    /// The patient sends nothing until that moment. Its request has not returned yet.
    pub(super) fn rest(&mut self, patient: &PatientReference, due_ms: u64) {
        let Some(queue) = self.patients.get_mut(patient) else { return };
        if !queue.resting {
            queue.resting = true;
            self.waited += 1;
            self.resting.insert((due_ms, self.waited), patient.clone());
        }
    }

    /// Everything of the patient that is not under way.
    pub(super) fn take_all(&mut self, patient: &PatientReference) -> Vec<Work> {
        let mut all = Vec::new();
        if let Some(queue) = self.patients.get_mut(patient) {
            for lane in LANES {
                all.extend(queue.retries.of_mut(lane).drain(..));
                let fresh: Vec<Parcel> = queue.fresh.of_mut(lane).drain(..).collect();
                all.push(Work::new(patient.clone(), fresh));
            }
        }
        let theirs: Vec<(u64, u64)> = self.waiting.iter().filter(|(_, work)| work.patient == *patient).map(|(key, _)| *key).collect();
        all.extend(theirs.into_iter().filter_map(|key| self.waiting.remove(&key)));
        all
    }

    /// What is due goes back in line.
    pub(super) fn wake(&mut self, now_ms: u64) {
        while let Some(first) = self.resting.first_entry() {
            if first.key().0 > now_ms {
                break;
            }
            let patient = first.remove();
            self.rested(&patient);
        }
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 > now_ms {
                return;
            }
            let work = first.remove();
            self.retry_now(work);
        }
    }

    /// Everything that waits is due now.
    pub(super) fn wake_all(&mut self) {
        for (_, work) in std::mem::take(&mut self.waiting) {
            self.retry_now(work);
        }
    }

    fn rested(&mut self, patient: &PatientReference) {
        let Some(queue) = self.patients.get_mut(patient) else { return };
        queue.resting = false;
        if !queue.in_flight {
            self.returned(patient);
        }
    }

    /// When the next waiting request or resting patient is due.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        let waiting = self.waiting.first_key_value().map(|((due, _), _)| *due);
        let resting = self.resting.first_key_value().map(|((due, _), _)| *due);
        [waiting, resting].into_iter().flatten().min()
    }

    /// The next request of the lane, its patient now under way; `None` when nobody is in line.
    pub(super) fn take(&mut self, lane: Lane, limits: RequestLimits) -> Option<Work> {
        while let Some(patient) = self.lines.of_mut(lane).pop_front() {
            let Some(queue) = self.patients.get_mut(&patient) else { continue };
            *queue.listed.of_mut(lane) = false;
            if queue.in_flight || queue.resting || !queue.has(lane) {
                continue;
            }
            queue.in_flight = true;
            if let Some(work) = queue.retries.of_mut(lane).pop_front() {
                return Some(work);
            }
            return Some(Work::new(patient, filled(queue, limits)));
        }
        None
    }

    /// The waiting request that is due first and whose patient is free, whenever it is due.
    pub(super) fn take_waiting(&mut self) -> Option<Work> {
        let key = self
            .waiting
            .iter()
            .find(|(_, work)| self.patients.get(&work.patient).is_none_or(|queue| !queue.in_flight && !queue.resting))
            .map(|(key, _)| *key)?;
        let work = self.waiting.remove(&key)?;
        self.patients.entry(work.patient.clone()).or_default().in_flight = true;
        Some(work)
    }

    /// The patient's request is answered: it may stand in line again, or leave.
    pub(super) fn returned(&mut self, patient: &PatientReference) {
        let Some(queue) = self.patients.get_mut(patient) else { return };
        queue.in_flight = false;
        if queue.is_idle() {
            self.patients.remove(patient);
            return;
        }
        for lane in LANES {
            self.list(patient, lane);
        }
    }

    /// The live lane fell behind: what it holds, and is not under way, becomes backlog. Those who are
    /// in line keep their order.
    pub(super) fn demote(&mut self) {
        let mut moved = 0;
        for queue in self.patients.values_mut() {
            let fresh = std::mem::take(queue.fresh.of_mut(Lane::Live));
            queue.fresh.of_mut(Lane::Backlog).extend(fresh.into_iter().map(|parcel| demoted(parcel, &mut moved)));
            let retries = std::mem::take(queue.retries.of_mut(Lane::Live));
            queue.retries.of_mut(Lane::Backlog).extend(retries.into_iter().map(|work| demoted_work(work, &mut moved)));
            *queue.listed.of_mut(Lane::Live) = false;
        }
        for (key, work) in std::mem::take(&mut self.waiting) {
            self.waiting.insert(key, demoted_work(work, &mut moved));
        }
        for patient in std::mem::take(self.lines.of_mut(Lane::Live)) {
            self.list(&patient, Lane::Backlog);
        }
        self.release(Lane::Live, moved);
        self.hold(Lane::Backlog, moved);
    }

    fn list(&mut self, patient: &PatientReference, lane: Lane) {
        let Some(queue) = self.patients.get_mut(patient) else { return };
        if queue.in_flight || queue.resting || *queue.listed.of(lane) || !queue.has(lane) {
            return;
        }
        *queue.listed.of_mut(lane) = true;
        self.lines.of_mut(lane).push_back(patient.clone());
    }
}

/// New items up to the limits, the live ones first, the rest of the room for the backlog.
fn filled(queue: &mut PatientQueue, limits: RequestLimits) -> Vec<Parcel> {
    let mut parcels = Vec::new();
    let mut bytes = 0;
    for lane in LANES {
        let fresh = queue.fresh.of_mut(lane);
        while let Some(next) = fresh.front() {
            bytes += next.bytes();
            if !parcels.is_empty() && (parcels.len() >= limits.items || bytes > limits.bytes) {
                return parcels;
            }
            parcels.extend(fresh.pop_front());
        }
    }
    parcels
}

fn demoted(parcel: Parcel, moved: &mut usize) -> Parcel {
    if parcel.lane == Lane::Live {
        *moved += parcel.readings();
    }
    Parcel { lane: Lane::Backlog, ..parcel }
}

fn demoted_work(mut work: Work, moved: &mut usize) -> Work {
    work.lane = Lane::Backlog;
    work.parcels = work.parcels.into_iter().map(|parcel| demoted(parcel, moved)).collect();
    work
}
