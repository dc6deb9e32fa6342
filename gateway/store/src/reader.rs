//! Reading what is committed, front to back in bounded memory, from the page cache.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use vitalgate_domain::{Change, Entry, ReadingId, Record, Sequence, SequenceRanges};

use crate::copy::{BlockKind, KeyedError, Ordinal, Watermark};
use crate::nearest::{Around, Nearest, Search, latest};
use crate::outbox::{Copies, OpenBlockError, Outbox};
use crate::record::RecordHeader;
use crate::report::Finding;
use crate::segment::Mark;
use crate::walker::{Step, WalkError, Walker};

/// What a read came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOutcome {
    /// The entries, in order.
    pub records: Vec<Record>,
    /// Every sequence from `from` up to here was looked at; `from - 1` when there was nothing to look at.
    pub reached: Sequence,
    /// Ranges that no copy has any more, inclusive.
    pub damaged: Vec<(Sequence, Sequence)>,
}

/// Why a read failed. It may be tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed.
    #[error("the journal cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// A damaged record may be in the keyed store, which does not answer.
    #[error("a damaged record cannot be restored now")]
    Copy(#[source] KeyedError),
    /// A data key cannot be had just now.
    #[error("a data key cannot be had: {0}")]
    Key(String),
}

impl From<WalkError> for ReadError {
    fn from(error: WalkError) -> Self {
        match error {
            WalkError::Io(error) => Self::Io(error),
            WalkError::Copy(error) => Self::Copy(error),
        }
    }
}

/// A reader of committed entries. Each clone remembers its own place, so that reading on is quick.
pub struct Reader {
    outbox: Arc<Outbox>,
    place: Mutex<Option<Mark>>,
    with_missing: bool,
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        Self { with_missing: self.with_missing, ..Self::new(Arc::clone(&self.outbox)) }
    }
}

