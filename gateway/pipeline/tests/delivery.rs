//! What a delivery promises, one test each.

mod rig;

use proptest::prelude::*;
use rig::{Rig, SubjectPatient as _, all_accepted, at, heart_rates, reading, transient};
use vitalgate_domain::{
    Answer, Batch, BatchMode, DeadLetterKind, DeviceEvent, DeviceEventKind, DeviceId, Entry, Flags, ItemAnswer, Metric, Sequence,
    SequenceRanges, Subject,
};
use vitalgate_pipeline::delivery::{
    BREAKER_FAILURES, HOLES_MAX, PAUSED_WAIT_MAX_MS, PROBE_WAIT_MAX_MS, READ_AHEAD_READINGS_MAX, RETRY_AFTER_MAX_MS,
};
use vitalgate_pipeline::{AlarmKind, DeliveryPolicy, Lane};

fn numbers(batch: &Batch) -> Vec<u64> {
    batch.items.iter().flat_map(|item| item.readings.iter().map(|(sequence, _)| sequence.0)).collect()
}

/// Promise: an idle lane sends at once, no timer.
#[test]
fn a_reading_is_sent_in_the_same_step_in_which_it_was_read() {
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    rig.tick();
    rig.commit([reading(Metric::HeartRate, 1, 1, 10_000)]);
    assert_eq!(rig.batches().len(), 1);
    assert_eq!(rig.wake_ms, None, "nothing waits");
    rig.answer_all(all_accepted);
    assert!(rig.settled.contains(Sequence(1)));
}

/// Promise: a batch is what queued while the previous request of the patient was under way, up to the limits.
#[test]
fn a_busy_lane_fills_its_next_request() {
    let policy = DeliveryPolicy { batch_items_max: 5, ..DeliveryPolicy::default() };
    let mut rig = Rig::new(policy, Vec::new());
    rig.commit([reading(Metric::HeartRate, 1, 1, 10_000)]);
    for number in 2..9 {
        rig.commit([reading(Metric::HeartRate, number, 1, 10_000)]);
    }
    assert_eq!(numbers(&rig.batches()[0]), [1], "one request of a patient at a time");
    rig.answer_all(all_accepted);
    assert_eq!(numbers(&rig.batches()[0]), [2, 3, 4, 5, 6]);
    rig.answer_all(all_accepted);
    assert_eq!(numbers(&rig.batches()[0]), [7, 8]);
}

/// Promise: what just happened goes out at once, however long the backlog behind it is.
#[test]
fn a_live_reading_never_waits_for_the_backlog() {
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..50_001, 20));
    rig.tick();
    for round in 0..30 {
        let number = 50_001 + round;
        rig.commit([reading(Metric::HeartRate, number, 1_000 + round as usize, 10_000)]);
        let live =
            rig.sent.iter().find(|(_, batch)| numbers(batch).contains(&number)).map(|(request, batch)| (*request, all_accepted(batch)));
        if round == 0 && live.is_none() {
            // Before the first live reading the backlog may have taken every place.
            rig.answer_all(all_accepted);
            rig.answer_all(all_accepted);
            continue;
        }
        let (request, answer) = live.expect("sent in the step in which it was committed");
        rig.answer(request, answer);
    }
    rig.drain(all_accepted);
    assert!(rig.rejected.is_empty());
}

/// Promise: after an outage the newest readings go out first, and the backlog drains behind them.
#[test]
fn after_an_outage_the_newest_go_first() {
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    for number in 1..=20_000u64 {
        rig.commit([reading(Metric::HeartRate, number, number as usize % 10, 10_000)]);
        rig.answer_all(|_| transient());
    }
    while rig.sent.is_empty() {
        assert!(rig.sleep());
    }
    rig.answer_all(all_accepted);
    rig.commit([reading(Metric::HeartRate, 20_001, 77, rig.now_ms)]);
    rig.answer_all(all_accepted);
    assert!(rig.settled.contains(Sequence(20_001)), "a new reading is delivered within two answers");
    assert!(rig.delivery.status().unsettled > 10_000, "and did not wait for the old ones");
    rig.drain(all_accepted);
}

