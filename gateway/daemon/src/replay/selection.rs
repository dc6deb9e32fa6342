//! Which dead letters one request takes.

use std::collections::BTreeSet;

use vitalgate_console::ResolveRequest;
use vitalgate_domain::{Sequence, SequenceRanges};

/// Most dead letters that one request resolves.
pub(crate) const RESOLVED_PER_REQUEST_MAX: usize = 1_000;

/// What one request takes, and what it leaves to the next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// Each once, ascending.
    pub(super) taken: Vec<Sequence>,
    /// The first that is left and the last place up to which one may be.
    pub(super) left: Option<(Sequence, Sequence)>,
}

impl Selection {
    /// What the request names and is unresolved, the oldest first, as many as one request takes.
    pub(super) fn of(request: &ResolveRequest, unresolved: &SequenceRanges) -> Self {
        let (from, until) = request.among.unwrap_or((0, u64::MAX));
        if request.sequences.is_empty() {
            let every = unresolved.ranges().iter().flat_map(|(first, last)| first.0.max(from)..=last.0.min(until));
            let newest = unresolved.ranges().last().map(|(_, last)| last.0.min(until));
            return Self::first_of(every, newest);
        }
        // One that is named twice is one.
        let named: BTreeSet<u64> = request.sequences.iter().copied().filter(|place| (from..=until).contains(place)).collect();
        let held = named.iter().copied().filter(|place| unresolved.contains(Sequence(*place)));
        Self::first_of(held, named.last().copied())
    }

    fn first_of(mut every: impl Iterator<Item = u64>, newest: Option<u64>) -> Self {
        let taken = every.by_ref().take(RESOLVED_PER_REQUEST_MAX).map(Sequence).collect();
        Self { taken, left: every.next().zip(newest).map(|(next, newest)| (Sequence(next), Sequence(newest))) }
    }

    /// Leaves to the next request what came with the first that is left: `sample` is where that
    /// sample begins. A request that is all one sample stays as it is.
    pub(super) fn end_before(&mut self, sample: Sequence) {
        let kept = self.taken.partition_point(|taken| *taken < sample);
        let begins = self.taken.get(kept).copied();
        if let (Some(begins), Some((next, _))) = (begins.filter(|_| kept > 0), &mut self.left) {
            self.taken.truncate(kept);
            *next = begins;
        }
    }

    /// Takes these as well.
    pub(super) fn add(&mut self, others: Vec<Sequence>) {
        self.taken.extend(others);
        self.taken.sort_unstable();
        self.taken.dedup();
    }

    /// Leaves all from `next` on to the next request.
    pub(super) fn leave_from(&mut self, next: Sequence) {
        let newest = self.left.map(|(_, newest)| newest).or(self.taken.last().copied()).unwrap_or(next);
        self.taken.truncate(self.taken.partition_point(|taken| *taken < next));
        self.left = Some((next, newest));
    }
}

/// The set without some of its members.
pub(crate) fn without(ranges: &SequenceRanges, members: &BTreeSet<Sequence>) -> SequenceRanges {
    if members.is_empty() {
        return ranges.clone();
    }
    let mut rest = SequenceRanges::new();
    for (first, last) in ranges.ranges() {
        let mut from = *first;
        for member in members.range(*first..=*last) {
            rest.insert(from, Sequence(member.0.saturating_sub(1)));
            from = member.next();
        }
        rest.insert(from, *last);
    }
    rest
}

/// How many sequences a set holds.
pub(crate) fn count(ranges: &SequenceRanges) -> u64 {
    ranges.ranges().iter().map(|(first, last)| last.0 - first.0 + 1).sum()
}

#[cfg(test)]
mod tests {
    use vitalgate_console::Resolution;

    use super::*;

    fn request(sequences: Vec<u64>) -> ResolveRequest {
        ResolveRequest { sequences, among: None, resolution: Resolution::Replay, by: None }
    }

    /// Promise 4: all means all, also behind a thousand that cannot be read again, and what comes meanwhile is not waited for.
    #[test]
    fn request_after_request_comes_to_each_dead_letter_once() {
        for named in [vec![], (0..5_000).rev().collect()] {
            let mut unresolved = SequenceRanges::default();
            unresolved.insert(Sequence(5), Sequence(1_199));
            unresolved.insert(Sequence(2_000), Sequence(3_899));
            let mut request = request(named);
            let mut reached = Vec::new();
            loop {
                let mut selection = Selection::of(&request, &unresolved);
                if let (0, Some(third)) = (reached.len() % 3, selection.taken.get(300).copied()) {
                    selection.leave_from(third);
                }
                let Selection { taken, left } = selection;
                assert!(!taken.is_empty() && taken.len() <= RESOLVED_PER_REQUEST_MAX);
                reached.extend(taken.iter().map(|sequence| sequence.0));
                let came = Sequence(10_000 + reached.len() as u64);
                unresolved.insert(came, came);
                let Some((next, newest)) = left else { break };
                request.among = Some((next.0, newest.0));
            }
            assert_eq!(reached, (5..1_200).chain(2_000..3_900).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_that_is_named_twice_is_taken_once() {
        let mut unresolved = SequenceRanges::default();
        unresolved.insert(Sequence(5), Sequence(9));
        let selection = Selection::of(&request(vec![7, 4, 7, 5, 7]), &unresolved);
        assert_eq!(selection, Selection { taken: vec![Sequence(5), Sequence(7)], left: None });
    }

    #[test]
    fn a_request_ends_where_a_sample_ends() {
        let mut unresolved = SequenceRanges::default();
        unresolved.insert(Sequence(1), Sequence(1_500));
        let of_all = || Selection::of(&request(vec![]), &unresolved);
        assert_eq!(of_all().left, Some((Sequence(1_001), Sequence(1_500))));
        for (sample, last, next) in [(1_000, 999, 1_000), (1_001, 1_000, 1_001), (1, 1_000, 1_001)] {
            let mut selection = of_all();
            selection.end_before(Sequence(sample));
            assert_eq!((selection.taken.last().unwrap().0, selection.left.unwrap().0.0), (last, next));
        }
    }

    #[test]
    fn what_is_resolved_in_the_same_commit_is_no_dead_letter_any_more() {
        let mut unresolved = SequenceRanges::default();
        unresolved.insert(Sequence(5), Sequence(9));
        unresolved.insert(Sequence(20), Sequence(20));
        let rest = without(&unresolved, &[5, 7, 8, 20, 30].map(Sequence).into());
        assert_eq!(rest.ranges(), [(Sequence(6), Sequence(6)), (Sequence(9), Sequence(9))]);
        assert_eq!(without(&unresolved, &BTreeSet::new()), unresolved);
    }
}
