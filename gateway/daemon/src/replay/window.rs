//! What stands in the journal beside an entry: the rest of its sample.

use std::collections::VecDeque;

use vitalgate_domain::limits::READINGS_PER_SAMPLE_MAX;
use vitalgate_domain::{
    DeadLetterKind, DecodedReading, DecodedSample, DeviceId, DeviceNamespace, Entry, Reading, ReadingId, Received, Record, Sequence,
    SourceIdentity,
};
use vitalgate_store::{ReadError, Reader};

/// Most entries before one that are looked at: a sample has no more.
const LOOKED_BACK_MAX: usize = READINGS_PER_SAMPLE_MAX;
/// Entries behind one that are read along: the next that is asked for is often among them.
const READ_AHEAD_MAX: u64 = 256;
/// Most entries of one read.
const READ_ENTRIES_MAX: usize = 512;
/// Stored bytes that one read may bring into memory.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// The journal, read front to back, with the entries just before the last one.
pub(super) struct Window<'a> {
    reader: &'a Reader,
    past: VecDeque<Stood>,
    /// Read, and not yet come to.
    ahead: VecDeque<Record>,
    reached: Sequence,
    /// The first that is there. A segment begins with a whole sample, and so does what is left of the journal.
    oldest: Sequence,
}

/// An entry, as far as others of its sample are told by it.
struct Stood {
    sequence: Sequence,
    device: DeviceId,
    received: Received,
    reading: Option<Reading>,
    /// A dead letter of which nobody knows any more what came with it.
    is_alone: bool,
}

/// What of a sample is in the journal already.
pub(super) struct Standing<'a> {
    readings: Vec<&'a Reading>,
    /// Whether that is all of it; before it entries may be gone.
    complete: bool,
}

impl<'a> Window<'a> {
    /// Nothing read so far.
    pub(super) fn new(reader: &'a Reader) -> Self {
        let oldest = reader.oldest();
        Self { reader, past: VecDeque::new(), ahead: VecDeque::new(), reached: Sequence::default(), oldest }
    }

    /// The entry at `sequence`, which lies behind that of the call before. `None` when it is gone.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub(super) fn come_to(&mut self, sequence: Sequence) -> Result<Option<Entry>, ReadError> {
        loop {
            while let Some(record) = self.ahead.pop_front_if(|record| record.sequence <= sequence) {
                self.pass(&record);
                if record.sequence == sequence {
                    return Ok(Some(record.entry));
                }
            }
            let from = Sequence(sequence.0.saturating_sub(LOOKED_BACK_MAX as u64)).max(self.reached.next());
            if from > sequence {
                return Ok(None);
            }
            let outcome = self.reader.read(from, sequence.plus(READ_AHEAD_MAX), READ_ENTRIES_MAX, READ_BYTES_MAX)?;
            if outcome.reached < from {
                return Ok(None);
            }
            self.reached = outcome.reached;
            self.ahead.extend(outcome.records);
        }
    }

    fn pass(&mut self, record: &Record) {
        let (device, received) = record.entry.origin();
        let reading = if let Entry::Reading(reading) = &record.entry { Some(reading.clone()) } else { None };
        let is_alone = matches!(&record.entry, Entry::DeadLetter(letter) if letter.reason.kind == DeadLetterKind::Damaged);
        self.past.push_back(Stood { sequence: record.sequence, device: device.clone(), received: *received, reading, is_alone });
        // The last one and those before it.
        if self.past.len() > LOOKED_BACK_MAX + 1 {
            self.past.pop_front();
        }
    }

    /// Where the sample begins that the last entry belongs to.
    pub(super) fn sample_begin(&self) -> Option<Sequence> {
        let last = self.past.back()?;
        Some(self.before_last().last().map_or(last.sequence, |stood| stood.sequence))
    }

    /// The readings that came with the last entry, the oldest first; `None` where more may have stood before them.
    pub(super) fn rest_of_sample(&self) -> Option<Vec<(Sequence, &Reading)>> {
        self.standing().complete.then_some(())?;
        let mut rest: Vec<_> = self.before_last().filter_map(|stood| Some((stood.sequence, stood.reading.as_ref()?))).collect();
        rest.reverse();
        Some(rest)
    }

    /// What stands before the last entry and came with it.
    pub(super) fn standing(&self) -> Standing<'_> {
        let same: Vec<&Stood> = self.before_last().collect();
        let place_before = |stood: &Stood| Sequence(stood.sequence.0.saturating_sub(1));
        let before = same.last().copied().or_else(|| self.past.back()).map(place_before).unwrap_or_default();
        let is_whole =
            before < self.oldest || same.len() >= LOOKED_BACK_MAX || self.past.iter().rev().any(|stood| stood.sequence == before);
        let complete = is_whole && self.past.back().is_none_or(|last| !last.is_alone);
        Standing { readings: same.into_iter().filter_map(|stood| stood.reading.as_ref()).collect(), complete }
    }

    /// Without a gap, the newest first.
    fn before_last(&self) -> impl Iterator<Item = &Stood> {
        let last = self.past.back();
        (1..).zip(self.past.iter().rev().skip(1)).map_while(move |(back, stood)| {
            let last = last?;
            let is_next = stood.sequence.0 + back == last.sequence.0;
            (is_next && stood.device == last.device && stood.received == last.received).then_some(stood)
        })
    }
}