impl Reader {
    pub(crate) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, place: Mutex::default(), with_missing: false }
    }

    /// One that also reads what is in no segment here from the keyed store, while that keeps what it has for it. Where it does not answer,
    /// the whole read fails: only for who cannot do without.
    #[must_use]
    pub fn with_missing(&self) -> Self {
        Self { with_missing: true, ..self.clone() }
    }

    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// The last committed sequence, 0 when there is none.
    #[must_use]
    pub fn committed(&self) -> Sequence {
        self.outbox.committed_sequence()
    }

    /// The first sequence that is still here; older ones are settled and gone.
    #[must_use]
    pub fn oldest(&self) -> Sequence {
        self.outbox.oldest().0
    }

    /// Bytes of the journal that hold something: what is made ahead of its use does not count.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let segments = self.outbox.segments();
        let [full @ .., active] = segments.as_slice() else { return 0 };
        self.outbox.options.segment_bytes.saturating_mul(full.len() as u64).saturating_add(active.end())
    }

    /// Calls `listener` with the last committed sequence after each commit. It must return at once.
    pub fn subscribe(&self, listener: Box<dyn Fn(Sequence) + Send + Sync>) {
        self.outbox.listen(Box::new(move |watermark: Watermark| listener(watermark.sequence)));
    }

    /// Everything found damaged so far, at opening and since, oldest first; bounded.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.outbox.findings.all()
    }

    /// Reads entries from `from` to `until`, both inclusive, until `entries_max` entries or about
    /// `bytes_max` stored bytes are reached (at least one entry, if there is one).
    ///
    /// # Errors
    /// When the disk fails, or a damaged record cannot be restored just now.
    pub fn read(&self, from: Sequence, until: Sequence, entries_max: usize, bytes_max: usize) -> Result<ReadOutcome, ReadError> {
        let limit = self.outbox.committed();
        let until = until.min(limit.sequence);
        let mut read = Reading::new(from, until, entries_max.max(1), bytes_max);
        if from > until {
            return Ok(read.outcome);
        }
        if self.with_missing
            && let Some((header, record)) = self.outbox.missing_entries(from, until).map_err(ReadError::Copy)?
        {
            read.take(&self.outbox, &header, &record)?;
            return Ok(read.outcome);
        }
        let mut walker = self.walker(from, limit);
        loop {
            let before = walker.place();
            if before.sequence > until {
                read.outcome.reached = until;
                break;
            }
            let step = match walker.next() {
                // What comes before it first: the next read tells.
                Err(_) if read.outcome.reached >= from => break,
                step => step?,
            };
            match step {
                Step::Record(header) => {
                    if !read.take(&self.outbox, &header, walker.record())? {
                        // The rest of the record is for the next read.
                        self.remember(if read.outcome.reached.next() >= header.next_sequence() { walker.place() } else { before });
                        return Ok(read.outcome);
                    }
                }
                Step::Lost { first, until: lost, .. } => read.lost(first, lost.sequence),
                Step::End => {
                    read.outcome.reached = until;
                    break;
                }
            }
        }
        self.remember(walker.place());
        Ok(read.outcome)
    }

    fn walker(&self, from: Sequence, limit: Watermark) -> Walker {
        let remembered = *self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let nearest = self.outbox.place_of(from).map(|(_, mark)| mark);
        let place = remembered.filter(|mark| mark.sequence <= from && nearest.is_none_or(|nearest| nearest.ordinal <= mark.ordinal));
        match place {
            Some(place) => Walker::new(&self.outbox, place, limit, Copies::All),
            None => Walker::from_sequence(&self.outbox, from, limit, Copies::All),
        }
    }

    fn remember(&self, place: Mark) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }

    /// One entry; `None` when it is not committed, gone, or lost in every copy.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn get(&self, sequence: Sequence) -> Result<Option<Record>, ReadError> {
        let outcome = self.read(sequence, sequence, 1, usize::MAX)?;
        Ok(outcome.records.into_iter().find(|record| record.sequence == sequence))
    }

    /// The last committed record, changes included.
    #[must_use]
    pub fn committed_record(&self) -> Ordinal {
        self.outbox.committed().ordinal
    }

    /// The [`latest`] reading with this id from a sequence on. It looks through the whole journal from
    /// there: for a person's question, not for the way of a reading.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn find_id(&self, id: &ReadingId, from: Sequence) -> Result<Search<Option<Record>>, ReadError> {
        let mut found = None;
        let lost = self.each_block(from, |header, record, buffer| {
            let plain = self.outbox.open_plain(header, record, buffer)?;
            if contains(plain, id.as_bytes()) {
                let records = crate::wire::entries(plain, header.first, header.count)?;
                let same =
                    |record: &Record| record.sequence >= from && matches!(&record.entry, Entry::Reading(reading) if reading.id == *id);
                let here = records.into_iter().rev().filter(same).fold(None, |newer, record| latest(newer, Some(record)));
                found = latest(here, found.take());
            }
            Ok(())
        })?;
        Ok(Search { found, below: None, lost })
    }

    /// The readings and dead letters of a device nearest to a moment from a sequence on, at most `max`. It looks
    /// through the whole journal from there.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn find_device(&self, around: &Around, max: usize, from: Sequence) -> Result<Search<Nearest>, ReadError> {
        let mut found = Nearest::new(around.clone(), max);
        let lost = self.each_block(from, |header, record, buffer| {
            let plain = self.outbox.open_plain(header, record, buffer)?;
            if contains(plain, around.device.as_str().as_bytes()) {
                let records = crate::wire::entries(plain, header.first, header.count)?;
                records.into_iter().filter(|record| record.sequence >= from).for_each(|record| found.take(record));
            }
            Ok(())
        })?;
        Ok(Search { found, below: None, lost })
    }

    /// What was noted when these dead letters were resolved, the last time where that was several times. It looks through
    /// the journal behind the first of them: for a person's question.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn resolutions(&self, of: &BTreeSet<Sequence>) -> Result<BTreeMap<Sequence, Arc<str>>, ReadError> {
        let mut noted = BTreeMap::new();
        let Some(first) = of.first() else { return Ok(noted) };
        let mut walker = Walker::from_sequence(&self.outbox, *first, self.outbox.committed(), Copies::All);
        loop {
            let changes = match walker.next()? {
                Step::Record(header) if header.kind == BlockKind::Changes => self.outbox.open_changes(&header, walker.record()),
                Step::Record(_) | Step::Lost { .. } => continue,
                Step::End => return Ok(noted),
            };
            let changes = match changes {
                Err(error) if error.is_transient() => return Err(ReadError::Key(error.to_string())),
                // Told where the journal is opened.
                Err(_) => continue,
                Ok(changes) => changes,
            };
            for change in changes {
                let Change::DeadLettersResolved { sequences, note } = change else { continue };
                noted.extend(sequences.into_iter().filter(|sequence| of.contains(sequence)).map(|sequence| (sequence, Arc::clone(&note))));
            }
        }
    }

    /// The entries that destinations know under this id, by all that is noted here. It looks through the journal, its newest
    /// segment first, and begins with none after `until`: for a person's question.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub fn known_as(&self, id: &str, until: Instant) -> Result<Search<BTreeSet<Sequence>>, ReadError> {
        let mut search = Search { found: BTreeSet::new(), below: None, lost: SequenceRanges::new() };
        let oldest = self.outbox.oldest();
        let begun_at = self.outbox.committed();
        let mut limit = begun_at;
        for segment in self.outbox.segments().into_iter().rev() {
            if Instant::now() >= until {
                search.below = Some(limit.sequence.next());
                return Ok(search);
            }
            self.add_named(id, Walker::new(&self.outbox, segment.start(), limit, Copies::All), &mut search.found)?;
            limit =
                Watermark { ordinal: Ordinal(segment.ordinal.0.saturating_sub(1)), sequence: Sequence(segment.first.0.saturating_sub(1)) };
        }
        if self.outbox.oldest() != oldest {
            // What went before the search came to it was moved behind where it began, unless its time is over.
            let from = begun_at.ordinal.next();
            self.add_named(id, Walker::from_ordinal(&self.outbox, from, self.outbox.committed(), Copies::All), &mut search.found)?;
        }
        Ok(search)
    }

    /// Adds the entries that the changes on this way give this id.
    fn add_named(&self, id: &str, mut walker: Walker, found: &mut BTreeSet<Sequence>) -> Result<(), ReadError> {
        let mut buffer = Vec::new();
        loop {
            match walker.next()? {
                Step::Record(header) if header.kind == BlockKind::Changes => {
                    match self.named_in(id, &header, walker.record(), &mut buffer) {
                        Err(error) if error.is_transient() => return Err(ReadError::Key(error.to_string())),
                        // Told where the journal is opened.
                        Err(_) => {}
                        Ok(named) => found.extend(named),
                    }
                }
                Step::Record(_) | Step::Lost { .. } => {}
                Step::End => return Ok(()),
            }
        }
    }

    /// The entries that these changes give this id.
    fn named_in(&self, id: &str, header: &RecordHeader, record: &[u8], buffer: &mut Vec<u8>) -> Result<Vec<Sequence>, OpenBlockError> {
        if !contains(self.outbox.open_plain(header, record, buffer)?, id.as_bytes()) {
            return Ok(Vec::new());
        }
        let changes = self.outbox.open_changes(header, record)?;
        let ids = changes.into_iter().flat_map(|change| match change {
            Change::Settled { remote_ids, .. } => remote_ids,
            _ => Vec::new(),
        });
        Ok(ids.filter(|(_, given)| **given == *id).map(|(sequence, _)| sequence).collect())
    }

    /// Looks at each record of entries from a sequence on. Gives back what does not open or is in no copy any more.
    fn each_block(
        &self,
        from: Sequence,
        mut look: impl FnMut(&RecordHeader, &[u8], &mut Vec<u8>) -> Result<(), OpenBlockError>,
    ) -> Result<SequenceRanges, ReadError> {
        let mut walker = Walker::from_sequence(&self.outbox, from, self.outbox.committed(), Copies::All);
        let mut buffer = Vec::new();
        let mut lost = SequenceRanges::new();
        let mut lose = |first: Sequence, next: Sequence| {
            let (first, last) = (first.max(from), Sequence(next.0.saturating_sub(1)));
            if first <= last {
                lost.insert(first, last);
            }
        };
        loop {
            match walker.next()? {
                Step::Record(header) if header.kind == BlockKind::Entries && header.next_sequence() > from => {
                    match look(&header, walker.record(), &mut buffer) {
                        Err(error) if error.is_transient() => return Err(ReadError::Key(error.to_string())),
                        Err(_) => lose(header.first, header.next_sequence()),
                        Ok(()) => {}
                    }
                }
                Step::Record(_) => {}
                Step::Lost { first, until, .. } => lose(first, until.sequence.next()),
                Step::End => return Ok(lost),
            }
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len().max(1)).any(|window| window == part)
}

