//! What admission promises, one test each.

#![allow(clippy::unwrap_used)] // The helpers of the tests are tests too.

mod rig;

use rig::at;
use rust_decimal::Decimal;
use vitalgate_domain::{
    Association, Associations, ClockTrust, DeadLetterKind, DeadLetterReason, DecodedReading, DecodedSample, DeviceId, DeviceNamespace,
    DeviceTime, Entry, Flags, GatewayId, Metric, NoReading, PatientReference, Quantity, Reading, SeenReading, Sequence, SourceIdentity,
    Subject, Unit, UnixMs, Value,
};
use vitalgate_pipeline::{Admission, AdmissionPolicy, Admitted};

const START_MS: i64 = 1_795_341_600_000;

fn device() -> DeviceId {
    DeviceId::new("monitor-1").unwrap()
}

fn admission() -> Admission {
    remembering(Vec::new())
}

/// With what a store remembers.
fn remembering(seen: Vec<(DeviceId, Vec<SeenReading>)>) -> Admission {
    sharing("g", seen)
}

/// The same with devices that are unique within this namespace.
fn sharing(namespace: &str, seen: Vec<(DeviceId, Vec<SeenReading>)>) -> Admission {
    Admission::new(GatewayId::new("g").unwrap(), DeviceNamespace::new(namespace).unwrap(), AdmissionPolicy::default(), seen)
}

fn decoded(metric: Metric, value: i64, identity: SourceIdentity) -> DecodedReading {
    let unit = metric.definition().unit.unwrap_or(Unit::Percent);
    let value = Value::Quantity(Quantity { value: Decimal::from(value), unit });
    DecodedReading { metric, slot: 0, value, reported: None, device_time: None, identity, flags: Flags::default() }
}

fn counted(sequence: u64, value: i64) -> DecodedReading {
    decoded(Metric::HeartRate, value, SourceIdentity::Counter { epoch: "".into(), sequence })
}

fn sample(readings: Vec<DecodedReading>) -> DecodedSample {
    DecodedSample { device: device(), channel: "vitals".into(), received: at(5_000), readings, unreadable: None }
}

fn admit(admission: &mut Admission, readings: Vec<DecodedReading>) -> Admitted {
    admission.admit(sample(readings), &Associations::default(), &at(5_000), Sequence(1))
}

fn readings(admitted: &Admitted) -> Vec<Reading> {
    let reading = |entry: &Entry| match entry {
        Entry::Reading(reading) => Some(reading.clone()),
        _ => None,
    };
    admitted.entries.iter().filter_map(reading).collect()
}

fn dead_letters(admitted: &Admitted) -> Vec<DeadLetterKind> {
    let kind = |entry: &Entry| match entry {
        Entry::DeadLetter(letter) => Some(letter.reason.kind),
        _ => None,
    };
    admitted.entries.iter().filter_map(kind).collect()
}

/// Promise: a resend is not stored twice, before and after the commit, and after a restart.
#[test]
fn a_resend_is_a_duplicate() {
    let mut admission = admission();
    assert_eq!(admit(&mut admission, vec![counted(7, 70)]).entries.len(), 1);
    assert_eq!(admit(&mut admission, vec![counted(7, 70)]), Admitted { entries: vec![], duplicates: 1 }, "within the commit");
    admission.confirm();
    assert_eq!(admit(&mut admission, vec![counted(7, 70)]).duplicates, 1, "after it");
    let mut restarted = remembering(admission.seen());
    assert_eq!(admit(&mut restarted, vec![counted(7, 70), counted(8, 71)]).duplicates, 1, "after a restart");
}

/// Promise: when the commit fails, the resend is stored.
#[test]
fn a_failed_commit_forgets_what_it_held() {
    let mut admission = admission();
    admit(&mut admission, vec![counted(1, 70)]);
    admission.confirm();
    admit(&mut admission, vec![counted(2, 70)]);
    assert_eq!(admission.seen()[0].1.len(), 1, "only what is durable is remembered beyond a restart");
    admission.rollback();
    let again = admit(&mut admission, vec![counted(1, 70), counted(2, 70)]);
    assert_eq!((again.entries.len(), again.duplicates), (1, 1));
}

/// Promise: a clock that jumps back, or a counter that restarts, makes no duplicate.
#[test]
fn a_jump_back_is_not_a_duplicate() {
    let mut admission = admission();
    for sequence in [10, 11, 3, 4] {
        assert_eq!(admit(&mut admission, vec![counted(sequence, 70)]).entries.len(), 1);
    }
    for text in ["2026-11-22T10:00:00Z", "2026-11-22T09:00:00Z"] {
        assert_eq!(admit(&mut admission, vec![decoded(Metric::HeartRate, 70, SourceIdentity::Time(text.into()))]).entries.len(), 1);
    }
}

