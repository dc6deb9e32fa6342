//! What the crate's tests share.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use proptest::prelude::*;
use rust_decimal::Decimal;
use vitalgate_domain::{
    BootId, ClockTrust, DeadLetter, DeadLetterKind, DeadLetterReason, DeviceEvent, DeviceEventKind, DeviceId, DeviceNamespace, DeviceTime,
    Entry, Flags, KeyWrap, KeyWrapError, Metric, NoReading, PatientReference, Quantity, Reading, ReadingId, ReadingTime, Received,
    Reported, Subject, Unit, UnixMs, Value,
};

use crate::options::StoreOptions;

/// A key-encryption key in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TestWrap(pub(crate) u8);

impl TestWrap {
    fn key(self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[self.0; 32]).unwrap())
    }
}

impl KeyWrap for TestWrap {
    fn wrap(&self, data_key: &[u8; 32]) -> Result<Vec<u8>, KeyWrapError> {
        let mut sealed = data_key.to_vec();
        self.key().seal_in_place_append_tag(Nonce::assume_unique_for_key([7; 12]), Aad::empty(), &mut sealed).unwrap();
        Ok(sealed)
    }

    fn unwrap(&self, wrapped: &[u8]) -> Result<[u8; 32], KeyWrapError> {
        let mut bytes = wrapped.to_vec();
        let plain = self.key().open_in_place(Nonce::assume_unique_for_key([7; 12]), Aad::empty(), &mut bytes);
        plain.ok().and_then(|plain| plain.try_into().ok()).ok_or(KeyWrapError::DoesNotOpen)
    }
}

pub(crate) fn wrap() -> Arc<dyn KeyWrap> {
    Arc::new(TestWrap(1))
}

/// Small segments, nothing on threads of its own, so that steps can be counted.
pub(crate) fn small_options() -> StoreOptions {
    StoreOptions {
        dir: PathBuf::from("/state/store"),
        segment_bytes: 32 * 1024,
        free_space_floor_bytes: 1_000_000,
        retention_ms: 0,
        background: false,
    }
}

pub(crate) fn received(number: u64) -> Received {
    Received {
        wall: UnixMs(1_795_341_600_000 + number.cast_signed() * 10),
        monotonic_ms: 5_000 + number * 10,
        boot: BootId::from_bytes([3; 16]),
        trust: ClockTrust::Synchronised,
    }
}

/// A usual reading.
pub(crate) fn reading(device: &str, number: u64) -> Reading {
    let device = DeviceId::new(device).unwrap();
    let received = received(number / 4);
    let time = format!("t{number}");
    Reading {
        id: ReadingId::from_device_time(&DeviceNamespace::new("g").unwrap(), &device, Metric::HeartRate, &time, 0),
        device,
        metric: Metric::HeartRate,
        slot: 0,
        value: Value::Quantity(Quantity { value: Decimal::new(700 + (number % 100).cast_signed(), 1), unit: Unit::PerMinute }),
        reported: None,
        time: ReadingTime { device: Some(DeviceTime { unix_ms: received.wall, offset_minutes: Some(60) }), received, correction_ms: 0 },
        device_sequence: Some(number),
        flags: Flags::default(),
        subject: Subject::Patient(PatientReference::Literal("Patient/4711".into())),
    }
}

pub(crate) fn readings(device: &str, first: u64, count: u64) -> Vec<Entry> {
    (first..first + count).map(|number| Entry::Reading(reading(device, number))).collect()
}

fn any_device() -> impl Strategy<Value = DeviceId> {
    "[a-z0-9]{1,12}".prop_map(|name| DeviceId::new(&name).unwrap())
}

fn any_received() -> impl Strategy<Value = Received> {
    let trust = prop::sample::select(vec![ClockTrust::Unset, ClockTrust::Free, ClockTrust::Synchronised, ClockTrust::Authenticated]);
    (any::<i64>(), any::<u64>(), any::<[u8; 16]>(), trust).prop_map(|(wall, monotonic_ms, boot, trust)| Received {
        wall: UnixMs(wall),
        monotonic_ms,
        boot: BootId::from_bytes(boot),
        trust,
    })
}

