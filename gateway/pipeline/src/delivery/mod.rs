//! Delivery to one destination: batch, join, retry, settle.
//!
//! - Nothing is settled without an answer that accepts or refuses it, except what needs no delivery
//!   (dead letters, device events) and what must be held (no patient, no moment), which is listed.
//! - No patient and no identity is ever in two requests at once.
//! - Memory is bounded by [`READ_AHEAD_READINGS_MAX`], the settled set by the same and [`HOLES_MAX`].
//! - A patient or a reading that keeps failing while others are taken never blocks those. Only when
//!   memory is full of such failures are they kept as dead letters; of a patient with an alarm. A reading
//!   that failed alone for a day of that is one too: it would hold the journal behind it for ever.
//! - Where one identity comes with several patients, the last of the journal counts.
//! - An alarm says what is in the way now, in codes and our own words.

mod answers;
mod gate;
mod jitter;
mod join;
mod lanes;
mod message;
mod overtaken;
mod policy;
mod queue;
mod said;
mod settlement;
mod unknown;
mod work;

use std::collections::{BTreeMap, HashMap, HashSet};

pub use gate::{
    BREAKER_FAILURES, PAUSED_BASE_MS, PAUSED_WAIT_MAX_MS, PROBE_WAIT_MAX_MS, PROBE_WAIT_MIN_MS, RETRY_AFTER_MAX_MS,
    RETRY_AFTER_SILENT_MAX_MS,
};
pub use jitter::{BACKOFF_BASE_MS, BACKOFF_MAX_MS, BACKOFF_MIN_MS};
pub use join::COMMIT_LAG_MS;
pub use lanes::{HOLES_MAX, READ_ENTRIES_MAX, READ_ENTRIES_MIN, READ_FAILURES_MAX, READ_RETRY_MS, SETTLED_RANGES_MAX, SKIP_ENTRIES_MIN};
pub use message::{Alarm, AlarmKind, DeliveryAction, DeliveryEvent, Lane, RequestId};
pub use policy::{
    BACKLOG_READINGS_MAX, DeliveryPolicy, ISOLATE_EVERY, ISOLATE_FAILURES, ITEM_FAILING_MAX_MS, ITEM_FAILING_STEP_MAX_MS,
    ITEM_FAILURES_MAX, JOIN_READINGS_MAX, LIVE_LAG_MAX, LIVE_READINGS_MAX, LIVE_RECENT_MS, OVERTAKEN_MAX, PATIENT_FAILURES_MAX,
    PATIENT_FORGOTTEN_MS, PATIENT_REST_MAX_MS, PATIENT_SUSPECT_FAILURES, PATIENTS_UNKNOWN_IN_A_ROW, PATIENTS_UNKNOWN_MS,
    READ_AHEAD_READINGS_MAX, REJECTIONS_IN_A_ROW, RESENT_AFTER_MS,
};
pub use settlement::DAMAGED_LISTED_MAX;
use vitalgate_domain::{
    ClockTrust, DeadLetterKind, DeadLetterReason, DestinationId, Entry, Flags, Item, Now, PatientReference, Reading, ReadingId, Record,
    Sequence, SequenceRanges, Subject,
};

use gate::{Gate, Permission};
use jitter::Jitter;
use join::{Join, Joined};
use lanes::Lanes;
use overtaken::Overtaken;
use queue::{LANES, Queue, RequestLimits};
use settlement::Settlement;
use unknown::Unknown;
use work::{Failing, Parcel, Work};

/// What the status page shows of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// Entries committed and not settled.
    pub unsettled: u64,
    /// Readings in memory, at most [`READ_AHEAD_READINGS_MAX`].
    pub held: usize,
    /// Requests under way.
    pub in_flight: usize,
    /// Whether the breaker lets requests through.
    pub open_for_requests: bool,
    /// Whether a backlog is being drained behind the live readings.
    pub has_backlog: bool,
    /// Alarms that are raised.
    pub alarms: Vec<Alarm>,
}