/// Promise 3: two houses may give their devices the same id. What they say under the same time or counter stays two
/// readings, unless both houses say that they share their devices.
#[test]
fn only_gateways_that_share_devices_know_each_others_readings() {
    let ids = |namespace| {
        let time = SourceIdentity::Time("2026-11-22T10:00:00Z".into());
        let said = vec![counted(7, 70), decoded(Metric::RespiratoryRate, 14, time)];
        readings(&admit(&mut sharing(namespace, Vec::new()), said)).iter().map(|reading| reading.id).collect::<Vec<_>>()
    };
    let (north, south) = (ids("north"), ids("south"));
    assert!(north.iter().all(|id| !south.contains(id)), "{north:?}, {south:?}");
    assert_eq!((north.len(), &north), (2, &ids("north")));
}

/// Promise: another value under the same identity is never dropped as a resend: it is a dead letter.
#[test]
fn another_value_under_one_identity_is_kept() {
    let mut first = admission();
    admit(&mut first, vec![counted(7, 70)]);
    first.confirm();
    let restarted = remembering(first.seen());
    for mut admission in [first, restarted] {
        let conflict = admit(&mut admission, vec![counted(7, 71)]);
        assert_eq!((dead_letters(&conflict), conflict.duplicates), (vec![DeadLetterKind::Undecodable], 0));
        assert_eq!(admit(&mut admission, vec![counted(7, 70)]).duplicates, 1);
    }
}

/// Promise: polled values have no resend; each gets its own identity from the place it is stored at.
#[test]
fn polled_values_are_all_different() {
    let mut admission = admission();
    let poll = || vec![decoded(Metric::HeartRate, 70, SourceIdentity::None), decoded(Metric::HeartRate, 70, SourceIdentity::None)];
    let mut ids: Vec<_> =
        readings(&admission.admit(sample(poll()), &Associations::default(), &at(5_000), Sequence(1))).iter().map(|r| r.id).collect();
    ids.extend(readings(&admission.admit(sample(poll()), &Associations::default(), &at(5_000), Sequence(3))).iter().map(|r| r.id));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
}

/// Promise: 0 from a sensor that is off is an absence; an implausible value is marked and kept.
#[test]
fn zero_is_absence_and_the_implausible_is_marked() {
    let mut admission = admission();
    let admitted = readings(&admit(&mut admission, vec![counted(1, 0), counted(2, 999)]));
    assert_eq!(admitted[0].value, Value::Absent(NoReading::SensorDisconnected));
    assert!(admitted[0].reported.is_some(), "what the device said is kept");
    assert!(admitted[1].flags.contains(Flags::IMPLAUSIBLE) && !admitted[0].flags.contains(Flags::IMPLAUSIBLE));
}

/// Promise: what cannot be a reading becomes a dead letter with its content, the rest of the message is admitted.
#[test]
fn the_unreadable_is_kept_and_the_rest_admitted() {
    let mut admission = admission();
    let mut wrong_unit = counted(1, 70);
    wrong_unit.value = Value::Quantity(Quantity { value: Decimal::from(70), unit: Unit::Celsius });
    let mut never_set = counted(2, 70);
    never_set.device_time = Some(DeviceTime { unix_ms: UnixMs(1_000), offset_minutes: None });
    let panel = decoded(Metric::BloodPressureCuff, 1, SourceIdentity::None);
    let mut sample = sample(vec![wrong_unit, never_set, panel, counted(3, 70)]);
    sample.unreadable = Some((DeadLetterReason::new(DeadLetterKind::Undecodable, "not JSON"), b"{".to_vec()));
    let admitted = admission.admit(sample, &Associations::default(), &at(5_000), Sequence(1));
    let kinds = [DeadLetterKind::WrongUnit, DeadLetterKind::ImpossibleTime, DeadLetterKind::UnknownMetric, DeadLetterKind::Undecodable];
    assert_eq!(dead_letters(&admitted), kinds);
    assert_eq!(readings(&admitted).len(), 1);
    assert!(admitted.entries.iter().all(|entry| !matches!(entry, Entry::DeadLetter(letter) if letter.bytes.is_empty())));
}