/// Promise: one poisonous reading is isolated with the destination's words, the rest is delivered.
#[test]
fn poison_is_isolated() {
    let poison = 37;
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..101, 1));
    rig.tick();
    rig.drain(|batch| match (batch.mode, numbers(batch).contains(&poison)) {
        (BatchMode::Together, true) => Answer::RejectedWhole { detail: "400 value out of range".into() },
        (BatchMode::Separately, true) => {
            let answer = |number: &u64| match *number == poison {
                true => ItemAnswer::Rejected { detail: "400 value out of range".into() },
                false => ItemAnswer::Accepted { remote_id: None },
            };
            Answer::Items(numbers(batch).iter().map(answer).collect())
        }
        (_, false) => all_accepted(batch),
    });
    assert_eq!(rig.rejected.len(), 1);
    assert_eq!((rig.rejected[0].sequence, rig.rejected[0].reason.kind), (Sequence(poison), DeadLetterKind::Rejected));
    assert_eq!(rig.rejected[0].reason.detail.as_ref(), "400 value out of range");
}

/// Promise: a destination that refuses every batch as a whole still gets what it takes one by one.
#[test]
fn a_destination_without_batches_is_served_one_by_one() {
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..60, 1));
    rig.tick();
    rig.drain(|batch| match batch.items.len() {
        1 if numbers(batch) != [5] => all_accepted(batch),
        _ => Answer::RejectedWhole { detail: "not supported".into() },
    });
    assert_eq!(rig.rejected.iter().map(|reading| reading.sequence.0).collect::<Vec<_>>(), [5]);
}

/// Promise: 413 halves the request, later ones stay small, and only a single item that is too large is given up.
#[test]
fn too_large_a_request_is_halved() {
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..501, 1));
    rig.tick();
    let too_large = Answer::TooLarge { detail: "413".into() };
    let large = std::cell::Cell::new(0);
    rig.drain(|batch| {
        if numbers(batch).contains(&13) || batch.items.len() > 8 {
            large.set(large.get() + 1);
            return too_large.clone();
        }
        all_accepted(batch)
    });
    assert_eq!(rig.rejected.iter().map(|reading| reading.sequence.0).collect::<Vec<_>>(), [13]);
    assert!(large.get() < 30, "{} requests were too large: the limit was not learnt", large.get());
}

/// Promise: refused credentials stop the sending with an alarm; nothing becomes a dead letter.
#[test]
fn refused_credentials_pause_and_resume() {
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..1_001, 4));
    rig.tick();
    let refused = Answer::Paused { detail: "401: renew the token file".into() };
    rig.answer_all(|_| refused.clone());
    assert_eq!(rig.alarms.iter().map(|alarm| alarm.kind).collect::<Vec<_>>(), [AlarmKind::Paused]);
    let before = rig.requests;
    let start = rig.now_ms;
    while rig.now_ms - start < 3_600_000 {
        assert!(rig.sleep());
        assert!(rig.sent.len() <= 1, "one probe at a time");
        rig.answer_all(|_| refused.clone());
    }
    let probes = rig.requests - before;
    assert!((60..400).contains(&probes), "{probes} probes in an hour, each at most {PAUSED_WAIT_MAX_MS} ms after the last");
    assert!(rig.settled.ranges().is_empty() && rig.rejected.is_empty());
    rig.drain(all_accepted);
    assert_eq!(rig.cleared.iter().map(|alarm| alarm.kind).collect::<Vec<_>>(), [AlarmKind::Paused]);
    assert!(rig.rejected.is_empty());
}

/// Promise: an outage of months is a probe now and then, and nothing is lost or given up.
#[test]
fn an_outage_opens_the_breaker_and_loses_nothing() {
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..3_001, 8));
    rig.tick();
    let start = rig.now_ms;
    let mut last = start;
    while rig.now_ms - start < 86_400_000 {
        let open = rig.alarms.iter().any(|alarm| alarm.kind == AlarmKind::Unreachable);
        assert!(!open || rig.sent.len() <= 1, "one probe at a time");
        if !rig.sent.is_empty() {
            assert!(rig.now_ms - last <= PROBE_WAIT_MAX_MS, "a probe at least every {PROBE_WAIT_MAX_MS} ms");
            last = rig.now_ms;
        }
        rig.answer_all(|_| transient());
        assert!(rig.sleep());
    }
    assert!(rig.requests > BREAKER_FAILURES as usize);
    assert!(rig.settled.ranges().is_empty() && rig.rejected.is_empty());
    rig.drain(all_accepted);
    assert!(rig.rejected.is_empty() && rig.delivery.status().alarms.is_empty());
}

