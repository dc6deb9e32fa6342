use proptest::prelude::*;
use vitalgate_domain::{DestinationId, Sequence};

use super::*;
use crate::state::StateKeeper;
use crate::tests_support::{any_entry, reading};

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
    let back: Vec<_> = bodies.iter().flat_map(|body| changes(body).unwrap()).collect();
    assert_eq!(back, list);
    let mut keeper = StateKeeper::default();
    list.iter().for_each(|change| keeper.apply_change(change));
    keeper.apply_entry(Sequence(10), &vitalgate_domain::Entry::Reading(reading("m2", 5)));
    let mut body = Vec::new();
    state_into(keeper.state(), &mut body).unwrap();
    assert_eq!(&state(&body).unwrap(), keeper.state());
}
