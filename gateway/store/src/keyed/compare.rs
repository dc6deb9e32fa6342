//! Holds an opened store against the journal: is it that journal's copy, and no further than it?

use super::layout::{Slot, Trees};
use super::shared::Shared;
use super::watch::Worker;
use crate::copy::{BlockSource, KeyedError, Ordinal, Watermark};

/// Records that are compared byte for byte, evenly spread over what both hold.
const SPOTS: u64 = 16;

/// What the comparison found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The store is a copy of this journal.
    Same,
    /// It is further than the journal, or shares its beginning and ends otherwise: the journal has lost its end, or is another one; it
    /// must be rebuilt.
    Ahead(String),
    /// It is not, and must be rebuilt.
    Different(String),
}

/// Compares.
///
/// # Errors
/// When sled fails, panics or hangs.
pub(super) fn compare(shared: &Shared, trees: &Trees, source: &dyn BlockSource, applied: Watermark) -> Result<Comparison, KeyedError> {
    let committed = source.committed();
    if applied.ordinal > committed.ordinal {
        let reason = format!("it is at record {}, the journal only at {}", applied.ordinal.0, committed.ordinal.0);
        return Ok(Comparison::Ahead(reason));
    }
    let forgotten = shared.watch.call(Worker::Feeder, "comparing", shared.times.call, || trees.forgotten())?;
    let first = source.oldest().0.max(forgotten.ordinal.0.saturating_add(1)).max(1);
    if applied.ordinal.0 < first {
        return Ok(Comparison::Same);
    }
    let span = applied.ordinal.0 - first;
    let mut shares_any = false;
    for spot in 0..=SPOTS.min(span) {
        let ordinal = Ordinal(first + span * spot / SPOTS.min(span).max(1));
        // A lost or unreadable spot in the journal says nothing about this copy.
        let Ok(blocks) = source.blocks_after(Ordinal(ordinal.0 - 1), 1) else { continue };
        let Some(journal) = blocks.into_iter().next().filter(|block| block.ordinal == ordinal) else { continue };
        let slot = shared.watch.call(Worker::Feeder, "comparing", shared.times.call, || trees.slot(ordinal))?;
        match slot {
            Slot::Block(held) if held == journal => shares_any = true,
            // The journal may have been healed since.
            Slot::Superseded | Slot::Lost(_) => {}
            Slot::Absent if shared_gap(trees, shared, ordinal)? => {}
            // What it has there was committed, and the journal went on without it.
            Slot::Block(_) if shares_any => {
                return Ok(Comparison::Ahead(format!("it has another record {} than the journal, which lost its own", ordinal.0)));
            }
            _ => return Ok(Comparison::Different(format!("its record {} is not the journal's", ordinal.0))),
        }
    }
    Ok(Comparison::Same)
}

/// Whether the ordinal lies inside a range that was noted as lost.
fn shared_gap(trees: &Trees, shared: &Shared, ordinal: Ordinal) -> Result<bool, KeyedError> {
    shared.watch.call(Worker::Feeder, "comparing", shared.times.call, || {
        let Some((key, _)) = trees.records.get_lt(super::layout::record_key(ordinal, 0))? else { return Ok(false) };
        let Some((before, _)) = super::layout::decode_record_key(&key) else { return Ok(false) };
        Ok(matches!(trees.slot(before)?, Slot::Lost(until) if until.ordinal >= ordinal))
    })
}
