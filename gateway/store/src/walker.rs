//! Walking over committed records, in order, across segments, mending what is damaged.

use std::io;
use std::sync::Arc;

use vitalgate_domain::Sequence;

use crate::copy::{KeyedError, Ordinal, Watermark};
use crate::files::{StoredFile, read_as_far};
use crate::outbox::{Copies, Outbox};
use crate::record::{HEADER_BYTES, RecordHeader, search, whole_record};
use crate::report::Finding;
use crate::segment::{Mark, Segment};

/// How much is read from a segment at first, in bytes; a longer walk reads more at once.
const WINDOW_BYTES_MIN: usize = 16 * 1024;
/// How much is read from a segment at once at most (a single longer record excepted), in bytes.
const WINDOW_BYTES_MAX: usize = 256 * 1024;

/// Why the walk stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    /// The disk failed.
    #[error("the journal cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A damaged record may be in the keyed store, which does not answer.
    #[error("a damaged record cannot be restored now")]
    Copy(#[from] KeyedError),
}

/// What the walk came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// A record; its bytes are [`Walker::record`].
    Record(RecordHeader),
    /// No copy has these.
    Lost { from: Ordinal, first: Sequence, until: Watermark },
    /// Everything up to the limit was seen.
    End,
}

/// A place between two records.
pub(crate) struct Walker {
    outbox: Arc<Outbox>,
    limit: Watermark,
    copies: Copies,
    at: Option<(Arc<Segment>, Arc<dyn StoredFile>)>,
    place: Mark,
    window: Vec<u8>,
    window_bytes: usize,
    window_start: u64,
    record: std::ops::Range<usize>,
}

impl Walker {
    /// Walks from this place on, up to `limit`; the segment and offset are found anew if they do not hold it.
    pub(crate) fn new(outbox: &Arc<Outbox>, place: Mark, limit: Watermark, copies: Copies) -> Self {
        Self {
            outbox: Arc::clone(outbox),
            limit,
            copies,
            at: None,
            place,
            window: Vec::new(),
            window_bytes: WINDOW_BYTES_MIN,
            window_start: 0,
            record: 0..0,
        }
    }

    /// Walks from a record on.
    pub(crate) fn from_ordinal(outbox: &Arc<Outbox>, ordinal: Ordinal, limit: Watermark, copies: Copies) -> Self {
        let place = match outbox.holding(ordinal) {
            Some((segment, _)) => segment.nearest(|mark| mark.ordinal <= ordinal),
            None => Mark { offset: 0, ordinal, sequence: Sequence::FIRST },
        };
        Self::new(outbox, place, limit, copies)
    }

    /// Walks from the record that holds a sequence, or a little before.
    pub(crate) fn from_sequence(outbox: &Arc<Outbox>, sequence: Sequence, limit: Watermark, copies: Copies) -> Self {
        let place =
            outbox.place_of(sequence).map_or(Mark { offset: 0, ordinal: Ordinal(1), sequence: Sequence::FIRST }, |(_, place)| place);
        Self::new(outbox, place, limit, copies)
    }

    /// Where the walk is: before the next record.
    pub(crate) fn place(&self) -> Mark {
        self.place
    }

    /// The bytes of the record that was come to.
    pub(crate) fn record(&self) -> &[u8] {
        self.window.get(self.record.clone()).unwrap_or_default()
    }

    /// Comes to the next record.
    pub(crate) fn next(&mut self) -> Result<Step, WalkError> {
        loop {
            if self.place.ordinal > self.limit.ordinal {
                return Ok(Step::End);
            }
            let Some((segment, file)) = self.at.clone() else {
                if !self.enter()? {
                    return Ok(Step::End);
                }
                continue;
            };
            let unread = match self.look(&segment, file.as_ref()) {
                Ok(Some(header)) => return Ok(self.accept(&segment, header)),
                Ok(None) => None,
                // It says nothing about the disk.
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return Err(error.into()),
                Err(error) => Some(error),
            };
            if self.moved_on(&segment) {
                continue;
            }
            match (self.outbox.mend(&segment, self.place.offset, self.place.ordinal, self.copies), unread) {
                (Ok(Some(record)), _) => {
                    self.window = record;
                    self.window_start = self.place.offset;
                    if let Some((header, _)) = whole_record(&self.window) {
                        return Ok(self.accept(&segment, header));
                    }
                }
                (Ok(None), _) if self.copies == Copies::All && self.outbox.restore_after(&segment, self.place)? => {
                    self.at = None;
                    self.place.offset = 0;
                }
                (Ok(None), None) => return self.skip(&segment, file.as_ref()),
                // The disk may read it another time: it is not lost.
                (_, Some(error)) => return Err(error.into()),
                (Err(error), None) => return Err(error.into()),
            }
        }
    }

