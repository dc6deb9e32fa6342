//! Where a reading is: found in the buffer by its index, beyond that in the journal, and how it stands with each destination.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vitalgate_console::{
    DEAD_LETTERS_PER_ANSWER_MAX, DeliveryState, LOST_RANGES_PER_ANSWER_MAX, ReadModelError, TRACES_PER_ANSWER_MAX, Trace, TraceDestination,
    TraceQuery, Traced, TracedDeadLetter,
};
use vitalgate_domain::{ClockTrust, DeadLetterReason, DestinationId, DeviceId, Entry, Flags, Reading, ReadingId, Record, Sequence};
use vitalgate_store::{Around, KeyedCopy as _, Nearest, Ordinal, ReadError, Search, latest};

use super::{BUFFER_PATIENCE, Model, REASON_NOT_AT_HAND, REFUSALS_MAX};
use crate::replay::count;
use crate::shared::Settlement;

/// How long the buffer is searched; each of its answers takes a few seconds at most.
const BUFFER_SEARCH: Duration = Duration::from_secs(20);

/// How long the journal is searched for the id that a destination knows an entry by.
const JOURNAL_SEARCH: Duration = Duration::from_secs(10);

/// What is known of the refusals of one entry.
struct Refusals {
    known: Vec<(DestinationId, DeadLetterReason)>,
    /// There are no others.
    complete: bool,
}

impl Model {
    pub(super) fn traced(&self, query: &TraceQuery) -> Result<Traced, ReadModelError> {
        let failed = |error: ReadError| ReadModelError::Store(error.to_string());
        let (search, cut) = match query {
            TraceQuery::Id(id) => {
                let Search { found, below, lost } = self.with_id(*id).map_err(failed)?;
                match found {
                    Some(found) => (Search { found: vec![found], below, lost }, false),
                    None => {
                        let (found, not_searched) = self.known_as(*id).map_err(failed)?;
                        let below = if found.is_empty() { below.max(not_searched) } else { None };
                        (Search { found, below, lost }, false)
                    }
                }
            }
            TraceQuery::Device { device, at, window_ms } => {
                let around = Around { device: device.clone(), at: *at, window_ms: *window_ms };
                let Search { found, below, lost } = self.near(&around).map_err(failed)?;
                let cut = found.is_cut();
                (Search { found: found.into_records(), below, lost }, cut)
            }
        };
        let settlement = self.shared.settlement();
        let mut traced = Traced { cut, not_searched_below: search.below.map(|below| below.0), ..self.told(search.found, &settlement) };
        let found_by_id = matches!(query, TraceQuery::Id(_)) && !traced.readings.is_empty();
        if !found_by_id {
            traced.lost_entries = count(&search.lost);
            let ranges = search.lost.ranges().iter().take(LOST_RANGES_PER_ANSWER_MAX);
            traced.lost = ranges.map(|(first, last)| (first.0, last.0)).collect();
        }
        if let TraceQuery::Device { device, .. } = query {
            traced.undated = self.undated_of(device, &settlement).map_err(failed)?;
        }
        self.note_resolutions(&mut traced, &settlement).map_err(failed)?;
        Ok(traced)
    }

    /// How many of the dead letters that a list shows are of the device and have no moment.
    fn undated_of(&self, device: &DeviceId, settlement: &Settlement) -> Result<u64, ReadError> {
        let mut undated = 0;
        let newest = settlement.dead_letters.ranges().iter().rev().flat_map(|(first, last)| (first.0..=last.0).rev());
        for sequence in newest.take(DEAD_LETTERS_PER_ANSWER_MAX) {
            let record = self.reader.get(Sequence(sequence))?;
            undated += u64::from(record.is_some_and(|record| is_undated_of(&record.entry, device)));
        }
        Ok(undated)
    }

    /// The latest reading with this id. The buffer forgets later than the journal: what it still has of a place that the journal has
    /// let go of may be all that it has of it, and hides where the reading was moved to.
    fn with_id(&self, id: ReadingId) -> Result<Search<Option<Record>>, ReadError> {
        let search = self.with_id_anywhere(id)?;
        if search.found.as_ref().is_none_or(|record| record.sequence >= self.reader.oldest()) {
            return Ok(search);
        }
        let kept = self.reader.find_id(&id, Sequence::FIRST)?;
        // The buffer may be the only one that has it.
        Ok(if kept.found.is_some() { kept } else { search })
    }

