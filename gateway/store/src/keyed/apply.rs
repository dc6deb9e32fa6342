//! Writes journal records into the trees, and takes old ones out again.
//!
//! No sled batches or transactions: each is idempotent by key, and the watermark is written last.
//! sled recovers a prefix of its log, so a watermark that is there has everything before it; what
//! lies beyond it is written again with the same bytes.

use vitalgate_domain::{Change, Sequence};

use super::layout::{
    APPLIED, FORGOTTEN, SNAPSHOT, Slot, Trees, decode_record_key, delivered_key, destination_hash, encode_watermark, lost_value, parts_of,
    record_key, rejected_key, superseded_value, take_u64, values_of, wrapped_key_place,
};
use super::summary::Summary;
use crate::copy::{BlockKind, BlockSource, Ordinal, SealedBlock, SourceError, Watermark};

/// A record with what the other trees say of it.
#[derive(Debug)]
pub(super) struct Prepared {
    block: SealedBlock,
    index: Option<Summary>,
    delivered: Vec<([u8; 20], Vec<u8>)>,
    rejected: Vec<[u8; 20]>,
}

/// Opens a record and works out what the other trees need. One that does not open is kept as it is.
pub(super) fn prepare(source: &dyn BlockSource, block: SealedBlock) -> (Prepared, Option<SourceError>) {
    let mut prepared = Prepared { block, index: None, delivered: Vec::new(), rejected: Vec::new() };
    let block = &prepared.block;
    let mut problem = None;
    match block.kind {
        BlockKind::Entries => {
            prepared.index = Some(match source.open_entries(block) {
                Ok(records) => Summary::of(block.ordinal, block.count, &records),
                Err(error) => {
                    problem = Some(error);
                    Summary::opaque(block.ordinal, block.count)
                }
            });
        }
        BlockKind::Changes => match source.open_changes(block) {
            Ok(changes) => (prepared.delivered, prepared.rejected) = settled_keys(block.ordinal, &changes),
            Err(error) => problem = Some(error),
        },
        BlockKind::State => {}
    }
    (prepared, problem)
}

type SettledKeys = (Vec<([u8; 20], Vec<u8>)>, Vec<[u8; 20]>);

/// Most remote ids under one key of `delivered`.
const DELIVERED_PER_KEY_MAX: usize = 1_024;

/// The keys that point to the details of settled entries in these changes.
pub(super) fn settled_keys(ordinal: Ordinal, changes: &[Change]) -> SettledKeys {
    let (mut delivered, mut rejected) = (Vec::new(), Vec::new());
    for change in changes {
        let Change::Settled { destination, rejected: refused, remote_ids, .. } = change else { continue };
        let destination = destination_hash(destination);
        rejected.extend(refused.iter().map(|reading| rejected_key(reading.sequence, destination, ordinal)));
        let mut sequences: Vec<Sequence> = remote_ids.iter().map(|(sequence, _)| *sequence).collect();
        sequences.sort_unstable();
        sequences.dedup();
        let mut rest = sequences.as_slice();
        while let Some(&lowest) = rest.first() {
            // A difference has four bytes; what lies further away begins a key of its own.
            let near = rest.iter().take(DELIVERED_PER_KEY_MAX).take_while(|sequence| u32::try_from(sequence.0 - lowest.0).is_ok());
            let (now, later) = rest.split_at(near.count());
            let value = now.iter().flat_map(|sequence| u32::try_from(sequence.0 - lowest.0).unwrap_or(0).to_be_bytes()).collect();
            delivered.push((delivered_key(destination, lowest, ordinal), value));
            rest = later;
        }
    }
    (delivered, rejected)
}

/// Writes prepared records and then the watermark of the last one.
pub(super) fn apply(trees: &Trees, prepared: &[Prepared]) -> Result<(), sled::Error> {
    for Prepared { block, index, delivered, rejected } in prepared {
        if block.kind == BlockKind::State {
            put_snapshot(trees, block)?;
        } else {
            put_record(trees, block)?;
        }
        if let Some(summary) = index {
            trees.index.insert(block.first.0.to_be_bytes(), summary.encode())?;
        }
        for (key, value) in delivered {
            trees.delivered.insert(key, value.as_slice())?;
        }
        for key in rejected {
            trees.rejected.insert(key, &[])?;
        }
    }
    if let Some(last) = prepared.last() {
        set_applied(trees, last.block.watermark())?;
    }
    Ok(())
}

