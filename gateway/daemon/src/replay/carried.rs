//! Old dead letters go to the journal's end, so that what was stored after them can go when its time is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vitalgate_domain::{Change, DeadLetterKind, DeadLetterReason, DestinationId, Entry, Flags, RejectedReading, Sequence};
use vitalgate_store::keyed::Keyed;
use vitalgate_store::{KeyedCopy as _, KeyedError, Ordinal, State};

use super::Replay;
use super::window::Window;

/// Most entries that are moved out of one segment. One that holds more is not made smaller by it, and stays.
pub(crate) const CARRIED_ENTRIES_MAX: usize = 1_024;
/// Most bytes of them, about: a part of a segment, and of what one flush writes whole.
const CARRIED_BYTES_MAX: usize = 512 * 1024;
/// What a reading takes, about, and a dead letter beside its payload, in bytes.
const ENTRY_BYTES: usize = 256;
/// What is said where nobody knows any more why a reading was set aside.
const REASON_LOST: &str = "set aside before; the reason was lost with a damaged file";

/// What is known of readings beside the journal's entries.
pub(crate) trait Told: Send {
    /// Whether it knows all that was committed up to this record.
    fn reaches(&self, ordinal: Ordinal) -> bool;

    /// Why destinations refused or held readings in a range, at most `max`.
    ///
    /// # Errors
    /// When it cannot be said now.
    fn rejected(&self, from: Sequence, until: Sequence, max: usize) -> Result<Vec<(DestinationId, RejectedReading)>, KeyedError>;

    /// The id that a destination gave.
    ///
    /// # Errors
    /// When it cannot be said now.
    fn remote_id(&self, sequence: Sequence, destination: &DestinationId) -> Result<Option<Arc<str>>, KeyedError>;
}

impl Told for Arc<Keyed> {
    fn reaches(&self, ordinal: Ordinal) -> bool {
        self.applied().ordinal >= ordinal
    }

    fn rejected(&self, from: Sequence, until: Sequence, max: usize) -> Result<Vec<(DestinationId, RejectedReading)>, KeyedError> {
        Keyed::rejected(self, from, until, max)
    }

    fn remote_id(&self, sequence: Sequence, destination: &DestinationId) -> Result<Option<Arc<str>>, KeyedError> {
        Keyed::remote_id(self, sequence, destination)
    }
}

/// What is said where more would be moved than may be.
fn too_many() -> anyhow::Error {
    anyhow::anyhow!("more than {CARRIED_ENTRIES_MAX} entries, or {CARRIED_BYTES_MAX} bytes; replay or discard dead letters")
}

fn not_whole(sequence: Sequence) -> anyhow::Error {
    anyhow::anyhow!("entry {sequence} or its message is not whole any more; replay or discard it")
}

/// What one commit writes.
#[derive(Debug, PartialEq)]
pub(crate) struct Carried {
    /// The same entries once more.
    pub(crate) entries: Vec<Entry>,
    /// Their standing, as it was.
    pub(crate) changes: Vec<Change>,
}

impl Replay {
    /// Plans to move the dead letters in `first..=last`, which everything else may leave, to `next` and behind it. Nothing
    /// is sent by that: each destination's answer moves along. Of a message that was read in part the rest comes along
    /// too, since a replay is told by it what went already.
    ///
    /// # Errors
    /// When they stay where they are, and why.
    pub(crate) fn carry(
        &self,
        (first, last): (Sequence, Sequence),
        state: &State,
        next: Sequence,
        told: &dyn Told,
    ) -> anyhow::Result<Carried> {
        let letters = unresolved_in(state, first, last)?;
        let entries = self.entries_of(&letters)?;
        let places: BTreeMap<Sequence, Sequence> = entries.keys().copied().zip((0..).map(|offset| next.plus(offset))).collect();
        let mut changes = self.standing_of(&entries, &letters, &places, state, told)?;
        let (to, until) = places.values().next().zip(places.values().next_back()).ok_or_else(too_many)?;
        let note = Arc::from(format!("carried forward to {to} to {until}"));
        changes.push(Change::DeadLettersResolved { sequences: letters.into_iter().collect(), note });
        Ok(Carried { entries: entries.into_values().collect(), changes })
    }

