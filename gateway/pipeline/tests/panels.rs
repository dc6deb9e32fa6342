//! Blood pressures: what belongs together stands in one Observation, whatever the order of arrival.

mod rig;

use std::cell::RefCell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use rig::{Rig, all_accepted, reading, timed, transient};
use vitalgate_domain::{Batch, Entry, Flags, Item, Metric, Reading, ReadingId, Sequence, SequenceRanges};
use vitalgate_pipeline::delivery::COMMIT_LAG_MS;
use vitalgate_pipeline::{DeliveryEvent, DeliveryPolicy, Lane};

fn items(rig: &Rig) -> Vec<Item> {
    rig.batches().into_iter().flat_map(|batch: Batch| batch.items).collect()
}

fn sequences(item: &Item) -> Vec<u64> {
    item.readings.iter().map(|(sequence, _)| sequence.0).collect()
}

fn systolic(number: u64, arrived_ms: u64, device_ms: i64) -> Reading {
    timed(Metric::SystolicCuff, number, 1, arrived_ms, device_ms)
}

fn diastolic(number: u64, arrived_ms: u64, device_ms: i64) -> Reading {
    timed(Metric::DiastolicCuff, number, 1, arrived_ms, device_ms)
}

/// Promise: parts of one message join at once, in the panel's order, the mean with them.
#[test]
fn a_complete_message_is_sent_at_once() {
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    let part = |metric, number| timed(metric, number, 1, 10_000, 0);
    rig.commit([part(Metric::MeanCuff, 1), part(Metric::DiastolicCuff, 2), part(Metric::HeartRate, 3), part(Metric::SystolicCuff, 4)]);
    let items = items(&rig);
    let panel = items.iter().find(|item| item.panel == Some(Metric::BloodPressureCuff)).expect("sent at once");
    assert_eq!(sequences(panel), [4, 2, 1]);
    rig.answer_all(all_accepted);
    let known_as: Vec<_> = rig.remote_ids.iter().map(|(sequence, id)| (sequence.0, id.to_string())).collect();
    assert_eq!(known_as, [4, 2, 1].map(|sequence| (sequence, panel.id.to_string())), "a part is found under its panel's id");
}

/// Promise: parts of two messages of one moment join, in either order, once no third one is to be expected.
#[test]
fn two_messages_of_one_moment_join() {
    for systolic_first in [true, false] {
        let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
        let (one, other) = match systolic_first {
            true => (systolic(1, 10_000, 0), diastolic(2, 10_900, 0)),
            false => (diastolic(2, 10_000, 0), systolic(1, 10_900, 0)),
        };
        rig.commit([one]);
        assert!(items(&rig).is_empty(), "half a blood pressure waits");
        rig.now_ms = 10_900;
        rig.commit([other]);
        assert!(items(&rig).is_empty(), "the mean may still come");
        assert!(rig.sleep());
        assert_eq!(items(&rig).len(), 1);
        assert_eq!(
            items(&rig)[0].readings.iter().map(|(_, part)| part.metric).collect::<Vec<_>>(),
            [Metric::SystolicCuff, Metric::DiastolicCuff]
        );
    }
}

/// Promise: a mean that comes last, in a message of its own, is no blood pressure without its pressures.
#[test]
fn three_messages_of_one_moment_are_one_panel() {
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    rig.commit([systolic(1, 10_000, 0)]);
    rig.commit([diastolic(2, 10_100, 0)]);
    rig.now_ms = 10_200;
    rig.commit([timed(Metric::MeanCuff, 3, 1, 10_200, 0)]);
    assert_eq!(items(&rig).iter().map(sequences).collect::<Vec<_>>(), [[1, 2, 3]], "sent at once: nothing more can come");
}

/// Promise 3: where the device's counter tells messages of one time apart, their parts are never one blood pressure.
#[test]
fn two_messages_that_a_counter_tells_apart_do_not_join() {
    let counted = |reading: Reading, counter| Reading { device_sequence: Some(counter), ..reading };
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    rig.commit([counted(systolic(1, 10_000, 0), 1)]);
    rig.now_ms = 10_200;
    let mean = timed(Metric::MeanCuff, 4, 1, 10_200, 0);
    rig.commit([systolic(2, 10_200, 0), diastolic(3, 10_200, 0), mean].map(|part| counted(part, 2)));
    assert_eq!(items(&rig).iter().map(sequences).collect::<Vec<_>>(), [[2, 3, 4]], "the whole one, and nothing of the other");
}

