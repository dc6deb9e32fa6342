//! What one round of upkeep does.

use vitalgate_domain::Flags;

use super::*;

/// Promises 2 and 3: a reading that waited for the clock gets its moment once, also where its segment is the oldest and everything
/// else in it may go: it is not moved as a dead letter in the same round.
#[test]
fn what_gets_its_moment_is_not_moved_as_well() {
    let folder = folder("unset");
    let options = StoreOptions {
        segment_bytes: vitalgate_store::SEGMENT_BYTES_MIN,
        retention_ms: 0,
        free_space_floor_bytes: 0,
        ..StoreOptions::new(folder.path().join("store"))
    };
    let mut rig = rig_with(folder.path(), &list_profile("pr"), options);
    undated(&mut rig, 1);
    trusting(folder.path(), "free");
    rig.commit.clock.refresh_trust();
    for number in 0..1_500 {
        let received = Received { monotonic_ms: 1_000_000 + number, ..rig.received(0) };
        rig.publish(r#"{"values": [{"name": "hr", "value": 80}]}"#, received);
    }
    rig.settle([]);
    assert!(rig.keyed.wait_reached(rig.reader.committed_record(), true, PATIENCE), "the keyed store");
    let last = rig.reader.committed();
    for _ in 0..2 {
        rig.commit.carry_at_ms = 0;
        rig.commit.upkeep(&mut Group::default()).unwrap();
    }
    let records = rig.reader.read(last.next(), rig.reader.committed(), 100, usize::MAX).unwrap().records;
    let flags: Vec<_> =
        records.iter().map(|record| if let Entry::Reading(reading) = &record.entry { Some(reading.flags) } else { None }).collect();
    assert_eq!(flags.len(), 3, "{flags:?}");
    assert!(flags.iter().flatten().all(|flags| flags.contains(Flags::REPLAYED) && !flags.contains(Flags::CARRIED)), "{flags:?}");
    assert_eq!(rig.unresolved(), []);
}
