//! What the index keeps of one record of entries: enough to pass it over without opening it.

use vitalgate_domain::{Entry, ReadingId, Record, UnixMs};

use super::layout::{device_hash, take_u32, take_u64};
use crate::copy::Ordinal;
use crate::nearest::place_of;

/// Version of the encoding.
const VERSION: u8 = 1;
/// Longest encoded summary, in bytes; a record with more in it is marked opaque.
const SUMMARY_BYTES_MAX: usize = 4 * 1024;
/// Bytes before the two lists.
const FIXED_BYTES: usize = 1 + 1 + 8 + 4 + 8 + 8 + 2 + 2;
const FLAG_OPAQUE: u8 = 1;
const FLAG_LOST: u8 = 2;

/// Summary of one record of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    /// Where the record stands.
    pub(super) ordinal: Ordinal,
    /// How many entries it holds.
    pub(super) count: u32,
    /// No copy has the record.
    pub(super) lost: bool,
    /// What is in it; `None` when it could not be opened or is too varied: it matches everything.
    pub(super) content: Option<Content>,
}

/// What is in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// The earliest and the latest moment of its entries.
    pub(super) moments: (UnixMs, UnixMs),
    /// Hashes of the devices in it, ascending, each once.
    pub(super) devices: Vec<u32>,
    /// First four bytes of each reading's id.
    pub(super) fingerprints: Vec<u32>,
}

/// First four bytes of an id, itself a hash.
pub(super) fn fingerprint(id: &ReadingId) -> u32 {
    take_u32(id.as_bytes(), 0).unwrap_or_default()
}

impl Summary {
    /// Of a record whose entries are known.
    pub(super) fn of(ordinal: Ordinal, count: u32, records: &[Record]) -> Self {
        let mut content = Content { moments: (UnixMs(i64::MAX), UnixMs(i64::MIN)), devices: Vec::new(), fingerprints: Vec::new() };
        for record in records {
            let (device, moment) = place_of(&record.entry);
            content.moments = (content.moments.0.min(moment), content.moments.1.max(moment));
            let hash = device_hash(device);
            if let Err(at) = content.devices.binary_search(&hash) {
                content.devices.insert(at, hash);
            }
            if let Entry::Reading(reading) = &record.entry {
                content.fingerprints.push(fingerprint(&reading.id));
            }
        }
        let bytes = FIXED_BYTES + 4 * (content.devices.len() + content.fingerprints.len());
        Self { ordinal, count, lost: false, content: (bytes <= SUMMARY_BYTES_MAX).then_some(content) }
    }

    /// Of a record that does not open.
    pub(super) fn opaque(ordinal: Ordinal, count: u32) -> Self {
        Self { ordinal, count, lost: false, content: None }
    }

    /// Of `count` entries that no copy has.
    pub(super) fn lost(ordinal: Ordinal, count: u32) -> Self {
        Self { ordinal, count, lost: true, content: None }
    }

    /// Whether a reading with that fingerprint may be in it.
    pub(super) fn may_hold_id(&self, fingerprint: u32) -> bool {
        !self.lost && self.content.as_ref().is_none_or(|content| content.fingerprints.contains(&fingerprint))
    }

    /// How many milliseconds an entry of that device in it lies from the moment at least; `None` when there is none in it.
    pub(super) fn distance(&self, device: u32, at: UnixMs) -> Option<u64> {
        let Some(content) = &self.content else { return (!self.lost).then_some(0) };
        let (earliest, latest) = content.moments;
        let distance = if at < earliest {
            earliest.0.abs_diff(at.0)
        } else if at > latest {
            at.0.abs_diff(latest.0)
        } else {
            0
        };
        content.devices.binary_search(&device).is_ok().then_some(distance)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let empty = Content { moments: (UnixMs(0), UnixMs(0)), devices: Vec::new(), fingerprints: Vec::new() };
        let content = self.content.as_ref().unwrap_or(&empty);
        let flags = if self.content.is_none() { FLAG_OPAQUE } else { 0 } | if self.lost { FLAG_LOST } else { 0 };
        let mut value = Vec::with_capacity(FIXED_BYTES + 4 * (content.devices.len() + content.fingerprints.len()));
        value.extend_from_slice(&[VERSION, flags]);
        value.extend_from_slice(&self.ordinal.0.to_be_bytes());
        value.extend_from_slice(&self.count.to_be_bytes());
        value.extend_from_slice(&content.moments.0.0.to_be_bytes());
        value.extend_from_slice(&content.moments.1.0.to_be_bytes());
        for list in [&content.devices, &content.fingerprints] {
            value.extend_from_slice(&u16::try_from(list.len()).unwrap_or(u16::MAX).to_be_bytes());
            value.extend(list.iter().flat_map(|hash| hash.to_be_bytes()));
        }
        value
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let flags = *value.get(1).filter(|_| value.first() == Some(&VERSION))?;
        let moment = |at| take_u64(value, at).map(|bits| UnixMs(i64::from_be_bytes(bits.to_be_bytes())));
        let moments = (moment(14)?, moment(22)?);
        let (devices, at) = take_list(value, 30)?;
        let (fingerprints, end) = take_list(value, at)?;
        if end != value.len() {
            return None;
        }
        Some(Self {
            ordinal: Ordinal(take_u64(value, 2)?),
            count: take_u32(value, 10)?,
            lost: flags & FLAG_LOST != 0,
            content: (flags & FLAG_OPAQUE == 0).then_some(Content { moments, devices, fingerprints }),
        })
    }
}

fn take_list(value: &[u8], at: usize) -> Option<(Vec<u32>, usize)> {
    let length = value.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)?;
    let start = at + 2;
    let list = (0..usize::from(length)).map(|index| take_u32(value, start + 4 * index)).collect::<Option<Vec<u32>>>()?;
    Some((list, start + 4 * usize::from(length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record that is passed over wrongly is a reading that the trace cannot find.
    #[test]
    fn a_summary_survives_its_encoding_and_an_opaque_one_matches_everything() {
        let content = Content { moments: (UnixMs(-5), UnixMs(70)), devices: vec![3, 9], fingerprints: vec![1, 2, u32::MAX] };
        let summary = Summary { ordinal: Ordinal(7), count: 3, lost: false, content: Some(content) };
        assert_eq!(Summary::decode(&summary.encode()), Some(summary.clone()));
        assert!(summary.may_hold_id(u32::MAX) && !summary.may_hold_id(4));
        let distances = [-7, -5, 70, 99].map(|at| summary.distance(9, UnixMs(at)));
        assert_eq!(distances, [Some(2), Some(0), Some(0), Some(29)]);
        assert_eq!(summary.distance(4, UnixMs(0)), None);
        let opaque = Summary::opaque(Ordinal(8), 1);
        assert_eq!(Summary::decode(&opaque.encode()), Some(opaque.clone()));
        assert!(opaque.may_hold_id(4) && opaque.distance(4, UnixMs(0)) == Some(0));
        assert!(!Summary::lost(Ordinal(8), 1).may_hold_id(4));
        for cut in 0..summary.encode().len() {
            assert_eq!(Summary::decode(&summary.encode()[..cut]), None);
        }
    }
}
