//! Begins a new store where the journal begins, and brings over what only a damaged one held.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use vitalgate_domain::Sequence;

use super::apply;
use super::event::KeyedEvent;
use super::layout::Trees;
use super::look::read_salvaged;
use super::probe;
use super::quarantine::remove_if_there;
use super::shared::Shared;
use super::watch::Worker;
use crate::copy::{BlockSource, KeyedError, Ordinal, Watermark};

/// Sets the watermarks of an empty store to right before the journal's first record.
///
/// # Errors
/// When sled fails, panics or hangs.
pub(super) fn begin(shared: &Shared, trees: &Trees, source: &dyn BlockSource) -> Result<Watermark, KeyedError> {
    let ordinal = Ordinal(source.oldest().0.saturating_sub(1));
    if ordinal.0 == 0 {
        return Ok(Watermark::default());
    }
    let first = source.blocks_after(ordinal, 1).ok().and_then(|blocks| blocks.into_iter().next());
    let begin = match first {
        Some(block) => {
            Watermark { ordinal: Ordinal(block.ordinal.0.saturating_sub(1)), sequence: Sequence(block.first.0.saturating_sub(1)) }
        }
        None => Watermark { ordinal, sequence: Sequence(0) },
    };
    shared.watch.call(Worker::Feeder, "beginning anew", shared.times.call, || {
        apply::set_applied(trees, begin)?;
        apply::set_forgotten(trees, begin)
    })?;
    Ok(begin)
}

/// Reads out of the old store what lies before `begin`, newest first, as far as it is whole: the
/// new store then begins where the unbroken run begins. `false` when it is asked to stop on a full
/// disk; nothing is told then, and the next start salvages anew.
///
/// # Errors
/// When the new store fails. That the old one does not yield anything is only told.
pub(super) fn salvage(
    shared: &Shared,
    trees: &Trees,
    source: &dyn BlockSource,
    old: Option<&Path>,
    begin: Watermark,
) -> Result<bool, KeyedError> {
    let mut floor = begin;
    let mut records = 0;
    if let Some(old) = old {
        let file = shared.places.salvaged();
        if let Err(reason) = probe::salvage(&shared.probe, old, begin.ordinal.next(), &file, shared.times.salvage) {
            tracing::warn!(reason, "salvaging from the damaged keyed store ended early");
        }
        if let Ok(opened) = File::open(&file) {
            let mut reader = BufReader::new(opened);
            while let Some((ordinal, bytes)) = read_salvaged(&mut reader) {
                if !shared.await_room() {
                    return Ok(false);
                }
                if ordinal != floor.ordinal {
                    break;
                }
                let Some(before) = bring_over(shared, trees, source, floor, &bytes)? else { break };
                floor = before;
                records += 1;
            }
        }
        if remove_if_there(&file).is_err() {
            tracing::warn!("the file of salvaged records cannot be removed");
        }
    }
    if records > 0 {
        shared.tell(KeyedEvent::Salvaged { records });
    }
    if floor.ordinal.0 > 0 {
        shared.tell(KeyedEvent::HistoryLost { from: Ordinal(1), until: floor.ordinal });
    }
    Ok(true)
}

/// Writes one salvaged record; gives back where the store begins now.
fn bring_over(
    shared: &Shared,
    trees: &Trees,
    source: &dyn BlockSource,
    floor: Watermark,
    bytes: &[u8],
) -> Result<Option<Watermark>, KeyedError> {
    let mut before = Watermark { ordinal: Ordinal(floor.ordinal.0.saturating_sub(1)), sequence: floor.sequence };
    if bytes.is_empty() {
        shared.watch.call(Worker::Feeder, "salvaging", shared.times.call, || {
            apply::put_superseded(trees, floor.ordinal)?;
            apply::set_forgotten(trees, before)
        })?;
        return Ok(Some(before));
    }
    let Ok(block) = source.parse(bytes) else { return Ok(None) };
    if block.ordinal != floor.ordinal {
        return Ok(None);
    }
    before.sequence = Sequence(block.first.0.saturating_sub(1));
    let (prepared, _) = apply::prepare(source, block);
    shared.watch.call(Worker::Feeder, "salvaging", shared.times.call, || {
        apply::put_salvaged(trees, &prepared)?;
        apply::set_forgotten(trees, before)
    })?;
    Ok(Some(before))
}
