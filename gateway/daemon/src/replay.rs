//! Reading dead letters again, for one who is entitled to ask.

mod carried;
mod panels;
mod selection;
mod window;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vitalgate_console::{Answered, ReadModelError, Resolution, ResolveRequest};
use vitalgate_domain::limits::READINGS_PER_SAMPLE_MAX;
use vitalgate_domain::{
    Associations, Change, ClockTrust, DeadLetter, DecodedSample, DeviceNamespace, Entry, Flags, Now, Reading, ReadingId, Sequence,
    SequenceRanges, Subject, Value,
};
use vitalgate_pipeline::Admission;
use vitalgate_store::{ReadError, Reader, State};

use crate::devices::Devices;
#[cfg(test)]
pub(crate) use carried::{Carried, IdsGiven};
pub(crate) use carried::{TOLD_TIME_MAX, Told};
pub(crate) use panels::PLACES_MAX as PANEL_PLACES_MAX;
use selection::Selection;
pub(crate) use selection::{count, without};
use window::{Window, own_id};

/// How long one request may read. The rest is told as not reached.
const PLAN_TIME_MAX: Duration = Duration::from_millis(500);

/// Why a dead letter stays, beside what its own reason says.
type Stays = &'static str;

const UNREAD: Stays = "today's profile does not read all of the message";
const UNCERTAIN: Stays = "the values cannot be told for certain from those of the message that were taken before";
const TAKEN: Stays = "an earlier reading has another value under the same time or counter";

/// Who says whose a reading is, and what is known of earlier ones.
type Judges<'a> = (&'a Associations, &'a Admission);

/// Reads dead letters again.
pub(crate) struct Replay {
    /// Where they are.
    pub(crate) reader: Reader,
    /// How their bytes are decoded today.
    pub(crate) devices: Arc<Devices>,
    /// What the devices' ids are unique within.
    pub(crate) namespace: DeviceNamespace,
}

/// What is stored again.
pub(crate) enum Again {
    /// A sample to admit again.
    Sample(DecodedSample),
    /// A reading.
    Reading {
        /// As it is stored.
        reading: Reading,
        /// Whether it is for the same patient as before.
        is_same_patient: bool,
    },
}

/// What the commit loop has to do.
#[derive(Default)]
pub(crate) struct Plan {
    /// What is stored again, each with the place of its dead letter and in the order of those: parts of a panel that stood together
    /// stand together.
    pub(crate) again: Vec<(Sequence, Again)>,
    /// The dead letters that this resolves.
    pub(crate) resolved: Vec<Sequence>,
    /// The change that resolves them, in the same commit.
    pub(crate) change: Option<Change>,
    /// The answer.
    pub(crate) answered: Answered,
    /// What the samples say under each identity, as the digest of a value.
    said: HashMap<ReadingId, u32>,
    /// Messages that stay, by the cause: the first, and how many.
    stay: BTreeMap<Stays, (Sequence, usize)>,
}

impl Plan {
    /// Whether it is carried out without any new entry.
    pub(crate) fn stores_nothing(&self) -> bool {
        self.again.is_empty()
    }

    /// Takes a sample, unless something else was said before under one of its identities: that one would be lost.
    fn take(&mut self, sequence: Sequence, sample: DecodedSample, namespace: &DeviceNamespace, admission: &Admission) -> Result<(), Stays> {
        let device = &sample.device;
        let own = |decoded| own_id(namespace, device, decoded).map(|id| (id, decoded.value));
        let said: Vec<_> = sample.readings.iter().filter_map(own).collect();
        let is_other = |(id, value): &(ReadingId, Value)| {
            self.said.get(id).is_some_and(|known| *known != value.digest()) || admission.contradicts(device, *id, value)
        };
        if said.iter().any(is_other) {
            return Err(TAKEN);
        }
        self.said.extend(said.iter().map(|(id, value)| (*id, value.digest())));
        self.again.push((sequence, Again::Sample(sample)));
        Ok(())
    }
}

