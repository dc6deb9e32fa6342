//! A replay, where another destination has taken the reading.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, mpsc as channels};
use std::time::Instant;

use vitalgate_domain::{Answer, Flags, ItemAnswer, SequenceRanges};
use vitalgate_pipeline::{Delivery, DeliveryAction, DeliveryEvent, DeliveryPolicy};
use vitalgate_store::{Keyed, KeyedError};

use super::again::{message, timed_profile};
use super::carry::OpenedAnew;
use super::two::{ARCHIVE, settled, settles, two_with};
use super::*;
use crate::commit::spare;
use crate::replay::IdsGiven;

fn id(destination: &str) -> DestinationId {
    DestinationId::new(destination).unwrap()
}

/// A message of three readings.
fn of_three(folder: &Path) -> Rig {
    let mut rig = two_with(folder, &timed_profile(""));
    let received = rig.received(500);
    let values = r#"{"name": "hr", "value": 70}, {"name": "rr", "value": 14}, {"name": "pulse", "value": 72}"#;
    rig.publish(&message(received.wall, 1, values), received);
    rig
}

/// The archive takes a message of three readings, under an id of its own the second; the EHR refuses it.
fn refused_by_one(folder: &Path) -> Rig {
    let mut rig = of_three(folder);
    let mut taken = settled(&rig, ARCHIVE, DeadLetterKind::Rejected, []);
    if let Change::Settled { remote_ids, .. } = &mut taken {
        remote_ids.push((Sequence(2), "archive-7".into()));
    }
    rig.commit(|commit, group| commit.obey(Command::Change(taken), group));
    settles(&mut rig, EHR, DeadLetterKind::Rejected, 1..=3);
    assert!(rig.keyed.wait_reached(rig.reader.committed_record(), false, PATIENCE));
    rig
}

/// Which of the new places wait for the EHR, and which for the archive.
fn waiting(rig: &Rig) -> [Vec<u64>; 2] {
    let state = rig.commit.journal.state();
    [EHR, ARCHIVE].map(|destination| (4..=6).filter(|place| !state.settled[&id(destination)].contains(Sequence(*place))).collect())
}

/// A delivery that runs, and what it has sent. It goes on with what was committed meanwhile.
struct Running(Delivery, usize);

impl Running {
    fn start(rig: &Rig, destination: &str) -> Self {
        let settled = rig.commit.journal.state().settled[&id(destination)].clone();
        Self(Delivery::new(id(destination), DeliveryPolicy::default(), settled, rig.reader.committed(), 1), 0)
    }

    fn goes_on(&mut self, rig: &Rig) -> usize {
        rig.commit.shared.set_settlement(Settlement::from(&rig.commit.journal));
        let Self(delivery, sent) = self;
        let mut events = vec![DeliveryEvent::Committed(rig.reader.committed())];
        while let Some(event) = events.pop() {
            for action in delivery.handle(event, &rig.received(0)) {
                match action {
                    DeliveryAction::Read { lane, from, until, entries_max } => {
                        let mut outcome = rig.reader.read(from, until, entries_max, usize::MAX).unwrap();
                        spare(&mut outcome.records, &rig.commit.shared, delivery.destination());
                        events.push(DeliveryEvent::Read { lane, records: outcome.records, reached: outcome.reached });
                    }
                    DeliveryAction::Send { request, batch } => {
                        *sent += batch.items.len();
                        let answer = Answer::Items(batch.items.iter().map(|_| ItemAnswer::Accepted { remote_id: None }).collect());
                        events.push(DeliveryEvent::Answered { request, answer });
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(delivery.status().unsettled, 0);
        *sent
    }
}

/// Promise 2: a replay goes to the destination that refused the reading, and to none that has it: what was written there since, by
/// hand too, is not overwritten, and the note that it came late would be false there.
#[test]
fn a_destination_that_took_a_reading_does_not_get_its_replay() {
    let folder = folder("free");
    let mut before = refused_by_one(folder.path());
    let rig = &mut before;
    let mut running = [EHR, ARCHIVE].map(|destination| Running::start(rig, destination));
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(3, 0)]);
    assert_eq!(waiting(rig), [vec![4, 5, 6], vec![]]);
    assert_eq!(running.each_mut().map(|running| running.goes_on(rig)), [3, 0]);
    assert!(rig.keyed.wait_reached(rig.reader.committed_record(), false, PATIENCE));
    let known_as = |place| rig.keyed.remote_id(Sequence(place), &id(ARCHIVE)).unwrap();
    assert_eq!([4, 5, 6].map(known_as), [None, Some("archive-7".into()), None]);
    drop(before);
    let again = super::rig(folder.path(), &list_profile("pr"), 0);
    assert_eq!(waiting(&again), [vec![4, 5, 6], vec![]], "after a restart");
}

/// Promise 3: the right patient is told to every destination, also to those that have the reading for the wrong one.
#[test]
fn a_corrected_patient_goes_to_every_destination() {
    let folder = folder("free");
    let mut rig = refused_by_one(folder.path());
    let (device, patient) = (DeviceId::new(MONITOR).unwrap(), PatientReference::Literal("Patient/p2".into()));
    let from = Some(rig.received(60_000).wall);
    rig.commit.associations = Associations::new([Association { device, patient, from, until: None, confirmed_by: "test".into() }]);
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(3, 0)]);
    assert_eq!(waiting(&rig), [vec![4, 5, 6], vec![4, 5, 6]]);
}

