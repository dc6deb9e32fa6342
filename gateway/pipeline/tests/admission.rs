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
    DecodedSample { device: device(), channel: "vitals".into(), received: at(5_000), readings, payload: Vec::new(), unreadable: None }
}

fn admit(admission: &mut Admission, readings: Vec<DecodedReading>) -> Admitted {
    admission.admit(sample(readings), &Associations::default(), Sequence(1))
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
    let id = readings(&admit(&mut first, vec![counted(7, 70)]))[0].id;
    first.confirm();
    let restarted = remembering(first.seen());
    for mut admission in [first, restarted] {
        let conflict = admit(&mut admission, vec![counted(7, 71)]);
        assert_eq!((dead_letters(&conflict), conflict.duplicates), (vec![DeadLetterKind::Undecodable], 0));
        assert!(
            admission.contradicts(&device(), id, &counted(7, 71).value) && !admission.contradicts(&device(), id, &counted(7, 70).value)
        );
        assert_eq!(admit(&mut admission, vec![counted(7, 70)]).duplicates, 1);
    }
}

/// Promise: polled values have no resend; each gets its own identity from the place it is stored at.
#[test]
fn polled_values_are_all_different() {
    let mut admission = admission();
    let poll = || vec![decoded(Metric::HeartRate, 70, SourceIdentity::None), decoded(Metric::HeartRate, 70, SourceIdentity::None)];
    let mut ids: Vec<_> = readings(&admission.admit(sample(poll()), &Associations::default(), Sequence(1))).iter().map(|r| r.id).collect();
    ids.extend(readings(&admission.admit(sample(poll()), &Associations::default(), Sequence(3))).iter().map(|r| r.id));
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

/// Promise: what cannot be a reading becomes a dead letter with its content, the rest of the message is admitted: one letter with
/// the whole message, behind what was taken of it, or without a message one for each value.
#[test]
fn the_unreadable_is_kept_and_the_rest_admitted() {
    let mut admission = admission();
    let mut wrong_unit = counted(1, 70);
    wrong_unit.value = Value::Quantity(Quantity { value: Decimal::from(70), unit: Unit::Celsius });
    let mut never_set = counted(2, 70);
    never_set.device_time = Some(DeviceTime { unix_ms: UnixMs(1_000), offset_minutes: None });
    let panel = decoded(Metric::BloodPressureCuff, 1, SourceIdentity::None);
    let polled = sample(vec![wrong_unit, never_set, panel, counted(3, 70)]);
    let unread = Some((DeadLetterReason::new(DeadLetterKind::UnknownMetric, "not known"), b"{a}".to_vec()));
    let unread = DecodedSample { unreadable: unread, ..polled.clone() };
    let message = DecodedSample { payload: b"{b}".to_vec(), ..polled.clone() };
    let mut admit = |sample| admission.admit(sample, &Associations::default(), Sequence(1));
    let each = admit(polled);
    assert_eq!(dead_letters(&each), [DeadLetterKind::WrongUnit, DeadLetterKind::ImpossibleTime, DeadLetterKind::UnknownMetric]);
    assert_eq!(readings(&each).len(), 1);
    assert!(each.entries.iter().all(|entry| !matches!(entry, Entry::DeadLetter(letter) if letter.bytes.is_empty())));
    for (sample, kind, bytes) in [(unread, DeadLetterKind::UnknownMetric, b"{a}"), (message, DeadLetterKind::WrongUnit, b"{b}")] {
        let whole = admit(DecodedSample { readings: [sample.readings.clone(), vec![counted(4, 1)]].concat(), ..sample });
        let Some(Entry::DeadLetter(letter)) = whole.entries.last() else { panic!("{whole:?}") };
        assert_eq!((dead_letters(&whole), &*letter.bytes), (vec![kind], &bytes[..]));
        assert!(letter.reason.detail.contains("2 more values"), "{}", letter.reason.detail);
    }
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
            readings(&admission.admit(sample(vec![reading]), &associations, Sequence(1)))[0].subject.clone()
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
        // As its profile finds it.
        reading.flags = if ahead_ms > 300_000 { Flags::CLOCK_DOUBTFUL } else { Flags::default() };
        readings(&admission.admit(sample(vec![reading]), &associations, Sequence(1)))[0].subject.clone()
    };
    assert_eq!(subject(1, 5_000), Subject::Patient(PatientReference::Literal("Patient/b".into())));
    assert_eq!(subject(2, 3_600_000), Subject::Unassigned, "stamped an hour ahead: it may be of the patient before");
}

