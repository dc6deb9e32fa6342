//! A replay for a destination that refused a reading is no second writing for those that took it: what became of it there since, an
//! Observation that somebody marked as wrong, stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use vitalgate_domain::{Change, DestinationId, Entry, Flags, Record, Sequence, SequenceRanges};
use vitalgate_store::KeyedError;

use super::CommitLoop;
use crate::replay::TOLD_TIME_MAX;
use crate::shared::Shared;

/// How long a replay waits until what each destination said is at hand.
const TOLD_PATIENCE: Duration = Duration::from_millis(250);
/// Most stretches that a destination may have settled apart from each other and still be spared: with too many of them the store forgets
/// the newest, which a running delivery does not tell again.
const SETTLED_RANGES_MAX: usize = 1_024;
/// Most refusals that are read: some came more than once.
const REFUSALS_MAX: usize = 64 * 1_024;

impl CommitLoop {
    /// What settles readings at their new places for those destinations that took them at the old ones. In doubt there is nothing: then
    /// they are sent to all once more, under the identity that they had.
    pub(super) fn taken_before(&self, places: &BTreeMap<Sequence, Sequence>) -> Vec<Change> {
        let settled = &self.journal.state().settled;
        let is_told_by_several = |old: &Sequence| settled.values().filter(|settled| settled.contains(*old)).count() > 1;
        let mut of = SequenceRanges::new();
        places.keys().filter(|old| is_told_by_several(old)).for_each(|old| of.insert(*old, *old));
        // With a damaged file a refusal may be lost, and what was refused would look like what was taken.
        let until = Instant::now() + TOLD_TIME_MAX;
        let may_be_told = !of.ranges().is_empty() && self.shared.damage().is_empty();
        if !may_be_told || !self.told.comes_to(self.replay.reader.committed_record(), TOLD_PATIENCE) {
            return Vec::new();
        }
        self.told_of(&of, places, until).unwrap_or_else(|error| {
            tracing::warn!(%error, "who has what is replayed cannot be said now: it goes to every destination");
            Vec::new()
        })
    }

    /// All that is asked for it is answered by that moment, or not known.
    pub(super) fn told_of(
        &self,
        of: &SequenceRanges,
        places: &BTreeMap<Sequence, Sequence>,
        until: Instant,
    ) -> Result<Vec<Change>, KeyedError> {
        let left = || until.saturating_duration_since(Instant::now());
        let refusals = self.told.refusals(of, REFUSALS_MAX, left())?;
        // One that was opened anew meanwhile may have answered without the last of them.
        if refusals.len() >= REFUSALS_MAX || !self.told.reaches(self.replay.reader.committed_record()) {
            return Ok(Vec::new());
        }
        let mut refused_by: BTreeMap<Sequence, BTreeSet<DestinationId>> = BTreeMap::new();
        for (destination, refused) in refusals {
            refused_by.entry(refused.sequence).or_default().insert(destination);
        }
        let mut changes = Vec::new();
        for (destination, settled) in &self.journal.state().settled {
            let mut had = SequenceRanges::new();
            let mut ranges = SequenceRanges::new();
            for (old, new) in places.iter().filter(|(old, _)| of.contains(**old) && settled.contains(**old)) {
                // Where nobody knows any more who refused it, anybody may have.
                if refused_by.get(old).is_some_and(|by| !by.contains(destination)) {
                    had.insert(*old, *old);
                    ranges.insert(*new, *new);
                }
            }
            if had.ranges().is_empty() || settled.ranges().len() + ranges.ranges().len() > SETTLED_RANGES_MAX {
                continue;
            }
            // They only help to trace it.
            let ids = self.told.ids_given(&had, destination, left());
            let remote_ids = ids.inspect_err(|error| tracing::warn!(%error, "under which id it has them is not noted")).unwrap_or_default();
            let remote_ids = remote_ids.into_iter().filter_map(|(old, id)| Some((*places.get(&old)?, id))).collect();
            let ranges = ranges.ranges().to_vec();
            changes.push(Change::Settled { destination: destination.clone(), ranges, rejected: Vec::new(), remote_ids });
        }
        Ok(changes)
    }
}

/// Marks among the records that a destination reads those that the replay settled for it: to it they are not sent.
pub(crate) fn spare(records: &mut [Record], shared: &Shared, destination: &DestinationId) {
    for record in records {
        if let Entry::Reading(reading) = &mut record.entry
            && reading.flags.contains(Flags::REPLAYED)
            && shared.is_settled(destination, record.sequence)
        {
            reading.flags = reading.flags.with(Flags::RESOLVED);
        }
    }
}