/// Promise 2: no destination is said to have what it may have refused: where its answers are not at hand, where both refused it, and
/// where a file was damaged.
#[test]
fn in_doubt_a_replay_goes_to_every_destination() {
    let folder = folder("free");
    let mut rig = refused_by_one(folder.path());
    rig.commit.told = Box::new(super::carry::Behind);
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(3, 0)]);
    assert_eq!(waiting(&rig), [vec![4, 5, 6], vec![4, 5, 6]]);

    let folder = super::folder("free");
    let mut rig = refused_by_one(folder.path());
    rig.commit.shared.add_damage(["a block".to_owned()]);
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(3, 0)]);
    assert_eq!(waiting(&rig), [vec![4, 5, 6], vec![4, 5, 6]]);

    let folder = super::folder("free");
    let mut rig = of_three(folder.path());
    settles(&mut rig, ARCHIVE, DeadLetterKind::Rejected, 2..=2);
    settles(&mut rig, EHR, DeadLetterKind::Rejected, 1..=3);
    assert!(rig.keyed.wait_reached(rig.reader.committed_record(), false, PATIENCE));
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(3, 0)]);
    assert_eq!(waiting(&rig), [vec![4, 5, 6], vec![5]]);
}

/// Promise 2: a destination whose refusal the keyed store had forgotten when it was asked, as one that was opened anew after a full disk
/// may have, is not said to have the reading.
#[test]
fn nobody_is_spared_by_an_answer_that_lacks_the_last_refusal() {
    let folder = folder("free");
    let mut rig = of_three(folder.path());
    settles(&mut rig, EHR, DeadLetterKind::Rejected, 1..=3);
    settles(&mut rig, ARCHIVE, DeadLetterKind::Rejected, 3..=3);
    assert!(rig.keyed.wait_reached(rig.reader.committed_record(), false, PATIENCE));
    rig.commit.told = Box::new(OpenedAnew { keyed: Arc::clone(&rig.keyed), was_asked: AtomicBool::new(false) });
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(3, 0)]);
    assert_eq!(waiting(&rig), [vec![4, 5, 6], vec![4, 5, 6]]);
}

/// Promise 1: a replay that finds no room settles nothing: other readings come to the places that it would have had.
#[test]
fn a_replay_without_room_settles_nothing() {
    let folder = folder("free");
    drop(refused_by_one(folder.path()));
    let mut full = rig(folder.path(), &list_profile("pr"), u64::MAX / 2);
    // Only a store that was held against its journal answers.
    assert!(full.keyed.wait_reached(full.reader.committed_record(), true, PATIENCE));
    let request = ResolveRequest { sequences: vec![], among: None, resolution: REPLAY, by: None };
    let (asker, mut answer) = oneshot::channel();
    full.commit(|commit, group| {
        commit.obey(Command::Resolve(request, asker), group);
        assert_eq!(group.with_entries.len(), 1, "it would settle");
    });
    assert!(answer.try_recv().unwrap().is_err());
    full.commit.write_kept().unwrap();
    assert_eq!((full.unresolved(), waiting(&full)), (vec![(1, 3)], [vec![4, 5, 6], vec![4, 5, 6]]));
}

