//! The first look at a store that may be damaged, and what can still be taken out of one that is.
//!
//! Both may panic, hang or abort inside sled, so they run in a child process or at least on a
//! thread of their own; see [`super::probe`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::apply::ordinals_from;
use super::layout::{Slot, Trees, decode_record_key, record_key, take_u32, take_u64};
use super::summary::Summary;
use super::watch::reason;
use crate::copy::{BlockKind, Ordinal, RECORD_BYTES_MAX, SealedBlock, Watermark};
use vitalgate_domain::Sequence;

/// Newest records that are all read at the first look; at 24 readings each, 100,000 readings.
const COMPLETE_RECORDS_MAX: u64 = 4_096;
/// Records before those that are read, evenly spread.
const SPOTS: u64 = 128;
/// Keys read of each small tree, at either end.
const SMALL_TREE_KEYS: usize = 64;
/// How long another process may still hold the store's lock: one that was just killed.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to get the lock.
const LOCK_AGAIN: Duration = Duration::from_millis(20);
/// Most bytes salvaged from a damaged store, newest first.
const SALVAGE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Opens the store, waiting a moment for a lock that a dying process still holds.
pub(super) fn open_patiently(dir: &Path) -> Result<Trees, String> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        match Trees::open(dir) {
            Ok(trees) => return Ok(trees),
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") && Instant::now() < until => {
                std::thread::park_timeout(LOCK_AGAIN);
            }
            Err(error) => return Err(reason("opening", &error)),
        }
    }
}

/// Whether the store holds what it says that it holds. Gives back how far it has followed.
pub(super) fn check(trees: &Trees) -> Result<Watermark, String> {
    check_trees(trees).unwrap_or_else(|error| Err(reason("the first look", &error)))
}

type Checked<T> = Result<Result<T, String>, sled::Error>;

fn check_trees(trees: &Trees) -> Checked<Watermark> {
    let (applied, forgotten) = (trees.applied()?, trees.forgotten()?);
    if applied < forgotten || applied.sequence < forgotten.sequence {
        return Ok(Err(format!("it ends at record {} but begins after {}", applied.ordinal.0, forgotten.ordinal.0)));
    }
    let from = applied.ordinal.0.saturating_sub(COMPLETE_RECORDS_MAX).max(forgotten.ordinal.0);
    if let Err(defect) = check_run(trees, Ordinal(from), applied)? {
        return Ok(Err(defect));
    }
    for spot in 0..SPOTS.min(from - forgotten.ordinal.0) {
        let ordinal = Ordinal(forgotten.ordinal.0 + 1 + (from - forgotten.ordinal.0) * spot / SPOTS);
        if let Some(&next) = ordinals_from(trees, ordinal, 1)?.first()
            && let Err(defect) = check_one(trees, next)?
        {
            return Ok(Err(defect));
        }
    }
    if let Some(snapshot) = trees.snapshot()?
        && !matches!(trees.slot(snapshot)?, Slot::Block(block) if block.kind == BlockKind::State)
    {
        return Ok(Err(format!("the snapshot at record {} is gone", snapshot.0)));
    }
    trees.wrapped_keys()?;
    for tree in [&trees.delivered, &trees.rejected, &trees.index] {
        for entry in tree.iter().take(SMALL_TREE_KEYS).chain(tree.iter().rev().take(SMALL_TREE_KEYS)) {
            entry?;
        }
    }
    Ok(Ok(applied))
}

/// Every record after `after` up to the watermark: none missing, each whole, each in the index.
fn check_run(trees: &Trees, after: Ordinal, applied: Watermark) -> Checked<()> {
    let mut ordinal = after.next();
    let mut expected: Option<Sequence> = None;
    while ordinal <= applied.ordinal {
        let end = match trees.slot(ordinal)? {
            Slot::Block(block) => {
                if expected.is_some_and(|expected| expected != block.first) {
                    return Ok(Err(format!("record {} does not follow the one before it", ordinal.0)));
                }
                if let Err(defect) = check_index(trees, &block)? {
                    return Ok(Err(defect));
                }
                block.watermark()
            }
            Slot::Lost(until) if until.ordinal >= ordinal => until,
            Slot::Superseded => Watermark { ordinal, sequence: Sequence(expected.map_or(0, |next| next.0 - 1)) },
            // The check may begin inside a range that was lost as a whole.
            Slot::Absent if expected.is_none() && ordinal == after.next() => match ordinals_from(trees, ordinal, 1)?.first() {
                Some(&next) if lost_reaches(trees, ordinal, next)? => Watermark { ordinal: Ordinal(next.0 - 1), sequence: Sequence(0) },
                _ => return Ok(Err(format!("record {} is missing", ordinal.0))),
            },
            Slot::Absent => return Ok(Err(format!("record {} is missing", ordinal.0))),
            Slot::Lost(_) | Slot::Damaged => return Ok(Err(format!("record {} is not whole", ordinal.0))),
        };
        if end.sequence.0 > 0 {
            expected = Some(end.sequence.next());
        }
        ordinal = end.ordinal.next();
    }
    if expected.is_some_and(|expected| expected != applied.sequence.next()) {
        return Ok(Err(format!("its last record does not end at {}", applied.sequence.0)));
    }
    Ok(Ok(()))
}