/// Promise 3: where a message does not tell which parts belong together, none is joined with any other, neither of that message nor of
/// another, whatever was settled before the gateway was started again.
#[test]
fn parts_that_nobody_can_tell_apart_never_join() {
    let apart = |mut part: Reading| {
        part.flags = Flags::APART;
        Entry::Reading(part)
    };
    let second = |part: Reading| Reading { slot: 1, ..part };
    let entries = [
        apart(systolic(1, 10_000, 0)),
        apart(second(systolic(2, 10_000, 0))),
        apart(diastolic(3, 10_000, 0)),
        Entry::Reading(diastolic(4, 10_100, 0)),
    ];
    for settled in [None, Some(1), Some(2), Some(3), Some(4)] {
        let mut ranges = SequenceRanges::new();
        settled.into_iter().for_each(|sequence| ranges.insert(Sequence(sequence), Sequence(sequence)));
        let mut rig = Rig::restarted(DeliveryPolicy::default(), entries.to_vec(), ranges, 100_000);
        rig.tick();
        let mut sent = Vec::new();
        while !rig.sent.is_empty() {
            sent.extend(items(&rig).iter().map(sequences));
            rig.answer_all(all_accepted);
        }
        sent.sort();
        assert_eq!(sent, (1..=4).filter(|sequence| settled != Some(*sequence)).map(|sequence| vec![sequence]).collect::<Vec<_>>());
    }
}

/// Promise: a part that is never joined waits for nothing.
#[test]
fn a_part_that_is_never_joined_is_sent_at_once() {
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    rig.commit([Reading { flags: Flags::APART, ..systolic(1, 10_000, 0) }]);
    assert_eq!(items(&rig).iter().map(sequences).collect::<Vec<_>>(), [[1]]);
}

/// Promise: half a panel waits for the join window and is then sent as it is; a part that comes later
/// is another Observation and never the same identity.
#[test]
fn a_late_part_never_overwrites() {
    let policy = DeliveryPolicy::default();
    let mut rig = Rig::new(policy, Vec::new());
    rig.commit([systolic(1, 10_000, 0)]);
    assert!(rig.sleep());
    assert_eq!(rig.now_ms, 10_000 + policy.join_window_ms + COMMIT_LAG_MS + 1);
    let first = items(&rig);
    assert_eq!(sequences(&first[0]), [1]);
    rig.answer_all(all_accepted);
    rig.commit([diastolic(2, rig.now_ms, 0)]);
    assert!(rig.sleep());
    let second = items(&rig);
    assert_eq!(sequences(&second[0]), [2]);
    assert_ne!(first[0].id, second[0].id);
}

/// Promise: old parts do not wait for a window that is long over.
#[test]
fn an_old_half_is_sent_immediately() {
    let entries = vec![Entry::Reading(systolic(1, 1_000, 0))];
    let mut rig = Rig::restarted(DeliveryPolicy::default(), entries, SequenceRanges::new(), 1_000_000);
    rig.tick();
    assert_eq!(items(&rig).len(), 1);
}

/// Promise: registers of one poll join; two polls never do.
#[test]
fn polled_parts_join_only_within_their_sample() {
    let mut rig = Rig::new(DeliveryPolicy::default(), Vec::new());
    let part = |metric, number, arrived| reading(metric, number, 1, arrived);
    rig.commit([part(Metric::SystolicArterial, 1, 10_000), part(Metric::DiastolicArterial, 2, 10_000)]);
    rig.commit([part(Metric::SystolicArterial, 3, 10_001)]);
    rig.commit([part(Metric::DiastolicArterial, 4, 10_002)]);
    let sent = std::cell::RefCell::new(Vec::new());
    rig.drain(|batch| {
        sent.borrow_mut().extend(batch.items.iter().map(sequences));
        all_accepted(batch)
    });
    assert_eq!(*sent.borrow(), [vec![1, 2], vec![3], vec![4]]);
}

