//! What stands in the way of a delivery for long is shown, and gives way where it is to blame itself.

mod rig;

use std::cell::RefCell;

use rig::{Rig, SubjectPatient as _, all_accepted, heart_rates, reading, timed, transient};
use vitalgate_domain::{Answer, Batch, DeadLetterKind, ItemAnswer, Metric, PatientReference, Sequence};
use vitalgate_pipeline::delivery::{ITEM_FAILING_MAX_MS, PATIENTS_UNKNOWN_IN_A_ROW, PATIENTS_UNKNOWN_MS, PROBE_WAIT_MAX_MS};
use vitalgate_pipeline::{AlarmKind, DeliveryPolicy};

const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// The reading that is never taken.
const POISON: Sequence = Sequence(5);

fn is_poisonous(batch: &Batch) -> bool {
    batch.items.iter().flat_map(|item| &item.readings).any(|(sequence, _)| *sequence == POISON)
}

fn standing(rig: &Rig) -> Vec<AlarmKind> {
    rig.delivery.status().alarms.iter().map(|alarm| alarm.kind).collect()
}

/// A reading every 20 seconds, of five patients in turn.
fn go_on(rig: &mut Rig, for_ms: u64, answer: &dyn Fn(&Batch) -> Answer) {
    let until = rig.now_ms + for_ms;
    while rig.now_ms < until {
        rig.pass(20 * SECOND_MS);
        let number = rig.entries.len() as u64 + 1;
        rig.commit([reading(Metric::HeartRate, number, number as usize % 5, rig.now_ms)]);
        rig.answer_all(answer);
    }
}

/// Promise: one reading that is never taken while others are does not hold the journal for ever: it is shown, and after a day of failures
/// of its own it is a dead letter with the answer that it got, and nothing stands in the way any more.
#[test]
fn a_reading_that_is_never_taken_is_shown_and_gives_way() {
    let without_a_word = Answer::Paused { detail: "400 without a word".into() };
    for never in [transient(), without_a_word] {
        let answer = |batch: &Batch| if is_poisonous(batch) { never.clone() } else { all_accepted(batch) };
        let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
        let begun = rig.now_ms;
        go_on(&mut rig, HOUR_MS, &answer);
        assert!(standing(&rig).contains(&AlarmKind::ReadingFailing), "{never:?}: it is shown");
        assert!(rig.alarms.iter().any(|alarm| alarm.detail.contains("one reading is not taken while others are")));
        while rig.rejected.is_empty() {
            assert!(rig.now_ms - begun < 2 * DAY_MS, "{never:?}: it is still tried");
            go_on(&mut rig, HOUR_MS, &answer);
        }
        assert!(rig.now_ms - begun >= ITEM_FAILING_MAX_MS, "{never:?}: it is tried for a day");
        let given_up: Vec<_> = rig.rejected.iter().map(|reading| (reading.sequence, reading.reason.kind)).collect();
        assert_eq!(given_up, [(POISON, DeadLetterKind::Rejected)]);
        assert!(["503", "400 without a word"].contains(&rig.rejected[0].reason.detail.as_ref()));
        assert_eq!((standing(&rig), rig.delivery.status().held), (vec![], 0));
    }
}

/// Promise: an outage of the destination as a whole makes no dead letter, however long it is: not of what failed before it, and not where
/// it takes a little now and then.
#[test]
fn an_outage_of_two_days_gives_nothing_up() {
    let alone = |batch: &Batch| if is_poisonous(batch) { transient() } else { all_accepted(batch) };
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    go_on(&mut rig, 12 * HOUR_MS, &alone);
    for takes_every_ms in [u64::MAX, HOUR_MS] {
        let begun = rig.now_ms;
        let mut takes_at = begun.saturating_add(takes_every_ms);
        while rig.now_ms - begun < 2 * DAY_MS {
            rig.pass(PROBE_WAIT_MAX_MS);
            let number = rig.entries.len() as u64 + 1;
            if number.is_multiple_of(20) || number < 5 {
                rig.commit([reading(Metric::HeartRate, number, number as usize % 5, rig.now_ms)]);
            }
            if rig.now_ms >= takes_at && rig.sent.values().any(|batch| !is_poisonous(batch)) {
                takes_at = rig.now_ms + takes_every_ms;
                rig.answer_all(alone);
            }
            rig.answer_all(|_| transient());
        }
        assert!(rig.rejected.is_empty(), "{} dead letters", rig.rejected.len());
        go_on(&mut rig, HOUR_MS, &alone);
        assert!(rig.rejected.is_empty(), "{} dead letters", rig.rejected.len());
    }
    rig.drain(all_accepted);
    assert!(rig.rejected.is_empty() && standing(&rig).is_empty());
}