/// A read under way.
struct Reading {
    from: Sequence,
    until: Sequence,
    entries_max: usize,
    bytes_left: usize,
    buffer: Vec<u8>,
    outcome: ReadOutcome,
}

impl Reading {
    fn new(from: Sequence, until: Sequence, entries_max: usize, bytes_max: usize) -> Self {
        let outcome = ReadOutcome { reached: Sequence(from.0.saturating_sub(1)), ..ReadOutcome::default() };
        Self { from, until, entries_max, bytes_left: bytes_max, buffer: Vec::new(), outcome }
    }

    /// Takes what is wanted of a record; `false` when the read is full.
    fn take(&mut self, outbox: &Outbox, header: &RecordHeader, record: &[u8]) -> Result<bool, ReadError> {
        if header.kind != BlockKind::Entries || header.next_sequence() <= self.from {
            return Ok(true);
        }
        if header.first > self.until || (record.len() > self.bytes_left && !self.outcome.records.is_empty()) {
            return Ok(false);
        }
        self.bytes_left = self.bytes_left.saturating_sub(record.len());
        let last = Sequence(header.next_sequence().0 - 1);
        let records = match outbox.open_entries(header, record, &mut self.buffer) {
            Ok(records) => records,
            Err(error) if error.is_transient() => return Err(ReadError::Key(error.to_string())),
            Err(error) => {
                tracing::error!(%error, ordinal = header.ordinal.0, "a whole record of the journal does not open");
                outbox.findings.add(Finding::Lost { first: header.first, last });
                self.lost(header.first, last);
                return Ok(true);
            }
        };
        for record in records {
            if record.sequence < self.from {
                continue;
            }
            if record.sequence > self.until || self.outcome.records.len() >= self.entries_max {
                return Ok(false);
            }
            self.outcome.reached = record.sequence;
            self.outcome.records.push(record);
        }
        Ok(self.outcome.records.len() < self.entries_max)
    }

    fn lost(&mut self, first: Sequence, last: Sequence) {
        let (first, last) = (first.max(self.from), last.min(self.until));
        if first <= last {
            self.outcome.damaged.push((first, last));
            self.outcome.reached = self.outcome.reached.max(last);
        }
    }
}
