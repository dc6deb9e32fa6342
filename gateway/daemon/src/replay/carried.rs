//! Old dead letters go to the journal's end, so that what was stored after them can go when its time is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vitalgate_domain::{
    Change, DeadLetter, DeadLetterKind, DeadLetterReason, DestinationId, DeviceId, Entry, Flags, Now, RejectedReading, Sequence,
    SequenceRanges,
};
use vitalgate_store::keyed::Keyed;
use vitalgate_store::{KeyedCopy as _, KeyedError, Ordinal, State};

use super::Replay;
use super::window::Window;

/// Most entries that are moved out of one segment. One that holds more is not made smaller by it, and stays.
pub(crate) const CARRIED_ENTRIES_MAX: usize = 1_024;
/// Most bytes of them, about: a part of a segment, and of what one flush writes whole.
const CARRIED_BYTES_MAX: usize = 512 * 1024;
/// What a reading takes, about, and a dead letter or a reason beside its text, in bytes.
const ENTRY_BYTES: usize = 256;
/// Most places of dead letters that are looked at: a stretch that cannot be read takes one entry, however long it is.
const LETTERS_MAX: usize = 8 * CARRIED_ENTRIES_MAX;
/// Most refusals that are read: some came more than once.
const REFUSALS_MAX: usize = 64 * CARRIED_ENTRIES_MAX;
/// Most bytes of the reasons that are moved, about: with the entries they fit into a segment.
const REASONS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long the commit loop asks at most, all in all, for one replay or one moving of dead letters, beside reading what is
/// missing: nothing is acknowledged meanwhile.
pub(crate) const TOLD_TIME_MAX: Duration = Duration::from_secs(3);
/// What is said where nobody knows any more why a reading was set aside.
const REASON_LOST: &str = "set aside before; the reason was lost with a damaged file";
/// What is said of the rest of a message where it was resolved.
const RESOLVED_BEFORE: &str = "replayed or discarded before it was carried forward";
/// Who is named where nobody knows any more what stood there.
const NO_DEVICE: &str = "unknown";

/// By place, the ids that a destination gave.
pub(crate) type IdsGiven = BTreeMap<Sequence, Arc<str>>;

/// What is known of readings beside the journal's entries.
pub(crate) trait Told: Send {
    /// Whether it knows all that was committed up to this record.
    fn reaches(&self, ordinal: Ordinal) -> bool;

    /// The same, once it had this time for it.
    fn comes_to(&self, ordinal: Ordinal, _within: Duration) -> bool {
        self.reaches(ordinal)
    }

    /// Why destinations refused or held these readings, the newest reason last, at most `max`.
    ///
    /// # Errors
    /// When it cannot be said within this time.
    fn refusals(&self, of: &SequenceRanges, max: usize, within: Duration) -> Result<Vec<(DestinationId, RejectedReading)>, KeyedError>;

    /// The ids that a destination gave to these.
    ///
    /// # Errors
    /// When it cannot be said within this time.
    fn ids_given(&self, of: &SequenceRanges, destination: &DestinationId, within: Duration) -> Result<IdsGiven, KeyedError>;
}

impl Told for Arc<Keyed> {
    fn reaches(&self, ordinal: Ordinal) -> bool {
        self.applied().ordinal >= ordinal
    }

    fn comes_to(&self, ordinal: Ordinal, within: Duration) -> bool {
        self.wait_reached(ordinal, false, within)
    }

    fn refusals(&self, of: &SequenceRanges, max: usize, within: Duration) -> Result<Vec<(DestinationId, RejectedReading)>, KeyedError> {
        self.rejected_among(of.clone(), max, within)
    }

    fn ids_given(&self, of: &SequenceRanges, destination: &DestinationId, within: Duration) -> Result<IdsGiven, KeyedError> {
        self.remote_ids(of.clone(), destination, within)
    }
}

/// What is said where more would be moved than may be.
fn too_many() -> anyhow::Error {
    anyhow::anyhow!("more than {CARRIED_ENTRIES_MAX} entries, or {CARRIED_BYTES_MAX} bytes; replay or discard dead letters")
}