/// The delivery to one destination.
#[derive(Debug)]
pub struct Delivery {
    destination: DestinationId,
    policy: DeliveryPolicy,
    settled: SequenceRanges,
    committed: Sequence,
    /// The last on disk at the start: what was settled up to there was known then.
    begun_after: Sequence,
    jitter: Jitter,
    gate: Gate,
    lanes: Lanes,
    join: Join,
    queue: Queue,
    in_flight: BTreeMap<RequestId, Work>,
    next_request: u64,
    /// Every identity in memory.
    identities: HashMap<ReadingId, Known>,
    /// Whose identity has just been answered with another patient: taken before anything else.
    corrected: Vec<(Lane, Sequence, Reading)>,
    overtaken: Overtaken,
    /// Items that the destination takes in one request, as far as it showed.
    items_limit: usize,
    /// Answers that took something. A refusal does not count: a destination that is away for readings may still refuse.
    taken: u64,
    /// Requests of a patient that failed in a row.
    failing: HashMap<PatientReference, Failing>,
    /// Items that fail alone while others are taken, and are shown.
    failing_items: HashSet<ReadingId>,
    unknown: Unknown,
    rejections: u32,
    /// The destination is back: the live lane is to jump ahead.
    jump_due: bool,
    live_seen_ms: Option<u64>,
    join_due_ms: Option<u64>,
    wake_ms: Option<u64>,
    alarms: Vec<Alarm>,
    unassigned: DeadLetterReason,
    moment_doubted: DeadLetterReason,
    dated_by_arrival: DeadLetterReason,
    not_compared: DeadLetterReason,
    time_unknown: DeadLetterReason,
}

/// An identity that is on its way.
#[derive(Debug)]
struct Known {
    patient: PatientReference,
    /// Where it was stated for this patient last.
    newest: Sequence,
    /// Where the same statement came again, or an older one that this one corrects.
    again: Vec<(Lane, Sequence)>,
    /// Where it came with another patient, which corrects it: after the answer, and never in a request beside it.
    corrected: Vec<(Lane, Sequence, Reading)>,
}

/// What one event leads to.
struct Turn {
    now: Now,
    settlement: Settlement,
    actions: Vec<DeliveryAction>,
}

impl Delivery {
    /// Starts from what is durably settled; `committed` is the last sequence on disk. Send a
    /// [`DeliveryEvent::Tick`] to get the first actions. `jitter_seed` only spreads retries.
    #[must_use]
    pub fn new(destination: DestinationId, policy: DeliveryPolicy, settled: SequenceRanges, committed: Sequence, jitter_seed: u64) -> Self {
        let policy = policy.bounded();
        Self {
            destination,
            lanes: Lanes::new(&settled, committed),
            settled,
            committed,
            begun_after: committed,
            jitter: Jitter::new(jitter_seed),
            gate: Gate::new(),
            join: Join::new(policy.join_window_ms),
            queue: Queue::default(),
            in_flight: BTreeMap::new(),
            next_request: 1,
            identities: HashMap::new(),
            corrected: Vec::new(),
            overtaken: Overtaken::default(),
            items_limit: policy.batch_items_max,
            taken: 0,
            failing: HashMap::new(),
            failing_items: HashSet::new(),
            unknown: Unknown::default(),
            rejections: 0,
            jump_due: false,
            live_seen_ms: None,
            join_due_ms: None,
            wake_ms: None,
            alarms: Vec::new(),
            unassigned: DeadLetterReason::new(
                DeadLetterKind::Unassigned,
                "no patient was associated with the device for certain at that moment; associate one, or state that it was there earlier, and replay",
            ),
            moment_doubted: DeadLetterReason::new(
                DeadLetterKind::Unassigned,
                "no patient was associated with the device for certain at that moment: its clock differs from ours; \
                 set the device's clock, and replay once it is stated since when the patient has the device",
            ),
            dated_by_arrival: DeadLetterReason::new(
                DeadLetterKind::Unassigned,
                "no patient was associated with the device for certain: the message says no time, and the device may have kept it since \
                 before it was at the patient; let the device send its time, or if it has no patient yet, enter one, and replay",
            ),
            not_compared: DeadLetterReason::new(
                DeadLetterKind::Unassigned,
                "no patient was associated with the device for certain: the gateway's clock was not set, so that the device's is not known \
                 to be right; it goes on by itself once the clock is set, unless the machine is started anew before; if the device has no \
                 patient yet, enter one, and replay",
            ),
            time_unknown: DeadLetterReason::new(
                DeadLetterKind::TimeUnknown,
                "the gateway's clock was never set and the device gave no time; set the clock and replay",
            ),
            policy,
        }
    }