/// Promise 3: what may have been kept since before the device came to its patient is nobody's: a message without a time, and one whose
/// time could be compared with none. A device that never moved is not touched by it.
#[test]
fn what_may_be_older_names_no_patient_after_a_change() {
    let patient = PatientReference::Literal("Patient/b".into());
    let since = |from| {
        let confirmed_by = "test".into();
        Associations::new([Association { device: device(), patient: patient.clone(), from, until: None, confirmed_by }])
    };
    let mut kept = sample(vec![counted(1, 70), counted(2, 71)]);
    kept.readings[1].flags = Flags::DATED_BY_ARRIVAL;
    let mut early = sample(vec![counted(3, 72)]);
    early.readings[0].device_time = Some(DeviceTime { unix_ms: UnixMs(START_MS + 2_000), offset_minutes: None });
    early.received.trust = ClockTrust::Unset;
    for (from, subject) in [(Some(UnixMs(START_MS)), Subject::Unassigned), (None, Subject::Patient(patient.clone()))] {
        let mut admission = admission();
        let kept = readings(&admission.admit(kept.clone(), &since(from), Sequence(1)));
        assert_eq!(kept[0].subject, Subject::Patient(patient.clone()), "of the moment of its arrival");
        assert_eq!(kept[1].subject, subject, "from {from:?}");
        let early = readings(&admission.admit(early.clone(), &since(from), Sequence(3)));
        assert_eq!((&early[0].subject, early[0].flags), (&subject, Flags::default()), "from {from:?}");
    }
}

/// Promise: without device time and with a clock that was never set there is no moment and no guess.
#[test]
fn an_unset_clock_gives_no_moment() {
    let mut admission = admission();
    let mut early = sample(vec![counted(1, 70)]);
    early.received.trust = ClockTrust::Unset;
    early.received.wall = UnixMs(12);
    let held = readings(&admission.admit(early, &Associations::default(), Sequence(1)));
    assert_eq!((held[0].time.effective(), &held[0].subject), (None, &Subject::Unassigned));
}

/// Promise: two messages without time and counter that came with one packet of the network stay two: the parts of a
/// blood pressure of one are never joined with those of the other.
#[test]
fn messages_that_arrive_at_once_are_told_apart() {
    let mut admission = admission();
    let mut next = Sequence(0);
    let mut arrival = |metric, identity| {
        next = next.next();
        let admitted = admission.admit(sample(vec![decoded(metric, 70, identity)]), &Associations::default(), next);
        readings(&admitted)[0].time.received.monotonic_ms
    };
    let counter = SourceIdentity::Counter { epoch: "".into(), sequence: 1 };
    assert_eq!(arrival(Metric::HeartRate, counter), 5_000);
    assert_eq!(arrival(Metric::SystolicCuff, SourceIdentity::None), 5_001);
    assert_eq!(arrival(Metric::DiastolicCuff, SourceIdentity::None), 5_002);
    let moved: Vec<u64> = (0..2_000).map(|_| arrival(Metric::HeartRate, SourceIdentity::None)).collect();
    assert!(moved.iter().all(|&moment| moment <= 6_000), "no flood moves them further than a second");
}

/// Promise 2: so are messages of which a value is refused, also where another one comes between them: a replay takes of each what was
/// not taken of it.
#[test]
fn messages_that_are_refused_in_part_are_told_apart_too() {
    let mut admission = admission();
    admit(&mut admission, vec![counted(1, 70)]);
    let arrivals = [(1, 71), (2, 70), (1, 72)].map(|(counter, value)| {
        let told = DecodedSample { payload: b"{}".to_vec(), ..sample(vec![counted(counter, value), counted(counter + 2, value)]) };
        let admitted = admission.admit(told, &Associations::default(), Sequence(9));
        assert!(admitted.entries.iter().all(|entry| entry.origin() == admitted.entries[0].origin()), "one sample");
        admitted.entries[0].origin().1.monotonic_ms
    });
    assert_eq!(arrivals, [5_001, 5_000, 5_002]);
}