    fn with_id_anywhere(&self, id: ReadingId) -> Result<Search<Option<Record>>, ReadError> {
        let Some((applied, older)) = self.in_buffer(|below| self.keyed.find_id(id, below).ok(), latest) else {
            return self.reader.find_id(&id, Sequence::FIRST);
        };
        let newer = self.reader.find_id(&id, applied.next())?;
        Ok(joined(newer, older, latest))
    }

    /// The readings that a destination knows under this id, as the parts of a panel, in our order; and below which place nothing was searched.
    fn known_as(&self, id: ReadingId) -> Result<(Vec<Record>, Option<Sequence>), ReadError> {
        let known = self.reader.known_as(&id.to_string(), Instant::now() + JOURNAL_SEARCH)?;
        let mut found = BTreeMap::new();
        for sequence in known.found.into_iter().take(TRACES_PER_ANSWER_MAX) {
            let Some(record) = self.reader.get(sequence)? else { continue };
            let Entry::Reading(reading) = &record.entry else { continue };
            let id = reading.id;
            let older = found.remove(&id);
            found.extend(latest(Some(record), older).map(|record| (id, record)));
        }
        let mut records: Vec<Record> = found.into_values().collect();
        records.sort_unstable_by_key(|record| record.sequence);
        Ok((records, known.below))
    }

    /// What is nearest to a moment.
    fn near(&self, around: &Around) -> Result<Search<Nearest>, ReadError> {
        let max = TRACES_PER_ANSWER_MAX;
        let Some((applied, older)) = self.in_buffer(|below| self.keyed.find_device(around, max, below).ok(), both) else {
            return self.reader.find_device(around, max, Sequence::FIRST);
        };
        let newer = self.reader.find_device(around, max, applied.next())?;
        Ok(joined(newer, older, both))
    }

    /// Asks the buffer as long as it needs several answers. Gives back how far it had followed the journal; `None` when it cannot
    /// be asked just now.
    fn in_buffer<T>(&self, ask: impl Fn(Option<Sequence>) -> Option<Search<T>>, join: impl Fn(T, T) -> T) -> Option<(Sequence, Search<T>)> {
        let until = Instant::now() + BUFFER_SEARCH;
        let applied = self.keyed.applied().sequence;
        let mut search = ask(None)?;
        while let Some(below) = search.below
            && Instant::now() < until
        {
            search = joined(search, ask(Some(below))?, &join);
        }
        // One that began anew meanwhile no longer holds what it held.
        (self.keyed.applied().sequence >= applied).then_some((applied, search))
    }

    fn told(&self, records: Vec<Record>, settlement: &Settlement) -> Traced {
        let mut told = Traced::default();
        let mut can_tell = self.refusals_are_at_hand(&records, settlement);
        for record in records {
            let sequence = record.sequence;
            match record.entry {
                Entry::Reading(reading) => {
                    let mut refusals = self.refusals_of(sequence, &mut can_tell);
                    // To a destination that was configured later it was not sent from there.
                    refusals.complete &= !reading.flags.contains(Flags::RESOLVED);
                    told.readings.push(self.trace_of(&reading, sequence, settlement, &refusals));
                }
                letter @ Entry::DeadLetter(_) => told.dead_letters.push(TracedDeadLetter {
                    letter: self.dead_letter(sequence, Some(letter), true),
                    unresolved: settlement.dead_letters.contains(sequence) || sequence >= settlement.next,
                    resolved: None,
                }),
                Entry::DeviceEvent(_) => {}
            }
        }
        told
    }