    /// Takes an event and says what to do now, settlements first. Never waits, never panics.
    pub fn handle(&mut self, event: DeliveryEvent, now: &Now) -> Vec<DeliveryAction> {
        let mut turn = Turn { now: *now, settlement: Settlement::default(), actions: Vec::new() };
        let mut panels_due = self.join_due_ms.is_some_and(|due| due <= now.monotonic_ms);
        match event {
            DeliveryEvent::Committed(sequence) => self.committed = self.committed.max(sequence),
            DeliveryEvent::Read { lane, records, reached } => {
                self.take_records(lane, records, reached, &mut turn);
                panels_due = true;
            }
            DeliveryEvent::ReadFailed { lane, detail } => {
                self.lanes.failed(lane, now.monotonic_ms);
                self.raise_unreadable(&detail, &mut turn);
            }
            DeliveryEvent::ReadPutOff { lane } => self.lanes.put_off(lane, now.monotonic_ms),
            DeliveryEvent::Answered { request, answer } => {
                self.take_answer(request, answer, &mut turn);
                panels_due |= self.take_corrected();
            }
            DeliveryEvent::Tick => {}
        }
        if !self.lanes.has_backlog() {
            self.overtaken.clear();
        }
        self.forget_failing(&mut turn);
        self.queue.wake(now.monotonic_ms);
        if panels_due && !self.join.is_empty() {
            self.close_panels(now);
        }
        self.keep_up();
        self.dispatch(&mut turn);
        self.read_on(&mut turn);
        let wake = self.next_wake(now.monotonic_ms);
        if wake != self.wake_ms
            && let Some(monotonic_ms) = wake
        {
            turn.actions.push(DeliveryAction::WakeAt { monotonic_ms });
        }
        self.wake_ms = wake;
        if let Some(settle) = turn.settlement.finish(&mut self.settled) {
            turn.actions.insert(0, settle);
        }
        turn.actions
    }

    /// The destination.
    #[must_use]
    pub fn destination(&self) -> &DestinationId {
        &self.destination
    }

    /// What is settled, as far as it was asked to be written.
    #[must_use]
    pub fn settled(&self) -> &SequenceRanges {
        &self.settled
    }

    /// What the status page shows.
    #[must_use]
    pub fn status(&self) -> DeliveryStatus {
        DeliveryStatus {
            unsettled: self.settled.missing_up_to(self.committed),
            held: self.held(),
            in_flight: self.in_flight.len(),
            open_for_requests: self.gate.is_closed(),
            has_backlog: self.lanes.has_backlog() || self.queue.held(Lane::Backlog) > 0,
            alarms: self.alarms.clone(),
        }
    }

    fn held(&self) -> usize {
        self.queue.held(Lane::Live) + self.queue.held(Lane::Backlog) + self.join.held()
    }

    /// Readings that the lane may still take into memory.
    fn room(&self, lane: Lane) -> usize {
        let lane_max = match lane {
            Lane::Live => LIVE_READINGS_MAX,
            Lane::Backlog => BACKLOG_READINGS_MAX,
        };
        let asked: usize = LANES.iter().map(|&lane| self.lanes.asked_entries(lane)).sum();
        let whole = READ_AHEAD_READINGS_MAX.saturating_sub(self.held() + asked);
        lane_max.saturating_sub(self.queue.held(lane)).min(whole)
    }

    fn take_records(&mut self, lane: Lane, records: Vec<Record>, reached: Sequence, turn: &mut Turn) {
        let now_ms = turn.now.monotonic_ms;
        let Some(taken) = self.lanes.take(lane, records, reached, now_ms) else {
            self.raise_unreadable("nothing came of it", turn);
            return;
        };
        if !self.lanes.cannot_read() {
            self.clear(AlarmKind::Unreadable, turn);
        }
        if lane == Lane::Live && !taken.records.is_empty() {
            self.live_seen_ms = Some(now_ms);
        }
        let mut expected = taken.from;
        let mut ready = Vec::new();
        if taken.starts_sample {
            self.join.end_of_sample(lane, &mut ready);
        }
        let mut records = taken.records.into_iter().peekable();
        while let Some(record) = records.next() {
            let sequence = record.sequence;
            if sequence < expected {
                continue;
            }
            self.settle_damaged(expected, sequence, turn);
            expected = sequence.next();
            let sample_goes_on = match records.peek() {
                Some(next) => lanes::same_sample(&record, next),
                None => !taken.ends_sample,
            };
            if !self.settled.contains(sequence) {
                self.take_entry(lane, sequence, record.entry, turn);
            }
            if !sample_goes_on {
                self.join.end_of_sample(lane, &mut ready);
            }
        }
        if taken.ends_sample {
            self.join.end_of_sample(lane, &mut ready);
        }
        self.settle_damaged(expected, taken.until.next(), turn);
        self.enqueue(ready);
    }

    fn raise_unreadable(&mut self, why: &str, turn: &mut Turn) {
        if self.lanes.cannot_read() {
            let detail = format!(
                "what waits cannot be read from the store, and is tried again each second: {why}; if it stays so, have the disk looked at"
            );
            self.raise(AlarmKind::Unreadable, &detail, turn);
        }
    }

