//! Dead letters that are older than everything else.

use vitalgate_domain::{Flags, ReadingId};

use super::*;

/// Small segments whose time is over as soon as every destination has them.
fn small(folder: &Path) -> StoreOptions {
    StoreOptions {
        segment_bytes: vitalgate_store::SEGMENT_BYTES_MIN,
        retention_ms: 0,
        free_space_floor_bytes: 0,
        ..StoreOptions::new(folder.join("store"))
    }
}

/// A letter alone, a message of which one value could not be read, and a reading that the EHR refuses.
fn set_aside(rig: &mut Rig) {
    rig.publish(r#"{"values": [{"name": "pulse", "value": 71}]}"#, rig.received(900));
    let values = r#"{"name": "hr", "value": 70}, {"name": "pulse", "value": 72}, {"name": "rr", "value": 14}"#;
    rig.publish(&format!(r#"{{"values": [{values}]}}"#), rig.received(800));
    rig.publish(r#"{"values": [{"name": "hr", "value": 75}]}"#, rig.received(700));
    assert_eq!(rig.unresolved(), [(1, 1), (4, 4)]);
    let id = rig.readings().last().unwrap().id;
    refuse(rig, 5, id);
    assert_eq!(rig.unresolved(), [(1, 1), (4, 5)]);
}

fn refuse(rig: &mut Rig, sequence: u64, id: ReadingId) {
    let reason = DeadLetterReason::new(DeadLetterKind::Rejected, "the EHR's own words");
    let rejected = vec![RejectedReading { sequence: Sequence(sequence), id, reason }];
    let ranges = vec![(Sequence::FIRST, rig.reader.committed())];
    let change = Change::Settled { destination: DestinationId::new(EHR).unwrap(), ranges, rejected, remote_ids: vec![] };
    rig.commit(|_, group| group.changes.push(change));
}

/// Stores so much after it that its segment is not the last, and has it taken.
fn go_on(rig: &mut Rig) {
    let from = rig.reader.committed().0;
    for number in 0..1_500 {
        let received = Received { monotonic_ms: 1_000_000 + from + number, ..rig.received(0) };
        rig.publish(r#"{"values": [{"name": "hr", "value": 80}]}"#, received);
    }
    let ranges = vec![(Sequence::FIRST, rig.reader.committed())];
    let change = Change::Settled { destination: DestinationId::new(EHR).unwrap(), ranges, rejected: vec![], remote_ids: vec![] };
    rig.commit(|_, group| group.changes.push(change));
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let reached = rig.reader.committed_record();
    assert!(rig.keyed.wait_reached(reached, true, deadline.saturating_duration_since(std::time::Instant::now())), "the keyed store");
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
struct Behind;

impl Told for Behind {
    fn reaches(&self, _: vitalgate_store::Ordinal) -> bool {
        false
    }
    fn rejected(&self, _: Sequence, _: Sequence, _: usize) -> Result<Vec<(DestinationId, RejectedReading)>, vitalgate_store::KeyedError> {
        Ok(Vec::new())
    }
    fn remote_id(&self, _: Sequence, _: &DestinationId) -> Result<Option<Arc<str>>, vitalgate_store::KeyedError> {
        Ok(None)
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
    let held = rig.commit.replay.carry((Sequence(1), Sequence(1_100)), rig.commit.journal.state(), Sequence(1_101), &*rig.commit.told);
    assert!(held.is_err());
    let some =
        rig.commit.replay.carry((Sequence(1), Sequence(500)), rig.commit.journal.state(), Sequence(1_101), &*rig.commit.told).unwrap();
    assert_eq!((some.entries.len(), some.changes.len()), (500, 2));
}