    /// Waits until the buffer has all that the journal says of what is settled; only then it knows every refusal. Gives how far it came.
    fn refusals_are_at_hand(&self, records: &[Record], settlement: &Settlement) -> Option<Ordinal> {
        let is_settled = |record: &Record| settlement.settled.values().any(|settled| settled.contains(record.sequence));
        let settled = records.iter().any(|record| matches!(record.entry, Entry::Reading(_)) && is_settled(record));
        let committed = self.reader.committed_record();
        (settled && self.keyed.wait_reached(committed, false, BUFFER_PATIENCE)).then_some(committed)
    }

    fn refusals_of(&self, sequence: Sequence, can_tell: &mut Option<Ordinal>) -> Refusals {
        let known = self.keyed.rejected(sequence, sequence, REFUSALS_MAX);
        // One that was opened anew meanwhile may have told only a part.
        *can_tell = can_tell.filter(|committed| known.is_ok() && self.keyed.applied().ordinal >= *committed);
        let known = known.unwrap_or_default().into_iter().map(|(destination, rejected)| (destination, rejected.reason));
        // Of what the journal has let go of, some may be forgotten by now.
        let is_kept = sequence >= self.reader.oldest();
        Refusals { known: known.collect(), complete: can_tell.is_some() && is_kept }
    }

    fn trace_of(&self, reading: &Reading, sequence: Sequence, settlement: &Settlement, refusals: &Refusals) -> Trace {
        let in_journal = (sequence >= self.reader.oldest()).then(|| "journal".to_owned());
        let in_buffer = (self.keyed.applied().sequence >= sequence).then(|| "buffer".to_owned());
        let standing = |destination| {
            let (state, reason) = standing(destination, (sequence, reading.flags), settlement, refusals);
            let remote_id =
                (state == DeliveryState::Delivered).then(|| self.remote_id(destination, sequence, reading, settlement)).flatten();
            TraceDestination { destination: destination.to_string(), state, remote_id, reason }
        };
        Trace {
            reading_id: reading.id.to_string(),
            sequence: sequence.0,
            device: reading.device.to_string(),
            metric: reading.metric.key().to_owned(),
            at: reading.time.effective().map(|moment| moment.rfc3339(reading.time.offset_minutes())),
            received: reading.time.received.wall.rfc3339(0),
            dated: reading.time.received.trust != ClockTrust::Unset,
            stored_in: in_journal.into_iter().chain(in_buffer).collect(),
            destinations: self.shared.destinations.keys().map(standing).collect(),
            resolved: None,
        }
    }

    /// `None` where it is not at hand.
    fn remote_id(&self, destination: &DestinationId, sequence: Sequence, reading: &Reading, settlement: &Settlement) -> Option<String> {
        match self.keyed.remote_id(sequence, destination).ok()? {
            Some(noted) => Some(as_observation(&noted)),
            None => own_id(destination, reading, settlement),
        }
    }

    /// What became of the dead letters among them that are none any more.
    fn note_resolutions(&self, traced: &mut Traced, settlement: &Settlement) -> Result<(), ReadError> {
        let may_be = |state: &DeliveryState| matches!(state, DeliveryState::Resolved | DeliveryState::Unknown);
        let readings = traced.readings.iter().filter(|trace| trace.destinations.iter().any(|standing| may_be(&standing.state)));
        let letters = traced.dead_letters.iter().filter(|letter| !letter.unresolved).map(|letter| letter.letter.sequence);
        let of: BTreeSet<Sequence> = readings.map(|trace| trace.sequence).chain(letters).map(Sequence).collect();
        let of = of.into_iter().filter(|sequence| !settlement.dead_letters.contains(*sequence)).collect();
        let noted: BTreeMap<Sequence, Arc<str>> = self.reader.resolutions(&of)?;
        let note = |sequence| noted.get(&Sequence(sequence)).map(ToString::to_string);
        for trace in &mut traced.readings {
            trace.resolved = note(trace.sequence);
        }
        for letter in &mut traced.dead_letters {
            letter.resolved = note(letter.letter.sequence);
        }
        Ok(())
    }
}

/// Whether it is of the device, and nobody knows when it was.
fn is_undated_of(entry: &Entry, device: &DeviceId) -> bool {
    match entry {
        Entry::Reading(reading) => reading.device == *device && reading.time.effective().is_none(),
        Entry::DeadLetter(letter) => letter.device == *device && letter.received.trust == ClockTrust::Unset,
        Entry::DeviceEvent(_) => false,
    }
}

