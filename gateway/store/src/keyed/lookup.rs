//! The thread that answers questions, in short ranges and bounded steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use vitalgate_domain::{Change, DestinationId, Entry, ReadingId, Record, RejectedReading, Sequence, SequenceRanges};

use super::layout::{Slot, Trees, delivered_key, destination_hash, device_hash, rejected_key, take_u32, take_u64};
use super::room::too_little;
use super::shared::Shared;
use super::summary::{Summary, fingerprint};
use super::watch::{KeyedStatus, Worker};
use crate::copy::{BlockKind, BlockSource, KeyedError, Ordinal, SealedBlock, SharedSource};
use crate::nearest::{Around, Nearest, Search, latest, was_resolved};

/// Questions that may wait.
pub(super) const QUEUE_MAX: usize = 32;
/// Index entries read in one piece of work.
const INDEX_CHUNK: usize = 64;
/// Keys of `delivered` or `rejected` looked at in one piece of work.
const SETTLED_KEYS_MAX: usize = 4_096;
/// Records nearest to a moment that are kept in mind to be opened for one answer.
const CANDIDATES_MAX: usize = 4_096;

/// One question, answered on the reader's thread.
pub(super) type Question = Box<dyn FnOnce(&Lookups) + Send>;

/// The body of the reader's thread: ends when nobody can ask any more.
pub(super) fn run(shared: &Arc<Shared>, questions: &Receiver<Question>) {
    while let Ok(question) = questions.recv() {
        question(&Lookups { shared: Arc::clone(shared), until: Instant::now() + shared.times.lookup / 2 });
    }
}

/// Puts a question and waits for the answer, but never longer than the deadline, nor than `within`.
pub(super) fn ask<T: Send + 'static>(
    shared: &Shared,
    questions: &SyncSender<Question>,
    within: Duration,
    work: impl FnOnce(&Lookups) -> Result<T, KeyedError> + Send + 'static,
) -> Result<T, KeyedError> {
    let deadline = shared.times.lookup.min(within);
    let until = Instant::now() + deadline;
    match shared.watch.wait_open(deadline) {
        KeyedStatus::Running => {}
        KeyedStatus::Opening => return Err(KeyedError::Unavailable("it is still being opened".into())),
        KeyedStatus::Waiting(reason) => return Err(KeyedError::Unavailable(reason)),
        KeyedStatus::Stopped => return Err(KeyedError::Unavailable("it is shut down".into())),
        KeyedStatus::Failed(failure) => return Err(failure),
    }
    let (tell, hear) = sync_channel(1);
    let question: Question = Box::new(move |lookups| {
        // Who asked may have given up: the next one must not wait for that.
        if Instant::now() < until {
            let _ = tell.try_send(work(lookups));
        }
    });
    match questions.try_send(question) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => return Err(KeyedError::Unavailable("too many lookups at once".into())),
        Err(TrySendError::Disconnected(_)) => return Err(KeyedError::Unavailable("its reader has ended".into())),
    }
    match hear.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Disconnected) => Err(KeyedError::Unavailable("the lookup broke off".into())),
        Err(RecvTimeoutError::Timeout) => match shared.watch.status() {
            KeyedStatus::Failed(failure) => Err(failure),
            _ => Err(KeyedError::Unavailable(format!("no answer within {} ms", deadline.as_millis()))),
        },
    }
}

/// The answers.
pub(super) struct Lookups {
    shared: Arc<Shared>,
    /// A search that takes longer stops here and says how far it came.
    until: Instant,
}

type Chunk = Vec<(Sequence, Summary)>;

impl Lookups {
    fn call<T>(&self, work: impl FnOnce(&Trees) -> Result<T, sled::Error>) -> Result<T, KeyedError> {
        let open = self.shared.trees().ok_or_else(|| KeyedError::Unavailable("it is being set aside".into()))?;
        if !self.shared.has_room() {
            return Err(too_little());
        }
        let answer = self.shared.watch.call(Worker::Reader, "a lookup", self.shared.times.call.min(CALL_MAX), || work(&open));
        if answer.is_err() && self.shared.watch.met_full() {
            // The feeder opens it anew.
            self.shared.wish(|wishes| wishes.committed = true);
        }
        answer
    }

    fn source(&self) -> Result<SharedSource, KeyedError> {
        let source = super::watch::lock(&self.shared.source).clone();
        source.ok_or_else(|| KeyedError::Unavailable("no journal is attached yet".into()))
    }