/// Writes one record; also for a salvaged one, which moves no watermark.
pub(super) fn put_record(trees: &Trees, block: &SealedBlock) -> Result<(), sled::Error> {
    for (part, value) in values_of(block) {
        trees.records.insert(record_key(block.ordinal, part), value)?;
    }
    trees.touch(block.ordinal)
}

/// Writes a salvaged record with what is known of it.
pub(super) fn put_salvaged(trees: &Trees, prepared: &Prepared) -> Result<(), sled::Error> {
    put_record(trees, &prepared.block)?;
    if let Some(summary) = &prepared.index {
        trees.index.insert(prepared.block.first.0.to_be_bytes(), summary.encode())?;
    }
    for (key, value) in &prepared.delivered {
        trees.delivered.insert(key, value.as_slice())?;
    }
    for key in &prepared.rejected {
        trees.rejected.insert(key, &[])?;
    }
    Ok(())
}

/// Stands for an old snapshot.
pub(super) fn put_superseded(trees: &Trees, ordinal: Ordinal) -> Result<(), sled::Error> {
    trees.records.insert(record_key(ordinal, 0), superseded_value()).map(drop)
}

/// A new snapshot takes the place of the one before: pointed to first, then the old one goes.
fn put_snapshot(trees: &Trees, block: &SealedBlock) -> Result<(), sled::Error> {
    let before = trees.snapshot()?.filter(|&before| before != block.ordinal);
    put_record(trees, block)?;
    trees.state.insert(SNAPSHOT, &block.ordinal.0.to_be_bytes())?;
    let Some(before) = before else { return Ok(()) };
    if let Slot::Block(old) = trees.slot(before)? {
        put_superseded(trees, before)?;
        for part in 1..parts_of(old.bytes.len()) {
            trees.records.remove(record_key(before, part))?;
        }
    }
    if before.0 <= trees.forgotten()?.ordinal.0 {
        trees.records.remove(record_key(before, 0))?;
    }
    Ok(())
}

/// Notes that no copy has the records after `applied` up to `until`, and goes on behind them.
pub(super) fn apply_lost(trees: &Trees, applied: Watermark, until: Watermark) -> Result<(), sled::Error> {
    let from = applied.ordinal.next();
    trees.records.insert(record_key(from, 0), lost_value(until))?;
    let count = until.sequence.0.saturating_sub(applied.sequence.0);
    if count > 0 {
        let summary = Summary::lost(from, u32::try_from(count).unwrap_or(u32::MAX));
        trees.index.insert(applied.sequence.next().0.to_be_bytes(), summary.encode())?;
    }
    set_applied(trees, until)
}

/// The watermark: always after what it stands for.
pub(super) fn set_applied(trees: &Trees, watermark: Watermark) -> Result<(), sled::Error> {
    trees.state.insert(APPLIED, &encode_watermark(watermark)).map(drop)
}

/// Where the store begins: everything up to here is not expected in it.
pub(super) fn set_forgotten(trees: &Trees, watermark: Watermark) -> Result<(), sled::Error> {
    trees.state.insert(FORGOTTEN, &encode_watermark(watermark)).map(drop)
}

/// Keeps a copy of the wrapped data keys, writing only what is new; those before `oldest` are destroyed here too.
pub(super) fn put_wrapped_keys(trees: &Trees, keys: &[(u32, Vec<u8>)], oldest: u32) -> Result<(), sled::Error> {
    let destroyed: Vec<_> = trees.state.range(wrapped_key_place(0)..wrapped_key_place(oldest)).keys().collect::<Result<_, _>>()?;
    for key in destroyed {
        trees.state.remove(key)?;
    }
    for (key_id, wrapped) in keys {
        let key = wrapped_key_place(*key_id);
        if trees.state.get(&key)?.is_none_or(|held| held != wrapped.as_slice()) {
            trees.state.insert(key, wrapped.as_slice())?;
        }
    }
    Ok(())
}

