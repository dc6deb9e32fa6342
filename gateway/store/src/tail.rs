//! Finding the true end of the journal: the last segment is read whole, damage before the end is
//! mended from a copy, an unfinished write behind it is cut.

use std::io;
use std::sync::Arc;

use vitalgate_domain::Sequence;

use crate::copy::{KeyedCopy, KeyedError, Ordinal, whole};
use crate::files::{StoredFile, Unread, fill_with_zeros, read_salvaging};
use crate::outbox::Outbox;
use crate::record::{ALIGNMENT_BYTES, HEADER_BYTES, RecordHeader, link, search, whole_record};
use crate::report::{Finding, Healer};
use crate::segment::{Mark, RECORDS_START, Segment};
use crate::walker::WalkError;

/// The keyed store while the journal is being opened: asked only when something is wrong, since
/// its own opening takes longer.
pub(crate) struct SecondCopy {
    pub copy: Arc<dyn KeyedCopy>,
    /// Waits until it is open or has failed, within a time of its own.
    pub wait_open: Box<dyn Fn() + Send + Sync>,
}

/// Where the journal ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail {
    pub end: Mark,
    /// The link that the next record carries.
    pub previous: u64,
    /// Whether anything was not as a clean stop or a killed process leaves it.
    pub suspicious: bool,
}

struct Scan<'a> {
    outbox: &'a Outbox,
    segment: &'a Segment,
    second: Option<&'a SecondCopy>,
    bytes: Vec<u8>,
    shadow: Vec<u8>,
    at: Mark,
    /// `None` behind a hole: then the next record's link is not known.
    previous: Option<u64>,
    group_start: (Mark, Option<u64>),
    group_open: bool,
    mended: Vec<(usize, usize, Ordinal, Healer)>,
    /// What the disk cannot read; there are zeros in `bytes`, or what was mended.
    unread: Unread,
    suspicious: bool,
    waited: bool,
    /// The keyed store waits for free space, or is being rebuilt, and could not be asked for what comes next.
    unasked: bool,
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Finds the end of the last segment, mends it, and makes durable what counts as committed.
///
/// # Errors
/// When the disk fails, or the keyed store has more and cannot answer now.
pub(crate) fn find_end(outbox: &Outbox, segment: &Segment, second: Option<&SecondCopy>, suspicious: bool) -> Result<Tail, WalkError> {
    let segment_bytes = outbox.options.segment_bytes;
    let shadow_path = outbox.shadow_dir.join(&segment.name);
    let (shadow, _) = match read_salvaging(outbox.files.as_ref(), &shadow_path, place(segment_bytes)) {
        Ok(shadow) => shadow,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Default::default(),
        Err(error) => return Err(error.into()),
    };
    let (bytes, unread) = read_salvaging(outbox.files.as_ref(), &outbox.journal_dir.join(&segment.name), place(segment_bytes))?;
    let mut scan = Scan {
        outbox,
        segment,
        second,
        bytes,
        shadow,
        at: segment.start(),
        previous: Some(0),
        group_start: (segment.start(), Some(0)),
        group_open: false,
        mended: Vec::new(),
        suspicious: suspicious || !unread.is_empty(),
        unread,
        waited: false,
        unasked: false,
    };
    scan.run()?;
    Ok(scan.finish()?)
}