impl Standing<'_> {
    /// Takes out of a sample that is read again what went its own way the first time. `None` in
    /// doubt: when the same place has another value now, or when the first time cannot be seen.
    pub(super) fn taken_from(&self, namespace: &DeviceNamespace, mut sample: DecodedSample) -> Option<DecodedSample> {
        let mut doubt = false;
        let DecodedSample { device, readings, .. } = &mut sample;
        let ids: Vec<_> = readings.iter().filter_map(|decoded| own_id(namespace, device, decoded)).collect();
        // It was stored under another namespace of its device, or by its time and not by its counter, so that no id says what it is.
        let of_before = !self.readings.iter().any(|reading| ids.contains(&reading.id));
        readings.retain(|decoded| {
            let id = own_id(namespace, device, decoded);
            let same = |reading: &&&Reading| match id {
                Some(id) => reading.id == id || (of_before && is_same(reading, decoded)),
                None => (reading.metric, reading.slot) == (decoded.metric, decoded.slot),
            };
            let stands = self.readings.iter().find(same);
            doubt |= match stands {
                Some(reading) => reading.value != decoded.value,
                // It would get another identity than the first time.
                None => id.is_none() && !self.complete,
            };
            stands.is_none()
        });
        (!doubt).then_some(sample)
    }
}

/// The identity that the source itself gives.
pub(super) fn own_id(namespace: &DeviceNamespace, device: &DeviceId, decoded: &DecodedReading) -> Option<ReadingId> {
    match &decoded.identity {
        SourceIdentity::Time(text) => Some(ReadingId::from_device_time(namespace, device, decoded.metric, text, decoded.slot)),
        SourceIdentity::Counter { epoch, sequence } => {
            Some(ReadingId::from_device_sequence(namespace, device, decoded.metric, epoch, *sequence, decoded.slot))
        }
        SourceIdentity::None => None,
    }
}

/// Whether the journal's reading is this value of its message, whatever the ids of either are made of. A counter that was not
/// the identity is not in the journal.
fn is_same(reading: &Reading, decoded: &DecodedReading) -> bool {
    let count = if let SourceIdentity::Counter { sequence, .. } = &decoded.identity { Some(*sequence) } else { None };
    let counts_differ = reading.device_sequence.zip(count).is_some_and(|(stored, said)| stored != said);
    (reading.metric, reading.slot, reading.time.device) == (decoded.metric, decoded.slot, decoded.device_time) && !counts_differ
}
