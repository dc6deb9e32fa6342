//! What is known about the entries: settled, refused, seen. Rebuilt at each opening from the last
//! segment's snapshot and the records after it; bounded in every direction.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use vitalgate_domain::limits::DESTINATIONS_MAX;
use vitalgate_domain::{Change, DestinationId, DeviceId, Entry, Flags, SeenReading, Sequence, SequenceRanges, UnixMs};
use vitalgate_domain::{ClockTrust, Received};

/// Most recent ids kept for one device.
pub(crate) const SEEN_PER_DEVICE_MAX: usize = 1_024;
/// Most recent ids kept together, while each device may have [`SEEN_PER_DEVICE_MIN`].
pub(crate) const SEEN_TOTAL_MAX: usize = 65_536;
/// Recent ids that a device keeps however many devices there are.
pub(crate) const SEEN_PER_DEVICE_MIN: usize = 64;
/// Most devices whose recent ids are kept; more than are configured at once, since devices change.
pub(crate) const SEEN_DEVICES_MAX: usize = 2_048;
/// Most ranges kept for one destination. A part beyond them is forgotten: it is delivered again.
pub(crate) const SETTLED_RANGES_MAX: usize = 4_096;
/// Destinations written to by conditional create, after which those are forgotten that are no longer configured.
pub(crate) const CONDITIONAL_MAX: usize = 8 * DESTINATIONS_MAX;
/// Most ranges of unresolved dead letters. Beyond them the oldest are joined with their neighbours: more is kept, not less.
/// As many as fit into a snapshot beside the rest: 11 bytes each, up to entry 4,294,967,295; two devices of which only one has a
/// patient take a day and a half for that at a reading a second.
pub(crate) const UNRESOLVED_RANGES_MAX: usize = 131_072;

/// What is known about the entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// What each configured destination has settled.
    pub settled: BTreeMap<DestinationId, SequenceRanges>,
    /// The destinations that were written to by conditional create. One that is no longer configured stays here while there is
    /// room: it may come back, and holds what it held.
    pub conditional: BTreeSet<DestinationId>,
    /// Recent readings by device, oldest first: what a resend is told by.
    pub seen: Vec<(DeviceId, Vec<SeenReading>)>,
    /// Entries that are dead letters, and readings that a destination refused or that are held,
    /// until they are resolved.
    pub unresolved: SequenceRanges,
    /// The latest trusted wall clock that an entry carried.
    pub latest_wall: Option<UnixMs>,
}

impl State {
    /// Whether every configured destination has settled all of `first..=last`. With no
    /// destination nothing is settled.
    #[must_use]
    pub fn settled_everywhere(&self, first: Sequence, last: Sequence) -> bool {
        !self.settled.is_empty() && self.settled.values().all(|ranges| ranges.first_missing(first) > last)
    }

    /// Whether an unresolved dead letter lies in `first..=last`.
    #[must_use]
    pub fn unresolved_in(&self, first: Sequence, last: Sequence) -> bool {
        self.unresolved.contains(first) || self.unresolved.gap_end(first).is_some_and(|end| end < last)
    }
}

/// The state with what makes keeping it quick.
#[derive(Debug, Default)]
pub(crate) struct StateKeeper {
    state: State,
    places: HashMap<DeviceId, usize>,
}