    /// The record at an ordinal.
    pub(super) fn block_at(&self, ordinal: Ordinal) -> Result<Option<SealedBlock>, KeyedError> {
        match self.call(|trees| trees.slot(ordinal))? {
            Slot::Block(block) => Ok(Some(block)),
            Slot::Absent | Slot::Superseded | Slot::Lost(_) => Ok(None),
            Slot::Damaged => Err(KeyedError::Damaged(format!("its record {} is not whole", ordinal.0))),
        }
    }

    /// The record of entries that holds the sequence.
    pub(super) fn block_covering(&self, sequence: Sequence) -> Result<Option<SealedBlock>, KeyedError> {
        let chunk = self.call(|trees| index_below(trees, sequence.next(), 1))?;
        let Some((_, summary)) = chunk.into_iter().next().filter(|(_, summary)| !summary.lost) else { return Ok(None) };
        Ok(self.block_at(summary.ordinal)?.filter(|block| block.covers(sequence)))
    }

    /// The latest snapshot.
    pub(super) fn latest_state(&self) -> Result<Option<SealedBlock>, KeyedError> {
        match self.call(Trees::snapshot)? {
            Some(ordinal) => Ok(self.block_at(ordinal)?.filter(|block| block.kind == BlockKind::State)),
            None => Ok(None),
        }
    }

    /// The wrapped data keys.
    pub(super) fn wrapped_keys(&self) -> Result<Vec<(u32, Vec<u8>)>, KeyedError> {
        self.call(Trees::wrapped_keys)
    }

    /// Walks the index from below `below` towards the oldest, newest record first, until `look`
    /// says that it is enough or the time is over. Gives back where to go on, and what is lost there.
    fn walk(
        &self,
        below: Sequence,
        mut look: impl FnMut(Sequence, &Summary) -> Result<bool, KeyedError>,
    ) -> Result<(Option<Sequence>, SequenceRanges), KeyedError> {
        let mut below = below;
        let mut lost = SequenceRanges::new();
        loop {
            let chunk: Chunk = self.call(|trees| index_below(trees, below, INDEX_CHUNK))?;
            let ended = chunk.len() < INDEX_CHUNK;
            for (first, summary) in chunk {
                below = first;
                if summary.lost {
                    lose(&mut lost, first, summary.count);
                }
                if look(first, &summary)? {
                    return Ok((None, lost));
                }
            }
            if ended {
                return Ok((None, lost));
            }
            if Instant::now() >= self.until {
                return Ok((Some(below), lost));
            }
        }
    }

    /// The entries of a record; none of one that is gone, and `None` of one that does not open, which was told when it came.
    fn open(&self, source: &dyn BlockSource, ordinal: Ordinal) -> Result<Option<Vec<Record>>, KeyedError> {
        let Some(block) = self.block_at(ordinal)? else { return Ok(Some(Vec::new())) };
        Ok(source.open_entries(&block).ok())
    }

    /// The [`latest`] reading with that id below a sequence.
    pub(super) fn find_id(&self, id: ReadingId, below: Sequence) -> Result<Search<Option<Record>>, KeyedError> {
        let (source, wanted) = (self.source()?, fingerprint(&id));
        let mut found = None;
        let mut unread = SequenceRanges::new();
        let (below, mut lost) = self.walk(below, |first, summary| {
            if !summary.may_hold_id(wanted) {
                return Ok(false);
            }
            match self.open(source.as_ref(), summary.ordinal)? {
                Some(records) => {
                    let same = |record: &Record| matches!(&record.entry, Entry::Reading(reading) if reading.id == id);
                    found = records.into_iter().rev().filter(same).fold(found.take(), |newer, record| latest(newer, Some(record)));
                }
                None => lose(&mut unread, first, summary.count),
            }
            Ok(found.as_ref().is_some_and(|found| !was_resolved(found)))
        })?;
        unread.ranges().iter().for_each(|(first, last)| lost.insert(*first, *last));
        Ok(Search { found, below, lost })
    }

