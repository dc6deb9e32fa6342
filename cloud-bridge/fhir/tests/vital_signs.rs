//! The rules of the R4 vital-signs profiles hold for everything that leaves the encoder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Test code.

mod common;
#[path = "common/rules.rs"]
mod rules;

use common::{ABSENCES, batch, context, encoded, everything, ordinary, panel, quantity, reading, single};
use rules::broken_rules;
use serde_json::Value as Json;
use vitalgate_domain::{BatchMode, ClockTrust, Flags, Item, Metric, NoReading, Subject, Unit, Value};
use vitalgate_fhir::{EncodeError, ItemFault, WriteMode, encode, faults};

fn observation(item: Item) -> Json {
    let bundle: Json = serde_json::from_str(&encoded(&batch(BatchMode::Together, vec![item]), &context(WriteMode::PutById))).unwrap();
    bundle["entry"][0]["resource"].clone()
}

#[test]
fn every_observation_of_every_metric_absence_and_mark_keeps_every_rule() {
    let items = everything();
    assert!(items.len() > 30);
    for item in items {
        let metric = item.panel.unwrap_or(item.readings[0].1.metric);
        let observation = observation(item);
        assert_eq!(broken_rules(&observation), Vec::<String>::new(), "{} {observation:#}", metric.key());
        let claims = !observation["meta"]["profile"].is_null();
        assert_eq!(claims, metric.definition().profile.is_some(), "{}", metric.key());
    }
}

/// The checker itself can fail: every rule that it is to guard is broken once, and found.
#[test]
fn the_checker_finds_each_broken_rule() {
    let sound = observation(single(reading(1, Metric::HeartRate, ordinary(Metric::HeartRate))));
    type Breakage = fn(&mut Json);
    let breakages: [(&str, Breakage); 9] = [
        ("subject", |o| o["subject"] = Json::Null),
        ("category", |o| o["category"] = Json::Null),
        ("unit code", |o| o["valueQuantity"]["code"] = "bpm".into()),
        ("UCUM", |o| o["valueQuantity"]["system"] = "x".into()),
        ("unit for people", |o| o["valueQuantity"]["unit"] = Json::Null),
        ("vs-1", |o| o["effectiveDateTime"] = "2026".into()),
        ("vs-2", |o| o["valueQuantity"] = Json::Null),
        ("none of the table", |o| o["code"]["coding"][0]["code"] = "1".into()),
        ("claims", |o| o["meta"]["profile"][0] = "http://hl7.org/fhir/StructureDefinition/bp".into()),
    ];
    for (rule, breakage) in breakages {
        let mut broken = sound.clone();
        breakage(&mut broken);
        assert!(broken_rules(&broken).iter().any(|found| found.contains(rule)), "{rule} was not found");
    }
    let mut pressure = observation(everything().into_iter().find(|item| item.panel.is_some()).unwrap());
    pressure["component"].as_array_mut().unwrap().remove(1);
    pressure["component"][0]["valueQuantity"] = Json::Null;
    let found = broken_rules(&pressure);
    assert!(found.iter().any(|rule| rule.contains("8462-4")) && found.iter().any(|rule| rule.contains("vs-3")), "{found:?}");
}

#[test]
fn a_missing_half_of_a_blood_pressure_is_named_with_the_reason() {
    let systolic = reading(1, Metric::SystolicCuff, quantity("120", Unit::MillimetreOfMercury));
    let id = systolic.id.to_string();
    let observation = observation(panel(Metric::BloodPressureCuff, vec![systolic]));
    let components = observation["component"].as_array().unwrap();
    assert_eq!(components.len(), 2, "systolic and diastolic; a mean that never came is not demanded");
    assert_eq!(components[0]["id"], Json::from(id), "a part can be found by the id of its reading");
    assert_eq!(components[1]["dataAbsentReason"]["coding"][0]["code"], "unknown");
    assert!(observation["valueQuantity"].is_null() && observation["dataAbsentReason"].is_null());
}

