//! What lies in sled under which key.
//!
//! Integers are big-endian, so that sled's order is the journal's order.
//!
//! | tree        | key                                         | value                                                  |
//! | ----------- | ------------------------------------------- | ------------------------------------------------------ |
//! | `records`   | ordinal (8), part (2)                       | [`Part`]: a sealed record, cut where it is too long     |
//! | `index`     | first sequence (8)                          | [`Summary`](super::summary::Summary) of that record     |
//! | `delivered` | destination (4), lowest sequence (8), ordinal (8) | differences of the sequences whose remote ids the changes at that ordinal name |
//! | `rejected`  | sequence (8), destination (4), ordinal (8)  | empty; the changes at that ordinal hold the reason      |
//! | `state`     | `applied`, `forgotten`, `snapshot`, `key/` + key id (4) | watermarks, ordinal of the latest snapshot, wrapped key |
//!
//! Nothing clinical stands outside a sealed record: `index` holds hashes and times, `delivered` and
//! `rejected` only point to the changes that hold the details. `destination` is the CRC32C of its
//! name; whoever looks up compares the name itself in the opened changes.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use vitalgate_domain::{DestinationId, DeviceId, Sequence};

use crate::copy::{BLOCK_BYTES_MAX, BlockKind, Ordinal, RECORD_BYTES_MAX, SealedBlock, Watermark};

/// Bytes of a record in one value; longer records are cut into parts.
pub(super) const PART_BYTES_MAX: usize = BLOCK_BYTES_MAX;
/// Bytes of the head before the bytes of a record's first part.
pub(super) const HEAD_BYTES: usize = 30;
/// Longest value in any tree.
pub(super) const VALUE_BYTES_MAX: usize = PART_BYTES_MAX + HEAD_BYTES;
/// Page cache of sled, in bytes. Each of its 256 shards keeps one page of records whatever the limit,
/// so more than this only costs memory: after a fill of a million readings 51 MiB are resident with
/// 16 MiB, 41 MiB with 4, at the same speed.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;
/// sled's default segment, in bytes; part of the store's format (`conf`).
const SEGMENT_BYTES: usize = 512 * 1024;
/// sled writes a page of more than a fourth of a segment to `blobs/`, which it does not recover.
const INLINE_PAGE_BYTES_MAX: usize = SEGMENT_BYTES / 4;
/// A leaf is split beyond 16 entries; a merge of a nearly empty neighbour can add three before that.
const LEAF_ENTRIES_MAX: usize = 16 + 1 + 3;
/// Room for a key and its bookkeeping in a leaf.
const LEAF_KEY_BYTES: usize = 40;

const _: () = assert!(LEAF_ENTRIES_MAX * (VALUE_BYTES_MAX + LEAF_KEY_BYTES) < INLINE_PAGE_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX / PART_BYTES_MAX < u16::MAX as usize);

/// What `conf` must hold; a damaged one would make sled refuse a sound store.
pub(super) const CONF: &[u8] = b"segment_size: 524288\nuse_compression: false\nversion: 0.34\n";

/// The CRC32 that follows it, little-endian.
pub(super) const CONF_CHECKSUM: [u8; 4] = [0x76, 0x19, 0x51, 0xc1];

/// Key of the applied watermark in `state`.
pub(super) const APPLIED: &[u8] = b"applied";
/// Key of the watermark up to which records were dropped, or never were here, in `state`.
pub(super) const FORGOTTEN: &[u8] = b"forgotten";
/// Key of the ordinal of the latest snapshot in `state`.
pub(super) const SNAPSHOT: &[u8] = b"snapshot";
/// Begin of the keys of wrapped data keys in `state`.
pub(super) const KEY_PREFIX: &[u8] = b"key/";

/// The open store.
pub(super) struct Trees {
    pub(super) db: sled::Db,
    pub(super) records: sled::Tree,
    pub(super) index: sled::Tree,
    pub(super) delivered: sled::Tree,
    pub(super) rejected: sled::Tree,
    pub(super) state: sled::Tree,
    /// The run of ordinals that was touched last, see [`Trees::touch`].
    touched: AtomicU64,
}

/// Uses of a page after which sled's cache certainly takes note of it.
const TOUCHES: usize = 64;
/// Consecutive ordinals that are touched together; a page of records holds 8 to 16 of them.
const TOUCHED_TOGETHER: u64 = 8;

impl Trees {
    /// Opens or creates the store in `dir`. Damaged files can make this panic, hang or abort.
    pub(super) fn open(dir: &Path) -> Result<Self, sled::Error> {
        let db = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(None)
            .open()?;
        Ok(Self {
            records: db.open_tree("records")?,
            index: db.open_tree("index")?,
            delivered: db.open_tree("delivered")?,
            rejected: db.open_tree("rejected")?,
            state: db.open_tree("state")?,
            db,
            touched: AtomicU64::new(u64::MAX),
        })
    }

