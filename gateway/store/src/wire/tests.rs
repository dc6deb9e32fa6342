use proptest::prelude::*;
use vitalgate_domain::{DestinationId, Sequence};

use super::*;
use crate::state::StateKeeper;
use crate::tests_support::{any_entry, reading};

/// A snapshot before conditional create was kept: `[[["ehr", [[1, 500]]]], [["m1", id and hash]], [[3, 3]], wall clock]`.
pub(crate) const SNAPSHOT_BEFORE: &[u8] =
    b"\x84\x81\x82\x63\x65\x68\x72\x81\x82\x01\x19\x01\xf4\x81\x82\x62\x6d\x31\x54\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\
      \x07\x07\x07\x01\x00\x00\x00\x81\x82\x03\x03\x1b\x00\x00\x01\xa2\x02\xb2\xc5\x00";
/// The first layout: `[[["ehr", [[1, 500]]]], [["m1", id]], [[3, 3]], [[boot, 5]], wall clock]`.
const SNAPSHOT_FIRST: &[u8] =
    b"\x85\x81\x82\x63\x65\x68\x72\x81\x82\x01\x19\x01\xf4\x81\x82\x62\x6d\x31\x50\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\
      \x07\x07\x07\x81\x82\x03\x03\x81\x82\x50\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x05\x1b\x00\x00\x01\xa2\
      \x02\xb2\xc5\x00";

proptest! {
    /// What was acknowledged comes back exactly as it was: every digit, every absence, every time.
    #[test]
    fn entries_survive_their_wire_form(entries in prop::collection::vec(any_entry(), 1..60)) {
        let mut encoder = EntryEncoder::default();
        let mut read = Vec::new();
        let mut start = 0;
        while start < entries.len() {
            let mut taken = 0;
            while start + taken < entries.len() && encoder.push(&entries[start + taken], 2_000) {
                taken += 1;
            }
            prop_assert!(taken > 0);
            let bound = encoder.bytes_at_most;
            let mut body = Vec::new();
            encoder.finish_into(&mut body).unwrap();
            prop_assert!(body.len() <= bound, "{} bytes where at most {bound} were announced", body.len());
            read.extend(super::entries(&body, Sequence(start as u64 + 1), taken as u32).unwrap());
            start += taken;
        }
        prop_assert_eq!(read.len(), entries.len());
        for (place, record) in read.iter().enumerate() {
            prop_assert_eq!(record.sequence, Sequence(place as u64 + 1));
            prop_assert_eq!(&record.entry, &entries[place]);
        }
    }

    /// A body that was altered is refused or read as something, never a panic.
    #[test]
    fn no_bytes_make_the_reader_panic(entry in any_entry(), position in any::<prop::sample::Index>(), byte: u8) {
        let mut encoder = EntryEncoder::default();
        encoder.push(&entry, 6_000);
        let mut body = Vec::new();
        encoder.finish_into(&mut body).unwrap();
        let at = position.index(body.len());
        body[at] = byte;
        let _any = super::entries(&body, Sequence(1), 1);
        let _any = changes(&body);
        let _any = state(&body);
    }
}

#[test]
fn a_reading_costs_few_bytes() {
    let entries: Vec<_> = (0..50).map(|number| vitalgate_domain::Entry::Reading(reading("monitor-1", number))).collect();
    let mut encoder = EntryEncoder::default();
    assert!(entries.iter().all(|entry| encoder.push(entry, 10_000)));
    let mut body = Vec::new();
    encoder.finish_into(&mut body).unwrap();
    assert!(body.len() < 50 * 80, "{} bytes for 50 readings", body.len());
}

#[test]
fn leftover_and_missing_parts_are_refused() {
    let entry = vitalgate_domain::Entry::Reading(reading("monitor-1", 1));
    let mut encoder = EntryEncoder::default();
    encoder.push(&entry, 6_000);
    let mut body = Vec::new();
    encoder.finish_into(&mut body).unwrap();
    assert!(entries(&body, Sequence(1), 2).is_err(), "one entry where two were announced");
    body.push(0);
    assert!(entries(&body, Sequence(1), 1).is_err(), "a byte too much");
    body.truncate(body.len() - 2);
    assert!(entries(&body, Sequence(1), 1).is_err(), "a byte too few");
}

#[test]
fn changes_and_state_survive_their_wire_form() {
    let destination = DestinationId::new("ehr").unwrap();
    let list = vec![
        Change::Destinations { present: vec![destination.clone()], from: Sequence(1) },
        Change::WrittenConditionally { destination: destination.clone() },
        Change::Settled {
            destination,
            ranges: vec![(Sequence(1), Sequence(7)), (Sequence(9), Sequence(9))],
            rejected: vec![],
            remote_ids: vec![(Sequence(3), "abc".into())],
        },
        Change::DeadLettersResolved { sequences: vec![Sequence(4)], note: "replayed".into() },
    ];
    let bodies = changes_into(&list, 60).unwrap();
    assert!(bodies.len() > 1);
    let back: Vec<_> = bodies.iter().flat_map(|body| changes(body).unwrap().0).collect();
    assert_eq!(back, list);
    let mut keeper = StateKeeper::default();
    list.iter().for_each(|change| keeper.apply_change(change));
    keeper.apply_entry(Sequence(10), &vitalgate_domain::Entry::Reading(reading("m2", 5)));
    let mut body = Vec::new();
    state_into(keeper.state(), &mut body).unwrap();
    assert_eq!(&state(&body).unwrap(), keeper.state());
}

/// Promise 2: after an update, and after one that was undone, what was delivered is known as delivered.
#[test]
fn snapshots_of_earlier_versions_are_read() {
    for (body, seen) in [(SNAPSHOT_BEFORE, 1), (SNAPSHOT_FIRST, 0)] {
        let read = state(body).unwrap();
        assert_eq!(read.settled[&DestinationId::new("ehr").unwrap()].ranges(), [(Sequence(1), Sequence(500))]);
        assert_eq!(read.unresolved.ranges(), [(Sequence(3), Sequence(3))]);
        assert_eq!(read.latest_wall, Some(vitalgate_domain::UnixMs(1_795_341_600_000)));
        assert_eq!((read.seen.len(), read.conditional.len()), (seen, 0));
    }
}

/// Promise 2: a change that a later version wrote hides none of those beside it.
#[test]
fn a_change_of_a_later_version_is_passed_over_and_counted() {
    let known = Change::DeadLettersResolved { sequences: vec![Sequence(4)], note: "replayed".into() };
    let mut body = changes_into(std::slice::from_ref(&known), 1_000).unwrap().remove(0);
    let later = std::collections::BTreeMap::from([("Moved", vec![1, 2])]);
    let twice = [body.clone(), serde_cbor::to_vec(&later).unwrap(), body.clone()].concat();
    assert_eq!(changes(&twice), Ok((vec![known.clone(), known], 1)));
    body.truncate(body.len() - 1);
    assert!(changes(&body).is_err(), "a byte too few");
}