/// Promise 4: what came as a message that could not be read says that it came late, as other dead letters do.
#[test]
fn a_message_that_is_replayed_says_so() {
    let folder = folder("free");
    let mut before = rig(folder.path(), &list_profile("pr"), 0);
    before.publish(r#"{"values": [{"name": "pulse", "value": 71}]}"#, before.received(500));
    drop(before);
    let mut rig = super::rig(folder.path(), &list_profile("pulse"), 0);
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(1, 0)]);
    assert!(rig.readings()[0].flags.contains(Flags::REPLAYED));
}

/// Knows who refused what, and takes all the time that it is given before it cannot say an id.
struct SlowIds {
    keyed: Arc<Keyed>,
    /// Of this at most.
    waits: Duration,
    given: Arc<Mutex<Vec<Duration>>>,
}

impl Told for SlowIds {
    fn reaches(&self, ordinal: Ordinal) -> bool {
        self.keyed.reaches(ordinal)
    }

    fn refusals(&self, of: &SequenceRanges, max: usize, _: Duration) -> Result<Vec<(DestinationId, RejectedReading)>, KeyedError> {
        Told::refusals(&self.keyed, of, max, PATIENCE)
    }

    fn ids_given(&self, _: &SequenceRanges, _: &DestinationId, within: Duration) -> Result<IdsGiven, KeyedError> {
        self.given.lock().unwrap().push(within);
        let (_nobody, answer) = channels::channel::<()>();
        assert!(answer.recv_timeout(within.min(self.waits)).is_err());
        Err(KeyedError::Unavailable("it takes too long".into()))
    }
}

/// Promise 2: the ids under which a destination has its readings only help to trace them: where they cannot be told, it is spared all the same.
#[test]
fn a_destination_whose_ids_are_not_at_hand_is_spared_all_the_same() {
    let folder = folder("free");
    let mut rig = refused_by_one(folder.path());
    rig.commit.told = Box::new(SlowIds { keyed: Arc::clone(&rig.keyed), waits: Duration::ZERO, given: Arc::default() });
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(3, 0)]);
    assert_eq!(waiting(&rig), [vec![4, 5, 6], vec![]]);
}

/// Promise 1: devices wait for their acknowledgements while a replay asks who has what: all that it asks has one time, however many
/// destinations there are and however slow each answer is.
#[test]
fn all_that_a_replay_asks_has_one_time() {
    const TIME: Duration = Duration::from_millis(500);
    let folder = folder("free");
    let mut rig = of_three(folder.path());
    settles(&mut rig, ARCHIVE, DeadLetterKind::Rejected, 2..=2);
    settles(&mut rig, EHR, DeadLetterKind::Rejected, [1, 3]);
    assert!(rig.keyed.wait_reached(rig.reader.committed_record(), false, PATIENCE));
    let given = Arc::new(Mutex::new(Vec::new()));
    rig.commit.told = Box::new(SlowIds { keyed: Arc::clone(&rig.keyed), waits: TIME, given: Arc::clone(&given) });
    let mut of = SequenceRanges::new();
    of.insert(Sequence(1), Sequence(3));
    let places = (1..=3).map(|place| (Sequence(place), Sequence(place + 3))).collect();
    let changes = rig.commit.told_of(&of, &places, Instant::now() + TIME).unwrap();
    assert_eq!(changes.len(), 2, "both are spared");
    let given = given.lock().unwrap();
    assert_eq!(given.len(), 2, "each was asked");
    assert!(given.iter().sum::<Duration>() <= TIME, "{given:?}");
}
