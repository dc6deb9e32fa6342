//! The header of a record, and the finding of whole records in bytes that may be damaged.

use vitalgate_domain::Sequence;

use crate::copy::{BlockKind, Ordinal, RECORD_BYTES_MAX, SealedBlock};

/// Length of a record's header in bytes.
pub(crate) const HEADER_BYTES: usize = 64;
/// Records start at multiples of this many bytes, so that a scan finds the next one after damage.
pub(crate) const ALIGNMENT_BYTES: usize = 64;
/// Length of the authentication tag of AES-256-GCM in bytes.
pub(crate) const TAG_BYTES: usize = 16;
/// The first bytes of every record; the last is the version of header and body.
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"VGR\x01";

const FIRST_OF_GROUP: u8 = 0x80;
const KIND_MASK: u8 = 0x7f;

/// What stands in front of a sealed body. The numbers are little-endian; the layout is in [`crate::format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub segment: u64,
    pub ordinal: Ordinal,
    pub first: Sequence,
    /// Drawn at random at each opening of the store and for each segment; first part of the nonce.
    pub run: u64,
    /// First 8 bytes of the tag of the record before, 0 for the first.
    pub previous: u64,
    pub count: u32,
    /// Length of the sealed body with its tag.
    pub body_bytes: u32,
    pub key_id: u32,
    pub kind: BlockKind,
    pub first_of_group: bool,
    /// How many records of the same group follow.
    pub group_remaining: u16,
}

fn kind_number(kind: BlockKind) -> u8 {
    match kind {
        BlockKind::Entries => 1,
        BlockKind::Changes => 2,
        BlockKind::State => 3,
    }
}

fn kind_from(number: u8) -> Option<BlockKind> {
    match number {
        1 => Some(BlockKind::Entries),
        2 => Some(BlockKind::Changes),
        3 => Some(BlockKind::State),
        _ => None,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Length rounded up to where the next record starts.
pub(crate) fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT_BYTES)
}

impl RecordHeader {
    /// The bytes of the header, with this checksum.
    pub(crate) fn to_bytes(self, checksum: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        };
        put(0, &RECORD_MAGIC);
        put(4, &checksum.to_le_bytes());
        put(8, &self.segment.to_le_bytes());
        put(16, &self.ordinal.0.to_le_bytes());
        put(24, &self.first.0.to_le_bytes());
        put(32, &self.run.to_le_bytes());
        put(40, &self.previous.to_le_bytes());
        put(48, &self.count.to_le_bytes());
        put(52, &self.body_bytes.to_le_bytes());
        put(56, &self.key_id.to_le_bytes());
        put(60, &[kind_number(self.kind) | if self.first_of_group { FIRST_OF_GROUP } else { 0 }]);
        put(62, &self.group_remaining.to_le_bytes());
        bytes
    }

    /// Reads the fields; `None` where they cannot be a header. The checksum is not looked at.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        if array::<4>(bytes, 0)? != RECORD_MAGIC {
            return None;
        }
        let kind_byte = *bytes.get(60)?;
        let header = Self {
            segment: u64::from_le_bytes(array(bytes, 8)?),
            ordinal: Ordinal(u64::from_le_bytes(array(bytes, 16)?)),
            first: Sequence(u64::from_le_bytes(array(bytes, 24)?)),
            run: u64::from_le_bytes(array(bytes, 32)?),
            previous: u64::from_le_bytes(array(bytes, 40)?),
            count: u32::from_le_bytes(array(bytes, 48)?),
            body_bytes: u32::from_le_bytes(array(bytes, 52)?),
            key_id: u32::from_le_bytes(array(bytes, 56)?),
            kind: kind_from(kind_byte & KIND_MASK)?,
            first_of_group: kind_byte & FIRST_OF_GROUP != 0,
            group_remaining: u16::from_le_bytes(array(bytes, 62)?),
        };
        let counted = (header.kind == BlockKind::Entries) == (header.count > 0);
        let sized = header.body_bytes as usize > TAG_BYTES && header.record_bytes() <= RECORD_BYTES_MAX;
        (counted && sized && header.ordinal.0 > 0).then_some(header)
    }

    /// Length of header and body.
    pub(crate) fn record_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes as usize
    }

    /// Distance to the next record.
    pub(crate) fn stride(&self) -> u64 {
        aligned(self.record_bytes()) as u64
    }

    /// The sequence that follows this record's entries.
    pub(crate) fn next_sequence(&self) -> Sequence {
        self.first.plus(u64::from(self.count))
    }

    /// The nonce: unique for the key, since `run` is drawn anew at each opening and ordinals do not
    /// repeat within a run. A group that a crash tore is followed by a new run.
    pub(crate) fn nonce(&self) -> [u8; 12] {
        let mut nonce = [0; 12];
        let (run, ordinal) = nonce.split_at_mut(8);
        run.copy_from_slice(&self.run.to_le_bytes());
        ordinal.copy_from_slice(&(self.ordinal.0 & u64::from(u32::MAX)).to_le_bytes().first_chunk::<4>().copied().unwrap_or_default());
        nonce
    }
}

/// The checksum over a whole record: CRC32C of everything but magic and the checksum itself.
pub(crate) fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c(record.get(8..).unwrap_or_default())
}

/// Takes the record at the start of `bytes`, if a whole and unaltered one is there.
pub(crate) fn whole_record(bytes: &[u8]) -> Option<(RecordHeader, &[u8])> {
    let header = RecordHeader::parse(bytes)?;
    let record = bytes.get(..header.record_bytes())?;
    let stored = u32::from_le_bytes(array(record, 4)?);
    (stored == checksum(record)).then_some((header, record))
}

/// The link that the record after this one carries: the first 8 bytes of its tag.
pub(crate) fn link(record: &[u8]) -> u64 {
    record.len().checked_sub(TAG_BYTES).and_then(|at| array(record, at)).map_or(0, u64::from_le_bytes)
}

/// Finds whole records of one segment from `from` on, where the place of the next one is not known.
pub(crate) fn search(bytes: &[u8], from: usize, segment: u64) -> Option<(usize, RecordHeader)> {
    let mut at = from.next_multiple_of(ALIGNMENT_BYTES);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEADER_BYTES) {
        if let Some((header, _)) = whole_record(rest).filter(|(header, _)| header.segment == segment) {
            return Some((at, header));
        }
        at += ALIGNMENT_BYTES;
    }
    None
}

/// A record as both copies hold it.
pub(crate) fn sealed_block(header: &RecordHeader, record: &[u8]) -> SealedBlock {
    SealedBlock {
        kind: header.kind,
        ordinal: header.ordinal,
        first: header.first,
        count: header.count,
        key_id: header.key_id,
        bytes: record.to_vec(),
    }
}
