//! Entries to bytes, in blocks of bounded size.

use std::collections::HashMap;
use std::sync::Arc;

use vitalgate_domain::{Change, DeadLetter, DeviceEvent, Entry, PatientReference, Reading, Received, Subject, Value};

use super::blob::{Blob, Id};
use super::numbers::{absence_number, event_number, letter_number, trust_number};
use super::{
    ABSENT, DEAD_LETTER, DEVICE_EVENT, READING, WireBlock, WireError, WireEvent, WireExtra, WireLetter, WireReading, WireReceived,
    WireSubject, WireValue,
};

/// Upper bound of what a block needs beside its entries and tables: list headers.
const BLOCK_OVERHEAD_BYTES: usize = 64;
/// Upper bound of what a reading needs beside the numbers that are counted exactly.
const READING_OVERHEAD_BYTES: usize = 40;
/// Upper bound of a reception in its table.
const RECEIVED_BYTES: usize = 40;
/// Upper bound of a subject in its table.
const SUBJECT_BYTES: usize = 12;
/// Upper bound of a text's length prefix.
const TEXT_PREFIX_BYTES: usize = 5;
/// So many of the receptions before are looked at for the same one: what came together stands together.
const NEARBY_RECEPTIONS: usize = 4;
/// Upper bound of a dead letter beside its texts and bytes, and of a device event.
const SMALL_ENTRY_BYTES: usize = 32;

/// Collects entries until a block is full.
#[derive(Debug, Default)]
pub(crate) struct EntryEncoder<'a> {
    texts: Vec<&'a str>,
    places: HashMap<&'a str, u32>,
    receptions: Vec<WireReceived>,
    subjects: Vec<WireSubject>,
    kinds: Vec<u8>,
    readings: Vec<WireReading>,
    letters: Vec<WireLetter<'a>>,
    events: Vec<WireEvent>,
    pub(super) bytes_at_most: usize,
}