/// What one commit writes.
#[derive(Debug, PartialEq)]
pub(crate) struct Carried {
    /// The same entries once more.
    pub(crate) entries: Vec<Entry>,
    /// Their standing, as it was.
    pub(crate) changes: Vec<Change>,
}

/// By old place, the last that each destination said.
type Refusals = BTreeMap<Sequence, BTreeMap<DestinationId, RejectedReading>>;

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
        now: &Now,
    ) -> anyhow::Result<Carried> {
        let letters = unresolved_in(state, first, last)?;
        let mut entries = self.entries_of(&letters, now)?;
        let readings = entries.iter().filter(|(_, entry)| matches!(entry, Entry::Reading(_)));
        let mut of = SequenceRanges::new();
        readings.for_each(|(sequence, _)| of.insert(*sequence, *sequence));
        let told_by = Instant::now() + TOLD_TIME_MAX;
        let refusals = refusals_of(&of, told)?;
        // The rest of a message that was refused: it went again since, to another patient perhaps, or is for nobody.
        let resolved: BTreeSet<Sequence> = refusals.keys().copied().filter(|sequence| !letters.contains(sequence)).collect();
        for (sequence, entry) in &mut entries {
            let Entry::Reading(reading) = entry else { continue };
            let marks = if resolved.contains(sequence) { Flags::CARRIED.with(Flags::RESOLVED) } else { Flags::CARRIED };
            reading.flags = reading.flags.with(marks);
        }
        let places: BTreeMap<Sequence, Sequence> = entries.keys().copied().zip((0..).map(|offset| next.plus(offset))).collect();
        let (to, until) = places.values().next().copied().zip(places.values().next_back().copied()).ok_or_else(too_many)?;
        let rejected = rejected_by(&entries, &letters, &places, refusals, state);
        let mut changes = Vec::new();
        for destination in state.settled.keys() {
            let remote_ids = told.ids_given(&of, destination, told_by.saturating_duration_since(Instant::now()))?;
            let remote_ids = remote_ids.into_iter().filter_map(|(old, id)| Some((*places.get(&old)?, id))).collect();
            let rejected = rejected.get(destination).cloned().unwrap_or_default();
            changes.push(Change::Settled { destination: destination.clone(), ranges: vec![(to, until)], rejected, remote_ids });
        }
        changes.extend(self.of_departed(rejected, state));
        let note = Arc::from(format!("carried forward to {to} to {until}"));
        changes.push(Change::DeadLettersResolved { sequences: letters.into_iter().collect(), note });
        if !resolved.is_empty() {
            let sequences = resolved.iter().filter_map(|old| places.get(old).copied()).collect();
            changes.push(Change::DeadLettersResolved { sequences, note: RESOLVED_BEFORE.into() });
        }
        Ok(Carried { entries: entries.into_values().collect(), changes })
    }

    /// What destinations said that have left the configuration keeps their names. The journal must not wait for them again: the
    /// last change says who is configured.
    fn of_departed(&self, rejected: BTreeMap<DestinationId, Vec<RejectedReading>>, state: &State) -> Vec<Change> {
        let departed = rejected.into_iter().filter(|(destination, _)| !state.settled.contains_key(destination));
        let mut changes: Vec<Change> =
            departed.map(|(destination, rejected)| Change::Settled { destination, ranges: vec![], rejected, remote_ids: vec![] }).collect();
        if !changes.is_empty() {
            let present = state.settled.keys().cloned().collect();
            changes.push(Change::Destinations { present, from: self.reader.oldest() });
        }
        changes
    }

    fn entries_of(&self, letters: &BTreeSet<Sequence>, now: &Now) -> anyhow::Result<BTreeMap<Sequence, Entry>> {
        let reader = self.reader.with_missing();
        let mut window = Window::new(&reader);
        let mut entries = BTreeMap::new();
        let mut unreadable = SequenceRanges::new();
        let mut bytes = 0;
        for letter in letters {
            match window.come_to(*letter)? {
                None => unreadable.insert(*letter, *letter),
                Some(Entry::DeadLetter(mut dead)) => {
                    bytes += dead.bytes.len();
                    match window.rest_of_sample() {
                        Some(rest) => entries.extend(rest.into_iter().map(|(place, reading)| (place, Entry::Reading(reading.clone())))),
                        None => dead.reason = without_rest(&dead.reason),
                    }
                    entries.insert(*letter, Entry::DeadLetter(dead));
                }
                Some(entry) => {
                    entries.insert(*letter, entry);
                }
            }
            let count = entries.len() + unreadable.ranges().len();
            if count > CARRIED_ENTRIES_MAX || bytes + count * ENTRY_BYTES > CARRIED_BYTES_MAX {
                return Err(too_many());
            }
        }
        for (first, last) in unreadable.ranges() {
            entries.insert(*first, Entry::DeadLetter(stand_in(*first, *last, now)?));
        }
        Ok(entries)
    }
}