#[test]
fn oxygen_saturation_carries_both_loinc_codes_and_the_device_code() {
    let observation = observation(single(reading(1, Metric::OxygenSaturation, ordinary(Metric::OxygenSaturation))));
    let codes: Vec<&str> =
        observation["code"]["coding"].as_array().unwrap().iter().map(|coding| coding["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["2708-6", "59408-5", "150456"]);
}

#[test]
fn a_moment_is_shown_with_the_devices_offset_and_the_receipt_only_by_a_set_clock() {
    let mut held = reading(1, Metric::HeartRate, ordinary(Metric::HeartRate));
    let observed = observation(single(held.clone()));
    assert_eq!(observed["effectiveDateTime"], "2026-11-22T11:00:00.120+01:00");
    assert_eq!(observed["issued"], "2026-11-22T10:00:00.500+00:00");
    held.time.received.trust = ClockTrust::Unset;
    let observed = observation(single(held));
    assert_eq!(observed["effectiveDateTime"], "2026-11-22T11:00:00.120+01:00", "the device knew");
    assert!(observed["issued"].is_null(), "our clock was never set");
}

/// Promise 3: a device's time that was compared with no clock is not taken for one that was, alone or in a panel, however often it is sent.
#[test]
fn a_time_that_was_compared_with_no_clock_is_not_relied_on() {
    let compared_with_none = |number, metric| {
        let mut held = reading(number, metric, ordinary(metric));
        held.time.received.trust = ClockTrust::Unset;
        held
    };
    let pressure = || vec![reading(1, Metric::SystolicCuff, ordinary(Metric::SystolicCuff)), compared_with_none(2, Metric::DiastolicCuff)];
    let items = || [single(compared_with_none(1, Metric::HeartRate)), panel(Metric::BloodPressureCuff, pressure())];
    for (item, again) in items().into_iter().zip(items()) {
        let observed = observation(item);
        assert_eq!(observed["meta"]["security"][0]["code"], "UNCERTREL", "{observed:#}");
        let notes: Vec<_> = observed["note"].as_array().unwrap().iter().filter_map(|note| note["text"].as_str()).collect();
        assert_eq!(notes, ["The gateway's clock was not set: the time of the device could not be compared."]);
        assert_eq!(broken_rules(&observed), Vec::<String>::new());
        assert_eq!(observation(again), observed);
    }
    let mut without = compared_with_none(1, Metric::HeartRate);
    without.time.received.trust = ClockTrust::Free;
    assert_eq!(observation(single(without))["meta"]["security"][0]["code"], "RELIABLE");
}

#[test]
fn a_unit_outside_the_profile_is_sent_as_it_is_and_claims_nothing() {
    let observation = observation(single(reading(1, Metric::BodyTemperature, quantity("310.15", Unit::Kelvin))));
    assert_eq!(observation["valueQuantity"]["code"], "K");
    assert!(observation["meta"]["profile"].is_null());
    assert!(!broken_rules(&observation).is_empty(), "and a validator would say why");
}

#[test]
fn doubt_and_absence_are_stated_as_the_tables_say() {
    let state = |flags: Flags, value: Value| {
        let mut marked = reading(1, Metric::HeartRate, value);
        marked.flags = flags;
        let observation = observation(single(marked));
        let list = |json: &Json| -> Vec<String> {
            json.as_array()
                .into_iter()
                .flatten()
                .map(|concept| concept["code"].as_str().or(concept["coding"][0]["code"].as_str()).unwrap().to_owned())
                .collect()
        };
        let absent = observation["dataAbsentReason"]["coding"][0]["code"].as_str().unwrap_or("").to_owned();
        (list(&observation["meta"]["security"]), list(&observation["interpretation"]), absent)
    };
    let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let value = ordinary(Metric::HeartRate);
    let cases = [
        (Flags::default(), value, &["RELIABLE"][..], &[][..], ""),
        (Flags::IMPLAUSIBLE, value, &["UNCERTREL"], &["questionable"], ""),
        (Flags::QUESTIONABLE, value, &["UNCERTREL"], &["questionable"], ""),
        (Flags::CALIBRATING, value, &["UNCERTREL"], &["calibration-ongoing"], ""),
        (Flags::TEST, value, &["RELIABLE", "HTEST"], &[], ""),
        (Flags::default(), Value::Absent(NoReading::DeviceError), &["UNRELIABLE"], &[], "error"),
        (Flags::default(), Value::Absent(NoReading::NotAvailable), &[], &[], "temp-unknown"),
        (Flags::default(), Value::Absent(NoReading::AboveRange), &[], &[">"], "unknown"),
        (Flags::default(), Value::Absent(NoReading::BelowRange), &[], &["<"], "unknown"),
        (Flags::default(), Value::Absent(NoReading::NotANumber), &[], &[], "not-a-number"),
        (Flags::default(), Value::Absent(NoReading::SensorDisconnected), &[], &[], "not-performed"),
    ];
    for (flags, value, security, interpretation, absent) in cases {
        assert_eq!(state(flags, value), (strings(security), strings(interpretation), absent.to_owned()), "{flags:?} {value:?}");
    }
    assert_eq!(ABSENCES.len(), 8);
}

#[test]
fn a_converted_value_keeps_what_the_device_reported_as_a_note_and_never_as_a_second_value() {
    let converted = everything().into_iter().find(|item| item.readings[0].1.reported.is_some()).unwrap();
    let observation = observation(converted);
    assert_eq!(observation["note"][0]["text"], "Value converted by the gateway; the device reported 101.2 °F");
    assert!(observation["component"].is_null());
}

/// Promise 2: a 0 that is taken for a sensor that is off is still said, with or without a unit.
#[test]
fn a_zero_that_is_taken_for_an_absence_is_said_in_a_note() {
    for (unit, said) in [("bpm", "0 bpm"), ("", "0")] {
        let mut zero = reading(1, Metric::HeartRate, Value::Absent(NoReading::SensorDisconnected));
        zero.reported = Some(vitalgate_domain::Reported { value: "0".into(), unit: unit.into() });
        let observation = observation(single(zero));
        assert_eq!(observation["note"][0]["text"], format!("Value taken for an absence by the gateway; the device reported {said}"));
    }
}

/// Promise 3: a reading that is not joined says so.
#[test]
fn a_part_of_which_nobody_knows_the_others_says_so() {
    let mut apart = reading(1, Metric::SystolicCuff, ordinary(Metric::SystolicCuff));
    apart.flags = Flags::APART;
    let observation = observation(panel(Metric::BloodPressureCuff, vec![apart]));
    assert!(observation["note"][0]["text"].as_str().unwrap().contains("which parts belong together is not known"), "{observation:#}");
    assert_eq!(observation["component"][1]["dataAbsentReason"]["text"], "Not received with the others");
}

/// Promise 3: a moment that the gateway gave is not taken for one that the device said.
#[test]
fn a_moment_that_is_that_of_the_arrival_is_said_to_be() {
    let mut kept = reading(1, Metric::HeartRate, ordinary(Metric::HeartRate));
    kept.time.device = None;
    kept.flags = Flags::DATED_BY_ARRIVAL;
    let observation = observation(single(kept));
    assert_eq!(observation["effectiveDateTime"], observation["issued"]);
    assert!(observation["note"][0]["text"].as_str().unwrap().contains("the time of arrival at the gateway"), "{observation}");
}

#[test]
fn nothing_is_sent_without_a_moment_a_patient_or_its_panel_nor_twice() {
    let fault = |item: Item| {
        let batch = batch(BatchMode::Together, vec![single(reading(99, Metric::HeartRate, ordinary(Metric::HeartRate))), item]);
        let error = encode(&batch, &context(WriteMode::PutById), &|_| String::new(), "Patient/4711").unwrap_err();
        let EncodeError::Item { item: 1, fault } = error else { panic!("{error}") };
        assert_eq!(faults(&batch), [(1, fault)]);
        fault
    };
    let ordinary_of = |metric| reading(1, metric, quantity("72", Unit::MillimetreOfMercury));
    let mut timeless = ordinary_of(Metric::HeartRate);
    timeless.time.device = None;
    timeless.time.received.trust = ClockTrust::Unset;
    assert_eq!(fault(single(timeless)), ItemFault::TimeUnknown);
    let mut unassigned = ordinary_of(Metric::HeartRate);
    unassigned.subject = Subject::Unassigned;
    assert_eq!(fault(single(unassigned)), ItemFault::OtherPatient);
    assert_eq!(fault(single(reading(99, Metric::HeartRate, ordinary(Metric::HeartRate)))), ItemFault::DuplicateIdentity);
    assert_eq!(fault(single(ordinary_of(Metric::SystolicCuff))), ItemFault::PartWithoutPanel);
    assert_eq!(fault(single(ordinary_of(Metric::BloodPressureCuff))), ItemFault::PanelAsReading);
    let foreign = panel(Metric::BloodPressureCuff, vec![ordinary_of(Metric::SystolicArterial)]);
    assert_eq!(fault(foreign), ItemFault::WrongParts);
    let twice = panel(Metric::BloodPressureCuff, vec![ordinary_of(Metric::SystolicCuff), ordinary_of(Metric::SystolicCuff)]);
    assert_eq!(fault(twice), ItemFault::WrongParts);
    let empty = Item { id: ordinary_of(Metric::HeartRate).id, panel: None, readings: Vec::new() };
    assert_eq!(fault(empty), ItemFault::NoReading);
    let empty = batch(BatchMode::Together, Vec::new());
    assert_eq!(encode(&empty, &context(WriteMode::PutById), &|_| String::new(), "x").unwrap_err(), EncodeError::Empty);
}