    /// The readings and dead letters of a device nearest to a moment, below a sequence. The index tells where they may be; only
    /// those records are opened, the nearest first, until nothing nearer can come.
    pub(super) fn find_device(&self, around: Around, max: usize, below: Sequence) -> Result<Search<Nearest>, KeyedError> {
        let (source, hash) = (self.source()?, device_hash(&around.device));
        let mut candidates = BTreeMap::new();
        let mut are_dropped = false;
        let (below, mut lost) = self.walk(below, |first, summary| {
            let distance = summary.distance(hash, around.at).filter(|distance| *distance <= around.window_ms);
            if let Some(distance) = distance {
                candidates.insert((distance, first), (summary.ordinal, summary.count));
            }
            if candidates.len() > CANDIDATES_MAX {
                candidates.pop_last();
                are_dropped = true;
            }
            Ok(false)
        })?;
        let mut found = Nearest::new(around, max);
        // The rest of the time is for the way back: who asked must still be there.
        let until = self.until + self.shared.times.lookup / 4;
        for ((distance, first), (ordinal, count)) in candidates {
            if !found.has_room_at(distance) || Instant::now() >= until {
                are_dropped = true;
                break;
            }
            match self.open(source.as_ref(), ordinal)? {
                Some(records) => records.into_iter().for_each(|record| found.take(record)),
                None => lose(&mut lost, first, count),
            }
        }
        if are_dropped {
            found.cut();
        }
        Ok(Search { found, below, lost })
    }

    /// What destinations refused for good of these, ascending, the newest of one place last, at most `max`.
    pub(super) fn rejected(&self, of: &SequenceRanges, max: usize) -> Result<Vec<(DestinationId, RejectedReading)>, KeyedError> {
        let source = self.source()?;
        let mut places: BTreeMap<Ordinal, BTreeSet<Sequence>> = BTreeMap::new();
        let (mut begin, mut left) = (rejected_key(Sequence(0), 0, Ordinal(0)), max);
        loop {
            let room = left.min(SETTLED_KEYS_MAX);
            let page = self.call(|trees| rejected_among(trees, of, begin, room))?;
            for (sequence, _, ordinal) in &page {
                places.entry(*ordinal).or_default().insert(*sequence);
            }
            left -= page.len();
            let Some((sequence, destination, ordinal)) = page.last().filter(|_| page.len() == room && left > 0) else { break };
            begin = rejected_key(*sequence, *destination, ordinal.next());
            self.in_time()?;
        }
        let mut found = Vec::new();
        for (ordinal, sequences) in places {
            let changes = self.changes(source.as_ref(), ordinal)?;
            for (destination, rejected, _) in settled(&changes) {
                let here = rejected.iter().filter(|reading| sequences.contains(&reading.sequence));
                found.extend(here.map(|reading| (destination.clone(), reading.clone())));
            }
        }
        found.sort_by_key(|(_, reading)| reading.sequence);
        found.truncate(max);
        Ok(found)
    }

    /// The ids that a destination gave to these entries, the newest each.
    pub(super) fn remote_ids(&self, of: &SequenceRanges, destination: &DestinationId) -> Result<BTreeMap<Sequence, Arc<str>>, KeyedError> {
        let source = self.source()?;
        let hash = destination_hash(destination);
        let mut found = BTreeMap::new();
        for ordinal in self.delivered_at(hash, of)? {
            let changes = self.changes(source.as_ref(), ordinal)?;
            for (_, _, remote_ids) in settled(&changes).filter(|(name, ..)| *name == destination) {
                found.extend(remote_ids.iter().filter(|(sequence, _)| of.contains(*sequence)).cloned());
            }
        }
        Ok(found)
    }

    /// Where a destination's ids for these may be.
    fn delivered_at(&self, destination: u32, of: &SequenceRanges) -> Result<BTreeSet<Ordinal>, KeyedError> {
        let mut found = BTreeSet::new();
        let Some(((lowest, _), (_, highest))) = of.ranges().first().zip(of.ranges().last()) else { return Ok(found) };
        let mut end = delivered_key(destination, highest.next(), Ordinal(0));
        // A key that begins below the lowest may still name it.
        let mut below = 0;
        while below < SETTLED_KEYS_MAX {
            let page = self.call(|trees| delivered_among(trees, destination, of, end))?;
            found.extend(page.iter().filter(|key| key.is_named).map(|key| key.ordinal));
            below += page.iter().filter(|key| key.begin <= *lowest).count();
            let Some(last) = page.last().filter(|_| page.len() == SETTLED_KEYS_MAX) else { break };
            end = delivered_key(destination, last.begin, last.ordinal);
            self.in_time()?;
        }
        Ok(found)
    }