/// Promise: a destination that comes back after an outage of whatever length gets what waits within two seconds, with one patient
/// or with many; and nobody asks it while nothing waits.
#[test]
fn the_return_of_a_destination_is_noticed_within_two_seconds() {
    let mut longest = 0;
    for (patients, outage_ms) in [1, 2, 8].into_iter().flat_map(|patients| {
        [5_000, 15_000, 61_000, 3_600_000].into_iter().flat_map(move |outage| (0..7).map(move |late| (patients, outage + late * 311)))
    }) {
        let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..501, patients));
        rig.tick();
        let start = rig.now_ms;
        while rig.now_ms - start < outage_ms {
            rig.answer_all(|_| transient());
            assert!(rig.sleep());
        }
        // It is back since that moment; the clock stands at the first request after it.
        while rig.sent.is_empty() {
            assert!(rig.sleep());
        }
        let noticed = rig.now_ms - (start + outage_ms);
        assert!(noticed <= PROBE_WAIT_MAX_MS, "{patients} patients, {outage_ms} ms: noticed after {noticed} ms");
        longest = longest.max(noticed);
        rig.drain(all_accepted);
        assert!(rig.rejected.is_empty());
        assert!(!rig.sleep() || rig.sent.is_empty(), "nothing waits and it is still asked");
    }
    assert!(longest > PROBE_WAIT_MAX_MS / 2, "the outages end at all moments between two probes");
}

/// Promise: Retry-After is honoured, and capped.
#[test]
fn nothing_is_sent_before_retry_after() {
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..200, 3));
    rig.tick();
    let start = rig.now_ms;
    rig.answer_all(|_| Answer::Transient { retry_after_ms: Some(120_000), detail: "429".into() });
    while rig.sent.is_empty() {
        assert!(rig.sleep());
    }
    assert_eq!(rig.now_ms, start + 120_000);
    rig.answer_all(|_| Answer::Transient { retry_after_ms: Some(u64::MAX), detail: "429".into() });
    while rig.sent.is_empty() {
        assert!(rig.sleep());
    }
    assert!(rig.now_ms <= start + 120_000 + RETRY_AFTER_MAX_MS);
}

/// Promise: what has no patient, no moment or needs no delivery is settled, and listed where it is held.
#[test]
fn what_must_not_be_sent_is_held_and_blocks_nothing() {
    let mut nobody = reading(Metric::HeartRate, 1, 1, 1_000);
    nobody.subject = Subject::Unassigned;
    let mut timeless = reading(Metric::HeartRate, 2, 1, 1_000);
    timeless.time.received.trust = vitalgate_domain::ClockTrust::Unset;
    let event = DeviceEvent { device: DeviceId::new("monitor-1").unwrap(), kind: DeviceEventKind::Lost, received: at(1_000) };
    let entries = vec![
        Entry::Reading(nobody),
        Entry::Reading(timeless),
        Entry::DeviceEvent(event),
        Entry::Reading(reading(Metric::HeartRate, 4, 1, 1_000)),
    ];
    let mut rig = Rig::new(DeliveryPolicy::default(), entries);
    rig.tick();
    assert_eq!(rig.settled.ranges(), [(Sequence(1), Sequence(3))]);
    let held: Vec<_> = rig.rejected.iter().map(|reading| (reading.sequence.0, reading.reason.kind)).collect();
    assert_eq!(held, [(1, DeadLetterKind::Unassigned), (2, DeadLetterKind::TimeUnknown)]);
    assert_eq!(numbers(&rig.batches()[0]), [4]);
}