    /// Opens the segment that holds the place; goes on to the oldest where it is gone.
    fn enter(&mut self) -> Result<bool, WalkError> {
        let Some((segment, _)) = self.outbox.holding(self.place.ordinal) else { return Ok(false) };
        let within = self.place.offset >= segment.start().offset;
        // A place behind the last record of one segment is the start of the next one.
        if self.place.ordinal <= segment.ordinal {
            self.place = segment.start();
        } else if !within {
            let ordinal = self.place.ordinal;
            self.place = segment.nearest(|mark| mark.ordinal <= ordinal);
        }
        match segment.open(self.outbox.files.as_ref(), &self.outbox.journal_dir) {
            Ok(file) => {
                self.window.clear();
                self.at = Some((segment, file));
                Ok(true)
            }
            // It may just have been reclaimed; if it should be here, its records are mended elsewhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.still_listed(&segment) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn still_listed(&self, segment: &Arc<Segment>) -> bool {
        self.outbox.segments().iter().any(|listed| Arc::ptr_eq(listed, segment))
    }

    /// Whether the record is in another segment: then the walk leaves this one.
    fn moved_on(&mut self, segment: &Arc<Segment>) -> bool {
        let Some((holder, _)) = self.outbox.holding(self.place.ordinal) else { return false };
        if Arc::ptr_eq(&holder, segment) {
            return false;
        }
        self.at = None;
        self.place = Mark { offset: 0, ..self.place };
        true
    }

    /// The record at the place, if it is whole and the one that must be here.
    fn look(&mut self, segment: &Segment, file: &dyn StoredFile) -> io::Result<Option<RecordHeader>> {
        let Some(header) = self.window_at(file, HEADER_BYTES)?.and_then(RecordHeader::parse) else { return Ok(None) };
        if header.segment != segment.id || header.ordinal != self.place.ordinal {
            return Ok(None);
        }
        let whole = self.window_at(file, header.record_bytes())?.and_then(whole_record);
        Ok(whole.map(|(header, _)| header))
    }

    /// At least so many bytes at the place; `None` at the end of the file.
    fn window_at(&mut self, file: &dyn StoredFile, bytes: usize) -> io::Result<Option<&[u8]>> {
        let inside = self.place.offset.checked_sub(self.window_start).and_then(|start| usize::try_from(start).ok());
        let start = inside.filter(|start| start + bytes <= self.window.len());
        let start = match start {
            Some(start) => start,
            None => {
                self.window.resize(bytes.max(self.window_bytes), 0);
                self.window_bytes = (2 * self.window_bytes).min(WINDOW_BYTES_MAX);
                let (read, ended) = read_as_far(file, &mut self.window, self.place.offset);
                self.window.truncate(read);
                self.window_start = self.place.offset;
                if read < bytes {
                    ended?;
                }
                0
            }
        };
        Ok(self.window.get(start..).filter(|rest| rest.len() >= bytes))
    }

    fn accept(&mut self, segment: &Segment, header: RecordHeader) -> Step {
        let start = usize::try_from(self.place.offset.saturating_sub(self.window_start)).unwrap_or(usize::MAX);
        self.record = start..start.saturating_add(header.record_bytes());
        self.place = Mark { offset: self.place.offset + header.stride(), ordinal: header.ordinal.next(), sequence: header.next_sequence() };
        segment.remember(self.place);
        Step::Record(header)
    }

    /// No copy has the record: finds the next one that is whole.
    fn skip(&mut self, segment: &Arc<Segment>, file: &dyn StoredFile) -> Result<Step, WalkError> {
        let (from, first) = (self.place.ordinal, self.place.sequence);
        let after = self.outbox.holding(from).and_then(|(_, after)| after);
        let end = after.as_ref().map_or(self.limit.ordinal.next(), |after| after.ordinal).min(self.limit.ordinal.next());
        let length = usize::try_from(file.len()?.saturating_sub(self.place.offset)).unwrap_or(0);
        let mut rest = vec![0; length.min(usize::try_from(self.outbox.options.segment_bytes).unwrap_or(0))];
        let (read, ended) = read_as_far(file, &mut rest, self.place.offset);
        rest.truncate(read);
        let mut at = 0;
        while let Some((found, header)) = search(&rest, at, segment.id) {
            if header.ordinal > from && header.ordinal < end && header.first >= first {
                self.place = Mark { offset: self.place.offset + found as u64, ordinal: header.ordinal, sequence: header.first };
                return Ok(self.lost(from, first));
            }
            at = found + 1;
        }
        // The next whole one may be in what the disk does not read: no more is known to be lost.
        ended?;
        self.at = None;
        let sequence = after.map_or(self.limit.sequence.next(), |after| after.first).min(self.limit.sequence.next());
        self.place = Mark { offset: 0, ordinal: end, sequence };
        Ok(self.lost(from, first))
    }

    fn lost(&self, from: Ordinal, first: Sequence) -> Step {
        let last = Sequence(self.place.sequence.0.saturating_sub(1));
        // The keyed store, which asks for shadows only, may itself be the copy that has it.
        if self.copies == Copies::All {
            self.outbox.findings.add(Finding::Lost { first, last });
        }
        Step::Lost { from, first, until: Watermark { ordinal: Ordinal(self.place.ordinal.0.saturating_sub(1)), sequence: last } }
    }
}
