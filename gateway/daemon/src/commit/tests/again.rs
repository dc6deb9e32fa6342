//! What is judged again: messages that contradict an earlier one, and device times that could be compared with no clock.

use vitalgate_domain::{Flags, Subject, UnixMs};

use super::*;

/// A profile of messages with time and counter.
pub(super) fn timed_profile(keys: &str) -> String {
    list_profile("pulse").replace(
        "resend_indistinct = true",
        &format!(
            "{keys}\n        [publish.time]\n        field = \"/at\"\n        formats = [\"unix_ms\"]\n        age_days_max = 365\n        \
             source = \"Test\""
        ),
    )
}

pub(super) fn message(at: UnixMs, counter: u64, values: &str) -> String {
    format!(r#"{{"at": {}, "seq": {counter}, "values": [{values}]}}"#, at.0)
}

fn attached_since(rig: &mut Rig, from: UnixMs) {
    let (device, patient) = (DeviceId::new(MONITOR).unwrap(), PatientReference::Literal("Patient/p2".into()));
    let association = Association { device, patient, from: Some(from), until: None, confirmed_by: "test".into() };
    rig.commit.associations = Associations::new([association]);
}

/// Promises 2 and 4: what contradicts an earlier message goes on once the profile tells the two apart, each value once; and as long as
/// it does not, never under the identity of the earlier one, also when that is not remembered any more.
#[test]
fn a_message_that_contradicts_another_goes_when_the_profile_tells_them_apart() {
    let folder = folder("free");
    let mut before = rig(folder.path(), &timed_profile(""), 0);
    let received = before.received(500);
    let at = received.wall;
    before.publish(&message(at, 1, r#"{"name": "hr", "value": 70}, {"name": "pulse", "value": 72}"#), received);
    before
        .publish(&message(at, 2, r#"{"name": "hr", "value": 71}, {"name": "pulse", "value": 73}, {"name": "rr", "value": 14}"#), received);
    let taken = ["heart_rate#0 70", "pulse_rate_spo2#0 72", "resp_rate#0 14"];
    assert_eq!((before.said(), before.unresolved()), (taken.map(str::to_owned).to_vec(), vec![(4, 4)]));
    assert_eq!(before.resolve(&[(&[], REPLAY)]), [(0, 1)], "the profile is the same");
    drop(before);

    let mut forgetful = rig(folder.path(), &timed_profile(""), 0);
    let (gateway, namespace) = (GatewayId::new("gateway-01").unwrap(), DeviceNamespace::new("gateway-01").unwrap());
    forgetful.commit.admission = Admission::new(gateway, namespace, AdmissionPolicy::default(), Vec::new());
    assert_eq!(forgetful.resolve(&[(&[], REPLAY)]), [(0, 1)], "it would take the place of the earlier one in the EHR");
    drop(forgetful);

    let mut rig = rig(folder.path(), &timed_profile("identity = \"counter\""), 0);
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(1, 0)]);
    let (said, readings) = (rig.said(), rig.readings());
    assert_eq!(said[3..], ["heart_rate#0 71", "pulse_rate_spo2#0 73"], "what was taken does not come again");
    assert!(readings[3..].iter().all(|reading| reading.time.effective() == Some(at) && reading.device_sequence == Some(2)));
    assert_ne!(readings[0].id, readings[3].id);
}

/// Promise 2: of two letters that say different things under one identity the second stays.
#[test]
fn letters_that_contradict_each_other_do_not_both_go() {
    let folder = folder("free");
    let mut before = rig(folder.path(), &list_profile("pr"), 0);
    for value in [71, 72] {
        before.publish(&format!(r#"{{"seq": 5, "values": [{{"name": "pulse", "value": {value}}}]}}"#), before.received(500 - value));
    }
    drop(before);
    let mut rig = rig(folder.path(), &list_profile("pulse"), 0);
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(1, 1)]);
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(0, 1)]);
    assert_eq!((rig.said(), rig.unresolved()), (vec!["pulse_rate_spo2#0 71".to_owned()], vec![(2, 2)]));
}

/// Promise 3: how old a device's readings may be is for its profile to say, and for nobody behind it.
#[test]
fn the_profile_alone_decides_whether_a_clock_is_doubted() {
    const DAY_MS: i64 = 86_400_000;
    for trust in ["free", "synchronised"] {
        let folder = folder(trust);
        let mut rig = rig(folder.path(), &timed_profile(""), 0);
        let received = rig.received(0);
        for (counter, age_days) in [(1, 60), (2, 366)] {
            rig.publish(&message(received.wall.plus_ms(-age_days * DAY_MS), counter, r#"{"name": "hr", "value": 70}"#), received);
        }
        let doubted: Vec<_> = rig.readings().iter().map(|reading| reading.flags.contains(Flags::CLOCK_DOUBTFUL)).collect();
        assert_eq!(doubted, [false, true], "{trust}");
    }
}

/// Promises 3 and 4: the time of a device that could be compared with no clock names no patient, and is judged by itself when the clock
/// is set: one that is right goes on, one that is wrong stays.
#[test]
fn a_device_time_is_judged_when_the_clock_is_set() {
    const HOUR_MS: i64 = 3_600_000;
    let folder = folder("unset");
    let mut rig = rig(folder.path(), &timed_profile(""), 0);
    let received = rig.received(60_000);
    attached_since(&mut rig, received.wall.plus_ms(-HOUR_MS / 2));
    for (counter, ahead_ms) in [(1, 0), (2, HOUR_MS)] {
        rig.publish(&message(received.wall.plus_ms(ahead_ms), counter, r#"{"name": "hr", "value": 70}"#), received);
    }
    assert!(rig.readings().iter().all(|reading| reading.subject == Subject::Unassigned && reading.flags == Flags::default()));
    rig.settle([1, 2]);
    dated(&mut rig);
    assert_eq!(rig.readings().len(), 2, "the clock is not set");
    trusting(folder.path(), "free");
    dated(&mut rig);
    let patient = Subject::Patient(PatientReference::Literal("Patient/p2".into()));
    let again: Vec<_> =
        rig.readings().into_iter().skip(2).map(|reading| (reading.subject, reading.flags.contains(Flags::CLOCK_DOUBTFUL))).collect();
    assert_eq!(again, [(patient, false), (Subject::Unassigned, true)]);
    assert_eq!(rig.unresolved(), []);
    rig.settle([4]);
    dated(&mut rig);
    assert_eq!((rig.readings().len(), rig.unresolved()), (4, vec![(4, 4)]), "once");
}