impl Scan<'_> {
    fn run(&mut self) -> Result<(), KeyedError> {
        loop {
            if let Some((header, record_link)) = self.fitting(&self.bytes) {
                self.accept(&header, record_link);
            } else if let Some((header, _)) = self.fitting(&self.shadow) {
                let start = place(self.at.offset);
                let record = self.shadow.get(start..start + header.record_bytes()).unwrap_or_default().to_vec();
                self.mend(&record, Healer::Shadow);
            } else if !self.ask_keyed()? && !self.jump() {
                return Ok(());
            }
        }
    }

    /// The record that comes next, if these bytes hold it.
    fn fitting(&self, bytes: &[u8]) -> Option<(RecordHeader, u64)> {
        let (header, record) = whole_record(bytes.get(place(self.at.offset)..)?)?;
        let linked = self.previous.is_none_or(|previous| previous == header.previous);
        (linked && header.segment == self.segment.id && header.ordinal == self.at.ordinal && header.first == self.at.sequence)
            .then(|| (header, link(record)))
    }

    fn accept(&mut self, header: &RecordHeader, record_link: u64) {
        if header.first_of_group {
            self.group_start = (self.at, self.previous);
        }
        self.group_open = header.group_remaining > 0;
        self.previous = Some(record_link);
        self.at = Mark { offset: self.at.offset + header.stride(), ordinal: header.ordinal.next(), sequence: header.next_sequence() };
        self.segment.remember(self.at);
    }

    fn mend(&mut self, record: &[u8], from: Healer) {
        let start = place(self.at.offset);
        if self.bytes.len() < start + record.len() {
            self.bytes.resize(start + record.len(), 0);
        }
        if let Some(target) = self.bytes.get_mut(start..start + record.len()) {
            target.copy_from_slice(record);
        }
        self.mended.push((start, record.len(), self.at.ordinal, from));
        self.suspicious = true;
    }

    /// Takes the next record from the keyed store, if anything hints that there must be one.
    fn ask_keyed(&mut self) -> Result<bool, KeyedError> {
        let start = place(self.at.offset);
        self.suspicious |= own_end(&self.bytes, start, self.segment.id).is_some() || self.shadow.len() < start;
        let Some(second) = self.second.filter(|_| self.suspicious) else { return Ok(false) };
        if !std::mem::replace(&mut self.waited, true) {
            (second.wait_open)();
        }
        // How far it has followed it knows only once it answers. An unfinished write looks like a damaged one that was acknowledged.
        let found = match whole(self.outbox.keyed_record(self.segment, self.at.ordinal)) {
            // It may wait until something is delivered, and without the journal nothing is.
            Err(error) if second.copy.waits_for_room() => {
                tracing::error!(%error, "the end of the journal is not certain, and the keyed store cannot be asked for want of free space");
                self.unasked = true;
                return Ok(false);
            }
            answer => answer?,
        };
        self.unasked = false;
        let Some(record) = found.filter(|record| (start + record.len()) as u64 <= self.outbox.options.segment_bytes) else {
            self.unasked = second.copy.is_rebuilding();
            return Ok(false);
        };
        let fits = self.fitting_bytes(&record);
        if fits {
            self.mend(&record, Healer::Keyed);
        }
        Ok(fits)
    }

    fn fitting_bytes(&self, record: &[u8]) -> bool {
        let linked = |header: &RecordHeader| self.previous.is_none_or(|previous| previous == header.previous);
        whole_record(record).is_some_and(|(header, _)| header.first == self.at.sequence && linked(&header))
    }

    /// Goes on behind a hole, if a later group proves that what is missing had been committed.
    fn jump(&mut self) -> bool {
        let start = place(self.at.offset);
        let proven = [&self.bytes, &self.shadow].into_iter().any(|bytes| {
            let mut from = start;
            while let Some((found, header)) = search(bytes, from, self.segment.id) {
                if header.ordinal > self.at.ordinal && header.first_of_group {
                    return true;
                }
                from = found + 1;
            }
            false
        });
        let mut from = start;
        while let Some((found, header)) = search(&self.bytes, from, self.segment.id).filter(|_| proven) {
            if header.ordinal > self.at.ordinal && header.first >= self.at.sequence {
                let last = Sequence(header.first.0.saturating_sub(1));
                self.outbox.findings.add(Finding::Lost { first: self.at.sequence, last });
                self.at = Mark { offset: found as u64, ordinal: header.ordinal, sequence: header.first };
                self.previous = None;
                self.suspicious = true;
                return true;
            }
            from = found + 1;
        }
        false
    }

    fn finish(mut self) -> io::Result<Tail> {
        let reached = self.at;
        if self.group_open {
            (self.at, self.previous) = self.group_start;
        }
        let file = self.outbox.files.open(&self.outbox.journal_dir.join(&self.segment.name))?;
        self.write_unread(file.as_ref(), reached)?;
        self.write_mended(file.as_ref())?;
        self.cut(file.as_ref(), reached)?;
        // What a killed process left in the page cache counts as committed from here on.
        file.sync_data()?;
        self.rebuild_shadow()?;
        Ok(Tail { end: self.at, previous: self.previous.unwrap_or(0), suspicious: self.suspicious })
    }

    /// Writes what the disk cannot read anew, whole pages: what it holds no more it can hold again.
    fn write_unread(&self, file: &dyn StoredFile, reached: Mark) -> io::Result<()> {
        if self.unread.is_empty() {
            return Ok(());
        }
        for part in &self.unread {
            file.write_all_at(self.bytes.get(part.clone()).unwrap_or_default(), part.start as u64)?;
        }
        let bytes = self.unread.iter().map(|part| part.len() as u64).sum();
        let at_end = self.is_unread(place(reached.offset));
        self.outbox.findings.add(Finding::Unreadable { file: format!("journal/{}", self.segment.name), bytes, at_end });
        Ok(())
    }

    /// Whether a record that begins here, where none was found, may be one that the disk cannot read.
    fn is_unread(&self, start: usize) -> bool {
        let header = self.bytes.get(start..).and_then(RecordHeader::parse).filter(|header| header.segment == self.segment.id);
        let record = start..start + header.map_or(HEADER_BYTES, |header| header.record_bytes());
        self.unread.iter().any(|part| part.start < record.end && record.start < part.end)
    }

    fn write_mended(&self, file: &dyn StoredFile) -> io::Result<()> {
        if self.mended.is_empty() {
            return Ok(());
        }
        let shown = format!("journal/{}", self.segment.name);
        self.outbox.quarantine(&self.outbox.journal_dir.join(&self.segment.name), &shown);
        for (start, length, ordinal, from) in &self.mended {
            file.write_all_at(self.bytes.get(*start..start + length).unwrap_or_default(), *start as u64)?;
            self.outbox.findings.add(Finding::RecordHealed { file: shown.clone(), ordinal: *ordinal, from: *from });
        }
        Ok(())
    }

    /// Nothing of an unfinished write may look like a record later.
    fn cut(&self, file: &dyn StoredFile, reached: Mark) -> io::Result<()> {
        let end = place(self.at.offset);
        let Some(own_end) = own_end(&self.bytes, end, self.segment.id) else { return Ok(()) };
        if self.unasked {
            self.keep(self.bytes.get(end..own_end.min(self.bytes.len())).unwrap_or_default());
        }
        let used = self.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let bytes = (used.max(place(reached.offset)).saturating_sub(end)) as u64;
        self.outbox.findings.add(Finding::UnfinishedWrite { file: format!("journal/{}", self.segment.name), bytes });
        fill_with_zeros(file, self.at.offset, self.outbox.options.segment_bytes)
    }

    /// There may be no other copy of what is cut. Without room for it the journal goes on all the same: only that makes room.
    fn keep(&self, bytes: &[u8]) {
        let place = format!("{}.{:016x}", self.segment.name, self.at.ordinal.0);
        let kept = match self.outbox.keep(&place, bytes) {
            Ok(name) => Some(name),
            Err(error) => {
                tracing::error!(%error, "what is cut off the end of the journal cannot be kept");
                None
            }
        };
        self.outbox.findings.add(Finding::CutUnasked { file: format!("journal/{}", self.segment.name), kept });
    }

    fn rebuild_shadow(&self) -> io::Result<()> {
        let end = place(self.at.offset);
        let committed = self.bytes.get(..end).unwrap_or(&self.bytes);
        if self.shadow.get(..end) == Some(committed) {
            return Ok(());
        }
        let path = self.outbox.shadow_dir.join(&self.segment.name);
        if !self.shadow.is_empty() {
            self.outbox.findings.add(Finding::ShadowRebuilt { file: format!("shadow/{}", self.segment.name) });
        }
        // A shadow that cannot be written is done without.
        let written = self.outbox.files.create(&path).and_then(|shadow| shadow.write_all_at(committed, 0));
        if let Err(error) = written {
            tracing::warn!(%error, "the journal's shadow cannot be written");
        }
        Ok(())
    }
}

/// Where the last thing ends that looks like a record of this segment and starts at or after this place.
fn own_end(bytes: &[u8], from: usize, segment: u64) -> Option<usize> {
    let start = from.max(place(RECORDS_START)).next_multiple_of(ALIGNMENT_BYTES);
    let chunks = bytes.get(start..).unwrap_or_default().chunks_exact(ALIGNMENT_BYTES);
    let mut headers = chunks.enumerate().filter_map(|(index, chunk)| Some((index, RecordHeader::parse(chunk)?)));
    let (index, header) = headers.rfind(|(_, header)| header.segment == segment)?;
    Some(start + index * ALIGNMENT_BYTES + header.record_bytes())
}
