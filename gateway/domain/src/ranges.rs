//! A set of sequences as inclusive ranges: what a destination has settled.

use serde::{Deserialize, Serialize};

use crate::identity::Sequence;

/// Disjoint, non-adjacent, ascending inclusive ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SequenceRanges(Vec<(Sequence, Sequence)>);

impl SequenceRanges {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `first..=last`; an empty range (`first > last`) adds nothing.
    pub fn insert(&mut self, first: Sequence, last: Sequence) {
        if first > last {
            return;
        }
        // Ranges that end before `first - 1` stay untouched, those that start after `last + 1` too.
        let start = self.0.partition_point(|range| range.1.next() < first);
        let end = self.0.partition_point(|range| range.0 <= last.next());
        let low = self.0.get(start).filter(|_| start < end).map_or(first, |range| range.0.min(first));
        let high =
            end.checked_sub(1).filter(|&index| index >= start).and_then(|index| self.0.get(index)).map_or(last, |range| range.1.max(last));
        self.0.splice(start..end, [(low, high)]);
    }

    /// Whether the sequence is in the set.
    #[must_use]
    pub fn contains(&self, sequence: Sequence) -> bool {
        let index = self.0.partition_point(|range| range.1 < sequence);
        self.0.get(index).is_some_and(|range| range.0 <= sequence)
    }

    /// The first sequence at or after `from` that is not in the set.
    #[must_use]
    pub fn first_missing(&self, from: Sequence) -> Sequence {
        let index = self.0.partition_point(|range| range.1 < from);
        match self.0.get(index) {
            Some(range) if range.0 <= from => range.1.next(),
            _ => from,
        }
    }

    /// The end of the gap that starts at `from`: the last sequence before the next range, or `None`
    /// when no range follows.
    #[must_use]
    pub fn gap_end(&self, from: Sequence) -> Option<Sequence> {
        let index = self.0.partition_point(|range| range.1 < from);
        self.0.get(index).map(|range| Sequence(range.0.0.saturating_sub(1)))
    }

    /// The ranges, ascending.
    #[must_use]
    pub fn ranges(&self) -> &[(Sequence, Sequence)] {
        &self.0
    }

    /// How many sequences of `1..=last` are not in the set.
    #[must_use]
    pub fn missing_up_to(&self, last: Sequence) -> u64 {
        let held: u64 = self.0.iter().filter(|range| range.0 <= last).map(|range| range.1.min(last).0 - range.0.0 + 1).sum();
        last.0.saturating_sub(held)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A cursor that forgot one settled sequence would deliver twice; one that invented one would lose it.
        #[test]
        fn the_set_holds_exactly_what_was_inserted(inserts in prop::collection::vec((1u64..60, 0u64..9), 0..40)) {
            let mut ranges = SequenceRanges::new();
            let mut model = BTreeSet::new();
            for (first, length) in inserts {
                ranges.insert(Sequence(first), Sequence(first + length));
                model.extend(first..=first + length);
            }
            for sequence in 1..80 {
                prop_assert_eq!(ranges.contains(Sequence(sequence)), model.contains(&sequence));
                let missing = (sequence..).find(|candidate| !model.contains(candidate)).unwrap();
                prop_assert_eq!(ranges.first_missing(Sequence(sequence)), Sequence(missing));
            }
            prop_assert!(ranges.ranges().windows(2).all(|pair| pair[0].1.next() < pair[1].0));
            prop_assert_eq!(ranges.missing_up_to(Sequence(80)), 80 - model.len() as u64);
        }
    }
}