    fn entries_of(&self, letters: &BTreeSet<Sequence>) -> anyhow::Result<BTreeMap<Sequence, Entry>> {
        let mut window = Window::new(&self.reader);
        let mut entries = BTreeMap::new();
        let mut bytes = 0;
        for letter in letters {
            let entry = window.come_to(*letter)?.ok_or_else(|| not_whole(*letter))?;
            if let Entry::DeadLetter(dead) = &entry {
                bytes += dead.bytes.len();
                for (sequence, reading) in window.rest_of_sample().ok_or_else(|| not_whole(*letter))? {
                    entries.insert(sequence, Entry::Reading(reading.clone()));
                }
            }
            entries.insert(*letter, entry);
            if entries.len() > CARRIED_ENTRIES_MAX || bytes + entries.len() * ENTRY_BYTES > CARRIED_BYTES_MAX {
                return Err(too_many());
            }
        }
        for entry in entries.values_mut() {
            if let Entry::Reading(reading) = entry {
                reading.flags = reading.flags.with(Flags::CARRIED);
            }
        }
        Ok(entries)
    }

    /// The destinations' answers, for the new places. One that is not configured any more has its answers told by another:
    /// to keep a name would make the journal wait for it.
    fn standing_of(
        &self,
        entries: &BTreeMap<Sequence, Entry>,
        letters: &BTreeSet<Sequence>,
        places: &BTreeMap<Sequence, Sequence>,
        state: &State,
        told: &dyn Told,
    ) -> anyhow::Result<Vec<Change>> {
        let known_max = CARRIED_ENTRIES_MAX * state.settled.len().max(1);
        let range = entries.keys().next().zip(entries.keys().next_back());
        let known = range.map(|(from, until)| told.rejected(*from, *until, known_max)).transpose()?.unwrap_or_default();
        if known.len() >= known_max {
            return Err(too_many());
        }
        let mut lost: BTreeSet<Sequence> = letters.clone();
        for (_, rejected) in &known {
            lost.remove(&rejected.sequence);
        }
        let ranges: Vec<_> = places.values().next().copied().zip(places.values().next_back().copied()).into_iter().collect();
        let mut changes = Vec::new();
        for (index, destination) in state.settled.keys().enumerate() {
            let is_theirs = |of: &DestinationId| of == destination || index == 0 && !state.settled.contains_key(of);
            let mut rejected: Vec<RejectedReading> = Vec::new();
            for (old, new) in places {
                let here = known.iter().filter(|(of, rejected)| rejected.sequence == *old && letters.contains(old) && is_theirs(of));
                rejected.extend(here.map(|(_, rejected)| RejectedReading { sequence: *new, ..rejected.clone() }));
                if let Some(Entry::Reading(reading)) = entries.get(old).filter(|_| index == 0 && lost.contains(old)) {
                    let reason = DeadLetterReason::new(DeadLetterKind::Rejected, REASON_LOST);
                    rejected.push(RejectedReading { sequence: *new, id: reading.id, reason });
                }
            }
            let mut remote_ids = Vec::new();
            for (old, new) in places.iter().filter(|(old, _)| !letters.contains(old)) {
                remote_ids.extend(told.remote_id(*old, destination)?.map(|id| (*new, id)));
            }
            changes.push(Change::Settled { destination: destination.clone(), ranges: ranges.clone(), rejected, remote_ids });
        }
        Ok(changes)
    }
}

fn unresolved_in(state: &State, first: Sequence, last: Sequence) -> anyhow::Result<BTreeSet<Sequence>> {
    let within = state.unresolved.ranges().iter().map(|(from, until)| ((*from).max(first), (*until).min(last)));
    let each = within.filter(|(from, until)| from <= until).flat_map(|(from, until)| (from.0..=until.0).map(Sequence));
    let letters: BTreeSet<Sequence> = each.take(CARRIED_ENTRIES_MAX + 1).collect();
    if letters.len() > CARRIED_ENTRIES_MAX { Err(too_many()) } else { Ok(letters) }
}