    /// Makes sled's cache take note of the page that holds a record.
    ///
    /// Each of its 256 shards collects 64 uses before it evicts anything, so pages that are used
    /// only a few times each stay in memory whatever the limit is: some 100 MiB of them. Looking a
    /// page up again costs about a microsecond.
    pub(super) fn touch(&self, ordinal: Ordinal) -> Result<(), sled::Error> {
        let run = ordinal.0 / TOUCHED_TOGETHER;
        if self.touched.swap(run, Ordering::Relaxed) != run {
            let key = record_key(ordinal, 0);
            for _ in 0..TOUCHES {
                self.records.contains_key(key)?;
            }
        }
        Ok(())
    }

    /// How far this store says that it has followed the journal.
    pub(super) fn applied(&self) -> Result<Watermark, sled::Error> {
        let value = self.state.get(APPLIED)?;
        Ok(value.and_then(|value| decode_watermark(&value)).unwrap_or_default())
    }

    /// Up to where records are not expected here.
    pub(super) fn forgotten(&self) -> Result<Watermark, sled::Error> {
        let value = self.state.get(FORGOTTEN)?;
        Ok(value.and_then(|value| decode_watermark(&value)).unwrap_or_default())
    }

    /// The wrapped data keys.
    pub(super) fn wrapped_keys(&self) -> Result<Vec<(u32, Vec<u8>)>, sled::Error> {
        let mut keys = Vec::new();
        for entry in self.state.scan_prefix(KEY_PREFIX) {
            let (key, wrapped) = entry?;
            keys.extend(take_u32(&key, KEY_PREFIX.len()).map(|key_id| (key_id, wrapped.to_vec())));
        }
        Ok(keys)
    }

    /// The ordinal of the latest snapshot.
    pub(super) fn snapshot(&self) -> Result<Option<Ordinal>, sled::Error> {
        Ok(self.state.get(SNAPSHOT)?.and_then(|value| take_u64(&value, 0)).map(Ordinal))
    }

    /// What stands at an ordinal.
    ///
    /// A record that is let go of or superseded loses its first part first, so a reader that came
    /// upon half of one finds out by looking a second time; what is then still half is damaged.
    pub(super) fn slot(&self, ordinal: Ordinal) -> Result<Slot, sled::Error> {
        match self.look_at(ordinal)? {
            Slot::Damaged => self.look_at(ordinal),
            slot => Ok(slot),
        }
    }

    fn look_at(&self, ordinal: Ordinal) -> Result<Slot, sled::Error> {
        let Some(first) = self.records.get(record_key(ordinal, 0))? else { return Ok(Slot::Absent) };
        self.touch(ordinal)?;
        let Some(part) = Part::decode(&first) else { return Ok(Slot::Damaged) };
        let (head, start) = match part {
            Part::First { head, bytes } => (head, bytes),
            Part::Superseded => return Ok(Slot::Superseded),
            Part::Lost(until) => return Ok(Slot::Lost(until)),
            Part::Next(_) => return Ok(Slot::Damaged),
        };
        let mut bytes = Vec::with_capacity(head.length.min(RECORD_BYTES_MAX));
        bytes.extend_from_slice(start);
        for part in 1..parts_of(head.length) {
            let Some(value) = self.records.get(record_key(ordinal, part))? else { return Ok(Slot::Damaged) };
            let Some(Part::Next(more)) = Part::decode(&value) else { return Ok(Slot::Damaged) };
            bytes.extend_from_slice(more);
        }
        if bytes.len() != head.length || crc32c::crc32c(&bytes) != head.crc {
            return Ok(Slot::Damaged);
        }
        let Head { kind, first, count, key_id, .. } = head;
        Ok(Slot::Block(SealedBlock { kind, ordinal, first, count, key_id, bytes }))
    }
}

/// What stands at an ordinal.
#[derive(Debug)]
pub(super) enum Slot {
    /// Nothing.
    Absent,
    /// A record.
    Block(SealedBlock),
    /// There was a snapshot; a later one took its place.
    Superseded,
    /// No copy of the journal had the records from here to there.
    Lost(Watermark),
    /// Something that cannot be.
    Damaged,
}

/// Head of a record's first part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    kind: BlockKind,
    first: Sequence,
    count: u32,
    key_id: u32,
    length: usize,
    crc: u32,
}

/// One value of `records`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    First { head: Head, bytes: &'a [u8] },
    Next(&'a [u8]),
    Superseded,
    Lost(Watermark),
}

const TAG_FIRST: u8 = 1;
const TAG_NEXT: u8 = 2;
const TAG_SUPERSEDED: u8 = 3;
const TAG_LOST: u8 = 4;