/// Promise: a patient that the destination does not know holds only its own readings.
#[test]
fn an_unknown_patient_holds_only_its_own() {
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..301, 3));
    rig.tick();
    rig.drain(|batch| match batch.patient == reading(Metric::HeartRate, 0, 1, 0).subject_patient() {
        true => Answer::PatientUnknown { detail: "no such patient".into() },
        false => all_accepted(batch),
    });
    assert_eq!(rig.rejected.len(), 100);
    assert!(rig.rejected.iter().all(|reading| reading.sequence.0 % 3 == 1 && reading.reason.kind == DeadLetterKind::Unassigned));
}

/// Promise: what both copies lost is listed as damaged, and delivery goes on.
#[test]
fn damage_is_listed() {
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..21, 2));
    rig.damaged = [3, 4, 20].map(Sequence).into();
    rig.tick();
    rig.drain(all_accepted);
    let damaged: Vec<_> = rig.rejected.iter().map(|reading| (reading.sequence.0, reading.reason.kind)).collect();
    assert_eq!(damaged, [3, 4, 20].map(|sequence| (sequence, DeadLetterKind::Damaged)));
}

/// Promise: the same statement of a source twice in the journal is one item, in one request, settled together.
#[test]
fn one_identity_is_never_in_two_requests() {
    let again = |number: u64, patient| Entry::Reading(reading(Metric::HeartRate, number, patient, 1_000));
    let mut rig = Rig::new(DeliveryPolicy::default(), vec![again(1, 1), again(2, 1), again(1, 1)]);
    rig.tick();
    assert_eq!(rig.batches().iter().map(numbers).collect::<Vec<_>>(), [vec![1, 2]]);
    rig.answer_all(all_accepted);
    assert_eq!(rig.settled.ranges(), [(Sequence(1), Sequence(3))]);
    assert_eq!(rig.delivery.status().held, 0);
}

/// Promise: what corrects the patient is sent too, after the answer to what it corrects: whichever the answer, the
/// corrected patient is the last that the destination hears of.
#[test]
fn another_patient_for_the_same_identity_is_sent_after_the_answer_to_the_first() {
    let rejected = |batch: &Batch| Answer::Items(batch.items.iter().map(|_| ItemAnswer::Rejected { detail: "unknown".into() }).collect());
    let answers: [&dyn Fn(&Batch) -> Answer; 2] = [&all_accepted, &rejected];
    for (answer, metric) in answers.iter().flat_map(|answer| [(answer, Metric::HeartRate), (answer, Metric::SystolicCuff)]) {
        let stated = |patient| reading(metric, 1, patient, 1_000);
        let mut rig = Rig::new(DeliveryPolicy::default(), [1, 2, 2].map(|patient| Entry::Reading(stated(patient))).to_vec());
        rig.tick();
        for (patient, answer) in [(1, *answer), (2, &all_accepted)] {
            while rig.sent.is_empty() {
                assert!(rig.sleep(), "{metric:?}: nothing is sent for patient {patient}");
            }
            let patients: Vec<_> = rig.batches().into_iter().map(|batch| batch.patient).collect();
            assert_eq!(patients, [stated(patient).subject_patient()], "{metric:?}");
            rig.answer_all(answer);
        }
        assert_eq!((rig.settled.ranges(), rig.delivery.status().held), (&[(Sequence(1), Sequence(3))][..], 0));
    }
}

