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

/// Promise 1: requests to replay or discard that wait for each other do not add up: what devices sent is acknowledged between them.
#[test]
fn a_commit_takes_one_request_that_resolves() {
    let folder = folder("free");
    let mut rig = rig(folder.path(), &list_profile("pr"), 0);
    let (commands, queue) = mpsc::channel(COMMANDS_MAX);
    rig.commit.commands = queue;
    for resolution in [REPLAY, Resolution::Discard] {
        let mut answers = Vec::new();
        for _ in 0..3 {
            let (asker, answer) = oneshot::channel();
            let request = ResolveRequest { sequences: vec![], among: None, resolution, by: None };
            assert!(commands.try_send(Command::Resolve(request, asker)).is_ok());
            answers.push(answer);
        }
        for answered in 1..=3 {
            rig.commit(CommitLoop::fill);
            let done = answers.iter_mut().filter(|answer| !answer.is_terminated()).filter_map(|answer| answer.try_recv().ok()).count();
            assert_eq!((done, rig.commit.commands.len()), (1, 3 - answered));
        }
    }
}