/// Whether a lost range that begins before `ordinal` ends right before `next`.
fn lost_reaches(trees: &Trees, ordinal: Ordinal, next: Ordinal) -> Result<bool, sled::Error> {
    let before = trees.records.get_lt(record_key(ordinal, 0))?;
    let Some((begin, _)) = before.and_then(|(key, _)| decode_record_key(&key)) else { return Ok(false) };
    Ok(matches!(trees.slot(begin)?, Slot::Lost(until) if until.ordinal.next() == next))
}

fn check_one(trees: &Trees, ordinal: Ordinal) -> Checked<()> {
    match trees.slot(ordinal)? {
        Slot::Block(block) => check_index(trees, &block),
        Slot::Superseded | Slot::Lost(_) => Ok(Ok(())),
        Slot::Absent | Slot::Damaged => Ok(Err(format!("record {} is not whole", ordinal.0))),
    }
}

fn check_index(trees: &Trees, block: &SealedBlock) -> Checked<()> {
    if block.kind != BlockKind::Entries {
        return Ok(Ok(()));
    }
    let summary = trees.index.get(block.first.0.to_be_bytes())?.and_then(|value| Summary::decode(&value));
    let matches = summary.is_some_and(|summary| summary.ordinal == block.ordinal && summary.count == block.count);
    Ok(if matches { Ok(()) } else { Err(format!("record {} is not in the index", block.ordinal.0)) })
}

/// Writes the records below `below` to `out`, newest first, up to the first that cannot be read.
/// Gives back how many.
pub(super) fn salvage(trees: &Trees, below: Ordinal, out: &mut dyn Write) -> io::Result<u64> {
    let (mut records, mut bytes) = (0, 0);
    let floor = catch_unwind(AssertUnwindSafe(|| trees.forgotten())).ok().and_then(Result::ok).unwrap_or_default();
    let mut ordinal = below.0.saturating_sub(1);
    while ordinal > floor.ordinal.0 && bytes < SALVAGE_BYTES_MAX {
        let slot = catch_unwind(AssertUnwindSafe(|| trees.slot(Ordinal(ordinal))));
        let bytes_here = match slot {
            Ok(Ok(Slot::Block(block))) if block.kind != BlockKind::State => block.bytes,
            // An old snapshot is history that nobody reads; its place counts.
            Ok(Ok(Slot::Block(_) | Slot::Superseded)) => Vec::new(),
            _ => return Ok(records),
        };
        out.write_all(&encode_salvaged(Ordinal(ordinal), &bytes_here))?;
        // What was read before sled aborts must be in the file.
        out.flush()?;
        records += 1;
        bytes += bytes_here.len() as u64;
        ordinal -= 1;
    }
    Ok(records)
}

/// Length, checksum, ordinal, bytes; without bytes it stands for an old snapshot.
fn encode_salvaged(ordinal: Ordinal, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(16 + bytes.len());
    encoded.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
    encoded.extend_from_slice(&crc32c::crc32c(bytes).to_be_bytes());
    encoded.extend_from_slice(&ordinal.0.to_be_bytes());
    encoded.extend_from_slice(bytes);
    encoded
}

/// Reads one salvaged record's place and bytes; `None` at the end or where the file breaks off.
pub(super) fn read_salvaged(file: &mut impl Read) -> Option<(Ordinal, Vec<u8>)> {
    let mut head = [0; 16];
    file.read_exact(&mut head).ok()?;
    let length = usize::try_from(take_u32(&head, 0)?).ok().filter(|&length| length <= RECORD_BYTES_MAX)?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).ok()?;
    (Some(crc32c::crc32c(&bytes)) == take_u32(&head, 4)).then_some((Ordinal(take_u64(&head, 8)?), bytes))
}

/// Salvages from the store in `dir` into a file.
pub(super) fn salvage_to(dir: &Path, below: Ordinal, file: &Path) -> Result<u64, String> {
    let trees = open_patiently(dir)?;
    let mut out = File::create(file).map_err(|error| error.kind().to_string())?;
    let salvaged = salvage(&trees, below, &mut out).map_err(|error| error.kind().to_string());
    // Closing a damaged store can panic in the middle of a panic; the process or thread ends anyway.
    let _kept_open = std::mem::ManuallyDrop::new(trees);
    salvaged
}