impl StateKeeper {
    pub(crate) fn new(state: State) -> Self {
        let places = state.seen.iter().enumerate().map(|(place, (device, _))| (device.clone(), place)).collect();
        Self { state, places }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn apply_entry(&mut self, sequence: Sequence, entry: &Entry) {
        match entry {
            Entry::Reading(reading) => {
                // One that was moved is not new: it would push out what is.
                if !reading.flags.contains(Flags::CARRIED) {
                    self.see(&reading.device, SeenReading::from(reading));
                }
                self.notice(&reading.time.received);
            }
            Entry::DeadLetter(letter) => {
                self.state.unresolved.insert(sequence, sequence);
                bound_unresolved(&mut self.state.unresolved);
                self.notice(&letter.received);
            }
            Entry::DeviceEvent(event) => self.notice(&event.received),
        }
    }

    pub(crate) fn apply_change(&mut self, change: &Change) {
        match change {
            Change::Settled { destination, ranges, rejected, .. } => {
                // What the destination had settled already was told then, and may be resolved since.
                let before = self.state.settled.get(destination);
                let is_new = |place: &Sequence| before.is_none_or(|settled| !settled.contains(*place));
                let dead_letters: Vec<_> = rejected.iter().map(|rejected| rejected.sequence).filter(is_new).collect();
                let known = self.state.settled.len() < DESTINATIONS_MAX || self.state.settled.contains_key(destination);
                if known {
                    let settled = self.state.settled.entry(destination.clone()).or_default();
                    ranges.iter().for_each(|(first, last)| settled.insert(*first, *last));
                    bound_settled(settled);
                }
                dead_letters.into_iter().for_each(|place| self.state.unresolved.insert(place, place));
                bound_unresolved(&mut self.state.unresolved);
            }
            Change::DeadLettersResolved { sequences, .. } => {
                remove(&mut self.state.unresolved, sequences);
            }
            Change::Destinations { present, from } => {
                self.state.settled.retain(|destination, _| present.contains(destination));
                for destination in present.iter().take(DESTINATIONS_MAX) {
                    self.state.settled.entry(destination.clone()).or_insert_with(|| before(*from));
                }
            }
            Change::WrittenConditionally { destination } => {
                let State { settled, conditional, .. } = &mut self.state;
                if conditional.len() >= CONDITIONAL_MAX {
                    conditional.retain(|known| settled.contains_key(known));
                }
                conditional.insert(destination.clone());
            }
        }
    }

    /// Moves the latest known wall clock on; retention is counted against it. A clock that follows a time service also sets
    /// back what another one was ahead.
    pub(crate) fn note_time(&mut self, now: &Received) {
        match now.trust {
            ClockTrust::Unset | ClockTrust::Free => self.notice(now),
            ClockTrust::Synchronised | ClockTrust::Authenticated => self.state.latest_wall = Some(now.wall),
        }
    }

    /// What was reclaimed before this entry, every destination had settled.
    pub(crate) fn begin_at(&mut self, oldest: Sequence) {
        let reclaimed = Sequence(oldest.0.saturating_sub(1));
        self.state.settled.values_mut().for_each(|settled| settled.insert(Sequence::FIRST, reclaimed));
    }

    /// Forgets the older half of the recent ids; `false` when there is none left to forget.
    pub(crate) fn halve_seen(&mut self) -> bool {
        let before: usize = self.state.seen.iter().map(|(_, ids)| ids.len()).sum();
        for (_, ids) in &mut self.state.seen {
            ids.drain(..ids.len().div_ceil(2));
        }
        before > 0
    }

    fn notice(&mut self, received: &Received) {
        if received.trust != ClockTrust::Unset {
            self.state.latest_wall = self.state.latest_wall.max(Some(received.wall));
        }
    }

    fn see(&mut self, device: &DeviceId, reading: SeenReading) {
        let place = match self.places.get(device) {
            Some(place) => *place,
            None => {
                if self.state.seen.len() >= SEEN_DEVICES_MAX {
                    return;
                }
                let place = self.state.seen.len();
                self.state.seen.push((device.clone(), Vec::new()));
                self.places.insert(device.clone(), place);
                place
            }
        };
        let kept_max = (SEEN_TOTAL_MAX / self.state.seen.len().max(1)).clamp(SEEN_PER_DEVICE_MIN, SEEN_PER_DEVICE_MAX);
        if let Some((_, kept)) = self.state.seen.get_mut(place) {
            kept.push(reading);
            // Cut rarely, so that the cost per id stays small.
            if kept.len() >= 2 * kept_max {
                kept.drain(..kept.len() - kept_max);
            }
        }
    }
}

fn before(from: Sequence) -> SequenceRanges {
    let mut ranges = SequenceRanges::new();
    ranges.insert(Sequence::FIRST, Sequence(from.0.saturating_sub(1)));
    ranges
}

/// All of them in one pass: there may be many ranges.
fn remove(ranges: &mut SequenceRanges, sequences: &[Sequence]) {
    let gone: BTreeSet<Sequence> = sequences.iter().copied().collect();
    let mut rest = SequenceRanges::new();
    for (first, last) in ranges.ranges() {
        let mut from = *first;
        for place in gone.range(first..=last) {
            rest.insert(from, Sequence(place.0.saturating_sub(1)));
            from = place.next();
        }
        rest.insert(from, *last);
    }
    *ranges = rest;
}

fn bound_settled(ranges: &mut SequenceRanges) {
    if ranges.ranges().len() > SETTLED_RANGES_MAX {
        let mut kept = SequenceRanges::new();
        ranges.ranges().iter().take(SETTLED_RANGES_MAX).for_each(|(first, last)| kept.insert(*first, *last));
        *ranges = kept;
    }
}

fn bound_unresolved(ranges: &mut SequenceRanges) {
    if ranges.ranges().len() > UNRESOLVED_RANGES_MAX {
        let (oldest, rest) = ranges.ranges().split_at(UNRESOLVED_RANGES_MAX / 8);
        let pairs = oldest.chunks(2).filter_map(|pair| Some((pair.first()?.0, pair.last()?.1)));
        let mut joined = SequenceRanges::new();
        pairs.chain(rest.iter().copied()).for_each(|(first, last)| joined.insert(first, last));
        *ranges = joined;
    }
}

#[cfg(test)]
mod tests {
    use vitalgate_domain::ReadingId;