/// Promise: a patient whose requests always fail, or are always forbidden, does not block the others, even when memory is full of it.
#[test]
fn a_failing_patient_blocks_nobody() {
    let forbidden = Answer::Paused { detail: "403: the record is sealed".into() };
    for answer in [transient(), forbidden] {
        let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
        let failing = reading(Metric::HeartRate, 0, 0, 0).subject_patient();
        let mut others = 0;
        for number in 1..=30_000u64 {
            // Nine of ten readings are of the patient that fails.
            let patient = usize::from(number % 10 == 0);
            others += patient;
            rig.pass(20);
            rig.commit([reading(Metric::HeartRate, number, patient, rig.now_ms)]);
            rig.answer_all(|batch| if batch.patient == failing { answer.clone() } else { all_accepted(batch) });
        }
        let delivered = (1..=30_000).filter(|number| number % 10 == 0 && rig.settled.contains(Sequence(*number))).count();
        assert!(delivered + 100 > others, "{answer:?}: {delivered} of {others} readings of the other patient were delivered");
        assert!(rig.rejected.iter().all(|reading| reading.sequence.0 % 10 != 0 && reading.reason.kind == DeadLetterKind::Rejected));
        assert_eq!(rig.delivery.status().alarms.iter().map(|alarm| alarm.kind).collect::<Vec<_>>(), [AlarmKind::PatientFailing]);
        let stops = rig.alarms.iter().filter(|alarm| matches!(alarm.kind, AlarmKind::Paused | AlarmKind::Unreachable)).count();
        assert!(stops < 5, "{answer:?}: everything was stopped {stops} times");
        assert!(rig.alarms.iter().all(|alarm| alarm.kind != AlarmKind::OnlyRejections), "{answer:?}: nobody refused them for good");
        rig.drain(all_accepted);
        assert!(rig.delivery.status().alarms.is_empty(), "{answer:?}: the alarm ends with the cause");
    }
}

/// Promise: a reading that keeps failing while others of its patient are taken says nothing of the patient: when it has to give way it is
/// a dead letter, which is counted, and no alarm stands for ever; that one reading fails is said while it does.
#[test]
fn a_failing_reading_is_no_failing_patient() {
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..300_001, 5));
    rig.tick();
    let breaks = |batch: &Batch| numbers(batch).contains(&111);
    while rig.rejected.is_empty() {
        assert!(rig.delivery.status().unsettled > 1, "it never gave way");
        rig.pass(2_000);
        rig.answer_all(|batch| if breaks(batch) { transient() } else { all_accepted(batch) });
    }
    rig.drain(all_accepted);
    assert_eq!(rig.rejected.iter().map(|reading| reading.sequence.0).collect::<Vec<_>>(), [111]);
    assert!(rig.alarms.iter().all(|alarm| alarm.kind == AlarmKind::ReadingFailing), "{:?}", rig.alarms);
    assert!(rig.delivery.status().alarms.is_empty());
}

/// Promise: readings that stay forbidden while others of their patient are taken stop nobody for long, and are still tried.
#[test]
fn forbidden_readings_stop_nobody() {
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    let forbidden = |batch: &Batch| numbers(batch).iter().any(|number| number % 100 == 0 && *number <= 2_000);
    let mut stops = 0;
    for number in 1..=30_000u64 {
        rig.pass(100);
        rig.commit([reading(Metric::HeartRate, number, number as usize % 2, rig.now_ms)]);
        rig.answer_all(|batch| if forbidden(batch) { Answer::Paused { detail: "403".into() } } else { all_accepted(batch) });
        stops = if number == 6_000 { rig.alarms.len() } else { stops };
    }
    let held_up = (1..29_990).filter(|number| !rig.settled.contains(Sequence(*number))).count();
    assert_eq!((held_up, rig.alarms.len()), (20, stops), "nothing else is held up, and nothing stops after the first minutes");
    rig.drain(all_accepted);
    assert!(rig.rejected.is_empty());
}

/// Promise: a reading that a destination refuses together with all that is beside it, without saying that it is the reading, holds back
/// neither what was beside it nor what comes after it, also where nobody else has anything to send: it is found, and still tried.
#[test]
fn a_reading_that_is_refused_without_a_word_is_isolated() {
    const LONGEST_MS: u64 = 3_600_000;
    let refused = |batch: &Batch| numbers(batch).contains(&37);
    let answer = |batch: &Batch| if refused(batch) { Answer::Paused { detail: "400: no FHIR server".into() } } else { all_accepted(batch) };
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..51, 1));
    rig.tick();
    assert_eq!(numbers(&rig.batches()[0]).len(), 50, "all of them stand together");
    let start = rig.now_ms;
    while rig.delivery.status().unsettled > 1 {
        assert!(rig.now_ms - start < LONGEST_MS, "{} are still held back", rig.delivery.status().unsettled);
        rig.answer_all(answer);
        assert!(!rig.sent.is_empty() || rig.sleep());
    }
    let found = rig.now_ms;
    for number in 51..=1_000u64 {
        rig.commit([reading(Metric::HeartRate, number, 0, rig.now_ms)]);
        rig.answer_all(answer);
        rig.pass(1_000);
        rig.answer_all(answer);
    }
    let waiting = (1..=1_000).filter(|number| !rig.settled.contains(Sequence(*number))).count();
    assert!(waiting <= 60, "{waiting} wait; found after {} ms", found - start);
    assert!(rig.rejected.is_empty(), "nobody said that it is the reading");
    rig.drain(all_accepted);
    assert!(rig.rejected.is_empty() && rig.delivery.status().alarms.is_empty());
}