/// Takes out at most `steps` records that the journal has let go of. Gives back how far it came.
///
/// `forgotten` moves first: a crash in between leaves keys that nobody misses and the next call
/// for a higher place passes over; it never leaves a hole that looks like damage.
pub(super) fn forget(trees: &Trees, source: &dyn BlockSource, upto: Watermark, steps: u64) -> Result<Watermark, sled::Error> {
    let start = trees.forgotten()?;
    let wanted = Ordinal(upto.ordinal.0.min(start.ordinal.0.saturating_add(steps)));
    if wanted <= start.ordinal {
        return Ok(start);
    }
    let mut reached = highest(trees, start, wanted)?;
    if reached.ordinal >= upto.ordinal {
        reached.sequence = reached.sequence.max(upto.sequence);
    }
    let last = reached.ordinal;
    set_forgotten(trees, reached)?;
    let snapshot = trees.snapshot()?;
    for ordinal in (start.ordinal.0 + 1..=last.0).map(Ordinal) {
        if Some(ordinal) == snapshot {
            continue;
        }
        if let Slot::Block(block) = trees.slot(ordinal)?
            && block.kind == BlockKind::Changes
            && let Ok(changes) = source.open_changes(&block)
        {
            let (delivered, rejected) = settled_keys(ordinal, &changes);
            for (key, _) in delivered {
                trees.delivered.remove(key)?;
            }
            for key in rejected {
                trees.rejected.remove(key)?;
            }
        }
        remove_parts(trees, ordinal)?;
    }
    for entry in trees.index.range(..=reached.sequence.0.to_be_bytes()).take(INDEX_DROPS_MAX) {
        let (key, value) = entry?;
        let gone = Summary::decode(&value).is_none_or(|summary| summary.ordinal <= reached.ordinal);
        if gone {
            trees.index.remove(key)?;
        }
    }
    Ok(reached)
}

/// Most index entries dropped in one step; more than records in it, so that it catches up.
const INDEX_DROPS_MAX: usize = 256;

/// The watermark of what lies between, never ending inside a range that was lost as a whole.
fn highest(trees: &Trees, start: Watermark, last: Ordinal) -> Result<Watermark, sled::Error> {
    let mut highest = Watermark { ordinal: last, sequence: start.sequence };
    for ordinal in (start.ordinal.0 + 1..=last.0).map(Ordinal) {
        match trees.slot(ordinal)? {
            Slot::Block(block) => highest.sequence = highest.sequence.max(block.watermark().sequence),
            Slot::Lost(until) => {
                highest.sequence = highest.sequence.max(until.sequence);
                highest.ordinal = highest.ordinal.max(until.ordinal);
            }
            _ => {}
        }
    }
    Ok(highest)
}

fn remove_parts(trees: &Trees, ordinal: Ordinal) -> Result<(), sled::Error> {
    let range = record_key(ordinal, 0)..=record_key(ordinal, u16::MAX);
    let keys: Vec<_> = trees.records.range(range).keys().collect::<Result<_, _>>()?;
    for key in keys {
        trees.records.remove(key)?;
    }
    Ok(())
}

/// The ordinals of the records that begin at or after `from`, at most `max`, in order.
pub(super) fn ordinals_from(trees: &Trees, from: Ordinal, max: usize) -> Result<Vec<Ordinal>, sled::Error> {
    let mut found = Vec::new();
    let mut next = record_key(from, 0);
    while found.len() < max {
        let Some((key, _)) = trees.records.get_gt(before(next))? else { break };
        let Some((ordinal, _)) = decode_record_key(&key) else { break };
        found.push(ordinal);
        next = record_key(ordinal.next(), 0);
    }
    Ok(found)
}

/// The greatest key below, so that "greater than" means "at or after".
fn before(key: [u8; 10]) -> Vec<u8> {
    match take_u64(&key, 0) {
        Some(0) | None => Vec::new(),
        Some(ordinal) => record_key(Ordinal(ordinal - 1), u16::MAX).to_vec(),
    }
}