fn unknown(_: &Batch) -> Answer {
    Answer::PatientUnknown { detail: "nobody".into() }
}

/// Promise: where a destination knows nobody any more it is not the patients: that is shown, their readings wait, few searches are made,
/// and when it knows them again everything is delivered without a person.
#[test]
fn a_destination_that_knows_nobody_is_shown_and_gets_everything_later() {
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    let begun = rig.now_ms;
    while rig.now_ms - begun < 2 * HOUR_MS {
        rig.pass(SECOND_MS);
        let number = rig.entries.len() as u64 + 1;
        rig.commit([reading(Metric::HeartRate, number, number as usize % 3, rig.now_ms)]);
        rig.answer_all(unknown);
    }
    assert_eq!(standing(&rig), [AlarmKind::PatientsUnknown]);
    assert_eq!((rig.alarms.len(), rig.cleared.len()), (1, 0), "said once");
    let given_up = rig.rejected.len();
    assert!(given_up < PATIENTS_UNKNOWN_IN_A_ROW, "{given_up} dead letters");
    assert!(rig.requests < 1_200, "{} searches in two hours, of three patients", rig.requests);
    rig.drain(all_accepted);
    assert_eq!((rig.rejected.len(), standing(&rig)), (given_up, vec![]));
}

/// Promise: the one patient of a gateway whom the destination does not know has the readings as dead letters, and that is shown too.
#[test]
fn the_only_patient_that_is_unknown_is_shown() {
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    for number in 1..=100 {
        rig.pass(SECOND_MS);
        rig.commit([reading(Metric::HeartRate, number, 1, rig.now_ms)]);
        rig.answer_all(unknown);
        assert_eq!(standing(&rig).is_empty(), number * SECOND_MS <= PATIENTS_UNKNOWN_MS, "after {number} seconds");
    }
    assert_eq!((standing(&rig), rig.rejected.len()), (vec![AlarmKind::PatientsUnknown], 100));
    rig.commit([reading(Metric::HeartRate, 101, 2, rig.now_ms)]);
    rig.answer_all(all_accepted);
    assert!(standing(&rig).is_empty());
}

/// Promise: patients that a destination does not know hold only their own, also several of them: who is known waits for nobody.
#[test]
fn several_unknown_patients_hold_only_their_own() {
    let known = reading(Metric::HeartRate, 0, 0, 0).subject_patient();
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    for number in 1..=6_000u64 {
        rig.pass(SECOND_MS);
        let patient = if number % 10 == 0 { 0 } else { 1 + number as usize % 3 };
        rig.commit([reading(Metric::HeartRate, number, patient, rig.now_ms)]);
        rig.answer_all(|batch| if batch.patient == known { all_accepted(batch) } else { unknown(batch) });
        assert!(patient > 0 || rig.settled.contains(Sequence(number)), "reading {number} waited for the unknown");
    }
    assert!(rig.delivery.status().unsettled < 100, "{} of the unknown wait", rig.delivery.status().unsettled);
    assert!(rig.rejected.iter().all(|reading| reading.reason.kind == DeadLetterKind::Unassigned && reading.sequence.0 % 10 != 0));
    assert_eq!(rig.alarms, []);
}