/// Promise 1: what was moved before a destination came is sent to it from where it stands now. What it answered for itself is not sent
/// again: what moves while it is here has its answer with it.
#[test]
fn what_was_moved_is_sent_to_a_destination_that_never_answered_for_it() {
    let carried = |number| {
        let mut reading = reading(Metric::HeartRate, number, 1, 1_000);
        reading.flags = reading.flags.with(Flags::CARRIED);
        reading
    };
    let mut entries = heart_rates(1..4, 1);
    entries.extend([4, 5].map(|number| Entry::Reading(carried(number))));
    let mut settled = SequenceRanges::new();
    settled.insert(Sequence(5), Sequence(5));
    let mut rig = Rig::restarted(DeliveryPolicy::default(), entries, settled, 10_000);
    rig.tick();
    rig.commit([carried(6)]);
    let mut sent = Vec::new();
    while !rig.sent.is_empty() {
        sent.extend(rig.batches().iter().flat_map(numbers));
        rig.answer_all(all_accepted);
    }
    sent.sort_unstable();
    assert_eq!((sent, rig.delivery.status().unsettled), (vec![1, 2, 3, 4], 0));
}

/// Promise: what a destination says without taking anything is no sign that it takes readings: during its outage nobody's readings
/// become dead letters but those of a patient that it does not know, and the breaker stays open.
#[test]
fn an_unknown_patient_does_not_make_an_outage_look_like_the_fault_of_others() {
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    let unknown = reading(Metric::HeartRate, 0, 0, 0).subject_patient();
    let mut written = 0;
    for number in 1..=36_000u64 {
        rig.pass(100);
        rig.commit([reading(Metric::HeartRate, number, number as usize % 5, rig.now_ms)]);
        written += rig.sent.values().filter(|batch| batch.patient != unknown).count();
        rig.answer_all(|batch| if batch.patient == unknown { Answer::PatientUnknown { detail: "nobody".into() } } else { transient() });
    }
    assert!(!rig.rejected.is_empty());
    assert!(rig.rejected.iter().all(|reading| reading.sequence.0 % 5 == 0 && reading.reason.kind == DeadLetterKind::Unassigned));
    assert!(written < 4_000, "{written} requests in an hour of outage");
    assert_eq!(rig.alarms.iter().map(|alarm| alarm.kind).collect::<Vec<_>>(), [AlarmKind::Unreachable]);
    assert!(rig.cleared.is_empty());
    let held_back = rig.rejected.len();
    rig.drain(all_accepted);
    assert_eq!(rig.rejected.len(), held_back);
    assert!(rig.delivery.status().alarms.is_empty());
}

/// Promise: a destination that refuses bundles as a whole and fails with everything else is away: nothing becomes a dead letter.
#[test]
fn an_outage_behind_whole_refusals_gives_nothing_up() {
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    for number in 1..=20_000u64 {
        rig.pass(100);
        rig.commit([reading(Metric::HeartRate, number, number as usize % 5, rig.now_ms)]);
        rig.answer_all(|batch| match batch.mode {
            BatchMode::Together => Answer::RejectedWhole { detail: "400".into() },
            BatchMode::Separately => transient(),
        });
    }
    assert!(rig.rejected.is_empty(), "{} dead letters", rig.rejected.len());
    rig.drain(all_accepted);
    assert!(rig.rejected.is_empty());
}

