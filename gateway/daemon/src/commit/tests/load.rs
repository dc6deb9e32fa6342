//! More at once than one commit takes.

use super::*;

/// Promise 2: a stretch of the journal that only holds what is held back is settled faster than it is written; the process
/// does not end of it.
#[test]
fn what_is_held_back_in_masses_is_settled_in_parts() {
    let folder = folder("free");
    let mut rig = rig(folder.path(), &list_profile("pr"), 0);
    let (commands, queue) = mpsc::channel(COMMANDS_MAX);
    rig.commit.commands = queue;
    let reason = DeadLetterReason::new(DeadLetterKind::Unassigned, &"x".repeat(200));
    let (changes, of_each) = (80, 1_024);
    for change in 0..changes {
        let first = change * of_each + 1;
        let rejected = (first..first + of_each).map(|sequence| RejectedReading {
            sequence: Sequence(sequence),
            id: vitalgate_domain::ReadingId::from_bytes(u128::from(sequence).to_be_bytes()),
            reason: reason.clone(),
        });
        let ranges = vec![(Sequence(first), Sequence(first + of_each - 1))];
        let destination = DestinationId::new(EHR).unwrap();
        let change = Change::Settled { destination, ranges, rejected: rejected.collect(), remote_ids: vec![] };
        assert!(commands.try_send(Command::Change(change)).is_ok());
    }
    let mut commits = 0;
    while !rig.commit.commands.is_empty() {
        rig.commit(CommitLoop::fill);
        commits += 1;
    }
    assert!(commits > 1, "it was not too much at once");
    assert_eq!(rig.unresolved(), [(1, changes * of_each)]);
}
