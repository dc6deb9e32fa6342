//! Readings and batches for the tests.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code, used in parts.

use std::sync::Arc;

use rust_decimal::Decimal;
use vitalgate_domain::{
    Batch, BatchMode, BootId, ClockTrust, DeviceId, DeviceNamespace, DeviceTime, Flags, GatewayId, Item, Metric, NoReading,
    PatientReference, Quantity, Reading, ReadingId, ReadingTime, Received, Sequence, Subject, Unit, UnixMs, Value,
};
use vitalgate_fhir::{EncodeContext, WriteMode, device_resource_id, encode};

/// 2026-11-22T10:00:00.120Z
pub const MOMENT: i64 = 1_795_341_600_120;

pub fn patient() -> PatientReference {
    PatientReference::Literal("Patient/4711".into())
}

pub fn context(write: WriteMode) -> EncodeContext {
    EncodeContext::new(GatewayId::new("practice-01").unwrap(), namespace(), write)
}

pub fn namespace() -> DeviceNamespace {
    DeviceNamespace::new("practice-01").unwrap()
}

pub fn reading(number: u64, metric: Metric, value: Value) -> Reading {
    let device = DeviceId::new("monitor-01").unwrap();
    let received =
        Received { wall: UnixMs(MOMENT + 380), monotonic_ms: 5_000, boot: BootId::from_bytes([7; 16]), trust: ClockTrust::Synchronised };
    Reading {
        id: ReadingId::from_device_sequence(&namespace(), &device, metric, "", number, 0),
        device,
        metric,
        slot: 0,
        value,
        reported: None,
        time: ReadingTime { device: Some(DeviceTime { unix_ms: UnixMs(MOMENT), offset_minutes: Some(60) }), received, correction_ms: 0 },
        device_sequence: Some(number),
        flags: Flags::default(),
        subject: Subject::Patient(patient()),
    }
}

pub fn quantity(text: &str, unit: Unit) -> Value {
    Value::Quantity(Quantity { value: text.parse::<Decimal>().unwrap(), unit })
}

/// A value that is ordinary for the metric.
pub fn ordinary(metric: Metric) -> Value {
    let text = match metric {
        Metric::OxygenSaturation => "97",
        Metric::BodyTemperature => "37.0",
        Metric::BodyWeight => "3.25",
        Metric::BodyHeight => "182",
        Metric::GlucoseCapillaryMoles => "5.4",
        _ => "72",
    };
    quantity(text, metric.definition().unit.unwrap())
}

pub fn single(reading: Reading) -> Item {
    Item { id: reading.id, panel: None, readings: vec![(Sequence(1), reading)] }
}

pub fn panel(panel: Metric, parts: Vec<Reading>) -> Item {
    let id = ReadingId::of_panel(panel, parts[0].id);
    let readings = parts.into_iter().enumerate().map(|(index, reading)| (Sequence(index as u64 + 1), reading)).collect();
    Item { id, panel: Some(panel), readings }
}

pub fn batch(mode: BatchMode, items: Vec<Item>) -> Batch {
    Batch { patient: patient(), items, mode }
}

/// One item of everything that is sent: each metric, panels whole and partial, every absence, every mark.
pub fn everything() -> Vec<Item> {
    let mut number = 0;
    let mut next = || {
        number += 1;
        number
    };
    let mut items = Vec::new();
    for &metric in Metric::ALL.iter().filter(|metric| metric.definition().panel.is_none() && metric.parts().is_empty()) {
        items.push(single(reading(next(), metric, ordinary(metric))));
    }
    for &metric in Metric::ALL.iter().filter(|metric| !metric.parts().is_empty()) {
        items.push(panel(metric, metric.parts().iter().map(|&part| reading(next(), part, ordinary(part))).collect()));
        items.push(panel(metric, vec![reading(next(), metric.parts()[0], ordinary(metric.parts()[0]))]));
        items.push(panel(metric, vec![reading(next(), metric.parts()[2], Value::Absent(NoReading::SensorDisconnected))]));
    }
    for reason in ABSENCES {
        items.push(single(reading(next(), Metric::HeartRate, Value::Absent(reason))));
    }
    for bit in 0..7 {
        let mut marked = reading(next(), Metric::OxygenSaturation, ordinary(Metric::OxygenSaturation));
        marked.flags = Flags(1 << bit);
        items.push(single(marked));
    }
    let mut converted = reading(next(), Metric::BodyTemperature, quantity("38.4", Unit::Celsius));
    converted.reported = Some(vitalgate_domain::Reported { value: "101.2".into(), unit: "°F".into() });
    items.push(single(converted));
    let mut own_clock = reading(next(), Metric::RespiratoryRate, quantity("14", Unit::PerMinute));
    own_clock.time.device = None;
    items.push(single(own_clock));
    items
}

pub const ABSENCES: [NoReading; 8] = [
    NoReading::SensorDisconnected,
    NoReading::NotAvailable,
    NoReading::DeviceError,
    NoReading::AboveRange,
    NoReading::BelowRange,
    NoReading::NotANumber,
    NoReading::NotPerformed,
    NoReading::PartMissing,
];

pub fn device_reference(device: &DeviceId) -> String {
    format!("Device/{}", device_resource_id(&namespace(), device))
}

/// The encoded bundle as text.
pub fn encoded(batch: &Batch, context: &EncodeContext) -> String {
    let encoded = encode(batch, context, &device_reference, "Patient/4711").unwrap();
    assert_eq!(encoded.entries, batch.items.len());
    String::from_utf8(encoded.body).unwrap()
}

pub fn arc(text: &str) -> Arc<str> {
    Arc::from(text)
}