impl Replay {
    /// Plans what the request asks for. Nothing is changed here; `note` says who wants it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) fn plan(
        &self,
        request: &ResolveRequest,
        unresolved: &SequenceRanges,
        state: &State,
        judges: Judges<'_>,
        now: &Now,
        note: &str,
    ) -> Result<Plan, ReadModelError> {
        let failed = |error: ReadError| ReadModelError::Store(error.to_string());
        let mut plan = Plan::default();
        let mut selection = self.select(request, unresolved).map_err(failed)?;
        let mut counted = Vec::new();
        match request.resolution {
            Resolution::Count => counted = selection.taken,
            Resolution::Discard => plan.resolved = selection.taken,
            Resolution::Replay => {
                let mut window = Window::new(&self.reader);
                let began = Instant::now();
                let mut before = None;
                for sequence in selection.taken.clone() {
                    // Sparse ones cost much reading, and nothing is committed meanwhile. So far apart they are of two samples.
                    let is_apart =
                        before.replace(sequence).is_some_and(|before: Sequence| before.plus(READINGS_PER_SAMPLE_MAX as u64) < sequence);
                    if is_apart && began.elapsed() > PLAN_TIME_MAX {
                        selection.leave_from(sequence);
                        break;
                    }
                    if self.read_again(sequence, &mut window, state, judges, now, &mut plan).map_err(failed)? {
                        plan.resolved.push(sequence);
                    }
                }
                for (cause, (first, letters)) in &plan.stay {
                    tracing::warn!(%first, letters, cause, "dead letters stay");
                }
            }
        }
        plan.answered = Answered {
            resolved: plan.resolved.len() as u64,
            remaining: count(unresolved).saturating_sub(plan.resolved.len() as u64),
            places: plan.resolved.iter().chain(&counted).map(|sequence| sequence.0).collect(),
            not_reached: selection.left.map(|(next, newest)| (next.0, newest.0)),
        };
        if !plan.resolved.is_empty() {
            plan.change = Some(Change::DeadLettersResolved { sequences: plan.resolved.clone(), note: note.into() });
        }
        Ok(plan)
    }

    /// A request ends where a sample ends, and takes a panel whole: its parts are joined only if they go together.
    fn select(&self, request: &ResolveRequest, unresolved: &SequenceRanges) -> Result<Selection, ReadError> {
        let mut selection = Selection::of(request, unresolved);
        if let Some((next, _)) = selection.left {
            let mut window = Window::new(&self.reader);
            let entry = window.come_to(next)?;
            if let Some(begin) = entry.and_then(|_| window.sample_begin()) {
                selection.end_before(begin);
            }
        }
        panels::complete(&mut selection, unresolved, &self.reader)?;
        Ok(selection)
    }

    fn read_again(
        &self,
        sequence: Sequence,
        window: &mut Window<'_>,
        state: &State,
        (associations, admission): Judges<'_>,
        now: &Now,
        plan: &mut Plan,
    ) -> Result<bool, ReadError> {
        match window.come_to(sequence)? {
            Some(Entry::Reading(reading)) => {
                let (trust_before, subject_before) = (reading.time.received.trust, reading.subject.clone());
                let reading = bound_again(reading, associations, &self.devices, now);
                let corrected = subject_before != Subject::Unassigned && reading.subject != subject_before;
                if corrected && !state.settled_everywhere(sequence, sequence) {
                    // What is new overtakes a backlog, and the patient of before would come last.
                    tracing::warn!(%sequence, "a dead letter stays: a destination has not answered yet for its patient of before");
                    return Ok(false);
                }
                let got_its_moment = reading.time.received.trust != trust_before;
                let stays = reading.subject == Subject::Unassigned && !got_its_moment;
                if !stays {
                    let is_same_patient = reading.subject == subject_before && subject_before != Subject::Unassigned;
                    plan.again.push((sequence, Again::Reading { reading, is_same_patient }));
                }
                // Still nobody's: it would only be held once more.
                Ok(!stays)
            }
            Some(Entry::DeadLetter(letter)) => {
                let taken = self.decoded_again(letter, window);
                let taken = taken.and_then(|sample| plan.take(sequence, sample, &self.namespace, admission));
                if let Err(cause) = taken {
                    plan.stay.entry(cause).or_insert((sequence, 0)).1 += 1;
                }
                Ok(taken.is_ok())
            }
            _ => Ok(false),
        }
    }

    /// What the letter's bytes say today, without what could be read of them the first time; or why they stay where they are.
    fn decoded_again(&self, letter: DeadLetter, window: &Window<'_>) -> Result<DecodedSample, Stays> {
        let reason = Arc::clone(&letter.reason.detail);
        let sample = self.devices.decode_again(letter).filter(|sample| sample.unreadable.is_none()).ok_or(UNREAD)?;
        let mut ids = sample.readings.iter().filter_map(|decoded| own_id(&self.namespace, &sample.device, decoded));
        // The earlier reading may be forgotten here, and still have that identity in the EHR.
        if ids.any(|id| reason.contains(&id.to_string())) {
            return Err(TAKEN);
        }
        let rest = window.standing().taken_from(&self.namespace, sample).ok_or(UNCERTAIN)?;
        // It was read as a whole: nothing of it becomes a letter once more.
        Ok(DecodedSample { payload: Vec::new(), ..rest })
    }
}

/// The reading once more, with today's association for its own moment. Its identity stays, and so
/// does a patient that it was bound to, unless the configuration states another for that moment.
fn bound_again(mut reading: Reading, associations: &Associations, devices: &Devices, now: &Now) -> Reading {
    let received = &mut reading.time.received;
    if received.trust == ClockTrust::Unset && now.trust != ClockTrust::Unset && received.boot == now.boot {
        // Monotonic time of the same power-on tells how long ago it was.
        let age_ms = i64::try_from(now.monotonic_ms.saturating_sub(received.monotonic_ms)).unwrap_or(i64::MAX);
        received.wall = now.wall.plus_ms(-age_ms);
        received.trust = now.trust;
        if let Some(time) = reading.time.device {
            // Only now there is a clock to compare it with.
            reading.flags = reading.flags.with(devices.doubts(&reading.device, time, received));
        }
    }
    reading.subject = associations.subject_again(&reading.subject, &reading.device, &reading.time, reading.flags);
    reading.flags = reading.flags.without(Flags::CARRIED.with(Flags::RESOLVED)).with(Flags::REPLAYED);
    reading
}
