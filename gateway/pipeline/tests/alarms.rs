//! What a delivery says when something is in its way.

mod rig;

use rig::{Rig, SubjectPatient as _, all_accepted, heart_rates, reading, transient};
use vitalgate_domain::{Answer, Batch, ItemAnswer, Metric, Sequence};
use vitalgate_pipeline::delivery::{
    PATIENT_FORGOTTEN_MS, PATIENT_SUSPECT_FAILURES, PAUSED_WAIT_MAX_MS, READ_FAILURES_MAX, REJECTIONS_IN_A_ROW, RETRY_AFTER_MAX_MS,
    RETRY_AFTER_SILENT_MAX_MS,
};
use vitalgate_pipeline::{AlarmKind, DeliveryEvent, DeliveryPolicy, Lane};

fn standing(rig: &Rig) -> Vec<AlarmKind> {
    rig.delivery.status().alarms.iter().map(|alarm| alarm.kind).collect()
}

/// Promise: a destination that refuses everything raises an alarm, in our words; its own, which may quote a patient and a value, stand
/// in the dead letters alone.
#[test]
fn the_words_of_a_refusal_stand_in_the_dead_letters_alone() {
    const WORDS: &str = "HTTP 422 error/value: Maria Muster (born 1950-02-03): value 182 outside";
    let refused = |batch: &Batch| Answer::Items(batch.items.iter().map(|_| ItemAnswer::Rejected { detail: WORDS.into() }).collect());
    let as_a_whole = |_: &Batch| Answer::RejectedWhole { detail: WORDS.into() };
    let too_large = |_: &Batch| Answer::TooLarge { detail: WORDS.into() };
    let answers: [&dyn Fn(&Batch) -> Answer; 3] = [&refused, &as_a_whole, &too_large];
    for answer in answers {
        let count = u64::from(REJECTIONS_IN_A_ROW);
        let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..count, 3));
        rig.tick();
        rig.drain(answer);
        assert!(rig.alarms.is_empty(), "one less is no alarm");
        rig.commit((count..2 * count).map(|number| reading(Metric::HeartRate, number, 1, rig.now_ms)).collect::<Vec<_>>());
        rig.drain(answer);
        assert_eq!(rig.alarms.iter().map(|alarm| alarm.kind).collect::<Vec<_>>(), [AlarmKind::OnlyRejections]);
        for alarm in rig.alarms.iter().chain(&rig.delivery.status().alarms) {
            assert!(alarm.detail.contains("dead letters") && !WORDS.contains(alarm.detail.as_ref()), "{}", alarm.detail);
            assert!(["Maria", "Muster", "1950", "182"].iter().all(|words| !alarm.detail.contains(words)), "{}", alarm.detail);
        }
        assert!(rig.rejected.iter().all(|reading| reading.reason.detail.as_ref() == WORDS));
        rig.commit([reading(Metric::HeartRate, 2 * count, 1, rig.now_ms)]);
        rig.answer_all(all_accepted);
        assert!(rig.delivery.status().alarms.is_empty());
    }
}

/// Promise: an alarm says what is in the way now, not what was in the way first, and says nothing twice.
#[test]
fn an_alarm_says_what_is_in_the_way_now() {
    let saying = |detail: &'static str| move |_: &Batch| Answer::Transient { retry_after_ms: None, detail: detail.into() };
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..200, 7));
    rig.tick();
    let until = |rig: &mut Rig, said: &[&str], answer: &dyn Fn(&Batch) -> Answer| {
        for _ in 0..50 {
            rig.answer_all(answer);
            assert!(!rig.sent.is_empty() || rig.sleep());
        }
        assert_eq!(rig.alarms.iter().map(|alarm| alarm.detail.as_ref()).collect::<Vec<_>>(), said);
        let standing = rig.delivery.status().alarms;
        assert_eq!(standing.iter().map(|alarm| alarm.detail.as_ref()).collect::<Vec<_>>(), said[said.len() - 1..]);
    };
    until(&mut rig, &["no name"], &saying("no name"));
    until(&mut rig, &["no name", "no trust"], &saying("no trust"));
    until(&mut rig, &["no name", "no trust", "403"], &|_| Answer::Paused { detail: "403".into() });
    until(&mut rig, &["no name", "no trust", "403", "401"], &|_| Answer::Paused { detail: "401".into() });
    rig.drain(all_accepted);
    assert!(rig.delivery.status().alarms.is_empty());
}

/// Promise: the alarm of a failing patient of whom nothing is sent any more ends, whatever became of what was sent.
#[test]
fn an_alarm_outlasts_no_patient() {
    let unknown = Answer::PatientUnknown { detail: "nobody".into() };
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    let failing = reading(Metric::HeartRate, 0, 0, 0).subject_patient();
    let send = |rig: &mut Rig, patient, answer: &Answer| {
        let number = rig.entries.len() as u64 + 1;
        rig.commit([reading(Metric::HeartRate, number, patient, rig.now_ms)]);
        rig.answer_all(|batch| if batch.patient == failing { answer.clone() } else { all_accepted(batch) });
    };
    let forbidden = Answer::Paused { detail: "403: the record is sealed".into() };
    send(&mut rig, 0, &forbidden);
    for _ in 0..4 * PATIENT_SUSPECT_FAILURES {
        rig.pass(PAUSED_WAIT_MAX_MS);
        send(&mut rig, 1, &forbidden);
    }
    assert_eq!(rig.delivery.status().alarms.iter().map(|alarm| alarm.kind).collect::<Vec<_>>(), [AlarmKind::PatientFailing]);
    rig.drain(|batch| if batch.patient == failing { unknown.clone() } else { all_accepted(batch) });
    rig.now_ms += PATIENT_FORGOTTEN_MS;
    rig.tick();
    assert!(rig.delivery.status().alarms.is_empty());
    assert!(rig.cleared.iter().any(|alarm| alarm.kind == AlarmKind::PatientFailing));
}