fn both(mut one: Nearest, other: Nearest) -> Nearest {
    one.join(other);
    one
}

/// Joins what a search found with what the search below it found.
fn joined<T>(mut above: Search<T>, below: Search<T>, join: impl Fn(T, T) -> T) -> Search<T> {
    below.lost.ranges().iter().for_each(|(first, last)| above.lost.insert(*first, *last));
    Search { found: join(above.found, below.found), below: below.below, lost: above.lost }
}

/// The id of ours that a destination knows a reading by. What is settled on a full disk has its id not noted: `None` where that
/// would have been another one.
fn own_id(destination: &DestinationId, reading: &Reading, settlement: &Settlement) -> Option<String> {
    let has_another = settlement.conditional.contains(destination) || reading.metric.definition().panel.is_some();
    (!has_another).then(|| as_observation(&reading.id.to_string()))
}

/// As the destination's own references name it.
fn as_observation(id: &str) -> String {
    format!("Observation/{id}")
}

/// How an entry stands with a destination. What is not known for certain is never called delivered.
fn standing(
    destination: &DestinationId,
    (sequence, flags): (Sequence, Flags),
    settlement: &Settlement,
    refusals: &Refusals,
) -> (DeliveryState, Option<String>) {
    if sequence >= settlement.next && flags.contains(Flags::CARRIED) {
        // Its standing moved with it, and is told in a moment.
        return (DeliveryState::Unknown, None);
    }
    let is_settled = settlement.settled.get(destination).is_some_and(|settled| settled.contains(sequence));
    let is_dead_letter = settlement.dead_letters.contains(sequence);
    if !is_settled && !is_dead_letter {
        return (DeliveryState::Queued, None);
    }
    if let Some((_, reason)) = refusals.known.iter().find(|(refuser, _)| refuser == destination) {
        let state = if is_dead_letter { DeliveryState::DeadLetter } else { DeliveryState::Resolved };
        return (state, Some(format!("{:?}: {}", reason.kind, reason.detail)));
    }
    match (is_settled, refusals.complete) {
        (false, _) => (DeliveryState::Queued, None),
        // Somebody refused it, and nobody knows any more who.
        (true, true) if is_dead_letter && refusals.known.is_empty() => (DeliveryState::DeadLetter, None),
        (true, true) => (DeliveryState::Delivered, None),
        // One of the destinations refused it, and which one is not known yet.
        (true, false) if is_dead_letter => (DeliveryState::DeadLetter, Some(REASON_NOT_AT_HAND.to_owned())),
        (true, false) => (DeliveryState::Unknown, None),
    }
}

#[cfg(test)]
mod tests {
    use vitalgate_domain::{
        BootId, DeadLetterKind, DeviceTime, Flags, Metric, NoReading, ReadingTime, Received, SequenceRanges, Subject, UnixMs, Value,
    };

    use super::*;

    const SEQUENCE: Sequence = Sequence(7);

    fn settlement(settled: bool, dead_letter: bool) -> Settlement {
        let ranges = |is: bool| {
            let mut ranges = SequenceRanges::new();
            if is {
                ranges.insert(SEQUENCE, SEQUENCE);
            }
            ranges
        };
        Settlement {
            settled: [(ehr(), ranges(settled))].into(),
            dead_letters: ranges(dead_letter),
            next: SEQUENCE.next(),
            ..Settlement::default()
        }
    }

    fn ehr() -> DestinationId {
        DestinationId::new("ehr").unwrap()
    }

    fn refused_by(destination: &str) -> Vec<(DestinationId, DeadLetterReason)> {
        vec![(DestinationId::new(destination).unwrap(), DeadLetterReason::new(DeadLetterKind::Rejected, "no"))]
    }

