//! Bytes to entries, everything checked.

use std::sync::Arc;

use rust_decimal::Decimal;
use vitalgate_domain::{
    BootId, DeadLetter, DeadLetterReason, DeviceEvent, DeviceId, DeviceTime, Entry, Flags, Metric, PatientReference, Quantity, Reading,
    ReadingId, ReadingTime, Received, Record, Reported, Sequence, Subject, Unit, UnixMs, Value,
};

use super::encode::shared;
use super::numbers::{absence_from, event_from, letter_from, trust_from};
use super::{
    ABSENT, DEAD_LETTER, DEVICE_EVENT, READING, WireBlock, WireError, WireEvent, WireLetter, WireReading, WireReceived, WireSubject,
    WireValue,
};

/// The tables of a block, with each text and name made once.
struct Tables<'a> {
    texts: Vec<&'a str>,
    shared: Vec<Option<Arc<str>>>,
    devices: Vec<Option<DeviceId>>,
    receptions: Vec<Received>,
    subjects: Vec<Subject>,
}

impl<'a> Tables<'a> {
    fn new(texts: Vec<&'a str>, receptions: &[WireReceived], subjects: &[WireSubject]) -> Result<Self, WireError> {
        let mut tables = Self {
            shared: vec![None; texts.len()],
            devices: vec![None; texts.len()],
            receptions: receptions.iter().map(received).collect::<Result<_, _>>()?,
            subjects: Vec::with_capacity(subjects.len()),
            texts,
        };
        for wire in subjects {
            let reference = match wire.0 {
                0 => PatientReference::Literal(tables.text(wire.1)?),
                1 => PatientReference::Identifier { system: tables.text(wire.1)?, value: tables.text(wire.2)? },
                _ => return Err(WireError::Range("kind of subject")),
            };
            tables.subjects.push(Subject::Patient(reference));
        }
        Ok(tables)
    }

    fn text(&mut self, place: u32) -> Result<Arc<str>, WireError> {
        let place = place as usize;
        let text = self.texts.get(place).ok_or(WireError::Range("text"))?;
        let slot = self.shared.get_mut(place).ok_or(WireError::Range("text"))?;
        Ok(Arc::clone(slot.get_or_insert_with(|| shared(text))))
    }

    fn device(&mut self, place: u32) -> Result<DeviceId, WireError> {
        let place = place as usize;
        let text = self.texts.get(place).ok_or(WireError::Range("device"))?;
        let slot = self.devices.get_mut(place).ok_or(WireError::Range("device"))?;
        if let Some(known) = slot {
            return Ok(known.clone());
        }
        let device = DeviceId::new(text).map_err(|_| WireError::Range("device"))?;
        *slot = Some(device.clone());
        Ok(device)
    }

    fn received(&self, place: u32) -> Result<Received, WireError> {
        self.receptions.get(place as usize).copied().ok_or(WireError::Range("reception"))
    }

    fn subject(&self, place: u32) -> Result<Subject, WireError> {
        match place.checked_sub(1) {
            None => Ok(Subject::Unassigned),
            Some(place) => self.subjects.get(place as usize).cloned().ok_or(WireError::Range("subject")),
        }
    }
}

/// Reads a body of entries; they take the sequences from `first` on.
///
/// # Errors
/// When it is not exactly `count` entries as this version writes them.
pub(crate) fn entries(body: &[u8], first: Sequence, count: u32) -> Result<Vec<Record>, WireError> {
    let WireBlock(texts, receptions, subjects, kinds, readings, letters, events) = serde_cbor::from_slice(body)?;
    if kinds.0.len() != count as usize || readings.len() + letters.len() + events.len() != kinds.0.len() {
        return Err(WireError::Range("number of entries"));
    }
    let mut tables = Tables::new(texts, &receptions, &subjects)?;
    let (mut readings, mut letters, mut events) = (readings.into_iter(), letters.into_iter(), events.into_iter());
    let mut records = Vec::with_capacity(kinds.0.len());
    for (place, kind) in kinds.0.iter().enumerate() {
        let entry = match *kind {
            READING => Entry::Reading(reading(&mut tables, readings.next().ok_or(WireError::Range("number of readings"))?)?),
            DEAD_LETTER => Entry::DeadLetter(letter(&mut tables, letters.next().ok_or(WireError::Range("number of dead letters"))?)?),
            DEVICE_EVENT => Entry::DeviceEvent(event(&mut tables, events.next().ok_or(WireError::Range("number of events"))?)?),
            _ => return Err(WireError::Range("kind of entry")),
        };
        records.push(Record { sequence: first.plus(place as u64), entry });
    }
    Ok(records)
}

fn received(wire: &WireReceived) -> Result<Received, WireError> {
    Ok(Received { wall: UnixMs(wire.0), monotonic_ms: wire.1, boot: BootId::from_bytes(wire.2.0), trust: trust_from(wire.3)? })
}

fn value(wire: &WireValue) -> Result<Value, WireError> {
    if let Some(reason) = wire.0.checked_sub(ABSENT) {
        return Ok(Value::Absent(absence_from(reason)?));
    }
    let mantissa = (i128::from(wire.3) << 64) | i128::from(wire.2);
    let value = Decimal::try_from_i128_with_scale(mantissa, u32::from(wire.0)).map_err(|_| WireError::Range("decimal"))?;
    let unit = Unit::try_from(wire.1).map_err(|_| WireError::Range("unit"))?;
    Ok(Value::Quantity(Quantity { value, unit }))
}

fn reading(tables: &mut Tables<'_>, wire: WireReading) -> Result<Reading, WireError> {
    let WireReading(id, device, metric, slot, wire_value, received, correction_ms, flags, subject, extra) = wire;
    let device_time = extra.0.map(|(unix_ms, offset_minutes)| DeviceTime { unix_ms: UnixMs(unix_ms), offset_minutes });
    let reported = match extra.2 {
        Some((value, unit)) => Some(Reported { value: tables.text(value)?, unit: tables.text(unit)? }),
        None => None,
    };
    Ok(Reading {
        id: ReadingId::from_bytes(id.0),
        device: tables.device(device)?,
        metric: Metric::try_from(metric).map_err(|_| WireError::Range("metric"))?,
        slot,
        value: value(&wire_value)?,
        reported,
        time: ReadingTime { device: device_time, received: tables.received(received)?, correction_ms },
        device_sequence: extra.1,
        flags: Flags(flags),
        subject: tables.subject(subject)?,
    })
}

fn letter(tables: &mut Tables<'_>, wire: WireLetter<'_>) -> Result<DeadLetter, WireError> {
    let WireLetter(device, channel, received, kind, detail, bytes) = wire;
    Ok(DeadLetter {
        device: tables.device(device)?,
        channel: tables.text(channel)?,
        received: tables.received(received)?,
        reason: DeadLetterReason { kind: letter_from(kind)?, detail: tables.text(detail)? },
        bytes: bytes.0.to_vec(),
    })
}

fn event(tables: &mut Tables<'_>, wire: WireEvent) -> Result<DeviceEvent, WireError> {
    Ok(DeviceEvent { device: tables.device(wire.0)?, kind: event_from(wire.1)?, received: tables.received(wire.2)? })
}