fn left_alone(retry_after_ms: u64) -> Answer {
    Answer::Transient { retry_after_ms: Some(retry_after_ms), detail: "HTTP 503".into() }
}

/// Promise: a destination that asks to be left alone for long takes nothing meanwhile, and that is shown at once and until it answers again,
/// also where it still answers for what was sent before; a short wait is no alarm.
#[test]
fn a_destination_that_asks_for_a_long_wait_is_shown() {
    for patients in [1, 2] {
        let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..5, patients));
        rig.tick();
        assert_eq!(rig.sent.len(), patients);
        let first = |rig: &Rig| *rig.sent.keys().next().unwrap();
        let request = first(&rig);
        rig.answer(request, left_alone(RETRY_AFTER_SILENT_MAX_MS));
        assert!(standing(&rig).is_empty() && rig.delivery.status().open_for_requests);
        rig.answer_all(all_accepted);
        while rig.sent.is_empty() {
            assert!(rig.sleep());
        }
        rig.commit((5..9).map(|number| reading(Metric::HeartRate, number, number as usize % patients, rig.now_ms)).collect::<Vec<_>>());
        assert_eq!(rig.sent.len(), patients);
        let (request, asked_ms) = (first(&rig), rig.now_ms);
        rig.answer(request, left_alone(RETRY_AFTER_MAX_MS));
        rig.answer_all(all_accepted);
        while rig.sent.is_empty() {
            assert_eq!(standing(&rig), [AlarmKind::Unreachable], "{} ms of it passed", rig.now_ms - asked_ms);
            assert!(!rig.delivery.status().open_for_requests);
            assert!(rig.sleep());
        }
        assert_eq!(rig.now_ms, asked_ms + RETRY_AFTER_MAX_MS);
        assert_eq!(rig.alarms.len(), 1, "it is said once");
        assert!(rig.alarms[0].detail.contains("3600 s") && rig.alarms[0].detail.contains("HTTP 503"), "{}", rig.alarms[0].detail);
        rig.drain(all_accepted);
        assert!(standing(&rig).is_empty() && rig.rejected.is_empty());
    }
}

/// Promise: what waits and cannot be read back is shown, although what comes in is delivered, until it can be read.
#[test]
fn what_cannot_be_read_is_shown_until_it_can() {
    const BACKLOG: u64 = 5_000;
    let broken = |lane| (lane == Lane::Backlog).then(|| DeliveryEvent::ReadFailed { lane, detail: "os error 5".into() });
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..BACKLOG + 1, 3));
    rig.unread = broken;
    rig.tick();
    for round in 1..=2 * u64::from(READ_FAILURES_MAX) {
        let failed = rig.reads.iter().filter(|(lane, ..)| *lane == Lane::Backlog).count();
        let shown = failed >= READ_FAILURES_MAX as usize;
        assert_eq!(standing(&rig), if shown { vec![AlarmKind::Unreadable] } else { Vec::new() }, "{failed} reads failed");
        let number = BACKLOG + round;
        rig.commit([reading(Metric::HeartRate, number, 1, rig.now_ms)]);
        rig.answer_all(all_accepted);
        assert!(rig.settled.contains(Sequence(number)), "what comes in waits for what cannot be read");
        assert!(rig.sleep());
    }
    assert!(rig.alarms.len() == 1 && rig.alarms[0].detail.contains("os error 5"), "{:?}", rig.alarms);
    rig.unread = |_| None;
    rig.drain(all_accepted);
    assert_eq!((standing(&rig), rig.cleared.len()), (Vec::new(), 1));
    assert!(rig.rejected.is_empty());
}

/// Promise 5: what the live lane could not read and left to the backlog is shown until the backlog reads it, not until something new comes.
#[test]
fn what_was_left_to_the_backlog_is_shown_until_that_reads_it() {
    let broken = |lane| (lane == Lane::Live).then(|| DeliveryEvent::ReadFailed { lane, detail: "os error 5".into() });
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..5, 1));
    rig.tick();
    rig.unread = broken;
    rig.commit([reading(Metric::HeartRate, 5, 1, rig.now_ms)]);
    for _ in 0..10 * READ_FAILURES_MAX {
        rig.answer_all(|_| transient());
        assert!(rig.sleep());
        if standing(&rig).contains(&AlarmKind::Unreadable) && !rig.sent.is_empty() {
            break;
        }
    }
    assert_eq!(standing(&rig), [AlarmKind::Unreachable, AlarmKind::Unreadable]);
    // Now it can be read. The destination is back, and the live lane goes on with what comes next.
    rig.unread = |_| None;
    let reads = rig.reads.len();
    rig.drain(all_accepted);
    assert!(rig.reads[reads..].iter().all(|(lane, ..)| *lane == Lane::Backlog), "{:?}", &rig.reads[reads..]);
    assert_eq!(standing(&rig), []);
}

/// Promise: a read that was put off because the disk is full is no sign of a disk that cannot be read.
#[test]
fn what_is_not_read_yet_is_no_alarm() {
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..100, 3));
    rig.unread = |lane| Some(DeliveryEvent::ReadPutOff { lane });
    rig.tick();
    for _ in 0..3 * READ_FAILURES_MAX {
        assert!(rig.sleep());
    }
    assert!(rig.reads.len() > READ_FAILURES_MAX as usize && rig.alarms.is_empty());
    rig.unread = |_| None;
    rig.drain(all_accepted);
}