/// Length of an unsigned number in CBOR.
fn number_bytes(number: u64) -> usize {
    match number {
        0..=23 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

fn place(places: usize) -> u32 {
    u32::try_from(places).unwrap_or(u32::MAX)
}

impl<'a> EntryEncoder<'a> {
    /// How many entries were taken.
    pub(crate) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Takes an entry, unless the block already has some and would grow beyond `bytes_max`.
    pub(crate) fn push(&mut self, entry: &'a Entry, bytes_max: usize) -> bool {
        let marks = (self.texts.len(), self.receptions.len(), self.subjects.len(), self.bytes_at_most);
        if self.kinds.is_empty() {
            self.bytes_at_most = BLOCK_OVERHEAD_BYTES;
        }
        self.bytes_at_most += 1;
        match entry {
            Entry::Reading(reading) => self.push_reading(reading),
            Entry::DeadLetter(letter) => self.push_letter(letter),
            Entry::DeviceEvent(event) => self.push_event(event),
        }
        let kind = match entry {
            Entry::Reading(_) => READING,
            Entry::DeadLetter(_) => DEAD_LETTER,
            Entry::DeviceEvent(_) => DEVICE_EVENT,
        };
        if self.bytes_at_most > bytes_max && !self.kinds.is_empty() {
            match kind {
                READING => drop(self.readings.pop()),
                DEAD_LETTER => drop(self.letters.pop()),
                _ => drop(self.events.pop()),
            }
            for text in self.texts.drain(marks.0..) {
                self.places.remove(text);
            }
            self.receptions.truncate(marks.1);
            self.subjects.truncate(marks.2);
            self.bytes_at_most = marks.3;
            return false;
        }
        self.kinds.push(kind);
        true
    }

    /// Writes the block and empties the encoder.
    ///
    /// # Errors
    /// Never for what [`EntryEncoder::push`] took; CBOR's interface allows it.
    pub(crate) fn finish_into(&mut self, body: &mut Vec<u8>) -> Result<(), WireError> {
        let block = std::mem::take(self);
        let wire =
            WireBlock(block.texts, block.receptions, block.subjects, Blob(&block.kinds), block.readings, block.letters, block.events);
        Ok(serde_cbor::to_writer(body, &wire)?)
    }

    fn text(&mut self, text: &'a str) -> u32 {
        if let Some(found) = self.places.get(text) {
            return *found;
        }
        let found = place(self.texts.len());
        self.bytes_at_most += TEXT_PREFIX_BYTES + text.len();
        self.texts.push(text);
        self.places.insert(text, found);
        found
    }

    fn received(&mut self, received: &Received) -> u32 {
        let wire = WireReceived(received.wall.0, received.monotonic_ms, Id(*received.boot.as_bytes()), trust_number(received.trust));
        let nearby = self.receptions.len().saturating_sub(NEARBY_RECEPTIONS);
        if let Some(found) = self.receptions.iter().skip(nearby).rposition(|known| *known == wire) {
            return place(nearby + found);
        }
        self.bytes_at_most += RECEIVED_BYTES;
        self.receptions.push(wire);
        place(self.receptions.len() - 1)
    }

    fn subject(&mut self, subject: &'a Subject) -> u32 {
        let wire = match subject {
            Subject::Unassigned => return 0,
            Subject::Patient(PatientReference::Literal(reference)) => WireSubject(0, self.text(reference), 0),
            Subject::Patient(PatientReference::Identifier { system, value }) => WireSubject(1, self.text(system), self.text(value)),
        };
        if let Some(found) = self.subjects.iter().rposition(|known| *known == wire) {
            return place(found) + 1;
        }
        self.bytes_at_most += SUBJECT_BYTES;
        self.subjects.push(wire);
        place(self.subjects.len())
    }

    fn push_reading(&mut self, reading: &'a Reading) {
        let device = self.text(reading.device.as_str());
        let received = self.received(&reading.time.received);
        let subject = self.subject(&reading.subject);
        let reported = reading.reported.as_ref().map(|reported| (self.text(&reported.value), self.text(&reported.unit)));
        let device_time = reading.time.device.map(|time| (time.unix_ms.0, time.offset_minutes));
        let value = wire_value(&reading.value);
        let counted =
            number_bytes(value.2) + number_bytes(value.3.unsigned_abs()) + number_bytes(reading.time.correction_ms.unsigned_abs());
        let optional = device_time.map_or(0, |_| 14) + reading.device_sequence.map_or(0, number_bytes) + reported.map_or(0, |_| 8);
        self.bytes_at_most += READING_OVERHEAD_BYTES + counted + optional;
        self.readings.push(WireReading(
            Id(*reading.id.as_bytes()),
            device,
            reading.metric.into(),
            reading.slot,
            value,
            received,
            reading.time.correction_ms,
            reading.flags.0,
            subject,
            WireExtra(device_time, reading.device_sequence, reported),
        ));
    }

    fn push_letter(&mut self, letter: &'a DeadLetter) {
        let device = self.text(letter.device.as_str());
        let channel = self.text(&letter.channel);
        let received = self.received(&letter.received);
        let detail = self.text(&letter.reason.detail);
        self.bytes_at_most += SMALL_ENTRY_BYTES + letter.bytes.len();
        self.letters.push(WireLetter(device, channel, received, letter_number(letter.reason.kind), detail, Blob(&letter.bytes)));
    }

    fn push_event(&mut self, event: &'a DeviceEvent) {
        let device = self.text(event.device.as_str());
        let received = self.received(&event.received);
        self.bytes_at_most += SMALL_ENTRY_BYTES;
        self.events.push(WireEvent(device, event_number(event.kind), received));
    }
}

fn wire_value(value: &Value) -> WireValue {
    match value {
        Value::Quantity(quantity) => {
            let mantissa = quantity.value.mantissa();
            let places = u8::try_from(quantity.value.scale()).unwrap_or(0);
            // Two's complement in two halves; the high one is 0 or -1 for every real vital sign.
            let low = u64::try_from(mantissa & i128::from(u64::MAX)).unwrap_or(0);
            let high = i64::try_from(mantissa >> 64).unwrap_or(0);
            WireValue(places, quantity.unit.into(), low, high)
        }
        Value::Absent(reason) => WireValue(ABSENT + absence_number(*reason), 0, 0, 0),
    }
}

/// Writes changes one after the other into bodies of at most `bytes_max` unless a single one is larger.
///
/// # Errors
/// Never for a valid change; CBOR's interface allows it.
pub(crate) fn changes_into(changes: &[Change], bytes_max: usize) -> Result<Vec<Vec<u8>>, WireError> {
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for change in changes {
        let bytes = serde_cbor::to_vec(change)?;
        match bodies.last_mut().filter(|body| body.len() + bytes.len() <= bytes_max) {
            Some(body) => body.extend_from_slice(&bytes),
            None => bodies.push(bytes),
        }
    }
    Ok(bodies)
}

/// Shares equal texts while reading.
pub(super) fn shared(text: &str) -> Arc<str> {
    Arc::from(text)
}