    use super::*;

    #[test]
    fn nothing_is_settled_everywhere_while_no_destination_is_known() {
        let mut keeper = StateKeeper::default();
        assert!(!keeper.state().settled_everywhere(Sequence(1), Sequence(1)));
        let [first, second] = ["a", "b"].map(|name| DestinationId::new(name).unwrap());
        keeper.apply_change(&Change::Destinations { present: vec![first.clone()], from: Sequence(1) });
        let settled = |destination: &DestinationId, last| Change::Settled {
            destination: destination.clone(),
            ranges: vec![(Sequence(1), Sequence(last))],
            rejected: vec![],
            remote_ids: vec![],
        };
        keeper.apply_change(&settled(&first, 9));
        assert!(keeper.state().settled_everywhere(Sequence(1), Sequence(9)));
        // A second destination from 5 on has not taken 5 to 9.
        keeper.apply_change(&Change::Destinations { present: vec![first, second.clone()], from: Sequence(5) });
        assert!(keeper.state().settled_everywhere(Sequence(1), Sequence(4)));
        assert!(!keeper.state().settled_everywhere(Sequence(1), Sequence(5)));
        keeper.apply_change(&settled(&second, 9));
        assert!(keeper.state().settled_everywhere(Sequence(1), Sequence(9)));
    }

    #[test]
    fn an_unresolved_dead_letter_is_found_in_its_range_until_it_is_resolved() {
        let mut keeper = StateKeeper::default();
        keeper.state.unresolved.insert(Sequence(5), Sequence(7));
        assert!(keeper.state().unresolved_in(Sequence(1), Sequence(5)));
        assert!(!keeper.state().unresolved_in(Sequence(1), Sequence(4)));
        keeper.apply_change(&Change::DeadLettersResolved { sequences: vec![Sequence(5), Sequence(7)], note: "test".into() });
        assert_eq!(keeper.state().unresolved.ranges(), [(Sequence(6), Sequence(6))]);
        assert!(keeper.state().unresolved_in(Sequence(6), Sequence(6)));
        assert!(!keeper.state().unresolved_in(Sequence(7), Sequence(100)));
    }

    /// Promise 4: a device without a patient beside one that delivers makes no dead letter of what was delivered, for days.
    #[test]
    fn what_was_delivered_between_dead_letters_is_none() {
        let mut keeper = StateKeeper::default();
        let ehr = DestinationId::new("ehr").unwrap();
        keeper.apply_change(&Change::Destinations { present: vec![ehr.clone()], from: Sequence(1) });
        let reason = vitalgate_domain::DeadLetterReason::new(vitalgate_domain::DeadLetterKind::Unassigned, "test");
        let held = |place| vitalgate_domain::RejectedReading {
            sequence: Sequence(place),
            id: ReadingId::from_bytes([0; 16]),
            reason: reason.clone(),
        };
        for batch in 0..80 {
            let places = batch * 500 + 1..=(batch + 1) * 500;
            keeper.apply_change(&Change::Settled {
                destination: ehr.clone(),
                ranges: vec![(Sequence(*places.start()), Sequence(*places.end()))],
                rejected: places.filter(|place| place % 2 == 1).map(held).collect(),
                remote_ids: vec![],
            });
        }
        let unresolved = &keeper.state().unresolved;
        assert!((1..=40_000).all(|place| unresolved.contains(Sequence(place)) == (place % 2 == 1)));
        let resolved = Change::DeadLettersResolved { sequences: (1..=1_999).step_by(2).map(Sequence).collect(), note: "test".into() };
        keeper.apply_change(&resolved);
        let unresolved = &keeper.state().unresolved;
        assert!((1..=40_000).all(|place| unresolved.contains(Sequence(place)) == (place > 1_999 && place % 2 == 1)));
    }

