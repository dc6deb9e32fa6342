//! A group of records that becomes durable with one write and one sync.

use std::sync::Arc;

use vitalgate_domain::{Change, Entry, Sequence};

use crate::copy::{BLOCK_BYTES_MAX, BlockKind, Ordinal, RECORD_BYTES_MAX};
use crate::keyring::DataKey;
use crate::record::{HEADER_BYTES, RecordHeader, TAG_BYTES, aligned, checksum, link};
use crate::state::State;
use crate::wire::{EntryEncoder, WireError, changes_into, state_into};

/// Longest plain body that leaves a record within [`BLOCK_BYTES_MAX`].
const BODY_BYTES_MAX: usize = BLOCK_BYTES_MAX - HEADER_BYTES - TAG_BYTES;
/// Most records in one group: each says how many follow it.
pub(crate) const GROUP_RECORDS_MAX: usize = u16::MAX as usize;

/// A body that is not sealed yet.
#[derive(Debug)]
struct PlainBody {
    kind: BlockKind,
    count: u32,
    bytes: Vec<u8>,
}

/// The bodies of a group, in order.
#[derive(Debug, Default)]
pub(crate) struct Group {
    bodies: Vec<PlainBody>,
    entries: u64,
    bytes: usize,
}

/// What the records of a group have in common when they are sealed.
pub(crate) struct SealingPlace<'a> {
    pub segment: u64,
    pub run: u64,
    pub key_id: u32,
    pub key: &'a Arc<DataKey>,
    pub ordinal: Ordinal,
    pub first: Sequence,
    pub previous: u64,
}

/// A body too large for a record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GroupError {
    /// One entry or change is larger than a record may be.
    #[error("a single entry or change of {0} bytes does not fit into a record of {RECORD_BYTES_MAX}")]
    TooLarge(usize),
    /// It cannot be written as CBOR.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The cipher refuses.
    #[error("a record could not be sealed")]
    Seal,
}

impl Group {
    pub(crate) fn add(&mut self, kind: BlockKind, count: u32, bytes: Vec<u8>) -> Result<(), GroupError> {
        let record_bytes = HEADER_BYTES + bytes.len() + TAG_BYTES;
        if record_bytes > RECORD_BYTES_MAX {
            return Err(GroupError::TooLarge(bytes.len()));
        }
        self.bytes += aligned(record_bytes);
        self.entries += u64::from(count);
        self.bodies.push(PlainBody { kind, count, bytes });
        Ok(())
    }

    /// Takes entries from the front until `bytes_max` is reached; gives how many. At least one.
    pub(crate) fn take_entries(&mut self, entries: &[Entry], bytes_max: usize) -> Result<usize, GroupError> {
        let mut encoder = EntryEncoder::default();
        let mut taken = 0;
        while let Some(entry) = entries.get(taken) {
            if encoder.push(entry, BODY_BYTES_MAX) {
                taken += 1;
                continue;
            }
            self.close_block(&mut encoder)?;
            if self.bytes + BLOCK_BYTES_MAX > bytes_max || self.bodies.len() + 1 >= GROUP_RECORDS_MAX {
                return Ok(taken);
            }
        }
        if encoder.len() > 0 {
            self.close_block(&mut encoder)?;
        }
        Ok(taken)
    }

    fn close_block(&mut self, encoder: &mut EntryEncoder<'_>) -> Result<(), GroupError> {
        let count = u32::try_from(encoder.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(BLOCK_BYTES_MAX);
        encoder.finish_into(&mut bytes)?;
        self.add(BlockKind::Entries, count, bytes)
    }

    /// Takes all changes.
    pub(crate) fn take_changes(&mut self, changes: &[Change]) -> Result<(), GroupError> {
        for bytes in changes_into(changes, BODY_BYTES_MAX)? {
            self.add(BlockKind::Changes, 0, bytes)?;
        }
        Ok(())
    }

    /// Takes a snapshot.
    pub(crate) fn take_state(&mut self, state: &State) -> Result<(), GroupError> {
        let mut bytes = Vec::new();
        state_into(state, &mut bytes)?;
        self.add(BlockKind::State, 0, bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bodies.is_empty()
    }

    /// Length when sealed, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries it holds.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// How many records it holds.
    pub(crate) fn records(&self) -> u64 {
        self.bodies.len() as u64
    }

    /// Seals all records into `sealed`, padded; gives the link for the record after.
    pub(crate) fn seal_into(&self, place: &SealingPlace<'_>, sealed: &mut Vec<u8>) -> Result<u64, GroupError> {
        let (mut ordinal, mut first, mut previous) = (place.ordinal, place.first, place.previous);
        for (index, body) in self.bodies.iter().enumerate() {
            let header = RecordHeader {
                segment: place.segment,
                ordinal,
                first,
                run: place.run,
                previous,
                count: body.count,
                body_bytes: u32::try_from(body.bytes.len() + TAG_BYTES).unwrap_or(u32::MAX),
                key_id: place.key_id,
                kind: body.kind,
                first_of_group: index == 0,
                group_remaining: u16::try_from(self.bodies.len() - 1 - index).unwrap_or(u16::MAX),
            };
            let start = sealed.len();
            sealed.extend_from_slice(&header.to_bytes(0));
            sealed.extend_from_slice(&body.bytes);
            let plain = sealed.get_mut(start + HEADER_BYTES..).unwrap_or_default();
            let tag = place.key.seal(header.nonce(), &header.to_bytes(0), plain).ok_or(GroupError::Seal)?;
            sealed.extend_from_slice(&tag);
            let record = sealed.get_mut(start..).unwrap_or_default();
            let sum = checksum(record).to_le_bytes();
            if let Some(field) = record.get_mut(4..8) {
                field.copy_from_slice(&sum);
            }
            previous = link(record);
            sealed.resize(start + aligned(header.record_bytes()), 0);
            ordinal = ordinal.next();
            first = header.next_sequence();
        }
        Ok(previous)
    }
}
