//! What those who ask see of a commit.

use super::letters::LINES_MAX;
use super::*;
use crate::logging::tests::Lines;

/// What the log says meanwhile of dead letters.
fn logged(work: impl FnOnce()) -> Vec<String> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, work);
    lines.text().lines().filter(|line| line.contains("dead letter")).map(str::to_owned).collect()
}

/// Promise 5: each dead letter has a line in the log, with place, origin and kind: never what was measured, said or of whom. Masses
/// of them do not fill it, and are counted.
#[test]
fn a_dead_letter_has_a_line_in_the_log() {
    let folder = folder("free");
    let mut rig = rig(folder.path(), &list_profile("pr"), 0);
    rig.commit.letters.tell_others(u64::MAX / 4);
    let said = logged(|| {
        rig.publish(r#"{"values": [{"name": "pulse", "value": 71.5}]}"#, rig.received(900));
        rig.publish(r#"{"values": [{"name": "hr", "value": 75}]}"#, rig.received(700));
        let reason = DeadLetterReason::new(DeadLetterKind::Rejected, "Doe, Jane has no such value");
        let rejected = vec![RejectedReading { sequence: Sequence(2), id: rig.readings()[0].id, reason }];
        let ranges = vec![(Sequence::FIRST, rig.reader.committed())];
        let change = Change::Settled { destination: DestinationId::new(EHR).unwrap(), ranges, rejected, remote_ids: vec![] };
        rig.commit(|commit, group| commit.obey(Command::Change(change), group));
    });
    let [letter, refused] = said.as_slice() else { panic!("{said:?}") };
    for word in ["WARN", "sequence=1", "device=monitor-01", "UnknownMetric"] {
        assert!(letter.contains(word), "{word}: {letter}");
    }
    for word in ["WARN", "sequence=2", "destination=ehr", "Rejected"] {
        assert!(refused.contains(word), "{word}: {refused}");
    }
    for word in ["71", "75", "Doe", "p1"] {
        assert!(!said.iter().any(|line| line.split_once("vitalgate").unwrap().1.contains(word)), "{word}: {said:?}");
    }

    let masses = 3 * LINES_MAX;
    let said = logged(|| rig.settle(1..=masses));
    assert_eq!(said.len() as u64, LINES_MAX - 2);
    let said = logged(|| rig.commit.letters.tell_others(u64::MAX));
    assert!(said.len() == 1 && said[0].contains(&format!("others={}", masses - LINES_MAX + 2)), "{said:?}");
    assert_eq!(logged(|| rig.settle([2])).len(), 1, "there is room for lines again");
}

/// Promise 5: a message that became a dead letter is known as one when it is acknowledged, not with the next answer of the EHR.
#[test]
fn a_dead_letter_is_told_with_its_acknowledgement() {
    let folder = folder("free");
    let mut rig = rig(folder.path(), &list_profile("pr"), 0);
    assert_eq!(rig.submit(r#"{"values": [{"name": "pulse", "value": 71}]}"#), Receipt::Committed);
    let told = rig.commit.shared.settlement().dead_letters;
    assert!(told.contains(Sequence::FIRST), "{told:?}");
}
