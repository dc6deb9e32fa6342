//! Dead letters that are older than everything else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use vitalgate_console::{DeliveryState, ReadModel as _, Trace, TraceQuery};
use vitalgate_domain::{Answer, Flags, ItemAnswer, ReadingId, SequenceRanges, Subject};
use vitalgate_pipeline::{Delivery, DeliveryAction, DeliveryEvent, DeliveryPolicy};
use vitalgate_store::{Keyed, KeyedError};

use super::*;
use crate::growth::Growth;
use crate::read_model::Model;
use crate::replay::IdsGiven;

/// Small segments whose time is over as soon as every destination has them.
fn small(folder: &Path) -> StoreOptions {
    StoreOptions {
        segment_bytes: vitalgate_store::SEGMENT_BYTES_MIN,
        retention_ms: 0,
        free_space_floor_bytes: 0,
        ..StoreOptions::new(folder.join("store"))
    }
}

/// A letter alone, a message of which one value could not be read, and a reading.
fn come_in(rig: &mut Rig) {
    rig.publish(r#"{"values": [{"name": "pulse", "value": 71}]}"#, rig.received(900));
    let values = r#"{"name": "hr", "value": 70}, {"name": "pulse", "value": 72}, {"name": "rr", "value": 14}"#;
    rig.publish(&format!(r#"{{"values": [{values}]}}"#), rig.received(800));
    rig.publish(r#"{"values": [{"name": "hr", "value": 75}]}"#, rig.received(700));
    assert_eq!(rig.unresolved(), [(1, 1), (4, 4)]);
}

/// The EHR refuses the reading that came alone.
fn set_aside(rig: &mut Rig) {
    come_in(rig);
    let id = rig.readings().last().unwrap().id;
    refuse(rig, 5, id);
    assert_eq!(rig.unresolved(), [(1, 1), (4, 5)]);
}

fn refuse(rig: &mut Rig, sequence: u64, id: ReadingId) {
    answer(rig, EHR, &[(sequence, id)], &[]);
}

/// A destination takes everything but these, some under ids of its own.
fn answer(rig: &mut Rig, destination: &str, refused: &[(u64, ReadingId)], given: &[(u64, &str)]) {
    let reason = DeadLetterReason::new(DeadLetterKind::Rejected, "the EHR's own words");
    let rejected =
        refused.iter().map(|(sequence, id)| RejectedReading { sequence: Sequence(*sequence), id: *id, reason: reason.clone() }).collect();
    let remote_ids = given.iter().map(|(sequence, id)| (Sequence(*sequence), (*id).into())).collect();
    let ranges = vec![(Sequence::FIRST, rig.reader.committed())];
    let change = Change::Settled { destination: DestinationId::new(destination).unwrap(), ranges, rejected, remote_ids };
    rig.commit(|_, group| group.changes.push(change));
}

fn configure(rig: &mut Rig, destinations: &[&str]) {
    let present = destinations.iter().map(|destination| DestinationId::new(destination).unwrap()).collect();
    let change = Change::Destinations { present, from: rig.reader.oldest() };
    rig.commit(|_, group| group.changes.push(change));
}

fn follow(rig: &Rig, checkpointed: bool) {
    let reached = rig.reader.committed_record();
    assert!(rig.keyed.wait_reached(reached, checkpointed, PATIENCE), "the keyed store: {:?}", rig.keyed.status());
}

/// Who refused the entry at a place, and with which words.
fn refusals_of(rig: &Rig, place: u64) -> Vec<(String, String)> {
    follow(rig, false);
    let told = rig.keyed.rejected(Sequence(place), Sequence(place), 100).unwrap();
    told.iter().map(|(destination, rejected)| (destination.to_string(), rejected.reason.detail.to_string())).collect()
}

/// Stores so much after it that its segment is not the last, and has it taken.
fn go_on(rig: &mut Rig) {
    let from = rig.reader.committed().0;
    for number in 0..1_500 {
        let received = Received { monotonic_ms: 1_000_000 + from + number, ..rig.received(0) };
        rig.publish(r#"{"values": [{"name": "hr", "value": 80}]}"#, received);
    }
    let destinations: Vec<_> = rig.commit.journal.state().settled.keys().map(ToString::to_string).collect();
    destinations.iter().for_each(|destination| answer(rig, destination, &[], &[]));
    follow(rig, true);
}

fn upkeep(rig: &mut Rig) {
    rig.commit.carry_at_ms = 0;
    rig.commit.upkeep(&mut Group::default()).unwrap();
    rig.commit.upkeep(&mut Group::default()).unwrap();
}

/// What was delivered goes when its time is over, whatever an old dead letter waits for (promise 1: a disk that is full takes
/// nothing). The dead letters stay what they were: reason, message and identity (promises 2 and 4).
#[test]
fn an_old_dead_letter_does_not_keep_what_came_after_it() {
    let folder = folder("free");
    let mut rig = rig_with(folder.path(), &list_profile("pr"), small(folder.path()));
    set_aside(&mut rig);
    let refused = rig.readings().last().unwrap().clone();
    for _ in 0..3 {
        let before = rig.reader.oldest();
        go_on(&mut rig);
        upkeep(&mut rig);
        assert!(rig.reader.oldest() > before.plus(500), "{} is still there, after {before}", rig.reader.oldest());
        assert_eq!(rig.unresolved().iter().map(|(first, last)| last - first + 1).sum::<u64>(), 3);
    }
    let places = rig.unresolved();
    let (from, until) = (Sequence(places[0].0), Sequence(places.last().unwrap().1));
    let reached = rig.reader.committed_record();
    assert!(rig.keyed.wait_reached(reached, false, Duration::from_secs(60)));
    let reasons = rig.keyed.rejected(from, until, 10).unwrap();
    assert_eq!(
        reasons.iter().map(|(_, rejected)| (rejected.id, &*rejected.reason.detail)).collect::<Vec<_>>(),
        [(refused.id, "the EHR's own words")]
    );
    drop(rig);

    // The mended profile reads the letters; the good values of the message do not come again, and the refused one has its identity.
    let mut rig = rig_with(folder.path(), &list_profile("pulse"), small(folder.path()));
    let last = rig.reader.committed();
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(3, 0)]);
    let records = rig.reader.read(last.next(), rig.reader.committed(), 100, usize::MAX).unwrap().records;
    let again: Vec<Reading> =
        records.into_iter().filter_map(|record| if let Entry::Reading(reading) = record.entry { Some(reading) } else { None }).collect();
    let said: Vec<_> = again.iter().map(|reading| (reading.metric.key(), reading.flags.contains(Flags::CARRIED))).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(said.iter().filter(|(metric, carried)| *metric == "pulse_rate_spo2" && !carried).count(), 2, "{said:?}");
    assert!(again.iter().any(|reading| reading.id == refused.id && reading.value == refused.value));
}

/// A copy that lags behind what was committed.
pub(super) struct Behind;

impl Told for Behind {
    fn reaches(&self, _: vitalgate_store::Ordinal) -> bool {
        false
    }
    fn refusals(
        &self,
        _: &SequenceRanges,
        _: usize,
        _: Duration,
    ) -> Result<Vec<(DestinationId, RejectedReading)>, vitalgate_store::KeyedError> {
        Ok(Vec::new())
    }
    fn ids_given(&self, _: &SequenceRanges, _: &DestinationId, _: Duration) -> Result<IdsGiven, vitalgate_store::KeyedError> {
        Ok(BTreeMap::new())
    }
}

/// A copy that is opened anew while it is asked, as after a full disk: the last that it was told is missing in its answer.
pub(super) struct OpenedAnew {
    pub(super) keyed: Arc<Keyed>,
    pub(super) was_asked: AtomicBool,
}

impl Told for OpenedAnew {
    fn reaches(&self, ordinal: vitalgate_store::Ordinal) -> bool {
        !self.was_asked.load(Ordering::SeqCst) && self.keyed.reaches(ordinal)
    }
    fn refusals(&self, of: &SequenceRanges, max: usize, within: Duration) -> Result<Vec<(DestinationId, RejectedReading)>, KeyedError> {
        self.was_asked.store(true, Ordering::SeqCst);
        let mut told = Told::refusals(&self.keyed, of, max, within)?;
        told.pop();
        Ok(told)
    }
    fn ids_given(&self, of: &SequenceRanges, destination: &DestinationId, within: Duration) -> Result<IdsGiven, KeyedError> {
        Told::ids_given(&self.keyed, of, destination, within)
    }
}

/// Promise 4: a dead letter is not moved before its reason is at hand.
#[test]
fn a_dead_letter_waits_for_its_reason() {
    let folder = folder("free");
    let mut rig = rig_with(folder.path(), &list_profile("pr"), small(folder.path()));
    set_aside(&mut rig);
    go_on(&mut rig);
    let keyed = std::mem::replace(&mut rig.commit.told, Box::new(Behind));
    upkeep(&mut rig);
    assert_eq!(rig.unresolved(), [(1, 1), (4, 5)], "moved without their reasons");
    rig.commit.told = Box::new(OpenedAnew { keyed: Arc::clone(&rig.keyed), was_asked: AtomicBool::new(false) });
    upkeep(&mut rig);
    assert_eq!(rig.unresolved(), [(1, 1), (4, 5)], "moved without a reason that was gone when it was asked for");
    rig.commit.told = keyed;
    upkeep(&mut rig);
    assert!(rig.unresolved()[0].0 > 5, "{:?}", rig.unresolved());
}

/// A segment that is full of dead letters is not made smaller by moving them: it stays, and nothing of it is lost.
#[test]
fn too_many_dead_letters_stay_where_they_are() {
    let folder = folder("free");
    let options = || StoreOptions { segment_bytes: 4 << 20, ..small(folder.path()) };
    let mut rig = rig_with(folder.path(), &list_profile("pr"), options());
    for number in 0..1_100 {
        let received = Received { monotonic_ms: number, ..rig.received(0) };
        rig.publish(r#"{"values": [{"name": "pulse", "value": 71}]}"#, received);
    }
    assert!(planned(&rig, 1_100).is_err());
    let some = planned(&rig, 500).unwrap();
    assert_eq!((some.entries.len(), some.changes.len()), (500, 2));
}

fn planned(rig: &Rig, last: u64) -> anyhow::Result<crate::replay::Carried> {
    follow(rig, false);
    let (commit, next) = (&rig.commit, rig.commit.journal.next_sequence());
    commit.replay.carry((Sequence::FIRST, Sequence(last)), commit.journal.state(), next, &*commit.told, &rig.received(0))
}

/// A rig with so many readings.
fn with_readings(folder: &Path, count: usize) -> (Rig, ReadingId) {
    let mut rig = rig_with(folder, &list_profile("pr"), StoreOptions { segment_bytes: 4 << 20, ..small(folder) });
    rig.publish(r#"{"values": [{"name": "hr", "value": 75}]}"#, rig.received(700));
    let reading = rig.readings().remove(0);
    let entries = std::iter::repeat_n(Entry::Reading(reading.clone()), count - 1);
    rig.commit(|_, group| group.entries.extend(entries));
    (rig, reading.id)
}

/// What a plan says that destinations refused, with the words.
fn refused_in(carried: &crate::replay::Carried) -> Vec<(String, usize, BTreeSet<String>)> {
    let settled = carried.changes.iter().filter_map(|change| match change {
        Change::Settled { destination, rejected, .. } => Some((destination.to_string(), rejected)),
        _ => None,
    });
    let words = |rejected: &[RejectedReading]| rejected.iter().map(|rejected| rejected.reason.detail.to_string()).collect();
    settled.map(|(destination, rejected)| (destination, rejected.len(), words(rejected))).collect()
}

const WORDS: &str = "the EHR's own words";

/// Promise 1: however many were resolved between two dead letters, and however many destinations refused them, they move with every
/// reason.
#[test]
fn only_what_is_unresolved_counts() {
    let folder = folder("free");
    let (mut rig, id) = with_readings(folder.path(), 1_102);
    answer(&mut rig, EHR, &(1..=1_102).map(|place| (place, id)).collect::<Vec<_>>(), &[]);
    let sequences = (2..=1_101).map(Sequence).collect();
    rig.commit(|_, group| group.changes.push(Change::DeadLettersResolved { sequences, note: "replayed".into() }));
    let two = planned(&rig, 1_102).unwrap();
    assert_eq!((two.entries.len(), refused_in(&two)), (2, vec![(EHR.to_owned(), 2, [WORDS.to_owned()].into())]));

    let folder = super::folder("free");
    let (mut rig, id) = with_readings(folder.path(), 1_024);
    let names = ["a", "b", "c", "d", "e"];
    configure(&mut rig, &names);
    names.iter().for_each(|name| answer(&mut rig, name, &(1..=1_024).map(|place| (place, id)).collect::<Vec<_>>(), &[]));
    let all = planned(&rig, 1_024).unwrap();
    assert_eq!(refused_in(&all), names.map(|name| (name.to_owned(), 1_024, [WORDS.to_owned()].into())));
}

/// What a delivery that starts now sends. What it settles is committed.
fn sent_to(rig: &mut Rig, destination: &str) -> Vec<ReadingId> {
    let destination = DestinationId::new(destination).unwrap();
    let settled = rig.commit.journal.state().settled[&destination].clone();
    let mut delivery = Delivery::new(destination.clone(), DeliveryPolicy::default(), settled, rig.reader.committed(), 1);
    let mut events = vec![DeliveryEvent::Tick];
    let mut sent = Vec::new();
    while let Some(event) = events.pop() {
        for action in delivery.handle(event, &rig.received(0)) {
            match action {
                DeliveryAction::Read { lane, from, until, entries_max } => {
                    let outcome = rig.reader.read(from, until, entries_max, usize::MAX).unwrap();
                    events.push(DeliveryEvent::Read { lane, records: outcome.records, reached: outcome.reached });
                }
                DeliveryAction::Send { request, batch } => {
                    sent.extend(batch.items.iter().map(|item| item.id));
                    let answer = Answer::Items(batch.items.iter().map(|_| ItemAnswer::Accepted { remote_id: None }).collect());
                    events.push(DeliveryEvent::Answered { request, answer });
                }
                DeliveryAction::Settle { ranges, rejected, remote_ids } => {
                    let change = Change::Settled { destination: destination.clone(), ranges, rejected, remote_ids };
                    rig.commit(|_, group| group.changes.push(change));
                }
                _ => {}
            }
        }
    }
    sent
}

/// Promise 1: a destination that comes after a dead letter was moved gets it all the same; who has answered for it is not asked again.
/// Promise 3: what was refused with its message and went again since, to another patient perhaps, or was discarded, is nothing that a
/// later destination gets or that anybody is asked about: it stays resolved, and stays its patient's.
#[test]
fn a_destination_that_comes_later_gets_what_was_moved() {
    let folder = folder("free");
    let mut rig = rig_with(folder.path(), &list_profile("pr"), small(folder.path()));
    set_aside(&mut rig);
    let [rest, _, refused] = &rig.readings()[..] else { panic!("{:?}", rig.readings()) };
    refuse(&mut rig, 2, rest.id);
    rig.commit(|_, group| group.changes.push(Change::DeadLettersResolved { sequences: vec![Sequence(2)], note: "replayed".into() }));
    go_on(&mut rig);
    upkeep(&mut rig);
    let oldest = rig.reader.oldest();
    assert!(oldest > Sequence(5), "it was not moved");
    configure(&mut rig, &[EHR, "archive"]);
    let waiting = rig.unresolved();
    let sent = sent_to(&mut rig, "archive");
    assert!(sent.contains(&refused.id) && sent.len() > 1, "{}", sent.len());
    assert!(!sent.contains(&rest.id), "its patient may be another one since");
    assert_eq!(sent_to(&mut rig, EHR), []);
    assert_eq!(rig.commit.journal.state().settled.values().map(|settled| settled.missing_up_to(rig.reader.committed())).max(), Some(0));
    assert_eq!(rig.unresolved(), waiting, "it was resolved before");
    let traced = trace(&rig, rest.id);
    let states: Vec<_> = traced.destinations.iter().map(|standing| (&*standing.destination, standing.state)).collect();
    assert_eq!(states, [("archive", DeliveryState::Unknown), (EHR, DeliveryState::Resolved)]);

    let patient = PatientReference::Literal("Patient/p2".into());
    let device = DeviceId::new(MONITOR).unwrap();
    rig.commit.associations = Associations::new([Association { device, patient, from: None, until: None, confirmed_by: "test".into() }]);
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(1, 2)]);
    let subjects: BTreeSet<_> = rig.readings().into_iter().map(|reading| format!("{:?}", reading.subject)).collect();
    assert_eq!(subjects, [format!("{:?}", Subject::Patient(PatientReference::Literal("Patient/p1".into())))].into());
}

/// What is told of a reading by its id.
fn trace(rig: &Rig, id: ReadingId) -> Trace {
    follow(rig, false);
    let mut traced = model(rig, Settlement::from(&rig.commit.journal)).trace(&TraceQuery::Id(id)).unwrap();
    assert_eq!(traced.readings.len(), 1);
    traced.readings.remove(0)
}

fn model(rig: &Rig, settlement: Settlement) -> Model {
    let shared = Arc::new(Shared::new([], settlement.settled.keys().cloned()));
    shared.set_settlement(settlement);
    Model {
        gateway: GatewayId::new("gateway-01").unwrap(),
        warnings: vec![],
        devices: vec![],
        shared,
        modbus: Default::default(),
        reader: rig.reader.clone(),
        keyed: Arc::clone(&rig.keyed),
        store_folder: "store".into(),
        commands: mpsc::channel(1).0,
        registry: Default::default(),
        clock: rig.commit.clock.clone(),
        floor_bytes: 0,
        growth: Arc::new(Growth::new(0, 0)),
        presence: None,
    }
}

/// Promise 5: a dead letter that is found before its standing is told is none that was replayed or discarded.
#[test]
fn a_dead_letter_of_this_moment_waits_to_be_resolved() {
    let folder = folder("free");
    let mut rig = rig_with(folder.path(), &list_profile("pr"), small(folder.path()));
    let before = Settlement::from(&rig.commit.journal);
    let received = rig.received(900);
    rig.publish(r#"{"values": [{"name": "pulse", "value": 71}]}"#, received);
    follow(&rig, false);
    let query = TraceQuery::Device { device: DeviceId::new(MONITOR).unwrap(), at: received.wall, window_ms: 1_000 };
    let unresolved = |settlement| {
        let letters = model(&rig, settlement).trace(&query).unwrap().dead_letters;
        letters.iter().map(|letter| letter.unresolved).collect::<Vec<_>>()
    };
    assert_eq!(unresolved(before), [true]);
    assert_eq!(unresolved(Settlement::from(&rig.commit.journal)), [true]);
}

/// How it stands with the EHR, and why.
fn at_the_ehr(trace: &Trace) -> (DeliveryState, &str) {
    let standing = trace.destinations.iter().find(|standing| standing.destination == EHR).unwrap();
    (standing.state, standing.reason.as_deref().unwrap_or_default())
}

const REFUSED: &str = "Rejected: the EHR's own words";

/// The EHR refuses one that came with a message as well. Gives that one.
fn set_aside_with_rest(rig: &mut Rig) -> ReadingId {
    come_in(rig);
    let [rest, _, alone] = &rig.readings()[..] else { panic!("{:?}", rig.readings()) };
    answer(rig, EHR, &[(2, rest.id), (5, alone.id)], &[]);
    assert_eq!(rig.unresolved(), [(1, 2), (4, 5)]);
    rest.id
}

/// Promise 5: what was refused and discarded is never said to be delivered, however often it moves with the rest of its message.
#[test]
fn what_was_discarded_stays_so_after_the_move() {
    let folder = folder("free");
    let mut rig = rig_with(folder.path(), &list_profile("pr"), small(folder.path()));
    let rest = set_aside_with_rest(&mut rig);
    assert_eq!(rig.resolve(&[(&[2], Resolution::Discard)]), [(1, 3)]);
    assert_eq!(at_the_ehr(&trace(&rig, rest)), (DeliveryState::Resolved, REFUSED));
    for _ in 0..2 {
        go_on(&mut rig);
        upkeep(&mut rig);
        let waiting = rig.unresolved().iter().map(|(first, last)| last - first + 1).sum::<u64>();
        assert_eq!(waiting, 3, "{:?}", rig.unresolved());
        let oldest = rig.reader.oldest().0;
        assert!(oldest > 5, "it was not moved");
        let until = Instant::now() + PATIENCE;
        let traced = loop {
            let traced = trace(&rig, rest);
            assert_eq!(at_the_ehr(&traced), (DeliveryState::Resolved, REFUSED));
            // The keyed store lets go of what was there before in its own time.
            if traced.sequence >= oldest {
                break traced;
            }
            assert!(Instant::now() < until, "number {} is still there", traced.sequence);
            std::thread::yield_now();
        };
        assert_eq!(traced.resolved.as_deref(), Some("replayed or discarded before it was carried forward"));
    }
}

/// Promise 5: what was replayed is told where it stands now, and not where the rest of its message was moved to.
#[test]
fn what_was_replayed_is_told_where_it_went() {
    let folder = folder("free");
    let mut rig = rig_with(folder.path(), &list_profile("pr"), small(folder.path()));
    let rest = set_aside_with_rest(&mut rig);
    go_on(&mut rig);
    assert_eq!(rig.resolve(&[(&[2], REPLAY)]), [(1, 3)]);
    let again = rig.reader.committed();
    follow(&rig, true);
    upkeep(&mut rig);
    assert!(rig.reader.oldest() > Sequence(5) && rig.reader.committed() > again, "it was not moved");
    assert_eq!(rig.reader.find_id(&rest, Sequence::FIRST).unwrap().found.map(|record| record.sequence), Some(again));
    let traced = trace(&rig, rest);
    assert_eq!((at_the_ehr(&traced), traced.sequence), ((DeliveryState::Queued, ""), again.0));
    refuse(&mut rig, again.0, rest);
    assert_eq!(at_the_ehr(&trace(&rig, rest)), (DeliveryState::DeadLetter, REFUSED));
    assert_eq!(rig.resolve(&[(&[again.0], Resolution::Discard)]), [(1, 3)]);
    assert_eq!(at_the_ehr(&trace(&rig, rest)), (DeliveryState::Resolved, REFUSED));
}

/// Promise 4: what was moved without a patient and discarded since is no dead letter of a destination that comes later.
#[test]
fn what_was_moved_and_resolved_is_no_dead_letter_of_the_next_destination() {
    let folder = folder("free");
    let mut rig = rig_with(folder.path(), &list_profile("pr"), small(folder.path()));
    let associations = std::mem::take(&mut rig.commit.associations);
    rig.publish(r#"{"values": [{"name": "hr", "value": 75}]}"#, rig.received(700));
    rig.commit.associations = associations;
    assert_eq!((sent_to(&mut rig, EHR), rig.unresolved()), (vec![], vec![(1, 1)]));
    go_on(&mut rig);
    upkeep(&mut rig);
    let [(place, last)] = rig.unresolved()[..] else { panic!("{:?}", rig.unresolved()) };
    assert!(place > 1 && last == place, "it was not moved");
    assert_eq!(rig.resolve(&[(&[], Resolution::Discard)]), [(1, 0)]);
    configure(&mut rig, &[EHR, "archive"]);
    assert!(!sent_to(&mut rig, "archive").is_empty());
    assert_eq!(rig.unresolved(), []);
}

/// Promise 5: after the move each destination's answer is told as it was: the ids that it gave, also where another one refused the
/// reading, and the words of one that is not configured any more, under its own name.
#[test]
fn every_answer_is_told_after_the_move_as_before() {
    let folder = folder("free");
    let mut rig = rig_with(folder.path(), &list_profile("pr"), small(folder.path()));
    configure(&mut rig, &[EHR, "archive", "departed"]);
    for value in [75, 76] {
        rig.publish(&format!(r#"{{"values": [{{"name": "hr", "value": {value}}}]}}"#), rig.received(700 - value));
    }
    let [first, second] = [0, 1].map(|index| rig.readings()[index].id);
    answer(&mut rig, EHR, &[], &[(1, "server-7"), (2, "server-8")]);
    answer(&mut rig, "archive", &[(1, first)], &[]);
    answer(&mut rig, "departed", &[(2, second)], &[]);
    configure(&mut rig, &[EHR, "archive"]);
    go_on(&mut rig);
    upkeep(&mut rig);
    let [(place, last)] = rig.unresolved()[..] else { panic!("{:?}", rig.unresolved()) };
    assert!(place > 2 && last == place + 1, "they were not moved");
    let by = |name: &str| vec![(name.to_owned(), WORDS.to_owned())];
    assert_eq!([refusals_of(&rig, place), refusals_of(&rig, last)], [by("archive"), by("departed")]);
    let ehr = DestinationId::new(EHR).unwrap();
    let id = |place| rig.keyed.remote_id(Sequence(place), &ehr).unwrap();
    assert_eq!([id(place), id(last)], [Some("server-7".into()), Some("server-8".into())]);
    let configured = |rig: &Rig| rig.commit.journal.state().settled.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(configured(&rig), ["archive", EHR], "nobody waits for one that is gone");
    drop(rig);
    let again = rig_with(folder.path(), &list_profile("pr"), small(folder.path()));
    assert_eq!(configured(&again), ["archive", EHR]);
}

/// Damages every copy of some of the oldest letters, and leaves those around them.
fn damage(folder: &Path) {
    let store = folder.join("store");
    for lost in ["shadow", "sled"] {
        std::fs::remove_dir_all(store.join(lost)).unwrap();
    }
    let files = std::fs::read_dir(store.join("journal")).unwrap().map(|file| file.unwrap().path());
    let oldest = files.filter(|file| file.extension().is_some()).min().unwrap();
    let mut bytes = std::fs::read(&oldest).unwrap();
    bytes[7_000..9_000].fill(0x55);
    std::fs::write(oldest, bytes).unwrap();
}

/// Promise 1: one bad block keeps nothing that came after it. Promise 4: what stood there is counted and named, and what can be read
/// stays what it was. Promise 2: a letter whose message nobody can see whole any more gives no value a second identity.
#[test]
fn what_no_copy_holds_keeps_nothing_that_can_be_read() {
    let folder = folder("free");
    let mut rig = rig_with(folder.path(), &list_profile("pr"), small(folder.path()));
    for ago in 0..40 {
        rig.publish(r#"{"values": [{"name": "pulse", "value": 71}]}"#, rig.received(900 - ago));
    }
    go_on(&mut rig);
    drop(rig);
    damage(folder.path());
    let mut rig = rig_with(folder.path(), &list_profile("pulse"), small(folder.path()));
    let read = rig.reader.read(Sequence::FIRST, Sequence(40), usize::MAX, usize::MAX).unwrap();
    let [(first, last)] = read.damaged[..] else { panic!("{:?}", read.damaged) };
    assert!(first > Sequence::FIRST && last < Sequence(40) && first < last, "{first} to {last}");
    // The letters stand in a few segments.
    for _ in 0..4 {
        follow(&rig, true);
        upkeep(&mut rig);
    }
    assert!(rig.reader.oldest() > Sequence(40), "the bad block keeps it");
    let places = rig.unresolved();
    let records = rig.reader.read(Sequence(places[0].0), rig.reader.committed(), usize::MAX, usize::MAX).unwrap().records;
    let letters: Vec<_> =
        records.iter().filter_map(|record| if let Entry::DeadLetter(letter) = &record.entry { Some(letter) } else { None }).collect();
    assert_eq!(letters.len(), read.records.len() + 1);
    let damaged: Vec<_> = letters.iter().filter(|letter| letter.reason.kind == DeadLetterKind::Damaged).collect();
    assert_eq!(damaged.iter().map(|letter| letter.bytes.is_empty()).collect::<Vec<_>>(), [true, false]);
    assert!(damaged[0].reason.detail.starts_with(&format!("number {first} to {last}: ")), "{}", damaged[0].reason.detail);

    let left = read.records.len() as u64 - 1;
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(left, 2)], "the one behind the bad block may have had values that went already");
}
