//! A segment whose file is gone, though its entries were not reclaimed: made again from a copy.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use vitalgate_domain::{Change, Sequence};

use crate::copy::{BlockKind, KeyedCopy, KeyedError, Ordinal, whole};
use crate::files::{StoredFile, fill_with_zeros, read_full};
use crate::group::{Group, SealingPlace};
use crate::journal::random_number;
use crate::outbox::Outbox;
use crate::record::{RecordHeader, aligned, whole_record};
use crate::report::{Finding, Healer};
use crate::segment::{Mark, RECORDS_START, Segment, SegmentHeader, parse_name, segment_name};
use crate::space::Space;
use crate::state::State;
use crate::walker::WalkError;

/// A segment in the making that takes the place of a missing one.
pub(crate) const RESTORING: &str = "restored.new";

/// Most places that the keyed store is asked for to find one that it has: what comes before a dead letter may be gone.
const MISSING_PLACES_MAX: u64 = 512;
/// How long it is asked for them: nothing is acknowledged meanwhile.
const MISSING_TIME_MAX: Duration = Duration::from_secs(1);

/// A record of the missing segment with what its header says.
type Found = (RecordHeader, Vec<u8>);

impl Outbox {
    /// At opening: makes segments again that have a shadow and no file. A shadow comes after its segment's file
    /// is durable, and is gone for good before that file is reclaimed: one without a file has lost it. Gives
    /// the names.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn restore_from_shadows(&self) -> io::Result<Vec<String>> {
        let unfinished = self.journal_dir.join(RESTORING);
        if self.files.open(&unfinished).is_ok() {
            self.files.remove(&unfinished)?;
        }
        let present = self.files.list(&self.journal_dir)?;
        let mut restored = Vec::new();
        for name in self.files.list(&self.shadow_dir)? {
            let Some((first, ordinal)) = parse_name(&name) else { continue };
            if present.contains(&name) {
                continue;
            }
            let shadow = self.files.open(&self.shadow_dir.join(&name))?;
            if SegmentHeader::read(shadow.as_ref())?.is_none_or(|header| header.first != first || header.ordinal != ordinal) {
                continue;
            }
            self.make_again(&name, |file| copy(shadow.as_ref(), file, self.options.segment_bytes))?;
            self.findings.add(Finding::SegmentRestored { file: format!("journal/{name}"), from: Healer::Shadow });
            restored.push(name);
        }
        Ok(restored)
    }

    /// While reading: `before` ends at `place`, and the next segment begins later. If the keyed store has
    /// records of a segment that is not here, it is made again and listed. `true` where the place is in another
    /// segment than `before` now.
    ///
    /// # Errors
    /// When the keyed store cannot answer now.
    pub(crate) fn restore_after(&self, before: &Arc<Segment>, place: Mark) -> Result<bool, KeyedError> {
        let Some(keyed) = self.keyed() else { return Ok(false) };
        // One at a time: whoever comes second finds it done.
        let _restoring = self.restoring.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((holder, after)) = self.holding(place.ordinal) else { return Ok(false) };
        if !Arc::ptr_eq(&holder, before) {
            return Ok(true);
        }
        let Some(after) = after else { return Ok(false) };
        // The first record of a segment is a snapshot, of which the keyed store keeps the latest only.
        let first = match self.found(keyed.as_ref(), place.ordinal)? {
            Some(found) => Some(found),
            None => self.found(keyed.as_ref(), place.ordinal.next())?,
        };
        let theirs = |(header, _): &Found| header.segment != before.id && header.segment != after.id && header.first == place.sequence;
        let Some((known, _)) = first.filter(theirs).filter(|(header, _)| header.ordinal < after.ordinal) else { return Ok(false) };
        let wrapped = self.keyring.wrapped(known.key_id).unwrap_or_default();
        let header = SegmentHeader {
            id: known.segment,
            first: place.sequence,
            ordinal: place.ordinal,
            wall: after.wall,
            key_id: known.key_id,
            wrapped,
        };
        let name = segment_name(header.first, header.ordinal);
        let made = self.make_again(&name, |file| self.fill(file, |ordinal| self.found(keyed.as_ref(), ordinal), &header, after.ordinal));
        if let Err(error) = made {
            tracing::error!(%error, segment = name, "a missing segment cannot be made again now");
            // For want of space perhaps: it is not lost, and is tried again with the next read.
            return Err(KeyedError::Unavailable("a missing segment cannot be made again now".into()));
        }
        self.findings.add(Finding::SegmentRestored { file: format!("journal/{name}"), from: Healer::Keyed });
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let at = segments.partition_point(|segment| segment.ordinal <= header.ordinal);
        segments.insert(at, Arc::new(Segment::new(&header)));
        Ok(true)
    }

    /// The first dead letter that is in none of the segments here.
    pub(crate) fn missing_letter(&self, state: &State) -> Option<Sequence> {
        state.unresolved.ranges().first().map(|(first, _)| *first).filter(|first| *first < self.oldest().0)
    }

    /// Makes the segments again that hold dead letters from this one on, where no destination waits for anything in them. Nothing
    /// fails and nothing gives way for want of them: until the keyed store has answered it keeps what it has.
    pub(crate) fn restore_letters(&self, keyed: &dyn KeyedCopy, space: &Space, first: Sequence) {
        let Some(_restoring) = self.try_restoring() else { return };
        let restored = loop {
            if self.oldest().0 <= first {
                break Ok(());
            }
            // Readings need the room more.
            let room = if space.may_make() { Ok(()) } else { Err(WalkError::Io(io::ErrorKind::StorageFull.into())) };
            // What was set aside may bring back what is not here yet.
            let is_rebuilding = keyed.is_rebuilding();
            match room.and_then(|()| self.restore_before_oldest(keyed)) {
                Ok(true) => {}
                Ok(false) if is_rebuilding => break Err(KeyedError::Unavailable("it is being rebuilt".into()).into()),
                Ok(false) => {
                    self.findings.add(Finding::Lost { first, last: Sequence(self.oldest().0.0.saturating_sub(1)) });
                    break Ok(());
                }
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = &restored {
            tracing::error!(%error, "dead letters of the oldest part are missing; the keyed store, which may have them, cannot give them now");
            self.findings.add(Finding::Unanswered { first, last: Sequence(self.oldest().0.0.saturating_sub(1)) });
        }
        self.keeps_copies.store(restored.is_err(), Ordering::Relaxed);
    }

    /// At opening: what came just before the oldest segment was neither reclaimed nor is it here. If the keyed store has it, its
    /// segment is made again and listed, and `true` is given.
    ///
    /// # Errors
    /// When the disk does not take it, or the keyed store cannot answer now: then it is not lost, and must not be called so.
    pub(crate) fn restore_before_oldest(&self, keyed: &dyn KeyedCopy) -> Result<bool, WalkError> {
        let Some(oldest) = self.segments().first().cloned() else { return Ok(false) };
        self.restore_before(keyed, oldest.ordinal, Some(&oldest))
    }

    /// The same for what came just before this record, which begins the segment `after`, if there is any.
    ///
    /// # Errors
    /// As [`Outbox::restore_before_oldest`].
    pub(crate) fn restore_before(&self, keyed: &dyn KeyedCopy, end: Ordinal, after: Option<&Segment>) -> Result<bool, WalkError> {
        let found = |ordinal: Ordinal| whole(self.found(keyed, ordinal));
        let before = |ordinal: Ordinal| match ordinal.0.checked_sub(1) {
            Some(before) => found(Ordinal(before)).map(|found| found.map(|(header, _)| header)),
            None => Ok(None),
        };
        let is_another = |header: &RecordHeader| after.is_none_or(|after| header.segment != after.id);
        let Some(mut begin) = before(end)?.filter(is_another) else { return Ok(false) };
        while let Some(earlier) = before(begin.ordinal)?.filter(|earlier| earlier.segment == begin.segment) {
            begin = earlier;
        }
        // The first record of a segment is a snapshot, of which the keyed store keeps the latest only.
        let ordinal = if begin.kind == BlockKind::State { begin.ordinal } else { Ordinal(begin.ordinal.0.saturating_sub(1)) };
        self.learn_key(keyed, begin.key_id)?;
        let wrapped = self.keyring.wrapped(begin.key_id).unwrap_or_default();
        let wall = after.and_then(|after| after.wall);
        let header = SegmentHeader { id: begin.segment, first: begin.first, ordinal, wall, key_id: begin.key_id, wrapped };
        let name = segment_name(header.first, header.ordinal);
        self.make_again(&name, |file| self.fill(file, found, &header, end))?;
        self.findings.add(Finding::SegmentRestored { file: format!("journal/{name}"), from: Healer::Keyed });
        self.segments.write().unwrap_or_else(PoisonError::into_inner).insert(0, Arc::new(Segment::new(&header)));
        Ok(true)
    }

    /// The first entries between these that are in none of the segments here, and for which the keyed store keeps what it has.
    ///
    /// # Errors
    /// When it cannot answer now.
    pub(crate) fn missing_entries(&self, from: Sequence, until: Sequence) -> Result<Option<Found>, KeyedError> {
        let end = until.0.saturating_add(1).min(self.oldest().0.0).min(from.0.saturating_add(MISSING_PLACES_MAX));
        let keeps = self.keeps_copies() && from.0 < end;
        let Some(keyed) = self.keyed().filter(|_| keeps) else { return Ok(None) };
        let until = Instant::now() + MISSING_TIME_MAX;
        for sequence in (from.0..end).map(Sequence) {
            if Instant::now() > until {
                return Err(KeyedError::Unavailable("it takes too long".into()));
            }
            let Some(block) = keyed.block_covering(sequence)? else { continue };
            let Some((header, _)) = whole_record(&block.bytes) else { continue };
            self.learn_key(keyed.as_ref(), header.key_id)?;
            return Ok(Some((header, block.bytes)));
        }
        // What was set aside may bring back what is not here yet.
        if keyed.is_rebuilding() { Err(KeyedError::Unavailable("it is being rebuilt".into())) } else { Ok(None) }
    }

    /// A key that went with an earlier version may still be in the keyed store.
    fn learn_key(&self, keyed: &dyn KeyedCopy, key_id: u32) -> Result<(), KeyedError> {
        if self.keyring.wrapped(key_id).is_none() {
            let kept = keyed.wrapped_keys()?;
            kept.iter().filter(|(kept, _)| *kept == key_id).for_each(|(key_id, wrapped)| self.keyring.learn(*key_id, wrapped));
        }
        Ok(())
    }

    /// A whole record of the keyed store.
    fn found(&self, keyed: &dyn KeyedCopy, ordinal: Ordinal) -> Result<Option<Found>, KeyedError> {
        let Some(block) = keyed.block_at(ordinal)? else { return Ok(None) };
        let header = whole_record(&block.bytes).filter(|(header, record)| header.ordinal == ordinal && record.len() == block.bytes.len());
        Ok(header.map(|(header, _)| header).map(|header| (header, block.bytes)))
    }

    /// Everything that the keyed store has of the segment before `end`, until the first record that it has not.
    fn fill(
        &self,
        file: &dyn StoredFile,
        found: impl Fn(Ordinal) -> Result<Option<Found>, KeyedError>,
        segment: &SegmentHeader,
        end: Ordinal,
    ) -> Result<(), WalkError> {
        file.write_all_at(&segment.to_bytes(), 0)?;
        let (mut offset, mut ordinal, mut sequence) = (RECORDS_START, segment.ordinal, segment.first);
        while ordinal < end {
            let record = match found(ordinal)?.filter(|(header, _)| header.segment == segment.id && header.first == sequence) {
                Some((header, record)) => {
                    sequence = header.next_sequence();
                    record
                }
                None if ordinal == segment.ordinal => self.stand_in(segment)?,
                None => break,
            };
            let stride = aligned(record.len()) as u64;
            if offset + stride > self.options.segment_bytes {
                break;
            }
            file.write_all_at(&record, offset)?;
            offset += stride;
            ordinal = ordinal.next();
        }
        Ok(fill_with_zeros(file, offset, self.options.segment_bytes)?)
    }

    /// A record in the place of the snapshot that no copy has: later ones have been used since.
    fn stand_in(&self, segment: &SegmentHeader) -> io::Result<Vec<u8>> {
        let key = self.keyring.key(segment.key_id).map_err(io::Error::other)?;
        let run = random_number().map_err(io::Error::other)?;
        let (ordinal, first) = (segment.ordinal, segment.first);
        let place = SealingPlace { segment: segment.id, run, key_id: segment.key_id, key: &key, ordinal, first, previous: 0 };
        let (mut group, mut sealed) = (Group::default(), Vec::new());
        // It says nothing.
        let nothing = [Change::DeadLettersResolved { sequences: Vec::new(), note: Arc::default() }];
        group.take_changes(&nothing).and_then(|()| group.seal_into(&place, &mut sealed)).map_err(io::Error::other)?;
        Ok(sealed)
    }

    /// Writes a file beside and gives it its name when it is durable.
    fn make_again<E: From<io::Error>>(&self, name: &str, write: impl FnOnce(&dyn StoredFile) -> Result<(), E>) -> Result<(), E> {
        let unfinished = self.journal_dir.join(RESTORING);
        let written = self.files.create(&unfinished).map_err(E::from).and_then(|file| {
            write(file.as_ref())?;
            Ok(file.sync_all()?)
        });
        if let Err(error) = written {
            // What was written of it would only take room.
            let _gone = self.files.remove(&unfinished);
            return Err(error);
        }
        self.files.rename(&unfinished, &self.journal_dir.join(Path::new(name)))?;
        Ok(self.files.sync_dir(&self.journal_dir)?)
    }
}

/// What `from` holds, and zeros up to the full length.
fn copy(from: &dyn StoredFile, to: &dyn StoredFile, segment_bytes: u64) -> io::Result<()> {
    const CHUNK_BYTES: usize = 1024 * 1024;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    while offset < segment_bytes {
        let wanted = usize::try_from(segment_bytes - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let room = chunk.get_mut(..wanted).unwrap_or_default();
        let read = read_full(from, room, offset)?;
        to.write_all_at(room.get(..read).unwrap_or_default(), offset)?;
        offset += read as u64;
        if read < wanted {
            return fill_with_zeros(to, offset, segment_bytes);
        }
    }
    Ok(())
}
