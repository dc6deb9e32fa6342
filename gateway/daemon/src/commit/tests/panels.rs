//! Parts of one panel among the dead letters.

use vitalgate_domain::{Flags, UnixMs};

use super::again::{message, timed_profile};
use super::*;

const CUFF: &str = r#"{"values": [{"name": "hr", "value": 70}, {"name": "sys", "value": 120}, {"name": "dia", "value": 80}]}"#;

/// Promise 3: whoever names one part of a blood pressure names the whole of it. A part that is sent alone would be another Observation,
/// which says of the rest that it never arrived.
#[test]
fn the_parts_of_a_panel_go_together_whichever_is_named() {
    let folder = folder("free");
    let mut rig = rig(folder.path(), &list_profile("pr"), 0);
    for ago in [900, 800, 700] {
        rig.publish(CUFF, rig.received(ago));
    }
    rig.settle(2..=9);
    assert_eq!(rig.resolve(&[(&[3], REPLAY)]), [(2, 6)]);
    assert_eq!(rig.said()[9..], ["nibp_sys#0 120", "nibp_dia#0 80"]);
    assert!(rig.readings()[9..].iter().all(|reading| reading.flags.contains(Flags::REPLAYED)));
    assert_eq!(rig.unresolved(), [(4, 9)]);
    assert_eq!(rig.resolve(&[(&[4], REPLAY)]), [(1, 5)], "a reading of its own goes alone");
    // What is left of a panel, nobody could send any more as it was.
    assert_eq!(rig.resolve(&[(&[5], Resolution::Discard)]), [(2, 3)]);
    assert_eq!(rig.unresolved(), [(7, 9)]);
}

/// Promise 3: also where one part was refused and the other could not be read: what came in one message is stored together again, or
/// each of the parts would close as an Observation of its own.
#[test]
fn a_part_that_was_refused_and_one_that_is_read_now_stand_together_again() {
    let folder = folder("free");
    let whole = list_profile("pr");
    let mut before = rig(folder.path(), &whole.replace("name = \"dia\"", "name = \"diastolic\""), 0);
    for (ago, sys, dia) in [(900, 120, 80), (800, 121, 81)] {
        let values = format!(r#"{{"name": "sys", "value": {sys}}}, {{"name": "dia", "value": {dia}}}"#);
        before.publish(&format!(r#"{{"values": [{values}]}}"#), before.received(ago));
    }
    before.settle([1, 3]);
    assert_eq!((before.said().len(), before.unresolved()), (2, vec![(1, 4)]));
    drop(before);
    let mut rig = rig(folder.path(), &whole, 0);
    assert_eq!(rig.resolve(&[(&[], REPLAY)]), [(4, 0)]);
    assert_eq!(rig.said()[2..], ["nibp_sys#0 120", "nibp_dia#0 80", "nibp_sys#0 121", "nibp_dia#0 81"]);
}

/// Promise 4: whoever has dead letters counted is told which would go, with the parts of a panel that are not named, and nothing changes.
#[test]
fn what_is_counted_is_what_a_discarding_takes() {
    let folder = folder("free");
    let mut rig = rig(folder.path(), &list_profile("pr"), 0);
    for ago in [900, 800] {
        rig.publish(CUFF, rig.received(ago));
    }
    rig.settle(2..=6);
    let mut places = |resolution| {
        let (asker, mut answer) = oneshot::channel();
        let request = ResolveRequest { sequences: vec![3, 4], among: None, resolution, by: None };
        rig.commit(|commit, group| commit.obey(Command::Resolve(request, asker), group));
        let answered = answer.try_recv().unwrap().unwrap();
        (answered.places, answered.resolved, answered.remaining, rig.unresolved())
    };
    assert_eq!(places(Resolution::Count), (vec![2, 3, 4], 0, 5, vec![(2, 6)]));
    assert_eq!(places(Resolution::Discard), (vec![2, 3, 4], 3, 2, vec![(5, 6)]));
}

/// Promise 3: also where the device said them in several messages of one time, and other readings came between.
#[test]
fn parts_of_one_device_time_go_together() {
    let folder = folder("free");
    let mut rig = rig(folder.path(), &timed_profile(""), 0);
    let at = rig.received(5_000).wall;
    let values = [("sys", 0), ("hr", 1), ("dia", 0), ("sys", 10), ("dia", 10)];
    for (counter, (name, later_ms)) in (1..).zip(values) {
        let moment: UnixMs = at.plus_ms(later_ms);
        rig.publish(&message(moment, counter, &format!(r#"{{"name": "{name}", "value": 80}}"#)), rig.received(1_000 - counter));
    }
    rig.settle(1..=5);
    assert_eq!(rig.resolve(&[(&[3], REPLAY)]), [(2, 3)]);
    assert_eq!(rig.said()[5..], ["nibp_sys#0 80", "nibp_dia#0 80"]);
    assert_eq!(rig.unresolved(), [(2, 2), (4, 5)], "of another time is another panel");
}

/// Promise 3: a request ends between two panels, not in one, also where each part came in a message of its own.
#[test]
fn a_request_does_not_end_within_a_panel() {
    let folder = folder("free");
    let mut rig = rig(folder.path(), &timed_profile(""), 0);
    let received = rig.received(1_000);
    for name in ["hr", "sys", "dia"] {
        rig.publish(&message(received.wall, 1, &format!(r#"{{"name": "{name}", "value": 80}}"#)), received);
    }
    let [first, sys, dia] = &rig.readings()[..] else { panic!("{:?}", rig.readings()) };
    let others = (4..=1_001).map(|number| {
        let mut other = first.clone();
        other.time.received.monotonic_ms += number;
        Entry::Reading(other)
    });
    let mut entries: Vec<_> = others.collect();
    for part in [sys, dia] {
        let mut part = part.clone();
        // Another panel, of another slot.
        part.slot = 1;
        part.time.received.monotonic_ms += 2_000 + u64::from(part.metric == dia.metric);
        entries.push(Entry::Reading(part));
    }
    rig.commit(|_, group| group.entries.extend(entries));
    rig.settle(3..=1_003);
    let request = ResolveRequest { sequences: vec![], among: None, resolution: REPLAY, by: None };
    let plan = rig.commit.plan(&request, "test", &Group::default()).unwrap();
    assert_eq!((plan.again.len(), plan.answered.not_reached), (1_001, Some((1_003, 1_003))));
}