    /// Beyond the bound no dead letter is forgotten, and what came lately is still told apart from what was delivered.
    #[test]
    fn too_many_dead_letters_are_joined_from_the_oldest_on() {
        let mut ranges = SequenceRanges::new();
        let places = || (1..=UNRESOLVED_RANGES_MAX as u64 + 20_000).map(|number| 2 * number);
        for place in places().map(Sequence) {
            ranges.insert(place, place);
            bound_unresolved(&mut ranges);
            assert!(ranges.ranges().len() <= UNRESOLVED_RANGES_MAX);
        }
        assert!(places().all(|place| ranges.contains(Sequence(place))));
        let lately = places().skip(UNRESOLVED_RANGES_MAX / 2);
        assert!(lately.clone().all(|place| !ranges.contains(Sequence(place + 1))));
    }

    /// Promise 4: what a destination has settled already makes no dead letter anew; what another one has settled does.
    #[test]
    fn a_destination_makes_a_dead_letter_of_an_entry_once() {
        let mut keeper = StateKeeper::default();
        let present = ["a", "b"].map(|name| DestinationId::new(name).unwrap());
        keeper.apply_change(&Change::Destinations { present: present.to_vec(), from: Sequence(1) });
        let reason = vitalgate_domain::DeadLetterReason::new(vitalgate_domain::DeadLetterKind::Unassigned, "test");
        let rejected = vitalgate_domain::RejectedReading { sequence: Sequence(3), id: ReadingId::from_bytes([0; 16]), reason };
        let held = |destination: &DestinationId| Change::Settled {
            destination: destination.clone(),
            ranges: vec![(Sequence(1), Sequence(9))],
            rejected: vec![rejected.clone()],
            remote_ids: vec![],
        };
        let resolved = Change::DeadLettersResolved { sequences: vec![Sequence(3)], note: "test".into() };
        let [first, second] = &present;
        for (change, expected) in [
            (held(first), true),
            (resolved.clone(), false),
            (held(first), false),
            (held(second), true),
            (resolved, false),
            (held(second), false),
        ] {
            keeper.apply_change(&change);
            assert_eq!(keeper.state().unresolved.contains(Sequence(3)), expected, "{change:?}");
        }
    }

    /// No reading is stored twice because its destination left the configuration for a while; and what is kept stays bounded.
    #[test]
    fn a_destination_that_was_written_to_conditionally_is_known_as_such_when_it_comes_back() {
        let mut keeper = StateKeeper::default();
        let name = |number: usize| DestinationId::new(&format!("ehr-{number}")).unwrap();
        let present = |present| Change::Destinations { present, from: Sequence(1) };
        keeper.apply_change(&present(vec![name(0)]));
        keeper.apply_change(&Change::WrittenConditionally { destination: name(0) });
        keeper.apply_change(&present(vec![name(1)]));
        keeper.apply_change(&present(vec![name(0)]));
        assert!(keeper.state().conditional.contains(&name(0)));
        for number in 1..10 * CONDITIONAL_MAX {
            keeper.apply_change(&Change::WrittenConditionally { destination: name(number) });
            assert!(keeper.state().conditional.len() <= CONDITIONAL_MAX);
            assert!(keeper.state().conditional.contains(&name(number)));
        }
        assert!(keeper.state().conditional.contains(&name(0)), "it is configured");
    }

    #[test]
    fn recent_ids_stay_bounded_and_are_the_latest() {
        let mut keeper = StateKeeper::default();
        let device = DeviceId::new("m1").unwrap();
        for number in 0..10_000u128 {
            keeper.see(&device, SeenReading { id: ReadingId::from_bytes(number.to_be_bytes()), value_digest: 1 });
        }
        let kept = &keeper.state().seen[0].1;
        assert!(kept.len() < 2 * SEEN_PER_DEVICE_MAX && kept.len() >= SEEN_PER_DEVICE_MAX);
        assert_eq!(kept.last().unwrap().id.as_bytes(), &9_999u128.to_be_bytes());
    }
}
