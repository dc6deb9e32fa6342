//! A segment file: its name, its header, and where its records lie.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vitalgate_domain::{Sequence, UnixMs};

use crate::copy::Ordinal;
use crate::files::{FileSystem, StoredFile, is_bad_place, read_full};
use crate::keyring::WRAPPED_BYTES_MAX;

/// Where the first record of a segment starts, in bytes.
pub(crate) const RECORDS_START: u64 = 4096;
/// Length of a segment's header with the zeros behind it.
pub(crate) const HEADER_PAGE_BYTES: usize = 4096;
const SEGMENT_MAGIC: [u8; 8] = *b"VGSEGM\0\x01";
const SUFFIX: &str = ".segment";
/// Distance between two places that are remembered within a segment, in bytes.
const MARK_DISTANCE_BYTES: u64 = 128 * 1024;

/// What the first page of a segment says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub id: u64,
    pub first: Sequence,
    pub ordinal: Ordinal,
    /// The newest trusted wall clock when the segment was begun; `None` where the clock was not set then.
    pub wall: Option<UnixMs>,
    pub key_id: u32,
    pub wrapped: Vec<u8>,
}

impl SegmentHeader {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = SEGMENT_MAGIC.to_vec();
        bytes.extend_from_slice(&self.id.to_le_bytes());
        bytes.extend_from_slice(&self.first.0.to_le_bytes());
        bytes.extend_from_slice(&self.ordinal.0.to_le_bytes());
        bytes.extend_from_slice(&self.wall.map_or(i64::MIN, |wall| wall.0).to_le_bytes());
        bytes.extend_from_slice(&self.key_id.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.wrapped.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.wrapped);
        bytes.resize(HEADER_PAGE_BYTES - 4, 0);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn parse(page: &[u8]) -> Option<Self> {
        let (content, checksum) = page.get(..HEADER_PAGE_BYTES)?.split_last_chunk::<4>()?;
        if u32::from_le_bytes(*checksum) != crc32c::crc32c(content) {
            return None;
        }
        let rest = content.strip_prefix(&SEGMENT_MAGIC)?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let (first, rest) = rest.split_first_chunk::<8>()?;
        let (ordinal, rest) = rest.split_first_chunk::<8>()?;
        let (wall, rest) = rest.split_first_chunk::<8>()?;
        let (key_id, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= WRAPPED_BYTES_MAX)?;
        Some(Self {
            id: u64::from_le_bytes(*id),
            first: Sequence(u64::from_le_bytes(*first)),
            ordinal: Ordinal(u64::from_le_bytes(*ordinal)),
            wall: Some(i64::from_le_bytes(*wall)).filter(|wall| *wall != i64::MIN).map(UnixMs),
            key_id: u32::from_le_bytes(*key_id),
            wrapped: rest.get(..length)?.to_vec(),
        })
    }

    /// Reads the header of an open file; one that the disk cannot read is as good as damaged.
    pub(crate) fn read(file: &dyn StoredFile) -> io::Result<Option<Self>> {
        let mut page = vec![0; HEADER_PAGE_BYTES];
        match read_full(file, &mut page, 0) {
            Ok(read) => Ok(page.get(..read).and_then(Self::parse)),
            Err(error) if is_bad_place(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The name of the segment that begins with these.
pub(crate) fn segment_name(first: Sequence, ordinal: Ordinal) -> String {
    format!("{:016x}-{:016x}{SUFFIX}", first.0, ordinal.0)
}

/// What a segment's name says it begins with.
pub(crate) fn parse_name(name: &str) -> Option<(Sequence, Ordinal)> {
    let (first, ordinal) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let number = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok())?;
    Some((Sequence(number(first)?), Ordinal(number(ordinal)?)))
}

/// A place in a segment where a record starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub offset: u64,
    pub ordinal: Ordinal,
    pub sequence: Sequence,
}

/// A segment of the journal that is in use.
#[derive(Debug)]
pub(crate) struct Segment {
    pub name: String,
    pub id: u64,
    pub first: Sequence,
    pub ordinal: Ordinal,
    pub wall: Option<UnixMs>,
    pub key_id: u32,
    marks: Mutex<Vec<Mark>>,
    /// Where the last of its records ends, while it is written to.
    end: AtomicU64,
    /// Held while a record is mended; says whether the file was copied to quarantine already.
    pub mending: Mutex<bool>,
}

impl Segment {
    pub(crate) fn new(header: &SegmentHeader) -> Self {
        Self {
            name: segment_name(header.first, header.ordinal),
            id: header.id,
            first: header.first,
            ordinal: header.ordinal,
            wall: header.wall,
            key_id: header.key_id,
            marks: Mutex::default(),
            end: AtomicU64::new(RECORDS_START),
            mending: Mutex::new(false),
        }
    }

    pub(crate) fn start(&self) -> Mark {
        Mark { offset: RECORDS_START, ordinal: self.ordinal, sequence: self.first }
    }

    pub(crate) fn open(&self, files: &dyn FileSystem, dir: &Path) -> io::Result<Arc<dyn StoredFile>> {
        files.open(&dir.join(&self.name))
    }

    /// Where the last record ends that was written by this process.
    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    /// Its records end here now. Remembers the place, if none near it is remembered.
    pub(crate) fn written_to(&self, mark: Mark) {
        self.end.store(mark.offset, Ordering::Relaxed);
        self.remember(mark);
    }

    /// Remembers a place, if none near it is remembered.
    pub(crate) fn remember(&self, mark: Mark) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let last = marks.last().map_or(RECORDS_START, |last| last.offset);
        if mark.offset >= last + MARK_DISTANCE_BYTES {
            marks.push(mark);
        }
    }

    /// The last remembered place that fits.
    pub(crate) fn nearest(&self, fits: impl Fn(&Mark) -> bool) -> Mark {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let count = marks.partition_point(|mark| fits(mark));
        count.checked_sub(1).and_then(|last| marks.get(last)).copied().unwrap_or_else(|| self.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_as_written_and_any_altered_byte_is_noticed() {
        let header =
            SegmentHeader { id: 77, first: Sequence(5), ordinal: Ordinal(3), wall: Some(UnixMs(-4)), key_id: 2, wrapped: vec![9; 60] };
        let page = header.to_bytes();
        assert_eq!(page.len() as u64, RECORDS_START);
        assert_eq!(SegmentHeader::parse(&page), Some(header));
        for at in (0..page.len()).step_by(17) {
            let mut altered = page.clone();
            altered[at] ^= 1;
            assert_eq!(SegmentHeader::parse(&altered), None, "byte {at}");
        }
    }

    #[test]
    fn a_name_says_where_the_segment_begins() {
        let name = segment_name(Sequence(0xabc), Ordinal(7));
        assert_eq!(parse_name(&name), Some((Sequence(0xabc), Ordinal(7))));
        for other in ["spare", "reserve", "1-2.segment", "0000000000000abc.segment", "0000000000000abc-000000000000000x.segment"] {
            assert_eq!(parse_name(other), None);
        }
    }
}