    /// What was looked at from `from` to before `end` and was not there.
    fn settle_damaged(&mut self, from: Sequence, end: Sequence, turn: &mut Turn) {
        let mut first = self.settled.first_missing(from);
        while first < end {
            let gap_end = self.settled.gap_end(first).unwrap_or(end);
            let last = gap_end.min(Sequence(end.0 - 1));
            turn.settlement.damaged(first, last);
            first = self.settled.first_missing(last.next());
        }
    }

    fn take_entry(&mut self, lane: Lane, sequence: Sequence, entry: Entry, turn: &mut Turn) {
        let Entry::Reading(reading) = entry else {
            turn.settlement.settle(sequence);
            return;
        };
        let is_moved = reading.flags.contains(Flags::CARRIED) && sequence > self.begun_after;
        if is_moved || reading.flags.contains(Flags::RESOLVED) {
            // It was answered for where it stood before, and its answer moves with it. One from before the start that is not settled
            // was moved before this destination came; what was replayed by then stands in the journal on its own.
            turn.settlement.settle(sequence);
            return;
        }
        if reading.time.effective().is_none() {
            turn.settlement.reject(sequence, reading.id, self.time_unknown.clone());
            return;
        }
        let Subject::Patient(patient) = &reading.subject else {
            turn.settlement.reject(sequence, reading.id, self.why_unassigned(&reading).clone());
            return;
        };
        if let Some(latest) = self.overtaken.later(&reading.id, sequence) {
            match latest.refused {
                None => turn.settlement.settle(sequence),
                Some(kind) => turn.settlement.reject(sequence, reading.id, refused_later(kind, latest.sequence)),
            }
            return;
        }
        let patient = patient.clone();
        self.take_reading(lane, sequence, patient, reading);
    }

    fn why_unassigned(&self, reading: &Reading) -> &DeadLetterReason {
        if reading.time.received.trust == ClockTrust::Unset {
            &self.not_compared
        } else if reading.flags.contains(Flags::DATED_BY_ARRIVAL) {
            &self.dated_by_arrival
        } else if reading.flags.contains(Flags::CLOCK_DOUBTFUL) {
            &self.moment_doubted
        } else {
            &self.unassigned
        }
    }

    fn take_reading(&mut self, lane: Lane, sequence: Sequence, patient: PatientReference, reading: Reading) {
        if let Some(known) = self.identities.get_mut(&reading.id) {
            self.queue.hold(lane, 1);
            let is_same = known.patient == patient && known.corrected.is_empty();
            if is_same || sequence < known.newest {
                // The same statement of the source a second time, or an older one that is corrected by this: settled with this.
                known.newest = known.newest.max(sequence);
                known.again.push((lane, sequence));
            } else {
                known.corrected.push((lane, sequence, reading));
            }
            return;
        }
        let known = Known { patient: patient.clone(), newest: sequence, again: Vec::new(), corrected: Vec::new() };
        self.identities.insert(reading.id, known);
        match reading.metric.definition().panel {
            Some(panel) => self.join.add(panel, patient, lane, sequence, reading),
            None => self.queue.push(&patient, Parcel { item: single(sequence, reading), lane }),
        }
    }

    /// Whether there was any.
    fn take_corrected(&mut self) -> bool {
        let corrected = std::mem::take(&mut self.corrected);
        let any = !corrected.is_empty();
        for (lane, sequence, reading) in corrected {
            self.queue.release(lane, 1);
            if let Subject::Patient(patient) = &reading.subject {
                let patient = patient.clone();
                self.take_reading(lane, sequence, patient, reading);
            }
        }
        any
    }

    fn close_panels(&mut self, now: &Now) {
        let mut ready = Vec::new();
        let (lanes, committed) = (&self.lanes, self.committed);
        self.join.sweep(JOIN_READINGS_MAX, |panel| lanes.is_past(panel, committed, now), &mut ready);
        self.enqueue(ready);
        self.join_due_ms = self.join.wake_ms(now);
    }

    fn enqueue(&mut self, ready: Vec<Joined>) {
        for joined in ready {
            self.queue.push(&joined.patient, Parcel { item: joined.item, lane: joined.lane });
        }
    }