    /// A part of an answer must not be taken for all of it.
    fn in_time(&self) -> Result<(), KeyedError> {
        let is_over = Instant::now() >= self.until;
        if is_over { Err(KeyedError::Unavailable("there is more than could be looked through in time".into())) } else { Ok(()) }
    }

    fn changes(&self, source: &dyn BlockSource, ordinal: Ordinal) -> Result<Vec<Change>, KeyedError> {
        let Some(block) = self.block_at(ordinal)? else { return Ok(Vec::new()) };
        source.open_changes(&block).map_err(|error| KeyedError::Damaged(error.to_string()))
    }
}

/// Longest that one piece of a lookup may take.
const CALL_MAX: Duration = Duration::from_secs(10);

type Settled<'a> = (&'a DestinationId, &'a [RejectedReading], &'a [(Sequence, Arc<str>)]);

fn settled(changes: &[Change]) -> impl Iterator<Item = Settled<'_>> {
    changes.iter().filter_map(|change| match change {
        Change::Settled { destination, rejected, remote_ids, .. } => Some((destination, rejected.as_slice(), remote_ids.as_slice())),
        _ => None,
    })
}

fn lose(lost: &mut SequenceRanges, first: Sequence, count: u32) {
    if let Some(beyond) = count.checked_sub(1) {
        lost.insert(first, Sequence(first.0.saturating_add(u64::from(beyond))));
    }
}

/// The index entries that begin below a sequence, newest first.
fn index_below(trees: &Trees, below: Sequence, max: usize) -> Result<Chunk, sled::Error> {
    let mut chunk = Vec::with_capacity(max);
    for entry in trees.index.range(..below.0.to_be_bytes()).rev().take(max) {
        let (key, value) = entry?;
        let first = Sequence(take_u64(&key, 0).unwrap_or_default());
        // One that does not decode is passed over here; the first look and the scrub report it.
        chunk.push((first, Summary::decode(&value).unwrap_or_else(|| Summary::lost(Ordinal(0), 0))));
    }
    Ok(chunk)
}

/// A key of `rejected`.
type RejectedKey = (Sequence, u32, Ordinal);

/// The keys of `rejected` from `begin` on that name these, at most `max`.
fn rejected_among(trees: &Trees, of: &SequenceRanges, begin: [u8; 20], max: usize) -> Result<Vec<RejectedKey>, sled::Error> {
    let ranges = of
        .ranges()
        .iter()
        .map(|(from, until)| (rejected_key(*from, 0, Ordinal(0)).max(begin), rejected_key(*until, u32::MAX, Ordinal(u64::MAX))));
    let keys = ranges.filter(|(first, last)| first <= last).flat_map(|(first, last)| trees.rejected.range(first..=last).keys());
    let mut found = Vec::new();
    for key in keys.take(max) {
        let key = key?;
        if let (Some(sequence), Some(destination), Some(ordinal)) = (take_u64(&key, 0), take_u32(&key, 8), take_u64(&key, 12)) {
            found.push((Sequence(sequence), destination, Ordinal(ordinal)));
        }
    }
    Ok(found)
}

/// A key of `delivered`.
struct DeliveredKey {
    begin: Sequence,
    ordinal: Ordinal,
    /// Whether one of those that were asked for is among the entries that it names.
    is_named: bool,
}

/// The keys of `delivered` before `end`, the last first, at most [`SETTLED_KEYS_MAX`].
fn delivered_among(trees: &Trees, destination: u32, of: &SequenceRanges, end: [u8; 20]) -> Result<Vec<DeliveredKey>, sled::Error> {
    let mut found = Vec::new();
    for entry in trees.delivered.range(delivered_key(destination, Sequence(0), Ordinal(0))..end).rev().take(SETTLED_KEYS_MAX) {
        let (key, value) = entry?;
        let (Some(begin), Some(ordinal)) = (take_u64(&key, 4), take_u64(&key, 12)) else { continue };
        let mut differences = value.chunks_exact(4).filter_map(|bytes| take_u32(bytes, 0));
        let is_named = differences.any(|difference| of.contains(Sequence(begin.saturating_add(u64::from(difference)))));
        found.push(DeliveredKey { begin: Sequence(begin), ordinal: Ordinal(ordinal), is_named });
    }
    Ok(found)
}