/// Promise: a restart joins the same parts under the same identity, wherever the restart cuts the journal.
#[test]
fn a_restart_joins_the_same_parts() {
    let mut entries = Vec::new();
    for round in 0..40u64 {
        let arrived = 10_000 + round * 700;
        let number = round * 10;
        entries.push(Entry::Reading(systolic(number + 1, arrived, round as i64)));
        entries.push(Entry::Reading(timed(Metric::HeartRate, number + 2, 2, arrived, round as i64)));
        if round % 3 != 0 {
            entries.push(Entry::Reading(diastolic(number + 3, arrived + (round % 5) * 300, round as i64)));
        }
    }
    let ids = |first_run: usize| {
        // The first run gets so many entries before it dies with nothing settled; the second gets all.
        let mut rig = Rig::new(DeliveryPolicy::default(), entries[..first_run].to_vec());
        rig.tick();
        rig.answer_all(|_| transient());
        let mut rig = Rig::restarted(DeliveryPolicy::default(), entries[..first_run].to_vec(), SequenceRanges::new(), 10_000);
        rig.tick();
        for entry in &entries[first_run..] {
            rig.entries.push(entry.clone());
            let committed = Sequence(rig.entries.len() as u64);
            rig.tell(vitalgate_pipeline::DeliveryEvent::Committed(committed));
        }
        rig.now_ms = 100_000;
        rig.tick();
        let sent = std::cell::RefCell::new(std::collections::BTreeSet::new());
        rig.drain(|batch| {
            sent.borrow_mut().extend(batch.items.iter().map(|item| item.id));
            all_accepted(batch)
        });
        sent.into_inner()
    };
    let whole = ids(entries.len());
    for cut in 0..entries.len() {
        assert_eq!(ids(cut), whole, "cut at {cut}");
    }
}

/// Promise: if a part was so long on its way to the disk that the other half went without it, joining
/// them after a restart makes another Observation: the half that is there already shadows nothing.
#[test]
fn another_set_of_parts_is_another_identity() {
    let mut rig = Rig::new(DeliveryPolicy::default(), vec![Entry::Reading(systolic(1, 10_000, 0))]);
    rig.tick();
    assert!(rig.sleep());
    let half = items(&rig);
    let entries = vec![Entry::Reading(systolic(1, 10_000, 0)), Entry::Reading(diastolic(2, 11_000, 0))];
    let mut rig = Rig::restarted(DeliveryPolicy::default(), entries, SequenceRanges::new(), 60_000);
    rig.tick();
    let whole = items(&rig);
    assert_eq!((sequences(&half[0]), sequences(&whole[0])), (vec![1], vec![1, 2]));
    assert_ne!(half[0].id, whole[0].id);
}

/// The identities of all panels, where the first `backlog` parts were on disk at the start and are read only after all others.
fn joined_across(parts: &[Reading], backlog: usize) -> BTreeSet<ReadingId> {
    let on_disk = parts.iter().take(backlog).cloned().map(Entry::Reading).collect();
    let mut rig = Rig::restarted(DeliveryPolicy::default(), on_disk, SequenceRanges::new(), 10_000);
    rig.unread = |lane| (lane == Lane::Backlog).then_some(DeliveryEvent::ReadPutOff { lane });
    rig.tick();
    for part in parts.iter().skip(backlog) {
        rig.now_ms = part.time.received.monotonic_ms;
        rig.commit([part.clone()]);
    }
    rig.unread = |_| None;
    rig.now_ms += 100_000;
    rig.tick();
    let sent = RefCell::new(BTreeSet::new());
    rig.drain(|batch| {
        sent.borrow_mut().extend(batch.items.iter().map(|item| item.id));
        all_accepted(batch)
    });
    sent.into_inner()
}

/// Promises 2 and 4: the live lane reads the later parts first, and takes them for one panel that the journal does not hold together:
/// what it holds before them joins as it would have in order.
#[test]
fn parts_that_were_read_before_an_earlier_one_are_joined_anew() {
    let parts = [systolic(1, 10_000, 0), diastolic(2, 11_800, 0), timed(Metric::MeanCuff, 3, 1, 13_500, 0)];
    let id = |parts: &[&Reading]| ReadingId::of_parts(Metric::BloodPressureCuff, &parts.iter().map(|part| part.id).collect::<Vec<_>>());
    let [systolic, diastolic, mean] = &parts;
    let wanted = BTreeSet::from([id(&[systolic, diastolic]), id(&[mean])]);
    for backlog in 0..=parts.len() {
        assert_eq!(joined_across(&parts, backlog), wanted, "{backlog} were on disk");
    }
}

proptest! {
    /// Promises 2 and 4: the same panels, whichever part each lane read first, whenever they arrived.
    #[test]
    fn the_journal_alone_says_what_is_joined(
        order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle(), gaps in prop::collection::vec(1..2_600_u64, 6),
    ) {
        let mut arrived_ms = 10_000;
        let parts: Vec<Reading> = order.into_iter().zip(gaps).map(|(number, gap_ms)| {
            arrived_ms += gap_ms;
            let metric = [Metric::SystolicCuff, Metric::DiastolicCuff, Metric::MeanCuff][number % 3];
            timed(metric, number as u64, 1, arrived_ms, number as i64 / 3)
        }).collect();
        let in_order = joined_across(&parts, parts.len());
        for backlog in 0..parts.len() {
            prop_assert_eq!(joined_across(&parts, backlog), in_order.clone(), "{} were on disk", backlog);
        }
    }
}