impl<'a> Part<'a> {
    fn decode(value: &'a [u8]) -> Option<Self> {
        let (&tag, rest) = value.split_first()?;
        match tag {
            TAG_FIRST => {
                let kind = decode_kind(*rest.first()?)?;
                let head = Head {
                    kind,
                    first: Sequence(take_u64(rest, 1)?),
                    count: take_u32(rest, 9)?,
                    key_id: take_u32(rest, 13)?,
                    length: usize::try_from(take_u64(rest, 17)?).ok().filter(|&length| length <= RECORD_BYTES_MAX)?,
                    crc: take_u32(rest, 25)?,
                };
                Some(Self::First { head, bytes: rest.get(HEAD_BYTES - 1..)? })
            }
            TAG_NEXT => Some(Self::Next(rest)),
            TAG_SUPERSEDED => Some(Self::Superseded),
            TAG_LOST => decode_watermark(rest).map(Self::Lost),
            _ => None,
        }
    }
}

/// How many values a record of this length takes.
pub(super) fn parts_of(length: usize) -> u16 {
    u16::try_from(length.div_ceil(PART_BYTES_MAX).max(1)).unwrap_or(u16::MAX)
}

/// The values of a record, the first part first.
pub(super) fn values_of(block: &SealedBlock) -> impl Iterator<Item = (u16, Vec<u8>)> {
    (0..parts_of(block.bytes.len())).map(|part| {
        let start = usize::from(part) * PART_BYTES_MAX;
        let bytes = block.bytes.get(start..block.bytes.len().min(start + PART_BYTES_MAX)).unwrap_or_default();
        let mut value = Vec::with_capacity(HEAD_BYTES + bytes.len());
        if part == 0 {
            value.push(TAG_FIRST);
            value.push(encode_kind(block.kind));
            value.extend_from_slice(&block.first.0.to_be_bytes());
            value.extend_from_slice(&block.count.to_be_bytes());
            value.extend_from_slice(&block.key_id.to_be_bytes());
            value.extend_from_slice(&(block.bytes.len() as u64).to_be_bytes());
            value.extend_from_slice(&crc32c::crc32c(&block.bytes).to_be_bytes());
        } else {
            value.push(TAG_NEXT);
        }
        value.extend_from_slice(bytes);
        (part, value)
    })
}

/// The value that takes an old snapshot's place.
pub(super) fn superseded_value() -> Vec<u8> {
    vec![TAG_SUPERSEDED]
}

/// The value that stands for records that no copy has.
pub(super) fn lost_value(until: Watermark) -> Vec<u8> {
    let mut value = vec![TAG_LOST];
    value.extend_from_slice(&encode_watermark(until));
    value
}

fn encode_kind(kind: BlockKind) -> u8 {
    match kind {
        BlockKind::Entries => 1,
        BlockKind::Changes => 2,
        BlockKind::State => 3,
    }
}

fn decode_kind(byte: u8) -> Option<BlockKind> {
    match byte {
        1 => Some(BlockKind::Entries),
        2 => Some(BlockKind::Changes),
        3 => Some(BlockKind::State),
        _ => None,
    }
}

/// Key in `records`.
pub(super) fn record_key(ordinal: Ordinal, part: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&ordinal.0.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Ordinal and part of a key in `records`.
pub(super) fn decode_record_key(key: &[u8]) -> Option<(Ordinal, u16)> {
    let part = key.get(8..10).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)?;
    take_u64(key, 0).filter(|_| key.len() == 10).map(|ordinal| (Ordinal(ordinal), part))
}

/// Key in `delivered`.
pub(super) fn delivered_key(destination: u32, lowest: Sequence, ordinal: Ordinal) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&destination.to_be_bytes());
    key[4..12].copy_from_slice(&lowest.0.to_be_bytes());
    key[12..].copy_from_slice(&ordinal.0.to_be_bytes());
    key
}

/// Key in `rejected`.
pub(super) fn rejected_key(sequence: Sequence, destination: u32, ordinal: Ordinal) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&sequence.0.to_be_bytes());
    key[8..12].copy_from_slice(&destination.to_be_bytes());
    key[12..].copy_from_slice(&ordinal.0.to_be_bytes());
    key
}

/// Key of a wrapped data key in `state`.
pub(super) fn wrapped_key_place(key_id: u32) -> Vec<u8> {
    [KEY_PREFIX, &key_id.to_be_bytes()].concat()
}

/// Short hash of a destination's name.
pub(super) fn destination_hash(destination: &DestinationId) -> u32 {
    crc32c::crc32c(destination.as_str().as_bytes())
}

/// Short hash of a device's name.
pub(super) fn device_hash(device: &DeviceId) -> u32 {
    crc32c::crc32c(device.as_str().as_bytes())
}

pub(super) fn encode_watermark(watermark: Watermark) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&watermark.ordinal.0.to_be_bytes());
    value[8..].copy_from_slice(&watermark.sequence.0.to_be_bytes());
    value
}

pub(super) fn decode_watermark(value: &[u8]) -> Option<Watermark> {
    let (ordinal, sequence) = (take_u64(value, 0)?, take_u64(value, 8)?);
    (value.len() == 16).then_some(Watermark { ordinal: Ordinal(ordinal), sequence: Sequence(sequence) })
}

pub(super) fn take_u64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes)
}

pub(super) fn take_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
}