/// A journal with a backlog of 4,000, the 3,000th stated for patient 1 and again, live, for patient 2. Whom the identity went to, in
/// order; `holds` says how many answers the second waits for its own, which is `ends`.
fn sent_for(holds: usize, ends: &dyn Fn(&Batch) -> Answer) -> (Vec<PatientReference>, Rig) {
    const ONCE: u64 = 3_000;
    const MADE_MS: i64 = 5_000;
    let once = |patient, arrived_ms| timed(Metric::HeartRate, ONCE, patient, arrived_ms, MADE_MS);
    let mut entries = heart_rates(1..4_001, 1);
    entries[ONCE as usize - 1] = vitalgate_domain::Entry::Reading(once(1, 6_000));
    let mut rig = Rig::restarted(DeliveryPolicy::default(), entries, vitalgate_domain::SequenceRanges::new(), 9_000_000);
    rig.tick();
    let again = once(2, rig.now_ms);
    let id = again.id;
    rig.commit([again]);
    let stated = RefCell::new(Vec::new());
    let answer = |batch: &Batch| {
        if batch.items.iter().any(|item| item.id == id) {
            stated.borrow_mut().push(batch.patient.clone());
            return ends(batch);
        }
        all_accepted(batch)
    };
    for _ in 0..holds {
        let others: Vec<_> = rig.sent.iter().filter(|(_, batch)| batch.items.iter().all(|item| item.id != id)).map(|(&id, _)| id).collect();
        for request in others {
            let batch = rig.sent[&request].clone();
            rig.answer(request, answer(&batch));
        }
    }
    rig.drain(answer);
    (stated.into_inner(), rig)
}

/// Promise: where a device sends its memory again after its patient was corrected, and what it sent before still waits behind an outage,
/// the corrected patient is the last that the destination hears of: whether what was stated first is read before the answer or after it.
#[test]
fn what_was_stated_first_never_comes_last() {
    let corrected = reading(Metric::HeartRate, 0, 2, 0).subject_patient();
    for holds in [0, 1, 30, 60, 90] {
        let (sent, rig) = sent_for(holds, &all_accepted);
        assert_eq!(sent, std::slice::from_ref(&corrected), "held for {holds} answers");
        assert_eq!((rig.delivery.status().held, rig.rejected.len()), (0, 0));
    }
}

/// Promise: what was stated first is not said to be delivered where what was stated last is refused: nothing of it reached the destination,
/// so both are dead letters, and what was stated first is not sent after all.
#[test]
fn what_was_stated_first_shares_the_refusal_of_the_last() {
    let corrected = reading(Metric::HeartRate, 0, 2, 0).subject_patient();
    let refused = |batch: &Batch| Answer::Items(batch.items.iter().map(|_| ItemAnswer::Rejected { detail: "422".into() }).collect());
    let ends: [&dyn Fn(&Batch) -> Answer; 2] = [&unknown, &refused];
    let ends = ends.into_iter().zip([DeadLetterKind::Unassigned, DeadLetterKind::Rejected]);
    for ((ends, kind), holds) in ends.flat_map(|end| [0, 1, 30, 60, 90].map(|holds| (end, holds))) {
        let (sent, rig) = sent_for(holds, ends);
        assert_eq!(sent, std::slice::from_ref(&corrected), "{kind:?}, held for {holds} answers");
        let mut rejected: Vec<_> = rig.rejected.iter().map(|reading| (reading.sequence.0, reading.reason.kind)).collect();
        rejected.sort_unstable_by_key(|(sequence, _)| *sequence);
        assert_eq!(rejected, [(3_000, kind), (4_001, kind)], "held for {holds} answers");
        assert_eq!(rig.delivery.status().held, 0);
    }
}

/// Promise: of three statements the last counts, also where it names the first patient again.
#[test]
fn the_last_statement_counts() {
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    let stated = |patient| reading(Metric::HeartRate, 1, patient, 1_000);
    rig.commit([1, 2, 1].map(stated));
    let sent = RefCell::new(Vec::new());
    rig.drain(|batch| {
        sent.borrow_mut().push(batch.patient.clone());
        all_accepted(batch)
    });
    assert_eq!(sent.borrow().last(), Some(&stated(1).subject_patient()));
    assert_eq!(rig.delivery.status().held, 0);
}