    /// The live lane jumps ahead when the destination is back, and when it cannot keep up.
    fn keep_up(&mut self) {
        let lag = self.lanes.live_lag(self.committed);
        if !self.gate.is_closed() || lag == 0 {
            self.jump_due &= lag > 0;
            return;
        }
        let behind = lag > LIVE_LAG_MAX && self.room(Lane::Live) < READ_ENTRIES_MIN;
        if (self.jump_due || behind)
            && self.queue.held(Lane::Backlog) <= BACKLOG_READINGS_MAX
            && self.lanes.jump(self.committed, &self.settled)
        {
            self.jump_due = false;
            self.queue.demote();
        }
    }

    fn dispatch(&mut self, turn: &mut Turn) {
        while self.in_flight.len() < self.policy.requests_in_flight_max {
            let permission = self.gate.permission(turn.now.monotonic_ms);
            let work = match permission {
                Permission::Shut => None,
                Permission::Free => self.next_work(turn.now.monotonic_ms),
                Permission::Probe => self.probe_work(),
            };
            let Some(work) = work else { return };
            let request = RequestId(self.next_request);
            self.next_request += 1;
            if permission == Permission::Probe {
                self.gate.probing(request);
            }
            turn.actions.push(DeliveryAction::Send { request, batch: work.batch() });
            self.in_flight.insert(request, work);
        }
    }

    fn limits(&self) -> RequestLimits {
        RequestLimits { items: self.items_limit.clamp(1, self.policy.batch_items_max), bytes: self.policy.batch_bytes_max }
    }

    fn next_work(&mut self, now_ms: u64) -> Option<Work> {
        let limits = self.limits();
        if let Some(work) = self.queue.take(Lane::Live, limits) {
            return Some(work);
        }
        // A live reading must not wait until one of the backlog's requests returns.
        let live_recently = self.live_seen_ms.is_some_and(|seen| now_ms.saturating_sub(seen) <= LIVE_RECENT_MS);
        let reserved = usize::from(live_recently && self.policy.requests_in_flight_max > 1);
        let backlog = self.in_flight.values().filter(|work| work.lane == Lane::Backlog).count();
        if backlog + reserved >= self.policy.requests_in_flight_max {
            return None;
        }
        self.queue.take(Lane::Backlog, limits)
    }

    /// A probe tries the lanes in turn, so that one patient whose requests always fail cannot keep
    /// the breaker open for all.
    fn probe_work(&mut self) -> Option<Work> {
        let limits = self.limits();
        let [first, second] = if self.gate.openings() % 2 == 1 { LANES } else { [Lane::Backlog, Lane::Live] };
        (self.queue.take(first, limits)).or_else(|| self.queue.take(second, limits)).or_else(|| self.queue.take_waiting())
    }

    fn read_on(&mut self, turn: &mut Turn) {
        for lane in LANES {
            let room = self.room(lane);
            if let Some(asked) = self.lanes.ask(lane, room, self.committed, &self.settled, turn.now.monotonic_ms) {
                let lanes::Asked { from, until, entries_max } = asked;
                turn.actions.push(DeliveryAction::Read { lane, from, until, entries_max });
            }
        }
    }

    fn next_wake(&self, now_ms: u64) -> Option<u64> {
        let gate = self.gate.wake_ms(now_ms).filter(|_| self.held() > 0);
        let waiting = self.queue.wake_ms();
        [gate, waiting, self.join_due_ms, self.lanes.wake_ms()].into_iter().flatten().filter(|&due| due > now_ms).min()
    }

    fn raise(&mut self, kind: AlarmKind, detail: &str, turn: &mut Turn) {
        let standing = self.alarms.iter().position(|alarm| alarm.kind == kind);
        if standing.and_then(|index| self.alarms.get(index)).is_some_and(|alarm| alarm.detail.as_ref() == detail) {
            return;
        }
        let alarm = Alarm { kind, detail: detail.into() };
        match standing.and_then(|index| self.alarms.get_mut(index)) {
            Some(standing) => *standing = alarm.clone(),
            None => self.alarms.push(alarm.clone()),
        }
        turn.actions.push(DeliveryAction::Alarm(alarm));
    }

    fn clear(&mut self, kind: AlarmKind, turn: &mut Turn) {
        if let Some(index) = self.alarms.iter().position(|alarm| alarm.kind == kind) {
            turn.actions.push(DeliveryAction::Cleared(self.alarms.remove(index)));
        }
    }
}

/// Nothing of it reached the destination, and what was stated first must not come last.
fn refused_later(kind: DeadLetterKind, later: Sequence) -> DeadLetterReason {
    let detail = format!("its device stated it again later, under the number {later}, and that was refused: mend what is said there");
    DeadLetterReason::new(kind, &detail)
}

fn single(sequence: Sequence, reading: Reading) -> Item {
    Item { id: reading.id, panel: None, readings: vec![(sequence, reading)] }
}
