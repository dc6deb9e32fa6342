//! Readings whose moment is not known, or not believed, because the clock was never set since power-on.
//! They wait until it is. The list is in memory; what it lacks is found again in the journal.

use std::collections::BTreeSet;

use vitalgate_domain::limits::READINGS_PER_SAMPLE_MAX;
use vitalgate_domain::{BootId, ClockTrust, Entry, Reading, ReadingTime, Record, Sequence, Subject};
use vitalgate_store::{ReadOutcome, Reader, State};

/// Most readings that are remembered by their places; more are looked for in the journal.
pub(crate) const REMEMBERED_MAX: usize = 16_384;
/// Most reads of the journal in one round of upkeep.
const READS_PER_ROUND_MAX: usize = 16;
/// Most entries of one such read.
const READ_ENTRIES_MAX: usize = 1_024;
/// Stored bytes that one such read may bring into memory.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// Where they stand.
#[derive(Debug, Default)]
pub(crate) struct Undated {
    remembered: BTreeSet<Sequence>,
    /// From the first to the last of these places there may be more.
    unseen: Option<(Sequence, Sequence)>,
}

impl Undated {
    /// Of the whole journal, for a gateway that starts: it may have been started before since power-on.
    pub(crate) fn of_journal(reader: &Reader) -> Self {
        let unseen = (reader.oldest(), reader.committed());
        Self { remembered: BTreeSet::new(), unseen: (unseen.0 <= unseen.1).then_some(unseen) }
    }

    /// Notes those among the entries of a commit, which stand from `first` on.
    pub(crate) fn note(&mut self, entries: &[Entry], first: Sequence, boot: BootId) {
        let undated = (0..).zip(entries).filter(|(_, entry)| is_undated(entry, boot)).map(|(offset, _)| first.plus(offset));
        let undated: Vec<Sequence> = undated.collect();
        let Some((first, last)) = undated.first().copied().zip(undated.last().copied()) else { return };
        if self.remembered.len() + undated.len() <= REMEMBERED_MAX {
            self.remembered.extend(undated);
        } else {
            // All of them: the readings of a sample get their moment together.
            self.unseen = Some(self.unseen.map_or((first, last), |(from, until)| (from.min(first), until.max(last))));
        }
    }

    /// Those that can get their moment, ascending. One that no destination was asked for yet stays. One that some destination refused
    /// and that is no dead letter any more was resolved: it is forgotten, however long another destination does not answer.
    pub(crate) fn take_ready(&mut self, state: &State) -> Vec<Sequence> {
        let ready = self.remembered.iter().copied().filter(|sequence| state.unresolved.contains(*sequence)).collect();
        self.remembered.retain(|sequence| !state.unresolved.contains(*sequence) && next_unasked(state, *sequence) == *sequence);
        ready
    }

    /// They did not get it after all.
    pub(crate) fn put_back(&mut self, sequences: impl IntoIterator<Item = Sequence>) {
        self.remembered.extend(sequences);
    }

    /// Looks through a part of what was not seen, as far as there is room.
    pub(crate) fn look_on(&mut self, reader: &Reader, state: &State, boot: BootId) {
        for _ in 0..READS_PER_ROUND_MAX {
            let Some((from, until)) = self.unseen else { return };
            if self.remembered.len() + READ_ENTRIES_MAX + READINGS_PER_SAMPLE_MAX > REMEMBERED_MAX {
                return;
            }
            let from = next_open(state, from).min(until.next());
            let last = until.min(from.plus(READ_ENTRIES_MAX as u64 - 1));
            let outcome = match reader.read(from, last, READ_ENTRIES_MAX, READ_BYTES_MAX) {
                Ok(outcome) => outcome,
                Err(error) => {
                    tracing::warn!(%error, "readings that wait for the clock cannot be looked for; trying again");
                    return;
                }
            };
            let (records, reached) = if outcome.reached < until { whole_samples(&outcome) } else { (&*outcome.records, outcome.reached) };
            self.remember_of(records, state, boot);
            self.unseen = (reached < until && from <= until).then_some((reached.next(), until));
            if reached < from {
                return;
            }
        }
    }

    fn remember_of(&mut self, records: &[Record], state: &State, boot: BootId) {
        let open = records.iter().filter(|record| next_open(state, record.sequence) == record.sequence);
        self.remembered.extend(open.filter(|record| is_undated(&record.entry, boot)).map(|record| record.sequence));
    }
}

/// What was read without the last sample, of which more may follow.
fn whole_samples(outcome: &ReadOutcome) -> (&[Record], Sequence) {
    let records = &*outcome.records;
    let Some(last) = records.last() else { return (records, outcome.reached) };
    let of_last = records.iter().rev().take_while(|record| record.entry.origin() == last.entry.origin()).count();
    match records.split_at(records.len() - of_last) {
        (whole, [first, ..]) if !whole.is_empty() => (whole, Sequence(first.sequence.0.saturating_sub(1))),
        _ => (records, outcome.reached),
    }
}

/// The first place from there on that is a dead letter or that no destination has settled.
fn next_open(state: &State, from: Sequence) -> Sequence {
    if state.unresolved.contains(from) {
        return from;
    }
    let dead_letter = state.unresolved.gap_end(from).map(Sequence::next);
    let unasked = next_unasked(state, from);
    dead_letter.map_or(unasked, |dead_letter| dead_letter.min(unasked))
}

/// The first place from there on that no destination has settled. None of them accepts what has no moment: what one has settled and is
/// no dead letter was resolved.
fn next_unasked(state: &State, mut from: Sequence) -> Sequence {
    loop {
        let behind = state.settled.values().map(|settled| settled.first_missing(from)).max().unwrap_or(from);
        if behind == from {
            return from;
        }
        from = behind;
    }
}

/// A reading of this power-on that is nobody's as long as there is no clock: it has no moment, or its device's time was compared with
/// none.
fn is_undated(entry: &Entry, boot: BootId) -> bool {
    let Entry::Reading(Reading { time: ReadingTime { received, .. }, subject, .. }) = entry else { return false };
    received.trust == ClockTrust::Unset && received.boot == boot && *subject == Subject::Unassigned
}