/// Promise: one item that makes the server fall over is found and set aside; the others of its patient go on.
#[test]
fn an_item_that_breaks_the_server_is_isolated() {
    let mut rig = Rig::new(DeliveryPolicy::default(), heart_rates(1..401, 2));
    rig.tick();
    let breaks = |batch: &Batch| numbers(batch).contains(&111);
    for _ in 0..400 {
        rig.answer_all(|batch| if breaks(batch) { transient() } else { all_accepted(batch) });
        if rig.sent.is_empty() && !rig.sleep() {
            break;
        }
    }
    assert_eq!(rig.delivery.status().unsettled, 1, "only the one is left");
    assert!(rig.rejected.is_empty(), "and it is still tried");
    rig.drain(all_accepted);
}

/// Promise: the settled set stays small while live and backlog lane advance together.
#[test]
fn the_settled_set_stays_bounded() {
    let mut rig = Rig::new(DeliveryPolicy { requests_in_flight_max: 2, ..DeliveryPolicy::default() }, heart_rates(1..20_001, 50));
    rig.tick();
    let mut most = 0;
    for number in 20_001..60_001u64 {
        rig.commit([reading(Metric::HeartRate, number, number as usize % 50, 10_000)]);
        if number % 8 == 0 {
            rig.answer_all(all_accepted);
        }
        most = most.max(rig.delivery.settled().ranges().len());
    }
    assert!(most <= READ_AHEAD_READINGS_MAX + HOLES_MAX + 1, "{most} ranges");
    rig.drain(all_accepted);
    assert_eq!(rig.delivery.settled().ranges(), [(Sequence(1), Sequence(60_000))]);
    assert!(rig.reads.iter().any(|(lane, ..)| *lane == Lane::Backlog) && rig.reads.iter().any(|(lane, ..)| *lane == Lane::Live));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Promise: whatever is answered, in whatever order, everything is settled in the end, each by an
    /// answer that accepts it or lists it, and nothing is held any more.
    #[test]
    fn everything_is_settled_by_an_answer(
        answers in prop::collection::vec((0u8..9, 0usize..5), 0..200),
        patients in 1usize..6,
        items_max in 1usize..30,
        seed in 0u64..1_000,
    ) {
        let policy = DeliveryPolicy { batch_items_max: items_max, ..DeliveryPolicy::default() };
        let mut rig = Rig::new(policy, heart_rates(1..151, patients));
        rig.tick();
        let mut accepted = std::collections::BTreeSet::new();
        for (kind, which) in answers {
            if rig.sent.is_empty() && !rig.sleep() {
                break;
            }
            let Some(request) = rig.sent.keys().copied().nth(which % rig.sent.len().max(1)) else { continue };
            let batch = rig.sent[&request].clone();
            let detail: std::sync::Arc<str> = "said".into();
            let answer = match kind {
                0 => transient(),
                1 => Answer::TooLarge { detail },
                2 => Answer::RejectedWhole { detail },
                3 => Answer::Paused { detail },
                4 => Answer::Items(Vec::new()),
                5 => Answer::Transient { retry_after_ms: Some(seed), detail },
                _ => {
                    let item = |(index, item): (usize, &vitalgate_domain::Item)| match (index as u64 + seed + u64::from(kind)) % 5 {
                        0 => ItemAnswer::Transient { detail: "again".into() },
                        1 => ItemAnswer::Rejected { detail: "never".into() },
                        _ => {
                            accepted.insert(item.readings[0].0);
                            ItemAnswer::Accepted { remote_id: None }
                        }
                    };
                    Answer::Items(batch.items.iter().enumerate().map(item).collect())
                }
            };
            rig.answer(request, answer);
            let listed: std::collections::BTreeSet<_> = rig.rejected.iter().map(|reading| reading.sequence).collect();
            for sequence in (1..151).map(Sequence) {
                prop_assert_eq!(rig.settled.contains(sequence), accepted.contains(&sequence) || listed.contains(&sequence));
                prop_assert!(!(accepted.contains(&sequence) && listed.contains(&sequence)));
            }
        }
        rig.drain(all_accepted);
        prop_assert_eq!(rig.delivery.status().held, 0);
        prop_assert!(rig.sent.is_empty());
    }
}
