//! Two destinations, one of which comes late.

use super::*;

pub(super) const ARCHIVE: &str = "archive";

fn two(folder: &Path) -> Rig {
    two_with(folder, &list_profile("pr"))
}

pub(super) fn two_with(folder: &Path, profile: &str) -> Rig {
    let mut rig = rig(folder, profile, 0);
    let present = [EHR, ARCHIVE].map(|id| DestinationId::new(id).unwrap()).to_vec();
    rig.commit(|_, group| group.changes.push(Change::Destinations { present, from: Sequence::FIRST }));
    rig
}

fn without_patient(rig: &mut Rig) {
    rig.commit.associations = Associations::new([]);
}

/// A destination answers for all that is there, and holds or refuses these.
pub(super) fn settles(rig: &mut Rig, destination: &str, kind: DeadLetterKind, rejected: impl IntoIterator<Item = u64>) {
    let change = settled(rig, destination, kind, rejected);
    rig.commit(|commit, group| commit.obey(Command::Change(change), group));
}

pub(super) fn settled(rig: &Rig, destination: &str, kind: DeadLetterKind, rejected: impl IntoIterator<Item = u64>) -> Change {
    let reason = DeadLetterReason::new(kind, "test");
    let rejected = rejected.into_iter().map(|sequence| RejectedReading {
        sequence: Sequence(sequence),
        id: vitalgate_domain::ReadingId::from_bytes([0; 16]),
        reason: reason.clone(),
    });
    let ranges = vec![(Sequence::FIRST, rig.reader.committed())];
    Change::Settled { destination: DestinationId::new(destination).unwrap(), ranges, rejected: rejected.collect(), remote_ids: vec![] }
}

/// Promise 4: a list of dead letters names what waits for somebody: what was replayed stays resolved when a destination comes to it
/// that was behind, and after a restart. Why that one holds it stays known.
#[test]
fn what_was_replayed_is_no_dead_letter_of_the_next_destination() {
    for comes_with_it in [false, true] {
        let folder = folder("free");
        let mut before = two(folder.path());
        without_patient(&mut before);
        before.publish(SAMPLE, before.received(500));
        settles(&mut before, EHR, DeadLetterKind::Unassigned, 1..=3);
        assert_eq!(before.unresolved(), [(1, 3)]);
        drop(before);

        let mut rig = super::rig(folder.path(), &list_profile("pr"), 0);
        let late = settled(&rig, ARCHIVE, DeadLetterKind::Unassigned, 1..=3);
        let request = ResolveRequest { sequences: vec![], among: None, resolution: REPLAY, by: None };
        let (asker, mut answer) = oneshot::channel();
        rig.commit(|commit, group| {
            commit.obey(Command::Resolve(request, asker), group);
            if comes_with_it {
                commit.obey(Command::Change(late.clone()), group);
            }
        });
        assert_eq!(answer.try_recv().unwrap().unwrap().resolved, 3);
        if !comes_with_it {
            rig.commit(|commit, group| commit.obey(Command::Change(late), group));
        }
        assert_eq!((rig.unresolved(), rig.said().len()), (vec![], 6));
        let reached = rig.reader.committed_record();
        assert!(rig.keyed.wait_reached(reached, false, PATIENCE));
        let holders: BTreeSet<_> = vitalgate_store::Keyed::rejected(&rig.keyed, Sequence(1), Sequence(3), 100)
            .unwrap()
            .into_iter()
            .map(|(destination, _)| destination)
            .collect();
        assert_eq!(holders, [EHR, ARCHIVE].map(|id| DestinationId::new(id).unwrap()).into());
        let state = rig.commit.journal.state().clone();
        drop(rig);
        let again = super::rig(folder.path(), &list_profile("pr"), 0);
        assert_eq!((again.unresolved(), &again.commit.journal.state().settled), (vec![], &state.settled));
    }
}

/// Promise 4: the same for readings that waited for the clock.
#[test]
fn what_got_its_moment_is_no_dead_letter_of_the_next_destination() {
    let folder = folder("unset");
    let mut rig = two(folder.path());
    rig.publish(SAMPLE, rig.received(60_000));
    settles(&mut rig, EHR, DeadLetterKind::TimeUnknown, 1..=3);
    trusting(folder.path(), "free");
    assert_eq!((dated(&mut rig), rig.unresolved()), (3, vec![]));
    settles(&mut rig, ARCHIVE, DeadLetterKind::TimeUnknown, 1..=3);
    assert_eq!((dated(&mut rig), rig.unresolved()), (3, vec![]));
}

/// Promise 4: what only the late destination cannot take is a dead letter, whatever the other one took.
#[test]
fn what_the_next_destination_alone_refuses_is_a_dead_letter() {
    for kind in [DeadLetterKind::Rejected, DeadLetterKind::Unassigned] {
        let folder = folder("free");
        let mut rig = two(folder.path());
        rig.publish(SAMPLE, rig.received(500));
        settles(&mut rig, EHR, kind, []);
        settles(&mut rig, ARCHIVE, kind, 2..=3);
        assert_eq!(rig.unresolved(), [(2, 3)]);
    }
    let folder = folder("free");
    let mut rig = two(folder.path());
    without_patient(&mut rig);
    rig.publish(SAMPLE, rig.received(500));
    settles(&mut rig, ARCHIVE, DeadLetterKind::Unassigned, 1..=3);
    settles(&mut rig, EHR, DeadLetterKind::Unassigned, 1..=3);
    assert_eq!(rig.unresolved(), [(1, 3)], "nobody resolved it");
}

/// Promise 4: readings that waited for the clock go on to the destination that answers, however many they are and however long another
/// one, which may be gone, does not.
#[test]
fn readings_without_a_moment_do_not_wait_for_a_destination_that_never_answers() {
    let folder = folder("unset");
    let mut before = two(folder.path());
    let all = undated_beyond_the_list(&mut before);
    trusting(folder.path(), "free");
    let date = |rig: &mut Rig| {
        rig.commit.clock.refresh_trust();
        rig.commit(|commit, group| commit.date_undated(group));
    };
    while before.unresolved().first().is_some_and(|(first, _)| *first < crate::undated::REMEMBERED_MAX as u64) {
        let left = before.unresolved();
        date(&mut before);
        assert_ne!(before.unresolved(), left, "none of them got its moment");
    }
    drop(before);
    let mut rig = rig(folder.path(), &list_profile("pr"), 0);
    for _ in 0..=all.div_ceil(900) {
        date(&mut rig);
    }
    assert_eq!(rig.unresolved(), []);
}