fn any_value() -> impl Strategy<Value = Value> {
    let quantity = (-(1i128 << 95)..(1i128 << 95), 0u32..=28, prop::sample::select(Unit::ALL.to_vec()))
        .prop_map(|(mantissa, scale, unit)| Value::Quantity(Quantity { value: Decimal::from_i128_with_scale(mantissa, scale), unit }));
    let usual = (-5_000i64..50_000, 0u32..4)
        .prop_map(|(mantissa, scale)| Value::Quantity(Quantity { value: Decimal::new(mantissa, scale), unit: Unit::Percent }));
    let absences = [
        NoReading::SensorDisconnected,
        NoReading::NotAvailable,
        NoReading::DeviceError,
        NoReading::AboveRange,
        NoReading::BelowRange,
        NoReading::NotANumber,
        NoReading::NotPerformed,
        NoReading::PartMissing,
    ];
    prop_oneof![quantity, usual, prop::sample::select(absences.to_vec()).prop_map(Value::Absent)]
}

fn any_subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        Just(Subject::Unassigned),
        "\\PC{0,20}".prop_map(|text| Subject::Patient(PatientReference::Literal(text.as_str().into()))),
        ("\\PC{0,20}", "\\PC{0,20}").prop_map(|(system, value)| Subject::Patient(PatientReference::Identifier {
            system: system.as_str().into(),
            value: value.as_str().into()
        })),
    ]
}

fn any_reading() -> impl Strategy<Value = Reading> {
    let reported = prop::option::of(("\\PC{0,12}", "\\PC{0,8}"))
        .prop_map(|texts| texts.map(|(value, unit)| Reported { value: value.as_str().into(), unit: unit.as_str().into() }));
    let device_time = prop::option::of((any::<i64>(), prop::option::of(any::<i16>())))
        .prop_map(|time| time.map(|(unix_ms, offset_minutes)| DeviceTime { unix_ms: UnixMs(unix_ms), offset_minutes }));
    let first = (any::<[u8; 16]>(), any_device(), prop::sample::select(Metric::ALL.to_vec()), any::<u16>(), any_value(), reported);
    let second = (device_time, any_received(), any::<i64>(), prop::option::of(any::<u64>()), any::<u16>(), any_subject());
    (first, second).prop_map(
        |((id, device, metric, slot, value, reported), (device_time, received, correction_ms, counter, flags, subject))| Reading {
            id: ReadingId::from_bytes(id),
            device,
            metric,
            slot,
            value,
            reported,
            time: ReadingTime { device: device_time, received, correction_ms },
            device_sequence: counter,
            flags: Flags(flags),
            subject,
        },
    )
}

/// Any entry that the domain allows.
pub(crate) fn any_entry() -> impl Strategy<Value = Entry> {
    let kinds = vec![
        DeadLetterKind::Undecodable,
        DeadLetterKind::UnknownDevice,
        DeadLetterKind::UnknownMetric,
        DeadLetterKind::WrongUnit,
        DeadLetterKind::ImpossibleTime,
        DeadLetterKind::Rejected,
        DeadLetterKind::Unassigned,
        DeadLetterKind::TimeUnknown,
        DeadLetterKind::Damaged,
    ];
    let letter = (
        any_device(),
        "\\PC{0,30}",
        any_received(),
        prop::sample::select(kinds),
        "\\PC{0,60}",
        prop::collection::vec(any::<u8>(), 0..3_000),
    )
        .prop_map(|(device, channel, received, kind, detail, bytes)| {
            Entry::DeadLetter(DeadLetter {
                device,
                channel: channel.as_str().into(),
                received,
                reason: DeadLetterReason::new(kind, &detail),
                bytes,
            })
        });
    let events = vec![DeviceEventKind::Connected, DeviceEventKind::Disconnected, DeviceEventKind::Lost];
    let event = (any_device(), prop::sample::select(events), any_received())
        .prop_map(|(device, kind, received)| Entry::DeviceEvent(DeviceEvent { device, kind, received }));
    prop_oneof![8 => any_reading().prop_map(Entry::Reading), 1 => letter, 1 => event]
}