/// A letter that is left alone says so: a replay must not take it for the whole message.
fn without_rest(reason: &DeadLetterReason) -> DeadLetterReason {
    if reason.kind == DeadLetterKind::Damaged {
        return reason.clone();
    }
    let detail = format!("what came with it cannot be read any more; {}: {}", reason.kind.word(), reason.detail);
    DeadLetterReason::new(DeadLetterKind::Damaged, &detail)
}

/// What stands for dead letters that no copy holds any more: they must not keep what can be read.
fn stand_in(first: Sequence, last: Sequence, now: &Now) -> anyhow::Result<DeadLetter> {
    let detail = format!("number {first} to {last}: every copy on disk is damaged; see `vitalgate store check`; nothing brings it back");
    let reason = DeadLetterReason::new(DeadLetterKind::Damaged, &detail);
    Ok(DeadLetter { device: DeviceId::new(NO_DEVICE)?, channel: Arc::from(""), received: *now, reason, bytes: Vec::new() })
}

fn refusals_of(of: &SequenceRanges, told: &dyn Told) -> anyhow::Result<Refusals> {
    let told = told.refusals(of, REFUSALS_MAX, TOLD_TIME_MAX)?;
    if told.len() >= REFUSALS_MAX {
        return Err(too_many());
    }
    let mut refusals = Refusals::new();
    for (destination, rejected) in told {
        refusals.entry(rejected.sequence).or_default().insert(destination, rejected);
    }
    let each = refusals.values().flat_map(BTreeMap::values);
    let bytes: usize = each.map(|rejected| ENTRY_BYTES + rejected.reason.detail.len()).sum();
    if bytes > REASONS_BYTES_MAX { Err(too_many()) } else { Ok(refusals) }
}

/// Who refused what, for the new places. Where nobody knows that of a letter any more, no destination is said to have it.
fn rejected_by(
    entries: &BTreeMap<Sequence, Entry>,
    letters: &BTreeSet<Sequence>,
    places: &BTreeMap<Sequence, Sequence>,
    mut refusals: Refusals,
    state: &State,
) -> BTreeMap<DestinationId, Vec<RejectedReading>> {
    let mut rejected: BTreeMap<DestinationId, Vec<RejectedReading>> = BTreeMap::new();
    for (old, new) in places {
        let Some(Entry::Reading(reading)) = entries.get(old) else { continue };
        let here = refusals.remove(old).unwrap_or_else(|| {
            let reason = DeadLetterReason::new(DeadLetterKind::Rejected, REASON_LOST);
            let lost = RejectedReading { sequence: *old, id: reading.id, reason };
            let who = state.settled.keys().filter(|_| letters.contains(old));
            who.map(|destination| (destination.clone(), lost.clone())).collect()
        });
        for (destination, refused) in here {
            rejected.entry(destination).or_default().push(RejectedReading { sequence: *new, ..refused });
        }
    }
    rejected
}

fn unresolved_in(state: &State, first: Sequence, last: Sequence) -> anyhow::Result<BTreeSet<Sequence>> {
    let within = state.unresolved.ranges().iter().map(|(from, until)| ((*from).max(first), (*until).min(last)));
    let each = within.filter(|(from, until)| from <= until).flat_map(|(from, until)| (from.0..=until.0).map(Sequence));
    let letters: BTreeSet<Sequence> = each.take(LETTERS_MAX + 1).collect();
    if letters.len() > LETTERS_MAX { Err(too_many()) } else { Ok(letters) }
}