    /// Promise 5: what was refused, and discarded or replayed since, is never said to be delivered, and is no dead letter for ever.
    #[test]
    fn only_what_is_certain_is_called_delivered() {
        let state = |settled, dead_letter, known, complete| {
            standing(&ehr(), (SEQUENCE, Flags::default()), &settlement(settled, dead_letter), &Refusals { known, complete }).0
        };
        assert_eq!(state(true, false, vec![], true), DeliveryState::Delivered);
        assert_eq!(state(true, false, refused_by("other"), true), DeliveryState::Delivered);
        assert_eq!(state(true, false, vec![], false), DeliveryState::Unknown, "its refusal may not be in the buffer yet");
        assert_eq!(state(true, false, refused_by("other"), false), DeliveryState::Unknown);
        assert_eq!(state(true, true, vec![], true), DeliveryState::DeadLetter, "somebody refused it, and no copy says who");
        assert_eq!(state(true, true, refused_by("other"), true), DeliveryState::Delivered);
        assert_eq!(state(true, true, refused_by("ehr"), false), DeliveryState::DeadLetter);
        assert_eq!(state(true, false, refused_by("ehr"), false), DeliveryState::Resolved);
        assert_eq!(state(true, false, refused_by("ehr"), true), DeliveryState::Resolved);
        assert_eq!(state(true, true, vec![], false), DeliveryState::DeadLetter, "one of the destinations has refused it");
        assert_eq!(state(false, false, vec![], true), DeliveryState::Queued);
        assert_eq!(state(false, false, refused_by("ehr"), true), DeliveryState::Queued, "the refusal came after the question");
    }

    /// Promise 5: what was moved this moment, and is settled where it went, is never said to wait to be sent.
    #[test]
    fn what_was_just_moved_is_not_called_queued() {
        let before = Settlement { next: SEQUENCE, ..settlement(false, false) };
        let state = |flags| standing(&ehr(), (SEQUENCE, flags), &before, &Refusals { known: vec![], complete: true }).0;
        assert_eq!(state(Flags::CARRIED), DeliveryState::Unknown);
        assert_eq!(state(Flags::default()), DeliveryState::Queued);
    }

    fn reading(metric: Metric) -> Reading {
        let received =
            Received { wall: UnixMs(1_795_341_600_000), monotonic_ms: 0, boot: BootId::from_bytes([1; 16]), trust: ClockTrust::Free };
        Reading {
            id: ReadingId::from_bytes([7; 16]),
            device: DeviceId::new("m1").unwrap(),
            metric,
            slot: 0,
            value: Value::Absent(NoReading::NotAvailable),
            reported: None,
            time: ReadingTime { device: None, received, correction_ms: 0 },
            device_sequence: None,
            flags: Flags::default(),
            subject: Subject::Unassigned,
        }
    }

    /// Promise 5: what came while no clock was set is told of, though no moment finds it; what has a moment is not.
    #[test]
    fn what_no_moment_finds_is_known_as_such() {
        let mut pulse = reading(Metric::HeartRate);
        let other = DeviceId::new("m2").unwrap();
        let is_undated = |reading: &Reading, device: &DeviceId| is_undated_of(&Entry::Reading(reading.clone()), device);
        assert!(!is_undated(&pulse, &pulse.device));
        pulse.time.received.trust = ClockTrust::Unset;
        assert!(is_undated(&pulse, &pulse.device) && !is_undated(&pulse, &other));
        pulse.time.device = Some(DeviceTime { unix_ms: UnixMs(1_795_341_600_000), offset_minutes: None });
        assert!(!is_undated(&pulse, &pulse.device), "its device said when it was");
    }

    /// Promise 5: whoever looks a reading up in the EHR by its id finds it there, or is told that the id is not known.
    #[test]
    fn an_id_is_only_told_where_the_destination_knows_it() {
        let by_put = settlement(true, false);
        let pulse = reading(Metric::HeartRate);
        assert_eq!(own_id(&ehr(), &pulse, &by_put), Some(format!("Observation/{}", pulse.id)));
        assert_eq!(own_id(&ehr(), &reading(Metric::SystolicCuff), &by_put), None, "it stands in the panel");
        let by_conditional_create = Settlement { conditional: [ehr()].into(), ..by_put };
        assert_eq!(own_id(&ehr(), &pulse, &by_conditional_create), None, "the EHR gave an id of its own");
    }
}