/// Promise: a reading is about the patient of its own moment, not of its arrival.
#[test]
fn the_subject_is_the_one_of_the_moment() {
    let patient = |name: &str| PatientReference::Literal(name.into());
    let at_patient = |name: &str, from: i64, until: i64| Association {
        device: device(),
        patient: patient(name),
        from: Some(UnixMs(START_MS + from)),
        until: Some(UnixMs(START_MS + until)),
        confirmed_by: "test".into(),
    };
    let associations = Associations::new([at_patient("Patient/a", 0, 1_000), at_patient("Patient/b", 1_000, 10_000)]);
    let mut admission = admission();
    let subjects: Vec<_> = [999, 1_000, 20_000]
        .into_iter()
        .map(|moment| {
            let mut reading = counted(moment as u64, 70);
            reading.device_time = Some(DeviceTime { unix_ms: UnixMs(START_MS + moment), offset_minutes: None });
            readings(&admission.admit(sample(vec![reading]), &associations, &at(5_000), Sequence(1)))[0].subject.clone()
        })
        .collect();
    assert_eq!(subjects, [Subject::Patient(patient("Patient/a")), Subject::Patient(patient("Patient/b")), Subject::Unassigned]);
}

/// Promise: a moment that the gateway itself doubts decides nothing where the device changed its patient.
#[test]
fn a_doubted_moment_names_no_patient_near_a_change() {
    let device_time = |offset_ms: i64| Some(DeviceTime { unix_ms: UnixMs(START_MS + offset_ms), offset_minutes: None });
    let association = Association {
        device: device(),
        patient: PatientReference::Literal("Patient/b".into()),
        from: Some(UnixMs(START_MS)),
        until: None,
        confirmed_by: "test".into(),
    };
    let associations = Associations::new([association]);
    let mut admission = admission();
    let mut subject = |sequence, ahead_ms| {
        let mut reading = counted(sequence, 70);
        reading.device_time = device_time(ahead_ms);
        readings(&admission.admit(sample(vec![reading]), &associations, &at(5_000), Sequence(1)))[0].subject.clone()
    };
    assert_eq!(subject(1, 5_000), Subject::Patient(PatientReference::Literal("Patient/b".into())));
    assert_eq!(subject(2, 3_600_000), Subject::Unassigned, "stamped an hour ahead: it may be of the patient before");
}

/// Promise: without device time and with a clock that was never set there is no moment and no guess;
/// a clock that was set since, in the same run, gives the moment of arrival.
#[test]
fn an_unset_clock_gives_no_moment() {
    let mut admission = admission();
    let mut early = sample(vec![counted(1, 70)]);
    early.received.trust = ClockTrust::Unset;
    early.received.wall = UnixMs(12);
    let mut unset = at(6_000);
    unset.trust = ClockTrust::Unset;
    let held = readings(&admission.admit(early.clone(), &Associations::default(), &unset, Sequence(1)));
    assert_eq!((held[0].time.effective(), &held[0].subject), (None, &Subject::Unassigned));
    early.readings = vec![counted(2, 70)];
    let known = readings(&admission.admit(early, &Associations::default(), &at(9_000), Sequence(1)));
    assert_eq!(known[0].time.effective(), Some(UnixMs(START_MS + 5_000)));
}

/// Promise: two messages without time and counter that came with one packet of the network stay two: the parts of a
/// blood pressure of one are never joined with those of the other.
#[test]
fn messages_that_arrive_at_once_are_told_apart() {
    let mut admission = admission();
    let mut next = Sequence(0);
    let mut arrival = |metric, identity| {
        next = next.next();
        let admitted = admission.admit(sample(vec![decoded(metric, 70, identity)]), &Associations::default(), &at(5_000), next);
        readings(&admitted)[0].time.received.monotonic_ms
    };
    let counter = SourceIdentity::Counter { epoch: "".into(), sequence: 1 };
    assert_eq!(arrival(Metric::HeartRate, counter), 5_000);
    assert_eq!(arrival(Metric::SystolicCuff, SourceIdentity::None), 5_001);
    assert_eq!(arrival(Metric::DiastolicCuff, SourceIdentity::None), 5_002);
    let moved: Vec<u64> = (0..2_000).map(|_| arrival(Metric::HeartRate, SourceIdentity::None)).collect();
    assert!(moved.iter().all(|&moment| moment <= 6_000), "no flood moves them further than a second");
}

/// Promise: a device's clock far ahead of ours is marked; a device that kept readings while offline is not.
#[test]
fn a_doubtful_clock_is_marked() {
    let mut admission = admission();
    let mut flagged = |sequence: u64, offset_ms: i64| {
        let mut reading = counted(sequence, 70);
        reading.device_time = Some(DeviceTime { unix_ms: UnixMs(START_MS + 5_000 + offset_ms), offset_minutes: None });
        readings(&admit(&mut admission, vec![reading]))[0].flags.contains(Flags::CLOCK_DOUBTFUL)
    };
    assert_eq!(
        (flagged(1, 299_000), flagged(2, 301_000), flagged(3, -86_400_000), flagged(4, -31 * 86_400_000)),
        (false, true, false, true)
    );
}
